/* Fibers on loops: what waits lets others run, and every wait ends for its reason. Breaks when a wake is lost (the test
 * does not end), when a wait ends early, or when a value that a call preserves is not kept over a switch. */
#include "base/fiber.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness.h"

#include <poll.h>
#include <sys/socket.h>

static loops *ls;
static err e;

/* Counts those that are done. */
typedef struct gate {
    wake_word word;
    atomic_uint n;
} gate;

/* Words outlive who wakes others with them: no gate goes before the end. */
static gate *new_gate(void) {
    static gate all[16];
    static size_t n;
    return &all[n++];
}

static void done(gate *g) {
    atomic_fetch_add(&g->n, 1);
    wake_all(&g->word);
}

static void wait_until(gate *g, unsigned n) {
    for (;;) {
        uint32_t seen = wake_look(&g->word);
        if (atomic_load(&g->n) >= n) return;
        wake_wait(&g->word, seen);
    }
}

/* ---- a fiber alone ----------------------------------------------------------------------------------------- */

typedef struct steps {
    fiber *f;
    int n;
    double sum;
} steps;

static void three_steps(void *arg) {
    steps *s = arg;
    /* kept in registers that a call preserves, or on this stack, over every switch */
    int a = s->n + 1, b = a + 1, c = b + 1, d = c + 1, k = d + 1;
    double x = 0.5;
    for (int i = 0; i < 3; i++) {
        s->n = a + b + c + d + k + i;
        s->sum += x;
        fiber_leave(s->f);
        a += i, b -= i, c += 2 * i, d -= 2 * i, k++;
        x *= 2;
    }
}

TEST(a_fiber_goes_on_where_it_left) {
    steps s = {.n = 0};
    s.f = fiber_new(65536, three_steps, &s);
    CHECK(s.f != NULL);
    static const int want[] = {15, 17, 19};
    for (int i = 0; i < 3; i++) {
        CHECK(!fiber_enter(s.f));
        CHECK_INT(s.n, want[i]);
    }
    CHECK(fiber_enter(s.f));
    CHECK(s.sum == 3.5);
    fiber_free(s.f);
    fiber_free(NULL);
}

TEST(one_that_was_never_entered_is_freed) {
    fiber_free(fiber_new(1, three_steps, NULL));
}

/* ---- waits ------------------------------------------------------------------------------------------------- */

typedef struct talker {
    int fd;
    gate *over;
    int got;
} talker;

/* Gives back every byte. */
static void echo(void *arg) {
    talker *t = arg;
    char c;
    for (;;) {
        int got = wait_fd(t->fd, POLLIN, 10000);
        if (got <= 0 || recv(t->fd, &c, 1, MSG_DONTWAIT) != 1 || send(t->fd, &c, 1, MSG_NOSIGNAL) != 1) break;
        t->got++;
    }
    done(t->over);
}

#define TALKERS 200

