/* For tests: model files changed in memory. Knows GGUF's layout by itself, so that a mistake in gguf.c is not repeated
 * here; trusts its input, which tests made or took from ../shared. */
#ifndef POLDER_TESTS_GGUF_EDIT_H
#define POLDER_TESTS_GGUF_EDIT_H

#include "base/buf.h"
#include "base/file.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline uint64_t edit_le(const char *p, int n) {
    uint64_t v = 0;
    for (int i = n - 1; i >= 0; i--) v = v << 8 | (uint8_t)p[i];
    return v;
}
static inline void edit_put(buf *b, uint64_t v, int n) {
    for (int i = 0; i < n; i++, v >>= 8) buf_putc(b, (char)(uint8_t)v);
}
static inline void edit_put_str(buf *b, const char *s) {
    edit_put(b, strlen(s), 8);
    buf_puts(b, s);
}
static inline void edit_put_u32(buf *b, const char *key, uint32_t v) {
    edit_put_str(b, key);
    edit_put(b, 4, 4);
    edit_put(b, v, 4);
}
static inline void edit_put_f32(buf *b, const char *key, float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    edit_put_str(b, key);
    edit_put(b, 6, 4);
    edit_put(b, u, 4);
}
static inline void edit_put_string(buf *b, const char *key, const char *v) {
    edit_put_str(b, key);
    edit_put(b, 8, 4);
    edit_put_str(b, v);
}

/* Bytes of a value of that type at p. */
static inline size_t edit_value_len(const char *p, uint32_t type) {
    static const uint8_t size[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == 8) return 8 + (size_t)edit_le(p, 8);
    if (type != 9) return size[type];
    uint32_t elem = (uint32_t)edit_le(p, 4);
    uint64_t n = edit_le(p + 4, 8);
    size_t at = 12;
    while (n--) at += edit_value_len(p + at, elem);
    return at;
}

/* Where the value of a scalar key lies: its bytes may be overwritten. NULL where the key is not there. */
static inline char *edit_find(buf *file, const char *key) {
    char *p = file->ptr + 24;
    for (uint64_t n = edit_le(file->ptr + 16, 8); n--;) {
        uint64_t len = edit_le(p, 8);
        char *type = p + 8 + len, *value = type + 4;
        if (len == strlen(key) && memcmp(p + 8, key, len) == 0) return value;
        p = value + edit_value_len(value, (uint32_t)edit_le(type, 4));
    }
    return NULL;
}
static inline bool edit_set_u32(buf *file, const char *key, uint32_t v) {
    char *p = edit_find(file, key);
    for (int i = 0; p && i < 4; i++, v >>= 8) p[i] = (char)(uint8_t)v;
    return p != NULL;
}
static inline bool edit_set_f32(buf *file, const char *key, float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    return edit_set_u32(file, key, u);
}

/* The file again with keys "FROM.…" as "TO.…" (and general.architecture TO), without the key `drop` (may be NULL), with
 * the n_more pairs of `more` added. Tensor data keeps its offsets: they count from the end of the header. */
static inline void edit_rewrite(buf *out, const buf *in, const char *from, const char *to, const char *drop,
                                const buf *more, uint64_t n_more) {
    const char *p = in->ptr + 24;
    uint64_t n_tensors = edit_le(in->ptr + 8, 8), n_kv = edit_le(in->ptr + 16, 8), kept = n_more;
    size_t plen = strlen(from);
    buf kvs = {.max = in->max};
    for (uint64_t i = 0; i < n_kv; i++) {
        char key[300] = {0}, renamed[700];
        uint64_t len = edit_le(p, 8);
        memcpy(key, p + 8, len);
        uint32_t type = (uint32_t)edit_le(p + 8 + len, 4);
        const char *value = p + 12 + len;
        size_t vlen = edit_value_len(value, type);
        p = value + vlen;
        if (drop && strcmp(key, drop) == 0) continue;
        kept++;
        if (strcmp(key, "general.architecture") == 0) {
            edit_put_string(&kvs, key, to);
            continue;
        }
        if (strncmp(key, from, plen) == 0 && key[plen] == '.')
            snprintf(renamed, sizeof renamed, "%s%s", to, key + plen);
        else
            snprintf(renamed, sizeof renamed, "%s", key);
        edit_put_str(&kvs, renamed);
        edit_put(&kvs, type, 4);
        buf_append(&kvs, value, vlen);
    }
    const char *infos = p;
    for (uint64_t i = 0; i < n_tensors; i++) {
        p += 8 + edit_le(p, 8);
        p += 4 + 8 * edit_le(p, 4) + 12;
    }
    size_t header = (size_t)(p - in->ptr), data = (header + 31) / 32 * 32;
    buf_append(out, in->ptr, 16);
    edit_put(out, kept, 8);
    buf_append(out, kvs.ptr, kvs.len);
    if (more) buf_append(out, more->ptr, more->len);
    buf_append(out, infos, (size_t)(p - infos));
    while (out->len % 32) buf_putc(out, 0);
    buf_append(out, in->ptr + data, in->len - data);
    buf_free(&kvs);
}

#endif
