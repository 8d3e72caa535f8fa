/* The driver of the local engine: prompt.c makes the tokens, scheduler.c runs them. */
#include "inference/drivers/driver.h"
#include "inference/internal.h"
#include "inference/tool_grammar.h"

#include "base/json.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>

typedef struct engine_call {
    prompt prompt;
    grammar *grammar; /* NULL: none is asked for */
    uint8_t tool_grammar[SHA256_LEN];
    job *job;
    bool told; /* STEP_STARTED */
} engine_call;

/* The new tokens of each choice: what was asked for, or all that fit. */
static err_code size_answer(driver_call *c, uint32_t context, uint32_t n_prompt, err *e) {
    const request *r = c->r;
    uint64_t fit = context - n_prompt, most = c->max_output_tokens;
    if (r->max_tokens < 0) {
        if (!fit)
            return err_set(e, ERR_TOO_LONG,
                           "the prompt's %u tokens fill the context of model '%s'; nothing is left to answer", n_prompt,
                           r->model);
        c->max_new = (uint32_t)(most && most < fit ? most : fit);
        return ERR_OK;
    }
    if (most && (uint64_t)r->max_tokens > most)
        return err_set(e, ERR_INVALID, "max_tokens: %lld, but this island allows %llu", (long long)r->max_tokens,
                       (unsigned long long)most);
    if ((uint64_t)r->max_tokens > fit)
        return err_set(e, ERR_TOO_LONG,
                       "max_tokens: the prompt's %u tokens and %lld new ones are more than the %u positions that model "
                       "'%s' has here; shorten the prompt or ask for at most %llu",
                       n_prompt, (long long)r->max_tokens, context, r->model, (unsigned long long)fit);
    c->max_new = (uint32_t)r->max_tokens;
    return ERR_OK;
}

/* Whoever may notice that others asked alike: requests of one project (of one key where there is none) and label. */
static void space_of(const driver_call *c, uint8_t out[SHA256_LEN]) {
    const identity *who = &c->r->who;
    const char *group = who->project[0] ? who->project : who->key_id;
    const uint8_t head[3] = {who->project[0] != 0, c->label.level, c->label.flags};
    sha256 h;
    sha256_init(&h);
    sha256_update(&h, head, sizeof head);
    sha256_update(&h, group, strlen(group));
    sha256_final(&h, out);
}

static uint64_t owner_of(const driver_call *c) {
    uint8_t d[SHA256_LEN];
    uint64_t id;
    sha256_of(d, c->r->who.key_id, strlen(c->r->who.key_id));
    memcpy(&id, d, sizeof id);
    return id;
}

static err_code engine_prepare(driver_call *c, err *e) {
    const request *r = c->r;
    loaded *l = c->target;
    engine_call *x = mem_zalloc(sizeof *x);
    if (!x) return err_nomem(e, "a request");
    c->state = x;
    uint32_t context = scheduler_context(l->sched);
    err_code rc = prompt_build(&x->prompt, l->m, l->special, l->format, r, context, e);
    if (!rc) rc = size_answer(c, context, (uint32_t)x->prompt.n_tokens, e);
    if (!rc)
        rc = answer_grammar_get(&x->grammar, l->grammars, l->m, l->format, r, buf_str(&x->prompt.text),
                                x->prompt.text.len, e);
    if (!rc && tool_grammar_wanted(r))
        rc = tool_grammar_get(&x->grammar, x->tool_grammar, l->grammars, l->m, l->format, r, buf_str(&x->prompt.text),
                              x->prompt.text.len, e);
    if (rc) return rc;
    job_spec spec = {.prompt = x->prompt.tokens,
                     .n_prompt = (uint32_t)x->prompt.n_tokens,
                     .n_choices = r->n_choices,
                     .max_new = c->max_new,
                     .sampling = r->sampling,
                     .stops = r->stops,
                     .n_stops = r->n_stops,
                     .want_logprobs = r->want_logprobs,
                     .n_top = r->n_top,
                     .echo = r->echo,
                     .ignore_end = r->ignore_end,
                     .grammar = x->grammar,
                     .format = r->parse ? l->format : NULL,
                     .tools = r->tools,
                     .one_call = r->one_call,
                     .prompt_text = buf_str(&x->prompt.text),
                     .prompt_text_len = x->prompt.text.len};
    spec.sampling.seed = c->seed;
    spec.owner = owner_of(c);
    spec.priority = r->priority;
    space_of(c, spec.space);
    rc = job_new(&x->job, l->sched, &spec, e);
    if (rc) return rc;
    c->prompt = r->tokens ? NULL : buf_str(&x->prompt.text);
    c->prompt_len = x->prompt.text.len;
    c->prompt_tokens = x->prompt.tokens;
    c->n_prompt_tokens = x->prompt.n_tokens;
    char hex[SHA256_HEX_LEN + 1];
    hex_encode(hex, l->digest, SHA256_LEN);
    snprintf(c->fingerprint, sizeof c->fingerprint, "p%d-%.12s%s", POLDER_NUMERICS, hex,
             scheduler_kv(l->sched) == KV_Q8 ? "-q8" : "");
    return ERR_OK;
}

