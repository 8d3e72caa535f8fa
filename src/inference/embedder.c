#include "inference/embedder.h"

#include "base/mem.h"
#include "base/metrics.h"
#include "base/sys.h"

#include <string.h>

#define KV_PAGE     64u    /* a multiple of the session's own page */
#define ENCODER_MAX 65536u /* a session's longest step */

typedef enum job_state { JOB_NEW, JOB_QUEUED, JOB_OVER } job_state;

struct embed_job {
    embedder *s;
    const embed_seq *seqs;
    uint32_t n;
    /* under the embedder's lock */
    embed_job *next; /* of those that still have sequences to begin */
    job_state state;
    bool cancelled;
    err error;
    uint64_t submitted_ns, begun_ns, ended_ns;
    /* the thread's own until the job is over */
    uint32_t n_begun, n_running;
    float *rows; /* (n, d_model) */
};

/* A sequence under way. */
typedef struct slot {
    embed_job *j; /* NULL: free */
    uint32_t index;
    int seq;
    uint32_t at, grant; /* tokens done, tokens of this step */
    uint32_t held;      /* positions of KV memory */
} slot;

struct embedder {
    const model *m;
    session *sess;
    uint32_t d_model, context, step_tokens, max_jobs;
    bool encoder;
    uint32_t kv_free; /* positions, whole pages */

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work, over;
    bool quit; /* under lock, as what follows */
    embed_job *head, *tail;
    uint32_t n_places; /* jobs that were made and are not over */

    slot slots[EMBEDDER_SLOTS]; /* the thread's own */
    uint32_t turn;

    metric *m_queue, *m_running, *m_steps, *m_step_tokens, *m_inputs;
};

/* ---- the list of jobs (under lock) ------------------------------------------------------------------------- */

static void list_add(embedder *s, embed_job *j) {
    j->next = NULL;
    if (s->tail)
        s->tail->next = j;
    else
        s->head = j;
    s->tail = j;
}

static void list_remove(embedder *s, embed_job *j) {
    embed_job **at = &s->head, *last = NULL;
    while (*at && *at != j) last = *at, at = &(*at)->next;
    if (!*at) return;
    *at = j->next;
    if (s->tail == j) s->tail = last;
    j->next = NULL;
}

/* The thread's last touch: afterwards the owner may free it. */
static void job_over(embedder *s, embed_job *j) {
    list_remove(s, j);
    j->ended_ns = time_mono_ns();
    j->state = JOB_OVER;
    s->n_places--;
    metric_add(s->m_queue, -1);
    pthread_cond_broadcast(&s->over);
}

/* ---- sequences --------------------------------------------------------------------------------------------- */

static uint32_t whole_pages(uint32_t positions) {
    return (positions + KV_PAGE - 1) / KV_PAGE * KV_PAGE;
}

static void slot_leave(embedder *s, slot *t) {
    session_seq_free(s->sess, t->seq);
    s->kv_free += t->held;
    metric_add(s->m_running, -1);
    t->j->n_running--;
    *t = (slot){.seq = -1};
}

/* Under lock. End a job with an error, whatever its sequences are doing. */
static void job_fail(embedder *s, embed_job *j, err_code rc, const err *why) {
    for (uint32_t i = 0; i < EMBEDDER_SLOTS; i++)
        if (s->slots[i].j == j) slot_leave(s, &s->slots[i]);
    if (why) j->error = *why;
    j->error.code = rc;
    job_over(s, j);
}

/* Under lock. A job's rows are made when its first sequence begins, so that those who wait hold little. */
static bool job_begin(embedder *s, embed_job *j) {
    err e = {0};
    if (j->rows) return true;
    j->rows = mem_array((size_t)j->n * s->d_model, sizeof *j->rows);
    j->begun_ns = time_mono_ns();
    if (!j->rows) job_fail(s, j, err_nomem(&e, "embeddings"), &e);
    return j->rows != NULL;
}

