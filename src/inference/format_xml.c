/* Calls of Qwen3-Coder and Qwen3.5: a function in a tag, each parameter in a tag, values as they are.
 *
 *   <tool_call>
 *   <function=NAME>
 *   <parameter=KEY>
 *   value
 *   </parameter>
 *   </function>
 *   </tool_call>
 *
 * The line breaks right inside a parameter's tags belong to the tags. What a value is in JSON is for the tool's schema
 * to say: a parameter that can only be a string is written out as it comes, any other is read when it is whole, and is
 * a string where it is nothing that the schema allows. */
#include "inference/format_internal.h"

#include <math.h>

enum { M_CALL, M_CALL_END, M_FUNCTION, M_FUNCTION_END, M_PARAM, M_PARAM_END };
enum { ST_OPEN, ST_NAME, ST_BODY, ST_KEY, ST_VALUE, ST_AFTER };

#define BETWEEN (MARK_BIT(M_PARAM) | MARK_BIT(M_FUNCTION_END))

/* ---- what a schema allows ---------------------------------------------------------------------------------- */

enum { T_STRING = 1, T_NUMBER = 2, T_INTEGER = 4, T_BOOL = 8, T_NULL = 16, T_OBJECT = 32, T_ARRAY = 64, T_ANY = 127 };

static uint32_t type_named(const char *s) {
    static const char *const names[] = {"string", "number", "integer", "boolean", "null", "object", "array"};
    for (uint32_t i = 0; i < 7; i++)
        if (strcmp(s, names[i]) == 0) return 1u << i;
    return 0;
}

static uint32_t type_of(const cJSON *v) {
    if (cJSON_IsString(v)) return T_STRING;
    if (cJSON_IsNumber(v)) return v->valuedouble == floor(v->valuedouble) ? T_NUMBER | T_INTEGER : T_NUMBER;
    if (cJSON_IsBool(v)) return T_BOOL;
    if (cJSON_IsNull(v)) return T_NULL;
    return cJSON_IsObject(v) ? T_OBJECT : T_ARRAY;
}

static uint32_t schema_types(const cJSON *s, int depth) {
    static const char *const any_of[] = {"anyOf", "oneOf"};
    if (!cJSON_IsObject(s) || depth > 8) return T_ANY;
    uint32_t types = 0;
    const cJSON *t = cJSON_GetObjectItemCaseSensitive(s, "type"), *one;
    if (cJSON_IsString(t)) types = type_named(t->valuestring);
    if (cJSON_IsArray(t)) {
        cJSON_ArrayForEach(one, t) types |= cJSON_IsString(one) ? type_named(one->valuestring) : 0;
    }
    if (types) return types;
    cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(s, "enum")) types |= type_of(one);
    if ((one = cJSON_GetObjectItemCaseSensitive(s, "const"))) types |= type_of(one);
    for (size_t i = 0; i < 2 && !types; i++)
        cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(s, any_of[i])) types |= schema_types(one, depth + 1);
    return types ? types : T_ANY;
}

static uint32_t param_types(const answer_parser *p) {
    const cJSON *f = parse_tool(p, buf_str(&p->name), p->name.len);
    const cJSON *params = f ? cJSON_GetObjectItemCaseSensitive(f, "parameters") : NULL;
    const cJSON *all = params ? cJSON_GetObjectItemCaseSensitive(params, "properties") : NULL;
    return schema_types(all ? cJSON_GetObjectItemCaseSensitive(all, buf_str(&p->key)) : NULL, 0);
}

/* ---- values ------------------------------------------------------------------------------------------------ */

static void put_string(answer_parser *p, const char *s, size_t n) {
    buf_reset(&p->early);
    json_string(&p->early, s, n);
    parse_call_args(p, buf_str(&p->early), p->early.len);
}

/* The inside of a JSON string, a byte at a time. */
static void put_string_byte(answer_parser *p, char c) {
    char t[8];
    unsigned char u = (unsigned char)c;
    if (u >= 0x80 || (u >= 0x20 && c != '"' && c != '\\' && u != 0x7f)) {
        parse_call_args(p, &c, 1);
        return;
    }
    int n = c == '\n'               ? snprintf(t, sizeof t, "\\n")
            : c == '"' || c == '\\' ? snprintf(t, sizeof t, "\\%c", c)
                                    : snprintf(t, sizeof t, "\\u%04x", (unsigned)u);
    parse_call_args(p, t, (size_t)n);
}

static bool takes_type(uint32_t allowed, const cJSON *v) {
    uint32_t t = type_of(v);
    return (t & allowed) != 0 && t != T_STRING; /* a quoted string stands for itself, quotes included */
}

/* The value that is written in p->value, as JSON. */
static void put_value(answer_parser *p) {
    const char *s = buf_str(&p->value);
    size_t n = p->value.len;
    while (n && is_space(*s)) s++, n--;
    while (n && is_space(s[n - 1])) n--;
    cJSON *v = NULL;
    buf_reset(&p->early);
    bool read = json_parse(&v, s, n, "value", NULL) == ERR_OK;
    if (read) {
        buf_append(&p->early, s, n);
    } else if (literal_to_json(&p->early, s, n, NULL)) { /* True, None, {'a': 1}: a template that prints like Python */
        read = json_parse(&v, buf_str(&p->early), p->early.len, "value", NULL) == ERR_OK;
    }
    if (read && takes_type(p->types, v))
        parse_call_args(p, buf_str(&p->early), p->early.len);
    else
        put_string(p, buf_str(&p->value), p->value.len);
    cJSON_Delete(v);
}

