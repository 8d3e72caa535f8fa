#include "engine/grammar/automaton.h"

#include "base/mem.h"
#include "engine/model_internal.h"
#include "engine/models/models.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define MASKS_MAX       256u
#define IDLE_MAX        4u
#define IDLE_BYTES_MAX  ((uint64_t)24 << 20)
#define HISTORY_MAX     (1u << 24)
#define CONSTRAINTS_MAX 64u /* clones of one */

/* A warm automaton with masks: constraints walk on it, and it outlives them for the next request of its grammar. */
typedef struct walker {
    struct walker *next;
    automaton a;
    uint64_t *masks[MASKS_MAX];
    uint32_t owner[MASKS_MAX]; /* set of each mask */
    uint32_t n_masks, next_mask;
    uint32_t *path; /* (depth_max + 1) sets along the tree of tokens */
    constraint *first;
    uint32_t n_constraints;
    uint64_t n_made;
} walker;

struct grammar {
    network net;
    const token_trie *trie;
    atomic_uint refs;
    pthread_mutex_t lock;
    walker *idle; /* under lock */
    uint32_t n_idle;
};

struct constraint {
    constraint *next; /* of its walker */
    grammar *g;
    walker *w;
    uint32_t *history; /* sets from the beginning on; the last is where it is */
    uint32_t n_history, cap_history;
    bool finished; /* the last step was an end token */
};

/* ---- grammars ----------------------------------------------------------------------------------------------- */

err_code grammar_from_builder(grammar **out, const token_trie *trie, builder *b, err *e) {
    *out = NULL;
    network net = {0};
    err_code rc = network_finish(&net, b, e);
    if (rc) return rc;
    grammar *g = mem_zalloc(sizeof *g);
    if (!g) {
        network_free(&net);
        return err_nomem(e, "a grammar");
    }
    g->net = net;
    g->trie = trie;
    atomic_init(&g->refs, 1);
    pthread_mutex_init(&g->lock, NULL);
    *out = g;
    return ERR_OK;
}

static void walker_free(walker *w) {
    if (!w) return;
    automaton_clear(&w->a);
    for (uint32_t i = 0; i < w->n_masks; i++) mem_free(w->masks[i]);
    mem_free(w->path);
    mem_free(w);
}

grammar *grammar_hold(grammar *g) {
    atomic_fetch_add(&g->refs, 1);
    return g;
}

void grammar_free(grammar *g) {
    if (!g || atomic_fetch_sub(&g->refs, 1) > 1) return;
    while (g->idle) {
        walker *w = g->idle;
        g->idle = w->next;
        walker_free(w);
    }
    pthread_mutex_destroy(&g->lock);
    network_free(&g->net);
    mem_free(g);
}

const network *grammar_network(const grammar *g) {
    return &g->net;
}
const token_trie *grammar_trie(const grammar *g) {
    return g->trie;
}

/* The model's tree of tokens, made by whoever needs it first; where two do at once, one of the two stays. */
err_code model_trie(const model *m, const token_trie **out, err *e) {
    token_trie *t = atomic_load(&((model *)m)->trie), *none = NULL;
    if (!t) {
        err_code rc = token_trie_new(&t, model_vocab(m), e);
        if (rc) return rc;
        if (!atomic_compare_exchange_strong(&((model *)m)->trie, &none, t)) {
            token_trie_free(t);
            t = none;
        }
    }
    *out = t;
    return ERR_OK;
}

/* ---- walkers ------------------------------------------------------------------------------------------------ */

static err_code walker_new(walker **out, const grammar *g, err *e) {
    walker *w = mem_zalloc(sizeof *w);
    if (!w) return err_nomem(e, "a constraint");
    w->path = mem_array((size_t)g->trie->depth_max + 1, sizeof *w->path);
    if (!w->path || !automaton_init(&w->a, &g->net)) {
        walker_free(w);
        return err_nomem(e, "a constraint");
    }
    *out = w;
    return ERR_OK;
}

static err_code walker_take(walker **out, grammar *g, err *e) {
    pthread_mutex_lock(&g->lock);
    walker *w = g->idle;
    if (w) {
        g->idle = w->next;
        g->n_idle--;
        w->next = NULL;
    }
    pthread_mutex_unlock(&g->lock);
    *out = w;
    return w ? ERR_OK : walker_new(out, g, e);
}

