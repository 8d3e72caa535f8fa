/* Projects and what keys are granted. What breaks these: a floor that gets lower, a limit or list of models that is
 * forgotten or edited from outside, a project that goes while keys belong to it, a change without its record. */
#include "world.h"

static bool floor_is(island *i, const char *text, const char *project, const char *floor) {
    identity who;
    err e = {0};
    if (key_check(i, text, strlen(text), &who, &e) != ERR_OK) return false;
    if (strcmp(who.project, project) != 0 || strcmp(who.floor, floor) != 0)
        fprintf(stderr, "project \"%s\" floor \"%s\"\n", who.project, who.floor);
    return strcmp(who.project, project) == 0 && strcmp(who.floor, floor) == 0;
}

TEST(project_names) {
    static const char *const bad[] = {"",   "A",   "a b",      ".a",  "-a",
                                      "_a", "a/b", "\xc3\xa9", "a\n", "12345678901234567890123456789012345678901"};
    static const char *const good[] = {"a", "0", "care.team_1-x", "1234567890123456789012345678901234567890"};
    island *i = open_ok();
    CHECK(i);
    err e = {0};
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        CHECK_INT(project_add(i, NULL, bad[k], &(grant){0}, &e), ERR_INVALID);
        CHECK_HAS(e.msg, "project name");
    }
    for (size_t k = 0; k < sizeof good / sizeof good[0]; k++)
        CHECK_OK(project_add(i, NULL, good[k], &(grant){0}, &e), e);
    CHECK_INT(project_add(i, NULL, "a", &(grant){0}, &e), ERR_EXISTS);
    CHECK_INT(project_add(i, NULL, "b", &(grant){.project = "a"}, &e), ERR_INVALID);
    CHECK_INT(project_change(i, NULL, "nobody", &GRANT_KEEP, &e), ERR_NOT_FOUND);
    CHECK_INT(project_remove(i, NULL, "nobody", &e), ERR_NOT_FOUND);
    island_close(i);
}

TEST(project_life) {
    island *i = open_ok();
    CHECK(i);
    err e = {0};
    char text[KEY_TEXT_MAX];
    identity by = {.key_id = "k_byadmin00000"}, who;
    grant g = {.floor = "personal,  internal", .models = "qwen3 , mistral-*", .limits = {[LIMIT_EUR_DAY] = 2500000}};
    CHECK_OK(project_add(i, &by, "care", &g, &e), e);
    CHECK_INT(records(i, "project.created", "\"limits\":{\"eur_day\":2.5}"), 1);
    CHECK_INT(records(i, "project.created", "\"by\":\"k_byadmin00000\""), 1);
    CHECK_INT(records(i, "project.created", "\"models\":[\"qwen3\",\"mistral-*\"]"), 1);
    CHECK_INT(key_add_with(i, NULL, "x", ROLE_USER, &(grant){.project = "nobody"}, text, &who, &e), ERR_NOT_FOUND);
    CHECK_OK(key_add_with(i, NULL, "alice", ROLE_USER, &(grant){.project = "care"}, text, &who, &e), e);
    CHECK_STR(who.project, "care");
    CHECK_STR(who.floor, "internal, personal");
    CHECK_INT(records(i, "key.created", "\"project\":\"care\""), 1);
    CHECK_INT(project_remove(i, NULL, "care", &e), ERR_EXISTS);
    CHECK_HAS(e.msg, "1 key;");
    cJSON *o;
    CHECK_OK(project_show(i, "care", &o, &e), e);
    CHECK(json_has(o, "\"name\":\"alice\"") && json_has(o, "\"floor\":\"internal, personal\""));
    CHECK(json_has(o, "\"used\":{\"tokens_day\":0"));
    cJSON_Delete(o);
    g = GRANT_KEEP;
    g.floor = "secret";
    CHECK_OK(project_change(i, NULL, "care", &g, &e), e);
    CHECK_INT(records(i, "project.changed", "\"floor\":\"secret\""), 1);
    CHECK(floor_is(i, text, "care", "secret")); /* at once */
    island_close(i);
    i = open_ok();
    CHECK(i);
    CHECK(floor_is(i, text, "care", "secret")); /* and after a restart */
    CHECK_OK(project_list(i, &o, &e), e);
    CHECK(json_has(o, "\"models\":[\"qwen3\",\"mistral-*\"]") && json_has(o, "\"eur_day\":2.5"));
    cJSON_Delete(o);
    g = GRANT_KEEP;
    g.project = "";
    CHECK_OK(key_change(i, NULL, "alice", &g, &e), e);
    CHECK_INT(records(i, "key.changed", who.key_id), 1);
    CHECK(floor_is(i, text, "", ""));
    CHECK_OK(project_remove(i, NULL, "care", &e), e);
    CHECK_INT(records(i, "project.removed", "care"), 1);
    CHECK_INT(project_show(i, "care", &o, &e), ERR_NOT_FOUND);
    island_close(i);
    i = open_ok();
    CHECK(i);
    CHECK(floor_is(i, text, "", ""));
    island_close(i);
}

