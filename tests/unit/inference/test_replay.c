/* Replay: answers of every kind are derived again from the ledger alone. Breaks where a record lacks something that an
 * answer depended on, where the derivation does not go the engine thread's way, or where a change of seed, token, text,
 * weights or reason is not seen. */
#include "forge.h"
#include "support.h"
#include "tiny_encoder.h"

#include "audit/internal.h"
#include "store/store.h"

#define MODEL "tiny"
#define TOOLS "tooled"
#define TEMPLATE                                                                                                       \
    "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m.role + "  \
    "'\\n' + (m.content or '') }}{% for c in m.tool_calls or [] %}{{ '<tool_call>\\n{\"name\": \"' + c.function.name " \
    "+ "                                                                                                               \
    "'\", \"arguments\": ' }}{{ c.function.arguments | tojson }}{{ '}\\n</tool_call>' }}{% endfor %}{{ "               \
    "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

static bed b;
static replayer *rep;
static uint64_t last; /* outcome of the newest answer */

static bool setup(err *e) {
    char path[300];
    replay_options o = {.threads = 2};
    if (bed_open(&b, "  max_sequences: 4\n", e) != ERR_OK || bed_add(&b, b.file, MODEL, e) != ERR_OK) return false;
    snprintf(path, sizeof path, "%s/tools.gguf", b.dir);
    if (!tiny_write(path, true, true, TEMPLATE, 9) || bed_add(&b, path, TOOLS, e) != ERR_OK) return false;
    return replay_open(&rep, b.i, &o, e) == ERR_OK;
}

static void cleanup(void) {
    replay_close(rep);
    bed_close(&b);
}

/* Ask, then derive the answer. The outcome, and what a failure says. */
static replay_report derive(const request *r, const char *label) {
    err e = {0};
    client c = {0};
    replay_report out = {.outcome = REPLAY_NOT_POSSIBLE};
    err_code rc = run(&b, r, &c, &e);
    last = ledger_size(island_ledger(b.i)) - 1;
    client_free(&c);
    if (rc && rc != ERR_CANCELLED) {
        fprintf(stderr, "%s: asking: %s\n", label, e.msg);
        return out;
    }
    if (replay_answer(rep, last, &out, &e) != ERR_OK) snprintf(out.why, sizeof out.why, "error: %s", e.msg);
    if (out.outcome != REPLAY_EQUAL) fprintf(stderr, "%s: %s: %s\n", label, replay_outcome_name(out.outcome), out.why);
    return out;
}

#define EQUAL(r, label)                        \
    do {                                       \
        replay_report out_ = derive(r, label); \
        CHECK_INT(out_.outcome, REPLAY_EQUAL); \
        CHECK(out_.n > 0 || out_.tokens == 0); \
    } while (0)

TEST(sampling_of_every_kind) {
    logit_bias bias[] = {{40, 3.5f}, {41, -100}};
    request r = ask(MODEL, "in the start", 40);
    r.ignore_end = true;
    EQUAL(&r, "greedy");
    r.sampling = (sampler_params){.temperature = 0.9f,
                                  .top_k = 20,
                                  .top_p = 0.9f,
                                  .min_p = 0.02f,
                                  .repeat_penalty = 1.3f,
                                  .repeat_last_n = 16,
                                  .frequency_penalty = 0.4f,
                                  .presence_penalty = -0.3f,
                                  .seed = UINT64_MAX,
                                  .n_bias = 2,
                                  .bias = bias};
    EQUAL(&r, "everything");
    r.n_choices = 5;
    r.ignore_end = false;
    EQUAL(&r, "choices");
    r.has_seed = false;
    EQUAL(&r, "a seed of the pipeline's");
    CHECK_INT(derive(&r, "choices").n, 5);
}

TEST(prompts_and_ends_of_every_kind) {
    static const int32_t ids[] = {1, 40, 50, 60, 70, 80, 90};
    request r = ask(MODEL, "ends here", 30);
    r.sampling.temperature = 1;
    r.n_stops = 2;
    r.stops[0] = "e";
    r.stops[1] = "\xC3\xA9";
    for (r.sampling.seed = 0; r.sampling.seed < 20; r.sampling.seed++) EQUAL(&r, "stops");
    r.n_stops = 0;
    r.max_tokens = 1;
    EQUAL(&r, "one token");
    r = ask(MODEL, "", 20);
    r.text = NULL;
    r.tokens = ids;
    r.n_tokens = sizeof ids / sizeof *ids;
    EQUAL(&r, "token ids");
}

