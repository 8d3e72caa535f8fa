/* The way of a request, end to end: an island, its ledger, the engine, and clients of every kind. */
#include "support.h"

#define MODEL "tiny"

static bed b; /* of the case that runs */

static err_code open_bed(const char *config, err *e) {
    err_code rc = bed_open(&b, config, e);
    return rc ? rc : bed_add(&b, b.file, MODEL, e);
}

/* Text of one choice by a fresh client; the caller frees. */
static char *answer(const request *r, err *e) {
    client c = {0};
    char *out = NULL;
    if (run(&b, r, &c, e) == ERR_OK) out = strdup(buf_str(&c.text[0]));
    client_free(&c);
    return out;
}

/* Breaks where tokenizer, template-free prompt, scheduling, sampling or detokenising change a bit of the way. */
TEST(pipeline_greedy_equals_reference) {
    err e = {0};
    char path[1200];
    buf want = {.max = 4096};
    client c = {0};
    if (!test_shared()) SKIP("no ../shared");
    CHECK_OK(bed_open(&b, NULL, &e), e);
    snprintf(path, sizeof path, "%s/models/stories260K.greedy.txt", test_shared());
    CHECK_OK(file_read(&want, path, &e), e);
    snprintf(path, sizeof path, "%s/models/stories260K.gguf", test_shared());
    CHECK_OK(bed_add(&b, path, "stories", &e), e);
    request r = ask("stories", "Once upon a time", 64);
    CHECK_OK(run(&b, &r, &c, &e), e);
    buf got = {.max = 4096};
    buf_printf(&got, "Once upon a time%s", buf_str(&c.text[0]));
    while (want.len && want.ptr[want.len - 1] == '\n') want.ptr[--want.len] = 0;
    CHECK_STR(buf_str(&got), buf_str(&want));
    CHECK_INT(c.completion_tokens, 64);
    CHECK_INT(c.prompt_tokens, 5);
    CHECK_STR(c.reason[0], "length");
    buf_free(&want);
    buf_free(&got);
    client_free(&c);
}

/* Breaks where the records do not tell what replay needs, or tell what only the vault may hold. */
TEST(pipeline_records_tell_all) {
    err e = {0};
    client c = {0};
    CHECK_OK(open_bed(NULL, &e), e);
    request r = ask(MODEL, "the secret words", 12);
    r.sampling.temperature = 0.8f;
    r.sampling.seed = 18446744073709551615u;
    r.user = "alice";
    r.stops[0] = "a stop of mine";
    r.n_stops = 1;
    CHECK_OK(run(&b, &r, &c, &e), e);
    CHECK_INT(c.wrong_order, 0);
    CHECK_INT(c.n_done, 1);
    buf text = {.max = LEDGER_ENTRY_MAX}, content = {.max = 1 << 20};
    ledger *l = island_ledger(b.i);
    CHECK_OK(ledger_read(l, c.admitted, &text, &e), e);
    CHECK_HAS(text.ptr, "\"event\":\"admitted\"");
    CHECK_HAS(text.ptr, "\"seed\":\"18446744073709551615\"");
    CHECK_HAS(text.ptr, "\"temperature\":0.800000011920929");
    CHECK_HAS(text.ptr, "\"artifact\":\"sha256:");
    CHECK_HAS(text.ptr, "\"numerics\":3");
    CHECK_HAS(text.ptr, "\"route\":\"engine\"");
    CHECK_HAS(text.ptr, "\"key\":\"k_test\"");
    CHECK(!strstr(text.ptr, "secret") && !strstr(text.ptr, "alice") && !strstr(text.ptr, "of mine"));
    CHECK_OK(ledger_content(l, c.admitted, "prompt", &content, &e), e);
    CHECK_STR(buf_str(&content), "the secret words");
    buf_reset(&content);
    CHECK_OK(ledger_content(l, c.admitted, "prompt_tokens", &content, &e), e);
    CHECK_INT(content.len, 4 * c.prompt_tokens);
    buf_reset(&content);
    CHECK_OK(ledger_content(l, c.admitted, "request", &content, &e), e);
    CHECK_STR(buf_str(&content), "{\"stops\":[\"a stop of mine\"]}");
    buf_reset(&text);
    CHECK_OK(ledger_read(l, c.completed, &text, &e), e);
    CHECK_HAS(text.ptr, "\"event\":\"completed\"");
    CHECK_HAS(text.ptr, "\"logits_sha256\":\"");
    char field[64];
    snprintf(field, sizeof field, "\"request\":%llu", (unsigned long long)c.admitted);
    CHECK_HAS(text.ptr, field);
    buf_reset(&content);
    CHECK_OK(ledger_content(l, c.completed, "answer_a", &content, &e), e);
    CHECK_STR(buf_str(&content), buf_str(&c.text[0]));
    buf_reset(&content);
    CHECK_OK(ledger_content(l, c.completed, "tokens_a", &content, &e), e);
    CHECK_INT(content.len, 4 * c.completion_tokens);
    buf_free(&text);
    buf_free(&content);
    client_free(&c);
}

