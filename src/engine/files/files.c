/* Sources of models: what they are, their files and digests, their licence; parts of a split GGUF joined to one file.
 */
#include "engine/files/convert.h"

#include "base/bytes.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define HASH_CHUNK ((size_t)4 << 20)
#define CARD_MAX   ((size_t)4 << 20)

bool files_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool model_file_needs_convert(const char *path) {
    if (files_is_folder(path)) return true;
    gguf *g = NULL;
    err e = {0};
    bool split =
        gguf_open(&g, path, &e) == ERR_OK ? gguf_part_count(g) > 1 : e.code == ERR_NOT_FOUND && file_exists(path);
    gguf_free(g);
    return split;
}

/* ---- digests ---------------------------------------------------------------------------------------------- */

static err_code hash_map(const file_map *m, const char *path, const model_file_options *o, uint64_t *done,
                         uint64_t total, char hex[SHA256_HEX_LEN + 1], err *e) {
    sha256 h;
    uint8_t digest[SHA256_LEN];
    sha256_init(&h);
    for (size_t at = 0; at < m->len; at += HASH_CHUNK) {
        size_t n = m->len - at < HASH_CHUNK ? m->len - at : HASH_CHUNK;
        sha256_update(&h, m->ptr + at, n);
        *done += n;
        if (o->progress && o->progress(o->ctx, *done, total)) return err_set(e, ERR_CANCELLED, "%s: cancelled", path);
    }
    sha256_final(&h, digest);
    hex_encode(hex, digest, SHA256_LEN);
    return ERR_OK;
}

err_code files_add(cJSON *files, const char *path, const model_file_options *o, uint64_t *done, uint64_t total,
                   err *e) {
    file_map m;
    char hex[SHA256_HEX_LEN + 1];
    err_code rc = file_map_open(&m, path, e);
    if (rc) return rc;
    rc = hash_map(&m, path, o, done, total, hex, e);
    const char *base = strrchr(path, '/');
    cJSON *one = rc ? NULL : cJSON_CreateObject();
    bool ok = one && cJSON_AddStringToObject(one, "name", base ? base + 1 : path) &&
              cJSON_AddNumberToObject(one, "bytes", (double)m.len) && cJSON_AddStringToObject(one, "sha256", hex) &&
              cJSON_AddItemToArray(files, one);
    file_map_close(&m);
    if (rc || ok) return rc;
    cJSON_Delete(one);
    return err_nomem(e, "a report");
}

/* ---- licence ---------------------------------------------------------------------------------------------- */

/* The value of "key:" at the start of a line between the two "---" lines; quotes taken off. */
static char *card_value(const char *s, const char *key) {
    size_t k = strlen(key);
    if (strncmp(s, "---", 3) != 0) return NULL;
    const char *line = strchr(s, '\n');
    while (line++ && strncmp(line, "---", 3) != 0) {
        if (strncmp(line, key, k) == 0 && line[k] == ':') {
            const char *v = line + k + 1;
            while (*v == ' ' || *v == '"' || *v == '\'') v++;
            size_t n = strcspn(v, "\r\n\"'#");
            while (n && v[n - 1] == ' ') n--;
            return n && n < 120 ? mem_strndup(v, n) : NULL;
        }
        line = strchr(line, '\n');
    }
    return NULL;
}

char *files_card_licence(const char *dir) {
    char path[4096];
    buf text = {.max = CARD_MAX};
    char *licence = NULL;
    if (path_join(path, sizeof path, NULL, dir, "README.md") == ERR_OK && file_exists(path) &&
        file_read(&text, path, NULL) == ERR_OK) {
        licence = card_value(buf_str(&text), "license");
        if (licence && strcmp(licence, "other") == 0) {
            char *name = card_value(buf_str(&text), "license_name");
            if (name) {
                mem_free(licence);
                licence = name;
            }
        }
    }
    buf_free(&text);
    return licence;
}

static err_code add_licence(cJSON *report, const char *s, size_t n, err *e) {
    char clean[121];
    snprintf(clean, sizeof clean, "%.*s", (int)(n < 120 ? n : 120), s);
    if (!n || !utf8_valid(clean, strlen(clean))) return ERR_OK;
    return cJSON_AddStringToObject(report, "licence", clean) ? ERR_OK : err_nomem(e, "a report");
}

/* ---- reports ---------------------------------------------------------------------------------------------- */

