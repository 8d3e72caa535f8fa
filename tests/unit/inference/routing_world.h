/* For tests of routing: random policies as text with their meaning beside it, random providers, and a second evaluator
 * that is as plain as the meaning in policy.h: it shares nothing with the code under test but the struct of facts. */
#ifndef POLDER_TESTS_ROUTING_WORLD_H
#define POLDER_TESTS_ROUTING_WORLD_H

#include "harness.h"

#include "inference/inference.h"

#include <stdarg.h>

/* ---- chance ------------------------------------------------------------------------------------------------ */

typedef struct dice {
    uint64_t s;
} dice;
static inline uint64_t roll(dice *d) { /* splitmix64 */
    uint64_t z = d->s += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static inline unsigned pick(dice *d, unsigned n) {
    return (unsigned)(roll(d) % n);
}
static inline bool chance(dice *d, unsigned percent) {
    return pick(d, 100) < percent;
}

/* ---- a world ----------------------------------------------------------------------------------------------- */

enum { W_COUNTRY, W_LAW, W_TRAINING, W_RETENTION, W_CERTIFICATES, W_INSIDE, W_DRIVER, W_CONTRACT, W_OPERATOR, W_NAME };
enum { W_ALLOW, W_NEVER, W_TREAT_UNLABELLED, W_TREAT_ERROR, W_RAISE };
enum { W_ON_PREM, W_ANY, W_PROVIDER, W_ZONE };

typedef struct w_condition {
    int fact, n, days;
    bool yes;
    const char *value[3];
} w_condition;
typedef struct w_zone {
    int n;
    w_condition c[3];
} w_zone;
typedef struct w_place {
    int kind, zone;
    const char *name;
} w_place;
typedef struct w_sentence {
    int kind, n_places, n_things;
    unsigned levels, flags, level;
    w_place places[3];
    const char *things[3];
} w_sentence;

typedef struct world {
    label_set labels;
    int n_zones, n_sentences;
    w_zone zones[4];
    w_sentence sentences[12];
    provider_facts providers[16];
    int n_providers;
    char text[8192];
    size_t len;
} world;

static const char *const w_countries[] = {"DE", "FR", "NO", "IS", "US", "CH", "GB", "IE"};
static const char *const w_places[] = {"EU", "EEA", "DE", "FR", "NO", "US", "CH"};
static const char w_eu[] = " AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE ";
static const char *const w_certificates[] = {"iso-27001", "c5", "soc-2"};
static const char *const w_words[] = {"alpha", "beta", "gamma"};
static const char *const w_names[] = {"engine", "p1",  "p2",  "p3",  "p4",  "p5",  "p6",  "p7",    "p8",
                                      "p9",     "p10", "p11", "p12", "p13", "p14", "p15", "nobody"};
static const char *const w_things[] = {"iban",     "email",      "health",          "api-key",    "phone",
                                       "bic",      "financial",  "contact",         "secret-key", "national-id",
                                       "personal", "credential", "special-category"};
#define COUNT_OF(a) (unsigned)(sizeof(a) / sizeof *(a))

__attribute__((format(printf, 2, 3))) static inline void w_put(world *w, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    w->len += (size_t)vsnprintf(w->text + w->len, sizeof w->text - w->len, fmt, ap);
    va_end(ap);
}

static inline void w_provider(dice *d, provider_facts *p, const char *name) {
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "%s", name);
    snprintf(p->driver, sizeof p->driver, "%s", chance(d, 60) ? "openai" : "anthropic");
    p->inside = chance(d, 20);
    if (chance(d, 70)) snprintf(p->country, sizeof p->country, "%s", w_countries[pick(d, COUNT_OF(w_countries))]);
    if (chance(d, 70))
        snprintf(p->operator_law, sizeof p->operator_law, "%s", w_countries[pick(d, COUNT_OF(w_countries))]);
    p->retention_days = chance(d, 70) ? (int32_t)pick(d, 4) * 15 : -1;
    p->training = (int8_t)((int)pick(d, 3) - 1);
    p->price_in = p->price_out = -1;
    if (chance(d, 60)) snprintf(p->contract, sizeof p->contract, "%s", w_words[pick(d, 3)]);
    if (chance(d, 60)) snprintf(p->operator_name, sizeof p->operator_name, "%s", w_words[pick(d, 3)]);
    if (chance(d, 60))
        snprintf(p->certificates, sizeof p->certificates, "%s%s%s", w_certificates[pick(d, 3)],
                 chance(d, 50) ? ", " : ",", w_certificates[pick(d, 3)]);
}

