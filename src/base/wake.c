#include "base/wake.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(wake_word) == 4, "a futex has 32 bits");

uint32_t wake_look(wake_word *w) {
    return atomic_load(w);
}

void wake_wait(wake_word *w, uint32_t seen) {
    (void)syscall(SYS_futex, w, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

void wake_all(wake_word *w) {
    atomic_fetch_add(w, 1);
    (void)syscall(SYS_futex, w, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}
