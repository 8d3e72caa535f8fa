/* The dialect of Anthropic's Messages: what each field and block is read into, that what cannot be done is refused by
 * its name, and the bytes of answers and streams before a scripted pipeline. Breaks when a block is lost or put into
 * the wrong message, a refusal loses its name, or an event its place. */
#include "base/mem.h"
#include "events.h"
#include "scripted.h"
#include "server/dialect.h"
#include "server/internal.h"

static world w;
static err e;

#define HEAD      "\"model\":\"m\",\"max_tokens\":9"
#define USER      "{\"role\":\"user\",\"content\":\"hi\"}"
#define MSG       HEAD ",\"messages\":[" USER "]"
#define TURNS(x)  "{" HEAD ",\"messages\":[" x "]}"
#define BLOCKS(x) TURNS("{\"role\":\"user\",\"content\":[" x "]}")
#define SAID(x)   TURNS("{\"role\":\"assistant\",\"content\":[" x "]}," USER)
#define TOOL(x)   "{\"name\":\"" x "\",\"input_schema\":{\"type\":\"object\"}}"

static err_code parse(answer **a, const dialect *d, const char *text) {
    cJSON *body = NULL;
    *a = NULL;
    e.code = ERR_OK;
    err_code rc = json_parse(&body, text, strlen(text), "request body", &e);
    if (rc == ERR_OK) rc = answer_new(a, d, body, &e);
    if (rc == ERR_OK) rc = d->parse(*a, &e);
    return rc;
}

