/* Providers, credentials, candidates and the policy in force: what is taken, what is refused, what is recorded. */
#include "support.h"

#include "base/json_memory.h"
#include "inference/perimeter.h"
#include "inference/providers_internal.h"

static bed b;

#define ADMIN(id) ((identity){.key_id = id, .name = "somebody", .role = ROLE_ADMIN})

static bool fault_armed; /* the test's own parsing is not what is to fail */
static int64_t fault_at;

static cJSON *parse(const char *text) {
    cJSON *v = NULL;
    err e = {0};
    if (fault_armed) mem_fail_after(-1);
    if (json_parse(&v, text, strlen(text), "test", &e) != ERR_OK) {
        fprintf(stderr, "%s: %s\n", text, e.msg);
        abort();
    }
    if (fault_armed) mem_fail_after(fault_at);
    return v;
}

static uint64_t size(void) {
    return ledger_size(island_ledger(b.i));
}
static cJSON *last_record(void) {
    return bed_record(&b, size() - 1);
}
/* The value at a path as "changes.country.to", as compact JSON; valid until the next call. */
static const char *at(const cJSON *o, const char *path) {
    static char out[4][2000];
    static unsigned next;
    char part[64];
    while (o && *path) {
        size_t n = strcspn(path, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        o = part[0] >= '0' && part[0] <= '9' ? cJSON_GetArrayItem(o, atoi(part))
                                             : cJSON_GetObjectItemCaseSensitive(o, part);
        path += n + (path[n] == '.');
    }
    if (!o) return NULL;
    char *text = cJSON_PrintUnformatted(o);
    char *to = out[next++ % 4];
    snprintf(to, sizeof out[0], "%s", text);
    cJSON_free(text);
    return to;
}

static err_code add(const char *facts, err *e) {
    cJSON *f = parse(facts), *out = NULL;
    identity who = ADMIN("k_admin");
    err_code rc = provider_add(b.i, b.inf, &who, f, &out, e);
    cJSON_Delete(out);
    cJSON_Delete(f);
    return rc;
}
static err_code change(const char *facts, err *e) {
    cJSON *f = parse(facts), *out = NULL;
    err_code rc = provider_change(b.i, b.inf, NULL, f, &out, e);
    cJSON_Delete(out);
    cJSON_Delete(f);
    return rc;
}
static err_code route(const char *model_name, const char *candidates, err *e) {
    cJSON *c = parse(candidates), *out = NULL;
    err_code rc = route_set(b.i, b.inf, NULL, model_name, c, &out, e);
    cJSON_Delete(out);
    cJSON_Delete(c);
    return rc;
}
static err_code activate(const identity *by, const char *text, cJSON **out, err *e) {
    return policy_activate(b.i, b.inf, by, text, strlen(text), out, e);
}

#define ACME "{\"name\":\"acme\",\"driver\":\"openai\",\"url\":\"https://api.acme.example/v1\"}"

/* ---- providers --------------------------------------------------------------------------------------------- */

/* Breaks where a fact is lost, invented, or changed without its record. */
TEST(providers_are_added_changed_and_removed) {
    err e = {0};
    cJSON *out = NULL, *r;
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add("{\"name\":\"acme.eu-1\",\"driver\":\"openai\",\"url\":\"https://api.acme.example/v1//\",\"operator\":"
                 "\"Acme S\\u00c0RL\",\"country\":\"fr\",\"operator_law\":\"FR\",\"retention_days\":0,\"training\":"
                 "false,\"contract\":\"DPA 7\",\"certificates\":\"ISO-27001, C5\",\"price_in\":0.25,\"max_concurrent\":"
                 "8,\"exit\":null}",
                 &e),
             e);
    r = last_record();
    CHECK(record_is(r, "provider.added"));
    CHECK_STR(at(r, "provider"), "\"acme.eu-1\"");
    CHECK_STR(at(r, "by"), "\"k_admin\"");
    CHECK_STR(at(r, "country"), "\"FR\"");
    CHECK_STR(at(r, "retention_days"), "0");
    CHECK_STR(at(r, "training"), "false");
    CHECK(!at(r, "exit") && !at(r, "price_out"));
    cJSON_Delete(r);
    CHECK_OK(provider_show(b.i, b.inf, "acme.eu-1", &out, &e), e);
    CHECK_STR(at(out, "url"), "\"https://api.acme.example/v1\"");
    CHECK_STR(at(out, "operator"), "\"Acme S\xc3\x80RL\"");
    CHECK_STR(at(out, "price_in"), "0.25");
    CHECK_STR(at(out, "price_out"), "null");
    CHECK_STR(at(out, "inside"), "false");
    CHECK_STR(at(out, "key.set"), "false");
    CHECK_STR(at(out, "breaker"), "\"closed\"");
    CHECK_STR(at(out, "running"), "0");
    cJSON_Delete(out);
    CHECK_INT(add("{\"name\":\"acme.eu-1\",\"driver\":\"openai\",\"url\":\"https://x.example\"}", &e), ERR_EXISTS);
    uint64_t before = size();
    CHECK_OK(change("{\"name\":\"acme.eu-1\",\"country\":\"US\",\"contract\":null,\"price_in\":0.25}", &e), e);
    CHECK_INT(size(), before + 1);
    r = last_record();
    CHECK(record_is(r, "provider.changed"));
    CHECK_STR(at(r, "changes"), "{\"contract\":{\"from\":\"DPA 7\",\"to\":null},\"country\":{\"from\":\"FR\",\"to\":"
                                "\"US\"}}");
    CHECK_STR(at(r, "by"), "\"local\"");
    cJSON_Delete(r);
    CHECK_OK(change("{\"name\":\"acme.eu-1\",\"country\":\"US\"}", &e), e); /* nothing differs */
    CHECK_INT(size(), before + 1);
    CHECK_OK(provider_list(b.i, &out, &e), e);
    CHECK_INT(cJSON_GetArraySize(json_get(out, "providers")), 2);
    CHECK_STR(at(out, "providers.0.name"), "\"engine\"");
    CHECK_STR(at(out, "providers.0.inside"), "true");
    CHECK_STR(at(out, "providers.1.country"), "\"US\"");
    cJSON_Delete(out);
    CHECK_OK(provider_remove(b.i, b.inf, NULL, "acme.eu-1", &e), e);
    r = last_record();
    CHECK(record_is(r, "provider.removed"));
    cJSON_Delete(r);
    CHECK_INT(provider_show(b.i, b.inf, "acme.eu-1", &out, &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "polder provider add");
    CHECK_INT(provider_remove(b.i, b.inf, NULL, "acme.eu-1", &e), ERR_NOT_FOUND);
    CHECK_OK(provider_show(b.i, b.inf, "engine", &out, &e), e);
    cJSON_Delete(out);
}

/* Breaks where a fact that cannot be is stored, or a refusal does not say what would be right. */
TEST(providers_bad_facts_are_refused) {
#define P(more) "{\"name\":\"acme\",\"driver\":\"openai\",\"url\":\"https://api.acme.example\"," more "}"
    static const char *const bad[][2] = {
        {"{\"driver\":\"openai\",\"url\":\"https://a.example\"}", "name"},
        {"{\"name\":\"Acme\",\"driver\":\"openai\",\"url\":\"https://a.example\"}", "lower case letters"},
        {"{\"name\":\"\",\"driver\":\"openai\",\"url\":\"https://a.example\"}", "1 to 40"},
        {"{\"name\":\"a:b\",\"driver\":\"openai\",\"url\":\"https://a.example\"}", "lower case letters"},
        {"{\"name\":\"engine\",\"driver\":\"openai\",\"url\":\"https://a.example\"}", "choose another name"},
        {"{\"name\":\"acme\",\"url\":\"https://a.example\"}", "driver is missing: openai"},
        {"{\"name\":\"acme\",\"driver\":\"openai\"}", "url is missing"},
        {"{\"name\":\"acme\",\"driver\":\"engine\",\"url\":\"https://a.example\"}", "there are: openai"},
        {P("\"colour\":1"), "has no fact \"colour\"; there are: name, driver, url"},
        {P("\"country\":\"XX\""), "ISO 3166"},
        {P("\"country\":\"UK\""), "ISO 3166 calls it GB"},
        {P("\"country\":\"DEU\""), "two letters"},
        {P("\"operator_law\":49"), "operator_law"},
        {P("\"retention_days\":-1"), "whole number from 0 to 36500 is, or null"},
        {P("\"retention_days\":1.5"), "1.5 is not allowed"},
        {P("\"retention_days\":\"0\""), "retention_days must be a number"},
        {P("\"training\":\"no\""), "training must be true or false"},
        {P("\"inside\":1"), "inside must be true or false"},
        {P("\"price_in\":-0.1"), "price_in"},
        {P("\"price_out\":1e7"), "0 to 1000000"},
        {P("\"max_concurrent\":-1"), "0: no limit"},
        {P("\"operator\":\"a\\nb\""), "without control characters"},
        {P("\"form\":\"gcp\""), "there is: azure"},
        {P("\"api_version\":\"2024?x=1\""), "letters, digits"},
        {P("\"ca_file\":\"certs.pem\""), "absolute path"},
        {P("\"ca_file\":\"/nowhere/certs.pem\""), "/nowhere/certs.pem"},
        {P("\"ca_file\":\"/etc/hostname\""), "certificate"},
        {"{\"name\":\"acme\",\"driver\":\"anthropic\",\"form\":\"azure\",\"url\":\"https://a.example\"}",
         "driver openai"},
        {"[]", "must be an object"},
    };
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    uint64_t before = size();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err_code rc = add(bad[i][0], &e);
        if (rc != ERR_INVALID || !strstr(e.msg, bad[i][1])) FAIL("%s: %d %s", bad[i][0], rc, e.msg);
    }
    char long_text[400];
    snprintf(long_text, sizeof long_text, P("\"operator\":\"%0130d\""), 1);
    CHECK_INT(add(long_text, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "at most 119");
    CHECK_INT(size(), before);
    CHECK_OK(add(ACME, &e), e);
    CHECK_INT(change("{\"name\":\"acme\",\"driver\":null}", &e), ERR_INVALID);
    CHECK_INT(change("{\"name\":\"acme\",\"country\":\"EU\"}", &e), ERR_INVALID);
    CHECK_INT(change("{\"name\":\"nobody\",\"country\":\"DE\"}", &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "there are: acme");
    CHECK_INT(size(), before + 1);
}

/* Breaks where an address is taken that sends in clear, somewhere else than it seems, or carries a password. */
TEST(providers_addresses) {
    static const struct {
        const char *url, *more, *says; /* says NULL: it is fine */
    } urls[] = {
        {"https://api.example.eu/v1", "", NULL},
        {"https://[2001:db8::1]:8443/v1", "", NULL},
        {"HTTPS://api.example.eu", "", NULL},
        {"http://127.0.0.1:8081/v1", "", NULL},
        {"http://localhost:11434", "", NULL},
        {"http://[::1]:8081", "", NULL},
        {"http://10.0.0.5:8000/v1", ",\"inside\":true", NULL},
        {"http://10.0.0.5:8000/v1", "", "https:// is needed"},
        {"http://127.0.0.1.example.org/", "", "https:// is needed"},
        {"http://localhost.example.org/", "", "https:// is needed"},
        {"ftp://api.example.eu", "", "https://"},
        {"file:///etc/passwd", "", "url "},
        {"api.example.eu/v1", "", "is not an address"},
        {"https://", "", "is not an address"},
        {"https:///v1", "", "url "},
        {"https://api.example.eu:99999", "", "is not an address"},
        {"https://me:hunter2@api.example.eu", "", "set-key takes it"},
        {"https://api.example.eu/v1?key=hunter2", "", "before '?'"},
        {"https://api.example.eu/v1#x", "", "before '?'"},
        {"https://api.example.eu/a b", "", "no address may"},
        {"https://api.example.eu/a\\\\b", "", "no address may"},
        {"https://api.ex\xc3\xa4mple.eu", "", "no address may"},
        {"https://api.example.eu/v1/../admin", "", "'..'"},
        {"https://api.example.eu/..", "", "'..'"},
    };
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        char facts[500], name[20];
        snprintf(name, sizeof name, "p%zu", i);
        snprintf(facts, sizeof facts, "{\"name\":\"%s\",\"driver\":\"openai\",\"url\":\"%s\"%s}", name, urls[i].url,
                 urls[i].more);
        err_code rc = add(facts, &e);
        if (rc != (urls[i].says ? ERR_INVALID : ERR_OK)) FAIL("%s: %d %s", urls[i].url, rc, e.msg);
        if (urls[i].says && !strstr(e.msg, urls[i].says)) FAIL("%s: %s", urls[i].url, e.msg);
        CHECK(!strstr(e.msg, "hunter2"));
    }
    /* what made http admissible cannot be taken away alone */
    CHECK_INT(change("{\"name\":\"p6\",\"inside\":false}", &e), ERR_INVALID);
    CHECK_OK(change("{\"name\":\"p6\",\"inside\":false,\"url\":\"https://10.0.0.5\"}", &e), e);
}

TEST(providers_have_a_limit) {
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    for (int i = 1; i < PROVIDERS_MAX; i++) {
        char facts[200];
        snprintf(facts, sizeof facts, "{\"name\":\"p%d\",\"driver\":\"openai\",\"url\":\"https://a.example\"}", i);
        CHECK_OK(add(facts, &e), e);
    }
    CHECK_INT(add(ACME, &e), ERR_TOO_LARGE);
    perimeter *p = perimeter_get(b.inf);
    CHECK_INT(p->n_providers, PROVIDERS_MAX);
    perimeter_put(b.inf, p);
}

/* ---- credentials ------------------------------------------------------------------------------------------- */

static err_code set_key(const char *name, const char *secret, err *e) {
    return provider_set_key(b.i, b.inf, NULL, name, secret, strlen(secret), e);
}

static bool has_credential(const char *name, const char *want) {
    perimeter *p = perimeter_get(b.inf);
    int k = provider_place(p->providers, p->n_providers, name);
    const char *have = k < 0 ? NULL : p->providers[k].credential;
    bool same = want ? have && strcmp(have, want) == 0 : !have;
    perimeter_put(b.inf, p);
    return same;
}

static int in_files(const char *text) { /* files of the island that hold it */
    char cmd[400];
    snprintf(cmd, sizeof cmd, "test $(grep -rla -e '%s' %s/island | wc -l) = 0", text, b.dir);
    return system(cmd);
}

/* Breaks where a credential lies anywhere in clear, is shown, is recorded, or does not hold at once. */
TEST(credentials_are_sealed_and_rotate) {
    err e = {0};
    cJSON *out = NULL, *r;
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add(ACME, &e), e);
    CHECK(has_credential("acme", NULL));
    CHECK_OK(set_key("acme", "  sk-first-credential-1\r\n", &e), e);
    CHECK(has_credential("acme", "sk-first-credential-1"));
    r = last_record();
    CHECK(record_is(r, "provider.key"));
    CHECK_STR(at(r, "provider"), "\"acme\"");
    cJSON_Delete(r);
    CHECK_OK(provider_show(b.i, b.inf, "acme", &out, &e), e);
    CHECK_STR(at(out, "key.set"), "true");
    CHECK(at(out, "key.since"));
    CHECK(!strstr(at(out, ""), "sk-first"));
    cJSON_Delete(out);
    CHECK_OK(set_key("acme", "sk-second-credential", &e), e);
    CHECK(has_credential("acme", "sk-second-credential"));
    inference_close(b.inf);
    b.inf = NULL;
    CHECK_INT(in_files("sk-first"), 0);
    CHECK_INT(in_files("sk-second"), 0);
    CHECK_OK(inference_open(&b.inf, b.i, &e), e);
    CHECK(has_credential("acme", "sk-second-credential"));
    CHECK_OK(provider_remove(b.i, b.inf, NULL, "acme", &e), e);
    CHECK_OK(add(ACME, &e), e);
    CHECK(has_credential("acme", NULL)); /* a provider of the same name gets nothing of it */
}