static char digest_of[2][80];
static void note_digest(int slot, uint64_t completed) {
    cJSON *r = bed_record(&b, completed);
    const cJSON *one = cJSON_GetArrayItem(json_get(r, "choices"), 0);
    const cJSON *d = json_get(one, "logits_sha256");
    snprintf(digest_of[slot], sizeof digest_of[slot], "%s", cJSON_IsString(d) ? d->valuestring : "none");
    cJSON_Delete(r);
}

/* Breaks where a draw depends on anything but (seed, position), or where a drawn seed is not the recorded one. */
TEST(pipeline_seeds_reproduce) {
    err e = {0};
    client c1 = {0}, c2 = {0}, c3 = {0};
    CHECK_OK(open_bed(NULL, &e), e);
    request r = ask(MODEL, "in the", 40);
    r.sampling.temperature = 1.0f;
    r.has_seed = false;
    r.ignore_end = true;
    CHECK_OK(run(&b, &r, &c1, &e), e);
    note_digest(0, c1.completed);
    r.has_seed = true;
    r.sampling.seed = c1.seed;
    CHECK_OK(run(&b, &r, &c2, &e), e);
    note_digest(1, c2.completed);
    CHECK_STR(buf_str(&c1.text[0]), buf_str(&c2.text[0]));
    CHECK_STR(digest_of[0], digest_of[1]);
    CHECK_INT(strlen(digest_of[0]), 64);
    r.sampling.seed++;
    CHECK_OK(run(&b, &r, &c3, &e), e);
    CHECK(strcmp(buf_str(&c1.text[0]), buf_str(&c3.text[0])) != 0);
    client_free(&c1);
    client_free(&c2);
    client_free(&c3);
}

/* Breaks where choices share a sampler or a sequence: choice c is the answer to seed + c alone. */
TEST(pipeline_choices_are_seeds) {
    err e = {0};
    client c = {0};
    CHECK_OK(open_bed("  max_sequences: 2\n", &e), e);
    request r = ask(MODEL, "start", 24);
    r.sampling.temperature = 1.0f;
    r.sampling.seed = 5;
    r.n_choices = 5;
    CHECK_OK(run(&b, &r, &c, &e), e);
    CHECK_INT(c.n_finish, 5);
    r.n_choices = 1;
    for (uint32_t i = 0; i < 5; i++) {
        r.sampling.seed = 5 + i;
        char *one = answer(&r, &e);
        CHECK_STR(buf_str(&c.text[i]), one);
        free(one);
    }
    client_free(&c);
}

