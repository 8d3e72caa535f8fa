/* Internal to engine: what a tokenizer is, as data. Three readers fill a vocab_spec (GGUF keys, tokenizer.json with its
 * neighbours, tiktoken ranks), vocab_build makes the vocab that encodes, and vocab_spec_write states it as GGUF keys
 * again: a file that carries those keys gives the same vocab.
 *
 *   GGUF keys ──────────────┐                  ┌── vocab_build ──▶ vocab (vocab.h)
 *   tokenizer.json + config ┼──▶ vocab_spec ───┤
 *   tiktoken ranks ─────────┘                  └── vocab_spec_write ──▶ GGUF keys
 *
 * Invariants
 *  1. A spec holds only what polder computes exactly. A reader that meets a normaliser, pre-tokenizer, post-processor,
 *     decoder or model that it does not know refuses it by name (ERR_UNSUPPORTED) with the list of those known.
 *  2. Ids are below n_tokens or -1; texts lie in `bytes`; merges name tokens. vocab_build checks all of it again.
 *
 * Ownership: a spec owns all it points to; vocab_build and vocab_spec_write copy. One thread at a time. */
#ifndef POLDER_ENGINE_VOCAB_SPEC_H
#define POLDER_ENGINE_VOCAB_SPEC_H

#include "engine/files/gguf.h"
#include "engine/vocab/vocab.h"

/* How text becomes tokens. In brackets: tokenizer.ggml.model. */
typedef enum spec_model {
    SPEC_SPM,       /* [llama] SentencePiece BPE: the pair whose union has the highest score first */
    SPEC_BPE,       /* [gpt2] byte-level BPE: `pre` cuts words, merges in order; texts write bytes as characters */
    SPEC_BPE_CHARS, /* [gemma4] merges in order over characters, spaces as U+2581, other bytes as <0xNN> tokens. As
                       [llama] with polder.tokenizer.merge_order where a tokenizer.json of SentencePiece origin says so
                     */
    SPEC_UNIGRAM,   /* [t5] SentencePiece unigram: the cut of the highest sum of scores */
    SPEC_WORDPIECE, /* [bert] greedy longest match; texts begin with U+2581 at word starts, without it inside words */
} spec_model;

/* Unicode normal form that text takes before anything else but the search for raw added tokens. */
typedef enum spec_form { SPEC_FORM_NONE, SPEC_FORM_NFC, SPEC_FORM_NFD, SPEC_FORM_NFKC, SPEC_FORM_NFKD } spec_form;

/* The space in front that the text itself does not have. */
typedef enum spec_prefix {
    SPEC_PREFIX_NONE,
    SPEC_PREFIX_ALWAYS,  /* before each piece of text between special tokens */
    SPEC_PREFIX_MISSING, /* the same, where the piece does not begin with a space */
    SPEC_PREFIX_FIRST,   /* only at the beginning of the text, where it does not begin with a space */
} spec_prefix;

/* tokenizer.ggml.token_type */
enum { TYPE_UNDEFINED, TYPE_NORMAL, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

/* Flags of tokens that are searched in text before the model sees it (types control, unknown, user). */
enum {
    SPEC_LSTRIP = 1,     /* takes the white space before it */
    SPEC_RSTRIP = 2,     /* takes the white space after it */
    SPEC_NORMALIZED = 4, /* is searched after the normal form, otherwise before it */
};

typedef struct spec_token {
    uint32_t text; /* offset in `bytes`; any bytes, not terminated */
    uint32_t len;
    float score; /* SPM and unigram; 0 otherwise */
    uint8_t type;
    uint8_t flags;
} spec_token;

typedef struct spec_merge {
    int32_t left, right; /* their texts in a row are the text of the token they make */
} spec_merge;

/* How text is cut before the model where `pre` is not the name of it. */
typedef enum spec_words {
    SPEC_WORDS_ALL,   /* not at all */
    SPEC_WORDS_MARKS, /* before every U+2581 (Metaspace with split) */
    SPEC_WORDS_SPACE, /* at white space, which is dropped; each word takes the prefix (WhitespaceSplit, Metaspace) */
} spec_words;

/* What WordPiece does to text first (BertNormalizer). */
enum {
    SPEC_BERT_CLEAN = 1,   /* control characters go, white space becomes a space */
    SPEC_BERT_CJK = 2,     /* Chinese characters are words of their own */
    SPEC_BERT_ACCENTS = 4, /* NFD without its nonspacing marks */
    SPEC_BERT_LOWER = 8,
};

#define SPEC_AROUND_MAX 8
#define SPEC_ENDS_MAX   16

struct vocab_spec {
    spec_model model;
    char pre[48]; /* pretok.h's name; BPE, and "gemma4" of BPE_CHARS (lines are words), otherwise empty */

