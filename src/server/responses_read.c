/* Requests of OpenAI's Responses: into the messages, tools and switches that every dialect comes down to.
 *
 * The input is a list of items, several of which may be one turn of the assistant. Each becomes a message of its own
 * first; responses_join then puts together what belongs to one turn. An item that only names one of an earlier answer
 * stands as {"ref": ID} until responses_prepare has looked it up. */
#include "server/responses.h"

#include "base/mem.h"

#include <string.h>

#define WHERE_MAX     64
#define METADATA_MAX  16
#define METADATA_KEY  64
#define METADATA_TEXT 512

static err_code no_memory(err *e) {
    return err_nomem(e, "the messages");
}

static const char *str_in(const cJSON *o, const char *key) {
    const cJSON *v = json_get(o, key);
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

/* ---- items ------------------------------------------------------------------------------------------------- */

static err_code take_metadata(answer *a, const cJSON *v, err *e) {
    const cJSON *f;
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "'metadata' must be an object");
    if (cJSON_GetArraySize(v) > METADATA_MAX)
        return err_set(e, ERR_INVALID, "'metadata' has more than %d pairs", METADATA_MAX);
    cJSON_ArrayForEach(f, v) {
        if (!cJSON_IsString(f) || strlen(f->string) > METADATA_KEY || strlen(f->valuestring) > METADATA_TEXT)
            return err_set(e, ERR_INVALID,
                           "'metadata': \"%.64s\": names have at most %d bytes, values are strings of %d", f->string,
                           METADATA_KEY, METADATA_TEXT);
    }
    const cJSON *label = json_get(v, "polder_label");
    return label ? openai_take_label(a, label, e) : ERR_OK;
}

static cJSON *add_message(answer *a, const char *by, const char *content) {
    cJSON *m = cJSON_CreateObject();
    bool ok = m && cJSON_AddStringToObject(m, "role", by) && cJSON_AddStringToObject(m, "content", content) &&
              cJSON_AddItemToArray(a->messages, m);
    if (ok) return m;
    cJSON_Delete(m);
    return NULL;
}

/* The text of a list of parts of the types t1 and t2, joined by line ends. */
static err_code read_parts(const cJSON *list, const char *where, const char *t1, const char *t2, buf *out, err *e) {
    static const char known[] = "type text annotations logprobs";
    const cJSON *p;
    int i = 0;
    if (!cJSON_IsArray(list)) return err_set(e, ERR_INVALID, "%s must be a string or an array of parts", where);
    cJSON_ArrayForEach(p, list) {
        char at[WHERE_MAX + 16];
        snprintf(at, sizeof at, "%s[%d]", where, i);
        const char *type = cJSON_IsObject(p) ? str_in(p, "type") : NULL, *text = NULL;
        if (!type) return err_set(e, ERR_INVALID, "%s must be an object with a type", at);
        if (strcmp(type, t1) != 0 && strcmp(type, t2) != 0)
            return err_set(e, ERR_UNSUPPORTED, "%s: parts of type \"%.40s\" are not supported here, only %s", at, type,
                           t1);
        err_code rc = openai_check_keys(p, at, known, e);
        if (rc != ERR_OK) return rc;
        text = str_in(p, "text");
        if (!text) return err_set(e, ERR_INVALID, "%s must have a string 'text'", at);
        if (i++) buf_putc(out, '\n');
        buf_puts(out, text);
    }
    return buf_check(out, "a message", e);
}

static err_code read_message(answer *a, const cJSON *o, const char *where, err *e) {
    static const char known[] = "type role content id status phase";
    static const char *const roles[] = {"user", "system", "developer", "assistant"};
    err_code rc = openai_check_keys(o, where, known, e);
    if (rc != ERR_OK) return rc;
    const char *by = str_in(o, "role");
    size_t k = 0;
    while (by && k < 4 && strcmp(by, roles[k]) != 0) k++;
    if (!by || k == 4) return err_set(e, ERR_INVALID, "%s.role must be user, assistant, system or developer", where);
    char at[WHERE_MAX + 16];
    snprintf(at, sizeof at, "%s.content", where);
    const cJSON *c = json_get(o, "content");
    buf text = {.max = ANSWER_BYTES_MAX};
    buf_puts(&text, cJSON_IsString(c) ? c->valuestring : "");
    if (!cJSON_IsString(c)) rc = read_parts(c, at, k == 3 ? "output_text" : "input_text", "text", &text, e);
    if (rc == ERR_OK) rc = buf_check(&text, "a message", e);
    if (rc == ERR_OK && !add_message(a, k == 2 ? "system" : roles[k], buf_str(&text))) rc = no_memory(e);
    buf_free(&text);
    return rc;
}

