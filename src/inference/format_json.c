/* Calls written as JSON: Hermes and Qwen (<tool_call>{…}</tool_call>), Llama 3 (the whole answer, or after
 * <|python_tag|>), Phi-4 (<|tool_call|>[…]<|/tool_call|>), and the lists of older Mistral models. */
#include "inference/format_internal.h"

/* ---- one value --------------------------------------------------------------------------------------------- */

scan json_scan_byte(json_scan *j, char c) {
    if (!j->first) {
        if (is_space(c)) return SCAN_MORE;
        if (c == ',' || c == ':' || c == '}' || c == ']') return SCAN_BAD;
        j->first = c;
        j->in_string = c == '"';
        j->depth = c == '{' || c == '[';
        return SCAN_MORE;
    }
    if (j->in_string) {
        if (j->escaped)
            j->escaped = false;
        else if (c == '\\')
            j->escaped = true;
        else if (c == '"')
            j->in_string = false;
        return !j->in_string && !j->depth ? SCAN_END : SCAN_MORE;
    }
    if (!j->depth) return is_space(c) || c == ',' || c == '}' || c == ']' ? SCAN_BEFORE : SCAN_MORE;
    if (c == '"') j->in_string = true;
    if (c == '{' || c == '[') return ++j->depth > JSON_DEPTH_MAX ? SCAN_BAD : SCAN_MORE;
    if (c == '}' || c == ']') return --j->depth ? SCAN_MORE : SCAN_END;
    return SCAN_MORE;
}

/* ---- one call ---------------------------------------------------------------------------------------------- */

enum { AT_START, AT_FIRST_KEY, AT_KEY, AT_IN_KEY, AT_COLON, AT_VALUE, AT_AFTER };
enum { FIELD_OTHER, FIELD_NAME, FIELD_ARGS };
#define KEY_MAX 64

void call_object_start(answer_parser *p) {
    p->object = (call_object){0};
    buf_reset(&p->early);
}

static uint8_t field_of(const buf *key) {
    static const char *const args[] = {"arguments", "parameters"};
    const char *k = buf_str(key);
    if (strcmp(k, "name") == 0) return FIELD_NAME;
    for (size_t i = 0; i < 2; i++)
        if (strcmp(k, args[i]) == 0) return FIELD_ARGS;
    return FIELD_OTHER;
}

/* Arguments that are whole. Some models write them as a string, or null where there are none. */
static bool give_args(answer_parser *p, const buf *value) {
    cJSON *v = NULL;
    const char *s = buf_str(value);
    size_t n = value->len;
    if (json_parse(&v, s, n, "arguments", NULL) != ERR_OK) return false;
    bool ok = true;
    if (cJSON_IsObject(v))
        parse_call_args(p, s, n);
    else if (cJSON_IsNull(v))
        parse_call_args(p, "{}", 2);
    else if (cJSON_IsString(v))
        parse_call_args(p, v->valuestring, strlen(v->valuestring));
    else
        ok = false;
    cJSON_Delete(v);
    return ok;
}

static bool take_name(answer_parser *p) {
    cJSON *v = NULL;
    bool ok = !p->object.named && json_parse(&v, buf_str(&p->value), p->value.len, "name", NULL) == ERR_OK &&
              cJSON_IsString(v) && parse_call_begin(p, v->valuestring, strlen(v->valuestring));
    cJSON_Delete(v);
    p->object.named = ok;
    return ok && (!p->early.len || give_args(p, &p->early));
}

static bool value_done(answer_parser *p) {
    call_object *o = &p->object;
    o->at = AT_AFTER;
    if (o->field == FIELD_NAME) return take_name(p);
    if (o->field != FIELD_ARGS || o->streams) return true;
    if (o->named) return give_args(p, &p->value);
    p->early.failed |= p->value.failed;
    buf_append(&p->early, buf_str(&p->value), p->value.len);
    return true;
}

static scan after_byte(answer_parser *p, char c) {
    call_object *o = &p->object;
    if (is_space(c)) return SCAN_MORE;
    if (c == ',') {
        o->at = AT_KEY;
        return SCAN_MORE;
    }
    if (c != '}' || !o->named) return SCAN_BAD;
    if (!o->has_args) parse_call_args(p, "{}", 2);
    return SCAN_END;
}

static scan value_byte(answer_parser *p, char c) {
    call_object *o = &p->object;
    bool fresh = !o->value.first;
    scan r = json_scan_byte(&o->value, c);
    if (fresh && o->value.first && o->field == FIELD_ARGS) {
        if (o->has_args) return SCAN_BAD;
        o->has_args = true;
        o->streams = o->named && c == '{';
    }
    if (r == SCAN_BAD || (fresh && !o->value.first)) return r;
    if (r != SCAN_BEFORE && o->field == FIELD_ARGS && o->streams)
        parse_call_args(p, &c, 1);
    else if (r != SCAN_BEFORE && o->field != FIELD_OTHER)
        buf_putc(&p->value, c);
    if (r == SCAN_MORE) return SCAN_MORE;
    if (!value_done(p)) return SCAN_BAD;
    return r == SCAN_BEFORE ? after_byte(p, c) : SCAN_MORE;
}

