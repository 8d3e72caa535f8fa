/* Internal to engine: F32 weights to the blocks of a tensor type, importance matrices, and mixes of types by name.
 *
 * What is minimised: the sum over a row of importance[j] * (w[j] - stored[j])^2; without importances of
 * (w[j] - stored[j])^2. Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and MXFP4 without importances are the format's plain rounding,
 * equal to the last bit to what other implementations write; the others search (quantize_fit.c says how).
 * Every row is computed alone, so results do not depend on threads or chunks.
 */
#ifndef POLDER_ENGINE_QUANTIZE_H
#define POLDER_ENGINE_QUANTIZE_H

#include "engine/files/gguf.h"
#include "engine/tensor.h"

/* n_rows rows of `cols` weights (a multiple of the block length) to dst. importance: cols floats, or NULL. */
void quantize_rows(tensor_type type, const float *src, uint8_t *dst, size_t n_rows, size_t cols,
                   const float *importance);
uint16_t f32_to_f16(float f);  /* to nearest, ties to even; NaN stays NaN */
uint16_t f32_to_bf16(float f); /* the same */

/* One block each (quantize_blocks.c: 32 weights, quantize_k.c: 256). w: importances of its weights, or NULL. */
typedef void (*quantize_block)(const float *x, const float *w, uint8_t *out);
quantize_block quantize_block_32(tensor_type type); /* NULL where the type has other blocks */
quantize_block quantize_block_256(tensor_type type);

/* ---- importance matrices (imatrix.c) ---------------------------------------------------------------------- */

typedef struct imatrix imatrix;
err_code imatrix_open(imatrix **out, const char *path, err *e);
void imatrix_free(imatrix *m);
size_t imatrix_count(const imatrix *m);
/* The mean squared activations for a tensor: n_mat rows of `cols`; NULL where there are none of that name.
 * ERR_INVALID where there are some of another size. */
err_code imatrix_find(const imatrix *m, const char *name, size_t name_len, uint64_t cols, uint64_t n_mat,
                      const float **out, err *e);

/* ---- mixes (quantize_mix.c) ------------------------------------------------------------------------------- */

typedef struct mix mix; /* a mix of types, or one type */
const mix *mix_find(const char *name);
const char *mix_names(void);
uint32_t mix_file_type(const mix *m); /* general.file_type */
const char *mix_name(const mix *m);
typedef struct mix_model { /* what the choice depends on */
    const mix *m;
    uint32_t n_layer, n_expert, n_gqa;
    bool has_output, has_imatrix;
} mix_model;
/* The type for a tensor: its own where it is not a matrix that quantising would help. */
tensor_type mix_choose(const mix_model *mm, const gguf_tensor *t);

#endif
