/* API keys: "pld_<12 characters of id>_<43 characters of secret>".
 *
 * Stored is HMAC-SHA256, under keys/api.key, of the secret together with id, name and role. A slow hash would buy
 * nothing: the secret is not a password but 256 random bits, so there is no list to try. The key outside the database
 * makes a stolen or edited database worthless: nobody can add a row, or raise a role, that a request will match.
 *
 * What a crash leaves must fail closed, and nothing may be done without its record. So the order differs:
 *   add     record "key.created" durable → row. A crash between leaves a record of a key that does not work and whose
 *           text nobody has seen. The other order would leave a working key without a record.
 *   revoke  row marked revoked, durable → dropped from memory → record "key.revoked" → row notes the record's index.
 *           A crash before the record leaves a dead key, and the next opening for writing appends the missing record
 *           (perhaps a second time, never no time). The other order would bring a revoked key back to life. */
#include "island/internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define KEY_PREFIX     "pld_"
#define KEY_PREFIX_LEN 4
#define KEY_ID_LEN     12
#define KEY_SECRET_LEN 43 /* 62^43 > 2^256 */
#define KEY_TEXT_LEN   (KEY_PREFIX_LEN + KEY_ID_LEN + 1 + KEY_SECRET_LEN)
#define KEYS_MAX       10000 /* unrevoked at once */

_Static_assert(KEY_TEXT_LEN < KEY_TEXT_MAX && 2 + KEY_ID_LEN < KEY_ID_MAX, "the header's sizes hold a key");

static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
#define ID_LETTERS     36 /* lower case and digits */
#define SECRET_LETTERS 62

/* ---- roles ----------------------------------------------------------------------------------------------- */

static const char *const role_names[] = {"user", "operator", "auditor", "admin"};

bool role_parse(role *out, const char *s) {
    for (int r = ROLE_USER; r <= ROLE_ADMIN; r++)
        if (s && strcmp(s, role_names[r]) == 0) {
            *out = (role)r;
            return true;
        }
    return false;
}

const char *role_name(role r) {
    return role_names[r];
}

/* ---- the file keys/api.key -------------------------------------------------------------------------------- */

err_code key_file_check(const char *path, err *e) {
    struct stat st;
    if (stat(path, &st) != 0) {
        if (errno == ENOENT) return err_set(e, ERR_NOT_FOUND, "%s: is missing; restore it from a backup", path);
        return err_errno(e, "%s: cannot be reached", path);
    }
    if (!S_ISREG(st.st_mode)) return err_set(e, ERR_INVALID, "%s: is not a regular file", path);
    if (st.st_mode & 077)
        return err_set(e, ERR_DENIED, "%s: others may use this private key (mode %04o); run: chmod 600 %s", path,
                       (unsigned)(st.st_mode & 07777), path);
    return ERR_OK;
}

static err_code read_api_key(island *i, err *e) {
    char path[ISLAND_PATH_MAX];
    buf text = {.max = 2 * API_KEY_LEN + 1};
    err_code code = island_path(path, i->dir, API_KEY_FILE, e);
    if (code == ERR_OK) code = file_read(&text, path, e);
    if (code == ERR_OK || code == ERR_TOO_LARGE) {
        bool ok = code == ERR_OK && text.len == 2 * API_KEY_LEN + 1 && text.ptr[2 * API_KEY_LEN] == '\n' &&
                  hex_decode(i->api_key, API_KEY_LEN, text.ptr, 2 * API_KEY_LEN);
        code = ok ? ERR_OK
                  : err_set(e, ERR_CORRUPT, "%s: is not %d hexadecimal digits and a newline; restore it from a backup",
                            path, 2 * API_KEY_LEN);
    }
    if (text.ptr) mem_wipe(text.ptr, text.cap);
    buf_free(&text);
    i->has_api_key = code == ERR_OK;
    return code;
}

/* ---- the stored hash ------------------------------------------------------------------------------------- */

