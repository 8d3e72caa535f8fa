/* The products of mat_avx2.c: sums of even and odd blocks (floats: of even and odd columns, of each chunk) apart. */
#define mat_avx2 free_own_mat_avx2
#include "engine/kernels/mat_avx2.c"

#include "determinism.h"

/* One token, as mul_stream. */
INLINE void one_token(tensor_type type, const packed *p, uint32_t group, const acts_view *a, float *y) {
    const uint8_t *start = p->data + group * p->task_bytes;
    __m256 acc[2], min[2];
    UNROLL for (int i = 0; i < 2; i++) acc[i] = min[i] = _mm256_setzero_ps();
    for (uint32_t b = 0; b < p->cols / 32; b += 2) UNROLL for (uint32_t i = 0; i < 2; i++) {
            const act_block *x = a->blocks + (b + i) * a->ldb;
            weights w;
            __m256i dot[4];
            fetch(type, start + (size_t)(b + i) * block_bytes(type) + AHEAD);
            load_block(type, &w, p, start, b + i);
            if (is_per_16(type))
                dot_per_16(type, dot, &w, x, 1);
            else
                dot_one_scale(type, dot, &w, x, 1);
            acc[i] = _mm256_fmadd_ps(_mm256_mul_ps(w.scale, _mm256_set1_ps(x->d)), _mm256_cvtepi32_ps(dot[0]), acc[i]);
            if (has_scaled_min(type)) min[i] = _mm256_fnmadd_ps(w.min, _mm256_set1_ps(x->asum), min[i]);
        }
    acc[0] = _mm256_add_ps(acc[0], acc[1]);
    if (has_scaled_min(type)) acc[0] = _mm256_add_ps(acc[0], _mm256_add_ps(min[0], min[1]));
    _mm256_storeu_ps(y + group * LANES, acc[0]);
}

/* As mul_pair; acc[b % 2]. */
INLINE void pair_apart(tensor_type type, const packed *p, const uint8_t *const *group, const uint8_t *const *next,
                       uint32_t b0, uint32_t b1, const void *room, size_t ldb, uint32_t n, __m256 (*even)[TILE],
                       __m256 (*odd)[TILE]) {
    for (uint32_t b = b0; b < b1; b++) {
        __m256(*acc)[TILE] = b % 2 ? odd : even;
        weights w[2];
        UNROLL for (int r = 0; r < 2; r++) {
            fetch(type, next[r] + (size_t)b * block_bytes(type));
            if (is_wide(type))
                load_block_wide(type, &w[r], p, group[r], b);
            else
                load_block(type, &w[r], p, group[r], b);
        }
        __asm__ volatile("" : : "r"(w) : "memory");
        const weights *v = w;
        if (is_wide(type)) {
            const wide *x = (const wide *)room + (b - b0) * ldb;
            for (uint32_t t = 0; t < n; t += NT) step_wide((__m256(*)[TILE])(*acc + t), OPAQUE(v), x + t, NT);
        } else {
            const act_block *x = (const act_block *)room + (b - b0) * ldb;
            for (uint32_t t = 0; t < n; t += NT) step_narrow(type, (__m256(*)[TILE])(*acc + t), OPAQUE(v), x + t, NT);
        }
    }
}

/* As mul_batch, for whole tiles of tokens. */
INLINE void batch_apart(tensor_type type, const packed *p, uint32_t begin, uint32_t end, const acts_view *a,
                        uint32_t t0, float *y, size_t ldy) {
    __m256 even[BATCH + 1][TILE], odd[BATCH + 1][TILE];
    union {
        act_block a[ROOM];
        wide w[ROOM];
    } room;
    const uint32_t n_blocks = p->cols / 32, chunk = ROOM / TILE;
    const bool direct = !is_wide(type) && !centre_of(type);
    for (uint32_t g = 0; g < end - begin + 1; g++)
        for (uint32_t t = 0; t < TILE; t++) even[g][t] = odd[g][t] = _mm256_setzero_ps();
    for (uint32_t b0 = 0; b0 < n_blocks; b0 += chunk) {
        for (uint32_t b = b0; b < b0 + chunk && !direct; b++)
            for (uint32_t t = 0; t < TILE; t++) {
                const act_block *x = a->blocks + (size_t)b * a->ldb + t0 + t;
                if (is_wide(type))
                    wide_set(&room.w[(b - b0) * TILE + t], x);
                else
                    centre_set(type, &room.a[(b - b0) * TILE + t], x);
            }
        for (uint32_t g = begin; g < end; g += 2) {
            const uint8_t *at = p->data + g * p->task_bytes;
            pair_apart(type, p, (const uint8_t *const[]){at, at + p->task_bytes},
                       (const uint8_t *const[]){at + 2 * p->task_bytes, at + 3 * p->task_bytes}, b0, b0 + chunk,
                       direct ? (const void *)(a->blocks + (size_t)b0 * a->ldb + t0) : &room, direct ? a->ldb : TILE,
                       TILE, even + (g - begin), odd + (g - begin));
        }
    }
    for (uint32_t g = begin; g < end; g++)
        for (uint32_t t = 0; t < TILE; t++)
            _mm256_storeu_ps(y + (t0 + t) * ldy + g * LANES, _mm256_add_ps(even[g - begin][t], odd[g - begin][t]));
}

