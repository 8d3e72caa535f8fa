#include "engine/kernels/kernels.h"

static void quantise(act_block *blocks, const acts_view *a, uint32_t begin, uint32_t end) {
    mat_scalar.quantise(blocks, a, begin, end);
}

static void mul(const packed *w, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy) {
    mat_scalar.mul(w, begin, end, a, y, ldy);
}

const mat_kernels mat_avx2 = {quantise, mul};
