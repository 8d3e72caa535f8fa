/* Calls there and back: generated calls are put into a conversation, a chat template writes them as the model would,
 * and what it wrote is cut out and read again. Breaks when what a template makes of a call is not what is read from an
 * answer, in either direction.
 *
 *   test_inference_round_trip                     the texts in this repository, a few calls each
 *   test_inference_round_trip COUNT FILE…         COUNT calls each; templates that know no calls are named and skipped
 */
#include "harness.h"

#include "inference/format.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

static uint64_t rnd;
static uint32_t draw(uint32_t n) {
    rnd = rnd * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rnd >> 33) % n;
}

/* ---- generated calls ---------------------------------------------------------------------------------------- */

static bool plain; /* strings without what would end a value in a form that does not quote */

static const char *const words[] = {"Delft",
                                    "\xc3\xa9t\xc3\xa9",
                                    "\xe6\x9d\xb1\xe4\xba\xac",
                                    "a \"quote\"",
                                    "back\\slash",
                                    "line\nbreak",
                                    "\n",
                                    "",
                                    " space ",
                                    "it's",
                                    "tab\there",
                                    "{\"json\": [1, 2]}",
                                    "[1]",
                                    "<b>&amp;</b>",
                                    "\xf0\x9f\x8c\x8a",
                                    "12",
                                    "true",
                                    "null",
                                    "%s {{ x }} {% y %}",
                                    ", )",
                                    "\x01",
                                    "</tool_call>",
                                    "<|im_end|>",
                                    "[TOOL_CALLS]",
                                    "<\xef\xbd\x9ctool\xe2\x96\x81sep\xef\xbd\x9c>"};

static char *text(void) {
    buf b = {.max = 4096};
    for (uint32_t n = draw(4); n; n--) buf_puts(&b, words[draw(sizeof words / sizeof *words - (plain ? 4 : 0))]);
    buf_puts(&b, "");
    return buf_take(&b);
}

static cJSON *string(void) {
    char *s = text();
    cJSON *v = cJSON_CreateString(s);
    mem_free(s);
    return v;
}

static cJSON *number(bool whole) {
    static const double some[] = {0, -1, 7, 1e6, 123456789, -42};
    return cJSON_CreateNumber(whole ? some[draw(6)] : (double)draw(100000) / 64.0 - 100);
}

static cJSON *value(uint32_t type, int depth) {
    switch (type) {
    case 0: return string();
    case 1: return number(true);
    case 2: return number(false);
    case 3: return cJSON_CreateBool((int)draw(2));
    case 4: {
        cJSON *o = cJSON_CreateObject();
        static const char *const keys[] = {"a", "key_2", "K"};
        for (uint32_t i = 0, n = depth < 3 ? draw(4) : 0; i < n; i++)
            cJSON_AddItemToObject(o, keys[i], value(draw(7), depth + 1));
        return o;
    }
    case 5: {
        cJSON *l = cJSON_CreateArray();
        for (uint32_t n = depth < 3 ? draw(4) : 0; n; n--) cJSON_AddItemToArray(l, value(draw(7), depth + 1));
        return l;
    }
    default: return cJSON_CreateNull();
    }
}

static const char *const types[] = {"string", "integer", "number", "boolean", "object", "array"};
static const char *const names[] = {"get_weather", "search", "x", "create-ticket_2"};
static const char *const params[] = {"city", "n", "ratio", "exact", "options", "list"};

/* Every tool has one parameter of each type. */
static cJSON *make_tools(void) {
    cJSON *tools = cJSON_CreateArray();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cJSON *t = cJSON_CreateObject(), *f, *p, *all;
        cJSON_AddStringToObject(t, "type", "function");
        f = cJSON_AddObjectToObject(t, "function");
        cJSON_AddStringToObject(f, "name", names[i]);
        cJSON_AddStringToObject(f, "description", "A tool.");
        p = cJSON_AddObjectToObject(f, "parameters");
        cJSON_AddStringToObject(p, "type", "object");
        all = cJSON_AddObjectToObject(p, "properties");
        for (size_t k = 0; k < 6; k++) {
            cJSON *one = cJSON_AddObjectToObject(all, params[k]);
            cJSON_AddStringToObject(one, "type", types[k]);
            cJSON_AddStringToObject(one, "description", "A parameter.");
        }
        cJSON_AddItemToArray(tools, t);
    }
    return tools;
}

