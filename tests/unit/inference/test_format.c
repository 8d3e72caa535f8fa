/* Every form of tool calls and reasoning: what comes out of an answer's text, cut at every byte, and with its marks as
 * tokens of their own. Breaks when a form is misread, when a cut changes what comes out, when text is lost, or when a
 * malformed call is dropped without a word. */
#include "harness.h"

#include "inference/format.h"

#include "base/json.h"
#include "base/mem.h"

/* ---- what came out, as a line: t"text" r"reasoning" c"name" a"arguments" e (end) d (drop) -------------------- */

typedef struct seen {
    buf line;
    answer_event_kind last;
    bool any;
} seen;

static void on_event(void *ctx, answer_event_kind kind, const char *p, size_t n) {
    static const char letters[] = "trcaed";
    seen *s = ctx;
    if (s->line.failed) return;
    bool joins = s->any && s->last == kind && (kind == AE_TEXT || kind == AE_REASONING || kind == AE_ARGS);
    if (joins)
        s->line.ptr[--s->line.len] = 0; /* its closing quote */
    else
        buf_printf(&s->line, "%s%c", s->any ? " " : "", letters[kind]);
    if (!joins && kind <= AE_ARGS) buf_putc(&s->line, '"');
    if (n) buf_append(&s->line, p, n);
    if (kind <= AE_ARGS) buf_putc(&s->line, '"');
    s->any = true;
    s->last = kind;
}

static const char *const tools_text =
    "[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"city\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\"},\"hot\":{\"type\":\"boolean\"},\"o\":{\"type\":"
    "\"object\"},\"l\":{\"type\":\"array\"},\"either\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"integer\"}]}}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"now\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}]";
static cJSON *tools;

typedef struct setup {
    const char *calls, *open, *close, *prompt;
    bool one_call, no_tools, cut;
} setup;

static answer_parser *begin(const setup *u, answer_format **f, seen *s) {
    err e = {0};
    answer_parser *p = NULL;
    *s = (seen){.line = {.max = 1 << 20}};
    buf_puts(&s->line, "");
    if (answer_format_named(f, u->calls, u->open, u->close, NULL, &e) != ERR_OK) return NULL;
    answer_parser_options o = {.tools = u->no_tools ? NULL : tools,
                               .one_call = u->one_call,
                               .prompt = u->prompt,
                               .prompt_len = u->prompt ? strlen(u->prompt) : 0,
                               .emit = on_event,
                               .ctx = s};
    answer_parser_new(&p, *f, &o, &e);
    return p;
}

/* Feeds text: pieces of `step` bytes, or two pieces cut at `at`; with `marks`, what looks like a mark as a token. */
static bool run(const setup *u, const char *text, size_t step, size_t at, bool marks, seen *s, uint32_t *flags) {
    static const char *const known[] = {"<tool_call>",
                                        "</tool_call>",
                                        "<|tool_call|>",
                                        "<|/tool_call|>",
                                        "<|python_tag|>",
                                        "[TOOL_CALLS]",
                                        "[ARGS]",
                                        "[CALL_ID]",
                                        "<|channel|>",
                                        "<|message|>",
                                        "<|end|>",
                                        "<|start|>",
                                        "<|constrain|>",
                                        "<|call|>",
                                        "<|return|>",
                                        "<|tool_call>",
                                        "<tool_call|>",
                                        "<|\"|>",
                                        "<|channel>",
                                        "<channel|>",
                                        "<think>",
                                        "</think>",
                                        "[THINK]",
                                        "[/THINK]",
                                        "<|tool_calls_section_begin|>",
                                        "<|tool_calls_section_end|>",
                                        "<|tool_call_begin|>",
                                        "<|tool_call_end|>",
                                        "<|tool_call_argument_begin|>",
                                        "<｜tool▁calls▁begin｜>",
                                        "<｜tool▁calls▁end｜>",
                                        "<｜tool▁call▁begin｜>",
                                        "<｜tool▁call▁end｜>",
                                        "<｜tool▁sep｜>",
                                        "<start_function_call>",
                                        "<end_function_call>",
                                        "<escape>"};
    answer_format *f = NULL;
    answer_parser *p = begin(u, &f, s);
    size_t n = strlen(text);
    if (!p) {
        answer_format_free(f);
        return false;
    }
    for (size_t i = 0; i < n;) {
        size_t k = step ? step : i < at ? at - i : n - i;
        if (k > n - i) k = n - i;
        for (size_t j = 0; marks && j < sizeof known / sizeof *known; j++) {
            size_t m = strlen(known[j]);
            if (n - i < m || memcmp(text + i, known[j], m) != 0) continue;
            answer_parser_special(p, known[j], m);
            i += m;
            k = 0;
            break;
        }
        if (k && marks) k = 1;
        if (k) answer_parser_text(p, text + i, k);
        i += k;
    }
    answer_parser_end(p, u->cut);
    *flags = (answer_parser_malformed(p) ? 1u : 0) | (answer_parser_stopped(p) ? 2u : 0) |
             (answer_parser_failed(p) ? 4u : 0) | answer_parser_n_calls(p) << 4;
    answer_parser_free(p);
    answer_format_free(f);
    return true;
}

