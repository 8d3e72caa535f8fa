/* audit, inside: the ledger's state and the functions that its files share. Not included from outside the room
 * (tests may).
 *
 * Locks, taken in this order: read_mu, then mu. The writer's thread owns everything under "writer" and changes the
 * published state only while it holds mu; readers take what they need under mu and read files without it. read_mu
 * guards the list of segments, the index and the files of readers.
 *
 * Has caused bugs
 *  - A frame whose SHA-256 is right says nothing about its place: anybody can compute it. Only the checkpoint's
 * signature does (verify_island.c, signed_place).
 *  - What recovery reads may be in the system's memory only, and after a failed sync a later one writes nothing: the
 * last frame is written again before anybody hears of it (scan.c, rewrite).
 *  - Waking the callers of a group while holding mu made hundreds of threads queue up for it: a third of the rate. */
#ifndef POLDER_AUDIT_INTERNAL_H
#define POLDER_AUDIT_INTERNAL_H

#include "audit/audit.h"
#include "audit/merkle.h"
#include "audit/note.h"
#include "audit/segment.h"
#include "audit/vault.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/sys.h"
#include "base/wake.h"

#include <stdatomic.h>

#define LEDGER_PATH_MAX     4096
#define GROUP_MAX_DEFAULT   512u
#define GROUP_BYTES_MAX     (4u << 20)   /* entries and contents of a group, unless one record alone is larger */
#define QUEUE_MAX           65536u       /* records that wait */
#define QUEUE_BYTES_MAX     (512u << 20) /* of their entries and contents */
#define WAKE_WORDS          4            /* groups whose callers may be waiting or waking at once */
#define PUBLISH_INTERVAL_MS 1000
#define INDEX_SEGMENTS      4 /* segments whose frame positions are kept for reading */

#define SEED_RECORDS 1024 /* contents under one seed, about */

#define CONTENTS_FEW 4u /* most records have no more */

struct record {
    jflat fields;
    jflat told;  /* of the contents */
    cJSON *body; /* what callers add as trees; NULL: nothing */
    content_set contents;
    char few[CONTENTS_FEW][CONTENT_NAME_MAX + 1]; /* the names of the first: keys of `told` must stay where they are */
    arena *more;                                  /* and of the rest */
};

/* Nothing is left of it but what record_free takes. */
void record_use_up(record *r);

/* The canonical bytes of a record, checked to be what a verifier accepts. */
err_code record_bytes(const record *r, buf *out, err *e);
/* Whether bytes are canonical JSON and an object. */
err_code entry_check(const void *p, size_t n, err *e);

typedef struct waiter { /* one record that is appended; lives on its caller's stack until done */
    struct waiter *next;
    uint8_t *entry;
    size_t entry_len;
    bool linked;    /* belongs into the group of the one before it, whose index it does not name yet */
    size_t link_at; /* where in the entry; until then LEDGER_SEQ_PENDING stands there, and leaf and seal are missing */
    bool silent;    /* the next is told for both */
    hash32 leaf;
    uint8_t *sealed;
    size_t sealed_len;
    uint8_t key[CONTENT_KEY_LEN];
    uint64_t seed_no; /* of the seed that it was made from */
    uint64_t seq;
    err_code rc;
    err *why;        /* its caller's, written where rc is not ERR_OK; may be NULL */
    wake_word *word; /* the ledger's; changes when somebody was told */
    _Atomic bool told;
} waiter;

typedef struct frame_pos {
    uint64_t first, off;
} frame_pos;

typedef struct seg_index { /* where the frames of one segment begin */
    vfile *f;
    uint64_t seg_first, seg_len, next_off, next_first, used;
    frame_pos *v;
    size_t n, cap;
} seg_index;

typedef struct tail { /* the end of the log: the last segment and the tree */
    vfile *f;
    uint64_t first, off, len;     /* of the segment: first record, where the next frame goes, file length */
    uint64_t last_off, last_room; /* the last frame in it; room 0: none */
    frontier edge;
    char note[NOTE_OWN_MAX];
    size_t note_len;
} tail;

struct ledger {
    char *dir;
    vfs *fs;
    bool read_only;
    uint32_t group_max, segment_len;
    note_key key;
    char vkey[NOTE_VKEY_MAX];
    uint8_t log_id[32];

    /* writer */
    note_signer signer;
    tail tail; /* readers in a read-only ledger: under read_mu */
    vfile *tree;
    vault vault;
    uint64_t seed_records;
    bool tail_dirty, keys_dirty; /* a failed group may have left bytes behind */
    uint64_t published_size, published_ms;
    buf frame; /* the memory of the last group's frame, for the next */
    int lock_fd;
    pthread_t thread;
    bool has_thread;

