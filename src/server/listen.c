/* The listening sockets: TCP as configured, and the island's own control socket. */
#include "server/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 512

err_code listen_parse(const char *address, char *host, size_t host_cap, char *port, size_t port_cap, err *e) {
    const char *colon = strrchr(address, ':'), *h = address;
    size_t n = colon ? (size_t)(colon - address) : 0;
    if (n >= 2 && h[0] == '[' && h[n - 1] == ']') {
        h++;
        n -= 2;
    } else if (n && memchr(h, ':', n)) {
        return err_set(e, ERR_USAGE, "listen address \"%s\": write an IPv6 address in brackets, as in [::1]:8080",
                       address);
    }
    size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;
    if (n == 0 || n >= host_cap || digits == 0 || digits > 5 || colon[1 + digits] || digits >= port_cap ||
        strtol(colon + 1, NULL, 10) > 65535)
        return err_set(e, ERR_USAGE, "listen address \"%s\": it must be ADDRESS:PORT, as in 127.0.0.1:8080", address);
    memcpy(host, h, n);
    host[n] = 0;
    memcpy(port, colon + 1, digits + 1);
    return ERR_OK;
}

static bool is_loopback(const struct sockaddr *sa) {
    if (sa->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr) >> 24) == 127;
    return sa->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}

/* A listening socket on one address, or -errno. */
static int open_socket(const struct addrinfo *ai) {
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    if (fd < 0) return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one); /* connections inherit it: a dead peer is noticed */
    if (ai->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int why = errno;
        close(fd);
        return -why;
    }
    return fd;
}

/* Where it listens now, numeric. */
static err_code name_socket(server *s, err *e) {
    struct sockaddr_storage ss = {0};
    socklen_t n = sizeof ss;
    char host[INET6_ADDRSTRLEN + 32], port[8];
    if (getsockname(s->tcp.fd, (struct sockaddr *)&ss, &n) != 0 ||
        getnameinfo((struct sockaddr *)&ss, n, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        return err_set(e, ERR_IO, "the listening socket has no name");
    bool v6 = ss.ss_family == AF_INET6;
    s->port = atoi(port);
    snprintf(s->address, sizeof s->address, v6 ? "[%s]:%s" : "%s:%s", host, port);
    snprintf(s->url, sizeof s->url, "http://%s", s->address);
    return ERR_OK;
}

err_code listen_tcp(server *s, const char *address, err *e) {
    char host[256], port[8];
    err_code rc = listen_parse(address, host, sizeof host, port, sizeof port, e);
    if (rc != ERR_OK) return rc;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *list = NULL;
    int why = getaddrinfo(host, port, &hints, &list);
    if (why != 0) return err_set(e, ERR_USAGE, "listen address \"%s\": %s", address, gai_strerror(why));
    int fd = -EADDRNOTAVAIL;
    for (struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next) {
        if (!s->auth && !is_loopback(ai->ai_addr)) {
            freeaddrinfo(list);
            return err_set(e, ERR_USAGE,
                           "listen address \"%s\": server.auth is false, which is for the loopback only: listen on "
                           "127.0.0.1, or set server.auth to true",
                           address);
        }
        fd = open_socket(ai);
    }
    freeaddrinfo(list);
    if (fd == -EADDRINUSE)
        return err_set(e, ERR_BUSY, "%s: port %s is in use: stop what listens there, or choose another with --listen",
                       address, port);
    if (fd < 0) {
        errno = -fd;
        return err_errno(e, "%s: cannot listen there", address);
    }
    s->tcp.fd = fd;
    return name_socket(s, e);
}

/* Bind in `dir` by a name that fits: a socket's path has 107 bytes, a state folder's may have more. */
static int bind_in_dir(int fd, const char *dir) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (at < 0) return -1;
    /* the island's lock is held: a socket that lies there belongs to nobody */
    (void)unlinkat(at, "control.sock", 0);
    snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d/control.sock", at);
    int rc = bind(fd, (struct sockaddr *)&sa, sizeof sa);
    int why = errno;
    close(at);
    errno = why;
    return rc;
}

err_code listen_control(server *s, err *e) {
    const char *dir = island_dir(s->isl);
    err_code rc = path_join(s->socket_path, sizeof s->socket_path, e, dir, "control.sock");
    if (rc != ERR_OK) return rc;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return err_errno(e, "%s: no socket", s->socket_path);
    /* the mode is given before the name exists: there is no moment in which others may connect */
    if (fchmod(fd, 0600) != 0 || bind_in_dir(fd, dir) != 0 || listen(fd, BACKLOG) != 0) {
        rc = err_errno(e, "%s: cannot listen there", s->socket_path);
        close(fd);
        s->socket_path[0] = 0;
        return rc;
    }
    s->control.fd = fd;
    return ERR_OK;
}
