/* HTTP: libmicrohttpd's callbacks, from the first byte of a request to the end of its reply.
 *
 * A request is looked at in the first callback (guard, route, key) before a byte of its body is read. What is refused
 * there is answered after its body has been read and thrown away, because a connection that is closed with unread bytes
 * takes the reply with it; what is ambiguous, or too long even for that, is answered and closed at once. */
#include "server/internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <string.h>
#include <unistd.h>

static void refuse(exchange *x, int status, const err *e) {
    x->refused = true;
    x->problem = *e;
    x->problem_status = status;
}

/* Content-Type and size of what is to be read. */
static void check_body(exchange *x, const guard_facts *f) {
    err e;
    uint64_t max = (uint64_t)island_get_config(x->s->isl)->server_max_body_bytes;
    bool post = strcmp(x->route->method, "POST") == 0;
    if (!post && f->has_body) {
        err_set(&e, ERR_INVALID, "%s: a %s request has no body here", x->path, x->method);
        refuse(x, 400, &e);
    } else if (post && f->has_body && !f->is_json) {
        err_set(&e, ERR_INVALID, "%s: Content-Type must be application/json", x->path);
        refuse(x, 415, &e);
    } else if (f->content_length > max) {
        err_set(&e, ERR_TOO_LARGE, "request body: %llu bytes, at most %llu are taken (server.max_body_bytes)",
                (unsigned long long)f->content_length, (unsigned long long)max);
        refuse(x, 413, &e);
    }
}

/* Route, caller, body: what can be refused before the body is read. */
static void look_at_request(exchange *x, const guard_facts *f, const char *method) {
    err e;
    x->route = route_find(method, x->path, x->allow);
    if (!x->route && x->allow[0] && strcmp(method, "OPTIONS") == 0) {
        x->problem_status = 204;
        return;
    }
    if (!x->route) {
        bool other = x->allow[0] != 0;
        err_set(&e, other ? ERR_METHOD : ERR_NOT_FOUND,
                other ? "%s: %s is not something it takes: use %s" : "%s: there is nothing here (%s)", x->path, method,
                x->allow);
        refuse(x, other ? 405 : 404, &e);
        return;
    }
    if (!x->s->auth && !x->control && !guard_host_is_loopback(f->host)) {
        err_set(&e, ERR_DENIED, "Host: no key is asked for here, so only names of the loopback are answered");
        refuse(x, 403, &e);
        return;
    }
    err_code rc = auth_check(x, &e);
    if (rc != ERR_OK)
        refuse(x, err_http_status(rc), &e);
    else
        check_body(x, f);
}

static exchange *exchange_new(door *d, struct MHD_Connection *c, const char *method) {
    exchange *x = mem_zalloc(sizeof *x);
    if (!x) return NULL;
    uint8_t r[12];
    random_bytes(r, sizeof r);
    memcpy(x->id, "req_", 4);
    hex_encode(x->id + 4, r, sizeof r);
    x->s = d->s;
    x->control = d->control;
    x->conn = c;
    x->fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    x->seat = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    x->started_ns = time_mono_ns();
    watch_busy(x->s->watch, x->seat, true);
    text_copy(x->method, sizeof x->method, method);
    buf_init(&x->body, (size_t)island_get_config(d->s->isl)->server_max_body_bytes);
    atomic_fetch_add(&d->s->in_flight, 1);
    metric_add(d->s->m_in_flight, 1);
    return x;
}

static enum MHD_Result begin(door *d, struct MHD_Connection *c, const char *url, const char *method,
                             const char *version, void **slot) {
    exchange *x = exchange_new(d, c, method);
    if (!x) return MHD_NO;
    *slot = x;
    guard_facts f;
    err e;
    err_code rc = guard_request(c, method, version, &f, &e);
    if (rc == ERR_OK) rc = guard_path(x->path, sizeof x->path, url, &e);
    if (rc != ERR_OK) {
        metric_add(metric_get(METRIC_COUNTER, "polder_http_malformed_total", NULL,
                              "Requests refused by the guard: malformed or ambiguous"),
                   1);
        x->path[0] = 0;
        x->close = true;
        reply_error(x, 400, &e, NULL);
        return x->queue_failed ? MHD_NO : MHD_YES;
    }
    x->content_length = f.content_length;
    look_at_request(x, &f, method);
    if (x->refused && f.has_body && (f.expects_continue || f.content_length > DISCARD_BYTES_MAX)) {
        x->close = true;
        reply_error(x, x->problem_status, &x->problem, NULL);
    }
    return x->queue_failed ? MHD_NO : MHD_YES;
}

/* A piece of the body. False: the connection is closed. */
static bool take_body(exchange *x, const char *p, size_t n) {
    x->received += n;
    uint64_t seconds = (time_mono_ns() - x->started_ns) / 1000000000u;
    if (seconds > (uint64_t)island_get_config(x->s->isl)->server_idle_timeout_s + x->received / BODY_BYTES_PER_S)
        return false;
    if (x->refused) return x->received <= DISCARD_BYTES_MAX;
    err e;
    if (x->received > x->body.max) {
        err_set(&e, ERR_TOO_LARGE, "request body: more than %zu bytes (server.max_body_bytes)", x->body.max);
        refuse(x, 413, &e);
    } else if (atomic_fetch_add(&x->s->body_bytes, n) + n > x->s->body_bytes_max) {
        x->counted += n;
        err_set(&e, ERR_BUSY, "request body: too many bodies are being received at once, try again");
        refuse(x, 429, &e);
    } else {
        x->counted += n;
        buf_append(&x->body, p, n);
        if (x->body.failed) {
            err_nomem(&e, "a request body");
            refuse(x, 503, &e);
        }
    }
    if (x->refused) buf_free(&x->body);
    return true;
}

