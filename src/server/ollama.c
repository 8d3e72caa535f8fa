/* What the dialects of Ollama's API share: options, errors, figures. */
#include "server/ollama.h"

#include "base/loop.h"
#include "base/mem.h"
#include "base/sys.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define SEED_MAX 9007199254740991.0 /* 2^53 - 1: what a JSON number holds exactly */

/* ---- state ------------------------------------------------------------------------------------------------- */

static void state_free(void *p) {
    ollama_state *s = p;
    if (s->args.ptr) mem_wipe(s->args.ptr, s->args.len);
    buf_free(&s->args);
    buf_free(&s->name);
    mem_free(s);
}

err_code ollama_begin(answer *a, err *e) {
    ollama_state *s = mem_zalloc(sizeof *s);
    if (!s) return err_nomem(e, "an answer");
    s->started_ns = time_mono_ns();
    buf_init(&s->name, ANSWER_BYTES_MAX);
    buf_init(&s->args, ANSWER_BYTES_MAX);
    a->own = s;
    a->own_free = state_free;
    return ERR_OK;
}

ollama_state *ollama_state_of(const answer *a) {
    return a->own;
}

/* ---- options ----------------------------------------------------------------------------------------------- */

static err_code option_number(const cJSON *v, double min, double max, bool whole, double *out, err *e) {
    double d = cJSON_IsNumber(v) ? v->valuedouble : NAN;
    if (!(d >= min && d <= max) || (whole && d != floor(d)))
        return err_set(e, ERR_INVALID, "'options.%s' must be a %s from %.16g to %.16g", v->string,
                       whole ? "whole number" : "number", min, max);
    *out = d;
    return ERR_OK;
}

static err_code take_temperature(answer *a, const cJSON *v, err *e) {
    double d = 0;
    err_code rc = option_number(v, 0, 2, false, &d, e);
    a->r.sampling.temperature = (float)d;
    return rc;
}

static err_code take_top_k(answer *a, const cJSON *v, err *e) {
    double d = 0; /* -1 and 0: all */
    err_code rc = option_number(v, -1, INT32_MAX, true, &d, e);
    a->r.sampling.top_k = d > 0 ? (int32_t)d : 0;
    return rc;
}

static err_code take_top_p(answer *a, const cJSON *v, err *e) {
    double d = 1;
    err_code rc = option_number(v, 0, 1, false, &d, e);
    a->r.sampling.top_p = d < FLT_MIN ? FLT_MIN : (float)d; /* 0 keeps the likeliest token alone */
    return rc;
}

static err_code take_min_p(answer *a, const cJSON *v, err *e) {
    double d = 0;
    err_code rc = option_number(v, 0, 1, false, &d, e);
    if (rc == ERR_OK && (float)d >= 1) return err_set(e, ERR_INVALID, "'options.min_p' must be below 1");
    a->r.sampling.min_p = (float)d;
    return rc;
}

static err_code take_repeat_penalty(answer *a, const cJSON *v, err *e) {
    double d = 1;
    err_code rc = option_number(v, 0, 2, false, &d, e);
    if (rc == ERR_OK && (float)d <= 0) return err_set(e, ERR_INVALID, "'options.repeat_penalty' must be above 0");
    a->r.sampling.repeat_penalty = (float)d;
    return rc;
}

static err_code take_repeat_last_n(answer *a, const cJSON *v, err *e) {
    double d = 0;
    err_code rc = option_number(v, 0, 4096, true, &d, e);
    a->r.sampling.repeat_last_n = (int32_t)d;
    return rc;
}

static err_code take_presence(answer *a, const cJSON *v, err *e) {
    double d = 0;
    err_code rc = option_number(v, -2, 2, false, &d, e);
    a->r.sampling.presence_penalty = (float)d;
    return rc;
}

static err_code take_frequency(answer *a, const cJSON *v, err *e) {
    double d = 0;
    err_code rc = option_number(v, -2, 2, false, &d, e);
    a->r.sampling.frequency_penalty = (float)d;
    return rc;
}