/* Fixed fields, so that neither length nor content of a name shifts anything, and every check costs the same. The form
 * is in it, so that a key made with a grant cannot be turned into one that needs none. */
static void key_mac(const island *i, const identity *who, int form, const char *secret, uint8_t out[SHA256_LEN]) {
    struct {
        char domain[16], id[KEY_ID_MAX], role[16], name[KEY_NAME_MAX + 1], secret[KEY_SECRET_LEN];
    } m;
    memset(&m, 0, sizeof m);
    memcpy(m.domain, form == 1 ? "polder api key 1" : "polder api key 2", sizeof m.domain);
    memcpy(m.id, who->key_id, strlen(who->key_id));
    memcpy(m.role, role_name(who->role), strlen(role_name(who->role)));
    memcpy(m.name, who->name, strlen(who->name));
    memcpy(m.secret, secret, KEY_SECRET_LEN);
    hmac_sha256(out, i->api_key, API_KEY_LEN, &m, sizeof m);
    mem_wipe(&m, sizeof m);
}

static int compare_rows(const void *a, const void *b) {
    return strcmp(((const key_row *)a)->who.key_id, ((const key_row *)b)->who.key_id);
}

static key_row *find_row(const island *i, const char *id) {
    key_row want;
    text_copy(want.who.key_id, sizeof want.who.key_id, id);
    return i->n_keys ? bsearch(&want, i->keys, i->n_keys, sizeof *i->keys, compare_rows) : NULL;
}

/* ---- checking -------------------------------------------------------------------------------------------- */

static bool all_letters(const char *s, size_t n, size_t kinds) {
    for (size_t i = 0; i < n; i++)
        if (!s[i] || !memchr(letters, s[i], kinds)) return false;
    return true;
}

static bool key_split(const char *text, size_t n, char id[KEY_ID_MAX], char secret[KEY_SECRET_LEN]) {
    if (n != KEY_TEXT_LEN || memcmp(text, KEY_PREFIX, KEY_PREFIX_LEN) != 0) return false;
    const char *p = text + KEY_PREFIX_LEN, *s = p + KEY_ID_LEN + 1;
    if (!all_letters(p, KEY_ID_LEN, ID_LETTERS) || p[KEY_ID_LEN] != '_' ||
        !all_letters(s, KEY_SECRET_LEN, SECRET_LETTERS))
        return false;
    memcpy(id, "k_", 2);
    memcpy(id + 2, p, KEY_ID_LEN);
    id[2 + KEY_ID_LEN] = 0;
    memcpy(secret, s, KEY_SECRET_LEN);
    return true;
}

err_code key_check(island *i, const char *text, size_t n, identity *out, err *e) {
    char id[KEY_ID_MAX] = "", secret[KEY_SECRET_LEN] = {0};
    uint8_t mac[SHA256_LEN];
    key_row row = {.who = {.key_id = "k_", .role = ROLE_USER}}; /* for an unknown id: the same work, never a match */
    bool good = i->has_api_key && key_split(text, n, id, secret);
    pthread_rwlock_rdlock(&i->key_lock);
    const key_row *found = find_row(i, id);
    if (found)
        row = *found;
    else
        good = false;
    pthread_rwlock_unlock(&i->key_lock);
    key_mac(i, &row.who, row.form, secret, mac);
    bool same = bytes_equal_ct(mac, row.mac, SHA256_LEN);
    mem_wipe(secret, sizeof secret);
    if (!good || !same)
        return err_set(e, ERR_UNAUTHENTICATED, "the API key is not valid; polder key add makes a new one");
    *out = row.who;
    return ERR_OK;
}

/* ---- loading --------------------------------------------------------------------------------------------- */