/* Breaks where who may change an address can have the credential sent to a server of his own. */
TEST(a_credential_goes_with_its_server) {
    static const struct {
        const char *url;
        bool kept;
    } cases[] = {
        {"http://api.acme.example/v1", false},
        {"https://api.acme.example/v2", true},
        {"https://API.acme.example/v2/x", true},
        {"https://api.acme.example", true},
        {"https://api.acme.example:444", false},
        {"https://api.acme.example.evil.example/v2", false},
        {"https://evil.example/api.acme.example/v2", false},
        {"https://api.acme.exampl/v2", false},
        {"https://x.api.acme.example/v2", false},
    };
    err e = {0};
    cJSON *r;
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add(ACME, &e), e);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char facts[200];
        CHECK_OK(change("{\"name\":\"acme\",\"inside\":true,\"url\":\"https://api.acme.example/v1\"}", &e), e);
        CHECK_OK(set_key("acme", "sk-for-acme-alone", &e), e);
        snprintf(facts, sizeof facts, "{\"name\":\"acme\",\"url\":\"%s\"}", cases[i].url);
        CHECK_OK(change(facts, &e), e);
        if (!has_credential("acme", cases[i].kept ? "sk-for-acme-alone" : NULL)) FAIL("%s", cases[i].url);
        r = last_record();
        CHECK(record_is(r, "provider.changed"));
        if (!cases[i].kept) CHECK_STR(at(r, "key_removed"), "true");
        if (cases[i].kept) CHECK(!json_get(r, "key_removed"));
        cJSON_Delete(r);
    }
    CHECK_OK(change("{\"name\":\"acme\",\"url\":\"https://other.example\"}", &e),
             e); /* none was set: none is removed */
    r = last_record();
    CHECK(!json_get(r, "key_removed"));
    cJSON_Delete(r);
}

