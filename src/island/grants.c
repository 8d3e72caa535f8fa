/* Grants: checking, storing, sealing.
 *
 * A stored grant carries an HMAC under keys/api.key over all of its fields: whoever can only edit the database cannot
 * raise a limit or lower a floor. (They can put an older row back; the ledger then tells another story.) */
#include "island/internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define MODEL_CHARS       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/-"
#define GRANT_NAME_MAX    64
#define GRANT_MODELS_MOST 64

static const char *const limit_names[] = {
#define X(constant, name, words) #name,
    LIMIT_TABLE(X)
#undef X
};
static const char *const limit_texts[] = {
#define X(constant, name, words) words,
    LIMIT_TABLE(X)
#undef X
};

const char *limit_name(limit_kind k) {
    return limit_names[k];
}
const char *limit_words(limit_kind k) {
    return limit_texts[k];
}
bool limit_is_eur(limit_kind k) {
    return k == LIMIT_EUR_DAY || k == LIMIT_EUR_MONTH;
}

void project_owner(char out[GRANT_OWNER_MAX], const char *project) {
    snprintf(out, GRANT_OWNER_MAX, "p:%s", project);
}

static bool owner_is_project(const char *owner) {
    return owner[0] == 'p' && owner[1] == ':';
}

/* ---- words of a list --------------------------------------------------------------------------------------- */

/* The next word of a list with commas, blanks around it cut: false at the end. An empty word has *n == 0. */
static bool next_word(const char **at, const char **word, size_t *n) {
    const char *s = *at;
    if (!s) return false;
    size_t len = strcspn(s, ",");
    *at = s[len] ? s + len + 1 : NULL;
    while (len && (*s == ' ' || *s == '\t')) s++, len--;
    while (len && (s[len - 1] == ' ' || s[len - 1] == '\t')) len--;
    *word = s;
    *n = len;
    return true;
}

/* ---- floors ------------------------------------------------------------------------------------------------ */

static const char *const flag_names[] = {"personal", "special-category", "credential"};
enum { N_FLAGS = sizeof flag_names / sizeof flag_names[0] };

typedef struct floor_parts {
    const char *level; /* points into the list of levels; NULL: none */
    size_t len;
    int place; /* in the list; -1: none */
    unsigned flags;
} floor_parts;

static bool find_level(const char *levels, const char *word, size_t n, floor_parts *f) {
    const char *at = levels, *w;
    size_t len;
    for (int k = 0; next_word(&at, &w, &len); k++) {
        if (len != n || memcmp(w, word, n) != 0) continue;
        f->level = w;
        f->len = len;
        f->place = k;
        return true;
    }
    return false;
}

/* False: *bad is the word that is not known, or the second level. */
static bool floor_parse(floor_parts *f, const char *levels, const char *text, const char **bad, size_t *bad_len) {
    const char *at = text;
    size_t n;
    *f = (floor_parts){.place = -1};
    if (!text[strspn(text, " \t")]) return true;
    while (next_word(&at, bad, &n)) {
        unsigned flag = 0;
        *bad_len = n;
        for (unsigned k = 0; k < N_FLAGS; k++)
            if (strlen(flag_names[k]) == n && memcmp(flag_names[k], *bad, n) == 0) flag = 1u << k;
        f->flags |= flag;
        if (flag) continue;
        if (f->level || n == 0 || !find_level(levels, *bad, n, f)) return false;
    }
    return true;
}

static void floor_write(char out[FLOOR_MAX + 1], const floor_parts *f) {
    size_t at = 0;
    out[0] = 0;
    if (f->level) at += (size_t)snprintf(out, FLOOR_MAX + 1, "%.*s", (int)f->len, f->level);
    for (unsigned k = 0; k < N_FLAGS; k++)
        if (f->flags & 1u << k && at < FLOOR_MAX)
            at += (size_t)snprintf(out + at, FLOOR_MAX + 1 - at, "%s%s", at ? ", " : "", flag_names[k]);
}

err_code floor_check(char out[FLOOR_MAX + 1], const char *levels, const char *text, err *e) {
    floor_parts f;
    const char *bad = "";
    size_t n = 0;
    if (strlen(text) > FLOOR_MAX) return err_set(e, ERR_INVALID, "floor: it has more than %d bytes", FLOOR_MAX);
    if (!floor_parse(&f, levels, text, &bad, &n)) {
        if (f.level)
            return err_set(e, ERR_INVALID, "floor \"%.95s\": \"%.*s\" is one level too many; name one of %s", text,
                           (int)n, bad, levels);
        return err_set(e, ERR_INVALID,
                       "floor \"%.95s\": \"%.*s\" is no level here and no flag; levels: %s; flags: personal, "
                       "special-category, credential",
                       text, (int)n, bad, levels);
    }
    floor_write(out, &f);
    return ERR_OK;
}

