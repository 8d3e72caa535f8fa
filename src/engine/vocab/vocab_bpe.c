#include "engine/vocab/vocab_internal.h"

#include "base/bytes.h"
#include "base/mem.h"

#include <string.h>

/* Byte-level BPE (GPT-2): text is cut into words (pretok.c), a word's bytes are the first symbols, and merges are
 * applied in the order of the file's list. The file writes bytes as printable characters; here they are bytes again
 * from loading on. */

/* ---- the characters of bytes ------------------------------------------------------------------------------- */

/* '!' to '~', U+00A1 to U+00AC and U+00AE to U+00FF stand for themselves, the other 68 bytes for U+0100 and on. */
static int byte_of_char(uint32_t cp) {
    if ((cp >= 0x21 && cp <= 0x7e) || (cp >= 0xa1 && cp <= 0xac) || (cp >= 0xae && cp <= 0xff)) return (int)cp;
    if (cp < 0x100 || cp > 0x143) return -1;
    uint32_t k = cp - 0x100;
    return k < 33 ? (int)k : k < 67 ? (int)(k - 33 + 0x7f) : 0xad;
}

/* Writes the bytes that text stands for and returns how many, SIZE_MAX where a character stands for none. */
static size_t to_bytes(char *out, const char *p, size_t n) {
    size_t len = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int k = utf8_decode(&cp, p + i, n - i), b = k > 0 ? byte_of_char(cp) : -1;
        if (b < 0) return SIZE_MAX;
        out[len++] = (char)b;
        i += (size_t)k;
    }
    return len;
}

/* ---- loading ---------------------------------------------------------------------------------------------- */

static void load_pieces(vocab *v) {
    for (uint32_t i = 0; i < v->n; i++) {
        vocab_token *t = &v->tokens[i];
        size_t n = SIZE_MAX;
        if (t->type == TYPE_NORMAL || t->type == TYPE_UNDEFINED || t->type == TYPE_UNUSED)
            n = to_bytes(v->bytes + t->piece, vocab_text_ptr(v, (int32_t)i), t->text_len);
        if (n == SIZE_MAX) { /* an added token: plain text, and nothing that merging makes */
            t->piece = t->text;
            n = t->text_len;
            if (t->type == TYPE_NORMAL || t->type == TYPE_UNDEFINED) t->type = TYPE_UNUSED;
        }
        t->piece_len = (uint16_t)n;
    }
}

static inline uint64_t pair_hash(int32_t left, int32_t right) {
    return ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
}
static inline uint32_t pair_slot(const vocab *v, uint64_t hash) {
    return (uint32_t)(hash >> 32) & v->pairs_mask;
}
/* Most pairs that are asked for do not merge: a bit for each that may, in a table that stays in the cache. */
static inline uint32_t pair_bit(uint64_t hash) {
    return (uint32_t)(hash >> (64 - PAIR_BITS_LOG));
}

/* Whether these bytes are a special token's, which no merge makes. */
static bool special_text(const vocab *v, const char *p, size_t n) {
    size_t len;
    return special_match(v, &v->raw, p, n, true, &len) >= 0 && len == n;
}

static err_code add_pair(vocab *v, merge_pair p, err *e) {
    uint64_t hash = pair_hash(p.left, p.right);
    uint32_t i = pair_slot(v, hash), bit = pair_bit(hash), probes = 0;
    for (; v->pairs[i].left >= 0; i = (i + 1) & v->pairs_mask) {
        if (v->pairs[i].left == p.left && v->pairs[i].right == p.right)
            return ERR_OK; /* twice: the first rank counts */
        if (++probes > VOCAB_PROBES_MAX)
            return err_set(e, ERR_INVALID, "tokenizer: the merges were made to be slow: too many fall together");
    }
    v->pairs[i] = p;
    v->pair_bits[bit / 64] |= (uint64_t)1 << bit % 64;
    return ERR_OK;
}

