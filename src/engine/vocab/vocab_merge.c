#include "engine/vocab/vocab_internal.h"

#include "base/mem.h"

#include <string.h>

/* Merging symbols of a word until no pair of neighbours is a token: the pair of the lowest rank first, the leftmost
 * among equals. Both SentencePiece (rank = order of scores) and byte-level BPE (rank = order of merges) are this.
 *
 * A queue holds (rank, left symbol) of pairs that existed when they were put in. What comes out counts if its left
 * symbol lives and its pair still has that rank; otherwise it is stale and dropped. The queue has three parts, and the
 * lowest of their fronts is next: `first`, the pairs of the untouched word, sorted once (radix sort: linear); `run`,
 * later pairs that came in increasing order, which is how uniform text makes them: constant time; and `heap`, the
 * others. A merge puts at most two pairs in and there are fewer merges than symbols, so `run`, which grows from the
 * front of one array, and `heap`, which grows from its end, never meet: no allocation while merging.
 */

#define NONE       UINT32_MAX
#define WORD_SHORT 16 /* up to here a scan for the lowest rank is faster than the queue */

static void merger_free(merger *m) {
    mem_free(m->symbols);
    mem_free(m->first);
    mem_free(m->later);
    m->symbols = NULL;
    m->first = m->later = NULL;
    m->cap = 0;
}

void merger_done(merger *m) {
    merger_free(m);
    for (int i = 0; i < 2; i++) mem_free(m->rooms[i].p);
}

err_code merger_reserve(merger *m, size_t n, err *e) {
    m->n = 0;
    if (n <= m->cap) return ERR_OK;
    size_t cap = n < 64 ? 64 : n + n / 4;
    merger_free(m); /* the content is not needed: free first, so that the peak is lower */
    m->symbols = mem_alloc(cap * sizeof *m->symbols);
    m->first = mem_alloc(cap * sizeof *m->first);
    m->later = mem_alloc(2 * cap * sizeof *m->later);
    if (!m->symbols || !m->first || !m->later) {
        merger_free(m);
        return err_nomem(e, "the tokenizer's merges");
    }
    m->cap = cap;
    return ERR_OK;
}

static void merger_add(merger *m, uint32_t start, uint32_t len, int32_t id) {
    uint32_t i = (uint32_t)m->n++;
    m->symbols[i] =
        (symbol){.start = start, .len = len, .id = id, .prev = i ? i - 1 : NONE, .next = NONE, .rank = VOCAB_NO_RANK};
    if (i) m->symbols[i - 1].next = i;
}

/* ---- the queue -------------------------------------------------------------------------------------------- */

/* The heap's element i: four children a node, half the levels of a binary heap. */
static inline uint64_t *heap_at(const merger *m, size_t i) {
    return m->later + 2 * m->cap - 1 - i;
}

static void heap_push(merger *m, uint64_t x) {
    size_t i = m->n_heap++;
    for (; i && *heap_at(m, (i - 1) / 4) > x; i = (i - 1) / 4) *heap_at(m, i) = *heap_at(m, (i - 1) / 4);
    *heap_at(m, i) = x;
}

static uint64_t heap_pop(merger *m) {
    uint64_t top = *heap_at(m, 0), x = *heap_at(m, --m->n_heap);
    size_t n = m->n_heap, i = 0;
    for (size_t child = 1; child < n; child = 4 * i + 1) {
        size_t best = child, last = child + 4 < n ? child + 4 : n;
        for (size_t c = child + 1; c < last; c++)
            if (*heap_at(m, c) < *heap_at(m, best)) best = c;
        if (*heap_at(m, best) >= x) break;
        *heap_at(m, i) = *heap_at(m, best);
        i = best;
    }
    *heap_at(m, i) = x;
    return top;
}

static void queue_put(merger *m, uint64_t x) {
    if (m->at_run == m->n_run || m->later[m->n_run - 1] <= x)
        m->later[m->n_run++] = x;
    else
        heap_push(m, x);
}

static bool queue_get(merger *m, uint64_t *x) {
    uint64_t a = m->at_first < m->n_first ? m->first[m->at_first] : UINT64_MAX;
    uint64_t b = m->at_run < m->n_run ? m->later[m->at_run] : UINT64_MAX;
    uint64_t c = m->n_heap ? *heap_at(m, 0) : UINT64_MAX;
    if (a <= b && a <= c) {
        m->at_first++;
        *x = a;
    } else if (b <= c) {
        m->at_run++;
        *x = b;
    } else {
        *x = heap_pop(m);
    }
    return *x != UINT64_MAX; /* no pair's: its rank would be VOCAB_NO_RANK */
}

