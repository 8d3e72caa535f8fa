/* Limits, budgets, usage. What breaks these: one request more than a minute allows, a budget that a restart forgets, a
 * wait that is too short, a count that is lost or doubled, a name that a caller makes up and that grows a table. */
#include "world.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#define DAY_MS INT64_C(86400000)
#define NOV22  INT64_C(1795305600000) /* 2026-11-22T00:00:00Z */
#define AT(s)  ((quota_time){.mono_s = 1000 + (s), .unix_ms = NOV22 + (int64_t)(s)*1000})

static const identity key_a = {.key_id = "k_aaaaaaaaaaaa", .name = "alice"};

/* A key with a grant under a known id, straight into the meters. */
static bool meter_for(island *i, const char *owner, const grant *g) {
    grant_row row;
    meter *m;
    err e = {0};
    if (grant_make(&row, i, owner, NULL, g, &e) != ERR_OK || meter_new(&m, &row, &e) != ERR_OK) return false;
    meter_install(i, m);
    return true;
}

static err_code enter(island *i, const identity *who, quota_time t, err *e) {
    quota_hold h;
    memset(e, 0, sizeof *e);
    return quota_enter_at(i, who, "m", &h, t, e);
}

static err_code spend(island *i, const identity *who, quota_time t, uint64_t tokens, double eur, err *e) {
    quota_hold h;
    memset(e, 0, sizeof *e);
    err_code code = quota_enter_at(i, who, "m", &h, t, e);
    if (code == ERR_OK) quota_leave_at(i, &h, "engine", tokens, 0, eur, t);
    return code;
}

TEST(utc_calendar) {
    char date[16];
    int32_t day;
    static const struct {
        int32_t day;
        const char *date;
    } cases[] = {{0, "1970-01-01"},     {58, "1970-02-28"},    {59, "1970-03-01"},    {11016, "2000-02-29"},
                 {20779, "2026-11-22"}, {19782, "2024-02-29"}, {47540, "2100-02-28"}, {47541, "2100-03-01"}};
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        utc_date(date, cases[k].day);
        CHECK_STR(date, cases[k].date);
        CHECK(utc_parse(&day, date) && day == cases[k].day);
    }
    for (int32_t d = 0, month = -1; d < 60000; d++) { /* every day: back and forth, months begin on their first */
        utc_date(date, d);
        CHECK(utc_parse(&day, date) && day == d);
        CHECK(utc_month_first(utc_month(d)) <= d && utc_month_first(utc_month(d) + 1) > d);
        if (utc_month(d) != month) CHECK(strcmp(date + 8, "01") == 0);
        month = utc_month(d);
    }
    static const char *const bad[] = {"",         "2026-11-31", "2026-13-01", "2026-00-10",
                                      "2026-1-1", "1969-12-31", "2026-02-29", "2026/11/22",
                                      "20261122", "2026-11-2x", "2026-11-220"};
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) CHECK(!utc_parse(&day, bad[k]));
}

TEST(requests_a_minute) {
    island *i = open_ok();
    CHECK(i);
    err e;
    CHECK(meter_for(i, key_a.key_id, &(grant){.limits = {[LIMIT_REQUESTS_MINUTE] = 3}}));
    CHECK_OK(enter(i, &key_a, AT(0), &e), e);
    CHECK_OK(enter(i, &key_a, AT(10), &e), e);
    CHECK_OK(enter(i, &key_a, AT(20), &e), e);
    CHECK_INT(enter(i, &key_a, AT(20), &e), ERR_BUSY);
    CHECK_INT(e.retry_after_s, 41);
    CHECK_HAS(e.msg, "the key \"alice\" has used up its 3 requests a minute; try again in 41 s");
    CHECK_INT(enter(i, &key_a, AT(60), &e), ERR_BUSY); /* what was refused did not count */
    CHECK_INT(e.retry_after_s, 1);
    CHECK_OK(enter(i, &key_a, AT(61), &e), e);
    CHECK_INT(enter(i, &key_a, AT(61), &e), ERR_BUSY);
    CHECK_INT(e.retry_after_s, 10);
    CHECK_INT(enter(i, &key_a, AT(5), &e), ERR_BUSY); /* a clock that goes back opens nothing */
    CHECK_OK(enter(i, &key_a, AT(100000), &e), e);
    CHECK_OK(enter(i, &key_a, AT(100000), &e), e);
    CHECK_OK(enter(i, &key_a, AT(100000), &e), e);
    CHECK_INT(enter(i, &key_a, AT(100000), &e), ERR_BUSY);
    CHECK_INT(e.retry_after_s, 61);
    identity other = {.key_id = "k_bbbbbbbbbbbb"};
    for (int k = 0; k < 10; k++) CHECK_OK(enter(i, &other, AT(0), &e), e); /* no limits, no meter */
    island_close(i);
}

