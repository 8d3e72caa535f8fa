#include "engine/grammar/automaton.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* ---- memory ------------------------------------------------------------------------------------------------ */

#define BUCKETS_MIN 256u

static set *sets(const automaton *a) {
    return a->sets.p;
}
static item *items(const automaton *a) {
    return a->items.p;
}
static node *nodes(const automaton *a) {
    return a->nodes.p;
}
static node_return *returns(const automaton *a) {
    return a->returns.p;
}
static uint32_t *words(const vec32 *v) {
    return v->p;
}

uint64_t automaton_bytes(const automaton *a) {
    return (uint64_t)a->sets.cap * sizeof(set) + (uint64_t)a->items.cap * sizeof(item) + (uint64_t)a->tables.cap * 4 +
           (uint64_t)a->nodes.cap * sizeof(node) + (uint64_t)a->returns.cap * sizeof(node_return) +
           (uint64_t)a->buckets.cap * 4 + (uint64_t)a->cap_set_nodes * 4 + (uint64_t)a->known.cap * 4;
}

static void fail(automaton *a, err_code rc) {
    if (a->rc == ERR_OK) a->rc = rc;
}

/* Room for n more entries. */
static bool reserve(automaton *a, vec32 *v, size_t size, uint32_t n) {
    if (v->cap - v->n >= n) return true;
    uint64_t cap = (uint64_t)v->cap + v->cap / 2 + n + 64;
    if (cap * size > AUTOMATON_BYTES_MAX || automaton_bytes(a) > AUTOMATON_BYTES_MAX) {
        fail(a, ERR_TOO_LARGE);
        return false;
    }
    void *p = mem_realloc(v->p, cap * size);
    if (!p) {
        fail(a, ERR_NOMEM);
        return false;
    }
    v->p = p;
    v->cap = (uint32_t)cap;
    return true;
}

static bool reserve_set_nodes(automaton *a) {
    if (a->cap_set_nodes >= a->sets.cap) return true;
    uint32_t *p = mem_realloc(a->set_nodes, a->sets.cap * sizeof *p);
    if (!p) {
        fail(a, ERR_NOMEM);
        return false;
    }
    a->set_nodes = p;
    a->cap_set_nodes = a->sets.cap;
    return true;
}

/* ---- kernels ----------------------------------------------------------------------------------------------- */

static int compare_items(const void *pa, const void *pb) {
    const item *a = pa, *b = pb;
    if (a->q != b->q) return a->q < b->q ? -1 : 1;
    return a->node < b->node ? -1 : a->node > b->node;
}

static uint32_t hash_items(const item *p, uint32_t n) {
    uint64_t h = n;
    for (uint32_t i = 0; i < n; i++) {
        h = (h ^ p[i].q) * 0xff51afd7ed558ccdu;
        h = (h ^ h >> 32 ^ p[i].node) * 0xc4ceb9fe1a85ec53u;
    }
    return (uint32_t)(h ^ h >> 29 ^ h >> 47);
}

static bool grow_buckets(automaton *a) {
    uint32_t n = a->buckets.n ? a->buckets.n * 4 : BUCKETS_MIN;
    uint32_t *p = mem_array(n, sizeof *p);
    if (!p) {
        fail(a, ERR_NOMEM);
        return false;
    }
    mem_free(a->buckets.p);
    a->buckets = (vec32){p, n, n};
    for (uint32_t s = SET_START; s < a->sets.n; s++) {
        set *x = &sets(a)[s];
        uint32_t *b = &p[hash_items(items(a) + x->kernel, x->n_kernel) & (n - 1)];
        x->chain = *b;
        *b = s;
    }
    return true;
}

static uint32_t push_set(automaton *a, const set *x) {
    if (!reserve(a, &a->sets, sizeof(set), 1) || !reserve_set_nodes(a)) return SET_DEAD;
    uint32_t s = a->sets.n++;
    sets(a)[s] = *x;
    a->set_nodes[s] = 0;
    return s;
}

