/* For tests and fuzzing: small vocabularies as GGUF files in memory. They hold every byte, so that any text can be
 * encoded, and a few merges or pieces that overlap in the ways that real ones do. */
#ifndef POLDER_TESTS_VOCAB_MAKE_H
#define POLDER_TESTS_VOCAB_MAKE_H

#include <stdio.h>

#include "engine/files/gguf.h"
#include "engine/vocab/vocab.h"
#include "unit/engine/gguf_edit.h"

typedef struct made { /* tokenizer keys under construction */
    buf tokens, types, scores, merges, more;
    uint32_t n_tokens, n_merges, n_more;
} made;

static inline void made_init(made *m) {
    memset(m, 0, sizeof *m);
    m->tokens.max = m->types.max = m->scores.max = m->merges.max = m->more.max = 1u << 24;
}
static inline void made_free(made *m) {
    buf_free(&m->tokens);
    buf_free(&m->types);
    buf_free(&m->scores);
    buf_free(&m->merges);
    buf_free(&m->more);
}
static inline void made_token(made *m, const char *text, size_t len, int type, float score) {
    uint32_t u;
    memcpy(&u, &score, 4);
    edit_put(&m->tokens, len, 8);
    buf_append(&m->tokens, text, len);
    edit_put(&m->types, (uint32_t)type, 4);
    edit_put(&m->scores, u, 4);
    m->n_tokens++;
}
/* Bytes as byte-level BPE writes them. */
static inline void made_chars(buf *out, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint8_t b = (uint8_t)bytes[i];
        uint32_t cp = b;
        if (b <= 32)
            cp = 0x100u + b;
        else if (b >= 127 && b <= 160)
            cp = 0x100u + 33 + b - 127;
        else if (b == 173)
            cp = 0x143;
        char c[4];
        int k = utf8_encode(c, cp);
        buf_append(out, c, (size_t)k);
    }
}
static inline void made_bpe_token(made *m, const char *bytes, size_t n) {
    buf b = {.max = 4096};
    made_chars(&b, bytes, n);
    made_token(m, b.ptr, b.len, 1, 0);
    buf_free(&b);
}
/* A merge of two tokens given as bytes, and the token it makes. */
static inline void made_merge(made *m, const char *left, const char *right) {
    buf b = {.max = 4096};
    made_chars(&b, left, strlen(left));
    buf_putc(&b, ' ');
    made_chars(&b, right, strlen(right));
    edit_put(&m->merges, b.len, 8);
    buf_append(&m->merges, b.ptr, b.len);
    m->n_merges++;
    buf_reset(&b);
    buf_printf(&b, "%s%s", left, right);
    made_bpe_token(m, b.ptr, b.len);
    buf_free(&b);
}
static inline void made_array(buf *out, const char *key, uint32_t type, uint32_t n, const buf *values) {
    edit_put_str(out, key);
    edit_put(out, 9, 4);
    edit_put(out, type, 4);
    edit_put(out, n, 8);
    buf_append(out, buf_str(values), values->len);
}
static inline void made_u32(made *m, const char *key, uint32_t v) {
    edit_put_u32(&m->more, key, v);
    m->n_more++;
}
static inline void made_string(made *m, const char *key, const char *v) {
    edit_put_string(&m->more, key, v);
    m->n_more++;
}
static inline void made_bool(made *m, const char *key, bool v) {
    edit_put_str(&m->more, key);
    edit_put(&m->more, 7, 4);
    buf_putc(&m->more, (char)v);
    m->n_more++;
}
/* The file. Arrays without elements are left out, and scores that are not for every token. */
static inline void made_file(const made *m, buf *out) {
    uint32_t n = (m->tokens.len > 0) + (m->types.len > 0) + (m->scores.len == 4u * m->n_tokens) + (m->merges.len > 0) +
                 m->n_more;
    buf_puts(out, "GGUF");
    edit_put(out, 3, 4);
    edit_put(out, 0, 8);
    edit_put(out, n, 8);
    if (m->tokens.len) made_array(out, "tokenizer.ggml.tokens", 8, m->n_tokens, &m->tokens);
    if (m->types.len) made_array(out, "tokenizer.ggml.token_type", 5, m->n_tokens, &m->types);
    if (m->scores.len == 4u * m->n_tokens) made_array(out, "tokenizer.ggml.scores", 6, m->n_tokens, &m->scores);
    if (m->merges.len) made_array(out, "tokenizer.ggml.merges", 8, m->n_merges, &m->merges);
    buf_append(out, buf_str(&m->more), m->more.len);
}