/* Any 60 seconds hold at most the limit, and whoever waits as told gets in. */
TEST(requests_a_minute_at_random) {
    island *i = open_ok();
    CHECK(i);
    enum { N = 4000, LIMIT = 7 };
    static int64_t in[N];
    size_t n = 0;
    uint32_t x = 12345;
    int64_t now = 0;
    err e;
    CHECK(meter_for(i, key_a.key_id, &(grant){.limits = {[LIMIT_REQUESTS_MINUTE] = LIMIT}}));
    for (int k = 0; k < N; k++) {
        x = x * 1664525u + 1013904223u;
        now += (x >> 24) % 5 ? (x >> 16) % 12 : 70 * (x >> 30);
        err_code code = enter(i, &key_a, AT(now), &e);
        if (code == ERR_OK) {
            in[n++] = now;
            if (n > LIMIT) CHECK(in[n - 1] - in[n - 1 - LIMIT] > 60);
        } else if (x & 1) {
            CHECK_INT(code, ERR_BUSY);
            int wait = e.retry_after_s;
            CHECK(wait >= 1 && wait <= 61);
            CHECK_INT(enter(i, &key_a, AT(now + wait - 1), &e), ERR_BUSY);
            now += wait;
            CHECK_OK(enter(i, &key_a, AT(now), &e), e);
            in[n++] = now;
            if (n > LIMIT) CHECK(in[n - 1] - in[n - 1 - LIMIT] > 60);
        }
    }
    CHECK(n > 500);
    island_close(i);
}

TEST(tokens_a_minute) {
    island *i = open_ok();
    CHECK(i);
    err e;
    CHECK(meter_for(i, key_a.key_id, &(grant){.limits = {[LIMIT_TOKENS_MINUTE] = 1000}}));
    CHECK_OK(spend(i, &key_a, AT(0), 600, 0, &e), e);
    CHECK_OK(spend(i, &key_a, AT(5), 600, 0, &e), e); /* known only when it is over */
    CHECK_INT(spend(i, &key_a, AT(5), 1, 0, &e), ERR_BUSY);
    CHECK_INT(e.retry_after_s, 56);
    CHECK_HAS(e.msg, "1000 tokens a minute");
    CHECK_OK(spend(i, &key_a, AT(61), 600, 0, &e), e);
    CHECK_INT(spend(i, &key_a, AT(61), 1, 0, &e), ERR_BUSY);
    CHECK_OK(spend(i, &key_a, AT(66), UINT64_MAX, 0, &e), e); /* a provider that lies */
    CHECK_INT(spend(i, &key_a, AT(67), 1, 0, &e), ERR_BUSY);
    CHECK_OK(spend(i, &key_a, AT(200), 1, 0, &e), e);
    island_close(i);
}

TEST(budgets) {
    island *i = open_ok();
    CHECK(i);
    err e;
    grant g = {.limits = {[LIMIT_TOKENS_DAY] = 100, [LIMIT_EUR_MONTH] = 2 * LIMIT_EUR}};
    CHECK(meter_for(i, key_a.key_id, &g));
    CHECK_OK(spend(i, &key_a, AT(0), 99, 0.5, &e), e);
    CHECK_OK(spend(i, &key_a, AT(1), 1, 0.5, &e), e);
    CHECK_INT(enter(i, &key_a, AT(3600), &e), ERR_BUSY);
    CHECK_INT(e.retry_after_s, 23 * 3600);
    CHECK_HAS(e.msg, "100 tokens a day");
    CHECK_OK(spend(i, &key_a, AT(86400), 1, 0.999999, &e), e); /* another day */
    CHECK_OK(spend(i, &key_a, AT(86401), 1, 0.000001, &e), e);
    CHECK_INT(enter(i, &key_a, AT(86402), &e), ERR_BUSY);
    CHECK_INT(e.retry_after_s, 8 * 86400 - 2); /* 1 December */
    CHECK_HAS(e.msg, "2.00 EUR a month");
    CHECK_INT(enter(i, &key_a, AT(9 * 86400 - 1), &e), ERR_BUSY);
    CHECK_INT(e.retry_after_s, 1);
    CHECK_INT(enter(i, &key_a, AT(-40 * 86400), &e), ERR_BUSY); /* a clock that is set back gives nothing anew */
    CHECK_OK(enter(i, &key_a, AT(9 * 86400), &e), e);
    double nothing = 0, broken[] = {-5, nothing / nothing, 1 / nothing};
    for (int k = 0; k < 3; k++) CHECK_OK(spend(i, &key_a, AT(10 * 86400 + k), 1, broken[k], &e), e);
    CHECK_INT(enter(i, &key_a, AT(10 * 86400 + 9), &e), ERR_BUSY); /* infinite cost is much cost */
    island_close(i);
}

