/* The dialect of OpenAI's Responses: what each field and item is read into, refusals by name, answers and streams
 * before a scripted pipeline, and what is stored of them: who may read it, what a conversation that goes on is made of,
 * and that deleting forgets. Breaks when an item lands in the wrong message, an event loses its place, or a stored
 * answer opens to somebody else. */
#include "base/mem.h"
#include "events.h"
#include "scripted.h"
#include "server/dialect.h"
#include "server/internal.h"
#include "server/responses.h"

static world w;
static err e;

#define RESP     "\"model\":\"m\",\"input\":\"hi\""
#define ITEMS(x) "{\"model\":\"m\",\"input\":[" x "]}"
#define TOOL(x)  "{\"type\":\"function\",\"name\":\"" x "\",\"parameters\":{\"type\":\"object\"}}"

static err_code parse(answer **a, const char *text) {
    cJSON *body = NULL;
    *a = NULL;
    e.code = ERR_OK;
    err_code rc = json_parse(&body, text, strlen(text), "request body", &e);
    if (rc == ERR_OK) rc = answer_new(a, &dialect_openai_responses, body, &e);
    if (rc == ERR_OK) rc = responses_parse(*a, &e);
    return rc;
}

static const struct {
    const char *body;
    err_code code;
    const char *param, *says;
} bad[] = {
    {"{}", ERR_INVALID, "model", "missing"},
    {"{\"model\":\"m\"}", ERR_INVALID, "input", "missing"},
    {"{\"model\":\"m\",\"input\":5}", ERR_INVALID, "input", "string"},
    {ITEMS(""), ERR_INVALID, "input", "at least one"},
    {ITEMS("5"), ERR_INVALID, "input", "input[0] must be an object"},
    {ITEMS("{\"type\":\"web_search_call\",\"id\":\"x\"}"), ERR_UNSUPPORTED, "input", "web_search_call"},
    {ITEMS("{\"type\":5}"), ERR_UNSUPPORTED, "input", "input[0]"},
    {ITEMS("{\"role\":\"tool\",\"content\":\"x\"}"), ERR_INVALID, "input", "input[0].role"},
    {ITEMS("{\"role\":\"user\"}"), ERR_INVALID, "input", "input[0].content"},
    {ITEMS("{\"role\":\"user\",\"content\":\"x\",\"name\":1}"), ERR_INVALID, "input", "'name'"},
    {ITEMS("{\"role\":\"user\",\"content\":[{\"type\":\"input_image\",\"image_url\":\"x\"}]}"), ERR_UNSUPPORTED,
     "input", "input_image"},
    {ITEMS("{\"role\":\"user\",\"content\":[{\"type\":\"input_file\"}]}"), ERR_UNSUPPORTED, "input", "input_file"},
    {ITEMS("{\"role\":\"user\",\"content\":[{\"type\":\"input_text\"}]}"), ERR_INVALID, "input", "'text'"},
    {ITEMS("{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"x\",\"y\":1}]}"), ERR_INVALID, "input",
     "'y'"},
    {ITEMS("{\"role\":\"assistant\",\"content\":[{\"type\":\"refusal\",\"refusal\":\"no\"}]}"), ERR_UNSUPPORTED,
     "input", "refusal"},
    {ITEMS("{\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"f\"}"), ERR_INVALID, "input", "arguments"},
    {ITEMS("{\"type\":\"function_call\",\"name\":\"f\",\"arguments\":\"{}\"}"), ERR_INVALID, "input", "an id"},
    {ITEMS("{\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"f\",\"arguments\":\"{}\",\"caller\":{\"type\":"
           "\"program\"}}"),
     ERR_UNSUPPORTED, "input", "caller"},
    {ITEMS("{\"type\":\"function_call_output\",\"output\":\"x\"}"), ERR_INVALID, "input", "call_id is missing"},
    {ITEMS("{\"type\":\"function_call_output\",\"call_id\":\"c\"}"), ERR_INVALID, "input", "output"},
    {ITEMS("{\"type\":\"function_call_output\",\"call_id\":\"c\",\"output\":[{\"type\":\"input_image\"}]}"),
     ERR_UNSUPPORTED, "input", "input_image"},
    {ITEMS("{\"type\":\"reasoning\",\"id\":\"r\",\"summary\":[],\"encrypted_content\":\"abc\"}"), ERR_UNSUPPORTED,
     "input", "encrypted_content"},
    {ITEMS("{\"type\":\"item_reference\"}"), ERR_INVALID, "input", "'id'"},
    {"{" RESP ",\"instructions\":5}", ERR_INVALID, "instructions", "string"},
    {"{" RESP ",\"messages\":[]}", ERR_INVALID, "messages", "messages"},
    {"{" RESP ",\"n\":2}", ERR_INVALID, "n", "'n'"},
    {"{" RESP ",\"max_tokens\":5}", ERR_INVALID, "max_tokens", "max_tokens"},
    {"{" RESP ",\"max_output_tokens\":0}", ERR_INVALID, "max_output_tokens", "between"},
    {"{" RESP ",\"stream\":\"x\"}", ERR_INVALID, "stream", "true or false"},
    {"{" RESP ",\"stream_options\":{\"include_usage\":true}}", ERR_INVALID, "stream_options", "include_usage"},
    {"{" RESP ",\"temperature\":3}", ERR_INVALID, "temperature", "between"},
    {"{" RESP ",\"metadata\":[]}", ERR_INVALID, "metadata", "object"},
    {"{" RESP ",\"metadata\":{\"a\":1}}", ERR_INVALID, "metadata", "\"a\""},
    {"{" RESP ",\"store\":1}", ERR_INVALID, "store", "true or false"},
    {"{" RESP ",\"previous_response_id\":5}", ERR_INVALID, "previous_response_id", "string"},
    {"{" RESP ",\"truncation\":\"auto\"}", ERR_UNSUPPORTED, "truncation", "disabled"},
    {"{" RESP ",\"background\":true}", ERR_UNSUPPORTED, "background", "background"},
    {"{" RESP ",\"conversation\":\"c\"}", ERR_UNSUPPORTED, "conversation", "conversation"},
    {"{" RESP ",\"prompt\":{\"id\":\"p\"}}", ERR_UNSUPPORTED, "prompt", "prompt"},
    {"{" RESP ",\"moderation\":{}}", ERR_UNSUPPORTED, "moderation", "moderation"},
    {"{" RESP ",\"top_logprobs\":2}", ERR_UNSUPPORTED, "top_logprobs", "top_logprobs"},
    {"{" RESP ",\"include\":[\"message.output_text.logprobs\"]}", ERR_UNSUPPORTED, "include", "logprobs"},
    {"{" RESP ",\"include\":\"x\"}", ERR_INVALID, "include", "array"},
    {"{" RESP ",\"reasoning\":{\"effort\":\"very\"}}", ERR_INVALID, "reasoning", "minimal"},
    {"{" RESP ",\"reasoning\":{\"summary\":\"long\"}}", ERR_INVALID, "reasoning", "summary"},
    {"{" RESP ",\"reasoning\":{\"mode\":\"pro\"}}", ERR_INVALID, "reasoning", "mode"},
    {"{" RESP ",\"text\":{\"verbosity\":\"low\"}}", ERR_UNSUPPORTED, "text", "verbosity"},
    {"{" RESP ",\"text\":{\"format\":{\"type\":\"grammar\"}}}", ERR_UNSUPPORTED, "text", "grammar"},
    {"{" RESP ",\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"x\"}}}", ERR_INVALID, "text", "schema"},
    {"{" RESP ",\"tools\":{}}", ERR_INVALID, "tools", "array"},
    {"{" RESP ",\"tools\":[{\"type\":\"web_search\"}]}", ERR_UNSUPPORTED, "tools", "web_search"},
    {"{" RESP ",\"tools\":[{\"type\":\"file_search\"}]}", ERR_UNSUPPORTED, "tools", "file_search"},
    {"{" RESP ",\"tools\":[{\"type\":\"mcp\"}]}", ERR_UNSUPPORTED, "tools", "mcp"},
    {"{" RESP ",\"tools\":[{\"type\":\"code_interpreter\"}]}", ERR_UNSUPPORTED, "tools", "code_interpreter"},
    {"{" RESP ",\"tools\":[{\"type\":\"image_generation\"}]}", ERR_UNSUPPORTED, "tools", "image_generation"},
    {"{" RESP ",\"tools\":[{\"type\":\"computer_use_preview\"}]}", ERR_UNSUPPORTED, "tools", "computer_use_preview"},
    {"{" RESP ",\"tools\":[{\"type\":\"custom\",\"name\":\"x\"}]}", ERR_UNSUPPORTED, "tools", "custom"},
    {"{" RESP ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}", ERR_INVALID, "tools", "function"},
    {"{" RESP ",\"tools\":[{\"type\":\"function\"}]}", ERR_INVALID, "tools", "tools[0].name"},
    {"{" RESP ",\"tools\":[" TOOL("f") "," TOOL("f") "]}", ERR_INVALID, "tools", "two"},
    {"{" RESP ",\"tool_choice\":\"required\"}", ERR_INVALID, "tool_choice", "none"},
    {"{" RESP ",\"tool_choice\":{\"type\":\"web_search\"}}", ERR_UNSUPPORTED, "tool_choice", "web_search"},
    {"{" RESP ",\"tools\":[" TOOL("f") "],\"tool_choice\":{\"type\":\"function\",\"name\":\"g\"}}", ERR_INVALID,
     "tool_choice", "no tool 'g'"},
    {"{" RESP ",\"tools\":[" TOOL("f") "],\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"auto\",\"tools\":[{"
                                       "\"type\":\"function\",\"name\":\"g\"}]}}",
     ERR_INVALID, "tool_choice", "no tool 'g'"},
};

