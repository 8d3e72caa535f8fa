/* safetensors: what is read, and that everything malformed is refused with the tensor's name. */
#include "harness.h"

#include "engine/files/safetensors.h"

#include "base/file.h"
#include "base/mem.h"

static char bytes[1 << 16];

static size_t make(const char *head, const char *data, size_t n) {
    size_t len = strlen(head);
    for (int i = 0; i < 8; i++) bytes[i] = (char)(len >> 8 * i & 255);
    memcpy(bytes + 8, head, len);
    if (n) memcpy(bytes + 8 + len, data, n);
    return 8 + len + n;
}

#define T(name, dtype, shape, from, to) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

/* Breaks where a dtype, a shape or a place is read wrongly. */
TEST(reads) {
    err e = {0};
    st_set *s = NULL;
    size_t n = make("{\"__metadata__\":{\"a\":\"b\"}," T("w", "F32", "[1,2]", 2, 10) "," T(
                        "b", "BF16", "[1]", 0, 2) "," T("none", "F32", "[0,7]", 10, 10) "}",
                    "xx12345678", 10);
    CHECK_OK(st_open_memory(&s, bytes, n, "x", &e), e);
    CHECK_INT(st_count(s), 3);
    CHECK_STR(st_at(s, 0)->name, "b");
    const st_tensor *w = st_find(s, "w");
    CHECK(w && w->dtype == ST_F32 && w->n_dims == 2 && w->dims[0] == 1 && w->dims[1] == 2 && w->n_bytes == 8);
    CHECK(memcmp(w->data, "12345678", 8) == 0);
    CHECK(st_find(s, "q") == NULL);
    CHECK_INT(st_total_bytes(s), n);
    st_free(s);
}

static const struct {
    const char *head;
    size_t n;
    err_code code;
    const char *says;
} bad[] = {
    {"[]", 0, ERR_INVALID, "not a safetensors file"},
    {"{\"a\":1}", 0, ERR_INVALID, "tensor a: its description"},
    {"{" T("a", "F7", "[1]", 0, 1) "}", 1, ERR_UNSUPPORTED, "\"F7\" is not read"},
    {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, ERR_INVALID, "no shape"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, ERR_INVALID, "data_offsets"},
    {"{" T("a", "U8", "[-1]", 0, 1) "}", 1, ERR_INVALID, "whole number"},
    {"{" T("a", "U8", "[1.5]", 0, 1) "}", 1, ERR_INVALID, "whole number"},
    {"{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1, ERR_INVALID, "more than 8"},
    {"{" T("a", "F64", "[4294967296,4294967296]", 0, 1) "}", 1, ERR_INVALID, "63 bits"},
    {"{" T("a", "U8", "[2]", 0, 1) "}", 1, ERR_INVALID, "asks for 2 bytes"},
    {"{" T("a", "U8", "[2]", 0, 2) "}", 1, ERR_INVALID, "cut short"},
    {"{" T("a", "U8", "[1]", 1, 0) "}", 1, ERR_INVALID, "run past"},
    {"{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[2]", 1, 3) "}", 3, ERR_INVALID, "overlap"},
    {"{" T("a", "U8", "[1]", 0, 1) "," T("b", "U8", "[1]", 2, 3) "}", 3, ERR_INVALID, "belong to no tensor"},
    {"{" T("a", "U8", "[1]", 0, 1) "}", 2, ERR_INVALID, "belong to none"},
    {"{" T("a", "U8", "[1]", 0, 1) "," T("a", "U8", "[1]", 0, 1) "}", 1, ERR_INVALID, "twice"},
    {"{" T("", "U8", "[1]", 0, 1) "}", 1, ERR_INVALID, "name"},
};