void floor_join(char out[FLOOR_MAX + 1], const char *levels, const char *a, const char *b) {
    floor_parts fa, fb;
    const char *bad;
    size_t n;
    bool known_a = floor_parse(&fa, levels, a, &bad, &n), known_b = floor_parse(&fb, levels, b, &bad, &n);
    if (!known_a || !known_b) {
        snprintf(out, FLOOR_MAX + 1, "%s", known_a ? b : a);
        return;
    }
    floor_parts join = fa.place >= fb.place ? fa : fb;
    join.flags = fa.flags | fb.flags;
    floor_write(out, &join);
}

/* ---- model names ------------------------------------------------------------------------------------------- */

static err_code models_check(char **out, const char *text, err *e) {
    buf b = {.max = GRANT_MODELS_MAX};
    const char *at = text[strspn(text, " \t")] ? text : NULL, *w;
    size_t n;
    err_code code = ERR_OK;
    for (int k = 0; code == ERR_OK && next_word(&at, &w, &n); k++) {
        size_t plain = strspn(w, MODEL_CHARS);
        if (n == 0 || n > GRANT_NAME_MAX + 1 || (plain < n && !(plain == n - 1 && w[n - 1] == '*')))
            code =
                err_set(e, ERR_INVALID,
                        "allowed models: \"%.*s\" is no model name; names are letters, digits and . _ : / -, and the "
                        "last character may be * for all that begin so",
                        n > 80 ? 80 : (int)n, w);
        else if (k == GRANT_MODELS_MOST)
            code = err_set(e, ERR_TOO_LARGE, "allowed models: more than %d names; use a common beginning and *",
                           GRANT_MODELS_MOST);
        buf_printf(&b, "%s%.*s", k ? ", " : "", (int)n, w);
    }
    buf_puts(&b, "");
    if (code == ERR_OK) code = buf_check(&b, "allowed models", e);
    if (code == ERR_OK) {
        *out = b.ptr ? buf_take(&b) : mem_strdup("");
        if (!*out) code = err_nomem(e, "allowed models");
    }
    buf_free(&b);
    return code;
}

bool grant_has_model(const char *models, const char *model) {
    const char *at = models, *w;
    size_t n, len = strlen(model);
    if (!*models) return true;
    while (next_word(&at, &w, &n)) {
        bool open = n && w[n - 1] == '*';
        if (open ? len >= n - 1 && memcmp(w, model, n - 1) == 0 : len == n && memcmp(w, model, n) == 0) return true;
    }
    return false;
}

/* ---- making ------------------------------------------------------------------------------------------------ */

void grant_clear(grant_row *g) {
    mem_free(g->models);
    g->models = NULL;
}

err_code grant_copy(grant_row *out, const grant_row *g, err *e) {
    *out = *g;
    out->models = mem_strdup(g->models);
    return out->models ? ERR_OK : err_nomem(e, "a grant");
}

err_code grant_make(grant_row *out, const island *i, const char *owner, const grant_row *before, const grant *g,
                    err *e) {
    memset(out, 0, sizeof *out);
    if (before) *out = *before;
    out->models = NULL;
    snprintf(out->owner, sizeof out->owner, "%s", owner);
    err_code code = ERR_OK;
    if (g->project) {
        if (strlen(g->project) > PROJECT_NAME_MAX)
            return err_set(e, ERR_INVALID, "project \"%.60s\": names have at most %d characters", g->project,
                           PROJECT_NAME_MAX);
        snprintf(out->project, sizeof out->project, "%s", g->project);
    }
    if (g->floor) code = floor_check(out->floor, i->config.labels_levels, g->floor, e);
    for (int k = 0; k < LIMIT_COUNT && code == ERR_OK; k++) {
        if (g->limits[k] < 0) continue;
        if (g->limits[k] > LIMIT_MAX)
            code = err_set(e, ERR_INVALID, "limit %s: it is too large; 0 means none", limit_names[k]);
        out->limits[k] = g->limits[k];
    }
    if (code != ERR_OK) return code;
    if (g->models) return models_check(&out->models, g->models, e);
    out->models = mem_strdup(before ? before->models : "");
    return out->models ? ERR_OK : err_nomem(e, "a grant");
}

/* ---- the store --------------------------------------------------------------------------------------------- */

