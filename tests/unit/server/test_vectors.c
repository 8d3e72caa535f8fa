/* Bodies of /v1/embeddings and /v1/rerank, and what is written for them. Breaks when a field is dropped without a word,
 * a bad one is reported under another name, a number does not read back as it was, or results are out of order. */
#include "base/json.h"
#include "base/mem.h"
#include "harness.h"
#include "server/internal.h"
#include "server/vectors.h"

#include <math.h>

static err_code parse(answer **a, const dialect *d, const char *text, err *e) {
    cJSON *body = NULL;
    *a = NULL;
    e->code = ERR_OK;
    err_code rc = json_parse(&body, text, strlen(text), "request body", e);
    if (rc == ERR_OK) rc = answer_new(a, d, body, e);
    if (rc == ERR_OK) rc = d->parse(*a, e);
    return rc;
}

typedef struct bad_case {
    const char *body;
    err_code code;
    const char *param, *says;
} bad_case;

static void check_bad(const dialect *d, const bad_case *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        answer *a;
        err e;
        err_code rc = parse(&a, d, cases[i].body, &e);
        if (rc != cases[i].code || strcmp(a->param, cases[i].param) != 0 || !strstr(e.msg, cases[i].says)) {
            fprintf(stderr, "%s\n  %s, '%s': %s\n", cases[i].body, err_name(rc), a ? a->param : "", e.msg);
            test_bad = true;
        }
        answer_free(a);
    }
}

TEST(embeddings_bad_bodies) {
    static const bad_case cases[] = {
        {"{}", ERR_INVALID, "model", "missing"},
        {"{\"model\":\"m\"}", ERR_INVALID, "input", "missing"},
        {"{\"model\":\"m\",\"input\":null}", ERR_INVALID, "input", "missing"},
        {"{\"model\":\"m\",\"input\":[]}", ERR_INVALID, "input", "empty"},
        {"{\"model\":\"m\",\"input\":5}", ERR_INVALID, "input", "must be a string"},
        {"{\"model\":\"m\",\"input\":[1,\"a\"]}", ERR_INVALID, "input", "token id"},
        {"{\"model\":\"m\",\"input\":[\"a\",1]}", ERR_INVALID, "input", "must be a string"},
        {"{\"model\":\"m\",\"input\":[\"a\",null]}", ERR_INVALID, "input", "must be a string"},
        {"{\"model\":\"m\",\"input\":[[1],[-1]]}", ERR_INVALID, "input", "token id"},
        {"{\"model\":\"m\",\"input\":[[1.5]]}", ERR_INVALID, "input", "token id"},
        {"{\"model\":\"m\",\"input\":[[1,[2]]]}", ERR_INVALID, "input", "token id"},
        {"{\"model\":\"m\",\"input\":[{\"text\":\"a\"}]}", ERR_INVALID, "input", "must be a string"},
        {"{\"model\":\"m\",\"input\":\"a\",\"encoding_format\":\"int8\"}", ERR_INVALID, "encoding_format", "base64"},
        {"{\"model\":\"m\",\"input\":\"a\",\"dimensions\":0}", ERR_INVALID, "dimensions", "1"},
        {"{\"model\":\"m\",\"input\":\"a\",\"dimensions\":1.5}", ERR_INVALID, "dimensions", "dimensions"},
        {"{\"model\":\"m\",\"input\":\"a\",\"truncate\":\"END\"}", ERR_UNSUPPORTED, "truncate", "cuts no text"},
        {"{\"model\":\"m\",\"input\":\"a\",\"truncate_prompt_tokens\":100}", ERR_UNSUPPORTED, "truncate_prompt_tokens",
         "cuts no text"},
        {"{\"model\":\"m\",\"input\":\"a\",\"temperature\":1}", ERR_INVALID, "temperature", "not a field"},
        {"{\"model\":\"m\",\"input\":\"a\",\"stream\":true}", ERR_INVALID, "stream", "not a field"},
        {"{\"model\":1,\"input\":\"a\"}", ERR_INVALID, "model", "string"},
        {"{\"model\":\"m\",\"input\":\"a\",\"user\":5}", ERR_INVALID, "user", "string"},
    };
    check_bad(&dialect_openai_embeddings, cases, sizeof cases / sizeof *cases);
}

