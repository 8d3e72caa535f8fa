#include "base/loop.h"

#include "base/fiber.h"
#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LOOPS_MAX    64
#define EVENTS       64
#define CREW_IDLE_MS 2000 /* after which a thread that nobody needs ends */
#define FALLBACK_MS  20

typedef struct loop loop;

typedef enum wait_kind { WAIT_NOTHING, WAIT_FD, WAIT_TIME, WAIT_WORD, WAIT_AWAY } wait_kind;

typedef struct task {
    fiber *f;
    loop *l;
    struct task *prev, *next; /* in the loop's list of all */
    struct task *then;        /* in a list of those that are ready, handed over, or wait for a word */
    wait_kind waits;
    int fd, got;
    uint64_t due_ns; /* 0: no end */
    wake_word *word;
    uint32_t seen;
    void (*fn)(void *); /* what is to be done away, or how it began */
    void *arg;
} task;

struct loop {
    loops *set;
    pthread_t thread;
    int epoll, bell; /* what others ring */
    /* its own thread's */
    task *all, *ready, **ready_end;
    task *words;          /* that wait for words */
    uint64_t next_due_ns; /* no wait ends before; UINT64_MAX: none ends by itself */
    uint32_t seen_looks;
    /* everybody's */
    atomic_uint n_tasks, parked, looks;
    atomic_bool asleep;
    pthread_mutex_t lock;
    task *given, **given_end; /* under lock: new, or back from being away */
    atomic_bool has_given;
    bool stop; /* under lock */
};

typedef struct hand { /* one of the crew */
    struct hand *next;
    loops *set;
    pthread_t thread;
} hand;

struct loops {
    unsigned n;
    size_t stack_bytes;
    loop *list;
    /* the crew: threads for what blocks */
    pthread_mutex_t lock;
    pthread_cond_t work, gone;
    task *jobs, **jobs_end;
    unsigned n_jobs, n_idle, n_crew;
    hand *ended; /* to be joined */
    bool stop;
};

static _Thread_local task *self;

/* All loops of the process, for who wakes. */
static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;
static loop *known[LOOPS_MAX];
static atomic_uint n_known;

bool on_fiber(void) {
    return self != NULL;
}

/* ---- from other threads ------------------------------------------------------------------------------------ */

static void ring(loop *l) {
    uint64_t one = 1;
    if (atomic_exchange(&l->asleep, false)) (void)!write(l->bell, &one, sizeof one);
}

static void hand_over(loop *l, task *t) {
    pthread_mutex_lock(&l->lock);
    t->then = NULL;
    *l->given_end = t;
    l->given_end = &t->then;
    atomic_store(&l->has_given, true);
    pthread_mutex_unlock(&l->lock);
    ring(l);
}

void loops_look(void) {
    if (!atomic_load(&n_known)) return;
    pthread_mutex_lock(&known_lock);
    for (unsigned i = 0; i < LOOPS_MAX; i++) {
        loop *l = known[i];
        if (!l || !atomic_load(&l->parked)) continue;
        atomic_fetch_add(&l->looks, 1);
        ring(l);
    }
    pthread_mutex_unlock(&known_lock);
}

/* ---- a fiber's waits --------------------------------------------------------------------------------------- */

static void make_ready(task *t) {
    t->waits = WAIT_NOTHING;
    t->then = NULL;
    *t->l->ready_end = t;
    t->l->ready_end = &t->then;
}

static void leave_for(task *t, wait_kind what, int timeout_ms) {
    t->waits = what;
    t->due_ns = timeout_ms < 0 ? 0 : time_mono_ns() + (uint64_t)timeout_ms * 1000000u;
    if (t->due_ns && t->due_ns < t->l->next_due_ns) t->l->next_due_ns = t->due_ns;
    fiber_leave(t->f);
}

/* One event, and then no more of this descriptor: whoever waits next asks again. */
static bool arm(task *t, int fd, short events) {
    struct epoll_event ev = {.events = (uint32_t)(unsigned short)events | EPOLLONESHOT, .data.ptr = t};
    if (epoll_ctl(t->l->epoll, EPOLL_CTL_MOD, fd, &ev) == 0) return true;
    return errno == ENOENT && epoll_ctl(t->l->epoll, EPOLL_CTL_ADD, fd, &ev) == 0;
}

