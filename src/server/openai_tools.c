/* Tools in OpenAI's chat dialect: what a request says of them, and calls and reasoning in its answer. */
#include "server/openai.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

#define TOOLS_MAX     OPENAI_TOOLS_MAX
#define TOOL_NAME_MAX 64

/* ---- tools ------------------------------------------------------------------------------------------------- */

err_code openai_refuse_functions(answer *a, const cJSON *v, err *e) {
    if (cJSON_IsArray(v) && !v->child) return ERR_OK;
    return err_set(e, ERR_UNSUPPORTED, "'%s' is the old form of '%s' and not supported: use that", v->string,
                   strcmp(v->string, "functions") == 0 ? "tools" : "tool_choice");
}

static bool is_name(const char *s) {
    size_t n = s ? strlen(s) : 0;
    return n && n <= TOOL_NAME_MAX &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == n;
}

static const char *name_in(const cJSON *tool) {
    const cJSON *f = cJSON_IsObject(tool) ? json_get(tool, "function") : NULL;
    const cJSON *n = cJSON_IsObject(f) ? json_get(f, "name") : NULL;
    return cJSON_IsString(n) ? n->valuestring : NULL;
}

static bool has_tool(const cJSON *tools, const char *name) {
    const cJSON *t;
    cJSON_ArrayForEach(t, tools) {
        const char *is = name_in(t);
        if (is && strcmp(is, name) == 0) return true;
    }
    return false;
}

static err_code check_tool(const cJSON *t, const cJSON *others, int i, err *e) {
    const cJSON *type = cJSON_IsObject(t) ? json_get(t, "type") : NULL;
    const cJSON *f = cJSON_IsObject(t) ? json_get(t, "function") : NULL;
    if (!cJSON_IsString(type)) return err_set(e, ERR_INVALID, "tools[%d] must be an object with a type", i);
    if (strcmp(type->valuestring, "function") != 0)
        return err_set(e, ERR_UNSUPPORTED, "tools[%d]: type \"%.40s\" is not supported, only \"function\"", i,
                       type->valuestring);
    if (!cJSON_IsObject(f)) return err_set(e, ERR_INVALID, "tools[%d].function must be an object", i);
    const char *name = name_in(t);
    if (!is_name(name))
        return err_set(e, ERR_INVALID,
                       "tools[%d].function.name must have 1 to %d letters, digits, '_', '-' or '.', nothing else", i,
                       TOOL_NAME_MAX);
    if (has_tool(others, name)) return err_set(e, ERR_INVALID, "tools[%d]: there are two with the name '%s'", i, name);
    const cJSON *params = json_get(f, "parameters"), *text = json_get(f, "description"),
                *strict = json_get(f, "strict");
    if (params && !cJSON_IsObject(params))
        return err_set(e, ERR_INVALID, "tools[%d].function.parameters must be a JSON schema: an object", i);
    if (text && !cJSON_IsString(text))
        return err_set(e, ERR_INVALID, "tools[%d].function.description must be a string", i);
    if (strict && !cJSON_IsBool(strict))
        return err_set(e, ERR_INVALID, "tools[%d].function.strict must be true or false", i);
    return ERR_OK;
}

/* The tool as templates get it: without what is said to the server, with a schema. */
static err_code add_tool(answer *a, const cJSON *t, err *e) {
    cJSON *copy = cJSON_Duplicate(t, true), *f = copy ? cJSON_GetObjectItemCaseSensitive(copy, "function") : NULL;
    if (!f || !cJSON_AddItemToArray(a->tools, copy)) {
        cJSON_Delete(copy);
        return err_nomem(e, "the tools");
    }
    a->strict_tools |= cJSON_IsTrue(json_get(f, "strict"));
    cJSON_DeleteItemFromObjectCaseSensitive(f, "strict");
    if (json_get(f, "parameters")) return ERR_OK;
    cJSON_DeleteItemFromObjectCaseSensitive(f, "parameters");
    cJSON *o = cJSON_AddObjectToObject(f, "parameters");
    bool ok = o && cJSON_AddStringToObject(o, "type", "object") && cJSON_AddObjectToObject(o, "properties");
    return ok ? ERR_OK : err_nomem(e, "the tools");
}