static err_code read_row(store_stmt *q, key_row *out, err *e) {
    size_t n;
    const char *id = store_col_text(q, 0, NULL), *name = store_col_text(q, 1, NULL), *r = store_col_text(q, 2, NULL);
    const void *mac = store_col_blob(q, 3, &n);
    if (!id || !name || strlen(id) >= KEY_ID_MAX || strlen(name) > KEY_NAME_MAX || !role_parse(&out->who.role, r) ||
        !mac || n != SHA256_LEN)
        return err_set(e, ERR_CORRUPT,
                       "store/polder.db: the API key %s has a malformed row; restore the store from a backup",
                       id ? id : "?");
    snprintf(out->who.key_id, sizeof out->who.key_id, "%s", id);
    snprintf(out->who.name, sizeof out->who.name, "%s", name);
    memcpy(out->mac, mac, SHA256_LEN);
    out->form = store_col_int(q, 4) == 1 ? 1 : 2;
    return ERR_OK;
}

static err_code load_rows(store_stmt *q, key_row **rows, size_t *n, err *e) {
    size_t cap = 0;
    err step = {0};
    while (store_step(q, &step)) {
        if (*n == KEYS_MAX) return err_set(e, ERR_TOO_LARGE, "more than %d API keys; revoke some", KEYS_MAX);
        if (*n == cap) {
            cap = cap ? cap * 2 : 16;
            key_row *more = mem_realloc(*rows, cap * sizeof **rows);
            if (!more) return err_nomem(e, "API keys");
            *rows = more;
        }
        memset(&(*rows)[*n], 0, sizeof **rows);
        err_code code = read_row(q, &(*rows)[*n], e);
        if (code != ERR_OK) return code;
        ++*n;
    }
    if (step.code != ERR_OK && e) *e = step;
    return step.code;
}

static err_code load_keys(island *i, const char *where, key_row **rows, size_t *n, err *e) {
    char sql[256];
    store_stmt *q;
    *rows = NULL;
    *n = 0;
    snprintf(sql, sizeof sql, "SELECT id, name, role, mac, form FROM api_keys WHERE %s ORDER BY id", where);
    err_code code = store_query(&q, i->st, sql, NULL, 0, e);
    if (code != ERR_OK) return code;
    code = load_rows(q, rows, n, e);
    store_finish(q);
    if (code != ERR_OK) {
        mem_free(*rows);
        *rows = NULL;
        *n = 0;
    }
    return code;
}

/* ---- grants ------------------------------------------------------------------------------------------------ */

/* Project and floor of a key, from its grant and its project's. False: a grant that must be there is not. */
static bool take_grant(island *i, key_row *row) {
    grant_row g;
    char owner[GRANT_OWNER_MAX], floor[FLOOR_MAX + 1] = "";
    err_code code = meter_grant(i, row->who.key_id, &g, NULL);
    row->who.project[0] = row->who.floor[0] = 0;
    if (code == ERR_NOT_FOUND) return row->form == 1;
    if (code != ERR_OK) return false;
    memcpy(row->who.project, g.project, sizeof row->who.project);
    project_owner(owner, g.project);
    bool ok = !g.project[0] || meter_floor(i, owner, floor);
    floor_join(row->who.floor, i->config.labels_levels, g.floor, floor);
    grant_clear(&g);
    return ok;
}

size_t keys_of_project(const island *i, const char *project) {
    size_t n = 0;
    for (size_t k = 0; k < i->n_keys; k++) n += strcmp(i->keys[k].who.project, project) == 0;
    return n;
}

void keys_refloor(island *i, const char *project) {
    char owner[GRANT_OWNER_MAX], floor[FLOOR_MAX + 1] = "", own[FLOOR_MAX + 1];
    project_owner(owner, project);
    meter_floor(i, owner, floor);
    pthread_rwlock_wrlock(&i->key_lock);
    for (size_t k = 0; k < i->n_keys; k++) {
        identity *who = &i->keys[k].who;
        if (strcmp(who->project, project) != 0 || !meter_floor(i, who->key_id, own)) continue;
        floor_join(who->floor, i->config.labels_levels, own, floor);
    }
    pthread_rwlock_unlock(&i->key_lock);
}

