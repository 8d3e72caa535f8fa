/* For tests: kernels in which terms of a sum have changed places, put over the scalar set by the linker (--wrap of
 * vec_get and of the table mat_scalar). Each gives the right kernel what it reads in another order, so that all else is
 * as it was: norm: the first two terms of a sum of squares; attention: the elements of a score; product: the first two
 * terms of a product's rows. What compares kernel sets must see each of them. */
#ifndef POLDER_TESTS_MUTANT_H
#define POLDER_TESTS_MUTANT_H

#include "base/mem.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/vec.h"

#include <string.h>

const vec_kernels *__real_vec_get(isa i);
const vec_kernels *__wrap_vec_get(isa i);
extern const mat_kernels __real_mat_scalar, __wrap_mat_scalar;

typedef enum mutation { MUTATE_NOTHING, MUTATE_NORM, MUTATE_ATTENTION, MUTATE_PRODUCT } mutation;
static mutation mutate;

#define MUTANT_HEAD_MAX 512

static void mutant_norm(float *y, const float *x, const float *w, uint32_t n, float eps) {
    float *rx = mem_array(3 * (size_t)n, sizeof *rx), *rw = rx + n, *ry = rw + n;
    for (uint32_t i = 0; i < n;
         i++) { /* the first two: they stand in lanes that the tree adds up at different places */
        uint32_t from = i < 2 && n > 2 ? 1 - i : i;
        rx[i] = x[from];
        rw[i] = w[from];
    }
    __real_vec_get(ISA_SCALAR)->rms_norm(ry, rx, rw, n, eps);
    for (uint32_t i = 0; i < n; i++) y[i] = ry[i < 2 && n > 2 ? 1 - i : i];
    mem_free(rx);
}

/* Queries and keys with their elements turned round; size: bytes of an element of the tile. */
static void mutant_tile(attn_row *rows, uint32_t n_rows, const void *tile, size_t size, const attn_shape *s) {
    const vec_kernels *real = __real_vec_get(ISA_SCALAR);
    size_t n = (size_t)(s->dk + s->dv) * VEC_TILE * size, line = VEC_TILE * size;
    uint8_t *turned = mem_alloc_aligned(n);
    float q[MUTANT_HEAD_MAX];
    memcpy(turned, tile, n);
    for (uint32_t i = 0; i < s->dk; i++)
        memcpy(turned + i * line, (const uint8_t *)tile + (s->dk - 1 - i) * line, line);
    for (uint32_t r = 0; r < n_rows; r++) {
        attn_row one = rows[r];
        for (uint32_t i = 0; i < s->dk; i++) q[i] = rows[r].q[s->dk - 1 - i];
        one.q = q;
        if (size == sizeof(float))
            real->attn_tile_f32(&one, 1, (const float *)(const void *)turned, NULL, s);
        else
            real->attn_tile(&one, 1, (const uint16_t *)(const void *)turned, NULL, s);
        one.q = rows[r].q;
        rows[r] = one;
    }
    mem_free_aligned(turned);
}

static void mutant_attention(attn_row *rows, uint32_t n_rows, const uint16_t *tile, const uint16_t *next,
                             const attn_shape *s) {
    mutant_tile(rows, n_rows, tile, sizeof *tile, s);
}

static void mutant_attention_f32(attn_row *rows, uint32_t n_rows, const float *tile, const float *next,
                                 const attn_shape *s) {
    mutant_tile(rows, n_rows, tile, sizeof *tile, s);
}

static void swap_bytes(uint8_t *a, uint8_t *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint8_t t = a[i];
        a[i] = b[i];
        b[i] = t;
    }
}

/* Weights 0 and 1 of every row (of quantised types blocks 0 and 1) change places, in matrix and activations. */
static bool mutant_swap(const packed *w, packed *m, const acts_view *a, acts_view *b) {
    bool floats = !w->head_bytes && w->unit_bytes <= 4;
    uint32_t units = floats ? w->cols : (uint32_t)(w->task_bytes / w->unit_bytes), per = w->cols / units;
    if (units < 2 || a->n == 0) return false;
    *m = *w;
    *b = *a;
    m->data = mem_alloc_aligned(w->n_bytes);
    memcpy(m->data, w->data, w->n_bytes);
    for (uint32_t t = 0; t < w->n_tasks; t++) {
        size_t begin = (size_t)t * w->task_bytes, bytes = w->n_bytes - begin;
        if (bytes > w->task_bytes) bytes = w->task_bytes;
        size_t unit = bytes / units;
        swap_bytes(m->data + begin, m->data + begin + unit, unit);
    }
    size_t row = floats ? a->ldx : a->ldb;
    if (floats) {
        float *x = mem_array(row * a->n, sizeof *x);
        for (uint32_t i = 0; i < a->n; i++) {
            memcpy(x + i * row, a->x + i * row, a->cols * sizeof *x);
            swap_bytes((uint8_t *)(x + i * row), (uint8_t *)(x + i * row + 1), sizeof *x);
        }
        b->x = x;
        return true;
    }
    /* blocks (cols / 32, n), rows of blocks ldb apart */
    act_block *k = mem_array(row * (a->cols / 32), sizeof *k);
    uint32_t wide = per / 32;
    for (uint32_t i = 0; i < a->cols / 32; i++) {
        uint32_t from = i < wide ? i + wide : i < 2 * wide ? i - wide : i;
        memcpy(k + i * row, a->blocks + from * row, a->n * sizeof *k);
    }
    b->blocks = k;
    return true;
}

static void mutant_product(const packed *w, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy) {
    packed m;
    acts_view b;
    bool swapped = mutant_swap(w, &m, a, &b);
    __real_mat_scalar.mul(swapped ? &m : w, begin, end, swapped ? &b : a, y, ldy);
    if (!swapped) return;
    mem_free_aligned(m.data);
    if (b.x != a->x) mem_free((void *)(uintptr_t)b.x);
    if (b.blocks != a->blocks) mem_free((void *)(uintptr_t)b.blocks);
}

const vec_kernels *__wrap_vec_get(isa i) {
    static vec_kernels norm, attention;
    const vec_kernels *real = __real_vec_get(i);
    if (i != ISA_SCALAR) return real;
    norm = attention = *real;
    norm.rms_norm = mutant_norm;
    attention.attn_tile = mutant_attention;
    attention.attn_tile_f32 = mutant_attention_f32;
    return mutate == MUTATE_NORM ? &norm : mutate == MUTATE_ATTENTION ? &attention : real;
}

static void mutant_quantise(act_block *blocks, const acts_view *a, uint32_t begin, uint32_t end) {
    __real_mat_scalar.quantise(blocks, a, begin, end);
}

static void mutant_mul(const packed *w, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy) {
    if (mutate == MUTATE_PRODUCT)
        mutant_product(w, begin, end, a, y, ldy);
    else
        __real_mat_scalar.mul(w, begin, end, a, y, ldy);
}

const mat_kernels __wrap_mat_scalar = {.quantise = mutant_quantise, .mul = mutant_mul};

#endif
