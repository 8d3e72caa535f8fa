#include "operations/tally.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { BUCKETS = 4096 };

typedef struct open_egress {
    struct open_egress *next;
    uint32_t way, seen_as;
    uint64_t bytes;
    bool pseudonymised;
} open_egress;

/* ---- rows -------------------------------------------------------------------------------------------------- */

void key_of(uint8_t key[KEY_LEN], const char *const *parts, size_t n) {
    uint8_t digest[SHA256_LEN];
    sha256 s;
    sha256_init(&s);
    for (size_t i = 0; i < n; i++) sha256_update(&s, parts[i], strlen(parts[i]) + 1);
    sha256_final(&s, digest);
    memcpy(key, digest, KEY_LEN);
}

static uint32_t slot_of(const rows *r, const uint8_t key[KEY_LEN]) {
    uint32_t h;
    memcpy(&h, key, sizeof h); /* a part of a hash */
    h &= r->n_slots - 1;
    while (r->slots[h] && memcmp(r->keys + (size_t)(r->slots[h] - 1) * KEY_LEN, key, KEY_LEN) != 0)
        h = (h + 1) & (r->n_slots - 1);
    return h;
}

static err_code rows_grow(rows *r, err *e) {
    uint32_t cap = r->cap ? 2 * r->cap : 16;
    char *list = mem_realloc(r->list, cap * r->size);
    if (list) r->list = list;
    uint8_t *keys = list ? mem_realloc(r->keys, (size_t)cap * KEY_LEN) : NULL;
    if (keys) r->keys = keys;
    uint32_t *slots = keys ? mem_array((size_t)cap * 2, sizeof *slots) : NULL;
    if (!slots) return err_nomem(e, "an inventory");
    mem_free(r->slots);
    r->slots = slots;
    r->n_slots = 2 * cap;
    r->cap = cap;
    for (uint32_t i = 0; i < r->n; i++) r->slots[slot_of(r, r->keys + (size_t)i * KEY_LEN)] = i + 1;
    return ERR_OK;
}

err_code rows_get(rows *r, const uint8_t key[KEY_LEN], uint32_t *at, bool *made, err *e) {
    *made = false;
    *at = NONE;
    uint32_t h = r->n_slots ? slot_of(r, key) : 0;
    if (r->n_slots && r->slots[h]) {
        *at = r->slots[h] - 1;
        return ERR_OK;
    }
    if (r->n == r->limit) {
        r->over = true;
        return ERR_OK;
    }
    if (r->n == r->cap) {
        err_code rc = rows_grow(r, e);
        if (rc) return rc;
        h = slot_of(r, key);
    }
    memcpy(r->keys + (size_t)r->n * KEY_LEN, key, KEY_LEN);
    memset(r->list + r->n * r->size, 0, r->size);
    r->slots[h] = r->n + 1;
    *at = r->n++;
    *made = true;
    return ERR_OK;
}

static void rows_free(rows *r) {
    mem_free(r->list);
    mem_free(r->keys);
    mem_free(r->slots);
}

static void moment_set(moment *m, uint64_t seq, slice time) {
    m->seq = seq;
    slice_text(time, m->time, sizeof m->time);
}

void span_add(span *s, uint64_t seq, slice time) {
    if (!s->n++) moment_set(&s->first, seq, time);
    moment_set(&s->last, seq, time);
}

err_code tally_name(tally *t, const char *asked, uint32_t *at, err *e) {
    uint8_t key[KEY_LEN];
    bool made;
    KEY_OF(key, asked);
    err_code rc = rows_get(&t->workloads, key, at, &made, e);
    if (!rc && made) snprintf(tally_workload(t, *at)->name, MODEL_NAME_MAX + 1, "%s", asked);
    return rc;
}

err_code tally_way(tally *t, uint32_t asked, const char *provider, const char *target, uint32_t *at, err *e) {
    uint8_t key[KEY_LEN];
    bool made;
    *at = NONE;
    if (asked == NONE) return ERR_OK;
    KEY_OF(key, tally_workload(t, asked)->name, provider, target);
    err_code rc = rows_get(&t->flows, key, at, &made, e);
    if (rc || !made) return rc;
    flow *f = tally_flow(t, *at);
    f->workload = asked;
    snprintf(f->provider, sizeof f->provider, "%s", provider);
    snprintf(f->target, sizeof f->target, "%s", target);
    f->engine = strcmp(provider, provider_facts_engine.name) == 0;
    return ERR_OK;
}

