/* Internal to inference: placeholders in the events of an answer become values again.
 *
 * Text, reasoning, names and arguments of calls and the stop string that ended a choice are restored, whatever the
 * pieces they come in; what a piece holds back comes with the next one, or before the event that ends it.
 *
 * Arguments are JSON, and so is the text of an answer that was asked for as JSON (`json`): there a value is put in
 * escaped, so that the client can still parse it.
 */
#ifndef POLDER_INFERENCE_RESTORING_H
#define POLDER_INFERENCE_RESTORING_H

#include "inference/inference.h"

typedef struct restoring restoring;
err_code restoring_new(restoring **out, const redaction *map, bool json, err *e); /* the map must outlive it */
void restoring_free(restoring *x);                                                /* wipes; NULL is fine */
/* One event in, none, one or more out. An error of `emit` is returned. */
err_code restoring_event(restoring *x, const event *ev, err_code (*emit)(void *ctx, const event *ev), void *ctx,
                         err *e);

#endif
