/* Internal to the scheduler: a small model that guesses for a large one (speculate.h). It has a session of its own; one
 * sequence for each sequence of the large model, which follows that one's tokens. Engine thread only. */
#ifndef POLDER_INFERENCE_DRAFTER_H
#define POLDER_INFERENCE_DRAFTER_H

#include "inference/speculate.h"

#include "engine/engine.h"

typedef struct drafter drafter;

/* Both models must have the same vocabulary, token for token (ERR_INVALID), and the small one must be able to go back
 * (ERR_UNSUPPORTED where it has recurrent layers). */
err_code drafter_check(const model *large, const model *small, err *e);
/* Only what drafter_check lets through. o: as the large model's session. */
err_code drafter_new(drafter **out, const model *small, const session_options *o, err *e);
void drafter_free(drafter *d); /* NULL is fine */

/* A guess that is asked for: after `text`, at most `most` tokens. */
typedef struct draft_ask {
    uint32_t slot;
    history text;
    uint32_t most; /* 1 to GUESS_MAX */
    int32_t *out;
    uint32_t n; /* how many there are; 0 while the small model still reads, or where it has no room */
} draft_ask;
/* At most one ask a slot. */
void drafter_guess(drafter *d, draft_ask *asks, uint32_t n);
/* Of the slot's last guess the first `right` tokens are now part of its text. */
void drafter_settle(drafter *d, uint32_t slot, uint32_t right);
/* The slot's sequence is over. */
void drafter_forget(drafter *d, uint32_t slot);

#endif