static void vary(request *r, int i, char prompts[][64]) {
    snprintf(prompts[i], 64, "%.*s the art %d", i * 3, "in the start there were many answers to every question", i);
    *r = ask(MODEL, prompts[i], 20 + 7 * (i % 5));
    r->sampling.temperature = i % 3 ? 0.9f : 0.0f;
    r->sampling.seed = (uint64_t)i;
    r->sampling.repeat_penalty = i % 2 ? 1.1f : 1.0f;
    r->sampling.repeat_last_n = 32;
    r->want_logprobs = i % 4 == 0;
    r->n_top = i % 4 == 0 ? 3 : 0;
}

static void run_together(const char *config, int n, const char *must_have_grown) {
    static task tasks[16];
    char prompts[16][64];
    char *alone[16] = {0};
    err e = {0};
    CHECK_OK(open_bed(config, &e), e);
    for (int i = 0; i < n; i++) {
        request r;
        vary(&r, i, prompts);
        alone[i] = answer(&r, &e);
        if (!alone[i]) FAIL("request %d alone: %s", i, e.msg);
    }
    double before = must_have_grown ? counter(must_have_grown) : 0;
    for (int i = 0; i < n; i++) {
        memset(&tasks[i], 0, sizeof tasks[i]);
        tasks[i].b = &b;
        vary(&tasks[i].r, i, prompts);
    }
    for (int i = 0; i < n; i++) task_start(&tasks[i]);
    for (int i = 0; i < n; i++) task_join(&tasks[i]);
    for (int i = 0; i < n; i++) {
        CHECK_OK(tasks[i].rc, tasks[i].e);
        CHECK_STR(buf_str(&tasks[i].c.text[0]), alone[i]);
        CHECK_INT(tasks[i].c.wrong_order, 0);
        client_free(&tasks[i].c);
        free(alone[i]);
    }
    if (must_have_grown) CHECK(counter(must_have_grown) > before);
    CHECK_STR(bed_balance(&b) ? bed_balance(&b) : "balanced", "balanced");
}

/* Breaks where a neighbour, a chunk border or the order of work changes a result. */
TEST(pipeline_sixteen_at_once_as_one_by_one) {
    run_together("  step_tokens: 33\n", 16, NULL);
}

/* The same where the vocabulary is large enough that rows are drawn by several threads. */
TEST(pipeline_sixteen_with_a_large_vocabulary) {
    tiny_extra = 6000;
    run_together("  threads: 3\n", 16, NULL);
}

/* The same with fewer sequences than requests. */
TEST(pipeline_sixteen_over_three_sequences) {
    run_together("  max_sequences: 3\n  step_tokens: 7\n", 16, NULL);
}

/* Breaks where a pre-empted sequence does not come back exactly as it was, or fails for want of memory. */
TEST(pipeline_preempted_sequences_lose_nothing) {
    /* 1 MiB holds 4096 positions of this model; twelve answers of 384 need more */
    static task tasks[12];
    err e = {0};
    CHECK_OK(open_bed("  kv_memory_mib: 1\n  max_sequences: 12\n", &e), e);
    request r = ask(MODEL, "the start", -1);
    r.ignore_end = true;
    r.sampling.temperature = 1.0f;
    char *alone[12];
    double before = counter("polder_preemptions_total");
    for (uint64_t i = 0; i < 12; i++) {
        r.sampling.seed = i;
        alone[i] = answer(&r, &e);
        if (!alone[i]) FAIL("request alone: %s", e.msg);
    }
    CHECK(counter("polder_preemptions_total") == before);
    /* answers that begin late may find room that others have left already: again, until one had to make room */
    for (int round = 0; round < 20 && counter("polder_preemptions_total") == before; round++) {
        for (uint64_t i = 0; i < 12; i++) {
            memset(&tasks[i], 0, sizeof tasks[i]);
            tasks[i].b = &b;
            tasks[i].r = r;
            tasks[i].r.sampling.seed = i;
            task_start(&tasks[i]);
        }
        for (int i = 0; i < 12; i++) task_join(&tasks[i]);
        for (int i = 0; i < 12; i++) {
            CHECK_OK(tasks[i].rc, tasks[i].e);
            CHECK_STR(buf_str(&tasks[i].c.text[0]), alone[i]);
            client_free(&tasks[i].c);
        }
    }
    for (int i = 0; i < 12; i++) free(alone[i]);
    CHECK(counter("polder_preemptions_total") > before);
    CHECK(gauge("polder_kv_positions_used") == 0);
    CHECK(gauge("polder_running_sequences") == 0);
}