TEST(grant_floors) {
    static const char levels[] = "public, internal, confidential, secret";
    static const struct {
        const char *a, *b, *join;
    } cases[] = {
        {"", "", ""},
        {"internal", "", "internal"},
        {"", "personal", "personal"},
        {"secret", "internal", "secret"},
        {"internal, personal", "confidential, credential", "confidential, personal, credential"},
        {"credential", "special-category, personal", "personal, special-category, credential"},
        {"public", "public", "public"},
        {"gone", "secret", "gone"}, /* a word that is no level any more: whoever reads it must fail closed */
        {"secret", "internal, gone", "internal, gone"},
    };
    char out[FLOOR_MAX + 1];
    err e = {0};
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        floor_join(out, levels, cases[k].a, cases[k].b);
        CHECK_STR(out, cases[k].join);
        if (!strstr(cases[k].join, "gone")) {
            floor_join(out, levels, cases[k].b, cases[k].a);
            CHECK_STR(out, cases[k].join);
        }
    }
    CHECK_OK(floor_check(out, levels, "  ", &e), e);
    CHECK_STR(out, "");
    static const char *const bad[] = {"Internal",   "internal, secret",  "internal,", ",",
                                      "top secret", "internal personal", "interna"};
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        CHECK_INT(floor_check(out, levels, bad[k], &e), ERR_INVALID);
        CHECK_HAS(e.msg, levels);
    }
    char longer[200];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    CHECK_INT(floor_check(out, levels, longer, &e), ERR_INVALID);
}

TEST(grant_models) {
    CHECK(grant_has_model("", "anything"));
    CHECK(grant_has_model("a, b", "a") && grant_has_model("a, b", "b") && !grant_has_model("a, b", "c"));
    CHECK(!grant_has_model("a, b", "") && !grant_has_model("ab", "a") && !grant_has_model("a", "ab"));
    CHECK(grant_has_model("mistral-*", "mistral-large") && grant_has_model("mistral-*", "mistral-"));
    CHECK(!grant_has_model("mistral-*", "mistral") && !grant_has_model("mistral-*", "x-mistral-1"));
    CHECK(grant_has_model("*", "anything") && grant_has_model("a, *", "b"));
    island *i = open_ok();
    CHECK(i);
    err e = {0};
    static const char *const bad[] = {"a b", "a*b", "**", "a,,b", "a,", "\xc3\xa9", "a;b"};
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        CHECK_INT(project_add(i, NULL, "p", &(grant){.models = bad[k]}, &e), ERR_INVALID);
        CHECK_HAS(e.msg, "allowed models");
    }
    char many[2000] = "m";
    for (int k = 0; k < 70; k++) strcat(many, ",m");
    CHECK_INT(project_add(i, NULL, "p", &(grant){.models = many}, &e), ERR_TOO_LARGE);
    many[0] = 0;
    for (int k = 0; k < 20; k++) strcat(many, "1234567890123456789012345678901234567890123456789012345678901234,");
    many[strlen(many) - 1] = 0;
    CHECK_INT(project_add(i, NULL, "p", &(grant){.models = many}, &e), ERR_TOO_LARGE);
    CHECK_INT(project_add(i, NULL, "p", &(grant){.limits = {LIMIT_MAX + 1}}, &e), ERR_INVALID);
    CHECK_INT(records(i, "project.created", NULL), 0);
    island_close(i);
}

