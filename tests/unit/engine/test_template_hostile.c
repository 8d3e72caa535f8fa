/* Chat templates that try to take time or memory: every operation whose cost grows with its operands is repeated on
 * operands as large as the limits allow. What breaks it: an operation that does not pay for its work in steps, a buffer
 * without a limit. */
#include "base/mem.h"
#include "engine/template/template.h"
#include "harness.h"

#include <sys/resource.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
#define SLOWER 8
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SLOWER 8
#endif
#endif
#ifndef SLOWER
#define SLOWER 1
#endif
#define SECONDS_MAX (5.0 * SLOWER) /* of processor time; most take far less than one */

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Whether rendering ends in time; prints what is slow. */
static bool ends(const char *src, double *slowest) {
    chat_template *t = NULL;
    err e = {0};
    buf out = {.max = (size_t)16 << 20};
    double from = cpu_seconds();
    err_code code = chat_template_compile(&t, src, strlen(src), &e);
    if (code != ERR_OK) fprintf(stderr, "%.200s\n  does not compile: %s\n", src, e.msg);
    bool compiled = code == ERR_OK;
    if (compiled) code = chat_template_render(t, NULL, 0, &out, &e);
    double took = cpu_seconds() - from;
    chat_template_free(t);
    buf_free(&out);
    if (took > *slowest) *slowest = took;
    if (getenv("VERBOSE")) fprintf(stderr, "%6.3f s  %.110s  %s\n", took, src, code ? e.msg : "");
    if (took > SECONDS_MAX) fprintf(stderr, "%.200s\n  took %.1f s\n", src, took);
    return compiled && took <= SECONDS_MAX;
}

/* `s` is 30 million letters, `w` as much white space, `t` half of s with another letter at its end, `u` two million
 * letters. */
static const char big[] =
    "{% set s = 'a' * 30000000 %}{% set w = ' ' * 30000000 %}{% set t = 'a' * 15000000 ~ 'b' %}{% set u = 'a' * "
    "2000000 %}{% set d = dict(((range(40) | map('string')) | map('list')) | map('join') | "
    "list | batch(2) | map('list')) %}";

/* Each a hundred thousand times. The first ones once did not pay. */
#define ALWAYS 10
static const char *const operations[] = {
    "s.startswith(s)",
    "s.rfind(t)",
    "s.strip('b' * 200000 ~ 'a')",
    "w | int",
    "s is upper",
    "s.center(3)",
    "d[s]",
    "[s, s ~ ''] | unique | list",
    "strftime_now(s)",
    "s | tojson",
    "s.endswith(s)",
    "s.removeprefix(s)",
    "s.removesuffix(s)",
    "s.startswith((s, s, s, s))",
    "s.rindex('b')",
    "s.rpartition(t)",
    "s.rsplit(t, 5)",
    "s.rsplit(none, 5)",
    "w.rsplit(none, 5)",
    "s.find(t)",
    "s.count(t)",
    "s.count('aaa')",
    "t.split('a', 3)",
    "s.split()",
    "w.split()",
    "s.partition(t)",
    "s.replace(t, 'c')",
    "s.replace('b', 'c')",
    "s.replace('', 'c', 2)",
    "s.strip('ba')",
    "w.strip()",
    "w | trim",
    "s | trim(t)",
    "w | float",
    "s | int",
    "s is lower",
    "s.isupper()",
    "s.isalpha()",
    "w.isspace()",
    "s.center(40000000)",
    "s.ljust(3)",
    "s.zfill(3)",
    "s | center(3)",
    "s[5:6]",
    "s[::-1]",
    "s[20000000]",
    "s | length",
    "s == s ~ ''",
    "s < s ~ ''",
    "s in [s]",
    "s in s",
    "t in s",
    "d.get(s)",
    "s in d",
    "{s: 1}",
    "dict([(s, 1)])",
    "[s, s ~ '', s] | sort",
    "[s, s] | groupby('x')",
    "[s] | map('upper') | list",
    "s | upper",
    "s | title",
    "s.swapcase()",
    "s | escape",
    "s | urlencode",
    "s | wordcount",
    "s | indent",
    "s.splitlines()",
    "s | string",
    "s ~ s",
    "s + s",
    "s * 2",
    "'%s' % s",
    "'%.3s' % s",
    "'%5s' % s",
    "s % 1",
    "'{}'.format(s)",
    "s.format(1)",
    "s | format(1)",
    "s | first",
    "s | list",
    "s | join",
    "s.join(['', '', ''])",
    "[[s]] | tojson",
    "[s] | string",
    "{'a': s} | string",
    "d | dictsort",
    "u | list | length",
    "range(100000) | list | sort",
    "range(100000) | list | reverse | list",
    "range(100000) | sum",
    "range(100000) | join",
    "range(100000) | list == range(100000) | list",
    "99999 in range(100000)",
    "(range(100000) | list).index(99999)",
    "(range(100000) | list).count(1)",
    "range(100000) | select('odd') | list",
    "range(100000) | batch(1) | list",
    "range(100000) | slice(100000) | list",
    "range(1000) | map('string') | unique | list",
    "dict(range(4) | batch(2)) | tojson(indent=64)",
    "[1] * 1000000",
    "([1] * 500000) + ([1] * 500000)",
    "([1] * 1000000)[::2]",
    "([1] * 1000000)[1:] | first",
    "cycler(*range(200)).next()",
    "namespace(a=s).a",
    "10 ** 18",
    "2.5 ** 1024",
    "1 ** 9000000000000000000",
    "(-1) ** 9000000000000000000",
};

