/* Bodies of the OpenAI dialects: what each field is read into, and that each bad field is refused by its name. Breaks
 * when a field is dropped without a word, taken out of range, or reported under another name. */
#include "base/json.h"
#include "base/mem.h"
#include "harness.h"
#include "server/dialect.h"
#include "server/internal.h"

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

#define CHAT "\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define COMP "\"model\":\"m\",\"prompt\":\"hi\""

#define TOOL(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"}}"

typedef struct bad_case {
    const char *body;
    err_code code;
    const char *param;
    const char *says; /* part of the sentence */
} bad_case;

static const bad_case bad_chat[] = {
    {"{}", ERR_INVALID, "model", "missing"},
    {"{\"model\":\"m\"}", ERR_INVALID, "messages", "missing"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", ERR_INVALID, "model", "missing"},
    {"{\"model\":1,\"messages\":[]}", ERR_INVALID, "model", "string"},
    {"{\"model\":\"\"," CHAT "}", ERR_INVALID, "", ""}, /* a key given twice */
    {"{\"model\":\"\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", ERR_INVALID, "model", "name"},
    {"{\"model\":\"m\",\"messages\":[]}", ERR_INVALID, "messages", "at least one"},
    {"{\"model\":\"m\",\"messages\":{}}", ERR_INVALID, "messages", "array"},
    {"{\"model\":\"m\",\"messages\":[1]}", ERR_INVALID, "messages", "messages[0] must be an object"},
    {"{\"model\":\"m\",\"messages\":[{\"content\":\"x\"}]}", ERR_INVALID, "messages", "messages[0].role"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}", ERR_INVALID, "messages", "role"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\"}]}", ERR_INVALID, "messages", "content"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":5}]}", ERR_INVALID, "messages", "content"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[5]}]}", ERR_INVALID, "messages", "part"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", ERR_INVALID, "messages",
     "text"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}",
     ERR_UNSUPPORTED, "messages", "image_url"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"cache\":1}]}", ERR_INVALID, "messages",
     "cache"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"name\":1}]}", ERR_INVALID, "messages",
     "name"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"a\"}]}]}",
     ERR_INVALID, "messages", "tool_calls[0] must have an id and a function with a name"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":{}}]}", ERR_INVALID, "messages", "array"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"custom\"}]}]}",
     ERR_UNSUPPORTED, "messages", "tool_calls[0]"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":"
     "\"f\",\"arguments\":{}}}]}]}",
     ERR_INVALID, "messages", "string of JSON"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[]}]}", ERR_INVALID,
     "messages", "assistant"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", ERR_INVALID, "messages",
     "tool_call_id is missing"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"reasoning_content\":5}]}", ERR_INVALID, "messages",
     "reasoning_content"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"function_call\":{\"name\":\"f\"}}]}", ERR_UNSUPPORTED,
     "messages", "function_call"},
    {"{" CHAT ",\"colour\":\"red\"}", ERR_INVALID, "colour", "colour"},
    {"{" CHAT ",\"stream\":\"yes\"}", ERR_INVALID, "stream", "true or false"},
    {"{" CHAT ",\"stream_options\":{\"include_usage\":true}}", ERR_INVALID, "stream_options", "stream"},
    {"{" CHAT ",\"stream\":true,\"stream_options\":5}", ERR_INVALID, "stream_options", "object"},
    {"{" CHAT ",\"stream\":true,\"stream_options\":{\"usage\":true}}", ERR_INVALID, "stream_options", "usage"},
    {"{" CHAT ",\"stream\":true,\"stream_options\":{\"include_usage\":1}}", ERR_INVALID, "stream_options",
     "include_usage"},
    {"{" CHAT ",\"n\":0}", ERR_INVALID, "n", "between 1 and 16"},
    {"{" CHAT ",\"n\":17}", ERR_INVALID, "n", "between 1 and 16"},
    {"{" CHAT ",\"n\":1.5}", ERR_INVALID, "n", "whole"},
    {"{" CHAT ",\"stop\":5}", ERR_INVALID, "stop", "string"},
    {"{" CHAT ",\"stop\":\"\"}", ERR_INVALID, "stop", "1 to 256"},
    {"{" CHAT ",\"stop\":[\"a\",null]}", ERR_INVALID, "stop", "string"},
    {"{" CHAT ",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\",\"13\",\"14\","
     "\"15\",\"16\",\"17\"]}",
     ERR_INVALID, "stop", "16"},
    {"{" CHAT ",\"seed\":\"x\"}", ERR_INVALID, "seed", "whole"},
    {"{" CHAT ",\"seed\":1e300}", ERR_INVALID, "seed", "between"},
    {"{" CHAT ",\"seed\":9007199254740993}", ERR_INVALID, "seed", "between"},
    {"{" CHAT ",\"temperature\":-0.1}", ERR_INVALID, "temperature", "between 0 and 2"},
    {"{" CHAT ",\"temperature\":2.1}", ERR_INVALID, "temperature", "between 0 and 2"},
    {"{" CHAT ",\"temperature\":\"hot\"}", ERR_INVALID, "temperature", "number"},
    {"{" CHAT ",\"top_p\":1.01}", ERR_INVALID, "top_p", "between"},
    {"{" CHAT ",\"top_k\":-2}", ERR_INVALID, "top_k", "between"},
    {"{" CHAT ",\"min_p\":1}", ERR_INVALID, "min_p", "below 1"},
    {"{" CHAT ",\"repeat_penalty\":0}", ERR_INVALID, "repeat_penalty", "above 0"},
    {"{" CHAT ",\"repetition_penalty\":3}", ERR_INVALID, "repetition_penalty", "between"},
    {"{" CHAT ",\"repetition_penalty\":1.1,\"repeat_penalty\":1.2}", ERR_INVALID, "repetition_penalty", "same field"},
    {"{" CHAT ",\"frequency_penalty\":2.5}", ERR_INVALID, "frequency_penalty", "between"},
    {"{" CHAT ",\"presence_penalty\":-2.5}", ERR_INVALID, "presence_penalty", "between"},
    {"{" CHAT ",\"logit_bias\":[]}", ERR_INVALID, "logit_bias", "object"},
    {"{" CHAT ",\"logit_bias\":{\"x\":1}}", ERR_INVALID, "logit_bias", "no token id"},
    {"{" CHAT ",\"logit_bias\":{\"-1\":1}}", ERR_INVALID, "logit_bias", "no token id"},
    {"{" CHAT ",\"logit_bias\":{\"5\":101}}", ERR_INVALID, "logit_bias", "-100 to 100"},
    {"{" CHAT ",\"logit_bias\":{\"5\":null}}", ERR_INVALID, "logit_bias", "-100 to 100"},
    {"{" CHAT ",\"max_tokens\":0}", ERR_INVALID, "max_tokens", "at least 1"},
    {"{" CHAT ",\"max_tokens\":-1}", ERR_INVALID, "max_tokens", "between"},
    {"{" CHAT ",\"max_completion_tokens\":0}", ERR_INVALID, "max_completion_tokens", "between"},
    {"{" CHAT ",\"max_tokens\":5,\"max_completion_tokens\":6}", ERR_INVALID, "max_completion_tokens", "differ"},
    {"{" CHAT ",\"logprobs\":1}", ERR_INVALID, "logprobs", "true or false"},
    {"{" CHAT ",\"top_logprobs\":2}", ERR_INVALID, "top_logprobs", "logprobs"},
    {"{" CHAT ",\"logprobs\":true,\"top_logprobs\":21}", ERR_INVALID, "top_logprobs", "between"},
    {"{" CHAT ",\"user\":5}", ERR_INVALID, "user", "string"},
    {"{" CHAT ",\"metadata\":5}", ERR_INVALID, "metadata", "object"},
    {"{" CHAT ",\"metadata\":{\"polder_label\":[]}}", ERR_INVALID, "metadata", "polder_label"},
    {"{" CHAT ",\"store\":true}", ERR_UNSUPPORTED, "store", "store"},
    {"{" CHAT ",\"response_format\":{\"type\":\"yaml\"}}", ERR_UNSUPPORTED, "response_format", "yaml"},
    {"{" CHAT ",\"response_format\":{\"type\":\"json_schema\"}}", ERR_INVALID, "response_format", "json_schema"},
    {"{" CHAT ",\"guided_choice\":[\"a\",1]}", ERR_INVALID, "guided_choice", "strings"},
    {"{" CHAT ",\"guided_regex\":\"a\",\"grammar\":\"root ::= \\\"a\\\"\"}", ERR_INVALID, "grammar", "twice"},
    {"{" CHAT ",\"structured_outputs\":{\"lark\":\"x\"}}", ERR_UNSUPPORTED, "structured_outputs", "lark"},
    {"{" CHAT ",\"response_format\":\"text\"}", ERR_INVALID, "response_format", "object"},
    {"{" CHAT ",\"tools\":{}}", ERR_INVALID, "tools", "array"},
    {"{" CHAT ",\"tools\":[5]}", ERR_INVALID, "tools", "tools[0]"},
    {"{" CHAT ",\"tools\":[{\"type\":\"web_search\"}]}", ERR_UNSUPPORTED, "tools", "web_search"},
    {"{" CHAT ",\"tools\":[{\"type\":\"function\"}]}", ERR_INVALID, "tools", "tools[0].function"},
    {"{" CHAT ",\"tools\":[" TOOL("a b") "]}", ERR_INVALID, "tools", "tools[0].function.name"},
    {"{" CHAT ",\"tools\":[" TOOL("f") "," TOOL("f") "]}", ERR_INVALID, "tools", "two with the name 'f'"},
    {"{" CHAT ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":[]}}]}", ERR_INVALID,
     "tools", "schema"},
    {"{" CHAT ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":1}}]}", ERR_INVALID, "tools",
     "strict"},
    {"{" CHAT ",\"functions\":[{\"name\":\"f\"}]}", ERR_UNSUPPORTED, "functions", "'tools'"},
    {"{" CHAT ",\"function_call\":\"auto\"}", ERR_UNSUPPORTED, "function_call", "'tool_choice'"},
    {"{" CHAT ",\"tool_choice\":\"required\"}", ERR_INVALID, "tool_choice", "'tools' has none"},
    {"{" CHAT ",\"tool_choice\":\"maybe\"}", ERR_INVALID, "tool_choice", "maybe"},
    {"{" CHAT ",\"tool_choice\":5}", ERR_INVALID, "tool_choice", "tool_choice"},
    {"{" CHAT ",\"tool_choice\":{\"type\":\"function\"}}", ERR_INVALID, "tool_choice", "name is needed"},
    {"{" CHAT ",\"tools\":[" TOOL("f") "],\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}}",
     ERR_INVALID, "tool_choice", "no tool 'g'"},
    {"{" CHAT ",\"tools\":[" TOOL("f") "],\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":"
                                       "\"auto\",\"tools\":[" TOOL("g") "]}}}",
     ERR_INVALID, "tool_choice", "no tool 'g'"},
    {"{" CHAT ",\"tool_choice\":{\"type\":\"allowed_tools\",\"tools\":[" TOOL("g") "]}}", ERR_INVALID, "tool_choice",
     "mode"},
    {"{" CHAT ",\"parallel_tool_calls\":\"no\"}", ERR_INVALID, "parallel_tool_calls", "true or false"},
    {"{" CHAT ",\"chat_template_kwargs\":[]}", ERR_INVALID, "chat_template_kwargs", "object"},
    {"{" CHAT ",\"chat_template_kwargs\":{\"a\":{}}}", ERR_INVALID, "chat_template_kwargs", "'a'"},
    {"{" CHAT ",\"chat_template_kwargs\":{\"a b\":1}}", ERR_INVALID, "chat_template_kwargs", "name"},
    {"{" CHAT ",\"modalities\":[\"text\",\"audio\"]}", ERR_UNSUPPORTED, "modalities", "text"},
    {"{" CHAT ",\"audio\":{}}", ERR_UNSUPPORTED, "audio", "audio"},
    {"{" CHAT ",\"reasoning_effort\":\"very\"}", ERR_INVALID, "reasoning_effort", "reasoning_effort"},
    {"{" CHAT ",\"prompt\":\"x\"}", ERR_INVALID, "prompt", "prompt"},
};

