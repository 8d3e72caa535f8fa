#include "inference/drivers/upstream.h"

#include "base/loop.h"
#include "base/mem.h"
#include "base/sys.h"
#include "inference/drivers/http_answer.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define IDLE_LINE_NS 110000000000u
#define HEAD_MAX     (64u << 10) /* bytes of a request's head */
#define HEAD_USUAL   256u        /* of these, what is the same in all but the host's name */
#define FIRST_SEND   16384u      /* bytes that TLS takes at once: the head and the body's beginning, a record */
#define READ_BYTES   8192u
#define ORIGIN_MAX   (UPSTREAM_URL_MAX + 1)
#define NS_OF_MS     1000000u

typedef enum line_state {
    LINE_CLOSED, /* otherwise the easy handle is one of multi's */
    LINE_CONNECTING,
    LINE_OPEN,
} line_state;

/* A line, and the exchange that runs on it. What belongs to the line outlives the exchange. */
struct upstream {
    /* the line */
    struct upstream *next; /* in the list of idle ones */
    upstream_lines *pool;
    CURLM *multi;
    CURL *easy;
    line_state state;
    curl_socket_t fd; /* of an open line */
    bool tls;
    char origin[ORIGIN_MAX];
    char ca_file[1000];
    char why[CURL_ERROR_SIZE];
    uint64_t idle_since_ns;
    buf out;        /* the head of the request; over TLS also as much of its body as goes out with it */
    http_answer in; /* the answer's framing */
    char piece[READ_BYTES];
    /* the exchange */
    const char *provider;
    const char *body;        /* the caller's */
    size_t body_len, n_head; /* bytes of the body, and of the head in `out` */
    size_t n_out;            /* bytes of head and body that have gone out */
    const char *at;          /* of `piece`: what is not read yet */
    size_t n_at;
    bool used; /* the connection has carried an exchange before */
    bool readable, ended, over, repeated;
    CURLcode result;      /* where it broke off */
    uint64_t sent_before; /* by the first sending, where it was repeated */
    uint64_t received;
    int connect_ms, first_byte_ms, idle_ms;
    uint64_t since_ns; /* the deadline that holds now counts from here */
};

struct upstream_lines {
    pthread_mutex_t lock;
    upstream *idle; /* the one that was used last comes first */
    uint32_t n_idle;
};

/* ---- lines ------------------------------------------------------------------------------------------------- */

static void curl_once(void) {
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

err_code upstream_lines_new(upstream_lines **out, err *e) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, curl_once);
    upstream_lines *l = *out = mem_zalloc(sizeof *l);
    if (!l) return err_nomem(e, "a provider's connections");
    pthread_mutex_init(&l->lock, NULL);
    return ERR_OK;
}

static void hang_up(upstream *u) {
    if (u->state != LINE_CLOSED) curl_multi_remove_handle(u->multi, u->easy);
    u->state = LINE_CLOSED;
}

/* The credential is in it. */
static void wipe_request(upstream *u) {
    if (u->out.ptr) mem_wipe(u->out.ptr, u->out.len);
    buf_reset(&u->out);
}

static void free_line(upstream *u) {
    if (!u) return;
    hang_up(u);
    if (u->easy) curl_easy_cleanup(u->easy);
    if (u->multi) curl_multi_cleanup(u->multi);
    wipe_request(u);
    buf_free(&u->out);
    http_answer_free(&u->in);
    mem_free(u);
}

void upstream_lines_free(upstream_lines *l) {
    if (!l) return;
    for (upstream *u = l->idle, *next; u; u = next) {
        next = u->next;
        free_line(u);
    }
    pthread_mutex_destroy(&l->lock);
    mem_free(l);
}

static upstream *take_idle(upstream_lines *l) {
    pthread_mutex_lock(&l->lock);
    upstream *u = l->idle;
    if (u) {
        l->idle = u->next;
        l->n_idle--;
        u->next = NULL;
    }
    pthread_mutex_unlock(&l->lock);
    return u;
}

