#include "engine/engine.h"
#include "engine/vocab_internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

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
    if (v->family == FAMILY_SPM) return t->text_len == n && memcmp(v->bytes + t->text, p, n) == 0;
    return t->piece_len == n && memcmp(v->bytes + t->piece, p, n) == 0;
}

int32_t vocab_lookup(const vocab *v, const char *p, size_t n) {
    for (uint32_t i = (uint32_t)vocab_hash(p, n) & v->table_mask; v->table[i]; i = (i + 1) & v->table_mask)
        if (key_is(v, v->table[i] - 1, p, n)) return (int32_t)(v->table[i] - 1);
    return -1;
}

/* SentencePiece takes unused pieces like others; in BPE they are what no merge makes. */
static bool may_come_of_text(const vocab *v, const vocab_token *t) {
    if (t->type == TYPE_NORMAL || t->type == TYPE_UNDEFINED || t->type == TYPE_USER) return true;
    return t->type == TYPE_UNUSED && v->family == FAMILY_SPM;
}

err_code vocab_make_table(vocab *v, err *e) {
    uint32_t slots = 16;
    while (slots < v->n * 2) slots *= 2;
    if (!(v->table = mem_array(slots, sizeof *v->table))) return err_nomem(e, "the vocabulary");
    v->table_mask = slots - 1;
    for (uint32_t id = 0; id < v->n; id++) {
        const vocab_token *t = &v->tokens[id];
        const char *p = v->family == FAMILY_SPM ? v->bytes + t->text : v->bytes + t->piece;
        size_t n = v->family == FAMILY_SPM ? t->text_len : t->piece_len;
        if (!n || !may_come_of_text(v, t)) continue;
        uint32_t i = (uint32_t)vocab_hash(p, n) & v->table_mask, probes = 0;
        while (v->table[i] && !key_is(v, v->table[i] - 1, p, n)) {
            i = (i + 1) & v->table_mask;
            if (++probes > VOCAB_PROBES_MAX)
                return err_set(e, ERR_INVALID, "tokenizer.ggml.tokens: made to be slow: too many tokens fall together");
        }
        if (!v->table[i]) v->table[i] = id + 1; /* of equal tokens the first counts */
        if (n > v->longest) v->longest = (uint32_t)n;
    }
    return ERR_OK;
}

/* ---- loading ---------------------------------------------------------------------------------------------- */

static err_code load_types(vocab *v, const gguf *g, err *e) {
    const char *key = "tokenizer.ggml.token_type";
    size_t n = 0;
    err_code rc = gguf_arr(g, key, GGUF_I32, &n, e);
    if (rc != ERR_OK) return rc;
    for (uint32_t i = 0; i < v->n; i++) v->tokens[i].type = TYPE_NORMAL;
    if (!gguf_has(g, key)) return ERR_OK;
    if (n != v->n)
        return err_set(e, ERR_INVALID, "%s: %s has %zu entries, the vocabulary has %u tokens", gguf_path(g), key, n,
                       v->n);
    int32_t *types = mem_alloc(n * sizeof *types);
    if (!types) return err_nomem(e, "the vocabulary");
    rc = gguf_arr_i32(g, key, types, n, e);
    for (uint32_t i = 0; i < v->n && rc == ERR_OK; i++) {
        if (types[i] < TYPE_UNDEFINED || types[i] > TYPE_BYTE)
            rc = err_set(e, ERR_INVALID, "%s: %s: token %u has type %d; types are 0 to 6", gguf_path(g), key, i,
                         types[i]);
        else
            v->tokens[i].type = (uint8_t)types[i];
    }
    mem_free(types);
    return rc;
}

static err_code check_token(const gguf *g, size_t i, size_t len, uint8_t type, err *e) {
    size_t max = type == TYPE_CONTROL || type == TYPE_USER || type == TYPE_UNKNOWN ? VOCAB_SPECIAL_BYTES_MAX
                                                                                   : VOCAB_TOKEN_BYTES_MAX;
    if (len <= max) return ERR_OK;
    return err_set(e, ERR_INVALID, "%s: tokenizer.ggml.tokens: token %zu has %zu bytes, at most %zu are read",
                   gguf_path(g), i, len, max);
}

