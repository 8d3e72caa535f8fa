/* Part of island's public header: what a key or a project may use up.
 *
 * Limits stand at projects and at keys; a request must pass those of its key and of its key's project. Requests and
 * tokens per minute are counted in this process, over the minute that has just passed; budgets (tokens and EUR, per day
 * and month in UTC) in the store, so that a restart forgets nothing. A budget is checked before a request and charged
 * after it: what runs at once may pass it by at most those requests.
 *
 * Threads: any.
 */
#ifndef POLDER_ISLAND_QUOTA_H
#define POLDER_ISLAND_QUOTA_H

#include "island/island.h"

/* What one request holds while it runs. Zero-initialised. */
typedef struct quota_hold {
    identity who;
    char model[65];
    bool held;
} quota_hold;

/* May `who` ask for `model` now? ERR_DENIED: the name is not among those the key or project may use. ERR_BUSY: a limit
 * or budget is used up; e->retry_after_s says when it is worth another try. Counts the request. */
err_code quota_enter(island *i, const identity *who, const char *model, quota_hold *h, err *e);
/* After the outcome: charge what it took. `provider` is who answered ("engine", or a provider's name; NULL: nobody
 * did). Without quota_enter it does nothing. */
void quota_leave(island *i, quota_hold *h, const char *provider, uint64_t tokens_in, uint64_t tokens_out,
                 double cost_eur);

#endif