static const bad_case bad_completions[] = {
    {"{\"model\":\"m\"}", ERR_INVALID, "prompt", "missing"},
    {"{\"model\":\"m\",\"prompt\":5}", ERR_INVALID, "prompt", "string"},
    {"{\"model\":\"m\",\"prompt\":[]}", ERR_INVALID, "prompt", "string"},
    {"{\"model\":\"m\",\"prompt\":[[]]}", ERR_INVALID, "prompt", "string"},
    {"{\"model\":\"m\",\"prompt\":[\"a\",5]}", ERR_INVALID, "prompt", "string"},
    {"{\"model\":\"m\",\"prompt\":[1,\"a\"]}", ERR_INVALID, "prompt", "token id"},
    {"{\"model\":\"m\",\"prompt\":[1,-1]}", ERR_INVALID, "prompt", "token id"},
    {"{\"model\":\"m\",\"prompt\":[1,1.5]}", ERR_INVALID, "prompt", "token id"},
    {"{\"model\":\"m\",\"prompt\":[1,3e9]}", ERR_INVALID, "prompt", "token id"},
    {"{\"model\":\"m\",\"prompt\":[[1],[\"a\"]]}", ERR_INVALID, "prompt", "string"},
    {"{" COMP ",\"suffix\":\"end\"}", ERR_UNSUPPORTED, "suffix", "suffix"},
    {"{" COMP ",\"best_of\":2}", ERR_UNSUPPORTED, "best_of", "best_of"},
    {"{" COMP ",\"logprobs\":6}", ERR_INVALID, "logprobs", "between 0 and 5"},
    {"{" COMP ",\"logprobs\":true}", ERR_INVALID, "logprobs", "whole"},
    {"{" COMP ",\"echo\":1}", ERR_INVALID, "echo", "true or false"},
    {"{" COMP ",\"max_tokens\":0}", ERR_INVALID, "max_tokens", "echo"},
    {"{" COMP ",\"messages\":[]}", ERR_INVALID, "messages", "messages"},
    {"{" COMP ",\"max_completion_tokens\":5}", ERR_INVALID, "max_completion_tokens", "not a field"},
};

