/* An exchange with a server that says what the test wants it to say, when it wants to. */
#include "inference/drivers/upstream.h"

#include "base/bytes.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness.h"
#include "tls.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* For each connection in turn: waits until `reads` bytes have come (-1: a whole head), sends `says` and then `more`
 * bytes of 'x', and closes, after `stays_ms`, or when the client does. */
typedef struct scene {
    int reads;
    const char *says;
    size_t more;
    int stays_ms; /* -1: until the client closes; -2: until more has come */
} scene;

typedef struct stage {
    const scene *scenes;
    int n, fd, port;
    pthread_t thread;
} stage;

static void send_all(int c, const char *p, size_t n) {
    while (n) {
        ssize_t k = send(c, p, n, MSG_NOSIGNAL);
        if (k <= 0) return;
        p += k;
        n -= (size_t)k;
    }
}

static void play(const scene *s, int c) {
    static char trash[65536], xs[65536];
    char head[8192] = "";
    size_t n = 0;
    while (s->reads < 0 ? !strstr(head, "\r\n\r\n") : n < (size_t)s->reads) {
        ssize_t k = s->reads < 0 ? recv(c, head + n, sizeof head - 1 - n, 0) : recv(c, trash, sizeof trash, 0);
        if (k <= 0) return;
        n += (size_t)k;
    }
    memset(xs, 'x', sizeof xs);
    send_all(c, s->says, strlen(s->says));
    for (size_t left = s->more, k; left; left -= k) send_all(c, xs, k = left < sizeof xs ? left : sizeof xs);
    if (s->stays_ms == -2)
        (void)recv(c, trash, sizeof trash, 0);
    else if (s->stays_ms < 0)
        while (recv(c, trash, sizeof trash, 0) > 0) continue;
    else
        usleep((useconds_t)s->stays_ms * 1000);
}

static void *play_all(void *arg) {
    stage *g = arg;
    for (int i = 0; i < g->n; i++) {
        int c = accept(g->fd, NULL, NULL);
        if (c < 0) break;
        play(&g->scenes[i], c);
        close(c);
    }
    return NULL;
}

static bool open_stage(stage *g, const scene *scenes, int n) {
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof a;
    *g = (stage){.scenes = scenes, .n = n, .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(g->fd, (struct sockaddr *)&a, len) || listen(g->fd, 8) || getsockname(g->fd, (struct sockaddr *)&a, &len))
        return false;
    g->port = ntohs(a.sin_port);
    return pthread_create(&g->thread, NULL, play_all, g) == 0;
}

static void close_stage(stage *g) {
    shutdown(g->fd, SHUT_RDWR);
    pthread_join(g->thread, NULL);
    close(g->fd);
}

typedef struct got {
    err_code rc;
    err e;
    int status;
    uint64_t body, sent;
    uint32_t sendings;
} got;

static upstream_lines *lines;

static got ask(const char *url, size_t body_len, int pause_ms, int silence_ms) {
    got g = {0};
    char *body = mem_alloc(body_len + 1);
    memset(body, 'b', body_len);
    upstream_target t = {.lines = lines,
                         .provider = "staged",
                         .url = url,
                         .credential = "a-key",
                         .connect_timeout_ms = 2000,
                         .first_byte_timeout_ms = silence_ms,
                         .idle_timeout_ms = silence_ms};
    upstream_request q = {.path = "/x", .auth_header = "Authorization: Bearer ", .body = body, .len = body_len};
    upstream *u = NULL;
    upstream_state state = UPSTREAM_WAITING;
    g.rc = upstream_open(&u, &t, &q, &g.e);
    while (!g.rc && state != UPSTREAM_DONE) {
        const char *p;
        size_t n;
        g.rc = upstream_poll(u, 50, &state, &p, &n, &g.e);
        g.body += g.rc ? 0 : n;
        if (state == UPSTREAM_BODY && pause_ms) usleep((useconds_t)pause_ms * 1000), pause_ms = 0;
    }
    if (u) g.status = upstream_status(u), g.sent = upstream_sent(u), g.sendings = upstream_sendings(u);
    upstream_close(u);
    mem_free(body);
    return g;
}

