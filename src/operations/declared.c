#include "operations/internal.h"

#include <stdio.h>
#include <string.h>

const char *text_at(const cJSON *o, const char *key) {
    const cJSON *v = json_get(o, key);
    return cJSON_IsString(v) ? v->valuestring : "";
}

/* ---- gathering --------------------------------------------------------------------------------------------- */

static err_code put(cJSON *o, const char *key, cJSON *v, err *e) {
    if (v && cJSON_AddItemToObject(o, key, v)) return ERR_OK;
    cJSON_Delete(v);
    return err_nomem(e, "an inventory");
}

/* The list out of {"providers": [...]}. */
static cJSON *take(cJSON *from, const char *key) {
    return cJSON_DetachItemFromObjectCaseSensitive(from, key);
}

static err_code add_providers(declared *d, island *i, err *e) {
    cJSON *all = NULL, *one;
    err_code rc = provider_list(i, &all, e);
    if (rc) return rc;
    cJSON *list = take(all, "providers");
    cJSON_ArrayForEach(one, list) { /* when and by which credential is no fact of the provider */
        cJSON_DeleteItemFromObjectCaseSensitive(one, "created");
        cJSON_DeleteItemFromObjectCaseSensitive(one, "changed");
        cJSON_DeleteItemFromObjectCaseSensitive(one, "key");
    }
    cJSON_Delete(all);
    return put(d->tree, "providers", list, e);
}

static err_code add_routes(declared *d, island *i, err *e) {
    cJSON *all = NULL;
    err_code rc = route_list(i, &all, e);
    if (rc) return rc;
    cJSON *list = take(all, "routes");
    cJSON_Delete(all);
    return put(d->tree, "routes", list, e);
}

/* {"name", "digest", "hub", "repository", "licence"} of an imported model. */
static err_code add_model(cJSON *list, island *i, const cJSON *listed, err *e) {
    cJSON *m = NULL, *o = NULL;
    if (!json_get(listed, "digest")) return ERR_OK; /* a name that has candidates only */
    err_code rc = models_show(i, text_at(listed, "name"), &m, e);
    if (rc == ERR_NOT_FOUND) return ERR_OK; /* removed since */
    if (rc) return rc;
    const cJSON *source = json_get(m, "source");
    o = cJSON_CreateObject();
    bool ok = o && cJSON_AddStringToObject(o, "name", text_at(listed, "name")) &&
              cJSON_AddStringToObject(o, "digest", text_at(listed, "digest")) &&
              cJSON_AddStringToObject(o, "hub", text_at(source, "hub")) &&
              cJSON_AddStringToObject(o, "repository", text_at(source, "repository")) &&
              cJSON_AddStringToObject(o, "licence", text_at(source, "licence"));
    ok = ok && cJSON_AddItemToArray(list, o);
    if (!ok) cJSON_Delete(o);
    cJSON_Delete(m);
    return ok ? ERR_OK : err_nomem(e, "an inventory");
}

static err_code add_models(declared *d, island *i, err *e) {
    cJSON *all = NULL, *list = cJSON_AddArrayToObject(d->tree, "models");
    const cJSON *one;
    err_code rc = list ? models_list(i, &all, e) : err_nomem(e, "an inventory");
    cJSON_ArrayForEach(one, json_get(all, "models")) {
        if (!rc) rc = add_model(list, i, one, e);
    }
    cJSON_Delete(all);
    return rc;
}

static err_code add_policy(declared *d, island *i, err *e) {
    cJSON *p = NULL;
    err_code rc = policy_active(i, &p, e);
    if (rc) return rc;
    cJSON_DeleteItemFromObjectCaseSensitive(p, "text");
    cJSON_DeleteItemFromObjectCaseSensitive(p, "proposed");
    return put(d->tree, "policy", p, e);
}

