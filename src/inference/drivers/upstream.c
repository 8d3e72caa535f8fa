#include "inference/drivers/upstream.h"

#include "base/mem.h"
#include "base/sys.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#define HEADERS_MAX   (64u << 10) /* bytes of an answer's header */
#define KEEP_IN_BYTES (64u << 10) /* of a line's buffer between exchanges */
#define IDLE_LINE_NS  120000000000u
#define IDLE_CONN_S   110L /* libcurl takes no connection that was idle for longer */
#define RETRY_AFTER_S 86400
/* libcurl makes a new connection where a used one turns out to be closed, but five times only in a handle's whole life
 * (7.88 never sets the count back). A line that has made so many is not used again. */
#define CONNECTS_MAX   5
#define SOCKET_BUFFER  16384L
#define READ_BUFFER    8192L
#define AUTH_MAX_BYTES (CREDENTIAL_MAX + 64)
#define NS_OF_MS       1000000u

/* A line, and the exchange that runs on it. What belongs to the line outlives the exchange. */
struct upstream {
    /* the line */
    struct upstream *next; /* in the list of idle ones */
    upstream_lines *pool;
    CURLM *multi;
    CURL *easy;
    struct curl_slist *headers;
    uint8_t headers_digest[SHA256_LEN]; /* of what `headers` was made from */
    char url[UPSTREAM_URL_MAX * 2 + UPSTREAM_MODEL_MAX * 3];
    char ca_file[1000];
    char why[CURL_ERROR_SIZE];
    uint64_t idle_since_ns;
    long connects; /* connections that it has made */
    buf in;        /* what the last poll brought */
    /* the exchange */
    const char *provider;
    bool added, over;
    bool driven; /* just now: what comes next is to wait */
    bool again;  /* libcurl would send the same once more */
    bool repeated;
    uint64_t sent_before; /* by the first sending, where it was repeated */
    size_t body_len;
    bool too_long, headers_long, out_of_memory;
    CURLcode result;
    int status, retry_after_s;
    size_t header_bytes;
    uint64_t sent, received;
    int connect_ms, first_byte_ms, idle_ms;
    uint64_t since_ns; /* the deadline that holds now counts from here */
    bool connected;
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

static void free_headers(struct curl_slist *h) {
    for (struct curl_slist *at = h; at; at = at->next) mem_wipe(at->data, strlen(at->data));
    curl_slist_free_all(h);
}

static void free_line(upstream *u) {
    if (!u) return;
    if (u->added) curl_multi_remove_handle(u->multi, u->easy);
    if (u->easy) curl_easy_cleanup(u->easy);
    if (u->multi) curl_multi_cleanup(u->multi);
    free_headers(u->headers);
    buf_free(&u->in);
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

/* ---- what libcurl calls ------------------------------------------------------------------------------------ */

/* Seconds, or a date (RFC 9110, 10.2.3). */
static int read_retry_after(const char *s, size_t n) {
    char text[64];
    while (n && (*s == ' ' || *s == '\t')) s++, n--;
    while (n && (s[n - 1] == '\r' || s[n - 1] == '\n' || s[n - 1] == ' ')) n--;
    if (!n || n >= sizeof text) return 0;
    memcpy(text, s, n);
    text[n] = 0;
    long long v = 0;
    if (strspn(text, "0123456789") == n && n < 10)
        v = strtoll(text, NULL, 10);
    else {
        time_t at = curl_getdate(text, NULL);
        if (at != -1) v = (long long)at - (long long)(time_unix_ms() / 1000);
    }
    return v < 0 ? 0 : v > RETRY_AFTER_S ? RETRY_AFTER_S : (int)v;
}

static size_t on_header(char *p, size_t size, size_t count, void *ctx) {
    upstream *u = ctx;
    size_t n = size * count;
    u->header_bytes += n;
    if (u->header_bytes > HEADERS_MAX) {
        u->headers_long = true;
        return 0;
    }
    if (n > 12 && memcmp(p, "HTTP/", 5) == 0) {
        const char *code = memchr(p, ' ', n);
        u->status = code && (size_t)(p + n - code) > 3 ? atoi(code) : 0;
        u->retry_after_s = 0;
    } else if (n > 12 && strncasecmp(p, "retry-after:", 12) == 0) {
        u->retry_after_s = read_retry_after(p + 12, n - 12);
    }
    return n;
}

static size_t on_body(char *p, size_t size, size_t count, void *ctx) {
    upstream *u = ctx;
    size_t n = size * count;
    u->received += n;
    if (u->received > UPSTREAM_ANSWER_MAX) {
        u->too_long = true;
        return 0;
    }
    buf_append(&u->in, p, n);
    u->out_of_memory |= u->in.failed;
    return u->in.failed ? 0 : n;
}

static void count_sent(upstream *u) {
    curl_off_t n = 0;
    if (curl_easy_getinfo(u->easy, CURLINFO_SIZE_UPLOAD_T, &n) == CURLE_OK && n > 0) u->sent = (uint64_t)n;
}

static bool is_connected(upstream *u) {
    curl_off_t us = 0;
    return curl_easy_getinfo(u->easy, CURLINFO_PRETRANSFER_TIME_T, &us) == CURLE_OK && us > 0;
}

/* libcurl sends a request again, on a new connection, where a used one ended without a byte of an answer: it had been
 * closed meanwhile, most likely. But somebody may have read it there, so it is counted: libcurl gets no second
 * connection in one exchange, and the exchange begins once more, once only (repeat). */
static curl_socket_t on_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *a) {
    upstream *u = ctx;
    u->again = is_connected(u);
    if (!u->again) return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
    count_sent(u);
    if (!u->sent) u->sent = u->body_len; /* the count is lost: all of it may have left */
    return CURL_SOCKET_BAD;
}

/* ---- a line is made ready ---------------------------------------------------------------------------------- */

/* What every exchange of a line has in common. */
static bool set_up_line(CURL *c, upstream *u) {
    CURLcode rc = CURLE_OK;
#define SET(option, value) rc = rc ? rc : curl_easy_setopt(c, option, value)
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L); /* a name that does not resolve holds nobody up */
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOPROXY, "*");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_MAXAGE_CONN, IDLE_CONN_S);
    SET(CURLOPT_DNS_CACHE_TIMEOUT, 60L);
    SET(CURLOPT_BUFFERSIZE, READ_BUFFER);
    SET(CURLOPT_UPLOAD_BUFFERSIZE, SOCKET_BUFFER);
    SET(CURLOPT_USERAGENT, "polder");
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, u);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, u);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_socket);
    SET(CURLOPT_OPENSOCKETDATA, u);
    SET(CURLOPT_ERRORBUFFER, u->why);
    return rc == CURLE_OK;
