/* The inventory over records written here: what is found, what is added up, what is compared, what a page shows. */
#include "harness.h"

#include "operations/flat.h"
#include "operations/operations.h"
#include "operations/tally.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/sys.h"

static char dir[256], home[300];
static island *isl;

static err_code open_island(err *e) {
    if (isl) island_close(isl);
    isl = NULL;
    if (*dir) test_rm(dir);
    if (!test_tmpdir(dir)) return err_errno(e, "a temporary folder");
    snprintf(home, sizeof home, "%s/i", dir);
    err_code rc = island_init(home, "test.example/island", e);
    return rc ? rc : island_open(&isl, home, ISLAND_WRITE, e);
}

/* A record with these members; its number. */
static uint64_t say(const char *what, const char *members) {
    err e = {0};
    record *r = NULL;
    cJSON *v = NULL;
    uint64_t seq = UINT64_MAX;
    if (record_new(&r, what, &e) == ERR_OK && json_parse(&v, members, strlen(members), "test", &e) == ERR_OK)
        while (v->child) {
            cJSON *one = cJSON_DetachItemViaPointer(v, v->child);
            cJSON_AddItemToObject(record_body(r), one->string, one);
        }
    if (!v || ledger_append(island_ledger(isl), r, &seq, &e) != ERR_OK) {
        fprintf(stderr, "%s: %s\n", members, e.msg);
        abort();
    }
    cJSON_Delete(v);
    record_free(r);
    return seq;
}

static uint64_t admitted(const char *name) {
    char text[200];
    snprintf(text, sizeof text, "{\"model\":\"%s\",\"label\":\"internal\"}", name);
    return say("admitted", text);
}
static void egress(uint64_t request_seq, const char *country, int bytes) {
    char text[500];
    snprintf(text, sizeof text,
             "{\"purpose\":\"answer\",\"request\":%llu,\"attempt\":1,\"provider\":\"acme\",\"driver\":\"openai\","
             "\"operator\":\"Acme\",\"country\":\"%s\",\"operator_law\":\"FR\",\"inside\":false,"
             "\"host\":\"api.acme.example\",\"model\":\"large\",\"bytes\":%d,\"pseudonymised\":true}",
             (unsigned long long)request_seq, country, bytes);
    say("egress", text);
}
static void outcome(const char *what, uint64_t request_seq, const char *attempts, const char *more) {
    char text[900];
    snprintf(text, sizeof text, "{\"request\":%llu,\"prompt_tokens\":7,\"completion_tokens\":3,\"attempts\":[%s]%s}",
             (unsigned long long)request_seq, attempts, more);
    say(what, text);
}
#define AT(provider, outcome, sent)                                                                       \
    "{\"provider\":\"" provider "\",\"model\":\"large\",\"outcome\":\"" outcome "\",\"sent_bytes\":" sent \
    ",\"received_bytes\":11,\"ms\":1}"

static err_code declare(err *e) {
    cJSON *f = cJSON_Parse("{\"name\":\"acme\",\"driver\":\"openai\",\"url\":\"https://api.acme.example/v1\","
                           "\"operator\":\"Acme\",\"country\":\"FR\",\"operator_law\":\"FR\"}");
    cJSON *c = cJSON_Parse("[{\"provider\":\"acme\",\"model\":\"large\"}]"), *out = NULL;
    err_code rc = provider_add(isl, NULL, NULL, f, &out, e);
    cJSON_Delete(out);
    if (!rc) rc = route_set(isl, NULL, NULL, "big", c, &out, e);
    if (!rc) cJSON_Delete(out);
    cJSON_Delete(f);
    cJSON_Delete(c);
    return rc;
}
static void change_country(const char *to) {
    char text[100];
    snprintf(text, sizeof text, "{\"name\":\"acme\",\"country\":\"%s\"}", to);
    cJSON *f = cJSON_Parse(text), *out = NULL;
    if (provider_change(isl, NULL, NULL, f, &out, NULL) != ERR_OK) abort();
    cJSON_Delete(f);
    cJSON_Delete(out);
}

