/* Internal to inference: what a provider's answer has become so far: events in a queue, and the facts of the outcome.
 *
 * A reader (openai_read.c, anthropic_read.c) turns one piece of JSON at a time into events by answer_put_*; texts lie
 * in the piece's tree, which lives until the next answer_begin. Whatever a provider sends, the events are in the order
 * that inference.h states: a call is ended before anything else of its choice, EV_FINISH comes once for a choice and
 * nothing of the choice after it.
 */
#ifndef POLDER_INFERENCE_DRIVERS_ANSWER_H
#define POLDER_INFERENCE_DRIVERS_ANSWER_H

#include "inference/drivers/driver.h"
#include "inference/drivers/sse.h"
#include "inference/drivers/upstream.h"

#define ANSWER_TOKENS_AT_ONCE 32         /* tokens with log-probabilities in one event */
#define ANSWER_ARGS_MAX       (8u << 20) /* bytes of one call's arguments */

typedef struct answer_item {
    event_kind kind;
    uint32_t choice, input;
    const char *text;
    size_t len;
    const cJSON *tokens; /* the next of a list of log-probabilities; NULL: none */
    const char *reason, *stop;
    bool malformed;
} answer_item;

typedef struct answer_choice {
    const char *finish;
    uint32_t n_calls;
    bool in_call, malformed;
    bool ignored;     /* the call that runs is one too many */
    int64_t index;    /* of the call that runs, as the provider counts */
    char call_id[80]; /* the provider's */
    buf args;         /* of the call that runs */
} answer_choice;

typedef struct answer {
    const request *r;
    const char *provider;
    cJSON *tree;
    answer_item *items;
    size_t at, n, cap; /* the queue: items[at … n) */
    uint32_t n_choices, n_finished;
    bool ended;         /* the end mark was there */
    bool lacks_choices; /* it ended with some, but not all */
    uint64_t prompt_tokens, completion_tokens, reasoning_tokens;
    char id[80];
    int error_status; /* an error that came as a part of the answer: the status it stands for */
    token_info *tokens;
    uint64_t n_events;
    /* Anthropic's stream: blocks one after another */
    int64_t block;
    char block_type[32];
    /* vectors */
    float *vectors; /* (n_inputs, dimensions) */
    uint32_t dimensions;
    uint8_t *digests; /* (n_inputs, SHA256_LEN) */
    uint8_t all_digest[SHA256_LEN];
    answer_choice choices[REQUEST_CHOICES_MAX]; /* n_choices of them are there */
} answer;

void answer_init(answer *a, const request *r, const char *provider);
void answer_drop(answer *a);
/* Reads one piece of JSON, which takes the place of the one before. The queue must be empty. */
err_code answer_begin(answer *a, const char *json, size_t n, err *e);
/* The next event: false where there is none. */
bool answer_next(answer *a, event *ev);
/* The sentence for an answer that is not what it should be. Returns its code. */
err_code answer_bad(const answer *a, err *e, const char *why);

/* ---- for readers ---- */
err_code answer_put_text(answer *a, uint32_t choice, const char *text, const cJSON *logprobs, err *e);
err_code answer_put_reasoning(answer *a, uint32_t choice, const char *text, err *e);
/* A call begins; one that runs in this choice is ended first. */
err_code answer_put_call(answer *a, uint32_t choice, int64_t index, const char *id, const char *name, err *e);
err_code answer_put_args(answer *a, uint32_t choice, const char *text, err *e);
err_code answer_end_call(answer *a, uint32_t choice, err *e); /* nothing where none runs */
/* `reason`: a constant of inference.h; "stop" after calls becomes "tool_calls". `stop`: what the provider says about
 * the stop string that ended it; NULL: nothing. */
err_code answer_put_finish(answer *a, uint32_t choice, const char *reason, const char *stop, err *e);
err_code answer_put_vector(answer *a, uint32_t input, err *e);
/* Nothing more comes: is everything there that was asked for? */
err_code answer_check_end(answer *a, err *e);
uint64_t answer_count(const cJSON *o, const char *key); /* a whole number that is not negative; else 0 */

/* ---- the two forms ---- */
err_code openai_read_whole(answer *a, const char *json, size_t n, err *e);
err_code openai_read_event(answer *a, const sse_event *ev, err *e);
err_code anthropic_read_whole(answer *a, const char *json, size_t n, err *e);
err_code anthropic_read_event(answer *a, const sse_event *ev, err *e);

#endif
