/* Signed notes, checkpoints, keys: no input crashes, and what is accepted has one spelling. The first byte picks the
 * parser. */
#include "audit/note.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char vkey[] = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
static const char skey[] = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";

static void must(bool ok) {
    if (!ok) abort();
}

static void same(const buf *b, const char *p, size_t n) {
    must(!b->failed && b->len == n && memcmp(buf_str(b), p, n) == 0);
}

/* A checkpoint's text; and the same text signed, which must then open. */
static void try_checkpoint(const char *p, size_t n, const note_signer *s) {
    checkpoint c, again;
    err e;
    buf b = {.max = 1 << 20};
    if (checkpoint_parse(&c, p, n, &e) == ERR_OK && c.extensions == 0) {
        checkpoint_text(&b, c.origin, c.size, &c.root);
        same(&b, p, n);
    }
    buf_reset(&b);
    if (n && p[n - 1] == '\n') {
        size_t text;
        note_sign(&b, s, p, n);
        err_code rc = note_open(b.ptr, b.len, &s->key, &text, NULL, &e);
        if (rc == ERR_OK) must(text == n);
        if (checkpoint_open(&again, b.ptr, b.len, &s->key, NULL, &e) == ERR_OK)
            must(strcmp(again.origin, s->key.name) == 0);
    }
    buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    note_key k;
    note_signer s, other;
    checkpoint c;
    err e;
    size_t text;
    unsigned unknown;
    if (size < 1) return 0;
    base_init();
    const char *p = (const char *)data + 1;
    size_t n = size - 1;
    must(note_key_parse(&k, vkey, strlen(vkey), &e) == ERR_OK);
    must(note_signer_parse(&s, skey, strlen(skey), &e) == ERR_OK);
    buf b = {.max = 1 << 20};
    switch (data[0] % 4) {
    case 0:
        if (note_open(p, n, &k, &text, &unknown, &e) == ERR_OK)
            must(text < n && p[text - 1] == '\n' && p[text] == '\n');
        checkpoint_open(&c, p, n, &k, &unknown, &e);
        checkpoint_open_own(&c, p, n, &k, false, &e);
        break;
    case 1: try_checkpoint(p, n, &s); break;
    case 2:
        if (note_key_parse(&k, p, n, &e) == ERR_OK) {
            note_key_text(&b, &k);
            same(&b, p, n);
        }
        break;
    default:
        if (note_signer_parse(&other, p, n, &e) == ERR_OK) {
            note_signer_text(&b, &other);
            same(&b, p, n);
        }
    }
    buf_free(&b);
    return 0;
}
