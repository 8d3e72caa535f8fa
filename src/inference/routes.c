/* The candidates behind model names. */
#include "inference/models_internal.h"
#include "inference/providers_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- reading ----------------------------------------------------------------------------------------------- */

typedef struct reading {
    const provider *providers;
    size_t n_providers;
    model_route *list;
    size_t n, cap;
} reading;

static err_code row_candidate(store_stmt *q, void *ctx, err *e) {
    reading *r = ctx;
    const char *model_name = store_col_text(q, 0, NULL), *name = store_col_text(q, 1, NULL);
    const char *target = store_col_text(q, 2, NULL);
    int64_t weight = store_col_int(q, 3), rank = store_col_int(q, 4);
    int at = name ? provider_place(r->providers, r->n_providers, name) : -1;
    bool good = model_name && strlen(model_name) <= MODEL_NAME_MAX && target && strlen(target) <= UPSTREAM_MODEL_MAX &&
                at >= 0 && weight >= 1 && weight <= ROUTE_WEIGHT_MAX && rank >= 0 && rank <= ROUTE_RANK_MAX;
    model_route *last = r->n ? &r->list[r->n - 1] : NULL;
    if (good && (!last || strcmp(last->model, model_name) != 0)) {
        if (r->n == r->cap) {
            size_t cap = r->cap ? r->cap * 2 : 8;
            model_route *more = mem_realloc(r->list, cap * sizeof *more);
            if (!more) return err_nomem(e, "the candidates of model names");
            r->list = more;
            r->cap = cap;
        }
        last = &r->list[r->n++];
        memset(last, 0, sizeof *last);
        snprintf(last->model, sizeof last->model, "%s", model_name);
    }
    if (!good || last->n == CANDIDATES_MAX)
        return err_set(e, ERR_CORRUPT, "polder.db: the candidates of model '%.64s' cannot be used",
                       model_name ? model_name : "?");
    candidate *c = &last->list[last->n++];
    c->provider = (uint8_t)at;
    c->rank = (uint8_t)rank;
    c->weight = (uint16_t)weight;
    snprintf(c->model, sizeof c->model, "%s", target);
    return ERR_OK;
}

err_code routes_read(store *s, const provider *list, size_t n_providers, model_route **out, size_t *n, err *e) {
    reading r = {.providers = list, .n_providers = n_providers};
    err_code rc = store_each(s, "SELECT model, provider, target, weight, rank FROM candidates ORDER BY model, place",
                             NULL, 0, row_candidate, &r, e);
    if (rc) {
        mem_free(r.list);
        r = (reading){0};
    }
    *out = r.list;
    *n = r.n;
    return rc;
}

static err_code row_model(store_stmt *q, void *ctx, err *e) {
    const char *model_name = store_col_text(q, 0, NULL);
    snprintf(ctx, MODEL_NAME_MAX + 1, "%s", model_name ? model_name : "?");
    return ERR_OK;
}

err_code route_leads_to(store *s, const char *provider_name, const char *model_name, char out[MODEL_NAME_MAX + 1],
                        err *e) {
    bool found;
    store_val v[] = {SV_TEXT(provider_name), SV_TEXT(model_name)};
    *out = 0;
    return store_one(s,
                     model_name
                         ? "SELECT model FROM candidates WHERE provider = ? AND target = ? ORDER BY model LIMIT 1"
                         : "SELECT model FROM candidates WHERE provider = ? ORDER BY model LIMIT 1",
                     v, model_name ? 2 : 1, &found, row_model, out, e);
}

/* ---- as JSON ----------------------------------------------------------------------------------------------- */

static err_code row_json(store_stmt *q, void *ctx, err *e) {
    cJSON *one = cJSON_CreateObject();
    const char *name = store_col_text(q, 0, NULL), *target = store_col_text(q, 1, NULL);
    bool ok = one && cJSON_AddStringToObject(one, "provider", name ? name : "?") &&
              cJSON_AddStringToObject(one, "model", target ? target : "?") &&
              cJSON_AddNumberToObject(one, "weight", (double)store_col_int(q, 2)) &&
              cJSON_AddNumberToObject(one, "rank", (double)store_col_int(q, 3));
    if (ok && cJSON_AddItemToArray(ctx, one)) return ERR_OK;
    cJSON_Delete(one);
    return err_nomem(e, "the candidates of a model name");
}

