/* Random policies against a second evaluator, which knows only the sentences and the facts of one provider at a time,
 * and against every provider of a small world.
 *
 * The second evaluator works on a description of the policy that the generator made beside the text; it shares no line
 * with the parser, the table or the search. */
#include "harness.h"

#include "data/policy_internal.h"

static label_set labels;
static detector *words;

/* ---- random ------------------------------------------------------------------------------------------------ */

static uint64_t seed = 0x9E3779B97F4A7C15u;

static unsigned below(unsigned n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed * 0x2545F4914F6CDD1Du >> 33) % n);
}

/* ---- a policy as the generator means it -------------------------------------------------------------------- */

enum { M_ZONES = 4, M_CONDS = 3, M_SENTENCES = 12, M_PLACES = 3, M_VALUES = 3 };

typedef struct m_cond { /* kind: index into facts[] below; a bit for each value that it accepts */
    unsigned fact, accepts;
} m_cond;
typedef struct m_zone {
    unsigned n;
    m_cond c[M_CONDS];
} m_zone;
typedef struct m_place {
    int kind, which; /* 0 on-prem, 1 any, 2 zone, 3 provider */
} m_place;
typedef struct m_sentence {
    int kind;                       /* 0 allow, 1 never */
    unsigned levels, flags, redact; /* redact: a bit for email, phone, secret-key */
    unsigned n;
    m_place p[M_PLACES];
} m_sentence;
typedef struct m_policy {
    unsigned n_zones, n;
    m_zone z[M_ZONES];
    m_sentence s[M_SENTENCES];
} m_policy;

/* Facts of the small world: value 0 is "not known" (of inside: no). To a condition a value that nobody names is the
 * same as one that is not known, so these are all the cases that the policies made here can tell apart. */
enum { F_COUNTRY, F_LAW, F_TRAINING, F_DAYS, F_INSIDE, F_OPERATOR, F_CERT, F_N };
static const char *const countries[] = {"", "DE", "NO", "US", "AT"}; /* AT: accepted by "EEA" only, never named */
enum { EEA = 1 << 1 | 1 << 2 | 1 << 4 };
static const char *const operators[] = {"", "Alpha", "Beta Inc", "Gamma"};
static const char *const certs[] = {"", "X", "SOC 2", "X, SOC 2"};
static const int days[] = {-1, 0, 10, 40};
static const unsigned n_values[F_N] = {5, 5, 3, 4, 2, 4, 4};

typedef struct m_provider {
    unsigned v[F_N];
    const char *name;
    bool engine;
} m_provider;

static provider_facts facts_of(const m_provider *m) {
    provider_facts f = m->engine ? provider_facts_engine : provider_facts_unknown(m->name);
    snprintf(f.country, sizeof f.country, "%s", countries[m->v[F_COUNTRY]]);
    snprintf(f.operator_law, sizeof f.operator_law, "%s", countries[m->v[F_LAW]]);
    snprintf(f.operator_name, sizeof f.operator_name, "%s", operators[m->v[F_OPERATOR]]);
    snprintf(f.certificates, sizeof f.certificates, "%s", certs[m->v[F_CERT]]);
    f.training = (int8_t)((int)m->v[F_TRAINING] - 1);
    f.retention_days = days[m->v[F_DAYS]];
    f.inside = m->engine || m->v[F_INSIDE];
    return f;
}

static void write_cond(const m_cond *c, buf *b) {
    unsigned n = 0;
    switch (c->fact) {
    case F_COUNTRY:
    case F_LAW:
        buf_printf(b, "%s in ", c->fact == F_LAW ? "operator-law" : "jurisdiction");
        if (c->accepts == EEA) {
            buf_puts(b, "EEA");
            return;
        }
        for (unsigned i = 1; i < 4; i++)
            if (c->accepts >> i & 1) buf_printf(b, "%s%s", n++ ? ", " : "", countries[i]);
        return;
    case F_TRAINING: buf_printf(b, "training = %s", c->accepts & 4 ? "yes" : "no"); return;
    case F_INSIDE: buf_printf(b, "inside = %s", c->accepts & 2 ? "yes" : "no"); return;
    case F_DAYS:
        buf_printf(b, "retention <= %d%s", c->accepts & 8 ? 40 : c->accepts & 4 ? 10 : 0, below(2) ? " days" : "");
        return;
    case F_OPERATOR:
        buf_puts(b, "operator in ");
        for (unsigned i = 1; i < 4; i++)
            if (c->accepts >> i & 1) buf_printf(b, "%s\"%s\"", n++ ? "," : "", operators[i]);
        return;
    default: /* certificates: accepts has bits of X (1) and SOC 2 (2) */
        buf_puts(b, "certificates in ");
        if (c->accepts & 1) buf_printf(b, "X%s", c->accepts & 2 ? ", " : "");
        if (c->accepts & 2) buf_puts(b, "\"SOC 2\"");
    }
}

