/* island.yaml. What breaks these: a mistake in the file that is accepted, or refused at the wrong place; a value that
 * does not survive writing and reading; a page of the guide that the program does not agree with. */
#include "harness.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "island/island.h"

static err_code parse(island_config *c, const char *yaml, err *e) {
    memset(e, 0, sizeof *e);
    return config_parse(c, yaml, strlen(yaml), "island.yaml", e);
}

TEST(config_defaults) {
    err e;
    island_config c, d;
    static const char *const empty[] = {"", "# nothing\n", "---\n", "server:\n", "\n---\n...\n"};
    CHECK_OK(config_default(&d, &e), e);
    CHECK_STR(d.server_listen, "127.0.0.1:8080");
    CHECK(d.server_auth);
    CHECK_INT(d.server_max_body_bytes, 4194304);
    buf a = {.max = 65536}, b = {.max = 65536};
    config_write_json(&d, &a);
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        CHECK_OK(parse(&c, empty[i], &e), e);
        buf_reset(&b);
        config_write_json(&c, &b);
        CHECK_STR(buf_str(&b), buf_str(&a));
        config_free(&c);
    }
    buf_free(&a);
    buf_free(&b);
    config_free(&d);
    config_free(&d); /* twice is harmless */
}

TEST(config_values) {
    err e;
    island_config c;
    CHECK_OK(
        parse(&c,
              "island: {name: example.org/a}\nserver:\n  listen: '[::1]:0'\n  auth: false\nlog: {level: \"warn\"}\n"
              "inference:\n  threads: 7\n",
              &e),
        e);
    CHECK_STR(c.island_name, "example.org/a");
    CHECK_STR(c.server_listen, "[::1]:0");
    CHECK(!c.server_auth);
    CHECK_STR(c.log_level, "warn");
    CHECK_INT(c.inference_threads, 7);
    CHECK_INT(c.inference_max_queue, 64);
    config_free(&c);
}

/* Each mistake, the place that must be named, and a part of the sentence. */
TEST(config_refusals) {
    static const struct {
        const char *yaml, *where, *says;
    } t[] = {
        {"server:\n  lisen: x\n", "island.yaml:2:3: ", "unknown key server.lisen; did you mean listen?"},
        {"server:\n  lisen: x\n", "island.yaml:2:3: ", "known in server: listen, auth, max_connections"},
        {"server:\n  threads: 1\n", ":2:3: ", "did you mean inference.threads?"},
        {"srever:\n  listen: x\n", ":1:1: ", "unknown group srever; did you mean server? (known: island, server"},
        {"listen: x\n", ":1:1: ", "did you mean listen below server?"},
        {"zzzzzzzzzz: x\n", ":1:1: ", "unknown group zzzzzzzzzz (known:"},
        {"server:\n  auth: true\n  auth: true\n", ":3:3: ", "server.auth is given twice; the first is in line 2"},
        {"log: {}\nserver: {}\nlog: {}\n", ":3:1: ", "group log is given twice"},
        {"server: [1]\n", ":1:9: ", "lists"},
        {"server: 5\n", ":1:9: ", "server is a group"},
        {"- a\n", ":1:1: ", "lists"},
        {"just text\n", ":1:1: ", "expected groups"},
        {"server:\n  listen: {a: b}\n", ":2:11: ", "takes one value"},
        {"server:\n  ? {a: b}\n  : x\n", ":2:5: ", "plain word"},
        {"? {a: b}\n: x\n", ":1:3: ", "plain word"},
        {"server: &a\n  auth: true\n", ":1:9: ", "anchors"},
        {"log:\n  level: &a info\n", ":2:10: ", "anchors"},
        {"log:\n  level: *a\n", ":2:10: ", "aliases"},
        {"log:\n  level: !!str info\n", ":2:10: ", "tags"},
        {"log:\n  level: info\n---\nlog:\n  level: info\n", ":3:1: ", "second document"},
        {"server:\n  max_body_bytes: 5\n", ":2:19: ", "server.max_body_bytes: 5 is not between 1024 and 1073741824"},
        {"server:\n  max_body_bytes: 99999999999999999999\n", ":2:19: ", "is not between"},
        {"server:\n  max_body_bytes: -2048\n", ":2:19: ", "is not between"},
        {"server:\n  max_body_bytes: 4MB\n", ":2:19: ", "\"4MB\" is not a whole number"},
        {"server:\n  max_body_bytes: 0x1000\n", ":2:19: ", "decimal"},
        {"server:\n  max_body_bytes: 010000\n", ":2:19: ", "decimal"},
        {"server:\n  max_body_bytes: '4096'\n", ":2:19: ", "in quotes"},
        {"server:\n  max_body_bytes:\n", ":2:18: ", "has no value"},
        {"server:\n  auth: yes\n", ":2:9: ", "neither true nor false"},
        {"inference:\n  kv: q4\n", ":2:7: ", "inference.kv: \"q4\" is not one of f16, q8"},
        {"server:\n  auth: \"true\"\n", ":2:9: ", "in quotes"},
        {"server:\n  auth: ~\n", ":2:9: ", "has no value"},
        {"server:\n  listen: ''\n", ":2:11: ", "is empty"},
        {"server:\n  listen: 8080\n", ":2:11: ", "ADDRESS:PORT"},
        {"server:\n  listen: ::1:8080\n", ":2:11: ", "ADDRESS:PORT"},
        {"server:\n  listen: 127.0.0.1:99999\n", ":2:11: ", "ADDRESS:PORT"},
        {"server:\n  listen: '[zz]:80'\n", ":2:11: ", "ADDRESS:PORT"},
        {"server:\n  listen: \"a\\nb:80\"\n", ":2:11: ", "control characters"},
        {"server:\n  listen: \"a\\0b:80\"\n", ":2:11: ", "control characters"},
        {"server:\n  auth: false\n  listen: 0.0.0.0:80\n", ":2:3: ", "loopback only"},
        {"server:\n  auth: false\n  listen: example.org:80\n", ":2:3: ", "loopback only"},
        {"island:\n  name: 'a b'\n", ":2:9: ", "letters, digits"},
        {"island:\n  name: a+b\n", ":2:9: ", "letters, digits"},
        {"log:\n  level: loud\n", ":2:10: ", "debug, info, warn, error"},
        {"server:\n\tauth: true\n", ":2:1: ", "is not YAML"},
        {"server: {\n", "island.yaml:2:1: ", "is not YAML"},
        {"a\nb\xff", "island.yaml:2:2: ", "UTF-8"},
        {"a\n\x01", "island.yaml:2:1: ", "control character"},
        {"server:\n  \"li\\0sten\": x\n", ":2:3: ", "unknown key"},
        {"\"ser\\0ver\":\n  listen: x\n", ":1:1: ", "unknown group"},
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        err e;
        island_config c;
        err_code code = parse(&c, t[i].yaml, &e);
        if (code != ERR_USAGE || !strstr(e.msg, t[i].where) || !strstr(e.msg, t[i].says))
            FAIL("case %zu: %s: %s", i, err_name(code), e.msg);
        CHECK(c.server_listen == NULL); /* nothing half-made is handed out */
    }
}