/* The project's limits are shared by its keys; the one that keeps out longest is told. */
TEST(key_and_project) {
    island *i = open_ok();
    CHECK(i);
    err e = {0};
    CHECK_OK(project_add(i, NULL, "care", &(grant){.limits = {4}}, &e), e);
    identity a = {.key_id = "k_a", .name = "a", .project = "care"}, b = a;
    snprintf(b.key_id, sizeof b.key_id, "k_b");
    CHECK(meter_for(i, "k_a", &(grant){.project = "care", .limits = {3}}));
    CHECK(meter_for(i, "k_b", &(grant){.project = "care"}));
    CHECK_OK(enter(i, &b, AT(0), &e), e);
    for (int k = 0; k < 3; k++) CHECK_OK(enter(i, &a, AT(30), &e), e);
    CHECK_INT(enter(i, &a, AT(40), &e), ERR_BUSY);
    CHECK_INT(e.retry_after_s, 51); /* the key's: the project has room in 21 s */
    CHECK_HAS(e.msg, "the key \"a\"");
    CHECK_INT(enter(i, &b, AT(40), &e), ERR_BUSY);
    CHECK_INT(e.retry_after_s, 21);
    CHECK_HAS(e.msg, "the project care has used up its 4 requests a minute");
    CHECK_OK(enter(i, &b, AT(61), &e), e);
    grant g = GRANT_KEEP;
    g.limits[LIMIT_REQUESTS_MINUTE] = 5; /* a change keeps what was counted */
    CHECK_OK(project_change(i, NULL, "care", &g, &e), e);
    CHECK_OK(enter(i, &b, AT(61), &e), e);
    CHECK_INT(enter(i, &b, AT(61), &e), ERR_BUSY);
    g.limits[LIMIT_REQUESTS_MINUTE] = 0;
    CHECK_OK(project_change(i, NULL, "care", &g, &e), e);
    for (int k = 0; k < 20; k++) CHECK_OK(enter(i, &b, AT(61), &e), e);
    identity gone = {.key_id = "o_x", .project = "gone"};
    CHECK_INT(enter(i, &gone, AT(0), &e), ERR_DENIED);
    CHECK_HAS(e.msg, "gone");
    island_close(i);
}

TEST(allowed_models) {
    island *i = open_ok();
    CHECK(i);
    err e = {0};
    quota_hold h;
    CHECK_OK(project_add(i, NULL, "care", &(grant){.models = "qwen3, mistral-*"}, &e), e);
    identity a = {.key_id = "k_a", .name = "a", .project = "care"};
    CHECK(meter_for(i, "k_a", &(grant){.project = "care", .models = "mistral-*, gpt"}));
    CHECK_OK(quota_enter_at(i, &a, "mistral-small", &h, AT(0), &e), e);
    quota_leave_at(i, &h, "mistral", 1, 2, 0.25, AT(0));
    quota_leave_at(i, &h, "mistral", 1, 2, 0.25, AT(0)); /* once only */
    CHECK_INT(quota_enter_at(i, &a, "gpt", &h, AT(0), &e), ERR_DENIED);
    CHECK_STR(e.msg, "model \"gpt\": the project care may not use it; it may use qwen3, mistral-*");
    CHECK(!h.held);
    CHECK_INT(quota_enter_at(i, &a, "qwen3", &h, AT(0), &e), ERR_DENIED);
    CHECK_STR(e.msg, "model \"qwen3\": the key \"a\" may not use it; it may use mistral-*, gpt");
    CHECK(quota_allows_model(i, &a, "mistral-x") && !quota_allows_model(i, &a, "gpt"));
    CHECK(!quota_allows_model(i, &a, "qwen3") && quota_allows_model(i, &key_a, "qwen3"));
    cJSON *o;
    CHECK_OK(usage_report(i, "model", "2026-11-22", "2026-11-22", &o, &e), e);
    CHECK(json_has(o, "{\"model\":\"\",\"requests\":0,\"refused\":2,\"tokens_in\":0"));
    CHECK(json_has(o, "{\"model\":\"mistral-small\",\"requests\":1,\"refused\":0,\"tokens_in\":1,\"tokens_out\":2,"
                      "\"cost_eur\":0.25}"));
    cJSON_Delete(o);
    island_close(i);
}