static m_cond random_cond(void) {
    m_cond c = {.fact = below(F_N)};
    switch (c.fact) {
    case F_TRAINING: c.accepts = below(2) ? 4 : 2; break;
    case F_INSIDE: c.accepts = below(2) ? 2 : 1; break;
    case F_DAYS: c.accepts = below(3) == 0 ? 2 : below(2) ? 6 : 14; break;
    case F_CERT: c.accepts = 1 + below(3); break;
    case F_OPERATOR: c.accepts = (1 + below(7)) << 1; break;
    default: c.accepts = below(3) ? (1 + below(7)) << 1 : EEA; break;
    }
    return c;
}

static bool m_cond_holds(const m_cond *c, const m_provider *p) {
    unsigned v = p->v[c->fact];
    if (c->fact == F_INSIDE) return c->accepts >> (p->engine || v) & 1;
    if (c->fact == F_CERT) return (v & c->accepts) != 0; /* 1: X, 2: SOC 2, 3: both */
    return v != 0 && (c->accepts >> v & 1);
}

static const char *const names[] = {"engine", "p1", "p2", "p3"};

static bool m_place_has(const m_policy *m, m_place at, const m_provider *p) {
    if (at.kind == 0) return p->engine || p->v[F_INSIDE];
    if (at.kind == 1) return true;
    if (at.kind == 3) return strcmp(names[at.which], p->name) == 0;
    for (unsigned i = 0; i < m->z[at.which].n; i++)
        if (!m_cond_holds(&m->z[at.which].c[i], p)) return false;
    return true;
}

static bool m_in(const m_policy *m, const m_sentence *s, const m_provider *p) {
    for (unsigned i = 0; i < s->n; i++)
        if (m_place_has(m, s->p[i], p)) return true;
    return false;
}

/* What the sentences say of one cell and one provider: read off policy.h, nothing shared with the table. */
static bool m_allowed(const m_policy *m, unsigned level, unsigned flags, const m_provider *p, unsigned *redact) {
    bool reached = false;
    *redact = 0;
    for (unsigned i = 0; i < m->n; i++) {
        const m_sentence *s = &m->s[i];
        if (s->kind == 0 && (s->levels >> level & 1) && m_in(m, s, p)) {
            reached = true;
            *redact |= s->redact;
        }
    }
    for (unsigned i = 0; i < m->n; i++) {
        const m_sentence *s = &m->s[i];
        if (s->kind == 1 && ((s->levels >> level & 1) || (s->flags & flags)) && !m_in(m, s, p)) return false;
    }
    return reached;
}

static m_place random_place(const m_policy *m) {
    unsigned k = below(8);
    if (k == 0) return (m_place){1, 0};
    if (k < 3) return (m_place){0, 0};
    if (k == 3) return (m_place){3, (int)below(4)};
    return m->n_zones ? (m_place){2, (int)below(m->n_zones)} : (m_place){0, 0};
}

static m_policy random_policy(void) {
    m_policy m = {.n_zones = below(M_ZONES + 1)};
    for (unsigned i = 0; i < m.n_zones; i++) {
        m.z[i].n = 1 + below(M_CONDS);
        for (unsigned k = 0; k < m.z[i].n; k++) m.z[i].c[k] = random_cond();
    }
    m.n = below(M_SENTENCES + 1);
    for (unsigned i = 0; i < m.n; i++) {
        m_sentence *s = &m.s[i];
        s->kind = below(3) == 0;
        s->levels = below(4) == 0 && s->kind == 0 ? 15 : 1u << below(4) | (below(3) == 0) << below(4);
        if (s->kind && below(2)) s->flags = 1 + below(7);
        if (s->kind && s->flags && below(2)) s->levels = 0;
        if (!s->kind && below(3) == 0) s->redact = 1 + below(7);
        s->n = 1 + below(M_PLACES);
        for (unsigned k = 0; k < s->n; k++) s->p[k] = random_place(&m);
    }
    return m;
}

/* ---- its text ---------------------------------------------------------------------------------------------- */

