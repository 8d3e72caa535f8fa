/* The doors before a scripted pipeline: what is HTTP and what is not, keys and roles, limits, every
 * outcome of the pipeline as a status or an event, and that a client that hangs up stops what it started. Breaks when a
 * refusal loses its status, an answer its bytes, or a thread its end. */
#include "scripted.h"
#include "server/internal.h"
#include "world.h"

static world w;
static err e;

#define CHAT(model, more) "{\"model\":\"" model "\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" more "}"
#define COMP(model, more) "{\"model\":\"" model "\",\"prompt\":\"hi\"" more "}"
#define CHAT_PATH         "/v1/chat/completions"

static void post(const char *path, const char *body, reply *r) {
    client_request(w.port, w.key[ROLE_USER], "POST", path, body, r);
}

static int eventually(atomic_int *v, int want) {
    for (int ms = 0; ms < 3000 && *v != want; ms += 5) usleep(5000);
    return *v;
}

/* ---- the guard ---------------------------------------------------------------------------------------------- */

#define H "Host: localhost\r\n"
#define R "\r\n"

static const struct {
    const char *name, *request;
    int status;
    bool closes; /* the connection must not be used again */
} probes[] = {
    {"plain", "GET /healthz HTTP/1.1\r\n" H R, 200, false},
    {"1.0 needs no host", "GET /healthz HTTP/1.0\r\n" R, 200, true},
    {"no host", "GET /healthz HTTP/1.1\r\n" R, 400, true},
    {"two hosts", "GET /healthz HTTP/1.1\r\n" H "Host: other\r\n" R, 400, true},
    {"empty host", "GET /healthz HTTP/1.1\r\nHost:\r\n" R, 400, true},
    {"host with a space", "GET /healthz HTTP/1.1\r\nHost: a b\r\n" R, 400, true},
    {"two lengths", "POST /v1/completions HTTP/1.1\r\n" H "Content-Length: 2\r\nContent-Length: 2\r\n" R "{}", 400,
     true},
    {"lengths that differ", "POST /v1/completions HTTP/1.1\r\n" H "Content-Length: 2\r\nContent-Length: 5\r\n" R "{}",
     400, true},
    {"length list", "POST /v1/completions HTTP/1.1\r\n" H "Content-Length: 2, 2\r\n" R "{}", 400, true},
    {"length with a sign", "POST /v1/completions HTTP/1.1\r\n" H "Content-Length: +2\r\n" R "{}", 400, true},
    {"length with a minus", "POST /v1/completions HTTP/1.1\r\n" H "Content-Length: -2\r\n" R "{}", 400, true},
    {"length in hex", "POST /v1/completions HTTP/1.1\r\n" H "Content-Length: 0x2\r\n" R "{}", 400, true},
    {"length and chunked",
     "POST /v1/completions HTTP/1.1\r\n" H "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n" R "0\r\n\r\n", 400,
     true},
    {"chunked and length",
     "POST /v1/completions HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n" R "0\r\n\r\n", 400,
     true},
    {"two encodings",
     "POST /v1/completions HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" R "0\r\n\r\n",
     400, true},
    {"identity encoding", "POST /v1/completions HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n" R, 400, true},
    {"encoding list", "POST /v1/completions HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n" R "0\r\n\r\n", 400,
     true},
    {"odd encoding", "POST /v1/completions HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n" R "0\r\n\r\n", 400, true},
    {"chunked in 1.0", "POST /v1/completions HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n" R "0\r\n\r\n", 400, true},
    {"space before the colon", "POST /v1/completions HTTP/1.1\r\n" H "Content-Length : 2\r\n" R "{}", 400, true},
    {"tab before the colon", "POST /v1/completions HTTP/1.1\r\n" H "Transfer-Encoding\t: chunked\r\n" R "0\r\n\r\n",
     400, true},
    {"no colon", "GET /healthz HTTP/1.1\r\n" H "nonsense\r\n" R, 400, true},
    {"control character in a value", "GET /healthz HTTP/1.1\r\n" H "X-A: a\001b\r\n" R, 400, true},
    {"two keys", "GET /v1/models HTTP/1.1\r\n" H "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n" R, 400, true},
    {"compressed body", "POST /v1/completions HTTP/1.1\r\n" H "Content-Encoding: gzip\r\nContent-Length: 2\r\n" R "{}",
     400, true},
    {"odd expectation", "GET /healthz HTTP/1.1\r\n" H "Expect: money\r\n" R, 400, true},
    {"path that is not UTF-8", "GET /v1/models/%ff HTTP/1.1\r\n" H R, 400, true},
    {"raw bytes in the path", "GET /v1/models/\xff HTTP/1.1\r\n" H R, 400, true},
    {"NUL in the path", "GET /v1/models/a%00b HTTP/1.1\r\n" H R, 400, true},
    {"absolute form", "GET http://localhost/healthz HTTP/1.1\r\n" H R, 400, true},
    {"unknown method", "BREW /healthz HTTP/1.1\r\n" H R, 405, false},
    {"method that is no token", "GE(T /healthz HTTP/1.1\r\n" H R, 400, true},
    {"unknown path", "GET /nothing HTTP/1.1\r\n" H R, 404, false},
    {"wrong method", "DELETE /v1/completions HTTP/1.1\r\n" H R, 405, false},
    {"GET with a body", "GET /healthz HTTP/1.1\r\n" H "Content-Length: 2\r\n" R "{}", 400, false},
    {"control character in the query", "GET /healthz?a=\rb HTTP/1.1\r\n" H R, 400, true},
    {"bare line ends", "GET /healthz HTTP/1.1\nHost: localhost\n\n", 400, true},
    {"folded line", "GET /healthz HTTP/1.1\r\n" H "X-A: b\r\n c\r\n" R, 400, true},
    {"space in a chunk's size",
     "OPTIONS /v1/models HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n" R "1 1\r\naa\r\n0\r\n\r\n", 400, true},
    {"query is no part of the path", "GET /healthz?x=%ff HTTP/1.1\r\n" H R, 200, false},
    {"no key", "GET /v1/models HTTP/1.1\r\n" H R, 401, false},
};

TEST(ambiguous_requests_are_refused) {
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++) {
        reply r;
        int fd = client_tcp(w.port);
        CHECK(fd >= 0 && client_send(fd, probes[i].request, strlen(probes[i].request)));
        client_read(fd, &r, false, NULL);
        if (r.status != probes[i].status) {
            fprintf(stderr, "%s: %d, not %d: %s\n", probes[i].name, r.status, probes[i].status, buf_str(&r.body));
            test_bad = true;
        }
        if (r.status >= 400) CHECK_HAS(buf_str(&r.body), "\"error\"");
        if (probes[i].closes && !client_closed(fd, 2000)) {
            fprintf(stderr, "%s: the connection stays open\n", probes[i].name);
            test_bad = true;
        }
        reply_free(&r);
        close(fd);
    }
}

