/* Part of inference's public header: answers derived anew from the ledger. Included by inference.h.
 *
 * A replay reads the records of one answer, opens the artifact that they name (every byte of it is hashed, nothing is
 * taken from a cache), computes the logits of all positions of prompt and answer at once, draws from them as the
 * records say (parameters, seed, grammar), and compares: every token, the digest of the rows of logits, the text of the
 * answer and why it ended. Vectors and scores are computed again and compared by their digests. By the numerics
 * contract all of it is equal, whatever batch, cache, threads or instruction set the answer was made with.
 *
 * What cannot be derived is no error but an outcome: the artifact is not here, contents were erased, a provider gave
 * the answer, another version of the numerics made it. The report says which.
 *
 * A replayer belongs to one thread. It needs an island that is open for reading, no more.
 */
#ifndef POLDER_INFERENCE_REPLAY_H
#define POLDER_INFERENCE_REPLAY_H

#include "island/island.h"

typedef struct replayer replayer;

typedef struct replay_options {
    unsigned threads;        /* 0: all CPUs */
    const char *weights;     /* take this file instead of the artifact, whatever its bytes are; NULL: do not */
    store_progress progress; /* while an artifact is hashed; may be NULL */
    void *ctx;
} replay_options;

err_code replay_open(replayer **out, island *i, const replay_options *o, err *e);
void replay_close(replayer *r); /* NULL is fine */

typedef enum replay_outcome { REPLAY_EQUAL, REPLAY_UNEQUAL, REPLAY_NOT_POSSIBLE } replay_outcome;
const char *replay_outcome_name(replay_outcome o); /* "equal", "unequal", "not_possible" */

typedef struct replay_report {
    replay_outcome outcome;
    uint64_t admitted, ended; /* the records; ended is 0 where there is none yet */
    bool vectors;             /* an answer of vectors or scores */
    uint32_t n;               /* choices, or inputs, that were compared */
    uint64_t tokens;          /* of all choices (of vectors: of all inputs) */
    char artifact[80];        /* "sha256:…"; "" where the records name none */
    /* REPLAY_UNEQUAL: where the first difference is */
    uint32_t choice;   /* or the input */
    bool token;        /* a token differs: */
    uint64_t position; /* in the answer, from 0 */
    int32_t logged, derived;
    bool digest;           /* the digest of that choice's rows (of that input's vector) differs */
    char why[ERR_MSG_MAX]; /* a sentence: what differs, or why it is not possible; "" where all is equal */
} replay_report;

/* `seq` is any record of the answer: admitted, rerouted, egress, completed or failed. ERR_USAGE where it is another
 * record, ERR_NOT_FOUND past the end; other errors where the check itself could not be done (memory, disk). */
err_code replay_answer(replayer *r, uint64_t seq, replay_report *out, err *e);

/* ---- many -------------------------------------------------------------------------------------------------- */

typedef struct replay_item {
    uint64_t admitted, ended;
} replay_item;

typedef struct replay_list {
    replay_item *items; /* answers of the local engine whose outcome lies in [since, through); mem_free */
    size_t n;
    uint64_t others;         /* answers of providers in it */
    uint64_t since, through; /* records */
} replay_list;

#define REPLAY_SINCE_LAST_CHECK UINT64_MAX
/* The answers that ended in records `since` up to, not including, `through` (beyond the end: the end). With
 * REPLAY_SINCE_LAST_CHECK: from where the newest record "replayed" stopped. */
err_code replay_find(replayer *r, uint64_t since, uint64_t through, replay_list *out, err *e);
/* Leaves n of the list: those whose SHA-256 of the text "SEED:SEQ" (both decimal, SEQ of the admitted record) is
 * lowest, so that anybody can tell afterwards whether the right ones were drawn. */
err_code replay_draw(replay_list *l, size_t n, uint64_t seed, err *e);
/* Puts answers of one artifact next to each other, each artifact's in the order of the ledger. */
err_code replay_sort(replayer *r, replay_list *l, err *e);

/* Appends the record "replayed" with these facts (inference.h names them; "outcomes" becomes its content) and gives
 * {"record": SEQ}. ERR_INVALID where one is missing or of another kind. `by` NULL: the island's owner. */
err_code replay_note(island *i, const identity *by, const cJSON *facts, cJSON **out, err *e);

#endif
