/* Automata over characters: making deterministic, combining. chars_emit.c writes them as bytes. */
#include "engine/grammar/chars.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define TRIM_PASSES_MAX 200u /* states come in an order in which a few do */
#define WORK_MAX        200000000u

/* ---- nondeterministic --------------------------------------------------------------------------------------- */

void char_nfa_free(char_nfa *n) {
    mem_free(n->edges);
    *n = (char_nfa){0};
}

uint32_t char_nfa_state(char_nfa *n) {
    if (n->n_states >= CHAR_NFA_STATES_MAX) {
        n->too_large = true;
        return 0;
    }
    return n->n_states++;
}

void char_nfa_edge(char_nfa *n, char_edge_kind kind, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to) {
    if (n->too_large || n->no_memory || (kind == CHAR_EMPTY && from == to)) return;
    if (n->n_edges == n->cap_edges) {
        uint32_t cap = n->cap_edges ? n->cap_edges * 2 : 32;
        if (cap > 4 * CHAR_NFA_STATES_MAX) {
            n->too_large = true;
            return;
        }
        char_edge *p = mem_realloc(n->edges, cap * sizeof *p);
        if (!p) {
            n->no_memory = true;
            return;
        }
        n->edges = p;
        n->cap_edges = cap;
    }
    if (kind == CHAR_BEGIN || kind == CHAR_END) n->has_anchors = true;
    n->edges[n->n_edges++] = (char_edge){from, to, lo, hi, kind};
}

void char_nfa_any(char_nfa *n, uint32_t from, uint32_t to) {
    char_nfa_edge(n, CHAR_RANGE, from, CHAR_FIRST, 0xd7ff, to);
    char_nfa_edge(n, CHAR_RANGE, from, 0xe000, CHAR_LAST, to);
}

err_code char_nfa_check(const char_nfa *n, err *e) {
    if (n->no_memory) return err_nomem(e, "a regular expression");
    if (n->too_large)
        return err_set(e, ERR_TOO_LARGE, "the regular expression is too large: more than %u states",
                       CHAR_NFA_STATES_MAX);
    return ERR_OK;
}

/* ---- deterministic ------------------------------------------------------------------------------------------- */

void char_dfa_free(char_dfa *d) {
    mem_free(d->first);
    mem_free(d->next);
    mem_free(d->accepts);
    *d = (char_dfa){0};
}

bool char_dfa_is_empty(const char_dfa *d) {
    return d->n_states == 0;
}

static uint32_t class_of(const char_dfa *d, uint32_t c) {
    uint32_t lo = 0, hi = d->n_classes; /* first[lo] <= c < first[hi] */
    while (hi - lo > 1) {
        uint32_t mid = (lo + hi) / 2;
        *(d->first[mid] <= c ? &lo : &hi) = mid;
    }
    return lo;
}

bool char_dfa_matches(const char_dfa *d, const char *s, size_t n) {
    if (!d->n_states) return false;
    uint32_t q = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c = 0;
        int len = utf8_decode(&c, s + i, n - i);
        if (len <= 0 || c < CHAR_FIRST) return false;
        i += (size_t)len;
        q = d->next[(size_t)q * d->n_classes + class_of(d, c)];
        if (q == CHAR_NONE) return false;
    }
    return d->accepts[q];
}

static err_code too_many(err *e) {
    return err_set(e, ERR_TOO_LARGE, "a set of strings needs more than %u states to be told apart",
                   CHAR_DFA_STATES_MAX);
}

static int compare_u32(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Classes from the places where something changes; 0 and CHAR_LAST + 1 are always among them. */
static bool set_classes(char_dfa *d, uint32_t *cuts, size_t n) {
    cuts[n++] = 0;
    cuts[n++] = CHAR_LAST + 1;
    qsort(cuts, n, sizeof *cuts, compare_u32);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!kept || cuts[i] != cuts[kept - 1]) cuts[kept++] = cuts[i];
    d->n_classes = (uint32_t)kept - 1;
    d->first = mem_array(kept, sizeof *d->first);
    if (d->first) memcpy(d->first, cuts, kept * sizeof *cuts);
    return d->first != NULL;
}

