/* For tests: a complete llama GGUF with random weights, made in memory, small enough for thousands of opens. */
#ifndef POLDER_TESTS_TINY_MODEL_H
#define POLDER_TESTS_TINY_MODEL_H

#include "gguf_edit.h"

#include <math.h>
#include <stdio.h>

typedef struct tiny {
    uint32_t n_layer, d, n_head, n_kv, head, ff, n_ctx;
    uint32_t type; /* of matrices: 0 F32, 8 Q8_0, 2 Q4_0; widths must then be multiples of 32 */
    bool tied, biases;
    const char *chat_template;
} tiny;

#define TINY_VOCAB 272 /* <unk> <s> </s>, 256 bytes, 13 letters */

static inline uint32_t tiny_rng(uint64_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return (uint32_t)(*s >> 20);
}

static inline void tiny_pad(buf *b) {
    while (b->len % 32) buf_putc(b, 0);
}

typedef struct tiny_writer {
    buf *infos, *data;
    uint32_t type;
    uint64_t n, rng;
} tiny_writer;

static inline void tiny_tensor(tiny_writer *w, const char *name, uint32_t rows, uint32_t cols) {
    bool is_matrix = rows > 0;
    uint32_t type = is_matrix ? w->type : 0;
    uint64_t n = (uint64_t)cols * (is_matrix ? rows : 1);
    tiny_pad(w->data);
    edit_put_str(w->infos, name);
    edit_put(w->infos, is_matrix ? 2 : 1, 4);
    edit_put(w->infos, cols, 8);
    if (is_matrix) edit_put(w->infos, rows, 8);
    edit_put(w->infos, type, 4);
    edit_put(w->infos, w->data->len, 8);
    w->n++;
    if (type == 0) {
        for (uint64_t i = 0; i < n; i++) {
            float r = (float)(tiny_rng(&w->rng) % 20001) / 10000 - 1,
                  f = is_matrix ? 3 * r / sqrtf((float)cols) : 1 + r / 4;
            uint32_t u;
            memcpy(&u, &f, 4);
            edit_put(w->data, u, 4);
        }
        return;
    }
    for (uint64_t i = 0; i < n / 32; i++) { /* a half-precision scale of 2^-8 or 2^-5, then random weights */
        edit_put(w->data, type == 8 ? 0x1c00 : 0x2800, 2);
        for (int k = 0; k < (type == 8 ? 32 : 16); k++) edit_put(w->data, tiny_rng(&w->rng) & 255, 1);
    }
}

static inline void tiny_named(tiny_writer *w, uint32_t layer, const char *name, uint32_t rows, uint32_t cols) {
    char full[64];
    snprintf(full, sizeof full, "blk.%u.%s", layer, name);
    tiny_tensor(w, full, rows, cols);
}

static inline void tiny_layer(tiny_writer *w, const tiny *t, uint32_t i) {
    tiny_named(w, i, "attn_norm.weight", 0, t->d);
    tiny_named(w, i, "ffn_norm.weight", 0, t->d);
    tiny_named(w, i, "attn_q.weight", t->n_head * t->head, t->d);
    tiny_named(w, i, "attn_k.weight", t->n_kv * t->head, t->d);
    tiny_named(w, i, "attn_v.weight", t->n_kv * t->head, t->d);
    tiny_named(w, i, "attn_output.weight", t->d, t->n_head * t->head);
    tiny_named(w, i, "ffn_gate.weight", t->ff, t->d);
    tiny_named(w, i, "ffn_up.weight", t->ff, t->d);
    tiny_named(w, i, "ffn_down.weight", t->d, t->ff);
    if (!t->biases) return;
    tiny_named(w, i, "attn_q.bias", 0, t->n_head * t->head);
    tiny_named(w, i, "attn_k.bias", 0, t->n_kv * t->head);
    tiny_named(w, i, "attn_v.bias", 0, t->n_kv * t->head);
    tiny_named(w, i, "attn_output.bias", 0, t->d);
    tiny_named(w, i, "ffn_gate.bias", 0, t->ff);
    tiny_named(w, i, "ffn_up.bias", 0, t->ff);
    tiny_named(w, i, "ffn_down.bias", 0, t->d);
}

