/* Regular expressions: the pattern, and after a NUL a text. The deterministic automaton and the one that is followed
 * byte by byte must say the same of it. */
#include "engine/grammar/chars.h"
#include "unit/engine/constrain.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool follows(const char *s, size_t len, const char *text, size_t n, bool *known) {
    grammar *g = NULL;
    constraint *c = NULL;
    err e;
    bool ok = false;
    err_code rc = grammar_make_regex(&g, constrain_trie(), s, len, &e);
    *known = rc == ERR_OK;
    if (rc == ERR_OK && constraint_new(&c, g, &e) == ERR_OK) {
        rc = constraint_accept_bytes(c, text, n, &e);
        *known = rc == ERR_OK || rc == ERR_INVALID;
        ok = rc == ERR_OK && constraint_can_end(c);
    }
    constraint_free(c);
    grammar_free(g);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool ready;
    if (!ready) base_init();
    ready = true;
    const char *s = (const char *)data, *nul = size ? memchr(s, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - s) : size;
    char_nfa n;
    char_dfa d;
    err e;
    if (len > 400 || regex_parse(&n, s, len, REGEX_WHOLE, &e) != ERR_OK) return 0;
    if (char_dfa_from(&d, &n, &e) == ERR_OK && nul) {
        size_t k = size - len - 1;
        bool known, ok = follows(s, len, nul + 1, k, &known);
        /* `$` before `^` in an empty text is the one thing that the second leaves out */
        if (known && utf8_valid(nul + 1, k) && k && ok != char_dfa_matches(&d, nul + 1, k)) abort();
    }
    char_dfa_free(&d);
    char_nfa_free(&n);
    return 0;
}