/* A table of states that grows; NONE in new cells. */
static err_code add_state(char_dfa *d, uint32_t *cap, uint32_t *out, err *e) {
    if (d->n_states == *cap) {
        uint32_t want = *cap ? *cap * 2 : 16;
        if (d->n_states >= CHAR_DFA_STATES_MAX || (uint64_t)want * d->n_classes > 2ull * CHAR_DFA_CELLS_MAX)
            return too_many(e);
        uint32_t *next = mem_realloc(d->next, (size_t)want * d->n_classes * sizeof *next);
        if (next) d->next = next;
        uint8_t *accepts = next ? mem_realloc(d->accepts, want) : NULL;
        if (!accepts) return err_nomem(e, "a set of strings");
        d->accepts = accepts;
        *cap = want;
    }
    memset(d->next + (size_t)d->n_states * d->n_classes, 0xff, d->n_classes * sizeof(uint32_t));
    d->accepts[d->n_states] = 0;
    *out = d->n_states++;
    return ERR_OK;
}

/* States from which nothing is accepted go; state 0 stays the start. */
static err_code trim(char_dfa *d, err *e) {
    uint32_t n = d->n_states, k = d->n_classes;
    uint8_t *good = mem_array(n + 1, 1);
    uint32_t *map = mem_array((size_t)n + 1, sizeof *map);
    if (!good || !map) {
        mem_free(good);
        mem_free(map);
        return err_nomem(e, "a set of strings");
    }
    uint32_t passes = 0;
    for (bool changed = true; changed && passes < TRIM_PASSES_MAX; passes++) {
        changed = false;
        for (uint32_t q = n; q--;) {
            bool g = d->accepts[q];
            for (uint32_t c = 0; c < k && !g; c++) {
                uint32_t t = d->next[(size_t)q * k + c];
                g = t != CHAR_NONE && good[t];
            }
            if (g && !good[q]) good[q] = 1, changed = true;
        }
    }
    uint32_t kept = 0;
    for (uint32_t q = 0; q < n && good[0]; q++) map[q] = good[q] ? kept++ : CHAR_NONE;
    for (uint32_t q = 0; q < n && good[0]; q++) {
        if (!good[q]) continue;
        d->accepts[map[q]] = d->accepts[q];
        for (uint32_t c = 0; c < k; c++) {
            uint32_t t = d->next[(size_t)q * k + c];
            d->next[(size_t)map[q] * k + c] = t == CHAR_NONE ? CHAR_NONE : map[t];
        }
    }
    d->n_states = kept;
    mem_free(good);
    mem_free(map);
    return passes < TRIM_PASSES_MAX ? ERR_OK : too_many(e);
}

/* ---- from a nondeterministic one ------------------------------------------------------------------------------ */

/* Sets of states, each a sorted list, found by hash. */
typedef struct subsets {
    const char_nfa *nfa;
    uint32_t *first, *order; /* edges by where they begin */
    uint32_t *lists;         /* all lists one after the other */
    size_t n_lists, cap_lists;
    uint32_t *at, *len; /* (states) */
    uint32_t cap_at;
    uint32_t *table;
    uint32_t mask;
    uint32_t *stack, *found, *stamp;
    uint32_t n_found, stamp_now;
    uint64_t work;
} subsets;

static void subsets_free(subsets *s) {
    uint32_t *const all[] = {s->first, s->order, s->lists, s->at, s->len, s->table, s->stack, s->found, s->stamp};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
}

