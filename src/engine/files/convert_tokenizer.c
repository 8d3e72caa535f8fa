/* The tokenizer's keys and the chat template. */
#include "engine/files/convert.h"
#include "engine/vocab/vocab_spec.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define TEMPLATE_MAX ((size_t)16 << 20)

/* ---- vocab_spec to keys ----------------------------------------------------------------------------------- */

static err_code put_str(void *w, const char *key, const char *p, size_t n, err *e) {
    (void)e;
    gguf_put_str(w, key, p, n);
    return ERR_OK;
}
static err_code put_u32(void *w, const char *key, uint32_t v, err *e) {
    (void)e;
    gguf_put_u32(w, key, v);
    return ERR_OK;
}
static err_code put_flag(void *w, const char *key, bool v, err *e) {
    (void)e;
    gguf_put_bool(w, key, v);
    return ERR_OK;
}
static err_code put_strs(void *w, const char *key, const gguf_str *p, size_t n, err *e) {
    (void)e;
    gguf_put_strs(w, key, p, n);
    return ERR_OK;
}
static err_code put_i32s(void *w, const char *key, const int32_t *p, size_t n, err *e) {
    (void)e;
    gguf_put_i32s(w, key, p, n);
    return ERR_OK;
}
static err_code put_f32s(void *w, const char *key, const float *p, size_t n, err *e) {
    (void)e;
    gguf_put_f32s(w, key, p, n);
    return ERR_OK;
}
static err_code put_u8s(void *w, const char *key, const uint8_t *p, size_t n, err *e) {
    (void)e;
    gguf_put_u8s(w, key, p, n);
    return ERR_OK;
}

/* ---- as many tokens as the embeddings have rows ------------------------------------------------------------ */

static uint64_t embedding_rows(const convert *c) {
    for (size_t i = 0; i < c->n_outs; i++)
        if (strcmp(c->outs[i].name, "token_embd.weight") == 0) return c->outs[i].rows;
    return 0;
}

/* Checkpoints round their embeddings up: rows without a token get a name that no text becomes. */
static err_code pad(vocab_spec *s, uint32_t n, err *e) {
    size_t more = (size_t)(n - s->n_tokens) * 20;
    spec_token *tokens = mem_realloc(s->tokens, n * sizeof *tokens);
    if (tokens) s->tokens = tokens;
    char *bytes = tokens && s->n_bytes + more <= UINT32_MAX ? mem_realloc(s->bytes, s->n_bytes + more) : NULL;
    if (!bytes) return err_nomem(e, "the vocabulary");
    s->bytes = bytes;
    for (uint32_t i = s->n_tokens; i < n; i++) {
        int len = snprintf(bytes + s->n_bytes, 20, "[PAD%u]", i);
        s->tokens[i] = (spec_token){.text = (uint32_t)s->n_bytes, .len = (uint32_t)len, .type = TYPE_UNUSED};
        if (s->model == SPEC_SPM || s->model == SPEC_UNIGRAM) s->tokens[i].score = -10000;
        s->n_bytes += (size_t)len;
    }
    s->n_tokens = n;
    return ERR_OK;
}

static void forget_past(int32_t *id, uint32_t n) {
    if (*id >= 0 && (uint32_t)*id >= n) *id = -1;
}

/* Tokens past the embeddings (pictures' placeholders of a text-only model) are nothing the model could read. */
static err_code cut(convert *c, vocab_spec *s, uint32_t n, err *e) {
    for (uint32_t i = n; i < s->n_tokens; i++)
        if (s->tokens[i].type == TYPE_NORMAL || s->tokens[i].type == TYPE_BYTE)
            return err_set(e, ERR_INVALID, "%s: the tokenizer has %u tokens, the embeddings have %u rows", c->dir,
                           s->n_tokens, n);
    err_code rc =
        convert_note(c, e, "%u special tokens left out: the embeddings have no rows for them", s->n_tokens - n);
    int32_t *const ids[] = {&s->bos, &s->eos, &s->eot, &s->eom, &s->unk, &s->pad, &s->sep, &s->cls, &s->mask};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) forget_past(ids[i], n);
    uint8_t k = 0;
    for (uint8_t i = 0; i < s->n_ends; i++)
        if ((uint32_t)s->ends[i] < n) s->ends[k++] = s->ends[i];
    s->n_ends = k;
    s->n_tokens = n;
    return rc;
}

static err_code fit(convert *c, vocab_spec *s, err *e) {
    uint64_t n = embedding_rows(c);
    if (n == 0 || n > UINT32_MAX) return err_set(e, ERR_INVALID, "%s: no embeddings", c->dir);
    if (n > s->n_tokens) return pad(s, (uint32_t)n, e);
    return n < s->n_tokens ? cut(c, s, (uint32_t)n, e) : ERR_OK;
}

/* ---- the chat template ------------------------------------------------------------------------------------ */

static err_code read_beside(const convert *c, const char *name, buf *out, bool *there, err *e) {
    char path[4096];
    err_code rc = path_join(path, sizeof path, e, c->dir, name);
    *there = !rc && file_exists(path);
    return *there ? file_read(out, path, e) : rc;
}

/* "chat_template": a text, or [{"name", "template"}] with "default" among them. */
static const char *template_of(const cJSON *v) {
    const cJSON *t = json_get(v, "chat_template"), *one;
    if (cJSON_IsString(t)) return t->valuestring;
    cJSON_ArrayForEach(one, t) {
        const cJSON *name = json_get(one, "name"), *text = json_get(one, "template");
        if (cJSON_IsString(name) && cJSON_IsString(text) && strcmp(name->valuestring, "default") == 0)
            return text->valuestring;
    }
    return NULL;
}

static err_code template_keys(convert *c, err *e) {
    static const char *const files[] = {"chat_template.jinja", "chat_template.json", "tokenizer_config.json"};
    bool done = false;
    err_code rc = ERR_OK;
    for (size_t i = 0; i < 3 && !rc && !done; i++) {
        buf text = {.max = TEMPLATE_MAX};
        cJSON *v = NULL;
        bool there;
        rc = read_beside(c, files[i], &text, &there, e);
        const char *t = i == 0 && there ? buf_str(&text) : NULL;
        if (!rc && there && i > 0) {
            rc = json_parse(&v, buf_str(&text), text.len, files[i], e);
            t = rc ? NULL : template_of(v);
        }
        if (!rc && t && *t) {
            gguf_put_text(c->w, "tokenizer.chat_template", t);
            done = true;
        }
        cJSON_Delete(v);
        buf_free(&text);
    }
    return rc;
}

err_code convert_tokenizer_keys(convert *c, err *e) {
    const spec_sink sink = {c->w, put_str, put_u32, put_flag, put_strs, put_i32s, put_f32s, put_u8s};
    vocab_spec *s = NULL;
    err_code rc = vocab_spec_from_folder(&s, c->dir, e);
    if (!rc) rc = fit(c, s, e);
    if (!rc) rc = vocab_spec_write(s, &sink, e);
    vocab_spec_free(s);
    return rc ? rc : template_keys(c, e);
}