/* The set with this kernel; sorts it in place. */
static uint32_t intern(automaton *a, item *kernel, uint32_t n) {
    if (n == 0) return SET_DEAD;
    if (n > 1) qsort(kernel, n, sizeof *kernel, compare_items);
    uint32_t kept = 1;
    for (uint32_t i = 1; i < n; i++)
        if (compare_items(&kernel[i], &kernel[kept - 1]) != 0) kernel[kept++] = kernel[i];
    uint32_t h = hash_items(kernel, kept);
    for (uint32_t s = words(&a->buckets)[h & (a->buckets.n - 1)]; s; s = sets(a)[s].chain) {
        const set *x = &sets(a)[s];
        if (x->n_kernel == kept && memcmp(items(a) + x->kernel, kernel, kept * sizeof *kernel) == 0) return s;
    }
    if (a->sets.n >= a->buckets.n && !grow_buckets(a)) return SET_DEAD;
    if (!reserve(a, &a->items, sizeof(item), kept)) return SET_DEAD;
    set x = {.kernel = a->items.n, .n_kernel = kept};
    memcpy(items(a) + a->items.n, kernel, kept * sizeof *kernel);
    uint32_t s = push_set(a, &x);
    if (s == SET_DEAD) return s;
    a->items.n += kept;
    uint32_t *b = &words(&a->buckets)[h & (a->buckets.n - 1)];
    sets(a)[s].chain = *b;
    *b = s;
    return s;
}

/* Appends to the n items in scratch. */
static bool gather(automaton *a, uint32_t q, uint32_t node_id, uint32_t *n) {
    a->scratch.n = *n;
    if (!reserve(a, &a->scratch, sizeof(item), 1)) return false;
    ((item *)a->scratch.p)[(*n)++] = (item){q, node_id};
    return true;
}

/* ---- closing ----------------------------------------------------------------------------------------------- */

/* Whether an item is new to the set under work; notes it. */
static bool note(automaton *a, uint32_t q, uint32_t node_id) {
    if (a->order.n * 2 >= a->seen.cap) {
        uint32_t cap = a->seen.cap ? a->seen.cap * 2 : 64;
        uint32_t *p = a->order.n > SET_ITEMS_MAX ? NULL : mem_array(cap, sizeof *p);
        if (!p) {
            fail(a, a->order.n > SET_ITEMS_MAX ? ERR_TOO_LARGE : ERR_NOMEM);
            return false;
        }
        mem_free(a->seen.p);
        a->seen = (vec32){p, 0, cap};
        for (uint32_t i = 0; i < a->order.n; i++) {
            const item *x = (const item *)a->order.p + i;
            uint32_t at = hash_items(x, 1) & (cap - 1);
            while (p[at]) at = (at + 1) & (cap - 1);
            p[at] = i + 1;
        }
    }
    item x = {q, node_id};
    uint32_t *p = a->seen.p, at = hash_items(&x, 1) & (a->seen.cap - 1);
    for (; p[at]; at = (at + 1) & (a->seen.cap - 1)) {
        const item *y = (const item *)a->order.p + (p[at] - 1);
        if (y->q == q && y->node == node_id) return true;
    }
    if (!reserve(a, &a->order, sizeof(item), 1)) return false;
    p[at] = a->order.n + 1;
    ((item *)a->order.p)[a->order.n++] = x;
    return true;
}

static bool add_return(automaton *a, uint32_t n, uint32_t q, uint32_t caller) {
    for (uint32_t r = nodes(a)[n].returns; r; r = returns(a)[r].next, a->n_steps++)
        if (returns(a)[r].q == q && returns(a)[r].node == caller) return true;
    if (!reserve(a, &a->returns, sizeof(node_return), 1)) return false;
    uint32_t r = a->returns.n++;
    returns(a)[r] = (node_return){q, caller, nodes(a)[n].returns};
    nodes(a)[n].returns = r;
    return true;
}

/* A rule is called from set s. */
static bool enter(automaton *a, uint32_t s, uint32_t rule_id, uint32_t q, uint32_t caller) {
    const rule *r = &a->net->rules[rule_id];
    uint32_t n = a->set_nodes[s];
    while (n && nodes(a)[n].rule != rule_id) {
        n = nodes(a)[n].chain;
        a->n_steps++;
    }
    if (!n) {
        if (!reserve(a, &a->nodes, sizeof(node), 1)) return false;
        n = a->nodes.n++;
        nodes(a)[n] = (node){.rule = rule_id, .set = s, .chain = a->set_nodes[s]};
        a->set_nodes[s] = n;
    }
    if (!add_return(a, n, q, caller) || !note(a, r->start, n)) return false;
    return !r->nullable || note(a, q, caller);
}

