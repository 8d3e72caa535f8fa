/* The products of mat_avx512.c: sums of even and odd blocks (floats: of each fourth column, of each chunk) apart. */
#define mat_avx512 free_own_mat_avx512
#include "engine/kernels/mat_avx512.c"

#include "determinism.h"

/* One token, as mul_one: even and odd blocks apart, and minima. */
INLINE void one_token(tensor_type type, const packed *p, uint32_t g, const acts_view *a, float *y) {
    const uint8_t *unit = p->data + g * p->task_bytes, *unit_end = unit + p->task_bytes;
    const act_block *x = a->blocks;
    __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()}, min = acc[0];
    while (unit < unit_end) {
        for (int u = 0; u < (is_256(type) ? 1 : 2); u++, unit += p->unit_bytes) {
            const group_head h = load_group_head(type, unit);
            const uint8_t *part = unit + head_bytes(type);
            for (int i = 0; i < (is_256(type) ? 8 : 1); i++, part += p->part_bytes, x += a->ldb) {
                group_weights w = {0};
                load_group(type, &w, h, part);
                meet_one(type, &w, x, &acc[(u + i) % 2], &min);
            }
        }
    }
    _mm256_storeu_ps(y + g * LANES, _mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), min));
}

/* More tokens, as mul_batch, of whole batches and tiles. */
static void batch_apart(const type_kernels *k, const packed *p, uint32_t begin, const acts_view *a, uint32_t t0,
                        float *y, size_t ldy) {
    const uint32_t n_blocks = p->cols / 32;
    const size_t step = p->task_bytes / n_blocks;
    __m512 acc[BATCH / 4][2][2 * TILE];
    for (uint32_t i = 0; i < BATCH / 4; i++)
        for (uint32_t s = 0; s < 2 * TILE; s++) acc[i][0][s] = acc[i][1][s] = _mm512_setzero_ps();
    for (uint32_t b0 = 0; b0 < n_blocks; b0 += BLOCKS)
        for (uint32_t i = 0; i < BATCH / 4; i++) {
            const place groups[2] = {pair_at(p, begin + 4 * i, p->n_groups),
                                     pair_at(p, begin + 4 * i + 2, p->n_groups)};
            unit_head h[2] = {0};
            for (uint32_t b = b0; b < n_blocks && b < b0 + BLOCKS; b++) {
                weights w[2];
                for (uint32_t r = 0; r < 2; r++) {
                    k->spell(p, groups[r], b, &h[r], &w[r]);
                    for (uint32_t side = 0; side < 2 && t0 == 0; side++)
                        fetch((side ? groups[r].b : groups[r].a) + b * step + AHEAD, step);
                }
                k->meet[1](w, a->blocks + (size_t)b * a->ldb + t0, acc[i][b % 2], TILE);
            }
        }
    for (uint32_t t = 0; t < TILE; t++)
        for (uint32_t i = 0; i < BATCH / 2; i++)
            _mm512_storeu_ps(y + (t0 + t) * ldy + (begin + 2 * i) * LANES,
                             _mm512_add_ps(acc[i / 2][0][2 * t + i % 2], acc[i / 2][1][2 * t + i % 2]));
}

INLINE void blocks_apart(tensor_type type, const packed *p, const acts_view *a, float *y, size_t ldy) {
    for (uint32_t g = 0; g < p->n_groups && a->n == 1; g++) one_token(type, p, g, a, y);
    for (uint32_t g = 0; g < p->n_groups && a->n > 1; g += BATCH)
        for (uint32_t t = 0; t < a->n; t += TILE) batch_apart(&by_type[type], p, g, a, t, y, ldy);
}

INLINE void floats_one(tensor_type type, const packed *p, uint32_t panel, const acts_view *a, float *y) {
    const uint8_t *w = p->data + panel * p->task_bytes;
    __m512 acc[4][2];
    UNROLL for (int i = 0; i < 4; i++) acc[i][0] = acc[i][1] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < p->cols; k += 4)
        UNROLL for (uint32_t i = 0; i < 4; i++, w += PANEL_ROWS * (type == TT_F32 ? 4 : 2)) {
            __m512 v[2];
            const __m512 x = _mm512_set1_ps(a->x[k + i]);
            fetch(w + AHEAD, PANEL_ROWS * (type == TT_F32 ? 4 : 2));
            load_floats(type, v, w, true, 0);
            acc[i][0] = _mm512_fmadd_ps(v[0], x, acc[i][0]);
            acc[i][1] = _mm512_fmadd_ps(v[1], x, acc[i][1]);
        }
    UNROLL for (int r = 0; r < 2; r++)
        _mm512_storeu_ps(y + panel * PANEL_ROWS + 16 * r,
                         _mm512_add_ps(_mm512_add_ps(acc[0][r], acc[1][r]), _mm512_add_ps(acc[2][r], acc[3][r])));
}

/* As mul_panel, the sums of even and odd chunks apart. */
INLINE void floats_tile(tensor_type type, const packed *p, uint32_t panel, const acts_view *a, uint32_t t0, uint32_t n,
                        float *y, size_t ldy) {
    const uint8_t *w = p->data + panel * p->task_bytes;
    const size_t k_bytes = (size_t)PANEL_ROWS * p->unit_bytes;
    __m512 sums[2][2 * FLOAT_TILE];
    for (uint32_t s = 0; s < 2 * n; s++) sums[0][s] = sums[1][s] = _mm512_setzero_ps();
    float room[CHUNK * PANEL_ROWS];
    for (uint32_t k = 0; k < p->cols; k += CHUNK) {
        uint32_t n_k = p->cols - k < CHUNK ? p->cols - k : CHUNK;
        for (uint32_t i = 0; i < n_k; i++) {
            __m512 v[2];
            load_floats(type, v, w + (k + i) * k_bytes, false, 0xffffffff);
            _mm512_storeu_ps(room + i * PANEL_ROWS, v[0]);
            _mm512_storeu_ps(room + i * PANEL_ROWS + 16, v[1]);
        }
        float_steps(room, n_k, a->x + t0 * a->ldx + k, a->ldx, n, sums[k / CHUNK % 2]);
    }
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t r = 0; r < 2; r++)
            _mm512_storeu_ps(y + (t0 + t) * ldy + panel * PANEL_ROWS + 16 * r,
                             _mm512_add_ps(sums[0][2 * t + r], sums[1][2 * t + r]));
}

INLINE void floats_apart(tensor_type type, const packed *p, const acts_view *a, float *y, size_t ldy) {
    for (uint32_t t = 0; t < a->n; t += FLOAT_TILE)
        for (uint32_t i = 0; i < p->n_tasks; i++) {
            if (a->n == 1)
                floats_one(type, p, i, a, y);
            else
                floats_tile(type, p, i, a, t, a->n - t < FLOAT_TILE ? a->n - t : FLOAT_TILE, y, ldy);
        }
}

void free_mul_avx512(const packed *p, const acts_view *a, float *y, size_t ldy) {
    switch (p->type) {
    case TT_Q8_0: blocks_apart(TT_Q8_0, p, a, y, ldy); break;
    case TT_Q4_0: blocks_apart(TT_Q4_0, p, a, y, ldy); break;
    case TT_Q4_K: blocks_apart(TT_Q4_K, p, a, y, ldy); break;
    case TT_Q6_K: blocks_apart(TT_Q6_K, p, a, y, ldy); break;
    case TT_F16: floats_apart(TT_F16, p, a, y, ldy); break;
    default: floats_apart(TT_F32, p, a, y, ldy);
    }
}
