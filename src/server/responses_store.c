/* What is stored of an answer, and what a later request makes of it. */
#include "server/internal.h"
#include "server/responses.h"

#include "base/mem.h"
#include "base/sys.h"

#include <inttypes.h>
#include <string.h>

#define OWNER_MAX (PROJECT_NAME_MAX + KEY_ID_MAX + 4)

static const store_migration migrations[] = {
    {"server", 1,
     "CREATE TABLE response(id TEXT PRIMARY KEY, owner TEXT NOT NULL, model TEXT NOT NULL, admitted INTEGER NOT NULL,"
     " completed INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,"
     " reasoning_tokens INTEGER NOT NULL, created_s INTEGER NOT NULL) STRICT"},
};

err_code responses_open_tables(store *s, err *e) {
    return store_migrate(s, migrations, sizeof migrations / sizeof *migrations, e);
}

/* Whoever shares a project shares its answers; a key without one is alone. A project that came back under the name of
 * one that was removed is another: what is older than it is not its own. */
#define IS_OWN                             \
    "id = ? AND owner = ? AND NOT EXISTS " \
    "(SELECT 1 FROM projects WHERE 'p:' || name = owner AND created_seq > admitted)"

static void owner_of(char out[OWNER_MAX], const identity *who) {
    bool project = who->project[0] != 0;
    snprintf(out, OWNER_MAX, "%s:%s", project ? "p" : "k", project ? who->project : who->key_id);
}

err_code responses_insert(answer *a, err *e) {
    const responses_answer *s = a->own;
    char id_text[64], owner_text[OWNER_MAX];
    const char *id = id_text, *owner = owner_text;
    snprintf(id_text, sizeof id_text, "resp_%s", s->base);
    owner_of(owner_text, &a->r.who);
    store_val v[] = {SV_TEXT(id),
                     SV_TEXT(owner),
                     SV_TEXT(a->r.model),
                     SV_INT((int64_t)a->record),
                     SV_INT((int64_t)a->completed),
                     SV_INT((int64_t)a->prompt_tokens),
                     SV_INT((int64_t)a->completion_tokens),
                     SV_INT((int64_t)a->reasoning_tokens),
                     SV_INT(a->created_unix_s)};
    return store_write(island_store(a->isl), "INSERT INTO response VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", v,
                       sizeof v / sizeof *v, NULL, e);
}

/* ---- loading ----------------------------------------------------------------------------------------------- */

void responses_stored_free(responses_stored *s) {
    cJSON_Delete(s->request);
    cJSON_Delete(s->turn);
    mem_free(s->model);
    *s = (responses_stored){.request = NULL};
}

static err_code absent(const char *id, err *e) {
    return err_set(e, ERR_NOT_FOUND, "response '%.64s': there is none, or it was not stored, or it was deleted", id);
}

static err_code load_row(responses_stored *s, store *st, const char *owner, const char *id, err *e) {
    store_stmt *q = NULL;
    store_val v[] = {SV_TEXT(id), SV_TEXT(owner)};
    err_code rc = store_query(&q, st,
                              "SELECT model, admitted, completed, prompt_tokens, completion_tokens, reasoning_tokens, "
                              "created_s FROM response WHERE " IS_OWN,
                              v, 2, e);
    if (rc != ERR_OK) return rc;
    err why = {.code = ERR_OK};
    if (store_step(q, &why)) {
        s->model = mem_strdup(store_col_text(q, 0, NULL));
        s->admitted = (uint64_t)store_col_int(q, 1);
        s->completed = (uint64_t)store_col_int(q, 2);
        s->prompt_tokens = (uint64_t)store_col_int(q, 3);
        s->completion_tokens = (uint64_t)store_col_int(q, 4);
        s->reasoning_tokens = (uint64_t)store_col_int(q, 5);
        s->created = store_col_int(q, 6);
        snprintf(s->base, sizeof s->base, "%s", id + strlen("resp_"));
        rc = s->model ? ERR_OK : err_nomem(e, "a response");
    } else if (why.code != ERR_OK) {
        if (e) *e = why;
        rc = why.code;
    } else {
        rc = absent(id, e);
    }
    store_finish(q);
    return rc;
}

