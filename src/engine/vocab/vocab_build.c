#include "engine/vocab/vocab_internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* A vocab from its description: copies and checks everything, then each model loads what it needs. */

static const char *const model_names[] = {"spm", "bpe", "bpe-chars", "unigram", "wordpiece"};

static err_code check_token(const vocab_spec *s, uint32_t i, err *e) {
    const spec_token *t = &s->tokens[i];
    bool special = t->type == TYPE_CONTROL || t->type == TYPE_USER || t->type == TYPE_UNKNOWN;
    size_t max = special ? VOCAB_SPECIAL_BYTES_MAX : VOCAB_TOKEN_BYTES_MAX;
    if (t->type > TYPE_BYTE) return err_set(e, ERR_INVALID, "tokenizer: token %u has type %u", i, t->type);
    if (t->text > s->n_bytes || t->len > s->n_bytes - t->text)
        return err_set(e, ERR_INVALID, "tokenizer: token %u lies outside of the texts", i);
    if (t->len <= max) return ERR_OK;
    return err_set(e, ERR_INVALID, "tokenizer: token %u has %u bytes, at most %zu are read", i, t->len, max);
}

/* Copies the texts, and leaves as much room behind each for its piece. */
static err_code copy_tokens(vocab *v, const vocab_spec *s, err *e) {
    uint64_t total = 0;
    if (!s->n_tokens || s->n_tokens > VOCAB_TOKENS_MAX)
        return err_set(e, ERR_INVALID, "tokenizer: %u tokens; it must be 1 to %u", s->n_tokens, VOCAB_TOKENS_MAX);
    v->n = s->n_tokens;
    for (uint32_t i = 0; i < v->n; i++) {
        err_code rc = check_token(s, i, e);
        if (rc != ERR_OK) return rc;
        total += 2 * (uint64_t)s->tokens[i].len + 1; /* a byte's piece is one byte long, whatever its text */
    }
    if (total > UINT32_MAX) return err_set(e, ERR_INVALID, "tokenizer: the tokens have more than 2 GiB");
    v->tokens = mem_array(v->n, sizeof *v->tokens);
    v->bytes = mem_zalloc(total);
    if (!v->tokens || !v->bytes) return err_nomem(e, "the vocabulary");
    uint32_t at = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        const spec_token *t = &s->tokens[i];
        if (t->len) memcpy(v->bytes + at, spec_text(s, i), t->len);
        v->tokens[i] = (vocab_token){
            .text = at, .piece = at + t->len, .text_len = (uint16_t)t->len, .type = t->type, .flags = t->flags};
        at += 2 * t->len + 1;
    }
    return ERR_OK;
}

static err_code copy_facts(vocab *v, const vocab_spec *s, const char *name, err *e) {
    v->model = s->model;
    if ((unsigned)s->model > SPEC_WORDPIECE || (unsigned)s->form > SPEC_FORM_NFKD ||
        (unsigned)s->prefix > SPEC_PREFIX_FIRST || (unsigned)s->words > SPEC_WORDS_SPACE)
        return err_set(e, ERR_INVALID, "%s: tokenizer: a fact is out of range", name);
    if (s->model == SPEC_BPE && !(v->pre = pretok_find(s->pre, strnlen(s->pre, sizeof s->pre))))
        return err_set(e, ERR_UNSUPPORTED, "%s: the pre-tokenizer \"%.*s\" is not known", name, (int)sizeof s->pre,
                       s->pre);
    snprintf(v->kind, sizeof v->kind, "%s%s%.32s", model_names[s->model], s->pre[0] ? "/" : "", s->pre);
    v->lines = s->model == SPEC_BPE_CHARS && strcmp(s->pre, "gemma4") == 0;
    v->form = s->form;
    v->prefix = s->prefix;
    v->cut = s->words;
    v->escape_spaces = s->escape_spaces;
    v->early_marks = !s->late_marks;
    if (s->words != SPEC_WORDS_ALL || s->prefix == SPEC_PREFIX_MISSING || s->prefix == SPEC_PREFIX_FIRST)
        v->early_marks = false; /* these look at what special tokens leave */
    v->ignore_merges = s->ignore_merges;
    v->byte_fallback = s->byte_fallback;
    v->fuse_unk = s->fuse_unk;
    v->bert = s->bert;
    v->max_word = s->max_word;
    if (!s->charsmap) return ERR_OK;
    err_code rc = charsmap_check(s->charsmap, s->n_charsmap, name, e);
    if (rc != ERR_OK) return rc;
    if (!(v->charsmap = mem_alloc(s->n_charsmap))) return err_nomem(e, "the tokenizer's map of characters");
    memcpy(v->charsmap, s->charsmap, s->n_charsmap);
    v->n_charsmap = s->n_charsmap;
    return ERR_OK;
}

static err_code load_model(vocab *v, const vocab_spec *s, err *e) {
    switch (v->model) {
    case SPEC_BPE: return bpe_load(v, s, e);
    case SPEC_SPM:
    case SPEC_BPE_CHARS: return chars_load(v, s, e);
    case SPEC_UNIGRAM: return unigram_load(v, s, e);
    case SPEC_WORDPIECE: break;
    }
    return wordpiece_load(v, s, e);
}