    /* the queue and the published state, under mu */
    pthread_mutex_t mu;
    pthread_cond_t work;
    waiter *head, **tail_link;
    size_t queued, queued_bytes;
    wake_word words[WAKE_WORDS]; /* those who wait for one group share one */
    unsigned word;               /* for those who come now */
    bool stopping, failed;
    char fail_why[256];
    char note[NOTE_OWN_MAX]; /* the latest checkpoint */
    size_t note_len;
    uint64_t segment_bytes, groups, failed_appends;
    uint64_t refused_ns; /* when the last group failed; 0 once one was written again */
    double last_commit_ms, commit_ms_sum;
    struct {
        metric *size, *queue, *failed, *seconds;
    } metrics;
    _Atomic uint64_t size;

    /* reading, under read_mu */
    pthread_mutex_t read_mu;
    uint64_t *segs; /* first records of the segments, ascending */
    size_t n_segs, cap_segs;
    seg_index index[INDEX_SEGMENTS];
    uint64_t index_clock;
    frame cached; /* the entries read last */
    uint64_t cached_seg, cached_off;
    bool has_cached;
    /* A read-only ledger after a crash may find the tree file behind the tail segment: the missing part, in memory. */
    buf overlay;
    uint64_t overlay_base;
    bool overlay_on;
};

/* ---- files (files.c) ------------------------------------------------------------------------------------- */

err_code ledger_path(const ledger *l, char out[LEDGER_PATH_MAX], const char *name, err *e);
err_code fs_path(const char *dir, char out[LEDGER_PATH_MAX], const char *name, err *e);
err_code fs_read_file(vfs *fs, const char *dir, const char *name, buf *out, err *e);
/* Write a new file and sync it (not its folder). */
err_code fs_write_file(vfs *fs, const char *dir, const char *name, const void *p, size_t n, bool *sync_failed, err *e);
/* Temporary file, sync, rename, sync of the folder. */
err_code fs_replace(vfs *fs, const char *dir, const char *folder, const char *name, const void *p, size_t n,
                    bool *sync_failed, err *e);
/* The segments of a ledger, ascending. Other names are counted in *strangers (may be NULL). mem_free *out. */
err_code list_segments(vfs *fs, const char *dir, uint64_t **out, size_t *n, unsigned *strangers, err *e);
err_code load_vkey(vfs *fs, const char *dir, note_key *k, char text[NOTE_VKEY_MAX], err *e);
err_code load_vault_key(vfs *fs, const char *dir, uint8_t key[32], err *e);
err_code load_signer(vfs *fs, const char *dir, note_signer *s, err *e);
void log_id_of(uint8_t out[32], const char *vkey);
err_code segment_open(vfs *fs, const char *dir, uint64_t first, int flags, vfile **f, char name[64], err *e);
/* Make a segment under a temporary name, sync it, give it its name. *sync_failed where a sync or the folder's did. */
err_code segment_create(vfs *fs, const char *dir, const uint8_t log_id[32], const seg_header *h, uint64_t len,
                        vfile **f, bool *sync_failed, err *e);

/* ---- tree (tree.c) --------------------------------------------------------------------------------------- */

hash_source tree_source(ledger *l);
/* Append a frame's leaves to edge; stored gets the hashes that the tree file gains. */
err_code tree_extend(frontier *edge, const frame *f, buf *stored, err *e);
/* Whether the tree file's hashes at an edge are these. */
bool tree_agrees(ledger *l, const frontier *edge);
err_code tree_rebuild(ledger *l, err *e);

/* ---- scan (scan.c): opening and following the end of the log ---------------------------------------------- */

err_code tail_open(ledger *l, ledger_report *rep, err *e);
err_code tail_follow(ledger *l, err *e);
err_code tail_recover(ledger *l, ledger_report *rep, err *e);

/* ---- seeds (seeds.c) -------------------------------------------------------------------------------------- */

/* A writer's first seed, after what a crash took of the slots was made again. */
err_code seeds_start(ledger *l, bool clean, err *e);

/* ---- reading (read.c) ------------------------------------------------------------------------------------ */

/* Under read_mu. */
err_code read_locate(ledger *l, uint64_t seq, seg_index **seg, frame_pos *at, err *e);
err_code read_entry(ledger *l, uint64_t seq, const uint8_t **p, size_t *n, hash32 *leaf, err *e);
/* The sealed contents of a record; NULL where it has none. mem_free *sealed. */
err_code read_sealed(ledger *l, uint64_t seq, hash32 *leaf, uint8_t **sealed, size_t *n, err *e);
void read_close(ledger *l);
void note_copy(ledger *l, buf *out, uint64_t *size);

#endif
