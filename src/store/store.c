/* store: opening, migrations, closing.
 *
 * Reading without changing a byte (read_only)
 *   The writer keeps polder.db-wal (emptied) and polder.db-shm when it closes (SQLITE_FCNTL_PERSIST_WAL). So a reader
 *   finds both and opens them without the right to write (mode=ro, readonly_shm=1): beside a living writer it takes
 *   shared locks, after a crash SQLite builds the index of the WAL in its own memory.
 *     -wal absent (a copy of the folder without it)  nobody writes: immutable=1, no locks, no files made
 *     -wal with bytes, -shm absent                   refused: only a writer can take the WAL over
 *   Without PERSIST_WAL a reader would have to create both files, which it must not.
 */
#include "store/internal.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- one connection -------------------------------------------------------------------------------------- */

/* What a row, a statement or a hostile file may cost. Nothing of ours comes near. */
static void set_limits(sqlite3 *db) {
    static const struct {
        int id, value;
    } limits[] = {
        {SQLITE_LIMIT_LENGTH, STORE_VALUE_MAX},
        {SQLITE_LIMIT_SQL_LENGTH, STORE_SQL_MAX},
        {SQLITE_LIMIT_COLUMN, 200},
        {SQLITE_LIMIT_EXPR_DEPTH, 200},
        {SQLITE_LIMIT_COMPOUND_SELECT, 50},
        {SQLITE_LIMIT_VDBE_OP, 1000000},
        {SQLITE_LIMIT_FUNCTION_ARG, 32},
        {SQLITE_LIMIT_ATTACHED, 0},
        {SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000},
        {SQLITE_LIMIT_VARIABLE_NUMBER, 1000},
        {SQLITE_LIMIT_TRIGGER_DEPTH, 10},
        {SQLITE_LIMIT_WORKER_THREADS, 0},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) sqlite3_limit(db, limits[i].id, limits[i].value);
}

static err_code exec(store *s, sqlite3 *db, const char *sql, err *e) {
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? ERR_OK : store_sql_error(s, db, rc, sql, e);
}

static err_code ask_int(store *s, sqlite3 *db, const char *sql, int64_t *out, err *e) {
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) *out = sqlite3_column_int64(st, 0);
    err_code code = ERR_OK;
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) code = store_sql_error(s, db, rc, sql, e);
    sqlite3_finalize(st);
    return code;
}

static err_code set_defences(store *s, sqlite3 *db, err *e) {
    static const struct {
        int op, value;
    } options[] = {
        {SQLITE_DBCONFIG_DEFENSIVE, 1},
        {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
        {SQLITE_DBCONFIG_ENABLE_FKEY, 1},
        {SQLITE_DBCONFIG_DQS_DML, 0},
        {SQLITE_DBCONFIG_DQS_DDL, 0},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        int rc = sqlite3_db_config(db, options[i].op, options[i].value, NULL);
        if (rc != SQLITE_OK) return store_sql_error(s, db, rc, "setting its defences", e);
    }
    set_limits(db);
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, STORE_BUSY_MS);
    return exec(s, db, "PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY", e);
}

static err_code set_durability(store *s, sqlite3 *db, err *e) {
    sqlite3_stmt *st = NULL;
    const char *sql = "PRAGMA journal_mode=WAL";
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_step(st);
    bool wal = false;
    if (rc == SQLITE_ROW) {
        const char *mode = (const char *)sqlite3_column_text(st, 0);
        wal = mode && strcmp(mode, "wal") == 0;
        rc = SQLITE_OK;
    }
    err_code code = rc == SQLITE_OK ? ERR_OK : store_sql_error(s, db, rc, sql, e);
    sqlite3_finalize(st);
    if (code != ERR_OK) return code;
    if (!wal)
        return err_set(e, ERR_UNSUPPORTED, "%s: this file system does not carry a write-ahead log; use a local disk",
                       s->path);
    int persist = 1;
    rc = sqlite3_file_control(db, "main", SQLITE_FCNTL_PERSIST_WAL, &persist);
    if (rc != SQLITE_OK) return store_sql_error(s, db, rc, "keeping the write-ahead log", e);
    return exec(s, db,
                "PRAGMA synchronous=FULL; PRAGMA secure_delete=ON; PRAGMA foreign_keys=ON; "
                "PRAGMA journal_size_limit=16777216",
                e);
}

