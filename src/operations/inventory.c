/* The inventory: declared and observed, by workload and layer. */
#include "operations/internal.h"

#include <stdio.h>
#include <string.h>

typedef struct maker {
    jw w;
    declared d;
    tally t;
    ledger *l;
    uint64_t size;
} maker;

/* ---- the layer inference ----------------------------------------------------------------------------------- */

/* The levels for which the policy lets a provider answer. Flags only take away, so they are left out. */
static void allowed_for(jw *w, const declared *d, int place) {
    jw_key(w, "allowed_for");
    jw_arr(w);
    for (uint8_t level = 0; place >= 0 && level < d->world.labels.n; level++) {
        sensitivity v = {.level = level};
        if (!(policy_allowed(d->table, v) >> place & 1)) continue;
        const entity_set *set = policy_redactions(d->table, v, (size_t)place);
        jw_obj(w);
        jw_kstr(w, "label", d->world.labels.name[level]);
        jw_kbool(w, "redacted", set && !entity_set_empty(set));
        jw_obj_end(w);
    }
    jw_arr_end(w);
}

static void put_facts(jw *w, const cJSON *p) {
    static const char *const facts[] = {"operator", "country",  "operator_law", "retention_days",
                                        "training", "contract", "certificates", "exit"};
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        const cJSON *v = json_get(p, facts[i]);
        jw_key(w, facts[i]);
        if (cJSON_IsString(v))
            jw_str(w, v->valuestring);
        else if (cJSON_IsNumber(v))
            jw_num(w, v->valuedouble);
        else if (cJSON_IsBool(v))
            jw_bool(w, cJSON_IsTrue(v));
        else
            jw_null(w);
    }
}

typedef struct sides {
    bool inside, outside;
} sides;

static void put_candidate(maker *m, const char *provider, const char *target, const cJSON *c, sides *s) {
    jw *w = &m->w;
    bool inside = declared_is_inside(&m->d, provider);
    *(inside ? &s->inside : &s->outside) = true;
    jw_obj(w);
    jw_kstr(w, "provider", provider);
    jw_kstr(w, "model", target);
    jw_kint(w, "rank", c ? (int64_t)json_get(c, "rank")->valuedouble : 0);
    jw_kint(w, "weight", c ? (int64_t)json_get(c, "weight")->valuedouble : 1);
    jw_kbool(w, "inside", inside);
    put_facts(w, declared_provider(&m->d, provider));
    allowed_for(w, &m->d, declared_place(&m->d, provider));
    jw_obj_end(w);
}

static void put_candidates(maker *m, const char *asked, sides *s) {
    const cJSON *list = declared_route(&m->d, asked), *c;
    jw_key(&m->w, "candidates");
    jw_arr(&m->w);
    cJSON_ArrayForEach(c, list) put_candidate(m, text_at(c, "provider"), text_at(c, "model"), c, s);
    if (!list && declared_model(&m->d, asked)) put_candidate(m, provider_facts_engine.name, asked, NULL, s);
    jw_arr_end(&m->w);
}

static void put_flow(maker *m, const char *asked, const flow *f) {
    jw *w = &m->w;
    jw_obj(w);
    jw_kstr(w, "provider", f->provider);
    jw_kstr(w, "model", f->target);
    jw_kbool(w, "declared", declared_leads(&m->d, asked, f->provider, f->target));
    jw_kbool(w, "inside", declared_is_inside(&m->d, f->provider));
    jw_kint(w, "attempts", (int64_t)f->attempts);
    jw_kint(w, "answered", (int64_t)f->answered);
    jw_kint(w, "requests_left", (int64_t)f->left);
    jw_kint(w, "bytes_sent", (int64_t)f->sent);
    jw_kint(w, "bytes_received", (int64_t)f->received);
    jw_kint(w, "pseudonymised", (int64_t)f->pseudonymised);
    jw_kint(w, "prompt_tokens", (int64_t)f->prompt_tokens);
    jw_kint(w, "completion_tokens", (int64_t)f->completion_tokens);
    jw_key(w, "cost_eur");
    if (f->has_cost)
        jw_num(w, f->cost_eur);
    else
        jw_null(w);
    jw_kint(w, "may_have_left_requests", (int64_t)f->maybe.requests);
    jw_kint(w, "may_have_left_bytes", (int64_t)f->maybe.bytes);
    write_span(w, &f->when);
    jw_obj_end(w);
}

static void put_observed(maker *m, uint32_t at, sides *s) {
    jw_key(&m->w, "observed");
    jw_arr(&m->w);
    for (uint32_t i = 0; at != NONE && i < m->t.flows.n; i++) {
        const flow *f = tally_flow(&m->t, i);
        if (f->workload != at) continue;
        put_flow(m, tally_workload(&m->t, at)->name, f);
        if (f->left || f->maybe.requests || f->answered)
            *(declared_is_inside(&m->d, f->provider) ? &s->inside : &s->outside) = true;
    }
    jw_arr_end(&m->w);
}