static void walker_give(walker *w, grammar *g) {
    bool keep = automaton_bytes(&w->a) <= IDLE_BYTES_MAX;
    pthread_mutex_lock(&g->lock);
    keep = keep && g->n_idle < IDLE_MAX;
    if (keep) {
        w->next = g->idle;
        g->idle = w;
        g->n_idle++;
    }
    pthread_mutex_unlock(&g->lock);
    if (!keep) walker_free(w);
}

/* Between two calls: nothing points into the automaton but the histories. */
static void walker_begin(walker *w) {
    automaton_begin(&w->a);
    if (automaton_bytes(&w->a) < w->a.collect_at) return;
    uint32_t *roots[CONSTRAINTS_MAX], n_roots[CONSTRAINTS_MAX], n = 0;
    for (constraint *c = w->first; c; c = c->next) {
        roots[n] = c->history;
        n_roots[n++] = c->n_history;
    }
    if (!automaton_collect(&w->a, roots, n_roots, n)) return;
    for (uint32_t i = 0; i < w->n_masks; i++) w->owner[i] = SET_UNKNOWN;
}

/* ---- masks -------------------------------------------------------------------------------------------------- */

static void allow(uint64_t *mask, int32_t id) {
    mask[(uint32_t)id / 64] |= (uint64_t)1 << ((uint32_t)id % 64);
}

/* One walk over the tree of tokens. Below a place from which all that follows stays in a loop, every token fits: that
 * is most of the tree inside of a string. */
static void walk_trie(walker *w, const token_trie *t, uint32_t s, uint64_t *mask) {
    automaton *a = &w->a;
    const trie_place *places = t->places;
    w->path[0] = s;
    for (uint32_t i = 1; i < t->n_places;) {
        const trie_place *p = &places[i];
        uint32_t at = automaton_step(a, w->path[p->depth - 1], p->byte);
        if (at == SET_DEAD) {
            i = p->skip;
            continue;
        }
        uint32_t last = p[1].token;
        w->path[p->depth] = at;
        i++;
        if (p->height) {
            if (automaton_set(a, at)->loop == SET_UNKNOWN) automaton_find_loop(a, at, t->places[0].height);
            const set *x = automaton_set(a, at);
            if ((p->kinds & x->loop_kinds) == p->kinds && p->height <= x->loop_depth) {
                i = p->skip;
                last = places[i].token;
            }
        }
        for (uint32_t k = p->token; k < last; k++) allow(mask, t->ids[k]);
    }
}

static bool is_listed(const int32_t *list, int32_t id) {
    for (int32_t i = 1; i <= list[0]; i++)
        if (list[i] == id) return true;
    return false;
}

/* Tokens that the grammar names. */
static void add_tokens(walker *w, const token_trie *t, uint32_t s, uint64_t *mask) {
    const network *net = w->a.net;
    const set *x = automaton_set(&w->a, s);
    for (uint32_t i = 0; i < x->n_moves && x->has_tokens; i++) {
        uint32_t q = ((const item *)w->a.items.p)[x->moves + i].q;
        for (uint32_t k = net->first[q]; k < net->first[q + 1]; k++) {
            const edge *e = &net->edges[k];
            if (e->kind == EDGE_TOKEN) allow(mask, (int32_t)e->arg);
            if (e->kind != EDGE_NOT) continue;
            const int32_t *list = net->lists + e->arg;
            for (uint32_t n = 0; n < t->n_ids; n++)
                if (!is_listed(list, t->ids[n])) allow(mask, t->ids[n]);
        }
    }
}

static uint64_t *take_mask(walker *w, size_t words, uint32_t s) {
    uint32_t i = w->next_mask;
    if (i == w->n_masks) {
        uint64_t *p = mem_array(words, sizeof *p);
        if (!p) return NULL;
        w->masks[w->n_masks++] = p;
    } else {
        if (w->owner[i] != SET_UNKNOWN) automaton_set(&w->a, w->owner[i])->mask = 0;
        memset(w->masks[i], 0, words * sizeof(uint64_t));
    }
    w->next_mask = (i + 1) % MASKS_MAX;
    w->owner[i] = SET_UNKNOWN;
    w->n_made++;
    return w->masks[i];
}

