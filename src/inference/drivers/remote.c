#include "inference/drivers/remote.h"

#include "base/bytes.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/sys.h"

#include <stdio.h>
#include <string.h>

/* How long the end of a connection's exchange is waited for after the answer's own end mark, so that the line can be
 * used again. */
#define DRAIN_NS      50000000u
#define DRAIN_POLL_MS 10
/* Of an answer that becomes a tree at once, which takes many times its bytes; vectors do not. */
#define WHOLE_MAX  ((size_t)16 << 20)
#define LARGE_FROM 65536u /* bytes of an answer whose reading would hold up a loop */
#define NS_OF_MS   1000000u

typedef struct remote {
    const remote_form *form;
    const upstream_target *t;
    buf body, path;
    char version[80];
    const char *headers[REMOTE_HEADERS_MAX];
    upstream *u;
    sse sse;
    buf whole;     /* an answer that comes at once, or an error */
    const char *p; /* the piece at hand */
    size_t n;
    uint32_t told;        /* choices whose end the caller knows of */
    bool known, streamed; /* how the body is to be read */
    bool started, over, cancelled;
    bool drained; /* the exchange is over too, or need not be waited for */
    err_code rc;  /* how it ended, once over */
    uint64_t asked_ns, started_ns, over_ns, marked_ns;
    uint64_t sent, received;
    uint32_t sendings;
    err error; /* why, where rc is one; from here on nothing is cleared */
    answer a;  /* most of its choices are never there */
} remote;

/* ---- before ------------------------------------------------------------------------------------------------ */

static void make_fingerprint(driver_call *c, const remote_form *form, const upstream_target *t) {
    sha256 s;
    uint8_t digest[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    const char *const parts[] = {form->name, t->provider, t->url, t->form ? t->form : "", t->model};
    sha256_init(&s);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) sha256_update(&s, parts[i], strlen(parts[i]) + 1);
    sha256_final(&s, digest);
    hex_encode(hex, digest, SHA256_LEN);
    memcpy(c->fingerprint, "u-", 2);
    memcpy(c->fingerprint + 2, hex, 12);
    c->fingerprint[14] = 0;
}

static void make_headers(remote *x) {
    const char *v = x->t->api_version;
    if (!x->form->version_header) return;
    snprintf(x->version, sizeof x->version, "%s%s", x->form->version_header, v && *v ? v : x->form->version);
    x->headers[0] = x->version;
}

err_code remote_prepare(driver_call *c, const remote_form *form, err *e) {
    remote *x = mem_alloc(sizeof *x);
    if (!x) return err_nomem(e, "a request to a provider");
    memset(x, 0, offsetof(remote, error));
    err_clear(&x->error);
    x->form = form;
    x->t = c->target;
    x->body.max = BODY_MAX;
    x->path.max = 4 * UPSTREAM_MODEL_MAX + 200;
    x->whole.max = UPSTREAM_ANSWER_MAX;
    sse_init(&x->sse);
    answer_init(&x->a, c->r, x->t->provider);
    c->state = x;
    err_code rc = body_size_answer(c, e);
    if (!rc) rc = form->write(c, x->t, &x->body, e);
    if (rc) return rc;
    form->path(c, x->t, &x->path);
    rc = buf_check(&x->path, "a provider's URL", e);
    if (rc) return rc;
    make_headers(x);
    make_fingerprint(c, form, x->t);
    c->body = buf_str(&x->body);
    c->body_len = x->body.len;
    return ERR_OK;
}

err_code remote_describe(const driver_call *c, jflat *f, err *e) {
    const remote *x = c->state;
    const request *r = c->r;
    jflat_str(f, "upstream_model", x->t->model);
    jflat_str(f, "driver", x->form->name);
    if (r->embed) {
        jflat_obj(f, "params");
        jflat_num(f, "inputs", r->embed->n_inputs);
        if (r->embed->dimensions) jflat_num(f, "dimensions", r->embed->dimensions);
        jflat_end(f);
    }
    if (r->tool_must) jflat_str(f, "tool_choice", r->tool_only ? "function" : "required");
    return jflat_check(f, "the record of a request", e);
}

err_code remote_start(driver_call *c, err *e) {
    remote *x = c->state;
    upstream_request q = {.path = buf_str(&x->path),
                          .headers = x->headers,
                          .auth_header = x->form->auth_header,
                          .body = buf_str(&x->body),
                          .len = x->body.len};
    if (x->t->form && strcmp(x->t->form, "azure") == 0) q.auth_header = "api-key: ";
    x->asked_ns = time_mono_ns();
    err_code rc = upstream_open(&x->u, x->t, &q, e);
    c->failure = (driver_failure){.try_others = rc != ERR_OK};
    return rc;
}

/* ---- an answer --------------------------------------------------------------------------------------------- */

/* Ends the attempt with the error in e. */
static err_code fail(driver_call *c, err_code rc, const driver_failure *f, err *e) {
    remote *x = c->state;
    c->failure = *f;
    x->over = true;
    x->rc = rc;
    x->over_ns = time_mono_ns();
    if (e) x->error = *e;
    return rc;
}

