/* island: opening, closing, and the record of configuration changes.
 *
 * Order of opening: island.yaml exists → lock → configuration → key files → ledger (recovery) → store → do the parts
 * belong together → what changed is recorded → API keys. Whatever fails, the earlier parts are closed again. */
#include "island/internal.h"

#include "base/json.h"
#include "base/mem.h"
#include "island/oidc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const store_migration island_migrations[] = {
    {"island", 1,
     "CREATE TABLE island_meta(key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;"
     "CREATE TABLE api_keys(id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, mac BLOB NOT NULL,"
     " created_ms INTEGER NOT NULL, created_seq INTEGER NOT NULL, revoked_ms INTEGER, revoked_seq INTEGER) STRICT;"
     "CREATE UNIQUE INDEX api_keys_name ON api_keys(name) WHERE revoked_ms IS NULL"},
    {"island", 2,
     "ALTER TABLE api_keys ADD COLUMN form INTEGER NOT NULL DEFAULT 1;"
     "CREATE TABLE projects(name TEXT NOT NULL PRIMARY KEY, created_ms INTEGER NOT NULL,"
     " created_seq INTEGER NOT NULL) STRICT;"
     "CREATE TABLE grants(owner TEXT NOT NULL PRIMARY KEY, project TEXT NOT NULL, floor TEXT NOT NULL,"
     " models TEXT NOT NULL, requests_minute INTEGER NOT NULL, tokens_minute INTEGER NOT NULL,"
     " tokens_day INTEGER NOT NULL, tokens_month INTEGER NOT NULL, eur_day INTEGER NOT NULL,"
     " eur_month INTEGER NOT NULL, mac BLOB NOT NULL) STRICT;"
     "CREATE TABLE usage(day INTEGER NOT NULL, project TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,"
     " provider TEXT NOT NULL, requests INTEGER NOT NULL, refused INTEGER NOT NULL, tokens_in INTEGER NOT NULL,"
     " tokens_out INTEGER NOT NULL, cost INTEGER NOT NULL,"
     " PRIMARY KEY(day, project, key, model, provider)) STRICT, WITHOUT ROWID"},
};
const size_t island_n_migrations = sizeof island_migrations / sizeof island_migrations[0];

err_code island_path(char out[ISLAND_PATH_MAX], const char *dir, const char *name, err *e) {
    return path_join(out, ISLAND_PATH_MAX, e, dir, name);
}

/* ---- island_meta ----------------------------------------------------------------------------------------- */

err_code meta_get(store *s, const char *key, char **out, err *e) {
    store_stmt *q;
    *out = NULL;
    err_code code =
        store_query(&q, s, "SELECT value FROM island_meta WHERE key = ?", (store_val[]){SV_TEXT(key)}, 1, e);
    if (code != ERR_OK) return code;
    err step = {0};
    if (store_step(q, &step)) {
        const char *text = store_col_text(q, 0, NULL);
        *out = text ? mem_strdup(text) : NULL;
        if (!*out) code = err_nomem(e, "a value of the store");
    } else if (step.code != ERR_OK) {
        code = step.code;
        if (e) *e = step;
    }
    store_finish(q);
    return code;
}

err_code meta_set(store *s, const char *key, const char *value, err *e) {
    return store_write(s,
                       "INSERT INTO island_meta(key, value) VALUES(?, ?) "
                       "ON CONFLICT(key) DO UPDATE SET value = excluded.value",
                       (store_val[]){SV_TEXT(key), SV_TEXT(value)}, 2, NULL, e);
}

/* ---- configuration: what was recorded, and what is in force ----------------------------------------------- */

err_code config_digest(const island_config *c, buf *json, char hex[SHA256_HEX_LEN + 1], err *e) {
    uint8_t digest[SHA256_LEN];
    config_write_json(c, json);
    err_code code = buf_check(json, "the configuration as JSON", e);
    if (code != ERR_OK) return code;
    sha256_of(digest, json->ptr, json->len);
    hex_encode(hex, digest, SHA256_LEN);
    return ERR_OK;
}

static err_code load_config(island *i, err *e) {
    char path[ISLAND_PATH_MAX];
    buf text = {.max = CONFIG_BYTES_MAX};
    err_code code = island_path(path, i->dir, CONFIG_FILE, e);
    if (code == ERR_OK) code = file_read(&text, path, e);
    if (code == ERR_OK) code = config_parse(&i->config, buf_str(&text), text.len, path, e);
    buf_free(&text);
    return code;
}

