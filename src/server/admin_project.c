/* Admin operations of keys, projects and usage. */
#include "server/internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

/* ---- grants as arguments ----------------------------------------------------------------------------------- */

#define GRANT_ARGS                                                                                             \
    "project", "floor", "models", "requests_minute", "tokens_minute", "tokens_day", "tokens_month", "eur_day", \
        "eur_month"

typedef struct grant_args {
    grant g;
    buf models; /* where they came as a list */
} grant_args;

static err_code read_models(const char *op, const cJSON *args, grant_args *a, err *e) {
    const cJSON *m = json_get(args, "models"), *item;
    if (!cJSON_IsArray(m)) return json_get_str(args, "models", &a->g.models, e);
    cJSON_ArrayForEach(item, m) {
        if (!cJSON_IsString(item)) return err_set(e, ERR_INVALID, "%s: models must be names", op);
        buf_printf(&a->models, "%s%s", a->models.len ? "," : "", item->valuestring);
    }
    buf_puts(&a->models, "");
    err_code rc = buf_check(&a->models, "models", e);
    a->g.models = buf_str(&a->models);
    return rc;
}

/* What is absent stays as `a->g` has it. */
static err_code read_grant(const char *op, const cJSON *args, grant_args *a, err *e) {
    a->models.max = GRANT_MODELS_MAX;
    err_code rc = json_get_str(args, "project", &a->g.project, e);
    if (rc == ERR_OK) rc = json_get_str(args, "floor", &a->g.floor, e);
    if (rc == ERR_OK) rc = read_models(op, args, a, e);
    for (int k = 0; k < LIMIT_COUNT && rc == ERR_OK; k++) {
        double v = -1, max = limit_is_eur((limit_kind)k) ? (double)LIMIT_MAX / LIMIT_EUR : (double)LIMIT_MAX;
        rc = json_get_num(args, limit_name((limit_kind)k), 0, max, &v, e);
        if (rc != ERR_OK || v < 0) continue;
        if (limit_is_eur((limit_kind)k)) {
            a->g.limits[k] = llround(v * LIMIT_EUR);
            if (v > 0 && a->g.limits[k] == 0) a->g.limits[k] = 1; /* a limit that small is not none */
        } else if (v != floor(v)) {
            rc = err_set(e, ERR_INVALID, "%s must be a whole number", limit_name((limit_kind)k));
        } else {
            a->g.limits[k] = (int64_t)v;
        }
    }
    return rc == ERR_OK ? rc : err_prefix(e, "%s", op);
}

/* ---- keys -------------------------------------------------------------------------------------------------- */

static err_code run_key_add(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {"name", "role", GRANT_ARGS, NULL};
    const char *name, *role_text = "user";
    role r;
    grant_args a = {0};
    err_code rc = admin_check_args("key.add", args, known, e);
    if (rc == ERR_OK) rc = admin_need_str("key.add", args, "name", &name, e);
    if (rc == ERR_OK) rc = json_get_str(args, "role", &role_text, e);
    if (rc != ERR_OK) return rc;
    if (!role_text) role_text = "user";
    if (!role_parse(&r, role_text))
        return err_set(e, ERR_INVALID, "key.add: there is no role \"%.40s\": user, operator, auditor or admin",
                       role_text);
    char text[KEY_TEXT_MAX];
    identity who;
    rc = read_grant("key.add", args, &a, e);
    if (rc == ERR_OK) rc = key_add_with(i, by, name, r, &a.g, text, &who, e);
    buf_free(&a.models);
    if (rc != ERR_OK) return rc;
    cJSON *o = cJSON_CreateObject();
    bool ok = o && cJSON_AddStringToObject(o, "id", who.key_id) && cJSON_AddStringToObject(o, "name", who.name) &&
              cJSON_AddStringToObject(o, "role", role_name(who.role)) &&
              (!who.project[0] || cJSON_AddStringToObject(o, "project", who.project)) &&
              (!who.floor[0] || cJSON_AddStringToObject(o, "floor", who.floor)) &&
              cJSON_AddStringToObject(o, "key", text);
    mem_wipe(text, sizeof text);
    if (!ok) {
        cJSON_Delete(o);
        /* a key that nobody has seen is of no use to its owner */
        (void)key_revoke(i, by, who.key_id, NULL);
        return err_nomem(e, "the new key");
    }
    *out = o;
    return ERR_OK;
}