static const char *state_of(sides s) {
    if (s.inside && s.outside) return "kept and delegated";
    return s.outside ? "delegated" : s.inside ? "kept" : "none";
}

static void layer_inference(maker *m, const char *asked, uint32_t at) {
    sides declared_at = {0}, observed_at = {0};
    jw *w = &m->w;
    jw_key(w, "inference");
    jw_obj(w);
    put_candidates(m, asked, &declared_at);
    put_observed(m, at, &observed_at);
    sides both = {declared_at.inside || observed_at.inside, declared_at.outside || observed_at.outside};
    jw_kstr(w, "state", state_of(both));
    jw_kstr(w, "declared", state_of(declared_at));
    jw_kstr(w, "seen", state_of(observed_at));
    jw_obj_end(w);
}

/* ---- the other layers -------------------------------------------------------------------------------------- */

static void plain_layer(jw *w, const char *name, const char *state, const char *evidence, const char *text) {
    jw_key(w, name);
    jw_obj(w);
    jw_kstr(w, "state", state);
    jw_kstr(w, "evidence", evidence);
    jw_kstr(w, "text", text);
    jw_obj_end(w);
}

static void layer_data(maker *m) {
    const cJSON *p = json_get(m->d.tree, "policy"), *s = json_get(m->d.tree, "settings");
    char text[900];
    snprintf(
        text, sizeof text,
        "Labels (%.200s), detectors (%s) and the policy %.12s… (%s) work inside this island; a request that nobody "
        "labelled counts as %s",
        text_at(s, "labels"), *text_at(s, "detector_rules") ? "built-in and the owner's own" : "built-in",
        text_at(p, "digest"), cJSON_IsTrue(json_get(p, "default")) ? "the default, never activated" : "activated",
        m->d.world.labels.name[m->d.unlabelled.level]);
    plain_layer(&m->w, "data", "kept", "declared", text);
}

static void layer_audit(maker *m) {
    char text[700];
    snprintf(
        text, sizeof text,
        "Every request is recorded in this island's own ledger %.200s (%llu records, signed by %.300s); nobody else "
        "keeps it",
        ledger_origin(m->l), (unsigned long long)m->size, ledger_vkey(m->l));
    plain_layer(&m->w, "audit", "kept", "observed", text);
}

/* Where the weights behind a name came from: a hub is a supplier. */
static void put_suppliers(maker *m, const char *asked) {
    const cJSON *list = declared_route(&m->d, asked), *c, *one;
    jw *w = &m->w;
    jw_key(w, "suppliers");
    jw_arr(w);
    cJSON_ArrayForEach(one, json_get(m->d.tree, "models")) {
        bool used = !list && strcmp(text_at(one, "name"), asked) == 0;
        cJSON_ArrayForEach(c, list) {
            used = used || (strcmp(text_at(c, "provider"), provider_facts_engine.name) == 0 &&
                            strcmp(text_at(c, "model"), text_at(one, "name")) == 0);
        }
        if (!used) continue;
        jw_obj(w);
        jw_kstr(w, "model", text_at(one, "name"));
        jw_kstr(w, "digest", text_at(one, "digest"));
        jw_kstr(w, "hub", text_at(one, "hub"));
        jw_kstr(w, "repository", text_at(one, "repository"));
        jw_kstr(w, "licence", text_at(one, "licence"));
        jw_obj_end(w);
    }
    jw_arr_end(w);
}

static void layer_operations(maker *m, const char *asked) {
    jw *w = &m->w;
    jw_key(w, "operations");
    jw_obj(w);
    jw_kstr(w, "state", "kept");
    jw_kstr(w, "evidence", "declared");
    jw_kstr(w, "text",
            "This program runs on a machine of the organisation; where weights were fetched, the hub is a "
            "supplier");
    put_suppliers(m, asked);
    jw_obj_end(w);
}

/* ---- workloads --------------------------------------------------------------------------------------------- */

static uint32_t find_workload(const tally *t, const char *name) {
    for (uint32_t i = 0; i < t->workloads.n; i++)
        if (strcmp(tally_workload(t, i)->name, name) == 0) return i;
    return NONE;
}