static err_code check_caller(const cJSON *o, const char *where, err *e) {
    const cJSON *caller = json_get(o, "caller");
    const char *by = caller ? str_in(caller, "type") : "direct";
    if (by && strcmp(by, "direct") == 0) return ERR_OK;
    return err_set(e, ERR_UNSUPPORTED, "%s.caller: only {\"type\": \"direct\"} is supported", where);
}

static err_code read_call(answer *a, const cJSON *o, const char *where, err *e) {
    static const char known[] = "type id call_id name arguments status caller";
    err_code rc = openai_check_keys(o, where, known, e);
    if (rc == ERR_OK) rc = check_caller(o, where, e);
    if (rc != ERR_OK) return rc;
    const cJSON *args = json_get(o, "arguments");
    if (!cJSON_IsString(args)) return err_set(e, ERR_INVALID, "%s.arguments must be a string of JSON", where);
    cJSON *m = add_message(a, "assistant", "");
    if (!m) return no_memory(e);
    return openai_put_call(m, where, str_in(o, "call_id"), str_in(o, "name"), args->valuestring, e);
}

static err_code read_output(answer *a, const cJSON *o, const char *where, err *e) {
    static const char known[] = "type id call_id output status caller";
    err_code rc = openai_check_keys(o, where, known, e);
    if (rc == ERR_OK) rc = check_caller(o, where, e);
    if (rc != ERR_OK) return rc;
    const char *id = str_in(o, "call_id");
    if (!id || !id[0])
        return err_set(e, ERR_INVALID, "%s.call_id is missing: it names the call that is answered", where);
    char at[WHERE_MAX + 16];
    snprintf(at, sizeof at, "%s.output", where);
    const cJSON *c = json_get(o, "output");
    buf text = {.max = ANSWER_BYTES_MAX};
    buf_puts(&text, cJSON_IsString(c) ? c->valuestring : "");
    if (!cJSON_IsString(c)) rc = read_parts(c, at, "input_text", "output_text", &text, e);
    cJSON *m = rc == ERR_OK && !text.failed ? add_message(a, "tool", buf_str(&text)) : NULL;
    if (rc == ERR_OK && (!m || !cJSON_AddStringToObject(m, "tool_call_id", id))) rc = no_memory(e);
    buf_free(&text);
    return rc;
}

static err_code read_reasoning(answer *a, const cJSON *o, const char *where, err *e) {
    static const char known[] = "type id summary content encrypted_content status";
    err_code rc = openai_check_keys(o, where, known, e);
    if (rc != ERR_OK) return rc;
    if (json_get(o, "encrypted_content"))
        return err_set(e, ERR_UNSUPPORTED,
                       "%s.encrypted_content is not supported: nobody here can read it; leave it out", where);
    const cJSON *content = json_get(o, "content"), *summary = json_get(o, "summary");
    bool full = cJSON_IsArray(content) && content->child;
    const cJSON *from = full ? content : summary;
    if (!from) return ERR_OK;
    char at[WHERE_MAX + 16];
    snprintf(at, sizeof at, "%s.%s", where, full ? "content" : "summary");
    buf text = {.max = ANSWER_BYTES_MAX};
    rc = read_parts(from, at, full ? "reasoning_text" : "summary_text", "text", &text, e);
    if (rc == ERR_OK && text.len) {
        cJSON *m = add_message(a, "assistant", "");
        if (!m || !cJSON_AddStringToObject(m, "reasoning_content", buf_str(&text))) rc = no_memory(e);
    }
    buf_free(&text);
    return rc;
}

