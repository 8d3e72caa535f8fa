/* The contract of drivers (driver.h): whatever answers, the steps come in the same order, a call may be cancelled or
 * released at any point, and a failure says what it means. The engine answers with the small model; the drivers of
 * providers are answered by the mock (tests/mock/mock.h). */
#include "support.h"

#include "inference/drivers/driver.h"
#include "inference/drivers/upstream.h"
#include "inference/internal.h"

#include "mock.h"
#include "tls.h"

#include <signal.h>
#include <sys/wait.h>

#define SECRET   "sk-mock-0123456789-abcdefghij"
#define WAIT_MS  50
#define LIMIT_NS 20000000000u /* of one call: more is a hang */

static bed b;
static mock *m;
static upstream_lines *lines;
static char url[64];
static int other_port; /* of a mock in another process, for tests that make allocations of this one fail */
static pid_t other_pid;

/* ---- what answers ------------------------------------------------------------------------------------------ */

typedef struct subject {
    const char *name;
    const driver *d;
    upstream_target t; /* of providers */
} subject;

static subject engine = {.name = "engine", .d = &driver_engine};
static subject openai = {.name = "openai", .d = &driver_openai};
static subject azure = {.name = "openai, form azure", .d = &driver_openai};
static subject anthropic = {.name = "anthropic", .d = &driver_anthropic};
static subject *const all[] = {&engine, &openai, &azure, &anthropic};
static subject *const remotes[] = {&openai, &azure, &anthropic};

#define EACH(s, list) for (size_t k_ = 0; k_ < sizeof list / sizeof *list && ((s) = list[k_]); k_++)

static upstream_target target_of(const char *base, const char *form, const char *model_name) {
    return (upstream_target){.lines = lines,
                             .provider = "mocked",
                             .url = base,
                             .form = form,
                             .api_version = "",
                             .model = model_name,
                             .credential = SECRET,
                             .ca_file = "",
                             .connect_timeout_ms = 2000,
                             .first_byte_timeout_ms = 10000,
                             .idle_timeout_ms = 10000};
}

static void *aim(subject *s, const char *model_name) {
    static loaded *l;
    err e;
    if (s->d == &driver_engine) {
        if (!l && inference_get_loaded(b.inf, "tiny", NULL, NULL, &l, &e) != ERR_OK) return NULL;
        return l;
    }
    s->t = target_of(url, s == &azure ? "azure" : "", model_name);
    return &s->t;
}

/* ---- what is asked ----------------------------------------------------------------------------------------- */

static cJSON *user_says(const char *text) {
    cJSON *list = cJSON_CreateArray(), *one = cJSON_CreateObject();
    cJSON_AddItemToArray(list, one);
    cJSON_AddStringToObject(one, "role", "user");
    cJSON_AddStringToObject(one, "content", text);
    return list;
}

static request chat(const cJSON *messages, bool stream) {
    request r = {.dialect = "test", .model = "test", .messages = messages, .n_choices = 1, .parse = true};
    sampler_params_default(&r.sampling);
    r.max_tokens = -1;
    r.stream = stream;
    return r;
}

/* ---- one call ---------------------------------------------------------------------------------------------- */

typedef struct seen {
    err_code rc;
    err e;
    int started, finished, ended, events, wrong;
    buf text[REQUEST_CHOICES_MAX], reasoning, calls; /* calls: "name(arguments)" one after another */
    char reason[REQUEST_CHOICES_MAX][24], stop[24];
    bool in_call;
    driver_outcome out;
    driver_failure failure;
    size_t body_len;
    int vectors;
    float vector[64];
    float logprob;
    int tokens;
} seen;

static void seen_free(seen *s) {
    for (int i = 0; i < REQUEST_CHOICES_MAX; i++) buf_free(&s->text[i]);
    buf_free(&s->reasoning);
    buf_free(&s->calls);
}

static void see_event(seen *s, const event *ev, const request *r) {
    s->events++;
    s->wrong += !s->started || s->ended || ev->choice >= r->n_choices;
    if (ev->choice >= REQUEST_CHOICES_MAX) return;
    s->wrong += !r->embed && s->reason[ev->choice][0] != 0; /* nothing of a choice comes behind its end */
    s->wrong +=
        s->in_call && ev->kind != EV_CALL_ARGS && ev->kind != EV_CALL_END && ev->kind != EV_RAW && r->n_choices == 1;
    s->tokens += (int)ev->n_tokens;
    if (ev->n_tokens) s->logprob = ev->tokens[0].logprob;
    switch (ev->kind) {
    case EV_RAW: break;
    case EV_TEXT:
        buf_append(&s->text[ev->choice], ev->text, ev->len);
        s->wrong += !utf8_valid(ev->text, ev->len);
        break;
    case EV_REASONING: buf_append(&s->reasoning, ev->text, ev->len); break;
    case EV_CALL:
        buf_append(&s->calls, ev->text, ev->len);
        buf_putc(&s->calls, '(');
        s->in_call = true;
        break;
    case EV_CALL_ARGS:
        buf_append(&s->calls, ev->text, ev->len);
        s->wrong += !s->in_call;
        break;
    case EV_CALL_END:
        buf_putc(&s->calls, ')');
        s->wrong += !s->in_call;
        s->in_call = false;
        break;
    case EV_FINISH:
        snprintf(s->reason[ev->choice], 24, "%s", ev->reason ? ev->reason : "NULL");
        snprintf(s->stop, sizeof s->stop, "%s", ev->stop ? ev->stop : "");
        s->finished++;
        break;
    case EV_VECTOR:
        s->wrong += (int)ev->input != s->vectors || ev->n_vector > 64;
        if (ev->n_vector <= 64) memcpy(s->vector, ev->vector, ev->n_vector * sizeof(float));
        s->vectors++;
        break;
    default: s->wrong++;
    }
}