static void write_place(m_place at, buf *b) {
    if (at.kind == 0) buf_puts(b, "on-prem");
    if (at.kind == 1) buf_puts(b, "any provider");
    if (at.kind == 2) buf_printf(b, "z%d", at.which);
    if (at.kind == 3) buf_printf(b, "provider %s", names[at.which]);
}

static void write_sentence(const m_sentence *s, buf *b) {
    unsigned n = 0;
    static const char *const things[] = {"email", "phone", "secret-key"};
    buf_puts(b, s->kind ? "never " : "allow ");
    if (!s->kind && s->levels == 15 && below(2)) {
        buf_puts(b, "any label");
    } else {
        for (unsigned i = 0; i < 4; i++)
            if (s->levels >> i & 1) buf_printf(b, "%s%s", n++ ? ", " : "", labels.name[i]);
        for (unsigned i = 0; i < 3; i++)
            if (s->flags >> i & 1) buf_printf(b, "%s%s", n++ ? ", " : "", flag_name(1u << i));
    }
    buf_puts(b, s->kind ? " outside " : " to ");
    for (unsigned i = 0; i < s->n; i++) {
        buf_puts(b, i ? ", " : "");
        write_place(s->p[i], b);
    }
    n = 0;
    for (unsigned i = 0; i < 3; i++)
        if (s->redact >> i & 1) buf_printf(b, "%s%s", n++ ? ", " : " after redact ", things[i]);
    buf_puts(b, below(4) ? "\n" : " ; ");
}

/* Sentences and zones in a random order. */
static void write_policy(const m_policy *m, buf *b) {
    unsigned order[M_SENTENCES + M_ZONES] = {0}, total = m->n + m->n_zones;
    for (unsigned i = 0; i < total; i++) {
        unsigned k = below(i + 1);
        order[i] = order[k];
        order[k] = i;
    }
    for (unsigned i = 0; i < total; i++) {
        if (order[i] < m->n) {
            write_sentence(&m->s[order[i]], b);
            continue;
        }
        const m_zone *z = &m->z[order[i] - m->n];
        buf_printf(b, "zone z%u = providers where ", order[i] - m->n);
        for (unsigned k = 0; k < z->n; k++) {
            buf_puts(b, k ? " and " : "");
            write_cond(&z->c[k], b);
        }
        buf_putc(b, '\n');
    }
}

static policy *make(const m_policy *m) {
    buf b = {.max = 1 << 20};
    policy *p = NULL;
    err e = {0};
    write_policy(m, &b);
    if (policy_parse(&p, &labels, words, buf_str(&b), b.len, "random", &e))
        fprintf(stderr, "%s\n%s\n", e.msg, buf_str(&b));
    buf_free(&b);
    return p;
}

static void random_providers(m_provider *m, provider_facts *f) {
    for (unsigned i = 0; i < 4; i++) {
        m[i] = (m_provider){.name = names[i], .engine = i == 0};
        for (unsigned k = 0; k < F_N; k++) m[i].v[k] = i ? below(n_values[k]) : 0;
        f[i] = facts_of(&m[i]);
    }
}

static policy_table *table_of(const m_policy *m, const provider_facts *f) {
    policy *p = make(m);
    policy_table *t = NULL;
    if (p && policy_compile(&t, p, f, 4, NULL)) t = NULL;
    policy_free(p);
    return t;
}

/* ---- the properties ---------------------------------------------------------------------------------------- */

static unsigned redact_bits(const entity_set *s) {
    return (unsigned)(entity_set_has(s, ENT_EMAIL) | entity_set_has(s, ENT_PHONE) << 1 |
                      entity_set_has(s, ENT_API_KEY) << 2);
}

static int rounds(int n) {
    const char *s = getenv("POLDER_POLICIES");
    return s ? atoi(s) : n;
}

