#include "base/wake.h"

#include "base/loop.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(_Atomic uint32_t) == 4, "a futex has 32 bits");

uint32_t wake_look(wake_word *w) {
    return atomic_load(&w->n);
}

void wake_wait(wake_word *w, uint32_t seen) {
    if (loop_wait_word(w, seen)) return;
    atomic_fetch_add(&w->sleepers, 1);
    (void)syscall(SYS_futex, &w->n, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&w->sleepers, 1);
}

/* Who counts themselves after it was looked whether anybody sleeps sees the changed word and does not fall asleep. */
void wake_all(wake_word *w) {
    atomic_fetch_add(&w->n, 1);
    if (atomic_load(&w->sleepers)) (void)syscall(SYS_futex, &w->n, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    loops_look();
}
