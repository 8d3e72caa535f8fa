/* Model names and the artifacts behind them.
 *
 * What comes as a folder of safetensors or as a split GGUF becomes one GGUF file first; the artifact's row keeps the
 * digests of all files that it was made of, their licence and, for what was pulled, where they came from.
 *
 * An artifact is a file in the store, found by its SHA-256; a model name points at one. Names and artifacts change
 * under one lock, in one transaction with the ledger record that tells of it: no record, no change. A blob is removed
 * after the last name of it is gone; a crash in between leaves a blob that nobody names, never a name without a blob.
 */
#include "inference/internal.h"
#include "inference/models_internal.h"
#include "inference/providers_internal.h"
#include "inference/workdir.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/sys.h"

#include <stdio.h>
#include <string.h>

static const store_migration migrations[] = {
    {"inference", 1,
     "CREATE TABLE artifacts("
     " digest BLOB PRIMARY KEY CHECK(length(digest) = 32),"
     " kind TEXT NOT NULL,"
     " bytes INTEGER NOT NULL,"
     " facts TEXT NOT NULL," /* canonical JSON of model_facts */
     " created_ms INTEGER NOT NULL) STRICT;"
     "CREATE TABLE model_names("
     " name TEXT PRIMARY KEY,"
     " digest BLOB NOT NULL REFERENCES artifacts(digest),"
     " created_ms INTEGER NOT NULL) STRICT;"
     "CREATE TABLE inference_secrets("
     " name TEXT PRIMARY KEY,"
     " value BLOB NOT NULL) STRICT;"},
    {"inference", 2, "ALTER TABLE artifacts ADD COLUMN source TEXT NOT NULL DEFAULT '{}';"}, /* where it came from */
    {"inference", 3,
     "CREATE TABLE providers("
     " name TEXT PRIMARY KEY,"
     " facts TEXT NOT NULL," /* canonical JSON, as provider_facts.c writes it */
     " created_ms INTEGER NOT NULL,"
     " changed_ms INTEGER NOT NULL) STRICT;"
     "CREATE TABLE provider_keys("
     " provider TEXT PRIMARY KEY REFERENCES providers(name),"
     " sealed BLOB NOT NULL," /* provider_keys.c */
     " since_ms INTEGER NOT NULL) STRICT;"
     "CREATE TABLE candidates("
     " model TEXT NOT NULL,"
     " place INTEGER NOT NULL," /* 0, 1, … in order */
     " provider TEXT NOT NULL," /* 'engine' has no row */
     " target TEXT NOT NULL,"   /* the name there */
     " weight INTEGER NOT NULL,"
     " rank INTEGER NOT NULL,"
     " PRIMARY KEY(model, place)) STRICT;"
     "CREATE TABLE policies("
     " state TEXT PRIMARY KEY CHECK(state IN ('active', 'proposed')),"
     " text TEXT NOT NULL,"
     " digest BLOB NOT NULL CHECK(length(digest) = 32),"
     " changed_by TEXT NOT NULL,"
     " second TEXT," /* the other key, where two are wanted */
     " since_ms INTEGER NOT NULL) STRICT;"},
};

static pthread_mutex_t change_lock = PTHREAD_MUTEX_INITIALIZER;

err_code models_open_tables(store *s, err *e) {
    return store_migrate(s, migrations, sizeof migrations / sizeof *migrations, e);
}