static cJSON *make(uint64_t from, const char *since) {
    err e = {0};
    cJSON *v = NULL;
    inventory_options o = {.from = from, .since = since};
    if (inventory_make(isl, &o, &v, &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    return v;
}
static const cJSON *found(const cJSON *v, const char *kind) {
    const cJSON *f;
    cJSON_ArrayForEach(f, json_get(v, "not_declared")) {
        if (strcmp(json_get(f, "kind")->valuestring, kind) == 0) return f;
    }
    return NULL;
}
static double num(const cJSON *o, const char *key) {
    const cJSON *x = json_get(o, key);
    return x ? x->valuedouble : -1;
}
static const cJSON *outside(const cJSON *v) {
    return json_get(json_get(v, "left"), "to_outside");
}

/* Breaks where an attempt is counted twice, not at all, or by what was meant to leave. */
TEST(what_left_is_what_the_outcomes_say) {
    err e = {0};
    CHECK_OK(open_island(&e), e);
    CHECK_OK(declare(&e), e);
    uint64_t a = admitted("big");
    egress(a, "FR", 100);
    egress(a, "FR", 100);
    outcome("completed", a, AT("acme", "provider_failed", "40") "," AT("acme", "answered", "100"),
            ",\"route\":\"acme\",\"cost_eur\":0.5");
    uint64_t b = admitted("big"); /* never connected */
    egress(b, "FR", 50);
    outcome("failed", b, AT("acme", "provider_failed", "0"), ",\"reason\":\"provider_failed\"");
    uint64_t c = admitted("big"); /* the same body twice on one attempt */
    egress(c, "FR", 30);
    outcome("failed", c,
            "{\"provider\":\"acme\",\"model\":\"large\",\"outcome\":\"provider_failed\",\"sent_bytes\":60,"
            "\"sendings\":2}",
            "");
    say("refused", "{\"model\":\"big\"}");
    cJSON *v = make(0, NULL);
    CHECK(v);
    CHECK_INT(cJSON_GetArraySize(json_get(v, "not_declared")), 0);
    CHECK_INT(num(outside(v), "requests"), 4);
    CHECK_INT(num(outside(v), "bytes"), 200);
    CHECK_INT(num(outside(v), "may_have_left_bytes"), 0);
    const cJSON *w = cJSON_GetArrayItem(json_get(v, "workloads"), 0), *r = json_get(w, "requests");
    CHECK_INT(num(r, "admitted"), 3);
    CHECK_INT(num(r, "completed"), 1);
    CHECK_INT(num(r, "failed"), 2);
    CHECK_INT(num(r, "refused"), 1);
    const cJSON *f = cJSON_GetArrayItem(json_get(json_get(json_get(w, "layers"), "inference"), "observed"), 0);
    CHECK_INT(num(f, "attempts"), 4);
    CHECK_INT(num(f, "requests_left"), 4);
    CHECK_INT(num(f, "pseudonymised"), 4);
    CHECK_INT(num(f, "prompt_tokens"), 7);
    CHECK(num(f, "cost_eur") == 0.5);
    cJSON_Delete(v);
    v = make(b, NULL); /* a range that begins in the middle */
    CHECK_INT(num(outside(v), "bytes"), 60);
    cJSON_Delete(v);
    v = make(b + 1, NULL); /* and behind an admitted record */
    CHECK_INT(num(outside(v), "bytes"), 60);
    CHECK(!found(v, "model_unknown") && !found(v, "egress_missing"));
    cJSON_Delete(v);
}

/* Breaks where something that was seen and is not declared is not said. */
TEST(what_is_not_declared_is_found) {
    err e = {0};
    CHECK_OK(open_island(&e), e);
    uint64_t a = admitted("ghost");
    egress(a, "FR", 10);
    outcome("completed", a, AT("acme", "answered", "10"), ",\"route\":\"acme\"");
    cJSON *v = make(0, NULL);
    CHECK(found(v, "provider_unknown") && found(v, "model_unknown"));
    cJSON_Delete(v);
    CHECK_OK(declare(&e), e);
    v = make(0, NULL);
    CHECK(!found(v, "provider_unknown") && found(v, "model_unknown") && found(v, "route_undeclared"));
    CHECK(!found(v, "facts_differ"));
    cJSON_Delete(v);
    change_country("US");
    v = make(0, NULL);
    CHECK(found(v, "facts_differ"));
    CHECK_STR(json_get(cJSON_GetArrayItem(json_get(found(v, "facts_differ"), "facts"), 0), "seen")->valuestring, "FR");
    CHECK(num(found(v, "facts_differ"), "changed_in") > 0);
    cJSON_Delete(v);
    uint64_t b = admitted("big"); /* bytes without an egress record */
    outcome("completed", b, AT("acme", "answered", "10"), "");
    uint64_t c = admitted("big"); /* cut off */
    egress(c, "US", 77);
    say("server.started", "{}");
    say("egress", "{\"purpose\":\"model.pull\",\"hub\":\"https://hub.example\",\"repository\":\"a/b\"}");
    say("egress", "{\"purpose\":\"oidc.jwks\",\"host\":\"id.example\",\"address\":\"https://id.example/k\"}");
    v = make(0, NULL);
    CHECK_STR(json_get(cJSON_GetArrayItem(json_get(v, "not_declared"), 0), "kind")->valuestring, "egress_missing");
    CHECK_INT(num(found(v, "outcome_unknown"), "may_have_left_bytes"), 77);
    CHECK_INT(num(outside(v), "may_have_left_bytes"), 77);
    const cJSON *o = found(v, "other_purpose");
    CHECK(o && cJSON_IsFalse(json_get(o, "configured")));
    cJSON_Delete(v);
}

/* Breaks where an inventory changes the island, or a recorded one is not what the next is compared with. */
TEST(reading_writes_nothing_and_recording_is_compared) {
    err e = {0};
    cJSON *v = NULL;
    CHECK_OK(open_island(&e), e);
    CHECK_OK(declare(&e), e);
    uint64_t size = ledger_size(island_ledger(isl));
    v = make(0, NULL);
    CHECK_INT(ledger_size(island_ledger(isl)), size);
    CHECK(!json_get(json_get(v, "changed"), "since"));
    cJSON_Delete(v);
    inventory_options o = {0};
    CHECK_OK(inventory_record(isl, NULL, &o, &v, &e), e);
    CHECK_INT(num(v, "recorded"), size);
    cJSON_Delete(v);
    change_country("US");
    for (int from = 0; from < 2; from++) { /* in the range, and before it */
        v = make(from ? size + 1 : 0, NULL);
        const cJSON *list = json_get(json_get(v, "changed"), "list"), *c = cJSON_GetArrayItem(list, 0);
        CHECK_INT(num(json_get(json_get(v, "changed"), "since"), "record"), size);
        CHECK_INT(cJSON_GetArraySize(list), 1);
        CHECK_STR(json_get(c, "fact")->valuestring, "country");
        CHECK_STR(json_get(c, "from")->valuestring, "FR");
        CHECK_STR(json_get(c, "to")->valuestring, "US");
        cJSON_Delete(v);
    }
    island *reader = NULL;
    CHECK_OK(island_open(&reader, home, ISLAND_READ, &e), e);
    CHECK_OK(inventory_make(reader, &o, &v, &e), e);
    cJSON_Delete(v);
    CHECK_INT(inventory_record(reader, NULL, &o, &v, &e), ERR_DENIED);
    island_close(reader);
}

TEST(where_it_begins) {
    err e = {0};
    cJSON *v = NULL;
    CHECK_OK(open_island(&e), e);
    uint64_t size = ledger_size(island_ledger(isl));
    static const char *const bad[] = {"yesterday",   "2026-13-01", "2026-1-1",
                                      "2026-01-01T", "",           "2026-01-01T00:00:00+1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        inventory_options o = {.since = bad[i]};
        if (inventory_make(isl, &o, &v, &e) != ERR_USAGE) FAIL("%s was taken", bad[i]);
    }
    inventory_options past = {.from = size + 1};
    CHECK_INT(inventory_make(isl, &past, &v, &e), ERR_USAGE);
    v = make(0, "2001-01-01");
    CHECK_INT(num(json_get(v, "range"), "records"), size);
    cJSON_Delete(v);
    v = make(0, "2999-01-01T00:00:00Z");
    CHECK_INT(num(json_get(v, "range"), "records"), 0);
    cJSON_Delete(v);
}

/* Breaks where a name of a stranger becomes a part of the page. */
TEST(a_page_escapes_what_others_wrote) {
    err e = {0};
    CHECK_OK(open_island(&e), e);
    say("egress", "{\"purpose\":\"<script>alert(1)</script>\",\"host\":\"a\\\"b'<\",\"address\":\"x&y\"}");
    cJSON *v = make(0, NULL);
    buf page = {.max = 1u << 20};
    CHECK_OK(inventory_html(v, &page, &e), e);
    CHECK(!strstr(buf_str(&page), "<script"));
    CHECK_HAS(buf_str(&page), "&lt;script&gt;alert(1)");
    CHECK_HAS(buf_str(&page), "a&quot;b&#39;&lt;");
    CHECK_HAS(buf_str(&page), "default-src 'none'");
    buf_free(&page);
    cJSON_Delete(v);
}

/* A name is covered for a label where somebody inside may answer too. */
TEST(the_plan_names_what_has_no_substitute) {
    static const char text[] = "allow public to any provider\nallow internal to provider acme\n"
                               "treat unlabelled as internal\n";
    err e = {0};
    cJSON *v = NULL;
    CHECK_OK(open_island(&e), e);
    CHECK_OK(declare(&e), e);
    CHECK_OK(plan_check(isl, &v, &e), e); /* the default policy lets nothing out: nothing is delegated */
    CHECK(cJSON_IsTrue(json_get(v, "ok")) && cJSON_GetArraySize(json_get(v, "names")) == 0);
    cJSON_Delete(v);
    CHECK_OK(policy_activate(isl, NULL, NULL, text, strlen(text), &v, &e), e);
    cJSON_Delete(v);
    CHECK_OK(plan_check(isl, &v, &e), e);
    const cJSON *n = cJSON_GetArrayItem(json_get(v, "names"), 0);
    CHECK(cJSON_IsFalse(json_get(v, "ok")) && cJSON_IsTrue(json_get(n, "unlabelled_missing")));
    CHECK_INT(cJSON_GetArraySize(json_get(n, "missing")), 2);
    cJSON_Delete(v);
}

/* Breaks where bytes that are no JSON are read past their end (under the sanitizers) or taken for something. */
TEST(entries_are_read_in_place) {
    static const char whole[] = "{\"a\":\"x\\\"}\\u00e4\\ud83c\\udf0d\",\"b\":[1,{\"c\":\"]\"}],\"d\":-1.5e3,\"e\":{}}";
    flat f;
    slice key, v;
    char text[40];
    CHECK(flat_object(&f, (slice){whole, strlen(whole)}));
    CHECK(flat_next(&f, &key, &v) && key.n == 1 && *key.p == 'a');
    slice_text(v, text, sizeof text);
    CHECK_STR(text, "x\"}\xc3\xa4\xf0\x9f\x8c\x8d");
    slice_text(v, text, 5);
    CHECK_STR(text, "x\"}");
    CHECK(flat_next(&f, &key, &v) && slice_is(v, "[1,{\"c\":\"]\"}]"));
    CHECK(flat_next(&f, &key, &v) && slice_num(v) == -1500.0 && slice_u64(v) == 0);
    CHECK(flat_next(&f, &key, &v) && slice_is(v, "{}"));
    CHECK(!flat_next(&f, &key, &v));
    for (size_t n = 0; n <= strlen(whole); n++) { /* cut anywhere, in memory of just that size */
        char *cut = malloc(n ? n : 1);
        memcpy(cut, whole, n);
        slice s = {cut, n};
        int steps = 0;
        if (flat_object(&f, s))
            while (flat_next(&f, &key, &v) && steps++ < 100) slice_text(v, text, sizeof text);
        CHECK(steps < 100);
        free(cut);
    }
}

/* Breaks where an allocation that fails is not handled, or leaves something behind. */
TEST(memory_runs_out) {
    err e = {0};
    CHECK_OK(open_island(&e), e);
    CHECK_OK(declare(&e), e);
    uint64_t a = admitted("big");
    egress(a, "FR", 100);
    outcome("completed", a, AT("acme", "answered", "100"), ",\"route\":\"acme\"");
    change_country("US");
    err_code rc = ERR_NOMEM;
    int64_t n = 0;
    for (; rc && n < 20000; n++) {
        cJSON *v = NULL;
        inventory_options o = {0};
        err why = {0};
        mem_fail_after(n);
        rc = inventory_make(isl, &o, &v, &why);
        mem_fail_after(-1);
        if (rc && v) FAIL("an inventory beside an error");
        if (!rc && !found(v, "facts_differ")) FAIL("allocation %lld: a finding is lost", (long long)n);
        if (rc && !why.msg[0]) FAIL("allocation %lld: no sentence", (long long)n);
        cJSON_Delete(v);
    }
    CHECK_INT(rc, ERR_OK);
    CHECK(n > 30); /* cJSON keeps what it frees, so most of a tree is not asked for anew */
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(entries_are_read_in_place);
    RUN(what_left_is_what_the_outcomes_say);
    RUN(what_is_not_declared_is_found);
    RUN(reading_writes_nothing_and_recording_is_compared);
    RUN(where_it_begins);
    RUN(a_page_escapes_what_others_wrote);
    RUN(the_plan_names_what_has_no_substitute);
    RUN(memory_runs_out);
    if (isl) island_close(isl);
    if (*dir) test_rm(dir);
    return test_end();
}
