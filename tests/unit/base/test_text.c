/* buf, bytes, UTF-8 and errors: limits hold, decoding is strict, foreign bytes never pass raw. */
#include "base/bytes.h"
#include "base/mem.h"
#include "harness.h"

TEST(buf_limits) {
    buf b = {.max = 5};
    buf_puts(&b, "abc");
    CHECK_STR(buf_str(&b), "abc");
    buf_puts(&b, "def"); /* would be 6 bytes */
    CHECK(b.failed && b.over_max);
    err e;
    CHECK_INT(buf_check(&b, "the answer", &e), ERR_TOO_LARGE);
    CHECK_HAS(e.msg, "the answer");
    CHECK_STR(buf_str(&b), "");
    buf_reset(&b);
    buf_puts(&b, "12345");
    CHECK_STR(buf_str(&b), "12345");
    buf_free(&b);
}

TEST(buf_survives_failed_allocation) {
    buf b = {.max = 1000};
    mem_fail_after(0);
    buf_puts(&b, "x");
    mem_fail_after(-1);
    err e;
    CHECK_INT(buf_check(&b, "x", &e), ERR_NOMEM);
    CHECK(buf_take(&b) == NULL);
}

TEST(buf_integers) {
    buf b = {.max = 100};
    buf_be(&b, 0x0102030405060708u, 8);
    buf_be(&b, 0xfffe, 2);
    CHECK_INT(b.len, 10);
    CHECK(be_get((uint8_t *)b.ptr, 8) == 0x0102030405060708u);
    CHECK_INT(be_get((uint8_t *)b.ptr + 8, 2), 0xfffe);
    buf_free(&b);
}

static const char *sha_hex(const char *s, char hex[65]) {
    uint8_t d[SHA256_LEN];
    sha256_of(d, s, strlen(s));
    hex_encode(hex, d, sizeof d);
    return hex;
}

