/* vault: contents sealed under a key of their own, and those keys sealed under the island's master key, so that one
 * content is erased by overwriting 80 bytes (layout in ledger_format.h).
 *
 * Threads: sealing and opening contents needs no lock. Slots are written by the ledger's writer only. */
#ifndef POLDER_AUDIT_VAULT_H
#define POLDER_AUDIT_VAULT_H

#include "audit/audit.h"
#include "audit/ledger_format.h"
#include "audit/merkle.h"

#include <pthread.h>

#define CONTENT_KEY_LEN    32u
#define CONTENT_NAME_MAX   32u
#define CONTENTS_MAX       64u /* of one record */
#define SALT_LEN           32u
#define SEAL_OVERHEAD      40u /* nonce and tag */
#define SEALED_FROM        24u /* where behind the nonce the contents begin */
#define SEED_LEN           32u
#define VAULT_KEY_TEXT_MAX 96

bool content_name_valid(const char *name);

/* ---- the master key -------------------------------------------------------------------------------------- */

void vault_key_text(char out[VAULT_KEY_TEXT_MAX], const uint8_t key[32]); /* with the newline */
err_code vault_key_parse(uint8_t key[32], const char *text, size_t n, err *e);

/* ---- contents -------------------------------------------------------------------------------------------- */

/* The contents of one record as they are sealed, in one piece of memory, so that they are copied once and encrypted
 * where they lie. Begins as {0}. */
typedef struct content_set {
    uint8_t *p; /* room for the nonce, then what vault_next walks; NULL: none */
    size_t len, cap;
    size_t bytes; /* of the contents alone */
    unsigned n;
} content_set;

typedef struct content_view {
    const char *name;
    size_t name_len;
    const uint8_t *salt, *bytes;
    size_t len;
} content_view;

/* Adds a copy under a fresh salt. *out: as it lies there until the next is added. ERR_INVALID, ERR_EXISTS,
 * ERR_TOO_LARGE: name, number or size are not what a record may have. */
err_code contents_add(content_set *c, const char *name, const void *p, size_t n, content_view *out, err *e);
void contents_free(content_set *c); /* wiped */
/* Ready to be encrypted. There must be one at least. *sealed is the caller's (mem_free), c empty. */
void contents_take(content_set *c, uint8_t **sealed, size_t *sealed_len);
void vault_encrypt(const uint8_t log_id[32], const hash32 *leaf, const uint8_t key[CONTENT_KEY_LEN], uint8_t *sealed,
                   size_t sealed_len);
/* Open in place: *plain points into sealed. ERR_CORRUPT where key and bytes do not belong together. */
err_code vault_open(const uint8_t log_id[32], const hash32 *leaf, const uint8_t key[CONTENT_KEY_LEN], uint8_t *sealed,
                    size_t len, uint8_t **plain, size_t *plain_len, err *e);
/* Walk opened contents: *at begins at 0 (the count is read then). false at the end or where malformed: *whole tells. */
bool vault_next(const uint8_t *plain, size_t n, size_t *at, unsigned *left, content_view *out, bool *whole);

/* ---- content keys ---------------------------------------------------------------------------------------- */

typedef struct seeds {
    uint64_t no;      /* of the running one, which is key[0]; key[1] has the number before */
    unsigned n;       /* how many there are: 0 to 2 */
    uint64_t from[2]; /* the slots of all records before were durable when each began */
    uint8_t key[2][SEED_LEN];
} seeds;

typedef struct vault {
    vfs *fs;
    vfile *f;     /* ledger/keys */
    uint64_t len; /* prewritten; writers only */
    uint8_t log_id[32];
    uint8_t master[32];
    bool have_master;
    bool slots_may_lack; /* s is what a crash left, and slots from s.from[0] on may not have reached the disk */
    /* writers only */
    vfile *seeds_f; /* ledger/seeds */
    seeds s;        /* changed by the writer's thread, under seeds_mu */
    pthread_mutex_t seeds_mu;
    bool seeds_unsure; /* what ledger/seeds holds is not known */
    uint64_t since;    /* contents since the last roll */
} vault;

typedef enum slot_state { SLOT_EMPTY, SLOT_KEY, SLOT_ERASED, SLOT_BAD } slot_state;

/* What the header of ledger/keys holds of the master key, so that a foreign one is noticed before anything is sealed.
 */
void vault_key_check(uint8_t out[32], const uint8_t master[32]);
void vault_header(uint8_t out[SECTOR], const uint8_t log_id[32], const uint8_t check[32]);
/* master NULL: its check is left out (readers that open no contents). */
err_code vault_check_header(vfs *fs, vfile *f, const uint8_t log_id[32], const uint8_t *master, err *e);
uint64_t slot_offset(uint64_t seq);
void slot_seal(const vault *v, uint8_t out[KEY_SLOT_LEN], uint64_t seq, slot_state kind,
               const uint8_t key[CONTENT_KEY_LEN]);
slot_state slot_open(const vault *v, const uint8_t slot[KEY_SLOT_LEN], uint64_t seq, uint8_t key[CONTENT_KEY_LEN]);
/* Read one slot: 0 or -errno; past the end of the file it is empty. */
int vault_read(const vault *v, uint64_t seq, slot_state *state, uint8_t key[CONTENT_KEY_LEN]);
/* Write the slots of `count` records from `first` on (keys[i] NULL: none) without a sync: 0 or -errno. */
int vault_write(vault *v, uint64_t first, uint32_t count, const uint8_t *const *keys);
/* Zero every slot from `first` on that is not: what a group that did not come about left behind. */
int vault_trim(vault *v, uint64_t first);
/* Destroy a content's key: its slot is overwritten and synced, and so are the seeds that could make it again.
 * ERR_NOT_FOUND where there is none. */
err_code vault_erase(vault *v, uint64_t seq, err *e);

/* ---- seeds (seeds.c) --------------------------------------------------------------------------------------- */

/* HMAC-SHA256 of the leaf hash under the seed. */
void vault_make_key(uint8_t key[CONTENT_KEY_LEN], const uint8_t seed[SEED_LEN], const hash32 *leaf);
/* The key of a new record, from the running seed, whose number it returns. Any thread. */
uint64_t vault_new_key(vault *v, const hash32 *leaf, uint8_t key[CONTENT_KEY_LEN]);
/* Whether keys made from that seed come back after a crash without a sync of their slots. The writer's thread. */
bool vault_comes_back(const vault *v, uint64_t seed_no);
/* ledger/seeds as a crash may have left it; without the file nothing changes. have_master false: none is opened. */
err_code vault_load_seeds(vault *v, const char *dir, bool *damaged, err *e);
bool seeds_decode(seeds *s, const vault *v, const uint8_t in[SECTOR]);
/* As vault_read; where the slot is not what opens these contents, because a crash took it, the key is made again. */
int vault_find_key(const vault *v, uint64_t seq, const hash32 *leaf, const uint8_t *sealed, size_t n, slot_state *state,
                   uint8_t key[CONTENT_KEY_LEN]);
/* A new seed, once the slots of all `size` records are durable; the one before the last is destroyed. */
int vault_roll(vault *v, uint64_t size, bool *sync_failed);
/* As vault_roll, but none is left: the log is being closed. */
int vault_end_seeds(vault *v, uint64_t size, bool *sync_failed);
/* Rolls until no seed can make the key of record seq. */
int vault_forget(vault *v, uint64_t seq, bool *sync_failed);

#endif