/* A key whose grant was taken away or changed from outside does not work. */
static void take_grants(island *i) {
    size_t kept = 0;
    for (size_t k = 0; k < i->n_keys; k++) {
        if (take_grant(i, &i->keys[k]))
            i->keys[kept++] = i->keys[k];
        else
            log_msg(LOG_ERROR, "island",
                    "the API key %s does not work: its grant or its project is missing from store/polder.db; restore "
                    "the store from a backup",
                    i->keys[k].who.key_id);
    }
    i->n_keys = kept;
}

/* ---- records --------------------------------------------------------------------------------------------- */

static err_code append_key_record(island *i, const identity *by, const char *event, const identity *who,
                                  const grant_row *g, const char *reason, uint64_t *seq, err *e) {
    record *r = NULL;
    err_code code = record_new(&r, event, e);
    if (code != ERR_OK) return code;
    cJSON *b = record_body(r);
    if (!cJSON_AddStringToObject(b, "key", who->key_id) || !cJSON_AddStringToObject(b, "name", who->name) ||
        !cJSON_AddStringToObject(b, "role", role_name(who->role)) ||
        !cJSON_AddStringToObject(b, "by", by ? by->key_id : "local") || (g && !grant_json(b, g, false)) ||
        (reason && !cJSON_AddStringToObject(b, "reason", reason)))
        code = err_nomem(e, "a record");
    if (code == ERR_OK) code = ledger_append(i->led, r, seq, e);
    record_free(r);
    return code;
}

static err_code record_revocation(island *i, const identity *by, const identity *who, const char *reason, err *e) {
    uint64_t seq;
    err_code code = append_key_record(i, by, "key.revoked", who, NULL, reason, &seq, e);
    if (code != ERR_OK) return code;
    return store_write(i->st, "UPDATE api_keys SET revoked_seq = ? WHERE id = ?",
                       (store_val[]){SV_INT((int64_t)seq), SV_TEXT(who->key_id)}, 2, NULL, e);
}

err_code keys_open(island *i, err *e) {
    key_row *rows;
    size_t n;
    err_code code = read_api_key(i, e);
    if (code != ERR_OK) return code;
    code = load_keys(i, "revoked_ms IS NOT NULL AND revoked_seq IS NULL", &rows, &n, e);
    for (size_t k = 0; k < n && code == ERR_OK; k++)
        code = record_revocation(i, NULL, &rows[k].who, "revoked before; this record was missing", e);
    mem_free(rows);
    if (code == ERR_OK) code = quota_open(i, e);
    if (code == ERR_OK) code = load_keys(i, "revoked_ms IS NULL", &i->keys, &i->n_keys, e);
    if (code == ERR_OK) take_grants(i);
    return code;
}

void keys_close(island *i) {
    mem_free(i->keys);
    i->keys = NULL;
    i->n_keys = 0;
    mem_wipe(i->api_key, sizeof i->api_key);
    i->has_api_key = false;
}

/* ---- adding ---------------------------------------------------------------------------------------------- */

/* Even letters from random bytes: bytes that would favour some letters are thrown away. */
static void random_letters(char *out, size_t n, unsigned kinds) {
    uint8_t bytes[64];
    size_t at = 0;
    while (at < n) {
        random_bytes(bytes, sizeof bytes);
        for (size_t k = 0; k < sizeof bytes && at < n; k++)
            if (bytes[k] < 256 / kinds * kinds) out[at++] = letters[bytes[k] % kinds];
    }
    out[n] = 0;
    mem_wipe(bytes, sizeof bytes);
}