TEST(log_probabilities_and_echo) {
    request r = ask(MODEL, "the art is in the start of the art", 12);
    r.want_logprobs = true;
    r.n_top = 5;
    EQUAL(&r, "logprobs");
    r.echo = true;
    EQUAL(&r, "echo with logprobs");
    r.max_tokens = 0;
    EQUAL(&r, "scoring alone");
    r.want_logprobs = false;
    r.n_top = 0;
    r.max_tokens = 12;
    r.n_choices = 2;
    EQUAL(&r, "echo");
}

static request formed(grammar_kind kind, const char *source) {
    request r = ask(MODEL, "the", 40);
    r.sampling.temperature = 1;
    r.grammar = kind;
    r.grammar_source = source;
    r.grammar_len = strlen(source);
    return r;
}

TEST(grammars_of_every_kind) {
    request r =
        formed(GRAMMAR_JSON_SCHEMA, "{\"type\":\"object\",\"properties\":{\"z\":{\"enum\":[1,2]},\"a\":{\"type\":"
                                    "\"boolean\"}},\"required\":[\"z\",\"a\"]}");
    for (r.sampling.seed = 0; r.sampling.seed < 8; r.sampling.seed++) EQUAL(&r, "schema");
    r = formed(GRAMMAR_REGEX, "[a-f]{3,9}x?");
    EQUAL(&r, "regex");
    r = formed(GRAMMAR_CHOICE, "[\"left\",\"right\"]");
    r.n_choices = 4;
    EQUAL(&r, "choices");
    r = formed(GRAMMAR_TEXT, "root ::= [0-9]+ (\",\" [0-9]+)*");
    EQUAL(&r, "GBNF");
    r = formed(GRAMMAR_TEXT, "root ::= <[7]> \"a\""); /* a forced token, then one way on */
    EQUAL(&r, "forced");
}