/* Puts a line into the list; what has been idle for too long, or is too many, comes back to be freed. */
static upstream *give_idle(upstream_lines *l, upstream *u) {
    upstream *old = NULL;
    pthread_mutex_lock(&l->lock);
    uint64_t now = time_mono_ns(); /* under the lock, or a line could be idle since later than now */
    u->idle_since_ns = now;
    u->next = l->idle;
    l->idle = u;
    l->n_idle++;
    if (l->n_idle > 1) { /* the list is ordered: whoever was used last stands first */
        upstream **at = &u->next;
        uint32_t kept = 1;
        while (*at && kept < UPSTREAM_LINES_IDLE && now - (*at)->idle_since_ns < IDLE_LINE_NS) {
            at = &(*at)->next;
            kept++;
        }
        old = *at;
        *at = NULL;
        l->n_idle = kept;
    }
    pthread_mutex_unlock(&l->lock);
    return old;
}

/* ---- connecting -------------------------------------------------------------------------------------------- */

/* As libcurl would make it, but closed where another program is started. */
static curl_socket_t on_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *a) {
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static bool is_tls(const char *origin) {
    return strncasecmp(origin, "https:", 6) == 0;
}

/* libcurl connects and speaks TLS; what is said then is http_answer.c's and this file's. */
static bool set_up_line(CURL *c, upstream *u) {
    CURLcode rc = CURLE_OK;
#define SET(option, value) rc = rc ? rc : curl_easy_setopt(c, option, value)
    SET(CURLOPT_CONNECT_ONLY, 1L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L); /* a name that does not resolve holds nobody up */
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOPROXY, "*");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_FRESH_CONNECT, 1L);
    SET(CURLOPT_DNS_CACHE_TIMEOUT, 60L);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_socket);
    SET(CURLOPT_ERRORBUFFER, u->why);
    return rc == CURLE_OK;
#undef SET
}

static bool set_target(upstream *u, const upstream_target *t, size_t n_origin) {
    CURLcode rc = CURLE_OK;
    memcpy(u->origin, t->url, n_origin);
    u->origin[n_origin] = 0;
    u->tls = is_tls(u->origin);
    text_copy(u->ca_file, sizeof u->ca_file, t->ca_file ? t->ca_file : "");
    rc = curl_easy_setopt(u->easy, CURLOPT_URL, u->origin);
    /* only what the owner named is trusted then */
    if (!rc && u->ca_file[0]) rc = curl_easy_setopt(u->easy, CURLOPT_CAINFO, u->ca_file);
    if (!rc && u->ca_file[0]) rc = curl_easy_setopt(u->easy, CURLOPT_CAPATH, NULL);
    return !rc;
}

static err_code new_line(upstream **out, const upstream_target *t, size_t n_origin, err *e) {
    upstream *u = *out = mem_zalloc(sizeof *u);
    if (!u) return err_nomem(e, "a connection");
    u->pool = t->lines;
    u->out.max = HEAD_MAX + FIRST_SEND;
    u->easy = curl_easy_init();
    u->multi = curl_multi_init();
    if (u->easy && u->multi && set_up_line(u->easy, u) && set_target(u, t, n_origin)) return ERR_OK;
    free_line(u);
    *out = NULL;
    return err_nomem(e, "a connection");
}

/* Bytes of "https://api.example.eu:8443" in front of the path. */
static size_t origin_length(const char *url) {
    const char *host = strstr(url, "://");
    return host ? (size_t)(host + 3 - url) + strcspn(host + 3, "/") : strlen(url);
}

/* A line to another server than the target's, or one that trusts another file, is of no use. */
static upstream *take_line(const upstream_target *t, size_t n_origin) {
    for (;;) {
        upstream *u = take_idle(t->lines);
        if (!u) return NULL;
        bool same = strncmp(u->origin, t->url, n_origin) == 0 && !u->origin[n_origin] &&
                    strcmp(u->ca_file, t->ca_file ? t->ca_file : "") == 0;
        if (same && time_mono_ns() - u->idle_since_ns < IDLE_LINE_NS) return u;
        free_line(u);
    }
}

static void break_off(upstream *u, CURLcode why) {
    u->over = true;
    u->result = why;
}

static void drive_connecting(upstream *u) {
    int running, left;
    curl_multi_perform(u->multi, &running);
    for (CURLMsg *m; (m = curl_multi_info_read(u->multi, &left));) {
        if (m->msg != CURLMSG_DONE) continue;
        CURLcode rc = m->data.result;
        if (!rc) rc = curl_easy_getinfo(u->easy, CURLINFO_ACTIVESOCKET, &u->fd);
        if (!rc && u->fd == CURL_SOCKET_BAD) rc = CURLE_COULDNT_CONNECT;
        if (rc) {
            break_off(u, rc);
            return;
        }
        u->state = LINE_OPEN;
        u->since_ns = time_mono_ns();
    }
}

