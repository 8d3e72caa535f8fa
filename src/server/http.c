/* HTTP: a connection from its first byte to its last; each is a fiber (base/loop.h).
 *
 *   head ──► guard, route, key ──► body ──► serve ──► reply ──► head …
 *
 * A request is looked at before a byte of its body is read. What is refused there is answered after its body has been
 * read and thrown away, because a connection that is closed with unread bytes takes the reply with it; what is
 * ambiguous, or too long even for that, is answered and closed at once. A connection that brings no whole head within
 * the idle time of being opened, or of its last reply, is closed; bodies have their own clock; answers end by
 * themselves. */
#include "server/internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOPS_MAX       8    /* threads that connections share */
#define LINGER_MS       1000 /* what a client gets to read the last reply before the connection goes */
#define LINGER_BYTES    (1u << 20)
#define ACCEPTS_AT_ONCE 16
#define ACCEPT_AGAIN_MS 20 /* after the system refused one, mostly for want of descriptors */
/* Memory is given back so often, and when most connections have left where there were so many. */
#define TRIM_EVERY_NS (30 * UINT64_C(1000000000))
#define TRIM_FROM     64

/* An open connection; what it has read stands on its fiber's stack. */
typedef struct conn {
    struct conn *prev, *next; /* under server.lock */
    door *d;
    int fd;
} conn;

typedef struct talk {
    conn *c;
    server *s;
    size_t at, n;      /* of `in`: what has come and was not taken yet */
    uint64_t since_ns; /* when it began to wait for a head */
    buf out;
    http_head head;
    exchange x;
    char in[IN_BYTES];
} talk;

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

/* ---- bytes ------------------------------------------------------------------------------------------------- */

static uint64_t idle_ns(const server *s) {
    return (uint64_t)island_get_config(s->isl)->server_idle_timeout_s * 1000000000u;
}

/* More bytes behind those that are there: their number; 0: the end, an error, or the time is over. */
static size_t receive(talk *t, uint64_t until_ns) {
    for (;;) {
        uint64_t now = time_mono_ns();
        if (now >= until_ns) return 0;
        if (wait_fd(t->c->fd, POLLIN, (int)((until_ns - now) / 1000000u) + 1) <= 0) continue;
        ssize_t k = recv(t->c->fd, t->in + t->n, sizeof t->in - t->n, 0);
        if (k > 0) {
            t->n += (size_t)k;
            return (size_t)k;
        }
        if (k == 0 || (errno != EAGAIN && errno != EINTR)) return 0;
    }
}

/* false: the client takes nothing for the idle time, or has gone. */
static bool send_all(const exchange *x, struct iovec *v, size_t n) {
    int idle_ms = (int)(idle_ns(x->s) / 1000000u);
    while (n) {
        struct msghdr m = {.msg_iov = v, .msg_iovlen = n};
        ssize_t k = sendmsg(x->fd, &m, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0 && errno == EAGAIN) {
            if (wait_fd(x->fd, POLLOUT, idle_ms) <= 0) return false;
            continue;
        }
        if (k < 0) return false;
        size_t left = (size_t)k;
        for (; n && left >= v->iov_len; v++, n--) left -= v->iov_len;
        if (n) {
            v->iov_base = (char *)v->iov_base + left;
            v->iov_len -= left;
        }
    }
    return true;
}

/* ---- a request --------------------------------------------------------------------------------------------- */

/* A whole head at t->in. false: the connection is over; or there is more of it than fits (*too_long). */
static bool read_head(talk *t, size_t *len, bool *too_long) {
    size_t from = 0;
    memmove(t->in, t->in + t->at, t->n - t->at);
    t->n -= t->at;
    t->at = 0;
    *too_long = false;
    while (!(*len = http_head_length(t->in, t->n, &from))) {
        *too_long = t->n == sizeof t->in;
        if (*too_long || !receive(t, t->since_ns + idle_ns(t->s))) return false;
    }
    t->at = *len;
    *too_long = *len > HEAD_BYTES_MAX; /* what is left of `in` must take a body in pieces that are worth a wait */
    return !*too_long;
}

static void exchange_begin(talk *t) {
    exchange *x = &t->x;
    memset(x, 0, offsetof(exchange, path));
    x->path[0] = 0;
    err_clear(&x->problem);
    uint8_t r[12];
    random_bytes(r, sizeof r);
    memcpy(x->id, "req_", 4);
    hex_encode(x->id + 4, r, sizeof r);
    x->s = t->s;
    x->control = t->c->d->control;
    x->head = &t->head;
    x->fd = t->c->fd;
    x->out = &t->out;
    x->v11 = true;
    x->started_ns = time_mono_ns();
    buf_init(&x->body, (size_t)island_get_config(t->s->isl)->server_max_body_bytes);
    atomic_fetch_add(&t->s->in_flight, 1);
    metric_add(t->s->m_in_flight, 1);
}