TEST(tools_demanded_strict_and_free) {
    cJSON *messages = cJSON_Parse("[{\"role\":\"user\",\"content\":\"the\"}]");
    cJSON *tools = cJSON_Parse(
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{"
        "\"z\":{"
        "\"enum\":[3,5]},\"a\":{\"enum\":[1]}},\"required\":[\"z\",\"a\"]}}},{\"type\":\"function\",\"function\":{"
        "\"name\":\"g\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}]");
    request r = ask(TOOLS, "", 160);
    r.text = NULL;
    r.messages = messages;
    r.tools = tools;
    r.parse = true;
    r.sampling.temperature = 1;
    EQUAL(&r, "free");
    for (r.sampling.seed = 0; r.sampling.seed < 10; r.sampling.seed++) {
        r.tool_must = r.one_call = r.tool_strict = false;
        r.tool_strict = true;
        EQUAL(&r, "strict");
        r.tool_must = true;
        EQUAL(&r, "demanded and strict");
        r.one_call = true;
        r.tool_strict = false;
        r.tool_only = "f";
        EQUAL(&r, "one by name");
        r.tool_only = NULL;
    }
    cJSON_Delete(messages);
    cJSON_Delete(tools);
}

TEST(cancelled_answers_as_far_as_they_got) {
    err e = {0};
    client c = {.cancel_after = 5};
    request r = ask(MODEL, "go on and on", 300);
    r.ignore_end = true;
    r.n_choices = 16; /* many, so that the engine is not done before a busy machine lets the client say so */
    CHECK_INT(run(&b, &r, &c, &e), ERR_CANCELLED);
    client_free(&c);
    replay_report out;
    last = ledger_size(island_ledger(b.i)) - 1;
    CHECK_OK(replay_answer(rep, last, &out, &e), e);
    if (out.outcome) FAIL("%s", out.why);
    CHECK(out.tokens > 3 && out.tokens < 16 * 300);
}

TEST(vectors_and_scores) {
    static const char *const texts[] = {"a", "the second one is longer", "c d e"};
    char path[300];
    err e = {0};
    tiny_kind kinds[] = {{.pooling = 1}, {.pooling = 4, .head = true}, {.causal = true, .pooling = 3}};
    for (size_t k = 0; k < 3; k++) {
        char name[16];
        snprintf(name, sizeof name, "enc%zu", k);
        snprintf(path, sizeof path, "%s/%s.gguf", b.dir, name);
        CHECK(tiny_write_kind(path, &kinds[k], 5 + k));
        CHECK_OK(bed_add(&b, path, name, &e), e);
        embed_input in[3];
        for (int i = 0; i < 3; i++) in[i] = (embed_input){.text = texts[i], .len = strlen(texts[i])};
        embed_request q = {.inputs = in, .n_inputs = 3, .dimensions = k == 2 ? 16 : 0};
        if (kinds[k].head) q.query = "a b", q.query_len = 3;
        request r = {.dialect = "test", .model = name, .embed = &q, .n_choices = 1};
        snprintf(r.who.key_id, sizeof r.who.key_id, "k_test");
        replay_report out = derive(&r, name);
        CHECK_INT(out.outcome, REPLAY_EQUAL);
        CHECK_INT(out.n, 3);
        CHECK(out.vectors);
    }
}

/* ---- what must be seen ------------------------------------------------------------------------------------- */

static uint64_t original(void) { /* an answer to forge; its outcome */
    client c = {0};
    request r = ask(MODEL, "the art of the start", 40);
    r.sampling.temperature = 1;
    r.sampling.seed = 4;
    r.ignore_end = true;
    (void)run(&b, &r, &c, NULL);
    client_free(&c);
    return ledger_size(island_ledger(b.i)) - 1;
}

static replay_report forged(uint64_t of, const forgery *f) {
    replay_report out = {.outcome = REPLAY_EQUAL};
    err e = {0};
    uint64_t seq = 0;
    if (forge(island_ledger(b.i), of, f, &seq, &e) != ERR_OK || replay_answer(rep, seq, &out, &e) != ERR_OK)
        fprintf(stderr, "%s\n", e.msg);
    return out;
}

TEST(a_copy_of_an_answer_is_equal) {
    CHECK_INT(forged(original(), &(forgery){0}).outcome, REPLAY_EQUAL);
}

TEST(a_changed_seed_is_found) {
    replay_report out = forged(original(), &(forgery){.seed_plus = 1});
    CHECK_INT(out.outcome, REPLAY_UNEQUAL);
    CHECK(out.token && !out.digest);
    CHECK(out.logged >= 0 && out.derived >= 0 && out.logged != out.derived);
    CHECK_HAS(out.why, "is");
}

TEST(a_changed_token_is_found) {
    uint64_t of = original();
    for (uint64_t at = 0; at < 40; at += 13) {
        replay_report out = forged(of, &(forgery){.token_of = "tokens_a", .token_at = at});
        CHECK_INT(out.outcome, REPLAY_UNEQUAL);
        CHECK(out.token);
        CHECK_INT(out.position, at);
        CHECK_INT(out.logged ^ out.derived, 1);
        CHECK_INT(out.digest, at < 39); /* what follows from another token has other logits */
    }
}

static void change_prompt(void *ctx, const char *name, buf *bytes) {
    if (strcmp(name, "prompt_tokens") == 0) bytes->ptr[4] ^= 1;
}
static void change_answer(void *ctx, const char *name, buf *bytes) {
    if (strcmp(name, "answer_a") == 0) bytes->ptr[0] ^= 1;
}
static void change_end(void *ctx, cJSON *admitted, cJSON *ended) {
    cJSON *c = cJSON_GetArrayItem(cJSON_GetObjectItem(ended, "choices"), 0);
    cJSON_ReplaceItemInObjectCaseSensitive(c, "finish", cJSON_CreateString("stop"));
}
static void change_digest(void *ctx, cJSON *admitted, cJSON *ended) {
    cJSON *c = cJSON_GetArrayItem(cJSON_GetObjectItem(ended, "choices"), 0);
    char *hex = cJSON_GetObjectItem(c, "logits_sha256")->valuestring;
    hex[10] = hex[10] == 'a' ? 'b' : 'a';
}
static void change_temperature(void *ctx, cJSON *admitted, cJSON *ended) {
    cJSON_ReplaceItemInObjectCaseSensitive(cJSON_GetObjectItem(admitted, "params"), "temperature",
                                           cJSON_CreateNumber(0.1));
}

static void change_echo(void *ctx, cJSON *admitted, cJSON *ended) {
    cJSON *c = cJSON_GetArrayItem(cJSON_GetObjectItem(ended, "choices"), 0);
    char *hex = cJSON_GetObjectItem(c, "prompt_logits_sha256")->valuestring;
    hex[63] = hex[63] == 'a' ? 'b' : 'a';
}

/* Log-probabilities of an echoed prompt were told too, though nothing was drawn from their rows. */
TEST(a_changed_digest_of_an_echo_is_found) {
    request r = ask(MODEL, "the art is in the start of the art", 0);
    r.want_logprobs = r.echo = true;
    CHECK_INT(derive(&r, "scoring alone").outcome, REPLAY_EQUAL);
    replay_report out = forged(last, &(forgery){.edit = change_echo});
    CHECK(out.outcome == REPLAY_UNEQUAL && out.digest && !out.token);
    CHECK_HAS(out.why, "echoed prompt");
}

TEST(other_changes_are_found) {
    uint64_t of = original();
    replay_report out = forged(of, &(forgery){.content = change_prompt});
    CHECK(out.outcome == REPLAY_UNEQUAL && out.digest);
    out = forged(of, &(forgery){.content = change_answer});
    CHECK(out.outcome == REPLAY_UNEQUAL && !out.digest && !out.token);
    CHECK_HAS(out.why, "text");
    out = forged(of, &(forgery){.edit = change_end});
    CHECK(out.outcome == REPLAY_UNEQUAL && !out.digest && !out.token);
    CHECK_HAS(out.why, "\"length\"");
    out = forged(of, &(forgery){.edit = change_digest});
    CHECK(out.outcome == REPLAY_UNEQUAL && out.digest && !out.token);
    CHECK(forged(of, &(forgery){.edit = change_temperature}).outcome == REPLAY_UNEQUAL);
}

/* Breaks where the derivation does not depend on every weight: one bit of one float of the file is another. */
TEST(a_flipped_bit_in_a_weight_is_found) {
    char path[300];
    buf file = {.max = 1 << 25};
    err e = {0};
    uint64_t of = original();
    replayer *other = NULL;
    replay_report out;
    CHECK_OK(file_read(&file, b.file, &e), e);
    file.ptr[file.len - 1234] ^= 1;
    snprintf(path, sizeof path, "%s/flipped.gguf", b.dir);
    CHECK_OK(file_write_atomic(path, file.ptr, file.len, 0644, &e), e);
    buf_free(&file);
    CHECK_OK(replay_open(&other, b.i, &(replay_options){.threads = 1, .weights = path}, &e), e);
    CHECK_OK(replay_answer(other, of, &out, &e), e);
    CHECK_INT(out.outcome, REPLAY_UNEQUAL);
    CHECK(out.digest);
    replay_close(other);
    CHECK_OK(replay_open(&other, b.i, &(replay_options){.weights = b.file}, &e), e);
    CHECK_OK(replay_answer(other, of, &out, &e), e);
    CHECK_INT(out.outcome, REPLAY_EQUAL);
    replay_close(other);
}

/* ---- what is not possible ---------------------------------------------------------------------------------- */

static void other_numerics(void *ctx, cJSON *admitted, cJSON *ended) {
    cJSON_ReplaceItemInObjectCaseSensitive(admitted, "numerics", cJSON_CreateNumber(POLDER_NUMERICS + 7));
}
static void other_route(void *ctx, cJSON *admitted, cJSON *ended) {
    cJSON_ReplaceItemInObjectCaseSensitive(ended, "route", cJSON_CreateString("faraway"));
}
static void other_artifact(void *ctx, cJSON *admitted, cJSON *ended) {
    char name[80] = "sha256:";
    memset(name + 7, 'a', 64);
    cJSON_ReplaceItemInObjectCaseSensitive(admitted, "artifact", cJSON_CreateString(name));
}

TEST(what_is_not_possible_says_why) {
    uint64_t of = original();
    replay_report out = forged(of, &(forgery){.edit = other_numerics});
    CHECK_INT(out.outcome, REPLAY_NOT_POSSIBLE);
    CHECK_HAS(out.why, "version");
    out = forged(of, &(forgery){.edit = other_route});
    CHECK_INT(out.outcome, REPLAY_NOT_POSSIBLE);
    CHECK_HAS(out.why, "provider faraway");
    out = forged(of, &(forgery){.edit = other_artifact});
    CHECK_INT(out.outcome, REPLAY_NOT_POSSIBLE);
    CHECK_HAS(out.why, "sha256:aaaa");
    CHECK_HAS(out.why, "not in this island's store");
    err e = {0};
    CHECK_INT(replay_answer(rep, 0, &out, &e), ERR_USAGE);
    CHECK_HAS(e.msg, "belongs to no answer");
    CHECK_INT(replay_answer(rep, 1u << 30, &out, &e), ERR_NOT_FOUND);
}

TEST(erased_contents_say_so) {
    err e = {0};
    uint64_t of = original();
    replay_report out;
    CHECK_OK(vault_erase(&island_ledger(b.i)->vault, of, &e), e);
    CHECK_OK(replay_answer(rep, of, &out, &e), e);
    CHECK_INT(out.outcome, REPLAY_NOT_POSSIBLE);
    CHECK_HAS(out.why, "erased");
}

TEST(a_damaged_artifact_is_not_used) {
    char path[4096];
    uint8_t digest[SHA256_LEN];
    err e = {0};
    uint64_t of = original();
    buf file = {.max = 1 << 25};
    replayer *fresh = NULL;
    replay_report out;
    CHECK_OK(models_resolve(b.i, MODEL, path, sizeof path, digest, &e), e);
    CHECK_OK(file_read(&file, path, &e), e);
    file.ptr[file.len - 1234] ^= 1;
    CHECK_OK(file_write_atomic(path, file.ptr, file.len, 0444, &e), e);
    CHECK_OK(replay_open(&fresh, b.i, &(replay_options){0}, &e), e);
    CHECK_OK(replay_answer(fresh, of, &out, &e), e);
    CHECK_INT(out.outcome, REPLAY_NOT_POSSIBLE);
    CHECK_HAS(out.why, "damaged");
    file.ptr[file.len - 1234] ^= 1;
    CHECK_OK(file_write_atomic(path, file.ptr, file.len, 0444, &e), e);
    CHECK_OK(replay_answer(fresh, of, &out, &e), e);
    CHECK_INT(out.outcome, REPLAY_EQUAL);
    replay_close(fresh);
    buf_free(&file);
}

/* ---- how keys and values were held -------------------------------------------------------------------------- */

static void forget_kv(void *ctx, cJSON *admitted, cJSON *ended) {
    cJSON_DeleteItemFromObjectCaseSensitive(admitted, "kv");
}
static void unknown_kv(void *ctx, cJSON *admitted, cJSON *ended) {
    cJSON_ReplaceItemInObjectCaseSensitive(admitted, "kv", cJSON_CreateString("q5"));
}

/* An answer of an island; the record of its outcome, 0 where its admitted record does not say `kv`. */
static uint64_t answer_of(bed *of, const char *kv) {
    client c = {0};
    err e = {0};
    request r = ask(MODEL, "the art of the start", 40);
    r.sampling.temperature = 1;
    r.ignore_end = true;
    if (run(of, &r, &c, &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    cJSON *admitted = bed_record(of, c.admitted);
    const cJSON *said = json_get(admitted, "kv");
    uint64_t ended = cJSON_IsString(said) && strcmp(said->valuestring, kv) == 0 ? c.completed : 0;
    cJSON_Delete(admitted);
    client_free(&c);
    return ended;
}

static err_code configured_anew(bed *of, const char *yaml, err *e) {
    char sub[300], path[330];
    snprintf(sub, sizeof sub, "%s/island", of->dir);
    snprintf(path, sizeof path, "%s/island.yaml", sub);
    inference_close(of->inf);
    island_close(of->i);
    of->inf = NULL;
    of->i = NULL;
    err_code rc = file_write_atomic(path, yaml, strlen(yaml), 0600, e);
    if (!rc) rc = island_open(&of->i, sub, ISLAND_WRITE, e);
    return rc ? rc : inference_open(&of->inf, of->i, e);
}

static replay_report report_of(replayer *r, uint64_t seq) {
    replay_report out = {.outcome = REPLAY_NOT_POSSIBLE};
    err e = {0};
    if (replay_answer(r, seq, &out, &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    return out;
}

/* Breaks where a replay holds keys and values as the configuration says now instead of as the record says. */
TEST(keys_and_values_are_held_as_the_record_says) {
    bed other;
    replayer *r = NULL;
    err e = {0};
    uint64_t seq;
    CHECK_OK(bed_open(&other, "  kv: q8\n", &e), e);
    CHECK_OK(bed_add(&other, other.file, MODEL, &e), e);
    uint64_t int8 = answer_of(&other, "q8");
    CHECK_OK(configured_anew(&other, "inference:\n  kv: f16\n", &e), e);
    uint64_t halves = answer_of(&other, "f16");
    CHECK(int8 && halves);
    ledger *l = island_ledger(other.i);
    CHECK_OK(replay_open(&r, other.i, &(replay_options){.threads = 2}, &e), e);
    for (int round = 0; round < 2; round++) { /* the session changes each time */
        CHECK_INT(report_of(r, int8).outcome, REPLAY_EQUAL);
        CHECK_INT(report_of(r, halves).outcome, REPLAY_EQUAL);
    }
    CHECK_OK(forge(l, halves, &(forgery){.edit = forget_kv}, &seq, &e), e); /* as records of before were */
    CHECK_INT(report_of(r, seq).outcome, REPLAY_EQUAL);
    CHECK_OK(forge(l, int8, &(forgery){.edit = forget_kv}, &seq, &e), e);
    replay_report out = report_of(r, seq);
    CHECK(out.outcome == REPLAY_UNEQUAL && out.digest);
    CHECK_OK(forge(l, int8, &(forgery){.edit = unknown_kv}, &seq, &e), e);
    out = report_of(r, seq);
    CHECK_INT(out.outcome, REPLAY_NOT_POSSIBLE);
    CHECK_HAS(out.why, "held as \"q5\"");
    replay_close(r);
    bed_close(&other);
}

/* ---- many -------------------------------------------------------------------------------------------------- */

static cJSON *facts(uint64_t through, int equal) {
    char text[400];
    snprintf(text, sizeof text,
             "{\"since\":0,\"through\":%llu,\"answers\":9,\"others\":0,\"drawn\":%d,\"equal\":%d,\"unequal\":1,"
             "\"not_possible\":0,\"seed\":\"12\",\"numerics\":%d,\"isa\":\"scalar\",\"outcomes\":{\"equal\":[3,5],"
             "\"unequal\":[7],\"not_possible\":[]}}",
             (unsigned long long)through, equal + 1, equal, POLDER_NUMERICS);
    return cJSON_Parse(text);
}

TEST(samples_are_drawn_by_their_seed) {
    err e = {0};
    replay_list all, some, again;
    (void)original();
    CHECK_OK(replay_find(rep, 0, UINT64_MAX, &all, &e), e);
    CHECK(all.n > 20);
    for (size_t i = 1; i < all.n; i++) CHECK(all.items[i].ended > all.items[i - 1].ended);
    CHECK_OK(replay_find(rep, 0, UINT64_MAX, &some, &e), e);
    CHECK_OK(replay_draw(&some, 7, 99, &e), e);
    CHECK_INT(some.n, 7);
    CHECK_OK(replay_find(rep, 0, UINT64_MAX, &again, &e), e);
    CHECK_OK(replay_draw(&again, 7, 100, &e), e);
    CHECK(memcmp(some.items, again.items, 7 * sizeof *some.items) != 0);
    /* nobody outside of the sample has a lower hash than one within, as the header promises */
    uint8_t highest[SHA256_LEN] = {0};
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0, k = 0; i < all.n; i++) {
            char text[48];
            uint8_t d[SHA256_LEN];
            snprintf(text, sizeof text, "99:%llu", (unsigned long long)all.items[i].admitted);
            sha256_of(d, text, strlen(text));
            bool in = false;
            for (k = 0; k < some.n; k++) in = in || some.items[k].admitted == all.items[i].admitted;
            if (pass == 0 && in && memcmp(d, highest, sizeof d) > 0) memcpy(highest, d, sizeof d);
            if (pass == 1 && !in) CHECK(memcmp(d, highest, sizeof d) > 0);
        }
    CHECK_OK(replay_sort(rep, &all, &e), e);
    mem_free(all.items);
    mem_free(some.items);
    mem_free(again.items);
}

TEST(a_check_is_a_record_and_the_next_begins_there) {
    err e = {0};
    cJSON *out = NULL, *f = facts(ledger_size(island_ledger(b.i)), 2);
    replay_list l;
    CHECK_OK(replay_note(b.i, NULL, f, &out, &e), e);
    cJSON_Delete(out);
    cJSON *rec = bed_record(&b, ledger_size(island_ledger(b.i)) - 1);
    CHECK(record_is(rec, "replayed"));
    CHECK_INT(json_get(rec, "equal")->valueint, 2);
    CHECK_INT(cJSON_GetArrayItem(json_get(rec, "first_unequal"), 0)->valueint, 7);
    cJSON_Delete(rec);
    cJSON_Delete(f);
    CHECK_OK(replay_find(rep, REPLAY_SINCE_LAST_CHECK, UINT64_MAX, &l, &e), e);
    CHECK_INT(l.n, 0);
    mem_free(l.items);
    uint64_t of = original();
    CHECK_OK(replay_find(rep, REPLAY_SINCE_LAST_CHECK, UINT64_MAX, &l, &e), e);
    CHECK_INT(l.n, 1);
    CHECK_INT(l.items[0].ended, of);
    mem_free(l.items);
    f = facts(5, 3); /* counts three and names two */
    CHECK_INT(replay_note(b.i, NULL, f, &out, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "outcomes.equal");
    cJSON_Delete(f);
    CHECK_INT(replay_note(b.i, NULL, NULL, &out, &e), ERR_INVALID);
}

/* Breaks where a failed allocation crashes, leaks (under the sanitizer), or passes for an outcome. */
TEST(failed_allocations_are_errors) {
    uint64_t of = original();
    replay_report out;
    int failures = 0;
    for (int n = 0; n < 4000; n += n < 200 ? 1 : 37) {
        err e = {0};
        replayer *fresh = NULL;
        mem_fail_after(n);
        err_code rc = replay_open(&fresh, b.i, &(replay_options){.threads = 1}, &e);
        if (!rc) rc = replay_answer(fresh, of, &out, &e);
        mem_fail_after(-1);
        replay_close(fresh);
        failures += rc != ERR_OK;
        if (!rc && out.outcome == REPLAY_UNEQUAL) FAIL("allocation %d: %s", n, out.why);
    }
    CHECK(failures > 50);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    base_init();
    err e = {0};
    if (!setup(&e)) {
        fprintf(stderr, "setup: %s\n", e.msg);
        return 1;
    }
    RUN(sampling_of_every_kind);
    RUN(prompts_and_ends_of_every_kind);
    RUN(log_probabilities_and_echo);
    RUN(grammars_of_every_kind);
    RUN(tools_demanded_strict_and_free);
    RUN(cancelled_answers_as_far_as_they_got);
    RUN(vectors_and_scores);
    RUN(a_copy_of_an_answer_is_equal);
    RUN(a_changed_seed_is_found);
    RUN(a_changed_token_is_found);
    RUN(a_changed_digest_of_an_echo_is_found);
    RUN(other_changes_are_found);
    RUN(a_flipped_bit_in_a_weight_is_found);
    RUN(what_is_not_possible_says_why);
    RUN(erased_contents_say_so);
    RUN(a_damaged_artifact_is_not_used);
    RUN(keys_and_values_are_held_as_the_record_says);
    RUN(samples_are_drawn_by_their_seed);
    RUN(a_check_is_a_record_and_the_next_begins_there);
    RUN(failed_allocations_are_errors);
    cleanup();
    return test_end();
}
