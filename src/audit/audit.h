/* audit: the ledger. Records, Merkle tree, signed checkpoints, proofs, and the vault that holds contents.
 *
 * Owns `ledger/` and `keys/` of an island's state folder. The layout on disk is described in ledger_format.h.
 *
 * Invariants
 *  1. ledger_append returns ERR_OK only when entry, content and content key are durable, and a signed checkpoint
 *     that covers them is durable with them. After any crash every such record is there.
 *  2. A checkpoint never covers a leaf that is not durable; there are never two roots for one size.
 *  3. Opening is idempotent and says what it found (ledger_report): a torn last group is dropped (nobody was told of
 *     it), damage anywhere else is ERR_CORRUPT with file and record, and so is a ledger that is shorter than the last
 *     checkpoint it published.
 *  4. A failed fsync is final: every later append is ERR_UNAVAILABLE until the ledger is opened anew. A full disk
 *     fails the group that met it and is tried again by the next.
 *  5. Contents are never in an entry; an entry is at most 65,535 bytes of canonical JSON (RFC 8785).
 *
 * Threads: ledger_append may be called from any thread; one thread of the ledger's own writes groups (group commit:
 * all that wait share one frame, one signature, one sync). Readers may be other processes.
 *
 * Formats: RFC 6962 §2.1 (tree), C2SP signed-note, tlog-checkpoint, tlog-tiles, tlog-proof.
 */
#ifndef POLDER_AUDIT_H
#define POLDER_AUDIT_H
#if !defined(POLDER_LAYER) || POLDER_LAYER < 2 || (POLDER_LAYER == 2 && !defined(POLDER_ROOM_AUDIT))
#error "audit/audit.h is layer 2: only audit and the rooms above it include it"
#endif

#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json_flat.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#define LEDGER_ENTRY_MAX   65535u
#define LEDGER_CONTENT_MAX (64u << 20) /* bytes of contents of one record */
#define LEDGER_ORIGIN_MAX  200

/* ---- records --------------------------------------------------------------------------------------------- */

/* A record under construction: a JSON object with "v":1, "time" (RFC 3339), "event", and what the caller adds.
 * Its index in the log is its name (seq); it is not repeated inside. One thread. */
typedef struct record record;
err_code record_new(record **out, const char *event, err *e);
void record_free(record *r); /* NULL is fine; wipes contents */
/* Add fields here: what canonical JSON holds, keys in any order, each once. What goes wrong meanwhile comes out where
 * the record is appended. record_body is for those that have trees; NULL: no memory. */
jflat *record_fields(record *r);
cJSON *record_body(record *r);
/* A content: goes encrypted into the vault; the body gets "content": {NAME: {"bytes": n, "commit":
 * hex(HMAC-SHA256(salt, bytes))}} with 32 random bytes of salt that lie in the vault with it. Names are
 * [a-z_]{1,32}, each once. Copied. */
err_code record_content(record *r, const char *name, const void *p, size_t n, err *e);

/* ---- the ledger ------------------------------------------------------------------------------------------ */

typedef struct ledger ledger;

typedef struct ledger_report { /* what opening found */
    uint64_t size;             /* records */
    uint64_t dropped_bytes;    /* of an unfinished last group; 0 after a clean stop */
    bool clean;                /* the last writer closed it */
    bool tree_rebuilt;         /* derived hashes were missing or damaged and were computed anew */
    char text[512];            /* the same as a sentence for the log */
} ledger_report;

typedef struct ledger_options {
    vfs *fs;                /* NULL: vfs_posix */
    bool read_only;         /* no lock, no writer thread; sees what was durable at open, ledger_refresh for more */
    uint32_t group_max;     /* records a group at most; 0: 512 */
    uint32_t segment_bytes; /* size of new segments; 0: 8 MiB */
} ledger_options;

/* Makes DIR/ledger and DIR/keys: an Ed25519 key (keys/ledger.key, 0600), its vkey (keys/ledger.vkey), the vault's
 * master key (keys/vault.key, 0600). origin is the log's name (no spaces, no '+'). ERR_EXISTS where there is one. */
err_code ledger_create(const char *dir, const char *origin, vfs *fs, err *e);
err_code ledger_open(ledger **out, const char *dir, const ledger_options *o, ledger_report *report, err *e);
/* Waits for what is queued, publishes the checkpoint, marks the stop as clean. NULL is fine. */
void ledger_close(ledger *l);