static err_code check_key_name(const char *name, err *e) {
    size_t n = strlen(name);
    bool ok = n >= 1 && n <= KEY_NAME_MAX && name[0] != ' ' && name[n - 1] != ' ';
    for (size_t k = 0; k < n && ok; k++) ok = memchr(letters, name[k], SECRET_LETTERS) || strchr("._@ -", name[k]);
    if (!ok)
        return err_set(e, ERR_INVALID,
                       "key name \"%.80s\": it takes 1 to %d letters, digits, spaces inside and . _ @ -", name,
                       KEY_NAME_MAX);
    if (n == 2 + KEY_ID_LEN && strncmp(name, "k_", 2) == 0)
        return err_set(e, ERR_INVALID, "key name \"%s\": it looks like a key's id; choose another", name);
    return ERR_OK;
}

/* The row at `id` or with the unrevoked `name`, with its revocation. ERR_NOT_FOUND. */
static err_code find_key(island *i, const char *id_or_name, identity *who, bool *revoked, err *e) {
    store_stmt *q;
    store_val v = SV_TEXT(id_or_name);
    err_code code = store_query(&q, i->st,
                                "SELECT id, name, role, mac, form, revoked_ms FROM api_keys "
                                "WHERE id = ?1 OR (name = ?1 AND revoked_ms IS NULL) LIMIT 1",
                                &v, 1, e);
    if (code != ERR_OK) return code;
    key_row row = {0};
    err step = {0};
    if (store_step(q, &step)) {
        code = read_row(q, &row, e);
        *revoked = !store_col_is_null(q, 5);
        *who = row.who;
    } else if (step.code != ERR_OK) {
        code = step.code;
        if (e) *e = step;
    } else {
        code = err_set(e, ERR_NOT_FOUND, "there is no API key \"%.80s\"; polder key ls lists them", id_or_name);
    }
    store_finish(q);
    return code;
}

typedef struct new_key { /* what is added, and what was allocated for it before its record */
    key_row row;
    grant_row g;
    meter *m;
    key_row *grown;
    uint64_t seq;
    island *i;
} new_key;

static err_code insert_rows(store *s, void *ctx, err *e) {
    const new_key *k = ctx;
    const identity *who = &k->row.who;
    store_val v[] = {SV_TEXT(who->key_id),
                     SV_TEXT(who->name),
                     SV_TEXT(role_name(who->role)),
                     SV_BLOB(k->row.mac, SHA256_LEN),
                     SV_INT(time_unix_ms()),
                     SV_INT((int64_t)k->seq),
                     SV_INT(k->row.form)};
    err_code code = store_write(s,
                                "INSERT INTO api_keys(id, name, role, mac, created_ms, created_seq, form) "
                                "VALUES(?, ?, ?, ?, ?, ?, ?)",
                                v, 7, NULL, e);
    return code == ERR_OK ? grant_write(k->i, s, &k->m->g, e) : code;
}

/* After the record: the rows, and the copies in memory. */
static err_code insert_key(island *i, const identity *by, new_key *k, err *e) {
    err_code code = store_transaction(i->st, insert_rows, k, e);
    if (code != ERR_OK) {
        /* The record says that there is a key; take it back where that is possible. It does not work in any case. */
        uint64_t ignored;
        append_key_record(i, by, "key.revoked", &k->row.who, NULL, "could not be stored", &ignored, NULL);
        return code;
    }
    meter_install(i, k->m);
    k->m = NULL;
    pthread_rwlock_wrlock(&i->key_lock);
    key_row *old = i->keys;
    if (i->n_keys) memcpy(k->grown, old, i->n_keys * sizeof *old);
    k->grown[i->n_keys] = k->row;
    i->keys = k->grown;
    k->grown = NULL;
    i->n_keys++;
    qsort(i->keys, i->n_keys, sizeof *i->keys, compare_rows);
    pthread_rwlock_unlock(&i->key_lock);
    mem_free(old);
    return ERR_OK;
}

