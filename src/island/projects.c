/* Projects: names under which keys share a floor, models and limits. A project's grant has the owner "p:NAME". */
#include "island/internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <stdio.h>
#include <string.h>

#define PROJECTS_MAX 2000

static err_code check_name(const char *name, err *e) {
    size_t n = strlen(name);
    bool ok = n >= 1 && n <= PROJECT_NAME_MAX && name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-")] == 0 &&
              !strchr("._-", name[0]);
    if (ok) return ERR_OK;
    return err_set(e, ERR_INVALID,
                   "project name \"%.60s\": it takes 1 to %d lower case letters, digits and . _ -, and begins with a "
                   "letter or digit",
                   name, PROJECT_NAME_MAX);
}

static err_code check_grant(const grant *g, err *e) {
    if (g->project && g->project[0]) return err_set(e, ERR_INVALID, "project: a project belongs to no other project");
    return ERR_OK;
}

static err_code append_record(island *i, const identity *by, const char *event, const char *name, const grant_row *g,
                              uint64_t *seq, err *e) {
    record *r = NULL;
    err_code code = record_new(&r, event, e);
    if (code != ERR_OK) return code;
    cJSON *b = record_body(r);
    if (!cJSON_AddStringToObject(b, "project", name) || !cJSON_AddStringToObject(b, "by", by ? by->key_id : "local") ||
        (g && !grant_json(b, g, true)))
        code = err_nomem(e, "a record");
    if (code == ERR_OK) code = ledger_append(i->led, r, seq, e);
    record_free(r);
    return code;
}

/* ERR_NOT_FOUND with the sentence; *n (may be NULL) gets how many projects there are. */
static err_code find_project(island *i, const char *name, int64_t *n, err *e) {
    store_stmt *q;
    bool found = false;
    err step = {0};
    err_code code =
        store_query(&q, i->st, "SELECT count(*), sum(name = ?) FROM projects", (store_val[]){SV_TEXT(name)}, 1, e);
    if (code != ERR_OK) return code;
    if (store_step(q, &step)) {
        if (n) *n = store_col_int(q, 0);
        found = store_col_int(q, 1) > 0;
    }
    store_finish(q);
    if (step.code != ERR_OK) {
        if (e) *e = step;
        return step.code;
    }
    return found ? ERR_OK
                 : err_set(e, ERR_NOT_FOUND, "there is no project \"%.60s\"; polder project ls lists them", name);
}

/* ---- changes ----------------------------------------------------------------------------------------------- */

typedef struct project_job {
    island *i;
    const char *name, *owner;
    const grant_row *g;
    uint64_t seq;
} project_job;

static err_code insert_rows(store *s, void *ctx, err *e) {
    const project_job *j = ctx;
    store_val v[] = {SV_TEXT(j->name), SV_INT(time_unix_ms()), SV_INT((int64_t)j->seq)};
    err_code code =
        store_write(s, "INSERT INTO projects(name, created_ms, created_seq) VALUES(?, ?, ?)", v, 3, NULL, e);
    return code == ERR_OK ? grant_write(j->i, s, j->g, e) : code;
}

static err_code update_row(store *s, void *ctx, err *e) {
    const project_job *j = ctx;
    return grant_write(j->i, s, j->g, e);
}

static err_code delete_rows(store *s, void *ctx, err *e) {
    const project_job *j = ctx;
    store_val name = SV_TEXT(j->name), owner = SV_TEXT(j->owner);
    err_code code = store_write(s, "DELETE FROM projects WHERE name = ?", &name, 1, NULL, e);
    return code == ERR_OK ? store_write(s, "DELETE FROM grants WHERE owner = ?", &owner, 1, NULL, e) : code;
}

/* A project may come back under the name of one that was removed: what that one used today and this month counts. */
static err_code new_meter(island *i, meter **m, const char *owner, const grant *g, err *e) {
    grant_row row = {0};
    err_code code = usage_flush(i, e);
    if (code == ERR_OK) code = grant_make(&row, i, owner, NULL, g, e);
    if (code == ERR_OK) code = meter_new(m, &row, e);
    if (code == ERR_OK) code = usage_load(i, *m, time_unix_ms(), e);
    grant_clear(&row);
    return code;
}