/* Append and wait until durable. `seq` gets the index. ERR_UNAVAILABLE (the sentence says why) means: not written, or
 * not known to be written, and whoever asked must not be answered. r is used up, whatever comes of it, and not freed.
 */
err_code ledger_append(ledger *l, record *r, uint64_t *seq, err *e);

/* Append two records of which the second names the first, and wait once: they stand next to each other in one group, so
 * after any crash both are there or neither. In `second`'s body the number `field` is LEDGER_SEQ_PENDING and becomes
 * the index of `first`, which `seq` gets; ERR_INVALID where it is not there exactly once. Else as ledger_append. */
#define LEDGER_SEQ_PENDING UINT64_C(9007199254740991)
err_code ledger_append_pair(ledger *l, record *first, record *second, const char *field, uint64_t *seq, err *e);

uint64_t ledger_size(const ledger *l); /* durable records */
const char *ledger_origin(const ledger *l);
const char *ledger_vkey(const ledger *l);   /* "<origin>+<8 hex>+<base64>" */
err_code ledger_refresh(ledger *l, err *e); /* read-only: see what has been written since */
/* The canonical bytes of one entry. ERR_NOT_FOUND past the end. */
err_code ledger_read(ledger *l, uint64_t seq, buf *out, err *e);
/* One content of an entry, decrypted and checked against its commitment. ERR_NOT_FOUND: no such content, or its key
 * was destroyed (the sentence says which). */
err_code ledger_content(ledger *l, uint64_t seq, const char *name, buf *out, err *e);
/* A key for one purpose of another room, derived from the vault's master key (HMAC-SHA256): the same for the same
 * island and purpose, and telling nothing of the master or of another purpose's key. The caller wipes it. */
err_code ledger_derive_key(ledger *l, const char *purpose, uint8_t out[32], err *e);
/* The latest signed checkpoint (the note's text). */
err_code ledger_checkpoint(ledger *l, buf *out, err *e);
/* A receipt: c2sp.org/tlog-proof@v1 for entry seq under the latest checkpoint. */
err_code ledger_prove(ledger *l, uint64_t seq, buf *out, err *e);
/* RFC 6962 consistency proof between two sizes, hashes of 32 bytes appended to out. */
err_code ledger_consistency(ledger *l, uint64_t old_size, uint64_t new_size, buf *out, err *e);
/* One resource of tlog-tiles by its path after the prefix: "checkpoint", "tile/0/x001/067", "tile/entries/000.p/5".
 * ERR_NOT_FOUND for everything that is not one now. *immutable tells whether it may be cached for ever. */
err_code ledger_resource(ledger *l, const char *path, buf *out, bool *immutable, err *e);

typedef struct ledger_stats {
    uint64_t size, queued, groups, failed_appends;
    uint64_t segment_bytes;
    double last_commit_ms, commit_ms_sum;
    bool failed;   /* a sync has failed: nothing is accepted until a restart */
    bool refusing; /* the last group could not be written (disk full?), less than 5 s ago: it is worth another try later
                    */
} ledger_stats;
void ledger_get_stats(ledger *l, ledger_stats *out);

/* ---- checking and exporting ------------------------------------------------------------------------------ */

typedef struct verify_report {
    uint64_t records, checkpoints, contents, erased;
    uint64_t problems;
    buf text; /* one line a problem: file, record, what; at most 100 lines. The caller frees it */
} verify_report;

/* Everything in an island's ledger: frames, entries (canonical JSON), tree, every signed checkpoint, consistency, and
 * where `contents` every content against its commitment. ERR_NO where a problem was found (the report names each),
 * other errors where the check itself could not be done. vkey NULL: the island's own. */
err_code audit_verify_island(const char *dir, bool contents, const char *vkey, verify_report *r, err *e);
/* An exported folder (tlog-tiles layout with the vkey beside it). Every byte of every file matters: any change of one
 * bit is a problem that names the file and, for entries and tiles, the record. */
err_code audit_verify_export(const char *dir, const char *vkey, verify_report *r, err *e);
/* Write the tlog-tiles layout of the whole log, and `vkey`, into a new folder. ERR_EXISTS where it is not empty. */
err_code audit_export(ledger *l, const char *out_dir, err *e);
/* A receipt and the entry it is about, offline: signature by vkey, origin, inclusion. */
err_code audit_verify_receipt(const char *receipt, size_t n, const void *entry, size_t entry_len, const char *vkey,
                              uint64_t *seq, err *e);

#endif