typedef enum stop_at { RUN, STOP_PREPARED, STOP_STARTED, STOP_STEPS } stop_at;
typedef struct plan {
    stop_at release;  /* released there, without an end */
    int steps;        /* STOP_STEPS: after so many */
    int cancel_after; /* steps; -1: never */
    bool describe;
} plan;
static const plan to_the_end = {.cancel_after = -1, .describe = true};

static void go_on(subject *s, driver_call *c, const plan *p, seen *out) {
    uint64_t limit = time_mono_ns() + LIMIT_NS;
    int steps = 0;
    for (;;) {
        driver_step step;
        event ev;
        if (p->release == STOP_STEPS && steps >= p->steps) return;
        if (p->cancel_after >= 0 && steps >= p->cancel_after) s->d->cancel(c);
        out->rc = s->d->next(c, WAIT_MS, &step, &ev, &out->e);
        if (out->rc) break;
        if (time_mono_ns() > limit) {
            out->wrong += 1000;
            break;
        }
        if (step == STEP_WAIT) continue;
        steps++;
        if (step == STEP_STARTED) {
            out->wrong += out->started || out->events || out->ended;
            out->started++;
        }
        if (step == STEP_EVENT) see_event(out, &ev, c->r);
        if (step == STEP_END) {
            out->wrong += !out->started;
            out->ended++;
            break;
        }
    }
    s->d->finish(c, &out->out);
    for (int i = 0; i < REQUEST_CHOICES_MAX; i++) { /* what belongs to the driver is not read after release */
        out->out.choices[i].tokens = NULL;
        if (out->out.choices[i].finish && !p->release)
            out->wrong += strcmp(out->out.choices[i].finish, out->reason[i]) != 0;
        out->out.choices[i].finish = NULL;
    }
}

static void call(subject *s, const request *r, const char *model_name, const plan *p, seen *out) {
    driver_call c = {.r = r, .seed = 5, .max_output_tokens = 0, .target = aim(s, model_name)};
    memset(out, 0, sizeof *out);
    for (int i = 0; i < REQUEST_CHOICES_MAX; i++) out->text[i].max = 1 << 24;
    out->reasoning.max = out->calls.max = 1 << 24;
    out->rc = c.target ? s->d->prepare(&c, &out->e) : ERR_INTERNAL;
    out->body_len = c.body_len;
    if (!out->rc && p->describe) {
        jflat f;
        jflat_init(&f, LEDGER_ENTRY_MAX);
        out->rc = s->d->describe(&c, &f, &out->e);
        jflat_free(&f);
    }
    if (!out->rc && p->release != STOP_PREPARED) {
        out->rc = s->d->start(&c, &out->e);
        if (!out->rc && p->release != STOP_STARTED) go_on(s, &c, p, out);
    }
    out->failure = c.failure;
    s->d->release(&c);
    out->wrong += c.state != NULL;
}

/* A chat with one text of a user, to its end. */
static void say(subject *s, const char *model_name, const char *text, bool stream, seen *out) {
    cJSON *messages = user_says(text);
    request r = chat(messages, stream);
    if (s == &engine) r.max_tokens = 20;
    call(s, &r, model_name, &to_the_end, out);
    cJSON_Delete(messages);
}

/* ---- the contract, for all --------------------------------------------------------------------------------- */

/* Breaks where a driver gives an event before STEP_STARTED, forgets a choice's end, or gives one twice. */
TEST(steps_come_in_order) {
    subject *s;
    EACH(s, all) {
        for (int stream = 0; stream < 2; stream++) {
            seen x;
            say(s, "echo", "Hello there, how are you? I am well; thank you.", stream, &x);
            if (x.rc) FAIL("%s: %s", s->name, x.e.msg);
            if (x.wrong || x.started != 1 || x.ended != 1 || x.finished != 1)
                FAIL("%s: %d wrong, started %d, ended %d, finished %d", s->name, x.wrong, x.started, x.ended,
                     x.finished);
            CHECK_INT(x.out.n_choices, 1);
            CHECK(x.out.prompt_tokens > 0 && x.out.completion_tokens > 0);
            if (s != &engine) CHECK_STR(buf_str(&x.text[0]), "Hello there, how are you? I am well; thank you.");
            if (s != &engine) CHECK_STR(x.reason[0], "stop");
            seen_free(&x);
        }
    }
}

TEST(each_choice_ends_once) {
    subject *s;
    cJSON *messages = user_says("two");
    EACH(s, all) {
        for (int stream = 0; stream < 2; stream++) {
            request r = chat(messages, stream);
            seen x;
            r.n_choices = 3;
            r.max_tokens = 8;
            call(s, &r, "echo", &to_the_end, &x);
            if (s == &anthropic) { /* has one answer only, and says so before anything is sent */
                CHECK_INT(x.rc, ERR_UNSUPPORTED);
                CHECK_INT(x.started, 0);
            } else {
                if (x.rc) FAIL("%s: %s", s->name, x.e.msg);
                CHECK_INT(x.wrong, 0);
                CHECK_INT(x.finished, 3);
                CHECK_INT(x.out.n_choices, 3);
            }
            seen_free(&x);
        }
    }
    cJSON_Delete(messages);
}