/* Breaks where a stop string is found only inside one token, is given out, or lies behind what was held back. */
TEST(pipeline_stops_cut_the_text) {
    err e = {0};
    client c = {0};
    CHECK_OK(open_bed(NULL, &e), e);
    request r = ask(MODEL, "the", 60);
    r.ignore_end = true;
    r.sampling.temperature = 1.0f;
    char *all = answer(&r, &e);
    CHECK(all && strlen(all) > 30);
    for (size_t at = 5; at < 25; at += 3) { /* a stop string from the middle, at a border of characters */
        size_t from = at, to = at + 6;
        while (from && ((uint8_t)all[from] & 0xC0) == 0x80) from--;
        while (all[to] && ((uint8_t)all[to] & 0xC0) == 0x80) to++;
        char stop[32], *first;
        snprintf(stop, sizeof stop, "%.*s", (int)(to - from), all + from);
        first = strstr(all, stop);
        r.stops[0] = stop;
        r.n_stops = 1;
        CHECK_OK(run(&b, &r, &c, &e), e);
        CHECK_STR(c.reason[0], "stop");
        char want[512];
        snprintf(want, sizeof want, "%.*s", (int)(first - all), all);
        CHECK_STR(buf_str(&c.text[0]), want);
        client_free(&c);
    }
    free(all);
}

/* Breaks where tokens and text are not aligned, or where scoring a text gives other numbers than writing it. */
TEST(pipeline_echo_scores_what_was_written) {
    err e = {0};
    client c = {0}, d = {0};
    CHECK_OK(open_bed("  step_tokens: 50\n", &e), e);
    request r = ask(MODEL, "the art of the start is in there, and in the other", 50);
    r.ignore_end = true;
    r.echo = r.want_logprobs = true;
    r.n_top = 2;
    CHECK_OK(run(&b, &r, &c, &e), e);
    CHECK_INT(c.n_tokens, c.prompt_tokens + c.completion_tokens);
    CHECK(strncmp(buf_str(&c.text[0]), r.text, r.text_len) == 0);
    CHECK(isnan(c.tokens[0].logprob));
    int32_t ids[200];
    for (size_t i = 0; i < c.n_tokens; i++) ids[i] = c.tokens[i].token;
    r.text = NULL;
    r.tokens = ids;
    r.n_tokens = c.n_tokens;
    r.max_tokens = 0;
    CHECK_OK(run(&b, &r, &d, &e), e);
    CHECK_STR(buf_str(&d.text[0]), buf_str(&c.text[0]));
    CHECK_INT(d.n_tokens, c.n_tokens);
    CHECK_INT(d.completion_tokens, 0);
    CHECK_STR(d.reason[0], "length");
    for (size_t i = 1; i < c.n_tokens; i++) {
        CHECK_INT(d.tokens[i].token, c.tokens[i].token);
        CHECK(memcmp(&d.tokens[i].logprob, &c.tokens[i].logprob, sizeof(float)) == 0);
        CHECK_INT(d.tokens[i].n_top, 2);
        CHECK(d.tokens[i].logprob <= d.tokens[i].top[0].logprob);
        if (i >= c.prompt_tokens) CHECK_INT(c.tokens[i].token, c.tokens[i].top[0].token); /* greedy */
    }
    client_free(&c);
    client_free(&d);
    r.want_logprobs = false; /* the echo alone: nothing to compute */
    r.n_top = 0;
    CHECK_OK(run(&b, &r, &d, &e), e);
    CHECK_INT(d.n_done, 1);
    client_free(&d);
}