#define MALFORMED 1u
#define STOPPED   2u
#define CALLS(n)  ((uint32_t)(n) << 4)

typedef struct example {
    const char *what;
    setup u;
    const char *text, *line;
    uint32_t flags;
    bool as_text_only; /* its marks as tokens mean something else */
} example;

static const char *compare(const example *x) {
    static char why[4096];
    size_t n = strlen(x->text);
    for (size_t i = 0; i <= n + 8; i++) {
        seen s;
        uint32_t flags = 0;
        bool marks = i == n + 8 && !x->as_text_only;
        size_t step = i < 7 ? i + 1 : 0, at = i < 7 ? 0 : i - 7;
        bool ok = run(&x->u, x->text, marks ? 1 : step, at, marks, &s, &flags);
        bool same = ok && strcmp(buf_str(&s.line), x->line) == 0 && flags == x->flags;
        if (!same)
            snprintf(why, sizeof why, "%s (cut %zu%s):\n  is     %s [%x]\n  not    %s [%x]", x->what, i,
                     marks ? ", marks" : "", buf_str(&s.line), flags, x->line, x->flags);
        buf_free(&s.line);
        if (!same) return why;
    }
    return NULL;
}

static void check_all(const example *list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const char *why = compare(&list[i]);
        if (why) FAIL("%s", why);
    }
}
#define CHECK_ALL(list) check_all(list, sizeof list / sizeof *list)

/* ---- Hermes, Qwen ------------------------------------------------------------------------------------------- */

#define HERMES \
    { .calls = "hermes" }
#define QWEN3 \
    { .calls = "hermes", .open = "<think>", .close = "</think>" }

