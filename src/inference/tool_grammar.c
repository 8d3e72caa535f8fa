/* Grammars of calls: what an answer must look like where a call is demanded, or where tools are strict. They are texts
 * for grammar_new_text, made of the form's marks and the tools' schemas.
 *
 *   demanded   reasoning, where the model may think; then calls
 *   strict     any text without the mark that opens a call; then, from that mark on, calls
 *
 * A mark that is a control token is named as a token; any other is text, whatever tokens it is made of. Text without
 * such a mark is the complement of an automaton (Knuth, Morris, Pratt) that looks for it. */
#include "inference/tool_grammar.h"
#include "inference/format_internal.h"

#define GRAMMAR_TEXT_MAX ((size_t)16 << 20)

typedef struct maker {
    buf *out;
    const answer_format *f;
    const request *r;
    bool loose;        /* arguments are any object */
    bool think_tokens; /* the reasoning's marks are tokens of the vocabulary */
} maker;

/* ---- pieces ------------------------------------------------------------------------------------------------- */

static void put(maker *k, const char *s) {
    buf_puts(k->out, s);
}

static void put_quoted(maker *k, const char *s, size_t n) {
    put(k, "\"");
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"' || s[i] == '\\') buf_putc(k->out, '\\');
        if (s[i] == '\n')
            put(k, "\\n");
        else
            buf_putc(k->out, s[i]);
    }
    put(k, "\" ");
}

static void text(maker *k, const char *s) {
    put_quoted(k, s, strlen(s));
}

static void put_word(maker *k, const char *word, bool token) {
    if (token) put(k, "<[");
    text(k, word);
    if (token) put(k, "]> ");
}

static void mark(maker *k, int i) {
    put_word(k, k->f->calls->marks[i], k->f->strict & MARK_BIT(i));
}

/* A tool whose schema names no parameters takes none. */
static bool takes_nothing(const cJSON *schema) {
    const cJSON *p = cJSON_GetObjectItemCaseSensitive(schema, "properties");
    return cJSON_IsObject(p) && !p->child && !cJSON_GetObjectItemCaseSensitive(schema, "additionalProperties") &&
           !cJSON_GetObjectItemCaseSensitive(schema, "patternProperties");
}

static void args(maker *k, const cJSON *schema) {
    if (schema && takes_nothing(schema)) {
        text(k, "{}");
        return;
    }
    char *s = schema && !k->loose ? json_text(schema) : NULL;
    put(k, "%json");
    put(k, s ? s : "{\"type\":\"object\"}");
    put(k, " ");
    if (schema && !k->loose && !s) k->out->failed = true;
    mem_free(s);
}

/* {"name": "NAME", "arguments": {…}} */
static void object(maker *k, const char *name, const char *key, const cJSON *schema) {
    buf head = {.max = 1024};
    buf_printf(&head, "{\"name\": \"%s\", \"%s\": ", name, key);
    text(k, buf_str(&head));
    buf_free(&head);
    args(k, schema);
    text(k, "}");
}

/* ---- one call in each form ---------------------------------------------------------------------------------- */

typedef struct wrap { /* what stands around calls and between them */
    int open, close;  /* marks; -1: none */
    const char *after_open, *before_close, *between;
    bool each; /* around each call, not around all */
} wrap;

static void tagged_call(maker *k, const char *name, const cJSON *schema, bool kimi) {
    mark(k, 2);
    if (kimi) {
        text(k, "functions.");
        text(k, name);
        put(k, "\":\" [0-9]{1,4} ");
    } else {
        text(k, k->f->fenced ? "function" : name);
    }
    mark(k, 4);
    if (!kimi && k->f->fenced) {
        text(k, name);
        text(k, "\n```json\n");
    }
    args(k, schema);
    if (!kimi && k->f->fenced) text(k, "\n```");
    mark(k, 3);
}

static void harmony_call(maker *k, const char *name, const cJSON *schema) {
    mark(k, 0);
    text(k, "commentary to=functions.");
    text(k, name);
    text(k, " ");
    mark(k, 4);
    text(k, "json");
    mark(k, 1);
    args(k, schema);
}

static void one_call(maker *k, const char *name, const cJSON *schema) {
    const call_format *c = k->f->calls;
    if (c == &format_deepseek || c == &format_kimi) {
        tagged_call(k, name, schema, c == &format_kimi);
    } else if (c == &format_harmony) {
        harmony_call(k, name, schema);
    } else if (c == &format_mistral && !k->f->listed) {
        text(k, name);
        mark(k, 4);
        args(k, schema);
    } else {
        object(k, name, c == &format_llama_json ? "parameters" : "arguments", schema);
    }
}