/* A level that island.yaml no longer has: the floor stays what it says. */
TEST(grant_level_removed) {
    char text[KEY_TEXT_MAX], path[400];
    err e = {0};
    island *i = open_ok();
    CHECK(i);
    CHECK_OK(key_add_with(i, NULL, "a", ROLE_USER, &(grant){.floor = "secret"}, text, NULL, &e), e);
    island_close(i);
    snprintf(path, sizeof path, "%s/island.yaml", isl);
    static const char yaml[] = "labels:\n  levels: public, internal\n";
    CHECK_OK(file_write_atomic(path, yaml, sizeof yaml - 1, 0600, &e), e);
    i = open_ok();
    CHECK(i);
    CHECK(floor_is(i, text, "", "secret"));
    island_close(i);
}

static bool works(const char *text) {
    island *i = open_ok();
    identity who;
    bool ok = i && key_check(i, text, strlen(text), &who, NULL) == ERR_OK;
    island_close(i);
    return ok;
}

/* Whoever can write the database, but has not keys/api.key, gains nothing. */
TEST(grant_rows_changed_from_outside) {
    static const char *const edits[] = {
        "UPDATE grants SET floor = ''",
        "UPDATE grants SET models = ''",
        "UPDATE grants SET requests_minute = 0",
        "UPDATE grants SET eur_month = 1",
        "UPDATE grants SET project = 'other' WHERE owner LIKE 'k_%'",
        "UPDATE grants SET mac = zeroblob(32)",
        "UPDATE grants SET mac = x''",
        "DELETE FROM grants",
        "DELETE FROM grants WHERE owner LIKE 'k%'",
        "DELETE FROM grants WHERE owner LIKE 'p:%'",
        "DELETE FROM projects",
        "UPDATE api_keys SET form = 1",
        "DELETE FROM grants; UPDATE api_keys SET form = 1",
    };
    grant p = {.floor = "confidential", .limits = {[LIMIT_EUR_MONTH] = 5}};
    grant k = {.floor = "internal", .project = "care", .models = "a", .limits = {7}};
    for (size_t n = 0; n < sizeof edits / sizeof edits[0]; n++) {
        char text[KEY_TEXT_MAX];
        err e = {0};
        island *i = open_ok();
        CHECK(i);
        CHECK_OK(project_add(i, NULL, "care", &p, &e), e);
        CHECK_OK(project_add(i, NULL, "other", &(grant){0}, &e), e);
        CHECK_OK(key_add_with(i, NULL, "a", ROLE_USER, &k, text, NULL, &e), e);
        island_close(i);
        CHECK(works(text));
        CHECK(edit(edits[n]));
        if (works(text)) FAIL("the key works after: %s", edits[n]);
        island *r = NULL;
        CHECK_OK(island_open(&r, isl, ISLAND_READ, &e), e); /* a reader does not mind */
        cJSON *o = NULL;
        CHECK_OK(project_list(r, &o, &e), e);
        cJSON_Delete(o);
        CHECK_OK(key_list(r, &o, &e), e);
        cJSON_Delete(o);
        island_close(r);
        CHECK(edit("DELETE FROM grants; DELETE FROM projects; DELETE FROM api_keys"));
    }
}

/* A key of an island from before there were grants works on, and can be given one. */
TEST(grant_migration) {
    char text[KEY_TEXT_MAX];
    err e = {0};
    identity who;
    island *i = open_ok();
    CHECK(i);
    CHECK_OK(key_add(i, NULL, "old", ROLE_USER, text, &who, &e), e);
    /* as version 1 stored it */
    struct {
        char domain[16], id[KEY_ID_MAX], role[16], name[KEY_NAME_MAX + 1], secret[43];
    } m;
    memset(&m, 0, sizeof m);
    memcpy(m.domain, "polder api key 1", 16);
    memcpy(m.id, who.key_id, strlen(who.key_id));
    memcpy(m.role, "user", 4);
    memcpy(m.name, "old", 3);
    memcpy(m.secret, text + 17, 43);
    uint8_t mac[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1], sql[600];
    hmac_sha256(mac, i->api_key, API_KEY_LEN, &m, sizeof m);
    hex_encode(hex, mac, SHA256_LEN);
    island_close(i);
    snprintf(sql, sizeof sql,
             "DROP TABLE grants; DROP TABLE projects; DROP TABLE usage; ALTER TABLE api_keys DROP COLUMN form;"
             "DELETE FROM store_migration WHERE room = 'island' AND version = 2; UPDATE api_keys SET mac = x'%s'",
             hex);
    CHECK(edit(sql));
    i = open_ok();
    CHECK(i);
    CHECK(floor_is(i, text, "", ""));
    grant g = GRANT_KEEP;
    g.floor = "confidential";
    CHECK_OK(key_change(i, NULL, "old", &g, &e), e);
    CHECK(floor_is(i, text, "", "confidential"));
    cJSON *o;
    CHECK_OK(key_list(i, &o, &e), e);
    CHECK(json_has(o, "\"floor\":\"confidential\""));
    cJSON_Delete(o);
    island_close(i);
    i = open_ok();
    CHECK(i);
    CHECK(floor_is(i, text, "", "confidential"));
    island_close(i);
}

