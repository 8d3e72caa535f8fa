/* The dialect of POST /v1/embeddings. */
#include "server/internal.h"
#include "server/vectors.h"

#include "base/mem.h"

#include <string.h>

/* ---- reading ----------------------------------------------------------------------------------------------- */

static bool is_id(const cJSON *v) {
    return cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble <= INT32_MAX &&
           v->valuedouble == (double)(int32_t)v->valuedouble;
}

/* One input; token ids go to *ids, which moves on. */
static err_code read_input(embed_input *in, const cJSON *v, int32_t **ids, err *e) {
    if (cJSON_IsString(v)) {
        *in = (embed_input){.text = v->valuestring, .len = strlen(v->valuestring)};
        return ERR_OK;
    }
    if (!cJSON_IsArray(v))
        return err_set(e, ERR_INVALID,
                       "'input' must be a string, an array of strings, of token ids, or of arrays of token ids");
    *in = (embed_input){.tokens = *ids};
    const cJSON *t;
    cJSON_ArrayForEach(t, v) {
        if (!is_id(t)) return err_set(e, ERR_INVALID, "'input': a token id is no whole number from 0 to %d", INT32_MAX);
        (*ids)[in->n_tokens++] = (int32_t)t->valuedouble;
    }
    *ids += in->n_tokens;
    return ERR_OK;
}

static size_t count_ids(const cJSON *v, bool many) {
    size_t n = 0;
    const cJSON *one;
    if (!many) return cJSON_IsArray(v) ? (size_t)cJSON_GetArraySize(v) : 0;
    cJSON_ArrayForEach(one, v) n += cJSON_IsArray(one) ? (size_t)cJSON_GetArraySize(one) : 0;
    return n;
}

static err_code take_input(answer *a, const cJSON *v, err *e) {
    bool many = cJSON_IsArray(v) && (!v->child || !cJSON_IsNumber(v->child));
    int n = many ? cJSON_GetArraySize(v) : 1;
    if (n == 0) return err_set(e, ERR_INVALID, "'input' is empty");
    if (n > EMBED_INPUTS_MAX)
        return err_set(e, ERR_INVALID, "'input' has %d texts; at most %d are taken in one request", n,
                       EMBED_INPUTS_MAX);
    err_code rc = vectors_make_inputs(a, (size_t)n, e);
    a->ids = rc ? NULL : mem_array(count_ids(v, many) + 1, sizeof *a->ids);
    if (!a->ids) return rc ? rc : err_nomem(e, "the inputs");
    int32_t *ids = a->ids;
    const cJSON *one = many ? v->child : v;
    for (; one && a->embed.n_inputs < (uint32_t)n && !rc; one = one->next)
        rc = read_input(&a->inputs[a->embed.n_inputs++], one, &ids, e);
    return rc;
}

static err_code take_encoding(answer *a, const cJSON *v, err *e) {
    const char *s = cJSON_IsString(v) ? v->valuestring : "";
    a->base64 = strcmp(s, "base64") == 0;
    if (a->base64 || strcmp(s, "float") == 0) return ERR_OK;
    return err_set(e, ERR_INVALID, "'encoding_format' must be \"float\" or \"base64\"");
}

static err_code take_dimensions(answer *a, const cJSON *v, err *e) {
    int64_t n = 0;
    err_code rc = openai_take_int(a, v, 1, INT32_MAX, &n, e);
    a->embed.dimensions = (uint32_t)n;
    return rc;
}

static const openai_field fields[] = {
    {"model", vectors_common},
    {"user", vectors_common},
    {"metadata", vectors_common},
    {"input", take_input},
    {"encoding_format", take_encoding},
    {"dimensions", take_dimensions},
    {"truncate", vectors_no_truncation},
    {"truncate_prompt_tokens", vectors_no_truncation},
    {NULL, NULL},
};

static err_code embeddings_parse(answer *a, err *e) {
    err_code rc = vectors_take_fields(a, fields, e);
    if (rc != ERR_OK || a->r.embed) return rc;
    snprintf(a->param, sizeof a->param, "input");
    return err_set(e, ERR_INVALID, "'input' is missing");
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

static void write_base64(buf *out, const answer *a, size_t from, size_t n) {
    uint8_t *le = mem_array(n, 4);
    if (!le) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        float v = vectors_get(a, from + i);
        uint32_t u;
        memcpy(&u, &v, sizeof u);
        for (int k = 0; k < 4; k++) le[4 * i + (size_t)k] = (uint8_t)(u >> (8 * k));
    }
    buf_putc(out, '"');
    base64_encode(out, le, 4 * n);
    buf_putc(out, '"');
    mem_free(le);
}

static void write_floats(buf *out, const answer *a, size_t from, size_t n) {
    buf_putc(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i) buf_putc(out, ',');
        vectors_float(out, vectors_get(a, from + i));
    }
    buf_putc(out, ']');
}

static void embeddings_whole(answer *a, buf *out) {
    size_t n = vectors_count(a) / a->embed.n_inputs;
    jw w;
    jw_init(&w, out);
    jw_obj(&w);
    jw_kstr(&w, "object", "list");
    jw_key(&w, "data");
    jw_arr(&w);
    for (uint32_t i = 0; i < a->embed.n_inputs; i++) {
        jw_obj(&w);
        jw_kstr(&w, "object", "embedding");
        jw_kint(&w, "index", i);
        jw_key(&w, "embedding");
        jw_raw(&w, "", 0); /* the value follows by itself */
        (a->base64 ? write_base64 : write_floats)(out, a, i * n, n);
        jw_obj_end(&w);
    }
    jw_arr_end(&w);
    jw_kstr(&w, "model", a->r.model);
    vectors_usage(&w, a);
    jw_obj_end(&w);
}

const dialect dialect_openai_embeddings = {
    .name = "openai.embeddings",
    .stream_type = "application/json",
    .parse = embeddings_parse,
    .chunk = vectors_chunk,
    .tokens = vectors_tokens,
    .collect = vectors_collect,
    .whole = embeddings_whole,
    .fail = openai_fail,
};