static bool subsets_init(subsets *s, const char_nfa *nfa) {
    size_t n = nfa->n_states;
    *s = (subsets){.nfa = nfa, .mask = 1023};
    s->first = mem_array(n + 2, sizeof *s->first);
    s->order = mem_array(nfa->n_edges + 1u, sizeof *s->order);
    s->table = mem_array(s->mask + 1u, sizeof *s->table);
    s->stack = mem_array(2 * n + 2, sizeof *s->stack);
    s->found = mem_array(2 * n + 2, sizeof *s->found);
    s->stamp = mem_array(2 * n + 2, sizeof *s->stamp);
    if (!s->first || !s->order || !s->table || !s->stack || !s->found || !s->stamp) return false;
    for (uint32_t i = 0; i < nfa->n_edges; i++) s->first[nfa->edges[i].from + 1]++;
    for (size_t q = 0; q < n; q++) s->first[q + 1] += s->first[q];
    for (uint32_t i = nfa->n_edges; i--;) s->order[--s->first[nfa->edges[i].from + 1]] = i;
    memmove(s->first, s->first + 1, n * sizeof *s->first);
    s->first[n] = nfa->n_edges;
    return true;
}

static void reach(subsets *s, uint32_t q, uint32_t *n_stack) {
    if (s->stamp[q] == s->stamp_now) return;
    s->stamp[q] = s->stamp_now;
    s->found[s->n_found++] = q;
    s->stack[(*n_stack)++] = q;
}

/* Adds what empty edges lead to. A state q after `$` is q + n_states: no character may follow it. */
static void close_subset(subsets *s, uint32_t n_stack, bool at_start) {
    uint32_t n = s->nfa->n_states;
    while (n_stack) {
        uint32_t x = s->stack[--n_stack], q = x % n, ended = x - q;
        s->work += s->first[q + 1] - s->first[q] + 1;
        for (uint32_t i = s->first[q]; i < s->first[q + 1]; i++) {
            const char_edge *e = &s->nfa->edges[s->order[i]];
            if (e->kind == CHAR_EMPTY || (e->kind == CHAR_BEGIN && at_start)) reach(s, e->to + ended, &n_stack);
            if (e->kind == CHAR_END) reach(s, e->to + n, &n_stack);
        }
    }
    qsort(s->found, s->n_found, sizeof *s->found, compare_u32);
}

static err_code grow_subsets(subsets *s, const char_dfa *d, err *e) {
    if (s->n_lists + s->n_found > s->cap_lists) {
        size_t cap = (s->n_lists + s->n_found) * 2;
        uint32_t *p = cap > (1u << 26) ? NULL : mem_realloc(s->lists, cap * sizeof *p);
        if (!p) return cap > (1u << 26) ? too_many(e) : err_nomem(e, "a set of strings");
        s->lists = p;
        s->cap_lists = cap;
    }
    if (d->n_states == s->cap_at) {
        uint32_t cap = s->cap_at ? s->cap_at * 2 : 64;
        uint32_t *at = mem_realloc(s->at, cap * sizeof *at);
        if (at) s->at = at;
        uint32_t *len = at ? mem_realloc(s->len, cap * sizeof *len) : NULL;
        if (!len) return err_nomem(e, "a set of strings");
        s->len = len;
        s->cap_at = cap;
    }
    if ((d->n_states + 1) * 2 <= s->mask) return ERR_OK;
    uint32_t mask = s->mask * 2 + 1;
    uint32_t *table = mem_array((size_t)mask + 1, sizeof *table);
    if (!table) return err_nomem(e, "a set of strings");
    for (uint32_t q = 0; q < d->n_states; q++) {
        uint64_t h = 0;
        for (uint32_t i = 0; i < s->len[q]; i++) h = (h ^ s->lists[s->at[q] + i]) * 0x9e3779b97f4a7c15u, h ^= h >> 32;
        uint32_t k = (uint32_t)h & mask;
        while (table[k]) k = (k + 1) & mask;
        table[k] = q + 1;
    }
    mem_free(s->table);
    s->table = table;
    s->mask = mask;
    return ERR_OK;
}

