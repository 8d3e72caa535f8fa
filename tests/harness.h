/* The test harness: cases are functions, checks print what differs, the closing line is "N passed, N failed".
 *
 *   TEST(buf_grows) { CHECK(b.len == 3); CHECK_STR(buf_str(&b), "abc"); }
 *   int main(int argc, char **argv) { RUN(buf_grows); return test_end(); }
 *
 * A failed CHECK ends its case. SKIP("why") counts the case as skipped; it is for what this machine lacks (../shared
 * absent), never for what is slow or wrong. `prog NAME` runs only cases whose name contains NAME. */
#ifndef POLDER_TESTS_HARNESS_H
#define POLDER_TESTS_HARNESS_H

#include "base/bytes.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int test_passed, test_failed, test_skipped;
static bool test_bad, test_skip;
static const char *test_filter;

#define TEST(name) static void test_case_##name(void)
#define RUN(name)  test_run(#name, test_case_##name)
#define FAIL(...)                                       \
    do {                                                \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
        fprintf(stderr, __VA_ARGS__);                   \
        fputc('\n', stderr);                            \
        test_bad = true;                                \
        return;                                         \
    } while (0)
#define CHECK(cond)                                   \
    do {                                              \
        if (!(cond)) FAIL("check failed: %s", #cond); \
    } while (0)
#define CHECK_OK(call, e)                                     \
    do {                                                      \
        if ((call) != ERR_OK) FAIL("%s: %s", #call, (e).msg); \
    } while (0)
#define CHECK_INT(a, b)                                         \
    do {                                                        \
        long long a_ = (long long)(a), b_ = (long long)(b);     \
        if (a_ != b_) FAIL("%s is %lld, not %lld", #a, a_, b_); \
    } while (0)
#define CHECK_STR(a, b)                                                               \
    do {                                                                              \
        const char *a_ = (a), *b_ = (b);                                              \
        if (!a_ || !b_ || strcmp(a_, b_) != 0)                                        \
            FAIL("%s is \"%s\", not \"%s\"", #a, a_ ? a_ : "NULL", b_ ? b_ : "NULL"); \
    } while (0)
#define CHECK_HAS(haystack, needle)                                                                         \
    do {                                                                                                    \
        const char *h_ = (haystack), *n_ = (needle);                                                        \
        if (!h_ || !strstr(h_, n_)) FAIL("%s is \"%s\" and lacks \"%s\"", #haystack, h_ ? h_ : "NULL", n_); \
    } while (0)
#define SKIP(why)                  \
    do {                           \
        printf("skip: %s\n", why); \
        test_skip = true;          \
        return;                    \
    } while (0)

static inline void test_run(const char *name, void (*fn)(void)) {
    if (test_filter && !strstr(name, test_filter)) return;
    test_bad = test_skip = false;
    fn();
    if (test_bad)
        test_failed++;
    else if (test_skip)
        test_skipped++;
    else
        test_passed++;
    printf("%s %s\n", test_bad ? "FAIL" : test_skip ? "skip" : "ok  ", name);
    fflush(stdout);
}

static inline int test_end(void) {
    printf("%d passed, %d failed", test_passed, test_failed);
    if (test_skipped) printf(", %d skipped", test_skipped);
    printf("\n");
    return test_failed ? 1 : 0;
}

static inline void test_begin(int argc, char **argv) {
    base_init();
    test_filter = argc > 1 ? argv[1] : NULL;
}

/* ../shared beside the checkout, or NULL: tests that need it SKIP. POLDER_SHARED names another place. */
static inline const char *test_shared(void) {
    static char path[1024];
    const char *p = getenv("POLDER_SHARED");
    snprintf(path, sizeof path, "%s", p ? p : "../shared");
    return access(path, R_OK) == 0 ? path : NULL;
}

/* A fresh folder under TMPDIR, removed by nobody: tests clean up with test_rm. */
static inline const char *test_tmpdir(char out[256]) {
    const char *t = getenv("TMPDIR");
    snprintf(out, 256, "%s/polder-test-XXXXXX", t ? t : "/tmp");
    return mkdtemp(out);
}
static inline void test_rm(const char *dir) {
    char cmd[600];
    snprintf(cmd, sizeof cmd, "rm -rf -- '%s'", dir);
    if (system(cmd) != 0) fprintf(stderr, "could not remove %s\n", dir);
}

#endif
