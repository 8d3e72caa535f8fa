/* Providers: adding, changing, removing, showing. */
#include "inference/providers_internal.h"

#include "base/sys.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- rows -------------------------------------------------------------------------------------------------- */

static err_code facts_text(const provider *p, buf *out, err *e) {
    cJSON *o = provider_facts_json(p);
    out->max = PROVIDER_FACTS_MAX;
    err_code rc = o ? json_canonical(out, o, e) : err_nomem(e, "a provider's facts");
    cJSON_Delete(o);
    return rc ? rc : buf_check(out, "a provider's facts", e);
}

static err_code write_row(store *s, const provider *p, bool is_new, err *e) {
    buf text = {0};
    int64_t now = time_unix_ms();
    err_code rc = facts_text(p, &text, e);
    if (!rc) {
        store_val v[] = {SV_TEXT(p->facts.name), SV_TEXT(text.ptr), SV_INT(now)};
        rc = store_write(s,
                         is_new ? "INSERT INTO providers(name, facts, created_ms, changed_ms) VALUES(?1, ?2, ?3, ?3)"
                                : "UPDATE providers SET facts = ?2, changed_ms = ?3 WHERE name = ?1",
                         v, 3, NULL, e);
    }
    buf_free(&text);
    return rc;
}

static err_code row_count(store_stmt *q, void *ctx, err *e) {
    *(int64_t *)ctx = store_col_int(q, 0);
    return ERR_OK;
}

/* ca_file is read by this process when it connects: what cannot be read is noticed now. */
static err_code check_ca_file(const provider *p, err *e) {
    buf text = {.max = 4u << 20};
    if (!*p->ca_file) return ERR_OK;
    err why = {0};
    err_code rc = file_read(&text, p->ca_file, &why);
    bool pem = !rc && strstr(buf_str(&text), "-----BEGIN CERTIFICATE-----");
    buf_free(&text);
    if (rc) return err_set(e, ERR_INVALID, "provider '%s': ca_file: %s", p->facts.name, why.msg);
    return pem ? ERR_OK
               : err_set(e, ERR_INVALID, "provider '%s': ca_file %s holds no certificate (PEM)", p->facts.name,
                         p->ca_file);
}

/* ---- adding ------------------------------------------------------------------------------------------------ */

/* The known facts, beside the provider's name. */
static err_code put_facts(cJSON *body, const provider *p, err *e) {
    cJSON *o = provider_facts_json(p);
    bool ok = o && cJSON_AddStringToObject(body, "provider", p->facts.name);
    while (ok && o->child) {
        cJSON *v = cJSON_DetachItemViaPointer(o, o->child);
        ok = cJSON_IsNull(v) || cJSON_AddItemToObject(body, v->string, v);
        if (!ok || cJSON_IsNull(v)) cJSON_Delete(v);
    }
    cJSON_Delete(o);
    return ok ? ERR_OK : err_nomem(e, "a record");
}

static err_code add_rows(change_job *c, store *s, record **r, err *e) {
    const provider *p = c->ctx;
    int64_t n = 0;
    bool found;
    err_code rc = store_one(s, "SELECT count(*) FROM providers", NULL, 0, &found, row_count, &n, e);
    if (!rc && n >= PROVIDERS_MAX - 1)
        return err_set(e, ERR_TOO_LARGE, "there are %d providers, the most; remove one with polder provider rm",
                       PROVIDERS_MAX - 1);
    if (!rc) rc = write_row(s, p, true, e);
    if (rc == ERR_EXISTS)
        return err_set(e, ERR_EXISTS,
                       "provider '%s' is there already; polder provider change changes its facts, or choose another "
                       "name",
                       p->facts.name);
    if (!rc) rc = change_record(c, r, "provider.added", e);
    return rc ? rc : put_facts(record_body(*r), p, e);
}

err_code provider_add(island *i, inference *inf, const identity *by, const cJSON *facts, cJSON **out, err *e) {
    provider p;
    *out = NULL;
    err_code rc = provider_parse(&p, facts, e);
    if (!rc) rc = check_ca_file(&p, e);
    change_job c = {.i = i, .inf = inf, .by = by, .ctx = &p, .rows = add_rows};
    if (!rc) rc = change_run(&c, e);
    return rc ? rc : provider_show(i, inf, p.facts.name, out, e);
}

/* ---- changing ---------------------------------------------------------------------------------------------- */

typedef struct facts_change {
    const cJSON *facts;
    const char *name;
} facts_change;

/* The old facts with the new ones over them. (cJSON's own replacing leaves a NULL key where memory is short.) */
static err_code merge(const provider *old, const facts_change *f, cJSON **from, cJSON **merged, err *e) {
    *from = provider_facts_json(old);
    *merged = *from ? cJSON_CreateObject() : NULL;
    bool ok = *merged && cJSON_AddStringToObject(*merged, "name", f->name);
    for (const cJSON *v = ok ? (*from)->child : NULL; v && ok; v = v->next) {
        const cJSON *given = cJSON_GetObjectItemCaseSensitive(f->facts, v->string);
        cJSON *copy = cJSON_Duplicate(given ? given : v, true);
        ok = copy && cJSON_AddItemToObject(*merged, v->string, copy);
        if (!ok) cJSON_Delete(copy);
    }
    return ok ? ERR_OK : err_nomem(e, "a provider's facts");
}