err_code openai_take_tools(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsArray(v)) return err_set(e, ERR_INVALID, "'tools' must be an array");
    if (cJSON_GetArraySize(v) > TOOLS_MAX) return err_set(e, ERR_INVALID, "'tools' has more than %d tools", TOOLS_MAX);
    a->tools = cJSON_CreateArray();
    if (!a->tools) return err_nomem(e, "the tools");
    int i = 0;
    const cJSON *t;
    cJSON_ArrayForEach(t, v) {
        err_code rc = check_tool(t, a->tools, i++, e);
        if (rc == ERR_OK) rc = add_tool(a, t, e);
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

err_code openai_put_tool(answer *a, const char *where, const char *name, const char *description,
                         const cJSON *parameters, bool strict, err *e) {
    if (!is_name(name))
        return err_set(e, ERR_INVALID, "%s.name must have 1 to %d letters, digits, '_', '-' or '.', nothing else",
                       where, TOOL_NAME_MAX);
    if (!a->tools) a->tools = cJSON_CreateArray();
    if (has_tool(a->tools, name)) return err_set(e, ERR_INVALID, "%s: there are two with the name '%s'", where, name);
    cJSON *t = cJSON_CreateObject(), *f = t ? cJSON_AddObjectToObject(t, "function") : NULL;
    bool ok = a->tools && f && cJSON_AddStringToObject(t, "type", "function") &&
              cJSON_AddStringToObject(f, "name", name) &&
              (!description || cJSON_AddStringToObject(f, "description", description));
    cJSON *copy = ok && parameters ? cJSON_Duplicate(parameters, true) : NULL;
    if (copy && !cJSON_AddItemToObject(f, "parameters", copy)) cJSON_Delete(copy), copy = NULL;
    ok = ok && (copy || !parameters) && (!strict || cJSON_AddBoolToObject(f, "strict", true));
    err_code rc = ok ? add_tool(a, t, e) : err_nomem(e, "the tools");
    cJSON_Delete(t);
    return rc;
}

/* ---- tool_choice ------------------------------------------------------------------------------------------- */

static err_code take_mode(answer *a, const char *s, err *e) {
    static const char *const modes[] = {"auto", "none", "required"};
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(s, modes[i]) != 0) continue;
        a->tool_mode = (tool_mode)i;
        return ERR_OK;
    }
    return err_set(e, ERR_INVALID, "'tool_choice': \"%.40s\" is none of auto, none, required", s);
}

static err_code take_allowed(answer *a, const cJSON *v, err *e) {
    const cJSON *o = json_get(v, "allowed_tools"), *t;
    const char *mode = NULL;
    if (!cJSON_IsObject(o)) o = v; /* both places are in use */
    a->allowed_tools = json_get(o, "tools");
    if (json_get_str(o, "mode", &mode, NULL) != ERR_OK || !mode || !cJSON_IsArray(a->allowed_tools))
        return err_set(e, ERR_INVALID, "'tool_choice': allowed_tools needs a mode and an array of tools");
    cJSON_ArrayForEach(t, a->allowed_tools) {
        if (!name_in(t))
            return err_set(e, ERR_INVALID, "'tool_choice': every one of allowed_tools must be a function with a name");
    }
    return strcmp(mode, "none") == 0
               ? err_set(e, ERR_INVALID, "'tool_choice': the mode of allowed_tools is auto or required")
               : take_mode(a, mode, e);
}

