/* Receipts: C2SP tlog-proof, and consistency proofs.
 *
 *   c2sp.org/tlog-proof@v1
 *   extra <base64>              optional, not signed, not trusted
 *   index <decimal>
 *   <base64 of 32 bytes>        the inclusion path, leaf's sibling first
 *                               an empty line
 *   <the signed checkpoint>
 *
 * What other verifiers got wrong and this one must not: the checkpoint's signature is checked over the very root that
 * the path leads to; the path's length must be what index and size call for (an empty path is a tree of one record);
 * the origin is the key's name. Whether a log's sizes only grow is for whoever keeps checkpoints to see. */
#include "audit/internal.h"

#include <string.h>

static const char proof_line[] = "c2sp.org/tlog-proof@v1\n";
enum { EXTRA_MAX = 1 << 20 };

/* The proof is checked against the signed root before it is handed out: a damaged tree file must not make a receipt
 * that fails later, in somebody else's hands. */
static err_code prove(ledger *l, uint64_t seq, buf *note, hash32 path[PROOF_MAX], unsigned *n, err *e) {
    uint64_t size = 0;
    checkpoint c;
    hash_source s = tree_source(l);
    hash32 leaf;
    note_copy(l, note, &size);
    err_code rc = buf_check(note, "a checkpoint", e);
    if (rc == ERR_OK && seq >= size)
        rc = err_set(e, ERR_NOT_FOUND, "record %llu: the ledger has %llu records", (unsigned long long)seq,
                     (unsigned long long)size);
    if (rc == ERR_OK) rc = checkpoint_open_own(&c, note->ptr, note->len, &l->key, false, e);
    if (rc == ERR_OK) rc = s.read(s.ctx, stored_index(0, seq), &leaf, e);
    if (rc == ERR_OK) rc = merkle_inclusion(&s, seq, c.size, path, n, e);
    if (rc == ERR_OK && !merkle_verify_inclusion(&leaf, seq, c.size, path, *n, &c.root))
        rc = err_set(e, ERR_CORRUPT, "%s/ledger/tree: damaged: the proof of record %llu does not hold", l->dir,
                     (unsigned long long)seq);
    return rc;
}

err_code ledger_prove(ledger *l, uint64_t seq, buf *out, err *e) {
    hash32 path[PROOF_MAX];
    unsigned n = 0;
    buf note = {.max = NOTE_OWN_MAX};
    pthread_mutex_lock(&l->read_mu);
    err_code rc = prove(l, seq, &note, path, &n, e);
    pthread_mutex_unlock(&l->read_mu);
    if (rc == ERR_OK) {
        buf_puts(out, proof_line);
        buf_printf(out, "index %llu\n", (unsigned long long)seq);
        for (unsigned i = 0; i < n; i++) {
            base64_encode(out, path[i].b, HASH_LEN);
            buf_putc(out, '\n');
        }
        buf_putc(out, '\n');
        buf_append(out, note.ptr, note.len);
        rc = buf_check(out, "a receipt", e);
    }
    buf_free(&note);
    return rc;
}

err_code ledger_consistency(ledger *l, uint64_t old_size, uint64_t new_size, buf *out, err *e) {
    hash32 path[CONSISTENCY_MAX], old_root, new_root;
    unsigned n = 0;
    if (new_size > atomic_load(&l->size))
        return err_set(e, ERR_NOT_FOUND, "consistency: the ledger has %llu records, not %llu",
                       (unsigned long long)atomic_load(&l->size), (unsigned long long)new_size);
    hash_source s = tree_source(l);
    pthread_mutex_lock(&l->read_mu);
    err_code rc = merkle_consistency(&s, old_size, new_size, path, &n, e);
    if (rc == ERR_OK) rc = merkle_root(&s, old_size, &old_root, e);
    if (rc == ERR_OK) rc = merkle_root(&s, new_size, &new_root, e);
    pthread_mutex_unlock(&l->read_mu);
    if (rc == ERR_OK && !merkle_verify_consistency(old_size, &old_root, new_size, &new_root, path, n))
        rc = err_set(e, ERR_CORRUPT, "%s/ledger/tree: damaged: no consistency between %llu and %llu records", l->dir,
                     (unsigned long long)old_size, (unsigned long long)new_size);
    if (rc == ERR_OK && n) buf_append(out, path, n * sizeof path[0]);
    return rc == ERR_OK ? buf_check(out, "a proof", e) : rc;
}

