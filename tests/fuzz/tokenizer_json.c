/* tokenizer.json: any bytes are refused with a sentence or give a vocabulary that encodes and decodes, and that the
 * GGUF keys written of it give again. The first line, where it begins with '#', is tokenizer_config.json. */
#include "fuzz/tokenizer_spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data, *end = size && *text == '#' ? memchr(text, '\n', size) : NULL;
    spec_sources src = {.name = "fuzz", .tokenizer = {text, size}};
    vocab_spec *s = NULL;
    err e = {0};
    if (end) {
        src.config = src.generation = (spec_text_file){text + 1, (size_t)(end - text) - 1};
        src.tokenizer = (spec_text_file){end + 1, size - (size_t)(end + 1 - text)};
    }
    err_code rc = vocab_spec_from_json(&s, &src, &e);
    try_spec(rc, s, &e);
    return 0;
}
