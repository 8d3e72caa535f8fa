/* GGUF files: opens any bytes and walks all that a model could ask for. What breaks it: a read outside the bytes, an
 * allocation sized by a count that was not checked. */
#include "engine/files/gguf.h"

#include <stdlib.h>
#include <string.h>

static uint64_t sink;

static void touch(const void *p, size_t n) {
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++) sink += b[i];
}

static const char *const keys[] = {"general.architecture",
                                   "general.alignment",
                                   "general.name",
                                   "a.u32",
                                   "a.str",
                                   "a.floats",
                                   "a.ints",
                                   "a.strs",
                                   "a.bool",
                                   "tokenizer.ggml.tokens",
                                   "a"};

static void read_arrays(const gguf *g, const char *key, err *e) {
    size_t n;
    if (gguf_arr(g, key, GGUF_STR, &n, e) == ERR_OK && n) {
        gguf_str *s = malloc(n * sizeof *s);
        if (!s || gguf_arr_strs(g, key, s, n, e) != ERR_OK) abort();
        for (size_t i = 0; i < n; i++) touch(s[i].ptr, s[i].len);
        free(s);
    }
    if (gguf_arr(g, key, GGUF_F32, &n, e) == ERR_OK && n) {
        float *f = malloc(n * sizeof *f);
        if (!f) abort();
        if (gguf_arr_f32(g, key, f, n, e) == ERR_OK) touch(f, n * sizeof *f);
        free(f);
    }
    if (gguf_arr(g, key, GGUF_I32, &n, e) == ERR_OK && n) {
        int32_t *v = malloc(n * sizeof *v);
        if (!v) abort();
        if (gguf_arr_i32(g, key, v, n, e) == ERR_OK) touch(v, n * sizeof *v);
        free(v);
    }
}

static void read_scalars(const gguf *g, const char *key, err *e) {
    uint32_t u;
    float f;
    bool b;
    gguf_str s;
    if (gguf_u32_or(g, key, 0, UINT32_MAX, 1, &u, e) == ERR_OK) sink += u;
    if (gguf_f32_or(g, key, 1, &f, e) == ERR_OK) touch(&f, sizeof f);
    if (gguf_bool_or(g, key, false, &b, e) == ERR_OK) sink += b;
    if (gguf_str_or(g, key, &s, e) == ERR_OK) touch(s.ptr, s.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    err e;
    gguf *g;
    if (gguf_open_memory(&g, data, size, "fuzz.gguf", &e) != ERR_OK) {
        touch(e.msg, strlen(e.msg));
        return 0;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        read_scalars(g, keys[i], &e);
        read_arrays(g, keys[i], &e);
    }
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        char name[GGUF_NAME_MAX + 1];
        touch(t->data, (size_t)t->n_bytes);
        memcpy(name, t->name.ptr, t->name.len);
        name[t->name.len] = 0;
        if (strlen(name) == t->name.len && gguf_tensor_find(g, name) != t) abort();
        float row[256];
        uint32_t block = tensor_type_get((uint32_t)t->type)->block_len;
        tensor_expand(t->type, t->data, row, block);
        touch(row, block * sizeof *row);
    }
    gguf_free(g);
    return 0;
}
