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

/* ---- many callers ---------------------------------------------------------------------------------------- */

enum { CALLERS = 8, EACH = 40 };

typedef struct caller {
    ledger *l;
    int id, failed;
    uint64_t seq[EACH];
    pthread_t t;
} caller;

static void *call(void *arg) {
    caller *c = arg;
    err e;
    for (int i = 0; i < EACH; i++)
        if (put_record(c->l, c->id * 1000 + i, i % 5 ? -1 : 40, &c->seq[i], &e) != ERR_OK) c->failed++;
    return NULL;
}

/* What breaks it: two callers with one index, an index told before the entry is readable. A TSan build runs it too. */
TEST(callers_share_groups) {
    err e;
    ledger *l = NULL;
    simdisk *d = sim_ledger(&e);
    static caller c[CALLERS];
    bool used[CALLERS * EACH] = {false};
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    for (int i = 0; i < CALLERS; i++) {
        c[i] = (caller){.l = l, .id = i};
        CHECK(pthread_create(&c[i].t, NULL, call, &c[i]) == 0);
    }
    uint64_t size = 0; /* readers look on */
    while (size < CALLERS * EACH) {
        buf b = {.max = 1 << 20}, r = {.max = 1 << 16};
        bool immutable;
        uint64_t seen = ledger_size(l);
        CHECK(seen >= size);
        size = seen;
        CHECK_OK(ledger_checkpoint(l, &b, &e), e);
        if (size) CHECK_OK(ledger_prove(l, size - 1, &r, &e), e);
        buf_reset(&b);
        if (size) CHECK_OK(ledger_read(l, size / 2, &b, &e), e);
        buf_reset(&b);
        if (size) CHECK_OK(ledger_resource(l, "tile/0/000.p/1", &b, &immutable, &e), e);
        ledger_stats st;
        ledger_get_stats(l, &st);
        CHECK(st.queued <= CALLERS);
        buf_free(&b);
        buf_free(&r);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(c[i].t, NULL);
        CHECK_INT(c[i].failed, 0);
        for (int k = 0; k < EACH; k++) {
            CHECK(c[i].seq[k] < CALLERS * EACH && !used[c[i].seq[k]]);
            used[c[i].seq[k]] = true;
            CHECK(entry_is(l, c[i].seq[k], i * 1000 + k));
            if (k % 5 == 0) CHECK(content_is(l, c[i].seq[k], i * 1000 + k, 40));
        }
    }
    ledger_close(l);
    verify_report r;
    CHECK_OK(verify_sim(d, &r, &e), e);
    CHECK_INT(r.records, CALLERS * EACH);
    buf_free(&r.text);
    sim_free(d);
}

/* ---- pairs ----------------------------------------------------------------------------------------------- */

static bool names(ledger *l, uint64_t seq, uint64_t first) {
    char want[40];
    err e;
    buf b = {.max = LEDGER_ENTRY_MAX};
    snprintf(want, sizeof want, "\"of\":%llu,", (unsigned long long)first);
    bool ok = ledger_read(l, seq, &b, &e) == ERR_OK && strstr(buf_str(&b), want);
    buf_free(&b);
    return ok;
}

static void *call_pairs(void *arg) {
    caller *c = arg;
    err e;
    for (int i = 0; i + 1 < EACH; i += 2)
        if (put_pair(c->l, c->id * 1000 + i, i % 3 ? -1 : 50, i % 4 ? -1 : 70, &c->seq[i], &e) != ERR_OK) c->failed++;
    return NULL;
}

/* Pairs and single records of many threads in groups smaller than what waits. What breaks it: a pair that is torn
 * apart, an index of another record, a seal that is bound to the entry as it was before it got its index. */
