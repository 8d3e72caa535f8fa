/* Admin operations of providers, their credentials, and the candidates behind model names. */
#include "server/internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <string.h>

static err_code run_add(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    return provider_add(i, inf, by, args, out, e);
}

static err_code run_change(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    return provider_change(i, inf, by, args, out, e);
}

static err_code run_rm(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    const char *name;
    err_code rc = admin_only_name("provider.rm", args, &name, e);
    if (rc == ERR_OK) rc = provider_remove(i, inf, by, name, e);
    return rc == ERR_OK ? admin_done(out, e) : rc;
}

static err_code run_ls(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {NULL};
    err_code rc = admin_check_args("provider.ls", args, known, e);
    return rc == ERR_OK ? provider_list(i, out, e) : rc;
}

static err_code run_show(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    const char *name;
    err_code rc = admin_only_name("provider.show", args, &name, e);
    return rc == ERR_OK ? provider_show(i, inf, name, out, e) : rc;
}

/* The arguments' copy of the credential is wiped; whoever holds other copies wipes those. */
static err_code run_set_key(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {"name", "key", NULL};
    const char *name, *key = NULL;
    err_code rc = admin_check_args("provider.set-key", args, known, e);
    if (rc == ERR_OK) rc = admin_need_str("provider.set-key", args, "name", &name, e);
    if (rc == ERR_OK) rc = admin_need_str("provider.set-key", args, "key", &key, e);
    if (rc == ERR_OK) rc = provider_set_key(i, inf, by, name, key, strlen(key), e);
    cJSON *held = cJSON_GetObjectItemCaseSensitive(args, "key");
    if (cJSON_IsString(held)) mem_wipe(held->valuestring, strlen(held->valuestring));
    return rc == ERR_OK ? admin_done(out, e) : rc;
}

static err_code run_route_set(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {"model", "candidates", NULL};
    const char *name;
    err_code rc = admin_check_args("route.set", args, known, e);
    if (rc == ERR_OK) rc = admin_need_str("route.set", args, "model", &name, e);
    return rc == ERR_OK ? route_set(i, inf, by, name, json_get(args, "candidates"), out, e) : rc;
}

static err_code run_route_ls(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {NULL};
    err_code rc = admin_check_args("route.ls", args, known, e);
    return rc == ERR_OK ? route_list(i, out, e) : rc;
}

const admin_op admin_ops_provider[] = {
    {"provider.add", "declare a provider: {name, driver, url, and what is known of it}", ROLE_ADMIN, run_add, false},
    {"provider.change", "change facts of a provider: {name, the facts that change; null: not known}", ROLE_ADMIN,
     run_change, false},
    {"provider.rm", "remove a provider and its credential: {name}", ROLE_ADMIN, run_rm, false},
    {"provider.ls", "list providers", ROLE_OPERATOR, run_ls, true},
    {"provider.show", "what is known of a provider, and how it does: {name}", ROLE_OPERATOR, run_show, true},
    {"provider.set-key", "give a provider's credential: {name, key}; it is never shown again", ROLE_ADMIN, run_set_key,
     false},
    {"route.set", "the candidates of a model name: {model, candidates: [{provider, model, weight, rank}]}; [] for none",
     ROLE_ADMIN, run_route_set, false},
    {"route.ls", "list the candidates of model names", ROLE_OPERATOR, run_route_ls, true},
    {NULL, NULL, ROLE_ADMIN, NULL, false},
};
