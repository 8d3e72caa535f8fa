/* store, inside: connections, and which file does what.
 *
 *   store.c  opening, pragmas, migrations, closing
 *   sql.c    statements: the writer, transactions, the pool of readers
 *   blob.c   files by digest
 */
#ifndef POLDER_STORE_INTERNAL_H
#define POLDER_STORE_INTERNAL_H

#include "store/store.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#define STORE_PATH_MAX     4096
#define STORE_CACHE        16                 /* prepared statements kept per connection */
#define STORE_READERS_KEEP 4                  /* idle reader connections kept */
#define STORE_READERS_MAX  64                 /* readers in use at once; more are ERR_BUSY */
#define STORE_BUSY_MS      5000               /* how long a statement waits for another process */
#define STORE_VALUE_MAX    (64 * 1024 * 1024) /* bytes of one value or row */
#define STORE_SQL_MAX      (1024 * 1024)
#define STORE_APP_ID       0x504f4c44 /* "POLD": PRAGMA application_id */
#define STORE_FORMAT       1          /* PRAGMA user_version */

typedef struct conn_stmt {
    char *sql;
    sqlite3_stmt *st;
    bool busy;
    uint64_t used; /* for the least recently used */
} conn_stmt;

/* One SQLite connection with its prepared statements. Used by one thread at a time. */
typedef struct conn {
    sqlite3 *db;
    conn_stmt cache[STORE_CACHE];
    uint64_t tick;
    bool immutable; /* opened without locks: good for one query only */
} conn;

struct store {
    char *dir;  /* as given */
    char *path; /* DIR/polder.db */
    bool read_only;
    conn *writer; /* NULL where read_only; under write_lock */
    pthread_mutex_t write_lock;
    _Atomic(const void *) owner; /* the thread inside a transaction (address of its marker), or NULL */
    int depth;                   /* nested transactions; owner only */
    int tx_queries;              /* unfinished queries on the writer; owner only */
    pthread_mutex_t pool_lock;
    conn *idle[STORE_READERS_KEEP];
    int n_idle, n_readers; /* n_readers: idle and in use */
};

/* The sentence and code for what SQLite said on this connection. `what` is the statement or step. */
err_code store_sql_error(const store *s, sqlite3 *db, int rc, const char *what, err *e);

err_code conn_open(conn **out, store *s, bool writer, err *e);
void conn_close(conn *c);
err_code conn_prepare(conn_stmt **out, sqlite3_stmt **st, store *s, conn *c, const char *sql, err *e);
void conn_release(conn_stmt *slot, sqlite3_stmt *st); /* back into the cache, or finalised where slot is NULL */

/* Has a writer appeared since this immutable connection was opened? Then what it read may be mixed. */
bool conn_outdated(const store *s, const conn *c);
void reader_give(store *s, conn *c); /* back to the pool */

err_code blob_open(store *s, err *e); /* makes the folders, removes what interrupted imports left */

#endif
