/* Records and what they commit to. */
#include "helpers.h"

#include <math.h>

TEST(an_entry_is_canonical_json) {
    err e;
    record *r = NULL;
    buf b = {.max = LEDGER_ENTRY_MAX};
    CHECK_OK(record_new(&r, "model.imported", &e), e);
    cJSON_AddStringToObject(record_body(r), "name", "caf\xc3\xa9 \"x\"\n");
    cJSON_AddNumberToObject(record_body(r), "size", 1e21);
    cJSON_AddBoolToObject(record_body(r), "a", true);
    CHECK_OK(record_bytes(r, &b, &e), e);
    /* keys sorted, ECMAScript numbers, short escapes (RFC 8785) */
    CHECK_HAS(
        buf_str(&b),
        "{\"a\":true,\"event\":\"model.imported\",\"name\":\"caf\xc3\xa9 \\\"x\\\"\\n\",\"size\":1e+21,\"time\":\"2");
    CHECK_HAS(buf_str(&b), "Z\",\"v\":1}");
    CHECK_OK(entry_check(b.ptr, b.len, &e), e);
    record_free(r);
    buf_free(&b);
}

TEST(entries_that_are_not_canonical) {
    static const char *const rows[] = {
        "{\"b\":1,\"a\":2}",
        "{\"a\": 1}",
        "{\"a\":1.0}",
        "{\"a\":1}\n",
        " {\"a\":1}",
        "{\"a\":1,\"a\":1}",
        "{\"a\":01}",
        "[1]",
        "\"a\"",
        "",
        "{",
        "{\"a\":\"\\u0061\"}",
        "{\"a\":1e2}",
        "{\"a\":-0}",
        "{\"a\":1}x",
        "{\"a\":9007199254740993}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\\/\"}",
        "{\"a\":NaN}",
        "{\"a\":\"\\u000A\"}",
    };
    err e;
    CHECK_OK(entry_check("{\"a\":1,\"b\":\"\\n\"}", 16, &e), e);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (entry_check(rows[i], strlen(rows[i]), &e) == ERR_OK) FAIL("%s passes", rows[i]);
}

TEST(what_would_never_verify_does_not_enter) {
    err e;
    record *r = NULL;
    buf b = {.max = LEDGER_ENTRY_MAX};
    CHECK_OK(record_new(&r, "test", &e), e);
    cJSON_AddNumberToObject(record_body(r), "v", 2); /* cJSON lets a key be there twice */
    CHECK(record_bytes(r, &b, &e) != ERR_OK);
    CHECK_HAS(e.msg, "record:");
    record_free(r);
    buf_reset(&b);
    CHECK_OK(record_new(&r, "test", &e), e);
    cJSON_AddNumberToObject(record_body(r), "x", NAN);
    CHECK(record_bytes(r, &b, &e) != ERR_OK);
    record_free(r);
    buf_reset(&b);
    CHECK_OK(record_new(&r, "test", &e), e);
    cJSON *o = record_body(r);
    for (int i = 0; i < JSON_DEPTH_MAX + 4; i++) o = cJSON_AddObjectToObject(o, "x");
    CHECK(record_bytes(r, &b, &e) != ERR_OK);
    record_free(r);
    buf_reset(&b);
    CHECK_OK(record_new(&r, "test", &e), e);
    char *big = malloc(70000);
    memset(big, 'x', 69999);
    big[69999] = 0;
    cJSON_AddStringToObject(record_body(r), "x", big);
    CHECK_INT(record_bytes(r, &b, &e), ERR_TOO_LARGE);
    free(big);
    record_free(r);
    buf_free(&b);
}

TEST(content_names) {
    err e;
    record *r = NULL;
    CHECK_OK(record_new(&r, "test", &e), e);
    static const char *const bad[] = {"", "Prompt", "a b", "a-b", "a1", "abcdefghijklmnopqrstuvwxyzabcdefg"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_INT(record_content(r, bad[i], "x", 1, &e), ERR_INVALID);
    CHECK_OK(record_content(r, "abcdefghijklmnopqrstuvwxyz_abcde", "x", 1, &e), e);
    CHECK_OK(record_content(r, "prompt", "", 0, &e), e);
    CHECK_INT(record_content(r, "prompt", "x", 1, &e), ERR_EXISTS);
    CHECK_INT(record_content(r, "answer", NULL, (size_t)LEDGER_CONTENT_MAX + 1, &e), ERR_TOO_LARGE);
    for (unsigned i = 2; i < CONTENTS_MAX; i++) {
        char name[3] = {(char)('a' + i / 26), (char)('a' + i % 26), 0};
        CHECK_OK(record_content(r, name, name, 2, &e), e);
    }
    CHECK_INT(record_content(r, "toomany", "x", 1, &e), ERR_TOO_LARGE);
    record_free(r);
}

/* What an entry says of its contents. */
static cJSON *told(const record *r) {
    cJSON *v = NULL;
    buf b = {.max = LEDGER_ENTRY_MAX};
    if (record_bytes(r, &b, NULL) == ERR_OK) (void)json_parse(&v, b.ptr, b.len, "entry", NULL);
    buf_free(&b);
    return v;
}

TEST(a_commitment_is_salted) {
    err e;
    record *a = NULL, *b = NULL;
    CHECK_OK(record_new(&a, "test", &e), e);
    CHECK_OK(record_new(&b, "test", &e), e);
    CHECK_OK(record_content(a, "prompt", "yes", 3, &e), e);
    CHECK_OK(record_content(b, "prompt", "yes", 3, &e), e);
    cJSON *ta = told(a), *tb = told(b);
    const cJSON *ca = json_get(json_get(json_get(ta, "content"), "prompt"), "commit");
    const cJSON *cb = json_get(json_get(json_get(tb, "content"), "prompt"), "commit");
    CHECK(ca && cb && strlen(ca->valuestring) == 64);
    CHECK(strcmp(ca->valuestring, cb->valuestring) != 0); /* the same answer twice cannot be told from two answers */
    uint8_t mac[32];
    char hex[65];
    content_view c;
    CHECK(first_content(a, &c));
    hmac_sha256(mac, c.salt, SALT_LEN, "yes", 3);
    hex_encode(hex, mac, 32);
    CHECK_STR(ca->valuestring, hex);
    CHECK_INT(json_get(json_get(json_get(ta, "content"), "prompt"), "bytes")->valueint, 3);
    cJSON_Delete(ta);
    cJSON_Delete(tb);
    record_free(a);
    record_free(b);
    record_free(NULL);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(an_entry_is_canonical_json);
    RUN(entries_that_are_not_canonical);
    RUN(what_would_never_verify_does_not_enter);
    RUN(content_names);
    RUN(a_commitment_is_salted);
    return test_end();
}
