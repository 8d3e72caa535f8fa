/* Expectations: what an owner wants a policy to mean, one cell a line, checked against the table.
 *
 *   internal, personal  ->   on-prem, mistral after redact personal
 *   confidential        -x-> openai
 *   given mistral jurisdiction = FR, operator-law = FR, training = no, retention = 0
 *
 * "->": each of these providers is allowed, and exactly this is redacted before (nothing, where "after redact" is not
 * there). "-x->": none of them is. A place may be a provider's bare name here. A file with "given" lines is checked
 * with the engine and these providers; others do not exist for it.
 */
#include "data/policy_parser.h"

#include <stdio.h>
#include <string.h>

typedef struct expectation {
    sensitivity v;
    bool allowed;
    place *places;
    bool redacts;
    entity_set things;
    unsigned line;
    const char *text;
    struct expectation *next;
} expectation;

typedef struct expectations {
    parser ps;
    expectation *list, **last;
    provider_facts *given; /* [0] is the engine */
    size_t n_given;
} expectations;

/* ---- "given" lines ----------------------------------------------------------------------------------------- */

/* A condition with one value, as a fact. */
static err_code put_fact(expectations *x, provider_facts *f, const condition *c, const token *value) {
    parser *ps = &x->ps;
    int width = (int)value->n;
    switch (c->fact) {
    case FACT_TRAINING: f->training = c->yes; return ERR_OK;
    case FACT_INSIDE: f->inside = c->yes; return ERR_OK;
    case FACT_RETENTION: f->retention_days = c->days; return ERR_OK;
    case FACT_DRIVER: snprintf(f->driver, sizeof f->driver, "%.*s", width, value->s); return ERR_OK;
    case FACT_OPERATOR: snprintf(f->operator_name, sizeof f->operator_name, "%.*s", width, value->s); return ERR_OK;
    case FACT_CONTRACT: snprintf(f->contract, sizeof f->contract, "%.*s", width, value->s); return ERR_OK;
    case FACT_CERTIFICATES: {
        size_t n = strlen(f->certificates);
        if (n + value->n + 2 > sizeof f->certificates)
            return parser_fail_at(ps, value->line, value->column, "the certificates are too long together");
        snprintf(f->certificates + n, sizeof f->certificates - n, "%s%.*s", n ? "," : "", width, value->s);
        return ERR_OK;
    }
    case FACT_JURISDICTION:
    case FACT_LAW:
        if (country_index(value->s, value->n) < 0)
            return parser_fail_at(ps, value->line, value->column,
                                  "one country stands here, as its two capital letters of ISO 3166 (DE, FR, CH)");
        snprintf(c->fact == FACT_LAW ? f->operator_law : f->country, 3, "%.2s", value->s);
        return ERR_OK;
    default: return parser_fail_at(ps, value->line, value->column, "a provider has one name, after \"given\"");
    }
}

/* FACT "=" VALUE, where a policy has the same; "retention = 0 days" too. */
static err_code parse_given_fact(expectations *x, provider_facts *f) {
    parser *ps = &x->ps;
    condition c = {0};
    token fact_token = ps->t;
    lexer before = ps->x;
    err_code rc = parser_take(ps);
    bool days = rc == ERR_OK && token_is(&fact_token, fact_word(FACT_RETENTION)) && ps->t.kind == TOKEN_EQUAL;
    if (rc == ERR_OK) rc = parser_take(ps);
    if (rc) return rc;
    token value = ps->t;
    if (days) {
        rc = parse_days(ps, &c);
        f->retention_days = c.days;
        return rc;
    }
    ps->x = before;
    ps->t = fact_token;
    rc = parse_condition(ps, &c);
    return rc ? rc : put_fact(x, f, &c, &value);
}

/* "given" NAME [ FACT "=" VALUE { "," FACT "=" VALUE } ] */
static err_code parse_given(expectations *x) {
    parser *ps = &x->ps;
    err_code rc = parser_take(ps);
    if (rc) return rc;
    if (ps->t.kind != TOKEN_WORD || !provider_name_ok(&ps->t))
        return parser_fail_value(ps, "is no name of a provider: lower case letters, digits, '.', '_', '-'");
    for (size_t i = 0; i < x->n_given; i++)
        if (token_is(&ps->t, x->given[i].name)) return parser_fail_value(ps, "is given already");
    if (x->n_given == PROVIDERS_MAX) return parser_fail_value(ps, "is one provider too many: 64 at most");
    char name[PROVIDER_NAME_MAX + 1];
    snprintf(name, sizeof name, "%.*s", (int)ps->t.n, ps->t.s);
    provider_facts *f = &x->given[x->n_given++];
    *f = provider_facts_unknown(name);
    rc = parser_take(ps);
    bool more = !parser_at_end(ps);
    size_t count = 0;
    while (rc == ERR_OK && more) {
        rc = parse_given_fact(x, f);
        if (rc == ERR_OK) rc = parser_comma(ps, &more, &count);
    }
    return rc ? rc : parser_need_end(ps, NULL, NULL);
}

