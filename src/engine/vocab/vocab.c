#include "engine/engine.h"
#include "engine/vocab/vocab_internal.h"

#include "base/mem.h"

#include <string.h>

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
    return v->prefix != SPEC_PREFIX_NONE && v->model != SPEC_BPE;
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
    buf formed, marked; /* a piece in its normal form, and with its marks of space; room that is used again */
} encoder;

/* Appends s with U+2581 for spaces. */
static err_code put_marks(const char *s, size_t n, buf *out, err *e) {
    size_t spaces = 0;
    for (size_t i = 0; i < n; i++) spaces += s[i] == ' ';
    if (buf_reserve(out, n + 2 * spaces)) {
        char *q = out->ptr + out->len;
        for (size_t i = 0; i < n; i++) {
            if (s[i] != ' ') {
                *q++ = s[i];
                continue;
            }
            memcpy(q, MARK_OF_SPACE, 3);
            q += 3;
        }
        *q = 0;
        out->len += n + 2 * spaces;
    }
    return buf_check(out, "the text to tokenize", e);
}

static bool has_form(const vocab *v) {
    return v->form != SPEC_FORM_NONE || v->charsmap;
}

static err_code put_form(const vocab *v, const char *s, size_t n, buf *out, err *e) {
    if (!v->charsmap) return normal_form(v->form, s, n, out, e);
    return charsmap_apply(v->charsmap, v->n_charsmap, s, n, out, e);
}

static bool puts_marks_early(const vocab *v) {
    return v->escape_spaces && v->early_marks;
}

static err_code put_early_marks(const vocab *v, const char *s, size_t n, buf *out, err *e) {
    if (v->prefix == SPEC_PREFIX_ALWAYS && n) buf_puts(out, MARK_OF_SPACE);
    return put_marks(s, n, out, e);
}

err_code vocab_normalise(const vocab *v, const char *s, size_t n, buf *out, err *e) {
    if (!puts_marks_early(v)) return put_form(v, s, n, out, e);
    buf form = {.max = out->max};
    err_code rc = put_form(v, s, n, &form, e);
    if (rc == ERR_OK) rc = put_early_marks(v, form.ptr, form.len, out, e);
    buf_free(&form);
    return rc;
}

/* One word as the model takes it: nothing cuts it but the model itself. */
static err_code encode_word(encoder *c, const char *s, size_t n) {
    if (c->v->model == SPEC_UNIGRAM) return unigram_encode(c->v, &c->m, s, n, &c->out);
    return chars_encode(c->v, &c->m, s, n, &c->out);
}

/* Marks (SPEC_WORDS_MARKS) or lines begin words. */
static err_code encode_words(encoder *c, const char *s, size_t n) {
    const char *end = s + n;
    err_code rc = ERR_OK;
    while (s < end && rc == ERR_OK) {
        const char *p = s;
        if (c->v->cut == SPEC_WORDS_MARKS) {
            for (p++; p < end && !is_mark(p, end);) p++;
        } else if (c->v->lines) {
            bool newline = *p == '\n';
            while (p < end && (*p == '\n') == newline) p++;
        } else {
            p = end;
        }
        rc = encode_word(c, s, (size_t)(p - s));
        s = p;
    }
    return rc;
}

/* Metaspace: a mark in front where there is none, and marks for spaces. */
static err_code encode_late_marks(encoder *c, const char *s, size_t n, bool first) {
    const vocab *v = c->v;
    bool prefix = v->prefix == SPEC_PREFIX_ALWAYS || v->prefix == SPEC_PREFIX_MISSING ||
                  (v->prefix == SPEC_PREFIX_FIRST && first);
    if (prefix && v->prefix != SPEC_PREFIX_ALWAYS) prefix = !(n && (*s == ' ' || is_mark(s, s + n)));
    buf_reset(&c->marked);
    if (prefix) buf_puts(&c->marked, MARK_OF_SPACE);
    err_code rc = put_marks(s, n, &c->marked, c->out.e);
    return rc == ERR_OK ? encode_words(c, c->marked.ptr, c->marked.len) : rc;
}

/* WhitespaceSplit, then Metaspace for each word. */
static err_code encode_split(encoder *c, const char *s, size_t n, bool first) {
    err_code rc = ERR_OK;
    for (size_t i = 0; rc == ERR_OK;) {
        size_t white = normal_white_before(s + i, n - i);
        i += white;
        first = first && !white;
        if (i == n) break;
        size_t end = i;
        while (end < n && !normal_white_before(s + end, n - end)) end++;
        rc = encode_late_marks(c, s + i, end - i, first);
        first = false;
        i = end;
    }
    return rc;
}

