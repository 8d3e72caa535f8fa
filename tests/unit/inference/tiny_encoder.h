/* For tests: small models with random weights that make vectors or rank, written as GGUF from nothing. Encoders have 2
 * layers, width 32, 4 heads, context 128, a WordPiece vocabulary of letters; causal ones are tiny_model.h's llama with
 * its BPE. */
#ifndef POLDER_TESTS_TINY_ENCODER_H
#define POLDER_TESTS_TINY_ENCODER_H

#include "tiny_model.h"

#define ENCODER_CONTEXT 128
#define ENCODER_CLS     2
#define ENCODER_SEP     3

typedef struct tiny_kind {
    bool causal;      /* a llama */
    bool nomic;       /* otherwise bert */
    uint32_t pooling; /* as the file says it: 0 none, 1 mean, 2 first, 3 last, 4 rank; UINT32_MAX: says nothing */
    bool head;        /* for ranking: cls and cls.output; of causal ones "no" and "yes" */
    const char *form; /* tokenizer.chat_template.rerank */
    float spread;     /* factor of the head's weights; 0: 1 */
} tiny_kind;

static inline void tiny_bool(tiny *t, const char *key, bool v) {
    tiny_key(t, key, 7);
    buf_putc(&t->kv, v);
}

static inline void tiny_strings(tiny *t, const char *key, const char *const *v, size_t n) {
    tiny_key(t, key, 9);
    tiny_int(&t->kv, 8, 4);
    tiny_int(&t->kv, n, 8);
    for (size_t i = 0; i < n; i++) tiny_str(&t->kv, v[i], strlen(v[i]));
}

/* Returns the number of tokens. */
static inline uint64_t tiny_wordpiece(tiny *t) {
    static const char *const special[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    static char text[5 + 2 * 36 + 2][8];
    const char *v[5 + 2 * 36 + 2];
    size_t n = 0;
    for (; n < 5; n++) v[n] = special[n];
    for (int mark = 1; mark >= 0; mark--)
        for (int c = 0; c < 36; c++, n++) {
            snprintf(text[n], sizeof text[n], "%s%c", mark ? "\xE2\x96\x81" : "", c < 26 ? 'a' + c : '0' + c - 26);
            v[n] = text[n];
        }
    v[n++] = "\xE2\x96\x81.";
    v[n++] = "\xE2\x96\x81?";
    tiny_text(t, "tokenizer.ggml.model", "bert");
    tiny_strings(t, "tokenizer.ggml.tokens", v, n);
    tiny_key(t, "tokenizer.ggml.token_type", 9);
    tiny_int(&t->kv, 5, 4);
    tiny_int(&t->kv, n, 8);
    for (size_t i = 0; i < n; i++) tiny_int(&t->kv, i < 5 ? 3 : 1, 4);
    tiny_u32(t, "tokenizer.ggml.unknown_token_id", 1);
    tiny_u32(t, "tokenizer.ggml.bos_token_id", ENCODER_CLS);
    tiny_u32(t, "tokenizer.ggml.cls_token_id", ENCODER_CLS);
    tiny_u32(t, "tokenizer.ggml.eos_token_id", ENCODER_SEP);
    tiny_u32(t, "tokenizer.ggml.seperator_token_id", ENCODER_SEP);
    return n;
}

static inline void tiny_encoder_layer(tiny *t, int l, bool nomic) {
    const uint64_t d = 32, ff = 64;
    static const char *const norms[] = {"attn_output_norm", "layer_output_norm"};
    struct {
        const char *part;
        uint64_t cols, rows;
        bool here;
    } parts[] = {{"attn_qkv", d, 3 * d, nomic}, {"attn_q", d, d, !nomic}, {"attn_k", d, d, !nomic},
                 {"attn_v", d, d, !nomic},      {"attn_output", d, d, 1}, {"ffn_gate", d, ff, nomic},
                 {"ffn_up", d, ff, 1},          {"ffn_down", ff, d, 1}};
    char name[64];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!parts[i].here) continue;
        snprintf(name, sizeof name, "blk.%d.%s.weight", l, parts[i].part);
        tiny_tensor(t, name, parts[i].cols, parts[i].rows, 0.4f, 0);
        snprintf(name, sizeof name, "blk.%d.%s.bias", l, parts[i].part);
        if (!nomic) tiny_tensor(t, name, parts[i].rows, 0, 0.2f, 0);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", l, norms[i]);
        tiny_tensor(t, name, d, 0, 0.1f, 1);
        snprintf(name, sizeof name, "blk.%d.%s.bias", l, norms[i]);
        tiny_tensor(t, name, d, 0, 0.1f, 0);
    }
}

