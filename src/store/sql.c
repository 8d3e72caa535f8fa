/* store: statements, the one writer, and the pool of readers. */
#include "store/internal.h"

#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct store_stmt {
    store *s;
    conn *c;
    bool on_writer; /* inside a transaction of the same thread */
    bool nomem;     /* a column could not be converted */
    conn_stmt *slot;
    sqlite3_stmt *st;
};

/* Its address names the running thread; unlike pthread_t it can be compared and exchanged atomically. */
static _Thread_local char thread_marker;

static bool owns_transaction(store *s) {
    return atomic_load(&s->owner) == &thread_marker;
}

static err_code sql_code(int rc, int extended) {
    switch (extended) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_ROWID: return ERR_EXISTS;
    default: break;
    }
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE: return ERR_OK;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH: return ERR_INVALID;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return ERR_BUSY;
    case SQLITE_NOMEM: return ERR_NOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return ERR_CORRUPT;
    case SQLITE_TOOBIG: return ERR_TOO_LARGE;
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_PROTOCOL: return ERR_IO;
    default: return ERR_INTERNAL;
    }
}

err_code store_sql_error(const store *s, sqlite3 *db, int rc, const char *what, err *e) {
    int extended = db ? sqlite3_extended_errcode(db) : rc;
    if ((extended & 0xff) != (rc & 0xff)) extended = rc;
    err_code code = sql_code(rc, extended);
    const char *said = db && (sqlite3_errcode(db) & 0xff) == (rc & 0xff) ? sqlite3_errmsg(db) : sqlite3_errstr(rc);
    int sys = db ? sqlite3_system_errno(db) : 0;
    switch (code) {
    case ERR_NOMEM: return err_set(e, code, "%s: %s: out of memory", s->path, what);
    case ERR_BUSY:
        return err_set(e, code, "%s: %s: another process has held the database for %d seconds; try again", s->path,
                       what, STORE_BUSY_MS / 1000);
    case ERR_CORRUPT:
        return err_set(e, code, "%s: %s: the file is damaged (%s); restore it from a backup", s->path, what, said);
    case ERR_IO:
        if ((rc & 0xff) == SQLITE_FULL || sys == ENOSPC)
            return err_set(e, code, "%s: %s: the disk is full; free some space and try again", s->path, what);
        if (sys) return err_set(e, code, "%s: %s: %s (%s)", s->path, what, said, strerror(sys));
        return err_set(e, code, "%s: %s: %s", s->path, what, said);
    default: return err_set(e, code, "%s: %s: %s", s->path, what, said);
    }
}

/* ---- prepared statements --------------------------------------------------------------------------------- */

/* The slot that holds `sql` and is free, or the one to reuse for it (free, least recently used); NULL: all are busy. */
static conn_stmt *cache_slot(conn *c, const char *sql, bool *hit) {
    conn_stmt *oldest = NULL;
    *hit = false;
    for (int i = 0; i < STORE_CACHE; i++) {
        conn_stmt *k = &c->cache[i];
        if (k->busy) continue;
        if (k->sql && strcmp(k->sql, sql) == 0) {
            *hit = true;
            return k;
        }
        if (!oldest || k->used < oldest->used) oldest = k;
    }
    return oldest;
}

err_code conn_prepare(conn_stmt **out, sqlite3_stmt **st, store *s, conn *c, const char *sql, err *e) {
    bool hit;
    conn_stmt *k = cache_slot(c, sql, &hit);
    *out = k;
    if (hit) {
        k->busy = true;
        k->used = ++c->tick;
        *st = k->st;
        return ERR_OK;
    }
    *out = NULL;
    *st = NULL;
    const char *tail = NULL;
    int rc = sqlite3_prepare_v3(c->db, sql, -1, k ? SQLITE_PREPARE_PERSISTENT : 0, st, &tail);
    if (rc != SQLITE_OK) return store_sql_error(s, c->db, rc, sql, e);
    if (!*st || (tail && tail[strspn(tail, " \t\r\n;")])) {
        sqlite3_finalize(*st);
        *st = NULL;
        return err_set(e, ERR_INTERNAL, "%s: %s: expected exactly one statement", s->path, sql);
    }
    char *copy = k ? mem_strdup(sql) : NULL;
    if (!copy) return ERR_OK; /* not cached: slower, never wrong */
    sqlite3_finalize(k->st);
    mem_free(k->sql);
    *k = (conn_stmt){.sql = copy, .st = *st, .busy = true, .used = ++c->tick};
    *out = k;
    return ERR_OK;
}

void conn_release(conn_stmt *slot, sqlite3_stmt *st) {
    if (!slot) {
        sqlite3_finalize(st);
        return;
    }
    sqlite3_reset(st);
    sqlite3_clear_bindings(st); /* bound memory is the caller's and may be gone */
    slot->busy = false;
}