/* A front end that believes the other length must not find a second request answered. */
TEST(smuggled_requests_are_not_answered) {
    static const char *const wires[] = {
        "POST /healthz HTTP/1.1\r\n" H "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n" R
        "0\r\n\r\nGET /healthz HTTP/1.1\r\n" H R,
        "POST /healthz HTTP/1.1\r\n" H "Content-Length : 40\r\n" R "GET /healthz HTTP/1.1\r\n" H R,
        "POST /healthz HTTP/1.1\r\n" H "Transfer-Encoding: chunked, identity\r\n" R "GET /healthz HTTP/1.1\r\n" H R,
        "POST /healthz HTTP/1.1\r\n" H "Content-Length: 0\r\nContent-Length: 40\r\n" R "GET /healthz HTTP/1.1\r\n" H R,
    };
    for (size_t i = 0; i < sizeof wires / sizeof *wires; i++) {
        reply a, b;
        int fd = client_tcp(w.port);
        CHECK(client_send(fd, wires[i], strlen(wires[i])));
        client_read(fd, &a, false, NULL);
        client_read(fd, &b, false, NULL);
        CHECK_INT(a.status, 400);
        CHECK_INT(b.status, 0);
        reply_free(&a);
        reply_free(&b);
        close(fd);
    }
}

TEST(huge_heads_are_refused) {
    for (int kind = 0; kind < 3; kind++) {
        buf q = {.max = 1 << 20};
        buf_puts(&q, "GET /healthz HTTP/1.1\r\n" H);
        if (kind == 0)
            for (int i = 0; i < 200; i++) buf_printf(&q, "X-%d: a\r\n", i);
        else {
            buf_puts(&q, "X-A: ");
            for (int i = 0; i < (kind == 1 ? 20000 : 200000); i++) buf_putc(&q, 'a');
            buf_puts(&q, "\r\n");
        }
        buf_puts(&q, "\r\n");
        reply r;
        int fd = client_tcp(w.port);
        (void)client_send(fd, q.ptr, q.len);
        client_read(fd, &r, false, NULL);
        if (r.status != 400 && r.status != 431 && r.status != 0) FAIL("kind %d: %d", kind, r.status);
        CHECK(client_closed(fd, 2000));
        reply_free(&r);
        close(fd);
        buf_free(&q);
    }
}

/* Breaks when a head takes the room that its body must come through, byte by byte or not at all. */
TEST(a_body_behind_a_large_head_arrives) {
    buf q = {.max = 1 << 22};
    buf_puts(&q, "POST /v1/completions HTTP/1.1\r\n" H "Content-Type: application/json\r\nContent-Length: 1000000\r\n");
    for (int i = 0; i < 4; i++) {
        buf_printf(&q, "X-%d: ", i);
        for (int k = 0; k < 4000; k++) buf_putc(&q, 'a');
        buf_puts(&q, "\r\n");
    }
    buf_puts(&q, "\r\n");
    for (int i = 0; i < 1000000; i++) buf_putc(&q, ' ');
    reply r;
    int fd = client_tcp(w.port);
    CHECK(client_send(fd, q.ptr, q.len));
    client_read(fd, &r, false, NULL);
    CHECK_INT(r.status, 401); /* after all of it: the connection is still good */
    reply_free(&r);
    CHECK(client_send(fd, "GET /healthz HTTP/1.1\r\n" H "\r\n", strlen("GET /healthz HTTP/1.1\r\n" H "\r\n")));
    client_read(fd, &r, false, NULL);
    CHECK_INT(r.status, 200);
    reply_free(&r);
    close(fd);
    buf_free(&q);
}

/* ---- keys and roles ------------------------------------------------------------------------------------------ */

