/* Internal to inference: the grammar that an answer has to follow, compiled for a model and kept for the next request
 * that asks for the same. */
#ifndef POLDER_INFERENCE_ANSWER_GRAMMAR_H
#define POLDER_INFERENCE_ANSWER_GRAMMAR_H

#include "inference/format.h"

#define GRAMMAR_SOURCE_MAX (1u << 20) /* bytes */

typedef struct grammar_cache grammar_cache; /* of one model; any thread */
err_code grammar_cache_new(grammar_cache **out, err *e);
void grammar_cache_free(grammar_cache *c); /* NULL is fine */
/* A reference of the caller's own, NULL where there is none under that key; and one for the cache. */
grammar *grammar_cache_find(grammar_cache *c, const uint8_t key[SHA256_LEN]);
void grammar_cache_put(grammar_cache *c, const uint8_t key[SHA256_LEN], grammar *g);

/* The grammar of r (*out is NULL, with ERR_OK, where it asks for none); grammar_free by the caller. Where the model may
 * reason first (f, read from a request that is parsed), the answer begins after its reasoning: what stands between the
 * marks is free. `text` is the prompt that the model reads: it may have opened or closed the reasoning already. */
err_code answer_grammar_get(grammar **out, grammar_cache *c, const model *m, const answer_format *f, const request *r,
                            const char *text, size_t len, err *e);
/* "json_schema", "regex", "choice", "grammar": goes into records. */
const char *answer_grammar_kind(grammar_kind kind);
/* What names a grammar in a record: SHA-256 over kind, a NUL, and the source. */
void answer_grammar_digest(const request *r, uint8_t out[SHA256_LEN]);

#endif
