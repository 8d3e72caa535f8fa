/* The detector: its entities, and from hits to findings. */
#include "data/data.h"

#include "base/mem.h"
#include "data/detect/detect_rules.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SPARES     4    /* scratches kept for the next scan */
#define SPARE_HITS 4096 /* of one that is kept */

struct detector {
    words *w;
    rules *own; /* NULL: none */
    unsigned n;
    entity_info info[ENT_MAX];
};

static const entity_info built_in[] = {
#define X(id, name, group, flags, word) {name, group, word, flags},
    ENTITY_TABLE(X)
#undef X
};
_Static_assert(ENT_BUILT_IN < 64, "a set of built-in entities fits one word");

err_code detector_new(detector **out, const char *own, size_t n, const char *name, err *e) {
    *out = NULL;
    detector *d = mem_zalloc(sizeof *d);
    if (!d) return err_nomem(e, "a detector");
    memcpy(d->info, built_in, sizeof built_in);
    d->n = ENT_BUILT_IN;
    err_code rc = words_new(&d->w, e);
    if (!rc && own) rc = rules_new(&d->own, own, n, name ? name : "rules", d->info, &d->n, e);
    if (rc) {
        detector_free(d);
        return rc;
    }
    *out = d;
    return ERR_OK;
}

void detector_free(detector *d) {
    if (!d) return;
    words_free(d->w);
    rules_free(d->own);
    mem_free(d);
}

unsigned detector_entities(const detector *d) {
    return d->n;
}

const entity_info *detector_entity(const detector *d, unsigned ent) {
    return ent < d->n ? &d->info[ent] : NULL;
}

static bool same(const char *name, const char *word, size_t n) {
    return name && strlen(name) == n && memcmp(name, word, n) == 0;
}

bool detector_find(const detector *d, const char *word, size_t n, entity_set *out) {
    unsigned flag = flag_find(word, n);
    bool found = false;
    memset(out, 0, sizeof *out);
    for (unsigned i = 0; i < d->n; i++) {
        const entity_info *x = &d->info[i];
        if (!same(x->name, word, n) && !same(x->group, word, n) && !(x->flags & flag)) continue;
        entity_set_add(out, i);
        found = true;
    }
    return found;
}

/* ---- findings ----------------------------------------------------------------------------------------------- */

/* A scan is short and its window of tokens large: as many threads as there are processors scan at a time, however many
 * requests there are, and they find the windows of the last ones in the processor's cache. What a window holds is
 * places in texts, never their words. */
static struct {
    pthread_mutex_t lock;
    scratch *list[SPARES];
    unsigned n;
} spare = {.lock = PTHREAD_MUTEX_INITIALIZER};

static scratch *take_spare(void) {
    pthread_mutex_lock(&spare.lock);
    scratch *x = spare.n ? spare.list[--spare.n] : NULL;
    pthread_mutex_unlock(&spare.lock);
    return x;
}

static bool give_spare(scratch *x) {
    if (x->cap_hits > SPARE_HITS || x->cap_taken > SPARE_HITS) return false;
    pthread_mutex_lock(&spare.lock);
    bool room = spare.n < SPARES;
    if (room) spare.list[spare.n++] = x;
    pthread_mutex_unlock(&spare.lock);
    return room;
}

void findings_free(findings *f) {
    scratch *x = f->scratch;
    if (x) {
        norm_free(&x->m);
        rules_scratch_free(x->match);
        x->match = NULL;
        if (!give_spare(x)) {
            mem_free(x->hits);
            mem_free(x->taken);
            mem_free(x);
        }
    }
    mem_free(f->list);
    memset(f, 0, sizeof *f);
}

static err_code scratch_of(findings *f, scratch **out, err *e) {
    if (!f->scratch) f->scratch = take_spare();
    if (!f->scratch) {
        scratch *x = mem_alloc(sizeof *x);
        if (!x) return err_nomem(e, "a scan");
        memset(x, 0, offsetof(scratch, tok)); /* the window is large, and is written before it is read */
        f->scratch = x;
    }
    *out = f->scratch;
    (*out)->n_hits = 0;
    (*out)->work = 0;
    return ERR_OK;
}

