/* Internal to the tokenizers: the GGUF keys of a tokenizer, for the reader (vocab_gguf.c) and the writer
 * (vocab_spec.c), limits, and the index of a spec's tokens by text that both use. */
#ifndef POLDER_ENGINE_VOCAB_KEYS_H
#define POLDER_ENGINE_VOCAB_KEYS_H

#include "engine/vocab/vocab_spec.h"

#define VOCAB_TOKENS_MAX        (1u << 21)
#define VOCAB_MERGES_MAX        (1u << 22)
#define VOCAB_TOKEN_BYTES_MAX   4096u
#define VOCAB_SPECIAL_BYTES_MAX 512u  /* matching special tokens walks that far from every byte that one begins with */
#define VOCAB_PROBES_MAX        4096u /* a table whose entries lie further from home than that was made to be slow */
#define VOCAB_TEXT_MAX          ((size_t)1 << 30)
#define VOCAB_CHARSMAP_MAX      ((size_t)1 << 22)

/* llama.cpp's */
#define KEY_MODEL     "tokenizer.ggml.model"
#define KEY_PRE       "tokenizer.ggml.pre"
#define KEY_TOKENS    "tokenizer.ggml.tokens"
#define KEY_TYPES     "tokenizer.ggml.token_type"
#define KEY_SCORES    "tokenizer.ggml.scores"
#define KEY_MERGES    "tokenizer.ggml.merges"
#define KEY_BOS       "tokenizer.ggml.bos_token_id"
#define KEY_EOS       "tokenizer.ggml.eos_token_id"
#define KEY_EOT       "tokenizer.ggml.eot_token_id"
#define KEY_EOM       "tokenizer.ggml.eom_token_id"
#define KEY_UNK       "tokenizer.ggml.unknown_token_id"
#define KEY_PAD       "tokenizer.ggml.padding_token_id"
#define KEY_SEP       "tokenizer.ggml.seperator_token_id" /* spelt so */
#define KEY_CLS       "tokenizer.ggml.cls_token_id"
#define KEY_MASK      "tokenizer.ggml.mask_token_id"
#define KEY_ADD_BOS   "tokenizer.ggml.add_bos_token"
#define KEY_ADD_EOS   "tokenizer.ggml.add_eos_token"
#define KEY_ADD_SPACE "tokenizer.ggml.add_space_prefix"
#define KEY_SQUEEZE   "tokenizer.ggml.remove_extra_whitespaces"
#define KEY_CHARSMAP  "tokenizer.ggml.precompiled_charsmap"
/* polder's own: what those do not say */
#define KEY_MERGE_ORDER   "polder.tokenizer.merge_order"
#define KEY_UNION_RANK    "polder.tokenizer.union_rank"
#define KEY_FLAGS         "polder.tokenizer.token_flags"
#define KEY_FORM          "polder.tokenizer.normal_form"
#define KEY_PREFIX        "polder.tokenizer.space_prefix"
#define KEY_WORDS         "polder.tokenizer.words"
#define KEY_ESCAPE        "polder.tokenizer.escape_spaces"
#define KEY_LATE_MARKS    "polder.tokenizer.late_marks"
#define KEY_IGNORE_MERGES "polder.tokenizer.ignore_merges"
#define KEY_BYTE_FALLBACK "polder.tokenizer.byte_fallback"
#define KEY_FUSE_UNK      "polder.tokenizer.fuse_unknown"
#define KEY_BERT          "polder.tokenizer.bert"
#define KEY_MAX_WORD      "polder.tokenizer.max_word_characters"
#define KEY_BEFORE        "polder.tokenizer.before"
#define KEY_AFTER         "polder.tokenizer.after"
#define KEY_ENDS          "polder.tokenizer.end_token_ids"

uint64_t vocab_hash(const char *p, size_t n);

typedef struct spec_index { /* of equal texts the first counts */
    const vocab_spec *s;
    uint32_t *slots; /* open addressing, id + 1 */
    uint32_t mask;
} spec_index;
err_code spec_index_make(spec_index *ix, const vocab_spec *s, err *e);
int32_t spec_index_find(const spec_index *ix, const char *p, size_t n); /* -1: no such token */
void spec_index_free(spec_index *ix);

#endif
