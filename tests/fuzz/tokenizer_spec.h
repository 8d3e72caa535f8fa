/* What every description of a tokenizer must stand, whatever file it came of. */
#ifndef POLDER_FUZZ_TOKENIZER_SPEC_H
#define POLDER_FUZZ_TOKENIZER_SPEC_H

#include "base/mem.h"
#include "engine/engine.h"
#include "unit/engine/spec_gguf.h"

#include <stdlib.h>

static inline void try_encode(const vocab *v, const vocab *again) {
    static const char text[] =
        "the hello <s> <|end|>aaaa\n\xe6\x97\xa5 e\xcc\x81\xcc\x81 12345 \xff\xe2\x96\x81[MASK] x  ";
    for (int flags = 0; flags < 4; flags++) {
        int32_t *a = NULL, *b = NULL;
        size_t n = 0, m = 0;
        err e = {0};
        buf out = {.max = 1u << 20};
        if (vocab_encode(v, text, sizeof text - 1, flags, 10000, &a, &n, &e) != ERR_OK) abort();
        if (again && vocab_encode(again, text, sizeof text - 1, flags, 10000, &b, &m, &e) != ERR_OK) abort();
        if (again && (n != m || (n && memcmp(a, b, n * sizeof *a) != 0))) abort();
        for (size_t i = 0; i < n; i++) vocab_token_bytes(v, a[i], true, &out);
        buf_free(&out);
        mem_free(a);
        mem_free(b);
    }
}

static inline void try_spec(err_code rc, vocab_spec *s, const err *why) {
    vocab *v = NULL, *again = NULL;
    err e = {0};
    if (rc != ERR_OK) {
        if (s || !why->msg[0]) abort(); /* refused without a sentence */
        return;
    }
    rc = vocab_build(&v, s, "fuzz", &e);
    if (rc != ERR_OK && !e.msg[0]) abort();
    if (rc == ERR_OK) {
        rc = vocab_through_gguf(&again, s, &e);
        if (rc != ERR_OK && rc != ERR_UNSUPPORTED) abort(); /* what GGUF cannot write is said so */
        try_encode(v, again);
    }
    vocab_free(again);
    vocab_free(v);
    vocab_spec_free(s);
}

#endif
