#include "audit/internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <string.h>

/* Takes v over. The key is a literal. */
static bool put(cJSON *o, const char *key, cJSON *v) {
    if (v && cJSON_AddItemToObjectCS(o, key, v)) return true;
    cJSON_Delete(v);
    return false;
}

err_code record_new(record **out, const char *event, err *e) {
    char when[32];
    time_rfc3339(when, time_unix_ms());
    record *r = mem_zalloc(sizeof *r);
    *out = NULL;
    if (!r) return err_nomem(e, "a ledger record");
    r->body = cJSON_CreateObject();
    if (!r->body || !put(r->body, "v", cJSON_CreateNumber(1)) || !put(r->body, "time", cJSON_CreateString(when)) ||
        !put(r->body, "event", cJSON_CreateString(event))) {
        record_free(r);
        return err_nomem(e, "a ledger record");
    }
    *out = r;
    return ERR_OK;
}

void record_free(record *r) {
    if (!r) return;
    for (unsigned i = 0; i < r->n_contents; i++) {
        mem_wipe(r->contents[i].bytes, r->contents[i].len);
        mem_free(r->contents[i].bytes);
    }
    if (r->contents) mem_wipe(r->contents, r->n_contents * sizeof *r->contents);
    mem_free(r->contents);
    cJSON_Delete(r->body);
    mem_free(r);
}

cJSON *record_body(record *r) {
    return r->body;
}

/* Room for one more content. Salts are wiped where they lay before. */
static bool make_room(record *r) {
    if (r->n_contents < r->cap_contents) return true;
    unsigned cap = r->cap_contents ? 4 * r->cap_contents : 4; /* up to CONTENTS_MAX */
    content *more = mem_array(cap, sizeof *more);
    if (!more) return false;
    if (r->n_contents) memcpy(more, r->contents, r->n_contents * sizeof *more);
    if (r->contents) mem_wipe(r->contents, r->n_contents * sizeof *more);
    mem_free(r->contents);
    r->contents = more;
    r->cap_contents = cap;
    return true;
}

/* Put {"bytes": n, "commit": hex} under "content". */
static bool describe(cJSON *body, const content *c) {
    uint8_t mac[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    cJSON *all = cJSON_GetObjectItemCaseSensitive(body, "content");
    if (!all) all = cJSON_AddObjectToObject(body, "content");
    if (!all) return false;
    cJSON *one = cJSON_AddObjectToObject(all, c->name);
    hmac_sha256(mac, c->salt, SALT_LEN, c->bytes, c->len);
    hex_encode(hex, mac, sizeof mac);
    if (one && put(one, "bytes", cJSON_CreateNumber((double)c->len)) && put(one, "commit", cJSON_CreateString(hex)))
        return true;
    cJSON_DeleteItemFromObjectCaseSensitive(all, c->name);
    return false;
}

err_code record_content(record *r, const char *name, const void *p, size_t n, err *e) {
    if (!content_name_valid(name))
        return err_set(e, ERR_INVALID, "content %s: a content's name is 1 to %u letters a to z and '_'", name,
                       CONTENT_NAME_MAX);
    for (unsigned i = 0; i < r->n_contents; i++)
        if (strcmp(r->contents[i].name, name) == 0)
            return err_set(e, ERR_EXISTS, "content %s: the record has one of this name already", name);
    if (r->n_contents == CONTENTS_MAX)
        return err_set(e, ERR_TOO_LARGE, "content %s: a record has at most %u contents", name, CONTENTS_MAX);
    if (n > LEDGER_CONTENT_MAX - r->contents_len)
        return err_set(e, ERR_TOO_LARGE, "content %s: the contents of a record have at most %u bytes together", name,
                       LEDGER_CONTENT_MAX);
    if (!make_room(r)) return err_nomem(e, "a record's content");
    content *c = &r->contents[r->n_contents];
    memset(c, 0, sizeof *c);
    memcpy(c->name, name, strlen(name));
    random_bytes(c->salt, sizeof c->salt);
    c->bytes = mem_alloc(n);
    if (!c->bytes) return err_nomem(e, "a record's content");
    if (n) memcpy(c->bytes, p, n);
    c->len = n;
    if (!describe(r->body, c)) {
        mem_wipe(c->bytes, n);
        mem_free(c->bytes);
        return err_nomem(e, "a record's content");
    }
    r->n_contents++;
    r->contents_len += n;
    return ERR_OK;
}

err_code entry_check(const void *p, size_t n, err *e) {
    cJSON *v = NULL;
    buf again = {.max = LEDGER_ENTRY_MAX};
    err_code rc = json_parse(&v, p, n, "entry", e);
    if (rc == ERR_OK && !cJSON_IsObject(v)) rc = err_set(e, ERR_INVALID, "entry: not a JSON object");
    if (rc == ERR_OK) rc = json_canonical(&again, v, e);
    if (rc == ERR_OK) rc = buf_check(&again, "entry", e);
    if (rc == ERR_OK && (again.len != n || memcmp(again.ptr, p, n) != 0))
        rc = err_set(e, ERR_INVALID, "entry: not canonical JSON (RFC 8785)");
    cJSON_Delete(v);
    buf_free(&again);
    return rc;
}

err_code record_bytes(const record *r, buf *out, err *e) {
    /* json_canonical refuses what would not read back: a repeated key, nesting past the limit, broken UTF-8. */
    err_code rc = json_canonical(out, r->body, e);
    if (rc == ERR_OK) rc = buf_check(out, "record", e);
    if (rc != ERR_OK) return err_prefix(e, "record"), rc;
    return ERR_OK;
}