/* Breaks where cancel is waited out, or where something that is cancelled ends as if it were whole. */
TEST(cancelled_at_any_step) {
    subject *s;
    cJSON *messages = user_says("a b c d e f g h");
    EACH(s, all) {
        for (int at = 0; at < 7; at++) {
            request r = chat(messages, true);
            plan p = {.cancel_after = at};
            seen x;
            uint64_t from = time_mono_ns();
            r.max_tokens = 200;
            call(s, &r, at ? "echo-1" : "hang", &p, &x);
            if (time_mono_ns() - from > 3000000000u) FAIL("%s: cancelled after %d steps it ran on", s->name, at);
            CHECK_INT(x.wrong, 0);
            if (x.rc != ERR_CANCELLED && !(x.rc == ERR_OK && x.ended)) FAIL("%s: %s", s->name, x.e.msg);
            CHECK(!x.failure.try_others && !x.failure.provider);
            seen_free(&x);
        }
    }
    cJSON_Delete(messages);
}

/* Breaks (under ASan) where something is not freed, or is freed too early. */
TEST(released_at_any_point) {
    subject *s;
    cJSON *messages = user_says("a b c d e f g h");
    EACH(s, all) {
        for (int at = STOP_PREPARED; at <= STOP_STEPS + 12; at++) {
            plan p = {
                .release = at < STOP_STEPS ? (stop_at)at : STOP_STEPS, .steps = at - STOP_STEPS, .cancel_after = -1};
            for (int stream = 0; stream < 2; stream++) {
                request r = chat(messages, stream);
                seen x;
                r.max_tokens = 200;
                call(s, &r, "echo-1", &p, &x);
                CHECK_INT(x.rc, ERR_OK);
                CHECK_INT(x.wrong, 0);
                seen_free(&x);
            }
        }
    }
    cJSON_Delete(messages);
}

/* Each allocation fails in turn: prepare says so, or did not need it. */
TEST(prepare_without_memory) {
    subject *s;
    cJSON *messages = user_says("a b c d");
    EACH(s, all) {
        int failed = 0, n = 0;
        for (bool whole = false; !whole; n++) {
            request r = chat(messages, true);
            plan p = {.release = STOP_PREPARED, .cancel_after = -1};
            seen x;
            r.max_tokens = 8;
            aim(s, "echo");
            mem_fail_after(n);
            call(s, &r, "echo", &p, &x);
            mem_fail_after(-1);
            if (x.rc && x.rc != ERR_NOMEM) FAIL("%s: allocation %d: %s", s->name, n, x.e.msg);
            failed += x.rc != ERR_OK;
            whole = x.rc == ERR_OK && n > 200;
            seen_free(&x);
        }
        CHECK(failed > 2);
    }
    cJSON_Delete(messages);
}

/* The same to the end; the mock is another process then, whose allocations do not fail. */
TEST(answer_without_memory) {
    subject *s;
    char base[64];
    cJSON *messages = user_says("a b c d");
    cJSON *tools = cJSON_Parse("[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}}]");
    snprintf(base, sizeof base, "http://127.0.0.1:%d", other_port);
    EACH(s, remotes) {
        for (int how = 0; how < 6; how++) {
            static const char *const models[] = {"echo", "reasoning", "tool"};
            int failed = 0, calm = 0;
            for (int n = 0; n < 400 && calm < 20; n++) {
                request r = chat(messages, how & 1);
                plan p = to_the_end;
                driver_call c = {.r = &r, .seed = 5};
                seen x = {0};
                r.tools = tools;
                r.want_logprobs = s != &anthropic;
                s->t = target_of(base, s == &azure ? "azure" : "", models[how / 2]);
                c.target = &s->t;
                for (int i = 0; i < REQUEST_CHOICES_MAX; i++) x.text[i].max = 1 << 20;
                x.reasoning.max = x.calls.max = 1 << 20;
                buf_puts(&x.text[0], ""), buf_reserve(&x.text[0], 4096), buf_reserve(&x.reasoning, 4096),
                    buf_reserve(&x.calls, 4096);
                x.rc = s->d->prepare(&c, &x.e);
                mem_fail_after(n);
                if (!x.rc) x.rc = s->d->start(&c, &x.e);
                if (!x.rc) go_on(s, &c, &p, &x);
                mem_fail_after(-1);
                if (x.rc && x.rc != ERR_NOMEM) FAIL("%s: allocation %d: %s", s->name, n, x.e.msg);
                if (x.rc) CHECK(!c.failure.provider); /* not the provider's fault */
                CHECK_INT(x.wrong, 0);
                s->d->release(&c);
                failed += x.rc != ERR_OK;
                calm = x.rc ? 0 : calm + 1;
                seen_free(&x);
            }
            if (failed < 2 || calm < 20) FAIL("%s: %d allocations failed, %d did not", s->name, failed, calm);
        }
    }
    cJSON_Delete(messages);
    cJSON_Delete(tools);
}

/* ---- drivers of providers ---------------------------------------------------------------------------------- */

/* A server that does not know n answers once: another may do better, but it is no outage. */
TEST(choices_that_are_missing) {
    cJSON *messages = user_says("two");
    for (int stream = 0; stream < 2; stream++) {
        request r = chat(messages, stream);
        seen x;
        r.n_choices = 2;
        call(&openai, &r, "one-choice", &to_the_end, &x);
        CHECK_INT(x.rc, ERR_UPSTREAM);
        CHECK_HAS(x.e.msg, "fewer choices");
        CHECK(x.failure.try_others && !x.failure.provider);
        seen_free(&x);
    }
    cJSON_Delete(messages);
}