/* Breaks where a refusal shows a part of what it refuses. */
TEST(credentials_that_no_header_may_hold) {
    static const char *const bad[] = {
        "", " \n\t", "sk-hunter2 sk-hunter3", "sk-hunter2\nX-Evil: 1", "sk-hunt\x01", "sk-hunter2\xc3\xa4"};
    err e = {0};
    char longer[CREDENTIAL_MAX + 2];
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add(ACME, &e), e);
    uint64_t before = size();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_INT(set_key("acme", bad[i], &e), ERR_INVALID);
        CHECK(!strstr(e.msg, "hunt"));
    }
    CHECK_INT(provider_set_key(b.i, b.inf, NULL, "acme", "sk-\0x", 5, &e), ERR_INVALID);
    memset(longer, 'x', sizeof longer);
    longer[CREDENTIAL_MAX + 1] = 0;
    CHECK_INT(set_key("acme", longer, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "8193 bytes, at most 8192");
    CHECK_INT(set_key("nobody", "sk-hunter2", &e), ERR_NOT_FOUND);
    CHECK_INT(set_key("engine", "sk-hunter2", &e), ERR_INVALID);
    CHECK_INT(size(), before);
    longer[CREDENTIAL_MAX] = 0;
    CHECK_OK(set_key("acme", longer, &e), e);
    CHECK(has_credential("acme", longer));
}