static got ask_stage(const stage *s, size_t body_len, int pause_ms, int silence_ms) {
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", s->port);
    return ask(url, body_len, pause_ms, silence_ms);
}

#define SHORT "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define LONG  "HTTP/1.1 200 OK\r\nContent-Length: "

TEST(answers_end_where_they_say) {
    static const scene s[] = {
        {-1, SHORT, 0, 0},
        {-1, LONG "9\r\n\r\nok", 0, 0},                  /* cut short */
        {-1, "HTTP/1.1 200 OK\r\n\r\nto the end", 0, 0}, /* until the connection ends */
        {-1, LONG "67108964\r\n\r\n", 67108964, -1},     /* too long by 100 bytes, the last piece is the end */
        {-1, "HTTP/1.1 200 OK\r\nContent-Len", 0, 0},    /* no head */
        {-1, "no HTTP at all\r\n", 0, 0},
    };
    stage g;
    CHECK(open_stage(&g, s, 6));
    got x = ask_stage(&g, 10, 0, 5000);
    CHECK_OK(x.rc, x.e);
    CHECK(x.status == 200 && x.body == 2 && x.sent == 10 && x.sendings == 1);
    x = ask_stage(&g, 10, 0, 5000);
    CHECK_INT(x.rc, ERR_UPSTREAM);
    CHECK_HAS(x.e.msg, "in the middle of its answer");
    x = ask_stage(&g, 10, 0, 5000);
    CHECK_OK(x.rc, x.e);
    CHECK_INT(x.body, 10);
    x = ask_stage(&g, 10, 0, 5000);
    CHECK_INT(x.rc, ERR_UPSTREAM);
    CHECK_HAS(x.e.msg, "67108864 bytes");
    x = ask_stage(&g, 10, 0, 5000);
    CHECK_INT(x.rc, ERR_UPSTREAM);
    CHECK_HAS(x.e.msg, "in the middle of its answer");
    x = ask_stage(&g, 10, 0, 5000);
    CHECK_INT(x.rc, ERR_UPSTREAM);
    CHECK_HAS(x.e.msg, "its answer is not HTTP/1.1");
    close_stage(&g);
}

/* A server that refuses a body before it has read it is heard, and what it did not take is not counted. */
TEST(an_early_answer_is_heard) {
    static const scene s[] = {{-1, "HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nbig", 0, 300}};
    stage g;
    CHECK(open_stage(&g, s, 1));
    got x = ask_stage(&g, 64 << 20, 0, 5000);
    CHECK_OK(x.rc, x.e);
    CHECK(x.status == 413 && x.body == 3);
    CHECK(x.sent > 0 && x.sent < 64 << 20 && x.sendings == 1);
    close_stage(&g);
}

/* The end of a used connection without an answer: once more on a new one, and both count. Silence is no reason, and a
 * new connection that ends so is an error at once. */
TEST(a_request_is_repeated_once) {
    static const scene s[] = {{-1, SHORT, 0, -2}, {-1, SHORT, 0, -2}, {-1, "", 0, 0}, {-1, "", 0, 0}};
    stage g;
    CHECK(open_stage(&g, s, 4));
    got x = ask_stage(&g, 10, 0, 5000);
    CHECK_OK(x.rc, x.e);
    x = ask_stage(&g, 10, 0, 5000);
    CHECK_OK(x.rc, x.e);
    CHECK(x.body == 2 && x.sent == 20 && x.sendings == 2);
    x = ask_stage(&g, 10, 0, 5000); /* that line again, which ends, and then a new one, which ends too */
    CHECK_INT(x.rc, ERR_UPSTREAM);
    CHECK_HAS(x.e.msg, "without an answer");
    CHECK(x.sent == 20 && x.sendings == 2);
    x = ask_stage(&g, 10, 0, 5000);
    CHECK_INT(x.rc, ERR_UPSTREAM);
    CHECK(x.sent == 10 && x.sendings == 1);
    close_stage(&g);
}