/* Both sides and both together must be tokens; a merge that would make a control token of text is left out. */
static err_code add_merge(vocab *v, const spec_merge *m, uint32_t rank, err *e) {
    char bytes[2 * VOCAB_TOKEN_BYTES_MAX];
    if (m->left < 0 || m->right < 0 || (uint32_t)m->left >= v->n || (uint32_t)m->right >= v->n)
        return err_set(e, ERR_INVALID, "tokenizer: merge %u is not made of tokens", rank);
    const vocab_token *l = &v->tokens[m->left], *r = &v->tokens[m->right];
    size_t n_left = v->model == SPEC_BPE ? l->piece_len : l->text_len;
    size_t n_right = v->model == SPEC_BPE ? r->piece_len : r->text_len;
    memcpy(bytes, v->bytes + (v->model == SPEC_BPE ? l->piece : l->text), n_left);
    memcpy(bytes + n_left, v->bytes + (v->model == SPEC_BPE ? r->piece : r->text), n_right);
    int32_t left = vocab_lookup(v, bytes, n_left), right = vocab_lookup(v, bytes + n_left, n_right);
    int32_t merged = vocab_lookup(v, bytes, n_left + n_right);
    if (left >= 0 && right >= 0 && merged >= 0) return add_pair(v, (merge_pair){left, right, merged, rank}, e);
    if (special_text(v, bytes, n_left) || special_text(v, bytes + n_left, n_right) ||
        special_text(v, bytes, n_left + n_right))
        return ERR_OK;
    return err_set(e, ERR_INVALID, "tokenizer: merge %u, \"%.*s %.*s\", is not made of tokens", rank,
                   n_left > 64 ? 64 : (int)n_left, bytes, n_right > 64 ? 64 : (int)n_right, bytes + n_left);
}

static err_code make_pairs(vocab *v, size_t n, err *e) {
    size_t slots = 16;
    while (slots < n * 3 / 2) slots *= 2;
    v->pairs = mem_array(slots, sizeof *v->pairs); /* zeroed: an image has its empty places too */
    v->pair_bits = mem_array((1u << PAIR_BITS_LOG) / 64, sizeof *v->pair_bits);
    if (!v->pairs || !v->pair_bits) return err_nomem(e, "the tokenizer's merges");
    v->pairs_mask = (uint32_t)slots - 1;
    for (size_t i = 0; i < slots; i++) v->pairs[i].left = -1;
    return ERR_OK;
}

/* All ways to cut token `id` into two tokens: to `out` where it is not NULL. Returns how many. */
static size_t cuts_of(const vocab *v, int32_t id, merge_pair *out) {
    const vocab_token *t = &v->tokens[id];
    bool bytes = v->model == SPEC_BPE;
    const char *p = bytes ? vocab_piece_ptr(v, id) : vocab_text_ptr(v, id);
    size_t n = bytes ? t->piece_len : t->text_len, count = 0;
    if (!vocab_may_come_of_text(v, id) || vocab_lookup(v, p, n) != id) return 0;
    for (size_t k = 1; k < n; k++) {
        if (!bytes && ((uint8_t)p[k] & 0xc0) == 0x80) continue;
        int32_t left = vocab_lookup(v, p, k), right = left < 0 ? -1 : vocab_lookup(v, p + k, n - k);
        if (right < 0) continue;
        if (out) out[count] = (merge_pair){left, right, id, v->ranks[id]};
        count++;
    }
    return count;
}

err_code pairs_of_unions(vocab *v, err *e) {
    merge_pair cuts[VOCAB_TOKEN_BYTES_MAX];
    size_t n = 0;
    for (uint32_t id = 0; id < v->n; id++) n += cuts_of(v, (int32_t)id, NULL);
    if (n > (1u << 25)) return err_set(e, ERR_INVALID, "tokenizer: the tokens were made to be slow: %zu merges", n);
    err_code rc = make_pairs(v, n, e);
    for (uint32_t id = 0; rc == ERR_OK && id < v->n; id++) {
        size_t count = cuts_of(v, (int32_t)id, cuts);
        for (size_t i = 0; i < count && rc == ERR_OK; i++) rc = add_pair(v, cuts[i], e);
    }
    return rc;
}

