#include "engine/vocab/vocab_json.h"

#include "base/json.h"
#include "base/mem.h"
#include "engine/vocab/json_scan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* tokenizer.json to a vocab_spec, from front to back: `model` is read as it comes by, the small parts are kept as text
 * and read at the end, when tokens have ids. */

/* ---- a spec under construction ---------------------------------------------------------------------------- */

void maker_free(spec_maker *m) {
    mem_free(m->known);
    m->known = NULL;
}

static err_code grow_tokens(spec_maker *m, uint32_t n) {
    size_t cap = m->cap_tokens ? m->cap_tokens : 1024;
    while (cap < n) cap *= 2;
    if (cap == m->cap_tokens) return ERR_OK;
    spec_token *t = mem_realloc(m->s->tokens, cap * sizeof *t);
    if (t) m->s->tokens = t;
    bool *k = t ? mem_realloc(m->known, cap * sizeof *k) : NULL;
    if (k) m->known = k;
    if (!t || !k) return err_nomem(m->e, "the vocabulary");
    memset(t + m->cap_tokens, 0, (cap - m->cap_tokens) * sizeof *t);
    memset(k + m->cap_tokens, 0, (cap - m->cap_tokens) * sizeof *k);
    for (size_t i = m->cap_tokens; i < cap; i++) t[i].type = TYPE_UNUSED;
    m->cap_tokens = cap;
    return ERR_OK;
}

static err_code grow_bytes(spec_maker *m, size_t n) {
    if (n > INT32_MAX) return err_set(m->e, ERR_INVALID, "%s: the tokens have more than 2 GiB", m->name);
    size_t cap = m->cap_bytes ? m->cap_bytes : 65536;
    while (cap < n) cap *= 2;
    if (cap == m->cap_bytes) return ERR_OK;
    char *b = mem_realloc(m->s->bytes, cap);
    if (!b) return err_nomem(m->e, "the vocabulary");
    m->s->bytes = b;
    m->cap_bytes = cap;
    return ERR_OK;
}

err_code maker_token(spec_maker *m, int64_t id, const char *p, size_t n, uint8_t type, float score) {
    vocab_spec *s = m->s;
    if (id < 0 || id >= VOCAB_TOKENS_MAX)
        return err_set(m->e, ERR_INVALID, "%s: token id %lld; ids are 0 to %u", m->name, (long long)id,
                       VOCAB_TOKENS_MAX - 1);
    if (n > VOCAB_TOKEN_BYTES_MAX)
        return err_set(m->e, ERR_INVALID, "%s: token %lld has %zu bytes, at most %u are read", m->name, (long long)id,
                       n, VOCAB_TOKEN_BYTES_MAX);
    err_code rc = grow_tokens(m, (uint32_t)id + 1);
    if (rc == ERR_OK) rc = grow_bytes(m, s->n_bytes + n + 1);
    if (rc != ERR_OK) return rc;
    spec_token *t = &s->tokens[id];
    if (m->known[id] && (t->len != n || memcmp(s->bytes + t->text, p, n) != 0))
        return err_set(m->e, ERR_INVALID, "%s: token %lld has two texts, \"%.*s\" and \"%.*s\"", m->name, (long long)id,
                       t->len > 64 ? 64 : (int)t->len, s->bytes + t->text, n > 64 ? 64 : (int)n, p);
    if (!m->known[id]) {
        if (n) memcpy(s->bytes + s->n_bytes, p, n);
        t->text = (uint32_t)s->n_bytes;
        t->len = (uint32_t)n;
        t->score = score;
        s->n_bytes += n;
        m->known[id] = true;
    }
    t->type = type;
    if (s->n_tokens <= (uint32_t)id) s->n_tokens = (uint32_t)id + 1;
    return ERR_OK;
}

err_code maker_check_holes(spec_maker *m, uint32_t spare) {
    uint64_t known = 0;
    for (uint32_t i = 0; i < m->s->n_tokens; i++) known += m->known[i];
    if (m->s->n_tokens <= spare + 2 * known) return ERR_OK;
    return err_set(m->e, ERR_INVALID, "%s: ids go up to %u, but there are only %llu tokens", m->name,
                   m->s->n_tokens - 1, (unsigned long long)known);
}

