/* API keys. What breaks these: a key that works without a record, a revoked key that works, a changed row that works, a
 * refusal that tells why. */
#include "harness.h"

#include "base/json.h"
#include "base/mem.h"
#include "island/island.h"

#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>

static char dir[256], isl[300];

static island *open_ok(island_mode mode) {
    island *i = NULL;
    err e = {0};
    if (island_open(&i, isl, mode, &e) != ERR_OK) fprintf(stderr, "open: %s\n", e.msg);
    return i;
}

static bool works(island *i, const char *text, const char *name, role r) {
    identity who;
    err e = {0};
    return key_check(i, text, strlen(text), &who, &e) == ERR_OK && strcmp(who.name, name) == 0 && who.role == r;
}

static bool refused(island *i, const char *text, size_t n) {
    identity who;
    err e = {0};
    return key_check(i, text, n, &who, &e) == ERR_UNAUTHENTICATED &&
           strcmp(e.msg, "the API key is not valid; polder key add makes a new one") == 0;
}

/* How many records of an event are about this key. */
static int records(island *i, const char *event, const char *key_id) {
    int found = 0;
    for (uint64_t seq = 0; seq < ledger_size(island_ledger(i)); seq++) {
        buf b = {.max = LEDGER_ENTRY_MAX};
        err e;
        cJSON *o = NULL;
        const char *is = NULL, *key = NULL;
        if (ledger_read(island_ledger(i), seq, &b, &e) == ERR_OK &&
            json_parse(&o, b.ptr, b.len, "entry", &e) == ERR_OK && json_get_str(o, "event", &is, &e) == ERR_OK &&
            json_get_str(o, "key", &key, &e) == ERR_OK && is && key)
            found += strcmp(is, event) == 0 && (!key_id || strcmp(key, key_id) == 0);
        cJSON_Delete(o);
        buf_free(&b);
    }
    return found;
}

/* A statement from outside, as a thief of the database or a crash would leave it. */
static bool edit(const char *sql) {
    char path[400];
    sqlite3 *db;
    snprintf(path, sizeof path, "%s/store/polder.db", isl);
    bool ok = sqlite3_open(path, &db) == SQLITE_OK && sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK &&
              sqlite3_changes(db) == 1;
    sqlite3_close(db);
    return ok;
}

TEST(key_roles) {
    role r;
    static const char *const names[] = {"user", "operator", "auditor", "admin"};
    for (int k = 0; k < 4; k++) {
        CHECK(role_parse(&r, names[k]));
        CHECK_STR(role_name(r), names[k]);
    }
    CHECK(!role_parse(&r, "root") && !role_parse(&r, "") && !role_parse(&r, NULL) && !role_parse(&r, "Admin"));
}

