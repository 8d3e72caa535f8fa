/* JSON: what is refused, canonical bytes as RFC 8785 prints them, the streaming writer. */
#include "base/json.h"
#include "base/json_flat.h"
#include "base/json_internal.h"
#include "base/json_memory.h"
#include "base/mem.h"
#include "harness.h"

#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

static const char *canonical_of(const char *text, buf *b) {
    cJSON *v;
    err e;
    buf_reset(b);
    if (json_parse(&v, text, strlen(text), "text", &e)) return "(does not parse)";
    err_code rc = json_canonical(b, v, &e);
    cJSON_Delete(v);
    return rc ? "(not canonical)" : buf_str(b);
}

static bool same_text(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_tree(const cJSON *a, const cJSON *b) {
    if (a->type != b->type || a->valueint != b->valueint || !same_text(a->string, b->string) ||
        memcmp(&a->valuedouble, &b->valuedouble, sizeof a->valuedouble) != 0 ||
        (!cJSON_IsNumber(a) && !same_text(a->valuestring, b->valuestring)))
        return false;
    const cJSON *x = a->child, *y = b->child, *last = x ? x->prev : NULL;
    for (const cJSON *before = NULL; x && y; before = x, x = x->next, y = y->next)
        if (!same_tree(x, y) || (before && x->prev != before) || (!x->next && x != last)) return false;
    return !x && !y;
}

static unsigned tree_dice(unsigned n) {
    static uint64_t x = 88172645463325252u;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (unsigned)(x >> 33) % n;
}

static void put_random(buf *b, int depth, unsigned *key) {
    static const char *const spaces[] = {"", "", "", " ", "\n\t", "\r \n"};
    static const char *const parts[] = {"a",
                                        "plain text of some length, to be copied",
                                        "\xc3\xa9",
                                        "\xf0\x9f\x98\x80",
                                        "\\\"",
                                        "\\\\",
                                        "\\/",
                                        "\\b\\f\\n\\r\\t",
                                        "\\u0041",
                                        "\\u00e9\\u20AC",
                                        "\\ud83d\\ude00",
                                        "\\\\\\\"",
                                        "]},:"};
    static const char *const numbers[] = {
        "0",    "-0",   "7",          "-12",         "123456789012345",     "1234567890123456",
        "2.5",  "-0.0", "1e3",        "-1.25E-7",    "9007199254740993123", "1e300",
        "1E+2", "0.1",  "2147483647", "-2147483648", "4294967296",          "3.999999999999999999"};
    unsigned kind = tree_dice(depth < 6 ? 7 : 5);
    buf_puts(b, spaces[tree_dice(6)]);
    if (kind == 0) buf_puts(b, numbers[tree_dice(sizeof numbers / sizeof *numbers)]);
    if (kind == 1 || kind == 2) {
        buf_putc(b, '"');
        for (unsigned k = tree_dice(5); k; k--) buf_puts(b, parts[tree_dice(sizeof parts / sizeof *parts)]);
        buf_putc(b, '"');
    }
    if (kind == 3) buf_puts(b, tree_dice(2) ? "true" : "false");
    if (kind == 4) buf_puts(b, "null");
    if (kind > 4) {
        buf_putc(b, kind == 5 ? '{' : '[');
        unsigned n = tree_dice(depth ? 6 : 25);
        for (unsigned i = 0; i < n; i++) {
            if (i) buf_putc(b, ',');
            if (kind == 5)
                buf_printf(b, "%s\"%s%u\"%s:", spaces[tree_dice(6)], parts[tree_dice(12)], (*key)++,
                           spaces[tree_dice(6)]);
            put_random(b, depth + 1, key);
        }
        buf_puts(b, spaces[tree_dice(6)]);
        buf_putc(b, kind == 5 ? '}' : ']');
    }
    buf_puts(b, spaces[tree_dice(6)]);
}

/* The trees are those that cJSON's own parser makes. */
TEST(trees_are_as_cjson_makes_them) {
    for (unsigned i = 0; i < 20000; i++) {
        unsigned key = 0;
        buf b = {.max = 1 << 20};
        err e;
        cJSON *mine = NULL;
        put_random(&b, 0, &key);
        CHECK(!b.failed);
        char *exact = malloc(b.len); /* a byte behind it is found */
        memcpy(exact, b.ptr, b.len);
        CHECK_OK(json_parse(&mine, exact, b.len, "text", &e), e);
        free(exact);
        cJSON *theirs = cJSON_ParseWithLength(b.ptr, b.len);
        CHECK(theirs != NULL);
        if (!same_tree(mine, theirs)) FAIL("case %u differs: %s", i, b.ptr);
        cJSON_Delete(mine);
        cJSON_Delete(theirs);
        buf_free(&b);
    }
}

static int allocations_left;
static void *scarce_malloc(size_t n) {
    return allocations_left-- > 0 ? malloc(n) : NULL;
}

TEST(a_tree_without_memory_is_none) {
    static const char text[] = "{\"a\":[1,\"x\",{\"b\":\"\\n\",\"c\":12345678901234567890}],\"d\":null}";
    int n = 0;
    for (err_code rc = ERR_NOMEM; rc; n++) {
        cJSON *v = NULL;
        err e;
        allocations_left = n;
        cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = scarce_malloc, .free_fn = free});
        rc = json_parse(&v, text, sizeof text - 1, "text", &e);
        json_memory_init();
        CHECK(rc == ERR_NOMEM ? v == NULL : rc == ERR_OK && v != NULL);
        cJSON_Delete(v);
    }
    CHECK_INT(n, 16); /* eight values, five keys, two strings, a literal, none left over: the last try needs them all */
}