err_code maker_merge(spec_maker *m, int32_t left, int32_t right) {
    vocab_spec *s = m->s;
    if (s->n_merges == VOCAB_MERGES_MAX)
        return err_set(m->e, ERR_INVALID, "%s: more than %u merges", m->name, VOCAB_MERGES_MAX);
    if (s->n_merges == m->cap_merges) {
        size_t cap = m->cap_merges ? m->cap_merges * 2 : 65536;
        spec_merge *more = mem_realloc(s->merges, cap * sizeof *more);
        if (!more) return err_nomem(m->e, "the tokenizer's merges");
        s->merges = more;
        m->cap_merges = cap;
    }
    s->merges[s->n_merges++] = (spec_merge){left, right};
    return ERR_OK;
}

/* ---- the file --------------------------------------------------------------------------------------------- */

typedef struct reader {
    spec_maker m;
    json_scan j;
    buf key, text, other;
    char type[32];   /* model.type */
    char unk[256];   /* model.unk_token */
    char prefix[32]; /* model.continuing_subword_prefix */
    int64_t unk_id;  /* of unigram; -1: none */
    struct part {
        const char *p;
        size_t n;
    } added, normalizer, pre, post, decoder, merges;
} reader;

static err_code unsupported(reader *r, const char *what, const char *value, const char *known) {
    return r->j.rc = err_set(r->m.e, ERR_UNSUPPORTED, "%s: %s \"%.64s\" is not computed; known are %s", r->m.name, what,
                             value, known);
}

static bool read_short(reader *r, char *out, size_t cap) {
    if (json_scan_null(&r->j)) return true;
    if (!json_scan_string(&r->j, &r->text)) return false;
    if (r->text.len >= cap || strlen(buf_str(&r->text)) != r->text.len)
        return json_scan_fail(&r->j, "a text that is too long");
    memcpy(out, buf_str(&r->text), r->text.len + 1);
    return true;
}

static bool read_flag(reader *r, bool *out) {
    return json_scan_null(&r->j) || json_scan_bool(&r->j, out);
}

static bool whole(double x, double max) {
    return x >= 0 && x <= max && x == floor(x);
}

static bool take(reader *r, err_code rc) {
    if (rc != ERR_OK) r->j.rc = rc;
    return rc == ERR_OK;
}

/* {"token": id, ...} */
static bool read_vocab_object(reader *r) {
    double id;
    json_scan_enter(&r->j, '{');
    while (json_scan_member(&r->j, &r->text)) {
        if (!json_scan_number(&r->j, &id)) return false;
        if (!whole(id, VOCAB_TOKENS_MAX)) return json_scan_fail(&r->j, "a token id out of range");
        if (!take(r, maker_token(&r->m, (int64_t)id, r->text.ptr, r->text.len, TYPE_NORMAL, 0))) return false;
    }
    return r->j.rc == ERR_OK;
}

/* [["token", score], ...] */
static bool read_vocab_array(reader *r) {
    double score = 0;
    int64_t id = 0;
    json_scan_enter(&r->j, '[');
    while (json_scan_element(&r->j)) {
        if (!json_scan_enter(&r->j, '[') || !json_scan_element(&r->j) || !json_scan_string(&r->j, &r->text) ||
            !json_scan_element(&r->j) || !json_scan_number(&r->j, &score))
            return json_scan_fail(&r->j, "a token and its score are expected");
        if (!isfinite((float)score)) return json_scan_fail(&r->j, "a token's score is too large for a float");
        if (json_scan_element(&r->j)) return json_scan_fail(&r->j, "a token has more than a score");
        if (!take(r, maker_token(&r->m, id++, r->text.ptr, r->text.len, TYPE_NORMAL, (float)score))) return false;
    }
    return r->j.rc == ERR_OK;
}

