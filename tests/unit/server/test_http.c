/* The doors before the real pipeline and a real model: what a client gets is what the engine computed and what the
 * ledger says. Breaks when streaming and not differ, a seed stops deciding, an aborted answer runs on, or an answer
 * goes out without its records. */
#include "server/internal.h"
#include "world.h"

#include <signal.h>
#include <sys/resource.h>

#define GREEDY_TOKENS 64

static world w;
static err e;
static const char *stories; /* path, or NULL */

static bool start_with_model(world_tweak tweak) {
    cJSON *out = NULL;
    err_code rc = world_open(&w, tweak, &e);
    if (rc == ERR_OK) rc = world_start(&w, &e);
    if (rc == ERR_OK) rc = models_add(w.isl, NULL, stories, "stories", NULL, NULL, &out, &e);
    cJSON_Delete(out);
    if (rc != ERR_OK) fprintf(stderr, "no server: %s\n", e.msg);
    return rc == ERR_OK;
}

static cJSON *complete(const char *body, int status) {
    reply r;
    client_request(w.port, w.key[ROLE_USER], "POST", "/v1/completions", body, &r);
    cJSON *v = r.status == status ? cJSON_Parse(buf_str(&r.body)) : NULL;
    if (!v) fprintf(stderr, "%s\n  gives %d: %s\n", body, r.status, buf_str(&r.body));
    reply_free(&r);
    return v;
}

#define BODY(more) "{\"model\":\"stories\",\"prompt\":\"Once upon a time\"" more "}"

/* The continuation that another implementation gives, without the prompt. */
static char *expected_text(void) {
    char path[1200];
    buf b = {.max = 65536};
    snprintf(path, sizeof path, "%s/models/stories260K.greedy.txt", test_shared());
    if (file_read(&b, path, &e) != ERR_OK) return NULL;
    while (b.len && b.ptr[b.len - 1] == '\n') b.ptr[--b.len] = 0;
    char *text = strdup(b.ptr + strlen("Once upon a time"));
    buf_free(&b);
    return text;
}

TEST(greedy_text_is_the_published_one) {
    char *want = expected_text();
    CHECK(want != NULL);
    cJSON *v = complete(BODY(",\"max_tokens\":64,\"temperature\":0"), 200);
    CHECK_STR(str_at(v, "choices.0.text"), want);
    CHECK_STR(str_at(v, "choices.0.finish_reason"), "length");
    CHECK(num_at(v, "usage.prompt_tokens") == 5 && num_at(v, "usage.completion_tokens") == GREEDY_TOKENS);
    cJSON_Delete(v);
    v = complete(
        "{\"model\":\"stories\",\"prompt\":\"Once upon a time\",\"max_tokens\":64,\"temperature\":0,\"echo\":true}",
        200);
    CHECK(v && strncmp(str_at(v, "choices.0.text"), "Once upon a time", 16) == 0);
    CHECK_STR(str_at(v, "choices.0.text") + 16, want);
    cJSON_Delete(v);
    free(want);
}

TEST(streams_carry_the_same_text) {
    char *want = expected_text();
    reply r;
    client_request(
        w.port, w.key[ROLE_USER], "POST", "/v1/completions",
        BODY(",\"max_tokens\":64,\"temperature\":0,\"stream\":true,\"stream_options\":{\"include_usage\":true}"), &r);
    CHECK_INT(r.status, 200);
    buf t = {.max = 65536};
    int events;
    sse_text(buf_str(&r.body), 0, &t, &events);
    CHECK_STR(buf_str(&t), want);
    CHECK(events > 10);
    CHECK_HAS(buf_str(&r.body), "\"completion_tokens\":64");
    CHECK_HAS(buf_str(&r.body), "data: [DONE]");
    buf_free(&t);
    reply_free(&r);
    free(want);
}

