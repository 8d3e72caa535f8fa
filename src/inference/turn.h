/* Internal to inference: what an answer said, collected from its events as one message.
 *
 * turn_json writes {"message": {"role": "assistant", "content", "reasoning_content", "tool_calls": [{id, type,
 * function: {name, arguments}}]}, "finish"}: canonical JSON; what was not said is left out, but for content. Calls get
 * the ids call_0, call_1, …: dialects make their own.
 */
#ifndef POLDER_INFERENCE_TURN_H
#define POLDER_INFERENCE_TURN_H

#include "inference/inference.h"

typedef struct turn { /* zero-initialised; turn_free */
    buf text, reasoning, args;
    cJSON *calls;
    bool in_call;
    char finish[16];
    bool failed; /* memory was short, or it is too long for a record */
} turn;

void turn_event(turn *t, const event *ev);
err_code turn_json(const turn *t, buf *out, err *e);
void turn_free(turn *t); /* wipes */

#endif