static int poll_one(int fd, short events, int timeout_ms) {
    struct pollfd p = {.fd = fd, .events = events};
    int n;
    do n = poll(&p, 1, timeout_ms);
    while (n < 0 && errno == EINTR);
    return n > 0 ? p.revents : n;
}

/* Without memory in the kernel: slow, but it goes on, and the loop's others with it. */
static int look_now_and_then(int fd, short events, int timeout_ms) {
    uint64_t until = timeout_ms < 0 ? UINT64_MAX : time_mono_ns() + (uint64_t)timeout_ms * 1000000u;
    for (;;) {
        int got = poll_one(fd, events, 0);
        if (got || time_mono_ns() >= until) return got;
        wait_ms(timeout_ms < 0 || timeout_ms > FALLBACK_MS ? FALLBACK_MS : timeout_ms);
    }
}

int wait_fd(int fd, short events, int timeout_ms) {
    task *t = self;
    if (!t || timeout_ms == 0) return poll_one(fd, events, timeout_ms);
    if (!arm(t, fd, events)) return look_now_and_then(fd, events, timeout_ms);
    t->fd = fd;
    t->got = 0;
    leave_for(t, WAIT_FD, timeout_ms);
    return t->got;
}

void wait_ms(int ms) {
    if (self)
        leave_for(self, WAIT_TIME, ms);
    else
        sleep_ms(ms);
}

bool loop_wait_word(wake_word *w, uint32_t seen) {
    task *t = self;
    if (!t) return false;
    t->word = w;
    t->seen = seen;
    /* counted before the word is read: whoever changes it from now on tells this loop */
    atomic_fetch_add(&t->l->parked, 1);
    if (wake_look(w) == seen) {
        t->then = t->l->words;
        t->l->words = t;
        leave_for(t, WAIT_WORD, -1);
    }
    atomic_fetch_sub(&t->l->parked, 1);
    return true;
}

/* ---- the crew ---------------------------------------------------------------------------------------------- */

static void *crew_main(void *arg) {
    hand *me = arg;
    loops *ls = me->set;
    pthread_mutex_lock(&ls->lock);
    for (;;) {
        task *t = ls->jobs;
        if (!t) {
            if (ls->stop) break;
            ls->n_idle++;
            bool told = cond_wait_ms(&ls->work, &ls->lock, CREW_IDLE_MS);
            ls->n_idle--;
            if (!told && !ls->jobs) break;
            continue;
        }
        ls->jobs = t->then;
        if (!ls->jobs) ls->jobs_end = &ls->jobs;
        ls->n_jobs--;
        pthread_mutex_unlock(&ls->lock);
        t->fn(t->arg);
        hand_over(t->l, t);
        pthread_mutex_lock(&ls->lock);
    }
    ls->n_crew--;
    me->next = ls->ended;
    ls->ended = me;
    pthread_cond_signal(&ls->gone);
    pthread_mutex_unlock(&ls->lock);
    return NULL;
}

static void join_ended(loops *ls) { /* under lock; they need it no more */
    while (ls->ended) {
        hand *h = ls->ended;
        ls->ended = h->next;
        pthread_join(h->thread, NULL);
        mem_free(h);
    }
}

static bool hire(loops *ls) { /* under lock */
    pthread_attr_t at;
    join_ended(ls);
    hand *h = mem_zalloc(sizeof *h);
    if (!h || pthread_attr_init(&at) != 0) {
        mem_free(h);
        return false;
    }
    h->set = ls;
    pthread_attr_setstacksize(&at, ls->stack_bytes);
    bool ok = pthread_create(&h->thread, &at, crew_main, h) == 0;
    pthread_attr_destroy(&at);
    if (ok)
        ls->n_crew++;
    else
        mem_free(h);
    return ok;
}

void away(void (*fn)(void *arg), void *arg) {
    task *t = self;
    if (!t) {
        fn(arg);
        return;
    }
    loops *ls = t->l->set;
    t->fn = fn;
    t->arg = arg;
    t->then = NULL;
    pthread_mutex_lock(&ls->lock);
    bool taken = ls->n_idle > ls->n_jobs || hire(ls) || ls->n_crew;
    if (taken) {
        *ls->jobs_end = t;
        ls->jobs_end = &t->then;
        ls->n_jobs++;
        pthread_cond_signal(&ls->work);
    }
    pthread_mutex_unlock(&ls->lock);
    if (taken)
        leave_for(t, WAIT_AWAY, -1);
    else
        fn(arg); /* no thread can be had: the loop stands still meanwhile */
}

