/* Is there a provider, declared or not, that stands in some places and in none of others?
 *
 * A place is a conjunction of conditions, each about one fact. A search chooses a place of every group (its conditions
 * must hold) and a condition of every place of `outside` (it must fail, by the fact's value or because it is not
 * known). What was chosen is one question for each fact alone: is there a value that meets all of some conditions and
 * none of others? Facts are independent, so a choice for which each has a value is a provider, and if no choice has
 * one there is none: the answer is exact.
 *
 * Choices multiply; the budget ends what a policy made for that would take. What undoes most of it:
 *  1. a group that holds a place chosen before is met already;
 *  2. a place of `outside` that cannot hold together with what was chosen needs no choice;
 *  3. equal groups and equal places are looked at once.
 */
#include "data/policy_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- questions --------------------------------------------------------------------------------------------- */

void question_free(question *q) {
    for (size_t i = 0; i < q->n_groups; i++) mem_free(q->groups[i].list);
    mem_free(q->groups);
    mem_free(q->outside.list);
    *q = (question){0};
}

static bool same_place(const place *a, const place *b) {
    if (a->kind != b->kind) return false;
    if (a->kind == PLACE_ZONE) return a->zone == b->zone;
    return a->kind != PLACE_PROVIDER || strcmp(a->name, b->name) == 0;
}

static bool list_holds(const place_list *l, const place *p) {
    for (size_t i = 0; i < l->n; i++)
        if (same_place(l->list[i], p)) return true;
    return false;
}

static void add_places(question *q, place_list *l, const place *places) {
    for (; places && !q->nomem; places = places->next) {
        if (list_holds(l, places)) continue;
        if (l->n == l->cap) {
            size_t cap = l->cap ? l->cap * 2 : 8;
            const place **grown = mem_realloc(l->list, cap * sizeof(*grown));
            if (!grown) {
                q->nomem = true;
                return;
            }
            l->list = grown;
            l->cap = cap;
        }
        l->list[l->n++] = places;
    }
}

void question_group(question *q) {
    if (q->nomem) return;
    if (q->n_groups == q->cap_groups) {
        size_t cap = q->cap_groups ? q->cap_groups * 2 : 8;
        place_list *grown = mem_realloc(q->groups, cap * sizeof *grown);
        if (!grown) {
            q->nomem = true;
            return;
        }
        q->groups = grown;
        q->cap_groups = cap;
    }
    q->groups[q->n_groups++] = (place_list){0};
}

void question_in(question *q, const place *places) {
    if (!q->nomem) add_places(q, &q->groups[q->n_groups - 1], places);
}

void question_outside(question *q, const place *places) {
    add_places(q, &q->outside, places);
}

static bool same_list(const place_list *a, const place_list *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++)
        if (!list_holds(b, a->list[i])) return false;
    return true;
}

/* Groups that say nothing ("any provider") or say the same as an earlier one go. */
static void drop_groups(question *q) {
    static const place any = {.kind = PLACE_ANY, .name = ""};
    size_t kept = 0;
    for (size_t i = 0; i < q->n_groups; i++) {
        bool drop = list_holds(&q->groups[i], &any);
        for (size_t k = 0; k < kept && !drop; k++) drop = same_list(&q->groups[k], &q->groups[i]);
        if (drop)
            mem_free(q->groups[i].list);
        else
            q->groups[kept++] = q->groups[i];
    }
    q->n_groups = kept;
}

/* ---- one fact ---------------------------------------------------------------------------------------------- */

typedef struct chosen {
    const condition **list;
    size_t n;
} chosen;

typedef struct search {
    const question *q;
    chosen met[FACTS_N], failed[FACTS_N]; /* room for all that can be chosen at once */
    const place **places;                 /* chosen, one for each group so far */
    size_t n_places;
    uint64_t *budget;
    bool undecided;
    condition on_prem;
    condition *names; /* of `provider NAME`, for each place of the question in turn */
    word_item *items;
    size_t n_names;
} search;

