/* Calls of a dialect: body → request → pipeline → reply. */
#include "server/internal.h"

#include "base/json.h"

#include <string.h>

static bool call_gone(void *ctx) {
    return exchange_gone(ctx);
}

static err_code read_body(exchange *x, err *e) {
    cJSON *body = NULL;
    err_code rc = json_parse(&body, buf_str(&x->body), x->body.len, "request body", e);
    buf_free(&x->body); /* the tree holds what matters */
    if (rc == ERR_OK && !cJSON_IsObject(body)) {
        cJSON_Delete(body);
        return err_set(e, ERR_INVALID, "request body: it must be a JSON object");
    }
    if (rc == ERR_OK) rc = answer_new(&x->answer, x->route->d, body, e);
    if (rc == ERR_OK) rc = x->answer->d->parse(x->answer, e);
    if (rc == ERR_OK) x->answer->r.who = x->who;
    return rc;
}

static err_code run_collected(exchange *x, err *e) {
    answer_sink sink = {.ctx = x, .gone = call_gone};
    err_code rc = answer_run(x->answer, x->s->inf, &sink, e);
    if (rc != ERR_OK) return rc;
    buf b;
    buf_init(&b, (size_t)2 * ANSWER_BYTES_MAX);
    x->answer->d->whole(x->answer, &b);
    reply_json(x, 200, &b);
    return ERR_OK;
}

void serve_dialect(exchange *x) {
    err e = {.code = ERR_OK};
    err_code rc = read_body(x, &e);
    bool streamed = rc == ERR_OK && x->answer->stream;
    if (streamed)
        rc = stream_start(x, &e);
    else if (rc == ERR_OK)
        rc = run_collected(x, &e);
    if (rc == ERR_OK) {
        if (streamed) reply_stream(x);
        return;
    }
    if (e.code == ERR_OK) err_set(&e, rc, "the answer was given up: %s", err_name(rc));
    if (rc == ERR_CANCELLED && exchange_gone(x)) {
        x->status = 499;
        x->queue_failed = true; /* nobody to answer: the connection is closed */
        return;
    }
    reply_outward(x, &e);
    const char *param = x->answer && x->answer->param[0] ? x->answer->param : NULL;
    if (!param && rc == ERR_NOT_FOUND) param = "model";
    reply_error(x, reply_status(x, rc), &e, param);
}