err_code pairs_load(vocab *v, const vocab_spec *s, err *e) {
    if (s->n_merges > VOCAB_MERGES_MAX)
        return err_set(e, ERR_INVALID, "tokenizer: %zu merges; at most %u are read", s->n_merges, VOCAB_MERGES_MAX);
    err_code rc = make_pairs(v, s->n_merges, e);
    for (size_t i = 0; rc == ERR_OK && i < s->n_merges; i++) rc = add_merge(v, &s->merges[i], (uint32_t)i, e);
    return rc;
}

/* ---- encoding --------------------------------------------------------------------------------------------- */

static uint32_t find_pair(const vocab *v, int32_t left, int32_t right, int32_t *merged) {
    uint64_t hash = pair_hash(left, right);
    uint32_t bit = pair_bit(hash);
    if (!(v->pair_bits[bit / 64] >> bit % 64 & 1)) return VOCAB_NO_RANK;
    const merge_pair *pairs = v->pairs;
    for (uint32_t i = pair_slot(v, hash); pairs[i].left >= 0; i = (i + 1) & v->pairs_mask) {
        if (pairs[i].left != left || pairs[i].right != right) continue;
        *merged = pairs[i].merged;
        return pairs[i].rank;
    }
    return VOCAB_NO_RANK;
}

uint32_t bpe_pair(const merger *m, const symbol *left, const symbol *right, int32_t *merged) {
    if (left->id < 0 || right->id < 0) return VOCAB_NO_RANK;
    if (!m->v->byte_pairs || left->len + right->len > 2) return find_pair(m->v, left->id, right->id, merged);
    const byte_pair *p = &m->v->byte_pairs[(uint8_t)m->text[left->start]][(uint8_t)m->text[right->start]];
    *merged = p->merged;
    return p->rank;
}

/* What two bytes give, which is asked at each place of a text, without a search. */
static err_code make_byte_pairs(vocab *v, err *e) {
    if (!(v->byte_pairs = mem_array(256, sizeof *v->byte_pairs))) return err_nomem(e, "the tokenizer's merges");
    for (int a = 0; a < 256; a++) {
        for (int b = 0; b < 256; b++) {
            byte_pair *p = &v->byte_pairs[a][b];
            p->rank = VOCAB_NO_RANK;
            if (v->byte_ids[a] < 0 || v->byte_ids[b] < 0) continue;
            p->rank = find_pair(v, v->byte_ids[a], v->byte_ids[b], &p->merged);
        }
    }
    return ERR_OK;
}

err_code bpe_load(vocab *v, const vocab_spec *s, err *e) {
    load_pieces(v);
    err_code rc = vocab_make_table(v, e);
    if (rc != ERR_OK) return rc;
    for (int b = 0; b < 256; b++) {
        char c = (char)b;
        v->byte_ids[b] = vocab_lookup(v, &c, 1);
    }
    if (!s->union_rank) {
        rc = pairs_load(v, s, e);
    } else {
        if (!(v->ranks = mem_array(v->n, sizeof *v->ranks))) return err_nomem(e, "the tokenizer's ranks");
        for (uint32_t i = 0; i < v->n; i++) v->ranks[i] = i;
        rc = pairs_of_unions(v, e);
    }
    return rc == ERR_OK ? make_byte_pairs(v, e) : rc;
}

typedef struct job {
    const vocab *v;
    merger *m;
    id_list *out;
} job;

static err_code encode_word(void *ctx, const char *p, size_t n) {
    job *j = ctx;
    const vocab *v = j->v;
    if (n <= v->longest && v->ignore_merges) {
        int32_t id = vocab_lookup(v, p, n);
        if (id >= 0) return id_list_add(j->out, id);
    }
    j->m->after_unk = false;
    return merge_word(j->m, p, n, j->out);
}

err_code bpe_encode(const vocab *v, merger *m, const char *s, size_t n, id_list *out) {
    job j = {v, m, out};
    return pretok_split(v->pre, s, n, encode_word, &j);
}
