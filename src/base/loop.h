/* Loops: few threads that run many fibers, one fiber for each thing that mostly waits (a connection).
 *
 *   loops_spawn ──► a fiber on one of the loops ──► wait_fd, wait_ms, wake_wait (wake.h): the loop runs others
 * meanwhile └─► away: another thread runs this, which may block or take long
 *
 * A thread for each connection costs a switch of context for every wait and a wake for every end of one; where waits
 * are what a request mostly does, that is half of its processor's time (docs/results/perimeter.md). Code that waits
 * with the calls below reads the same on a thread and on a fiber.
 *
 * What a fiber must not do: block in another way for long (its loop's other fibers stand still), or wait while it holds
 * a mutex. What it may: be slow for a few milliseconds, take locks that are held briefly, use _Thread_local between two
 * waits.
 */
#ifndef POLDER_BASE_LOOP_H
#define POLDER_BASE_LOOP_H

#include "base/error.h"
#include "base/wake.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct loops loops;

/* n threads (1 to 64), each running fibers with stacks of stack_bytes. */
err_code loops_start(loops **out, unsigned n, size_t stack_bytes, err *e);
/* fn(arg) as a fiber on the loop that has the fewest. Any thread. */
err_code loops_spawn(loops *ls, void (*fn)(void *arg), void *arg, err *e);
/* Waits until every fiber has returned, and every thread. NULL is fine. Not by a fiber. */
void loops_stop(loops *ls);

/* Every function below may be called by any thread; on one that runs no fiber it just blocks. */

/* As poll(2) of one descriptor: what has happened, 0 at the end of the time, -1 where it cannot be waited for.
 * timeout_ms < 0: without an end. */
int wait_fd(int fd, short events, int timeout_ms);
void wait_ms(int ms);
/* Runs fn(arg) on a thread that may block, and returns when it has returned. */
void away(void (*fn)(void *arg), void *arg);
bool on_fiber(void);

/* For wake.c: true where it was a fiber that waited (until *w is not `seen`); and what wakes those. */
bool loop_wait_word(wake_word *w, uint32_t seen);
void loops_look(void);

#endif
