#include "inference/hub_http.h"

#include "base/mem.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define REDIRECTS_MAX 5L
#define CONNECT_S     20L
#define SILENCE_S     30L /* a transfer that brings less than SLOW bytes a second for so long is broken off */
#define SLOW          64L
#define URL_MAX_BYTES 4096

struct hub_http {
    CURL *curl;
    char base[1024];
    char *token;
    uint64_t received;
};

typedef struct transfer {
    hub_http *h;
    buf *text;         /* a text */
    const hub_file *f; /* or a file */
    int fd;
    uint64_t at;    /* bytes of the file so far */
    bool body_ok;   /* the status allows the body */
    bool restarted; /* the server sent all again instead of the rest */
    err_code rc;
    err *e;
    char next[1024];
} transfer;

err_code hub_http_new(hub_http **out, const char *base, const char *token, err *e) {
    hub_http *h = *out = mem_zalloc(sizeof *h);
    if (!h) return err_nomem(e, "a connection");
    snprintf(h->base, sizeof h->base, "%s", base);
    h->token = token && *token ? mem_strdup(token) : NULL;
    h->curl = curl_easy_init();
    if (h->curl && (h->token || !token || !*token)) return ERR_OK;
    hub_http_free(h);
    *out = NULL;
    return err_nomem(e, "a connection");
}

void hub_http_free(hub_http *h) {
    if (!h) return;
    if (h->curl) curl_easy_cleanup(h->curl);
    if (h->token) mem_wipe(h->token, strlen(h->token));
    mem_free(h->token);
    mem_free(h);
}

uint64_t hub_http_received(const hub_http *h) {
    return h->received;
}

/* ---- callbacks -------------------------------------------------------------------------------------------- */

/* Link: <https://host/path>; rel="next" */
static void read_link(transfer *t, const char *s, size_t n) {
    char line[2048], *open_, *close_;
    snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), s);
    open_ = strchr(line, '<');
    close_ = open_ ? strchr(open_, '>') : NULL;
    if (!close_ || !strstr(close_, "rel=\"next\"")) return;
    *close_ = 0;
    const char *url = open_ + 1, *scheme = strstr(url, "://");
    if (scheme) url = strchr(scheme + 3, '/'); /* the page is asked of the same host */
    if (url && *url == '/' && strlen(url) < sizeof t->next) snprintf(t->next, sizeof t->next, "%s", url);
}

static bool range_starts_at(const char *s, size_t n, uint64_t at) {
    char text[64];
    unsigned long long from;
    snprintf(text, sizeof text, "%.*s", (int)(n < 63 ? n : 63), s);
    return sscanf(text, " bytes %llu-", &from) == 1 && from == at;
}

static size_t on_header(char *p, size_t size, size_t count, void *ctx) {
    transfer *t = ctx;
    size_t n = size * count;
    long status = 0;
    curl_easy_getinfo(t->h->curl, CURLINFO_RESPONSE_CODE, &status);
    if (n > 5 && strncmp(p, "HTTP/", 5) == 0) t->body_ok = false;
    if (n > 5 && strncasecmp(p, "link:", 5) == 0) read_link(t, p + 5, n - 5);
    if (n > 14 && strncasecmp(p, "content-range:", 14) == 0 && t->f && status == 206)
        t->body_ok = range_starts_at(p + 14, n - 14, t->at);
    return n;
}

static bool put(transfer *t, const char *p, size_t n) {
    while (n) {
        ssize_t k = pwrite(t->fd, p, n, (off_t)t->at);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) {
            t->rc = err_errno(t->e, "%s: cannot be written", t->f->part);
            return false;
        }
        t->at += (uint64_t)k;
        *t->f->done += (uint64_t)k;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static size_t on_body(char *p, size_t size, size_t count, void *ctx) {
    transfer *t = ctx;
    size_t n = size * count;
    long status = 0;
    curl_easy_getinfo(t->h->curl, CURLINFO_RESPONSE_CODE, &status);
    t->h->received += n;
    if (t->text) {
        if (status == 200) buf_append(t->text, p, n);
        return t->text->failed ? 0 : n;
    }
    if (status == 200 && !t->restarted && t->at) { /* no ranges here: from the start */
        *t->f->done -= t->at;
        t->at = 0;
    }
    if (status == 200) t->restarted = t->body_ok = true;
    if (status >= 300) return n; /* an error's page is not the file */
    if (!t->body_ok) {
        t->rc = err_set(t->e, ERR_INVALID, "%s: the hub sent another part of the file than was asked for", t->f->name);
        return 0;
    }
    if (n > t->f->size - t->at) {
        t->rc = err_set(t->e, ERR_INVALID, "%s: the hub sends more than the %llu bytes that it lists", t->f->name,
                        (unsigned long long)t->f->size);
        return 0;
    }
    if (!put(t, p, n)) return 0;
    if (t->f->progress && t->f->progress(t->f->ctx, *t->f->done, t->f->total)) {
        t->rc = err_set(t->e, ERR_CANCELLED, "%s: cancelled; what is there is kept for the next time", t->f->name);
        return 0;
    }
    return n;
}

/* ---- one request ------------------------------------------------------------------------------------------ */

static void set_up(transfer *t, const char *url) {
    CURL *c = t->h->curl;
    bool plain = strncasecmp(t->h->base, "http://", 7) == 0;
    curl_easy_reset(c);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, plain ? "http,https" : "https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, plain ? "http,https" : "https");
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, CONNECT_S);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, SLOW);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, SILENCE_S);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "polder");
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    if (t->h->token) { /* libcurl keeps it from other hosts */
        curl_easy_setopt(c, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
        curl_easy_setopt(c, CURLOPT_XOAUTH2_BEARER, t->h->token);
    }
}

