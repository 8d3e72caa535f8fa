/* Receipts: what they prove, and every mistake that other verifiers have made. */
#include "helpers.h"

enum { N = 21 };

typedef struct setup {
    simdisk *d;
    ledger *l;
    buf entry, receipt;
    char vkey[NOTE_VKEY_MAX];
} setup;

static bool set_up(setup *s, int n, uint64_t seq) {
    err e;
    *s = (setup){.entry = {.max = 4096}, .receipt = {.max = 16384}};
    s->d = sim_ledger(&e);
    if (!s->d || open_sim(&s->l, s->d, false, NULL, &e) != ERR_OK) return false;
    for (int i = 0; i < n; i++)
        if (put_record(s->l, i, -1, NULL, &e) != ERR_OK) return false;
    snprintf(s->vkey, sizeof s->vkey, "%s", ledger_vkey(s->l));
    return ledger_read(s->l, seq, &s->entry, &e) == ERR_OK && ledger_prove(s->l, seq, &s->receipt, &e) == ERR_OK;
}

static void tear_down(setup *s) {
    ledger_close(s->l);
    buf_free(&s->entry);
    buf_free(&s->receipt);
    sim_free(s->d);
}

static err_code check(const setup *s, const char *p, size_t n, err *e) {
    uint64_t seq;
    return audit_verify_receipt(p, n, s->entry.ptr, s->entry.len, s->vkey, &seq, e);
}

TEST(every_record_has_a_receipt) {
    setup s;
    err e;
    CHECK(set_up(&s, N, 0));
    CHECK_HAS(buf_str(&s.receipt), "c2sp.org/tlog-proof@v1\nindex 0\n");
    for (uint64_t i = 0; i < N; i++) {
        uint64_t seq = 99;
        buf_reset(&s.entry);
        buf_reset(&s.receipt);
        CHECK_OK(ledger_read(s.l, i, &s.entry, &e), e);
        CHECK_OK(ledger_prove(s.l, i, &s.receipt, &e), e);
        CHECK_OK(audit_verify_receipt(s.receipt.ptr, s.receipt.len, s.entry.ptr, s.entry.len, s.vkey, &seq, &e), e);
        CHECK_INT(seq, i);
    }
    CHECK_INT(ledger_prove(s.l, N, &s.receipt, &e), ERR_NOT_FOUND);
    tear_down(&s);
}

TEST(every_bit_of_receipt_and_entry_matters) {
    setup s;
    err e;
    CHECK(set_up(&s, N, 5));
    for (size_t i = 0; i < s.receipt.len * 8; i++) {
        s.receipt.ptr[i / 8] ^= (char)(1 << i % 8);
        if (check(&s, s.receipt.ptr, s.receipt.len, &e) == ERR_OK) FAIL("bit %zu of byte %zu", i % 8, i / 8);
        s.receipt.ptr[i / 8] ^= (char)(1 << i % 8);
    }
    for (size_t i = 0; i < s.entry.len * 8; i++) {
        s.entry.ptr[i / 8] ^= (char)(1 << i % 8);
        CHECK_INT(check(&s, s.receipt.ptr, s.receipt.len, &e), ERR_NO);
        s.entry.ptr[i / 8] ^= (char)(1 << i % 8);
    }
    for (size_t i = 0; i < s.receipt.len; i++) CHECK(check(&s, s.receipt.ptr, i, &e) != ERR_OK);
    CHECK_OK(check(&s, s.receipt.ptr, s.receipt.len, &e), e);
    tear_down(&s);
}

/* The receipt with one part replaced. */
static void replace(buf *out, const buf *in, const char *what, const char *with) {
    const char *at = strstr(in->ptr, what);
    buf_reset(out);
    buf_append(out, in->ptr, (size_t)(at - in->ptr));
    buf_puts(out, with);
    buf_puts(out, at + strlen(what));
}

