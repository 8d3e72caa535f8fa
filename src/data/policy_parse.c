/* Sentences → struct policy. One function a rule of the grammar in policy.h.
 *
 * An error says where, which word was not understood, which are possible there, and which was probably meant.
 */
#include "data/policy_internal.h"

#include <stdio.h>
#include <string.h>

enum { WORDS_MAX = 320 };

/* What may stand at a place of the text: shown in this order. `near`: words that count for "did you mean" only. */
typedef struct choices {
    const char *shown[24];
    size_t n_shown;
    const char *near[WORDS_MAX];
    size_t n_near;
} choices;

typedef struct parser {
    lexer x;
    token t; /* the next one */
    policy *p;
    arena *a;
    const char *prev; /* where the last token that was taken ends */
    sentence **last;
    zone **last_zone;
    err *e;
} parser;

static void may(choices *c, const char *word) {
    if (c->n_shown < sizeof c->shown / sizeof c->shown[0]) c->shown[c->n_shown++] = word;
    if (c->n_near < WORDS_MAX) c->near[c->n_near++] = word;
}

/* Shown, but no word that somebody can misspell. */
static void may_show(choices *c, const char *what) {
    if (c->n_shown < sizeof c->shown / sizeof c->shown[0]) c->shown[c->n_shown++] = what;
}

static void may_near(choices *c, const char *word) {
    if (c->n_near < WORDS_MAX) c->near[c->n_near++] = word;
}

static err_code nomem(parser *ps) {
    return err_nomem(ps->e, "a policy");
}

static err_code fail_at(const parser *ps, unsigned line, unsigned column, const char *what) {
    return err_set(ps->e, ERR_USAGE, "%s:%u:%u: %s", ps->x.name, line, column, what);
}

static void write_choices(const parser *ps, const choices *c, buf *b) {
    for (size_t i = 0; i < c->n_shown; i++) buf_printf(b, "%s%s", i ? ", " : "; possible here: ", c->shown[i]);
    const char *near = ps->t.kind == TOKEN_WORD ? word_nearest(ps->t.s, ps->t.n, c->near, c->n_near) : NULL;
    if (near) buf_printf(b, "; did you mean \"%s\"?", near);
}

/* The next token is none of the choices. */
static err_code fail_here(const parser *ps, const choices *c) {
    buf b = {.max = ERR_MSG_MAX};
    const token *t = &ps->t;
    if (t->kind == TOKEN_END || t->kind == TOKEN_EOF)
        buf_puts(&b, "the sentence ends here, and something is missing");
    else if (t->kind == TOKEN_STRING)
        buf_printf(&b, "\"%.*s\" in quotes is not understood here", t->n > 60 ? 60 : (int)t->n, t->s);
    else
        buf_printf(&b, "\"%.*s\" is not understood here", t->n > 60 ? 60 : (int)t->n, t->s);
    write_choices(ps, c, &b);
    err_code rc = fail_at(ps, t->line, t->column, buf_str(&b));
    buf_free(&b);
    return rc;
}

static err_code take(parser *ps) {
    ps->prev = ps->t.past;
    return lexer_next(&ps->x, &ps->t, ps->e);
}

static bool is_word(const token *t, const char *word) {
    return t->kind == TOKEN_WORD && strlen(word) == t->n && memcmp(word, t->s, t->n) == 0;
}

static bool at_end(const parser *ps) {
    return ps->t.kind == TOKEN_END || ps->t.kind == TOKEN_EOF;
}

static err_code need_word(parser *ps, const char *word) {
    choices c = {0};
    may(&c, word);
    return is_word(&ps->t, word) ? take(ps) : fail_here(ps, &c);
}

static char *keep(parser *ps, const token *t) {
    return arena_strndup(ps->a, t->s, t->n);
}

/* Over the comma of a list, if one follows. */
static err_code take_comma(parser *ps, bool *more, size_t *count) {
    *more = ps->t.kind == TOKEN_COMMA;
    if (!*more) return ERR_OK;
    if (++*count >= LIST_MAX) return fail_at(ps, ps->t.line, ps->t.column, "the list is too long: 300 items at most");
    return take(ps);
}