/* ---- a loop ------------------------------------------------------------------------------------------------ */

static void run_task(void *arg) {
    task *t = arg;
    t->fn(t->arg);
}

static void task_over(task *t) {
    loop *l = t->l;
    if (t->prev)
        t->prev->next = t->next;
    else
        l->all = t->next;
    if (t->next) t->next->prev = t->prev;
    atomic_fetch_sub(&l->n_tasks, 1);
    fiber_free(t->f);
    mem_free(t);
}

static void run_ready(loop *l) {
    task *t = l->ready;
    l->ready = NULL;
    l->ready_end = &l->ready;
    for (task *then; t; t = then) {
        then = t->then;
        self = t;
        bool over = fiber_enter(t->f);
        self = NULL;
        if (over) task_over(t);
    }
}

/* What others have handed over. */
static void take_given(loop *l) {
    if (!atomic_load(&l->has_given)) return;
    pthread_mutex_lock(&l->lock);
    task *t = l->given;
    l->given = NULL;
    l->given_end = &l->given;
    atomic_store(&l->has_given, false);
    pthread_mutex_unlock(&l->lock);
    for (task *then; t; t = then) {
        then = t->then;
        if (t->waits != WAIT_AWAY) { /* it is new */
            t->prev = NULL;
            t->next = l->all;
            if (l->all) l->all->prev = t;
            l->all = t;
        }
        make_ready(t);
    }
}

static void look_at_words(loop *l) {
    uint32_t looks = atomic_load(&l->looks);
    if (looks == l->seen_looks) return;
    l->seen_looks = looks;
    task *t = l->words;
    l->words = NULL;
    for (task *then; t; t = then) {
        then = t->then;
        if (wake_look(t->word) != t->seen) {
            make_ready(t);
        } else {
            t->then = l->words;
            l->words = t;
        }
    }
}

/* Ends the waits whose time is over. */
static void look_at_clock(loop *l) {
    if (l->next_due_ns == UINT64_MAX) return;
    uint64_t now = time_mono_ns(), next = UINT64_MAX;
    if (now < l->next_due_ns) return;
    for (task *t = l->all; t; t = t->next) {
        if ((t->waits != WAIT_FD && t->waits != WAIT_TIME) || !t->due_ns) continue;
        if (t->due_ns > now) {
            if (t->due_ns < next) next = t->due_ns;
            continue;
        }
        if (t->waits == WAIT_FD) (void)epoll_ctl(l->epoll, EPOLL_CTL_DEL, t->fd, NULL);
        make_ready(t);
    }
    l->next_due_ns = next;
}

static int sleep_for(loop *l) {
    if (l->ready) return 0;
    if (l->next_due_ns == UINT64_MAX) return -1;
    uint64_t now = time_mono_ns();
    if (l->next_due_ns <= now) return 0;
    uint64_t ms = (l->next_due_ns - now + 999999) / 1000000;
    return ms < 3600000 ? (int)ms : 3600000;
}

static void take_events(loop *l) {
    struct epoll_event ev[EVENTS];
    int ms = sleep_for(l);
    atomic_store(&l->asleep, ms != 0);
    /* whoever has something for this loop rings from now on; what came before is looked for here */
    if (ms && (atomic_load(&l->has_given) || atomic_load(&l->looks) != l->seen_looks)) ms = 0;
    int n = epoll_wait(l->epoll, ev, EVENTS, ms);
    atomic_store(&l->asleep, false);
    for (int i = 0; i < n; i++) {
        task *t = ev[i].data.ptr;
        if (!t) {
            uint64_t count;
            (void)!read(l->bell, &count, sizeof count);
        } else if (t->waits == WAIT_FD) {
            t->got = (int)ev[i].events;
            make_ready(t);
        }
    }
}

static bool may_end(loop *l) {
    if (atomic_load(&l->n_tasks)) return false;
    pthread_mutex_lock(&l->lock);
    bool end = l->stop && !l->given;
    pthread_mutex_unlock(&l->lock);
    return end;
}

