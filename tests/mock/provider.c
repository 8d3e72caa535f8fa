/* mock_provider PORT|0 [--capture FILE] [--script FILE]
 * Prints "port N" when it listens, and serves until SIGTERM or SIGINT. mock.h says what it answers. */
#include "mock.h"

#include "base/bytes.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    const char *capture = NULL, *script = NULL;
    bool ok = argc >= 2;
    for (int i = 2; i < argc && ok; i += 2) {
        ok = i + 1 < argc;
        if (ok && strcmp(argv[i], "--capture") == 0)
            capture = argv[i + 1];
        else if (ok && strcmp(argv[i], "--script") == 0)
            script = argv[i + 1];
        else
            ok = false;
    }
    if (!ok) {
        fprintf(stderr, "usage: mock_provider PORT|0 [--capture FILE] [--script FILE]\n");
        return 2;
    }
    sigset_t set;
    int sig;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    base_init();
    mock *m = mock_start(atoi(argv[1]), capture, script);
    if (!m) {
        fprintf(stderr, "mock_provider: cannot listen, or cannot open a file\n");
        return 3;
    }
    printf("port %d\n", mock_port(m));
    fflush(stdout);
    sigwait(&set, &sig);
    mock_stop(m);
    return 0;
}
