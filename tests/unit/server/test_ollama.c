/* The dialects of Ollama's API: what each field is read into, that each bad field is refused by its name, and what is
 * written for every outcome of a scripted pipeline. Breaks when a field is dropped without a word, a line of a stream
 * is not one JSON object, or something that nobody can look at gets through. */
#include "base/mem.h"
#include "scripted.h"
#include "server/internal.h"
#include "world.h"

static world w;
static err e;

static err_code parse(answer **a, const dialect *d, const char *text) {
    cJSON *body = NULL;
    *a = NULL;
    e.code = ERR_OK;
    err_code rc = json_parse(&body, text, strlen(text), "request body", &e);
    if (rc == ERR_OK) rc = answer_new(a, d, body, &e);
    if (rc == ERR_OK) rc = d->parse(*a, &e);
    return rc;
}

#define MSG(role, more) "{\"role\":\"" role "\",\"content\":\"hi\"" more "}"
#define CHAT(more)      "{\"model\":\"m\",\"messages\":[" MSG("user", "") "]" more "}"
#define MSGS(list)      "{\"model\":\"m\",\"messages\":[" list "]}"
#define GEN(more)       "{\"model\":\"m\",\"prompt\":\"hi\"" more "}"
#define EMB(more)       "{\"model\":\"m\",\"input\":\"hi\"" more "}"
#define OPT(o)          ",\"options\":{" o "}"
#define CALL(name)      "{\"function\":{\"name\":\"" name "\",\"arguments\":{\"a\":1}}}"
#define CALLS(list)     "{\"role\":\"assistant\",\"tool_calls\":[" list "]}"

typedef struct bad_case {
    const dialect *d;
    const char *body;
    err_code code;
    const char *param, *says;
} bad_case;

