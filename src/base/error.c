#include "base/error.h"

#include "base/buf.h"
#include "base/bytes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int http, exit_code;
} table[ERR_COUNT] = {
#define X(code, name, http, exit_) {name, http, exit_},
    ERR_TABLE(X)
#undef X
};

const char *err_name(err_code code) {
    return (unsigned)code < ERR_COUNT ? table[code].name : "internal";
}
int err_http_status(err_code code) {
    return (unsigned)code < ERR_COUNT ? table[code].http : 500;
}
int err_exit_code(err_code code) {
    return (unsigned)code < ERR_COUNT ? table[code].exit_code : 3;
}

/* Replace control characters and broken UTF-8 in place, one '?' a byte; drop a character that the buffer cut off. */
static void sanitise(char *s) {
    size_t n = strlen(s);
    if (n == ERR_MSG_MAX - 1) n -= utf8_tail(s, n);
    s[n] = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = utf8_decode(&cp, s + i, n - i);
        if (len <= 0 || cp < 0x20 || cp == 0x7f || (cp >= 0x80 && cp < 0xa0)) {
            size_t bad = len > 0 ? (size_t)len : 1;
            for (size_t k = 0; k < bad; k++) s[i + k] = '?';
            i += bad;
        } else {
            i += (size_t)len;
        }
    }
}

err_code err_setv(err *e, err_code code, const char *fmt, va_list ap) {
    if (!e) return code;
    char msg[ERR_MSG_MAX]; /* the arguments may point into e */
    vsnprintf(msg, sizeof msg, fmt, ap);
    sanitise(msg);
    e->code = code;
    e->retry_after_s = 0;
    memcpy(e->msg, msg, sizeof msg);
    return code;
}

err_code err_set(err *e, err_code code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    err_setv(e, code, fmt, ap);
    va_end(ap);
    return code;
}

err_code err_prefix(err *e, const char *fmt, ...) {
    if (!e) return ERR_INTERNAL;
    char head[ERR_MSG_MAX], whole[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    size_t n = strlen(head);
    memcpy(whole, head, n);
    snprintf(whole + n, sizeof whole - n, ": %s", e->msg);
    sanitise(whole);
    memcpy(e->msg, whole, sizeof whole);
    return e->code;
}

err_code err_errno(err *e, const char *fmt, ...) {
    int saved = errno;
    char head[ERR_MSG_MAX], why[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    const char *text = saved == ENOSPC || saved == EDQUOT ? "the disk is full; free some space and try again"
                                                          : strerror_r(saved, why, sizeof why);
    err_code code = saved == ENOENT ? ERR_NOT_FOUND : saved == ENOMEM ? ERR_NOMEM : ERR_IO;
    return err_set(e, code, "%s: %s", head, text);
}

err_code err_nomem(err *e, const char *what) {
    return err_set(e, ERR_NOMEM, "out of memory for %s; free memory or lower the limits in island.yaml", what);
}