static void *loop_main(void *arg) {
    loop *l = arg;
    while (!may_end(l)) {
        take_events(l);
        take_given(l);
        look_at_words(l);
        look_at_clock(l);
        run_ready(l);
    }
    return NULL;
}

/* ---- the set ----------------------------------------------------------------------------------------------- */

static void loop_close(loop *l) {
    if (l->epoll >= 0) close(l->epoll);
    if (l->bell >= 0) close(l->bell);
    pthread_mutex_destroy(&l->lock);
}

static bool loop_open(loop *l, loops *ls) {
    struct epoll_event ev = {.events = EPOLLIN};
    l->set = ls;
    l->ready_end = &l->ready;
    l->given_end = &l->given;
    l->next_due_ns = UINT64_MAX;
    pthread_mutex_init(&l->lock, NULL);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->epoll < 0 || l->bell < 0 || epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->bell, &ev) != 0) return false;
    return pthread_create(&l->thread, NULL, loop_main, l) == 0;
}

/* For loops_look. */
static bool make_known(loop *l) {
    bool found = false;
    pthread_mutex_lock(&known_lock);
    for (unsigned i = 0; i < LOOPS_MAX && !found; i++) {
        if (known[i]) continue;
        known[i] = l;
        atomic_fetch_add(&n_known, 1);
        found = true;
    }
    pthread_mutex_unlock(&known_lock);
    return found;
}

static void forget(const loop *l) {
    pthread_mutex_lock(&known_lock);
    for (unsigned i = 0; i < LOOPS_MAX; i++) {
        if (known[i] != l) continue;
        known[i] = NULL;
        atomic_fetch_sub(&n_known, 1);
    }
    pthread_mutex_unlock(&known_lock);
}

static void loop_stop(loop *l) {
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    atomic_store(&l->has_given, true);
    pthread_mutex_unlock(&l->lock);
    ring(l);
    pthread_join(l->thread, NULL);
    forget(l);
    loop_close(l);
}

err_code loops_start(loops **out, unsigned n, size_t stack_bytes, err *e) {
    loops *ls = *out = mem_zalloc(sizeof *ls);
    if (ls) ls->list = mem_array(n, sizeof *ls->list);
    if (!ls || !ls->list) {
        mem_free(ls);
        *out = NULL;
        return err_nomem(e, "the server's threads");
    }
    ls->stack_bytes = stack_bytes;
    ls->jobs_end = &ls->jobs;
    pthread_mutex_init(&ls->lock, NULL);
    cond_init(&ls->work);
    cond_init(&ls->gone);
    for (; ls->n < n; ls->n++) {
        loop *l = &ls->list[ls->n];
        bool known_now = make_known(l);
        if (known_now && loop_open(l, ls)) continue;
        forget(l);
        if (known_now) loop_close(l);
        loops_stop(ls);
        *out = NULL;
        return err_set(e, ERR_IO, "the server: a thread could not be started: %s", strerror(errno));
    }
    return ERR_OK;
}

err_code loops_spawn(loops *ls, void (*fn)(void *arg), void *arg, err *e) {
    loop *l = &ls->list[0];
    for (unsigned i = 1; i < ls->n; i++)
        if (atomic_load(&ls->list[i].n_tasks) < atomic_load(&l->n_tasks)) l = &ls->list[i];
    task *t = mem_zalloc(sizeof *t);
    if (!t) return err_nomem(e, "a connection");
    t->l = l;
    t->fn = fn;
    t->arg = arg;
    t->f = fiber_new(ls->stack_bytes, run_task, t);
    if (!t->f) {
        mem_free(t);
        return err_nomem(e, "a connection");
    }
    atomic_fetch_add(&l->n_tasks, 1);
    hand_over(l, t);
    return ERR_OK;
}

void loops_stop(loops *ls) {
    if (!ls) return;
    while (ls->n) loop_stop(&ls->list[--ls->n]);
    pthread_mutex_lock(&ls->lock);
    ls->stop = true;
    pthread_cond_broadcast(&ls->work);
    while (ls->n_crew) pthread_cond_wait(&ls->gone, &ls->lock);
    join_ended(ls);
    pthread_mutex_unlock(&ls->lock);
    pthread_cond_destroy(&ls->work);
    pthread_cond_destroy(&ls->gone);
    pthread_mutex_destroy(&ls->lock);
    mem_free(ls->list);
    mem_free(ls);
}