/* Breaks: any difference between the table and what the sentences say, cell by cell, in any order of sentences. */
TEST(table_is_what_the_sentences_say) {
    long open = 0, shut = 0;
    for (int round = 0; round < rounds(20000); round++) {
        m_policy m = random_policy();
        m_provider who[4];
        provider_facts f[4];
        random_providers(who, f);
        policy_table *t = table_of(&m, f), *again = table_of(&m, f);
        CHECK(t && again);
        for (unsigned level = 0; level < 4; level++)
            for (unsigned flags = 0; flags < 8; flags++) {
                sensitivity v = {.level = (uint8_t)level, .flags = (uint8_t)flags};
                uint64_t bits = policy_allowed(t, v);
                if (bits != policy_allowed(again, v)) FAIL("round %d: the order of sentences matters", round);
                for (unsigned i = 0; i < 4; i++) {
                    unsigned redact;
                    bool want = m_allowed(&m, level, flags, &who[i], &redact);
                    if ((bits >> i & 1) != want)
                        FAIL("round %d: level %u flags %u provider %u", round, level, flags, i);
                    if (want && redact_bits(policy_redactions(t, v, i)) != redact)
                        FAIL("round %d: level %u provider %u redacts otherwise", round, level, i);
                    if (want)
                        open++;
                    else
                        shut++;
                }
            }
        policy_table_free(t);
        policy_table_free(again);
    }
    printf("     %ld cells open, %ld shut\n", open, shut);
    CHECK(open > shut / 20 && shut > open / 20); /* the generator makes both */
}

static bool opens(const policy_table *before, const policy_table *after) {
    for (unsigned level = 0; level < 4; level++)
        for (unsigned flags = 0; flags < 8; flags++) {
            sensitivity v = {.level = (uint8_t)level, .flags = (uint8_t)flags};
            if (policy_allowed(after, v) & ~policy_allowed(before, v)) return true;
        }
    return false;
}

/* Breaks: a `never` that opens, an `allow` whose absence opens, an unknown fact that opens. */
TEST(what_can_only_close) {
    for (int round = 0; round < rounds(20000) / 4; round++) {
        m_policy m = random_policy(), one = m;
        m_provider who[4];
        provider_facts f[4], g[4];
        random_providers(who, f);
        policy_table *t = table_of(&m, f), *u;
        CHECK(t);
        if (m.n < M_SENTENCES) { /* one never more */
            m_sentence *s = &one.s[one.n++];
            *s = (m_sentence){.kind = 1, .levels = 1u << below(4), .flags = below(8), .n = 1};
            s->p[0] = random_place(&m);
            u = table_of(&one, f);
            CHECK(u);
            if (opens(t, u)) FAIL("round %d: a never opened a cell", round);
            policy_table_free(u);
        }
        one = m;
        for (unsigned i = 0; i < m.n; i++) { /* each allow away */
            if (m.s[i].kind) continue;
            one = m;
            one.s[i] = one.s[--one.n];
            u = table_of(&one, f);
            CHECK(u);
            if (opens(t, u)) FAIL("round %d: a cell opened because an allow is gone", round);
            policy_table_free(u);
            break;
        }
        unsigned who_lost = 1 + below(3), fact_lost = below(F_N);
        if (fact_lost != F_INSIDE) { /* inside is always known; "inside = no" may ask for it */
            memcpy(g, f, sizeof g);
            who[who_lost].v[fact_lost] = 0;
            g[who_lost] = facts_of(&who[who_lost]);
            u = table_of(&m, g);
            CHECK(u);
            if (opens(t, u)) FAIL("round %d: a cell opened because a fact is not known", round);
            policy_table_free(u);
        }
        policy_table_free(t);
    }
}

/* ---- statements -------------------------------------------------------------------------------------------- */

typedef struct m_statement {
    unsigned levels, flags, things;
    bool reaches;
    m_place at;
} m_statement;

static void write_statement(const m_statement *s, buf *b) {
    static const char *const things[] = {"email", "phone", "secret-key"};
    unsigned n = 0;
    for (unsigned i = 0; i < 4; i++)
        if (s->levels >> i & 1) buf_printf(b, "%s%s", n++ ? ", " : "", labels.name[i]);
    for (unsigned i = 0; i < 3; i++)
        if (s->flags >> i & 1) buf_printf(b, "%s%s", n++ ? ", " : "", flag_name(1u << i));
    buf_printf(b, " never %s ", s->reaches ? "reaches" : "leaves");
    write_place(s->at, b);
    n = 0;
    for (unsigned i = 0; i < 3; i++)
        if (s->things >> i & 1) buf_printf(b, "%s%s", n++ ? ", " : " without redact ", things[i]);
}

static bool m_breaks(const m_policy *m, const m_statement *s, unsigned level, unsigned flags, const m_provider *p) {
    unsigned redact;
    if (!(s->levels >> level & 1) && !(s->flags & flags)) return false;
    if (!m_allowed(m, level, flags, p, &redact)) return false;
    bool in = m_place_has(m, s->at, p);
    if (s->reaches) return in;
    return !in && (!s->things || (s->things & ~redact));
}

