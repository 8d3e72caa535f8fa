/* Sessions: the same bits however a prompt is cut, beside whom it runs, on how many threads, with which kernels; and
 * nothing changes where a step is refused. Breaks when any sum in a step depends on the batch, or when an error path
 * touches a sequence. */
#include "harness.h"

#include "base/mem.h"
#include "engine/isa.h"
#include "engine/models/models.h"
#include "engine/session_internal.h"
#include "tiny_model.h"

#include <sys/mman.h>
#include <unistd.h>

#define N_MAX 520 /* tokens of the longest prompt here */

static const tiny plain = {.n_layer = 2, .d = 64, .n_head = 4, .n_kv = 2, .head = 16, .ff = 96, .n_ctx = 512};

static model *open_tiny(const tiny *t) {
    buf b = {0};
    model *m = NULL;
    err e = {0};
    tiny_make(&b, t, 1);
    if (model_open_memory(&m, b.ptr, b.len, "tiny", &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    buf_free(&b);
    return m;
}

static model *open_shared(const char *path) {
    char full[1400];
    model *m = NULL;
    err e = {0};
    snprintf(full, sizeof full, "%s/%s", test_shared(), path);
    if (model_open(&m, full, &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    return m;
}

static void random_tokens(int32_t *t, uint32_t n, uint32_t n_vocab, uint64_t seed) {
    seed = seed * 0x9E3779B97F4A7C15u + 77;
    for (uint32_t i = 0; i < n; i++) t[i] = (int32_t)(tiny_rng(&seed) % n_vocab);
}

/* How a prompt of n tokens is run. */
typedef struct way {
    uint32_t chunk, threads, neighbours;
    isa set;
    bool last_only; /* logits of each chunk's last token alone */
} way;

static kv_format kv_held; /* by the sessions that follow */

/* The neighbours: other prompts, cut differently, going on beside. */
static uint32_t add_neighbours(const session *s, chunk *c, uint32_t n, int32_t (*tokens)[N_MAX], uint32_t round) {
    uint32_t added = 0;
    for (uint32_t i = 1; i <= n; i++) {
        uint32_t len = session_seq_len(s, (int)i), want = (i * 5 + round) % 9;
        if (want == 0 || len + want > N_MAX || len + want > session_n_ctx(s)) continue;
        c[added++] = (chunk){.seq = (int)i, .tokens = tokens[i] + len, .n = want, .n_logits = want % 2};
    }
    return added;
}

/* Logits of all n positions (rows that nobody asked for stay zero); NULL where something failed. */
static float *run(const model *m, const int32_t *tokens, uint32_t n, way w) {
    static int32_t others[16][N_MAX];
    uint32_t v = model_get_facts(m)->n_vocab, round = 0;
    float *out = mem_array((size_t)n * v, sizeof *out);
    session *s = NULL;
    err e = {0};
    bool good = false;
    session_options o = {.n_threads = w.threads, .n_seq_max = w.neighbours + 1, .kv = kv_held, .max_step_tokens = 700};
    int id;
    if (isa_select(isa_name(w.set), &e) || session_new(&s, m, &o, &e)) goto out;
    for (uint32_t i = 0; i <= w.neighbours; i++) {
        random_tokens(others[i], N_MAX, v, i + 50);
        if (session_seq_new(s, &id, &e) || id != (int)i) goto out;
    }
    for (uint32_t at = 0; at < n; round++) {
        chunk c[16];
        uint32_t k = w.chunk < n - at ? w.chunk : n - at, mine = round % 3;
        uint32_t n_chunks = add_neighbours(s, c, w.neighbours, others, round);
        if (mine > n_chunks) mine = n_chunks; /* not always the first in the batch */
        c[n_chunks++] = c[mine];
        c[mine] = (chunk){.seq = 0, .tokens = tokens + at, .n = k, .n_logits = w.last_only ? 1 : k};
        if (session_step(s, c, n_chunks, &e)) goto out;
        at += k;
        memcpy(out + (size_t)(at - c[mine].n_logits) * v, c[mine].logits, (size_t)c[mine].n_logits * v * sizeof *out);
    }
    good = true;
out:
    if (!good) fprintf(stderr, "%s\n", e.msg);
    session_free(s);
    if (good) return out;
    mem_free(out);
    return NULL;
}

static bool same_rows(const float *a, const float *b, uint32_t n, uint32_t v, way w) {
    if (!a || !b) return false;
    for (uint32_t t = 0; t < n; t++) {
        if (w.last_only && t != n - 1 && (t + 1) % w.chunk) continue;
        if (memcmp(a + (size_t)t * v, b + (size_t)t * v, v * sizeof *a) == 0) continue;
        fprintf(stderr, "position %u differs: chunk %u, %u threads, %u neighbours, %s\n", t, w.chunk, w.threads,
                w.neighbours, isa_name(w.set));
        return false;
    }
    return true;
}

/* few: only the first ways. */
static bool all_ways_agree(model *m, uint32_t n, bool few) {
    static const way ways[] = {
        {7, 2, 3, ISA_AVX2, false},    {1, 1, 0, ISA_SCALAR, true}, {64, 5, 15, ISA_AVX2, true},
        {1, 1, 0, ISA_AVX2, false},    {7, 1, 0, ISA_AVX2, false},  {64, 2, 0, ISA_AVX2, false},
        {512, 5, 0, ISA_AVX2, false},  {512, 1, 0, ISA_AVX2, true}, {7, 2, 1, ISA_AVX2, false},
        {13, 2, 3, ISA_AVX2, true},    {1, 5, 15, ISA_AVX2, false}, {64, 1, 15, ISA_AVX2, false},
        {40, 2, 3, ISA_SCALAR, false}, {1, 1, 0, ISA_SCALAR, true},
    };
    if (!m) return false;
    int32_t tokens[N_MAX];
    uint32_t v = model_get_facts(m)->n_vocab;
    random_tokens(tokens, n, v, 4);
    float *want = run(m, tokens, n, (way){512, 1, 0, ISA_SCALAR, false});
    bool good = want != NULL;
    for (isa set = ISA_AVX2; set < ISA_COUNT; set++) /* every set that is here goes the ways of AVX2 */
        for (size_t i = 0; i < (few ? 3 : sizeof ways / sizeof *ways) && good; i++) {
            way w = ways[i];
            if (w.set == ISA_AVX2) w.set = set;
            if (!isa_have(w.set) || (w.set == ISA_SCALAR && set != ISA_AVX2)) continue;
            float *got = run(m, tokens, n, w);
            good = same_rows(want, got, n, v, w);
            mem_free(got);
        }
    mem_free(want);
    model_free(m);
    return good;
}

TEST(same_bits_for_tiny_models) {
    tiny t = plain;
    CHECK(all_ways_agree(open_tiny(&t), 135, false));
    t.biases = t.tied = true;
    CHECK(all_ways_agree(open_tiny(&t), 70, false));
    t = (tiny){.n_layer = 1, .d = 32, .n_head = 6, .n_kv = 2, .head = 10, .ff = 33, .n_ctx = 200}; /* odd sizes */
    CHECK(all_ways_agree(open_tiny(&t), 70, false));
    t = (tiny){.n_layer = 2, .d = 64, .n_head = 40, .n_kv = 1, .head = 8, .ff = 64, .n_ctx = 100}; /* one kv head */
    CHECK(all_ways_agree(open_tiny(&t), 70, false));
    t = plain;
    t.type = 8;
    CHECK(all_ways_agree(open_tiny(&t), 70, false));
    t.type = 2;
    CHECK(all_ways_agree(open_tiny(&t), 70, false));
}

TEST(same_bits_for_oracle_models) {
    static const char *const paths[] = {
        "models/stories260K.gguf",        "oracle/llama3-rope/model.gguf", "oracle/llama-q4_k/model.gguf",
        "oracle/llama-q6_k/model.gguf",   "oracle/llama-q2_k/model.gguf",  "oracle/llama-q5_1/model.gguf",
        "oracle/llama-iq4_xs/model.gguf", "oracle/llama-f16/model.gguf",   "oracle/llama-bf16/model.gguf"};
    if (!test_shared()) SKIP("../shared is absent");
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        CHECK(all_ways_agree(open_shared(paths[i]), i == 0 ? 500 : 70, i != 1));
}

/* How far logits move with pages of int8: rms of the difference over the logits' own; -1 where no bit does. */
static double moves(const model *m, uint32_t n) {
    int32_t tokens[N_MAX];
    uint32_t v = model_get_facts(m)->n_vocab;
    way w = {512, 1, 0, ISA_SCALAR, false};
    double moved = 0, all = 0;
    random_tokens(tokens, n, v, 4);
    kv_held = KV_F16;
    float *a = run(m, tokens, n, w);
    kv_held = KV_Q8;
    float *b = run(m, tokens, n, w);
    kv_held = KV_F16;
    for (size_t i = 0; a && b && i < (size_t)n * v; i++) {
        moved += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        all += (double)a[i] * (double)a[i];
    }
    double rms = !a || !b ? INFINITY : moved == 0 ? -1 : sqrt(moved / all);
    mem_free(a);
    mem_free(b);
    return rms;
}

/* Other bits than with binary16, near ones, and the same ones in every way. */
TEST(int8_pages_give_the_same_bits_in_every_way) {
    static const tiny shapes[] = {
        {.n_layer = 2, .d = 64, .n_head = 4, .n_kv = 2, .head = 16, .ff = 96, .n_ctx = 512},
        {.n_layer = 1, .d = 32, .n_head = 6, .n_kv = 2, .head = 10, .ff = 33, .n_ctx = 200},
        {.n_layer = 2, .d = 64, .n_head = 40, .n_kv = 1, .head = 8, .ff = 64, .n_ctx = 100},
        {.n_layer = 2, .d = 64, .n_head = 2, .n_kv = 1, .head = 48, .ff = 64, .n_ctx = 512, .type = 8},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        model *m = open_tiny(&shapes[i]);
        CHECK(m && m->need.page[KV_Q8] * 2 < m->need.page[KV_F16] * 3 / 2);
        double d = moves(m, 70);
        printf("     heads of %u: logits move by %.2g of their rms\n", shapes[i].head, d);
        CHECK(d > 0 && d < 0.1); /* random weights; a wrong scale or place moves them by more */
        kv_held = KV_Q8;
        bool good = all_ways_agree(m, i ? 70 : 135, false);
        kv_held = KV_F16;
        CHECK(good);
    }
}

/* A session with one sequence at len tokens, for what follows. */
typedef struct rig {
    model *m;
    session *s;
    int seq;
    int32_t tokens[N_MAX];
    uint32_t v;
    err e;
} rig;

static bool rig_up(rig *r, session_options o, uint32_t len) {
    err e = {0};
    isa_select(isa_have(ISA_AVX2) ? "avx2" : "scalar", &e);
    *r = (rig){.m = open_tiny(&plain)};
    if (!r->m) return false;
    r->v = model_get_facts(r->m)->n_vocab;
    random_tokens(r->tokens, N_MAX, r->v, 9);
    if (o.n_threads == 0) o.n_threads = 1;
    if (session_new(&r->s, r->m, &o, &r->e) || session_seq_new(r->s, &r->seq, &r->e)) return false;
    chunk c = {.seq = r->seq, .tokens = r->tokens, .n = len};
    return len == 0 || session_step(r->s, &c, 1, &r->e) == ERR_OK;
}

static void rig_down(rig *r) {
    session_free(r->s);
    model_free(r->m);
}

/* Do the logits of position `at`, computed by this session now, equal those of a fresh one? Takes one position. */
static bool continues(rig *r, uint32_t at) {
    float *want = run(r->m, r->tokens, at + 1, (way){512, 1, 0, isa_get(), false});
    chunk c = {.seq = r->seq, .tokens = r->tokens + at, .n = 1, .n_logits = 1};
    bool good = want && session_seq_len(r->s, r->seq) == at && session_step(r->s, &c, 1, &r->e) == ERR_OK &&
                memcmp(c.logits, want + (size_t)at * r->v, r->v * sizeof *want) == 0;
    mem_free(want);
    return good;
}

TEST(truncate_and_extend_equals_fresh) {
    rig r;
    static const uint32_t cuts[] = {100, 70, 64, 63, 1, 0};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        CHECK(rig_up(&r, (session_options){.n_seq_max = 2}, 150));
        session_seq_truncate(r.s, r.seq, cuts[i]);
        CHECK_INT(session_seq_len(r.s, r.seq), cuts[i]);
        chunk c = {.seq = r.seq, .tokens = r.tokens + cuts[i], .n = 160 - cuts[i]};
        CHECK_OK(session_step(r.s, &c, 1, &r.e), r.e);
        CHECK(continues(&r, 160));
        session_seq_truncate(r.s, r.seq, 500); /* longer than it is: nothing */
        CHECK_INT(session_seq_len(r.s, r.seq), 161);
        rig_down(&r);
    }
}

/* Pages that another sequence left behind, here full of NaN, have no influence: not on one that takes them over, nor on
 * one that runs beside. */
TEST(used_pages_do_not_show) {
    buf b = {0};
    rig r = {0};
    size_t at = tiny_make(&b, &plain, 1);
    memset(b.ptr + at + 5 * plain.d * sizeof(float), 0xff, plain.d * sizeof(float)); /* token 5 is NaN throughout */
    CHECK_OK(model_open_memory(&r.m, b.ptr, b.len, "tiny", &r.e), r.e);
    buf_free(&b);
    r.v = model_get_facts(r.m)->n_vocab;
    random_tokens(r.tokens, N_MAX, r.v, 9);
    int32_t poison[140];
    for (int i = 0; i < 140; i++) poison[i] = 5;
    for (int i = 0; i < N_MAX; i++) r.tokens[i] += r.tokens[i] == 5;
    CHECK_OK(session_new(&r.s, r.m, &(session_options){.n_seq_max = 2, .n_threads = 1}, &r.e), r.e);
    int other;
    CHECK_OK(session_seq_new(r.s, &other, &r.e), r.e);
    CHECK_OK(session_seq_new(r.s, &r.seq, &r.e), r.e);
    chunk c[2] = {{.seq = other, .tokens = poison, .n = 140, .n_logits = 1},
                  {.seq = r.seq, .tokens = r.tokens, .n = 90}};
    CHECK_OK(session_step(r.s, c, 2, &r.e), r.e);
    CHECK(c[0].logits[0] != c[0].logits[0]);
    CHECK(continues(&r, 90));
    session_seq_free(r.s, other);
    session_seq_free(r.s, r.seq);
    CHECK_OK(session_seq_new(r.s, &r.seq, &r.e), r.e);
    CHECK_INT(session_seq_len(r.s, r.seq), 0);
    c[1].n = 130;
    c[1].seq = r.seq;
    CHECK_OK(session_step(r.s, c + 1, 1, &r.e), r.e);
    CHECK(continues(&r, 130));
    rig_down(&r);
}

static err_code step_of(rig *r, int id, const int32_t *t, uint32_t n, uint32_t n_logits) {
    chunk c = {.seq = id, .tokens = t, .n = n, .n_logits = n_logits};
    r->e = (err){0};
    return session_step(r->s, &c, 1, &r->e);
}

TEST(refused_steps_change_nothing) {
    rig r;
    CHECK(rig_up(&r, (session_options){.n_seq_max = 3, .n_ctx = 200, .max_step_tokens = 150}, 100));
    int second;
    CHECK_OK(session_seq_new(r.s, &second, &r.e), r.e);
    uint32_t kv = session_kv_free(r.s);
    int32_t bad[3] = {1, -1, 1}, high[1] = {(int32_t)r.v};
    CHECK(step_of(&r, 7, r.tokens, 1, 1) == ERR_INVALID);
    CHECK_HAS(r.e.msg, "sequence 7");
    CHECK(step_of(&r, 2, r.tokens, 1, 1) == ERR_INVALID); /* never made */
    CHECK(step_of(&r, -1, r.tokens, 1, 1) == ERR_INVALID);
    CHECK(step_of(&r, r.seq, r.tokens, 0, 0) == ERR_INVALID);
    CHECK(step_of(&r, r.seq, r.tokens, 2, 3) == ERR_INVALID);
    CHECK(step_of(&r, r.seq, bad, 3, 1) == ERR_INVALID);
    CHECK_HAS(r.e.msg, "token -1");
    CHECK(step_of(&r, r.seq, high, 1, 1) == ERR_INVALID);
    CHECK(step_of(&r, r.seq, r.tokens, 101, 1) == ERR_TOO_LONG);
    CHECK_HAS(r.e.msg, "200");
    CHECK(step_of(&r, r.seq, r.tokens, UINT32_MAX, 1) == ERR_TOO_LONG);
    CHECK(step_of(&r, second, r.tokens, 151, 1) == ERR_INVALID); /* past max_step_tokens */
    CHECK(session_step(r.s, NULL, 0, &r.e) == ERR_INVALID);
    /* a good chunk beside a bad one, in both orders, and one sequence twice */
    chunk two[2] = {{.seq = r.seq, .tokens = r.tokens, .n = 5}, {.seq = second, .tokens = bad, .n = 2}};
    CHECK(session_step(r.s, two, 2, &r.e) == ERR_INVALID);
    chunk swapped[2] = {two[1], two[0]};
    CHECK(session_step(r.s, swapped, 2, &r.e) == ERR_INVALID);
    two[1] = two[0];
    CHECK(session_step(r.s, two, 2, &r.e) == ERR_INVALID);
    CHECK_HAS(r.e.msg, "twice");
    CHECK_INT(session_seq_len(r.s, r.seq), 100);
    CHECK_INT(session_seq_len(r.s, second), 0);
    CHECK_INT(session_kv_free(r.s), kv);
    CHECK(continues(&r, 100));
    rig_down(&r);
}

TEST(full_kv_memory_is_busy) {
    rig r;
    CHECK(rig_up(&r, (session_options){.n_seq_max = 3, .kv_positions = 192}, 65));
    CHECK_INT(session_kv_free(r.s), 64);
    int second, third, fourth;
    CHECK_OK(session_seq_new(r.s, &second, &r.e), r.e);
    CHECK_OK(session_seq_new(r.s, &third, &r.e), r.e);
    CHECK(session_seq_new(r.s, &fourth, &r.e) == ERR_BUSY);
    CHECK(step_of(&r, second, r.tokens, 65, 1) == ERR_BUSY);
    CHECK_INT(session_seq_len(r.s, second), 0);
    CHECK_OK(step_of(&r, second, r.tokens, 64, 1), r.e);
    CHECK_INT(session_kv_free(r.s), 0);
    CHECK(step_of(&r, third, r.tokens, 1, 1) == ERR_BUSY);
    CHECK_HAS(r.e.msg, "KV memory");
    CHECK_OK(step_of(&r, r.seq, r.tokens + 65, 10, 0), r.e); /* its page has room */
    session_seq_free(r.s, second);
    CHECK_INT(session_kv_free(r.s), 64);
    CHECK_OK(step_of(&r, third, r.tokens, 1, 1), r.e);
    CHECK(continues(&r, 75));
    session_seq_free(r.s, third);
    session_seq_free(r.s, third); /* once more does no harm */
    session_seq_free(r.s, r.seq);
    CHECK_INT(session_kv_free(r.s), 192);
    rig_down(&r);
}

TEST(decoding_does_not_allocate) {
    rig r;
    CHECK(rig_up(&r, (session_options){.n_seq_max = 2, .n_threads = 2}, 66));
    int64_t before = mem_count();
    uint64_t bytes = session_bytes(r.s);
    for (uint32_t i = 66; i < 128; i++) CHECK_OK(step_of(&r, r.seq, r.tokens + i, 1, 1), r.e);
    CHECK_INT(mem_count(), before);
    CHECK_INT(session_bytes(r.s), bytes);
    CHECK_OK(step_of(&r, r.seq, r.tokens, 1, 1), r.e);
    CHECK_INT(session_bytes(r.s) - bytes, r.m->need.page[KV_F16]);
    rig_down(&r);
}

/* The n-th allocation fails: an error, and the sequence goes on as if nothing had been asked. */
static size_t resident_bytes(const void *p, size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), count = 0, n_pages = n / page;
    unsigned char *there = mem_zalloc(n_pages);
    uintptr_t from = ((uintptr_t)p + page - 1) / page * page;
    if (!there || mincore((void *)from, (n_pages - 1) * page, there) != 0) count = n_pages;
    for (size_t i = 0; there && i < n_pages - 1; i++) count += there[i] & 1;
    mem_free(there);
    return count * page;
}

/* Scratch for 16,384 rows: single tokens hold little of it, also again after a prompt, and its coming and going does
 * not show. Fails when a step expects something of the one before in it. */
TEST(scratch_comes_and_goes) {
    model *m = open_tiny(&plain);
    session *a = NULL, *b = NULL;
    err e = {0};
    int id;
    int32_t tokens[N_MAX];
    session_options o = {.n_threads = 2, .n_seq_max = 1, .max_step_tokens = 16384}, few = o;
    few.max_step_tokens = 64;
    CHECK(m && session_new(&a, m, &o, &e) == ERR_OK && session_new(&b, m, &few, &e) == ERR_OK);
    CHECK(session_seq_new(a, &id, &e) == ERR_OK && session_seq_new(b, &id, &e) == ERR_OK);
    CHECK(a->scratch_bytes >= (size_t)16 << 20);
    uint32_t v = model_get_facts(m)->n_vocab;
    random_tokens(tokens, N_MAX, v, 8);
    for (uint32_t at = 0, n; at < 500; at += n) {
        n = at == 3 || at == 400 ? 60 : 1;
        chunk x = {.seq = 0, .tokens = tokens + at, .n = n, .n_logits = 1}, y = x;
        CHECK(session_step(a, &x, 1, &e) == ERR_OK && session_step(b, &y, 1, &e) == ERR_OK);
        CHECK(memcmp(x.logits, y.logits, v * sizeof *x.logits) == 0);
        bool large = (at >= 3 && at < 62 + 256) || at >= 400;
        CHECK(a->scratch_large == large);
        CHECK(large || resident_bytes(a->scratch, a->scratch_bytes) < (size_t)1 << 20);
    }
    session_rest(a);
    CHECK(!a->scratch_large && resident_bytes(a->scratch, a->scratch_bytes) < (size_t)1 << 20);
    chunk x = {.seq = 0, .tokens = tokens + 500, .n = 1, .n_logits = 1}, y = x;
    CHECK(session_step(a, &x, 1, &e) == ERR_OK && session_step(b, &y, 1, &e) == ERR_OK);
    CHECK(memcmp(x.logits, y.logits, v * sizeof *x.logits) == 0);
    session_free(a);
    session_free(b);
    model_free(m);
}

TEST(failed_allocations_in_a_step_change_nothing) {
    rig r;
    CHECK(rig_up(&r, (session_options){.n_seq_max = 2, .max_step_tokens = 300}, 60));
    int failures = 0;
    for (;;) { /* pages that came stay, so from the second round on it is the second allocation that is new */
        mem_fail_after(failures > 0);
        err_code rc = step_of(&r, r.seq, r.tokens + 60, 200, 150); /* pages, and more logits than there are rows for */
        mem_fail_after(-1);
        if (rc == ERR_OK) break;
        CHECK(rc == ERR_NOMEM);
        CHECK_INT(session_seq_len(r.s, r.seq), 60);
        failures++;
    }
    CHECK_INT(failures, 5); /* four pages and the logits */
    CHECK(continues(&r, 260));
    rig_down(&r);
}

TEST(options_are_checked) {
    model *m = open_tiny(&plain);
    CHECK(m);
    const struct {
        session_options o;
        const char *says;
    } bad[] = {{{.n_seq_max = 0}, "sequences"},
               {{.n_seq_max = 70000}, "sequences"},
               {{.n_seq_max = 1, .n_ctx = 513}, "512"},
               {{.n_seq_max = 1, .max_step_tokens = 70000}, "tokens a step"},
               {{.n_seq_max = 1, .n_threads = 5000}, "threads"},
               {{.n_seq_max = 1, .kv = KV_FORMATS}, "KV format"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        session *s = NULL;
        err e = {0};
        CHECK(session_new(&s, m, &bad[i].o, &e) == ERR_INVALID && s == NULL);
        CHECK_HAS(e.msg, bad[i].says);
    }
    session *s = NULL;
    err e = {0};
    CHECK_OK(session_new(&s, m, &(session_options){.n_seq_max = 2, .kv_positions = UINT32_MAX}, &e), e);
    CHECK_INT(session_kv_free(s), 2 * 512); /* no more than can be used */
    CHECK_INT(session_n_ctx(s), 512);
    session_free(s);
    model_free(m);
}

TEST(every_failed_allocation_of_session_new_is_an_error) {
    model *m = open_tiny(&plain);
    CHECK(m);
    int failures = 0;
    for (int64_t n = 0;; n++) {
        session *s = NULL;
        err e = {0};
        mem_fail_after(n);
        err_code rc = session_new(&s, m, &(session_options){.n_seq_max = 2, .n_threads = 3}, &e);
        mem_fail_after(-1);
        if (rc == ERR_OK) {
            session_free(s);
            break;
        }
        CHECK(rc == ERR_NOMEM && s == NULL && e.msg[0]);
        failures++;
    }
    CHECK(failures >= 9);
    model_free(m);
}

/* As many as with binary16, and one for the tiles that are spelt out. */
TEST(every_failed_allocation_with_int8_pages_is_an_error) {
    model *m = open_tiny(&plain);
    int failures[KV_FORMATS] = {0};
    CHECK(m);
    for (kv_format kv = 0; kv < KV_FORMATS; kv++)
        for (;;) {
            session *s = NULL;
            err e = {0};
            mem_fail_after(failures[kv]);
            err_code rc = session_new(&s, m, &(session_options){.n_seq_max = 2, .n_threads = 3, .kv = kv}, &e);
            mem_fail_after(-1);
            if (rc == ERR_OK) CHECK_INT(session_bytes(s) > 0, 1);
            session_free(s);
            if (rc == ERR_OK) break;
            CHECK(rc == ERR_NOMEM && s == NULL && e.msg[0]);
            failures[kv]++;
        }
    CHECK_INT(failures[KV_Q8], failures[KV_F16] + 1);
    model_free(m);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(same_bits_for_tiny_models);
    RUN(same_bits_for_oracle_models);
    RUN(int8_pages_give_the_same_bits_in_every_way);
    RUN(truncate_and_extend_equals_fresh);
    RUN(used_pages_do_not_show);
    RUN(refused_steps_change_nothing);
    RUN(full_kv_memory_is_busy);
    RUN(decoding_does_not_allocate);
    RUN(scratch_comes_and_goes);
    RUN(failed_allocations_in_a_step_change_nothing);
    RUN(options_are_checked);
    RUN(every_failed_allocation_of_session_new_is_an_error);
    RUN(every_failed_allocation_with_int8_pages_is_an_error);
    return test_end();
}