#undef SET
}

static err_code new_line(upstream **out, upstream_lines *pool, err *e) {
    upstream *u = *out = mem_zalloc(sizeof *u);
    if (!u) return err_nomem(e, "a connection");
    u->pool = pool;
    u->in.max = UPSTREAM_ANSWER_MAX;
    u->easy = curl_easy_init();
    u->multi = curl_multi_init();
    if (u->easy && u->multi && set_up_line(u->easy, u)) return ERR_OK;
    free_line(u);
    *out = NULL;
    return err_nomem(e, "a connection");
}

static void add_text(sha256 *s, const char *text) {
    if (text) sha256_update(s, text, strlen(text));
    sha256_update(s, "", 1);
}

static void digest_headers(uint8_t out[SHA256_LEN], const upstream_target *t, const upstream_request *q) {
    sha256 s;
    sha256_init(&s);
    add_text(&s, t->credential ? q->auth_header : NULL);
    add_text(&s, t->credential);
    for (const char *const *h = q->headers; h && *h; h++) add_text(&s, *h);
    sha256_final(&s, out);
}

static bool append(struct curl_slist **list, const char *text) {
    struct curl_slist *l = curl_slist_append(*list, text);
    if (l) *list = l;
    return l != NULL;
}

static err_code make_headers(struct curl_slist **out, const upstream_target *t, const upstream_request *q, err *e) {
    static const char *const fixed[] = {"Content-Type: application/json", "Expect:"};
    bool ok = true;
    *out = NULL;
    for (size_t i = 0; i < 2; i++) ok = ok && append(out, fixed[i]);
    for (const char *const *h = q->headers; h && *h; h++) ok = ok && append(out, *h);
    if (ok && t->credential) {
        size_t n = strlen(q->auth_header) + strlen(t->credential);
        char *text = n < AUTH_MAX_BYTES ? mem_alloc(n + 1) : NULL;
        if (text) snprintf(text, n + 1, "%s%s", q->auth_header, t->credential);
        ok = text && append(out, text);
        if (text) mem_wipe(text, n);
        mem_free(text);
    }
    if (ok) return ERR_OK;
    free_headers(*out);
    *out = NULL;
    return err_nomem(e, "a request to a provider");
}

