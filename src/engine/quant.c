/* The tensor types of GGUF files, as GGML defines them. A block is a run of weights of one row with its scales; all
 * numbers are little endian, f16 is IEEE half precision. `d` scales, `m`/`dmin` are subtracted or added minima.
 *
 *   Q8_0   d f16, q i8[32]                                          w = d q
 *   Q4_0   d f16, q 4 bit[32]                                       w = d (q - 8)
 *   Q4_1   d f16, m f16, q 4 bit[32]                                w = d q + m
 *   Q5_0   d f16, 5th bits u32, q 4 bit[32]                         w = d (q - 16)
 *   Q5_1   d f16, m f16, 5th bits u32, q 4 bit[32]                  w = d q + m
 *   IQ4_NL d f16, q 4 bit[32]                                       w = d table[q]
 *   MXFP4  e u8, q 4 bit[32]                                        w = 2^(e - 128) table[q]
 *   and 256 weights a block:
 *   Q2_K   sc 4 bit + m 4 bit [16], q 2 bit, d f16, dmin f16        w = d sc q - dmin m        (each 16)
 *   Q3_K   3rd bits [32], q 2 bit, sc 6 bit[16], d f16              w = d (sc - 32) (q - 4)    (each 16)
 *   Q4_K   d f16, dmin f16, sc and m 6 bit[8], q 4 bit              w = d sc q - dmin m        (each 32)
 *   Q5_K   d f16, dmin f16, sc and m 6 bit[8], 5th bits [32], q     w = d sc q - dmin m        (each 32)
 *   Q6_K   q low 4 bit [128], high 2 bit [64], sc i8[16], d f16     w = d sc (q - 32)          (each 16)
 *   IQ4_XS d f16, sc high 2 bit u16, low 4 bit [4], q 4 bit         w = d (sc - 32) table[q]   (each 32)
 *
 * Four-bit weights of 32: byte j holds weight j low and weight j + 16 high. The K types split otherwise; see each.
 */
#include "engine/quant.h"

#include "engine/num.h"

#include <string.h>

const int8_t iq4_table[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* e2m1 floats, doubled: the factor 2 is taken off in the exponent */
const int8_t mxfp4_table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static const tensor_type_facts types[] = {
    {TT_F32, "F32", 1, 4},       {TT_F16, "F16", 1, 2},         {TT_BF16, "BF16", 1, 2},
    {TT_Q8_0, "Q8_0", 32, 34},   {TT_Q4_0, "Q4_0", 32, 18},     {TT_Q4_1, "Q4_1", 32, 20},
    {TT_Q5_0, "Q5_0", 32, 22},   {TT_Q5_1, "Q5_1", 32, 24},     {TT_Q2_K, "Q2_K", 256, 84},
    {TT_Q3_K, "Q3_K", 256, 110}, {TT_Q4_K, "Q4_K", 256, 144},   {TT_Q5_K, "Q5_K", 256, 176},
    {TT_Q6_K, "Q6_K", 256, 210}, {TT_IQ4_NL, "IQ4_NL", 32, 18}, {TT_IQ4_XS, "IQ4_XS", 256, 136},
    {TT_MXFP4, "MXFP4", 32, 17},
};

const tensor_type_facts *tensor_type_get(uint32_t type) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if ((uint32_t)types[i].type == type) return &types[i];
    return NULL;
}

float f16_to_f32(uint16_t h) {
    return num_from_half(h);
}

/* ---- one block to its parts -------------------------------------------------------------------------------- */

static uint16_t u16_at(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}
static float f16_at(const uint8_t *p) {
    return f16_to_f32(u16_at(p));
}

