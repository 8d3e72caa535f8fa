/* Which form a model's answers have, and what its template does with a conversation. */
#include "inference/format_internal.h"

#include <stdlib.h>

/* ---- the registry ------------------------------------------------------------------------------------------ */

/* A form is a model's where its template's source has all of these words. The more particular come first. */
typedef struct rule {
    const call_format *format;
    const char *words[4];
} rule;

static const rule rules[] = {
    {&format_harmony, {"<|channel|>", "<|message|>", "<|start|>"}},
    {&format_kimi, {"<|tool_call_argument_begin|>"}},
    {&format_deepseek, {"<｜tool▁call▁begin｜>"}},
    {&format_gemma4, {"<|tool_call>"}},
    {&format_function_gemma, {"<start_function_call>"}},
    {&format_mistral, {"[TOOL_CALLS]"}},
    {&format_phi4, {"<|tool_call|>"}},
    {&format_qwen_xml, {"<function=", "<parameter="}},
    {&format_hermes, {"<tool_call>"}},
    {&format_pythonic, {"[func_name"}},
    {&format_llama_json, {"\"parameters\"", "<|start_header_id|>"}},
    {&format_llama_json, {"\"parameters\"", "<|header_start|>"}},
    {&format_tool_code, {"tool_code", "tools"}},
};
#define N_RULES (sizeof rules / sizeof *rules)

typedef struct think_words {
    const char *open, *close, *label;
} think_words;
static const think_words thinks[] = {
    {"[THINK]", "[/THINK]", NULL},
    {"<|channel>", "<channel|>", "thought"},
    {"<think>", "</think>", NULL},
};
#define N_THINKS (sizeof thinks / sizeof *thinks)

const char *answer_format_list(size_t i) {
    for (size_t k = 0; k < N_RULES; k++) {
        if (k && rules[k].format == rules[k - 1].format) continue;
        if (!i--) return rules[k].format->name;
    }
    return NULL;
}

const char *answer_format_name(const answer_format *f) {
    return f->calls ? f->calls->name : "none";
}

/* ---- special tokens ---------------------------------------------------------------------------------------- */

static bool is_special(const special_set *s, const char *text) {
    for (size_t i = 0; s && i < special_set_count(s); i++) {
        size_t n;
        const char *t = special_set_text(s, i, &n);
        if (n == strlen(text) && memcmp(t, text, n) == 0) return true;
    }
    return false;
}

static void find_strict(answer_format *f, const special_set *special) {
    for (int i = 0; f->calls && i < FORMAT_MARKS_MAX; i++)
        if (f->calls->marks[i] && is_special(special, f->calls->marks[i])) f->strict |= MARK_BIT(i);
    f->think_strict = f->think_open[0] && is_special(special, f->think_open) && is_special(special, f->think_close);
}

static void set_think(answer_format *f, const think_words *t) {
    snprintf(f->think_open, sizeof f->think_open, "%s", t->open);
    snprintf(f->think_close, sizeof f->think_close, "%s", t->close);
    snprintf(f->think_label, sizeof f->think_label, "%s", t->label ? t->label : "");
}

/* ---- what the template does -------------------------------------------------------------------------------- */

#define PROBE_TOOL "probe_tool_a"
#define PROBE_TWO  "probe_tool_b"
#define PROBE_KEY  "probe_key"
#define PROBE_TEXT "probe value"
#define PROBE_ID   "call_probe_1"
#define PROBE_ID9  "probeid12"

typedef struct probe {
    const chat_template *t;
    buf out;
    err_code rc; /* ERR_NOMEM sticks */
} probe;

#define TOOLS                                                      \
    "[{\"type\":\"function\",\"function\":{\"name\":\"" PROBE_TOOL \
    "\",\"description\":\"d\",\"parameters\":{\"type\":"           \
    "\"object\",\"properties\":{\"" PROBE_KEY "\":{\"type\":\"string\",\"description\":\"k\"}},\"required\":[]}}}]"