static const struct {
    const char *body;
    err_code code;
    const char *param, *says;
} bad[] = {
    {"{}", ERR_INVALID, "model", "missing"},
    {"{" HEAD "}", ERR_INVALID, "messages", "missing"},
    {"{\"model\":\"m\",\"messages\":[" USER "]}", ERR_INVALID, "max_tokens", "missing"},
    {"{" MSG ",\"max_tokens\":0}", ERR_INVALID, "", ""}, /* a key given twice */
    {"{\"model\":\"m\",\"max_tokens\":0,\"messages\":[" USER "]}", ERR_INVALID, "max_tokens", "between"},
    {TURNS(""), ERR_INVALID, "messages", "at least one"},
    {TURNS("5"), ERR_INVALID, "messages", "messages[0] must be an object"},
    {TURNS("{\"content\":\"x\"}"), ERR_INVALID, "messages", "messages[0].role"},
    {TURNS("{\"role\":\"tool\",\"content\":\"x\"}"), ERR_INVALID, "messages", "role"},
    {TURNS("{\"role\":\"user\"}"), ERR_INVALID, "messages", "content"},
    {TURNS("{\"role\":\"user\",\"content\":\"x\",\"name\":\"y\"}"), ERR_INVALID, "messages", "'name'"},
    {TURNS(USER ",{\"role\":\"assistant\",\"content\":\"The\"}"), ERR_UNSUPPORTED, "messages", "own words"},
    {BLOCKS("5"), ERR_INVALID, "messages", "messages[0].content[0] must be"},
    {BLOCKS("{\"type\":\"text\"}"), ERR_INVALID, "messages", "'text'"},
    {BLOCKS("{\"type\":\"text\",\"text\":\"x\",\"colour\":1}"), ERR_INVALID, "messages", "'colour'"},
    {BLOCKS("{\"type\":\"text\",\"text\":\"x\",\"tex\":1}"), ERR_INVALID, "messages", "'tex'"},
    {BLOCKS("{\"type\":\"text\",\"text\":\"x\",\"\":1}"), ERR_INVALID, "messages", "unknown"},
    {BLOCKS("{\"type\":\"text\",\"text\":\"x\",\"type text\":1}"), ERR_INVALID, "messages", "unknown"},
    {BLOCKS("{\"type\":\"text\",\"text\":\"x\",\"citations\":[{}]}"), ERR_UNSUPPORTED, "messages", "citations"},
    {BLOCKS("{\"type\":\"text\",\"text\":\"x\",\"cache_control\":1}"), ERR_INVALID, "messages", "cache_control"},
    {BLOCKS("{\"type\":\"image\",\"source\":{}}"), ERR_UNSUPPORTED, "messages", "\"image\""},
    {BLOCKS("{\"type\":\"document\",\"source\":{}}"), ERR_UNSUPPORTED, "messages", "\"document\""},
    {BLOCKS("{\"type\":\"search_result\"}"), ERR_UNSUPPORTED, "messages", "\"search_result\""},
    {BLOCKS("{\"type\":\"container_upload\"}"), ERR_UNSUPPORTED, "messages", "\"container_upload\""},
    {BLOCKS("{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\"}"), ERR_UNSUPPORTED, "messages", "role user"},
    {BLOCKS("{\"type\":\"tool_result\"}"), ERR_INVALID, "messages", "tool_use_id is missing"},
    {BLOCKS("{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"is_error\":1}"), ERR_INVALID, "messages", "is_error"},
    {BLOCKS("{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":[{\"type\":\"image\"}]}"), ERR_UNSUPPORTED,
     "messages", "messages[0].content[0].content[0]"},
    {SAID("{\"type\":\"tool_result\",\"tool_use_id\":\"a\"}"), ERR_UNSUPPORTED, "messages", "role assistant"},
    {SAID("{\"type\":\"tool_use\",\"name\":\"f\"}"), ERR_INVALID, "messages", "an id and the name"},
    {SAID("{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":\"x\"}"), ERR_INVALID, "messages", "input"},
    {SAID("{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"caller\":{\"type\":\"code\"}}"), ERR_UNSUPPORTED,
     "messages", "caller"},
    {SAID("{\"type\":\"thinking\"}"), ERR_INVALID, "messages", "'thinking'"},
    {SAID("{\"type\":\"redacted_thinking\",\"data\":\"x\"}"), ERR_UNSUPPORTED, "messages", "redacted_thinking"},
    {SAID("{\"type\":\"server_tool_use\",\"id\":\"a\"}"), ERR_UNSUPPORTED, "messages", "server_tool_use"},
    {"{" MSG ",\"system\":5}", ERR_INVALID, "system", "system must be"},
    {"{" MSG ",\"system\":[{\"type\":\"image\"}]}", ERR_UNSUPPORTED, "system", "system[0]"},
    {"{" MSG ",\"colour\":\"red\"}", ERR_INVALID, "colour", "colour"},
    {"{" MSG ",\"n\":2}", ERR_INVALID, "n", "'n'"},
    {"{" MSG ",\"stream\":1}", ERR_INVALID, "stream", "true or false"},
    {"{" MSG ",\"temperature\":1.5}", ERR_INVALID, "temperature", "between 0 and 1"},
    {"{" MSG ",\"top_p\":2}", ERR_INVALID, "top_p", "between"},
    {"{" MSG ",\"top_k\":\"x\"}", ERR_INVALID, "top_k", "whole"},
    {"{" MSG ",\"stop_sequences\":\"x\"}", ERR_INVALID, "stop_sequences", "array"},
    {"{" MSG ",\"stop_sequences\":[\"\"]}", ERR_INVALID, "stop_sequences", "1 to 256"},
    {"{" MSG ",\"metadata\":5}", ERR_INVALID, "metadata", "object"},
    {"{" MSG ",\"metadata\":{\"team\":\"x\"}}", ERR_INVALID, "metadata", "'team'"},
    {"{" MSG ",\"metadata\":{\"user_id\":5}}", ERR_INVALID, "metadata", "user_id"},
    {"{" MSG ",\"metadata\":{\"polder_label\":5}}", ERR_INVALID, "metadata", "polder_label"},
    {"{" MSG ",\"thinking\":true}", ERR_INVALID, "thinking", "type"},
    {"{" MSG ",\"thinking\":{\"type\":\"enabled\"}}", ERR_INVALID, "thinking", "budget_tokens"},
    {"{" MSG ",\"thinking\":{\"type\":\"deep\"}}", ERR_INVALID, "thinking", "adaptive"},
    {"{" MSG ",\"thinking\":{\"type\":\"adaptive\",\"display\":\"omitted\"}}", ERR_UNSUPPORTED, "thinking", "display"},
    {"{" MSG ",\"output_config\":{\"effort\":\"very\"}}", ERR_INVALID, "output_config", "effort"},
    {"{" MSG ",\"output_config\":{\"format\":{\"type\":\"xml\"}}}", ERR_UNSUPPORTED, "output_config", "json_schema"},
    {"{" MSG ",\"output_format\":{\"type\":\"json_schema\",\"schema\":5}}", ERR_INVALID, "output_format", "schema"},
    {"{" MSG ",\"tools\":{}}", ERR_INVALID, "tools", "array"},
    {"{" MSG ",\"tools\":[5]}", ERR_INVALID, "tools", "tools[0]"},
    {"{" MSG ",\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}]}", ERR_UNSUPPORTED, "tools",
     "web_search_20250305"},
    {"{" MSG ",\"tools\":[{\"name\":\"f\"}]}", ERR_INVALID, "tools", "input_schema"},
    {"{" MSG ",\"tools\":[{\"name\":\"a b\",\"input_schema\":{}}]}", ERR_INVALID, "tools", "tools[0].name"},
    {"{" MSG ",\"tools\":[" TOOL("f") "," TOOL("f") "]}", ERR_INVALID, "tools", "two with the name 'f'"},
    {"{" MSG ",\"tools\":[{\"name\":\"f\",\"input_schema\":{},\"defer_loading\":true}]}", ERR_UNSUPPORTED, "tools",
     "defer_loading"},
    {"{" MSG ",\"tools\":[{\"name\":\"f\",\"input_schema\":{},\"allowed_callers\":[\"code\"]}]}", ERR_UNSUPPORTED,
     "tools", "allowed_callers"},
    {"{" MSG ",\"tools\":[{\"name\":\"f\",\"input_schema\":{},\"input_examples\":[{}]}]}", ERR_UNSUPPORTED, "tools",
     "input_examples"},
    {"{" MSG ",\"tool_choice\":\"any\"}", ERR_INVALID, "tool_choice", "object"},
    {"{" MSG ",\"tool_choice\":{\"type\":\"any\"}}", ERR_INVALID, "tool_choice", "'tools' has none"},
    {"{" MSG ",\"tools\":[" TOOL("f") "],\"tool_choice\":{\"type\":\"tool\"}}", ERR_INVALID, "tool_choice", "name"},
    {"{" MSG ",\"tools\":[" TOOL("f") "],\"tool_choice\":{\"type\":\"tool\",\"name\":\"g\"}}", ERR_INVALID,
     "tool_choice", "no tool 'g'"},
    {"{" MSG ",\"mcp_servers\":[{}]}", ERR_UNSUPPORTED, "mcp_servers", "mcp_servers"},
    {"{" MSG ",\"container\":\"c\"}", ERR_UNSUPPORTED, "container", "container"},
    {"{" MSG ",\"context_management\":{}}", ERR_UNSUPPORTED, "context_management", "context_management"},
    {"{" MSG ",\"inference_geo\":\"eu\"}", ERR_UNSUPPORTED, "inference_geo", "inference_geo"},
};

TEST(bad_fields_are_named) {
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        answer *a;
        err_code rc = parse(&a, &dialect_anthropic, bad[i].body);
        const char *param = a ? a->param : "";
        if (rc != bad[i].code || strcmp(param, bad[i].param) != 0 || !strstr(e.msg, bad[i].says) || e.code != rc) {
            fprintf(stderr, "%s\n  gives %s for '%s': %s\n", bad[i].body, err_name(rc), param, e.msg);
            test_bad = true;
        }
        answer_free(a);
    }
}

static bool messages_are(const answer *a, const char *want) {
    buf b = {.max = 1 << 20};
    bool same = json_canonical(&b, a->r.messages, &e) == ERR_OK && strcmp(buf_str(&b), want) == 0;
    if (!same) fprintf(stderr, "messages are %s\n     not %s\n", buf_str(&b), want);
    buf_free(&b);
    return same;
}

TEST(blocks_become_messages) {
    static const struct {
        const char *body, *want;
    } cases[] = {
        {"{" MSG "}", "[{\"content\":\"hi\",\"role\":\"user\"}]"},
        {"{" MSG ",\"system\":\"be brief\"}",
         "[{\"content\":\"be brief\",\"role\":\"system\"},{\"content\":\"hi\",\"role\":\"user\"}]"},
        {"{" MSG ",\"system\":[{\"type\":\"text\",\"text\":\"a\",\"cache_control\":{\"type\":\"ephemeral\"}},{\"type\":"
         "\"text\",\"text\":\"b\"}]}",
         "[{\"content\":\"a\\nb\",\"role\":\"system\"},{\"content\":\"hi\",\"role\":\"user\"}]"},
        {"{" MSG ",\"system\":\"\"}", "[{\"content\":\"hi\",\"role\":\"user\"}]"},
        {BLOCKS("{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\",\"citations\":null}"),
         "[{\"content\":\"a\\nb\",\"role\":\"user\"}]"},
        {TURNS(USER ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":"
                    "\"s\"},{\"type\":\"text\",\"text\":\"I look\"},{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":"
                    "\"f\",\"input\":{\"a\":1}},{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"g\",\"input\":{},"
                    "\"caller\":{\"type\":\"direct\"}}]},"
                    "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t1\",\"content\":"
                    "\"rain\"},{\"type\":\"tool_result\",\"tool_use_id\":\"t2\",\"is_error\":true,\"content\":[{"
                    "\"type\":\"text\",\"text\":\"no\"}]},{\"type\":\"text\",\"text\":\"go on\"}]}"),
         "[{\"content\":\"hi\",\"role\":\"user\"},"
         "{\"content\":\"I look\",\"reasoning_content\":\"hm\",\"role\":\"assistant\",\"tool_calls\":["
         "{\"function\":{\"arguments\":\"{\\\"a\\\":1}\",\"name\":\"f\"},\"id\":\"t1\",\"type\":\"function\"},"
         "{\"function\":{\"arguments\":\"{}\",\"name\":\"g\"},\"id\":\"t2\",\"type\":\"function\"}]},"
         "{\"content\":\"rain\",\"role\":\"tool\",\"tool_call_id\":\"t1\"},"
         "{\"content\":\"Error: no\",\"role\":\"tool\",\"tool_call_id\":\"t2\"},"
         "{\"content\":\"go on\",\"role\":\"user\"}]"},
        {BLOCKS("{\"type\":\"text\",\"text\":\"before\"},{\"type\":\"tool_result\",\"tool_use_id\":\"t\"}"),
         "[{\"content\":\"before\",\"role\":\"user\"},{\"content\":\"\",\"role\":\"tool\",\"tool_call_id\":\"t\"}]"},
        {TURNS(USER ",{\"role\":\"system\",\"content\":\"short now\"}"),
         "[{\"content\":\"hi\",\"role\":\"user\"},{\"content\":\"short now\",\"role\":\"system\"}]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        answer *a;
        CHECK_OK(parse(&a, &dialect_anthropic, cases[i].body), e);
        CHECK(messages_are(a, cases[i].want));
        answer_free(a);
    }
}

TEST(fields_arrive) {
    answer *a;
    CHECK_OK(parse(&a, &dialect_anthropic,
                   "{" MSG ",\"system\":null,\"stream\":true,\"temperature\":0.5,\"top_p\":0.9,\"top_k\":40,\"seed\":7,"
                   "\"stop_sequences\":[\"a\",\"b\"],\"metadata\":{\"user_id\":\"u\",\"polder_label\":\"secret\"},"
                   "\"service_tier\":\"auto\",\"cache_control\":{\"type\":\"ephemeral\"},"
                   "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024,\"display\":\"summarized\"},"
                   "\"tools\":[{\"type\":\"custom\",\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":"
                   "\"object\"},\"strict\":true,\"allowed_callers\":[\"direct\"]}," TOOL(
                       "g") "],"
                            "\"tool_choice\":{\"type\":\"any\",\"disable_parallel_tool_use\":true}}"),
             e);
    const request *r = &a->r;
    CHECK(a->stream && r->parse && r->max_tokens == 9 && r->n_choices == 1);
    CHECK(r->sampling.temperature == 0.5f && r->sampling.top_p == 0.9f && r->sampling.top_k == 40);
    CHECK(r->has_seed && r->sampling.seed == 7 && r->n_stops == 2);
    CHECK_STR(r->stops[1], "b");
    CHECK_STR(r->user, "u");
    CHECK_STR(r->label, "secret");
    CHECK_STR(r->reasoning_effort, "high");
    CHECK(r->tool_must && !r->tool_only && r->one_call && r->tool_strict);
    CHECK_INT(cJSON_GetArraySize(r->tools), 2);
    CHECK_STR(str_at(r->tools, "0.function.name"), "f");
    CHECK_STR(str_at(r->tools, "0.function.description"), "d");
    CHECK(json_at(r->tools, "1.function.parameters") && !json_at(r->tools, "0.function.strict"));
    answer_free(a);
}

TEST(switches_that_meet) {
    static const struct {
        const char *more, *effort;
        bool must, one;
    } cases[] = {
        {"", NULL, false, false},
        {",\"thinking\":{\"type\":\"disabled\"}", "none", false, false},
        {",\"thinking\":{\"type\":\"adaptive\"}", NULL, false, false},
        {",\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"max\"}", "xhigh", false, false},
        {",\"output_config\":{\"effort\":\"low\"},\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":5}", "low",
         false, false},
        {",\"output_config\":{\"effort\":\"low\"},\"thinking\":{\"type\":\"disabled\"}", "none", false, false},
        {",\"thinking\":{\"type\":\"disabled\"},\"output_config\":{\"effort\":\"low\"}", "none", false, false},
        {",\"tools\":[" TOOL("f") "],\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\"}", NULL, true, true},
        {",\"tools\":[" TOOL("f") "],\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":true}", NULL,
         false, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[512];
        answer *a;
        snprintf(body, sizeof body, "{" MSG "%s}", cases[i].more);
        CHECK_OK(parse(&a, &dialect_anthropic, body), e);
        CHECK((a->r.reasoning_effort == NULL) == (cases[i].effort == NULL));
        if (cases[i].effort) CHECK_STR(a->r.reasoning_effort, cases[i].effort);
        CHECK(a->r.tool_must == cases[i].must && a->r.one_call == cases[i].one);
        answer_free(a);
    }
    answer *a;
    CHECK_OK(parse(&a, &dialect_anthropic,
                   "{" MSG ",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"const\":1}}},"
                   "\"tools\":[" TOOL("f") "],\"tool_choice\":{\"type\":\"none\"}}"),
             e);
    CHECK(a->r.grammar == GRAMMAR_JSON_SCHEMA && !a->r.tools);
    CHECK_STR(a->r.grammar_source, "{\"const\":1}");
    answer_free(a);
}

/* Each allocation of a rich body fails once: no crash, no leak, no half-read request. */
TEST(parsing_survives_every_failed_allocation) {
    static const char body[] =
        "{" HEAD ",\"system\":[{\"type\":\"text\",\"text\":\"s\"}],\"messages\":[" USER
        ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\"},{\"type\":\"text\",\"text\":"
        "\"x\"},{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{\"k\":[1]}}]},{\"role\":\"user\","
        "\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":\"r\"}]}],\"tools\":[" TOOL(
            "f") "],\"output_format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\"}}}";
    int refused = 0;
    for (int64_t n = 0; n < 400; n++) {
        answer *a;
        mem_fail_after(n);
        err_code rc = parse(&a, &dialect_anthropic, body);
        mem_fail_after(-1);
        refused += rc != ERR_OK;
        if (rc == ERR_OK) CHECK(a && a->r.messages && cJSON_GetArraySize(a->r.messages) == 4);
        answer_free(a);
        if (rc == ERR_OK) break;
        CHECK_INT(rc, ERR_NOMEM);
    }
    CHECK(refused > 5);
}

/* ---- answers ----------------------------------------------------------------------------------------------- */

#define ASK(model, more) "{\"model\":\"" model "\",\"max_tokens\":9,\"messages\":[" USER "]" more "}"

static cJSON *post(const char *path, const char *body, int status) {
    reply r;
    client_request(w.port, w.key[ROLE_USER], "POST", path, body, &r);
    if (r.status != status) {
        fprintf(stderr, "%d, not %d: %s\n", r.status, status, buf_str(&r.body));
        test_bad = true;
    }
    cJSON *v = r.status == status && r.whole ? cJSON_Parse(buf_str(&r.body)) : NULL;
    reply_free(&r);
    return v;
}

TEST(an_answer) {
    cJSON *v = post("/v1/messages", ASK("ok", ""), 200);
    CHECK_STR(str_at(v, "type"), "message");
    CHECK_STR(str_at(v, "role"), "assistant");
    CHECK_STR(str_at(v, "model"), "ok");
    CHECK(strncmp(str_at(v, "id"), "msg_", 4) == 0);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "content")), 1);
    CHECK_STR(str_at(v, "content.0.type"), "text");
    CHECK_STR(str_at(v, "content.0.text"), "Hello w\xc3\xb6rld");
    CHECK_STR(str_at(v, "stop_reason"), "end_turn");
    CHECK(cJSON_IsNull(json_at(v, "stop_sequence")));
    CHECK_INT(num_at(v, "usage.input_tokens"), 3);
    CHECK_INT(num_at(v, "usage.output_tokens"), 2);
    cJSON_Delete(v);
}

