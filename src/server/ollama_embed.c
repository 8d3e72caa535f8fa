/* The dialects of POST /api/embed and of its older form, POST /api/embeddings. */
#include "server/internal.h"
#include "server/ollama.h"

#include <string.h>

static err_code add_input(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsString(v)) return err_set(e, ERR_INVALID, "'input' must be a string or an array of strings");
    a->inputs[a->embed.n_inputs++] = (embed_input){.text = v->valuestring, .len = strlen(v->valuestring)};
    return ERR_OK;
}

static err_code take_input(answer *a, const cJSON *v, err *e) {
    bool many = cJSON_IsArray(v);
    int n = many ? cJSON_GetArraySize(v) : 1;
    if (n == 0) return err_set(e, ERR_INVALID, "'input' is empty");
    if (n > EMBED_INPUTS_MAX)
        return err_set(e, ERR_INVALID, "'input' has %d texts; at most %d are taken in one request", n,
                       EMBED_INPUTS_MAX);
    err_code rc = vectors_make_inputs(a, (size_t)n, e);
    if (rc == ERR_OK && !many) rc = add_input(a, v, e);
    for (const cJSON *one = many ? v->child : NULL; one && rc == ERR_OK; one = one->next) rc = add_input(a, one, e);
    return rc;
}

static err_code take_prompt(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsString(v)) return err_set(e, ERR_INVALID, "'prompt' must be a string");
    return take_input(a, v, e);
}

static err_code take_dimensions(answer *a, const cJSON *v, err *e) {
    int64_t n = 0;
    err_code rc = openai_take_int(a, v, 1, INT32_MAX, &n, e);
    a->embed.dimensions = (uint32_t)n;
    return rc;
}

static err_code parse(answer *a, const openai_field *fields, const char *text_field, err *e) {
    err_code rc = ollama_begin(a, e);
    if (rc == ERR_OK) rc = vectors_take_fields(a, fields, e);
    if (rc != ERR_OK || a->r.embed) return rc;
    snprintf(a->param, sizeof a->param, "%s", text_field);
    return err_set(e, ERR_INVALID, "'%s' is missing", text_field);
}

static err_code embed_parse(answer *a, err *e) {
    static const openai_field fields[] = {
        {"model", vectors_common},
        {"input", take_input},
        {"dimensions", take_dimensions},
        {"truncate", ollama_no_truncation},
        {"options", ollama_take_options},
        {"keep_alive", NULL},
        {NULL, NULL},
    };
    return parse(a, fields, "input", e);
}

static err_code old_parse(answer *a, err *e) {
    static const openai_field fields[] = {
        {"model", vectors_common},
        {"prompt", take_prompt},
        {"options", ollama_take_options},
        {"keep_alive", NULL},
        {NULL, NULL},
    };
    return parse(a, fields, "prompt", e);
}

static void write_vector(const answer *a, size_t from, size_t n, buf *out) {
    buf_putc(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i) buf_putc(out, ',');
        vectors_float(out, vectors_get(a, from + i));
    }
    buf_putc(out, ']');
}

static void embed_whole(answer *a, buf *out) {
    size_t n = vectors_count(a) / a->embed.n_inputs;
    jw w;
    jw_init(&w, out);
    jw_obj(&w);
    jw_kstr(&w, "model", a->r.model);
    jw_key(&w, "embeddings");
    jw_arr(&w);
    for (uint32_t i = 0; i < a->embed.n_inputs; i++) {
        jw_raw(&w, "", 0); /* the value follows by itself */
        write_vector(a, i * n, n, out);
    }
    jw_arr_end(&w);
    ollama_durations(&w, a);
    jw_obj_end(&w);
}

static void old_whole(answer *a, buf *out) {
    buf_puts(out, "{\"embedding\":");
    write_vector(a, 0, vectors_count(a), out);
    buf_putc(out, '}');
}

const dialect dialect_ollama_embed = {
    .name = "ollama.embed",
    .stream_type = "application/json",
    .parse = embed_parse,
    .prepare = ollama_prepare,
    .chunk = vectors_chunk,
    .tokens = vectors_tokens,
    .collect = vectors_collect,
    .whole = embed_whole,
    .fail = ollama_fail,
};

const dialect dialect_ollama_embeddings = {
    .name = "ollama.embeddings",
    .stream_type = "application/json",
    .parse = old_parse,
    .prepare = ollama_prepare,
    .chunk = vectors_chunk,
    .tokens = vectors_tokens,
    .collect = vectors_collect,
    .whole = old_whole,
    .fail = ollama_fail,
};