TEST(key_life) {
    island *i = open_ok(ISLAND_WRITE);
    CHECK(i);
    err e = {0};
    char a[KEY_TEXT_MAX], b[KEY_TEXT_MAX];
    identity ia, ib;
    CHECK_OK(key_add(i, NULL, "alice@example.org", ROLE_USER, a, &ia, &e), e);
    CHECK_OK(key_add(i, NULL, "night batch", ROLE_ADMIN, b, &ib, &e), e);
    CHECK(strlen(a) == 60 && strncmp(a, "pld_", 4) == 0 && strcmp(a, b) != 0);
    CHECK(strncmp(ia.key_id + 2, a + 4, 12) == 0);
    CHECK(works(i, a, "alice@example.org", ROLE_USER));
    CHECK(works(i, b, "night batch", ROLE_ADMIN));
    CHECK_INT(records(i, "key.created", ia.key_id), 1);
    CHECK_INT(records(i, "key.created", ib.key_id), 1);
    CHECK_INT(key_add(i, NULL, "night batch", ROLE_USER, a + 0, NULL, &e), ERR_EXISTS);
    CHECK_HAS(e.msg, ib.key_id);
    CHECK_STR(a, ""); /* nothing to show */
    CHECK_INT(records(i, "key.created", NULL), 2);
    island_close(i);
    i = open_ok(ISLAND_WRITE);
    CHECK(i);
    CHECK(works(i, b, "night batch", ROLE_ADMIN));
    CHECK_OK(key_revoke(i, NULL, "night batch", &e), e);
    CHECK(refused(i, b, strlen(b)));
    CHECK_INT(records(i, "key.revoked", ib.key_id), 1);
    CHECK_INT(key_revoke(i, NULL, "night batch", &e), ERR_NOT_FOUND);
    CHECK_INT(key_revoke(i, NULL, ib.key_id, &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "revoked already");
    CHECK_OK(key_revoke(i, NULL, ia.key_id, &e), e);
    CHECK_OK(key_add(i, NULL, "night batch", ROLE_OPERATOR, a, NULL, &e), e); /* the name is free again */
    island_close(i);
    i = open_ok(ISLAND_WRITE);
    CHECK(i);
    CHECK(refused(i, b, strlen(b)));
    CHECK(works(i, a, "night batch", ROLE_OPERATOR));
    CHECK_INT(records(i, "key.revoked", NULL), 2);
    cJSON *list = NULL;
    CHECK_OK(key_list(i, &list, &e), e);
    char *text = cJSON_PrintUnformatted(list);
    CHECK(text && !strstr(text, a + 17)); /* no secret */
    CHECK_HAS(text, "\"role\":\"operator\"");
    CHECK_HAS(text, "\"revoked\":null");
    CHECK_INT(cJSON_GetArraySize(json_get(list, "keys")), 3);
    cJSON_free(text);
    cJSON_Delete(list);
    island_close(i);
}

TEST(key_names) {
    static const char *const bad[] = {"",
                                      " a",
                                      "a ",
                                      "a/b",
                                      "a\nb",
                                      "\xc3\xa9",
                                      "k_abcdefghijkl",
                                      "12345678901234567890123456789012345678901234567890123456789012345"};
    static const char *const good[] = {"a", "A.b_c@d-e f",
                                       "1234567890123456789012345678901234567890123456789012345678901234"};
    island *i = open_ok(ISLAND_WRITE);
    CHECK(i);
    err e = {0};
    char text[KEY_TEXT_MAX];
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        CHECK_INT(key_add(i, NULL, bad[k], ROLE_USER, text, NULL, &e), ERR_INVALID);
        CHECK_HAS(e.msg, "key name");
    }
    for (size_t k = 0; k < sizeof good / sizeof good[0]; k++) {
        CHECK_OK(key_add(i, NULL, good[k], ROLE_USER, text, NULL, &e), e);
        CHECK(works(i, text, good[k], ROLE_USER));
    }
    CHECK_INT(key_revoke(i, NULL, "nobody", &e), ERR_NOT_FOUND);
    CHECK_INT(key_revoke(i, NULL, "", &e), ERR_NOT_FOUND);
    island_close(i);
}

/* Every change of one character, every length, and things that are no keys at all. */
TEST(key_wrong_texts) {
    island *i = open_ok(ISLAND_WRITE);
    CHECK(i);
    err e = {0};
    char text[KEY_TEXT_MAX], bad[KEY_TEXT_MAX];
    CHECK(refused(i, "pld_", 4)); /* with no key at all */
    CHECK_OK(key_add(i, NULL, "a", ROLE_USER, text, NULL, &e), e);
    for (size_t n = 0; n < strlen(text); n++) {
        CHECK(refused(i, text, n));
        memcpy(bad, text, sizeof bad);
        bad[n] = bad[n] == 'a' ? 'b' : 'a';
        CHECK(refused(i, bad, strlen(bad)));
        bad[n] = 0;
        CHECK(refused(i, bad, strlen(text)));
        bad[n] = (char)0xff;
        CHECK(refused(i, bad, strlen(text)));
    }
    memcpy(bad, text, sizeof bad);
    strcat(bad, "a");
    CHECK(refused(i, bad, strlen(bad)));
    size_t long_len = 1 << 20;
    char *longer = mem_alloc(long_len);
    CHECK(longer);
    memset(longer, 'a', long_len);
    memcpy(longer, text, strlen(text));
    CHECK(refused(i, longer, long_len));
    mem_free(longer);
    CHECK(works(i, text, "a", ROLE_USER));
    island_close(i);
}

