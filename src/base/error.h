/* Errors: one table, one struct.
 *
 * A function that can fail returns an err_code and fills an `err` with one sentence for a person:
 * object first, what is wrong, why, what to do ("models/x.gguf: tensor blk.3.ffn_up: offset 91 is past
 * the end of the file"). Bad input never asserts; programmer errors do.
 *
 * Ownership: an err holds no memory of its own; it may live on the stack and be copied.
 * Thread: an err belongs to the caller. NULL is accepted wherever an err* is taken.
 */
#ifndef POLDER_BASE_ERROR_H
#define POLDER_BASE_ERROR_H

#include <stdarg.h>
#include <stddef.h>

/* X(code, name in JSON, HTTP status, exit code). Exit codes: 0 done, 1 the answer is no, 2 used wrongly,
 * 3 could not be done. */
#define ERR_TABLE(X)                                                                                \
    X(ERR_OK, "ok", 200, 0)                                                                         \
    X(ERR_NO, "answer_is_no", 409, 1)         /* a gate failed, a proof does not hold */            \
    X(ERR_USAGE, "usage", 400, 2)             /* command line or configuration used wrongly */      \
    X(ERR_INVALID, "invalid", 400, 3)         /* malformed input: file, request, field */           \
    X(ERR_UNSUPPORTED, "unsupported", 400, 3) /* well-formed, but not something polder does */      \
    X(ERR_TOO_LONG, "too_long", 400, 3)       /* more tokens than the context has */                \
    X(ERR_UNAUTHENTICATED, "unauthenticated", 401, 3)                                               \
    X(ERR_DENIED, "denied", 403, 3)                                                                 \
    X(ERR_NOT_FOUND, "not_found", 404, 3)                                                           \
    X(ERR_METHOD, "method_not_allowed", 405, 3)                                                     \
    X(ERR_EXISTS, "exists", 409, 3)                                                                 \
    X(ERR_TOO_LARGE, "too_large", 413, 3) /* more bytes than a limit allows */                      \
    X(ERR_BUSY, "busy", 429, 3)           /* a queue is full: try again later */                    \
    X(ERR_CANCELLED, "cancelled", 499, 3) /* the client has hung up or the server is stopping */    \
    X(ERR_INTERNAL, "internal", 500, 3)                                                             \
    X(ERR_UPSTREAM, "provider_failed", 502, 3) /* a provider refused, broke off or made no sense */ \
    X(ERR_TIMEOUT, "provider_timeout", 504, 3) /* a provider did not answer in time */              \
    X(ERR_CORRUPT, "corrupt", 500, 3)          /* bytes on disk are not what was written */         \
    X(ERR_IO, "io", 503, 3)                    /* the system refused to read or write */            \
    X(ERR_NOMEM, "out_of_memory", 503, 3)                                                           \
    X(ERR_UNAVAILABLE, "unavailable", 503, 3) /* e.g. the ledger cannot be written: nothing is answered */

typedef enum err_code {
#define X(code, name, http, exit_) code,
    ERR_TABLE(X)
#undef X
        ERR_COUNT
} err_code;

#define ERR_MSG_MAX 768

typedef struct err {
    err_code code;
    int retry_after_s;     /* ERR_BUSY: when it is worth another try; 0: soon. err_set clears it */
    char msg[ERR_MSG_MAX]; /* UTF-8, no control characters: err_set replaces them */
} err;

/* No error and an empty sentence; of the rest nothing is touched: on the way of every request `= {0}` would take a
 * dozen lines of cache for what is hardly ever there. */
static inline void err_clear(err *e) {
    e->code = ERR_OK;
    e->retry_after_s = 0;
    e->msg[0] = 0;
}

/* Set code and sentence; control characters and broken UTF-8 from foreign input become '?'. Returns code. */
err_code err_set(err *e, err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
err_code err_setv(err *e, err_code code, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
/* Put "prefix: " before the sentence that e holds. Returns e's code (ERR_INTERNAL where e is NULL). */
err_code err_prefix(err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* ERR_IO with strerror(errno) at the end of the sentence (ENOSPC says that the disk is full). */
err_code err_errno(err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The sentence for a failed allocation of `what`. */
err_code err_nomem(err *e, const char *what);

const char *err_name(err_code code); /* "not_found" */
int err_http_status(err_code code);  /* 404 */
int err_exit_code(err_code code);    /* 0 to 3 */

#endif