/* {"group.key": {"old": …, "new": …}}: what one side lacks is left out. The configuration holds no secrets. */
static bool add_change(cJSON *changes, const char *group, const char *key, const cJSON *before, const cJSON *now) {
    char name[128];
    snprintf(name, sizeof name, "%s.%s", group, key);
    cJSON *change = cJSON_AddObjectToObject(changes, name);
    cJSON *b = before ? cJSON_Duplicate(before, true) : NULL, *n = now ? cJSON_Duplicate(now, true) : NULL;
    bool ok = change && (!before || b) && (!now || n);
    if (ok && b) {
        ok = cJSON_AddItemToObject(change, "old", b);
        if (ok) b = NULL;
    }
    if (ok && n) {
        ok = cJSON_AddItemToObject(change, "new", n);
        if (ok) n = NULL;
    }
    cJSON_Delete(b);
    cJSON_Delete(n);
    return ok;
}

static bool add_changes(cJSON *changes, const cJSON *before, const cJSON *now) {
    const cJSON *group, *value;
    cJSON_ArrayForEach(group, now) cJSON_ArrayForEach(value, group) {
        const cJSON *old = json_get(json_get(before, group->string), value->string);
        if (!cJSON_Compare(old, value, true) && !add_change(changes, group->string, value->string, old, value))
            return false;
    }
    /* keys that an earlier polder knew */
    cJSON_ArrayForEach(group, before) cJSON_ArrayForEach(value, group) {
        if (!json_get(json_get(now, group->string), value->string) &&
            !add_change(changes, group->string, value->string, value, NULL))
            return false;
    }
    return true;
}

static err_code append_change(island *i, const char *before, const buf *now, const char *hex, err *e) {
    cJSON *old = NULL, *new = NULL;
    record *r = NULL;
    err_code code = json_parse(&old, before, strlen(before), "the recorded configuration", e);
    if (code == ERR_OK) code = json_parse(&new, now->ptr, now->len, "the configuration", e);
    if (code == ERR_OK) code = record_new(&r, "config.changed", e);
    if (code == ERR_OK) {
        cJSON *config = cJSON_AddObjectToObject(record_body(r), "config");
        cJSON *changes = cJSON_AddObjectToObject(record_body(r), "changes");
        if (!config || !cJSON_AddStringToObject(config, "sha256", hex) || !changes || !add_changes(changes, old, new))
            code = err_nomem(e, "a record");
    }
    uint64_t seq;
    if (code == ERR_OK) code = ledger_append(i->led, r, &seq, e);
    record_free(r);
    cJSON_Delete(old);
    cJSON_Delete(new);
    return code;
}

typedef struct config_note {
    const char *json, *hex;
} config_note;

static err_code note_config(store *s, void *ctx, err *e) {
    const config_note *n = ctx;
    err_code code = meta_set(s, "config.json", n->json, e);
    return code == ERR_OK ? meta_set(s, "config.sha256", n->hex, e) : code;
}

/* The record comes first, then the note of it in the store: a crash between the two records the change once more at the
 * next opening, and never leaves a change without a record. */
static err_code record_config(island *i, err *e) {
    char hex[SHA256_HEX_LEN + 1], *last = NULL, *before = NULL;
    buf json = {.max = CONFIG_BYTES_MAX};
    err_code code = config_digest(&i->config, &json, hex, e);
    if (code == ERR_OK) code = meta_get(i->st, "config.sha256", &last, e);
    if (code == ERR_OK && !(last && strcmp(last, hex) == 0)) {
        code = meta_get(i->st, "config.json", &before, e);
        if (code == ERR_OK) code = append_change(i, before ? before : "{}", &json, hex, e);
        if (code == ERR_OK) code = store_transaction(i->st, note_config, &(config_note){json.ptr, hex}, e);
    }
    mem_free(last);
    mem_free(before);
    buf_free(&json);
    return code;
}

/* ---- opening --------------------------------------------------------------------------------------------- */

static err_code check_key_files(const island *i, err *e) {
    static const char *const names[] = {"keys/ledger.key", "keys/vault.key", API_KEY_FILE};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        char path[ISLAND_PATH_MAX];
        err_code code = island_path(path, i->dir, names[k], e);
        if (code == ERR_OK) code = key_file_check(path, e);
        /* an auditor's copy may come without private keys; what needs one says so */
        if (code != ERR_OK && !(code == ERR_NOT_FOUND && i->mode == ISLAND_READ)) return code;
    }
    return ERR_OK;
}