TEST(roles_open_their_doors_only) {
    static const struct {
        const char *method, *path;
        int status[5]; /* none, user, operator, auditor, admin */
    } t[] = {
        {"GET", "/healthz", {200, 200, 200, 200, 200}},
        {"GET", "/readyz", {200, 200, 200, 200, 200}},
        {"GET", "/v1/models", {401, 200, 200, 403, 200}},
        {"GET", "/metrics", {401, 403, 200, 200, 200}},
        {"GET", "/ledger/checkpoint", {401, 403, 403, 200, 200}},
        {"POST", "/api/polder/v1/key.ls", {401, 403, 403, 200, 200}},
        {"POST", "/api/polder/v1/model.ls", {401, 403, 200, 200, 200}},
        {"POST", "/api/polder/v1/nothing", {401, 403, 404, 404, 404}},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        for (int k = 0; k < 5; k++) {
            static const role order[] = {0, ROLE_USER, ROLE_OPERATOR, ROLE_AUDITOR, ROLE_ADMIN};
            reply r;
            bool is_post = strcmp(t[i].method, "POST") == 0;
            client_request(w.port, k ? w.key[order[k]] : NULL, t[i].method, t[i].path, is_post ? "{}" : NULL, &r);
            if (r.status != t[i].status[k]) {
                fprintf(stderr, "%s as %d: %d, not %d\n", t[i].path, k, r.status, t[i].status[k]);
                test_bad = true;
            }
            if (r.status == 401) CHECK_STR(reply_field(&r, "www-authenticate"), "Bearer");
            reply_free(&r);
        }
}

TEST(bad_keys_are_refused_alike) {
    static const char *const fields[] = {
        "Authorization: Bearer pld_wrong\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Basic YTpi\r\n",
        "Authorization: Bearerx\r\n",
        "Authorization: \r\n",
        "",
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char q[512];
        reply r;
        snprintf(q, sizeof q, "GET /v1/models HTTP/1.1\r\n" H "%s\r\n", fields[i]);
        int fd = client_tcp(w.port);
        CHECK(client_send(fd, q, strlen(q)));
        client_read(fd, &r, false, NULL);
        cJSON *v = cJSON_Parse(buf_str(&r.body));
        CHECK_INT(r.status, 401);
        CHECK_STR(str_at(v, "error.code"), "invalid_api_key");
        CHECK(str_at(v, "error.message") && str_at(v, "error.type"));
        cJSON_Delete(v);
        reply_free(&r);
        close(fd);
    }
}

/* ---- outcomes ------------------------------------------------------------------------------------------------ */

TEST(failures_before_the_answer_are_statuses) {
    static const struct {
        const char *model;
        int status;
        const char *code, *type;
        bool retry;
    } t[] = {
        {"absent", 404, "model_not_found", "invalid_request_error", false},
        {"busy", 429, "busy", "rate_limit_error", true},
        {"down", 503, "unavailable", "server_error", true},
        {"long", 400, "context_length_exceeded", "invalid_request_error", false},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        for (int streamed = 0; streamed < 2; streamed++) {
            char body[256];
            reply r;
            snprintf(body, sizeof body, "{\"model\":\"%s\",\"prompt\":\"x\",\"stream\":%s}", t[i].model,
                     streamed ? "true" : "false");
            post("/v1/completions", body, &r);
            cJSON *v = cJSON_Parse(buf_str(&r.body));
            CHECK_INT(r.status, t[i].status);
            CHECK_STR(str_at(v, "error.code"), t[i].code);
            CHECK_STR(str_at(v, "error.type"), t[i].type);
            CHECK((reply_field(&r, "retry-after") != NULL) == t[i].retry);
            CHECK(!reply_field(&r, "x-polder-record"));
            CHECK_HAS(reply_field(&r, "x-request-id"), "req_");
            CHECK_HAS(reply_field(&r, "content-type"), "application/json");
            cJSON_Delete(v);
            reply_free(&r);
        }
}

TEST(bad_bodies_are_400) {
    static const struct {
        const char *body, *says, *param; /* param NULL: null */
    } t[] = {
        {"{", "request body", NULL},
        {"[]", "object", NULL},
        {"\"x\"", "object", NULL},
        {CHAT("ok", "") "x", "request body", NULL},
        {CHAT("ok", ",\"n\":1,\"n\":2"), "request body", NULL},
        {"{\"model\":\"ok\",\"messages\":[{\"role\":\"user\",\"content\":\"\\u0000\"}]}", "request body", NULL},
        {"{\"model\":\"ok\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", "request body", NULL},
        {CHAT("ok", ",\"temperature\":9"), "between 0 and 2", "temperature"},
        {CHAT("ok", ",\"wat\":1"), "wat", "wat"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        reply r;
        post(CHAT_PATH, t[i].body, &r);
        cJSON *v = cJSON_Parse(buf_str(&r.body));
        CHECK_INT(r.status, 400);
        CHECK_HAS(str_at(v, "error.message"), t[i].says);
        if (t[i].param)
            CHECK_STR(str_at(v, "error.param"), t[i].param);
        else
            CHECK(cJSON_IsNull(json_at(v, "error.param")));
        cJSON_Delete(v);
        reply_free(&r);
    }
    CHECK_INT(scripted_running, 0);
}

TEST(a_chat_answer) {
    reply r;
    post(CHAT_PATH, CHAT("ok", ",\"n\":2,\"seed\":7,\"logprobs\":true,\"top_logprobs\":2"), &r);
    CHECK_INT(r.status, 200);
    cJSON *v = cJSON_Parse(buf_str(&r.body));
    char id[64];
    snprintf(id, sizeof id, "chatcmpl-%s", reply_field(&r, "x-polder-record"));
    CHECK_STR(str_at(v, "id"), id);
    CHECK_STR(reply_field(&r, "x-polder-seed"), "7");
    CHECK_STR(str_at(v, "object"), "chat.completion");
    CHECK_STR(str_at(v, "model"), "ok");
    CHECK_STR(str_at(v, "system_fingerprint"), "p1-0123456789ab");
    CHECK(num_at(v, "created") == 1790000000);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "choices")), 2);
    CHECK_STR(str_at(v, "choices.1.message.content"), "Hello w\xc3\xb6rld");
    CHECK_STR(str_at(v, "choices.1.message.role"), "assistant");
    CHECK_STR(str_at(v, "choices.1.finish_reason"), "stop");
    CHECK(num_at(v, "choices.1.index") == 1);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "choices.0.logprobs.content")), 2);
    CHECK_STR(str_at(v, "choices.0.logprobs.content.0.token"), "Hello");
    CHECK(num_at(v, "choices.0.logprobs.content.0.logprob") == -0.5);
    CHECK(num_at(v, "choices.0.logprobs.content.1.bytes.2") == 0xc3);
    CHECK_INT(cJSON_GetArraySize(json_at(v, "choices.0.logprobs.content.0.top_logprobs")), 2);
    CHECK(num_at(v, "choices.0.logprobs.content.0.top_logprobs.1.logprob") == -9999);
    CHECK(num_at(v, "usage.prompt_tokens") == 3 && num_at(v, "usage.completion_tokens") == 4);
    CHECK(num_at(v, "usage.total_tokens") == 7);
    cJSON_Delete(v);
    reply_free(&r);
}

/* Breaks where reasoning or a call loses a piece, where ids are not unique, or a dropped call stays. */
TEST(a_chat_answer_with_calls) {
    reply r;
    post(CHAT_PATH, CHAT("calls", ",\"n\":2"), &r);
    CHECK_INT(r.status, 200);
    cJSON *v = cJSON_Parse(buf_str(&r.body));
    CHECK(v != NULL);
    CHECK(cJSON_IsNull(json_at(v, "choices.0.message.content")));
    CHECK_STR(str_at(v, "choices.0.message.reasoning_content"), "Hm. Yes.");
    CHECK_INT(cJSON_GetArraySize(json_at(v, "choices.0.message.tool_calls")), 2);
    CHECK_STR(str_at(v, "choices.0.message.tool_calls.0.type"), "function");
    CHECK_STR(str_at(v, "choices.0.message.tool_calls.0.function.name"), "f");
    CHECK_STR(str_at(v, "choices.0.message.tool_calls.0.function.arguments"), "{\"a\": \"\xc3\xb6\"}");
    CHECK_STR(str_at(v, "choices.0.message.tool_calls.1.function.arguments"), "{}");
    CHECK_STR(str_at(v, "choices.0.finish_reason"), "tool_calls");
    CHECK(num_at(v, "usage.completion_tokens_details.reasoning_tokens") == 7);
    const char *ids[4] = {
        str_at(v, "choices.0.message.tool_calls.0.id"), str_at(v, "choices.0.message.tool_calls.1.id"),
        str_at(v, "choices.1.message.tool_calls.0.id"), str_at(v, "choices.1.message.tool_calls.1.id")};
    for (int i = 0; i < 4; i++) {
        CHECK(ids[i] && strncmp(ids[i], "call_", 5) == 0);
        for (int k = 0; k < i; k++) CHECK(strcmp(ids[i], ids[k]) != 0);
    }
    cJSON_Delete(v);
    reply_free(&r);
    post(CHAT_PATH, CHAT("broken calls", ""), &r);
    v = cJSON_Parse(buf_str(&r.body));
    CHECK_STR(str_at(v, "choices.0.message.content"), "<call>{\"a\":");
    CHECK(!json_at(v, "choices.0.message.tool_calls"));
    CHECK_STR(str_at(v, "choices.0.finish_reason"), "stop");
    CHECK(cJSON_IsTrue(json_at(v, "choices.0.malformed_tool_call")));
    cJSON_Delete(v);
    reply_free(&r);
    post(CHAT_PATH, CHAT("half a call", ""), &r);
    v = cJSON_Parse(buf_str(&r.body));
    CHECK_STR(str_at(v, "choices.0.message.tool_calls.0.function.arguments"), "{\"a");
    CHECK_STR(str_at(v, "choices.0.finish_reason"), "length");
    CHECK(!json_at(v, "choices.0.malformed_tool_call"));
    cJSON_Delete(v);
    reply_free(&r);
}