/* {"id", "type", "function": {"name", "arguments": text}} */
static cJSON *make_call(uint32_t k) {
    char id[40];
    cJSON *c = cJSON_CreateObject(), *f, *args = cJSON_CreateObject();
    for (uint32_t i = 0; i < 6; i++)
        if (draw(2)) cJSON_AddItemToObject(args, params[i], value(i, 0));
    char *s = draw(2) ? cJSON_PrintUnformatted(args) : cJSON_Print(args);
    snprintf(id, sizeof id, "call_%u_%u", k, draw(100000));
    cJSON_AddStringToObject(c, "id", id);
    cJSON_AddStringToObject(c, "type", "function");
    f = cJSON_AddObjectToObject(c, "function");
    cJSON_AddStringToObject(f, "name", names[draw(4)]);
    cJSON_AddStringToObject(f, "arguments", s);
    cJSON_free(s);
    cJSON_Delete(args);
    return c;
}

/* ---- the way there ------------------------------------------------------------------------------------------ */

typedef struct trip {
    chat_template *t;
    answer_format *f;
    cJSON *tools;
    bool thinks;
    char why[1600];
} trip;

static cJSON *message(const char *who, const char *content) {
    cJSON *m = cJSON_CreateObject();
    cJSON_AddStringToObject(m, "role", who);
    cJSON_AddStringToObject(m, "content", content);
    return m;
}

static bool render(trip *x, const cJSON *messages, bool open, buf *out) {
    err e = {0};
    cJSON *vars = cJSON_CreateObject(), *list = NULL;
    buf_reset(out);
    err_code rc = format_messages(&list, x->f, messages, &e);
    if (!rc) {
        cJSON_AddItemToObject(vars, "messages", list);
        if (x->tools) cJSON_AddItemToObject(vars, "tools", cJSON_Duplicate(x->tools, true));
        cJSON_AddBoolToObject(vars, "add_generation_prompt", open);
        cJSON_AddStringToObject(vars, "bos_token", "<s>");
        cJSON_AddStringToObject(vars, "eos_token", "</s>");
        cJSON_AddBoolToObject(vars, "enable_thinking", x->thinks);
        rc = chat_template_render(x->t, vars, 0, out, &e);
    }
    cJSON_Delete(vars);
    if (rc) snprintf(x->why, sizeof x->why, "%s", e.msg);
    return rc == ERR_OK;
}

#define END_OF_SENTENCE \
    "<\xef\xbd\x9c"     \
    "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"

/* What a turn ends with, in any of the families. */
static size_t without_end(const char *s, size_t n) {
    static const char *const ends[] = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "</s>",
                                       "<|eot|>",    "<|end|>",    "<turn|>",    END_OF_SENTENCE};
    for (bool any = true; any;) {
        any = false;
        while (n && strchr(" \n", s[n - 1])) n--;
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            size_t k = strlen(ends[i]);
            if (n < k || memcmp(s + n - k, ends[i], k) != 0) continue;
            n -= k;
            any = true;
        }
    }
    return n;
}

/* ---- the way back ------------------------------------------------------------------------------------------- */

typedef struct back {
    buf text;
    cJSON *calls; /* [{name, arguments}] */
    buf args, thought;
    bool dropped;
} back;

static void on_event(void *ctx, answer_event_kind kind, const char *p, size_t n) {
    back *b = ctx;
    cJSON *c;
    char name[200];
    switch (kind) {
    case AE_TEXT: buf_append(&b->text, p, n); break;
    case AE_REASONING: buf_append(&b->thought, p, n); break;
    case AE_CALL:
        c = cJSON_CreateObject();
        snprintf(name, sizeof name, "%.*s", (int)n, p);
        cJSON_AddStringToObject(c, "name", name);
        cJSON_AddItemToArray(b->calls, c);
        buf_reset(&b->args);
        break;
    case AE_ARGS: buf_append(&b->args, p, n); break;
    case AE_CALL_END:
        c = cJSON_GetArrayItem(b->calls, cJSON_GetArraySize(b->calls) - 1);
        cJSON_AddItemToObject(c, "arguments", cJSON_Parse(buf_str(&b->args)));
        break;
    case AE_CALL_DROP: b->dropped = true; break;
    }
}

