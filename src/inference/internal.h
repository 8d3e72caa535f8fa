/* Internal to inference: what is open, and what its files share. Never included from outside. */
#ifndef POLDER_INFERENCE_INTERNAL_H
#define POLDER_INFERENCE_INTERNAL_H

#include "inference/answer_grammar.h"
#include "inference/drivers/driver.h"
#include "inference/embedder.h"
#include "inference/format.h"
#include "inference/guard.h"
#include "inference/perimeter.h"
#include "inference/prompt.h"
#include "inference/scheduler.h"
#include "inference/turn.h"

#include "base/metrics.h"

#include <pthread.h>
#include <stdatomic.h>

/* An artifact in memory: loaded on first use, kept until inference_close. Found by digest, so that two names of one
 * artifact share it. Everything but state is immutable once it is ready. */
typedef enum loaded_state { LOADED_LOADING, LOADED_READY, LOADED_FAILED } loaded_state;
typedef struct loaded {
    struct loaded *next;
    uint8_t digest[SHA256_LEN];
    loaded_state state; /* under inference.lock */
    uint32_t n_waiting; /* who waits for it to load; under inference.lock */
    err error;          /* LOADED_FAILED */
    model *m;
    special_set *special;
    answer_format *format;
    grammar_cache *grammars;
    model *draft;     /* guesses for it; NULL: none */
    scheduler *sched; /* a model that generates, */
    embedder *emb;    /* or one that makes vectors or ranks */
} loaded;

struct inference {
    island *i;
    pthread_mutex_t lock;
    pthread_cond_t cond; /* a model has loaded, a request has left */
    loaded *models;      /* under lock */
    uint32_t n_active;   /* requests between pipeline_enter and pipeline_leave; under lock */
    bool draining;       /* under lock */
    atomic_bool cancel_all;
    uint8_t user_key[32]; /* keys the hash of end users' names */
    struct perimeter_state *perimeter;
    metric *m_completed, *m_failed, *m_cancelled, *m_refused, *m_ledger_refusals, *m_tokens_in, *m_tokens_out, *m_load,
        *m_models, *m_malformed, *m_policy;
};

/* ---- inference.c ---- */
/* The artifact in memory; waits while somebody else loads it. `gone` (may be NULL) ends the waiting. */
err_code inference_get_loaded(inference *inf, const char *model_name, bool (*gone)(void *ctx), void *ctx, loaded **out,
                              err *e);
err_code inference_enter(inference *inf, err *e); /* ERR_UNAVAILABLE while draining */
void inference_leave(inference *inf);

/* ---- models.c ---- */
/* The tables of this room. ERR_NOT_FOUND: a read-only island that has none yet. */
err_code models_open_tables(store *s, err *e);
/* models_resolve without looking whether the tables are there. */
err_code models_find(store *s, const char *name, char *path, size_t cap, uint8_t digest[SHA256_LEN], err *e);
/* 32 random bytes, made once for each island. */
err_code models_user_key(store *s, uint8_t key[32], err *e);

/* ---- records.c, records_perimeter.c ---- */

/* What all records of one request say of the perimeter. */
typedef struct admission {
    const request *r; /* as it came */
    const perimeter *p;
    const guarded *g;
    const candidate *list; /* those of its model name */
    uint32_t n;
    uint64_t allowed; /* providers */
} admission;

/* One attempt, as its records need it. */
typedef struct attempt_facts {
    uint64_t admitted;  /* seq */
    uint32_t number;    /* 1, 2, … */
    const provider *to; /* [0] of the perimeter: the engine */
    const char *model;  /* the name there */
    const driver *d;
    const driver_call *call;
    const redaction *map;       /* NULL: nothing was replaced */
    const entity_set *redacted; /* what was to be */
} attempt_facts;

/* How an attempt ended, for completed and failed. */
typedef struct attempt_note {
    const char *provider, *model, *outcome;
    int status;
    uint64_t sent, received, ns;
    uint32_t sendings;
} attempt_note;

typedef struct ending { /* of a request */
    uint64_t admitted;
    err_code rc; /* ERR_OK: completed */
    const driver_call *call;
    const driver_outcome *o;
    const buf *answers;  /* (REQUEST_CHOICES_MAX) as they were written */
    const turn *written; /* (n_choices) what a provider said, before anything came back; NULL: the engine's */
    const turn *kept;    /* choice 0 as the client got it; NULL: not asked for */
    const attempt_note *notes;
    uint32_t n_notes;
    const char *route;
    uint32_t attempt; /* who answered: the number of that attempt; 0: nobody did */
    double cost_eur;  /* negative: not known */
} ending;

/* `f` is the first attempt. */
err_code records_admitted(record **out, const inference *inf, const admission *a, const attempt_facts *f, err *e);
err_code records_egress(record **out, const admission *a, const attempt_facts *f, err *e);
err_code records_rerouted(record **out, const admission *a, const attempt_facts *f, err *e);
err_code records_refused(record **out, const admission *a, err_code why, const char *sentence, err *e);
/* completed or failed; with_contents false leaves texts and tokens out (the last resort where memory is short). */
err_code records_outcome(record **out, const admission *a, const ending *x, bool with_contents, err *e);

/* Parts of them. The caller's words are contents, never fields. */
err_code records_put_user(record *rec, const inference *inf, const char *user, err *e);
err_code records_content_tokens(record *rec, const char *name, const int32_t *tokens, size_t n, err *e);
err_code records_content_flat(record *rec, const char *name, const jflat *f, err *e);
/* Label, flags, findings, policy; with `candidates` the providers that may see it. */
err_code records_put_perimeter(record *rec, const admission *a, bool candidates, err *e);
/* Of vectors and scores (records_embed.c). */
err_code records_embed_contents(record *rec, const embed_request *q, const driver_call *c, err *e);
err_code records_embed_lengths(record *rec, const driver_call *c, err *e); /* nothing where a provider counts */
err_code records_embed_outcome(record *rec, const ending *x, bool with_contents, err *e);

#endif
