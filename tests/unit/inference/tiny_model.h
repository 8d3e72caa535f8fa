/* For tests: a small llama with random weights and a tokenizer with special tokens, written as GGUF from nothing, so
 * that no test of this room needs a file from elsewhere. Two tokenizers: "spm" (bytes and a few pieces) and "bpe"
 * (bytes and a few merges). 2 layers, width 32, 4 heads, 2 key/value heads, context 384. */
#ifndef POLDER_TESTS_TINY_MODEL_H
#define POLDER_TESTS_TINY_MODEL_H

#include "base/buf.h"
#include "base/file.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define TINY_CONTEXT    384
#define TINY_TOKENS_MAX 8192

static unsigned tiny_extra; /* more tokens than needed: a larger vocabulary */
/* A template in the style of many: the role inside a special token's spelling, contents trimmed. */
#define TINY_TEMPLATE                                                                                               \
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['content'] is string %}" \
    "{{ m['content'] | trim }}{% else %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"    \
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"                                \
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

typedef struct tiny {
    buf kv, infos, data;
    uint64_t n_kv, n_tensors;
    uint64_t rnd;
} tiny;

static inline void tiny_int(buf *b, uint64_t v, int n) {
    for (int i = 0; i < n; i++, v >>= 8) buf_putc(b, (char)(uint8_t)v);
}
static inline void tiny_str(buf *b, const char *s, size_t n) {
    tiny_int(b, n, 8);
    buf_append(b, s, n);
}
static inline void tiny_key(tiny *t, const char *key, uint32_t type) {
    tiny_str(&t->kv, key, strlen(key));
    tiny_int(&t->kv, type, 4);
    t->n_kv++;
}
static inline void tiny_u32(tiny *t, const char *key, uint32_t v) {
    tiny_key(t, key, 4);
    tiny_int(&t->kv, v, 4);
}
static inline void tiny_f32(tiny *t, const char *key, float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    tiny_key(t, key, 6);
    tiny_int(&t->kv, u, 4);
}
static inline void tiny_text(tiny *t, const char *key, const char *v) {
    tiny_key(t, key, 8);
    tiny_str(&t->kv, v, strlen(v));
}

static inline void tiny_tensor(tiny *t, const char *name, uint64_t cols, uint64_t rows, float scale, float base) {
    tiny_str(&t->infos, name, strlen(name));
    tiny_int(&t->infos, rows ? 2 : 1, 4);
    tiny_int(&t->infos, cols, 8);
    if (rows) tiny_int(&t->infos, rows, 8);
    tiny_int(&t->infos, 0, 4);
    tiny_int(&t->infos, t->data.len, 8);
    t->n_tensors++;
    for (uint64_t i = 0; i < cols * (rows ? rows : 1); i++) {
        t->rnd = t->rnd * 6364136223846793005u + 1442695040888963407u;
        float f = base + scale * ((float)(t->rnd >> 40) / 8388608.0f - 1.0f);
        uint32_t u;
        memcpy(&u, &f, 4);
        tiny_int(&t->data, u, 4);
    }
    while (t->data.len % 32) buf_putc(&t->data, 0);
}

typedef struct tiny_token {
    char text[48];
    float score;
    int32_t type; /* 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte */
} tiny_token;

/* The character that GPT-2's byte-level alphabet shows a byte as. */
static inline void tiny_byte_char(char out[8], int byte) {
    int shown = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    uint32_t cp = (uint32_t)byte;
    if (!shown) {
        cp = 256;
        for (int b = 0; b < byte; b++) cp += !((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174);
    }
    memset(out, 0, 8);
    if (cp < 128)
        out[0] = (char)cp;
    else {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 63));
    }
}

static inline size_t tiny_vocab(tiny_token *v, bool bpe) {
    static const char *const special[] = {"<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]"};
    static const char *const words[] = {"the", "he", "th", "in", "er", "im", "art", "en", "st", "ar"};
    size_t n = 0;
    v[n++] = (tiny_token){"<unk>", 0, 2};
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        v[n] = (tiny_token){.type = 3};
        snprintf(v[n++].text, 48, "%s", special[i]);
    }
    v[n++] = (tiny_token){"<think>", 0, 4};
    for (int b = 0; b < 256; b++) {
        v[n] = (tiny_token){.type = bpe ? 1 : 6};
        if (bpe)
            tiny_byte_char(v[n].text, b);
        else
            snprintf(v[n].text, 48, "<0x%02X>", b);
        n++;
    }
    for (int c = 33; c < 127 && !bpe; c++) { /* SentencePiece: characters as pieces, bytes only where there is none */
        v[n] = (tiny_token){.score = -100.0f, .type = 1};
        v[n++].text[0] = (char)c;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        v[n] = (tiny_token){.score = -1.0f - (float)i, .type = 1};
        snprintf(v[n++].text, 48, "%s", words[i]);
    }
    if (!bpe) v[n++] = (tiny_token){"\xE2\x96\x81", -50.0f, 1};
    if (!bpe) v[n++] = (tiny_token){"\xE2\x96\x81the", -0.5f, 1};
    for (unsigned i = 0; i < tiny_extra; i++) {
        v[n] = (tiny_token){.score = -200.0f, .type = 1};
        snprintf(v[n++].text, 48, "extra%u", i);
    }
    return n;
}