/* A rule has come to its end. A node of the set itself was called here and has read nothing: `nullable` saw to that. */
static bool complete(automaton *a, uint32_t s, uint32_t n) {
    if (n == 0) {
        sets(a)[s].accepting = true;
        return true;
    }
    if (nodes(a)[n].set == s) return true;
    for (uint32_t r = nodes(a)[n].returns; r; r = returns(a)[r].next) {
        a->n_steps++;
        if (!note(a, returns(a)[r].q, returns(a)[r].node)) return false;
    }
    return true;
}

static bool follow(automaton *a, uint32_t s, item x, bool *reads) {
    const network *n = a->net;
    if (n->is_end[x.q] && !complete(a, s, x.node)) return false;
    for (uint32_t i = n->first[x.q]; i < n->first[x.q + 1]; i++) {
        const edge *e = &n->edges[i];
        a->n_steps++;
        switch (e->kind) {
        case EDGE_EMPTY:
            if (!note(a, e->target, x.node)) return false;
            break;
        case EDGE_CALL:
            if (!enter(a, s, e->arg, e->target, x.node)) return false;
            break;
        case EDGE_BYTES: *reads = true; break;
        default: *reads = sets(a)[s].has_tokens = true; break;
        }
    }
    return true;
}

/* ---- nodes that say the same ---- */

static int compare_returns(const void *pa, const void *pb) {
    const node_return *a = pa, *b = pb;
    if (a->q != b->q) return a->q < b->q ? -1 : 1;
    return a->node < b->node ? -1 : a->node > b->node;
}

static uint32_t hash_node(const automaton *a, uint32_t n) {
    uint64_t h = nodes(a)[n].rule;
    for (uint32_t r = nodes(a)[n].returns; r; r = returns(a)[r].next) {
        h = (h ^ returns(a)[r].q) * 0xff51afd7ed558ccdu;
        h = (h ^ h >> 32 ^ returns(a)[r].node) * 0xc4ceb9fe1a85ec53u;
        h ^= h >> 29;
    }
    return (uint32_t)(h ^ h >> 32);
}

static bool same_node(const automaton *a, uint32_t m, uint32_t n) {
    if (nodes(a)[m].rule != nodes(a)[n].rule) return false;
    uint32_t x = nodes(a)[m].returns, y = nodes(a)[n].returns;
    for (; x && y; x = returns(a)[x].next, y = returns(a)[y].next)
        if (returns(a)[x].q != returns(a)[y].q || returns(a)[x].node != returns(a)[y].node) return false;
    return !x && !y;
}

static bool grow_known(automaton *a) {
    uint32_t cap = a->known.cap ? a->known.cap * 2 : 64;
    uint32_t *p = mem_array(cap, sizeof *p);
    if (!p) {
        fail(a, ERR_NOMEM);
        return false;
    }
    for (uint32_t i = 0; i < a->known.cap; i++) {
        uint32_t n = words(&a->known)[i];
        if (!n) continue;
        uint32_t at = hash_node(a, n) & (cap - 1);
        while (p[at]) at = (at + 1) & (cap - 1);
        p[at] = n;
    }
    mem_free(a->known.p);
    a->known = (vec32){p, a->known.n, cap};
    return true;
}

/* A node that was called in the closure under work and now has all its returns, in order and of settled nodes: itself,
 * or the one known that says the same. 0: out of memory. */
static uint32_t settle_node(automaton *a, uint32_t n) {
    if (a->known.n * 2 >= a->known.cap && !grow_known(a)) return 0;
    uint32_t at = hash_node(a, n) & (a->known.cap - 1);
    for (; words(&a->known)[at]; at = (at + 1) & (a->known.cap - 1))
        if (same_node(a, words(&a->known)[at], n)) return words(&a->known)[at];
    words(&a->known)[at] = n;
    a->known.n++;
    return n;
}

/* Puts the returns of n, through the map, into order. false: one leads to a node that is not settled yet. */
static bool order_returns(automaton *a, uint32_t n, uint32_t base, const uint32_t *map, bool *ok) {
    uint32_t k = 0;
    for (uint32_t r = nodes(a)[n].returns; r; r = returns(a)[r].next, k++)
        if (returns(a)[r].node >= base && !map[returns(a)[r].node - base]) return false;
    if (!(*ok = reserve(a, &a->sorting, sizeof(node_return), k))) return false;
    node_return *list = a->sorting.p;
    k = 0;
    for (uint32_t r = nodes(a)[n].returns; r; r = returns(a)[r].next) {
        list[k] = returns(a)[r];
        if (list[k].node >= base) list[k].node = map[list[k].node - base];
        k++;
    }
    qsort(list, k, sizeof *list, compare_returns);
    k = 0;
    for (uint32_t r = nodes(a)[n].returns; r; r = returns(a)[r].next, k++) {
        returns(a)[r].q = list[k].q;
        returns(a)[r].node = list[k].node;
    }
    a->n_steps += k;
    return true;
}

