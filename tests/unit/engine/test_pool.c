/* The pool: every index exactly once, whoever comes late. What breaks it: a lost wake-up (the case hangs), a range
 * given twice or never, a worker that touches a job after pool_run has returned. */
#include "base/mem.h"
#include "base/sys.h"
#include "engine/tensor.h"
#include "tests/harness.h"

#include <stdatomic.h>

#define N_MAX 10000

typedef struct job {
    _Atomic unsigned char seen[N_MAX];
    _Atomic uint64_t threads; /* bit a thread that came */
    _Atomic bool too_long;
    _Atomic size_t ranges;
    size_t grain;
    unsigned spin_us, sleep_us; /* for each range: computing, by all; standing still, by every thread but 0 */
} job;

static void mark(void *ctx, size_t begin, size_t end, unsigned thread) {
    job *j = ctx;
    if (end - begin > j->grain || end <= begin) atomic_store(&j->too_long, true);
    atomic_fetch_add(&j->ranges, 1);
    for (size_t i = begin; i < end; i++) atomic_fetch_add(&j->seen[i], 1);
    atomic_fetch_or(&j->threads, UINT64_C(1) << thread);
    for (uint64_t since = time_mono_ns(); time_mono_ns() - since < j->spin_us * UINT64_C(1000);) continue;
    if (thread && j->sleep_us) usleep(j->sleep_us);
}

typedef void (*pool_way)(pool *p, size_t n, size_t grain, pool_fn fn, void *ctx);

static bool covers_by(pool_way run, pool *p, job *j, size_t n, size_t grain, size_t longest) {
    memset(j->seen, 0, sizeof j->seen);
    atomic_store(&j->threads, 0);
    atomic_store(&j->too_long, false);
    atomic_store(&j->ranges, 0);
    j->grain = longest;
    run(p, n, grain, mark, j);
    for (size_t i = 0; i < N_MAX; i++)
        if (j->seen[i] != (i < n)) return false;
    return !j->too_long && j->threads >> pool_threads(p) == 0;
}

static bool covers(pool *p, job *j, size_t n, size_t grain) {
    return covers_by(pool_run, p, j, n, grain, grain ? grain : 1);
}

TEST(every_index_exactly_once) {
    static const unsigned threads[] = {1, 2, 3, 5, 16};
    static const size_t ns[] = {0, 1, 2, 7, 64, 1000, N_MAX}, grains[] = {0, 1, 3, 64, N_MAX, SIZE_MAX / 4};
    static job j;
    err e = {0};
    for (size_t t = 0; t < 5; t++) {
        pool *p;
        CHECK_OK(pool_new(&p, threads[t], &e), e);
        CHECK_INT(pool_threads(p), threads[t]);
        for (size_t n = 0; n < 7; n++)
            for (size_t g = 0; g < 6; g++)
                if (!covers(p, &j, ns[n], grains[g]))
                    FAIL("%u threads, n %zu, grain %zu", threads[t], ns[n], grains[g]);
        pool_free(p);
    }
    CHECK(covers(NULL, &j, 100, 7)); /* no pool: the caller */
    CHECK_INT(pool_threads(NULL), 1);
    pool_free(NULL);
}

/* Each range is half of what its share had left, so a share is walked through in few steps, and none is longer than
 * half a share but for the grain. */
TEST(halves_are_few_and_cover_everything) {
    static const size_t ns[] = {0, 1, 2, 7, 64, 1000, N_MAX}, grains[] = {0, 1, 3, 64, N_MAX, SIZE_MAX / 4};
    static job j;
    err e = {0};
    for (unsigned threads = 2; threads <= 5; threads += 3) {
        for (size_t n = 0; n < 7; n++)
            for (size_t g = 0; g < 6; g++) {
                pool *p; /* a new one for each job: none of its threads is parked, however busy the machine */
                CHECK_OK(pool_new(&p, threads, &e), e);
                size_t grain = grains[g] ? grains[g] : 1, share = ns[n] / threads + 1, steps = 2;
                size_t longest = share / 2 + 1 > grain ? share / 2 + 1 : grain;
                for (size_t left = share; left > grain; left -= left / 2 > 1 ? left / 2 : 1) steps++;
                if (!covers_by(pool_run_halves, p, &j, ns[n], grains[g], longest) || j.ranges > threads * steps)
                    FAIL("%u threads, n %zu, grain %zu: %zu ranges", threads, ns[n], grains[g], j.ranges);
                pool_free(p);
            }
    }
    CHECK(covers_by(pool_run_halves, NULL, &j, N_MAX, 7, N_MAX)); /* nobody to share with: all at once */
    CHECK_INT(j.ranges, 1);
}