TEST(an_answer_with_calls) {
    cJSON *v = post("/v1/messages", ASK("calls", ""), 200);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "content")), 3);
    CHECK_STR(str_at(v, "content.0.thinking"), "Hm. Yes.");
    CHECK(strncmp(str_at(v, "content.0.signature"), "polder-", 7) == 0);
    CHECK_STR(str_at(v, "content.1.type"), "tool_use");
    CHECK_STR(str_at(v, "content.1.name"), "f");
    CHECK_STR(str_at(v, "content.1.input.a"), "\xc3\xb6");
    CHECK(strncmp(str_at(v, "content.1.id"), "toolu_", 6) == 0);
    CHECK(strcmp(str_at(v, "content.1.id"), str_at(v, "content.2.id")) != 0);
    CHECK(cJSON_IsObject(json_at(v, "content.2.input")));
    CHECK_STR(str_at(v, "stop_reason"), "tool_use");
    cJSON_Delete(v);
}

/* Nobody is led to act on a call that is none. */
TEST(calls_that_are_none_are_not_told) {
    cJSON *v = post("/v1/messages", ASK("broken calls", ""), 200);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "content")), 1);
    CHECK_STR(str_at(v, "content.0.text"), "<call>{\"a\":");
    CHECK_STR(str_at(v, "stop_reason"), "end_turn");
    cJSON_Delete(v);
    v = post("/v1/messages", ASK("half a call", ""), 200);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "content")), 0);
    CHECK_STR(str_at(v, "stop_reason"), "max_tokens");
    cJSON_Delete(v);
    v = post("/v1/messages", ASK("bad arguments", ""), 200);
    CHECK_STR(str_at(v, "content.0.text"), "f [1");
    CHECK_STR(str_at(v, "stop_reason"), "end_turn");
    cJSON_Delete(v);
    v = post("/v1/messages", ASK("mixed", ""), 200);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "content")), 4);
    CHECK_STR(str_at(v, "content.1.text"), "Let me look.");
    CHECK(cJSON_IsObject(json_at(v, "content.2.input")));
    CHECK_STR(str_at(v, "content.3.text"), "And th");
    CHECK_STR(str_at(v, "stop_reason"), "max_tokens");
    cJSON_Delete(v);
}

