/* Routing: under random policies, providers, labels and outages no candidate is ever chosen that the policy does not
 * allow; POLDER_ROUTING_CASES says how many worlds are tried (5,000), POLDER_ROUTING_SEED which. */
#include "routing_world.h"

#include "inference/routing.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

typedef int (*chooser)(const routing *r, uint64_t draw);

static detector *words;
static uint64_t n_cases, n_choices, n_forbidden, n_exhausted, n_skipped;

/* ---- the property ------------------------------------------------------------------------------------------ */

typedef struct trip { /* one request's way */
    const world *w;
    dice *d;
    chooser next;
    uint64_t allowed; /* by the second evaluator */
    candidate list[CANDIDATES_MAX];
    routing r;
    breaker breakers[16];
    int64_t now_ms;
} trip;

static bool usable(const trip *t, unsigned i) {
    unsigned p = t->list[i].provider;
    bool may = p < 64 && (t->allowed >> p & 1);
    return may && !(t->r.unusable >> i & 1) && !(t->r.given_up >> i & 1) && !(t->r.closed >> p & 1);
}

/* NULL, or what is wrong about choosing i now. */
static const char *judge(const trip *t, int i) {
    bool any = false, fresh_left = false;
    unsigned best = 256, best_fresh = 256;
    for (unsigned k = 0; k < t->r.n; k++) {
        if (!usable(t, k)) continue;
        any = true;
        if (t->list[k].rank < best) best = t->list[k].rank;
        if (t->r.tried >> k & 1) continue;
        fresh_left = true;
        if (t->list[k].rank < best_fresh) best_fresh = t->list[k].rank;
    }
    if (t->r.attempts >= t->r.attempts_max) return i < 0 ? NULL : "an attempt more than there may be";
    if (i < 0) return any ? "gave up although a candidate can be used" : NULL;
    if (i >= (int)t->r.n) return "a candidate that is none";
    unsigned p = t->list[i].provider;
    if (p >= 64 || !(t->allowed >> p & 1)) return "a provider that the policy does not allow";
    if (!usable(t, (unsigned)i)) return "a candidate that cannot be used";
    if ((t->r.tried >> i & 1) && fresh_left) return "a repetition before every other one was tried";
    if (t->list[i].rank != (fresh_left ? best_fresh : best)) return "not the lowest rank";
    return NULL;
}

/* One attempt that ends somehow. false: the request is over. */
static bool attempt(trip *t, int i) {
    unsigned p = t->list[i].provider;
    breaker *b = p > 0 && p < 16 ? &t->breakers[p] : NULL;
    unsigned how = pick(t->d, 10);
    t->r.attempts++;
    t->now_ms += pick(t->d, 3000);
    if (how == 0 || how == 1) { /* answered, or nobody could do better */
        if (b) breaker_result(b, how ? BREAKER_NEITHER : BREAKER_GOOD, t->now_ms, 2);
        return false;
    }
    if (b) breaker_result(b, how < 7 ? BREAKER_BAD : BREAKER_NEITHER, t->now_ms, 2);
    if (how < 8)
        t->r.tried |= 1u << i;
    else
        t->r.given_up |= 1u << i;
    return true;
}

static const char *go(trip *t) {
    for (int step = 0; step < 400; step++) {
        t->r.closed = 0;
        for (int p = 0; p < t->w->n_providers; p++)
            if (chance(t->d, 15)) t->r.closed |= (uint64_t)1 << p; /* full now */
        for (;;) {
            int i = t->next(&t->r, roll(t->d));
            const char *bad = judge(t, i);
            if (bad) return bad;
            if (i < 0) {
                n_exhausted++;
                if (t->r.attempts >= t->r.attempts_max || chance(t->d, 50)) return NULL;
                t->now_ms += 500;
                break; /* the outages pass: ask again */
            }
            n_choices++;
            unsigned p = t->list[i].provider;
            if (p > 0 && p < 16 && !breaker_may(&t->breakers[p], t->now_ms, 1000)) {
                n_skipped++;
                t->r.closed |= (uint64_t)1 << p;
                continue;
            }
            if (!attempt(t, i)) return NULL;
            break;
        }
    }
    return NULL;
}