/* Breaks where a client that hangs up leaves its sequence running or its record open. */
TEST(pipeline_cancel_frees_the_sequence) {
    err e = {0};
    client c = {.cancel_after = 3}, d = {0};
    CHECK_OK(open_bed("  max_sequences: 1\n  max_queue: 0\n", &e), e);
    request r = ask(MODEL, "the", -1);
    r.ignore_end = true;
    r.n_choices = 3;
    r.sampling.temperature = 1.0f;
    CHECK_INT(run(&b, &r, &c, &e), ERR_CANCELLED);
    CHECK_INT(c.n_done, 0);
    CHECK(gauge("polder_running_sequences") == 0);
    CHECK(gauge("polder_kv_positions_used") == 0);
    CHECK(gauge("polder_queue_requests") == 0);
    cJSON *rec = bed_record(&b, ledger_size(island_ledger(b.i)) - 1);
    CHECK(record_is(rec, "failed"));
    CHECK_STR(json_get(rec, "reason")->valuestring, "cancelled");
    CHECK_INT(json_get(rec, "request")->valuedouble, c.admitted);
    cJSON_Delete(rec);
    buf part = {.max = 1 << 20};
    CHECK_OK(ledger_content(island_ledger(b.i), c.admitted + 1, "answer_a", &part, &e), e);
    CHECK_STR(buf_str(&part), buf_str(&c.text[0]));
    buf_free(&part);
    request next = ask(MODEL, "the", 5);
    CHECK_OK(run(&b, &next, &d, &e), e);
    client_free(&c);
    client_free(&d);
}

/* The same where the client is silent: it is asked while nothing is sent. */
TEST(pipeline_gone_client_is_noticed) {
    err e = {0};
    static task t;
    memset(&t, 0, sizeof t);
    CHECK_OK(open_bed(NULL, &e), e);
    t.b = &b;
    t.r = ask(MODEL, "the", -1);
    t.r.ignore_end = true;
    t.r.n_choices = 16;
    pthread_mutex_t hold = PTHREAD_MUTEX_INITIALIZER;
    t.c.hold = &hold;
    pthread_mutex_lock(&hold);
    task_start(&t);
    while (!atomic_load(&t.c.has_text)) usleep(1000);
    atomic_store(&t.c.gone, true);
    usleep(150000);
    pthread_mutex_unlock(&hold);
    task_join(&t);
    CHECK(t.rc == ERR_CANCELLED || t.rc == ERR_OK); /* OK where all was computed before it could be asked */
    CHECK_STR(bed_balance(&b) ? bed_balance(&b) : "balanced", "balanced");
    client_free(&t.c);
}

/* Breaks where a full queue is written down as admitted, or never empties. */
TEST(pipeline_full_queue_is_busy) {
    err e = {0};
    static task t;
    client c = {0};
    memset(&t, 0, sizeof t);
    CHECK_OK(open_bed("  max_sequences: 1\n  max_queue: 0\n", &e), e);
    pthread_mutex_t hold = PTHREAD_MUTEX_INITIALIZER;
    t.b = &b;
    t.r = ask(MODEL, "the", -1);
    t.r.ignore_end = true;
    t.r.n_choices = 16; /* over one sequence: the later ones wait, so the place stays taken */
    t.c.hold = &hold;
    pthread_mutex_lock(&hold);
    task_start(&t);
    while (!atomic_load(&t.c.has_text)) usleep(1000);
    uint64_t size = ledger_size(island_ledger(b.i));
    request r = ask(MODEL, "the", 5);
    err_code rc = run(&b, &r, &c, &e);
    uint64_t size_after = ledger_size(island_ledger(b.i));
    atomic_store(&t.c.gone, true);
    pthread_mutex_unlock(&hold);
    task_join(&t);
    CHECK_INT(rc, ERR_BUSY);
    CHECK_HAS(e.msg, "queue is full");
    CHECK_INT(c.n_admitted, 0);
    CHECK_INT(size_after, size);
    CHECK_OK(run(&b, &r, &c, &e), e);
    client_free(&t.c);
    client_free(&c);
}

