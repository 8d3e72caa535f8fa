/* merkle: RFC 6962 §2.1 over SHA-256, as pure functions; who stores hashes is the caller's business.
 *
 *   leaf = SHA-256(0x00 || entry)   node = SHA-256(0x01 || left || right)   empty tree = SHA-256("")
 *
 * MTH(D[lo:hi]) splits at the largest power of two smaller than hi - lo. A subtree of 2^level leaves that begins at
 * n * 2^level has the coordinates (level, n).
 *
 * Stored hashes: every complete subtree's hash once, in the order in which appending completes them (Crosby and
 * Wallach 2009, §3.3; the order of Go's sumdb/tlog). Leaf n adds itself and one hash for each trailing one-bit of n,
 * so the file is append-only.
 */
#ifndef POLDER_AUDIT_MERKLE_H
#define POLDER_AUDIT_MERKLE_H

#include "base/bytes.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HASH_LEN        32u
#define MERKLE_LEVELS   64
#define PROOF_MAX       64 /* hashes of an inclusion proof at most */
#define CONSISTENCY_MAX 65 /* hashes of a consistency proof at most */

typedef struct hash32 {
    uint8_t b[HASH_LEN];
} hash32;

bool hash_equal(const hash32 *a, const hash32 *b);
void merkle_leaf(hash32 *out, const void *entry, size_t n);
void merkle_node(hash32 *out, const hash32 *left, const hash32 *right); /* out may be one of them */

/* The right edge of a tree: h[k] is the hash of the complete subtree of 2^k leaves where bit k of size is set. A
 * zeroed frontier is the empty tree. */
typedef struct frontier {
    uint64_t size;
    hash32 h[MERKLE_LEVELS];
} frontier;

/* Append a leaf. stored[0..result) are the stored hashes that it adds, in file order. */
unsigned frontier_append(frontier *f, const hash32 *leaf, hash32 stored[MERKLE_LEVELS + 1]);
void frontier_root(const frontier *f, hash32 *out);
bool frontier_equal(const frontier *a, const frontier *b);

/* Position of (level, n) among stored hashes, and how many a tree of `size` leaves has. */
uint64_t stored_index(unsigned level, uint64_t n);
uint64_t stored_count(uint64_t size);

/* Where hashes come from: one stored hash by position. */
typedef struct hash_source {
    err_code (*read)(void *ctx, uint64_t index, hash32 *out, err *e);
    void *ctx;
} hash_source;

/* MTH(D[lo:hi]) for a range that occurs in the recursion of a tree. */
err_code merkle_range(const hash_source *s, uint64_t lo, uint64_t hi, hash32 *out, err *e);
err_code merkle_root(const hash_source *s, uint64_t size, hash32 *out, err *e);
err_code merkle_frontier(const hash_source *s, uint64_t size, frontier *out, err *e);
/* RFC 6962 §2.1.1 and §2.1.2; hashes from the leaf towards the root. */
err_code merkle_inclusion(const hash_source *s, uint64_t index, uint64_t size, hash32 out[PROOF_MAX], unsigned *n,
                          err *e);
err_code merkle_consistency(const hash_source *s, uint64_t old_size, uint64_t new_size, hash32 out[CONSISTENCY_MAX],
                            unsigned *n, err *e);

/* RFC 9162 §2.1.3.2 and §2.1.4.2: the proof's length must be exactly what index and sizes call for. */
bool merkle_verify_inclusion(const hash32 *leaf, uint64_t index, uint64_t size, const hash32 *proof, unsigned n,
                             const hash32 *root);
bool merkle_verify_consistency(uint64_t old_size, const hash32 *old_root, uint64_t new_size, const hash32 *new_root,
                               const hash32 *proof, unsigned n);

#endif
