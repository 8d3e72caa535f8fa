/* Internal to inference: the text of one choice, between the detokeniser and the client.
 *
 * Stop strings are found byte by byte with one automaton a string (Knuth, Morris, Pratt 1977), so the cost is linear
 * and a border between tokens means nothing. What is held back is exactly the longest end of the text that begins a
 * stop string; everything before it is ready. When a stop string completes, the text ends before its first byte (where
 * several complete at the same byte, before the earliest).
 *
 * Tokens (log-probabilities) leave together with the text they made: a token is ready when its last byte is. Tokens
 * that begin at or after a cut are dropped; the one that the cut goes through stays, so the concatenated token texts
 * are the text, but for the end of the last one.
 *
 * One thread at a time. Allocation failures stick in `failed`.
 */
#ifndef POLDER_INFERENCE_ANSWER_TEXT_H
#define POLDER_INFERENCE_ANSWER_TEXT_H

#include "inference/inference.h"

typedef struct stop_set { /* immutable once made; shared by the choices of a request. Strings stay the caller's */
    uint32_t n;
    const char *text[REQUEST_STOPS_MAX];
    uint16_t len[REQUEST_STOPS_MAX];
    uint16_t fail[REQUEST_STOPS_MAX][REQUEST_STOP_BYTES_MAX];
} stop_set;
/* ERR_INVALID: too many, too long, empty, or not UTF-8. */
err_code stop_set_init(stop_set *s, const char *const *stops, uint32_t n, err *e);

typedef struct answer_text {
    const stop_set *stops;
    uint16_t at[REQUEST_STOPS_MAX]; /* how much of each stop string the text ends with */
    buf text;                       /* what has not been taken: [0, ready) may go out, the rest is held back */
    size_t ready;
    uint64_t base;      /* offset of text.ptr[0] in the whole text */
    uint64_t taken_end; /* end of the last token that was taken */
    token_info *tokens;
    uint64_t *ends; /* offset in the whole text of each token's last byte + 1 */
    size_t n_tokens, cap_tokens;
    uint64_t fed;     /* offset of the end of what was fed */
    bool stopped;     /* a stop string was found: nothing more is taken in */
    const char *stop; /* that one; the longest where several end here */
    bool failed;
} answer_text;

void answer_text_init(answer_text *a, const stop_set *stops);
void answer_text_free(answer_text *a);
/* The bytes that one token added (complete characters; may be none) and, where asked for, what is known of the token.
 */
void answer_text_feed(answer_text *a, const char *p, size_t n, const token_info *info /* may be NULL */);
/* The same for an echoed prompt: no stop string is looked for. Only before the first feed. */
void answer_text_echo(answer_text *a, const char *p, size_t n, const token_info *info);
/* The text is over: what is held back is ready. */
void answer_text_end(answer_text *a);
/* A control token stands here: no stop string goes across it. What is held back is ready. */
void answer_text_break(answer_text *a, const token_info *info /* may be NULL */);
size_t answer_text_ready_tokens(const answer_text *a);
/* Forget what is ready (it has been copied). */
void answer_text_taken(answer_text *a);

#endif