#define ARGS_OBJECT "{\"" PROBE_KEY "\":\"" PROBE_TEXT "\"}"
#define ARGS_TEXT   "\"{\\\"" PROBE_KEY "\\\": \\\"" PROBE_TEXT "\\\"}\""

/* Renders {"messages":[user, …]} and says whether it went well. */
static bool render(probe *x, const char *vars) {
    cJSON *v = cJSON_Parse(vars);
    buf_reset(&x->out);
    err e = {0};
    err_code rc = v ? chat_template_render(x->t, v, 0, &x->out, &e) : err_nomem(&e, "a format");
    cJSON_Delete(v);
    if (rc == ERR_NOMEM || (!rc && x->out.failed)) x->rc = ERR_NOMEM;
    return rc == ERR_OK && !x->out.failed;
}

static bool shows(const probe *x, const char *what) {
    return strstr(buf_str(&x->out), what) != NULL;
}

static const char vars_head[] = "{\"add_generation_prompt\":true,\"bos_token\":\"\",\"eos_token\":\"\"";
static const char user_turn[] = "{\"role\":\"user\",\"content\":\"hi\"}";

static void put_call(buf *b, const char *name, const char *id, bool text) {
    buf_printf(b, "{\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":\"%s\",\"arguments\":%s}}", id, name,
               text ? ARGS_TEXT : ARGS_OBJECT);
}

/* A conversation with one call or two, and an answer of the tool. */
static bool render_calls(probe *x, const answer_format *f, bool two) {
    buf b = {.max = 8192};
    const char *id = f->short_ids ? PROBE_ID9 : PROBE_ID;
    buf_printf(&b, "%s,\"tools\":%s,\"messages\":[%s,{\"role\":\"assistant\",\"content\":%s,\"tool_calls\":[",
               vars_head, TOOLS, user_turn, f->content_null ? "null" : "\"\"");
    put_call(&b, PROBE_TOOL, id, f->args_text);
    if (two) {
        buf_putc(&b, ',');
        put_call(&b, PROBE_TWO, f->short_ids ? "probeid34" : "call_probe_2", f->args_text);
    }
    buf_printf(&b, "]},{\"role\":\"tool\",\"tool_call_id\":\"%s\",\"name\":\"%s\",\"content\":\"probe result\"}]}", id,
               PROBE_TOOL);
    bool ok = !b.failed && render(x, b.ptr);
    if (b.failed) x->rc = ERR_NOMEM;
    buf_free(&b);
    return ok;
}

/* The call is there, and its arguments are neither quoted twice nor printed as Python prints a dict. */
static bool shows_call(const probe *x) {
    return shows(x, PROBE_TOOL) && shows(x, PROBE_KEY) && shows(x, PROBE_TEXT) && !shows(x, "\\\"" PROBE_KEY) &&
           !shows(x, "'" PROBE_KEY "'");
}

/* The first way to put calls that the template takes. Tools appear in the prompt too, so the call is looked for by its
 * value. */
static void probe_calls(probe *x, answer_format *f) {
    for (int way = 0; way < 8 && !f->takes_calls && x->rc == ERR_OK; way++) {
        f->args_text = way & 1;
        f->content_null = way & 2;
        f->short_ids = way & 4;
        f->takes_calls = render_calls(x, f, false) && shows_call(x);
    }
    if (!f->takes_calls) {
        f->args_text = f->content_null = f->short_ids = false;
        return;
    }
    f->takes_results = shows(x, "probe result");
    const char *first = strstr(buf_str(&x->out), PROBE_ID);
    f->own_ids_local = !first || !strstr(first + 1, PROBE_ID); /* the call's id is the template's own */
    f->one_call = !render_calls(x, f, true) || !shows(x, PROBE_TWO);
}

