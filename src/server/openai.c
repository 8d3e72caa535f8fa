/* What OpenAI's chat and completions have in common: fields, errors, usage, models. */
#include "server/openai.h"
#include "server/internal.h"

#include "base/mem.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define SEED_MAX 9007199254740991 /* 2^53 - 1: what a JSON number holds exactly */

/* ---- fields ------------------------------------------------------------------------------------------------ */

err_code openai_refuse(answer *a, const cJSON *v, err *e) {
    return err_set(e, ERR_UNSUPPORTED, "'%s' is not supported: leave it out", v->string);
}

err_code openai_refuse_true(answer *a, const cJSON *v, err *e) {
    return cJSON_IsFalse(v) ? ERR_OK : openai_refuse(a, v, e);
}

err_code openai_refuse_nonempty(answer *a, const cJSON *v, err *e) {
    bool empty = ((cJSON_IsArray(v) || cJSON_IsObject(v)) && !v->child) || (cJSON_IsString(v) && !v->valuestring[0]);
    return empty ? ERR_OK : openai_refuse(a, v, e);
}

err_code openai_take_int(answer *a, const cJSON *v, int64_t min, int64_t max, int64_t *out, err *e) {
    return json_get_int(a->body, v->string, min, max, out, e);
}

static err_code take_float(answer *a, const cJSON *v, double min, double max, float *out, err *e) {
    double d = 0;
    err_code rc = json_get_num(a->body, v->string, min, max, &d, e);
    if (rc == ERR_OK) *out = (float)d;
    return rc;
}

static err_code take_model(answer *a, const cJSON *v, err *e) {
    err_code rc = json_get_str(a->body, "model", &a->r.model, e);
    if (rc == ERR_OK && (!a->r.model[0] || strlen(a->r.model) > 4 * MODEL_NAME_MAX))
        return err_set(e, ERR_INVALID, "'model' must be a model's name");
    return rc;
}

static err_code take_stream(answer *a, const cJSON *v, err *e) {
    return json_get_bool(a->body, "stream", &a->stream, e);
}

static err_code take_stream_options(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "'stream_options' must be an object");
    const cJSON *o;
    bool ignored;
    cJSON_ArrayForEach(o, v) {
        bool usage = strcmp(o->string, "include_usage") == 0;
        if (!usage && strcmp(o->string, "include_obfuscation") != 0)
            return err_set(e, ERR_INVALID, "'stream_options' has no field '%.60s'", o->string);
        err_code rc = json_get_bool(v, o->string, usage ? &a->include_usage : &ignored, e);
        if (rc != ERR_OK) return err_prefix(e, "'stream_options'");
    }
    return ERR_OK;
}

static err_code take_n(answer *a, const cJSON *v, err *e) {
    int64_t n = 1;
    err_code rc = openai_take_int(a, v, 1, REQUEST_CHOICES_MAX, &n, e);
    a->r.n_choices = (uint32_t)n;
    return rc;
}

static err_code add_stop(answer *a, const cJSON *s, err *e) {
    size_t n = cJSON_IsString(s) ? strlen(s->valuestring) : 0;
    if (n == 0 || n > REQUEST_STOP_BYTES_MAX)
        return err_set(e, ERR_INVALID, "'stop' must be strings of 1 to %d bytes", REQUEST_STOP_BYTES_MAX);
    if (a->r.n_stops == REQUEST_STOPS_MAX)
        return err_set(e, ERR_INVALID, "'stop' has more than %d strings", REQUEST_STOPS_MAX);
    a->r.stops[a->r.n_stops++] = s->valuestring;
    return ERR_OK;
}