/* Larger than what libcurl sends with the header, and than any buffer on the way. */
TEST(large_bodies) {
    subject *s;
    size_t n = 3 << 20;
    char *text = malloc(n + 1);
    for (size_t i = 0; i < n; i++) text[i] = (char)('a' + i % 26);
    text[n] = 0;
    EACH(s, remotes) {
        mock_stats before, after;
        seen x;
        mock_get_stats(m, &before);
        say(s, "echo", text, false, &x);
        mock_get_stats(m, &after);
        CHECK_OK(x.rc, x.e);
        CHECK(x.text[0].len == n && memcmp(x.text[0].ptr, text, n) == 0);
        CHECK_INT(x.out.sent_bytes, x.body_len);
        CHECK_INT(after.body_bytes - before.body_bytes, x.body_len);
        seen_free(&x);
    }
    free(text);
}

static void *many_main(void *arg) {
    static const char *const models[] = {"echo", "close-after", "fail-500", "echo-1"};
    subject s = *(subject *)arg;
    long bad = 0;
    for (int i = 0; i < 25; i++) {
        seen x;
        say(&s, models[i % 4], "some text", i & 1, &x);
        bad += x.wrong || (i % 4 == 2 ? x.rc != ERR_UPSTREAM
                                      : x.rc || strcmp(buf_str(&x.text[0]),
                                                       i % 4 == 1 ? "Hello from the mock." : "some text") != 0);
        seen_free(&x);
    }
    return (void *)bad;
}

/* Lines are shared by threads. */
TEST(many_at_once) {
    pthread_t t[12];
    subject *const two[] = {&openai, &anthropic};
    for (int i = 0; i < 12; i++) CHECK_INT(pthread_create(&t[i], NULL, many_main, two[i & 1]), 0);
    for (int i = 0; i < 12; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        CHECK(bad == NULL);
    }
}

/* What the record of egress states is what went out. */
TEST(body_is_what_leaves) {
    subject *s;
    cJSON *messages = user_says("count me");
    EACH(s, remotes) {
        driver_call c = {.seed = 1, .target = aim(s, "echo")};
        request r = chat(messages, true);
        driver_outcome out = {0};
        driver_step step = STEP_WAIT;
        mock_stats before, after;
        event ev;
        err e;
        size_t n;
        c.r = &r;
        mock_get_stats(m, &before);
        CHECK_OK(s->d->prepare(&c, &e), e);
        while (step != STEP_END) {
            if (step == STEP_WAIT && !out.n_choices) CHECK_OK(s->d->start(&c, &e), e);
            out.n_choices = 1;
            CHECK_OK(s->d->next(&c, WAIT_MS, &step, &ev, &e), e);
        }
        memset(&out, 0, sizeof out);
        s->d->finish(&c, &out);
        char *got = mock_last_body(m, &n), *header = mock_last_header(m);
        mock_get_stats(m, &after);
        CHECK_INT(n, c.body_len);
        CHECK(memcmp(got, c.body, n) == 0);
        CHECK_INT(out.sent_bytes, n);
        CHECK(out.received_bytes > 0);
        CHECK_INT(after.body_bytes - before.body_bytes, n);
        CHECK_INT(after.requests - before.requests, 1);
        CHECK(out.provider_id[0]);
        CHECK(!strstr(got, SECRET));
        CHECK_HAS(header, s == &azure       ? "\r\napi-key: " SECRET "\r\n"
                          : s == &anthropic ? "\r\nx-api-key: " SECRET "\r\n"
                                            : "\r\nAuthorization: Bearer " SECRET "\r\n");
        CHECK(!strstr(header, "Expect:") && !strstr(header, "Accept-Encoding:"));
        CHECK_HAS(header, s == &azure ? "POST /openai/deployments/echo/chat/completions?api-version=2024-10-21 HTTP/1.1"
                          : s == &anthropic ? "POST /v1/messages HTTP/1.1"
                                            : "POST /chat/completions HTTP/1.1");
        if (s == &anthropic) CHECK_HAS(header, "\r\nanthropic-version: 2023-06-01\r\n");
        s->d->release(&c);
        free(got);
        free(header);
    }
    cJSON_Delete(messages);
}

TEST(answers_of_every_kind) {
    static const char text[] = "Zürich → 東京 \"quoted\" \\ and\nlines 🙂";
    subject *s;
    cJSON *messages = user_says(text);
    cJSON *tools = cJSON_Parse(
        "[{\"type\":\"function\",\"function\":{\"name\":\"look_up\",\"parameters\":{\"type\":\"object\"}}}]");
    EACH(s, remotes) {
        for (int stream = 0; stream < 2; stream++) {
            static const char *const models[] = {"echo", "echo-1", "echo-tcp1", "whole"};
            seen x;
            for (size_t i = 0; i < 4; i++) {
                say(s, models[i], text, stream, &x);
                CHECK_OK(x.rc, x.e);
                CHECK_STR(buf_str(&x.text[0]), i == 3 ? "Hello from the mock." : text);
                CHECK_INT(x.wrong, 0);
                seen_free(&x);
            }
            say(s, "reasoning", text, stream, &x);
            CHECK_OK(x.rc, x.e);
            CHECK(strncmp(buf_str(&x.reasoning), "I think: ", 9) == 0 && strcmp(buf_str(&x.reasoning) + 9, text) == 0);
            CHECK(strncmp(buf_str(&x.text[0]), "done: ", 6) == 0 && strcmp(buf_str(&x.text[0]) + 6, text) == 0);
            seen_free(&x);
            say(s, "length", text, stream, &x);
            CHECK_STR(x.reason[0], "length");
            seen_free(&x);
            for (int one = 0; one < 2; one++) {
                request r = chat(messages, stream);
                r.tools = tools;
                call(s, &r, one ? "tool-1" : "tool", &to_the_end, &x);
                CHECK_OK(x.rc, x.e);
                CHECK_STR(x.reason[0], "tool_calls");
                CHECK_INT(x.out.choices[0].n_calls, 1);
                CHECK_STR(buf_str(&x.calls),
                          "look_up({\"text\":\"Zürich → 東京 \\\"quoted\\\" \\\\ and\\nlines 🙂\"})");
                seen_free(&x);
            }
        }
    }
    cJSON_Delete(messages);
    cJSON_Delete(tools);
}

