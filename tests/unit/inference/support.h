/* For tests: an island in a temporary folder with a small model, a sink that collects, a ledger whose disk can fail. */
#ifndef POLDER_TESTS_INFERENCE_SUPPORT_H
#define POLDER_TESTS_INFERENCE_SUPPORT_H

#include "harness.h"
#include "tiny_model.h"

#include "inference/inference.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/sys.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

/* ---- a disk that fails on demand --------------------------------------------------------------------------- */

static atomic_int disk_fails; /* every write and sync fails while it is not 0 */
static int (*real_pwrite)(vfs *v, vfile *f, const void *p, size_t n, uint64_t off);
static int (*real_sync)(vfs *v, vfile *f);

static int failing_pwrite(vfs *v, vfile *f, const void *p, size_t n, uint64_t off) {
    return atomic_load(&disk_fails) ? -EIO : real_pwrite(v, f, p, n, off);
}
static int failing_sync(vfs *v, vfile *f) {
    return atomic_load(&disk_fails) ? -EIO : real_sync(v, f);
}
static inline void disk_install(void) {
    real_pwrite = vfs_posix.pwrite;
    real_sync = vfs_posix.sync;
    vfs_posix.pwrite = failing_pwrite;
    vfs_posix.sync = failing_sync;
}

/* ---- an island --------------------------------------------------------------------------------------------- */

typedef struct bed {
    char dir[256], file[300];
    island *i;
    inference *inf;
} bed;

/* `config` is the text of island.yaml's inference group ("  max_queue: 0\n"), NULL: as init writes it. */
static inline err_code bed_open(bed *b, const char *config, err *e) {
    char sub[300], path[330];
    memset(b, 0, sizeof *b);
    if (!test_tmpdir(b->dir)) return err_errno(e, "a temporary folder");
    snprintf(sub, sizeof sub, "%s/island", b->dir);
    snprintf(b->file, sizeof b->file, "%s/tiny.gguf", b->dir);
    snprintf(path, sizeof path, "%s/island.yaml", sub);
    if (!tiny_write(b->file, true, true, TINY_TEMPLATE, 7)) return err_set(e, ERR_IO, "the small model");
    err_code rc = island_init(sub, NULL, e);
    if (!rc && config) {
        char yaml[1000];
        snprintf(yaml, sizeof yaml, "inference:\n%s", config);
        rc = file_write_atomic(path, yaml, strlen(yaml), 0600, e);
    }
    if (!rc) rc = island_open(&b->i, sub, ISLAND_WRITE, e);
    if (!rc) rc = inference_open(&b->inf, b->i, e);
    return rc;
}

static inline err_code bed_add(bed *b, const char *file, const char *name, err *e) {
    cJSON *out = NULL;
    err_code rc = models_add(b->i, NULL, file, name, NULL, NULL, &out, e);
    cJSON_Delete(out);
    return rc;
}

static inline void bed_close(bed *b) {
    inference_close(b->inf);
    island_close(b->i);
    if (b->dir[0]) test_rm(b->dir);
    memset(b, 0, sizeof *b);
}

/* Record `seq` as a tree, NULL where it cannot be read. */
static inline cJSON *bed_record(bed *b, uint64_t seq) {
    buf text = {.max = LEDGER_ENTRY_MAX};
    cJSON *v = NULL;
    if (ledger_read(island_ledger(b->i), seq, &text, NULL) == ERR_OK)
        json_parse(&v, text.ptr, text.len, "record", NULL);
    buf_free(&text);
    return v;
}

static inline bool record_is(const cJSON *r, const char *what) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(r, "event");
    return cJSON_IsString(v) && strcmp(v->valuestring, what) == 0;
}

/* Every admitted record has exactly one outcome, after it. NULL, or what is wrong. */
static inline const char *bed_balance(bed *b) {
    uint64_t n = ledger_size(island_ledger(b->i));
    uint8_t *state = calloc(n + 1, 1);
    const char *bad = NULL;
    for (uint64_t i = 0; i < n && !bad; i++) {
        cJSON *r = bed_record(b, i);
        if (!r)
            bad = "a record cannot be read";
        else if (record_is(r, "admitted"))
            state[i] = 1;
        else if (record_is(r, "completed") || record_is(r, "failed")) {
            const cJSON *q = cJSON_GetObjectItemCaseSensitive(r, "request");
            uint64_t of = cJSON_IsNumber(q) ? (uint64_t)q->valuedouble : n;
            if (of >= i || state[of] != 1)
                bad = "an outcome of nothing, or a second one";
            else
                state[of] = 2;
        }
        cJSON_Delete(r);
    }
    for (uint64_t i = 0; i < n && !bad; i++)
        if (state[i] == 1) bad = "an admitted request without an outcome";
    free(state);
    return bad;
}