static bool breaks_anywhere(const m_policy *m, const m_statement *s, const m_provider *p) {
    for (unsigned level = 0; level < 4; level++)
        for (unsigned flags = 0; flags < 8; flags++)
            if (m_breaks(m, s, level, flags, p)) return true;
    return false;
}

/* Every provider of the small world, under each name: 4 of the policy's (but "engine") and one of nobody's. */
static bool breaks_for_somebody(const m_policy *m, const m_statement *s) {
    static const char *const all[] = {"p1", "p2", "p3", "other"};
    m_provider p = {0};
    for (unsigned name = 0; name < 4; name++) {
        unsigned total = 1;
        for (unsigned k = 0; k < F_N; k++) total *= n_values[k];
        for (unsigned code = 0; code < total; code++) {
            unsigned rest = code;
            p.name = all[name];
            for (unsigned k = 0; k < F_N; k++) {
                p.v[k] = rest % n_values[k];
                rest /= n_values[k];
            }
            if (breaks_anywhere(m, s, &p)) return true;
        }
    }
    return false;
}

static m_statement random_statement(const m_policy *m) {
    m_statement s = {.levels = 1u << below(4), .at = random_place(m)};
    if (below(3) == 0) s.flags = 1u << below(3);
    if (s.flags && below(2)) s.levels = 0;
    s.reaches = below(4) == 0;
    if (!s.reaches && below(3) == 0) s.things = 1 + below(7);
    return s;
}

static bool json_true(const cJSON *o, const char *key) {
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o, key));
}

/* Does the provider that the proof names break the statement, by the table? */
static bool witness_breaks(const policy *p, const cJSON *o, const char *claim) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(o, "undeclared"), *w;
    cJSON_ArrayForEach(w, list) {
        const cJSON *f = cJSON_GetObjectItemCaseSensitive(w, "provider");
        provider_facts g[2] = {provider_facts_engine,
                               provider_facts_unknown(cJSON_GetObjectItemCaseSensitive(f, "name")->valuestring)};
        static const struct {
            const char *key;
            size_t at, cap;
        } texts[] = {{"driver", offsetof(provider_facts, driver), 16},
                     {"jurisdiction", offsetof(provider_facts, country), 3},
                     {"operator", offsetof(provider_facts, operator_name), 120},
                     {"operator-law", offsetof(provider_facts, operator_law), 3},
                     {"certificates", offsetof(provider_facts, certificates), 200},
                     {"contract", offsetof(provider_facts, contract), 200}};
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            const cJSON *v = cJSON_GetObjectItemCaseSensitive(f, texts[i].key);
            if (cJSON_IsString(v)) snprintf((char *)&g[1] + texts[i].at, texts[i].cap, "%s", v->valuestring);
        }
        const cJSON *training = cJSON_GetObjectItemCaseSensitive(f, "training");
        const cJSON *kept = cJSON_GetObjectItemCaseSensitive(f, "retention");
        g[1].training = (int8_t)(cJSON_IsNull(training) ? -1 : cJSON_IsTrue(training));
        g[1].retention_days = cJSON_IsNumber(kept) ? kept->valueint : -1;
        g[1].inside = json_true(f, "inside");
        cJSON *again = NULL;
        err e = {0};
        (void)policy_prove(p, g, 2, claim, &again, &e);
        bool found = false;
        const cJSON *cell, *cells = cJSON_GetObjectItemCaseSensitive(again, "cells");
        const char *label = cJSON_GetObjectItemCaseSensitive(w, "label")->valuestring;
        cJSON_ArrayForEach(cell, cells) found =
            found || (strcmp(cJSON_GetObjectItemCaseSensitive(cell, "label")->valuestring, label) == 0 &&
                      strcmp(cJSON_GetObjectItemCaseSensitive(cell, "provider")->valuestring, g[1].name) == 0);
        cJSON_Delete(again);
        if (!found) return false;
    }
    return true;
}

/* Breaks: a proof that says yes where a provider of the small world breaks the statement, or no without one (the small
 * world holds a value for each case that its policies can tell apart); a witness that is none. */