/* Breaks where slow readers stop the others: here two of them want all sequences and all KV memory. */
TEST(pipeline_slow_client_stalls_nobody) {
    err e = {0};
    static task t[2];
    client c = {0};
    memset(t, 0, sizeof t);
    CHECK_OK(open_bed("  max_sequences: 16\n  kv_memory_mib: 1\n", &e), e);
    pthread_mutex_t hold = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&hold);
    for (int i = 0; i < 2; i++) {
        t[i].b = &b;
        t[i].r = ask(MODEL, "the", -1);
        t[i].r.ignore_end = t[i].r.want_logprobs = true;
        t[i].r.n_top = 20;
        t[i].r.n_choices = 10; /* 10 answers of 380 tokens with 20 alternatives are past what a mailbox holds */
        t[i].r.sampling.temperature = 1;
        t[i].c.hold = &hold;
        task_start(&t[i]);
        while (!atomic_load(&t[i].c.has_text)) usleep(1000);
    }
    err_code rc = ERR_OK;
    for (int i = 0; i < 5 && !rc; i++) {
        request r = ask(MODEL, "in", 300);
        r.ignore_end = true;
        rc = run(&b, &r, &c, &e);
        client_free(&c);
    }
    int finished = t[0].c.n_finish + t[1].c.n_finish;
    pthread_mutex_unlock(&hold);
    for (int i = 0; i < 2; i++) {
        task_join(&t[i]);
        CHECK_OK(t[i].rc, t[i].e);
        CHECK_INT(t[i].c.n_finish, 10);
        CHECK_INT(t[i].c.n_tokens, t[i].c.completion_tokens / 10);
    }
    CHECK_OK(rc, e);
    CHECK_INT(finished, 0);
    CHECK(gauge("polder_kv_positions_used") == 0);
    for (int i = 0; i < 2; i++) { /* and what was interrupted is what an uninterrupted answer is */
        client again = {0};
        request r = t[i].r;
        CHECK_OK(run(&b, &r, &again, &e), e);
        for (int k = 0; k < 10; k++) CHECK_STR(buf_str(&again.text[k]), buf_str(&t[i].c.text[k]));
        client_free(&again);
        client_free(&t[i].c);
    }
}

/* Breaks where anything is computed or given out that the ledger does not know. */
TEST(pipeline_no_ledger_no_answer) {
    err e = {0};
    client c = {0}, d = {0};
    CHECK_OK(open_bed(NULL, &e), e);
    CHECK_OK(inference_load(b.inf, MODEL, &e), e);
    request r = ask(MODEL, "the", 8);
    log_set_level(LOG_ERROR + 1);
    double steps = counter("polder_engine_steps_total"), refusals = counter("polder_ledger_refusals_total");
    atomic_store(&disk_fails, 1);
    CHECK_INT(run(&b, &r, &c, &e), ERR_UNAVAILABLE);
    atomic_store(&disk_fails, 0);
    CHECK_INT(c.n_admitted + c.n_pieces + c.n_done, 0);
    CHECK(counter("polder_engine_steps_total") == steps);
    CHECK(counter("polder_ledger_refusals_total") == refusals + 1);
    CHECK_HAS(e.msg, "ledger");
    bed_close(&b);
    /* and between admitted and completed */
    static task t;
    memset(&t, 0, sizeof t);
    CHECK_OK(open_bed(NULL, &e), e);
    pthread_mutex_t hold = PTHREAD_MUTEX_INITIALIZER;
    t.b = &b;
    t.r = r;
    t.c.hold = &hold;
    pthread_mutex_lock(&hold);
    task_start(&t);
    while (!atomic_load(&t.c.has_text)) usleep(1000);
    atomic_store(&disk_fails, 1);
    pthread_mutex_unlock(&hold);
    task_join(&t);
    atomic_store(&disk_fails, 0);
    CHECK_INT(t.rc, ERR_UNAVAILABLE);
    CHECK_INT(t.c.n_done, 0);
    client_free(&t.c);
    client_free(&c);
    client_free(&d);
}

