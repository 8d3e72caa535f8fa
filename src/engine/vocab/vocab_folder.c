#include "engine/vocab/vocab_spec.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* The tokenizer of a folder as model hubs lay it out. */

#define JSON_BYTES_MAX   ((size_t)256 << 20)
#define CONFIG_BYTES_MAX ((size_t)16 << 20)

/* Whether there is such a file; then its content. */
static err_code read_file(buf *out, bool *there, const char *folder, const char *name, size_t max, err *e) {
    char path[4096];
    buf_init(out, max);
    err_code rc = path_join(path, sizeof path, e, folder, name);
    *there = rc == ERR_OK && file_exists(path);
    return *there ? file_read(out, path, e) : rc;
}

static spec_text_file text_of(const buf *b, bool there) {
    return there ? (spec_text_file){buf_str(b), b->len} : (spec_text_file){NULL, 0};
}

/* SentencePiece's own file begins with a field of its protocol buffer, tiktoken's with base64. */
static bool is_tiktoken(const buf *b) {
    size_t n = b->len < 64 ? b->len : 64;
    for (size_t i = 0; i < n; i++) {
        char c = b->ptr[i];
        if (c == ' ') return i > 0;
        bool base64 = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
                      c == '/' || c == '=';
        if (!base64) return false;
    }
    return false;
}

static err_code read_sources(vocab_spec **out, const char *folder, spec_sources *src, err *e) {
    static const char *const others[] = {"tiktoken.model", "tokenizer.model", "original/tokenizer.model"};
    buf text = {0};
    bool there = false;
    err_code rc = read_file(&text, &there, folder, "tokenizer.json", JSON_BYTES_MAX, e);
    if (rc == ERR_OK && there) {
        src->tokenizer = text_of(&text, true);
        rc = vocab_spec_from_json(out, src, e);
        buf_free(&text);
        return rc;
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0] && rc == ERR_OK; i++) {
        buf_free(&text);
        rc = read_file(&text, &there, folder, others[i], JSON_BYTES_MAX, e);
        if (rc != ERR_OK || !there) continue;
        if (is_tiktoken(&text)) {
            src->tokenizer = text_of(&text, true);
            rc = vocab_spec_from_tiktoken(out, src, e);
        } else {
            rc = err_set(e, ERR_UNSUPPORTED,
                         "%s: %s is SentencePiece's own file, which is not read; read are tokenizer.json and tiktoken "
                         "ranks",
                         folder, others[i]);
        }
        buf_free(&text);
        return rc;
    }
    buf_free(&text);
    if (rc != ERR_OK) return rc;
    return err_set(e, ERR_NOT_FOUND, "%s: there is no tokenizer.json, tiktoken.model or tokenizer.model", folder);
}

err_code vocab_spec_from_folder(vocab_spec **out, const char *folder, err *e) {
    *out = NULL;
    buf config = {0}, generation = {0};
    bool has_config = false, has_generation = false;
    spec_sources src = {.name = folder};
    err_code rc = read_file(&config, &has_config, folder, "tokenizer_config.json", CONFIG_BYTES_MAX, e);
    if (rc == ERR_OK)
        rc = read_file(&generation, &has_generation, folder, "generation_config.json", CONFIG_BYTES_MAX, e);
    src.config = text_of(&config, has_config);
    src.generation = text_of(&generation, has_generation);
    if (rc == ERR_OK) rc = read_sources(out, folder, &src, e);
    buf_free(&config);
    buf_free(&generation);
    return rc;
}

err_code vocab_spec_pad(vocab_spec *s, uint32_t n, err *e) {
    if (n <= s->n_tokens) return ERR_OK;
    spec_token *t = mem_realloc(s->tokens, (size_t)n * sizeof *t);
    if (!t) return err_nomem(e, "the vocabulary");
    s->tokens = t;
    for (uint32_t i = s->n_tokens; i < n; i++) t[i] = (spec_token){.type = TYPE_UNUSED};
    s->n_tokens = n;
    return ERR_OK;
}
