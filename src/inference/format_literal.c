/* Calls whose arguments are literals of a language of their own:
 *
 *   Llama 4, 3.2   [NAME(key="value", n=3), NAME()]        Python's; the whole answer, or after <|python_start|>
 *   Gemma 3        ```tool_code\nNAME(key="value")\n```    Python's, where a template says so
 *   Gemma 4        <|tool_call>call:NAME{key:<|"|>value<|"|>,n:3}<tool_call|>
 *   FunctionGemma  <start_function_call>call:NAME{key:<escape>value<escape>}<end_function_call>
 *
 * The name goes out as soon as it is read, the arguments when they are whole. */
#include "inference/format_internal.h"

#include "base/bytes.h"

#include <stdlib.h>

/* ---- a literal as JSON ------------------------------------------------------------------------------------- */

#define LITERAL_DEPTH_MAX 48

typedef struct literal {
    const char *at, *end;
    const char *quote; /* Gemma's; NULL: Python's */
    buf *out;
    buf text; /* of the string that is read */
    int depth;
} literal;

static bool value(literal *l);

static void skip_space(literal *l) {
    while (l->at < l->end && is_space(*l->at)) l->at++;
}

static bool take(literal *l, char c) {
    skip_space(l);
    if (l->at == l->end || *l->at != c) return false;
    l->at++;
    return true;
}

static bool at_quote(const literal *l) {
    size_t k = l->quote ? strlen(l->quote) : 0;
    return k && (size_t)(l->end - l->at) >= k && memcmp(l->at, l->quote, k) == 0;
}

static bool gemma_string(literal *l) {
    size_t k = strlen(l->quote);
    l->at += k;
    const char *from = l->at;
    while (l->at < l->end && !at_quote(l)) l->at++;
    if (l->at == l->end) return false;
    json_string(l->out, from, (size_t)(l->at - from));
    l->at += k;
    return true;
}

static bool hex_escape(literal *l, int digits) {
    uint32_t cp = 0;
    if (l->end - l->at < digits) return false;
    for (int i = 0; i < digits; i++) {
        char c = *l->at++;
        uint32_t d = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                     : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                            : 99;
        if (d > 15) return false;
        cp = cp << 4 | d;
    }
    if (digits == 4 && cp >= 0xD800 && cp < 0xDC00 && l->end - l->at >= 6 && l->at[0] == '\\' && l->at[1] == 'u') {
        char hex[5] = {0};
        memcpy(hex, l->at + 2, 4);
        uint32_t low = (uint32_t)strtoul(hex, NULL, 16);
        if (low >= 0xDC00 && low < 0xE000) {
            cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
            l->at += 6;
        }
    }
    char utf8[4];
    int n = cp < 0x110000 && !(cp >= 0xD800 && cp < 0xE000) ? utf8_encode(utf8, cp) : 0;
    if (n > 0) buf_append(&l->text, utf8, (size_t)n);
    return n > 0;
}

static bool escape(literal *l) {
    static const char from[] = "nrtbfav0\\'\"", to[] = "\n\r\t\b\f\a\v\0\\'\"";
    if (l->at == l->end) return false;
    char c = *l->at++;
    if (c == 'x') return hex_escape(l, 2);
    if (c == 'u') return hex_escape(l, 4);
    if (c == 'U') return hex_escape(l, 8);
    if (c == '\n') return true; /* a line that goes on */
    const char *k = c ? strchr(from, c) : NULL;
    if (!k) buf_putc(&l->text, '\\'); /* Python keeps what it does not know */
    buf_putc(&l->text, k ? to[k - from] : c);
    return true;
}

static bool python_string(literal *l) {
    char q = *l->at++;
    bool three = l->end - l->at >= 2 && l->at[0] == q && l->at[1] == q;
    if (three) l->at += 2;
    buf_reset(&l->text);
    while (l->at < l->end) {
        char c = *l->at++;
        if (c == '\\') {
            if (!escape(l)) return false;
        } else if (c == q && !three) {
            json_string(l->out, buf_str(&l->text), l->text.len);
            return true;
        } else if (c == q && l->end - l->at >= 2 && l->at[0] == q && l->at[1] == q) {
            l->at += 2;
            json_string(l->out, buf_str(&l->text), l->text.len);
            return true;
        } else {
            buf_putc(&l->text, c);
        }
    }
    return false;
}