TEST(stop_strings_are_named) {
    subject *s;
    cJSON *messages = user_says("x");
    EACH(s, remotes) {
        for (int stream = 0; stream < 2; stream++) {
            request r = chat(messages, stream);
            seen x;
            r.stops[r.n_stops++] = "END";
            call(s, &r, "stop", &to_the_end, &x);
            CHECK_OK(x.rc, x.e);
            CHECK_STR(x.stop, "END");
            CHECK_STR(x.reason[0], "stop");
            CHECK_STR(buf_str(&x.text[0]), "until here");
            seen_free(&x);
        }
    }
    cJSON_Delete(messages);
}

TEST(log_probabilities) {
    cJSON *messages = user_says("some words");
    for (int stream = 0; stream < 2; stream++) {
        request r = chat(messages, stream);
        seen x;
        r.want_logprobs = true;
        r.n_top = 1;
        call(&openai, &r, "echo", &to_the_end, &x);
        CHECK_OK(x.rc, x.e);
        CHECK_STR(buf_str(&x.text[0]), "some words");
        CHECK(x.tokens >= 1 && x.logprob == -0.5f);
        seen_free(&x);
    }
    cJSON_Delete(messages);
}

TEST(raw_prompts) {
    for (int stream = 0; stream < 2; stream++) {
        request r = {
            .dialect = "test", .model = "test", .text = "go on", .text_len = 5, .n_choices = 2, .stream = stream};
        seen x;
        sampler_params_default(&r.sampling);
        r.max_tokens = 12;
        call(&openai, &r, "echo", &to_the_end, &x);
        CHECK_OK(x.rc, x.e);
        CHECK_STR(buf_str(&x.text[0]), "go on");
        CHECK_STR(buf_str(&x.text[1]), "go on");
        CHECK_INT(x.finished, 2);
        seen_free(&x);
        call(&anthropic, &r, "echo", &to_the_end, &x);
        CHECK_INT(x.rc, ERR_UNSUPPORTED);
        seen_free(&x);
    }
}

TEST(vectors) {
    embed_input in[3] = {{.text = "one", .len = 3}, {.text = "two", .len = 3}, {.text = "three", .len = 5}};
    embed_request q = {.inputs = in, .n_inputs = 3};
    request r = {.dialect = "test", .model = "test", .embed = &q, .n_choices = 1}; /* sampling is not set then */
    seen x, y;
    call(&openai, &r, "numbers", &to_the_end, &x);
    CHECK_OK(x.rc, x.e);
    CHECK_INT(x.vectors, 3);
    CHECK_INT(x.wrong, 0);
    CHECK_INT(x.out.n_vectors, 3);
    CHECK_INT(x.out.dimensions, 8);
    call(&azure, &r, "base64", &to_the_end, &y);
    CHECK_OK(y.rc, y.e);
    CHECK(memcmp(x.vector, y.vector, 8 * sizeof(float)) == 0);
    CHECK(memcmp(x.out.vectors_sha256, y.out.vectors_sha256, SHA256_LEN) == 0);
    q.dimensions = 5;
    call(&openai, &r, "numbers", &to_the_end, &y);
    CHECK_OK(y.rc, y.e);
    CHECK_INT(y.out.dimensions, 5);
    call(&anthropic, &r, "numbers", &to_the_end, &y);
    CHECK_INT(y.rc, ERR_UNSUPPORTED);
    q.query = "which?";
    call(&openai, &r, "numbers", &to_the_end, &y);
    CHECK_INT(y.rc, ERR_UNSUPPORTED);
    q.query = NULL;
    in[1] = (embed_input){.tokens = (const int32_t[]){1, 2}, .n_tokens = 2};
    call(&openai, &r, "numbers", &to_the_end, &y);
    CHECK_INT(y.rc, ERR_UNSUPPORTED);
}

/* ---- failures ---------------------------------------------------------------------------------------------- */

static bool shows_secret(const char *text) {
    for (size_t i = 0; i + 8 <= strlen(SECRET); i++) {
        char part[9] = {0};
        memcpy(part, &SECRET[i], 8);
        if (strstr(text, part)) return true;
    }
    return false;
}

