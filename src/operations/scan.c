/* From records to a tally. The form of the records is described in inference.h. */
#include "operations/tally.h"

#include "base/mem.h"

#include <stddef.h>
#include <string.h>

typedef struct fields { /* of one entry; absent ones are empty */
    slice event, time, model, provider, request, bytes, purpose, host, operator_name, country, operator_law, inside,
        driver, pseudonymised, attempts, prompt_tokens, completion_tokens, route, cost_eur, changes, hub, repository,
        address, by, digest;
} fields;

static const struct {
    const char *key;
    size_t at;
} known[] = {
#define FIELD(key, name) \
    { key, offsetof(fields, name) }
    FIELD("event", event),
    FIELD("time", time),
    FIELD("model", model),
    FIELD("provider", provider),
    FIELD("request", request),
    FIELD("bytes", bytes),
    FIELD("purpose", purpose),
    FIELD("host", host),
    FIELD("operator", operator_name),
    FIELD("country", country),
    FIELD("operator_law", operator_law),
    FIELD("inside", inside),
    FIELD("driver", driver),
    FIELD("pseudonymised", pseudonymised),
    FIELD("attempts", attempts),
    FIELD("prompt_tokens", prompt_tokens),
    FIELD("completion_tokens", completion_tokens),
    FIELD("route", route),
    FIELD("cost_eur", cost_eur),
    FIELD("changes", changes),
    FIELD("hub", hub),
    FIELD("repository", repository),
    FIELD("address", address),
    FIELD("by", by),
    FIELD("digest", digest),
#undef FIELD
};

static void read_fields(fields *f, const buf *entry) {
    slice key, value;
    flat walk;
    memset(f, 0, sizeof *f);
    if (!flat_object(&walk, (slice){entry->ptr, entry->len})) return;
    while (flat_next(&walk, &key, &value))
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (strlen(known[i].key) == key.n && memcmp(known[i].key, key.p, key.n) == 0) {
                memcpy((char *)f + known[i].at, &value, sizeof value);
                break;
            }
}

typedef struct scan {
    tally *t;
    ledger *l;
    uint64_t seq;
    fields f;
    err *e;
} scan;

/* ---- requests ---------------------------------------------------------------------------------------------- */

static err_code on_admitted(scan *s) {
    char asked[MODEL_NAME_MAX + 1];
    uint32_t at;
    slice_text(s->f.model, asked, sizeof asked);
    err_code rc = tally_name(s->t, asked, &at, s->e);
    if (rc) return rc;
    if (at != NONE) {
        workload *w = tally_workload(s->t, at);
        w->admitted++;
        span_add(&w->when, s->seq, s->f.time);
    }
    return open_add(s->t, s->seq, at, s->e);
}

static err_code on_refused(scan *s) {
    char asked[MODEL_NAME_MAX + 1];
    uint32_t at;
    slice_text(s->f.model, asked, sizeof asked);
    err_code rc = tally_name(s->t, asked, &at, s->e);
    if (rc || at == NONE) return rc;
    workload *w = tally_workload(s->t, at);
    w->refused++;
    span_add(&w->when, s->seq, s->f.time);
    return ERR_OK;
}

/* The model name of a request whose admitted record is before the range, or no longer kept. */
static err_code name_of_request(scan *s, uint64_t seq, uint32_t *at) {
    buf entry = {.max = LEDGER_ENTRY_MAX};
    fields f;
    char asked[MODEL_NAME_MAX + 1] = "?";
    err_code rc = seq < s->seq ? ledger_read(s->l, seq, &entry, s->e) : ERR_OK;
    if (!rc && entry.len) {
        read_fields(&f, &entry);
        if (slice_is(f.event, "\"admitted\"")) slice_text(f.model, asked, sizeof asked);
    }
    buf_free(&entry);
    return rc ? rc : tally_name(s->t, asked, at, s->e);
}

static err_code find_request(scan *s, open_request **r, uint32_t *asked) {
    uint64_t seq = slice_u64(s->f.request);
    *r = open_find(s->t, seq);
    if (*r) {
        *asked = (*r)->workload;
        return ERR_OK;
    }
    return name_of_request(s, seq, asked);
}

/* ---- egress ------------------------------------------------------------------------------------------------ */

