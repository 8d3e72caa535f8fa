/* Calls in sections of tags, their arguments plain JSON:
 *
 *   DeepSeek V3, R1   <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n{…}\n```
 *                     <｜tool▁call▁end｜>…<｜tool▁calls▁end｜>
 *   DeepSeek V3.1
 * <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>…<｜tool▁calls▁end｜> Kimi K2
 * <|tool_calls_section_begin|><|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}
 *                     <|tool_call_end|>…<|tool_calls_section_end|>
 *   Mistral           [TOOL_CALLS]NAME[ARGS]{…}, with [CALL_ID]ID before [ARGS] in some; [TOOL_CALLS][{…}, …] in older
 *
 * Whether a DeepSeek call is of the one or the other kind is told by what follows the separator. */
#include "inference/format_internal.h"

enum { ST_BETWEEN, ST_HEAD, ST_LANG, ST_ARGS, ST_TAIL, ST_ID };

/* What the marks are for. */
enum { M_SECTION, M_SECTION_END, M_CALL, M_CALL_END, M_SEP, M_ID };

static void go(answer_parser *p, int st) {
    p->st = st;
    p->active = 0;
    if (st == ST_ARGS) return; /* JSON */
    p->active = MARK_BIT(M_SECTION) | MARK_BIT(M_SECTION_END) | MARK_BIT(M_CALL) | MARK_BIT(M_CALL_END) |
                MARK_BIT(M_SEP) | MARK_BIT(M_ID);
}

static bool is_mistral(const answer_parser *p) {
    return p->f->calls == &format_mistral;
}

static void head_begin(answer_parser *p) {
    buf_reset(&p->name);
    go(p, ST_HEAD);
}

static void tagged_begin(answer_parser *p, int mark) {
    p->in_list = false;
    if (mark == M_CALL || is_mistral(p))
        head_begin(p);
    else
        go(p, ST_BETWEEN);
}

/* ---- names ------------------------------------------------------------------------------------------------- */

/* Kimi: functions.NAME:INDEX */
static void plain_name(const char **s, size_t *n) {
    static const char prefix[] = "functions.";
    size_t k = sizeof prefix - 1, end = *n;
    if (*n > k && memcmp(*s, prefix, k) == 0) *s += k, *n -= k, end -= k;
    while (end && (*s)[end - 1] >= '0' && (*s)[end - 1] <= '9') end--;
    if (end > 1 && end < *n && (*s)[end - 1] == ':') *n = end - 1;
}

static void args_begin(answer_parser *p) {
    const char *s = buf_str(&p->name);
    size_t n = p->name.len;
    while (n && is_space(*s)) s++, n--;
    while (n && is_space(s[n - 1])) n--;
    if (p->f->calls->own_ids) plain_name(&s, &n);
    if (!parse_call_begin(p, s, n)) {
        parse_bad(p);
        return;
    }
    p->json = (json_scan){0};
    go(p, ST_ARGS);
}

/* ---- bytes ------------------------------------------------------------------------------------------------- */

static void args_byte(answer_parser *p, char c) {
    if (!p->json.first && c != '{' && !is_space(c)) {
        parse_bad(p);
        return;
    }
    bool fresh = !p->json.first;
    scan r = json_scan_byte(&p->json, c);
    if (fresh && !p->json.first) return;
    if (r == SCAN_BAD) {
        parse_bad(p);
        return;
    }
    parse_call_args(p, &c, 1);
    if (r == SCAN_END && parse_call_end(p)) go(p, ST_TAIL);
}

static void head_byte(answer_parser *p, char c) {
    if (is_mistral(p) && c == '[' && !p->name.len) { /* the older form; from here on the states are format_json.c's */
        json_calls_begin(p, M_SECTION);
        json_calls_byte(p, c);
        return;
    }
    if (is_mistral(p) && c == '{' && p->name.len) { /* some leave the separator out */
        args_begin(p);
        if (p->mode == MODE_CALLS) args_byte(p, c);
        return;
    }
    if (is_mistral(p) && is_space(c) && !p->name.len) return;
    buf_putc(&p->name, c);
    if (p->name.len > FORMAT_HEAD_MAX || (is_mistral(p) && !is_name_char(c) && !is_space(c))) parse_bad(p);
}

