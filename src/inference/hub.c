/* polder model pull: what a source names, what of a repository is wanted, the way from the hub to the store. */
#include "inference/hub.h"

#include "inference/hub_http.h"
#include "inference/inference.h"
#include "inference/models_internal.h"
#include "inference/workdir.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#include "engine/engine.h"

#include <openssl/evp.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_MAX   20000
#define LISTING_MAX ((size_t)64 << 20)
#define PAGES_MAX   100
#define TOKEN_MAX   1024

typedef struct remote_file {
    char *path;
    uint64_t size;
    char digest[SHA256_HEX_LEN + 1];
    bool is_sha256; /* otherwise git's SHA-1 of the blob */
    bool wanted;
} remote_file;

typedef struct pull {
    island *i;
    const identity *by;
    const pull_options *o;
    char owner[128], repo[128], what[256], revision[128]; /* what: a file or a quantisation, may be "" */
    char name[MODEL_NAME_MAX + 1];
    char base[1024];
    char commit[80];
    char licence[121];
    hub_http *http;
    remote_file *files;
    size_t n_files, cap_files;
    workdir dir;
    uint64_t egress; /* seq of the record */
    bool recorded;
    uint64_t done, total;
} pull;

/* ---- what to pull ----------------------------------------------------------------------------------------- */