/* Breaks where stopping loses a request, takes a new one, or waits for ever. */
TEST(pipeline_drain_ends_what_runs) {
    err e = {0};
    static task t[3];
    client c = {0};
    CHECK_OK(open_bed("  max_sequences: 2\n", &e), e);
    pthread_mutex_t hold = PTHREAD_MUTEX_INITIALIZER;
    memset(t, 0, sizeof t);
    pthread_mutex_lock(&hold);
    for (int i = 0; i < 3; i++) {
        t[i].b = &b;
        t[i].r = ask(MODEL, "the", -1);
        t[i].r.ignore_end = true;
        t[i].r.n_choices = 16;
        t[i].c.hold = i == 0 ? &hold : NULL;
        task_start(&t[i]);
    }
    while (!atomic_load(&t[0].c.has_text)) usleep(1000);
    pthread_mutex_unlock(&hold);
    inference_drain(b.inf, 0);
    for (int i = 0; i < 3; i++) {
        task_join(&t[i]);
        if (t[i].rc != ERR_OK && t[i].rc != ERR_CANCELLED && t[i].rc != ERR_UNAVAILABLE) FAIL("%s", t[i].e.msg);
        client_free(&t[i].c);
    }
    request r = ask(MODEL, "the", 3);
    CHECK_INT(run(&b, &r, &c, &e), ERR_UNAVAILABLE);
    CHECK_INT(c.n_admitted, 0);
    CHECK_STR(bed_balance(&b) ? bed_balance(&b) : "balanced", "balanced");
}

