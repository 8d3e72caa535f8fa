/* store: rows. What breaks these: a write that is not on disk when it returns, a half transaction, a reader that
 * changes a file, a database that should have been refused. */
#include "harness.h"

#include "base/file.h"
#include "base/mem.h"
#include "store/store.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const store_migration steps[] = {
    {"test", 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, raw BLOB, r REAL) STRICT"},
    {"test", 2, "CREATE TABLE child(t INTEGER NOT NULL REFERENCES t(id)) STRICT; CREATE INDEX child_t ON child(t)"},
};
static const size_t n_steps = sizeof steps / sizeof steps[0];

static char dir[256];
static const char *sub(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static store *open_ok(bool read_only) {
    store *s = NULL;
    err e = {0};
    if (store_open(&s, sub("store"), steps, n_steps, read_only, &e) != ERR_OK) fprintf(stderr, "open: %s\n", e.msg);
    return s;
}

static err_code add(store *s, const char *name, err *e) {
    return store_write(s, "INSERT INTO t(name) VALUES(?)", (store_val[]){SV_TEXT(name)}, 1, NULL, e);
}

/* -1: the query failed */
static int64_t count(store *s, const char *sql) {
    store_stmt *q;
    err e = {0};
    if (store_query(&q, s, sql, NULL, 0, &e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.msg);
        return -1;
    }
    int64_t n = store_step(q, &e) ? store_col_int(q, 0) : -1;
    if (n < 0) fprintf(stderr, "%s\n", e.msg);
    store_finish(q);
    return n;
}
#define ROWS(s) count(s, "SELECT count(*) FROM t")

TEST(store_values) {
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    int64_t changed;
    store_val v[] = {SV_TEXT("one"), SV_BLOB("\0\1\2", 3), {.kind = STORE_REAL, .r = 0.5}};
    CHECK_OK(store_write(s, "INSERT INTO t(name, raw, r) VALUES(?, ?, ?)", v, 3, &changed, &e), e);
    CHECK_INT(changed, 1);
    v[0] = SV_TEXT("two");
    v[1] = SV_NULL;
    CHECK_OK(store_write(s, "INSERT INTO t(name, raw, r) VALUES(?, ?, ?)", v, 3, &changed, &e), e);
    store_stmt *q;
    CHECK_OK(store_query(&q, s, "SELECT name, raw, r, id FROM t ORDER BY id", NULL, 0, &e), e);
    size_t n;
    CHECK(store_step(q, &e));
    CHECK_STR(store_col_text(q, 0, &n), "one");
    CHECK_INT(n, 3);
    const void *raw = store_col_blob(q, 1, &n);
    CHECK(n == 3 && memcmp(raw, "\0\1\2", 3) == 0);
    CHECK(store_col_real(q, 2) == 0.5);
    CHECK(store_step(q, &e));
    CHECK(store_col_blob(q, 1, &n) == NULL && n == 0);
    CHECK(store_col_is_null(q, 1));
    e.code = ERR_IO;
    CHECK(!store_step(q, &e));
    CHECK_INT(e.code, ERR_OK);
    store_finish(q);
    CHECK_OK(store_write(s, "UPDATE t SET r = 1", NULL, 0, &changed, &e), e);
    CHECK_INT(changed, 2);
    store_close(s);
    s = open_ok(false);
    CHECK(s);
    CHECK_INT(ROWS(s), 2);
    CHECK_OK(store_check(s, &e), e);
    store_close(s);
}

TEST(store_constraints) {
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    CHECK_OK(add(s, "a", &e), e);
    CHECK_INT(add(s, "a", &e), ERR_EXISTS);
    CHECK_HAS(e.msg, "UNIQUE");
    CHECK_HAS(e.msg, "polder.db");
    CHECK_INT(add(s, NULL, &e), ERR_INVALID); /* NOT NULL */
    /* foreign keys are on, and tables are STRICT */
    CHECK_INT(store_write(s, "INSERT INTO child(t) VALUES(99)", NULL, 0, NULL, &e), ERR_INVALID);
    CHECK_INT(store_write(s, "INSERT INTO child(t) VALUES('x')", NULL, 0, NULL, &e), ERR_INVALID);
    /* one statement, the right number of values, no writing queries, no quoted text as identifiers */
    CHECK_INT(store_write(s, "DELETE FROM t; DELETE FROM child", NULL, 0, NULL, &e), ERR_INTERNAL);
    CHECK_INT(store_write(s, "DELETE FROM t WHERE id = ?", NULL, 0, NULL, &e), ERR_INTERNAL);
    store_stmt *q;
    CHECK_INT(store_query(&q, s, "DELETE FROM t", NULL, 0, &e), ERR_INTERNAL);
    CHECK(q == NULL);
    CHECK(store_query(&q, s, "SELECT \"nothing\"", NULL, 0, &e) != ERR_OK);
    CHECK(store_query(&q, s, "SELECT load_extension('x')", NULL, 0, &e) != ERR_OK || !store_step(q, &e));
    store_finish(q);
    CHECK_INT(ROWS(s), 1);
    store_close(s);
}

static err_code two_rows(store *s, void *ctx, err *e) {
    err_code code = add(s, "x", e);
    if (code != ERR_OK) return code;
    if (ROWS(s) != 1) return err_set(e, ERR_INTERNAL, "a transaction does not see its own write");
    code = add(s, "y", e);
    if (code == ERR_OK && ctx) code = err_set(e, *(err_code *)ctx, "as asked");
    return code;
}

TEST(store_transactions) {
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    err_code asked = ERR_CANCELLED;
    CHECK_INT(store_transaction(s, two_rows, &asked, &e), ERR_CANCELLED);
    CHECK_STR(e.msg, "as asked");
    CHECK_INT(ROWS(s), 0);
    CHECK_OK(store_transaction(s, two_rows, NULL, &e), e);
    CHECK_INT(ROWS(s), 2);
    store_close(s);
}

static err_code inner(store *s, void *ctx, err *e) {
    err_code code = add(s, "inner", e);
    return code == ERR_OK && *(bool *)ctx ? err_set(e, ERR_CANCELLED, "inner fails") : code;
}
static err_code outer(store *s, void *ctx, err *e) {
    err_code code = add(s, "outer", e);
    if (code == ERR_OK && store_transaction(s, inner, ctx, e) != ERR_OK) code = add(s, "instead", e);
    return code;
}

TEST(store_nested_transactions) {
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    bool fail = true;
    CHECK_OK(store_transaction(s, outer, &fail, &e), e);
    CHECK_INT(count(s, "SELECT count(*) FROM t WHERE name IN ('outer', 'instead')"), 2);
    CHECK_INT(ROWS(s), 2);
    CHECK_OK(store_write(s, "DELETE FROM t", NULL, 0, NULL, &e), e);
    fail = false;
    CHECK_OK(store_transaction(s, outer, &fail, &e), e);
    CHECK_INT(count(s, "SELECT count(*) FROM t WHERE name IN ('outer', 'inner')"), 2);
    store_close(s);
}

/* Eight threads, each with writes, transactions and queries at once: all rows are there and nothing deadlocks. */
static store *shared_store;
static err_code pair(store *s, void *ctx, err *e) {
    char name[64];
    snprintf(name, sizeof name, "%s-a", (char *)ctx);
    err_code code = add(s, name, e);
    snprintf(name, sizeof name, "%s-b", (char *)ctx);
    return code == ERR_OK ? add(s, name, e) : code;
}
static void *busy_thread(void *arg) {
    char name[32];
    intptr_t bad = 0;
    for (int i = 0; i < 10; i++) {
        err e = {0};
        snprintf(name, sizeof name, "%d-%d", *(int *)arg, i);
        if (i % 2 ? store_transaction(shared_store, pair, name, &e) : add(shared_store, name, &e)) bad++;
        if (ROWS(shared_store) <= i) bad++; /* a thread sees its own acknowledged writes */
    }
    return (void *)bad;
}

TEST(store_threads) {
    shared_store = open_ok(false);
    CHECK(shared_store);
    pthread_t t[8];
    int ids[8];
    intptr_t bad = 0;
    for (int i = 0; i < 8; i++) {
        ids[i] = i;
        if (pthread_create(&t[i], NULL, busy_thread, &ids[i]) != 0) FAIL("no thread");
    }
    for (int i = 0; i < 8; i++) {
        void *r;
        pthread_join(t[i], &r);
        bad += (intptr_t)r;
    }
    CHECK_INT(bad, 0);
    CHECK_INT(ROWS(shared_store), 8 * 15);
    store_close(shared_store);
}

TEST(store_many_queries_at_once) {
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    store_stmt *q[65] = {0};
    int open = 0;
    while (open < 65 && store_query(&q[open], s, "SELECT count(*) FROM t", NULL, 0, &e) == ERR_OK) {
        CHECK(store_step(q[open], &e));
        open++;
    }
    CHECK_INT(open, 64);
    CHECK_INT(e.code, ERR_BUSY);
    for (int i = 0; i < open; i++) store_finish(q[i]);
    CHECK_INT(ROWS(s), 0);
    store_close(s);
}

/* ---- migrations ------------------------------------------------------------------------------------------ */

TEST(store_migrations) {
    store *s;
    err e = {0};
    CHECK_OK(store_open(&s, sub("store"), steps, 1, false, &e), e);
    CHECK_OK(add(s, "kept", &e), e);
    store_close(s);
    /* an older database read by a newer program: only writing upgrades it */
    CHECK_INT(store_open(&s, sub("store"), steps, 2, true, &e), ERR_UNAVAILABLE);
    CHECK_HAS(e.msg, "older polder");
    CHECK_OK(store_open(&s, sub("store"), steps, 2, false, &e), e);
    CHECK_INT(ROWS(s), 1);
    CHECK_INT(count(s, "SELECT count(*) FROM store_migration"), 2);
    store_close(s);
    /* a newer database */
    CHECK_INT(store_open(&s, sub("store"), steps, 1, false, &e), ERR_UNSUPPORTED);
    CHECK(s == NULL);
    CHECK_HAS(e.msg, "newer polder");
    CHECK_INT(store_open(&s, sub("store"), steps, 1, true, &e), ERR_UNSUPPORTED);
}

TEST(store_migrate_of_a_room_above) {
    static const store_migration above[] = {{"above", 1, "CREATE TABLE above(x INTEGER) STRICT"}};
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    store_close(s);
    s = open_ok(true);
    CHECK(s);
    CHECK_INT(store_migrate(s, above, 1, &e), ERR_NOT_FOUND);
    store_close(s);
    s = open_ok(false);
    CHECK(s);
    CHECK_OK(store_migrate(s, above, 1, &e), e);
    CHECK_OK(store_migrate(s, above, 1, &e), e);
    CHECK_INT(count(s, "SELECT count(*) FROM above"), 0);
    store_close(s);
    s = open_ok(true);
    CHECK(s);
    CHECK_OK(store_migrate(s, above, 1, &e), e);
    store_close(s);
}

TEST(store_failed_migration_changes_nothing) {
    static const store_migration bad[] = {
        {"bad", 1, "CREATE TABLE bad_one(x INTEGER) STRICT"},
        {"bad", 2, "CREATE TABLE bad_two(x INTEGER) STRICT; CREATE TABLE bad_one(x INTEGER) STRICT"},
    };
    static const store_migration gap[] = {{"gap", 2, "CREATE TABLE gap(x INTEGER) STRICT"}};
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    CHECK(store_migrate(s, bad, 2, &e) != ERR_OK);
    CHECK_HAS(e.msg, "step 2 of bad");
    CHECK_INT(count(s, "SELECT count(*) FROM sqlite_schema WHERE name = 'bad_two'"), 0);
    CHECK_INT(count(s, "SELECT max(version) FROM store_migration WHERE room = 'bad'"), 1);
    CHECK_INT(store_migrate(s, gap, 1, &e), ERR_INTERNAL);
    store_close(s);
}

/* ---- files that are not ours, or damaged ------------------------------------------------------------------ */

static void put_file(const char *path, const char *p, size_t n) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n) abort();
    fclose(f);
}