TEST(pairs_stand_together) {
    err e;
    ledger *l = NULL;
    simdisk *d = sim_ledger(&e);
    static caller c[CALLERS];
    ledger_options o = {.fs = sim_vfs(d), .segment_bytes = SEG_LEN_MIN, .group_max = 3};
    CHECK_OK(ledger_open(&l, ISLAND, &o, NULL, &e), e);
    for (int i = 0; i < CALLERS; i++) {
        c[i] = (caller){.l = l, .id = i};
        CHECK(pthread_create(&c[i].t, NULL, i % 4 ? call_pairs : call, &c[i]) == 0);
    }
    for (int i = 0; i < CALLERS; i++) pthread_join(c[i].t, NULL);
    for (int i = 0; i < CALLERS; i++) {
        CHECK_INT(c[i].failed, 0);
        for (int k = 0; i % 4 && k + 1 < EACH; k += 2) {
            uint64_t seq = c[i].seq[k];
            CHECK(entry_is(l, seq, i * 1000 + k) && entry_is(l, seq + 1, i * 1000 + k + 1));
            CHECK(names(l, seq + 1, seq));
            if (k % 3 == 0) CHECK(content_is(l, seq, i * 1000 + k, 50));
            if (k % 4 == 0) CHECK(content_is(l, seq + 1, i * 1000 + k + 1, 70));
        }
    }
    ledger_close(l);
    verify_report r;
    CHECK_OK(verify_sim(d, &r, &e), e);
    CHECK_INT(r.records, CALLERS * EACH);
    buf_free(&r.text);
    sim_free(d);
}

/* Both or neither, also where the disk takes nothing and where the second is wrong. */
TEST(a_pair_is_written_whole_or_not) {
    err e;
    ledger *l = NULL;
    uint64_t seq = 77;
    simdisk *d = sim_ledger(&e);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    CHECK_OK(put_pair(l, 1, 10, (int)GROUP_BYTES_MAX / 8, &seq, &e), e);
    CHECK_INT(seq, 0);
    record *a = NULL, *b = NULL;
    CHECK_OK(make_record(&a, 3, 5, &e), e);
    CHECK_OK(make_record(&b, 4, 5, &e), e);
    CHECK_INT(ledger_append_pair(l, a, b, "of", &seq, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "\"of\"");
    record_free(a);
    record_free(b);
    CHECK_OK(make_record(&a, 3, 5, &e), e);
    CHECK_OK(make_record(&b, 4, 5, &e), e);
    cJSON *inner = cJSON_AddObjectToObject(record_body(b), "x");
    CHECK(inner && cJSON_AddNumberToObject(inner, "of", (double)LEDGER_SEQ_PENDING) &&
          cJSON_AddNumberToObject(record_body(b), "of", (double)LEDGER_SEQ_PENDING));
    CHECK_INT(ledger_append_pair(l, a, b, "of", &seq, &e), ERR_INVALID); /* which of the two? */
    CHECK_INT(ledger_size(l), 2);
    record_free(a);
    record_free(b);
    log_set_level(LOG_ERROR + 1);
    sim_fail(d, SIM_WRITE, 0, 1, ENOSPC, "seg");
    CHECK_INT(put_pair(l, 5, 10, 10, &seq, &e), ERR_UNAVAILABLE);
    log_set_level(LOG_INFO);
    CHECK_INT(ledger_size(l), 2);
    CHECK_OK(put_pair(l, 7, -1, 10, &seq, &e), e);
    CHECK_INT(seq, 2);
    CHECK(names(l, 3, 2) && content_is(l, 3, 8, 10));
    ledger_close(l);
    verify_report r;
    CHECK_OK(verify_sim(d, &r, &e), e);
    CHECK_INT(r.records, 4);
    buf_free(&r.text);
    sim_free(d);
}

TEST(large_contents_get_a_segment_of_their_size) {
    err e;
    ledger *l = NULL;
    simdisk *d = sim_ledger(&e);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    static const int sizes[] = {10, 100000, 0, 700000, 20, 900000};
    for (int i = 0; i < 6; i++) CHECK_OK(put_record(l, i, sizes[i], NULL, &e), e);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 6; i++) CHECK(content_is(l, (uint64_t)i, i, sizes[i]));
        ledger_close(l);
        CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    }
    ledger_close(l);
    sim_free(d);
}

/* ---- a reader beside a writer ---------------------------------------------------------------------------- */