static err_code bind_all(store *s, conn *c, sqlite3_stmt *st, const store_val *args, size_t n, const char *sql,
                         err *e) {
    if ((size_t)sqlite3_bind_parameter_count(st) != n)
        return err_set(e, ERR_INTERNAL, "%s: %s: %zu values for %d parameters", s->path, sql, n,
                       sqlite3_bind_parameter_count(st));
    for (size_t i = 0; i < n; i++) {
        const store_val *v = &args[i];
        int rc = SQLITE_OK, at = (int)i + 1;
        switch (v->kind) {
        case STORE_NULL: rc = sqlite3_bind_null(st, at); break;
        case STORE_INT: rc = sqlite3_bind_int64(st, at, v->i); break;
        case STORE_REAL: rc = sqlite3_bind_double(st, at, v->r); break;
        case STORE_TEXT: /* a NULL text is SQL NULL */
            rc = v->p ? sqlite3_bind_text64(st, at, v->p, v->n, SQLITE_STATIC, SQLITE_UTF8) : sqlite3_bind_null(st, at);
            break;
        case STORE_BLOB: /* a NULL pointer of no bytes is an empty blob */
            rc = v->n ? sqlite3_bind_blob64(st, at, v->p, v->n, SQLITE_STATIC) : sqlite3_bind_zeroblob(st, at, 0);
            break;
        }
        if (rc != SQLITE_OK) return store_sql_error(s, c->db, rc, sql, e);
    }
    return ERR_OK;
}

/* ---- writing --------------------------------------------------------------------------------------------- */

static err_code run_statement(store *s, const char *sql, const store_val *args, size_t n, int64_t *changed, err *e) {
    conn *c = s->writer;
    conn_stmt *slot;
    sqlite3_stmt *st;
    err_code code = conn_prepare(&slot, &st, s, c, sql, e);
    if (code != ERR_OK) return code;
    code = bind_all(s, c, st, args, n, sql, e);
    if (code == ERR_OK) {
        int64_t before = sqlite3_total_changes64(c->db);
        int rc;
        do rc = sqlite3_step(st);
        while (rc == SQLITE_ROW); /* RETURNING, PRAGMA: run it to its end */
        if (rc != SQLITE_DONE)
            code = store_sql_error(s, c->db, rc, sql, e);
        else if (changed)
            *changed = sqlite3_total_changes64(c->db) - before;
    }
    conn_release(slot, st);
    return code;
}

static err_code refuse_writing(const store *s, err *e) {
    return err_set(e, ERR_DENIED, "%s: is open for reading only", s->path);
}

err_code store_write(store *s, const char *sql, const store_val *args, size_t n, int64_t *changed, err *e) {
    if (changed) *changed = 0;
    if (s->read_only) return refuse_writing(s, e);
    if (owns_transaction(s)) {
        /* SQLite ends a transaction itself on a full disk and the like; what follows must not commit alone. */
        if (sqlite3_get_autocommit(s->writer->db))
            return err_set(e, ERR_INTERNAL, "%s: an earlier error has ended this transaction", s->path);
        return run_statement(s, sql, args, n, changed, e);
    }
    pthread_mutex_lock(&s->write_lock);
    err_code code = run_statement(s, sql, args, n, changed, e);
    pthread_mutex_unlock(&s->write_lock);
    return code;
}

static err_code run_nested(store *s, err_code (*fn)(store *, void *, err *), void *ctx, err *e) {
    char name[32], sql[64];
    snprintf(name, sizeof name, "nested_%d", s->depth);
    snprintf(sql, sizeof sql, "SAVEPOINT %s", name);
    err_code code = store_write(s, sql, NULL, 0, NULL, e);
    if (code != ERR_OK) return code;
    s->depth++;
    code = fn(s, ctx, e);
    s->depth--;
    if (code != ERR_OK && !sqlite3_get_autocommit(s->writer->db)) {
        err back = {0};
        snprintf(sql, sizeof sql, "ROLLBACK TO %s", name);
        if (run_statement(s, sql, NULL, 0, NULL, &back) != ERR_OK) {
            /* The inner writes could not be taken back alone, so nothing of the whole may be kept. */
            sqlite3_exec(s->writer->db, "ROLLBACK", NULL, NULL, NULL);
            return code;
        }
    }
    if (sqlite3_get_autocommit(s->writer->db)) return code != ERR_OK ? code : store_write(s, sql, NULL, 0, NULL, e);
    snprintf(sql, sizeof sql, "RELEASE %s", name);
    err release = {0};
    err_code released = run_statement(s, sql, NULL, 0, NULL, &release);
    if (code == ERR_OK && released != ERR_OK) {
        code = released;
        if (e) *e = release;
    }
    return code;
}

