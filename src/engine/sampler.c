/* Sampling. Definitions (docs/decisions/0002-attention-and-sampling.md has them in prose):
 *
 * 1. Tokens are ordered by logit, highest first, then by id, lowest first. "The k highest" and "the smallest set with
 *    mass p" are sets under that order.
 * 2. Weights are w = e^((logit - max) / temperature) in float, sums of weights in double: over all tokens in the eight
 *    lanes of vec.h, over a set in the order given here.
 * 3. The draw walks the surviving set in increasing id and takes the first token whose running sum is above u * total,
 *    u from Philox keyed by (seed, position).
 * 4. A NaN logit counts as -inf, +inf as the largest float.
 *
 * So no sort of the vocabulary is needed where nothing was filtered, and where something was, only of what survives.
 * Nothing allocates after sampler_new.
 */
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/kernels/vec.h"
#include "engine/num.h"
#include "engine/philox.h"

#include <float.h>
#include <math.h>

#define REPEAT_MAX  4096
#define SORT_MAX    1024
#define TOP_P_FIRST 128 /* candidates sorted at first for top-p; eight times as many each time that was too few */

typedef struct cand {
    float logit, w;
    int32_t id;
} cand;

struct sampler {
    sampler_params p;
    uint32_t n_vocab;
    logit_bias *bias;
    float *work, *w;       /* (n_vocab) */
    cand *cands;           /* (n_vocab), only where something may filter */
    uint32_t *n_generated; /* (n_vocab) */
    uint16_t *n_recent;    /* (n_vocab) times within the window */
    int32_t *touched;      /* tokens that were ever counted, each once; in the order they came */
    uint8_t *is_touched;
    uint32_t n_touched;
    int32_t *window; /* ring of the last repeat_last_n tokens */
    uint32_t window_len, window_at;
};

/* ---- parameters ------------------------------------------------------------------------------------------- */

void sampler_params_default(sampler_params *p) {
    *p = (sampler_params){.temperature = 1, .top_p = 1, .repeat_penalty = 1};
}

static err_code out_of_range(err *e, const char *name, double v, const char *range) {
    return err_set(e, ERR_INVALID, "%s is %g; it must be %s", name, v, range);
}

/* Comparisons are written so that a NaN fails them. */
err_code sampler_params_check(const sampler_params *p, uint32_t n_vocab, err *e) {
    if (!(p->temperature >= 0 && p->temperature <= 2))
        return out_of_range(e, "temperature", (double)p->temperature, "from 0 to 2");
    if (p->top_k < 0) return out_of_range(e, "top_k", p->top_k, "0 (all) or more");
    if (!(p->top_p > 0 && p->top_p <= 1)) return out_of_range(e, "top_p", (double)p->top_p, "above 0 and at most 1");
    if (!(p->min_p >= 0 && p->min_p < 1)) return out_of_range(e, "min_p", (double)p->min_p, "from 0 to below 1");
    if (!(p->repeat_penalty > 0 && p->repeat_penalty <= 2))
        return out_of_range(e, "repeat_penalty", (double)p->repeat_penalty, "above 0 and at most 2");
    if (p->repeat_last_n < 0 || p->repeat_last_n > REPEAT_MAX)
        return out_of_range(e, "repeat_last_n", p->repeat_last_n, "from 0 to 4096");
    if (!(p->frequency_penalty >= -2 && p->frequency_penalty <= 2))
        return out_of_range(e, "frequency_penalty", (double)p->frequency_penalty, "from -2 to 2");
    if (!(p->presence_penalty >= -2 && p->presence_penalty <= 2))
        return out_of_range(e, "presence_penalty", (double)p->presence_penalty, "from -2 to 2");
    if (p->n_bias > SAMPLER_BIAS_MAX) return out_of_range(e, "number of logit_bias entries", p->n_bias, "at most 1024");
    for (uint32_t i = 0; i < p->n_bias; i++) {
        if (p->bias[i].token < 0 || (uint32_t)p->bias[i].token >= n_vocab)
            return err_set(e, ERR_INVALID, "logit_bias: token %d is not in the vocabulary of %u", (int)p->bias[i].token,
                           n_vocab);
        if (!(p->bias[i].bias >= -100 && p->bias[i].bias <= 100))
            return out_of_range(e, "logit_bias", (double)p->bias[i].bias, "from -100 to 100");
    }
    return ERR_OK;
}

static bool may_filter(const sampler_params *p) {
    return p->temperature > 0 && (p->top_k > 0 || p->top_p < 1 || p->min_p > 0);
}

static bool counts(const sampler_params *p) {
    return p->frequency_penalty != 0 || p->presence_penalty != 0 || (p->repeat_penalty != 1 && p->repeat_last_n > 0);
}