/* After a list: what else could have followed is part of the choices. */
static err_code need_end(parser *ps, const char *also, const char *also2) {
    choices c = {0};
    if (at_end(ps)) return ERR_OK;
    may_show(&c, "','");
    if (also) may(&c, also);
    if (also2) may(&c, also2);
    may_show(&c, "the end of the sentence");
    return fail_here(ps, &c);
}

/* ---- labels, flags, things, places ------------------------------------------------------------------------- */

static void may_levels(const parser *ps, choices *c) {
    for (int i = 0; i < ps->p->labels.n; i++) may(c, ps->p->labels.name[i]);
}

static void may_flags(choices *c) {
    for (unsigned i = 0; i < FLAGS_N; i++) may(c, flag_name(1u << i));
}

static err_code parse_level(parser *ps, uint8_t *out) {
    int i = ps->t.kind == TOKEN_WORD ? label_find(&ps->p->labels, ps->t.s, ps->t.n) : -1;
    if (i < 0) {
        choices c = {0};
        may_levels(ps, &c);
        return fail_here(ps, &c);
    }
    *out = (uint8_t)i;
    return take(ps);
}

/* LABEL { "," LABEL } | "any label" */
static err_code parse_labels(parser *ps, uint8_t *bits) {
    bool more = true;
    size_t count = 0;
    if (is_word(&ps->t, "any")) {
        *bits = (uint8_t)((1u << ps->p->labels.n) - 1);
        err_code rc = take(ps);
        return rc ? rc : need_word(ps, "label");
    }
    while (more) {
        int i = ps->t.kind == TOKEN_WORD ? label_find(&ps->p->labels, ps->t.s, ps->t.n) : -1;
        if (i < 0) {
            choices c = {0};
            may_levels(ps, &c);
            may(&c, "any label");
            return fail_here(ps, &c);
        }
        *bits |= (uint8_t)(1u << i);
        err_code rc = take(ps);
        if (rc == ERR_OK) rc = take_comma(ps, &more, &count);
        if (rc) return rc;
    }
    return ERR_OK;
}

/* (LABEL | FLAG) { "," … } */
static err_code parse_what(parser *ps, uint8_t *levels, uint8_t *flags, bool anything_too, bool *anything) {
    bool more = true;
    size_t count = 0;
    while (more) {
        int i = ps->t.kind == TOKEN_WORD ? label_find(&ps->p->labels, ps->t.s, ps->t.n) : -1;
        unsigned flag = ps->t.kind == TOKEN_WORD ? flag_find(ps->t.s, ps->t.n) : 0;
        if (anything_too && is_word(&ps->t, "anything")) {
            *anything = true;
        } else if (i < 0 && !flag) {
            choices c = {0};
            may_levels(ps, &c);
            may_flags(&c);
            if (anything_too) may(&c, "anything");
            return fail_here(ps, &c);
        }
        if (i >= 0) *levels |= (uint8_t)(1u << i);
        *flags |= (uint8_t)flag;
        err_code rc = take(ps);
        if (rc == ERR_OK) rc = take_comma(ps, &more, &count);
        if (rc) return rc;
    }
    return ERR_OK;
}

static void may_things(const parser *ps, choices *c) {
    may_flags(c);
    unsigned n = detector_entities(ps->p->d);
    for (unsigned i = 0; i < n; i++) {
        const char *group = detector_entity(ps->p->d, i)->group;
        bool again = false;
        for (unsigned k = 0; group && k < i && !again; k++) {
            const char *other = detector_entity(ps->p->d, k)->group;
            again = other && strcmp(other, group) == 0;
        }
        if (group && !again && c->n_shown < 16) may(c, group);
    }
    may_show(c, "an entity as iban or email");
    for (unsigned i = 0; i < n; i++) may_near(c, detector_entity(ps->p->d, i)->name);
}

