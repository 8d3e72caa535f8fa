/* GBNF: the grammar, and after a NUL a text that is walked through it. */
#include "unit/engine/constrain.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool ready;
    if (!ready) base_init();
    ready = true;
    const token_trie *trie = constrain_trie();
    const char *s = (const char *)data, *nul = size ? memchr(s, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - s) : size;
    grammar *g = NULL;
    constraint *c = NULL;
    const uint64_t *mask;
    err e;
    if (grammar_make_text(&g, trie, s, len, &e) != ERR_OK || constraint_new(&c, g, &e) != ERR_OK) {
        grammar_free(g);
        return 0;
    }
    uint32_t steps = 0;
    for (size_t i = len + 1; i < size && i < len + 60; i++, steps++) {
        if (constraint_mask(c, &mask, &e) != ERR_OK) break;
        if (constraint_accept_bytes(c, s + i, 1, &e) != ERR_OK) break;
    }
    if (constraint_rollback(c, steps, &e) != ERR_OK || constraint_is_finished(c)) abort();
    constraint_free(c);
    grammar_free(g);
    return 0;
}