static bool is_word_char(char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c && strchr("_.+-", c));
}

static bool word_is(const char *s, size_t n, const char *what) {
    return strlen(what) == n && memcmp(s, what, n) == 0;
}

/* A number or a constant. */
static bool word(literal *l) {
    static const char *const words[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"},
                                           {"true", "true"}, {"false", "false"}, {"null", "null"}};
    const char *s = l->at;
    while (l->at < l->end && is_word_char(*l->at)) l->at++;
    size_t n = (size_t)(l->at - s);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!word_is(s, n, words[i][0])) continue;
        buf_puts(l->out, words[i][1]);
        return true;
    }
    cJSON *v = NULL;
    bool ok = n && json_parse(&v, s, n, "number", NULL) == ERR_OK && cJSON_IsNumber(v);
    cJSON_Delete(v);
    if (ok) buf_append(l->out, s, n);
    return ok;
}

/* The name before `sep`, as a JSON string: keywords of a call, Gemma's bare keys. */
static bool bare_key(literal *l, char sep) {
    skip_space(l);
    const char *s = l->at;
    while (l->at < l->end && *l->at != sep && !strchr("{}[](),\"'\n", *l->at)) l->at++;
    size_t n = (size_t)(l->at - s);
    while (n && is_space(s[n - 1])) n--;
    if (!n) return false;
    json_string(l->out, s, n);
    return true;
}

static bool key(literal *l) {
    skip_space(l);
    if (l->at == l->end) return false;
    if (at_quote(l)) return gemma_string(l);
    if (*l->at == '"' || *l->at == '\'') return python_string(l);
    return l->quote && bare_key(l, ':');
}

/* key sep value, … close; what opened it was read. */
static bool pairs(literal *l, char sep, char close, bool bare) {
    buf_putc(l->out, '{');
    for (bool first = true;; first = false) {
        skip_space(l);
        if (take(l, close)) break;
        if (!first) {
            if (!take(l, ',')) return false;
            if (take(l, close)) break; /* a comma may stand behind the last */
            buf_puts(l->out, ", ");
        }
        if (!(bare ? bare_key(l, sep) : key(l)) || !take(l, sep)) return false;
        buf_puts(l->out, ": ");
        if (!value(l)) return false;
    }
    buf_putc(l->out, '}');
    return true;
}

static bool list(literal *l, char close) {
    buf_putc(l->out, '[');
    for (bool first = true;; first = false) {
        if (take(l, close)) break;
        if (!first) {
            if (!take(l, ',')) return false;
            if (take(l, close)) break;
            buf_puts(l->out, ", ");
        }
        if (!value(l)) return false;
    }
    buf_putc(l->out, ']');
    return true;
}

static bool value(literal *l) {
    skip_space(l);
    if (l->at == l->end || l->out->failed) return false;
    if (at_quote(l)) return gemma_string(l);
    char c = *l->at;
    if (c == '"' || c == '\'') return python_string(l);
    if (c != '[' && c != '{' && c != '(') return word(l);
    if (++l->depth > LITERAL_DEPTH_MAX) return false;
    l->at++;
    bool ok = c == '{' ? pairs(l, ':', '}', false) : list(l, c == '[' ? ']' : ')');
    l->depth--;
    return ok;
}

static bool convert(buf *out, const char *s, size_t n, const char *quote, bool (*whole)(literal *l)) {
    literal l = {.at = s, .end = s + n, .quote = quote, .out = out, .text = {.max = FORMAT_BYTES_MAX}};
    size_t before = out->len;
    bool ok = whole(&l);
    skip_space(&l);
    ok = ok && l.at == l.end && !l.text.failed && !out->failed;
    buf_free(&l.text);
    if (!ok && !out->failed) out->len = before;
    return ok;
}