static bool read_model_member(reader *r) {
    json_scan *j = &r->j;
    const char *key = buf_str(&r->key);
    vocab_spec *s = r->m.s;
    double x;
    char none[32] = "";
    if (strcmp(key, "type") == 0) return read_short(r, r->type, sizeof r->type);
    if (strcmp(key, "unk_token") == 0) return read_short(r, r->unk, sizeof r->unk);
    if (strcmp(key, "vocab") == 0) return json_scan_peek(j) == '[' ? read_vocab_array(r) : read_vocab_object(r);
    if (strcmp(key, "merges") == 0) return json_scan_skip(j, &r->merges.p, &r->merges.n);
    if (strcmp(key, "byte_fallback") == 0) return read_flag(r, &s->byte_fallback);
    if (strcmp(key, "ignore_merges") == 0) return read_flag(r, &s->ignore_merges);
    if (strcmp(key, "fuse_unk") == 0) return read_flag(r, &s->fuse_unk);
    if (strcmp(key, "continuing_subword_prefix") == 0) return read_short(r, r->prefix, sizeof r->prefix);
    if (strcmp(key, "end_of_word_suffix") == 0) {
        if (!read_short(r, none, sizeof none)) return false;
        return !none[0] || take(r, unsupported(r, "end_of_word_suffix", none, "none"));
    }
    if (strcmp(key, "dropout") == 0) {
        if (json_scan_null(j)) return true;
        if (!json_scan_number(j, &x)) return false;
        return x == 0 || take(r, unsupported(r, "dropout of", "merges", "0"));
    }
    if (strcmp(key, "unk_id") == 0) {
        if (json_scan_null(j)) return true;
        if (!json_scan_number(j, &x)) return false;
        if (!whole(x, VOCAB_TOKENS_MAX)) return json_scan_fail(j, "unk_id is out of range");
        r->unk_id = (int64_t)x;
        return true;
    }
    if (strcmp(key, "max_input_chars_per_word") == 0) {
        if (!json_scan_number(j, &x)) return false;
        if (!whole(x, 1 << 20)) return json_scan_fail(j, "max_input_chars_per_word is out of range");
        s->max_word = (uint32_t)x;
        return true;
    }
    if (json_scan_null(j)) return true;
    return take(r, unsupported(r, "model's key", key,
                               "type, vocab, merges, unk_token, unk_id, byte_fallback, ignore_merges, fuse_unk, "
                               "continuing_subword_prefix, max_input_chars_per_word"));
}

static bool read_model(reader *r) {
    r->m.s->max_word = 100;
    json_scan_enter(&r->j, '{');
    while (json_scan_member(&r->j, &r->key))
        if (!read_model_member(r)) return false;
    return r->j.rc == ERR_OK;
}

static bool read_top_member(reader *r) {
    const char *key = buf_str(&r->key);
    struct {
        const char *key;
        struct part *part;
    } const parts[] = {{"added_tokens", &r->added},
                       {"normalizer", &r->normalizer},
                       {"pre_tokenizer", &r->pre},
                       {"post_processor", &r->post},
                       {"decoder", &r->decoder}};
    if (strcmp(key, "model") == 0) {
        if (r->m.s->n_tokens) return json_scan_fail(&r->j, "a second model");
        return read_model(r);
    }
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strcmp(key, parts[i].key) != 0) continue;
        if (parts[i].part->p) return json_scan_fail(&r->j, "a part that is there twice");
        return json_scan_skip(&r->j, &parts[i].part->p, &parts[i].part->n);
    }
    /* version; truncation and padding, which are about batches, not about what a text's tokens are */
    return json_scan_skip(&r->j, NULL, NULL);
}

/* ---- added tokens ----------------------------------------------------------------------------------------- */

typedef struct added_token {
    double id;
    bool special, normalized, lstrip, rstrip, single_word;
} added_token;