static err_code add_settings(declared *d, island *i, err *e) {
    const island_config *c = island_get_config(i);
    cJSON *o = cJSON_AddObjectToObject(d->tree, "settings");
    bool ok = o && cJSON_AddStringToObject(o, "labels", c->labels_levels) &&
              cJSON_AddStringToObject(o, "detector_rules", c->detect_rules) &&
              cJSON_AddBoolToObject(o, "policy_two_keys", c->policy_two_keys) &&
              cJSON_AddStringToObject(o, "hub", c->models_hub) &&
              cJSON_AddStringToObject(o, "oidc_issuer", c->oidc_issuer) &&
              cJSON_AddStringToObject(o, "oidc_jwks", c->oidc_jwks);
    return ok ? ERR_OK : err_nomem(e, "an inventory");
}

err_code declared_open(declared *d, island *i, err *e) {
    static const entity_set nothing = {{0}};
    memset(d, 0, sizeof *d);
    err_code rc = policy_world_open(&d->world, i, e);
    d->tree = cJSON_CreateObject();
    if (!rc && !d->tree) rc = err_nomem(e, "an inventory");
    if (!rc) rc = policy_compile(&d->table, d->world.active, d->world.providers, d->world.n_providers, e);
    if (!rc) rc = add_providers(d, i, e);
    if (!rc) rc = add_routes(d, i, e);
    if (!rc) rc = add_models(d, i, e);
    if (!rc) rc = add_policy(d, i, e);
    if (!rc) rc = add_settings(d, i, e);
    if (!rc) d->unlabelled = policy_label(d->world.active, (sensitivity){0}, false, &nothing, false);
    return rc;
}

void declared_close(declared *d) {
    cJSON_Delete(d->tree);
    policy_table_free(d->table);
    policy_world_close(&d->world);
    d->tree = NULL;
    d->table = NULL;
}

/* ---- asking ------------------------------------------------------------------------------------------------ */

static const cJSON *by_name(const cJSON *list, const char *key, const char *name) {
    const cJSON *one;
    cJSON_ArrayForEach(one, list) {
        if (strcmp(text_at(one, key), name) == 0) return one;
    }
    return NULL;
}

const cJSON *declared_provider(const declared *d, const char *name) {
    return by_name(json_get(d->tree, "providers"), "name", name);
}

int declared_place(const declared *d, const char *name) {
    for (size_t i = 0; i < d->world.n_providers; i++)
        if (strcmp(d->world.providers[i].name, name) == 0) return (int)i;
    return -1;
}

bool declared_is_inside(const declared *d, const char *provider) {
    int at = declared_place(d, provider);
    return at == 0 || (at > 0 && d->world.providers[at].inside);
}

const cJSON *declared_route(const declared *d, const char *asked) {
    return json_get(by_name(json_get(d->tree, "routes"), "model", asked), "candidates");
}

const cJSON *declared_model(const declared *d, const char *name) {
    return by_name(json_get(d->tree, "models"), "name", name);
}

bool declared_leads(const declared *d, const char *asked, const char *provider, const char *target) {
    const cJSON *list = declared_route(d, asked), *c;
    if (!list)
        return declared_model(d, asked) && strcmp(provider, provider_facts_engine.name) == 0 &&
               strcmp(target, asked) == 0;
    cJSON_ArrayForEach(c, list) {
        if (strcmp(text_at(c, "provider"), provider) == 0 && strcmp(text_at(c, "model"), target) == 0) return true;
    }
    return false;
}

const char *declared_name(const declared *d, size_t at) {
    const cJSON *one;
    cJSON_ArrayForEach(one, json_get(d->tree, "routes")) {
        if (at-- == 0) return text_at(one, "model");
    }
    cJSON_ArrayForEach(one, json_get(d->tree, "models")) {
        if (declared_route(d, text_at(one, "name"))) continue;
        if (at-- == 0) return text_at(one, "name");
    }
    return NULL;
}

void host_of_url(const char *url, char *out, size_t cap) {
    const char *from = strstr(url, "://");
    from = from ? from + 3 : url;
    snprintf(out, cap, "%.*s", (int)strcspn(from, "/"), from);
}