/* What of the set has a placeholder. */
static entity_set redactable(const parser *ps, const entity_set *s) {
    entity_set out = {{0}};
    unsigned n = detector_entities(ps->p->d);
    for (unsigned i = 0; i < n; i++)
        if (entity_set_has(s, i) && detector_entity(ps->p->d, i)->word) entity_set_add(&out, i);
    return out;
}

static err_code parse_thing(parser *ps, bool redact, entity_set *things, uint8_t *flags) {
    entity_set found = {{0}};
    if (ps->t.kind != TOKEN_WORD || !detector_find(ps->p->d, ps->t.s, ps->t.n, &found)) {
        choices c = {0};
        may_things(ps, &c);
        return fail_here(ps, &c);
    }
    if (redact) {
        found = redactable(ps, &found);
        if (entity_set_empty(&found)) {
            buf b = {.max = ERR_MSG_MAX};
            buf_printf(&b,
                       "\"%.*s\" cannot be redacted, it raises the label only; to keep it inside write: never "
                       "special-category outside on-prem",
                       ps->t.n > 60 ? 60 : (int)ps->t.n, ps->t.s);
            err_code rc = fail_at(ps, ps->t.line, ps->t.column, buf_str(&b));
            buf_free(&b);
            return rc;
        }
    }
    things->bits[0] |= found.bits[0];
    things->bits[1] |= found.bits[1];
    *flags |= (uint8_t)flag_find(ps->t.s, ps->t.n);
    return ERR_OK;
}

/* thing { "," thing } */
static err_code parse_things(parser *ps, bool redact, entity_set *things, uint8_t *flags, word_item **words) {
    bool more = true;
    size_t count = 0;
    while (more) {
        err_code rc = parse_thing(ps, redact, things, flags);
        if (rc) return rc;
        word_item *w = arena_alloc(ps->a, sizeof *w);
        char *s = keep(ps, &ps->t);
        if (!w || !s) return nomem(ps);
        w->s = s;
        *words = w;
        words = &w->next;
        rc = take(ps);
        if (rc == ERR_OK) rc = take_comma(ps, &more, &count);
        if (rc) return rc;
    }
    return ERR_OK;
}

