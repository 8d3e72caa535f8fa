#include "engine/grammar/grammar.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* ---- building --------------------------------------------------------------------------------------------- */

void builder_init(builder *b) {
    *b = (builder){.states_max = NETWORK_STATES_MAX};
    builder_rule(b);
}

void builder_free(builder *b) {
    network_free(&b->net);
    mem_free(b->edges);
    mem_free(b->from);
    *b = (builder){0};
}

bool builder_failed(const builder *b) {
    return b->no_memory || b->too_large;
}

err_code builder_check(const builder *b, err *e) {
    if (b->no_memory) return err_nomem(e, "a grammar");
    if (b->too_large)
        return err_set(e, ERR_TOO_LARGE, "the grammar is too large: more than %u states, %u edges or %u rules",
                       b->states_max, NETWORK_EDGES_MAX, NETWORK_RULES_MAX);
    return ERR_OK;
}

uint32_t builder_state(builder *b) {
    if (b->net.n_states >= b->states_max) {
        b->too_large = true;
        return 0;
    }
    return b->net.n_states++;
}

uint32_t builder_rule(builder *b) {
    network *n = &b->net;
    if (n->n_rules == b->cap_rules) {
        uint32_t cap = b->cap_rules ? b->cap_rules * 2 : 16;
        rule *p = n->n_rules >= NETWORK_RULES_MAX ? NULL : mem_realloc(n->rules, cap * sizeof *p);
        if (!p) {
            *(n->n_rules >= NETWORK_RULES_MAX ? &b->too_large : &b->no_memory) = true;
            return 0;
        }
        n->rules = p;
        b->cap_rules = cap;
    }
    n->rules[n->n_rules] = (rule){.start = builder_state(b), .end = builder_state(b)};
    return n->n_rules++;
}

static void add_edge(builder *b, uint32_t from, edge e) {
    if (builder_failed(b)) return;
    if (b->n_edges == b->cap_edges) {
        uint32_t cap = b->cap_edges ? b->cap_edges * 2 : 64;
        if (b->n_edges >= NETWORK_EDGES_MAX) {
            b->too_large = true;
            return;
        }
        edge *p = mem_realloc(b->edges, cap * sizeof *p);
        if (p) b->edges = p;
        uint32_t *q = p ? mem_realloc(b->from, cap * sizeof *q) : NULL;
        if (q) b->from = q;
        if (!q) {
            b->no_memory = true;
            return;
        }
        b->cap_edges = cap;
    }
    b->from[b->n_edges] = from;
    b->edges[b->n_edges++] = e;
}

void builder_empty(builder *b, uint32_t from, uint32_t to) {
    if (from != to) add_edge(b, from, (edge){.kind = EDGE_EMPTY, .target = to});
}

void builder_bytes(builder *b, uint32_t from, uint8_t lo, uint8_t hi, uint32_t to) {
    add_edge(b, from, (edge){.kind = EDGE_BYTES, .lo = lo, .hi = hi, .target = to});
}

void builder_literal(builder *b, uint32_t from, const char *p, size_t n, uint32_t to) {
    if (!n) builder_empty(b, from, to);
    for (size_t i = 0; i < n && !builder_failed(b); i++) {
        uint32_t next = i + 1 == n ? to : builder_state(b);
        builder_bytes(b, from, (uint8_t)p[i], (uint8_t)p[i], next);
        from = next;
    }
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void builder_strings(builder *b, uint32_t from, uint32_t to, const char *const *list, size_t n) {
    size_t longest = 0;
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(list[i]);
        if (len > longest) longest = len;
    }
    const char **sorted = mem_array(n + 1, sizeof *sorted);
    uint32_t *path = mem_array(longest + 1, sizeof *path); /* states along the text before */
    if (!sorted || !path) b->no_memory = true;
    for (size_t i = 0; i < n && sorted; i++) sorted[i] = list[i];
    if (n > 1 && !b->no_memory) qsort(sorted, n, sizeof *sorted, compare_strings);
    if (path) path[0] = from;
    for (size_t i = 0; i < n && !builder_failed(b); i++) {
        const char *s = sorted[i];
        size_t k = 0;
        while (i && s[k] && s[k] == sorted[i - 1][k]) k++;
        for (; s[k] && !builder_failed(b); k++) {
            path[k + 1] = builder_state(b);
            builder_bytes(b, path[k], (uint8_t)s[k], (uint8_t)s[k], path[k + 1]);
        }
        builder_empty(b, path[k], to);
    }
    mem_free(sorted);
    mem_free(path);
}

