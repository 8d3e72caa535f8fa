/* Internal to engine: kernels for matrices. What a product is, to the last bit; the packed form that all kernel sets
 * read; and the table of functions that each set fills.
 *
 * ---- numerics, version 1 --------------------------------------------------------------------------------------
 * y = W x for one row of W and one token. Everything is IEEE binary32, rounded to nearest even; fma rounds once.
 * "int" sums are exact (32 bits hold them), so their order does not matter; the order of every float operation is
 * written here and is the same for every batch, thread count and kernel set. docs/decisions/0001-numerics.md says why.
 *
 * F32, F16, BF16: weights become binary32 exactly, and for k = 0, 1, ..., cols - 1 in this order
 *     acc = fma(w[k], x[k], acc)                                             from acc = +0
 *
 * Other types: x becomes int8 in blocks of 32 along k (act_block):
 *     amax = largest |x| of the block
 *     amax not finite (a NaN or an infinity is in the block): d = NaN, q = 0   (so the NaN reaches every output)
 *     amax < 2^-118 (127 / amax would overflow):              d = 0,   q = 0
 *     otherwise d = amax / 127, q = round-half-even(x * (127 / amax))          (|q| <= 127)
 *     s0, s1 = int sum of q over the first and the last 16;   asum = d * (float)(s0 + s1)
 * and for the blocks in increasing order, from acc = +0, with the weights' parts as quant.c names them (w = q - offset
 * or table[q]; sc is 1 where a type has none):
 *     scales per 32 (Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 IQ4_NL MXFP4 Q4_K Q5_K IQ4_XS):
 *         idot = int sum w a;                 acc = fma((d * (float)sc) * d_a, (float)idot, acc)
 *         then, added minimum (Q4_1 Q5_1):    acc = fma(m, asum, acc)
 *         or, scaled minimum (Q4_K Q5_K):     acc = fma(-(dmin * (float)m), asum, acc)
 *     scales per 16 (Q6_K Q3_K Q2_K):
 *         idot = sc0 * (int sum of the first 16) + sc1 * (of the last 16)
 *                                             acc = fma(d * d_a, (float)idot, acc)
 *         then, scaled minimum (Q2_K):        acc = fma(-(dmin * d_a), (float)(m0 * s0 + m1 * s1), acc)
 * A NaN result is a NaN in every set; which of its bits are set is not part of the contract.
 *
 * ---- the packed form ------------------------------------------------------------------------------------------
 * Rows come in groups of 8, one row a lane; the last group is filled up with zero rows.
 * Floats: panels of 4 groups (the last one may have fewer): panel, k, group in the panel, lane.
 * Others: group, then a unit for each of the type's blocks (32 or 256 weights of 8 rows). A unit is
 *     d f16[8] (MXFP4: e u8[8]), where the type has minima dmin f16[8], then for each 32 weights:
 *     scaled types: sc i8[8] (two of them where scales are per 16); Q4_K, Q5_K: m u8[8]
 *                   Q2_K: (sc | m << 4) u8[2][8]
 *     fifth or third bits (Q5_0 Q5_1 Q5_K Q3_K): 32 bytes; high two bits (Q6_K): 64 bytes
 *     low bits: 256 bytes (Q8_0), 128 (four bits) or 64 (two bits)
 * The integer of lane r, k = 4 j + i stands at place j * 32 + r * 4 + i of 256 ("wide"): a 32-bit lane of register j
 * holds four k of one row. With x = place mod 32, narrower fields hold of register j
 *     four bits:  byte (j % 4) * 32 + x, shifted by j / 4 * 4
 *     two bits:   byte (j % 2) * 32 + x, shifted by j / 2 * 2
 *     one bit:    byte x, shifted by j
 */
#ifndef POLDER_ENGINE_KERNELS_H
#define POLDER_ENGINE_KERNELS_H

#include "engine/isa.h"
#include "engine/quant.h"
#include "engine/tensor.h"

#define LANES        8
#define PANEL_GROUPS 4

/* 32 activations of one token. */
typedef struct act_block {
    int8_t q[32];
    float d, asum;
    int16_t s[2];  /* sums of q over 16 */
    int32_t nsum8; /* -8 (s0 + s1): takes the offset 8 off four-bit weights */
} act_block;

/* What products read: x (n, cols) rows ldx apart, and blocks (cols / 32, n), rows of blocks ldb apart. Behind the last
 * block there are ACTS_BEYOND more that may be read and mean nothing: a kernel need not have code for every n. */
#define ACTS_BEYOND 16
typedef struct acts_view {
    const float *x;
    size_t ldx;
    const act_block *blocks;
    size_t ldb;
    uint32_t n, cols;
} acts_view;

typedef struct packed {
    tensor_type type;
    uint32_t rows, cols;
    uint32_t n_groups;
    uint32_t unit_bytes; /* others: bytes of a unit; floats: bytes of a weight */
    uint32_t head_bytes; /* others: d and dmin */
    uint32_t part_bytes; /* others: bytes of each 32 weights in a unit */
    uint32_t n_tasks;    /* panels or groups: what work is cut into */
    uint32_t task_rows;  /* rows a task: 32 or 8 */
    uint64_t task_bytes; /* bytes of a full task */
    uint64_t n_bytes;
    uint8_t *data; /* aligned to 64 */
} packed;

/* Shapes and sizes from type, rows and cols (the latter checked by the caller); false where n_bytes overflows. */
bool pack_plan(packed *p, tensor_type type, uint32_t rows, uint32_t cols);
/* Fill tasks [begin, end) of p->data from the tensor's bytes in the file (src: its first row, whatever `begin`). */
void pack_fill(packed *p, const uint8_t *src, uint32_t begin, uint32_t end);

/* The parts of 32 weights of 8 rows, spelt out. */
typedef struct block8 {
    int8_t w[LANES][32]; /* offset taken off, table looked up */
    float d[LANES], dmin[LANES];
    int32_t sc[2][LANES], m[2][LANES]; /* both halves alike where scales are per 32; 1 and 0 where there are none */
} block8;
void packed_block(const packed *p, uint32_t group, uint32_t block, block8 *out);
/* Row r as binary32, the same bits as tensor_expand gives. */
void packed_row(const packed *p, uint32_t r, float *out);

typedef struct mat_kernels {
    /* blocks (cols / 32, n) for tokens [begin, end) of a->x. */
    void (*quantise)(act_block *blocks, const acts_view *a, uint32_t begin, uint32_t end);
    /* y[t * ldy + r] for the rows of tasks [begin, end) and all tokens. */
    void (*mul)(const packed *w, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy);
} mat_kernels;

extern const mat_kernels mat_scalar, mat_avx2, mat_avx512, mat_neon;

/* The table of a set; NULL where this build or this CPU lacks it. mat_get(isa_get()) is the one in use. */
const mat_kernels *mat_get(isa i);

#endif
