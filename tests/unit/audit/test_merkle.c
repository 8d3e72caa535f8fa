/* RFC 6962 hashing and proofs, against the constants of the specification's implementations and against a second
 * computation straight from the definition. What breaks it: a wrong prefix, split, proof order or length check. */
#include "audit/merkle.h"
#include "base/mem.h"
#include "tests/harness.h"

enum { N = 130 };

static hash32 leaves[N];

/* MTH(D[lo:hi]) as RFC 6962 §2.1 words it. */
static hash32 naive(unsigned lo, unsigned hi) {
    hash32 out;
    if (lo == hi) {
        sha256_of(out.b, "", 0);
        return out;
    }
    if (hi - lo == 1) return leaves[lo];
    unsigned k = 1;
    while (2 * k < hi - lo) k *= 2;
    hash32 l = naive(lo, lo + k), r = naive(lo + k, hi);
    uint8_t in[65] = {1};
    memcpy(in + 1, l.b, 32);
    memcpy(in + 33, r.b, 32);
    sha256_of(out.b, in, sizeof in);
    return out;
}

static hash32 stored[4 * N];
static unsigned n_stored;

static err_code read_stored(void *ctx, uint64_t i, hash32 *out, err *e) {
    if (i >= n_stored) return err_set(e, ERR_NOT_FOUND, "hash %llu", (unsigned long long)i);
    *out = stored[i];
    return ERR_OK;
}
static const hash_source source = {read_stored, NULL};

static void fill(void) {
    frontier f = {0};
    n_stored = 0;
    for (unsigned i = 0; i < N; i++) {
        uint8_t entry[2] = {(uint8_t)i, (uint8_t)(i * 7)};
        hash32 out[MERKLE_LEVELS + 1];
        merkle_leaf(&leaves[i], entry, i % 3);
        unsigned n = frontier_append(&f, &leaves[i], out);
        memcpy(stored + n_stored, out, n * sizeof *out);
        n_stored += n;
    }
}

static const char *hex(const hash32 *h) {
    static char s[65];
    hex_encode(s, h->b, 32);
    return s;
}