static void put_workload(maker *m, const char *name, bool is_declared, uint32_t at) {
    static const workload never;
    const workload *x = at == NONE ? &never : tally_workload(&m->t, at);
    jw *w = &m->w;
    jw_obj(w);
    jw_kstr(w, "model", name);
    jw_kbool(w, "declared", is_declared);
    jw_key(w, "requests");
    jw_obj(w);
    jw_kint(w, "admitted", (int64_t)x->admitted);
    jw_kint(w, "completed", (int64_t)x->completed);
    jw_kint(w, "failed", (int64_t)x->failed);
    jw_kint(w, "refused", (int64_t)x->refused);
    write_span(w, &x->when);
    jw_obj_end(w);
    jw_key(w, "layers");
    jw_obj(w);
    layer_data(m);
    layer_inference(m, name, at);
    plain_layer(w, "post-training", "none", "declared",
                "Nothing is trained in this island and no adapter is in use; nobody was given this layer either");
    plain_layer(w, "evaluation", "none", "declared",
                "No suite of this island measures this workload; nobody was given this layer either");
    layer_audit(m);
    layer_operations(m, name);
    jw_obj_end(w);
    jw_obj_end(w);
}

static void put_workloads(maker *m) {
    const char *name;
    jw_key(&m->w, "workloads");
    jw_arr(&m->w);
    for (size_t at = 0; (name = declared_name(&m->d, at)) != NULL; at++)
        put_workload(m, name, true, find_workload(&m->t, name));
    for (uint32_t i = 0; i < m->t.workloads.n; i++) {
        const workload *x = tally_workload(&m->t, i);
        if (!declared_route(&m->d, x->name) && !declared_model(&m->d, x->name)) put_workload(m, x->name, false, i);
    }
    jw_arr_end(&m->w);
}

/* ---- the rest ---------------------------------------------------------------------------------------------- */

/* By destination, over all workloads. */
static void put_destinations(maker *m) {
    jw *w = &m->w;
    jw_key(w, "destinations");
    jw_arr(w);
    for (uint32_t i = 0; i < m->t.faces.n; i++) {
        const face *f = tally_face(&m->t, i);
        jw_obj(w);
        jw_kstr(w, "provider", f->provider);
        jw_kstr(w, "host", f->host);
        jw_kstr(w, "operator", f->operator_name);
        jw_kstr(w, "country", f->country);
        jw_kstr(w, "operator_law", f->operator_law);
        jw_kbool(w, "inside", f->inside);
        jw_kint(w, "requests_left", (int64_t)f->left);
        jw_kint(w, "bytes_sent", (int64_t)f->sent);
        jw_kint(w, "may_have_left_requests", (int64_t)f->maybe.requests);
        jw_kint(w, "may_have_left_bytes", (int64_t)f->maybe.bytes);
        write_span(w, &f->when);
        jw_obj_end(w);
    }
    jw_arr_end(w);
}

/* All that left, inside of the perimeter and out of it, as the records said at the time. */
static void put_totals(maker *m) {
    uint64_t left[2] = {0}, sent[2] = {0}, maybe[2] = {0}, maybe_bytes[2] = {0};
    jw *w = &m->w;
    for (uint32_t i = 0; i < m->t.faces.n; i++) {
        const face *f = tally_face(&m->t, i);
        left[f->inside] += f->left;
        sent[f->inside] += f->sent;
        maybe[f->inside] += f->maybe.requests;
        maybe_bytes[f->inside] += f->maybe.bytes;
    }
    jw_key(w, "left");
    jw_obj(w);
    for (int inside = 0; inside < 2; inside++) {
        jw_key(w, inside ? "to_inside" : "to_outside");
        jw_obj(w);
        jw_kint(w, "requests", (int64_t)left[inside]);
        jw_kint(w, "bytes", (int64_t)sent[inside]);
        jw_kint(w, "may_have_left_requests", (int64_t)maybe[inside]);
        jw_kint(w, "may_have_left_bytes", (int64_t)maybe_bytes[inside]);
        jw_obj_end(w);
    }
    jw_obj_end(w);
}

static void put_history(maker *m) {
    jw *w = &m->w;
    jw_key(w, "history");
    jw_arr(w);
    for (uint32_t i = 0; i < m->t.n_changes; i++) {
        const change *c = tally_change(&m->t, i);
        jw_obj(w);
        jw_kint(w, "record", (int64_t)c->at.seq);
        jw_kstr(w, "time", c->at.time);
        jw_kstr(w, "event", c->event);
        jw_kstr(w, "name", c->subject);
        jw_kstr(w, "by", c->by);
        if (c->changes) {
            jw_key(w, "changes");
            jw_raw(w, c->changes, strlen(c->changes));
        }
        jw_obj_end(w);
    }
    jw_arr_end(w);
}