TEST(hermes) {
    static const example list[] = {
        {"plain text", HERMES, "Hello\n\nworld\n", "t\"Hello\n\nworld\n\"", 0, false},
        {"nothing", HERMES, "", "", 0, false},
        {"what only begins like a mark", HERMES, "a <tool_ b <tool_cal", "t\"a <tool_ b <tool_cal\"", 0, false},
        {"one call", HERMES, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Delft\"}}\n</tool_call>",
         "c\"weather\" a\"{\"city\": \"Delft\"}\" e", CALLS(1), false},
        {"text before", HERMES, "Let me look.\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n",
         "t\"Let me look.\" c\"now\" a\"{}\" e", CALLS(1), false},
        {"two calls, text after", HERMES,
         "<tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call>\n<tool_call>\n{\"name\":\"weather\","
         "\"arguments\":{\"days\":3}}\n</tool_call>\n\nDone.\n",
         "c\"now\" a\"{}\" e c\"weather\" a\"{\"days\":3}\" e t\"Done.\n\"", CALLS(2), false},
        {"arguments first", HERMES, "<tool_call>{\"arguments\": {\"days\": 1}, \"name\": \"weather\"}</tool_call>",
         "c\"weather\" a\"{\"days\": 1}\" e", CALLS(1), false},
        {"parameters, id, type", HERMES,
         "<tool_call>{\"type\":\"function\",\"id\":7,\"name\":\"weather\",\"parameters\":{\"hot\":true}}</tool_call>",
         "c\"weather\" a\"{\"hot\":true}\" e", CALLS(1), false},
        {"arguments as a string", HERMES,
         "<tool_call>{\"name\":\"weather\",\"arguments\":\"{\\\"days\\\": 2}\"}</tool_call>",
         "c\"weather\" a\"{\"days\": 2}\" e", CALLS(1), false},
        {"no arguments", HERMES, "<tool_call>{\"name\":\"now\"}</tool_call>", "c\"now\" a\"{}\" e", CALLS(1), false},
        {"null arguments", HERMES, "<tool_call>{\"name\":\"now\",\"arguments\":null}</tool_call>", "c\"now\" a\"{}\" e",
         CALLS(1), false},
        {"a tool nobody offered", HERMES, "<tool_call>{\"name\":\"other\",\"arguments\":{}}</tool_call>",
         "c\"other\" a\"{}\" e", CALLS(1), false},
        {"marks and braces in strings, Unicode", HERMES,
         "<tool_call>{\"name\":\"weather\",\"arguments\":{\"city\":\"</tool_call> } \\\" é 東京 "
         "\\u00e9\",\"o\":{\"a\":[{}"
         ",[]]}}}</tool_call>",
         "c\"weather\" a\"{\"city\":\"</tool_call> } \\\" é 東京 \\u00e9\",\"o\":{\"a\":[{},[]]}}\" e", CALLS(1), true},
        {"closing mark left out", HERMES, "<tool_call>{\"name\":\"now\",\"arguments\":{}}", "c\"now\" a\"{}\" e",
         CALLS(1), false},
        {"no tools were offered",
         {.calls = "hermes", .open = "<think>", .close = "</think>", .no_tools = true},
         "<tool_call>{\"name\":\"now\"}</tool_call>",
         "t\"<tool_call>{\"name\":\"now\"}</tool_call>\"",
         0,
         true},
        {"one call at most",
         {.calls = "hermes", .one_call = true},
         "<tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call><tool_call>{\"name\":\"now\"}</tool_call>",
         "c\"now\" a\"{}\" e",
         CALLS(1) | STOPPED,
         false},
    };
    CHECK_ALL(list);
}

TEST(hermes_malformed) {
    static const example list[] = {
        {"no object", HERMES, "a\n<tool_call>\nweather</tool_call>", "t\"a\n<tool_call>\nweather</tool_call>\"",
         MALFORMED, true},
        {"the next one is read", HERMES,
         "<tool_call>oops</tool_call><tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call>",
         "t\"<tool_call>oops</tool_call>\" c\"now\" a\"{}\" e", MALFORMED | CALLS(1), true},
        {"broken arguments", HERMES, "<tool_call>{\"name\":\"weather\",\"arguments\":{\"days\":}}</tool_call>",
         "c\"weather\" a\"{\"days\":}\" d t\"<tool_call>{\"name\":\"weather\",\"arguments\":{\"days\":}}</tool_call>\"",
         MALFORMED, true},
        {"a key twice", HERMES, "<tool_call>{\"name\":\"weather\",\"arguments\":{\"days\":1,\"days\":2}}",
         "c\"weather\" a\"{\"days\":1,\"days\":2}\" d "
         "t\"<tool_call>{\"name\":\"weather\",\"arguments\":{\"days\":1,\"days\":2}}\"",
         MALFORMED, false},
        {"arguments are a list", HERMES, "<tool_call>{\"name\":\"weather\",\"arguments\":[1]}",
         "c\"weather\" d t\"<tool_call>{\"name\":\"weather\",\"arguments\":[1]}\"", MALFORMED, false},
        {"no name", HERMES, "<tool_call>{\"arguments\":{}}", "t\"<tool_call>{\"arguments\":{}}\"", MALFORMED, false},
        {"a name with a space", HERMES, "<tool_call>{\"name\":\"a b\"}", "t\"<tool_call>{\"name\":\"a b\"}\"",
         MALFORMED, false},
        {"it ends in the middle", HERMES, "x <tool_call>{\"name\":\"weather\",\"arguments\":{\"ci",
         "t\"x \" c\"weather\" a\"{\"ci\" d t\"<tool_call>{\"name\":\"weather\",\"arguments\":{\"ci\"", MALFORMED,
         false},
        {"its length ends it in the middle",
         {.calls = "hermes", .cut = true},
         "<tool_call>{\"name\":\"weather\",\"arguments\":{\"ci",
         "c\"weather\" a\"{\"ci\"",
         0,
         false},
        {"its length ends it before the name",
         {.calls = "hermes", .cut = true},
         "a\n<tool_call>{\"na",
         "t\"a\n<tool_call>{\"na\"",
         0,
         false},
    };
    CHECK_ALL(list);
}

