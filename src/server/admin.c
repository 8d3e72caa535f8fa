/* What changes an island, or tells about it: one table for the command line and for HTTP. */
#include "server/internal.h"

#include "base/json.h"

#include <string.h>

err_code admin_check_args(const char *op, const cJSON *args, const char *const *known, err *e) {
    if (args && !cJSON_IsObject(args)) return err_set(e, ERR_INVALID, "%s: the arguments must be an object", op);
    const cJSON *a;
    cJSON_ArrayForEach(a, args) {
        const char *const *k = known;
        while (*k && strcmp(*k, a->string) != 0) k++;
        if (!*k) return err_set(e, ERR_INVALID, "%s: there is no argument \"%.60s\"", op, a->string);
    }
    return ERR_OK;
}

err_code admin_need_str(const char *op, const cJSON *args, const char *key, const char **out, err *e) {
    *out = NULL;
    err_code rc = args ? json_get_str(args, key, out, e) : ERR_OK;
    if (rc != ERR_OK) return err_prefix(e, "%s", op);
    return *out ? ERR_OK : err_set(e, ERR_INVALID, "%s: the argument \"%s\" is missing", op, key);
}

err_code admin_only_name(const char *op, const cJSON *args, const char **name, err *e) {
    static const char *const known[] = {"name", NULL};
    *name = NULL;
    err_code rc = admin_check_args(op, args, known, e);
    return rc == ERR_OK ? admin_need_str(op, args, "name", name, e) : rc;
}

err_code admin_done(cJSON **out, err *e) {
    *out = cJSON_CreateObject();
    if (*out && cJSON_AddBoolToObject(*out, "done", true)) return ERR_OK;
    cJSON_Delete(*out);
    *out = NULL;
    return err_nomem(e, "a reply");
}

static err_code run_model_add(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {"path", "name", NULL};
    const char *path, *name;
    err_code rc = admin_check_args("model.add", args, known, e);
    if (rc == ERR_OK) rc = admin_need_str("model.add", args, "path", &path, e);
    if (rc == ERR_OK) rc = admin_need_str("model.add", args, "name", &name, e);
    return rc == ERR_OK ? models_add(i, by, path, name, NULL, NULL, out, e) : rc;
}

static err_code run_model_pull(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {"source", "name", "mirror", NULL};
    pull_options o = {0};
    err_code rc = admin_check_args("model.pull", args, known, e);
    if (rc == ERR_OK) rc = admin_need_str("model.pull", args, "source", &o.source, e);
    if (rc == ERR_OK) rc = json_get_str(args, "name", &o.name, e);
    if (rc == ERR_OK) rc = json_get_str(args, "mirror", &o.mirror, e);
    return rc == ERR_OK ? models_pull(i, by, &o, out, e) : rc;
}

static err_code run_model_ls(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {NULL};
    err_code rc = admin_check_args("model.ls", args, known, e);
    return rc == ERR_OK ? models_list(i, out, e) : rc;
}

static err_code run_model_show(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    const char *name;
    err_code rc = admin_only_name("model.show", args, &name, e);
    return rc == ERR_OK ? models_show(i, name, out, e) : rc;
}

static err_code run_model_verify(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out,
                                 err *e) {
    const char *name;
    err_code rc = admin_only_name("model.verify", args, &name, e);
    return rc == ERR_OK ? models_verify(i, name, out, e) : rc;
}

static err_code run_model_rm(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    const char *name;
    err_code rc = admin_only_name("model.rm", args, &name, e);
    if (rc == ERR_OK) rc = models_remove(i, by, name, e);
    return rc == ERR_OK ? admin_done(out, e) : rc;
}

static const admin_op ops_core[] = {
    {"model.add", "import a GGUF file or a safetensors folder: {path, name}", ROLE_OPERATOR, run_model_add, false},
    {"model.pull", "fetch a model from the configured hub: {source, name, mirror}", ROLE_OPERATOR, run_model_pull,
     false},
    {"model.ls", "list models", ROLE_OPERATOR, run_model_ls, true},
    {"model.show", "what a model is: {name}", ROLE_OPERATOR, run_model_show, true},
    {"model.verify", "hash a model's file again: {name}", ROLE_OPERATOR, run_model_verify, true},
    {"model.rm", "remove a model's name, and its file where no other name uses it: {name}", ROLE_OPERATOR, run_model_rm,
     false},
    {NULL, NULL, ROLE_ADMIN, NULL, false},
};

/* Operations of other files join here, one table each. */
extern const admin_op admin_ops_policy[], admin_ops_project[], admin_ops_inventory[], admin_ops_audit[];
static const admin_op *const tables[] = {
    ops_core, admin_ops_policy, admin_ops_provider, admin_ops_project, admin_ops_inventory, admin_ops_audit, NULL};

const admin_op *admin_find(const char *op) {
    for (const admin_op *const *t = tables; *t; t++)
        for (const admin_op *o = *t; o->name; o++)
            if (strcmp(o->name, op) == 0) return o;
    return NULL;
}

err_code admin_call(island *i, inference *inf, const identity *by, const char *op, const cJSON *args, cJSON **out,
                    err *e) {
    *out = NULL;
    const admin_op *o = admin_find(op);
    if (o) return o->run(i, inf, by, args, out, e);
    return err_set(e, ERR_NOT_FOUND, "admin: there is no operation \"%.60s\"", op);
}
