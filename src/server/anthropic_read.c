/* Requests of Anthropic's Messages: into the messages, tools and switches that every dialect comes down to.
 *
 * One message of Anthropic may become several: results of tools are messages of their own, and what its assistant
 * thought, said and called is one. Blocks of text are joined by line ends. */
#include "server/anthropic.h"

#include "base/mem.h"

#include <string.h>

#define WHERE_MAX 64

/* ---- blocks ------------------------------------------------------------------------------------------------ */

typedef struct reading { /* of one message */
    answer *a;
    const char *role;
    buf text, thinking;
    bool has_text, has_thinking;
    cJSON *calls;          /* the assistant's message that calls hang on; NULL: none yet */
    char where[WHERE_MAX]; /* "messages[3].content[0]" */
    err *e;
} reading;

static err_code no_memory(err *e) {
    return err_nomem(e, "the messages");
}

/* Every field of a block must be one of `known`. */
static err_code check_keys(const cJSON *o, const char *where, const char *known, err *e) {
    err_code rc = openai_check_keys(o, where, known, e);
    const cJSON *cache = rc == ERR_OK ? json_get(o, "cache_control") : NULL;
    return cache && !cJSON_IsObject(cache) ? err_set(e, ERR_INVALID, "%s.cache_control must be an object", where) : rc;
}