/* Letters, digits and . _ - (and / where said), no part that begins with a dot: safe in a path and a URL as it is. */
static bool plain(const char *s, bool slashes) {
    if (!*s || *s == '.' || *s == '/' || strlen(s) > 250) return false;
    for (const char *p = s; *p; p++) {
        bool alnum = (*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z');
        if (!alnum && !strchr("._-+", *p) && !(slashes && *p == '/')) return false;
        if (*p == '/' && (p[1] == '/' || p[1] == '.' || !p[1])) return false;
    }
    return true;
}

static bool cut_at(char *s, char mark, char *out, size_t cap) {
    char *p = strchr(s, mark);
    if (!p) return true;
    snprintf(out, cap, "%s", p + 1);
    *p = 0;
    return *out != 0;
}

static err_code parse_source(pull *p, err *e) {
    char text[600];
    const char *s = p->o->source;
    bool ok = strncmp(s, "hf:", 3) == 0 && strlen(s) < sizeof text;
    snprintf(p->revision, sizeof p->revision, "main");
    if (ok) {
        snprintf(text, sizeof text, "%s", s + 3);
        ok = cut_at(text, '@', p->revision, sizeof p->revision) && cut_at(text, ':', p->what, sizeof p->what) &&
             strchr(text, '/') && cut_at(text, '/', p->repo, sizeof p->repo);
        snprintf(p->owner, sizeof p->owner, "%s", text);
    }
    if (ok && plain(p->owner, false) && plain(p->repo, false) && plain(p->revision, true) &&
        (!*p->what || plain(p->what, true)))
        return ERR_OK;
    return err_set(e, ERR_USAGE,
                   "'%.200s' is not a source; say hf:OWNER/REPO, hf:OWNER/REPO:FILE.gguf or :Q4_K_M for one of several "
                   "GGUF files, and @REVISION for a branch, tag or commit",
                   s);
}

static err_code choose_name(pull *p, err *e) {
    if (p->o->name) {
        snprintf(p->name, sizeof p->name, "%s", p->o->name);
        if (strlen(p->o->name) > MODEL_NAME_MAX) return models_check_name(p->o->name, e);
    } else {
        for (size_t i = 0; i < MODEL_NAME_MAX && p->repo[i]; i++) {
            char ch = p->repo[i];
            p->name[i] = (char)(ch >= 'A' && ch <= 'Z' ? ch + 32 : ch);
        }
    }
    return models_check_name(p->name, e);
}

/* ---- is it allowed ---------------------------------------------------------------------------------------- */

static bool is_loopback(const char *url) {
    const char *host = strstr(url, "://");
    if (!host) return false;
    host += 3;
    size_t n = strcspn(host, "/:");
    if (*host == '[') n = strcspn(host, "]") + 1;
    return (n == 9 && strncasecmp(host, "localhost", 9) == 0) || strncmp(host, "127.", 4) == 0 ||
           (n == 5 && strncmp(host, "[::1]", 5) == 0);
}

static err_code choose_base(pull *p, err *e) {
    const char *hub = island_get_config(p->i)->models_hub, *url = p->o->mirror ? p->o->mirror : hub;
    if (!hub || !*hub)
        return err_set(e, ERR_DENIED,
                       "%.200s: this island fetches nothing from a network. To permit it, write into island.yaml under "
                       "models: the line \"hub: https://huggingface.co\" (or your mirror's address), or copy the files "
                       "here by other means and use polder model add",
                       p->o->source);
    if (p->o->mirror && p->by && p->by->role != ROLE_ADMIN)
        return err_set(e, ERR_DENIED, "%.200s: only an administrator may name another hub than the configured one",
                       url);
    bool https = strncasecmp(url, "https://", 8) == 0, http = strncasecmp(url, "http://", 7) == 0;
    if (strlen(url) >= sizeof p->base || strpbrk(url, " ?#@\\\"<>") || (!https && !http))
        return err_set(e, ERR_USAGE, "'%.200s' is not the address of a hub; write https://HOST[/PATH]", url);
    if (http && p->o->mirror && strcmp(url, hub) != 0 && !is_loopback(url))
        return err_set(e, ERR_DENIED,
                       "%.200s: anybody on the way could change what an http address sends; use https, or name it in "
                       "island.yaml (models.hub) if that is meant",
                       url);
    snprintf(p->base, sizeof p->base, "%s", url);
    for (size_t n = strlen(p->base); n && p->base[n - 1] == '/';) p->base[--n] = 0;
    return ERR_OK;
}

static err_code connect_hub(pull *p, err *e) {
    buf text = {.max = TOKEN_MAX};
    const char *file = island_get_config(p->i)->models_token_file, *token = getenv("POLDER_HUB_TOKEN");
    err_code rc = ERR_OK;
    if (file && *file) {
        rc = file_read(&text, file, e);
        if (!rc) {
            text.ptr[strcspn(text.ptr, "\r\n \t")] = 0;
            token = text.ptr;
        }
    }
    if (!rc) rc = hub_http_new(&p->http, p->base, token, e);
    if (text.ptr) mem_wipe(text.ptr, text.len);
    buf_free(&text);
    return rc;
}

/* ---- records ---------------------------------------------------------------------------------------------- */

static bool add_common(const pull *p, cJSON *o) {
    char repo[300];
    snprintf(repo, sizeof repo, "%s/%s", p->owner, p->repo);
    return cJSON_AddStringToObject(o, "hub", p->base) && cJSON_AddStringToObject(o, "repository", repo);
}

/* What goes out are the names of a repository and its files; that is said before the first byte goes. */
static err_code record_egress(pull *p, err *e) {
    record *r = NULL;
    err_code rc = record_new(&r, "egress", e);
    if (rc) return rc;
    cJSON *o = record_body(r);
    bool ok = cJSON_AddStringToObject(o, "purpose", "model.pull") && add_common(p, o) &&
              cJSON_AddStringToObject(o, "asked", p->o->source) && cJSON_AddStringToObject(o, "model", p->name) &&
              cJSON_AddStringToObject(o, "sends", "names of the repository and its files") &&
              cJSON_AddStringToObject(o, "by", p->by ? p->by->key_id : "local");
    rc = ok ? ledger_append(island_ledger(p->i), r, &p->egress, e) : err_nomem(e, "a record");
    record_free(r);
    p->recorded = rc == ERR_OK;
    return rc;
}

static void record_failure(pull *p, const err *why) {
    record *r = NULL;
    err ignored = {0};
    uint64_t seq;
    if (!p->recorded || record_new(&r, "pull.failed", &ignored)) return;
    cJSON *o = record_body(r);
    if (cJSON_AddNumberToObject(o, "egress", (double)p->egress) && add_common(p, o) &&
        cJSON_AddStringToObject(o, "model", p->name) && cJSON_AddStringToObject(o, "reason", err_name(why->code)) &&
        cJSON_AddNumberToObject(o, "received", p->http ? (double)hub_http_received(p->http) : 0))
        (void)ledger_append(island_ledger(p->i), r, &seq, &ignored);
    record_free(r);
}

/* ---- the listing ------------------------------------------------------------------------------------------ */

static err_code get_json(pull *p, const char *path, cJSON **out, char *next, err *e) {
    buf text = {.max = LISTING_MAX};
    err_code rc = hub_http_text(p->http, path, &text, next, e);
    if (!rc) rc = json_parse(out, buf_str(&text), text.len, path, e);
    buf_free(&text);
    return rc;
}

/* "/" in a revision is part of its name. */
static void revision_in_url(const pull *p, char out[400]) {
    size_t n = 0;
    for (const char *s = p->revision; *s && n < 390; s++) {
        if (*s == '/')
            n += (size_t)snprintf(out + n, 400 - n, "%%2F");
        else
            out[n++] = *s;
    }
    out[n] = 0;
}

static err_code read_revision(pull *p, err *e) {
    char path[1200], rev[400];
    cJSON *v = NULL;
    revision_in_url(p, rev);
    snprintf(path, sizeof path, "/api/models/%s/%s/revision/%s", p->owner, p->repo, rev);
    err_code rc = get_json(p, path, &v, NULL, e);
    if (rc) return rc;
    const cJSON *sha = json_get(v, "sha"), *licence = json_get(json_get(v, "cardData"), "license");
    if (cJSON_IsString(sha) && plain(sha->valuestring, false) && strlen(sha->valuestring) < sizeof p->commit)
        snprintf(p->commit, sizeof p->commit, "%s", sha->valuestring);
    else
        rc = err_set(e, ERR_INVALID, "%s: the hub's answer names no commit", path);
    if (cJSON_IsString(licence) && strlen(licence->valuestring) < sizeof p->licence)
        snprintf(p->licence, sizeof p->licence, "%s", licence->valuestring);
    cJSON_Delete(v);
    return rc;
}

static bool is_hex(const char *s, size_t n) {
    return strlen(s) == n && strspn(s, "0123456789abcdef") == n;
}

static err_code add_remote(pull *p, const cJSON *v, err *e) {
    const cJSON *path = json_get(v, "path"), *size = json_get(v, "size"), *oid = json_get(v, "oid"),
                *lfs = json_get(v, "lfs"), *type = json_get(v, "type");
    if (!cJSON_IsString(type) || strcmp(type->valuestring, "file") != 0) return ERR_OK;
    if (lfs && json_get(lfs, "oid")) oid = json_get(lfs, "oid");
    if (lfs && json_get(lfs, "size")) size = json_get(lfs, "size");
    /* names that are not plain belong to no model that polder knows */
    if (!cJSON_IsString(path) || !plain(path->valuestring, true)) return ERR_OK;
    bool sha256_ = cJSON_IsString(oid) && is_hex(oid->valuestring, SHA256_HEX_LEN);
    if (!cJSON_IsNumber(size) || !(size->valuedouble >= 0 && size->valuedouble < 9e15) || !cJSON_IsString(oid) ||
        (!sha256_ && !is_hex(oid->valuestring, 40)))
        return err_set(e, ERR_INVALID, "%s/%s: the hub lists %.100s without a size or a digest", p->owner, p->repo,
                       path->valuestring);
    if (p->n_files == FILES_MAX)
        return err_set(e, ERR_INVALID, "%s/%s: more than %d files", p->owner, p->repo, FILES_MAX);
    if (p->n_files == p->cap_files) {
        size_t cap = p->cap_files ? 2 * p->cap_files : 64;
        remote_file *f = mem_realloc(p->files, cap * sizeof *f);
        if (!f) return err_nomem(e, "a list of files");
        p->files = f;
        p->cap_files = cap;
    }
    remote_file *f = &p->files[p->n_files];
    *f =
        (remote_file){.path = mem_strdup(path->valuestring), .size = (uint64_t)size->valuedouble, .is_sha256 = sha256_};
    if (!f->path) return err_nomem(e, "a list of files");
    snprintf(f->digest, sizeof f->digest, "%s", oid->valuestring);
    p->n_files++;
    return ERR_OK;
}

static err_code read_tree(pull *p, err *e) {
    char path[1200], next[1024] = "";
    snprintf(path, sizeof path, "/api/models/%s/%s/tree/%s?recursive=true", p->owner, p->repo, p->commit);
    for (int page = 0; page < PAGES_MAX; page++) {
        cJSON *v = NULL;
        const cJSON *one;
        err_code rc = get_json(p, path, &v, next, e);
        if (!rc && !cJSON_IsArray(v)) rc = err_set(e, ERR_INVALID, "%s: the hub's answer is not a list", path);
        cJSON_ArrayForEach(one, v) {
            if (!rc) rc = add_remote(p, one, e);
        }
        cJSON_Delete(v);
        if (rc || !*next) return rc;
        /* a mirror below a path names pages with that path; base has it already */
        const char *host = strstr(p->base, "://"), *prefix = host ? strchr(host + 3, '/') : NULL;
        size_t n = prefix ? strlen(prefix) : 0;
        snprintf(path, sizeof path, "%s", n && strncmp(next, prefix, n) == 0 ? next + n : next);
    }
    return err_set(e, ERR_INVALID, "%s/%s: the hub's listing does not end", p->owner, p->repo);
}

/* ---- which files ------------------------------------------------------------------------------------------ */

static bool ends(const char *s, const char *end) {
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcasecmp(s + n - k, end) == 0;
}

static bool has_word(const char *s, const char *word) { /* "q4_k_m" in "model-Q4_K_M.gguf", as a word */
    size_t k = strlen(word);
    for (const char *p = s; *p; p++) {
        if (strncasecmp(p, word, k) != 0) continue;
        bool before = p == s || strchr("-._/", p[-1]), after = strchr("-._/", p[k]) != NULL;
        if (before && after) return true;
    }
    return false;
}

/* -00001-of-00003.gguf: the length of the name before that, 0 where it is whole. */
static size_t split_stem(const char *s) {
    size_t n = strlen(s);
    unsigned a, b;
    if (n < 21 || s[n - 20] != '-' || sscanf(s + n - 19, "%5u-of-%5u.gguf", &a, &b) != 2) return 0;
    return n - 20;
}

static bool same_model(const char *a, const char *b) {
    size_t n = split_stem(a);
    return n ? split_stem(b) == n && strncmp(a, b, n) == 0 : strcmp(a, b) == 0;
}

/* GGUF files that the source may mean; all parts of a split one count as one. */
static err_code want_gguf(pull *p, err *e) {
    const char *first = NULL;
    buf several = {.max = 400};
    size_t n = 0;
    for (size_t i = 0; i < p->n_files; i++) {
        remote_file *f = &p->files[i];
        bool meant = !*p->what || strcmp(f->path, p->what) == 0 || has_word(f->path, p->what);
        if (!ends(f->path, ".gguf") || !meant || has_word(f->path, "mmproj")) continue;
        if (strcmp(f->path, p->what) == 0) first = NULL, n = 0; /* the very file */
        if (first && same_model(first, f->path)) continue;
        if (split_stem(f->path) == 0 || !first || !same_model(first, f->path)) {
            if (n < 6) buf_printf(&several, "%s%s", n ? ", " : "", f->path);
            n++;
        }
        first = f->path;
        if (strcmp(f->path, p->what) == 0) break;
    }
    err_code rc = ERR_OK;
    if (n == 0)
        rc = err_set(e, ERR_NOT_FOUND, "%s/%s: has no GGUF file%s%s", p->owner, p->repo, *p->what ? " called " : "",
                     p->what);
    else if (n > 1)
        rc = err_set(e, ERR_USAGE, "%s/%s: has %zu GGUF models; say which one, as in hf:%s/%s:Q4_K_M. There are: %s%s",
                     p->owner, p->repo, n, p->owner, p->repo, buf_str(&several), n > 6 ? ", …" : "");
    for (size_t i = 0; !rc && i < p->n_files; i++)
        if (ends(p->files[i].path, ".gguf") && same_model(first, p->files[i].path)) p->files[i].wanted = true;
    buf_free(&several);
    return rc;
}

static bool is_side_file(const char *path) {
    for (size_t i = 0; model_file_beside[i]; i++)
        if (strcmp(path, model_file_beside[i]) == 0) return true;
    return false;
}

static err_code want_folder(pull *p, err *e) {
    bool config = false;
    size_t weights = 0;
    for (size_t i = 0; i < p->n_files; i++) {
        remote_file *f = &p->files[i];
        bool weight = ends(f->path, ".safetensors") && !strchr(f->path, '/') &&
                      (strncmp(f->path, "model", 5) == 0 || strncmp(f->path, "pytorch_model", 13) == 0);
        f->wanted = weight || is_side_file(f->path);
        weights += weight;
        config = config || strcmp(f->path, "config.json") == 0;
    }
    if (config && weights) return ERR_OK;
    return err_set(
        e, ERR_NOT_FOUND,
        "%s/%s: has neither GGUF nor safetensors files with a config.json; pickled checkpoints (.bin, .pt) are "
        "programs and are not fetched",
        p->owner, p->repo);
}

static err_code choose_files(pull *p, err *e) {
    bool any_gguf = false, any_tensors = false;
    for (size_t i = 0; i < p->n_files; i++) {
        any_gguf = any_gguf || ends(p->files[i].path, ".gguf");
        any_tensors = any_tensors || (ends(p->files[i].path, ".safetensors") && !strchr(p->files[i].path, '/'));
    }
    bool folder = !*p->what && any_tensors;
    err_code rc = folder || (!any_gguf && !*p->what) ? want_folder(p, e) : want_gguf(p, e);
    for (size_t i = 0; !rc && i < p->n_files; i++)
        if (!folder && strcmp(p->files[i].path, "README.md") == 0) p->files[i].wanted = true;
    for (size_t i = 0; !rc && i < p->n_files; i++)
        if (p->files[i].wanted) p->total += p->files[i].size;
    return rc;
}

/* ---- fetching --------------------------------------------------------------------------------------------- */

/* What a file in p->dir hashes to, as the hub writes it. */
static err_code digest_of(const remote_file *f, const char *path, char hex[SHA256_HEX_LEN + 1], err *e) {
    file_map m;
    uint8_t out[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    char head[40];
    err_code rc = file_map_open(&m, path, e);
    if (rc) return rc;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool ok = c && EVP_DigestInit_ex(c, f->is_sha256 ? EVP_sha256() : EVP_sha1(), NULL);
    int n = snprintf(head, sizeof head, "blob %zu", m.len) + 1; /* git hashes this first, with its NUL */
    if (ok && !f->is_sha256) ok = EVP_DigestUpdate(c, head, (size_t)n);
    if (ok && m.len) ok = EVP_DigestUpdate(c, m.ptr, m.len);
    if (ok) ok = EVP_DigestFinal_ex(c, out, &len);
    EVP_MD_CTX_free(c);
    file_map_close(&m);
    if (!ok) return err_nomem(e, "a digest");
    hex_encode(hex, out, len);
    return ERR_OK;
}

static err_code check_digest(const pull *p, const remote_file *f, const char *path, err *e) {
    char hex[SHA256_HEX_LEN + 1];
    err_code rc = digest_of(f, path, hex, e);
    if (rc || strcmp(hex, f->digest) == 0) return rc;
    unlink(path);
    return err_set(
        e, ERR_CORRUPT,
        "%s: its bytes hash to %.16s…, the hub lists %.16s…; it was removed. Somebody changed it on the way, or "
        "the mirror is damaged (%s)",
        f->path, hex, f->digest, p->base);
}

/* .part files are named by the digest that they shall have: one of another version is never taken up. */
static err_code fetch_one(pull *p, const remote_file *f, err *e) {
    char path[4600], part[4700], url[1400];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", p->dir.path, f->path);
    snprintf(part, sizeof part, "%s/%.40s.part", p->dir.path, f->digest);
    char *slash = strrchr(path, '/');
    *slash = 0;
    err_code rc = file_make_dirs(path, 0700, e);
    *slash = '/';
    if (rc) return rc;
    if (stat(path, &st) == 0 && (uint64_t)st.st_size == f->size && check_digest(p, f, path, e) == ERR_OK) {
        p->done += f->size;
        return ERR_OK;
    }
    snprintf(url, sizeof url, "/%s/%s/resolve/%s/%s", p->owner, p->repo, p->commit, f->path);
    const hub_file job = {.name = f->path,
                          .path = url,
                          .part = part,
                          .size = f->size,
                          .done = &p->done,
                          .total = p->total,
                          .progress = p->o->progress,
                          .ctx = p->o->ctx};
    rc = hub_http_file(p->http, &job, e);
    if (!rc) rc = check_digest(p, f, part, e);
    if (!rc && rename(part, path) != 0) rc = err_errno(e, "%s: cannot be renamed", part);
    return rc;
}

static uint64_t already_there(const pull *p) {
    uint64_t n = 0;
    struct stat st;
    char path[4700];
    for (size_t i = 0; i < p->n_files; i++) {
        if (!p->files[i].wanted) continue;
        snprintf(path, sizeof path, "%s/%s", p->dir.path, p->files[i].path);
        if (stat(path, &st) != 0) {
            snprintf(path, sizeof path, "%s/%.40s.part", p->dir.path, p->files[i].digest);
            if (stat(path, &st) != 0) continue;
        }
        n += (uint64_t)st.st_size < p->files[i].size ? (uint64_t)st.st_size : p->files[i].size;
    }
    return n;
}

static err_code fetch_all(pull *p, err *e) {
    char key[400];
    snprintf(key, sizeof key, "%s--%s--%.40s", p->owner, p->repo, p->commit);
    err_code rc = workdir_keep(&p->dir, island_dir(p->i), key, e);
    if (rc) return rc;
    /* the files, and the copy in the store; a conversion's file is in between for a while */
    uint64_t there = already_there(p);
    rc = workdir_check_room(p->dir.path, p->total - there + 2 * p->total, p->o->source, e);
    for (size_t i = 0; i < p->n_files && !rc; i++)
        if (p->files[i].wanted) rc = fetch_one(p, &p->files[i], e);
    return rc;
}

/* ---- importing -------------------------------------------------------------------------------------------- */

static err_code known_facts(const pull *p, cJSON **out, err *e) {
    cJSON *o = *out = cJSON_CreateObject();
    bool ok = o && add_common(p, o) && cJSON_AddStringToObject(o, "revision", p->revision) &&
              cJSON_AddStringToObject(o, "commit", p->commit) &&
              cJSON_AddNumberToObject(o, "egress", (double)p->egress) &&
              (!*p->licence || cJSON_AddStringToObject(o, "licence", p->licence));
    if (ok) return ERR_OK;
    cJSON_Delete(o);
    *out = NULL;
    return err_nomem(e, "a model's source");
}

static err_code import_pulled(pull *p, cJSON **out, err *e) {
    char path[4700];
    cJSON *known = NULL;
    snprintf(path, sizeof path, "%s", p->dir.path);
    for (size_t i = 0; i < p->n_files; i++)
        if (p->files[i].wanted && ends(p->files[i].path, ".gguf")) {
            snprintf(path, sizeof path, "%s/%s", p->dir.path, p->files[i].path);
            break;
        }
    err_code rc = known_facts(p, &known, e);
    if (!rc) rc = models_add_known(p->i, p->by, path, p->name, known, p->o->progress, p->o->ctx, out, e);
    cJSON_Delete(known);
    return rc;
}

static err_code run(pull *p, cJSON **out, err *e) {
    err_code rc;
    if ((rc = parse_source(p, e)) || (rc = choose_name(p, e)) || (rc = choose_base(p, e)) || (rc = connect_hub(p, e)) ||
        (rc = record_egress(p, e)) || (rc = read_revision(p, e)) || (rc = read_tree(p, e)) ||
        (rc = choose_files(p, e)) || (rc = fetch_all(p, e)))
        return rc;
    return import_pulled(p, out, e);
}

err_code models_pull(island *i, const identity *by, const pull_options *o, cJSON **out, err *e) {
    err local = {0};
    pull *p = mem_zalloc(sizeof *p);
    *out = NULL;
    if (!p) return err_nomem(e, "a pull");
    p->i = i;
    p->by = by;
    p->o = o;
    p->dir.fd = -1;
    err_code rc = run(p, out, &local);
    if (rc) record_failure(p, &local);
    if (rc == ERR_OK)
        workdir_remove(&p->dir);
    else
        workdir_close(&p->dir);
    hub_http_free(p->http);
    for (size_t k = 0; k < p->n_files; k++) mem_free(p->files[k].path);
    mem_free(p->files);
    mem_free(p);
    if (rc && e) *e = local;
    return rc;
}
