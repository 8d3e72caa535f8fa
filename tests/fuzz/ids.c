/* Identifiers: any bytes to every check, to matching and to scoring. What breaks it: a read past the end, a strength or
 * a score outside its range, a hit that its own rule refuses, a rule that takes what its shapes do not describe. */
#include "data/detect/ids.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok) {
    if (!ok) abort();
}

static void try_checks(const char *s, size_t n) {
    for (size_t i = 0; i < id_rule_count; i++) {
        const id_rule *r = &id_rules[i];
        int strength = r->check(s, n);
        must(strength >= 0 && strength <= 99);
        /* rules of two lengths share a check */
        if (strength && n >= r->min_len && n <= r->max_len) must(id_shape_fits(r->shapes, s, n));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *p = (const char *)data;
    if (size > 256) return 0;
    /* an own copy of exactly the compact form, so that a sanitizer sees a read past its end */
    char *compact = malloc(size ? size : 1);
    if (!compact) return 0;
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        char c = p[i] >= 'a' && p[i] <= 'z' ? (char)(p[i] - 32) : p[i];
        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z')) compact[n++] = c;
    }
    char *exact = malloc(n ? n : 1);
    if (exact) {
        if (n) memcpy(exact, compact, n);
        try_checks(p, size);
        try_checks(exact, n);
        id_hit hits[ID_HITS_MAX];
        size_t found = id_match(hits, exact, n, p, size);
        must(found <= ID_HITS_MAX);
        for (size_t i = 0; i < found; i++) {
            must(hits[i].rule->check(exact, n) == hits[i].strength);
            unsigned alone = id_score(&hits[i], ID_NEAR_NOTHING), kind = id_score(&hits[i], ID_NEAR_KIND),
                     word = id_score(&hits[i], ID_NEAR_WORD);
            must(alone >= 1 && alone <= kind && kind <= word && word <= 100);
        }
    }
    free(exact);
    free(compact);
    return 0;
}
