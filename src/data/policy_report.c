/* Why a request may go where it may; what differs between two policies; what in a policy deserves a second look. */
#include "data/policy_internal.h"

#include <stdio.h>
#include <string.h>

enum { TEXT_MAX = 16384 };

/* ---- pieces of JSON ---------------------------------------------------------------------------------------- */

bool report_add_str(cJSON *array, const char *s) {
    cJSON *v = cJSON_CreateString(s);
    if (v && cJSON_AddItemToArray(array, v)) return true;
    cJSON_Delete(v);
    return false;
}

static bool add_num(cJSON *array, double n) {
    cJSON *v = cJSON_CreateNumber(n);
    if (v && cJSON_AddItemToArray(array, v)) return true;
    cJSON_Delete(v);
    return false;
}

/* A text or null. */
static bool add_known(cJSON *o, const char *key, const char *s) {
    return (*s ? cJSON_AddStringToObject(o, key, s) : cJSON_AddNullToObject(o, key)) != NULL;
}

bool report_facts(cJSON *o, const provider_facts *f) {
    bool ok = cJSON_AddStringToObject(o, "name", f->name) && add_known(o, "driver", f->driver) &&
              add_known(o, "jurisdiction", f->country) && add_known(o, "operator", f->operator_name) &&
              add_known(o, "operator-law", f->operator_law) && cJSON_AddBoolToObject(o, "inside", f->inside);
    if (ok && f->training < 0) ok = cJSON_AddNullToObject(o, "training") != NULL;
    if (ok && f->training >= 0) ok = cJSON_AddBoolToObject(o, "training", f->training != 0) != NULL;
    if (ok && f->retention_days < 0) ok = cJSON_AddNullToObject(o, "retention") != NULL;
    if (ok && f->retention_days >= 0) ok = cJSON_AddNumberToObject(o, "retention", f->retention_days) != NULL;
    return ok && add_known(o, "certificates", f->certificates) && add_known(o, "contract", f->contract);
}

bool report_label(cJSON *o, const policy *p, sensitivity v) {
    char text[SENSITIVITY_TEXT];
    sensitivity_text(text, &p->labels, v);
    return cJSON_AddStringToObject(o, "label", text) != NULL;
}

static bool array_has(const cJSON *a, const char *s) {
    const cJSON *v;
    cJSON_ArrayForEach(v, a) if (strcmp(v->valuestring, s) == 0) return true;
    return false;
}

bool report_redact(cJSON *o, const char *key, const policy *p, uint8_t level, const provider_facts *f, bool first) {
    cJSON *a = cJSON_AddArrayToObject(o, key);
    for (const sentence *s = p->sentences; a && s; s = s->next) {
        if (!sentence_allows(s, level) || !s->redacts || !places_have(s->places, f, first)) continue;
        for (const word_item *w = s->thing_words; w; w = w->next)
            if (!array_has(a, w->s) && !report_add_str(a, w->s)) return false;
    }
    return a != NULL;
}

bool report_allow_lines(cJSON *o, const policy *p, uint8_t level, const provider_facts *f, bool first) {
    cJSON *a = cJSON_AddArrayToObject(o, "lines");
    unsigned last = 0;
    for (const sentence *s = p->sentences; a && s; s = s->next) {
        if (!sentence_allows(s, level) || s->line == last || !places_have(s->places, f, first)) continue;
        last = s->line;
        if (!add_num(a, s->line)) return false;
    }
    return a != NULL;
}

/* ---- why a place does not hold a provider ------------------------------------------------------------------ */

static void fact_value(fact f, const provider_facts *p, bool first, buf *out) {
    bool inside = p->inside || first;
    switch (f) {
    case FACT_NAME: buf_puts(out, p->name); return;
    case FACT_DRIVER: buf_puts(out, p->driver); return;
    case FACT_JURISDICTION: buf_puts(out, p->country); return;
    case FACT_OPERATOR: buf_puts(out, p->operator_name); return;
    case FACT_LAW: buf_puts(out, p->operator_law); return;
    case FACT_TRAINING: buf_puts(out, p->training ? "yes" : "no"); return;
    case FACT_RETENTION: buf_printf(out, "%d day%s", p->retention_days, p->retention_days == 1 ? "" : "s"); return;
    case FACT_CERTIFICATES: buf_puts(out, p->certificates); return;
    case FACT_CONTRACT: buf_puts(out, p->contract); return;
    case FACT_INSIDE: buf_puts(out, inside ? "yes" : "no"); return;
    case FACTS_N: return;
    }
}