static err_code face_of(scan *s, uint32_t *at) {
    face f = {.inside = slice_is(s->f.inside, "true")};
    uint8_t key[KEY_LEN];
    bool made;
    slice_text(s->f.provider, f.provider, sizeof f.provider);
    slice_text(s->f.driver, f.driver, sizeof f.driver);
    slice_text(s->f.operator_name, f.operator_name, sizeof f.operator_name);
    slice_text(s->f.country, f.country, sizeof f.country);
    slice_text(s->f.operator_law, f.operator_law, sizeof f.operator_law);
    slice_text(s->f.host, f.host, sizeof f.host);
    KEY_OF(key, f.provider, f.driver, f.operator_name, f.country, f.operator_law, f.host, f.inside ? "in" : "out");
    err_code rc = rows_get(&s->t->faces, key, at, &made, s->e);
    if (rc || *at == NONE) return rc;
    if (made) *tally_face(s->t, *at) = f;
    span_add(&tally_face(s->t, *at)->when, s->seq, s->f.time);
    return ERR_OK;
}

static err_code on_other(scan *s) {
    other o = {0};
    uint8_t key[KEY_LEN];
    bool made;
    uint32_t at;
    slice_text(s->f.purpose, o.purpose, sizeof o.purpose);
    slice_text(s->f.host.p ? s->f.host : s->f.hub, o.host, sizeof o.host);
    slice_text(s->f.repository.p ? s->f.repository : s->f.address, o.what, sizeof o.what);
    KEY_OF(key, o.purpose, o.host, o.what);
    err_code rc = rows_get(&s->t->others, key, &at, &made, s->e);
    if (rc || at == NONE) return rc;
    if (made) *tally_other(s->t, at) = o;
    span_add(&tally_other(s->t, at)->when, s->seq, s->f.time);
    return ERR_OK;
}

static err_code on_egress(scan *s) {
    char provider[PROVIDER_NAME_MAX + 1], target[TARGET_MAX + 1];
    open_request *r;
    uint32_t asked, way, seen_as;
    if (!slice_is(s->f.purpose, "\"answer\"")) return on_other(s);
    slice_text(s->f.provider, provider, sizeof provider);
    slice_text(s->f.model, target, sizeof target);
    err_code rc = find_request(s, &r, &asked);
    if (!rc) rc = tally_way(s->t, asked, provider, target, &way, s->e);
    if (!rc) rc = face_of(s, &seen_as);
    if (rc) return rc;
    if (way != NONE) span_add(&tally_flow(s->t, way)->when, s->seq, s->f.time);
    if (!r) { /* admitted before the range: it waits all the same */
        rc = open_add(s->t, slice_u64(s->f.request), asked, s->e);
        if (rc) return rc;
        r = open_find(s->t, slice_u64(s->f.request));
    }
    return open_sent(r, way, seen_as, slice_u64(s->f.bytes), slice_is(s->f.pseudonymised, "true"), s->e);
}

/* ---- outcomes ---------------------------------------------------------------------------------------------- */

static err_code on_attempt(scan *s, open_request *r, uint32_t asked, slice attempt, uint32_t *answered_by) {
    slice key, value, provider = {0}, target = {0}, outcome = {0}, sent = {0}, received = {0}, sendings = {0};
    char name[PROVIDER_NAME_MAX + 1], there[TARGET_MAX + 1];
    flat walk;
    uint32_t way, seen_as = NONE;
    bool pseudonymised = false;
    if (!flat_object(&walk, attempt)) return ERR_OK;
    while (flat_next(&walk, &key, &value)) {
        if (key.n == 8 && memcmp(key.p, "provider", 8) == 0) provider = value;
        if (key.n == 5 && memcmp(key.p, "model", 5) == 0) target = value;
        if (key.n == 7 && memcmp(key.p, "outcome", 7) == 0) outcome = value;
        if (key.n == 10 && memcmp(key.p, "sent_bytes", 10) == 0) sent = value;
        if (key.n == 8 && memcmp(key.p, "sendings", 8) == 0) sendings = value;
        if (key.n == 14 && memcmp(key.p, "received_bytes", 14) == 0) received = value;
    }
    slice_text(provider, name, sizeof name);
    slice_text(target, there, sizeof there);
    err_code rc = tally_way(s->t, asked, name, there, &way, s->e);
    if (rc) return rc;
    bool was_recorded = r && open_take(r, way, &seen_as, &pseudonymised);
    uint64_t n = slice_u64(sent), times = sendings.p ? slice_u64(sendings) : n > 0;
    if (seen_as != NONE) {
        face *f = tally_face(s->t, seen_as);
        f->left += times;
        f->sent += n;
    }
    if (way == NONE) return ERR_OK;
    flow *f = tally_flow(s->t, way);
    f->attempts++;
    f->sent += n;
    f->received += slice_u64(received);
    f->left += times;
    if (pseudonymised) f->pseudonymised += times;
    f->unrecorded += n > 0 && !f->engine && !was_recorded && r && r->seq >= s->t->from;
    if (slice_is(outcome, "\"answered\"")) {
        f->answered++;
        *answered_by = way;
    }
    span_add(&f->when, s->seq, s->f.time);
    return ERR_OK;
}

