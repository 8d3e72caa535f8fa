/* What the ledger's tests share: a ledger on a simulated disk, and records for it. */
#ifndef POLDER_TESTS_AUDIT_HELPERS_H
#define POLDER_TESTS_AUDIT_HELPERS_H

#include "audit/commit.h"
#include "audit/verify.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sys.h"
#include "tests/fault/disk.h"
#include "tests/harness.h"

#define ISLAND "island"
#define ORIGIN "polder.test/log"

/* A record {"event":"test","n":i}, with a content "prompt" of `bytes` bytes where bytes >= 0. */
static inline err_code make_record(record **out, int i, int bytes, err *e) {
    err_code rc = record_new(out, "test", e);
    if (rc != ERR_OK) return rc;
    if (!cJSON_AddNumberToObject(record_body(*out), "n", i)) rc = err_nomem(e, "a test record");
    char *p = NULL;
    if (rc == ERR_OK && bytes >= 0) {
        p = malloc((size_t)bytes + 1);
        for (int k = 0; k < bytes; k++) p[k] = (char)('a' + (i + k) % 26);
        rc = record_content(*out, "prompt", p, (size_t)bytes, e);
    }
    free(p);
    return rc;
}

static inline bool first_content(const record *r, content_view *v) {
    size_t at = 0;
    unsigned left;
    bool whole;
    return vault_next(r->contents.p + SEALED_FROM, r->contents.len - SEALED_FROM, &at, &left, v, &whole);
}

static inline err_code put_record(ledger *l, int i, int bytes, uint64_t *seq, err *e) {
    record *r = NULL;
    err_code rc = make_record(&r, i, bytes, e);
    if (rc == ERR_OK) rc = ledger_append(l, r, seq, e);
    record_free(r);
    return rc;
}

/* Records i and i + 1, whose "of" is the index of the first. */
static inline err_code put_pair(ledger *l, int i, int bytes_a, int bytes_b, uint64_t *seq, err *e) {
    record *a = NULL, *b = NULL;
    err_code rc = make_record(&a, i, bytes_a, e);
    if (rc == ERR_OK) rc = make_record(&b, i + 1, bytes_b, e);
    if (rc == ERR_OK && !cJSON_AddNumberToObject(record_body(b), "of", (double)LEDGER_SEQ_PENDING))
        rc = err_nomem(e, "a test record");
    if (rc == ERR_OK) rc = ledger_append_pair(l, a, b, "of", seq, e);
    record_free(a);
    record_free(b);
    return rc;
}

static inline bool content_is(ledger *l, uint64_t seq, int i, int bytes) {
    buf b = {.max = 1 << 20};
    err e;
    bool ok = ledger_content(l, seq, "prompt", &b, &e) == ERR_OK && b.len == (size_t)bytes;
    for (int k = 0; ok && k < bytes; k++) ok = b.ptr[k] == (char)('a' + (i + k) % 26);
    buf_free(&b);
    return ok;
}

static inline bool entry_is(ledger *l, uint64_t seq, int i) {
    buf b = {.max = LEDGER_ENTRY_MAX};
    err e;
    char want[32];
    snprintf(want, sizeof want, "\"n\":%d,", i);
    bool ok = ledger_read(l, seq, &b, &e) == ERR_OK && strstr(buf_str(&b), want);
    buf_free(&b);
    return ok;
}

static inline err_code open_sim(ledger **l, simdisk *d, bool read_only, ledger_report *rep, err *e) {
    ledger_options o = {.fs = sim_vfs(d), .read_only = read_only, .segment_bytes = SEG_LEN_MIN};
    return ledger_open(l, ISLAND, &o, rep, e);
}

static inline simdisk *sim_ledger(err *e) {
    simdisk *d = sim_new();
    if (ledger_create_sized(ISLAND, ORIGIN, sim_vfs(d), SEG_LEN_MIN, e) == ERR_OK) return d;
    fprintf(stderr, "the ledger could not be made: %s\n", e->msg);
    sim_free(d);
    return NULL;
}

static inline err_code verify_sim(simdisk *d, verify_report *r, err *e) {
    return verify_island_fs(sim_vfs(d), ISLAND, true, NULL, r, e);
}

#endif