/* "it is not in eu-managed (jurisdiction is US, and the zone asks for "jurisdiction in EU"; training is not known)" */
static void say_outside(const place *at, const provider_facts *p, bool first, buf *out) {
    if (at->kind == PLACE_ON_PREM) buf_puts(out, "it is not inside the perimeter (on-prem)");
    if (at->kind == PLACE_PROVIDER) buf_printf(out, "it is not provider %s", at->name);
    if (at->kind != PLACE_ZONE) return;
    bool begun = false;
    buf_printf(out, "it is not in %s (", at->name);
    for (const condition *c = at->zone->conditions; c; c = c->next) {
        if (condition_holds(c, p, first)) continue;
        buf_puts(out, begun ? "; " : "");
        begun = true;
        if (fact_unknown(c->fact, p)) {
            buf_printf(out, "its %s is not known", fact_word(c->fact));
            continue;
        }
        buf_printf(out, "its %s is ", fact_word(c->fact));
        fact_value(c->fact, p, first, out);
        buf_printf(out, ", and the zone asks for %s", c->text);
    }
    buf_puts(out, ")");
}

static void say_outside_all(const place *list, const provider_facts *p, bool first, buf *out) {
    for (const place *at = list; at; at = at->next) {
        if (at != list) buf_puts(out, ", ");
        say_outside(at, p, first, out);
    }
}

/* ---- explain ----------------------------------------------------------------------------------------------- */

typedef struct explanation {
    const policy *p;
    const provider_facts *providers;
    size_t n;
    sensitivity v;
    bool *decided; /* for each sentence in turn */
    err *e;
} explanation;

static size_t index_of(const policy *p, const sentence *want) {
    size_t i = 0;
    for (const sentence *s = p->sentences; s != want; s = s->next) i++;
    return i;
}

/* The sentence counts among those that decided, and the zones that it speaks of. */
static void mark(explanation *x, size_t index, const sentence *s) {
    x->decided[index] = true;
    for (const place *at = s->places; at; at = at->next) {
        if (at->kind != PLACE_ZONE) continue;
        for (const sentence *z = x->p->sentences; z; z = z->next)
            if (z->zone == at->zone) x->decided[index_of(x->p, z)] = true;
    }
}

static bool meets(const entity_set *a, const entity_set *b) {
    return (a->bits[0] & b->bits[0]) || (a->bits[1] & b->bits[1]);
}

static bool add_text(cJSON *array, buf *b) {
    bool ok = !b->failed && report_add_str(array, buf_str(b));
    buf_reset(b);
    return ok;
}

/* Names of what was found and is in the set. */
static void name_found(const policy *p, const entity_set *found, const entity_set *set, buf *b) {
    unsigned n = detector_entities(p->d), said = 0;
    for (unsigned i = 0; i < n; i++) {
        if (!entity_set_has(found, i) || !entity_set_has(set, i)) continue;
        buf_printf(b, "%s%s", said++ ? ", " : "", detector_entity(p->d, i)->name);
    }
}

static bool say_raise(explanation *x, const sentence *s, const entity_set *found, unsigned flags, cJSON *out, buf *b) {
    buf_printf(b, "line %u: raised to %s, ", s->line, x->p->labels.name[s->level]);
    if (meets(found, &s->things)) {
        buf_puts(b, "found ");
        name_found(x->p, found, &s->things, b);
    } else {
        for (unsigned f = 0; f < FLAGS_N; f++)
            if (s->flags & flags & (1u << f)) buf_printf(b, "it is marked %s ", flag_name(1u << f));
        if (b->len && b->ptr[b->len - 1] == ' ') b->ptr[--b->len] = 0;
    }
    return add_text(out, b);
}

static bool say_treat(explanation *x, bool detector_error, cJSON *out, buf *b) {
    uint8_t level = detector_error ? x->p->detector_error : x->p->unlabelled;
    unsigned line = 0;
    size_t index = 0;
    for (const sentence *s = x->p->sentences; s; s = s->next, index++) {
        if (s->kind != SENTENCE_TREAT || s->detector_error != detector_error || s->level != level) continue;
        x->decided[index] = true;
        if (!line) line = s->line;
    }
    if (line) buf_printf(b, "line %u: ", line);
    buf_printf(b, "%s, treated as %s%s", detector_error ? "the detectors failed" : "nobody said how sensitive it is",
               x->p->labels.name[level], line ? "" : " (the highest level, because no sentence says otherwise)");
    return add_text(out, b);
}

