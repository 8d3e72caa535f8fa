/* Requests that providers answer, from the pipeline's view, with a provider that misbehaves on demand. Breaks when a
 * request reaches a place that the policy does not allow, when a byte leaves before its egress record, when a value
 * leaves that had to be redacted or does not come back, when another candidate is asked after an answer has begun, or
 * when a failure leaves an admitted request without its one outcome. */
#include "base/loop.h"
#include "support.h"

#include "mock.h"

#define IBAN "DE89370400440532013000"

#define LARGE 300000 /* bytes of a text */

static bed b;
static mock *inside, *outside;

static cJSON *tree(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static cJSON *tree(const char *fmt, ...) {
    static char text[LARGE + 4000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    cJSON *v = NULL;
    err e = {0};
    if (json_parse(&v, text, strlen(text), "test", &e)) fprintf(stderr, "%s: %s\n", e.msg, text);
    return v;
}

static err_code add_provider(const char *name, const mock *m, bool in, const char *country, err *e) {
    cJSON *out = NULL,
          *f = tree("{\"name\":\"%s\",\"driver\":\"openai\",\"url\":\"http://127.0.0.1:%d/v1\",\"inside\":%s,"
                    "\"country\":\"%s\",\"operator_law\":\"%s\",\"retention_days\":0,\"training\":false,"
                    "\"operator\":\"%s\",\"price_in\":1,\"price_out\":2}",
                    name, mock_port(m), in ? "true" : "false", country, country, name);
    err_code rc = provider_add(b.i, b.inf, NULL, f, &out, e);
    cJSON_Delete(f);
    cJSON_Delete(out);
    if (!rc) rc = provider_set_key(b.i, b.inf, NULL, name, "sk-test-0123456789", 18, e);
    return rc;
}

/* "outside:echo inside:echo engine:tiny": one rank each. */
static void route(const char *name, const char *candidates) {
    cJSON *list = cJSON_CreateArray(), *out = NULL;
    char text[400], *save = NULL;
    err e = {0};
    int rank = 0;
    snprintf(text, sizeof text, "%s", candidates);
    for (char *c = strtok_r(text, " ", &save); c; c = strtok_r(NULL, " ", &save)) {
        char *colon = strchr(c, ':');
        *colon = 0;
        cJSON_AddItemToArray(list, tree("{\"provider\":\"%s\",\"model\":\"%s\",\"rank\":%d}", c, colon + 1, rank++));
    }
    CHECK_OK(route_set(b.i, b.inf, NULL, name, list, &out, &e), e);
    cJSON_Delete(list);
    cJSON_Delete(out);
}

static void policy_is(const char *text) {
    cJSON *out = NULL;
    err e = {0};
    CHECK_OK(policy_activate(b.i, b.inf, NULL, text, strlen(text), &out, &e), e);
    cJSON_Delete(out);
}

static void open_all(const char *upstream) {
    err e = {0};
    char config[400];
    snprintf(config, sizeof config, "  threads: 1\nupstream:\n%s", upstream);
    CHECK_OK(bed_open(&b, config, &e), e);
    CHECK_OK(bed_add(&b, b.file, "tiny", &e), e);
    inside = mock_start(0, NULL, NULL);
    outside = mock_start(0, NULL, NULL);
    CHECK(inside && outside);
    CHECK_OK(add_provider("inside", inside, true, "DE", &e), e);
    CHECK_OK(add_provider("outside", outside, false, "FR", &e), e);
    policy_is("zone eu = providers where jurisdiction in EU and operator-law in EU\n"
              "allow public to any provider\n"
              "allow internal to on-prem\n"
              "allow internal to eu after redact personal\n"
              "allow confidential to on-prem\n"
              "never special-category outside on-prem\n"
              "treat unlabelled as internal\n");
}

static void close_all(void) {
    mock_stop(inside);
    mock_stop(outside);
    bed_close(&b);
}

/* One answer to one user message. */
typedef struct asked {
    client c;
    err e;
    err_code rc;
    buf args; /* of a call */
    char route[64], label[96];
    int n_begun;
    bool text_on_fiber;
} asked;

static err_code hear(void *ctx, const event *ev) {
    asked *a = ctx;
    if (ev->kind == EV_ADMITTED) {
        a->n_begun++;
        snprintf(a->route, sizeof a->route, "%s", ev->route);
        snprintf(a->label, sizeof a->label, "%s", ev->label);
        a->c.admitted = ev->record;
    }
    if (ev->kind == EV_TEXT) {
        buf_append(&a->c.text[0], ev->text, ev->len);
        a->text_on_fiber = on_fiber();
    }
    if (ev->kind == EV_CALL_ARGS) buf_append(&a->args, ev->text, ev->len);
    if (ev->kind == EV_DONE) {
        a->c.completed = ev->record;
        a->c.completion_tokens = ev->completion_tokens;
    }
    return ERR_OK;
}

static int fail_at = -1; /* the allocation of pipeline_run that fails */
static loops *running;   /* requests are fibers of these; NULL: they are this thread's */

typedef struct call {
    const request *r;
    const event_sink *sink;
    asked *a;
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool done;
} call;

static void run_call(void *ctx) {
    call *c = ctx;
    mem_fail_after(fail_at);
    c->a->rc = pipeline_run(b.inf, c->r, c->sink, &c->a->e);
    mem_fail_after(-1);
    pthread_mutex_lock(&c->lock);
    c->done = true;
    pthread_cond_signal(&c->over);
    pthread_mutex_unlock(&c->lock);
}

static void run_here_or_there(asked *a, const request *r, const event_sink *sink) {
    call c = {.r = r, .sink = sink, .a = a};
    pthread_mutex_init(&c.lock, NULL);
    cond_init(&c.over);
    if (!running || loops_spawn(running, run_call, &c, &a->e) != ERR_OK) run_call(&c);
    pthread_mutex_lock(&c.lock);
    while (!c.done) cond_wait_ms(&c.over, &c.lock, 1000);
    pthread_mutex_unlock(&c.lock);
    pthread_cond_destroy(&c.over);
    pthread_mutex_destroy(&c.lock);
}

static void ask_for(asked *a, const char *name, const char *text, const char *label, bool stream, bool tool) {
    cJSON *messages = tree("[{\"role\":\"user\",\"content\":\"%s\"}]", text),
          *tools = tool ? tree("[{\"type\":\"function\",\"function\":{\"name\":\"pay\",\"parameters\":{\"type\":"
                               "\"object\",\"properties\":{\"text\":{\"type\":\"string\"}}}}}]")
                        : NULL;
    request r = {.dialect = "test",
                 .model = name,
                 .messages = messages,
                 .tools = tools,
                 .n_choices = 1,
                 .max_tokens = 20,
                 .parse = true,
                 .label = label,
                 .stream = stream};
    sampler_params_default(&r.sampling);
    memset(a, 0, sizeof *a);
    a->c.text[0].max = a->args.max = 1 << 20;
    event_sink sink = {.ctx = a, .event = hear};
    run_here_or_there(a, &r, &sink);
    cJSON_Delete(messages);
    cJSON_Delete(tools);
}

static void asked_free(asked *a) {
    buf_free(&a->c.text[0]);
    buf_free(&a->args);
}

static uint64_t requests(mock *m) {
    mock_stats s;
    mock_get_stats(m, &s);
    return s.requests;
}

/* The n-th (from 0) record of that event about request `of`; NULL where there is none. */
static cJSON *record_of(const char *what, uint64_t of, int n) {
    uint64_t size = ledger_size(island_ledger(b.i));
    for (uint64_t i = of; i < size; i++) {
        cJSON *r = bed_record(&b, i);
        const cJSON *q = json_get(r, "request");
        if (record_is(r, what) && cJSON_IsNumber(q) && (uint64_t)q->valuedouble == of && n-- == 0) return r;
        cJSON_Delete(r);
    }
    return NULL;
}

static const char *str(const cJSON *o, const char *key) {
    const cJSON *v = json_get(o, key);
    return cJSON_IsString(v) ? v->valuestring : "";
}

/* ---- cases ------------------------------------------------------------------------------------------------- */

static void one_answer(bool stream) {
    asked a;
    uint64_t before = requests(outside);
    route("chat", "outside:echo-1");
    ask_for(&a, "chat", "pay to " IBAN " now", "internal", stream, false);
    CHECK_OK(a.rc, a.e);
    CHECK_STR(buf_str(&a.c.text[0]), "pay to " IBAN " now");
    CHECK_STR(a.route, "outside");
    CHECK_STR(a.label, "internal, personal");
    CHECK_INT(requests(outside), before + 1);
    size_t n = 0;
    char *body = mock_last_body(outside, &n);
    CHECK_HAS(body, "[IBAN_1]");
    CHECK(!strstr(body, "0532013000"));
    cJSON *g = record_of("egress", a.c.admitted, 0), *done = record_of("completed", a.c.admitted, 0);
    CHECK(g && done);
    CHECK_INT(json_get(g, "bytes")->valuedouble, n);
    CHECK(cJSON_IsTrue(json_get(g, "pseudonymised")));
    CHECK_STR(str(g, "country"), "FR");
    CHECK_STR(str(done, "route"), "outside");
    CHECK(json_get(done, "cost_eur") != NULL);
    uint8_t digest[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    sha256_of(digest, body, n);
    hex_encode(hex, digest, sizeof digest);
    CHECK_STR(str(g, "sha256"), hex);
    free(body);
    cJSON_Delete(g);
    cJSON_Delete(done);
    asked_free(&a);
}

TEST(values_leave_as_placeholders_and_come_back) {
    open_all("  attempts: 4\n");
    if (!test_bad) one_answer(false);
    if (!test_bad) one_answer(true);
    asked a;
    route("chat", "outside:tool-1");
    ask_for(&a, "chat", "pay to " IBAN, "internal", true, true);
    CHECK_OK(a.rc, a.e);
    CHECK_HAS(buf_str(&a.args), IBAN);
    asked_free(&a);
    CHECK(!bed_balance(&b));
    close_all();
}

TEST(a_further_candidate_gets_the_same_placeholders) {
    open_all("  attempts: 4\n  breaker_failures: 1000\n");
    for (int i = 0; i < 2 && !test_bad; i++) {
        asked a;
        route("chat", "outside:fail-500 outside:echo");
        ask_for(&a, "chat", "pay to " IBAN " now", "internal", i, false);
        CHECK_OK(a.rc, a.e);
        CHECK_STR(buf_str(&a.c.text[0]), "pay to " IBAN " now");
        cJSON *one = record_of("egress", a.c.admitted, 0), *two = record_of("egress", a.c.admitted, 1);
        CHECK(one && two);
        CHECK(cJSON_IsTrue(json_get(one, "pseudonymised")) && cJSON_IsTrue(json_get(two, "pseudonymised")));
        size_t n = 0;
        char *body = mock_last_body(outside, &n);
        CHECK_HAS(body, "[IBAN_1]");
        CHECK(!strstr(body, "[IBAN_2]") && !strstr(body, "0532013000"));
        free(body);
        cJSON_Delete(one);
        cJSON_Delete(two);
        asked_free(&a);
    }
    CHECK(!bed_balance(&b));
    close_all();
}

TEST(nothing_reaches_a_place_that_is_not_allowed) {
    static const struct {
        const char *label, *text, *candidates;
        err_code rc;
        const char *route;
    } cases[] = {
        {"confidential", "hello", "outside:echo", ERR_DENIED, ""},
        {"confidential", "hello", "outside:echo inside:echo", ERR_OK, "inside"},
        {"confidential", "hello", "outside:echo engine:tiny", ERR_OK, "engine"},
        {"confidential", "hello", "inside:fail-500 outside:echo", ERR_UPSTREAM, ""},
        {"secret", "hello", "inside:echo outside:echo engine:tiny", ERR_DENIED, ""},
        {"internal", "she has diabetes mellitus", "outside:echo inside:echo", ERR_OK, "inside"},
    };
    open_all("  attempts: 2\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases && !test_bad; i++) {
        asked a;
        route("chat", cases[i].candidates);
        ask_for(&a, "chat", cases[i].text, cases[i].label, i & 1, false);
        if (a.rc != cases[i].rc) FAIL("case %zu: %s: %s", i, err_name(a.rc), a.e.msg);
        CHECK_STR(a.route, cases[i].route);
        asked_free(&a);
    }
    CHECK_INT(requests(outside), 0);
    CHECK(!bed_balance(&b));
    close_all();
}

TEST(the_next_candidate_is_asked_before_the_first_byte_only) {
    static const char *const broken[] = {"fail-500", "fail-429", "fail-401", "close-early", "garbage", "empty"};
    open_all("  attempts: 4\n  breaker_failures: 1000\n");
    for (size_t i = 0; i < sizeof broken / sizeof *broken && !test_bad; i++) {
        char candidates[100];
        asked a;
        snprintf(candidates, sizeof candidates, "outside:%s inside:echo", broken[i]);
        route("chat", candidates);
        ask_for(&a, "chat", "hello", "public", i & 1, false);
        if (a.rc) FAIL("%s: %s", broken[i], a.e.msg);
        CHECK_STR(buf_str(&a.c.text[0]), "hello");
        CHECK_STR(a.route, "inside");
        cJSON *one = record_of("egress", a.c.admitted, 0), *two = record_of("egress", a.c.admitted, 1);
        CHECK_STR(str(one, "provider"), "outside");
        CHECK_STR(str(two, "provider"), "inside");
        cJSON_Delete(one);
        cJSON_Delete(two);
        asked_free(&a);
    }
    asked a;
    uint64_t before = requests(inside);
    route("chat", "outside:cut-stream inside:echo");
    ask_for(&a, "chat", "hello there, this is long enough to be cut", "public", true, false);
    CHECK_INT(a.rc, ERR_UPSTREAM);
    CHECK_INT(a.n_begun, 1);
    CHECK_INT(requests(inside), before);
    asked_free(&a);
    CHECK(!bed_balance(&b));
    close_all();
}

TEST(a_slow_candidate_is_hedged) {
    open_all("  hedge_ms: 50\n");
    asked a;
    route("chat", "outside:slow-3000 inside:echo");
    uint64_t from = time_mono_ns();
    ask_for(&a, "chat", "hello", "public", true, false);
    CHECK_OK(a.rc, a.e);
    CHECK_STR(a.route, "inside");
    CHECK(time_mono_ns() - from < 2500000000u); /* it did not wait for the other */
    cJSON *done = record_of("completed", a.c.admitted, 0);
    CHECK_INT(cJSON_GetArraySize(json_get(done, "attempts")), 2);
    CHECK_STR(str(json_get(done, "attempts")->child, "outcome"), "lost");
    cJSON_Delete(done);
    asked_free(&a);
    close_all();
}

TEST(a_provider_that_fails_in_a_row_is_left_alone) {
    open_all("  breaker_failures: 3\n  breaker_open_s: 60\n  attempts: 2\n");
    asked a;
    route("chat", "outside:fail-500 inside:echo");
    for (int i = 0; i < 6; i++) {
        ask_for(&a, "chat", "hello", "public", false, false);
        CHECK_OK(a.rc, a.e);
        asked_free(&a);
    }
    CHECK_INT(requests(outside), 3);
    CHECK_INT(requests(inside), 6);
    close_all();
}

TEST(a_ledger_that_refuses_lets_nothing_out) {
    open_all("  attempts: 2\n");
    asked a;
    route("chat", "outside:echo");
    atomic_store(&disk_fails, 1);
    ask_for(&a, "chat", "hello", "public", false, false);
    atomic_store(&disk_fails, 0);
    CHECK_INT(a.rc, ERR_UNAVAILABLE);
    CHECK_INT(requests(outside), 0);
    asked_free(&a);
    close_all();
}

TEST(memory_that_is_short_leaves_one_outcome) {
    open_all("  attempts: 1\n");
    route("chat", "outside:echo");
    int fails = 0;
    for (int n = 0; n < 400; n += 7) {
        asked a;
        fail_at = n;
        ask_for(&a, "chat", "pay to " IBAN, "internal", n & 1, false);
        fail_at = -1;
        fails += a.rc != ERR_OK;
        const char *bad = bed_balance(&b);
        if (bad && a.rc != ERR_UNAVAILABLE) FAIL("allocation %d: %s: %s", n, bad, a.e.msg);
        asked_free(&a);
        if (bad) { /* it was the ledger's own allocation: that outcome is missing, as inference.h says */
            close_all();
            open_all("  attempts: 1\n");
            route("chat", "outside:echo");
        }
    }
    CHECK(fails > 5);
    close_all();
}

/* Asks with a grammar and a stop string that name the IBAN, then derives the answer from the ledger. */
static replay_report derive(const char *candidates, err *e) {
    static const char choices[] = "[\"pay " IBAN " today\",\"pay " IBAN " never\"]";
    replay_report out = {.outcome = REPLAY_UNEQUAL};
    replayer *rep = NULL;
    asked a = {.c = {.text = {{.max = 1 << 20}}}};
    request r = ask("chat", "pay to " IBAN " now", 60);
    r.label = "internal";
    r.sampling.temperature = 1;
    r.grammar = GRAMMAR_CHOICE;
    r.grammar_source = choices;
    r.grammar_len = sizeof choices - 1;
    r.n_stops = 1;
    r.stops[0] = IBAN " n";
    route("chat", candidates);
    event_sink sink = {.ctx = &a, .event = hear};
    err_code rc = pipeline_run(b.inf, &r, &sink, e);
    if (!rc && strcmp(a.route, "engine") == 0 && !strstr(buf_str(&a.c.text[0]), "pay ")) rc = ERR_NO;
    if (!rc) rc = replay_open(&rep, b.i, &(replay_options){.threads = 1}, e);
    if (!rc) rc = replay_answer(rep, a.c.completed, &out, e);
    if (rc || out.outcome == REPLAY_UNEQUAL) fprintf(stderr, "%s: %s%s\n", candidates, out.why, rc ? e->msg : "");
    replay_close(rep);
    asked_free(&a);
    return out;
}

/* Breaks where the records lack what the engine was asked in the end: another candidate was asked first, or values were
 * replaced in prompt, grammar and stop strings. */
TEST(answers_that_the_engine_took_over_are_derived_again) {
    static const char *const after[] = {"", " after redact personal"};
    err e = {0};
    open_all("  attempts: 4\n  breaker_failures: 1000\n");
    for (int k = 0; k < 4 && !test_bad; k++) { /* redacted for the provider, and for the engine, or not */
        char text[300];
        snprintf(text, sizeof text, "allow internal to any provider%s\nallow internal to on-prem%s\n", after[k & 1],
                 after[k >> 1]);
        policy_is(text);
        CHECK_INT(derive("engine:tiny", &e).outcome, REPLAY_EQUAL);
        CHECK_INT(derive("outside:fail-500 engine:tiny", &e).outcome, REPLAY_EQUAL);
    }
    CHECK(!bed_balance(&b));
    close_all();
}

TEST(answers_of_providers_cannot_be_derived) {
    err e = {0};
    replay_report out;
    replayer *rep = NULL;
    asked a;
    open_all("  attempts: 4\n");
    route("chat", "outside:echo");
    ask_for(&a, "chat", "hello", "public", false, false);
    CHECK_OK(a.rc, a.e);
    CHECK_OK(replay_open(&rep, b.i, &(replay_options){.threads = 1}, &e), e);
    CHECK_OK(replay_answer(rep, a.c.admitted, &out, &e), e);
    CHECK_INT(out.outcome, REPLAY_NOT_POSSIBLE);
    CHECK_HAS(out.why, "provider outside gave this answer");
    replay_close(rep);
    asked_free(&a);
    close_all();
}

/* Breaks when a large answer holds up a loop, or is cut where it goes over to another thread. */
TEST(a_large_answer_is_read_away_from_the_loop) {
    asked a;
    open_all("  attempts: 4\n");
    route("chat", "outside:echo-1");
    char *text = malloc(LARGE + 1);
    CHECK(text != NULL);
    for (int i = 0; i < LARGE; i++) text[i] = (char)('a' + i % 26);
    text[LARGE] = 0;
    ask_for(&a, "chat", "small", "public", false, false);
    CHECK_OK(a.rc, a.e);
    CHECK(a.text_on_fiber == (running != NULL));
    asked_free(&a);
    ask_for(&a, "chat", text, "public", false, false);
    CHECK_OK(a.rc, a.e);
    CHECK(!a.text_on_fiber);
    CHECK_STR(buf_str(&a.c.text[0]), text);
    cJSON *done = record_of("completed", a.c.admitted, 0);
    CHECK(done != NULL);
    cJSON_Delete(done);
    asked_free(&a);
    free(text);
    CHECK(!bed_balance(&b));
    close_all();
}

/* Twice: on a thread, and as a fiber. */
int main(int argc, char **argv) {
    err e;
    test_begin(argc, argv);
    disk_install();
again:
    RUN(a_large_answer_is_read_away_from_the_loop);
    RUN(values_leave_as_placeholders_and_come_back);
    RUN(a_further_candidate_gets_the_same_placeholders);
    RUN(nothing_reaches_a_place_that_is_not_allowed);
    RUN(the_next_candidate_is_asked_before_the_first_byte_only);
    RUN(a_slow_candidate_is_hedged);
    RUN(a_provider_that_fails_in_a_row_is_left_alone);
    RUN(a_ledger_that_refuses_lets_nothing_out);
    RUN(memory_that_is_short_leaves_one_outcome);
    RUN(answers_that_the_engine_took_over_are_derived_again);
    RUN(answers_of_providers_cannot_be_derived);
    if (!running) {
        if (loops_start(&running, 2, 1 << 20, &e) != ERR_OK) return 1;
        goto again;
    }
    loops_stop(running);
    return test_end();
}
