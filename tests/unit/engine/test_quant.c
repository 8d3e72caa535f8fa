/* Tensor types: blocks written by hand with the weights that the format gives them, and real files in which another
 * implementation has quantised known weights. What breaks it: a wrong bit of a layout, a wrong table, a scale's sign.
 */
#include "engine/files/gguf.h"
#include "engine/quant.h"
#include "tests/harness.h"
#include "weights.h"

#include <math.h>

TEST(half_precision_is_exact) {
    for (uint32_t h = 0; h < 65536; h++) {
        uint32_t exp = h >> 10 & 31, man = h & 1023;
        double v = exp == 0 ? ldexp(man, -24) : ldexp(1024 + man, (int)exp - 25);
        float f = f16_to_f32((uint16_t)h);
        if (exp == 31 && man)
            CHECK(isnan(f));
        else if (exp == 31)
            CHECK(isinf(f) && (signbit(f) != 0) == (h >> 15 != 0));
        else
            CHECK((double)fabsf(f) == v && (signbit(f) != 0) == (h >> 15 != 0));
    }
}

TEST(brain_floats_and_floats_are_exact) {
    static const uint8_t bf16[] = {0x80, 0x3f, 0x00, 0xc0, 0x01, 0x00};
    float f[3];
    tensor_expand(TT_BF16, bf16, f, 3);
    CHECK(f[0] == 1 && f[1] == -2 && f[2] == 0x1p-133f);
    float g[2] = {3.25f, -0.0f};
    tensor_expand(TT_F32, g, f, 2);
    CHECK(memcmp(f, g, 8) == 0);
}

TEST(types_have_their_sizes) {
    CHECK(tensor_type_get(4) == NULL && tensor_type_get(9) == NULL && tensor_type_get(1000) == NULL);
    for (size_t i = 0; i < N_TYPES; i++) {
        const tensor_type_facts *f = tensor_type_get((uint32_t)all_types[i]);
        const quant_shape *s = quant_shape_get(all_types[i]);
        CHECK(f && f->type == all_types[i] && (f->block_len == 1) == (s == NULL));
        if (s) CHECK_INT(s->block, f->block_len);
    }
    CHECK_STR(tensor_type_get(TT_IQ4_XS)->name, "IQ4_XS");
}

/* f16: 1 is 3c00, 2 is 4000, 0.5 is 3800, 0.25 is 3400 */
TEST(blocks_of_32_by_hand) {
    float w[32];
    uint8_t q8[34] = {0x00, 0x38, 0x7f, 0x80, 0x01}; /* 0.5; 127 -128 1 0 … */
    tensor_expand(TT_Q8_0, q8, w, 32);
    CHECK(w[0] == 63.5f && w[1] == -64 && w[2] == 0.5f && w[3] == 0);
    uint8_t q4[18] = {0x00, 0x40, 0xf0}; /* 2; weight 0 is 0, weight 16 is 15 */
    tensor_expand(TT_Q4_0, q4, w, 32);
    CHECK(w[0] == -16 && w[16] == 14 && w[1] == -16);
    uint8_t q41[20] = {0x00, 0x40, 0x00, 0xbc, 0xf3}; /* 2 q - 1 */
    tensor_expand(TT_Q4_1, q41, w, 32);
    CHECK(w[0] == 5 && w[16] == 29 && w[31] == -1);
    uint8_t q5[22] = {0x00, 0x3c, 0x01, 0x00, 0x00, 0x80, 0x0f, [21] = 0x10}; /* fifth bits of weights 0 and 31 */
    tensor_expand(TT_Q5_0, q5, w, 32);
    CHECK(w[0] == 15 && w[16] == -16 && w[31] == 1 && w[15] == -16);
    uint8_t q51[24] = {0x00, 0x3c, 0x00, 0x40, 0x00, 0x00, 0x01, 0x00, 0x2a}; /* fifth bit of weight 16 */
    tensor_expand(TT_Q5_1, q51, w, 32);
    CHECK(w[0] == 12 && w[16] == 20 && w[1] == 2);
    uint8_t nl[18] = {0x00, 0x40, 0xf0, 0x87}; /* 2 table[q] */
    tensor_expand(TT_IQ4_NL, nl, w, 32);
    CHECK(w[0] == -254 && w[16] == 226 && w[1] == -20 && w[17] == 2);
    uint8_t mx[17] = {128, 0xf7, 0x91}; /* 2^0 times the doubled e2m1: 6.0, -6.0; 0.5, -0.5, here twice that */
    tensor_expand(TT_MXFP4, mx, w, 32);
    CHECK(w[0] == 12 && w[16] == -12 && w[1] == 1 && w[17] == -1 && w[2] == 0);
    const struct {
        uint8_t e;
        float one; /* weight 1, whose e2m1 is 0.5 */
    } scales[] = {{0, 0x1p-128f}, {1, 0x1p-127f}, {2, 0x1p-126f}, {127, 0.5f}, {254, 0x1p126f}, {255, 0x1p127f}};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        mx[0] = scales[i].e;
        tensor_expand(TT_MXFP4, mx, w, 32);
        CHECK(w[1] == scales[i].one && w[17] == -scales[i].one);
    }
}

