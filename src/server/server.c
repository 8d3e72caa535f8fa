/* The server's life: sockets, the record of its start, the doors; draining and the record of its end. */
#include "server/internal.h"
#include "server/responses.h"

#include "base/mem.h"
#include "base/sys.h"
#include "version.h"

#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define LAST_BYTES_MS 2000 /* what replies that are finished get to reach their clients */

static err_code record_started(server *s, err *e) {
    record *r;
    err_code rc = record_new(&r, "server.started", e);
    if (rc != ERR_OK) return rc;
    cJSON *b = record_body(r);
    bool ok = cJSON_AddStringToObject(b, "version", POLDER_VERSION) &&
              cJSON_AddNumberToObject(b, "numerics", POLDER_NUMERICS) &&
              cJSON_AddStringToObject(b, "isa", engine_isa()) && cJSON_AddStringToObject(b, "listen", s->address) &&
              cJSON_AddBoolToObject(b, "auth", s->auth);
    uint64_t seq;
    rc = ok ? ledger_append(island_ledger(s->isl), r, &seq, e) : err_nomem(e, "a record");
    record_free(r);
    return rc;
}

static err_code record_stopped(server *s, err *e) {
    record *r;
    err_code rc = record_new(&r, "server.stopped", e);
    if (rc != ERR_OK) return rc;
    cJSON *b = record_body(r);
    uint64_t up_s = (time_mono_ns() - s->started_ns) / 1000000000u;
    bool ok = cJSON_AddStringToObject(b, "version", POLDER_VERSION) &&
              cJSON_AddNumberToObject(b, "numerics", POLDER_NUMERICS) &&
              cJSON_AddStringToObject(b, "isa", engine_isa()) && cJSON_AddStringToObject(b, "listen", s->address) &&
              cJSON_AddNumberToObject(b, "uptime_s", (double)up_s) &&
              cJSON_AddNumberToObject(b, "requests", (double)atomic_load(&s->requests));
    uint64_t seq;
    rc = ok ? ledger_append(island_ledger(s->isl), r, &seq, e) : err_nomem(e, "a record");
    record_free(r);
    return rc;
}

/* Room for the configured connections beside the program's own files, as far as the system lets. */
static void raise_file_limit(const island_config *c) {
    struct rlimit r;
    rlim_t want = (rlim_t)c->server_max_connections + CONTROL_CONNECTIONS + 256;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur >= want) return;
    rlim_t had = r.rlim_cur;
    r.rlim_cur = r.rlim_max < want ? r.rlim_max : want;
    if (setrlimit(RLIMIT_NOFILE, &r) != 0) r.rlim_cur = had;
    if (r.rlim_cur < want)
        log_msg(LOG_WARN, "server", "server.max_connections is %lld, but this process may open %llu files only",
                (long long)c->server_max_connections, (unsigned long long)r.rlim_cur);
}

/* A core file would hold credentials and what people asked, beside the vault that keeps them. Who has to have one
 * raises the limit of the running process (prlimit). */
static void forbid_core_files(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_CORE, &r) != 0 || r.rlim_cur == 0) return;
    r.rlim_cur = 0;
    if (setrlimit(RLIMIT_CORE, &r) != 0) log_msg(LOG_WARN, "server", "core files of this process cannot be turned off");
}

static void close_sockets(server *s) {
    http_stop(s);
    if (s->socket_path[0]) (void)unlink(s->socket_path);
    pthread_mutex_destroy(&s->lock);
}

err_code server_start(server **out, island *i, inference *inf, const char *listen, err *e) {
    *out = NULL;
    server *s = mem_zalloc(sizeof *s);
    if (!s) return err_nomem(e, "the server");
    const island_config *c = island_get_config(i);
    s->isl = i;
    s->inf = inf;
    s->auth = c->server_auth;
    s->tcp = (door){.s = s, .fd = -1};
    s->control = (door){.s = s, .fd = -1, .control = true};
    s->started_ns = time_mono_ns();
    pthread_mutex_init(&s->lock, NULL);
    s->body_bytes_max = (uint64_t)c->server_max_body_bytes * 16;
    s->m_in_flight =
        metric_get(METRIC_GAUGE, "polder_http_in_flight", NULL, "HTTP requests whose reply is not out yet");
    s->m_hangups = metric_get(METRIC_COUNTER, "polder_http_hangups_total", NULL,
                              "Requests whose connection ended before the reply did");
    forbid_core_files();
    raise_file_limit(c);
    err_code rc = responses_open_tables(island_store(i), e);
    if (rc == ERR_OK) rc = listen_tcp(s, listen ? listen : c->server_listen, e);
    if (rc == ERR_OK) rc = listen_control(s, e);
    if (rc == ERR_OK) rc = record_started(s, e);
    if (rc == ERR_OK) {
        rc = http_start(s, e);
        if (rc != ERR_OK) (void)record_stopped(s, NULL);
    }
    if (rc != ERR_OK) {
        close_sockets(s);
        mem_free(s);
        return rc;
    }
    *out = s;
    return ERR_OK;
}

int server_port(const server *s) {
    return s->port;
}
const char *server_url(const server *s) {
    return s->url;
}

void server_stop(server *s) {
    if (!s) return;
    err e;
    atomic_store(&s->draining, true);
    http_quiesce(s);
    inference_drain(s->inf, island_get_config(s->isl)->server_drain_timeout_s * 1000);
    for (int ms = 0; ms < LAST_BYTES_MS && atomic_load(&s->in_flight) > 0; ms += 10) usleep(10000);
    close_sockets(s);
    if (record_stopped(s, &e) != ERR_OK) log_msg(LOG_ERROR, "server", "the end of this run is not recorded: %s", e.msg);
    mem_free(s);
}