/* Whoever can write the database, but has not keys/api.key, gains nothing. */
TEST(key_rows_changed_from_outside) {
    static const char *const edits[] = {"UPDATE api_keys SET role = 'admin'", "UPDATE api_keys SET name = 'root'",
                                        "UPDATE api_keys SET id = 'k_aaaaaaaaaaaa'",
                                        "UPDATE api_keys SET mac = zeroblob(32)"};
    static const char *const broken[] = {"UPDATE api_keys SET role = 'god'", "UPDATE api_keys SET mac = x'00'",
                                         "UPDATE api_keys SET name = hex(zeroblob(100))"};
    err e = {0};
    for (size_t k = 0; k < sizeof edits / sizeof edits[0]; k++) {
        char text[KEY_TEXT_MAX];
        island *i = open_ok(ISLAND_WRITE);
        CHECK(i);
        CHECK_OK(key_add(i, NULL, "a", ROLE_USER, text, NULL, &e), e);
        island_close(i);
        CHECK(edit(edits[k]));
        i = open_ok(ISLAND_WRITE);
        CHECK(i);
        CHECK(refused(i, text, strlen(text)));
        memcpy(text + 4, "aaaaaaaaaaaa", 12); /* the renamed row, with the right secret */
        CHECK(refused(i, text, strlen(text)));
        island_close(i);
        CHECK(edit("DELETE FROM api_keys"));
    }
    for (size_t k = 0; k < sizeof broken / sizeof broken[0]; k++) {
        char text[KEY_TEXT_MAX];
        island *i = open_ok(ISLAND_WRITE);
        CHECK(i);
        CHECK_OK(key_add(i, NULL, "a", ROLE_USER, text, NULL, &e), e);
        island_close(i);
        CHECK(edit(broken[k]));
        CHECK_INT(island_open(&i, isl, ISLAND_WRITE, &e), ERR_CORRUPT);
        CHECK_HAS(e.msg, "malformed row");
        CHECK(edit("DELETE FROM api_keys"));
    }
}

/* What a crash leaves between the steps of keys.c, put there by hand. */
TEST(key_crashes) {
    err e = {0};
    char text[KEY_TEXT_MAX];
    identity who;
    island *i = open_ok(ISLAND_WRITE);
    CHECK(i);
    CHECK_OK(key_add(i, NULL, "a", ROLE_USER, text, &who, &e), e);
    CHECK_OK(key_revoke(i, NULL, "a", &e), e);
    island_close(i);
    /* revoked, killed before the record (or before its note) */
    CHECK(edit("UPDATE api_keys SET revoked_seq = NULL"));
    i = open_ok(ISLAND_READ); /* a reader cannot mend it, and does not mind */
    CHECK(i);
    CHECK_INT(records(i, "key.revoked", who.key_id), 1);
    island_close(i);
    for (int round = 0; round < 2; round++) {
        i = open_ok(ISLAND_WRITE);
        CHECK(i);
        CHECK(refused(i, text, strlen(text)));
        CHECK_INT(records(i, "key.revoked", who.key_id), 2); /* appended once more, then never again */
        island_close(i);
    }
    /* recorded, killed before the row */
    i = open_ok(ISLAND_WRITE);
    CHECK(i);
    CHECK_OK(key_add(i, NULL, "b", ROLE_USER, text, &who, &e), e);
    island_close(i);
    CHECK(edit("DELETE FROM api_keys WHERE name = 'b'"));
    i = open_ok(ISLAND_WRITE);
    CHECK(i);
    CHECK(refused(i, text, strlen(text)));
    CHECK_INT(records(i, "key.created", who.key_id), 1);
    island_close(i);
}