static bool spend(search *s, size_t steps) {
    if (*s->budget < steps) {
        *s->budget = 0;
        s->undecided = true;
        return false;
    }
    *s->budget -= steps;
    return true;
}

static bool value_in(const condition *c, const char *v) {
    for (const word_item *i = c->values; i; i = i->next)
        if (strcmp(i->s, v) == 0) return true;
    return false;
}

static bool value_fails_all(search *s, const chosen *list, const char *v) {
    for (size_t i = 0; i < list->n; i++)
        if (!spend(s, 8) || value_in(list->list[i], v)) return false;
    return true;
}

/* A value of a text that meets all and fails all; NULL where there is none. */
static const char *find_text(search *s, fact f, const chosen *met, const chosen *failed) {
    for (const word_item *v = met->list[0]->values; v; v = v->next) {
        bool ok = f != FACT_NAME || strcmp(v->s, provider_facts_engine.name) != 0;
        for (size_t i = 1; ok && i < met->n; i++) ok = spend(s, 8) && value_in(met->list[i], v->s);
        if (ok && value_fails_all(s, failed, v->s)) return v->s;
    }
    return NULL;
}

static bool country_free(search *s, const chosen *met, const chosen *failed, country_set *left) {
    uint64_t any = 0;
    *left = met->list[0]->countries;
    spend(s, met->n + failed->n);
    for (unsigned w = 0; w < COUNTRY_WORDS; w++) {
        for (size_t i = 1; i < met->n; i++) left->bits[w] &= met->list[i]->countries.bits[w];
        for (size_t i = 0; i < failed->n; i++) left->bits[w] &= ~failed->list[i]->countries.bits[w];
        any |= left->bits[w];
    }
    return any != 0;
}

/* Of a list of certificates every item can be there at once: each condition needs one that none of the failed names. */
static bool certificates_free(search *s, const chosen *met, const chosen *failed, provider_facts *witness) {
    size_t at = 0;
    for (size_t i = 0; i < met->n; i++) {
        const word_item *v = met->list[i]->values;
        while (v && !value_fails_all(s, failed, v->s)) v = v->next;
        if (!v) return false;
        if (!witness || at + strlen(v->s) + 2 >= sizeof witness->certificates) continue;
        at += (size_t)snprintf(witness->certificates + at, sizeof witness->certificates - at, "%s%s", at ? "," : "",
                               v->s);
    }
    return true;
}

static bool days_free(const chosen *met, const chosen *failed, int32_t *out) {
    int32_t most = INT32_MAX, above = -1;
    for (size_t i = 0; i < met->n; i++)
        if (met->list[i]->days < most) most = met->list[i]->days;
    for (size_t i = 0; i < failed->n; i++)
        if (failed->list[i]->days > above) above = failed->list[i]->days;
    *out = above + 1;
    return most > above;
}

static bool yes_no_free(const chosen *met, const chosen *failed, bool value) {
    for (size_t i = 0; i < met->n; i++)
        if (met->list[i]->yes != value) return false;
    for (size_t i = 0; i < failed->n; i++)
        if (failed->list[i]->yes == value) return false;
    return true;
}

/* Is there a value of f? Where nothing must be met, "not known" is one (of all but the name, which can be any that no
 * sentence speaks of, and inside, which is always known). */
static bool fact_free(search *s, fact f) {
    const chosen *met = &s->met[f], *failed = &s->failed[f];
    country_set left;
    int32_t days;
    if (!spend(s, 1)) return false;
    if (f == FACT_INSIDE) return yes_no_free(met, failed, true) || yes_no_free(met, failed, false);
    if (!met->n) return true;
    switch (fact_kind_of(f)) {
    case KIND_YES_NO: return yes_no_free(met, failed, true) || yes_no_free(met, failed, false);
    case KIND_DAYS: return days_free(met, failed, &days);
    case KIND_COUNTRY: return country_free(s, met, failed, &left);
    case KIND_LIST: return certificates_free(s, met, failed, NULL);
    case KIND_TEXT: return find_text(s, f, met, failed) != NULL;
    }
    return false;
}