static inline uint64_t tiny_tokenizer(buf *b) {
    edit_put_string(b, "tokenizer.ggml.model", "llama");
    edit_put_str(b, "tokenizer.ggml.tokens");
    edit_put(b, 9, 4);
    edit_put(b, 8, 4);
    edit_put(b, TINY_VOCAB, 8);
    for (int i = 0; i < TINY_VOCAB; i++) {
        char s[16];
        if (i < 3)
            snprintf(s, sizeof s, "%s", i == 0 ? "<unk>" : i == 1 ? "<s>" : "</s>");
        else if (i < 259)
            snprintf(s, sizeof s, "<0x%02X>", i - 3);
        else
            snprintf(s, sizeof s, "%c", 'a' + i - 259);
        edit_put_str(b, s);
    }
    edit_put_str(b, "tokenizer.ggml.scores");
    edit_put(b, 9, 4);
    edit_put(b, 6, 4);
    edit_put(b, TINY_VOCAB, 8);
    for (int i = 0; i < TINY_VOCAB; i++) edit_put(b, 0, 4);
    edit_put_str(b, "tokenizer.ggml.token_type");
    edit_put(b, 9, 4);
    edit_put(b, 5, 4);
    edit_put(b, TINY_VOCAB, 8);
    for (int i = 0; i < TINY_VOCAB; i++) edit_put(b, i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1, 4);
    edit_put_u32(b, "tokenizer.ggml.bos_token_id", 1);
    edit_put_u32(b, "tokenizer.ggml.eos_token_id", 2);
    return 6;
}

static inline uint64_t tiny_keys(buf *b, const tiny *t) {
    edit_put_string(b, "general.architecture", "llama");
    edit_put_string(b, "general.name", "tiny");
    edit_put_u32(b, "llama.block_count", t->n_layer);
    edit_put_u32(b, "llama.embedding_length", t->d);
    edit_put_u32(b, "llama.context_length", t->n_ctx);
    edit_put_u32(b, "llama.feed_forward_length", t->ff);
    edit_put_u32(b, "llama.attention.head_count", t->n_head);
    edit_put_u32(b, "llama.attention.head_count_kv", t->n_kv);
    edit_put_u32(b, "llama.attention.key_length", t->head);
    edit_put_u32(b, "llama.attention.value_length", t->head);
    edit_put_u32(b, "llama.rope.dimension_count", t->head);
    edit_put_f32(b, "llama.rope.freq_base", 10000);
    edit_put_f32(b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    if (t->chat_template) edit_put_string(b, "tokenizer.chat_template", t->chat_template);
    return 13 + (t->chat_template != NULL) + tiny_tokenizer(b);
}

/* The file's bytes; buf_free by the caller. Returns where the data starts: with the rows of token_embd. */
static inline size_t tiny_make(buf *out, const tiny *t, uint64_t seed) {
    buf kvs = {.max = 1u << 20}, infos = {.max = 1u << 20}, data = {.max = 64u << 20};
    tiny_writer w = {&infos, &data, t->type, 0, seed * 2654435761u + 88172645463325252u};
    uint64_t n_kv = tiny_keys(&kvs, t);
    tiny_tensor(&w, "token_embd.weight", TINY_VOCAB, t->d);
    tiny_tensor(&w, "output_norm.weight", 0, t->d);
    if (!t->tied) tiny_tensor(&w, "output.weight", TINY_VOCAB, t->d);
    for (uint32_t i = 0; i < t->n_layer; i++) tiny_layer(&w, t, i);
    out->max = 128u << 20;
    buf_puts(out, "GGUF");
    edit_put(out, 3, 4);
    edit_put(out, w.n, 8);
    edit_put(out, n_kv, 8);
    buf_append(out, kvs.ptr, kvs.len);
    buf_append(out, infos.ptr, infos.len);
    tiny_pad(out);
    size_t at = out->len;
    buf_append(out, data.ptr, data.len);
    buf_free(&kvs);
    buf_free(&infos);
    buf_free(&data);
    return at;
}

#endif
