/* make_model SHAPE TYPE OUT.gguf: a model file of a real model's shape with random weights, for benches: speed does not
 * depend on the values. Shapes: llama-1b (1.24 B parameters), qwen3-0.6b (0.6 B), llama-tiny (for trying this out).
 * Types: F32, F16, Q8_0, Q4_0, Q4_K_M (Q4_K, with Q6_K for the tensors that the usual mix keeps finer). The same
 * arguments give the same bytes. Other engines take the files too: the tokenizer is complete. */
#include "engine/tensor.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shape {
    const char *name, *arch;
    uint32_t n_layer, d, ff, n_head, n_kv, d_head, n_vocab, n_ctx;
    float rope_base, eps;
    bool tied, qk_norm;
} shape;

static const shape shapes[] = {
    {"llama-1b", "llama", 16, 2048, 8192, 32, 8, 64, 128256, 131072, 500000.0f, 1e-5f, true, false},
    {"qwen3-0.6b", "qwen3", 28, 1024, 3072, 16, 8, 128, 151936, 40960, 1000000.0f, 1e-6f, true, true},
    {"llama-tiny", "llama", 2, 256, 512, 8, 2, 32, 1024, 4096, 10000.0f, 1e-5f, true, false},
};

enum { TENSORS_MAX = 1024, ALIGN = 32 };

typedef struct tensor {
    char name[64];
    uint32_t cols, rows; /* rows 0: a vector */
    tensor_type type;
} tensor;

static tensor tensors[TENSORS_MAX];
static size_t n_tensors;
static FILE *out;
static uint64_t written;
static uint64_t rng = 0x9e3779b97f4a7c15u;