static err_code take_stop(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsArray(v)) return add_stop(a, v, e);
    const cJSON *s;
    cJSON_ArrayForEach(s, v) {
        err_code rc = add_stop(a, s, e);
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

static err_code take_seed(answer *a, const cJSON *v, err *e) {
    int64_t seed = 0;
    err_code rc = openai_take_int(a, v, -SEED_MAX, SEED_MAX, &seed, e);
    a->r.sampling.seed = (uint64_t)seed;
    a->r.has_seed = rc == ERR_OK;
    return rc;
}

static err_code take_temperature(answer *a, const cJSON *v, err *e) {
    return take_float(a, v, 0, 2, &a->r.sampling.temperature, e);
}

static err_code take_top_p(answer *a, const cJSON *v, err *e) {
    err_code rc = take_float(a, v, 0, 1, &a->r.sampling.top_p, e);
    /* 0 keeps the likeliest token alone, and so does the smallest number that the sampler takes */
    if (rc == ERR_OK && a->r.sampling.top_p < FLT_MIN) a->r.sampling.top_p = FLT_MIN;
    return rc;
}

static err_code take_top_k(answer *a, const cJSON *v, err *e) {
    int64_t k = 0; /* -1 and 0: all */
    err_code rc = openai_take_int(a, v, -1, INT32_MAX, &k, e);
    a->r.sampling.top_k = k > 0 ? (int32_t)k : 0;
    return rc;
}

static err_code take_min_p(answer *a, const cJSON *v, err *e) {
    float p = 0;
    err_code rc = take_float(a, v, 0, 1, &p, e);
    if (rc == ERR_OK && p >= 1) return err_set(e, ERR_INVALID, "'min_p' must be at least 0 and below 1");
    a->r.sampling.min_p = p;
    return rc;
}

static err_code take_repeat_penalty(answer *a, const cJSON *v, err *e) {
    const char *other = strcmp(v->string, "repeat_penalty") == 0 ? "repetition_penalty" : "repeat_penalty";
    if (json_get(a->body, other))
        return err_set(e, ERR_INVALID, "'%s' and '%s' are the same field: give one", v->string, other);
    float p = 1;
    err_code rc = take_float(a, v, 0, 2, &p, e);
    if (rc == ERR_OK && p <= 0) return err_set(e, ERR_INVALID, "'%s' must be above 0 and at most 2", v->string);
    a->r.sampling.repeat_penalty = p;
    return rc;
}

static err_code take_frequency_penalty(answer *a, const cJSON *v, err *e) {
    return take_float(a, v, -2, 2, &a->r.sampling.frequency_penalty, e);
}

static err_code take_presence_penalty(answer *a, const cJSON *v, err *e) {
    return take_float(a, v, -2, 2, &a->r.sampling.presence_penalty, e);
}

static bool parse_token_id(const char *s, int32_t *id) {
    size_t n = strlen(s);
    if (n == 0 || n > 9 || strspn(s, "0123456789") != n) return false;
    *id = (int32_t)strtol(s, NULL, 10);
    return true;
}

static err_code take_logit_bias(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "'logit_bias' must be an object of token ids and numbers");
    int n = cJSON_GetArraySize(v);
    if (n > SAMPLER_BIAS_MAX)
        return err_set(e, ERR_INVALID, "'logit_bias' has %d tokens, at most %d are taken", n, SAMPLER_BIAS_MAX);
    if (n == 0) return ERR_OK;
    a->bias = mem_array((size_t)n, sizeof *a->bias);
    if (!a->bias) return err_nomem(e, "logit biases");
    const cJSON *b;
    cJSON_ArrayForEach(b, v) {
        logit_bias *to = &a->bias[a->r.sampling.n_bias];
        if (!parse_token_id(b->string, &to->token))
            return err_set(e, ERR_INVALID, "'logit_bias': \"%.40s\" is no token id", b->string);
        double d = cJSON_IsNumber(b) ? b->valuedouble : NAN;
        if (!(d >= -100 && d <= 100))
            return err_set(e, ERR_INVALID, "'logit_bias': the bias of token %d must be a number from -100 to 100",
                           (int)to->token);
        to->bias = (float)d;
        a->r.sampling.n_bias++;
    }
    a->r.sampling.bias = a->bias;
    return ERR_OK;
}

static err_code take_max_tokens(answer *a, const cJSON *v, err *e) {
    return openai_take_int(a, v, 0, INT32_MAX, &a->r.max_tokens, e);
}

static err_code take_user(answer *a, const cJSON *v, err *e) {
    err_code rc = json_get_str(a->body, "user", &a->r.user, e);
    if (rc == ERR_OK && strlen(a->r.user) > 512) return err_set(e, ERR_INVALID, "'user' is longer than 512 bytes");
    return rc;
}

