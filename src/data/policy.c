/* Labels of requests, and the table: sentences and facts → bits of providers for each level and set of flags. */
#include "data/policy_internal.h"

#include <string.h>

void policy_digest(const policy *p, uint8_t out[SHA256_LEN]) {
    memcpy(out, p->digest, SHA256_LEN);
}

void policy_default_text(const label_set *labels, buf *out) {
    buf_printf(out,
               "# An island without a policy of its own: everything stays inside the perimeter.\n"
               "allow any label to on-prem\n"
               "treat unlabelled as %s\n",
               labels->name[labels->n > 1 ? 1 : 0]);
}

static bool meets(const entity_set *a, const entity_set *b) {
    return (a->bits[0] & b->bits[0]) || (a->bits[1] & b->bits[1]);
}

sensitivity policy_label(const policy *p, sensitivity start, bool has_level, const entity_set *found,
                         bool detector_failed) {
    static const entity_set nothing = {{0}};
    sensitivity v = start;
    uint8_t top = (uint8_t)(p->labels.n - 1);
    if (!found) found = &nothing;
    if (v.level > top) v.level = top;
    v.flags &= FLAGS_ALL;
    if (!has_level && p->unlabelled > v.level) v.level = p->unlabelled;
    if (detector_failed && p->detector_error > v.level) v.level = p->detector_error;
    for (unsigned f = 0; f < FLAGS_N; f++)
        if (meets(found, &p->carries[f])) v.flags |= (uint8_t)(1u << f);
    for (const sentence *s = p->sentences; s; s = s->next) {
        if (s->kind != SENTENCE_RAISE || s->level <= v.level) continue;
        if (meets(found, &s->things) || (s->flags & v.flags)) v.level = s->level;
    }
    return v;
}

/* ---- the table --------------------------------------------------------------------------------------------- */

struct policy_table {
    uint8_t n_levels;
    uint64_t allowed[LABELS_MAX][FLAGS_ALL + 1];
    entity_set redact[LABELS_MAX][PROVIDERS_MAX];
};

static uint64_t mask_of(const place *places, const provider_facts *providers, size_t n) {
    uint64_t mask = 0;
    for (size_t i = 0; i < n; i++)
        if (places_have(places, &providers[i], i == 0)) mask |= (uint64_t)1 << i;
    return mask;
}

static void add_allow(policy_table *t, const sentence *s, uint64_t mask, size_t n) {
    for (uint8_t level = 0; level < t->n_levels; level++) {
        if (!(s->levels >> level & 1)) continue;
        t->allowed[level][0] |= mask;
        for (size_t i = 0; s->redacts && i < n; i++) {
            if (!(mask >> i & 1)) continue;
            t->redact[level][i].bits[0] |= s->things.bits[0];
            t->redact[level][i].bits[1] |= s->things.bits[1];
        }
    }
}

err_code policy_compile(policy_table **out, const policy *p, const provider_facts *providers, size_t n, err *e) {
    *out = NULL;
    if (n > PROVIDERS_MAX) return err_set(e, ERR_INVALID, "policy: more than %d providers", PROVIDERS_MAX);
    policy_table *t = mem_zalloc(sizeof *t);
    if (!t) return err_nomem(e, "the table of a policy");
    t->n_levels = p->labels.n;
    uint64_t level_bars[LABELS_MAX] = {0}, flag_bars[FLAGS_N] = {0};
    uint64_t all = n == 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1;
    for (const sentence *s = p->sentences; s; s = s->next) {
        if (s->kind != SENTENCE_ALLOW && s->kind != SENTENCE_NEVER) continue;
        uint64_t mask = mask_of(s->places, providers, n);
        if (s->kind == SENTENCE_ALLOW) {
            add_allow(t, s, mask, n);
            continue;
        }
        for (unsigned i = 0; i < p->labels.n; i++)
            if (s->levels >> i & 1) level_bars[i] |= all & ~mask;
        for (unsigned i = 0; i < FLAGS_N; i++)
            if (s->flags >> i & 1) flag_bars[i] |= all & ~mask;
    }
    for (unsigned level = 0; level < p->labels.n; level++)
        for (unsigned flags = FLAGS_ALL + 1; flags-- > 0;) { /* downwards: row 0 holds what all rows begin with */
            uint64_t bits = t->allowed[level][0] & ~level_bars[level];
            for (unsigned i = 0; i < FLAGS_N; i++)
                if (flags >> i & 1) bits &= ~flag_bars[i];
            t->allowed[level][flags] = bits;
        }
    *out = t;
    return ERR_OK;
}

void policy_table_free(policy_table *t) {
    mem_free(t);
}

uint64_t policy_allowed(const policy_table *t, sensitivity s) {
    if (s.level >= t->n_levels || s.flags > FLAGS_ALL) return 0;
    return t->allowed[s.level][s.flags];
}

const entity_set *policy_redactions(const policy_table *t, sensitivity s, size_t provider) {
    static const entity_set everything = {{~(uint64_t)0, ~(uint64_t)0}};
    if (s.level >= t->n_levels || provider >= PROVIDERS_MAX) return &everything;
    return &t->redact[s.level][provider];
}