TEST(many_fibers_on_few_threads_talk) {
    static talker t[TALKERS];
    static int mine[TALKERS];
    gate *over = new_gate();
    for (int i = 0; i < TALKERS; i++) {
        int fd[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
        mine[i] = fd[0];
        t[i] = (talker){.fd = fd[1], .over = over};
        CHECK_OK(loops_spawn(ls, echo, &t[i], &e), e);
    }
    for (int round = 0; round < 20; round++) {
        char c = (char)('a' + round), back;
        for (int i = 0; i < TALKERS; i++) CHECK(send(mine[i], &c, 1, 0) == 1);
        for (int i = 0; i < TALKERS; i++) CHECK(recv(mine[i], &back, 1, 0) == 1 && back == c);
    }
    for (int i = 0; i < TALKERS; i++) close(mine[i]);
    wait_until(over, TALKERS);
    for (int i = 0; i < TALKERS; i++) {
        CHECK_INT(t[i].got, 20);
        close(t[i].fd);
    }
}

typedef struct timed {
    int fd;
    gate *over;
    int got[3];
    uint64_t took_ms[3];
} timed;

static uint64_t since_ms(uint64_t from) {
    return (time_mono_ns() - from) / 1000000u;
}

static void wait_in_vain(void *arg) {
    timed *t = arg;
    for (int i = 0; i < 2; i++) { /* twice: the descriptor was given up, and is asked for again */
        uint64_t from = time_mono_ns();
        t->got[i] = wait_fd(t->fd, POLLIN, 60);
        t->took_ms[i] = since_ms(from);
    }
    uint64_t from = time_mono_ns();
    wait_ms(30);
    t->took_ms[2] = since_ms(from);
    done(t->over);
    t->got[2] = wait_fd(t->fd, POLLIN, 10000);
    done(t->over);
}

TEST(waits_end_when_their_time_is_over) {
    gate *over = new_gate();
    int fd[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
    timed t = {.fd = fd[1], .over = over};
    CHECK_OK(loops_spawn(ls, wait_in_vain, &t, &e), e);
    wait_until(over, 1);
    CHECK(send(fd[0], "x", 1, 0) == 1);
    wait_until(over, 2);
    CHECK(t.got[0] == 0 && t.got[1] == 0 && t.got[2] & POLLIN);
    CHECK(t.took_ms[0] >= 60 && t.took_ms[1] >= 60 && t.took_ms[2] >= 30);
    close(fd[0]);
    close(fd[1]);
}

typedef struct pair {
    gate ping, pong;
    unsigned rounds;
    gate *over;
} pair;

static void play(void *arg) {
    pair *p = arg;
    for (unsigned i = 1; i <= p->rounds; i++) {
        wait_until(&p->ping, i);
        done(&p->pong);
    }
    done(p->over);
}

/* Fibers of both loops and a thread, each waiting for the other: a lost wake stops the game. */
TEST(words_wake_fibers_and_threads) {
    enum { PAIRS = 8, ROUNDS = 2000 };
    static pair p[PAIRS];
    gate *over = new_gate();
    for (int k = 0; k < PAIRS; k++) {
        p[k] = (pair){.rounds = ROUNDS, .over = over};
        CHECK_OK(loops_spawn(ls, play, &p[k], &e), e);
    }
    for (unsigned i = 1; i <= ROUNDS; i++) {
        for (int k = 0; k < PAIRS; k++) done(&p[k].ping);
        for (int k = 0; k < PAIRS; k++) wait_until(&p[k].pong, i);
    }
    wait_until(over, PAIRS);
}

/* ---- away -------------------------------------------------------------------------------------------------- */

typedef struct errand {
    gate *over, *held;
    bool was_on_fiber, away_on_fiber, back_on_fiber;
} errand;

static void hold(void *arg) {
    errand *x = arg;
    x->away_on_fiber = on_fiber();
    wait_until(x->held, 1); /* as a thread does, until somebody on a loop lets it go */
}

static void send_away(void *arg) {
    errand *x = arg;
    x->was_on_fiber = on_fiber();
    away(hold, x);
    x->back_on_fiber = on_fiber();
    done(x->over);
}

static void let_go(void *arg) {
    done(arg);
}

#define ERRANDS 20

TEST(what_blocks_is_done_away) {
    static errand x[ERRANDS];
    gate *over = new_gate(), *held = new_gate();
    for (int i = 0; i < ERRANDS; i++) {
        x[i] = (errand){.over = over, .held = held};
        CHECK_OK(loops_spawn(ls, send_away, &x[i], &e), e);
    }
    for (int k = 0; k < 2; k++) CHECK_OK(loops_spawn(ls, let_go, held, &e), e); /* none of the loops stands still */
    wait_until(over, ERRANDS);
    for (int i = 0; i < ERRANDS; i++) CHECK(x[i].was_on_fiber && !x[i].away_on_fiber && x[i].back_on_fiber);
    errand here = {.over = over, .held = held};
    send_away(&here); /* on a thread it is a call */
    CHECK(!here.was_on_fiber && !here.back_on_fiber);
}

TEST(what_cannot_be_had_is_said) {
    loops *none = NULL;
    for (int64_t n = 0; n < 3; n++) {
        mem_fail_after(n);
        err_code rc = loops_start(&none, 2, 65536, &e);
        mem_fail_after(-1);
        if (rc == ERR_OK) loops_stop(none);
        CHECK(n < 2 ? rc == ERR_NOMEM && !none : rc == ERR_OK);
    }
    for (int64_t n = 0; n < 2; n++) {
        gate *g = new_gate();
        mem_fail_after(n);
        CHECK_INT(loops_spawn(ls, let_go, g, &e), ERR_NOMEM);
        mem_fail_after(-1);
    }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    if (loops_start(&ls, 2, 262144, &e) != ERR_OK) {
        fprintf(stderr, "no loops: %s\n", e.msg);
        return 1;
    }
    RUN(a_fiber_goes_on_where_it_left);
    RUN(one_that_was_never_entered_is_freed);
    RUN(many_fibers_on_few_threads_talk);
    RUN(waits_end_when_their_time_is_over);
    RUN(words_wake_fibers_and_threads);
    RUN(what_blocks_is_done_away);
    RUN(what_cannot_be_had_is_said);
    loops_stop(ls);
    loops_stop(NULL);
    return test_end();
}