/* Who is first where two want the same bytes. */
static int by_rank(const void *pa, const void *pb) {
    const hit *a = pa, *b = pb;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    uint32_t la = a->to - a->from, lb = b->to - b->from;
    if (la != lb) return la > lb ? -1 : 1;
    if (a->entity != b->entity) return a->entity < b->entity ? -1 : 1;
    return a->from < b->from ? -1 : a->from > b->from;
}

static int by_place(const void *pa, const void *pb) {
    const finding *a = pa, *b = pb;
    return a->from < b->from ? -1 : a->from > b->from;
}

/* The bits [from, to) of a bitmap: false where one is set, else sets them all. Word by word: recognisers of one entity
 * do not overlap themselves by more than a few times, so all hits together cost a fixed number of steps a byte. */
static bool take(uint64_t *bits, size_t from, size_t to) {
    for (int pass = 0; pass < 2; pass++)
        for (size_t at = from; at < to;) {
            size_t end = (at | 63) + 1 < to ? (at | 63) + 1 : to;
            uint64_t mask = ~UINT64_C(0) << (at & 63);
            if (end & 63) mask &= ~(~UINT64_C(0) << (end & 63));
            if (pass)
                bits[at >> 6] |= mask;
            else if (bits[at >> 6] & mask)
                return false;
            at = end;
        }
    return true;
}

static err_code resolve(scratch *x, findings *f, err *e) {
    if (!x->n_hits) return ERR_OK;
    size_t need = x->m.n / 64 + 1;
    if (need > x->cap_taken) {
        mem_free(x->taken);
        x->cap_taken = 0;
        if (!(x->taken = mem_array(need, sizeof *x->taken))) return err_nomem(e, "findings");
        x->cap_taken = need;
    }
    memset(x->taken, 0, need * sizeof *x->taken);
    qsort(x->hits, x->n_hits, sizeof *x->hits, by_rank);
    for (size_t i = 0; i < x->n_hits; i++) {
        const hit *h = &x->hits[i];
        if (!take(x->taken, h->from, h->to)) continue;
        if (f->n == FINDINGS_MAX)
            return err_set(e, ERR_UNAVAILABLE, "text: more than %d findings; it cannot be decided", FINDINGS_MAX);
        if (f->n == f->cap) {
            size_t cap = f->cap ? f->cap * 2 : 32;
            finding *list = mem_realloc(f->list, cap * sizeof *list);
            if (!list) return err_nomem(e, "findings");
            f->list = list;
            f->cap = cap;
        }
        finding *y = &f->list[f->n++];
        *y = (finding){.entity = h->entity, .score = h->score};
        norm_back(&x->m, h->from, h->to, &y->from, &y->to);
    }
    qsort(f->list, f->n, sizeof *f->list, by_place);
    return ERR_OK;
}

err_code detector_scan(const detector *d, const char *text, size_t n, findings *f, err *e) {
    scratch *x = NULL;
    f->n = 0;
    if (n > DETECT_TEXT_MAX)
        return err_set(e, ERR_UNAVAILABLE, "text: %zu bytes are more than the %zu that can be looked through", n,
                       DETECT_TEXT_MAX);
    err_code rc = scratch_of(f, &x, e);
    if (!rc) rc = norm_make(&x->m, text, n, e);
    if (rc) return rc;
    scan s = {.x = x, .p = x->m.p, .n = x->m.n, .w = d->w, .own = d->own};
    rc = scan_run(&s);
    if (!rc && d->own) rc = rules_patterns(&s, d->own, e);
    if (rc && !s.failed) return rc;
    if (s.failed) rc = s.code;
    if (rc == ERR_NOMEM) return err_nomem(e, "findings");
    if (rc) return err_set(e, rc, "text: more than %zu possible findings; it cannot be decided", HITS_MAX);
    rc = resolve(x, f, e);
    if (rc) f->n = 0;
    return rc;
}