TEST(bad_fields_are_named) {
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        answer *a;
        err_code rc = parse(&a, bad[i].body);
        const char *param = a ? a->param : "";
        if (rc != bad[i].code || strcmp(param, bad[i].param) != 0 || !strstr(e.msg, bad[i].says) || e.code != rc) {
            fprintf(stderr, "%s\n  gives %s for '%s': %s\n", bad[i].body, err_name(rc), param, e.msg);
            test_bad = true;
        }
        answer_free(a);
    }
}

#define CALL(id, name)                                                                                               \
    "{\"type\":\"function_call\",\"id\":\"fc_x\",\"call_id\":\"" id "\",\"name\":\"" name "\",\"arguments\":\"{}\"," \
    "\"status\":\"completed\"}"

TEST(items_become_messages) {
    static const struct {
        const char *body, *want;
    } cases[] = {
        {"{" RESP "}", "[{\"content\":\"hi\",\"role\":\"user\"}]"},
        {"{" RESP ",\"instructions\":\"be brief\"}",
         "[{\"content\":\"be brief\",\"role\":\"system\"},{\"content\":\"hi\",\"role\":\"user\"}]"},
        {ITEMS("{\"role\":\"developer\",\"content\":\"d\"},{\"type\":\"message\",\"role\":\"user\",\"content\":[{"
               "\"type\":\"input_text\",\"text\":\"a\"},{\"type\":\"input_text\",\"text\":\"b\"}]}"),
         "[{\"content\":\"d\",\"role\":\"system\"},{\"content\":\"a\\nb\",\"role\":\"user\"}]"},
        /* one turn of the assistant is one message */
        {ITEMS("{\"type\":\"reasoning\",\"id\":\"rs_x\",\"summary\":[{\"type\":\"summary_text\",\"text\":\"hm\"}],"
               "\"encrypted_content\":null},{\"type\":\"message\",\"id\":\"msg_x\",\"status\":\"completed\",\"role\":"
               "\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"I look\",\"annotations\":[]}]}," CALL(
                   "c1", "f") "," CALL("c2", "g") ",{\"type\":\"function_call_output\",\"call_id\":\"c1\",\"output\":"
                                                  "\"rain\"},{\"type\":"
                                                  "\"function_call_output\",\"call_id\":\"c2\",\"output\":[{\"type\":"
                                                  "\"input_text\",\"text\":\"s\"}]}"),
         "[{\"content\":\"I look\",\"reasoning_content\":\"hm\",\"role\":\"assistant\",\"tool_calls\":["
         "{\"function\":{\"arguments\":\"{}\",\"name\":\"f\"},\"id\":\"c1\",\"type\":\"function\"},"
         "{\"function\":{\"arguments\":\"{}\",\"name\":\"g\"},\"id\":\"c2\",\"type\":\"function\"}]},"
         "{\"content\":\"rain\",\"role\":\"tool\",\"tool_call_id\":\"c1\"},"
         "{\"content\":\"s\",\"role\":\"tool\",\"tool_call_id\":\"c2\"}]"},
        /* two turns are two */
        {ITEMS("{\"role\":\"assistant\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},{\"type\":"
               "\"reasoning\",\"summary\":[],\"content\":[{\"type\":\"reasoning_text\",\"text\":\"hm\"}]}," CALL("c",
                                                                                                                 "f")),
         "[{\"content\":\"a\",\"role\":\"assistant\"},{\"content\":\"b\",\"role\":\"assistant\"},"
         "{\"content\":\"\",\"reasoning_content\":\"hm\",\"role\":\"assistant\",\"tool_calls\":[{\"function\":{"
         "\"arguments\":\"{}\",\"name\":\"f\"},\"id\":\"c\",\"type\":\"function\"}]}]"},
        /* thoughts that say nothing leave nothing */
        {ITEMS("{\"type\":\"reasoning\",\"summary\":[]},{\"role\":\"user\",\"content\":\"x\"}"),
         "[{\"content\":\"x\",\"role\":\"user\"}]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        answer *a;
        buf b = {.max = 1 << 20};
        CHECK_OK(parse(&a, cases[i].body), e);
        CHECK_OK(json_canonical(&b, a->r.messages, &e), e);
        CHECK_STR(buf_str(&b), cases[i].want);
        buf_free(&b);
        answer_free(a);
    }
}

TEST(fields_arrive) {
    answer *a;
    CHECK_OK(
        parse(&a, "{" RESP ",\"stream\":true,\"temperature\":0.5,\"top_p\":0.9,\"seed\":7,\"user\":\"u\",\"metadata\":{"
                  "\"polder_label\":\"secret\",\"a\":\"b\"},\"max_output_tokens\":9,\"parallel_tool_calls\":false,"
                  "\"truncation\":\"disabled\",\"reasoning\":{\"effort\":\"low\",\"summary\":\"auto\"},"
                  "\"service_tier\":\"auto\",\"include\":[\"reasoning.encrypted_content\"],\"background\":false,"
                  "\"text\":{\"format\":{\"type\":\"json_object\"},\"verbosity\":\"medium\"},\"tools\":[" TOOL(
                      "f") ",{\"type\":\"function\",\"name\":\"g\",\"description\":\"d\",\"strict\":true,"
                           "\"parameters\":null}],\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"required\","
                           "\"tools\":[{\"type\":\"function\",\"name\":\"g\"}]},\"store\":false}"),
        e);
    const request *r = &a->r;
    CHECK(a->stream && r->parse && r->max_tokens == 9 && r->one_call && r->tool_must && r->tool_strict);
    CHECK(r->sampling.temperature == 0.5f && r->sampling.top_p == 0.9f && r->has_seed && r->sampling.seed == 7);
    CHECK(!r->keep_turn && !r->kept && r->grammar == GRAMMAR_JSON_SCHEMA);
    CHECK_STR(r->label, "secret");
    CHECK_STR(r->user, "u");
    CHECK_STR(r->reasoning_effort, "low");
    CHECK_INT(cJSON_GetArraySize(r->tools), 1);
    CHECK_STR(str_at(r->tools, "0.function.name"), "g");
    answer_free(a);
    CHECK_OK(parse(&a, "{" RESP "}"), e);
    CHECK(a->r.keep_turn && a->r.kept);
    CHECK(cJSON_IsFalse(json_at(a->r.kept, "instructions")));
    CHECK_STR(str_at(a->r.kept, "response.tool_choice"), "auto");
    answer_free(a);
}

TEST(parsing_survives_every_failed_allocation) {
    static const char body[] =
        "{\"model\":\"m\",\"instructions\":\"s\",\"input\":[{\"role\":\"user\",\"content\":\"x\"},{\"type\":"
        "\"reasoning\",\"summary\":[{\"type\":\"summary_text\",\"text\":\"hm\"}]}," CALL(
            "c1", "f") ",{\"type\":\"function_call_output\",\"call_id\":\"c1\",\"output\":\"rain\"}],"
                       "\"tools\":[" TOOL("f") "],\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":"
                                               "\"auto\",\"tools\":[{\"type\":\"function\",\"name\":"
                                               "\"f\"}]},\"text\":{\"format\":{\"type\":\"json_object\"}}}";
    int refused = 0;
    for (int64_t n = 0; n < 1000; n++) {
        answer *a;
        mem_fail_after(n);
        err_code rc = parse(&a, body);
        mem_fail_after(-1);
        refused += rc != ERR_OK;
        if (rc == ERR_OK) CHECK(a && cJSON_GetArraySize(a->r.messages) == 4);
        answer_free(a);
        if (rc == ERR_OK) break;
        CHECK_INT(rc, ERR_NOMEM);
    }
    CHECK(refused > 5);
}

/* ---- answers ----------------------------------------------------------------------------------------------- */

#define ASK(model, more) "{\"model\":\"" model "\",\"input\":\"hi\"" more "}"

static cJSON *call(const char *key, const char *method, const char *path, const char *body, int status) {
    reply r;
    client_request(w.port, key, method, path, body, &r);
    if (r.status != status) {
        fprintf(stderr, "%s %s: %d, not %d: %s\n", method, path, r.status, status, buf_str(&r.body));
        test_bad = true;
    }
    cJSON *v = r.status == status && r.whole ? cJSON_Parse(buf_str(&r.body)) : NULL;
    reply_free(&r);
    return v;
}
static cJSON *post(const char *body, int status) {
    return call(w.key[ROLE_USER], "POST", "/v1/responses", body, status);
}
static cJSON *get(const char *key, const char *id, const char *more, int status) {
    char path[200];
    snprintf(path, sizeof path, "/v1/responses/%s%s", id, more);
    return call(key, "GET", path, NULL, status);
}

TEST(an_answer) {
    cJSON *v = post(ASK("ok", ",\"instructions\":\"be brief\",\"metadata\":{\"a\":\"b\"},\"store\":false"), 200);
    CHECK_STR(str_at(v, "object"), "response");
    CHECK_STR(str_at(v, "status"), "completed");
    CHECK(strncmp(str_at(v, "id"), "resp_", 5) == 0);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "output")), 1);
    CHECK_STR(str_at(v, "output.0.type"), "message");
    CHECK_STR(str_at(v, "output.0.status"), "completed");
    CHECK_STR(str_at(v, "output.0.content.0.type"), "output_text");
    CHECK_STR(str_at(v, "output.0.content.0.text"), "Hello w\xc3\xb6rld");
    CHECK_STR(str_at(v, "instructions"), "be brief");
    CHECK_STR(str_at(v, "metadata.a"), "b");
    CHECK_STR(str_at(v, "text.format.type"), "text");
    CHECK_INT(num_at(v, "usage.input_tokens"), 3);
    CHECK_INT(num_at(v, "usage.output_tokens"), 2);
    CHECK_INT(num_at(v, "usage.total_tokens"), 5);
    CHECK(cJSON_IsNull(json_at(v, "error")) && cJSON_IsNull(json_at(v, "incomplete_details")));
    CHECK(cJSON_IsFalse(json_at(v, "store")));
    /* it was not to be stored */
    cJSON_Delete(get(w.key[ROLE_USER], str_at(v, "id"), "", 404));
    cJSON_Delete(v);
}