/* Breaks where a row that was moved to another provider, or changed, is used. */
TEST(credentials_open_for_their_provider_only) {
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add(ACME, &e), e);
    CHECK_OK(add("{\"name\":\"evil\",\"driver\":\"openai\",\"url\":\"https://evil.example\"}", &e), e);
    CHECK_OK(set_key("acme", "sk-hunter2", &e), e);
    store *s = island_store(b.i);
    CHECK_OK(store_write(s, "UPDATE provider_keys SET provider = 'evil'", NULL, 0, NULL, &e), e);
    CHECK_INT(perimeter_reload(b.inf, &e), ERR_CORRUPT);
    CHECK_HAS(e.msg, "provider 'evil'");
    CHECK_HAS(e.msg, "set-key");
    CHECK(has_credential("evil", NULL)); /* the snapshot of before stays */
    CHECK(has_credential("acme", "sk-hunter2"));
    CHECK_OK(store_write(s, "UPDATE provider_keys SET provider = 'acme'", NULL, 0, NULL, &e), e);
    CHECK_OK(perimeter_reload(b.inf, &e), e);
    CHECK_OK(store_write(s, "UPDATE provider_keys SET sealed = zeroblob(60)", NULL, 0, NULL, &e), e);
    CHECK_INT(perimeter_reload(b.inf, &e), ERR_CORRUPT);
    CHECK_OK(store_write(s, "UPDATE provider_keys SET sealed = zeroblob(3)", NULL, 0, NULL, &e), e);
    inference_close(b.inf);
    b.inf = NULL;
    CHECK_INT(inference_open(&b.inf, b.i, &e), ERR_CORRUPT);
    CHECK_OK(set_key("acme", "sk-again", &e), e); /* the way out that the sentence names */
    CHECK_OK(inference_open(&b.inf, b.i, &e), e);
    CHECK(has_credential("acme", "sk-again"));
}

/* ---- candidates -------------------------------------------------------------------------------------------- */