TEST(seeds_decide) {
    cJSON *a = complete(BODY(",\"max_tokens\":24,\"temperature\":1,\"seed\":5,\"n\":2"), 200);
    cJSON *b = complete(BODY(",\"max_tokens\":24,\"temperature\":1,\"seed\":6"), 200);
    cJSON *c = complete(BODY(",\"max_tokens\":24,\"temperature\":1,\"seed\":5"), 200);
    CHECK(a && b && c);
    CHECK_STR(str_at(a, "choices.0.text"), str_at(c, "choices.0.text"));
    CHECK_STR(str_at(a, "choices.1.text"), str_at(b, "choices.0.text")); /* choice c samples with seed + c */
    CHECK(strcmp(str_at(a, "choices.0.text"), str_at(a, "choices.1.text")) != 0);
    cJSON_Delete(a);
    cJSON_Delete(b);
    cJSON_Delete(c);
}

TEST(stop_strings_end_the_text) {
    cJSON *v = complete(BODY(",\"max_tokens\":64,\"temperature\":0,\"stop\":[\"zzz\",\" named Lily\"]"), 200);
    CHECK_STR(str_at(v, "choices.0.text"), ", there was a little girl");
    CHECK_STR(str_at(v, "choices.0.finish_reason"), "stop");
    cJSON_Delete(v);
}

TEST(log_probabilities_add_up) {
    cJSON *v = complete(BODY(",\"max_tokens\":8,\"temperature\":0,\"logprobs\":2,\"echo\":true"), 200);
    const cJSON *tokens = json_at(v, "choices.0.logprobs.tokens"), *t;
    CHECK_INT(cJSON_GetArraySize(tokens), 5 + 8);
    CHECK(cJSON_IsNull(json_at(v, "choices.0.logprobs.token_logprobs.0")));
    for (int i = 1; i < 13; i++) {
        char path[64];
        snprintf(path, sizeof path, "choices.0.logprobs.token_logprobs.%d", i);
        double lp = num_at(v, path);
        CHECK(lp <= 0 && lp > -100);
        snprintf(path, sizeof path, "choices.0.logprobs.top_logprobs.%d", i);
        const cJSON *top = json_at(v, path);
        CHECK_INT(cJSON_GetArraySize(top), 2);
        /* the greedy token is the likeliest of the top ones */
        if (i >= 5) CHECK(top->child->valuedouble == lp && top->child->next->valuedouble <= lp);
    }
    int last = -1;
    cJSON_ArrayForEach(t, json_at(v, "choices.0.logprobs.text_offset")) {
        CHECK(t->valueint >= last);
        last = t->valueint;
    }
    CHECK((size_t)last < strlen(str_at(v, "choices.0.text")));
    cJSON_Delete(v);
}

TEST(token_prompts_and_text_prompts_agree) {
    cJSON *a =
        complete("{\"model\":\"stories\",\"prompt\":[1,403,407,261,378],\"max_tokens\":8,\"temperature\":0}", 200);
    cJSON *b = complete(BODY(",\"max_tokens\":8,\"temperature\":0"), 200);
    CHECK_STR(str_at(a, "choices.0.text"), str_at(b, "choices.0.text"));
    cJSON_Delete(a);
    cJSON_Delete(b);
    cJSON_Delete(complete("{\"model\":\"stories\",\"prompt\":[1,99999]}", 400));
}

static uint64_t records_now(void) {
    ledger_stats st;
    ledger_get_stats(island_ledger(w.isl), &st);
    return st.size;
}

/* Fails where the prompts before a bad one are run and recorded, or a stream of them begins with 200. */
TEST(a_bad_prompt_among_several_changes_nothing) {
    uint64_t before = records_now();
    static const char *const bad[] = {"[[1,403],[1,99999]]", "[[1],[1],[-1]]", "[[1,403],[2147483647]]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        for (int streamed = 0; streamed < 2; streamed++) {
            char body[300];
            snprintf(body, sizeof body, "{\"model\":\"stories\",\"max_tokens\":2,\"stream\":%s,\"prompt\":%s}",
                     streamed ? "true" : "false", bad[i]);
            cJSON_Delete(complete(body, 400));
            CHECK_INT(records_now(), before);
        }
    }
    cJSON *v = complete("{\"model\":\"stories\",\"max_tokens\":2,\"prompt\":[[1,403],[1]]}", 200);
    CHECK_INT(records_now(), before + 4);
    cJSON_Delete(v);
}

