/* The plan for the day when a provider is gone: which delegated names have somebody inside to take over? */
#include "operations/internal.h"

#include <string.h>

typedef struct name_plan {
    uint64_t inside, outside; /* providers that the name leads to, by their place */
    uint64_t delegated_to;    /* those outside that the policy lets answer, for any label */
    uint64_t substitutes;     /* those inside that it lets answer where one outside may */
    uint8_t covered, missing; /* levels, by bits */
    uint8_t served;
    uint8_t missing_flags[LABELS_MAX]; /* the flags of a cell that lacks one; 0xff: without any */
} name_plan;

static void add_place(name_plan *p, const declared *d, const char *provider) {
    int at = declared_place(d, provider);
    if (at < 0) return;
    *(declared_is_inside(d, provider) ? &p->inside : &p->outside) |= (uint64_t)1 << at;
}

/* Every cell: a level alone, and with every set of flags. A level is missing where a cell of it is. */
static void look_at_cells(name_plan *p, const declared *d) {
    for (uint8_t level = 0; level < d->world.labels.n; level++)
        for (unsigned flags = 0; flags <= FLAGS_ALL; flags++) {
            sensitivity v = {.level = level, .flags = (uint8_t)flags};
            uint64_t allowed = policy_allowed(d->table, v), in = allowed & p->inside, out = allowed & p->outside;
            uint8_t bit = (uint8_t)(1u << level);
            if (in || out) p->served |= bit;
            if (!out) continue;
            p->delegated_to |= out;
            p->substitutes |= in;
            if (in) {
                p->covered |= bit;
            } else {
                if (!(p->missing & bit)) p->missing_flags[level] = (uint8_t)flags;
                p->missing |= bit;
            }
        }
    p->covered &= (uint8_t)~p->missing;
}

static void put_places(jw *w, const char *key, const declared *d, uint64_t places) {
    jw_key(w, key);
    jw_arr(w);
    for (size_t i = 0; i < d->world.n_providers; i++)
        if (places >> i & 1) jw_str(w, d->world.providers[i].name);
    jw_arr_end(w);
}

static void put_levels(jw *w, const char *key, const declared *d, const name_plan *p, uint8_t levels, bool with_flags) {
    jw_key(w, key);
    jw_arr(w);
    for (uint8_t level = 0; level < d->world.labels.n; level++) {
        char text[SENSITIVITY_TEXT];
        if (!(levels >> level & 1)) continue;
        sensitivity v = {.level = level, .flags = with_flags ? p->missing_flags[level] : 0};
        sensitivity_text(text, &d->world.labels, v);
        jw_str(w, text);
    }
    jw_arr_end(w);
}

static void put_exits(jw *w, const declared *d, uint64_t places) {
    jw_key(w, "exit");
    jw_obj(w);
    for (size_t i = 0; i < d->world.n_providers; i++)
        if (places >> i & 1)
            jw_kstr(w, d->world.providers[i].name, *d->world.providers[i].exit ? d->world.providers[i].exit : NULL);
    jw_obj_end(w);
}

static void put_name(jw *w, const declared *d, const char *asked, const name_plan *p) {
    jw_obj(w);
    jw_kstr(w, "model", asked);
    jw_kbool(w, "ok", p->missing == 0);
    put_places(w, "delegated_to", d, p->delegated_to);
    put_exits(w, d, p->delegated_to);
    put_places(w, "substitutes", d, p->substitutes);
    put_levels(w, "covered", d, p, p->covered, false);
    put_levels(w, "missing", d, p, p->missing, true);
    jw_kbool(w, "unlabelled_served", p->served >> d->unlabelled.level & 1);
    jw_kbool(w, "unlabelled_missing", p->missing >> d->unlabelled.level & 1);
    jw_obj_end(w);
}

static void put_names(jw *w, const declared *d, bool *good, int64_t *kept) {
    const cJSON *route, *c;
    jw_key(w, "names");
    jw_arr(w);
    cJSON_ArrayForEach(route, json_get(d->tree, "routes")) {
        name_plan p = {0};
        cJSON_ArrayForEach(c, json_get(route, "candidates")) add_place(&p, d, text_at(c, "provider"));
        look_at_cells(&p, d);
        *good = *good && !p.missing;
        if (p.delegated_to)
            put_name(w, d, text_at(route, "model"), &p);
        else
            ++*kept;
    }
    jw_arr_end(w);
}

err_code plan_check(island *i, cJSON **out, err *e) {
    declared d = {0};
    buf text = {.max = INVENTORY_MAX};
    jw w;
    bool good = true;
    int64_t kept = 0;
    const cJSON *m;
    *out = NULL;
    err_code rc = declared_open(&d, i, e);
    if (!rc) {
        jw_init(&w, &text);
        jw_obj(&w);
        put_names(&w, &d, &good, &kept);
        cJSON_ArrayForEach(m, json_get(d.tree, "models")) kept += !declared_route(&d, text_at(m, "name"));
        jw_kbool(&w, "ok", good);
        jw_kint(&w, "kept", kept);
        jw_kstr(&w, "unlabelled_as", d.world.labels.name[d.unlabelled.level]);
        jw_kstr(&w, "policy", text_at(json_get(d.tree, "policy"), "digest"));
        jw_obj_end(&w);
        rc = buf_check(&text, "the plan", e);
    }
    if (!rc) rc = json_parse(out, buf_str(&text), text.len, "the plan", e);
    buf_free(&text);
    declared_close(&d);
    return rc;
}