INLINE void blocks_apart(tensor_type type, const packed *p, const acts_view *a, float *y, size_t ldy) {
    if (a->n == 1) {
        for (uint32_t g = 0; g < p->n_groups; g++) one_token(type, p, g, a, y);
        return;
    }
    for (uint32_t g = 0; g < p->n_groups; g += BATCH)
        for (uint32_t t = 0; t < a->n; t += TILE)
            batch_apart(type, p, g, p->n_groups - g < BATCH ? p->n_groups : g + BATCH, a, t, y, ldy);
}

/* One token: even and odd columns. */
INLINE void floats_one(tensor_type type, const packed *p, uint32_t panel, const acts_view *a, float *y) {
    const uint8_t *w = p->data + panel * p->task_bytes;
    const size_t row = PANEL_GROUPS * LANES * (type == TT_F32 ? 4 : 2);
    __m256 acc[2][PANEL_GROUPS];
    UNROLL for (int g = 0; g < PANEL_GROUPS; g++) acc[0][g] = acc[1][g] = _mm256_setzero_ps();
    for (uint32_t k = 0; k < p->cols; k += 2) UNROLL for (uint32_t i = 0; i < 2; i++, w += row) {
            fetch_row(w, (int)row);
            const __m256 v = _mm256_set1_ps(a->x[k + i]);
            UNROLL for (int g = 0; g < PANEL_GROUPS; g++) acc[i][g] =
                _mm256_fmadd_ps(load_weights(type, w + g * LANES * (type == TT_F32 ? 4 : 2)), v, acc[i][g]);
        }
    UNROLL for (int g = 0; g < PANEL_GROUPS; g++)
        _mm256_storeu_ps(y + (panel * PANEL_GROUPS + (uint32_t)g) * LANES, _mm256_add_ps(acc[0][g], acc[1][g]));
}

/* Tokens by tiles, as mul_panel_tile; the sums of each chunk by themselves. */
INLINE void floats_tile(tensor_type type, const packed *p, uint32_t panel, const acts_view *a, uint32_t t0, uint32_t n,
                        float *y, size_t ldy) {
    const uint8_t *w = p->data + panel * p->task_bytes;
    const size_t k_bytes = PANEL_GROUPS * LANES * (type == TT_F32 ? 4 : 2);
    __m256 sums[2][FLOAT_TILE * PANEL_GROUPS];
    for (uint32_t s = 0; s < n * PANEL_GROUPS; s++) sums[0][s] = sums[1][s] = _mm256_setzero_ps();
    float room[CHUNK * PANEL_GROUPS * LANES];
    for (uint32_t k = 0; k < p->cols; k += CHUNK) {
        uint32_t t = 0;
        const uint8_t *f = spell_out(type, room, w + k * k_bytes, (size_t)CHUNK * PANEL_GROUPS * LANES);
        const float *x = a->x + t0 * a->ldx + k;
        __m256 *s = sums[k / CHUNK % 2];
        for (; t + AT_ONCE <= n; t += AT_ONCE)
            float_step(TT_F32, PANEL_GROUPS, AT_ONCE, f, false, CHUNK, x + t * a->ldx, a->ldx, s + t * PANEL_GROUPS);
        for (; t < n; t++)
            float_step(TT_F32, PANEL_GROUPS, 1, f, false, CHUNK, x + t * a->ldx, a->ldx, s + t * PANEL_GROUPS);
    }
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t g = 0; g < PANEL_GROUPS; g++)
            _mm256_storeu_ps(y + (t0 + t) * ldy + (panel * PANEL_GROUPS + g) * LANES,
                             _mm256_add_ps(sums[0][t * PANEL_GROUPS + g], sums[1][t * PANEL_GROUPS + g]));
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

void free_mul_avx2(const packed *p, const acts_view *a, float *y, size_t ldy) {
    switch (p->type) {
    case TT_Q8_0: blocks_apart(TT_Q8_0, p, a, y, ldy); break;
    case TT_Q4_0: blocks_apart(TT_Q4_0, p, a, y, ldy); break;
    case TT_Q4_K: blocks_apart(TT_Q4_K, p, a, y, ldy); break;
    case TT_Q6_K: blocks_apart(TT_Q6_K, p, a, y, ldy); break;
    case TT_F16: floats_apart(TT_F16, p, a, y, ldy); break;
    default: floats_apart(TT_F32, p, a, y, ldy);
    }
}