static uint64_t next_random(void) { /* splitmix64 */
    uint64_t z = (rng += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void put(const void *p, size_t n) {
    if (n && fwrite(p, 1, n, out) != n) {
        perror("make_model: cannot write");
        exit(3);
    }
    written += n;
}
static void put32(uint32_t v) {
    put(&v, 4);
}
static void put64(uint64_t v) {
    put(&v, 8);
}
static void put_str(const char *s) {
    put64(strlen(s));
    put(s, strlen(s));
}
static void kv_u32(const char *key, uint32_t v) {
    put_str(key);
    put32(4);
    put32(v);
}
static void kv_f32(const char *key, float v) {
    put_str(key);
    put32(6);
    put(&v, 4);
}
/* Keys that begin with the architecture's name. */
static const char *key_of(const shape *s, const char *key) {
    static char name[96];
    snprintf(name, sizeof name, "%s.%s", s->arch, key);
    return name;
}
static void kv_of_u32(const shape *s, const char *key, uint32_t v) {
    kv_u32(key_of(s, key), v);
}
static void kv_of_f32(const shape *s, const char *key, float v) {
    kv_f32(key_of(s, key), v);
}
static void kv_str(const char *key, const char *v) {
    put_str(key);
    put32(8);
    put_str(v);
}

static void add(const char *name, uint32_t cols, uint32_t rows, tensor_type type) {
    tensor *t = &tensors[n_tensors++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->cols = cols;
    t->rows = rows;
    t->type = rows ? type : TT_F32;
}

static uint64_t tensor_bytes(const tensor *t) {
    const tensor_type_facts *f = tensor_type_get((uint32_t)t->type);
    uint64_t n = (uint64_t)t->cols * (t->rows ? t->rows : 1);
    return n / f->block_len * f->block_bytes;
}

/* The mix that is called Q4_K_M gives value and down projections of half the layers, and the head, six bits. */
static bool finer(uint32_t layer, uint32_t n_layer) {
    return layer < n_layer / 8 || layer >= 7 * n_layer / 8 || (layer - n_layer / 8) % 3 == 2;
}

static void add_tensors(const shape *s, tensor_type type, bool mix) {
    tensor_type head = mix ? TT_Q6_K : type;
    uint32_t q = s->d_head * s->n_head, kv = s->d_head * s->n_kv;
    add("token_embd.weight", s->d, s->n_vocab, head);
    add("output_norm.weight", s->d, 0, TT_F32);
    for (uint32_t l = 0; l < s->n_layer; l++) {
        tensor_type fine = mix && finer(l, s->n_layer) ? TT_Q6_K : type;
        struct {
            const char *name;
            uint32_t cols, rows;
            tensor_type type;
        } t[] = {
            {"attn_norm", s->d, 0, TT_F32},
            {"attn_q", s->d, q, type},
            {"attn_k", s->d, kv, type},
            {"attn_v", s->d, kv, fine},
            {"attn_output", q, s->d, type},
            {"ffn_norm", s->d, 0, TT_F32},
            {"ffn_gate", s->d, s->ff, type},
            {"ffn_up", s->d, s->ff, type},
            {"ffn_down", s->ff, s->d, fine},
            {"attn_q_norm", s->d_head, 0, TT_F32},
            {"attn_k_norm", s->d_head, 0, TT_F32},
        };
        for (size_t i = 0; i < sizeof t / sizeof *t - (s->qk_norm ? 0 : 2); i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%u.%s.weight", l, t[i].name);
            add(name, t[i].cols, t[i].rows, t[i].type);
        }
    }
    if (!s->tied) add("output.weight", s->d, s->n_vocab, head);
}

/* Random bits are random weights, but for the half-precision scales, which must be small and finite. */
static void fill_blocks(uint8_t *p, const tensor *t, uint64_t n_bytes) {
    for (uint64_t i = 0; i + 8 <= n_bytes; i += 8) {
        uint64_t r = next_random();
        memcpy(p + i, &r, 8);
    }
    const tensor_type_facts *f = tensor_type_get((uint32_t)t->type);
    uint16_t small = 0x0800 | (uint16_t)(next_random() & 0xff); /* about 1.2e-4 */
    for (uint64_t b = 0; b < n_bytes; b += f->block_bytes) {
        switch (t->type) {
        case TT_Q4_0:
        case TT_Q8_0: memcpy(p + b, &small, 2); break;
        case TT_Q4_K: memcpy(p + b, &small, 2), memcpy(p + b + 2, &small, 2); break;
        case TT_Q6_K: memcpy(p + b + 208, &small, 2); break;
        case TT_F16: p[b + 1] = (uint8_t)((p[b + 1] & 0x83) | 0x20); break; /* magnitude below 0.02 */
        default: break;
        }
    }
}

static void write_data(void) {
    uint64_t cap = 0;
    for (size_t i = 0; i < n_tensors; i++)
        if (tensor_bytes(&tensors[i]) > cap) cap = tensor_bytes(&tensors[i]);
    uint8_t *p = malloc((size_t)cap + 8);
    if (!p) exit(3);
    static const char zeros[ALIGN];
    for (size_t i = 0; i < n_tensors; i++) {
        const tensor *t = &tensors[i];
        uint64_t n = tensor_bytes(t);
        if (t->type == TT_F32) {
            float *x = (float *)(void *)p;
            float spread = t->rows ? 2.0f / sqrtf((float)t->cols) : 0;
            for (uint64_t k = 0; k < n / 4; k++)
                x[k] = t->rows ? spread * ((float)(next_random() >> 40) / 16777216.0f - 0.5f) : 1.0f;
        } else {
            fill_blocks(p, t, n);
        }
        put(p, (size_t)n);
        put(zeros, (size_t)((ALIGN - written % ALIGN) % ALIGN));
    }
    free(p);
}

static void write_file(const shape *s, const char *type_name) {
    put("GGUF", 4);
    put32(3);
    put64(n_tensors);
    put64(20);
    kv_str("general.architecture", s->arch);
    kv_str("general.name", s->name);
    kv_str("general.description", type_name);
    kv_u32("general.alignment", ALIGN);
    kv_of_u32(s, "block_count", s->n_layer);
    kv_of_u32(s, "context_length", s->n_ctx);
    kv_of_u32(s, "embedding_length", s->d);
    kv_of_u32(s, "feed_forward_length", s->ff);
    kv_of_u32(s, "attention.head_count", s->n_head);
    kv_of_u32(s, "attention.head_count_kv", s->n_kv);
    kv_of_u32(s, "attention.key_length", s->d_head);
    kv_of_u32(s, "attention.value_length", s->d_head);
    kv_of_f32(s, "attention.layer_norm_rms_epsilon", s->eps);
    kv_of_f32(s, "rope.freq_base", s->rope_base);
    kv_of_u32(s, "rope.dimension_count", s->d_head);
    kv_of_u32(s, "vocab_size", s->n_vocab);
    kv_str("tokenizer.ggml.model", "llama");
    put_str("tokenizer.ggml.tokens");
    put32(9);
    put32(8);
    put64(s->n_vocab);
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        char word[32];
        if (i < 3)
            snprintf(word, sizeof word, "%s", i == 0 ? "<unk>" : i == 1 ? "<s>" : "</s>");
        else if (i < 259)
            snprintf(word, sizeof word, "<0x%02X>", i - 3);
        else
            snprintf(word, sizeof word, "w%u", i);
        put_str(word);
    }
    put_str("tokenizer.ggml.scores");
    put32(9);
    put32(6);
    put64(s->n_vocab);
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        float score = -(float)i;
        put(&score, 4);
    }
    put_str("tokenizer.ggml.token_type");
    put32(9);
    put32(5);
    put64(s->n_vocab);
    for (uint32_t i = 0; i < s->n_vocab; i++) put32(i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1);
    uint64_t offset = 0;
    for (size_t i = 0; i < n_tensors; i++) {
        const tensor *t = &tensors[i];
        put_str(t->name);
        put32(t->rows ? 2 : 1);
        put64(t->cols);
        if (t->rows) put64(t->rows);
        put32((uint32_t)t->type);
        put64(offset);
        offset += (tensor_bytes(t) + ALIGN - 1) / ALIGN * ALIGN;
    }
    static const char zeros[ALIGN];
    put(zeros, (size_t)((ALIGN - written % ALIGN) % ALIGN));
    write_data();
}

int main(int argc, char **argv) {
    const shape *s = NULL;
    tensor_type type = TT_F32;
    bool known = false, mix = argc == 4 && strcmp(argv[2], "Q4_K_M") == 0;
    for (size_t i = 0; argc == 4 && i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(argv[1], shapes[i].name) == 0) s = &shapes[i];
    static const tensor_type types[] = {TT_F32, TT_F16, TT_Q8_0, TT_Q4_0, TT_Q4_K};
    for (size_t i = 0; argc == 4 && i < sizeof types / sizeof *types; i++) {
        if (!mix && strcmp(argv[2], tensor_type_get((uint32_t)types[i])->name) == 0) {
            type = types[i];
            known = true;
        }
    }
    if (mix) type = TT_Q4_K;
    if (!s || (!known && !mix)) {
        fprintf(stderr, "usage: make_model llama-1b|qwen3-0.6b|llama-tiny F32|F16|Q8_0|Q4_0|Q4_K|Q4_K_M OUT.gguf\n");
        return 2;
    }
    out = fopen(argv[3], "wb");
    if (!out) {
        perror(argv[3]);
        return 3;
    }
    add_tensors(s, type, mix);
    write_file(s, argv[2]);
    if (fclose(out) != 0) {
        perror(argv[3]);
        return 3;
    }
    return 0;
}