/* Everything that may fail for lack of memory comes before the record. */
static err_code prepare_key(island *i, new_key *k, const grant *g, err *e) {
    char owner[GRANT_OWNER_MAX], floor[FLOOR_MAX + 1] = "";
    err_code code = grant_make(&k->g, i, k->row.who.key_id, NULL, g, e);
    if (code != ERR_OK) return code;
    project_owner(owner, k->g.project);
    if (k->g.project[0] && !meter_floor(i, owner, floor))
        return err_set(e, ERR_NOT_FOUND, "there is no project \"%s\"; polder project ls lists them", k->g.project);
    memcpy(k->row.who.project, k->g.project, sizeof k->row.who.project);
    floor_join(k->row.who.floor, i->config.labels_levels, k->g.floor, floor);
    k->grown = mem_array(i->n_keys + 1, sizeof *k->grown);
    if (!k->grown) return err_nomem(e, "API keys");
    return meter_new(&k->m, &k->g, e);
}

static err_code add_locked(island *i, const identity *by, new_key *k, const grant *g, const char *secret, err *e) {
    identity other;
    bool revoked;
    err_code code = find_key(i, k->row.who.name, &other, &revoked, e);
    if (code == ERR_OK)
        return err_set(e, ERR_EXISTS, "an API key is named \"%s\" already (%s); choose another name or revoke it",
                       other.name, other.key_id);
    if (code != ERR_NOT_FOUND) return code;
    if (i->n_keys >= KEYS_MAX)
        return err_set(e, ERR_TOO_LARGE, "there are %d API keys, the most; revoke some", KEYS_MAX);
    code = prepare_key(i, k, g, e);
    if (code != ERR_OK) return code;
    key_mac(i, &k->row.who, k->row.form, secret, k->row.mac);
    code = append_key_record(i, by, "key.created", &k->row.who, &k->m->g, NULL, &k->seq, e);
    return code == ERR_OK ? insert_key(i, by, k, e) : code;
}

err_code island_need_write(const island *i, err *e) {
    if (i->mode == ISLAND_WRITE) return ERR_OK;
    return err_set(e, ERR_DENIED, "%s: is open for reading only", i->dir);
}

/* Two keys for a policy are worth nothing where the holder of one makes the other. */
static err_code check_maker(const island *i, const identity *by, role r, err *e) {
    if (!i->config.policy_two_keys || r != ROLE_ADMIN || !by || strncmp(by->key_id, "k_", 2) != 0) return ERR_OK;
    return err_set(e, ERR_DENIED,
                   "API key: this island wants two keys for a policy (policy.two_keys in island.yaml), so no holder of "
                   "one makes another of the role admin; polder key add on the server does");
}

err_code key_add_with(island *i, const identity *by, const char *name, role r, const grant *g, char text[KEY_TEXT_MAX],
                      identity *out, err *e) {
    static const grant nothing;
    text[0] = 0;
    err_code code = island_need_write(i, e);
    if (code == ERR_OK) code = check_key_name(name, e);
    if (code == ERR_OK) code = check_maker(i, by, r, e);
    if (code != ERR_OK) return code;
    char id[KEY_ID_LEN + 1], secret[KEY_SECRET_LEN + 1];
    random_letters(id, KEY_ID_LEN, ID_LETTERS);
    random_letters(secret, KEY_SECRET_LEN, SECRET_LETTERS);
    new_key k = {.row = {.who = {.role = r}, .form = 2}, .i = i};
    snprintf(k.row.who.key_id, sizeof k.row.who.key_id, "k_%s", id);
    snprintf(k.row.who.name, sizeof k.row.who.name, "%s", name);
    pthread_mutex_lock(&i->key_change);
    code = add_locked(i, by, &k, g ? g : &nothing, secret, e);
    pthread_mutex_unlock(&i->key_change);
    grant_clear(&k.g);
    meter_free(k.m);
    mem_free(k.grown);
    if (code == ERR_OK) {
        snprintf(text, KEY_TEXT_MAX, KEY_PREFIX "%s_%s", id, secret);
        if (out) *out = k.row.who;
    }
    mem_wipe(secret, sizeof secret);
    return code;
}