/* The n nodes from `base` on were called in one closure. Those that say what a known one says are replaced by it in the
 * `kept` items in scratch: so a list comes back to the same set with every element. Rings of left recursion stay. */
static bool settle_nodes(automaton *a, uint32_t base, uint32_t base_returns, uint32_t kept) {
    uint32_t n = a->nodes.n - base, n_new = 0;
    if (!n) return true;
    uint32_t *map = mem_array(n, sizeof *map);
    bool ok = map != NULL;
    if (!ok) fail(a, ERR_NOMEM);
    for (bool more = ok; more;) {
        more = false;
        for (uint32_t i = 0; i < n && ok; i++) {
            if (map[i] || !order_returns(a, base + i, base, map, &ok)) continue;
            map[i] = settle_node(a, base + i);
            ok = map[i] != 0;
            n_new += map[i] == base + i;
            more = true;
        }
        more = more && ok;
    }
    for (uint32_t i = 0; i < n && ok; i++)
        if (!map[i]) map[i] = base + i, n_new++;
    for (uint32_t i = 0; i < kept && ok; i++) {
        item *x = (item *)a->scratch.p + i;
        if (x->node >= base) x->node = map[x->node - base];
    }
    if (ok && !n_new) {
        a->nodes.n = base;
        a->returns.n = base_returns;
    }
    mem_free(map);
    return ok;
}

/* ---- a set ---- */

bool automaton_close(automaton *a, uint32_t s) {
    if (sets(a)[s].closed) return true;
    uint32_t base = a->nodes.n, base_returns = a->returns.n, kept = 0;
    a->order.n = a->set_nodes[s] = 0;
    if (a->seen.cap) memset(a->seen.p, 0, a->seen.cap * sizeof(uint32_t));
    bool ok = a->rc == ERR_OK;
    for (uint32_t i = 0; ok && i < sets(a)[s].n_kernel; i++) {
        item x = items(a)[sets(a)[s].kernel + i];
        ok = note(a, x.q, x.node);
    }
    for (uint32_t i = 0; ok && i < a->order.n; i++) {
        item x = ((item *)a->order.p)[i];
        bool reads = false;
        ok = follow(a, s, x, &reads);
        if (a->n_steps > a->step_end) fail(a, ERR_TOO_LARGE), ok = false;
        if (ok && reads) ok = gather(a, x.q, x.node, &kept);
    }
    if (!ok || !settle_nodes(a, base, base_returns, kept) || !reserve(a, &a->items, sizeof(item), kept)) return false;
    if (kept) memcpy(items(a) + a->items.n, a->scratch.p, kept * sizeof(item));
    sets(a)[s].moves = a->items.n;
    sets(a)[s].n_moves = kept;
    a->items.n += kept;
    sets(a)[s].closed = true;
    /* a wide set must not make the clearing of `seen` dear for all that follow */
    if (a->seen.cap > 4096) {
        mem_free(a->seen.p);
        a->seen = (vec32){0};
    }
    return true;
}

/* ---- steps ------------------------------------------------------------------------------------------------- */

static bool over(automaton *a) {
    if (a->n_steps > a->step_end) fail(a, ERR_TOO_LARGE);
    return a->rc != ERR_OK;
}

uint32_t automaton_step_slow(automaton *a, uint32_t s, uint32_t class) {
    if (s == SET_DEAD || over(a) || !automaton_close(a, s)) return SET_DEAD;
    const network *net = a->net;
    if (!sets(a)[s].next) {
        if (!reserve(a, &a->tables, sizeof(uint32_t), net->n_classes)) return SET_DEAD;
        memset(words(&a->tables) + a->tables.n, 0, net->n_classes * sizeof(uint32_t));
        sets(a)[s].next = a->tables.n;
        a->tables.n += net->n_classes;
    }
    uint8_t byte = net->class_byte[class];
    uint32_t n = 0;
    for (uint32_t i = 0; i < sets(a)[s].n_moves; i++) {
        item x = items(a)[sets(a)[s].moves + i];
        for (uint32_t k = net->first[x.q]; k < net->first[x.q + 1]; k++) {
            const edge *e = &net->edges[k];
            a->n_steps++;
            if (e->kind == EDGE_BYTES && e->lo <= byte && byte <= e->hi && !gather(a, e->target, x.node, &n))
                return SET_DEAD;
        }
    }
    uint32_t t = intern(a, a->scratch.p, n);
    if (a->rc != ERR_OK) return SET_DEAD;
    words(&a->tables)[sets(a)[s].next + class] = t;
    return t;
}

