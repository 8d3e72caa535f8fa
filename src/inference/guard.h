/* Internal to inference: the one guard that every request passes, whatever its dialect.
 *
 * guard_label looks at everything in a request that a person or a program wrote: messages of every role with their
 * names, calls, arguments and results, tool definitions, template variables, the raw prompt, inputs and query of
 * embeddings, stop strings, the form of the answer. JSON is looked at as what it says (members' names, strings after
 * their escapes, numbers), also where it comes as text (arguments of calls, schemas). Token ids cannot be looked at:
 * they count as a failed detector.
 *
 * guard_redact makes the request that a provider may see: a copy whose findings of certain entities are placeholders.
 * It walks the same parts in the same order, so what was found is what is replaced, and nothing is scanned twice.
 *
 * A new content field of `request` belongs into walk_request (guard.c), or it passes unseen: tests/unit/inference/
 * test_guard.c fills every field and fails where one is not found.
 */
#ifndef POLDER_INFERENCE_GUARD_H
#define POLDER_INFERENCE_GUARD_H

#include "inference/perimeter.h"

typedef struct part_finding {
    uint32_t part; /* in the order of the walk */
    finding f;
} part_finding;

typedef struct guarded { /* zero-initialised; guarded_free */
    sensitivity s;
    bool detector_failed;
    char why[200]; /* where it failed */
    entity_set found;
    uint32_t counts[ENT_MAX];
    part_finding *list; /* by part, then place */
    size_t n, cap;
} guarded;

/* What the request is. ERR_INVALID: the declared label is none of this island's, or the purpose names somebody. Failure
 * of a detector is not an error: the policy says what it means. ERR_NOMEM. */
err_code guard_label(guarded *g, const perimeter *p, const request *r, err *e);
void guarded_free(guarded *g);
/* How many findings are of entities in `set` that can be redacted. */
size_t guarded_count(const guarded *g, const detector *d, const entity_set *set);

/* A request with findings replaced, and all that it owns. */
typedef struct redacted {
    request r;
    cJSON *trees[3]; /* messages, tools, template_args */
    char **texts;
    size_t n_texts, cap_texts;
    embed_request embed;
    embed_input *inputs;
} redacted;
/* `map` gets the values. *out is freed by redacted_free. ERR_TOO_LARGE past the limits of redact.h. */
err_code guard_redact(redacted **out, const request *r, const guarded *g, const entity_set *set, redaction *map,
                      err *e);
void redacted_free(redacted *x); /* wipes; NULL is fine */

#endif
