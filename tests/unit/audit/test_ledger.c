/* The ledger as its callers see it: create, append, read, close, open again, on a disk in memory. */
#include "helpers.h"

#include <errno.h>
#include <pthread.h>

TEST(a_new_ledger_is_empty_and_clean) {
    err e;
    ledger *l = NULL;
    ledger_report rep;
    simdisk *d = sim_ledger(&e);
    CHECK(d);
    CHECK_OK(open_sim(&l, d, false, &rep, &e), e);
    CHECK_INT(rep.size, 0);
    CHECK(rep.clean);
    CHECK_INT(ledger_size(l), 0);
    CHECK_STR(ledger_origin(l), ORIGIN);
    CHECK_HAS(ledger_vkey(l), ORIGIN "+");
    buf b = {.max = 4096};
    CHECK_OK(ledger_checkpoint(l, &b, &e), e);
    /* the root of the empty tree is SHA-256 of nothing */
    CHECK_HAS(buf_str(&b), ORIGIN "\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\xe2\x80\x94 " ORIGIN " ");
    CHECK_INT(ledger_read(l, 0, &b, &e), ERR_NOT_FOUND);
    CHECK_INT(ledger_prove(l, 0, &b, &e), ERR_NOT_FOUND);
    ledger_close(l);
    CHECK_INT(ledger_create(ISLAND, ORIGIN, sim_vfs(d), &e), ERR_EXISTS);
    buf_free(&b);
    sim_free(d);
}

TEST(records_come_back_after_reopening) {
    enum { N = 60 };
    err e;
    ledger *l = NULL;
    ledger_report rep;
    simdisk *d = sim_ledger(&e);
    CHECK(d);
    CHECK_OK(open_sim(&l, d, false, &rep, &e), e);
    for (int i = 0; i < N; i++) {
        uint64_t seq = 999;
        CHECK_OK(put_record(l, i, i % 3 == 0 ? i * 7 : -1, &seq, &e), e);
        CHECK_INT(seq, i);
    }
    ledger_stats st;
    ledger_get_stats(l, &st);
    CHECK_INT(st.size, N);
    CHECK_INT(st.groups, N);
    CHECK(st.segment_bytes > SEG_LEN_MIN); /* the small segments overflowed: several were made */
    ledger_close(l);
    for (int ro = 0; ro < 2; ro++) {
        CHECK_OK(open_sim(&l, d, ro, &rep, &e), e);
        CHECK_INT(rep.size, N);
        CHECK(rep.clean);
        CHECK_INT(rep.dropped_bytes, 0);
        CHECK(!rep.tree_rebuilt);
        for (int i = N - 1; i >= 0; i--) {
            CHECK(entry_is(l, (uint64_t)i, i));
            if (i % 3 == 0) CHECK(content_is(l, (uint64_t)i, i, i * 7));
        }
        buf b = {.max = 100};
        CHECK_INT(ledger_content(l, 1, "prompt", &b, &e), ERR_NOT_FOUND);
        CHECK_INT(ledger_content(l, 0, "answer", &b, &e), ERR_NOT_FOUND);
        CHECK_INT(ledger_read(l, N, &b, &e), ERR_NOT_FOUND);
        buf_free(&b);
        ledger_close(l);
    }
    verify_report r;
    err_code rc = verify_sim(d, &r, &e);
    if (rc != ERR_OK) FAIL("%s\n%s", e.msg, buf_str(&r.text));
    CHECK_INT(r.records, N);
    CHECK_INT(r.contents, 20);
    buf_free(&r.text);
    sim_free(d);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(a_new_ledger_is_empty_and_clean);
    RUN(records_come_back_after_reopening);
    return test_end();
}
