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
    r->contents = (content_set){0};
    r->more = NULL;
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

void record_use_up(record *r) {
    contents_free(&r->contents);
    jflat_free(&r->fields);
    jflat_free(&r->told);
    cJSON_Delete(r->body);
    r->body = NULL;
    arena_free(r->more);
    r->more = NULL;
}

void record_free(record *r) {
    if (!r) return;
    record_use_up(r);
    mem_free(r);
}

jflat *record_fields(record *r) {
    return &r->fields;
}

cJSON *record_body(record *r) {
    if (!r->body) r->body = cJSON_CreateObject();
    return r->body;
}

static const char *keep_name(record *r, const char *name) {
    size_t n = strlen(name);
    if (r->contents.n <= CONTENTS_FEW) return memcpy(r->few[r->contents.n - 1], name, n + 1);
    if (!r->more) r->more = arena_new(CONTENTS_MAX * 2 * (CONTENT_NAME_MAX + 1));
    return r->more ? arena_strndup(r->more, name, n) : NULL;
}

/* {"bytes": n, "commit": hex} under the content's name. */
static void describe(jflat *told, const char *name, const content_view *c) {
    uint8_t mac[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    hmac_sha256(mac, c->salt, SALT_LEN, c->bytes, c->len);
    hex_encode(hex, mac, sizeof mac);
    if (!told->n) (void)buf_reserve(&told->text, TOLD_USUAL);
    jflat_obj(told, name);
    jflat_num(told, "bytes", (double)c->len);
    jflat_str(told, "commit", hex);
    jflat_end(told);
}

err_code record_content(record *r, const char *name, const void *p, size_t n, err *e) {
    content_view c;
    err_code rc = contents_add(&r->contents, name, p, n, &c, e);
    if (rc != ERR_OK) return rc;
    const char *kept = keep_name(r, name);
    if (!kept) return err_nomem(e, "a record's content");
    describe(&r->told, kept, &c);
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