static void answer_request(exchange *x) {
    if (x->refused) {
        reply_error(x, x->problem_status, &x->problem, NULL);
    } else if (x->problem_status == 204) {
        buf none;
        buf_init(&none, 16);
        buf_puts(&none, "");
        reply_bytes(x, 204, NULL, "no-store", &none);
    } else {
        x->route->serve(x);
        exchange_was_busy(x);
    }
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *data, size_t *n_data, void **slot) {
    exchange *x = *slot;
    if (!x) return begin(cls, c, url, method, version, slot);
    if (*n_data) {
        bool go_on = take_body(x, data, *n_data);
        *n_data = 0;
        return go_on ? MHD_YES : MHD_NO;
    }
    if (x->status == 0 && !x->queue_failed) answer_request(x);
    return x->queue_failed ? MHD_NO : MHD_YES;
}

/* A connection mostly asks for the same again: its thread keeps the metrics of its last exchange, which never go. */
static void count_exchange(const exchange *x, enum MHD_RequestTerminationCode how) {
    static _Thread_local struct {
        const route *r;
        int status;
        metric *requests, *seconds;
    } last;
    double seconds = (double)(time_mono_ns() - x->started_ns) / 1e9;
    if (!last.requests || last.r != x->route || last.status != x->status) {
        char labels[128];
        const char *where = x->route ? x->route->path : "other";
        snprintf(labels, sizeof labels, "route=\"%s\",code=\"%d\"", where, x->status);
        last.requests =
            metric_get(METRIC_COUNTER, "polder_http_requests_total", labels, "HTTP requests by route and status");
        snprintf(labels, sizeof labels, "route=\"%s\"", where);
        last.seconds = metric_get(METRIC_HISTOGRAM, "polder_http_request_seconds", labels,
                                  "From the head of a request to the end of its reply");
        last.r = x->route;
        last.status = x->status;
    }
    metric_add(last.requests, 1);
    metric_observe(last.seconds, seconds);
    if (how != MHD_REQUEST_TERMINATED_COMPLETED_OK && how != MHD_REQUEST_TERMINATED_DAEMON_SHUTDOWN)
        metric_add(x->s->m_hangups, 1);
    log_msg(LOG_DEBUG, "http", "%s %s %s %d %llu bytes %.3f s%s", x->id, x->method, x->path, x->status,
            (unsigned long long)x->sent, seconds, x->control ? " control" : "");
}

static void on_completed(void *cls, struct MHD_Connection *c, void **slot, enum MHD_RequestTerminationCode how) {
    exchange *x = *slot;
    if (!x) return;
    *slot = NULL;
    server *s = x->s;
    stream_free(x->stream);
    count_exchange(x, how);
    answer_free(x->answer);
    buf_free(&x->body);
    if (x->counted) atomic_fetch_sub(&s->body_bytes, x->counted);
    watch_busy(s->watch, x->seat, false);
    mem_free(x);
    atomic_fetch_add(&s->requests, 1);
    metric_add(s->m_in_flight, -1);
    atomic_fetch_sub(&s->in_flight, 1);
}

static void on_connection(void *cls, struct MHD_Connection *c, void **context,
                          enum MHD_ConnectionNotificationCode what) {
    server *s = cls;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = watch_enter(s->watch, MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
        return;
    }
    watch_leave(s->watch, *context);
    *context = NULL;
}

/* The guard decodes paths itself: strictly. */
static size_t no_unescape(void *cls, struct MHD_Connection *c, char *s) {
    return strlen(s);
}

__attribute__((format(printf, 2, 0))) static void on_log(void *cls, const char *fmt, va_list ap) {
    char line[256];
    vsnprintf(line, sizeof line, fmt, ap);
    line[strcspn(line, "\r\n")] = 0;
    log_msg(LOG_DEBUG, "http", "%s", line);
}

static err_code start_daemon(door *d, unsigned connections, err *e) {
    const island_config *c = island_get_config(d->s->isl);
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC |
                     MHD_USE_ERROR_LOG;
    d->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, d, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, d->fd,
        MHD_OPTION_CONNECTION_LIMIT, connections, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)c->server_idle_timeout_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_POOL, MHD_OPTION_THREAD_STACK_SIZE,
        (size_t)CONNECTION_STACK, MHD_OPTION_UNESCAPE_CALLBACK, no_unescape, NULL, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, d->s, MHD_OPTION_END);
    if (!d->daemon) return err_set(e, ERR_IO, "%s: the HTTP server could not be started on it", d->s->address);
    d->fd = -1; /* the daemon's now */
    return ERR_OK;
}

err_code http_start(server *s, err *e) {
    int64_t idle_s = island_get_config(s->isl)->server_idle_timeout_s;
    err_code rc = watch_start(&s->watch, (idle_s + 1) * 1000, e);
    if (rc == ERR_OK) rc = start_daemon(&s->tcp, (unsigned)island_get_config(s->isl)->server_max_connections, e);
    if (rc == ERR_OK) rc = start_daemon(&s->control, CONTROL_CONNECTIONS, e);
    return rc;
}

void http_quiesce(server *s) {
    door *doors[] = {&s->tcp, &s->control};
    for (int i = 0; i < 2; i++)
        if (doors[i]->daemon) doors[i]->fd = MHD_quiesce_daemon(doors[i]->daemon);
}

void http_stop(server *s) {
    door *doors[] = {&s->tcp, &s->control};
    for (int i = 0; i < 2; i++) {
        if (doors[i]->daemon) MHD_stop_daemon(doors[i]->daemon);
        doors[i]->daemon = NULL;
        if (doors[i]->fd >= 0) close(doors[i]->fd);
        doors[i]->fd = -1;
    }
    watch_stop(s->watch);
    s->watch = NULL;
}
