/* Quantising against llama.cpp's: the oracle's folders hold the same weights in F32 and as llama.cpp quantised them. */
#include "harness.h"

#include "engine/files/files.h"
#include "engine/files/gguf.h"
#include "engine/files/quantize.h"
#include "engine/num.h"
#include "engine/quant.h"

#include "base/json.h"
#include "base/mem.h"

#include <math.h>

static float noise(uint32_t *state) { /* roughly normal */
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        *state = *state * 1664525u + 1013904223u;
        sum += (float)(*state >> 8) / 16777216.0f - 0.5f;
    }
    return sum;
}

/* Breaks where the half-precision conversions round otherwise than IEEE 754 to nearest, ties to even. */
TEST(half_precision) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        if (isnan(f)) continue;
        if (f32_to_f16(f) != h) FAIL("f16 %04x comes back as %04x", h, f32_to_f16(f));
        if ((h & 0x7fff) >= 0x7bff) continue;
        float up = f16_to_f32((uint16_t)(h + 1)), mid = (f + up) / 2; /* exact in F32 */
        uint16_t even = (uint16_t)(h & 1 ? h + 1 : h);
        if (f32_to_f16(mid) != even) FAIL("the tie above %04x goes to %04x", h, f32_to_f16(mid));
        if (f32_to_f16(nextafterf(mid, up)) != (uint16_t)(h + 1)) FAIL("above the tie of %04x", h);
    }
    CHECK_INT(f32_to_f16(65519.0f), 0x7bff);
    CHECK_INT(f32_to_f16(65520.0f), 0x7c00);
    CHECK(isnan(f16_to_f32(f32_to_f16(NAN))));
    CHECK_INT(f32_to_bf16(1.00390625f), 0x3f80); /* tie to even */
    CHECK_INT(f32_to_bf16(1.01171875f), 0x3f82);
    CHECK_INT(f32_to_bf16(NAN) & 0x7fc0, 0x7fc0);
}

static const struct {
    const char *folder;
    tensor_type type;
    bool exact;
} cases[] = {
    {"q8_0", TT_Q8_0, true},      {"q4_0", TT_Q4_0, true},      {"q4_1", TT_Q4_1, true},  {"q5_0", TT_Q5_0, true},
    {"q5_1", TT_Q5_1, true},      {"f16", TT_F16, true},        {"bf16", TT_BF16, true},  {"q2_k", TT_Q2_K, false},
    {"q3_k", TT_Q3_K, false},     {"q4_k", TT_Q4_K, false},     {"q5_k", TT_Q5_K, false}, {"q6_k", TT_Q6_K, false},
    {"iq4_nl", TT_IQ4_NL, false}, {"iq4_xs", TT_IQ4_XS, false},
};

static double error_of(const gguf_tensor *t, const uint8_t *stored, tensor_type type) {
    size_t n = (size_t)(t->dims[0] * t->dims[1]);
    float *x = mem_array(n, 4), *y = mem_array(n, 4);
    double sum = 0;
    if (x && y) {
        tensor_expand(TT_F32, t->data, x, n);
        tensor_expand(type, stored, y, n);
        for (size_t i = 0; i < n; i++) sum += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    }
    mem_free(x);
    mem_free(y);
    return sum;
}