TEST(rerank_bad_bodies) {
    static const bad_case cases[] = {
        {"{\"query\":\"q\",\"documents\":[\"a\"]}", ERR_INVALID, "model", "missing"},
        {"{\"model\":\"m\",\"documents\":[\"a\"]}", ERR_INVALID, "query", "missing"},
        {"{\"model\":\"m\",\"query\":\"q\"}", ERR_INVALID, "documents", "missing"},
        {"{\"model\":\"m\",\"query\":\"\",\"documents\":[\"a\"]}", ERR_INVALID, "query", "empty"},
        {"{\"model\":\"m\",\"query\":[\"q\"],\"documents\":[\"a\"]}", ERR_INVALID, "query", "string"},
        {"{\"model\":\"m\",\"query\":\"q\",\"documents\":[]}", ERR_INVALID, "documents", "not empty"},
        {"{\"model\":\"m\",\"query\":\"q\",\"documents\":\"a\"}", ERR_INVALID, "documents", "array"},
        {"{\"model\":\"m\",\"query\":\"q\",\"documents\":[\"a\",5]}", ERR_INVALID, "documents", "number 1"},
        {"{\"model\":\"m\",\"query\":\"q\",\"documents\":[{\"text\":5}]}", ERR_INVALID, "documents", "number 0"},
        {"{\"model\":\"m\",\"query\":\"q\",\"documents\":[{\"text\":\"a\",\"image\":\"b\"}]}", ERR_INVALID, "documents",
         "number 0"},
        {"{\"model\":\"m\",\"query\":\"q\",\"documents\":[\"a\"],\"top_n\":0}", ERR_INVALID, "top_n", "1"},
        {"{\"model\":\"m\",\"query\":\"q\",\"documents\":[\"a\"],\"return_documents\":1}", ERR_INVALID,
         "return_documents", "return_documents"},
        {"{\"model\":\"m\",\"query\":\"q\",\"documents\":[\"a\"],\"max_tokens_per_doc\":10}", ERR_UNSUPPORTED,
         "max_tokens_per_doc", "cuts no text"},
        {"{\"model\":\"m\",\"query\":\"q\",\"documents\":[\"a\"],\"rank_fields\":[\"a\"]}", ERR_INVALID, "rank_fields",
         "not a field"},
    };
    check_bad(&dialect_rerank, cases, sizeof cases / sizeof *cases);
}

TEST(embeddings_inputs_of_every_kind) {
    answer *a;
    err e;
    CHECK_OK(parse(&a, &dialect_openai_embeddings,
                   "{\"model\":\"m\",\"input\":\"hi\",\"user\":\"u\",\"dimensions\":3,\"truncate\":\"NONE\"}", &e),
             e);
    CHECK(a->r.embed == &a->embed && a->embed.n_inputs == 1 && a->embed.dimensions == 3 && !a->base64);
    CHECK_STR(a->inputs[0].text, "hi");
    CHECK_STR(a->r.user, "u");
    answer_free(a);
    CHECK_OK(parse(&a, &dialect_openai_embeddings,
                   "{\"model\":\"m\",\"input\":[\"a\",\"\",\"c\"],\"encoding_format\":\"base64\"}", &e),
             e);
    CHECK(a->embed.n_inputs == 3 && a->base64 && a->inputs[1].len == 0 && a->inputs[2].len == 1);
    answer_free(a);
    CHECK_OK(parse(&a, &dialect_openai_embeddings, "{\"model\":\"m\",\"input\":[5,6]}", &e), e);
    CHECK(a->embed.n_inputs == 1 && !a->inputs[0].text && a->inputs[0].n_tokens == 2 && a->inputs[0].tokens[1] == 6);
    answer_free(a);
    CHECK_OK(parse(&a, &dialect_openai_embeddings, "{\"model\":\"m\",\"input\":[[5,6],\"b\",[7],[]]}", &e), e);
    CHECK(a->embed.n_inputs == 4 && a->inputs[0].tokens[1] == 6 && a->inputs[2].tokens[0] == 7);
    CHECK(a->inputs[1].text && a->inputs[3].n_tokens == 0 && !a->inputs[3].text);
    answer_free(a);
}

