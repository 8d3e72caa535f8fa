/* What differs from the last recorded inventory. */
#include "operations/internal.h"

#include <string.h>

/* v as JSON; null where it is NULL. */
static void value(jw *w, const char *key, const cJSON *v) {
    char *text = v ? cJSON_PrintUnformatted(v) : NULL;
    jw_key(w, key);
    if (text)
        jw_raw(w, text, strlen(text));
    else if (v)
        w->out->failed = true; /* out of memory */
    else
        jw_null(w);
    cJSON_free(text);
}

static void differ(jw *w, const char *what, const char *name, const char *fact, const cJSON *from, const cJSON *to) {
    jw_obj(w);
    jw_kstr(w, "what", what);
    jw_kstr(w, "name", name);
    jw_kstr(w, "fact", fact);
    value(w, "from", from);
    value(w, "to", to);
    jw_obj_end(w);
}

static bool same(const cJSON *a, const cJSON *b) {
    if (!a || !b) return a == b;
    return cJSON_Compare(a, b, true);
}

/* Every member of either. */
static void compare_objects(jw *w, const char *what, const char *name, const cJSON *from, const cJSON *to) {
    const cJSON *v;
    cJSON_ArrayForEach(v, from) {
        const cJSON *now = cJSON_GetObjectItemCaseSensitive(to, v->string);
        if (!same(v, now)) differ(w, what, name, v->string, v, now);
    }
    cJSON_ArrayForEach(v, to) {
        if (!cJSON_GetObjectItemCaseSensitive(from, v->string)) differ(w, what, name, v->string, NULL, v);
    }
}

static const cJSON *find(const cJSON *list, const char *key, const char *name) {
    const cJSON *one;
    cJSON_ArrayForEach(one, list) {
        if (strcmp(text_at(one, key), name) == 0) return one;
    }
    return NULL;
}

/* Two lists of objects with a name. */
static void compare_lists(jw *w, const char *what, const char *key, const cJSON *from, const cJSON *to) {
    static const cJSON yes = {.type = cJSON_True}, no = {.type = cJSON_False};
    const cJSON *one;
    cJSON_ArrayForEach(one, from) {
        const char *name = text_at(one, key);
        const cJSON *now = find(to, key, name);
        if (now)
            compare_objects(w, what, name, one, now);
        else
            differ(w, what, name, "declared", &yes, &no);
    }
    cJSON_ArrayForEach(one, to) {
        if (!find(from, key, text_at(one, key))) differ(w, what, text_at(one, key), "declared", &no, &yes);
    }
}

static void compare(jw *w, const cJSON *from, const cJSON *to) {
    compare_lists(w, "provider", "name", json_get(from, "providers"), json_get(to, "providers"));
    compare_lists(w, "route", "model", json_get(from, "routes"), json_get(to, "routes"));
    compare_lists(w, "model", "name", json_get(from, "models"), json_get(to, "models"));
    compare_objects(w, "policy", "policy", json_get(from, "policy"), json_get(to, "policy"));
    compare_objects(w, "setting", "island.yaml", json_get(from, "settings"), json_get(to, "settings"));
}

static err_code read_last(ledger *l, uint64_t seq, cJSON **out, err *e) {
    buf text = {.max = INVENTORY_MAX};
    err_code rc = ledger_content(l, seq, "inventory", &text, e);
    if (!rc) rc = json_parse(out, buf_str(&text), text.len, "the last inventory", e);
    buf_free(&text);
    return rc;
}

err_code changes_since_last(jw *w, const declared *d, const tally *t, ledger *l, err *e) {
    uint64_t seq = t->inventory;
    bool found = t->has_inventory;
    cJSON *last = NULL;
    err why = {0};
    err_code rc = found ? ERR_OK : scan_last_inventory(l, t->from, &seq, &found, e);
    if (rc) return rc;
    rc = found ? read_last(l, seq, &last, &why) : ERR_OK;
    if (rc == ERR_NOMEM) return err_nomem(e, "an inventory");
    jw_obj(w);
    jw_key(w, "since");
    if (found) {
        jw_obj(w);
        jw_kint(w, "record", (int64_t)seq);
        if (last) jw_kstr(w, "time", text_at(last, "made"));
        jw_obj_end(w);
    } else {
        jw_null(w);
    }
    if (rc) jw_kstr(w, "why", why.msg); /* its content was erased, or is damaged: there is nothing to compare with */
    jw_key(w, "list");
    jw_arr(w);
    if (last) compare(w, json_get(last, "declared"), d->tree);
    jw_arr_end(w);
    jw_obj_end(w);
    cJSON_Delete(last);
    return ERR_OK;
}