/* Nobody but this process is at fault, or nobody at all. */
static err_code fail_own(driver_call *c, err_code rc, err *e) {
    driver_failure f = {.try_others = rc != ERR_CANCELLED && rc != ERR_NOMEM};
    return fail(c, rc, &f, e);
}

/* The provider is. Another candidate may do better as long as nothing was shown. */
static err_code fail_provider(driver_call *c, err_code rc, err *e) {
    remote *x = c->state;
    driver_failure f = {.try_others = true, .provider = true, .status = x->u ? upstream_status(x->u) : 0};
    if (rc == ERR_NOMEM) return fail_own(c, rc, e);
    return fail(c, rc, &f, e);
}

static bool is_success(const remote *x) {
    int s = upstream_status(x->u);
    return s >= 200 && s < 300;
}

/* A reader found something wrong, or an error that the provider sent as a part of its answer. */
static err_code fail_reading(driver_call *c, err_code rc, err *e) {
    remote *x = c->state;
    if (x->a.lacks_choices) return fail_own(c, rc, e); /* it does not know n, and fails at nothing else */
    if (!x->a.error_status || rc == ERR_NOMEM) return fail_provider(c, rc, e);
    driver_failure f = {0};
    char said[ERR_MSG_MAX];
    snprintf(said, sizeof said, "%s", e ? e->msg : "");
    rc = failure_of_sentence(&f, x->t, x->a.error_status, upstream_retry_after_s(x->u), said, e);
    return fail(c, rc, &f, e);
}

/* All of a body that is read at once is there. */
static err_code read_all(driver_call *c, err *e) {
    remote *x = c->state;
    if (!is_success(x)) {
        driver_failure f = {0};
        err_code rc = failure_of_status(&f, x->t, upstream_status(x->u), upstream_retry_after_s(x->u),
                                        buf_str(&x->whole), x->whole.len, e);
        return fail(c, rc, &f, e);
    }
    err_code rc =
        x->whole.len ? x->form->read_whole(&x->a, x->whole.ptr, x->whole.len, e) : answer_bad(&x->a, e, "it is empty");
    if (!rc) rc = answer_check_end(&x->a, e);
    return rc ? fail_reading(c, rc, e) : ERR_OK;
}

static err_code sse_error(driver_call *c, err *e) {
    remote *x = c->state;
    if (x->sse.no_memory) return fail_own(c, err_nomem(e, "a provider's answer"), e);
    return fail_provider(c, answer_bad(&x->a, e, "an event of its stream is too long"), e);
}

/* Reads events of the stream until one has brought something. */
static err_code read_stream(driver_call *c, err *e) {
    remote *x = c->state;
    sse_event ev;
    while (!x->a.ended && x->a.at == x->a.n && sse_next(&x->sse, &x->p, &x->n, &ev)) {
        err_code rc = x->form->read_event(&x->a, &ev, e);
        if (!rc && x->a.ended) rc = answer_check_end(&x->a, e);
        if (rc) return fail_reading(c, rc, e);
    }
    if (x->sse.too_long || x->sse.no_memory) return sse_error(c, e);
    if (x->a.ended) {
        x->marked_ns = time_mono_ns();
        x->n = 0; /* what follows the end mark means nothing */
    }
    return ERR_OK;
}