TEST(malformed_receipts) {
    static const struct {
        const char *what, *with;
        err_code rc;
    } rows[] = {
        {"@v1\n", "@v1\nextra aGVsbG8=\n", ERR_OK},
        {"@v1\n", "@v1\nextra \n", ERR_INVALID},
        {"@v1\n", "@v1\nextra aGVsbG8\n", ERR_INVALID},
        {"@v1\n", "@v1\nextra a===\n", ERR_INVALID},
        {"@v1\n", "@v1\nextra aGVsbG8=\nextra aGVsbG8=\n", ERR_INVALID},
        {"@v1\n", "@v2\n", ERR_INVALID},
        {"@v1\n", "@v1\r\n", ERR_INVALID},
        {"@v1\n", "@v1\n\n", ERR_INVALID},
        {"index 5\n", "index 05\n", ERR_INVALID},
        {"index 5\n", "index +5\n", ERR_INVALID},
        {"index 5\n", "index  5\n", ERR_INVALID},
        {"index 5\n", "index 5 \n", ERR_INVALID},
        {"index 5\n", "index\n", ERR_INVALID},
        {"index 5\n", "", ERR_INVALID},
        {"index 5\n", "index 5\nindex 5\n", ERR_INVALID},
        {"index 5\n", "index 18446744073709551616\n", ERR_INVALID},
        {"index 5\n", "index 18446744073709551615\n", ERR_NO},
        {"index 5\n", "index 4\n", ERR_NO},
        {"index 5\n", "index 21\n", ERR_NO},
        {"index 5\n", "index 5\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", ERR_NO},      /* a longer path */
        {"index 5\n", "index 5\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=\n", ERR_INVALID}, /* unused bits */
        {"index 5\n", "index 5\nAAAA\n", ERR_INVALID},
        {"\n\n" ORIGIN, "\n" ORIGIN, ERR_INVALID},
        {"\n\n" ORIGIN, "\n\n\n" ORIGIN, ERR_NO},   /* an empty line before the origin is not what was signed */
        {ORIGIN "\n21\n", ORIGIN "\n22\n", ERR_NO}, /* size changed, signature not */
        {ORIGIN "\n21\n", "other.test/log\n21\n", ERR_NO},
    };
    setup s;
    err e;
    buf b = {.max = 20000};
    CHECK(set_up(&s, N, 5));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        replace(&b, &s.receipt, rows[i].what, rows[i].with);
        err_code rc = check(&s, b.ptr, b.len, &e);
        if (rc != rows[i].rc) FAIL("row %zu: %s (%s), not %s", i, err_name(rc), e.msg, err_name(rows[i].rc));
    }
    buf_reset(&b);
    buf_puts(&b, "c2sp.org/tlog-proof@v1\nindex 5\n");
    for (int i = 0; i < 65; i++) buf_puts(&b, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n");
    buf_append(&b, "\n", 1);
    CHECK_INT(check(&s, b.ptr, b.len, &e), ERR_INVALID);
    buf_free(&b);
    tear_down(&s);
}

/* sigstore-java #654, sigstore-python #248: the path was checked, the checkpoint's signature was not tied to it. */
TEST(path_and_signature_belong_together) {
    setup a, b;
    err e;
    buf mix = {.max = 20000};
    CHECK(set_up(&a, N, 5));
    CHECK(set_up(&b, N, 5)); /* another log with another key and the same origin */
    buf_append(&mix, a.receipt.ptr, (size_t)(strstr(a.receipt.ptr, "\n\n") + 2 - a.receipt.ptr));
    buf_puts(&mix, strstr(b.receipt.ptr, "\n\n") + 2);
    CHECK_INT(check(&a, mix.ptr, mix.len, &e), ERR_NO); /* a's path, b's note: not signed by a */
    snprintf(a.vkey, sizeof a.vkey, "%s", b.vkey);
    CHECK_INT(check(&a, mix.ptr, mix.len, &e), ERR_NO);             /* signed by b, but the path leads to a's root */
    CHECK_INT(check(&a, a.receipt.ptr, a.receipt.len, &e), ERR_NO); /* a's receipt under b's key */
    /* no signature at all, or one by somebody else */
    buf_reset(&mix);
    const char *sig = strstr(b.receipt.ptr, "\xe2\x80\x94 ");
    buf_append(&mix, b.receipt.ptr, (size_t)(sig - b.receipt.ptr));
    CHECK(check(&b, mix.ptr, mix.len, &e) != ERR_OK);
    buf_puts(&mix, "\xe2\x80\x94 someone.else AAAAAAAA\n");
    CHECK_INT(check(&b, mix.ptr, mix.len, &e), ERR_NO);
    buf_free(&mix);
    tear_down(&a);
    tear_down(&b);
}