/* Every candidate that is allowed and can be used is tried before any comes again. */
static const char *reach_all(trip *t) {
    uint32_t want = 0, got = 0;
    t->r.closed = 0;
    t->r.tried = t->r.given_up = 0;
    t->r.attempts = 0;
    t->r.attempts_max = 32;
    for (unsigned k = 0; k < t->r.n; k++)
        if (usable(t, k)) want |= 1u << k;
    for (unsigned k = 0; k < (unsigned)__builtin_popcount(want); k++) {
        int i = t->next(&t->r, roll(t->d));
        if (i < 0 || (got >> i & 1)) return "a candidate was not reached";
        got |= 1u << i;
        t->r.tried |= 1u << i;
        t->r.attempts++;
    }
    return got == want ? NULL : "candidates that were reached are not those that can be used";
}

static void make_candidates(trip *t) {
    t->r.list = t->list;
    t->r.n = pick(t->d, CANDIDATES_MAX + 1);
    for (unsigned i = 0; i < t->r.n; i++) {
        t->list[i].provider = (uint8_t)(chance(t->d, 98) ? pick(t->d, (unsigned)t->w->n_providers) : pick(t->d, 256));
        t->list[i].rank = (uint8_t)pick(t->d, chance(t->d, 50) ? 3 : 16);
        t->list[i].weight = (uint16_t)(1 + pick(t->d, 1000));
        if (chance(t->d, 15)) t->r.unusable |= 1u << i;
    }
    t->r.attempts_max = 1 + pick(t->d, 16);
}

static const char *try_world(world *w, dice *d, chooser next, char why[300]) {
    policy *p = NULL;
    policy_table *table = NULL;
    err e = {0};
    entity_set found = {{0}};
    if (chance(d, 60))
        for (int i = (int)pick(d, 4); i > 0; i--) entity_set_add(&found, pick(d, ENT_BUILT_IN));
    bool has_level = chance(d, 70), failed = chance(d, 10);
    sensitivity start = {has_level ? (uint8_t)pick(d, w->labels.n) : 0, (uint8_t)(chance(d, 40) ? pick(d, 8) : 0)};
    const char *bad = NULL;
    if (policy_parse(&p, &w->labels, words, w->text, w->len, "policy", &e) != ERR_OK ||
        policy_compile(&table, p, w->providers, (size_t)w->n_providers, &e) != ERR_OK) {
        snprintf(why, 300, "%s", e.msg);
        bad = why;
    } else {
        sensitivity v = policy_label(p, start, has_level, &found, failed);
        sensitivity mine = world_label(w, start, has_level, &found, failed);
        trip t = {.w = w, .d = d, .next = next, .allowed = world_allowed(w, mine)};
        if (v.level != mine.level || v.flags != mine.flags) bad = "the label is another one";
        t.r.allowed = policy_allowed(table, v);
        if (!bad && t.r.allowed != t.allowed) bad = "the table allows other providers";
        if (!t.allowed) n_forbidden++;
        for (int i = 0; i < 16; i++) breaker_init(&t.breakers[i]);
        make_candidates(&t);
        if (!bad) bad = go(&t);
        if (!bad) bad = reach_all(&t);
        for (int i = 0; i < 16; i++) breaker_destroy(&t.breakers[i]);
    }
    policy_table_free(table);
    policy_free(p);
    return bad;
}

static const char *try_worlds(uint64_t n, uint64_t seed, chooser next, bool loud) {
    static world w;
    static char why[300];
    for (uint64_t k = 0; k < n; k++) {
        dice d = {seed * 1000003 + k};
        world_make(&d, &w);
        n_cases++;
        const char *bad = try_world(&w, &d, next, why);
        if (!bad) continue;
        if (loud)
            fprintf(stderr, "seed %llu, case %llu: %s\n%s\n", (unsigned long long)seed, (unsigned long long)k, bad,
                    w.text);
        return bad;
    }
    return NULL;
}

static uint64_t setting(const char *name, uint64_t def) {
    const char *s = getenv(name);
    return s ? strtoull(s, NULL, 10) : def;
}

/* Breaks where any stage from a policy's text to the choice lets a provider through that the policy's meaning does
 * not: the label, the table, or the choice under outages. */