/* Headers are made anew only where they are others than those of the line's last request. */
static err_code set_headers(upstream *u, const upstream_target *t, const upstream_request *q, err *e) {
    uint8_t digest[SHA256_LEN];
    struct curl_slist *h;
    digest_headers(digest, t, q);
    if (u->headers && memcmp(digest, u->headers_digest, SHA256_LEN) == 0) return ERR_OK;
    err_code rc = make_headers(&h, t, q, e);
    if (rc) return rc;
    curl_easy_setopt(u->easy, CURLOPT_HTTPHEADER, h);
    free_headers(u->headers);
    u->headers = h;
    memcpy(u->headers_digest, digest, SHA256_LEN);
    return ERR_OK;
}

static err_code set_target(upstream *u, const upstream_target *t, const upstream_request *q, err *e) {
    char url[sizeof u->url];
    int n = snprintf(url, sizeof url, "%s%s", t->url, q->path);
    if (n < 0 || (size_t)n >= sizeof url)
        return err_set(e, ERR_INVALID, "provider '%s': its URL is longer than %zu bytes", t->provider, sizeof url - 1);
    CURLcode rc = CURLE_OK;
    if (strcmp(url, u->url) != 0) {
        rc = curl_easy_setopt(u->easy, CURLOPT_URL, url);
        memcpy(u->url, url, (size_t)n + 1);
    }
    const char *ca = t->ca_file ? t->ca_file : "";
    if (!rc && strcmp(ca, u->ca_file) != 0) {
        /* only what the owner named is trusted then */
        if (*ca) rc = curl_easy_setopt(u->easy, CURLOPT_CAINFO, ca);
        if (*ca && !rc) rc = curl_easy_setopt(u->easy, CURLOPT_CAPATH, NULL);
        snprintf(u->ca_file, sizeof u->ca_file, "%s", ca);
    }
    u->body_len = q->len;
    if (!rc) rc = curl_easy_setopt(u->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->len);
    if (!rc) rc = curl_easy_setopt(u->easy, CURLOPT_POSTFIELDS, q->len ? q->body : "");
    if (!rc) rc = curl_easy_setopt(u->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)t->connect_timeout_ms);
    if (rc) return err_nomem(e, "a request to a provider");
    return set_headers(u, t, q, e);
}

/* A line that trusts another file than the target's is of no use: libcurl cannot be told to forget one. */
static upstream *take_line(const upstream_target *t) {
    for (;;) {
        upstream *u = take_idle(t->lines);
        if (!u || strcmp(u->ca_file, t->ca_file ? t->ca_file : "") == 0) return u;
        free_line(u);
    }
}

static void begin_exchange(upstream *u, const upstream_target *t) {
    u->provider = t->provider;
    buf_reset(&u->in);
    u->over = u->too_long = u->headers_long = u->out_of_memory = u->connected = u->again = false;
    u->result = CURLE_OK;
    u->status = u->retry_after_s = 0;
    u->header_bytes = 0;
    u->sent = u->received = u->sent_before = 0;
    u->repeated = false;
    u->why[0] = 0;
    u->connect_ms = t->connect_timeout_ms;
    u->first_byte_ms = t->first_byte_timeout_ms;
    u->idle_ms = t->idle_timeout_ms;
    u->since_ns = time_mono_ns();
}

/* ---- an exchange ------------------------------------------------------------------------------------------- */

static void drive(upstream *u) {
    int running, left;
    curl_multi_perform(u->multi, &running);
    if (running) return;
    for (CURLMsg *m; (m = curl_multi_info_read(u->multi, &left));) {
        if (m->msg != CURLMSG_DONE) continue;
        u->over = true;
        u->result = m->data.result;
    }
}

/* The same once more on a new connection, where a used one ended without an answer. */
static void repeat(upstream *u) {
    if (!u->over || !u->again || u->repeated) return;
    curl_multi_remove_handle(u->multi, u->easy);
    u->sent_before = u->sent;
    u->sent = 0;
    u->repeated = true;
    u->over = u->again = u->connected = false;
    u->why[0] = 0;
    u->result = CURLE_OK;
    u->since_ns = time_mono_ns();
    if (curl_multi_add_handle(u->multi, u->easy) == CURLM_OK) {
        drive(u);
        return;
    }
    u->over = true;
    u->result = CURLE_OUT_OF_MEMORY;
}

err_code upstream_open(upstream **out, const upstream_target *t, const upstream_request *q, err *e) {
    err_code rc = ERR_OK;
    upstream *u = take_line(t);
    *out = NULL;
    if (!u) rc = new_line(&u, t->lines, e);
    if (rc) return rc;
    begin_exchange(u, t);
    rc = set_target(u, t, q, e);
    if (!rc && curl_multi_add_handle(u->multi, u->easy) != CURLM_OK) rc = err_nomem(e, "a request to a provider");
    if (rc) {
        free_line(u);
        return rc;
    }
    u->added = u->driven = true;
    drive(u);
    *out = u;
    return ERR_OK;
}