/* FIPS 180-4 examples and RFC 4231 case 2. */
TEST(hashes_match_published_vectors) {
    char hex[65];
    CHECK_STR(sha_hex("", hex), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK_STR(sha_hex("abc", hex), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    uint8_t mac[SHA256_LEN];
    hmac_sha256(mac, "Jefe", 4, "what do ya want for nothing?", 28);
    hex_encode(hex, mac, sizeof mac);
    CHECK_STR(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    sha256 s;
    sha256_init(&s);
    sha256_update(&s, "a", 1);
    sha256_update(&s, "bc", 2);
    sha256_final(&s, mac);
    hex_encode(hex, mac, sizeof mac);
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(base64_is_strict) {
    static const struct {
        const char *text, *bytes;
    } good[] = {{"", ""}, {"Zg==", "f"}, {"Zm8=", "fo"}, {"Zm9v", "foo"}, {"Zm9vYmFy", "foobar"}}; /* RFC 4648 §10 */
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char out[16];
        size_t n = 99;
        CHECK(base64_decode(out, sizeof out, &n, good[i].text, strlen(good[i].text)));
        CHECK_INT(n, strlen(good[i].bytes));
        CHECK(memcmp(out, good[i].bytes, n) == 0);
        buf b = {.max = 64};
        base64_encode(&b, good[i].bytes, strlen(good[i].bytes));
        CHECK_STR(buf_str(&b), good[i].text);
        buf_free(&b);
    }
    /* unused bits set, padding missing or in the wrong place, foreign characters, white space */
    static const char *const bad[] = {
        "Zh==", "Zm9=", "Zg=", "Zg", "Z===", "=Zg=", "Zg==Zg==", "Zm9v\n", "Zm-v", " Zg="};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char out[16];
        size_t n;
        if (base64_decode(out, sizeof out, &n, bad[i], strlen(bad[i]))) FAIL("accepted \"%s\"", bad[i]);
    }
    char small[2];
    size_t n;
    CHECK(!base64_decode(small, sizeof small, &n, "Zm9v", 4)); /* longer than the room given */
}

TEST(hex_is_strict) {
    uint8_t b[2];
    CHECK(hex_decode(b, 2, "00ff", 4) && b[1] == 0xff);
    CHECK(!hex_decode(b, 2, "00FF", 4));
    CHECK(!hex_decode(b, 2, "00f", 3));
    CHECK(!hex_decode(b, 2, "00fg", 4));
}

TEST(words_of_http_are_found) {
    static const struct {
        const char *list, *word;
        bool has;
    } t[] = {
        {"close", "close", true},    {"Keep-Alive , CLOSE\t", "close", true},
        {" ,,close", "close", true}, {"closed", "close", false},
        {"clos", "close", false},    {"not close", "close", false},
        {"", "close", false},        {",", "close", false},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (text_list_has(t[i].list, strlen(t[i].list), t[i].word) != t[i].has) FAIL("\"%s\"", t[i].list);
    CHECK(!text_list_has("close", 4, "close"));
    CHECK_INT(text_token("Content-Length: 5", 17), 14);
    CHECK_INT(text_token("!#$%&'*+-.^_`|~09azAZ", 21), 21);
    for (const char *p = "\"(),/:;<=>?@[\\]{} \t\x7f\x80"; *p; p++) CHECK_INT(text_token(p, 1), 0);
    CHECK_INT(text_token("\0a", 2), 0);
    CHECK(hex_value('0') == 0 && hex_value('a') == 10 && hex_value('F') == 15);
    CHECK(hex_value('g') < 0 && hex_value('@') < 0 && hex_value(':') < 0 && hex_value('\x80') < 0);
}

TEST(utf8_follows_rfc3629) {
    static const struct {
        const char *s;
        size_t n;
        int want;
        uint32_t cp;
    } t[] = {
        {"A", 1, 1, 'A'},
        {"\xc3\xa9", 2, 2, 0xe9},
        {"\xe2\x82\xac", 3, 3, 0x20ac},
        {"\xf0\x9f\x98\x80", 4, 4, 0x1f600},
        {"\xf4\x8f\xbf\xbf", 4, 4, 0x10ffff},
        {"\xc0\x80", 2, 0, 0},
        {"\xc1\xbf", 2, 0, 0},
        {"\xe0\x80\x80", 3, 0, 0}, /* overlong */
        {"\xed\xa0\x80", 3, 0, 0},
        {"\xf4\x90\x80\x80", 4, 0, 0},
        {"\xf5", 1, 0, 0}, /* surrogate, too large */
        {"\x80", 1, 0, 0},
        {"\xff", 1, 0, 0},
        {"\xc3\x28", 2, 0, 0},
        {"\xc3", 1, -1, 0},
        {"\xe2\x82", 2, -1, 0},
        {"\xf0\x9f\x98", 3, -1, 0},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        uint32_t cp = 0;
        int got = utf8_decode(&cp, t[i].s, t[i].n);
        if (got != t[i].want || (got > 0 && cp != t[i].cp)) FAIL("case %zu: %d, U+%04X", i, got, cp);
    }
    for (uint32_t cp = 1; cp <= 0x10ffff; cp += cp < 0x11000 ? 1 : 257) { /* encoding and decoding agree */
        if (cp >= 0xd800 && cp < 0xe000) continue;
        char s[4];
        uint32_t back;
        int n = utf8_encode(s, cp);
        if (utf8_decode(&back, s, (size_t)n) != n || back != cp) FAIL("U+%04X does not come back", cp);
    }
    CHECK_INT(utf8_tail("a\xe2\x82", 3), 2);
    CHECK_INT(utf8_tail("a\xe2\x82\xac", 4), 0);
    CHECK_INT(utf8_tail("\xf0\x9f\x98", 3), 3);
    CHECK(utf8_valid("plain ascii \xc3\xa9 and more text", 28));
    CHECK(!utf8_valid("0123456789abcde\xff", 16));
}

TEST(foreign_bytes_are_shown_safely) {
    buf b = {.max = 200};
    const char in[] = "a\x1b[31mred\r\nb\xff\xe2\x80\xae\xc2\x9b";
    text_sanitise(&b, in, sizeof in - 1, true);
    CHECK_STR(buf_str(&b), "a?[31mred?\nb???");
    buf_free(&b);
    err e;
    err_set(&e, ERR_INVALID, "name \"%s\"", "x\x1b]0;\x07\xff");
    CHECK_STR(e.msg, "name \"x?]0;??\"");
}

TEST(errors_have_names_and_codes) {
    CHECK_STR(err_name(ERR_TOO_LARGE), "too_large");
    CHECK_INT(err_http_status(ERR_BUSY), 429);
    CHECK_INT(err_exit_code(ERR_NO), 1);
    CHECK_INT(err_exit_code(ERR_USAGE), 2);
    CHECK_INT(err_exit_code(ERR_CORRUPT), 3);
    err e;
    err_set(&e, ERR_INVALID, "second");
    CHECK_INT(err_prefix(&e, "first %d", 1), ERR_INVALID);
    CHECK_STR(e.msg, "first 1: second");
    char big[2000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    err_set(&e, ERR_IO, "%s", big);
    err_prefix(&e, "%s", big);
    CHECK(strlen(e.msg) < ERR_MSG_MAX);
    CHECK_INT(err_set(NULL, ERR_IO, "x"), ERR_IO);
}

TEST(arena_limit_and_reset) {
    arena *a = arena_new(10000);
    CHECK(a);
    char *p = arena_alloc(a, 100);
    CHECK(p && ((uintptr_t)p & 15) == 0 && p[99] == 0);
    CHECK(arena_alloc(a, 9000));
    CHECK(!arena_alloc(a, 9000)); /* past the limit */
    CHECK_STR(arena_strndup(a, "hello", 4), "hell");
    arena_reset(a);
    CHECK(arena_alloc(a, 9000));
    CHECK(!arena_alloc(a, SIZE_MAX - 3));
    arena_free(a);
}

TEST(text_is_copied_as_far_as_it_fits) {
    static const char *const texts[] = {"", "a", "abc", "abcd", "abcde", "abcdefghij"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (size_t cap = 1; cap < 8; cap++) {
            char mine[9], theirs[9];
            memset(mine, '#', sizeof mine);
            memset(theirs, '#', sizeof theirs);
            text_copy(mine, cap, texts[i]);
            (void)!snprintf(theirs, cap, "%s", texts[i]);
            size_t used = strlen(theirs) + 1;
            if (memcmp(mine, theirs, used) != 0) FAIL("%s into %zu: %s", texts[i], cap, mine);
            for (size_t k = used; k < sizeof mine; k++) CHECK(mine[k] == '#');
        }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(buf_limits);
    RUN(buf_survives_failed_allocation);
    RUN(buf_integers);
    RUN(hashes_match_published_vectors);
    RUN(base64_is_strict);
    RUN(hex_is_strict);
    RUN(words_of_http_are_found);
    RUN(utf8_follows_rfc3629);
    RUN(foreign_bytes_are_shown_safely);
    RUN(errors_have_names_and_codes);
    RUN(arena_limit_and_reset);
    RUN(text_is_copied_as_far_as_it_fits);
    return test_end();
}