TEST(the_stop_string_is_named) {
    cJSON *v = post("/v1/messages", ASK("stopped", ",\"stop_sequences\":[\"a\",\"b\"]"), 200);
    CHECK_STR(str_at(v, "stop_reason"), "stop_sequence");
    CHECK_STR(str_at(v, "stop_sequence"), "b");
    cJSON_Delete(v);
    v = post("/v1/messages", ASK("stopped", ""), 200); /* nobody asked for one */
    CHECK_STR(str_at(v, "stop_reason"), "end_turn");
    CHECK(cJSON_IsNull(json_at(v, "stop_sequence")));
    cJSON_Delete(v);
}

TEST(a_filtered_answer_is_a_refusal) {
    cJSON *v = post("/v1/messages", ASK("filtered", ""), 200);
    CHECK_STR(str_at(v, "stop_reason"), "refusal");
    CHECK_STR(str_at(v, "content.0.text"), "Hel");
    cJSON_Delete(v);
}

/* A client that wants its conversation held here finds the code by which it goes on without. */
TEST(threads_are_refused_as_clients_expect) {
    cJSON *v = post("/v1/messages", ASK("ok", ",\"thread\":{\"type\":\"create\"}"), 400);
    CHECK_STR(str_at(v, "error.details.error_code"), "thread_unsupported_request");
    CHECK_STR(str_at(v, "error.details.unsupported.0"), "thread");
    cJSON_Delete(v);
    cJSON_Delete(post("/v1/messages", ASK("ok", ",\"thread\":null"), 200));
}