err_code openai_check_keys(const cJSON *o, const char *where, const char *known, err *e) {
    const cJSON *f;
    cJSON_ArrayForEach(f, o) {
        size_t n = strlen(f->string);
        const char *p = known;
        if (cJSON_IsNull(f)) continue;
        while (*p && (strcspn(p, " ") != n || memcmp(p, f->string, n) != 0)) {
            p += strcspn(p, " ");
            p += strspn(p, " ");
        }
        if (!*p) return err_set(e, ERR_INVALID, "%s has an unknown field '%.60s'", where, f->string);
    }
    return ERR_OK;
}

err_code openai_take_label(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsString(v) || strlen(v->valuestring) > FLOOR_MAX)
        return err_set(e, ERR_INVALID, "'metadata.polder_label' must be a label: a string of at most %d bytes",
                       FLOOR_MAX);
    a->r.label = v->valuestring;
    return ERR_OK;
}

static err_code take_metadata(answer *a, const cJSON *v, err *e) {
    /* the rest is stored nowhere, so it changes nothing; it must be what it claims to be all the same */
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "'metadata' must be an object");
    const cJSON *label = json_get(v, "polder_label");
    return label ? openai_take_label(a, label, e) : ERR_OK;
}

const openai_field openai_common_fields[] = {
    {"model", take_model},
    {"stream", take_stream},
    {"stream_options", take_stream_options},
    {"n", take_n},
    {"stop", take_stop},
    {"seed", take_seed},
    {"temperature", take_temperature},
    {"top_p", take_top_p},
    {"top_k", take_top_k},
    {"min_p", take_min_p},
    {"repeat_penalty", take_repeat_penalty},
    {"repetition_penalty", take_repeat_penalty},
    {"frequency_penalty", take_frequency_penalty},
    {"presence_penalty", take_presence_penalty},
    {"logit_bias", take_logit_bias},
    {"max_tokens", take_max_tokens},
    {"user", take_user},
    {"metadata", take_metadata},
    {"response_format", openai_take_response_format},
    {"structured_outputs", openai_take_structured},
    {"guided_json", openai_take_guided},
    {"guided_regex", openai_take_guided},
    {"guided_choice", openai_take_guided},
    {"guided_grammar", openai_take_guided},
    {"grammar", openai_take_grammar},
    {"json_schema", openai_take_json_schema},
    {NULL, NULL},
};

static const openai_field *find_field(const openai_field *table, const char *name) {
    while (table->name && strcmp(table->name, name) != 0) table++;
    return table->name ? table : NULL;
}

err_code openai_take_common(answer *a, const cJSON *v, err *e) {
    return find_field(openai_common_fields, v->string)->take(a, v, e);
}

static err_code take_fields(answer *a, const openai_field *own, const openai_field *other, err *e) {
    const cJSON *v;
    cJSON_ArrayForEach(v, a->body) {
        const openai_field *f = find_field(own, v->string);
        if (!f && other) f = find_field(other, v->string);
        err_code rc = ERR_OK;
        if (!f)
            rc = err_set(e, ERR_INVALID, "'%.60s' is not a field of this request: leave it out", v->string);
        else if (f->take && !cJSON_IsNull(v))
            rc = f->take(a, v, e);
        if (rc != ERR_OK) {
            snprintf(a->param, sizeof a->param, "%.60s", v->string);
            return rc;
        }
    }
    return ERR_OK;
}

err_code openai_take_fields(answer *a, const openai_field *own, err *e) {
    return take_fields(a, own, openai_common_fields, e);
}

err_code openai_take_own_fields(answer *a, const openai_field *own, err *e) {
    return take_fields(a, own, NULL, e);
}