/* ---- a client ---------------------------------------------------------------------------------------------- */

typedef struct client {
    buf text[REQUEST_CHOICES_MAX];
    const char *reason[REQUEST_CHOICES_MAX];
    token_info *tokens; /* of choice 0 */
    size_t n_tokens, cap_tokens;
    int n_admitted, n_finish, n_done, n_pieces, wrong_order;
    uint64_t admitted, completed, seed, prompt_tokens, completion_tokens;
    int cancel_after;      /* pieces of text; 0: never */
    atomic_bool gone;      /* the client has hung up */
    pthread_mutex_t *hold; /* taken for a moment in each EV_TEXT: who has it stops the client from reading */
    atomic_bool has_text;
} client;

static inline void client_free(client *c) {
    for (int i = 0; i < REQUEST_CHOICES_MAX; i++) buf_free(&c->text[i]);
    free(c->tokens);
    memset(c, 0, sizeof *c);
}

static inline void client_tokens(client *c, const event *ev) {
    if (ev->choice || !ev->n_tokens) return;
    if (c->n_tokens + ev->n_tokens > c->cap_tokens) {
        c->cap_tokens = 2 * (c->n_tokens + ev->n_tokens);
        c->tokens = realloc(c->tokens, c->cap_tokens * sizeof *c->tokens);
    }
    memcpy(c->tokens + c->n_tokens, ev->tokens, ev->n_tokens * sizeof *ev->tokens);
    c->n_tokens += ev->n_tokens;
}

static inline err_code client_event(void *ctx, const event *ev) {
    client *c = ctx;
    switch (ev->kind) {
    case EV_ADMITTED:
        c->wrong_order += c->n_admitted || c->n_pieces || c->n_finish || c->n_done;
        c->n_admitted++;
        c->admitted = ev->record;
        c->seed = ev->seed;
        break;
    case EV_TEXT:
        c->wrong_order += !c->n_admitted || c->reason[ev->choice] || !utf8_valid(ev->text, ev->len);
        c->text[ev->choice].max = 1 << 20;
        buf_append(&c->text[ev->choice], ev->text, ev->len);
        client_tokens(c, ev);
        c->n_pieces++;
        atomic_store(&c->has_text, true);
        if (c->hold) {
            pthread_mutex_lock(c->hold);
            pthread_mutex_unlock(c->hold);
        }
        if (c->cancel_after && c->n_pieces >= c->cancel_after) return ERR_CANCELLED;
        break;
    case EV_FINISH:
        c->wrong_order += !c->n_admitted || c->n_done || c->reason[ev->choice];
        c->reason[ev->choice] = ev->reason;
        c->n_finish++;
        break;
    case EV_DONE:
        c->wrong_order += c->n_done || !c->n_finish;
        c->n_done++;
        c->completed = ev->record;
        c->prompt_tokens = ev->prompt_tokens;
        c->completion_tokens = ev->completion_tokens;
        break;
    default: break;
    }
    return ERR_OK;
}

static inline bool client_gone(void *ctx) {
    return atomic_load(&((client *)ctx)->gone);
}

static inline request ask(const char *name, const char *text, int64_t max_tokens) {
    request r = {.dialect = "test", .model = name, .text = text, .text_len = strlen(text), .n_choices = 1};
    snprintf(r.who.key_id, sizeof r.who.key_id, "k_test");
    sampler_params_default(&r.sampling);
    r.sampling.temperature = 0;
    r.has_seed = true;
    r.max_tokens = max_tokens;
    return r;
}

static inline err_code run(bed *b, const request *r, client *c, err *e) {
    event_sink sink = {.ctx = c, .event = client_event, .gone = client_gone};
    return pipeline_run(b->inf, r, &sink, e);
}

/* A request on a thread of its own. */
typedef struct task {
    bed *b;
    request r;
    client c;
    err e;
    err_code rc;
    pthread_t thread;
} task;
static void *task_main(void *arg) {
    task *t = arg;
    t->rc = run(t->b, &t->r, &t->c, &t->e);
    return NULL;
}
static inline void task_start(task *t) {
    pthread_create(&t->thread, NULL, task_main, t);
}
static inline void task_join(task *t) {
    pthread_join(t->thread, NULL);
}

static inline double gauge(const char *name) {
    return metric_value(metric_get(METRIC_GAUGE, name, NULL, ""));
}
static inline double counter(const char *name) {
    return metric_value(metric_get(METRIC_COUNTER, name, NULL, ""));
}

#endif