/* Adds and revokes until it is killed; tells after each step what was acknowledged: "+TEXT" or "-TEXT". */
static void change_until_killed(int to) {
    island *i = open_ok(ISLAND_WRITE);
    for (int n = 0; i; n++) {
        char said[KEY_TEXT_MAX + 1], name[32];
        identity who;
        err e = {0};
        snprintf(name, sizeof name, "%d %d", (int)getpid(), n);
        said[0] = '+';
        if (key_add(i, NULL, name, ROLE_USER, said + 1, &who, &e) != ERR_OK || write(to, said, 61) != 61) break;
        said[0] = '-';
        if (n % 2 && (key_revoke(i, NULL, who.key_id, &e) != ERR_OK || write(to, said, 61) != 61)) break;
    }
    _exit(1);
}

/* kill -9 at any moment: what was acknowledged holds, and every key in the table has its records. */
TEST(key_kill) {
    for (int round = 0; round < 12; round++) {
        int p[2], status;
        CHECK(pipe(p) == 0);
        fflush(NULL);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            close(p[0]);
            change_until_killed(p[1]);
        }
        close(p[1]);
        usleep((useconds_t)(15000 + round * 3571));
        CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
        island *i = open_ok(ISLAND_WRITE);
        CHECK(i);
        char said[61], last[61] = "";
        while (read(p[0], said, sizeof said) == (ssize_t)sizeof said) {
            identity who;
            bool ok = key_check(i, said + 1, 60, &who, NULL) == ERR_OK;
            if (last[0] && said[0] == '-' && memcmp(said + 1, last + 1, 60) == 0)
                last[0] = 0;
            else if (last[0]) {
                /* the key before this one was added and not revoked */
                CHECK(key_check(i, last + 1, 60, &who, NULL) == ERR_OK);
            }
            if (said[0] == '-')
                CHECK(!ok);
            else
                memcpy(last, said, sizeof last);
        }
        close(p[0]);
        cJSON *list;
        err e = {0};
        CHECK_OK(key_list(i, &list, &e), e);
        int n_revoked = 0, n_keys = cJSON_GetArraySize(json_get(list, "keys"));
        for (int k = 0; k < n_keys; k++)
            n_revoked += json_get(cJSON_GetArrayItem(json_get(list, "keys"), k), "revoked") != NULL;
        CHECK(records(i, "key.created", NULL) >= n_keys);
        CHECK(records(i, "key.revoked", NULL) >= n_revoked);
        cJSON_Delete(list);
        island_close(i);
    }
}

/* Every allocation fails in turn while keys come and go. A key that was reported works and has its record; one that
 * was not reported left no working key; one that was revoked, or said to be, stays so. */
TEST(key_allocation_failures) {
    err e = {0};
    int fails = 0;
    island *i = open_ok(ISLAND_WRITE);
    CHECK(i);
    for (int n = 0; n < 60; n++) {
        char text[KEY_TEXT_MAX], name[16];
        identity who;
        snprintf(name, sizeof name, "key %d", n);
        mem_fail_after(n);
        err_code code = key_add(i, NULL, name, ROLE_USER, text, &who, &e);
        mem_fail_after(-1);
        if (code != ERR_OK) {
            fails++;
            CHECK_STR(text, "");
            CHECK_INT(key_revoke(i, NULL, name, &e), ERR_NOT_FOUND);
            continue;
        }
        CHECK(works(i, text, name, ROLE_USER));
        CHECK_INT(records(i, "key.created", who.key_id), 1);
        mem_fail_after(n % 20);
        code = key_revoke(i, NULL, name, &e);
        mem_fail_after(-1);
        bool dead = code == ERR_OK || strstr(e.msg, "is revoked, but its record");
        CHECK(dead ? refused(i, text, strlen(text)) : works(i, text, name, ROLE_USER));
        fails += code != ERR_OK;
        island_close(i);
        i = open_ok(ISLAND_WRITE);
        CHECK(i);
        CHECK(dead ? refused(i, text, strlen(text)) : works(i, text, name, ROLE_USER));
        if (dead) CHECK(records(i, "key.revoked", who.key_id) >= 1);
    }
    CHECK(fails > 10);
    island_close(i);
}