err_code route_json(store *s, const char *model_name, cJSON **out, err *e) {
    *out = NULL;
    cJSON *list = cJSON_CreateArray();
    if (!list) return err_nomem(e, "the candidates of a model name");
    err_code rc = store_each(s, "SELECT provider, target, weight, rank FROM candidates WHERE model = ? ORDER BY place",
                             &SV_TEXT(model_name), 1, row_json, list, e);
    if (rc || !list->child)
        cJSON_Delete(list);
    else
        *out = list;
    return rc;
}

err_code route_into_model(store *s, const char *model_name, cJSON **out, err *e) {
    cJSON *list = NULL;
    err_code rc = route_json(s, model_name, &list, e);
    if (rc || !list) return rc;
    if (!*out) {
        *out = cJSON_CreateObject();
        if (*out && !cJSON_AddStringToObject(*out, "name", model_name)) {
            cJSON_Delete(*out);
            *out = NULL;
        }
    }
    if (*out && cJSON_AddItemToObject(*out, "candidates", list)) return ERR_OK;
    cJSON_Delete(list);
    return err_nomem(e, "the candidates of a model name");
}

typedef struct merging { /* two sorted lists into one */
    store *s;
    cJSON *models, *merged;
} merging;

static int name_order(const cJSON *one, const char *name) {
    const char *have = NULL;
    (void)json_get_str(one, "name", &have, NULL);
    return strcmp(have ? have : "", name);
}

static err_code move_first(merging *m, err *e) {
    cJSON *one = cJSON_DetachItemViaPointer(m->models, m->models->child);
    if (cJSON_AddItemToArray(m->merged, one)) return ERR_OK;
    cJSON_Delete(one);
    return err_nomem(e, "the list of models");
}

static err_code row_merged(store_stmt *q, void *ctx, err *e) {
    merging *m = ctx;
    const char *name = store_col_text(q, 0, NULL);
    err_code rc = ERR_OK;
    while (!rc && m->models->child && name_order(m->models->child, name) < 0) rc = move_first(m, e);
    if (rc) return rc;
    cJSON *first = m->models->child;
    if (first && name_order(first, name) == 0) return route_into_model(m->s, name, &first, e);
    cJSON *one = NULL;
    rc = route_into_model(m->s, name, &one, e);
    if (!rc && one && !cJSON_AddItemToArray(m->merged, one)) rc = err_nomem(e, "the list of models");
    if (rc) cJSON_Delete(one);
    return rc;
}

err_code routes_into_models(store *s, cJSON *models, err *e) {
    merging m = {s, models, cJSON_CreateArray()};
    if (!m.merged) return err_nomem(e, "the list of models");
    err_code rc = store_each(s, "SELECT DISTINCT model FROM candidates ORDER BY model", NULL, 0, row_merged, &m, e);
    while (!rc && models->child) rc = move_first(&m, e);
    if (!rc) {
        models->child = m.merged->child;
        m.merged->child = NULL;
    }
    cJSON_Delete(m.merged);
    return rc;
}

typedef struct all_routes {
    store *s;
    cJSON *list;
} all_routes;

static err_code row_route(store_stmt *q, void *ctx, err *e) {
    all_routes *a = ctx;
    const char *model_name = store_col_text(q, 0, NULL);
    cJSON *candidates = NULL, *one = cJSON_CreateObject();
    err_code rc = one ? route_json(a->s, model_name, &candidates, e) : err_nomem(e, "the candidates of a model name");
    if (!rc && !(candidates && cJSON_AddStringToObject(one, "model", model_name) &&
                 cJSON_AddItemToObject(one, "candidates", candidates))) {
        cJSON_Delete(candidates);
        rc = err_nomem(e, "the candidates of a model name");
    }
    if (!rc && !cJSON_AddItemToArray(a->list, one)) rc = err_nomem(e, "the candidates of a model name");
    if (rc) cJSON_Delete(one);
    return rc;
}

err_code route_list(island *i, cJSON **out, err *e) {
    store *s = island_store(i);
    *out = cJSON_CreateObject();
    all_routes a = {s, *out ? cJSON_AddArrayToObject(*out, "routes") : NULL};
    err_code rc = a.list ? models_open_tables(s, e) : err_nomem(e, "the candidates of model names");
    if (a.list && rc == ERR_NOT_FOUND) return ERR_OK; /* a read-only island that never had any */
    if (!rc) rc = store_each(s, "SELECT DISTINCT model FROM candidates ORDER BY model", NULL, 0, row_route, &a, e);
    if (!rc) return ERR_OK;
    cJSON_Delete(*out);
    *out = NULL;
    return rc;
}

