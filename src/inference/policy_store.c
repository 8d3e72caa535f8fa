/* The policy in force, and the one that waits for a second key. */
#include "inference/providers_internal.h"

#include "base/sys.h"

#include <stdio.h>
#include <string.h>

#define RULES_MAX (1u << 20) /* bytes of the owner's own patterns and word lists */

typedef struct stored { /* a row of policies */
    buf text;
    uint8_t digest[SHA256_LEN];
    char by[KEY_ID_MAX], second[KEY_ID_MAX]; /* second: "" where one key was enough */
    int64_t since_ms;
} stored;

static void stored_free(stored *r) {
    buf_free(&r->text);
}

static err_code row_stored(store_stmt *q, void *ctx, err *e) {
    stored *r = ctx;
    size_t n = 0, n_digest = 0;
    const char *text = store_col_text(q, 0, &n);
    const void *digest = store_col_blob(q, 1, &n_digest);
    const char *by = store_col_text(q, 2, NULL), *second = store_col_text(q, 3, NULL);
    if (!text || !digest || n_digest != SHA256_LEN || !by)
        return err_set(e, ERR_CORRUPT, "polder.db: the policy has a malformed row");
    r->text.max = POLICY_BYTES_MAX;
    buf_append(&r->text, text, n);
    memcpy(r->digest, digest, SHA256_LEN);
    snprintf(r->by, sizeof r->by, "%s", by);
    snprintf(r->second, sizeof r->second, "%s", second ? second : "");
    r->since_ms = store_col_int(q, 4);
    return buf_check(&r->text, "the policy", e);
}

/* state: "active" or "proposed". */
static err_code read_stored(store *s, const char *state, bool *found, stored *out, err *e) {
    *found = false;
    err_code rc = models_open_tables(s, e);
    if (rc) return rc == ERR_NOT_FOUND ? ERR_OK : rc; /* a read-only island that never had one */
    return store_one(s, "SELECT text, digest, changed_by, second, since_ms FROM policies WHERE state = ?",
                     &SV_TEXT(state), 1, found, row_stored, out, e);
}

/* ---- what a policy is read with ---------------------------------------------------------------------------- */

err_code policy_words(island *i, label_set *labels, detector **d, err *e) {
    const island_config *c = island_get_config(i);
    char path[4096];
    buf rules = {.max = RULES_MAX};
    *d = NULL;
    err_code rc = label_set_parse(labels, c->labels_levels, e);
    if (rc) {
        err_prefix(e, "island.yaml: labels.levels");
        return rc;
    }
    if (!*c->detect_rules) return detector_new(d, NULL, 0, NULL, e);
    if (c->detect_rules[0] == '/')
        snprintf(path, sizeof path, "%s", c->detect_rules);
    else
        rc = path_join(path, sizeof path, e, island_dir(i), c->detect_rules);
    if (!rc) rc = file_read(&rules, path, e);
    if (rc == ERR_NOT_FOUND) rc = err_set(e, ERR_USAGE, "%s: there is no such file", path);
    if (rc)
        err_prefix(e, "island.yaml: detect.rules");
    else
        rc = detector_new(d, buf_str(&rules), rules.len, path, e);
    buf_free(&rules);
    return rc;
}

err_code policy_in_force(island *i, const label_set *labels, const detector *d, policy **out, err *e) {
    stored r = {0};
    bool found;
    err why = {0};
    *out = NULL;
    err_code rc = read_stored(island_store(i), "active", &found, &r, e);
    if (!rc && !found) {
        r.text.max = POLICY_BYTES_MAX;
        policy_default_text(labels, &r.text);
        rc = buf_check(&r.text, "the default policy", e);
    }
    if (!rc) {
        rc = policy_parse(out, labels, d, buf_str(&r.text), r.text.len, "policy", &why);
        if (rc == ERR_USAGE && found)
            rc = err_set(e, ERR_INVALID,
                         "%s: the policy in force does not fit island.yaml any more (%s); put labels.levels and "
                         "detect.rules back as they were, or activate a policy that fits with polder policy activate "
                         "while no server runs",
                         island_dir(i), why.msg);
        else if (rc && e)
            *e = why;
    }
    stored_free(&r);
    return rc;
}

err_code policy_world_open(policy_world *w, island *i, err *e) {
    provider *list = NULL;
    size_t n = 0;
    memset(w, 0, sizeof *w);
    err_code rc = policy_words(i, &w->labels, &w->detector, e);
    if (!rc) rc = policy_in_force(i, &w->labels, w->detector, &w->active, e);
    if (!rc) rc = providers_read(island_store(i), &list, &n, e);
    for (size_t k = 0; k < n; k++) w->providers[k] = list[k].facts;
    w->n_providers = n;
    mem_free(list);
    return rc;
}

void policy_world_close(policy_world *w) {
    policy_free(w->active);
    detector_free(w->detector);
    memset(w, 0, sizeof *w);
}