static bool provider_name_ok(const token *t) {
    if (!t->n || t->n > PROVIDER_NAME_MAX) return false;
    for (size_t i = 0; i < t->n; i++) {
        char c = t->s[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-')) return false;
    }
    return true;
}

static void may_places(const parser *ps, choices *c) {
    may(c, "on-prem");
    may(c, "any provider");
    may_show(c, "provider NAME");
    may_near(c, "provider");
    for (const zone *z = ps->p->zones; z && c->n_shown < 16; z = z->next) may(c, z->name);
    if (!ps->p->zones) may_show(c, "the name of a zone");
}

static err_code parse_provider_name(parser *ps, place *at) {
    if ((ps->t.kind != TOKEN_WORD && ps->t.kind != TOKEN_STRING) || !provider_name_ok(&ps->t)) {
        choices c = {0};
        may_show(&c, "a provider's name (lower case letters, digits, '.', '_', '-')");
        return fail_here(ps, &c);
    }
    at->kind = PLACE_PROVIDER;
    at->name = keep(ps, &ps->t);
    return at->name ? take(ps) : nomem(ps);
}

/* "on-prem" | ZONE | "any provider" | "provider" NAME. Zones are found when the whole text was read. */
static err_code parse_place(parser *ps, place *at) {
    at->line = ps->t.line;
    at->column = ps->t.column;
    if (ps->t.kind != TOKEN_WORD) {
        choices c = {0};
        may_places(ps, &c);
        return fail_here(ps, &c);
    }
    if (is_word(&ps->t, "provider")) {
        err_code rc = take(ps);
        return rc ? rc : parse_provider_name(ps, at);
    }
    if (is_word(&ps->t, "any")) {
        at->kind = PLACE_ANY;
        err_code rc = take(ps);
        return rc ? rc : need_word(ps, "provider");
    }
    at->kind = is_word(&ps->t, "on-prem") ? PLACE_ON_PREM : PLACE_ZONE;
    at->name = keep(ps, &ps->t);
    return at->name ? take(ps) : nomem(ps);
}

static err_code parse_places(parser *ps, place **list) {
    bool more = true;
    size_t count = 0;
    while (more) {
        place *at = arena_alloc(ps->a, sizeof *at);
        if (!at) return nomem(ps);
        err_code rc = parse_place(ps, at);
        if (rc == ERR_OK) rc = take_comma(ps, &more, &count);
        if (rc) return rc;
        *list = at;
        list = &at->next;
    }
    return ERR_OK;
}

/* ---- zones ------------------------------------------------------------------------------------------------- */

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

static err_code fail_value(parser *ps, const char *what) {
    buf b = {.max = ERR_MSG_MAX};
    buf_printf(&b, "\"%.*s\" %s", ps->t.n > 60 ? 60 : (int)ps->t.n, ps->t.s, what);
    err_code rc = fail_at(ps, ps->t.line, ps->t.column, buf_str(&b));
    buf_free(&b);
    return rc;
}

static err_code parse_country(parser *ps, condition *c) {
    bool text = ps->t.kind == TOKEN_WORD || ps->t.kind == TOKEN_STRING;
    if (text && country_add(&c->countries, ps->t.s, ps->t.n)) return take(ps);
    char meant[4];
    buf b = {.max = ERR_MSG_MAX};
    if (!text) {
        choices may_be = {0};
        may_show(&may_be, "EU");
        may_show(&may_be, "EEA");
        may_show(&may_be, "a country as DE, FR, CH");
        return fail_here(ps, &may_be);
    }
    buf_puts(&b,
             "is no country here; possible here: EU, EEA, a country's two capital letters of ISO 3166 (DE, FR, CH)");
    if (country_hint(ps->t.s, ps->t.n, meant)) buf_printf(&b, "; did you mean \"%s\"?", meant);
    err_code rc = fail_value(ps, buf_str(&b));
    buf_free(&b);
    return rc;
}

static err_code parse_text_value(parser *ps, condition *c, word_item ***last) {
    if (ps->t.kind != TOKEN_WORD && ps->t.kind != TOKEN_STRING) {
        choices may_be = {0};
        may_show(&may_be, "a word");
        may_show(&may_be, "a text in quotes \"…\"");
        return fail_here(ps, &may_be);
    }
    if (ps->t.n > value_max(c->fact)) return fail_value(ps, "is longer than what a provider's fact can hold");
    if (c->fact == FACT_NAME && !provider_name_ok(&ps->t))
        return fail_value(ps, "cannot be a provider's name: lower case letters, digits, '.', '_', '-'");
    if (c->fact == FACT_DRIVER && !is_word(&ps->t, "engine") && !is_word(&ps->t, "openai") &&
        !is_word(&ps->t, "anthropic")) {
        choices may_be = {0};
        may(&may_be, "engine");
        may(&may_be, "openai");
        may(&may_be, "anthropic");
        return fail_here(ps, &may_be);
    }
    if (c->fact == FACT_CERTIFICATES && memchr(ps->t.s, ',', ps->t.n))
        return fail_value(ps, "is not one certificate: write each in quotes of its own, with ',' between them");
    char first = ps->t.s[0], last_one = ps->t.s[ps->t.n - 1];
    if (first == ' ' || first == '\t' || last_one == ' ' || last_one == '\t')
        return fail_value(ps, "begins or ends with a blank");
    word_item *v = arena_alloc(ps->a, sizeof *v);
    if (!v || !(v->s = keep(ps, &ps->t))) return nomem(ps);
    **last = v;
    *last = &v->next;
    return take(ps);
}

static err_code parse_values(parser *ps, condition *c, bool many) {
    bool more = true, country = fact_kind_of(c->fact) == KIND_COUNTRY;
    word_item **last = &c->values;
    size_t count = 0;
    while (more) {
        err_code rc = country ? parse_country(ps, c) : parse_text_value(ps, c, &last);
        more = false;
        if (rc == ERR_OK && many) rc = take_comma(ps, &more, &count);
        if (rc) return rc;
    }
    return ERR_OK;
}

static err_code parse_yes_no(parser *ps, condition *c) {
    c->yes = is_word(&ps->t, "yes");
    if (c->yes || is_word(&ps->t, "no")) return take(ps);
    choices may_be = {0};
    may(&may_be, "yes");
    may(&may_be, "no");
    return fail_here(ps, &may_be);
}

static err_code parse_days(parser *ps, condition *c) {
    int64_t v = 0;
    size_t i = 0;
    for (; ps->t.kind == TOKEN_WORD && i < ps->t.n && i < 7; i++) {
        if (ps->t.s[i] < '0' || ps->t.s[i] > '9') break;
        v = v * 10 + (ps->t.s[i] - '0');
    }
    if (!i || i < ps->t.n || v > DAYS_MAX) {
        choices may_be = {0};
        may_show(&may_be, "a whole number of days, 0 to 36500");
        return fail_here(ps, &may_be);
    }
    c->days = (int32_t)v;
    err_code rc = take(ps);
    if (rc == ERR_OK && (is_word(&ps->t, "days") || is_word(&ps->t, "day"))) return take(ps);
    if (rc || at_end(ps) || is_word(&ps->t, "and")) return rc;
    choices may_be = {0};
    may(&may_be, "days");
    may(&may_be, "and");
    may_show(&may_be, "the end of the sentence");
    return fail_here(ps, &may_be);
}

static err_code parse_operator_and_value(parser *ps, condition *c) {
    fact_kind kind = fact_kind_of(c->fact);
    bool lists = kind == KIND_TEXT || kind == KIND_LIST || kind == KIND_COUNTRY;
    if (lists && is_word(&ps->t, "in")) {
        err_code rc = take(ps);
        return rc ? rc : parse_values(ps, c, true);
    }
    if (kind != KIND_DAYS && ps->t.kind == TOKEN_EQUAL) {
        err_code rc = take(ps);
        if (rc) return rc;
        return lists ? parse_values(ps, c, false) : parse_yes_no(ps, c);
    }
    if (kind == KIND_DAYS && ps->t.kind == TOKEN_AT_MOST) {
        err_code rc = take(ps);
        return rc ? rc : parse_days(ps, c);
    }
    choices may_be = {0};
    if (lists) may(&may_be, "in");
    may_show(&may_be, kind == KIND_DAYS ? "\"<=\" and a number of days" : kind == KIND_YES_NO ? "= yes, = no" : "=");
    return fail_here(ps, &may_be);
}

static err_code parse_condition(parser *ps, condition *c) {
    unsigned f = 0;
    const char *from = ps->t.from;
    while (f < FACTS_N && !is_word(&ps->t, fact_word(f))) f++;
    if (f == FACTS_N) {
        choices may_be = {0};
        for (f = 0; f < FACTS_N; f++) may(&may_be, fact_word(f));
        may_near(&may_be, "country");
        return fail_here(ps, &may_be);
    }
    c->fact = f;
    err_code rc = take(ps);
    if (rc == ERR_OK) rc = parse_operator_and_value(ps, c);
    if (rc) return rc;
    c->text = arena_strndup(ps->a, from, (size_t)(ps->prev - from));
    return c->text ? ERR_OK : nomem(ps);
}

static err_code parse_conditions(parser *ps, condition **list) {
    for (size_t n = 0;; n++) {
        if (n == CONDITIONS_MAX) return fail_at(ps, ps->t.line, ps->t.column, "a zone has 40 conditions at most");
        condition *c = arena_alloc(ps->a, sizeof *c);
        if (!c) return nomem(ps);
        err_code rc = parse_condition(ps, c);
        if (rc) return rc;
        *list = c;
        list = &c->next;
        if (at_end(ps)) return ERR_OK;
        choices may_be = {0};
        may(&may_be, "and");
        fact_kind kind = fact_kind_of(c->fact);
        if (kind == KIND_COUNTRY || kind == KIND_TEXT || kind == KIND_LIST) may_show(&may_be, "',' after \"in\"");
        may_show(&may_be, "the end of the sentence");
        if (!is_word(&ps->t, "and")) return fail_here(ps, &may_be);
        rc = take(ps);
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
        return fail_here(ps, &c);
    }
    bool taken = label_find(&ps->p->labels, t->s, t->n) >= 0 || flag_find(t->s, t->n);
    for (const char *const *w = kept_words; *w && !taken; w++) taken = is_word(t, *w);
    if (taken) return fail_value(ps, "means something else in a policy; take another name for the zone");
    for (const zone *o = ps->p->zones; o; o = o->next)
        if (is_word(t, o->name)) {
            char what[80];
            snprintf(what, sizeof what, "is a zone of line %u already; join both, or take another name", o->line);
            return fail_value(ps, what);
        }
    z->name = keep(ps, t);
    return z->name ? take(ps) : nomem(ps);
}

/* "zone" NAME "=" "providers" "where" cond { "and" cond } */
static err_code parse_zone(parser *ps, sentence *s) {
    zone *z = arena_alloc(ps->a, sizeof *z);
    if (!z) return nomem(ps);
    if (ps->p->n_zones == ZONES_MAX) return fail_at(ps, ps->t.line, ps->t.column, "a policy has 200 zones at most");
    z->line = s->line;
    s->zone = z;
    err_code rc = parse_zone_name(ps, z);
    if (rc) return rc;
    if (ps->t.kind != TOKEN_EQUAL) {
        choices c = {0};
        may_show(&c, "'='");
        return fail_here(ps, &c);
    }
    rc = take(ps);
    if (rc == ERR_OK) rc = need_word(ps, "providers");
    if (rc == ERR_OK) rc = need_word(ps, "where");
    if (rc == ERR_OK) rc = parse_conditions(ps, &z->conditions);
    if (rc) return rc;
    *ps->last_zone = z;
    ps->last_zone = &z->next;
    ps->p->n_zones++;
    return ERR_OK;
}

/* ---- the other sentences ----------------------------------------------------------------------------------- */

static err_code parse_allow(parser *ps, sentence *s) {
    err_code rc = parse_labels(ps, &s->levels);
    if (rc) return rc;
    if (!is_word(&ps->t, "to")) {
        choices c = {0};
        may(&c, "to");
        may_show(&c, "','");
        return fail_here(ps, &c);
    }
    rc = take(ps);
    if (rc == ERR_OK) rc = parse_places(ps, &s->places);
    if (rc) return rc;
    if (!is_word(&ps->t, "after")) return need_end(ps, "after redact", NULL);
    s->redacts = true;
    uint8_t flags = 0;
    rc = take(ps);
    if (rc == ERR_OK) rc = need_word(ps, "redact");
    if (rc == ERR_OK) rc = parse_things(ps, true, &s->things, &flags, &s->thing_words);
    return rc ? rc : need_end(ps, NULL, NULL);
}

static err_code parse_never(parser *ps, sentence *s) {
    err_code rc = parse_what(ps, &s->levels, &s->flags, false, NULL);
    if (rc) return rc;
    if (!is_word(&ps->t, "outside")) {
        choices c = {0};
        may(&c, "outside");
        may_show(&c, "','");
        return fail_here(ps, &c);
    }
    rc = take(ps);
    if (rc == ERR_OK) rc = parse_places(ps, &s->places);
    return rc ? rc : need_end(ps, NULL, NULL);
}

static err_code parse_treat(parser *ps, sentence *s) {
    s->detector_error = is_word(&ps->t, "detector-error");
    if (!s->detector_error && !is_word(&ps->t, "unlabelled")) {
        choices c = {0};
        may(&c, "unlabelled");
        may(&c, "detector-error");
        return fail_here(ps, &c);
    }
    err_code rc = take(ps);
    if (rc == ERR_OK) rc = need_word(ps, "as");
    if (rc == ERR_OK) rc = parse_level(ps, &s->level);
    if (rc) return rc;
    choices c = {0};
    may_show(&c, "the end of the sentence");
    return at_end(ps) ? ERR_OK : fail_here(ps, &c);
}

static err_code parse_raise(parser *ps, sentence *s) {
    err_code rc = need_word(ps, "to");
    if (rc == ERR_OK) rc = parse_level(ps, &s->level);
    if (rc == ERR_OK) rc = need_word(ps, "when");
    if (rc == ERR_OK) rc = need_word(ps, "found");
    if (rc == ERR_OK) rc = parse_things(ps, false, &s->things, &s->flags, &s->thing_words);
    return rc ? rc : need_end(ps, NULL, NULL);
}

static err_code parse_sentence(parser *ps) {
    static const struct {
        const char *word;
        sentence_kind kind;
        err_code (*parse)(parser *ps, sentence *s);
    } kinds[] = {{"zone", SENTENCE_ZONE, parse_zone},
                 {"allow", SENTENCE_ALLOW, parse_allow},
                 {"never", SENTENCE_NEVER, parse_never},
                 {"treat", SENTENCE_TREAT, parse_treat},
                 {"raise", SENTENCE_RAISE, parse_raise}};
    size_t k = 0, n = sizeof kinds / sizeof kinds[0];
    while (k < n && !is_word(&ps->t, kinds[k].word)) k++;
    if (k == n) {
        choices c = {0};
        for (k = 0; k < n; k++) may(&c, kinds[k].word);
        return fail_here(ps, &c);
    }
    if (ps->p->n_sentences == SENTENCES_MAX)
        return fail_at(ps, ps->t.line, ps->t.column, "a policy has 2000 sentences at most");
    sentence *s = arena_alloc(ps->a, sizeof *s);
    if (!s) return nomem(ps);
    const char *from = ps->t.from;
    s->kind = kinds[k].kind;
    s->line = ps->t.line;
    err_code rc = take(ps);
    if (rc == ERR_OK) rc = kinds[k].parse(ps, s);
    if (rc) return rc;
    s->text = arena_strndup(ps->a, from, (size_t)(ps->prev - from));
    if (!s->text) return nomem(ps);
    *ps->last = s;
    ps->last = &s->next;
    ps->p->n_sentences++;
    return ERR_OK;
}

/* Zones may be used before they are defined: order means nothing. */
static err_code resolve(parser *ps, place *list) {
    for (; list; list = list->next) {
        if (list->kind != PLACE_ZONE) continue;
        const zone *z = ps->p->zones;
        while (z && strcmp(z->name, list->name) != 0) z = z->next;
        if (z) {
            list->zone = z;
            continue;
        }
        choices c = {0};
        may_places(ps, &c);
        ps->t = (token){
            .kind = TOKEN_WORD, .s = list->name, .n = strlen(list->name), .line = list->line, .column = list->column};
        return fail_here(ps, &c);
    }
    return ERR_OK;
}

static err_code parse_text(parser *ps) {
    err_code rc = take(ps);
    while (rc == ERR_OK && ps->t.kind != TOKEN_EOF) rc = ps->t.kind == TOKEN_END ? take(ps) : parse_sentence(ps);
    for (sentence *s = ps->p->sentences; rc == ERR_OK && s; s = s->next) rc = resolve(ps, s->places);
    return rc;
}

/* What follows from all sentences together. */
static void settle(policy *p) {
    uint8_t level[2] = {0, 0};
    bool said[2] = {false, false};
    for (const sentence *s = p->sentences; s; s = s->next) {
        if (s->kind != SENTENCE_TREAT) continue;
        bool k = s->detector_error;
        said[k] = true;
        if (s->level > level[k]) level[k] = s->level;
    }
    uint8_t top = (uint8_t)(p->labels.n - 1);
    p->unlabelled = said[0] ? level[0] : top;
    p->detector_error = said[1] ? level[1] : top;
    unsigned n = detector_entities(p->d);
    for (unsigned i = 0; i < n; i++)
        for (unsigned f = 0; f < FLAGS_N; f++)
            if (detector_entity(p->d, i)->flags & (1u << f)) entity_set_add(&p->carries[f], i);
}

static void make_digest(policy *p) {
    static const char head[] = "polder policy\n";
    sha256 h;
    sha256_init(&h);
    sha256_update(&h, head, sizeof head - 1);
    for (int i = 0; i < p->labels.n; i++) {
        sha256_update(&h, p->labels.name[i], strlen(p->labels.name[i]));
        sha256_update(&h, i + 1 < p->labels.n ? "," : "\n", 1);
    }
    sha256_update(&h, p->text, p->n);
    sha256_final(&h, p->digest);
}

err_code policy_parse(policy **out, const label_set *labels, const detector *d, const char *text, size_t n,
                      const char *name, err *e) {
    *out = NULL;
    if (n > POLICY_BYTES_MAX) return err_set(e, ERR_USAGE, "%s: a policy has 256 KiB at most", name);
    if (!labels->n) return err_set(e, ERR_USAGE, "%s: the island has no levels that a policy could speak of", name);
    arena *a = arena_new(POLICY_ARENA_BYTES);
    policy *p = a ? arena_alloc(a, sizeof *p) : NULL;
    char *copy = p ? arena_strndup(a, text, n) : NULL;
    if (!copy) {
        arena_free(a);
        return err_nomem(e, "a policy");
    }
    *p = (policy){.arena = a, .labels = *labels, .d = d, .text = copy, .n = n};
    parser ps = {.p = p, .a = a, .e = e, .last = &p->sentences, .last_zone = &p->zones};
    lexer_init(&ps.x, name, p->text, n);
    err_code rc = parse_text(&ps);
    if (rc) {
        arena_free(a);
        return rc;
    }
    settle(p);
    make_digest(p);
    *out = p;
    return ERR_OK;
}

void policy_free(policy *p) {
    if (p) arena_free(p->arena);
}

/* ---- statements for policy_prove --------------------------------------------------------------------------- */

static err_code parse_statement(parser *ps, statement *st) {
    err_code rc = parse_what(ps, &st->levels, &st->flags, true, &st->anything);
    if (rc == ERR_OK) rc = need_word(ps, "never");
    if (rc) return rc;
    if (!is_word(&ps->t, "leaves") && !is_word(&ps->t, "reaches")) {
        choices c = {0};
        may(&c, "leaves");
        may(&c, "reaches");
        return fail_here(ps, &c);
    }
    st->kind = is_word(&ps->t, "leaves") ? SUBJECT_LEAVES : SUBJECT_REACHES;
    rc = take(ps);
    if (rc == ERR_OK) rc = parse_places(ps, &st->places);
    if (rc == ERR_OK) rc = resolve(ps, st->places);
    if (rc) return rc;
    if (st->kind == SUBJECT_REACHES || !is_word(&ps->t, "without"))
        return need_end(ps, st->kind == SUBJECT_LEAVES ? "without redact" : NULL, NULL);
    st->without = true;
    uint8_t flags = 0;
    word_item *words = NULL;
    rc = take(ps);
    if (rc == ERR_OK) rc = need_word(ps, "redact");
    if (rc == ERR_OK) rc = parse_things(ps, true, &st->things, &flags, &words);
    return rc ? rc : need_end(ps, NULL, NULL);
}

err_code statement_parse(statement *out, const policy *p, arena *a, const char *text, err *e) {
    *out = (statement){0};
    policy view = *p; /* the parser writes to no policy here, but is not told so */
    parser ps = {.p = &view, .a = a, .e = e};
    size_t n = strlen(text);
    if (n > 4096) return err_set(e, ERR_USAGE, "statement: longer than 4096 bytes");
    lexer_init(&ps.x, "statement", text, n);
    err_code rc = take(&ps);
    return rc ? rc : parse_statement(&ps, out);
}