TEST(an_answer_with_calls) {
    cJSON *v = post(ASK("calls", ",\"reasoning\":{\"summary\":\"auto\"}"), 200);
    CHECK_STR(str_at(v, "output.0.type"), "reasoning");
    CHECK_STR(str_at(v, "output.0.summary.0.text"), "Hm. Yes.");
    CHECK_STR(str_at(v, "output.1.type"), "function_call");
    CHECK_STR(str_at(v, "output.1.name"), "f");
    CHECK_STR(str_at(v, "output.1.arguments"), "{\"a\": \"\xc3\xb6\"}");
    CHECK(strcmp(str_at(v, "output.1.call_id"), str_at(v, "output.2.call_id")) != 0);
    CHECK_INT(num_at(v, "usage.output_tokens_details.reasoning_tokens"), 7);
    cJSON_Delete(v);
    v = post(ASK("calls", ""), 200);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "output.0.summary")), 0);
    CHECK_STR(str_at(v, "output.0.content.0.text"), "Hm. Yes.");
    CHECK_STR(str_at(v, "output.0.content.0.type"), "reasoning_text");
    cJSON_Delete(v);
    v = post(ASK("half a call", ""), 200);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "output")), 0);
    CHECK_STR(str_at(v, "status"), "incomplete");
    CHECK_STR(str_at(v, "incomplete_details.reason"), "max_output_tokens");
    cJSON_Delete(v);
    v = post(ASK("broken calls", ""), 200);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "output")), 1);
    CHECK_STR(str_at(v, "output.0.content.0.text"), "<call>{\"a\":");
    cJSON_Delete(v);
}