static bool same_calls(trip *x, const cJSON *calls, const back *b, const char *answer) {
    bool same = cJSON_GetArraySize(calls) == cJSON_GetArraySize(b->calls) && !b->dropped;
    for (int i = 0; same && i < cJSON_GetArraySize(calls); i++) {
        const cJSON *f = json_get(cJSON_GetArrayItem(calls, i), "function"), *is = cJSON_GetArrayItem(b->calls, i);
        cJSON *args = cJSON_Parse(json_get(f, "arguments")->valuestring);
        same = strcmp(json_get(f, "name")->valuestring, json_get(is, "name")->valuestring) == 0 &&
               cJSON_Compare(args, json_get(is, "arguments"), true);
        cJSON_Delete(args);
    }
    if (same) return true;
    char *want = cJSON_PrintUnformatted(calls), *is = cJSON_PrintUnformatted(b->calls);
    snprintf(x->why, sizeof x->why, "%.500s\n  read as %.300s\n  text %.300s\n  not %.300s", answer, is,
             buf_str(&b->text), want);
    cJSON_free(want);
    cJSON_free(is);
    return false;
}

static void read_answer(trip *x, const char *before, size_t before_len, const char *answer, size_t n, back *b) {
    answer_parser *p = NULL;
    err e = {0};
    answer_parser_options o = {
        .tools = x->tools, .emit = on_event, .ctx = b, .prompt = before, .prompt_len = before_len};
    *b = (back){.text = {.max = 1 << 20}, .args = {.max = 1 << 20}, .thought = {.max = 1 << 20}};
    b->calls = cJSON_CreateArray();
    if (answer_parser_new(&p, x->f, &o, &e) != ERR_OK || !p) b->dropped = true;
    for (size_t i = 0; p && i < n;) {
        size_t k = 1 + draw(9);
        if (k > n - i) k = n - i;
        answer_parser_text(p, answer + i, k);
        i += k;
    }
    if (p) answer_parser_end(p, false);
    answer_parser_free(p);
}

static void back_free(back *b) {
    cJSON_Delete(b->calls);
    buf_free(&b->text);
    buf_free(&b->args);
    buf_free(&b->thought);
}

/* Where the answer begins that a template wrote behind the prompt `head`. */
static size_t answer_at(const buf *head, const buf *whole) {
    size_t from = 0;
    while (from < head->len && from < whole->len && head->ptr[from] == whole->ptr[from]) from++;
    /* a template may open in the prompt what the conversation does not show: the turn's own beginning is what counts */
    while (from && from < head->len && whole->ptr[from - 1] != '>' && whole->ptr[from - 1] != '\n' &&
           whole->ptr[from - 1] != ']')
        from--;
    return from;
}

static bool read_back(trip *x, const buf *head, const buf *whole, const cJSON *calls) {
    size_t from = answer_at(head, whole);
    const char *answer = whole->ptr + from;
    back b;
    read_answer(x, whole->ptr, from, answer, without_end(answer, whole->len - from), &b);
    bool ok = same_calls(x, calls, &b, answer);
    back_free(&b);
    return ok;
}

/* ---- reasoning ---------------------------------------------------------------------------------------------- */

static char *sentence(const char *begin) {
    static const char *const some[] = {"The dike", "holds", "12 km",        "\xc3\xa9t\xc3\xa9",
                                       "a < b",    "\n",    "\xe6\xb0\xb4", "(maybe)"};
    buf b = {.max = 4096};
    buf_puts(&b, begin);
    for (uint32_t n = 1 + draw(6); n; n--) buf_printf(&b, " %s", some[draw(8)]);
    buf_puts(&b, " ends.");
    return buf_take(&b);
}

static bool is_harmony(const answer_format *f) {
    return strcmp(answer_format_name(f), "harmony") == 0;
}

/* One answer with a thought in front: as the template writes it where it keeps thoughts, else with the family's marks
 * behind the prompt. *kept: the template wrote it. */
