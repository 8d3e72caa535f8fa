/* For tests: a vocabulary through the GGUF keys that its description writes. */
#ifndef POLDER_TESTS_SPEC_GGUF_H
#define POLDER_TESTS_SPEC_GGUF_H

#include "base/mem.h"
#include "engine/vocab/vocab_spec.h"

#include <string.h>

typedef struct key_file {
    buf kv;
    uint64_t n;
} key_file;

static inline void key_le(buf *b, uint64_t v, int n) {
    for (int i = 0; i < n; i++) buf_putc(b, (char)(v >> 8 * i));
}
static inline void key_text(buf *b, const char *p, size_t n) {
    key_le(b, n, 8);
    buf_append(b, p, n);
}
static inline void key_begin(key_file *f, const char *key, gguf_type type) {
    key_text(&f->kv, key, strlen(key));
    key_le(&f->kv, type, 4);
    f->n++;
}
static inline err_code key_str(void *ctx, const char *key, const char *p, size_t n, err *e) {
    key_file *f = ctx;
    key_begin(f, key, GGUF_STR);
    key_text(&f->kv, p, n);
    return buf_check(&f->kv, "keys", e);
}
static inline err_code key_u32(void *ctx, const char *key, uint32_t v, err *e) {
    key_file *f = ctx;
    key_begin(f, key, GGUF_U32);
    key_le(&f->kv, v, 4);
    return buf_check(&f->kv, "keys", e);
}
static inline err_code key_flag(void *ctx, const char *key, bool v, err *e) {
    key_file *f = ctx;
    key_begin(f, key, GGUF_BOOL);
    key_le(&f->kv, v, 1);
    return buf_check(&f->kv, "keys", e);
}
static inline void key_array(key_file *f, const char *key, gguf_type type, size_t n) {
    key_begin(f, key, GGUF_ARR);
    key_le(&f->kv, type, 4);
    key_le(&f->kv, n, 8);
}
static inline err_code key_strs(void *ctx, const char *key, const gguf_str *p, size_t n, err *e) {
    key_file *f = ctx;
    key_array(f, key, GGUF_STR, n);
    for (size_t i = 0; i < n; i++) key_text(&f->kv, p[i].ptr, p[i].len);
    return buf_check(&f->kv, "keys", e);
}
static inline err_code key_i32s(void *ctx, const char *key, const int32_t *p, size_t n, err *e) {
    key_file *f = ctx;
    key_array(f, key, GGUF_I32, n);
    for (size_t i = 0; i < n; i++) key_le(&f->kv, (uint32_t)p[i], 4);
    return buf_check(&f->kv, "keys", e);
}
static inline err_code key_f32s(void *ctx, const char *key, const float *p, size_t n, err *e) {
    key_file *f = ctx;
    key_array(f, key, GGUF_F32, n);
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &p[i], 4);
        key_le(&f->kv, u, 4);
    }
    return buf_check(&f->kv, "keys", e);
}
static inline err_code key_u8s(void *ctx, const char *key, const uint8_t *p, size_t n, err *e) {
    key_file *f = ctx;
    key_array(f, key, GGUF_U8, n);
    buf_append(&f->kv, p, n);
    return buf_check(&f->kv, "keys", e);
}

/* Writes a file of keys only, in memory, and reads it back. */
static inline err_code vocab_through_gguf(vocab **out, const vocab_spec *s, err *e) {
    key_file f = {.kv = {.max = 1u << 30}};
    const spec_sink sink = {&f, key_str, key_u32, key_flag, key_strs, key_i32s, key_f32s, key_u8s};
    buf file = {.max = 1u << 30};
    gguf *g = NULL;
    *out = NULL;
    err_code rc = vocab_spec_write(s, &sink, e);
    buf_puts(&file, "GGUF");
    key_le(&file, 3, 4);
    key_le(&file, 0, 8);
    key_le(&file, f.n, 8);
    buf_append(&file, f.kv.ptr, f.kv.len);
    for (int i = 0; i < 32 && file.len % 32; i++) buf_putc(&file, 0);
    if (rc == ERR_OK) rc = buf_check(&file, "keys", e);
    if (rc == ERR_OK) rc = gguf_open_memory(&g, file.ptr, file.len, "keys", e);
    if (rc == ERR_OK) rc = vocab_new(out, g, e);
    gguf_free(g);
    buf_free(&file);
    buf_free(&f.kv);
    return rc;
}

#endif
