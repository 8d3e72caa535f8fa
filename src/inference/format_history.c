/* OpenAI's messages as a model's template wants them: arguments as text or object, ids of its form, content that is
 * there or null, one call a message where it shows only one, results where it looks for them. */
#include "inference/format_internal.h"

#include "base/bytes.h"

#define SHORT_ID 9

typedef struct call_note { /* a call that was seen: results name it by its id */
    const char *id, *name;
    char own[FORMAT_NAME_MAX + 32];
} call_note;

typedef struct history {
    const answer_format *f;
    cJSON *out;
    cJSON *last_calls; /* the last assistant message with calls in `out` */
    call_note *notes;
    size_t n_notes, cap_notes;
    int index; /* of the message that is read */
    err *e;
} history;

static err_code no_memory(history *h) {
    return err_nomem(h->e, "messages");
}

/* Takes v over. */
static err_code append(history *h, cJSON *v) {
    if (v && cJSON_AddItemToArray(h->out, v)) return ERR_OK;
    cJSON_Delete(v);
    return no_memory(h);
}

static err_code put(history *h, cJSON *o, const char *key, cJSON *v) {
    cJSON_DeleteItemFromObjectCaseSensitive(o, key);
    if (v && cJSON_AddItemToObject(o, key, v)) return ERR_OK;
    cJSON_Delete(v);
    return no_memory(h);
}

