/* Sampling. Definitions (docs/decisions/0002-attention-and-sampling.md has them in prose):
 *
 * 1. Tokens are ordered by logit, highest first, then by id, lowest first. A NaN logit counts as -inf, +inf as the
 *    largest float.
 * 2. A weight is an integer: w = e^((logit - max) / temperature) in float, q = floor(w * 2^40). Sums of integers are
 *    exact in any order, so how a set was found cannot show. A token with q = 0 (a 10^-12th of the highest) is never
 *    drawn and belongs to no set.
 * 3. "The k highest" and "the smallest set with mass p" are all tokens up to one, the cut, in the order of 1. A cut is
 *    found without sorting: tokens are counted into buckets by their distance to max, and the bucket where the cut lies
 *    is searched by selection.
 * 4. The draw walks the surviving tokens in increasing id and takes the first whose running sum is above the target,
 * the high 64 bits of r * total, r from Philox keyed by (seed, position).
 *
 * 5. A constraint is a mask: what it does not allow has logit -inf after bias and penalties, so it is in no set, and
 * the draw is a function of logits, mask, parameters and position alone.
 *
 * Nothing allocates after sampler_new, except what a constraint remembers.
 */
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/kernels/vec.h"
#include "engine/models/models.h"
#include "engine/num.h"
#include "engine/philox.h"

#include <float.h>
#include <math.h>

#define REPEAT_MAX 4096
#define MASS_ONE   0x1p40f /* q of the highest token; MODEL_VOCAB_MAX of them do not overflow */
#define BUCKETS    1024
#define BUCKET_PER 32 /* buckets a unit of (max - logit) / temperature; q is 0 from 27.8 units on */

typedef struct cand {
    float logit;
    int32_t id;
} cand;

struct sampler {
    sampler_params p;
    uint32_t n_vocab;
    logit_bias *bias;
    float *work, *w;       /* (n_vocab) */
    cand *cands;           /* (n_vocab), the bucket of a cut; only where there may be one */
    uint32_t *n_generated; /* (n_vocab) */
    uint16_t *n_recent;    /* (n_vocab) times within the window */
    int32_t *touched;      /* tokens that were ever counted, each once; in the order they came */
    uint8_t *is_touched;
    uint32_t n_touched;
    int32_t *window; /* ring of the last repeat_last_n tokens */
    uint32_t window_len, window_at;
    constraint *constraint; /* NULL: none */
    err error;              /* of the last draw, where it gave no token */
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

static bool may_cut(const sampler_params *p) {
    return p->temperature > 0 && (p->top_k > 0 || p->top_p < 1);
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
    if (may_cut(&s->p) && !(s->cands = mem_array(n, sizeof *s->cands))) return false;
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
    constraint_free(s->constraint);
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

void sampler_constrain(sampler *s, constraint *c) {
    constraint_free(s->constraint);
    s->constraint = c;
}

const err *sampler_error(const sampler *s) {
    return &s->error;
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

/* ---- cuts ------------------------------------------------------------------------------------------------- */

static bool before(const cand *a, const cand *b) {
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static uint64_t mass(float w) {
    return (uint64_t)(int64_t)(w * MASS_ONE);
}

static void swap(cand *a, cand *b) {
    cand t = *a;
    *a = *b;
    *b = t;
}

/* What a token counts for: 1, or its mass where w is given. */
static uint64_t measure(const cand *c, size_t n, const float *w) {
    if (!w) return n;
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += mass(w[c[i].id]);
    return sum;
}

/* Hoare's partition with the median of three as pivot: [0, k) hold nothing after the pivot, [k, n) nothing before it,
 * both are shorter than n. n > 3. */
static size_t partition(cand *c, size_t n) {
    cand pivot = c[n / 2];
    size_t i = 0, j = n - 1;
    for (;;) {
        while (before(&c[i], &pivot)) i++;
        while (before(&pivot, &c[j])) j--;
        if (i >= j) return j + 1;
        swap(&c[i++], &c[j--]);
    }
}

/* The first token, in order, at which the running measure reaches want (1 to the measure of all). */
static cand select_at(cand *c, size_t n, uint64_t want, const float *w) {
    for (;;) {
        cand *mid = &c[n / 2], *last = &c[n - 1];
        if (before(mid, &c[0])) swap(mid, &c[0]);
        if (before(last, &c[0])) swap(last, &c[0]);
        if (before(last, mid)) swap(last, mid);
        if (n <= 3) break; /* in order now */
        size_t k = partition(c, n);
        uint64_t left = measure(c, k, w);
        if (left >= want)
            n = k;
        else {
            want -= left;
            c += k;
            n -= k;
        }
    }
    for (size_t i = 0; i + 1 < n; i++) {
        uint64_t one = measure(&c[i], 1, w);
        if (one >= want) return c[i];
        want -= one;
    }
    return c[n - 1];
}

/* Monotone in the logit, whatever is rounded: a higher logit never has a higher bucket. */
static uint32_t bucket_of(float logit, float max, float per) {
    float v = (max - logit) * per;
    return v < BUCKETS - 1 ? (uint32_t)v : BUCKETS - 1;
}

typedef struct histogram {
    uint64_t count[BUCKETS], mass[BUCKETS];
    float max, per;
} histogram;

static bool within(const sampler *s, uint32_t i, const cand *cut) {
    return s->work[i] > cut->logit || (s->work[i] == cut->logit && (int32_t)i <= cut->id);
}

/* The token where the running measure over all live tokens up to `cut` reaches want. */
static cand find_cut(sampler *s, const histogram *h, const uint64_t *sums, uint64_t want, const float *w,
                     const cand *cut) {
    uint32_t b = 0;
    while (b < BUCKETS - 1 && sums[b] < want) want -= sums[b++];
    size_t n = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++)
        if (mass(s->w[i]) && bucket_of(s->work[i], h->max, h->per) == b && within(s, i, cut))
            s->cands[n++] = (cand){s->work[i], (int32_t)i};
    uint64_t all = measure(s->cands, n, w);
    return n == 0 ? *cut : select_at(s->cands, n, want < all ? want : all, w);
}

static uint64_t live_mass(const sampler *s, const cand *cut) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++)
        if (within(s, i, cut)) total += mass(s->w[i]);
    return total;
}

/* The last token that top-k and top-p leave. */
static cand cut_of(sampler *s, float max) {
    cand cut = {-INFINITY, INT32_MAX};
    if (!may_cut(&s->p)) return cut;
    histogram h = {.max = max, .per = BUCKET_PER / s->p.temperature};
    if (!(h.per < 1e30f)) h.per = 1e30f;
    uint64_t live = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        uint64_t q = mass(s->w[i]);
        if (!q) continue;
        uint32_t b = bucket_of(s->work[i], max, h.per);
        h.count[b]++;
        h.mass[b] += q;
        live++;
    }
    if (s->p.top_k > 0 && (uint64_t)s->p.top_k < live) cut = find_cut(s, &h, h.count, (uint64_t)s->p.top_k, NULL, &cut);
    if (s->p.top_p < 1) {
        uint64_t want = (uint64_t)((double)s->p.top_p * (double)live_mass(s, &cut));
        cut = find_cut(s, &h, h.mass, want ? want : 1, s->w, &cut);
    }
    return cut;
}