static err_code report_new(cJSON **out, const char *format, err *e) {
    cJSON *r = *out = cJSON_CreateObject();
    if (r && cJSON_AddStringToObject(r, "format", format) && cJSON_AddArrayToObject(r, "files")) return ERR_OK;
    cJSON_Delete(r);
    *out = NULL;
    return err_nomem(e, "a report");
}

static cJSON *report_files(cJSON *r) {
    return cJSON_GetObjectItemCaseSensitive(r, "files");
}

err_code files_look_gguf(const gguf *g, const model_file_options *o, cJSON **report, err *e) {
    gguf_str licence = {0};
    uint64_t done = 0, total = gguf_file_bytes(g);
    err_code rc = report_new(report, gguf_part_count(g) > 1 ? "gguf-split" : "gguf", e);
    for (size_t i = 0; i < gguf_part_count(g) && !rc; i++)
        rc = files_add(report_files(*report), gguf_part_path(g, i), o, &done, total, e);
    if (!rc) rc = gguf_str_or(g, "general.license", &licence, e);
    if (!rc && licence.len) rc = add_licence(*report, licence.ptr, licence.len, e);
    return rc;
}

const char *const model_file_beside[] = {"config.json",
                                         "generation_config.json",
                                         "tokenizer.json",
                                         "tokenizer_config.json",
                                         "special_tokens_map.json",
                                         "added_tokens.json",
                                         "tokenizer.model",
                                         "tiktoken.model",
                                         "chat_template.jinja",
                                         "chat_template.json",
                                         "README.md",
                                         "LICENSE",
                                         "LICENSE.txt",
                                         "LICENSE.md",
                                         "1_Pooling/config.json",
                                         "model.safetensors.index.json",
                                         NULL};

err_code files_look_folder(const char *dir, const model_file_options *o, cJSON **report, err *e) {
    st_set *set = NULL;
    char path[4096];
    err_code rc = st_open_folder(&set, dir, e);
    if (rc) return rc;
    uint64_t done = 0, total = st_total_bytes(set);
    rc = report_new(report, "safetensors", e);
    for (size_t i = 0; model_file_beside[i] && !rc; i++) {
        rc = path_join(path, sizeof path, e, dir, model_file_beside[i]);
        if (!rc && file_exists(path)) rc = files_add(report_files(*report), path, o, &done, total, e);
    }
    for (size_t i = 0; i < st_file_count(set) && !rc; i++)
        rc = files_add(report_files(*report), st_file_path(set, i), o, &done, total, e);
    st_free(set);
    char *licence = rc ? NULL : files_card_licence(dir);
    if (licence) rc = add_licence(*report, licence, strlen(licence), e);
    mem_free(licence);
    return rc;
}

err_code model_file_look(const char *path, const model_file_options *o, cJSON **report, err *e) {
    gguf *g = NULL;
    *report = NULL;
    err_code rc = ERR_OK;
    if (files_is_folder(path)) {
        rc = files_look_folder(path, o, report, e);
    } else {
        rc = gguf_open(&g, path, e);
        if (!rc) rc = files_look_gguf(g, o, report, e);
        gguf_free(g);
    }
    if (rc) {
        cJSON_Delete(*report);
        *report = NULL;
    }
    return rc;
}

err_code files_describe(cJSON *report, const char *path, err *e) {
    gguf *g = NULL;
    gguf_str arch = {0};
    char name[64];
    err_code rc = gguf_open(&g, path, e);
    if (!rc) rc = gguf_str_or(g, "general.architecture", &arch, e);
    cJSON *types = rc ? NULL : cJSON_CreateObject();
    for (size_t i = 0; types && i < gguf_tensor_count(g); i++) {
        const char *type = tensor_type_get(gguf_tensor_at(g, i)->type)->name;
        cJSON *n = cJSON_GetObjectItemCaseSensitive(types, type);
        if (n)
            cJSON_SetNumberValue(n, n->valuedouble + 1);
        else if (!cJSON_AddNumberToObject(types, type, 1))
            rc = err_nomem(e, "a report");
    }
    snprintf(name, sizeof name, "%.*s", (int)(arch.len < 63 ? arch.len : 63), arch.len ? arch.ptr : "");
    if (!rc && !(types && cJSON_AddStringToObject(report, "arch", name) &&
                 cJSON_AddNumberToObject(report, "tensors", (double)gguf_tensor_count(g)) &&
                 cJSON_AddNumberToObject(report, "bytes", (double)gguf_file_bytes(g)) &&
                 cJSON_AddItemToObject(report, "types", types)))
        rc = err_nomem(e, "a report");
    if (rc) cJSON_Delete(types);
    gguf_free(g);
    return rc;
}
