#include "inference/restoring.h"

#include "base/mem.h"

#include <string.h>

typedef enum channel { CH_TEXT, CH_REASONING, CH_ARGS, CH_N } channel;

struct restoring {
    const redaction *map;
    bool json;                               /* the text is JSON */
    restorer *of[REQUEST_CHOICES_MAX][CH_N]; /* made when they are first needed */
    bool fed[REQUEST_CHOICES_MAX][CH_N];     /* something may be held back */
    buf out;
};

typedef struct target {
    err_code (*emit)(void *ctx, const event *ev);
    void *ctx;
} target;

err_code restoring_new(restoring **out, const redaction *map, bool json, err *e) {
    restoring *x = *out = mem_zalloc(sizeof *x);
    if (!x) return err_nomem(e, "an answer");
    x->map = map;
    x->json = json;
    buf_init(&x->out, LEDGER_CONTENT_MAX);
    return ERR_OK;
}

void restoring_free(restoring *x) {
    if (!x) return;
    for (int c = 0; c < REQUEST_CHOICES_MAX; c++)
        for (int k = 0; k < CH_N; k++) restorer_free(x->of[c][k]);
    if (x->out.ptr) mem_wipe(x->out.ptr, x->out.len);
    buf_free(&x->out);
    mem_free(x);
}

static event_kind kind_of(channel k) {
    return k == CH_TEXT ? EV_TEXT : k == CH_REASONING ? EV_REASONING : EV_CALL_ARGS;
}

static err_code send(restoring *x, uint32_t choice, channel k, const target *t, err *e) {
    err_code rc = buf_check(&x->out, "an answer", e);
    if (rc || !x->out.len) return rc;
    event ev = {.kind = kind_of(k), .choice = choice, .text = x->out.ptr, .len = x->out.len};
    return t->emit(t->ctx, &ev);
}

static err_code feed(restoring *x, const event *ev, channel k, const target *t, err *e) {
    restorer **r = &x->of[ev->choice][k];
    if (!*r) {
        bool json = k == CH_ARGS || (k == CH_TEXT && x->json);
        err_code rc = restorer_new(r, x->map, json ? RESTORE_JSON : RESTORE_TEXT, e);
        if (rc) return rc;
    }
    buf_reset(&x->out);
    x->fed[ev->choice][k] = true;
    err_code rc = restorer_feed(*r, ev->text ? ev->text : "", ev->len, &x->out, e);
    return rc ? rc : send(x, ev->choice, k, t, e);
}

static err_code flush(restoring *x, uint32_t choice, channel k, const target *t, err *e) {
    if (!x->fed[choice][k]) return ERR_OK;
    x->fed[choice][k] = false;
    buf_reset(&x->out);
    err_code rc = restorer_end(x->of[choice][k], &x->out, e);
    return rc || !t ? rc : send(x, choice, k, t, e);
}

static err_code flush_but(restoring *x, uint32_t choice, int but, const target *t, err *e) {
    err_code rc = ERR_OK;
    for (int k = 0; k < CH_N && !rc; k++)
        if (k != but) rc = flush(x, choice, (channel)k, t, e);
    return rc;
}

/* A text that comes whole. */
static err_code whole(restoring *x, const char *text, size_t n, buf *out, err *e) {
    restorer *r = NULL;
    err_code rc = restorer_new(&r, x->map, RESTORE_TEXT, e);
    if (!rc) rc = restorer_feed(r, text ? text : "", n, out, e);
    if (!rc) rc = restorer_end(r, out, e);
    if (!rc) rc = buf_check(out, "an answer", e);
    restorer_free(r);
    return rc;
}

/* The name of a call, or the stop string that ended a choice. */
static err_code send_whole(restoring *x, const event *ev, const target *t, err *e) {
    bool call = ev->kind == EV_CALL;
    const char *text = call ? ev->text : ev->stop;
    buf out = {.max = 1 << 16};
    err_code rc = whole(x, text, call ? ev->len : strlen(text), &out, e);
    event now = *ev;
    if (call) now.text = buf_str(&out), now.len = out.len;
    if (!call) now.stop = buf_str(&out);
    if (!rc) rc = t->emit(t->ctx, &now);
    if (out.ptr) mem_wipe(out.ptr, out.len);
    buf_free(&out);
    return rc;
}

err_code restoring_event(restoring *x, const event *ev, err_code (*emit)(void *ctx, const event *ev), void *ctx,
                         err *e) {
    target t = {emit, ctx};
    err_code rc = ERR_OK;
    if (ev->choice >= REQUEST_CHOICES_MAX) return err_set(e, ERR_INTERNAL, "an answer has too many choices");
    switch (ev->kind) {
    case EV_TEXT: rc = flush_but(x, ev->choice, CH_TEXT, &t, e); return rc ? rc : feed(x, ev, CH_TEXT, &t, e);
    case EV_REASONING:
        rc = flush_but(x, ev->choice, CH_REASONING, &t, e);
        return rc ? rc : feed(x, ev, CH_REASONING, &t, e);
    case EV_CALL_ARGS: return feed(x, ev, CH_ARGS, &t, e);
    case EV_CALL: rc = flush_but(x, ev->choice, -1, &t, e); return rc ? rc : send_whole(x, ev, &t, e);
    case EV_CALL_DROP: rc = flush(x, ev->choice, CH_ARGS, NULL, e); break; /* its text follows */
    case EV_CALL_END:
    case EV_FINISH: rc = flush_but(x, ev->choice, -1, &t, e); break;
    default: break;
    }
    if (!rc && ev->kind == EV_FINISH && ev->stop) return send_whole(x, ev, &t, e);
    return rc ? rc : emit(ctx, ev);
}