/* Breaks where a plain type differs from llama.cpp in one bit, or a searched one stores the weights worse than it. */
TEST(no_worse_than_llama_cpp) {
    if (!test_shared()) SKIP("no ../shared");
    char path[2000];
    err e = {0};
    gguf *g = NULL, *q = NULL;
    snprintf(path, sizeof path, "%s/oracle/llama-f32/model.gguf", test_shared());
    CHECK_OK(gguf_open(&g, path, &e), e);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        snprintf(path, sizeof path, "%s/oracle/llama-%s/model.gguf", test_shared(), cases[k].folder);
        CHECK_OK(gguf_open(&q, path, &e), e);
        double mine = 0, theirs = 0;
        size_t n = 0, different = 0;
        for (size_t i = 0; i < gguf_tensor_count(q); i++) {
            const gguf_tensor *b = gguf_tensor_at(q, i);
            char name[300];
            snprintf(name, sizeof name, "%.*s", (int)b->name.len, b->name.ptr);
            const gguf_tensor *a = gguf_tensor_find(g, name);
            if (!a || b->type != cases[k].type) continue;
            uint8_t *out = mem_alloc((size_t)b->n_bytes);
            float *x = mem_array((size_t)(a->dims[0] * a->dims[1]), 4);
            CHECK(out && x);
            tensor_expand(TT_F32, a->data, x, (size_t)(a->dims[0] * a->dims[1]));
            quantize_rows(b->type, x, out, (size_t)a->dims[1], (size_t)a->dims[0], NULL);
            different += memcmp(out, b->data, (size_t)b->n_bytes) != 0;
            mine += error_of(a, out, b->type);
            theirs += error_of(a, b->data, b->type);
            n++;
            mem_free(out);
            mem_free(x);
        }
        printf("%-8s %zu matrices, error against llama.cpp's %.4f%s\n", tensor_type_get(cases[k].type)->name, n,
               theirs > 0 ? sqrt(mine / theirs) : 1.0, different ? "" : ", the same bits");
        CHECK(n > 5);
        if (cases[k].exact) CHECK_INT(different, 0);
        CHECK(mine <= theirs * 1.01 * 1.01);
        gguf_free(q);
        q = NULL;
    }
    gguf_free(g);
}

/* Breaks where importances do not lower the error that they weight. */
TEST(importances_count) {
    float x[256 * 8], w[256], back[256 * 8];
    uint8_t plain[256 * 8 * 4], weighted[256 * 8 * 4];
    uint32_t seed = 7;
    for (int i = 0; i < 256 * 8; i++) x[i] = noise(&seed);
    for (int i = 0; i < 256; i++) w[i] = i % 7 == 0 ? 20.0f : 0.1f + fabsf(noise(&seed));
    static const tensor_type types[] = {TT_Q4_0, TT_Q4_1, TT_Q5_0, TT_Q5_1,   TT_Q2_K,  TT_Q3_K,
                                        TT_Q4_K, TT_Q5_K, TT_Q6_K, TT_IQ4_NL, TT_IQ4_XS};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        double error[2] = {0, 0};
        for (int pass = 0; pass < 2; pass++) {
            uint8_t *out = pass ? weighted : plain;
            quantize_rows(types[k], x, out, 8, 256, pass ? w : NULL);
            tensor_expand(types[k], out, back, 256 * 8);
            for (int i = 0; i < 256 * 8; i++) error[pass] += (double)w[i % 256] * (x[i] - back[i]) * (x[i] - back[i]);
        }
        printf("%-8s weighted error %.3f of the unweighted choice's\n", tensor_type_get(types[k])->name,
               sqrt(error[1] / error[0]));
        CHECK(error[1] < error[0] * 0.98);
    }
}