/* A restart forgets no budget; reports are the sums of what was charged, by each side. */
TEST(usage_lasts) {
    island *i = open_ok();
    CHECK(i);
    err e = {0};
    char text[KEY_TEXT_MAX];
    identity who;
    int64_t now = time_unix_ms();
    quota_time t = {.mono_s = 1, .unix_ms = now};
    CHECK_OK(project_add(i, NULL, "care", &(grant){.limits = {[LIMIT_EUR_MONTH] = 1000000}}, &e), e);
    grant g = {.project = "care", .limits = {[LIMIT_TOKENS_DAY] = 50}};
    CHECK_OK(key_add_with(i, NULL, "alice", ROLE_USER, &g, text, &who, &e), e);
    for (int k = 0; k < 3; k++) {
        quota_hold h;
        CHECK_OK(quota_enter_at(i, &who, "m", &h, t, &e), e);
        quota_leave_at(i, &h, k ? "mistral" : NULL, 10, 5, 0.1, t);
    }
    island_close(i);
    i = open_ok();
    CHECK(i);
    quota_hold h;
    CHECK_OK(quota_enter(i, &who, "m", &h, &e), e);
    quota_leave(i, &h, "engine", 5, 0, 0.7);
    CHECK_INT(quota_enter(i, &who, "m", &h, &e), ERR_BUSY); /* 50 tokens, and 1.00 EUR of the project */
    CHECK(strstr(e.msg, "EUR a month") || strstr(e.msg, "tokens a day"));
    CHECK(e.retry_after_s > 0);
    cJSON *o;
    CHECK_OK(usage_flush(i, &e), e);
    CHECK_INT(quota_enter(i, &who, "m", &h, &e), ERR_BUSY); /* added to what is written */
    CHECK_OK(usage_report(i, NULL, NULL, NULL, &o, &e), e);
    CHECK(json_has(
        o, "\"name\":\"alice\",\"requests\":4,\"refused\":2,\"tokens_in\":35,\"tokens_out\":15,\"cost_eur\":1}"));
    CHECK(json_has(o, "\"total\":{\"requests\":4,"));
    cJSON_Delete(o);
    CHECK_OK(usage_report(i, "provider", NULL, NULL, &o, &e), e);
    CHECK(json_has(o, "{\"provider\":\"\",\"requests\":1,\"refused\":2,\"tokens_in\":10"));
    CHECK(json_has(o, "{\"provider\":\"mistral\",\"requests\":2,\"refused\":0,\"tokens_in\":20"));
    cJSON_Delete(o);
    CHECK_OK(usage_report(i, "project", "1990-01-01", "1999-12-31", &o, &e), e);
    CHECK(json_has(o, "\"usage\":[],\"total\":{\"requests\":0"));
    cJSON_Delete(o);
    CHECK_OK(project_show(i, "care", &o, &e), e);
    CHECK(json_has(o, "\"used\":{\"tokens_day\":50,\"tokens_month\":50,\"eur_day\":1,\"eur_month\":1}"));
    cJSON_Delete(o);
    CHECK_INT(usage_report(i, "moon", NULL, NULL, &o, &e), ERR_INVALID);
    CHECK_INT(usage_report(i, NULL, "yesterday", NULL, &o, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "2026-11-22");
    /* the project goes and comes back: its month is not new */
    CHECK_OK(key_revoke(i, NULL, "alice", &e), e);
    CHECK_OK(project_remove(i, NULL, "care", &e), e);
    CHECK_OK(project_add(i, NULL, "care", &(grant){.limits = {[LIMIT_EUR_MONTH] = 1000000}}, &e), e);
    who.key_id[2] = 'X';
    CHECK_INT(quota_enter(i, &who, "m", &h, &e), ERR_BUSY);
    island_close(i);
}

/* More kinds of rows than the table in memory holds, and names that callers make up. */
TEST(usage_many_rows) {
    island *i = open_ok();
    CHECK(i);
    err e = {0};
    enum { N = 10000 };
    for (int k = 0; k < N; k++) {
        quota_hold h;
        identity who = {.key_id = "control"};
        char model[65];
        snprintf(who.key_id, sizeof who.key_id, "o_%d", k);
        snprintf(model, sizeof model, "made-up-%d", k);
        CHECK_OK(quota_enter_at(i, &who, model, &h, AT(0), &e), e);
        quota_leave_at(i, &h, k % 2 ? "engine" : NULL, 1, 1, 0, AT(0));
    }
    cJSON *o;
    CHECK_OK(usage_report(i, "day", "2026-11-22", "2026-11-22", &o, &e), e);
    CHECK(json_has(o, "{\"day\":\"2026-11-22\",\"requests\":10000,\"refused\":0,\"tokens_in\":10000"));
    cJSON_Delete(o);
    CHECK_OK(usage_report(i, "model", "2026-11-22", "2026-11-22", &o, &e), e);
    CHECK_INT(cJSON_GetArraySize(json_get(o, "usage")), N / 2 + 1);
    cJSON_Delete(o);
    island_close(i);
}

/* A store that takes nothing: what was counted waits, and is written once. */
TEST(usage_store_fails) {
    island *i = open_ok();
    CHECK(i);
    err e = {0};
    CHECK(edit("ALTER TABLE usage RENAME TO away"));
    for (int k = 0; k < 5; k++) {
        CHECK_OK(spend(i, &key_a, AT(k), 3, 0, &e), e);
        CHECK(usage_flush(i, &e) != ERR_OK);
    }
    CHECK(edit("ALTER TABLE away RENAME TO usage"));
    CHECK_OK(usage_flush(i, &e), e);
    CHECK_OK(usage_flush(i, &e), e);
    cJSON *o;
    CHECK_OK(usage_report(i, NULL, "2026-11-22", "2026-11-22", &o, &e), e);
    CHECK(json_has(o, "\"requests\":5,\"refused\":0,\"tokens_in\":15"));
    cJSON_Delete(o);
    island_close(i);
}

/* kill -9: what was charged more than a second (and one write) ago is there. */
TEST(usage_kill) {
    int p[2], status;
    err e = {0};
    CHECK(pipe(p) == 0);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        island *i = open_ok();
        for (int k = 0; i && k < 100; k++) spend(i, &key_a, AT(0), 1, 0, &e);
        usleep(2500000);
        for (int k = 0; i && k < 1000; k++) spend(i, &key_a, AT(0), 1, 0, &e);
        if (write(p[1], "x", 1) == 1) pause();
        _exit(1);
    }
    char c;
    close(p[1]);
    CHECK(read(p[0], &c, 1) == 1);
    close(p[0]);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
    island *i = open_ok();
    CHECK(i);
    cJSON *o;
    CHECK_OK(usage_report(i, NULL, "2026-11-22", "2026-11-22", &o, &e), e);
    double n = 0;
    json_get_num(json_get(o, "total"), "requests", 0, 1e9, &n, NULL);
    CHECK(n == 100 || n == 1100 || (n > 100 && n < 1100));
    cJSON_Delete(o);
    island_close(i);
}