/* Tokens and cost belong to who answered; of a failed request to who had begun to (its route). */
static err_code add_tokens(scan *s, uint32_t asked, uint32_t way, slice last_attempt) {
    char route[PROVIDER_NAME_MAX + 1], target[TARGET_MAX + 1] = "";
    slice key, value;
    flat walk;
    err_code rc = ERR_OK;
    slice_text(s->f.route, route, sizeof route);
    if (!*route) return ERR_OK;
    if (way == NONE) {
        if (flat_object(&walk, last_attempt))
            while (flat_next(&walk, &key, &value))
                if (key.n == 5 && memcmp(key.p, "model", 5) == 0) slice_text(value, target, sizeof target);
        rc = tally_way(s->t, asked, route, target, &way, s->e);
    }
    if (rc || way == NONE) return rc;
    flow *f = tally_flow(s->t, way);
    f->prompt_tokens += slice_u64(s->f.prompt_tokens);
    f->completion_tokens += slice_u64(s->f.completion_tokens);
    if (s->f.cost_eur.p) {
        f->cost_eur += slice_num(s->f.cost_eur);
        f->has_cost = true;
    }
    return ERR_OK;
}

static err_code on_outcome(scan *s, bool completed) {
    open_request *r;
    uint32_t asked, answered_by = NONE;
    slice attempt = {0};
    flat walk;
    err_code rc = find_request(s, &r, &asked);
    if (rc) return rc;
    if (asked != NONE) {
        workload *w = tally_workload(s->t, asked);
        *(completed ? &w->completed : &w->failed) += 1;
        span_add(&w->when, s->seq, s->f.time);
    }
    bool listed = flat_array(&walk, s->f.attempts);
    while (!rc && listed && flat_next(&walk, NULL, &attempt)) rc = on_attempt(s, r, asked, attempt, &answered_by);
    if (!rc) rc = add_tokens(s, asked, answered_by, attempt);
    if (r) open_close(s->t, r);
    return rc;
}

/* ---- changes ----------------------------------------------------------------------------------------------- */

static err_code on_change(scan *s) {
    change c = {.at = {.seq = s->seq}};
    slice_text(s->f.time, c.at.time, sizeof c.at.time);
    slice_text(s->f.event, c.event, sizeof c.event);
    slice_text(s->f.by, c.by, sizeof c.by);
    slice_text(s->f.provider.p ? s->f.provider : s->f.model, c.subject, sizeof c.subject);
    if (s->f.changes.p && !(c.changes = mem_strndup(s->f.changes.p, s->f.changes.n)))
        return err_nomem(s->e, "an inventory");
    return tally_change_add(s->t, &c, s->e);
}

static bool is_change(slice v) {
    static const char *const events[] = {"\"provider.changed\"", "\"provider.added\"", "\"provider.removed\"",
                                         "\"provider.key\"",     "\"route.changed\"",  "\"policy.activated\"",
                                         "\"model.removed\"",    "\"model.imported\"", "\"config.changed\""};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (slice_is(v, events[i])) return true;
    return false;
}

static err_code on_entry(scan *s) {
    slice v = s->f.event;
    if (slice_is(v, "\"admitted\"")) return on_admitted(s);
    if (slice_is(v, "\"egress\"")) return on_egress(s);
    if (slice_is(v, "\"completed\"")) return on_outcome(s, true);
    if (slice_is(v, "\"failed\"")) return on_outcome(s, false);
    if (slice_is(v, "\"refused\"")) return on_refused(s);
    if (slice_is(v, "\"server.started\"")) { /* whatever ran before can have no outcome any more */
        open_close_all(s->t);
        return ERR_OK;
    }
    if (slice_is(v, "\"inventory\"")) {
        s->t->inventory = s->seq;
        s->t->has_inventory = true;
    }
    return is_change(v) ? on_change(s) : ERR_OK;
}