static bool read_added_member(reader *r, added_token *a) {
    const char *key = buf_str(&r->key);
    if (strcmp(key, "id") == 0) return json_scan_number(&r->j, &a->id);
    if (strcmp(key, "content") == 0) return json_scan_string(&r->j, &r->text);
    if (strcmp(key, "special") == 0) return json_scan_bool(&r->j, &a->special);
    if (strcmp(key, "normalized") == 0) return json_scan_bool(&r->j, &a->normalized);
    if (strcmp(key, "lstrip") == 0) return json_scan_bool(&r->j, &a->lstrip);
    if (strcmp(key, "rstrip") == 0) return json_scan_bool(&r->j, &a->rstrip);
    if (strcmp(key, "single_word") == 0) return json_scan_bool(&r->j, &a->single_word);
    return json_scan_skip(&r->j, NULL, NULL);
}

static bool add_token(reader *r, const added_token *a) {
    vocab_spec *s = r->m.s;
    if (!whole(a->id, VOCAB_TOKENS_MAX) || !r->text.len)
        return json_scan_fail(&r->j, "an added token without id or content");
    if (a->single_word)
        return take(r, unsupported(r, "the flag single_word of the added token", buf_str(&r->text),
                                   "lstrip, rstrip, normalized and special"));
    bool unk = strcmp(r->unk, buf_str(&r->text)) == 0;
    uint8_t type = unk ? TYPE_UNKNOWN : a->special ? TYPE_CONTROL : TYPE_USER;
    if (!take(r, maker_token(&r->m, (int64_t)a->id, r->text.ptr, r->text.len, type, 0))) return false;
    s->tokens[(size_t)a->id].flags = (uint8_t)((a->lstrip ? SPEC_LSTRIP : 0) | (a->rstrip ? SPEC_RSTRIP : 0) |
                                               (a->normalized ? SPEC_NORMALIZED : 0));
    return true;
}

static err_code read_added(reader *r) {
    if (!r->added.p) return ERR_OK;
    json_scan_init(&r->j, r->added.p, r->added.n, r->m.name, r->m.e);
    if (json_scan_null(&r->j)) return ERR_OK;
    json_scan_enter(&r->j, '[');
    while (json_scan_element(&r->j)) {
        added_token a = {.id = -1};
        buf_reset(&r->text);
        json_scan_enter(&r->j, '{');
        while (json_scan_member(&r->j, &r->key))
            if (!read_added_member(r, &a)) break;
        if (r->j.rc != ERR_OK || !add_token(r, &a)) break;
    }
    return r->j.rc;
}

/* ---- merges ----------------------------------------------------------------------------------------------- */

/* "left right" or ["left", "right"]: the parts in text and other. */
static bool read_pair(reader *r) {
    json_scan *j = &r->j;
    if (json_scan_peek(j) == '[') {
        return json_scan_enter(j, '[') && json_scan_element(j) && json_scan_string(j, &r->text) &&
               json_scan_element(j) && json_scan_string(j, &r->other) &&
               (!json_scan_element(j) || json_scan_fail(j, "a merge has two parts"));
    }
    if (!json_scan_string(j, &r->text)) return false;
    const char *p = buf_str(&r->text), *space = memchr(p, ' ', r->text.len);
    if (!space || memchr(space + 1, ' ', r->text.len - (size_t)(space + 1 - p)))
        return json_scan_fail(j, "a merge is two parts with a space between");
    buf_reset(&r->other);
    buf_append(&r->other, space + 1, r->text.len - (size_t)(space + 1 - p));
    r->text.len = (size_t)(space - p);
    return take(r, buf_check(&r->other, "a merge", r->m.e));
}

static err_code read_merges(reader *r, const spec_index *ix) {
    if (!r->merges.p)
        return err_set(r->m.e, ERR_INVALID, "%s: merges are missing; without them there is no BPE", r->m.name);
    json_scan_init(&r->j, r->merges.p, r->merges.n, r->m.name, r->m.e);
    json_scan_enter(&r->j, '[');
    while (json_scan_element(&r->j)) {
        if (!read_pair(r)) break;
        int32_t left = spec_index_find(ix, buf_str(&r->text), r->text.len);
        int32_t right = spec_index_find(ix, buf_str(&r->other), r->other.len);
        if (left < 0 || right < 0) {
            json_scan_fail(&r->j, "a merge that is not made of tokens");
            break;
        }
        if (!take(r, maker_merge(&r->m, left, right))) break;
    }
    return r->j.rc;
}

