/* Internal to inference: what the drivers of upstream servers share: lines to a provider, one exchange over HTTP.
 *
 * A line is one connection, kept open between requests. libcurl makes it (names, TCP, TLS and its checks) and carries
 * its bytes; the request is written here, the answer's framing is read by http_answer.h. It is driven by the thread
 * whose request it carries (upstream_poll), so an exchange costs no thread and no lock but the one of the provider's
 * list of idle lines.
 *
 *   upstream_open → upstream_poll … (status, then pieces of the body) → upstream_close
 *
 * Redirects are never followed: a body goes to the host that the provider's row names and to no other. TLS is checked
 * against the system's certificates, or the provider's own ca_file; proxies of the environment are not used. A
 * credential goes into a header of the request and nowhere else: no error, no log and no record shows any part of it,
 * also where the provider's answer repeats it (upstream_scrub).
 */
#ifndef POLDER_INFERENCE_DRIVERS_UPSTREAM_H
#define POLDER_INFERENCE_DRIVERS_UPSTREAM_H

#include "inference/inference.h"

#include <stdatomic.h>

#define UPSTREAM_URL_MAX    1000
#define UPSTREAM_MODEL_MAX  200
#define UPSTREAM_ANSWER_MAX ((size_t)64 << 20) /* bytes of one answer's body */
#define UPSTREAM_ERROR_MAX  (64u << 10)        /* of an error's body that are read */
#define UPSTREAM_LINES_IDLE 64                 /* idle lines kept for a provider */

/* The moving parts of a provider: they outlive changes of its facts. */
typedef struct upstream_lines upstream_lines;
err_code upstream_lines_new(upstream_lines **out, err *e);
void upstream_lines_free(upstream_lines *l); /* NULL is fine; no exchange is open */

/* A candidate at a provider. Belongs to the pipeline, lives as long as the call. */
typedef struct upstream_target {
    upstream_lines *lines;
    const char *provider;    /* its name, for errors */
    const char *url;         /* base: "https://api.example.eu/v1", without a slash at the end */
    const char *form;        /* "", or "azure": URL and header forms of Azure OpenAI */
    const char *api_version; /* of azure and anthropic; "" for the default */
    const char *model;       /* the upstream's name for it */
    const char *credential;  /* NULL: none is sent */
    const char *ca_file;     /* "": the system's */
    int connect_timeout_ms, first_byte_timeout_ms, idle_timeout_ms;
} upstream_target;

typedef struct upstream upstream; /* one exchange */
typedef struct upstream_request {
    const char *path;           /* behind url: "/chat/completions" */
    const char *const *headers; /* "name: value", NULL at the end; Content-Type and the credential's are added */
    const char *auth_header; /* "Authorization: Bearer ", "x-api-key: ", "api-key: "; the credential goes behind it */
    const char *body;        /* stays the caller's until upstream_close */
    size_t len;
} upstream_request;

typedef enum upstream_state { UPSTREAM_WAITING, UPSTREAM_BODY, UPSTREAM_DONE } upstream_state;

/* Begins to send. */
err_code upstream_open(upstream **out, const upstream_target *t, const upstream_request *q, err *e);
/* Waits at most timeout_ms. UPSTREAM_BODY: *p and *n are the next bytes of the answer (until the next call). An error
 * says what went wrong (connection, time, TLS, an answer that is too long). */
err_code upstream_poll(upstream *u, int timeout_ms, upstream_state *state, const char **p, size_t *n, err *e);
int upstream_status(const upstream *u);        /* of HTTP; 0 before */
int upstream_retry_after_s(const upstream *u); /* 0: not said */
uint64_t upstream_sent(const upstream *u);     /* bytes of the body that went out */
/* How often the body went out, in full or in part: 0, 1, or 2 where a used connection ended without an answer, so that
 * the same was sent once more on a new one. */
uint32_t upstream_sendings(const upstream *u);
uint64_t upstream_received(const upstream *u);
void upstream_close(upstream *u); /* NULL is fine; the line goes back, or is closed where the exchange was not over */
/* Every occurrence of the credential (or of 8 or more of its bytes in a row) in text becomes "***". */
void upstream_scrub(const upstream_target *t, char *text, size_t n);

#endif
