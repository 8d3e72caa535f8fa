/* GGUF files, well-formed and not. A file is put together in memory field by field, so that each case changes one
 * field. What breaks it: a check that is left out (under the sanitizers as a read past the end), a sentence that does
 * not name the file, the thing and the fault. */
#include "base/file.h"
#include "base/mem.h"
#include "engine/files/gguf.h"
#include "tests/harness.h"

#include <math.h>

/* ---- making files ------------------------------------------------------------------------------------------- */

typedef struct maker {
    buf b;
} maker;

static void put_int(maker *m, uint64_t v, int n) {
    for (int i = 0; i < n; i++) buf_putc(&m->b, (char)(v >> (8 * i)));
}
static void put_str(maker *m, const char *s) {
    put_int(m, strlen(s), 8);
    buf_puts(&m->b, s);
}
static void put_header(maker *m, uint32_t version, uint64_t n_tensors, uint64_t n_kv) {
    buf_free(&m->b);
    buf_init(&m->b, 1 << 24);
    buf_puts(&m->b, "GGUF");
    put_int(m, version, 4);
    put_int(m, n_tensors, 8);
    put_int(m, n_kv, 8);
}
static void put_key(maker *m, const char *key, uint32_t type) {
    put_str(m, key);
    put_int(m, type, 4);
}
static void put_u32_key(maker *m, const char *key, uint32_t v) {
    put_key(m, key, GGUF_U32);
    put_int(m, v, 4);
}
static void put_arr(maker *m, const char *key, uint32_t elem, uint64_t n) {
    put_key(m, key, GGUF_ARR);
    put_int(m, elem, 4);
    put_int(m, n, 8);
}
static void put_tensor(maker *m, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                       uint64_t offset) {
    put_str(m, name);
    put_int(m, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) put_int(m, dims[i], 8);
    put_int(m, type, 4);
    put_int(m, offset, 8);
}
static void pad_to(maker *m, size_t align) {
    while (m->b.len % align) buf_putc(&m->b, 0);
}
static void put_zeros(maker *m, size_t n) {
    for (size_t i = 0; i < n; i++) buf_putc(&m->b, 0);
}

/* Opens an exact copy, so that a byte read past its end is seen. */
static err_code open_copy(gguf **g, uint8_t **copy, const void *p, size_t n, err *e) {
    *copy = malloc(n ? n : 1);
    if (!*copy) abort();
    memcpy(*copy, p, n);
    return gguf_open_memory(g, *copy, n, "m.gguf", e);
}