err_code openai_take_tool_choice(answer *a, const cJSON *v, err *e) {
    if (cJSON_IsString(v)) return take_mode(a, v->valuestring, e);
    const cJSON *type = cJSON_IsObject(v) ? json_get(v, "type") : NULL;
    if (!cJSON_IsString(type))
        return err_set(e, ERR_INVALID, "'tool_choice' must be auto, none, required or an object with a type");
    if (strcmp(type->valuestring, "allowed_tools") == 0) return take_allowed(a, v, e);
    if (strcmp(type->valuestring, "function") != 0)
        return err_set(e, ERR_UNSUPPORTED, "'tool_choice': type \"%.40s\" is not supported", type->valuestring);
    a->tool_named = name_in(v);
    if (!a->tool_named) return err_set(e, ERR_INVALID, "'tool_choice': a function with a name is needed");
    a->tool_mode = TOOL_NAMED;
    return ERR_OK;
}

err_code openai_take_parallel(answer *a, const cJSON *v, err *e) {
    bool many = true;
    err_code rc = json_get_bool(a->body, "parallel_tool_calls", &many, e);
    a->r.one_call = !many;
    return rc;
}

static err_code keep_allowed(answer *a, err *e) {
    const cJSON *t;
    cJSON_ArrayForEach(t, a->allowed_tools) {
        if (!has_tool(a->tools, name_in(t)))
            return err_set(e, ERR_INVALID, "'tool_choice': there is no tool '%.64s'", name_in(t));
    }
    for (cJSON *at = a->tools->child, *next; at; at = next) {
        next = at->next;
        if (!has_tool(a->allowed_tools, name_in(at))) cJSON_Delete(cJSON_DetachItemViaPointer(a->tools, at));
    }
    return ERR_OK;
}

static err_code choice_fault(answer *a, const char *param, err_code rc) {
    snprintf(a->param, sizeof a->param, "%s", param);
    return rc;
}

err_code openai_check_tools(answer *a, err *e) {
    bool any = a->tools && a->tools->child;
    if (!any) {
        if (a->tool_mode == TOOL_AUTO || a->tool_mode == TOOL_NONE) return ERR_OK;
        err_set(e, ERR_INVALID, "'tool_choice' asks for a call, but 'tools' has none");
        return choice_fault(a, "tool_choice", ERR_INVALID);
    }
    if (a->tool_mode == TOOL_NONE) return ERR_OK; /* not offered */
    if (a->tool_named && !has_tool(a->tools, a->tool_named)) {
        err_set(e, ERR_INVALID, "'tool_choice': there is no tool '%.64s'", a->tool_named);
        return choice_fault(a, "tool_choice", ERR_INVALID);
    }
    if (a->allowed_tools && keep_allowed(a, e) != ERR_OK) return choice_fault(a, "tool_choice", ERR_INVALID);
    if (!a->tools->child) return ERR_OK;
    a->r.tools = a->tools;
    a->r.tool_must = a->tool_mode != TOOL_AUTO;
    a->r.tool_only = a->tool_named;
    a->r.tool_strict = a->strict_tools;
    if (a->tool_named) a->r.one_call = true;
    return ERR_OK;
}

/* ---- switches ---------------------------------------------------------------------------------------------- */

err_code openai_take_effort(answer *a, const cJSON *v, err *e) {
    static const char *const efforts[] = {"none", "minimal", "low", "medium", "high", "xhigh"};
    for (size_t i = 0; i < 6 && cJSON_IsString(v); i++) {
        if (strcmp(v->valuestring, efforts[i]) != 0) continue;
        a->r.reasoning_effort = efforts[i];
        return ERR_OK;
    }
    return err_set(e, ERR_INVALID, "'reasoning_effort' must be none, minimal, low, medium, high or xhigh");
}