static const char *text_of(const cJSON *o, const char *key) {
    const cJSON *v = o ? cJSON_GetObjectItemCaseSensitive(o, key) : NULL;
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

/* ---- ids --------------------------------------------------------------------------------------------------- */

/* Mistral's: as it is where it has that form, else made of its hash. */
static void short_id(char out[SHORT_ID + 1], const char *id) {
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    uint8_t hash[SHA256_LEN];
    if (strlen(id) == SHORT_ID && strspn(id, letters) == SHORT_ID) {
        memcpy(out, id, SHORT_ID + 1);
        return;
    }
    sha256_of(hash, id, strlen(id));
    for (int i = 0; i < SHORT_ID; i++) out[i] = letters[hash[i] % 62];
    out[SHORT_ID] = 0;
}

static err_code note_call(history *h, const char *id, const char *name, size_t in_message, call_note **out) {
    if (h->n_notes == h->cap_notes) {
        size_t cap = h->cap_notes ? 2 * h->cap_notes : 16;
        call_note *more = mem_realloc(h->notes, cap * sizeof *more);
        if (!more) return no_memory(h);
        h->notes = more;
        h->cap_notes = cap;
    }
    call_note *n = *out = &h->notes[h->n_notes];
    n->id = id;
    n->name = name;
    if (h->f->own_ids)
        snprintf(n->own, sizeof n->own, "functions.%.*s:%zu", FORMAT_NAME_MAX, name,
                 h->f->own_ids_local ? in_message : h->n_notes);
    else if (h->f->short_ids)
        short_id(n->own, id);
    else
        n->own[0] = 0;
    h->n_notes++;
    return ERR_OK;
}

static const call_note *find_note(const history *h, const char *id) {
    for (size_t i = h->n_notes; i--;)
        if (strcmp(h->notes[i].id, id) == 0) return &h->notes[i];
    return NULL;
}

/* ---- calls ------------------------------------------------------------------------------------------------- */

/* Arguments come as JSON text. *out: as the template wants them. */
static err_code read_args(history *h, const cJSON *v, size_t k, cJSON **out) {
    cJSON *o = NULL;
    *out = NULL;
    if (cJSON_IsObject(v)) {
        o = cJSON_Duplicate(v, true);
        if (!o) return no_memory(h);
    } else {
        const char *s = cJSON_IsString(v) ? v->valuestring : "";
        if (!*s) s = "{}";
        err why = {0};
        err_code rc = json_parse(&o, s, strlen(s), "arguments", &why);
        if (rc == ERR_NOMEM) return no_memory(h);
        if (rc || !cJSON_IsObject(o)) {
            cJSON_Delete(o);
            return err_set(h->e, ERR_INVALID,
                           "messages[%d].tool_calls[%zu].function.arguments must be the text of a JSON object%s%s",
                           h->index, k, why.msg[0] ? ": " : "", why.msg);
        }
        if (h->f->args_text) {
            cJSON_Delete(o);
            *out = cJSON_CreateString(s);
            return *out ? ERR_OK : no_memory(h);
        }
    }
    if (h->f->args_text) {
        char *s = json_text(o);
        *out = s ? cJSON_CreateString(s) : NULL;
        mem_free(s);
        cJSON_Delete(o);
    } else {
        *out = o;
    }
    return *out ? ERR_OK : no_memory(h);
}

/* One call in OpenAI's form; *out is the template's. */
static err_code read_call(history *h, const cJSON *call, size_t k, cJSON **out) {
    const cJSON *f = cJSON_GetObjectItemCaseSensitive(call, "function");
    const char *id = text_of(call, "id"), *name = text_of(f, "name");
    if (!id || !name)
        return err_set(h->e, ERR_INVALID, "messages[%d].tool_calls[%zu]: an id and a function with a name are needed",
                       h->index, k);
    call_note *note = NULL;
    cJSON *args = NULL;
    err_code rc = note_call(h, id, name, k, &note);
    if (!rc) rc = read_args(h, cJSON_GetObjectItemCaseSensitive(f, "arguments"), k, &args);
    if (rc) return rc;
    cJSON *o = *out = cJSON_CreateObject(), *fn = o ? cJSON_CreateObject() : NULL;
    bool ok = fn && cJSON_AddStringToObject(o, "id", note->own[0] ? note->own : id) &&
              cJSON_AddStringToObject(o, "type", "function") && cJSON_AddStringToObject(fn, "name", name);
    if (ok && (ok = cJSON_AddItemToObject(fn, "arguments", args))) args = NULL;
    if (ok && (ok = cJSON_AddItemToObject(o, "function", fn))) fn = NULL;
    cJSON_Delete(args);
    cJSON_Delete(fn);
    return ok ? ERR_OK : no_memory(h);
}

/* ---- messages ---------------------------------------------------------------------------------------------- */

/* gpt-oss: reasoning under another name, and together with content where there are calls. */
static err_code put_thinking(history *h, cJSON *m, bool calls) {
    const char *why = text_of(m, "reasoning_content"), *content = text_of(m, "content");
    if (!why) return ERR_OK;
    buf both = {.max = FORMAT_BYTES_MAX};
    buf_puts(&both, why);
    bool joins = calls && content && *content;
    if (joins) buf_printf(&both, "%s%s", *why ? "\n\n" : "", content);
    err_code rc = both.failed ? no_memory(h) : put(h, m, "thinking", cJSON_CreateString(buf_str(&both)));
    if (!rc && joins) rc = put(h, m, "content", cJSON_CreateString(""));
    cJSON_DeleteItemFromObjectCaseSensitive(m, "reasoning_content");
    if (both.ptr) mem_wipe(both.ptr, both.len);
    buf_free(&both);
    return rc;
}

/* Content is "" or null beside calls, as the template wants it; text that it would not show then goes before. */
static err_code fit_content(history *h, cJSON *m) {
    const char *content = text_of(m, "content");
    bool empty = !content || !*content;
    if (!h->f->content_null) return empty ? put(h, m, "content", cJSON_CreateString("")) : ERR_OK;
    if (!empty) {
        cJSON *before = cJSON_Duplicate(m, true);
        if (!before) return no_memory(h);
        cJSON_DeleteItemFromObjectCaseSensitive(before, "tool_calls");
        err_code rc = append(h, before);
        if (rc) return rc;
        cJSON_DeleteItemFromObjectCaseSensitive(m, "reasoning_content");
    }
    return put(h, m, "content", cJSON_CreateNull());
}

static err_code add_calls(history *h, const cJSON *from) {
    if (!h->f->takes_calls)
        return err_set(h->e, ERR_UNSUPPORTED,
                       "messages[%d].tool_calls: the chat template of this model does not show calls; leave them out",
                       h->index);
    cJSON *m = cJSON_Duplicate(from, true), *calls = cJSON_CreateArray();
    err_code rc = m && calls ? put(h, m, "tool_calls", cJSON_Duplicate(calls, true)) : no_memory(h);
    size_t k = 0;
    const cJSON *one;
    cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(from, "tool_calls")) {
        cJSON *call = NULL;
        if (!rc) rc = read_call(h, one, k++, &call);
        if (call && (rc || !cJSON_AddItemToArray(calls, call))) {
            cJSON_Delete(call);
            if (!rc) rc = no_memory(h);
        }
    }
    if (!rc) {
        rc = put(h, m, "tool_calls", calls);
        calls = NULL;
    }
    if (!rc && h->f->thinking_key) rc = put_thinking(h, m, true);
    if (!rc) rc = fit_content(h, m);
    cJSON_Delete(calls);
    if (rc) {
        cJSON_Delete(m);
        return rc;
    }
    h->last_calls = m;
    return append(h, m);
}

/* Results that the template looks for in the message before. */
static err_code add_response(history *h, const cJSON *m, const char *name) {
    if (!h->last_calls) return err_set(h->e, ERR_INVALID, "messages[%d]: a tool's result must follow a call", h->index);
    cJSON *list = cJSON_GetObjectItemCaseSensitive(h->last_calls, "tool_responses");
    if (!list) list = cJSON_AddArrayToObject(h->last_calls, "tool_responses");
    cJSON *o = list ? cJSON_CreateObject() : NULL;
    const char *content = text_of(m, "content");
    bool ok = o && cJSON_AddStringToObject(o, "name", name ? name : "unknown") &&
              cJSON_AddStringToObject(o, "response", content ? content : "") && cJSON_AddItemToArray(list, o);
    if (!ok) cJSON_Delete(o);
    return ok ? ERR_OK : no_memory(h);
}

