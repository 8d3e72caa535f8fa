/* Zones: their names, their conditions, the values that each fact can have. */
#include "data/policy_parser.h"

#include <stdio.h>
#include <string.h>

/* The longest value that a provider's fact can hold. */
static size_t value_max(fact f) {
    const provider_facts *p = NULL;
    switch (f) {
    case FACT_NAME: return PROVIDER_NAME_MAX;
    case FACT_DRIVER: return sizeof p->driver - 1;
    case FACT_OPERATOR: return sizeof p->operator_name - 1;
    case FACT_CONTRACT: return sizeof p->contract - 1;
    default: return sizeof p->certificates - 1;
    }
}

static err_code parse_country(parser *ps, condition *c) {
    bool text = ps->t.kind == TOKEN_WORD || ps->t.kind == TOKEN_STRING;
    if (text && country_add(&c->countries, ps->t.s, ps->t.n)) return parser_take(ps);
    char meant[4];
    buf b = {.max = ERR_MSG_MAX};
    if (!text) {
        choices may_be = {0};
        may_show(&may_be, "EU");
        may_show(&may_be, "EEA");
        may_show(&may_be, "a country as DE, FR, CH");
        return parser_fail(ps, &may_be);
    }
    buf_puts(&b,
             "is no country here; possible here: EU, EEA, a country's two capital letters of ISO 3166 (DE, FR, CH)");
    if (country_hint(ps->t.s, ps->t.n, meant)) buf_printf(&b, "; did you mean \"%s\"?", meant);
    err_code rc = parser_fail_value(ps, buf_str(&b));
    buf_free(&b);
    return rc;
}

static err_code parse_text_value(parser *ps, condition *c, word_item ***last) {
    if (ps->t.kind != TOKEN_WORD && ps->t.kind != TOKEN_STRING) {
        choices may_be = {0};
        may_show(&may_be, "a word");
        may_show(&may_be, "a text in quotes \"…\"");
        return parser_fail(ps, &may_be);
    }
    if (ps->t.n > value_max(c->fact)) return parser_fail_value(ps, "is longer than what a provider's fact can hold");
    if (c->fact == FACT_NAME && !provider_name_ok(&ps->t))
        return parser_fail_value(ps, "cannot be a provider's name: lower case letters, digits, '.', '_', '-'");
    if (c->fact == FACT_DRIVER && !token_is(&ps->t, "engine") && !token_is(&ps->t, "openai") &&
        !token_is(&ps->t, "anthropic")) {
        choices may_be = {0};
        may(&may_be, "engine");
        may(&may_be, "openai");
        may(&may_be, "anthropic");
        return parser_fail(ps, &may_be);
    }
    if (c->fact == FACT_CERTIFICATES && memchr(ps->t.s, ',', ps->t.n))
        return parser_fail_value(ps, "is not one certificate: write each in quotes of its own, with ',' between them");
    char first = ps->t.s[0], last_one = ps->t.s[ps->t.n - 1];
    if (first == ' ' || first == '\t' || last_one == ' ' || last_one == '\t')
        return parser_fail_value(ps, "begins or ends with a blank");
    word_item *v = arena_alloc(ps->a, sizeof *v);
    if (!v || !(v->s = parser_keep(ps, &ps->t))) return parser_nomem(ps);
    **last = v;
    *last = &v->next;
    return parser_take(ps);
}

static err_code parse_values(parser *ps, condition *c, bool many) {
    bool more = true, country = fact_kind_of(c->fact) == KIND_COUNTRY;
    word_item **last = &c->values;
    size_t count = 0;
    while (more) {
        err_code rc = country ? parse_country(ps, c) : parse_text_value(ps, c, &last);
        more = false;
        if (rc == ERR_OK && many) rc = parser_comma(ps, &more, &count);
        if (rc) return rc;
    }
    return ERR_OK;
}

static err_code parse_yes_no(parser *ps, condition *c) {
    c->yes = token_is(&ps->t, "yes");
    if (c->yes || token_is(&ps->t, "no")) return parser_take(ps);
    choices may_be = {0};
    may(&may_be, "yes");
    may(&may_be, "no");
    return parser_fail(ps, &may_be);
}

err_code parse_days(parser *ps, condition *c) {
    int64_t v = 0;
    size_t i = 0;
    for (; ps->t.kind == TOKEN_WORD && i < ps->t.n && i < 7; i++) {
        if (ps->t.s[i] < '0' || ps->t.s[i] > '9') break;
        v = v * 10 + (ps->t.s[i] - '0');
    }
    if (!i || i < ps->t.n || v > DAYS_MAX) {
        choices may_be = {0};
        may_show(&may_be, "a whole number of days, 0 to 36500");
        return parser_fail(ps, &may_be);
    }
    c->days = (int32_t)v;
    err_code rc = parser_take(ps);
    if (rc == ERR_OK && (token_is(&ps->t, "days") || token_is(&ps->t, "day"))) return parser_take(ps);
    if (rc || parser_at_end(ps) || ps->t.kind == TOKEN_COMMA || token_is(&ps->t, "and")) return rc;
    choices may_be = {0};
    may(&may_be, "days");
    may(&may_be, "and");
    may_show(&may_be, "the end of the sentence");
    return parser_fail(ps, &may_be);
}

