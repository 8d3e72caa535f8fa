/* Calls of a dialect: body → request → pipeline → reply. */
#include "server/internal.h"

#include "base/json.h"

#include <string.h>

#define PURPOSE_MAX 200 /* bytes */

static bool call_gone(void *ctx) {
    return exchange_gone(ctx);
}

/* It goes into records: one short line of plain text. */
static err_code check_purpose(const char *s, err *e) {
    size_t n = s ? strlen(s) : 0;
    bool ok = n <= PURPOSE_MAX && (!n || utf8_valid(s, n));
    for (size_t i = 0; i < n && ok; i++) ok = (unsigned char)s[i] >= 0x20 && s[i] != 0x7f;
    return ok ? ERR_OK
              : err_set(e, ERR_INVALID, "x-polder-purpose: it must be one line of at most %d bytes", PURPOSE_MAX);
}

/* Who can wait says so; nobody can claim more than others by a header. */
static err_code read_priority(exchange *x, err *e) {
    const char *s = http_field_value(x->head, "x-polder-priority");
    if (!s || strcmp(s, "normal") == 0) return ERR_OK;
    if (strcmp(s, "low") != 0)
        return err_set(e, ERR_INVALID, "x-polder-priority: it is normal, or low for work that can wait");
    x->answer->r.priority = -1;
    return ERR_OK;
}

err_code call_read(exchange *x, err *e) {
    cJSON *body = NULL;
    err_code rc = json_parse(&body, buf_str(&x->body), x->body.len, "request body", e);
    buf_free(&x->body); /* the tree holds what matters */
    if (rc == ERR_OK && !cJSON_IsObject(body)) {
        cJSON_Delete(body);
        return err_set(e, ERR_INVALID, "request body: it must be a JSON object");
    }
    if (rc == ERR_OK) rc = answer_new(&x->answer, x->route->d, body, e);
    if (rc == ERR_OK) rc = x->answer->d->parse(x->answer, e);
    if (rc != ERR_OK) return rc;
    x->answer->r.who = x->who;
    x->answer->r.stream = x->answer->stream;
    x->answer->r.label_header = http_field_value(x->head, "x-polder-label");
    x->answer->r.purpose = http_field_value(x->head, "x-polder-purpose");
    rc = check_purpose(x->answer->r.purpose, e);
    if (rc == ERR_OK) rc = read_priority(x, e);
    if (rc != ERR_OK) return rc;
    x->answer->isl = x->s->isl;
    return x->answer->d->prepare ? x->answer->d->prepare(x->answer, e) : ERR_OK;
}

static void write_whole(void *ctx) {
    exchange *x = ctx;
    buf b;
    buf_init(&b, (size_t)2 * ANSWER_BYTES_MAX);
    x->answer->d->whole(x->answer, &b);
    reply_json(x, 200, &b);
}

static err_code run_collected(exchange *x, err *e) {
    answer_sink sink = {.ctx = x, .gone = call_gone};
    err_code rc = answer_run(x->answer, x->s->inf, &sink, e);
    if (rc != ERR_OK) return rc;
    if (answer_bytes(x->answer) > LOOP_BODY_MAX)
        away(write_whole, x);
    else
        write_whole(x);
    return ERR_OK;
}

typedef struct starting {
    exchange *x;
    err *e;
    err_code rc;
} starting;

/* Waits until the answer has been admitted. */
static void start_stream(void *ctx) {
    starting *s = ctx;
    s->rc = stream_start(s->x, s->e);
}

void serve_dialect(exchange *x) {
    err e = {.code = ERR_OK};
    err_code rc = call_read(x, &e);
    bool streamed = rc == ERR_OK && x->answer->stream;
    if (streamed) {
        starting s = {.x = x, .e = &e};
        away(start_stream, &s);
        rc = s.rc;
    } else if (rc == ERR_OK)
        rc = run_collected(x, &e);
    if (rc == ERR_OK) {
        if (streamed) reply_stream(x);
        return;
    }
    call_fail(x, rc, &e);
}

void call_fail(exchange *x, err_code rc, err *e) {
    if (e->code == ERR_OK) err_set(e, rc, "the answer was given up: %s", err_name(rc));
    if (rc == ERR_CANCELLED && exchange_gone(x)) {
        x->status = 499;
        x->broken = true; /* nobody to answer: the connection is closed */
        return;
    }
    reply_outward(x, e);
    const char *param = x->answer && x->answer->param[0] ? x->answer->param : NULL;
    if (!param && rc == ERR_NOT_FOUND) param = "model";
    reply_error(x, reply_status(x, rc), e, param);
}

void serve_count(exchange *x) {
    err e = {.code = ERR_OK};
    uint64_t n = 0;
    err_code rc = call_read(x, &e);
    if (rc == ERR_OK) rc = pipeline_count(x->s->inf, &x->answer->r, &n, &e);
    if (rc != ERR_OK) {
        call_fail(x, rc, &e);
        return;
    }
    buf b;
    buf_init(&b, 128);
    buf_printf(&b, "{\"input_tokens\":%llu}", (unsigned long long)n);
    reply_json(x, 200, &b);
}
