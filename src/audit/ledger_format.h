/* The bytes of a ledger on disk. All integers are big endian; offsets and lengths are in bytes; "zero" fields must be
 * zero. DIR is the island's state folder.
 *
 * DIR/keys/ledger.vkey   the log's verifier key "<origin>+<8 hex>+<base64(0x01 || Ed25519 key)>" and a newline
 * DIR/keys/ledger.key    its private key "PRIVATE+KEY+<origin>+<8 hex>+<base64(0x01 || seed)>" and a newline
 * DIR/keys/vault.key     the vault's master key "polder-vault+<8 hex>+<base64 of 32 bytes>" and a newline; the hex
 *                        digits are the first four bytes of SHA-256("polder-vault" || key)
 *
 * DIR/ledger/lock        held by the one process that writes (flock); empty
 * DIR/ledger/checkpoint  the latest published checkpoint, a signed note; replaced by rename, after what it covers is
 *                        durable, at most about once a second and at close. A ledger that is shorter than this says
 *                        has lost records.
 * DIR/ledger/clean       the checkpoint at which the last writer closed the ledger; absent while a writer runs
 * DIR/ledger/seg/        the log itself, in segments named by the index of their first record: 20 digits and ".seg".
 *                        "new.tmp" is a segment that was being made
 * DIR/ledger/keys        content keys, one slot a record
 * DIR/ledger/seeds       what the latest of them are made from; one sector
 * DIR/ledger/tree        stored hashes (merkle.h), 32 bytes each; derived from the segments, mended at open, synced
 *                        before a new segment is begun
 *
 * The log id is SHA-256 of the vkey text without its newline.
 *
 * Segment: a header of SEG_HEADER_LEN bytes, then frames, each at a multiple of SECTOR, then zeros. A segment is
 * prewritten with zeros to its full size, so that a sync of it needs no metadata. The segment ends where the next
 * frame would begin and finds a zero sector, or no room; the next segment's name is then the size of the tree so far.
 *
 *   segment header
 *      0    8  "PLDRSEG1"
 *      8   32  log id
 *     40    8  first: index of the segment's first record, so the size of the tree before it
 *     48    4  length of the checkpoint note
 *     52   12  zero
 *     64 2048  the frontier of the tree of `first` leaves: 64 hashes, level 0 first, zero where the bit is not set
 *   2112  ...  the checkpoint note for size `first`, then zeros
 *   4064   32  SHA-256 of the 4,064 bytes before
 *
 * A frame is one group of records that were made durable together. It begins at its own sector, so that a torn write
 * of the next frame cannot touch it.
 *
 *   frame
 *      0    8  "PLDRFRM1"
 *      8    4  count of records, at least 1
 *     12    4  length of the checkpoint note
 *     16    8  first: index of the first record
 *     24    8  time of the group, milliseconds since 1970 (for people; nothing depends on it)
 *     32    8  length of the entries
 *     40    8  length of the contents
 *     48   16  zero
 *     64  ...  entries: for each record a 2-byte length and its canonical JSON (as in a tlog-tiles entry bundle)
 *          ..  contents: nothing where no record of the group has any; else for each record a 4-byte length (0: none),
 *              then for each the sealed content
 *          ..  the signed checkpoint for the tree that ends with this frame
 *          32  SHA-256 of everything before, from the magic on
 *          ..  zeros up to a multiple of SECTOR
 *
 * Sealed content: 24 bytes of nonce, then XChaCha20-Poly1305 (IETF) under the record's content key with the
 * associated data "polder/content/1" || log id || leaf hash of the entry. The plain bytes are
 *      2  count, then for each content: 1 length of the name, the name, 32 salt, 4 length, the bytes
 * The commitment in the entry is HMAC-SHA256(salt, bytes).
 *
 * Content keys: a header of one sector (0: "PLDRKEYS", 8: log id, 40: HMAC-SHA256(master key, "polder vault key
 * check"), 72: zeros, 480: SHA-256 of the 480 bytes before), then six slots of 80 bytes and 32 zero bytes a sector: no
 * slot crosses a sector. A slot that was never used is zero.
 *
 *   slot
 *      0    1  1: a content key; 2: erased (what is sealed is 32 zero bytes; the key that stood here is gone)
 *      1    7  index of the record
 *      8   24  nonce
 *     32   48  XChaCha20-Poly1305 of 32 bytes under the vault's master key, with the associated data
 *              "polder/slot/1" || log id || the slot's first 8 bytes
 *
 * A content key is HMAC-SHA256(seed, leaf hash). A slot may reach the disk later than its frame, but not later than
 * the seed that makes its key again is destroyed:
 *
 *   seeds
 *      0    8  "PLDRSEED"
 *      8   32  log id
 *     40    8  number of the running seed, from 1 on
 *     48    8  the slots of all records before this one were durable when it began
 *     56   72  the running seed: 24 nonce, XChaCha20-Poly1305 of 32 bytes under the vault's master key, with the
 *              associated data "polder/seed/1" || log id || its number, 8 bytes
 *    128   72  the seed before it, whose number is one less. Zero where there is none; both after a clean close
 *    200  280  zero
 *    480   32  SHA-256 of the 480 bytes before
 *
 * Order of writing for one group: content keys (a sync only where one of them was made from a seed that is no longer
 * there); tree; frame, sync; only then are the callers told. A new seed, about every 1,000 contents: sync of the keys;
 * seeds, sync; only then is anything encrypted under it. A new segment before a group: tree, sync; the segment under a
 * temporary name, sync; rename; sync of the folder.
 */
#ifndef POLDER_AUDIT_LEDGER_FORMAT_H
#define POLDER_AUDIT_LEDGER_FORMAT_H

#define SECTOR             512u
#define SEG_HEADER_LEN     4096u
#define SEG_LEN_DEFAULT    (8u << 20)
#define SEG_LEN_MIN        (16u << 10)
#define SEG_MAGIC          "PLDRSEG1"
#define SEG_NAME_LEN       24 /* 20 digits and ".seg" */
#define SEG_NOTE_AT        2112u
#define SEG_NOTE_MAX       (SEG_HEADER_LEN - 32u - SEG_NOTE_AT)
#define FRAME_MAGIC        "PLDRFRM1"
#define FRAME_HEADER_LEN   64u
#define FRAME_COUNT_MAX    65536u
#define FRAME_ENTRIES_MAX  (8u << 20)
#define FRAME_CONTENTS_MAX (96u << 20)
#define KEYS_MAGIC         "PLDRKEYS"
#define KEYS_PER_SECTOR    6u
#define KEY_SLOT_LEN       80u
#define SEEDS_MAGIC        "PLDRSEED"
#define KEYS_STEP          (256u << 10) /* the file grows by this much at a time */

#endif