static err_code parse_operator_and_value(parser *ps, condition *c) {
    fact_kind kind = fact_kind_of(c->fact);
    bool lists = kind == KIND_TEXT || kind == KIND_LIST || kind == KIND_COUNTRY;
    if (lists && token_is(&ps->t, "in")) {
        err_code rc = parser_take(ps);
        return rc ? rc : parse_values(ps, c, true);
    }
    if (kind != KIND_DAYS && ps->t.kind == TOKEN_EQUAL) {
        err_code rc = parser_take(ps);
        if (rc) return rc;
        return lists ? parse_values(ps, c, false) : parse_yes_no(ps, c);
    }
    if (kind == KIND_DAYS && ps->t.kind == TOKEN_AT_MOST) {
        err_code rc = parser_take(ps);
        return rc ? rc : parse_days(ps, c);
    }
    choices may_be = {0};
    if (lists) may(&may_be, "in");
    may_show(&may_be, kind == KIND_DAYS ? "\"<=\" and a number of days" : kind == KIND_YES_NO ? "= yes, = no" : "=");
    return parser_fail(ps, &may_be);
}

err_code parse_condition(parser *ps, condition *c) {
    unsigned f = 0;
    const char *from = ps->t.from;
    while (f < FACTS_N && !token_is(&ps->t, fact_word(f))) f++;
    if (f == FACTS_N) {
        choices may_be = {0};
        for (f = 0; f < FACTS_N; f++) may(&may_be, fact_word(f));
        may_near(&may_be, "country");
        return parser_fail(ps, &may_be);
    }
    c->fact = f;
    err_code rc = parser_take(ps);
    if (rc == ERR_OK) rc = parse_operator_and_value(ps, c);
    if (rc) return rc;
    c->text = arena_strndup(ps->a, from, (size_t)(ps->prev - from));
    return c->text ? ERR_OK : parser_nomem(ps);
}

static err_code parse_conditions(parser *ps, condition **list) {
    for (size_t n = 0;; n++) {
        if (n == CONDITIONS_MAX)
            return parser_fail_at(ps, ps->t.line, ps->t.column, "a zone has 40 conditions at most");
        condition *c = arena_alloc(ps->a, sizeof *c);
        if (!c) return parser_nomem(ps);
        err_code rc = parse_condition(ps, c);
        if (rc) return rc;
        *list = c;
        list = &c->next;
        if (parser_at_end(ps)) return ERR_OK;
        choices may_be = {0};
        may(&may_be, "and");
        fact_kind kind = fact_kind_of(c->fact);
        if (kind == KIND_COUNTRY || kind == KIND_TEXT || kind == KIND_LIST) may_show(&may_be, "',' after \"in\"");
        may_show(&may_be, "the end of the sentence");
        if (!token_is(&ps->t, "and")) return parser_fail(ps, &may_be);
        rc = parser_take(ps);
        if (rc) return rc;
    }
}

static const char *const kept_words[] = {
    "zone",       "allow",          "never",   "treat",   "raise",   "any",    "label",
    "provider",   "providers",      "on-prem", "to",      "after",   "redact", "outside",
    "as",         "when",           "found",   "where",   "and",     "in",     "anything",
    "unlabelled", "detector-error", "leaves",  "reaches", "without", "engine", NULL};

static err_code parse_zone_name(parser *ps, zone *z) {
    const token *t = &ps->t;
    if (t->kind != TOKEN_WORD || !provider_name_ok(t)) {
        choices c = {0};
        may_show(&c, "a name for the zone (lower case letters, digits, '.', '_', '-')");
        return parser_fail(ps, &c);
    }
    bool taken = label_find(&ps->p->labels, t->s, t->n) >= 0 || flag_find(t->s, t->n);
    for (const char *const *w = kept_words; *w && !taken; w++) taken = token_is(t, *w);
    if (taken) return parser_fail_value(ps, "means something else in a policy; take another name for the zone");
    for (const zone *o = ps->p->zones; o; o = o->next)
        if (token_is(t, o->name)) {
            char what[80];
            snprintf(what, sizeof what, "is a zone of line %u already; join both, or take another name", o->line);
            return parser_fail_value(ps, what);
        }
    z->name = parser_keep(ps, t);
    return z->name ? parser_take(ps) : parser_nomem(ps);
}

/* "zone" NAME "=" "providers" "where" cond { "and" cond } */
err_code parse_zone(parser *ps, sentence *s) {
    zone *z = arena_alloc(ps->a, sizeof *z);
    if (!z) return parser_nomem(ps);
    if (ps->p->n_zones == ZONES_MAX)
        return parser_fail_at(ps, ps->t.line, ps->t.column, "a policy has 200 zones at most");
    z->line = s->line;
    s->zone = z;
    err_code rc = parse_zone_name(ps, z);
    if (rc) return rc;
    if (ps->t.kind != TOKEN_EQUAL) {
        choices c = {0};
        may_show(&c, "'='");
        return parser_fail(ps, &c);
    }
    rc = parser_take(ps);
    if (rc == ERR_OK) rc = parser_need(ps, "providers");
    if (rc == ERR_OK) rc = parser_need(ps, "where");
    if (rc == ERR_OK) rc = parse_conditions(ps, &z->conditions);
    if (rc) return rc;
    *ps->last_zone = z;
    ps->last_zone = &z->next;
    ps->p->n_zones++;
    return ERR_OK;
}