/* Breaks where a delta has another shape than OpenAI's. */
TEST(a_streamed_chat_answer_with_calls) {
    reply r;
    post(CHAT_PATH, CHAT("calls", ",\"stream\":true"), &r);
    CHECK_INT(r.status, 200);
    const char *b = buf_str(&r.body);
    static const char *const in_order[] = {
        "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}",
        "\"delta\":{\"reasoning_content\":\"Hm.\"}",
        "\"delta\":{\"reasoning_content\":\" Yes.\"}",
        "\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_",
        ",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}",
        "\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\":\"}}]}",
        "\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\" \\\"",
        "\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"call_",
        "\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"{}\"}}]}",
        "\"delta\":{},\"finish_reason\":\"tool_calls\"",
        "data: [DONE]",
    };
    for (size_t i = 0; i < sizeof in_order / sizeof *in_order; i++) {
        const char *at = strstr(b, in_order[i]);
        if (!at) FAIL("no %s in order", in_order[i]);
        b = at + strlen(in_order[i]);
    }
    reply_free(&r);
    post(CHAT_PATH, CHAT("broken calls", ",\"stream\":true"), &r);
    CHECK_HAS(buf_str(&r.body), "\"delta\":{\"content\":\"<call>{\\\"a\\\":\"}");
    CHECK_HAS(buf_str(&r.body), "\"finish_reason\":\"stop\",\"malformed_tool_call\":true");
    reply_free(&r);
}

TEST(a_streamed_chat_answer) {
    reply r;
    post(CHAT_PATH, CHAT("ok", ",\"stream\":true,\"stream_options\":{\"include_usage\":true}"), &r);
    CHECK_INT(r.status, 200);
    CHECK(r.whole);
    CHECK_HAS(reply_field(&r, "content-type"), "text/event-stream");
    CHECK(reply_field(&r, "x-polder-record") != NULL);
    const char *b = buf_str(&r.body);
    const char *first = strstr(b, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}");
    const char *text = strstr(b, "\"delta\":{\"content\":\"Hello\"}");
    const char *end = strstr(b, "\"delta\":{},\"finish_reason\":\"stop\"");
    const char *usage =
        strstr(b, "\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5,"
                  "\"completion_tokens_details\":{\"reasoning_tokens\":0}}");
    const char *done = strstr(b, "data: [DONE]\n\n");
    CHECK(first && text && end && usage && done && first < text && text < end && end < usage && usage < done);
    CHECK(done[strlen("data: [DONE]\n\n")] == 0);
    CHECK_HAS(b, "\"usage\":null");
    buf t = {.max = 4096};
    int events;
    sse_text(b, 0, &t, &events);
    CHECK_STR(buf_str(&t), "Hello w\xc3\xb6rld");
    CHECK_INT(events, 6); /* role, two texts, end, usage, [DONE] */
    buf_free(&t);
    reply_free(&r);
    post(CHAT_PATH, CHAT("ok", ",\"stream\":true"), &r);
    CHECK(r.whole && !strstr(buf_str(&r.body), "usage"));
    reply_free(&r);
}

TEST(completions_of_several_prompts) {
    for (int streamed = 0; streamed < 2; streamed++) {
        reply r;
        char body[256];
        snprintf(body, sizeof body, "{\"model\":\"ok\",\"prompt\":[\"a\",\"b\",\"c\"],\"n\":2,\"stream\":%s}",
                 streamed ? "true" : "false");
        int runs = scripted_runs;
        post("/v1/completions", body, &r);
        CHECK_INT(r.status, 200);
        CHECK_INT(scripted_runs - runs, 3);
        if (streamed) {
            buf t = {.max = 4096};
            int events;
            sse_text(buf_str(&r.body), 5, &t, &events);
            CHECK_STR(buf_str(&t), "Hello w\xc3\xb6rld");
            CHECK_INT(events, 3 * 2 * 3 + 1);
            buf_free(&t);
        } else {
            cJSON *v = cJSON_Parse(buf_str(&r.body));
            CHECK_INT(cJSON_GetArraySize(json_at(v, "choices")), 6);
            CHECK_STR(str_at(v, "choices.5.text"), "Hello w\xc3\xb6rld");
            CHECK(num_at(v, "choices.5.index") == 5 && num_at(v, "usage.completion_tokens") == 12);
            CHECK_STR(str_at(v, "object"), "text_completion");
            CHECK(cJSON_IsNull(json_at(v, "choices.0.logprobs")));
            cJSON_Delete(v);
        }
        reply_free(&r);
    }
}

TEST(log_probabilities_of_completions) {
    reply r;
    post("/v1/completions", COMP("ok", ",\"logprobs\":3,\"echo\":true"), &r);
    cJSON *v = cJSON_Parse(buf_str(&r.body));
    CHECK_INT(r.status, 200);
    CHECK_STR(str_at(v, "choices.0.logprobs.tokens.0"), "Hello");
    CHECK(cJSON_IsNull(json_at(v, "choices.0.logprobs.token_logprobs.0")));
    CHECK(cJSON_IsNull(json_at(v, "choices.0.logprobs.top_logprobs.0")));
    CHECK(num_at(v, "choices.0.logprobs.token_logprobs.1") == -0.5);
    CHECK(num_at(v, "choices.0.logprobs.text_offset.0") == 0 && num_at(v, "choices.0.logprobs.text_offset.1") == 5);
    const cJSON *top = json_at(v, "choices.0.logprobs.top_logprobs.1");
    CHECK_INT(cJSON_GetArraySize(top), 2); /* two tokens of the same text: the likelier one */
    CHECK(cJSON_GetObjectItemCaseSensitive(top, "bytes:\\xe2\\x80") != NULL);
    cJSON_Delete(v);
    reply_free(&r);
    post("/v1/completions", COMP("ok", ",\"logprobs\":0,\"stream\":true"), &r);
    CHECK_HAS(buf_str(&r.body), "\"text_offset\":[5]");
    CHECK_HAS(buf_str(&r.body), "\"top_logprobs\":null");
    reply_free(&r);
}

TEST(a_failure_after_the_first_byte_is_an_event) {
    reply r;
    post(CHAT_PATH, CHAT("breaks", ",\"stream\":true"), &r);
    CHECK_INT(r.status, 200);
    CHECK_HAS(buf_str(&r.body), "half");
    CHECK_HAS(buf_str(&r.body), "data: {\"error\":{\"message\":\"something failed inside the server");
    CHECK(!strstr(buf_str(&r.body), "[DONE]"));
    CHECK(!strstr(buf_str(&r.body), "/srv/")); /* where this machine keeps its files is for the log */
    reply_free(&r);
    post(CHAT_PATH, CHAT("breaks", ""), &r);
    CHECK_INT(r.status, 503);
    CHECK(!strstr(buf_str(&r.body), "half") && !strstr(buf_str(&r.body), "/srv/"));
    CHECK_HAS(buf_str(&r.body), reply_field(&r, "x-request-id"));
    CHECK(reply_field(&r, "x-polder-record") != NULL); /* it was admitted: the failed record can be found */
    reply_free(&r);
}

/* ---- hanging up ---------------------------------------------------------------------------------------------- */

