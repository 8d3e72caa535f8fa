#include "engine/vocab/vocab_internal.h"

#include "base/bytes.h"

#include <string.h>

/* WordPiece as BERT has it: text is cleaned and folded (vocab_normal.c), cut at white space and around punctuation, and
 * a word is cut into the longest tokens from its beginning on; a word that this does not cover, or that is too long, is
 * the unknown token. The first piece of a word has a mark of space in its text, the others have none. */

err_code wordpiece_load(vocab *v, const vocab_spec *s, err *e) {
    (void)s;
    err_code rc = vocab_make_pieces(v, e);
    if (rc == ERR_OK) rc = word_trie_make(v, e);
    if (rc != ERR_OK) return rc;
    if (v->unk < 0) return err_set(e, ERR_INVALID, "tokenizer: a WordPiece vocabulary needs an unknown token");
    uint32_t node = 1;
    for (const char *p = MARK_OF_SPACE; *p && node; p++) node = word_trie_step(&v->words, node, (uint8_t)*p);
    v->mark_node = node;
    return ERR_OK;
}

/* The end of the longest token at i, whose *id it is; i where there is none. Only word starts have marks. */
static size_t longest_piece(const vocab *v, const char *s, size_t n, size_t i, int32_t *id) {
    size_t found = i;
    uint32_t node = i ? 1 : v->mark_node;
    if (i && is_mark(s + i, s + n)) return i;
    for (size_t end = i; end < n && node && (node = word_trie_step(&v->words, node, (uint8_t)s[end]));) {
        end++;
        if (v->words.tokens[node] < 0) continue;
        *id = v->words.tokens[node];
        found = end;
    }
    return found;
}

static err_code encode_word(const vocab *v, const char *s, size_t n, size_t n_chars, id_list *out) {
    size_t before = out->n;
    bool whole = !v->max_word || n_chars <= v->max_word;
    for (size_t i = 0; i < n && whole;) {
        int32_t id = -1;
        size_t end = longest_piece(v, s, n, i, &id);
        whole = end > i;
        if (!whole) break;
        err_code rc = id_list_add(out, id);
        if (rc != ERR_OK) return rc;
        i = end;
    }
    if (whole) return ERR_OK;
    out->n = before;
    return id_list_add(out, v->unk);
}

/* s has been through normal_bert. */
err_code wordpiece_encode(const vocab *v, const char *s, size_t n, id_list *out) {
    err_code rc = ERR_OK;
    size_t from = 0, n_chars = 0;
    for (size_t i = 0; i < n && rc == ERR_OK;) {
        uint32_t cp;
        int k = utf8_decode(&cp, s + i, n - i);
        size_t len = k > 0 ? (size_t)k : 1;
        bool white = k > 0 && normal_is_white(cp), alone = k > 0 && normal_is_punctuation(cp);
        if (white || alone) {
            if (i > from) rc = encode_word(v, s + from, i - from, n_chars, out);
            if (alone && rc == ERR_OK) rc = encode_word(v, s + i, len, 1, out);
            from = i + len;
            n_chars = 0;
        } else {
            n_chars++;
        }
        i += len;
    }
    if (rc == ERR_OK && n > from) rc = encode_word(v, s + from, n - from, n_chars, out);
    return rc;
}