TEST(a_reader_follows_the_writer) {
    err e;
    ledger *w = NULL, *r = NULL;
    ledger_report rep;
    simdisk *d = sim_ledger(&e);
    CHECK_OK(open_sim(&w, d, false, NULL, &e), e);
    CHECK_OK(open_sim(&r, d, true, &rep, &e), e);
    CHECK_INT(put_record(r, 0, -1, NULL, &e), ERR_UNAVAILABLE);
    buf b = {.max = 20000};
    for (int i = 0; i < 70; i++) { /* over several segments */
        CHECK_OK(put_record(w, i, i % 7 ? -1 : 9, NULL, &e), e);
        if (i % 3) continue;
        CHECK(ledger_size(r) < (uint64_t)i + 1);
        CHECK_OK(ledger_refresh(r, &e), e);
        CHECK_INT(ledger_size(r), i + 1);
        CHECK(entry_is(r, (uint64_t)i, i));
        CHECK(entry_is(r, (uint64_t)i / 2, i / 2));
        if (i % 7 == 0) CHECK(content_is(r, (uint64_t)i, i, 9));
        uint64_t seq;
        buf entry = {.max = 4096};
        buf_reset(&b);
        CHECK_OK(ledger_prove(r, (uint64_t)i / 3, &b, &e), e);
        CHECK_OK(ledger_read(r, (uint64_t)i / 3, &entry, &e), e);
        CHECK_OK(audit_verify_receipt(b.ptr, b.len, entry.ptr, entry.len, ledger_vkey(w), &seq, &e), e);
        buf_free(&entry);
    }
    verify_report v; /* while it is open */
    CHECK_OK(verify_sim(d, &v, &e), e);
    buf_free(&v.text);
    int64_t changes = sim_changes(d);
    ledger_close(r);
    CHECK_OK(open_sim(&r, d, true, NULL, &e), e);
    ledger_close(r);
    CHECK(sim_changes(d) - changes <= 1); /* a sync of what it read, nothing else */
    ledger_close(w);
    buf_free(&b);
    sim_free(d);
}

/* A reader that comes after a power loss and before any writer: the tree file lags behind. */
TEST(a_reader_does_without_the_tree_file) {
    err e;
    ledger *l = NULL;
    ledger_report rep;
    simdisk *d = sim_ledger(&e);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    for (int i = 0; i < 5; i++) CHECK_OK(put_record(l, i, 3, NULL, &e), e);
    simdisk *after = sim_after_crash(d, 0); /* the tree is never synced in the first segment */
    ledger_close(l);
    buf b = {.max = 20000};
    CHECK(sim_read(after, ISLAND "/ledger/tree", &b) && b.len == 0);
    buf_reset(&b);
    CHECK_OK(open_sim(&l, after, true, &rep, &e), e);
    CHECK_INT(rep.size, 5);
    CHECK(rep.tree_rebuilt);
    for (int i = 0; i < 5; i++) {
        CHECK(entry_is(l, (uint64_t)i, i));
        CHECK_OK(ledger_prove(l, (uint64_t)i, &b, &e), e);
    }
    CHECK_OK(ledger_refresh(l, &e), e);
    ledger_close(l);
    buf_free(&b);
    sim_free(after);
    sim_free(d);
}

/* ---- damage at open -------------------------------------------------------------------------------------- */

static simdisk *filled(int n, err *e) {
    ledger *l = NULL;
    simdisk *d = sim_ledger(e);
    if (!d || open_sim(&l, d, false, NULL, e) != ERR_OK) return NULL;
    for (int i = 0; i < n; i++)
        if (put_record(l, i, i % 2 ? 11 : -1, NULL, e) != ERR_OK) return NULL;
    ledger_close(l);
    return d;
}

#define SEG0 ISLAND "/ledger/seg/00000000000000000000.seg"

/* Where the k-th frame of the first segment begins. */
static uint64_t frame_at(simdisk *d, int k) {
    buf b = {.max = 1 << 20};
    uint64_t off = SEG_HEADER_LEN;
    sim_read(d, SEG0, &b);
    while (k-- > 0) {
        frame_header h = {.entries_len = be_get((uint8_t *)b.ptr + off + 32, 8),
                          .contents_len = be_get((uint8_t *)b.ptr + off + 40, 8),
                          .note_len = (uint32_t)be_get((uint8_t *)b.ptr + off + 12, 4)};
        off += frame_room(&h);
    }
    buf_free(&b);
    return off;
}