/* Under lock. The next sequence of the job at the head into t; false where it must wait. */
static bool begin_next(embedder *s, slot *t, uint32_t *left) {
    embed_job *j = s->head;
    const embed_seq *q = &j->seqs[j->n_begun];
    uint32_t held = s->encoder ? 0 : whole_pages(q->n);
    bool alone = *left == s->step_tokens;
    if (!*left || held > s->kv_free || (s->encoder && q->n > *left && !alone)) return false;
    int seq = -1;
    if (session_seq_new(s->sess, &seq, NULL) != ERR_OK) return false;
    *t = (slot){.j = j, .index = j->n_begun++, .seq = seq, .held = held};
    j->n_running++;
    s->kv_free -= held;
    *left -= q->n < *left ? q->n : *left;
    metric_add(s->m_running, 1);
    metric_add(s->m_inputs, 1);
    list_remove(s, j);
    if (j->n_begun < j->n) list_add(s, j);
    return true;
}

/* Drop what was cancelled, begin what fits. */
static void fill_slots(embedder *s) {
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < EMBEDDER_SLOTS; i++)
        if (s->slots[i].j && s->slots[i].j->cancelled) job_fail(s, s->slots[i].j, ERR_CANCELLED, NULL);
    for (embed_job *j = s->head, *next; j; j = next) {
        next = j->next;
        if (j->cancelled) job_fail(s, j, ERR_CANCELLED, NULL);
    }
    uint32_t left = s->step_tokens;
    for (uint32_t i = 0; i < EMBEDDER_SLOTS; i++) {
        const slot *t = &s->slots[i];
        uint32_t n = t->j ? t->j->seqs[t->index].n - t->at : 0;
        left -= n < left ? n : left;
    }
    for (uint32_t i = 0; i < EMBEDDER_SLOTS && s->head; i++) {
        if (s->slots[i].j) continue;
        while (s->head && !job_begin(s, s->head)) {
        }
        if (!s->head || !begin_next(s, &s->slots[i], &left)) break;
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- the step ---------------------------------------------------------------------------------------------- */

static uint32_t slot_left(const slot *t) {
    return t->j->seqs[t->index].n - t->at;
}

/* Encoders: everything. Others: an even share, then what is left over, beginning with another one each step. */
static void grant(embedder *s) {
    uint32_t n = 0, left = s->step_tokens;
    for (uint32_t i = 0; i < EMBEDDER_SLOTS; i++) n += s->slots[i].j != NULL;
    uint32_t share = n && left / n ? left / n : 1;
    for (uint32_t i = 0; i < EMBEDDER_SLOTS; i++) {
        slot *t = &s->slots[(s->turn + i) % EMBEDDER_SLOTS];
        if (!t->j) continue;
        uint32_t want = slot_left(t), most = s->encoder ? want : share < left ? share : left;
        t->grant = want < most ? want : most;
        if (!s->encoder) left -= t->grant;
    }
    for (uint32_t i = 0; i < EMBEDDER_SLOTS && left && !s->encoder; i++) {
        slot *t = &s->slots[(s->turn + i) % EMBEDDER_SLOTS];
        if (!t->j) continue;
        uint32_t more = slot_left(t) - t->grant;
        more = more < left ? more : left;
        t->grant += more;
        left -= more;
    }
    s->turn++;
}

static chunk chunk_of(const embedder *s, const slot *t) {
    const embed_seq *q = &t->j->seqs[t->index];
    return (chunk){.seq = t->seq,
                   .tokens = q->tokens + t->at,
                   .n = t->grant,
                   .n_logits = model_pool_rows(s->m, t->at, t->grant, q->n)};
}

/* What a step has computed for a sequence. */
static void take_rows(embedder *s, slot *t, const chunk *c) {
    embed_job *j = t->j;
    uint32_t total = j->seqs[t->index].n;
    model_pool_add(s->m, j->rows + (size_t)t->index * s->d_model, c->logits, t->grant, t->at, total);
    metric_add(s->m_step_tokens, (double)t->grant);
    t->at += t->grant;
    if (t->at < total) return;
    pthread_mutex_lock(&s->lock);
    slot_leave(s, t);
    if (!j->n_running && j->n_begun == j->n) job_over(s, j);
    pthread_mutex_unlock(&s->lock);
}

static void step_alone(embedder *s, slot *t) {
    err e = {0};
    chunk c = chunk_of(s, t);
    err_code rc = session_step(s->sess, &c, 1, &e);
    if (rc == ERR_OK) {
        take_rows(s, t, &c);
        return;
    }
    pthread_mutex_lock(&s->lock);
    job_fail(s, t->j, rc, &e);
    pthread_mutex_unlock(&s->lock);
}

/* false: there was nothing to do. */
static bool embed_round(embedder *s) {
    chunk chunks[EMBEDDER_SLOTS];
    slot *of[EMBEDDER_SLOTS];
    size_t n = 0;
    fill_slots(s);
    grant(s);
    for (uint32_t i = 0; i < EMBEDDER_SLOTS; i++) {
        slot *t = &s->slots[i];
        if (!t->j || !t->grant) continue;
        of[n] = t;
        chunks[n++] = chunk_of(s, t);
    }
    if (!n) return false;
    metric_add(s->m_steps, 1);
    bool good = session_step(s->sess, chunks, n, NULL) == ERR_OK;
    for (size_t i = 0; i < n; i++) {
        if (!of[i]->j) continue; /* its job has failed with another sequence of it */
        if (good)
            take_rows(s, of[i], &chunks[i]);
        else
            step_alone(s, of[i]);
    }
    return true;
}

static void *embed_thread(void *arg) {
    embedder *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->quit) {
        pthread_mutex_unlock(&s->lock);
        bool worked = embed_round(s);
        pthread_mutex_lock(&s->lock);
        if (!worked && !s->head && !s->quit) pthread_cond_wait(&s->work, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- life -------------------------------------------------------------------------------------------------- */

static err_code make_session(embedder *s, const embedder_options *o, err *e) {
    const model_facts *f = model_get_facts(s->m);
    uint32_t steps = s->step_tokens, most = f->encoder ? ENCODER_MAX : UINT32_MAX;
    s->context = o->context && o->context < f->n_ctx_train ? o->context : f->n_ctx_train;
    if (s->context > most) s->context = most;
    session_options so = {.n_threads = o->threads, .n_seq_max = EMBEDDER_SLOTS, .hidden = true};
    if (f->encoder) {
        if (steps < s->context) steps = s->context;
    } else {
        uint64_t states = f->state_bytes * EMBEDDER_SLOTS, left = o->kv_bytes > states ? o->kv_bytes - states : 0;
        uint64_t kv = left / (f->kv_bytes[KV_F16] ? f->kv_bytes[KV_F16] : 1) / KV_PAGE * KV_PAGE;
        uint64_t useful = (uint64_t)EMBEDDER_SLOTS * whole_pages(s->context);
        if (kv > useful) kv = useful;
        if (kv > UINT32_MAX / 2) kv = UINT32_MAX / 2 / KV_PAGE * KV_PAGE;
        if (!kv)
            return err_set(e, ERR_USAGE, "inference.kv_memory_mib: %llu MiB hold no %u positions of this model",
                           (unsigned long long)(o->kv_bytes >> 20), KV_PAGE);
        s->kv_free = so.kv_positions = (uint32_t)kv;
        if (s->context > kv) s->context = (uint32_t)kv;
    }
    so.n_ctx = s->context;
    so.max_step_tokens = steps;
    return session_new(&s->sess, s->m, &so, e);
}

static void find_metrics(embedder *s) {
    s->m_queue = metric_get(METRIC_GAUGE, "polder_embedding_requests", NULL,
                            "Requests for vectors or scores that wait or are computed.");
    s->m_running = metric_get(METRIC_GAUGE, "polder_running_sequences", NULL, "Sequences that are being generated.");
    s->m_steps = metric_get(METRIC_COUNTER, "polder_engine_steps_total", NULL, "Steps of the engine.");
    s->m_step_tokens = metric_get(METRIC_COUNTER, "polder_engine_tokens_total", NULL,
                                  "Tokens that went through the engine, prompts and answers.");
    s->m_inputs = metric_get(METRIC_COUNTER, "polder_embedded_inputs_total", NULL,
                             "Texts that a vector or a score was computed of.");
}

static void release(embedder *s) {
    session_free(s->sess);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->over);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

err_code embedder_new(embedder **out, const model *m, const embedder_options *o, err *e) {
    *out = NULL;
    embedder *s = mem_zalloc(sizeof *s);
    if (!s) return err_nomem(e, "what computes embeddings");
    const model_facts *f = model_get_facts(m);
    s->m = m;
    s->d_model = f->d_model;
    s->encoder = f->encoder;
    s->step_tokens = o->step_tokens > EMBEDDER_SLOTS ? o->step_tokens : EMBEDDER_SLOTS;
    s->max_jobs = o->max_jobs;
    for (uint32_t i = 0; i < EMBEDDER_SLOTS; i++) s->slots[i].seq = -1;
    pthread_mutex_init(&s->lock, NULL);
    cond_init(&s->work);
    cond_init(&s->over);
    find_metrics(s);
    err_code rc = make_session(s, o, e);
    int failed = rc ? 0 : pthread_create(&s->thread, NULL, embed_thread, s);
    if (failed) rc = err_set(e, ERR_UNAVAILABLE, "the engine thread could not be started: %s", strerror(failed));
    if (rc)
        release(s);
    else
        *out = s;
    return rc;
}

void embedder_free(embedder *s) {
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    release(s);
}

uint32_t embedder_context(const embedder *s) {
    return s->context;
}

/* ---- jobs -------------------------------------------------------------------------------------------------- */

err_code embed_job_new(embed_job **out, embedder *s, const embed_seq *seqs, uint32_t n, err *e) {
    *out = NULL;
    for (uint32_t i = 0; i < n; i++)
        if (!seqs[i].n || seqs[i].n > s->context)
            return err_set(e, ERR_TOO_LONG, "input %u: %u tokens; 1 to %u are taken", i, seqs[i].n, s->context);
    embed_job *j = n ? mem_zalloc(sizeof *j) : NULL;
    if (!j) return n ? err_nomem(e, "embeddings") : err_set(e, ERR_INVALID, "there is no input");
    *j = (embed_job){.s = s, .seqs = seqs, .n = n};
    pthread_mutex_lock(&s->lock);
    bool room = s->n_places < s->max_jobs;
    uint32_t waiting = s->n_places;
    s->n_places += room;
    pthread_mutex_unlock(&s->lock);
    if (!room) {
        mem_free(j);
        return err_set(e, ERR_BUSY, "the queue is full: %u requests wait already; try again later", waiting);
    }
    metric_add(s->m_queue, 1);
    *out = j;
    return ERR_OK;
}

void embed_job_start(embed_job *j) {
    embedder *s = j->s;
    pthread_mutex_lock(&s->lock);
    j->submitted_ns = time_mono_ns();
    j->state = JOB_QUEUED;
    list_add(s, j);
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
}

bool embed_job_wait(embed_job *j, int64_t timeout_ms) {
    embedder *s = j->s;
    pthread_mutex_lock(&s->lock);
    if (j->state != JOB_OVER) cond_wait_ms(&s->over, &s->lock, timeout_ms);
    bool over = j->state == JOB_OVER;
    pthread_mutex_unlock(&s->lock);
    return over;
}

void embed_job_cancel(embed_job *j) {
    embedder *s = j->s;
    pthread_mutex_lock(&s->lock);
    j->cancelled = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
}

err_code embed_job_result(embed_job *j, err *e) {
    pthread_mutex_lock(&j->s->lock);
    err_code rc = j->state == JOB_OVER ? j->error.code : ERR_INTERNAL;
    if (rc == ERR_CANCELLED)
        err_set(e, rc, "the request was cancelled");
    else if (rc)
        err_set(e, rc, "%s", j->state == JOB_OVER ? j->error.msg : "the job is not over");
    pthread_mutex_unlock(&j->s->lock);
    return rc;
}

float *embed_job_rows(embed_job *j) {
    return j->rows;
}

void embed_job_get_times(const embed_job *j, embed_times *out) {
    *out = (embed_times){0};
    if (!j->submitted_ns || !j->ended_ns) return;
    out->queue = (j->begun_ns ? j->begun_ns : j->ended_ns) - j->submitted_ns;
    out->compute = j->begun_ns ? j->ended_ns - j->begun_ns : 0;
}

void embed_job_free(embed_job *j) {
    if (!j) return;
    embedder *s = j->s;
    pthread_mutex_lock(&s->lock);
    if (j->state == JOB_NEW) {
        s->n_places--;
        metric_add(s->m_queue, -1);
    } else {
        j->cancelled = true;
        pthread_cond_signal(&s->work);
        while (j->state != JOB_OVER) pthread_cond_wait(&s->over, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    if (j->rows) mem_wipe(j->rows, (size_t)j->n * s->d_model * sizeof *j->rows);
    mem_free(j->rows);
    mem_free(j);
}