/* Breaks where candidates lose their order, a name leads to what is not there, or a list does not show it. */
TEST(routes_are_set_and_listed) {
    err e = {0};
    cJSON *out = NULL, *r;
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(bed_add(&b, b.file, "tiny", &e), e);
    CHECK_OK(add(ACME, &e), e);
    uint64_t before = size();
    CHECK_INT(route("chat", "[{\"provider\":\"nobody\",\"model\":\"x\"}]", &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "model 'chat': candidate 1: provider 'nobody'");
    CHECK_INT(route("chat", "[{\"provider\":\"engine\",\"model\":\"x\"}]", &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "the engine has no model 'x'");
    CHECK_INT(route("chat", "[]", &e), ERR_NOT_FOUND);
    CHECK_INT(route("a b", "[{\"provider\":\"acme\",\"model\":\"x\"}]", &e), ERR_INVALID);
    static const char *const bad[][2] = {
        {"{}", "must be a list"},
        {"[1]", "an object"},
        {"[{\"provider\":\"acme\"}]", "needed"},
        {"[{\"provider\":\"acme\",\"model\":\"x\",\"wait\":1}]", "\"wait\""},
        {"[{\"provider\":\"acme\",\"model\":\"x\",\"weight\":0}]", "weight"},
        {"[{\"provider\":\"acme\",\"model\":\"x\",\"weight\":1001}]", "weight"},
        {"[{\"provider\":\"acme\",\"model\":\"x\",\"rank\":16}]", "rank"},
        {"[{\"provider\":\"acme\",\"model\":\"a b\"}]", "without blanks"},
        {"[{\"provider\":\"acme\",\"model\":\"x\"},{\"provider\":\"acme\",\"model\":\"x\"}]", "candidate 2"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_INT(route("chat", bad[i][0], &e), ERR_INVALID);
        CHECK_HAS(e.msg, bad[i][1]);
    }
    CHECK_INT(size(), before);
    CHECK_OK(
        route("chat",
              "[{\"provider\":\"engine\",\"model\":\"tiny\",\"rank\":2},{\"provider\":\"acme\",\"model\":\"large\","
              "\"weight\":3,\"rank\":0},{\"provider\":\"acme\",\"model\":\"big:2\",\"rank\":0}]",
              &e),
        e);
    r = last_record();
    CHECK(record_is(r, "route.changed"));
    CHECK_STR(at(r, "from"), "[]");
    CHECK_STR(at(r, "to.0"), "{\"model\":\"large\",\"provider\":\"acme\",\"rank\":0,\"weight\":3}");
    CHECK_STR(at(r, "to.2.provider"), "\"engine\"");
    cJSON_Delete(r);
    perimeter *p = perimeter_get(b.inf);
    const model_route *m = perimeter_route(p, "chat");
    CHECK(m && m->n == 3 && !perimeter_route(p, "cha") && !perimeter_route(p, "tiny"));
    CHECK(m->list[0].provider == 1 && m->list[0].weight == 3 && strcmp(m->list[1].model, "big:2") == 0);
    CHECK(m->list[2].provider == 0 && m->list[2].rank == 2);
    perimeter_put(b.inf, p);
    /* lists of models show them */
    CHECK_OK(route("a-name", "[{\"provider\":\"acme\",\"model\":\"x\"}]", &e), e);
    CHECK_OK(
        route("tiny", "[{\"provider\":\"engine\",\"model\":\"tiny\"},{\"provider\":\"acme\",\"model\":\"x\"}]", &e), e);
    CHECK_OK(models_list(b.i, &out, &e), e);
    CHECK_INT(cJSON_GetArraySize(json_get(out, "models")), 3);
    CHECK_STR(at(out, "models.0.name"), "\"a-name\"");
    CHECK_STR(at(out, "models.1.name"), "\"chat\"");
    CHECK_STR(at(out, "models.1.candidates.1.model"), "\"big:2\"");
    CHECK_STR(at(out, "models.2.name"), "\"tiny\"");
    CHECK_STR(at(out, "models.2.candidates.1.rank"), "1");
    CHECK(at(out, "models.2.digest"));
    cJSON_Delete(out);
    CHECK_OK(models_show(b.i, "chat", &out, &e), e);
    CHECK_STR(at(out, "candidates.0.model"), "\"large\"");
    cJSON_Delete(out);
    CHECK(models_verify(b.i, "chat", &out, &e) != ERR_OK);
    CHECK_HAS(e.msg, "answered elsewhere");
    CHECK_INT(models_show(b.i, "chap", &out, &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "a-name, chat, tiny");
    /* nothing is removed that a name leads to */
    CHECK_INT(provider_remove(b.i, b.inf, NULL, "acme", &e), ERR_EXISTS);
    CHECK_HAS(e.msg, "'a-name' still leads to it");
    CHECK_INT(models_remove(b.i, NULL, "tiny", &e), ERR_EXISTS);
    CHECK_HAS(e.msg, "'chat' still leads to it");
    before = size();
    CHECK_OK(
        route("tiny", "[{\"provider\":\"engine\",\"model\":\"tiny\"},{\"provider\":\"acme\",\"model\":\"x\"}]", &e), e);
    CHECK_INT(size(), before); /* the same again is no change */
    CHECK_OK(route("tiny", "[]", &e), e);
    CHECK_OK(route("a-name", "[]", &e), e);
    CHECK_OK(route("chat", "[{\"provider\":\"engine\",\"model\":\"tiny\"}]", &e), e);
    CHECK_OK(provider_remove(b.i, b.inf, NULL, "acme", &e), e);
    CHECK_OK(route_list(b.i, &out, &e), e);
    CHECK_STR(at(out, "routes"), "[{\"model\":\"chat\",\"candidates\":[{\"provider\":\"engine\",\"model\":\"tiny\","
                                 "\"weight\":1,\"rank\":0}]}]");
    cJSON_Delete(out);
}

/* ---- the policy -------------------------------------------------------------------------------------------- */

static const char policy_a[] = "allow any label to on-prem\nallow public to any provider\n";
static const char policy_b[] = "allow any label to on-prem\n";

static uint64_t allowed_public(void) {
    perimeter *p = perimeter_get(b.inf);
    uint64_t mask = policy_allowed(p->table, (sensitivity){0, 0});
    perimeter_put(b.inf, p);
    return mask;
}

/* Breaks where a text that cannot be read comes into force, or one that can does not, or not at once. */
TEST(policies_come_into_force) {
    err e = {0};
    cJSON *out = NULL, *r;
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add(ACME, &e), e);
    CHECK_INT(allowed_public(), 1);
    CHECK_OK(policy_active(b.i, &out, &e), e);
    CHECK_STR(at(out, "default"), "true");
    CHECK_STR(at(out, "since"), "null");
    cJSON_Delete(out);
    uint64_t before = size();
    CHECK_INT(activate(NULL, "allow any label to on-prem\nallow pubic to any provider\n", &out, &e), ERR_USAGE);
    CHECK_HAS(e.msg, "policy:2:7");
    CHECK(!out);
    CHECK_INT(size(), before);
    CHECK_OK(activate(NULL, policy_a, &out, &e), e);
    CHECK_STR(at(out, "active"), "true");
    CHECK_STR(at(out, "waiting_for"), "null");
    r = last_record();
    CHECK(record_is(r, "policy.activated"));
    CHECK_STR(at(r, "digest"), at(out, "digest"));
    CHECK(at(r, "content.policy"));
    buf text = {.max = 10000};
    CHECK_OK(ledger_content(island_ledger(b.i), size() - 1, "policy", &text, &e), e);
    CHECK_STR(buf_str(&text), policy_a);
    buf_free(&text);
    cJSON_Delete(r);
    CHECK_INT(allowed_public(), 3);
    perimeter *p = perimeter_get(b.inf);
    CHECK(strncmp(at(out, "digest") + 1, p->policy_hex, SHA256_HEX_LEN) == 0);
    perimeter_put(b.inf, p);
    cJSON_Delete(out);
    before = size();
    CHECK_OK(activate(NULL, policy_a, &out, &e), e); /* in force already */
    CHECK_STR(at(out, "active"), "true");
    CHECK_INT(size(), before);
    cJSON_Delete(out);
    CHECK_OK(policy_active(b.i, &out, &e), e);
    CHECK_STR(at(out, "default"), "false");
    CHECK_STR(at(out, "by"), "\"local\"");
    CHECK_HAS(at(out, "text"), "any provider");
    cJSON_Delete(out);
    policy_world w;
    CHECK_OK(policy_world_open(&w, b.i, &e), e);
    CHECK_INT(w.n_providers, 2);
    CHECK_STR(w.providers[1].name, "acme");
    CHECK_INT(w.labels.n, 4);
    policy_world_close(&w);
    char *big = mem_zalloc(POLICY_BYTES_MAX + 2);
    memset(big, '\n', POLICY_BYTES_MAX + 1);
    CHECK_INT(activate(NULL, big, &out, &e), ERR_USAGE);
    mem_free(big);
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

/* Breaks where one person alone can open the perimeter of an island that wants two. */
TEST(policies_of_two_keys) {
    err e = {0};
    cJSON *out = NULL, *r;
    char text[KEY_TEXT_MAX];
    identity one, two, three, gone, control = ADMIN("control"), user = ADMIN("k_user");
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(reopen("policy:\n  two_keys: true\n", &e), e);
    CHECK_OK(add(ACME, &e), e);
    CHECK_OK(key_add(b.i, NULL, "one", ROLE_ADMIN, text, &one, &e), e);
    CHECK_OK(key_add(b.i, NULL, "two", ROLE_ADMIN, text, &two, &e), e);
    CHECK_OK(key_add(b.i, NULL, "three", ROLE_ADMIN, text, &three, &e), e);
    CHECK_OK(key_add(b.i, NULL, "gone", ROLE_ADMIN, text, &gone, &e), e);
    uint64_t before = size();
    user.role = ROLE_OPERATOR;
    identity made;
    CHECK_INT(key_add(b.i, &one, "mine too", ROLE_ADMIN, text, &made, &e), ERR_DENIED); /* the second key for oneself */
    CHECK_HAS(e.msg, "two_keys");
    CHECK_INT(activate(NULL, policy_a, &out, &e), ERR_DENIED);
    CHECK_HAS(e.msg, "policy.activate");
    CHECK_INT(activate(&control, policy_a, &out, &e), ERR_DENIED);
    CHECK_INT(activate(&user, policy_a, &out, &e), ERR_DENIED);
    CHECK_INT(size(), before);
    CHECK_INT(size(), before);
    CHECK_OK(key_add(b.i, &one, "a reader", ROLE_AUDITOR, text, &made, &e), e);
    CHECK_OK(activate(&one, policy_a, &out, &e), e);
    CHECK_STR(at(out, "active"), "false");
    CHECK_HAS(at(out, "waiting_for"), "another");
    cJSON_Delete(out);
    r = last_record();
    CHECK(record_is(r, "policy.proposed"));
    CHECK(at(r, "content.policy"));
    cJSON_Delete(r);
    before = size();
    CHECK_OK(activate(&one, policy_a, &out, &e), e); /* the same person again */
    CHECK_STR(at(out, "active"), "false");
    CHECK_INT(size(), before);
    cJSON_Delete(out);
    CHECK_INT(allowed_public(), 1);
    CHECK_OK(activate(&two, policy_b, &out, &e), e); /* another text is another proposal */
    CHECK_STR(at(out, "active"), "false");
    cJSON_Delete(out);
    CHECK_OK(activate(&one, policy_a, &out, &e), e);
    CHECK_STR(at(out, "active"), "false");
    cJSON_Delete(out);
    CHECK_INT(allowed_public(), 1);
    CHECK_OK(policy_active(b.i, &out, &e), e);
    CHECK_HAS(at(out, "proposed.by"), one.key_id);
    cJSON_Delete(out);
    CHECK_OK(activate(&two, policy_a, &out, &e), e);
    CHECK_STR(at(out, "active"), "true");
    cJSON_Delete(out);
    CHECK_INT(allowed_public(), 3);
    r = last_record();
    CHECK(record_is(r, "policy.activated"));
    CHECK_HAS(at(r, "by"), one.key_id);
    CHECK_HAS(at(r, "second"), two.key_id);
    cJSON_Delete(r);
    CHECK_OK(policy_active(b.i, &out, &e), e);
    CHECK(!at(out, "proposed"));
    cJSON_Delete(out);
    /* the key of who proposed was revoked meanwhile: the second becomes the first */
    CHECK_OK(activate(&gone, policy_b, &out, &e), e);
    cJSON_Delete(out);
    CHECK_OK(key_revoke(b.i, NULL, gone.key_id, &e), e);
    CHECK_OK(activate(&three, policy_b, &out, &e), e);
    CHECK_STR(at(out, "active"), "false");
    cJSON_Delete(out);
    CHECK_OK(activate(&one, policy_b, &out, &e), e);
    CHECK_STR(at(out, "active"), "true");
    cJSON_Delete(out);
    CHECK_INT(allowed_public(), 1);
}

/* Breaks where a policy that does not fit any more is silently replaced or half used. */
TEST(policies_that_do_not_fit_stop_the_opening) {
    err e = {0};
    cJSON *out = NULL;
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(activate(NULL, policy_a, &out, &e), e);
    cJSON_Delete(out);
    CHECK_INT(reopen("labels:\n  levels: open, closed\n", &e), ERR_INVALID);
    CHECK_HAS(e.msg, "policy:2:7");
    CHECK_HAS(e.msg, "polder policy activate");
    CHECK_OK(policy_active(b.i, &out, &e), e); /* what it says can still be read */
    CHECK_HAS(at(out, "text"), "allow public");
    cJSON_Delete(out);
    CHECK_OK(activate(NULL, "allow open to any provider\n", &out, &e), e);
    cJSON_Delete(out);
    CHECK_OK(inference_open(&b.inf, b.i, &e), e);
    CHECK_INT(reopen("detect:\n  rules: nothing-there\n", &e), ERR_USAGE);
    CHECK_HAS(e.msg, "detect.rules");
    CHECK_HAS(e.msg, "nothing-there");
}

/* ---- an island that is only read ---------------------------------------------------------------------------- */

TEST(providers_of_a_read_only_island) {
    err e = {0};
    cJSON *out = NULL;
    char sub[300];
    policy_world w;
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add(ACME, &e), e);
    CHECK_OK(activate(NULL, policy_a, &out, &e), e);
    cJSON_Delete(out);
    inference_close(b.inf);
    b.inf = NULL;
    island_close(b.i);
    b.i = NULL;
    snprintf(sub, sizeof sub, "%s/island", b.dir);
    CHECK_OK(island_open(&b.i, sub, ISLAND_READ, &e), e);
    CHECK_OK(provider_list(b.i, &out, &e), e);
    CHECK_INT(cJSON_GetArraySize(json_get(out, "providers")), 2);
    cJSON_Delete(out);
    CHECK_OK(policy_active(b.i, &out, &e), e);
    CHECK_STR(at(out, "default"), "false");
    cJSON_Delete(out);
    CHECK_OK(route_list(b.i, &out, &e), e);
    cJSON_Delete(out);
    CHECK_OK(policy_world_open(&w, b.i, &e), e);
    CHECK_INT(w.n_providers, 2);
    policy_world_close(&w);
    CHECK_INT(change("{\"name\":\"acme\",\"country\":\"DE\"}", &e), ERR_DENIED);
    CHECK_INT(activate(NULL, policy_b, &out, &e), ERR_DENIED);
    island_close(b.i);
    b.i = NULL;
    /* and of one that never had a server */
    test_rm(sub);
    CHECK_OK(island_init(sub, NULL, &e), e);
    CHECK_OK(island_open(&b.i, sub, ISLAND_READ, &e), e);
    CHECK_OK(provider_list(b.i, &out, &e), e);
    CHECK_INT(cJSON_GetArraySize(json_get(out, "providers")), 1);
    cJSON_Delete(out);
    CHECK_OK(route_list(b.i, &out, &e), e);
    CHECK_STR(at(out, "routes"), "[]");
    cJSON_Delete(out);
    CHECK_OK(policy_world_open(&w, b.i, &e), e);
    policy_world_close(&w);
    CHECK_OK(policy_active(b.i, &out, &e), e);
    CHECK_STR(at(out, "default"), "true");
    cJSON_Delete(out);
    CHECK_INT(provider_show(b.i, NULL, "acme", &out, &e), ERR_NOT_FOUND);
}

/* ---- faults ------------------------------------------------------------------------------------------------ */

/* All that a change could change, as text: rows and the snapshot in force. */
static char *state_text(void) {
    cJSON *providers = NULL, *routes = NULL, *now = NULL, *all = cJSON_CreateObject();
    if (provider_list(b.i, &providers, NULL) || route_list(b.i, &routes, NULL) || policy_active(b.i, &now, NULL))
        abort();
    cJSON_AddItemToObject(all, "p", providers);
    cJSON_AddItemToObject(all, "r", routes);
    cJSON_AddItemToObject(all, "n", now);
    perimeter *p = perimeter_get(b.inf);
    cJSON_AddStringToObject(all, "digest", p->policy_hex);
    cJSON_AddNumberToObject(all, "providers", (double)p->n_providers);
    cJSON_AddNumberToObject(all, "routes", (double)p->n_routes);
    for (size_t k = 1; k < p->n_providers; k++) {
        cJSON_AddStringToObject(all, "country", p->providers[k].facts.country);
        cJSON_AddStringToObject(all, "key", p->providers[k].credential ? p->providers[k].credential : "none");
    }
    perimeter_put(b.inf, p);
    char *text = cJSON_PrintUnformatted(all);
    cJSON_Delete(all);
    return text;
}

static err_code op_add(err *e) {
    return add("{\"name\":\"beta\",\"driver\":\"anthropic\",\"url\":\"https://b.example\"}", e);
}
static err_code op_change(err *e) {
    return change("{\"name\":\"acme\",\"country\":\"DE\"}", e);
}
static err_code op_key(err *e) {
    return set_key("acme", "sk-hunter2", e);
}
static err_code op_route(err *e) {
    return route("chat", "[{\"provider\":\"acme\",\"model\":\"x\"}]", e);
}
static err_code op_policy(err *e) {
    cJSON *out = NULL;
    err_code rc = activate(NULL, policy_a, &out, e);
    cJSON_Delete(out);
    return rc;
}
static err_code op_route_off(err *e) {
    return route("chat", "[]", e);
}
static err_code op_remove(err *e) {
    return provider_remove(b.i, b.inf, NULL, "acme", e);
}
static err_code (*const ops[])(err *e) = {op_add, op_change, op_key, op_route, op_policy, op_route_off, op_remove};

/* Breaks where a change holds that the ledger does not know. */
TEST(changes_need_their_record) {
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add(ACME, &e), e);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        char *before = state_text();
        atomic_store(&disk_fails, 1);
        err_code rc = ops[i](&e);
        atomic_store(&disk_fails, 0);
        char *after = state_text();
        CHECK(rc != ERR_OK);
        CHECK_STR(after, before);
        free(before);
        free(after);
        /* a failed sync is final: open anew */
        inference_close(b.inf);
        b.inf = NULL;
        island_close(b.i);
        char sub[300];
        snprintf(sub, sizeof sub, "%s/island", b.dir);
        CHECK_OK(island_open(&b.i, sub, ISLAND_WRITE, &e), e);
        CHECK_OK(inference_open(&b.inf, b.i, &e), e);
        CHECK_OK(ops[i](&e), e);
    }
}

static void *hook_alloc(size_t n) {
    return mem_alloc(n);
}

/* What must be there, or not, before each of the operations. */
static void prepare(size_t op) {
    err e = {0};
    if (op == 0) (void)provider_remove(b.i, b.inf, NULL, "beta", &e);
    if (op == 1) (void)change("{\"name\":\"acme\",\"country\":\"FR\"}", &e);
    if (op == 2) (void)set_key("acme", "sk-before", &e);
    if (op == 3) (void)route("chat", "[]", &e);
    if (op == 5) (void)op_route(&e);
    if (op == 6) (void)add(ACME, &e);
    if (op != 4) return;
    cJSON *out = NULL;
    (void)activate(NULL, policy_b, &out, &e);
    cJSON_Delete(out);
}

/* One operation whose n-th allocation fails. *fired: there were so many. NULL, or what is wrong. */
static const char *change_with_fault(size_t op, int64_t n, bool *fired, int *failures) {
    err e = {0};
    prepare(op);
    char *before = state_text();
    uint64_t records = size();
    fault_armed = true;
    int64_t count = mem_count();
    mem_fail_after(fault_at = n);
    err_code rc = ops[op](&e);
    mem_fail_after(-1);
    fault_armed = false;
    *fired = mem_count() - count > n;
    *failures += rc != ERR_OK;
    char *after = state_text();
    bool changed = strcmp(before, after) != 0;
    mem_free(before);
    mem_free(after);
    /* an error of the reply, when the change was done already, is one of the reply only */
    if (size() != records + changed) return "rows and records differ";
    if (rc == ERR_OK && !changed) return "done, and nothing changed";
    return rc && rc != ERR_NOMEM && rc != ERR_UNAVAILABLE ? "another error" : NULL;
}

/* Breaks where a failed allocation leaves half a change: rows, snapshot and ledger agree after each. */
TEST(changes_survive_failed_allocations) {
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add(ACME, &e), e);
    cJSON_Hooks hooks = {hook_alloc, mem_free};
    cJSON_InitHooks(&hooks);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        bool fired = true;
        int failures = 0;
        for (int64_t n = 0; fired; n += 1 + n / 40) {
            const char *bad = change_with_fault(i, n, &fired, &failures);
            if (bad) FAIL("operation %zu, allocation %d: %s", i, (int)n, bad);
        }
        CHECK(failures > 20);
    }
    json_memory_init();
}