static err_code load_content(cJSON **out, ledger *l, uint64_t seq, const char *name, err *e) {
    buf b = {.max = LEDGER_CONTENT_MAX};
    err_code rc = ledger_content(l, seq, name, &b, e);
    if (rc == ERR_OK) rc = json_parse(out, buf_str(&b), b.len, name, e);
    if (b.ptr) mem_wipe(b.ptr, b.len);
    buf_free(&b);
    return rc;
}

/* How sensitive the turn was. What cannot be read counts as the highest there is. */
static err_code load_label(responses_stored *s, island *i, err *e) {
    label_set set;
    buf b = {.max = LEDGER_ENTRY_MAX};
    cJSON *entry = NULL;
    const cJSON *f;
    err_code rc = label_set_parse(&set, island_get_config(i)->labels_levels, e);
    if (rc == ERR_OK) rc = ledger_read(island_ledger(i), s->admitted, &b, e);
    if (rc == ERR_OK) rc = json_parse(&entry, buf_str(&b), b.len, "record", e);
    if (rc == ERR_OK) {
        const cJSON *label = json_get(entry, "label"), *flags = json_get(entry, "flags");
        int level = cJSON_IsString(label) ? label_find(&set, label->valuestring, strlen(label->valuestring)) : -1;
        s->label.level = (uint8_t)(level < 0 ? set.n - 1 : level);
        s->label.flags = level < 0 ? FLAGS_ALL : 0;
        cJSON_ArrayForEach(f, flags) {
            unsigned bit = cJSON_IsString(f) ? flag_find(f->valuestring, strlen(f->valuestring)) : 0;
            s->label.flags |= (uint8_t)(bit ? bit : FLAGS_ALL);
        }
    }
    cJSON_Delete(entry);
    buf_free(&b);
    return rc;
}

err_code responses_load(responses_stored *out, island *i, const identity *who, const char *id, err *e) {
    char owner[OWNER_MAX];
    *out = (responses_stored){.request = NULL};
    if (strncmp(id, "resp_", 5) != 0 || strlen(id) > 5 + RESPONSES_BASE_MAX - 1) return absent(id, e);
    owner_of(owner, who);
    err_code rc = load_row(out, island_store(i), owner, id, e);
    if (rc != ERR_OK) return rc;
    ledger *l = island_ledger(i);
    rc = load_content(&out->request, l, out->admitted, "request", e);
    if (rc == ERR_OK) rc = load_content(&out->turn, l, out->completed, "turn", e);
    if (rc == ERR_NOT_FOUND) rc = err_set(e, ERR_NOT_FOUND, "response '%s': its content was erased", id);
    return rc == ERR_OK ? load_label(out, i, e) : rc;
}

/* ---- a conversation that goes on ---------------------------------------------------------------------------- */

/* Calls get the ids under which the client saw them. */
static err_code name_calls(const responses_stored *s, cJSON *message, err *e) {
    uint32_t k = 0;
    cJSON *c;
    cJSON_ArrayForEach(c, cJSON_GetObjectItemCaseSensitive(message, "tool_calls")) {
        char id[64];
        snprintf(id, sizeof id, "call_%s_%u", s->base, k++);
        cJSON *v = cJSON_CreateString(id);
        if (v && cJSON_ReplaceItemInObjectCaseSensitive(c, "id", v)) continue;
        cJSON_Delete(v);
        return err_nomem(e, "the messages");
    }
    return ERR_OK;
}

static err_code copy_turn(const responses_stored *s, cJSON **out, err *e) {
    *out = cJSON_Duplicate(json_get(s->turn, "message"), true);
    if (!*out || !cJSON_IsObject(*out))
        return err_set(e, ERR_CORRUPT, "response 'resp_%s': its turn is damaged", s->base);
    return name_calls(s, *out, e);
}