/* The state for what is in `found`. */
static err_code find_subset(subsets *s, char_dfa *d, uint32_t *cap, uint32_t *out, err *e) {
    uint64_t h = 0;
    for (uint32_t i = 0; i < s->n_found; i++) h = (h ^ s->found[i]) * 0x9e3779b97f4a7c15u, h ^= h >> 32;
    uint32_t k = (uint32_t)h & s->mask;
    for (; s->table[k]; k = (k + 1) & s->mask) {
        uint32_t q = s->table[k] - 1;
        if (s->len[q] == s->n_found && memcmp(s->lists + s->at[q], s->found, s->n_found * sizeof *s->found) == 0) {
            *out = q;
            return ERR_OK;
        }
    }
    err_code rc = grow_subsets(s, d, e);
    if (!rc) rc = add_state(d, cap, out, e);
    if (rc) return rc;
    for (k = (uint32_t)h & s->mask; s->table[k];) k = (k + 1) & s->mask;
    s->table[k] = *out + 1;
    s->at[*out] = (uint32_t)s->n_lists;
    s->len[*out] = s->n_found;
    memcpy(s->lists + s->n_lists, s->found, s->n_found * sizeof *s->found);
    s->n_lists += s->n_found;
    for (uint32_t i = 0; i < s->n_found; i++)
        if (s->found[i] % s->nfa->n_states == s->nfa->end) d->accepts[*out] = 1;
    return ERR_OK;
}

static err_code determinise(subsets *s, char_dfa *d, err *e) {
    const char_nfa *nfa = s->nfa;
    uint32_t cap = 0, q = 0, n_stack = 0;
    s->stamp_now = 1;
    reach(s, nfa->start, &n_stack);
    close_subset(s, n_stack, true);
    err_code rc = find_subset(s, d, &cap, &q, e);
    for (q = 0; !rc && q < d->n_states; q++) {
        for (uint32_t c = 0; !rc && c < d->n_classes; c++) {
            uint32_t ch = d->first[c];
            s->stamp_now++;
            s->n_found = n_stack = 0;
            for (uint32_t i = 0; i < s->len[q]; i++) {
                uint32_t x = s->lists[s->at[q] + i];
                if (x >= nfa->n_states) continue;
                s->work += s->first[x + 1] - s->first[x] + 1;
                for (uint32_t k = s->first[x]; k < s->first[x + 1]; k++) {
                    const char_edge *ed = &nfa->edges[s->order[k]];
                    if (ed->kind == CHAR_RANGE && ed->lo <= ch && ch <= ed->hi) reach(s, ed->to, &n_stack);
                }
            }
            if (s->work > WORK_MAX) rc = too_many(e);
            if (!s->n_found || rc) continue;
            close_subset(s, n_stack, false);
            uint32_t t = 0;
            rc = find_subset(s, d, &cap, &t, e);
            if (!rc) d->next[(size_t)q * d->n_classes + c] = t;
        }
    }
    return rc;
}

err_code char_dfa_from(char_dfa *out, const char_nfa *n, err *e) {
    *out = (char_dfa){0};
    err_code rc = char_nfa_check(n, e);
    if (rc) return rc;
    subsets s;
    uint32_t *cuts = mem_array(2 * (size_t)n->n_edges + 2, sizeof *cuts);
    size_t n_cuts = 0;
    for (uint32_t i = 0; cuts && i < n->n_edges; i++) {
        if (n->edges[i].kind != CHAR_RANGE) continue;
        cuts[n_cuts++] = n->edges[i].lo;
        cuts[n_cuts++] = n->edges[i].hi + 1;
    }
    bool ok = subsets_init(&s, n) && cuts && set_classes(out, cuts, n_cuts);
    rc = ok ? determinise(&s, out, e) : err_nomem(e, "a set of strings");
    if (!rc) rc = trim(out, e);
    subsets_free(&s);
    mem_free(cuts);
    if (rc) char_dfa_free(out);
    return rc;
}

