/* Two texts as one sequence, for models that rank. */
#include "engine/vocab/vocab_internal.h"

#include "base/mem.h"
#include "engine/engine.h"

typedef struct joining {
    const vocab *v;
    int32_t *ids;
    size_t n, max;
    buf text; /* of a form: what is not tokenized yet */
    err *e;
} joining;

static err_code add_ids(joining *j, const int32_t *ids, size_t n) {
    if (n > j->max - j->n)
        return err_set(j->e, ERR_TOO_LONG, "query and document are longer than %zu tokens together", j->max);
    int32_t *p = mem_realloc(j->ids, (j->n + n + 1) * sizeof *p);
    if (!p) return err_nomem(j->e, "tokens");
    j->ids = p;
    if (n) memcpy(p + j->n, ids, n * sizeof *p);
    j->n += n;
    return ERR_OK;
}

static err_code add_text(joining *j, const char *s, size_t len) {
    int32_t *ids = NULL;
    size_t n = 0;
    err_code rc = vocab_encode(j->v, s, len, 0, j->max, &ids, &n, j->e);
    if (rc == ERR_TOO_LONG) return add_ids(j, NULL, SIZE_MAX); /* its sentence */
    if (rc == ERR_OK) rc = add_ids(j, ids, n);
    mem_free(ids);
    return rc;
}

static err_code done(joining *j, err_code rc, int32_t **out, size_t *n) {
    buf_free(&j->text);
    if (rc != ERR_OK) {
        mem_free(j->ids);
        return rc;
    }
    *out = j->ids;
    *n = j->n;
    return ERR_OK;
}

/* ---- pairs: <s> query </s> document </s> ------------------------------------------------------------------ */

bool vocab_has_pairs(const vocab *v) {
    return v->n_before > 0 && v->n_after > 0;
}

err_code vocab_encode_pair(const vocab *v, const vocab_pair *p, size_t max_tokens, int32_t **out, size_t *n, err *e) {
    joining j = {.v = v, .max = max_tokens, .e = e};
    *out = NULL;
    *n = 0;
    err_code rc = add_ids(&j, v->before, v->n_before);
    if (rc == ERR_OK) rc = add_text(&j, p->query, p->query_len);
    if (rc == ERR_OK) rc = add_ids(&j, v->after, v->n_after);
    if (rc == ERR_OK && p->twice) rc = add_ids(&j, v->after, v->n_after);
    if (rc == ERR_OK) rc = add_text(&j, p->document, p->document_len);
    if (rc == ERR_OK) rc = add_ids(&j, v->after, v->n_after);
    return done(&j, rc, out, n);
}

/* ---- forms: text with {query} and {document} -------------------------------------------------------------- */

/* Special tokens of the form cut its text; between them the form's words and the two texts are tokenized as one piece,
 * with nothing special parsed. Only byte-level BPE gives every piece the tokens that it has in the whole text. */
bool vocab_can_fill_forms(const vocab *v) {
    return v->model == SPEC_BPE && v->prefix == SPEC_PREFIX_NONE;
}

static err_code flush_text(joining *j) {
    err_code rc = buf_check(&j->text, "query and document", j->e);
    if (rc == ERR_OK && j->text.len) rc = add_text(j, j->text.ptr, j->text.len);
    buf_reset(&j->text);
    return rc;
}

static bool begins(const char *s, const char *with, size_t *len) {
    *len = strlen(with);
    return strncmp(s, with, *len) == 0;
}

err_code vocab_fill_form(const vocab *v, const char *form, const vocab_pair *p, size_t max_tokens, int32_t **out,
                         size_t *n, err *e) {
    joining j = {.v = v, .max = max_tokens, .e = e};
    err_code rc = ERR_OK;
    *out = NULL;
    *n = 0;
    buf_init(&j.text, VOCAB_TEXT_MAX);
    for (size_t left = strlen(form), len; left && rc == ERR_OK; form += len, left -= len) {
        if (begins(form, "{query}", &len)) {
            buf_append(&j.text, p->query, p->query_len);
        } else if (begins(form, "{document}", &len)) {
            buf_append(&j.text, p->document, p->document_len);
        } else {
            int32_t id = v->raw.nodes ? special_match(v, &v->raw, form, left, true, &len) : -1;
            if (id < 0) {
                len = 1;
                buf_putc(&j.text, *form);
            } else {
                rc = flush_text(&j);
                if (rc == ERR_OK) rc = add_ids(&j, &id, 1);
            }
        }
    }
    if (rc == ERR_OK) rc = flush_text(&j);
    return done(&j, rc, out, n);
}
