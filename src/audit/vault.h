/* vault: contents sealed under a key of their own, and those keys sealed under the island's master key, so that one
 * content is erased by overwriting 80 bytes (layout in ledger_format.h).
 *
 * Threads: sealing and opening contents needs no lock. Slots are written by the ledger's writer only. */
#ifndef POLDER_AUDIT_VAULT_H
#define POLDER_AUDIT_VAULT_H

#include "audit/audit.h"
#include "audit/ledger_format.h"
#include "audit/merkle.h"

#define CONTENT_KEY_LEN    32u
#define CONTENT_NAME_MAX   32u
#define CONTENTS_MAX       64u /* of one record */
#define SALT_LEN           32u
#define SEAL_OVERHEAD      40u /* nonce and tag */
#define SEALED_FROM        24u /* where behind the nonce the contents begin */
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
/* Ready to be encrypted under a fresh key. There must be one at least. *sealed is the caller's (mem_free), c empty. */
void contents_take(content_set *c, uint8_t key[CONTENT_KEY_LEN], uint8_t **sealed, size_t *sealed_len);
void vault_encrypt(const uint8_t log_id[32], const hash32 *leaf, const uint8_t key[CONTENT_KEY_LEN], uint8_t *sealed,
                   size_t sealed_len);
/* Open in place: *plain points into sealed. ERR_CORRUPT where key and bytes do not belong together. */
err_code vault_open(const uint8_t log_id[32], const hash32 *leaf, const uint8_t key[CONTENT_KEY_LEN], uint8_t *sealed,
                    size_t len, uint8_t **plain, size_t *plain_len, err *e);
/* Walk opened contents: *at begins at 0 (the count is read then). false at the end or where malformed: *whole tells. */
bool vault_next(const uint8_t *plain, size_t n, size_t *at, unsigned *left, content_view *out, bool *whole);

/* ---- content keys ---------------------------------------------------------------------------------------- */

typedef struct vault {
    vfs *fs;
    vfile *f;     /* ledger/keys */
    uint64_t len; /* prewritten; writers only */
    uint8_t log_id[32];
    uint8_t master[32];
    bool have_master;
} vault;

typedef enum slot_state { SLOT_EMPTY, SLOT_KEY, SLOT_ERASED, SLOT_BAD } slot_state;

/* The bytes of a new key file. */
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
/* Destroy a content's key: its slot is overwritten and synced. ERR_NOT_FOUND where there is none. */
err_code vault_erase(vault *v, uint64_t seq, err *e);

#endif
