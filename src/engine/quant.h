/* Internal to engine: the parts of a quantised block, for repacking (pack.c), the scalar kernels and expansion.
 * The formats are described at the top of quant.c.
 */
#ifndef POLDER_ENGINE_QUANT_H
#define POLDER_ENGINE_QUANT_H

#include "engine/tensor.h"

extern const int8_t iq4_table[16], mxfp4_table[16];

float f16_to_f32(uint16_t h); /* exact; signalling NaN becomes quiet */

/* One block in any quantised type: unpacked integers and the bits of its f16 scales (MXFP4: e). */
typedef struct quant_parts {
    uint8_t q[256]; /* as stored: Q8_0's are int8 in two's complement, the others unsigned */
    int8_t sc[16];  /* one a run (types with `scaled`); offsets of 32 are taken off */
    uint8_t m[16];  /* one a run (MIN_SCALED) */
    uint16_t d, dmin;
} quant_parts;
void quant_split(tensor_type type, const uint8_t *block, quant_parts *out);

typedef enum quant_min { MIN_NONE, MIN_ADDED /* w + dmin */, MIN_SCALED /* w - dmin m */ } quant_min;
typedef struct quant_shape {
    int16_t block;       /* weights a block: 32 or 256 */
    int16_t run;         /* weights that share sc and m: 16 or 32 */
    int16_t offset;      /* taken off q */
    const int8_t *table; /* q is an index into it; NULL: q is the integer */
    bool scaled;         /* w = d sc (...), otherwise w = d (...) */
    quant_min min;
} quant_shape;
/* NULL for F32, F16, BF16. */
const quant_shape *quant_shape_get(tensor_type type);
/* The bits of a d or dmin as a number. */
float quant_scale(tensor_type type, uint16_t bits);
/* The integer that a stored q stands for: -128 to 127. */
int quant_weight(const quant_shape *s, tensor_type type, uint8_t q);

#endif