static err_code status_error(const hub_http *h, const char *what, long status, err *e) {
    if (status == 401 || status == 403)
        return err_set(
            e, ERR_DENIED,
            "%s: %s refuses (%ld): the model may be private or want its licence accepted there first; give an "
            "access token by models.token_file in island.yaml or POLDER_HUB_TOKEN",
            what, h->base, status);
    if (status == 404) return err_set(e, ERR_NOT_FOUND, "%s: %s does not have it (404)", what, h->base);
    return err_set(e, ERR_UNAVAILABLE, "%s: %s answers with status %ld", what, h->base, status);
}

static err_code curl_error(const hub_http *h, const char *what, CURLcode code, err *e) {
    if (code == CURLE_TOO_MANY_REDIRECTS)
        return err_set(e, ERR_UNAVAILABLE, "%s: %s redirects more than %ld times", what, h->base, REDIRECTS_MAX);
    if (code == CURLE_UNSUPPORTED_PROTOCOL)
        return err_set(e, ERR_DENIED, "%s: %s redirects to an address that is not https", what, h->base);
    return err_set(e, ERR_UNAVAILABLE, "%s: %s: %s", what, h->base, curl_easy_strerror(code));
}

err_code hub_http_text(hub_http *h, const char *path, buf *out, char *next, err *e) {
    char url[URL_MAX_BYTES];
    transfer t = {.h = h, .text = out, .fd = -1, .e = e};
    snprintf(url, sizeof url, "%s%s", h->base, path);
    set_up(&t, url);
    CURLcode code = curl_easy_perform(h->curl);
    long status = 0;
    curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
    if (out->failed) return buf_check(out, "the hub's answer", e);
    if (code != CURLE_OK) return curl_error(h, path, code, e);
    if (status != 200) return status_error(h, path, status, e);
    if (next) snprintf(next, 1024, "%s", t.next);
    return ERR_OK;
}

/* One try: *moved tells whether a byte came. */
static err_code try_file(transfer *t, const char *url, bool *again, err *e) {
    char range[40];
    uint64_t before = t->at;
    t->restarted = t->body_ok = false;
    t->rc = ERR_OK;
    set_up(t, url);
    snprintf(range, sizeof range, "%llu-", (unsigned long long)t->at);
    if (t->at) curl_easy_setopt(t->h->curl, CURLOPT_RANGE, range);
    CURLcode code = curl_easy_perform(t->h->curl);
    long status = 0;
    curl_easy_getinfo(t->h->curl, CURLINFO_RESPONSE_CODE, &status);
    *again = false;
    if (t->rc) return t->rc;
    if (code == CURLE_OK && status != 200 && status != 206) {
        *again = status == 429 || status >= 500;
        return status_error(t->h, t->f->name, status, e);
    }
    if (t->at == t->f->size) return ERR_OK;
    *again =
        code != CURLE_TOO_MANY_REDIRECTS && code != CURLE_UNSUPPORTED_PROTOCOL && (code != CURLE_OK || t->at > before);
    if (code != CURLE_OK) return curl_error(t->h, t->f->name, code, e);
    return err_set(e, ERR_INVALID, "%s: the hub sent %llu bytes of %llu", t->f->name, (unsigned long long)t->at,
                   (unsigned long long)t->f->size);
}

static void wait_ms(long ms) {
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&ts, NULL);
}

err_code hub_http_file(hub_http *h, const hub_file *f, err *e) {
    char url[URL_MAX_BYTES];
    struct stat st;
    transfer t = {.h = h, .f = f, .e = e};
    t.fd = open(f->part, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (t.fd < 0) return err_errno(e, "%s: cannot be written", f->part);
    if (fstat(t.fd, &st) == 0 && (uint64_t)st.st_size <= f->size) t.at = (uint64_t)st.st_size;
    *f->done += t.at;
    snprintf(url, sizeof url, "%s%s", h->base, f->path);
    err_code rc = ERR_OK;
    bool again = true;
    for (int tries = 0; t.at < f->size && again; tries++) {
        uint64_t before = t.at;
        if (tries) wait_ms(100L << tries);
        rc = try_file(&t, url, &again, e);
        if (rc == ERR_OK) break;
        if (t.at > before) tries = 0;
        if (tries + 1 >= HUB_TRIES) again = false;
    }
    if (!rc && ftruncate(t.fd, (off_t)f->size) != 0) rc = err_errno(e, "%s: cannot be written", f->part);
    if (!rc && fsync(t.fd) != 0) rc = err_errno(e, "%s: cannot be synced", f->part);
    close(t.fd);
    return rc;
}
