/* kill -9 under load: a child writes with several threads and reports each acknowledgement through a pipe; the parent
 * kills it at a random moment, opens what is on the disk and looks for every record that was reported. The same ledger
 * lives through all rounds. A reader in the parent looks on while the child writes: what it has seen may not go away.
 *
 * What breaks it: telling a caller before the sync, a recovery that drops or invents, a lock that outlives its owner.
 * Arguments: [rounds] (25). */
#include "audit/audit.h"
#include "base/sys.h"
#include "tests/harness.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

enum { THREADS = 4 };

static int rounds = 25;

typedef struct ack { /* one write of at most PIPE_BUF bytes is atomic */
    uint64_t seq, tag;
} ack;

typedef struct writer {
    ledger *l;
    int fd;
    uint64_t tag; /* unique over all rounds and threads */
} writer;

static void *write_for_ever(void *arg) {
    writer *w = arg;
    char text[700];
    memset(text, 'x', sizeof text);
    for (uint64_t i = 0;; i++) {
        record *r = NULL;
        err e;
        ack a = {.tag = w->tag + i};
        char tag[32];
        snprintf(tag, sizeof tag, "%llu", (unsigned long long)a.tag);
        if (record_new(&r, "load", &e) != ERR_OK || !cJSON_AddStringToObject(record_body(r), "tag", tag)) _exit(9);
        if (i % 3 == 0 && record_content(r, "prompt", text, (size_t)(a.tag % sizeof text), &e) != ERR_OK) _exit(9);
        if (ledger_append(w->l, r, &a.seq, &e) != ERR_OK) {
            fprintf(stderr, "append: %s\n", e.msg);
            _exit(8);
        }
        record_free(r);
        if (write(w->fd, &a, sizeof a) != sizeof a) _exit(7);
    }
    return NULL;
}

static void child(const char *dir, int fd, int round) {
    ledger *l = NULL;
    err e;
    ledger_options o = {.segment_bytes = 256 << 10};
    if (ledger_open(&l, dir, &o, NULL, &e) != ERR_OK) {
        fprintf(stderr, "the child cannot open: %s\n", e.msg);
        _exit(6);
    }
    pthread_t t;
    static writer w[THREADS];
    for (int i = 0; i < THREADS; i++) {
        w[i] = (writer){l, fd, ((uint64_t)round << 40) + ((uint64_t)i << 32)};
        pthread_create(&t, NULL, write_for_ever, &w[i]);
    }
    for (;;) pause();
}

static uint64_t total, tags_cap;
static uint64_t *tags; /* by seq; 0: not acknowledged */

static void remember(ack a) {
    if (a.seq >= tags_cap) {
        uint64_t cap = a.seq * 2 + 1024;
        tags = realloc(tags, cap * sizeof *tags);
        if (!tags) abort();
        memset(tags + tags_cap, 0, (cap - tags_cap) * sizeof *tags);
        tags_cap = cap;
    }
    tags[a.seq] = a.tag + 1;
    total++;
}

static bool record_there(ledger *l, uint64_t seq, uint64_t tag, err *e) {
    buf b = {.max = LEDGER_ENTRY_MAX}, c = {.max = 4096};
    char want[64];
    snprintf(want, sizeof want, "\"tag\":\"%llu\"", (unsigned long long)tag);
    err_code rc = ledger_read(l, seq, &b, e);
    bool ok = rc == ERR_OK && strstr(buf_str(&b), want);
    if (rc == ERR_OK && !ok) err_set(e, ERR_CORRUPT, "record %llu is %s", (unsigned long long)seq, buf_str(&b));
    if (ok && strstr(buf_str(&b), "\"content\"")) ok = ledger_content(l, seq, "prompt", &c, e) == ERR_OK;
    buf_free(&b);
    buf_free(&c);
    return ok;
}

/* A reader beside the writer. */
static bool look_on(ledger **ro, const char *dir, const ledger_options *o, err *e) {
    err_code rc = *ro ? ledger_refresh(*ro, e) : ledger_open(ro, dir, o, NULL, e);
    if (rc != ERR_OK) fprintf(stderr, "the reader beside the writer: %s\n", e->msg);
    return rc == ERR_OK;
}