TEST(reading_survives_failed_allocations) {
    err e = {0};
    policy_world w;
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(add(ACME, &e), e);
    for (size_t i = 0; i < 5; i++) CHECK_OK(ops[i](&e), e);
    cJSON_Hooks hooks = {hook_alloc, mem_free};
    cJSON_InitHooks(&hooks);
    for (int what = 0; what < 6; what++) {
        err_code rc = ERR_NOMEM;
        int failures = 0;
        for (int64_t n = 0; n < 4000 && rc; n++) {
            cJSON *out = NULL;
            mem_fail_after(n);
            switch (what) {
            case 0: rc = provider_list(b.i, &out, &e); break;
            case 1: rc = provider_show(b.i, b.inf, "acme", &out, &e); break;
            case 2: rc = route_list(b.i, &out, &e); break;
            case 3: rc = policy_active(b.i, &out, &e); break;
            case 4: rc = models_list(b.i, &out, &e); break;
            default: rc = policy_world_open(&w, b.i, &e); policy_world_close(&w);
            }
            mem_fail_after(-1);
            if (rc && out) FAIL("reading %d: an error and a result", what);
            if (rc && rc != ERR_NOMEM) FAIL("reading %d: %s", what, e.msg);
            cJSON_Delete(out);
            failures += rc != ERR_OK;
        }
        CHECK(rc == ERR_OK && failures > 5);
    }
    json_memory_init();
}

static void each(const char *name, void (*fn)(void)) {
    test_run(name, fn);
    log_set_level(LOG_ERROR);
    atomic_store(&disk_fails, 0);
    mem_fail_after(-1);
    fault_armed = false;
    json_memory_init();
    if (b.dir[0]) bed_close(&b);
}
#undef RUN
#define RUN(name) each(#name, test_case_##name)

int main(int argc, char **argv) {
    test_begin(argc, argv);
    log_set_level(LOG_ERROR);
    disk_install();
    RUN(providers_are_added_changed_and_removed);
    RUN(providers_bad_facts_are_refused);
    RUN(providers_addresses);
    RUN(providers_have_a_limit);
    RUN(credentials_are_sealed_and_rotate);
    RUN(a_credential_goes_with_its_server);
    RUN(credentials_that_no_header_may_hold);
    RUN(credentials_open_for_their_provider_only);
    RUN(routes_are_set_and_listed);
    RUN(policies_come_into_force);
    RUN(policies_of_two_keys);
    RUN(policies_that_do_not_fit_stop_the_opening);
    RUN(providers_of_a_read_only_island);
    RUN(changes_need_their_record);
    RUN(changes_survive_failed_allocations);
    RUN(reading_survives_failed_allocations);
    return test_end();
}
