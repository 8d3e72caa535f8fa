#include "mock.h"
#include "mock_internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_MAX ((size_t)128 << 20)

struct mock {
    int listener, port, wake[2];
    pthread_t acceptor;
    pthread_mutex_t lock;
    pthread_cond_t gone;
    mock_conn *conns; /* under lock, as is all below */
    uint32_t n_conns;
    bool stopping;
    FILE *capture;
    mock_rule rules[MOCK_RULES_MAX];
    size_t n_rules;
    mock_stats stats;
    buf last_header, last_body;
};

/* ---- writing ----------------------------------------------------------------------------------------------- */

bool mock_send(mock_conn *c, const char *p, size_t n) {
    while (n) {
        size_t want = c->one_byte ? 1 : n;
        ssize_t k = send(c->fd, p, want, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

bool mock_chunk(mock_conn *c, const char *p, size_t n) {
    buf b = {.max = n + 32};
    buf_printf(&b, "%zx\r\n", n);
    buf_append(&b, p, n);
    buf_puts(&b, "\r\n");
    bool ok = !b.failed && mock_send(c, b.ptr, b.len);
    buf_free(&b);
    return ok;
}

bool mock_reply(mock_conn *c, int status, const char *more, const char *body, size_t n) {
    buf b = {.max = n + 4096};
    buf_printf(&b, "HTTP/1.1 %d Mock\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n", status, more,
               n);
    buf_append(&b, body, n);
    bool ok = !b.failed && mock_send(c, b.ptr, b.len);
    buf_free(&b);
    return ok;
}

/* false: the other side has gone, or the mock stops. */
bool mock_wait(mock_conn *c, int ms) {
    uint64_t until = time_mono_ns() + (uint64_t)ms * 1000000u;
    for (;;) {
        uint64_t now = time_mono_ns();
        if (now >= until) return true;
        struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};
        int left = (int)((until - now) / 1000000u) + 1;
        if (poll(&p, 1, left < 100 ? left : 100) > 0) return false;
        pthread_mutex_lock(&c->m->lock);
        bool stop = c->m->stopping;
        pthread_mutex_unlock(&c->m->lock);
        if (stop) return false;
    }
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

static bool more(mock_conn *c) {
    char piece[65536];
    ssize_t k;
    do k = recv(c->fd, piece, sizeof piece, 0);
    while (k < 0 && errno == EINTR);
    if (k <= 0) return false;
    if (!c->in.len) c->first_ns = time_mono_ns();
    buf_append(&c->in, piece, (size_t)k);
    return !c->in.failed;
}

const char *mock_header(const mock_conn *c, const char *name, size_t *n) {
    size_t len = strlen(name);
    for (const char *p = c->in.ptr, *end = c->in.ptr + c->n_header; p < end;) {
        const char *eol = memmem(p, (size_t)(end - p), "\r\n", 2);
        if (!eol) break;
        if ((size_t)(eol - p) > len && p[len] == ':' && strncasecmp(p, name, len) == 0) {
            p += len + 1;
            while (*p == ' ') p++;
            *n = (size_t)(eol - p);
            return p;
        }
        p = eol + 2;
    }
    *n = 0;
    return NULL;
}

static bool read_chunked(mock_conn *c, size_t at) {
    for (;;) {
        const char *eol;
        while (!(eol = memmem(c->in.ptr + at, c->in.len - at, "\r\n", 2)))
            if (!more(c)) return false;
        size_t n = strtoul(c->in.ptr + at, NULL, 16), from = (size_t)(eol - c->in.ptr) + 2;
        while (c->in.len < from + n + 2)
            if (!more(c)) return false;
        buf_append(&c->body, c->in.ptr + from, n);
        at = from + n + 2;
        if (n) continue;
        c->n_taken = at;
        return !c->body.failed;
    }
}

static bool read_request(mock_conn *c) {
    const char *end;
    size_t n;
    c->first_ns = time_mono_ns();
    while (!c->in.len || !(end = memmem(c->in.ptr, c->in.len, "\r\n\r\n", 4)))
        if (!more(c)) return false;
    c->n_header = (size_t)(end - c->in.ptr) + 4;
    buf_reset(&c->body);
    const char *coding = mock_header(c, "transfer-encoding", &n);
    if (coding && n == 7 && strncasecmp(coding, "chunked", 7) == 0) return read_chunked(c, c->n_header);
    const char *len = mock_header(c, "content-length", &n);
    size_t want = len ? strtoul(len, NULL, 10) : 0;
    while (c->in.len < c->n_header + want)
        if (!more(c)) return false;
    buf_append(&c->body, c->in.ptr + c->n_header, want);
    c->n_taken = c->n_header + want;
    return !c->body.failed;
}

/* ---- what was asked ---------------------------------------------------------------------------------------- */

static void note_request(mock_conn *c) {
    mock *m = c->m;
    pthread_mutex_lock(&m->lock);
    m->stats.requests++;
    m->stats.body_bytes += c->body.len;
    buf_reset(&m->last_header);
    buf_reset(&m->last_body);
    buf_append(&m->last_header, c->in.ptr, c->n_header);
    buf_append(&m->last_body, c->body.len ? c->body.ptr : "", c->body.len);
    if (m->capture) {
        fprintf(m->capture, "@request %llu %u %zu %zu\n", (unsigned long long)c->first_ns, c->number, c->n_header,
                c->body.len);
        fwrite(c->in.ptr, 1, c->n_header, m->capture);
        if (c->body.len) fwrite(c->body.ptr, 1, c->body.len, m->capture);
        fputc('\n', m->capture);
        fflush(m->capture);
    }
    pthread_mutex_unlock(&m->lock);
}

void mock_note_answer(mock *m) {
    pthread_mutex_lock(&m->lock);
    m->stats.answers++;
    pthread_mutex_unlock(&m->lock);
}

void mock_behaviour(mock *m, const char *model, char out[MOCK_NAME_MAX]) {
    snprintf(out, MOCK_NAME_MAX, "%s", model);
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n_rules; i++) {
        mock_rule *r = &m->rules[i];
        if (strcmp(r->name, model) != 0 || !r->left) continue;
        if (r->left != UINT32_MAX) r->left--;
        snprintf(out, MOCK_NAME_MAX, "%s", r->behaviour);
        break;
    }
    pthread_mutex_unlock(&m->lock);
    out[strcspn(out, ":")] = 0;
}

/* ---- the mock's own paths ---------------------------------------------------------------------------------- */

bool mock_script(mock *m, const char *lines) {
    static mock_rule fresh[MOCK_RULES_MAX];
    static pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
    size_t n = 0;
    bool ok = true;
    pthread_mutex_lock(&own);
    for (const char *p = lines; *p && ok; p += strcspn(p, "\n"), p += *p == '\n') {
        mock_rule r = {.left = UINT32_MAX};
        int k = 0, got = sscanf(p, "%119[^ \n] %119[^ \n]%n", r.name, r.behaviour, &k);
        if (*p == '#' || *p == '\n') continue;
        ok = got == 2 && n < MOCK_RULES_MAX;
        if (ok && p[k] == ' ') r.left = (uint32_t)strtoul(p + k, NULL, 10);
        if (ok) fresh[n++] = r;
    }
    if (ok) {
        pthread_mutex_lock(&m->lock);
        memcpy(m->rules, fresh, n * sizeof *fresh);
        m->n_rules = n;
        pthread_mutex_unlock(&m->lock);
    }
    pthread_mutex_unlock(&own);
    return ok;
}

static bool own_path(mock_conn *c) {
    mock *m = c->m;
    if (strstr(c->path, "/mock/script")) {
        buf_putc(&c->body, 0);
        bool ok = !c->body.failed && mock_script(m, c->body.ptr);
        return mock_reply(c, ok ? 200 : 400, "", "{}", 2);
    }
    if (strstr(c->path, "/mock/reset")) {
        pthread_mutex_lock(&m->lock);
        m->stats = (mock_stats){0};
        pthread_mutex_unlock(&m->lock);
        return mock_reply(c, 200, "", "{}", 2);
    }
    mock_stats s;
    char text[256];
    mock_get_stats(m, &s);
    int n =
        snprintf(text, sizeof text, "{\"requests\":%llu,\"body_bytes\":%llu,\"connections\":%llu,\"answers\":%llu}\n",
                 (unsigned long long)s.requests, (unsigned long long)s.body_bytes, (unsigned long long)s.connections,
                 (unsigned long long)s.answers);
    return mock_reply(c, 200, "", text, (size_t)n);
}

/* ---- connections ------------------------------------------------------------------------------------------- */

static bool serve(mock_conn *c) {
    const char *sp = memchr(c->in.ptr, ' ', c->n_header);
    size_t n = sp ? strcspn(sp + 1, " \r\n") : 0;
    if (!sp || n >= sizeof c->path) return false;
    memcpy(c->path, sp + 1, n);
    c->path[n] = 0;
    c->one_byte = false;
    if (strncmp(c->path, "/mock/", 6) == 0) return own_path(c);
    note_request(c);
    return mock_answer(c);
}

static void leave(mock_conn *c) {
    mock *m = c->m;
    pthread_mutex_lock(&m->lock);
    for (mock_conn **at = &m->conns; *at; at = &(*at)->next) {
        if (*at != c) continue;
        *at = c->next;
        break;
    }
    close(c->fd);
    m->n_conns--;
    pthread_cond_broadcast(&m->gone);
    pthread_mutex_unlock(&m->lock);
    buf_free(&c->in);
    buf_free(&c->body);
    free(c);
}

static void *conn_main(void *arg) {
    mock_conn *c = arg;
    while (read_request(c) && serve(c)) {
        size_t rest = c->in.len - c->n_taken;
        memmove(c->in.ptr, c->in.ptr + c->n_taken, rest);
        c->in.len = rest;
    }
    leave(c);
    return NULL;
}

static void add_conn(mock *m, int fd) {
    pthread_attr_t attr;
    pthread_t t;
    int one = 1;
    mock_conn *c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    *c = (mock_conn){.m = m, .fd = fd, .in = {.max = REQUEST_MAX}, .body = {.max = REQUEST_MAX}};
    pthread_mutex_lock(&m->lock);
    c->number = (uint32_t)++m->stats.connections;
    c->next = m->conns;
    m->conns = c;
    m->n_conns++;
    pthread_mutex_unlock(&m->lock);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 512 << 10);
    if (pthread_create(&t, &attr, conn_main, c) != 0) leave(c);
    pthread_attr_destroy(&attr);
}

static void *accept_main(void *arg) {
    mock *m = arg;
    struct pollfd p[2] = {{.fd = m->listener, .events = POLLIN}, {.fd = m->wake[0], .events = POLLIN}};
    for (;;) {
        if (poll(p, 2, -1) < 0) continue;
        if (p[1].revents) return NULL;
        int fd = accept4(m->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) add_conn(m, fd);
    }
}

/* ---- life -------------------------------------------------------------------------------------------------- */

static int listen_on(int port, int *actual) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t n = sizeof a;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (getenv("MOCK_ANY_ADDRESS")) a.sin_addr.s_addr = htonl(INADDR_ANY); /* for tests in namespaces */
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, n) == 0 && listen(fd, 1024) == 0 &&
        getsockname(fd, (struct sockaddr *)&a, &n) == 0) {
        *actual = ntohs(a.sin_port);
        return fd;
    }
    close(fd);
    return -1;
}

