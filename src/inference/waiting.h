/* Internal to the scheduler: jobs that wait, and who goes first. Every function is called under scheduler.lock.
 *
 * Owners (API keys) are served fairly by tokens, not by requests: an owner's counter grows with what the engine
 * computed for it, and of the jobs that wait with the highest priority the one whose owner has the lowest counter goes
 * first, then the one that came first. Who comes back after having had nothing to do begins at the lowest counter of
 * those who have: idle time is not saved up. (Sheng et al., "Fairness in Serving Large Language Models", 2024, call it
 * a virtual token counter.) An owner is known while it has jobs. */
#ifndef POLDER_INFERENCE_WAITING_H
#define POLDER_INFERENCE_WAITING_H

#include <stdbool.h>
#include <stdint.h>

struct job;

/* A computed token counts: of a prompt, and drawn (each costs a pass over the weights that prompt tokens share). */
#define SERVED_PROMPT 1
#define SERVED_DRAWN  2

typedef struct owner {
    struct owner *next;
    uint64_t id;
    uint64_t served;
    uint32_t n_jobs;   /* that are not freed */
    uint32_t n_asking; /* the engine thread's own: jobs with prompt work in the step that is being planned */
} owner;

typedef struct waiting {
    struct job *head, *tail; /* in the order they came */
    owner *owners;
} waiting;

/* The owner of a job that comes; NULL: out of memory. Paired with waiting_forget. */
owner *waiting_know(waiting *w, uint64_t id);
void waiting_forget(waiting *w, owner *o);
void waiting_push(waiting *w, struct job *j);
/* Takes it out, wherever it stands. */
void waiting_remove(waiting *w, struct job *j);
/* Who goes first; it stays in the queue. NULL: nobody waits, or who waits is held. */
struct job *waiting_first(const waiting *w);

#endif