bool literal_to_json(buf *out, const char *s, size_t n, const char *quote) {
    return convert(out, s, n, quote, value);
}

/* p->value up to and with its last bracket. */
static bool python_args(literal *l) {
    return pairs(l, '=', ')', true);
}
static bool gemma_args(literal *l) {
    return pairs(l, ':', '}', false);
}

/* The arguments that p->value holds: give them out and end the call. */
static bool args_done(answer_parser *p, const char *quote, bool (*whole)(literal *l)) {
    buf_reset(&p->early);
    if (!convert(&p->early, buf_str(&p->value), p->value.len, quote, whole)) {
        parse_bad(p);
        return false;
    }
    parse_call_args(p, buf_str(&p->early), p->early.len);
    return parse_call_end(p);
}

/* ---- Python ------------------------------------------------------------------------------------------------ */

enum { M_OPEN, M_CLOSE, M_QUOTE };
enum { ST_OPEN, ST_NAME, ST_ARGS, ST_NEXT, ST_AFTER };

static bool is_tool_code(const answer_parser *p) {
    return p->f->calls == &format_tool_code;
}

static void go(answer_parser *p, int st) {
    p->st = st;
    p->active = st == ST_AFTER || (st == ST_NEXT && is_tool_code(p)) ? MARK_BIT(M_CLOSE) : 0;
}

static void name_begin(answer_parser *p) {
    buf_reset(&p->name);
    go(p, ST_NAME);
}

static void python_begin(answer_parser *p, int mark) {
    (void)mark;
    name_begin(p);
    p->in_list = false;
    if (!is_tool_code(p)) go(p, ST_OPEN);
}

static void name_byte(answer_parser *p, char c) {
    if (is_space(c) && !p->name.len) return;
    if (c != '(') {
        buf_putc(&p->name, c);
        if (p->name.len > FORMAT_NAME_MAX || !is_name_char(c)) parse_bad(p);
        return;
    }
    if (is_tool_code(p) && strcmp(buf_str(&p->name), "print") == 0) { /* print(NAME(…)) */
        p->in_list = true;
        name_begin(p);
        return;
    }
    if (!parse_call_begin(p, buf_str(&p->name), p->name.len)) {
        parse_bad(p);
        return;
    }
    buf_reset(&p->value);
    p->depth = 1;
    p->quote = 0;
    p->escaped = false;
    go(p, ST_ARGS);
}

/* Brackets and quotes are counted, so that the end is found; convert reads. */
static void args_byte(answer_parser *p, char c) {
    buf_putc(&p->value, c);
    if (p->quote) {
        if (p->escaped)
            p->escaped = false;
        else if (c == '\\')
            p->escaped = true;
        else if (c == p->quote)
            p->quote = 0;
        return;
    }
    if (c == '"' || c == '\'') p->quote = c;
    if (c == '(' || c == '[' || c == '{') p->depth++;
    if ((c == ')' || c == ']' || c == '}') && --p->depth == 0 && args_done(p, NULL, python_args)) go(p, ST_NEXT);
}

static void next_byte(answer_parser *p, char c) {
    if (is_tool_code(p)) {
        if (c == ';' || (c == ')' && p->in_list)) return;
        name_begin(p);
        name_byte(p, c);
    } else if (c == ',') {
        name_begin(p);
    } else if (c == ']') {
        go(p, ST_AFTER);
    } else {
        parse_bad(p);
    }
}

static void python_byte(answer_parser *p, char c) {
    if (p->st == ST_ARGS) {
        args_byte(p, c);
        return;
    }
    if (p->st == ST_NAME) {
        name_byte(p, c);
        return;
    }
    if (is_space(c)) return;
    if (p->st == ST_NEXT) {
        next_byte(p, c);
    } else if (p->st == ST_AFTER) {
        parse_leave(p);
        parse_text_byte(p, c);
    } else if (c == '[') {
        name_begin(p);
    } else {
        parse_bad(p);
    }
}

static void python_mark(answer_parser *p, int mark) {
    bool over = p->st == ST_AFTER || (p->st == ST_NEXT && is_tool_code(p));
    if (over && mark == M_CLOSE)
        parse_leave(p);
    else
        parse_bad_mark(p, mark);
}

