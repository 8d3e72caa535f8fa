#include "engine/vocab/vocab_internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* A vocab as one run of bytes: a head with all that is a number, then its arrays as they are in memory, each at a
 * multiple of 64. Reading copies nothing: arrays point into the bytes. What is checked is what encoding relies on, so
 * that no bytes lead outside of them or into a loop without end: indices, the end of every chain, and a free place in
 * every table (a search stops there). Whether the tables say what the tokens say is a matter of the file's sums. */

enum {
    A_TOKENS,
    A_BYTES,
    A_TABLE,
    A_RANKS,
    A_JOINS,
    A_PAIRS,
    A_PAIR_BITS,
    A_BYTE_PAIRS,
    A_EDGES,
    A_NODE_TOKENS,
    A_SCORES,
    A_CHARSMAP,
    A_RAW,
    A_NORMALIZED,
    N_ARRAYS
};

#define IMAGE_MAGIC 0x31424143464f4c50u /* changes with the layout */
#define JOINS_BYTES ((1u << 22) / 8)    /* JOIN_BITS of vocab_spm.c */

typedef struct image_trie {
    uint32_t n, always;
    uint8_t first[256];
} image_trie;

typedef struct image_head {
    uint64_t magic, head_bytes;
    uint32_t token_bytes, pair_bytes, node_bytes;
    uint32_t model, n, longest, table_mask, pairs_mask, words_mask, n_word_nodes, mark_node;
    uint32_t form, prefix, cut, max_word, bert;
    uint32_t escape_spaces, early_marks, ignore_merges, byte_fallback, fuse_unk, lines;
    double unk_score;
    char kind[48];
    int32_t byte_ids[256];
    int32_t bos, eos, eot, eom, unk;
    int32_t before[SPEC_AROUND_MAX], after[SPEC_AROUND_MAX];
    uint32_t n_before, n_after;
    image_trie raw, normalized;
    struct {
        uint64_t at, len; /* len 0: the vocab has none */
    } arrays[N_ARRAYS];
} image_head;

typedef struct span {
    const void *p;
    size_t len;
} span;

/* The name of a pre-tokenizer stands behind the slash of the kind. */
static const pretok *pre_of(const char *kind) {
    const char *slash = strchr(kind, '/');
    return slash ? pretok_find(slash + 1, strlen(slash + 1)) : NULL;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

static size_t text_bytes(const vocab *v) {
    size_t n = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        const vocab_token *t = &v->tokens[i];
        size_t a = (size_t)t->text + t->text_len, b = (size_t)t->piece + t->piece_len;
        if (a > n) n = a;
        if (b > n) n = b;
    }
    return n ? n : 1;
}

static void list_arrays(const vocab *v, span a[N_ARRAYS]) {
    memset(a, 0, N_ARRAYS * sizeof *a);
    a[A_TOKENS] = (span){v->tokens, v->n * sizeof *v->tokens};
    a[A_BYTES] = (span){v->bytes, text_bytes(v)};
    if (v->table) a[A_TABLE] = (span){v->table, ((size_t)v->table_mask + 1) * sizeof *v->table};
    if (v->ranks) a[A_RANKS] = (span){v->ranks, v->n * sizeof *v->ranks};
    if (v->joins) a[A_JOINS] = (span){v->joins, JOINS_BYTES};
    if (v->pairs) a[A_PAIRS] = (span){v->pairs, ((size_t)v->pairs_mask + 1) * sizeof *v->pairs};
    if (v->pair_bits) a[A_PAIR_BITS] = (span){v->pair_bits, (1u << PAIR_BITS_LOG) / 8};
    if (v->byte_pairs) a[A_BYTE_PAIRS] = (span){v->byte_pairs, 256 * sizeof *v->byte_pairs};
    if (v->words.edges) a[A_EDGES] = (span){v->words.edges, ((size_t)v->words.mask + 1) * sizeof *v->words.edges};
    if (v->words.tokens) a[A_NODE_TOKENS] = (span){v->words.tokens, v->words.n_nodes * sizeof *v->words.tokens};
    if (v->scores) a[A_SCORES] = (span){v->scores, v->n * sizeof *v->scores};
    if (v->charsmap) a[A_CHARSMAP] = (span){v->charsmap, v->n_charsmap};
    if (v->raw.nodes) a[A_RAW] = (span){v->raw.nodes, v->raw.n * sizeof *v->raw.nodes};
    if (v->normalized.nodes) a[A_NORMALIZED] = (span){v->normalized.nodes, v->normalized.n * sizeof *v->raw.nodes};
}