TEST(constants_of_rfc6962) {
    hash32 h, l, r;
    frontier f = {0};
    frontier_root(&f, &h);
    CHECK_STR(hex(&h), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    merkle_leaf(&h, "", 0);
    CHECK_STR(hex(&h), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    merkle_leaf(&h, "L123456", 7);
    CHECK_STR(hex(&h), "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56");
    /* node("N123", "N456"): node() takes hashes, so the same bytes are hashed here */
    uint8_t in[9] = {1, 'N', '1', '2', '3', 'N', '4', '5', '6'};
    sha256_of(h.b, in, sizeof in);
    CHECK_STR(hex(&h), "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb");
    memset(l.b, 0xab, 32);
    memset(r.b, 0xcd, 32);
    uint8_t pair[65] = {1};
    memset(pair + 1, 0xab, 32);
    memset(pair + 33, 0xcd, 32);
    hash32 want, got;
    sha256_of(want.b, pair, sizeof pair);
    merkle_node(&got, &l, &r);
    CHECK(hash_equal(&got, &want));
    merkle_node(&r, &l, &r); /* in place */
    CHECK(hash_equal(&r, &want));
}

TEST(stored_hashes_are_in_the_order_of_sumdb) {
    /* (level, n) of the first hashes, as in the comment of Go's tlog.StoredHashIndex */
    static const struct {
        unsigned level;
        uint64_t n, index;
    } rows[] = {{0, 0, 0}, {0, 1, 1}, {1, 0, 2}, {0, 2, 3}, {0, 3, 4},
                {1, 1, 5}, {2, 0, 6}, {0, 4, 7}, {0, 5, 8}, {1, 2, 9}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_INT(stored_index(rows[i].level, rows[i].n), rows[i].index);
    static const unsigned counts[] = {0, 1, 3, 4, 7, 8, 10, 11, 15};
    for (unsigned i = 0; i < 9; i++) CHECK_INT(stored_count(i), counts[i]);
    fill();
    CHECK_INT(n_stored, stored_count(N));
    for (unsigned level = 0; level < 7; level++)
        for (unsigned n = 0; (n + 1) << level <= N; n++) {
            hash32 want = naive(n << level, (n + 1) << level);
            CHECK(hash_equal(&stored[stored_index(level, n)], &want));
        }
}

TEST(roots_of_all_sizes) {
    fill();
    frontier f = {0}, again;
    err e;
    for (unsigned n = 0; n <= N; n++) {
        hash32 want = naive(0, n), a, b;
        frontier_root(&f, &a);
        CHECK(hash_equal(&a, &want));
        CHECK_OK(merkle_root(&source, n, &b, &e), e);
        CHECK(hash_equal(&b, &want));
        CHECK_OK(merkle_frontier(&source, n, &again, &e), e);
        CHECK(frontier_equal(&f, &again));
        hash32 out[MERKLE_LEVELS + 1];
        if (n < N) frontier_append(&f, &leaves[n], out);
        if (n < N) CHECK(!frontier_equal(&f, &again));
    }
}

TEST(inclusion_proofs_of_all_sizes) {
    fill();
    err e;
    for (unsigned n = 1; n <= N; n++) {
        hash32 root = naive(0, n), path[PROOF_MAX + 1];
        for (unsigned i = 0; i < n; i++) {
            unsigned len;
            CHECK_OK(merkle_inclusion(&source, i, n, path, &len, &e), e);
            CHECK(merkle_verify_inclusion(&leaves[i], i, n, path, len, &root));
            /* any other index, size, length or hash must fail */
            if (n > 1) CHECK(!merkle_verify_inclusion(&leaves[i], i, n, path, len - 1, &root));
            if (n > 1) CHECK(!merkle_verify_inclusion(&leaves[i], i, n, path, 0, &root));
            path[len] = root;
            CHECK(!merkle_verify_inclusion(&leaves[i], i, n, path, len + 1, &root));
            CHECK(!merkle_verify_inclusion(&leaves[i], n, n, path, len, &root));
            if (i) CHECK(!merkle_verify_inclusion(&leaves[i - 1], i, n, path, len, &root));
            if (i && !hash_equal(&leaves[i], &leaves[i - 1]))
                CHECK(!merkle_verify_inclusion(&leaves[i], i - 1, n, path, len, &root));
            for (unsigned k = 0; k < len; k++) {
                path[k].b[i % 32] ^= 1;
                CHECK(!merkle_verify_inclusion(&leaves[i], i, n, path, len, &root));
                path[k].b[i % 32] ^= 1;
            }
        }
        unsigned len;
        CHECK_INT(merkle_inclusion(&source, n, n, path, &len, &e), ERR_NOT_FOUND);
    }
}

TEST(an_empty_path_is_a_tree_of_one) {
    fill();
    hash32 root = leaves[3];
    CHECK(merkle_verify_inclusion(&leaves[3], 0, 1, NULL, 0, &root));
    CHECK(!merkle_verify_inclusion(&leaves[3], 0, 2, NULL, 0, &root));
    CHECK(!merkle_verify_inclusion(&leaves[3], 1, 2, NULL, 0, &root));
    CHECK(!merkle_verify_inclusion(&leaves[3], 0, 0, NULL, 0, &root));
}

TEST(consistency_proofs_of_all_pairs) {
    fill();
    err e;
    for (unsigned n = 1; n <= N; n++)
        for (unsigned m = 0; m <= n; m++) {
            hash32 old = naive(0, m), new = naive(0, n), path[CONSISTENCY_MAX + 1];
            unsigned len;
            CHECK_OK(merkle_consistency(&source, m, n, path, &len, &e), e);
            CHECK(merkle_verify_consistency(m, &old, n, &new, path, len));
            if (m == 0 || m == n) CHECK_INT(len, 0);
            path[len] = new;
            CHECK(!merkle_verify_consistency(m, &old, n, &new, path, len + 1));
            if (len) CHECK(!merkle_verify_consistency(m, &old, n, &new, path, len - 1));
            if (m && m < n) CHECK(!merkle_verify_consistency(m, &old, n, &new, path, 0));
            for (unsigned k = 0; k < len; k++) {
                path[k].b[n % 32] ^= 4;
                CHECK(!merkle_verify_consistency(m, &old, n, &new, path, len));
                path[k].b[n % 32] ^= 4;
            }
            if (m == 0 || m == n) continue;
            hash32 wrong = old;
            wrong.b[0] ^= 1;
            CHECK(!merkle_verify_consistency(m, &wrong, n, &new, path, len));
            wrong = new;
            wrong.b[31] ^= 0x80;
            CHECK(!merkle_verify_consistency(m, &old, n, &wrong, path, len));
        }
    hash32 path[CONSISTENCY_MAX];
    unsigned len;
    CHECK_INT(merkle_consistency(&source, 5, 4, path, &len, &e), ERR_INVALID);
    CHECK(!merkle_verify_consistency(5, &leaves[0], 4, &leaves[0], path, 0));
}

TEST(rfc9162_example_paths) {
    /* RFC 6962 §2.1.3: for seven leaves, PATH(0) = [b h l], PATH(3) = [c g l], PATH(4) = [f j k], PATH(6) = [i k];
     * PROOF(3) = [c d g l], PROOF(4) = [l], PROOF(6) = [i j k] */
    fill();
    err e;
    hash32 p[CONSISTENCY_MAX];
    unsigned n;
    hash32 b = leaves[1], c = leaves[2], d = leaves[3], f = leaves[5], j = leaves[6];
    hash32 g = naive(0, 2), h = naive(2, 4), i = naive(4, 6), k = naive(0, 4), l = naive(4, 7);
#define IS(...)                               \
    do {                                      \
        const hash32 w[] = {__VA_ARGS__};     \
        CHECK_INT(n, sizeof w / sizeof w[0]); \
        CHECK(memcmp(w, p, sizeof w) == 0);   \
    } while (0)
    CHECK_OK(merkle_inclusion(&source, 0, 7, p, &n, &e), e);
    IS(b, h, l);
    CHECK_OK(merkle_inclusion(&source, 3, 7, p, &n, &e), e);
    IS(c, g, l);
    CHECK_OK(merkle_inclusion(&source, 4, 7, p, &n, &e), e);
    IS(f, j, k);
    CHECK_OK(merkle_inclusion(&source, 6, 7, p, &n, &e), e);
    IS(i, k);
    CHECK_OK(merkle_consistency(&source, 3, 7, p, &n, &e), e);
    IS(c, d, g, l);
    CHECK_OK(merkle_consistency(&source, 4, 7, p, &n, &e), e);
    IS(l);
    CHECK_OK(merkle_consistency(&source, 6, 7, p, &n, &e), e);
    IS(i, j, k);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(constants_of_rfc6962);
    RUN(stored_hashes_are_in_the_order_of_sumdb);
    RUN(roots_of_all_sizes);
    RUN(inclusion_proofs_of_all_sizes);
    RUN(an_empty_path_is_a_tree_of_one);
    RUN(consistency_proofs_of_all_pairs);
    RUN(rfc9162_example_paths);
    return test_end();
}
