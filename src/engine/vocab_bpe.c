#include "engine/vocab_internal.h"

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

static uint32_t pair_slot(const vocab *v, int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32) & v->pairs_mask;
}

static err_code add_pair(vocab *v, const gguf *g, int32_t left, int32_t right, int32_t merged, uint32_t rank, err *e) {
    uint32_t i = pair_slot(v, left, right), probes = 0;
    for (; v->pairs[i].left >= 0; i = (i + 1) & v->pairs_mask) {
        if (v->pairs[i].left == left && v->pairs[i].right == right) return ERR_OK; /* twice: the first rank counts */
        if (++probes > VOCAB_PROBES_MAX)
            return err_set(e, ERR_INVALID, "%s: tokenizer.ggml.merges: made to be slow", gguf_path(g));
    }
    v->pairs[i] = (merge_pair){left, right, merged, rank};
    return ERR_OK;
}

/* "left right" as the file writes it: each side and both together must be tokens. */
static err_code load_merge(vocab *v, const gguf *g, gguf_str s, uint32_t rank, err *e) {
    char bytes[2 * VOCAB_TOKEN_BYTES_MAX];
    const char *space = s.len > 2 ? memchr(s.ptr + 1, ' ', s.len - 2) : NULL;
    if (!space || s.len > VOCAB_TOKEN_BYTES_MAX)
        return err_set(e, ERR_INVALID, "%s: tokenizer.ggml.merges: entry %u is not two parts with a space between",
                       gguf_path(g), rank);
    size_t n_left = (size_t)(space - s.ptr), n_right = s.len - n_left - 1;
    size_t a = to_bytes(bytes, s.ptr, n_left);
    size_t b = a == SIZE_MAX ? SIZE_MAX : to_bytes(bytes + a, space + 1, n_right);
    int32_t left = -1, right = -1, merged = -1;
    if (b != SIZE_MAX) {
        left = vocab_lookup(v, bytes, a);
        right = vocab_lookup(v, bytes + a, b);
        merged = vocab_lookup(v, bytes, a + b);
    }
    if (left < 0 || right < 0 || merged < 0)
        return err_set(e, ERR_INVALID, "%s: tokenizer.ggml.merges: entry %u, \"%.*s\", is not made of tokens",
                       gguf_path(g), rank, s.len > 64 ? 64 : (int)s.len, s.ptr);
    return add_pair(v, g, left, right, merged, rank, e);
}

static err_code load_merges(vocab *v, const gguf *g, err *e) {
    const char *key = "tokenizer.ggml.merges";
    size_t n = 0;
    err_code rc = gguf_arr(g, key, GGUF_STR, &n, e);
    if (rc != ERR_OK) return rc;
    if (!gguf_has(g, key))
        return err_set(e, ERR_INVALID, "%s: %s is missing; without merges there is no BPE", gguf_path(g), key);
    if (n > VOCAB_MERGES_MAX)
        return err_set(e, ERR_INVALID, "%s: %s has %zu entries, at most %u are read", gguf_path(g), key, n,
                       VOCAB_MERGES_MAX);
    size_t slots = 16;
    while (slots < n * 3 / 2) slots *= 2;
    gguf_str *strs = mem_array(n ? n : 1, sizeof *strs);
    v->pairs = mem_alloc(slots * sizeof *v->pairs);
    v->pairs_mask = (uint32_t)slots - 1;
    if (!strs || !v->pairs) rc = err_nomem(e, "the tokenizer's merges");
    for (size_t i = 0; rc == ERR_OK && i < slots; i++) v->pairs[i].left = -1;
    if (rc == ERR_OK) rc = gguf_arr_strs(g, key, strs, n, e);
    for (size_t i = 0; rc == ERR_OK && i < n; i++) rc = load_merge(v, g, strs[i], (uint32_t)i, e);
    mem_free(strs);
    return rc;
}

err_code bpe_load(vocab *v, const gguf *g, err *e) {
    load_pieces(v);
    err_code rc = vocab_make_table(v, e);
    if (rc != ERR_OK) return rc;
    for (int b = 0; b < 256; b++) {
        char c = (char)b;
        v->byte_ids[b] = vocab_lookup(v, &c, 1);
    }
    return load_merges(v, g, e);
}

/* ---- encoding --------------------------------------------------------------------------------------------- */

uint32_t bpe_pair(const merger *m, const symbol *left, const symbol *right, int32_t *merged) {
    if (left->id < 0 || right->id < 0) return VOCAB_NO_RANK;
    const merge_pair *pairs = m->v->pairs;
    for (uint32_t i = pair_slot(m->v, left->id, right->id); pairs[i].left >= 0; i = (i + 1) & m->v->pairs_mask) {
        if (pairs[i].left != left->id || pairs[i].right != right->id) continue;
        *merged = pairs[i].merged;
        return pairs[i].rank;
    }
    return VOCAB_NO_RANK;
}

typedef struct job {
    const vocab *v;
    merger *m;
    id_list *out;
} job;

/* A byte that is no token of its own: the unknown token where there is one, nothing otherwise. */
static err_code add_symbol(const vocab *v, int32_t id, id_list *out) {
    if (id < 0) id = v->unk;
    return id < 0 ? ERR_OK : id_list_add(out, id);
}

static err_code encode_word(void *ctx, const char *p, size_t n) {
    job *j = ctx;
    const vocab *v = j->v;
    if (n == 1) return add_symbol(v, v->byte_ids[(uint8_t)*p], j->out);
    if (n <= v->longest && pretok_ignores_merges(v->pre)) {
        int32_t id = vocab_lookup(v, p, n);
        if (id >= 0) return id_list_add(j->out, id);
    }
    err_code rc = merger_reserve(j->m, n, j->out->e);
    if (rc != ERR_OK) return rc;
    for (size_t i = 0; i < n; i++) merger_add(j->m, (uint32_t)i, 1, v->byte_ids[(uint8_t)p[i]]);
    merge_run(j->m);
    for (size_t i = 0; i < j->m->n && rc == ERR_OK; i++)
        if (j->m->symbols[i].len) rc = add_symbol(v, j->m->symbols[i].id, j->out);
    return rc;
}

err_code bpe_encode(const vocab *v, merger *m, const char *s, size_t n, id_list *out) {
    job j = {v, m, out};
    return pretok_split(v->pre, s, n, encode_word, &j);
}
