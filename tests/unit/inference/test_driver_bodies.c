/* What drivers of providers ask for: bodies in full, and what is refused because a form cannot express it. Nothing is
 * sent here. */
#include "harness.h"

#include "inference/drivers/driver.h"
#include "inference/drivers/upstream.h"

#include "base/json.h"

static cJSON *user_says(const char *text) {
    cJSON *list = cJSON_CreateArray(), *one = cJSON_CreateObject();
    cJSON_AddItemToArray(list, one);
    cJSON_AddStringToObject(one, "role", "user");
    cJSON_AddStringToObject(one, "content", text);
    return list;
}

static request chat(const cJSON *messages, bool stream) {
    request r = {.dialect = "test", .model = "test", .messages = messages, .n_choices = 1, .parse = true};
    sampler_params_default(&r.sampling);
    r.max_tokens = -1;
    r.stream = stream;
    return r;
}

static cJSON *conversation(void) {
    return cJSON_Parse(
        "[{\"role\":\"system\",\"content\":\"Be brief.\"},"
        "{\"role\":\"user\",\"content\":\"Weather?\",\"name\":\"ann\"},"
        "{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":\"hm\",\"tool_calls\":[{\"id\":\"c1\","
        "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"at\\\": [1, 2.5]}\"}}]},"
        "{\"role\":\"tool\",\"content\":\"rain\",\"tool_call_id\":\"c1\"},"
        "{\"role\":\"user\",\"content\":\"Thanks\"},"
        "{\"role\":\"user\",\"content\":\"And now?\"}]");
}

static char *body_of(const driver *d, const request *r, const char *base, const char *form, const char *version,
                     err *e) {
    upstream_target t = {.provider = "mocked", .url = base, .form = form, .api_version = version, .model = "m"};
    driver_call c = {.r = r, .seed = 42, .max_output_tokens = 1000, .target = &t};
    char *out = d->prepare(&c, e) == ERR_OK ? strndup(c.body, c.body_len) : NULL;
    d->release(&c);
    return out;
}

static request rich(cJSON *messages, cJSON *tools) {
    request r = chat(messages, true);
    r.tools = tools;
    r.one_call = true;
    r.user = "somebody@example.org"; /* goes nowhere */
    r.label = "internal";
    r.sampling.temperature = 0.2f;
    r.sampling.top_p = 0.9f;
    r.stops[r.n_stops++] = "END";
    return r;
}

TEST(a_body_in_full) {
    cJSON *messages = conversation();
    cJSON *tools =
        cJSON_Parse("[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":"
                    "{\"type\":\"object\",\"properties\":{\"z\":{\"type\":\"number\"},\"a\":{}}}}}]");
    request r = rich(messages, tools);
    err e;
    char *o = body_of(&driver_openai, &r, "http://x", "", "", &e),
         *a = body_of(&driver_anthropic, &r, "http://x", "", "", &e);
    CHECK_STR(o,
              "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
              "{\"role\":\"user\",\"content\":\"Weather?\",\"name\":\"ann\"},{\"role\":\"assistant\",\"content\":null,"
              "\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
              "\"{\\\"at\\\": [1, 2.5]}\"}}]},{\"role\":\"tool\",\"content\":\"rain\",\"tool_call_id\":\"c1\"},"
              "{\"role\":\"user\",\"content\":\"Thanks\"},{\"role\":\"user\",\"content\":\"And now?\"}],"
              "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":"
              "{\"type\":\"object\",\"properties\":{\"z\":{\"type\":\"number\"},\"a\":{}}}}}],"
              "\"parallel_tool_calls\":false,\"temperature\":0.2,\"top_p\":0.9,\"max_tokens\":1000,"
              "\"stop\":[\"END\"],\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    CHECK_STR(a, "{\"model\":\"m\",\"max_tokens\":1000,\"system\":[{\"type\":\"text\",\"text\":\"Be brief.\"}],"
                 "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Weather?\"}]},"
                 "{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c1\",\"name\":\"f\",\"input\":"
                 "{\"at\":[1,2.5]}}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c1\","
                 "\"content\":[{\"type\":\"text\",\"text\":\"rain\"}]},{\"type\":\"text\",\"text\":\"Thanks\"},"
                 "{\"type\":\"text\",\"text\":\"And now?\"}]}],\"tools\":[{\"name\":\"f\",\"description\":\"d\","
                 "\"input_schema\":{\"type\":\"object\",\"properties\":{\"z\":{\"type\":\"number\"},\"a\":{}}}}],"
                 "\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":true},\"temperature\":0.2,"
                 "\"top_p\":0.9,\"stop_sequences\":[\"END\"],\"stream\":true}");
    free(o);
    free(a);
    cJSON_Delete(messages);
    cJSON_Delete(tools);
}

