/* make_copier OUT.gguf: a model of 0.25 B parameters (Q8_0) that copies, for measuring what repetition is worth.
 *
 * Random weights repeat nothing, and small trained models are not bound by memory. Here weights are set by hand so that
 * greedy decoding continues a text as its last two tokens went on before, and otherwise cost what weights cost:
 *
 *   residual  E 256 signs that name the token · C 44 signs to compare tokens by · P, Q  C of the token one and two
 *             before · O  E of what should come next · K  a constant
 *   layer 0   two heads look exactly one and two positions back (by the fast pairs of the rotation, from K) and write
 *             what they see of C to P and Q
 *   layer 1   heads look where P and Q equal the present C and P (by the slow pairs, which hardly turn) and write E of
 *             what stands there to O
 *   head      the token whose E is nearest to O
 *   layers 2 to 11 and all feed-forward parts read random weights and write nothing.
 *
 * Tokens 1000 to 1099 are edited: where the text has one of them, the answer has the token 100 higher, which has the
 * same C and E. So a copy of a text differs from it where such tokens stand, as when somebody asks for a change.
 * Tokens from 259 on are Chinese characters, one each, so that text and tokens say the same. */
#include "base/bytes.h"
#include "base/mem.h"
#include "engine/files/gguf_write.h"
#include "engine/files/quantize.h"
#include "engine/quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 12, D = 1024, FF = 4096, HEADS = 8, KV_HEADS = 2, D_HEAD = 128, VOCAB = 20000, CTX = 16384 };
enum { E = 0, N_E = 256, C = 256, N_C = 44, P = 320, Q = 384, O = 448, K = 704 };
enum { FIRST_SLOW = 40 /* dimension of a head: pairs from 20 on turn by less than 2e-5 a position */, FAST_PAIRS = 8 };
enum { EDIT = 1000, EDITS = 100, CHARACTERS = 0x4e00, BLOCK = 32, BLOCK_BYTES = 34 };
static const float BASE = 1e15f, SHARP_BACK = 34, SHARP_MATCH = 5;

static gguf_writer *w;
static float row_of[FF];
static uint64_t rng = 0x2545f4914f6cdd1du;

static void must(err_code rc, const err *e) {
    if (rc == ERR_OK) return;
    fprintf(stderr, "make_copier: %s\n", e->msg);
    exit(3);
}