/* {"changes": {fact: {"from", "to"}}}; *any false: nothing differs. */
static err_code put_changes(cJSON *body, const cJSON *from, const cJSON *to, bool *any, err *e) {
    cJSON *changes = body ? cJSON_AddObjectToObject(body, "changes") : NULL;
    *any = false;
    for (const cJSON *a = from->child; a; a = a->next) {
        const cJSON *b = cJSON_GetObjectItemCaseSensitive(to, a->string);
        if (cJSON_Compare(a, b, true)) continue;
        *any = true;
        if (!body) return ERR_OK;
        cJSON *one = changes ? cJSON_AddObjectToObject(changes, a->string) : NULL;
        cJSON *x = one ? cJSON_Duplicate(a, true) : NULL, *y = one ? cJSON_Duplicate(b, true) : NULL;
        bool has_x = x && cJSON_AddItemToObject(one, "from", x), has_y = y && cJSON_AddItemToObject(one, "to", y);
        if (!has_x) cJSON_Delete(x);
        if (!has_y) cJSON_Delete(y);
        if (!has_x || !has_y) return err_nomem(e, "a record");
    }
    return ERR_OK;
}

/* Bytes of scheme, host and port. */
static size_t server_len(const char *url) {
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    return (size_t)(host - url) + strcspn(host, "/");
}

static bool same_server(const char *url, const char *other) {
    size_t n = server_len(url);
    return n == server_len(other) && strncasecmp(url, other, n) == 0;
}

/* A credential was given for the server that `url` names: no other one is to see it. */
static err_code drop_key(store *s, const char *name, cJSON *body, err *e) {
    bool set = false;
    int64_t since;
    err_code rc = provider_key_since(s, name, &set, &since, e);
    if (rc || !set) return rc;
    rc = provider_key_remove(s, name, e);
    return rc || cJSON_AddBoolToObject(body, "key_removed", true) ? rc : err_nomem(e, "a record");
}

static err_code write_change(change_job *c, store *s, const provider *old, const provider *p, const cJSON *from,
                             const cJSON *to, record **r, err *e) {
    bool any;
    err_code rc = put_changes(NULL, from, to, &any, e);
    if (rc || !any) return rc;
    rc = write_row(s, p, false, e);
    if (!rc) rc = change_record(c, r, "provider.changed", e);
    if (!rc && !cJSON_AddStringToObject(record_body(*r), "provider", p->facts.name)) rc = err_nomem(e, "a record");
    if (!rc && !same_server(old->url, p->url)) rc = drop_key(s, p->facts.name, record_body(*r), e);
    return rc ? rc : put_changes(record_body(*r), from, to, &any, e);
}

static err_code change_rows(change_job *c, store *s, record **r, err *e) {
    const facts_change *f = c->ctx;
    provider old, p;
    cJSON *from = NULL, *merged = NULL, *to = NULL;
    err_code rc = provider_find(s, f->name, &old, e);
    if (!rc) rc = merge(&old, f, &from, &merged, e);
    if (!rc) rc = provider_parse(&p, merged, e);
    if (!rc && strcmp(p.ca_file, old.ca_file) != 0) rc = check_ca_file(&p, e);
    if (!rc && !(to = provider_facts_json(&p))) rc = err_nomem(e, "a provider's facts");
    if (!rc) rc = write_change(c, s, &old, &p, from, to, r, e);
    cJSON_Delete(from);
    cJSON_Delete(merged);
    cJSON_Delete(to);
    return rc;
}

err_code provider_change(island *i, inference *inf, const identity *by, const cJSON *facts, cJSON **out, err *e) {
    facts_change f = {.facts = facts};
    *out = NULL;
    err_code rc = provider_check_keys(facts, e);
    if (!rc) rc = json_get_str(facts, "name", &f.name, e);
    if (!rc && !f.name) rc = err_set(e, ERR_INVALID, "the name of the provider that is to change is missing");
    if (!rc) rc = provider_check_name(f.name, e);
    change_job c = {.i = i, .inf = inf, .by = by, .ctx = &f, .rows = change_rows};
    if (!rc) rc = change_run(&c, e);
    return rc ? rc : provider_show(i, inf, f.name, out, e);
}

/* ---- removing ---------------------------------------------------------------------------------------------- */

static err_code remove_rows(change_job *c, store *s, record **r, err *e) {
    const char *name = c->ctx;
    char model_name[MODEL_NAME_MAX + 1];
    provider p;
    err_code rc = provider_find(s, name, &p, e);
    if (!rc) rc = route_leads_to(s, name, NULL, model_name, e);
    if (rc) return rc;
    if (*model_name)
        return err_set(e, ERR_EXISTS,
                       "provider '%s': the model name '%s' still leads to it; give that other candidates first (polder "
                       "model route)",
                       name, model_name);
    rc = provider_key_remove(s, name, e);
    if (!rc) rc = store_write(s, "DELETE FROM providers WHERE name = ?", &SV_TEXT(name), 1, NULL, e);
    if (!rc) rc = change_record(c, r, "provider.removed", e);
    if (!rc && !cJSON_AddStringToObject(record_body(*r), "provider", name)) rc = err_nomem(e, "a record");
    return rc;
}