/* Most requests are like the last: a thread keeps the metrics of its last exchange, which never go. */
static void count_exchange(const exchange *x) {
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
    if (x->broken && !atomic_load(&x->s->draining)) metric_add(x->s->m_hangups, 1);
    log_msg(LOG_DEBUG, "http", "%s %s %s %d %llu bytes %.3f s%s", x->id, x->method, x->path, x->status,
            (unsigned long long)x->sent, seconds, x->control ? " control" : "");
}

/* Joins its thread, which may be in the middle of an engine's step or of a record. */
static void end_stream(void *ctx) {
    stream_free(ctx);
}

static void exchange_end(exchange *x) {
    server *s = x->s;
    if (x->stream) away(end_stream, x->stream);
    count_exchange(x);
    answer_free(x->answer);
    buf_free(&x->body);
    buf_free(&x->reply);
    if (x->counted) atomic_fetch_sub(&s->body_bytes, x->counted);
    atomic_fetch_add(&s->requests, 1);
    metric_add(s->m_in_flight, -1);
    atomic_fetch_sub(&s->in_flight, 1);
}

/* The reply to what is no request. */
static void malformed(exchange *x, int status, const err *e) {
    metric_add(metric_get(METRIC_COUNTER, "polder_http_malformed_total", NULL,
                          "Requests refused by the guard: malformed or ambiguous"),
               1);
    x->path[0] = 0;
    x->keep = false;
    reply_error(x, status, e, NULL);
}

/* false: it is answered already. */
static bool look_at_head(talk *t, size_t len, guard_facts *f) {
    exchange *x = &t->x;
    err e;
    err_code rc = http_head_read(&t->head, t->in, len, &e);
    x->v11 = t->head.v11;
    if (rc == ERR_OK) rc = guard_request(&t->head, f, &e);
    text_copy(x->method, sizeof x->method, t->head.method);
    if (rc == ERR_OK) rc = guard_path(x->path, sizeof x->path, t->head.target, &e);
    if (rc != ERR_OK) {
        malformed(x, 400, &e);
        return false;
    }
    x->keep = f->keeps;
    look_at_request(x, f, x->method);
    if (!x->refused || !f->has_body || !(f->expects_continue || f->content_length > DISCARD_BYTES_MAX)) return true;
    x->keep = false;
    reply_error(x, x->problem_status, &x->problem, NULL);
    return false;
}

/* ---- its body ---------------------------------------------------------------------------------------------- */

/* When a body must have come that far: a slow client gets time for each byte that it sends. */
static uint64_t body_due_ns(const exchange *x) {
    return x->started_ns + idle_ns(x->s) + (x->received / BODY_BYTES_PER_S + 1) * 1000000000u;
}