TEST(blocks_of_256_by_hand) {
    float w[256];
    /* Q2_K: scales[16], q[64], d, dmin. Run 0: sc 3, m 1; run 1: sc 2; run 8 (weights 128 on): sc 5 */
    uint8_t q2[84] = {
        0x13, 0x02, [8] = 0x05, [16] = 0x03, [16 + 16] = 0x02, [16 + 32] = 0x01, [81] = 0x3c, [83] = 0x40};
    tensor_expand(TT_Q2_K, q2, w, 256);
    CHECK(w[0] == 9 - 2 && w[1] == -2 && w[16] == 4 && w[17] == 0 && w[128] == 5 && w[32] == 0);
    /* Q3_K: hmask[32], q[64], scales[12], d. sc of run 0 low bits 1, high bits 2: 33 - 32 = 1; the others -32 */
    uint8_t q3[110] = {[0] = 0x01, [32] = 0x02, [96] = 0x01, [104] = 0x02, [109] = 0x3c};
    tensor_expand(TT_Q3_K, q3, w, 256);
    CHECK(w[0] == 2 && w[1] == -4 && w[16] == 128 && w[32] == 128);
    /* Q4_K: d 1, dmin 2. Run 0: sc 5, m 1; run 4: sc low 3 and high bits 1 from scales[0], m low 2 and high from [4] */
    uint8_t q4[144] = {0x00, 0x3c, 0x00, 0x40, 0x45, 0, 0, 0, 0x81, 0, 0, 0, 0x23, [16] = 0xf7, [16 + 64] = 0x09};
    tensor_expand(TT_Q4_K, q4, w, 256);
    CHECK(w[0] == 5 * 7 - 2 && w[1] == -2 && w[32] == 0); /* run 1: sc 0, m 0 */
    CHECK(w[128] == 19 * 9 - 2 * 34 && w[129] == -68);
    /* Q5_K: the same with fifth bits of weight 0 (bit 0) and weight 128 (bit 4) */
    uint8_t q5[176] = {0x00, 0x3c, 0x00, 0x40, 0x45, 0,           0,           0,
                       0x81, 0,    0,    0,    0x23, [16] = 0x11, [48] = 0xf7, [48 + 64] = 0x09};
    tensor_expand(TT_Q5_K, q5, w, 256);
    CHECK(w[0] == 5 * 23 - 2 && w[1] == -2 && w[128] == 19 * 25 - 68);
    /* Q6_K: ql[128], qh[64], sc[16], d. weight 0: low 5 high 3: 53 - 32; weight 96: low 15 (high nibble of byte 32) */
    uint8_t q6[210] = {[0] = 0x05, [32] = 0xf0, [128] = 0x43, [192] = 0xff, [198] = 0x02, [209] = 0x3c};
    tensor_expand(TT_Q6_K, q6, w, 256);
    CHECK(w[0] == -21 && w[1] == 32 && w[96] == 2 * (15 + 16 - 32) && w[97] == -64 && w[16] == 0);
    /* IQ4_XS: d, scales_h, scales_l[4], q. Run 0: 3 | 2 << 4 = 35 - 32; run 1: 15 | 0: -17 */
    uint8_t xs[136] = {0x00, 0x3c, 0x02, 0x00, 0xf3, 0, 0, 0, 0x80, [24] = 0x0f};
    tensor_expand(TT_IQ4_XS, xs, w, 256);
    CHECK(w[0] == 3 * -127 && w[16] == 3 && w[32] == -17 * 113 && w[48] == -17 * -127);
}