TEST(reasoning) {
    static const example list[] = {
        {"thinking first", QWEN3, "<think>\nHm.\n\nYes.\n</think>\n\nHello.", "r\"Hm.\n\nYes.\" t\"Hello.\"", 0, false},
        {"empty thinking", QWEN3, "<think>\n\n</think>\n\nHello.", "t\"Hello.\"", 0, false},
        {"then a call", QWEN3,
         "<think>\nHm <tool_call> no.\n</think>\n\n<tool_call>\n{\"name\":\"now\",\"arguments\":{}}\n</tool_call>",
         "r\"Hm <tool_call> no.\" c\"now\" a\"{}\" e", CALLS(1), true},
        {"the prompt opened it",
         {.calls = "hermes", .open = "<think>", .close = "</think>", .prompt = "<|im_start|>assistant\n<think>\n"},
         "Hm.</think>Hi",
         "r\"Hm.\" t\"Hi\"",
         0,
         false},
        {"the prompt closed it",
         {.calls = "hermes", .open = "<think>", .close = "</think>", .prompt = "assistant\n<think>\n\n</think>\n\n"},
         "Hi <b>",
         "t\"Hi <b>\"",
         0,
         false},
        {"a mention in the text is none", QWEN3, "The tag <think> opens, </think> closes.",
         "t\"The tag <think> opens, </think> closes.\"", 0, true},
        {"cut off", {.open = "<think>", .close = "</think>", .cut = true}, "<think>\nso", "r\"so\"", 0, false},
        {"white space before", QWEN3, " \n<think>x</think>y", "t\" \" r\"x\" t\"y\"", 0, false},
        {"Mistral's",
         {.calls = "mistral", .open = "[THINK]", .close = "[/THINK]"},
         "[THINK]a\nb[/THINK]c[TOOL_CALLS]now[ARGS]{}",
         "r\"a\nb\" t\"c\" c\"now\" a\"{}\" e",
         CALLS(1),
         false},
        {"Gemma's",
         {.calls = "gemma4", .open = "<|channel>", .close = "<channel|>"},
         "<|channel>thought\nHm.\n<channel|>Yes.",
         "r\"Hm.\" t\"Yes.\"",
         0,
         false},
        {"Gemma's, begun by the prompt",
         {.calls = "gemma4", .open = "<|channel>", .close = "<channel|>", .prompt = "model\n<|channel>thought\n"},
         "Hm.<channel|>Yes.",
         "r\"Hm.\" t\"Yes.\"",
         0,
         false},
    };
    CHECK_ALL(list);
}

/* ---- the others --------------------------------------------------------------------------------------------- */

#define XML \
    { .calls = "qwen_xml" }

