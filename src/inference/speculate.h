/* Internal to the scheduler: guesses at the tokens that come next, for verification in one step.
 *
 * A guess never changes an answer: the step computes the rows of all guessed positions, the sampler draws from them in
 * order, and a guess counts only as far as it says what was drawn. Rows have the same bits whatever stands beside them
 * (numerics contract), so tokens and digests are those of plain decoding (Leviathan et al. 2023 accept by
 * probabilities and keep the distribution; here the very tokens are kept). */
#ifndef POLDER_INFERENCE_SPECULATE_H
#define POLDER_INFERENCE_SPECULATE_H

#include <stdint.h>

#define GUESS_MAX 16 /* tokens at once */

/* What one choice's guesses were worth so far: how many to make. */
typedef struct guess_state {
    uint32_t length; /* of the next guess */
    uint32_t rest;   /* steps without one */
    uint32_t misses; /* guesses in a row of which nothing was right */
} guess_state;

void guess_init(guess_state *g);
/* How many tokens to guess in this step; 0 while guessing did not pay. */
uint32_t guess_want(guess_state *g);
/* Of n guessed tokens the first `right` were drawn. */
void guess_outcome(guess_state *g, uint32_t n, uint32_t right);

/* The text so far, in two parts: the prompt, then what was made. */
typedef struct history {
    const int32_t *prompt, *made;
    uint32_t n_prompt, n_made;
} history;

/* What followed the last place where the text's last tokens stood before (n-gram lookup): the longest repetition of at
 * least LOOKUP_LEAST tokens, of several the latest. Writes `few` tokens to out, or after a repetition of LOOKUP_ENOUGH,
 * which is seldom chance, `many`; returns how many. Looks back at most LOOKUP_BACK tokens: some tens of microseconds.
 */
#define LOOKUP_LEAST  2
#define LOOKUP_ENOUGH 8
#define LOOKUP_BACK   65536
uint32_t guess_lookup(const history *h, int32_t *out, uint32_t few, uint32_t many);

#endif