/* Copies the texts, and leaves as much room behind each for its piece. */
static err_code load_texts(vocab *v, const gguf *g, const gguf_str *texts, err *e) {
    uint64_t total = 0;
    for (size_t i = 0; i < v->n; i++) {
        err_code rc = check_token(g, i, texts[i].len, v->tokens[i].type, e);
        if (rc != ERR_OK) return rc;
        total += 2 * texts[i].len + 1; /* a byte's piece is one byte long, whatever its text */
    }
    if (total > UINT32_MAX) return err_set(e, ERR_INVALID, "%s: tokenizer.ggml.tokens: more than 2 GiB", gguf_path(g));
    if (!(v->bytes = mem_alloc(total))) return err_nomem(e, "the vocabulary");
    uint32_t at = 0;
    for (size_t i = 0; i < v->n; i++) {
        vocab_token *t = &v->tokens[i];
        uint32_t len = (uint32_t)texts[i].len;
        memcpy(v->bytes + at, texts[i].ptr, len);
        t->text = at;
        t->piece = at + len;
        t->text_len = (uint16_t)len;
        at += 2 * len + 1;
    }
    return ERR_OK;
}

static err_code load_tokens(vocab *v, const gguf *g, err *e) {
    const char *key = "tokenizer.ggml.tokens";
    size_t n = 0;
    err_code rc = gguf_arr(g, key, GGUF_STR, &n, e);
    if (rc != ERR_OK) return rc;
    if (!n)
        return err_set(e, ERR_INVALID, "%s: %s is missing or empty; without tokens there is no text", gguf_path(g),
                       key);
    if (n > VOCAB_TOKENS_MAX)
        return err_set(e, ERR_INVALID, "%s: %s has %zu entries, at most %u are read", gguf_path(g), key, n,
                       VOCAB_TOKENS_MAX);
    v->n = (uint32_t)n;
    gguf_str *texts = mem_array(n, sizeof *texts);
    v->tokens = mem_array(n, sizeof *v->tokens);
    if (!texts || !v->tokens) rc = err_nomem(e, "the vocabulary");
    if (rc == ERR_OK) rc = gguf_arr_strs(g, key, texts, n, e);
    if (rc == ERR_OK) rc = load_types(v, g, e);
    if (rc == ERR_OK) rc = load_texts(v, g, texts, e);
    mem_free(texts);
    return rc;
}

/* Which family, and for BPE which pre-tokenizer. */
static err_code load_kind(vocab *v, const gguf *g, err *e) {
    gguf_str name, pre;
    err_code rc = gguf_str_or(g, "tokenizer.ggml.model", &name, e);
    if (rc == ERR_OK) rc = gguf_str_or(g, "tokenizer.ggml.pre", &pre, e);
    if (rc != ERR_OK) return rc;
    if (name.len == 5 && memcmp(name.ptr, "llama", 5) == 0) {
        v->family = FAMILY_SPM;
        snprintf(v->kind, sizeof v->kind, "spm");
        return ERR_OK;
    }
    if (name.len != 4 || memcmp(name.ptr, "gpt2", 4) != 0)
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: tokenizer.ggml.model is \"%.*s\"; polder reads llama (SentencePiece) and gpt2 (byte-level BPE)",
            gguf_path(g), name.len > 64 ? 64 : (int)name.len, name.len ? name.ptr : "");
    if (!pre.len) pre = (gguf_str){"default", 7};
    v->family = FAMILY_BPE;
    v->pre = pretok_find(pre.ptr, pre.len);
    if (v->pre) {
        snprintf(v->kind, sizeof v->kind, "bpe/%.*s", (int)pre.len, pre.ptr);
        return ERR_OK;
    }
    buf known = {.max = 4096};
    pretok_names(&known);
    rc = err_set(e, ERR_UNSUPPORTED, "%s: tokenizer.ggml.pre is \"%.*s\"; known are %s", gguf_path(g),
                 pre.len > 64 ? 64 : (int)pre.len, pre.ptr, buf_str(&known));
    buf_free(&known);
    return rc;
}

err_code vocab_new(vocab **out, const gguf *g, err *e) {
    *out = NULL;
    vocab *v = mem_zalloc(sizeof *v);
    if (!v) return err_nomem(e, "the vocabulary");
    memset(v->byte_ids, 0xff, sizeof v->byte_ids);
    err_code rc = load_kind(v, g, e);
    if (rc == ERR_OK) rc = load_tokens(v, g, e);
    if (rc == ERR_OK) rc = special_load(v, g, e);
    if (rc == ERR_OK) rc = v->family == FAMILY_SPM ? spm_load(v, g, e) : bpe_load(v, g, e);
    if (rc != ERR_OK) {
        vocab_free(v);
        return rc;
    }
    *out = v;
    return ERR_OK;
}

void vocab_free(vocab *v) {
    if (!v) return;
    mem_free(v->tokens);
    mem_free(v->bytes);
    mem_free(v->table);
    mem_free(v->ranks);
    mem_free(v->pairs);
    mem_free(v->trie);
    mem_free(v);
}

/* ---- facts ------------------------------------------------------------------------------------------------ */