static err_code add_locked(island *i, const identity *by, const char *name, const grant *g, err *e) {
    char owner[GRANT_OWNER_MAX];
    int64_t n = 0;
    meter *m = NULL;
    err_code code = find_project(i, name, &n, e);
    if (code == ERR_OK) return err_set(e, ERR_EXISTS, "there is a project \"%s\" already", name);
    if (code != ERR_NOT_FOUND) return code;
    if (n >= PROJECTS_MAX) return err_set(e, ERR_TOO_LARGE, "there are %d projects, the most", PROJECTS_MAX);
    project_owner(owner, name);
    code = new_meter(i, &m, owner, g, e);
    project_job j = {.i = i, .name = name, .owner = owner};
    if (code == ERR_OK) code = append_record(i, by, "project.created", name, &m->g, &j.seq, e);
    if (code == ERR_OK) {
        uint64_t ignored;
        j.g = &m->g;
        code = store_transaction(i->st, insert_rows, &j, e);
        /* the record says that there is one */
        if (code != ERR_OK) (void)append_record(i, by, "project.removed", name, NULL, &ignored, NULL);
    }
    if (code == ERR_OK) {
        meter_install(i, m);
        m = NULL;
    }
    meter_free(m);
    return code;
}

err_code project_add(island *i, const identity *by, const char *name, const grant *g, err *e) {
    err_code code = island_need_write(i, e);
    if (code == ERR_OK) code = check_name(name, e);
    if (code == ERR_OK) code = check_grant(g, e);
    if (code != ERR_OK) return code;
    pthread_mutex_lock(&i->key_change);
    code = add_locked(i, by, name, g, e);
    pthread_mutex_unlock(&i->key_change);
    return code;
}

static err_code change_locked(island *i, const identity *by, const char *name, const grant *g, err *e) {
    char owner[GRANT_OWNER_MAX];
    grant_row before = {0}, after = {0};
    meter *m = NULL;
    uint64_t seq;
    project_owner(owner, name);
    err_code code = find_project(i, name, NULL, e);
    if (code == ERR_OK) code = meter_grant(i, owner, &before, e);
    if (code == ERR_OK) code = grant_make(&after, i, owner, &before, g, e);
    if (code == ERR_OK) code = meter_new(&m, &after, e);
    if (code == ERR_OK) code = append_record(i, by, "project.changed", name, &m->g, &seq, e);
    if (code == ERR_OK)
        code = store_transaction(i->st, update_row, &(project_job){.i = i, .name = name, .g = &m->g}, e);
    if (code == ERR_OK) {
        meter_install(i, m);
        m = NULL;
        keys_refloor(i, name);
    }
    grant_clear(&before);
    grant_clear(&after);
    meter_free(m);
    return code;
}

err_code project_change(island *i, const identity *by, const char *name, const grant *g, err *e) {
    err_code code = island_need_write(i, e);
    if (code == ERR_OK) code = check_grant(g, e);
    if (code != ERR_OK) return code;
    pthread_mutex_lock(&i->key_change);
    code = change_locked(i, by, name, g, e);
    pthread_mutex_unlock(&i->key_change);
    return code;
}

static err_code remove_locked(island *i, const identity *by, const char *name, err *e) {
    char owner[GRANT_OWNER_MAX];
    uint64_t seq;
    err_code code = find_project(i, name, NULL, e);
    if (code != ERR_OK) return code;
    size_t n = keys_of_project(i, name);
    if (n)
        return err_set(e, ERR_EXISTS,
                       "the project %s has %zu key%s; revoke them, or move them: polder key change KEY --project OTHER",
                       name, n, n == 1 ? "" : "s");
    project_owner(owner, name);
    code = append_record(i, by, "project.removed", name, NULL, &seq, e);
    if (code == ERR_OK)
        code = store_transaction(i->st, delete_rows, &(project_job){.i = i, .name = name, .owner = owner}, e);
    if (code == ERR_OK) meter_drop(i, owner);
    return code;
}

err_code project_remove(island *i, const identity *by, const char *name, err *e) {
    err_code code = island_need_write(i, e);
    if (code != ERR_OK) return code;
    pthread_mutex_lock(&i->key_change);
    code = remove_locked(i, by, name, e);
    pthread_mutex_unlock(&i->key_change);
    return code;
}

/* ---- looking ----------------------------------------------------------------------------------------------- */