/* ---- the search -------------------------------------------------------------------------------------------- */

/* The conditions of a place: NULL for "any provider", which has none. */
static const condition *conditions_of(search *s, const place *p) {
    if (p->kind == PLACE_ON_PREM) return &s->on_prem;
    if (p->kind == PLACE_ZONE) return p->zone->conditions;
    if (p->kind == PLACE_ANY) return NULL;
    for (size_t i = 0; i < s->n_names; i++)
        if (strcmp(s->items[i].s, p->name) == 0) return &s->names[i];
    return NULL; /* not reached: every name of the question is there */
}

/* All conditions of a place, on top of what was chosen. False where one cannot hold; *n tells how many went in. */
static bool push_all(search *s, const condition *c, size_t *n) {
    for (*n = 0; c; c = c->next) {
        chosen *m = &s->met[c->fact];
        m->list[m->n++] = c;
        (*n)++;
        if (!fact_free(s, c->fact)) return false;
    }
    return true;
}

static void pop_all(search *s, const condition *c, size_t n) {
    for (; n; n--, c = c->next) s->met[c->fact].n--;
}

static bool search_outside(search *s, size_t i) {
    if (s->undecided) return false;
    if (i == s->q->outside.n) return true;
    const condition *all = conditions_of(s, s->q->outside.list[i]);
    size_t n;
    bool possible = push_all(s, all, &n);
    pop_all(s, all, n);
    if (s->undecided) return false;
    if (!possible) return search_outside(s, i + 1);
    for (const condition *c = all; c; c = c->next) {
        chosen *f = &s->failed[c->fact];
        f->list[f->n++] = c;
        if (fact_free(s, c->fact) && search_outside(s, i + 1)) return true;
        f->n--;
    }
    return false;
}

static bool search_groups(search *s, size_t g) {
    if (s->undecided) return false;
    if (g == s->q->n_groups) return search_outside(s, 0);
    const place_list *l = &s->q->groups[g];
    if (!spend(s, l->n * (s->n_places + 1))) return false;
    for (size_t i = 0; i < l->n; i++)
        for (size_t k = 0; k < s->n_places; k++)
            if (same_place(l->list[i], s->places[k])) return search_groups(s, g + 1);
    for (size_t i = 0; i < l->n; i++) {
        const condition *all = conditions_of(s, l->list[i]);
        size_t n;
        s->places[s->n_places++] = l->list[i];
        if (push_all(s, all, &n) && search_groups(s, g + 1)) return true;
        pop_all(s, all, n);
        s->n_places--;
    }
    return false;
}

/* ---- room and the witness ---------------------------------------------------------------------------------- */

static size_t most_conditions(const question *q, size_t *n_names) {
    size_t n = 1, names = 0;
    for (size_t g = 0; g <= q->n_groups; g++) {
        const place_list *l = g < q->n_groups ? &q->groups[g] : &q->outside;
        size_t most = 1;
        for (size_t i = 0; i < l->n; i++) {
            size_t k = 0;
            names += l->list[i]->kind == PLACE_PROVIDER;
            for (const condition *c = l->list[i]->kind == PLACE_ZONE ? l->list[i]->zone->conditions : NULL; c;
                 c = c->next)
                k++;
            if (k > most) most = k;
        }
        n += most;
    }
    *n_names = names;
    return n + q->outside.n;
}

static void name_places(search *s, const place_list *l) {
    for (size_t i = 0; i < l->n; i++) {
        if (l->list[i]->kind != PLACE_PROVIDER) continue;
        s->items[s->n_names] = (word_item){.s = l->list[i]->name};
        s->names[s->n_names] = (condition){.fact = FACT_NAME, .values = &s->items[s->n_names]};
        s->n_names++;
    }
}

