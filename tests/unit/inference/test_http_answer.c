/* Answers of HTTP/1.1 as servers send them, and as none should: each is read whole and cut into pieces of every size,
 * which must make no difference. */
#include "inference/drivers/http_answer.h"

#include "base/bytes.h"
#include "base/mem.h"
#include "harness.h"

#include <string.h>

typedef struct sample {
    const char *bytes;
    int status;
    const char *body;
    bool over, keep;  /* where all bytes were read and the connection stayed open */
    bool closes_well; /* over, once the connection has ended */
    const char *bad;
} sample;

#define OK_HEAD "HTTP/1.1 200 OK\r\n"
#define CHUNKED OK_HEAD "Transfer-Encoding: chunked\r\n\r\n"

static const sample samples[] = {
    {OK_HEAD "Content-Length: 5\r\n\r\nhello", 200, "hello", true, true, true, NULL},
    {OK_HEAD "content-length:5\r\n\r\nhello", 200, "hello", true, true, true, NULL},
    {"HTTP/1.1 200\nContent-Length: 2\n\nab", 200, "ab", true, true, true, NULL},
    {OK_HEAD "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", true, true, true, NULL},
    {OK_HEAD "Content-Length: 0\r\n\r\n", 200, "", true, true, true, NULL},
    {OK_HEAD "Content-Length: 5\r\n\r\nhel", 200, "hel", false, false, false, NULL},
    {OK_HEAD "Content-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n", 200, "ab", true, false, true, NULL},
    {OK_HEAD "Content-Length: 2\r\nConnection: close\r\n\r\nab", 200, "ab", true, false, true, NULL},
    {OK_HEAD "Content-Length: 2\r\nConnection: x , Close\r\n\r\nab", 200, "ab", true, false, true, NULL},
    {OK_HEAD "Content-Length: 2\r\nConnection: closed\r\n\r\nab", 200, "ab", true, true, true, NULL},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", 200, "ab", true, false, true, NULL},
    {OK_HEAD "\r\nuntil the end", 200, "until the end", false, false, true, NULL},
    {"HTTP/1.1 204 No Content\r\n\r\n", 204, "", true, true, true, NULL},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, "", true, true, true, NULL},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Busy\r\nRetry-After: 7\r\nContent-Length: 1\r\n\r\nx", 429, "x", true,
     true, true, NULL},
    {"HTTP/1.1 103 Early Hints\r\nContent-Length: 7\r\n\r\n" OK_HEAD "Content-Length: 1\r\n\r\nx", 200, "x", true, true,
     true, NULL},
    {CHUNKED "5\r\nhello\r\n0\r\n\r\n", 200, "hello", true, true, true, NULL},
    {CHUNKED "2;a=b\r\nhe\r\n03 \r\nllo\r\n0\r\nTrailer: x\r\n\r\n", 200, "hello", true, true, true, NULL},
    {CHUNKED "A\r\n0123456789\r\n0\r\n\r\n", 200, "0123456789", true, true, true, NULL},
    {CHUNKED "5\r\nhello\r\n", 200, "hello", false, false, false, NULL},
    {OK_HEAD "Transfer-Encoding: Chunked\r\nContent-Length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n", 200, "x", true, false, true,
     NULL},
    {CHUNKED "5\r\nhello!\r\n", 200, "hello", false, false, false, "chunk"},
    {CHUNKED "\r\n", 200, "", false, false, false, "chunk"},
    {CHUNKED "-1\r\n", 200, "", false, false, false, "chunk"},
    {CHUNKED "0x5\r\nhello\r\n", 200, "", false, false, false, "chunk"},
    {CHUNKED "1000000000000000\r\n", 200, "", false, false, false, "chunk"},
    {OK_HEAD "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 200, "", false, false, false, "two lengths"},
    {OK_HEAD "Content-Length: -5\r\n\r\n", 200, "", false, false, false, "no number"},
    {OK_HEAD "Content-Length: 5, 5\r\n\r\n", 200, "", false, false, false, "no number"},
    {OK_HEAD "Content-Length:\r\n\r\n", 200, "", false, false, false, "no number"},
    {OK_HEAD "Content-Length: 9999999999999999999\r\n\r\n", 200, "", false, false, false, "no number"},
    {OK_HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n", 200, "", false, false, false, "coding"},
    {OK_HEAD "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 200, "", false, false, false,
     "coding"},
    {OK_HEAD "Content-Length : 5\r\n\r\n", 200, "", false, false, false, "malformed"},
    {OK_HEAD "X: a\r\n b\r\n\r\n", 200, "", false, false, false, "malformed"},
    {OK_HEAD "no colon\r\n\r\n", 200, "", false, false, false, "malformed"},
    {OK_HEAD ": x\r\n\r\n", 200, "", false, false, false, "malformed"},
    {"HTTP/2 200\r\n\r\n", 0, "", false, false, false, "HTTP/1.1"},
    {"HTTP/1.1 20 OK\r\n\r\n", 0, "", false, false, false, "HTTP/1.1"},
    {"HTTP/1.1 2000\r\n\r\n", 0, "", false, false, false, "HTTP/1.1"},
    {"SSH-2.0-OpenSSH_9.2\r\n", 0, "", false, false, false, "HTTP/1.1"},
    {"\r\n", 0, "", false, false, false, "HTTP/1.1"},
    {"HTTP/1.1 101 Switching Protocols\r\n\r\n", 101, "", false, false, false, "status"},
    {"HTTP/1.1 000 Nothing\r\n\r\n", 0, "", false, false, false, "status"},
    {"HTTP/1.1 2", 0, "", false, false, false, NULL},
    {"", 0, "", false, false, false, NULL},
};

static void read_in_pieces(http_answer *h, const char *bytes, size_t n, size_t step, buf *body) {
    for (size_t at = 0; at < n; at += step) {
        const char *p = bytes + at, *piece;
        size_t k = n - at < step ? n - at : step, len;
        while (http_answer_next(h, &p, &k, &piece, &len)) {
            CHECK(len > 0);
            buf_append(body, piece, len);
        }
    }
}

TEST(answers_are_read) {
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        const sample *s = samples + i;
        size_t n = strlen(s->bytes);
        for (size_t step = 1; step <= n + 1; step++) {
            http_answer h = {0};
            buf body = {.max = 4096};
            http_answer_init(&h);
            read_in_pieces(&h, s->bytes, n, step, &body);
            CHECK_INT(h.status, s->status);
            CHECK_STR(buf_str(&body), s->body);
            CHECK_INT(h.part == HTTP_OVER, s->over);
            if (s->over) CHECK_INT(h.keep, s->keep);
            CHECK_INT(h.bad != NULL, s->bad != NULL);
            if (s->bad) CHECK_HAS(h.bad ? h.bad : "", s->bad);
            if (!s->bad) CHECK_INT(http_answer_end(&h), s->closes_well);
            CHECK(!s->bad || !h.keep || h.part != HTTP_OVER);
            http_answer_free(&h);
            buf_free(&body);
        }
    }
}