static void check_bad(const dialect *d, const bad_case *c) {
    answer *a;
    err e;
    err_code rc = parse(&a, d, c->body, &e);
    const char *param = a ? a->param : "";
    if (rc != c->code || strcmp(param, c->param) != 0 || !strstr(e.msg, c->says) || e.code != rc) {
        fprintf(stderr, "%s\n  gives %s for '%s': %s\n", c->body, err_name(rc), param, rc == ERR_OK ? "" : e.msg);
        test_bad = true;
    }
    answer_free(a);
}

TEST(bad_fields_of_chat_are_named) {
    for (size_t i = 0; i < sizeof bad_chat / sizeof *bad_chat; i++) check_bad(&dialect_openai_chat, &bad_chat[i]);
}

TEST(bad_fields_of_completions_are_named) {
    for (size_t i = 0; i < sizeof bad_completions / sizeof *bad_completions; i++)
        check_bad(&dialect_openai_completions, &bad_completions[i]);
}

TEST(labels_of_bodies_arrive) {
    static const struct {
        const dialect *d;
        const char *body;
    } cases[] = {{&dialect_openai_chat, "{" CHAT},
                 {&dialect_openai_completions, "{" COMP},
                 {&dialect_openai_embeddings, "{\"model\":\"m\",\"input\":\"x\""},
                 {&dialect_rerank, "{\"model\":\"m\",\"query\":\"x\",\"documents\":[\"y\"]"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[300];
        answer *a;
        err e;
        snprintf(body, sizeof body, "%s,\"metadata\":{\"polder_label\":\"secret, personal\",\"team\":5}}",
                 cases[i].body);
        CHECK_OK(parse(&a, cases[i].d, body, &e), e);
        CHECK_STR(a->r.label, "secret, personal");
        answer_free(a);
    }
}

TEST(chat_fields_arrive) {
    answer *a;
    err e;
    CHECK_OK(
        parse(&a, &dialect_openai_chat,
              "{" CHAT ",\"stream\":true,\"stream_options\":{\"include_usage\":true,\"include_obfuscation\":false},"
              "\"n\":3,\"stop\":[\"a\",\"b\"],\"seed\":-7,\"temperature\":0.5,\"top_p\":0,\"top_k\":40,\"min_p\":0.25,"
              "\"repeat_penalty\":1.5,\"frequency_penalty\":-1,\"presence_penalty\":2,\"logit_bias\":{\"7\":-100,"
              "\"8\":1.5},\"max_completion_tokens\":9,\"max_tokens\":9,\"logprobs\":true,\"top_logprobs\":4,"
              "\"user\":\"u\",\"metadata\":{\"k\":\"v\"},\"store\":false,\"response_format\":{\"type\":\"text\"},"
              "\"tools\":[],\"tool_choice\":\"auto\",\"parallel_tool_calls\":true,\"service_tier\":\"auto\","
              "\"reasoning_effort\":null,\"modalities\":[\"text\"]}",
              &e),
        e);
    const sampler_params *p = &a->r.sampling;
    CHECK(a->stream && a->include_usage);
    CHECK_STR(a->r.model, "m");
    CHECK_INT(a->r.n_choices, 3);
    CHECK_INT(a->r.n_stops, 2);
    CHECK_STR(a->r.stops[1], "b");
    CHECK(a->r.has_seed && p->seed == (uint64_t)-7);
    CHECK(p->temperature == 0.5f && p->top_p > 0 && p->top_p < 1e-30f && p->top_k == 40 && p->min_p == 0.25f);
    CHECK(p->repeat_penalty == 1.5f && p->frequency_penalty == -1 && p->presence_penalty == 2);
    CHECK(p->n_bias == 2 && p->bias[0].token == 7 && p->bias[0].bias == -100 && p->bias[1].bias == 1.5f);
    CHECK_INT(a->r.max_tokens, 9);
    CHECK(a->r.want_logprobs && a->r.n_top == 4);
    CHECK_STR(a->r.user, "u");
    CHECK_STR(a->r.dialect, "openai.chat");
    CHECK(a->r.messages && !a->r.text && !a->prompts && a->n_runs == 1);
    answer_free(a);
}

TEST(chat_defaults) {
    answer *a;
    err e;
    sampler_params d;
    sampler_params_default(&d);
    CHECK_OK(parse(&a, &dialect_openai_chat, "{" CHAT "}", &e), e);
    CHECK(!a->stream && !a->include_usage && !a->r.has_seed && !a->r.want_logprobs);
    CHECK(a->r.n_choices == 1 && a->r.max_tokens == -1 && a->r.n_stops == 0);
    CHECK(a->r.sampling.temperature == d.temperature && a->r.sampling.top_p == d.top_p);
    answer_free(a);
}

TEST(messages_are_made_plain_for_templates) {
    answer *a;
    err e;
    CHECK_OK(parse(&a, &dialect_openai_chat,
                   "{\"model\":\"m\",\"messages\":[{\"role\":\"developer\",\"content\":\"be brief\"},"
                   "{\"role\":\"user\",\"name\":\"ann\",\"content\":[{\"type\":\"text\",\"text\":\"one\"},"
                   "{\"type\":\"text\",\"text\":\"two\"}]},{\"role\":\"assistant\",\"content\":null,\"refusal\":null},"
                   "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"42\"}]}",
                   &e),
             e);
    buf b = {.max = 4096};
    CHECK_OK(json_canonical(&b, a->r.messages, &e), e);
    CHECK_STR(buf_str(&b), "[{\"content\":\"be brief\",\"role\":\"system\"},"
                           "{\"content\":\"one\\ntwo\",\"name\":\"ann\",\"role\":\"user\"},"
                           "{\"content\":\"\",\"role\":\"assistant\"},"
                           "{\"content\":\"42\",\"role\":\"tool\",\"tool_call_id\":\"c1\"}]");
    buf_free(&b);
    answer_free(a);
}

/* Breaks where a field about tools is dropped, or tools are offered that the caller did not want offered. */
TEST(tools_arrive) {
    answer *a;
    err e;
    CHECK_OK(parse(&a, &dialect_openai_chat,
                   "{" CHAT ",\"tools\":[" TOOL("f") ",{\"type\":\"function\",\"function\":{\"name\":\"g\",\"strict\":"
                                                     "false,\"parameters\":{\"type\":\"object\"}}}],"
                                                     "\"parallel_tool_calls\":false,\"reasoning_effort\":\"low\","
                                                     "\"chat_template_kwargs\":{\"enable_thinking\":false}}",
                   &e),
             e);
    buf b = {.max = 4096};
    CHECK_OK(json_canonical(&b, a->r.tools, &e), e);
    CHECK_STR(buf_str(&b),
              "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{},\"type\":\"object\"}},\"type\":"
              "\"function\"},{\"function\":{\"name\":\"g\",\"parameters\":{\"type\":\"object\"}},\"type\":"
              "\"function\"}]");
    CHECK(a->r.parse && a->r.one_call);
    CHECK_STR(a->r.reasoning_effort, "low");
    CHECK(a->r.template_args && a->r.template_args->child);
    answer_free(a);
    buf_reset(&b);
    CHECK_OK(parse(&a, &dialect_openai_chat,
                   "{" CHAT ",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"auto\","
                   "\"tools\":[" TOOL("g") "]}},\"tools\":[" TOOL("f") "," TOOL("g") "]}",
                   &e),
             e);
    CHECK_INT(cJSON_GetArraySize(a->r.tools), 1);
    CHECK(!a->r.one_call);
    answer_free(a);
    CHECK_OK(parse(&a, &dialect_openai_chat, "{" CHAT ",\"tool_choice\":\"none\",\"tools\":[" TOOL("f") "]}", &e), e);
    CHECK(!a->r.tools);
    answer_free(a);
    buf_free(&b);
}

/* Breaks where a call of the conversation does not get to the template. */
TEST(calls_of_the_conversation_arrive) {
    answer *a;
    err e;
    CHECK_OK(parse(&a, &dialect_openai_chat,
                   "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"content\":null,\"reasoning\":\"hm\","
                   "\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\","
                   "\"arguments\":\"{\\\"a\\\": 1.0}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":"
                   "[{\"type\":\"text\",\"text\":\"42\"}]}]}",
                   &e),
             e);
    buf b = {.max = 4096};
    CHECK_OK(json_canonical(&b, a->r.messages, &e), e);
    CHECK_STR(buf_str(&b),
              "[{\"content\":\"\",\"reasoning_content\":\"hm\",\"role\":\"assistant\",\"tool_calls\":[{\"function\":{"
              "\"arguments\":\"{\\\"a\\\": 1.0}\",\"name\":\"f\"},\"id\":\"c1\",\"type\":\"function\"}]},"
              "{\"content\":\"42\",\"role\":\"tool\",\"tool_call_id\":\"c1\"}]");
    buf_free(&b);
    answer_free(a);
}

TEST(prompts_of_every_form) {
    answer *a;
    err e;
    CHECK_OK(parse(&a, &dialect_openai_completions, "{\"model\":\"m\",\"prompt\":\"\"}", &e), e);
    CHECK(a->n_runs == 1 && strcmp(a->prompts[0].text, "") == 0 && a->r.max_tokens == 16);
    answer_free(a);
    CHECK_OK(parse(&a, &dialect_openai_completions, "{\"model\":\"m\",\"prompt\":[\"a\",\"b\"]}", &e), e);
    CHECK(a->n_runs == 2 && strcmp(a->prompts[1].text, "b") == 0);
    answer_free(a);
    CHECK_OK(parse(&a, &dialect_openai_completions, "{\"model\":\"m\",\"prompt\":[5,6,7]}", &e), e);
    CHECK(a->n_runs == 1 && a->prompts[0].n_tokens == 3 && a->prompts[0].tokens[2] == 7 && !a->prompts[0].text);
    answer_free(a);
    CHECK_OK(parse(&a, &dialect_openai_completions, "{\"model\":\"m\",\"prompt\":[[5],[6,7]]}", &e), e);
    CHECK(a->n_runs == 2 && a->prompts[1].n_tokens == 2 && a->prompts[1].tokens[0] == 6);
    answer_free(a);
    CHECK_OK(parse(&a, &dialect_openai_completions,
                   "{" COMP ",\"echo\":true,\"logprobs\":0,\"max_tokens\":0,\"n\":2,\"best_of\":2,\"suffix\":null}",
                   &e),
             e);
    CHECK(a->r.echo && a->r.want_logprobs && a->r.n_top == 0 && a->r.max_tokens == 0 && a->r.n_choices == 2);
    answer_free(a);
}

/* A message as long as an answer may be, as one string and as a part of a list, and one byte more. */
TEST(messages_have_a_length_limit) {
    static const char *const around[2][2] = {{"\"", "\""}, {"[{\"type\":\"text\",\"text\":\"", "\"}]"}};
    for (int form = 0; form < 2; form++)
        for (size_t more = 0; more < 2; more++) {
            const size_t n = ANSWER_BYTES_MAX + more;
            buf body = {.max = n + 1024};
            buf_puts(&body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":");
            buf_puts(&body, around[form][0]);
            CHECK(buf_reserve(&body, n + 64));
            memset(body.ptr + body.len, 'x', n);
            body.len += n;
            buf_puts(&body, around[form][1]);
            buf_puts(&body, "}]}");
            answer *a;
            err e = {0};
            err_code rc = parse(&a, &dialect_openai_chat, buf_str(&body), &e);
            CHECK_INT(rc, more ? ERR_TOO_LARGE : ERR_OK);
            if (more) CHECK_HAS(e.msg, "a message");
            answer_free(a);
            buf_free(&body);
        }
}

TEST(too_many_prompts) {
    buf b = {.max = 1 << 20};
    buf_puts(&b, "{\"model\":\"m\",\"prompt\":[");
    for (int i = 0; i <= ANSWER_PROMPTS_MAX; i++) buf_puts(&b, i ? ",\"a\"" : "\"a\"");
    buf_puts(&b, "]}");
    answer *a;
    err e;
    CHECK_INT(parse(&a, &dialect_openai_completions, buf_str(&b), &e), ERR_INVALID);
    CHECK_HAS(e.msg, "257 prompts");
    answer_free(a);
    buf_free(&b);
}

TEST(no_allocation_failure_is_lost) {
    static const char body[] = "{" CHAT ",\"logit_bias\":{\"7\":1},\"stop\":[\"a\"],\"tools\":[" TOOL("f") "]}";
    int refused = 0;
    for (int n = 0; n < 200; n++) {
        answer *a;
        err e;
        mem_fail_after(n);
        err_code rc = parse(&a, &dialect_openai_chat, body, &e);
        mem_fail_after(-1);
        if (rc != ERR_OK) {
            CHECK_INT(rc, ERR_NOMEM);
            CHECK(e.code == ERR_NOMEM && e.msg[0]);
            refused++;
        }
        answer_free(a);
        if (rc == ERR_OK) break;
    }
    CHECK(refused >= 2);
}

TEST(paths_are_decoded_strictly) {
    static const struct {
        const char *raw, *out; /* NULL: refused */
    } t[] = {
        {"/v1/models/a%2Fb", "/v1/models/a/b"},
        {"/v1/models/%C3%A9", "/v1/models/\xc3\xa9"},
        {"/", "/"},
        {"/a%20b", "/a b"},
        {"/a%00", NULL},
        {"/a%0a", NULL},
        {"/a%7f", NULL},
        {"/%ff", NULL},
        {"/%C3", NULL},
        {"/a%", NULL},
        {"/a%2", NULL},
        {"/a%zz", NULL},
        {"*", NULL},
        {"", NULL},
        {"/\xc3\xa9", NULL},
        {"/a#b", NULL},
        {"/a b", NULL},
        {"http://h/a", NULL},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char out[64];
        err e;
        err_code rc = guard_path(out, sizeof out, t[i].raw, &e);
        if ((rc == ERR_OK) != (t[i].out != NULL)) FAIL("%s: %s", t[i].raw, err_name(rc));
        if (t[i].out) CHECK_STR(out, t[i].out);
    }
    char small[8];
    CHECK_INT(guard_path(small, sizeof small, "/1234567", NULL), ERR_INVALID);
    CHECK_INT(guard_path(small, sizeof small, "/123456", NULL), ERR_OK);
}

TEST(listen_addresses) {
    static const struct {
        const char *in, *host, *port; /* NULL: refused */
    } t[] = {
        {"127.0.0.1:8080", "127.0.0.1", "8080"},
        {"[::1]:0", "::1", "0"},
        {"localhost:65535", "localhost", "65535"},
        {"127.0.0.1", NULL, NULL},
        {"127.0.0.1:", NULL, NULL},
        {":80", NULL, NULL},
        {"::1:80", NULL, NULL},
        {"a:65536", NULL, NULL},
        {"a:80x", NULL, NULL},
        {"a:-1", NULL, NULL},
        {"", NULL, NULL},
        {"[]:80", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char host[64], port[8];
        err e;
        err_code rc = listen_parse(t[i].in, host, sizeof host, port, sizeof port, &e);
        if ((rc == ERR_OK) != (t[i].host != NULL)) FAIL("\"%s\": %s", t[i].in, err_name(rc));
        if (rc != ERR_OK) CHECK_HAS(e.msg, t[i].in);
        if (t[i].host) CHECK_STR(host, t[i].host);
        if (t[i].port) CHECK_STR(port, t[i].port);
    }
}

TEST(loopback_hosts) {
    CHECK(guard_host_is_loopback("localhost") && guard_host_is_loopback("LOCALHOST:80"));
    CHECK(guard_host_is_loopback("127.0.0.1:9") && guard_host_is_loopback("[::1]:80") &&
          guard_host_is_loopback("[::1]"));
    CHECK(!guard_host_is_loopback("evil.example") && !guard_host_is_loopback("localhost.evil.example"));
    CHECK(!guard_host_is_loopback("127.0.0.1.evil.example") && !guard_host_is_loopback("127.evil.example:80"));
    CHECK(!guard_host_is_loopback("[::2]:80") && !guard_host_is_loopback("10.0.0.1"));
}

TEST(roles_and_rules) {
    CHECK(auth_role_may(ROLE_USER, ACCESS_USE) && !auth_role_may(ROLE_AUDITOR, ACCESS_USE));
    CHECK(!auth_role_may(ROLE_USER, ACCESS_AUDIT) && auth_role_may(ROLE_AUDITOR, ACCESS_AUDIT));
    CHECK(!auth_role_may(ROLE_OPERATOR, ACCESS_AUDIT) && auth_role_may(ROLE_ADMIN, ACCESS_AUDIT));
    CHECK(!auth_role_may(ROLE_USER, ACCESS_WATCH) && auth_role_may(ROLE_OPERATOR, ACCESS_WATCH));
    CHECK(!auth_role_may(ROLE_USER, ACCESS_ADMIN) && auth_role_may(ROLE_USER, ACCESS_OPEN));
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(bad_fields_of_chat_are_named);
    RUN(bad_fields_of_completions_are_named);
    RUN(labels_of_bodies_arrive);
    RUN(chat_fields_arrive);
    RUN(chat_defaults);
    RUN(messages_are_made_plain_for_templates);
    RUN(tools_arrive);
    RUN(calls_of_the_conversation_arrive);
    RUN(prompts_of_every_form);
    RUN(messages_have_a_length_limit);
    RUN(too_many_prompts);
    RUN(no_allocation_failure_is_lost);
    RUN(paths_are_decoded_strictly);
    RUN(listen_addresses);
    RUN(loopback_hosts);
    RUN(roles_and_rules);
    return test_end();
}