/* Breaks where odd weights (none, one, huge, tiny, not a number) make what cannot be read or is not finite. */
TEST(odd_weights) {
    float x[256], back[256];
    uint8_t out[1024];
    for (uint32_t t = 0; t < 64; t++) {
        const tensor_type_facts *f = tensor_type_get(t);
        if (!f || f->block_len == 1) continue;
        for (int kind = 0; kind < 7; kind++) {
            for (int i = 0; i < 256; i++) {
                float v[] = {0,
                             3.25f,
                             i == 77 ? -5.0f : 0,
                             i % 2 ? 1e-30f : -1e-30f,
                             1e4f * (float)(i - 128),
                             i == 3 ? NAN : 1.0f,
                             (float)(i % 16) - 7.5f};
                x[i] = v[kind];
            }
            quantize_rows(f->type, x, out, 1, 256, NULL);
            tensor_expand(f->type, out, back, 256);
            for (int i = 0; i < 256; i++)
                if (kind != 5 && !isfinite(back[i])) FAIL("%s: kind %d gives %g", f->name, kind, (double)back[i]);
            for (int i = 0; i < 256 && kind == 0; i++)
                if (back[i] != 0) FAIL("%s: zeros give %g", f->name, (double)back[i]);
        }
    }
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static char dir[256];

static err_code quantise(const char *from, const char *to, const char *type, unsigned threads, bool again,
                         cJSON **report, err *e) {
    char in[1200], out[400];
    snprintf(in, sizeof in, "%s/oracle/%s/model.gguf", test_shared(), from);
    snprintf(out, sizeof out, "%s/%s", dir, to);
    model_file_options o = {.type = type, .n_threads = threads, .requantize = again};
    return model_file_quantize(in, out, &o, report, e);
}

static bool same_file(const char *a, const char *b) {
    buf x = {.max = 1 << 26}, y = {.max = 1 << 26};
    char p[400], q[400];
    snprintf(p, sizeof p, "%s/%s", dir, a);
    snprintf(q, sizeof q, "%s/%s", dir, b);
    bool same = file_read(&x, p, NULL) == ERR_OK && file_read(&y, q, NULL) == ERR_OK && x.len == y.len && x.len &&
                memcmp(x.ptr, y.ptr, x.len) == 0;
    buf_free(&x);
    buf_free(&y);
    return same;
}

/* Breaks where the number of threads changes a byte, or a mix does not choose what its name promises. */
TEST(quantize_files) {
    if (!test_shared()) SKIP("no ../shared");
    err e = {0};
    cJSON *r = NULL;
    CHECK(test_tmpdir(dir));
    CHECK_OK(quantise("llama-f32", "a.gguf", "Q4_K_M", 1, false, &r, &e), e);
    const cJSON *types = json_get(r, "types");
    CHECK_INT(json_get(types, "Q6_K")->valuedouble,
              3); /* tied embeddings; values and down of the last eighth: one layer */
    CHECK_INT(json_get(types, "F32")->valuedouble, 5);
    CHECK_STR(json_get(r, "type")->valuestring, "Q4_K_M");
    cJSON_Delete(r);
    CHECK_OK(quantise("llama-f32", "b.gguf", "q4_k_m", 3, false, &r, &e), e);
    cJSON_Delete(r);
    CHECK(same_file("a.gguf", "b.gguf"));
    CHECK_INT(quantise("llama-f32", "b.gguf", "Q4_K_M", 1, false, &r, &e), ERR_EXISTS);
    CHECK_INT(quantise("llama-f32", "c.gguf", "Q9_K", 1, false, &r, &e), ERR_USAGE);
    CHECK_HAS(e.msg, "Q4_K_M");
    CHECK_INT(quantise("llama-q8_0", "c.gguf", "Q4_0", 1, false, &r, &e), ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "--requantize");
    CHECK_OK(quantise("llama-q8_0", "c.gguf", "Q4_0", 1, true, &r, &e), e);
    cJSON_Delete(r);
    CHECK_OK(quantise("qwen3", "d.gguf", "Q4_K_S", 2, false, &r, &e), e);
    /* rows of 256 have whole K blocks, rows of 128 whole blocks of 32, rows of 80 none */
    types = json_get(r, "types");
    CHECK(json_get(types, "Q4_K") && json_get(types, "Q5_0") && json_get(types, "F16"));
    cJSON_Delete(r);
    test_rm(dir);
}

/* Breaks where MXFP4 is rounded otherwise than llama.cpp rounds it (what it wrote must come back to the last bit), or
 * where its mix gives a tensor another type. */
TEST(mxfp4_experts) {
    if (!test_shared()) SKIP("no ../shared");
    err e = {0};
    gguf *g = NULL;
    char path[2000];
    size_t n_mx = 0;
    snprintf(path, sizeof path, "%s/oracle/gpt-oss/model.gguf", test_shared());
    CHECK_OK(gguf_open(&g, path, &e), e);
    mix_model mm = {.m = mix_find("MXFP4_MOE"), .n_layer = 3, .n_expert = 6, .n_gqa = 4, .has_output = true};
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        gguf_tensor plain = *t;
        plain.type = TT_F32;
        if (mix_choose(&mm, &plain) != t->type) FAIL("%.*s: another type", (int)t->name.len, t->name.ptr);
        if (t->type != TT_MXFP4) continue;
        size_t rows = (size_t)(t->dims[1] * t->dims[2]), cols = (size_t)t->dims[0];
        float *x = mem_array(rows * cols, 4);
        uint8_t *out = mem_alloc((size_t)t->n_bytes);
        CHECK(x && out);
        tensor_expand(t->type, t->data, x, rows * cols);
        quantize_rows(t->type, x, out, rows, cols, NULL);
        if (memcmp(out, t->data, (size_t)t->n_bytes) != 0) FAIL("%.*s: other bytes", (int)t->name.len, t->name.ptr);
        mem_free(x);
        mem_free(out);
        n_mx++;
    }
    CHECK_INT(n_mx, 9);
    gguf_free(g);
}