enum { MADE_BPE_USER = 256, MADE_BPE_BOS, MADE_BPE_END };
/* Byte-level BPE: ids 0 to 255 are the bytes, then <|tool|> (user-defined), <|bos|>, <|end|> (control), then merges. */
static inline void made_bpe(made *m, const char *pre) {
    static const char *const merges[][2] = {
        {"t", "h"},           {"th", "e"},
        {" ", "t"},           {" t", "he"},
        {"h", "e"},           {"a", "a"},
        {"aa", "aa"},         {"aaaa", "aaaa"},
        {" ", " "},           {"  ", "  "},
        {"\n", "\n"},         {"\xc3", "\xa9"},
        {"\xcc", "\x81"},     {"\xcc\x81", "\xcc\x81"},
        {"1", "2"},           {"12", "3"},
        {"e", "\xcc\x81"},    {"l", "l"},
        {"o", " "},           {"he", "ll"},
        {"\xe6\x97", "\xa5"},
    };
    made_init(m);
    for (int b = 0; b < 256; b++) {
        char c = (char)b;
        made_bpe_token(m, &c, 1);
    }
    made_token(m, "<|tool|>", 8, 4, 0);
    made_token(m, "<|bos|>", 7, 3, 0);
    made_token(m, "<|end|>", 7, 3, 0);
    made_bpe_token(m, "\xe6\x97", 2);
    edit_put(&m->merges, 5, 8); /* the half of a character that a later merge completes */
    made_chars(&m->merges, "\xe6", 1);
    buf_putc(&m->merges, ' ');
    made_chars(&m->merges, "\x97", 1);
    m->n_merges++;
    for (size_t i = 0; i < sizeof merges / sizeof merges[0]; i++) made_merge(m, merges[i][0], merges[i][1]);
    buf_free(&m->scores);
    made_string(m, "tokenizer.ggml.model", "gpt2");
    made_string(m, "tokenizer.ggml.pre", pre);
    made_u32(m, "tokenizer.ggml.bos_token_id", MADE_BPE_BOS);
    made_u32(m, "tokenizer.ggml.eos_token_id", MADE_BPE_END);
}

enum { MADE_SPM_UNK, MADE_SPM_BOS, MADE_SPM_EOS, MADE_SPM_BYTES, MADE_SPM_USER = 259 };
/* SentencePiece: <unk>, <s>, </s>, the 256 bytes, <|tool|> (user-defined), then pieces. */
static inline void made_spm(made *m, bool bytes, bool prefix) {
    static const struct {
        const char *text;
        float score;
    } pieces[] = {
        {"\xe2\x96\x81t", -1},
        {"th", -2},
        {"he", -3},
        {"\xe2\x96\x81th", -4},
        {"\xe2\x96\x81the", -5},
        {"aa", -6},
        {"aaaa", -7},
        {"aaaaaaaa", -8},
        {"\xe2\x96\x81\xe2\x96\x81", -9},
        {"\xe2\x96\x81\xe2\x96\x81\xe2\x96\x81\xe2\x96\x81", -10},
        {"s>", -11},
        {"<s", -12},
        {"ll", -13},
        {"\xcc\x81\xcc\x81", -13},
        {"\xe2\x96\x81", -20},
        {"t", -21},
        {"h", -22},
        {"e", -23},
        {"a", -24},
        {"l", -25},
        {"s", -26},
        {"<", -27},
        {">", -28},
        {"\xc3\xa9", -29},
        {"\xcc\x81", -30},
    };
    char text[8];
    made_init(m);
    made_token(m, "<unk>", 5, 2, 0);
    made_token(m, "<s>", 3, 3, 0);
    made_token(m, "</s>", 4, 3, 0);
    for (int b = 0; bytes && b < 256; b++) {
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        made_token(m, text, 6, 6, 0);
    }
    made_token(m, "<|tool|>", 8, 4, 0);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
        made_token(m, pieces[i].text, strlen(pieces[i].text), 1, pieces[i].score);
    made_string(m, "tokenizer.ggml.model", "llama");
    made_bool(m, "tokenizer.ggml.add_space_prefix", prefix);
}

/* Loads what was made; frees m. */
static inline err_code made_load(made *m, vocab **out, err *e) {
    buf file = {.max = 1u << 26};
    gguf *g = NULL;
    *out = NULL;
    made_file(m, &file);
    err_code rc = gguf_open_memory(&g, file.ptr, file.len, "made.gguf", e);
    if (rc == ERR_OK) rc = vocab_new(out, g, e);
    gguf_free(g);
    buf_free(&file);
    made_free(m);
    return rc;
}

#endif