TEST(store_refuses_what_is_not_its_own) {
    store *s;
    err e = {0};
    char path[600];
    CHECK_OK(file_make_dirs(sub("store"), 0700, &e), e);
    snprintf(path, sizeof path, "%s/polder.db", sub("store"));
    char junk[8192];
    memset(junk, 'j', sizeof junk);
    put_file(path, junk, sizeof junk);
    for (int ro = 0; ro < 2; ro++) {
        CHECK_INT(store_open(&s, sub("store"), steps, n_steps, ro, &e), ERR_CORRUPT);
        CHECK(s == NULL);
        CHECK_HAS(e.msg, path);
        CHECK_HAS(e.msg, "restore it from a backup");
    }
    CHECK(unlink(path) == 0);
    sqlite3 *db;
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    CHECK(sqlite3_exec(db, "CREATE TABLE somebody(x)", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(db);
    for (int ro = 0; ro < 2; ro++) {
        CHECK_INT(store_open(&s, sub("store"), steps, n_steps, ro, &e), ERR_INVALID);
        CHECK_HAS(e.msg, "another program");
    }
    CHECK_INT(store_open(&s, sub("absent"), steps, n_steps, true, &e), ERR_NOT_FOUND);
    CHECK(!file_exists(sub("absent")));
}

/* Every page but the first is overwritten in turn: either the open or the check says so, nothing crashes. */
TEST(store_finds_damaged_pages) {
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    char name[600], path[600];
    for (int i = 0; i < 60; i++) {
        memset(name, 'a' + i % 26, 500);
        snprintf(name + 480, sizeof name - 480, "%d", i);
        CHECK_OK(add(s, name, &e), e);
    }
    store_close(s);
    snprintf(path, sizeof path, "%s/polder.db", sub("store"));
    struct stat st;
    CHECK(stat(path, &st) == 0);
    int pages = (int)(st.st_size / 4096), found = 0;
    for (int page = 1; page < pages; page++) {
        char keep[4096], bad[4096];
        int fd = open(path, O_RDWR);
        CHECK(fd >= 0 && pread(fd, keep, sizeof keep, page * 4096L) == sizeof keep);
        memset(bad, 0x5a, sizeof bad);
        CHECK(pwrite(fd, bad, sizeof bad, page * 4096L) == sizeof bad);
        close(fd);
        err_code code = store_open(&s, sub("store"), steps, n_steps, true, &e);
        if (code == ERR_OK) code = store_check(s, &e);
        store_close(s);
        if (code == ERR_CORRUPT && strstr(e.msg, path)) found++;
        fd = open(path, O_RDWR);
        CHECK(fd >= 0 && pwrite(fd, keep, sizeof keep, page * 4096L) == sizeof keep);
        close(fd);
    }
    CHECK(pages > 5);
    CHECK_INT(found, pages - 1);
    s = open_ok(true);
    CHECK(s);
    CHECK_OK(store_check(s, &e), e);
    store_close(s);
}

/* ---- reading changes nothing ------------------------------------------------------------------------------ */

/* One digest over names, sizes, modes and bytes of a folder's files, taken in another process: closing a file that
 * SQLite has open here would drop its locks. */
static void folder_digest(const char *path, char out[256]) {
    char cmd[1200];
    snprintf(cmd, sizeof cmd,
             "cd '%s' && { find . -printf '%%p %%s %%m %%T@\\n'; find . -type f -print0 | xargs -0 -r sha256sum; } | "
             "sort | sha256sum",
             path);
    FILE *p = popen(cmd, "r");
    out[0] = 0;
    if (!p || !fgets(out, 256, p)) abort();
    pclose(p);
}

/* Runs fn in a child: 0 where it returned true. */
static int in_child(bool (*fn)(void *), void *ctx) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) _exit(fn(ctx) ? 0 : 1);
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool read_rows(void *want) {
    char name[] = "no";
    err e = {0};
    store *s = open_ok(true);
    if (!s) return false;
    bool ok =
        ROWS(s) == *(int *)want && add(s, "no", &e) == ERR_DENIED && store_transaction(s, pair, name, &e) == ERR_DENIED;
    store_close(s);
    return ok;
}

/* A writer in a process of its own: a row for each byte that it gets. The test itself must not have the database open
 * when it forks, or the reader here would share SQLite's index with the writer. */
static void writer_process(int from, int to) {
    err e = {0};
    char c;
    store *s = NULL;
    for (int i = 1; read(from, &c, 1) == 1; i++) {
        char name[16];
        if (!s) s = open_ok(false);
        if (!s) _exit(1);
        snprintf(name, sizeof name, "%d", i);
        if (add(s, name, &e) != ERR_OK || write(to, "k", 1) != 1) _exit(1);
    }
    store_close(s);
    _exit(s ? 0 : 1);
}

TEST(store_reading_beside_a_writer) {
    char before[256], after[256], c;
    int order[2], reply[2], status;
    store_close(open_ok(false));
    CHECK(pipe(order) == 0 && pipe(reply) == 0);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        close(order[1]);
        writer_process(order[0], reply[1]);
    }
    close(order[0]);
    close(reply[1]);
    store *r = open_ok(true); /* there before the writer is, and stays */
    CHECK(r);
    CHECK_INT(ROWS(r), 0);
    for (int rows = 1; rows <= 3; rows++) {
        CHECK(write(order[1], "w", 1) == 1 && read(reply[0], &c, 1) == 1);
        folder_digest(dir, before);
        CHECK(read_rows(&rows));
        CHECK_INT(ROWS(r), rows);
        folder_digest(dir, after);
        CHECK_STR(after, before);
    }
    store_close(r);
    close(order[1]);
    close(reply[0]);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    int rows = 3;
    folder_digest(dir, before); /* closed cleanly */
    CHECK(read_rows(&rows));
    folder_digest(dir, after);
    CHECK_STR(after, before);
}

