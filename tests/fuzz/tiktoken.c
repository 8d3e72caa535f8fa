/* tiktoken's ranks: as tokenizer_json.c. The first byte chooses the family, mostly none, because the known ones have
 * 100,000 tokens and more; a first line that begins with '#' is tokenizer_config.json. */
#include "fuzz/tokenizer_spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const families[] = {"llama3", "kimi-k2", "o200k_harmony", "o200k_base", "cl100k_base", "qwen"};
    if (!size) return 0;
    const char *text = (const char *)data + 1, *end = --size && *text == '#' ? memchr(text, '\n', size) : NULL;
    spec_sources src = {
        .name = "fuzz", .tokenizer = {text, size}, .pre = data[0] % 64 < 6 ? families[data[0] % 64] : NULL};
    vocab_spec *s = NULL;
    err e = {0};
    if (end) {
        src.config = (spec_text_file){text + 1, (size_t)(end - text) - 1};
        src.tokenizer = (spec_text_file){end + 1, size - (size_t)(end + 1 - text)};
    }
    err_code rc = vocab_spec_from_tiktoken(&s, &src, &e);
    try_spec(rc, s, &e);
    return 0;
}