/* file:PATH?OPTIONS with what a URI would take for itself escaped. */
static err_code make_uri(const store *s, const char *options, char *out, size_t cap, err *e) {
    size_t n = (size_t)snprintf(out, cap, "file:");
    for (const char *p = s->path; *p; p++) {
        bool plain =
            (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || strchr("/._-~", *p);
        if (n + 4 >= cap) return err_set(e, ERR_TOO_LONG, "%s: the path is too long", s->path);
        n += (size_t)snprintf(out + n, cap - n, plain ? "%c" : "%%%02X", (unsigned char)*p);
    }
    if ((size_t)snprintf(out + n, cap - n, "?%s", options) >= cap - n)
        return err_set(e, ERR_TOO_LONG, "%s: the path is too long", s->path);
    return ERR_OK;
}

static const char read_immutable[] = "immutable=1";

/* How a store of another process (or of nobody) may be read: see the top of this file. */
static err_code read_only_options(const store *s, const char **options, err *e) {
    char side[STORE_PATH_MAX + 8];
    struct stat wal;
    snprintf(side, sizeof side, "%s-wal", s->path);
    bool has_wal = stat(side, &wal) == 0;
    snprintf(side, sizeof side, "%s-shm", s->path);
    bool has_shm = access(side, R_OK) == 0;
    if (has_wal && has_shm)
        *options = "mode=ro&readonly_shm=1";
    else if (!has_wal || wal.st_size == 0)
        *options = read_immutable;
    else
        return err_set(e, ERR_UNAVAILABLE,
                       "%s: has unfinished changes in its -wal file, but no -shm file beside it, so it cannot be read "
                       "without changing it; open the island once for writing (polder doctor)",
                       s->path);
    return ERR_OK;
}

err_code conn_open(conn **out, store *s, bool writer, err *e) {
    *out = NULL;
    conn *c = mem_zalloc(sizeof *c);
    if (!c) return err_nomem(e, "a database connection");
    int rc;
    err_code code = ERR_OK;
    /* Always as a URI, so that no name of a folder is taken for one by accident. Read-write stores open their readers
     * plainly: they share the writer's index in this process. */
    char uri[3 * STORE_PATH_MAX + 64];
    const char *options = writer ? "mode=rw" : "mode=ro";
    if (s->read_only) code = read_only_options(s, &options, e);
    if (code == ERR_OK) code = make_uri(s, options, uri, sizeof uri, e);
    if (code != ERR_OK) {
        mem_free(c);
        return code;
    }
    rc = sqlite3_open_v2(uri, &c->db, SQLITE_OPEN_URI | (writer ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY), NULL);
    c->immutable = options == read_immutable;
    if (rc != SQLITE_OK) code = store_sql_error(s, c->db, rc, "opening", e);
    if (code == ERR_OK) code = set_defences(s, c->db, e);
    if (code == ERR_OK && !writer) {
        rc = sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        if (rc != SQLITE_OK) code = store_sql_error(s, c->db, rc, "opening", e);
    }
    if (code != ERR_OK) {
        conn_close(c);
        return code;
    }
    *out = c;
    return ERR_OK;
}

void conn_close(conn *c) {
    if (!c) return;
    for (int i = 0; i < STORE_CACHE; i++) {
        sqlite3_finalize(c->cache[i].st);
        mem_free(c->cache[i].sql);
    }
    sqlite3_close_v2(c->db);
    mem_free(c);
}

bool conn_outdated(const store *s, const conn *c) {
    const char *options = NULL;
    return c->immutable && (read_only_options(s, &options, NULL) != ERR_OK || options != read_immutable);
}

/* ---- migrations ------------------------------------------------------------------------------------------ */

static const char migration_table[] = "CREATE TABLE IF NOT EXISTS store_migration("
                                      "room TEXT NOT NULL, version INTEGER NOT NULL, applied_ms INTEGER NOT NULL, "
                                      "PRIMARY KEY(room, version)) STRICT, WITHOUT ROWID";

typedef struct migrate_job {
    const store_migration *m;
    size_t n;
} migrate_job;

/* The highest step of a room that the database has; 0: none. */
static err_code room_version(store *s, const char *room, int64_t *out, err *e) {
    store_stmt *q;
    *out = 0;
    err_code code = store_query(&q, s, "SELECT max(version) FROM store_migration WHERE room = ?",
                                (store_val[]){SV_TEXT(room)}, 1, e);
    if (code != ERR_OK) return code;
    err step = {0};
    if (store_step(q, &step))
        *out = store_col_int(q, 0);
    else if (step.code != ERR_OK) {
        code = step.code;
        if (e) *e = step;
    }
    store_finish(q);
    return code;
}

static int room_newest(const migrate_job *j, const char *room) {
    int newest = 0;
    for (size_t i = 0; i < j->n; i++)
        if (strcmp(j->m[i].room, room) == 0) newest = j->m[i].version;
    return newest;
}

static err_code check_room(store *s, const migrate_job *j, const char *room, int64_t have, err *e) {
    int newest = room_newest(j, room);
    if (have > newest)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: was written by a newer polder (%s is at step %lld, this program knows %d); use that one or "
                       "restore a backup",
                       s->path, room, (long long)have, newest);
    if (!s->read_only || have == newest) return ERR_OK;
    if (have == 0) return err_set(e, ERR_NOT_FOUND, "%s: has no tables of %s yet", s->path, room);
    return err_set(e, ERR_UNAVAILABLE,
                   "%s: was written by an older polder (%s is at step %lld, this program needs %d); open the island "
                   "once for writing, for example with polder up",
                   s->path, room, (long long)have, newest);
}

