#include "engine/vocab_internal.h"

#include "base/bytes.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* SentencePiece as llama models use it: spaces become U+2581, characters are the first symbols, the pair of neighbours
 * whose union is the token of the highest score is merged first, and what is no token in the end goes out as byte
 * tokens. */

#define MARK_OF_SPACE "\xe2\x96\x81"

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
static err_code load_ranks(vocab *v, const gguf *g, err *e) {
    const char *key = "tokenizer.ggml.scores";
    size_t n = 0;
    err_code rc = gguf_arr(g, key, GGUF_F32, &n, e);
    if (rc != ERR_OK) return rc;
    if (n != v->n)
        return err_set(e, ERR_INVALID, "%s: %s has %zu entries, the vocabulary has %u tokens", gguf_path(g), key, n,
                       v->n);
    float *scores = mem_alloc(n * sizeof *scores);
    scored *order = mem_alloc(n * sizeof *order);
    v->ranks = mem_alloc(n * sizeof *v->ranks);
    if (!scores || !order || !v->ranks) rc = err_nomem(e, "the tokenizer's scores");
    if (rc == ERR_OK) rc = gguf_arr_f32(g, key, scores, n, e);
    for (size_t i = 0; rc == ERR_OK && i < n; i++) {
        if (!isfinite(scores[i]))
            rc = err_set(e, ERR_INVALID, "%s: %s: entry %zu is not a number", gguf_path(g), key, i);
        order[i] = (scored){scores[i], (uint32_t)i};
    }
    if (rc == ERR_OK) {
        qsort(order, n, sizeof *order, by_score);
        uint32_t rank = 0;
        for (size_t i = 0; i < n; i++) {
            if (i && order[i].score != order[i - 1].score) rank++;
            v->ranks[order[i].id] = rank;
        }
    }
    mem_free(scores);
    mem_free(order);
    return rc;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* The byte of "<0x0A>", -1 for other texts. */
static int byte_of(const char *p, size_t n) {
    if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>') return -1;
    int hi = hex_digit(p[3]), lo = hex_digit(p[4]);
    return hi < 0 || lo < 0 ? -1 : hi << 4 | lo;
}

/* The piece of a token is its text with marks of space as spaces; it is never longer, so it is written in place behind
 * the text (vocab_new left room). */
static err_code load_pieces(vocab *v, const gguf *g, err *e) {
    for (uint32_t i = 0; i < v->n; i++) {
        vocab_token *t = &v->tokens[i];
        const char *p = vocab_text_ptr(v, (int32_t)i);
        char *out = v->bytes + t->piece;
        size_t n = 0;
        if (t->type == TYPE_BYTE) {
            int b = byte_of(p, t->text_len);
            if (b < 0)
                return err_set(e, ERR_INVALID, "%s: token %u has the type of a byte, but its text is not like <0x0A>",
                               gguf_path(g), i);
            out[n++] = (char)b;
            if (v->byte_ids[b] < 0) v->byte_ids[b] = (int32_t)i;
        } else if (t->type == TYPE_CONTROL || t->type == TYPE_UNKNOWN) {
            memcpy(out, p, n = t->text_len);
        } else {
            for (size_t k = 0; k < t->text_len;) {
                if (t->text_len - k >= 3 && memcmp(p + k, MARK_OF_SPACE, 3) == 0) {
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

/* Where no token holds a mark of space behind another character, no merge crosses such a place and text may be cut
 * there: the same result from short words instead of one long one. */
static bool marks_begin_tokens(const vocab *v) {
    for (uint32_t i = 0; i < v->n; i++) {
        const vocab_token *t = &v->tokens[i];
        const char *p = vocab_text_ptr(v, (int32_t)i);
        if (t->type == TYPE_CONTROL || t->type == TYPE_UNKNOWN || t->type == TYPE_BYTE) continue;
        bool other = false;
        for (size_t k = 0; k < t->text_len;) {
            bool mark = t->text_len - k >= 3 && memcmp(p + k, MARK_OF_SPACE, 3) == 0;
            if (mark && other) return false;
            other = other || !mark;
            k += mark ? 3 : 1;
        }
    }
    return true;
}

err_code spm_load(vocab *v, const gguf *g, err *e) {
    err_code rc = load_pieces(v, g, e);
    if (rc == ERR_OK) rc = load_ranks(v, g, e);
    if (rc == ERR_OK) rc = vocab_make_table(v, e);
    v->marks_begin = rc == ERR_OK && marks_begin_tokens(v);
    return rc;
}

/* ---- encoding --------------------------------------------------------------------------------------------- */

uint32_t spm_pair(const merger *m, const symbol *left, const symbol *right, int32_t *merged) {
    size_t n = (size_t)left->len + right->len;
    if (n > m->v->longest) return VOCAB_NO_RANK;
    int32_t id = vocab_lookup(m->v, m->text + left->start, n);
    if (id < 0) return VOCAB_NO_RANK;
    *merged = id;
    return m->v->ranks[id];
}

/* A symbol that is no token: its bytes, or the unknown token where the vocabulary lacks one of them. */
static err_code add_bytes(const vocab *v, const char *p, size_t n, id_list *out) {
    err_code rc = ERR_OK;
    bool all = true;
    for (size_t i = 0; i < n; i++) all = all && v->byte_ids[(uint8_t)p[i]] >= 0;
    if (!all) return v->unk >= 0 ? id_list_add(out, v->unk) : ERR_OK;
    for (size_t i = 0; i < n && rc == ERR_OK; i++) rc = id_list_add(out, v->byte_ids[(uint8_t)p[i]]);
    return rc;
}

static err_code encode_word(const vocab *v, merger *m, const char *s, size_t n, id_list *out) {
    err_code rc = merger_reserve(m, n, out->e);
    if (rc != ERR_OK) return rc;
    m->text = s;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int k = utf8_decode(&cp, s + i, n - i);
        size_t len = k > 0 ? (size_t)k : 1;
        merger_add(m, (uint32_t)i, (uint32_t)len, len <= v->longest ? vocab_lookup(v, s + i, len) : -1);
        i += len;
    }
    merge_run(m);
    for (size_t i = 0; i < m->n && rc == ERR_OK; i++) {
        const symbol *y = &m->symbols[i];
        if (!y->len) continue;
        rc = y->id >= 0 ? id_list_add(out, y->id) : add_bytes(v, s + y->start, y->len, out);
    }
    return rc;
}

static bool is_mark(const char *p, const char *end) {
    return end - p >= 3 && memcmp(p, MARK_OF_SPACE, 3) == 0;
}

/* The end of the word at p: before the next mark of space that follows another character. */
static const char *word_end(const char *p, const char *end) {
    while (is_mark(p, end)) p += 3;
    while (p < end && !is_mark(p, end)) {
        const char *q = memchr(p + 1, MARK_OF_SPACE[0], (size_t)(end - p) - 1);
        p = q ? q : end;
    }
    return p;
}

err_code spm_encode(const vocab *v, merger *m, const char *s, size_t n, bool prefix, id_list *out) {
    size_t spaces = prefix;
    for (size_t i = 0; i < n; i++) spaces += s[i] == ' ';
    char *text = mem_alloc(n + 3 * spaces);
    if (!text) return err_nomem(out->e, "the text to tokenize");
    char *q = text;
    if (prefix) {
        memcpy(q, MARK_OF_SPACE, 3);
        q += 3;
    }
    for (size_t i = 0; i < n; i++) {
        if (s[i] == ' ') {
            memcpy(q, MARK_OF_SPACE, 3);
            q += 3;
        } else {
            *q++ = s[i];
        }
    }
    err_code rc = ERR_OK;
    for (const char *p = text; p < q && rc == ERR_OK;) {
        const char *end = v->marks_begin ? word_end(p, q) : q;
        rc = encode_word(v, m, p, (size_t)(end - p), out);
        p = end;
    }
    mem_free(text);
    return rc;
}
