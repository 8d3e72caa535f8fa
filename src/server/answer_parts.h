/* Internal to server: an answer as a list of parts (reasoning, text, calls) in the order in which the model made them,
 * for dialects whose answers are such lists.
 *
 * parts_take turns the pipeline's events into three steps a dialect can write: a part opens, grows, is over. A call is
 * told when it is whole and never before: it opens, grows and is over in one step, so that no client is led to act on
 * one that is dropped or cut off in the middle. One whose arguments are no JSON object is told as text. */
#ifndef POLDER_SERVER_ANSWER_PARTS_H
#define POLDER_SERVER_ANSWER_PARTS_H

#include "server/dialect.h"

typedef enum part_kind { PART_REASONING, PART_TEXT, PART_CALL } part_kind;
#define PART_KINDS 3

typedef struct part {
    part_kind kind;
    uint32_t at;      /* its place in the answer */
    uint32_t of_kind; /* its place among its kind */
    buf text;         /* the text; of a call its arguments' JSON */
    buf name;         /* of a call */
} part;

typedef struct parts { /* zero-initialised; parts_free */
    part **list;
    uint32_t n, cap, n_kind[PART_KINDS];
    part *open; /* the last one, where it is not over */
    part *call; /* one that is not whole yet; not in the list */
    size_t bytes;
    bool failed; /* memory was short or the answer too long: it is not what the model made */
} parts;

typedef struct parts_step {
    part *over;   /* this one is over, */
    part *opens;  /* this one begins, */
    bool whole;   /* and has all its text and is over too (every call) */
    part *grows;  /* this one gets the event's text */
    bool waiting; /* a call grows that is not told yet */
} parts_step;

parts_step parts_take(parts *p, const event *ev);
void parts_free(parts *p); /* wipes; NULL is fine */

#endif