void builder_call(builder *b, uint32_t from, uint32_t rule_id, uint32_t to) {
    add_edge(b, from, (edge){.kind = EDGE_CALL, .arg = rule_id, .target = to});
}

void builder_token(builder *b, uint32_t from, int32_t id, uint32_t to) {
    add_edge(b, from, (edge){.kind = EDGE_TOKEN, .arg = (uint32_t)id, .target = to});
}

void builder_not(builder *b, uint32_t from, const int32_t *ids, uint32_t n, uint32_t to) {
    network *net = &b->net;
    if (net->n_lists + n + 1 > b->cap_lists) {
        uint32_t cap = (net->n_lists + n + 1) * 2;
        int32_t *p = mem_realloc(net->lists, cap * sizeof *p);
        if (!p) {
            b->no_memory = true;
            return;
        }
        net->lists = p;
        b->cap_lists = cap;
    }
    uint32_t at = net->n_lists;
    net->lists[net->n_lists++] = (int32_t)n;
    for (uint32_t i = 0; i < n; i++) net->lists[net->n_lists++] = ids[i];
    add_edge(b, from, (edge){.kind = EDGE_NOT, .arg = at, .target = to});
}

/* ---- repeating ---------------------------------------------------------------------------------------------- */

#define COPY_EDGES_MAX 20000u /* beyond that repetitions call a rule */

builder_part builder_begin_part(builder *b) {
    builder_part p = {.state = b->net.n_states, .edge = b->n_edges};
    p.from = builder_state(b);
    p.to = builder_state(b);
    return p;
}

void builder_end_part(builder *b, builder_part *p) {
    p->end_state = b->net.n_states;
    p->end_edge = b->n_edges;
}

/* One more of the part between two states. */
static void place(builder *b, const builder_part *p, uint32_t rule_id, uint32_t from, uint32_t to) {
    if (rule_id) {
        builder_call(b, from, rule_id, to);
        return;
    }
    uint32_t base = b->net.n_states;
    for (uint32_t i = p->state; i < p->end_state && !builder_failed(b); i++) builder_state(b);
    if (builder_failed(b)) return;
    for (uint32_t i = p->edge; i < p->end_edge; i++) {
        edge e = b->edges[i];
        e.target = e.target - p->state + base;
        add_edge(b, b->from[i] - p->state + base, e);
    }
    builder_empty(b, from, p->from - p->state + base);
    builder_empty(b, p->to - p->state + base, to);
}

void builder_repeat(builder *b, builder_part *p, uint32_t min, uint32_t max) {
    if (min == 1 && max == 1) return;
    uint32_t last = max == UINT32_MAX ? min : max, rule_id = 0;
    if ((uint64_t)last * (p->end_edge - p->edge) > COPY_EDGES_MAX) {
        rule_id = builder_rule(b);
        if (builder_failed(b)) return;
        builder_empty(b, b->net.rules[rule_id].start, p->from);
        builder_empty(b, p->to, b->net.rules[rule_id].end);
    }
    uint32_t from = builder_state(b), to = builder_state(b), at = from;
    for (uint32_t i = 0; i < last && !builder_failed(b); i++) {
        uint32_t next = builder_state(b);
        if (i >= min) builder_empty(b, at, to);
        place(b, p, rule_id, at, next);
        at = next;
    }
    if (max == UINT32_MAX) {
        uint32_t loop = builder_state(b);
        builder_empty(b, at, loop);
        place(b, p, rule_id, loop, loop);
        at = loop;
    }
    builder_empty(b, at, to);
    builder_end_part(b, p);
    p->from = from;
    p->to = to;
}

/* ---- characters as UTF-8 ----------------------------------------------------------------------------------- */

/* The bytes of lo and hi (both of n bytes) from byte i on, as ranges; what they have in common is followed, the rest is
 * cut into a first part, whole blocks, and a last part. */
