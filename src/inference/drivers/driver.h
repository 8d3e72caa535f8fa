/* Internal to inference: a driver runs one attempt of one request at one candidate. A table of functions; the pipeline
 * knows nothing else of where an answer comes from. Every driver passes tests/unit/inference/test_drivers.c.
 *
 *   prepare   checks the request against the candidate, makes what it will be asked (a prompt, a body), takes a place;
 *             nothing is computed and nothing leaves. What it fills in is what the records state.
 *   describe  adds the route's facts to a record: what somebody needs to derive the answer again.
 *   start     after the records are durable: the attempt begins. It does not wait for an answer.
 *   next      the next thing that happened, or STEP_WAIT after at most timeout_ms. Pointers in *ev live until the next
 *             call. An error ends the attempt: c->failure tells what it means for other candidates.
 *   cancel    ends it early; next then comes to STEP_END or ERR_CANCELLED soon. May be called at any time after start.
 *   finish    fills the outcome as far as the attempt got, also where it failed. After the last next.
 *   release   in any case once prepare was called; frees everything, cancels what still runs.
 *
 * All calls on one thread. Steps of one attempt: STEP_STARTED once, before any event, when the candidate has begun to
 * answer (until then another may be tried); STEP_EVENT any number of times (EV_RAW, EV_TEXT, EV_REASONING, EV_CALL…,
 * EV_VECTOR, and EV_FINISH once for each choice); STEP_END once.
 */
#ifndef POLDER_INFERENCE_DRIVERS_DRIVER_H
#define POLDER_INFERENCE_DRIVERS_DRIVER_H

#include "inference/inference.h"

/* What a failed attempt means. Zero: nobody else could do better (the request itself is at fault, or it was
 * cancelled). */
typedef struct driver_failure {
    bool try_others;   /* another candidate, or this one later, may well answer */
    bool provider;     /* the provider is at fault: counts for its breaker */
    int status;        /* of HTTP, where there was one */
    int retry_after_s; /* the provider asked for so much patience; 0: it did not say */
} driver_failure;

typedef struct driver_call {
    /* set by the pipeline */
    const request *r;           /* redacted already where the decision wants it */
    sensitivity label;          /* what the request counts as */
    uint64_t seed;              /* choice c samples with seed + c */
    uint64_t max_output_tokens; /* configured bound of one answer; 0: none */
    void *target;               /* the candidate, in the driver's own terms */
    /* set by prepare; belongs to the driver until release */
    void *state;
    const char *prompt; /* the text as the model reads it; NULL for a prompt of token ids, or where it is not known */
    size_t prompt_len;
    const int32_t *prompt_tokens; /* NULL where the provider counts */
    size_t n_prompt_tokens;
    const struct embed_seq *inputs; /* of vectors and scores: (n_inputs) parts of prompt_tokens */
    uint32_t max_new;               /* new tokens of each choice; 0: the provider decides */
    char fingerprint[32];           /* of candidate and numerics, for the client */
    const char *body;               /* the bytes that start will send; NULL: nothing leaves this process */
    size_t body_len;
    /* set by next: so much has come that reading it takes long; on a fiber (base/loop.h) it returns STEP_WAIT before it
     * reads, so that the caller can send the rest away */
    bool large;
    /* set by next where it fails */
    driver_failure failure;
} driver_call;

typedef struct driver_choice {
    const char *finish;    /* NULL: did not get to its end */
    const int32_t *tokens; /* NULL where the provider does not tell; the driver's until release */
    size_t n_tokens;
    uint32_t steps, n_calls;
    bool malformed; /* a call could not be read */
    bool has_digest;
    uint8_t logits_sha256[SHA256_LEN]; /* over `rows` rows of logits */
    uint64_t rows;                     /* more than n_tokens where the last draw came to nothing */
    uint32_t prompt_rows;              /* rows that told log-probabilities of an echoed prompt; 0: none */
    uint8_t prompt_sha256[SHA256_LEN];
} driver_choice;

typedef struct driver_outcome {
    uint32_t n_choices;
    uint64_t prompt_tokens; /* as the provider counted them */
    uint64_t completion_tokens, reasoning_tokens;
    uint64_t cached_tokens; /* of the prompt: those that were not computed again */
    uint64_t queue_ns, prefill_ns, decode_ns;
    uint64_t sent_bytes, received_bytes; /* bodies, to and from a provider; as far as it got */
    uint32_t sendings;                   /* how often the body went out (upstream.h) */
    char provider_id[80];                /* the provider's own name of its answer; "" */
    /* of vectors and scores, where they were all made */
    uint32_t n_vectors, dimensions;
    uint8_t vectors_sha256[SHA256_LEN];
    const uint8_t *vector_digests;              /* (n_vectors, SHA256_LEN); the driver's until release */
    driver_choice choices[REQUEST_CHOICES_MAX]; /* n_choices of them are there */
} driver_outcome;

typedef enum driver_step { STEP_WAIT, STEP_STARTED, STEP_EVENT, STEP_END } driver_step;

typedef struct driver {
    const char *name; /* "engine", "openai", "anthropic" */
    err_code (*prepare)(driver_call *c, err *e);
    err_code (*describe)(const driver_call *c, jflat *fields, err *e);
    err_code (*start)(driver_call *c, err *e);
    err_code (*next)(driver_call *c, int timeout_ms, driver_step *step, event *ev, err *e);
    void (*cancel)(driver_call *c);
    void (*finish)(driver_call *c, driver_outcome *out);
    void (*release)(driver_call *c);
} driver;

extern const driver driver_engine; /* target: a `loaded` (internal.h) */
extern const driver driver_embed;  /* the same, for vectors and scores */
/* target: an `upstream_target` (drivers/upstream.h). They make text and vectors (openai), or text (anthropic). What
 * they cannot express is ERR_UNSUPPORTED in prepare. Of sampling they send what differs from sampler_params_default: a
 * request does not tell what its client set. */
extern const driver driver_openai, driver_anthropic;

#endif
