/* Internal to inference: the grammar of an answer in which calls are demanded (tool_choice) or must follow their
 * schemas (strict). The calls' form is the model's, so it is made when the model is known. */
#ifndef POLDER_INFERENCE_TOOL_GRAMMAR_H
#define POLDER_INFERENCE_TOOL_GRAMMAR_H

#include "inference/answer_grammar.h"
#include "inference/format.h"

bool tool_grammar_wanted(const request *r);
/* digest: SHA-256 of the grammar's text. ERR_UNSUPPORTED where this model's form, or a strict tool's schema, cannot be
 * followed exactly; a schema that cannot be compiled is any object where its tool is not strict. `prompt_text` is the
 * prompt as the model reads it. Where the request has a grammar of its own it is refused, and *out stays. */
err_code tool_grammar_get(grammar **out, uint8_t digest[SHA256_LEN], grammar_cache *c, const model *m,
                          const answer_format *f, const request *r, const char *prompt_text, size_t len, err *e);

#endif