static bool is_empty(const uint64_t *mask, size_t words) {
    uint64_t any = 0;
    for (size_t i = 0; i < words; i++) any |= mask[i];
    return any == 0;
}

static err_code make_mask(constraint *c, uint32_t s, const uint64_t **out, err *e) {
    walker *w = c->w;
    const token_trie *t = c->g->trie;
    size_t n_words = ((size_t)t->n_vocab + 63) / 64;
    uint32_t slot = w->next_mask;
    uint64_t *mask = take_mask(w, n_words, s);
    if (!mask) return err_nomem(e, "a mask of tokens");
    walk_trie(w, t, s, mask);
    if (automaton_close(&w->a, s)) add_tokens(w, t, s, mask);
    if (automaton_accepts(&w->a, s))
        for (uint32_t i = 0; i < t->n_ends; i++) allow(mask, t->ends[i]);
    err_code rc = automaton_check(&w->a, e);
    if (rc) return rc;
    if (is_empty(mask, n_words))
        return err_set(e, ERR_UNSUPPORTED,
                       "no token of the vocabulary goes on from here: it lacks the bytes or the end token that the "
                       "grammar needs");
    w->owner[slot] = s;
    automaton_set(&w->a, s)->mask = slot + 1;
    *out = mask;
    return ERR_OK;
}

static uint32_t where(const constraint *c) {
    return c->history[c->n_history - 1];
}

err_code constraint_mask(constraint *c, const uint64_t **mask, err *e) {
    *mask = NULL;
    if (c->finished) return err_set(e, ERR_INVALID, "the text has ended: nothing may follow its end token");
    walker_begin(c->w);
    uint32_t s = where(c), slot = automaton_set(&c->w->a, s)->mask;
    if (!slot) return make_mask(c, s, mask, e);
    *mask = c->w->masks[slot - 1];
    return ERR_OK;
}

int32_t constraint_forced(constraint *c) {
    const uint64_t *mask = NULL;
    if (constraint_mask(c, &mask, NULL) != ERR_OK) return -1;
    size_t n_words = ((size_t)c->g->trie->n_vocab + 63) / 64;
    int32_t only = -1;
    for (size_t i = 0; i < n_words; i++) {
        if (!mask[i]) continue;
        if (only >= 0 || (mask[i] & (mask[i] - 1))) return -1;
        only = (int32_t)(i * 64 + (size_t)__builtin_ctzll(mask[i]));
    }
    return only;
}

/* ---- walking ------------------------------------------------------------------------------------------------ */

static err_code move(constraint *c, uint32_t s, err *e) {
    if (c->n_history == c->cap_history) {
        uint32_t cap = c->cap_history ? c->cap_history * 2 : 64;
        uint32_t *p = cap > HISTORY_MAX ? NULL : mem_realloc(c->history, cap * sizeof *p);
        if (!p) return err_nomem(e, "the history of a constraint");
        c->history = p;
        c->cap_history = cap;
    }
    c->history[c->n_history++] = s;
    return ERR_OK;
}

static uint32_t step_bytes(automaton *a, uint32_t s, const char *p, size_t n) {
    for (size_t i = 0; i < n && s != SET_DEAD; i++) s = automaton_step(a, s, (uint8_t)p[i]);
    return s;
}

/* The bytes of a token, without taking memory where they are few. */
static uint32_t step_text(automaton *a, const token_trie *t, uint32_t s, int32_t token) {
    buf b = {.max = 1 << 16};
    vocab_token_bytes(t->v, token, false, &b);
    uint32_t to = b.len && !b.failed ? step_bytes(a, s, b.ptr, b.len) : SET_DEAD;
    if (b.failed && a->rc == ERR_OK) a->rc = ERR_NOMEM;
    buf_free(&b);
    return to;
}

