/* Searches for scales. For given integers the best scale is a least-squares solution; for a given scale the best
 * integers are the nearest. Both steps lower the error, so alternating them from several starts finds a good minimum:
 * starts are the scales that map the largest weight near the end of the range, some a little shorter, some longer. */
#include "engine/files/quantize_fit.h"

#include <math.h>

#define ROUNDS 6 /* of alternating; nearly always 2 are enough */

static float weight(const float *w, int i) {
    return w ? w[i] : 1.0f;
}

/* ---- x ~ d level ------------------------------------------------------------------------------------------- */

float fit_error_scale(const levels *l, const float *x, const float *w, int n, float d, int8_t *q) {
    float id = d != 0 ? 1 / d : 0, sum = 0;
    for (int i = 0; i < n; i++) {
        int k = level_index(l, x[i] * id);
        float diff = x[i] - d * (float)level_value(l, k);
        q[i] = (int8_t)k;
        sum += weight(w, i) * diff * diff;
    }
    return sum;
}

/* Sums of one start: best scale for the integers nearest to x * id, and how much of the error it takes away. */
static float gain(const levels *l, const float *x, const float *w, int n, float id, float *d) {
    float xq = 0, qq = 0;
    for (int i = 0; i < n; i++) {
        float v = (float)level_value(l, level_index(l, x[i] * id)), wi = weight(w, i);
        xq += wi * x[i] * v;
        qq += wi * v * v;
    }
    *d = qq > 0 ? xq / qq : 0;
    return qq > 0 ? xq * xq / qq : 0;
}

float fit_scale(const levels *l, const float *x, const float *w, int n, int8_t *q) {
    float max = 0, amax = 0, best = -1, best_d = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > amax) {
            amax = fabsf(x[i]);
            max = x[i];
        }
    int low = level_value(l, l->lo), high = level_value(l, l->hi);
    for (int end = 0; end < 2 && amax > 0; end++) {
        float reach = (float)(end ? high : low);
        for (int k = -9; k <= 9; k++) {
            float d, id = reach * (1.0f + (float)k * (fabsf(reach) > 8 ? 0.8f / fabsf(reach) : 0.04f)) / max;
            float g = gain(l, x, w, n, id, &d);
            for (int r = 0; r < ROUNDS && d != 0; r++) {
                float next, g2 = gain(l, x, w, n, 1 / d, &next);
                if (!(g2 > g)) break;
                g = g2;
                d = next;
            }
            if (g > best) {
                best = g;
                best_d = d;
            }
        }
    }
    if (!isfinite(best_d)) best_d = 0;
    (void)fit_error_scale(l, x, w, n, best_d, q);
    return best_d;
}

/* ---- x ~ d q + m ------------------------------------------------------------------------------------------- */

float fit_error_affine(const float *x, const float *w, int n, int hi, float d, float m, uint8_t *q) {
    float id = d != 0 ? 1 / d : 0, sum = 0;
    for (int i = 0; i < n; i++) {
        int k = clamp_round((x[i] - m) * id, 0, hi);
        float diff = x[i] - (d * (float)k + m);
        q[i] = (uint8_t)k;
        sum += weight(w, i) * diff * diff;
    }
    return sum;
}

typedef struct sums {
    float w, x;
} sums;

/* Least squares for the integers nearest to (x - m0) * id; false where they are all equal. */
static bool solve(const float *x, const float *w, int n, int hi, sums s, float id, float m0, bool any_sign, float *d,
                  float *m) {
    float q1 = 0, q2 = 0, xq = 0;
    for (int i = 0; i < n; i++) {
        float k = (float)clamp_round((x[i] - m0) * id, 0, hi), wi = weight(w, i);
        q1 += wi * k;
        q2 += wi * k * k;
        xq += wi * k * x[i];
    }
    float det = s.w * q2 - q1 * q1;
    if (!(det > 0)) return false;
    *d = (s.w * xq - s.x * q1) / det;
    *m = (q2 * s.x - q1 * xq) / det;
    if (*m > 0 && !any_sign) {
        *m = 0;
        *d = q2 > 0 ? xq / q2 : 0;
    }
    return *d > 0;
}

float fit_affine(const float *x, const float *w, int n, int hi, bool any_sign, uint8_t *q, float *m) {
    float min = x[0], max = x[0], best_d = 0, best_m;
    sums s = {0};
    uint8_t try[256];
    for (int i = 0; i < n; i++) {
        if (x[i] < min) min = x[i];
        if (x[i] > max) max = x[i];
        s.w += weight(w, i);
        s.x += weight(w, i) * x[i];
    }
    if (min > 0 && !any_sign) min = 0;
    best_m = min;
    if (max > min) best_d = (max - min) / (float)hi;
    float best = fit_error_affine(x, w, n, hi, best_d, best_m, q);
    for (int k = -10; k <= 10 && max > min; k++) {
        float id = ((float)hi + 0.1f * (float)k * (hi > 15 ? 1.5f : 1.0f)) / (max - min), from = min, d, low;
        float mine = INFINITY;
        for (int r = 0; r < ROUNDS && solve(x, w, n, hi, s, id, from, any_sign, &d, &low); r++) {
            float off = fit_error_affine(x, w, n, hi, d, low, try);
            if (!(off < mine)) break;
            mine = off;
            if (off < best) {
                best = off;
                best_d = d;
                best_m = low;
            }
            id = 1 / d;
            from = low;
        }
    }
    if (!isfinite(best_d) || !isfinite(best_m)) best_d = best_m = 0;
    (void)fit_error_affine(x, w, n, hi, best_d, best_m, q);
    *m = best_m;
    return best_d;
}
