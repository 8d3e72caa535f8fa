/* What in a policy, beside the providers, deserves a second look. Nothing of it is an error. */
#include "data/policy_internal.h"

#include <string.h>

typedef struct remarks {
    const policy *p;
    const provider_facts *providers;
    size_t n;
    cJSON *out;
} remarks;

static bool remark(remarks *r, unsigned line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool remark(remarks *r, unsigned line, const char *fmt, ...) {
    buf b = {.max = 4096};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    cJSON *o = cJSON_CreateObject();
    bool ok = o && cJSON_AddItemToArray(r->out, o) && cJSON_AddNumberToObject(o, "line", line) && !b.failed &&
              cJSON_AddStringToObject(o, "text", buf_str(&b));
    buf_free(&b);
    return ok;
}

static bool zone_used(const policy *p, const zone *z) {
    for (const sentence *s = p->sentences; s; s = s->next)
        for (const place *at = s->places; at; at = at->next)
            if (at->zone == z) return true;
    return false;
}

static bool remark_zones(remarks *r) {
    bool ok = true;
    for (const zone *z = r->p->zones; ok && z; z = z->next) {
        bool any = false;
        for (size_t i = 0; i < r->n && !any; i++) any = zone_has(z, &r->providers[i], i == 0);
        if (!zone_used(r->p, z))
            ok = remark(r, z->line, "no sentence speaks of the zone %s", z->name);
        else if (!any)
            ok = remark(r, z->line, "none of the providers declared now is in the zone %s", z->name);
    }
    return ok;
}

static bool remark_places(remarks *r) {
    bool ok = true;
    for (const sentence *s = r->p->sentences; s; s = s->next)
        for (const place *at = s->places; ok && at; at = at->next) {
            size_t i = 0;
            while (i < r->n && strcmp(r->providers[i].name, at->name ? at->name : "") != 0) i++;
            if (at->kind == PLACE_PROVIDER && i == r->n)
                ok = remark(r, s->line, "there is no provider %s on this island", at->name);
            if (ok && at->kind == PLACE_ANY && s->kind == SENTENCE_NEVER)
                ok = remark(r, s->line, "nothing is outside \"any provider\": this sentence forbids nothing");
        }
    return ok;
}

/* A `never` for a level does not speak of the higher ones. */
static bool remark_nevers(remarks *r) {
    for (const sentence *s = r->p->sentences; s; s = s->next) {
        if (s->kind != SENTENCE_NEVER || !s->levels) continue;
        uint8_t lowest = 0;
        while (!(s->levels >> lowest & 1)) lowest++;
        for (unsigned level = lowest + 1u; level < r->p->labels.n; level++) {
            bool named = false, allowed = false;
            for (const sentence *o = r->p->sentences; o; o = o->next) {
                named = named || (o->kind == SENTENCE_NEVER && (o->levels >> level & 1));
                allowed = allowed || sentence_allows(o, (uint8_t)level);
            }
            if (named || !allowed) continue;
            if (!remark(r, s->line, "this sentence does not speak of %s, which is a higher level",
                        r->p->labels.name[level]))
                return false;
        }
    }
    return true;
}

static bool remark_levels(remarks *r) {
    for (uint8_t level = 0; level < r->p->labels.n; level++) {
        bool any = false;
        for (const sentence *s = r->p->sentences; s && !any; s = s->next) any = sentence_allows(s, level);
        if (!any &&
            !remark(r, 0, "no sentence allows %s to anything: such requests are refused", r->p->labels.name[level]))
            return false;
    }
    return true;
}

/* Two that treat the same thing differently: the higher level counts. */
static bool remark_treats(remarks *r) {
    for (const sentence *s = r->p->sentences; s; s = s->next) {
        if (s->kind != SENTENCE_TREAT) continue;
        uint8_t level = s->detector_error ? r->p->detector_error : r->p->unlabelled;
        if (s->level < level && !remark(r, s->line, "another sentence treats this as %s, which is higher and counts",
                                        r->p->labels.name[level]))
            return false;
    }
    return true;
}

err_code policy_remarks(const policy *p, const provider_facts *providers, size_t n, cJSON **out, err *e) {
    remarks r = {.p = p, .providers = providers, .n = n, .out = cJSON_CreateArray()};
    *out = NULL;
    if (!r.out || !remark_zones(&r) || !remark_places(&r) || !remark_nevers(&r) || !remark_levels(&r) ||
        !remark_treats(&r)) {
        cJSON_Delete(r.out);
        return err_nomem(e, "remarks");
    }
    *out = r.out;
    return ERR_OK;
}