TEST(a_filtered_answer_is_incomplete) {
    cJSON *v = post(ASK("filtered", ""), 200);
    CHECK_STR(str_at(v, "status"), "incomplete");
    CHECK_STR(str_at(v, "incomplete_details.reason"), "content_filter");
    cJSON *again = get(w.key[ROLE_USER], str_at(v, "id"), "", 200);
    CHECK_STR(str_at(again, "incomplete_details.reason"), "content_filter");
    cJSON_Delete(again);
    cJSON_Delete(v);
}

static cJSON *streamed(const char *body) {
    return events_ask(w.port, w.key[ROLE_USER], "/v1/responses", body);
}

TEST(a_streamed_answer) {
    buf types = {.max = 8192};
    cJSON *list = streamed(ASK("ok", ",\"stream\":true"));
    CHECK(list);
    events_types(list, &types);
    CHECK_STR(buf_str(&types), "response.created response.in_progress response.output_item.added "
                               "response.content_part.added response.output_text.delta response.output_text.delta "
                               "response.output_text.done response.content_part.done response.output_item.done "
                               "response.completed ");
    int n = 0;
    const cJSON *v;
    cJSON_ArrayForEach(v, list) CHECK_INT(num_at(v, "sequence_number"), n++);
    const cJSON *begun = events_find(list, "response.created", 0), *end = events_find(list, "response.completed", 0);
    CHECK_STR(str_at(begun, "response.status"), "in_progress");
    CHECK_INT(cJSON_GetArraySize(json_at(begun, "response.output")), 0);
    CHECK(cJSON_IsNull(json_at(begun, "response.usage")));
    CHECK_STR(str_at(begun, "response.id"), str_at(end, "response.id"));
    const cJSON *added = events_find(list, "response.output_item.added", 0),
                *done = events_find(list, "response.output_item.done", 0);
    CHECK_STR(str_at(added, "item.status"), "in_progress");
    CHECK_INT(cJSON_GetArraySize(json_at(added, "item.content")), 0);
    CHECK_STR(str_at(done, "item.content.0.text"), "Hello w\xc3\xb6rld");
    CHECK_STR(str_at(done, "item.id"), str_at(end, "response.output.0.id"));
    CHECK_STR(str_at(events_find(list, "response.output_text.delta", 1), "item_id"), str_at(added, "item.id"));
    CHECK_STR(str_at(events_find(list, "response.output_text.delta", 1), "delta"), " w\xc3\xb6rld");
    CHECK_STR(str_at(events_find(list, "response.output_text.done", 0), "text"), "Hello w\xc3\xb6rld");
    CHECK_INT(num_at(end, "response.usage.total_tokens"), 5);
    cJSON_Delete(list);
    buf_free(&types);
}