static bool write_and_die(void *ctx) {
    (void)ctx;
    err e = {0};
    store *s = open_ok(false);
    if (!s || add(s, "crash", &e) != ERR_OK) return false;
    _exit(0); /* no close: the row is in the WAL only */
}

TEST(store_reading_after_a_crash) {
    char before[256], after[256], path[600];
    CHECK_INT(in_child(write_and_die, NULL), 0);
    int rows = 1;
    folder_digest(dir, before);
    CHECK_INT(in_child(read_rows, &rows), 0);
    folder_digest(dir, after);
    CHECK_STR(after, before);
    /* without the index only a writer can take the WAL over: refused, and nothing is made */
    snprintf(path, sizeof path, "%s/polder.db-shm", sub("store"));
    CHECK(unlink(path) == 0);
    folder_digest(dir, before);
    store *s;
    err e = {0};
    CHECK_INT(store_open(&s, sub("store"), steps, n_steps, true, &e), ERR_UNAVAILABLE);
    CHECK_HAS(e.msg, "-shm");
    folder_digest(dir, after);
    CHECK_STR(after, before);
    s = open_ok(false);
    CHECK(s);
    CHECK_INT(ROWS(s), 1); /* the acknowledged row has survived */
    store_close(s);
    /* a copy without both side files */
    CHECK(unlink(path) == 0);
    snprintf(path, sizeof path, "%s/polder.db-wal", sub("store"));
    CHECK(unlink(path) == 0);
    folder_digest(dir, before);
    CHECK_INT(in_child(read_rows, &rows), 0);
    folder_digest(dir, after);
    CHECK_STR(after, before);
}