static island *shared;
static void *asker(void *arg) {
    intptr_t in = 0;
    identity who = {.key_id = "k_a", .project = "care"};
    for (int k = 0; k < 1000; k++) {
        quota_hold h;
        if (quota_enter_at(shared, &who, "m", &h, AT(0), NULL) != ERR_OK) continue;
        quota_leave_at(shared, &h, "engine", 2, 1, 0.000001, AT(0));
        in++;
    }
    return (void *)in;
}

/* Many at once: exactly as many get in as the limit says, and every one is counted. */
TEST(quota_threads) {
    err e = {0};
    intptr_t in = 0;
    shared = open_ok();
    CHECK(shared);
    CHECK_OK(project_add(shared, NULL, "care", &(grant){.limits = {2500}}, &e), e);
    CHECK(meter_for(shared, "k_a", &(grant){.project = "care"}));
    pthread_t t[4];
    for (int k = 0; k < 4; k++) CHECK(pthread_create(&t[k], NULL, asker, NULL) == 0);
    for (int k = 0; k < 20; k++) { /* beside changes and writes */
        grant g = GRANT_KEEP;
        g.floor = k % 2 ? "internal" : "secret";
        CHECK_OK(project_change(shared, NULL, "care", &g, &e), e);
        CHECK_OK(usage_flush(shared, &e), e);
    }
    for (int k = 0; k < 4; k++) {
        void *r;
        pthread_join(t[k], &r);
        in += (intptr_t)r;
    }
    CHECK_INT(in, 2500);
    cJSON *o;
    CHECK_OK(usage_report(shared, "project", "2026-11-22", "2026-11-22", &o, &e), e);
    CHECK(json_has(o, "{\"project\":\"care\",\"requests\":2500,\"refused\":1500,\"tokens_in\":5000,\"tokens_out\":2500,"
                      "\"cost_eur\":0.0025}"));
    cJSON_Delete(o);
    island_close(shared);
}