static void search_free(search *s) {
    for (unsigned f = 0; f < FACTS_N; f++) {
        mem_free(s->met[f].list);
        mem_free(s->failed[f].list);
    }
    mem_free(s->places);
    mem_free(s->names);
    mem_free(s->items);
}

static bool search_room(search *s) {
    size_t names, most = most_conditions(s->q, &names);
    bool ok = true;
    for (unsigned f = 0; f < FACTS_N; f++) {
        s->met[f].list = mem_array(most, sizeof(condition *));
        s->failed[f].list = mem_array(most, sizeof(condition *));
        ok = ok && s->met[f].list && s->failed[f].list;
    }
    s->places = mem_array(s->q->n_groups + 1, sizeof(place *));
    s->names = mem_array(names + 1, sizeof *s->names);
    s->items = mem_array(names + 1, sizeof *s->items);
    if (!ok || !s->places || !s->names || !s->items) return false;
    for (size_t g = 0; g < s->q->n_groups; g++) name_places(s, &s->q->groups[g]);
    name_places(s, &s->q->outside);
    return true;
}

static void copy_text(char *out, size_t cap, const char *v) {
    if (v) snprintf(out, cap, "%s", v);
}

static void country_name(char out[3], const country_set *s) {
    for (int i = 0; i < 26 * 26; i++) {
        if (!country_has(s, i)) continue;
        out[0] = (char)('A' + i / 26);
        out[1] = (char)('A' + i % 26);
        out[2] = 0;
        return;
    }
}

/* A name that no sentence asks for. */
static void free_name(search *s, provider_facts *w) {
    for (unsigned i = 1; i < 1000000; i++) {
        if (i == 1)
            snprintf(w->name, sizeof w->name, "some-provider");
        else
            snprintf(w->name, sizeof w->name, "some-provider-%u", i);
        if (value_fails_all(s, &s->failed[FACT_NAME], w->name)) return;
    }
}

static void write_witness(search *s, provider_facts *w) {
    uint64_t enough = UINT64_MAX;
    s->budget = &enough;
    *w = provider_facts_unknown("");
    country_set left;
    for (fact f = 0; f < FACTS_N; f++) {
        const chosen *met = &s->met[f], *failed = &s->failed[f];
        const char *text = met->n && fact_kind_of(f) == KIND_TEXT ? find_text(s, f, met, failed) : NULL;
        if (f == FACT_NAME) {
            copy_text(w->name, sizeof w->name, text);
            if (!text) free_name(s, w);
        }
        if (f == FACT_INSIDE) w->inside = !yes_no_free(met, failed, false);
        if (!met->n) continue;
        if (f == FACT_DRIVER) copy_text(w->driver, sizeof w->driver, text);
        if (f == FACT_OPERATOR) copy_text(w->operator_name, sizeof w->operator_name, text);
        if (f == FACT_CONTRACT) copy_text(w->contract, sizeof w->contract, text);
        if (f == FACT_TRAINING) w->training = yes_no_free(met, failed, true);
        if (f == FACT_RETENTION) (void)days_free(met, failed, &w->retention_days);
        if (f == FACT_CERTIFICATES) (void)certificates_free(s, met, failed, w);
        if (fact_kind_of(f) != KIND_COUNTRY) continue;
        (void)country_free(s, met, failed, &left);
        country_name(f == FACT_LAW ? w->operator_law : w->country, &left);
    }
}

err_code question_answer(question *q, uint64_t *budget, case_answer *out, provider_facts *witness, err *e) {
    if (q->nomem) return err_nomem(e, "a proof");
    drop_groups(q);
    search s = {.q = q, .budget = budget, .on_prem = {.fact = FACT_INSIDE, .yes = true}};
    if (!search_room(&s)) {
        search_free(&s);
        return err_nomem(e, "a proof");
    }
    bool found = search_groups(&s, 0);
    *out = s.undecided ? CASE_UNDECIDED : found ? CASE_FOUND : CASE_NONE;
    if (*out == CASE_FOUND && witness) write_witness(&s, witness);
    search_free(&s);
    return ERR_OK;
}