static bool excluded(const network *net, uint32_t list, int32_t id) {
    for (int32_t i = 0; i < net->lists[list]; i++)
        if (net->lists[list + 1 + (uint32_t)i] == id) return true;
    return false;
}

uint32_t automaton_token(automaton *a, uint32_t s, int32_t id, bool is_text) {
    if (s == SET_DEAD || over(a) || !automaton_close(a, s)) return SET_DEAD;
    if (!sets(a)[s].has_tokens) return SET_DEAD;
    const network *net = a->net;
    uint32_t n = 0;
    for (uint32_t i = 0; i < sets(a)[s].n_moves; i++) {
        item x = items(a)[sets(a)[s].moves + i];
        for (uint32_t k = net->first[x.q]; k < net->first[x.q + 1]; k++) {
            const edge *e = &net->edges[k];
            a->n_steps++;
            bool hit = e->kind == EDGE_TOKEN ? e->arg == (uint32_t)id
                                             : e->kind == EDGE_NOT && is_text && !excluded(net, e->arg, id);
            if (hit && !gather(a, e->target, x.node, &n)) return SET_DEAD;
        }
    }
    uint32_t t = intern(a, a->scratch.p, n);
    return a->rc == ERR_OK ? t : SET_DEAD;
}

uint32_t automaton_union(automaton *a, uint32_t s, uint32_t t) {
    if (s == t || t == SET_DEAD) return s;
    if (s == SET_DEAD) return t;
    uint32_t n = 0;
    for (int k = 0; k < 2; k++) {
        const set *x = &sets(a)[k ? t : s];
        for (uint32_t i = 0; i < x->n_kernel; i++) {
            item y = items(a)[x->kernel + i];
            if (!gather(a, y.q, y.node, &n)) return SET_DEAD;
        }
    }
    return intern(a, a->scratch.p, n);
}

bool automaton_accepts(automaton *a, uint32_t s) {
    return s != SET_DEAD && automaton_close(a, s) && sets(a)[s].accepting;
}

/* ---- loops ------------------------------------------------------------------------------------------------- */

static void find_loop_here(automaton *a, uint32_t s) {
    uint32_t to = automaton_step(a, s, 'a');
    uint8_t kinds = 0xff;
    for (uint32_t b = 0; b < 256 && to != SET_DEAD; b++)
        if ((kinds & trie_kind((uint8_t)b)) && automaton_step(a, s, (uint8_t)b) != to)
            kinds &= (uint8_t)~trie_kind((uint8_t)b);
    sets(a)[s].loop = to;
    sets(a)[s].loop_kinds = to == SET_DEAD ? 0 : kinds;
}

void automaton_find_loop(automaton *a, uint32_t s, uint32_t depth_max) {
    find_loop_here(a, s);
    uint8_t kinds = sets(a)[s].loop_kinds;
    uint32_t at = s, depth = 0;
    while (kinds && depth < depth_max && a->rc == ERR_OK) {
        uint32_t to = sets(a)[at].loop;
        depth = to == at ? depth_max : depth + 1;
        at = to;
        if (sets(a)[at].loop == SET_UNKNOWN) find_loop_here(a, at);
        if ((sets(a)[at].loop_kinds & kinds) != kinds) break;
    }
    sets(a)[s].loop_depth = depth;
}

/* ---- beginning and end -------------------------------------------------------------------------------------- */

bool automaton_init(automaton *a, const network *n) {
    *a = (automaton){.net = n, .collect_at = AUTOMATON_BYTES_GC};
    automaton_begin(a);
    set none = {.closed = true, .loop = SET_DEAD};
    /* index 0 of tables, nodes and returns means "none" */
    if (!grow_buckets(a) || !reserve(a, &a->tables, sizeof(uint32_t), 1) || !reserve(a, &a->nodes, sizeof(node), 1) ||
        !reserve(a, &a->returns, sizeof(node_return), 1))
        return false;
    a->tables.n = a->nodes.n = a->returns.n = 1;
    nodes(a)[0] = (node){0};
    returns(a)[0] = (node_return){0};
    for (int i = 0; i < 2; i++) push_set(a, &none);
    item start = {n->rules[0].start, 0};
    if (a->rc == ERR_OK) intern(a, &start, 1);
    return a->rc == ERR_OK;
}

