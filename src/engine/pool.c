/* Threads that share ranges of one job at a time.
 *
 *   state = job number << 33 | open << 32 | workers inside
 *
 *          caller: publish job, open         worker: sees a new open state, inside + 1 by compare-and-swap
 *   closed ----------------------------> open --------------------------------------> takes ranges, inside - 1
 *      ^                                   |
 *      |   all ranges taken: close, wait   |
 *      +-----------------------------------+   until nobody is inside
 *
 * 1. The fields of the job change only while the state is closed and nobody is inside.
 * 2. A worker that comes late (its core was busy, it slept) finds the state closed and touches nothing: the caller
 *    never waits for a worker that has not begun.
 * 3. Waiting spins for some microseconds and then sleeps, so a busy core costs time, not a standstill. Sleepers
 *    count themselves before they look at the state a last time; who changes the state looks at the count after it:
 *    both sequentially consistent, so no wake-up is lost.
 * 4. A core that somebody else keeps busy makes threads worse than none: whoever shares it stands still for whole
 *    slices of the scheduler, and the others wait at the end of each job. So the caller watches what part of a window
 *    of time it did not run; where n threads give less than n - 1 would, one is parked, and asked again later.
 */
#include "engine/tensor.h"

#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

#define THREADS_MAX 256
#define SPINS       64    /* between two looks at the clock */
#define SPIN_NS     50000 /* what one thread computes between two jobs of a token takes less; waking a sleeper as long */

#define MS        UINT64_C(1000000)
#define WINDOW_NS (10 * MS)  /* several slices of a scheduler */
#define GAP_NS    MS         /* between two jobs: longer, and the caller had nothing to do */
#define PARK_NS   (100 * MS) /* after which a parked thread is asked again, doubled each time that it does not pay */
#define PARK_MAX  (1600 * MS)
#define PAYS      0.1  /* what the last thread must add, of a thread's work */
#define CALM      0.85 /* part of a window that the caller runs when nobody else wants the cores */
#define CALM_MOST 10   /* so many calm windows in a row, and parking begins with PARK_NS again */

#define OPEN      (UINT64_C(1) << 32)
#define JOB_ONE   (UINT64_C(1) << 33)
#define INSIDE(s) ((uint32_t)(s))

/* What of a job belongs to one thread, [next, end), on a cache line of its own. */
typedef struct share {
    _Alignas(64) _Atomic size_t next; /* first index that no thread has taken */
    size_t end;
} share;

typedef struct worker {
    pool *p;
    unsigned index;
    pthread_t thread;
} worker;

struct pool {
    _Alignas(64) _Atomic uint64_t state;
    _Alignas(64) pool_fn fn;
    void *ctx;
    size_t grain;
    bool halves;
    unsigned n_shares;
    share *shares; /* one for each thread; of a job the first n_shares count */
    _Atomic bool stop;
    _Atomic unsigned n_asleep; /* workers in wait_job */
    _Atomic bool caller_asleep;
    _Atomic unsigned n_active; /* threads [0, n_active) take part, the others are parked */
    pthread_mutex_t mutex;     /* held only to sleep and to wake */
    pthread_cond_t job, done, unparked;
    unsigned n_threads, n_started;
    worker *workers;
    struct { /* the caller's own */
        uint64_t begin_ns, begin_cpu_ns, last_ns;
        uint64_t parked_ns, park_ns; /* since when, for how long */
        unsigned n_calm;
    } watch;
};

/* What a thread takes next of a share of which `left` is left. */
static size_t next_range(const pool *p, size_t left) {
    size_t n = p->halves ? left / 2 : p->grain;
    if (n < p->grain) n = p->grain;
    return n < left ? n : left;
}

/* First the thread's own share, so that memory is read in the order in which it lies; then what others have left. */
static void take_ranges(pool *p, unsigned thread) {
    for (unsigned i = 0; i < p->n_shares; i++) {
        share *s = &p->shares[(thread + i) % p->n_shares];
        size_t begin = atomic_load_explicit(&s->next, memory_order_relaxed);
        while (begin < s->end) {
            size_t end = begin + next_range(p, s->end - begin);
            if (!atomic_compare_exchange_weak_explicit(&s->next, &begin, end, memory_order_relaxed,
                                                       memory_order_relaxed))
                continue;
            p->fn(p->ctx, begin, end, thread);
            begin = atomic_load_explicit(&s->next, memory_order_relaxed);
        }
    }
}