static inline void w_condition_make(dice *d, world *w, w_condition *c) {
    static const char *const facts[] = {"jurisdiction", "operator-law", "training", "retention", "certificates",
                                        "inside",       "driver",       "contract", "operator",  "name"};
    c->fact = (int)pick(d, COUNT_OF(facts));
    w_put(w, "%s ", facts[c->fact]);
    if (c->fact == W_TRAINING || c->fact == W_INSIDE) {
        c->yes = chance(d, 50);
        w_put(w, "= %s", c->yes ? "yes" : "no");
        return;
    }
    if (c->fact == W_RETENTION) {
        c->days = (int)pick(d, 50);
        w_put(w, "<= %d days", c->days);
        return;
    }
    c->n = 1 + (int)pick(d, 3);
    w_put(w, c->n == 1 && chance(d, 50) ? "= " : "in ");
    for (int i = 0; i < c->n; i++) {
        c->value[i] = c->fact <= W_LAW            ? w_places[pick(d, COUNT_OF(w_places))]
                      : c->fact == W_CERTIFICATES ? w_certificates[pick(d, 3)]
                      : c->fact == W_DRIVER       ? (chance(d, 50) ? "openai" : "anthropic")
                      : c->fact == W_NAME         ? w_names[1 + pick(d, 15)]
                                                  : w_words[pick(d, 3)];
        w_put(w, "%s%s", i ? ", " : "", c->value[i]);
    }
}

static inline void w_places_make(dice *d, world *w, w_sentence *s) {
    s->n_places = 1 + (int)pick(d, 3);
    for (int i = 0; i < s->n_places; i++) {
        w_place *at = &s->places[i];
        at->kind = (int)pick(d, w->n_zones ? 4 : 3);
        if (at->kind == W_ANY && chance(d, 50)) at->kind = W_ON_PREM;
        if (i) w_put(w, ", ");
        if (at->kind == W_ON_PREM) w_put(w, "on-prem");
        if (at->kind == W_ANY) w_put(w, "any provider");
        if (at->kind == W_PROVIDER) w_put(w, "provider %s", at->name = w_names[pick(d, COUNT_OF(w_names))]);
        if (at->kind == W_ZONE) w_put(w, "zone%d", at->zone = (int)pick(d, (unsigned)w->n_zones));
    }
}

static inline void w_levels_make(dice *d, world *w, w_sentence *s, bool with_flags) {
    int n = 1 + (int)pick(d, 2);
    for (int i = 0; i < n; i++) {
        if (i) w_put(w, ", ");
        if (with_flags && chance(d, 50)) {
            unsigned flag = 1u << pick(d, 3);
            s->flags |= flag;
            w_put(w, "%s", flag_name(flag));
        } else {
            unsigned level = pick(d, w->labels.n);
            s->levels |= 1u << level;
            w_put(w, "%s", w->labels.name[level]);
        }
    }
}

static inline void w_things_make(dice *d, world *w, w_sentence *s, unsigned from) {
    static const unsigned redactable[] = {0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11}; /* special-category words are not */
    s->n_things = 1 + (int)pick(d, 3);
    for (int i = 0; i < s->n_things; i++) {
        s->things[i] = w_things[from ? redactable[pick(d, COUNT_OF(redactable))] : pick(d, COUNT_OF(w_things))];
        w_put(w, "%s%s", i ? ", " : "", s->things[i]);
    }
}