err_code provider_remove(island *i, inference *inf, const identity *by, const char *name, err *e) {
    char copy[PROVIDER_NAME_MAX + 1];
    err_code rc = provider_check_name(name, e);
    if (rc) return rc;
    snprintf(copy, sizeof copy, "%s", name);
    change_job c = {.i = i, .inf = inf, .by = by, .ctx = copy, .rows = remove_rows};
    return change_run(&c, e);
}

/* ---- showing ----------------------------------------------------------------------------------------------- */

typedef struct times {
    int64_t created_ms, changed_ms;
} times;

static err_code row_times(store_stmt *q, void *ctx, err *e) {
    *(times *)ctx = (times){store_col_int(q, 0), store_col_int(q, 1)};
    return ERR_OK;
}

static bool put_time(cJSON *o, const char *key, int64_t ms) {
    char text[32];
    time_rfc3339(text, ms);
    return cJSON_AddStringToObject(o, key, text);
}

static err_code put_stored(cJSON *o, store *s, const char *name, err *e) {
    bool found, set = false;
    times t = {0};
    int64_t since = 0;
    err_code rc = store_one(s, "SELECT created_ms, changed_ms FROM providers WHERE name = ?", &SV_TEXT(name), 1, &found,
                            row_times, &t, e);
    if (!rc) rc = provider_key_since(s, name, &set, &since, e);
    if (rc) return rc;
    cJSON *key = put_time(o, "created", t.created_ms) && put_time(o, "changed", t.changed_ms)
                     ? cJSON_AddObjectToObject(o, "key")
                     : NULL;
    bool ok = key && cJSON_AddBoolToObject(key, "set", set) && (!set || put_time(key, "since", since));
    return ok ? ERR_OK : err_nomem(e, "a provider's facts");
}

static err_code put_runtime(cJSON *o, inference *inf, const char *name, err *e) {
    bool open;
    uint32_t failures, running;
    if (!inf || !perimeter_runtime(inf, name, &open, &failures, &running)) return ERR_OK;
    bool ok = cJSON_AddStringToObject(o, "breaker", open ? "open" : "closed") &&
              cJSON_AddNumberToObject(o, "failures", failures) && cJSON_AddNumberToObject(o, "running", running);
    return ok ? ERR_OK : err_nomem(e, "a provider's facts");
}

static err_code show(store *s, inference *inf, const provider *p, cJSON **out, err *e) {
    cJSON *o = cJSON_CreateObject(), *facts = provider_facts_json(p);
    bool ok = o && facts && cJSON_AddStringToObject(o, "name", p->facts.name);
    while (ok && facts->child) {
        cJSON *v = cJSON_DetachItemViaPointer(facts, facts->child);
        ok = cJSON_AddItemToObject(o, v->string, v);
        if (!ok) cJSON_Delete(v);
    }
    cJSON_Delete(facts);
    err_code rc = ok ? ERR_OK : err_nomem(e, "a provider's facts");
    if (!rc && strcmp(p->facts.name, ENGINE_NAME) != 0) {
        rc = put_stored(o, s, p->facts.name, e);
        if (!rc) rc = put_runtime(o, inf, p->facts.name, e);
    }
    if (rc)
        cJSON_Delete(o);
    else
        *out = o;
    return rc;
}

err_code provider_show(island *i, inference *inf, const char *name, cJSON **out, err *e) {
    store *s = island_store(i);
    provider p = {.facts = provider_facts_engine};
    *out = NULL;
    err_code rc = ERR_OK;
    if (strcmp(name, ENGINE_NAME) != 0) {
        rc = models_open_tables(s, e);
        if (rc == ERR_NOT_FOUND)
            return err_set(e, ERR_NOT_FOUND, "provider '%.60s' is not known here, there is none yet", name);
        if (!rc) rc = provider_find(s, name, &p, e);
    }
    return rc ? rc : show(s, inf, &p, out, e);
}

err_code provider_list(island *i, cJSON **out, err *e) {
    store *s = island_store(i);
    provider *list = NULL;
    size_t n = 0;
    *out = cJSON_CreateObject();
    cJSON *all = *out ? cJSON_AddArrayToObject(*out, "providers") : NULL;
    err_code rc = all ? providers_read(s, &list, &n, e) : err_nomem(e, "the list of providers");
    for (size_t k = 0; k < n && !rc; k++) {
        cJSON *one = NULL;
        rc = show(s, NULL, &list[k], &one, e);
        if (!rc && !cJSON_AddItemToArray(all, one)) {
            cJSON_Delete(one);
            rc = err_nomem(e, "the list of providers");
        }
    }
    mem_free(list);
    if (!rc) return ERR_OK;
    cJSON_Delete(*out);
    *out = NULL;
    return rc;
}