/* DeepSeek V3: NAME\n```json\n{ behind the separator; V3.1: { at once. */
static void lang_byte(answer_parser *p, char c) {
    static const char fence[] = "```json";
    if (c == '{' && !p->value.len) {
        args_begin(p); /* the head was the name */
    } else if (c == '{') {
        const char *s = buf_str(&p->value);
        size_t n = p->value.len, k = sizeof fence - 1;
        while (n && is_space(s[n - 1])) n--;
        if (n < k || memcmp(s + n - k, fence, k) != 0) {
            parse_bad(p);
            return;
        }
        buf_reset(&p->name);
        buf_append(&p->name, s, n - k);
        args_begin(p);
    } else {
        if (p->value.len || !is_space(c)) buf_putc(&p->value, c);
        if (p->value.len > FORMAT_HEAD_MAX) parse_bad(p);
        return;
    }
    if (p->mode == MODE_CALLS) args_byte(p, c);
}

static void tagged_byte(answer_parser *p, char c) {
    if (p->in_list) {
        json_calls_byte(p, c);
        return;
    }
    switch (p->st) {
    case ST_HEAD: head_byte(p, c); break;
    case ST_LANG: lang_byte(p, c); break;
    case ST_ARGS: args_byte(p, c); break;
    case ST_ID: break;
    default:
        if (is_space(c) || (p->st == ST_TAIL && c == '`')) break;
        if (!p->n_here) {
            parse_bad(p);
        } else {
            parse_leave(p);
            parse_text_byte(p, c);
        }
    }
}

/* ---- marks ------------------------------------------------------------------------------------------------- */

static void tagged_mark(answer_parser *p, int mark) {
    bool between = p->st == ST_BETWEEN || p->st == ST_TAIL;
    if (p->in_list) {
        if (!json_calls_end(p) || mark != M_SECTION) {
            parse_bad_mark(p, mark);
            return;
        }
        p->in_list = false;
        p->n_here = 0;
        head_begin(p);
    } else if (p->st == ST_HEAD && mark == M_SEP) {
        buf_reset(&p->value);
        if (is_mistral(p) || p->f->calls->own_ids)
            args_begin(p);
        else
            go(p, ST_LANG);
    } else if (p->st == ST_HEAD && mark == M_ID) {
        go(p, ST_ID);
    } else if (p->st == ST_ID && mark == M_SEP) {
        args_begin(p);
    } else if (between && (mark == M_CALL || (mark == M_SECTION && is_mistral(p)))) {
        head_begin(p);
    } else if (p->st == ST_TAIL && mark == M_CALL_END) {
        go(p, ST_BETWEEN);
    } else if (between && mark == M_SECTION_END && p->n_here) {
        parse_leave(p);
    } else if (between && mark == M_SECTION && p->n_here) {
        go(p, ST_BETWEEN);
    } else {
        parse_bad_mark(p, mark);
    }
}

static bool tagged_end(answer_parser *p) {
    if (p->in_list) return json_calls_end(p);
    return (p->st == ST_BETWEEN || p->st == ST_TAIL) && p->n_here;
}

const call_format format_mistral = {
    .name = "mistral",
    .marks = {[M_SECTION] = "[TOOL_CALLS]", [M_SEP] = "[ARGS]", [M_ID] = "[CALL_ID]"},
    .open = MARK_BIT(M_SECTION),
    .begin = tagged_begin,
    .byte = tagged_byte,
    .mark = tagged_mark,
    .end = tagged_end,
};

const call_format format_deepseek = {
    .name = "deepseek",
    .marks = {[M_SECTION] = "<｜tool▁calls▁begin｜>",
              [M_SECTION_END] = "<｜tool▁calls▁end｜>",
              [M_CALL] = "<｜tool▁call▁begin｜>",
              [M_CALL_END] = "<｜tool▁call▁end｜>",
              [M_SEP] = "<｜tool▁sep｜>"},
    .open = MARK_BIT(M_SECTION) | MARK_BIT(M_CALL),
    .close = MARK_BIT(M_SECTION_END) | MARK_BIT(M_CALL_END),
    .begin = tagged_begin,
    .byte = tagged_byte,
    .mark = tagged_mark,
    .end = tagged_end,
};

const call_format format_kimi = {
    .name = "kimi",
    .marks = {[M_SECTION] = "<|tool_calls_section_begin|>",
              [M_SECTION_END] = "<|tool_calls_section_end|>",
              [M_CALL] = "<|tool_call_begin|>",
              [M_CALL_END] = "<|tool_call_end|>",
              [M_SEP] = "<|tool_call_argument_begin|>"},
    .open = MARK_BIT(M_SECTION) | MARK_BIT(M_CALL),
    .close = MARK_BIT(M_SECTION_END) | MARK_BIT(M_CALL_END),
    .own_ids = true,
    .begin = tagged_begin,
    .byte = tagged_byte,
    .mark = tagged_mark,
    .end = tagged_end,
};
