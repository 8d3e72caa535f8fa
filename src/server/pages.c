/* Everything that is no dialect's call: models, health, metrics, the ledger, admin operations over HTTP. */
#include "server/internal.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/sys.h"

#include <string.h>

/* What the caller's key and project may not use is not shown either. */
static void keep_allowed(exchange *x, cJSON *found) {
    cJSON *list = cJSON_GetObjectItemCaseSensitive(found, "models"), *next;
    for (cJSON *m = list ? list->child : NULL; m; m = next) {
        const char *name = NULL;
        next = m->next;
        json_get_str(m, "name", &name, NULL);
        if (!name || !quota_allows_model(x->s->isl, &x->who, name)) cJSON_Delete(cJSON_DetachItemViaPointer(list, m));
    }
}

err_code pages_models(exchange *x, const char *name, cJSON **out, err *e) {
    if (!name) {
        err_code rc = models_list(x->s->isl, out, e);
        if (rc == ERR_OK) keep_allowed(x, *out);
        return rc;
    }
    /* asked first: the sentence of a name that is not known lists others */
    if (!quota_allows_model(x->s->isl, &x->who, name))
        return err_set(e, ERR_NOT_FOUND, "there is no model \"%.64s\" for this key", name);
    return models_show(x->s->isl, name, out, e);
}

void serve_models(exchange *x) {
    err e;
    cJSON *found = NULL;
    const char *name = strlen(x->path) > strlen("/v1/models") ? x->path + strlen("/v1/models/") : NULL;
    err_code rc = pages_models(x, name, &found, &e);
    if (rc != ERR_OK) {
        reply_outward(x, &e);
        reply_error(x, reply_status(x, rc), &e, rc == ERR_NOT_FOUND ? "model" : NULL);
        return;
    }
    buf b;
    buf_init(&b, 4u << 20);
    (name ? openai_model : openai_model_list)(found, &b);
    cJSON_Delete(found);
    reply_json(x, 200, &b);
}

void serve_health(exchange *x) {
    buf b;
    buf_init(&b, 256);
    buf_puts(&b, "{\"status\":\"ok\"}\n");
    reply_json(x, 200, &b);
}

/* Ready: not stopping, and the ledger takes records, without which nothing is answered. Models that `up` was told to
 * load are loaded before the sockets are opened. */
void serve_ready(exchange *x) {
    ledger_stats st;
    ledger_get_stats(island_ledger(x->s->isl), &st);
    bool draining = atomic_load(&x->s->draining), ready = !draining && !st.failed && !st.refusing;
    buf b;
    buf_init(&b, 256);
    buf_printf(&b, "{\"status\":\"%s\",\"ledger\":\"%s\"}\n",
               draining ? "stopping"
               : ready  ? "ready"
                        : "not ready",
               st.failed     ? "failed: restart after mending the disk"
               : st.refusing ? "refusing: is the disk full?"
                             : "writable");
    reply_json(x, ready ? 200 : 503, &b);
}

/* What the ledger does not count by itself. */
static void set_ledger_metrics(server *s) {
    ledger_stats st;
    ledger_get_stats(island_ledger(s->isl), &st);
    metric_set(metric_get(METRIC_GAUGE, "polder_ledger_up", NULL, "1 while the ledger takes records"),
               st.failed || st.refusing ? 0 : 1);
    metric_set(metric_get(METRIC_GAUGE, "polder_ledger_bytes", NULL, "Bytes of the ledger's segments"),
               (double)st.segment_bytes);
}

void serve_metrics(exchange *x) {
    set_ledger_metrics(x->s);
    metric_set(metric_get(METRIC_GAUGE, "polder_resident_bytes", NULL, "Memory of the process"),
               (double)sys_rss_kib() * 1024);
    buf b;
    buf_init(&b, 4u << 20);
    metrics_print(&b);
    reply_bytes(x, 200, "text/plain; version=0.0.4; charset=utf-8", "no-store", &b);
}

void serve_ledger(exchange *x) {
    err e;
    bool immutable = false;
    const char *path = x->path + strlen("/ledger/");
    buf b;
    buf_init(&b, 32u << 20); /* 256 entries of 65,535 bytes are 16 MiB */
    err_code rc = ledger_resource(island_ledger(x->s->isl), path, &b, &immutable, &e);
    if (rc != ERR_OK) {
        buf_free(&b);
        reply_outward(x, &e);
        reply_error(x, reply_status(x, rc), &e, NULL);
        return;
    }
    bool text = strcmp(path, "checkpoint") == 0;
    if (!b.ptr) buf_puts(&b, "");
    /* private: the reply was given to a key */
    reply_bytes(x, 200, text ? "text/plain; charset=utf-8" : "application/octet-stream",
                immutable ? "private, max-age=31536000, immutable" : "private, no-cache", &b);
}

/* May this caller do it? model.add reads a file of this machine by its name: only for who owns the island. */
static err_code check_operation(const exchange *x, const admin_op *op, const cJSON *args, err *e) {
    role r = x->who.role;
    bool may =
        r == ROLE_ADMIN || (r == ROLE_OPERATOR && op->needs == ROLE_OPERATOR) || (r == ROLE_AUDITOR && op->reads);
    if (!may) return err_set(e, ERR_DENIED, "%s: a key with the role %s may not use it", op->name, role_name(r));
    if (strcmp(op->name, "model.add") != 0) return ERR_OK;
    if (!x->control)
        return err_set(e, ERR_DENIED, "%s: files of this machine are imported over its control socket only", op->name);
    const char *path = NULL;
    if (json_get_str(args, "path", &path, e) != ERR_OK) return ERR_INVALID;
    if (path && path[0] != '/')
        return err_set(e, ERR_INVALID, "%s: path \"%.200s\" must be absolute: the server has another folder", op->name,
                       path);
    return ERR_OK;
}

static err_code run_operation(exchange *x, buf *out, err *e) {
    const char *name = x->path + strlen("/api/polder/v1/");
    const admin_op *op = admin_find(name);
    if (!op) return err_set(e, ERR_NOT_FOUND, "admin: there is no operation \"%.60s\"", name);
    cJSON *args = NULL, *result = NULL;
    bool empty = x->body.len == 0; /* an operation without arguments */
    err_code rc = json_parse(&args, empty ? "{}" : buf_str(&x->body), empty ? 2 : x->body.len, "request body", e);
    if (rc == ERR_OK && !cJSON_IsObject(args)) rc = err_set(e, ERR_INVALID, "request body: it must be a JSON object");
    if (rc == ERR_OK) rc = check_operation(x, op, args, e);
    if (rc == ERR_OK) rc = admin_call(x->s->isl, x->s->inf, &x->who, name, args, &result, e);
    cJSON_Delete(args);
    if (rc == ERR_OK) {
        rc = json_canonical(out, result, e);
        buf_putc(out, '\n');
    }
    cJSON_Delete(result);
    return rc;
}

void serve_admin(exchange *x) {
    err e;
    buf b;
    buf_init(&b, 16u << 20);
    err_code rc = run_operation(x, &b, &e);
    if (x->body.ptr) mem_wipe(x->body.ptr, x->body.cap); /* it may hold a credential */
    if (rc == ERR_OK) {
        reply_json(x, 200, &b);
        return;
    }
    buf_free(&b);
    reply_error(x, reply_status(x, rc), &e, NULL);
}
