#include "inference/turn.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define TURN_USUAL 200u /* bytes of most turns beside their text */

static void put(turn *t, buf *b, const event *ev) {
    b->max = LEDGER_CONTENT_MAX / 4;
    buf_append(b, ev->text ? ev->text : "", ev->len);
    t->failed |= b->failed;
}

static void begin_call(turn *t, const event *ev) {
    char id[24];
    if (!t->calls) t->calls = cJSON_CreateArray();
    snprintf(id, sizeof id, "call_%d", cJSON_GetArraySize(t->calls));
    cJSON *o = cJSON_CreateObject(), *f = o ? cJSON_AddObjectToObject(o, "function") : NULL;
    char *name = mem_strndup(ev->text ? ev->text : "", ev->len);
    bool ok = f && name && cJSON_AddStringToObject(o, "id", id) && cJSON_AddStringToObject(o, "type", "function") &&
              cJSON_AddStringToObject(f, "name", name) && t->calls && cJSON_AddItemToArray(t->calls, o);
    if (!ok) cJSON_Delete(o);
    mem_free(name);
    t->failed |= !ok;
    t->in_call = ok;
    buf_reset(&t->args);
}

static cJSON *last_call(const turn *t) {
    int n = cJSON_GetArraySize(t->calls);
    return n ? cJSON_GetArrayItem(t->calls, n - 1) : NULL;
}

static void end_call(turn *t) {
    if (!t->in_call) return;
    t->in_call = false;
    cJSON *f = cJSON_GetObjectItemCaseSensitive(last_call(t), "function");
    if (!f || !cJSON_AddStringToObject(f, "arguments", t->args.len ? buf_str(&t->args) : "{}")) t->failed = true;
}

static void drop_call(turn *t) {
    int n = cJSON_GetArraySize(t->calls);
    if (t->in_call && n) cJSON_DeleteItemFromArray(t->calls, n - 1);
    t->in_call = false;
}

void turn_event(turn *t, const event *ev) {
    switch (ev->kind) {
    case EV_TEXT: put(t, &t->text, ev); break;
    case EV_REASONING: put(t, &t->reasoning, ev); break;
    case EV_CALL:
        end_call(t);
        begin_call(t, ev);
        break;
    case EV_CALL_ARGS: put(t, &t->args, ev); break;
    case EV_CALL_END: end_call(t); break;
    case EV_CALL_DROP: drop_call(t); break;
    case EV_FINISH:
        end_call(t);
        text_copy(t->finish, sizeof t->finish, ev->reason ? ev->reason : "");
        break;
    default: break;
    }
}

err_code turn_json(const turn *t, buf *out, err *e) {
    if (t->failed) return err_nomem(e, "what an answer said");
    jflat f;
    jflat_init(&f, LEDGER_CONTENT_MAX);
    (void)buf_reserve(&f.text, t->text.len + TURN_USUAL);
    if (t->finish[0]) jflat_str(&f, "finish", t->finish);
    jflat_obj(&f, "message");
    jflat_str(&f, "content", t->text.len ? t->text.ptr : "");
    if (t->reasoning.len) jflat_str(&f, "reasoning_content", t->reasoning.ptr);
    jflat_str(&f, "role", "assistant");
    if (t->calls && t->calls->child) jflat_tree(&f, "tool_calls", t->calls);
    jflat_end(&f);
    err_code rc = jflat_check(&f, "what an answer said", e);
    if (!rc) rc = jflat_write(&f, NULL, out, e);
    jflat_wipe(&f);
    return rc;
}

void turn_free(turn *t) {
    buf *all[] = {&t->text, &t->reasoning, &t->args};
    for (int i = 0; i < 3; i++) {
        if (all[i]->ptr) mem_wipe(all[i]->ptr, all[i]->len);
        buf_free(all[i]);
    }
    cJSON_Delete(t->calls);
    *t = (turn){0};
}