/* A JSON answer that is no call is known by its keys, before it is whole. */
static bool key_may_be(const answer_parser *p) {
    static const char *const known[] = {"name", "type", "id", "function", "arguments", "parameters"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(buf_str(&p->key), known[i]) == 0) return true;
    return !p->bare;
}

static scan key_byte(answer_parser *p, char c) {
    call_object *o = &p->object;
    if (o->escaped || c != '"') {
        o->escaped = !o->escaped && c == '\\';
        buf_putc(&p->key, c);
        return p->key.len > KEY_MAX ? SCAN_BAD : SCAN_MORE;
    }
    o->at = AT_COLON;
    o->field = field_of(&p->key);
    return key_may_be(p) ? SCAN_MORE : SCAN_BAD;
}

scan call_object_byte(answer_parser *p, char c) {
    call_object *o = &p->object;
    if (o->at == AT_IN_KEY) return key_byte(p, c);
    if (o->at == AT_VALUE) return value_byte(p, c);
    if (o->at == AT_AFTER) return after_byte(p, c);
    if (is_space(c)) return SCAN_MORE;
    switch (o->at) {
    case AT_START:
        if (c != '{') return SCAN_BAD;
        o->at = AT_FIRST_KEY;
        return SCAN_MORE;
    case AT_FIRST_KEY:
    case AT_KEY:
        if (c != '"') return SCAN_BAD;
        buf_reset(&p->key);
        o->at = AT_IN_KEY;
        o->escaped = false;
        return SCAN_MORE;
    default:
        if (c != ':') return SCAN_BAD;
        buf_reset(&p->value);
        o->value = (json_scan){0};
        o->streams = false;
        o->at = AT_VALUE;
        return SCAN_MORE;
    }
}

/* ---- one call, or a list of them --------------------------------------------------------------------------- */

enum { ST_FIRST, ST_OBJECT, ST_NEXT, ST_AFTER };

/* Marks count between calls only; a text that begins like one inside an object is a string's. */
static void go(answer_parser *p, int st) {
    const call_format *f = p->f->calls;
    p->st = st;
    p->active = st == ST_AFTER || st == ST_FIRST ? f->open | f->close : 0;
}

void json_calls_begin(answer_parser *p, int mark) {
    (void)mark;
    p->in_list = false;
    call_object_start(p);
    go(p, ST_FIRST);
}

static void object_byte(answer_parser *p, char c) {
    scan r = call_object_byte(p, c);
    if (r == SCAN_BAD) {
        parse_bad(p);
    } else if (r == SCAN_END && parse_call_end(p)) {
        call_object_start(p);
        go(p, p->in_list ? ST_NEXT : ST_AFTER);
    }
}

void json_calls_byte(answer_parser *p, char c) {
    if (p->st == ST_OBJECT) {
        object_byte(p, c);
        return;
    }
    if (is_space(c)) return;
    switch (p->st) {
    case ST_FIRST:
        if (c == '[' && !p->in_list && !p->n_here) {
            p->in_list = true;
            p->active = 0;
            return;
        }
        go(p, ST_OBJECT);
        object_byte(p, c);
        return;
    case ST_NEXT:
        if (c == ',')
            go(p, ST_OBJECT);
        else if (c == ']')
            go(p, ST_AFTER);
        else
            parse_bad(p);
        return;
    default: /* after a call: Llama puts several behind each other */
        if (p->f->calls->bare && (c == ';' || c == ',')) return;
        if (p->f->calls->bare && c == '{') {
            go(p, ST_OBJECT);
            object_byte(p, c);
            return;
        }
        parse_leave(p);
        parse_text_byte(p, c);
    }
}

void json_calls_mark(answer_parser *p, int mark) {
    const call_format *f = p->f->calls;
    if (p->st == ST_AFTER && (f->open & MARK_BIT(mark))) {
        p->n_here = 0;
        json_calls_begin(p, mark);
    } else if (p->st == ST_AFTER) {
        parse_leave(p);
    } else {
        parse_bad_mark(p, mark);
    }
}

bool json_calls_end(answer_parser *p) {
    return p->st == ST_AFTER || p->st == ST_NEXT;
}

const call_format format_hermes = {
    .name = "hermes",
    .marks = {"<tool_call>", "</tool_call>"},
    .open = MARK_BIT(0),
    .close = MARK_BIT(1),
    .begin = json_calls_begin,
    .byte = json_calls_byte,
    .mark = json_calls_mark,
    .end = json_calls_end,
};

const call_format format_phi4 = {
    .name = "phi4",
    .marks = {"<|tool_call|>", "<|/tool_call|>"},
    .open = MARK_BIT(0),
    .close = MARK_BIT(1),
    .begin = json_calls_begin,
    .byte = json_calls_byte,
    .mark = json_calls_mark,
    .end = json_calls_end,
};

const call_format format_llama_json = {
    .name = "llama_json",
    .marks = {"<|python_tag|>", "<|python_start|>", "<|python_end|>"},
    .open = MARK_BIT(0),
    .skip = MARK_BIT(1) | MARK_BIT(2), /* Llama 4 puts text between them */
    .bare = '{',
    .begin = json_calls_begin,
    .byte = json_calls_byte,
    .mark = json_calls_mark,
    .end = json_calls_end,
};
