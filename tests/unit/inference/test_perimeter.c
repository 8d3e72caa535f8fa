/* Snapshots: a request keeps the one it began with, changes hold for the next, moving parts survive both. */
#include "support.h"

#include "inference/perimeter.h"
#include "inference/providers_internal.h"

static bed b;

static err_code with_facts(bool is_new, const char *text, err *e) {
    cJSON *facts = NULL, *out = NULL;
    err_code rc = json_parse(&facts, text, strlen(text), "test", e);
    if (!rc && is_new) rc = provider_add(b.i, b.inf, NULL, facts, &out, e);
    if (!rc && !is_new) rc = provider_change(b.i, b.inf, NULL, facts, &out, e);
    cJSON_Delete(facts);
    cJSON_Delete(out);
    return rc;
}
static err_code add(const char *name, err *e) {
    char text[200];
    snprintf(text, sizeof text, "{\"name\":\"%s\",\"driver\":\"openai\",\"url\":\"https://a.example\"}", name);
    return with_facts(true, text, e);
}
static err_code set_key(const char *name, const char *secret, err *e) {
    return provider_set_key(b.i, b.inf, NULL, name, secret, strlen(secret), e);
}
static err_code activate(const char *text, err *e) {
    cJSON *out = NULL;
    err_code rc = policy_activate(b.i, b.inf, NULL, text, strlen(text), &out, e);
    cJSON_Delete(out);
    return rc;
}
static provider *of_name(perimeter *p, const char *name) {
    int k = provider_place(p->providers, p->n_providers, name);
    return k < 0 ? NULL : &p->providers[k];
}

/* Breaks where an island without a policy lets anything out, or has no engine. */
TEST(perimeter_of_a_new_island) {
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add("acme", &e), e);
    perimeter *p = perimeter_get(b.inf);
    CHECK_INT(p->n_providers, 2);
    CHECK_STR(p->providers[0].facts.name, "engine");
    CHECK(!p->providers[0].rt && !p->providers[0].credential);
    CHECK_INT(strlen(p->policy_hex), SHA256_HEX_LEN);
    for (unsigned level = 0; level < p->labels.n; level++)
        for (unsigned flags = 0; flags <= FLAGS_ALL; flags++)
            CHECK_INT(policy_allowed(p->table, (sensitivity){(uint8_t)level, (uint8_t)flags}), 1);
    CHECK(!perimeter_route(p, "anything"));
    perimeter_put(b.inf, p);
    perimeter_put(b.inf, NULL);
}

/* Breaks where a change in the middle of a request reaches it, or does not reach the next one. */
TEST(perimeter_snapshots_do_not_change) {
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add("acme", &e), e);
    CHECK_OK(set_key("acme", "sk-one", &e), e);
    CHECK_OK(activate("allow any label to any provider\n", &e), e);
    perimeter *old = perimeter_get(b.inf);
    provider_runtime *rt = of_name(old, "acme")->rt;
    CHECK(rt && rt->lines);
    CHECK_OK(with_facts(false,
                        "{\"name\":\"acme\",\"country\":\"DE\",\"url\":\"https://b.example\",\"max_concurrent\":3}",
                        &e),
             e);
    CHECK_OK(set_key("acme", "sk-two", &e), e); /* the first one was for the other server */
    CHECK_OK(add("aaaa", &e), e);               /* before it in the list */
    CHECK_OK(activate("allow any label to on-prem\n", &e), e);
    perimeter *now = perimeter_get(b.inf);
    CHECK(now != old);
    CHECK_STR(of_name(old, "acme")->credential, "sk-one");
    CHECK_STR(of_name(old, "acme")->facts.country, "");
    CHECK_STR(of_name(old, "acme")->url, "https://a.example");
    CHECK_INT(policy_allowed(old->table, (sensitivity){0, 0}), 3);
    CHECK(!of_name(old, "aaaa"));
    CHECK_STR(of_name(now, "acme")->credential, "sk-two");
    CHECK_STR(of_name(now, "acme")->facts.country, "DE");
    CHECK_INT(of_name(now, "acme")->max_concurrent, 3);
    CHECK_INT(policy_allowed(now->table, (sensitivity){0, 0}), 1);
    CHECK(strcmp(old->policy_hex, now->policy_hex) != 0);
    /* what moves is one thing for both */
    CHECK(of_name(now, "acme")->rt == rt);
    CHECK_INT(rt->n_refs, 2);
    perimeter_put(b.inf, old);
    CHECK_INT(rt->n_refs, 1);
    perimeter_put(b.inf, now);
}

/* Breaks where a provider's failures are forgotten with a change of its price, or remembered for another of its name.
 */
