/* A ledger's files: a small good ledger, damaged as the input says, is opened for reading, read, verified, and opened
 * for writing. Nothing may crash, and no record that is read may be another than the one that was written.
 *
 * The first byte says what is damaged: a segment by patches (2-byte offset, 1-byte value), the same with the frames'
 * SHA-256 put right afterwards (so that what lies behind it is reached), or a file replaced by the rest of the input.
 */
#include "tests/unit/audit/helpers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORDS = 5 };

static simdisk *good;
static buf entries[RECORDS];
#define SEG ISLAND "/ledger/seg/00000000000000000000.seg"

static void make_good(void) {
    err e;
    ledger *l = NULL;
    base_init();
    log_set_level(LOG_ERROR + 1);
    good = sim_ledger(&e);
    if (!good || open_sim(&l, good, false, NULL, &e) != ERR_OK) abort();
    for (int i = 0; i < RECORDS; i++) {
        if (put_record(l, i, i == 2 ? 30 : -1, NULL, &e) != ERR_OK) abort();
        entries[i].max = LEDGER_ENTRY_MAX;
        if (ledger_read(l, (uint64_t)i, &entries[i], &e) != ERR_OK) abort();
    }
    ledger_close(l);
}

static void mend_sums(buf *b) {
    for (uint64_t off = SEG_HEADER_LEN; off + SECTOR <= b->len;) {
        uint8_t *p = (uint8_t *)b->ptr + off;
        frame_header h = {.note_len = (uint32_t)be_get(p + 12, 4),
                          .entries_len = be_get(p + 32, 8),
                          .contents_len = be_get(p + 40, 8)};
        if (h.entries_len > b->len || h.contents_len > b->len || h.note_len > b->len) return;
        uint64_t room = frame_room(&h);
        if (room > b->len - off) return;
        sha256_of(p + frame_len(&h) - SHA256_LEN, p, (size_t)frame_len(&h) - SHA256_LEN);
        off += room;
    }
}

static void patch(simdisk *d, const uint8_t *p, size_t n, bool mend) {
    buf b = {.max = 1 << 20};
    sim_read(d, SEG, &b);
    for (; n >= 3; p += 3, n -= 3) {
        size_t at = (size_t)be_get(p, 2);
        if (at < b.len) b.ptr[at] = (char)p[2];
    }
    if (mend) mend_sums(&b);
    sim_put(d, SEG, b.ptr, b.len);
    buf_free(&b);
}

static void damage(simdisk *d, const uint8_t *data, size_t n) {
    static const char *const files[] = {ISLAND "/ledger/tree",  ISLAND "/ledger/keys",      ISLAND "/ledger/checkpoint",
                                        ISLAND "/ledger/clean", ISLAND "/keys/ledger.vkey", ISLAND "/keys/vault.key"};
    int what = data[0] % 11;
    if (what < 2) {
        patch(d, data + 1, n - 1, what == 1);
    } else if (what < 8) {
        sim_put(d, files[what - 2], data + 1, n - 1);
    } else if (what == 10) {
        sim_put(d, ISLAND "/ledger/seeds", data + 1, n - 1);
    } else { /* the segment behind its header, or all of it */
        buf b = {.max = 1 << 20};
        sim_read(d, SEG, &b);
        size_t at = what == 8 ? SEG_HEADER_LEN : 0;
        size_t k = n - 1 < b.len - at ? n - 1 : b.len - at;
        memcpy(b.ptr + at, data + 1, k);
        sim_put(d, SEG, b.ptr, b.len);
        buf_free(&b);
    }
}

static void walk(ledger *l) {
    err e;
    bool immutable;
    buf b = {.max = 1 << 20};
    for (uint64_t i = 0; i < RECORDS + 2; i++) {
        buf_reset(&b);
        if (ledger_read(l, i, &b, &e) == ERR_OK && i < ledger_size(l)) {
            bool same = i < RECORDS && b.len == entries[i].len && memcmp(b.ptr, entries[i].ptr, b.len) == 0;
            if (!same) abort();
        }
        buf_reset(&b);
        if (ledger_content(l, i, "prompt", &b, &e) == ERR_OK && (i != 2 || b.len != 30)) abort();
        buf_reset(&b);
        ledger_prove(l, i, &b, &e);
        buf_reset(&b);
        ledger_consistency(l, i, RECORDS, &b, &e);
    }
    buf_reset(&b);
    ledger_resource(l, "tile/entries/000.p/5", &b, &immutable, &e);
    ledger_refresh(l, &e);
    buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    err e;
    ledger *l = NULL;
    verify_report r = {0};
    if (!good) make_good();
    if (size < 1) return 0;
    simdisk *d = sim_after_crash(good, 0);
    damage(d, data, size);
    if (open_sim(&l, d, true, NULL, &e) == ERR_OK) {
        walk(l);
        ledger_close(l);
    }
    verify_sim(d, &r, &e);
    buf_free(&r.text);
    if (open_sim(&l, d, false, NULL, &e) == ERR_OK) {
        walk(l);
        ledger_close(l);
    }
    sim_free(d);
    return 0;
}
