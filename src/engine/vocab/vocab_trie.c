#include "engine/vocab/vocab_internal.h"

#include "base/mem.h"

#include <string.h>

/* A trie of all tokens that text may become, as a hash table of edges (node, byte) -> node: about ten bytes a node, one
 * look-up a byte, made in one pass over the vocabulary. Nodes are numbered from 1, the root. */

void word_trie_free(word_trie *t) {
    mem_free(t->edges);
    mem_free(t->tokens);
    *t = (word_trie){0};
}

static err_code add_edge(word_trie *t, uint32_t node, uint8_t byte, uint32_t *child, err *e) {
    uint32_t edge = node << 8 | byte, i = (uint32_t)((edge * 0x9e3779b97f4a7c15u) >> 32) & t->mask, probes = 0;
    for (; t->edges[i].child; i = (i + 1) & t->mask) {
        if (t->edges[i].edge == edge) {
            *child = t->edges[i].child;
            return ERR_OK;
        }
        if (++probes > VOCAB_PROBES_MAX)
            return err_set(e, ERR_INVALID, "tokenizer: the tokens were made to be slow: too many fall together");
    }
    *child = t->n_nodes++;
    t->edges[i].edge = edge;
    t->edges[i].child = *child;
    t->tokens[*child] = -1;
    return ERR_OK;
}

err_code word_trie_make(vocab *v, err *e) {
    word_trie *t = &v->words;
    size_t nodes = 2;
    for (uint32_t id = 0; id < v->n; id++)
        if (vocab_may_come_of_text(v, (int32_t)id)) nodes += v->tokens[id].text_len;
    if (nodes >= 1u << 24)
        return err_set(e, ERR_INVALID, "tokenizer: the tokens have %zu bytes, at most 16 MiB are taken", nodes);
    size_t slots = 16;
    while (slots < nodes * 3 / 2) slots *= 2;
    t->edges = mem_array(slots, sizeof *t->edges);
    t->tokens = mem_array(nodes, sizeof *t->tokens);
    if (!t->edges || !t->tokens) return err_nomem(e, "the vocabulary");
    t->mask = (uint32_t)slots - 1;
    t->n_nodes = 2;
    t->tokens[0] = t->tokens[1] = -1;
    for (uint32_t id = 0; id < v->n; id++) {
        if (!vocab_may_come_of_text(v, (int32_t)id) || !v->tokens[id].text_len) continue;
        const char *p = vocab_text_ptr(v, (int32_t)id);
        uint32_t at = 1;
        for (size_t i = 0; i < v->tokens[id].text_len; i++) {
            err_code rc = add_edge(t, at, (uint8_t)p[i], &at, e);
            if (rc != ERR_OK) return rc;
        }
        if (t->tokens[at] < 0) t->tokens[at] = (int32_t)id; /* of equal tokens the first counts */
    }
    return ERR_OK;
}