err_code char_dfa_strings(char_dfa *out, const char *const *list, size_t n, err *e) {
    char_nfa nfa = {0};
    nfa.start = char_nfa_state(&nfa);
    nfa.end = char_nfa_state(&nfa);
    for (size_t i = 0; i < n; i++) {
        uint32_t at = nfa.start;
        size_t len = strlen(list[i]);
        for (size_t k = 0; k < len;) {
            uint32_t c = 0, to = char_nfa_state(&nfa);
            int w = utf8_decode(&c, list[i] + k, len - k);
            if (w <= 0) break; /* names came through JSON: they are UTF-8 */
            char_nfa_edge(&nfa, CHAR_RANGE, at, c, c, to);
            at = to;
            k += (size_t)w;
        }
        char_nfa_edge(&nfa, CHAR_EMPTY, at, 0, 0, nfa.end);
    }
    err_code rc = char_dfa_from(out, &nfa, e);
    char_nfa_free(&nfa);
    return rc;
}

err_code char_dfa_all(char_dfa *out, err *e) {
    char_nfa nfa = {0};
    nfa.start = nfa.end = char_nfa_state(&nfa);
    char_nfa_any(&nfa, nfa.start, nfa.start);
    err_code rc = char_dfa_from(out, &nfa, e);
    char_nfa_free(&nfa);
    return rc;
}

/* ---- combining ------------------------------------------------------------------------------------------------ */

typedef struct pairs { /* states of a product: (a, b) to its number */
    uint64_t *keys;    /* (states) a << 32 | b */
    uint32_t cap;
    uint32_t *table;
    uint32_t mask;
} pairs;

static void pairs_free(pairs *p) {
    mem_free(p->keys);
    mem_free(p->table);
}

static uint32_t pair_slot(const pairs *p, uint64_t key) {
    uint64_t h = key * 0x9e3779b97f4a7c15u;
    uint32_t k = (uint32_t)(h >> 32) & p->mask;
    while (p->table[k] && p->keys[p->table[k] - 1] != key) k = (k + 1) & p->mask;
    return k;
}

static err_code find_pair(pairs *p, char_dfa *d, uint32_t *cap, uint32_t a, uint32_t b, uint32_t *out, err *e) {
    uint64_t key = (uint64_t)a << 32 | b;
    if (p->table) {
        uint32_t k = pair_slot(p, key);
        if (p->table[k]) {
            *out = p->table[k] - 1;
            return ERR_OK;
        }
    }
    err_code rc = add_state(d, cap, out, e);
    if (rc) return rc;
    if (d->n_states > p->cap || !p->table) {
        uint32_t want = p->cap ? p->cap * 2 : 64;
        uint64_t *keys = mem_realloc(p->keys, want * sizeof *keys);
        if (keys) p->keys = keys;
        uint32_t *table = mem_array(want * 2u, sizeof *table);
        if (!keys || !table) {
            mem_free(table);
            return err_nomem(e, "a set of strings");
        }
        mem_free(p->table);
        p->table = table;
        p->mask = want * 2 - 1;
        p->cap = want;
        for (uint32_t q = 0; q + 1 < d->n_states; q++) p->table[pair_slot(p, p->keys[q])] = q + 1;
    }
    p->keys[*out] = key;
    p->table[pair_slot(p, key)] = *out + 1;
    return ERR_OK;
}

static err_code multiply(char_dfa *d, pairs *p, const char_dfa *a, const char_dfa *b, bool not_b, err *e) {
    uint32_t cap = 0, q = 0;
    err_code rc = find_pair(p, d, &cap, 0, b->n_states ? 0 : CHAR_NONE, &q, e);
    for (q = 0; !rc && q < d->n_states; q++) {
        uint32_t x = (uint32_t)(p->keys[q] >> 32), y = (uint32_t)p->keys[q];
        bool in_b = y != CHAR_NONE && b->accepts[y];
        d->accepts[q] = a->accepts[x] && in_b != not_b;
        for (uint32_t c = 0; !rc && c < d->n_classes; c++) {
            uint32_t ch = d->first[c], t = 0;
            uint32_t x2 = a->next[(size_t)x * a->n_classes + class_of(a, ch)];
            uint32_t y2 = y == CHAR_NONE ? CHAR_NONE : b->next[(size_t)y * b->n_classes + class_of(b, ch)];
            if (x2 == CHAR_NONE || (y2 == CHAR_NONE && !not_b)) continue;
            rc = find_pair(p, d, &cap, x2, y2, &t, e);
            if (!rc) d->next[(size_t)q * d->n_classes + c] = t;
        }
    }
    return rc;
}