    uint32_t n_tokens;
    spec_token *tokens;
    char *bytes;
    size_t n_bytes;
    size_t n_merges;
    spec_merge *merges;

    spec_form form;
    spec_prefix prefix;
    bool escape_spaces; /* ' ' is U+2581 for the model: SPM, BPE_CHARS, unigram */
    bool late_marks;    /* prefix and escaping come after the search for SPEC_NORMALIZED tokens (Metaspace) */
    spec_words words;
    bool ignore_merges; /* a word that is a token is that token */
    bool union_rank;    /* byte-level BPE of tiktoken: neighbours merge where their union is a token, the lowest id
                           first; `merges` is only what GGUF's other readers go by */
    bool byte_fallback; /* a character that is no token goes out as <0xNN> tokens */
    bool fuse_unk;      /* neighbours that are unknown go out as one */
    uint8_t bert;       /* SPEC_BERT_* */
    uint32_t max_word;  /* WordPiece: characters of a word, more are unknown; 0: any number */
    char *charsmap;     /* unigram: SentencePiece's precompiled map of characters, NULL where there is none */
    size_t n_charsmap;

    int32_t bos, eos, eot, eom, unk, pad, sep, cls, mask; /* -1: none */
    /* Put around a text with TOK_ADD_SPECIAL. */
    int32_t before[SPEC_AROUND_MAX], after[SPEC_AROUND_MAX];
    uint8_t n_before, n_after;
    /* More tokens that end an answer than eos, eot, eom and those known by their text. */
    int32_t ends[SPEC_ENDS_MAX];
    uint8_t n_ends;
};

void vocab_spec_free(vocab_spec *s);
static inline const char *spec_text(const vocab_spec *s, uint32_t id) {
    return s->bytes + s->tokens[id].text;
}

/* ---- readers: *out is the caller's. ERR_UNSUPPORTED (not computed exactly), ERR_INVALID (malformed) -------------- */

/* tokenizer.ggml.* and polder.tokenizer.* */
err_code vocab_spec_from_gguf(vocab_spec **out, const gguf *g, err *e);

typedef struct spec_text_file {
    const char *ptr; /* NULL: there is no such file */
    size_t len;
} spec_text_file;
typedef struct spec_sources {
    const char *name;          /* for errors: the folder */
    spec_text_file tokenizer;  /* tokenizer.json, or tiktoken ranks */
    spec_text_file config;     /* tokenizer_config.json; may be absent */
    spec_text_file generation; /* generation_config.json; may be absent */
    const char *pre;           /* tiktoken only: a family of vocab_tiktoken.c ("llama3", "kimi-k2", "o200k_harmony",
                                            ...), NULL: known by its number of ranks */
} spec_sources;
err_code vocab_spec_from_json(vocab_spec **out, const spec_sources *src, err *e);
err_code vocab_spec_from_tiktoken(vocab_spec **out, const spec_sources *src, err *e);
/* The tokenizer of a model's folder: tokenizer.json where there is one, else tiktoken.model or tokenizer.model in
 * tiktoken form (its family known by its special tokens and size), else ERR_NOT_FOUND naming the three. */
err_code vocab_spec_from_folder(vocab_spec **out, const char *folder, err *e);

/* Unused tokens without a text up to n tokens: models often have more rows than their tokenizer has tokens. */
err_code vocab_spec_pad(vocab_spec *s, uint32_t n, err *e);

/* ---- out (and vocab_build of vocab.h)
 * ---------------------------------------------------------------------------------------------------- */

/* Where vocab_spec_write puts the keys. Values are valid during the call only. */
typedef struct spec_sink {
    void *ctx;
    err_code (*str)(void *ctx, const char *key, const char *p, size_t n, err *e);
    err_code (*u32)(void *ctx, const char *key, uint32_t v, err *e);
    err_code (*flag)(void *ctx, const char *key, bool v, err *e);
    err_code (*strs)(void *ctx, const char *key, const gguf_str *p, size_t n, err *e); /* array of strings */
    err_code (*i32s)(void *ctx, const char *key, const int32_t *p, size_t n, err *e);
    err_code (*f32s)(void *ctx, const char *key, const float *p, size_t n, err *e);
    err_code (*u8s)(void *ctx, const char *key, const uint8_t *p, size_t n, err *e);
} spec_sink;
/* All tokenizer.ggml.* keys but the chat template, as llama.cpp defines them, and polder.tokenizer.* where GGUF has no
 * word for a fact. Stops at the first error of the sink. */
err_code vocab_spec_write(const vocab_spec *s, const spec_sink *to, err *e);

#endif