static cJSON *streamed(const char *body) {
    return events_ask(w.port, w.key[ROLE_USER], "/v1/messages", body);
}

TEST(a_streamed_answer) {
    buf types = {.max = 4096};
    cJSON *list = streamed(ASK("ok", ",\"stream\":true"));
    CHECK(list);
    events_types(list, &types);
    CHECK_STR(buf_str(&types), "message_start ping content_block_start content_block_delta content_block_delta "
                               "content_block_stop message_delta message_stop ");
    const cJSON *start = events_find(list, "message_start", 0), *end = events_find(list, "message_delta", 0);
    CHECK_STR(str_at(start, "message.type"), "message");
    CHECK_INT(cJSON_GetArraySize(json_at(start, "message.content")), 0);
    CHECK(cJSON_IsNull(json_at(start, "message.stop_reason")));
    CHECK_INT(num_at(start, "message.usage.output_tokens"), 0);
    const cJSON *block = events_find(list, "content_block_start", 0);
    CHECK_INT(num_at(block, "index"), 0);
    CHECK_STR(str_at(block, "content_block.type"), "text");
    CHECK_STR(str_at(block, "content_block.text"), "");
    CHECK_STR(str_at(events_find(list, "content_block_delta", 1), "delta.text"), " w\xc3\xb6rld");
    CHECK_STR(str_at(events_find(list, "content_block_delta", 1), "delta.type"), "text_delta");
    CHECK_STR(str_at(end, "delta.stop_reason"), "end_turn");
    CHECK_INT(num_at(end, "usage.output_tokens"), 2);
    CHECK_INT(num_at(end, "usage.input_tokens"), 3);
    cJSON_Delete(list);
    buf_free(&types);
}