TEST(silence_is_not_repeated) {
    static const scene s[] = {{-1, SHORT, 0, -1}};
    stage g;
    CHECK(open_stage(&g, s, 1));
    got x = ask_stage(&g, 10, 0, 5000);
    CHECK_OK(x.rc, x.e);
    x = ask_stage(&g, 10, 0, 300);
    CHECK_INT(x.rc, ERR_TIMEOUT);
    CHECK_HAS(x.e.msg, "did not begin to answer within 300 ms");
    CHECK(x.sent == 10 && x.sendings == 1);
    close_stage(&g);
}

/* Who reads late finds what came in time; real silence ends the exchange. */
TEST(late_readers_lose_nothing) {
    static const scene s[] = {{-1, LONG "300000\r\n\r\n", 300000, -1}, {-1, LONG "9\r\n\r\nok", 0, -1}};
    stage g;
    CHECK(open_stage(&g, s, 2));
    got x = ask_stage(&g, 10, 700, 200);
    CHECK_OK(x.rc, x.e);
    CHECK_INT(x.body, 300000);
    upstream_lines_free(lines); /* so that the server goes on */
    CHECK_OK(upstream_lines_new(&lines, &x.e), x.e);
    uint64_t from = time_mono_ns();
    x = ask_stage(&g, 10, 0, 200);
    CHECK_INT(x.rc, ERR_TIMEOUT);
    CHECK_HAS(x.e.msg, "fell silent in the middle of its answer within 200 ms");
    CHECK(time_mono_ns() - from < 2000000000u);
    close_stage(&g);
}

/* Over TLS too it is known what has gone out before all of it has: a server reads until nobody takes from it what it
 * has read. */
TEST(tls_counts_what_has_gone) {
    char dir[256], url[64], ca[300];
    if (!tls_at_hand()) SKIP("no openssl");
    CHECK(test_tmpdir(dir));
    snprintf(ca, sizeof ca, "%s/c.pem", dir);
    CHECK(tls_certificate(dir));
    int port = free_port();
    snprintf(url, sizeof url, "HTTPS://localhost:%d", port);
    pid_t pid = tls_server(dir, port, "sleep 30", "sleep 30");
    const size_t len = 64 << 20;
    char *body = mem_zalloc(len);
    upstream_target t = {.lines = lines,
                         .provider = "tls",
                         .url = url,
                         .ca_file = ca,
                         .connect_timeout_ms = 2000,
                         .first_byte_timeout_ms = 500,
                         .idle_timeout_ms = 500};
    upstream_request q = {.path = "/x", .auth_header = "", .body = body, .len = len};
    upstream *u = NULL;
    err e;
    err_code rc = ERR_UPSTREAM;
    for (int i = 0; i < 100 && rc == ERR_UPSTREAM; i++) { /* until the server listens */
        upstream_close(u);
        u = NULL;
        rc = upstream_open(&u, &t, &q, &e);
        while (!rc) {
            upstream_state state;
            const char *p;
            size_t n;
            rc = upstream_poll(u, 10, &state, &p, &n, &e);
        }
        if (rc == ERR_UPSTREAM) usleep(50000);
    }
    uint64_t sent = upstream_sent(u);
    upstream_close(u);
    mem_free(body);
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
    CHECK_INT(rc, ERR_TIMEOUT);
    CHECK_HAS(e.msg, "did not begin to answer");
    CHECK(sent > 16384 && sent < len); /* more than the first sending */
}

int main(int argc, char **argv) {
    err e;
    test_begin(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    if (upstream_lines_new(&lines, &e) != ERR_OK) return 1;
    RUN(answers_end_where_they_say);
    RUN(an_early_answer_is_heard);
    RUN(a_request_is_repeated_once);
    RUN(silence_is_not_repeated);
    RUN(late_readers_lose_nothing);
    RUN(tls_counts_what_has_gone);
    upstream_lines_free(lines);
    return test_end();
}
