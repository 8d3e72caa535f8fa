/* The guard sees every content field of a request and replaces what it saw. Breaks when a field of `request` is added
 * to the pipeline and not to the guard's walk, when JSON inside text hides a value, or when what is replaced is not
 * what was found. */
#include "inference/guard.h"
#include "inference/restoring.h"

#include "base/json.h"
#include "base/mem.h"
#include "tests/harness.h"

#include <math.h>

#define IBAN "DE89370400440532013000"
#define CARD 4111111111111111.0

static perimeter p;
static provider engine;

static void world_open(void) {
    err e = {0};
    buf text = {.max = POLICY_BYTES_MAX};
    if (label_set_parse(&p.labels, LABELS_DEFAULT, &e)) exit(1);
    policy_default_text(&p.labels, &text);
    if (detector_new(&p.detector, NULL, 0, "none", &e) ||
        policy_parse(&p.policy, &p.labels, p.detector, buf_str(&text), text.len, "default", &e)) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    engine.facts = provider_facts_engine;
    p.providers = &engine;
    p.n_providers = 1;
    buf_free(&text);
}

static void world_close(void) {
    policy_free(p.policy);
    detector_free(p.detector);
}

static cJSON *json(const char *s) {
    err e = {0};
    cJSON *v = NULL;
    if (json_parse(&v, s, strlen(s), "test", &e)) fprintf(stderr, "%s\n", e.msg);
    return v;
}

/* A request with nothing in it. */
static request plain(void) {
    return (request){.dialect = "test", .model = "m", .n_choices = 1, .max_tokens = -1};
}

/* A place where a person's words can stand: fill puts the planted value there. */
typedef struct place {
    const char *name;
    const char *messages, *tools, *args;
    bool text, stop, schema, regex, only, input, query, number;
    const char *beside; /* must stay as it is */
} place;