static err_code take_seed(answer *a, const cJSON *v, err *e) {
    double d = 0;
    err_code rc = option_number(v, -SEED_MAX, SEED_MAX, true, &d, e);
    if (rc != ERR_OK || d == -1) return rc; /* -1: any */
    a->r.sampling.seed = (uint64_t)(int64_t)d;
    a->r.has_seed = true;
    return ERR_OK;
}

/* -1: no limit, -2: until the context is full. Both are what polder does without one. */
static err_code take_num_predict(answer *a, const cJSON *v, err *e) {
    double d = 0;
    err_code rc = option_number(v, -2, INT32_MAX, true, &d, e);
    if (rc == ERR_OK && d == 0)
        return err_set(e, ERR_INVALID, "'options.num_predict' must be at least 1, or -1 for no limit");
    a->r.max_tokens = d > 0 ? (int64_t)d : -1;
    return rc;
}

static err_code take_num_ctx(answer *a, const cJSON *v, err *e) {
    double d = 0;
    err_code rc = option_number(v, 1, INT32_MAX, true, &d, e);
    ollama_state_of(a)->num_ctx = (int64_t)d;
    return rc;
}

static err_code add_stop(answer *a, const cJSON *s, err *e) {
    size_t n = cJSON_IsString(s) ? strlen(s->valuestring) : 0;
    if (n == 0 || n > REQUEST_STOP_BYTES_MAX)
        return err_set(e, ERR_INVALID, "'options.stop' must be strings of 1 to %d bytes", REQUEST_STOP_BYTES_MAX);
    if (a->r.n_stops == REQUEST_STOPS_MAX)
        return err_set(e, ERR_INVALID, "'options.stop' has more than %d strings", REQUEST_STOPS_MAX);
    a->r.stops[a->r.n_stops++] = s->valuestring;
    return ERR_OK;
}

static err_code take_stop(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsArray(v)) return add_stop(a, v, e);
    err_code rc = ERR_OK;
    for (const cJSON *s = v->child; s && rc == ERR_OK; s = s->next) rc = add_stop(a, s, e);
    return rc;
}

static err_code refuse_option(const cJSON *v, err *e) {
    return err_set(e, ERR_UNSUPPORTED, "'options.%.60s' is not supported: leave it out", v->string);
}

/* Samplers that polder does not have: only the value that switches them off. */
static err_code only_one(answer *a, const cJSON *v, err *e) {
    return cJSON_IsNumber(v) && v->valuedouble == 1 ? ERR_OK : refuse_option(v, e);
}
static err_code only_zero(answer *a, const cJSON *v, err *e) {
    return cJSON_IsNumber(v) && v->valuedouble == 0 ? ERR_OK : refuse_option(v, e);
}
static err_code only_false(answer *a, const cJSON *v, err *e) {
    return cJSON_IsFalse(v) ? ERR_OK : refuse_option(v, e);
}
static err_code only_true(answer *a, const cJSON *v, err *e) {
    return cJSON_IsTrue(v) ? ERR_OK : refuse_option(v, e);
}

static const openai_field options[] = {
    {"temperature", take_temperature},
    {"top_k", take_top_k},
    {"top_p", take_top_p},
    {"min_p", take_min_p},
    {"repeat_penalty", take_repeat_penalty},
    {"repeat_last_n", take_repeat_last_n},
    {"presence_penalty", take_presence},
    {"frequency_penalty", take_frequency},
    {"seed", take_seed},
    {"num_predict", take_num_predict},
    {"num_ctx", take_num_ctx},
    {"stop", take_stop},
    {"typical_p", only_one},
    {"tfs_z", only_one},
    {"mirostat", only_zero},
    {"penalize_newline", only_true}, /* a line break is a token like any other */
    {"vocab_only", only_false},
    {"logits_all", only_false},
    {"embedding_only", only_false},
    /* of a sampler that is off; how the answer is computed; what stays when a context is shifted, which none is here */
    {"mirostat_tau", NULL},
    {"mirostat_eta", NULL},
    {"num_keep", NULL},
    {"numa", NULL},
    {"num_batch", NULL},
    {"num_gpu", NULL},
    {"main_gpu", NULL},
    {"num_thread", NULL},
    {"low_vram", NULL},
    {"f16_kv", NULL},
    {"use_mmap", NULL},
    {"use_mlock", NULL},
    {NULL, NULL},
};