static const cJSON *kept_of(const responses_stored *s) {
    return json_get(s->request, "kept");
}

static int own_from(const responses_stored *s, bool without_history) {
    int64_t before = 0;
    int at = cJSON_IsTrue(json_get(kept_of(s), "instructions")) ? 1 : 0;
    if (without_history) (void)json_get_int(kept_of(s), "inherited", 0, INT32_MAX, &before, NULL);
    return at + (int)before;
}

err_code responses_history(const responses_stored *s, cJSON *to, err *e) {
    const cJSON *m;
    int i = 0, from = own_from(s, false);
    cJSON_ArrayForEach(m, json_get(s->request, "messages")) {
        if (i++ < from) continue;
        cJSON *copy = cJSON_Duplicate(m, true);
        if (copy && cJSON_AddItemToArray(to, copy)) continue;
        cJSON_Delete(copy);
        return err_nomem(e, "the messages");
    }
    cJSON *turn = NULL;
    err_code rc = copy_turn(s, &turn, e);
    if (rc == ERR_OK && !cJSON_AddItemToArray(to, turn)) rc = err_nomem(e, "the messages");
    if (rc != ERR_OK) cJSON_Delete(turn);
    return rc;
}

static void inherit(answer *a, sensitivity label) {
    a->r.context = a->r.has_context ? sensitivity_join(a->r.context, label) : label;
    a->r.has_context = true;
}

static void move_first(cJSON *to, cJSON *from) {
    cJSON_AddItemToArray(to, cJSON_DetachItemViaPointer(from, from->child)); /* neither allocates */
}

/* The history goes between the instructions and what is new. */
static err_code take_previous(answer *a, err *e) {
    responses_answer *s = a->own;
    responses_stored old = {.request = NULL};
    cJSON *all = cJSON_CreateArray();
    err_code rc = all ? responses_load(&old, a->isl, &a->r.who, s->previous, e) : err_nomem(e, "the messages");
    int before = s->instructions ? 1 : 0;
    if (rc == ERR_OK && before) move_first(all, a->messages);
    if (rc == ERR_OK) rc = responses_history(&old, all, e);
    if (rc == ERR_OK && !cJSON_AddNumberToObject(s->kept, "inherited", cJSON_GetArraySize(all) - before))
        rc = err_nomem(e, "the messages");
    if (rc == ERR_OK) {
        while (a->messages->child) move_first(all, a->messages);
        cJSON_Delete(a->messages);
        a->messages = all;
        a->r.messages = all;
        all = NULL;
        inherit(a, old.label);
    }
    responses_stored_free(&old);
    cJSON_Delete(all);
    return rc;
}

/* "fc_12_0a1b2c3d_1" → "resp_12_0a1b2c3d", PART_CALL, 1 */
static bool read_item_id(const char *id, char response[64], part_kind *kind, uint32_t *k) {
    static const char *const kinds[PART_KINDS] = {[PART_REASONING] = "rs_", [PART_TEXT] = "msg_", [PART_CALL] = "fc_"};
    const char *last = strrchr(id, '_');
    for (int i = 0; i < PART_KINDS; i++) {
        size_t n = strlen(kinds[i]);
        if (strncmp(id, kinds[i], n) != 0 || !last || last <= id + n) continue;
        if (!last[1] || strlen(last + 1) > 6 || strspn(last + 1, "0123456789") != strlen(last + 1)) return false;
        int len = (int)(last - id - (long)n);
        if (len >= RESPONSES_BASE_MAX) return false;
        snprintf(response, 64, "resp_%.*s", len, id + n);
        *kind = (part_kind)i;
        *k = (uint32_t)strtoul(last + 1, NULL, 10);
        return true;
    }
    return false;
}

/* Moves one part of a turn into a message that has nothing yet. The texts of a turn were kept as one, so the first of
 * them brings all and the others nothing. *there: the turn has such a part. */