/* ---- draw ------------------------------------------------------------------------------------------------- */

/* The high 64 bits of a * b. */
static uint64_t mul_high(uint64_t a, uint64_t b) {
    uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
    uint64_t mid = ah * bl + (al * bl >> 32), low = (uint32_t)mid + al * bh;
    return ah * bh + (mid >> 32) + (low >> 32);
}

static int32_t draw(sampler *s, float max, uint64_t r) {
    vec_get(isa_get())->exp_sum(s->w, s->work, max, s->p.temperature, s->n_vocab);
    cand cut = cut_of(s, max);
    uint64_t total = 0, sum = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        if (!within(s, i, &cut) || s->w[i] < s->p.min_p) s->w[i] = 0; /* the highest has weight 1 */
        total += mass(s->w[i]);
    }
    uint64_t target = mul_high(r, total); /* below total, and total is above 0: the highest is in */
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        sum += mass(s->w[i]);
        if (sum > target) return (int32_t)i;
    }
    return highest(s->work, s->n_vocab);
}

/* Tokens outside of the mask get probability 0; most words of a mask are all or nothing. */
static void restrict_to(sampler *s, const uint64_t *mask) {
    for (uint32_t at = 0; at < s->n_vocab; at += 64) {
        uint64_t bits = mask[at / 64];
        uint32_t n = s->n_vocab - at < 64 ? s->n_vocab - at : 64;
        if (bits == UINT64_MAX) continue;
        for (uint32_t i = 0; i < n; i++)
            if (!(bits >> i & 1)) s->work[at + i] = -INFINITY;
    }
}

static int32_t first_of(const uint64_t *mask) { /* a mask is never empty */
    size_t i = 0;
    while (!mask[i]) i++;
    return (int32_t)(i * 64 + (size_t)__builtin_ctzll(mask[i]));
}

/* All that are allowed are banned, by biases or by the model itself: the highest as if no bias were. */
static int32_t choose_banned(sampler *s, const float *logits, const uint64_t *mask) {
    if (!mask) return highest(logits, s->n_vocab);
    for (uint32_t i = 0; i < s->n_vocab; i++) s->work[i] = clean(logits[i]);
    restrict_to(s, mask);
    int32_t best = highest(s->work, s->n_vocab);
    return s->work[best] == -INFINITY ? first_of(mask) : best;
}

static int32_t choose(sampler *s, const float *logits, uint32_t position, const uint64_t *mask) {
    const float *x = logits;
    if (s->p.temperature > 0 || s->p.n_bias || s->n_touched || mask) {
        adjust(s, logits);
        if (mask) restrict_to(s, mask);
        x = s->work;
    }
    int32_t best = highest(x, s->n_vocab);
    float max = clean(x[best]);
    if (max == -INFINITY) return choose_banned(s, logits, mask);
    if (s->p.temperature == 0) return best;
    return draw(s, max, philox_u64(s->p.seed, position));
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
    *out = (sampled){.token = -1};
    const uint64_t *mask = NULL;
    if (s->constraint && constraint_mask(s->constraint, &mask, &s->error) != ERR_OK) return;
    int32_t token = choose(s, logits, position, mask);
    if (s->constraint && constraint_accept(s->constraint, token, &s->error) != ERR_OK) return;
    out->token = token;
    if (want_logprob || n_top) logits_logprob(logits, s->n_vocab, token, n_top, out);
    note(s, token, true);
}
