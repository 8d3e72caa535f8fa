/* Tokens of an OIDC issuer, beside API keys.
 *
 * The way of a token: cache → form and claims → signature by the issuer's keys → project → cache. The keys come from a
 * file, looked at again when it changes, or from an address: fetched for the first token, for a kid that is not known
 * (once a minute at most, whatever tokens say), and when they are an hour old. What cannot be fetched leaves the keys
 * that are there; without any, no token is taken. A change of the keys empties the cache, so that a key that the issuer
 * has withdrawn lets nobody in. */
#include "island/oidc.h"

#include "base/mem.h"
#include "base/sys.h"
#include "island/internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CACHE_SETS 256
#define CACHE_WAYS 4
#define MAPPINGS   200
#define ID_LETTERS "abcdefghijklmnopqrstuvwxyz0123456789"
#define FAR_AWAY_S (-(INT64_C(1) << 40))

typedef struct mapping {
    char *value; /* owned */
    char project[PROJECT_NAME_MAX + 1];
} mapping;

typedef struct verified { /* a token that was good */
    uint8_t digest[SHA256_LEN];
    uint64_t generation; /* of the keys that said so; 0: the entry is free */
    int64_t exp_s, used_s;
    char key_id[KEY_ID_MAX];
    char project[PROJECT_NAME_MAX + 1];
} verified;

typedef struct oidc {
    bool is_url;
    char path[ISLAND_PATH_MAX]; /* of the file */
    char host[300];             /* of the address */
    mapping *map;
    size_t n_map;
    pthread_rwlock_t lock; /* guards keys */
    jwk_set *keys;         /* NULL: none yet */
    atomic_uint_least64_t generation;
    pthread_mutex_t renewing;   /* guards what follows */
    uint8_t digest[SHA256_LEN]; /* of the text that keys were read from */
    struct timespec mtime;
    int64_t size;
    atomic_int_least64_t tried_s, fetched_s; /* monotonic */
    pthread_mutex_t cache_lock;
    verified *cache; /* CACHE_SETS * CACHE_WAYS */
} oidc;

/* ---- configuration ----------------------------------------------------------------------------------------- */

/* The next "value=project" of a list; false at the end. ERR_USAGE in *code where it is none. */
static bool next_mapping(const char **at, const char **value, size_t *value_len, char project[PROJECT_NAME_MAX + 1],
                         err_code *code, err *e) {
    const char *s = *at;
    *code = ERR_OK;
    if (!s || !s[strspn(s, " \t,")]) return false;
    size_t n = strcspn(s, ",");
    *at = s[n] ? s + n + 1 : NULL;
    while (n && (*s == ' ' || *s == '\t')) s++, n--;
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t')) n--;
    size_t eq = n;
    while (eq && s[eq - 1] != '=') eq--; /* behind the last one: values may have some */
    const char *name = s + eq;
    size_t len = n - eq, plain = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-");
    if (eq < 2 || len < 1 || len > PROJECT_NAME_MAX || plain < len) {
        *code =
            err_set(e, ERR_USAGE, "oidc.projects: \"%.*s\" is not of the form value=project", n > 80 ? 80 : (int)n, s);
        return true;
    }
    *value = s;
    *value_len = eq - 1;
    snprintf(project, PROJECT_NAME_MAX + 1, "%.*s", (int)len, name);
    return true;
}

static err_code check_projects(const char *text, err *e) {
    const char *at = text, *value;
    char project[PROJECT_NAME_MAX + 1];
    size_t n = 0, len;
    err_code code = ERR_OK;
    while (code == ERR_OK && next_mapping(&at, &value, &len, project, &code, e)) n++;
    if (code != ERR_OK) return code;
    if (n == 0)
        return err_set(e, ERR_USAGE, "oidc.projects: is empty, so no token would be taken; write value=project, …");
    return n <= MAPPINGS ? ERR_OK : err_set(e, ERR_USAGE, "oidc.projects: more than %d entries", MAPPINGS);
}