/* ---- what the caller gives --------------------------------------------------------------------------------- */

typedef struct given {
    char provider[PROVIDER_NAME_MAX + 1];
    char model[UPSTREAM_MODEL_MAX + 1];
    int64_t weight, rank;
} given;

typedef struct route_change {
    const char *model;
    given list[CANDIDATES_MAX];
    int n;
} route_change;

static err_code check_target(const given *g, err *e) {
    size_t n = strlen(g->model);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)g->model[i] < 0x21 || (unsigned char)g->model[i] > 0x7e) n = 0;
    if (n) return ERR_OK;
    return err_set(e, ERR_INVALID, "model: the name there must be 1 to %d visible ASCII characters without blanks",
                   UPSTREAM_MODEL_MAX);
}

static err_code read_given(given *g, const cJSON *v, int64_t next_rank, err *e) {
    static const char *const known[] = {"provider", "model", "weight", "rank"};
    const char *name = NULL, *model_name = NULL;
    if (!cJSON_IsObject(v)) return err_set(e, ERR_INVALID, "it must be an object {provider, model, weight, rank}");
    const cJSON *k;
    cJSON_ArrayForEach(k, v) {
        bool ok = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) ok |= strcmp(k->string, known[i]) == 0;
        if (!ok)
            return err_set(e, ERR_INVALID, "there is no field \"%.40s\": provider, model, weight, rank", k->string);
    }
    g->weight = 1;
    g->rank = next_rank;
    err_code rc = json_get_str(v, "provider", &name, e);
    if (!rc) rc = json_get_str(v, "model", &model_name, e);
    if (!rc && (!name || !model_name)) rc = err_set(e, ERR_INVALID, "provider and model are needed");
    if (!rc) rc = json_get_int(v, "weight", 1, ROUTE_WEIGHT_MAX, &g->weight, e);
    if (!rc) rc = json_get_int(v, "rank", 0, ROUTE_RANK_MAX, &g->rank, e);
    if (rc) return rc;
    if (strlen(name) > PROVIDER_NAME_MAX || strlen(model_name) > UPSTREAM_MODEL_MAX)
        return err_set(e, ERR_INVALID, "the provider's name (%d bytes) or the model's (%d) is too long",
                       PROVIDER_NAME_MAX, UPSTREAM_MODEL_MAX);
    snprintf(g->provider, sizeof g->provider, "%s", name);
    snprintf(g->model, sizeof g->model, "%s", model_name);
    return check_target(g, e);
}

/* Into the list, behind those of the same rank. */
static err_code insert(route_change *w, const given *g, err *e) {
    int at = w->n;
    for (int i = 0; i < w->n; i++)
        if (strcmp(w->list[i].provider, g->provider) == 0 && strcmp(w->list[i].model, g->model) == 0)
            return err_set(e, ERR_INVALID, "%s:%s is there twice", g->provider, g->model);
    while (at > 0 && w->list[at - 1].rank > g->rank) at--;
    memmove(&w->list[at + 1], &w->list[at], (size_t)(w->n - at) * sizeof *g);
    w->list[at] = *g;
    w->n++;
    return ERR_OK;
}

static err_code read_list(route_change *w, const cJSON *candidates, err *e) {
    if (!cJSON_IsArray(candidates)) return err_set(e, ERR_INVALID, "model '%s': candidates must be a list", w->model);
    int64_t next = 0;
    const cJSON *v;
    cJSON_ArrayForEach(v, candidates) {
        given g;
        if (w->n == CANDIDATES_MAX)
            return err_set(e, ERR_INVALID, "model '%s': at most %d candidates are allowed", w->model, CANDIDATES_MAX);
        err_code rc = read_given(&g, v, next < ROUTE_RANK_MAX ? next : ROUTE_RANK_MAX, e);
        if (!rc) rc = insert(w, &g, e);
        if (rc) {
            err_prefix(e, "model '%s': candidate %d", w->model, w->n + 1);
            return rc;
        }
        next = g.rank + 1;
    }
    return ERR_OK;
}

/* ---- changing ---------------------------------------------------------------------------------------------- */

static err_code check_leads(store *s, const given *g, err *e) {
    provider p;
    char path[4096];
    uint8_t digest[SHA256_LEN];
    if (strcmp(g->provider, ENGINE_NAME) != 0) return provider_find(s, g->provider, &p, e);
    err_code rc = models_find(s, g->model, path, sizeof path, digest, e);
    if (rc != ERR_NOT_FOUND) return rc;
    return err_set(e, rc, "the engine has no model '%.64s'; polder model ls lists what was imported", g->model);
}