err_code key_add(island *i, const identity *by, const char *name, role r, char text[KEY_TEXT_MAX], identity *out,
                 err *e) {
    return key_add_with(i, by, name, r, NULL, text, out, e);
}

/* ---- changing ---------------------------------------------------------------------------------------------- */

typedef struct grant_change {
    island *i;
    const grant_row *g;
} grant_change;

static err_code write_change(store *s, void *ctx, err *e) {
    const grant_change *c = ctx;
    return grant_write(c->i, s, c->g, e);
}

/* What the key has now; nothing for one that was made before there were grants. */
static err_code current_grant(island *i, const char *id, grant_row *out, err *e) {
    err_code code = meter_grant(i, id, out, e);
    if (code != ERR_NOT_FOUND) return code;
    return grant_make(out, i, id, NULL, &(grant){0}, e);
}

static err_code apply_change(island *i, const identity *by, new_key *k, err *e) {
    err_code code = append_key_record(i, by, "key.changed", &k->row.who, &k->m->g, NULL, &k->seq, e);
    if (code == ERR_OK) code = store_transaction(i->st, write_change, &(grant_change){i, &k->m->g}, e);
    if (code != ERR_OK) return code;
    meter_install(i, k->m);
    k->m = NULL;
    pthread_rwlock_wrlock(&i->key_lock);
    key_row *row = find_row(i, k->row.who.key_id);
    if (row) row->who = k->row.who;
    pthread_rwlock_unlock(&i->key_lock);
    return ERR_OK;
}

static err_code change_locked(island *i, const identity *by, const char *id_or_name, const grant *g, err *e) {
    new_key k = {.i = i};
    grant_row before = {0};
    char owner[GRANT_OWNER_MAX], floor[FLOOR_MAX + 1] = "";
    bool revoked = false;
    err_code code = find_key(i, id_or_name, &k.row.who, &revoked, e);
    if (code == ERR_OK && (revoked || !find_row(i, k.row.who.key_id)))
        code = err_set(e, ERR_NOT_FOUND, "the API key %s is revoked, or does not work", k.row.who.key_id);
    if (code == ERR_OK) code = current_grant(i, k.row.who.key_id, &before, e);
    if (code == ERR_OK) code = grant_make(&k.g, i, k.row.who.key_id, &before, g, e);
    if (code == ERR_OK) {
        project_owner(owner, k.g.project);
        if (k.g.project[0] && !meter_floor(i, owner, floor))
            code = err_set(e, ERR_NOT_FOUND, "there is no project \"%s\"; polder project ls lists them", k.g.project);
    }
    if (code == ERR_OK) {
        memcpy(k.row.who.project, k.g.project, sizeof k.row.who.project);
        floor_join(k.row.who.floor, i->config.labels_levels, k.g.floor, floor);
        code = meter_new(&k.m, &k.g, e);
    }
    if (code == ERR_OK) code = apply_change(i, by, &k, e);
    grant_clear(&before);
    grant_clear(&k.g);
    meter_free(k.m);
    return code;
}

err_code key_change(island *i, const identity *by, const char *id_or_name, const grant *g, err *e) {
    err_code code = island_need_write(i, e);
    if (code != ERR_OK) return code;
    pthread_mutex_lock(&i->key_change);
    code = change_locked(i, by, id_or_name, g, e);
    pthread_mutex_unlock(&i->key_change);
    return code;
}

/* ---- revoking and listing --------------------------------------------------------------------------------- */

static void forget_key(island *i, const char *id) {
    pthread_rwlock_wrlock(&i->key_lock);
    key_row *row = find_row(i, id);
    if (row) {
        size_t after = i->n_keys - (size_t)(row - i->keys) - 1;
        memmove(row, row + 1, after * sizeof *row);
        i->n_keys--;
    }
    pthread_rwlock_unlock(&i->key_lock);
}

