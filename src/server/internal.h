/* Internal to server: what its files share.
 *
 * An `exchange` is one HTTP request and its reply. It belongs to the fiber of its connection, or to whom that has sent
 * away (base/loop.h); only `stream` has a thread beside it, which touches nothing but its own struct and the answer,
 * and is joined before the exchange ends.
 */
#ifndef POLDER_SERVER_INTERNAL_H
#define POLDER_SERVER_INTERNAL_H

#include "base/buf.h"
#include "base/loop.h"
#include "base/metrics.h"
#include "server/dialect.h"
#include "server/http_head.h"
#include "server/server.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PATH_BYTES_MAX      1024u
#define HEADER_BYTES_MAX    16384u
#define METHOD_BYTES        12u
#define IN_BYTES            28672u /* of a connection's memory for what comes in */
#define HEAD_BYTES_MAX      20480u /* of a request: the rest of it is a body's */
#define CONNECTION_STACK    (1024u * 1024u)
#define CONTROL_CONNECTIONS 16u
#define DISCARD_BYTES_MAX   (64u << 20)  /* of a refused body that is read so that the client sees why */
#define LOOP_BODY_MAX       32768u       /* bytes of a body that may be read where other connections wait meanwhile */
#define BODY_BYTES_PER_S    16384u       /* a body that comes slower than this is cut off */
#define STREAM_QUEUE_BYTES  (256u << 10) /* of a stream that the client has not read yet */
#define HANGUP_POLL_MS      100

/* One listening socket. */
typedef struct door {
    server *s;
    int fd;            /* -1 where closed */
    bool control;      /* DIR/control.sock */
    unsigned max;      /* connections at once */
    atomic_uint n;     /* connections now */
    atomic_bool quiet; /* nothing is accepted any more */
} door;

struct server {
    island *isl;
    inference *inf;
    door tcp, control;
    atomic_uint doors; /* fibers that accept */
    loops *loops;
    pthread_mutex_t lock;
    struct conn *conns;           /* under lock: every open connection */
    unsigned n_conns, most_conns; /* under lock: now, and since memory was last given back */
    int port;
    char address[128]; /* "127.0.0.1:8080", as recorded */
    char url[160];
    char socket_path[256];
    bool auth;
    uint64_t started_ns;
    atomic_bool draining;
    atomic_uint in_flight; /* exchanges whose reply is not out yet */
    atomic_uint_least64_t requests;
    atomic_uint_least64_t trimmed_ns; /* when memory was last given back because it was time */
    atomic_uint_least64_t body_bytes; /* held in bodies now */
    uint64_t body_bytes_max;
    metric *m_in_flight, *m_hangups;
};

/* ---- routes ------------------------------------------------------------------------------------------------ */

typedef enum access_rule {
    ACCESS_OPEN,  /* anybody: says nothing about the island */
    ACCESS_USE,   /* user, operator, admin */
    ACCESS_WATCH, /* operator, auditor, admin */
    ACCESS_AUDIT, /* auditor, admin */
    ACCESS_ADMIN, /* decided for each operation */
} access_rule;

typedef struct exchange exchange;

typedef struct route {
    const char *path;   /* where it ends in '/', everything below it */
    const char *method; /* "GET" (HEAD too), "POST" or "DELETE" */
    access_rule needs;
    const dialect *d; /* POST of a dialect; for other routes how errors look, NULL as OpenAI's */
    void (*serve)(exchange *x);
    bool on_loop; /* serve waits only as base/loop.h says, while the body is small; otherwise it runs away */
} route;

extern const route routes[]; /* ends with a NULL path */
/* NULL: no such path, or not with that method; `allow` (at least 32 bytes) then names the methods it has, or is "". */
const route *route_find(const char *method, const char *path, char *allow);

/* ---- an exchange ------------------------------------------------------------------------------------------- */

typedef struct stream stream;

struct exchange {
    server *s;
    const http_head *head;
    int fd;
    bool control; /* came over the control socket */
    char method[METHOD_BYTES];
    const route *route;
    identity who;
    char id[32]; /* x-request-id */
    buf body;
    uint64_t started_ns, received, counted;
    bool refused; /* the body is thrown away, then `problem` is the reply */
    int problem_status;
    char allow[32];
    answer *answer;
    char label[SENSITIVITY_TEXT]; /* of what is given back without asking a model; "": it has none */
    stream *stream;
    int status;        /* of the reply; 0 before */
    int retry_after_s; /* of an error that says when it is worth another try; 0: soon */
    uint64_t sent;
    bool keep;     /* the connection stays open behind the reply */
    bool v11;      /* the client understands chunks */
    bool streamed; /* the body of the reply is what `stream` gives */
    bool broken;   /* no reply, or not all of it: the connection is closed */
    buf *out;      /* the head of the reply */
    buf reply;     /* its body */
    /* large, and not cleared as a whole */
    char path[PATH_BYTES_MAX + 1]; /* decoded, without the query */
    err problem;
};

