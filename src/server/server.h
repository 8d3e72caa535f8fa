/* server: the doors. HTTP/1.1 (connections share few threads), dialects, admin operations, metrics.
 *
 * Routes: POST /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/rerank, /v1/responses; GET and DELETE
 * /v1/responses/{id}; POST /v1/messages[/count_tokens]; /api/… (Ollama's); GET /v1/models[/{id}]; /healthz, /readyz,
 * /metrics; /ledger/… (tlog-tiles); /api/polder/v1/OP (admin operations, role admin or operator). The same
 * doors, without an API key, on DIR/control.sock (mode 0600): whoever may open it owns the island.
 */
#ifndef POLDER_SERVER_H
#define POLDER_SERVER_H
#if !defined(POLDER_LAYER) || POLDER_LAYER < 7 || (POLDER_LAYER == 7 && !defined(POLDER_ROOM_SERVER))
#error "server/server.h is layer 7: only server and the rooms above it include it"
#endif

#include "inference/inference.h"

typedef struct server server;

/* Listens on `listen` (NULL: as configured; port 0 picks one) and on the control socket. Appends "server.started".
 * ERR_USAGE for a malformed address or authentication switched off beyond loopback; ERR_BUSY where the port is in
 * use (names it). */
err_code server_start(server **out, island *i, inference *inf, const char *listen, err *e);
int server_port(const server *s);
const char *server_url(const server *s); /* "http://127.0.0.1:8080" */
/* Stop accepting, drain (configured timeout), append "server.stopped", close. NULL is fine. */
void server_stop(server *s);

/* ---- admin operations ------------------------------------------------------------------------------------ */

/* One table: what changes an island, callable in process (no server running) or as POST /api/polder/v1/OP with the
 * arguments as a JSON object. The command line uses admin_call where it holds the island and the control socket
 * where a server does, so both ways run this code. */
typedef struct admin_op {
    const char *name; /* "key.add" */
    const char *help;
    role needs; /* ROLE_ADMIN or ROLE_OPERATOR */
    err_code (*run)(island *i, inference *inf /* NULL without a server */, const identity *by, const cJSON *args,
                    cJSON **out, err *e);
    bool reads; /* changes nothing: over HTTP an auditor may use it too */
} admin_op;
/* key.add {name, role} · key.ls · key.revoke {key} · model.add {path, name} · model.pull · model.ls · model.show {name}
 * · model.verify {name} · model.rm {name} and those of the admin_*.c files. NULL: there is no such operation. */
const admin_op *admin_find(const char *op);
err_code admin_call(island *i, inference *inf, const identity *by, const char *op, const cJSON *args, cJSON **out,
                    err *e);

#endif