TEST(qwen_xml) {
    static const example list[] = {
        {"typed by the schema", XML,
         "Look:\n<tool_call>\n<function=weather>\n<parameter=city>\nDelft\n\"x\" <b> "
         "\\\n</parameter>\n<parameter=days>\n3\n"
         "</parameter>\n<parameter=hot>\nTrue\n</parameter>\n<parameter=o>\n{\"a\": [1, null]}\n</parameter>\n"
         "</function>\n</tool_call>",
         "t\"Look:\" c\"weather\" a\"{\"city\": \"Delft\\n\\\"x\\\" <b> \\\\\", \"days\": 3, \"hot\": true, \"o\": "
         "{\"a\": "
         "[1, null]}}\" e",
         CALLS(1), false},
        {"strings stay strings", XML,
         "<tool_call><function=weather><parameter=city>12</parameter><parameter=either>12</parameter>"
         "<parameter=other>x</parameter></function></tool_call>",
         "c\"weather\" a\"{\"city\": \"12\", \"either\": 12, \"other\": \"x\"}\" e", CALLS(1), false},
        {"what does not fit is a string", XML,
         "<tool_call><function=weather><parameter=days>soon</parameter><parameter=l>{'a': 1}</parameter></function>",
         "c\"weather\" a\"{\"days\": \"soon\", \"l\": \"{'a': 1}\"}\" e", CALLS(1), false},
        {"no parameters, two calls", XML,
         "<tool_call>\n<function=now>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</"
         "tool_call>\n",
         "c\"now\" a\"{}\" e c\"now\" a\"{}\" e", CALLS(2), false},
        {"the outer tag left out", XML, "<function=now></function>", "c\"now\" a\"{}\" e", CALLS(1), false},
        {"line breaks of the value", XML,
         "<tool_call><function=weather><parameter=city>\n\n a\n\n</parameter></function></tool_call>",
         "c\"weather\" a\"{\"city\": \"\\n a\\n\"}\" e", CALLS(1), false},
        {"text between", XML, "<tool_call>\nweather", "t\"<tool_call>\nweather\"", MALFORMED, false},
        {"never closed", XML, "<function=weather><parameter=city>De",
         "c\"weather\" a\"{\"city\": \"De\" d t\"<function=weather><parameter=city>De\"", MALFORMED, false},
        {"cut off",
         {.calls = "qwen_xml", .cut = true},
         "<function=weather><parameter=city>De",
         "c\"weather\" a\"{\"city\": \"De\"",
         0,
         false},
    };
    CHECK_ALL(list);
}

#define LLAMA \
    { .calls = "llama_json" }

TEST(llama_json) {
    static const example list[] = {
        {"the whole answer", LLAMA, "{\"name\": \"weather\", \"parameters\": {\"city\": \"Delft\"}}",
         "c\"weather\" a\"{\"city\": \"Delft\"}\" e", CALLS(1), false},
        {"after the tag", LLAMA, "<|python_tag|>{\"name\": \"now\", \"parameters\": {}}", "c\"now\" a\"{}\" e",
         CALLS(1), false},
        {"several", LLAMA, "{\"name\":\"now\",\"parameters\":{}}; {\"name\":\"now\",\"parameters\":{}}",
         "c\"now\" a\"{}\" e c\"now\" a\"{}\" e", CALLS(2), false},
        {"JSON that is no call", LLAMA, "{\"city\": \"Delft\"}\n", "t\"{\"city\": \"Delft\"}\n\"", 0, false},
        {"an object with a name", LLAMA, "{\"name\": \"Delft\", \"parameters\": {}}",
         "t\"{\"name\": \"Delft\", \"parameters\": {}}\"", 0, false},
        {"in the middle it is text", LLAMA, "I say {\"name\": \"now\", \"parameters\": {}}",
         "t\"I say {\"name\": \"now\", \"parameters\": {}}\"", 0, false},
        {"Llama 4", LLAMA,
         "<|python_start|>I look.<|python_end|>{\"name\": \"now\", \"parameters\": {}}{\"name\": \"now\"}",
         "t\"I look.\" c\"now\" a\"{}\" e c\"now\" a\"{}\" e", CALLS(2), false},
        {"code after the tag", LLAMA, "<|python_tag|>print(1)", "t\"<|python_tag|>print(1)\"", MALFORMED, false},
    };
    CHECK_ALL(list);
}

