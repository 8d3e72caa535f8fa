/* Internal to the scheduler: what its two files share. scheduler.c is the engine thread; job.c is the owner's side of
 * a job and its mailbox. */
#ifndef POLDER_INFERENCE_SCHEDULER_INTERNAL_H
#define POLDER_INFERENCE_SCHEDULER_INTERNAL_H

#include "inference/crew.h"
#include "inference/drafter.h"
#include "inference/kept.h"
#include "inference/scheduler.h"
#include "inference/speculate.h"
#include "inference/waiting.h"

#include "base/metrics.h"
#include "base/sys.h"

#include <pthread.h>
#include <stdatomic.h>

/* One choice: one sequence. Belongs to the engine thread from job_start until the job is done. */
typedef struct choice {
    job *j;
    uint32_t index;
    int seq;              /* -1: has none */
    bool begun, finished; /* begun: has left the queue */
    uint64_t order;       /* of admission: the smallest is the oldest */
    uint32_t pos;         /* positions in the KV memory */
    uint32_t reused;      /* of these, those that were there already when it got its first sequence */
    bool kept;            /* its prompt's positions are there for others */
    uint32_t grant;       /* tokens of this step, */
    uint32_t n_guess;     /* of these, those that were guessed */
    uint32_t most_guess;  /* that there is room for */
    int32_t guess[GUESS_MAX];
    guess_state guessing;
    uint32_t echoed; /* prompt tokens whose echo has gone out */
    uint32_t n_new, cap_new;
    int32_t *new_tokens;
    uint32_t steps;
    uint64_t last_ns; /* when the last token was drawn */
    sampler *sampler;
    const float *row; /* of this step, to draw from; NULL: none */
    sampled drawn;
    sha256 digest, prompt_digest;
    uint64_t rows;        /* in digest */
    uint32_t prompt_rows; /* in prompt_digest: those that told of the echoed prompt */
    uint8_t logits_sha256[SHA256_LEN], prompt_sha256[SHA256_LEN];
    detok detok;
    answer_text text;
    answer_parser *parser; /* NULL: the answer is text */
    buf events;            /* pieces that were read and are not posted yet */
    uint64_t reasoning_tokens;
    const char *reason;
} choice;

struct job {
    scheduler *s;
    job_spec spec;
    stop_set stops;
    choice *choices;

    /* under scheduler.lock */
    owner *owner;
    job *next;            /* in the queue */
    uint32_t next_choice; /* the first that has not begun */
    bool started, queued;
    bool held; /* its other choices wait for the first one's prompt, whose positions they will share */

    /* the engine thread's own */
    uint32_t n_live;      /* choices that are not over */
    uint32_t share, want; /* of this step's prompt tokens */
    uint64_t served;      /* since its owner's counter was told last */
    bool in_round;
    uint64_t submitted_ns, begun_ns, first_ns, ended_ns;

    atomic_bool cancelled, paused;

    /* mailbox: `in` under lock; `out` is the owner's */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    buf in, out;
    size_t out_at;
    bool done;
    err_code rc;
    err error;
};

struct scheduler {
    const model *m;
    session *sess;
    crew *crew;
    uint32_t n_vocab, context, max_sequences, max_queue, step_tokens;
    uint32_t kv_total; /* positions, whole pages */
    kv_format kv;

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool kick, quit;   /* under lock */
    waiting queue;     /* jobs with choices that have not begun; under lock */
    uint32_t n_places; /* jobs reserved or queued; under lock */
    uint32_t n_begun;  /* choices that have begun and are not over; under lock */

    /* the engine thread's own */
    choice **running; /* in the order of admission: [0] is the oldest */
    uint32_t n_running;
    choice **preempted; /* wait to come back, before anybody who has not begun; with running at most twice that */
    uint32_t n_preempted;
    chunk *chunks;
    choice **chunk_of; /* whose each chunk is; NULL once it was used or its job is over */
    uint32_t n_chunks;
    uint32_t turn, kv_told;
    uint64_t next_order;
    buf scratch;
    int32_t *tokens; /* (context) of a sequence whose positions are kept; NULL: nothing is shared */
    kept_file kept;  /* .i NULL: none */
    uint64_t keep_state_bytes;
    bool has_states; /* the model has recurrent layers */
    speculation speculate;
    drafter *drafter; /* SPECULATE_DRAFT */
    draft_ask *asks;  /* (max_sequences) for it */

    metric *m_queue, *m_running, *m_kv, *m_first, *m_token, *m_steps, *m_step_tokens, *m_preempted, *m_reused,
        *m_guessed, *m_right;
};

#define CREW_MAX    8u     /* threads that draw side by side */
#define CREW_VALUES 65536u /* logits of one step below which waking them costs more than it saves */
#define KV_PAGE     64u    /* a multiple of the session's own page */

/* job.c: what one token added: text, or the spelling of a control token (read, but never shown). */
void choice_text(choice *c, const char *p, size_t n, const token_info *info);
void choice_special(choice *c, const char *spelling, size_t n, const token_info *info);
bool choice_has_enough(const choice *c); /* a stop string was found, or the one call that was asked for is over */
/* job.c: the choice is over; the reason that goes out. */
const char *choice_over(choice *c, const char *reason);
/* job.c: put text, tokens and (where reason is given) the end of a choice into the mailbox. false: out of memory. */
bool job_post(job *j, uint32_t c, answer_text *a, const char *reason);
/* job.c: the engine thread's last touch. */
void job_post_end(job *j, err_code rc, const err *why);
/* Wake the engine thread. */
void scheduler_kick(scheduler *s);

#endif