TEST(a_status_says_what_it_means) {
    static const struct {
        int status;
        err_code rc;
        bool others, provider;
        int retry;
    } want[] = {
        {400, ERR_INVALID, false, false, 0},   {401, ERR_UPSTREAM, true, true, 0},  {403, ERR_UPSTREAM, true, true, 0},
        {404, ERR_UPSTREAM, true, true, 0},    {408, ERR_UPSTREAM, true, false, 0}, {409, ERR_UPSTREAM, true, false, 0},
        {413, ERR_TOO_LARGE, false, false, 0}, {422, ERR_INVALID, false, false, 0}, {425, ERR_UPSTREAM, true, false, 0},
        {429, ERR_BUSY, true, false, 7},       {500, ERR_UPSTREAM, true, true, 0},  {502, ERR_UPSTREAM, true, true, 0},
        {503, ERR_UPSTREAM, true, true, 7},    {529, ERR_UPSTREAM, true, true, 0}};
    subject *s;
    EACH(s, remotes) {
        for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
            for (int stream = 0; stream < 2; stream++) {
                char model_name[24], number[8];
                seen x;
                snprintf(model_name, sizeof model_name, "fail-%d", want[i].status);
                snprintf(number, sizeof number, "%d", want[i].status);
                say(s, model_name, "x", stream, &x);
                CHECK_INT(x.rc, want[i].rc);
                CHECK_INT(x.failure.try_others, want[i].others);
                CHECK_INT(x.failure.provider, want[i].provider);
                CHECK_INT(x.failure.status, want[i].status);
                CHECK_INT(x.failure.retry_after_s, want[i].retry);
                CHECK_INT(x.e.retry_after_s, want[i].retry);
                CHECK_INT(x.started, 0);
                CHECK_INT(x.out.sent_bytes, x.body_len);
                CHECK_HAS(x.e.msg, number);
                CHECK_HAS(x.e.msg, "mocked");
                if (shows_secret(x.e.msg)) FAIL("%s: %s", s->name, x.e.msg);
                bool refused = want[i].status == 401 || want[i].status == 403;
                CHECK_HAS(x.e.msg, refused ? "polder provider set-key mocked" : "mock fails with");
                seen_free(&x);
            }
        }
    }
}

typedef struct fault {
    const char *model;
    const char *sentence;
    int started; /* -1: either */
    bool streams_only;
} fault;

/* Everything that is no answer is the provider's fault, says so, and leaves others to be tried. */
TEST(answers_that_are_none) {
    static const fault faults[] = {
        {"garbage", "cannot be used", 0, false},
        {"empty", "empty", 0, false},
        {"no-choices", "", 0, false},
        {"cut-stream", "", -1, false},
        {"cut-clean", "end mark", 1, true},
        {"close-early", "broke the exchange off", 0, false},
        {"stream-error", "too much to do", 0, true},
        {"stream-error-late", "it broke", 1, true},
        {"redirect", "redirect", 0, false},
        {"big-header", "header of more than", 0, false},
        {"big", "more than the", 0, false},
    };
    subject *s;
    EACH(s, remotes) {
        for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
            const fault *f = &faults[i];
            for (int stream = f->streams_only; stream < 2; stream++) {
                seen x;
                if (strcmp(f->model, "no-choices") == 0 && stream) continue;
                if (strcmp(f->model, "big") == 0 && (stream || s != &openai)) continue;
                say(s, f->model, "four words are enough", stream, &x);
                if (x.rc != ERR_UPSTREAM) FAIL("%s, %s: %s %s", s->name, f->model, err_name(x.rc), x.e.msg);
                if (!x.failure.try_others || !x.failure.provider)
                    FAIL("%s, %s: not the provider's fault", s->name, f->model);
                CHECK_HAS(x.e.msg, "mocked");
                CHECK_HAS(x.e.msg, f->sentence);
                if (f->started >= 0) CHECK_INT(x.started, f->started);
                CHECK_INT(x.wrong, 0);
                CHECK_INT(x.ended, 0);
                seen_free(&x);
            }
        }
    }
}

TEST(time_runs_out) {
    static const struct {
        const char *model, *sentence;
        int started;
    } want[] = {{"hang", "did not begin to answer within 200 ms", 0},
                {"hang-mid", "fell silent", 1},
                {"gap-2000", "fell silent", 1}};
    subject *s;
    cJSON *messages = user_says("some more words than one event holds");
    EACH(s, remotes) {
        for (size_t i = 0; i < 3; i++) {
            request r = chat(messages, true);
            driver_call c = {.r = &r, .target = aim(s, want[i].model)};
            seen x = {.text = {{.max = 4096}}};
            s->t.first_byte_timeout_ms = s->t.idle_timeout_ms = 200;
            uint64_t from = time_mono_ns();
            CHECK_OK(s->d->prepare(&c, &x.e), x.e);
            CHECK_OK(s->d->start(&c, &x.e), x.e);
            go_on(s, &c, &to_the_end, &x);
            uint64_t took = time_mono_ns() - from;
            CHECK_INT(x.rc, ERR_TIMEOUT);
            CHECK_HAS(x.e.msg, want[i].sentence);
            CHECK_INT(x.started, want[i].started);
            CHECK(c.failure.provider && c.failure.try_others);
            CHECK(took > 190000000u && took < 1500000000u);
            s->d->release(&c);
            seen_free(&x);
        }
    }
    cJSON_Delete(messages);
}

TEST(nobody_listens) {
    subject *s;
    cJSON *messages = user_says("x");
    EACH(s, remotes) {
        request r = chat(messages, true);
        driver_call c = {.r = &r, .target = aim(s, "echo")};
        seen x = {0};
        s->t.url = "http://127.0.0.1:1";
        CHECK_OK(s->d->prepare(&c, &x.e), x.e);
        CHECK_OK(s->d->start(&c, &x.e), x.e);
        go_on(s, &c, &to_the_end, &x);
        CHECK_INT(x.rc, ERR_UPSTREAM);
        CHECK_HAS(x.e.msg, "cannot be reached");
        CHECK(c.failure.provider && c.failure.try_others);
        CHECK_INT(x.out.sent_bytes, 0);
        s->d->release(&c);
    }
    cJSON_Delete(messages);
}

