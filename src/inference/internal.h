/* Internal to inference: what is open, and what its files share. Never included from outside. */
#ifndef POLDER_INFERENCE_INTERNAL_H
#define POLDER_INFERENCE_INTERNAL_H

#include "inference/answer_grammar.h"
#include "inference/drivers/driver.h"
#include "inference/embedder.h"
#include "inference/format.h"
#include "inference/prompt.h"
#include "inference/scheduler.h"

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
        *m_models, *m_malformed;
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

/* ---- records.c ---- */
err_code records_admitted(record **out, const inference *inf, const driver *d, const driver_call *c, err *e);
/* The same two for vectors and scores (records_embed.c). */
err_code records_embed_admitted(record **out, const inference *inf, const driver *d, const driver_call *c, err *e);
err_code records_embed_outcome(record **out, uint64_t admitted, err_code rc, const driver_call *c,
                               const driver_outcome *o, bool with_contents, err *e);
/* Into a record: the caller's end user as a keyed hash; token ids as a content. */
err_code records_put_user(record *rec, const inference *inf, const char *user, err *e);
err_code records_content_tokens(record *rec, const char *name, const int32_t *tokens, size_t n, err *e);
/* completed (rc is ERR_OK) or failed. `answers` are the choices' texts as far as they went out; with_contents false
 * leaves texts and tokens out (the last resort where memory is short). */
err_code records_outcome(record **out, uint64_t admitted, err_code rc, const driver_call *c, const driver_outcome *o,
                         const buf *answers, bool with_contents, err *e);

#endif