err_code ollama_take_options(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "'options' must be an object");
    const cJSON *o;
    cJSON_ArrayForEach(o, v) {
        const openai_field *f = options;
        while (f->name && strcmp(f->name, o->string) != 0) f++;
        if (!f->name)
            return err_set(e, ERR_INVALID, "'options.%.60s' is not an option that is known: leave it out", o->string);
        err_code rc = f->take && !cJSON_IsNull(o) ? f->take(a, o, e) : ERR_OK;
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

typedef struct window {
    const answer *a;
    int64_t n; /* INT64_MAX: not known */
} window;

/* Reads the store. */
static void find_window(void *ctx) {
    window *w = ctx;
    cJSON *m = NULL;
    if (models_show(w->a->isl, w->a->r.model, &m, NULL) == ERR_OK)
        (void)json_get_int(m, "context", 1, INT32_MAX, &w->n, NULL);
    cJSON_Delete(m);
}

err_code ollama_prepare(answer *a, err *e) {
    int64_t asked = ollama_state_of(a)->num_ctx;
    if (!asked) return ERR_OK;
    window has = {a, INT64_MAX};
    away(find_window, &has);
    if (asked <= has.n) return ERR_OK; /* a name that is not known is said by who looks for it */
    snprintf(a->param, sizeof a->param, "options");
    return err_set(e, ERR_INVALID, "'options.num_ctx' is %lld, model '%s' has a context of %lld: leave it out",
                   (long long)asked, a->r.model, (long long)has.n);
}

/* ---- other fields ------------------------------------------------------------------------------------------ */

err_code ollama_refuse_images(answer *a, const cJSON *v, err *e) {
    if (cJSON_IsArray(v) && !v->child) return ERR_OK;
    return err_set(e, ERR_UNSUPPORTED, "'images' are not supported: only text can be looked at before it is answered");
}

err_code ollama_no_truncation(answer *a, const cJSON *v, err *e) {
    if (cJSON_IsFalse(v)) return ERR_OK;
    return err_set(e, ERR_UNSUPPORTED,
                   "'%s': polder cuts no text off, because what is left out would not be in the answer; send texts "
                   "that fit and leave this field out",
                   v->string);
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

void ollama_head(jw *w, const answer *a) {
    char now[32];
    time_rfc3339(now, time_unix_ms());
    jw_kstr(w, "model", a->r.model);
    jw_kstr(w, "created_at", now);
}

/* Nanoseconds. What a model took to load is not told apart: models load when the server starts, or once. */
void ollama_durations(jw *w, const answer *a) {
    const ollama_state *s = ollama_state_of(a);
    uint64_t now = time_mono_ns(), first = s->first_ns ? s->first_ns : now;
    jw_kint(w, "total_duration", (int64_t)(now - s->started_ns));
    jw_kint(w, "load_duration", 0);
    jw_kint(w, "prompt_eval_count", (int64_t)a->prompt_tokens);
    if (a->r.embed) return;
    jw_kint(w, "prompt_eval_duration", (int64_t)(first - s->started_ns));
    jw_kint(w, "eval_count", (int64_t)a->completion_tokens);
    jw_kint(w, "eval_duration", (int64_t)(s->last_ns ? s->last_ns - s->first_ns : 0));
}

void ollama_fail(const err *e, int status, const char *param, bool in_stream, buf *out) {
    jw w;
    jw_init(&w, out);
    jw_obj(&w);
    jw_kstr(&w, "error", e->msg);
    jw_obj_end(&w);
    if (in_stream) buf_putc(out, '\n');
}
