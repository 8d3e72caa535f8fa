#include "engine/vocab/vocab_internal.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

/* SentencePiece unigram: of all ways to cut a word into tokens the one with the highest sum of scores (Viterbi). A
 * character that no token covers alone may be cut out as unknown, ten below the lowest score; neighbours that are
 * unknown go out as one. Sums are doubles in the order of the text, and of equal sums the one found first counts, which
 * is the one whose last token is longest. Time: characters times the longest token. */

#define UNKNOWN_PENALTY 10.0
#define FOUND_MAX       64

err_code unigram_load(vocab *v, const vocab_spec *s, err *e) {
    err_code rc = vocab_make_pieces(v, e);
    if (rc == ERR_OK) rc = word_trie_make(v, e);
    if (rc != ERR_OK) return rc;
    if (v->unk < 0) return err_set(e, ERR_INVALID, "tokenizer: a unigram vocabulary needs an unknown token");
    if (!(v->scores = mem_array(v->n, sizeof *v->scores))) return err_nomem(e, "the tokenizer's scores");
    double lowest = INFINITY;
    for (uint32_t i = 0; i < v->n; i++) {
        v->scores[i] = s->tokens[i].score;
        if (v->scores[i] < lowest) lowest = v->scores[i];
    }
    v->unk_score = lowest - UNKNOWN_PENALTY;
    return ERR_OK;
}

typedef struct best { /* the best way to the place after a byte */
    double score;
    uint32_t from; /* where its last token begins, UINT32_MAX: no way leads here */
    int32_t id;
} best;

static void offer(best *b, double score, size_t from, int32_t id) {
    if (b->from != UINT32_MAX && score <= b->score) return;
    *b = (best){score, (uint32_t)from, id};
}

/* The tokens that begin at a place. In a run of one character they are the same at the next place, as long as the walk
 * that found them ends inside of the run: a long run is not walked through again at each of its characters. */
typedef struct found {
    struct {
        uint32_t len;
        int32_t id;
    } t[FOUND_MAX];
    size_t n, walked; /* bytes looked at */
    bool alone;       /* the character is a token */
    bool full;        /* there were more than fit */
} found;

static void walk(const vocab *v, found *f, best *way, size_t i, size_t len, const char *s, size_t n) {
    uint32_t node = 1;
    double score = way[i].score;
    size_t end = i;
    f->n = 0;
    f->alone = f->full = false;
    while (end < n && (node = word_trie_step(&v->words, node, (uint8_t)s[end]))) {
        int32_t id = v->words.tokens[node];
        end++;
        if (id < 0) continue;
        offer(&way[end], score + (double)v->scores[id], i, id);
        f->alone = f->alone || end - i == len;
        f->full = f->full || f->n == FOUND_MAX;
        if (f->full) continue;
        f->t[f->n].len = (uint32_t)(end - i);
        f->t[f->n++].id = id;
    }
    f->walked = end - i + 1;
}

static void find_ways(const vocab *v, best *way, const char *s, size_t n) {
    found f = {0};
    size_t run_end = 0; /* of the run of one character that i is in */
    for (size_t i = 0, len; i < n; i += len) {
        len = merger_char_len(s + i, n - i);
        bool again = i < run_end && !f.full && f.walked <= run_end - i;
        if (again) {
            for (size_t k = 0; k < f.n; k++)
                offer(&way[i + f.t[k].len], way[i].score + (double)v->scores[f.t[k].id], i, f.t[k].id);
        } else {
            walk(v, &f, way, i, len, s, n);
        }
        if (!f.alone) offer(&way[i + len], way[i].score + v->unk_score, i, v->unk);
        if (i + len < run_end) continue;
        for (run_end = i + len; n - run_end >= len && memcmp(s + run_end, s + i, len) == 0;) run_end += len;
        if (run_end == i + len) run_end = 0;
    }
}

/* Ways are known from their end: turn them round by writing where each token ends at its beginning. */
static err_code put_out(const vocab *v, merger *m, best *way, const char *s, size_t n, id_list *out) {
    err_code rc = ERR_OK;
    size_t next = n; /* way[x].score is used up: `from` of x becomes the end of the token that begins there */
    int32_t id = way[n].id;
    uint32_t at = way[n].from;
    for (;;) {
        uint32_t from = way[at].from;
        int32_t before = way[at].id;
        way[at].from = (uint32_t)next;
        way[at].id = id;
        if (!at) break;
        next = at;
        at = from;
        id = before;
    }
    for (size_t i = 0; i < n && rc == ERR_OK;) {
        size_t end = way[i].from;
        if (way[i].id == v->unk && v->fuse_unk)
            while (end < n && way[end].id == v->unk) end = way[end].from;
        m->after_unk = false;
        rc = way[i].id == v->unk ? add_unknown(v, m, s + i, end - i, out) : id_list_add(out, way[i].id);
        i = end;
    }
    return rc;
}

err_code unigram_encode(const vocab *v, merger *m, const char *s, size_t n, id_list *out) {
    if (!n) return ERR_OK;
    err_code rc = merger_reserve(m, n + 1, out->e); /* room: a symbol is larger than a best */
    if (rc != ERR_OK) return rc;
    _Static_assert(sizeof(best) <= sizeof(symbol), "ways lie where symbols do");
    best *way = (best *)(void *)m->symbols;
    for (size_t i = 0; i <= n; i++) way[i] = (best){0, UINT32_MAX, -1};
    way[0].from = 0;
    find_ways(v, way, s, n);
    return put_out(v, m, way, s, n, out);
}
