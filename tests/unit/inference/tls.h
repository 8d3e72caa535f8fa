/* OpenSSL's own server, for tests of what is said over TLS. */
#ifndef POLDER_TESTS_TLS_H
#define POLDER_TESTS_TLS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static bool tls_at_hand(void) {
    return system("openssl version >/dev/null 2>&1") == 0;
}

/* DIR/c.pem, DIR/k.pem: for localhost and 127.0.0.1. */
static bool tls_certificate(const char *dir) {
    char cmd[700];
    snprintf(
        cmd, sizeof cmd,
        "cd '%s' && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout k.pem -out c.pem "
        "-days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 >/dev/null 2>&1",
        dir);
    return system(cmd) == 0;
}

static int free_port(void) {
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), port = 0;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&a, n) == 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0)
        port = ntohs(a.sin_port);
    close(fd);
    return port;
}

/* Says to its client what the shell command `says` prints, and gives what it reads to `reads` ("cat >/dev/null"). A
 * process group of its own: kill(-pid, SIGKILL), then waitpid. */
static pid_t tls_server(const char *dir, int port, const char *says, const char *reads) {
    pid_t pid = fork();
    if (pid) return pid;
    char cmd[1000];
    setpgid(0, 0);
    snprintf(cmd, sizeof cmd,
             "cd '%s' && { %s; } | openssl s_server -quiet -accept %d -cert c.pem -key k.pem 2>/dev/null | %s", dir,
             says, port, reads);
    execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
    _exit(127);
}

#endif