static err_code run_key_change(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {"key", GRANT_ARGS, NULL};
    const char *key;
    grant_args a = {.g = GRANT_KEEP};
    err_code rc = admin_check_args("key.change", args, known, e);
    if (rc == ERR_OK) rc = admin_need_str("key.change", args, "key", &key, e);
    if (rc == ERR_OK) rc = read_grant("key.change", args, &a, e);
    if (rc == ERR_OK) rc = key_change(i, by, key, &a.g, e);
    buf_free(&a.models);
    return rc == ERR_OK ? admin_done(out, e) : rc;
}

static err_code run_key_ls(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {NULL};
    err_code rc = admin_check_args("key.ls", args, known, e);
    return rc == ERR_OK ? key_list(i, out, e) : rc;
}

static err_code run_key_revoke(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {"key", NULL};
    const char *key;
    err_code rc = admin_check_args("key.revoke", args, known, e);
    if (rc == ERR_OK) rc = admin_need_str("key.revoke", args, "key", &key, e);
    if (rc == ERR_OK) rc = key_revoke(i, by, key, e);
    return rc == ERR_OK ? admin_done(out, e) : rc;
}

static err_code run_usage_show(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {"by", "from", "to", NULL};
    const char *group = NULL, *from = NULL, *to = NULL;
    err_code rc = admin_check_args("usage.show", args, known, e);
    if (rc == ERR_OK) rc = json_get_str(args, "by", &group, e);
    if (rc == ERR_OK) rc = json_get_str(args, "from", &from, e);
    if (rc == ERR_OK) rc = json_get_str(args, "to", &to, e);
    return rc == ERR_OK ? usage_report(i, group, from, to, out, e) : rc;
}

/* ---- projects ---------------------------------------------------------------------------------------------- */

static err_code set_project(island *i, const identity *by, const char *op, const cJSON *args, const grant *start,
                            err_code (*set)(island *, const identity *, const char *, const grant *, err *),
                            cJSON **out, err *e) {
    /* without its first name: a project belongs to no other */
    static const char *const all[] = {GRANT_ARGS, "name", NULL}, *const *known = all + 1;
    const char *name;
    grant_args a = {.g = *start};
    err_code rc = admin_check_args(op, args, known, e);
    if (rc == ERR_OK) rc = admin_need_str(op, args, "name", &name, e);
    if (rc == ERR_OK) rc = read_grant(op, args, &a, e);
    if (rc == ERR_OK) rc = set(i, by, name, &a.g, e);
    buf_free(&a.models);
    return rc == ERR_OK ? admin_done(out, e) : rc;
}

static err_code run_project_add(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    return set_project(i, by, "project.add", args, &(grant){0}, project_add, out, e);
}

static err_code run_project_change(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out,
                                   err *e) {
    return set_project(i, by, "project.change", args, &GRANT_KEEP, project_change, out, e);
}

static err_code run_project_ls(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {NULL};
    err_code rc = admin_check_args("project.ls", args, known, e);
    return rc == ERR_OK ? project_list(i, out, e) : rc;
}

static err_code run_project_show(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out,
                                 err *e) {
    const char *name;
    err_code rc = admin_only_name("project.show", args, &name, e);
    return rc == ERR_OK ? project_show(i, name, out, e) : rc;
}

static err_code run_project_rm(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    const char *name;
    err_code rc = admin_only_name("project.rm", args, &name, e);
    if (rc == ERR_OK) rc = project_remove(i, by, name, e);
    return rc == ERR_OK ? admin_done(out, e) : rc;
}

const admin_op admin_ops_project[] = {
    {"key.add", "make an API key: {name, role, project, floor, models, limits}; the reply shows it once", ROLE_ADMIN,
     run_key_add, false},
    {"key.change", "change what a key may do: {key, project, floor, models, limits}", ROLE_ADMIN, run_key_change,
     false},
    {"key.ls", "list API keys", ROLE_ADMIN, run_key_ls, true},
    {"key.revoke", "revoke an API key: {key}, its id or its name", ROLE_ADMIN, run_key_revoke, false},
    {"usage.show", "what was used: {by, from, to}", ROLE_OPERATOR, run_usage_show, true},
    {"project.add", "make a project: {name, floor, models, limits}", ROLE_ADMIN, run_project_add, false},
    {"project.change", "change a project: {name, floor, models, limits}", ROLE_ADMIN, run_project_change, false},
    {"project.ls", "list projects", ROLE_ADMIN, run_project_ls, true},
    {"project.show", "what a project may do and has used: {name}", ROLE_ADMIN, run_project_show, true},
    {"project.rm", "remove a project that has no keys: {name}", ROLE_ADMIN, run_project_rm, false},
    {NULL, NULL, ROLE_ADMIN, NULL, false},
};
