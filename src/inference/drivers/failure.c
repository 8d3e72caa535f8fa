/* What an error of a provider means: for the client a sentence, for other candidates and the breaker three facts. */
#include "inference/drivers/remote.h"

#include "base/bytes.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define EXTRACT_BYTES 300
#define CUT_BYTES     8

static const char *string_in(const cJSON *o, const char *key) {
    const cJSON *v = cJSON_IsObject(o) ? json_get(o, key) : NULL;
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

/* {"error": {"message"}} and its relatives. */
static const char *sentence_in(const cJSON *v) {
    const cJSON *x = json_get(v, "error");
    const char *s = string_in(x, "message");
    if (!s && cJSON_IsString(x)) s = x->valuestring;
    if (!s) s = string_in(v, "message");
    if (!s) s = string_in(v, "detail");
    if (!s) s = string_in(json_get(v, "detail") ? json_get(v, "detail")->child : NULL, "msg");
    return s;
}

/* A bounded part of what the provider says, without what must not be shown: nothing where it is a page. */
static void extract(char out[EXTRACT_BYTES + 8], const upstream_target *t, const char *s) {
    buf text = {.max = EXTRACT_BYTES * 8}, clean = {.max = EXTRACT_BYTES * 8};
    size_t n = strnlen(s, EXTRACT_BYTES * 4);
    bool cut = s[n] != 0;
    out[0] = 0;
    buf_append(&text, s, n);
    if (text.failed || !text.ptr) n = 0;
    if (n) upstream_scrub(t, text.ptr, n + 1);
    if (n) n = strlen(text.ptr);
    if (n && cut) n -= n < CUT_BYTES ? n : CUT_BYTES; /* what was cut cannot be recognised there */
    if (n) text_sanitise(&clean, text.ptr, n, false);
    n = clean.failed ? 0 : clean.len;
    cut |= n > EXTRACT_BYTES;
    if (n > EXTRACT_BYTES) n = EXTRACT_BYTES;
    if (n) n -= utf8_tail(clean.ptr, n);
    if (n) snprintf(out, EXTRACT_BYTES + 8, "%.*s%s", (int)n, clean.ptr, cut ? "…" : "");
    buf_free(&text);
    buf_free(&clean);
}

static err_code meaning(driver_failure *f, int status) {
    f->status = status;
    switch (status) {
    case 400:
    case 422: return ERR_INVALID;
    case 413: return ERR_TOO_LARGE;
    case 408:
    case 409:
    case 425: f->try_others = true; return ERR_UPSTREAM;
    case 429: f->try_others = true; return ERR_BUSY;
    default: f->try_others = f->provider = true; return ERR_UPSTREAM;
    }
}

err_code failure_of_sentence(driver_failure *f, const upstream_target *t, int status, int retry_after_s,
                             const char *sentence, err *e) {
    char said[EXTRACT_BYTES + 8] = "";
    err_code rc = meaning(f, status);
    f->retry_after_s = retry_after_s;
    if (status == 401 || status == 403) /* these sentences like to repeat what they refuse */
        return err_set(e, rc,
                       t->credential
                           ? "provider '%s' refused the credential (status %d); polder provider set-key %s "
                             "sets a new one"
                           : "provider '%s' wants a credential (status %d); polder provider set-key %s sets one",
                       t->provider, status, t->provider);
    if (sentence) extract(said, t, sentence);
    const char *colon = *said ? ": " : "";
    if (rc == ERR_INVALID || rc == ERR_TOO_LARGE)
        err_set(e, rc, "provider '%s' does not accept the request (status %d)%s%s", t->provider, status, colon, said);
    else if (rc == ERR_BUSY)
        err_set(e, rc, "provider '%s' takes no more requests now (status 429)%s%s", t->provider, colon, said);
    else if (status == 404)
        err_set(e, rc, "provider '%s' does not have '%s' (status 404)%s%s", t->provider, t->model, colon, said);
    else if (status >= 300 && status < 400)
        err_set(e, rc, "provider '%s' answers with a redirect (status %d), which is not followed: correct its url",
                t->provider, status);
    else
        err_set(e, rc, "provider '%s' answers with status %d%s%s", t->provider, status, colon, said);
    if (e) e->retry_after_s = retry_after_s;
    return rc;
}

err_code failure_of_status(driver_failure *f, const upstream_target *t, int status, int retry_after_s, const char *text,
                           size_t n, err *e) {
    cJSON *v = NULL;
    buf raw = {.max = UPSTREAM_ERROR_MAX};
    const char *s = NULL;
    if (n && json_parse(&v, text, n, "an error", NULL) == ERR_OK) {
        s = cJSON_IsObject(v) ? sentence_in(v) : NULL;
    } else if (n && *text != '<') {
        buf_append(&raw, text, n);
        s = raw.failed ? NULL : buf_str(&raw);
    }
    err_code rc = failure_of_sentence(f, t, status, retry_after_s, s, e);
    buf_free(&raw);
    cJSON_Delete(v);
    return rc;
}