static bool wrap_of(const answer_format *f, wrap *w) {
    const call_format *c = f->calls;
    *w = (wrap){.open = -1, .close = -1, .after_open = "", .before_close = "", .between = ""};
    if (c == &format_hermes)
        *w = (wrap){0, 1, "\n", "\n", "\n", true};
    else if (c == &format_phi4)
        *w = (wrap){0, 1, "[", "]", ", ", false};
    else if (c == &format_mistral)
        *w = f->listed ? (wrap){0, -1, "[", "]", ", ", false} : (wrap){0, -1, "", "", "", true};
    else if (c == &format_deepseek)
        *w = (wrap){0, 1, "", "", f->fenced ? "\n" : "", false};
    else if (c == &format_kimi)
        *w = (wrap){0, 1, "", "", "", false};
    else
        return c == &format_llama_json || c == &format_harmony;
    return true;
}

static const cJSON *function_of(const cJSON *tool) {
    return cJSON_GetObjectItemCaseSensitive(tool, "function");
}

/* Rules `call` and `calls`. `opened`: the first mark was read already. */
static void put_calls(maker *k, bool opened) {
    wrap w;
    (void)wrap_of(k->f, &w);
    bool single = k->r->one_call || k->f->calls->bare || k->f->calls->takes_all;
    const cJSON *t;
    bool first = true;
    put(k, "call ::= ");
    cJSON_ArrayForEach(t, k->r->tools) {
        const cJSON *f = function_of(t);
        const char *name = cJSON_GetObjectItemCaseSensitive(f, "name")->valuestring;
        if (k->r->tool_only && strcmp(name, k->r->tool_only) != 0) continue;
        if (!first) put(k, "| ");
        first = false;
        one_call(k, name, cJSON_GetObjectItemCaseSensitive(f, "parameters"));
    }
    put(k, "\nwrapped ::= ");
    if (w.each && w.open >= 0) mark(k, w.open);
    if (w.each) text(k, w.after_open);
    put(k, "call ");
    if (w.each) text(k, w.before_close);
    if (w.each && w.close >= 0) mark(k, w.close);
    put(k, "\nfirst ::= ");
    if (!opened && w.open >= 0) mark(k, w.open);
    text(k, w.after_open);
    put(k, "call ");
    if (w.each) text(k, w.before_close);
    if (w.each && w.close >= 0) mark(k, w.close);
    put(k, "\ncalls ::= first ");
    if (!single) {
        put(k, "( ");
        text(k, w.between);
        put(k, "wrapped )* ");
    }
    if (!w.each) {
        text(k, w.before_close);
        if (w.close >= 0) mark(k, w.close);
    }
    put(k, "\n");
}

/* ---- before the calls --------------------------------------------------------------------------------------- */

/* What may or must come before: reasoning that the prompt has opened, or that the model may open. */
static void put_thinking(maker *k, bool opened) {
    const answer_format *f = k->f;
    if (f->calls->takes_all) {
        put(k, "( ");
        mark(k, 0);
        text(k, "analysis");
        mark(k, 1);
        put(k, "!");
        mark(k, 2);
        put(k, "* ");
        mark(k, 2);
        mark(k, 3);
        put(k, "\"assistant\" )? ");
        return;
    }
    if (!f->think_close[0]) return;
    if (!opened) {
        put(k, "( ");
        put_word(k, f->think_open, true);
    }
    put(k, "!");
    put_word(k, f->think_close, true);
    put(k, "* ");
    put_word(k, f->think_close, true);
    put(k, "[\\n ]{0,4} ");
    if (!opened) put(k, ")? ");
}

/* Rules s0, s1, …: text in which the mark has not been completed; behind it come calls. */
static void put_until(maker *k, const char *m) {
    size_t n = strlen(m), fail[FORMAT_MARK_BYTES] = {0};
    for (size_t i = 1, at = 0; i < n; i++) {
        while (at && m[i] != m[at]) at = fail[at - 1];
        if (m[i] == m[at]) at++;
        fail[i] = at;
    }
    for (size_t i = 0; i < n; i++) {
        char seen[FORMAT_MARK_BYTES + 1] = "";
        size_t n_seen = 0;
        buf_printf(k->out, "s%zu ::= \"\" ", i);
        /* every character that leads to another state than the first, by the shortest way back */
        for (size_t at = i;; at = fail[at - 1]) {
            if (!strchr(seen, m[at])) {
                seen[n_seen++] = m[at];
                seen[n_seen] = 0;
                put(k, "| ");
                put_quoted(k, &m[at], 1);
                if (at + 1 == n)
                    put(k, "calls ");
                else
                    buf_printf(k->out, "s%zu ", at + 1);
            }
            if (!at) break;
        }
        put(k, "| [^");
        for (size_t j = 0; j < n_seen; j++) {
            if (strchr("\\]^-", seen[j])) buf_putc(k->out, '\\');
            buf_putc(k->out, seen[j]);
        }
        put(k, "] s0\n");
    }
}

