#include "engine/vocab/vocab_internal.h"

#include "base/mem.h"

#include <string.h>

/* Special tokens: which ids they have, which of them end an answer, and finding them in text. */

/* ---- finding them: a trie of their texts ------------------------------------------------------------------ */

/* The child of `at` for byte b, 0 where there is none. */
static uint32_t trie_child(const special_trie *t, uint32_t at, uint8_t b) {
    uint32_t c = t->nodes[at].child;
    while (c && t->nodes[c].byte != b) c = t->nodes[c].next;
    return c;
}

static void trie_add(special_trie *t, const char *p, size_t n, int32_t id) {
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t c = trie_child(t, at, (uint8_t)p[i]);
        if (!c) {
            c = t->n++;
            t->nodes[c] = (trie_node){.next = t->nodes[at].child, .token = -1, .byte = (uint8_t)p[i]};
            t->nodes[at].child = c;
        }
        at = c;
    }
    if (t->nodes[at].token < 0) t->nodes[at].token = id; /* of two equal texts the first counts */
    if (n) t->first[(uint8_t)p[0]] = true;
}

static bool is_special_type(uint8_t type) {
    return type == TYPE_CONTROL || type == TYPE_UNKNOWN || type == TYPE_USER;
}

static bool is_wanted(const vocab_token *t, bool normalized) {
    return is_special_type(t->type) && t->text_len && ((t->flags & SPEC_NORMALIZED) != 0) == normalized;
}

/* The text under which a token is searched: its normal form where it is searched in one. */
static err_code searched_text(const vocab *v, uint32_t id, bool normalized, buf *out, err *e) {
    const vocab_token *t = &v->tokens[id];
    buf_reset(out);
    if (normalized) return vocab_normalise(v, vocab_text_ptr(v, (int32_t)id), t->text_len, out, e);
    buf_append(out, vocab_text_ptr(v, (int32_t)id), t->text_len);
    return buf_check(out, "the special tokens", e);
}

static err_code trie_make(const vocab *v, special_trie *t, bool normalized, err *e) {
    size_t n = 1;
    buf text = {.max = 1u << 20};
    err_code rc = ERR_OK;
    for (uint32_t i = 0; i < v->n && rc == ERR_OK; i++) {
        if (!is_wanted(&v->tokens[i], normalized)) continue;
        rc = searched_text(v, i, normalized, &text, e);
        n += text.len;
    }
    if (rc == ERR_OK && n >= UINT32_MAX) rc = err_set(e, ERR_INVALID, "tokenizer: the special tokens are too long");
    if (rc == ERR_OK && n > 1) {
        if (!(t->nodes = mem_array(n, sizeof *t->nodes))) rc = err_nomem(e, "the special tokens");
        if (rc == ERR_OK) t->nodes[0].token = -1;
        t->n = 1;
    }
    for (uint32_t i = 0; t->nodes && i < v->n && rc == ERR_OK; i++) {
        if (!is_wanted(&v->tokens[i], normalized)) continue;
        if ((rc = searched_text(v, i, normalized, &text, e)) != ERR_OK) break;
        trie_add(t, buf_str(&text), text.len, (int32_t)i);
        t->always = t->always || v->tokens[i].type == TYPE_USER;
    }
    buf_free(&text);
    return rc;
}

void special_free(special_trie *t) {
    mem_free(t->nodes);
    t->nodes = NULL;
}

int32_t special_match(const vocab *v, const special_trie *t, const char *s, size_t n, bool parse_special, size_t *len) {
    int32_t found = -1;
    uint32_t at = 0;
    if (!t->nodes) return -1;
    for (size_t i = 0; i < n; i++) {
        at = trie_child(t, at, (uint8_t)s[i]);
        if (!at) break;
        int32_t id = t->nodes[at].token;
        if (id < 0 || (!parse_special && v->tokens[id].type != TYPE_USER)) continue;
        found = id;
        *len = i + 1;
    }
    return found;
}

/* ---- their ids -------------------------------------------------------------------------------------------- */

static bool text_is(const vocab *v, uint32_t id, const char *s) {
    return strlen(s) == v->tokens[id].text_len && memcmp(vocab_text_ptr(v, (int32_t)id), s, strlen(s)) == 0;
}

/* Files often name only one end-of-sequence token; chat models stop at others, known by their text. */
static const char *const end_texts[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "</s>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<\357\275\234end\342\226\201of\342\226\201sentence\357\275\234>" /* DeepSeek: U+FF5C, U+2581 */,
};
#define N_END_TEXTS (sizeof end_texts / sizeof end_texts[0])

static void find_ends(vocab *v) {
    int32_t end = -1, harmony = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        vocab_token *t = &v->tokens[i];
        char c = t->text_len ? *vocab_text_ptr(v, (int32_t)i) : 0;
        if (c != '<' && c != '[' && c != '_') continue; /* with which all of these begin */
        for (size_t k = 0; k < N_END_TEXTS && !t->is_end; k++) t->is_end = text_is(v, i, end_texts[k]);
        /* a converter that forgot to say so: what ends an answer is never text */
        if (t->is_end && t->type != TYPE_CONTROL) t->type = TYPE_CONTROL;
        if (text_is(v, i, "<|end|>")) end = (int32_t)i;
        if (text_is(v, i, "<|return|>") || text_is(v, i, "<|call|>")) harmony++;
    }
    /* gpt-oss: <|end|> closes a message of several, <|return|> and <|call|> the answer */
    if (end >= 0 && harmony == 2) v->tokens[end].is_end = false;
}

/* An id of the spec, or -1 where it is none of this vocabulary. */
static int32_t id_or_none(const vocab *v, int32_t id) {
    return id >= 0 && (uint32_t)id < v->n ? id : -1;
}

static uint8_t copy_ids(const vocab *v, int32_t *out, const int32_t *ids, uint8_t n) {
    uint8_t k = 0;
    for (uint8_t i = 0; i < n && i < SPEC_AROUND_MAX; i++)
        if (id_or_none(v, ids[i]) >= 0) out[k++] = ids[i];
    return k;
}

err_code special_load(vocab *v, const vocab_spec *s, err *e) {
    v->bos = id_or_none(v, s->bos);
    v->eos = id_or_none(v, s->eos);
    v->unk = id_or_none(v, s->unk);
    v->n_before = copy_ids(v, v->before, s->before, s->n_before);
    v->n_after = copy_ids(v, v->after, s->after, s->n_after);
    find_ends(v);
    const int32_t named[] = {v->eos, id_or_none(v, s->eot), id_or_none(v, s->eom)};
    for (int i = 0; i < 3; i++)
        if (named[i] >= 0) v->tokens[named[i]].is_end = true;
    for (uint8_t i = 0; i < s->n_ends && i < SPEC_ENDS_MAX; i++)
        if (id_or_none(v, s->ends[i]) >= 0) v->tokens[s->ends[i]].is_end = true;
    err_code rc = trie_make(v, &v->raw, false, e);
    return rc == ERR_OK ? trie_make(v, &v->normalized, true, e) : rc;
}