/* ---- lines ------------------------------------------------------------------------------------------------- */

/* Breaks where a line is not given back: each request would be a connection. */
TEST(connections_are_used_again) {
    subject *s;
    err e;
    upstream_lines *others = lines; /* whose connections have seen everything by now */
    CHECK_OK(upstream_lines_new(&lines, &e), e);
    EACH(s, remotes) {
        mock_stats before, after;
        seen x;
        say(s, "echo", "x", true, &x); /* the first connects */
        seen_free(&x);
        mock_get_stats(m, &before);
        for (int i = 0; i < 20; i++) {
            say(s, i % 3 == 2 ? "fail-429" : "echo", "x", i & 1, &x);
            CHECK_INT(x.rc, i % 3 == 2 ? ERR_BUSY : ERR_OK);
            seen_free(&x);
        }
        mock_get_stats(m, &after);
        CHECK_INT(after.connections - before.connections, 0);
        CHECK_INT(after.requests - before.requests, 20);
    }
    upstream_lines_free(lines);
    lines = others;
}

/* A connection that the server closes while it is idle, or just as it is used again, is replaced without a word; also
 * where that happens again and again. */
TEST(stale_connections_are_replaced) {
    subject *s;
    EACH(s, remotes) {
        for (int i = 0; i < 200; i++) {
            seen x;
            say(s, "close-after", "x", i & 1, &x);
            CHECK_OK(x.rc, x.e);
            CHECK_INT(x.out.sent_bytes, x.body_len * x.out.sendings);
            seen_free(&x);
        }
    }
}

/* A server that never ends its answer after the end mark holds nobody up, and its line is not used again. */
TEST(the_end_mark_ends) {
    subject *s;
    EACH(s, remotes) {
        seen x;
        uint64_t from = time_mono_ns();
        say(s, "linger", "x", true, &x);
        CHECK_OK(x.rc, x.e);
        CHECK(time_mono_ns() - from < 1000000000u);
        seen_free(&x);
    }
}

TEST(a_new_credential_is_used_at_once) {
    cJSON *messages = user_says("x");
    for (int i = 0; i < 4; i++) {
        request r = chat(messages, false);
        driver_call c = {.r = &r, .target = aim(&openai, "echo")};
        seen x = {.text = {{.max = 4096}}};
        openai.t.credential = i == 3 ? NULL : i & 1 ? "first-key" : "second-key";
        CHECK_OK(openai.d->prepare(&c, &x.e), x.e);
        CHECK_OK(openai.d->start(&c, &x.e), x.e);
        go_on(&openai, &c, &to_the_end, &x);
        CHECK_OK(x.rc, x.e);
        openai.d->release(&c);
        char *header = mock_last_header(m);
        if (i < 3)
            CHECK_HAS(header, i & 1 ? "Bearer first-key\r\n" : "Bearer second-key\r\n");
        else
            CHECK(!strstr(header, "Authorization"));
        free(header);
        seen_free(&x);
    }
    cJSON_Delete(messages);
}

/* Nothing else is said of this machine or of who asks. */
TEST(the_head_is_exact) {
    cJSON *messages = user_says("x");
    request r = chat(messages, false);
    driver_call c = {.r = &r, .target = aim(&openai, "echo")};
    seen x = {.text = {{.max = 4096}}};
    char want[400];
    openai.t.credential = "a-key";
    CHECK_OK(openai.d->prepare(&c, &x.e), x.e);
    snprintf(want, sizeof want,
             "POST /chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: polder\r\nAccept: */*\r\n"
             "Content-Type: application/json\r\nAuthorization: Bearer a-key\r\nContent-Length: %zu\r\n\r\n",
             mock_port(m), c.body_len);
    CHECK_OK(openai.d->start(&c, &x.e), x.e);
    go_on(&openai, &c, &to_the_end, &x);
    CHECK_OK(x.rc, x.e);
    openai.d->release(&c);
    char *header = mock_last_header(m);
    CHECK_STR(header, want);
    free(header);
    seen_free(&x);
    openai.t.credential = NULL;
    cJSON_Delete(messages);
}

/* A line end in what goes into the head would be a header of its own. */
TEST(no_header_is_put_in) {
    static const char *const bad[] = {"key\r\nX-Other: 1", "key\n", "ke\x7fy"};
    cJSON *messages = user_says("x");
    request r = chat(messages, false);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        driver_call c = {.r = &r, .target = aim(&openai, "echo")};
        mock_stats before, after;
        err e;
        openai.t.credential = bad[i];
        mock_get_stats(m, &before);
        CHECK_OK(openai.d->prepare(&c, &e), e);
        CHECK_INT(openai.d->start(&c, &e), ERR_INVALID);
        CHECK_HAS(e.msg, "cannot be sent");
        CHECK(!strstr(e.msg, "X-Other"));
        openai.d->release(&c);
        mock_get_stats(m, &after);
        CHECK_INT(after.requests, before.requests);
    }
    openai.t.credential = NULL;
    cJSON_Delete(messages);
}

TEST(secrets_are_cut_out) {
    upstream_target t = {.credential = "0123456789abcdef"};
    static const struct {
        const char *in, *out;
    } want[] = {{"key 0123456789abcdef.", "key ***."},
                {"part 456789abc.", "part ***."},
                {"56789ab", "56789ab"},
                {"0123456789abcdef0123456789abcdef", "******"},
                {"", ""},
                {"89abcdefX01234567", "***X***"}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        char text[80];
        snprintf(text, sizeof text, "%s", want[i].in);
        upstream_scrub(&t, text, sizeof text);
        CHECK_STR(text, want[i].out);
    }
    t.credential = "ab"; /* short ones are cut out whole */
    char text[16] = "xabyab";
    upstream_scrub(&t, text, sizeof text);
    CHECK_STR(text, "x**y**");
}

