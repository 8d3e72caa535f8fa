#include "engine/vocab/vocab_internal.h"

#include "base/bytes.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* BPE over characters, as SentencePiece's models have it: spaces are U+2581 by now, characters are the first symbols,
 * and what is no token in the end goes out as byte tokens. Which pair is merged first is a matter of scores (SPM: the
 * neighbours whose union is the token of the highest score) or of the order of merges (BPE_CHARS). */

/* ---- loading ---------------------------------------------------------------------------------------------- */

typedef struct scored {
    float score;
    uint32_t id;
} scored;

static int by_score(const void *a, const void *b) {
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Scores become ranks: the highest score is rank 0, equal scores share one. */
static err_code load_ranks(vocab *v, const vocab_spec *s, err *e) {
    scored *order = mem_array(v->n, sizeof *order);
    v->ranks = mem_array(v->n, sizeof *v->ranks);
    if (!order || !v->ranks) {
        mem_free(order);
        return err_nomem(e, "the tokenizer's scores");
    }
    for (uint32_t i = 0; i < v->n; i++) order[i] = (scored){s->tokens[i].score, i};
    qsort(order, v->n, sizeof *order, by_score);
    uint32_t rank = 0;
    for (size_t i = 0; i < v->n; i++) {
        if (i && order[i].score != order[i - 1].score) rank++;
        v->ranks[order[i].id] = rank;
    }
    mem_free(order);
    return ERR_OK;
}

/* The byte of "<0x0A>", -1 for other texts. */
static int byte_of(const char *p, size_t n) {
    if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>') return -1;
    int hi = hex_value(p[3]), lo = hex_value(p[4]);
    return hi < 0 || lo < 0 ? -1 : hi << 4 | lo;
}

/* The piece of a token is its text with marks of space as spaces; it is never longer, so it is written in place behind
 * the text (vocab_build left room). */
err_code vocab_make_pieces(vocab *v, err *e) {
    for (uint32_t i = 0; i < v->n; i++) {
        vocab_token *t = &v->tokens[i];
        const char *p = vocab_text_ptr(v, (int32_t)i);
        char *out = v->bytes + t->piece;
        size_t n = 0;
        if (t->type == TYPE_BYTE) {
            int b = byte_of(p, t->text_len);
            if (b < 0)
                return err_set(e, ERR_INVALID,
                               "tokenizer: token %u has the type of a byte, but its text is not like <0x0A>", i);
            out[n++] = (char)b;
            if (v->byte_ids[b] < 0) v->byte_ids[b] = (int32_t)i;
        } else if (t->type == TYPE_CONTROL || t->type == TYPE_UNKNOWN) {
            memcpy(out, p, n = t->text_len);
        } else {
            for (size_t k = 0; k < t->text_len;) {
                if (is_mark(p + k, p + t->text_len)) {
                    out[n++] = ' ';
                    k += 3;
                } else {
                    out[n++] = p[k++];
                }
            }
        }
        t->piece_len = (uint16_t)n;
    }
    return ERR_OK;
}

/* ---- where text may be cut -------------------------------------------------------------------------------- */

/* Where no token holds two characters as neighbours, no merge crosses the place between them: text may be cut there,
 * and many short words are merged instead of a long one, to the same result. Pairs are bits of a table; two pairs that
 * share a bit cost a cut, never a wrong one. */
#define JOIN_BITS (1u << 22)

static inline uint32_t join_of(uint32_t a, uint32_t b) {
    uint64_t h = ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 42);
}

/* The character at s, or what stands for a byte that is none. */
static inline uint32_t char_at(const char *s, size_t n, size_t *len) {
    uint32_t cp;
    int k = utf8_decode(&cp, s, n);
    *len = k > 0 ? (size_t)k : 1;
    return k > 0 ? cp : 0x110000u + (uint8_t)s[0];
}

static err_code load_joins(vocab *v, err *e) {
    if (!(v->joins = mem_array(JOIN_BITS / 64, sizeof *v->joins))) return err_nomem(e, "the vocabulary");
    for (uint32_t id = 0; id < v->n; id++) {
        const vocab_token *t = &v->tokens[id];
        if (!vocab_may_come_of_text(v, (int32_t)id)) continue;
        const char *p = vocab_text_ptr(v, (int32_t)id);
        uint32_t before = 0;
        for (size_t i = 0, len; i < t->text_len; i += len) {
            uint32_t c = char_at(p + i, t->text_len - i, &len), bit = join_of(before, c);
            if (i) v->joins[bit / 64] |= (uint64_t)1 << bit % 64;
            before = c;
        }
    }
    return ERR_OK;
}

err_code chars_load(vocab *v, const vocab_spec *s, err *e) {
    err_code rc = vocab_make_pieces(v, e);
    if (rc == ERR_OK) rc = vocab_make_table(v, e);
    if (rc == ERR_OK) rc = v->model == SPEC_SPM ? load_ranks(v, s, e) : pairs_load(v, s, e);
    if (rc == ERR_OK && v->ranks) rc = pairs_of_unions(v, e);
    return rc == ERR_OK ? load_joins(v, e) : rc;
}

/* ---- encoding --------------------------------------------------------------------------------------------- */

uint32_t spm_pair(const merger *m, const symbol *left, const symbol *right, int32_t *merged) {
    size_t n = (size_t)left->len + right->len;
    if (n > m->v->longest) return VOCAB_NO_RANK;
    if (left->id >= 0 && right->id >= 0) return bpe_pair(m, left, right, merged);
    int32_t id = vocab_lookup(m->v, m->text + left->start, n);
    if (id < 0) return VOCAB_NO_RANK;
    *merged = id;
    return m->v->ranks[id];
}

err_code add_unknown(const vocab *v, merger *m, const char *p, size_t n, id_list *out) {
    bool all = v->byte_fallback;
    for (size_t i = 0; i < n && all; i++) all = v->byte_ids[(uint8_t)p[i]] >= 0;
    if (!all) {
        bool fused = m->after_unk && v->fuse_unk;
        m->after_unk = true;
        return v->unk < 0 || fused ? ERR_OK : id_list_add(out, v->unk);
    }
    err_code rc = ERR_OK;
    m->after_unk = false;
    for (size_t i = 0; i < n && rc == ERR_OK; i++) rc = id_list_add(out, v->byte_ids[(uint8_t)p[i]]);
    return rc;
}

/* Cuts where no merge can cross; a character that joins no neighbour is a token or is none. */
err_code chars_encode(const vocab *v, merger *m, const char *s, size_t n, id_list *out) {
    err_code rc = ERR_OK;
    m->after_unk = false;
    for (size_t from = 0, end; from < n && rc == ERR_OK; from = end) {
        size_t len;
        uint32_t before = char_at(s + from, n - from, &len);
        for (end = from + len; end < n; end += len) {
            uint32_t c = char_at(s + end, n - end, &len), bit = join_of(before, c);
            if (!(v->joins[bit / 64] >> bit % 64 & 1)) break;
            before = c;
        }
        rc = merge_word(m, s + from, end - from, out);
    }
    return rc;
}