err_code store_transaction(store *s, err_code (*fn)(store *s, void *ctx, err *e), void *ctx, err *e) {
    if (s->read_only) return refuse_writing(s, e);
    if (owns_transaction(s)) return run_nested(s, fn, ctx, e);
    pthread_mutex_lock(&s->write_lock);
    err_code code = run_statement(s, "BEGIN IMMEDIATE", NULL, 0, NULL, e);
    if (code == ERR_OK) {
        atomic_store(&s->owner, &thread_marker);
        s->depth = 1;
        s->tx_queries = 0;
        code = fn(s, ctx, e);
        assert(s->tx_queries == 0); /* a query of the transaction was not finished */
        s->depth = 0;
        atomic_store(&s->owner, NULL);
        if (code == ERR_OK && sqlite3_get_autocommit(s->writer->db))
            code = err_set(e, ERR_INTERNAL, "%s: an earlier error has ended this transaction", s->path);
        if (code == ERR_OK) code = run_statement(s, "COMMIT", NULL, 0, NULL, e);
        /* Not through the cache: taking back must not need memory that is not there. */
        if (!sqlite3_get_autocommit(s->writer->db)) sqlite3_exec(s->writer->db, "ROLLBACK", NULL, NULL, NULL);
    }
    pthread_mutex_unlock(&s->write_lock);
    return code;
}

/* ---- reading --------------------------------------------------------------------------------------------- */

static err_code reader_take(conn **out, store *s, err *e) {
    *out = NULL;
    pthread_mutex_lock(&s->pool_lock);
    if (s->n_idle > 0) {
        *out = s->idle[--s->n_idle];
        pthread_mutex_unlock(&s->pool_lock);
        return ERR_OK;
    }
    bool full = s->n_readers >= STORE_READERS_MAX;
    if (!full) s->n_readers++;
    pthread_mutex_unlock(&s->pool_lock);
    if (full)
        return err_set(e, ERR_BUSY, "%s: %d queries run already, which is the most; try again", s->path,
                       STORE_READERS_MAX);
    err_code code = conn_open(out, s, false, e);
    if (code != ERR_OK) {
        pthread_mutex_lock(&s->pool_lock);
        s->n_readers--;
        pthread_mutex_unlock(&s->pool_lock);
    }
    return code;
}

void reader_give(store *s, conn *c) {
    pthread_mutex_lock(&s->pool_lock);
    bool keep = s->n_idle < STORE_READERS_KEEP && !c->immutable;
    if (keep)
        s->idle[s->n_idle++] = c;
    else
        s->n_readers--;
    pthread_mutex_unlock(&s->pool_lock);
    if (!keep) conn_close(c);
}

static void query_end(store_stmt *q) {
    if (q->st) conn_release(q->slot, q->st);
    if (q->on_writer)
        q->s->tx_queries--;
    else if (q->c)
        reader_give(q->s, q->c);
    mem_free(q);
}

err_code store_query(store_stmt **out, store *s, const char *sql, const store_val *args, size_t n, err *e) {
    *out = NULL;
    store_stmt *q = mem_zalloc(sizeof *q);
    if (!q) return err_nomem(e, "a query");
    q->s = s;
    err_code code = ERR_OK;
    if (!s->read_only && owns_transaction(s)) {
        q->on_writer = true;
        q->c = s->writer;
        s->tx_queries++;
    } else {
        code = reader_take(&q->c, s, e);
    }
    if (code == ERR_OK) code = conn_prepare(&q->slot, &q->st, s, q->c, sql, e);
    if (code == ERR_OK && !sqlite3_stmt_readonly(q->st))
        code = err_set(e, ERR_INTERNAL, "%s: %s: writes; queries only read", s->path, sql);
    if (code == ERR_OK) code = bind_all(s, q->c, q->st, args, n, sql, e);
    if (code != ERR_OK) {
        query_end(q);
        return code;
    }
    *out = q;
    return ERR_OK;
}

bool store_step(store_stmt *q, err *e) {
    if (q->nomem) {
        err_nomem(e, "a column");
        return false;
    }
    int rc = sqlite3_step(q->st);
    if (rc == SQLITE_ROW) return true;
    if (rc != SQLITE_DONE) {
        store_sql_error(q->s, q->c->db, rc, sqlite3_sql(q->st), e);
    } else if (conn_outdated(q->s, q->c)) {
        err_set(e, ERR_UNAVAILABLE, "%s: another process began to write while it was read; try again", q->s->path);
    } else if (e) {
        e->code = ERR_OK;
        e->msg[0] = 0;
    }
    return false;
}

int64_t store_col_int(store_stmt *q, int col) {
    return sqlite3_column_int64(q->st, col);
}
double store_col_real(store_stmt *q, int col) {
    return sqlite3_column_double(q->st, col);
}
bool store_col_is_null(store_stmt *q, int col) {
    return sqlite3_column_type(q->st, col) == SQLITE_NULL;
}

const char *store_col_text(store_stmt *q, int col, size_t *len) {
    if (len) *len = 0;
    if (store_col_is_null(q, col)) return NULL;
    const char *p = (const char *)sqlite3_column_text(q->st, col);
    if (!p)
        q->nomem = true;
    else if (len)
        *len = (size_t)sqlite3_column_bytes(q->st, col);
    return p;
}

const void *store_col_blob(store_stmt *q, int col, size_t *len) {
    *len = 0;
    if (store_col_is_null(q, col)) return NULL;
    const void *p = sqlite3_column_blob(q->st, col);
    *len = (size_t)sqlite3_column_bytes(q->st, col);
    return p ? p : ""; /* an empty blob is not NULL */
}

void store_finish(store_stmt *q) {
    if (q) query_end(q);
}