/* A piece of the body. False: the connection is closed. */
static bool take_body(exchange *x, const char *p, size_t n) {
    x->received += n;
    if (time_mono_ns() >= body_due_ns(x)) return false;
    if (x->refused || !x->route) return x->received <= DISCARD_BYTES_MAX; /* OPTIONS: anybody may ask */
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

/* What has come of a body in chunks is taken. false: as take_body; or they are malformed, and answered. */
static bool take_chunks(talk *t, http_chunks *chunks) {
    const char *p = t->in + t->at, *piece;
    size_t n = t->n - t->at, len;
    while (http_chunks_next(chunks, &p, &n, &piece, &len))
        if (!take_body(&t->x, piece, len)) return false;
    t->at = t->n - n;
    if (!chunks->bad) return true;
    err e;
    err_set(&e, ERR_INVALID, "request: its body is not in chunks, as its head says");
    malformed(&t->x, 400, &e);
    return false;
}

/* false: it did not come to its end; the connection is closed, without a reply where none was made. */
static bool read_body(talk *t, const guard_facts *f) {
    exchange *x = &t->x;
    http_chunks chunks = {0};
    size_t head = t->at; /* its fields are still looked at */
    if (f->expects_continue && x->v11 && t->at == t->n) {
        static char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        struct iovec v = {go_on, sizeof go_on - 1};
        if (!send_all(x, &v, 1)) return false;
    }
    if (!x->refused && f->content_length && f->content_length <= LOOP_BODY_MAX)
        (void)buf_reserve(&x->body, (size_t)f->content_length);
    for (;;) {
        if (f->chunked) {
            if (!take_chunks(t, &chunks)) return false;
            if (chunks.over) return true;
        } else {
            uint64_t left = f->content_length - x->received;
            size_t k = t->n - t->at < left ? t->n - t->at : (size_t)left;
            if (k && !take_body(x, t->in + t->at, k)) return false;
            t->at += k;
            if (k == left) return true;
        }
        t->at = t->n = head;
        uint64_t due = body_due_ns(x), silent = time_mono_ns() + idle_ns(x->s);
        if (!receive(t, due < silent ? due : silent)) return false;
    }
}

/* ---- its reply --------------------------------------------------------------------------------------------- */

static void serve_away(void *ctx) {
    exchange *x = ctx;
    x->route->serve(x);
}

static void answer_request(exchange *x) {
    if (x->refused) {
        reply_error(x, x->problem_status, &x->problem, NULL);
    } else if (x->problem_status == 204) {
        buf none;
        buf_init(&none, 16);
        buf_puts(&none, "");
        reply_bytes(x, 204, NULL, "no-store", &none);
    } else if (x->route->on_loop && x->body.len <= LOOP_BODY_MAX) {
        x->route->serve(x);
    } else {
        away(serve_away, x);
    }
}

/* The pieces of a stream as they come, in chunks where the client understands them. */
static void send_stream(void *ctx) {
    exchange *x = ctx;
    char piece[16384], size[24], end[] = "\r\n", last[] = "0\r\n\r\n";
    long k = 1;
    while (k > 0 && !x->broken) {
        k = stream_read(x->stream, piece, sizeof piece);
        if (k <= 0) break;
        int n = snprintf(size, sizeof size, "%lx\r\n", (unsigned long)k);
        struct iovec v[] = {{size, (size_t)n}, {piece, (size_t)k}, {end, 2}};
        x->broken = x->v11 ? !send_all(x, v, 3) : !send_all(x, v + 1, 1);
        if (!x->broken) x->sent += (uint64_t)k;
    }
    struct iovec v = {last, sizeof last - 1};
    x->broken = x->broken || k < 0 || (x->v11 && !send_all(x, &v, 1));
}

static void send_reply(exchange *x) {
    if (x->broken) return;
    bool head_only = strcmp(x->method, "HEAD") == 0;
    struct iovec v[] = {{x->out->ptr, x->out->len}, {x->reply.ptr, x->reply.len}};
    x->broken = x->out->failed || !send_all(x, v, x->reply.len && !head_only ? 2 : 1);
    if (!x->broken && x->streamed) away(send_stream, x);
}

/* ---- a connection ------------------------------------------------------------------------------------------ */

/* What requests took and gave back lies in pieces that the allocator keeps, a few more with every mixture of requests
 * that has not been before. */
static void trim(void *ctx) {
    (void)ctx;
    mem_trim();
}

static void trim_if_due(server *s, uint64_t now_ns) {
    uint64_t last = atomic_load_explicit(&s->trimmed_ns, memory_order_relaxed);
    if (now_ns < last + TRIM_EVERY_NS || !atomic_compare_exchange_strong(&s->trimmed_ns, &last, now_ns)) return;
    away(trim, NULL);
}

/* One request. false: the connection is over. */
static bool one_exchange(talk *t) {
    exchange *x = &t->x;
    size_t len;
    bool too_long;
    if (!read_head(t, &len, &too_long) && !too_long) return false;
    exchange_begin(t);
    guard_facts f = {0};
    err e;
    if (too_long) {
        err_set(&e, ERR_TOO_LARGE, "request: its head has more than %u bytes", HEAD_BYTES_MAX);
        malformed(x, 431, &e);
    } else if (look_at_head(t, len, &f)) {
        if (!f.has_body || read_body(t, &f))
            answer_request(x);
        else if (!x->status)
            x->broken = true;
    }
    send_reply(x);
    bool goes_on = x->keep && !x->broken && !atomic_load(&t->s->draining);
    exchange_end(x);
    t->since_ns = time_mono_ns();
    trim_if_due(t->s, t->since_ns);
    return goes_on;
}

/* Closed with unread bytes, a connection takes with it what the client has not read yet. */
static void linger(talk *t) {
    uint64_t until = time_mono_ns() + LINGER_MS * 1000000u;
    size_t taken = 0;
    if (shutdown(t->c->fd, SHUT_WR) != 0) return;
    do {
        t->n = 0;
        size_t k = receive(t, until);
        if (!k) return;
        taken += k;
    } while (taken < LINGER_BYTES);
}

static void conn_leave(conn *c) {
    server *s = c->d->s;
    pthread_mutex_lock(&s->lock);
    bool most_left = --s->n_conns <= s->most_conns / 4 && s->most_conns >= TRIM_FROM;
    if (most_left) s->most_conns = s->n_conns;
    if (c->prev)
        c->prev->next = c->next;
    else
        s->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    pthread_mutex_unlock(&s->lock);
    close(c->fd);
    atomic_fetch_sub(&c->d->n, 1);
    mem_free(c);
    if (most_left) away(trim, NULL);
}

static void conn_main(void *arg) {
    talk t;
    t.c = arg;
    t.s = t.c->d->s;
    t.at = t.n = 0;
    t.since_ns = time_mono_ns();
    buf_init(&t.out, 16384);
    while (one_exchange(&t)) continue;
    linger(&t);
    buf_free(&t.out);
    conn_leave(t.c);
}

/* ---- the doors --------------------------------------------------------------------------------------------- */

static void welcome(door *d, int fd) {
    server *s = d->s;
    int one = 1;
    err e;
    conn *c = mem_zalloc(sizeof *c);
    if (!c) {
        close(fd);
        return;
    }
    if (!d->control) (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    *c = (conn){.d = d, .fd = fd};
    atomic_fetch_add(&d->n, 1);
    pthread_mutex_lock(&s->lock);
    c->next = s->conns;
    if (c->next) c->next->prev = c;
    s->conns = c;
    if (++s->n_conns > s->most_conns) s->most_conns = s->n_conns;
    pthread_mutex_unlock(&s->lock);
    if (loops_spawn(s->loops, conn_main, c, &e) == ERR_OK) return;
    log_msg(LOG_WARN, "http", "a connection was refused: %s", e.msg);
    conn_leave(c);
}

static void door_main(void *arg) {
    door *d = arg;
    for (unsigned n = 1; !atomic_load(&d->quiet); n++) {
        if (n % ACCEPTS_AT_ONCE == 0) wait_ms(0); /* the loop's connections are not to wait for the queue's end */
        int fd = accept4(d->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0 && atomic_load(&d->n) >= d->max)
            close(fd); /* at once: whoever is left in the system's queue would wait without knowing for what */
        else if (fd >= 0)
            welcome(d, fd);
        else if (errno == EAGAIN)
            (void)wait_fd(d->fd, POLLIN, -1);
        else if (errno != EINTR && errno != ECONNABORTED)
            wait_ms(ACCEPT_AGAIN_MS);
    }
    atomic_fetch_sub(&d->s->doors, 1);
}

static err_code open_door(door *d, err *e) {
    atomic_fetch_add(&d->s->doors, 1);
    err_code rc = loops_spawn(d->s->loops, door_main, d, e);
    if (rc != ERR_OK) atomic_fetch_sub(&d->s->doors, 1);
    return rc;
}

err_code http_start(server *s, err *e) {
    const island_config *c = island_get_config(s->isl);
    unsigned n = sys_cpu_count();
    s->tcp.max = (unsigned)c->server_max_connections;
    s->control.max = CONTROL_CONNECTIONS;
    err_code rc = loops_start(&s->loops, n < LOOPS_MAX ? n : LOOPS_MAX, CONNECTION_STACK, e);
    if (rc == ERR_OK) rc = open_door(&s->tcp, e);
    if (rc == ERR_OK) rc = open_door(&s->control, e);
    return rc;
}

void http_quiesce(server *s) {
    door *doors[] = {&s->tcp, &s->control};
    for (int i = 0; i < 2; i++) {
        atomic_store(&doors[i]->quiet, true);
        if (doors[i]->fd >= 0) (void)shutdown(doors[i]->fd, SHUT_RDWR); /* whoever waits for a connection hears of it */
    }
}

void http_stop(server *s) {
    door *doors[] = {&s->tcp, &s->control};
    http_quiesce(s);
    while (atomic_load(&s->doors))
        sleep_ms(1); /* who comes in now would be neither in the list nor on a loop that runs */
    pthread_mutex_lock(&s->lock);
    for (conn *c = s->conns; c; c = c->next) (void)shutdown(c->fd, SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
    loops_stop(s->loops);
    s->loops = NULL;
    for (int i = 0; i < 2; i++) {
        if (doors[i]->fd >= 0) close(doors[i]->fd);
        doors[i]->fd = -1;
    }
}