TEST(damage_in_the_middle_is_corruption_with_its_place) {
    err e;
    ledger *l = NULL;
    ledger_report rep;
    simdisk *d = filled(4, &e);
    CHECK(d);
    for (int ro = 0; ro < 2; ro++) {
        uint64_t at = frame_at(d, 1) + 100;
        CHECK(sim_flip(d, SEG0, at, 3));
        CHECK_INT(open_sim(&l, d, ro, &rep, &e), ERR_CORRUPT);
        CHECK_HAS(e.msg, "00000000000000000000.seg: record 1");
        CHECK(sim_flip(d, SEG0, at, 3));
        /* the last one too: the published checkpoint covers it */
        at = frame_at(d, 3) + 80;
        CHECK(sim_flip(d, SEG0, at, 0));
        CHECK_INT(open_sim(&l, d, ro, &rep, &e), ERR_CORRUPT);
        CHECK_HAS(e.msg, "record 3");
        CHECK(sim_flip(d, SEG0, at, 0));
        /* and the header */
        CHECK(sim_flip(d, SEG0, 70, 5));
        CHECK_INT(open_sim(&l, d, ro, &rep, &e), ERR_CORRUPT);
        CHECK_HAS(e.msg, "00000000000000000000.seg");
        CHECK(sim_flip(d, SEG0, 70, 5));
        CHECK_OK(open_sim(&l, d, ro, &rep, &e), e);
        ledger_close(l);
    }
    sim_free(d);
}

TEST(a_torn_last_group_is_dropped_and_said) {
    err e;
    ledger *l = NULL;
    ledger_report rep;
    simdisk *d = sim_ledger(&e);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    CHECK_OK(put_record(l, 0, -1, NULL, &e), e);
    CHECK_OK(put_record(l, 1, -1, NULL, &e), e);
    simdisk *crashed = sim_after_crash(d, 1);
    ledger_close(l);
    sim_free(d);
    CHECK(sim_flip(crashed, SEG0, frame_at(crashed, 1) + 200, 1)); /* not covered by a checkpoint that was published */
    CHECK_OK(open_sim(&l, crashed, true, &rep, &e), e);
    CHECK_INT(rep.size, 1);
    CHECK(rep.dropped_bytes > 100);
    CHECK_HAS(rep.text, "dropped");
    CHECK(!rep.clean);
    ledger_close(l);
    CHECK_OK(open_sim(&l, crashed, false, &rep, &e), e);
    CHECK_INT(rep.size, 1);
    CHECK(rep.dropped_bytes > 100);
    ledger_close(l);
    CHECK_OK(open_sim(&l, crashed, false, &rep, &e), e); /* once dropped, there is nothing to drop */
    CHECK_INT(rep.dropped_bytes, 0);
    CHECK(rep.clean);
    ledger_close(l);
    sim_free(crashed);
}

TEST(a_log_that_was_cut_or_rolled_back_does_not_open) {
    err e;
    ledger *l = NULL;
    simdisk *d = filled(4, &e);
    buf b = {.max = 1 << 20};
    CHECK(sim_read(d, SEG0, &b));
    /* cut at a frame's end: the segment looks shorter and whole */
    uint64_t at = frame_at(d, 2);
    memset(b.ptr + at, 0, b.len - at);
    sim_put(d, SEG0, b.ptr, b.len);
    for (int ro = 0; ro < 2; ro++) {
        CHECK_INT(open_sim(&l, d, ro, NULL, &e), ERR_CORRUPT);
        CHECK_HAS(e.msg, "record 2");
        CHECK_HAS(e.msg, "covers 4 records");
    }
    sim_free(d);
    /* the published checkpoint is of another history: two roots for one size */
    simdisk *a = filled(4, &e);
    d = filled(4, &e);
    const char *const same[] = {ISLAND "/keys/ledger.key", ISLAND "/keys/ledger.vkey", ISLAND "/ledger/checkpoint"};
    for (size_t i = 0; i < 3; i++) { /* d's log is not a's; a's key and checkpoint stand over it */
        buf_reset(&b);
        CHECK(sim_read(a, same[i], &b));
        sim_put(d, same[i], b.ptr, b.len);
    }
    CHECK_INT(open_sim(&l, d, false, NULL, &e), ERR_CORRUPT);
    sim_free(d);
    sim_free(a);
    /* without the checkpoint a loss could not be noticed */
    d = filled(2, &e);
    CHECK(sim_remove(d, ISLAND "/ledger/checkpoint"));
    CHECK_INT(open_sim(&l, d, false, NULL, &e), ERR_CORRUPT);
    CHECK_HAS(e.msg, "ledger/checkpoint");
    sim_free(d);
    buf_free(&b);
}