static bool python_end(answer_parser *p) {
    return p->st == ST_AFTER || p->st == ST_NEXT;
}

/* ---- Gemma ------------------------------------------------------------------------------------------------- */

static void gemma_begin(answer_parser *p, int mark) {
    (void)mark;
    buf_reset(&p->name);
    p->st = ST_NAME;
    p->active = MARK_BIT(M_CLOSE) | MARK_BIT(M_QUOTE);
}

static void gemma_name(answer_parser *p, char c) {
    static const char call[] = "call:";
    size_t k = sizeof call - 1;
    if (c != '{') {
        if (!is_space(c) || p->name.len) buf_putc(&p->name, c);
        if (p->name.len > FORMAT_NAME_MAX + k || !(is_name_char(c) || is_space(c))) parse_bad(p);
        return;
    }
    const char *s = buf_str(&p->name);
    if (p->name.len <= k || memcmp(s, call, k) != 0 || !parse_call_begin(p, s + k, p->name.len - k)) {
        parse_bad(p);
        return;
    }
    buf_reset(&p->value);
    p->quote = 0;
    p->st = ST_ARGS;
}

static void gemma_byte(answer_parser *p, char c) {
    if (p->st == ST_NAME) {
        gemma_name(p, c);
    } else if (p->st == ST_ARGS) {
        buf_putc(&p->value, c);
    } else if (!is_space(c)) {
        parse_leave(p);
        parse_text_byte(p, c);
    }
}

static void gemma_mark(answer_parser *p, int mark) {
    const char *text = p->f->calls->marks[mark];
    if (p->st == ST_ARGS && mark == M_QUOTE) {
        buf_puts(&p->value, text);
        p->quote = p->quote ? 0 : '"';
        p->active = p->quote ? MARK_BIT(M_QUOTE) : MARK_BIT(M_CLOSE) | MARK_BIT(M_QUOTE);
    } else if (p->st == ST_ARGS && mark == M_CLOSE && !p->quote) {
        if (!args_done(p, p->f->calls->marks[M_QUOTE], gemma_args)) return;
        p->st = ST_AFTER;
        p->active = MARK_BIT(M_OPEN) | MARK_BIT(M_CLOSE);
    } else if (p->st == ST_AFTER && mark == M_OPEN) {
        gemma_begin(p, mark);
    } else if (p->st == ST_AFTER) {
        parse_leave(p);
    } else {
        parse_bad_mark(p, mark);
    }
}

static bool gemma_end(answer_parser *p) {
    return p->st == ST_AFTER;
}

const call_format format_pythonic = {
    .name = "pythonic",
    .marks = {"<|python_start|>", "<|python_end|>"},
    .open = MARK_BIT(M_OPEN),
    .close = MARK_BIT(M_CLOSE),
    .bare = '[',
    .begin = python_begin,
    .byte = python_byte,
    .mark = python_mark,
    .end = python_end,
};

const call_format format_tool_code = {
    .name = "tool_code",
    .marks = {"```tool_code", "```"},
    .open = MARK_BIT(M_OPEN),
    .close = MARK_BIT(M_CLOSE),
    .begin = python_begin,
    .byte = python_byte,
    .mark = python_mark,
    .end = python_end,
};

const call_format format_gemma4 = {
    .name = "gemma4",
    .marks = {"<|tool_call>", "<tool_call|>", "<|\"|>"},
    .open = MARK_BIT(M_OPEN),
    .close = MARK_BIT(M_CLOSE),
    .begin = gemma_begin,
    .byte = gemma_byte,
    .mark = gemma_mark,
    .end = gemma_end,
};

const call_format format_function_gemma = {
    .name = "function_gemma",
    .marks = {"<start_function_call>", "<end_function_call>", "<escape>"},
    .open = MARK_BIT(M_OPEN),
    .close = MARK_BIT(M_CLOSE),
    .begin = gemma_begin,
    .byte = gemma_byte,
    .mark = gemma_mark,
    .end = gemma_end,
};