static bool take_memory(sampler *s) {
    size_t n = s->n_vocab;
    s->work = mem_array(n, sizeof *s->work);
    s->w = mem_array(n, sizeof *s->w);
    s->bias = mem_array(s->p.n_bias, sizeof *s->bias);
    if (!s->work || !s->w || !s->bias) return false;
    if (may_filter(&s->p) && !(s->cands = mem_array(n, sizeof *s->cands))) return false;
    if (!counts(&s->p)) return true;
    s->n_generated = mem_array(n, sizeof *s->n_generated);
    s->n_recent = mem_array(n, sizeof *s->n_recent);
    s->touched = mem_array(n, sizeof *s->touched);
    s->is_touched = mem_array(n, 1);
    s->window = mem_array((size_t)s->p.repeat_last_n, sizeof *s->window);
    return s->n_generated && s->n_recent && s->touched && s->is_touched && s->window;
}

err_code sampler_new(sampler **out, const model *m, const sampler_params *p, err *e) {
    *out = NULL;
    uint32_t n_vocab = model_get_facts(m)->n_vocab;
    err_code rc = sampler_params_check(p, n_vocab, e);
    if (rc != ERR_OK) return rc;
    sampler *s = mem_zalloc(sizeof *s);
    if (!s) return err_nomem(e, "a sampler");
    s->p = *p;
    s->n_vocab = n_vocab;
    if (!take_memory(s)) {
        sampler_free(s);
        return err_nomem(e, "a sampler");
    }
    if (p->n_bias) memcpy(s->bias, p->bias, p->n_bias * sizeof *p->bias);
    s->p.bias = s->bias;
    *out = s;
    return ERR_OK;
}

void sampler_free(sampler *s) {
    if (!s) return;
    mem_free(s->bias);
    mem_free(s->work);
    mem_free(s->w);
    mem_free(s->cands);
    mem_free(s->n_generated);
    mem_free(s->n_recent);
    mem_free(s->touched);
    mem_free(s->is_touched);
    mem_free(s->window);
    mem_free(s);
}

/* ---- what came before ------------------------------------------------------------------------------------- */

static void note_recent(sampler *s, int32_t id) {
    if (s->p.repeat_last_n == 0) return;
    uint32_t size = (uint32_t)s->p.repeat_last_n;
    if (s->window_len == size)
        s->n_recent[s->window[s->window_at]]--;
    else
        s->window_len++;
    s->window[s->window_at] = id;
    s->window_at = (s->window_at + 1) % size;
    s->n_recent[id]++;
}

static void note(sampler *s, int32_t id, bool generated) {
    if (!counts(&s->p) || id < 0 || (uint32_t)id >= s->n_vocab) return;
    if (!s->is_touched[id]) {
        s->is_touched[id] = 1;
        s->touched[s->n_touched++] = id;
    }
    note_recent(s, id);
    if (generated) s->n_generated[id]++;
}

void sampler_prompt(sampler *s, const int32_t *tokens, size_t n) {
    for (size_t i = 0; i < n; i++) note(s, tokens[i], false);
}

/* ---- logits to work --------------------------------------------------------------------------------------- */

static float clean(float x) {
    return x != x ? -INFINITY : x > FLT_MAX ? FLT_MAX : x;
}

/* Bias, then penalties: repetition divides a positive logit and multiplies a negative one. */
static void adjust(sampler *s, const float *logits) {
    for (uint32_t i = 0; i < s->n_vocab; i++) s->work[i] = clean(logits[i]);
    for (uint32_t i = 0; i < s->p.n_bias; i++) {
        float *x = &s->work[s->bias[i].token];
        *x = s->bias[i].bias <= -100 ? -INFINITY : *x + s->bias[i].bias;
    }
    for (uint32_t i = 0; i < s->n_touched; i++) {
        int32_t id = s->touched[i];
        float x = s->work[id];
        if (s->n_recent[id]) x = x > 0 ? x / s->p.repeat_penalty : x * s->p.repeat_penalty;
        if (s->n_generated[id]) x -= (float)s->n_generated[id] * s->p.frequency_penalty + s->p.presence_penalty;
        s->work[id] = clean(x);
    }
}

static int32_t highest(const float *x, uint32_t n) {
    int32_t best = 0;
    float top = clean(x[0]);
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > top && clean(x[i]) > top) { /* false for NaN; infinities tie */
            top = clean(x[i]);
            best = (int32_t)i;
        }
    return best;
}

/* ---- sets ------------------------------------------------------------------------------------------------- */

