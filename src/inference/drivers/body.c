#include "inference/drivers/body.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void body_put_tree(jw *w, const cJSON *v) {
    jw_raw(w, "", 0); /* the value follows by itself */
    json_write(w->out, v);
}

void body_put_float(jw *w, const char *key, float v) {
    char text[40];
    for (int prec = 1; prec <= 9; prec++) {
        snprintf(text, sizeof text, "%.*g", prec, (double)v);
        if (strtof(text, NULL) == v) break;
    }
    jw_key(w, key);
    jw_num(w, strtod(text, NULL));
}

static bool lists(const cJSON *required, const char *name) {
    const cJSON *r;
    cJSON_ArrayForEach(r, required) {
        if (cJSON_IsString(r) && strcmp(r->valuestring, name) == 0) return true;
    }
    return false;
}

bool body_schema_is_closed(const cJSON *v) {
    const cJSON *x;
    if (cJSON_IsObject(v)) {
        const cJSON *type = json_get(v, "type"), *props = json_get(v, "properties");
        bool object = cJSON_IsObject(props) || (cJSON_IsString(type) && strcmp(type->valuestring, "object") == 0);
        if (object && !cJSON_IsFalse(json_get(v, "additionalProperties"))) return false;
        if (cJSON_IsObject(props)) cJSON_ArrayForEach(x, props) {
                if (!lists(json_get(v, "required"), x->string)) return false;
            }
    }
    cJSON_ArrayForEach(x, v) {
        if ((cJSON_IsObject(x) || cJSON_IsArray(x)) && !body_schema_is_closed(x)) return false;
    }
    return true;
}

void body_put_escaped(buf *out, const char *text) {
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        bool plain =
            (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || strchr("-._~", *p);
        if (plain)
            buf_putc(out, (char)*p);
        else
            buf_printf(out, "%%%02X", *p);
    }
}

err_code body_refuse(const upstream_target *t, const char *what, err *e) {
    return err_set(e, ERR_UNSUPPORTED, "provider '%s' cannot be told %s", t->provider, what);
}

err_code body_size_answer(driver_call *c, err *e) {
    uint64_t most = c->max_output_tokens;
    int64_t asked = c->r->max_tokens;
    if (asked >= 0 && most && (uint64_t)asked > most)
        return err_set(e, ERR_INVALID, "max_tokens: %lld, but this island allows %llu", (long long)asked,
                       (unsigned long long)most);
    uint64_t n = asked >= 0 ? (uint64_t)asked : most;
    c->max_new = n > INT32_MAX ? INT32_MAX : (uint32_t)n;
    return ERR_OK;
}

err_code body_check_common(const driver_call *c, err *e) {
    const upstream_target *t = c->target;
    const request *r = c->r;
    sampler_params def;
    sampler_params_default(&def);
    if (r->tokens) return body_refuse(t, "a prompt of token ids: they belong to another tokenizer", e);
    if (r->embed && r->embed->query) return body_refuse(t, "to rank documents", e);
    if (r->template_args) return body_refuse(t, "the variables of a chat template (chat_template_kwargs)", e);
    if (r->ignore_end) return body_refuse(t, "to go on past the end of an answer (ignore_eos)", e);
    if (r->grammar != GRAMMAR_NONE && r->grammar != GRAMMAR_JSON_SCHEMA)
        return body_refuse(t, "a form of the answer that is not a JSON schema", e);
    if (r->embed) return ERR_OK; /* nothing is drawn */
    if (r->sampling.min_p != def.min_p) return body_refuse(t, "min_p", e);
    if (r->sampling.repeat_penalty != def.repeat_penalty) return body_refuse(t, "repeat_penalty", e);
    if (r->sampling.n_bias) return body_refuse(t, "logit_bias: token ids belong to another tokenizer", e);
    return ERR_OK;
}

err_code body_check_content(const upstream_target *t, const cJSON *content, err *e) {
    const cJSON *p;
    if (!content || cJSON_IsString(content)) return ERR_OK;
    if (!cJSON_IsArray(content)) return body_refuse(t, "a content that is neither text nor parts of text", e);
    cJSON_ArrayForEach(p, content) {
        const cJSON *type = cJSON_IsObject(p) ? json_get(p, "type") : NULL;
        bool text =
            cJSON_IsString(type) && strcmp(type->valuestring, "text") == 0 && cJSON_IsString(json_get(p, "text"));
        if (!text) return body_refuse(t, "parts of a content that are not text", e);
    }
    return ERR_OK;
}