err_code char_dfa_both(char_dfa *out, const char_dfa *a, const char_dfa *b, bool not_b, err *e) {
    *out = (char_dfa){0};
    if (!a->n_states || (!b->n_states && !not_b)) return ERR_OK;
    size_t n_b = b->n_states ? b->n_classes : 0;
    uint32_t *cuts = mem_array((size_t)a->n_classes + n_b + 2, sizeof *cuts);
    pairs p = {0};
    bool ok = cuts != NULL;
    if (ok) {
        memcpy(cuts, a->first, a->n_classes * sizeof *cuts);
        if (n_b) memcpy(cuts + a->n_classes, b->first, n_b * sizeof *cuts);
        ok = set_classes(out, cuts, a->n_classes + n_b);
    }
    err_code rc = ok ? multiply(out, &p, a, b, not_b, e) : err_nomem(e, "a set of strings");
    if (!rc) rc = trim(out, e);
    pairs_free(&p);
    mem_free(cuts);
    if (rc) char_dfa_free(out);
    return rc;
}

/* State q after i characters is i * a.n_states + q, the last layer loops where there is no maximum. */
static err_code count_out(char_dfa *d, const char_dfa *a, uint32_t min, uint32_t layers, bool bounded, err *e) {
    uint32_t cap = 0, q = 0, n = a->n_states;
    err_code rc = ERR_OK;
    for (uint32_t i = 0; i < layers && !rc; i++) {
        for (uint32_t x = 0; x < n && !rc; x++) {
            rc = add_state(d, &cap, &q, e);
            if (rc) break;
            d->accepts[q] = a->accepts[x] && i >= min;
            uint32_t layer = i + 1 < layers ? i + 1 : i;
            for (uint32_t c = 0; c < a->n_classes && !(bounded && i + 1 == layers); c++) {
                uint32_t t = a->next[(size_t)x * a->n_classes + c];
                if (t != CHAR_NONE) d->next[(size_t)q * a->n_classes + c] = layer * n + t;
            }
        }
    }
    return rc;
}

err_code char_dfa_length(char_dfa *out, const char_dfa *a, uint64_t min, uint64_t max, err *e) {
    *out = (char_dfa){0};
    if (!a->n_states || min > max) return ERR_OK;
    bool bounded = max != UINT64_MAX;
    uint64_t most = CHAR_DFA_STATES_MAX / a->n_states, by_cells = CHAR_DFA_CELLS_MAX / a->n_states / a->n_classes;
    if (most > by_cells) most = by_cells;
    if (min + 1 > most)
        return err_set(e, ERR_TOO_LARGE, "a string of at least %llu characters is too long to be counted out here",
                       (unsigned long long)min);
    uint64_t layers = bounded ? max + 1 : min + 1;
    if (layers > most) layers = most;
    uint32_t *cuts = mem_array((size_t)a->n_classes + 2, sizeof *cuts);
    bool ok = cuts != NULL;
    if (ok) {
        memcpy(cuts, a->first, a->n_classes * sizeof *cuts);
        ok = set_classes(out, cuts, a->n_classes);
    }
    err_code rc =
        ok ? count_out(out, a, (uint32_t)min, (uint32_t)layers, bounded, e) : err_nomem(e, "a set of strings");
    if (!rc) rc = trim(out, e);
    mem_free(cuts);
    if (rc) char_dfa_free(out);
    return rc;
}