TEST(a_streamed_answer_with_calls) {
    buf types = {.max = 8192};
    cJSON *list = streamed(ASK("calls", ",\"stream\":true"));
    CHECK(list);
    events_types(list, &types);
    CHECK_STR(buf_str(&types), "response.created response.in_progress "
                               "response.output_item.added response.content_part.added response.reasoning_text.delta "
                               "response.reasoning_text.delta response.reasoning_text.done response.content_part.done "
                               "response.output_item.done "
                               "response.output_item.added response.function_call_arguments.delta "
                               "response.function_call_arguments.done response.output_item.done "
                               "response.output_item.added response.function_call_arguments.delta "
                               "response.function_call_arguments.done response.output_item.done response.completed ");
    const cJSON *done = events_find(list, "response.function_call_arguments.done", 0);
    CHECK_STR(str_at(done, "arguments"), "{\"a\": \"\xc3\xb6\"}");
    CHECK_INT(num_at(done, "output_index"), 1);
    CHECK_STR(str_at(events_find(list, "response.output_item.added", 1), "item.arguments"), "");
    CHECK_STR(str_at(events_find(list, "response.output_item.done", 2), "item.name"), "g");
    cJSON_Delete(list);
    list = streamed(ASK("mixed", ",\"stream\":true,\"reasoning\":{\"summary\":\"detailed\"}"));
    events_types(list, &types);
    CHECK_HAS(buf_str(&types), "response.reasoning_summary_part.added response.reasoning_summary_text.delta "
                               "response.reasoning_summary_text.done response.reasoning_summary_part.done "
                               "response.output_item.done ");
    const cJSON *end = events_find(list, "response.incomplete", 0);
    CHECK_STR(str_at(end, "response.incomplete_details.reason"), "max_output_tokens");
    CHECK_STR(str_at(end, "response.output.3.status"), "incomplete");
    CHECK_STR(str_at(end, "response.output.1.status"), "completed");
    CHECK_STR(str_at(events_find(list, "response.output_item.done", 3), "item.status"), "incomplete");
    cJSON_Delete(list);
    buf_free(&types);
}

/* A call that is held back for long does not leave the line silent. */
TEST(comments_come_while_a_call_is_written) {
    reply r;
    client_request(w.port, w.key[ROLE_USER], "POST", "/v1/responses", ASK("long call", ",\"stream\":true"), &r);
    int comments = 0;
    for (const char *p = buf_str(&r.body); (p = strstr(p, "\n\n:\n\n")); p += 3) comments++;
    CHECK_INT(comments, 2);
    cJSON *list = events_read(buf_str(&r.body));
    CHECK_INT(strlen(str_at(events_find(list, "response.completed", 0), "response.output.0.arguments")), 10008);
    cJSON_Delete(list);
    reply_free(&r);
}

TEST(a_failure_in_a_stream_ends_it) {
    cJSON *list = streamed(ASK("breaks", ",\"stream\":true"));
    CHECK(list);
    const cJSON *error = events_find(list, "error", 0), *end = events_find(list, "response.failed", 0);
    CHECK(error && end && !end->next && error->next == end);
    CHECK_STR(str_at(end, "response.status"), "failed");
    CHECK_STR(str_at(end, "response.error.code"), "server_error");
    CHECK(!strstr(str_at(end, "response.error.message"), "/srv"));
    cJSON_Delete(get(w.key[ROLE_USER], str_at(end, "response.id"), "", 404));
    cJSON_Delete(list);
    cJSON *v = post(ASK("absent", ""), 404);
    CHECK_STR(str_at(v, "error.code"), "model_not_found");
    cJSON_Delete(v);
}

/* ---- what is stored ------------------------------------------------------------------------------------------ */

