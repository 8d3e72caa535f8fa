/* Double precision: exp, log, pow, sin, cos from +, *, / and fma alone. Plain Taylor series on reduced arguments: these
 * run at load, once a position, or once a draw, so what counts is that a reader can check each coefficient. */
#include "engine/num.h"

static const double ln2_hi = 0x1.62e42fefa38p-1;   /* 41 bits: n * ln2_hi is exact for |n| < 2^12 */
static const double ln2_lo = 0x1.ef35793c7673p-45; /* ln 2 - ln2_hi */
static const double round_magic = 0x1.8p52;

static double double_from_bits(uint64_t u) {
    double d;
    memcpy(&d, &u, sizeof d);
    return d;
}

static uint64_t double_bits(double d) {
    uint64_t u;
    memcpy(&u, &d, sizeof u);
    return u;
}

double num_exp(double x) {
    if (x != x) return x;
    if (x > 709.79) return INFINITY;
    if (x < -745.2) return 0;
    double n = (x * 0x1.71547652b82fep0 + round_magic) - round_magic;
    double r = fma(n, -ln2_hi, x);
    r = fma(n, -ln2_lo, r);
    /* 1/13! … 1/0!; remainder 4e-18 for |r| <= 0.35 */
    static const double c[] = {1.0 / 6227020800.0,
                               1.0 / 479001600.0,
                               1.0 / 39916800.0,
                               1.0 / 3628800.0,
                               1.0 / 362880.0,
                               1.0 / 40320.0,
                               1.0 / 5040.0,
                               1.0 / 720.0,
                               1.0 / 120.0,
                               1.0 / 24.0,
                               1.0 / 6.0,
                               0.5,
                               1.0,
                               1.0};
    double p = c[0];
    for (int i = 1; i < 14; i++) p = fma(r, p, c[i]);
    int k = (int)n, k1 = k / 2, k2 = k - k1;
    p *= double_from_bits((uint64_t)(k1 + 1023) << 52);
    return p * double_from_bits((uint64_t)(k2 + 1023) << 52);
}

/* x = 2^k m with m in [sqrt 1/2, sqrt 2); log m = 2 artanh(f), f = (m - 1) / (m + 1), |f| < 0.172. */
double num_log(double x) {
    if (x != x || x < 0) return NAN;
    if (x == 0) return -INFINITY;
    if (x > 0x1.fffffffffffffp1023) return x;
    int k = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        k = -54;
    }
    uint64_t u = double_bits(x);
    k += (int)(u >> 52) - 1023;
    double m = double_from_bits((u & 0xfffffffffffffu) | 0x3ff0000000000000u);
    if (m > 0x1.6a09e667f3bcdp0) {
        m *= 0.5;
        k++;
    }
    double d = m - 1, f = d / (m + 1), s = f * f;
    double p = 1.0 / 23;
    for (int i = 21; i >= 3; i -= 2) p = fma(s, p, 1.0 / i);
    /* 2f as d - f d keeps the bits that the division rounds away */
    double lo = fma(2 * f * s, p, k * ln2_lo);
    double hi = k * ln2_hi;
    return hi + (d - (f * d - lo));
}

double num_pow(double x, double y) {
    return num_exp(y * num_log(x));
}

/* x = n pi/2 + r with pi/2 in three parts; n below 2^30 has its product with the first part exact within an fma. */
static int reduce_half_pi(double x, double *r) {
    double n = (x * 0x1.45f306dc9c883p-1 + round_magic) - round_magic;
    double t = fma(n, -0x1.921fb54442d18p0, x);
    t = fma(n, -0x1.1a62633145c07p-54, t);
    *r = fma(n, 0x1.f1976b7ed8fbcp-110, t);
    return (int)((int64_t)n & 3);
}

static double sin_poly(double r) { /* |r| <= pi/4, remainder 5e-17 */
    static const double c[] = {-1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0,
                               -1.0 / 5040.0,          1.0 / 120.0,        -1.0 / 6.0};
    double s = r * r, p = c[0];
    for (int i = 1; i < 7; i++) p = fma(s, p, c[i]);
    return fma(r * s, p, r);
}

static double cos_poly(double r) {
    static const double c[] = {1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0,
                               1.0 / 40320.0,          -1.0 / 720.0,         1.0 / 24.0,        -0.5};
    double s = r * r, p = c[0];
    for (int i = 1; i < 8; i++) p = fma(s, p, c[i]);
    return fma(s, p, 1.0);
}

static double sin_quadrant(double x, int shift) {
    if (!(x > -0x1p30 && x < 0x1p30)) return NAN;
    double r;
    int q = (reduce_half_pi(x, &r) + shift) & 3;
    double v = q & 1 ? cos_poly(r) : sin_poly(r);
    return q & 2 ? -v : v;
}

double num_sin(double x) {
    return sin_quadrant(x, 0);
}
double num_cos(double x) {
    return sin_quadrant(x, 1);
}
