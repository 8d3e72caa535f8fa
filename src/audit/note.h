/* note: C2SP signed-note and tlog-checkpoint, Ed25519 (type 0x01), parsed strictly.
 *
 *   <text ending in newline> newline — <name> <base64(4-byte key ID || signature)> newline ...
 *
 * "—" is U+2014. Text and signatures are parted by the last empty line. A key ID is the first four bytes of
 * SHA-256(name || 0x0A || type || public key). A vkey is "<name>+<8 hex>+<base64(type || public key)>".
 *
 * Stricter than the specification where it leaves room, so that a note has one spelling: hex digits in lower case,
 * base64 with padding and unused bits zero, nothing after the last newline.
 */
#ifndef POLDER_AUDIT_NOTE_H
#define POLDER_AUDIT_NOTE_H

#include "audit/merkle.h"
#include "base/buf.h"

#define NOTE_NAME_MAX       200
#define NOTE_MAX            (256u << 10) /* a note with many post-quantum cosignatures is this large at most */
#define NOTE_SIGNATURES_MAX 64
#define NOTE_VKEY_MAX       320
#define NOTE_SKEY_MAX       340
/* A checkpoint with one signature: name, 20 digits, 44 characters, "— name ", 92 characters, newlines. */
#define NOTE_OWN_MAX (2 * NOTE_NAME_MAX + 200)

typedef struct note_key {
    char name[NOTE_NAME_MAX + 1];
    uint8_t id[4];
    uint8_t pub[32];
} note_key;

typedef struct note_signer { /* wipe after use */
    note_key key;
    uint8_t seed[32];
    uint8_t secret[64];
} note_signer;

/* 1 to NOTE_NAME_MAX bytes of UTF-8 without spaces (Unicode's), control characters or '+'. */
bool note_name_valid(const char *name, size_t n);
err_code note_key_parse(note_key *out, const char *vkey, size_t n, err *e);
void note_key_text(buf *out, const note_key *k);
err_code note_signer_new(note_signer *out, const char *name, err *e);
/* "PRIVATE+KEY+<name>+<8 hex>+<base64(type || seed)>", as Go's sumdb/note writes it. */
err_code note_signer_parse(note_signer *out, const char *skey, size_t n, err *e);
void note_signer_text(buf *out, const note_signer *s);

/* Append the signed note of a text that ends in a newline. */
void note_sign(buf *out, const note_signer *s, const char *text, size_t n);
/* Check form and signature. *text_len is the length of the signed text, *unknown (may be NULL) the number of
 * signature lines by other keys. ERR_INVALID: not a note; ERR_NO: no valid signature by k. */
err_code note_open(const char *note, size_t n, const note_key *k, size_t *text_len, unsigned *unknown, err *e);

typedef struct checkpoint {
    char origin[NOTE_NAME_MAX + 1];
    uint64_t size;
    hash32 root;
    unsigned extensions; /* lines after the third */
} checkpoint;

void checkpoint_text(buf *out, const char *origin, uint64_t size, const hash32 *root);
err_code checkpoint_parse(checkpoint *out, const char *text, size_t n, err *e);
void checkpoint_sign(buf *out, const note_signer *s, uint64_t size, const hash32 *root);
/* note_open, checkpoint_parse, and the origin is the key's name. */
err_code checkpoint_open(checkpoint *out, const char *note, size_t n, const note_key *k, unsigned *unknown, err *e);
/* A checkpoint as this ledger writes it: exactly one signature, its own, and no extension lines. Without
 * `verify` the signature's bytes are not checked (for a caller that has checked a hash over them). */
err_code checkpoint_open_own(checkpoint *out, const char *note, size_t n, const note_key *k, bool verify, err *e);

/* ASCII decimal without leading zeros, all of n bytes. */
bool decimal_parse(uint64_t *out, const char *s, size_t n);

#endif
