/* The head of an HTTP request and a body in chunks: the first byte says where the input is cut. Cut otherwise, the head
 * ends at the same place and the same body comes out. What would break it: a read past the end, a head that ends
 * elsewhere than its empty line, a name or value with a byte that could end it, a piece outside of what was given. */
#include "server/http_head.h"

#include "base/buf.h"
#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok) {
    if (!ok) abort();
}

static void plain(const char *s, size_t n) {
    must(strlen(s) == n);
    for (size_t i = 0; i < n; i++) must(((unsigned char)s[i] >= 0x20 && s[i] != 0x7f) || s[i] == '\t');
}

static void read_head(const char *p, size_t n, size_t step) {
    size_t from = 0, whole = 0, len = 0, at = 0;
    must((whole = http_head_length(p, n, &from)) <= n);
    from = 0;
    while (!len && at < n) {
        at = n - at < step ? n : at + step;
        len = http_head_length(p, at, &from);
    }
    must(len == whole);
    if (!len) return;
    char *copy = malloc(len); /* exactly: a byte behind it is found */
    if (!copy) abort();
    memcpy(copy, p, len);
    http_head h;
    if (http_head_read(&h, copy, len, NULL) == ERR_OK) {
        plain(h.method, strlen(h.method));
        must(*h.method && *h.target && !strchr(h.target, ' ') && !strchr(h.query, ' '));
        for (unsigned i = 0; i < h.n; i++) {
            must(h.fields[i].n_name > 0);
            plain(h.fields[i].name, h.fields[i].n_name);
            plain(h.fields[i].value, h.fields[i].n_value);
        }
        size_t k;
        (void)http_field_value(&h, "host");
        (void)http_query_value(&h, "stream", &k);
    }
    free(copy);
}

static void read_body(http_chunks *c, buf *body, const char *p, size_t n, size_t step) {
    for (size_t at = 0; at < n && !c->over && !c->bad;) {
        const char *from = p + at, *q = from, *piece;
        size_t given = n - at < step ? n - at : step, k = given, len;
        while (http_chunks_next(c, &q, &k, &piece, &len)) {
            must(len > 0 && piece >= from && piece + len <= from + given && q + k == from + given);
            buf_append(body, piece, len);
        }
        must(!k || c->over || c->bad);
        at += given;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    base_init();
    const char *p = (const char *)data + 1;
    size_t n = size - 1, step = 1 + data[0] % 7;
    read_head(p, n, step);
    http_chunks a = {0}, b = {0};
    buf one = {.max = 1 << 24}, other = {.max = 1 << 24};
    read_body(&a, &one, p, n, size);
    read_body(&b, &other, p, n, step);
    must(a.over == b.over && a.bad == b.bad && a.left == b.left);
    must(one.len == other.len && (!one.len || memcmp(one.ptr, other.ptr, one.len) == 0));
    buf_free(&one);
    buf_free(&other);
    return 0;
}
