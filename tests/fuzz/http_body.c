/* The body of a request, from bytes to what the pipeline would get. The first byte chooses: the dialect (bits 0, 2 and
 * 3; with bit 6 those of Ollama's API), and whether the path decoder gets the rest instead (bit 1). What breaks it: a
 * read past the end, a leak, a field taken out of range, a refusal without a sentence. */
#include "base/bytes.h"
#include "base/json.h"
#include "server/dialect.h"
#include "server/internal.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok) {
    if (!ok) abort();
}

static void try_path(const uint8_t *p, size_t n) {
    char raw[2048], out[PATH_BYTES_MAX + 1], allow[32];
    if (n >= sizeof raw) return;
    memcpy(raw, p, n);
    raw[n] = 0;
    err e = {.code = ERR_OK};
    if (guard_path(out, sizeof out, raw, &e) != ERR_OK) {
        must(e.code == ERR_INVALID && e.msg[0]);
        return;
    }
    must(utf8_valid(out, strlen(out)) && strlen(out) <= n);
    (void)route_find("GET", out, allow);
    (void)guard_host_is_loopback(raw);
}

static void check_vectors(const answer *a) {
    const embed_request *q = a->r.embed;
    must(a->r.model && q->n_inputs >= 1 && q->n_inputs <= EMBED_INPUTS_MAX && q->dimensions <= INT32_MAX);
    must(a->d != &dialect_rerank || (q->query && q->query_len));
    int64_t sum = 0;
    for (uint32_t i = 0; i < q->n_inputs; i++) {
        const embed_input *in = &q->inputs[i];
        must((in->text != NULL) != (in->tokens != NULL));
        must(!in->text || strlen(in->text) == in->len);
        for (size_t k = 0; k < in->n_tokens; k++) must(in->tokens[k] >= 0), sum += in->tokens[k];
    }
    must(sum >= 0);
}

static void check_request(const answer *a) {
    const request *r = &a->r;
    if (r->embed) {
        check_vectors(a);
        return;
    }
    must(r->model && r->n_choices >= 1 && r->n_choices <= REQUEST_CHOICES_MAX && r->max_tokens >= -1);
    must(r->n_stops <= REQUEST_STOPS_MAX && r->n_top <= SAMPLER_TOP_MAX && a->n_runs >= 1);
    must((r->messages != NULL) != (a->prompts != NULL));
    sampler_params p = r->sampling;
    p.n_bias = 0; /* ids are checked against a vocabulary later */
    must(sampler_params_check(&p, 1u << 20, NULL) == ERR_OK);
    for (uint32_t i = 0; a->prompts && i < a->n_runs; i++)
        must((a->prompts[i].text != NULL) != (a->prompts[i].tokens != NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    if (data[0] & 2) {
        try_path(data + 1, size - 1);
        return 0;
    }
    err e = {.code = ERR_OK};
    cJSON *body = NULL;
    if (json_parse(&body, (const char *)data + 1, size - 1, "request body", &e) != ERR_OK) {
        must(e.code != ERR_OK && e.msg[0]);
        return 0;
    }
    if (!cJSON_IsObject(body)) {
        cJSON_Delete(body);
        return 0;
    }
    answer *a = NULL;
    const dialect *const dialects[] = {
        &dialect_openai_chat, &dialect_openai_completions, &dialect_openai_embeddings, &dialect_rerank,
        &dialect_anthropic,   &dialect_openai_responses,   &dialect_anthropic_count,   &dialect_anthropic};
    const dialect *const ollama[] = {&dialect_ollama_chat, &dialect_ollama_generate, &dialect_ollama_embed,
                                     &dialect_ollama_embeddings};
    int which = (data[0] & 1) | (data[0] >> 1 & 6);
    const dialect *d = data[0] & 64 ? ollama[which & 3] : dialects[which];
    if (answer_new(&a, d, body, &e) != ERR_OK) return 0;
    if (d->parse(a, &e) == ERR_OK) {
        check_request(a);
    } else {
        must(e.code != ERR_OK && e.msg[0]);
        buf b = {.max = 65536};
        d->fail(&e, 400, a->param[0] ? a->param : NULL, false, &b);
        cJSON *v = NULL;
        must(!b.failed && json_parse(&v, b.ptr, b.len, "error", &e) == ERR_OK);
        cJSON_Delete(v);
        buf_free(&b);
    }
    answer_free(a);
    return 0;
}
