/* A fiber: a function with a stack of its own that can leave in the middle and be entered again there.
 *
 * It is always entered by the same thread, so what belongs to a thread (errno, _Thread_local) stays the thread's. A
 * switch saves what the calling convention says a call preserves (System V x86-64 ABI 3.2.1; AAPCS64 6.1) and takes
 * some ten nanoseconds; the kernel does not know of it. The sanitizers are told.
 */
#ifndef POLDER_BASE_FIBER_H
#define POLDER_BASE_FIBER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct fiber fiber;

/* Begins with fn(arg) when it is entered first. stack_bytes is rounded up to whole pages; a page below it that cannot
 * be touched ends the program where it is too small. Memory of the stack is taken as it is used. NULL: none left. */
fiber *fiber_new(size_t stack_bytes, void (*fn)(void *arg), void *arg);
/* One that has returned, or was never entered. NULL is fine. */
void fiber_free(fiber *f);
/* Runs it until it leaves or returns; true: it has returned. Not from inside a fiber. */
bool fiber_enter(fiber *f);
/* By the fiber itself: back to where it was entered. */
void fiber_leave(fiber *f);

#endif