/* What the body is can be seen where it begins: some answer at once although a stream was asked for. */
static void look_at_body(driver_call *c, const char *p, size_t n) {
    remote *x = c->state;
    while (n && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++, n--;
    if (!n && is_success(x)) return;
    x->known = true;
    x->streamed = c->r->stream && !c->r->embed && is_success(x) && *p != '{';
}

static err_code take_piece(driver_call *c, const char *p, size_t n, err *e) {
    remote *x = c->state;
    if (!x->known) look_at_body(c, p, n);
    if (!x->known) return ERR_OK;
    if (x->streamed) {
        x->p = p;
        x->n = n;
        return read_stream(c, e);
    }
    if (!is_success(x) && n > UPSTREAM_ERROR_MAX - x->whole.len) n = UPSTREAM_ERROR_MAX - x->whole.len;
    if (!c->r->embed && n > WHOLE_MAX - x->whole.len)
        return fail_provider(c, answer_bad(&x->a, e, "it is too long to be read at once"), e);
    buf_append(&x->whole, p, n);
    return x->whole.failed ? fail_own(c, buf_check(&x->whole, "a provider's answer", e), e) : ERR_OK;
}

/* The exchange is over. */
static err_code take_end(driver_call *c, err *e) {
    remote *x = c->state;
    x->drained = true;
    if (!x->streamed) return read_all(c, e);
    return fail_provider(c, answer_bad(&x->a, e, "its stream ends before its end mark"), e);
}

static bool give(driver_call *c, driver_step *step, event *ev) {
    remote *x = c->state;
    if (x->a.at == x->a.n) return false;
    if (!x->started) {
        x->started = true;
        x->started_ns = time_mono_ns();
        *step = STEP_STARTED;
        return true;
    }
    answer_next(&x->a, ev);
    if (ev->kind == EV_FINISH) x->told |= UINT32_C(1) << ev->choice;
    *step = STEP_EVENT;
    return true;
}

static err_code end(remote *x, driver_step *step) {
    x->over = true;
    x->over_ns = time_mono_ns();
    *step = STEP_END;
    return ERR_OK;
}

/* One look at the line. After the end mark the answer is whole, and nothing that happens to the line changes it. */
static err_code look(driver_call *c, int timeout_ms, err *e) {
    remote *x = c->state;
    upstream_state state;
    const char *p;
    size_t n;
    err_code rc = upstream_poll(x->u, timeout_ms, &state, &p, &n, x->a.ended ? NULL : e);
    if (x->a.ended) {
        x->drained |= rc || state == UPSTREAM_DONE || time_mono_ns() - x->marked_ns >= DRAIN_NS;
        return ERR_OK;
    }
    if (rc) return fail_provider(c, rc, e);
    if (state == UPSTREAM_BODY) return take_piece(c, p, n, e);
    return state == UPSTREAM_DONE ? take_end(c, e) : ERR_OK;
}

err_code remote_next(driver_call *c, int timeout_ms, driver_step *step, event *ev, err *e) {
    remote *x = c->state;
    *step = STEP_WAIT;
    if (x->cancelled) return err_set(e, ERR_CANCELLED, "the request was cancelled");
    if (x->rc) {
        if (e) *e = x->error;
        return x->rc;
    }
    if (x->over) {
        *step = STEP_END;
        return ERR_OK;
    }
    uint64_t until = time_mono_ns() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * NS_OF_MS;
    for (;;) {
        if (give(c, step, ev)) return ERR_OK;
        err_code rc = x->streamed && x->n ? read_stream(c, e) : ERR_OK;
        if (rc) return rc;
        if (give(c, step, ev)) return ERR_OK;
        if (x->a.ended && x->drained) return end(x, step);
        uint64_t now = time_mono_ns();
        int left = now >= until ? 0 : (int)((until - now + NS_OF_MS - 1) / NS_OF_MS);
        if (x->a.ended && left > DRAIN_POLL_MS) left = DRAIN_POLL_MS;
        rc = look(c, left, e);
        if (rc) return rc;
        if (!c->large && x->whole.len > LARGE_FROM) {
            c->large = true;
            if (on_fiber()) return ERR_OK;
        }
        if (x->a.at == x->a.n && time_mono_ns() >= until) return ERR_OK;
    }
}

void remote_cancel(driver_call *c) {
    remote *x = c->state;
    if (!x || x->over) return;
    x->cancelled = x->over = true;
    x->rc = err_set(&x->error, ERR_CANCELLED, "the request was cancelled");
    x->over_ns = time_mono_ns();
}

/* ---- after ------------------------------------------------------------------------------------------------- */

void remote_finish(driver_call *c, driver_outcome *out) {
    remote *x = c->state;
    answer *a = &x->a;
    if (x->u) {
        x->sent = upstream_sent(x->u);
        x->sendings = upstream_sendings(x->u);
        x->received = upstream_received(x->u);
        /* others can have the line while the outcome's record is written */
        upstream_close(x->u);
        x->u = NULL;
    }
    out->sent_bytes = x->sent;
    out->sendings = x->sendings;
    out->received_bytes = x->received;
    out->prompt_tokens = a->prompt_tokens;
    out->completion_tokens = a->completion_tokens;
    out->reasoning_tokens = a->reasoning_tokens;
    if (x->started) out->prefill_ns = x->started_ns - x->asked_ns;
    if (x->started && x->over_ns > x->started_ns) out->decode_ns = x->over_ns - x->started_ns;
    buf id = {.max = sizeof out->provider_id - 1};
    text_sanitise(&id, a->id, strlen(a->id), false);
    text_copy(out->provider_id, sizeof out->provider_id, buf_str(&id));
    buf_free(&id);
    if (c->r->embed) {
        if (!a->vectors || x->rc || !a->ended) return;
        out->n_vectors = c->r->embed->n_inputs;
        out->dimensions = a->dimensions;
        out->vector_digests = a->digests;
        memcpy(out->vectors_sha256, a->all_digest, SHA256_LEN);
        return;
    }
    out->n_choices = c->r->n_choices;
    for (uint32_t i = 0; i < out->n_choices; i++)
        out->choices[i] = (driver_choice){
            .finish = a->choices[i].finish, .n_calls = a->choices[i].n_calls, .malformed = a->choices[i].malformed};
}

void remote_release(driver_call *c) {
    remote *x = c->state;
    if (!x) return;
    upstream_close(x->u);
    if (x->body.ptr) mem_wipe(x->body.ptr, x->body.len);
    buf_free(&x->body);
    buf_free(&x->path);
    buf_free(&x->whole);
    sse_free(&x->sse);
    answer_drop(&x->a);
    mem_free(x);
    c->state = NULL;
    c->body = NULL;
}
