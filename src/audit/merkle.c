#include "audit/merkle.h"

#include <string.h>

bool hash_equal(const hash32 *a, const hash32 *b) {
    return memcmp(a->b, b->b, HASH_LEN) == 0;
}

void merkle_leaf(hash32 *out, const void *entry, size_t n) {
    sha256 s;
    sha256_init(&s);
    sha256_update(&s, "\x00", 1);
    sha256_update(&s, entry, n);
    sha256_final(&s, out->b);
}

void merkle_node(hash32 *out, const hash32 *left, const hash32 *right) {
    uint8_t in[1 + 2 * HASH_LEN] = {0x01};
    memcpy(in + 1, left->b, HASH_LEN);
    memcpy(in + 1 + HASH_LEN, right->b, HASH_LEN);
    sha256_of(out->b, in, sizeof in);
}

unsigned frontier_append(frontier *f, const hash32 *leaf, hash32 stored[MERKLE_LEVELS + 1]) {
    unsigned n = 0, level = 0;
    hash32 h = *leaf;
    stored[n++] = h;
    for (uint64_t bits = f->size; bits & 1; bits >>= 1, level++) {
        merkle_node(&h, &f->h[level], &h);
        stored[n++] = h;
    }
    f->h[level] = h;
    f->size++;
    return n;
}

void frontier_root(const frontier *f, hash32 *out) {
    bool have = false;
    for (unsigned k = 0; k < MERKLE_LEVELS; k++) {
        if (!(f->size >> k & 1)) continue;
        if (have)
            merkle_node(out, &f->h[k], out);
        else
            *out = f->h[k];
        have = true;
    }
    if (!have) sha256_of(out->b, "", 0);
}

bool frontier_equal(const frontier *a, const frontier *b) {
    if (a->size != b->size) return false;
    for (unsigned k = 0; k < MERKLE_LEVELS; k++)
        if (a->size >> k & 1 && !hash_equal(&a->h[k], &b->h[k])) return false;
    return true;
}

uint64_t stored_count(uint64_t size) {
    /* one hash for each complete subtree: size/1 + size/2 + size/4 + ... */
    uint64_t n = 0;
    for (; size; size >>= 1) n += size;
    return n;
}

uint64_t stored_index(unsigned level, uint64_t n) {
    /* The subtree's last leaf completes it: what is stored before that leaf, then one hash a level above the leaf. */
    uint64_t last = ((n + 1) << level) - 1;
    return stored_count(last) + level;
}

/* The largest power of two smaller than n (n >= 2). */
static uint64_t split(uint64_t n) {
    uint64_t k = 1;
    while (k < n - k) k <<= 1;
    return k;
}

err_code merkle_range(const hash_source *s, uint64_t lo, uint64_t hi, hash32 *out, err *e) {
    uint64_t n = hi - lo;
    if (n == 0) {
        sha256_of(out->b, "", 0);
        return ERR_OK;
    }
    if ((n & (n - 1)) == 0 && (lo & (n - 1)) == 0) {
        unsigned level = 0;
        while (n >> level != 1) level++;
        return s->read(s->ctx, stored_index(level, lo >> level), out, e);
    }
    uint64_t k = split(n);
    hash32 left, right;
    err_code rc = merkle_range(s, lo, lo + k, &left, e);
    if (rc == ERR_OK) rc = merkle_range(s, lo + k, hi, &right, e);
    if (rc == ERR_OK) merkle_node(out, &left, &right);
    return rc;
}

err_code merkle_root(const hash_source *s, uint64_t size, hash32 *out, err *e) {
    return merkle_range(s, 0, size, out, e);
}