static err_code revoke_locked(island *i, const identity *by, const char *id_or_name, err *e) {
    identity who;
    bool revoked = false;
    err_code code = find_key(i, id_or_name, &who, &revoked, e);
    if (code != ERR_OK) return code;
    if (revoked) return err_set(e, ERR_NOT_FOUND, "the API key %s is revoked already", who.key_id);
    code = store_write(i->st, "UPDATE api_keys SET revoked_ms = ? WHERE id = ?",
                       (store_val[]){SV_INT(time_unix_ms()), SV_TEXT(who.key_id)}, 2, NULL, e);
    if (code != ERR_OK) {
        err_prefix(e, "the API key %s is not revoked", who.key_id);
        return code;
    }
    forget_key(i, who.key_id);
    meter_drop(i, who.key_id);
    code = record_revocation(i, by, &who, NULL, e);
    if (code != ERR_OK)
        err_prefix(
            e,
            "the API key %s is revoked, but its record is not written yet and follows when the island is opened next",
            who.key_id);
    return code;
}

err_code key_revoke(island *i, const identity *by, const char *id_or_name, err *e) {
    err_code code = island_need_write(i, e);
    if (code != ERR_OK) return code;
    pthread_mutex_lock(&i->key_change);
    code = revoke_locked(i, by, id_or_name, e);
    pthread_mutex_unlock(&i->key_change);
    return code;
}

static bool list_grant(const island *i, store_stmt *q, cJSON *k) {
    grant_row g;
    if (store_col_is_null(q, 5)) return true;
    err_code code = grant_read(i, q, 5, &g, NULL);
    if (code == ERR_CORRUPT) return cJSON_AddBoolToObject(k, "damaged", true);
    bool ok = code == ERR_OK && grant_json(k, &g, false);
    grant_clear(&g);
    return ok;
}

static bool list_row(const island *i, store_stmt *q, cJSON *keys) {
    cJSON *k = cJSON_CreateObject();
    if (!k || !cJSON_AddItemToArray(keys, k)) {
        cJSON_Delete(k);
        return false;
    }
    char created[32], revoked[32];
    const char *id = store_col_text(q, 0, NULL), *name = store_col_text(q, 1, NULL), *r = store_col_text(q, 2, NULL);
    if (!id || !name || !r) return false;
    time_rfc3339(created, store_col_int(q, 3));
    time_rfc3339(revoked, store_col_int(q, 4));
    return cJSON_AddStringToObject(k, "id", id) && cJSON_AddStringToObject(k, "name", name) &&
           cJSON_AddStringToObject(k, "role", r) && cJSON_AddStringToObject(k, "created", created) &&
           (store_col_is_null(q, 4) ? cJSON_AddNullToObject(k, "revoked")
                                    : cJSON_AddStringToObject(k, "revoked", revoked)) &&
           list_grant(i, q, k);
}

err_code key_list(island *i, cJSON **out, err *e) {
    *out = NULL;
    store_stmt *q;
    err_code code = store_query(&q, i->st,
                                "SELECT k.id, k.name, k.role, k.created_ms, k.revoked_ms, " GRANT_COLUMNS
                                " FROM api_keys k LEFT JOIN grants g ON g.owner = k.id ORDER BY k.created_ms, k.id",
                                NULL, 0, e);
    if (code != ERR_OK) return code;
    cJSON *o = cJSON_CreateObject(), *keys = o ? cJSON_AddArrayToObject(o, "keys") : NULL;
    if (!keys) code = err_nomem(e, "the list of API keys");
    err step = {0};
    while (code == ERR_OK && store_step(q, &step))
        if (!list_row(i, q, keys)) code = err_nomem(e, "the list of API keys");
    if (code == ERR_OK && step.code != ERR_OK) {
        code = step.code;
        if (e) *e = step;
    }
    store_finish(q);
    if (code == ERR_OK)
        *out = o;
    else
        cJSON_Delete(o);
    return code;
}