#define PROJECT_COLUMNS \
    "SELECT p.name, p.created_ms, " GRANT_COLUMNS " FROM projects p LEFT JOIN grants g ON g.owner = 'p:' || p.name"

static bool fill_project(const island *i, store_stmt *q, cJSON *o) {
    char created[32];
    grant_row g;
    const char *name = store_col_text(q, 0, NULL);
    time_rfc3339(created, store_col_int(q, 1));
    if (!name || !cJSON_AddStringToObject(o, "name", name) || !cJSON_AddStringToObject(o, "created", created))
        return false;
    err_code code = grant_read(i, q, 2, &g, NULL);
    if (code == ERR_CORRUPT) return cJSON_AddBoolToObject(o, "damaged", true);
    bool ok = code == ERR_OK && grant_json(o, &g, true);
    grant_clear(&g);
    return ok;
}

err_code project_list(island *i, cJSON **out, err *e) {
    store_stmt *q;
    *out = NULL;
    err_code code = store_query(&q, i->st, PROJECT_COLUMNS " ORDER BY p.name", NULL, 0, e);
    if (code != ERR_OK) return code;
    cJSON *o = cJSON_CreateObject(), *list = o ? cJSON_AddArrayToObject(o, "projects") : NULL;
    bool ok = list != NULL;
    err step = {0};
    while (ok && store_step(q, &step)) {
        cJSON *p = cJSON_CreateObject();
        ok = p && cJSON_AddItemToArray(list, p);
        if (!ok) cJSON_Delete(p);
        ok = ok && fill_project(i, q, p);
    }
    store_finish(q);
    if (!ok) code = err_nomem(e, "the list of projects");
    if (ok && step.code != ERR_OK) {
        code = step.code;
        if (e) *e = step;
    }
    if (code == ERR_OK)
        *out = o;
    else
        cJSON_Delete(o);
    return code;
}

/* [{"id","name"}] of its unrevoked keys. */
static err_code add_keys(island *i, const char *name, cJSON *o, err *e) {
    store_stmt *q;
    store_val v = SV_TEXT(name);
    err_code code = store_query(&q, i->st,
                                "SELECT k.id, k.name FROM api_keys k JOIN grants g ON g.owner = k.id WHERE "
                                "g.project = ? AND k.revoked_ms IS NULL ORDER BY k.name",
                                &v, 1, e);
    if (code != ERR_OK) return code;
    cJSON *list = cJSON_AddArrayToObject(o, "keys");
    bool ok = list != NULL;
    err step = {0};
    while (ok && store_step(q, &step)) {
        const char *id = store_col_text(q, 0, NULL), *label = store_col_text(q, 1, NULL);
        cJSON *k = cJSON_CreateObject();
        ok = k && cJSON_AddItemToArray(list, k);
        if (!ok) cJSON_Delete(k);
        ok = ok && id && label && cJSON_AddStringToObject(k, "id", id) && cJSON_AddStringToObject(k, "name", label);
    }
    store_finish(q);
    if (!ok) return err_nomem(e, "the keys of a project");
    if (step.code != ERR_OK && e) *e = step;
    return step.code;
}

err_code project_show(island *i, const char *name, cJSON **out, err *e) {
    store_stmt *q;
    store_val v = SV_TEXT(name);
    char owner[GRANT_OWNER_MAX];
    *out = NULL;
    err_code code = find_project(i, name, NULL, e);
    if (code == ERR_OK) code = store_query(&q, i->st, PROJECT_COLUMNS " WHERE p.name = ?", &v, 1, e);
    if (code != ERR_OK) return code;
    cJSON *o = cJSON_CreateObject();
    err step = {0};
    bool found = store_step(q, &step), ok = o && (!found || fill_project(i, q, o));
    store_finish(q);
    if (!found && step.code == ERR_OK) err_set(&step, ERR_NOT_FOUND, "the project %.60s was removed just now", name);
    if (!ok) err_nomem(&step, "a project");
    if (step.code != ERR_OK) {
        code = step.code;
        if (e) *e = step;
    }
    if (code == ERR_OK) code = add_keys(i, name, o, e);
    project_owner(owner, name);
    if (code == ERR_OK && i->quota && !meter_used_json(i, owner, o)) code = err_nomem(e, "a project");
    if (code == ERR_OK)
        *out = o;
    else
        cJSON_Delete(o);
    return code;
}