/* ---- the models ------------------------------------------------------------------------------------------- */

static err_code check_type(reader *r) {
    vocab_spec *s = r->m.s;
    if (!r->type[0] && r->merges.p) snprintf(r->type, sizeof r->type, "BPE"); /* files from before there were types */
    if (strcmp(r->type, "BPE") == 0) {
        s->model = SPEC_BPE_CHARS; /* byte-level where the pre-tokenizer says so */
        if (r->prefix[0]) return unsupported(r, "continuing_subword_prefix", r->prefix, "none");
    } else if (strcmp(r->type, "Unigram") == 0) {
        s->model = SPEC_UNIGRAM;
        s->fuse_unk = true;
        if (r->unk_id < 0 || r->unk_id >= s->n_tokens)
            return err_set(r->m.e, ERR_INVALID, "%s: model.unk_id is missing or no token", r->m.name);
        const spec_token *t = &s->tokens[r->unk_id];
        if (t->len >= sizeof r->unk)
            return err_set(r->m.e, ERR_INVALID, "%s: the unknown token is too long", r->m.name);
        memcpy(r->unk, s->bytes + t->text, t->len);
        r->unk[t->len] = 0;
    } else if (strcmp(r->type, "WordPiece") == 0) {
        s->model = SPEC_WORDPIECE;
        if (strcmp(r->prefix, "##") != 0) return unsupported(r, "continuing_subword_prefix", r->prefix, "##");
    } else {
        return unsupported(r, "the model", r->type, "BPE, Unigram and WordPiece");
    }
    return ERR_OK;
}

/* "<0x0A>" is byte 10 where the model falls back to bytes. */
static void find_bytes(vocab_spec *s) {
    char text[8];
    for (uint32_t i = 0; i < s->n_tokens; i++) {
        spec_token *t = &s->tokens[i];
        if (t->len != 6 || memcmp(spec_text(s, i), "<0x", 3) != 0 || t->type == TYPE_CONTROL) continue;
        for (unsigned b = 0; b < 256; b++) {
            snprintf(text, sizeof text, "<0x%02X>", b);
            if (memcmp(text, spec_text(s, i), 6) == 0) t->type = TYPE_BYTE;
        }
    }
}

/* "##ing" becomes "ing" and "the" becomes U+2581 "the", as GGUF stores them; special tokens stay. */
static err_code turn_pieces(reader *r) {
    vocab_spec *s = r->m.s;
    char *bytes = mem_alloc(s->n_bytes + 3 * (size_t)s->n_tokens + 1);
    if (!bytes) return err_nomem(r->m.e, "the vocabulary");
    size_t at = 0;
    err_code rc = ERR_OK;
    for (uint32_t i = 0; i < s->n_tokens && rc == ERR_OK; i++) {
        spec_token *t = &s->tokens[i];
        const char *p = spec_text(s, i);
        size_t n = t->len;
        bool bracketed = n > 1 && p[0] == '[' && p[n - 1] == ']', normal = t->type == TYPE_NORMAL && !bracketed && n;
        if (t->type == TYPE_NORMAL && bracketed) t->type = TYPE_UNUSED; /* no word has brackets beside letters */
        t->text = (uint32_t)at;
        if (normal && n > 2 && p[0] == '#' && p[1] == '#') {
            if (n >= 5 && memcmp(p + 2, "\xe2\x96\x81", 3) == 0)
                rc = unsupported(r, "a piece inside of words that begins with U+2581,", p, "none");
            p += 2;
            n -= 2;
        } else if (normal) {
            memcpy(bytes + at, "\xe2\x96\x81", 3);
            at += 3;
        }
        memcpy(bytes + at, p, n);
        at += n;
        t->len = (uint32_t)(at - t->text);
    }
    mem_free(s->bytes);
    s->bytes = bytes;
    s->n_bytes = at;
    return rc;
}

