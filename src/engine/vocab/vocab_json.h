/* Internal to the tokenizers: reading tokenizer.json. vocab_json.c reads the file, its tokens and merges; what the
 * smaller parts mean is in vocab_json_parts.c. */
#ifndef POLDER_ENGINE_VOCAB_JSON_H
#define POLDER_ENGINE_VOCAB_JSON_H

#include "engine/vocab/vocab_keys.h"

#include <cjson/cJSON.h>

/* A spec under construction: tokens and texts grow, ids come in any order. */
typedef struct spec_maker {
    vocab_spec *s;
    const char *name;
    err *e;
    size_t cap_tokens, cap_bytes, cap_merges;
    bool *known; /* by id: has been given a text */
} spec_maker;
void maker_free(spec_maker *m); /* not the spec */
/* Gives token `id` its text. ERR_INVALID where it has another already. */
err_code maker_token(spec_maker *m, int64_t id, const char *p, size_t n, uint8_t type, float score);
err_code maker_merge(spec_maker *m, int32_t left, int32_t right);
/* Ids that no token has stay empty and unused. ERR_INVALID where more than `spare` and twice the tokens are so: one id
 * would take any amount of memory. */
err_code maker_check_holes(spec_maker *m, uint32_t spare);

/* The parts of tokenizer.json, parsed; NULL where absent or null. */
typedef struct json_parts {
    const cJSON *normalizer, *pre_tokenizer, *post_processor, *decoder;
} json_parts;
/* Sets what the parts say. ERR_UNSUPPORTED names the first that is not known. Tokens are there already. */
err_code json_parts_read(spec_maker *m, const json_parts *p, const spec_index *ix);

/* tokenizer_config.json and generation_config.json: names and ids of special tokens, BOS and EOS around a text. */
err_code json_config_read(spec_maker *m, const spec_sources *src, const spec_index *ix);

#endif