static err_code write_list(store *s, const route_change *w, err *e) {
    err_code rc = store_write(s, "DELETE FROM candidates WHERE model = ?", &SV_TEXT(w->model), 1, NULL, e);
    for (int i = 0; i < w->n && !rc; i++) {
        const given *g = &w->list[i];
        store_val v[] = {SV_TEXT(w->model), SV_INT(i),         SV_TEXT(g->provider),
                         SV_TEXT(g->model), SV_INT(g->weight), SV_INT(g->rank)};
        rc = store_write(s,
                         "INSERT INTO candidates(model, place, provider, target, weight, rank) "
                         "VALUES(?, ?, ?, ?, ?, ?)",
                         v, 6, NULL, e);
    }
    return rc;
}

static err_code row_number(store_stmt *q, void *ctx, err *e) {
    *(int64_t *)ctx = store_col_int(q, 0);
    return ERR_OK;
}

static err_code check_room(store *s, err *e) {
    int64_t n = 0;
    bool found;
    err_code rc = store_one(s, "SELECT count(DISTINCT model) FROM candidates", NULL, 0, &found, row_number, &n, e);
    if (!rc && n >= ROUTES_MAX)
        rc = err_set(e, ERR_TOO_LARGE, "%d model names have candidates, the most; remove some", ROUTES_MAX);
    return rc;
}

/* Takes both lists (NULL: none). */
static err_code put_lists(cJSON *body, const char *model_name, cJSON *from, cJSON *to, err *e) {
    bool ok = cJSON_AddStringToObject(body, "model", model_name);
    if (!from) from = cJSON_CreateArray();
    if (!to) to = cJSON_CreateArray();
    bool has_from = ok && from && cJSON_AddItemToObject(body, "from", from);
    bool has_to = ok && to && cJSON_AddItemToObject(body, "to", to);
    if (!has_from) cJSON_Delete(from);
    if (!has_to) cJSON_Delete(to);
    return has_from && has_to ? ERR_OK : err_nomem(e, "a record");
}

static err_code route_rows(change_job *c, store *s, record **r, err *e) {
    route_change *w = c->ctx;
    cJSON *from = NULL, *to = NULL;
    err_code rc = route_json(s, w->model, &from, e);
    if (!rc && !from && !w->n)
        rc = err_set(e, ERR_NOT_FOUND, "model '%s' has no candidates; polder model routes lists those that have",
                     w->model);
    if (!rc && !from) rc = check_room(s, e);
    for (int i = 0; i < w->n && !rc; i++) {
        rc = check_leads(s, &w->list[i], e);
        if (rc) err_prefix(e, "model '%s': candidate %d", w->model, i + 1);
    }
    if (!rc) rc = write_list(s, w, e);
    if (!rc) rc = route_json(s, w->model, &to, e);
    bool same = !rc && from && to && cJSON_Compare(from, to, true);
    if (!rc && !same) rc = change_record(c, r, "route.changed", e);
    if (rc || same) {
        cJSON_Delete(from);
        cJSON_Delete(to);
        return rc;
    }
    return put_lists(record_body(*r), w->model, from, to, e);
}

err_code route_set(island *i, inference *inf, const identity *by, const char *model_name, const cJSON *candidates,
                   cJSON **out, err *e) {
    *out = NULL;
    route_change *w = mem_zalloc(sizeof *w);
    if (!w) return err_nomem(e, "the candidates of a model name");
    w->model = model_name;
    err_code rc = models_check_name(model_name, e);
    if (!rc) rc = read_list(w, candidates, e);
    change_job c = {.i = i, .inf = inf, .by = by, .ctx = w, .rows = route_rows};
    if (!rc) rc = change_run(&c, e);
    mem_free(w);
    if (rc) return rc;
    cJSON *list = NULL;
    rc = route_json(island_store(i), model_name, &list, e);
    if (!rc && !list) list = cJSON_CreateArray();
    *out = rc ? NULL : cJSON_CreateObject();
    if (*out && list && cJSON_AddStringToObject(*out, "model", model_name) &&
        cJSON_AddItemToObject(*out, "candidates", list))
        return ERR_OK;
    cJSON_Delete(list);
    cJSON_Delete(*out);
    *out = NULL;
    return rc ? rc : err_nomem(e, "the candidates of a model name");
}