err_code tally_scan(tally *t, ledger *l, err *e) {
    scan s = {.t = t, .l = l, .e = e};
    buf entry = {.max = LEDGER_ENTRY_MAX};
    err_code rc = ERR_OK;
    for (s.seq = t->from; s.seq < t->to && !rc; s.seq++) {
        buf_reset(&entry);
        rc = ledger_read(l, s.seq, &entry, e);
        if (rc) break;
        read_fields(&s.f, &entry);
        moment *m = t->records++ ? &t->last : &t->first;
        m->seq = s.seq;
        slice_text(s.f.time, m->time, sizeof m->time);
        rc = on_entry(&s);
    }
    if (t->records == 1) t->last = t->first;
    buf_free(&entry);
    open_close_all(t);
    t->complete = t->complete && !t->workloads.over && !t->flows.over && !t->faces.over && !t->others.over;
    return rc;
}

/* ---- where to begin ---------------------------------------------------------------------------------------- */

static err_code entry_fields(ledger *l, uint64_t seq, buf *entry, fields *f, err *e) {
    buf_reset(entry);
    err_code rc = ledger_read(l, seq, entry, e);
    if (!rc) read_fields(f, entry);
    return rc;
}

static bool is_time(const char *s) {
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";
    size_t n = strlen(s);
    if (n != 10 && n != 16 && n != 19 && n != 20 && n != 23 && n != 24) return false;
    for (size_t i = 0; i < n; i++) {
        bool digit = s[i] >= '0' && s[i] <= '9';
        bool zulu = n == 20 && i == 19 && s[i] == 'Z';
        if (!zulu && (form[i] == 'd' ? !digit : s[i] != form[i])) return false;
    }
    int month = 10 * (s[5] - '0') + s[6] - '0', day = 10 * (s[8] - '0') + s[9] - '0';
    return month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

/* Times of one form compare as texts. Records are in order but for the milliseconds in which groups are made, and but
 * for a clock that was put back: a halving search finds the place, and a few records before it are looked at again. */
err_code scan_since(ledger *l, const char *since, uint64_t *seq, err *e) {
    if (!is_time(since))
        return err_set(e, ERR_USAGE,
                       "\"%.40s\" is neither a day nor a time; write it as 2026-01-31 or 2026-01-31T08:00:00Z (UTC)",
                       since);
    size_t n = strlen(since) - (since[strlen(since) - 1] == 'Z');
    uint64_t lo = 0, hi = ledger_size(l);
    buf entry = {.max = LEDGER_ENTRY_MAX};
    fields f;
    char time[32];
    err_code rc = ERR_OK;
    while (lo < hi && !rc) {
        uint64_t mid = lo + (hi - lo) / 2;
        rc = entry_fields(l, mid, &entry, &f, e);
        slice_text(f.time, time, sizeof time);
        if (!rc && strncmp(time, since, n) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (uint64_t back = lo > 1024 ? lo - 1024 : 0; back < lo && !rc; back++) {
        rc = entry_fields(l, back, &entry, &f, e);
        slice_text(f.time, time, sizeof time);
        if (!rc && strncmp(time, since, n) >= 0) lo = back;
    }
    buf_free(&entry);
    *seq = lo;
    return rc;
}

err_code scan_last_inventory(ledger *l, uint64_t end, uint64_t *seq, bool *found, err *e) {
    static const char mark[] = "\"event\":\"inventory\"";
    buf entry = {.max = LEDGER_ENTRY_MAX};
    fields f;
    err_code rc = ERR_OK;
    *found = false;
    while (end > 0 && !*found && !rc) {
        buf_reset(&entry);
        rc = ledger_read(l, --end, &entry, e);
        if (rc || !memmem(buf_str(&entry), entry.len, mark, sizeof mark - 1)) continue;
        read_fields(&f, &entry);
        *found = slice_is(f.event, "\"inventory\"");
        *seq = end;
    }
    buf_free(&entry);
    return rc;
}