/* Replies. Each exchange gets one. reply_bytes takes the content of `body`. Extra headers of an answer are added where
 * the exchange has one that was admitted. */
void reply_bytes(exchange *x, int status, const char *type, const char *cache, buf *body);
void reply_json(exchange *x, int status, buf *body);
void reply_error(exchange *x, int status, const err *e, const char *param);
/* The status for a failure: err_http_status but for cancellation by a stopping server (503). */
int reply_status(const exchange *x, err_code code);
void reply_stream(exchange *x);
/* Failures of this machine name its files: the log gets the sentence, the client (but for the control socket) one
 * without them. */
void reply_outward(const exchange *x, err *e);
/* Has the client hung up? A half-closed connection counts as hung up while an answer is being made: nothing tells it
 * from a closed one. */
bool exchange_gone(const exchange *x);

/* ---- guard: what is HTTP, and refused ----------------------------------------------------------------------- */

typedef struct guard_facts {
    uint64_t content_length;
    bool chunked, has_body, is_json;
    bool expects_continue;
    bool keeps; /* the client wants to go on with this connection */
    char host[256];
} guard_facts;

/* ERR_INVALID (a malformed or ambiguous request; the connection is closed after the reply). */
err_code guard_request(const http_head *h, guard_facts *f, err *e);
/* Percent-decode a path. ERR_INVALID: bytes that must be escaped, broken escapes, control characters, not UTF-8. */
err_code guard_path(char *out, size_t cap, const char *raw, err *e);
/* Names of the loopback: what Host may say while no key is asked for (a page of another origin whose name was
 * pointed at this machine says its own). */
bool guard_host_is_loopback(const char *host);

/* ---- auth -------------------------------------------------------------------------------------------------- */

/* Who asks. ERR_UNAUTHENTICATED, or ERR_DENIED where the role may not use x->route. */
err_code auth_check(exchange *x, err *e);
bool auth_role_may(role r, access_rule rule);

/* ---- the pages behind the routes --------------------------------------------------------------------------- */

void serve_dialect(exchange *x);
/* calls.c: body → x->answer, parsed and prepared. */
err_code call_read(exchange *x, err *e);
void call_fail(exchange *x, err_code rc, err *e); /* the reply for what did not succeed */
void serve_count(exchange *x);                    /* tokens of a request that is not run */
void serve_responses(exchange *x);                /* responses_store.c: what was stored of an answer */
/* The list of models, or what is known of one: as much of it as the caller's key and project may use. */
err_code pages_models(exchange *x, const char *name, cJSON **out, err *e);
void serve_models(exchange *x);
void serve_ollama_tags(exchange *x); /* ollama_models.c */
void serve_ollama_show(exchange *x);
void serve_ollama_version(exchange *x);
void serve_ollama_refuse(exchange *x);
void serve_health(exchange *x);
void serve_ready(exchange *x);
void serve_metrics(exchange *x);
void serve_ledger(exchange *x);
void serve_admin(exchange *x);

/* The OpenAI error object; what errors outside any dialect look like too. */
void openai_fail(const err *e, int status, const char *param, bool in_stream, buf *out);
/* The answers to GET /v1/models and /v1/models/{id} from models_list's and models_show's objects. */
void openai_model_list(const cJSON *models, buf *out);
void openai_model(const cJSON *m, buf *out);

/* ---- admin operations (admin.c; its `tables` lists the tables of the admin_*.c files) ----------------------- */

/* Refuse arguments that an operation does not have; `known` ends with NULL. */
err_code admin_check_args(const char *op, const cJSON *args, const char *const *known, err *e);
err_code admin_need_str(const char *op, const cJSON *args, const char *key, const char **out, err *e);
/* {name}, and nothing else. */
err_code admin_only_name(const char *op, const cJSON *args, const char **name, err *e);
err_code admin_done(cJSON **out, err *e); /* {"done": true} */
extern const admin_op admin_ops_provider[];

/* ---- streams ----------------------------------------------------------------------------------------------- */

/* Runs x->answer on a thread of its own. Returns when the first run is admitted (ERR_OK) or the answer failed before
 * (the error). The thread is joined by stream_free. */
err_code stream_start(exchange *x, err *e);
/* Blocks until there are bytes: their number, 0 at the end, -1 where the client has gone. */
long stream_read(stream *st, char *p, size_t max);
void stream_free(stream *st); /* cancels and joins; NULL is fine */

/* ---- http -------------------------------------------------------------------------------------------------- */

err_code http_start(server *s, err *e); /* on the sockets of both doors */
void http_quiesce(server *s);           /* stop accepting */
void http_stop(server *s);              /* ends every connection, waits for the last, closes the sockets */

/* listen.c: sockets. */
err_code listen_tcp(server *s, const char *address, err *e);
err_code listen_control(server *s, err *e);
/* "HOST:PORT", "[V6]:PORT". */
err_code listen_parse(const char *address, char *host, size_t host_cap, char *port, size_t port_cap, err *e);

#endif