static bool thinks_already(const answer_format *f, const char *s, size_t n) {
    size_t k = strlen(f->think_open);
    while (n && is_space(s[n - 1])) n--;
    return k && n >= k && memcmp(s + n - k, f->think_open, k) == 0;
}

static void put_root(maker *k, const char *prompt_text, size_t len) {
    const answer_format *f = k->f;
    wrap w;
    (void)wrap_of(f, &w);
    bool thinks = thinks_already(f, prompt_text, len);
    if (k->r->tool_must) {
        put(k, "root ::= ");
        if (k->think_tokens || f->calls->takes_all)
            put_thinking(k, thinks);
        else if (thinks) /* it cannot be told where it ends, so it ends at once */
            text(k, f->think_close);
        put(k, "calls\n");
        put_calls(k, false);
        return;
    }
    put(k, "root ::= ");
    if (f->think_strict) put_thinking(k, thinks);
    if (f->strict & MARK_BIT(w.open)) {
        put(k, "!");
        mark(k, w.open);
        put(k, "* calls?\n");
        put_calls(k, false);
        return;
    }
    put(k, "s0\n");
    put_until(k, f->calls->marks[w.open]);
    put_calls(k, true);
}

/* ---- from outside ------------------------------------------------------------------------------------------- */

bool tool_grammar_wanted(const request *r) {
    return r->tools && r->tools->child && (r->tool_must || r->tool_strict);
}

static err_code check(const answer_format *f, const request *r, err *e) {
    wrap w;
    if (r->grammar)
        return err_set(e, ERR_UNSUPPORTED,
                       "tool_choice and strict tools cannot be asked for together with another form of the answer");
    if (!f->calls || !wrap_of(f, &w))
        return err_set(
            e, ERR_UNSUPPORTED,
            "model '%s': calls of its form (%s) cannot be demanded or made strict here; ask with tool_choice "
            "auto and without strict",
            r->model, answer_format_name(f));
    if (!r->tool_must && w.open < 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "model '%s': strict tools need tool_choice required, because its calls begin with no mark",
                       r->model);
    return ERR_OK;
}

static err_code make(grammar **out, uint8_t digest[SHA256_LEN], grammar_cache *c, const model *m, maker *k,
                     const char *prompt_text, size_t len, err *e) {
    buf source = {.max = GRAMMAR_TEXT_MAX};
    k->out = &source;
    put_root(k, prompt_text, len);
    err_code rc = buf_check(&source, "the grammar of the tools", e);
    if (!rc) {
        sha256_of(digest, source.ptr, source.len);
        *out = grammar_cache_find(c, digest);
        if (!*out) {
            rc = grammar_new_text(out, m, source.ptr, source.len, e);
            if (!rc) grammar_cache_put(c, digest, *out);
        }
    }
    buf_free(&source);
    return rc;
}

/* Whether both of the reasoning's marks are tokens, control tokens or not. */
static bool marks_are_tokens(const model *m, const answer_format *f) {
    buf probe = {.max = 4096};
    maker k = {.out = &probe, .f = f};
    put(&k, "root ::= ");
    put_word(&k, f->think_open, true);
    put_word(&k, f->think_close, true);
    grammar *g = NULL;
    bool ok = f->think_close[0] && grammar_new_text(&g, m, buf_str(&probe), probe.len, NULL) == ERR_OK;
    grammar_free(g);
    buf_free(&probe);
    return ok;
}

err_code tool_grammar_get(grammar **out, uint8_t digest[SHA256_LEN], grammar_cache *c, const model *m,
                          const answer_format *f, const request *r, const char *prompt_text, size_t len, err *e) {
    maker k = {.f = f, .r = r};
    err_code rc = check(f, r, e);
    if (rc) return rc; /* *out may be the other form's grammar */
    *out = NULL;
    k.think_tokens = marks_are_tokens(m, f);
    rc = make(out, digest, c, m, &k, prompt_text, len, e);
    bool schema = rc == ERR_UNSUPPORTED || rc == ERR_INVALID || rc == ERR_TOO_LARGE;
    if (!schema || r->tool_strict) return rc ? err_prefix(e, "tools") : ERR_OK;
    k.loose = true; /* a call was demanded, not that its arguments follow a schema which cannot be compiled */
    rc = make(out, digest, c, m, &k, prompt_text, len, e);
    return rc ? err_prefix(e, "tools") : ERR_OK;
}
