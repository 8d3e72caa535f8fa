/* Numbers. A bounded number is read digit by digit beside its bounds: as long as what was read equals the beginning of
 * a bound, the next digit may not pass that of the bound; the remainder of a multiple is carried along. Bounds are
 * taken as the shortest decimals that read back as them; with at most 15 digits in all, comparing decimals and
 * comparing the doubles that they become is the same. */
#include "engine/grammar/schema.h"

#include "base/json.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS_MAX   15 /* of a bounded number */
#define DIVISOR_MAX  20000u
#define STATES_MAX   400000u
#define FRACTION_MAX 12

/* ---- bounds
 * ------------------------------------------------------------------------------------------------------------------ */

typedef struct decimal { /* not negative */
    char whole[DIGITS_MAX + 1], part[400];
    int n_whole, n_part;
} decimal;

/* The magnitude of a double in plain digits. false: it has more than 15 digits before the point. */
static bool decimal_of(schema_ctx *c, decimal *d, double v) {
    buf text = {.max = 64};
    json_number(&text, fabs(v));
    if (text.failed) schema_nomem(c);
    char digits[400];
    int n = 0, point = -1, exponent = 0;
    for (const char *p = buf_str(&text); *p; p++) {
        if (*p == 'e' || *p == 'E') {
            exponent = (int)strtol(p + 1, NULL, 10);
            break;
        }
        if (*p == '.')
            point = n;
        else if (n < 30)
            digits[n++] = *p;
    }
    buf_free(&text);
    point = (point < 0 ? n : point) + exponent; /* digits before the point */
    *d = (decimal){0};
    if (point > DIGITS_MAX) return false;
    for (int i = 0; i < point; i++) {
        char ch = i < n ? digits[i] : '0';
        if (d->n_whole || ch != '0') d->whole[d->n_whole++] = ch;
    }
    if (!d->n_whole) d->whole[d->n_whole++] = '0';
    for (int i = point; i < n && d->n_part < (int)sizeof d->part; i++) d->part[d->n_part++] = i < 0 ? '0' : digits[i];
    while (d->n_part && d->part[d->n_part - 1] == '0') d->n_part--;
    return true;
}

typedef struct range {
    double lo, hi;     /* infinite where there is none */
    bool above, below; /* the bound itself is out */
    double step;       /* multipleOf; 0: none */
} range;

static double number_of(schema_ctx *c, const cJSON *s, const char *keyword, double absent) {
    const cJSON *v = schema_get(s, keyword);
    if (!v) return absent;
    if (cJSON_IsNumber(v)) return v->valuedouble;
    schema_fail(c, ERR_INVALID, s, keyword, "it must be a number");
    return absent;
}

static void raise_low(range *r, double v, bool out) {
    if (v < r->lo || (v == r->lo && !out)) return;
    r->above = v > r->lo ? out : r->above || out;
    r->lo = v;
}
static void lower_high(range *r, double v, bool out) {
    if (v > r->hi || (v == r->hi && !out)) return;
    r->below = v < r->hi ? out : r->below || out;
    r->hi = v;
}

static void add_step(schema_ctx *c, range *r, const cJSON *s) {
    double m = number_of(c, s, "multipleOf", 0);
    if (!schema_get(s, "multipleOf") || c->rc != ERR_OK) return;
    if (!(m > 0)) {
        schema_fail(c, ERR_INVALID, s, "multipleOf", "it must be above 0");
    } else if (r->step == 0 || fmod(m, r->step) == 0) {
        r->step = m;
    } else if (m == floor(m) && r->step == floor(r->step) && m * r->step <= 1e12) {
        uint64_t a = (uint64_t)m, b = (uint64_t)r->step;
        while (b) {
            uint64_t t = a % b;
            a = b;
            b = t;
        }
        r->step = m / (double)a * r->step;
    } else if (fmod(r->step, m) != 0) {
        schema_fail(c, ERR_UNSUPPORTED, s, "multipleOf", "several of these cannot be combined here");
    }
}

static void range_of(schema_ctx *c, const schema_way *w, range *r) {
    *r = (range){.lo = -INFINITY, .hi = INFINITY};
    for (uint32_t i = 0; i < w->n && c->rc == ERR_OK; i++) {
        const cJSON *s = w->list[i];
        raise_low(r, number_of(c, s, "minimum", -INFINITY), false);
        lower_high(r, number_of(c, s, "maximum", INFINITY), false);
        if (!cJSON_IsBool(schema_get(s, "exclusiveMinimum")))
            raise_low(r, number_of(c, s, "exclusiveMinimum", -INFINITY), true);
        else
            schema_fail(c, ERR_UNSUPPORTED, s, "exclusiveMinimum", "a boolean is of an older draft; give the number");
        if (!cJSON_IsBool(schema_get(s, "exclusiveMaximum")))
            lower_high(r, number_of(c, s, "exclusiveMaximum", INFINITY), true);
        else
            schema_fail(c, ERR_UNSUPPORTED, s, "exclusiveMaximum", "a boolean is of an older draft; give the number");
        add_step(c, r, s);
    }
}