/* ---- the same weights in every type, by another implementation --------------------------------------------------- */

static bool open_oracle(gguf **g, const char *shared, const char *type) {
    char path[1200], lower[16] = "";
    for (size_t i = 0; type[i]; i++) lower[i] = (char)(type[i] >= 'A' && type[i] <= 'Z' ? type[i] + 32 : type[i]);
    snprintf(path, sizeof path, "%s/oracle/llama-%s/model.gguf", shared, lower);
    return gguf_open(g, path, NULL) == ERR_OK;
}

/* Relative error of all matrices of one file against F32: root of mean squares. -1 where shapes differ. */
static double rms_error(const gguf *a, const gguf *ref, tensor_type type) {
    double err2 = 0, ref2 = 0;
    for (size_t i = 0; i < gguf_tensor_count(a); i++) {
        const gguf_tensor *t = gguf_tensor_at(a, i);
        char name[GGUF_NAME_MAX + 1];
        snprintf(name, sizeof name, "%.*s", (int)t->name.len, t->name.ptr);
        const gguf_tensor *r = gguf_tensor_find(ref, name);
        if (!r || r->dims[0] != t->dims[0] || r->dims[1] != t->dims[1]) return -1;
        if (t->type != type) continue;
        size_t n = (size_t)(t->dims[0] * t->dims[1]);
        float *x = malloc(n * 4), *y = malloc(n * 4);
        if (!x || !y) abort();
        tensor_expand(t->type, t->data, x, n);
        tensor_expand(r->type, r->data, y, n);
        for (size_t k = 0; k < n; k++) {
            err2 += ((double)x[k] - y[k]) * ((double)x[k] - y[k]);
            ref2 += (double)y[k] * y[k];
        }
        free(x);
        free(y);
    }
    return ref2 > 0 ? sqrt(err2 / ref2) : -1;
}

/* For normally distributed weights these are what the formats can do; a wrong layout gives 0.5 and more. */
TEST(errors_are_those_of_the_formats) {
    static const struct {
        tensor_type type;
        double min, max;
    } bounds[] = {
        {TT_F16, 1e-5, 4e-4},  {TT_BF16, 1e-4, 3e-3}, {TT_Q8_0, 1e-3, 8e-3},   {TT_Q6_K, 5e-3, 0.03},
        {TT_Q5_0, 0.01, 0.06}, {TT_Q5_1, 0.01, 0.06}, {TT_Q5_K, 0.01, 0.05},   {TT_Q4_0, 0.03, 0.12},
        {TT_Q4_1, 0.03, 0.11}, {TT_Q4_K, 0.03, 0.10}, {TT_IQ4_NL, 0.03, 0.10}, {TT_IQ4_XS, 0.03, 0.10},
        {TT_Q3_K, 0.08, 0.22}, {TT_Q2_K, 0.15, 0.40},
    };
    const char *shared = test_shared();
    if (!shared) SKIP("../shared is absent");
    gguf *ref, *g;
    CHECK(open_oracle(&ref, shared, "F32"));
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        const char *name = tensor_type_get((uint32_t)bounds[i].type)->name;
        CHECK(open_oracle(&g, shared, name));
        double e = rms_error(g, ref, bounds[i].type);
        gguf_free(g);
        printf("     %-7s relative error %.5f\n", name, e);
        if (!(e >= bounds[i].min && e <= bounds[i].max))
            FAIL("%s: relative error %g, outside %g to %g", name, e, bounds[i].min, bounds[i].max);
    }
    gguf_free(ref);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(half_precision_is_exact);
    RUN(brain_floats_and_floats_are_exact);
    RUN(types_have_their_sizes);
    RUN(blocks_of_32_by_hand);
    RUN(blocks_of_256_by_hand);
    RUN(errors_are_those_of_the_formats);
    return test_end();
}
