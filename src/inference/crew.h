/* Internal to inference: a few threads that draw tokens side by side. After a step every row of logits is sampled from
 * and hashed; with a vocabulary of 100,000 a row takes about a millisecond, and the engine's own threads are idle then.
 * The crew sleeps between calls; the caller works along.
 */
#ifndef POLDER_INFERENCE_CREW_H
#define POLDER_INFERENCE_CREW_H

#include "base/error.h"

#include <stddef.h>

typedef struct crew crew;
/* n_threads counts the caller; with 1 there is nobody else. */
err_code crew_new(crew **out, unsigned n_threads, err *e);
void crew_free(crew *c); /* NULL is fine */
/* fn(ctx, i) for every i < n, in any order, by any thread; returns when all are done. One caller at a time. */
void crew_run(crew *c, size_t n, void (*fn)(void *ctx, size_t i), void *ctx);

#endif
