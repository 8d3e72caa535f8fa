/* Connections that do not come to a request.
 *
 * libmicrohttpd closes a connection on which nothing moves; one that sends a byte now and then it keeps. So every
 * connection has a seat here, and one that has not brought a whole request head within the idle time of being opened,
 * or of its last reply, is shut down. Bodies have their own clock (http.c), answers end by themselves. */
#include "server/internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <malloc.h>
#include <sys/socket.h>

#define TRIM_FROM     64 /* connections at once */
#define TRIM_AFTER_MS 50

struct seat {
    seat *prev, *next;
    int fd;
    uint64_t since_ns; /* when it began to wait for a request */
    bool busy;
};

struct watch {
    unsigned n, most; /* seats, and how many there were since memory was last given back; under lock */
    bool trim;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    uint64_t limit_ns;
    seat *first;       /* under lock, as all seats */
    uint64_t wakes_ns; /* when the thread looks next; UINT64_MAX: when it is told */
    bool stop;
};

/* Shuts down what is overdue, and sets wakes_ns; how long that is in ms, -1 where no connection waits. The lock is
 * held: a seat is taken out under it before its socket is closed. */
static int64_t sweep(watch *w) {
    uint64_t now = time_mono_ns(), next = UINT64_MAX;
    for (seat *s = w->first; s; s = s->next) {
        if (s->busy) continue;
        uint64_t due = s->since_ns + w->limit_ns;
        if (due <= now) {
            (void)shutdown(s->fd, SHUT_RDWR);
            s->busy = true; /* done with it: its thread sees the end */
        } else if (due < next) {
            next = due;
        }
    }
    w->wakes_ns = next;
    return next == UINT64_MAX ? -1 : (int64_t)((next - now) / 1000000u) + 1;
}

/* A seat waits from now on. Under load that is so for every reply, and nearly always the thread will look early enough:
 * a wake for each of them costs two switches of context and a lock that all want. */
static void wait_begins(watch *w, seat *s) {
    s->since_ns = time_mono_ns();
    if (s->since_ns + w->limit_ns >= w->wakes_ns) return;
    w->wakes_ns = s->since_ns + w->limit_ns;
    pthread_cond_signal(&w->changed);
}

/* A connection is a thread, and what hundreds of them took and gave back lies in pieces that the allocator keeps. When
 * most have gone, whole pages go back to the system. The lock is held, and let go meanwhile. */
static void trim(watch *w) {
    (void)cond_wait_ms(&w->changed, &w->lock, TRIM_AFTER_MS); /* so that those who go together have gone */
    w->trim = false;
    pthread_mutex_unlock(&w->lock);
    (void)malloc_trim(0);
    pthread_mutex_lock(&w->lock);
}

static void *watch_run(void *arg) {
    watch *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        if (w->trim) trim(w);
        int64_t ms = sweep(w);
        if (ms < 0)
            pthread_cond_wait(&w->changed, &w->lock);
        else
            cond_wait_ms(&w->changed, &w->lock, ms);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

err_code watch_start(watch **out, int64_t limit_ms, err *e) {
    watch *w = mem_zalloc(sizeof *w);
    if (!w) return err_nomem(e, "the server");
    w->limit_ns = (uint64_t)limit_ms * 1000000u;
    pthread_mutex_init(&w->lock, NULL);
    cond_init(&w->changed);
    pthread_attr_t at;
    pthread_attr_init(&at);
    pthread_attr_setstacksize(&at, 65536);
    int rc = pthread_create(&w->thread, &at, watch_run, w);
    pthread_attr_destroy(&at);
    if (rc != 0) {
        pthread_cond_destroy(&w->changed);
        pthread_mutex_destroy(&w->lock);
        mem_free(w);
        return err_set(e, ERR_IO, "the server: a thread could not be started");
    }
    *out = w;
    return ERR_OK;
}

void watch_stop(watch *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    mem_free(w);
}

seat *watch_enter(watch *w, int fd) {
    seat *s = mem_zalloc(sizeof *s);
    if (!s) return NULL;
    s->fd = fd;
    pthread_mutex_lock(&w->lock);
    s->next = w->first;
    if (s->next) s->next->prev = s;
    w->first = s;
    if (++w->n > w->most) w->most = w->n;
    wait_begins(w, s);
    pthread_mutex_unlock(&w->lock);
    return s;
}

void watch_busy(watch *w, seat *s, bool busy) {
    if (!s) return;
    pthread_mutex_lock(&w->lock);
    s->busy = busy;
    if (!busy) wait_begins(w, s);
    pthread_mutex_unlock(&w->lock);
}

void watch_leave(watch *w, seat *s) {
    if (!s) return;
    pthread_mutex_lock(&w->lock);
    if (s->prev)
        s->prev->next = s->next;
    else
        w->first = s->next;
    if (s->next) s->next->prev = s->prev;
    if (--w->n <= w->most / 4 && w->most >= TRIM_FROM) {
        w->most = w->n;
        w->trim = true;
        pthread_cond_signal(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    mem_free(s);
}