/* One life of the child. The size that a reader beside it saw last goes to *watched. */
static bool one_round(const char *dir, int round, unsigned *seed, uint64_t *watched) {
    int fd[2];
    if (pipe(fd) != 0) return false;
    pid_t pid = fork();
    if (pid < 0) return false;
    if (pid == 0) {
        close(fd[0]);
        child(dir, fd[1], round);
    }
    close(fd[1]);
    ledger *ro = NULL;
    err e;
    ledger_options o = {.read_only = true};
    /* most rounds end under load, a random while after the first acknowledgement; every fifth anywhere from the start
     */
    uint64_t t0 = time_mono_ns(), delay = (uint64_t)(rand_r(seed) % 40000) * 1000, stop = t0 + 10000000000u;
    if (round % 5 == 0) stop = t0 + delay;
    bool ok = true, killed = false, first = true;
    while (ok) {
        struct pollfd p = {.fd = fd[0], .events = POLLIN};
        poll(&p, 1, killed ? -1 : 1);
        if (!killed && time_mono_ns() > stop) {
            kill(pid, SIGKILL);
            killed = true;
        }
        if (!killed) ok = look_on(&ro, dir, &o, &e);
        if (!(p.revents & (POLLIN | POLLHUP))) continue;
        /* the pipe holds what was acknowledged before the kill too: it is read to its end */
        ack a;
        ssize_t n = read(fd[0], &a, sizeof a);
        if (n == 0) break;
        if (n != sizeof a) ok = false;
        if (n == sizeof a) remember(a);
        if (first && stop > time_mono_ns() + delay) stop = time_mono_ns() + delay;
        first = false;
    }
    if (!killed) kill(pid, SIGKILL);
    int status = 0;
    waitpid(pid, &status, 0);
    if (!WIFSIGNALED(status)) ok = false; /* it ended by itself: it says why on stderr */
    close(fd[0]);
    if (ro) *watched = ledger_size(ro);
    ledger_close(ro);
    return ok;
}

TEST(kill_9_loses_no_acknowledged_record) {
    char dir[256];
    err e;
    CHECK(test_tmpdir(dir));
    CHECK_OK(ledger_create(dir, "polder.test/kill9", NULL, &e), e);
    unsigned seed = (unsigned)getpid();
    uint64_t dropped = 0, checked = 0;
    for (int round = 1; round <= rounds; round++) {
        uint64_t watched = 0;
        CHECK(one_round(dir, round, &seed, &watched));
        ledger *l = NULL;
        ledger_report rep;
        CHECK_OK(ledger_open(&l, dir, NULL, &rep, &e), e);
        if (rep.dropped_bytes) dropped++;
        CHECK(ledger_size(l) >= watched);
        uint64_t size = ledger_size(l), from = checked;
        for (uint64_t s = 0; s < tags_cap; s++)
            if (tags[s] && s >= size)
                FAIL("round %d: record %llu was acknowledged and is gone", round, (unsigned long long)s);
        for (uint64_t s = from; s < size && s < tags_cap; s++)
            if (tags[s] && !record_there(l, s, tags[s] - 1, &e)) FAIL("round %d: %s", round, e.msg);
        checked = size;
        ledger_close(l);
    }
    verify_report r;
    err_code rc = audit_verify_island(dir, true, NULL, &r, &e);
    if (rc != ERR_OK) FAIL("%s\n%s", e.msg, buf_str(&r.text));
    printf("%d rounds, %llu records acknowledged, %llu unfinished groups dropped, %llu contents\n", rounds,
           (unsigned long long)total, (unsigned long long)dropped, (unsigned long long)r.contents);
    CHECK(total > (uint64_t)rounds);
    buf_free(&r.text);
    free(tags);
    test_rm(dir);
}

int main(int argc, char **argv) {
    test_begin(1, argv);
    if (argc > 1) rounds = atoi(argv[1]);
    if (rounds < 1) {
        fprintf(stderr, "usage: %s [rounds]\n", argv[0]);
        return 2;
    }
    log_set_level(LOG_ERROR);
    RUN(kill_9_loses_no_acknowledged_record);
    return test_end();
}