TEST(a_streamed_answer_with_calls) {
    buf types = {.max = 4096};
    cJSON *list = streamed(ASK("calls", ",\"stream\":true"));
    CHECK(list);
    events_types(list, &types);
    CHECK_STR(buf_str(&types), "message_start ping "
                               "content_block_start content_block_delta content_block_delta content_block_delta "
                               "content_block_stop "
                               "content_block_start content_block_delta content_block_stop "
                               "content_block_start content_block_delta content_block_stop "
                               "message_delta message_stop ");
    CHECK_STR(str_at(events_find(list, "content_block_start", 0), "content_block.type"), "thinking");
    CHECK_STR(str_at(events_find(list, "content_block_delta", 0), "delta.thinking"), "Hm.");
    CHECK_STR(str_at(events_find(list, "content_block_delta", 2), "delta.type"), "signature_delta");
    const cJSON *call = events_find(list, "content_block_start", 1);
    CHECK_INT(num_at(call, "index"), 1);
    CHECK_STR(str_at(call, "content_block.name"), "f");
    CHECK_STR(str_at(events_find(list, "content_block_delta", 3), "delta.partial_json"), "{\"a\": \"\xc3\xb6\"}");
    CHECK_INT(num_at(events_find(list, "content_block_stop", 2), "index"), 2);
    CHECK_STR(str_at(events_find(list, "message_delta", 0), "delta.stop_reason"), "tool_use");
    cJSON_Delete(list);
    list = streamed(ASK("half a call", ",\"stream\":true"));
    events_types(list, &types);
    CHECK_STR(buf_str(&types), "message_start ping message_delta message_stop ");
    cJSON_Delete(list);
    buf_free(&types);
}