/* Fixed fields, as in key_mac. */
static void grant_mac(const island *i, const grant_row *g, uint8_t out[SHA256_LEN]) {
    struct {
        char domain[16], owner[GRANT_OWNER_MAX], project[PROJECT_NAME_MAX + 1], floor[FLOOR_MAX + 1];
        char models[GRANT_MODELS_MAX + 1];
        uint8_t limits[LIMIT_COUNT][8];
    } m;
    memset(&m, 0, sizeof m);
    memcpy(m.domain, "polder grant 1", 14);
    memcpy(m.owner, g->owner, strlen(g->owner));
    memcpy(m.project, g->project, strlen(g->project));
    memcpy(m.floor, g->floor, strlen(g->floor));
    memcpy(m.models, g->models, strlen(g->models));
    for (int k = 0; k < LIMIT_COUNT; k++) be_put(m.limits[k], (uint64_t)g->limits[k], 8);
    hmac_sha256(out, i->api_key, API_KEY_LEN, &m, sizeof m);
}

err_code grant_write(island *i, store *s, const grant_row *g, err *e) {
    uint8_t mac[SHA256_LEN];
    grant_mac(i, g, mac);
    store_val v[5 + LIMIT_COUNT] = {SV_TEXT(g->owner), SV_TEXT(g->project), SV_TEXT(g->floor), SV_TEXT(g->models)};
    for (int k = 0; k < LIMIT_COUNT; k++) v[4 + k] = SV_INT(g->limits[k]);
    v[4 + LIMIT_COUNT] = SV_BLOB(mac, SHA256_LEN);
    return store_write(s,
                       "INSERT OR REPLACE INTO grants(owner, project, floor, models, requests_minute, tokens_minute, "
                       "tokens_day, tokens_month, eur_day, eur_month, mac) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                       v, 5 + LIMIT_COUNT, NULL, e);
}

static bool take_text(char *out, size_t cap, store_stmt *q, int col) {
    const char *s = store_col_text(q, col, NULL);
    if (!s || strlen(s) >= cap) return false;
    snprintf(out, cap, "%s", s);
    return true;
}

err_code grant_read(const island *i, store_stmt *q, int col, grant_row *out, err *e) {
    char models[GRANT_MODELS_MAX + 1];
    uint8_t mac[SHA256_LEN];
    size_t n = 0;
    memset(out, 0, sizeof *out);
    bool ok = take_text(out->owner, sizeof out->owner, q, col) &&
              take_text(out->project, sizeof out->project, q, col + 1) &&
              take_text(out->floor, sizeof out->floor, q, col + 2) && take_text(models, sizeof models, q, col + 3);
    for (int k = 0; k < LIMIT_COUNT; k++) out->limits[k] = store_col_int(q, col + 4 + k);
    const void *stored = store_col_blob(q, col + 4 + LIMIT_COUNT, &n);
    if (ok && i->has_api_key) { /* a reader without the key shows what is there */
        out->models = models;
        grant_mac(i, out, mac);
        out->models = NULL;
        ok = stored && n == SHA256_LEN && bytes_equal_ct(mac, stored, SHA256_LEN);
    }
    if (!ok)
        return err_set(e, ERR_CORRUPT,
                       "store/polder.db: the grant of %s is not as polder wrote it; restore the store from a backup",
                       out->owner[0] ? out->owner : "?");
    out->models = mem_strdup(models);
    return out->models ? ERR_OK : err_nomem(e, "a grant");
}

/* ---- JSON -------------------------------------------------------------------------------------------------- */

static bool add_models(cJSON *o, const char *models) {
    cJSON *list = cJSON_AddArrayToObject(o, "models");
    const char *at = *models ? models : NULL, *w;
    size_t n;
    if (!list) return false;
    while (next_word(&at, &w, &n)) {
        char name[GRANT_NAME_MAX + 2];
        snprintf(name, sizeof name, "%.*s", (int)n, w);
        cJSON *s = cJSON_CreateString(name);
        if (!s || !cJSON_AddItemToArray(list, s)) {
            cJSON_Delete(s);
            return false;
        }
    }
    return true;
}

static bool add_limits(cJSON *o, const grant_row *g, bool all) {
    bool any = all;
    for (int k = 0; k < LIMIT_COUNT; k++) any = any || g->limits[k];
    cJSON *l = any ? cJSON_AddObjectToObject(o, "limits") : NULL;
    for (int k = 0; k < LIMIT_COUNT && any; k++) {
        double v = limit_is_eur((limit_kind)k) ? (double)g->limits[k] / LIMIT_EUR : (double)g->limits[k];
        if (!l || (g->limits[k] && !cJSON_AddNumberToObject(l, limit_names[k], v))) return false;
    }
    return true;
}

bool grant_json(cJSON *o, const grant_row *g, bool all) {
    if (!owner_is_project(g->owner) && (all || g->project[0]) && !cJSON_AddStringToObject(o, "project", g->project))
        return false;
    if ((all || g->floor[0]) && !cJSON_AddStringToObject(o, "floor", g->floor)) return false;
    if ((all || g->models[0]) && !add_models(o, g->models)) return false;
    return add_limits(o, g, all);
}
