#include "engine/vocab_internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* Special tokens: which ids they have, which of them end an answer, and finding them in text. */

/* ---- finding them: a trie of their texts ------------------------------------------------------------------ */

/* The child of `at` for byte b, 0 where there is none. */
static uint32_t trie_child(const vocab *v, uint32_t at, uint8_t b) {
    uint32_t c = v->trie[at].child;
    while (c && v->trie[c].byte != b) c = v->trie[c].next;
    return c;
}

static void trie_add(vocab *v, const char *p, size_t n, int32_t id) {
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t c = trie_child(v, at, (uint8_t)p[i]);
        if (!c) {
            c = v->n_trie++;
            v->trie[c] = (trie_node){.next = v->trie[at].child, .token = -1, .byte = (uint8_t)p[i]};
            v->trie[at].child = c;
        }
        at = c;
    }
    if (v->trie[at].token < 0) v->trie[at].token = id; /* of two equal texts the first counts */
}

static bool is_special_type(uint8_t type) {
    return type == TYPE_CONTROL || type == TYPE_UNKNOWN || type == TYPE_USER;
}

static err_code trie_make(vocab *v, err *e) {
    size_t n = 1;
    for (uint32_t i = 0; i < v->n; i++)
        if (is_special_type(v->tokens[i].type)) n += v->tokens[i].text_len;
    if (n >= UINT32_MAX) return err_set(e, ERR_INVALID, "tokenizer: the special tokens are too long");
    if (!(v->trie = mem_array(n, sizeof *v->trie))) return err_nomem(e, "the special tokens");
    v->trie[0].token = -1;
    v->n_trie = 1;
    for (uint32_t i = 0; i < v->n; i++) {
        const vocab_token *t = &v->tokens[i];
        if (!is_special_type(t->type) || !t->text_len) continue;
        trie_add(v, vocab_text_ptr(v, (int32_t)i), t->text_len, (int32_t)i);
        if (t->type == TYPE_USER) v->has_user_tokens = true;
    }
    return ERR_OK;
}

int32_t special_match(const vocab *v, const char *s, size_t n, bool parse_special) {
    int32_t found = -1;
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        at = trie_child(v, at, (uint8_t)s[i]);
        if (!at) break;
        int32_t id = v->trie[at].token;
        if (id >= 0 && (parse_special || v->tokens[id].type == TYPE_USER)) found = id;
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
        for (size_t k = 0; k < N_END_TEXTS && !t->is_end; k++) t->is_end = text_is(v, i, end_texts[k]);
        /* a converter that forgot to say so: what ends an answer is never text */
        if (t->is_end && t->type != TYPE_CONTROL) t->type = TYPE_CONTROL;
        if (text_is(v, i, "<|end|>")) end = (int32_t)i;
        if (text_is(v, i, "<|return|>") || text_is(v, i, "<|call|>")) harmony++;
    }
    /* gpt-oss: <|end|> closes a message of several, <|return|> and <|call|> the answer */
    if (end >= 0 && harmony == 2) v->tokens[end].is_end = false;
    const int32_t named[] = {v->eos, v->eot, v->eom};
    for (int i = 0; i < 3; i++)
        if (named[i] >= 0) v->tokens[named[i]].is_end = true;
}

static err_code read_id(const vocab *v, const gguf *g, const char *key, int32_t *id, err *e) {
    uint32_t x;
    if (!gguf_has(g, key)) {
        if (*id >= 0 && (uint32_t)*id >= v->n) *id = -1; /* a default that this vocabulary does not have */
        return ERR_OK;
    }
    err_code rc = gguf_u32(g, key, 0, v->n - 1, &x, e);
    if (rc == ERR_OK) *id = (int32_t)x;
    return rc;
}

static err_code read_add(const gguf *g, const char *key, const char *what, int32_t id, bool *add, err *e) {
    bool given = gguf_has(g, key);
    err_code rc = gguf_bool_or(g, key, *add, add, e);
    if (rc != ERR_OK || !*add || id >= 0) return rc;
    if (given)
        return err_set(e, ERR_INVALID, "%s: %s is true, but the file names no %s token", gguf_path(g), key, what);
    *add = false;
    return ERR_OK;
}

/* Phi-3 was trained with the white space after its special tokens removed; the file does not say so. */
static err_code find_strips_right(vocab *v, const gguf *g, err *e) {
    gguf_str name;
    err_code rc = gguf_str_or(g, "general.name", &name, e);
    if (rc != ERR_OK) return rc;
    bool phi3 = false;
    for (size_t i = 0; i + 4 <= name.len && !phi3; i++) {
        char s[6] = {0};
        for (size_t k = 0; k < 5 && i + k < name.len; k++) {
            char c = name.ptr[i + k];
            s[k] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
        }
        phi3 = strcmp(s, "phi-3") == 0 || strncmp(s, "phi3", 4) == 0;
    }
    for (uint32_t i = 0; phi3 && i < v->n; i++) {
        if (!is_special_type(v->tokens[i].type)) continue;
        v->tokens[i].strips_right = !text_is(v, i, "<unk>") && !text_is(v, i, "<s>") && !text_is(v, i, "<|endoftext|>");
    }
    return ERR_OK;
}

err_code special_load(vocab *v, const gguf *g, err *e) {
    bool spm = v->family == FAMILY_SPM;
    v->bos = spm ? 1 : -1;
    v->eos = spm ? 2 : -1;
    v->unk = spm ? 0 : -1;
    v->eot = v->eom = -1;
    err_code rc = read_id(v, g, "tokenizer.ggml.bos_token_id", &v->bos, e);
    if (rc == ERR_OK) rc = read_id(v, g, "tokenizer.ggml.eos_token_id", &v->eos, e);
    if (rc == ERR_OK) rc = read_id(v, g, "tokenizer.ggml.eot_token_id", &v->eot, e);
    if (rc == ERR_OK) rc = read_id(v, g, "tokenizer.ggml.eom_token_id", &v->eom, e);
    if (rc == ERR_OK) rc = read_id(v, g, "tokenizer.ggml.unknown_token_id", &v->unk, e);
    v->add_bos = spm || pretok_adds_bos(v->pre);
    v->add_eos = false;
    v->add_space_prefix = spm;
    if (rc == ERR_OK) rc = read_add(g, "tokenizer.ggml.add_bos_token", "BOS", v->bos, &v->add_bos, e);
    if (rc == ERR_OK) rc = read_add(g, "tokenizer.ggml.add_eos_token", "EOS", v->eos, &v->add_eos, e);
    if (rc == ERR_OK && spm) rc = gguf_bool_or(g, "tokenizer.ggml.add_space_prefix", true, &v->add_space_prefix, e);
    if (rc != ERR_OK) return rc;
    find_ends(v);
    rc = find_strips_right(v, g, e);
    return rc == ERR_OK ? trie_make(v, e) : rc;
}