/* What made the label what it is, in the order in which it rose. */
static bool explain_label(explanation *x, sensitivity start, bool has_level, const entity_set *found, bool failed,
                          cJSON *out, buf *b) {
    const policy *p = x->p;
    char text[SENSITIVITY_TEXT];
    bool ok = true;
    sensitivity_text(text, &p->labels, start);
    if (has_level || start.flags || start.level) {
        buf_printf(b, "declared: %s", text);
        ok = add_text(out, b);
    }
    if (ok && !has_level) ok = say_treat(x, false, out, b);
    if (ok && failed) ok = say_treat(x, true, out, b);
    for (unsigned f = 0; ok && f < FLAGS_N; f++) {
        if (!meets(found, &p->carries[f])) continue;
        buf_printf(b, "marked %s, found ", flag_name(1u << f));
        name_found(p, found, &p->carries[f], b);
        ok = add_text(out, b);
    }
    size_t index = 0;
    for (const sentence *s = p->sentences; ok && s; s = s->next, index++) {
        if (s->kind != SENTENCE_RAISE || (!meets(found, &s->things) && !(s->flags & x->v.flags))) continue;
        if (s->level < x->v.level) continue; /* something else rose higher */
        x->decided[index] = true;
        ok = say_raise(x, s, found, x->v.flags, out, b);
    }
    return ok;
}

static bool explain_allowed(explanation *x, size_t i, cJSON *out) {
    const provider_facts *f = &x->providers[i];
    cJSON *o = cJSON_CreateObject();
    bool ok = o && cJSON_AddItemToArray(out, o) && cJSON_AddStringToObject(o, "provider", f->name) &&
              report_redact(o, "redact", x->p, x->v.level, f, i == 0) &&
              report_allow_lines(o, x->p, x->v.level, f, i == 0);
    size_t index = 0;
    for (const sentence *s = x->p->sentences; ok && s; s = s->next, index++)
        if (sentence_allows(s, x->v.level) && places_have(s->places, f, i == 0)) mark(x, index, s);
    return ok;
}

/* No `allow` of the level reaches it. */
static void why_no_allow(explanation *x, size_t i, cJSON *lines, buf *b) {
    const provider_facts *f = &x->providers[i];
    bool any = false;
    size_t index = 0;
    for (const sentence *s = x->p->sentences; s; s = s->next, index++) {
        if (!sentence_allows(s, x->v.level)) continue;
        mark(x, index, s);
        if (!any) buf_printf(b, "no sentence allows %s to it: ", x->p->labels.name[x->v.level]);
        buf_printf(b, "%sline %u: ", any ? "; " : "", s->line);
        any = true;
        say_outside_all(s->places, f, i == 0, b);
        add_num(lines, s->line);
    }
    if (!any) buf_printf(b, "no sentence allows %s to anything", x->p->labels.name[x->v.level]);
}

static void why_never(explanation *x, size_t i, cJSON *lines, buf *b) {
    const provider_facts *f = &x->providers[i];
    size_t index = 0;
    for (const sentence *s = x->p->sentences; s; s = s->next, index++) {
        if (!sentence_forbids_outside(s, x->v) || places_have(s->places, f, i == 0)) continue;
        mark(x, index, s);
        if (b->len) buf_puts(b, "; ");
        buf_printf(b, "line %u forbids it (%s): ", s->line, s->text);
        say_outside_all(s->places, f, i == 0, b);
        add_num(lines, s->line);
    }
}

static bool reaches(const explanation *x, size_t i) {
    for (const sentence *s = x->p->sentences; s; s = s->next)
        if (sentence_allows(s, x->v.level) && places_have(s->places, &x->providers[i], i == 0)) return true;
    return false;
}

