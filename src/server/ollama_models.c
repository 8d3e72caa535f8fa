/* What Ollama's API says of models: GET /api/tags, POST /api/show, GET /api/version; and what it would do to them. */
#include "server/internal.h"
#include "server/ollama.h"

#include "base/sys.h"
#include "version.h"

#include <math.h>
#include <string.h>

#define DIGEST_PREFIX "sha256:"

/* "135M", "8.0B" */
static void parameter_size(char out[32], double n) {
    static const char unit[] = "KMBT";
    int k = -1;
    while (n >= 999.5 && k < 3) {
        n /= 1000;
        k++;
    }
    out[0] = 0;
    if (n > 0 && k < 0) snprintf(out, 32, "%.0f", n);
    if (k >= 0) snprintf(out, 32, n < 9.95 ? "%.1f%c" : "%.0f%c", n, unit[k]);
}

static const char *text_in(const cJSON *m, const char *key) {
    const cJSON *v = json_get(m, key);
    return cJSON_IsString(v) ? v->valuestring : "";
}

static double number_in(const cJSON *m, const char *key) {
    const cJSON *v = json_get(m, key);
    return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

/* A name that leads to providers only has no artifact, so nothing is known of what answers. */
static void write_details(jw *w, const cJSON *m) {
    const char *arch = text_in(m, "arch");
    char size[32];
    parameter_size(size, number_in(m, "parameters"));
    jw_key(w, "details");
    jw_obj(w);
    jw_kstr(w, "parent_model", "");
    jw_kstr(w, "format", arch[0] ? "gguf" : "");
    jw_kstr(w, "family", arch);
    jw_key(w, "families");
    jw_arr(w);
    if (arch[0]) jw_str(w, arch);
    jw_arr_end(w);
    jw_kstr(w, "parameter_size", size);
    jw_kstr(w, "quantization_level", text_in(m, "quant"));
    jw_obj_end(w);
}

static void write_modified(jw *w, const cJSON *m) {
    char t[32];
    time_rfc3339(t, (int64_t)number_in(m, "created") * 1000);
    jw_kstr(w, "modified_at", t);
}

static void write_model(jw *w, const cJSON *m) {
    const char *digest = text_in(m, "digest");
    if (strncmp(digest, DIGEST_PREFIX, strlen(DIGEST_PREFIX)) == 0) digest += strlen(DIGEST_PREFIX);
    jw_obj(w);
    jw_kstr(w, "name", text_in(m, "name"));
    jw_kstr(w, "model", text_in(m, "name"));
    write_modified(w, m);
    jw_kint(w, "size", (int64_t)number_in(m, "bytes"));
    jw_kstr(w, "digest", digest);
    write_details(w, m);
    jw_obj_end(w);
}

static void fail(exchange *x, err_code rc, err *e) {
    reply_outward(x, e);
    reply_error(x, reply_status(x, rc), e, rc == ERR_NOT_FOUND ? "model" : NULL);
}

void serve_ollama_tags(exchange *x) {
    err e = {.code = ERR_OK};
    cJSON *found = NULL;
    err_code rc = pages_models(x, NULL, &found, &e);
    if (rc != ERR_OK) {
        fail(x, rc, &e);
        return;
    }
    buf b;
    jw w;
    buf_init(&b, 4u << 20);
    jw_init(&w, &b);
    jw_obj(&w);
    jw_key(&w, "models");
    jw_arr(&w);
    const cJSON *m;
    cJSON_ArrayForEach(m, json_get(found, "models")) write_model(&w, m);
    jw_arr_end(&w);
    jw_obj_end(&w);
    cJSON_Delete(found);
    reply_json(x, 200, &b);
}

static void info_number(jw *w, const cJSON *m, const char *key, const char *prefix, const char *name) {
    char k[128];
    double v = number_in(m, key);
    if (v <= 0) return;
    snprintf(k, sizeof k, "%.60s.%s", prefix, name);
    jw_knum(w, k, v);
}

static void write_shown(const cJSON *m, buf *out) {
    const char *arch = text_in(m, "arch"), *kind = text_in(m, "kind");
    jw w;
    jw_init(&w, out);
    jw_obj(&w);
    write_modified(&w, m);
    write_details(&w, m);
    jw_key(&w, "model_info");
    jw_obj(&w);
    if (arch[0]) {
        jw_kstr(&w, "general.architecture", arch);
        if (text_in(m, "title")[0]) jw_kstr(&w, "general.basename", text_in(m, "title"));
        info_number(&w, m, "parameters", "general", "parameter_count");
        info_number(&w, m, "context", arch, "context_length");
        info_number(&w, m, "width", arch, "embedding_length");
        info_number(&w, m, "layers", arch, "block_count");
        info_number(&w, m, "vocabulary", arch, "vocab_size");
    }
    jw_obj_end(&w);
    jw_key(&w, "capabilities");
    jw_arr(&w);
    jw_str(&w, kind[0] ? kind : "completion"); /* whether a template has a place for tools is seen when it is used */
    jw_arr_end(&w);
    jw_obj_end(&w);
}

/* The body's members: which model, and what would change nothing in the reply. */
static err_code read_show(const cJSON *body, const char **name, err *e) {
    static const char *const known[] = {"model", "name", "verbose", NULL};
    const cJSON *f;
    if (!cJSON_IsObject(body)) return err_set(e, ERR_INVALID, "request body: it must be a JSON object");
    cJSON_ArrayForEach(f, body) {
        const char *const *k = known;
        while (*k && strcmp(*k, f->string) != 0) k++;
        bool empty = cJSON_IsNull(f) || (cJSON_IsString(f) && !f->valuestring[0]) || (cJSON_IsObject(f) && !f->child);
        if (!*k && !empty)
            return err_set(e, ERR_INVALID, "'%.60s' is not a field of this request: leave it out", f->string);
    }
    err_code rc = json_get_str(body, "model", name, e);
    if (rc == ERR_OK && !*name) rc = json_get_str(body, "name", name, e);
    if (rc == ERR_OK && (!*name || !**name || strlen(*name) > 4 * MODEL_NAME_MAX))
        rc = err_set(e, ERR_INVALID, "'model' is missing: name one (GET /api/tags lists them)");
    return rc;
}

void serve_ollama_show(exchange *x) {
    err e = {.code = ERR_OK};
    const char *name = NULL;
    cJSON *body = NULL, *found = NULL;
    err_code rc = json_parse(&body, buf_str(&x->body), x->body.len, "request body", &e);
    if (rc == ERR_OK) rc = read_show(body, &name, &e);
    if (rc == ERR_OK) rc = pages_models(x, name, &found, &e);
    cJSON_Delete(body);
    if (rc != ERR_OK) {
        fail(x, rc, &e);
        return;
    }
    buf b;
    buf_init(&b, 65536);
    write_shown(found, &b);
    cJSON_Delete(found);
    reply_json(x, 200, &b);
}

void serve_ollama_version(exchange *x) {
    buf b;
    buf_init(&b, 256);
    buf_printf(&b, "{\"version\":\"%s\"}", POLDER_VERSION);
    reply_json(x, 200, &b);
}

/* create, pull, push, copy, delete: who may answer as what is the island's own business. */
void serve_ollama_refuse(exchange *x) {
    err e;
    err_set(&e, ERR_UNSUPPORTED,
            "%s: models are imported, named and removed by who runs this island (polder model), not by its clients",
            x->path);
    reply_error(x, reply_status(x, e.code), &e, NULL);
}

const dialect dialect_ollama_models = {.name = "ollama.models", .fail = ollama_fail};