/* ---- activating -------------------------------------------------------------------------------------------- */

typedef struct activation {
    const char *text;
    size_t n;
    uint8_t digest[SHA256_LEN];
    bool active; /* the outcome */
} activation;

static bool same_text(const activation *a, const stored *r) {
    return r->text.len == a->n && memcmp(buf_str(&r->text), a->text, a->n) == 0;
}

static err_code write_stored(store *s, const char *state, const activation *a, const char *by, const char *second,
                             err *e) {
    char text_end = 0;
    store_val text = {.kind = STORE_TEXT, .p = a->n ? a->text : &text_end, .n = a->n};
    store_val v[] = {
        SV_TEXT(state),        text, SV_BLOB(a->digest, SHA256_LEN), SV_TEXT(by), second ? SV_TEXT(second) : SV_NULL,
        SV_INT(time_unix_ms())};
    return store_write(s,
                       "INSERT OR REPLACE INTO policies(state, text, digest, changed_by, second, since_ms) "
                       "VALUES(?, ?, ?, ?, ?, ?)",
                       v, 6, NULL, e);
}

static err_code make_record(const change_job *c, record **r, const activation *a, const char *what, const char *first,
                            const char *second, err *e) {
    char hex[SHA256_HEX_LEN + 1];
    hex_encode(hex, a->digest, SHA256_LEN);
    err_code rc = record_new(r, what, e);
    if (rc) return rc;
    cJSON *o = record_body(*r);
    if (!cJSON_AddStringToObject(o, "digest", hex) || !cJSON_AddStringToObject(o, "by", first) ||
        (second && !cJSON_AddStringToObject(o, "second", second)))
        return err_nomem(e, "a record");
    return record_content(*r, "policy", a->text, a->n, e);
}

static err_code activate(change_job *c, store *s, record **r, const char *first, const char *second, err *e) {
    activation *a = c->ctx;
    err_code rc = write_stored(s, "active", a, first, second, e);
    if (!rc) rc = store_write(s, "DELETE FROM policies WHERE state = 'proposed'", NULL, 0, NULL, e);
    if (!rc) rc = make_record(c, r, a, "policy.activated", first, second, e);
    a->active = !rc;
    return rc;
}

static err_code propose(change_job *c, store *s, record **r, err *e) {
    activation *a = c->ctx;
    err_code rc = write_stored(s, "proposed", a, c->by->key_id, NULL, e);
    return rc ? rc : make_record(c, r, a, "policy.proposed", c->by->key_id, NULL, e);
}

/* Two keys are two API keys of the role admin: who holds the control socket or the command line has no key that could
 * differ from another. */
static bool is_admin_key(const identity *by) {
    return by && strncmp(by->key_id, "k_", 2) == 0 && by->role == ROLE_ADMIN;
}

static err_code refuse_without_key(err *e) {
    return err_set(e, ERR_DENIED,
                   "this island wants two keys for a policy (policy.two_keys in island.yaml): two holders of API keys "
                   "of the role admin must send the same text, each with their own key, to the running server: POST "
                   "/api/polder/v1/policy.activate; the control socket and the command line are no such key");
}

/* Is the proposer's key still one of the role admin? Its holder may have left since. */
static err_code proposer_is_good(island *i, const char *key_id, bool *good, err *e) {
    cJSON *keys = NULL;
    const cJSON *k;
    *good = false;
    err_code rc = key_list(i, &keys, e);
    if (rc) return rc;
    cJSON_ArrayForEach(k, json_get(keys, "keys")) {
        const char *id = NULL, *role_text = NULL;
        (void)json_get_str(k, "id", &id, NULL);
        (void)json_get_str(k, "role", &role_text, NULL);
        if (id && role_text && strcmp(id, key_id) == 0)
            *good = strcmp(role_text, role_name(ROLE_ADMIN)) == 0 && !json_get(k, "revoked");
    }
    cJSON_Delete(keys);
    return ERR_OK;
}

static err_code with_two_keys(change_job *c, store *s, record **r, err *e) {
    activation *a = c->ctx;
    stored p = {0};
    bool found, good = false;
    err_code rc = read_stored(s, "proposed", &found, &p, e);
    bool same = !rc && found && same_text(a, &p) && memcmp(p.digest, a->digest, SHA256_LEN) == 0;
    if (!rc && same) rc = proposer_is_good(c->i, p.by, &good, e);
    if (!rc && same && good && strcmp(p.by, c->by->key_id) != 0)
        rc = activate(c, s, r, p.by, c->by->key_id, e);
    else if (!rc && !(same && good)) /* new, another text, or of a key that is none any more */
        rc = propose(c, s, r, e);
    stored_free(&p);
    return rc;
}