/* Bad requests: a sentence, no record, and the next request works. */
TEST(pipeline_bad_requests_get_a_sentence) {
    err e = {0};
    client c = {0};
    CHECK_OK(open_bed("  max_output_tokens: 50\n", &e), e);
    uint64_t size = ledger_size(island_ledger(b.i));
    request ok = ask(MODEL, "the", 5), r = ok;
    r.model = "nobody";
    CHECK_INT(run(&b, &r, &c, &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "there are: tiny");
    r = ok, r.max_tokens = 51;
    CHECK_INT(run(&b, &r, &c, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "allows 50");
    static const int32_t many[TINY_CONTEXT + 1];
    r = ok, r.text = NULL, r.tokens = many, r.n_tokens = TINY_CONTEXT + 1;
    CHECK_INT(run(&b, &r, &c, &e), ERR_TOO_LONG);
    r.n_tokens = TINY_CONTEXT - 2;
    CHECK_INT(run(&b, &r, &c, &e), ERR_TOO_LONG);
    CHECK_HAS(e.msg, "at most 2");
    r.n_tokens = TINY_CONTEXT, r.max_tokens = -1;
    CHECK_INT(run(&b, &r, &c, &e), ERR_TOO_LONG);
    static const int32_t wrong[] = {1, 99999};
    r.tokens = wrong, r.n_tokens = 2;
    CHECK_INT(run(&b, &r, &c, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "99999");
    r.n_tokens = 0;
    CHECK_INT(run(&b, &r, &c, &e), ERR_INVALID);
    r = ok, r.n_choices = 0;
    CHECK_INT(run(&b, &r, &c, &e), ERR_INVALID);
    r = ok, r.sampling.temperature = 7;
    CHECK_INT(run(&b, &r, &c, &e), ERR_INVALID);
    r = ok, r.text = NULL;
    CHECK_INT(run(&b, &r, &c, &e), ERR_INVALID);
    r = ok, r.stops[0] = "", r.n_stops = 1;
    CHECK_INT(run(&b, &r, &c, &e), ERR_INVALID);
    r = ok, r.n_top = 3;
    CHECK_INT(run(&b, &r, &c, &e), ERR_INVALID);
    CHECK_INT(ledger_size(island_ledger(b.i)), size);
    CHECK_INT(c.n_admitted, 0);
    CHECK(gauge("polder_queue_requests") == 0);
    CHECK_OK(run(&b, &ok, &c, &e), e);
    client_free(&c);
}

/* Breaks where a failed allocation crashes, leaks a sequence or leaves a request without its outcome. */
TEST(pipeline_failed_allocations) {
    err e = {0};
    CHECK_OK(open_bed("  max_sequences: 2\n", &e), e);
    cJSON *messages = NULL;
    static const char text[] = "[{\"role\":\"user\",\"content\":\"the <|im_end|> art\"}]";
    CHECK_OK(json_parse(&messages, text, strlen(text), "messages", &e), e);
    request r = ask(MODEL, "", 12);
    r.text = NULL;
    r.messages = messages;
    r.want_logprobs = r.echo = true;
    r.n_top = 2;
    r.stops[0] = "zzz";
    r.n_stops = 1;
    int failures = 0;
    client c = {0};
    log_set_level(LOG_ERROR + 1);
    CHECK_OK(run(&b, &r, &c, &e), e);
    client_free(&c);
    for (int64_t n = 0; n < 600; n++) {
        int64_t before = mem_count();
        mem_fail_after(n);
        err_code rc = run(&b, &r, &c, &e);
        mem_fail_after(-1);
        failures += rc != ERR_OK;
        CHECK_INT(c.n_done, rc == ERR_OK);
        client_free(&c);
        if (rc == ERR_OK && mem_count() - before < n) break;
        if (rc == ERR_UNAVAILABLE) { /* the ledger itself has given up: a new start */
            bed_close(&b);
            CHECK_OK(open_bed("  max_sequences: 2\n", &e), e);
        }
    }
    CHECK(failures > 20);
    CHECK_STR(bed_balance(&b) ? bed_balance(&b) : "balanced", "balanced");
    CHECK(gauge("polder_running_sequences") == 0);
    CHECK(gauge("polder_queue_requests") == 0);
    CHECK_OK(run(&b, &r, &c, &e), e);
    client_free(&c);
    cJSON_Delete(messages);
}

static void each(const char *name, void (*fn)(void)) {
    test_run(name, fn);
    log_set_level(LOG_ERROR);
    tiny_extra = 0;
    atomic_store(&disk_fails, 0);
    mem_fail_after(-1);
    if (b.dir[0]) bed_close(&b);
}
#undef RUN
#define RUN(name) each(#name, test_case_##name)

int main(int argc, char **argv) {
    test_begin(argc, argv);
    log_set_level(LOG_ERROR);
    disk_install();
    RUN(pipeline_greedy_equals_reference);
    RUN(pipeline_records_tell_all);
    RUN(pipeline_seeds_reproduce);
    RUN(pipeline_choices_are_seeds);
    RUN(pipeline_sixteen_at_once_as_one_by_one);
    RUN(pipeline_sixteen_with_a_large_vocabulary);
    RUN(pipeline_sixteen_over_three_sequences);
    RUN(pipeline_preempted_sequences_lose_nothing);
    RUN(pipeline_stops_cut_the_text);
    RUN(pipeline_echo_scores_what_was_written);
    RUN(pipeline_cancel_frees_the_sequence);
    RUN(pipeline_gone_client_is_noticed);
    RUN(pipeline_full_queue_is_busy);
    RUN(pipeline_slow_client_stalls_nobody);
    RUN(pipeline_no_ledger_no_answer);
    RUN(pipeline_drain_ends_what_runs);
    RUN(pipeline_bad_requests_get_a_sentence);
    RUN(pipeline_failed_allocations);
    return test_end();
}
