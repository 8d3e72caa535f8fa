/* Power loss at every step of a writer, on the simulated disk; and disks that refuse.
 *
 * For every changing call that a short life of a ledger makes, the power goes at that call; from what is then on the
 * disk a number of possible states is drawn, and each is opened. It must open, hold every acknowledged record and
 * content, agree with every checkpoint that anybody saw, take new records, and verify. Some recoveries lose power
 * too.
 *
 * Run with "mutant" the syncs of the disk do nothing: then the test must fail (and a case asserts that it does).
 * Arguments: [mutant] [states N]. */
#include "tests/unit/audit/helpers.h"

#include <errno.h>

enum { RECORDS = 14, FIRST_PAIR = 2, SECOND_PAIR = 11, SEEN_MAX = 64 };

static uint64_t states_per_point = 12;
static unsigned long long states_checked;

typedef struct seen { /* what somebody outside knows */
    uint64_t acked;   /* records that ledger_append has said OK for, in order */
    bool pairs;       /* the records at FIRST_PAIR and SECOND_PAIR have a second each */
    int content[RECORDS + 8];
    hash32 root[SEEN_MAX]; /* by size, of checkpoints that were handed out */
    bool has_root[SEEN_MAX];
} seen;

static void see_checkpoint(seen *s, ledger *l) {
    buf b = {.max = NOTE_OWN_MAX};
    checkpoint c;
    err e;
    if (ledger_checkpoint(l, &b, &e) == ERR_OK && checkpoint_open_own(&c, b.ptr, b.len, &l->key, true, &e) == ERR_OK &&
        c.size < SEEN_MAX) {
        s->root[c.size] = c.root;
        s->has_root[c.size] = true;
    }
    buf_free(&b);
}

static int content_len(int i) {
    return i % 4 == 1 ? 10 + i : i % 4 == 3 ? 1500 : -1;
}

/* The life: open, records, close, open again, more records. Stops by itself where the disk is gone. */
static void live(simdisk *d, seen *s) {
    err e;
    memset(s, 0, sizeof *s);
    s->pairs = true;
    for (int round = 0, i = 0; round < 2; round++) {
        ledger *l = NULL;
        ledger_report rep;
        if (open_sim(&l, d, false, &rep, &e) != ERR_OK) return;
        l->seed_records = 2; /* seeds come and go */
        see_checkpoint(s, l);
        for (; i < (round + 1) * RECORDS / 2; i++) {
            uint64_t seq;
            bool pair = i == FIRST_PAIR || i == SECOND_PAIR;
            err_code rc = pair ? put_pair(l, i, content_len(i), content_len(i + 1), &seq, &e)
                               : put_record(l, i, content_len(i), &seq, &e);
            if (rc != ERR_OK || seq != (uint64_t)i) break;
            s->content[i] = content_len(i);
            if (pair) s->content[i + 1] = content_len(i + 1), i++;
            s->acked = (uint64_t)i + 1;
            see_checkpoint(s, l);
        }
        ledger_close(l);
        if (s->acked != (uint64_t)i) return;
    }
}

/* NULL where the state is as it must be; else what is wrong. */
static const char *check_state(simdisk *d, const seen *s, bool read_only, uint64_t *size) {
    static char why[ERR_MSG_MAX + 64];
    err e;
    ledger *l = NULL;
    ledger_report rep;
    if (open_sim(&l, d, read_only, &rep, &e) != ERR_OK) {
        snprintf(why, sizeof why, "it does not open%s: %s", read_only ? " for reading" : "", e.msg);
        return why;
    }
    const char *bad = NULL;
    *size = ledger_size(l);
    if (*size < s->acked) bad = "an acknowledged record is missing";
    if (s->pairs && (*size == FIRST_PAIR + 1 || *size == SECOND_PAIR + 1)) bad = "there is half of a pair";
    for (uint64_t i = 0; !bad && i < s->acked; i++) {
        if (!entry_is(l, i, (int)i)) bad = "an acknowledged record has changed";
        if (!bad && s->content[i] >= 0 && !content_is(l, i, (int)i, s->content[i]))
            bad = "an acknowledged content is gone";
    }
    for (uint64_t n = 0; !bad && n < SEEN_MAX; n++) {
        hash32 root;
        hash_source src = tree_source(l);
        if (!s->has_root[n]) continue;
        if (n > *size)
            bad = "a checkpoint was ahead of what is durable";
        else if (merkle_root(&src, n, &root, &e) != ERR_OK || !hash_equal(&root, &s->root[n]))
            bad = "there are two roots for one size";
    }
    ledger_close(l);
    return bad;
}

