/* What the ledger shows and nobody declared. Each finding has a kind for programs and a sentence for people. */
#include "operations/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void write_moment(jw *w, const char *key, const moment *m) {
    jw_key(w, key);
    jw_obj(w);
    jw_kint(w, "record", (int64_t)m->seq);
    jw_kstr(w, "time", m->time);
    jw_obj_end(w);
}

void write_span(jw *w, const span *s) {
    if (s->n) {
        write_moment(w, "first", &s->first);
        write_moment(w, "last", &s->last);
        return;
    }
    jw_key(w, "first");
    jw_null(w);
    jw_key(w, "last");
    jw_null(w);
}

__attribute__((format(printf, 3, 4))) static void begin(jw *w, const char *kind, const char *fmt, ...) {
    buf text = {.max = 4096};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    jw_obj(w);
    jw_kstr(w, "kind", kind);
    jw_kstr(w, "text", buf_str(&text));
    if (text.failed && !text.over_max) w->out->failed = true;
    buf_free(&text);
}

static void counts(jw *w, uint64_t requests, uint64_t bytes, const uncertain *u) {
    jw_kint(w, "requests", (int64_t)requests);
    jw_kint(w, "bytes", (int64_t)bytes);
    jw_kint(w, "may_have_left_requests", (int64_t)u->requests);
    jw_kint(w, "may_have_left_bytes", (int64_t)u->bytes);
}

/* The first record behind `seq` that says that what is declared of `subject` was changed. */
static const change *changed_after(const tally *t, const char *events, const char *subject, uint64_t seq) {
    for (uint32_t i = 0; i < t->n_changes; i++) {
        const change *c = tally_change(t, i);
        if (c->at.seq > seq && strncmp(c->event, events, strlen(events)) == 0 && strcmp(c->subject, subject) == 0)
            return c;
    }
    return NULL;
}

static void explained(jw *w, const change *c) {
    if (c) jw_kint(w, "changed_in", (int64_t)c->at.seq);
}

static void because(char out[80], const change *c) {
    *out = 0;
    if (c) snprintf(out, 80, "; that was changed later, by record %llu", (unsigned long long)c->at.seq);
}

/* ---- bytes without a record -------------------------------------------------------------------------------- */

static void find_unrecorded(jw *w, const tally *t) {
    for (uint32_t i = 0; i < t->flows.n; i++) {
        const flow *f = tally_flow(t, i);
        if (!f->unrecorded) continue;
        const char *asked = tally_workload(t, f->workload)->name;
        begin(w, "egress_missing",
              "%llu requests for '%s' sent bytes to %s without an egress record before: the ledger or the program was "
              "tampered with",
              (unsigned long long)f->unrecorded, asked, f->provider);
        jw_kstr(w, "model", asked);
        jw_kstr(w, "provider", f->provider);
        jw_kint(w, "requests", (int64_t)f->unrecorded);
        write_span(w, &f->when);
        jw_obj_end(w);
    }
}

/* ---- providers --------------------------------------------------------------------------------------------- */

static void find_unknown(jw *w, const declared *d, const tally *t, const face *f) {
    const change *c = changed_after(t, "provider.", f->provider, f->when.last.seq);
    char why[80];
    because(why, c);
    begin(w, "provider_unknown", "%llu requests went to %s (%s, %s), which is no declared provider%s",
          (unsigned long long)f->left, f->provider, *f->operator_name ? f->operator_name : "operator not known",
          *f->host ? f->host : "host not known", why);
    jw_kstr(w, "provider", f->provider);
    jw_kstr(w, "host", f->host);
    jw_kstr(w, "operator", f->operator_name);
    jw_kstr(w, "country", f->country);
    jw_kstr(w, "operator_law", f->operator_law);
    counts(w, f->left, f->sent, &f->maybe);
    write_span(w, &f->when);
    explained(w, c);
    jw_obj_end(w);
}

typedef struct differing {
    const char *fact;
    char seen[320], declared[320];
} differing;

static void compare(differing *list, size_t *n, const char *fact, const char *seen, const char *is) {
    if (strcmp(seen, is) == 0) return;
    list[*n].fact = fact;
    snprintf(list[*n].seen, sizeof list[*n].seen, "%s", seen);
    snprintf(list[*n].declared, sizeof list[*n].declared, "%s", is);
    ++*n;
}

static void find_differing(jw *w, const tally *t, const face *f, const cJSON *p) {
    differing list[6];
    size_t n = 0;
    char host[300];
    host_of_url(text_at(p, "url"), host, sizeof host);
    compare(list, &n, "operator", f->operator_name, text_at(p, "operator"));
    compare(list, &n, "country", f->country, text_at(p, "country"));
    compare(list, &n, "operator_law", f->operator_law, text_at(p, "operator_law"));
    compare(list, &n, "inside", f->inside ? "yes" : "no", cJSON_IsTrue(json_get(p, "inside")) ? "yes" : "no");
    compare(list, &n, "driver", f->driver, text_at(p, "driver"));
    compare(list, &n, "host", f->host, host);
    if (!n) return;
    const change *c = changed_after(t, "provider.", f->provider, f->when.last.seq);
    buf facts = {.max = 3000};
    char why[80];
    because(why, c);
    for (size_t i = 0; i < n; i++)
        buf_printf(&facts, "%s%s \"%s\", declared is \"%s\"", i ? "; " : "", list[i].fact, list[i].seen,
                   list[i].declared);
    begin(w, "facts_differ", "%llu requests went to %s under other facts than those declared now: %s%s",
          (unsigned long long)f->left, f->provider, buf_str(&facts), why);
    if (facts.failed && !facts.over_max) w->out->failed = true;
    buf_free(&facts);
    jw_kstr(w, "provider", f->provider);
    jw_key(w, "facts");
    jw_arr(w);
    for (size_t i = 0; i < n; i++) {
        jw_obj(w);
        jw_kstr(w, "fact", list[i].fact);
        jw_kstr(w, "seen", list[i].seen);
        jw_kstr(w, "declared", list[i].declared);
        jw_obj_end(w);
    }
    jw_arr_end(w);
    counts(w, f->left, f->sent, &f->maybe);
    write_span(w, &f->when);
    explained(w, c);
    jw_obj_end(w);
}

