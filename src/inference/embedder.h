/* Internal to inference: one thread for one loaded model that makes vectors, and the jobs that it runs.
 *
 * A job is one admitted request: sequences of tokens, a pooled row each. The thread owns the session; a job's owner
 * (a request's thread) takes a place, starts the job, waits, may cancel, and frees it.
 *
 * 1. Jobs give their sequences in turn, one each, so a request of thousands does not hold up one of a single text.
 * 2. A sequence of an encoder is computed whole in one step, together with others as long as the step has no more than
 *    step_tokens; a longer one has a step of its own. Sequences of causal models go in chunks that share a step evenly;
 *    each has its KV memory reserved when it begins, so none can fail for want of it on the way.
 * 3. A vector depends on its tokens only, never on its neighbours (numerics contract).
 * 4. A step that fails is tried again one sequence at a time, so that only those jobs fail that cannot go on.
 */
#ifndef POLDER_INFERENCE_EMBEDDER_H
#define POLDER_INFERENCE_EMBEDDER_H

#include "engine/engine.h"

#define EMBEDDER_SLOTS 64u /* sequences in one step */

typedef struct embedder embedder;

typedef struct embedder_options {
    unsigned threads;  /* 0: all CPUs */
    uint32_t max_jobs; /* requests that wait or run */
    uint32_t context;  /* positions of one sequence; 0: the model's own */
    uint64_t kv_bytes; /* memory for keys and values */
    uint32_t step_tokens;
} embedder_options;

/* The model must outlive it. */
err_code embedder_new(embedder **out, const model *m, const embedder_options *o, err *e);
void embedder_free(embedder *s);              /* NULL is fine; every job must have been freed */
uint32_t embedder_context(const embedder *s); /* tokens that one sequence may have */

typedef struct embed_seq { /* 1 to embedder_context tokens of the vocabulary */
    const int32_t *tokens;
    uint32_t n;
} embed_seq;

typedef struct embed_job embed_job;

/* Takes a place; ERR_BUSY where there is none. The sequences stay the caller's until embed_job_free. */
err_code embed_job_new(embed_job **out, embedder *s, const embed_seq *seqs, uint32_t n, err *e);
void embed_job_start(embed_job *j);                    /* once */
bool embed_job_wait(embed_job *j, int64_t timeout_ms); /* true: it is over */
void embed_job_cancel(embed_job *j);
/* After it is over. The pooled rows (n, d_model) may be changed; they live until embed_job_free. */
err_code embed_job_result(embed_job *j, err *e);
float *embed_job_rows(embed_job *j);
typedef struct embed_times { /* nanoseconds */
    uint64_t queue, compute;
} embed_times;
void embed_job_get_times(const embed_job *j, embed_times *out);
/* Cancels what runs, waits until the thread has let go, frees. NULL is fine. */
void embed_job_free(embed_job *j);

#endif
