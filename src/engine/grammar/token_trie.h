/* Internal to engine: the tokens of a vocabulary as a tree of bytes, laid out in preorder, so that all tokens that may
 * follow a state are found in one walk that skips what dies. Made once a model, on first use; immutable.
 *
 * Only tokens of text are in it: no control, unknown or end tokens, none without bytes. */
#ifndef POLDER_ENGINE_TOKEN_TRIE_H
#define POLDER_ENGINE_TOKEN_TRIE_H

#include "engine/vocab/vocab.h"

/* Kinds of bytes: which of them a subtree holds is one byte, see constraint_mask.c. */
enum {
    TRIE_LETTER = 1,
    TRIE_DIGIT = 2,
    TRIE_SPACE = 4,
    TRIE_QUOTE = 8,
    TRIE_BACKSLASH = 16,
    TRIE_CONTROL = 32,
    TRIE_PUNCT = 64, /* all other ASCII */
    TRIE_HIGH = 128,
};
uint8_t trie_kind(uint8_t byte);

typedef struct trie_place {
    uint32_t skip; /* the first place after this subtree */
    uint32_t
        token; /* ids[token .. token of the next place): tokens that end here; of the subtree up to token of skip */
    uint16_t depth, height; /* bytes from the root; bytes of the longest way down from here */
    uint8_t byte, kinds;    /* the byte that leads here; kinds of the bytes below (this one not among them) */
} trie_place;

typedef struct token_trie {
    const vocab *v;
    uint32_t n_vocab; /* bits of a mask */
    uint32_t n_places;
    trie_place *places; /* n_places + 1: the last one closes */
    int32_t *ids;       /* in the order of their bytes */
    uint32_t n_ids;
    uint32_t depth_max;
    int32_t *ends; /* end tokens */
    uint32_t n_ends;
    uint8_t *is_text; /* (n_vocab) */
} token_trie;

err_code token_trie_new(token_trie **out, const vocab *v, err *e);
void token_trie_free(token_trie *t); /* NULL is fine */
/* Is it a token of text? */
bool token_trie_is_text(const token_trie *t, int32_t id);
/* The token that is written so, special or not; -1 where none is. */
int32_t token_trie_find(const token_trie *t, const char *text, size_t len);

#endif