err_code oidc_check_config(const island_config *c, const char **key, err *e) {
    err_code code = ERR_OK;
    if (!*c->oidc_issuer) return ERR_OK;
    *key = "audience";
    if (!*c->oidc_audience)
        return err_set(e, ERR_USAGE,
                       "oidc.audience: is empty; name what a token's aud must contain, or tokens that were made for "
                       "others would be taken");
    *key = "claim";
    if (!*c->oidc_claim)
        return err_set(e, ERR_USAGE, "oidc.claim: is empty; name the claim that decides on the project");
    *key = "jwks";
    if (!*c->oidc_jwks)
        return err_set(e, ERR_USAGE, "oidc.jwks: is empty; name the file or the https address of the issuer's keys");
    if (oidc_is_url(c->oidc_jwks)) code = oidc_url_check(c->oidc_jwks, NULL, 0, e);
    if (code != ERR_OK) {
        err_prefix(e, "oidc.jwks");
        return code;
    }
    *key = "projects";
    return check_projects(c->oidc_projects, e);
}

static err_code read_map(oidc *o, const char *text, err *e) {
    const char *at = text, *value;
    char project[PROJECT_NAME_MAX + 1];
    size_t len;
    err_code code = ERR_OK;
    o->map = mem_array(MAPPINGS, sizeof *o->map);
    if (!o->map) return err_nomem(e, "the projects of oidc");
    while (next_mapping(&at, &value, &len, project, &code, e)) {
        if (code != ERR_OK) return code;
        mapping *m = &o->map[o->n_map];
        m->value = mem_strndup(value, len);
        if (!m->value) return err_nomem(e, "the projects of oidc");
        memcpy(m->project, project, sizeof project);
        o->n_map++;
    }
    return ERR_OK;
}

err_code oidc_open(island *i, err *e) {
    const island_config *c = &i->config;
    if (!*c->oidc_issuer) return ERR_OK;
    oidc *o = i->oidc = mem_zalloc(sizeof *o);
    if (!o) return err_nomem(e, "oidc");
    pthread_rwlock_init(&o->lock, NULL);
    pthread_mutex_init(&o->renewing, NULL);
    pthread_mutex_init(&o->cache_lock, NULL);
    atomic_init(&o->generation, 1);
    atomic_init(&o->tried_s, FAR_AWAY_S);
    atomic_init(&o->fetched_s, FAR_AWAY_S);
    o->cache = mem_array(CACHE_SETS * CACHE_WAYS, sizeof *o->cache);
    if (!o->cache) return err_nomem(e, "oidc");
    o->is_url = oidc_is_url(c->oidc_jwks);
    err_code code = read_map(o, c->oidc_projects, e);
    if (code != ERR_OK) return code;
    if (o->is_url) return oidc_url_check(c->oidc_jwks, o->host, sizeof o->host, e);
    if (c->oidc_jwks[0] != '/') return island_path(o->path, i->dir, c->oidc_jwks, e);
    if (strlen(c->oidc_jwks) >= sizeof o->path) return err_set(e, ERR_USAGE, "oidc.jwks: the path is too long");
    snprintf(o->path, sizeof o->path, "%s", c->oidc_jwks);
    return ERR_OK;
}

void oidc_close(island *i) {
    oidc *o = i->oidc;
    if (!o) return;
    for (size_t k = 0; k < o->n_map; k++) mem_free(o->map[k].value);
    mem_free(o->map);
    mem_free(o->cache);
    jwk_set_free(o->keys);
    pthread_rwlock_destroy(&o->lock);
    pthread_mutex_destroy(&o->renewing);
    pthread_mutex_destroy(&o->cache_lock);
    mem_free(o);
    i->oidc = NULL;
}

bool oidc_configured(const island *i) {
    return i->oidc != NULL;
}

/* ---- the issuer's keys ------------------------------------------------------------------------------------- */