static inline void tiny_tokenizer(tiny *t, const tiny_token *v, size_t n, bool bpe, bool add_bos) {
    static const char *const merges[] = {"t h", "h e", "th e", "i n", "e r", "i m", "a r", "ar t", "e n", "s t"};
    tiny_text(t, "tokenizer.ggml.model", bpe ? "gpt2" : "llama");
    if (bpe) tiny_text(t, "tokenizer.ggml.pre", "llama-bpe");
    tiny_key(t, "tokenizer.ggml.tokens", 9);
    tiny_int(&t->kv, 8, 4);
    tiny_int(&t->kv, n, 8);
    for (size_t i = 0; i < n; i++) tiny_str(&t->kv, v[i].text, strlen(v[i].text));
    tiny_key(t, "tokenizer.ggml.token_type", 9);
    tiny_int(&t->kv, 5, 4);
    tiny_int(&t->kv, n, 8);
    for (size_t i = 0; i < n; i++) tiny_int(&t->kv, (uint64_t)v[i].type, 4);
    if (bpe) {
        tiny_key(t, "tokenizer.ggml.merges", 9);
        tiny_int(&t->kv, 8, 4);
        tiny_int(&t->kv, sizeof merges / sizeof *merges, 8);
        for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) tiny_str(&t->kv, merges[i], strlen(merges[i]));
    } else {
        tiny_key(t, "tokenizer.ggml.scores", 9);
        tiny_int(&t->kv, 6, 4);
        tiny_int(&t->kv, n, 8);
        for (size_t i = 0; i < n; i++) {
            uint32_t u;
            memcpy(&u, &v[i].score, 4);
            tiny_int(&t->kv, u, 4);
        }
    }
    tiny_u32(t, "tokenizer.ggml.bos_token_id", 1);
    tiny_u32(t, "tokenizer.ggml.eos_token_id", 2);
    tiny_key(t, "tokenizer.ggml.add_bos_token", 7);
    buf_putc(&t->kv, add_bos ? 1 : 0);
}

static inline void tiny_weights(tiny *t, uint64_t n_vocab) {
    const uint64_t d = 32, ff = 64, kv = 16;
    tiny_tensor(t, "token_embd.weight", d, n_vocab, 1.0f, 0.0f);
    tiny_tensor(t, "output_norm.weight", d, 0, 0.1f, 1.0f);
    tiny_tensor(t, "output.weight", d, n_vocab, 0.5f, 0.0f);
    for (int l = 0; l < 2; l++) {
        char name[64];
        struct {
            const char *part;
            uint64_t cols, rows;
        } parts[] = {{"attn_norm", d, 0}, {"attn_q", d, d},      {"attn_k", d, kv},
                     {"attn_v", d, kv},   {"attn_output", d, d}, {"ffn_norm", d, 0},
                     {"ffn_gate", d, ff}, {"ffn_up", d, ff},     {"ffn_down", ff, d}};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, parts[i].part);
            bool norm = parts[i].rows == 0;
            tiny_tensor(t, name, parts[i].cols, parts[i].rows, norm ? 0.1f : 0.4f, norm ? 1.0f : 0.0f);
        }
    }
}

/* The file of what was put together, which is over with that. */
static inline bool tiny_store(tiny *t, const char *path) {
    buf file = {.max = 1 << 25};
    buf_append(&file, "GGUF", 4);
    tiny_int(&file, 3, 4);
    tiny_int(&file, t->n_tensors, 8);
    tiny_int(&file, t->n_kv, 8);
    buf_append(&file, t->kv.ptr, t->kv.len);
    buf_append(&file, t->infos.ptr, t->infos.len);
    while (file.len % 32) buf_putc(&file, 0);
    buf_append(&file, t->data.ptr, t->data.len);
    bool ok = !file.failed && file_write_atomic(path, file.ptr, file.len, 0644, NULL) == ERR_OK;
    buf_free(&t->kv);
    buf_free(&t->infos);
    buf_free(&t->data);
    buf_free(&file);
    return ok;
}

/* Writes the file; `tmpl` NULL: no chat template. `seed` makes other weights. */
static inline bool tiny_write(const char *path, bool bpe, bool add_bos, const char *tmpl, uint64_t seed) {
    static tiny_token v[TINY_TOKENS_MAX];
    tiny t = {.kv = {.max = 1 << 22}, .infos = {.max = 1 << 20}, .data = {.max = 1 << 24}, .rnd = seed};
    memset(v, 0, sizeof v);
    size_t n = tiny_vocab(v, bpe);
    tiny_text(&t, "general.architecture", "llama");
    tiny_text(&t, "general.name", "tiny");
    tiny_u32(&t, "llama.block_count", 2);
    tiny_u32(&t, "llama.context_length", TINY_CONTEXT);
    tiny_u32(&t, "llama.embedding_length", 32);
    tiny_u32(&t, "llama.feed_forward_length", 64);
    tiny_u32(&t, "llama.attention.head_count", 4);
    tiny_u32(&t, "llama.attention.head_count_kv", 2);
    tiny_u32(&t, "llama.rope.dimension_count", 8);
    tiny_f32(&t, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tiny_tokenizer(&t, v, n, bpe, add_bos);
    if (tmpl) tiny_text(&t, "tokenizer.chat_template", tmpl);
    tiny_weights(&t, n);
    return tiny_store(&t, path);
}

#endif
