/* Replies: from bytes, errors and streams to libmicrohttpd's responses. */
#include "server/internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>

bool exchange_gone(const exchange *x) {
    struct pollfd p = {.fd = x->fd, .events = POLLRDHUP};
    int n;
    do n = poll(&p, 1, 0);
    while (n < 0 && errno == EINTR);
    return n > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
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

static void header(struct MHD_Response *r, const char *k, const char *v) {
    /* A header that does not fit is left out; the reply still says what it must. */
    (void)MHD_add_response_header(r, k, v);
}

static void headers_of_answer(const exchange *x, struct MHD_Response *r) {
    char t[32];
    if (x->label[0]) header(r, "x-polder-label", x->label);
    if (!x->answer || !x->answer->admitted) return;
    snprintf(t, sizeof t, "%" PRIu64, x->answer->record);
    header(r, "x-polder-record", t);
    if (x->answer->label[0]) header(r, "x-polder-label", x->answer->label);
    if (x->answer->route[0]) header(r, "x-polder-route", x->answer->route);
    if (x->answer->r.embed) return; /* nothing is drawn */
    snprintf(t, sizeof t, "%" PRIu64, x->answer->seed);
    header(r, "x-polder-seed", t);
}

static void queue(exchange *x, int status, const char *type, const char *cache, struct MHD_Response *r) {
    if (type) header(r, "Content-Type", type);
    header(r, "Cache-Control", cache);
    header(r, "X-Content-Type-Options", "nosniff");
    header(r, "x-request-id", x->id);
    if (x->route && x->route->d && x->route->d->error_id) header(r, "request-id", x->id);
    if (status == 401) header(r, "WWW-Authenticate", "Bearer");
    if (status == 429 || status == 503) {
        char t[16];
        snprintf(t, sizeof t, "%d", x->retry_after_s > 0 ? x->retry_after_s : 1);
        header(r, "Retry-After", t);
    }
    if (x->allow[0] && (status == 405 || status == 204)) header(r, "Allow", x->allow);
    if (x->close || atomic_load(&x->s->draining)) header(r, "Connection", "close");
    headers_of_answer(x, r);
    x->status = status;
    if (MHD_queue_response(x->conn, (unsigned)status, r) != MHD_YES) x->queue_failed = true;
    MHD_destroy_response(r);
}

void reply_bytes(exchange *x, int status, const char *type, const char *cache, buf *body) {
    if (body->failed) {
        buf_free(body);
        err e;
        err_set(&e, ERR_NOMEM, "the reply does not fit into memory");
        reply_error(x, 503, &e, NULL);
        return;
    }
    size_t n = body->len;
    char *p = buf_take(body);
    struct MHD_Response *r = p ? MHD_create_response_from_buffer_with_free_callback(n, p, mem_free) : NULL;
    if (!r) {
        mem_free(p);
        x->queue_failed = true; /* no memory for a reply: the connection is closed */
        return;
    }
    x->sent = n;
    queue(x, status, type, cache, r);
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
        x->queue_failed = true;
        return;
    }
    reply_json(x, status, &b);
}

/* libmicrohttpd measures silence from its own last read or write. Time that went into an answer is none of the
 * client's: setting a timeout where there was none begins it anew. */
void exchange_was_busy(exchange *x) {
    unsigned idle_s = (unsigned)island_get_config(x->s->isl)->server_idle_timeout_s;
    MHD_set_connection_option(x->conn, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    MHD_set_connection_option(x->conn, MHD_CONNECTION_OPTION_TIMEOUT, idle_s);
}

static ssize_t read_stream(void *cls, uint64_t pos, char *p, size_t max) {
    exchange *x = cls;
    long n = stream_read(x->stream, p, max);
    exchange_was_busy(x);
    if (n < 0) return MHD_CONTENT_READER_END_WITH_ERROR;
    if (n == 0) return MHD_CONTENT_READER_END_OF_STREAM;
    x->sent += (uint64_t)n;
    return n;
}

void reply_stream(exchange *x) {
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_stream, x, NULL);
    if (!r) {
        x->queue_failed = true;
        return;
    }
    header(r, "X-Accel-Buffering", "no"); /* a proxy in front must pass events on as they come */
    queue(x, 200, x->answer->d->stream_type, "no-store", r);
}