/* Puts new keys in the place of the old ones; the same text changes nothing. */
static err_code take_keys(oidc *o, const buf *text, const char *what, err *e) {
    uint8_t digest[SHA256_LEN];
    jwk_set *fresh;
    sha256_of(digest, buf_str(text), text->len);
    if (o->keys && memcmp(digest, o->digest, SHA256_LEN) == 0) return ERR_OK;
    err_code code = jwk_set_parse(&fresh, buf_str(text), text->len, what, e);
    if (code != ERR_OK) return code;
    pthread_rwlock_wrlock(&o->lock);
    jwk_set *old = o->keys;
    o->keys = fresh;
    atomic_fetch_add(&o->generation, 1);
    pthread_rwlock_unlock(&o->lock);
    jwk_set_free(old);
    memcpy(o->digest, digest, SHA256_LEN);
    size_t n = jwk_set_count(fresh);
    log_msg(LOG_INFO, "oidc", "%s: %zu key%s", what, n, n == 1 ? "" : "s");
    return ERR_OK;
}

/* A file that has changed since it was read. What cannot be read is tried again when it changes once more. */
static err_code look_at_file(oidc *o, err *e) {
    struct stat st;
    if (stat(o->path, &st) != 0) return err_errno(e, "%s: cannot be reached", o->path);
    if (!S_ISREG(st.st_mode)) return err_set(e, ERR_INVALID, "%s: is not a regular file", o->path);
    if (o->size == (int64_t)st.st_size + 1 && memcmp(&o->mtime, &st.st_mtim, sizeof o->mtime) == 0) return ERR_OK;
    o->size = (int64_t)st.st_size + 1; /* 0: never read */
    o->mtime = st.st_mtim;
    buf text = {.max = JWKS_BYTES_MAX};
    err_code code = file_read(&text, o->path, e);
    if (code == ERR_OK) code = take_keys(o, &text, o->path, e);
    if (code == ERR_NOMEM || code == ERR_IO) o->size = 0; /* not the file's fault: it is read again, changed or not */
    buf_free(&text);
    return code;
}

/* That the address is asked is said before the first byte goes. */
static err_code record_egress(island *i, err *e) {
    const oidc *o = i->oidc;
    record *r = NULL;
    uint64_t seq;
    err_code code = record_new(&r, "egress", e);
    if (code != ERR_OK) return code;
    cJSON *b = record_body(r);
    if (!cJSON_AddStringToObject(b, "purpose", "oidc.jwks") || !cJSON_AddStringToObject(b, "host", o->host) ||
        !cJSON_AddStringToObject(b, "address", i->config.oidc_jwks) ||
        !cJSON_AddStringToObject(b, "sends", "a request for the issuer's public keys") ||
        !cJSON_AddStringToObject(b, "by", "oidc"))
        code = err_nomem(e, "a record");
    if (code == ERR_OK) code = ledger_append(i->led, r, &seq, e);
    record_free(r);
    return code;
}

static err_code fetch_keys(island *i, int64_t now_s, err *e) {
    oidc *o = i->oidc;
    buf text = {.max = JWKS_BYTES_MAX};
    err_code code = record_egress(i, e);
    if (code == ERR_OK) code = oidc_fetch(i->config.oidc_jwks, &text, e);
    if (code == ERR_OK) code = take_keys(o, &text, i->config.oidc_jwks, e);
    if (code == ERR_OK) atomic_store(&o->fetched_s, now_s);
    buf_free(&text);
    return code;
}

/* Look again for keys, as often as is allowed: a file every second, an address every minute. */
static void renew(island *i, int64_t now_s) {
    oidc *o = i->oidc;
    err e = {0};
    err_code code = ERR_OK;
    int64_t pause = o->is_url ? OIDC_FETCH_MIN_S : 1;
    pthread_mutex_lock(&o->renewing); /* who comes second waits, and finds what the first has brought */
    if (now_s - atomic_load(&o->tried_s) >= pause) {
        atomic_store(&o->tried_s, now_s);
        code = o->is_url ? fetch_keys(i, now_s, &e) : look_at_file(o, &e);
    }
    bool kept = o->keys != NULL;
    pthread_mutex_unlock(&o->renewing);
    if (code != ERR_OK)
        log_msg(LOG_WARN, "oidc", "%s (%s)", e.msg, kept ? "the keys from before stay" : "no token is taken");
}

/* An address that was never fetched from waits for a token that claims to be for this island. */
static bool keys_are_due(const oidc *o, int64_t now_s) {
    if (o->is_url && atomic_load(&o->fetched_s) == FAR_AWAY_S) return false;
    if (now_s - atomic_load(&o->tried_s) < (o->is_url ? OIDC_FETCH_MIN_S : 1)) return false;
    return !o->is_url || now_s - atomic_load(&o->fetched_s) >= OIDC_FETCH_MAX_S;
}