static bool before(const cand *a, const cand *b) {
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static bool before_id(const cand *a, const cand *b) {
    return a->id < b->id;
}

static void swap(cand *a, cand *b) {
    cand t = *a;
    *a = *b;
    *b = t;
}

/* Brings the k first under the order to the front (Hoare's selection, median of three). The order is total, so the set
 * does not depend on the way there. */
static void select_first(cand *c, size_t n, size_t k) {
    size_t lo = 0, hi = n;
    while (k > lo && k < hi) {
        cand *mid = &c[lo + (hi - lo) / 2], *last = &c[hi - 1];
        if (before(mid, &c[lo])) swap(mid, &c[lo]);
        if (before(last, &c[lo])) swap(last, &c[lo]);
        if (before(last, mid)) swap(last, mid);
        if (hi - lo <= 3) return; /* sorted now */
        cand pivot = *mid;
        size_t i = lo, j = hi - 1;
        for (;;) {
            while (before(&c[i], &pivot)) i++;
            while (before(&pivot, &c[j])) j--;
            if (i >= j) break;
            swap(&c[i++], &c[j--]);
        }
        /* [lo, j] hold nothing after the pivot, [j + 1, hi) nothing before it; both have an element */
        if (k <= j + 1)
            hi = j + 1;
        else
            lo = j + 1;
    }
}

typedef bool order_fn(const cand *a, const cand *b);

static void sift(cand *c, size_t i, size_t n, order_fn *less) {
    for (size_t kid; (kid = 2 * i + 1) < n; i = kid) {
        if (kid + 1 < n && less(&c[kid], &c[kid + 1])) kid++;
        if (!less(&c[i], &c[kid])) return;
        swap(&c[i], &c[kid]);
    }
}

/* Heapsort: no memory of its own (the C library's qsort may allocate). */
static void sort(cand *c, size_t n, order_fn *less) {
    for (size_t i = n / 2; i-- > 0;) sift(c, i, n, less);
    for (size_t i = n; i-- > 1;) {
        swap(&c[0], &c[i]);
        sift(c, 0, i, less);
    }
}

/* The smallest set, highest first, whose weight reaches top_p of the total: its size. Sorts no more than it needs. */
static size_t keep_top_p(cand *c, size_t n, double total, float top_p) {
    double want = (double)top_p * total, sum = 0;
    size_t sorted = 0;
    for (size_t upto = n < TOP_P_FIRST ? n : TOP_P_FIRST;; upto = upto * 8 < n ? upto * 8 : n) {
        select_first(c + sorted, n - sorted, upto - sorted);
        sort(c + sorted, upto - sorted, before);
        for (; sorted < upto; sorted++) {
            sum += (double)c[sorted].w;
            if (sum >= want) return sorted + 1;
        }
        if (upto == n) return n;
    }
}

/* Walk the vocabulary. The total is summed in the order of the walk, so that the last step reaches it. */
static int32_t draw_all(const float *w, uint32_t n, double u) {
    double total = 0, sum = 0;
    for (uint32_t i = 0; i < n; i++) total += (double)w[i];
    int32_t last = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (w[i] <= 0) continue;
        last = (int32_t)i;
        sum += (double)w[i];
        if (sum > u * total) return last;
    }
    return last;
}

/* The same walk over a set. A large one is spread over the vocabulary again, which is quicker than sorting it by id and
 * adds nothing but zeros to the sums. */
static int32_t draw_set(sampler *s, size_t n, double u) {
    cand *c = s->cands;
    if (n > SORT_MAX) {
        memset(s->w, 0, s->n_vocab * sizeof *s->w);
        for (size_t i = 0; i < n; i++) s->w[c[i].id] = c[i].w;
        return draw_all(s->w, s->n_vocab, u);
    }
    sort(c, n, before_id);
    double total = 0, sum = 0;
    for (size_t i = 0; i < n; i++) total += (double)c[i].w;
    int32_t last = c[0].id;
    for (size_t i = 0; i < n; i++) {
        if (c[i].w <= 0) continue;
        last = c[i].id;
        sum += (double)c[i].w;
        if (sum > u * total) return last;
    }
    return last;
}