typedef struct connecting {
    upstream *u;
    int ms; /* < 0: nothing is waited for */
} connecting;

/* libcurl waits for the resolver's thread too, so it must wait itself; a handshake computes, and the first loads the
 * authorities that are trusted. */
static void work_connecting(void *ctx) {
    connecting *c = ctx;
    if (c->ms >= 0) curl_multi_poll(c->u->multi, NULL, 0, c->ms, NULL);
    drive_connecting(c->u);
}

static void connect_line(upstream *u) {
    hang_up(u);
    u->why[0] = 0;
    u->used = false;
    u->since_ns = time_mono_ns();
    curl_easy_setopt(u->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)u->connect_ms);
    if (curl_multi_add_handle(u->multi, u->easy) != CURLM_OK) {
        break_off(u, CURLE_OUT_OF_MEMORY);
        return;
    }
    u->state = LINE_CONNECTING;
    connecting c = {u, -1};
    away(work_connecting, &c);
}

static CURLcode socket_result(upstream *u, ssize_t got, CURLcode failed) {
    if (got >= 0) return CURLE_OK;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return CURLE_AGAIN;
    snprintf(u->why, sizeof u->why, "%s", strerror(errno));
    return failed;
}

/* Where nothing is encrypted, libcurl would only look up its connection before it asks the socket: a fiftieth of a
 * request's time in the bench of the gateway. */
static CURLcode line_recv(upstream *u, size_t *n) {
    *n = 0;
    if (u->tls) return curl_easy_recv(u->easy, u->piece, sizeof u->piece, n);
    ssize_t got = recv(u->fd, u->piece, sizeof u->piece, MSG_DONTWAIT);
    if (got > 0) *n = (size_t)got;
    return socket_result(u, got, CURLE_RECV_ERROR);
}

/* An idle line on which something has come, or which the server has closed, is not used again. */
static bool is_fresh(upstream *u) {
    size_t n;
    return line_recv(u, &n) == CURLE_AGAIN;
}

/* ---- the request ------------------------------------------------------------------------------------------- */

/* "name: value", where `value` may be in two parts. Whoever can put a line end into one could put in a header. */
static bool add_field(buf *b, const char *text, const char *more) {
    for (int i = 0; i < 2; i++) {
        const char *s = i ? more : text;
        for (const char *c = s; *c; c++)
            if ((unsigned char)*c < 0x20 || *c == 0x7f) return false;
        buf_puts(b, s);
    }
    buf_append(b, "\r\n", 2);
    return true;
}

/* Host names no port where it is the usual one (RFC 9110, 4.2). */
static void add_host(buf *b, const char *origin) {
    const char *host = strstr(origin, "://") + 3;
    size_t n = strlen(host);
    const char *usual = is_tls(origin) ? ":443" : ":80";
    size_t m = strlen(usual);
    if (n > m && strcmp(host + n - m, usual) == 0) n -= m;
    buf_append(b, "Host: ", 6);
    buf_append(b, host, n);
    buf_append(b, "\r\n", 2);
}