/* Everything that must hold for one state of the disk. */
static const char *check_recovery(simdisk *d, const seen *s, uint64_t seed) {
    static char why[ERR_MSG_MAX + 64];
    uint64_t size = 0, again = 0;
    err e;
    states_checked++;
    const char *bad = check_state(d, s, true, &size);
    if (!bad && seed % 3 == 0) { /* the power goes once more while it recovers */
        ledger *l = NULL;
        ledger_report rep;
        sim_crash_after(d, (int64_t)(seed / 3 % 12));
        if (open_sim(&l, d, false, &rep, &e) == ERR_OK) ledger_close(l);
        simdisk *twice = sim_after_crash(d, seed * 7 + 5);
        bad = check_state(twice, s, false, &size);
        sim_free(twice);
        sim_crash_after(d, -1);
        if (bad) return bad;
        twice = sim_after_crash(d, 0);
        bad = check_recovery(twice, s, 1);
        sim_free(twice);
        return bad;
    }
    if (!bad) bad = check_state(d, s, false, &size);
    if (!bad) bad = check_state(d, s, false, &again);
    if (!bad && again != size) bad = "recovering twice is not recovering once";
    if (bad) return bad;
    ledger *l = NULL;
    uint64_t seq = 0;
    if (open_sim(&l, d, false, NULL, &e) != ERR_OK || put_record(l, 500, 20, &seq, &e) != ERR_OK || seq != size)
        bad = "the recovered ledger takes no records";
    ledger_close(l);
    verify_report r = {0};
    if (!bad && verify_sim(d, &r, &e) != ERR_OK) {
        snprintf(why, sizeof why, "the recovered ledger does not verify: %s", e.msg);
        bad = why;
    }
    buf_free(&r.text);
    return bad;
}

/* Lose the power at every call and look at states of each. The number of states that are wrong. */
static uint64_t crash_everywhere(bool mutant, uint64_t states, bool loud, uint64_t stop_at) {
    uint64_t wrong = 0;
    err e;
    for (int64_t at = 0;; at++) {
        seen s;
        simdisk *d = sim_ledger(&e);
        if (!d) return 1;
        sim_lose_syncs(d, mutant);
        int64_t before = sim_changes(d);
        sim_crash_after(d, at);
        live(d, &s);
        bool finished = sim_changes(d) - before < at;
        for (uint64_t seed = 0; seed < states; seed++) {
            simdisk *after = sim_after_crash(d, seed < 2 ? seed : (uint64_t)at * 1000 + seed);
            const char *bad = check_recovery(after, &s, seed < 2 ? 1 : (uint64_t)at * 1000 + seed);
            if (bad && wrong++ < 5 && loud)
                fprintf(stderr, "power lost at change %lld, state %llu, %llu acknowledged: %s\n", (long long)at,
                        (unsigned long long)seed, (unsigned long long)s.acked, bad);
            sim_free(after);
            if (wrong >= stop_at) break;
        }
        sim_free(d);
        if (finished || wrong >= stop_at) return wrong;
    }
}

static bool as_mutant;

TEST(no_acknowledged_record_is_lost) {
    uint64_t wrong = crash_everywhere(as_mutant, states_per_point, true, UINT64_MAX);
    printf("%llu crash states\n", states_checked);
    CHECK_INT(wrong, 0);
}

TEST(a_disk_without_sync_is_noticed) {
    /* the test above is worth something only where it fails without fsync */
    CHECK(crash_everywhere(true, 6, false, 3) >= 3);
}

/* kill -9 leaves the system's memory as it is: a group whose sync never came is there for whoever opens next, who may
 * tell others of it only once it is durable. Then the power goes. With `gate` the sync came, failed, and the process
 * was killed at once. */
static uint64_t killed_then_power(bool read_only, bool gate) {
    uint64_t wrong = 0;
    for (int64_t at = 0; at < 200; at++) {
        err e;
        seen s;
        ledger *l = NULL;
        simdisk *d = sim_ledger(&e);
        int64_t before = sim_changes(d);
        if (!d) return 1;
        if (gate) {
            sim_fail(d, SIM_SYNC, at, 1, EIO, ".seg");
            sim_stop_at_fault(d);
        } else {
            sim_crash_after(d, at);
        }
        live(d, &s);
        bool finished = gate ? at > 30 : sim_changes(d) - before < at;
        sim_fail(d, SIM_SYNC, 0, 0, 0, NULL);
        sim_crash_after(d, -1); /* the process was killed; the system lives on */
        if (open_sim(&l, d, read_only, NULL, &e) == ERR_OK) {
            see_checkpoint(&s, l);
            if (!read_only && !gate) { /* and one more, acknowledged */
                uint64_t n = ledger_size(l);
                for (; s.acked < n; s.acked++) s.content[s.acked] = content_len((int)s.acked);
                if (put_record(l, (int)n, -1, NULL, &e) != ERR_OK) wrong++;
                s.content[s.acked++] = -1;
                s.pairs = false; /* it may stand where a pair would */
            }
            for (uint64_t seed = 0; seed < 6; seed++) {
                uint64_t size;
                simdisk *after = sim_after_crash(d, seed);
                const char *bad = check_state(after, &s, false, &size);
                if (bad && wrong++ < 5)
                    fprintf(stderr, "killed at %lld, state %llu: %s\n", (long long)at, (unsigned long long)seed, bad);
                sim_free(after);
            }
        }
        ledger_close(l);
        sim_free(d);
        if (finished) break;
    }
    return wrong;
}

