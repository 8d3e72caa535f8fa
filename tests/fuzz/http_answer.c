/* The answer of an HTTP server: the first byte says where the input is cut. Cut otherwise, the same comes out: status,
 * body, how it ended. What would break it: a read past the end, a piece that is not inside of what was given, a line
 * that can be used again although something was wrong. */
#include "inference/drivers/http_answer.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok) {
    if (!ok) abort();
}

static void run(http_answer *h, buf *body, const char *p, size_t n, size_t step) {
    http_answer_init(h);
    for (size_t at = 0; at < n;) {
        const char *from = p + at, *q = from, *piece;
        size_t given = n - at < step ? n - at : step, k = given, len;
        at += given;
        while (http_answer_next(h, &q, &k, &piece, &len)) {
            must(len > 0 && piece >= from && piece + len <= from + given && q + k == from + given);
            buf_append(body, piece, len);
        }
        must(!h->no_memory && (!k || h->part == HTTP_OVER || h->bad));
        must(!k || !h->keep);
    }
    must(h->head_bytes <= HTTP_HEAD_MAX && h->status >= 0 && h->status < 1000);
    must(h->retry_after_s >= 0 && h->retry_after_s <= 86400);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    base_init();
    const char *p = (const char *)data + 1;
    http_answer a = {0}, b = {0};
    buf one = {.max = 1 << 24}, other = {.max = 1 << 24};
    run(&a, &one, p, size - 1, size);
    run(&b, &other, p, size - 1, 1 + data[0] % 7);
    must(a.status == b.status && a.part == b.part && a.bad == b.bad && a.left == b.left);
    must(a.part != HTTP_OVER || a.bad || a.keep == b.keep);
    must(one.len == other.len && (!one.len || memcmp(one.ptr, other.ptr, one.len) == 0));
    must(http_answer_end(&a) == http_answer_end(&b) && !a.keep);
    http_answer_free(&a);
    http_answer_free(&b);
    buf_free(&one);
    buf_free(&other);
    return 0;
}