/* emilia-protocol PR #235: an empty path was taken for a tree of one record whatever the checkpoint said. */
TEST(an_empty_path_needs_a_log_of_one_record) {
    setup s;
    err e;
    buf b = {.max = 20000};
    CHECK(set_up(&s, 1, 0));
    CHECK_HAS(buf_str(&s.receipt), "index 0\n\n" ORIGIN "\n1\n"); /* truly one record: the empty path is right */
    CHECK_OK(check(&s, s.receipt.ptr, s.receipt.len, &e), e);
    tear_down(&s);
    CHECK(set_up(&s, 2, 0));
    buf_puts(&b, "c2sp.org/tlog-proof@v1\nindex 0\n\n");
    buf_puts(&b, strstr(s.receipt.ptr, "\n\n") + 2);
    CHECK_INT(check(&s, b.ptr, b.len, &e), ERR_NO);
    /* a log of one record per receipt under a key of one's own: another key is another log */
    note_signer forger;
    hash32 leaf;
    CHECK_OK(note_signer_new(&forger, ORIGIN, &e), e);
    merkle_leaf(&leaf, s.entry.ptr, s.entry.len);
    buf_reset(&b);
    buf_puts(&b, "c2sp.org/tlog-proof@v1\nindex 0\n\n");
    checkpoint_sign(&b, &forger, 1, &leaf);
    CHECK_INT(check(&s, b.ptr, b.len, &e), ERR_NO);
    buf_free(&b);
    tear_down(&s);
}

TEST(consistency_between_all_sizes) {
    setup s;
    err e;
    buf b = {.max = 4096};
    CHECK(set_up(&s, N, 0));
    hash_source src = tree_source(s.l);
    for (uint64_t n = 1; n <= N; n++)
        for (uint64_t m = 0; m <= n; m++) {
            hash32 old, new;
            CHECK_OK(merkle_root(&src, m, &old, &e), e);
            CHECK_OK(merkle_root(&src, n, &new, &e), e);
            buf_reset(&b);
            CHECK_OK(ledger_consistency(s.l, m, n, &b, &e), e);
            CHECK(merkle_verify_consistency(m, &old, n, &new, (const hash32 *)(const void *)b.ptr,
                                            (unsigned)(b.len / HASH_LEN)));
        }
    CHECK_INT(ledger_consistency(s.l, 1, N + 1, &b, &e), ERR_NOT_FOUND);
    CHECK_INT(ledger_consistency(s.l, 3, 2, &b, &e), ERR_INVALID);
    buf_free(&b);
    tear_down(&s);
}

TEST(a_damaged_tree_makes_no_receipt) {
    setup s;
    err e;
    CHECK(set_up(&s, N, 0));
    /* record 5's path goes through the hash of record 4 */
    CHECK(sim_flip(s.d, ISLAND "/ledger/tree", stored_index(0, 4) * HASH_LEN + 3, 2));
    buf_reset(&s.receipt);
    CHECK_INT(ledger_prove(s.l, 5, &s.receipt, &e), ERR_CORRUPT);
    CHECK_HAS(e.msg, "ledger/tree");
    tear_down(&s);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(every_record_has_a_receipt);
    RUN(every_bit_of_receipt_and_entry_matters);
    RUN(malformed_receipts);
    RUN(path_and_signature_belong_together);
    RUN(an_empty_path_needs_a_log_of_one_record);
    RUN(consistency_between_all_sizes);
    RUN(a_damaged_tree_makes_no_receipt);
    return test_end();
}