static err_code open_ledger(island *i, err *e) {
    ledger_options o = {.read_only = i->mode == ISLAND_READ, .group_max = (uint32_t)i->config.ledger_group_max};
    err_code code = ledger_open(&i->led, i->dir, &o, &i->report, e);
    if (code != ERR_OK) return code;
    if (strcmp(ledger_origin(i->led), i->config.island_name) != 0)
        return err_set(e, ERR_INVALID,
                       "%s: is the state folder of another island: its ledger is \"%s\", but island.yaml names it "
                       "\"%s\"; set island.name back, or use the right folder",
                       i->dir, ledger_origin(i->led), i->config.island_name);
    return ERR_OK;
}

static err_code open_store(island *i, err *e) {
    char path[ISLAND_PATH_MAX], db[ISLAND_PATH_MAX], *vkey = NULL;
    err_code code = island_path(path, i->dir, "store", e);
    if (code == ERR_OK) code = path_join(db, sizeof db, e, path, "polder.db");
    /* a new, empty one would silently forget all keys and models */
    if (code == ERR_OK && !file_exists(db))
        code = err_set(e, ERR_CORRUPT, "%s: is missing; restore it from a backup", db);
    if (code == ERR_OK)
        code = store_open(&i->st, path, island_migrations, island_n_migrations, i->mode == ISLAND_READ, e);
    if (code == ERR_OK) code = meta_get(i->st, "vkey", &vkey, e);
    if (code == ERR_OK && !(vkey && strcmp(vkey, ledger_vkey(i->led)) == 0))
        code =
            err_set(e, ERR_INVALID,
                    "%s: store/ belongs to another island: it names the ledger %s, and ledger/ is %s; put the folders "
                    "together that belong together",
                    i->dir, vkey ? vkey : "(none)", ledger_vkey(i->led));
    mem_free(vkey);
    return code;
}

static err_code take_lock(island *i, err *e) {
    char path[ISLAND_PATH_MAX];
    err_code code = island_path(path, i->dir, "lock", e);
    if (code == ERR_OK) code = file_lock(&i->lock, path, e);
    if (code == ERR_BUSY)
        return err_set(e, ERR_BUSY, "%s: another polder process uses this island; stop it, or ask it over its API",
                       i->dir);
    return code;
}

static err_code open_parts(island *i, err *e) {
    char path[ISLAND_PATH_MAX];
    err_code code = island_path(path, i->dir, CONFIG_FILE, e);
    if (code != ERR_OK) return code;
    if (access(path, F_OK) != 0) {
        if (errno != ENOENT && errno != ENOTDIR) return err_errno(e, "%s: cannot be reached", path);
        return err_set(e, ERR_NOT_FOUND, "%s: there is no island here; make one with: polder init %s", i->dir, i->dir);
    }
    if (i->mode == ISLAND_WRITE) code = take_lock(i, e);
    if (code == ERR_OK) code = load_config(i, e);
    if (code == ERR_OK) code = check_key_files(i, e);
    if (code == ERR_OK) code = open_ledger(i, e);
    if (code == ERR_OK) code = open_store(i, e);
    if (code == ERR_OK && i->mode == ISLAND_WRITE) code = record_config(i, e);
    if (code == ERR_OK && i->mode == ISLAND_WRITE) code = keys_open(i, e); /* opens quotas on its way */
    if (code == ERR_OK && i->mode == ISLAND_WRITE) code = oidc_open(i, e);
    return code;
}

err_code island_open(island **out, const char *dir, island_mode mode, err *e) {
    *out = NULL;
    island *i = mem_zalloc(sizeof *i);
    if (!i) return err_nomem(e, "the island");
    i->mode = mode;
    i->lock = -1;
    pthread_mutex_init(&i->key_change, NULL);
    pthread_rwlock_init(&i->key_lock, NULL);
    i->dir = mem_strdup(dir);
    err_code code = i->dir ? open_parts(i, e) : err_nomem(e, "the island");
    if (code != ERR_OK) {
        island_close(i);
        return code;
    }
    *out = i;
    return ERR_OK;
}

void island_close(island *i) {
    if (!i) return;
    oidc_close(i);
    quota_close(i);
    keys_close(i);
    ledger_close(i->led);
    store_close(i->st);
    config_free(&i->config);
    if (i->lock >= 0) close(i->lock); /* last: the next writer finds everything closed */
    pthread_mutex_destroy(&i->key_change);
    pthread_rwlock_destroy(&i->key_lock);
    mem_free(i->dir);
    mem_free(i);
}

const char *island_dir(const island *i) {
    return i->dir;
}
const island_config *island_get_config(const island *i) {
    return &i->config;
}
ledger *island_ledger(island *i) {
    return i->led;
}
store *island_store(island *i) {
    return i->st;
}
const ledger_report *island_ledger_report(const island *i) {
    return &i->report;
}