static err_code move_part(cJSON *to, cJSON *turn, part_kind kind, uint32_t k, bool *there, err *e) {
    static const char *const keys[PART_KINDS] = {[PART_REASONING] = "reasoning_content", [PART_TEXT] = "content"};
    cJSON *calls = cJSON_GetObjectItemCaseSensitive(turn, "tool_calls"), *list = NULL;
    cJSON *v = kind == PART_CALL ? cJSON_DetachItemFromArray(calls, (int)k)
                                 : cJSON_DetachItemFromObjectCaseSensitive(turn, keys[kind]);
    *there = v && (kind == PART_CALL || (v->valuestring && v->valuestring[0]));
    bool ok = true;
    if (*there && kind == PART_CALL) {
        list = cJSON_AddArrayToObject(to, "tool_calls");
        ok = list && cJSON_AddItemToArray(list, v);
        if (ok) v = NULL;
    } else if (*there && k == 0) {
        cJSON_DeleteItemFromObjectCaseSensitive(to, keys[kind]);
        ok = cJSON_AddItemToObject(to, keys[kind], v);
        if (ok) v = NULL;
    }
    cJSON_Delete(v);
    return ok ? ERR_OK : err_nomem(e, "the messages");
}

/* One part of a stored turn as a message of its own; NULL: it has none such. */
static err_code pick(const responses_stored *s, part_kind kind, uint32_t k, cJSON **out, err *e) {
    cJSON *turn = NULL, *to = cJSON_CreateObject();
    bool there = false;
    *out = NULL;
    err_code rc = copy_turn(s, &turn, e);
    bool ok = to && cJSON_AddStringToObject(to, "role", "assistant") && cJSON_AddStringToObject(to, "content", "");
    if (rc == ERR_OK) rc = ok ? move_part(to, turn, kind, k, &there, e) : err_nomem(e, "the messages");
    cJSON_Delete(turn);
    if (rc == ERR_OK && there)
        *out = to;
    else
        cJSON_Delete(to);
    return rc;
}

static err_code resolve(answer *a, responses_stored *last, const char *id, cJSON **out, err *e) {
    char response[64];
    part_kind kind;
    uint32_t k;
    bool known = read_item_id(id, response, &kind, &k);
    if (known && strcmp(last->base, response + 5) != 0) {
        responses_stored_free(last);
        err_code rc = responses_load(last, a->isl, &a->r.who, response, e);
        if (rc != ERR_OK && rc != ERR_NOT_FOUND) return rc;
        known = rc == ERR_OK;
        if (known) inherit(a, last->label);
    }
    err_code rc = known ? pick(last, kind, k, out, e) : ERR_OK;
    if (rc == ERR_OK && !*out)
        return err_set(e, ERR_NOT_FOUND, "item '%.64s': it belongs to no stored response: send it whole", id);
    return rc;
}

static err_code resolve_references(answer *a, err *e) {
    responses_stored last = {.request = NULL};
    err_code rc = ERR_OK;
    for (cJSON *m = a->messages->child, *next; rc == ERR_OK && m; m = next) {
        next = m->next;
        const cJSON *id = cJSON_GetObjectItemCaseSensitive(m, "ref");
        cJSON *whole = NULL;
        if (!id) continue;
        rc = resolve(a, &last, id->valuestring, &whole, e);
        if (rc == ERR_OK) cJSON_ReplaceItemViaPointer(a->messages, m, whole);
    }
    responses_stored_free(&last);
    return rc;
}

err_code responses_prepare(answer *a, err *e) {
    responses_answer *s = a->own;
    err_code rc = ERR_OK;
    if (s->references && (rc = resolve_references(a, e)) != ERR_OK) {
        snprintf(a->param, sizeof a->param, "input");
        return rc;
    }
    if (s->previous && (rc = take_previous(a, e)) != ERR_OK) {
        snprintf(a->param, sizeof a->param, "previous_response_id");
        return rc;
    }
    return s->references || s->previous ? responses_join(a, e) : ERR_OK;
}

err_code responses_done(answer *a, err *e) {
    const responses_answer *s = a->own;
    return s->store ? responses_insert(a, e) : ERR_OK;
}