static void put_range(maker *m) {
    const tally *t = &m->t;
    jw *w = &m->w;
    jw_key(w, "range");
    jw_obj(w);
    jw_kint(w, "records", (int64_t)t->records);
    jw_kint(w, "ledger_size", (int64_t)m->size);
    if (t->records) {
        write_moment(w, "first", &t->first);
        write_moment(w, "last", &t->last);
    }
    jw_kbool(w, "complete", t->complete);
    jw_obj_end(w);
}

static err_code put_all(maker *m, island *i, err *e) {
    jw *w = &m->w;
    char made[32];
    time_rfc3339(made, time_unix_ms());
    jw_obj(w);
    jw_key(w, "not_declared");
    findings_write(w, &m->d, &m->t);
    jw_key(w, "changed");
    err_code rc = changes_since_last(w, &m->d, &m->t, m->l, e);
    if (rc) return rc;
    jw_kint(w, "v", 1);
    jw_kstr(w, "island", ledger_origin(m->l));
    jw_kstr(w, "vkey", ledger_vkey(m->l));
    jw_kstr(w, "made", made);
    put_range(m);
    put_totals(m);
    put_workloads(m);
    put_destinations(m);
    put_history(m);
    char *text = cJSON_PrintUnformatted(m->d.tree);
    if (!text) return err_nomem(e, "an inventory");
    jw_key(w, "declared");
    jw_raw(w, text, strlen(text));
    cJSON_free(text);
    jw_obj_end(w);
    return ERR_OK;
}

static err_code begin(maker *m, island *i, const inventory_options *o, err *e) {
    m->l = island_ledger(i);
    m->size = ledger_size(m->l);
    err_code rc = tally_init(&m->t, e);
    if (rc) return rc;
    if (o->from > m->size)
        return err_set(e, ERR_USAGE, "--from %llu: the ledger has %llu records", (unsigned long long)o->from,
                       (unsigned long long)m->size);
    m->t.from = o->from;
    m->t.to = m->size;
    if (o->since) rc = scan_since(m->l, o->since, &m->t.from, e);
    if (!rc && m->t.from < o->from) m->t.from = o->from;
    return rc;
}

err_code inventory_make(island *i, const inventory_options *o, cJSON **out, err *e) {
    maker m = {0};
    buf text = {.max = INVENTORY_MAX};
    *out = NULL;
    jw_init(&m.w, &text);
    err_code rc = begin(&m, i, o, e);
    if (!rc) rc = tally_scan(&m.t, m.l, e);
    if (!rc) rc = declared_open(&m.d, i, e); /* after the records: a fact that changes meanwhile shows */
    if (!rc) rc = put_all(&m, i, e);
    if (!rc) rc = buf_check(&text, "an inventory", e);
    if (!rc) rc = json_parse(out, buf_str(&text), text.len, "an inventory", e);
    buf_free(&text);
    declared_close(&m.d);
    tally_free(&m.t);
    return rc;
}

/* ---- recording --------------------------------------------------------------------------------------------- */

static err_code make_record(record **r, const cJSON *v, const identity *by, err *e) {
    buf text = {.max = INVENTORY_MAX};
    uint8_t digest[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    err_code rc = record_new(r, "inventory", e);
    if (!rc) rc = json_canonical(&text, v, e);
    if (!rc) rc = buf_check(&text, "an inventory", e);
    if (!rc) {
        sha256_of(digest, text.ptr, text.len);
        hex_encode(hex, digest, sizeof digest);
        cJSON *o = record_body(*r);
        bool ok = cJSON_AddStringToObject(o, "by", by ? by->key_id : "local") &&
                  cJSON_AddStringToObject(o, "digest", hex) &&
                  cJSON_AddNumberToObject(o, "records", json_get(json_get(v, "range"), "records")->valuedouble) &&
                  cJSON_AddNumberToObject(o, "not_declared", cJSON_GetArraySize(json_get(v, "not_declared")));
        rc = ok ? record_content(*r, "inventory", text.ptr, text.len, e) : err_nomem(e, "a record");
    }
    buf_free(&text);
    return rc;
}

err_code inventory_record(island *i, const identity *by, const inventory_options *o, cJSON **out, err *e) {
    record *r = NULL;
    uint64_t seq = 0;
    if (store_read_only(island_store(i)))
        return err_set(e, ERR_DENIED, "%s: is open for reading only; an inventory is kept in its ledger",
                       island_dir(i));
    err_code rc = inventory_make(i, o, out, e);
    if (!rc) rc = make_record(&r, *out, by, e);
    if (!rc) rc = ledger_append(island_ledger(i), r, &seq, e);
    record_free(r);
    if (!rc && !cJSON_AddNumberToObject(*out, "recorded", (double)seq))
        rc = err_nomem(e, "an inventory (its record is written)");
    if (!rc) return ERR_OK;
    cJSON_Delete(*out);
    *out = NULL;
    return rc;
}