err_code openai_check_common(answer *a, err *e) {
    const char *param = NULL;
    if (!a->r.model) {
        param = "model";
        err_set(e, ERR_INVALID, "'model' is missing: name one (GET /v1/models lists them)");
    } else if (json_get(a->body, "stream_options") && !a->stream) {
        param = "stream_options";
        err_set(e, ERR_INVALID, "'stream_options' is only for requests with 'stream': true");
    }
    if (!param) return ERR_OK;
    snprintf(a->param, sizeof a->param, "%s", param);
    return ERR_INVALID;
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

void openai_event_begin(buf *out) {
    buf_puts(out, "data: ");
}
void openai_event_end(buf *out) {
    buf_puts(out, "\n\n");
}
void openai_stream_end(buf *out) {
    buf_puts(out, "data: [DONE]\n\n");
}

void openai_usage(jw *w, const answer *a) {
    jw_key(w, "usage");
    jw_obj(w);
    jw_kint(w, "prompt_tokens", (int64_t)a->prompt_tokens);
    jw_kint(w, "completion_tokens", (int64_t)a->completion_tokens);
    jw_kint(w, "total_tokens", (int64_t)(a->prompt_tokens + a->completion_tokens));
    if (a->cached_tokens) {
        jw_key(w, "prompt_tokens_details");
        jw_obj(w);
        jw_kint(w, "cached_tokens", (int64_t)a->cached_tokens);
        jw_obj_end(w);
    }
    if (a->r.parse) {
        jw_key(w, "completion_tokens_details");
        jw_obj(w);
        jw_kint(w, "reasoning_tokens", (int64_t)a->reasoning_tokens);
        jw_obj_end(w);
    }
    jw_obj_end(w);
}

void openai_logprob(jw *w, float v) {
    char t[32];
    if (isnan(v)) {
        jw_null(w);
        return;
    }
    if (v < -9999.0f) v = -9999.0f;
    int n = 0;
    for (int digits = 6; digits <= 9; digits++) {
        n = snprintf(t, sizeof t, "%.*g", digits, (double)v);
        if (strtof(t, NULL) == v) break;
    }
    jw_raw(w, t, (size_t)n);
}

static const char *error_type(int status) {
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 429: return "rate_limit_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

static const char *error_code(const err *e, int status, const char *param) {
    if (e->code == ERR_UNAUTHENTICATED) return "invalid_api_key";
    if (e->code == ERR_NOT_FOUND && param && strcmp(param, "model") == 0) return "model_not_found";
    if (e->code == ERR_TOO_LONG) return "context_length_exceeded";
    return status == 415 ? "unsupported_media_type" : err_name(e->code);
}

void openai_fail(const err *e, int status, const char *param, bool in_stream, buf *out) {
    jw w;
    if (in_stream) openai_event_begin(out);
    jw_init(&w, out);
    jw_obj(&w);
    jw_key(&w, "error");
    jw_obj(&w);
    jw_kstr(&w, "message", e->msg);
    jw_kstr(&w, "type", error_type(status));
    jw_kstr(&w, "param", param);
    jw_kstr(&w, "code", error_code(e, status, param));
    jw_obj_end(&w);
    jw_obj_end(&w);
    if (in_stream) openai_event_end(out);
}

/* ---- models ------------------------------------------------------------------------------------------------ */

static void write_model(jw *w, const cJSON *m) {
    const char *name = "", *digest = NULL, *kind = "completion"; /* what was imported before has no kind */
    int64_t created = 0;
    (void)json_get_str(m, "name", &name, NULL);
    (void)json_get_str(m, "digest", &digest, NULL);
    (void)json_get_int(m, "created", 0, SEED_MAX, &created, NULL);
    jw_obj(w);
    jw_kstr(w, "id", name);
    jw_kstr(w, "object", "model");
    jw_kint(w, "created", created);
    jw_kstr(w, "owned_by", "polder");
    if (digest) jw_kstr(w, "digest", digest);
    (void)json_get_str(m, "kind", &kind, NULL);
    jw_key(w, "capabilities");
    jw_arr(w);
    jw_str(w, kind);
    jw_arr_end(w);
    jw_obj_end(w);
}

void openai_model(const cJSON *m, buf *out) {
    jw w;
    jw_init(&w, out);
    write_model(&w, m);
}

void openai_model_list(const cJSON *models, buf *out) {
    jw w;
    jw_init(&w, out);
    jw_obj(&w);
    jw_kstr(&w, "object", "list");
    jw_key(&w, "data");
    jw_arr(&w);
    const cJSON *m;
    cJSON_ArrayForEach(m, json_get(models, "models")) write_model(&w, m);
    jw_arr_end(&w);
    jw_obj_end(&w);
}
