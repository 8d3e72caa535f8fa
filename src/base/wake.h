/* Waking many waits at once: a word that changes and whoever waits for that, threads (Linux: futex) and fibers
 * (loop.h).
 *
 *   waits:   for (;;) { uint32_t seen = wake_look(&w); if (it has happened) break; wake_wait(&w, seen); }
 *   happens: it has happened; wake_all(&w);
 *
 * One system call wakes all of them, however many there are, and the caller goes on: with a semaphore each it would be
 * put aside for each that it wakes. The word outlives everybody who waits for it.
 */
#ifndef POLDER_BASE_WAKE_H
#define POLDER_BASE_WAKE_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct wake_word { /* zero-initialised */
    _Atomic uint32_t n;
    _Atomic uint32_t sleepers; /* threads */
} wake_word;

uint32_t wake_look(wake_word *w);
void wake_wait(wake_word *w, uint32_t seen); /* returns when it was woken, for no reason, or at once where w changed */
void wake_all(wake_word *w);

#endif