/* ERR_NOT_FOUND also where there are no keys at all. *generation tells which keys decided. */
static err_code verify(oidc *o, const jwt *t, uint64_t *generation, bool *any, err *e) {
    pthread_rwlock_rdlock(&o->lock);
    *any = o->keys != NULL;
    *generation = atomic_load(&o->generation);
    err_code code = o->keys ? jwt_verify(t, o->keys, e) : err_set(e, ERR_NOT_FOUND, "no keys");
    pthread_rwlock_unlock(&o->lock);
    return code;
}

static err_code verify_with_renewal(island *i, const jwt *t, int64_t now_s, uint64_t *generation, err *e) {
    bool any = false;
    err_code code = verify(i->oidc, t, generation, &any, e);
    if (code == ERR_NOT_FOUND) {
        renew(i, now_s);
        code = verify(i->oidc, t, generation, &any, e);
    }
    if (code != ERR_NOT_FOUND) return code;
    if (!any)
        return err_set(e, ERR_UNAVAILABLE,
                       "the keys of the tokens' issuer could not be read; the server's log says why");
    return err_set(e, ERR_UNAUTHENTICATED, "bearer token: its key is none of the issuer's");
}

/* ---- who it is --------------------------------------------------------------------------------------------- */

static bool claim_has(const cJSON *claim, const char *value) {
    const cJSON *v;
    if (cJSON_IsString(claim)) return strcmp(claim->valuestring, value) == 0;
    if (!cJSON_IsArray(claim)) return false;
    cJSON_ArrayForEach(v, claim) if (cJSON_IsString(v) && strcmp(v->valuestring, value) == 0) return true;
    return false;
}

/* The claim of that name, or along its dots: "realm_access.roles". */
static const cJSON *find_claim(const cJSON *claims, const char *name) {
    const cJSON *c = cJSON_GetObjectItemCaseSensitive(claims, name);
    char step[101];
    while (!c && cJSON_IsObject(claims)) {
        size_t n = strcspn(name, ".");
        snprintf(step, sizeof step, "%.*s", (int)n, name);
        claims = cJSON_GetObjectItemCaseSensitive(claims, step);
        if (!name[n]) return claims;
        name += n + 1;
    }
    return c;
}

/* The first entry of oidc.projects whose value the claim has: the owner's order decides, not the token's. */
static err_code find_project(const island *i, const jwt *t, char project[PROJECT_NAME_MAX + 1], err *e) {
    const oidc *o = i->oidc;
    const cJSON *claim = find_claim(t->claims, i->config.oidc_claim);
    for (size_t k = 0; k < o->n_map; k++) {
        if (!claim_has(claim, o->map[k].value)) continue;
        memcpy(project, o->map[k].project, PROJECT_NAME_MAX + 1);
        return ERR_OK;
    }
    return err_set(e, ERR_DENIED, "bearer token: no value of its claim \"%s\" means a project here",
                   i->config.oidc_claim);
}

/* "o_" and 12 letters of a keyed hash: the same person has the same handle, and nobody without the key can try names.
 */
static void subject_id(const island *i, const jwt *t, char out[KEY_ID_MAX]) {
    uint8_t mac[SHA256_LEN], iss[SHA256_LEN], sub[SHA256_LEN], m[16 + 2 * SHA256_LEN] = "polder subject 1";
    const char *s = cJSON_GetObjectItemCaseSensitive(t->claims, "sub")->valuestring;
    sha256_of(iss, i->config.oidc_issuer, strlen(i->config.oidc_issuer));
    sha256_of(sub, s, strlen(s));
    memcpy(m + 16, iss, SHA256_LEN);
    memcpy(m + 16 + SHA256_LEN, sub, SHA256_LEN);
    hmac_sha256(mac, i->api_key, API_KEY_LEN, m, sizeof m);
    uint64_t v = be_get(mac, 8);
    snprintf(out, KEY_ID_MAX, "o_");
    for (int k = 2; k < 14; k++, v /= 36) out[k] = ID_LETTERS[v % 36];
    out[14] = 0;
}

