/* Heads of requests and bodies in chunks, byte by byte and at once. Breaks when something is let through that another
 * reader could take otherwise. */
#include "base/buf.h"
#include "harness.h"
#include "server/http_head.h"

static err e;

static err_code read_text(http_head *h, char *copy, size_t cap, const char *text) {
    size_t from = 0, n = strlen(text);
    snprintf(copy, cap, "%s", text);
    size_t len = http_head_length(copy, n, &from);
    return len == n ? http_head_read(h, copy, len, &e) : ERR_NO;
}

TEST(a_head_is_taken_apart) {
    http_head h;
    char copy[512];
    CHECK_OK(read_text(&h, copy, sizeof copy,
                       "\r\nPOST /v1/models?a=1&stream=true HTTP/1.1\r\nHost:  a.example \t\r\nX-Empty:\r\n"
                       "host: b\r\n\r\n"),
             e);
    CHECK_STR(h.method, "POST");
    CHECK_STR(h.target, "/v1/models");
    CHECK_STR(h.query, "a=1&stream=true");
    CHECK(h.v11 && h.n == 3);
    CHECK_STR(http_field_value(&h, "HOST"), "a.example");
    CHECK_STR(http_field_value(&h, "x-empty"), "");
    CHECK(!http_field_value(&h, "x-em"));
    size_t n = 0;
    const char *v = http_query_value(&h, "stream", &n);
    CHECK(v && n == 4 && memcmp(v, "true", 4) == 0);
    CHECK(!http_query_value(&h, "strea", &n) && !http_query_value(&h, "m", &n));
    CHECK_OK(read_text(&h, copy, sizeof copy, "GET / HTTP/1.0\r\n\r\n"), e);
    CHECK(!h.v11 && h.n == 0);
}

TEST(an_end_is_found_wherever_the_bytes_are_cut) {
    static const char text[] = "GET / HTTP/1.1\r\nA: b\r\n\r\nrest\r\n\r\n";
    size_t want = strlen(text) - strlen("rest\r\n\r\n");
    for (size_t cut = 1; cut < want; cut++) {
        size_t from = 0;
        CHECK_INT(http_head_length(text, cut, &from), 0);
        CHECK_INT(http_head_length(text, sizeof text - 1, &from), want);
    }
}

TEST(what_could_be_read_otherwise_is_refused) {
    static const char *const bad[] = {
        "GET / HTTP/1.1\nHost: x\n\n",
        "GET / HTTP/1.1\r\nHost: x\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost x\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
        "GET / HTTP/1.1\r\nA: \x01\r\n\r\n",
        "GET / HTTP/1.1\r\nA\x80: b\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET /  HTTP/1.1\r\n\r\n",
        "GET / a HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "GET ?a=b HTTP/1.1\r\n\r\n",
        "GET /\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET / http/1.1\r\n\r\n",
        "G(T / HTTP/1.1\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        http_head h;
        char copy[512];
        if (read_text(&h, copy, sizeof copy, bad[i]) != ERR_INVALID) FAIL("%s", bad[i]);
    }
    buf many = {.max = 65536};
    buf_puts(&many, "GET / HTTP/1.1\r\n");
    for (unsigned i = 0; i <= HEAD_FIELDS_MAX; i++) buf_puts(&many, "a: b\r\n");
    buf_puts(&many, "\r\n");
    http_head h;
    CHECK_INT(http_head_read(&h, many.ptr, many.len, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "more than 64 header fields");
    buf_free(&many);
}

/* What comes out, and how it ended: "." over, "!" malformed, "" more is needed. */
static const char *chunks_of(const char *text, size_t step, char *out, size_t cap) {
    http_chunks c = {0};
    size_t n = strlen(text), got = 0;
    for (size_t at = 0; at < n && !c.over && !c.bad;) {
        const char *p = text + at, *piece;
        size_t k = n - at < step ? n - at : step, len;
        at += k;
        while (http_chunks_next(&c, &p, &k, &piece, &len))
            for (size_t i = 0; i < len && got + 2 < cap; i++) out[got++] = piece[i];
    }
    if (c.over || c.bad) out[got++] = c.bad ? '!' : '.';
    out[got] = 0;
    return out;
}

TEST(chunks_are_joined_or_refused) {
    static const struct {
        const char *text, *want;
    } t[] = {
        {"4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n", "Wikipedia."},
        {"00A;x=\"y\"\r\n0123456789\r\n0;z\r\nTrailer: x\r\n\r\n", "0123456789."},
        {"4\r\nWiki\r\n", "Wiki"},
        {"0\r\n\r\n", "."},
        {"\r\n", "!"},
        {"g\r\n", "!"},
        {"-1\r\n", "!"},
        {"+1\r\n", "!"},
        {"0x1\r\na\r\n", "!"},
        {"1\na\r\n", "!"},
        {"1\r\nab\r\n", "a!"},
        {"1\r\na\n", "a!"},
        {"1;\n\r\na", "!"},
        {"0\r\nA: b\n\r\n", "!"},
        {"1234567890abcdef\r\n", "!"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        for (size_t step = 1; step < 32; step += 3) {
            char out[64];
            CHECK_STR(chunks_of(t[i].text, step, out, sizeof out), t[i].want);
        }
    }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(a_head_is_taken_apart);
    RUN(an_end_is_found_wherever_the_bytes_are_cut);
    RUN(what_could_be_read_otherwise_is_refused);
    RUN(chunks_are_joined_or_refused);
    return test_end();
}