TEST(a_stored_answer_is_read_again) {
    cJSON *v = post(ASK("mixed", ",\"instructions\":\"be brief\",\"metadata\":{\"a\":\"b\"},\"temperature\":0.5,"
                                 "\"tools\":[" TOOL("f") "],\"reasoning\":{\"summary\":\"auto\"}"),
                    200);
    cJSON *again = get(w.key[ROLE_USER], str_at(v, "id"), "", 200);
    static const char *const same[] = {"id",
                                       "status",
                                       "model",
                                       "instructions",
                                       "metadata.a",
                                       "tools.0.name",
                                       "output.0.id",
                                       "output.0.summary.0.text",
                                       "output.2.call_id"};
    for (size_t i = 0; i < 8; i++) CHECK_STR(str_at(again, same[i]), str_at(v, same[i]));
    CHECK(num_at(again, "created_at") == num_at(v, "created_at"));
    CHECK(num_at(again, "usage.output_tokens") == 20 && num_at(again, "temperature") == 0.5);
    /* text after a call stands before it in what was kept: the words are the same */
    CHECK_STR(str_at(again, "output.1.content.0.text"), "Let me look.And th");
    CHECK_STR(str_at(again, "output.2.call_id"), str_at(v, "output.2.call_id"));
    cJSON_Delete(again);
    cJSON_Delete(v);
}

TEST(only_its_owner_reads_an_answer) {
    cJSON *v = post(ASK("ok", ""), 200);
    const char *id = str_at(v, "id");
    char body[300];
    cJSON_Delete(get(w.key[ROLE_ADMIN], id, "", 404));
    cJSON_Delete(get(w.key[ROLE_ADMIN], id, "/input_items", 404));
    snprintf(body, sizeof body, ASK("ok", ",\"previous_response_id\":\"%s\""), id);
    cJSON *no = call(w.key[ROLE_ADMIN], "POST", "/v1/responses", body, 404);
    CHECK_STR(str_at(no, "error.param"), "previous_response_id");
    cJSON_Delete(no);
    char path[200];
    snprintf(path, sizeof path, "/v1/responses/%s", id);
    cJSON_Delete(call(w.key[ROLE_ADMIN], "DELETE", path, NULL, 404));
    cJSON_Delete(call(w.key[ROLE_AUDITOR], "GET", path, NULL, 403));
    cJSON_Delete(call(NULL, "GET", path, NULL, 401));
    reply r; /* what is read again is as sensitive as its record says */
    client_request(w.port, w.key[ROLE_USER], "GET", path, NULL, &r);
    CHECK_INT(r.status, 200);
    CHECK_STR(reply_field(&r, "x-polder-label"), "internal, personal");
    reply_free(&r);
    cJSON_Delete(v);
}

static err_code project_key(const char *name, char key[KEY_TEXT_MAX]) {
    identity id;
    grant g = {.project = "lending"};
    return key_add_with(w.isl, NULL, name, ROLE_USER, &g, key, &id, &e);
}

/* Breaks where a new project reads what one of the same name, removed before it, asked and was told. */
TEST(a_project_shares_its_answers_and_leaves_none) {
    char first[KEY_TEXT_MAX], second[KEY_TEXT_MAX], later[KEY_TEXT_MAX], path[200];
    CHECK_OK(project_add(w.isl, NULL, "lending", &(grant){0}, &e), e);
    CHECK_OK(project_key("first", first), e);
    CHECK_OK(project_key("second", second), e);
    cJSON *v = call(first, "POST", "/v1/responses", ASK("ok", ""), 200);
    const char *id = str_at(v, "id");
    cJSON_Delete(get(second, id, "", 200));
    CHECK_OK(key_revoke(w.isl, NULL, "first", &e), e);
    CHECK_OK(key_revoke(w.isl, NULL, "second", &e), e);
    CHECK_OK(project_remove(w.isl, NULL, "lending", &e), e);
    CHECK_OK(project_add(w.isl, NULL, "lending", &(grant){0}, &e), e);
    CHECK_OK(project_key("later", later), e);
    cJSON_Delete(get(later, id, "", 404));
    cJSON_Delete(get(later, id, "/input_items", 404));
    snprintf(path, sizeof path, "/v1/responses/%s", id);
    cJSON_Delete(call(later, "DELETE", path, NULL, 404));
    cJSON_Delete(v);
    v = call(later, "POST", "/v1/responses", ASK("ok", ""), 200);
    cJSON_Delete(get(later, str_at(v, "id"), "", 200));
    cJSON_Delete(v);
}

TEST(a_deleted_answer_is_forgotten) {
    cJSON *v = post(ASK("ok", ""), 200);
    const char *id = str_at(v, "id");
    char path[200], body[300];
    snprintf(path, sizeof path, "/v1/responses/%s", id);
    cJSON *gone = call(w.key[ROLE_USER], "DELETE", path, NULL, 200);
    CHECK_STR(str_at(gone, "id"), id);
    CHECK(cJSON_IsTrue(json_at(gone, "deleted")));
    cJSON_Delete(gone);
    cJSON_Delete(call(w.key[ROLE_USER], "DELETE", path, NULL, 404));
    cJSON_Delete(get(w.key[ROLE_USER], id, "", 404));
    snprintf(body, sizeof body, ASK("ok", ",\"previous_response_id\":\"%s\""), id);
    cJSON_Delete(post(body, 404));
    cJSON_Delete(v);
}