TEST(mistral) {
    static const example list[] = {
        {"a list",
         {.calls = "mistral"},
         "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"days\": 1}, \"id\": \"abcdefghi\"}, {\"name\": "
         "\"now\", "
         "\"arguments\": {}}]",
         "c\"weather\" a\"{\"days\": 1}\" e c\"now\" a\"{}\" e",
         CALLS(2),
         false},
        {"names",
         {.calls = "mistral"},
         "Well.[TOOL_CALLS]weather[ARGS]{\"city\": \"[TOOL_CALLS]\"}[TOOL_CALLS]now[ARGS]{}",
         "t\"Well.\" c\"weather\" a\"{\"city\": \"[TOOL_CALLS]\"}\" e c\"now\" a\"{}\" e",
         CALLS(2),
         true},
        {"with ids",
         {.calls = "mistral"},
         "[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}",
         "c\"now\" a\"{}\" e",
         CALLS(1),
         false},
        {"without a separator",
         {.calls = "mistral"},
         "[TOOL_CALLS]now{\"a\": {}}",
         "c\"now\" a\"{\"a\": {}}\" e",
         CALLS(1),
         false},
        {"a list, then names",
         {.calls = "mistral"},
         "[TOOL_CALLS][{\"name\":\"now\"}][TOOL_CALLS]now[ARGS]{}",
         "c\"now\" a\"{}\" e c\"now\" a\"{}\" e",
         CALLS(2),
         false},
        {"the list is not closed",
         {.calls = "mistral"},
         "[TOOL_CALLS][{\"name\":\"now\"}",
         "c\"now\" a\"{}\" e",
         CALLS(1),
         false},
        {"not a name", {.calls = "mistral"}, "[TOOL_CALLS]\"x\"", "t\"[TOOL_CALLS]\"x\"\"", MALFORMED, false},
        {"arguments are text",
         {.calls = "mistral"},
         "[TOOL_CALLS]now[ARGS]soon",
         "c\"now\" d t\"[TOOL_CALLS]now[ARGS]soon\"",
         MALFORMED,
         false},
    };
    CHECK_ALL(list);
}

TEST(deepseek) {
    static const example list[] = {
        {"V3",
         {.calls = "deepseek"},
         "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": "
         "\"Delft\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n"
         "```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
         "c\"weather\" a\"{\"city\": \"Delft\"}\" e c\"now\" a\"{}\" e",
         CALLS(2),
         false},
        {"V3.1",
         {.calls = "deepseek", .open = "<think>", .close = "</think>", .prompt = "<｜Assistant｜><think>"},
         "Hm.</think>I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"days\": "
         "1}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
         "r\"Hm.\" t\"I look.\" c\"weather\" a\"{\"days\": 1}\" e c\"now\" a\"{}\" e",
         CALLS(2),
         false},
        {"no fence",
         {.calls = "deepseek"},
         "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now {}",
         "t\"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now {}\"",
         MALFORMED,
         false},
        {"text in the section",
         {.calls = "deepseek"},
         "<｜tool▁calls▁begin｜>none",
         "t\"<｜tool▁calls▁begin｜>none\"",
         MALFORMED,
         false},
        {"only begins like a mark", {.calls = "deepseek"}, "a <｜tool▁ca b <｜x", "t\"a <｜tool▁ca b <｜x\"", 0, false},
    };
    CHECK_ALL(list);
}

TEST(kimi) {
    static const example list[] = {
        {"two",
         {.calls = "kimi"},
         "I "
         "look.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{\"days\":"
         " "
         "2}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
         "<|tool_calls_section_end|>",
         "t\"I look.\" c\"weather\" a\"{\"days\": 2}\" e c\"now\" a\"{}\" e",
         CALLS(2),
         false},
        {"a bare name",
         {.calls = "kimi"},
         "<|tool_calls_section_begin|><|tool_call_begin|>now<|tool_call_argument_begin|>{}<|tool_call_end|>",
         "c\"now\" a\"{}\" e",
         CALLS(1),
         false},
        {"no arguments",
         {.calls = "kimi"},
         "<|tool_calls_section_begin|><|tool_call_begin|>functions.now:0<|tool_call_argument_begin|><|tool_call_end|>",
         "c\"now\" d "
         "t\"<|tool_calls_section_begin|><|tool_call_begin|>functions.now:0<|tool_call_argument_begin|><|tool_"
         "call_end|>\"",
         MALFORMED,
         false},
    };
    CHECK_ALL(list);
}

#define OSS \
    { .calls = "harmony", .prompt = "<|end|><|start|>assistant" }