static uint64_t scramble(uint64_t z) { /* splitmix64's finish: the same number for the same place, always */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* The token whose signs a token has: edited ones have those of what they replace. */
static uint32_t meaning(uint32_t token) {
    return token >= EDIT + EDITS && token < EDIT + 2 * EDITS ? token - EDITS : token;
}
static float sign_of(uint32_t token, uint32_t i) {
    return scramble((uint64_t)meaning(token) << 16 | (i + 1)) & 1 ? 1.0f : -1.0f;
}

/* The residual is normed before each layer: what one of its signs is worth then. */
static float worth(uint32_t layer) {
    float squares = N_E + N_C + 1 + (layer > 0 ? 2 * N_C : 0);
    return sqrtf((float)D / squares);
}

/* A row of weights as blocks of Q8_0. */
static void put_row(uint32_t cols) {
    uint8_t out[FF / BLOCK * BLOCK_BYTES];
    for (uint32_t b = 0; b < cols / BLOCK; b++) {
        float most = 0;
        for (uint32_t i = 0; i < BLOCK; i++) most = fmaxf(most, fabsf(row_of[b * BLOCK + i]));
        uint16_t scale = f32_to_f16(most / 127);
        float s = f16_to_f32(scale);
        memcpy(out + b * BLOCK_BYTES, &scale, 2);
        for (uint32_t i = 0; i < BLOCK; i++)
            out[b * BLOCK_BYTES + 2 + i] = (uint8_t)(int8_t)(s > 0 ? lrintf(row_of[b * BLOCK + i] / s) : 0);
    }
    err e = {0};
    must(gguf_writer_data(w, out, cols / BLOCK * BLOCK_BYTES, &e), &e);
}

/* ---- rows of the matrices that do something: row r, columns set in row_of, which is zero before ---- */

static void row_query(uint32_t layer, uint32_t r) {
    uint32_t head = r / D_HEAD, i = r % D_HEAD;
    if (head % (HEADS / KV_HEADS)) return; /* one query head of each group is enough */
    if (layer == 0 && i < 2 * FAST_PAIRS && i % 2 == 0) row_of[K] = SHARP_BACK / worth(0);
    if (layer == 1 && i >= FIRST_SLOW)
        row_of[i < FIRST_SLOW + N_C ? C + i - FIRST_SLOW : P + i - FIRST_SLOW - N_C] = SHARP_MATCH / worth(1);
}
static void row_key(uint32_t layer, uint32_t r) {
    uint32_t head = r / D_HEAD, i = r % D_HEAD;
    if (layer == 0 && i < 2 * FAST_PAIRS) { /* turned ahead by one or two positions: equal phase is there */
        double angle = (head + 1) * pow(BASE, -2.0 * (i / 2) / D_HEAD);
        row_of[K] = (float)(i % 2 ? sin(angle) : cos(angle)) * SHARP_BACK / worth(0);
    }
    if (layer == 1 && i >= FIRST_SLOW)
        row_of[i < FIRST_SLOW + N_C ? P + i - FIRST_SLOW : Q + i - FIRST_SLOW - N_C] = SHARP_MATCH / worth(1);
}
static void row_value(uint32_t layer, uint32_t r) {
    uint32_t head = r / D_HEAD, i = r % D_HEAD;
    if (layer == 0 && i < N_C) row_of[C + i] = 1 / worth(0);
    if (layer == 1) row_of[E + head * D_HEAD + i] = 1 / worth(1);
}
static void row_output(uint32_t layer, uint32_t r) {
    uint32_t group = HEADS / KV_HEADS * D_HEAD;
    if (layer == 0 && r >= P && r < P + N_C) row_of[r - P] = 1;
    if (layer == 0 && r >= Q && r < Q + N_C) row_of[group + r - Q] = 1;
    if (layer == 1 && r >= O && r < O + N_E) row_of[(r - O) / D_HEAD * group + (r - O) % D_HEAD] = 1;
}

static void row_random(uint32_t cols) {
    for (uint32_t i = 0; i < cols; i++) row_of[i] = (float)(scramble(rng++) >> 40) / 16777216.0f * 0.04f - 0.02f;
}

/* ---- the file ---- */

typedef struct matrix_form {
    const char *name;
    uint32_t cols, rows; /* rows 0: a vector of ones */
    void (*row)(uint32_t layer, uint32_t r);
    bool silent; /* zero where nothing is set: what writes to the residual */
} matrix_form;

static const matrix_form forms[] = {
    {"attn_norm", D, 0, NULL, false},
    {"attn_q", D, HEADS *D_HEAD, row_query, false},
    {"attn_k", D, KV_HEADS *D_HEAD, row_key, false},
    {"attn_v", D, KV_HEADS *D_HEAD, row_value, false},
    {"attn_output", HEADS *D_HEAD, D, row_output, true},
    {"ffn_norm", D, 0, NULL, false},
    {"ffn_gate", D, FF, NULL, false},
    {"ffn_up", D, FF, NULL, false},
    {"ffn_down", FF, D, NULL, true},
};
enum { FORMS = sizeof forms / sizeof *forms };

static void name_tensor(const char *name, uint32_t cols, uint32_t rows) {
    uint64_t dims[GGUF_DIMS_MAX] = {cols, rows ? rows : 1, 1, 1};
    gguf_put_tensor(w, name, strlen(name), rows ? TT_Q8_0 : TT_F32, rows ? 2 : 1, dims);
}

static void name_tensors(void) {
    char name[64];
    name_tensor("token_embd.weight", D, VOCAB);
    name_tensor("output_norm.weight", D, 0);
    name_tensor("output.weight", D, VOCAB);
    for (uint32_t l = 0; l < LAYERS; l++)
        for (uint32_t k = 0; k < FORMS; k++) {
            snprintf(name, sizeof name, "blk.%u.%s.weight", l, forms[k].name);
            name_tensor(name, forms[k].cols, forms[k].rows);
        }
}

static void put_ones(uint32_t n) {
    err e = {0};
    for (uint32_t i = 0; i < n; i++) row_of[i] = 1;
    must(gguf_writer_data(w, row_of, n * sizeof(float), &e), &e);
}

static void put_embeddings(void) {
    for (uint32_t t = 0; t < VOCAB; t++) {
        memset(row_of, 0, sizeof row_of);
        for (uint32_t i = 0; i < N_E; i++) row_of[E + i] = sign_of(t, i);
        for (uint32_t i = 0; i < N_C; i++) row_of[C + i] = sign_of(t, N_E + i);
        row_of[K] = 1;
        put_row(D);
    }
}

/* What is edited away, and what is no character, is never said. */
static void put_head(void) {
    for (uint32_t t = 0; t < VOCAB; t++) {
        memset(row_of, 0, sizeof row_of);
        bool said = t >= 259 && !(t >= EDIT && t < EDIT + EDITS);
        for (uint32_t i = 0; said && i < N_E; i++) row_of[O + i] = sign_of(t, i);
        put_row(D);
    }
}

static void put_layer(uint32_t l) {
    for (uint32_t k = 0; k < FORMS; k++) {
        const matrix_form *f = &forms[k];
        if (!f->rows) put_ones(f->cols);
        for (uint32_t r = 0; r < f->rows; r++) {
            memset(row_of, 0, sizeof row_of);
            if (f->row && l < 2)
                f->row(l, r);
            else if (!f->silent)
                row_random(f->cols);
            put_row(f->cols);
        }
    }
}

/* Special tokens, bytes, characters. */
static void put_words(void) {
    gguf_str *words = mem_array(VOCAB, sizeof *words);
    char *text = mem_array(VOCAB, 8);
    float *scores = mem_array(VOCAB, sizeof *scores);
    int32_t *types = mem_array(VOCAB, sizeof *types);
    static const char *const special[] = {"<unk>", "<s>", "</s>"};
    for (uint32_t i = 0; words && text && scores && types && i < VOCAB; i++) {
        char *p = text + (size_t)i * 8;
        uint32_t u = CHARACTERS + i;
        if (i < 3)
            snprintf(p, 8, "%s", special[i]);
        else if (i < 259)
            snprintf(p, 8, "<0x%02X>", i - 3);
        else
            snprintf(p, 8, "%c%c%c", (char)(0xe0 | u >> 12), (char)(0x80 | (u >> 6 & 63)), (char)(0x80 | (u & 63)));
        words[i] = (gguf_str){p, strlen(p)};
        scores[i] = -(float)i;
        types[i] = i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1;
    }
    if (words && text && scores && types) {
        gguf_put_strs(w, "tokenizer.ggml.tokens", words, VOCAB);
        gguf_put_f32s(w, "tokenizer.ggml.scores", scores, VOCAB);
        gguf_put_i32s(w, "tokenizer.ggml.token_type", types, VOCAB);
    }
    mem_free(words);
    mem_free(text);
    mem_free(scores);
    mem_free(types);
}

static void put_keys(void) {
    static const struct {
        const char *key;
        uint32_t v;
    } numbers[] = {
        {"llama.block_count", LAYERS},          {"llama.context_length", CTX},
        {"llama.embedding_length", D},          {"llama.feed_forward_length", FF},
        {"llama.attention.head_count", HEADS},  {"llama.attention.head_count_kv", KV_HEADS},
        {"llama.rope.dimension_count", D_HEAD}, {"llama.vocab_size", VOCAB},
    };
    gguf_put_text(w, "general.architecture", "llama");
    gguf_put_text(w, "general.name", "copier");
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) gguf_put_u32(w, numbers[i].key, numbers[i].v);
    gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-6f);
    gguf_put_f32(w, "llama.rope.freq_base", BASE);
    gguf_put_text(w, "tokenizer.ggml.model", "llama");
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false);
    gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", false);
    put_words();
}

int main(int argc, char **argv) {
    err e = {0};
    if (argc != 2) {
        fprintf(stderr, "usage: make_copier OUT.gguf\n");
        return 2;
    }
    base_init();
    must(gguf_writer_new(&w, &e), &e);
    put_keys();
    name_tensors();
    must(gguf_writer_begin(w, argv[1], &e), &e);
    put_embeddings();
    put_ones(D);
    put_head();
    for (uint32_t l = 0; l < LAYERS; l++) put_layer(l);
    must(gguf_writer_finish(w, &e), &e);
    gguf_writer_free(w);
    return 0;
}