/* Sorts `first` by rank; positions are in order already, and each pass keeps the order of equals. `later` is room. */
static void sort_first(merger *m) {
    uint64_t *from = m->first, *to = m->later;
    bool sorted = true;
    for (size_t i = 1; i < m->n_first && sorted; i++) sorted = from[i - 1] <= from[i];
    for (int shift = 32; shift < 64 && !sorted; shift += 11) {
        size_t count[2048] = {0}, sum = 0;
        for (size_t i = 0; i < m->n_first; i++) count[from[i] >> shift & 2047]++;
        for (size_t k = 0; k < 2048; k++) {
            size_t n = count[k];
            count[k] = sum;
            sum += n;
        }
        for (size_t i = 0; i < m->n_first; i++) to[count[from[i] >> shift & 2047]++] = from[i];
        uint64_t *t = from;
        from = to;
        to = t;
    }
    if (from != m->first) memcpy(m->first, from, m->n_first * sizeof *from);
}

/* ---- merging ---- */

static void find_rank(const merger *m, uint32_t i) {
    symbol *s = &m->symbols[i];
    s->rank = VOCAB_NO_RANK;
    if (s->next == NONE) return;
    const symbol *r = &m->symbols[s->next];
    s->rank = m->v->ranks ? spm_pair(m, s, r, &s->merged) : bpe_pair(m, s, r, &s->merged);
}

/* Symbol i takes its right neighbour in; ranks of the two pairs it is in are found anew. */
static void merge_at(merger *m, uint32_t i) {
    symbol *s = &m->symbols[i], *r = &m->symbols[s->next];
    s->len += r->len;
    s->id = s->merged;
    s->next = r->next;
    r->len = 0;
    r->rank = VOCAB_NO_RANK;
    if (s->next != NONE) m->symbols[s->next].prev = i;
    find_rank(m, i);
    if (s->prev != NONE) find_rank(m, s->prev);
}

static void merge_short(merger *m) {
    for (;;) {
        uint32_t best = 0, lowest = VOCAB_NO_RANK;
        for (uint32_t i = 0; i != NONE; i = m->symbols[i].next) {
            if (m->symbols[i].rank >= lowest) continue;
            best = i;
            lowest = m->symbols[i].rank;
        }
        if (lowest == VOCAB_NO_RANK) return;
        merge_at(m, best);
    }
}

static uint64_t queue_key(const merger *m, uint32_t i) {
    return (uint64_t)m->symbols[i].rank << 32 | i;
}

static void merge_long(merger *m) {
    m->n_first = m->at_first = m->n_run = m->at_run = m->n_heap = 0;
    for (uint32_t i = 0; i < m->n; i++)
        if (m->symbols[i].rank != VOCAB_NO_RANK) m->first[m->n_first++] = queue_key(m, i);
    sort_first(m);
    for (uint64_t top; queue_get(m, &top);) {
        uint32_t i = (uint32_t)top;
        symbol *s = &m->symbols[i];
        if (!s->len || s->rank != (uint32_t)(top >> 32)) continue;
        merge_at(m, i);
        if (s->prev != NONE && m->symbols[s->prev].rank != VOCAB_NO_RANK) queue_put(m, queue_key(m, s->prev));
        if (s->rank != VOCAB_NO_RANK) queue_put(m, queue_key(m, i));
    }
}

static void merge_run(merger *m) {
    for (uint32_t i = 0; i < m->n; i++) find_rank(m, i);
    if (m->n > WORD_SHORT)
        merge_long(m);
    else if (m->n)
        merge_short(m);
}

/* ---- long words, a window at a time ------------------------------------------------------------------------ */

/* A long word is merged in windows that overlap, so that what is worked on stays in the cache, and to the same tokens:
 *
 *   A sequence of tokens is the encoding of its text if and only if each two neighbours are the encoding of theirs.
 *
 * (Only if: no merge has crossed the place between two tokens of an encoding, and what happens on its two sides does
 * not depend on the other side. If: take the first merge that crosses a place between two of the tokens. Up to then all
 * merges were inside of tokens, in the order in which the two tokens alone would have done them, so the two alone would
 * have done this one too, and would not be their own encoding.)
 *
 * So when window A and window B, which begins at a token of A, have the same token at the same place, A's tokens up to
 * there and B's from there on are the encoding of both. Where they have none, A is merged again with twice the length:
 * the time stays O(n log n) for any text. */