static void probe_tools(probe *x, answer_format *f) {
    buf b = {.max = 8192};
    buf_printf(&b, "%s,\"tools\":%s,\"messages\":[%s]}", vars_head, TOOLS, user_turn);
    f->takes_tools = !b.failed && render(x, b.ptr) && shows(x, PROBE_TOOL);
    if (b.failed) x->rc = ERR_NOMEM;
    buf_free(&b);
}

static void probe_template(answer_format *f, const chat_template *t, const char *source, probe *x) {
    x->t = t;
    buf_init(&x->out, 1 << 20);
    probe_tools(x, f);
    if (x->rc == ERR_OK) probe_calls(x, f);
    f->own_ids = f->calls && f->calls->own_ids;
    f->own_ids_local &= f->own_ids;
    f->tool_responses = f->takes_calls && !f->takes_results && strstr(source, "tool_responses");
    f->takes_results |= f->tool_responses;
    f->listed = !strstr(source, "[ARGS]");
    f->fenced = strstr(source, "```json") != NULL;
    f->thinking_key = f->calls && f->calls->takes_all && strstr(source, "thinking");
    buf_free(&x->out);
}

/* ---- making one -------------------------------------------------------------------------------------------- */

static const call_format *find_calls(const char *source) {
    for (size_t i = 0; i < N_RULES; i++) {
        bool all = true;
        for (size_t k = 0; k < 4 && rules[i].words[k]; k++) all = all && strstr(source, rules[i].words[k]);
        if (all) return rules[i].format;
    }
    return NULL;
}

static void find_think(answer_format *f, const char *source, const special_set *special) {
    if (f->calls && f->calls->takes_all) return;
    for (size_t i = 0; i < N_THINKS; i++) {
        bool in_source = strstr(source, thinks[i].open) || strstr(source, thinks[i].close);
        if (!in_source && !(is_special(special, thinks[i].open) && is_special(special, thinks[i].close))) continue;
        set_think(f, &thinks[i]);
        return;
    }
}

err_code answer_format_new(answer_format **out, const chat_template *t, const special_set *special, err *e) {
    answer_format *f = *out = mem_zalloc(sizeof *f);
    if (!f) return err_nomem(e, "a model's format");
    if (!t) return ERR_OK;
    const char *source = chat_template_source(t, NULL);
    probe x = {.rc = ERR_OK};
    f->calls = find_calls(source);
    find_think(f, source, special);
    find_strict(f, special);
    probe_template(f, t, source, &x);
    if (x.rc == ERR_OK) return ERR_OK;
    mem_free(f);
    *out = NULL;
    return err_nomem(e, "a model's format");
}

err_code answer_format_named(answer_format **out, const char *calls, const char *think_open, const char *think_close,
                             const special_set *special, err *e) {
    answer_format *f = *out = mem_zalloc(sizeof *f);
    if (!f) return err_nomem(e, "a format");
    for (size_t i = 0; calls && i < N_RULES && !f->calls; i++)
        if (strcmp(rules[i].format->name, calls) == 0) f->calls = rules[i].format;
    if (calls && !f->calls) {
        mem_free(f);
        *out = NULL;
        return err_set(e, ERR_NOT_FOUND, "format '%.40s': there is none of that name", calls);
    }
    if (think_open)
        set_think(f, &(think_words){think_open, think_close, strcmp(think_open, "<|channel>") == 0 ? "thought" : NULL});
    find_strict(f, special);
    f->takes_tools = f->takes_calls = f->takes_results = true;
    return ERR_OK;
}

void answer_format_free(answer_format *f) {
    mem_free(f);
}

err_code format_check_tools(const answer_format *f, const char *model_name, err *e) {
    if (!f->takes_tools)
        return err_set(
            e, ERR_UNSUPPORTED,
            "model '%s': its chat template has no place for tools; leave 'tools' out or choose another model",
            model_name);
    if (!f->calls)
        return err_set(e, ERR_UNSUPPORTED,
                       "model '%s': its chat template takes tools, but the form in which it writes calls is none that "
                       "is known here; leave 'tools' out or choose another model",
                       model_name);
    return ERR_OK;
}