/* Appendix B of RFC 8785: the bit patterns of doubles and their text. */
TEST(numbers_as_in_rfc8785) {
    static const struct {
        uint64_t bits;
        const char *text;
    } t[] = {
        {0x0000000000000000, "0"},
        {0x8000000000000000, "0"},
        {0x0000000000000001, "5e-324"},
        {0x8000000000000001, "-5e-324"},
        {0x7fefffffffffffff, "1.7976931348623157e+308"},
        {0xffefffffffffffff, "-1.7976931348623157e+308"},
        {0x4340000000000000, "9007199254740992"},
        {0xc340000000000000, "-9007199254740992"},
        {0x4430000000000000, "295147905179352830000"},
        {0x44b52d02c7e14af5, "9.999999999999997e+22"},
        {0x44b52d02c7e14af6, "1e+23"},
        {0x44b52d02c7e14af7, "1.0000000000000001e+23"},
        {0x444b1ae4d6e2ef4e, "999999999999999700000"},
        {0x444b1ae4d6e2ef4f, "999999999999999900000"},
        {0x444b1ae4d6e2ef50, "1e+21"},
        {0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"},
        {0x3eb0c6f7a0b5ed8d, "0.000001"},
        {0x41b3de4355555553, "333333333.3333332"},
        {0x41b3de4355555554, "333333333.33333325"},
        {0x41b3de4355555555, "333333333.3333333"},
        {0x41b3de4355555556, "333333333.3333334"},
        {0x41b3de4355555557, "333333333.33333343"},
        {0xbecbf647612f3696, "-0.0000033333333333333333"},
        {0x43143ff3c1cb0959, "1424953923781206.2"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        double v;
        memcpy(&v, &t[i].bits, 8);
        buf b = {.max = 64};
        json_number(&b, v);
        if (strcmp(buf_str(&b), t[i].text) != 0) FAIL("case %zu: %s, not %s", i, buf_str(&b), t[i].text);
        buf_free(&b);
    }
}

TEST(numbers_read_back) {
    uint64_t x = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        double v;
        memcpy(&v, &x, 8);
        if (!isfinite(v)) continue;
        buf b = {.max = 64};
        json_number(&b, v);
        if (strtod(buf_str(&b), NULL) != v) FAIL("%a became %s", v, buf_str(&b));
        buf_free(&b);
    }
}

TEST(canonical_form) {
    buf b = {.max = 4096};
    CHECK_STR(canonical_of(" { \"b\" : [ 1.0 , 2e1 , true , null ] , \"a\" : \"\\u00e9\\/\" } ", &b),
              "{\"a\":\"\xc3\xa9/\",\"b\":[1,20,true,null]}");
    /* RFC 8785 §3.2.3: keys in order of UTF-16 code units */
    CHECK_STR(
        canonical_of("{\"\\u20ac\":\"Euro Sign\",\"\\r\":\"Carriage Return\",\"\\ufb33\":\"Hebrew\",\"1\":\"One\","
                     "\"\\ud83d\\ude00\":\"Emoji\",\"\\u0080\":\"Control\",\"\\u00f6\":\"O\"}",
                     &b),
        "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\xc2\x80\":\"Control\",\"\xc3\xb6\":\"O\","
        "\"\xe2\x82\xac\":\"Euro Sign\",\"\xf0\x9f\x98\x80\":\"Emoji\",\"\xef\xac\xb3\":\"Hebrew\"}");
    CHECK_STR(canonical_of("\"\\u000f\\n\\t\\b\\f\\r\\\"\\\\\"", &b), "\"\\u000f\\n\\t\\b\\f\\r\\\"\\\\\"");
    buf_free(&b);
}

TEST(parse_refuses) {
    static const struct {
        const char *text, *why;
    } t[] = {
        {"", "a value is expected"},  {"{\"a\":1,\"a\":2}", "stands twice"},
        {"[1,]", "not a JSON value"}, {"{\"a\" 1}", "':' is expected"},
        {"{a:1}", "double quotes"},   {"[1] x", "after the end"},
        {"\"\xff\"", "UTF-8"},        {"\"\\u0000\"", "u0000"},
        {"\"\\ud800\"", "surrogate"}, {"\"a\nb\"", "control character"},
        {"01", "after the end"},      {"1.", "decimal point"},
        {"+1", "not a JSON value"},   {"nul", "not a JSON value"},
        {"\"abc", "not closed"},      {"{\"a\":1", "ends inside"},
        {"1e", "exponent"},           {"[-1e309]", "too large"},
        {"\"\\x\"", "escape"},        {"{\"o\":{\"x\":1,\"y\":2,\"x\":3}}", "stands twice"},
        {"NaN", "not a JSON value"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        cJSON *v = NULL;
        err e;
        if (json_parse(&v, t[i].text, strlen(t[i].text), "the body", &e) != ERR_INVALID || v)
            FAIL("accepted %s", t[i].text);
        if (!strstr(e.msg, t[i].why) || !strstr(e.msg, "the body"))
            FAIL("%s: \"%s\" lacks \"%s\"", t[i].text, e.msg, t[i].why);
    }
    err e;
    cJSON *v;
    CHECK_INT(json_parse(&v, "{\n  \"a\": x}", 11, "f", &e), ERR_INVALID);
    CHECK_HAS(e.msg, "line 2 column 8");
    char deep[200];
    memset(deep, '[', 100);
    memset(deep + 100, ']', 100);
    CHECK_INT(json_parse(&v, deep, 200, "f", &e), ERR_INVALID);
    CHECK_HAS(e.msg, "too deeply");
}

/* Breaks where a whole number loses digits on its way through a tree: what is looked at must be what is sent. */
TEST(long_numbers_keep_their_digits) {
    static const char *const same[] = {
        "6295187298747672371",
        "[9007199254740993,1,-9223372036854775808,2.5,{\"a\":18446744073709551615,\"b\":[4511738614168929]}]",
        "{\"z\":0.1,\"a\":123456789012345678901234567890,\"m\":[null,true,false,\"\\\"\\n\"]}",
        "[]",
        "{}",
    };
    err e = {0};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        cJSON *v = NULL;
        CHECK_OK(json_parse(&v, same[i], strlen(same[i]), "test", &e), e);
        cJSON *copy = cJSON_Duplicate(v, true);
        char *text = json_text(copy);
        CHECK_STR(text, same[i]);
        mem_free(text);
        cJSON_Delete(copy);
        cJSON_Delete(v);
    }
    cJSON *v = NULL;
    buf out = {.max = 100};
    CHECK_OK(json_parse(&v, "[9007199254740992, 9007199254740993, 1e20]", 42, "test", &e), e);
    CHECK(v && !v->child->valuestring && v->child->next->valuestring && !v->child->next->next->valuestring);
    CHECK_OK(json_canonical(&out, v, &e), e); /* RFC 8785 knows doubles only */
    CHECK_STR(buf_str(&out), "[9007199254740992,9007199254740992,100000000000000000000]");
    buf_free(&out);
    cJSON_Delete(v);
    int refused = 0;
    for (int n = 0; n < 100; n++) {
        mem_fail_after(n);
        err_code rc = json_parse(&v, same[1], strlen(same[1]), "test", &e);
        mem_fail_after(-1);
        cJSON_Delete(v);
        if (rc == ERR_OK) break;
        CHECK_INT(rc, ERR_NOMEM);
        CHECK(!v);
        refused++;
    }
    CHECK_INT(refused, 1); /* the digits; nodes have an allocator of their own, and few keys need none */
}

TEST(typed_reads) {
    err e;
    cJSON *v;
    const char *text = "{\"s\":\"x\",\"n\":1.5,\"i\":7,\"b\":true,\"z\":null,\"big\":1e300}";
    CHECK_OK(json_parse(&v, text, strlen(text), "t", &e), e);
    const char *s = "default";
    int64_t i = 42;
    double d = 0;
    bool b = false;
    CHECK_OK(json_get_str(v, "s", &s, &e), e);
    CHECK_STR(s, "x");
    CHECK_OK(json_get_int(v, "z", 0, 10, &i, &e), e); /* null counts as absent */
    CHECK_INT(i, 42);
    CHECK_OK(json_get_int(v, "i", 0, 10, &i, &e), e);
    CHECK_INT(i, 7);
    CHECK_INT(json_get_int(v, "i", 0, 6, &i, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "'i'");
    CHECK_INT(json_get_int(v, "n", 0, 6, &i, &e), ERR_INVALID);
    CHECK_INT(json_get_int(v, "big", INT64_MIN, INT64_MAX, &i, &e), ERR_INVALID);
    CHECK_OK(json_get_num(v, "n", 0, 2, &d, &e), e);
    CHECK(d == 1.5);
    CHECK_INT(json_get_bool(v, "s", &b, &e), ERR_INVALID);
    CHECK_OK(json_get_bool(v, "b", &b, &e), e);
    CHECK(b);
    cJSON_Delete(v);
}

TEST(writer) {
    buf b = {.max = 4096};
    jw w;
    jw_init(&w, &b);
    jw_obj(&w);
    jw_kstr(&w, "a", "x\"\n");
    jw_key(&w, "l");
    jw_arr(&w);
    jw_int(&w, -1);
    jw_num(&w, 0.5);
    jw_obj(&w);
    jw_obj_end(&w);
    jw_arr_end(&w);
    jw_kbool(&w, "t", true);
    jw_kstr(&w, "n", NULL);
    jw_knum(&w, "nan", NAN);
    jw_obj_end(&w);
    CHECK_STR(buf_str(&b), "{\"a\":\"x\\\"\\n\",\"l\":[-1,0.5,{}],\"t\":true,\"n\":null,\"nan\":null}");
    buf_reset(&b);
    json_string(&b,
                "a\xff"
                "b",
                3);
    CHECK_STR(buf_str(&b), "\"a\xef\xbf\xbd"
                           "b\"");
    buf_free(&b);
}

/* ---- memory of trees ---------------------------------------------------------------------------------------- */

enum { TREES = 8, ROUNDS = 300 };
static cJSON *_Atomic table[TREES]; /* trees that wait for a thread to drop them */

static const char *const sample =
    "{\"a\":[1,2,3,{\"b\":\"a text that is longer than a block of memory for a node is, "
    "so that it comes from elsewhere\"}],\"c\":{\"d\":[true,null,\"e\",\"f\"],\"g\":0.5}}";

static void *exchange_trees(void *arg) {
    int *wrong = arg;
    buf b = {.max = 1000};
    err e;
    for (int i = 0; i < ROUNDS; i++) {
        cJSON *v = NULL;
        if (json_parse(&v, sample, strlen(sample), "text", &e) != ERR_OK) ++*wrong;
        v = atomic_exchange(&table[i % TREES], v); /* one that most often another thread has made */
        buf_reset(&b);
        if (v && (json_canonical(&b, v, &e) != ERR_OK || strcmp(buf_str(&b), sample) != 0)) ++*wrong;
        cJSON_Delete(v);
    }
    buf_free(&b);
    return NULL;
}

/* What breaks it: a block that two trees get, or one that goes with the thread that dropped it. */
TEST(trees_go_from_thread_to_thread) {
    enum { N = 6 };
    int wrong[N] = {0};
    for (int round = 0; round < 4; round++) { /* threads end between, with blocks of their own */
        pthread_t t[N];
        for (int i = 0; i < N; i++) CHECK(pthread_create(&t[i], NULL, exchange_trees, &wrong[i]) == 0);
        for (int i = 0; i < N; i++) pthread_join(t[i], NULL);
    }
    for (int i = 0; i < N; i++) CHECK_INT(wrong[i], 0);
    for (int i = 0; i < TREES; i++) cJSON_Delete(atomic_exchange(&table[i], NULL));
}

static void *parse_a_little(void *unused) {
    cJSON *v = NULL;
    if (json_parse(&v, "[1,2,3,4,5]", 11, "text", NULL) == ERR_OK) cJSON_Delete(v);
    return unused;
}

static cJSON *numbers(int n) {
    cJSON *v = cJSON_CreateArray();
    for (int i = 0; i < n; i++) cJSON_AddItemToArray(v, cJSON_CreateNumber(i));
    return v;
}

/* What breaks it: a thread that takes a batch of blocks, needs few of them and ends. Threads of the crew end often. */
TEST(a_thread_that_ends_loses_no_blocks) {
    cJSON_Delete(numbers(4000));
    for (int i = 0; i < 1000; i++) { /* batches of twice the pool */
        pthread_t t;
        CHECK(pthread_create(&t, NULL, parse_a_little, NULL) == 0);
        pthread_join(t, NULL);
    }
    size_t before = mallinfo2().uordblks;
    cJSON *v = numbers(4000);
    size_t after = mallinfo2().uordblks;
    cJSON_Delete(v);
    if (after > before + 4000 * sizeof(cJSON) / 2) FAIL("%zu bytes of 4,000 nodes are not the pool's", after - before);
}

/* What breaks it: a block that finds no place, or an allocator's that is taken for one of the pool. */
TEST(trees_may_be_larger_than_their_memory) {
    for (int round = 0; round < 2; round++) {
        cJSON *v = numbers(50000);
        CHECK_INT(cJSON_GetArraySize(v), 50000);
        int i = 0;
        for (const cJSON *at = v->child; at && at->valueint == i; at = at->next) i++;
        CHECK_INT(i, 50000);
        cJSON_Delete(v);
    }
}

/* ---- without a tree ---- */

static uint64_t dice_state;
static unsigned dice(unsigned n) {
    dice_state = dice_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned)(dice_state >> 33) % n;
}

/* The same members, written flat and put into a tree. */
static void both(jflat *f, cJSON *o, int depth) {
    static const char *const keys[] = {"b",   "a",        "\xef\xac\xb3", "\xf0\x9f\x98\x80", "zz",  "time", "aa",
                                       "a b", "\xc3\xa9", "v\n",          "content",          "k\"", "10",   "9",
                                       "",    "Z"};
    static const char *const texts[] = {"", "plain", "caf\xc3\xa9 \"x\"\n", ",", "}", "\x01\x7f \\ /"};
    bool array = cJSON_IsArray(o);
    unsigned n = dice(depth ? 9 : 14), from = dice(16), step = 1 + 2 * dice(8); /* odd: no key comes twice */
    for (unsigned i = 0; i < n; i++) {
        const char *key = array ? NULL : keys[(from + i * step) % 16], *text = texts[dice(6)];
        double number = dice(2) ? dice(1000) : (double)dice(1u << 30) / 7 * (dice(2) ? 1e-9 : -1e15);
        unsigned kind = dice(depth < 5 ? 6 : 4);
        cJSON *v = kind == 0   ? cJSON_CreateString(text)
                   : kind == 1 ? cJSON_CreateNumber(number)
                   : kind == 2 ? cJSON_CreateBool(i & 1)
                   : kind == 3 ? cJSON_Parse("{\"q\":[1,{\"z\":null,\"a\":\"\"}],\"b\":true}")
                   : kind == 4 ? cJSON_CreateObject()
                               : cJSON_CreateArray();
        if (kind == 0) jflat_str(f, key, text);
        if (kind == 1) jflat_num(f, key, number);
        if (kind == 2) jflat_bool(f, key, i & 1);
        if (kind == 3) jflat_tree(f, key, v);
        if (kind == 4) jflat_obj(f, key);
        if (kind == 5) jflat_arr(f, key);
        if (kind > 3) both(f, v, depth + 1);
        if (kind > 3) jflat_end(f);
        if (array)
            cJSON_AddItemToArray(o, v);
        else
            cJSON_AddItemToObject(o, key, v);
    }
}

TEST(flat_json_has_the_bytes_of_the_tree) {
    for (unsigned i = 0; i < 3000; i++) {
        err e;
        jflat f;
        buf a = {.max = 1 << 20}, b = {.max = 1 << 20};
        cJSON *o = cJSON_CreateObject();
        dice_state = i;
        jflat_init(&f, 1 << 20);
        both(&f, o, 0);
        CHECK_OK(json_canonical(&a, o, &e), e);
        CHECK_OK(jflat_write(&f, NULL, &b, &e), e);
        if (strcmp(buf_str(&a), buf_str(&b)) != 0) FAIL("case %u: %s, not %s", i, buf_str(&b), buf_str(&a));
        jflat_free(&f);
        cJSON_Delete(o);
        buf_free(&a);
        buf_free(&b);
    }
}

TEST(two_flat_halves_are_one_object) {
    err e;
    jflat f, g, inner;
    buf b = {.max = 1 << 16};
    jflat_init(&f, 1000);
    jflat_init(&g, 1000);
    jflat_init(&inner, 10000);
    CHECK_OK(jflat_write(&f, NULL, &b, &e), e);
    CHECK_STR(buf_str(&b), "{}");
    jflat_str(&inner, "y", "1");
    jflat_num(&inner, "x", 2);
    jflat_str(&f, "d", "D");
    jflat_str(&f, "b", "B");
    jflat_object(&g, "c", &inner);
    jflat_bool(&g, "a", false);
    buf_reset(&b);
    CHECK_OK(jflat_write(&f, &g, &b, &e), e);
    CHECK_STR(buf_str(&b), "{\"a\":false,\"b\":\"B\",\"c\":{\"x\":2,\"y\":\"1\"},\"d\":\"D\"}");
    buf_reset(&b);
    jflat_str(&g, "d", "again"); /* a key of the other half */
    CHECK_INT(jflat_write(&f, &g, &b, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "\"d\" stands twice");
    for (int i = 0; i < 100; i++) jflat_num(&inner, i % 2 ? "many" : "much", i); /* more than the few; and twice */
    CHECK_INT(jflat_write(&inner, NULL, &b, &e), ERR_INVALID);
    jflat_free(&f);
    jflat_free(&g);
    jflat_wipe(&inner);
    buf_free(&b);
}

static err_code flat_of(void (*put)(jflat *f), err *e) {
    jflat f;
    buf b = {.max = 1 << 20};
    jflat_init(&f, 64);
    put(&f);
    err_code rc = jflat_write(&f, NULL, &b, e);
    jflat_free(&f);
    buf_free(&b);
    return rc;
}
static void put_nan(jflat *f) {
    jflat_num(f, "x", NAN);
    jflat_num(f, "y", 1);
}
static void put_broken(jflat *f) {
    jflat_str(f, "x", "\xff");
}
static void put_twice(jflat *f) {
    jflat_obj(f, "o");
    jflat_num(f, "x", 1);
    jflat_num(f, "w", 1);
    jflat_num(f, "x", 1);
    jflat_end(f);
}
static void put_deep(jflat *f) {
    for (int i = 0; i < JFLAT_LEVELS + 2; i++) jflat_obj(f, "x");
    for (int i = 0; i < JFLAT_LEVELS + 2; i++) jflat_end(f);
}
static void put_deep_tree(jflat *f) {
    cJSON *all = cJSON_CreateArray(), *v = all;
    for (int i = 1; i < JSON_DEPTH_MAX; i++) {
        cJSON *inner = cJSON_CreateArray();
        cJSON_AddItemToArray(v, inner);
        v = inner;
    }
    jflat_tree(f, "x", all); /* as deep as may be by itself, and one level deeper here */
    cJSON_Delete(all);
}
static void put_long(jflat *f) {
    jflat_str(f, "x", "0123456789012345678901234567890123456789012345678901234567890123456789");
}
static void put_open(jflat *f) {
    jflat_arr(f, "x");
}

TEST(flat_json_refuses_what_would_not_read_back) {
    err e;
    static const struct {
        void (*put)(jflat *f);
        err_code rc;
    } rows[] = {{put_nan, ERR_INVALID},  {put_broken, ERR_INVALID},    {put_twice, ERR_INVALID},
                {put_deep, ERR_INVALID}, {put_deep_tree, ERR_INVALID}, {put_long, ERR_TOO_LARGE},
                {put_open, ERR_INTERNAL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) CHECK_INT(flat_of(rows[i].put, &e), rows[i].rc);
    for (int64_t k = 0; k < 12; k++) { /* each allocation in turn */
        mem_fail_after(k);
        err_code rc = flat_of(put_long, &e);
        mem_fail_after(-1);
        CHECK(rc == ERR_NOMEM || rc == ERR_TOO_LARGE);
    }
}

/* Eight bytes at a time see what one at a time would, wherever the odd one stands. */
TEST(plain_bytes_are_counted_exactly) {
    char t[40];
    for (size_t n = 0; n < sizeof t; n++)
        for (size_t at = 0; at <= n; at++)
            for (unsigned c = 0; c < 256; c++) {
                for (size_t i = 0; i < n; i++) t[i] = (char)('a' + (i + c) % 26);
                if (at < n) t[at] = (char)c;
                if (at + 2 < n) t[at + 2] = '\n';
                bool plain = c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
                size_t want = at < n && !plain ? at : at + 2 < n ? at + 2 : n;
                if (json_plain(t, n) != want) FAIL("%zu bytes, %u at %zu: %zu", n, c, at, json_plain(t, n));
            }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(numbers_as_in_rfc8785);
    RUN(numbers_read_back);
    RUN(canonical_form);
    RUN(parse_refuses);
    RUN(trees_are_as_cjson_makes_them);
    RUN(a_tree_without_memory_is_none);
    RUN(long_numbers_keep_their_digits);
    RUN(typed_reads);
    RUN(writer);
    RUN(trees_go_from_thread_to_thread);
    RUN(a_thread_that_ends_loses_no_blocks);
    RUN(trees_may_be_larger_than_their_memory);
    RUN(plain_bytes_are_counted_exactly);
    RUN(flat_json_has_the_bytes_of_the_tree);
    RUN(two_flat_halves_are_one_object);
    RUN(flat_json_refuses_what_would_not_read_back);
    return test_end();
}