static void find_faces(jw *w, const declared *d, const tally *t, bool unknown) {
    for (uint32_t i = 0; i < t->faces.n; i++) {
        const face *f = tally_face(t, i);
        const cJSON *p = declared_provider(d, f->provider);
        if (unknown && !p) find_unknown(w, d, t, f);
        if (!unknown && p) find_differing(w, t, f, p);
    }
}

/* ---- model names ------------------------------------------------------------------------------------------- */

static void find_ways(jw *w, const declared *d, const tally *t) {
    for (uint32_t i = 0; i < t->flows.n; i++) {
        const flow *f = tally_flow(t, i);
        const char *asked = tally_workload(t, f->workload)->name;
        if (f->engine || !declared_provider(d, f->provider) || declared_leads(d, asked, f->provider, f->target))
            continue;
        const change *c = changed_after(t, "route.", asked, f->when.last.seq);
        char why[80];
        because(why, c);
        begin(w, "route_undeclared", "%llu requests for '%s' went to %s (%s there), where that name does not lead%s",
              (unsigned long long)f->left, asked, f->provider, f->target, why);
        jw_kstr(w, "model", asked);
        jw_kstr(w, "provider", f->provider);
        counts(w, f->left, f->sent, &f->maybe);
        write_span(w, &f->when);
        explained(w, c);
        jw_obj_end(w);
    }
}

static void find_names(jw *w, const declared *d, const tally *t) {
    for (uint32_t i = 0; i < t->workloads.n; i++) {
        const workload *x = tally_workload(t, i);
        if ((!x->admitted && !x->completed && !x->failed) || declared_route(d, x->name) || declared_model(d, x->name))
            continue;
        const change *c = changed_after(t, "route.", x->name, x->when.last.seq);
        if (!c) c = changed_after(t, "model.", x->name, x->when.last.seq);
        char why[80];
        because(why, c);
        begin(w, "model_unknown",
              "%llu requests were admitted for '%s', which is neither an imported model nor leads "
              "anywhere%s",
              (unsigned long long)x->admitted, x->name, why);
        jw_kstr(w, "model", x->name);
        jw_kint(w, "requests", (int64_t)x->admitted);
        write_span(w, &x->when);
        explained(w, c);
        jw_obj_end(w);
    }
}

/* ---- what no outcome speaks of, and what left for other reasons --------------------------------------------- */

static void find_uncertain(jw *w, const tally *t) {
    for (uint32_t i = 0; i < t->flows.n; i++) {
        const flow *f = tally_flow(t, i);
        if (!f->maybe.requests) continue;
        const char *asked = tally_workload(t, f->workload)->name;
        begin(w, "outcome_unknown",
              "%llu requests for '%s' were about to go to %s and have no outcome in these records (they run now, or "
              "polder was cut off): up to %llu bytes may have left",
              (unsigned long long)f->maybe.requests, asked, f->provider, (unsigned long long)f->maybe.bytes);
        jw_kstr(w, "model", asked);
        jw_kstr(w, "provider", f->provider);
        counts(w, 0, 0, &f->maybe);
        write_span(w, &f->when);
        jw_obj_end(w);
    }
}

static bool is_configured(const declared *d, const other *o) {
    const cJSON *s = json_get(d->tree, "settings");
    char host[300];
    host_of_url(text_at(s, "oidc_jwks"), host, sizeof host);
    if (strcmp(o->purpose, "oidc.jwks") == 0) return *host && strcmp(host, o->host) == 0;
    return strcmp(o->purpose, "model.pull") == 0 && *text_at(s, "hub") && strcmp(text_at(s, "hub"), o->host) == 0;
}

static void find_others(jw *w, const declared *d, const tally *t) {
    for (uint32_t i = 0; i < t->others.n; i++) {
        const other *o = tally_other(t, i);
        bool configured = is_configured(d, o);
        begin(w, "other_purpose", "%s: asked %s for %s %llu times; %s", *o->purpose ? o->purpose : "no purpose given",
              *o->host ? o->host : "a host that was not named", *o->what ? o->what : "something not named",
              (unsigned long long)o->when.n,
              configured ? "island.yaml names that host" : "island.yaml does not name that host now");
        jw_kstr(w, "purpose", o->purpose);
        jw_kstr(w, "host", o->host);
        jw_kstr(w, "what", o->what);
        jw_kbool(w, "configured", configured);
        jw_kint(w, "requests", (int64_t)o->when.n);
        write_span(w, &o->when);
        jw_obj_end(w);
    }
}

void findings_write(jw *w, const declared *d, const tally *t) {
    jw_arr(w);
    find_unrecorded(w, t);
    find_faces(w, d, t, true);
    find_faces(w, d, t, false);
    find_ways(w, d, t);
    find_names(w, d, t);
    find_uncertain(w, t);
    if (!t->complete) {
        begin(w, "not_all_counted",
              "there are more names, destinations or running requests in these records than are told apart: some are "
              "not in the counts; look at a smaller range with --from or --since");
        jw_obj_end(w);
    }
    find_others(w, d, t);
    jw_arr_end(w);
}