static bool explain_rejected(explanation *x, size_t i, cJSON *out) {
    buf b = {.max = TEXT_MAX};
    cJSON *o = cJSON_CreateObject();
    bool ok = o && cJSON_AddItemToArray(out, o) && cJSON_AddStringToObject(o, "provider", x->providers[i].name);
    cJSON *lines = ok ? cJSON_CreateArray() : NULL;
    if (lines && reaches(x, i))
        why_never(x, i, lines, &b);
    else if (lines)
        why_no_allow(x, i, lines, &b);
    if (b.over_max) b.failed = false; /* cut where it is too long; what is there is right */
    ok = ok && lines && !b.failed && cJSON_AddStringToObject(o, "why", buf_str(&b));
    if (!ok || !cJSON_AddItemToObject(o, "lines", lines)) {
        cJSON_Delete(lines);
        ok = false;
    }
    buf_free(&b);
    return ok;
}

static bool explain_lines(const explanation *x, cJSON *out) {
    size_t index = 0;
    for (const sentence *s = x->p->sentences; s; s = s->next, index++) {
        if (!x->decided[index]) continue;
        cJSON *o = cJSON_CreateObject();
        if (!o || !cJSON_AddItemToArray(out, o) || !cJSON_AddNumberToObject(o, "line", s->line) ||
            !cJSON_AddStringToObject(o, "text", s->text))
            return false;
    }
    return true;
}

static bool explain_all(explanation *x, const policy_table *t, sensitivity start, bool has_level,
                        const entity_set *found, bool failed, cJSON *o) {
    buf b = {.max = TEXT_MAX};
    bool ok = o && report_label(o, x->p, x->v);
    cJSON *raised = ok ? cJSON_AddArrayToObject(o, "raised_by") : NULL;
    cJSON *yes = raised ? cJSON_AddArrayToObject(o, "allowed") : NULL;
    cJSON *no = yes ? cJSON_AddArrayToObject(o, "rejected") : NULL;
    cJSON *lines = no ? cJSON_AddArrayToObject(o, "lines") : NULL;
    ok = lines && explain_label(x, start, has_level, found, failed, raised, &b);
    uint64_t allowed = policy_allowed(t, x->v);
    for (size_t i = 0; ok && i < x->n; i++)
        ok = allowed >> i & 1 ? explain_allowed(x, i, yes) : explain_rejected(x, i, no);
    ok = ok && explain_lines(x, lines);
    buf_free(&b);
    return ok;
}

err_code policy_explain(const policy *p, const provider_facts *providers, size_t n, sensitivity start, bool has_level,
                        const entity_set *found, bool detector_failed, cJSON **out, err *e) {
    static const entity_set nothing = {{0}};
    *out = NULL;
    if (!found) found = &nothing;
    explanation x = {.p = p, .providers = providers, .n = n, .e = e};
    x.v = policy_label(p, start, has_level, found, detector_failed);
    if (start.level >= p->labels.n) start.level = (uint8_t)(p->labels.n - 1);
    start.flags &= FLAGS_ALL;
    policy_table *t = NULL;
    err_code rc = policy_compile(&t, p, providers, n, e);
    if (rc) return rc;
    cJSON *o = cJSON_CreateObject();
    x.decided = mem_array(p->n_sentences + 1, sizeof *x.decided);
    bool ok = x.decided && explain_all(&x, t, start, has_level, found, detector_failed, o);
    mem_free(x.decided);
    policy_table_free(t);
    if (!ok) {
        cJSON_Delete(o);
        return err_nomem(e, "an explanation");
    }
    *out = o;
    return ERR_OK;
}

/* ---- diff -------------------------------------------------------------------------------------------------- */

typedef struct difference {
    const policy *from, *to;
    const provider_facts *providers;
    size_t n;
    cJSON *opened, *closed, *redaction, *undeclared;
    size_t same;
    uint64_t budget;
    err *e;
} difference;

static bool same_labels(const label_set *a, const label_set *b) {
    if (a->n != b->n) return false;
    for (int i = 0; i < a->n; i++)
        if (strcmp(a->name[i], b->name[i]) != 0) return false;
    return true;
}

static cJSON *cell(const difference *d, cJSON *list, sensitivity v, size_t i) {
    cJSON *o = cJSON_CreateObject();
    if (!o || !cJSON_AddItemToArray(list, o)) {
        cJSON_Delete(o);
        return NULL;
    }
    bool ok = report_label(o, d->to, v) && cJSON_AddStringToObject(o, "provider", d->providers[i].name);
    return ok ? o : NULL;
}