TEST(a_conversation_goes_on) {
    char body[900];
    cJSON *one = post(ASK("calls", ",\"instructions\":\"old\""), 200);
    snprintf(body, sizeof body,
             "{\"model\":\"show\",\"instructions\":\"new\",\"previous_response_id\":\"%s\",\"input\":[{\"type\":"
             "\"function_call_output\",\"call_id\":\"%s\",\"output\":\"rain\"}]}",
             str_at(one, "id"), str_at(one, "output.1.call_id"));
    cJSON *two = post(body, 200);
    const char *text = str_at(two, "output.0.content.0.text");
    CHECK_HAS(text, "[{\"content\":\"new\",\"role\":\"system\"},{\"content\":\"hi\",\"role\":\"user\"},");
    CHECK(!strstr(text, "old"));
    CHECK_HAS(text, "\"reasoning_content\":\"Hm. Yes.\"");
    CHECK_HAS(text, "\"content\":\"rain\",\"role\":\"tool\"");
    CHECK_HAS(text, str_at(one, "output.1.call_id"));
    CHECK_HAS(text, str_at(one, "output.2.call_id"));
    CHECK_HAS(text, " in 1/1"); /* as sensitive as what it goes on from: internal, personal */
    CHECK_STR(str_at(two, "previous_response_id"), str_at(one, "id"));
    /* and on: the third has both */
    snprintf(body, sizeof body, "{\"model\":\"show\",\"previous_response_id\":\"%s\",\"input\":\"more\"}",
             str_at(two, "id"));
    cJSON *three = post(body, 200);
    text = str_at(three, "output.0.content.0.text");
    CHECK(strncmp(text, "[{\"content\":\"hi\"", 16) == 0);
    CHECK(!strstr(text, "\"new\""));
    CHECK_HAS(text, "rain");
    CHECK_HAS(text, "{\"content\":\"more\",\"role\":\"user\"}]");
    /* each request's own input */
    cJSON *list = get(w.key[ROLE_USER], str_at(two, "id"), "/input_items", 200);
    CHECK_INT(cJSON_GetArraySize(json_at(list, "data")), 1);
    CHECK_STR(str_at(list, "data.0.type"), "function_call_output");
    CHECK_STR(str_at(list, "data.0.output"), "rain");
    cJSON_Delete(list);
    list = get(w.key[ROLE_USER], str_at(three, "id"), "/input_items", 200);
    CHECK_INT(cJSON_GetArraySize(json_at(list, "data")), 1);
    CHECK_STR(str_at(list, "data.0.content.0.text"), "more");
    cJSON_Delete(list);
    cJSON_Delete(three);
    cJSON_Delete(two);
    cJSON_Delete(one);
}

/* A level that the island no longer has, a flag that this polder does not know: the highest there is. */
TEST(what_cannot_be_read_of_a_label_counts_as_the_highest) {
    char body[300];
    cJSON *one = post(ASK("ultra", ""), 200);
    snprintf(body, sizeof body, ASK("show", ",\"previous_response_id\":\"%s\""), str_at(one, "id"));
    cJSON *two = post(body, 200);
    CHECK_HAS(str_at(two, "output.0.content.0.text"), " in 3/7");
    cJSON_Delete(two);
    cJSON_Delete(one);
}

TEST(references_bring_items_back) {
    char body[900];
    cJSON *one = post(ASK("calls", ""), 200);
    snprintf(body, sizeof body,
             "{\"model\":\"show\",\"input\":[{\"role\":\"user\",\"content\":\"q\"},{\"type\":\"item_reference\",\"id\":"
             "\"%s\"},{\"id\":\"%s\"},{\"type\":\"function_call_output\",\"call_id\":\"%s\",\"output\":\"sun\"}]}",
             str_at(one, "output.0.id"), str_at(one, "output.2.id"), str_at(one, "output.2.call_id"));
    cJSON *two = post(body, 200);
    const char *text = str_at(two, "output.0.content.0.text");
    char want[700];
    snprintf(want, sizeof want,
             "[{\"content\":\"q\",\"role\":\"user\"},{\"content\":\"\",\"reasoning_content\":\"Hm. Yes.\",\"role\":"
             "\"assistant\",\"tool_calls\":[{\"function\":{\"arguments\":\"{}\",\"name\":\"g\"},\"id\":\"%s\",\"type\":"
             "\"function\"}]},{\"content\":\"sun\",\"role\":\"tool\",\"tool_call_id\":\"%s\"}] in 1/1",
             str_at(one, "output.2.call_id"), str_at(one, "output.2.call_id"));
    CHECK_STR(text, want);
    cJSON_Delete(two);
    /* two texts of one turn were kept as one: it comes once */
    cJSON *mixed = post(ASK("mixed", ""), 200);
    snprintf(body, sizeof body,
             "{\"model\":\"show\",\"input\":[{\"id\":\"%s\"},{\"id\":\"%s\"},{\"id\":\"%s\"},{\"role\":\"user\","
             "\"content\":\"q\"}]}",
             str_at(mixed, "output.1.id"), str_at(mixed, "output.2.id"), str_at(mixed, "output.3.id"));
    two = post(body, 200);
    snprintf(want, sizeof want,
             "[{\"content\":\"Let me look.And th\",\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"arguments\":"
             "\"\",\"name\":\"f\"},\"id\":\"%s\",\"type\":\"function\"}]},{\"content\":\"q\",\"role\":\"user\"}]",
             str_at(mixed, "output.2.call_id"));
    CHECK_HAS(str_at(two, "output.0.content.0.text"), want);
    cJSON_Delete(two);
    cJSON_Delete(mixed);
    static const char *const none[] = {"fc_1_00000000_0",
                                       "msg_",
                                       "rs__",
                                       "x",
                                       "fc_1_00000000_",
                                       "fc_99_1_a",
                                       "msg_1_2_3_4_5_6_7_8_9_1_2_3_4_5_6_7_8_9_1_2_3_4_5"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        snprintf(body, sizeof body, "{\"model\":\"show\",\"input\":[{\"type\":\"item_reference\",\"id\":\"%s\"}]}",
                 none[i]);
        cJSON *v = post(body, 404);
        CHECK_STR(str_at(v, "error.param"), "input");
        cJSON_Delete(v);
    }
    /* a call that is not there, of an answer that is */
    char id[64];
    snprintf(id, sizeof id, "%s", str_at(one, "output.2.id"));
    id[strlen(id) - 1] = '9';
    snprintf(body, sizeof body, "{\"model\":\"show\",\"input\":[{\"type\":\"item_reference\",\"id\":\"%s\"}]}", id);
    cJSON_Delete(post(body, 404));
    cJSON_Delete(call(w.key[ROLE_ADMIN], "POST", "/v1/responses", body, 404));
    cJSON_Delete(one);
}

