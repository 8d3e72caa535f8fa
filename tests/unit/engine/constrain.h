/* For tests and fuzzing of constrained output: a small vocabulary with every byte, its tree, and texts through
 * grammars. */
#ifndef POLDER_TESTS_CONSTRAIN_H
#define POLDER_TESTS_CONSTRAIN_H

#include "base/json.h"
#include "engine/grammar/grammar.h"
#include "unit/engine/vocab_make.h"

#include <stdlib.h>

/* Byte-level BPE of vocab_make.h: <|tool|> (text), <|bos|>, <|end|> (control), and tokens like "the", "aaaa", " t". */
static inline const token_trie *constrain_trie(void) {
    static token_trie *t;
    if (t) return t;
    made m;
    vocab *v = NULL;
    err e;
    made_bpe(&m, "llama-bpe");
    if (made_load(&m, &v, &e) != ERR_OK || token_trie_new(&t, v, &e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    return t;
}

#endif
