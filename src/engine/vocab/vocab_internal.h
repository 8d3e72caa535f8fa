/* Internal to the tokenizers: the loaded vocabulary, the merge engine that SentencePiece and BPE share, and the
 * list of tokens under construction. Included by vocab*.c and detok.c only.
 *
 * How an encoding comes about (vocab.c): added tokens are cut out of the text (vocab_special.c), the pieces between
 * take their normal form and their marks of space (vocab_normal.c), added tokens that look at the normal form are cut
 * out of that, and the rest goes to the model's own file, which cuts it into words and these into tokens.
 *
 * Invariants
 *  1. No text of a user becomes a control, unknown or byte token by merging: the lookup tables hold none of them.
 *  2. Time is O(n log n) for every text: a word's merges go through a heap, each scan moves forward, and no walk in a
 *     trie is longer than the longest token.
 */
#ifndef POLDER_ENGINE_VOCAB_INTERNAL_H
#define POLDER_ENGINE_VOCAB_INTERNAL_H

#include "base/bytes.h"
#include "engine/vocab/pretok.h"
#include "engine/vocab/vocab_keys.h"
#include "engine/vocab/vocab_normal.h"

#include <string.h>

#define VOCAB_NO_RANK UINT32_MAX
#define MARK_OF_SPACE "\xe2\x96\x81" /* U+2581 */

/* What vocab keeps of a token beside its bytes. */
typedef struct vocab_token {
    uint32_t text;  /* offset in `bytes`: as the file has it */
    uint32_t piece; /* offset in `bytes`: as it stands in text; equal to `text` where they are the same */
    uint16_t text_len, piece_len;
    uint8_t type;
    uint8_t flags; /* SPEC_LSTRIP, ... */
    bool is_end;
    uint8_t zero; /* an image has these bytes too: it must be the same of the same vocabulary */
} vocab_token;

typedef struct merge_pair {      /* BPE: tokens left and right become `merged`, lower ranks first */
    int32_t left, right, merged; /* left is -1 in an empty slot */
    uint32_t rank;
} merge_pair;

typedef struct byte_pair {
    uint32_t rank; /* VOCAB_NO_RANK: they do not merge */
    int32_t merged;
} byte_pair;
#define PAIR_BITS_LOG 22

typedef struct trie_node { /* of special tokens; 0 is the root and no node's child */
    uint32_t child, next;
    int32_t token;         /* -1: none ends here */
    uint8_t byte, zero[3]; /* as vocab_token's */
} trie_node;

typedef struct special_trie {
    trie_node *nodes; /* NULL: no such tokens */
    uint32_t n;
    bool always;     /* it holds user-defined tokens, which count whatever the flags of an encoding say */
    bool first[256]; /* bytes that a token begins with */
} special_trie;

/* All tokens that text may become, by their bytes: a hash table of edges. */
typedef struct word_trie {
    struct {
        uint32_t edge;  /* node << 8 | byte */
        uint32_t child; /* 0: empty slot */
    } * edges;
    uint32_t mask, n_nodes;
    int32_t *tokens; /* by node, -1: none ends there */
} word_trie;

struct vocab {
    spec_model model;
    const pretok *pre; /* BPE only */
    char kind[48];
    uint32_t n;
    vocab_token *tokens;
    char *bytes;
    uint32_t longest; /* bytes of the longest token that merging can make */

    uint32_t *table; /* open addressing, id + 1: BPE by piece, others by text; only tokens that text may become */
    uint32_t table_mask;
    int32_t byte_ids[256]; /* token of a byte, -1 where there is none */

    uint32_t *ranks; /* by id: of merging two neighbours whose union it is. NULL: merges have ranks of their own */
    uint64_t *joins; /* SPM and BPE of characters: bits of pairs of characters that are neighbours in some token */
    merge_pair *pairs;
    uint32_t pairs_mask;
    uint64_t *pair_bits;          /* which pairs may be in `pairs` */
    byte_pair (*byte_pairs)[256]; /* SPEC_BPE: of two bytes */

    word_trie words; /* unigram, WordPiece */
    float *scores;   /* unigram */
    double unk_score;
    uint32_t mark_node; /* WordPiece: of U+2581, where the first piece of a word begins; 0: no token has it */

    special_trie raw, normalized; /* searched in text as it comes, and in its normal form */

    spec_form form;
    spec_prefix prefix;
    spec_words cut;
    bool escape_spaces, early_marks /* spaces are escaped before `normalized` is searched */;
    bool ignore_merges, byte_fallback, fuse_unk, lines;
    uint8_t bert;
    uint32_t max_word;
    char *charsmap;
    size_t n_charsmap;

    void *image; /* not NULL: all arrays lie in it (vocab_image.c) */
    size_t image_bytes;

    int32_t bos, eos, eot, eom, unk;
    int32_t before[SPEC_AROUND_MAX], after[SPEC_AROUND_MAX];
    uint8_t n_before, n_after;
};

/* ---- the list under construction ---- */
typedef struct id_list {
    int32_t *ids;
    size_t n, cap, max;
    err *e;
} id_list;
/* ERR_TOO_LONG past max, ERR_NOMEM. */
err_code id_list_add(id_list *l, int32_t id);

