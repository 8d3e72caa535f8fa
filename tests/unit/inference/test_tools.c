/* Demanded and strict calls, from request to record, with a model of random weights: what it writes is held to the form
 * of its template and to the tools' schemas. Breaks when an answer comes out that is no call, when arguments do not
 * follow the schema, or when the record does not say what held it. */
#include "support.h"

#define TEMPLATE                                                                                                       \
    "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m.role + "  \
    "'\\n' + (m.content or '') }}{% for c in m.tool_calls or [] %}{{ '<tool_call>\\n{\"name\": \"' + c.function.name " \
    "+ "                                                                                                               \
    "'\", \"arguments\": ' }}{{ c.function.arguments | tojson }}{{ '}\\n</tool_call>' }}{% endfor %}{{ "               \
    "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

static bed b;
static cJSON *messages, *tools;

static const char tools_text[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{\"n\":{"
    "\"enum\":[3,5]}},\"required\":[\"n\"]}}},{\"type\":\"function\",\"function\":{\"name\":\"g\",\"parameters\":{"
    "\"type\":"
    "\"object\",\"properties\":{}}}}]";

typedef struct calls {
    buf line; /* name{arguments} … */
    buf raw, text;
    char reason[16];
    uint64_t admitted, completed;
    bool malformed;
} calls;

static err_code on_event(void *ctx, const event *ev) {
    calls *c = ctx;
    switch (ev->kind) {
    case EV_ADMITTED: c->admitted = ev->record; break;
    case EV_RAW: buf_append(&c->raw, ev->text, ev->len); break;
    case EV_TEXT: buf_append(&c->text, ev->text, ev->len); break;
    case EV_CALL:
    case EV_CALL_ARGS: buf_append(&c->line, ev->text, ev->len); break;
    case EV_CALL_END: buf_putc(&c->line, ' '); break;
    case EV_FINISH:
        snprintf(c->reason, sizeof c->reason, "%s", ev->reason);
        c->malformed = ev->malformed;
        break;
    case EV_DONE: c->completed = ev->record; break;
    default: break;
    }
    return ERR_OK;
}

static void calls_free(calls *c) {
    buf_free(&c->line);
    buf_free(&c->raw);
    buf_free(&c->text);
}

static request chat(void) {
    request r = ask("tiny", "", 160);
    r.text = NULL;
    r.text_len = 0;
    r.messages = messages;
    r.tools = tools;
    r.parse = true;
    r.sampling.temperature = 1;
    return r;
}

static err_code call(const request *r, calls *c, err *e) {
    *c = (calls){.line = {.max = 1 << 16}, .raw = {.max = 1 << 16}, .text = {.max = 1 << 16}};
    event_sink sink = {.ctx = c, .event = on_event};
    return pipeline_run(b.inf, r, &sink, e);
}

static bool setup(const char *tmpl, err *e) {
    char path[300];
    messages = cJSON_Parse("[{\"role\":\"user\",\"content\":\"the\"}]");
    tools = cJSON_Parse(tools_text);
    if (bed_open(&b, NULL, e) != ERR_OK) return false;
    snprintf(path, sizeof path, "%s/with-tools.gguf", b.dir);
    return tiny_write(path, true, true, tmpl, 7) && bed_add(&b, path, "tiny", e) == ERR_OK;
}

static void cleanup(void) {
    bed_close(&b);
    cJSON_Delete(messages);
    cJSON_Delete(tools);
}

TEST(a_demanded_call_is_a_call) {
    for (uint64_t seed = 0; seed < 20; seed++) {
        err e = {0};
        calls c;
        request r = chat();
        r.sampling.seed = seed;
        r.tool_must = r.one_call = true;
        CHECK_OK(call(&r, &c, &e), e);
        bool f =
            strncmp(buf_str(&c.line), "f{\"n\":", 6) == 0 && (strstr(c.line.ptr, "3}") || strstr(c.line.ptr, "5}"));
        if (!f && strncmp(buf_str(&c.line), "g{", 2) != 0) FAIL("seed %d: %s", (int)seed, buf_str(&c.raw));
        CHECK_STR(c.reason, "tool_calls");
        CHECK(!c.malformed && !c.text.len);
        CHECK_HAS(buf_str(&c.raw), "<tool_call>\n{\"name\": \"");
        calls_free(&c);
    }
}

/* Breaks where another tool is called than the one that was named, or the record does not tell. */
TEST(a_named_call_and_its_record) {
    err e = {0};
    calls c;
    request r = chat();
    r.tool_must = r.one_call = true;
    r.tool_only = "f";
    buf text = {.max = LEDGER_ENTRY_MAX};
    for (r.sampling.seed = 0; r.sampling.seed < 6; r.sampling.seed++) {
        CHECK_OK(call(&r, &c, &e), e);
        CHECK(strncmp(buf_str(&c.line), "f{", 2) == 0);
        buf_reset(&text);
        CHECK_OK(ledger_read(island_ledger(b.i), c.admitted, &text, &e), e);
        CHECK_HAS(text.ptr, "\"tool_choice\":\"function\"");
        CHECK_HAS(text.ptr, "\"tool_grammar\":\"");
        buf_reset(&text);
        CHECK_OK(ledger_read(island_ledger(b.i), c.completed, &text, &e), e);
        CHECK_HAS(text.ptr, "\"tool_calls\":1");
        CHECK_HAS(text.ptr, "\"finish\":\"tool_calls\"");
        buf_reset(&text);
        CHECK_OK(ledger_content(island_ledger(b.i), c.completed, "answer_a", &text, &e), e);
        CHECK_STR(buf_str(&text), buf_str(&c.raw));
        calls_free(&c);
    }
    buf_free(&text);
}

/* Breaks where a strict tool lets something else through: after the mark only calls come. */
TEST(strict_tools_hold_from_the_mark_on) {
    err e = {0};
    calls c;
    request r = chat();
    r.tool_strict = true;
    for (r.sampling.seed = 0; r.sampling.seed < 6; r.sampling.seed++) {
        CHECK_OK(call(&r, &c, &e), e);
        CHECK(!c.malformed);
        calls_free(&c);
    }
    r.grammar = GRAMMAR_CHOICE;
    r.grammar_source = "[\"a\"]";
    r.grammar_len = 5;
    CHECK_INT(call(&r, &c, &e), ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "together");
    calls_free(&c);
}

/* Breaks where tools are offered to a model that has no place for them. */
TEST(models_without_tools_say_so) {
    err e = {0};
    calls c;
    cleanup();
    CHECK(setup("{% for m in messages %}{{ m.content }}{% endfor %}", &e));
    request r = chat();
    CHECK_INT(call(&r, &c, &e), ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "no place for tools");
    calls_free(&c);
    r.tools = NULL;
    r.reasoning_effort = "high";
    CHECK_INT(call(&r, &c, &e), ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "reasoning_effort");
    calls_free(&c);
    r.reasoning_effort = NULL;
    cJSON *back =
        cJSON_Parse("[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":"
                    "\"f\",\"arguments\":\"{}\"}}]}]");
    r.messages = back;
    CHECK_INT(call(&r, &c, &e), ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "does not show calls");
    calls_free(&c);
    cJSON_Delete(back);
}

int main(int argc, char **argv) {
    err e = {0};
    test_begin(argc, argv);
    if (!setup(TEMPLATE, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    RUN(a_demanded_call_is_a_call);
    RUN(a_named_call_and_its_record);
    RUN(strict_tools_hold_from_the_mark_on);
    RUN(models_without_tools_say_so);
    cleanup();
    return test_end();
}