static inline void tiny_encoder_body(tiny *t, const tiny_kind *k, const char *arch) {
    char key[64];
    const struct {
        const char *name;
        uint32_t v;
    } sizes[] = {{"block_count", 2},
                 {"context_length", ENCODER_CONTEXT},
                 {"embedding_length", 32},
                 {"feed_forward_length", 64},
                 {"attention.head_count", 4}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, sizes[i].name);
        tiny_u32(t, key, sizes[i].v);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_epsilon", arch);
    tiny_f32(t, key, 1e-12f);
    snprintf(key, sizeof key, "%s.attention.causal", arch);
    tiny_bool(t, key, false);
    uint64_t n = tiny_wordpiece(t);
    tiny_tensor(t, "token_embd.weight", 32, n, 1, 0);
    tiny_tensor(t, "token_types.weight", 32, 2, 0.5f, 0);
    if (!k->nomic) tiny_tensor(t, "position_embd.weight", 32, ENCODER_CONTEXT, 0.5f, 0);
    tiny_tensor(t, "token_embd_norm.weight", 32, 0, 0.1f, 1);
    tiny_tensor(t, "token_embd_norm.bias", 32, 0, 0.1f, 0);
    for (int l = 0; l < 2; l++) tiny_encoder_layer(t, l, k->nomic);
}

static inline void tiny_causal_body(tiny *t) {
    static tiny_token v[TINY_TOKENS_MAX];
    memset(v, 0, sizeof v);
    size_t n = tiny_vocab(v, true);
    tiny_u32(t, "llama.block_count", 2);
    tiny_u32(t, "llama.context_length", TINY_CONTEXT);
    tiny_u32(t, "llama.embedding_length", 32);
    tiny_u32(t, "llama.feed_forward_length", 64);
    tiny_u32(t, "llama.attention.head_count", 4);
    tiny_u32(t, "llama.attention.head_count_kv", 2);
    tiny_f32(t, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tiny_tokenizer(t, v, n, true, false);
    tiny_bool(t, "tokenizer.ggml.add_eos_token", true);
    tiny_weights(t, n);
}

static inline void tiny_head(tiny *t, const tiny_kind *k, const char *arch) {
    static const char *const labels[] = {"no", "yes"};
    float spread = k->spread != 0 ? k->spread : 1;
    char key[64];
    if (k->causal) {
        snprintf(key, sizeof key, "%s.classifier.output_labels", arch);
        tiny_strings(t, key, labels, 2);
        tiny_tensor(t, "cls.output.weight", 32, 2, 0.3f * spread, 0);
        return;
    }
    tiny_tensor(t, "cls.weight", 32, 32, 0.3f, 0);
    tiny_tensor(t, "cls.bias", 32, 0, 0.3f, 0);
    tiny_tensor(t, "cls.output.weight", 32, 1, spread, 0);
    tiny_tensor(t, "cls.output.bias", 1, 0, 0.3f, 0);
}

/* Writes the file; `seed` makes other weights. */
static inline bool tiny_write_kind(const char *path, const tiny_kind *k, uint64_t seed) {
    tiny t = {.kv = {.max = 1 << 22}, .infos = {.max = 1 << 20}, .data = {.max = 1 << 24}, .rnd = seed};
    const char *arch = k->causal ? "llama" : k->nomic ? "nomic-bert" : "bert";
    char key[64];
    tiny_text(&t, "general.architecture", arch);
    tiny_text(&t, "general.name", "tiny encoder");
    snprintf(key, sizeof key, "%s.pooling_type", arch);
    if (k->pooling != UINT32_MAX) tiny_u32(&t, key, k->pooling);
    if (k->form) tiny_text(&t, "tokenizer.chat_template.rerank", k->form);
    if (k->causal)
        tiny_causal_body(&t);
    else
        tiny_encoder_body(&t, k, arch);
    if (k->head) tiny_head(&t, k, arch);
    return tiny_store(&t, path);
}

#endif