/* ---- merging ---- */
typedef struct symbol {
    uint32_t start, len; /* bytes of the word; len 0: merged into its left neighbour */
    int32_t id;          /* -1: not a token of its own */
    uint32_t prev, next; /* UINT32_MAX: none */
    uint32_t rank;       /* of merging with next, VOCAB_NO_RANK where that is no token */
    int32_t merged;      /* the token it would give */
} symbol;

typedef struct merger_piece { /* a token of a window; id -1: a character that is none */
    uint32_t start, len;
    int32_t id;
} merger_piece;
typedef struct merger_pieces {
    merger_piece *p;
    size_t cap;
} merger_pieces;

typedef struct merger { /* scratch, reused from word to word; vocab_merge.c says how the queue works */
    const vocab *v;
    const char *text;
    symbol *symbols;
    size_t n, cap;
    uint64_t *first, *later; /* rank << 32 | index of the left symbol: the order of merging */
    size_t n_first, at_first, n_run, at_run, n_heap;
    merger_pieces rooms[2];
    bool after_unk; /* the last token that went out is the unknown one, and neighbours of it fuse */
} merger;
void merger_done(merger *m);
/* Room for n symbols; sets m->n to 0. */
err_code merger_reserve(merger *m, size_t n, err *e);
/* The tokens of a word, n > 0: bytes (SPEC_BPE) or characters merged until nothing can be merged. */
err_code merge_word(merger *m, const char *s, size_t n, id_list *out);
/* Bytes of the character at s; 1 where there is none. */
static inline size_t merger_char_len(const char *s, size_t n) {
    uint32_t cp;
    int k = utf8_decode(&cp, s, n);
    return k > 0 ? (size_t)k : 1;
}

/* ---- the models: load what encoding needs beside tokens; encode text without special tokens ---- */
err_code chars_load(vocab *v, const vocab_spec *s, err *e);
err_code bpe_load(vocab *v, const vocab_spec *s, err *e);
err_code unigram_load(vocab *v, const vocab_spec *s, err *e);
err_code wordpiece_load(vocab *v, const vocab_spec *s, err *e);
/* The table of merges, for both kinds of BPE; and of all pairs of tokens whose union is a token, by v->ranks. */
err_code pairs_load(vocab *v, const vocab_spec *s, err *e);
err_code pairs_of_unions(vocab *v, err *e);
/* The rank of merging two neighbours and the token it gives; VOCAB_NO_RANK where there is none. */
uint32_t spm_pair(const merger *m, const symbol *left, const symbol *right, int32_t *merged);
uint32_t bpe_pair(const merger *m, const symbol *left, const symbol *right, int32_t *merged);
/* SPM and BPE of characters, unigram: spaces are marks already. One word as pre-tokenisers cut it. */
err_code chars_encode(const vocab *v, merger *m, const char *s, size_t n, id_list *out);
err_code unigram_encode(const vocab *v, merger *m, const char *s, size_t n, id_list *out);
err_code bpe_encode(const vocab *v, merger *m, const char *s, size_t n, id_list *out);
err_code wordpiece_encode(const vocab *v, const char *s, size_t n, id_list *out);
/* A character that is no token: its bytes where the vocabulary has them all, or the unknown token. */
err_code add_unknown(const vocab *v, merger *m, const char *p, size_t n, id_list *out);

/* ---- lookups ---- */
static inline const char *vocab_text_ptr(const vocab *v, int32_t id) {
    return v->bytes + v->tokens[id].text;
}
static inline const char *vocab_piece_ptr(const vocab *v, int32_t id) {
    return v->bytes + v->tokens[id].piece;
}
static inline bool is_mark(const char *p, const char *end) {
    return end - p >= 3 && memcmp(p, MARK_OF_SPACE, 3) == 0;
}
/* The token that these bytes are, -1 where there is none. */
int32_t vocab_lookup(const vocab *v, const char *p, size_t n);
/* Normal, user-defined and (but for BPE) unused tokens. */
bool vocab_may_come_of_text(const vocab *v, int32_t id);
/* Fills v->table from tokens that may come of merging. */
err_code vocab_make_table(vocab *v, err *e);
/* Pieces of SentencePiece: marks become spaces, <0xNN> a byte. */
err_code vocab_make_pieces(vocab *v, err *e);

/* v->words from all tokens that text may become, by text. */
err_code word_trie_make(vocab *v, err *e);
void word_trie_free(word_trie *t);
static inline uint32_t word_trie_step(const word_trie *t, uint32_t node, uint8_t byte) { /* 0: no such edge */
    uint32_t edge = node << 8 | byte, i = (uint32_t)((edge * 0x9e3779b97f4a7c15u) >> 32) & t->mask;
    for (; t->edges[i].child; i = (i + 1) & t->mask)
        if (t->edges[i].edge == edge) return t->edges[i].child;
    return 0;
}

/* ---- special tokens (vocab_special.c) ---- */
/* Needs what normalises. */
err_code special_load(vocab *v, const vocab_spec *s, err *e);
void special_free(special_trie *t);
/* The longest special token at s: its id, or -1. User-defined tokens always count, control and unknown ones only
 * with parse_special. *len is how much of s it takes. */
int32_t special_match(const vocab *v, const special_trie *t, const char *s, size_t n, bool parse_special, size_t *len);

/* ---- what text goes through before special tokens of its normal form are searched (vocab.c) ---- */
err_code vocab_normalise(const vocab *v, const char *s, size_t n, buf *out, err *e);

#endif