/* Programmer's mistakes in the list: versions of a room count from 1 without gaps. */
static err_code check_list(const store *s, const migrate_job *j, err *e) {
    for (size_t i = 0; i < j->n; i++) {
        int before = 0;
        for (size_t k = 0; k < i; k++)
            if (strcmp(j->m[k].room, j->m[i].room) == 0) before = j->m[k].version;
        if (j->m[i].version != before + 1)
            return err_set(e, ERR_INTERNAL, "%s: step %d of %s follows step %d", s->path, j->m[i].version, j->m[i].room,
                           before);
    }
    return ERR_OK;
}

typedef struct one_step {
    const store_migration *m;
} one_step;

static err_code apply_step(store *s, void *ctx, err *e) {
    const store_migration *m = ((one_step *)ctx)->m;
    int64_t have; /* asked again inside the transaction: another process may have been faster */
    err_code code = room_version(s, m->room, &have, e);
    if (code != ERR_OK || have >= m->version) return code;
    int rc = sqlite3_exec(s->writer->db, m->sql, NULL, NULL, NULL);
    if (rc != SQLITE_OK) {
        store_sql_error(s, s->writer->db, rc, "changing the tables", e);
        return err_prefix(e, "step %d of %s", m->version, m->room);
    }
    return store_write(s, "INSERT INTO store_migration(room, version, applied_ms) VALUES(?, ?, ?)",
                       (store_val[]){SV_TEXT(m->room), SV_INT(m->version), SV_INT(time_unix_ms())}, 3, NULL, e);
}

err_code store_migrate(store *s, const store_migration *m, size_t n, err *e) {
    migrate_job j = {m, n};
    err_code code = check_list(s, &j, e);
    for (size_t i = 0; i < n && code == ERR_OK; i++) {
        int64_t have;
        code = room_version(s, m[i].room, &have, e);
        if (code == ERR_OK) code = check_room(s, &j, m[i].room, have, e);
        if (code == ERR_OK && have < m[i].version) code = store_transaction(s, apply_step, &(one_step){&m[i]}, e);
    }
    return code;
}

/* ---- the store ------------------------------------------------------------------------------------------- */

/* Creates the file itself so that it and SQLite's files beside it are the owner's alone. */
static err_code create_file(store *s, err *e) {
    int fd = open(s->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) {
        close(fd); /* nothing of SQLite is open yet: no lock is lost */
        int dir = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0 || fsync(dir) != 0) {
            err_code code = err_errno(e, "%s: cannot sync the folder", s->dir);
            if (dir >= 0) close(dir);
            return code;
        }
        close(dir);
        return ERR_OK;
    }
    if (errno != EEXIST) return err_errno(e, "%s: cannot create the database", s->path);
    return ERR_OK;
}

static err_code mark_new(store *s, void *ctx, err *e) {
    (void)ctx;
    char sql[128];
    snprintf(sql, sizeof sql, "PRAGMA application_id=%d", STORE_APP_ID);
    err_code code = exec(s, s->writer->db, sql, e);
    snprintf(sql, sizeof sql, "PRAGMA user_version=%d", STORE_FORMAT);
    if (code == ERR_OK) code = exec(s, s->writer->db, sql, e);
    if (code == ERR_OK) code = exec(s, s->writer->db, migration_table, e);
    return code;
}