static inline void w_sentence_make(dice *d, world *w, w_sentence *s) {
    unsigned k = pick(d, 10);
    s->kind = k < 5 ? W_ALLOW : k < 7 ? W_NEVER : k < 8 ? W_TREAT_UNLABELLED : k < 9 ? W_TREAT_ERROR : W_RAISE;
    s->level = pick(d, w->labels.n);
    switch (s->kind) {
    case W_ALLOW:
        w_put(w, "allow ");
        if (chance(d, 20)) {
            s->levels = (1u << w->labels.n) - 1;
            w_put(w, "any label");
        } else {
            w_levels_make(d, w, s, false);
        }
        w_put(w, " to ");
        w_places_make(d, w, s);
        if (chance(d, 30)) {
            w_put(w, " after redact ");
            w_things_make(d, w, s, 1);
        }
        break;
    case W_NEVER:
        w_put(w, "never ");
        w_levels_make(d, w, s, true);
        w_put(w, " outside ");
        w_places_make(d, w, s);
        break;
    case W_TREAT_UNLABELLED: w_put(w, "treat unlabelled as %s", w->labels.name[s->level]); break;
    case W_TREAT_ERROR: w_put(w, "treat detector-error as %s", w->labels.name[s->level]); break;
    default: w_put(w, "raise to %s when found ", w->labels.name[s->level]); w_things_make(d, w, s, 0);
    }
    w_put(w, chance(d, 80) ? "\n" : " ; ");
}

static inline void world_make(dice *d, world *w) {
    static const char *const levels[] = {"open",         "open, closed",  "public, internal, secret",
                                         LABELS_DEFAULT, "a, b, c, d, e", "l1, l2, l3, l4, l5, l6, l7, l8"};
    memset(w, 0, sizeof *w);
    if (label_set_parse(&w->labels, levels[pick(d, COUNT_OF(levels))], NULL) != ERR_OK) abort();
    w->n_providers = 1 + (int)pick(d, 15);
    w->providers[0] = provider_facts_engine;
    for (int i = 1; i < w->n_providers; i++) w_provider(d, &w->providers[i], w_names[i]);
    w->n_zones = (int)pick(d, 4);
    for (int i = 0; i < w->n_zones; i++) {
        w->zones[i].n = 1 + (int)pick(d, 3);
        w_put(w, "zone zone%d = providers where ", i);
        for (int k = 0; k < w->zones[i].n; k++) {
            if (k) w_put(w, " and ");
            w_condition_make(d, w, &w->zones[i].c[k]);
        }
        w_put(w, "\n");
    }
    w->n_sentences = (int)pick(d, 12);
    for (int i = 0; i < w->n_sentences; i++) w_sentence_make(d, w, &w->sentences[i]);
}

/* ---- the second evaluator ---------------------------------------------------------------------------------- */

static inline bool e_country(const char *have, const char *want) {
    char word[5];
    snprintf(word, sizeof word, " %.2s ", have);
    bool eu = strstr(w_eu, word), efta = strstr(" IS LI NO ", word);
    if (strcmp(want, "EU") == 0) return eu;
    if (strcmp(want, "EEA") == 0) return eu || efta;
    return strcmp(have, want) == 0;
}

static inline bool e_condition(const w_condition *c, const provider_facts *p) {
    const char *text = c->fact == W_COUNTRY        ? p->country
                       : c->fact == W_LAW          ? p->operator_law
                       : c->fact == W_CERTIFICATES ? p->certificates
                       : c->fact == W_DRIVER       ? p->driver
                       : c->fact == W_CONTRACT     ? p->contract
                       : c->fact == W_OPERATOR     ? p->operator_name
                                                   : p->name;
    if (c->fact == W_TRAINING) return p->training >= 0 && (p->training == 1) == c->yes;
    if (c->fact == W_INSIDE) return p->inside == c->yes;
    if (c->fact == W_RETENTION) return p->retention_days >= 0 && p->retention_days <= c->days;
    if (!*text) return false; /* not known: outside */
    for (int i = 0; i < c->n; i++) {
        if (c->fact <= W_LAW            ? e_country(text, c->value[i])
            : c->fact == W_CERTIFICATES ? strstr(text, c->value[i]) != NULL /* none is a part of another */
                                        : strcmp(text, c->value[i]) == 0)
            return true;
    }
    return false;
}