TEST(retry_after_is_read) {
    static const struct {
        const char *said;
        int s;
    } want[] = {{"7", 7},
                {" 30 ", 30},
                {"999999", 86400},
                {"-4", 0},
                {"soon", 0},
                {"", 0},
                {"1e3", 0},
                {"Wed, 21 Oct 2015 07:28:00 GMT", 0},
                {"Fri, 31 Dec 2100 23:59:59 GMT", 86400}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        http_answer h = {0};
        buf b = {.max = 4096}, body = {.max = 16};
        http_answer_init(&h);
        buf_printf(&b, "HTTP/1.1 503 No\r\nRetry-After:%s\r\n\r\n", want[i].said);
        read_in_pieces(&h, b.ptr, b.len, b.len, &body);
        CHECK_INT(h.retry_after_s, want[i].s);
        http_answer_free(&h);
        buf_free(&b);
        buf_free(&body);
    }
}

/* A head without an end is given up; chunks without an end are not: an answer may have as many as it likes. */
TEST(heads_have_a_limit) {
    http_answer h = {0};
    buf b = {.max = 1 << 20}, body = {.max = 1 << 20};
    http_answer_init(&h);
    buf_puts(&b, OK_HEAD);
    for (int i = 0; i < 9000; i++) buf_puts(&b, "X-A: b\r\n");
    read_in_pieces(&h, b.ptr, b.len, 1000, &body);
    CHECK_HAS(h.bad ? h.bad : "", "64 KiB");
    http_answer_init(&h); /* one line, in pieces */
    for (int i = 0; i < 70 && !h.bad; i++) {
        char line[1000];
        memset(line, 'x', sizeof line);
        read_in_pieces(&h, line, sizeof line, sizeof line, &body);
    }
    CHECK_HAS(h.bad ? h.bad : "", "64 KiB");
    buf_reset(&b);
    http_answer_init(&h);
    buf_puts(&b, CHUNKED);
    for (int i = 0; i < 50000; i++) buf_puts(&b, "1\r\nx\r\n");
    buf_puts(&b, "0\r\n\r\n");
    read_in_pieces(&h, b.ptr, b.len, 777, &body);
    CHECK(!h.bad && h.part == HTTP_OVER && h.keep);
    CHECK_INT(body.len, 50000);
    http_answer_init(&h);
    buf_reset(&b);
    buf_puts(&b, CHUNKED "1;");
    for (int i = 0; i < 5000; i++) buf_putc(&b, 'e');
    read_in_pieces(&h, b.ptr, b.len, 999, &body);
    CHECK_HAS(h.bad ? h.bad : "", "chunk");
    http_answer_free(&h);
    buf_free(&b);
    buf_free(&body);
}

TEST(lines_without_memory) {
    http_answer h = {0};
    const char *p = "HTTP/1.1 2", *piece;
    size_t n = 10, len;
    http_answer_init(&h);
    mem_fail_after(0);
    CHECK(!http_answer_next(&h, &p, &n, &piece, &len));
    mem_fail_after(-1);
    CHECK(h.no_memory && !h.bad);
    http_answer_free(&h);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(answers_are_read);
    RUN(retry_after_is_read);
    RUN(heads_have_a_limit);
    RUN(lines_without_memory);
    return test_end();
}
