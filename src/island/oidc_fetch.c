/* A JWKS over https: one GET without credentials, and nothing that the server could lead elsewhere. */
#include "island/oidc.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define CONNECT_MS 5000L
#define TOTAL_MS   10000L

bool oidc_is_url(const char *text) {
    return strncasecmp(text, "https:", 6) == 0 || strncasecmp(text, "http:", 5) == 0;
}

static bool host_is_loopback(const char *host) {
    struct in_addr a4;
    struct in6_addr a6;
    char inner[64];
    size_t n = strlen(host);
    if (strcasecmp(host, "localhost") == 0) return true;
    if (inet_pton(AF_INET, host, &a4) == 1) return ntohl(a4.s_addr) >> 24 == 127;
    if (n < 3 || n - 2 >= sizeof inner || host[0] != '[' || host[n - 1] != ']') return false;
    snprintf(inner, sizeof inner, "%.*s", (int)(n - 2), host + 1);
    return inet_pton(AF_INET6, inner, &a6) == 1 && IN6_IS_ADDR_LOOPBACK(&a6);
}

typedef struct url_parts {
    char *scheme, *host, *port, *user, *fragment;
} url_parts;

static err_code judge(const url_parts *p, const char *url, char *out, size_t cap, err *e) {
    bool https = strcasecmp(p->scheme, "https") == 0;
    if (!https && !(strcasecmp(p->scheme, "http") == 0 && host_is_loopback(p->host)))
        return err_set(e, ERR_USAGE, "\"%.200s\" must be an https address (http is for the loopback only)", url);
    if (p->user) return err_set(e, ERR_USAGE, "\"%.200s\" must not have a user in it", url);
    if (p->fragment) return err_set(e, ERR_USAGE, "\"%.200s\" must not have a # in it", url);
    if (out) snprintf(out, cap, "%s%s%s", p->host, p->port ? ":" : "", p->port ? p->port : "");
    return ERR_OK;
}

err_code oidc_url_check(const char *url, char *host, size_t cap, err *e) {
    url_parts p = {0};
    CURLU *u = curl_url();
    if (!u) return err_nomem(e, "an address");
    bool ok = curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_SCHEME, &p.scheme, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_HOST, &p.host, 0) == CURLUE_OK;
    if (ok) {
        (void)curl_url_get(u, CURLUPART_PORT, &p.port, 0);
        (void)curl_url_get(u, CURLUPART_USER, &p.user, 0);
        (void)curl_url_get(u, CURLUPART_FRAGMENT, &p.fragment, 0);
    }
    err_code code = ok ? judge(&p, url, host, cap, e) : err_set(e, ERR_USAGE, "\"%.200s\" is no address", url);
    curl_free(p.scheme);
    curl_free(p.host);
    curl_free(p.port);
    curl_free(p.user);
    curl_free(p.fragment);
    curl_url_cleanup(u);
    return code;
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx) {
    buf *b = ctx;
    buf_append(b, p, size * n);
    return b->failed ? 0 : size * n;
}

static void set_options(CURL *c, const char *url, buf *out) {
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https,http"); /* oidc_url_check has decided which of them */
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, TOTAL_MS);
    curl_easy_setopt(c, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)JWKS_BYTES_MAX);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "polder");
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, out);
    if (strncasecmp(url, "http:", 5) == 0) curl_easy_setopt(c, CURLOPT_PROXY, ""); /* the loopback needs none */
}

err_code oidc_fetch(const char *url, buf *out, err *e) {
    CURL *c = curl_easy_init();
    if (!c) return err_nomem(e, "a connection");
    set_options(c, url, out);
    CURLcode rc = curl_easy_perform(c);
    long status = 0;
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(c);
    if (out->failed) return buf_check(out, "the issuer's keys", e);
    if (rc != CURLE_OK) return err_set(e, ERR_UNAVAILABLE, "%s: %s", url, curl_easy_strerror(rc));
    if (status != 200) return err_set(e, ERR_UNAVAILABLE, "%s: answered with status %ld instead of 200", url, status);
    return ERR_OK;
}