/* Values for the template's own variables. Those of the request itself are refused where the prompt is made. */
err_code openai_take_template_args(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "'%s' must be an object", v->string);
    const cJSON *o;
    cJSON_ArrayForEach(o, v) {
        size_t n = strlen(o->string);
        if (!n || n > 64 || strspn(o->string, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != n)
            return err_set(e, ERR_INVALID, "'%s': \"%.64s\" is no name of a variable", v->string, o->string);
        if (cJSON_IsObject(o) || cJSON_IsArray(o))
            return err_set(e, ERR_INVALID, "'%s': '%s' must be a string, a number, true, false or null", v->string,
                           o->string);
    }
    a->r.template_args = v->child ? v : NULL;
    return ERR_OK;
}

/* ---- calls in the conversation ----------------------------------------------------------------------------- */

static err_code read_call(const cJSON *c, int index, int k, cJSON *to, err *e) {
    const cJSON *type = cJSON_IsObject(c) ? json_get(c, "type") : NULL,
                *id = cJSON_IsObject(c) ? json_get(c, "id") : NULL;
    const char *name = name_in(c);
    if (type && (!cJSON_IsString(type) || strcmp(type->valuestring, "function") != 0))
        return err_set(e, ERR_UNSUPPORTED, "messages[%d].tool_calls[%d]: only type \"function\" is supported", index,
                       k);
    if (!cJSON_IsString(id) || !id->valuestring[0] || !is_name(name))
        return err_set(e, ERR_INVALID, "messages[%d].tool_calls[%d] must have an id and a function with a name", index,
                       k);
    const cJSON *args = json_get(json_get(c, "function"), "arguments");
    if (args && !cJSON_IsString(args))
        return err_set(e, ERR_INVALID, "messages[%d].tool_calls[%d].function.arguments must be a string of JSON", index,
                       k);
    cJSON *o = cJSON_CreateObject(), *f = o ? cJSON_CreateObject() : NULL;
    bool ok = f && cJSON_AddStringToObject(o, "id", id->valuestring) &&
              cJSON_AddStringToObject(o, "type", "function") && cJSON_AddStringToObject(f, "name", name) &&
              cJSON_AddStringToObject(f, "arguments", args ? args->valuestring : "{}");
    if (ok && (ok = cJSON_AddItemToObject(o, "function", f))) f = NULL;
    if (ok && (ok = cJSON_AddItemToArray(to, o))) o = NULL;
    cJSON_Delete(f);
    cJSON_Delete(o);
    return ok ? ERR_OK : err_nomem(e, "the messages");
}