/* What the pipeline would have said. */
static void fake_run(answer *a, const float *v, uint32_t n) {
    a->choices = mem_array(1, sizeof *a->choices);
    a->n_choices = 1;
    buf_init(&a->choices[0].parts[0], 1 << 20);
    for (uint32_t i = 0; i < a->embed.n_inputs; i++) {
        event ev = {.kind = EV_VECTOR, .input = i, .vector = v + (size_t)i * n, .n_vector = n};
        a->d->collect(a, &a->choices[0], &ev);
    }
    a->prompt_tokens = 9;
    a->record = 4;
}

TEST(embeddings_are_written_in_both_forms) {
    static const float v[] = {0.6f, -0.8f, 0, 1e-5f, 1, -0.1234567f};
    answer *a;
    err e;
    buf out = {.max = 1 << 16};
    CHECK_OK(parse(&a, &dialect_openai_embeddings, "{\"model\":\"m\",\"input\":[\"a\",\"b\"]}", &e), e);
    fake_run(a, v, 3);
    a->d->whole(a, &out);
    CHECK_STR(
        buf_str(&out),
        "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.600000024,"
        "-0.800000012,0]},{\"object\":\"embedding\",\"index\":1,\"embedding\":[0.00000999999975,1,-0.123456702]}],"
        "\"model\":\"m\",\"usage\":{\"prompt_tokens\":9,\"total_tokens\":9}}");
    buf_reset(&out);
    a->base64 = true;
    a->d->whole(a, &out);
    CHECK_HAS(buf_str(&out), "\"index\":0,\"embedding\":\"mpkZP83MTL8AAAAA\"}");
    answer_free(a);
    buf_free(&out);
}

TEST(rerank_results_are_sorted) {
    static const float scores[] = {0.25f, 0.75f, 0.25f, 0.5f};
    answer *a;
    err e;
    buf out = {.max = 1 << 16};
    CHECK_OK(parse(&a, &dialect_rerank,
                   "{\"model\":\"m\",\"query\":\"q\",\"documents\":[\"a\",{\"text\":\"b\"},\"c\",\"d\"],\"top_n\":3,"
                   "\"return_documents\":true}",
                   &e),
             e);
    fake_run(a, scores, 1);
    a->d->whole(a, &out);
    CHECK_STR(buf_str(&out),
              "{\"id\":\"rerank-4\",\"object\":\"list\",\"model\":\"m\",\"results\":[{\"index\":1,\"relevance_score\":"
              "0.75,\"document\":{\"text\":\"b\"}},{\"index\":3,\"relevance_score\":0.5,\"document\":{\"text\":\"d\"}},"
              "{\"index\":0,\"relevance_score\":0.25,\"document\":{\"text\":\"a\"}}],\"usage\":{\"prompt_tokens\":9,"
              "\"total_tokens\":9}}");
    answer_free(a);
    buf_free(&out);
}

TEST(floats_read_back) {
    buf out = {.max = 64};
    uint64_t rnd = 7;
    for (int i = 0; i < 2000000; i++) {
        rnd = rnd * 6364136223846793005u + 1442695040888963407u;
        uint32_t u = (uint32_t)(rnd >> 32);
        float v, back;
        if (i % 4) u = (u & 0x80ffffffu) | (100u + u % 28u) << 23; /* the exponents of vectors of length 1 */
        memcpy(&v, &u, sizeof v);
        if (!isfinite(v)) continue;
        buf_reset(&out);
        vectors_float(&out, v);
        back = strtof(buf_str(&out), NULL);
        if (memcmp(&back, &v, sizeof v) != 0 && !(v == 0 && back == 0)) FAIL("%a became %s", (double)v, buf_str(&out));
    }
    static const float edges[] = {1,     -1,        0x1.fffffep-1f, -0x1.fffffep-1f, 0.1f,
                                  0.01f, 0x1p-126f, 0x1p-149f,      9.99999996e-13f};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        buf_reset(&out);
        vectors_float(&out, edges[i]);
        CHECK(strtof(buf_str(&out), NULL) == edges[i]);
    }
    buf_free(&out);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(embeddings_bad_bodies);
    RUN(rerank_bad_bodies);
    RUN(embeddings_inputs_of_every_kind);
    RUN(embeddings_are_written_in_both_forms);
    RUN(rerank_results_are_sorted);
    RUN(floats_read_back);
    return test_end();
}