static bool thought_trip(trip *x, bool *kept) {
    char *thought = sentence("Hm"), *says = sentence("So");
    cJSON *m = cJSON_CreateArray(), *turn = message("assistant", says);
    buf head = {.max = 1 << 20}, whole = {.max = 1 << 20};
    back b;
    cJSON_AddItemToArray(m, message("user", "Hello?"));
    bool ok = render(x, m, true, &head);
    cJSON_AddStringToObject(turn, "reasoning_content", thought);
    cJSON_AddItemToArray(m, turn);
    ok = ok && render(x, m, false, &whole);
    *kept = ok && strstr(buf_str(&whole), thought) != NULL;
    size_t from = *kept ? answer_at(&head, &whole) : head.len, n;
    if (!*kept) { /* as a model goes on: with the opening mark where the prompt does not end with it */
        size_t k = strlen(x->f->think_open), end = head.len;
        while (end && head.ptr[end - 1] == '\n') end--;
        bool opened = end >= k && memcmp(head.ptr + end - k, x->f->think_open, k) == 0;
        buf_reset(&whole);
        buf_append(&whole, head.ptr, head.len);
        if (is_harmony(x->f))
            buf_printf(&whole, "<|channel|>analysis<|message|>%s<|end|><|start|>assistant<|channel|>final<|message|>%s",
                       thought, says);
        else
            buf_printf(&whole, "%s%s\n%s\n\n%s", opened ? "" : x->f->think_open, thought, x->f->think_close, says);
    }
    n = without_end(whole.ptr + from, whole.len - from);
    read_answer(x, whole.ptr, from, whole.ptr + from, n, &b);
    ok = ok && !b.dropped && strcmp(buf_str(&b.thought), thought) == 0 && strcmp(buf_str(&b.text), says) == 0;
    if (!ok)
        snprintf(x->why, sizeof x->why, "%.500s\n  thought \"%.300s\" not \"%.300s\"\n  text \"%.200s\" not \"%.200s\"",
                 whole.ptr + from, buf_str(&b.thought), thought, buf_str(&b.text), says);
    back_free(&b);
    cJSON_Delete(m);
    buf_free(&head);
    buf_free(&whole);
    mem_free(thought);
    mem_free(says);
    return ok;
}

/* Forms in which an answer is all text or all calls. */
static bool writes_only_calls(const answer_format *f) {
    return strcmp(answer_format_name(f), "llama_json") == 0 || strcmp(answer_format_name(f), "pythonic") == 0;
}

/* One turn with calls, its results, and one more. */
static int round_trip(trip *x, uint32_t most) {
    uint32_t n = 1 + draw(most);
    cJSON *m = cJSON_CreateArray(), *turn = message("assistant", draw(2) ? "" : "I look."), *calls;
    buf head = {.max = 1 << 20}, whole = {.max = 1 << 20};
    cJSON_AddItemToArray(m, message("user", "Hello?"));
    bool ok = render(x, m, true, &head);
    calls = cJSON_AddArrayToObject(turn, "tool_calls");
    if (x->f->content_null || writes_only_calls(x->f))
        cJSON_ReplaceItemInObject(turn, "content", cJSON_CreateString(""));
    for (uint32_t i = 0; i < n; i++) cJSON_AddItemToArray(calls, make_call(i));
    cJSON_AddItemToArray(m, turn);
    ok = ok && render(x, m, false, &whole) && read_back(x, &head, &whole, calls);
    for (uint32_t i = 0; i < n; i++) {
        cJSON *r = message("tool", "the tool's result");
        cJSON_AddStringToObject(r, "tool_call_id", json_get(cJSON_GetArrayItem(calls, (int)i), "id")->valuestring);
        cJSON_AddItemToArray(m, r);
    }
    if (ok && x->f->takes_results) {
        ok = render(x, m, true, &whole);
        if (ok && !strstr(buf_str(&whole), "the tool's result")) {
            snprintf(x->why, sizeof x->why, "the result is not in the prompt");
            ok = false;
        }
    }
    cJSON_Delete(m);
    buf_free(&head);
    buf_free(&whole);
    return ok ? (int)n : 0;
}

/* ---- one template ------------------------------------------------------------------------------------------- */

static const char *base_name(const char *path) {
    const char *s = strrchr(path, '/');
    return s ? s + 1 : path;
}

