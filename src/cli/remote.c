/* The running server's control socket, and the choice between it and this process. */
#include "cli/cli.h"

#include "base/mem.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static err_code socket_path(char *out, size_t cap, const char *dir, err *e) {
    return path_join(out, cap, e, dir, "control.sock");
}

bool remote_is_up(const char *dir) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (socket_path(a.sun_path, sizeof a.sun_path, dir, NULL)) return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool up = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return up;
}

typedef struct transfer {
    err_code (*on_data)(void *ctx, const char *s, size_t n, err *e);
    void *ctx;
    CURL *curl;
    buf failure; /* the body of an answer that is an error */
    uint64_t record;
    err_code rc;
    err *e;
} transfer;

static size_t on_body(char *p, size_t size, size_t n, void *ctx) {
    transfer *t = ctx;
    long status = 0;
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 400) {
        buf_append(&t->failure, p, size * n);
        return size * n;
    }
    t->rc = t->on_data(t->ctx, p, size * n, t->e);
    return t->rc == ERR_OK ? size * n : 0;
}

static size_t on_header(char *p, size_t size, size_t n, void *ctx) {
    transfer *t = ctx;
    static const char name[] = "x-polder-record:";
    if (size * n > sizeof name && strncasecmp(p, name, sizeof name - 1) == 0)
        t->record = strtoull(p + sizeof name - 1, NULL, 10);
    return size * n;
}

/* The server's error object becomes an err: its type is one of our names, or the status decides. */
static err_code remote_error(const transfer *t, long status, err *e) {
    err_code code = status == 404 ? ERR_NOT_FOUND : status == 409 ? ERR_EXISTS : status == 429 ? ERR_BUSY : ERR_INVALID;
    if (status >= 500) code = ERR_UNAVAILABLE;
    cJSON *v = NULL;
    const char *msg = NULL, *type = NULL;
    if (json_parse(&v, buf_str(&t->failure), t->failure.len, "answer", NULL) == ERR_OK) {
        const cJSON *o = json_get(v, "error");
        json_get_str(o, "message", &msg, NULL);
        json_get_str(o, "code", &type, NULL);
        for (int k = 0; type && k < ERR_COUNT; k++)
            if (strcmp(err_name((err_code)k), type) == 0) code = (err_code)k;
    }
    err_set(e, code, "%s", msg ? msg : "the server answered with an error and no sentence");
    cJSON_Delete(v);
    return code;
}

err_code remote_post(const char *dir, const char *path, const char *body, size_t n,
                     err_code (*on_data)(void *, const char *, size_t, err *), void *ctx, uint64_t *seq, err *e) {
    char sock[108], url[512];
    err_code rc = socket_path(sock, sizeof sock, dir, e);
    if (rc) return rc;
    snprintf(url, sizeof url, "http://localhost%s", path);
    err local = {0};
    transfer t = {.on_data = on_data, .ctx = ctx, .failure = {.max = 1 << 20}, .e = &local};
    t.curl = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    if (!t.curl || !headers) {
        rc = err_nomem(e, "a request");
        goto out;
    }
    curl_easy_setopt(t.curl, CURLOPT_UNIX_SOCKET_PATH, sock);
    curl_easy_setopt(t.curl, CURLOPT_URL, url);
    curl_easy_setopt(t.curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(t.curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)n);
    curl_easy_setopt(t.curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(t.curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(t.curl, CURLOPT_WRITEDATA, &t);
    curl_easy_setopt(t.curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(t.curl, CURLOPT_HEADERDATA, &t);
    curl_easy_setopt(t.curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t.curl, CURLOPT_PROXY, "");
    CURLcode code = curl_easy_perform(t.curl);
    long status = 0;
    curl_easy_getinfo(t.curl, CURLINFO_RESPONSE_CODE, &status);
    if (t.rc != ERR_OK) {
        if (e) *e = local;
        rc = t.rc;
    } else if (status >= 400) {
        rc = remote_error(&t, status, e);
    } else if (code != CURLE_OK) {
        rc = err_set(e, ERR_UNAVAILABLE, "%s: the server did not answer: %s", sock, curl_easy_strerror(code));
    }
    if (seq) *seq = t.record;
out:
    curl_slist_free_all(headers);
    if (t.curl) curl_easy_cleanup(t.curl);
    buf_free(&t.failure);
    return rc;
}

static err_code collect(void *ctx, const char *s, size_t n, err *e) {
    buf_append(ctx, s, n);
    return buf_check(ctx, "the server's answer", e);
}

static err_code admin_remote(const char *dir, const char *op, const cJSON *args, cJSON **out, err *e) {
    char path[128];
    snprintf(path, sizeof path, "/api/polder/v1/%s", op);
    char *body = cJSON_PrintUnformatted(args);
    if (!body) return err_nomem(e, "a request");
    buf answer = {.max = 64u << 20};
    err_code rc = remote_post(dir, path, body, strlen(body), collect, &answer, NULL, e);
    if (rc == ERR_OK) rc = json_parse(out, buf_str(&answer), answer.len, "the server's answer", e);
    mem_wipe(body, strlen(body)); /* it may hold a credential */
    cJSON_free(body);
    buf_free(&answer);
    return rc;
}

err_code cli_admin(cli *c, const char *op, cJSON *args, cJSON **out, err *e) {
    *out = NULL;
    if (!args) return err_nomem(e, "a request");
    err_code rc;
    if (remote_is_up(c->dir)) {
        rc = admin_remote(c->dir, op, args, out, e);
    } else {
        /* what only looks takes no lock, and may run beside anything */
        const admin_op *o = admin_find(op);
        bool looks = o && o->reads;
        island *i = NULL;
        rc = island_open(&i, c->dir, looks ? ISLAND_READ : ISLAND_WRITE, e);
        if (rc == ERR_OK) rc = admin_call(i, NULL, NULL, op, args, out, e);
        island_close(i);
    }
    cJSON_Delete(args);
    return rc;
}