TEST(perimeter_runtimes_live_with_their_provider) {
    err e = {0};
    cJSON *out = NULL;
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add("acme", &e), e);
    perimeter *p = perimeter_get(b.inf);
    provider_runtime *rt = of_name(p, "acme")->rt;
    for (int i = 0; i < 3; i++) breaker_result(&rt->breaker, BREAKER_BAD, 0, 3);
    atomic_fetch_add(&rt->running, 2);
    perimeter_put(b.inf, p);
    CHECK_OK(with_facts(false, "{\"name\":\"acme\",\"price_in\":1}", &e), e);
    CHECK_OK(perimeter_reload(b.inf, &e), e);
    CHECK_OK(provider_show(b.i, b.inf, "acme", &out, &e), e);
    CHECK_STR(json_get(out, "breaker")->valuestring, "open");
    CHECK_INT(json_get(out, "failures")->valuedouble, 3);
    CHECK_INT(json_get(out, "running")->valuedouble, 2);
    cJSON_Delete(out);
    p = perimeter_get(b.inf); /* a request that still runs */
    CHECK_OK(provider_remove(b.i, b.inf, NULL, "acme", &e), e);
    CHECK(breaker_is_open(&of_name(p, "acme")->rt->breaker));
    atomic_fetch_sub(&of_name(p, "acme")->rt->running, 2);
    perimeter_put(b.inf, p);
    CHECK_OK(add("acme", &e), e);
    p = perimeter_get(b.inf);
    CHECK(!breaker_is_open(&of_name(p, "acme")->rt->breaker));
    perimeter_put(b.inf, p);
}

static err_code write_rules(const char *text, err *e) {
    char path[330];
    snprintf(path, sizeof path, "%s/island/rules", b.dir);
    return file_write_atomic(path, text, strlen(text), 0600, e);
}

static err_code remove_rules(err *e) {
    char path[330];
    snprintf(path, sizeof path, "%s/island/rules", b.dir);
    return unlink(path) == 0 ? ERR_OK : err_errno(e, "%s", path);
}

static err_code reopen(const char *yaml, err *e) {
    char sub[300], path[330];
    snprintf(sub, sizeof sub, "%s/island", b.dir);
    snprintf(path, sizeof path, "%s/island.yaml", sub);
    inference_close(b.inf);
    b.inf = NULL;
    island_close(b.i);
    b.i = NULL;
    err_code rc = file_write_atomic(path, yaml, strlen(yaml), 0600, e);
    if (!rc) rc = island_open(&b.i, sub, ISLAND_WRITE, e);
    return rc ? rc : inference_open(&b.inf, b.i, e);
}

/* Breaks where rules that cannot be read open an island without them, or throw away the snapshot that holds. */
TEST(perimeter_rules_that_cannot_be_used) {
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK(reopen("detect:\n  rules: rules\n", &e) != ERR_OK); /* there is no such file */
    CHECK_HAS(e.msg, "/rules");
    CHECK(!b.inf);
    CHECK_OK(write_rules("# fine\nthis is no rule\n", &e), e);
    CHECK_INT(inference_open(&b.inf, b.i, &e), ERR_USAGE);
    CHECK_HAS(e.msg, "/rules:2:");
    CHECK_OK(write_rules("pattern customer-number : KD-[0-9]{8}\n", &e), e);
    CHECK_OK(inference_open(&b.inf, b.i, &e), e);
    perimeter *own = perimeter_get(b.inf);
    CHECK_INT(detector_entities(own->detector), ENT_BUILT_IN + 1);
    perimeter_put(b.inf, own);
    CHECK_OK(add("acme", &e), e);
    CHECK_OK(remove_rules(&e), e);
    uint64_t records = ledger_size(island_ledger(b.i));
    perimeter *p = perimeter_get(b.inf);
    CHECK(perimeter_reload(b.inf, &e) != ERR_OK);
    CHECK(add("beta", &e) != ERR_OK); /* nothing changes that the server could not hold */
    CHECK_HAS(e.msg, "/rules");
    perimeter *same = perimeter_get(b.inf);
    CHECK(same == p && p->n_providers == 2);
    CHECK_INT(ledger_size(island_ledger(b.i)), records);
    perimeter_put(b.inf, p);
    perimeter_put(b.inf, same);
    CHECK_OK(write_rules("", &e), e);
    CHECK_OK(add("beta", &e), e);
}

/* Breaks where a row that cannot be used is skipped instead of told. */
TEST(perimeter_damaged_rows) {
    static const char *const damage[][2] = {
        {"UPDATE providers SET facts = '{'", "provider 'acme'"},
        {"UPDATE providers SET facts = '{\"driver\":\"openai\",\"url\":\"ftp://x\"}'", "provider 'acme'"},
        {"UPDATE providers SET name = 'ACME'", "'ACME'"},
        {"INSERT INTO candidates VALUES('m', 0, 'nobody', 'x', 1, 0)", "model 'm'"},
        {"INSERT INTO candidates VALUES('m', 0, 'acme', 'x', 0, 0)", "model 'm'"},
        {"INSERT INTO candidates VALUES('m', 0, 'acme', 'x', 1, 99)", "model 'm'"},
        {"INSERT INTO policies VALUES('active', 'allow', zeroblob(32), 'x', NULL, 0)", "policy:1:"},
    };
    err e = {0};
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        CHECK_OK(bed_open(&b, NULL, &e), e);
        CHECK_OK(add("acme", &e), e);
        CHECK_OK(store_write(island_store(b.i), damage[i][0], NULL, 0, NULL, &e), e);
        err_code rc = perimeter_reload(b.inf, &e);
        if (rc != ERR_CORRUPT && rc != ERR_INVALID) FAIL("%s: %d", damage[i][0], rc);
        CHECK_HAS(e.msg, damage[i][1]);
        inference_close(b.inf);
        b.inf = NULL;
        CHECK_INT(inference_open(&b.inf, b.i, &e), rc);
        bed_close(&b);
    }
}