static void put_trie(image_trie *out, const special_trie *t) {
    out->n = t->nodes ? t->n : 0;
    out->always = t->always;
    for (int i = 0; i < 256; i++) out->first[i] = t->first[i];
}

static void fill_head(image_head *h, const vocab *v) {
    memset(h, 0, sizeof *h);
    h->magic = IMAGE_MAGIC;
    h->head_bytes = sizeof *h;
    h->token_bytes = sizeof(vocab_token);
    h->pair_bytes = sizeof(merge_pair);
    h->node_bytes = sizeof(trie_node);
    h->model = (uint32_t)v->model;
    h->n = v->n;
    h->longest = v->longest;
    h->table_mask = v->table_mask;
    h->pairs_mask = v->pairs_mask;
    h->words_mask = v->words.mask;
    h->n_word_nodes = v->words.n_nodes;
    h->mark_node = v->mark_node;
    h->form = (uint32_t)v->form;
    h->prefix = (uint32_t)v->prefix;
    h->cut = (uint32_t)v->cut;
    h->max_word = v->max_word;
    h->bert = v->bert;
    h->escape_spaces = v->escape_spaces;
    h->early_marks = v->early_marks;
    h->ignore_merges = v->ignore_merges;
    h->byte_fallback = v->byte_fallback;
    h->fuse_unk = v->fuse_unk;
    h->lines = v->lines;
    h->unk_score = v->unk_score;
    snprintf(h->kind, sizeof h->kind, "%s", v->kind);
    memcpy(h->byte_ids, v->byte_ids, sizeof h->byte_ids);
    h->bos = v->bos;
    h->eos = v->eos;
    h->eot = v->eot;
    h->eom = v->eom;
    h->unk = v->unk;
    memcpy(h->before, v->before, sizeof h->before);
    memcpy(h->after, v->after, sizeof h->after);
    h->n_before = v->n_before;
    h->n_after = v->n_after;
    put_trie(&h->raw, &v->raw);
    put_trie(&h->normalized, &v->normalized);
}

static void append_aligned(buf *out, const void *p, size_t n) {
    static const char zeros[64];
    buf_append(out, p, n);
    buf_append(out, zeros, (64 - n % 64) % 64);
}