static err_code make_request(upstream *u, const upstream_target *t, const upstream_request *q, size_t n_origin,
                             err *e) {
    buf *b = &u->out;
    wipe_request(u);
    /* All at once: where the buffer moved, a copy of the credential would be left behind. */
    size_t n = HEAD_USUAL + 2 * strlen(t->url) + strlen(q->path);
    if (u->tls) n += q->len < FIRST_SEND ? q->len : FIRST_SEND;
    for (const char *const *h = q->headers; h && *h; h++) n += strlen(*h) + 2;
    if (t->credential) n += strlen(q->auth_header) + strlen(t->credential);
    if (!buf_reserve(b, n)) return buf_check(b, "a request to a provider", e);
    buf_append(b, "POST ", 5);
    buf_puts(b, t->url + n_origin);
    buf_puts(b, q->path);
    bool good = !strpbrk(b->ptr + 5, " \t\r\n");
    buf_puts(b, " HTTP/1.1\r\n");
    add_host(b, u->origin);
    buf_puts(b, "User-Agent: polder\r\nAccept: */*\r\nContent-Type: application/json\r\n");
    for (const char *const *h = q->headers; h && *h; h++) good = add_field(b, *h, "") && good;
    if (t->credential) good = add_field(b, q->auth_header, t->credential) && good;
    char len[U64_TEXT];
    text_u64(len, q->len);
    buf_puts(b, "Content-Length: ");
    buf_puts(b, len);
    buf_puts(b, "\r\n\r\n");
    u->n_head = b->len;
    u->body = q->body;
    u->body_len = q->len;
    if (u->tls && b->len < FIRST_SEND)
        buf_append(b, q->body, q->len < FIRST_SEND - b->len ? q->len : FIRST_SEND - b->len);
    if (b->failed) return buf_check(b, "a request to a provider", e);
    return good ? ERR_OK
                : err_set(e, ERR_INVALID,
                          "provider '%s': its URL, a header or its credential holds a byte that cannot be sent",
                          t->provider);
}

static bool is_sent(const upstream *u) {
    return u->n_out == u->n_head + u->body_len;
}

static uint64_t body_sent(const upstream *u) {
    return u->n_out > u->n_head ? u->n_out - u->n_head : 0;
}

/* Record by record: of more, libcurl tells nothing before all of it is out. */
static CURLcode send_tls(upstream *u, size_t *n) {
    bool first = u->n_out < u->out.len;
    const char *p = first ? u->out.ptr + u->n_out : u->body + (u->n_out - u->n_head);
    size_t want = first ? u->out.len - u->n_out : u->n_head + u->body_len - u->n_out;
    return curl_easy_send(u->easy, p, want < FIRST_SEND ? want : FIRST_SEND, n);
}