#define WINDOW  1024u /* characters or bytes */
#define OVERLAP 256u

typedef struct window {
    const merger_piece *p;
    size_t n, end; /* end: of its text */
} window;

/* Merges s[from, to), which is not empty, into `room`. */
static err_code merge_window(merger *m, const char *s, size_t from, size_t to, merger_pieces *room, window *w, err *e) {
    err_code rc = merger_reserve(m, to - from, e);
    if (rc != ERR_OK) return rc;
    m->text = s + from;
    if (m->v->model == SPEC_BPE) {
        for (size_t i = from; i < to; i++) merger_add(m, (uint32_t)(i - from), 1, m->v->byte_ids[(uint8_t)s[i]]);
    } else {
        for (size_t i = from, len; i < to; i += len) {
            len = merger_char_len(s + i, to - i);
            int32_t id = len <= m->v->longest ? vocab_lookup(m->v, s + i, len) : -1;
            merger_add(m, (uint32_t)(i - from), (uint32_t)len, id);
        }
    }
    merge_run(m);
    if (room->cap < m->n) {
        merger_piece *more = mem_realloc(room->p, m->n * sizeof *more);
        if (!more) return err_nomem(e, "the tokenizer's merges");
        room->p = more;
        room->cap = m->n;
    }
    *w = (window){room->p, 0, to};
    for (uint32_t i = 0; i != NONE; i = m->symbols[i].next)
        room->p[w->n++] = (merger_piece){(uint32_t)from + m->symbols[i].start, m->symbols[i].len, m->symbols[i].id};
    return ERR_OK;
}

/* The end of a window of about `len` bytes at `from`: not inside of a character. */
static size_t window_end(const merger *m, const char *s, size_t n, size_t from, size_t len) {
    if (n - from <= len) return n;
    size_t end = from + len;
    for (int k = 0; k < 3 && m->v->model != SPEC_BPE && ((uint8_t)s[end] & 0xc0) == 0x80; k++) end--;
    return end;
}

/* The first token of `a` and of `b` that are the same at the same place; false where there is none. */
static bool meet(const window *a, size_t *i, const window *b, size_t *j) {
    for (*j = 0; *i < a->n && *j < b->n;) {
        const merger_piece *x = &a->p[*i], *y = &b->p[*j];
        if (x->start == y->start && x->len == y->len && x->id == y->id) return true;
        *i += x->start <= y->start;
        *j += y->start <= x->start;
    }
    return false;
}

static err_code put_pieces(merger *m, const char *s, const merger_piece *p, size_t n, id_list *out) {
    err_code rc = ERR_OK;
    for (size_t i = 0; i < n && rc == ERR_OK; i++) {
        if (p[i].id < 0) {
            rc = add_unknown(m->v, m, s + p[i].start, p[i].len, out);
        } else {
            m->after_unk = false;
            rc = id_list_add(out, p[i].id);
        }
    }
    return rc;
}

err_code merge_word(merger *m, const char *s, size_t n, id_list *out) {
    window a, b;
    size_t size = WINDOW, from = 0;
    unsigned mine = 0; /* which room holds `a` */
    err_code rc = merge_window(m, s, 0, window_end(m, s, n, 0, size), &m->rooms[0], &a, out->e);
    while (rc == ERR_OK && a.end < n) {
        size_t i = a.n - 1, j, at;
        while (i && a.end - a.p[i].start < OVERLAP) i--;
        at = a.p[i].start;
        if (i) {
            rc = merge_window(m, s, at, window_end(m, s, n, at, WINDOW), &m->rooms[!mine], &b, out->e);
            if (rc == ERR_OK && b.end > a.end && meet(&a, &i, &b, &j)) {
                rc = put_pieces(m, s, a.p, i, out);
                a = (window){b.p + j, b.n - j, b.end};
                mine = !mine;
                from = a.p[0].start;
                size = WINDOW;
                continue;
            }
        }
        size *= 2;
        if (rc == ERR_OK) rc = merge_window(m, s, from, window_end(m, s, n, from, size), &m->rooms[mine], &a, out->e);
    }
    return rc == ERR_OK ? put_pieces(m, s, a.p, a.n, out) : rc;
}
