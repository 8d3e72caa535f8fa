/* An island in a temporary folder with a server before it, for the doors' tests. */
#ifndef POLDER_TESTS_SERVER_WORLD_H
#define POLDER_TESTS_SERVER_WORLD_H

#include "base/file.h"
#include "base/json.h"
#include "base/metrics.h"
#include "base/sys.h"
#include "client.h"
#include "harness.h"
#include "server/server.h"

#include <dirent.h>
#include <sys/stat.h>

typedef struct world {
    char dir[300], tmp[256];
    island *isl;
    inference *inf;
    server *srv;
    int port;
    char key[4][KEY_TEXT_MAX]; /* by role */
} world;

typedef void (*world_tweak)(island_config *c);

static inline err_code world_configure(const char *dir, world_tweak tweak, err *e) {
    char path[400];
    island_config c;
    err_code rc = config_default(&c, e);
    if (rc != ERR_OK) return rc;
    c.server_drain_timeout_s = 1;
    if (tweak) tweak(&c);
    buf b = {.max = 1 << 20};
    config_write_yaml(&c, &b);
    snprintf(path, sizeof path, "%s/island.yaml", dir);
    rc = file_write_atomic(path, b.ptr, b.len, 0600, e);
    buf_free(&b);
    config_free(&c);
    return rc;
}

/* Everything but the server. */
static inline err_code world_open(world *w, world_tweak tweak, err *e) {
    memset(w, 0, sizeof *w);
    if (!test_tmpdir(w->tmp)) return err_set(e, ERR_IO, "no temporary folder");
    snprintf(w->dir, sizeof w->dir, "%s/island", w->tmp);
    err_code rc = island_init(w->dir, NULL, e);
    if (rc == ERR_OK) rc = world_configure(w->dir, tweak, e);
    if (rc == ERR_OK) rc = island_open(&w->isl, w->dir, ISLAND_WRITE, e);
    for (int r = ROLE_USER; rc == ERR_OK && r <= ROLE_ADMIN; r++) {
        identity id;
        rc = key_add(w->isl, NULL, role_name((role)r), (role)r, w->key[r], &id, e);
    }
    return rc;
}

static inline err_code world_start(world *w, err *e) {
    err_code rc = engine_init(e);
    if (rc == ERR_OK) rc = inference_open(&w->inf, w->isl, e);
    if (rc == ERR_OK) rc = server_start(&w->srv, w->isl, w->inf, "127.0.0.1:0", e);
    if (rc == ERR_OK) w->port = server_port(w->srv);
    return rc;
}

static inline void world_end(world *w) {
    server_stop(w->srv);
    inference_close(w->inf);
    island_close(w->isl);
    if (w->tmp[0]) test_rm(w->tmp);
    memset(w, 0, sizeof *w);
}

static void *no_work(void *arg) {
    return arg;
}

/* Threads of this process. One is made first: sanitizers start a thread of their own with the first one. */
static inline int count_tasks(void) {
    pthread_t t;
    if (pthread_create(&t, NULL, no_work, NULL) == 0) pthread_join(t, NULL);
    int n = 0;
    for (int ms = 0; ms < 1000; ms += 5) { /* a joined thread may be listed for a moment */
        int now = 0;
        DIR *d = opendir("/proc/self/task");
        struct dirent *de;
        while (d && (de = readdir(d))) now += de->d_name[0] != '.';
        if (d) closedir(d);
        if (now == n) break;
        n = now;
        usleep(5000);
    }
    return n;
}

/* The member of an object in a reply's JSON body by a path like "choices.0.text"; NULL where absent. */
static inline const cJSON *json_at(const cJSON *v, const char *path) {
    char step[64];
    while (v && *path) {
        size_t n = strcspn(path, ".");
        snprintf(step, sizeof step, "%.*s", (int)n, path);
        v = cJSON_IsArray(v) ? cJSON_GetArrayItem(v, atoi(step)) : cJSON_GetObjectItemCaseSensitive(v, step);
        path += n + (path[n] == '.');
    }
    return v;
}
static inline const char *str_at(const cJSON *v, const char *path) {
    return cJSON_GetStringValue(json_at(v, path));
}
static inline double num_at(const cJSON *v, const char *path) {
    const cJSON *m = json_at(v, path);
    return m && cJSON_IsNumber(m) ? m->valuedouble : -1e300;
}

/* The text of all content/text pieces of choice `index` in an SSE body, in order; *events counts events. */
static inline void sse_text(const char *body, int index, buf *out, int *events) {
    *events = 0;
    for (const char *p = body; (p = strstr(p, "data: "));) {
        p += 6;
        const char *end = strstr(p, "\n\n");
        if (!end) break;
        ++*events;
        cJSON *v = cJSON_ParseWithLength(p, (size_t)(end - p));
        const cJSON *c;
        cJSON_ArrayForEach(c, cJSON_GetObjectItem(v, "choices")) {
            const char *t = str_at(c, "delta.content");
            if (!t) t = str_at(c, "text");
            if (t && (int)num_at(c, "index") == index) buf_puts(out, t);
        }
        cJSON_Delete(v);
    }
    if (!out->ptr) buf_puts(out, "");
}

#endif