TEST(proofs_agree_with_every_provider) {
    int held = 0, broke = 0, only_declared = 0;
    for (int round = 0; round < rounds(20000) / 50; round++) {
        m_policy m = random_policy();
        m_provider who[4];
        provider_facts f[4];
        random_providers(who, f);
        m_statement s = random_statement(&m);
        buf b = {.max = 4096};
        write_statement(&s, &b);
        policy *p = make(&m);
        CHECK(p);
        cJSON *o = NULL;
        err e = {0};
        err_code rc = policy_prove(p, f, 4, buf_str(&b), &o, &e);
        if (rc != ERR_OK && rc != ERR_NO) FAIL("round %d: %s: %s", round, buf_str(&b), e.msg);
        bool declared = false;
        for (unsigned i = 0; i < 4; i++) declared = declared || breaks_anywhere(&m, &s, &who[i]);
        bool somebody = breaks_for_somebody(&m, &s);
        if (json_true(o, "holds_as_declared") == declared) FAIL("round %d: %s: as declared", round, buf_str(&b));
        bool undeclared = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(o, "undeclared")) > 0;
        if (undeclared != somebody)
            FAIL("round %d: %s: somebody breaks it: %d, the search says %d", round, buf_str(&b), somebody, undeclared);
        if ((rc == ERR_OK) != (!declared && !somebody)) FAIL("round %d: %s: the verdict", round, buf_str(&b));
        if (!witness_breaks(p, o, buf_str(&b))) FAIL("round %d: %s: a witness that breaks nothing", round, buf_str(&b));
        held += rc == ERR_OK;
        broke += rc != ERR_OK;
        only_declared += !declared && somebody;
        cJSON_Delete(o);
        policy_free(p);
        buf_free(&b);
    }
    printf("     %d hold, %d do not, %d of those only for providers that are not declared\n", held, broke,
           only_declared);
    CHECK(held > 20 && broke > 20 && only_declared > 10);
}

/* Breaks: an opening between two policies that is not seen for a provider that nobody has declared. */
TEST(openings_agree_with_every_provider) {
    static const char *const all[] = {"p1", "p2", "p3", "other"};
    int opened = 0, shut = 0;
    for (int round = 0; round < rounds(20000) / 1000; round++) {
        m_policy a = random_policy(), b = a;
        if (b.n) b.s[below(b.n)] = random_policy().s[0];
        for (unsigned i = 0; i < b.n;
             i++) /* places of the same zones; an empty sentence becomes one that says something */
            if (!b.s[i].n || (!b.s[i].levels && !b.s[i].flags)) b.s[i] = (m_sentence){.levels = 1, .n = 1};
        for (unsigned i = 0; i < b.n; i++)
            for (unsigned k = 0; k < b.s[i].n; k++)
                if (b.s[i].p[k].kind == 2 && b.s[i].p[k].which >= (int)b.n_zones) b.s[i].p[k] = (m_place){0, 0};
        policy *p = make(&a), *q = make(&b);
        CHECK(p && q);
        for (unsigned cell = 0; cell < 32; cell++) {
            bool want = false;
            m_provider who = {0};
            unsigned total = 1, redact;
            for (unsigned k = 0; k < F_N; k++) total *= n_values[k];
            for (unsigned code = 0; code < 4 * total && !want; code++) {
                unsigned rest = code / 4;
                who.name = all[code % 4];
                for (unsigned k = 0; k < F_N; k++) {
                    who.v[k] = rest % n_values[k];
                    rest /= n_values[k];
                }
                want = m_allowed(&b, cell >> 3, cell & 7, &who, &redact) &&
                       !m_allowed(&a, cell >> 3, cell & 7, &who, &redact);
            }
            uint64_t budget = CASE_BUDGET;
            case_answer got = CASE_UNDECIDED;
            provider_facts w;
            err e = {0};
            sensitivity v = {.level = (uint8_t)(cell >> 3), .flags = cell & 7};
            CHECK_OK(policy_opened_for(p, q, v, &budget, &got, &w, &e), e);
            if (got != (want ? CASE_FOUND : CASE_NONE))
                FAIL("round %d cell %u: opens %d, the search says %d", round, cell, want, (int)got);
            opened += want;
            shut += !want;
        }
        policy_free(p);
        policy_free(q);
    }
    printf("     %d cells open for somebody, %d for nobody\n", opened, shut);
    CHECK(opened > 20 && shut > 20);
}

int main(int argc, char **argv) {
    err e = {0};
    test_begin(argc, argv);
    if (label_set_parse(&labels, LABELS_DEFAULT, &e) || detector_new(&words, NULL, 0, NULL, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    if (getenv("POLDER_SEED")) seed = strtoull(getenv("POLDER_SEED"), NULL, 10) | 1;
    RUN(table_is_what_the_sentences_say);
    RUN(what_can_only_close);
    RUN(proofs_agree_with_every_provider);
    RUN(openings_agree_with_every_provider);
    detector_free(words);
    return test_end();
}