/* ---- expectations ------------------------------------------------------------------------------------------ */

/* The label: one level, and flags. */
static err_code parse_cell(parser *ps, sensitivity *v) {
    uint8_t levels = 0, flags = 0;
    token first = ps->t;
    err_code rc = parse_what(ps, &levels, &flags, false, NULL);
    if (rc) return rc;
    if (!levels || (levels & (levels - 1)))
        return parser_fail_at(ps, first.line, first.column, "an expectation is about one level, with flags beside it");
    while (!(levels >> v->level & 1)) v->level++;
    v->flags = flags;
    return ERR_OK;
}

/* Bare names of providers are places here. */
static void name_providers(const expectations *x, const provider_facts *providers, size_t n, place *list) {
    for (; list; list = list->next) {
        bool known = list->kind != PLACE_ZONE;
        for (const zone *z = x->ps.p->zones; z && !known; z = z->next) known = strcmp(z->name, list->name) == 0;
        for (size_t i = 0; i < n && !known; i++)
            if (strcmp(providers[i].name, list->name) == 0) list->kind = PLACE_PROVIDER;
    }
}

static err_code parse_expectation(expectations *x) {
    parser *ps = &x->ps;
    expectation *w = arena_alloc(ps->a, sizeof *w);
    if (!w) return parser_nomem(ps);
    const char *from = ps->t.from;
    w->line = ps->t.line;
    err_code rc = parse_cell(ps, &w->v);
    if (rc) return rc;
    w->allowed = ps->t.kind == TOKEN_ARROW;
    if (!w->allowed && ps->t.kind != TOKEN_NO_ARROW) {
        choices c = {0};
        may_show(&c, "\"->\" (is allowed)");
        may_show(&c, "\"-x->\" (is not)");
        may_show(&c, "','");
        return parser_fail(ps, &c);
    }
    rc = parser_take(ps);
    if (rc == ERR_OK) rc = parse_places(ps, &w->places);
    if (rc == ERR_OK && w->allowed && token_is(&ps->t, "after")) {
        uint8_t flags = 0;
        word_item *words = NULL;
        w->redacts = true;
        rc = parser_take(ps);
        if (rc == ERR_OK) rc = parser_need(ps, "redact");
        if (rc == ERR_OK) rc = parse_things(ps, true, &w->things, &flags, &words);
    }
    if (rc == ERR_OK) rc = parser_need_end(ps, w->allowed && !w->redacts ? "after redact" : NULL, NULL);
    if (rc) return rc;
    w->text = arena_strndup(ps->a, from, (size_t)(ps->prev - from));
    if (!w->text) return parser_nomem(ps);
    *x->last = w;
    x->last = &w->next;
    return ERR_OK;
}

static err_code parse_expectations(expectations *x) {
    parser *ps = &x->ps;
    err_code rc = parser_take(ps);
    for (size_t n = 0; rc == ERR_OK && ps->t.kind != TOKEN_EOF; n++) {
        if (n > 20000) return parser_fail_at(ps, ps->t.line, ps->t.column, "too many lines");
        rc = ps->t.kind == TOKEN_END     ? parser_take(ps)
             : token_is(&ps->t, "given") ? parse_given(x)
                                         : parse_expectation(x);
    }
    return rc;
}

/* ---- checking ---------------------------------------------------------------------------------------------- */

typedef struct checker {
    const policy *p;
    const policy_table *t;
    const provider_facts *providers;
    size_t n;
} checker;

static bool same_set(const entity_set *a, const entity_set *b) {
    return a->bits[0] == b->bits[0] && a->bits[1] == b->bits[1];
}

/* One provider that stands in an expectation's place: what is wrong with it, into why (empty: nothing). */
static void check_provider(const checker *k, const expectation *w, size_t i, buf *why) {
    bool is = (policy_allowed(k->t, w->v) & (uint64_t)1 << i) != 0;
    const char *name = k->providers[i].name;
    if (is != w->allowed) {
        buf_printf(why, "%s%s is %s", why->len ? "; " : "", name, is ? "allowed" : "not allowed");
        return;
    }
    if (!is || same_set(policy_redactions(k->t, w->v, i), &w->things)) return;
    buf_printf(why, "%s%s is allowed after redacting something else: ", why->len ? "; " : "", name);
    cJSON *o = cJSON_CreateObject();
    const cJSON *v;
    if (!o || !report_redact(o, "redact", k->p, w->v.level, &k->providers[i], i == 0)) why->failed = true;
    const cJSON *list = o ? cJSON_GetObjectItemCaseSensitive(o, "redact") : NULL;
    if (list && !list->child) buf_puts(why, "nothing");
    cJSON_ArrayForEach(v, list) buf_printf(why, "%s%s", v == list->child ? "" : ", ", v->valuestring);
    cJSON_Delete(o);
}

