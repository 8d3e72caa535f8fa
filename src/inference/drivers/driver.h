/* Internal to inference: a driver runs one admitted request at one kind of provider. A table of functions; the pipeline
 * knows nothing else of where an answer comes from.
 *
 *   prepare   checks the request against the candidate, makes the prompt, takes a place; nothing is computed and
 *             nothing leaves. What it fills in is what the admitted record states.
 *   describe  adds the route's facts to the admitted record: what somebody needs to derive the answer again.
 *   run       after the record is durable: streams EV_TEXT and EV_FINISH into the sink, on the caller's thread, and
 *             fills the outcome as far as it got, also where it fails.
 *   release   after the outcome is durable, in any case once prepare was called.
 */
#ifndef POLDER_INFERENCE_DRIVERS_DRIVER_H
#define POLDER_INFERENCE_DRIVERS_DRIVER_H

#include "inference/inference.h"

typedef struct driver_call {
    /* set by the pipeline */
    const request *r;
    uint64_t seed;              /* choice c samples with seed + c */
    uint64_t max_output_tokens; /* configured bound of one answer; 0: none */
    void *target;               /* the candidate, in the driver's own terms */
    /* set by prepare; belongs to the driver until release */
    void *state;
    const char *prompt; /* the text as the model reads it; NULL for a prompt of token ids */
    size_t prompt_len;
    const int32_t *prompt_tokens;
    size_t n_prompt_tokens;
    const struct embed_seq *inputs; /* of vectors and scores: (n_inputs) parts of prompt_tokens */
    uint32_t max_new;               /* new tokens of each choice */
    char fingerprint[32];           /* of candidate and numerics, for the client */
} driver_call;

typedef struct driver_choice {
    const char *finish;    /* NULL: did not get to its end */
    const int32_t *tokens; /* NULL where the provider does not tell; the driver's until release */
    size_t n_tokens;
    uint32_t steps, n_calls;
    bool malformed; /* a call could not be read */
    bool has_digest;
    uint8_t logits_sha256[SHA256_LEN];
} driver_choice;

typedef struct driver_outcome {
    uint32_t n_choices;
    driver_choice choices[REQUEST_CHOICES_MAX];
    uint64_t completion_tokens, reasoning_tokens;
    uint64_t queue_ns, prefill_ns, decode_ns;
    /* of vectors and scores, where they were all made */
    uint32_t n_vectors, dimensions;
    uint8_t vectors_sha256[SHA256_LEN];
    const uint8_t *vector_digests; /* (n_vectors, SHA256_LEN); the driver's until release */
} driver_outcome;

typedef struct driver {
    const char *name; /* the route in records */
    err_code (*prepare)(driver_call *c, err *e);
    err_code (*describe)(const driver_call *c, cJSON *body, err *e);
    err_code (*run)(driver_call *c, const event_sink *sink, driver_outcome *out, err *e);
    void (*release)(driver_call *c);
} driver;

extern const driver driver_engine; /* target: a `loaded` (internal.h) */
extern const driver driver_embed;  /* the same, for vectors and scores */

#endif