/* The deadline that holds now, and how far it is away: for the connection, for the first byte (it counts anew while
 * the request is still on its way), then between any two pieces. */
static err_code check_time(upstream *u, uint64_t now, uint64_t *left_ns, err *e) {
    const char *what = "did not connect";
    int limit_ms = u->connect_ms;
    if (!u->connected && (u->connected = is_connected(u))) u->since_ns = now;
    if (u->connected) {
        what = u->header_bytes ? "fell silent in the middle of its answer" : "did not begin to answer";
        limit_ms = u->header_bytes ? u->idle_ms : u->first_byte_ms;
        uint64_t before = u->sent;
        if (!u->header_bytes) count_sent(u);
        if (u->sent != before) u->since_ns = now;
    }
    uint64_t limit = (uint64_t)(limit_ms > 0 ? limit_ms : 1) * NS_OF_MS, gone = now - u->since_ns;
    if (gone < limit) {
        *left_ns = limit - gone;
        return ERR_OK;
    }
    return err_set(e, ERR_TIMEOUT, "provider '%s' %s within %d ms", u->provider, what, limit_ms);
}

static err_code exchange_error(const upstream *u, err *e) {
    if (u->too_long)
        return err_set(e, ERR_UPSTREAM, "provider '%s' answers with more than the %zu bytes that an answer may have",
                       u->provider, UPSTREAM_ANSWER_MAX);
    if (u->headers_long)
        return err_set(e, ERR_UPSTREAM, "provider '%s' answers with a header of more than %u bytes", u->provider,
                       HEADERS_MAX);
    if (u->out_of_memory) return err_nomem(e, "a provider's answer");
    if (u->again)
        return err_set(e, ERR_UPSTREAM,
                       "provider '%s' broke the exchange off: it closed the connection without an answer", u->provider);
    const char *why = u->why[0] ? u->why : curl_easy_strerror(u->result);
    switch (u->result) {
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
    default: return err_set(e, ERR_UPSTREAM, "provider '%s' broke the exchange off: %s", u->provider, why);
    }
}

err_code upstream_poll(upstream *u, int timeout_ms, upstream_state *state, const char **p, size_t *n, err *e) {
    uint64_t now = time_mono_ns(), until = now + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * NS_OF_MS;
    if (!u->driven) buf_reset(&u->in); /* what came while it was opened is still to be given */
    *state = UPSTREAM_WAITING;
    *p = NULL;
    *n = 0;
    for (;;) {
        size_t before = u->header_bytes;
        uint64_t left = 0;
        if (!u->over && !u->driven) drive(u);
        repeat(u);
        u->driven = false;
        now = time_mono_ns();
        if (u->header_bytes != before || u->in.len) u->since_ns = now;
        if (u->in.len) { /* an error after it comes with the next call */
            *state = UPSTREAM_BODY;
            *p = u->in.ptr;
            *n = u->in.len;
            return ERR_OK;
        }
        if (u->over) {
            if (u->result != CURLE_OK) return exchange_error(u, e);
            *state = UPSTREAM_DONE;
            return ERR_OK;
        }
        err_code rc = check_time(u, now, &left, e);
        if (rc) return rc;
        if (now >= until) return ERR_OK;
        if (left > until - now) left = until - now;
        curl_multi_poll(u->multi, NULL, 0, (int)((left + NS_OF_MS - 1) / NS_OF_MS), NULL);
    }
}

int upstream_status(const upstream *u) {
    return u->status >= 200 ? u->status : 0;
}

int upstream_retry_after_s(const upstream *u) {
    return u->retry_after_s;
}

uint64_t upstream_sent(const upstream *u) {
    curl_off_t n = 0;
    if (u->added && curl_easy_getinfo(u->easy, CURLINFO_SIZE_UPLOAD_T, &n) == CURLE_OK && n > 0)
        return u->sent_before + (uint64_t)n;
    return u->sent_before + u->sent;
}

uint32_t upstream_sendings(const upstream *u) {
    return (u->sent_before > 0) + (upstream_sent(u) > u->sent_before);
}

uint64_t upstream_received(const upstream *u) {
    return u->received;
}

void upstream_close(upstream *u) {
    long made = 0;
    if (!u) return;
    curl_easy_getinfo(u->easy, CURLINFO_NUM_CONNECTS, &made);
    u->connects += made;
    if (!u->over || u->result != CURLE_OK || u->repeated || u->connects >= CONNECTS_MAX) {
        free_line(u);
        return;
    }
    curl_multi_remove_handle(u->multi, u->easy);
    u->added = false;
    if (u->in.cap > KEEP_IN_BYTES) buf_free(&u->in);
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