static void add(void *ctx, size_t begin, size_t end, unsigned thread) {
    uint64_t *sums = ctx; /* one a thread, a cache line apart */
    for (size_t i = begin; i < end; i++) sums[thread * 8] += i;
}

/* Short jobs one after another: publishing and closing overlap with workers that come late. */
TEST(many_short_jobs) {
    err e = {0};
    for (unsigned threads = 2; threads <= 5; threads += 3) {
        pool *p;
        CHECK_OK(pool_new(&p, threads, &e), e);
        for (int i = 0; i < 20000; i++) {
            uint64_t sums[5 * 8] = {0}, sum = 0; /* on this frame: a late touch is seen by the sanitizer */
            pool_run(p, 24, 1, add, sums);
            for (unsigned t = 0; t < threads; t++) sum += sums[t * 8];
            CHECK_INT(sum, 276);
        }
        pool_free(p);
    }
}

TEST(workers_that_sleep_wake_up) {
    err e = {0};
    static job j;
    pool *p;
    CHECK_OK(pool_new(&p, 3, &e), e);
    bool others = false;
    for (int i = 0; i < 30; i++) {
        usleep(2000); /* far beyond the spinning */
        j.sleep_us = 0;
        CHECK(covers(p, &j, N_MAX, 1));
        others = others || j.threads != 1;
    }
    CHECK(others);
    pool_free(p);
}

/* A worker whose core is taken away inside a range: the caller sleeps until it is back. */
TEST(the_caller_waits_for_a_slow_worker) {
    err e = {0};
    static job j;
    pool *p;
    CHECK_OK(pool_new(&p, 2, &e), e);
    for (int i = 0; i < 20; i++) {
        j.sleep_us = 3000;
        CHECK(covers(p, &j, 2000, 1));
    }
    pool_free(p);
}

/* Threads that do not pay are parked and asked again: what is computed stays whole through all of it, and the caller
 * alone goes on in between. */
TEST(threads_that_stand_still_are_parked) {
    err e = {0};
    static job j = {.spin_us = 10}; /* long enough for others to come on a busy machine, too */
    for (unsigned threads = 2; threads <= 4; threads++) {
        pool *p;
        CHECK_OK(pool_new(&p, threads, &e), e);
        bool others = false, alone = false;
        for (int i = 0; i < 250; i++) {
            j.sleep_us = i < 200 ? 3000 : 0; /* a slice of the scheduler; the caller alone takes 1000 */
            CHECK(covers(p, &j, 100, 1));
            others = others || j.threads != 1;
            alone = alone || j.threads == 1;
        }
        CHECK(others && alone);
        pool_free(p);
    }
}

TEST(bad_counts_are_refused) {
    err e = {0};
    pool *p = (pool *)&e;
    CHECK(pool_new(&p, 0, &e) == ERR_USAGE && p == NULL);
    CHECK(pool_new(&p, 100000, &e) == ERR_USAGE);
    CHECK_HAS(e.msg, "100000 threads");
}

TEST(failed_allocations_leave_nothing_behind) {
    err e = {0};
    for (int n = 0;; n++) {
        CHECK(n < 10);
        pool *p = NULL;
        mem_fail_after(n);
        err_code c = pool_new(&p, 3, &e);
        mem_fail_after(-1);
        if (c == ERR_OK) {
            pool_free(p);
            CHECK(n > 0);
            break;
        }
        CHECK(c == ERR_NOMEM && p == NULL && e.msg[0]);
    }
}

/* Breaks where a quiet machine with many cores parks threads, or a busy core is shared at a loss. */
TEST(threads_pay_on_a_quiet_machine) {
    for (unsigned n = 2; n <= 256; n++) {
        if (!pool_pays(n, 1.0) || !pool_pays(n, 0.9)) FAIL("%u threads, nobody else there", n);
        if (pool_pays(n, 0.5)) FAIL("%u threads, one of them half of the time", n);
    }
    CHECK(pool_pays(2, 0.6) && !pool_pays(2, 0.54));
    CHECK(pool_pays(4, 0.8) && !pool_pays(4, 0.75));
    CHECK(!pool_pays(32, 0.8)); /* a core that is away a fifth of the time costs six threads */
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(every_index_exactly_once);
    RUN(halves_are_few_and_cover_everything);
    RUN(many_short_jobs);
    RUN(workers_that_sleep_wake_up);
    RUN(the_caller_waits_for_a_slow_worker);
    RUN(threads_that_stand_still_are_parked);
    RUN(bad_counts_are_refused);
    RUN(failed_allocations_leave_nothing_behind);
    RUN(threads_pay_on_a_quiet_machine);
    return test_end();
}
