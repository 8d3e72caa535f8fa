/* Statements about a policy, proven or broken; and what opens between two policies for providers that nobody has
 * declared yet.
 *
 * A statement is looked at in every cell: each level with each of the 8 sets of flags. In each cell two questions:
 *  1. of the providers given: is one allowed that breaks it? (the table)
 *  2. could any provider be declared that is allowed and breaks it, whatever its facts? (policy_case.c)
 * It holds where both answers are no. Nothing is sampled.
 */
#include "data/policy_internal.h"

#include <string.h>

enum { NAMED_MAX = 200 }; /* cells that are written out of each kind; all are counted */

typedef struct proof {
    const policy *p;
    const provider_facts *providers;
    size_t n;
    statement st;
    policy_table *table;
    uint64_t budget;
    cJSON *cells, *undeclared, *undecided;
    size_t broken, worst, open, checked; /* cells */
    err *e;
} proof;

static bool concerns(const statement *st, sensitivity v) {
    return st->anything || (st->levels >> v.level & 1) || (st->flags & v.flags);
}

/* What of `wanted` is not in `got`. */
static entity_set lacks(const entity_set *wanted, const entity_set *got) {
    return (entity_set){{wanted->bits[0] & ~got->bits[0], wanted->bits[1] & ~got->bits[1]}};
}

static bool add_missing(cJSON *o, const proof *x, const entity_set *missing) {
    cJSON *a = cJSON_AddArrayToObject(o, "not_redacted");
    unsigned n = detector_entities(x->p->d), listed = 0;
    for (unsigned i = 0; a && i < n && listed < 100; i++) {
        if (!entity_set_has(missing, i)) continue;
        if (!report_add_str(a, detector_entity(x->p->d, i)->name)) return false;
        listed++;
    }
    return a != NULL;
}

/* ---- with the providers given ------------------------------------------------------------------------------ */

static bool breaks(const proof *x, sensitivity v, size_t i, entity_set *missing) {
    bool in = places_have(x->st.places, &x->providers[i], i == 0);
    if (x->st.kind == SUBJECT_REACHES) return in;
    if (in || !x->st.without) return !in;
    *missing = lacks(&x->st.things, policy_redactions(x->table, v, i));
    return !entity_set_empty(missing);
}

static err_code look_declared(proof *x, sensitivity v) {
    uint64_t allowed = policy_allowed(x->table, v);
    bool broken = false;
    for (size_t i = 0; i < x->n; i++) {
        entity_set missing = {{0}};
        if (!(allowed >> i & 1) || !breaks(x, v, i, &missing)) continue;
        if (!broken) x->broken++;
        broken = true;
        if (cJSON_GetArraySize(x->cells) >= NAMED_MAX) continue;
        cJSON *o = cJSON_CreateObject();
        bool ok = o && cJSON_AddItemToArray(x->cells, o) && report_label(o, x->p, v) &&
                  cJSON_AddStringToObject(o, "provider", x->providers[i].name) &&
                  report_allow_lines(o, x->p, v.level, &x->providers[i], i == 0);
        if (ok && x->st.without) ok = add_missing(o, x, &missing);
        if (!ok) return err_nomem(x->e, "a proof");
    }
    return ERR_OK;
}

/* ---- with every provider that could be --------------------------------------------------------------------- */

/* v's sentences: one of the places that an allow names (and that does not redact `thing`, where it is one), and each
 * never. */
static void ask_allowed(question *q, const policy *p, sensitivity v, int thing) {
    question_group(q);
    for (const sentence *s = p->sentences; s; s = s->next) {
        if (!sentence_allows(s, v.level)) continue;
        bool redacts = thing >= 0 && s->redacts && entity_set_has(&s->things, (unsigned)thing);
        if (redacts)
            question_outside(q, s->places);
        else
            question_in(q, s->places);
    }
    for (const sentence *s = p->sentences; s; s = s->next) {
        if (!sentence_forbids_outside(s, v)) continue;
        question_group(q);
        question_in(q, s->places);
    }
}

static err_code note_worst(proof *x, sensitivity v, case_answer a, const provider_facts *w, int thing) {
    if (a == CASE_UNDECIDED) {
        x->open++;
        cJSON *o = cJSON_CreateObject();
        bool ok = o && cJSON_AddItemToArray(x->undecided, o) && report_label(o, x->p, v);
        return ok ? ERR_OK : err_nomem(x->e, "a proof");
    }
    x->worst++;
    if (cJSON_GetArraySize(x->undeclared) >= NAMED_MAX) return ERR_OK;
    cJSON *o = cJSON_CreateObject(), *facts = cJSON_CreateObject();
    bool ok = o && cJSON_AddItemToArray(x->undeclared, o);
    ok =
        ok && facts && report_label(o, x->p, v) && report_facts(facts, w) && report_allow_lines(o, x->p, v.level, w, 0);
    if (ok && thing >= 0) {
        entity_set missing = {{0}};
        entity_set_add(&missing, (unsigned)thing);
        ok = add_missing(o, x, &missing);
    }
    if (!ok || !cJSON_AddItemToObject(o, "provider", facts)) {
        cJSON_Delete(facts);
        return err_nomem(x->e, "a proof");
    }
    return ERR_OK;
}

static err_code ask(proof *x, sensitivity v, int thing, bool *found) {
    question q = {0};
    case_answer a = CASE_NONE;
    provider_facts w;
    ask_allowed(&q, x->p, v, thing);
    if (x->st.kind == SUBJECT_REACHES) {
        question_group(&q);
        question_in(&q, x->st.places);
    } else {
        question_outside(&q, x->st.places);
    }
    err_code rc = question_answer(&q, &x->budget, &a, &w, x->e);
    question_free(&q);
    *found = a != CASE_NONE;
    return rc || !*found ? rc : note_worst(x, v, a, &w, thing);
}