static bool load_script(mock *m, const char *path) {
    static char text[65536];
    FILE *f = fopen(path, "re");
    if (!f) return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = 0;
    fclose(f);
    return mock_script(m, text);
}

mock *mock_start(int port, const char *capture, const char *script) {
    mock *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->last_header.max = m->last_body.max = REQUEST_MAX;
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->gone, NULL);
    m->listener = listen_on(port, &m->port);
    m->capture = capture ? fopen(capture, "we") : NULL;
    bool ok = m->listener >= 0 && (!capture || m->capture) && (!script || load_script(m, script));
    if (ok && pipe(m->wake) == 0 && pthread_create(&m->acceptor, NULL, accept_main, m) == 0) return m;
    if (m->capture) fclose(m->capture);
    if (m->listener >= 0) close(m->listener);
    free(m);
    return NULL;
}

void mock_stop(mock *m) {
    if (!m) return;
    if (write(m->wake[1], "x", 1) != 1) abort();
    pthread_join(m->acceptor, NULL);
    close(m->listener);
    pthread_mutex_lock(&m->lock);
    m->stopping = true;
    for (mock_conn *c = m->conns; c; c = c->next) shutdown(c->fd, SHUT_RDWR);
    while (m->n_conns) pthread_cond_wait(&m->gone, &m->lock);
    pthread_mutex_unlock(&m->lock);
    close(m->wake[0]);
    close(m->wake[1]);
    if (m->capture) fclose(m->capture);
    buf_free(&m->last_header);
    buf_free(&m->last_body);
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->gone);
    free(m);
}

int mock_port(const mock *m) {
    return m->port;
}

void mock_get_stats(mock *m, mock_stats *s) {
    pthread_mutex_lock(&m->lock);
    *s = m->stats;
    pthread_mutex_unlock(&m->lock);
}

char *mock_last_header(mock *m) {
    pthread_mutex_lock(&m->lock);
    char *s = strdup(buf_str(&m->last_header));
    pthread_mutex_unlock(&m->lock);
    return s;
}

char *mock_last_body(mock *m, size_t *n) {
    pthread_mutex_lock(&m->lock);
    *n = m->last_body.len;
    char *s = malloc(*n + 1);
    if (s) memcpy(s, buf_str(&m->last_body), *n + 1);
    pthread_mutex_unlock(&m->lock);
    return s;
}
