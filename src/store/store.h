/* store: SQLite behind one header, and files addressed by their SHA-256.
 *
 * Owns: `polder.db` (WAL, synchronous=FULL, STRICT tables, secure_delete), `blobs/sha256/<2 hex>/<62 hex>`, and
 * `derived/`, which holds what others make of blobs.
 * Called from any thread: one writer connection under a mutex, a small pool of reader connections.
 * Knows nothing of what the rows mean; each room brings its own migrations.
 *
 * Invariants
 *  1. A write that returned ERR_OK is on disk.
 *  2. A blob's name is the SHA-256 of its bytes; a blob appears under its name only when complete and synced,
 *     mode 0444, and is never changed.
 *  3. Only SQLite opens polder.db and its -wal and -shm: closing any other descriptor of them drops SQLite's locks.
 *  4. Migrations run in order, each once, each in its own transaction; a database of a newer polder is refused.
 *
 * Has caused bugs
 *  - A child of fork that opens a store which its parent has open shares SQLite's locks and index with it: exec first,
 *    or open after the fork.
 *  - An error such as a full disk ends a transaction inside SQLite; a statement after it would commit alone;
 *    store_write refuses it.
 */
#ifndef POLDER_STORE_H
#define POLDER_STORE_H
#if !defined(POLDER_LAYER) || POLDER_LAYER < 1 || (POLDER_LAYER == 1 && !defined(POLDER_ROOM_STORE))
#error "store/store.h is layer 1: only store and the rooms above it include it"
#endif

#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct store store;
typedef struct store_stmt store_stmt; /* one running statement */

/* Numbered schema steps of one room: (room, version) is unique and versions count from 1. */
typedef struct store_migration {
    const char *room;
    int version;
    const char *sql;
} store_migration;

/* Opens or creates DIR/polder.db and DIR/blobs, runs what migrations are missing. read_only never changes a byte and
 * works beside another process that writes; ERR_NOT_FOUND where there is no store, writes are ERR_DENIED. */
err_code store_open(store **out, const char *dir, const store_migration *m, size_t n, bool read_only, err *e);
/* For a room above the one that opened the store: runs its missing steps. Idempotent. Of a read-only store it only
 * asks: ERR_NOT_FOUND where the room has no tables yet (treat it as empty), ERR_UNAVAILABLE where steps are missing. */
err_code store_migrate(store *s, const store_migration *m, size_t n, err *e);
/* Every page, index and constraint of the database: ERR_CORRUPT with what SQLite found. Reads all of it (doctor). */
err_code store_check(store *s, err *e);
bool store_read_only(const store *s);
void store_close(store *s); /* NULL is fine; checkpoints the WAL */

/* A value to bind or one that was read. Text and blobs read are valid until the next step or finish. */
typedef enum { STORE_NULL, STORE_INT, STORE_REAL, STORE_TEXT, STORE_BLOB } store_kind;
typedef struct store_val {
    store_kind kind;
    int64_t i;
    double r;
    const void *p;
    size_t n;
} store_val;
#define SV_INT(v)         ((store_val){.kind = STORE_INT, .i = (v)})
#define SV_TEXT(s)        ((store_val){.kind = STORE_TEXT, .p = (s), .n = (s) ? strlen(s) : 0})
#define SV_BLOB(ptr, len) ((store_val){.kind = STORE_BLOB, .p = (ptr), .n = (len)})
#define SV_NULL           ((store_val){.kind = STORE_NULL})

/* One writing statement in its own transaction; *changed (may be NULL) counts rows. A broken UNIQUE constraint is
 * ERR_EXISTS. */
err_code store_write(store *s, const char *sql, const store_val *args, size_t n, int64_t *changed, err *e);
/* Several in one transaction: fn calls store_write on `s` (same thread); its error rolls all back. Queries that fn
 * makes see its own writes and must be finished before it returns. Nesting makes a savepoint. */
err_code store_transaction(store *s, err_code (*fn)(store *s, void *ctx, err *e), void *ctx, err *e);

/* Reading: query, then step until it returns false (end or error: *e tells, its code is ERR_OK at the end), then
 * finish. A statement belongs to one thread. It sees the state of its first step; finish it soon, it holds a reader. */
err_code store_query(store_stmt **out, store *s, const char *sql, const store_val *args, size_t n, err *e);
bool store_step(store_stmt *q, err *e);
int64_t store_col_int(store_stmt *q, int col);
const char *store_col_text(store_stmt *q, int col, size_t *len /* may be NULL */); /* NULL for SQL NULL */
const void *store_col_blob(store_stmt *q, int col, size_t *len);
double store_col_real(store_stmt *q, int col);
bool store_col_is_null(store_stmt *q, int col);
void store_finish(store_stmt *q); /* NULL is fine */

/* Import a file: hashes it, copies it in (a reflink or hard link where safe is not used: the source may change),
 * syncs. *len and digest are of the bytes stored. `progress` (may be NULL) gets bytes done and total; returning
 * non-zero cancels. Importing what is there already succeeds and changes nothing. */
typedef int (*store_progress)(void *ctx, uint64_t done, uint64_t total);
err_code store_blob_import(store *s, const char *path, uint8_t digest[SHA256_LEN], uint64_t *len,
                           store_progress progress, void *ctx, err *e);
/* The path is filled in also where no such blob is there; the result is ERR_NOT_FOUND then. */
err_code store_blob_path(store *s, const uint8_t digest[SHA256_LEN], char *out, size_t cap, err *e);
/* Re-hash; ERR_CORRUPT where bytes and name differ, ERR_NOT_FOUND where absent. */
err_code store_blob_verify(store *s, const uint8_t digest[SHA256_LEN], store_progress progress, void *ctx, err *e);
err_code store_blob_remove(store *s, const uint8_t digest[SHA256_LEN], err *e);
/* Where a file that was made from a blob, and can be made again, is kept: DIR/derived/HEX.KIND. It is no part of the
 * island (backups may leave it out, anybody may delete it) and goes with its blob. Makes the folder; ERR_DENIED where
 * the store is read-only. */
err_code store_derived_path(store *s, const uint8_t digest[SHA256_LEN], const char *kind, char *out, size_t cap,
                            err *e);

#endif