static void utf8_range(builder *b, uint32_t from, const char *lo, const char *hi, int i, int n, uint32_t to) {
    uint8_t l = (uint8_t)lo[i], h = (uint8_t)hi[i];
    if (i == n - 1) {
        builder_bytes(b, from, l, h, to);
        return;
    }
    static const char least[4] = {'\x80', '\x80', '\x80', '\x80'}, most[4] = {'\xbf', '\xbf', '\xbf', '\xbf'};
    if (l == h) {
        uint32_t next = builder_state(b);
        builder_bytes(b, from, l, l, next);
        utf8_range(b, next, lo, hi, i + 1, n, to);
        return;
    }
    if (memcmp(lo + i + 1, least, (size_t)(n - i - 1)) != 0) {
        uint32_t next = builder_state(b);
        builder_bytes(b, from, l, l, next);
        utf8_range(b, next, lo, most, i + 1, n, to);
        l++;
    }
    bool tail = memcmp(hi + i + 1, most, (size_t)(n - i - 1)) != 0;
    if (l <= h - tail) {
        uint32_t next = builder_state(b);
        builder_bytes(b, from, l, (uint8_t)(h - tail), next);
        utf8_range(b, next, least, most, i + 1, n, to);
    }
    if (tail) {
        uint32_t next = builder_state(b);
        builder_bytes(b, from, h, h, next);
        utf8_range(b, next, least, hi, i + 1, n, to);
    }
}

void builder_chars(builder *b, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to) {
    static const uint32_t cuts[][2] = {
        {0, 0x7f}, {0x80, 0x7ff}, {0x800, 0xd7ff}, {0xe000, 0xffff}, {0x10000, 0x10ffff}};
    for (size_t k = 0; k < sizeof cuts / sizeof *cuts; k++) {
        uint32_t l = lo > cuts[k][0] ? lo : cuts[k][0], h = hi < cuts[k][1] ? hi : cuts[k][1];
        if (l > h) continue;
        char a[4], z[4];
        int n = utf8_encode(a, l);
        utf8_encode(z, h);
        utf8_range(b, from, a, z, 0, n, to);
    }
}

/* ---- finishing --------------------------------------------------------------------------------------------- */

typedef struct finisher {
    builder *b;
    network *n;
    uint32_t *skip;              /* (n_states) where a state's only, empty edge leads */
    uint32_t *back, *back_first; /* edges by what they wait for: target, and start of the rule called */
    uint8_t *good;               /* (n_states) */
    uint32_t *work;
} finisher;

static void sort_edges(finisher *f) {
    builder *b = f->b;
    network *n = f->n;
    for (uint32_t i = 0; i < b->n_edges; i++) n->first[b->from[i] + 1]++;
    for (uint32_t q = 0; q < n->n_states; q++) n->first[q + 1] += n->first[q];
    for (uint32_t i = b->n_edges; i--;) n->edges[--n->first[b->from[i] + 1]] = b->edges[i];
    /* first[q + 1] now is where q begins: shift back */
    memmove(n->first, n->first + 1, n->n_states * sizeof *n->first);
    n->first[n->n_states] = b->n_edges;
    /* from[] in the new order */
    for (uint32_t q = 0; q < n->n_states; q++)
        for (uint32_t i = n->first[q]; i < n->first[q + 1]; i++) b->from[i] = q;
}

/* States that only pass on are left out, a few at a time: rings of empty edges stay what they are, dead ends. */
static void skip_states(finisher *f) {
    network *n = f->n;
    for (uint32_t q = 0; q < n->n_states; q++) {
        bool one = n->first[q + 1] == n->first[q] + 1 && !n->is_end[q];
        const edge *e = &n->edges[n->first[q]];
        f->skip[q] = one && e->kind == EDGE_EMPTY ? e->target : q;
    }
    for (uint32_t q = n->n_states; q--;) {
        uint32_t to = f->skip[q];
        for (int hops = 0; hops < 16 && f->skip[to] != to; hops++) to = f->skip[to];
        f->skip[q] = to;
    }
    for (uint32_t i = 0; i < n->first[n->n_states]; i++) n->edges[i].target = f->skip[n->edges[i].target];
    for (uint32_t r = 0; r < n->n_rules; r++) n->rules[r].start = f->skip[n->rules[r].start];
}

/* For each state the edges that wait for it. */
static void sort_back(finisher *f) {
    network *n = f->n;
    uint32_t n_edges = n->first[n->n_states], *first = f->back_first;
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < n_edges; i++) {
            const edge *e = &n->edges[i];
            uint32_t on[2] = {e->target, e->kind == EDGE_CALL ? n->rules[e->arg].start : e->target};
            for (int k = 0; k < (e->kind == EDGE_CALL ? 2 : 1); k++) {
                if (pass == 0)
                    first[on[k] + 1]++;
                else
                    f->back[first[on[k]]++] = i;
            }
        }
        for (uint32_t q = 0; pass == 0 && q < n->n_states; q++) first[q + 1] += first[q];
    }
    memmove(first + 1, first, n->n_states * sizeof *first); /* undo the steps of the second pass */
    first[0] = 0;
}