/* Printed for who looks; the bound is loose enough for sanitizers and a busy machine. */
TEST(quota_speed) {
    island *i = open_ok();
    CHECK(i);
    err e = {0};
    enum { N = 200000 };
    CHECK_OK(project_add(i, NULL, "care", &(grant){.models = "x, m*", .limits = {N, 0, 0, 0, 1000000000}}, &e), e);
    CHECK(meter_for(i, "k_a", &(grant){.project = "care", .limits = {N, 100000000}}));
    identity who = {.key_id = "k_a", .project = "care"};
    uint64_t from = time_mono_ns();
    for (int k = 0; k < N; k++) {
        quota_hold h;
        CHECK_OK(quota_enter(i, &who, "mistral", &h, &e), e);
        quota_leave(i, &h, "engine", 2, 1, 0.000001);
    }
    double us = (double)(time_mono_ns() - from) / 1e3 / N;
    printf("quota_enter and quota_leave: %.2f us\n", us);
    CHECK(us < 50);
    island_close(i);
}

TEST(quota_metrics) {
    island *i = open_ok();
    CHECK(i);
    err e = {0};
    metric *refused = metric_get(METRIC_COUNTER, "polder_quota_refusals_total", "why=\"requests_minute\"", "");
    double before = metric_value(refused);
    CHECK_OK(project_add(i, NULL, "metered", &(grant){.limits = {1}}, &e), e);
    identity who = {.key_id = "o_abcdefghijkl", .project = "metered"};
    CHECK_OK(spend(i, &who, AT(0), 7, 0, &e), e);
    CHECK_INT(spend(i, &who, AT(0), 7, 0, &e), ERR_BUSY);
    CHECK(metric_value(refused) == before + 1);
    buf b = {.max = 1 << 20};
    metrics_print(&b);
    CHECK_HAS(buf_str(&b), "polder_usage_requests_total{project=\"metered\",key=\"oidc\"} 1\n");
    CHECK_HAS(buf_str(&b), "polder_usage_tokens_total{project=\"metered\",key=\"oidc\",direction=\"in\"} 7\n");
    buf_free(&b);
    /* lines are bounded: 600 projects do not make 600 lines more */
    for (int k = 0; k < 600; k++) {
        char name[16];
        snprintf(name, sizeof name, "p:many%d", k);
        CHECK(meter_for(i, name, &(grant){0}));
    }
    metrics_print(&b);
    CHECK_HAS(buf_str(&b), "key=\"other\"");
    CHECK(!strstr(buf_str(&b), "many599"));
    buf_free(&b);
    island_close(i);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(utc_calendar);
    RUN(requests_a_minute);
    RUN(requests_a_minute_at_random);
    RUN(tokens_a_minute);
    RUN(budgets);
    RUN(key_and_project);
    RUN(allowed_models);
    RUN(usage_lasts);
    RUN(usage_many_rows);
    RUN(usage_store_fails);
    RUN(usage_kill);
    RUN(quota_threads);
    RUN(quota_speed);
    RUN(quota_metrics);
    return test_end();
}
