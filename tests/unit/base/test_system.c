/* Files, locks, time, metrics. */
#include "base/file.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/sys.h"
#include "harness.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>

TEST(write_and_read_back) {
    char dir[256], path[512];
    CHECK(test_tmpdir(dir));
    err e;
    CHECK_OK(path_join(path, sizeof path, &e, dir, "a/b/c"), e);
    CHECK_OK(file_make_dirs(path, 0700, &e), e);
    CHECK_OK(path_join(path, sizeof path, &e, dir, "a/f"), e);
    CHECK_OK(file_write_atomic(path, "hello", 5, 0600, &e), e);
    CHECK_OK(file_write_atomic(path, "hello again", 11, 0600, &e), e);
    struct stat st;
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    buf b = {.max = 11};
    CHECK_OK(file_read(&b, path, &e), e);
    CHECK_STR(buf_str(&b), "hello again");
    buf_free(&b);
    b.max = 10;
    CHECK_INT(file_read(&b, path, &e), ERR_TOO_LARGE);
    buf_free(&b);
    file_map m;
    CHECK_OK(file_map_open(&m, path, &e), e);
    CHECK(m.len == 11 && memcmp(m.ptr, "hello again", 11) == 0);
    file_map_close(&m);
    CHECK_INT(file_map_open(&m, dir, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "not a regular file");
    CHECK_INT(file_read(&b, "/nonexistent/x", &e), ERR_NOT_FOUND);
    CHECK_INT(file_write_atomic("/nonexistent/x", "", 0, 0600, &e), ERR_NOT_FOUND);
    test_rm(dir);
}

/* Waits for ever where opening a pipe waits for its writer: a server that is told to import one could not stop. */
TEST(a_pipe_is_not_mapped) {
    err e = {0};
    file_map m;
    char dir[256], path[300];
    CHECK(test_tmpdir(dir));
    snprintf(path, sizeof path, "%s/pipe", dir);
    CHECK(mkfifo(path, 0600) == 0);
    alarm(20);
    CHECK_INT(file_map_open(&m, path, &e), ERR_INVALID);
    alarm(0);
    CHECK_HAS(e.msg, "not a regular file");
    test_rm(dir);
}

TEST(one_lock_at_a_time) {
    char dir[256], path[512];
    CHECK(test_tmpdir(dir));
    err e;
    CHECK_OK(path_join(path, sizeof path, &e, dir, "lock"), e);
    int a, b;
    CHECK_OK(file_lock(&a, path, &e), e);
    CHECK_INT(file_lock(&b, path, &e), ERR_BUSY);
    close(a);
    CHECK_OK(file_lock(&b, path, &e), e);
    close(b);
    test_rm(dir);
}

TEST(posix_vfs) {
    char dir[256], path[512], to[512];
    CHECK(test_tmpdir(dir));
    err e;
    CHECK_OK(path_join(path, sizeof path, &e, dir, "f"), e);
    CHECK_OK(path_join(to, sizeof to, &e, dir, "g"), e);
    vfs *v = &vfs_posix;
    vfile *f;
    CHECK_INT(v->open(v, &f, path, VFS_READ), -ENOENT);
    CHECK_INT(v->open(v, &f, path, VFS_WRITE | VFS_CREATE | VFS_EXCL), 0);
    CHECK_INT(v->allocate(v, f, 700000), 0);
    CHECK_INT(v->size(v, f), 700000);
    CHECK_INT(v->pwrite(v, f, "abc", 3, 699998), 0);
    char p[8];
    CHECK_INT(v->pread(v, f, p, 8, 699997), 4); /* short at the end */
    CHECK(memcmp(p, "\0abc", 4) == 0);
    CHECK_INT(v->sync(v, f), 0);
    CHECK_INT(v->truncate(v, f, 5), 0);
    v->close(v, f);
    CHECK_INT(v->rename(v, path, to), 0);
    CHECK_INT(v->mkdir(v, dir), 0);
    CHECK_INT(v->mkdir(v, to), -EEXIST); /* a file, not a folder */
    CHECK_INT(v->unlink(v, to), 0);
    CHECK_INT(v->unlink(v, to), -ENOENT);
    CHECK_INT(v->sync_dir(v, dir), 0);
    test_rm(dir);
}

TEST(times) {
    char t[32];
    time_rfc3339(t, 0);
    CHECK_STR(t, "1970-01-01T00:00:00.000Z");
    time_rfc3339(t, 1795312800123);
    CHECK_STR(t, "2026-11-22T02:00:00.123Z");
    time_rfc3339(t, -1);
    CHECK_STR(t, "1969-12-31T23:59:59.999Z");
    /* some hour of every 13th day of 900 years, as the C library has it */
    for (int64_t s = -INT64_C(12622780800); s < INT64_C(15778800000); s += 13 * 86400 + 3599) {
        char want[32];
        struct tm tm;
        time_t at = (time_t)s;
        CHECK(gmtime_r(&at, &tm) != NULL && strftime(want, sizeof want, "%Y-%m-%dT%H:%M:%S.007Z", &tm) > 0);
        time_rfc3339(t, s * 1000 + 7);
        if (strcmp(t, want) != 0) CHECK_STR(t, want);
    }
    CHECK(sys_cpu_count() >= 1);
    CHECK(sys_rss_kib() > 0 && sys_peak_rss_kib() > 0);
}

TEST(metrics_as_prometheus_reads_them) {
    metric *c = metric_get(METRIC_COUNTER, "t_requests_total", "code=\"200\"", "Requests");
    metric_add(c, 2);
    CHECK(metric_get(METRIC_COUNTER, "t_requests_total", "code=\"200\"", "Requests") == c);
    metric_add(metric_get(METRIC_COUNTER, "t_requests_total", "code=\"500\"", "Requests"), 1);
    metric *h = metric_get(METRIC_HISTOGRAM, "t_seconds", NULL, "Latency");
    metric_observe(h, 0.003);
    metric_observe(h, 1e9);
    buf b = {.max = 65536};
    metrics_print(&b);
    CHECK_HAS(buf_str(&b), "# TYPE t_requests_total counter\nt_requests_total{code=\"200\"} 2\n"
                           "t_requests_total{code=\"500\"} 1\n");
    CHECK_HAS(buf_str(&b), "t_seconds_bucket{le=\"0.002\"} 0\nt_seconds_bucket{le=\"0.004\"} 1\n");
    CHECK_HAS(buf_str(&b), "t_seconds_bucket{le=\"+Inf\"} 2\n");
    CHECK_HAS(buf_str(&b), "t_seconds_count 2\n");
    buf_free(&b);
    mem_fail_after(0);
    metric *lost = metric_get(METRIC_COUNTER, "t_lost", NULL, "x");
    mem_fail_after(-1);
    metric_add(lost, 1); /* harmless */
}

/* ---- the compiler ---- */

typedef struct two {
    unsigned char a, b;
} two;
static int n_said;
static uint64_t bits_of(const uint64_t *t, two v) {
    return *t + v.a - v.a;
}
static const uint64_t *words_of(const uint64_t *t, two v, size_t i) {
    return t + 0 * i;
}
static int tell(const char *how, int x) {
    n_said += how[0] == 'o' ? 1 : how[0] == 'c' ? 10 : 100;
    return 1;
}
/* through pointers that the compiler cannot see through */
static uint64_t (*volatile ask_bits)(const uint64_t *t, two v) = bits_of;
static const uint64_t *(*volatile ask_words)(const uint64_t *t, two v, size_t i) = words_of;
static int (*volatile ask_tell)(const char *how, int x) = tell;

static bool compare_bits(const uint64_t *f, const uint64_t *t, two v, size_t i) {
    bool was = ask_bits(f, v) >> i & 1, is = ask_bits(t, v) >> i & 1;
    const uint64_t *a = ask_words(f, v, i), *b = ask_words(t, v, i);
    if (was != is) return ask_tell(is ? "opened" : "closed", (int)i);
    if (is && a[0] != b[0]) return ask_tell("words", 0);
    return true;
}
static bool (*volatile compare)(const uint64_t *f, const uint64_t *t, two v, size_t i) = compare_bits;

/* Breaks where this is built without the switch in meson.build that keeps gcc 12 from comparing one bit only. */
TEST(the_compiler_compares_two_bits) {
    static const uint64_t none = 0, one = 1;
    two v = {1, 2};
    n_said = 0;
    compare(&one, &one, v, 0);
    compare(&none, &none, v, 0);
    CHECK_INT(n_said, 0);
    compare(&none, &one, v, 0);
    CHECK_INT(n_said, 1);
    compare(&one, &none, v, 0);
    CHECK_INT(n_said, 11);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(write_and_read_back);
    RUN(a_pipe_is_not_mapped);
    RUN(one_lock_at_a_time);
    RUN(posix_vfs);
    RUN(times);
    RUN(metrics_as_prometheus_reads_them);
    RUN(the_compiler_compares_two_bits);
    return test_end();
}
