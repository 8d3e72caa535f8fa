/* Internal to inference: one engine thread for one loaded model, and the jobs that it runs (continuous batching).
 *
 * A job is one admitted request: one prompt, one or more choices, each a sequence of its own. The engine thread owns
 * the session, the sequences and every choice while it runs; a job's owner (a request's thread) reserves a place,
 * starts the job, takes pieces of text from its mailbox, may cancel, and frees it.
 *
 *   owner                                   engine thread
 *   job_new     place taken or ERR_BUSY
 *   job_start   ------ queue (lock) ------> choice waits for a sequence and KV positions
 *                                           each step: decode tokens of all running choices, and prompt chunks
 *   job_next   <---- mailbox (job lock) --- text, tokens, finish reasons
 *   job_cancel  ------ flag ------------->  seen between two steps
 *   job_free    waits for <-------- done -- the engine never touches the job again
 *
 * Invariants
 *  1. KV memory is taken page by page as choices grow. Where none is left, the youngest running choice gives its up and
 *     is computed again later, bit for bit the same (numerics contract); a job whose own positions can never fit is
 *     refused in job_new. So no running choice fails for want of memory, the oldest always goes on, and answers
 *     of open length need not reserve a whole context. Who waits goes in by priority, then fairly by owner
 *     (waiting.h); where a higher priority waits, a lower one gives way.
 *  2. A step carries a token for every decoding choice, and what is guessed behind it; what is left of step_tokens is
 *     shared by those that have prompt work: by priority, within one evenly by owners, of an owner evenly by requests,
 *     starting with another one each step. step_tokens is taken as at least twice the number of sequences, so neither
 *     kind of work starves the other.
 *  3. What a choice yields depends on its prompt, parameters and seed only, never on its neighbours (numerics
 *     contract); stop strings are found on the engine thread, so the number of logits rows in its digest does not
 * depend on time.
 *  4. A slow reader stalls nobody: past JOB_MAILBOX_PAUSE bytes unread its choices sit out steps, and give up sequence
 *     and KV memory where somebody else needs them.
 *  5. What one request has computed of a prompt others find again (engine.h, kept prefixes), only within their space.
 *     Memory that is kept is given up before anybody has to wait for it.
 *  6. A step that fails is tried again one choice at a time, so that only those jobs fail that cannot go on.
 */
#ifndef POLDER_INFERENCE_SCHEDULER_H
#define POLDER_INFERENCE_SCHEDULER_H

#include "inference/answer_text.h"
#include "inference/format.h"

#define JOB_MAILBOX_PAUSE ((size_t)4 << 20)
#define JOB_MAILBOX_MAX   ((size_t)256 << 20)
#define ECHO_CHUNK_TOKENS 32 /* prompt positions a step where logits of every one are wanted */

typedef struct scheduler scheduler;

/* Who guesses tokens ahead (speculate.h). Answers are the same with each. */
typedef enum speculation { SPECULATE_OFF, SPECULATE_LOOKUP, SPECULATE_DRAFT } speculation;

typedef struct scheduler_options {
    unsigned threads;       /* 0: all CPUs */
    uint32_t max_sequences; /* choices that run at once */
    uint32_t max_queue;     /* requests that wait beyond those that can start at once */
    uint32_t context;       /* positions of one sequence; 0: the model's own */
    uint64_t kv_bytes;      /* memory for keys and values */
    kv_format kv;           /* how they are held: part of what an answer is */
    uint32_t step_tokens;
    bool share; /* positions of prompts are kept and used again, within a space */
    speculation speculate;
    const struct kept_file *kept; /* prefixes are read from there, and written at the end; NULL: not. Copied */
    const model *draft;           /* SPECULATE_DRAFT: the small model (drafter_check); it must outlive the scheduler */
} scheduler_options;