static void check_one(const checker *k, const expectation *w, buf *why) {
    bool done[PROVIDERS_MAX] = {false};
    for (const place *at = w->places; at; at = at->next) {
        bool any = false;
        for (size_t i = 0; i < k->n; i++) {
            if (!place_has(at, &k->providers[i], i == 0)) continue;
            any = true;
            if (!done[i]) check_provider(k, w, i, why);
            done[i] = true;
        }
        if (any) continue;
        buf_puts(why, why->len ? "; no provider is " : "no provider is ");
        if (at->kind == PLACE_ZONE) buf_puts(why, "in ");
        place_text(at, why);
    }
}

static err_code check_all(const checker *k, const expectations *x, cJSON *o, size_t *failed, err *e) {
    cJSON *lines = o ? cJSON_AddArrayToObject(o, "lines") : NULL;
    buf why = {.max = 65536};
    size_t passed = 0;
    bool ok = lines != NULL;
    *failed = 0;
    for (const expectation *w = x->list; ok && w; w = w->next) {
        check_one(k, w, &why);
        bool good = !why.len && !why.failed;
        passed += good;
        *failed += !good;
        cJSON *l = cJSON_CreateObject();
        ok = l && cJSON_AddItemToArray(lines, l) && cJSON_AddNumberToObject(l, "line", w->line) &&
             cJSON_AddStringToObject(l, "text", w->text) && cJSON_AddBoolToObject(l, "ok", good);
        if (ok && !good) ok = cJSON_AddStringToObject(l, "why", buf_str(&why)) != NULL;
        buf_reset(&why);
    }
    buf_free(&why);
    ok = ok && cJSON_AddNumberToObject(o, "passed", (double)passed) &&
         cJSON_AddNumberToObject(o, "failed", (double)*failed);
    return ok ? ERR_OK : err_nomem(e, "a report");
}

/* The texts are read and hold together: find places, make the table, look. */
static err_code check(expectations *x, const provider_facts *providers, size_t n, cJSON *o, size_t *failed, err *e) {
    if (x->n_given > 1) {
        providers = x->given;
        n = x->n_given;
    }
    for (expectation *w = x->list; w; w = w->next) {
        name_providers(x, providers, n, w->places);
        err_code rc = resolve_places(&x->ps, w->places);
        if (rc) return rc;
    }
    policy_table *t = NULL;
    err_code rc = policy_compile(&t, x->ps.p, providers, n, e);
    checker k = {.p = x->ps.p, .t = t, .providers = providers, .n = n};
    if (rc == ERR_OK) rc = check_all(&k, x, o, failed, e);
    policy_table_free(t);
    return rc;
}

err_code policy_expect(const policy *p, const provider_facts *providers, size_t n, const char *text, size_t n_text,
                       const char *name, cJSON **out, err *e) {
    *out = NULL;
    if (n_text > POLICY_BYTES_MAX) return err_set(e, ERR_USAGE, "%s: 256 KiB at most", name);
    arena *a = arena_new(POLICY_ARENA_BYTES);
    policy view = *p; /* the parser gets one to write to, and does not */
    expectations x = {.ps = {.p = &view, .a = a, .e = e}, .last = NULL};
    x.last = &x.list;
    x.given = a ? arena_alloc(a, PROVIDERS_MAX * sizeof *x.given) : NULL;
    cJSON *o = cJSON_CreateObject();
    size_t failed = 0;
    err_code rc = x.given && o ? ERR_OK : err_nomem(e, "expectations");
    if (rc == ERR_OK) {
        x.given[x.n_given++] = provider_facts_engine;
        lexer_init(&x.ps.x, name, text, n_text);
        x.ps.x.arrows = true;
        rc = parse_expectations(&x);
    }
    if (rc == ERR_OK) rc = check(&x, providers, n, o, &failed, e);
    arena_free(a);
    if (rc) {
        cJSON_Delete(o);
        return rc;
    }
    *out = o;
    return failed ? err_set(e, ERR_NO, "%s: %zu expectation%s not met", name, failed, failed == 1 ? " is" : "s are")
                  : ERR_OK;
}