static err_code parse_part(reader *r, const struct part *p, const char *what, cJSON **out) {
    *out = NULL;
    if (!p->p || (p->n == 4 && memcmp(p->p, "null", 4) == 0)) return ERR_OK;
    return json_parse(out, p->p, p->n, what, r->m.e);
}

static err_code read_parts(reader *r, const spec_index *ix) {
    cJSON *normalizer = NULL, *pre = NULL, *post = NULL, *decoder = NULL;
    err_code rc = parse_part(r, &r->normalizer, "normalizer", &normalizer);
    if (rc == ERR_OK) rc = parse_part(r, &r->pre, "pre_tokenizer", &pre);
    if (rc == ERR_OK) rc = parse_part(r, &r->post, "post_processor", &post);
    if (rc == ERR_OK) rc = parse_part(r, &r->decoder, "decoder", &decoder);
    json_parts parts = {normalizer, pre, post, decoder};
    if (rc == ERR_OK) rc = json_parts_read(&r->m, &parts, ix);
    cJSON_Delete(normalizer);
    cJSON_Delete(pre);
    cJSON_Delete(post);
    cJSON_Delete(decoder);
    return rc;
}

static err_code finish(reader *r, const spec_sources *src) {
    vocab_spec *s = r->m.s;
    spec_index ix = {0};
    err_code rc = check_type(r);
    if (rc == ERR_OK) rc = read_added(r);
    if (rc == ERR_OK && !s->n_tokens) rc = err_set(r->m.e, ERR_INVALID, "%s: the model has no tokens", r->m.name);
    if (rc == ERR_OK) rc = maker_check_holes(&r->m, 4096);
    if (rc == ERR_OK) rc = spec_index_make(&ix, s, r->m.e);
    if (rc != ERR_OK) return rc;
    if (r->unk[0]) {
        s->unk = spec_index_find(&ix, r->unk, strlen(r->unk));
        if (s->unk < 0)
            rc = err_set(r->m.e, ERR_INVALID, "%s: the unknown token \"%s\" is no token", r->m.name, r->unk);
    }
    if (rc == ERR_OK) rc = read_parts(r, &ix);
    if (rc == ERR_OK && s->byte_fallback) find_bytes(s);
    if (rc == ERR_OK && (s->model == SPEC_BPE || s->model == SPEC_BPE_CHARS)) rc = read_merges(r, &ix);
    if (rc == ERR_OK) rc = json_config_read(&r->m, src, &ix);
    spec_index_free(&ix);
    if (rc == ERR_OK && s->model == SPEC_WORDPIECE) rc = turn_pieces(r);
    return rc;
}

err_code vocab_spec_from_json(vocab_spec **out, const spec_sources *src, err *e) {
    *out = NULL;
    reader r = {.m = {.s = mem_zalloc(sizeof *r.m.s), .name = src->name, .e = e}, .unk_id = -1};
    vocab_spec *s = r.m.s;
    if (!s) return err_nomem(e, "the vocabulary");
    s->bos = s->eos = s->eot = s->eom = s->unk = s->pad = s->sep = s->cls = s->mask = -1;
    buf_init(&r.key, 1u << 16);
    buf_init(&r.text, 1u << 16);
    buf_init(&r.other, 1u << 16);
    json_scan_init(&r.j, src->tokenizer.ptr ? src->tokenizer.ptr : "", src->tokenizer.len, src->name, e);
    json_scan_enter(&r.j, '{');
    while (json_scan_member(&r.j, &r.key))
        if (!read_top_member(&r)) break;
    json_scan_end(&r.j);
    err_code rc = r.j.rc;
    if (rc == ERR_OK) rc = finish(&r, src);
    buf_free(&r.key);
    buf_free(&r.text);
    buf_free(&r.other);
    maker_free(&r.m);
    if (rc == ERR_OK)
        *out = s;
    else
        vocab_spec_free(s);
    return rc;
}
