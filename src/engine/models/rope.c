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

static const char *key_of(char out[128], const char *prefix, const char *name) {
    snprintf(out, 128, "%s.rope.%s", prefix, name);
    return out;
}

static err_code read_float(const gguf *g, const char *prefix, const char *name, float def, float min, float max,
                           float *out, err *e) {
    char key[128];
    err_code rc = gguf_f32_or(g, key_of(key, prefix, name), def, out, e);
    if (rc != ERR_OK) return rc;
    if (*out >= min && *out <= max) return ERR_OK;
    return err_set(e, ERR_INVALID, "%s: %s is %g; it must be from %g to %g", gguf_path(g), key, (double)*out,
                   (double)min, (double)max);
}

static bool str_is(gguf_str s, const char *want) {
    return s.len == strlen(want) && memcmp(s.ptr, want, s.len) == 0;
}

static err_code read_type(const gguf *g, const char *prefix, scaling *s, err *e) {
    char key[128];
    gguf_str type = {0};
    err_code rc = gguf_str_or(g, key_of(key, prefix, "scaling.type"), &type, e);
    if (rc != ERR_OK) return rc;
    s->yarn = str_is(type, "yarn");
    if (str_is(type, "none"))
        s->factor = 1;
    else if (type.len && !s->yarn && !str_is(type, "linear"))
        return err_set(e, ERR_UNSUPPORTED, "%s: %s is \"%.*s\"; polder knows none, linear and yarn", gguf_path(g), key,
                       (int)(type.len < 64 ? type.len : 64), type.ptr);
    return ERR_OK;
}

static err_code read_scaling(const model *m, const gguf *g, const char *prefix, scaling *s, err *e) {
    err_code rc;
    char key[128];
    float old = 1;
    if ((rc = read_float(g, prefix, "freq_base", 10000, 1.0001f, 1e15f, &s->base, e)) != ERR_OK ||
        (rc = read_float(g, prefix, "scale_linear", 1, 0, 1e6f, &old, e)) != ERR_OK ||
        (rc = read_float(g, prefix, "scaling.factor", old, 0, 1e6f, &s->factor, e)) != ERR_OK ||
        (rc = read_float(g, prefix, "scaling.attn_factor", 1, 1e-3f, 1e3f, &s->attn_factor, e)) != ERR_OK ||
        (rc = read_type(g, prefix, s, e)) != ERR_OK)
        return rc;
    if (s->factor == 0) s->factor = 1; /* files write 0 for "not scaled" */
    if (s->factor < 1e-3f)
        return err_set(e, ERR_INVALID, "%s: %s is %g; it must be 0 or at least 0.001", gguf_path(g),
                       key_of(key, prefix, "scaling.factor"), (double)s->factor);
    if ((rc = read_float(g, prefix, "scaling.yarn_ext_factor", 1, 0, 1, &s->ext_factor, e)) != ERR_OK ||
        (rc = read_float(g, prefix, "scaling.yarn_beta_fast", 32, 1e-3f, 1e6f, &s->beta_fast, e)) != ERR_OK ||
        (rc = read_float(g, prefix, "scaling.yarn_beta_slow", 1, 1e-3f, 1e6f, &s->beta_slow, e)) != ERR_OK ||
        (rc = read_float(g, prefix, "scaling.yarn_log_multiplier", 0, 0, 100, &s->log_multiplier, e)) != ERR_OK)
        return rc;
    return gguf_u32_or(g, key_of(key, prefix, "scaling.original_context_length"), 1, MODEL_CTX_MAX, m->hp.n_ctx_train,
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
static err_code check_freqs(const model *m, const gguf *g, err *e) {
    for (uint32_t i = 0; i < m->hp.n_rot / 2; i++)
        if (!(m->rope_freq[i] >= 0 && m->rope_freq[i] * m->hp.n_ctx_train < 0x1p30))
            return err_set(e, ERR_INVALID, "%s: rope frequency %u is %g: too large for %u positions", gguf_path(g), i,
                           m->rope_freq[i], m->hp.n_ctx_train);
    return ERR_OK;
}

err_code rope_load(model *m, const gguf *g, const char *prefix, err *e) {
    scaling s;
    err_code rc = read_scaling(m, g, prefix, &s, e);
    if (rc != ERR_OK) return rc;
    uint32_t n = m->hp.n_rot;
    m->rope_freq = mem_array(n / 2, sizeof *m->rope_freq);
    if (!m->rope_freq) return err_nomem(e, "rope frequencies");
    double low = floor(yarn_pair(&s, n, s.beta_fast)), high = ceil(yarn_pair(&s, n, s.beta_slow));
    if (low < 0) low = 0;
    if (high > n - 1) high = n - 1;
    double width = high - low > 0.001 ? high - low : 0.001;
    for (uint32_t i = 0; i < n / 2; i++) {
        double keep = 0; /* 1: as trained, 0: divided by the factor */
        if (s.yarn) {
            double y = (i - low) / width;
            keep = (1 - (y < 0 ? 0 : y > 1 ? 1 : y)) * s.ext_factor;
        }
        m->rope_freq[i] = num_pow(s.base, -2.0 * i / n) * ((1 - keep) / s.factor + keep);
    }
    m->rope_mscale = s.attn_factor;
    if (s.yarn && s.ext_factor != 0)
        m->rope_mscale *=
            yarn_magnitude(s.factor, 1) / (s.log_multiplier != 0 ? yarn_magnitude(s.factor, s.log_multiplier) : 1);
    return check_freqs(m, g, e);
}

err_code rope_apply_factors(model *m, const gguf *g, const float *factors, err *e) {
    for (uint32_t i = 0; i < m->hp.n_rot / 2; i++) {
        if (!(factors[i] > 0 && factors[i] < 1e9f))
            return err_set(e, ERR_INVALID, "%s: tensor rope_freqs.weight: factor %u is %g; it must be above 0",
                           gguf_path(g), i, (double)factors[i]);
        m->rope_freq[i] /= (double)factors[i];
    }
    return check_freqs(m, g, e);
}

void rope_tables(const model *m, step *st) {
    uint32_t n = m->hp.n_rot;
    for (uint32_t s = 0; s < st->n_spans; s++)
        for (uint32_t t = 0; t < st->spans[s].n; t++) {
            float *cc = st->cc + (size_t)(st->spans[s].row + t) * n, *ss = st->ss + (size_t)(st->spans[s].row + t) * n;
            for (uint32_t i = 0; i < n / 2; i++) {
                double angle = (double)(st->spans[s].pos + t) * m->rope_freq[i];
                cc[2 * i] = cc[2 * i + 1] = (float)(num_cos(angle) * m->rope_mscale);
                ss[2 * i + 1] = (float)(num_sin(angle) * m->rope_mscale);
                ss[2 * i] = -ss[2 * i + 1];
            }
        }
}
