/* Replies: bytes, errors and streams, and the heads of what goes out. */
#include "server/internal.h"

#include "base/bytes.h"
#include "base/mem.h"
#include "base/sys.h"

#include <poll.h>
#include <string.h>
#include <time.h>

#define HEAD_USUAL 512u /* bytes that most heads fit into */

bool exchange_gone(const exchange *x) {
    int got = wait_fd(x->fd, POLLRDHUP, 0);
    return got > 0 && (got & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

int reply_status(const exchange *x, err_code code) {
    if (code == ERR_CANCELLED && atomic_load(&x->s->draining)) return 503;
    return err_http_status(code);
}

void reply_outward(const exchange *x, err *e) {
    bool inner = e->code == ERR_IO || e->code == ERR_CORRUPT || e->code == ERR_INTERNAL || e->code == ERR_UNAVAILABLE;
    if (!inner || x->control) return;
    log_msg(LOG_WARN, "http", "%s: %s", x->id, e->msg);
    if (atomic_load(&x->s->draining))
        err_set(e, e->code, "the server is stopping");
    else if (e->code == ERR_UNAVAILABLE)
        err_set(e, e->code, "the ledger cannot be written, so nothing is answered; the server's log says more (%s)",
                x->id);
    else
        err_set(e, e->code, "something failed inside the server; its log says what (%s)", x->id);
}

/* ---- heads ------------------------------------------------------------------------------------------------- */

static const char *reason_of(int status) {
    switch (status) {
    case 200: return "OK";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 415: return "Unsupported Media Type";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    default: return "";
    }
}

/* "Date: …" (RFC 9110, 6.6.1), made once a second by each thread. */
static void put_date(buf *b) {
    static _Thread_local struct {
        time_t at;
        char text[48];
    } last;
    time_t now = (time_t)(time_unix_ms() / 1000);
    if (!last.text[0] || last.at != now) {
        static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
        struct tm t;
        if (!gmtime_r(&now, &t)) return;
        snprintf(last.text, sizeof last.text, "Date: %.3s, %02d %.3s %d %02d:%02d:%02d GMT\r\n", days + 3 * t.tm_wday,
                 t.tm_mday, months + 3 * t.tm_mon, t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
        last.at = now;
    }
    buf_puts(b, last.text);
}

/* A value with a control character, which could end the field, is left out. */
static void header(buf *b, const char *k, const char *v) {
    for (const char *c = v; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) return;
    buf_puts(b, k);
    buf_append(b, ": ", 2);
    buf_puts(b, v);
    buf_append(b, "\r\n", 2);
}

static void number_header(buf *b, const char *k, uint64_t v) {
    char t[U64_TEXT];
    text_u64(t, v);
    header(b, k, t);
}

static void headers_of_answer(const exchange *x, buf *b) {
    if (x->label[0]) header(b, "x-polder-label", x->label);
    if (!x->answer || !x->answer->admitted) return;
    number_header(b, "x-polder-record", x->answer->record);
    if (x->answer->label[0]) header(b, "x-polder-label", x->answer->label);
    if (x->answer->route[0]) header(b, "x-polder-route", x->answer->route);
    if (x->answer->r.embed) return; /* nothing is drawn */
    number_header(b, "x-polder-seed", x->answer->seed);
}

static void make_head(exchange *x, int status, const char *type, const char *cache) {
    buf *b = x->out;
    x->status = status;
    x->keep = x->keep && !atomic_load(&x->s->draining) && (x->v11 || !x->streamed);
    buf_reset(b);
    buf_reserve(b, HEAD_USUAL);
    buf_append(b, x->v11 ? "HTTP/1.1 " : "HTTP/1.0 ", 9);
    char code[U64_TEXT];
    buf_append(b, code, text_u64(code, (uint64_t)status));
    buf_putc(b, ' ');
    buf_puts(b, reason_of(status));
    buf_append(b, "\r\n", 2);
    put_date(b);
    if (!x->keep)
        header(b, "Connection", "close");
    else if (!x->v11)
        header(b, "Connection", "keep-alive");
    if (x->streamed && x->v11)
        header(b, "Transfer-Encoding", "chunked");
    else if (!x->streamed && status != 204)
        number_header(b, "Content-Length", x->reply.len);
    if (type) header(b, "Content-Type", type);
    header(b, "Cache-Control", cache);
    header(b, "X-Content-Type-Options", "nosniff");
    header(b, "x-request-id", x->id);
    if (x->route && x->route->d && x->route->d->error_id) header(b, "request-id", x->id);
    if (status == 401) header(b, "WWW-Authenticate", "Bearer");
    if (status == 429 || status == 503)
        number_header(b, "Retry-After", x->retry_after_s > 0 ? (uint64_t)x->retry_after_s : 1);
    if (x->allow[0] && (status == 405 || status == 204)) header(b, "Allow", x->allow);
    if (x->streamed) header(b, "X-Accel-Buffering", "no"); /* a proxy in front must pass events on as they come */
    headers_of_answer(x, b);
    buf_append(b, "\r\n", 2);
    if (b->failed) x->broken = true; /* no memory for a reply: the connection is closed */
}

/* ---- replies ----------------------------------------------------------------------------------------------- */

void reply_bytes(exchange *x, int status, const char *type, const char *cache, buf *body) {
    if (body->failed) {
        buf_free(body);
        err e;
        err_set(&e, ERR_NOMEM, "the reply does not fit into memory");
        reply_error(x, 503, &e, NULL);
        return;
    }
    buf_free(&x->reply);
    x->reply = *body;
    *body = (buf){.max = body->max};
    x->sent = x->reply.len;
    make_head(x, status, type, cache);
}

void reply_json(exchange *x, int status, buf *body) {
    reply_bytes(x, status, "application/json", "no-store", body);
}

void reply_error(exchange *x, int status, const err *e, const char *param) {
    buf b;
    x->retry_after_s = e->retry_after_s;
    buf_init(&b, 16384);
    const dialect *d = x->route ? x->route->d : NULL;
    if (d)
        d->fail(e, status, param, false, &b);
    else
        openai_fail(e, status, param, false, &b);
    if (d && d->error_id && b.len) {
        b.len--; /* the object's last brace */
        buf_printf(&b, ",\"%s\":\"%s\"}", d->error_id, x->id);
    }
    if (b.failed) {
        buf_free(&b);
        x->broken = true;
        return;
    }
    reply_json(x, status, &b);
}

void reply_stream(exchange *x) {
    x->streamed = true;
    make_head(x, 200, x->answer->d->stream_type, "no-store");
}