/* ---- the cache --------------------------------------------------------------------------------------------- */

static verified *cache_set(oidc *o, const uint8_t digest[SHA256_LEN]) {
    return o->cache + (size_t)digest[0] * CACHE_WAYS;
}

_Static_assert(CACHE_SETS == 256, "a byte of the digest chooses the set");

static bool cache_find(oidc *o, const uint8_t digest[SHA256_LEN], int64_t now_s, verified *out) {
    bool found = false;
    uint64_t generation = atomic_load(&o->generation);
    pthread_mutex_lock(&o->cache_lock);
    verified *set = cache_set(o, digest);
    for (int k = 0; k < CACHE_WAYS && !found; k++) {
        if (set[k].generation != generation || now_s >= set[k].exp_s + JWT_LEEWAY_S ||
            memcmp(set[k].digest, digest, SHA256_LEN) != 0)
            continue;
        set[k].used_s = now_s;
        *out = set[k];
        found = true;
    }
    pthread_mutex_unlock(&o->cache_lock);
    return found;
}

static void cache_put(oidc *o, const verified *v) {
    pthread_mutex_lock(&o->cache_lock);
    verified *set = cache_set(o, v->digest), *place = set;
    for (int k = 0; k < CACHE_WAYS; k++) {
        bool worse = set[k].generation != v->generation || set[k].used_s < place->used_s;
        if (place->generation == v->generation && worse) place = &set[k];
    }
    *place = *v;
    pthread_mutex_unlock(&o->cache_lock);
}

/* ---- checking ---------------------------------------------------------------------------------------------- */

static err_code check_anew(island *i, const char *token, size_t n, oidc_time t, verified *out, err *e) {
    jwt j;
    err_code code = jwt_parse(&j, token, n, e);
    if (code == ERR_OK)
        code = jwt_check_claims(&j, i->config.oidc_issuer, i->config.oidc_audience, t.unix_s, &out->exp_s, e);
    /* only now: what does not even claim to be for this island makes nobody fetch keys */
    if (code == ERR_OK) code = verify_with_renewal(i, &j, t.mono_s, &out->generation, e);
    if (code == ERR_OK) code = find_project(i, &j, out->project, e);
    if (code == ERR_OK) {
        subject_id(i, &j, out->key_id);
        out->used_s = t.unix_s;
        cache_put(i->oidc, out);
    }
    jwt_clear(&j);
    return code;
}

err_code oidc_check_at(island *i, const char *token, size_t n, oidc_time t, identity *out, err *e) {
    oidc *o = i->oidc;
    verified v = {0};
    char owner[GRANT_OWNER_MAX];
    if (!o) return err_set(e, ERR_UNAUTHENTICATED, "bearer token: this island takes none");
    if (n > JWT_BYTES_MAX) return err_set(e, ERR_UNAUTHENTICATED, "bearer token: it is too long");
    if (keys_are_due(o, t.mono_s)) renew(i, t.mono_s);
    sha256_of(v.digest, token, n);
    bool seen = cache_find(o, v.digest, t.unix_s, &v);
    if (!seen) {
        err_code code = check_anew(i, token, n, t, &v, e);
        if (code != ERR_OK) return code;
    }
    memset(out, 0, sizeof *out);
    project_owner(owner, v.project);
    if (!meter_floor(i, owner, out->floor)) {
        if (!seen) log_msg(LOG_WARN, "oidc", "oidc.projects names the project %s, which is not there", v.project);
        return err_set(e, ERR_DENIED, "bearer token: it means the project %s, which is not there", v.project);
    }
    out->role = ROLE_USER;
    snprintf(out->key_id, sizeof out->key_id, "%s", v.key_id);
    snprintf(out->name, sizeof out->name, "oidc");
    snprintf(out->project, sizeof out->project, "%s", v.project);
    return ERR_OK;
}

err_code oidc_check(island *i, const char *token, size_t n, identity *out, err *e) {
    oidc_time t = {.mono_s = (int64_t)(time_mono_ns() / 1000000000u), .unix_s = time_unix_ms() / 1000};
    return oidc_check_at(i, token, n, t, out, e);
}