static const bad_case bad[] = {
    {&dialect_ollama_chat, "{}", ERR_INVALID, "model", "missing"},
    {&dialect_ollama_chat, "{\"model\":\"m\"}", ERR_INVALID, "messages", "at least one"},
    {&dialect_ollama_chat, MSGS(""), ERR_INVALID, "messages", "at least one"},
    {&dialect_ollama_chat, "{\"model\":\"m\",\"messages\":{}}", ERR_INVALID, "messages", "array"},
    {&dialect_ollama_chat, MSGS("5"), ERR_INVALID, "messages", "messages[0] must be an object"},
    {&dialect_ollama_chat, MSGS("{\"content\":\"x\"}"), ERR_INVALID, "messages", "messages[0].role"},
    {&dialect_ollama_chat, MSGS("{\"role\":\"king\",\"content\":\"x\"}"), ERR_INVALID, "messages", "role"},
    {&dialect_ollama_chat, MSGS("{\"role\":5}"), ERR_INVALID, "messages", "messages[0].role must be a string"},
    {&dialect_ollama_chat, MSGS("{\"role\":\"user\"}"), ERR_INVALID, "messages", "content is missing"},
    {&dialect_ollama_chat, MSGS("{\"role\":\"user\",\"content\":[]}"), ERR_INVALID, "messages", "content must be"},
    {&dialect_ollama_chat, MSGS(MSG("user", ",\"images\":[\"aGk=\"]")), ERR_UNSUPPORTED, "messages", "images"},
    {&dialect_ollama_chat, MSGS(MSG("user", ",\"images\":5")), ERR_INVALID, "messages", "images must be an array"},
    {&dialect_ollama_chat, MSGS(MSG("user", ",\"colour\":5")), ERR_INVALID, "messages", "colour"},
    {&dialect_ollama_chat, MSGS(MSG("user", ",\"thinking\":\"x\"")), ERR_INVALID, "messages", "assistant"},
    {&dialect_ollama_chat, MSGS(MSG("user", ",\"tool_calls\":[" CALL("f") "]")), ERR_INVALID, "messages", "assistant"},
    {&dialect_ollama_chat, MSGS(MSG("user", ",\"tool_name\":\"f\"")), ERR_INVALID, "messages", "of a tool"},
    {&dialect_ollama_chat, MSGS(CALLS("5")), ERR_INVALID, "messages", "tool_calls[0]"},
    {&dialect_ollama_chat, MSGS(CALLS("{\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}")), ERR_INVALID, "messages",
     "an object"},
    {&dialect_ollama_chat, MSGS(CALLS("{\"function\":{\"name\":\"a b\"}}")), ERR_INVALID, "messages", "tool_calls[0]"},
    {&dialect_ollama_chat, MSGS(CALLS("{\"id\":5,\"function\":{\"name\":\"f\"}}")), ERR_INVALID, "messages", "].id"},
    {&dialect_ollama_chat, MSGS(MSG("tool", "")), ERR_INVALID, "messages", "answers no call"},
    {&dialect_ollama_chat, MSGS(CALLS(CALL("f")) "," MSG("tool", ",\"tool_name\":\"g\"")), ERR_INVALID, "messages",
     "messages[1] answers no call"},
    {&dialect_ollama_chat, MSGS(CALLS(CALL("f")) "," MSG("tool", "") "," MSG("tool", "")), ERR_INVALID, "messages",
     "messages[2] answers no call"},
    {&dialect_ollama_chat, CHAT(",\"colour\":\"red\""), ERR_INVALID, "colour", "colour"},
    {&dialect_ollama_chat, CHAT(",\"prompt\":\"x\""), ERR_INVALID, "prompt", "prompt"},
    {&dialect_ollama_chat, CHAT(",\"stream\":1"), ERR_INVALID, "stream", "true or false"},
    {&dialect_ollama_chat, CHAT(",\"format\":\"yaml\""), ERR_INVALID, "format", "JSON schema"},
    {&dialect_ollama_chat, CHAT(",\"format\":5"), ERR_INVALID, "format", "JSON schema"},
    {&dialect_ollama_chat, CHAT(",\"think\":\"deep\""), ERR_INVALID, "think", "\"high\""},
    {&dialect_ollama_chat, CHAT(",\"think\":1"), ERR_INVALID, "think", "true"},
    {&dialect_ollama_chat, CHAT(",\"tools\":{}"), ERR_INVALID, "tools", "array"},
    {&dialect_ollama_chat, CHAT(",\"tools\":[{\"type\":\"function\"}]"), ERR_INVALID, "tools", "tools[0]"},
    {&dialect_ollama_chat, CHAT(",\"logprobs\":1"), ERR_INVALID, "logprobs", "true or false"},
    {&dialect_ollama_chat, CHAT(",\"top_logprobs\":2"), ERR_INVALID, "top_logprobs", "logprobs"},
    {&dialect_ollama_chat, CHAT(",\"logprobs\":true,\"top_logprobs\":21"), ERR_INVALID, "top_logprobs", "between"},
    {&dialect_ollama_chat, CHAT(",\"truncate\":true"), ERR_UNSUPPORTED, "truncate", "cuts no text"},
    {&dialect_ollama_chat, CHAT(",\"shift\":true"), ERR_UNSUPPORTED, "shift", "cuts no text"},
    {&dialect_ollama_chat, CHAT(",\"options\":[]"), ERR_INVALID, "options", "object"},
    {&dialect_ollama_chat, CHAT(OPT("\"colour\":1")), ERR_INVALID, "options", "'options.colour'"},
    {&dialect_ollama_chat, CHAT(OPT("\"temperature\":2.1")), ERR_INVALID, "options", "options.temperature"},
    {&dialect_ollama_chat, CHAT(OPT("\"temperature\":\"hot\"")), ERR_INVALID, "options", "from 0 to 2"},
    {&dialect_ollama_chat, CHAT(OPT("\"top_k\":1.5")), ERR_INVALID, "options", "whole number"},
    {&dialect_ollama_chat, CHAT(OPT("\"top_p\":-1")), ERR_INVALID, "options", "options.top_p"},
    {&dialect_ollama_chat, CHAT(OPT("\"min_p\":1")), ERR_INVALID, "options", "below 1"},
    {&dialect_ollama_chat, CHAT(OPT("\"repeat_penalty\":0")), ERR_INVALID, "options", "above 0"},
    {&dialect_ollama_chat, CHAT(OPT("\"repeat_last_n\":-1")), ERR_INVALID, "options", "from 0 to 4096"},
    {&dialect_ollama_chat, CHAT(OPT("\"presence_penalty\":3")), ERR_INVALID, "options", "presence_penalty"},
    {&dialect_ollama_chat, CHAT(OPT("\"frequency_penalty\":-3")), ERR_INVALID, "options", "frequency_penalty"},
    {&dialect_ollama_chat, CHAT(OPT("\"seed\":1e300")), ERR_INVALID, "options", "options.seed"},
    {&dialect_ollama_chat, CHAT(OPT("\"num_predict\":0")), ERR_INVALID, "options", "at least 1"},
    {&dialect_ollama_chat, CHAT(OPT("\"num_predict\":-3")), ERR_INVALID, "options", "num_predict"},
    {&dialect_ollama_chat, CHAT(OPT("\"num_ctx\":0")), ERR_INVALID, "options", "num_ctx"},
    {&dialect_ollama_chat, CHAT(OPT("\"stop\":[\"\"]")), ERR_INVALID, "options", "options.stop"},
    {&dialect_ollama_chat, CHAT(OPT("\"stop\":5")), ERR_INVALID, "options", "options.stop"},
    {&dialect_ollama_chat, CHAT(OPT("\"mirostat\":1")), ERR_UNSUPPORTED, "options", "mirostat"},
    {&dialect_ollama_chat, CHAT(OPT("\"typical_p\":0.7")), ERR_UNSUPPORTED, "options", "typical_p"},
    {&dialect_ollama_chat, CHAT(OPT("\"tfs_z\":0.5")), ERR_UNSUPPORTED, "options", "tfs_z"},
    {&dialect_ollama_chat, CHAT(OPT("\"penalize_newline\":false")), ERR_UNSUPPORTED, "options", "penalize_newline"},
    {&dialect_ollama_chat, CHAT(OPT("\"vocab_only\":true")), ERR_UNSUPPORTED, "options", "vocab_only"},
    {&dialect_ollama_generate, "{\"model\":\"m\"}", ERR_INVALID, "prompt", "missing"},
    {&dialect_ollama_generate, "{\"model\":\"m\",\"prompt\":\"\"}", ERR_INVALID, "prompt", "empty"},
    {&dialect_ollama_generate, "{\"model\":\"m\",\"prompt\":5}", ERR_INVALID, "prompt", "string"},
    {&dialect_ollama_generate, GEN(",\"system\":5"), ERR_INVALID, "system", "string"},
    {&dialect_ollama_generate, GEN(",\"context\":[1,2]"), ERR_UNSUPPORTED, "context", "token ids"},
    {&dialect_ollama_generate, GEN(",\"context\":5"), ERR_UNSUPPORTED, "context", "/api/chat"},
    {&dialect_ollama_generate, GEN(",\"images\":[\"aGk=\"]"), ERR_UNSUPPORTED, "images", "only text"},
    {&dialect_ollama_generate, GEN(",\"template\":\"{{.}}\""), ERR_UNSUPPORTED, "template", "template"},
    {&dialect_ollama_generate, GEN(",\"suffix\":\"x\""), ERR_UNSUPPORTED, "suffix", "suffix"},
    {&dialect_ollama_generate, GEN(",\"raw\":1"), ERR_INVALID, "raw", "true or false"},
    {&dialect_ollama_generate, GEN(",\"raw\":true,\"system\":\"x\""), ERR_INVALID, "raw", "'system'"},
    {&dialect_ollama_generate, GEN(",\"raw\":true,\"think\":true"), ERR_INVALID, "raw", "'think'"},
    {&dialect_ollama_generate, GEN(",\"tools\":[]"), ERR_INVALID, "tools", "tools"},
    {&dialect_ollama_generate, GEN(",\"width\":512"), ERR_INVALID, "width", "width"},
    {&dialect_ollama_embed, "{\"model\":\"m\"}", ERR_INVALID, "input", "missing"},
    {&dialect_ollama_embed, "{\"model\":\"m\",\"input\":[]}", ERR_INVALID, "input", "empty"},
    {&dialect_ollama_embed, "{\"model\":\"m\",\"input\":[1,2]}", ERR_INVALID, "input", "strings"},
    {&dialect_ollama_embed, "{\"model\":\"m\",\"input\":[\"a\",[5]]}", ERR_INVALID, "input", "strings"},
    {&dialect_ollama_embed, EMB(",\"truncate\":true"), ERR_UNSUPPORTED, "truncate", "cuts no text"},
    {&dialect_ollama_embed, EMB(",\"dimensions\":0"), ERR_INVALID, "dimensions", "dimensions"},
    {&dialect_ollama_embed, EMB(",\"stream\":true"), ERR_INVALID, "stream", "not a field"},
    {&dialect_ollama_embed, EMB(",\"options\":{\"x\":1}"), ERR_INVALID, "options", "'options.x'"},
    {&dialect_ollama_embeddings, "{\"model\":\"m\"}", ERR_INVALID, "prompt", "missing"},
    {&dialect_ollama_embeddings, "{\"model\":\"m\",\"prompt\":[\"a\"]}", ERR_INVALID, "prompt", "string"},
    {&dialect_ollama_embeddings, "{\"model\":\"m\",\"prompt\":\"a\",\"input\":\"b\"}", ERR_INVALID, "input", "input"},
};