static const char *str_in(const cJSON *o, const char *key) {
    const cJSON *v = json_get(o, key);
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

/* A text block's text. Citations point into documents, which are refused. */
static err_code read_text(const cJSON *b, const char *where, const char **out, err *e) {
    err_code rc = check_keys(b, where, "type text cache_control citations", e);
    if (rc != ERR_OK) return rc;
    const cJSON *c = json_get(b, "citations");
    if (c && !(cJSON_IsArray(c) && !c->child))
        return err_set(e, ERR_UNSUPPORTED, "%s.citations is not supported: leave it out", where);
    *out = str_in(b, "text");
    return *out ? ERR_OK : err_set(e, ERR_INVALID, "%s must have a string 'text'", where);
}

static void add_line(buf *to, bool *any, const char *text) {
    if (*any) buf_putc(to, '\n');
    buf_puts(to, text);
    *any = true;
}

/* A string, or text blocks. */
static err_code read_plain(const cJSON *v, const char *where, buf *out, err *e) {
    buf_puts(out, "");
    if (cJSON_IsString(v)) {
        buf_puts(out, v->valuestring);
        return buf_check(out, "a message", e);
    }
    if (!cJSON_IsArray(v)) return err_set(e, ERR_INVALID, "%s must be a string or an array of text blocks", where);
    bool any = false;
    int i = 0;
    const cJSON *b;
    cJSON_ArrayForEach(b, v) {
        char at[WHERE_MAX + 16];
        const char *type = cJSON_IsObject(b) ? str_in(b, "type") : NULL, *text = NULL;
        snprintf(at, sizeof at, "%s[%d]", where, i++);
        if (!type) return err_set(e, ERR_INVALID, "%s must be an object with a type", at);
        if (strcmp(type, "text") != 0)
            return err_set(e, ERR_UNSUPPORTED, "%s: blocks of type \"%.40s\" are not supported here, only text", at,
                           type);
        err_code rc = read_text(b, at, &text, e);
        if (rc != ERR_OK) return rc;
        add_line(out, &any, text);
    }
    return buf_check(out, "a message", e);
}

/* ---- messages ---------------------------------------------------------------------------------------------- */

/* A new message with a role and a content; NULL where memory is short. */
static cJSON *add_message(answer *a, const char *by, const char *content) {
    cJSON *m = cJSON_CreateObject();
    bool ok = m && cJSON_AddStringToObject(m, "role", by) && cJSON_AddStringToObject(m, "content", content) &&
              cJSON_AddItemToArray(a->messages, m);
    if (ok) return m;
    cJSON_Delete(m);
    return NULL;
}

/* The text so far as a message of the user. */
static err_code flush_user(reading *r) {
    if (!r->has_text) return ERR_OK;
    err_code rc = buf_check(&r->text, "a message", r->e);
    if (rc == ERR_OK && !add_message(r->a, "user", buf_str(&r->text))) rc = no_memory(r->e);
    buf_reset(&r->text);
    r->has_text = false;
    return rc;
}

/* Templates know no failed result: its text says it. */
static err_code take_result(reading *r, const cJSON *b) {
    bool failed = false;
    err_code rc = check_keys(b, r->where, "type tool_use_id content is_error cache_control", r->e);
    if (rc == ERR_OK) rc = json_get_bool(b, "is_error", &failed, r->e);
    if (rc != ERR_OK) return rc;
    const char *id = str_in(b, "tool_use_id");
    if (!id || !id[0])
        return err_set(r->e, ERR_INVALID, "%s.tool_use_id is missing: it names the call that is answered", r->where);
    char at[WHERE_MAX + 16];
    snprintf(at, sizeof at, "%s.content", r->where);
    buf text = {.max = ANSWER_BYTES_MAX};
    const cJSON *c = json_get(b, "content");
    buf_puts(&text, failed ? "Error: " : "");
    rc = c ? read_plain(c, at, &text, r->e) : ERR_OK;
    if (rc == ERR_OK) rc = flush_user(r);
    if (rc == ERR_OK) {
        cJSON *m = add_message(r->a, "tool", buf_str(&text));
        if (!m || !cJSON_AddStringToObject(m, "tool_call_id", id)) rc = no_memory(r->e);
    }
    buf_free(&text);
    return rc;
}

static err_code take_use(reading *r, const cJSON *b) {
    err_code rc = check_keys(b, r->where, "type id name input caller cache_control", r->e);
    if (rc != ERR_OK) return rc;
    const cJSON *input = json_get(b, "input"), *caller = json_get(b, "caller");
    const char *by = cJSON_IsObject(caller) ? str_in(caller, "type") : NULL;
    if (caller && (!by || strcmp(by, "direct") != 0))
        return err_set(r->e, ERR_UNSUPPORTED, "%s.caller: only {\"type\": \"direct\"} is supported", r->where);
    if (input && !cJSON_IsObject(input)) return err_set(r->e, ERR_INVALID, "%s.input must be an object", r->where);
    if (!r->calls) {
        r->calls = add_message(r->a, "assistant", "");
        if (!r->calls) return no_memory(r->e);
    }
    char *args = input ? json_text(input) : NULL;
    if (input && !args) return no_memory(r->e);
    rc = openai_put_call(r->calls, r->where, str_in(b, "id"), str_in(b, "name"), args ? args : "{}", r->e);
    mem_free(args);
    return rc;
}

static err_code take_thinking(reading *r, const cJSON *b) {
    err_code rc = check_keys(b, r->where, "type thinking signature cache_control", r->e);
    const char *text = str_in(b, "thinking");
    if (rc == ERR_OK && !text) rc = err_set(r->e, ERR_INVALID, "%s must have a string 'thinking'", r->where);
    if (rc == ERR_OK) add_line(&r->thinking, &r->has_thinking, text);
    return rc;
}

static err_code take_block(reading *r, const cJSON *b) {
    const char *type = cJSON_IsObject(b) ? str_in(b, "type") : NULL, *text = NULL;
    bool assistant = strcmp(r->role, "assistant") == 0;
    if (!type) return err_set(r->e, ERR_INVALID, "%s must be an object with a type", r->where);
    if (strcmp(type, "text") == 0) {
        err_code rc = read_text(b, r->where, &text, r->e);
        if (rc == ERR_OK) add_line(&r->text, &r->has_text, text);
        return rc;
    }
    if (strcmp(type, "tool_result") == 0 && strcmp(r->role, "user") == 0) return take_result(r, b);
    if (strcmp(type, "tool_use") == 0 && assistant) return take_use(r, b);
    if (strcmp(type, "thinking") == 0 && assistant) return take_thinking(r, b);
    return err_set(r->e, ERR_UNSUPPORTED, "%s: blocks of type \"%.40s\" are not supported in a message of role %s",
                   r->where, type, r->role);
}

/* What an assistant said and thought, into the message that its calls hang on, or into one of its own. */
static err_code end_assistant(reading *r) {
    err_code rc = buf_check(&r->text, "a message", r->e);
    if (rc == ERR_OK) rc = buf_check(&r->thinking, "a message", r->e);
    if (rc != ERR_OK) return rc;
    cJSON *m = r->calls ? r->calls : add_message(r->a, "assistant", "");
    if (!m) return no_memory(r->e);
    cJSON *content = cJSON_CreateString(buf_str(&r->text));
    if (!content || !cJSON_ReplaceItemInObjectCaseSensitive(m, "content", content)) {
        cJSON_Delete(content);
        return no_memory(r->e);
    }
    if (r->has_thinking && !cJSON_AddStringToObject(m, "reasoning_content", buf_str(&r->thinking)))
        return no_memory(r->e);
    return ERR_OK;
}

static err_code read_message(reading *r, const cJSON *m, int index) {
    static const char *const roles[] = {"user", "assistant", "system"};
    char at[WHERE_MAX];
    snprintf(at, sizeof at, "messages[%d]", index);
    if (!cJSON_IsObject(m)) return err_set(r->e, ERR_INVALID, "%s must be an object", at);
    err_code rc = check_keys(m, at, "role content", r->e);
    if (rc != ERR_OK) return rc;
    const char *name = str_in(m, "role");
    r->role = NULL;
    for (size_t i = 0; i < 3 && name; i++)
        if (strcmp(name, roles[i]) == 0) r->role = roles[i];
    if (!r->role) return err_set(r->e, ERR_INVALID, "%s.role must be user, assistant or system", at);
    const cJSON *c = json_get(m, "content"), *b;
    if (!cJSON_IsString(c) && !cJSON_IsArray(c))
        return err_set(r->e, ERR_INVALID, "%s.content must be a string or an array of blocks", at);
    if (cJSON_IsString(c)) add_line(&r->text, &r->has_text, c->valuestring);
    int i = 0;
    cJSON_ArrayForEach(b, c) {
        snprintf(r->where, sizeof r->where, "%s.content[%d]", at, i++);
        rc = take_block(r, b);
        if (rc != ERR_OK) return rc;
    }
    if (r->role == roles[1]) return end_assistant(r);
    if (r->role == roles[0]) return flush_user(r);
    rc = buf_check(&r->text, "a message", r->e);
    if (rc == ERR_OK && r->has_text && !add_message(r->a, "system", buf_str(&r->text))) rc = no_memory(r->e);
    return rc;
}

static err_code take_message(answer *a, const cJSON *m, int index, err *e) {
    reading r = {.a = a, .e = e, .text = {.max = ANSWER_BYTES_MAX}, .thinking = {.max = ANSWER_BYTES_MAX}};
    err_code rc = read_message(&r, m, index);
    buf_free(&r.text);
    buf_free(&r.thinking);
    return rc;
}

static err_code take_messages(answer *a, const cJSON *v, err *e) {
    const cJSON *m, *last = NULL;
    int index = 0;
    if (!cJSON_IsArray(v) || !v->child)
        return err_set(e, ERR_INVALID, "'messages' must be an array of at least one message");
    cJSON_ArrayForEach(m, v) {
        err_code rc = take_message(a, m, index++, e);
        if (rc != ERR_OK) return rc;
        last = m;
    }
    const char *by = str_in(last, "role");
    if (by && strcmp(by, "assistant") == 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "messages[%d]: an answer cannot go on from the assistant's own words here; end with a message "
                       "of the user",
                       index - 1);
    return ERR_OK;
}

/* The system prompt comes first, wherever the field stands in the body. */
static err_code take_system(answer *a, const cJSON *v, err *e) {
    buf text = {.max = ANSWER_BYTES_MAX};
    err_code rc = read_plain(v, "system", &text, e);
    cJSON *m = rc == ERR_OK ? cJSON_CreateObject() : NULL;
    if (rc == ERR_OK && text.len) {
        bool ok = m && cJSON_AddStringToObject(m, "role", "system") &&
                  cJSON_AddStringToObject(m, "content", buf_str(&text)) && cJSON_InsertItemInArray(a->messages, 0, m);
        if (ok)
            m = NULL;
        else
            rc = no_memory(e);
    }
    cJSON_Delete(m);
    buf_free(&text);
    return rc;
}

/* ---- tools ------------------------------------------------------------------------------------------------- */

static err_code take_tool(answer *a, const cJSON *t, int i, err *e) {
    char at[WHERE_MAX];
    snprintf(at, sizeof at, "tools[%d]", i);
    if (!cJSON_IsObject(t)) return err_set(e, ERR_INVALID, "%s must be an object", at);
    const cJSON *type = json_get(t, "type"), *schema = json_get(t, "input_schema"), *text = json_get(t, "description");
    if (type && (!cJSON_IsString(type) || strcmp(type->valuestring, "custom") != 0))
        return err_set(e, ERR_UNSUPPORTED, "%s: type \"%.40s\" is not supported, only tools that the client runs", at,
                       cJSON_IsString(type) ? type->valuestring : "?");
    err_code rc = check_keys(t, at,
                             "type name description input_schema cache_control strict eager_input_streaming "
                             "defer_loading allowed_callers input_examples",
                             e);
    bool strict = false, later = false;
    if (rc == ERR_OK) rc = json_get_bool(t, "strict", &strict, e);
    if (rc == ERR_OK) rc = json_get_bool(t, "defer_loading", &later, e);
    if (rc != ERR_OK) return rc;
    const cJSON *callers = json_get(t, "allowed_callers"), *examples = json_get(t, "input_examples"), *c;
    bool direct = !callers || cJSON_IsArray(callers);
    cJSON_ArrayForEach(c, callers) direct = direct && cJSON_IsString(c) && strcmp(c->valuestring, "direct") == 0;
    bool shown = examples && !(cJSON_IsArray(examples) && !examples->child);
    if (later || !direct || shown)
        return err_set(e, ERR_UNSUPPORTED, "%s.%s is not supported: leave it out", at,
                       later     ? "defer_loading"
                       : !direct ? "allowed_callers"
                                 : "input_examples");
    if (!cJSON_IsObject(schema)) return err_set(e, ERR_INVALID, "%s.input_schema must be a JSON schema: an object", at);
    if (text && !cJSON_IsString(text)) return err_set(e, ERR_INVALID, "%s.description must be a string", at);
    return openai_put_tool(a, at, str_in(t, "name"), text ? text->valuestring : NULL, schema, strict, e);
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

static err_code take_tool_choice(answer *a, const cJSON *v, err *e) {
    static const struct {
        const char *type;
        tool_mode mode;
    } modes[] = {{"auto", TOOL_AUTO}, {"any", TOOL_REQUIRED}, {"tool", TOOL_NAMED}, {"none", TOOL_NONE}};
    const char *type = cJSON_IsObject(v) ? str_in(v, "type") : NULL;
    size_t i = 0;
    while (type && i < 4 && strcmp(type, modes[i].type) != 0) i++;
    if (!type || i == 4)
        return err_set(e, ERR_INVALID, "'tool_choice' must be an object with the type auto, any, tool or none");
    err_code rc = check_keys(v, "'tool_choice'", "type name disable_parallel_tool_use", e);
    if (rc == ERR_OK) rc = json_get_bool(v, "disable_parallel_tool_use", &a->r.one_call, e);
    if (rc != ERR_OK) return rc;
    a->tool_mode = modes[i].mode;
    if (a->tool_mode != TOOL_NAMED) return ERR_OK;
    a->tool_named = str_in(v, "name");
    return a->tool_named ? ERR_OK : err_set(e, ERR_INVALID, "'tool_choice': the name of a tool is needed");
}

/* ---- switches ---------------------------------------------------------------------------------------------- */

static err_code take_max_tokens(answer *a, const cJSON *v, err *e) {
    return openai_take_int(a, v, 1, INT32_MAX, &a->r.max_tokens, e);
}

static err_code take_temperature(answer *a, const cJSON *v, err *e) {
    err_code rc = openai_take_common(a, v, e);
    if (rc == ERR_OK && a->r.sampling.temperature > 1)
        return err_set(e, ERR_INVALID, "'temperature' must be between 0 and 1");
    return rc;
}

static err_code take_stops(answer *a, const cJSON *v, err *e) {
    const cJSON *s;
    if (!cJSON_IsArray(v)) return err_set(e, ERR_INVALID, "'stop_sequences' must be an array of strings");
    cJSON_ArrayForEach(s, v) {
        size_t n = cJSON_IsString(s) ? strlen(s->valuestring) : 0;
        if (n == 0 || n > REQUEST_STOP_BYTES_MAX)
            return err_set(e, ERR_INVALID, "'stop_sequences' must be strings of 1 to %d bytes", REQUEST_STOP_BYTES_MAX);
        if (a->r.n_stops == REQUEST_STOPS_MAX)
            return err_set(e, ERR_INVALID, "'stop_sequences' has more than %d strings", REQUEST_STOPS_MAX);
        a->r.stops[a->r.n_stops++] = s->valuestring;
    }
    return ERR_OK;
}

static err_code take_metadata(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "'metadata' must be an object");
    const cJSON *f;
    cJSON_ArrayForEach(f, v) {
        if (cJSON_IsNull(f)) continue;
        if (strcmp(f->string, "polder_label") == 0) {
            err_code rc = openai_take_label(a, f, e);
            if (rc != ERR_OK) return rc;
        } else if (strcmp(f->string, "user_id") != 0) {
            return err_set(e, ERR_INVALID, "'metadata' has no field '%.60s'; user_id and polder_label are known",
                           f->string);
        } else if (!cJSON_IsString(f) || strlen(f->valuestring) > 512) {
            return err_set(e, ERR_INVALID, "'metadata.user_id' must be a string of at most 512 bytes");
        } else {
            a->r.user = f->valuestring;
        }
    }
    return ERR_OK;
}

/* How long it may think is the model's own affair, so the budget is checked and not used. */
static err_code take_thinking_switch(answer *a, const cJSON *v, err *e) {
    const char *type = cJSON_IsObject(v) ? str_in(v, "type") : NULL;
    int64_t budget = 0;
    if (!type) return err_set(e, ERR_INVALID, "'thinking' must be an object with a type");
    err_code rc = check_keys(v, "'thinking'", "type budget_tokens display", e);
    if (rc == ERR_OK) rc = json_get_int(v, "budget_tokens", 1, INT32_MAX, &budget, e);
    if (rc != ERR_OK) return rc;
    const char *display = str_in(v, "display");
    if (json_get(v, "display") && (!display || strcmp(display, "summarized") != 0))
        return err_set(e, ERR_UNSUPPORTED, "'thinking.display': what a model thinks is shown; leave it out");
    bool off = strcmp(type, "disabled") == 0;
    if (!off && strcmp(type, "enabled") != 0 && strcmp(type, "adaptive") != 0)
        return err_set(e, ERR_INVALID, "'thinking': the type is enabled, adaptive or disabled");
    if (strcmp(type, "enabled") == 0 && !budget) return err_set(e, ERR_INVALID, "'thinking.budget_tokens' is missing");
    /* an effort that was named stands, but for thinking that is off */
    if (off || (!a->r.reasoning_effort && strcmp(type, "enabled") == 0)) a->r.reasoning_effort = off ? "none" : "high";
    return ERR_OK;
}

static err_code take_form(answer *a, const char *field, const cJSON *v, err *e) {
    const char *type = cJSON_IsObject(v) ? str_in(v, "type") : NULL;
    if (!type || strcmp(type, "json_schema") != 0)
        return err_set(e, ERR_UNSUPPORTED, "'%s': only the type json_schema is supported", field);
    err_code rc = check_keys(v, field, "type schema name", e);
    return rc == ERR_OK ? openai_ask_schema(a, field, json_get(v, "schema"), e) : rc;
}

static err_code take_output_format(answer *a, const cJSON *v, err *e) {
    return take_form(a, "output_format", v, e);
}

static err_code take_output_config(answer *a, const cJSON *v, err *e) {
    static const char *const efforts[] = {"low", "medium", "high", "xhigh", "max"};
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "'output_config' must be an object");
    err_code rc = check_keys(v, "'output_config'", "effort format", e);
    if (rc != ERR_OK) return rc;
    const cJSON *effort = json_get(v, "effort"), *form = json_get(v, "format");
    size_t i = 0;
    while (effort && i < 5 && (!cJSON_IsString(effort) || strcmp(effort->valuestring, efforts[i]) != 0)) i++;
    if (i == 5) return err_set(e, ERR_INVALID, "'output_config.effort' must be low, medium, high, xhigh or max");
    const char *before = a->r.reasoning_effort;
    if (effort && !(before && strcmp(before, "none") == 0)) a->r.reasoning_effort = efforts[i == 4 ? 3 : i];
    return form ? take_form(a, "output_config.format", form, e) : ERR_OK;
}