/* Which states reach the end of their rule, with empty edges only or with all. */
static void find_good(finisher *f, bool only_empty) {
    network *n = f->n;
    uint32_t n_work = 0;
    memcpy(f->good, n->is_end, n->n_states);
    for (uint32_t q = 0; q < n->n_states; q++)
        if (f->good[q]) f->work[n_work++] = q;
    while (n_work) {
        uint32_t s = f->work[--n_work];
        for (uint32_t i = f->back_first[s]; i < f->back_first[s + 1]; i++) {
            const edge *e = &n->edges[f->back[i]];
            uint32_t q = f->b->from[f->back[i]];
            bool reads = e->kind != EDGE_EMPTY && e->kind != EDGE_CALL;
            if (f->good[q] || (only_empty && reads) || !f->good[e->target]) continue;
            if (e->kind == EDGE_CALL && !f->good[n->rules[e->arg].start]) continue;
            f->good[q] = 1;
            f->work[n_work++] = q;
        }
    }
}

/* Invariants 1 and 2. */
static void trim(finisher *f) {
    network *n = f->n;
    uint32_t kept = 0;
    for (uint32_t q = 0; q < n->n_states; q++) {
        uint32_t i = n->first[q], end = n->first[q + 1];
        n->first[q] = kept;
        for (; i < end; i++) {
            edge e = n->edges[i];
            if (!f->good[e.target] || (e.kind == EDGE_CALL && !f->good[n->rules[e.arg].start])) continue;
            bool last = n->is_end[e.target] && n->first[e.target] == n->first[e.target + 1];
            if (e.kind == EDGE_CALL && last) e = (edge){.kind = EDGE_EMPTY, .target = n->rules[e.arg].start};
            n->edges[kept++] = e;
        }
    }
    n->first[n->n_states] = kept;
}

static void find_classes(network *n) {
    bool cut[257] = {0};
    for (uint32_t i = 0; i < n->first[n->n_states]; i++) {
        const edge *e = &n->edges[i];
        if (e->kind == EDGE_BYTES) cut[e->lo] = cut[e->hi + 1] = true;
    }
    uint32_t c = 0;
    for (uint32_t b = 0; b < 256; b++) {
        if (b && cut[b]) c++;
        n->class_of[b] = (uint8_t)c;
        n->class_byte[c] = (uint8_t)b;
    }
    n->n_classes = c + 1;
}

static bool take_memory(finisher *f) {
    network *n = f->n;
    size_t states = (size_t)n->n_states + 1, edges = (size_t)f->b->n_edges + 1;
    n->first = mem_array(states + 1, sizeof *n->first);
    n->edges = mem_array(edges, sizeof *n->edges);
    n->is_end = mem_array(states, 1);
    f->skip = mem_array(states, sizeof *f->skip);
    f->back = mem_array(2 * edges, sizeof *f->back);
    f->back_first = mem_array(states + 1, sizeof *f->back_first);
    f->good = mem_array(states, 1);
    f->work = mem_array(states, sizeof *f->work);
    return n->first && n->edges && n->is_end && f->skip && f->back && f->back_first && f->good && f->work;
}

err_code network_finish(network *out, builder *b, err *e) {
    err_code rc = builder_check(b, e);
    if (rc) return rc;
    finisher f = {.b = b, .n = &b->net};
    network *n = f.n;
    if (take_memory(&f)) {
        for (uint32_t r = 0; r < n->n_rules; r++) n->is_end[n->rules[r].end] = 1;
        sort_edges(&f);
        skip_states(&f);
        sort_back(&f);
        find_good(&f, true);
        for (uint32_t r = 0; r < n->n_rules; r++) n->rules[r].nullable = f.good[n->rules[r].start];
        find_good(&f, false);
        if (!f.good[n->rules[0].start]) rc = err_set(e, ERR_INVALID, "no text can satisfy it");
        trim(&f);
        find_classes(n);
    } else {
        rc = err_nomem(e, "a grammar");
    }
    mem_free(f.skip);
    mem_free(f.back);
    mem_free(f.back_first);
    mem_free(f.good);
    mem_free(f.work);
    if (rc == ERR_OK) {
        *out = *n;
        *n = (network){0};
    }
    builder_free(b);
    return rc;
}

void network_free(network *n) {
    mem_free(n->rules);
    mem_free(n->first);
    mem_free(n->edges);
    mem_free(n->is_end);
    mem_free(n->lists);
    *n = (network){0};
}