/* Shares of whole grains, or even ones where ranges are halves. */
static void cut_shares(pool *p, size_t n, size_t grain, bool halves) {
    unsigned n_shares = atomic_load_explicit(&p->n_active, memory_order_relaxed);
    size_t whole = halves ? 1 : grain, size = ((n - 1) / whole / n_shares + 1) * whole;
    p->grain = grain;
    p->halves = halves;
    p->n_shares = n_shares;
    for (unsigned i = 0; i < n_shares; i++) {
        size_t begin = i * size < n ? i * size : n;
        atomic_store_explicit(&p->shares[i].next, begin, memory_order_relaxed);
        p->shares[i].end = n - begin < size ? n : begin + size;
    }
}

static bool is_parked(const worker *w) {
    return w->index >= atomic_load(&w->p->n_active) && !atomic_load(&w->p->stop);
}

static bool is_news(pool *p, uint64_t seen_job) {
    uint64_t s = atomic_load(&p->state);
    return atomic_load(&p->stop) || ((s & OPEN) && s / JOB_ONE != seen_job);
}

typedef struct spinning {
    uint64_t since_ns;
    unsigned n;
} spinning;

/* False when it is time to sleep. */
static bool spin(spinning *s) {
    PAUSE();
    if (++s->n % SPINS) return true;
    uint64_t now = time_mono_ns();
    if (s->since_ns == 0) s->since_ns = now;
    return now - s->since_ns < SPIN_NS;
}

static void wait_job(const worker *w, uint64_t seen_job) {
    pool *p = w->p;
    for (spinning s = {0}; !is_news(p, seen_job) && spin(&s);) continue;
    if (!is_parked(w) && is_news(p, seen_job)) return;
    pthread_mutex_lock(&p->mutex);
    while (is_parked(w) || !is_news(p, seen_job)) {
        if (is_parked(w)) {
            pthread_cond_wait(&p->unparked, &p->mutex);
            continue;
        }
        atomic_fetch_add(&p->n_asleep, 1);
        if (!is_news(p, seen_job)) pthread_cond_wait(&p->job, &p->mutex);
        atomic_fetch_sub(&p->n_asleep, 1);
    }
    pthread_mutex_unlock(&p->mutex);
}

static void leave(pool *p) {
    uint64_t s = atomic_fetch_sub(&p->state, 1) - 1;
    if (INSIDE(s) || (s & OPEN) || !atomic_load(&p->caller_asleep)) return;
    pthread_mutex_lock(&p->mutex);
    pthread_cond_signal(&p->done);
    pthread_mutex_unlock(&p->mutex);
}

static void *work(void *arg) {
    worker *w = arg;
    pool *p = w->p;
    uint64_t seen_job = 0;
    for (;;) {
        wait_job(w, seen_job);
        if (atomic_load(&p->stop)) return NULL;
        uint64_t s = atomic_load(&p->state);
        while (s & OPEN) {
            if (!atomic_compare_exchange_weak(&p->state, &s, s + 1)) continue;
            seen_job = s / JOB_ONE;
            take_ranges(p, w->index);
            leave(p);
            break;
        }
    }
}

static void wait_done(pool *p) {
    for (spinning s = {0}; INSIDE(atomic_load(&p->state)) && spin(&s);) continue;
    if (!INSIDE(atomic_load(&p->state))) return;
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->caller_asleep, true);
    while (INSIDE(atomic_load(&p->state))) pthread_cond_wait(&p->done, &p->mutex);
    atomic_store(&p->caller_asleep, false);
    pthread_mutex_unlock(&p->mutex);
}

/* ---- busy cores ------------------------------------------------------------------------------------------- */

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

static void set_active(pool *p, unsigned n) {
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->n_active, n);
    pthread_cond_broadcast(&p->unparked);
    pthread_mutex_unlock(&p->mutex);
}

static void watch_from(pool *p, uint64_t now) {
    p->watch.begin_ns = now;
    p->watch.begin_cpu_ns = cpu_ns();
}

/* Before a job: a gap ends the window; a parked thread is asked again when its time is over. */
static void watch_begin(pool *p) {
    uint64_t now = time_mono_ns();
    unsigned n = atomic_load_explicit(&p->n_active, memory_order_relaxed);
    if (n < p->n_threads && now - p->watch.parked_ns >= p->watch.park_ns) {
        set_active(p, n + 1);
        p->watch.parked_ns = now; /* for the next one, where several are parked */
        watch_from(p, now);
    } else if (now - p->watch.last_ns > GAP_NS) {
        watch_from(p, now);
    }
}

/* With many threads the little that the caller waits for the last of them anyway, where shares are uneven, is more than
 * one of them adds; a core that somebody else wants takes half of its slices, from all. */
bool pool_pays(unsigned n, double part) {
    return part >= CALM || part * n >= n - 1 + PAYS;
}