TEST(harmony) {
    static const example list[] = {
        {"channels", OSS,
         "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hello\n\n<|return|>",
         "r\"Hm.\" t\"Hello\n\n\"", STOPPED, false},
        {"a call", OSS,
         "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I "
         "look.<|end|><|start|>"
         "assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"<b>\"}<|call|>",
         "r\"Hm.\" t\"I look.\" c\"weather\" a\"{\"city\": \"<b>\"}\" e", CALLS(1), false},
        {"the recipient first", OSS, " to=functions.now<|channel|>commentary json<|message|>{}<|call|>",
         "c\"now\" a\"{}\" e", CALLS(1), false},
        {"the engine takes the end away", OSS, "<|channel|>commentary to=functions.now<|message|>{}",
         "c\"now\" a\"{}\" e", CALLS(1), false},
        {"a text begun by the prompt",
         {.calls = "harmony", .prompt = "<|start|>assistant<|channel|>final<|message|>"},
         "Hi",
         "t\"Hi\"",
         0,
         false},
        {"without channels", OSS, "Hello", "t\"Hello\"", 0, false},
        {"two thoughts", OSS,
         "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>",
         "r\"a\n\nb\"", 0, false},
        {"somebody else's tool", OSS, "<|channel|>commentary to=browser.open<|message|>{}<|call|>",
         "t\"<|channel|>commentary to=browser.open<|message|>{}\"", MALFORMED, false},
        {"no JSON", OSS, "<|channel|>commentary to=functions.now<|message|>soon<|call|>",
         "c\"now\" a\"soon\" d t\"<|channel|>commentary to=functions.now<|message|>soon<|call|>\"", MALFORMED, false},
        {"no tools",
         {.calls = "harmony", .no_tools = true, .prompt = "<|start|>assistant"},
         "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>",
         "r\"Hm.\" t\"Hi\"",
         STOPPED,
         false},
        {"cut",
         {.calls = "harmony", .prompt = "<|start|>assistant", .cut = true},
         "<|channel|>commentary to=functions.now<|message|>{\"a",
         "c\"now\" a\"{\"a\"",
         0,
         false},
    };
    CHECK_ALL(list);
}

TEST(pythonic) {
    static const example list[] = {
        {"a list",
         {.calls = "pythonic"},
         "[weather(city=\"Delft, )\", days=3, hot=True, o={'a': [1, None]}), now()]",
         "c\"weather\" a\"{\"city\": \"Delft, )\", \"days\": 3, \"hot\": true, \"o\": {\"a\": [1, null]}}\" e c\"now\" "
         "a\"{}\" "
         "e",
         CALLS(2),
         false},
        {"escapes",
         {.calls = "pythonic"},
         "[weather(city='it\\'s \\u00e9 \\x41\\n\"q\"')]",
         "c\"weather\" a\"{\"city\": \"it's é A\\n\\\"q\\\"\"}\" e",
         CALLS(1),
         false},
        {"between its tags",
         {.calls = "pythonic"},
         "<|python_start|>[now()]<|python_end|>",
         "c\"now\" a\"{}\" e",
         CALLS(1),
         true},
        {"a list that is none", {.calls = "pythonic"}, "[1] is a source", "t\"[1] is a source\"", 0, false},
        {"a function nobody offered", {.calls = "pythonic"}, "[other()]", "t\"[other()]\"", 0, false},
        {"a value without a name",
         {.calls = "pythonic"},
         "[weather(\"Delft\")]",
         "c\"weather\" d t\"[weather(\"Delft\")]\"",
         MALFORMED,
         false},
        {"code",
         {.calls = "tool_code"},
         "So:\n```tool_code\nprint(weather(city=\"Delft\"))\nnow()\n```\n",
         "t\"So:\" c\"weather\" a\"{\"city\": \"Delft\"}\" e c\"now\" a\"{}\" e",
         CALLS(2),
         true},
        {"other code", {.calls = "tool_code"}, "```python\nx\n```", "t\"```python\nx\n```\"", 0, true},
    };
    CHECK_ALL(list);
}

