#include "base/buf.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

void buf_init(buf *b, size_t max_bytes) {
    *b = (buf){.max = max_bytes};
}

void buf_free(buf *b) {
    mem_free(b->ptr);
    *b = (buf){.max = b->max};
}

void buf_reset(buf *b) {
    b->len = 0;
    b->failed = b->over_max = false;
    if (b->ptr) b->ptr[0] = 0;
}

bool buf_reserve(buf *b, size_t extra) {
    if (b->failed) return false;
    if (extra > b->max || b->len > b->max - extra) {
        b->failed = b->over_max = true;
        return false;
    }
    size_t need = b->len + extra + 1;
    if (need <= b->cap) return true;
    size_t cap = b->cap < 128 ? 128 : 2 * b->cap;
    if (cap < need) cap = need;
    if (cap > b->max + 1) cap = b->max + 1;
    char *p = mem_realloc(b->ptr, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->ptr = p;
    b->cap = cap;
    return true;
}

void buf_append(buf *b, const void *p, size_t n) {
    if (!buf_reserve(b, n)) return;
    if (n) memcpy(b->ptr + b->len, p, n);
    b->len += n;
    b->ptr[b->len] = 0;
}

void buf_puts(buf *b, const char *s) {
    buf_append(b, s, strlen(s));
}
void buf_putc(buf *b, char c) {
    if (b->failed || b->cap < 2 || b->len > b->cap - 2) { /* cap is within max */
        buf_append(b, &c, 1);
        return;
    }
    b->ptr[b->len++] = c;
    b->ptr[b->len] = 0;
}

void buf_vprintf(buf *b, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n < 0)
        b->failed = true;
    else if (buf_reserve(b, (size_t)n)) {
        vsnprintf(b->ptr + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void buf_printf(buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

void buf_be(buf *b, uint64_t v, int n_bytes) {
    unsigned char p[8];
    for (int i = n_bytes - 1; i >= 0; i--, v >>= 8) p[i] = (unsigned char)v;
    buf_append(b, p, (size_t)n_bytes);
}

char *buf_take(buf *b) {
    if (!b->failed && !b->ptr) buf_append(b, "", 0);
    char *p = b->failed ? NULL : b->ptr;
    if (b->failed) mem_free(b->ptr);
    *b = (buf){.max = b->max};
    return p;
}

const char *buf_str(const buf *b) {
    return b->ptr && !b->failed ? b->ptr : "";
}

err_code buf_check(const buf *b, const char *what, err *e) {
    if (!b->failed) return ERR_OK;
    if (b->over_max) return err_set(e, ERR_TOO_LARGE, "%s: larger than the limit of %zu bytes", what, b->max);
    return err_nomem(e, what);
}