/* A reader that began without locks, because nobody wrote, says so when a writer has come. */
TEST(store_reading_a_copy_that_gets_a_writer) {
    store *s = open_ok(false), *r;
    CHECK(s);
    err e = {0};
    CHECK_OK(add(s, "a", &e), e);
    store_close(s);
    char path[600];
    snprintf(path, sizeof path, "%s/polder.db-shm", sub("store"));
    CHECK(unlink(path) == 0);
    snprintf(path, sizeof path, "%s/polder.db-wal", sub("store"));
    CHECK(unlink(path) == 0);
    r = open_ok(true);
    CHECK(r);
    store_stmt *q;
    CHECK_OK(store_query(&q, r, "SELECT name FROM t", NULL, 0, &e), e);
    CHECK(store_step(q, &e));
    CHECK_INT(in_child(write_and_die, NULL), 0);
    CHECK(!store_step(q, &e));
    CHECK_INT(e.code, ERR_UNAVAILABLE);
    store_finish(q);
    CHECK_INT(ROWS(r), 2); /* the next query looks anew */
    store_close(r);
}

TEST(store_file_modes_and_odd_paths) {
    store *s;
    err e = {0};
    struct stat st;
    char path[600];
    CHECK_OK(store_open(&s, sub("a b?c=#%41"), steps, n_steps, false, &e), e);
    CHECK_OK(add(s, "a", &e), e);
    static const char *const names[] = {"polder.db", "polder.db-wal", "polder.db-shm"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", sub("a b?c=#%41"), names[i]);
        CHECK(stat(path, &st) == 0);
        CHECK_INT(st.st_mode & 0777, 0600);
    }
    store_close(s);
    CHECK_OK(store_open(&s, sub("a b?c=#%41"), steps, n_steps, true, &e), e);
    CHECK_INT(ROWS(s), 1);
    store_close(s);
}

