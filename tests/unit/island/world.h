/* An island in a fresh folder, for tests of keys, projects and limits. */
#ifndef POLDER_TESTS_ISLAND_WORLD_H
#define POLDER_TESTS_ISLAND_WORLD_H

#include "harness.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/sys.h"
#include "island/internal.h"

#include <sqlite3.h>

static char dir[256], isl[300];

static island *open_ok(void) {
    island *i = NULL;
    err e = {0};
    if (island_open(&i, isl, ISLAND_WRITE, &e) != ERR_OK) fprintf(stderr, "open: %s\n", e.msg);
    return i;
}

/* How many records of an event have this text in them. */
static inline int records(island *i, const char *event, const char *text) {
    int found = 0;
    char want[100];
    snprintf(want, sizeof want, "\"event\":\"%s\"", event);
    for (uint64_t seq = 0; seq < ledger_size(island_ledger(i)); seq++) {
        buf b = {.max = LEDGER_ENTRY_MAX};
        if (ledger_read(island_ledger(i), seq, &b, NULL) == ERR_OK)
            found += strstr(buf_str(&b), want) && (!text || strstr(buf_str(&b), text));
        buf_free(&b);
    }
    return found;
}

/* A statement from outside, as who can edit the database would make it. */
static inline bool edit(const char *sql) {
    char path[400];
    sqlite3 *db;
    snprintf(path, sizeof path, "%s/store/polder.db", isl);
    bool ok = sqlite3_open(path, &db) == SQLITE_OK && sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
    sqlite3_close(db);
    return ok;
}

/* The JSON of a report as text; mem is cJSON's. */
static inline bool json_has(const cJSON *o, const char *text) {
    char *s = cJSON_PrintUnformatted(o);
    bool has = s && strstr(s, text);
    if (!has) fprintf(stderr, "no %s in %s\n", text, s ? s : "NULL");
    cJSON_free(s);
    return has;
}

static inline void world_run(const char *name, void (*fn)(void)) {
    err e = {0};
    if (!test_tmpdir(dir)) abort();
    snprintf(isl, sizeof isl, "%s/isl", dir);
    if (island_init(isl, NULL, &e) != ERR_OK) fprintf(stderr, "init: %s\n", e.msg);
    test_run(name, fn);
    test_rm(dir);
}
#undef RUN
#define RUN(name) world_run(#name, test_case_##name)

#endif