err_code openai_read_calls(const cJSON *m, int index, cJSON *to, err *e) {
    static const char *const names[] = {"reasoning_content", "reasoning"};
    for (size_t i = 0; i < 2; i++) {
        const cJSON *r = json_get(m, names[i]);
        if (!r) continue;
        if (!cJSON_IsString(r)) return err_set(e, ERR_INVALID, "messages[%d].%s must be a string", index, names[i]);
        if (!cJSON_AddStringToObject(to, names[0], r->valuestring)) return err_nomem(e, "the messages");
        break;
    }
    const cJSON *calls = json_get(m, "tool_calls"), *c;
    if (!calls || (cJSON_IsArray(calls) && !calls->child)) return ERR_OK;
    if (!cJSON_IsArray(calls)) return err_set(e, ERR_INVALID, "messages[%d].tool_calls must be an array", index);
    cJSON *list = cJSON_AddArrayToObject(to, "tool_calls");
    if (!list) return err_nomem(e, "the messages");
    int k = 0;
    cJSON_ArrayForEach(c, calls) {
        err_code rc = read_call(c, index, k++, list, e);
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

err_code openai_put_call(cJSON *message, const char *where, const char *id, const char *name, const char *args,
                         err *e) {
    if (!id || !id[0] || !is_name(name))
        return err_set(e, ERR_INVALID, "%s must have an id and the name of a tool", where);
    cJSON *calls = cJSON_GetObjectItemCaseSensitive(message, "tool_calls");
    if (!calls) calls = cJSON_AddArrayToObject(message, "tool_calls");
    cJSON *o = cJSON_CreateObject(), *f = o ? cJSON_AddObjectToObject(o, "function") : NULL;
    bool ok = calls && f && cJSON_AddStringToObject(o, "id", id) && cJSON_AddStringToObject(o, "type", "function") &&
              cJSON_AddStringToObject(f, "name", name) && cJSON_AddStringToObject(f, "arguments", args) &&
              cJSON_AddItemToArray(calls, o);
    if (!ok) cJSON_Delete(o);
    return ok ? ERR_OK : err_nomem(e, "the messages");
}

/* ---- calls in the answer ----------------------------------------------------------------------------------- */

/* Unique in this ledger by the record, and apart from other islands' by what else the answer is. */
static void call_id(char out[80], const answer *a, uint32_t at, uint32_t call) {
    char text[160];
    uint8_t hash[SHA256_LEN];
    snprintf(text, sizeof text, "%s %" PRIu64 " %" PRId64, a->fingerprint, a->seed, a->created_unix_s);
    sha256_of(hash, text, strlen(text));
    snprintf(out, 80, "call_%" PRIu64 "_%u_%u_%02x%02x%02x%02x", a->record, at, call, hash[0], hash[1], hash[2],
             hash[3]);
}

/* {"id":…,"type":"function","function":{"name":…,"arguments": */
static void begin_call(jw *w, const answer *a, uint32_t at, uint32_t call, const event *ev) {
    char id[80];
    call_id(id, a, at, call);
    jw_kstr(w, "id", id);
    jw_kstr(w, "type", "function");
    jw_key(w, "function");
    jw_obj(w);
    jw_key(w, "name");
    jw_strn(w, ev->text, ev->len);
    jw_key(w, "arguments");
}

void openai_call_delta(jw *w, const answer *a, uint32_t at, const choice *c, const event *ev) {
    jw_key(w, "tool_calls");
    jw_arr(w);
    jw_obj(w);
    jw_kint(w, "index", c->n_calls - 1);
    if (ev->kind == EV_CALL) {
        begin_call(w, a, at, c->n_calls - 1, ev);
        jw_str(w, "");
    } else {
        jw_key(w, "function");
        jw_obj(w);
        jw_key(w, "arguments");
        jw_strn(w, ev->text, ev->len);
    }
    jw_obj_end(w);
    jw_obj_end(w);
    jw_arr_end(w);
}

static void close_call(choice *c) {
    jw w;
    buf *calls = &c->parts[OPENAI_CALLS], *args = &c->parts[OPENAI_ARGS];
    jw_init(&w, calls);
    jw_strn(&w, buf_str(args), args->len);
    buf_puts(calls, "}}");
    buf_reset(args);
    c->in_call = false;
}

void openai_collect(answer *a, choice *c, const event *ev) {
    buf *calls = &c->parts[OPENAI_CALLS];
    jw w;
    switch (ev->kind) {
    case EV_REASONING: buf_append(&c->parts[OPENAI_REASONING], ev->text, ev->len); break;
    case EV_CALL:
        c->call_from = calls->len;
        c->in_call = true;
        if (calls->len) buf_putc(calls, ',');
        jw_init(&w, calls);
        jw_obj(&w); /* the arguments follow when they are whole */
        begin_call(&w, a, answer_choice_index(a, ev), c->n_calls - 1, ev);
        break;
    case EV_CALL_ARGS: buf_append(&c->parts[OPENAI_ARGS], ev->text, ev->len); break;
    case EV_CALL_END: close_call(c); break;
    case EV_CALL_DROP:
        calls->len = c->call_from;
        buf_reset(&c->parts[OPENAI_ARGS]);
        c->in_call = false;
        break;
    case EV_FINISH:
        if (c->in_call) close_call(c); /* cut off: as far as it came */
        break;
    default: break;
    }
}