err_code vocab_image_write(const vocab *v, buf *out, err *e) {
    image_head h;
    span a[N_ARRAYS];
    if (v->pre && pre_of(v->kind) != v->pre)
        return err_set(e, ERR_UNSUPPORTED, "tokenizer: the name of its pre-tokenizer is too long for an image");
    fill_head(&h, v);
    list_arrays(v, a);
    uint64_t at = (sizeof h + 63) / 64 * 64;
    for (int i = 0; i < N_ARRAYS; i++) {
        h.arrays[i].at = at;
        h.arrays[i].len = a[i].len;
        at += (a[i].len + 63) / 64 * 64;
    }
    append_aligned(out, &h, sizeof h);
    for (int i = 0; i < N_ARRAYS; i++)
        if (a[i].len) append_aligned(out, a[i].p, a[i].len);
    return buf_check(out, "an image of a tokenizer", e);
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

typedef struct image {
    uint8_t *p;
    size_t n;
    const image_head *h;
} image;

/* Array i, which has `len` bytes or, where `maybe`, none; false where it has another length. */
static bool take(const image *m, int i, uint64_t len, bool maybe, void *out_pointer) {
    uint64_t at = m->h->arrays[i].at, n = m->h->arrays[i].len;
    void *p = NULL;
    if (n == 0 && maybe) {
        memcpy(out_pointer, &p, sizeof p);
        return true;
    }
    if (n != len || n == 0 || at % 64 || at > m->n || n > m->n - at) return false;
    p = m->p + at;
    memcpy(out_pointer, &p, sizeof p); /* any kind of pointer */
    return true;
}

static bool is_mask(uint32_t mask) {
    return (mask & (mask + 1)) == 0 && mask < 1u << 28;
}

static bool id_ok(const vocab *v, int32_t id) { /* or none */
    return id >= -1 && id < (int32_t)v->n;
}

static bool take_arrays(vocab *v, const image *m) {
    const image_head *h = m->h;
    bool merges = v->model == SPEC_SPM || v->model == SPEC_BPE || v->model == SPEC_BPE_CHARS;
    bool words = v->model == SPEC_UNIGRAM || v->model == SPEC_WORDPIECE;
    uint64_t n_bytes = h->arrays[A_BYTES].len, slots = (uint64_t)h->table_mask + 1, pairs = (uint64_t)h->pairs_mask + 1,
             edges = (uint64_t)h->words_mask + 1;
    v->n_charsmap = (size_t)h->arrays[A_CHARSMAP].len;
    return take(m, A_TOKENS, (uint64_t)v->n * sizeof *v->tokens, false, &v->tokens) &&
           take(m, A_BYTES, n_bytes, false, &v->bytes) &&
           take(m, A_TABLE, slots * sizeof *v->table, !merges, &v->table) &&
           take(m, A_RANKS, (uint64_t)v->n * sizeof *v->ranks, v->model != SPEC_SPM, &v->ranks) &&
           take(m, A_JOINS, JOINS_BYTES, !merges || v->model == SPEC_BPE, &v->joins) &&
           take(m, A_PAIRS, pairs * sizeof *v->pairs, !merges, &v->pairs) &&
           take(m, A_PAIR_BITS, (1u << PAIR_BITS_LOG) / 8, !merges, &v->pair_bits) &&
           take(m, A_BYTE_PAIRS, 256 * sizeof *v->byte_pairs, true, &v->byte_pairs) &&
           take(m, A_EDGES, edges * sizeof *v->words.edges, !words, &v->words.edges) &&
           take(m, A_NODE_TOKENS, (uint64_t)h->n_word_nodes * sizeof *v->words.tokens, !words, &v->words.tokens) &&
           take(m, A_SCORES, (uint64_t)v->n * sizeof *v->scores, v->model != SPEC_UNIGRAM, &v->scores) &&
           take(m, A_CHARSMAP, v->n_charsmap, true, &v->charsmap) &&
           take(m, A_RAW, (uint64_t)h->raw.n * sizeof *v->raw.nodes, true, &v->raw.nodes) &&
           take(m, A_NORMALIZED, (uint64_t)h->normalized.n * sizeof *v->raw.nodes, true, &v->normalized.nodes);
}

static bool tokens_ok(const vocab *v, uint64_t n_bytes) {
    for (uint32_t i = 0; i < v->n; i++) {
        const vocab_token *t = &v->tokens[i];
        uint8_t end;
        memcpy(&end, &t->is_end, 1);
        if (t->text > n_bytes || t->text_len > n_bytes - t->text || t->piece > n_bytes ||
            t->piece_len > n_bytes - t->piece || t->text_len > VOCAB_TOKEN_BYTES_MAX ||
            t->piece_len > VOCAB_TOKEN_BYTES_MAX || t->type > TYPE_BYTE || end > 1)
            return false;
    }
    return true;
}

static bool table_ok(const vocab *v) {
    bool room = !v->table;
    for (size_t i = 0; v->table && i <= v->table_mask; i++) {
        if (v->table[i] > v->n) return false;
        room |= v->table[i] == 0;
    }
    return room;
}

static bool pairs_ok(const vocab *v) {
    bool room = !v->pairs;
    for (size_t i = 0; v->pairs && i <= v->pairs_mask; i++) {
        const merge_pair *p = &v->pairs[i];
        if (p->left < 0)
            room = true;
        else if (p->merged < 0 || p->merged >= (int32_t)v->n)
            return false;
    }
    for (size_t i = 0; v->byte_pairs && i < 256 * 256; i++) {
        const byte_pair *p = &v->byte_pairs[i / 256][i % 256];
        if (p->rank != VOCAB_NO_RANK && (p->merged < 0 || p->merged >= (int32_t)v->n)) return false;
    }
    return room;
}

static bool words_ok(const vocab *v) {
    const word_trie *t = &v->words;
    if (!t->edges) return !t->tokens;
    if (t->n_nodes < 2 || v->mark_node >= t->n_nodes) return false;
    bool room = false;
    for (size_t i = 0; i <= t->mask; i++) {
        if (t->edges[i].child >= t->n_nodes) return false;
        room |= t->edges[i].child == 0;
    }
    for (uint32_t i = 0; i < t->n_nodes; i++)
        if (!id_ok(v, t->tokens[i])) return false;
    return room;
}

/* Nodes come after their parents and before what they point to as next, so every walk ends. */
static bool special_ok(const vocab *v, special_trie *t, const image_trie *h) {
    t->n = h->n;
    t->always = h->always != 0;
    for (int i = 0; i < 256; i++) t->first[i] = h->first[i] != 0;
    for (uint32_t i = 0; t->nodes && i < t->n; i++) {
        const trie_node *x = &t->nodes[i];
        if (x->child >= t->n || (x->child && x->child <= i) || (x->next && x->next >= i) || !id_ok(v, x->token))
            return false;
    }
    return true;
}

static bool ids_ok(const vocab *v) {
    const int32_t named[] = {v->bos, v->eos, v->eot, v->eom, v->unk};
    bool ok = v->n_before <= SPEC_AROUND_MAX && v->n_after <= SPEC_AROUND_MAX;
    for (int i = 0; i < 5; i++) ok = ok && id_ok(v, named[i]);
    for (int i = 0; i < 256; i++) ok = ok && id_ok(v, v->byte_ids[i]);
    for (int i = 0; ok && i < v->n_before; i++) ok = v->before[i] >= 0 && v->before[i] < (int32_t)v->n;
    for (int i = 0; ok && i < v->n_after; i++) ok = v->after[i] >= 0 && v->after[i] < (int32_t)v->n;
    bool needs_unk = v->model == SPEC_UNIGRAM || v->model == SPEC_WORDPIECE;
    return ok && (!needs_unk || v->unk >= 0);
}

static bool take_head(vocab *v, const image_head *h) {
    if (h->model > SPEC_WORDPIECE || h->form > SPEC_FORM_NFKD || h->prefix > SPEC_PREFIX_FIRST ||
        h->cut > SPEC_WORDS_SPACE || h->n == 0 || h->n > VOCAB_TOKENS_MAX || !is_mask(h->table_mask) ||
        !is_mask(h->pairs_mask) || !is_mask(h->words_mask) || h->n_before > SPEC_AROUND_MAX ||
        h->n_after > SPEC_AROUND_MAX || h->bert > UINT8_MAX || !memchr(h->kind, 0, sizeof h->kind))
        return false;
    v->model = (spec_model)h->model;
    v->n = h->n;
    v->longest = h->longest;
    v->table_mask = h->table_mask;
    v->pairs_mask = h->pairs_mask;
    v->words.mask = h->words_mask;
    v->words.n_nodes = h->n_word_nodes;
    v->mark_node = h->mark_node;
    v->form = (spec_form)h->form;
    v->prefix = (spec_prefix)h->prefix;
    v->cut = (spec_words)h->cut;
    v->max_word = h->max_word;
    v->bert = (uint8_t)h->bert;
    v->escape_spaces = h->escape_spaces != 0;
    v->early_marks = h->early_marks != 0;
    v->ignore_merges = h->ignore_merges != 0;
    v->byte_fallback = h->byte_fallback != 0;
    v->fuse_unk = h->fuse_unk != 0;
    v->lines = h->lines != 0;
    v->unk_score = h->unk_score;
    memcpy(v->kind, h->kind, sizeof v->kind);
    memcpy(v->byte_ids, h->byte_ids, sizeof v->byte_ids);
    v->bos = h->bos;
    v->eos = h->eos;
    v->eot = h->eot;
    v->eom = h->eom;
    v->unk = h->unk;
    memcpy(v->before, h->before, sizeof v->before);
    memcpy(v->after, h->after, sizeof v->after);
    v->n_before = (uint8_t)h->n_before;
    v->n_after = (uint8_t)h->n_after;
    v->pre = v->model == SPEC_BPE ? pre_of(v->kind) : NULL;
    return v->model != SPEC_BPE || v->pre;
}

static bool check(vocab *v, const image *m) {
    const image_head *h = m->h;
    if (m->n < sizeof *h || h->magic != IMAGE_MAGIC || h->head_bytes != sizeof *h ||
        h->token_bytes != sizeof(vocab_token) || h->pair_bytes != sizeof(merge_pair) ||
        h->node_bytes != sizeof(trie_node))
        return false;
    return take_head(v, h) && take_arrays(v, m) && ids_ok(v) && tokens_ok(v, h->arrays[A_BYTES].len) && table_ok(v) &&
           pairs_ok(v) && words_ok(v) && special_ok(v, &v->raw, &h->raw) &&
           special_ok(v, &v->normalized, &h->normalized);
}

err_code vocab_image_read(vocab **out, void *p, size_t n, const char *name, err *e) {
    *out = NULL;
    vocab *v = mem_zalloc(sizeof *v);
    if (!v) return err_nomem(e, "the vocabulary");
    image m = {p, n, p};
    err_code rc = ERR_OK;
    if (!check(v, &m))
        rc = err_set(e, ERR_INVALID, "%s: its image of a tokenizer is malformed", name);
    else if (v->charsmap)
        rc = charsmap_check(v->charsmap, v->n_charsmap, name, e);
    if (rc != ERR_OK) {
        mem_free(v);
        return rc;
    }
    v->image = p;
    v->image_bytes = n;
    *out = v;
    return ERR_OK;
}

size_t vocab_image_bytes(const vocab *v) {
    return v->image_bytes;
}