/* After a job: at the end of a window see whether the last thread pays. */
static void watch_end(pool *p) {
    uint64_t now = p->watch.last_ns = time_mono_ns(), wall = now - p->watch.begin_ns;
    if (wall < WINDOW_NS) return;
    unsigned n = atomic_load_explicit(&p->n_active, memory_order_relaxed);
    uint64_t ran = cpu_ns() - p->watch.begin_cpu_ns;
    watch_from(p, now);
    if (n == 1) return;
    double part = (double)ran / (double)wall;
    p->watch.n_calm = part < CALM || n < p->n_threads ? 0 : p->watch.n_calm + 1;
    if (pool_pays(n, part)) { /* if only for a while: no reason to ask more often */
        if (p->watch.n_calm >= CALM_MOST) p->watch.park_ns = PARK_NS / 2;
        return;
    }
    set_active(p, n - 1);
    p->watch.parked_ns = now;
    p->watch.park_ns = p->watch.park_ns * 2 < PARK_MAX ? p->watch.park_ns * 2 : PARK_MAX;
}

static void run_alone(size_t n, size_t grain, pool_fn fn, void *ctx) {
    for (size_t i = 0; i < n; i += grain) fn(ctx, i, n - i < grain ? n : i + grain, 0);
}

static void run_shared(pool *p, size_t n, size_t grain, bool halves, pool_fn fn, void *ctx) {
    p->fn = fn;
    p->ctx = ctx;
    cut_shares(p, n, grain, halves);
    uint64_t job = atomic_load(&p->state) / JOB_ONE + 1;
    atomic_store(&p->state, job * JOB_ONE | OPEN);
    if (atomic_load(&p->n_asleep)) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_broadcast(&p->job);
        pthread_mutex_unlock(&p->mutex);
    }
    take_ranges(p, 0);
    atomic_fetch_and(&p->state, ~OPEN);
    wait_done(p);
}

static void run(pool *p, size_t n, size_t grain, bool halves, pool_fn fn, void *ctx) {
    size_t alone = halves ? n : grain;
    if (!p || p->n_threads == 1 || n <= grain) {
        run_alone(n, alone, fn, ctx);
        return;
    }
    watch_begin(p);
    if (atomic_load_explicit(&p->n_active, memory_order_relaxed) == 1)
        run_alone(n, alone, fn, ctx);
    else
        run_shared(p, n, grain, halves, fn, ctx);
    watch_end(p);
}

void pool_run(pool *p, size_t n, size_t grain, pool_fn fn, void *ctx) {
    run(p, n, grain ? grain : 1, false, fn, ctx);
}

void pool_run_halves(pool *p, size_t n, size_t grain, pool_fn fn, void *ctx) {
    run(p, n, grain ? grain : 1, true, fn, ctx);
}

unsigned pool_threads(const pool *p) {
    return p ? p->n_threads : 1;
}

/* Signals belong to the threads that the program made for them. */
static err_code start(pool *p, err *e) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = 0;
    for (unsigned i = 1; i < p->n_threads && rc == 0; i++) {
        worker *w = &p->workers[i - 1];
        *w = (worker){.p = p, .index = i};
        rc = pthread_create(&w->thread, NULL, work, w);
        if (rc == 0) p->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0) return ERR_OK;
    errno = rc;
    return err_errno(e, "thread pool: thread %u of %u cannot be started", p->n_started + 2, p->n_threads);
}

err_code pool_new(pool **out, unsigned n_threads, err *e) {
    *out = NULL;
    if (n_threads < 1 || n_threads > THREADS_MAX)
        return err_set(e, ERR_USAGE, "thread pool: %u threads; 1 to %d are possible", n_threads, THREADS_MAX);
    pool *p = mem_alloc_aligned(sizeof *p);
    if (!p) return err_nomem(e, "a thread pool");
    memset(p, 0, sizeof *p);
    p->workers = mem_array(n_threads, sizeof *p->workers);
    p->shares = mem_alloc_aligned(n_threads * sizeof *p->shares);
    if (!p->workers || !p->shares) {
        mem_free_aligned(p->shares);
        mem_free(p->workers);
        mem_free_aligned(p);
        return err_nomem(e, "a thread pool");
    }
    p->n_threads = n_threads;
    atomic_store(&p->n_active, n_threads);
    p->watch.park_ns = PARK_NS / 2;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->job, NULL);
    pthread_cond_init(&p->done, NULL);
    pthread_cond_init(&p->unparked, NULL);
    err_code c = start(p, e);
    if (c) {
        pool_free(p);
        return c;
    }
    *out = p;
    return ERR_OK;
}

void pool_free(pool *p) {
    if (!p) return;
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->job);
    pthread_cond_broadcast(&p->unparked);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->job);
    pthread_cond_destroy(&p->unparked);
    pthread_mutex_destroy(&p->mutex);
    mem_free_aligned(p->shares);
    mem_free(p->workers);
    mem_free_aligned(p);
}
