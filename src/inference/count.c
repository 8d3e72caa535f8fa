/* How many tokens a request has as the local model reads it. Nothing is generated, recorded or sent anywhere. */
#include "inference/internal.h"

#include "base/mem.h"

err_code pipeline_count(inference *inf, const request *r, uint64_t *n, err *e) {
    loaded *l = NULL;
    *n = 0;
    err_code rc = inference_enter(inf, e);
    if (rc) return rc;
    rc = inference_get_loaded(inf, r->model, NULL, NULL, &l, e);
    if (!rc && !l->sched)
        rc = err_set(e, ERR_UNSUPPORTED, "model '%s' makes vectors or scores; it has no prompt", r->model);
    prompt p = {.tokens = NULL};
    if (!rc) rc = prompt_build(&p, l->m, l->special, l->format, r, scheduler_context(l->sched), e);
    if (!rc) *n = p.n_tokens;
    prompt_free(&p);
    inference_leave(inf);
    return rc;
}