uint32_t vocab_size(const vocab *v) {
    return v->n;
}

const char *vocab_kind(const vocab *v) {
    return v->kind;
}

static bool has(const vocab *v, int32_t id) {
    return id >= 0 && (uint32_t)id < v->n;
}

bool vocab_is_special(const vocab *v, int32_t id) {
    return has(v, id) && (v->tokens[id].type == TYPE_CONTROL || v->tokens[id].type == TYPE_UNKNOWN);
}

bool vocab_is_end(const vocab *v, int32_t id) {
    return has(v, id) && v->tokens[id].is_end;
}

int32_t vocab_bos(const vocab *v) {
    return v->bos;
}

int32_t vocab_eos(const vocab *v) {
    return v->eos;
}

bool vocab_drops_first_space(const vocab *v) {
    return v->family == FAMILY_SPM && v->add_space_prefix;
}

void vocab_token_bytes(const vocab *v, int32_t id, bool show_special, buf *out) {
    if (!has(v, id) || (!show_special && vocab_is_special(v, id))) return;
    buf_append(out, vocab_piece_ptr(v, id), v->tokens[id].piece_len);
}

void vocab_token_text(const vocab *v, int32_t id, buf *out) {
    vocab_token_bytes(v, id, true, out);
}

/* ---- encoding --------------------------------------------------------------------------------------------- */

err_code id_list_add(id_list *l, int32_t id) {
    if (l->n == l->max) return err_set(l->e, ERR_TOO_LONG, "the text has more than %zu tokens", l->max);
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        int32_t *ids = mem_realloc(l->ids, cap * sizeof *ids);
        if (!ids) return err_nomem(l->e, "the tokens of a text");
        l->ids = ids;
        l->cap = cap;
    }
    l->ids[l->n++] = id;
    return ERR_OK;
}

typedef struct encoder {
    const vocab *v;
    merger m;
    id_list out;
    bool parse_special;
    bool after_special; /* SentencePiece puts a space before what comes first or follows a special token */
    bool first[256];    /* bytes that a special token begins with */
} encoder;

static err_code encode_plain(encoder *c, const char *s, size_t n) {
    if (!n) return ERR_OK;
    bool prefix = c->v->add_space_prefix && c->after_special;
    c->after_special = false;
    return c->v->family == FAMILY_SPM ? spm_encode(c->v, &c->m, s, n, prefix, &c->out)
                                      : bpe_encode(c->v, &c->m, s, n, &c->out);
}

static bool is_ascii_space(char ch) {
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

static err_code encode_text(encoder *c, const char *s, size_t n) {
    const vocab *v = c->v;
    size_t from = 0;
    if (c->parse_special || v->has_user_tokens)
        for (uint32_t t = v->trie[0].child; t; t = v->trie[t].next) c->first[v->trie[t].byte] = true;
    for (size_t i = 0; i < n;) {
        int32_t id = c->first[(uint8_t)s[i]] ? special_match(v, s + i, n - i, c->parse_special) : -1;
        if (id < 0) {
            i++;
            continue;
        }
        err_code rc = encode_plain(c, s + from, i - from);
        if (rc == ERR_OK) rc = id_list_add(&c->out, id);
        if (rc != ERR_OK) return rc;
        i += v->tokens[id].text_len;
        while (v->tokens[id].strips_right && i < n && is_ascii_space(s[i])) i++;
        from = i;
        c->after_special = true;
    }
    return encode_plain(c, s + from, n - from);
}

err_code vocab_encode(const vocab *v, const char *text, size_t len, int flags, size_t max_tokens, int32_t **out,
                      size_t *n, err *e) {
    *out = NULL;
    *n = 0;
    if (len > VOCAB_TEXT_MAX)
        return err_set(e, ERR_TOO_LARGE, "the text to tokenize has %zu bytes, at most %zu are taken", len,
                       VOCAB_TEXT_MAX);
    encoder c = {.v = v, .m = {.v = v}, .out = {.max = max_tokens, .e = e}, .after_special = true};
    c.parse_special = flags & TOK_PARSE_SPECIAL;
    bool add = flags & TOK_ADD_SPECIAL;
    err_code rc = ERR_OK;
    if (add && v->add_bos) rc = id_list_add(&c.out, v->bos);
    if (rc == ERR_OK) rc = encode_text(&c, text, len);
    if (rc == ERR_OK && add && v->add_eos) rc = id_list_add(&c.out, v->eos);
    merger_free(&c.m);
    if (rc != ERR_OK) {
        mem_free(c.out.ids);
        return rc;
    }
    *out = c.out.ids;
    *n = c.out.n;
    return ERR_OK;
}