/* A call that is held back for long does not leave the line silent. */
TEST(pings_come_while_a_call_is_written) {
    buf types = {.max = 4096};
    cJSON *list = streamed(ASK("long call", ",\"stream\":true"));
    CHECK(list);
    events_types(list, &types);
    CHECK_STR(buf_str(&types), "message_start ping ping ping content_block_start content_block_delta "
                               "content_block_stop message_delta message_stop ");
    CHECK_INT(strlen(str_at(events_find(list, "content_block_delta", 0), "delta.partial_json")), 10008);
    cJSON_Delete(list);
    buf_free(&types);
}

TEST(a_failure_in_a_stream_is_an_event) {
    cJSON *list = streamed(ASK("breaks", ",\"stream\":true"));
    CHECK(list);
    const cJSON *last = events_find(list, "error", 0);
    CHECK(last && !last->next);
    CHECK_STR(str_at(last, "error.type"), "api_error");
    CHECK(!strstr(str_at(last, "error.message"), "/srv"));
    cJSON_Delete(list);
}

TEST(failures_are_errors_of_its_form) {
    static const struct {
        const char *body;
        int status;
        const char *type;
    } cases[] = {{ASK("absent", ""), 404, "not_found_error"},
                 {ASK("busy", ""), 429, "rate_limit_error"},
                 {ASK("down", ""), 503, "api_error"},
                 {ASK("long", ""), 400, "invalid_request_error"},
                 {ASK("absent", ",\"stream\":true"), 404, "not_found_error"},
                 {ASK("ok", ",\"colour\":1"), 400, "invalid_request_error"},
                 {"[]", 400, "invalid_request_error"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cJSON *v = post("/v1/messages", cases[i].body, cases[i].status);
        CHECK_STR(str_at(v, "type"), "error");
        CHECK_STR(str_at(v, "error.type"), cases[i].type);
        CHECK(str_at(v, "request_id") && strncmp(str_at(v, "request_id"), "req_", 4) == 0);
        cJSON_Delete(v);
    }
    reply r;
    client_request(w.port, NULL, "POST", "/v1/messages", ASK("ok", ""), &r);
    CHECK_INT(r.status, 401);
    CHECK_HAS(buf_str(&r.body), "authentication_error");
    CHECK_HAS(buf_str(&r.body), reply_field(&r, "request-id"));
    reply_free(&r);
}

TEST(the_key_may_come_as_x_api_key) {
    static const struct {
        const char *headers;
        int status;
    } cases[] = {{"x-api-key: %s\r\nanthropic-version: 2023-06-01\r\n", 200},
                 {"X-Api-Key:   %s  \r\n", 200},
                 {"x-api-key: pld_wrong%.0s\r\n", 401},
                 {"x-api-key:%.0s\r\n", 401},
                 {"Authorization: Bearer pld_wrong\r\nx-api-key: %s\r\n", 401}, /* Authorization counts */
                 {"x-api-key: %1$s\r\nx-api-key: %1$s\r\n", 400}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char fields[512], wire[1024];
        reply r;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(fields, sizeof fields, cases[i].headers, w.key[ROLE_USER]);
#pragma GCC diagnostic pop
        snprintf(wire, sizeof wire, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n%s\r\n", fields);
        int fd = client_tcp(w.port);
        CHECK(fd >= 0 && client_send(fd, wire, strlen(wire)));
        client_read(fd, &r, false, NULL);
        CHECK_INT(r.status, cases[i].status);
        CHECK(!strstr(buf_str(&r.body), w.key[ROLE_USER]));
        reply_free(&r);
        close(fd);
    }
}

TEST(tokens_are_counted_without_an_answer) {
    int before = scripted_runs;
    cJSON *v = post("/v1/messages/count_tokens",
                    "{\"model\":\"ok\",\"system\":\"s\",\"messages\":[" USER "],\"tools\":[" TOOL("f") "]}", 200);
    CHECK_INT(num_at(v, "input_tokens"), 25);
    CHECK_INT(cJSON_GetArraySize(v), 1);
    cJSON_Delete(v);
    v = post("/v1/messages/count_tokens", "{\"model\":\"absent\",\"messages\":[" USER "]}", 404);
    CHECK_STR(str_at(v, "error.type"), "not_found_error");
    cJSON_Delete(v);
    v = post("/v1/messages/count_tokens", "{\"model\":\"ok\"}", 400);
    CHECK_HAS(str_at(v, "error.message"), "messages");
    cJSON_Delete(v);
    CHECK_INT(scripted_runs, before);
}

TEST(a_declared_label_arrives) {
    cJSON *v = post("/v1/messages", ASK("show", ",\"metadata\":{\"polder_label\":\"secret\"}"), 200);
    CHECK_HAS(str_at(v, "content.0.text"), " as secret");
    cJSON_Delete(v);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    log_set_level(LOG_ERROR);
    if (world_open(&w, NULL, &e) != ERR_OK || world_start(&w, &e) != ERR_OK) {
        fprintf(stderr, "no server: %s\n", e.msg);
        return 1;
    }
    RUN(bad_fields_are_named);
    RUN(blocks_become_messages);
    RUN(fields_arrive);
    RUN(switches_that_meet);
    RUN(parsing_survives_every_failed_allocation);
    RUN(an_answer);
    RUN(an_answer_with_calls);
    RUN(calls_that_are_none_are_not_told);
    RUN(the_stop_string_is_named);
    RUN(a_filtered_answer_is_a_refusal);
    RUN(threads_are_refused_as_clients_expect);
    RUN(a_streamed_answer);
    RUN(a_streamed_answer_with_calls);
    RUN(pings_come_while_a_call_is_written);
    RUN(a_failure_in_a_stream_is_an_event);
    RUN(failures_are_errors_of_its_form);
    RUN(the_key_may_come_as_x_api_key);
    RUN(tokens_are_counted_without_an_answer);
    RUN(a_declared_label_arrives);
    world_end(&w);
    return test_end();
}