static err_code read_reference(answer *a, const cJSON *o, const char *where, err *e) {
    responses_answer *s = a->own;
    const char *id = str_in(o, "id");
    if (!id || !id[0] || strlen(id) > 64)
        return err_set(e, ERR_INVALID, "%s: an item that only refers to another needs its 'id'", where);
    cJSON *m = cJSON_CreateObject();
    if (m && cJSON_AddStringToObject(m, "ref", id) && cJSON_AddItemToArray(a->messages, m)) {
        s->references = true;
        return ERR_OK;
    }
    cJSON_Delete(m);
    return no_memory(e);
}

static err_code read_item(answer *a, const cJSON *o, int i, err *e) {
    static const struct {
        const char *type;
        err_code (*read)(answer *a, const cJSON *o, const char *where, err *e);
    } kinds[] = {{"message", read_message},
                 {"function_call", read_call},
                 {"function_call_output", read_output},
                 {"reasoning", read_reasoning},
                 {"item_reference", read_reference}};
    char where[WHERE_MAX];
    snprintf(where, sizeof where, "input[%d]", i);
    if (!cJSON_IsObject(o)) return err_set(e, ERR_INVALID, "%s must be an object", where);
    const char *type = json_get(o, "type") ? str_in(o, "type") : json_get(o, "role") ? "message" : "item_reference";
    for (size_t k = 0; type && k < sizeof kinds / sizeof *kinds; k++)
        if (strcmp(type, kinds[k].type) == 0) return kinds[k].read(a, o, where, e);
    return err_set(e, ERR_UNSUPPORTED, "%s: items of type \"%.40s\" are not supported", where, type ? type : "?");
}