/* ---- the body ---------------------------------------------------------------------------------------------- */

static const openai_field fields[] = {
    {"model", openai_take_common},
    {"messages", take_messages},
    {"system", NULL}, /* after the messages */
    {"max_tokens", take_max_tokens},
    {"stream", openai_take_common},
    {"temperature", take_temperature},
    {"top_p", openai_take_common},
    {"top_k", openai_take_common},
    {"seed", openai_take_common}, /* polder's own: what makes an answer come again */
    {"stop_sequences", take_stops},
    {"tools", take_tools},
    {"tool_choice", take_tool_choice},
    {"thinking", take_thinking_switch},
    {"output_config", take_output_config},
    {"output_format", take_output_format},
    {"metadata", take_metadata},
    {"thread", openai_refuse},
    {"container", openai_refuse},
    {"mcp_servers", openai_refuse_nonempty},
    {"context_management", openai_refuse},
    {"inference_geo", openai_refuse}, /* where it is answered is the policy's to say */
    {"speed", openai_refuse},
    {"fallbacks", openai_refuse},
    {"user_profile_id", openai_refuse},
    {"workspace_id", openai_refuse},
    /* they ask how the answer is made or billed, not for another answer */
    {"cache_control", NULL},
    {"service_tier", NULL},
    {"diagnostics", NULL},
    {NULL, NULL},
};