/* ---- faults ---------------------------------------------------------------------------------------------- */

static bool fill_disk(void *ctx) {
    (void)ctx;
    err e = {0};
    store *s = open_ok(false);
    if (!s || add(s, "before", &e) != ERR_OK) return false;
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit was, lim;
    getrlimit(RLIMIT_FSIZE, &was);
    lim = was;
    lim.rlim_cur = 200 * 1024;
    setrlimit(RLIMIT_FSIZE, &lim);
    static char big[20000];
    memset(big, 'b', sizeof big - 1);
    int kept = 0;
    err_code code = ERR_OK;
    for (int i = 0; i < 100 && code == ERR_OK; i++) {
        store_val v[] = {SV_INT(i + 100), SV_BLOB(big, sizeof big)};
        code =
            store_write(s, "INSERT INTO t(name, raw) VALUES(?1, ?2)", (store_val[]){SV_TEXT("x"), v[1]}, 2, NULL, &e);
        if (code == ERR_OK)
            code = store_write(s, "UPDATE t SET name = 'row' || id WHERE name = 'x'", NULL, 0, NULL, &e);
        if (code == ERR_OK) kept++;
    }
    if (code != ERR_IO || !strstr(e.msg, "polder.db")) {
        fprintf(stderr, "full disk: %d %s\n", code, e.msg);
        return false;
    }
    /* acknowledged rows are there, the store goes on when there is room again */
    bool ok = ROWS(s) >= kept + 1;
    setrlimit(RLIMIT_FSIZE, &was);
    ok = ok && add(s, "after", &e) == ERR_OK && store_check(s, &e) == ERR_OK;
    store_close(s);
    return ok;
}

