/* Sealing contents and keys: nothing opens that was changed, moved, or erased. */
#include "helpers.h"

#include <errno.h>

static const uint8_t log_id[32] = {1, 2, 3};

TEST(contents_open_with_their_key_and_entry_only) {
    err e;
    hash32 leaf = {{5}}, other = {{6}};
    content_set c = {0};
    content_view v;
    uint8_t key[32] = {9}, *sealed, *plain;
    size_t n, len;
    CHECK_OK(contents_add(&c, "prompt", "hello", 5, &v, &e), e);
    CHECK_OK(contents_add(&c, "answer", NULL, 0, &v, &e), e);
    contents_take(&c, &sealed, &n);
    CHECK(!c.p && !c.n);
    vault_encrypt(log_id, &leaf, key, sealed, n);
    uint8_t *copy = malloc(n);
#define OPEN(id, lf, k, ln) (memcpy(copy, sealed, n), vault_open(id, lf, k, copy, ln, &plain, &len, &e))
    CHECK_OK(OPEN(log_id, &leaf, key, n), e);
    size_t at = 0;
    unsigned left;
    bool whole;
    CHECK(vault_next(plain, len, &at, &left, &v, &whole));
    CHECK(v.len == 5 && memcmp(v.bytes, "hello", 5) == 0 && v.name_len == 6);
    CHECK(vault_next(plain, len, &at, &left, &v, &whole));
    CHECK_INT(v.len, 0);
    CHECK(!vault_next(plain, len, &at, &left, &v, &whole));
    CHECK(whole);
    /* a cut plain text is not whole, and nothing past its end is read */
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *part = malloc(cut ? cut : 1);
        memcpy(part, plain, cut);
        at = 0;
        while (vault_next(part, cut, &at, &left, &v, &whole)) {
        }
        CHECK(!whole);
        free(part);
    }
    uint8_t other_id[32] = {1, 2, 4}, other_key[32] = {0};
    CHECK_INT(OPEN(other_id, &leaf, key, n), ERR_CORRUPT);
    CHECK_INT(OPEN(log_id, &other, key, n), ERR_CORRUPT);
    CHECK_INT(OPEN(log_id, &leaf, other_key, n), ERR_CORRUPT);
    CHECK_INT(OPEN(log_id, &leaf, key, n - 1), ERR_CORRUPT);
    CHECK_INT(OPEN(log_id, &leaf, key, 10), ERR_CORRUPT);
    for (size_t i = 0; i < n * 8; i++) {
        sealed[i / 8] ^= (uint8_t)(1 << i % 8);
        CHECK_INT(OPEN(log_id, &leaf, key, n), ERR_CORRUPT);
        sealed[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    free(copy);
    mem_free(sealed);
}

/* What breaks it: memory that does not move with all of them, or a name, salt or length that does not fit. */
TEST(contents_of_all_sizes_come_back) {
    err e;
    hash32 leaf = {{5}};
    content_set c = {0};
    content_view v;
    char text[3000];
    for (int i = 0; i < (int)sizeof text; i++) text[i] = (char)(i * 7);
    for (unsigned i = 0; i < CONTENTS_MAX; i++) {
        char name[3] = {(char)('a' + i / 26), (char)('a' + i % 26), 0};
        CHECK_OK(contents_add(&c, name, text, i * 47, &v, &e), e);
        CHECK(v.name_len == 2 && v.len == i * 47 && memcmp(v.bytes, text, v.len) == 0);
    }
    CHECK_INT(contents_add(&c, "zz", "x", 1, &v, &e), ERR_TOO_LARGE);
    uint8_t key[32] = {9}, *sealed, *plain;
    size_t n, len, at = 0;
    contents_take(&c, &sealed, &n);
    vault_encrypt(log_id, &leaf, key, sealed, n);
    CHECK_OK(vault_open(log_id, &leaf, key, sealed, n, &plain, &len, &e), e);
    unsigned left;
    bool whole;
    for (unsigned i = 0; i < CONTENTS_MAX; i++) {
        CHECK(vault_next(plain, len, &at, &left, &v, &whole));
        CHECK(v.name[1] == (char)('a' + i % 26) && v.len == i * 47 && memcmp(v.bytes, text, v.len) == 0);
    }
    CHECK(!vault_next(plain, len, &at, &left, &v, &whole) && whole);
    mem_free(sealed);
}

TEST(slots) {
    vault v = {.have_master = true};
    uint8_t key[32] = {9, 9}, got[32], slot[KEY_SLOT_LEN] = {0};
    random_bytes(v.master, 32);
    CHECK_INT(slot_open(&v, slot, 3, got), SLOT_EMPTY);
    slot_seal(&v, slot, 3, SLOT_KEY, key);
    CHECK_INT(slot_open(&v, slot, 3, got), SLOT_KEY);
    CHECK(memcmp(got, key, 32) == 0);
    CHECK_INT(slot_open(&v, slot, 4, got), SLOT_BAD); /* moved to another record */
    v.log_id[0] ^= 1;
    CHECK_INT(slot_open(&v, slot, 3, got), SLOT_BAD); /* or another log */
    v.log_id[0] ^= 1;
    for (unsigned i = 0; i < KEY_SLOT_LEN * 8; i++) {
        slot[i / 8] ^= (uint8_t)(1 << i % 8);
        CHECK_INT(slot_open(&v, slot, 3, got), SLOT_BAD);
        slot[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    slot_seal(&v, slot, 3, SLOT_ERASED, NULL);
    CHECK_INT(slot_open(&v, slot, 3, got), SLOT_ERASED);
    slot[0] = 1; /* an erased slot cannot be passed off as a key */
    CHECK_INT(slot_open(&v, slot, 3, got), SLOT_BAD);
    for (uint64_t i = 0; i < 100; i++) {
        uint64_t a = slot_offset(i);
        CHECK(a / SECTOR == (a + KEY_SLOT_LEN - 1) / SECTOR && a >= SECTOR);
        CHECK(slot_offset(i + 1) >= a + KEY_SLOT_LEN);
    }
}

TEST(the_master_key_file) {
    err e;
    uint8_t key[32], got[32];
    char text[VAULT_KEY_TEXT_MAX];
    random_bytes(key, 32);
    vault_key_text(text, key);
    size_t n = strlen(text);
    CHECK_OK(vault_key_parse(got, text, n, &e), e);
    CHECK(memcmp(key, got, 32) == 0);
    for (size_t i = 0; i < n * 8; i++) {
        text[i / 8] ^= (char)(1 << i % 8);
        CHECK_INT(vault_key_parse(got, text, n, &e), ERR_CORRUPT);
        text[i / 8] ^= (char)(1 << i % 8);
    }
    for (size_t i = 0; i < n; i++) CHECK_INT(vault_key_parse(got, text, i, &e), ERR_CORRUPT);
}

/* Breaks where keys for other rooms differ from opening to opening, are the same for two purposes or two islands, or
 * where one is the master key itself. */
TEST(derived_keys_belong_to_island_and_purpose) {
    err e;
    ledger *l;
    uint8_t a[32], same[32], other[32], foreign[32];
    char longest[300];
    simdisk *d = sim_ledger(&e), *d2 = sim_ledger(&e);
    CHECK(d && d2);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    CHECK_OK(ledger_derive_key(l, "one", a, &e), e);
    CHECK_OK(ledger_derive_key(l, "two", other, &e), e);
    CHECK(memcmp(a, l->vault.master, 32) != 0);
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    CHECK_INT(ledger_derive_key(l, longest, same, &e), ERR_INTERNAL);
    ledger_close(l);
    CHECK_OK(open_sim(&l, d, true, NULL, &e), e); /* a reader has read no master key yet */
    CHECK_OK(ledger_derive_key(l, "one", same, &e), e);
    ledger_close(l);
    CHECK_OK(open_sim(&l, d2, false, NULL, &e), e);
    CHECK_OK(ledger_derive_key(l, "one", foreign, &e), e);
    ledger_close(l);
    CHECK(memcmp(a, same, 32) == 0);
    CHECK(memcmp(a, other, 32) != 0 && memcmp(a, foreign, 32) != 0);
    sim_free(d);
    sim_free(d2);
}

TEST(an_erased_record_still_verifies_and_its_bytes_are_gone) {
    static const char secret[] = "the patient's name is Alkmaar";
    err e;
    ledger *l = NULL;
    record *r = NULL;
    uint64_t seq;
    simdisk *d = sim_ledger(&e);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    CHECK_OK(put_record(l, 0, 30, &seq, &e), e);
    CHECK_OK(record_new(&r, "test", &e), e);
    CHECK_OK(record_content(r, "prompt", secret, sizeof secret - 1, &e), e);
    CHECK_OK(ledger_append(l, r, &seq, &e), e);
    record_free(r);
    CHECK_OK(put_record(l, 2, -1, &seq, &e), e);
    buf b = {.max = 1000}, receipt = {.max = 8192};
    CHECK_OK(ledger_content(l, 1, "prompt", &b, &e), e);
    CHECK_STR(buf_str(&b), secret);
    uint8_t key[32];
    slot_state st;
    CHECK_INT(vault_read(&l->vault, 1, &st, key), 0);
    CHECK_INT(st, SLOT_KEY);
    CHECK_OK(vault_erase(&l->vault, 1, &e), e);
    CHECK_INT(vault_erase(&l->vault, 2, &e), ERR_NOT_FOUND);
    buf_reset(&b);
    CHECK_INT(ledger_content(l, 1, "prompt", &b, &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "erased");
    CHECK(content_is(l, 0, 0, 30)); /* its neighbour is untouched */
    /* the entry is still proven */
    buf_reset(&b);
    CHECK_OK(ledger_read(l, 1, &b, &e), e);
    CHECK_OK(ledger_prove(l, 1, &receipt, &e), e);
    CHECK_OK(audit_verify_receipt(receipt.ptr, receipt.len, b.ptr, b.len, ledger_vkey(l), &seq, &e), e);
    CHECK_INT(seq, 1);
    ledger_close(l);
    verify_report rep;
    CHECK_OK(verify_sim(d, &rep, &e), e);
    CHECK_INT(rep.erased, 1);
    CHECK_INT(rep.contents, 1);
    /* neither the text nor the key is anywhere on the disk */
    for (unsigned i = 0; sim_path(d, i); i++) {
        buf f = {.max = 4 << 20};
        CHECK(sim_read(d, sim_path(d, i), &f));
        CHECK(!memmem(f.ptr, f.len, secret, sizeof secret - 1));
        CHECK(!memmem(f.ptr, f.len, key, sizeof key));
        buf_free(&f);
    }
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    buf_reset(&b);
    CHECK_INT(ledger_content(l, 1, "prompt", &b, &e), ERR_NOT_FOUND);
    ledger_close(l);
    buf_free(&rep.text);
    buf_free(&b);
    buf_free(&receipt);
    sim_free(d);
}

/* ---- seeds --------------------------------------------------------------------------------------------------- */

static bool read_seeds(simdisk *d, uint8_t out[SECTOR]) {
    buf b = {.max = SECTOR};
    bool ok = sim_read(d, ISLAND "/ledger/seeds", &b) && b.len == SECTOR;
    if (ok) memcpy(out, b.ptr, SECTOR);
    buf_free(&b);
    return ok;
}

/* How many seeds on the disk make the key of a record; -1 where that cannot be said. */
static int seeds_that_make(simdisk *d, ledger *l, uint64_t seq) {
    uint8_t raw[SECTOR], key[CONTENT_KEY_LEN], *sealed = NULL, *plain;
    size_t n = 0, len;
    seeds s;
    hash32 leaf;
    err e;
    int found = 0;
    if (!read_seeds(d, raw) || !seeds_decode(&s, &l->vault, raw)) return -1;
    for (unsigned i = 0; i < s.n; i++) {
        if (read_sealed(l, seq, &leaf, &sealed, &n, &e) != ERR_OK || !sealed) return -1;
        vault_make_key(key, s.key[i], &leaf);
        if (vault_open(l->log_id, &leaf, key, sealed, n, &plain, &len, NULL) == ERR_OK) found++;
        mem_free(sealed);
    }
    return found;
}

/* The slots of a crashed log, as if none of those that were not synced had reached the disk. */
static void lose_slots(simdisk *d) {
    buf b = {.max = 4 << 20};
    CHECK(sim_read(d, ISLAND "/ledger/keys", &b));
    memset(b.ptr + SECTOR, 0, b.len - SECTOR);
    sim_put(d, ISLAND "/ledger/keys", b.ptr, b.len);
    buf_free(&b);
}

static void no_problem(simdisk *d, uint64_t contents) {
    verify_report rep = {0};
    err e;
    CHECK_OK(verify_sim(d, &rep, &e), e);
    CHECK_INT(rep.contents, contents);
    buf_free(&rep.text);
}

TEST(what_a_crash_took_of_the_slots_is_made_again) {
    err e;
    ledger *l = NULL;
    ledger_report rep;
    uint64_t seq;
    simdisk *d = sim_ledger(&e);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    for (int i = 0; i < 9; i++) CHECK_OK(put_record(l, i, i % 3 ? 100 + i : -1, &seq, &e), e);
    CHECK_INT(seeds_that_make(d, l, 1), 1);
    CHECK_INT(seeds_that_make(d, l, 8), 1);
    simdisk *crashed = sim_after_crash(d, 1);
    ledger_close(l);
    lose_slots(crashed);
    no_problem(crashed, 6);
    CHECK_OK(open_sim(&l, crashed, true, &rep, &e), e); /* a reader makes them for itself */
    CHECK(!rep.clean);
    for (int i = 0; i < 9; i++) CHECK(i % 3 == 0 || content_is(l, (uint64_t)i, i, 100 + i));
    ledger_close(l);
    CHECK_OK(open_sim(&l, crashed, false, &rep, &e), e); /* a writer writes them down */
    CHECK_INT(seeds_that_make(crashed, l, 1), 0);
    ledger_close(l);
    CHECK(sim_remove(crashed, ISLAND "/ledger/seeds"));
    no_problem(crashed, 6);
    CHECK_OK(open_sim(&l, crashed, false, &rep, &e), e); /* as one from before there were seeds */
    CHECK(rep.clean);
    for (int i = 0; i < 9; i++) CHECK(i % 3 == 0 || content_is(l, (uint64_t)i, i, 100 + i));
    CHECK_OK(put_record(l, 9, 40, &seq, &e), e);
    CHECK(content_is(l, 9, 9, 40));
    ledger_close(l);
    no_problem(crashed, 7);
    sim_free(crashed);
    sim_free(d);
}

/* A slot of a group that failed may be whole and still not be that of the group that took its place. */
TEST(a_slot_with_another_key_is_made_again) {
    err e;
    ledger *l = NULL;
    uint64_t seq;
    simdisk *d = sim_ledger(&e);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    for (int i = 0; i < 3; i++) CHECK_OK(put_record(l, i, 50, &seq, &e), e);
    vault v = l->vault;
    uint8_t slot[KEY_SLOT_LEN], other[CONTENT_KEY_LEN] = {7};
    slot_seal(&v, slot, 1, SLOT_KEY, other);
    simdisk *crashed = sim_after_crash(d, 1);
    ledger_close(l);
    buf b = {.max = 4 << 20};
    CHECK(sim_read(crashed, ISLAND "/ledger/keys", &b));
    memcpy(b.ptr + slot_offset(1), slot, sizeof slot);
    sim_put(crashed, ISLAND "/ledger/keys", b.ptr, b.len);
    buf_free(&b);
    CHECK_OK(open_sim(&l, crashed, false, NULL, &e), e);
    for (int i = 0; i < 3; i++) CHECK(content_is(l, (uint64_t)i, i, 50));
    ledger_close(l);
    no_problem(crashed, 3);
    sim_free(crashed);
    sim_free(d);
}

TEST(no_more_than_two_seeds_at_a_time) {
    err e;
    ledger *l = NULL;
    uint64_t seq;
    bool sync_failed;
    simdisk *d = sim_ledger(&e);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    CHECK_OK(put_record(l, 0, 50, &seq, &e), e);
    uint64_t no = l->vault.s.no;
    CHECK(vault_comes_back(&l->vault, no) && !vault_comes_back(&l->vault, no - 1));
    CHECK_INT(vault_roll(&l->vault, 1, &sync_failed), 0);
    CHECK_INT(seeds_that_make(d, l, 0), 1); /* for what was on its way */
    CHECK(vault_comes_back(&l->vault, no) && vault_comes_back(&l->vault, no + 1));
    CHECK_INT(vault_roll(&l->vault, 1, &sync_failed), 0);
    CHECK_INT(seeds_that_make(d, l, 0), 0);
    CHECK(!vault_comes_back(&l->vault, no));
    CHECK(content_is(l, 0, 0, 50));
    /* erased while a seed could still make it */
    CHECK_OK(put_record(l, 1, 60, &seq, &e), e);
    CHECK_INT(seeds_that_make(d, l, 1), 1);
    CHECK_OK(vault_erase(&l->vault, 1, &e), e);
    CHECK_INT(seeds_that_make(d, l, 1), 0);
    no = l->vault.s.no;
    CHECK_OK(vault_erase(&l->vault, 0, &e), e); /* none could */
    CHECK_INT(l->vault.s.no, no);
    /* a disk that refuses: nothing counts on the file until it is written again */
    sim_fail(d, SIM_WRITE, 0, 1, ENOSPC, "ledger/seeds");
    CHECK(vault_roll(&l->vault, 2, &sync_failed) != 0);
    CHECK(!vault_comes_back(&l->vault, no));
    CHECK_OK(put_record(l, 2, 70, &seq, &e), e);
    simdisk *crashed = sim_after_crash(d, 0);
    CHECK(sim_remove(crashed, ISLAND "/ledger/seeds"));
    CHECK_INT(vault_roll(&l->vault, 3, &sync_failed), 0);
    CHECK(vault_comes_back(&l->vault, l->vault.s.no));
    ledger_close(l);
    CHECK_OK(open_sim(&l, crashed, false, NULL, &e), e);
    CHECK(content_is(l, 2, 2, 70)); /* its slot was synced with it */
    ledger_close(l);
    sim_free(crashed);
    sim_free(d);
}

TEST(a_changed_file_of_seeds_is_no_file_of_seeds) {
    err e;
    ledger *l = NULL;
    uint64_t seq;
    bool sync_failed;
    uint8_t raw[SECTOR];
    seeds s;
    simdisk *d = sim_ledger(&e);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    CHECK_OK(put_record(l, 0, 50, &seq, &e), e);
    CHECK_INT(vault_roll(&l->vault, 1, &sync_failed), 0);
    CHECK(read_seeds(d, raw));
    CHECK(seeds_decode(&s, &l->vault, raw) && s.n == 2 && s.from[0] == 1);
    for (size_t i = 0; i < 8 * SECTOR; i++) {
        raw[i / 8] ^= (uint8_t)(1 << i % 8);
        CHECK(!seeds_decode(&s, &l->vault, raw));
        sha256_of(raw + SECTOR - SHA256_LEN, raw, SECTOR - SHA256_LEN); /* by somebody who can compute that */
        if (i / 8 >= 56 && i / 8 < 200) CHECK(!seeds_decode(&s, &l->vault, raw));
        CHECK(read_seeds(d, raw));
    }
    vault foreign = l->vault;
    foreign.log_id[3] ^= 1;
    CHECK(!seeds_decode(&s, &foreign, raw));
    foreign = l->vault;
    foreign.master[3] ^= 1;
    CHECK(!seeds_decode(&s, &foreign, raw));
    foreign.have_master = false;
    CHECK(seeds_decode(&s, &foreign, raw) && s.n == 0);
    ledger_close(l);
    /* closed, the file says that there is none; whatever else it says is noticed */
    CHECK(read_seeds(d, raw));
    for (size_t i = 0; i < SECTOR; i += 37) {
        raw[i] ^= 4;
        sim_put(d, ISLAND "/ledger/seeds", raw, sizeof raw);
        verify_report rep = {0};
        CHECK_INT(verify_sim(d, &rep, &e), ERR_NO);
        CHECK_HAS(buf_str(&rep.text), "ledger/seeds");
        buf_free(&rep.text);
        raw[i] ^= 4;
    }
    sim_put(d, ISLAND "/ledger/seeds", raw, sizeof raw - 1);
    verify_report rep = {0};
    CHECK_INT(verify_sim(d, &rep, &e), ERR_NO);
    buf_free(&rep.text);
    CHECK_OK(open_sim(&l, d, false, NULL, &e), e);
    CHECK(content_is(l, 0, 0, 50));
    ledger_close(l);
    no_problem(d, 1);
    sim_free(d);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(contents_open_with_their_key_and_entry_only);
    RUN(contents_of_all_sizes_come_back);
    RUN(slots);
    RUN(the_master_key_file);
    RUN(derived_keys_belong_to_island_and_purpose);
    RUN(an_erased_record_still_verifies_and_its_bytes_are_gone);
    RUN(what_a_crash_took_of_the_slots_is_made_again);
    RUN(a_slot_with_another_key_is_made_again);
    RUN(no_more_than_two_seeds_at_a_time);
    RUN(a_changed_file_of_seeds_is_no_file_of_seeds);
    return test_end();
}