/* Do the same sentences redact both? Then one answer is enough. */
static bool same_sentences(const policy *p, uint8_t level, unsigned a, unsigned b) {
    for (const sentence *s = p->sentences; s; s = s->next)
        if (sentence_allows(s, level) && s->redacts && entity_set_has(&s->things, a) != entity_set_has(&s->things, b))
            return false;
    return true;
}

static err_code look_worst(proof *x, sensitivity v) {
    bool found = false;
    if (!x->st.without) return ask(x, v, -1, &found);
    unsigned asked[ENT_MAX], n_asked = 0, n = detector_entities(x->p->d);
    for (unsigned i = 0; i < n && i < ENT_MAX && !found; i++) {
        bool again = !entity_set_has(&x->st.things, i);
        for (unsigned k = 0; k < n_asked && !again; k++) again = same_sentences(x->p, v.level, asked[k], i);
        if (again) continue;
        asked[n_asked++] = i;
        err_code rc = ask(x, v, (int)i, &found);
        if (rc) return rc;
    }
    return ERR_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------- */

static err_code look_everywhere(proof *x) {
    for (uint8_t level = 0; level < x->p->labels.n; level++)
        for (unsigned flags = 0; flags <= FLAGS_ALL; flags++) {
            sensitivity v = {.level = level, .flags = (uint8_t)flags};
            if (!concerns(&x->st, v)) continue;
            x->checked++;
            err_code rc = look_declared(x, v);
            if (rc == ERR_OK) rc = look_worst(x, v);
            if (rc) return rc;
        }
    return ERR_OK;
}

static bool begin_report(proof *x, cJSON *o, const char *text) {
    return o && cJSON_AddStringToObject(o, "statement", text) &&
           (x->cells = cJSON_AddArrayToObject(o, "cells")) != NULL &&
           (x->undeclared = cJSON_AddArrayToObject(o, "undeclared")) != NULL &&
           (x->undecided = cJSON_AddArrayToObject(o, "undecided")) != NULL;
}

static bool end_report(const proof *x, cJSON *o) {
    return cJSON_AddBoolToObject(o, "holds", !x->broken && !x->worst && !x->open) &&
           cJSON_AddBoolToObject(o, "holds_as_declared", !x->broken) &&
           cJSON_AddNumberToObject(o, "cells_checked", (double)x->checked) &&
           cJSON_AddNumberToObject(o, "cells_broken", (double)x->broken) &&
           cJSON_AddNumberToObject(o, "providers", (double)x->n);
}

static err_code verdict(const proof *x, const char *text) {
    const char *more = strlen(text) > 200 ? "…" : "";
    if (x->broken)
        return err_set(x->e, ERR_NO, "\"%.200s%s\" does not hold: %zu of %zu cells break it", text, more, x->broken,
                       x->checked);
    if (x->worst)
        return err_set(x->e, ERR_NO,
                       "\"%.200s%s\" holds for the providers declared now, but the sentences would let one be declared "
                       "that breaks it",
                       text, more);
    if (x->open)
        return err_set(x->e, ERR_NO, "\"%.200s%s\" could not be decided within the limits; it counts as not proven",
                       text, more);
    return ERR_OK;
}

err_code policy_prove(const policy *p, const provider_facts *providers, size_t n, const char *statement_text,
                      cJSON **out, err *e) {
    *out = NULL;
    proof x = {.p = p, .providers = providers, .n = n, .budget = CASE_BUDGET, .e = e};
    arena *a = arena_new((size_t)4 << 20);
    cJSON *o = cJSON_CreateObject();
    err_code rc = a ? statement_parse(&x.st, p, a, statement_text, e) : err_nomem(e, "a statement");
    if (rc == ERR_OK) rc = policy_compile(&x.table, p, providers, n, e);
    if (rc == ERR_OK && !begin_report(&x, o, statement_text)) rc = err_nomem(e, "a proof");
    if (rc == ERR_OK) rc = look_everywhere(&x);
    if (rc == ERR_OK && !end_report(&x, o)) rc = err_nomem(e, "a proof");
    policy_table_free(x.table);
    arena_free(a);
    if (rc) {
        cJSON_Delete(o);
        return rc;
    }
    *out = o;
    return verdict(&x, statement_text);
}

/* ---- between two policies ---------------------------------------------------------------------------------- */

/* Allowed by `to` and not by `from`: no allow of `from` reaches it, or one of its nevers keeps it out. */
static err_code ask_opened(const policy *from, const policy *to, sensitivity v, const sentence *barrier,
                           uint64_t *budget, case_answer *out, provider_facts *w, err *e) {
    question q = {0};
    ask_allowed(&q, to, v, -1);
    if (barrier) question_outside(&q, barrier->places);
    for (const sentence *s = from->sentences; !barrier && s; s = s->next)
        if (sentence_allows(s, v.level)) question_outside(&q, s->places);
    err_code rc = question_answer(&q, budget, out, w, e);
    question_free(&q);
    return rc;
}

err_code policy_opened_for(const policy *from, const policy *to, sensitivity v, uint64_t *budget, case_answer *out,
                           provider_facts *w, err *e) {
    err_code rc = ask_opened(from, to, v, NULL, budget, out, w, e);
    for (const sentence *s = from->sentences; rc == ERR_OK && *out == CASE_NONE && s; s = s->next)
        if (sentence_forbids_outside(s, v)) rc = ask_opened(from, to, v, s, budget, out, w, e);
    return rc;
}