TEST(gemma) {
    static const example list[] = {
        {"a call",
         {.calls = "gemma4"},
         "<|tool_call>call:weather{city:<|\"|>De, \"l\"}ft<|\"|>,days:3,l:[<|\"|>a<|\"|>,true],o:{b:null}}<tool_call|>",
         "c\"weather\" a\"{\"city\": \"De, \\\"l\\\"}ft\", \"days\": 3, \"l\": [\"a\", true], \"o\": {\"b\": null}}\" "
         "e",
         CALLS(1),
         false},
        {"two",
         {.calls = "gemma4"},
         "Ok<|tool_call>call:now{}<tool_call|><|tool_call>call:now{}<tool_call|>",
         "t\"Ok\" c\"now\" a\"{}\" e c\"now\" a\"{}\" e",
         CALLS(2),
         false},
        {"the older form",
         {.calls = "function_gemma"},
         "<start_function_call>call:weather{city:<escape>Delft<escape>}<end_function_call>",
         "c\"weather\" a\"{\"city\": \"Delft\"}\" e",
         CALLS(1),
         false},
        {"no call",
         {.calls = "gemma4"},
         "<|tool_call>weather<tool_call|>",
         "t\"<|tool_call>weather<tool_call|>\"",
         MALFORMED,
         false},
        {"bad value",
         {.calls = "gemma4"},
         "<|tool_call>call:weather{days:soon}<tool_call|>",
         "c\"weather\" d t\"<|tool_call>call:weather{days:soon}<tool_call|>\"",
         MALFORMED,
         false},
    };
    CHECK_ALL(list);
}

TEST(phi4) {
    static const example list[] = {
        {"a list",
         {.calls = "phi4"},
         "<|tool_call|>[{\"name\":\"now\",\"arguments\":{}},{\"name\":\"weather\",\"arguments\":{\"days\":1}}]<|/"
         "tool_call|>",
         "c\"now\" a\"{}\" e c\"weather\" a\"{\"days\":1}\" e",
         CALLS(2),
         false},
        {"an object",
         {.calls = "phi4"},
         "<|tool_call|>{\"name\":\"now\",\"arguments\":{}}<|/tool_call|>",
         "c\"now\" a\"{}\" e",
         CALLS(1),
         false},
        {"a list that breaks",
         {.calls = "phi4"},
         "<|tool_call|>[{\"name\":\"now\",\"arguments\":{}} {",
         "c\"now\" a\"{}\" e t\" {\"",
         MALFORMED | CALLS(1),
         false},
    };
    CHECK_ALL(list);
}

/* ---- marks that are tokens ---------------------------------------------------------------------------------- */

/* Where the vocabulary has a mark as a control token, its spelling in text is text. Breaks when a document that the
 * model quotes becomes a call. */
TEST(strict) {
    setup u = HERMES;
    answer_format *f = NULL;
    seen s;
    answer_parser *p = begin(&u, &f, &s);
    CHECK(p != NULL);
    f->strict = 3;
    answer_parser_text(p, "<tool_call>{\"name\":\"now\"}</tool_call>", 37);
    answer_parser_special(p, "<tool_call>", 11);
    answer_parser_special(p, "<|unknown|>", 11);
    answer_parser_text(p, "{\"name\":\"now\"}", 14);
    answer_parser_special(p, "</tool_call>", 12);
    answer_parser_end(p, false);
    CHECK_STR(buf_str(&s.line), "t\"<tool_call>{\"name\":\"now\"}</tool_call>\" c\"now\" a\"{}\" e");
    answer_parser_free(p);
    answer_format_free(f);
    buf_free(&s.line);
}

/* Breaks when a failed allocation crashes, or is not told. */
TEST(out_of_memory) {
    static const char text[] =
        "<think>a</think>\n<tool_call>{\"name\":\"weather\",\"arguments\":{\"city\":\"x\"}}</tool_call>";
    setup u = QWEN3;
    int n_told = 0;
    for (int64_t n = 0; n < 60; n++) {
        seen s;
        uint32_t flags = 0;
        mem_fail_after(n);
        bool made = run(&u, text, 1, 0, false, &s, &flags);
        mem_fail_after(-1);
        bool whole = !s.line.failed && strstr(buf_str(&s.line), "c\"weather\" a\"{\"city\":\"x\"}\" e");
        bool told = !made || s.line.failed || (flags & (4 | MALFORMED));
        buf_free(&s.line);
        CHECK(whole || told);
        n_told += !whole;
    }
    CHECK(n_told > 5);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    tools = cJSON_Parse(tools_text);
    RUN(hermes);
    RUN(hermes_malformed);
    RUN(reasoning);
    RUN(qwen_xml);
    RUN(llama_json);
    RUN(mistral);
    RUN(deepseek);
    RUN(kimi);
    RUN(harmony);
    RUN(pythonic);
    RUN(gemma);
    RUN(phi4);
    RUN(strict);
    RUN(out_of_memory);
    cJSON_Delete(tools);
    return test_end();
}