TEST(what_servers_differ_in) {
    static const struct {
        const char *url, *form, *version, *has, *lacks;
    } want[] = {
        {"https://api.openai.com/v1", "", "", "\"max_completion_tokens\":7", "max_tokens"},
        {"https://api.mistral.ai/v1", "", "", "\"random_seed\":42", "stream_options"},
        {"http://127.0.0.1:8000/v1", "", "", "\"seed\":42,\"max_tokens\":7", "completion_tokens"},
        {"https://notmistral.ai/v1", "", "", "stream_options", "random_seed"},
        {"https://x.openai.azure.com", "azure", "", "\"max_completion_tokens\":7", "\"model\""},
        {"https://x.openai.azure.com", "azure", "2024-02-01", "\"max_tokens\":7", "stream_options"},
    };
    cJSON *messages = user_says("x");
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        request r = chat(messages, true);
        err e = {0};
        r.has_seed = true;
        r.max_tokens = 7;
        char *text = body_of(&driver_openai, &r, want[i].url, want[i].form, want[i].version, &e);
        if (!text) FAIL("%s", e.msg);
        CHECK_HAS(text, want[i].has);
        if (strstr(text, want[i].lacks)) FAIL("%s: %s", want[i].url, text);
        free(text);
    }
    cJSON_Delete(messages);
}

static void set_top_k(request *r) {
    r->sampling.top_k = 5;
}
static void set_min_p(request *r) {
    r->sampling.min_p = 0.1f;
}
static void set_repeat(request *r) {
    r->sampling.repeat_penalty = 1.1f;
}
static void set_bias(request *r) {
    static const logit_bias bias = {3, 1};
    r->sampling.bias = &bias;
    r->sampling.n_bias = 1;
}
static void set_tokens(request *r) {
    static const int32_t ids[] = {1, 2};
    r->messages = NULL;
    r->tokens = ids;
    r->n_tokens = 2;
}
static void set_args(request *r) {
    static cJSON *args;
    if (!args) args = cJSON_Parse("{\"x\":1}");
    r->template_args = args;
}
static void set_regex(request *r) {
    r->grammar = GRAMMAR_REGEX;
    r->grammar_source = "a+";
    r->grammar_len = 2;
}
static void set_schema(request *r) {
    r->grammar = GRAMMAR_JSON_SCHEMA;
    r->grammar_source = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"}},\"required\":[\"a\"],"
                        "\"additionalProperties\":false}";
    r->grammar_len = strlen(r->grammar_source);
}
static void set_penalty(request *r) {
    r->sampling.frequency_penalty = 0.5f;
}
static void set_hot(request *r) {
    r->sampling.temperature = 1.5f;
}
static void set_seed(request *r) {
    r->has_seed = true;
}
static void set_n(request *r) {
    r->n_choices = 2;
}
static void set_logprobs(request *r) {
    r->want_logprobs = true;
}
static void set_effort(request *r) {
    r->reasoning_effort = "high";
}
static void set_ignore_end(request *r) {
    r->ignore_end = true;
}

/* What a form cannot express is refused before anything leaves, never left out. */
TEST(what_cannot_be_said_is_refused) {
    static const struct {
        void (*set)(request *r);
        const char *in_openai; /* NULL: refused */
        const char *in_anthropic;
    } want[] = {
        {set_top_k, NULL, "\"top_k\":5"},
        {set_min_p, NULL, NULL},
        {set_repeat, NULL, NULL},
        {set_bias, NULL, NULL},
        {set_tokens, NULL, NULL},
        {set_args, NULL, NULL},
        {set_regex, NULL, NULL},
        {set_ignore_end, NULL, NULL},
        {set_schema,
         "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"schema\":", NULL},
        {set_penalty, "\"frequency_penalty\":0.5", NULL},
        {set_hot, "\"temperature\":1.5", NULL},
        {set_seed, "\"seed\":42", NULL},
        {set_n, "\"n\":2", NULL},
        {set_logprobs, "\"logprobs\":true", NULL},
        {set_effort, "\"reasoning_effort\":\"high\"", NULL}};
    cJSON *messages = user_says("x");
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        for (int other = 0; other < 2; other++) {
            request r = chat(messages, false);
            err e = {0};
            const char *has = other ? want[i].in_anthropic : want[i].in_openai;
            want[i].set(&r);
            char *text = body_of(other ? &driver_anthropic : &driver_openai, &r, "http://x", "", "", &e);
            if (has) {
                if (!text) FAIL("%zu: %s", i, e.msg);
                CHECK_HAS(text, has);
            } else {
                if (text) FAIL("%zu: %s", i, text);
                CHECK_INT(e.code, ERR_UNSUPPORTED);
                CHECK_HAS(e.msg, "mocked");
            }
            free(text);
        }
    }
    cJSON_Delete(messages);
}

TEST(limits_of_the_island) {
    cJSON *messages = user_says("x");
    request r = chat(messages, false);
    err e = {0};
    r.max_tokens = 1001;
    CHECK(!body_of(&driver_openai, &r, "http://x", "", "", &e));
    CHECK_INT(e.code, ERR_INVALID);
    cJSON_Delete(messages);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(a_body_in_full);
    RUN(what_servers_differ_in);
    RUN(what_cannot_be_said_is_refused);
    RUN(limits_of_the_island);
    return test_end();
}