err_code merkle_frontier(const hash_source *s, uint64_t size, frontier *out, err *e) {
    *out = (frontier){.size = size};
    for (unsigned k = 0; k < MERKLE_LEVELS; k++) {
        if (!(size >> k & 1)) continue;
        /* the subtree of bit k ends where the higher bits and this one end */
        err_code rc = s->read(s->ctx, stored_index(k, (size >> k) - 1), &out->h[k], e);
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

err_code merkle_inclusion(const hash_source *s, uint64_t index, uint64_t size, hash32 out[PROOF_MAX], unsigned *n,
                          err *e) {
    *n = 0;
    if (index >= size)
        return err_set(e, ERR_NOT_FOUND, "inclusion proof: record %llu is past the size %llu",
                       (unsigned long long)index, (unsigned long long)size);
    /* the siblings are met from the root downwards and wanted from the leaf upwards */
    uint64_t lo = 0, hi = size;
    hash32 down[PROOF_MAX];
    unsigned depth = 0;
    while (hi - lo > 1) {
        uint64_t k = split(hi - lo);
        bool left = index - lo < k;
        err_code rc =
            left ? merkle_range(s, lo + k, hi, &down[depth], e) : merkle_range(s, lo, lo + k, &down[depth], e);
        if (rc != ERR_OK) return rc;
        depth++;
        if (left)
            hi = lo + k;
        else
            lo += k;
    }
    for (unsigned i = 0; i < depth; i++) out[i] = down[depth - 1 - i];
    *n = depth;
    return ERR_OK;
}

err_code merkle_consistency(const hash_source *s, uint64_t old_size, uint64_t new_size, hash32 out[CONSISTENCY_MAX],
                            unsigned *n, err *e) {
    *n = 0;
    if (old_size > new_size)
        return err_set(e, ERR_INVALID, "consistency proof: the old size %llu is larger than the new size %llu",
                       (unsigned long long)old_size, (unsigned long long)new_size);
    if (old_size == 0 || old_size == new_size) return ERR_OK;
    uint64_t lo = 0, hi = new_size;
    hash32 down[CONSISTENCY_MAX];
    unsigned depth = 0;
    err_code rc = ERR_OK;
    bool whole = true; /* D[lo:old_size] is still the whole old tree, whose root the verifier has */
    while (old_size != hi) {
        uint64_t k = split(hi - lo);
        bool left = old_size - lo <= k;
        rc = left ? merkle_range(s, lo + k, hi, &down[depth], e) : merkle_range(s, lo, lo + k, &down[depth], e);
        if (rc != ERR_OK) return rc;
        depth++;
        if (left) {
            hi = lo + k;
        } else {
            lo += k;
            whole = false;
        }
    }
    if (!whole) {
        rc = merkle_range(s, lo, hi, &down[depth], e);
        if (rc != ERR_OK) return rc;
        depth++;
    }
    for (unsigned i = 0; i < depth; i++) out[i] = down[depth - 1 - i];
    *n = depth;
    return ERR_OK;
}

bool merkle_verify_inclusion(const hash32 *leaf, uint64_t index, uint64_t size, const hash32 *proof, unsigned n,
                             const hash32 *root) {
    if (index >= size) return false;
    uint64_t fn = index, sn = size - 1;
    hash32 r = *leaf;
    for (unsigned i = 0; i < n; i++) {
        if (sn == 0) return false; /* longer than the path to the root */
        if (fn & 1 || fn == sn) {
            merkle_node(&r, &proof[i], &r);
            while (!(fn & 1) && fn) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            merkle_node(&r, &r, &proof[i]);
        }
        fn >>= 1;
        sn >>= 1;
    }
    return sn == 0 && hash_equal(&r, root);
}

bool merkle_verify_consistency(uint64_t old_size, const hash32 *old_root, uint64_t new_size, const hash32 *new_root,
                               const hash32 *proof, unsigned n) {
    if (old_size > new_size) return false;
    if (old_size == new_size) return n == 0 && hash_equal(old_root, new_root);
    if (old_size == 0) {
        hash32 empty;
        sha256_of(empty.b, "", 0);
        return n == 0 && hash_equal(old_root, &empty);
    }
    unsigned i = 0;
    hash32 fr, sr;
    if ((old_size & (old_size - 1)) == 0) {
        fr = sr = *old_root; /* a complete old tree is a node of the new one and is left out of the proof */
    } else {
        if (n == 0) return false;
        fr = sr = proof[i++];
    }
    uint64_t fn = old_size - 1, sn = new_size - 1;
    while (fn & 1) {
        fn >>= 1;
        sn >>= 1;
    }
    for (; i < n; i++) {
        if (sn == 0) return false;
        if (fn & 1 || fn == sn) {
            merkle_node(&fr, &proof[i], &fr);
            merkle_node(&sr, &proof[i], &sr);
            while (!(fn & 1) && fn) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            merkle_node(&sr, &sr, &proof[i]);
        }
        fn >>= 1;
        sn >>= 1;
    }
    return sn == 0 && hash_equal(&fr, old_root) && hash_equal(&sr, new_root);
}