/* Is this polder's database, and of a format that this program knows? *fresh: it is empty. */
static err_code check_format(store *s, sqlite3 *db, bool *fresh, err *e) {
    int64_t app = 0, format = 0, objects = 0;
    err_code code = ask_int(s, db, "SELECT count(*) FROM sqlite_schema", &objects, e);
    if (code == ERR_OK) code = ask_int(s, db, "PRAGMA application_id", &app, e);
    if (code == ERR_OK) code = ask_int(s, db, "PRAGMA user_version", &format, e);
    if (code != ERR_OK) return code;
    *fresh = app == 0 && format == 0 && objects == 0;
    if (*fresh) return ERR_OK;
    if (app != STORE_APP_ID)
        return err_set(e, ERR_INVALID, "%s: is a database of another program; polder leaves it alone", s->path);
    if (format > STORE_FORMAT)
        return err_set(e, ERR_UNSUPPORTED, "%s: was written by a newer polder (format %lld, this program knows %d)",
                       s->path, (long long)format, STORE_FORMAT);
    return ERR_OK;
}

static err_code open_writer(store *s, err *e) {
    err_code code = file_make_dirs(s->dir, 0700, e);
    if (code == ERR_OK) code = create_file(s, e);
    if (code == ERR_OK) code = conn_open(&s->writer, s, true, e);
    bool fresh = false;
    if (code == ERR_OK) code = check_format(s, s->writer->db, &fresh, e);
    if (code == ERR_OK) code = set_durability(s, s->writer->db, e);
    if (code == ERR_OK && fresh) code = store_transaction(s, mark_new, NULL, e);
    if (code == ERR_OK) code = blob_open(s, e);
    return code;
}

static err_code open_reader(store *s, err *e) {
    if (!file_exists(s->path))
        return err_set(e, ERR_NOT_FOUND, "%s: there is no database; polder init makes one", s->path);
    conn *c;
    err_code code = conn_open(&c, s, false, e);
    if (code != ERR_OK) return code;
    s->n_readers++;
    bool fresh;
    code = check_format(s, c->db, &fresh, e);
    reader_give(s, c);
    if (code == ERR_OK && fresh)
        code = err_set(e, ERR_NOT_FOUND, "%s: the database is empty; its making was interrupted", s->path);
    return code;
}

err_code store_open(store **out, const char *dir, const store_migration *m, size_t n, bool read_only, err *e) {
    *out = NULL;
    char path[STORE_PATH_MAX];
    err_code code = path_join(path, sizeof path - 16, e, dir, "polder.db");
    if (code != ERR_OK) return code;
    store *s = mem_zalloc(sizeof *s);
    if (!s) return err_nomem(e, "the store");
    pthread_mutex_init(&s->write_lock, NULL);
    pthread_mutex_init(&s->pool_lock, NULL);
    atomic_init(&s->owner, NULL);
    s->read_only = read_only;
    s->dir = mem_strdup(dir);
    s->path = mem_strdup(path);
    if (!s->dir || !s->path)
        code = err_nomem(e, "the store");
    else
        code = read_only ? open_reader(s, e) : open_writer(s, e);
    if (code == ERR_OK) code = store_migrate(s, m, n, e);
    if (code != ERR_OK) {
        store_close(s);
        return code;
    }
    *out = s;
    return ERR_OK;
}

void store_close(store *s) {
    if (!s) return;
    for (int i = 0; i < s->n_idle; i++) conn_close(s->idle[i]);
    if (s->writer) {
        /* The WAL stays as an empty file. Where a reader elsewhere holds it back, the next opening finishes; a stop
         * does not wait for it. */
        sqlite3_busy_timeout(s->writer->db, 0);
        sqlite3_wal_checkpoint_v2(s->writer->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
        conn_close(s->writer);
    }
    pthread_mutex_destroy(&s->write_lock);
    pthread_mutex_destroy(&s->pool_lock);
    mem_free(s->dir);
    mem_free(s->path);
    mem_free(s);
}

bool store_read_only(const store *s) {
    return s->read_only;
}

err_code store_check(store *s, err *e) {
    static const char *const checks[] = {"PRAGMA integrity_check(1)", "PRAGMA foreign_key_check"};
    for (int i = 0; i < 2; i++) {
        store_stmt *q;
        err_code code = store_query(&q, s, checks[i], NULL, 0, e);
        if (code != ERR_OK) return code;
        err step = {0};
        bool row = store_step(q, &step);
        const char *text = row ? store_col_text(q, 0, NULL) : NULL;
        if (row && !(i == 0 && text && strcmp(text, "ok") == 0))
            code = err_set(e, ERR_CORRUPT, "%s: the file is damaged (%s%s); restore it from a backup", s->path,
                           i ? "broken reference in table " : "", text ? text : "?");
        else if (!row && step.code != ERR_OK) {
            code = step.code;
            if (e) *e = step;
        }
        store_finish(q);
        if (code != ERR_OK) return code;
    }
    return ERR_OK;
}