/* ---- TLS --------------------------------------------------------------------------------------------------- */

static const char tls_answer[] = "{\"choices\":[{\"message\":{\"content\":\"over TLS\"},\"finish_reason\":\"stop\"}]}";

static void tls_call(const char *base, const char *ca_file, seen *x) {
    cJSON *messages = user_says("x");
    request r = chat(messages, false);
    upstream_target t = target_of(base, "", "m");
    t.ca_file = ca_file;
    for (int i = 0; i < 100; i++) { /* until the server listens */
        driver_call c = {.r = &r, .target = &t};
        *x = (seen){.text = {{.max = 4096}}};
        x->rc = driver_openai.prepare(&c, &x->e);
        if (!x->rc) x->rc = driver_openai.start(&c, &x->e);
        if (!x->rc) go_on(&openai, &c, &to_the_end, x);
        x->failure = c.failure;
        driver_openai.release(&c);
        if (!x->rc || !strstr(x->e.msg, "cannot be reached")) break;
        usleep(50000);
    }
    cJSON_Delete(messages);
}

/* Breaks where certificates are not checked, or ca_file is not what is trusted: the credential would go to anybody. */
TEST(certificates_are_checked) {
    static const struct {
        const char *host;
        bool trusted, good;
    } want[] = {{"localhost", false, false}, {"localhost", true, true}, {"127.0.0.2", true, false}};
    char dir[256], says[400], ca[300], base[64];
    if (!tls_at_hand()) SKIP("no openssl");
    CHECK(test_tmpdir(dir));
    snprintf(ca, sizeof ca, "%s/c.pem", dir);
    snprintf(says, sizeof says,
             "printf 'HTTP/1.1 200 OK\\r\\nContent-Length: %zu\\r\\n\\r\\n'; printf '%%s' '%s'; sleep 30",
             strlen(tls_answer), tls_answer);
    CHECK(tls_certificate(dir));
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        seen x;
        int port = free_port();
        pid_t pid = tls_server(dir, port, says, "cat >/dev/null");
        snprintf(base, sizeof base, "https://%s:%d", want[i].host, port);
        tls_call(base, want[i].trusted ? ca : "", &x);
        kill(-pid, SIGKILL);
        waitpid(pid, NULL, 0);
        if (want[i].good) CHECK_OK(x.rc, x.e);
        if (want[i].good) CHECK_STR(buf_str(&x.text[0]), "over TLS");
        if (!want[i].good) CHECK_INT(x.rc, ERR_UPSTREAM);
        if (!want[i].good) CHECK_HAS(x.e.msg, "no trusted TLS connection");
        if (!want[i].good) CHECK(x.out.sent_bytes == 0 && x.failure.provider && x.failure.try_others);
        seen_free(&x);
    }
    test_rm(dir);
}

/* ---- all --------------------------------------------------------------------------------------------------- */

static bool start_other(void) {
    int p[2];
    if (pipe(p) != 0) return false;
    other_pid = fork();
    if (other_pid == 0) {
        mock *o = mock_start(0, NULL, NULL);
        int port = o ? mock_port(o) : 0;
        if (write(p[1], &port, sizeof port) != sizeof port) _exit(1);
        for (;;) pause();
    }
    bool ok = other_pid > 0 && read(p[0], &other_port, sizeof other_port) == sizeof other_port && other_port;
    close(p[0]);
    close(p[1]);
    return ok;
}

int main(int argc, char **argv) {
    err e = {0};
    test_begin(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    bool ok = start_other() && (m = mock_start(0, NULL, NULL)) && upstream_lines_new(&lines, &e) == ERR_OK &&
              bed_open(&b, NULL, &e) == ERR_OK && bed_add(&b, b.file, "tiny", &e) == ERR_OK;
    if (!ok) {
        fprintf(stderr, "cannot begin: %s\n", e.msg);
        return 1;
    }
    snprintf(url, sizeof url, "http://127.0.0.1:%d", mock_port(m));
    RUN(steps_come_in_order);
    RUN(each_choice_ends_once);
    RUN(cancelled_at_any_step);
    RUN(released_at_any_point);
    RUN(prepare_without_memory);
    RUN(answer_without_memory);
    RUN(choices_that_are_missing);
    RUN(large_bodies);
    RUN(many_at_once);
    RUN(body_is_what_leaves);
    RUN(answers_of_every_kind);
    RUN(stop_strings_are_named);
    RUN(log_probabilities);
    RUN(raw_prompts);
    RUN(vectors);
    RUN(a_status_says_what_it_means);
    RUN(answers_that_are_none);
    RUN(time_runs_out);
    RUN(nobody_listens);
    RUN(connections_are_used_again);
    RUN(stale_connections_are_replaced);
    RUN(the_end_mark_ends);
    RUN(a_new_credential_is_used_at_once);
    RUN(the_head_is_exact);
    RUN(no_header_is_put_in);
    RUN(secrets_are_cut_out);
    RUN(certificates_are_checked);
    bed_close(&b);
    upstream_lines_free(lines);
    mock_stop(m);
    kill(other_pid, SIGKILL);
    waitpid(other_pid, NULL, 0);
    return test_end();
}