TEST(store_full_disk) {
    CHECK_INT(in_child(fill_disk, NULL), 0);
}

static err_code full_transaction(store *s, void *ctx, err *e) {
    struct rlimit *lim = ctx;
    err_code code = add(s, "tx-1", e);
    setrlimit(RLIMIT_FSIZE, lim);
    static char big[6000000];
    /* larger than the page cache: SQLite must write, fails, and ends the transaction by itself */
    if (code == ERR_OK)
        code = store_write(s, "INSERT INTO t(name, raw) VALUES('big', ?)", (store_val[]){SV_BLOB(big, sizeof big)}, 1,
                           NULL, e);
    if (code == ERR_OK) return err_set(e, ERR_INTERNAL, "the disk was not full");
    err e2 = {0};
    add(s, "tx-2", &e2); /* careless: goes on; must not be committed alone */
    return ERR_OK;
}

static bool lose_transaction(void *ctx) {
    (void)ctx;
    err e = {0};
    store *s = open_ok(false);
    if (!s) return false;
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit was, lim;
    getrlimit(RLIMIT_FSIZE, &was);
    lim = was;
    lim.rlim_cur = 400 * 1024;
    err_code code = store_transaction(s, full_transaction, &lim, &e);
    setrlimit(RLIMIT_FSIZE, &was);
    /* either all of it was taken back, or what was left is what a caller who ignores errors asked for: never tx-2 alone
     */
    bool ok = count(s, "SELECT count(*) FROM t WHERE name = 'tx-2'") ==
              count(s, "SELECT count(*) FROM t WHERE name = 'tx-1'");
    if (code == ERR_OK)
        ok = ok && ROWS(s) == 2;
    else
        ok = ok && ROWS(s) == 0;
    ok = ok && add(s, "after", &e) == ERR_OK;
    store_close(s);
    return ok;
}

