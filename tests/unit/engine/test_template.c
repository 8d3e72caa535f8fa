/* Chat templates: values and statements against Jinja 2's results, errors with their places, limits, failed
 * allocations, threads. What breaks it: any change of semantics, a limit that does not hold, a leak or crash on
 * failure. */
#include "base/json.h"
#include "base/mem.h"
#include "engine/template/template.h"
#include "harness.h"
#include "unit/engine/template_cases.h"

#include <pthread.h>

#define NOW INT64_C(1753012345678) /* 2025-07-20 11:52:25.678 */

/* Renders into text (to be freed); e says why not. */
static err_code render(const char *src, const cJSON *vars, buf *text, err *e) {
    chat_template *t = NULL;
    err_code code = chat_template_compile(&t, src, strlen(src), e);
    if (code == ERR_OK) code = chat_template_render(t, vars, NOW, text, e);
    chat_template_free(t);
    return code;
}

static cJSON *vars_of(const char *json) {
    err e;
    cJSON *v = NULL;
    if (json_parse(&v, json, strlen(json), "vars", &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    return v;
}

/* One case: the text or, where `fails`, the end of the error's sentence. */
static bool holds(const char *src, const cJSON *vars, const char *want, bool fails) {
    buf text = {.max = 1 << 20};
    err e = {0};
    err_code code = render(src, vars, &text, &e);
    const char *got = code == ERR_OK ? buf_str(&text) : e.msg;
    bool ok = fails ? code != ERR_OK && strstr(got, want) != NULL : code == ERR_OK && strcmp(got, want) == 0;
    if (!ok) fprintf(stderr, "%.400s\n  gives %s%.400s\n  not   %s\n", src, code == ERR_OK ? "" : "error: ", got, want);
    buf_free(&text);
    return ok;
}

static void run_table(const template_case *t, size_t n, const char *json, bool wrap, bool fails) {
    cJSON *vars = vars_of(json);
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        char src[2048];
        snprintf(src, sizeof src, wrap ? "{{ %s }}" : "%s", t[i].source);
        bad += !holds(src, vars, t[i].result, fails);
    }
    cJSON_Delete(vars);
    CHECK_INT(bad, 0);
}
#define RUN_TABLE(table, ...) run_table(table, sizeof table / sizeof *table, __VA_ARGS__)

TEST(expressions_give_what_jinja_gives) {
    RUN_TABLE(expression_cases, expression_vars, true, false);
}
TEST(expressions_fail_with_a_place) {
    RUN_TABLE(expression_errors, expression_vars, true, true);
}
TEST(statements_give_what_jinja_gives) {
    RUN_TABLE(statement_cases, statement_vars, false, false);
}
TEST(statements_fail_with_a_place) {
    RUN_TABLE(statement_errors, statement_vars, false, true);
}

TEST(what_is_not_supported_is_named) {
    static const template_case cases[] = {
        {"{% include 'x' %}", "the statement 'include' is not supported"},
        {"a\nb {{ x | frobnicate }}", "line 2, column 10: the filter 'frobnicate' is not supported"},
        {"{{ x is frobbed }}", "the test 'frobbed' is not supported"},
        {"{{ '\\N{DASH}' }}", "the escape \\N{...} is not supported"},
        {"{{ '%q' % 1 }}", "the conversion %q is not supported"},
        {"{{ '{:>5}'.format(1) }}", "format supports {}, {0} and {name}"},
        {"{{ 2.5 ** 0.5 }}", "** of floats is supported for whole exponents"},
        {"{{ 9223372036854775807 + 1 }}", "past 64-bit integers"},
        {"{{ 9223372036854775808 }}", "past 64 bits"},
        {"{{ -9223372036854775807 - 2 }}", "past 64-bit integers"},
        {"{{ (-9223372036854775807 - 1) // -1 }}", "past 64-bit integers"},
        {"{{ 10 ** 19 }}", "past 64-bit integers"},
        {"{{ strftime_now('%Q') }}", "strftime_now does not support %Q"},
        {"{{ {(1, 2): 3} }}", "a tuple as the key of a dict is not supported"},
    };
    RUN_TABLE(cases, "{\"x\":1}", false, true);
}

TEST(unknown_constructs_and_bad_syntax_have_different_codes) {
    err e;
    buf b = {.max = 100};
    CHECK_INT(render("{% include 'x' %}", NULL, &b, &e), ERR_UNSUPPORTED);
    CHECK_INT(render("{{ x|nope }}", NULL, &b, &e), ERR_UNSUPPORTED);
    CHECK_INT(render("{% if %}", NULL, &b, &e), ERR_INVALID);
    CHECK_INT(render("{{ raise_exception('no') }}", NULL, &b, &e), ERR_INVALID);
    CHECK_STR(e.msg, "chat template, line 1, column 19: no");
    CHECK_INT(render("{{ raise_exception('a\\x1b[31m\\nb') }}", NULL, &b, &e), ERR_INVALID);
    CHECK(!strchr(e.msg, '\x1b') && !strchr(e.msg, '\n'));
    CHECK_INT(render("{{ x }}", NULL, &b, NULL), ERR_OK);
    CHECK_INT(render("{{ x.y }}", NULL, &b, NULL), ERR_INVALID);
    CHECK_INT(render("{{ x", NULL, &b, NULL), ERR_INVALID);
    CHECK_INT(render("{% for %}", NULL, &b, NULL), ERR_INVALID);
    buf_free(&b);
}

TEST(numbers_of_json_are_integers_where_whole) {
    cJSON *v = vars_of("{\"a\":[1,1.0,1.5,-0,9007199254740991,1e18,1e19,1e300,-2.5e-7,123456789012]}");
    bool ok =
        holds("{{ a }}", v,
              "[1, 1, 1.5, 0, 9007199254740991, 1000000000000000000, 1e+19, 1e+300, -2.5e-07, 123456789012]", false);
    cJSON_Delete(v);
    CHECK(ok);
}

TEST(text_is_appended_and_taken_back_on_failure) {
    err e;
    buf b = {.max = 100};
    buf_puts(&b, "before ");
    CHECK_OK(render("a{{ 1 }}", NULL, &b, &e), e);
    CHECK_STR(buf_str(&b), "before a1");
    CHECK_INT(render("cd{{ x.y }}", NULL, &b, &e), ERR_INVALID);
    CHECK_STR(buf_str(&b), "before a1");
    buf_free(&b);
}

TEST(variables_that_are_no_object_are_none) {
    err e;
    buf b = {.max = 100};
    cJSON *list = vars_of("[1,2]");
    CHECK_OK(render("{{ x is defined }}{{ messages|length }}", list, &b, &e), e);
    CHECK_STR(buf_str(&b), "False0");
    cJSON_Delete(list);
    buf_free(&b);
}

TEST(broken_utf8_passes_through) {
    static const char src[] = "{{ '\xff\xc3' ~ x }}{{ x|length }}{{ x[::-1] }}{{ x|upper }}{{ x.strip() }}\xe2\x82";
    cJSON *v = cJSON_CreateObject();
    cJSON_AddStringToObject(v, "x", " a\xf0\x9f\xc3\xa4\x80 ");
    bool ok = holds(src, v,
                    "\xff\xc3 a\xf0\x9f\xc3\xa4\x80 7 \x80\xc3\xa4\x9f\xf0"
                    "a  A\xf0\x9f\xc3\x84\x80 a\xf0\x9f\xc3\xa4\x80\xe2\x82",
                    false);
    cJSON_Delete(v);
    CHECK(ok);
}

TEST(dicts_of_many_keys_keep_order_and_find_all) {
    cJSON *v = cJSON_CreateObject(), *d = cJSON_AddObjectToObject(v, "d");
    for (int i = 0; i < 5000; i++) {
        char key[24];
        snprintf(key, sizeof key, "k%d", (i * 7919) % 5000);
        cJSON_AddNumberToObject(d, key, i);
    }
    bool ok = holds("{% set n = namespace(sum=0) %}{% for k, x in d.items() %}{% if d[k] == x and k in d %}{% set "
                    "n.sum = n.sum + 1 %}"
                    "{% endif %}{% endfor %}{{ n.sum }} {{ d|first }} {{ (d|list)[4999] }} {{ d.k7919 is defined }}",
                    v, "5000 k0 k2081 False", false);
    cJSON_Delete(v);
    CHECK(ok);
}

/* Broken by: looking at text, strings, attributes or keyword names instead of variables; losing an atom. */
TEST(variables_that_a_template_names_are_known) {
    static const char src[] = "thinking {# tools #}{{ 'mode' }}{% if not enable_thinking %}{{ m.effort }}{% endif %}"
                              "{{ f(budget=1) }}{% for m in messages %}{{ m['role'] | default(who) }}{% endfor %}";
    chat_template *t = NULL;
    err e = {0};
    CHECK_OK(chat_template_compile(&t, src, strlen(src), &e), e);
    CHECK(chat_template_uses(t, "enable_thinking") && chat_template_uses(t, "messages") && chat_template_uses(t, "f"));
    CHECK(chat_template_uses(t, "who"));
    static const char *const not_named[] = {"thinking", "tools", "mode", "effort", "budget", "role", "enable", ""};
    for (size_t i = 0; i < sizeof not_named / sizeof *not_named; i++) CHECK(!chat_template_uses(t, not_named[i]));
    chat_template_free(t);
}

TEST(dates_are_utc_and_of_the_time_given) {
    chat_template *t = NULL;
    err e;
    static const char src[] = "{{ strftime_now('%Y-%m-%d %H:%M:%S %a %j %G-W%V') }}";
    CHECK_OK(chat_template_compile(&t, src, strlen(src), &e), e);
    static const struct {
        int64_t ms;
        const char *want;
    } cases[] = {{0, "1970-01-01 00:00:00 Thu 001 1970-W01"},
                 {-1, "1969-12-31 23:59:59 Wed 365 1970-W01"},
                 {INT64_C(951782400000), "2000-02-29 00:00:00 Tue 060 2000-W09"},
                 {INT64_C(4107542399000), "2100-02-28 23:59:59 Sun 059 2100-W08"},
                 {INT64_C(1609459200000), "2021-01-01 00:00:00 Fri 001 2020-W53"},
                 {INT64_C(1735603200000), "2024-12-31 00:00:00 Tue 366 2025-W01"},
                 {INT64_MAX, "9999-12-31 23:59:59 Fri 365 9999-W52"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buf b = {.max = 100};
        CHECK_OK(chat_template_render(t, NULL, cases[i].ms, &b, &e), e);
        CHECK_STR(buf_str(&b), cases[i].want);
        buf_free(&b);
    }
    chat_template_free(t);
}

/* ---- limits ---------------------------------------------------------------------------------------------- */

static char *repeated(const char *head, const char *middle, size_t n, const char *tail) {
    size_t len = strlen(head) + strlen(middle) * n + strlen(tail) + 1, at;
    char *s = malloc(len);
    if (!s) abort();
    at = (size_t)snprintf(s, len, "%s", head);
    for (size_t i = 0; i < n; i++) at += (size_t)snprintf(s + at, len - at, "%s", middle);
    snprintf(s + at, len - at, "%s", tail);
    return s;
}

TEST(limits_hold) {
    static const template_case cases[] = {
        {"{% for a in range(100000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}", "more than 5000000 steps"},
        {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nests more than 800 deep"},
        {"{% macro f() %}{{ f() ~ f() }}{% endmacro %}{{ f() }}", "nests more than 800 deep"},
        {"{{ 'x' * 100000000 }}", "grew past 64 MiB"},
        {"{{ [1] * 1000001 }}", "grew past 1000000 items"},
        {"{{ range(100001) }}", "a range of more than 100000"},
        {"{{ range(-9223372036854775807, 9223372036854775807) }}", "a range of more than 100000"},
        {"{{ '%1001d' % 1 }}", "past 1000"},
        {"{{ 'x'.center(1000000) }}", "a width of more than 100000"},
        {"{% set n = namespace(x=[]) %}{% for i in range(300) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
         "nested too deep"},
        {"{% set n = namespace(x=[]) %}{% for i in range(300) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x|tojson }}",
         "nested too deep"},
        {"{% set n = namespace(x=[],y=[]) %}{% for i in range(300) %}{% set n.x = [n.x] %}{% set n.y = [n.y] %}{% "
         "endfor %}{{ n.x == n.y }}",
         "nested too deep"},
        {"{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
         "grew past 64 MiB"},
        {"{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
         "more than 5000000 steps"},
        {"{% set n = namespace(x='ab') %}{% for i in range(100000) %}{% set n.x = n.x ~ 'abcdefghijklmnopqrstuvwxyz' "
         "%}{% endfor %}",
         "the template"},
        {"{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
         "grew past 1000000 items"},
        {"{% for i in range(100000) %}0123456789012{% endfor %}", "the text grew past 1048576 bytes"},
        {"{{ 'a'.replace('', 'x' * 1000000) * 100 }}", "grew past 64 MiB"},
        {"{{ ([1] * 20000) | map('map', 'map') | list }}", "cannot be gone through"},
    };
    RUN_TABLE(cases, "{}", false, true);
}

TEST(sources_that_nest_or_grow_too_far_are_refused) {
    static const struct {
        const char *head, *middle, *tail;
        size_t n;
        const char *want;
    } cases[] = {
        {"{{ ", "(", "", 100000, "brackets inside each other"},
        {"{{ ", "not ", "x }}", 100000, "levels inside each other"},
        {"{{ ", "-", "1 }}", 100000, "levels inside each other"},
        {"", "{% if x %}", "", 50000, "levels inside each other"},
        {"{{ x", ".a", " }}", 5000, "nests more than 800 deep"},
        {"{{ 1", " + 1", " }}", 5000, "nests more than 800 deep"},
        {"{{ 1", " if 1 else 1", " }}", 5000, "levels inside each other"},
        {"{{ 'x'", "|trim", " }}", 5000, "nests more than 800 deep"},
        {"{{ f(", "1,", "1) }}", 5000, "more than 64 arguments"},
        {"{{ 1", " < 2", " }}", 5000, "chained comparisons"},
        {"", "0123456789", "", 110000, "bytes of source"},
        {"{# ", "{#", "", 300000, "no #}"},
        {"{% raw %}", "{% endra", "", 100000, "no {% endraw %}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *src = repeated(cases[i].head, cases[i].middle, cases[i].n, cases[i].tail);
        bool ok = holds(src, NULL, cases[i].want, true);
        free(src);
        CHECK(ok);
    }
}

TEST(long_flat_templates_compile) {
    char *src = repeated("", "{% if x is defined %}a{{ x|trim }}{% endif %}\n", 20000, "");
    err e;
    chat_template *t = NULL;
    err_code code = chat_template_compile(&t, src, strlen(src), &e);
    free(src);
    CHECK_OK(code, e);
    chat_template_free(t);
}

/* ---- failure and threads --------------------------------------------------------------------------------- */

static const char busy_template[] =
    "{%- macro show(x, y='z') %}<{{ x }}{{ y }}{{ varargs|length }}{{ caller() if caller }}>{% endmacro -%}\n"
    "{% set ns = namespace(t='', n=0) %}{% for m in messages if m.content %}{% set "
    "ns.t = ns.t ~ m.role|upper ~ ': ' ~ m.content|trim %}"
    "{% for k, v in m|dictsort %}{{ k }}={{ v|tojson(indent=2) }}{{ loop.index }}{% "
    "endfor %}{% set ns.n = ns.n + 1 %}{% endfor %}"
    "{{ ns.t }}{{ show(ns.n, 2, 3) }}{% call show(1) %}x{% endcall %}"
    "{% filter upper %}abc {{ [3, 1, 2]|sort|join(',') }}{% endfilter %}{% set q | "
    "trim %} {{ 'a b c'.split()|map('title')|list }} {% endset %}{{ q }}"
    "{{ messages|map(attribute='role')|unique|list }}{{ dict(a=1, **{'b': 2}) }}{{ "
    "'%s-%05d' % ('x', 42) }}{{ strftime_now('%d %b %Y') }}"
    "{{ messages[::-1]|selectattr('role', 'equalto', 'user')|list|length }}{{ "
    "messages|groupby('role')|list|length }}{{ 'aXbXc'.replace('X', '--') }}"
    "{% for i in [[1], [2, [3]]] recursive %}{{ loop(i) if i is iterable else i }}{% "
    "endfor %}{{ '{} {a}'.format(1, a=2) }}"
    "{{ {'a':1,'b':2,'c':3,'d':4,'e':5,'f':6,'g':7,'h':8,'i':9,'j':10}|length }}";
static const char busy_vars[] = "{\"messages\":[{\"role\":\"system\",\"content\":\" Be kind. "
                                "\"},{\"role\":\"user\",\"content\":\"h\xc3\xa4llo\",\"n\":1.5},"
                                "{\"role\":\"assistant\",\"content\":null},{\"role\":\"user\",\"content\":[{\"type\":"
                                "\"text\",\"text\":\"a\\nb\"}]}]}";

TEST(every_failed_allocation_is_survived) {
    cJSON *vars = vars_of(busy_vars);
    err e;
    buf want = {.max = 1 << 20};
    err_code code = render(busy_template, vars, &want, &e);
    if (code != ERR_OK) cJSON_Delete(vars);
    CHECK_OK(code, e);
    int64_t n = 0;
    for (;; n++) {
        buf text = {.max = 1 << 20};
        mem_fail_after(n);
        code = render(busy_template, vars, &text, &e);
        mem_fail_after(-1);
        bool same = code == ERR_OK && strcmp(buf_str(&text), buf_str(&want)) == 0;
        buf_free(&text);
        if (same) break;
        if (code != ERR_NOMEM || n > 100000) break;
    }
    cJSON_Delete(vars);
    buf_free(&want);
    CHECK_INT(code, ERR_OK);
    CHECK(n > 20); /* the template does allocate */
}

static void *render_many(void *arg) {
    const chat_template *t = arg;
    cJSON *vars = vars_of(busy_vars);
    buf first = {.max = 1 << 20};
    err e;
    void *bad = chat_template_render(t, vars, NOW, &first, &e) == ERR_OK ? NULL : arg;
    for (int i = 0; i < 50 && !bad; i++) {
        buf b = {.max = 1 << 20};
        if (chat_template_render(t, vars, NOW, &b, &e) != ERR_OK || strcmp(buf_str(&b), buf_str(&first)) != 0)
            bad = arg;
        buf_free(&b);
    }
    buf_free(&first);
    cJSON_Delete(vars);
    return bad;
}

TEST(threads_share_a_template) {
    chat_template *t = NULL;
    err e;
    CHECK_OK(chat_template_compile(&t, busy_template, strlen(busy_template), &e), e);
    pthread_t th[4];
    bool bad = false;
    for (int i = 0; i < 4; i++)
        if (pthread_create(&th[i], NULL, render_many, t) != 0) abort();
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(th[i], &result);
        bad = bad || result;
    }
    chat_template_free(t);
    CHECK(!bad);
}

static void *deepest(void *arg) {
    static const char *const sources[] = {
        ("{% macro f(a, b=1) %}{% for x in [1] %}{% if x %}{{ [f(a, b=[x])]|map('upper')|list }}{% endif %}{% endfor "
         "%}{% endmacro %}{{ f(1) }}"),
        "{% macro f() %}{{ caller }}{% call f() %}x{% endcall %}{% endmacro %}{{ f() }}",
        "{% for i in [[]] recursive %}{{ loop([[]]) }}{% endfor %}"};
    for (int i = 0; i < 3; i++) {
        buf b = {.max = 1000};
        err e;
        if (render(sources[i], NULL, &b, &e) == ERR_OK || !strstr(e.msg, "deep")) {
            fprintf(stderr, "%s: %s\n", sources[i], e.msg);
            return arg;
        }
        buf_free(&b);
    }
    char *src = repeated("{{ ", "[(", 30, "");
    char *closed = repeated(src, ")]", 30, " }}");
    buf b = {.max = 1000};
    err e;
    err_code code = render(closed, NULL, &b, &e);
    buf_free(&b);
    free(src);
    free(closed);
    return code == ERR_OK ? NULL : arg;
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define BIG_FRAMES
#endif
#endif
#if defined(BIG_FRAMES) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
#define SMALL_STACK ((size_t)8 << 20)
#else
#define SMALL_STACK ((size_t)1 << 20)
#endif

/* A thread with less stack than any that serves: where the depth limits allow too much, this crashes. */
TEST(the_deepest_template_fits_a_small_stack) {
    pthread_attr_t attr;
    pthread_t th;
    static char failed;
    void *bad;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, SMALL_STACK);
    CHECK_INT(pthread_create(&th, &attr, deepest, &failed), 0);
    pthread_join(th, &bad);
    pthread_attr_destroy(&attr);
    CHECK(!bad);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(expressions_give_what_jinja_gives);
    RUN(expressions_fail_with_a_place);
    RUN(statements_give_what_jinja_gives);
    RUN(statements_fail_with_a_place);
    RUN(what_is_not_supported_is_named);
    RUN(unknown_constructs_and_bad_syntax_have_different_codes);
    RUN(numbers_of_json_are_integers_where_whole);
    RUN(text_is_appended_and_taken_back_on_failure);
    RUN(variables_that_are_no_object_are_none);
    RUN(variables_that_a_template_names_are_known);
    RUN(broken_utf8_passes_through);
    RUN(dicts_of_many_keys_keep_order_and_find_all);
    RUN(dates_are_utc_and_of_the_time_given);
    RUN(limits_hold);
    RUN(sources_that_nest_or_grow_too_far_are_refused);
    RUN(long_flat_templates_compile);
    RUN(every_failed_allocation_is_survived);
    RUN(threads_share_a_template);
    RUN(the_deepest_template_fits_a_small_stack);
    return test_end();
}
