/* The dialect of POST /v1/rerank, as Jina and Cohere have it: how well documents answer a query, best first. */
#include "server/internal.h"
#include "server/vectors.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

/* ---- reading ----------------------------------------------------------------------------------------------- */

static err_code take_query(answer *a, const cJSON *v, err *e) {
    err_code rc = json_get_str(a->body, "query", &a->embed.query, e);
    if (rc == ERR_OK && !a->embed.query[0]) return err_set(e, ERR_INVALID, "'query' is empty");
    if (rc == ERR_OK) a->embed.query_len = strlen(a->embed.query);
    return rc;
}

/* "text" or {"text": "text"} */
static const char *document_text(const cJSON *v) {
    if (cJSON_IsObject(v)) v = v->child && !v->child->next && strcmp(v->child->string, "text") == 0 ? v->child : NULL;
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

static err_code take_documents(answer *a, const cJSON *v, err *e) {
    int n = cJSON_IsArray(v) ? cJSON_GetArraySize(v) : 0;
    if (n == 0) return err_set(e, ERR_INVALID, "'documents' must be an array of texts, and not empty");
    if (n > EMBED_INPUTS_MAX)
        return err_set(e, ERR_INVALID, "'documents' has %d texts; at most %d are taken in one request", n,
                       EMBED_INPUTS_MAX);
    err_code rc = vectors_make_inputs(a, (size_t)n, e);
    const cJSON *one;
    cJSON_ArrayForEach(one, v) {
        const char *text = document_text(one);
        if (rc) break;
        if (!text)
            return err_set(e, ERR_INVALID, "'documents': number %u is neither a string nor {\"text\": string}",
                           a->embed.n_inputs);
        a->inputs[a->embed.n_inputs++] = (embed_input){.text = text, .len = strlen(text)};
    }
    return rc;
}

static err_code take_top_n(answer *a, const cJSON *v, err *e) {
    int64_t n = 0;
    err_code rc = openai_take_int(a, v, 1, INT32_MAX, &n, e);
    a->top_n = (uint32_t)n;
    return rc;
}

static err_code take_return(answer *a, const cJSON *v, err *e) {
    return json_get_bool(a->body, v->string, &a->return_documents, e);
}

static const openai_field fields[] = {
    {"model", vectors_common},
    {"user", vectors_common},
    {"metadata", vectors_common},
    {"query", take_query},
    {"documents", take_documents},
    {"top_n", take_top_n},
    {"return_documents", take_return},
    {"truncate", vectors_no_truncation},
    {"truncation", vectors_no_truncation},
    {"truncate_prompt_tokens", vectors_no_truncation},
    {"max_tokens_per_doc", vectors_no_truncation},
    {NULL, NULL},
};

static err_code rerank_parse(answer *a, err *e) {
    err_code rc = vectors_take_fields(a, fields, e);
    if (rc != ERR_OK) return rc;
    const char *missing = !a->embed.query ? "query" : !a->r.embed ? "documents" : NULL;
    if (!missing) return ERR_OK;
    snprintf(a->param, sizeof a->param, "%s", missing);
    return err_set(e, ERR_INVALID, "'%s' is missing", missing);
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

typedef struct ranked {
    float score;
    uint32_t index;
} ranked;

static int better_first(const void *pa, const void *pb) {
    const ranked *x = pa, *y = pb;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static void write_result(jw *w, const answer *a, const ranked *r) {
    jw_obj(w);
    jw_kint(w, "index", r->index);
    jw_key(w, "relevance_score");
    jw_raw(w, "", 0); /* the value follows by itself */
    vectors_float(w->out, r->score);
    if (a->return_documents) {
        jw_key(w, "document");
        jw_obj(w);
        jw_kstr(w, "text", a->inputs[r->index].text);
        jw_obj_end(w);
    }
    jw_obj_end(w);
}

static void write_results(jw *w, const answer *a) {
    uint32_t n = a->embed.n_inputs, most = a->top_n && a->top_n < n ? a->top_n : n;
    ranked *list = mem_array(n, sizeof *list);
    if (!list) {
        w->out->failed = true;
        return;
    }
    for (uint32_t i = 0; i < n; i++) list[i] = (ranked){vectors_get(a, i), i};
    qsort(list, n, sizeof *list, better_first);
    jw_key(w, "results");
    jw_arr(w);
    for (uint32_t i = 0; i < most; i++) write_result(w, a, &list[i]);
    jw_arr_end(w);
    mem_free(list);
}

static void rerank_whole(answer *a, buf *out) {
    char id[48];
    jw w;
    snprintf(id, sizeof id, "rerank-%" PRIu64, a->record);
    jw_init(&w, out);
    jw_obj(&w);
    jw_kstr(&w, "id", id);
    jw_kstr(&w, "object", "list");
    jw_kstr(&w, "model", a->r.model);
    write_results(&w, a);
    vectors_usage(&w, a);
    jw_obj_end(&w);
}

const dialect dialect_rerank = {
    .name = "rerank",
    .stream_type = "application/json",
    .parse = rerank_parse,
    .chunk = vectors_chunk,
    .tokens = vectors_tokens,
    .collect = vectors_collect,
    .whole = rerank_whole,
    .fail = openai_fail,
};
