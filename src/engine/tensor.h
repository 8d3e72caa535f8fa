/* Internal to engine: tensor types, matrices and their products, the thread pool. Written and read by model code
 * (models/), implemented by gguf.c, quant.c, matrix.c, pool.c and kernels/.
 */
#ifndef POLDER_ENGINE_TENSOR_H
#define POLDER_ENGINE_TENSOR_H

#include "base/error.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- thread pool ------------------------------------------------------------------------------------------ */
typedef struct pool pool;
/* n_threads counts the caller. Workers spin briefly, then sleep. */
err_code pool_new(pool **out, unsigned n_threads, err *e);
void pool_free(pool *p);
unsigned pool_threads(const pool *p);
/* Whether the last of n threads (2 or more) is worth having where the caller runs `part` of the time. */
bool pool_pays(unsigned n, double part);
/* Calls fn(ctx, begin, end, thread) over disjoint ranges that cover [0, n), each at most `grain` long and beginning at
 * a multiple of it; returns when all are done. Each thread walks through a share of its own, then helps with what
 * others have left. thread is 0..n_threads-1 (for scratch). p may be NULL: runs on the caller. */
typedef void (*pool_fn)(void *ctx, size_t begin, size_t end, unsigned thread);
void pool_run(pool *p, size_t n, size_t grain, pool_fn fn, void *ctx);
/* The same for work that is the quicker the longer a range: whoever takes from a share takes half of what is left of
 * it, one grain at least; one thread alone takes all at once. Ranges are long until the end nears, and threads that are
 * equally quick still end within a grain of each other. */
void pool_run_halves(pool *p, size_t n, size_t grain, pool_fn fn, void *ctx);

/* ---- tensor types ----------------------------------------------------------------------------------------- */
/* Numbers are GGUF's (ggml_type). */
typedef enum tensor_type {
    TT_F32 = 0,
    TT_F16 = 1,
    TT_Q4_0 = 2,
    TT_Q4_1 = 3,
    TT_Q5_0 = 6,
    TT_Q5_1 = 7,
    TT_Q8_0 = 8,
    TT_Q2_K = 10,
    TT_Q3_K = 11,
    TT_Q4_K = 12,
    TT_Q5_K = 13,
    TT_Q6_K = 14,
    TT_IQ4_NL = 20,
    TT_IQ4_XS = 23,
    TT_BF16 = 30,
    TT_MXFP4 = 39,
} tensor_type;
/* NULL where the number is not a type that polder reads. */
typedef struct tensor_type_facts {
    tensor_type type;
    const char *name;   /* "Q4_K" */
    uint32_t block_len; /* weights a block: 1, 32 or 256 */
    uint32_t block_bytes;
} tensor_type_facts;
const tensor_type_facts *tensor_type_get(uint32_t type);
/* Expand n weights (a multiple of block_len) to F32, exactly as the format defines them. */
void tensor_expand(tensor_type type, const void *src, float *dst, size_t n);

/* ---- matrices --------------------------------------------------------------------------------------------- */
/* A weight matrix y = W x, W (rows, cols) row-major as in the file, repacked by groups of 8 rows at matrix_init.
 * Immutable afterwards. */
typedef struct matrix matrix;
/* `data` are the tensor's bytes in the file (rows * cols weights); not needed after the call. cols must be a
 * multiple of the type's block length (ERR_INVALID otherwise), `name` is for that sentence. */
err_code matrix_new(matrix **out, tensor_type type, uint32_t rows, uint32_t cols, const void *data, const char *name,
                    err *e);
void matrix_free(matrix *m);
/* The same in two steps, on memory that is the caller's: the bytes of the packed form (holding.c fills it), and a
 * matrix on them, which they must outlive. */
err_code matrix_plan(tensor_type type, uint32_t rows, uint32_t cols, const char *name, uint64_t *n_bytes, err *e);
err_code matrix_new_at(matrix **out, tensor_type type, uint32_t rows, uint32_t cols, void *packed_bytes,
                       const char *name, err *e);
uint32_t matrix_rows(const matrix *m);
uint32_t matrix_cols(const matrix *m);
uint64_t matrix_bytes(const matrix *m);
/* Row r expanded to F32 (embedding lookup). out: cols floats. */
void matrix_row(const matrix *m, uint32_t r, float *out);

/* Activations prepared once for all matrices that read them: F32 rows, and (made by the first matrix_mul that has a
 * quantised matrix) int8 blocks of 32 with one F32 scale each, q = round-half-even(x * (127 / amax)).
 * Memory is sized by acts_new for max_rows x max_cols; any other shape with no more elements fits too. */
typedef struct acts acts;
err_code acts_new(acts **out, uint32_t max_rows, uint32_t max_cols, err *e);
void acts_free(acts *a);
/* x: (n, cols) floats, row stride ldx; kept by reference until the next acts_set, which must follow where x changes. */
void acts_set(acts *a, pool *p, const float *x, size_t ldx, uint32_t n, uint32_t cols);

/* y[t * ldy + r] = sum over k of W[r][k] * x[t][k] for all rows r and t < n of acts.
 * Result contract: F32, F16, BF16: one chain of fused multiply-adds over k in increasing order, from +0.
 * Quantised types: over blocks of 32 in increasing order, acc = fma(scale, (float)idot, acc), then for types with a
 * minimum acc = fma(-min, asum, acc), as kernels/kernels.h defines it. Same bits for every n, thread count and
 * kernel set. Several matrices that read the same acts may be given at once (fewer barriers). A product may be for some
 * of the rows only (experts): rows [first, first + n) of acts, y beginning with the first of them; n = 0 stands for all
 * rows. And for some of the columns (heads with a matrix each): those from `col` on, as many as the matrix has; col is
 * a multiple of 32 where the matrix is quantised. */
typedef struct matmul {
    const matrix *m;
    float *y;
    size_t ldy;
    uint32_t first, n;
    uint32_t col;
} matmul;
void matrix_mul(pool *p, const matmul *ops, size_t n_ops, acts *a);

#endif
