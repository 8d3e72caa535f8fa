/* How many tokens a request has as the local model reads it. Nothing is generated, recorded or sent anywhere. */
#include "inference/internal.h"
#include "inference/perimeter.h"

#include "base/mem.h"

#include <stdio.h>

/* The engine as a candidate under this name. false: only providers answer. */
static bool engine_candidate(inference *inf, const char *name, candidate *out) {
    perimeter *p = perimeter_get(inf);
    const model_route *route = perimeter_route(p, name);
    bool found = !route;
    *out = (candidate){.provider = 0};
    if (!route) snprintf(out->model, sizeof out->model, "%s", name);
    for (uint32_t i = 0; route && i < route->n && !found; i++) {
        found = route->list[i].provider == 0;
        if (found) *out = route->list[i];
    }
    perimeter_put(inf, p);
    return found;
}

static err_code count(inference *inf, const request *r, uint64_t *n, err *e) {
    candidate c;
    loaded *l = NULL;
    if (!engine_candidate(inf, r->model, &c))
        return err_set(e, ERR_UNSUPPORTED,
                       "model '%s': tokens are counted by the local engine only, and it is none of those who answer "
                       "under this name",
                       r->model);
    err_code rc = inference_get_loaded(inf, c.model, NULL, NULL, &l, e);
    if (rc) return rc;
    if (!l->sched)
        return err_set(e, ERR_UNSUPPORTED, "model '%s' makes vectors or scores; it reads no messages", r->model);
    prompt p = {.tokens = NULL};
    rc = prompt_build(&p, l->m, l->special, l->format, r, scheduler_context(l->sched), e);
    if (!rc) *n = p.n_tokens;
    prompt_free(&p);
    return rc;
}

err_code pipeline_count(inference *inf, const request *r, uint64_t *n, err *e) {
    quota_hold hold = {.held = false};
    *n = 0;
    err_code rc = inference_enter(inf, e);
    if (rc) return rc;
    rc = quota_enter(inf->i, &r->who, r->model, &hold, e);
    if (!rc) rc = count(inf, r, n, e);
    quota_leave(inf->i, &hold, NULL, 0, 0, 0);
    inference_leave(inf);
    return rc;
}