/* Each allocation fails once while an earlier answer is read: an error, never a shorter conversation. */
TEST(reading_back_survives_every_failed_allocation) {
    cJSON *one = post(ASK("calls", ""), 200);
    char body[700];
    snprintf(body, sizeof body,
             "{\"model\":\"show\",\"previous_response_id\":\"%s\",\"input\":[{\"role\":\"user\",\"content\":\"x\"},{"
             "\"type\":\"item_reference\",\"id\":\"%s\"},{\"type\":\"item_reference\",\"id\":\"%s\"}]}",
             str_at(one, "id"), str_at(one, "output.0.id"), str_at(one, "output.1.id"));
    int refused = 0;
    for (int64_t n = 0; n < 3000; n++) {
        answer *a;
        CHECK_OK(parse(&a, body), e);
        a->isl = w.isl;
        CHECK_OK(key_check(w.isl, w.key[ROLE_USER], strlen(w.key[ROLE_USER]), &a->r.who, &e), e);
        mem_fail_after(n);
        err_code rc = responses_prepare(a, &e);
        mem_fail_after(-1);
        refused += rc != ERR_OK;
        if (rc == ERR_OK) {
            CHECK_INT(cJSON_GetArraySize(a->r.messages), 4);
            CHECK(a->r.has_context && a->r.context.level == 1);
        }
        answer_free(a);
        if (rc == ERR_OK) break;
    }
    CHECK(refused > 10 && refused < 3000);
    cJSON_Delete(one);
}

TEST(odd_paths_are_404_or_405) {
    static const struct {
        const char *method, *path;
        int status;
    } cases[] = {{"GET", "/v1/responses/x", 404},
                 {"GET", "/v1/responses/resp_1_00000000", 404},
                 {"GET", "/v1/responses/resp_1_00000000/input_items", 404},
                 {"GET", "/v1/responses/resp_1_00000000/cancel", 404},
                 {"GET", "/v1/responses/resp_11111111111111111111111111111111111111111111111111", 404},
                 {"DELETE", "/v1/responses/x", 404},
                 {"DELETE", "/v1/responses/x/input_items", 404},
                 {"POST", "/v1/responses/x", 405},
                 {"DELETE", "/v1/responses", 405},
                 {"GET", "/v1/responses", 405},
                 {"OPTIONS", "/v1/responses/x", 204},
                 {"GET", "/v1/responses/x?stream=true", 400}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        reply r;
        client_request(w.port, w.key[ROLE_USER], cases[i].method, cases[i].path, NULL, &r);
        if (r.status != cases[i].status) FAIL("%s %s: %d", cases[i].method, cases[i].path, r.status);
        if (r.status == 204) CHECK_STR(reply_field(&r, "allow"), "GET, HEAD, DELETE, OPTIONS");
        reply_free(&r);
    }
}

/* An answer that cannot be stored is not given as if it were. */
TEST(an_answer_that_cannot_be_stored_fails) {
    CHECK_OK(store_write(island_store(w.isl), "ALTER TABLE response RENAME TO elsewhere", NULL, 0, NULL, &e), e);
    cJSON_Delete(post(ASK("ok", ""), 500));
    cJSON_Delete(post(ASK("ok", ",\"store\":false"), 200));
    cJSON *list = streamed(ASK("ok", ",\"stream\":true"));
    CHECK(events_find(list, "response.failed", 0) && !events_find(list, "response.completed", 0));
    cJSON_Delete(list);
    CHECK_OK(store_write(island_store(w.isl), "ALTER TABLE elsewhere RENAME TO response", NULL, 0, NULL, &e), e);
    cJSON_Delete(post(ASK("ok", ""), 200));
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    log_set_level(LOG_ERROR);
    if (world_open(&w, NULL, &e) != ERR_OK || world_start(&w, &e) != ERR_OK) {
        fprintf(stderr, "no server: %s\n", e.msg);
        return 1;
    }
    RUN(bad_fields_are_named);
    RUN(items_become_messages);
    RUN(fields_arrive);
    RUN(parsing_survives_every_failed_allocation);
    RUN(an_answer);
    RUN(an_answer_with_calls);
    RUN(a_filtered_answer_is_incomplete);
    RUN(a_streamed_answer);
    RUN(a_streamed_answer_with_calls);
    RUN(comments_come_while_a_call_is_written);
    RUN(a_failure_in_a_stream_ends_it);
    RUN(a_stored_answer_is_read_again);
    RUN(only_its_owner_reads_an_answer);
    RUN(a_project_shares_its_answers_and_leaves_none);
    RUN(a_deleted_answer_is_forgotten);
    RUN(a_conversation_goes_on);
    RUN(what_cannot_be_read_of_a_label_counts_as_the_highest);
    RUN(references_bring_items_back);
    RUN(reading_back_survives_every_failed_allocation);
    RUN(odd_paths_are_404_or_405);
    RUN(an_answer_that_cannot_be_stored_fails);
    world_end(&w);
    return test_end();
}
