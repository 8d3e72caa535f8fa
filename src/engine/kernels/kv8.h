/* Internal to engine: keys and values as int8, what the pages of a session with KV_Q8 hold.
 *
 * A block is up to 32 elements of one position's key, or of its value, side by side in one head: [0, 32), [32, 64), …;
 * where a head's dimension is no multiple of 32 its last block is shorter. Each has a scale in binary16. A tile (one
 * key/value head, VEC_TILE positions) is, one after another,
 *     K int8 (dk, VEC_TILE)      V int8 (VEC_TILE, dv)
 *     scales of K, binary16 (blocks of dk, VEC_TILE)      scales of V, binary16 (VEC_TILE, blocks of dv)
 * which is how attn_tile (vec.h) wants keys and values, so that spelling a tile out moves nothing about.
 *
 * A block x is stored so; all in binary32, rounded to nearest, ties to even:
 *     a NaN is in it:   scale = NaN, q = 0 (so the NaN reaches attention, as it does from binary16)
 *     otherwise x is first held within +-KV8_MOST, infinities too, and
 *     amax  = largest |x|
 *     scale = amax / 127 rounded up to four significant bits: the least number that is not smaller, has no more of
 *             them, and is a multiple of 2^-24 (so binary16 has it)
 *     q     = round-half-even(x * (1 / scale)), or 0 where the scale is 0 (amax / 127 is)
 * Rounded up, so that |q| <= 127 without a limit; and q comes from the scale that is kept, so that nothing is lost
 * where a scale is so small (under 2^-14) that binary16 has few digits for it.
 *
 * What attention reads is scale * q: four bits times seven, a multiple of 2^-24 and at most 512 * 127 = KV8_MOST, so
 * binary16 has it exactly, and binary32 too. Nothing is rounded on the way back: a tile can be spelt out in either
 * (here in binary16, which is half as large) and what comes after is as with pages of that kind. Four bits instead of
 * eleven make a scale larger by 5 % on average, and the error with it. */
#ifndef POLDER_ENGINE_KERNELS_KV8_H
#define POLDER_ENGINE_KERNELS_KV8_H

#include <stddef.h>
#include <stdint.h>

#define KV8_BLOCK 32
#define KV8_MOST  65024.0f

static inline uint32_t kv8_blocks(uint32_t n) {
    return (n + KV8_BLOCK - 1) / KV8_BLOCK;
}
/* Where the parts of a tile begin, bytes, and where it ends: a multiple of 64. */
size_t kv8_v_at(uint32_t dk);
size_t kv8_k_scales_at(uint32_t dk, uint32_t dv);
size_t kv8_v_scales_at(uint32_t dk, uint32_t dv);
size_t kv8_bytes(uint32_t dk, uint32_t dv);

/* x (n) as blocks: q (n), scales (kv8_blocks(n)). */
void kv8_quantise(int8_t *q, uint16_t *scales, const float *x, uint32_t n);
/* Key (dk) and value (dv) of position `at` into a tile; dk and dv at most MODEL_HEAD_DIM_MAX. */
void kv8_put(void *tile, uint32_t at, const float *k, uint32_t dk, const float *v, uint32_t dv);

#endif