/* ---- digits
 * -------------------------------------------------------------------------------------------------------------------
 */

enum { LOW = 1, HIGH = 2 }; /* what was read equals the beginning of this bound */

typedef struct spot { /* where in a number */
    int16_t left;     /* digits before the point that are still to come */
    int16_t part;     /* digits behind the point so far; -1: no point yet */
    int16_t most;     /* digits behind the point that are allowed */
    uint8_t tight;
    uint32_t rest; /* of all digits so far, modulo the divisor */
    uint32_t state;
} spot;

typedef struct digits {
    schema_ctx *c;
    const decimal *lo, *hi;
    bool above, below;
    int most_part;
    uint32_t divisor; /* of the number times 10^scale; 1: none */
    int scale;
    uint32_t to;
    spot *spots;
    uint32_t n_spots, cap_spots, done;
    uint32_t *table, mask;
} digits;

static uint32_t hash_spot(const spot *s) {
    uint64_t h = (uint64_t)s->rest << 32 ^ (uint64_t)(uint16_t)s->left << 18 ^ (uint64_t)(uint16_t)s->part << 10 ^
                 (uint64_t)(uint16_t)s->most << 4 ^ s->tight;
    h *= 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32);
}

static bool same_spot(const spot *a, const spot *b) {
    return a->left == b->left && a->part == b->part && a->most == b->most && a->tight == b->tight && a->rest == b->rest;
}

static bool grow_spots(digits *x) {
    uint32_t cap = x->cap_spots ? x->cap_spots * 2 : 64;
    spot *p = cap > STATES_MAX ? NULL : mem_realloc(x->spots, cap * sizeof *p);
    if (p) x->spots = p;
    uint32_t *t = p ? mem_array(2 * (size_t)cap, sizeof *t) : NULL;
    if (!t) {
        if (cap > STATES_MAX)
            schema_fail(x->c, ERR_TOO_LARGE, NULL, "multipleOf", "these numbers need too many states");
        else
            schema_nomem(x->c);
        return false;
    }
    mem_free(x->table);
    x->table = t;
    x->mask = 2 * cap - 1;
    x->cap_spots = cap;
    for (uint32_t i = 0; i < x->n_spots; i++) {
        uint32_t k = hash_spot(&x->spots[i]) & x->mask;
        while (t[k]) k = (k + 1) & x->mask;
        t[k] = i + 1;
    }
    return true;
}

static uint32_t state_of(digits *x, spot s) {
    if (x->c->rc != ERR_OK || (x->n_spots == x->cap_spots && !grow_spots(x))) return 0;
    uint32_t k = hash_spot(&s) & x->mask;
    for (; x->table[k]; k = (k + 1) & x->mask)
        if (same_spot(&x->spots[x->table[k] - 1], &s)) return x->spots[x->table[k] - 1].state;
    s.state = builder_state(x->c->b);
    x->spots[x->n_spots] = s;
    x->table[k] = ++x->n_spots;
    return s.state;
}

static char digit_at(const decimal *d, const spot *s) {
    if (s->part < 0) return d->whole[d->n_whole - s->left];
    return s->part < d->n_part ? d->part[s->part] : '0';
}

static bool rest_is_zero(const decimal *d, const spot *s) {
    for (int i = s->part < 0 ? 0 : s->part; i < d->n_part; i++)
        if (d->part[i] != '0') return false;
    return true;
}

/* May the number end here? */
static bool may_end(const digits *x, const spot *s) {
    if (s->left || s->part == 0) return false;
    if ((s->tight & LOW) && (!rest_is_zero(x->lo, s) || x->above)) return false;
    if ((s->tight & HIGH) && x->below && rest_is_zero(x->hi, s)) return false;
    uint64_t rest = s->rest;
    for (int i = s->part < 0 ? 0 : s->part; i < x->scale; i++) rest = rest * 10 % x->divisor;
    return rest == 0;
}

/* One more digit. */
static void read_digit(digits *x, const spot *s, uint32_t from, char d) {
    uint8_t tight = 0;
    if (s->tight & LOW) {
        char b = digit_at(x->lo, s);
        if (d < b) return;
        if (d == b) tight |= LOW;
    }
    if (s->tight & HIGH) {
        char b = digit_at(x->hi, s);
        if (d > b) return;
        if (d == b) tight |= HIGH;
    }
    spot t = *s;
    t.tight = tight;
    t.rest = (uint32_t)(((uint64_t)s->rest * 10 + (uint64_t)(d - '0')) % x->divisor);
    if (s->part < 0)
        t.left--;
    else
        t.part++;
    builder_bytes(x->c->b, from, (uint8_t)d, (uint8_t)d, state_of(x, t));
}

static void follow(digits *x, spot s) {
    if (may_end(x, &s)) builder_empty(x->c->b, s.state, x->to);
    bool digit = s.part < 0 ? s.left > 0 : s.part < s.most;
    for (int d = 0; digit && d < 10; d++) read_digit(x, &s, s.state, (char)('0' + d));
    if (s.part < 0 && !s.left && s.most > 0) {
        spot t = s;
        t.part = 0;
        builder_bytes(x->c->b, s.state, '.', '.', state_of(x, t));
    }
}