TEST(what_a_killed_writer_left_is_durable_before_it_is_told) {
    CHECK_INT(killed_then_power(false, false), 0);
    CHECK_INT(killed_then_power(true, false), 0);
}

TEST(a_failed_sync_before_a_kill_is_written_again) {
    CHECK_INT(killed_then_power(false, true), 0);
}

/* ---- disks that refuse ----------------------------------------------------------------------------------- */

static const char *verify_clean(simdisk *d) {
    static char why[ERR_MSG_MAX];
    verify_report r = {0};
    err e;
    err_code rc = verify_sim(d, &r, &e);
    snprintf(why, sizeof why, "%s", rc == ERR_OK ? "" : e.msg);
    buf_free(&r.text);
    return why;
}

TEST(a_failed_sync_is_final) {
    static const char *const files[] = {".seg", "ledger/keys"};
    for (size_t k = 0; k < 2; k++) {
        err e;
        ledger *l = NULL;
        uint64_t seq = 0;
        simdisk *d = sim_ledger(&e);
        CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
        CHECK_OK(put_record(l, 0, 5, &seq, &e), e);
        l->vault.seeds_unsure = true; /* or else the keys would not be synced */
        sim_fail(d, SIM_SYNC, 0, 1, EIO, files[k]);
        CHECK_INT(put_record(l, 1, 5, &seq, &e), ERR_UNAVAILABLE);
        /* the disk works again, but nobody can know what it kept */
        for (int i = 0; i < 3; i++) {
            CHECK_INT(put_record(l, 2, -1, &seq, &e), ERR_UNAVAILABLE);
            CHECK_HAS(e.msg, "restart");
        }
        ledger_stats st;
        ledger_get_stats(l, &st);
        CHECK(st.failed);
        CHECK_INT(st.size, 1);
        CHECK_INT(st.failed_appends, 4);
        CHECK(entry_is(l, 0, 0)); /* reading goes on */
        ledger_close(l);
        ledger_report rep;
        CHECK_OK(open_sim(&l, d, false, &rep, &e), e);
        CHECK(!rep.clean);
        CHECK_INT(rep.size, 1);
        CHECK_OK(put_record(l, 1, 5, &seq, &e), e);
        CHECK_INT(seq, 1);
        ledger_close(l);
        CHECK_STR(verify_clean(d), "");
        sim_free(d);
    }
}

/* A reader that looks while the disk has failed must not take what nobody may be told of. */
TEST(a_group_whose_sync_failed_is_not_read) {
    err e;
    ledger *l = NULL, *ro = NULL;
    uint64_t seq;
    simdisk *d = sim_ledger(&e);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    CHECK_OK(put_record(l, 0, -1, &seq, &e), e);
    sim_fail(d, SIM_SYNC, 0, 1, EIO, ".seg");
    CHECK_INT(put_record(l, 1, -1, &seq, &e), ERR_UNAVAILABLE);
    CHECK_OK(open_sim(&ro, d, true, NULL, &e), e);
    CHECK_INT(ledger_size(ro), 1);
    ledger_close(ro);
    ledger_close(l);
    sim_free(d);
}