TEST(refusals_of_the_pipeline) {
    static const struct {
        const char *path, *body;
        int status;
        const char *code;
    } t[] = {
        {"/v1/completions", "{\"model\":\"nothing\",\"prompt\":\"x\"}", 404, "model_not_found"},
        {"/v1/chat/completions", "{\"model\":\"stories\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", 400,
         "unsupported"}, /* it has no chat template */
        {"/v1/completions", BODY(",\"max_tokens\":600"), 400, "context_length_exceeded"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        reply r;
        client_request(w.port, w.key[ROLE_USER], "POST", t[i].path, t[i].body, &r);
        cJSON *v = cJSON_Parse(buf_str(&r.body));
        if (i == 2 && r.status == 200) { /* as many as fit is an answer too */
            CHECK_STR(str_at(v, "choices.0.finish_reason"), "length");
        } else {
            CHECK_INT(r.status, t[i].status);
            CHECK_STR(str_at(v, "error.code"), t[i].code);
        }
        cJSON_Delete(v);
        reply_free(&r);
    }
    buf long_prompt = {.max = 1 << 20};
    buf_puts(&long_prompt, "{\"model\":\"stories\",\"prompt\":\"");
    for (int i = 0; i < 2000; i++) buf_puts(&long_prompt, "once ");
    buf_puts(&long_prompt, "\"}");
    cJSON *v = complete(buf_str(&long_prompt), 400);
    CHECK_STR(str_at(v, "error.code"), "context_length_exceeded");
    cJSON_Delete(v);
    buf_free(&long_prompt);
}

TEST(every_answer_has_its_records) {
    reply r;
    client_request(w.port, w.key[ROLE_USER], "POST", "/v1/completions", BODY(",\"max_tokens\":4,\"seed\":11"), &r);
    CHECK_INT(r.status, 200);
    const char *field = reply_field(&r, "x-polder-record");
    CHECK(field != NULL);
    uint64_t seq = strtoull(field, NULL, 10);
    buf b = {.max = 65536};
    CHECK_OK(ledger_read(island_ledger(w.isl), seq, &b, &e), e);
    cJSON *v = cJSON_Parse(buf_str(&b));
    CHECK_STR(str_at(v, "event"), "admitted");
    CHECK_STR(str_at(v, "dialect"), "openai.completions");
    CHECK_STR(str_at(v, "params.seed"), "11");
    CHECK(!strstr(buf_str(&b), "Once upon")); /* contents are in the vault */
    cJSON_Delete(v);
    buf_reset(&b);
    CHECK_OK(ledger_read(island_ledger(w.isl), seq + 1, &b, &e), e);
    v = cJSON_Parse(buf_str(&b));
    CHECK_STR(str_at(v, "event"), "completed");
    CHECK(num_at(v, "request") == (double)seq);
    cJSON_Delete(v);
    buf_free(&b);
    reply_free(&r);
}

static bool ledger_has(const char *what, uint64_t seq) {
    bool found = false;
    for (uint64_t i = 0; i < ledger_size(island_ledger(w.isl)) && !found; i++) {
        buf b = {.max = 65536};
        if (ledger_read(island_ledger(w.isl), i, &b, NULL) == ERR_OK) {
            cJSON *v = cJSON_Parse(buf_str(&b));
            found = str_at(v, "event") && strcmp(str_at(v, "event"), what) == 0 && num_at(v, "request") == (double)seq;
            cJSON_Delete(v);
        }
        buf_free(&b);
    }
    return found;
}

static int send_completion(const char *body) {
    char q[1024];
    snprintf(q, sizeof q,
             "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"
             "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
             w.key[ROLE_USER], strlen(body), body);
    int fd = client_tcp(w.port);
    (void)client_send(fd, q, strlen(q));
    return fd;
}

/* Events of 5 KB each, 4,000 of them: more than the buffers between hold, so that the answer cannot have ended. */
#define LONG_STREAM BODY(",\"n\":8,\"max_tokens\":500,\"logprobs\":5,\"stream\":true,\"logit_bias\":{\"2\":-100}")

TEST(an_aborted_stream_stops_the_engine) {
    metric *m = metric_get(METRIC_COUNTER, "polder_requests_total", "outcome=\"cancelled\"", "");
    metric *running = metric_get(METRIC_GAUGE, "polder_running_sequences", NULL, "");
    double before = metric_value(m);
    reply r;
    int fd = send_completion(LONG_STREAM);
    client_read(fd, &r, false, "data: ");
    CHECK_INT(r.status, 200);
    uint64_t seq = strtoull(reply_field(&r, "x-polder-record"), NULL, 10);
    reply_free(&r);
    close(fd);
    for (int ms = 0; ms < 5000 && metric_value(m) == before; ms += 5) usleep(5000);
    CHECK(metric_value(m) == before + 1);
    for (int ms = 0; ms < 5000 && metric_value(running) > 0; ms += 5) usleep(5000);
    CHECK(metric_value(running) == 0);
    CHECK(ledger_has("failed", seq) && !ledger_has("completed", seq));
}

static void one_at_a_time(island_config *c) {
    c->inference_max_sequences = 1;
    c->inference_max_queue = 0;
}

TEST(a_full_queue_is_429) {
    world old = w;
    CHECK(start_with_model(one_at_a_time));
    reply r;
    int fd = send_completion(BODY(",\"max_tokens\":500,\"logprobs\":5,\"stream\":true,\"logit_bias\":{\"2\":-100}"));
    metric *running = metric_get(METRIC_GAUGE, "polder_running_sequences", NULL, "");
    for (int ms = 0; ms < 5000 && metric_value(running) < 1; ms++) usleep(1000);
    int busy = 0;
    for (int i = 0; i < 20 && !busy; i++) {
        client_request(w.port, w.key[ROLE_USER], "POST", "/v1/completions", BODY(",\"max_tokens\":1"), &r);
        if (r.status == 429) {
            busy++;
            CHECK_STR(reply_field(&r, "retry-after"), "1");
            CHECK_HAS(buf_str(&r.body), "\"code\":\"busy\"");
        }
        reply_free(&r);
    }
    close(fd);
    world_end(&w);
    w = old;
    CHECK(busy == 1);
}

typedef struct racer {
    pthread_t t;
    char *text;
} racer;

static void *race(void *arg) {
    racer *x = arg;
    reply r;
    client_request(w.port, w.key[ROLE_USER], "POST", "/v1/completions",
                   BODY(",\"max_tokens\":64,\"temperature\":0,\"stream\":true"), &r);
    buf t = {.max = 65536};
    int events;
    sse_text(buf_str(&r.body), 0, &t, &events);
    x->text = strstr(buf_str(&r.body), "[DONE]") ? strdup(buf_str(&t)) : NULL;
    buf_free(&t);
    reply_free(&r);
    return NULL;
}

TEST(sixteen_streams_at_once) {
    racer x[16] = {0};
    char *want = expected_text();
    for (int i = 0; i < 16; i++) CHECK(pthread_create(&x[i].t, NULL, race, &x[i]) == 0);
    for (int i = 0; i < 16; i++) pthread_join(x[i].t, NULL);
    for (int i = 0; i < 16; i++) {
        CHECK_STR(x[i].text, want);
        free(x[i].text);
    }
    free(want);
}

TEST(the_control_socket_imports_models) {
    char body[2048], path[1400], q[4096], sock[400], full[4096];
    if (!realpath(stories, full)) FAIL("%s: no path", stories);
    snprintf(path, sizeof path, "%s", full);
    snprintf(body, sizeof body, "{\"path\":\"%s\",\"name\":\"again\"}", path);
    snprintf(q, sizeof q,
             "POST /api/polder/v1/model.add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    snprintf(sock, sizeof sock, "%s/control.sock", w.dir);
    int fd = client_unix(sock);
    reply r;
    CHECK(fd >= 0 && client_send(fd, q, strlen(q)));
    client_read(fd, &r, false, NULL);
    CHECK_INT(r.status, 200);
    CHECK_HAS(buf_str(&r.body), "\"again\"");
    reply_free(&r);
    close(fd);
    client_request(w.port, w.key[ROLE_USER], "GET", "/v1/models/again", NULL, &r);
    CHECK_INT(r.status, 200);
    CHECK_HAS(buf_str(&r.body), "sha256:ce45b12f4f4c");
    reply_free(&r);
}

/* Every write of this process fails as on a full disk. */
static void fill_disk(bool full) {
    struct rlimit r;
    getrlimit(RLIMIT_FSIZE, &r);
    r.rlim_cur = full ? 1 : r.rlim_max;
    setrlimit(RLIMIT_FSIZE, &r);
}

TEST(without_a_ledger_nothing_is_answered) {
    world old = w;
    CHECK(start_with_model(NULL));
    metric *m = metric_get(METRIC_COUNTER, "polder_ledger_refusals_total", NULL, "");
    double before = metric_value(m);
    cJSON_Delete(complete(BODY(",\"max_tokens\":1"), 200));
    signal(SIGXFSZ, SIG_IGN);
    reply r[2];
    fill_disk(true);
    for (int i = 0; i < 2; i++)
        client_request(w.port, w.key[ROLE_USER], "POST", "/v1/completions",
                       i ? BODY(",\"max_tokens\":4,\"stream\":true") : BODY(",\"max_tokens\":4"), &r[i]);
    fill_disk(false);
    double counted = metric_value(m) - before;
    int status[2] = {r[0].status, r[1].status};
    bool text = strstr(buf_str(&r[0].body), "choices") || strstr(buf_str(&r[1].body), "choices");
    char said[ERR_MSG_MAX];
    snprintf(said, sizeof said, "%s", buf_str(&r[0].body));
    reply_free(&r[0]);
    reply_free(&r[1]);
    world_end(&w);
    w = old;
    CHECK_INT(status[0], 503);
    CHECK_INT(status[1], 503);
    CHECK(!text && counted == 2);
    CHECK_HAS(said, "the ledger cannot be written");
    CHECK(!strstr(said, old.tmp) && !strstr(said, "polder-test-")); /* no path of this machine */
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    log_set_level(LOG_ERROR);
    static char path[1200];
    if (test_shared()) {
        snprintf(path, sizeof path, "%s/models/stories260K.gguf", test_shared());
        if (access(path, R_OK) == 0) stories = path;
    }
    if (!stories) {
        printf("skip: ../shared/models/stories260K.gguf is not there\n0 passed, 0 failed, 1 skipped\n");
        return 0;
    }
    int tasks = count_tasks();
    if (!start_with_model(NULL)) return 1;
    RUN(greedy_text_is_the_published_one);
    RUN(streams_carry_the_same_text);
    RUN(seeds_decide);
    RUN(stop_strings_end_the_text);
    RUN(log_probabilities_add_up);
    RUN(token_prompts_and_text_prompts_agree);
    RUN(a_bad_prompt_among_several_changes_nothing);
    RUN(refusals_of_the_pipeline);
    RUN(every_answer_has_its_records);
    RUN(an_aborted_stream_stops_the_engine);
    RUN(a_full_queue_is_429);
    RUN(sixteen_streams_at_once);
    RUN(the_control_socket_imports_models);
    RUN(without_a_ledger_nothing_is_answered);
    world_end(&w);
    if (count_tasks() != tasks) {
        fprintf(stderr, "threads are left: %d, not %d\n", count_tasks(), tasks);
        return 1;
    }
    return test_end();
}
