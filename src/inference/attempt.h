/* Internal to inference: one attempt of a request at one candidate, from the choice of a driver to its release.
 *
 *   attempt_prepare   redact what the policy wants redacted, choose the driver, let it make what it will send
 *   attempt_admit     a request's first attempt: admitted, and egress with it where it leaves, are durable
 *   attempt_start     egress (or rerouted) is durable; only then the driver starts
 *   attempt_next      the driver's next step
 *   attempt_end       outcome, breaker, release; *note says how it went
 *
 * Redacted values come back here: whoever reads the events of attempt_next's driver passes them through
 * attempt_restore.
 */
#ifndef POLDER_INFERENCE_ATTEMPT_H
#define POLDER_INFERENCE_ATTEMPT_H

#include "inference/internal.h"
#include "inference/restoring.h"

typedef struct attempt {
    const candidate *c;
    uint32_t index;  /* of the candidate */
    uint32_t number; /* from 1, in the order of starting */
    const provider *p;
    const driver *d; /* NULL: not prepared */
    driver_call call;
    upstream_target target;
    redacted *red; /* NULL: the request as it came */
    const entity_set *set;
    restoring *back; /* where something was redacted */
    bool entered, prepared, started, begun, cancelled;
    bool recorded; /* egress is in the ledger already */
    uint64_t from_ns;
} attempt;

/* What attempts of one request share. */
typedef struct attempt_world {
    inference *inf;
    const admission *a;
    uint64_t seed;
    redaction **map; /* made where it is first needed */
    bool (*gone)(void *ctx);
    void *gone_ctx;
    uint64_t admitted; /* seq */
} attempt_world;

/* ERR_BUSY with *passed_over: the provider's breaker is open, or it runs as much as it may; nothing was prepared. */
err_code attempt_prepare(attempt *x, const attempt_world *w, uint32_t index, bool *passed_over, err *e);
/* Fills w->admitted. *refused as below. Both records become durable at once or not at all. */
err_code attempt_admit(attempt *x, attempt_world *w, bool *ledger_refused, err *e);
/* `number` counts from 1; `first`: its facts are in the admitted record. On a refusal of the ledger nothing has left.
 */
err_code attempt_start(attempt *x, const attempt_world *w, uint32_t number, bool first, bool *ledger_refused, err *e);
err_code attempt_next(attempt *x, int timeout_ms, driver_step *step, event *ev, err *e);
void attempt_cancel(attempt *x);
/* rc is how it ended; `lost`: another attempt was faster. Fills *out. May be called at any stage; idempotent but for
 * what it fills. The outcome's pointers live until attempt_release. */
void attempt_end(attempt *x, const attempt_world *w, err_code rc, bool lost, driver_outcome *out, attempt_note *note);
void attempt_release(attempt *x);

#endif