/* ---- the pages --------------------------------------------------------------------------------------------- */

static void feed(parts *p, event_kind kind, const char *text) {
    event ev = {.kind = kind, .text = text, .len = text ? strlen(text) : 0};
    if (text || kind == EV_CALL_END || kind == EV_FINISH) (void)parts_take(p, &ev);
}

/* The turn as the list of parts that it was written as. */
static void parts_of_turn(parts *p, const cJSON *turn) {
    const cJSON *m = json_get(turn, "message"), *c;
    feed(p, EV_REASONING, cJSON_GetStringValue(json_get(m, "reasoning_content")));
    feed(p, EV_TEXT, cJSON_GetStringValue(json_get(m, "content")));
    cJSON_ArrayForEach(c, json_get(m, "tool_calls")) {
        const cJSON *f = json_get(c, "function");
        feed(p, EV_CALL, cJSON_GetStringValue(json_get(f, "name")));
        feed(p, EV_CALL_ARGS, cJSON_GetStringValue(json_get(f, "arguments")));
        feed(p, EV_CALL_END, NULL);
    }
    feed(p, EV_FINISH, NULL);
}

static void write_stored(const responses_stored *s, buf *out) {
    parts p = {.list = NULL};
    jw w;
    parts_of_turn(&p, s->turn);
    const char *finish = cJSON_GetStringValue(json_get(s->turn, "finish"));
    const cJSON *response = json_get(kept_of(s), "response");
    const cJSON *reasoning = response ? json_get(response, "reasoning") : NULL;
    responses_view v = {.base = s->base,
                        .model = s->model,
                        .created = s->created,
                        .status = responses_status(finish ? finish : ""),
                        .filtered = finish && strcmp(finish, "content_filter") == 0,
                        .response = response,
                        .parts = &p,
                        .summary = reasoning && json_get(reasoning, "summary") != NULL,
                        .usage = true,
                        .prompt_tokens = s->prompt_tokens,
                        .completion_tokens = s->completion_tokens,
                        .reasoning_tokens = s->reasoning_tokens};
    jw_init(&w, out);
    responses_write(&w, &v);
    if (p.failed) out->failed = true;
    parts_free(&p);
}

static void write_input_message(jw *w, const responses_stored *s, const cJSON *m, uint32_t *k) {
    char id[64];
    const char *by = cJSON_GetStringValue(json_get(m, "role")), *text = cJSON_GetStringValue(json_get(m, "content"));
    const char *answers = cJSON_GetStringValue(json_get(m, "tool_call_id"));
    bool assistant = by && strcmp(by, "assistant") == 0;
    snprintf(id, sizeof id, "in_%s_%u", s->base, (*k)++);
    jw_obj(w);
    jw_kstr(w, "id", id);
    jw_kstr(w, "type", answers ? "function_call_output" : "message");
    jw_kstr(w, "status", "completed");
    if (answers) {
        jw_kstr(w, "call_id", answers);
        jw_kstr(w, "output", text);
    } else {
        jw_kstr(w, "role", by);
        jw_key(w, "content");
        jw_arr(w);
        jw_obj(w);
        jw_kstr(w, "type", assistant ? "output_text" : "input_text");
        jw_kstr(w, "text", text ? text : "");
        if (assistant) {
            jw_key(w, "annotations");
            jw_arr(w);
            jw_arr_end(w);
        }
        jw_obj_end(w);
        jw_arr_end(w);
    }
    jw_obj_end(w);
}

static void write_input_call(jw *w, const responses_stored *s, const cJSON *c, uint32_t *k) {
    char id[64];
    const cJSON *f = json_get(c, "function");
    snprintf(id, sizeof id, "in_%s_%u", s->base, (*k)++);
    jw_obj(w);
    jw_kstr(w, "id", id);
    jw_kstr(w, "type", "function_call");
    jw_kstr(w, "status", "completed");
    jw_kstr(w, "call_id", cJSON_GetStringValue(json_get(c, "id")));
    jw_kstr(w, "name", cJSON_GetStringValue(json_get(f, "name")));
    jw_kstr(w, "arguments", cJSON_GetStringValue(json_get(f, "arguments")));
    jw_obj_end(w);
}