static inline bool e_inside_of(const world *w, const w_sentence *s, const provider_facts *p) {
    for (int i = 0; i < s->n_places; i++) {
        const w_place *at = &s->places[i];
        bool in = at->kind == W_ANY || (at->kind == W_ON_PREM && p->inside) ||
                  (at->kind == W_PROVIDER && strcmp(at->name, p->name) == 0);
        if (at->kind == W_ZONE) {
            in = true;
            for (int k = 0; k < w->zones[at->zone].n; k++) in = in && e_condition(&w->zones[at->zone].c[k], p);
        }
        if (in) return true;
    }
    return false;
}

static inline uint64_t world_allowed(const world *w, sensitivity v) {
    uint64_t mask = 0;
    for (int i = 0; i < w->n_providers; i++) {
        bool allowed = false, forbidden = false;
        for (int k = 0; k < w->n_sentences; k++) {
            const w_sentence *s = &w->sentences[k];
            bool in = e_inside_of(w, s, &w->providers[i]), level = s->levels >> v.level & 1;
            if (s->kind == W_ALLOW && level && in) allowed = true;
            if (s->kind == W_NEVER && (level || (s->flags & v.flags)) && !in) forbidden = true;
        }
        if (allowed && !forbidden) mask |= (uint64_t)1 << i;
    }
    return mask;
}

typedef struct e_entity {
    const char *name, *group;
    unsigned flags;
} e_entity;
static const e_entity e_entities[] = {
#define X(id, name, group, flags, word) {name, group, flags},
    ENTITY_TABLE(X)
#undef X
};

static inline bool e_thing_found(const char *thing, const entity_set *found, unsigned flags) {
    if (strcmp(thing, "personal") == 0) return flags & FLAG_PERSONAL;
    if (strcmp(thing, "special-category") == 0) return flags & FLAG_SPECIAL;
    if (strcmp(thing, "credential") == 0) return flags & FLAG_CREDENTIAL;
    for (unsigned i = 0; i < COUNT_OF(e_entities); i++)
        if (entity_set_has(found, i) &&
            (strcmp(e_entities[i].name, thing) == 0 || strcmp(e_entities[i].group, thing) == 0))
            return true;
    return false;
}

static inline sensitivity world_label(const world *w, sensitivity start, bool has_level, const entity_set *found,
                                      bool failed) {
    int unlabelled = -1, error = -1, top = w->labels.n - 1, level = start.level;
    unsigned flags = start.flags;
    for (int k = 0; k < w->n_sentences; k++) {
        const w_sentence *s = &w->sentences[k];
        if (s->kind == W_TREAT_UNLABELLED && (int)s->level > unlabelled) unlabelled = (int)s->level;
        if (s->kind == W_TREAT_ERROR && (int)s->level > error) error = (int)s->level;
    }
    for (unsigned i = 0; i < COUNT_OF(e_entities); i++)
        if (entity_set_has(found, i)) flags |= e_entities[i].flags;
    if (unlabelled < 0) unlabelled = top;
    if (error < 0) error = top;
    if (!has_level && unlabelled > level) level = unlabelled;
    if (failed && error > level) level = error;
    for (int k = 0; k < w->n_sentences; k++)
        for (int i = 0; w->sentences[k].kind == W_RAISE && i < w->sentences[k].n_things; i++)
            if (e_thing_found(w->sentences[k].things[i], found, flags) && (int)w->sentences[k].level > level)
                level = (int)w->sentences[k].level;
    return (sensitivity){(uint8_t)level, (uint8_t)flags};
}

#endif