/* A sample; all of them, which take a minute, with POLDER_HOSTILE=all. */
TEST(large_operands_are_paid_for) {
    const char *which = getenv("POLDER_HOSTILE");
    size_t every = which && strcmp(which, "all") == 0 ? 1 : 8 * SLOWER;
    double slowest = 0;
    int bad = 0;
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if ((i >= ALWAYS || SLOWER > 1) && i % every) continue;
        char src[1024];
        snprintf(src, sizeof src, "%s{%% for i in range(100000) %%}{%% set x = %s %%}{%% endfor %%}", big,
                 operations[i]);
        bad += !ends(src, &slowest);
    }
    printf("slowest %.2f s\n", slowest);
    CHECK_INT(bad, 0);
}

static const char *const growing[] = {
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x * 2 %}{% endfor %}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x | replace('a', n.x) %}{% endfor %}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = '%s%s' % (n.x, n.x) %}{% endfor %}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = [n.x, n.x] | join %}{% endfor %}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = [n.x, n.x] | tojson %}{% endfor %}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = '{}{}'.format(n.x, n.x) %}{% endfor %}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y "
    "%}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | "
    "tojson(indent=64) }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x == n.x + [] }}",
    "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] "
    "%}{% endfor %}{{ n.x == n.y }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x * 2 %}{% endfor %}",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n < 30 %}{{ f(n + 1) }}{{ f(n + 1) }}{% endif %}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{{ 'x' * 60000000 }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% set s = 'x' * 60000000 %}{% macro f(n) %}{{ s }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% set s = 'x' * 60000000 %}{% for i in range(1000) %}{% set y %}{{ s }}{% endset %}{% endfor %}",
    "{% for i in range(1000) %}{% set y = 'x' * 60000000 %}{% endfor %}",
    "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor "
    "%}",
    "{% for a in range(100000) %}{% for b in range(100000) %}{% break %}{% endfor %}{% endfor %}",
    "{% for a in [[]] recursive %}{{ loop([[]]) }}{{ loop([[]]) }}{% endfor %}",
    "{% for a in range(100000) %}{% macro f() %}{% endmacro %}{{ f() }}{% endfor %}",
    "{% for a in range(100000) %}{{ dict(range(50) | batch(2)) }}{% endfor %}",
    "{% for a in range(100000) %}{% with b = range(1000) | list %}{{ b | length }}{% endwith %}{% endfor %}",
    "{% for a in range(100000) %}{% call(x) dict() %}{% endcall %}{% endfor %}",
    "{% macro m(x) %}{% for i in range(x) %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(x) m(100000) %}{% call(y) "
    "m(x) %}z{% endcall %}{% endcall %}",
    "{{ range(100000) | map('string') | map('list') | map('join') | map('upper') | map('tojson') | map('length') | sum "
    "}}",
    "{{ 'x' * 9223372036854775807 }}",
    "{{ [0] * 9223372036854775807 }}",
    "{{ range(9223372036854775807) }}",
    "{{ '%999d' % 1 * 100000 }}",
};

TEST(growth_ends_in_a_limit) {
    double slowest = 0;
    int bad = 0;
    for (size_t i = 0; i < sizeof growing / sizeof *growing; i++) bad += !ends(growing[i], &slowest);
    printf("slowest %.2f s\n", slowest);
    CHECK_INT(bad, 0);
}

/* After all of the above: what one render may hold (values, captured text, the answer) and the allocator's slack. */
TEST(memory_stays_bounded) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    printf("at most %ld MiB were in use\n", u.ru_maxrss >> 10);
    if (SLOWER > 1) SKIP("a sanitizer's own memory counts as well");
    CHECK(u.ru_maxrss >> 10 < 1024);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(growth_ends_in_a_limit);
    RUN(large_operands_are_paid_for);
    RUN(memory_stays_bounded);
    return test_end();
}