TEST(config_too_large) {
    err e;
    island_config c;
    size_t n = 300 * 1024;
    char *s = mem_alloc(n);
    CHECK(s);
    memset(s, '#', n);
    CHECK_INT(config_parse(&c, s, n, "island.yaml", &e), ERR_USAGE);
    CHECK_HAS(e.msg, "at most");
    mem_free(s);
    /* a name longer than its maximum */
    char yaml[400] = "island:\n  name: ";
    memset(yaml + strlen(yaml), 'n', 201);
    CHECK_INT(parse(&c, yaml, &e), ERR_USAGE);
    CHECK_HAS(e.msg, "at most 200");
}

TEST(config_round_trip) {
    err e;
    island_config c, d;
    CHECK_OK(parse(&c, "island: {name: 'x/y:z@~_-.0'}\nserver: {listen: '[::1]:65535', drain_timeout_s: 0}\n", &e), e);
    buf yaml = {.max = 65536}, a = {.max = 65536}, b = {.max = 65536};
    config_write_yaml(&c, &yaml);
    config_write_json(&c, &a);
    CHECK_OK(buf_check(&yaml, "yaml", &e), e);
    CHECK_HAS(buf_str(&yaml), "  # Ask for an API key; false only on loopback\n  auth: true\n");
    CHECK_OK(parse(&d, buf_str(&yaml), &e), e);
    config_write_json(&d, &b);
    CHECK_STR(buf_str(&b), buf_str(&a));
    cJSON *j = NULL;
    CHECK_OK(json_parse(&j, a.ptr, a.len, "json", &e), e);
    int64_t v = 0;
    CHECK_OK(json_get_int(json_get(j, "server"), "drain_timeout_s", 0, 10, &v, &e), e);
    CHECK(json_get(json_get(j, "island"), "name"));
    cJSON_Delete(j);
    buf_free(&yaml);
    buf_free(&a);
    buf_free(&b);
    config_free(&c);
    config_free(&d);
}

/* The committed page is what the table prints. `test_island_config --print-guide` prints it anew. */
TEST(config_guide_is_current) {
    err e;
    buf want = {.max = 1 << 20}, have = {.max = 1 << 20};
    config_write_markdown(&want);
    CHECK_OK(file_read(&have, "docs/guide/configuration.md", &e), e);
    CHECK_STR(buf_str(&have), buf_str(&want));
    buf_free(&want);
    buf_free(&have);
}

TEST(config_allocation_failures) {
    int fails = 0;
    for (int n = 0; n < 60; n++) {
        err e = {0};
        island_config c;
        mem_fail_after(n);
        err_code code = config_parse(&c, "island: {name: a}\nlog: {level: warn}\n", 37, "island.yaml", &e);
        mem_fail_after(-1);
        if (code == ERR_OK)
            config_free(&c);
        else {
            fails++;
            CHECK_INT(code, ERR_NOMEM);
            CHECK_HAS(e.msg, "memory");
        }
    }
    CHECK(fails >= 5);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    if (argc > 1 && strcmp(argv[1], "--print-guide") == 0) {
        buf b = {.max = 1 << 20};
        config_write_markdown(&b);
        fputs(buf_str(&b), stdout);
        return 0;
    }
    RUN(config_defaults);
    RUN(config_values);
    RUN(config_refusals);
    RUN(config_too_large);
    RUN(config_round_trip);
    RUN(config_guide_is_current);
    RUN(config_allocation_failures);
    return test_end();
}