TEST(an_older_published_root_is_compared) {
    err e;
    ledger *l = NULL;
    simdisk *d = filled(3, &e);
    note_signer s;
    buf k = {.max = 1000}, n = {.max = 1000};
    CHECK(sim_read(d, ISLAND "/keys/ledger.key", &k));
    CHECK_OK(note_signer_parse(&s, k.ptr, k.len - 1, &e), e);
    hash32 other = {{1}};
    checkpoint_sign(&n, &s, 2, &other); /* signed by this log's own key, for a root it never had */
    sim_put(d, ISLAND "/ledger/checkpoint", n.ptr, n.len);
    for (int ro = 0; ro < 2; ro++) {
        CHECK_INT(open_sim(&l, d, ro, NULL, &e), ERR_CORRUPT);
        CHECK_HAS(e.msg, "another root");
    }
    buf_free(&k);
    buf_free(&n);
    sim_free(d);
}

TEST(the_tree_file_is_rebuilt) {
    err e;
    ledger *l = NULL;
    ledger_report rep;
    simdisk *d = filled(40, &e); /* several segments */
    buf whole = {.max = 1 << 20}, now = {.max = 1 << 20};
    CHECK(sim_read(d, ISLAND "/ledger/tree", &whole));
    CHECK_INT(whole.len, stored_count(40) * HASH_LEN);
    for (int how = 0; how < 4; how++) {
        if (how == 0) sim_put(d, ISLAND "/ledger/tree", "", 0);
        if (how == 1) sim_put(d, ISLAND "/ledger/tree", whole.ptr, whole.len / 2);
        if (how == 2) sim_flip(d, ISLAND "/ledger/tree", whole.len - 10, 1);
        if (how == 3) sim_remove(d, ISLAND "/ledger/tree");
        CHECK_OK(open_sim(&l, d, false, &rep, &e), e);
        CHECK(rep.tree_rebuilt);
        ledger_close(l);
        buf_reset(&now);
        CHECK(sim_read(d, ISLAND "/ledger/tree", &now));
        CHECK(now.len == whole.len && memcmp(now.ptr, whole.ptr, now.len) == 0);
    }
    sim_put(d, ISLAND "/ledger/tree", "", 0); /* a reader cannot mend what lies before the last segment */
    CHECK_INT(open_sim(&l, d, true, &rep, &e), ERR_CORRUPT);
    CHECK_HAS(e.msg, "ledger/tree");
    buf_free(&whole);
    buf_free(&now);
    sim_free(d);
}

TEST(missing_and_foreign_parts) {
    static const char *const parts[] = {ISLAND "/keys/ledger.vkey", ISLAND "/keys/ledger.key", ISLAND "/keys/vault.key",
                                        ISLAND "/ledger/keys", SEG0};
    err e;
    ledger *l = NULL;
    for (size_t i = 0; i < 5; i++) {
        simdisk *d = filled(3, &e), *other = filled(3, &e);
        buf b = {.max = 1 << 20};
        CHECK(sim_read(other, parts[i], &b));
        CHECK(sim_remove(d, parts[i]));
        CHECK(open_sim(&l, d, false, NULL, &e) != ERR_OK);
        CHECK(!l);
        sim_put(d, parts[i], b.ptr, b.len); /* another island's */
        if (i != 2) CHECK(open_sim(&l, d, false, NULL, &e) != ERR_OK);
        if (i == 2) { /* a vault key fits any log; it does not open these contents */
            CHECK_OK(open_sim(&l, d, true, NULL, &e), e);
            buf_reset(&b);
            CHECK_INT(ledger_content(l, 1, "prompt", &b, &e), ERR_CORRUPT);
            ledger_close(l);
        }
        sim_put(d, parts[i], "x", 1);
        l = NULL;
        CHECK(open_sim(&l, d, false, NULL, &e) != ERR_OK);
        CHECK(!l);
        buf_free(&b);
        sim_free(d);
        sim_free(other);
    }
    simdisk *d = sim_new();
    CHECK_INT(open_sim(&l, d, false, NULL, &e), ERR_NOT_FOUND);
    CHECK_INT(ledger_create(ISLAND, "two words", sim_vfs(d), &e), ERR_INVALID);
    sim_free(d);
}

TEST(two_writers_do_not_meet) {
    char dir[256];
    err e;
    ledger *a = NULL, *b = NULL;
    CHECK(test_tmpdir(dir));
    CHECK_OK(ledger_create(dir, ORIGIN, NULL, &e), e);
    CHECK_OK(ledger_open(&a, dir, NULL, NULL, &e), e);
    CHECK_INT(ledger_open(&b, dir, NULL, NULL, &e), ERR_BUSY);
    ledger_options ro = {.read_only = true};
    CHECK_OK(ledger_open(&b, dir, &ro, NULL, &e), e);
    ledger_close(b);
    ledger_close(a);
    CHECK_OK(ledger_open(&a, dir, NULL, NULL, &e), e);
    ledger_close(a);
    test_rm(dir);
}

