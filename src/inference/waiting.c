#include "inference/waiting.h"

#include "inference/scheduler_internal.h"

#include "base/mem.h"

owner *waiting_know(waiting *w, uint64_t id) {
    uint64_t lowest = UINT64_MAX;
    for (owner *o = w->owners; o; o = o->next) {
        if (o->id == id) {
            o->n_jobs++;
            return o;
        }
        if (o->served < lowest) lowest = o->served;
    }
    owner *o = mem_zalloc(sizeof *o);
    if (!o) return NULL;
    *o = (owner){.next = w->owners, .id = id, .served = w->owners ? lowest : 0, .n_jobs = 1};
    w->owners = o;
    return o;
}

void waiting_forget(waiting *w, owner *o) {
    if (!o || --o->n_jobs) return;
    for (owner **at = &w->owners; *at; at = &(*at)->next) {
        if (*at != o) continue;
        *at = o->next;
        mem_free(o);
        return;
    }
}

void waiting_push(waiting *w, job *j) {
    j->next = NULL;
    j->queued = true;
    if (w->tail)
        w->tail->next = j;
    else
        w->head = j;
    w->tail = j;
}

void waiting_remove(waiting *w, job *j) {
    job **at = &w->head, *last = NULL;
    while (*at && *at != j) last = *at, at = &(*at)->next;
    if (*at) *at = j->next;
    if (w->tail == j) w->tail = last;
    j->next = NULL;
    j->queued = false;
}

job *waiting_first(const waiting *w) {
    job *best = NULL;
    for (job *j = w->head; j; j = j->next) {
        if (j->held || (best && j->spec.priority < best->spec.priority)) continue;
        if (!best || j->spec.priority > best->spec.priority || j->owner->served < best->owner->served) best = j;
    }
    return best;
}