err_code constraint_accept(constraint *c, int32_t token, err *e) {
    const token_trie *t = c->g->trie;
    if (token < 0 || (uint32_t)token >= t->n_vocab || c->finished)
        return err_set(e, ERR_INVALID, "token %d may not come next: %s", (int)token,
                       c->finished ? "the text has ended" : "it is not in the vocabulary");
    walker_begin(c->w);
    automaton *a = &c->w->a;
    uint32_t s = where(c), to;
    bool is_text = token_trie_is_text(t, token), ends = false;
    if (vocab_is_end(t->v, token) && automaton_accepts(a, s)) {
        ends = true;
        to = s;
    } else {
        to = automaton_token(a, s, token, is_text);
        if (is_text) to = automaton_union(a, to, step_text(a, t, s, token));
    }
    err_code rc = automaton_check(a, e);
    if (rc) return rc;
    if (to == SET_DEAD) return err_set(e, ERR_INVALID, "token %d may not come next", (int)token);
    rc = move(c, to, e);
    if (!rc) c->finished = ends;
    return rc;
}

err_code constraint_accept_bytes(constraint *c, const char *p, size_t n, err *e) {
    if (c->finished) return err_set(e, ERR_INVALID, "the text has ended");
    walker_begin(c->w);
    uint32_t to = step_bytes(&c->w->a, where(c), p, n);
    err_code rc = automaton_check(&c->w->a, e);
    if (rc) return rc;
    if (to == SET_DEAD) return err_set(e, ERR_INVALID, "the text does not follow the grammar");
    return move(c, to, e);
}

bool constraint_can_end(const constraint *c) {
    walker_begin(c->w);
    return !c->finished && automaton_accepts(&c->w->a, where(c));
}
bool constraint_is_finished(const constraint *c) {
    return c->finished;
}

err_code constraint_rollback(constraint *c, uint32_t n, err *e) {
    if (n >= c->n_history)
        return err_set(e, ERR_INVALID, "a constraint that took %u steps cannot forget %u", c->n_history - 1, n);
    c->n_history -= n;
    if (n) c->finished = false;
    return ERR_OK;
}

/* ---- constraints -------------------------------------------------------------------------------------------- */

err_code constraint_new(constraint **out, grammar *g, err *e) {
    *out = NULL;
    constraint *c = mem_zalloc(sizeof *c);
    if (!c) return err_nomem(e, "a constraint");
    atomic_fetch_add(&g->refs, 1);
    c->g = g;
    err_code rc = walker_take(&c->w, g, e);
    if (!rc) {
        c->w->first = c;
        c->w->n_constraints = 1;
        rc = move(c, SET_START, e);
    }
    if (rc)
        constraint_free(c);
    else
        *out = c;
    return rc;
}

err_code constraint_clone(constraint **out, constraint *c, err *e) {
    *out = NULL;
    if (c->w->n_constraints == CONSTRAINTS_MAX)
        return err_set(e, ERR_BUSY, "a constraint has at most %u clones", CONSTRAINTS_MAX);
    constraint *d = mem_zalloc(sizeof *d);
    if (d) d->history = mem_alloc(c->n_history * sizeof *d->history);
    if (!d || !d->history) {
        mem_free(d);
        return err_nomem(e, "a constraint");
    }
    memcpy(d->history, c->history, c->n_history * sizeof *d->history);
    d->n_history = d->cap_history = c->n_history;
    d->finished = c->finished;
    d->g = c->g;
    d->w = c->w;
    atomic_fetch_add(&c->g->refs, 1);
    d->next = c->w->first;
    c->w->first = d;
    c->w->n_constraints++;
    *out = d;
    return ERR_OK;
}

void constraint_free(constraint *c) {
    if (!c) return;
    if (c->w) {
        constraint **at = &c->w->first;
        while (*at && *at != c) at = &(*at)->next;
        if (*at) *at = c->next;
        if (--c->w->n_constraints == 0) walker_give(c->w, c->g);
    }
    grammar_free(c->g);
    mem_free(c->history);
    mem_free(c);
}

void constraint_get_facts(const constraint *c, constraint_facts *out) {
    const walker *w = c->w;
    *out = (constraint_facts){.n_sets = w->a.sets.n,
                              .n_nodes = w->a.nodes.n,
                              .n_masks = w->n_masks,
                              .bytes = automaton_bytes(&w->a) + w->n_masks * ((uint64_t)c->g->trie->n_vocab / 8),
                              .n_masks_made = w->n_made,
                              .n_steps = w->a.n_steps};
}
