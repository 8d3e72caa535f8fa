/* num.h against libm, whose results here serve as the truth, over the ranges that the engine uses. Breaks when a
 * coefficient, a reduction constant or a range limit is wrong. */
#include "harness.h"

#include "engine/num.h"

static double rel(double got, double want) {
    return want == 0 ? fabs(got) : fabs((got - want) / want);
}

TEST(exp32_is_within_one_ulp) {
    double worst = 0;
    for (double x = -87.33; x < 88.7; x += 0.000731) {
        float f = (float)x;
        double want = exp((double)f), d = fabs((double)num_exp32(f) - want);
        double ulp = (double)nextafterf((float)want, INFINITY) - (double)(float)want;
        if (d / ulp > worst) worst = d / ulp;
    }
    printf("     num_exp32: %.3f ulp\n", worst);
    CHECK(worst < 1.0);
}

TEST(exp32_at_the_ends) {
    CHECK(num_exp32(0) == 1.0f && num_exp32(-0.0f) == 1.0f);
    CHECK(num_exp32(-87.34f) == 0 && num_exp32(-INFINITY) == 0 && num_exp32(-1e30f) == 0);
    CHECK(num_exp32(-87.33f) > 0);
    CHECK(isfinite(num_exp32(88.72f)) && isinf(num_exp32(88.73f)) && isinf(num_exp32(INFINITY)));
    CHECK(isnan(num_exp32(NAN)));
}

TEST(silu_follows_its_definition) {
    for (float x = -80; x < 80; x += 0.01f) CHECK(rel((double)num_silu32(x), (double)x / (1 + exp(-(double)x))) < 3e-7);
    CHECK(num_silu32(-200.0f) == 0 && num_silu32(200.0f) == 200.0f);
}

TEST(exp_log_pow) {
    double worst_exp = 0, worst_log = 0, worst_pow = 0;
    for (double x = -700; x < 709; x += 0.0137) worst_exp = fmax(worst_exp, rel(num_exp(x), exp(x)));
    for (double x = 1e-300; x < 1e300; x *= 1.0173) worst_log = fmax(worst_log, rel(num_log(x), log(x)));
    for (double x = 0.5; x < 2; x += 0.0000613)
        if (x != 1) worst_log = fmax(worst_log, rel(num_log(x), log(x)));
    for (int i = 0; i < 4096; i++) {
        double y = -2.0 * i / 4096;
        worst_pow = fmax(worst_pow, rel(num_pow(500000, y), pow(500000, y)));
        worst_pow = fmax(worst_pow, rel(num_pow(1e7, y), pow(1e7, y)));
    }
    printf("     relative error: exp %.2g, log %.2g, pow %.2g\n", worst_exp, worst_log, worst_pow);
    CHECK(worst_exp < 4.5e-16);
    CHECK(worst_log < 4.5e-16);
    CHECK(worst_pow < 1e-14);
}

TEST(exp_log_at_the_ends) {
    CHECK(num_exp(0) == 1 && num_log(1) == 0);
    CHECK(isinf(num_exp(710)) && num_exp(-746) == 0 && isnan(num_exp(NAN)));
    CHECK(rel(num_exp(-740), exp(-740)) < 0.01); /* subnormal */
    CHECK(isnan(num_log(-1)) && isnan(num_log(NAN)) && isinf(num_log(0)) && isinf(num_log(INFINITY)));
    CHECK(rel(num_log(4.9e-324), log(4.9e-324)) < 1e-15);
}

/* Angles of a rope: position times frequency, up to a million positions and past it. */
TEST(sin_and_cos_of_rope_angles) {
    double worst = 0;
    for (uint32_t pos = 0; pos < 2000000; pos += pos < 5000 ? 1 : 991)
        for (int i = 0; i < 8; i++) {
            double a = pos * pow(10000, -i / 8.0);
            worst = fmax(worst, fabs(num_sin(a) - sin(a)));
            worst = fmax(worst, fabs(num_cos(a) - cos(a)));
            worst = fmax(worst, fabs(num_sin(-a) + sin(a)));
        }
    for (double a = 1; a < 0x1p30; a *= 1.000317) {
        worst = fmax(worst, fabs(num_sin(a) - sin(a)));
        worst = fmax(worst, fabs(num_cos(a) - cos(a)));
    }
    printf("     sin, cos: %.2g absolute\n", worst);
    CHECK(worst < 2.5e-16);
    CHECK(isnan(num_sin(0x1p31)) && isnan(num_cos(INFINITY)) && isnan(num_sin(NAN)));
}

/* A result that another compiler or machine must find again: the bits of a few values. Breaks when the order of
 * operations changes, which needs a new POLDER_NUMERICS. */
TEST(bits_do_not_change) {
    uint64_t h = 14695981039346656037u;
    for (int i = 0; i < 20000; i++) {
        float f = num_exp32(-0.004321f * (float)i);
        double d[4] = {num_exp(i * 0.01), num_log(i + 0.5), num_sin(i * 1.7), num_cos(i * 1.7)};
        for (int k = 0; k < 5; k++) {
            uint64_t u = 0;
            if (k < 4)
                memcpy(&u, &d[k], 8);
            else
                u = num_bits(f);
            h = (h ^ u) * 1099511628211u;
        }
    }
    char hex[32];
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)h);
    CHECK_STR(hex, "6aaab9888220e7c3");
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(exp32_is_within_one_ulp);
    RUN(exp32_at_the_ends);
    RUN(silu_follows_its_definition);
    RUN(exp_log_pow);
    RUN(exp_log_at_the_ends);
    RUN(sin_and_cos_of_rope_angles);
    RUN(bits_do_not_change);
    return test_end();
}