/* ---- open requests ----------------------------------------------------------------------------------------- */

open_request *open_find(const tally *t, uint64_t seq) {
    open_request *r = t->buckets[seq % BUCKETS];
    while (r && r->seq != seq) r = r->next;
    return r;
}

err_code open_add(tally *t, uint64_t seq, uint32_t asked, err *e) {
    if (t->n_open == OPEN_LIMIT) { /* they are not all running: most were cut off long ago */
        open_close_all(t);
        t->complete = false;
    }
    open_request *r = mem_zalloc(sizeof *r);
    if (!r) return err_nomem(e, "an inventory");
    r->seq = seq;
    r->workload = asked;
    r->next = t->buckets[seq % BUCKETS];
    t->buckets[seq % BUCKETS] = r;
    t->n_open++;
    return ERR_OK;
}

err_code open_sent(open_request *r, uint32_t way, uint32_t seen_as, uint64_t bytes, bool pseudonymised, err *e) {
    open_egress *g = mem_zalloc(sizeof *g), **at = &r->egress;
    if (!g) return err_nomem(e, "an inventory");
    *g = (open_egress){.way = way, .seen_as = seen_as, .bytes = bytes, .pseudonymised = pseudonymised};
    while (*at) at = &(*at)->next;
    *at = g;
    return ERR_OK;
}

bool open_take(open_request *r, uint32_t way, uint32_t *seen_as, bool *pseudonymised) {
    for (open_egress **at = &r->egress; *at; at = &(*at)->next) {
        open_egress *g = *at;
        if (g->way != way) continue;
        *seen_as = g->seen_as;
        *pseudonymised = g->pseudonymised;
        *at = g->next;
        mem_free(g);
        return true;
    }
    return false;
}

static void maybe_add(uncertain *u, uint64_t bytes) {
    u->requests++;
    u->bytes += bytes;
}

void open_close(tally *t, open_request *r) {
    open_request **at = &t->buckets[r->seq % BUCKETS];
    while (*at != r) at = &(*at)->next;
    *at = r->next;
    while (r->egress) {
        open_egress *g = r->egress;
        if (g->way != NONE) maybe_add(&tally_flow(t, g->way)->maybe, g->bytes);
        if (g->seen_as != NONE) maybe_add(&tally_face(t, g->seen_as)->maybe, g->bytes);
        r->egress = g->next;
        mem_free(g);
    }
    mem_free(r);
    t->n_open--;
}

void open_close_all(tally *t) {
    for (size_t b = 0; t->buckets && b < BUCKETS; b++)
        while (t->buckets[b]) open_close(t, t->buckets[b]);
}

/* ---- changes ----------------------------------------------------------------------------------------------- */

err_code tally_change_add(tally *t, const change *c, err *e) {
    if (!t->changes) t->changes = mem_array(CHANGES_LIMIT, sizeof *t->changes);
    if (!t->changes) {
        mem_free(c->changes);
        return err_nomem(e, "an inventory");
    }
    change *to = &t->changes[t->changes_seen++ % CHANGES_LIMIT];
    if (t->n_changes == CHANGES_LIMIT)
        t->first_change = (t->first_change + 1) % CHANGES_LIMIT;
    else
        t->n_changes++;
    mem_free(to->changes);
    *to = *c;
    return ERR_OK;
}

/* ---- all --------------------------------------------------------------------------------------------------- */

err_code tally_init(tally *t, err *e) {
    *t = (tally){.workloads = {.size = sizeof(workload), .limit = WORKLOADS_LIMIT},
                 .flows = {.size = sizeof(flow), .limit = FLOWS_LIMIT},
                 .faces = {.size = sizeof(face), .limit = FACES_LIMIT},
                 .others = {.size = sizeof(other), .limit = OTHERS_LIMIT},
                 .complete = true};
    t->buckets = mem_array(BUCKETS, sizeof *t->buckets);
    return t->buckets ? ERR_OK : err_nomem(e, "an inventory");
}

void tally_free(tally *t) {
    open_close_all(t);
    mem_free(t->buckets);
    rows_free(&t->workloads);
    rows_free(&t->flows);
    rows_free(&t->faces);
    rows_free(&t->others);
    for (uint32_t i = 0; t->changes && i < CHANGES_LIMIT; i++) mem_free(t->changes[i].changes);
    mem_free(t->changes);
    *t = (tally){0};
}