static void value_begin(answer_parser *p) {
    if (p->n_here++) parse_call_args(p, ", ", 2);
    put_string(p, buf_str(&p->key), p->key.len);
    parse_call_args(p, ": ", 2);
    p->types = param_types(p);
    if (p->types == T_STRING) parse_call_args(p, "\"", 1);
    buf_reset(&p->value);
    p->depth = 0; /* bytes of the value so far */
    p->quote = 0; /* '\n': a line break is held back */
}

static void value_byte(answer_parser *p, char c) {
    if (!p->depth++ && c == '\n') return;
    if (p->quote) {
        if (p->types == T_STRING)
            put_string_byte(p, '\n');
        else
            buf_putc(&p->value, '\n');
        p->quote = 0;
    }
    if (c == '\n')
        p->quote = c;
    else if (p->types == T_STRING)
        put_string_byte(p, c);
    else
        buf_putc(&p->value, c);
}

static void value_end(answer_parser *p) {
    if (p->types == T_STRING)
        parse_call_args(p, "\"", 1);
    else
        put_value(p);
}

/* ---- tags -------------------------------------------------------------------------------------------------- */

static void go(answer_parser *p, int st) {
    static const uint32_t active[] = {[ST_OPEN] = MARK_BIT(M_FUNCTION),
                                      [ST_NAME] = 0,
                                      [ST_BODY] = BETWEEN,
                                      [ST_KEY] = 0,
                                      [ST_VALUE] = MARK_BIT(M_PARAM_END),
                                      [ST_AFTER] = MARK_BIT(M_CALL) | MARK_BIT(M_CALL_END) | MARK_BIT(M_FUNCTION)};
    p->st = st;
    p->active = active[st];
}

static void xml_begin(answer_parser *p, int mark) {
    buf_reset(&p->name);
    go(p, mark == M_FUNCTION ? ST_NAME : ST_OPEN);
}

static void name_done(answer_parser *p) {
    if (!parse_call_begin(p, buf_str(&p->name), p->name.len)) {
        parse_bad(p);
        return;
    }
    p->n_here = 0; /* parameters from here on */
    parse_call_args(p, "{", 1);
    go(p, ST_BODY);
}

static void head_byte(answer_parser *p, char c, buf *to) {
    if (c != '>') {
        buf_putc(to, c);
        if (to->len > FORMAT_HEAD_MAX || c == '\n' || c == '<') parse_bad(p);
        return;
    }
    if (p->st == ST_NAME) {
        name_done(p);
        return;
    }
    value_begin(p);
    go(p, ST_VALUE);
}

static void xml_byte(answer_parser *p, char c) {
    switch (p->st) {
    case ST_NAME: head_byte(p, c, &p->name); break;
    case ST_KEY: head_byte(p, c, &p->key); break;
    case ST_VALUE: value_byte(p, c); break;
    default:
        if (is_space(c)) break;
        if (p->st == ST_AFTER) {
            parse_leave(p);
            parse_text_byte(p, c);
        } else {
            parse_bad(p);
        }
    }
}

static void function_end(answer_parser *p) {
    parse_call_args(p, "}", 1);
    if (parse_call_end(p)) go(p, ST_AFTER);
}

static void xml_mark(answer_parser *p, int mark) {
    if (p->st == ST_OPEN && mark == M_FUNCTION) {
        go(p, ST_NAME);
    } else if (p->st == ST_BODY && mark == M_PARAM) {
        buf_reset(&p->key);
        go(p, ST_KEY);
    } else if (p->st == ST_BODY && mark == M_FUNCTION_END) {
        function_end(p);
    } else if (p->st == ST_VALUE && mark == M_PARAM_END) {
        value_end(p);
        go(p, ST_BODY);
    } else if (p->st == ST_AFTER && mark == M_CALL_END) {
        parse_leave(p);
    } else if (p->st == ST_AFTER && (mark == M_CALL || mark == M_FUNCTION)) {
        xml_begin(p, mark);
    } else if (p->st == ST_VALUE || p->st == ST_NAME || p->st == ST_KEY) { /* a tag's token inside a value is text */
        for (const char *s = p->f->calls->marks[mark]; *s && p->mode == MODE_CALLS; s++) xml_byte(p, *s);
    } else {
        parse_bad_mark(p, mark);
    }
}

static bool xml_end(answer_parser *p) {
    return p->st == ST_AFTER;
}

const call_format format_qwen_xml = {
    .name = "qwen_xml",
    .marks = {"<tool_call>", "</tool_call>", "<function=", "</function>", "<parameter=", "</parameter>"},
    .open = MARK_BIT(M_CALL) | MARK_BIT(M_FUNCTION),
    .close = MARK_BIT(M_CALL_END),
    .begin = xml_begin,
    .byte = xml_byte,
    .mark = xml_mark,
    .end = xml_end,
};