/* Text that is through with special tokens, in its normal form. */
static err_code encode_model(encoder *c, const char *s, size_t n, bool first) {
    const vocab *v = c->v;
    if (!n) return ERR_OK;
    if (v->model == SPEC_WORDPIECE) return wordpiece_encode(v, s, n, &c->out);
    if (v->model == SPEC_BPE) {
        if (v->prefix != SPEC_PREFIX_MISSING || *s == ' ') return bpe_encode(v, &c->m, s, n, &c->out);
        buf_reset(&c->marked);
        buf_putc(&c->marked, ' ');
        buf_append(&c->marked, s, n);
        err_code rc = buf_check(&c->marked, "the text to tokenize", c->out.e);
        return rc == ERR_OK ? bpe_encode(v, &c->m, c->marked.ptr, c->marked.len, &c->out) : rc;
    }
    if (v->cut == SPEC_WORDS_SPACE) return encode_split(c, s, n, first);
    if (v->escape_spaces && !v->early_marks) return encode_late_marks(c, s, n, first);
    return encode_words(c, s, n);
}

typedef err_code (*between)(encoder *c, const char *s, size_t n, bool first);

/* Cuts the trie's tokens out of s; what is between them, with the white space that they take, goes to `rest`. */
static err_code cut_special(encoder *c, const special_trie *t, const char *s, size_t n, bool first, between rest) {
    const vocab *v = c->v;
    size_t from = 0, i = 0, len = 0;
    err_code rc = ERR_OK;
    if (!t->nodes || !(c->parse_special || t->always)) return rest(c, s, n, first);
    while (i < n && rc == ERR_OK) {
        int32_t id = t->first[(uint8_t)s[i]] ? special_match(v, t, s + i, n - i, c->parse_special, &len) : -1;
        if (id < 0) {
            i++;
            continue;
        }
        size_t end = i;
        if (v->tokens[id].flags & SPEC_LSTRIP) end -= normal_white_after(s + from, i - from);
        if (end > from) rc = rest(c, s + from, end - from, first && !from);
        if (rc == ERR_OK) rc = id_list_add(&c->out, id);
        i += len;
        if (v->tokens[id].flags & SPEC_RSTRIP) i += normal_white_before(s + i, n - i);
        from = i;
    }
    if (rc == ERR_OK && n > from) rc = rest(c, s + from, n - from, first && !from);
    return rc;
}

/* A piece between special tokens: its normal form, and the special tokens of that. */
static err_code encode_piece(encoder *c, const char *s, size_t n, bool first) {
    const vocab *v = c->v;
    err_code rc = ERR_OK;
    if (v->model == SPEC_WORDPIECE || has_form(v)) {
        buf_reset(&c->formed);
        rc = v->model == SPEC_WORDPIECE ? normal_bert(v->bert, s, n, &c->formed, c->out.e)
                                        : put_form(v, s, n, &c->formed, c->out.e);
        s = buf_str(&c->formed);
        n = c->formed.len;
    }
    if (rc == ERR_OK && puts_marks_early(v)) {
        buf_reset(&c->marked);
        rc = put_early_marks(v, s, n, &c->marked, c->out.e);
        s = buf_str(&c->marked);
        n = c->marked.len;
    }
    return rc == ERR_OK ? cut_special(c, &v->normalized, s, n, first, encode_model) : rc;
}

static err_code add_all(id_list *out, const int32_t *ids, uint8_t n) {
    err_code rc = ERR_OK;
    for (uint8_t i = 0; i < n && rc == ERR_OK; i++) rc = id_list_add(out, ids[i]);
    return rc;
}

err_code vocab_encode(const vocab *v, const char *text, size_t len, int flags, size_t max_tokens, int32_t **out,
                      size_t *n, err *e) {
    *out = NULL;
    *n = 0;
    if (len > VOCAB_TEXT_MAX)
        return err_set(e, ERR_TOO_LARGE, "the text to tokenize has %zu bytes, at most %zu are taken", len,
                       VOCAB_TEXT_MAX);
    encoder c = {.v = v, .m = {.v = v}, .out = {.max = max_tokens, .e = e}};
    c.parse_special = flags & TOK_PARSE_SPECIAL;
    c.formed.max = c.marked.max = 18 * (len + 1); /* no normal form is longer than that */
    bool add = flags & TOK_ADD_SPECIAL;
    err_code rc = ERR_OK;
    if (add) rc = add_all(&c.out, v->before, v->n_before);
    if (rc == ERR_OK && len) rc = cut_special(&c, &v->raw, text, len, true, encode_piece);
    if (rc == ERR_OK && add) rc = add_all(&c.out, v->after, v->n_after);
    merger_done(&c.m);
    buf_free(&c.formed);
    buf_free(&c.marked);
    if (rc != ERR_OK) {
        mem_free(c.out.ids);
        return rc;
    }
    *out = c.out.ids;
    *n = c.out.n;
    return ERR_OK;
}