/* Numbers from lo to hi (not negative), in plain digits. */
static void write_magnitudes(digits *x, uint32_t from) {
    for (int n = x->lo->n_whole; n <= x->hi->n_whole && x->c->rc == ERR_OK; n++) {
        int most = DIGITS_MAX - n < x->most_part ? DIGITS_MAX - n : x->most_part;
        spot s = {.left = (int16_t)n, .part = -1, .most = (int16_t)most};
        s.tight = (uint8_t)((n == x->lo->n_whole ? LOW : 0) | (n == x->hi->n_whole ? HIGH : 0));
        for (int d = n > 1; d < 10; d++) read_digit(x, &s, from, (char)('0' + d));
    }
    for (; x->done < x->n_spots && x->c->rc == ERR_OK && !builder_failed(x->c->b); x->done++)
        follow(x, x->spots[x->done]);
    mem_free(x->spots);
    mem_free(x->table);
}

/* Those of one sign; lo and hi are magnitudes. */
static void write_sign(schema_ctx *c, range r, int most_part, uint32_t divisor, int scale, uint32_t from, uint32_t to) {
    decimal lo, hi;
    static const decimal most = {.whole = "999999999999999", .n_whole = DIGITS_MAX};
    if (r.lo > r.hi || !decimal_of(c, &lo, r.lo)) return;
    if (isinf(r.hi) || !decimal_of(c, &hi, r.hi)) {
        hi = most;
        r.below = false;
    }
    digits x = {.c = c,
                .lo = &lo,
                .hi = &hi,
                .above = r.above,
                .below = r.below,
                .most_part = most_part,
                .divisor = divisor,
                .scale = scale,
                .to = to};
    write_magnitudes(&x, from);
}

/* ---- free numbers
 * ---------------------------------------------------------------------------------------------------------------- */

static void write_free(schema_ctx *c, bool whole, uint32_t from, uint32_t to) {
    static const char integer[] = "(0|-?[1-9][0-9]{0,17})";
    static const char number[] = "-?(0|[1-9][0-9]{0,14})(\\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?";
    const char *p = whole ? integer : number;
    err_code rc = regex_build(c->b, from, to, p, strlen(p), c->e);
    if (rc && c->rc == ERR_OK) c->rc = rc;
}

/* The divisor and how many digits behind the point it counts in: 0.25 is 25 of 10^-2. */
static bool split_step(schema_ctx *c, const schema_way *w, double step, uint32_t *divisor, int *scale) {
    *divisor = 1;
    *scale = 0;
    if (step == 0) return true;
    decimal d;
    uint64_t v = 0;
    bool ok = decimal_of(c, &d, step) && d.n_part <= FRACTION_MAX;
    for (int i = 0; ok && i < d.n_whole; i++) v = v * 10 + (uint64_t)(d.whole[i] - '0');
    for (int i = 0; ok && i < d.n_part && v <= DIVISOR_MAX; i++) v = v * 10 + (uint64_t)(d.part[i] - '0');
    *divisor = (uint32_t)v;
    *scale = ok ? d.n_part : 0;
    if (ok && v && v <= DIVISOR_MAX) return true;
    for (uint32_t i = 0; i < w->n; i++)
        if (schema_get(w->list[i], "multipleOf"))
            schema_fail(c, ERR_UNSUPPORTED, w->list[i], "multipleOf",
                        "it has too many digits; at most 20000 in units of its last digit are supported");
    return false;
}

void schema_number(schema_ctx *c, const schema_way *w, unsigned types, uint32_t from, uint32_t to) {
    range r;
    uint32_t divisor;
    int scale;
    range_of(c, w, &r);
    if (types == T_FRACTION)
        schema_fail(c, ERR_UNSUPPORTED, w->n ? w->list[0] : NULL, "not",
                    "numbers without the integers are not supported");
    if (c->rc != ERR_OK || !split_step(c, w, r.step, &divisor, &scale)) return;
    bool whole = types == T_INTEGER;
    if (isinf(r.lo) && isinf(r.hi) && r.step == 0) {
        write_free(c, whole, from, to);
        return;
    }
    int most_part = whole ? 0 : r.step > 0 ? scale : FRACTION_MAX;
    if (r.hi >= 0) {
        range up = r;
        if (up.lo < 0) up.lo = 0, up.above = false;
        write_sign(c, up, most_part, divisor, scale, from, to);
    }
    if (r.lo < 0) {
        range down = {.lo = r.hi < 0 ? -r.hi : 0, .hi = -r.lo, .above = r.hi < 0 ? r.below : true, .below = r.above};
        uint32_t minus = builder_state(c->b);
        builder_bytes(c->b, from, '-', '-', minus);
        write_sign(c, down, most_part, divisor, scale, minus, to);
    }
}