/* A file with every kind of key and two tensors. */
static void put_sample(maker *m) {
    put_header(m, 3, 2, 15);
    put_u32_key(m, "a.u32", 7);
    put_key(m, "a.u8", GGUF_U8), put_int(m, 200, 1);
    put_key(m, "a.i8", GGUF_I8), put_int(m, 0xff, 1);
    put_key(m, "a.u16", GGUF_U16), put_int(m, 65535, 2);
    put_key(m, "a.i16", GGUF_I16), put_int(m, 5, 2);
    put_key(m, "a.i32", GGUF_I32), put_int(m, 0x80000000u, 4);
    put_key(m, "a.u64", GGUF_U64), put_int(m, UINT64_C(1) << 40, 8);
    put_key(m, "a.i64", GGUF_I64), put_int(m, 12, 8);
    put_key(m, "a.f32", GGUF_F32), put_int(m, 0x3fc00000, 4);
    put_key(m, "a.f64", GGUF_F64), put_int(m, UINT64_C(0x4004000000000000), 8);
    put_key(m, "a.bool", GGUF_BOOL), put_int(m, 1, 1);
    put_key(m, "a.str", GGUF_STR), put_str(m, "text");
    put_arr(m, "a.strs", GGUF_STR, 3), put_str(m, "x"), put_str(m, ""), put_str(m, "zz");
    put_arr(m, "a.floats", GGUF_F32, 2), put_int(m, 0x3f800000, 4), put_int(m, 0xc0000000u, 4);
    put_arr(m, "a.ints", GGUF_I8, 3), put_int(m, 0xff02fd, 3);
    put_tensor(m, "second", 2, (uint64_t[]){32, 2}, TT_Q4_0, 32);
    put_tensor(m, "first", 1, (uint64_t[]){3}, TT_F32, 0);
    pad_to(m, 32);
    put_int(m, 0x3f800000, 4);
    put_zeros(m, 8);
    pad_to(m, 32);
    put_zeros(m, 36);
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

TEST(keys_of_every_type) {
    maker m = {0};
    err e = {0};
    gguf *g;
    uint8_t *copy;
    put_sample(&m);
    CHECK_OK(open_copy(&g, &copy, m.b.ptr, m.b.len, &e), e);
    uint32_t u;
    float f;
    bool b;
    gguf_str s;
    CHECK_OK(gguf_u32(g, "a.u32", 0, 10, &u, &e), e);
    CHECK_INT(u, 7);
    CHECK_OK(gguf_u32(g, "a.u8", 0, 255, &u, &e), e);
    CHECK_INT(u, 200);
    CHECK_OK(gguf_u32(g, "a.i64", 0, 255, &u, &e), e);
    CHECK_INT(u, 12);
    CHECK_OK(gguf_u32_or(g, "b", 0, 1, 99, &u, &e), e);
    CHECK_INT(u, 99);
    CHECK_OK(gguf_f32_or(g, "a.f32", 0, &f, &e), e);
    CHECK(f == 1.5f);
    CHECK_OK(gguf_f32_or(g, "a.f64", 0, &f, &e), e);
    CHECK(f == 2.5f);
    CHECK_OK(gguf_f32_or(g, "b", 4.5f, &f, &e), e);
    CHECK(f == 4.5f);
    CHECK_OK(gguf_bool_or(g, "a.bool", false, &b, &e), e);
    CHECK(b);
    CHECK_OK(gguf_str_or(g, "a.str", &s, &e), e);
    CHECK(s.len == 4 && memcmp(s.ptr, "text", 4) == 0);
    CHECK_OK(gguf_str_or(g, "b", &s, &e), e);
    CHECK(s.len == 0);
    CHECK(gguf_has(g, "a.str") && !gguf_has(g, "a.st") && !gguf_has(g, ""));
    /* what is there and wrong is said */
    CHECK(gguf_u32(g, "b", 0, 1, &u, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "m.gguf: key b is missing");
    CHECK(gguf_u32(g, "a.u16", 0, 100, &u, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "key a.u16: 65535 is outside 0 to 100");
    CHECK(gguf_u32(g, "a.i8", 0, 100, &u, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "key a.i8: -1 is outside");
    CHECK(gguf_u32(g, "a.i32", 0, UINT32_MAX, &u, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "-2147483648");
    CHECK(gguf_u32(g, "a.u64", 0, UINT32_MAX, &u, &e) == ERR_INVALID);
    CHECK(gguf_u32(g, "a.f32", 0, 100, &u, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "f32 where an integer is expected");
    CHECK(gguf_f32_or(g, "a.u8", 0, &f, &e) == ERR_INVALID);
    CHECK(gguf_bool_or(g, "a.u8", 0, &b, &e) == ERR_INVALID);
    CHECK(gguf_str_or(g, "a.ints", &s, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "array of i8 where a string is expected");
    gguf_free(g);
    free(copy);
    buf_free(&m.b);
}

TEST(arrays) {
    maker m = {0};
    err e = {0};
    gguf *g;
    uint8_t *copy;
    put_sample(&m);
    CHECK_OK(open_copy(&g, &copy, m.b.ptr, m.b.len, &e), e);
    size_t n;
    gguf_str s[3];
    float f[2];
    int32_t v[3];
    CHECK_OK(gguf_arr(g, "a.strs", GGUF_STR, &n, &e), e);
    CHECK_INT(n, 3);
    CHECK_OK(gguf_arr_strs(g, "a.strs", s, 3, &e), e);
    CHECK(s[0].len == 1 && s[1].len == 0 && s[2].len == 2 && memcmp(s[2].ptr, "zz", 2) == 0);
    CHECK_OK(gguf_arr_f32(g, "a.floats", f, 2, &e), e);
    CHECK(f[0] == 1 && f[1] == -2);
    CHECK_OK(gguf_arr_i32(g, "a.ints", v, 3, &e), e);
    CHECK(v[0] == -3 && v[1] == 2 && v[2] == -1);
    CHECK_OK(gguf_arr(g, "b", GGUF_STR, &n, &e), e);
    CHECK_INT(n, 0);
    CHECK_OK(gguf_arr_i32(g, "b", v, 0, &e), e);
    CHECK(gguf_arr_i32(g, "b", v, 1, &e) == ERR_INVALID);
    CHECK(gguf_arr_strs(g, "a.strs", s, 2, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "key a.strs: 3 elements where 2 are expected");
    CHECK(gguf_arr(g, "a.ints", GGUF_STR, &n, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "array of i8 where an array of string is expected");
    CHECK(gguf_arr(g, "a.u32", GGUF_U32, &n, &e) == ERR_INVALID);
    CHECK(gguf_arr_f32(g, "a.ints", f, 3, &e) == ERR_INVALID);
    gguf_free(g);
    free(copy);

    put_header(&m, 3, 0, 3);
    put_arr(&m, "nan", GGUF_F32, 1), put_int(&m, 0x7fc00000, 4);
    put_arr(&m, "big", GGUF_U32, 1), put_int(&m, 0x80000000u, 4);
    put_key(&m, "inf", GGUF_F32), put_int(&m, 0x7f800000, 4);
    CHECK_OK(open_copy(&g, &copy, m.b.ptr, m.b.len, &e), e);
    CHECK(gguf_arr_f32(g, "nan", f, 1, &e) == ERR_INVALID);
    CHECK(gguf_arr_i32(g, "big", v, 1, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "key big: element 0 does not fit");
    CHECK(gguf_f32_or(g, "inf", 0, f, &e) == ERR_INVALID);
    gguf_free(g);
    free(copy);
    buf_free(&m.b);
}

TEST(tensors) {
    maker m = {0};
    err e = {0};
    gguf *g;
    uint8_t *copy;
    put_sample(&m);
    m.b.ptr[4] = 2; /* version 2 is read alike */
    CHECK_OK(open_copy(&g, &copy, m.b.ptr, m.b.len, &e), e);
    CHECK_INT(gguf_tensor_count(g), 2);
    const gguf_tensor *t = gguf_tensor_find(g, "first");
    CHECK(t && t == gguf_tensor_at(g, 1) && gguf_tensor_at(g, 2) == NULL && !gguf_tensor_find(g, "firs"));
    CHECK(t->type == TT_F32 && t->n_dims == 1 && t->dims[0] == 3 && t->dims[1] == 1 && t->n_bytes == 12);
    CHECK(t->data[3] == 0x3f && t->data > copy && t->data + 32 == gguf_tensor_find(g, "second")->data);
    t = gguf_tensor_find(g, "second");
    CHECK(t->type == TT_Q4_0 && t->n_bytes == 36 && t->dims[1] == 2 && t->data + 36 == copy + m.b.len);
    CHECK_STR(gguf_path(g), "m.gguf");
    CHECK_INT(gguf_file_bytes(g), m.b.len);
    gguf_free(g);
    gguf_free(NULL);
    free(copy);
    buf_free(&m.b);
}

/* ---- refusing ----------------------------------------------------------------------------------------------- */

static void expect(maker *m, err_code want, const char *sentence, int line) {
    err e = {0};
    gguf *g = NULL;
    uint8_t *copy;
    err_code c = open_copy(&g, &copy, m->b.ptr, m->b.len, &e);
    if (c != want || g || !strstr(e.msg, sentence) || strncmp(e.msg, "m.gguf: ", 8) != 0) {
        fprintf(stderr, "line %d: %s \"%s\", not %s \"…%s…\"\n", line, err_name(c), e.msg, err_name(want), sentence);
        test_bad = true;
    }
    gguf_free(g);
    free(copy);
}
#define REFUSED(code, sentence) expect(&m, code, sentence, __LINE__)

TEST(headers) {
    maker m = {0};
    put_header(&m, 3, 0, 0);
    for (size_t n = 0; n < m.b.len; n++) {
        maker cut = {.b = {.ptr = m.b.ptr, .len = n}};
        expect(&cut, ERR_INVALID, n < 4 ? "not a GGUF file" : "the file ends inside its header", __LINE__);
    }
    memcpy(m.b.ptr, "GGML", 4);
    REFUSED(ERR_INVALID, "not a GGUF file");
    put_header(&m, 1, 0, 0);
    REFUSED(ERR_UNSUPPORTED, "GGUF version 1; polder reads 2 and 3");
    put_header(&m, 4, 0, 0);
    REFUSED(ERR_UNSUPPORTED, "GGUF version 4");
    put_header(&m, 0x03000000, 0, 0);
    REFUSED(ERR_UNSUPPORTED, "big-endian");
    put_header(&m, 3, 0, UINT64_MAX);
    REFUSED(ERR_INVALID, "keys; the limit is 65536");
    put_header(&m, 3, 0, 65536);
    REFUSED(ERR_INVALID, "65536 keys do not fit in the file");
    put_header(&m, 3, UINT64_MAX, 0);
    REFUSED(ERR_INVALID, "tensors; the limit is 65536");
    put_header(&m, 3, 65536, 0);
    REFUSED(ERR_INVALID, "descriptions of 65536 tensors do not fit");
    buf_free(&m.b);
}

static void put_one_key(maker *m) {
    put_header(m, 3, 0, 1);
}

TEST(hostile_keys) {
    maker m = {0};
    put_one_key(&m);
    put_int(&m, UINT64_MAX, 8), put_zeros(&m, 40);
    REFUSED(ERR_INVALID, "the name of key 0 runs past the end");
    put_one_key(&m);
    put_u32_key(&m, "", 1), put_zeros(&m, 8);
    REFUSED(ERR_INVALID, "key 0 has an empty name");
    char name[GGUF_NAME_MAX + 2];
    memset(name, 'k', sizeof name);
    name[GGUF_NAME_MAX + 1] = 0;
    put_one_key(&m);
    put_u32_key(&m, name, 1);
    REFUSED(ERR_INVALID, "key 0: its name has 257 bytes; the limit is 256");
    put_one_key(&m);
    put_key(&m, "k", 13), put_zeros(&m, 8);
    REFUSED(ERR_INVALID, "key k: type 13 is not one of GGUF's");
    put_one_key(&m);
    put_key(&m, "kkkk", GGUF_F64), put_zeros(&m, 7);
    REFUSED(ERR_INVALID, "key kkkk: the file ends inside its value");
    put_one_key(&m);
    put_key(&m, "k", GGUF_BOOL), put_int(&m, 2, 1);
    REFUSED(ERR_INVALID, "key k: a bool is neither 0 nor 1");
    put_one_key(&m);
    put_key(&m, "k", GGUF_STR), put_int(&m, UINT64_MAX - 7, 8);
    REFUSED(ERR_INVALID, "key k: its string runs past the end");
    put_one_key(&m);
    put_arr(&m, "k", 99, 1);
    REFUSED(ERR_INVALID, "key k: array element type 99 is not one of GGUF's");
    put_one_key(&m);
    put_arr(&m, "k", GGUF_ARR, 1), put_zeros(&m, 20);
    REFUSED(ERR_UNSUPPORTED, "key k: arrays of arrays");
    put_one_key(&m);
    put_arr(&m, "k", GGUF_U64, UINT64_C(0x2000000000000001)), put_zeros(&m, 20); /* times 8 wraps to 8 */
    REFUSED(ERR_INVALID, "key k: an array of 2305843009213693953 elements runs past the end");
    put_one_key(&m);
    put_arr(&m, "k", GGUF_STR, 3), put_str(&m, "a"), put_zeros(&m, 15); /* three lengths fit, the third is cut */
    REFUSED(ERR_INVALID, "key k: its string runs past the end");
    put_one_key(&m);
    put_arr(&m, "k", GGUF_BOOL, 2), put_int(&m, 0x0201, 2);
    REFUSED(ERR_INVALID, "neither 0 nor 1");
    put_header(&m, 3, 0, 3);
    put_u32_key(&m, "twice", 1), put_u32_key(&m, "once", 1), put_u32_key(&m, "twice", 2);
    REFUSED(ERR_INVALID, "key twice: it stands in the file twice");
    put_one_key(&m); /* terminal control characters in a name do not reach the sentence */
    put_key(&m, "\x1b[31m", 50), put_zeros(&m, 8);
    REFUSED(ERR_INVALID, "?[31m");
    buf_free(&m.b);
}

static void put_one_tensor(maker *m, uint32_t n_dims, const uint64_t *dims, uint32_t type, uint64_t offset,
                           size_t data) {
    put_header(m, 3, 1, 0);
    put_tensor(m, "t", n_dims, dims, type, offset);
    pad_to(m, 32);
    put_zeros(m, data);
}
#define DIMS(...)   \
    (uint64_t[]) {  \
        __VA_ARGS__ \
    }

TEST(hostile_tensors) {
    maker m = {0};
    put_one_tensor(&m, 0, NULL, 0, 0, 32);
    REFUSED(ERR_INVALID, "tensor t: 0 dimensions; 1 to 4");
    put_one_tensor(&m, 5, DIMS(1, 1, 1, 1, 1), 0, 0, 32);
    REFUSED(ERR_INVALID, "tensor t: 5 dimensions");
    put_one_tensor(&m, 2, DIMS(4, 0), 0, 0, 32);
    REFUSED(ERR_INVALID, "tensor t: a dimension is 0");
    put_one_tensor(&m, 2, DIMS(UINT64_C(1) << 32, UINT64_C(1) << 32), 0, 0, 32);
    REFUSED(ERR_INVALID, "tensor t: its dimensions multiply to more than 63 bits");
    put_one_tensor(&m, 1, DIMS(UINT64_C(1) << 63), 0, 0, 32);
    REFUSED(ERR_INVALID, "more than 63 bits");
    put_one_tensor(&m, 1, DIMS(INT64_MAX), 0, 0, 32);
    REFUSED(ERR_INVALID, "tensor t: its size is more than 64 bits");
    put_one_tensor(&m, 1, DIMS(UINT64_C(1) << 61), 0, 0, 32);
    REFUSED(ERR_INVALID, "tensor t: its 9223372036854775808 bytes at offset 0 run past the end");
    put_one_tensor(&m, 1, DIMS(32), 4, 0, 64);
    REFUSED(ERR_UNSUPPORTED, "tensor t: type 4 is not read by polder; it reads F32");
    put_one_tensor(&m, 1, DIMS(32), 0xffffffff, 0, 64);
    REFUSED(ERR_UNSUPPORTED, "type 4294967295");
    put_one_tensor(&m, 1, DIMS(33), TT_Q8_0, 0, 64);
    REFUSED(ERR_INVALID, "tensor t: rows of 33 weights are not whole blocks of 32 (Q8_0)");
    put_one_tensor(&m, 2, DIMS(128, 2), TT_Q4_K, 0, 512); /* whole blocks in all, but not in a row */
    REFUSED(ERR_INVALID, "rows of 128 weights");
    put_one_tensor(&m, 1, DIMS(4), 0, 8, 64);
    REFUSED(ERR_INVALID, "tensor t: offset 8 is not a multiple of the alignment 32");
    put_one_tensor(&m, 1, DIMS(4), 0, 96, 64);
    REFUSED(ERR_INVALID, "tensor t: offset 96 is past the end of the file");
    put_one_tensor(&m, 1, DIMS(4), 0, UINT64_MAX - 31, 64);
    REFUSED(ERR_INVALID, "is past the end of the file");
    put_one_tensor(&m, 1, DIMS(17), 0, 0, 64);
    REFUSED(ERR_INVALID, "tensor t: its 68 bytes at offset 0 run past the end of the file; is the file cut short?");
    put_header(&m, 3, 1, 0);
    put_tensor(&m, "t", 1, DIMS(4), 0, 0);
    REFUSED(ERR_INVALID, "the file ends before its tensors");
    put_header(&m, 3, 1, 0);
    put_str(&m, ""), put_zeros(&m, 40);
    REFUSED(ERR_INVALID, "tensor 0 has an empty name");
    put_header(&m, 3, 1, 0);
    put_int(&m, 1000, 8), put_zeros(&m, 40);
    REFUSED(ERR_INVALID, "the name of tensor 0 runs past");
    put_header(&m, 3, 2, 0);
    put_tensor(&m, "t", 1, DIMS(4), 0, 0), put_tensor(&m, "t", 1, DIMS(4), 0, 32);
    pad_to(&m, 32), put_zeros(&m, 64);
    REFUSED(ERR_INVALID, "tensor t: it stands in the file twice");
    put_header(&m, 3, 3, 0);
    put_tensor(&m, "c", 1, DIMS(4), 0, 64), put_tensor(&m, "b", 1, DIMS(4), 0, 32),
        put_tensor(&m, "a", 1, DIMS(9), 0, 0);
    pad_to(&m, 32), put_zeros(&m, 128);
    REFUSED(ERR_INVALID, "tensors a and b lie on the same bytes");
    put_header(&m, 3, 2, 0);
    put_tensor(&m, "a", 1, DIMS(4), 0, 0), put_tensor(&m, "b", 1, DIMS(4), 0, 0);
    pad_to(&m, 32), put_zeros(&m, 64);
    REFUSED(ERR_INVALID, "lie on the same bytes");
    buf_free(&m.b);
}

TEST(alignment) {
    static const uint32_t bad[] = {0, 1, 4, 24, 33, 1u << 21, 0x80000000u};
    maker m = {0};
    err e = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_header(&m, 3, 0, 1);
        put_u32_key(&m, "general.alignment", bad[i]);
        REFUSED(ERR_INVALID, "key general.alignment: ");
    }
    for (uint32_t align = 8; align <= 1024; align *= 2) {
        put_header(&m, 3, 1, 1);
        put_u32_key(&m, "general.alignment", align);
        put_tensor(&m, "t", 1, DIMS(2), 0, align);
        pad_to(&m, align);
        put_zeros(&m, align + 8);
        m.b.ptr[m.b.len - 8] = 42;
        gguf *g;
        uint8_t *copy;
        CHECK_OK(open_copy(&g, &copy, m.b.ptr, m.b.len, &e), e);
        CHECK_INT(gguf_tensor_at(g, 0)->data[0], 42);
        gguf_free(g);
        free(copy);
    }
    buf_free(&m.b);
}

/* Cut anywhere, the sample is refused; with any one byte changed it is refused or read, without a step outside. */
TEST(every_truncation_and_every_changed_byte) {
    maker m = {0};
    err e = {0};
    put_sample(&m);
    size_t ends_anywhere = 0;
    for (size_t n = 0; n < m.b.len; n++) {
        gguf *g = NULL;
        uint8_t *copy;
        ends_anywhere += open_copy(&g, &copy, m.b.ptr, n, &e) == ERR_OK;
        gguf_free(g);
        free(copy);
    }
    CHECK_INT(ends_anywhere, 0);
    for (size_t i = 0; i < m.b.len; i++)
        for (int v = 0; v < 3; v++) {
            gguf *g = NULL;
            uint8_t *copy;
            char old = m.b.ptr[i];
            m.b.ptr[i] = (char)(v == 0 ? 0xff : v == 1 ? 0 : old ^ 1);
            if (open_copy(&g, &copy, m.b.ptr, m.b.len, &e) == ERR_OK)
                for (size_t t = 0; t < gguf_tensor_count(g); t++) {
                    const gguf_tensor *x = gguf_tensor_at(g, t);
                    if (x->data < copy || x->n_bytes > (size_t)(copy + m.b.len - x->data)) FAIL("byte %zu: outside", i);
                }
            m.b.ptr[i] = old;
            gguf_free(g);
            free(copy);
        }
    buf_free(&m.b);
}

/* ---- files -------------------------------------------------------------------------------------------------- */

TEST(files_on_disk) {
    maker m = {0};
    err e = {0};
    gguf *g = NULL;
    char dir[256], path[512];
    CHECK(test_tmpdir(dir));
    snprintf(path, sizeof path, "%s/x.gguf", dir);
    CHECK(gguf_open(&g, path, &e) == ERR_NOT_FOUND && g == NULL);
    CHECK_HAS(e.msg, "x.gguf");
    CHECK(gguf_open(&g, dir, &e) == ERR_INVALID);
    CHECK_OK(file_write_atomic(path, "", 0, 0600, &e), e);
    CHECK(gguf_open(&g, path, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "x.gguf: not a GGUF file");
    put_sample(&m);
    CHECK_OK(file_write_atomic(path, m.b.ptr, m.b.len, 0600, &e), e);
    CHECK_OK(gguf_open(&g, path, &e), e);
    CHECK_STR(gguf_path(g), path);
    CHECK_INT(gguf_tensor_count(g), 2);
    gguf_free(g);
    int64_t before = mem_count();
    for (int n = 0;; n++) { /* every allocation in turn */
        CHECK(n < 30);
        mem_fail_after(n);
        err_code c = gguf_open(&g, path, &e);
        mem_fail_after(-1);
        if (c == ERR_OK) break;
        CHECK(c == ERR_NOMEM && g == NULL);
    }
    CHECK(mem_count() > before + 4);
    gguf_free(g);
    test_rm(dir);
    buf_free(&m.b);
}

TEST(a_real_model) {
    const char *shared = test_shared();
    if (!shared) SKIP("../shared is absent");
    char path[1200];
    err e = {0};
    gguf *g;
    snprintf(path, sizeof path, "%s/models/stories260K.gguf", shared);
    CHECK_OK(gguf_open(&g, path, &e), e);
    uint32_t d = 0;
    size_t n = 0;
    gguf_str arch;
    CHECK_OK(gguf_str_or(g, "general.architecture", &arch, &e), e);
    CHECK(arch.len == 5 && memcmp(arch.ptr, "llama", 5) == 0);
    CHECK_OK(gguf_u32(g, "llama.embedding_length", 1, 1 << 20, &d, &e), e);
    CHECK_INT(d, 64);
    CHECK_OK(gguf_arr(g, "tokenizer.ggml.tokens", GGUF_STR, &n, &e), e);
    CHECK_INT(n, 512);
    const gguf_tensor *t = gguf_tensor_find(g, "token_embd.weight");
    CHECK(t && t->dims[0] == 64 && t->dims[1] == 512);
    gguf_free(g);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(keys_of_every_type);
    RUN(arrays);
    RUN(tensors);
    RUN(headers);
    RUN(hostile_keys);
    RUN(hostile_tensors);
    RUN(alignment);
    RUN(every_truncation_and_every_changed_byte);
    RUN(files_on_disk);
    RUN(a_real_model);
    return test_end();
}