TEST(bad_bodies_are_refused_by_name) {
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        answer *a;
        err_code rc = parse(&a, bad[i].d, bad[i].body);
        if (rc != bad[i].code || !a || strcmp(a->param, bad[i].param) != 0 || !strstr(e.msg, bad[i].says)) {
            fprintf(stderr, "%s\n  %s, '%s': %s\n", bad[i].body, err_name(rc), a ? a->param : "", e.msg);
            test_bad = true;
        }
        answer_free(a);
    }
}

TEST(fields_are_read) {
    answer *a;
    CHECK_OK(parse(&a, &dialect_ollama_chat,
                   CHAT(",\"stream\":false,\"think\":\"low\",\"keep_alive\":\"5m\",\"format\":\"json\",\"options\":{"
                        "\"temperature\":0.5,\"top_k\":20,\"top_p\":0,\"min_p\":0.25,\"repeat_penalty\":1.5,"
                        "\"repeat_last_n\":33,\"presence_penalty\":1.5,\"frequency_penalty\":-1,\"seed\":42,"
                        "\"num_predict\":100,\"stop\":[\"a\",\"b\"],\"num_keep\":5,\"typical_p\":1,\"mirostat\":0,"
                        "\"mirostat_tau\":0.8,\"mirostat_eta\":0.6,\"penalize_newline\":true,\"numa\":false,"
                        "\"num_ctx\":1024,\"num_batch\":2,\"num_gpu\":1,\"main_gpu\":0,\"low_vram\":false,"
                        "\"vocab_only\":false,\"use_mmap\":true,\"use_mlock\":false,\"num_thread\":8,\"f16_kv\":null},"
                        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]")),
             e);
    const sampler_params *s = &a->r.sampling;
    CHECK(!a->stream && a->r.parse && a->r.messages && a->r.tools && a->n_runs == 1);
    CHECK_STR(a->r.reasoning_effort, "low");
    CHECK(s->temperature == 0.5f && s->top_k == 20 && s->top_p > 0 && s->top_p < 1e-30f && s->min_p == 0.25f);
    CHECK(s->repeat_penalty == 1.5f && s->repeat_last_n == 33 && s->presence_penalty == 1.5f);
    CHECK(s->frequency_penalty == -1 && s->seed == 42 && a->r.has_seed && a->r.max_tokens == 100);
    CHECK(a->r.n_stops == 2 && strcmp(a->r.stops[1], "b") == 0);
    CHECK(a->r.grammar == GRAMMAR_JSON_SCHEMA);
    CHECK_STR(a->r.grammar_source, "{\"type\":\"object\"}");
    CHECK_OK(sampler_params_check(s, 100, &e), e);
    answer_free(a);

    CHECK_OK(parse(&a, &dialect_ollama_chat, CHAT(OPT("\"seed\":-1,\"num_predict\":-2,\"stop\":\"x\""))), e);
    CHECK(a->stream); /* unlike OpenAI's */
    CHECK(!a->r.has_seed && a->r.max_tokens == -1 && a->r.n_stops == 1 && !a->r.reasoning_effort && !a->r.grammar);
    answer_free(a);
    CHECK_OK(parse(&a, &dialect_ollama_chat, CHAT(",\"think\":true,\"format\":{\"type\":\"array\"}")), e);
    CHECK_STR(a->r.reasoning_effort, "medium");
    CHECK_STR(a->r.grammar_source, "{\"type\":\"array\"}");
    answer_free(a);
    CHECK_OK(parse(&a, &dialect_ollama_chat, CHAT(",\"think\":false,\"format\":\"\",\"tools\":null")), e);
    CHECK_STR(a->r.reasoning_effort, "none");
    CHECK(!a->r.grammar);
    answer_free(a);
}

/* Templates and other servers get OpenAI's form: arguments as text, an id on both sides. */
TEST(calls_and_their_answers_are_joined) {
    answer *a;
    CHECK_OK(
        parse(
            &a, &dialect_ollama_chat,
            MSGS("{\"role\":\"system\",\"content\":\"be\"}," MSG(
                "user",
                ",\"images\":[]") ","
                                  "{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"hm\",\"tool_calls\":[" CALL(
                                      "f") ","
                                           "{\"id\":\"own\",\"function\":{\"index\":1,\"name\":\"g\"}}," CALL(
                                               "f") "]},"
                                                    "{\"role\":\"tool\",\"content\":\"G\",\"tool_name\":\"g\"},"
                                                    "{\"role\":\"tool\",\"content\":\"F1\"},"
                                                    "{\"role\":\"tool\",\"content\":\"F2\",\"tool_call_id\":\"call_2_"
                                                    "2\"},"
                                                    "{\"role\":\"assistant\",\"content\":\"done\"}")),
        e);
    char *text = cJSON_PrintUnformatted(a->r.messages);
    CHECK_STR(text, "[{\"role\":\"system\",\"content\":\"be\"},{\"role\":\"user\",\"content\":\"hi\"},"
                    "{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":\"hm\",\"tool_calls\":["
                    "{\"id\":\"call_2_0\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
                    "\"{\\\"a\\\":1}\"}},{\"id\":\"own\",\"type\":\"function\",\"function\":{\"name\":\"g\","
                    "\"arguments\":\"{}\"}},{\"id\":\"call_2_2\",\"type\":\"function\",\"function\":{\"name\":\"f\","
                    "\"arguments\":\"{\\\"a\\\":1}\"}}]},"
                    "{\"role\":\"tool\",\"content\":\"G\",\"tool_call_id\":\"own\",\"name\":\"g\"},"
                    "{\"role\":\"tool\",\"content\":\"F1\",\"tool_call_id\":\"call_2_0\",\"name\":\"f\"},"
                    "{\"role\":\"tool\",\"content\":\"F2\",\"tool_call_id\":\"call_2_2\",\"name\":\"f\"},"
                    "{\"role\":\"assistant\",\"content\":\"done\"}]");
    cJSON_free(text);
    answer_free(a);
}

TEST(prompts_become_messages_or_stay) {
    answer *a;
    CHECK_OK(parse(&a, &dialect_ollama_generate, GEN(",\"system\":\"be\",\"context\":[],\"suffix\":\"\"")), e);
    char *text = cJSON_PrintUnformatted(a->r.messages);
    CHECK_STR(text, "[{\"role\":\"system\",\"content\":\"be\"},{\"role\":\"user\",\"content\":\"hi\"}]");
    CHECK(a->stream && !a->prompts && a->r.parse);
    cJSON_free(text);
    answer_free(a);
    CHECK_OK(parse(&a, &dialect_ollama_generate, GEN(",\"raw\":true,\"system\":\"\",\"stream\":false")), e);
    CHECK(!a->stream && !a->r.messages && a->prompts && !a->r.parse);
    CHECK_STR(a->prompts[0].text, "hi");
    answer_free(a);
}

TEST(vectors_are_written) {
    static const float v[] = {0.6f, -0.8f, 0.5f, 0.25f};
    answer *a;
    buf out = {.max = 1 << 16};
    for (int old = 0; old < 2; old++) {
        CHECK_OK(old ? parse(&a, &dialect_ollama_embeddings, "{\"model\":\"m\",\"prompt\":\"a\",\"keep_alive\":0}")
                     : parse(&a, &dialect_ollama_embed,
                             "{\"model\":\"m\",\"input\":[\"a\",\"b\"],\"truncate\":false,\"dimensions\":2}"),
                 e);
        CHECK(!a->stream && a->embed.n_inputs == (old ? 1u : 2u) && a->embed.dimensions == (old ? 0u : 2u));
        a->choices = mem_array(1, sizeof *a->choices);
        a->n_choices = 1;
        buf_init(&a->choices[0].parts[0], 1 << 20);
        for (uint32_t i = 0; i < a->embed.n_inputs; i++) {
            event ev = {.kind = EV_VECTOR, .input = i, .vector = v + 2 * i, .n_vector = 2};
            a->d->collect(a, &a->choices[0], &ev);
        }
        a->prompt_tokens = 9;
        buf_reset(&out);
        a->d->whole(a, &out);
        answer_free(a);
        if (old) {
            CHECK_STR(buf_str(&out), "{\"embedding\":[0.600000024,-0.800000012]}");
        } else {
            CHECK_HAS(buf_str(&out), "{\"model\":\"m\",\"embeddings\":[[0.600000024,-0.800000012],[0.5,0.25]],"
                                     "\"total_duration\":");
            CHECK_HAS(buf_str(&out), ",\"prompt_eval_count\":9}");
        }
    }
    buf_free(&out);
}

/* ---- through the doors -------------------------------------------------------------------------------------- */

static void call(const char *method, const char *path, const char *body, reply *r) {
    client_request(w.port, w.key[ROLE_USER], method, path, body, r);
}

static cJSON *called(const char *method, const char *path, const char *body, int status) {
    reply r;
    call(method, path, body, &r);
    cJSON *v = cJSON_Parse(buf_str(&r.body));
    if (r.status != status || !v) {
        fprintf(stderr, "%s: %d %s\n", path, r.status, buf_str(&r.body));
        test_bad = true;
    }
    reply_free(&r);
    return v;
}

#define CHAT_TO(model, more) "{\"model\":\"" model "\",\"messages\":[" MSG("user", "") "]" more "}"
#define WHOLE                ",\"stream\":false"

/* RFC 3339 in UTC */
static bool is_time(const char *s) {
    int y, mo, d, h, mi;
    double sec;
    return s && s[0] && s[strlen(s) - 1] == 'Z' && sscanf(s, "%d-%d-%dT%d:%d:%lf", &y, &mo, &d, &h, &mi, &sec) == 6;
}

static bool has_figures(const cJSON *v, int tokens) {
    return num_at(v, "total_duration") > 0 && num_at(v, "load_duration") == 0 && num_at(v, "prompt_eval_count") >= 0 &&
           num_at(v, "prompt_eval_duration") > 0 && num_at(v, "eval_count") == tokens &&
           num_at(v, "eval_duration") >= 0 &&
           num_at(v, "eval_duration") + num_at(v, "prompt_eval_duration") <= num_at(v, "total_duration");
}

TEST(whole_answers) {
    cJSON *v = called("POST", "/api/chat", CHAT_TO("ok", WHOLE ",\"logprobs\":true,\"top_logprobs\":2"), 200);
    CHECK_STR(str_at(v, "model"), "ok");
    CHECK(is_time(str_at(v, "created_at")));
    CHECK_STR(str_at(v, "message.role"), "assistant");
    CHECK_STR(str_at(v, "message.content"), "Hello w\xc3\xb6rld");
    CHECK(!json_at(v, "message.thinking") && !json_at(v, "message.tool_calls"));
    CHECK_STR(str_at(v, "done_reason"), "stop");
    CHECK(cJSON_IsTrue(json_at(v, "done")) && has_figures(v, 2) && num_at(v, "prompt_eval_count") == 3);
    CHECK_STR(str_at(v, "logprobs.0.token"), "Hello");
    CHECK(num_at(v, "logprobs.1.logprob") == -0.5 && num_at(v, "logprobs.0.top_logprobs.1.logprob") == -9999);
    CHECK(num_at(v, "logprobs.1.bytes.2") == 0xc3);
    cJSON_Delete(v);
    v = called("POST", "/api/generate", "{\"model\":\"ok\",\"prompt\":\"hi\"" WHOLE "}", 200);
    CHECK_STR(str_at(v, "response"), "Hello w\xc3\xb6rld");
    CHECK(cJSON_IsTrue(json_at(v, "done")) && has_figures(v, 2) && !json_at(v, "message") && !json_at(v, "context"));
    cJSON_Delete(v);
    v = called("POST", "/api/generate", "{\"model\":\"ok\",\"prompt\":\"hi\",\"raw\":true,\"logprobs\":true" WHOLE "}",
               200);
    CHECK_STR(str_at(v, "response"), "Hello w\xc3\xb6rld");
    CHECK_STR(str_at(v, "logprobs.0.token"), "Hello");
    cJSON_Delete(v);
}

TEST(whole_answers_with_calls) {
    cJSON *v = called("POST", "/api/chat", CHAT_TO("calls", WHOLE), 200);
    CHECK_STR(str_at(v, "message.content"), "");
    CHECK_STR(str_at(v, "message.thinking"), "Hm. Yes.");
    CHECK_INT(cJSON_GetArraySize(json_at(v, "message.tool_calls")), 2);
    CHECK_STR(str_at(v, "message.tool_calls.0.function.name"), "f");
    CHECK_STR(str_at(v, "message.tool_calls.0.function.arguments.a"), "\xc3\xb6");
    CHECK(num_at(v, "message.tool_calls.1.function.index") == 1);
    CHECK(cJSON_IsObject(json_at(v, "message.tool_calls.1.function.arguments")));
    const char *a = str_at(v, "message.tool_calls.0.id"), *b = str_at(v, "message.tool_calls.1.id");
    CHECK(a && b && strcmp(a, b) != 0);
    CHECK_STR(str_at(v, "done_reason"), "stop"); /* there is no word of its own for calls */
    cJSON_Delete(v);
    v = called("POST", "/api/chat", CHAT_TO("broken calls", WHOLE), 200);
    CHECK_STR(str_at(v, "message.content"), "<call>{\"a\":");
    CHECK(!json_at(v, "message.tool_calls") && cJSON_IsTrue(json_at(v, "malformed_tool_call")));
    cJSON_Delete(v);
    v = called("POST", "/api/chat", CHAT_TO("half a call", WHOLE), 200);
    CHECK(!json_at(v, "message.tool_calls")); /* cut off: nobody is to act on it */
    CHECK_STR(str_at(v, "done_reason"), "length");
    cJSON_Delete(v);
}

/* Every line of a stream as a member of an array. */
static cJSON *lines_of(const char *path, const char *body) {
    reply r;
    call("POST", path, body, &r);
    cJSON *list = cJSON_CreateArray();
    bool type = reply_field(&r, "content-type") && strcmp(reply_field(&r, "content-type"), "application/x-ndjson") == 0;
    if (r.status != 200 || !type || !r.whole || !reply_field(&r, "x-polder-record")) test_bad = true;
    for (char *p = r.body.ptr, *end; p && *p; p = end + 1) {
        end = strchr(p, '\n');
        cJSON *v = end ? cJSON_ParseWithLength(p, (size_t)(end - p)) : NULL;
        if (!v) {
            fprintf(stderr, "no line of JSON: %s\n", p);
            test_bad = true;
            break;
        }
        cJSON_AddItemToArray(list, v);
    }
    reply_free(&r);
    return list;
}

TEST(streams) {
    cJSON *v = lines_of("/api/chat", CHAT_TO("ok", ""));
    CHECK_INT(cJSON_GetArraySize(v), 3);
    CHECK_STR(str_at(v, "0.message.content"), "Hello");
    CHECK_STR(str_at(v, "0.message.role"), "assistant");
    CHECK(is_time(str_at(v, "0.created_at")) && cJSON_IsFalse(json_at(v, "0.done")) && !json_at(v, "0.done_reason"));
    CHECK_STR(str_at(v, "1.message.content"), " w\xc3\xb6rld");
    CHECK_STR(str_at(v, "2.message.content"), "");
    CHECK_STR(str_at(v, "2.done_reason"), "stop");
    CHECK(cJSON_IsTrue(json_at(v, "2.done")) && has_figures(cJSON_GetArrayItem(v, 2), 2));
    cJSON_Delete(v);
    v = lines_of("/api/generate", "{\"model\":\"ok\",\"prompt\":\"hi\",\"stream\":true,\"logprobs\":true}");
    CHECK_INT(cJSON_GetArraySize(v), 3);
    CHECK_STR(str_at(v, "0.response"), "Hello");
    CHECK_STR(str_at(v, "0.logprobs.0.token"), "Hello");
    CHECK_STR(str_at(v, "2.response"), "");
    CHECK(!json_at(v, "2.logprobs") && cJSON_IsTrue(json_at(v, "2.done")));
    cJSON_Delete(v);
    v = lines_of("/api/chat", CHAT_TO("calls", ""));
    CHECK_INT(cJSON_GetArraySize(v), 5);
    CHECK_STR(str_at(v, "0.message.thinking"), "Hm.");
    CHECK_STR(str_at(v, "1.message.thinking"), " Yes.");
    CHECK_STR(str_at(v, "1.message.content"), "");
    CHECK_STR(str_at(v, "2.message.tool_calls.0.function.arguments.a"), "\xc3\xb6");
    CHECK_STR(str_at(v, "3.message.tool_calls.0.function.name"), "g");
    CHECK(num_at(v, "3.message.tool_calls.0.function.index") == 1 && cJSON_IsTrue(json_at(v, "4.done")));
    cJSON_Delete(v);
    v = lines_of("/api/chat", CHAT_TO("broken calls", ""));
    CHECK_STR(str_at(v, "0.message.content"), "<call>{\"a\":");
    CHECK(cJSON_IsTrue(json_at(v, "1.malformed_tool_call")) && !json_at(v, "0.message.tool_calls"));
    cJSON_Delete(v);
    v = lines_of("/api/chat", CHAT_TO("breaks", ""));
    CHECK_INT(cJSON_GetArraySize(v), 2);
    CHECK_HAS(str_at(v, "1.error"), "something failed inside the server");
    cJSON_Delete(v);
}

/* A provider's arguments may be anything: no object is told as text; line breaks do not break the line. */
TEST(arguments_of_any_kind) {
    static const struct {
        const char *args, *has;
    } t[] = {
        {"{\"a\":\n{\"b\":\r\n\"c\\n\"}}", "\"arguments\":{\"a\": {\"b\":  \"c\\n\"}}"},
        {"", "\"arguments\":{}"},
        {"[1]", "\"content\":\"f [1]\""},
        {"{\"a\":", "\"content\":\"f {\\\"a\\\":\""},
        {"{\"n\":12345678901234567890}", "12345678901234567890"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        answer *a;
        buf out = {.max = 1 << 16};
        CHECK_OK(parse(&a, &dialect_ollama_chat, CHAT("")), e);
        a->choices = mem_array(1, sizeof *a->choices);
        event evs[] = {{.kind = EV_CALL, .text = "f", .len = 1},
                       {.kind = EV_CALL_ARGS, .text = t[i].args, .len = strlen(t[i].args)},
                       {.kind = EV_CALL_END}};
        for (size_t k = 0; k < 3; k++) a->d->chunk(a, &evs[k], &out);
        CHECK_HAS(buf_str(&out), t[i].has);
        CHECK(out.len && strchr(out.ptr, '\n') == out.ptr + out.len - 1);
        answer_free(a);
        buf_free(&out);
    }
}

TEST(failures_are_statuses) {
    static const struct {
        const char *path, *body;
        int status;
        const char *says;
    } t[] = {
        {"/api/chat", CHAT_TO("absent", ""), 404, "absent"},
        {"/api/chat", CHAT_TO("absent", WHOLE), 404, "absent"},
        {"/api/chat", CHAT_TO("busy", ""), 429, "full"},
        {"/api/chat", CHAT_TO("long", ""), 400, "9 tokens"},
        {"/api/chat", CHAT_TO("breaks", WHOLE), 503, "something failed"},
        {"/api/chat", "{\"model\":\"ok\"", 400, "request body"},
        {"/api/chat", "[]", 400, "must be a JSON object"},
        {"/api/chat", CHAT_TO("a/b", OPT("\"num_ctx\":4097")), 400, "context of 4096"},
        {"/api/generate", "{\"model\":\"ok\",\"prompt\":\"hi\",\"context\":[1]}", 400, "token ids"},
        {"/api/show", "{}", 400, "'model' is missing"},
        {"/api/show", "{\"model\":\"a/b\",\"template\":\"x\"}", 400, "'template'"},
        {"/api/show", "[]", 400, "object"},
        {"/api/show", "{\"model\":\"nowhere\"}", 404, "nowhere"},
        {"/api/pull", "{\"name\":\"x\"}", 400, "polder model"},
        {"/api/create", "{\"model\":\"x\"}", 400, "/api/create"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        cJSON *v = called("POST", t[i].path, t[i].body, t[i].status);
        CHECK_HAS(str_at(v, "error"), t[i].says);
        cJSON_Delete(v);
    }
    cJSON *v = called("DELETE", "/api/delete", NULL, 400);
    CHECK_HAS(str_at(v, "error"), "polder model");
    cJSON_Delete(v);
    reply r;
    client_request(w.port, "no key", "GET", "/api/tags", NULL, &r);
    CHECK_INT(r.status, 401);
    v = cJSON_Parse(buf_str(&r.body));
    CHECK(str_at(v, "error") != NULL);
    cJSON_Delete(v);
    reply_free(&r);
}

TEST(models_are_told) {
    cJSON *v = called("GET", "/api/tags", NULL, 200);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "models")), 2);
    CHECK_STR(str_at(v, "models.0.name"), "ok");
    CHECK_STR(str_at(v, "models.0.model"), "ok");
    CHECK_STR(str_at(v, "models.0.digest"), "00ff");
    CHECK_STR(str_at(v, "models.0.modified_at"), "2026-09-21T14:13:20.000Z");
    CHECK_STR(str_at(v, "models.1.details.family"), ""); /* a name that leads to providers only */
    CHECK(cJSON_IsArray(json_at(v, "models.1.details.families")));
    cJSON_Delete(v);
    v = called("POST", "/api/show", "{\"model\":\"a/b\",\"system\":\"\",\"verbose\":true}", 200);
    CHECK_STR(str_at(v, "details.family"), "llama");
    CHECK_STR(str_at(v, "details.parameter_size"), "1.2B");
    CHECK_STR(str_at(v, "details.quantization_level"), "Q4_0");
    CHECK(num_at(v, "model_info") == -1e300 && json_at(v, "model_info"));
    const cJSON *info = json_at(v, "model_info");
    CHECK(cJSON_GetObjectItem(info, "llama.context_length")->valuedouble == 4096);
    CHECK_STR(cJSON_GetObjectItem(info, "general.architecture")->valuestring, "llama");
    CHECK_STR(str_at(v, "capabilities.0"), "completion");
    cJSON_Delete(v);
    v = called("POST", "/api/show", "{\"name\":\"a/b\"}", 200); /* the older word */
    cJSON_Delete(v);
    v = called("GET", "/api/version", NULL, 200);
    CHECK(str_at(v, "version") && str_at(v, "version")[0]);
    cJSON_Delete(v);
}