static err_code check_name(const char *name, err *e) {
    size_t n = name ? strlen(name) : 0;
    bool ok = n >= 1 && n <= MODEL_NAME_MAX;
    for (size_t i = 0; i < n && ok; i++) {
        char c = name[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        ok = alnum || (i && strchr("._:/-", c));
        /* clients put names into URLs: no segment that would be folded away */
        if (ok && c == '/') ok = name[i + 1] && name[i + 1] != '/' && name[i + 1] != '.';
    }
    if (ok) return ERR_OK;
    return err_set(
        e, ERR_INVALID,
        "model name '%.80s': 1 to %d letters, digits and . _ : / - are allowed, the first a letter or digit, and none "
        "of its parts may be empty or begin with a dot",
        name ? name : "", MODEL_NAME_MAX);
}

static void digest_text(char out[8 + SHA256_HEX_LEN], const uint8_t digest[SHA256_LEN]) {
    memcpy(out, "sha256:", 7);
    hex_encode(out + 7, digest, SHA256_LEN);
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

/* One row of a query that has at most one: row(q, ctx) is called for it. *found tells. */
static err_code query_one(store *s, const char *sql, const store_val *args, size_t n, bool *found,
                          err_code (*row)(store_stmt *q, void *ctx, err *e), void *ctx, err *e) {
    store_stmt *q = NULL;
    err local = {0}; /* e may be NULL, and step tells its end by the code */
    *found = false;
    err_code rc = store_query(&q, s, sql, args, n, &local);
    if (!rc) {
        *found = store_step(q, &local);
        rc = *found ? (row ? row(q, ctx, &local) : ERR_OK) : local.code;
    }
    store_finish(q);
    if (rc && e) *e = local;
    return rc;
}

static err_code row_digest(store_stmt *q, void *ctx, err *e) {
    size_t n = 0;
    const void *p = store_col_blob(q, 0, &n);
    if (!p || n != SHA256_LEN) return err_set(e, ERR_CORRUPT, "polder.db: a model name points at no digest");
    memcpy(ctx, p, SHA256_LEN);
    return ERR_OK;
}

static err_code name_digest(store *s, const char *name, bool *found, uint8_t digest[SHA256_LEN], err *e) {
    return query_one(s, "SELECT digest FROM model_names WHERE name = ?", &SV_TEXT(name), 1, found, row_digest, digest,
                     e);
}

/* "model 'x' is not known here; there are: a, b" */
static err_code not_known(store *s, const char *name, err *e) {
    buf names = {.max = 400};
    store_stmt *q = NULL;
    err ignored = {0};
    static const char sql[] = "SELECT name FROM model_names UNION SELECT model FROM candidates ORDER BY 1 LIMIT 6";
    if (s && store_query(&q, s, sql, NULL, 0, &ignored) == ERR_OK) {
        for (int i = 0; store_step(q, &ignored); i++)
            buf_printf(&names, "%s%s", i ? ", " : "", i == 5 ? "…" : store_col_text(q, 0, NULL));
    }
    store_finish(q);
    err_code rc = names.len
                      ? err_set(e, ERR_NOT_FOUND, "model '%.80s' is not known here; there are: %s", name, names.ptr)
                      : err_set(e, ERR_NOT_FOUND,
                                "model '%.80s' is not known here, there is none yet; add one with "
                                "polder model add FILE.gguf --name NAME",
                                name);
    buf_free(&names);
    return rc;
}

err_code models_find(store *s, const char *name, char *path, size_t cap, uint8_t digest[SHA256_LEN], err *e) {
    bool found;
    err_code rc = name_digest(s, name, &found, digest, e);
    if (rc) return rc;
    return found ? store_blob_path(s, digest, path, cap, e) : not_known(s, name, e);
}

err_code models_resolve(island *i, const char *name, char *path, size_t cap, uint8_t digest[SHA256_LEN], err *e) {
    store *s = island_store(i);
    err_code rc = models_open_tables(s, e);
    if (rc) return rc == ERR_NOT_FOUND ? not_known(NULL, name, e) : rc;
    return models_find(s, name, path, cap, digest, e);
}

/* name, digest, bytes, what the file says of itself, created. */
static err_code row_model(store_stmt *q, cJSON **out, err *e) {
    char digest[8 + SHA256_HEX_LEN];
    uint8_t raw[SHA256_LEN];
    err_code rc = row_digest(q, raw, e);
    if (rc) return rc;
    digest_text(digest, raw);
    size_t n = 0;
    const char *facts = store_col_text(q, 3, &n);
    cJSON *o = NULL, *f = NULL;
    rc = json_parse(&f, facts ? facts : "", n, "polder.db: facts of a model", e);
    if (rc)
        return err_set(e, ERR_CORRUPT, "polder.db: the facts of model '%s' cannot be read", store_col_text(q, 1, NULL));
    o = cJSON_CreateObject();
    bool ok = o && cJSON_AddStringToObject(o, "name", store_col_text(q, 1, NULL)) &&
              cJSON_AddStringToObject(o, "digest", digest) &&
              cJSON_AddNumberToObject(o, "bytes", (double)store_col_int(q, 2)) &&
              cJSON_AddNumberToObject(o, "created", (double)(store_col_int(q, 4) / 1000));
    while (ok && f->child) {
        cJSON *one = cJSON_DetachItemViaPointer(f, f->child);
        ok = cJSON_AddItemToObject(o, one->string, one);
        if (!ok) cJSON_Delete(one);
    }
    cJSON_Delete(f);
    if (!ok) {
        cJSON_Delete(o);
        return err_nomem(e, "a model's facts");
    }
    *out = o;
    return ERR_OK;
}

/* The same and where it came from. */
static err_code row_model_source(store_stmt *q, void *ctx, err *e) {
    cJSON **out = ctx, *source = NULL;
    size_t n = 0;
    err_code rc = row_model(q, out, e);
    const char *text = rc ? NULL : store_col_text(q, 5, &n);
    if (!rc && text) rc = json_parse(&source, text, n, "polder.db: the source of a model", e);
    if (!rc && source && source->child && !cJSON_AddItemToObject(*out, "source", source))
        rc = err_nomem(e, "a model's facts");
    else if (rc || (source && !source->child))
        cJSON_Delete(source);
    if (!rc) return ERR_OK;
    cJSON_Delete(*out);
    *out = NULL;
    return rc;
}

#define MODEL_COLUMNS                                                                                        \
    "SELECT n.digest, n.name, a.bytes, a.facts, n.created_ms, a.source FROM model_names n JOIN artifacts a " \
    "ON a.digest = n.digest"

err_code models_list(island *i, cJSON **out, err *e) {
    store *s = island_store(i);
    *out = cJSON_CreateObject();
    cJSON *list = *out ? cJSON_AddArrayToObject(*out, "models") : NULL;
    store_stmt *q = NULL;
    err local = {0};
    err_code rc = list ? models_open_tables(s, &local) : err_nomem(&local, "the list of models");
    bool empty = rc == ERR_NOT_FOUND; /* a read-only island that never had a model */
    if (empty) rc = ERR_OK;
    if (!rc && !empty) {
        rc = store_query(&q, s, MODEL_COLUMNS " ORDER BY n.name", NULL, 0, &local);
        while (!rc && store_step(q, &local)) {
            cJSON *m = NULL;
            rc = row_model(q, &m, &local);
            if (!rc) cJSON_AddItemToArray(list, m);
        }
        if (!rc) rc = local.code == ERR_NOT_FOUND ? ERR_OK : local.code;
        store_finish(q);
        q = NULL;
        if (!rc) rc = routes_into_models(s, list, &local);
    }
    store_finish(q);
    if (!rc) return ERR_OK;
    cJSON_Delete(*out);
    *out = NULL;
    if (e) *e = local;
    return rc;
}

err_code models_show(island *i, const char *name, cJSON **out, err *e) {
    store *s = island_store(i);
    *out = NULL;
    bool found = false;
    err_code rc = models_open_tables(s, e);
    if (rc) return rc == ERR_NOT_FOUND ? not_known(NULL, name, e) : rc;
    rc = query_one(s, MODEL_COLUMNS " WHERE n.name = ?", &SV_TEXT(name), 1, &found, row_model_source, out, e);
    if (!rc) rc = route_into_model(s, name, out, e);
    return rc || *out ? rc : not_known(s, name, e);
}

err_code models_verify(island *i, const char *name, cJSON **out, err *e) {
    err_code rc = models_show(i, name, out, e);
    if (rc) return rc;
    uint8_t digest[SHA256_LEN];
    bool found;
    err why = {0};
    rc = name_digest(island_store(i), name, &found, digest, &why);
    if (!rc && !found) rc = err_set(&why, ERR_INVALID, "is answered elsewhere: there is no file of it here to look at");
    if (!rc) rc = store_blob_verify(island_store(i), digest, NULL, NULL, &why);
    if (rc == ERR_CORRUPT || rc == ERR_NOT_FOUND) rc = ERR_NO;
    if (!rc && !cJSON_AddBoolToObject(*out, "verified", true)) rc = err_nomem(&why, "the outcome");
    if (!rc) return ERR_OK;
    cJSON_Delete(*out);
    *out = NULL;
    return err_set(e, rc, "model '%s': %s", name, why.msg);
}

/* ---- changing ---------------------------------------------------------------------------------------------- */

/* What requests it answers. */
static const char *kind_of(const model_facts *f) {
    if (f->pooling == POOLING_RANK) return "rerank";
    return f->encoder || f->pooling > POOLING_NONE ? "embedding" : "completion";
}

static bool add_facts(cJSON *o, const model_facts *f) {
    return cJSON_AddStringToObject(o, "arch", f->arch) && cJSON_AddStringToObject(o, "title", f->name) &&
           cJSON_AddStringToObject(o, "quant", f->quant) && cJSON_AddStringToObject(o, "tokenizer", f->tokenizer) &&
           cJSON_AddNumberToObject(o, "parameters", (double)f->n_params) &&
           cJSON_AddNumberToObject(o, "vocabulary", f->n_vocab) && cJSON_AddNumberToObject(o, "layers", f->n_layer) &&
           cJSON_AddNumberToObject(o, "width", f->d_model) && cJSON_AddNumberToObject(o, "context", f->n_ctx_train) &&
           cJSON_AddBoolToObject(o, "has_template", f->has_template) && cJSON_AddStringToObject(o, "kind", kind_of(f));
}

typedef struct change { /* what one transaction does */
    island *i;
    const identity *by;
    const char *name;
    uint8_t digest[SHA256_LEN];
    uint64_t bytes;
    model_facts facts;
    cJSON *source; /* {"format", "files", "licence", …}; NULL where only a name changes */
    bool new_artifact, last_name;
} change;

#define RECORD_FILES_MAX 128 /* an entry is bounded: of more files their number and the digest of the list */

static bool add_source(cJSON *o, const cJSON *source) {
    cJSON *copy = source ? cJSON_Duplicate(source, true) : NULL;
    if (!source) return true;
    cJSON *files = cJSON_GetObjectItemCaseSensitive(copy, "files");
    int n = cJSON_GetArraySize(files);
    bool ok = copy != NULL;
    if (ok && n > RECORD_FILES_MAX) {
        buf text = {.max = 64u << 20};
        uint8_t digest[SHA256_LEN];
        char hex[SHA256_HEX_LEN + 1];
        ok = json_canonical(&text, files, NULL) == ERR_OK && !text.failed;
        sha256_of(digest, buf_str(&text), text.len);
        hex_encode(hex, digest, SHA256_LEN);
        buf_free(&text);
        cJSON_DeleteItemFromObjectCaseSensitive(copy, "files");
        ok =
            ok && cJSON_AddNumberToObject(copy, "files_count", n) && cJSON_AddStringToObject(copy, "files_sha256", hex);
    }
    if (ok && cJSON_AddItemToObject(o, "source", copy)) return true;
    cJSON_Delete(copy);
    return false;
}

/* The record of a change; appended inside the transaction, so that neither is there without the other. */
static err_code tell(const change *c, const char *what, err *e) {
    record *r = NULL;
    char digest[8 + SHA256_HEX_LEN];
    digest_text(digest, c->digest);
    err_code rc = record_new(&r, what, e);
    if (rc) return rc;
    cJSON *o = record_body(r);
    bool ok = cJSON_AddStringToObject(o, "model", c->name) && cJSON_AddStringToObject(o, "artifact", digest) &&
              cJSON_AddStringToObject(o, "by", c->by ? c->by->key_id : "local");
    if (ok && c->new_artifact)
        ok = cJSON_AddNumberToObject(o, "bytes", (double)c->bytes) && add_facts(o, &c->facts) &&
             add_source(o, c->source);
    if (ok && c->last_name) ok = cJSON_AddBoolToObject(o, "artifact_removed", true) != NULL;
    uint64_t seq;
    rc = ok ? ledger_append(island_ledger(c->i), r, &seq, e) : err_nomem(e, "a record");
    record_free(r);
    return rc;
}

static err_code artifact_exists(store *s, const uint8_t digest[SHA256_LEN], bool *found, err *e) {
    return query_one(s, "SELECT 1 FROM artifacts WHERE digest = ?", &SV_BLOB(digest, SHA256_LEN), 1, found, NULL, NULL,
                     e);
}

static err_code insert_artifact(store *s, const change *c, err *e) {
    buf facts = {.max = 1 << 16}, source = {.max = 64u << 20};
    cJSON *o = cJSON_CreateObject();
    err_code rc = o && add_facts(o, &c->facts) ? json_canonical(&facts, o, e) : err_nomem(e, "a model's facts");
    if (!rc) rc = buf_check(&facts, "a model's facts", e);
    if (!rc && c->source) rc = json_canonical(&source, c->source, e);
    if (!rc) rc = buf_check(&source, "a model's source", e);
    if (!rc) {
        store_val v[] = {SV_BLOB(c->digest, SHA256_LEN), SV_TEXT("gguf"),
                         SV_INT((int64_t)c->bytes),      SV_TEXT(facts.ptr),
                         SV_INT(time_unix_ms()),         SV_TEXT(c->source ? source.ptr : "{}")};
        rc = store_write(s,
                         "INSERT INTO artifacts(digest, kind, bytes, facts, created_ms, source) "
                         "VALUES(?, ?, ?, ?, ?, ?)",
                         v, 6, NULL, e);
    }
    cJSON_Delete(o);
    buf_free(&facts);
    buf_free(&source);
    return rc;
}

static err_code add_in_transaction(store *s, void *ctx, err *e) {
    change *c = ctx;
    bool found;
    err_code rc = artifact_exists(s, c->digest, &found, e);
    c->new_artifact = !found;
    if (!rc && !found) rc = insert_artifact(s, c, e);
    if (!rc) {
        store_val v[] = {SV_TEXT(c->name), SV_BLOB(c->digest, SHA256_LEN), SV_INT(time_unix_ms())};
        rc = store_write(s, "INSERT INTO model_names(name, digest, created_ms) VALUES(?, ?, ?)", v, 3, NULL, e);
    }
    return rc ? rc : tell(c, found ? "model.named" : "model.imported", e);
}

/* A model that the engine cannot run is not imported. */
static err_code check_file(const char *path, model_facts *facts, err *e) {
    model *m = NULL;
    err_code rc = model_open(&m, path, e);
    if (rc) return rc;
    *facts = *model_get_facts(m);
    model_free(m);
    return ERR_OK;
}

static err_code name_imported(change *c, err *e) {
    store *s = island_store(c->i);
    uint8_t now[SHA256_LEN];
    bool taken;
    err_code rc = name_digest(s, c->name, &taken, now, e);
    if (!rc && taken && memcmp(now, c->digest, SHA256_LEN) != 0)
        return err_set(e, ERR_EXISTS,
                       "model name '%s' is taken by another artifact; choose another name or remove it with polder "
                       "model rm",
                       c->name);
    return rc || taken ? rc : store_transaction(s, add_in_transaction, c, e);
}

/* The source of a plain GGUF file: the file itself. */
static err_code source_of_file(change *c, const char *path, err *e) {
    char hex[SHA256_HEX_LEN + 1];
    const char *base = strrchr(path, '/');
    cJSON *source = cJSON_CreateObject(), *files = source ? cJSON_AddArrayToObject(source, "files") : NULL;
    cJSON *one = files ? cJSON_CreateObject() : NULL;
    hex_encode(hex, c->digest, SHA256_LEN);
    bool ok = one && cJSON_AddItemToArray(files, one) && cJSON_AddStringToObject(source, "format", "gguf") &&
              cJSON_AddStringToObject(one, "name", base ? base + 1 : path) &&
              cJSON_AddNumberToObject(one, "bytes", (double)c->bytes) && cJSON_AddStringToObject(one, "sha256", hex);
    c->source = source;
    return ok ? ERR_OK : err_nomem(e, "a model's source");
}

/* Facts that the caller knows (a hub's) come first in the source. */
static err_code merge_known(change *c, const cJSON *known, err *e) {
    for (const cJSON *v = known ? known->child : NULL; v; v = v->next) {
        cJSON *copy = cJSON_Duplicate(v, true);
        if (copy) cJSON_DeleteItemFromObjectCaseSensitive(c->source, v->string);
        if (copy && cJSON_AddItemToObject(c->source, v->string, copy)) continue;
        cJSON_Delete(copy);
        return err_nomem(e, "a model's source");
    }
    return ERR_OK;
}

static err_code store_and_name(change *c, const char *path, const char *shown, const cJSON *known,
                               store_progress progress, void *ctx, err *e) {
    store *s = island_store(c->i);
    err_code rc = check_file(path, &c->facts, e);
    if (rc) return rc;
    pthread_mutex_lock(&change_lock);
    rc = store_blob_import(s, path, c->digest, &c->bytes, progress, ctx, e);
    if (!rc) {
        if (c->bytes != c->facts.file_bytes) rc = err_set(e, ERR_INVALID, "%s: changed while it was imported", shown);
        if (!rc && !c->source) rc = source_of_file(c, shown, e);
        if (!rc) rc = merge_known(c, known, e);
        if (!rc) rc = name_imported(c, e);
        bool used = true;
        if (rc && artifact_exists(s, c->digest, &used, NULL) == ERR_OK && !used) store_blob_remove(s, c->digest, NULL);
    }
    pthread_mutex_unlock(&change_lock);
    return rc;
}

/* A folder, or a part of a split model, becomes one file in DIR/tmp and is imported from there. */
static err_code convert_and_store(change *c, const char *path, const cJSON *known, store_progress progress, void *ctx,
                                  err *e) {
    workdir w;
    char file[4200];
    model_file_options o = {.progress = progress, .ctx = ctx};
    err_code rc = workdir_new(&w, island_dir(c->i), e);
    if (rc) return rc;
    snprintf(file, sizeof file, "%s/model.gguf", w.path);
    rc = model_file_convert(path, file, &o, &c->source, e);
    if (!rc) rc = store_and_name(c, file, path, known, progress, ctx, e);
    workdir_remove(&w);
    return rc;
}

err_code models_add_known(island *i, const identity *by, const char *path, const char *name, const cJSON *known,
                          store_progress progress, void *ctx, cJSON **out, err *e) {
    *out = NULL;
    change c = {.i = i, .by = by, .name = name};
    err_code rc = check_name(name, e);
    if (!rc) rc = models_open_tables(island_store(i), e);
    if (!rc && model_file_needs_convert(path))
        rc = convert_and_store(&c, path, known, progress, ctx, e);
    else if (!rc)
        rc = store_and_name(&c, path, path, known, progress, ctx, e);
    cJSON_Delete(c.source);
    return rc ? rc : models_show(i, name, out, e);
}

err_code models_add(island *i, const identity *by, const char *path, const char *name, store_progress progress,
                    void *ctx, cJSON **out, err *e) {
    return models_add_known(i, by, path, name, NULL, progress, ctx, out, e);
}

err_code models_check_name(const char *name, err *e) {
    return check_name(name, e);
}

static err_code remove_in_transaction(store *s, void *ctx, err *e) {
    change *c = ctx;
    bool others;
    char routed[MODEL_NAME_MAX + 1];
    err_code rc = route_leads_to(s, ENGINE_NAME, c->name, routed, e);
    if (!rc && *routed)
        return err_set(e, ERR_EXISTS,
                       "model '%s': the model name '%s' still leads to it; give that other candidates first (polder "
                       "model route)",
                       c->name, routed);
    if (!rc) rc = store_write(s, "DELETE FROM model_names WHERE name = ?", &SV_TEXT(c->name), 1, NULL, e);
    if (!rc)
        rc = query_one(s, "SELECT 1 FROM model_names WHERE digest = ? LIMIT 1", &SV_BLOB(c->digest, SHA256_LEN), 1,
                       &others, NULL, NULL, e);
    if (rc) return rc;
    c->last_name = !others;
    if (c->last_name)
        rc = store_write(s, "DELETE FROM artifacts WHERE digest = ?", &SV_BLOB(c->digest, SHA256_LEN), 1, NULL, e);
    return rc ? rc : tell(c, "model.removed", e);
}

err_code models_remove(island *i, const identity *by, const char *name, err *e) {
    store *s = island_store(i);
    change c = {.i = i, .by = by, .name = name};
    bool found = false;
    err_code rc = models_open_tables(s, e);
    if (rc) return rc == ERR_NOT_FOUND ? not_known(NULL, name, e) : rc;
    pthread_mutex_lock(&change_lock);
    rc = name_digest(s, name, &found, c.digest, e);
    if (!rc && !found) rc = not_known(s, name, e);
    if (!rc) rc = store_transaction(s, remove_in_transaction, &c, e);
    if (!rc && c.last_name) rc = store_blob_remove(s, c.digest, e);
    pthread_mutex_unlock(&change_lock);
    return rc;
}

/* ---- secrets of this room --------------------------------------------------------------------------------- */

static err_code row_key(store_stmt *q, void *ctx, err *e) {
    size_t n = 0;
    const void *p = store_col_blob(q, 0, &n);
    if (!p || n != 32) return err_set(e, ERR_CORRUPT, "polder.db: the key for end users' names is damaged");
    memcpy(ctx, p, 32);
    return ERR_OK;
}

err_code models_user_key(store *s, uint8_t key[32], err *e) {
    bool found;
    err_code rc =
        query_one(s, "SELECT value FROM inference_secrets WHERE name = 'user'", NULL, 0, &found, row_key, key, e);
    if (rc || found) return rc;
    random_bytes(key, 32);
    return store_write(s, "INSERT INTO inference_secrets(name, value) VALUES('user', ?)", &SV_BLOB(key, 32), 1, NULL,
                       e);
}
