/* Internal to engine: tokenizers. A vocab is made once and immutable afterwards; any thread uses it.
 * model_tokenize, model_token_bytes and detok_* (engine.h) are thin over these. */
#ifndef POLDER_ENGINE_VOCAB_H
#define POLDER_ENGINE_VOCAB_H

#include "base/buf.h"
#include "engine/files/gguf.h"

typedef struct vocab vocab;
/* ERR_UNSUPPORTED names an unknown tokenizer.ggml.model or .pre and those known. Copies what it needs. */
err_code vocab_new(vocab **out, const gguf *g, err *e);
/* From the neutral description (vocab_spec.h), which stays the caller's; `name` is for errors. vocab_new is
 * vocab_spec_from_gguf and this. */
typedef struct vocab_spec vocab_spec;
err_code vocab_build(vocab **out, const vocab_spec *s, const char *name, err *e);
/* A vocab as bytes that this machine and this polder read without making anything again (vocab_image.c), appended to
 * `out`; and from such bytes, aligned to 64 (mem_alloc_aligned), which belong to the vocab where that succeeds. Bytes
 * of any content give ERR_INVALID or a vocab that stays inside of them. */
err_code vocab_image_write(const vocab *v, buf *out, err *e);
err_code vocab_image_read(vocab **out, void *p, size_t n, const char *name, err *e);
size_t vocab_image_bytes(const vocab *v); /* 0: it was not read from an image */
void vocab_free(vocab *v);
uint32_t vocab_size(const vocab *v);
const char *vocab_kind(const vocab *v); /* "spm", "bpe/llama-bpe", "unigram", "wordpiece" */
err_code vocab_encode(const vocab *v, const char *text, size_t len, int flags /* TOK_* of engine.h */,
                      size_t max_tokens, int32_t **out, size_t *n, err *e);
/* Two texts as one sequence, for models that rank (vocab_pair.c). Nothing in them becomes a special token. */
typedef struct vocab_pair {
    const char *query;
    size_t query_len;
    const char *document;
    size_t document_len;
    bool twice; /* what stands after a text stands twice between the two */
} vocab_pair;
bool vocab_has_pairs(const vocab *v); /* it puts tokens before and after a text */
err_code vocab_encode_pair(const vocab *v, const vocab_pair *p, size_t max_tokens, int32_t **out, size_t *n, err *e);
/* The same by a text with {query} and {document} in it, whose own special tokens count. */
bool vocab_can_fill_forms(const vocab *v);
err_code vocab_fill_form(const vocab *v, const char *form, const vocab_pair *p, size_t max_tokens, int32_t **out,
                         size_t *n, err *e);
void vocab_token_bytes(const vocab *v, int32_t id, bool show_special, buf *out);
/* The token's own text, special or not ("<|eot_id|>"), for templates' bos_token and for logprobs. */
void vocab_token_text(const vocab *v, int32_t id, buf *out);
bool vocab_is_special(const vocab *v, int32_t id); /* control or unknown */
bool vocab_is_end(const vocab *v, int32_t id);
int32_t vocab_bos(const vocab *v);
int32_t vocab_eos(const vocab *v);
/* SentencePiece with add_space_prefix: the first piece's leading space is not part of the text. */
bool vocab_drops_first_space(const vocab *v);

#endif
