#include "audit/internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <string.h>

#define FIELDS_USUAL 1200u /* bytes that most records' fields fit into */
#define TOLD_USUAL   400u  /* and what is told of their contents */

err_code record_new(record **out, const char *event, err *e) {
    char when[32];
    time_rfc3339(when, time_unix_ms());
    record *r = mem_alloc(sizeof *r);
    *out = NULL;
    if (!r) return err_nomem(e, "a ledger record");
    jflat_init(&r->fields, LEDGER_ENTRY_MAX);
    jflat_init(&r->told, LEDGER_ENTRY_MAX);
    r->body = NULL;
    r->contents = r->few;
    r->n_contents = 0;
    r->cap_contents = CONTENTS_FEW;
    r->contents_len = 0;
    (void)buf_reserve(&r->fields.text, FIELDS_USUAL);
    jflat_num(&r->fields, "v", 1);
    jflat_str(&r->fields, "time", when);
    jflat_str(&r->fields, "event", event);
    err_code rc = jflat_check(&r->fields, "a ledger record", e);
    if (rc) {
        record_free(r);
        return rc;
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
    mem_wipe(r->contents, r->n_contents * sizeof *r->contents);
    if (r->contents != r->few) mem_free(r->contents);
    jflat_free(&r->fields);
    jflat_free(&r->told);
    cJSON_Delete(r->body);
    mem_free(r);
}

jflat *record_fields(record *r) {
    return &r->fields;
}

cJSON *record_body(record *r) {
    if (!r->body) r->body = cJSON_CreateObject();
    return r->body;
}

/* Room for one more content. Salts are wiped where they lay before. */
static bool make_room(record *r) {
    if (r->n_contents < r->cap_contents) return true;
    unsigned cap = 4 * r->cap_contents; /* up to CONTENTS_MAX */
    content *more = mem_array(cap, sizeof *more);
    if (!more) return false;
    memcpy(more, r->contents, r->n_contents * sizeof *more);
    mem_wipe(r->contents, r->n_contents * sizeof *more);
    if (r->contents != r->few) mem_free(r->contents);
    r->contents = more;
    r->cap_contents = cap;
    return true;
}

/* {"bytes": n, "commit": hex} under the content's name. */
static void describe(jflat *told, const content *c) {
    uint8_t mac[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    hmac_sha256(mac, c->salt, SALT_LEN, c->bytes, c->len);
    hex_encode(hex, mac, sizeof mac);
    if (!told->n) (void)buf_reserve(&told->text, TOLD_USUAL);
    jflat_obj(told, c->name);
    jflat_num(told, "bytes", (double)c->len);
    jflat_str(told, "commit", hex);
    jflat_end(told);
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
    size_t name_len = strlen(name);
    c->bytes = mem_alloc(n + name_len + 1); /* the name stands behind them: it does not move as this list does */
    if (!c->bytes) return err_nomem(e, "a record's content");
    if (n) memcpy(c->bytes, p, n);
    c->len = n;
    c->name = memcpy(c->bytes + n, name, name_len + 1);
    random_bytes(c->salt, sizeof c->salt);
    describe(&r->told, c);
    r->n_contents++; /* it is told of, so it is the record's, whatever becomes of that */
    r->contents_len += n;
    return jflat_check(&r->told, "a record's content", e);
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
    /* What would not read back is refused: a repeated key, nesting past the limit, broken UTF-8. */
    jflat more;
    jflat_init(&more, LEDGER_ENTRY_MAX);
    for (const cJSON *v = r->body ? r->body->child : NULL; v; v = v->next) jflat_tree(&more, v->string, v);
    if (r->told.n) {
        (void)buf_reserve(&more.text, r->told.text.len + sizeof "\"content\":{},");
        jflat_object(&more, "content", &r->told);
    }
    err_code rc = jflat_write(&r->fields, &more, out, e);
    jflat_free(&more);
    if (rc == ERR_OK) rc = buf_check(out, "record", e);
    if (rc != ERR_OK) return err_prefix(e, "record"), rc;
    return ERR_OK;
}