/* A key that may use one model is told of no other. Breaks where a door lists models by itself. */
TEST(models_of_others_are_not_told) {
    char key[KEY_TEXT_MAX];
    identity who;
    reply r;
    CHECK_OK(key_add_with(w.isl, NULL, "narrow", ROLE_USER, &(grant){.models = "a/b"}, key, &who, &e), e);
    client_request(w.port, key, "GET", "/api/tags", NULL, &r);
    cJSON *v = cJSON_Parse(buf_str(&r.body));
    CHECK_INT(cJSON_GetArraySize(json_at(v, "models")), 1);
    CHECK_STR(str_at(v, "models.0.name"), "a/b");
    cJSON_Delete(v);
    reply_free(&r);
    client_request(w.port, key, "POST", "/api/show", "{\"model\":\"ok\"}", &r);
    CHECK_INT(r.status, 404);
    reply_free(&r);
    client_request(w.port, key, "POST", "/api/show", "{\"model\":\"a/b\"}", &r);
    CHECK_INT(r.status, 200);
    reply_free(&r);
}

/* A failed allocation is an error, and nothing is lost or freed twice. */
TEST(every_allocation_may_fail) {
    static const struct {
        const dialect *d;
        const char *body;
    } t[] = {
        {&dialect_ollama_chat, MSGS(CALLS(CALL("f")) "," MSG("tool", ""))},
        {&dialect_ollama_chat, CHAT(",\"format\":\"json\"")},
        {&dialect_ollama_generate, GEN(",\"raw\":true")},
        {&dialect_ollama_embed, EMB("")},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        bool through = false;
        for (int k = 0; k < 100 && !through; k++) {
            answer *a = NULL;
            mem_fail_after(k);
            err_code rc = parse(&a, t[i].d, t[i].body);
            mem_fail_after(-1);
            answer_free(a);
            through = rc == ERR_OK;
            if (!through) CHECK_INT(rc, ERR_NOMEM);
        }
        CHECK(through);
    }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    log_set_level(LOG_ERROR);
    if (world_open(&w, NULL, &e) != ERR_OK || world_start(&w, &e) != ERR_OK) {
        fprintf(stderr, "no server: %s\n", e.msg);
        return 1;
    }
    RUN(bad_bodies_are_refused_by_name);
    RUN(fields_are_read);
    RUN(calls_and_their_answers_are_joined);
    RUN(prompts_become_messages_or_stay);
    RUN(vectors_are_written);
    RUN(arguments_of_any_kind);
    RUN(every_allocation_may_fail);
    RUN(whole_answers);
    RUN(whole_answers_with_calls);
    RUN(streams);
    RUN(failures_are_statuses);
    RUN(models_are_told);
    RUN(models_of_others_are_not_told);
    world_end(&w);
    return test_end();
}
