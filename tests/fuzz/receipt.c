/* Receipts. The part after the first empty line is signed by a known key, so that inputs come past the signature; the
 * entry is fixed. What is accepted must be a log whose root the entry leads to: for a size of one, the leaf itself. */
#include "audit/audit.h"
#include "audit/merkle.h"
#include "audit/note.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char skey[] = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
static const char entry[] = "{\"event\":\"test\",\"time\":\"2026-01-01T00:00:00.000Z\",\"v\":1}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    note_signer s;
    err e;
    uint64_t seq = 0;
    base_init();
    if (note_signer_parse(&s, skey, strlen(skey), &e) != ERR_OK) abort();
    buf vkey = {.max = 1000}, b = {.max = 1 << 20};
    note_key_text(&vkey, &s.key);
    const char *p = (const char *)data;
    const char *cut = memmem(p, size, "\n\n", 2);
    size_t head = cut ? (size_t)(cut - p) + 2 : size;
    buf_append(&b, p, head);
    if (cut) note_sign(&b, &s, p + head, size - head);
    err_code rc = audit_verify_receipt(buf_str(&b), b.len, entry, sizeof entry - 1, buf_str(&vkey), &seq, &e);
    if (rc == ERR_OK) {
        checkpoint c;
        hash32 leaf;
        if (checkpoint_parse(&c, p + head, size - head, &e) != ERR_OK || seq >= c.size) abort();
        merkle_leaf(&leaf, entry, sizeof entry - 1);
        if (c.size == 1 && !hash_equal(&leaf, &c.root)) abort();
    }
    audit_verify_receipt(p, size, entry, sizeof entry - 1, buf_str(&vkey), &seq, &e); /* and as it is */
    audit_verify_receipt(p, size, data, size, buf_str(&vkey), &seq, &e);
    buf_free(&b);
    buf_free(&vkey);
    return 0;
}