static void send_post(int fd, const char *body) {
    char q[1024];
    snprintf(q, sizeof q,
             "POST /v1/completions HTTP/1.1\r\n" H "Authorization: Bearer %s\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             w.key[ROLE_USER], strlen(body), body);
    (void)client_send(fd, q, strlen(q));
}

TEST(a_client_that_hangs_up_stops_its_answer) {
    static const struct {
        const char *model;
        bool streamed, reads;
    } t[] = {{"ticking", true, true},   {"silent", true, false},  {"waiting", true, false},
             {"ticking", false, false}, {"silent", false, false}, {"waiting", false, false}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        for (int half = 0; half < 2; half++) {
            char body[128];
            int before = scripted_cancelled;
            metric *m = metric_get(METRIC_COUNTER, "polder_http_hangups_total", NULL, "");
            double hangups = metric_value(m);
            snprintf(body, sizeof body, "{\"model\":\"%s\",\"prompt\":\"x\",\"stream\":%s}", t[i].model,
                     t[i].streamed ? "true" : "false");
            int fd = client_tcp(w.port);
            send_post(fd, body);
            CHECK_INT(eventually(&scripted_running, 1), 1);
            if (t[i].reads) {
                reply r;
                client_read(fd, &r, false, "tick");
                CHECK_INT(r.status, 200);
                reply_free(&r);
            }
            if (half)
                shutdown(fd, SHUT_WR);
            else
                close(fd);
            CHECK_INT(eventually(&scripted_running, 0), 0);
            CHECK_INT(scripted_cancelled - before, 1);
            if (half) close(fd);
            for (int ms = 0; ms < 2000 && metric_value(m) <= hangups; ms += 5) usleep(5000);
            CHECK(metric_value(m) > hangups);
        }
}

TEST(a_client_that_does_not_read_holds_back_its_answer) {
    long long before = scripted_bytes;
    int cancelled = scripted_cancelled, fd = client_tcp(w.port);
    send_post(fd, COMP("flood", ",\"stream\":true"));
    CHECK_INT(eventually(&scripted_running, 1), 1);
    long long held = -1;
    for (int i = 0; i < 40 && scripted_bytes - before != held; i++) { /* until it waits */
        held = scripted_bytes - before;
        usleep(250000);
    }
    CHECK(scripted_bytes - before == held);
    CHECK(held < 48 << 20); /* of 64 MiB; the socket's buffers take some */
    close(fd);
    CHECK_INT(eventually(&scripted_running, 0), 0);
    CHECK_INT(scripted_cancelled - cancelled, 1);
}

TEST(a_long_stream_arrives_whole) {
    int fd = client_tcp(w.port);
    send_post(fd, COMP("flood", ",\"stream\":true"));
    char piece[65536 + 32];
    size_t kept = 0; /* the end of what came before, so that a mark across two pieces is seen */
    long long n = 0;
    bool done = false;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (!done && poll(&p, 1, 20000) > 0) {
        ssize_t k = recv(fd, piece + kept, 65536, 0);
        if (k <= 0) break;
        n += k;
        size_t len = kept + (size_t)k;
        done = memmem(piece, len, "data: [DONE]\n\n", 14) != NULL;
        kept = len < 32 ? len : 32;
        memmove(piece, piece + len - kept, kept);
    }
    close(fd);
    CHECK(done);
    CHECK(n > 64LL << 20);
}

/* ---- bodies and connections ---------------------------------------------------------------------------------- */

TEST(bodies_past_the_limit_are_413) {
    size_t n = 5u << 20; /* max_body_bytes is 4 MiB */
    buf big = {.max = 6u << 20};
    for (size_t i = 0; i < n; i++) buf_putc(&big, ' ');
    reply r;
    post(CHAT_PATH, buf_str(&big), &r);
    CHECK_INT(r.status, 413);
    CHECK_HAS(buf_str(&r.body), "max_body_bytes");
    reply_free(&r);
    for (int chunked = 0; chunked < 2; chunked++) { /* an expectation is answered before the body is sent */
        char q[512];
        snprintf(q, sizeof q,
                 "POST " CHAT_PATH " HTTP/1.1\r\n" H
                 "Authorization: Bearer %s\r\nContent-Type: application/json\r\n%s\r\n",
                 w.key[ROLE_USER],
                 chunked ? "Transfer-Encoding: chunked\r\n" : "Content-Length: 5000000\r\nExpect: 100-continue\r\n");
        int fd = client_tcp(w.port);
        CHECK(client_send(fd, q, strlen(q)));
        if (chunked) {
            char head[32];
            snprintf(head, sizeof head, "%zx\r\n", n);
            CHECK(client_send(fd, head, strlen(head)) && client_send(fd, big.ptr, n));
            CHECK(client_send(fd, "\r\n0\r\n\r\n", 7));
        }
        client_read(fd, &r, false, NULL);
        CHECK_INT(r.status, 413);
        reply_free(&r);
        close(fd);
    }
    buf_free(&big);
}

TEST(refusals_reach_clients_that_send_a_body) {
    buf big = {.max = 4u << 20};
    for (int i = 0; i < 3 << 20; i++) buf_putc(&big, ' ');
    reply r;
    client_request(w.port, "pld_wrong", "POST", CHAT_PATH, buf_str(&big), &r);
    CHECK_INT(r.status, 401);
    reply_free(&r);
    client_request(w.port, w.key[ROLE_USER], "POST", "/v1/nothing", buf_str(&big), &r);
    CHECK_INT(r.status, 404);
    reply_free(&r);
    buf_free(&big);
}

TEST(bodies_must_be_json) {
    static const char *const types[] = {"", "Content-Type: text/plain\r\n", "Content-Type: application/jsonx\r\n"};
    for (int i = 0; i < 3; i++) {
        char q[512];
        reply r;
        snprintf(q, sizeof q,
                 "POST " CHAT_PATH " HTTP/1.1\r\n" H "Authorization: Bearer %s\r\n%sContent-Length: 2\r\n\r\n{}",
                 w.key[ROLE_USER], types[i]);
        int fd = client_tcp(w.port);
        CHECK(client_send(fd, q, strlen(q)));
        client_read(fd, &r, false, NULL);
        CHECK_INT(r.status, 415);
        reply_free(&r);
        close(fd);
    }
}

TEST(pipelined_requests_are_answered_in_order) {
    char q[2048];
    const char *body = CHAT("ok", "");
    snprintf(q, sizeof q,
             "GET /healthz HTTP/1.1\r\n" H R "POST " CHAT_PATH " HTTP/1.1\r\n" H "Authorization: Bearer %s\r\n"
             "Content-Type: application/json; charset=utf-8\r\nContent-Length: %zu\r\n\r\n%s"
             "GET /nothing HTTP/1.1\r\n" H R "HEAD /healthz HTTP/1.1\r\n" H R "GET /healthz HTTP/1.1\r\n" H R,
             w.key[ROLE_USER], strlen(body), body);
    int fd = client_tcp(w.port), want[] = {200, 200, 404, 200, 200};
    CHECK(client_send(fd, q, strlen(q)));
    for (int i = 0; i < 5; i++) {
        reply r;
        client_read(fd, &r, i == 3, NULL);
        CHECK_INT(r.status, want[i]);
        if (i == 1) CHECK_HAS(buf_str(&r.body), "Hello");
        if (i == 4) CHECK_HAS(buf_str(&r.body), "ok");
        reply_free(&r);
    }
    close(fd);
}

TEST(half_closed_requests_get_their_reply) {
    reply r;
    int fd = client_tcp(w.port);
    const char *q = "GET /healthz HTTP/1.1\r\n" H R;
    CHECK(client_send(fd, q, strlen(q)));
    shutdown(fd, SHUT_WR);
    client_read(fd, &r, false, NULL);
    CHECK_INT(r.status, 200);
    CHECK(client_closed(fd, 3000));
    reply_free(&r);
    close(fd);
}

TEST(methods_beside_get_and_post) {
    reply r;
    client_request(w.port, NULL, "OPTIONS", CHAT_PATH, NULL, &r);
    CHECK_INT(r.status, 204);
    CHECK_STR(reply_field(&r, "allow"), "POST, OPTIONS");
    CHECK(!reply_field(&r, "access-control-allow-origin"));
    reply_free(&r);
    client_request(w.port, NULL, "HEAD", "/healthz", NULL, &r);
    CHECK_INT(r.status, 200);
    CHECK(r.body.len == 0);
    reply_free(&r);
    client_request(w.port, w.key[ROLE_USER], "PUT", "/v1/models", NULL, &r);
    CHECK_INT(r.status, 405);
    CHECK_STR(reply_field(&r, "allow"), "GET, HEAD, OPTIONS");
    CHECK_HAS(buf_str(&r.body), "method_not_allowed");
    reply_free(&r);
}

/* ---- pages --------------------------------------------------------------------------------------------------- */

TEST(models_are_listed) {
    reply r;
    client_request(w.port, w.key[ROLE_USER], "GET", "/v1/models", NULL, &r);
    CHECK_INT(r.status, 200);
    CHECK_STR(buf_str(&r.body),
              "{\"object\":\"list\",\"data\":[{\"id\":\"ok\",\"object\":\"model\",\"created\":1790000000,"
              "\"owned_by\":\"polder\",\"digest\":\"00ff\",\"capabilities\":[\"completion\"]},{\"id\":\"a/b\","
              "\"object\":\"model\",\"created\":0,\"owned_by\":\"polder\",\"capabilities\":[\"completion\"]}]}");
    reply_free(&r);
    client_request(w.port, w.key[ROLE_USER], "GET", "/v1/models/a%2Fb", NULL, &r);
    CHECK_INT(r.status, 200);
    CHECK_HAS(buf_str(&r.body), "\"id\":\"a/b\"");
    reply_free(&r);
    client_request(w.port, w.key[ROLE_USER], "GET", "/v1/models/none", NULL, &r);
    CHECK_INT(r.status, 404);
    CHECK_HAS(buf_str(&r.body), "\"code\":\"model_not_found\"");
    reply_free(&r);
}

TEST(metrics_are_printed) {
    reply r;
    client_request(w.port, w.key[ROLE_OPERATOR], "GET", "/metrics", NULL, &r);
    CHECK_INT(r.status, 200);
    CHECK_HAS(reply_field(&r, "content-type"), "version=0.0.4");
    static const char *const names[] = {"polder_http_requests_total{route=\"/healthz\",code=\"200\"}",
                                        "polder_http_request_seconds_bucket",
                                        "polder_http_in_flight 1",
                                        "polder_ledger_size",
                                        "polder_ledger_queue",
                                        "polder_ledger_up 1",
                                        "polder_http_malformed_total"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) CHECK_HAS(buf_str(&r.body), names[i]);
    CHECK(!strstr(buf_str(&r.body), "pld_"));
    reply_free(&r);
}

TEST(the_ledger_is_served) {
    reply r;
    const char *key = w.key[ROLE_AUDITOR];
    client_request(w.port, key, "GET", "/ledger/checkpoint", NULL, &r);
    CHECK_INT(r.status, 200);
    CHECK_HAS(reply_field(&r, "content-type"), "text/plain");
    CHECK_HAS(reply_field(&r, "cache-control"), "no-cache");
    CHECK_HAS(buf_str(&r.body), "polder.local/island\n");
    reply_free(&r);
    char path[64];
    snprintf(path, sizeof path, "/ledger/tile/entries/000.p/%d", (int)ledger_size(island_ledger(w.isl)));
    client_request(w.port, key, "GET", path, NULL, &r);
    CHECK_INT(r.status, 200);
    CHECK_HAS(reply_field(&r, "content-type"), "application/octet-stream");
    CHECK(r.body.len > 100);
    reply_free(&r);
    static const char *const absent[] = {"/ledger/x", "/ledger/../island.yaml", "/ledger/tile/0/999",
                                         "/ledger/%2e%2e/lock"};
    for (int i = 0; i < 4; i++) {
        client_request(w.port, key, "GET", absent[i], NULL, &r);
        CHECK_INT(r.status, 404);
        reply_free(&r);
    }
}

static void control_request(const char *path, const char *body, reply *r) {
    char q[2048];
    snprintf(q, sizeof q,
             "POST %s HTTP/1.1\r\nHost: control\r\nConnection: close\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             path, strlen(body), body);
    char sock[400];
    snprintf(sock, sizeof sock, "%s/control.sock", w.dir);
    int fd = client_unix(sock);
    memset(r, 0, sizeof *r);
    if (fd >= 0 && client_send(fd, q, strlen(q))) client_read(fd, r, false, NULL);
    if (fd >= 0) close(fd);
}

TEST(the_control_socket_needs_no_key) {
    char sock[400];
    struct stat st;
    reply r;
    snprintf(sock, sizeof sock, "%s/control.sock", w.dir);
    CHECK(stat(sock, &st) == 0 && (st.st_mode & 0777) == 0600);
    control_request("/api/polder/v1/key.add", "{\"name\":\"second\",\"role\":\"auditor\"}", &r);
    CHECK_INT(r.status, 200);
    cJSON *v = cJSON_Parse(buf_str(&r.body));
    char key[KEY_TEXT_MAX];
    snprintf(key, sizeof key, "%s", str_at(v, "key") ? str_at(v, "key") : "");
    CHECK_STR(str_at(v, "role"), "auditor");
    cJSON_Delete(v);
    reply_free(&r);
    client_request(w.port, key, "GET", "/ledger/checkpoint", NULL, &r);
    CHECK_INT(r.status, 200);
    reply_free(&r);
    control_request("/api/polder/v1/key.revoke", "{\"key\":\"second\"}", &r);
    CHECK_INT(r.status, 200);
    reply_free(&r);
    client_request(w.port, key, "GET", "/ledger/checkpoint", NULL, &r);
    CHECK_INT(r.status, 401);
    reply_free(&r);
    control_request(CHAT_PATH, CHAT("ok", ""), &r);
    CHECK_INT(r.status, 200);
    reply_free(&r);
}

TEST(operations_check_their_arguments) {
    static const struct {
        const char *op, *body;
        int status;
        const char *says;
    } t[] = {
        {"key.add", "{\"role\":\"user\"}", 400, "name"},
        {"key.add", "{\"name\":5}", 400, "name"},
        {"key.add", "{\"name\":\"x\",\"role\":\"king\"}", 400, "king"},
        {"key.add", "{\"name\":\"x\",\"colour\":\"red\"}", 400, "colour"},
        {"key.add", "[]", 400, "object"},
        {"key.revoke", "{\"key\":\"nobody\"}", 404, "nobody"},
        {"model.add", "{\"path\":\"relative.gguf\",\"name\":\"m\"}", 400, "absolute"},
        {"model.add", "{\"path\":\"/a.gguf\"}", 400, "name"},
        {"model.add", "{\"path\":\"/a.gguf\",\"name\":\"m\"}", 200, "\"m\""},
        {"model.rm", "{\"name\":\"m\"}", 200, "done"},
        {"model.ls", "", 200, "models"},
        {"nothing", "{}", 404, "nothing"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char path[128];
        reply r;
        snprintf(path, sizeof path, "/api/polder/v1/%s", t[i].op);
        control_request(path, t[i].body, &r);
        if (r.status != t[i].status || !strstr(buf_str(&r.body), t[i].says))
            FAIL("%s %s: %d %s", t[i].op, t[i].body, r.status, buf_str(&r.body));
        reply_free(&r);
    }
    reply r; /* a path of this machine is for its owner only */
    client_request(w.port, w.key[ROLE_ADMIN], "POST", "/api/polder/v1/model.add",
                   "{\"path\":\"/a.gguf\",\"name\":\"m\"}", &r);
    CHECK_INT(r.status, 403);
    reply_free(&r);
}

/* ---- servers of their own ------------------------------------------------------------------------------------ */

static void quick_timeout(island_config *c) {
    c->server_idle_timeout_s = 1;
}
static void few_connections(island_config *c) {
    c->server_max_connections = 2;
}
static void no_auth(island_config *c) {
    c->server_auth = false;
}

TEST(slow_heads_and_bodies_are_cut_off) {
    world old = w;
    CHECK_OK(world_open(&w, quick_timeout, &e), e);
    CHECK_OK(world_start(&w, &e), e);
    char q[512];
    snprintf(q, sizeof q,
             "POST " CHAT_PATH " HTTP/1.1\r\n" H "Authorization: Bearer %s\r\nContent-Type: application/json\r\n"
             "Content-Length: 1000\r\n\r\n",
             w.key[ROLE_USER]);
    int fd = client_tcp(w.port), idle = client_tcp(w.port);
    CHECK(client_send(fd, q, strlen(q)) && client_send(idle, "GET", 3));
    int head = client_tcp(w.port);
    CHECK(client_send(head, "GET /healthz HTTP/1.1\r\nX-A: ", 29));
    bool cut = false, head_cut = false;
    for (int i = 0; i < 30 && !(cut && head_cut); i++) { /* a byte every 200 ms: never idle for a second, but no use */
        cut = cut || client_closed(fd, 0) || !client_send(fd, " ", 1);
        head_cut = head_cut || client_closed(head, 0) || !client_send(head, "a", 1);
        usleep(200000);
    }
    CHECK(cut);
    CHECK(head_cut);
    CHECK(client_closed(idle, 3000));
    int silent = client_tcp(w.port); /* much of a body, and then nothing */
    buf much = {.max = 1 << 20};
    buf_printf(&much, "OPTIONS " CHAT_PATH " HTTP/1.1\r\n" H "Content-Length: 500000\r\n\r\n");
    for (int i = 0; i < 400000; i++) buf_putc(&much, ' ');
    CHECK(client_send(silent, much.ptr, much.len));
    CHECK(client_closed(silent, 4000));
    buf_free(&much);
    close(silent);
    reply r; /* one that works is not cut off */
    client_request(w.port, NULL, "GET", "/healthz", NULL, &r);
    CHECK_INT(r.status, 200);
    reply_free(&r);
    close(fd);
    close(head);
    close(idle);
    world_end(&w);
    w = old;
}

/* Breaks where the time that goes into an answer counts as the client's silence. */
TEST(answers_may_take_longer_than_clients_may_be_silent) {
    world old = w;
    CHECK_OK(world_open(&w, quick_timeout, &e), e);
    CHECK_OK(world_start(&w, &e), e);
    static const char *const more[] = {"", ",\"stream\":true"};
    for (int i = 0; i < 2; i++) {
        char body[200];
        reply r;
        snprintf(body, sizeof body, "{\"model\":\"late\",\"prompt\":\"x\"%s}", more[i]);
        client_request(w.port, w.key[ROLE_USER], "POST", "/v1/completions", body, &r);
        CHECK_INT(r.status, 200);
        CHECK_HAS(buf_str(&r.body), "Hello");
        CHECK_HAS(buf_str(&r.body), i ? "data: [DONE]" : "stop");
        reply_free(&r);
    }
    world_end(&w);
    w = old;
}

TEST(connections_past_the_limit_are_closed) {
    world old = w;
    CHECK_OK(world_open(&w, few_connections, &e), e);
    CHECK_OK(world_start(&w, &e), e);
    const char *q = "GET /healthz HTTP/1.1\r\n" H R;
    int fd[3];
    reply r;
    for (int i = 0; i < 2; i++) {
        fd[i] = client_tcp(w.port);
        CHECK(client_send(fd[i], q, strlen(q)));
        client_read(fd[i], &r, false, NULL);
        CHECK_INT(r.status, 200);
        reply_free(&r);
    }
    fd[2] = client_tcp(w.port);
    CHECK(fd[2] < 0 || client_closed(fd[2], 2000));
    close(fd[2]);
    close(fd[0]);
    bool again = false;
    for (int i = 0; i < 100 && !again; i++) { /* a place is free again */
        usleep(20000);
        client_request(w.port, NULL, "GET", "/healthz", NULL, &r);
        again = r.status == 200;
        reply_free(&r);
    }
    CHECK(again);
    close(fd[1]);
    world_end(&w);
    w = old;
}

TEST(without_keys_only_the_loopback_is_answered) {
    world old = w;
    CHECK_OK(world_open(&w, no_auth, &e), e);
    CHECK_OK(engine_init(&e), e);
    CHECK_INT(server_start(&w.srv, w.isl, NULL, "0.0.0.0:0", &e), ERR_USAGE);
    CHECK_HAS(e.msg, "server.auth");
    CHECK(!w.srv);
    CHECK_OK(world_start(&w, &e), e);
    reply r;
    client_request(w.port, NULL, "POST", CHAT_PATH, CHAT("ok", ""), &r);
    CHECK_INT(r.status, 200);
    reply_free(&r);
    client_request(w.port, "whatever", "GET", "/v1/models", NULL, &r);
    CHECK_INT(r.status, 200);
    reply_free(&r);
    client_request(w.port, NULL, "POST", "/api/polder/v1/key.ls", "{}", &r);
    CHECK_INT(r.status, 401);
    reply_free(&r);
    const char *q = "GET /v1/models HTTP/1.1\r\nHost: rebound.example\r\n" R;
    int fd = client_tcp(w.port);
    CHECK(client_send(fd, q, strlen(q)));
    client_read(fd, &r, false, NULL);
    CHECK_INT(r.status, 403);
    reply_free(&r);
    close(fd);
    world_end(&w);
    w = old;
}

TEST(a_port_in_use_is_named) {
    char at[32];
    server *s = (server *)&w;
    snprintf(at, sizeof at, "127.0.0.1:%d", w.port);
    world other;
    CHECK_OK(world_open(&other, NULL, &e), e);
    uint64_t size = ledger_size(island_ledger(other.isl));
    CHECK_INT(server_start(&s, other.isl, NULL, at, &e), ERR_BUSY);
    CHECK(!s);
    CHECK_HAS(e.msg, at);
    CHECK_HAS(e.msg, "in use");
    CHECK(ledger_size(island_ledger(other.isl)) == size); /* nothing was started, nothing is recorded */
    CHECK_INT(server_start(&s, other.isl, NULL, "nonsense", &e), ERR_USAGE);
    world_end(&other);
}

TEST(stopping_drains_and_is_recorded) {
    world old = w;
    int tasks = count_tasks();
    CHECK_OK(world_open(&w, NULL, &e), e);
    CHECK_OK(world_start(&w, &e), e);
    char dir[300], sock[400];
    snprintf(sock, sizeof sock, "%s/control.sock", w.dir);
    snprintf(dir, sizeof dir, "%s", w.dir);
    CHECK_HAS(server_url(w.srv), "http://127.0.0.1:");
    int before = scripted_cancelled, fd[3];
    static const char *const models[] = {"ticking", "silent", "waiting"};
    for (int i = 0; i < 3; i++) {
        char body[128];
        snprintf(body, sizeof body, "{\"model\":\"%s\",\"prompt\":\"x\",\"stream\":%s}", models[i],
                 i < 2 ? "true" : "false");
        fd[i] = client_tcp(w.port);
        send_post(fd[i], body);
    }
    int idle = client_tcp(w.port);
    CHECK_INT(eventually(&scripted_running, 3), 3);
    uint64_t t0 = time_mono_ns();
    server_stop(w.srv);
    double s = (double)(time_mono_ns() - t0) / 1e9;
    w.srv = NULL;
    CHECK(s > 0.9 && s < 8); /* drain_timeout_s is 1 */
    CHECK_INT(scripted_cancelled - before, 3);
    CHECK(access(sock, F_OK) != 0);
    reply r;
    client_read(fd[0], &r, false, NULL);
    CHECK_INT(r.status, 200);
    CHECK(!strstr(buf_str(&r.body), "[DONE]"));
    reply_free(&r);
    client_read(fd[2], &r, false, NULL);
    CHECK_INT(r.status, 503);
    reply_free(&r);
    for (int i = 0; i < 3; i++) close(fd[i]);
    close(idle);
    buf b = {.max = 1 << 20};
    uint64_t n = ledger_size(island_ledger(w.isl));
    CHECK_OK(ledger_read(island_ledger(w.isl), n - 1, &b, &e), e);
    CHECK_HAS(buf_str(&b), "\"event\":\"server.stopped\"");
    buf_reset(&b);
    CHECK_OK(ledger_read(island_ledger(w.isl), n - 2, &b, &e), e);
    CHECK_HAS(buf_str(&b), "\"event\":\"server.started\"");
    CHECK_HAS(buf_str(&b), "\"listen\":\"127.0.0.1:");
    CHECK_HAS(buf_str(&b), "\"numerics\":3");
    CHECK_HAS(buf_str(&b), "\"isa\":\"");
    CHECK_HAS(buf_str(&b), "\"version\":\"");
    buf_free(&b);
    world_end(&w);
    CHECK_INT(count_tasks(), tasks);
    w = old;
}

TEST(no_thread_is_left) {
    for (int ms = 0; ms < 3000 && metric_value(metric_get(METRIC_GAUGE, "polder_http_in_flight", NULL, "")) > 0;
         ms += 5)
        usleep(5000);
    CHECK_INT((int)metric_value(metric_get(METRIC_GAUGE, "polder_http_in_flight", NULL, "")), 0);
    CHECK_INT(scripted_running, 0);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    log_set_level(LOG_ERROR);
    int tasks = count_tasks();
    if (world_open(&w, NULL, &e) != ERR_OK || world_start(&w, &e) != ERR_OK) {
        fprintf(stderr, "no server: %s\n", e.msg);
        return 1;
    }
    RUN(ambiguous_requests_are_refused);
    RUN(smuggled_requests_are_not_answered);
    RUN(huge_heads_are_refused);
    RUN(a_body_behind_a_large_head_arrives);
    RUN(roles_open_their_doors_only);
    RUN(bad_keys_are_refused_alike);
    RUN(failures_before_the_answer_are_statuses);
    RUN(bad_bodies_are_400);
    RUN(a_chat_answer);
    RUN(a_streamed_chat_answer);
    RUN(a_chat_answer_with_calls);
    RUN(a_streamed_chat_answer_with_calls);
    RUN(completions_of_several_prompts);
    RUN(log_probabilities_of_completions);
    RUN(a_failure_after_the_first_byte_is_an_event);
    RUN(a_client_that_hangs_up_stops_its_answer);
    RUN(a_client_that_does_not_read_holds_back_its_answer);
    RUN(a_long_stream_arrives_whole);
    RUN(bodies_past_the_limit_are_413);
    RUN(refusals_reach_clients_that_send_a_body);
    RUN(bodies_must_be_json);
    RUN(pipelined_requests_are_answered_in_order);
    RUN(half_closed_requests_get_their_reply);
    RUN(methods_beside_get_and_post);
    RUN(models_are_listed);
    RUN(metrics_are_printed);
    RUN(the_ledger_is_served);
    RUN(the_control_socket_needs_no_key);
    RUN(operations_check_their_arguments);
    RUN(answers_may_take_longer_than_clients_may_be_silent);
    RUN(slow_heads_and_bodies_are_cut_off);
    RUN(connections_past_the_limit_are_closed);
    RUN(without_keys_only_the_loopback_is_answered);
    RUN(a_port_in_use_is_named);
    RUN(no_thread_is_left);
    RUN(stopping_drains_and_is_recorded); /* last: the scripted pipeline stays drained */
    world_end(&w);
    if (count_tasks() != tasks) {
        fprintf(stderr, "threads are left: %d, not %d\n", count_tasks(), tasks);
        return 1;
    }
    return test_end();
}