static void own_free(void *p) {
    anthropic_answer *s = p;
    parts_free(&s->parts);
    mem_free(s);
}

static err_code fault(answer *a, const char *param, const char *sentence, err *e) {
    snprintf(a->param, sizeof a->param, "%s", param);
    return err_set(e, ERR_INVALID, "%s", sentence);
}

err_code anthropic_parse_count(answer *a, err *e) {
    a->own = mem_zalloc(sizeof(anthropic_answer));
    a->own_free = a->own ? own_free : NULL;
    a->messages = cJSON_CreateArray();
    if (!a->own || !a->messages) return no_memory(e);
    err_code rc = openai_take_own_fields(a, fields, e);
    const cJSON *system = json_get(a->body, "system");
    if (rc == ERR_OK && system && take_system(a, system, e) != ERR_OK) {
        snprintf(a->param, sizeof a->param, "system");
        rc = e->code;
    }
    if (rc == ERR_OK) rc = openai_check_common(a, e);
    if (rc == ERR_OK) rc = openai_check_tools(a, e);
    if (rc != ERR_OK) return rc;
    if (!json_get(a->body, "messages")) return fault(a, "messages", "'messages' is missing", e);
    a->r.messages = a->messages;
    a->r.parse = true;
    return ERR_OK;
}

err_code anthropic_parse(answer *a, err *e) {
    err_code rc = anthropic_parse_count(a, e);
    if (rc == ERR_OK && a->r.max_tokens < 0)
        return fault(a, "max_tokens", "'max_tokens' is missing: say how many tokens the answer may have", e);
    return rc;
}