TEST(routing_never_leaves_the_allowed_set) {
    n_cases = n_choices = n_forbidden = n_exhausted = n_skipped = 0;
    const char *bad =
        try_worlds(setting("POLDER_ROUTING_CASES", 5000), setting("POLDER_ROUTING_SEED", 1), routing_next, true);
    if (bad) FAIL("%s", bad);
    printf(
        "%llu policies: %llu choices, all allowed; nobody allowed in %llu; %llu times none was left, %llu passed over "
        "by a breaker\n",
        (unsigned long long)n_cases, (unsigned long long)n_choices, (unsigned long long)n_forbidden,
        (unsigned long long)n_exhausted, (unsigned long long)n_skipped);
    /* the worlds are not all of one kind */
    CHECK(n_choices > n_cases / 2 && n_forbidden > n_cases / 20 && n_forbidden < n_cases * 9 / 10);
    CHECK(n_exhausted > n_cases / 20 && n_skipped > n_cases / 50);
}

/* ---- the property sees what it is for ----------------------------------------------------------------------- */

static int ignores_policy(const routing *r, uint64_t draw) {
    routing x = *r;
    x.allowed = ~(uint64_t)0;
    return routing_next(&x, draw);
}
static int ignores_policy_at_last(const routing *r, uint64_t draw) { /* the fallback that crosses the region */
    int i = routing_next(r, draw);
    return i >= 0 ? i : ignores_policy(r, draw);
}
static int ignores_outages(const routing *r, uint64_t draw) {
    routing x = *r;
    x.closed = 0;
    return routing_next(&x, draw);
}
static int ignores_ranks(const routing *r, uint64_t draw) {
    static _Thread_local candidate list[CANDIDATES_MAX];
    routing x = *r;
    for (unsigned i = 0; i < r->n; i++) {
        list[i] = r->list[i];
        list[i].rank = 0;
    }
    x.list = list;
    return routing_next(&x, draw);
}
static int forgets_tried(const routing *r, uint64_t draw) {
    routing x = *r;
    x.tried = 0;
    return routing_next(&x, draw);
}
static int repeats_given_up(const routing *r, uint64_t draw) {
    routing x = *r;
    x.given_up = 0;
    return routing_next(&x, draw);
}
static int never_repeats(const routing *r, uint64_t draw) {
    routing x = *r;
    x.given_up |= x.tried;
    return routing_next(&x, draw);
}
static int forgets_the_bound(const routing *r, uint64_t draw) {
    routing x = *r;
    x.attempts = 0;
    return routing_next(&x, draw);
}

TEST(routing_property_finds_broken_choosers) {
    static const struct {
        chooser next;
        const char *finds;
    } broken[] = {{ignores_policy, "policy does not allow"},
                  {ignores_policy_at_last, "policy does not allow"},
                  {ignores_outages, "cannot be used"},
                  {ignores_ranks, "lowest rank"},
                  {forgets_tried, "not reached"},
                  {repeats_given_up, "cannot be used"},
                  {never_repeats, "gave up"},
                  {forgets_the_bound, "attempt more"}};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        CHECK_HAS(try_worlds(3000, 7, broken[i].next, false), broken[i].finds);
}

/* ---- weights, ranks ---------------------------------------------------------------------------------------- */

/* Breaks where weights are not respected among those that are left, or a lower rank is not preferred always. */
TEST(routing_weights_hold) {
    candidate list[6] = {{1, 0, 1, ""},    {2, 0, 2, ""},    {3, 0, 7, ""},
                         {4, 0, 1000, ""}, {5, 1, 1000, ""}, {6, 0, 90, ""}};
    routing r = {.list = list, .n = 6, .allowed = 0x7f & ~(1u << 6), .closed = 1u << 4, .attempts_max = 4};
    enum { N = 200000 };
    uint32_t n[6] = {0};
    dice d = {42};
    for (int k = 0; k < N; k++) n[routing_next(&r, roll(&d))]++;
    CHECK_INT(n[3] + n[4] + n[5], 0); /* closed, a higher rank, not allowed */
    for (int i = 0; i < 3; i++) {
        double p = list[i].weight / 10.0, sigma = sqrt(N * p * (1 - p));
        CHECK(fabs(n[i] - N * p) < 5 * sigma);
    }
    r.tried = 1u << 2; /* the heaviest has failed: 1 to 2 between the others */
    memset(n, 0, sizeof n);
    for (int k = 0; k < N; k++) n[routing_next(&r, roll(&d))]++;
    CHECK_INT(n[2], 0);
    CHECK(fabs(n[0] - N / 3.0) < 5 * sqrt(N * 2 / 9.0));
}