/* Breaks where a failed allocation is not told or leaves a file. */
TEST(quantize_without_memory) {
    if (!test_shared()) SKIP("no ../shared");
    CHECK(test_tmpdir(dir));
    int failures = 0;
    for (int64_t n = 0; n < 400; n += 1 + n / 8) {
        cJSON *r = NULL;
        err e = {0};
        mem_fail_after(n);
        err_code rc = quantise("llama-f32", "a.gguf", "Q8_0", 1, false, &r, &e);
        mem_fail_after(-1);
        cJSON_Delete(r);
        char out[400];
        snprintf(out, sizeof out, "%s/a.gguf", dir);
        bool there = file_exists(out);
        unlink(out);
        if (rc == ERR_OK) break;
        failures++;
        CHECK_INT(rc, ERR_NOMEM);
        (void)there; /* the report may fail after the file is complete */
    }
    CHECK(failures > 5);
    test_rm(dir);
}

/* ---- importance matrices ----------------------------------------------------------------------------------- */

static void le32(buf *b, uint32_t v) {
    for (int i = 0; i < 4; i++, v >>= 8) buf_putc(b, (char)(v & 255));
}

/* Breaks where the older form is read wrongly, or one made from another model is used. */
TEST(imatrix_dat) {
    err e = {0};
    imatrix *m = NULL;
    buf b = {.max = 4096};
    char path[400];
    const float *v;
    CHECK(test_tmpdir(dir));
    snprintf(path, sizeof path, "%s/im.dat", dir);
    le32(&b, 1);
    le32(&b, 18);
    buf_puts(&b, "blk.0.attn_q.weigh");
    le32(&b, 2);
    le32(&b, 3);
    for (int i = 1; i <= 3; i++) le32(&b, num_bits((float)(i * 2)));
    CHECK_OK(file_write_atomic(path, b.ptr, b.len, 0600, &e), e);
    CHECK_OK(imatrix_open(&m, path, &e), e);
    CHECK_OK(imatrix_find(m, "blk.0.attn_q.weigh", 18, 3, 1, &v, &e), e);
    CHECK(v && v[0] == 1 && v[1] == 2 && v[2] == 3);
    CHECK_OK(imatrix_find(m, "blk.1", 5, 3, 1, &v, &e), e);
    CHECK(v == NULL);
    CHECK_INT(imatrix_find(m, "blk.0.attn_q.weigh", 18, 4, 1, &v, &e), ERR_INVALID);
    imatrix_free(m);
    for (size_t n = 0; n < b.len; n++) { /* every prefix is refused */
        CHECK_OK(file_write_atomic(path, b.ptr, n, 0600, &e), e);
        CHECK_INT(imatrix_open(&m, path, &e), ERR_INVALID);
    }
    buf_free(&b);
    test_rm(dir);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(half_precision);
    RUN(no_worse_than_llama_cpp);
    RUN(importances_count);
    RUN(odd_weights);
    RUN(quantize_files);
    RUN(mxfp4_experts);
    RUN(quantize_without_memory);
    RUN(imatrix_dat);
    return test_end();
}
