/* Internal to the tokenizers: the loaded vocabulary, the merge engine that SentencePiece and BPE share, and the
 * list of tokens under construction. Included by vocab*.c and detok.c only.
 *
 * How an encoding comes about: vocab_encode cuts special tokens out of the text (vocab_special.c), the pieces between
 * go to spm_encode or bpe_encode, which cut them into words (pretok.c, or at the marks of spaces) and give each
 * word's symbols to merge_run.
 *
 * Invariants
 *  1. No text of a user becomes a control, unknown or byte token by merging: the lookup tables hold none of them.
 *  2. Time is O(n log n) for every text: a word's merges go through a heap, each scan moves forward.
 */
#ifndef POLDER_ENGINE_VOCAB_INTERNAL_H
#define POLDER_ENGINE_VOCAB_INTERNAL_H

#include "engine/pretok.h"
#include "engine/vocab.h"

#define VOCAB_TOKENS_MAX        (1u << 21)
#define VOCAB_MERGES_MAX        (1u << 22)
#define VOCAB_TOKEN_BYTES_MAX   4096u
#define VOCAB_SPECIAL_BYTES_MAX 512u  /* matching special tokens walks that far from every byte that one begins with */
#define VOCAB_PROBES_MAX        4096u /* a table whose entries lie further from home than that was made to be slow */
#define VOCAB_TEXT_MAX          ((size_t)1 << 30)
#define VOCAB_NO_RANK           UINT32_MAX

typedef enum vocab_family { FAMILY_SPM, FAMILY_BPE } vocab_family;

/* tokenizer.ggml.token_type */
enum { TYPE_UNDEFINED, TYPE_NORMAL, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

/* What vocab keeps of a token beside its bytes. */
typedef struct vocab_token {
    uint32_t text;  /* offset in `bytes`: as the file has it */
    uint32_t piece; /* offset in `bytes`: as it stands in text; equal to `text` where they are the same */
    uint16_t text_len, piece_len;
    uint8_t type;
    bool is_end;
    bool strips_right; /* white space after it is dropped (Phi-3) */
} vocab_token;

typedef struct merge_pair {      /* BPE: tokens left and right become `merged`, lower ranks first */
    int32_t left, right, merged; /* left is -1 in an empty slot */
    uint32_t rank;
} merge_pair;

typedef struct trie_node { /* of special tokens; 0 is the root and no node's child */
    uint32_t child, next;
    int32_t token; /* -1: none ends here */
    uint8_t byte;
} trie_node;

struct vocab {
    vocab_family family;
    const pretok *pre; /* BPE only */
    char kind[48];
    uint32_t n;
    vocab_token *tokens;
    char *bytes;
    uint32_t longest; /* bytes of the longest token that merging can make */

    uint32_t *table; /* open addressing, id + 1: SPM by text, BPE by piece; only tokens that text may become */
    uint32_t table_mask;
    int32_t byte_ids[256]; /* token of a byte, -1 where there is none */

    uint32_t *ranks;  /* SPM: by id, equal scores have equal ranks */
    bool marks_begin; /* SPM: no token holds a mark of space after another character: words may be cut there */
    merge_pair *pairs;
    uint32_t pairs_mask;

    trie_node *trie;
    uint32_t n_trie;
    bool has_user_tokens;

    int32_t bos, eos, eot, eom, unk;
    bool add_bos, add_eos, add_space_prefix;
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

typedef struct merger { /* scratch, reused from word to word; vocab_merge.c says how the queue works */
    const vocab *v;
    const char *text;
    symbol *symbols;
    size_t n, cap;
    uint64_t *first, *later; /* rank << 32 | index of the left symbol: the order of merging */
    size_t n_first, at_first, n_run, at_run, n_heap;
} merger;
void merger_free(merger *m);
/* Room for n symbols; sets m->n to 0. */
err_code merger_reserve(merger *m, size_t n, err *e);
void merger_add(merger *m, uint32_t start, uint32_t len, int32_t id);
/* Merge until nothing can be merged. Symbols with len > 0, in order, are the result. */
void merge_run(merger *m);

/* ---- the two families ---- */
err_code spm_load(vocab *v, const gguf *g, err *e);
err_code bpe_load(vocab *v, const gguf *g, err *e);
/* The rank of merging two neighbours and the token it gives; VOCAB_NO_RANK where there is none. */
uint32_t spm_pair(const merger *m, const symbol *left, const symbol *right, int32_t *merged);
uint32_t bpe_pair(const merger *m, const symbol *left, const symbol *right, int32_t *merged);
/* Text without special tokens. */
err_code spm_encode(const vocab *v, merger *m, const char *s, size_t n, bool prefix, id_list *out);
err_code bpe_encode(const vocab *v, merger *m, const char *s, size_t n, id_list *out);

/* ---- lookups ---- */
static inline const char *vocab_text_ptr(const vocab *v, int32_t id) {
    return v->bytes + v->tokens[id].text;
}
static inline const char *vocab_piece_ptr(const vocab *v, int32_t id) {
    return v->bytes + v->tokens[id].piece;
}
uint64_t vocab_hash(const char *p, size_t n);
/* The token that these bytes are, -1 where there is none. */
int32_t vocab_lookup(const vocab *v, const char *p, size_t n);
/* Fills v->table from tokens that may come of merging. */
err_code vocab_make_table(vocab *v, err *e);

/* ---- special tokens (vocab_special.c) ---- */
err_code special_load(vocab *v, const gguf *g, err *e);
/* The longest special token at s: its id, or -1. User-defined tokens always count, control and unknown ones only
 * with parse_special. */
int32_t special_match(const vocab *v, const char *s, size_t n, bool parse_special);

#endif