/* The model must outlive the scheduler. */
err_code scheduler_new(scheduler **out, const model *m, const scheduler_options *o, err *e);
void scheduler_free(scheduler *s);              /* NULL is fine; every job must have been freed */
uint32_t scheduler_context(const scheduler *s); /* positions that one sequence may reach */
kv_format scheduler_kv(const scheduler *s);
uint32_t scheduler_kv_positions(const scheduler *s); /* over all sequences */

typedef struct job job;

typedef struct job_spec {
    const int32_t *prompt; /* the caller's until job_free */
    uint32_t n_prompt;     /* at least 1 */
    uint32_t n_choices;    /* choice c samples with seed + c */
    uint32_t max_new;      /* new tokens of a choice; n_prompt + max_new is at most the context */
    uint64_t owner;        /* who is served fairly beside others */
    int priority;          /* higher goes first, and makes lower ones give way; 0 is usual */
    uint8_t space[32];     /* who may share positions: requests with the same bytes here */
    sampler_params sampling;
    const char *const *stops;
    uint32_t n_stops;
    bool want_logprobs, echo, ignore_end;
    uint32_t n_top;
    grammar *grammar; /* every choice follows it; NULL: none. The caller's until job_free */
    const answer_format
        *format; /* read the answer by it; NULL: it is text. The caller's until job_free, as all below */
    const cJSON *tools;
    bool one_call;
    const char *prompt_text;
    size_t prompt_text_len;
} job_spec;

/* Checks the specification, makes what the engine thread will need, takes a place in the queue. ERR_BUSY where the
 * queue is full, ERR_TOO_LONG where the job could never run, ERR_INVALID for bad sampling parameters. */
err_code job_new(job **out, scheduler *s, const job_spec *spec, err *e);
void job_start(job *j); /* once */
void job_cancel(job *j);
/* Cancels what runs, waits until the engine thread has let go, frees. NULL is fine. */
void job_free(job *j);

typedef enum piece_kind {
    PIECE_NONE,   /* nothing within the time */
    PIECE_TEXT,   /* text and tokens of one choice, or what was read from it: see `event` */
    PIECE_FINISH, /* one choice ended */
    PIECE_END,    /* the job is over: job_result tells how. No more pieces come */
} piece_kind;

typedef struct piece { /* pointers are valid until the next job_next */
    piece_kind kind;
    uint32_t choice;
    const char *text;
    size_t len;
    const token_info *tokens;
    size_t n_tokens;
    event_kind event;   /* PIECE_TEXT */
    const char *reason; /* PIECE_FINISH */
    const char *stop;   /* PIECE_FINISH: the stop string that was found, or NULL */
    bool malformed;
} piece;
void job_next(job *j, piece *out, int64_t timeout_ms);

/* Only after PIECE_END. */
typedef struct job_choice {
    const char *finish;    /* "stop", "length", "tool_calls"; NULL where it did not get to its end */
    const int32_t *tokens; /* every token that was drawn, an end token and those of a stop string included */
    size_t n_tokens;
    uint32_t n_calls; /* that were read whole */
    bool malformed;   /* one could not be read */
    uint64_t reasoning_tokens;
    uint32_t reused;                   /* positions of the prompt that were not computed again */
    uint32_t steps;                    /* engine steps that it took part in */
    uint8_t logits_sha256[SHA256_LEN]; /* over all rows that were sampled from, in order */
    uint64_t rows;                     /* how many: n_tokens, and one more where the last draw came to nothing */
    uint32_t prompt_rows;              /* rows that told log-probabilities of the echoed prompt, in order */
    uint8_t prompt_sha256[SHA256_LEN]; /* over them */
} job_choice;
err_code job_result(job *j, err *e); /* ERR_OK, ERR_CANCELLED, or why the engine could not go on */
void job_get_choice(job *j, uint32_t c, job_choice *out);
/* Nanoseconds; 0 for what was not reached. */
typedef struct job_times {
    uint64_t queue, prefill, decode;
} job_times;
void job_get_times(const job *j, job_times *out);

#endif