static int32_t draw_filtered(sampler *s, const vec_kernels *vec, float max, double u) {
    const sampler_params *p = &s->p;
    cand *c = s->cands;
    size_t n = 0;
    double total = 0;
    bool top_k = p->top_k > 0 && (uint32_t)p->top_k < s->n_vocab;
    if (!top_k) total = vec->exp_sum(s->w, s->work, max, p->temperature, s->n_vocab);
    for (uint32_t i = 0; i < s->n_vocab; i++)
        if (s->work[i] > -INFINITY && (top_k || s->w[i] > 0))
            c[n++] = (cand){s->work[i], top_k ? 0 : s->w[i], (int32_t)i};
    if (top_k) {
        size_t k = (size_t)p->top_k < n ? (size_t)p->top_k : n;
        select_first(c, n, k);
        n = k;
        sort(c, n, before); /* the sum below must not depend on how the selection left them */
        for (size_t i = 0; i < n; i++) {
            c[i].w = num_exp32((c[i].logit - max) / p->temperature);
            total += (double)c[i].w;
        }
    }
    if (p->top_p < 1) n = keep_top_p(c, n, total, p->top_p);
    if (p->min_p > 0) { /* the highest has weight 1 */
        size_t kept = 0;
        for (size_t i = 0; i < n; i++)
            if (c[i].w >= p->min_p) c[kept++] = c[i];
        n = kept;
    }
    return draw_set(s, n, u);
}

static int32_t choose(sampler *s, const float *logits, uint32_t position) {
    const float *x = logits;
    if (s->p.temperature > 0 || s->p.n_bias || s->n_touched) {
        adjust(s, logits);
        x = s->work;
    }
    int32_t best = highest(x, s->n_vocab);
    float max = clean(x[best]);
    if (max == -INFINITY) return highest(logits, s->n_vocab); /* all banned: as if nothing were */
    if (s->p.temperature == 0) return best;
    const vec_kernels *vec = vec_get(isa_get());
    double u = philox_uniform(s->p.seed, position);
    if (may_filter(&s->p)) return draw_filtered(s, vec, max, u);
    vec->exp_sum(s->w, s->work, max, s->p.temperature, s->n_vocab);
    return draw_all(s->w, s->n_vocab, u);
}

/* ---- log-probabilities ------------------------------------------------------------------------------------ */

#define LSE_BLOCK 1024

/* ln of the sum of e^logit: max + ln(sum), the sum over blocks of 1024 in order. */
static double log_sum(const float *logits, uint32_t n, float max) {
    const vec_kernels *vec = vec_get(isa_get());
    float x[LSE_BLOCK], w[LSE_BLOCK];
    double sum = 0;
    for (uint32_t at = 0; at < n; at += LSE_BLOCK) {
        uint32_t k = n - at < LSE_BLOCK ? n - at : LSE_BLOCK;
        for (uint32_t i = 0; i < k; i++) x[i] = clean(logits[at + i]);
        sum += vec->exp_sum(w, x, max, 1, k);
    }
    return (double)max + num_log(sum);
}

static float logprob_of(float logit, double lse) {
    double v = (double)clean(logit) - lse;
    return v < -FLT_MAX ? -FLT_MAX : (float)v; /* JSON has no -inf */
}

static uint32_t top_of(token_logprob *top, uint32_t n_top, const float *logits, uint32_t n_vocab) {
    uint32_t n = 0;
    if (n_top > SAMPLER_TOP_MAX) n_top = SAMPLER_TOP_MAX;
    for (uint32_t i = 0; i < n_vocab && n_top; i++) {
        float x = clean(logits[i]);
        if (n == n_top && !(x > top[n - 1].logprob)) continue; /* a tie stays with the lower id */
        uint32_t at = n < n_top ? n++ : n - 1;
        for (; at > 0 && x > top[at - 1].logprob; at--) top[at] = top[at - 1];
        top[at] = (token_logprob){(int32_t)i, x};
    }
    return n;
}

void logits_logprob(const float *logits, uint32_t n_vocab, int32_t token, uint32_t n_top, sampled *out) {
    float max = clean(logits[highest(logits, n_vocab)]);
    double lse = max == -INFINITY ? 0 : log_sum(logits, n_vocab, max);
    out->token = token;
    out->logprob = token >= 0 && (uint32_t)token < n_vocab ? logprob_of(logits[token], lse) : -FLT_MAX;
    out->n_top = top_of(out->top, n_top, logits, n_vocab);
    for (uint32_t i = 0; i < out->n_top; i++) out->top[i].logprob = logprob_of(out->top[i].logprob, lse);
}

void sampler_draw(sampler *s, const float *logits, uint32_t position, bool want_logprob, uint32_t n_top, sha256 *digest,
                  sampled *out) {
    /* the bytes in memory are the little-endian ones on every machine that polder builds for */
    if (digest) sha256_update(digest, logits, (size_t)s->n_vocab * sizeof *logits);
    int32_t token = choose(s, logits, position);
    out->token = token;
    out->logprob = 0;
    out->n_top = 0;
    if (want_logprob || n_top) logits_logprob(logits, s->n_vocab, token, n_top, out);
    note(s, token, true);
}
