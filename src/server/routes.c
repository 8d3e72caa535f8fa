/* The doors' plan: which path is served by what, and who may use it. */
#include "server/internal.h"

#include <string.h>

const route routes[] = {
    {"/v1/chat/completions", "POST", ACCESS_USE, &dialect_openai_chat, serve_dialect, true},
    {"/v1/completions", "POST", ACCESS_USE, &dialect_openai_completions, serve_dialect, true},
    {"/v1/embeddings", "POST", ACCESS_USE, &dialect_openai_embeddings, serve_dialect, false},
    {"/v1/rerank", "POST", ACCESS_USE, &dialect_rerank, serve_dialect, false},
    {"/v1/responses", "POST", ACCESS_USE, &dialect_openai_responses, serve_dialect, false},
    {"/v1/responses/", "GET", ACCESS_USE, NULL, serve_responses, false},
    {"/v1/responses/", "DELETE", ACCESS_USE, NULL, serve_responses, false},
    {"/v1/messages", "POST", ACCESS_USE, &dialect_anthropic, serve_dialect, true},
    {"/v1/messages/count_tokens", "POST", ACCESS_USE, &dialect_anthropic_count, serve_count, false},
    {"/v1/models", "GET", ACCESS_USE, NULL, serve_models, false},
    {"/v1/models/", "GET", ACCESS_USE, NULL, serve_models, false},
    {"/api/chat", "POST", ACCESS_USE, &dialect_ollama_chat, serve_dialect, true},
    {"/api/generate", "POST", ACCESS_USE, &dialect_ollama_generate, serve_dialect, true},
    {"/api/embed", "POST", ACCESS_USE, &dialect_ollama_embed, serve_dialect, false},
    {"/api/embeddings", "POST", ACCESS_USE, &dialect_ollama_embeddings, serve_dialect, false},
    {"/api/tags", "GET", ACCESS_USE, &dialect_ollama_models, serve_ollama_tags, false},
    {"/api/show", "POST", ACCESS_USE, &dialect_ollama_models, serve_ollama_show, false},
    {"/api/version", "GET", ACCESS_USE, &dialect_ollama_models, serve_ollama_version, false},
    {"/api/create", "POST", ACCESS_USE, &dialect_ollama_models, serve_ollama_refuse, false},
    {"/api/pull", "POST", ACCESS_USE, &dialect_ollama_models, serve_ollama_refuse, false},
    {"/api/push", "POST", ACCESS_USE, &dialect_ollama_models, serve_ollama_refuse, false},
    {"/api/copy", "POST", ACCESS_USE, &dialect_ollama_models, serve_ollama_refuse, false},
    {"/api/delete", "DELETE", ACCESS_USE, &dialect_ollama_models, serve_ollama_refuse, false},
    {"/healthz", "GET", ACCESS_OPEN, NULL, serve_health, true},
    {"/readyz", "GET", ACCESS_OPEN, NULL, serve_ready, false},
    {"/metrics", "GET", ACCESS_WATCH, NULL, serve_metrics, false},
    {"/ledger/", "GET", ACCESS_AUDIT, NULL, serve_ledger, false},
    {"/api/polder/v1/", "POST", ACCESS_ADMIN, NULL, serve_admin, false},
    {NULL, NULL, ACCESS_OPEN, NULL, NULL, false},
};

static bool path_matches(const route *r, const char *path) {
    size_t n = strlen(r->path);
    if (r->path[n - 1] == '/') return strncmp(path, r->path, n) == 0 && path[n] != 0;
    return strcmp(path, r->path) == 0;
}

const route *route_find(const char *method, const char *path, char *allow) {
    bool get = false, post = false, del = false;
    allow[0] = 0;
    for (const route *r = routes; r->path; r++) {
        if (!path_matches(r, path)) continue;
        bool reads = strcmp(r->method, "GET") == 0;
        if (strcmp(method, r->method) == 0 || (reads && strcmp(method, "HEAD") == 0)) return r;
        get |= reads;
        post |= strcmp(r->method, "POST") == 0;
        del |= strcmp(r->method, "DELETE") == 0;
    }
    if (get || post || del)
        snprintf(allow, 32, "%s%s%sOPTIONS", get ? "GET, HEAD, " : "", post ? "POST, " : "", del ? "DELETE, " : "");
    return NULL;
}
