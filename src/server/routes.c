/* The doors' plan: which path is served by what, and who may use it. */
#include "server/internal.h"

#include <string.h>

const route routes[] = {
    {"/v1/chat/completions", "POST", ACCESS_USE, &dialect_openai_chat, serve_dialect},
    {"/v1/completions", "POST", ACCESS_USE, &dialect_openai_completions, serve_dialect},
    {"/v1/embeddings", "POST", ACCESS_USE, &dialect_openai_embeddings, serve_dialect},
    {"/v1/rerank", "POST", ACCESS_USE, &dialect_rerank, serve_dialect},
    {"/v1/models", "GET", ACCESS_USE, NULL, serve_models},
    {"/v1/models/", "GET", ACCESS_USE, NULL, serve_models},
    {"/healthz", "GET", ACCESS_OPEN, NULL, serve_health},
    {"/readyz", "GET", ACCESS_OPEN, NULL, serve_ready},
    {"/metrics", "GET", ACCESS_WATCH, NULL, serve_metrics},
    {"/ledger/", "GET", ACCESS_AUDIT, NULL, serve_ledger},
    {"/api/polder/v1/", "POST", ACCESS_ADMIN, NULL, serve_admin},
    {NULL, NULL, ACCESS_OPEN, NULL, NULL},
};

static bool path_matches(const route *r, const char *path) {
    size_t n = strlen(r->path);
    if (r->path[n - 1] == '/') return strncmp(path, r->path, n) == 0 && path[n] != 0;
    return strcmp(path, r->path) == 0;
}

const route *route_find(const char *method, const char *path, char *allow) {
    allow[0] = 0;
    for (const route *r = routes; r->path; r++) {
        if (!path_matches(r, path)) continue;
        bool get = strcmp(r->method, "GET") == 0;
        snprintf(allow, 32, "%s", get ? "GET, HEAD, OPTIONS" : "POST, OPTIONS");
        if (strcmp(method, r->method) == 0 || (get && strcmp(method, "HEAD") == 0)) return r;
        return NULL;
    }
    return NULL;
}