static void write_items(jw *w, const responses_stored *s, const cJSON *m, uint32_t *k) {
    const cJSON *calls = json_get(m, "tool_calls"), *c;
    const char *text = cJSON_GetStringValue(json_get(m, "content"));
    if (!calls || (text && *text)) write_input_message(w, s, m, k);
    cJSON_ArrayForEach(c, calls) write_input_call(w, s, c, k);
}

/* What this request itself brought, in the order in which it came. */
static void write_input(const responses_stored *s, buf *out) {
    const cJSON *m;
    uint32_t k = 0;
    int i = 0, from = own_from(s, true);
    jw w;
    jw_init(&w, out);
    jw_obj(&w);
    jw_kstr(&w, "object", "list");
    jw_key(&w, "data");
    jw_arr(&w);
    cJSON_ArrayForEach(m, json_get(s->request, "messages")) {
        if (i++ >= from) write_items(&w, s, m, &k);
    }
    jw_arr_end(&w);
    jw_kbool(&w, "has_more", false);
    jw_obj_end(&w);
}

static err_code forget(exchange *x, const char *id, buf *out, err *e) {
    char owner_text[OWNER_MAX];
    const char *owner = owner_text;
    int64_t n = 0;
    owner_of(owner_text, &x->who);
    store_val v[] = {SV_TEXT(id), SV_TEXT(owner)};
    err_code rc = store_write(island_store(x->s->isl), "DELETE FROM response WHERE " IS_OWN, v, 2, &n, e);
    if (rc != ERR_OK) return rc;
    if (!n) return absent(id, e);
    jw w;
    jw_init(&w, out);
    jw_obj(&w);
    jw_kstr(&w, "id", id);
    jw_kstr(&w, "object", "response");
    jw_kbool(&w, "deleted", true);
    jw_obj_end(&w);
    return ERR_OK;
}

/* Into the header of the reply: what is read again is as sensitive as it was. */
static err_code tell_label(exchange *x, sensitivity label, err *e) {
    label_set set;
    err_code rc = label_set_parse(&set, island_get_config(x->s->isl)->labels_levels, e);
    if (rc == ERR_OK) sensitivity_text(x->label, &set, label);
    return rc;
}

static err_code show(exchange *x, const char *id, bool input, buf *out, err *e) {
    responses_stored s;
    size_t n = 0;
    const char *streamed = http_query_value(x->head, "stream", &n);
    if (streamed && !(n == 5 && memcmp(streamed, "false", 5) == 0))
        return err_set(e, ERR_UNSUPPORTED, "'stream' is not supported for a stored response: leave it out");
    err_code rc = responses_load(&s, x->s->isl, &x->who, id, e);
    if (rc == ERR_OK) rc = tell_label(x, s.label, e);
    if (rc == ERR_OK) {
        if (input)
            write_input(&s, out);
        else
            write_stored(&s, out);
    }
    responses_stored_free(&s);
    return rc;
}

void serve_responses(exchange *x) {
    err e = {.code = ERR_OK};
    char id[128];
    snprintf(id, sizeof id, "%s", x->path + strlen("/v1/responses/"));
    char *sub = strchr(id, '/');
    bool input = sub && strcmp(sub, "/input_items") == 0, get = strcmp(x->method, "DELETE") != 0;
    if (input) *sub = 0;
    buf b;
    buf_init(&b, (size_t)2 * ANSWER_BYTES_MAX);
    err_code rc = (sub && !input) || (input && !get) ? absent(id, &e)
                  : get                              ? show(x, id, input, &b, &e)
                                                     : forget(x, id, &b, &e);
    if (rc == ERR_OK) {
        reply_json(x, 200, &b);
        return;
    }
    buf_free(&b);
    reply_outward(x, &e);
    reply_error(x, reply_status(x, rc), &e, NULL);
}