/* Breaks where one of these is accepted, or its sentence does not name the tensor. */
TEST(refuses) {
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err e = {0};
        st_set *s = NULL;
        size_t n = make(bad[i].head, "abcdefgh", bad[i].n);
        err_code rc = st_open_memory(&s, bytes, n, "x", &e);
        if (rc != bad[i].code) FAIL("%s gives %s: %s", bad[i].head, err_name(rc), e.msg);
        if (!strstr(e.msg, bad[i].says)) FAIL("%s says: %s", bad[i].head, e.msg);
        CHECK(s == NULL);
    }
}

/* Breaks where a cut file is read past its end. */
TEST(prefixes) {
    size_t n = make("{" T("a", "U8", "[4]", 0, 4) "}", "abcd", 4);
    for (size_t k = 0; k < n; k++) {
        err e = {0};
        st_set *s = NULL;
        char *exact = malloc(k + 1);
        memcpy(exact, bytes, k);
        CHECK_INT(st_open_memory(&s, exact, k, "x", &e), ERR_INVALID);
        free(exact);
    }
}

/* Breaks where a failed allocation leaks or is not told. */
TEST(without_memory) {
    size_t n = make("{" T("a", "U8", "[4]", 0, 4) "," T("b", "U8", "[1]", 4, 5) "}", "abcde", 5);
    int fails = 0;
    for (int64_t k = 0; k < 60; k++) {
        err e = {0};
        st_set *s = NULL;
        mem_fail_after(k);
        err_code rc = st_open_memory(&s, bytes, n, "x", &e);
        mem_fail_after(-1);
        st_free(s);
        if (rc == ERR_OK) break;
        CHECK_INT(rc, ERR_NOMEM);
        fails++;
    }
    CHECK(fails > 4);
}

static char dir[256];

static void put(const char *name, const void *p, size_t n) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    (void)file_write_atomic(path, p, n, 0600, NULL);
}

/* Breaks where shards are not joined, an index leads out of its folder, or promises what is not there. */
TEST(folders) {
    err e = {0};
    st_set *s = NULL;
    CHECK(test_tmpdir(dir));
    CHECK_INT(st_open_folder(&s, dir, &e), ERR_NOT_FOUND);
    put("pytorch_model.bin", "x", 1);
    CHECK_INT(st_open_folder(&s, dir, &e), ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "pickled");
    put("one.safetensors", bytes, make("{" T("a", "U8", "[1]", 0, 1) "}", "a", 1));
    CHECK_OK(st_open_folder(&s, dir, &e), e);
    st_free(s);
    put("two.safetensors", bytes, make("{" T("b", "U8", "[1]", 0, 1) "}", "b", 1));
    CHECK_INT(st_open_folder(&s, dir, &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "2 .safetensors files");
    static const struct {
        const char *index;
        err_code code;
        const char *says;
    } t[] = {
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}", ERR_OK, ""},
        {"{\"weight_map\":{\"a\":\"one.safetensors\"}}", ERR_OK, ""},
        {"{\"weight_map\":{\"b\":\"one.safetensors\"}}", ERR_INVALID, "tensor b is in none"},
        {"{\"weight_map\":{\"a\":\"three.safetensors\"}}", ERR_NOT_FOUND, "three.safetensors"},
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", ERR_INVALID, "not mapped"},
        {"{\"weight_map\":{\"a\":\"one.bin\"}}", ERR_INVALID, "not mapped"},
        {"{\"weight_map\":{\"a\":7}}", ERR_INVALID, "not mapped"},
        {"{\"weight_map\":{}}", ERR_INVALID, "names 0 files"},
        {"{}", ERR_INVALID, "no \"weight_map\""},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"c\":\"one.safetensors\"}}", ERR_INVALID, "tensor c"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        put("model.safetensors.index.json", t[i].index, strlen(t[i].index));
        err_code rc = st_open_folder(&s, dir, &e);
        if (rc != t[i].code || (rc && !strstr(e.msg, t[i].says))) FAIL("%s: %s: %s", t[i].index, err_name(rc), e.msg);
        st_free(s);
        s = NULL;
    }
    test_rm(dir);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(reads);
    RUN(refuses);
    RUN(prefixes);
    RUN(without_memory);
    RUN(folders);
    return test_end();
}
