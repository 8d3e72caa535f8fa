/* A growing byte buffer with a maximum given at creation (every buffer fed from outside has one).
 *
 * Failure is sticky: once an append fails (out of memory, or past max), `failed` stays set, later appends do
 * nothing, and the caller checks once at the end with buf_check. ptr[len] is always NUL once anything was
 * appended. A zero-initialised buf with max set is valid: `buf b = {.max = 4096};`
 * Ownership: the buf owns ptr until buf_free or buf_take.
 */
#ifndef POLDER_BASE_BUF_H
#define POLDER_BASE_BUF_H

#include "base/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct buf {
    char *ptr;
    size_t len, cap;
    size_t max; /* largest len allowed, bytes */
    bool failed;
    bool over_max; /* failed because of max, not of memory */
} buf;

void buf_init(buf *b, size_t max_bytes);
void buf_free(buf *b);  /* and wipe nothing; zeroes the struct, keeps max */
void buf_reset(buf *b); /* len = 0, keeps memory, clears failed */
void buf_append(buf *b, const void *p, size_t n);
void buf_puts(buf *b, const char *s);
void buf_putc(buf *b, char c);
void buf_printf(buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
bool buf_reserve(buf *b, size_t extra);
void buf_be(buf *b, uint64_t v, int n_bytes); /* big endian integer of 1 to 8 bytes */
char *buf_take(buf *b);                       /* the bytes, NUL-terminated, mem_free by the caller; NULL where failed */
const char *buf_str(const buf *b);            /* never NULL */
/* ERR_OK, or ERR_TOO_LARGE / ERR_NOMEM with a sentence about `what`. */
err_code buf_check(const buf *b, const char *what, err *e);

#endif