static err_code read_input(answer *a, err *e) {
    const cJSON *v = json_get(a->body, "input"), *o;
    int i = 0;
    if (cJSON_IsString(v)) return add_message(a, "user", v->valuestring) ? ERR_OK : no_memory(e);
    if (!cJSON_IsArray(v) || (!v->child && !((responses_answer *)a->own)->previous))
        return err_set(e, ERR_INVALID, "'input' must be a string or an array of at least one item");
    cJSON_ArrayForEach(o, v) {
        err_code rc = read_item(a, o, i++, e);
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

static err_code read_instructions(answer *a, err *e) {
    responses_answer *s = a->own;
    const cJSON *v = json_get(a->body, "instructions");
    if (!v) return ERR_OK;
    if (!cJSON_IsString(v)) return err_set(e, ERR_INVALID, "'instructions' must be a string");
    if (!v->valuestring[0]) return ERR_OK;
    s->instructions = true;
    return add_message(a, "system", v->valuestring) ? ERR_OK : no_memory(e);
}

/* ---- one turn of an assistant ------------------------------------------------------------------------------- */

static bool is_assistant(const cJSON *m) {
    const char *by = m ? str_in(m, "role") : NULL;
    return by && strcmp(by, "assistant") == 0;
}

static bool has_content(const cJSON *m) {
    const char *c = str_in(m, "content");
    return c && c[0];
}

/* Does `b` go on with the turn that `a` is so far? */
static bool joins(const cJSON *a, const cJSON *b) {
    if (!is_assistant(a) || !is_assistant(b)) return false;
    bool begun = has_content(a) || json_get(a, "tool_calls");
    if (json_get(b, "reasoning_content") && (begun || json_get(a, "reasoning_content"))) return false;
    return !(has_content(a) && has_content(b));
}

/* Moves what b has into a. */
static err_code merge(cJSON *a, cJSON *b, err *e) {
    cJSON *why = cJSON_DetachItemFromObjectCaseSensitive(b, "reasoning_content");
    if (why && !cJSON_AddItemToObject(a, "reasoning_content", why)) {
        cJSON_Delete(why);
        return no_memory(e);
    }
    cJSON *text = has_content(b) ? cJSON_DetachItemFromObjectCaseSensitive(b, "content") : NULL;
    if (text && !cJSON_ReplaceItemInObjectCaseSensitive(a, "content", text)) {
        cJSON_Delete(text);
        return no_memory(e);
    }
    cJSON *from = cJSON_GetObjectItemCaseSensitive(b, "tool_calls");
    if (!from) return ERR_OK;
    cJSON *to = cJSON_GetObjectItemCaseSensitive(a, "tool_calls");
    if (!to) to = cJSON_AddArrayToObject(a, "tool_calls");
    if (!to) return no_memory(e);
    while (from->child) cJSON_AddItemToArray(to, cJSON_DetachItemViaPointer(from, from->child));
    return ERR_OK;
}

err_code responses_join(answer *a, err *e) {
    for (cJSON *m = a->messages->child; m && m->next;) {
        if (!joins(m, m->next)) {
            m = m->next;
            continue;
        }
        err_code rc = merge(m, m->next, e);
        if (rc != ERR_OK) return rc;
        cJSON_Delete(cJSON_DetachItemViaPointer(a->messages, m->next));
    }
    return ERR_OK;
}

/* ---- tools ------------------------------------------------------------------------------------------------- */

static err_code take_tool(answer *a, const cJSON *t, int i, err *e) {
    static const char known[] = "type name description parameters strict defer_loading allowed_callers";
    char at[WHERE_MAX];
    bool strict = false;
    snprintf(at, sizeof at, "tools[%d]", i);
    const char *type = cJSON_IsObject(t) ? str_in(t, "type") : NULL;
    if (!type) return err_set(e, ERR_INVALID, "%s must be an object with a type", at);
    if (strcmp(type, "function") != 0)
        return err_set(e, ERR_UNSUPPORTED, "%s: type \"%.40s\" is not supported, only \"function\"", at, type);
    err_code rc = openai_check_keys(t, at, known, e);
    if (rc == ERR_OK) rc = json_get_bool(t, "strict", &strict, e);
    if (rc != ERR_OK) return rc;
    const cJSON *params = json_get(t, "parameters"), *text = json_get(t, "description"), *c,
                *callers = json_get(t, "allowed_callers"), *later = json_get(t, "defer_loading");
    bool direct = !callers || cJSON_IsArray(callers);
    cJSON_ArrayForEach(c, callers) direct = direct && cJSON_IsString(c) && strcmp(c->valuestring, "direct") == 0;
    if (!direct || (later && !cJSON_IsFalse(later)))
        return err_set(e, ERR_UNSUPPORTED, "%s.%s is not supported: leave it out", at,
                       direct ? "defer_loading" : "allowed_callers");
    if (params && !cJSON_IsObject(params))
        return err_set(e, ERR_INVALID, "%s.parameters must be a JSON schema: an object", at);
    if (text && !cJSON_IsString(text)) return err_set(e, ERR_INVALID, "%s.description must be a string", at);
    return openai_put_tool(a, at, str_in(t, "name"), text ? text->valuestring : NULL, params, strict, e);
}

static err_code take_tools(answer *a, const cJSON *v, err *e) {
    const cJSON *t;
    int i = 0;
    if (!cJSON_IsArray(v)) return err_set(e, ERR_INVALID, "'tools' must be an array");
    if (cJSON_GetArraySize(v) > OPENAI_TOOLS_MAX)
        return err_set(e, ERR_INVALID, "'tools' has more than %d tools", OPENAI_TOOLS_MAX);
    cJSON_ArrayForEach(t, v) {
        err_code rc = take_tool(a, t, i++, e);
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

/* {"type": "allowed_tools", "mode", "tools": [{"type": "function", "name"}]}, in the form of the chat dialect. */
static err_code take_allowed(answer *a, const cJSON *v, err *e) {
    responses_answer *s = a->own;
    const cJSON *list = json_get(v, "tools"), *t;
    const char *mode = str_in(v, "mode");
    bool must = mode && strcmp(mode, "required") == 0;
    if (!mode || (!must && strcmp(mode, "auto") != 0) || !cJSON_IsArray(list))
        return err_set(e, ERR_INVALID,
                       "'tool_choice': allowed_tools needs a mode (auto or required) and an array of "
                       "tools");
    a->tool_mode = must ? TOOL_REQUIRED : TOOL_AUTO;
    s->allowed = cJSON_CreateArray();
    if (!s->allowed) return err_nomem(e, "the tools");
    cJSON_ArrayForEach(t, list) {
        const char *name = cJSON_IsObject(t) ? str_in(t, "name") : NULL, *type = name ? str_in(t, "type") : NULL;
        if (!type || strcmp(type, "function") != 0)
            return err_set(e, ERR_INVALID, "'tool_choice': every one of allowed_tools must be a function with a name");
        cJSON *o = cJSON_CreateObject(), *f = o ? cJSON_AddObjectToObject(o, "function") : NULL;
        if (!f || !cJSON_AddStringToObject(f, "name", name) || !cJSON_AddItemToArray(s->allowed, o)) {
            cJSON_Delete(o);
            return err_nomem(e, "the tools");
        }
    }
    a->allowed_tools = s->allowed;
    return ERR_OK;
}

static err_code take_tool_choice(answer *a, const cJSON *v, err *e) {
    if (cJSON_IsString(v)) return openai_take_tool_choice(a, v, e);
    const char *type = cJSON_IsObject(v) ? str_in(v, "type") : NULL;
    if (!type) return openai_take_tool_choice(a, v, e);
    if (strcmp(type, "allowed_tools") == 0) return take_allowed(a, v, e);
    if (strcmp(type, "function") != 0)
        return err_set(e, ERR_UNSUPPORTED, "'tool_choice': type \"%.40s\" is not supported", type);
    a->tool_named = str_in(v, "name");
    if (!a->tool_named) return err_set(e, ERR_INVALID, "'tool_choice': a function with a name is needed");
    a->tool_mode = TOOL_NAMED;
    return ERR_OK;
}

/* ---- switches ---------------------------------------------------------------------------------------------- */

static err_code take_max_tokens(answer *a, const cJSON *v, err *e) {
    return openai_take_int(a, v, 1, INT32_MAX, &a->r.max_tokens, e);
}

static err_code take_form(answer *a, const cJSON *v, err *e) {
    static const char known[] = "type name description schema strict";
    const char *type = cJSON_IsObject(v) ? str_in(v, "type") : NULL;
    if (!type) return err_set(e, ERR_INVALID, "'text.format' must be an object with a type");
    err_code rc = openai_check_keys(v, "'text.format'", known, e);
    if (rc != ERR_OK || strcmp(type, "text") == 0) return rc;
    if (strcmp(type, "json_schema") == 0) return openai_ask_schema(a, "text.format.schema", json_get(v, "schema"), e);
    if (strcmp(type, "json_object") != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "'text.format': \"%.40s\" is not supported; text, json_object and json_schema are", type);
    cJSON *any = cJSON_CreateObject();
    rc = any && cJSON_AddStringToObject(any, "type", "object") ? openai_ask_schema(a, "text.format", any, e)
                                                               : err_nomem(e, "the form of an answer");
    cJSON_Delete(any);
    return rc;
}

static err_code take_text(answer *a, const cJSON *v, err *e) {
    static const char known[] = "format verbosity";
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "'text' must be an object");
    err_code rc = openai_check_keys(v, "'text'", known, e);
    const cJSON *wordy = json_get(v, "verbosity"), *form = json_get(v, "format");
    if (rc == ERR_OK && wordy && !(cJSON_IsString(wordy) && strcmp(wordy->valuestring, "medium") == 0))
        return err_set(e, ERR_UNSUPPORTED, "'text.verbosity' is not supported: leave it out");
    return rc == ERR_OK && form ? take_form(a, form, e) : rc;
}

static err_code take_reasoning(answer *a, const cJSON *v, err *e) {
    static const char known[] = "effort summary generate_summary", *const names[] = {"summary", "generate_summary"};
    static const char *const kinds[] = {"auto", "concise", "detailed"};
    responses_answer *s = a->own;
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "'reasoning' must be an object");
    err_code rc = openai_check_keys(v, "'reasoning'", known, e);
    const cJSON *effort = json_get(v, "effort");
    if (rc == ERR_OK && effort) rc = openai_take_effort(a, effort, e);
    for (int i = 0; rc == ERR_OK && i < 2; i++) {
        const cJSON *f = json_get(v, names[i]);
        if (!f) continue;
        for (int k = 0; k < 3; k++) s->summary |= cJSON_IsString(f) && strcmp(f->valuestring, kinds[k]) == 0;
        if (!s->summary) return err_set(e, ERR_INVALID, "'reasoning.%s' must be auto, concise or detailed", names[i]);
    }
    return rc;
}

/* What a list of additions asks for must be something that is there without asking, or of things that are not here. */
static err_code take_include(answer *a, const cJSON *v, err *e) {
    static const char *const known[] = {"reasoning.encrypted_content",   "file_search_call.results",
                                        "web_search_call.results",       "web_search_call.action.sources",
                                        "code_interpreter_call.outputs", "computer_call_output.output.image_url",
                                        "message.input_image.image_url", NULL};
    const cJSON *o;
    if (!cJSON_IsArray(v)) return err_set(e, ERR_INVALID, "'include' must be an array of strings");
    cJSON_ArrayForEach(o, v) {
        const char *const *k = known;
        if (!cJSON_IsString(o)) return err_set(e, ERR_INVALID, "'include' must be an array of strings");
        while (*k && strcmp(*k, o->valuestring) != 0) k++;
        if (!*k) return err_set(e, ERR_UNSUPPORTED, "'include': \"%.60s\" is not supported", o->valuestring);
    }
    return ERR_OK;
}

static err_code take_truncation(answer *a, const cJSON *v, err *e) {
    if (cJSON_IsString(v) && strcmp(v->valuestring, "disabled") == 0) return ERR_OK;
    return err_set(e, ERR_UNSUPPORTED, "'truncation': only \"disabled\" is supported");
}

static err_code take_zero(answer *a, const cJSON *v, err *e) {
    return cJSON_IsNumber(v) && v->valuedouble == 0 ? ERR_OK : openai_refuse(a, v, e);
}

static err_code take_store(answer *a, const cJSON *v, err *e) {
    return json_get_bool(a->body, "store", &((responses_answer *)a->own)->store, e);
}

static err_code take_previous(answer *a, const cJSON *v, err *e) {
    return json_get_str(a->body, "previous_response_id", &((responses_answer *)a->own)->previous, e);
}

static err_code take_stream_options(answer *a, const cJSON *v, err *e) {
    static const char known[] = "include_obfuscation";
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "'stream_options' must be an object");
    return openai_check_keys(v, "'stream_options'", known, e);
}

static const openai_field fields[] = {
    {"model", openai_take_common},
    {"input", NULL},        /* after the instructions */
    {"instructions", NULL}, /* after the fields */
    {"stream", openai_take_common},
    {"stream_options", take_stream_options},
    {"max_output_tokens", take_max_tokens},
    {"temperature", openai_take_common},
    {"top_p", openai_take_common},
    {"user", openai_take_common},
    {"metadata", take_metadata},
    {"tools", take_tools},
    {"tool_choice", take_tool_choice},
    {"parallel_tool_calls", openai_take_parallel},
    {"text", take_text},
    {"reasoning", take_reasoning},
    {"include", take_include},
    {"truncation", take_truncation},
    {"store", take_store},
    {"previous_response_id", take_previous},
    {"top_logprobs", take_zero},
    /* polder's own, as in the other dialects */
    {"seed", openai_take_common},
    {"top_k", openai_take_common},
    {"min_p", openai_take_common},
    {"background", openai_refuse_true},
    {"conversation", openai_refuse},
    {"context_management", openai_refuse_nonempty},
    {"prompt", openai_refuse},
    {"image", openai_refuse},
    {"moderation", openai_refuse},
    {"access_programs", openai_refuse},
    /* they ask how the answer is made or billed, or bound tools that are not here */
    {"max_tool_calls", NULL},
    {"service_tier", NULL},
    {"safety_identifier", NULL},
    {"prompt_cache_key", NULL},
    {"prompt_cache_options", NULL},
    {"prompt_cache_retention", NULL},
    {NULL, NULL},
};

/* ---- what the response object repeats of the request -------------------------------------------------------- */

/* The field as it came, or what it is without. */
static bool repeat(const answer *a, cJSON *to, const char *key, const char *otherwise) {
    const cJSON *v = json_get(a->body, key);
    cJSON *copy = v ? cJSON_Duplicate(v, true) : cJSON_Parse(otherwise);
    if (copy && cJSON_AddItemToObject(to, key, copy)) return true;
    cJSON_Delete(copy);
    return false;
}

static bool repeat_reasoning(const answer *a, cJSON *to) {
    const responses_answer *s = a->own;
    const cJSON *v = json_get(a->body, "reasoning"), *summary = v ? json_get(v, "summary") : NULL;
    if (!summary && v) summary = json_get(v, "generate_summary");
    cJSON *o = cJSON_AddObjectToObject(to, "reasoning");
    const char *effort = a->r.reasoning_effort, *kind = s->summary ? summary->valuestring : NULL;
    return o && (effort ? cJSON_AddStringToObject(o, "effort", effort) : cJSON_AddNullToObject(o, "effort")) &&
           (kind ? cJSON_AddStringToObject(o, "summary", kind) : cJSON_AddNullToObject(o, "summary"));
}

static bool repeat_text(const answer *a, cJSON *to) {
    const cJSON *v = json_get(a->body, "text"), *form = v ? json_get(v, "format") : NULL;
    cJSON *o = cJSON_AddObjectToObject(to, "text");
    cJSON *copy = form ? cJSON_Duplicate(form, true) : cJSON_Parse("{\"type\":\"text\"}");
    if (o && copy && cJSON_AddItemToObject(o, "format", copy)) return true;
    cJSON_Delete(copy);
    return false;
}

static bool repeat_tools(const answer *a, cJSON *to) {
    const cJSON *t;
    if (!repeat(a, to, "tools", "[]")) return false;
    cJSON_ArrayForEach(t, cJSON_GetObjectItemCaseSensitive(to, "tools")) {
        cJSON *m = (cJSON *)t; /* a child of our own copy */
        if (!cJSON_GetObjectItemCaseSensitive(m, "strict") && !cJSON_AddBoolToObject(m, "strict", false)) return false;
        if (!cJSON_GetObjectItemCaseSensitive(m, "parameters") && !cJSON_AddNullToObject(m, "parameters")) return false;
    }
    return true;
}

static err_code keep_request(answer *a, err *e) {
    responses_answer *s = a->own;
    s->kept = cJSON_CreateObject();
    cJSON *o = s->response = s->kept ? cJSON_AddObjectToObject(s->kept, "response") : NULL;
    bool ok = o && cJSON_AddBoolToObject(s->kept, "instructions", s->instructions) &&
              repeat(a, o, "instructions", "null") && repeat(a, o, "max_output_tokens", "null") &&
              repeat(a, o, "previous_response_id", "null") && repeat(a, o, "parallel_tool_calls", "true") &&
              repeat_reasoning(a, o) && repeat_text(a, o) && repeat_tools(a, o) &&
              repeat(a, o, "tool_choice", "\"auto\"") && repeat(a, o, "temperature", "1") &&
              repeat(a, o, "top_p", "1") && repeat(a, o, "metadata", "{}") && repeat(a, o, "store", "true") &&
              repeat(a, o, "truncation", "\"disabled\"") && repeat(a, o, "user", "null") &&
              cJSON_AddNumberToObject(o, "top_logprobs", 0) && cJSON_AddStringToObject(o, "service_tier", "default");
    return ok ? ERR_OK : err_nomem(e, "a response");
}

/* ---- the body ---------------------------------------------------------------------------------------------- */

static void own_free(void *p) {
    responses_answer *s = p;
    parts_free(&s->parts);
    cJSON_Delete(s->allowed);
    cJSON_Delete(s->kept);
    mem_free(s);
}

static err_code fault(answer *a, const char *param, err_code rc) {
    snprintf(a->param, sizeof a->param, "%s", param);
    return rc;
}

err_code responses_parse(answer *a, err *e) {
    responses_answer *s = a->own = mem_zalloc(sizeof *s);
    a->own_free = s ? own_free : NULL;
    a->messages = cJSON_CreateArray();
    if (!s || !a->messages) return no_memory(e);
    s->store = true;
    err_code rc = openai_take_own_fields(a, fields, e);
    if (rc != ERR_OK) return rc;
    if (!a->r.model) return openai_check_common(a, e);
    rc = openai_check_tools(a, e);
    if (rc != ERR_OK) return rc;
    rc = read_instructions(a, e);
    if (rc != ERR_OK) return fault(a, "instructions", rc);
    if (!json_get(a->body, "input")) return fault(a, "input", err_set(e, ERR_INVALID, "'input' is missing"));
    rc = read_input(a, e);
    if (rc != ERR_OK) return fault(a, "input", rc);
    if (!s->references && !s->previous) rc = responses_join(a, e);
    if (rc == ERR_OK) rc = keep_request(a, e);
    a->r.messages = a->messages;
    a->r.parse = true;
    a->r.keep_turn = s->store;
    a->r.kept = s->store ? s->kept : NULL;
    return rc;
}