err_code vocab_build(vocab **out, const vocab_spec *s, const char *name, err *e) {
    *out = NULL;
    vocab *v = mem_zalloc(sizeof *v);
    if (!v) return err_nomem(e, "the vocabulary");
    memset(v->byte_ids, 0xff, sizeof v->byte_ids);
    err_code rc = copy_facts(v, s, name, e);
    if (rc == ERR_OK && (rc = copy_tokens(v, s, e)) == ERR_OK)
        if ((rc = special_load(v, s, e)) == ERR_OK) rc = load_model(v, s, e);
    if (rc == ERR_OK) {
        *out = v;
        return ERR_OK;
    }
    if (e && strncmp(e->msg, "tokenizer: ", 11) == 0) err_prefix(e, "%s", name);
    vocab_free(v);
    return rc;
}

err_code vocab_new(vocab **out, const gguf *g, err *e) {
    vocab_spec *s;
    *out = NULL;
    err_code rc = vocab_spec_from_gguf(&s, g, e);
    if (rc != ERR_OK) return rc;
    rc = vocab_build(out, s, gguf_path(g), e);
    vocab_spec_free(s);
    return rc;
}

void vocab_free(vocab *v) {
    if (!v) return;
    if (v->image) {
        mem_free_aligned(v->image);
        mem_free(v);
        return;
    }
    mem_free(v->tokens);
    mem_free(v->bytes);
    mem_free(v->table);
    mem_free(v->ranks);
    mem_free(v->joins);
    mem_free(v->pairs);
    mem_free(v->pair_bits);
    mem_free(v->byte_pairs);
    mem_free(v->scores);
    mem_free(v->charsmap);
    word_trie_free(&v->words);
    special_free(&v->raw);
    special_free(&v->normalized);
    mem_free(v);
}

/* ---- the table of tokens by their bytes ------------------------------------------------------------------- */

uint64_t vocab_hash(const char *p, size_t n) {
    uint64_t h = n * 0x9e3779b97f4a7c15u, x;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&x, p, 8);
        h = (h ^ x) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    x = 0;
    if (n >= 4) { /* the first and the last four bytes: no loop, no call */
        uint32_t a, b;
        memcpy(&a, p, 4);
        memcpy(&b, p + n - 4, 4);
        x = (uint64_t)b << 32 | a;
    } else if (n) {
        x = (uint64_t)(uint8_t)p[0] | (uint64_t)(uint8_t)p[n / 2] << 8 | (uint64_t)(uint8_t)p[n - 1] << 16;
    }
    h = (h ^ x) * 0xff51afd7ed558ccdu;
    h ^= h >> 29;
    h *= 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 32;
}

static bool key_is(const vocab *v, uint32_t id, const char *p, size_t n) {
    const vocab_token *t = &v->tokens[id];
    if (v->model == SPEC_BPE) return t->piece_len == n && memcmp(v->bytes + t->piece, p, n) == 0;
    return t->text_len == n && memcmp(v->bytes + t->text, p, n) == 0;
}

int32_t vocab_lookup(const vocab *v, const char *p, size_t n) {
    for (uint32_t i = (uint32_t)vocab_hash(p, n) & v->table_mask; v->table[i]; i = (i + 1) & v->table_mask)
        if (key_is(v, v->table[i] - 1, p, n)) return (int32_t)(v->table[i] - 1);
    return -1;
}

/* SentencePiece takes unused pieces like others; in BPE they are what no merge makes. */
bool vocab_may_come_of_text(const vocab *v, int32_t id) {
    uint8_t type = v->tokens[id].type;
    if (type == TYPE_NORMAL || type == TYPE_UNDEFINED || type == TYPE_USER) return true;
    return type == TYPE_UNUSED && v->model != SPEC_BPE;
}

err_code vocab_make_table(vocab *v, err *e) {
    uint32_t slots = 16;
    while (slots < v->n * 2) slots *= 2;
    if (!(v->table = mem_array(slots, sizeof *v->table))) return err_nomem(e, "the vocabulary");
    v->table_mask = slots - 1;
    for (uint32_t id = 0; id < v->n; id++) {
        const vocab_token *t = &v->tokens[id];
        const char *p = v->model == SPEC_BPE ? v->bytes + t->piece : v->bytes + t->text;
        size_t n = v->model == SPEC_BPE ? t->piece_len : t->text_len;
        if (!n || !vocab_may_come_of_text(v, (int32_t)id)) continue;
        uint32_t i = (uint32_t)vocab_hash(p, n) & v->table_mask, probes = 0;
        while (v->table[i] && !key_is(v, v->table[i] - 1, p, n)) {
            i = (i + 1) & v->table_mask;
            if (++probes > VOCAB_PROBES_MAX)
                return err_set(e, ERR_INVALID, "tokenizer: the tokens were made to be slow: too many fall together");
        }
        if (!v->table[i]) v->table[i] = id + 1; /* of equal tokens the first counts */
        if (n > v->longest) v->longest = (uint32_t)n;
    }
    return ERR_OK;
}