/* Every allocation fails in turn: what was reported holds, what failed changed nothing that works. */
TEST(grant_allocation_failures) {
    err e = {0};
    int fails = 0;
    char text[KEY_TEXT_MAX];
    island *i = open_ok();
    CHECK(i);
    CHECK_OK(key_add(i, NULL, "k", ROLE_USER, text, NULL, &e), e);
    for (int n = 0; n < 80; n++) {
        char name[16];
        grant g = {.floor = "internal", .models = "a, b*", .limits = {5, 6, 7, 8, 9, 10}};
        snprintf(name, sizeof name, "p%d", n);
        mem_fail_after(n);
        err_code code = project_add(i, NULL, name, &g, &e);
        mem_fail_after(-1);
        cJSON *o = NULL;
        if (code != ERR_OK) {
            fails++;
            CHECK_INT(project_show(i, name, &o, &e), ERR_NOT_FOUND);
            continue;
        }
        CHECK_INT(records(i, "project.created", name), 1);
        mem_fail_after(n % 30);
        code = project_show(i, name, &o, &e);
        mem_fail_after(-1);
        fails += code != ERR_OK;
        cJSON_Delete(o);
        g = GRANT_KEEP;
        g.project = name;
        mem_fail_after(n % 30);
        code = key_change(i, NULL, "k", &g, &e);
        mem_fail_after(-1);
        CHECK(floor_is(i, text, code == ERR_OK ? name : "", code == ERR_OK ? "internal" : ""));
        g.project = "";
        CHECK_OK(key_change(i, NULL, "k", &g, &e), e);
    }
    CHECK(fails > 10);
    island_close(i);
}

TEST(grant_reading_only) {
    err e = {0};
    char text[KEY_TEXT_MAX];
    island *i = open_ok();
    CHECK(i);
    CHECK_OK(project_add(i, NULL, "care", &(grant){.floor = "internal"}, &e), e);
    island_close(i);
    CHECK_OK(island_open(&i, isl, ISLAND_READ, &e), e);
    CHECK_INT(project_add(i, NULL, "b", &(grant){0}, &e), ERR_DENIED);
    CHECK_INT(project_change(i, NULL, "care", &GRANT_KEEP, &e), ERR_DENIED);
    CHECK_INT(project_remove(i, NULL, "care", &e), ERR_DENIED);
    CHECK_INT(key_change(i, NULL, "a", &GRANT_KEEP, &e), ERR_DENIED);
    CHECK_INT(key_add_with(i, NULL, "a", ROLE_USER, NULL, text, NULL, &e), ERR_DENIED);
    quota_hold h;
    identity who = {.key_id = "k_x"};
    CHECK_INT(quota_enter(i, &who, "m", &h, &e), ERR_DENIED);
    quota_leave(i, &h, "engine", 1, 1, 0);
    cJSON *o;
    CHECK_OK(project_show(i, "care", &o, &e), e);
    CHECK(json_has(o, "internal"));
    cJSON_Delete(o);
    CHECK_OK(usage_report(i, NULL, NULL, NULL, &o, &e), e);
    cJSON_Delete(o);
    island_close(i);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(project_names);
    RUN(project_life);
    RUN(grant_floors);
    RUN(grant_models);
    RUN(grant_level_removed);
    RUN(grant_rows_changed_from_outside);
    RUN(grant_migration);
    RUN(grant_allocation_failures);
    RUN(grant_reading_only);
    return test_end();
}