TEST(store_transaction_on_a_full_disk) {
    CHECK_INT(in_child(lose_transaction, NULL), 0);
}

/* Allocations of polder's code and of SQLite (main gives it mem_*) fail in turn, from open to close: a sentence each
 * time, no crash, no leak of a lock, and the next try works. */
TEST(store_allocation_failures) {
    int64_t fails = 0;
    for (int64_t n = 0; n < 3000; n += n < 300 ? 1 : 13) {
        err e = {0};
        store *s = NULL;
        mem_fail_after(n);
        err_code code = store_open(&s, sub("store"), steps, n_steps, n % 3 == 2 && n > 2, &e);
        if (code == ERR_OK && !store_read_only(s)) {
            code = store_write(s, "DELETE FROM t", NULL, 0, NULL, &e);
            if (code == ERR_OK) code = store_transaction(s, two_rows, NULL, &e);
        }
        if (code == ERR_OK) {
            store_stmt *q;
            code = store_query(&q, s, "SELECT name FROM t", NULL, 0, &e);
            while (code == ERR_OK && store_step(q, &e)) store_col_text(q, 0, NULL);
            if (code == ERR_OK) code = e.code;
            store_finish(q);
        }
        store_close(s);
        mem_fail_after(-1);
        if (code != ERR_OK) {
            fails++;
            if (!e.msg[0]) FAIL("allocation %lld: no sentence", (long long)n);
        }
    }
    CHECK(fails > 100);
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    CHECK_OK(store_check(s, &e), e);
    store_close(s);
}

/* mem_* for SQLite, with the length in front. */
static void *lite_malloc(int n) {
    int64_t *p = mem_alloc((size_t)n + 16);
    if (!p) return NULL;
    p[0] = n;
    return p + 2;
}
static void lite_free(void *p) {
    if (p) mem_free((int64_t *)p - 2);
}
static void *lite_realloc(void *p, int n) {
    int64_t *q = mem_realloc((int64_t *)p - 2, (size_t)n + 16);
    if (!q) return NULL;
    q[0] = n;
    return q + 2;
}
static int lite_size(void *p) {
    return p ? (int)((int64_t *)p)[-2] : 0;
}
static int lite_roundup(int n) {
    return (n + 15) & ~15;
}
static int lite_init(void *ctx) {
    return SQLITE_OK;
}
static void lite_shutdown(void *ctx) {}

static void run(const char *name, void (*fn)(void)) {
    if (!test_tmpdir(dir)) abort();
    test_run(name, fn);
    test_rm(dir);
}
#undef RUN
#define RUN(name) run(#name, test_case_##name)

int main(int argc, char **argv) {
    static const sqlite3_mem_methods methods = {lite_malloc,  lite_free, lite_realloc,  lite_size,
                                                lite_roundup, lite_init, lite_shutdown, NULL};
    test_begin(argc, argv);
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) != SQLITE_OK) return 1;
    RUN(store_values);
    RUN(store_constraints);
    RUN(store_transactions);
    RUN(store_nested_transactions);
    RUN(store_threads);
    RUN(store_many_queries_at_once);
    RUN(store_migrations);
    RUN(store_migrate_of_a_room_above);
    RUN(store_failed_migration_changes_nothing);
    RUN(store_refuses_what_is_not_its_own);
    RUN(store_finds_damaged_pages);
    RUN(store_reading_beside_a_writer);
    RUN(store_reading_after_a_crash);
    RUN(store_reading_a_copy_that_gets_a_writer);
    RUN(store_file_modes_and_odd_paths);
    RUN(store_full_disk);
    RUN(store_transaction_on_a_full_disk);
    RUN(store_allocation_failures);
    return test_end();
}