static bool diff_cell(difference *d, const policy_table *from, const policy_table *to, sensitivity v, size_t i) {
    const provider_facts *f = &d->providers[i];
    /* Not `bool was = x >> i & 1, is = y >> i & 1; if (was != is)`: gcc 12 compiles that wrongly from -O1 on. */
    uint64_t bit = (uint64_t)1 << i, was = policy_allowed(from, v) & bit, is = policy_allowed(to, v) & bit;
    const entity_set *a = policy_redactions(from, v, i), *b = policy_redactions(to, v, i);
    cJSON *o;
    if (was != is) {
        o = cell(d, is ? d->opened : d->closed, v, i);
        const policy *p = is ? d->to : d->from;
        return o && report_redact(o, "redact", p, v.level, f, i == 0) && report_allow_lines(o, p, v.level, f, i == 0);
    }
    if (is && (a->bits[0] != b->bits[0] || a->bits[1] != b->bits[1])) {
        bool less = (a->bits[0] & ~b->bits[0]) || (a->bits[1] & ~b->bits[1]);
        o = cell(d, d->redaction, v, i);
        return o && cJSON_AddBoolToObject(o, "less", less) && report_redact(o, "from", d->from, v.level, f, i == 0) &&
               report_redact(o, "to", d->to, v.level, f, i == 0);
    }
    d->same++;
    return true;
}

/* Cells that open for a provider which nobody has declared yet. */
static err_code diff_undeclared(difference *d, sensitivity v) {
    case_answer a;
    provider_facts w;
    err_code rc = policy_opened_for(d->from, d->to, v, &d->budget, &a, &w, d->e);
    if (rc || a == CASE_NONE) return rc;
    cJSON *o = cJSON_CreateObject(), *facts = cJSON_CreateObject();
    bool ok = o && cJSON_AddItemToArray(d->undeclared, o) && report_label(o, d->to, v);
    if (ok && a == CASE_FOUND)
        ok = facts && report_facts(facts, &w) && report_allow_lines(o, d->to, v.level, &w, false);
    if (ok && a == CASE_UNDECIDED) ok = cJSON_AddBoolToObject(o, "undecided", true) != NULL;
    if (ok && a == CASE_FOUND && cJSON_AddItemToObject(o, "provider", facts)) facts = NULL;
    ok = ok && (a != CASE_FOUND || !facts);
    cJSON_Delete(facts);
    return ok ? ERR_OK : err_nomem(d->e, "a difference");
}

static err_code diff_all(difference *d, const policy_table *from, const policy_table *to) {
    for (uint8_t level = 0; level < d->to->labels.n; level++)
        for (unsigned flags = 0; flags <= FLAGS_ALL; flags++) {
            sensitivity v = {.level = level, .flags = (uint8_t)flags};
            for (size_t i = 0; i < d->n; i++)
                if (!diff_cell(d, from, to, v, i)) return err_nomem(d->e, "a difference");
            err_code rc = diff_undeclared(d, v);
            if (rc) return rc;
        }
    return ERR_OK;
}

err_code policy_diff(const policy *from, const policy *to, const provider_facts *providers, size_t n, cJSON **out,
                     err *e) {
    *out = NULL;
    if (!same_labels(&from->labels, &to->labels))
        return err_set(e, ERR_INVALID,
                       "the two policies speak of different levels and cannot be compared cell by cell");
    difference d = {.from = from, .to = to, .providers = providers, .n = n, .budget = CASE_BUDGET, .e = e};
    policy_table *a = NULL, *b = NULL;
    cJSON *o = cJSON_CreateObject();
    bool ok = o && (d.opened = cJSON_AddArrayToObject(o, "opened")) != NULL &&
              (d.closed = cJSON_AddArrayToObject(o, "closed")) != NULL &&
              (d.redaction = cJSON_AddArrayToObject(o, "redaction")) != NULL &&
              (d.undeclared = cJSON_AddArrayToObject(o, "opened_undeclared")) != NULL;
    err_code rc = ok ? policy_compile(&a, from, providers, n, e) : err_nomem(e, "a difference");
    if (rc == ERR_OK) rc = policy_compile(&b, to, providers, n, e);
    if (rc == ERR_OK) rc = diff_all(&d, a, b);
    if (rc == ERR_OK && !cJSON_AddNumberToObject(o, "same", (double)d.same)) rc = err_nomem(e, "a difference");
    policy_table_free(a);
    policy_table_free(b);
    if (rc) {
        cJSON_Delete(o);
        return rc;
    }
    *out = o;
    return ERR_OK;
}