/* Breaks where hostile numbers lead outside of the list or into undefined shifts. */
TEST(routing_takes_any_numbers) {
    candidate list[CANDIDATES_MAX] = {{255, 255, 0, ""}, {64, 0, 0, ""}, {63, 255, 0, ""}};
    routing r = {.list = list, .n = 3, .allowed = ~(uint64_t)0, .attempts_max = UINT32_MAX};
    for (uint64_t draw = 0; draw < 10; draw++) CHECK_INT(routing_next(&r, UINT64_MAX - draw), 2);
    r.n = 0;
    CHECK_INT(routing_next(&r, 1), -1);
    r.n = 3;
    r.attempts = r.attempts_max;
    CHECK_INT(routing_next(&r, 1), -1);
}

/* ---- the breaker ------------------------------------------------------------------------------------------- */

TEST(breaker_opens_probes_and_closes) {
    breaker b;
    breaker_init(&b);
    for (int i = 0; i < 4; i++) {
        CHECK(breaker_may(&b, 0, 1000));
        breaker_result(&b, i == 1 ? BREAKER_GOOD : BREAKER_BAD, 0, 3);
        CHECK(!breaker_is_open(&b)); /* the good one in between counts */
    }
    breaker_result(&b, BREAKER_NEITHER, 0, 3);
    breaker_result(&b, BREAKER_BAD, 100, 3);
    CHECK(breaker_is_open(&b));
    CHECK(!breaker_may(&b, 1099, 1000));
    breaker_result(&b, BREAKER_BAD, 1000, 3); /* of a request from before: does not prolong it */
    CHECK(breaker_may(&b, 1100, 1000));
    CHECK(!breaker_may(&b, 1100, 1000)); /* one probe */
    breaker_result(&b, BREAKER_BAD, 1200, 3);
    CHECK(!breaker_may(&b, 2199, 1000));
    CHECK(breaker_may(&b, 2200, 1000));
    breaker_result(&b, BREAKER_NEITHER, 2300, 3); /* the probe told nothing: the next one probes */
    CHECK(breaker_is_open(&b));
    CHECK(breaker_may(&b, 2300, 1000));
    breaker_result(&b, BREAKER_GOOD, 2400, 3);
    CHECK(!breaker_is_open(&b));
    CHECK(breaker_may(&b, 2400, 1000) && breaker_may(&b, 2400, 1000));
    breaker_result(&b, BREAKER_BAD, 2500, 1);
    CHECK(breaker_is_open(&b));
    breaker_result(&b, BREAKER_GOOD, 2600, 1); /* of a request from before: the provider answers */
    CHECK(!breaker_is_open(&b));
    breaker_destroy(&b);
}

static breaker shared;
static atomic_int let_through;

static void *knock(void *arg) {
    for (int i = 0; i < 2000; i++)
        if (breaker_may(&shared, 5000, 1000)) atomic_fetch_add(&let_through, 1);
    return NULL;
}

/* Breaks where two threads are both the probe. */
TEST(breaker_lets_one_probe_through) {
    pthread_t threads[4];
    breaker_init(&shared);
    breaker_result(&shared, BREAKER_BAD, 0, 1);
    atomic_store(&let_through, 0);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, knock, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    CHECK_INT(atomic_load(&let_through), 1);
    breaker_destroy(&shared);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    err e = {0};
    if (detector_new(&words, NULL, 0, NULL, &e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    RUN(routing_never_leaves_the_allowed_set);
    RUN(routing_property_finds_broken_choosers);
    RUN(routing_weights_hold);
    RUN(routing_takes_any_numbers);
    RUN(breaker_opens_probes_and_closes);
    RUN(breaker_lets_one_probe_through);
    detector_free(words);
    return test_end();
}