TEST(a_full_disk_fails_the_group_and_is_tried_again) {
    /* in the first row every second refusal meets the zeroing of what the failed write left */
    static const struct {
        sim_call call;
        const char *part;
        int skip, times;
    } rows[] = {{SIM_WRITE, ".seg", 3, 3},       {SIM_WRITE, "ledger/keys", 3, 2},    {SIM_WRITE, "ledger/tree", 3, 2},
                {SIM_ALLOCATE, "new.tmp", 1, 2}, {SIM_ALLOCATE, "ledger/keys", 0, 2}, {SIM_WRITE, "new.tmp", 0, 2},
                {SIM_RENAME, ".seg", 1, 2}};
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        err e;
        ledger *l = NULL;
        uint64_t seq = 0;
        simdisk *d = sim_ledger(&e);
        CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
        sim_fail(d, rows[k].call, rows[k].skip, rows[k].times, ENOSPC, rows[k].part);
        int failed = 0, n = 0;
        for (int i = 0; i < 40; i++) {
            err_code rc = put_record(l, n, i % 3 ? 300 : -1, &seq, &e);
            if (rc == ERR_OK) {
                CHECK_INT(seq, n);
                n++;
                continue;
            }
            CHECK_INT(rc, ERR_UNAVAILABLE);
            CHECK_HAS(e.msg, "not written");
            CHECK_HAS(e.msg, "disk");
            failed++;
        }
        if (failed != 2) FAIL("row %zu: %d appends failed, not 2", k, failed);
        ledger_stats st;
        ledger_get_stats(l, &st);
        CHECK(!st.failed && !st.refusing);
        CHECK_INT(st.failed_appends, 2);
        /* the last one before the stop is refused too, and leaves half a frame */
        sim_fail(d, SIM_WRITE, 0, 1, ENOSPC, "ledger/seg");
        CHECK_INT(put_record(l, n, 3000, &seq, &e), ERR_UNAVAILABLE);
        ledger_get_stats(l, &st);
        CHECK(!st.failed && st.refusing); /* what /readyz reads */
        /* stopped hard: what failed groups left behind is not taken for records */
        simdisk *crashed = sim_after_crash(d, 1);
        ledger *ro = NULL;
        CHECK_OK(open_sim(&ro, crashed, true, NULL, &e), e);
        CHECK_INT(ledger_size(ro), n);
        ledger_close(ro);
        sim_free(crashed);
        ledger_close(l);
        const char *why = verify_clean(d);
        if (*why) FAIL("row %zu: %s", k, why);
        CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
        CHECK_INT(ledger_size(l), n);
        for (int i = 0; i < n; i++) CHECK(entry_is(l, (uint64_t)i, i));
        ledger_close(l);
        sim_free(d);
    }
}

TEST(a_checkpoint_that_cannot_be_published_stops_nothing) {
    err e;
    ledger *l = NULL;
    ledger_report rep;
    uint64_t seq;
    simdisk *d = sim_ledger(&e);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    CHECK_OK(put_record(l, 0, -1, &seq, &e), e);
    sim_fail(d, SIM_WRITE, 0, -1, ENOSPC, "checkpoint");
    CHECK_OK(put_record(l, 1, -1, &seq, &e), e);
    ledger_close(l); /* says that it could not close cleanly */
    sim_fail(d, SIM_WRITE, 0, 0, 0, NULL);
    CHECK_OK(open_sim(&l, d, false, &rep, &e), e);
    CHECK(!rep.clean);
    CHECK_INT(rep.size, 2);
    ledger_close(l);
    CHECK_STR(verify_clean(d), "");
    sim_free(d);
}

TEST(every_refused_change_leaves_a_ledger_that_opens) {
    /* every kind of call fails once, at every place; whatever was acknowledged is there afterwards */
    static const int errors[SIM_CALLS] = {ENOSPC, EIO, ENOSPC, EIO, EIO};
    for (int call = 0; call < SIM_CALLS; call++)
        for (int at = 0; at < 40; at++) {
            err e;
            seen s;
            uint64_t size;
            simdisk *d = sim_ledger(&e);
            CHECK(d);
            sim_fail(d, (sim_call)call, at, 1, errors[call], NULL);
            live(d, &s);
            sim_fail(d, (sim_call)call, 0, 0, 0, NULL);
            const char *bad = check_state(d, &s, false, &size);
            if (bad) FAIL("call %d, %d: %s", call, at, bad);
            CHECK_STR(verify_clean(d), "");
            sim_free(d);
        }
}

int main(int argc, char **argv) {
    test_begin(1, argv);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "mutant") == 0)
            as_mutant = true;
        else if (strcmp(argv[i], "states") == 0 && i + 1 < argc)
            states_per_point = strtoull(argv[++i], NULL, 10);
        else
            test_filter = argv[i];
    }
    log_set_level(LOG_ERROR + 1);
    RUN(no_acknowledged_record_is_lost);
    if (as_mutant) return test_end();
    RUN(a_disk_without_sync_is_noticed);
    RUN(what_a_killed_writer_left_is_durable_before_it_is_told);
    RUN(a_failed_sync_before_a_kill_is_written_again);
    RUN(a_failed_sync_is_final);
    RUN(a_group_whose_sync_failed_is_not_read);
    RUN(a_full_disk_fails_the_group_and_is_tried_again);
    RUN(a_checkpoint_that_cannot_be_published_stops_nothing);
    RUN(every_refused_change_leaves_a_ledger_that_opens);
    return test_end();
}
