/* A streamed answer: the pipeline runs on a thread of its own and writes into a bounded queue of bytes that
 * another thread sends for the connection (http.c).
 *
 * That one waits on the queue and looks at the socket every 100 ms: a client that hangs up while nothing
 * is being sent is noticed too. The writer waits where the queue is full, and gives up when the client has read nothing
 * for the configured idle time. */
#include "server/internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <string.h>

struct stream {
    exchange *x;
    pthread_t thread;
    bool has_thread;
    int64_t stall_ms;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under lock */
    buf queue;
    size_t taken;       /* bytes of queue that have been sent */
    uint64_t looked_ns; /* when the socket was looked at */
    bool admitted, done, cancelled;
    err result;
};

static void on_admitted(void *ctx, const answer *a) {
    stream *st = ctx;
    pthread_mutex_lock(&st->lock);
    st->admitted = true;
    pthread_cond_broadcast(&st->changed);
    pthread_mutex_unlock(&st->lock);
}

/* Space for n more bytes, or false: cancelled, or the client has not read that much within the idle time. One event may
 * be larger than the queue's bound; it then waits for an empty queue. */
static bool wait_for_space(stream *st, size_t n) {
    uint64_t since = time_mono_ns();
    while (!st->cancelled) {
        size_t held = st->queue.len - st->taken;
        if (held == 0 || held + n <= STREAM_QUEUE_BYTES) return true;
        if (time_mono_ns() - since > (uint64_t)st->stall_ms * 1000000u) return false;
        cond_wait_ms(&st->changed, &st->lock, HANGUP_POLL_MS);
    }
    return false;
}

/* Bytes that were sent leave the queue, seldom enough that moving the rest costs little. */
static void drop_taken(stream *st) {
    if (st->taken < st->queue.len && st->taken < STREAM_QUEUE_BYTES / 2) return;
    size_t held = st->queue.len - st->taken;
    if (held) memmove(st->queue.ptr, st->queue.ptr + st->taken, held);
    st->queue.len = held;
    st->taken = 0;
}

static err_code on_write(void *ctx, const char *p, size_t n) {
    stream *st = ctx;
    err_code rc = ERR_OK;
    pthread_mutex_lock(&st->lock);
    if (!wait_for_space(st, n)) rc = ERR_CANCELLED;
    if (rc == ERR_OK) {
        drop_taken(st);
        buf_append(&st->queue, p, n);
        if (st->queue.failed) rc = ERR_NOMEM;
        pthread_cond_broadcast(&st->changed);
    }
    pthread_mutex_unlock(&st->lock);
    return rc;
}

static bool on_gone(void *ctx) {
    stream *st = ctx;
    pthread_mutex_lock(&st->lock);
    bool gone = st->cancelled;
    pthread_mutex_unlock(&st->lock);
    return gone;
}

/* After the headers are out a failure can only be an event of the stream, which then ends without its closing mark. */
static void write_failure(stream *st, err *e) {
    buf b;
    reply_outward(st->x, e);
    buf_init(&b, st->x->answer->d->broken ? 2 * ANSWER_BYTES_MAX : 16384);
    answer *a = st->x->answer;
    if (a->d->broken)
        a->d->broken(a, e, reply_status(st->x, e->code), &b);
    else
        a->d->fail(e, reply_status(st->x, e->code), NULL, true, &b);
    if (!b.failed && b.len) (void)on_write(st, b.ptr, b.len);
    buf_free(&b);
}

static void *run(void *arg) {
    stream *st = arg;
    err e = {.code = ERR_OK};
    answer_sink sink = {.ctx = st, .admitted = on_admitted, .write = on_write, .gone = on_gone};
    err_code rc = answer_run(st->x->answer, st->x->s->inf, &sink, &e);
    if (rc != ERR_OK && e.code == ERR_OK) err_set(&e, rc, "the answer was given up: %s", err_name(rc));
    if (rc != ERR_OK && st->x->answer->admitted) write_failure(st, &e);
    pthread_mutex_lock(&st->lock);
    st->result = e;
    st->done = true;
    pthread_cond_broadcast(&st->changed);
    pthread_mutex_unlock(&st->lock);
    return NULL;
}

static err_code start_thread(stream *st, err *e) {
    pthread_attr_t at;
    if (pthread_attr_init(&at) != 0) return err_nomem(e, "a thread");
    pthread_attr_setstacksize(&at, CONNECTION_STACK);
    int rc = pthread_create(&st->thread, &at, run, st);
    pthread_attr_destroy(&at);
    if (rc != 0) return err_set(e, ERR_BUSY, "stream: no thread could be started for it: %s", strerror(rc));
    st->has_thread = true;
    return ERR_OK;
}

err_code stream_start(exchange *x, err *e) {
    stream *st = mem_zalloc(sizeof *st);
    if (!st) return err_nomem(e, "a stream");
    st->x = x;
    st->stall_ms = island_get_config(x->s->isl)->server_idle_timeout_s * 1000;
    pthread_mutex_init(&st->lock, NULL);
    cond_init(&st->changed);
    buf_init(&st->queue, ANSWER_BYTES_MAX + STREAM_QUEUE_BYTES);
    x->stream = st;
    err_code rc = start_thread(st, e);
    if (rc != ERR_OK) return rc;
    pthread_mutex_lock(&st->lock);
    while (!st->admitted && !st->done) {
        cond_wait_ms(&st->changed, &st->lock, HANGUP_POLL_MS);
        if (!st->cancelled && exchange_gone(x)) st->cancelled = true;
    }
    if (!st->admitted) {
        rc = st->result.code;
        if (e) *e = st->result;
    }
    pthread_mutex_unlock(&st->lock);
    return rc;
}

/* Ten times a second, whether events come or not: a client that has half-closed still takes what is sent. */
static void look_at_socket(stream *st) {
    uint64_t now = time_mono_ns();
    if (now - st->looked_ns < HANGUP_POLL_MS * 1000000u) return;
    st->looked_ns = now;
    if (exchange_gone(st->x)) st->cancelled = true;
}

long stream_read(stream *st, char *p, size_t max) {
    long n = 0;
    pthread_mutex_lock(&st->lock);
    look_at_socket(st);
    while (st->taken == st->queue.len && !st->done && !st->cancelled) {
        cond_wait_ms(&st->changed, &st->lock, HANGUP_POLL_MS);
        look_at_socket(st);
    }
    size_t held = st->queue.len - st->taken;
    if (st->cancelled)
        n = -1;
    else if (held) {
        n = (long)(held < max ? held : max);
        memcpy(p, st->queue.ptr + st->taken, (size_t)n);
        st->taken += (size_t)n;
    }
    pthread_cond_broadcast(&st->changed);
    pthread_mutex_unlock(&st->lock);
    return n;
}

void stream_free(stream *st) {
    if (!st) return;
    pthread_mutex_lock(&st->lock);
    st->cancelled = true;
    pthread_cond_broadcast(&st->changed);
    pthread_mutex_unlock(&st->lock);
    if (st->has_thread) pthread_join(st->thread, NULL);
    buf_free(&st->queue);
    pthread_cond_destroy(&st->changed);
    pthread_mutex_destroy(&st->lock);
    mem_free(st);
}