static err_code engine_describe(const driver_call *c, jflat *f, err *e) {
    const loaded *l = c->target;
    char artifact[8 + SHA256_HEX_LEN] = "sha256:";
    hex_encode(artifact + 7, l->digest, SHA256_LEN);
    if (tool_grammar_wanted(c->r)) {
        const engine_call *x = c->state;
        char hex[SHA256_HEX_LEN + 1];
        hex_encode(hex, x->tool_grammar, SHA256_LEN);
        jflat_str(f, "tool_choice", !c->r->tool_must ? "strict" : c->r->tool_only ? "function" : "required");
        jflat_str(f, "tool_grammar", hex);
    }
    jflat_str(f, "artifact", artifact);
    jflat_num(f, "numerics", POLDER_NUMERICS);
    jflat_str(f, "kv", kv_format_name(scheduler_kv(l->sched)));
    jflat_str(f, "isa", engine_isa());
    return jflat_check(f, "the record of a request", e);
}

static void fill_outcome(job *j, driver_outcome *out) {
    for (uint32_t i = 0; i < out->n_choices; i++) {
        job_choice jc;
        job_get_choice(j, i, &jc);
        driver_choice *c = &out->choices[i];
        *c = (driver_choice){.finish = jc.finish,
                             .tokens = jc.tokens,
                             .n_tokens = jc.n_tokens,
                             .steps = jc.steps,
                             .has_digest = true,
                             .rows = jc.rows,
                             .prompt_rows = jc.prompt_rows,
                             .n_calls = jc.n_calls,
                             .malformed = jc.malformed};
        memcpy(c->logits_sha256, jc.logits_sha256, SHA256_LEN);
        memcpy(c->prompt_sha256, jc.prompt_sha256, SHA256_LEN);
        out->completion_tokens += jc.n_tokens;
        out->reasoning_tokens += jc.reasoning_tokens;
        if (!i) out->cached_tokens = jc.reused;
    }
    job_times t;
    job_get_times(j, &t);
    out->queue_ns = t.queue;
    out->prefill_ns = t.prefill;
    out->decode_ns = t.decode;
}

static err_code engine_start(driver_call *c, err *e) {
    engine_call *x = c->state;
    job_start(x->job);
    return ERR_OK;
}

static err_code engine_next(driver_call *c, int timeout_ms, driver_step *step, event *ev, err *e) {
    engine_call *x = c->state;
    *step = STEP_STARTED;
    if (!x->told) {
        x->told = true;
        return ERR_OK;
    }
    piece p;
    job_next(x->job, &p, timeout_ms);
    *step = p.kind == PIECE_NONE ? STEP_WAIT : p.kind == PIECE_END ? STEP_END : STEP_EVENT;
    if (*step == STEP_END) return job_result(x->job, e);
    *ev = (event){.kind = p.kind == PIECE_FINISH ? EV_FINISH : p.event,
                  .choice = p.choice,
                  .text = p.text,
                  .len = p.len,
                  .tokens = p.tokens,
                  .n_tokens = p.n_tokens,
                  .reason = p.reason,
                  .stop = p.stop,
                  .malformed = p.malformed};
    return ERR_OK;
}

static void engine_cancel(driver_call *c) {
    engine_call *x = c->state;
    job_cancel(x->job);
}

static void engine_finish(driver_call *c, driver_outcome *out) {
    engine_call *x = c->state;
    out->n_choices = c->r->n_choices;
    out->prompt_tokens = c->n_prompt_tokens;
    fill_outcome(x->job, out);
}

static void engine_release(driver_call *c) {
    engine_call *x = c->state;
    if (!x) return;
    job_free(x->job);
    grammar_free(x->grammar);
    prompt_free(&x->prompt);
    mem_free(x);
    c->state = NULL;
}

const driver driver_engine = {.name = "engine",
                              .prepare = engine_prepare,
                              .describe = engine_describe,
                              .start = engine_start,
                              .next = engine_next,
                              .cancel = engine_cancel,
                              .finish = engine_finish,
                              .release = engine_release};
