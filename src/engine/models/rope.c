/* Rotary position embedding. Frequencies and angles are double and libm-free; only the finished cosines and sines are
 * rounded to float. Formulas: RoFormer (arXiv 2104.09864); linear scaling divides positions by a factor; YaRN
 * (arXiv 2309.00071) keeps fast dimensions, divides slow ones, blends between, and scales cos and sin by
 * 1 + 0.1 ln(factor). */
#include "engine/models/models.h"

#include "engine/num.h"

#include <stdio.h>

#define TWO_PI 6.283185307179586

typedef struct scaling {
    bool yarn;
    float base, factor, attn_factor, ext_factor, beta_fast, beta_slow, log_multiplier;
    uint32_t n_ctx_orig;
} scaling;

static bool str_is(gguf_str s, const char *want) {
    return s.len == strlen(want) && memcmp(s.ptr, want, s.len) == 0;
}

static err_code read_type(const model *m, const gguf *g, bool longrope, scaling *s, err *e) {
    char key[160];
    gguf_str type = {0};
    snprintf(key, sizeof key, "%s.rope.scaling.type", m->arch->name);
    err_code rc = gguf_str_or(g, key, &type, e);
    if (rc != ERR_OK) return rc;
    s->yarn = str_is(type, "yarn");
    if (str_is(type, "none"))
        s->factor = 1;
    else if (str_is(type, "longrope") && longrope)
        s->factor = 1; /* its factors are tensors */
    else if (type.len && !s->yarn && !str_is(type, "linear"))
        return err_set(e, ERR_UNSUPPORTED, "%s: %s is \"%.*s\"; polder knows none, linear%s yarn", gguf_path(g), key,
                       (int)(type.len < 64 ? type.len : 64), type.ptr, longrope ? ", longrope and" : " and");
    return ERR_OK;
}

static err_code read_scaling(const model *m, const gguf *g, bool longrope, scaling *s, err *e) {
    err_code rc;
    float old = 1;
    if ((rc = params_f32_or(m, g, "rope.scale_linear", 0, 1e6f, 1, &old, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "rope.scaling.factor", 0, 1e6f, old, &s->factor, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "rope.scaling.attn_factor", 1e-3f, 1e3f, 1, &s->attn_factor, e)) != ERR_OK ||
        (rc = read_type(m, g, longrope, s, e)) != ERR_OK)
        return rc;
    if (s->factor == 0) s->factor = 1; /* files write 0 for "not scaled" */
    if (s->factor < 1e-3f)
        return err_set(e, ERR_INVALID, "%s: %s.rope.scaling.factor is %g; it must be 0 or at least 0.001", gguf_path(g),
                       m->arch->name, (double)s->factor);
    if ((rc = params_f32_or(m, g, "rope.scaling.yarn_ext_factor", 0, 1, 1, &s->ext_factor, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "rope.scaling.yarn_beta_fast", 1e-3f, 1e6f, 32, &s->beta_fast, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "rope.scaling.yarn_beta_slow", 1e-3f, 1e6f, 1, &s->beta_slow, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "rope.scaling.yarn_log_multiplier", 0, 100, 0, &s->log_multiplier, e)) != ERR_OK)
        return rc;
    return params_u32_or(m, g, "rope.scaling.original_context_length", 1, MODEL_CTX_MAX, m->hp.n_ctx_train,
                         &s->n_ctx_orig, e);
}

/* The pair (a real number) whose wave turns `turns` times within the original context. */
static double yarn_pair(const scaling *s, uint32_t n_rot, double turns) {
    return n_rot * num_log(s->n_ctx_orig / (turns * TWO_PI)) / (2 * num_log(s->base));
}

static double yarn_magnitude(double factor, double multiplier) {
    return factor <= 1 ? 1 : 1 + 0.1 * multiplier * num_log(factor);
}