void automaton_clear(automaton *a) {
    vec32 *const all[] = {&a->sets,    &a->items, &a->tables, &a->nodes,   &a->returns, &a->buckets,
                          &a->scratch, &a->order, &a->seen,   &a->sorting, &a->known};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]->p);
    mem_free(a->set_nodes);
    *a = (automaton){0};
}

void automaton_begin(automaton *a) {
    a->rc = ERR_OK;
    a->step_end = a->n_steps + AUTOMATON_STEPS_MAX;
}

err_code automaton_check(const automaton *a, err *e) {
    if (a->rc == ERR_OK) return ERR_OK;
    if (a->rc == ERR_NOMEM) return err_nomem(e, "the state of a grammar");
    return err_set(e, a->rc, "the grammar is too ambiguous: following it takes more than %u MiB or %u million steps",
                   (unsigned)(AUTOMATON_BYTES_MAX >> 20), (unsigned)(AUTOMATON_STEPS_MAX / 1000000));
}

/* ---- collecting --------------------------------------------------------------------------------------------- */

typedef struct collector {
    automaton *old, fresh;
    uint32_t *map;  /* old node to new one; 0: not kept */
    uint32_t *work; /* old nodes that were kept and not yet looked into */
    uint32_t n_work;
} collector;

static bool keep_node(collector *c, uint32_t n) {
    automaton *f = &c->fresh;
    if (!n || c->map[n]) return true;
    if (!reserve(f, &f->nodes, sizeof(node), 1)) return false;
    c->map[n] = f->nodes.n++;
    nodes(f)[c->map[n]] = (node){.rule = nodes(c->old)[n].rule}; /* of no set: it is only returned from */
    c->work[c->n_work++] = n;
    return true;
}

static bool keep_stacks(collector *c) {
    while (c->n_work) {
        uint32_t n = c->work[--c->n_work];
        for (uint32_t r = nodes(c->old)[n].returns; r; r = returns(c->old)[r].next) {
            const node_return *x = &returns(c->old)[r];
            if (!keep_node(c, x->node) || !add_return(&c->fresh, c->map[n], x->q, c->map[x->node])) return false;
        }
    }
    return true;
}

static uint32_t keep_set(collector *c, uint32_t s) {
    if (s <= SET_START) return s;
    const set *x = &sets(c->old)[s];
    uint32_t n = 0;
    for (uint32_t i = 0; i < x->n_kernel; i++) {
        item y = items(c->old)[x->kernel + i];
        if (!keep_node(c, y.node) || !gather(&c->fresh, y.q, c->map[y.node], &n)) return SET_DEAD;
    }
    return keep_stacks(c) ? intern(&c->fresh, c->fresh.scratch.p, n) : SET_DEAD;
}

bool automaton_collect(automaton *a, uint32_t *const *roots, const uint32_t *n_roots, uint32_t n_lists) {
    collector c = {.old = a};
    c.map = mem_array(a->nodes.n, sizeof *c.map);
    c.work = mem_array(a->nodes.n, sizeof *c.work);
    uint32_t *new_id = mem_array(a->sets.n, sizeof *new_id);
    bool ok = c.map && c.work && new_id && automaton_init(&c.fresh, a->net);
    for (uint32_t l = 0; ok && l < n_lists; l++) {
        for (uint32_t i = 0; ok && i < n_roots[l]; i++) {
            uint32_t s = roots[l][i];
            if (!new_id[s]) new_id[s] = keep_set(&c, s);
            ok = c.fresh.rc == ERR_OK;
        }
    }
    for (uint32_t l = 0; ok && l < n_lists; l++)
        for (uint32_t i = 0; i < n_roots[l]; i++) roots[l][i] = new_id[roots[l][i]];
    mem_free(c.map);
    mem_free(c.work);
    mem_free(new_id);
    uint64_t steps = a->n_steps;
    automaton_clear(ok ? a : &c.fresh);
    if (ok) *a = c.fresh;
    a->n_steps = steps;
    uint64_t bytes = automaton_bytes(a);
    a->collect_at = 2 * bytes > AUTOMATON_BYTES_GC ? 2 * bytes : AUTOMATON_BYTES_GC;
    automaton_begin(a);
    return ok;
}