/* Checks run beside additions and revocations (the thread sanitizer's case). */
static island *shared;
static char steady[KEY_TEXT_MAX];
static void *checker(void *arg) {
    intptr_t bad = 0;
    for (int k = 0; k < 2000; k++) bad += !works(shared, steady, "steady", ROLE_OPERATOR);
    return (void *)bad;
}
static void *changer(void *arg) {
    intptr_t bad = 0;
    for (int k = 0; k < 10; k++) {
        char text[KEY_TEXT_MAX], name[32];
        err e = {0};
        snprintf(name, sizeof name, "%s %d", (const char *)arg, k);
        bad += key_add(shared, NULL, name, ROLE_USER, text, NULL, &e) != ERR_OK ||
               !works(shared, text, name, ROLE_USER) || key_revoke(shared, NULL, name, &e) != ERR_OK ||
               !refused(shared, text, strlen(text));
    }
    return (void *)bad;
}

TEST(key_threads) {
    static char one[] = "one", two[] = "two";
    err e = {0};
    shared = open_ok(ISLAND_WRITE);
    CHECK(shared);
    CHECK_OK(key_add(shared, NULL, "steady", ROLE_OPERATOR, steady, NULL, &e), e);
    pthread_t t[4];
    CHECK(pthread_create(&t[0], NULL, checker, NULL) == 0 && pthread_create(&t[1], NULL, checker, NULL) == 0 &&
          pthread_create(&t[2], NULL, changer, one) == 0 && pthread_create(&t[3], NULL, changer, two) == 0);
    intptr_t bad = 0;
    for (int k = 0; k < 4; k++) {
        void *r;
        pthread_join(t[k], &r);
        bad += (intptr_t)r;
    }
    CHECK_INT(bad, 0);
    CHECK_INT(records(shared, "key.created", NULL), 21);
    CHECK_INT(records(shared, "key.revoked", NULL), 20);
    island_close(shared);
}

TEST(key_reading_only) {
    island *i = open_ok(ISLAND_WRITE);
    CHECK(i);
    err e = {0};
    char text[KEY_TEXT_MAX], other[KEY_TEXT_MAX];
    CHECK_OK(key_add(i, NULL, "a", ROLE_USER, text, NULL, &e), e);
    island_close(i);
    i = open_ok(ISLAND_READ);
    CHECK(i);
    CHECK_INT(key_add(i, NULL, "b", ROLE_USER, other, NULL, &e), ERR_DENIED);
    CHECK_INT(key_revoke(i, NULL, "a", &e), ERR_DENIED);
    cJSON *list;
    CHECK_OK(key_list(i, &list, &e), e);
    CHECK_INT(cJSON_GetArraySize(json_get(list, "keys")), 1);
    cJSON_Delete(list);
    island_close(i);
}

static void run(const char *name, void (*fn)(void)) {
    err e = {0};
    if (!test_tmpdir(dir)) abort();
    snprintf(isl, sizeof isl, "%s/isl", dir);
    if (island_init(isl, NULL, &e) != ERR_OK) fprintf(stderr, "init: %s\n", e.msg);
    test_run(name, fn);
    test_rm(dir);
}
#undef RUN
#define RUN(name) run(#name, test_case_##name)

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(key_roles);
    RUN(key_life);
    RUN(key_names);
    RUN(key_wrong_texts);
    RUN(key_rows_changed_from_outside);
    RUN(key_crashes);
    RUN(key_kill);
    RUN(key_allocation_failures);
    RUN(key_threads);
    RUN(key_reading_only);
    return test_end();
}