/* ---- memory ---------------------------------------------------------------------------------------------- */

static err_code life(simdisk *d, err *e) {
    ledger *l = NULL;
    ledger_report rep;
    uint64_t seq;
    buf b = {.max = 1 << 20};
    bool immutable;
    err_code rc = open_sim(&l, d, false, &rep, e);
    if (rc == ERR_OK) rc = put_record(l, 1, 20, &seq, e);
    if (rc == ERR_OK) rc = put_pair(l, 3, 20, 30, &seq, e);
    if (rc == ERR_OK) rc = put_record(l, 1, 20, &seq, e);
    if (rc == ERR_OK) rc = put_record(l, 2, -1, &seq, e);
    if (rc == ERR_OK) rc = ledger_content(l, seq - 1, "prompt", &b, e);
    buf_reset(&b);
    if (rc == ERR_OK) rc = ledger_prove(l, seq, &b, e);
    buf_reset(&b);
    if (rc == ERR_OK) rc = ledger_consistency(l, 1, seq + 1, &b, e);
    buf_reset(&b);
    if (rc == ERR_OK) rc = ledger_resource(l, "tile/entries/000.p/2", &b, &immutable, e);
    ledger_close(l);
    buf_free(&b);
    return rc;
}

/* Every allocation fails once. Nothing crashes or leaks, the error says so, and the ledger is whole afterwards. */
TEST(every_failed_allocation_is_survived) {
    err e;
    log_set_level(LOG_ERROR + 1);
    for (int64_t at = 0;; at++) {
        simdisk *d = sim_ledger(&e);
        CHECK(d);
        CHECK_OK(life(d, &e), e);
        int64_t before = mem_count();
        mem_fail_after(at);
        err_code rc = life(d, &e);
        bool struck = mem_count() - before > at;
        mem_fail_after(-1);
        if (rc != ERR_OK && rc != ERR_NOMEM && rc != ERR_UNAVAILABLE)
            FAIL("allocation %lld: %s: %s", (long long)at, err_name(rc), e.msg);
        err_code again = life(d, &e);
        if (again != ERR_OK) FAIL("after allocation %lld: %s", (long long)at, e.msg);
        verify_report r;
        err_code ok = verify_sim(d, &r, &e);
        if (ok != ERR_OK) FAIL("after allocation %lld: %s", (long long)at, e.msg);
        buf_free(&r.text);
        sim_free(d);
        if (!struck) break;
        CHECK(at < 5000);
    }
    log_set_level(LOG_INFO);
}

TEST(creation_survives_failed_allocations) {
    err e;
    for (int64_t at = 0; at < 60; at++) {
        simdisk *d = sim_new();
        mem_fail_after(at);
        err_code rc = ledger_create_sized(ISLAND, ORIGIN, sim_vfs(d), SEG_LEN_MIN, &e);
        mem_fail_after(-1);
        if (rc != ERR_OK) { /* nothing is left that would stop the next try */
            CHECK_INT(rc, ERR_NOMEM);
            CHECK_OK(ledger_create_sized(ISLAND, ORIGIN, sim_vfs(d), SEG_LEN_MIN, &e), e);
        }
        ledger *l = NULL;
        CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
        ledger_close(l);
        sim_free(d);
    }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(a_new_ledger_is_empty_and_clean);
    RUN(records_come_back_after_reopening);
    RUN(callers_share_groups);
    RUN(pairs_stand_together);
    RUN(a_pair_is_written_whole_or_not);
    RUN(large_contents_get_a_segment_of_their_size);
    RUN(a_reader_follows_the_writer);
    RUN(a_reader_does_without_the_tree_file);
    RUN(damage_in_the_middle_is_corruption_with_its_place);
    RUN(a_torn_last_group_is_dropped_and_said);
    RUN(a_log_that_was_cut_or_rolled_back_does_not_open);
    RUN(an_older_published_root_is_compared);
    RUN(the_tree_file_is_rebuilt);
    RUN(missing_and_foreign_parts);
    RUN(two_writers_do_not_meet);
    RUN(every_failed_allocation_is_survived);
    RUN(creation_survives_failed_allocations);
    return test_end();
}