static CURLcode send_plain(upstream *u, size_t *n) {
    size_t of_body = body_sent(u), of_head = u->n_out - of_body;
    struct iovec v[2] = {{.iov_base = u->out.ptr + of_head, .iov_len = u->n_head - of_head},
                         {.iov_base = (char *)(uintptr_t)u->body + of_body, .iov_len = u->body_len - of_body}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
    ssize_t got = sendmsg(u->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (got > 0) *n = (size_t)got;
    return socket_result(u, got, CURLE_SEND_ERROR);
}

/* Sends what the connection takes. */
static void send_some(upstream *u) {
    while (!is_sent(u)) {
        size_t n = 0;
        CURLcode rc = u->tls ? send_tls(u, &n) : send_plain(u, &n);
        if (rc == CURLE_AGAIN || (!rc && !n)) return;
        if (rc) { /* it may have answered before it closed: that is read first */
            u->result = rc;
            u->ended = u->readable = true;
            return;
        }
        u->n_out += n;
        u->since_ns = time_mono_ns();
    }
}

/* ---- the answer -------------------------------------------------------------------------------------------- */

/* Takes what the connection has. TLS may hold bytes that the socket no longer has, so it is asked until it says no. */
static void receive(upstream *u) {
    size_t n;
    CURLcode rc = line_recv(u, &n);
    if (rc == CURLE_AGAIN) {
        u->readable = false;
        if (u->ended) break_off(u, u->result);
        return;
    }
    if (!rc && n) {
        u->readable = u->tls || u->ended || n == sizeof u->piece;
        u->at = u->piece;
        u->n_at = n;
        u->since_ns = time_mono_ns();
        return;
    }
    if (!rc && http_answer_end(&u->in))
        u->over = true;
    else
        break_off(u, rc ? rc : CURLE_GOT_NOTHING);
}

/* A piece of the body: true. */
static bool read_piece(upstream *u, const char **p, size_t *n) {
    if (u->n_at && http_answer_next(&u->in, &u->at, &u->n_at, p, n)) {
        u->received += *n;
        if (u->received <= UPSTREAM_ANSWER_MAX) return true;
        break_off(u, CURLE_FILESIZE_EXCEEDED);
    } else if (u->in.bad || u->in.no_memory) {
        break_off(u, u->in.bad ? CURLE_WEIRD_SERVER_REPLY : CURLE_OUT_OF_MEMORY);
    } else if (u->in.part == HTTP_OVER) {
        u->over = true;
    }
    return false;
}

/* ---- an exchange ------------------------------------------------------------------------------------------- */

static void begin_exchange(upstream *u, const upstream_target *t) {
    u->provider = t->provider;
    http_answer_init(&u->in);
    u->n_out = u->n_at = 0;
    u->readable = u->ended = u->over = u->repeated = false;
    u->result = CURLE_OK;
    u->received = u->sent_before = 0;
    u->why[0] = 0;
    u->connect_ms = t->connect_timeout_ms;
    u->first_byte_ms = t->first_byte_timeout_ms;
    u->idle_ms = t->idle_timeout_ms;
    u->since_ns = time_mono_ns();
}

/* A used connection that ended without a byte of an answer had been closed meanwhile, most likely. But somebody may
 * have read the request there, so it is counted: the exchange begins once more on a new connection, once only. */
static void repeat(upstream *u) {
    bool again = u->over && u->result && u->used && !u->repeated && !u->in.head_bytes && !u->in.bad;
    if (!again) return;
    u->sent_before = body_sent(u);
    u->n_out = u->n_at = 0;
    u->readable = u->ended = u->over = false;
    u->result = CURLE_OK;
    u->repeated = true;
    connect_line(u);
}

err_code upstream_open(upstream **out, const upstream_target *t, const upstream_request *q, err *e) {
    err_code rc = ERR_OK;
    size_t n_origin = origin_length(t->url);
    *out = NULL;
    if (n_origin >= ORIGIN_MAX || !strstr(t->url, "://"))
        return err_set(e, ERR_INVALID, "provider '%s': its URL is no address, or longer than %d bytes", t->provider,
                       UPSTREAM_URL_MAX);
    upstream *u = take_line(t, n_origin);
    if (!u) rc = new_line(&u, t, n_origin, e);
    if (rc) return rc;
    begin_exchange(u, t);
    rc = make_request(u, t, q, n_origin, e);
    if (rc) {
        free_line(u);
        return rc;
    }
    u->used = u->state == LINE_OPEN && is_fresh(u);
    if (!u->used) connect_line(u);
    if (!u->over && u->state == LINE_OPEN) send_some(u);
    *out = u;
    return ERR_OK;
}

/* The deadline that holds now, and what is over where it has passed: for the connection, for the first byte (it counts
 * anew while the request is still on its way), then between any two pieces. */
static uint64_t deadline(const upstream *u, const char **what, int *limit_ms) {
    bool open = u->state == LINE_OPEN, begun = open && u->in.head_bytes;
    *what = begun ? "fell silent in the middle of its answer" : open ? "did not begin to answer" : "did not connect";
    *limit_ms = begun ? u->idle_ms : open ? u->first_byte_ms : u->connect_ms;
    return u->since_ns + (uint64_t)(*limit_ms > 0 ? *limit_ms : 1) * NS_OF_MS;
}

static err_code exchange_error(const upstream *u, err *e) {
    const char *why = u->why[0] ? u->why : curl_easy_strerror(u->result);
    if (u->in.bad)
        return err_set(e, ERR_UPSTREAM, "provider '%s' broke the exchange off: its answer %s", u->provider, u->in.bad);
    switch (u->result) {
    case CURLE_FILESIZE_EXCEEDED:
        return err_set(e, ERR_UPSTREAM, "provider '%s' answers with more than the %zu bytes that an answer may have",
                       u->provider, UPSTREAM_ANSWER_MAX);
    case CURLE_OUT_OF_MEMORY: return err_nomem(e, "an exchange with a provider");
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
        return err_set(e, ERR_UPSTREAM, "provider '%s' cannot be reached: %s", u->provider, why);
    case CURLE_OPERATION_TIMEDOUT: /* libcurl keeps the time of connecting as well */
        return err_set(e, ERR_TIMEOUT, "provider '%s' did not connect within %d ms", u->provider, u->connect_ms);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CERTPROBLEM:
        return err_set(e, ERR_UPSTREAM,
                       "provider '%s': no trusted TLS connection: %s; its certificates are checked against the "
                       "system's, or the ca_file of its facts",
                       u->provider, why);
    default: break;
    }
    if (u->state != LINE_OPEN) return err_set(e, ERR_UPSTREAM, "provider '%s' cannot be reached: %s", u->provider, why);
    return err_set(e, ERR_UPSTREAM, "provider '%s' broke the exchange off: it closed the connection %s%s%s",
                   u->provider, u->in.head_bytes ? "in the middle of its answer" : "without an answer",
                   u->why[0] ? ": " : "", u->why);
}

/* Waits for the connection. */
static void wait_for(upstream *u, uint64_t now, uint64_t until) {
    int ms = until > now ? (int)((until - now + NS_OF_MS - 1) / NS_OF_MS) : 0;
    if (u->state == LINE_CONNECTING) {
        connecting c = {u, ms};
        away(work_connecting, &c);
        return;
    }
    int got = wait_fd(u->fd, (short)(is_sent(u) ? POLLIN : POLLIN | POLLOUT), ms);
    if (got > 0 && got & ~POLLOUT) u->readable = true;
}

err_code upstream_poll(upstream *u, int timeout_ms, upstream_state *state, const char **p, size_t *n, err *e) {
    uint64_t until = time_mono_ns() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * NS_OF_MS;
    *state = UPSTREAM_WAITING;
    *p = NULL;
    *n = 0;
    for (;;) {
        if (!u->over && read_piece(u, p, n)) {
            *state = UPSTREAM_BODY;
            return ERR_OK;
        }
        repeat(u);
        if (u->over) {
            bool whole = u->in.part == HTTP_OVER && u->result != CURLE_FILESIZE_EXCEEDED;
            if (u->result && !whole) return exchange_error(u, e);
            *state = UPSTREAM_DONE;
            return ERR_OK;
        }
        const char *what;
        int limit_ms;
        uint64_t now = time_mono_ns(), due = deadline(u, &what, &limit_ms), since = u->since_ns;
        if (!u->readable) wait_for(u, now, due < until ? due : until);
        if (u->state == LINE_OPEN && !u->over && !u->ended) send_some(u);
        if (u->state == LINE_OPEN && !u->over && u->readable) receive(u);
        /* Nobody may have looked for a while: what has come meanwhile was in time. */
        if (now >= due && !u->over && u->since_ns == since)
            return err_set(e, ERR_TIMEOUT, "provider '%s' %s within %d ms", u->provider, what, limit_ms);
        if (!u->n_at && !u->over && now >= until) return ERR_OK;
    }
}

int upstream_status(const upstream *u) {
    return u->in.status >= 200 ? u->in.status : 0;
}

int upstream_retry_after_s(const upstream *u) {
    return u->in.retry_after_s;
}

uint64_t upstream_sent(const upstream *u) {
    return u->sent_before + body_sent(u);
}

uint32_t upstream_sendings(const upstream *u) {
    return (u->sent_before > 0) + (body_sent(u) > 0);
}

uint64_t upstream_received(const upstream *u) {
    return u->received;
}

void upstream_close(upstream *u) {
    if (!u) return;
    wipe_request(u);
    if (!u->over || u->result || !is_sent(u) || u->in.part != HTTP_OVER || !u->in.keep || u->n_at) {
        free_line(u);
        return;
    }
    for (upstream *old = give_idle(u->pool, u), *next; old; old = next) {
        next = old->next;
        free_line(old);
    }
}

/* ---- what must not be shown -------------------------------------------------------------------------------- */

#define SCRUB_MIN 8

/* The longest piece of `secret` that `s` begins with. */
static size_t longest_piece(const char *s, size_t n, const char *secret, size_t m) {
    size_t best = 0;
    for (size_t i = 0; i < m; i++) {
        size_t k = 0;
        while (k < n && i + k < m && s[k] == secret[i + k]) k++;
        if (k > best) best = k;
    }
    return best;
}

void upstream_scrub(const upstream_target *t, char *text, size_t n) {
    size_t m = t->credential ? strlen(t->credential) : 0, to = 0, len = strnlen(text, n);
    if (!m) return;
    size_t least = m < SCRUB_MIN ? m : SCRUB_MIN;
    for (size_t i = 0; i < len;) {
        size_t k = longest_piece(text + i, len - i, t->credential, m);
        if (k < least) {
            text[to++] = text[i++];
            continue;
        }
        for (size_t s = 0; s < 3 && s < k; s++) text[to++] = '*';
        i += k;
    }
    if (to < n) text[to] = 0;
}
