/* Writing keys and values as int8. Once a position and layer: what reads them is in the kernel tables (kv8_expand). */
#include "engine/kernels/kv8.h"

#include "engine/kernels/vec.h"

#include <string.h>

#define HEAD_DIM_MAX 1024 /* models.h, MODEL_HEAD_DIM_MAX */

size_t kv8_v_at(uint32_t dk) {
    return (size_t)VEC_TILE * dk;
}

size_t kv8_k_scales_at(uint32_t dk, uint32_t dv) {
    return (size_t)VEC_TILE * (dk + dv);
}

size_t kv8_v_scales_at(uint32_t dk, uint32_t dv) {
    return kv8_k_scales_at(dk, dv) + (size_t)VEC_TILE * kv8_blocks(dk) * sizeof(uint16_t);
}

size_t kv8_bytes(uint32_t dk, uint32_t dv) {
    return kv8_v_scales_at(dk, dv) + (size_t)VEC_TILE * kv8_blocks(dv) * sizeof(uint16_t);
}

/* The largest |x| as bits: infinity lies above all finite values there, NaN above infinity. */
static uint32_t top_of(const float *x, uint32_t n) {
    uint32_t top = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits = num_bits(x[i]) & 0x7fffffff;
        top = bits > top ? bits : top;
    }
    return top;
}

/* The least number of four significant bits that binary16 has and that is not smaller; x is 0 to 512. */
static uint16_t scale_above(float x) {
    uint32_t h = num_to_half(x), drop = 7;
    if (num_from_half((uint16_t)h) < x) h++;
    while (h < 0x400 && drop && h < 8u << drop) drop--; /* subnormals are h * 2^-24 */
    return (uint16_t)((h + (1u << drop) - 1) >> drop << drop);
}

static uint16_t quantise_block(int8_t *q, const float *x, uint32_t n) {
    uint32_t top = top_of(x, n);
    float amax = top < num_bits(KV8_MOST) ? num_from_bits(top) : KV8_MOST;
    uint16_t h = top > 0x7f800000 ? 0x7e00 : scale_above(amax / 127.0f);
    if (h == 0 || h == 0x7e00) {
        memset(q, 0, n);
        return h;
    }
    float f = 1.0f / num_from_half(h);
    for (uint32_t i = 0; i < n; i++) {
        float held = x[i] < KV8_MOST ? x[i] : KV8_MOST;
        held = held > -KV8_MOST ? held : -KV8_MOST;
        q[i] = (int8_t)(num_bits(held * f + NUM_ROUND_MAGIC) - num_bits(NUM_ROUND_MAGIC));
    }
    return h;
}

void kv8_quantise(int8_t *q, uint16_t *scales, const float *x, uint32_t n) {
    for (uint32_t at = 0; at < n; at += KV8_BLOCK)
        scales[at / KV8_BLOCK] = quantise_block(q + at, x + at, n - at < KV8_BLOCK ? n - at : KV8_BLOCK);
}

void kv8_put(void *tile, uint32_t at, const float *k, uint32_t dk, const float *v, uint32_t dv) {
    int8_t q[HEAD_DIM_MAX], *to = (int8_t *)tile + at;
    uint16_t scales[HEAD_DIM_MAX / KV8_BLOCK];
    uint16_t *k_scales = (uint16_t *)(void *)((char *)tile + kv8_k_scales_at(dk, dv)) + at;
    uint16_t *v_scales = (uint16_t *)(void *)((char *)tile + kv8_v_scales_at(dk, dv)) + (size_t)at * kv8_blocks(dv);
    kv8_quantise(q, scales, k, dk);
    for (uint32_t d = 0; d < dk; d++) to[(size_t)d * VEC_TILE] = q[d];
    for (uint32_t b = 0; b < kv8_blocks(dk); b++) k_scales[(size_t)b * VEC_TILE] = scales[b];
    kv8_quantise((int8_t *)tile + kv8_v_at(dk) + (size_t)at * dv, v_scales, v, dv);
}