/* ---- checking a receipt ---------------------------------------------------------------------------------- */

typedef struct receipt {
    uint64_t index;
    hash32 path[PROOF_MAX];
    unsigned n;
    const char *note;
    size_t note_len;
} receipt;

static bool extra_valid(const char *p, size_t n) {
    size_t pad = n >= 2 && p[n - 1] == '=' ? (p[n - 2] == '=' ? 2 : 1) : 0;
    if (n == 0 || n % 4 || n > EXTRA_MAX) return false;
    for (size_t i = 0; i < n - pad; i++) {
        char c = p[i];
        bool ok = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
        if (!ok) return false;
    }
    return true;
}

/* One line without its newline; false where there is none. */
static bool next_line(const char *p, size_t n, size_t *at, const char **line, size_t *len) {
    const char *nl = *at < n ? memchr(p + *at, '\n', n - *at) : NULL;
    if (!nl) return false;
    *line = p + *at;
    *len = (size_t)(nl - *line);
    *at += *len + 1;
    return true;
}

static err_code receipt_parse(receipt *r, const char *p, size_t n, err *e) {
    size_t at = sizeof proof_line - 1, len = 0, got = 0;
    const char *line = NULL;
    memset(r, 0, sizeof *r);
    if (n < at || memcmp(p, proof_line, at) != 0)
        return err_set(e, ERR_INVALID, "receipt: does not begin with the line c2sp.org/tlog-proof@v1");
    bool have = next_line(p, n, &at, &line, &len);
    if (have && len >= 6 && memcmp(line, "extra ", 6) == 0) {
        if (!extra_valid(line + 6, len - 6)) return err_set(e, ERR_INVALID, "receipt: the extra line is not base64");
        have = next_line(p, n, &at, &line, &len);
    }
    if (!have || len < 6 || memcmp(line, "index ", 6) != 0 || !decimal_parse(&r->index, line + 6, len - 6))
        return err_set(e, ERR_INVALID, "receipt: has no index line with a decimal number");
    for (;;) {
        if (!next_line(p, n, &at, &line, &len))
            return err_set(e, ERR_INVALID, "receipt: ends before the empty line that the checkpoint follows");
        if (len == 0) break;
        if (r->n == PROOF_MAX) return err_set(e, ERR_INVALID, "receipt: more than %d hashes", PROOF_MAX);
        if (len != 44 || !base64_decode(r->path[r->n].b, HASH_LEN, &got, line, len) || got != HASH_LEN)
            return err_set(e, ERR_INVALID, "receipt: hash %u is not the base64 of 32 bytes", r->n + 1);
        r->n++;
    }
    r->note = p + at;
    r->note_len = n - at;
    return ERR_OK;
}

err_code audit_verify_receipt(const char *text, size_t n, const void *entry, size_t entry_len, const char *vkey,
                              uint64_t *seq, err *e) {
    note_key key;
    receipt r;
    checkpoint c;
    hash32 leaf;
    err_code rc = note_key_parse(&key, vkey, strlen(vkey), e);
    if (rc == ERR_OK) rc = receipt_parse(&r, text, n, e);
    if (rc == ERR_OK) rc = checkpoint_open(&c, r.note, r.note_len, &key, NULL, e);
    if (rc != ERR_OK) return rc;
    merkle_leaf(&leaf, entry, entry_len);
    if (r.index >= c.size)
        return err_set(e, ERR_NO, "receipt: record %llu is not in a log of %llu records", (unsigned long long)r.index,
                       (unsigned long long)c.size);
    if (!merkle_verify_inclusion(&leaf, r.index, c.size, r.path, r.n, &c.root))
        return err_set(e, ERR_NO, "receipt: the entry is not record %llu of the log %s", (unsigned long long)r.index,
                       c.origin);
    if (seq) *seq = r.index;
    return ERR_OK;
}