static const place places[] = {
    {"user", "[{\"role\":\"user\",\"content\":\"pay to " IBAN " please\"}]"},
    {"system", "[{\"role\":\"system\",\"content\":\"" IBAN "\"}]"},
    {"name", "[{\"role\":\"user\",\"content\":\"hi\",\"name\":\"" IBAN "\"}]"},
    {"tool result", "[{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"{\\\"a\\\":\\\"" IBAN "\\\"}\"}]"},
    {"escaped result",
     "[{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"{\\\"a\\\":\\\"\\\\u0044E89370400440532013000\\\"}\"}]"},
    {"reasoning", "[{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":\"" IBAN "\"}]"},
    {"arguments", "[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\","
                  "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"to\\\":\\\"" IBAN "\\\"}\"}}]}]"},
    {"escaped arguments",
     "[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":{"
     "\"name\":\"f\",\"arguments\":\"{\\\"to\\\":\\\"\\\\u0044\\\\u00458937\\\\u0030400440532013000\\\"}\"}}]}]"},
    {"number in arguments",
     "[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"1\",\"type\":"
     "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"card\\\":4111111111111111}\"}}]}]",
     .number = true},
    {"arguments that are no JSON",
     "[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\","
     "\"function\":{\"name\":\"f\",\"arguments\":\"to " IBAN "\"}}]}]"},
    {"tool description", NULL, "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"" IBAN "\"}}]"},
    {"tool parameter", NULL,
     "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"" IBAN "\":{}}}}}]"},
    {"number in a tool", NULL,
     "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"enum\":[4111111111111111]}}}]",
     .number = true},
    /* a double holds no number of 19 digits; cJSON prints no more than 15 of this one with 16 */
    {"long number in arguments",
     "[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":{"
     "\"name\":\"f\",\"arguments\":\"{\\\"other\\\":4511738614168920,\\\"card\\\":6295187298747672371}\"}}]}]",
     .number = true, .beside = "4511738614168920"},
    {"long number in a tool", NULL,
     "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"maximum\":9223372036854775807,"
     "\"enum\":[6295187298747672371]}}}]",
     .number = true, .beside = "9223372036854775807"},
    {"template argument", NULL, NULL, "{\"who\":\"" IBAN "\"}"},
    {"raw prompt", .text = true},
    {"stop string", .stop = true},
    {"schema", .schema = true},
    {"regular expression", .regex = true},
    {"the one tool", .only = true},
    {"input of embeddings", .input = true},
    {"query", .query = true},
};

typedef struct filled {
    request r;
    cJSON *messages, *tools, *args;
    embed_request embed;
    embed_input input;
} filled;

static void fill(filled *x, const place *at) {
    *x = (filled){.r = plain()};
    if (at->messages) x->r.messages = x->messages = json(at->messages);
    if (at->tools) x->r.tools = x->tools = json(at->tools);
    if (at->args) x->r.template_args = x->args = json(at->args);
    if (at->text) x->r.text = "to " IBAN, x->r.text_len = strlen(x->r.text);
    if (at->stop) x->r.stops[x->r.n_stops++] = IBAN;
    if (at->schema) x->r.grammar = GRAMMAR_JSON_SCHEMA, x->r.grammar_source = "{\"enum\":[\"" IBAN "\"]}";
    if (at->regex) x->r.grammar = GRAMMAR_REGEX, x->r.grammar_source = "(" IBAN ")";
    if (x->r.grammar_source) x->r.grammar_len = strlen(x->r.grammar_source);
    if (at->only) x->r.tool_only = IBAN;
    if (at->input || at->query) {
        x->input = (embed_input){.text = at->input ? IBAN : "nothing", .len = at->input ? strlen(IBAN) : 7};
        x->embed = (embed_request){.inputs = &x->input, .n_inputs = 1};
        if (at->query) x->embed.query = "for " IBAN, x->embed.query_len = strlen(x->embed.query);
        x->r.embed = &x->embed;
    }
}

static void filled_free(filled *x) {
    cJSON_Delete(x->messages);
    cJSON_Delete(x->tools);
    cJSON_Delete(x->args);
}

/* Everything a request says, as one text. */
static void dump(buf *out, const request *r) {
    const cJSON *trees[] = {r->messages, r->tools, r->template_args};
    for (int i = 0; i < 3; i++) {
        if (trees[i]) json_write(out, trees[i]);
    }
    if (r->text) buf_append(out, r->text, r->text_len);
    for (uint32_t i = 0; i < r->n_stops; i++) buf_puts(out, r->stops[i]);
    if (r->grammar_source) buf_append(out, r->grammar_source, r->grammar_len);
    if (r->tool_only) buf_puts(out, r->tool_only);
    if (r->embed && r->embed->query) buf_append(out, r->embed->query, r->embed->query_len);
    for (uint32_t i = 0; r->embed && i < r->embed->n_inputs; i++)
        if (r->embed->inputs[i].text) buf_append(out, r->embed->inputs[i].text, r->embed->inputs[i].len);
}

static void check_place(const place *at) {
    filled x;
    guarded g = {0};
    err e = {0};
    fill(&x, at);
    unsigned ent = at->number ? ENT_CARD : ENT_IBAN;
    CHECK_OK(guard_label(&g, &p, &x.r, &e), e);
    if (g.counts[ent] != 1) FAIL("%s: it was not found", at->name);
    CHECK(g.s.flags & FLAG_PERSONAL);
    CHECK(!g.detector_failed);

    entity_set set = {0};
    CHECK(detector_find(p.detector, "personal", 8, &set));
    CHECK(guarded_count(&g, p.detector, &set) >= 1);
    redaction *map = NULL;
    redacted *red = NULL;
    CHECK_OK(redaction_new(&map, p.detector, &e), e);
    CHECK_OK(guard_redact(&red, &x.r, &g, &set, map, &e), e);
    buf now = {.max = 1 << 20}, before = {.max = 1 << 20};
    dump(&now, &red->r);
    dump(&before, &x.r);
    if (strstr(buf_str(&now), "0532013000") || strstr(buf_str(&now), "4111111111111111") ||
        strstr(buf_str(&now), "62951872"))
        FAIL("%s: it was not replaced: %s", at->name, buf_str(&now));
    CHECK_HAS(buf_str(&now), at->number ? "[CARD_1]" : "[IBAN_1]");
    if (at->beside) CHECK_HAS(buf_str(&now), at->beside);
    CHECK(strstr(buf_str(&before), "3013000") || strstr(buf_str(&before), "2013000") || at->number);
    buf_free(&now);
    buf_free(&before);
    redacted_free(red);
    redaction_free(map);
    guarded_free(&g);
    filled_free(&x);
}

TEST(every_field_is_seen_and_replaced) {
    for (size_t i = 0; i < sizeof places / sizeof *places && !test_bad; i++) check_place(&places[i]);
}

/* What only its name tells: the key stands beside the value in a call's arguments, as it would in a text. Breaks where
 * values of JSON are looked at alone, or what stands behind a list's or an object's name is forgotten. */
TEST(names_in_data_say_what_values_are) {
    static const struct {
        const char *args, *gone;
        unsigned ent;
    } cases[] = {{"{\"password\": \"hunter2Xy!\"}", "hunter2", ENT_PASSWORD},
                 {"{\"bsn\": \"111222333\"}", "111222333", ENT_NL_BSN},
                 {"{\"bsn\": 111222333}", "111222333", ENT_NL_BSN},
                 {"{\"user\": {\"bsn\": [\"-\", \"111222333\"]}}", "111222333", ENT_NL_BSN},
                 {"{\"passport\": \"L01X00T471\", \"n\": 1}", "L01X00T471", ENT_DE_IDCARD},
                 {"{\"bsn\": \"111222333, " IBAN "\"}", "0532013000", ENT_IBAN}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        request r = plain();
        guarded g = {0};
        err e = {0};
        entity_set set = {.bits = {UINT64_MAX, UINT64_MAX}};
        redaction *map = NULL;
        redacted *red = NULL;
        buf now = {.max = 1 << 20};
        cJSON *m = json("[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\"}}]}]");
        cJSON *f = cJSON_GetObjectItem(cJSON_GetObjectItem(m->child, "tool_calls")->child, "function");
        cJSON_AddStringToObject(f, "arguments", cases[i].args);
        r.messages = m;
        CHECK_OK(guard_label(&g, &p, &r, &e), e);
        if (g.counts[cases[i].ent] != 1) FAIL("%s: found %u", cases[i].args, g.counts[cases[i].ent]);
        CHECK_OK(redaction_new(&map, p.detector, &e), e);
        CHECK_OK(guard_redact(&red, &r, &g, &set, map, &e), e);
        dump(&now, &red->r);
        if (strstr(buf_str(&now), cases[i].gone)) FAIL("it is still there: %s", buf_str(&now));
        buf_free(&now);
        redacted_free(red);
        redaction_free(map);
        guarded_free(&g);
        cJSON_Delete(m);
    }
}

/* A schema's default is its property's. */
TEST(names_in_schemas_say_what_values_are) {
    static const char *const schemas[] = {
        "{\"properties\":{\"api_key\":{\"type\":\"string\",\"default\":\"Zx81kd92jdkQQ18skd0\"}}}",
        "{\"properties\":{\"api_key\":{\"examples\":[\"Zx81kd92jdkQQ18skd0\"]},\"name\":{\"type\":\"string\"}}}"};
    for (int i = 0; i < 2; i++) {
        buf text = {.max = 4096};
        guarded g = {0};
        err e = {0};
        request r = plain();
        buf_printf(&text, "[{\"function\":{\"name\":\"anna\",\"parameters\":%s}}]", schemas[i]);
        cJSON *tools = json(buf_str(&text));
        r.tools = tools;
        CHECK_OK(guard_label(&g, &p, &r, &e), e);
        CHECK_INT(g.counts[ENT_API_KEY], 1);
        CHECK_INT(g.n, 1); /* the tool's name and "string" are nobody's */
        guarded_free(&g);
        cJSON_Delete(tools);
        buf_free(&text);
    }
}

/* Numbers of few digits, and of more than a double counts, that an owner's pattern knows. */
TEST(short_and_huge_numbers_are_seen) {
    static const char rules[] = "pattern staff : (4711|123456789012345678901234567890)\n";
    static const char *const args[] = {"{\"no\": 4711}", "{\"no\": 123456789012345678901234567890}"};
    detector *d = NULL, *usual = p.detector;
    policy *before = p.policy;
    buf text = {.max = POLICY_BYTES_MAX};
    err e = {0};
    policy_default_text(&p.labels, &text);
    CHECK_OK(detector_new(&d, rules, strlen(rules), "rules", &e), e);
    CHECK_OK(policy_parse(&p.policy, &p.labels, d, buf_str(&text), text.len, "default", &e), e);
    p.detector = d;
    for (int i = 0; i < 2; i++) {
        request r = plain();
        guarded g = {0};
        cJSON *v = json(args[i]);
        r.tools = v;
        CHECK_OK(guard_label(&g, &p, &r, &e), e);
        if (!g.counts[ENT_BUILT_IN]) FAIL("%s", args[i]);
        guarded_free(&g);
        cJSON_Delete(v);
    }
    policy_free(p.policy);
    p.policy = before;
    p.detector = usual;
    detector_free(d);
    buf_free(&text);
}

TEST(token_ids_count_as_a_failed_detector) {
    const int32_t ids[] = {1, 2, 3};
    embed_input in = {.tokens = ids, .n_tokens = 3};
    embed_request q = {.inputs = &in, .n_inputs = 1};
    request r[2] = {plain(), plain()};
    r[0].tokens = ids, r[0].n_tokens = 3;
    r[1].embed = &q;
    for (int i = 0; i < 2; i++) {
        guarded g = {0};
        err e = {0};
        CHECK_OK(guard_label(&g, &p, &r[i], &e), e);
        CHECK(g.detector_failed);
        CHECK_INT(g.s.level, p.labels.n - 1); /* the default policy treats it as the highest */
        guarded_free(&g);
    }
}

static void check_level(const request *r, const char *want) {
    guarded g = {0};
    err e = {0};
    char text[SENSITIVITY_TEXT];
    CHECK_OK(guard_label(&g, &p, r, &e), e);
    sensitivity_text(text, &p.labels, g.s);
    CHECK_STR(text, want);
    guarded_free(&g);
}

TEST(labels_only_rise) {
    request r = plain();
    r.text = "hello", r.text_len = 5;
    r.label = "public";
    check_level(&r, "public");
    r.label_header = "internal";
    check_level(&r, "internal");
    r.label = "secret";
    check_level(&r, "secret");
    r.label = "public, credential";
    check_level(&r, "internal, credential");
    snprintf(r.who.floor, sizeof r.who.floor, "confidential");
    check_level(&r, "confidential, credential");
    r.context = (sensitivity){.level = 3, .flags = FLAG_SPECIAL};
    r.has_context = true;
    check_level(&r, "secret, special-category, credential");
    r = plain();
    r.label = "public";
    snprintf(r.who.floor, sizeof r.who.floor, "a-level-that-is-gone");
    check_level(&r, "secret, personal, special-category, credential");
    guarded g = {0};
    err e = {0};
    r.label = "nonsense";
    CHECK_INT(guard_label(&g, &p, &r, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "confidential");
    guarded_free(&g);
}

/* A purpose stands in the ledger in clear. */
TEST(purposes_name_nobody) {
    static const char *const purposes[] = {"claims, first level", "claim of anna@mail.example", ("token " IBAN),
                                           "password: hunter22"};
    for (int i = 0; i < 4; i++) {
        request r = plain();
        guarded g = {0};
        err e = {0};
        r.purpose = purposes[i];
        CHECK_INT(guard_label(&g, &p, &r, &e), i ? ERR_INVALID : ERR_OK);
        if (i) CHECK_HAS(e.msg, "x-polder-purpose");
        CHECK(!strstr(e.msg, "anna@"));
        guarded_free(&g);
    }
}

typedef struct heard {
    buf text[REQUEST_CHOICES_MAX], args;
    char name[64], stop[64];
} heard;

static err_code hear(void *ctx, const event *ev) {
    heard *h = ctx;
    if (ev->kind == EV_TEXT) buf_append(&h->text[ev->choice], ev->text, ev->len);
    if (ev->kind == EV_CALL_ARGS) buf_append(&h->args, ev->text, ev->len);
    if (ev->kind == EV_FINISH && ev->stop) snprintf(h->stop, sizeof h->stop, "%s", ev->stop);
    if (ev->kind == EV_CALL) snprintf(h->name, sizeof h->name, "%.*s", (int)ev->len, ev->text);
    return ERR_OK;
}

/* Two choices whose pieces alternate, cut in every place. */
TEST(answers_are_restored_whatever_the_cut) {
    static const char said[] = "Send it to [IBAN_1], then tell [IBAN_1] again [IBAN_9].";
    static const char want[] = "Send it to " IBAN ", then tell " IBAN " again [IBAN_9].";
    request r = plain();
    r.text = IBAN, r.text_len = strlen(IBAN);
    guarded g = {0};
    redaction *map = NULL;
    redacted *red = NULL;
    entity_set set = {0};
    err e = {0};
    entity_set_add(&set, ENT_IBAN);
    CHECK_OK(guard_label(&g, &p, &r, &e), e);
    CHECK_OK(redaction_new(&map, p.detector, &e), e);
    CHECK_OK(guard_redact(&red, &r, &g, &set, map, &e), e);
    CHECK_STR(red->r.text, "[IBAN_1]");
    for (size_t cut = 1; cut < sizeof said - 1; cut++) {
        restoring *x = NULL;
        heard h = {.args = {.max = 4096}};
        for (int c = 0; c < REQUEST_CHOICES_MAX; c++) h.text[c].max = 4096;
        CHECK_OK(restoring_new(&x, map, false, &e), e);
        for (size_t at = 0; at < sizeof said - 1; at += cut)
            for (uint32_t c = 0; c < 2; c++) {
                size_t n = sizeof said - 1 - at < cut ? sizeof said - 1 - at : cut;
                event ev = {.kind = EV_TEXT, .choice = c, .text = said + at, .len = n};
                CHECK_OK(restoring_event(x, &ev, hear, &h, &e), e);
            }
        for (uint32_t c = 0; c < 2; c++) {
            event steps[] = {{.kind = EV_CALL, .choice = c, .text = "pay", .len = 3},
                             {.kind = EV_CALL_ARGS, .choice = c, .text = "{\"to\":\"[IBA", .len = 11},
                             {.kind = EV_CALL_ARGS, .choice = c, .text = "N_1]\"}", .len = 6},
                             {.kind = EV_CALL_END, .choice = c},
                             {.kind = EV_FINISH, .choice = c, .reason = "stop", .stop = "until [IBAN_1]"}};
            for (int k = 0; k < 5; k++) CHECK_OK(restoring_event(x, &steps[k], hear, &h, &e), e);
        }
        for (int c = 0; c < 2; c++) CHECK_STR(buf_str(&h.text[c]), want);
        CHECK_STR(buf_str(&h.args), "{\"to\":\"" IBAN "\"}{\"to\":\"" IBAN "\"}");
        CHECK_STR(h.name, "pay");
        CHECK_STR(h.stop, "until " IBAN);
        for (int c = 0; c < REQUEST_CHOICES_MAX; c++) buf_free(&h.text[c]);
        buf_free(&h.args);
        restoring_free(x);
    }
    redacted_free(red);
    redaction_free(map);
    guarded_free(&g);
}

/* A value with a quote, a backslash and a line end, into text that is JSON: the client must still be able to read it.
 * Breaks where it is put in as it is. Reasoning stays text. */
TEST(answers_in_json_stay_json) {
    static const char value[] = "X-\"1\\\n2";
    static const char rules[] = "pattern odd : X-\"1\\\\\\s2\n";
    static const char said[] = "{\"text\":\"[ODD_1]\"}";
    detector *d = NULL;
    redaction *map = NULL;
    findings f = {0};
    buf red = {.max = 4096};
    entity_set set = {0};
    err e = {0};
    CHECK_OK(detector_new(&d, rules, strlen(rules), "rules", &e), e);
    CHECK_OK(detector_scan(d, value, strlen(value), &f, &e), e);
    CHECK_INT(f.n, 1);
    CHECK(detector_find(d, "odd", 3, &set));
    CHECK_OK(redaction_new(&map, d, &e), e);
    CHECK_OK(redaction_text(map, value, strlen(value), f.list, f.n, &set, &red, &e), e);
    CHECK_STR(buf_str(&red), "[ODD_1]");
    for (size_t cut = 1; cut < sizeof said - 1; cut++) {
        restoring *x = NULL;
        heard h = {.args = {.max = 4096}};
        cJSON *v = NULL;
        h.text[0].max = 4096;
        CHECK_OK(restoring_new(&x, map, true, &e), e);
        for (size_t at = 0; at < sizeof said - 1; at += cut) {
            size_t n = sizeof said - 1 - at < cut ? sizeof said - 1 - at : cut;
            event ev = {.kind = EV_TEXT, .text = said + at, .len = n};
            CHECK_OK(restoring_event(x, &ev, hear, &h, &e), e);
        }
        event end = {.kind = EV_FINISH, .reason = "stop"};
        CHECK_OK(restoring_event(x, &end, hear, &h, &e), e);
        CHECK_OK(json_parse(&v, buf_str(&h.text[0]), h.text[0].len, "the answer", &e), e);
        if (v) CHECK_STR(json_get(v, "text")->valuestring, value);
        cJSON_Delete(v);
        buf_free(&h.text[0]);
        buf_free(&h.args);
        restoring_free(x);
    }
    findings_free(&f);
    buf_free(&red);
    redaction_free(map);
    detector_free(d);
}

TEST(memory_that_is_short_is_an_error) {
    static const place at = {"user", "[{\"role\":\"user\",\"content\":\"" IBAN "\"}]",
                             "[{\"type\":\"function\",\"function\":{\"name\":\"" IBAN "\"}}]"};
    filled x;
    err e = {0};
    fill(&x, &at);
    entity_set set = {0};
    entity_set_add(&set, ENT_IBAN);
    int fails = 0;
    for (int n = 0; n < 200; n++) {
        guarded g = {0};
        redaction *map = NULL;
        redacted *red = NULL;
        mem_fail_after(n);
        err_code rc = guard_label(&g, &p, &x.r, &e);
        if (!rc) rc = redaction_new(&map, p.detector, &e);
        if (!rc) rc = guard_redact(&red, &x.r, &g, &set, map, &e);
        mem_fail_after(-1);
        if (rc) CHECK_INT(rc, ERR_NOMEM);
        fails += rc != ERR_OK;
        redacted_free(red);
        redaction_free(map);
        guarded_free(&g);
        if (!rc) break;
    }
    CHECK(fails >= 3);
    filled_free(&x);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    world_open();
    RUN(every_field_is_seen_and_replaced);
    RUN(names_in_data_say_what_values_are);
    RUN(names_in_schemas_say_what_values_are);
    RUN(short_and_huge_numbers_are_seen);
    RUN(token_ids_count_as_a_failed_detector);
    RUN(labels_only_rise);
    RUN(purposes_name_nobody);
    RUN(answers_are_restored_whatever_the_cut);
    RUN(answers_in_json_stay_json);
    RUN(memory_that_is_short_is_an_error);
    world_close();
    return test_end();
}