/* Thoughts of a family that has marks for them. */
static bool all_thoughts(trip *x, const char *path, int count) {
    if (!x->f->think_open[0] && !is_harmony(x->f)) return true;
    int equal = 0, kept = 0;
    cJSON *tools = x->tools;
    x->tools = NULL;
    x->thinks = true;
    for (int i = 0; i < count; i++) {
        bool in_template = false;
        if (thought_trip(x, &in_template))
            equal++;
        else if (equal == i)
            printf("FAIL %s: %s\n", base_name(path), x->why);
        kept += in_template;
    }
    x->tools = tools;
    printf("reasoning %s (%s) answers %d equal %d, %s\n", base_name(path),
           x->f->think_open[0] ? x->f->think_open : "analysis", count, equal,
           kept == count ? "as the template writes them" : "behind its prompt");
    return equal == count;
}

/* Returns whether all were equal, or there was nothing to do. *known: the template writes calls in a known form. */
static bool all_trips(const char *path, int count, bool *known) {
    trip x = {.tools = make_tools()};
    buf source = {.max = 1 << 20};
    err e = {0};
    int done = 0, equal = 0;
    bool ok = file_read(&source, path, &e) == ERR_OK;
    if (!ok) fprintf(stderr, "%s\n", e.msg);
    ok = ok && chat_template_compile(&x.t, source.ptr, source.len, &e) == ERR_OK &&
         answer_format_new(&x.f, x.t, NULL, &e) == ERR_OK;
    *known = ok && x.f->calls && x.f->takes_calls;
    plain =
        *known && strcmp(answer_format_name(x.f), "hermes") != 0 && strcmp(answer_format_name(x.f), "llama_json") != 0;
    while (*known && done < count) {
        int n = round_trip(&x, x.f->one_call ? 1 : 3);
        done += n ? n : 1;
        equal += n;
        if (!n && ok) printf("FAIL %s: %s\n", base_name(path), x.why);
        ok &= n > 0;
    }
    if (*known)
        printf("tools %s (%s) calls %d equal %d\n", base_name(path), answer_format_name(x.f), done, equal);
    else
        printf("none  %s (%s)\n", base_name(path), ok ? answer_format_name(x.f) : e.msg);
    if (ok) ok = all_thoughts(&x, path, count);
    fflush(stdout);
    answer_format_free(x.f);
    chat_template_free(x.t);
    buf_free(&source);
    cJSON_Delete(x.tools);
    return ok;
}

#define SAMPLE 60
#define E2E    "tests/e2e/template/templates/"
#define OWN    "tests/acceptance/families/tools.d/"

static void sample(const char *path) {
    bool known;
    if (access(path, R_OK) != 0) SKIP("the templates are not here");
    CHECK(all_trips(path, SAMPLE, &known));
    CHECK(known);
}

TEST(qwen25) {
    sample(E2E "qwen25.jinja");
}
TEST(qwen3) {
    sample(E2E "qwen3.jinja");
}
TEST(llama31) {
    sample(E2E "llama31.jinja");
}
TEST(mistral) {
    sample(E2E "mistral.jinja");
}
TEST(mistral_args) {
    sample(OWN "mistral_args.jinja");
}
TEST(deepseek) {
    sample(E2E "deepseek.jinja");
}
TEST(deepseek_v3_1) {
    sample(OWN "deepseek_v3_1.jinja");
}
TEST(qwen_xml) {
    sample(OWN "qwen_xml.jinja");
}
TEST(pythonic) {
    sample(OWN "pythonic.jinja");
}
TEST(gemma4) {
    sample(OWN "gemma4.jinja");
}
TEST(phi4) {
    sample(OWN "phi4.jinja");
}
TEST(kimi) {
    sample("tests/acceptance/families/templates.d/own/kimi-k2.jinja");
}
TEST(harmony) {
    sample("tests/acceptance/families/templates.d/own/gpt-oss.jinja");
}

int main(int argc, char **argv) {
    rnd = 7;
    if (argc > 2) {
        base_init();
        for (int i = 2; i < argc; i++) {
            bool known;
            bool ok = all_trips(argv[i], atoi(argv[1]), &known);
            test_passed += ok && known;
            test_failed += !ok;
        }
        return test_end();
    }
    test_begin(argc, argv);
    RUN(qwen25);
    RUN(qwen3);
    RUN(llama31);
    RUN(mistral);
    RUN(mistral_args);
    RUN(deepseek);
    RUN(deepseek_v3_1);
    RUN(qwen_xml);
    RUN(pythonic);
    RUN(gemma4);
    RUN(phi4);
    RUN(kimi);
    RUN(harmony);
    return test_end();
}