/* Breaks where a failed allocation loses the snapshot in force, or a count of a runtime. */
TEST(perimeter_survives_failed_allocations) {
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add("acme", &e), e);
    CHECK_OK(add("beta", &e), e);
    CHECK_OK(set_key("beta", "sk-hunter2", &e), e);
    CHECK_OK(activate("allow any label to any provider\n", &e), e);
    int failures = 0;
    bool fired = true;
    for (int64_t n = 0; fired; n++) {
        int64_t count = mem_count();
        mem_fail_after(n);
        err_code rc = perimeter_reload(b.inf, &e);
        mem_fail_after(-1);
        fired = mem_count() - count > n;
        failures += rc != ERR_OK;
        if (rc && rc != ERR_NOMEM) FAIL("allocation %d: %s", (int)n, e.msg);
        perimeter *p = perimeter_get(b.inf);
        CHECK(p->n_providers == 3 && of_name(p, "acme")->rt->n_refs == 1);
        CHECK_STR(of_name(p, "beta")->credential, "sk-hunter2");
        perimeter_put(b.inf, p);
    }
    CHECK(failures > 10);
    failures = 0;
    fired = true;
    for (int64_t n = 0; fired; n += 1 + n / 20) { /* a room that cannot be opened is none */
        inference_close(b.inf);
        b.inf = NULL;
        int64_t count = mem_count();
        mem_fail_after(n);
        err_code rc = inference_open(&b.inf, b.i, &e);
        mem_fail_after(-1);
        fired = mem_count() - count > n;
        failures += rc != ERR_OK;
        CHECK((rc == ERR_OK) == (b.inf != NULL));
    }
    CHECK(failures > 10);
}

/* ---- threads ----------------------------------------------------------------------------------------------- */

static atomic_bool stop;
static atomic_int torn;

static void *ask_on(void *arg) {
    while (!atomic_load(&stop)) {
        perimeter *p = perimeter_get(b.inf);
        provider *a = of_name(p, "acme");
        const model_route *m = perimeter_route(p, "chat");
        /* both were changed together in each snapshot, or neither */
        if (!a || !a->credential || strlen(a->credential) != 9 || (m && m->list[0].provider >= p->n_providers))
            atomic_fetch_add(&torn, 1);
        if (a && breaker_may(&a->rt->breaker, 0, 1)) breaker_result(&a->rt->breaker, BREAKER_GOOD, 0, 5);
        perimeter_put(b.inf, p);
    }
    return NULL;
}

/* Breaks (under a thread sanitizer, too) where a snapshot is freed while a request holds it. */
TEST(perimeter_changes_while_requests_run) {
    pthread_t threads[3];
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add("acme", &e), e);
    CHECK_OK(set_key("acme", "sk-000000", &e), e);
    atomic_store(&stop, false);
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, ask_on, NULL);
    err_code rc = ERR_OK;
    for (int i = 0; i < 30 && !rc; i++) {
        char name[20], secret[20];
        snprintf(name, sizeof name, "p%d", i / 3);
        snprintf(secret, sizeof secret, "sk-%06d", i);
        if (i % 3 == 0) rc = add(name, &e);
        if (i % 3 == 1) rc = set_key("acme", secret, &e);
        if (i % 3 == 2) rc = provider_remove(b.i, b.inf, NULL, name, &e);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    CHECK_OK(rc, e);
    CHECK_INT(atomic_load(&torn), 0);
}

/* Every request pays it: it must not be felt. The bound is loose, for machines that are busy. */
TEST(perimeter_get_is_cheap) {
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    enum { N = 200000 };
    uint64_t begin = time_mono_ns();
    for (int i = 0; i < N; i++) perimeter_put(b.inf, perimeter_get(b.inf));
    double ns = (double)(time_mono_ns() - begin) / N;
    printf("a reference to the snapshot, taken and given back: %.0f ns\n", ns);
    CHECK(ns < 5000);
}

static void each(const char *name, void (*fn)(void)) {
    test_run(name, fn);
    log_set_level(LOG_ERROR);
    mem_fail_after(-1);
    if (b.dir[0]) bed_close(&b);
}
#undef RUN
#define RUN(name) each(#name, test_case_##name)

int main(int argc, char **argv) {
    test_begin(argc, argv);
    log_set_level(LOG_ERROR);
    disk_install();
    RUN(perimeter_of_a_new_island);
    RUN(perimeter_snapshots_do_not_change);
    RUN(perimeter_runtimes_live_with_their_provider);
    RUN(perimeter_rules_that_cannot_be_used);
    RUN(perimeter_damaged_rows);
    RUN(perimeter_survives_failed_allocations);
    RUN(perimeter_changes_while_requests_run);
    RUN(perimeter_get_is_cheap);
    return test_end();
}