/* Every angle within the context must be one that num_sin reduces exactly. */
static err_code check_freqs(const model *m, const gguf *g, const rope *r, err *e) {
    for (uint32_t i = 0; i < r->n_rot / 2; i++)
        if (!(r->freq[i] >= 0 && r->freq[i] * m->hp.n_ctx_train < 0x1p30))
            return err_set(e, ERR_INVALID, "%s: rope frequency %u is %g: too large for %u positions", gguf_path(g), i,
                           r->freq[i], m->hp.n_ctx_train);
    return ERR_OK;
}

err_code rope_load(model *m, const gguf *g, uint32_t at, const rope_wish *wish, err *e) {
    scaling s = {.factor = 1, .attn_factor = 1};
    rope *r = &m->rope[at];
    char key[64];
    snprintf(key, sizeof key, "rope.%s", wish->base_key);
    err_code rc = params_f32_or(m, g, key, 1.0001f, 1e15f, wish->base_default, &s.base, e);
    if (rc == ERR_OK && wish->scaled) rc = read_scaling(m, g, wish->longrope, &s, e);
    if (rc == ERR_OK) rc = model_take(m, &r->freq, wish->n_rot / 2, sizeof *r->freq, e);
    if (rc != ERR_OK) return rc;
    uint32_t n = r->n_rot = wish->n_rot;
    r->halves = wish->halves;
    double low = 0, high = 0, width = 1;
    if (s.yarn) {
        low = floor(yarn_pair(&s, n, s.beta_fast)), high = ceil(yarn_pair(&s, n, s.beta_slow));
        if (low < 0) low = 0;
        if (high > n - 1) high = n - 1;
        width = high - low > 0.001 ? high - low : 0.001;
    }
    for (uint32_t i = 0; i < n / 2; i++) {
        double keep = 0; /* 1: as trained, 0: divided by the factor */
        if (s.yarn) {
            double y = (i - low) / width;
            keep = (1 - (y < 0 ? 0 : y > 1 ? 1 : y)) * s.ext_factor;
        }
        r->freq[i] = num_pow(s.base, -2.0 * i / n) * ((1 - keep) / s.factor + keep);
    }
    r->mscale = s.attn_factor;
    r->yarn = s.yarn && s.ext_factor != 0 ? s.factor : 1;
    if (s.yarn && s.ext_factor != 0)
        r->mscale *=
            yarn_magnitude(s.factor, 1) / (s.log_multiplier != 0 ? yarn_magnitude(s.factor, s.log_multiplier) : 1);
    return check_freqs(m, g, r, e);
}

err_code rope_apply_factors(model *m, const gguf *g, uint32_t at, const float *factors, const char *name, err *e) {
    rope *r = &m->rope[at];
    for (uint32_t i = 0; i < r->n_rot / 2; i++) {
        if (!(factors[i] > 0 && factors[i] < 1e31f))
            return err_set(e, ERR_INVALID, "%s: tensor %s: factor %u is %g; it must be above 0", gguf_path(g), name, i,
                           (double)factors[i]);
        r->freq[i] /= (double)factors[i];
    }
    return check_freqs(m, g, r, e);
}

static void fill_row(const rope *r, uint32_t pos, float *cc, float *ss) {
    uint32_t n = r->n_rot, step_i = r->halves ? 1 : 2, other = r->halves ? n / 2 : 1;
    for (uint32_t i = 0; i < n / 2; i++) {
        double angle = (double)pos * r->freq[i];
        uint32_t a = i * step_i, b = a + other;
        cc[a] = cc[b] = (float)(num_cos(angle) * r->mscale);
        ss[b] = (float)(num_sin(angle) * r->mscale);
        ss[a] = -ss[b];
    }
}

void rope_tables(const model *m, step *st) {
    for (uint32_t i = 0; i < MODEL_ROPES; i++) {
        const rope *r = &m->rope[i];
        if (!r->n_rot) continue;
        for (uint32_t s = 0; s < st->n_spans; s++)
            for (uint32_t t = 0; t < st->spans[s].n; t++) {
                size_t at = (size_t)(st->spans[s].row + t) * r->n_rot;
                fill_row(r, st->spans[s].pos + t, st->rope[i].cc + at, st->rope[i].ss + at);
            }
    }
}