static err_code policy_rows(change_job *c, store *s, record **r, err *e) {
    activation *a = c->ctx;
    stored now = {0};
    bool found;
    err_code rc = read_stored(s, "active", &found, &now, e);
    bool same = !rc && found && same_text(a, &now) && memcmp(now.digest, a->digest, SHA256_LEN) == 0;
    stored_free(&now);
    if (rc) return rc;
    if (same) {
        a->active = true; /* in force already */
        return ERR_OK;
    }
    if (island_get_config(c->i)->policy_two_keys) return with_two_keys(c, s, r, e);
    return activate(c, s, r, c->by ? c->by->key_id : "local", NULL, e);
}

/* Can it be read, and what is its digest? */
static err_code check_text(island *i, const char *text, size_t n, uint8_t digest[SHA256_LEN], err *e) {
    label_set labels;
    detector *d = NULL;
    policy *p = NULL;
    if (n > POLICY_BYTES_MAX)
        return err_set(e, ERR_USAGE, "policy: %zu bytes are too many; at most %u", n, POLICY_BYTES_MAX);
    err_code rc = policy_words(i, &labels, &d, e);
    if (!rc) rc = policy_parse(&p, &labels, d, text, n, "policy", e);
    if (!rc) policy_digest(p, digest);
    policy_free(p);
    detector_free(d);
    return rc;
}

err_code policy_activate(island *i, struct inference *inf, const identity *by, const char *text, size_t n, cJSON **out,
                         err *e) {
    activation a = {.text = text, .n = n};
    *out = NULL;
    if (island_get_config(i)->policy_two_keys && !is_admin_key(by)) return refuse_without_key(e);
    err_code rc = check_text(i, text, n, a.digest, e);
    change_job c = {.i = i, .inf = inf, .by = by, .ctx = &a, .rows = policy_rows};
    if (!rc) rc = change_run(&c, e);
    if (rc) return rc;
    char hex[SHA256_HEX_LEN + 1];
    hex_encode(hex, a.digest, SHA256_LEN);
    *out = cJSON_CreateObject();
    if (*out && cJSON_AddBoolToObject(*out, "active", a.active) && cJSON_AddStringToObject(*out, "digest", hex) &&
        (a.active ? cJSON_AddNullToObject(*out, "waiting_for")
                  : cJSON_AddStringToObject(*out, "waiting_for", "another API key of the role admin")))
        return ERR_OK;
    cJSON_Delete(*out);
    *out = NULL;
    return err_nomem(e, "the outcome (the change itself is done)");
}

/* ---- showing ----------------------------------------------------------------------------------------------- */

static bool put_stored(cJSON *o, const stored *r) {
    char hex[SHA256_HEX_LEN + 1], since[32];
    hex_encode(hex, r->digest, SHA256_LEN);
    time_rfc3339(since, r->since_ms);
    return cJSON_AddStringToObject(o, "text", buf_str(&r->text)) && cJSON_AddStringToObject(o, "digest", hex) &&
           cJSON_AddStringToObject(o, "since", since) && cJSON_AddStringToObject(o, "by", r->by) &&
           (!*r->second || cJSON_AddStringToObject(o, "second", r->second));
}

/* The text of an island that has none, with the digest that records have. */
static err_code put_default(cJSON *o, island *i, err *e) {
    buf text = {.max = POLICY_BYTES_MAX};
    uint8_t digest[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    label_set labels;
    err_code rc = label_set_parse(&labels, island_get_config(i)->labels_levels, e);
    if (rc) return rc;
    policy_default_text(&labels, &text);
    rc = buf_check(&text, "the default policy", e);
    if (!rc) rc = check_text(i, buf_str(&text), text.len, digest, e);
    if (!rc) {
        hex_encode(hex, digest, SHA256_LEN);
        bool ok = cJSON_AddStringToObject(o, "text", buf_str(&text)) && cJSON_AddStringToObject(o, "digest", hex) &&
                  cJSON_AddNullToObject(o, "since") && cJSON_AddNullToObject(o, "by");
        if (!ok) rc = err_nomem(e, "the policy");
    }
    buf_free(&text);
    return rc;
}

err_code policy_active(island *i, cJSON **out, err *e) {
    stored now = {0}, next = {0};
    bool found = false, waits = false;
    *out = NULL;
    cJSON *o = cJSON_CreateObject();
    err_code rc = o ? read_stored(island_store(i), "active", &found, &now, e) : err_nomem(e, "the policy");
    if (!rc) rc = read_stored(island_store(i), "proposed", &waits, &next, e);
    if (!rc && !found) rc = put_default(o, i, e);
    if (!rc && found && !put_stored(o, &now)) rc = err_nomem(e, "the policy");
    if (!rc && !cJSON_AddBoolToObject(o, "default", !found)) rc = err_nomem(e, "the policy");
    if (!rc && waits) {
        cJSON *proposed = cJSON_AddObjectToObject(o, "proposed");
        if (!proposed || !put_stored(proposed, &next)) rc = err_nomem(e, "the policy");
    }
    stored_free(&now);
    stored_free(&next);
    if (rc)
        cJSON_Delete(o);
    else
        *out = o;
    return rc;
}
