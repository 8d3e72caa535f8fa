#include "engine/model_internal.h"
#include "engine/vocab/vocab_internal.h"

#include <string.h>

/* Tokens end where merging ended them, in the middle of a character too. What is not yet a whole character is held; it
 * is at most three bytes, because a fourth either completes it or proves that it is none. No memory is taken. */

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

void detok_init(detok *d, const model *m, bool at_start, bool show_special) {
    *d = (detok){.m = m, .at_start = at_start, .show_special = show_special};
}

/* How many bytes of s (n > 0), which do not begin with a character, one U+FFFD stands for: the beginning of a
 * character that goes no further, or one byte (Unicode's "maximal subpart"). */
static size_t broken_len(const char *s, size_t n) {
    uint32_t cp;
    size_t k = 1;
    while (k < n && k < 4 && utf8_decode(&cp, s, k + 1) == -1) k++;
    return k;
}

/* Appends the characters of s, with U+FFFD for what can be none, and holds back an unfinished one. Returns how much of
 * s was used up: all but what is held back. */
static size_t append_characters(buf *out, const char *s, size_t n) {
    size_t good = 0; /* the beginning of a run of characters that is copied at once */
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int k = utf8_decode(&cp, s + i, n - i);
        if (k > 0) {
            i += (size_t)k;
            continue;
        }
        if (i > good) buf_append(out, s + good, i - good);
        if (k < 0) return i;
        buf_puts(out, REPLACEMENT);
        good = i += broken_len(s + i, n - i);
    }
    if (n > good) buf_append(out, s + good, n - good);
    return n;
}

void detok_feed(detok *d, int32_t token, buf *out) {
    const vocab *v = model_vocab(d->m);
    if (token < 0 || (uint32_t)token >= v->n || (!d->show_special && vocab_is_special(v, token))) return;
    const char *p = vocab_piece_ptr(v, token);
    size_t n = v->tokens[token].piece_len;
    if (d->at_start && n) {
        d->at_start = false;
        if (vocab_drops_first_space(v) && *p == ' ') p++, n--;
    }
    /* complete or disprove what is held, a byte at a time */
    while (d->n_held && n) {
        d->held[d->n_held++] = *p++;
        n--;
        size_t used = append_characters(out, d->held, d->n_held);
        d->n_held = (uint8_t)(d->n_held - used);
        memmove(d->held, d->held + used, d->n_held);
    }
    size_t used = append_characters(out, p, n);
    if (n == used) return;
    d->n_held = (uint8_t)(n - used);
    memcpy(d->held, p + used, n - used);
}

void detok_flush(detok *d, buf *out) {
    if (d->n_held) buf_puts(out, REPLACEMENT);
    d->n_held = 0;
}