static err_code add_result(history *h, const cJSON *from) {
    const char *id = text_of(from, "tool_call_id");
    const call_note *note = id ? find_note(h, id) : NULL;
    if (!h->f->takes_results)
        return err_set(h->e, ERR_UNSUPPORTED,
                       "messages[%d]: the chat template of this model does not show results of tools; leave them out",
                       h->index);
    if (h->f->tool_responses) return add_response(h, from, note ? note->name : text_of(from, "name"));
    cJSON *m = cJSON_Duplicate(from, true);
    err_code rc = m ? ERR_OK : no_memory(h);
    char own[SHORT_ID + 1];
    if (!rc && note && note->own[0]) rc = put(h, m, "tool_call_id", cJSON_CreateString(note->own));
    if (!rc && id && !note && h->f->short_ids) {
        short_id(own, id);
        rc = put(h, m, "tool_call_id", cJSON_CreateString(own));
    }
    if (!rc && note && !text_of(m, "name")) rc = put(h, m, "name", cJSON_CreateString(note->name));
    if (!rc) return append(h, m);
    cJSON_Delete(m);
    return rc;
}

static err_code add_message(history *h, const cJSON *m) {
    const cJSON *calls = cJSON_GetObjectItemCaseSensitive(m, "tool_calls");
    const char *who = text_of(m, "role");
    if (who && strcmp(who, "tool") == 0) return add_result(h, m);
    h->last_calls = NULL;
    if (who && strcmp(who, "assistant") == 0 && cJSON_IsArray(calls) && calls->child) return add_calls(h, m);
    cJSON *copy = cJSON_Duplicate(m, true);
    if (!copy) return no_memory(h);
    err_code rc = h->f->thinking_key ? put_thinking(h, copy, false) : ERR_OK;
    if (!rc) return append(h, copy);
    cJSON_Delete(copy);
    return rc;
}

/* ---- one call a message ------------------------------------------------------------------------------------ */

/* The result of a call among the messages from `at` on that are results. Detached. */
static cJSON *take_result(cJSON *list, cJSON *at, const char *id) {
    for (cJSON *m = at; m; m = m->next) {
        const char *who = text_of(m, "role"), *of = text_of(m, "tool_call_id");
        if (!who || strcmp(who, "tool") != 0) return NULL;
        if (of && id && strcmp(of, id) == 0) return cJSON_DetachItemViaPointer(list, m);
    }
    return NULL;
}

/* A message with several calls becomes several, each followed by its result. */
static err_code split_calls(history *h) {
    cJSON *old = h->out, *m;
    err_code rc = ERR_OK;
    h->out = cJSON_CreateArray();
    if (!h->out) rc = no_memory(h);
    while (!rc && (m = cJSON_DetachItemFromArray(old, 0))) {
        cJSON *calls = cJSON_GetObjectItemCaseSensitive(m, "tool_calls");
        while (!rc && cJSON_GetArraySize(calls) > 1) {
            cJSON *one = cJSON_Duplicate(m, true);
            cJSON *kept = cJSON_GetObjectItemCaseSensitive(one, "tool_calls");
            while (one && cJSON_GetArraySize(kept) > 1) cJSON_DeleteItemFromArray(kept, 1);
            rc = append(h, one);
            cJSON *result = rc ? NULL : take_result(old, old->child, text_of(calls->child, "id"));
            if (result) rc = append(h, result);
            cJSON_DeleteItemFromArray(calls, 0);
            if (!rc) rc = put(h, m, "content", h->f->content_null ? cJSON_CreateNull() : cJSON_CreateString(""));
            cJSON_DeleteItemFromObjectCaseSensitive(m, "reasoning_content");
            cJSON_DeleteItemFromObjectCaseSensitive(m, "thinking");
        }
        if (!rc)
            rc = append(h, m);
        else
            cJSON_Delete(m);
    }
    cJSON_Delete(old);
    return rc;
}

err_code format_messages(cJSON **out, const answer_format *f, const cJSON *messages, err *e) {
    history h = {.f = f, .out = cJSON_CreateArray(), .e = e};
    err_code rc = h.out ? ERR_OK : no_memory(&h);
    const cJSON *m;
    cJSON_ArrayForEach(m, messages) {
        if (!rc) rc = add_message(&h, m);
        h.index++;
    }
    if (!rc && f->one_call) rc = split_calls(&h);
    mem_free(h.notes);
    if (rc) {
        cJSON_Delete(h.out);
        h.out = NULL;
    }
    *out = h.out;
    return rc;
}