float quant_scale(tensor_type type, uint16_t bits) {
    if (type != TT_MXFP4) return f16_to_f32(bits);
    uint32_t u = bits < 2 ? 0x200000u << bits : (bits - 1u) << 23; /* 2^(e - 128), subnormal below e = 2 */
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* q of 32 four-bit weights in 16 bytes. */
static void nibbles(const uint8_t *p, uint8_t *q) {
    for (int j = 0; j < 16; j++) {
        q[j] = p[j] & 15;
        q[j + 16] = p[j] >> 4;
    }
}

static void fifth_bits(const uint8_t *p, uint8_t *q) {
    uint32_t h = (uint32_t)u16_at(p) | (uint32_t)u16_at(p + 2) << 16;
    for (int j = 0; j < 32; j++) q[j] |= (uint8_t)((h >> j & 1) << 4);
}

static void parts_32(tensor_type type, const uint8_t *p, quant_parts *o) {
    bool has_min = type == TT_Q4_1 || type == TT_Q5_1;
    o->d = u16_at(p);
    o->dmin = has_min ? u16_at(p + 2) : 0;
    p += has_min ? 4 : 2;
    if (type == TT_Q8_0) {
        memcpy(o->q, p, 32);
    } else if (type == TT_Q5_0 || type == TT_Q5_1) {
        nibbles(p + 4, o->q);
        fifth_bits(p, o->q);
    } else {
        nibbles(p, o->q);
    }
}

/* 64 weights of Q4_K and Q5_K: 32 bytes, the first 32 weights low, the others high. */
static void nibbles_64(const uint8_t *p, uint8_t *q) {
    for (int j = 0; j < 32; j++) {
        q[j] = p[j] & 15;
        q[j + 32] = p[j] >> 4;
    }
}

/* Eight 6-bit scales and eight 6-bit minima in 12 bytes. */
static void scales_12(const uint8_t *p, quant_parts *o) {
    for (int j = 0; j < 4; j++) {
        o->sc[j] = p[j] & 63;
        o->m[j] = p[j + 4] & 63;
        o->sc[j + 4] = (int8_t)((p[j + 8] & 15) | (p[j] >> 6) << 4);
        o->m[j + 4] = (uint8_t)((p[j + 8] >> 4) | (p[j + 4] >> 6) << 4);
    }
}

static void parts_q2_k(const uint8_t *p, quant_parts *o) {
    for (int i = 0; i < 16; i++) {
        o->sc[i] = p[i] & 15;
        o->m[i] = p[i] >> 4;
    }
    /* two halves of 128: 32 bytes hold four runs of 32 weights, two bits each */
    for (int run = 0; run < 8; run++)
        for (int i = 0; i < 32; i++) o->q[32 * run + i] = p[16 + run / 4 * 32 + i] >> (run % 4 * 2) & 3;
    o->d = u16_at(p + 80);
    o->dmin = u16_at(p + 82);
}

static void parts_q3_k(const uint8_t *p, quant_parts *o) {
    const uint8_t *high = p, *low = p + 32, *sc = p + 96;
    for (int run = 0; run < 8; run++)
        for (int i = 0; i < 32; i++) {
            int q = low[run / 4 * 32 + i] >> (run % 4 * 2) & 3;
            o->q[32 * run + i] = (uint8_t)(q | (high[i] >> run & 1) << 2);
        }
    for (int j = 0; j < 16; j++) {
        int lo = j < 8 ? sc[j] & 15 : sc[j - 8] >> 4;
        int hi = sc[8 + j % 4] >> (j / 4 * 2) & 3;
        o->sc[j] = (int8_t)((lo | hi << 4) - 32);
    }
    o->d = u16_at(p + 108);
}

static void parts_q4_k(const uint8_t *p, quant_parts *o, bool fifth) {
    o->d = u16_at(p);
    o->dmin = u16_at(p + 2);
    scales_12(p + 4, o);
    const uint8_t *low = p + (fifth ? 48 : 16);
    for (int i = 0; i < 4; i++) nibbles_64(low + 32 * i, o->q + 64 * i);
    for (int run = 0; fifth && run < 8; run++)
        for (int i = 0; i < 32; i++) o->q[32 * run + i] |= (uint8_t)((p[16 + i] >> run & 1) << 4);
}

static void parts_q6_k(const uint8_t *p, quant_parts *o) {
    const uint8_t *low = p, *high = p + 128;
    for (int run = 0; run < 8; run++) { /* two halves of 128: 64 low bytes, 32 high bytes */
        int half = run / 4, in_half = run % 4;
        for (int i = 0; i < 32; i++) {
            int lo = low[half * 64 + in_half % 2 * 32 + i] >> (in_half / 2 * 4) & 15;
            int hi = high[half * 32 + i] >> (in_half * 2) & 3;
            o->q[32 * run + i] = (uint8_t)(lo | hi << 4);
        }
    }
    memcpy(o->sc, p + 192, 16);
    o->d = u16_at(p + 208);
}

static void parts_iq4_xs(const uint8_t *p, quant_parts *o) {
    o->d = u16_at(p);
    unsigned high = u16_at(p + 2);
    for (int j = 0; j < 8; j++) {
        int lo = p[4 + j / 2] >> (j % 2 * 4) & 15;
        o->sc[j] = (int8_t)((lo | (high >> (2 * j) & 3) << 4) - 32);
        nibbles(p + 8 + 16 * j, o->q + 32 * j);
    }
}

static void parts_mxfp4(const uint8_t *p, quant_parts *o) {
    o->d = *p;
    nibbles(p + 1, o->q);
}

void quant_split(tensor_type type, const uint8_t *block, quant_parts *out) {
    out->dmin = 0;
    switch (type) {
    case TT_Q2_K: parts_q2_k(block, out); break;
    case TT_Q3_K: parts_q3_k(block, out); break;
    case TT_Q4_K: parts_q4_k(block, out, false); break;
    case TT_Q5_K: parts_q4_k(block, out, true); break;
    case TT_Q6_K: parts_q6_k(block, out); break;
    case TT_IQ4_XS: parts_iq4_xs(block, out); break;
    case TT_MXFP4: parts_mxfp4(block, out); break;
    default: parts_32(type, block, out);
    }
}

/* ---- parts to floats --------------------------------------------------------------------------------------- */

const quant_shape *quant_shape_get(tensor_type type) {
    /* block, run, offset, table, scaled, min */
    static const quant_shape shapes[] = {
        [TT_Q8_0] = {32, 32, 0, NULL, false, MIN_NONE},         [TT_Q4_0] = {32, 32, 8, NULL, false, MIN_NONE},
        [TT_Q4_1] = {32, 32, 0, NULL, false, MIN_ADDED},        [TT_Q5_0] = {32, 32, 16, NULL, false, MIN_NONE},
        [TT_Q5_1] = {32, 32, 0, NULL, false, MIN_ADDED},        [TT_IQ4_NL] = {32, 32, 0, iq4_table, false, MIN_NONE},
        [TT_Q2_K] = {256, 16, 0, NULL, true, MIN_SCALED},       [TT_Q3_K] = {256, 16, 4, NULL, true, MIN_NONE},
        [TT_Q4_K] = {256, 32, 0, NULL, true, MIN_SCALED},       [TT_Q5_K] = {256, 32, 0, NULL, true, MIN_SCALED},
        [TT_Q6_K] = {256, 16, 32, NULL, true, MIN_NONE},        [TT_IQ4_XS] = {256, 32, 0, iq4_table, true, MIN_NONE},
        [TT_MXFP4] = {32, 32, 0, mxfp4_table, false, MIN_NONE},
    };
    if ((size_t)type >= sizeof shapes / sizeof *shapes || shapes[type].block == 0) return NULL;
    return &shapes[type];
}

int quant_weight(const quant_shape *s, tensor_type type, uint8_t q) {
    if (type == TT_Q8_0) return (int8_t)q;
    return s->table ? s->table[q] : (int)q - s->offset;
}

static void expand_block(tensor_type type, const quant_shape *s, const uint8_t *block, float *dst) {
    quant_parts o;
    quant_split(type, block, &o);
    float d = quant_scale(type, o.d), dmin = quant_scale(type, o.dmin);
    for (int i = 0; i < s->block; i++) {
        int run = i / s->run;
        float w = (s->scaled ? d * (float)o.sc[run] : d) * (float)quant_weight(s, type, o.q[i]);
        if (s->min == MIN_ADDED) w += dmin;
        if (s->min == MIN_SCALED) w -= dmin * (float)o.m[run];
        dst[i] = w;
    }
}

void tensor_expand(tensor_type type, const void *src, float *dst, size_t n) {
    const uint8_t *p = src;
    if (type == TT_F32) {
        memcpy(dst, src, n * 4);
    } else if (type == TT_F16) {
        for (size_t i = 0; i < n; i++) dst[i] = f16_at(p + 2 * i);
    } else if (type == TT_BF16) {
        for (size_t i = 0; i < n; i++) {
            uint32_t bits = (uint32_t)u16_at(p + 2 * i) << 16;
            memcpy(&dst[i], &bits, 4);
        }
    } else {
        const quant_shape *s = quant_shape_get(type);
        size_t block = (size_t)s->block, bytes = tensor_type_get((uint32_t)type)->block_bytes;
        for (size_t i = 0; i < n / block; i++) expand_block(type, s, p + i * bytes, dst + i * block);
    }
}
