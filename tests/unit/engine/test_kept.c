/* Prefixes that sequences share: the same bits cold, hot, in any cut; spaces apart; budgets; marks; failed allocations;
 * and long random histories against computing everything from scratch. Breaks when a page is written that others read,
 * when a state or a page is given to the wrong tokens, when anything is counted wrong, or when an error loses a page.
 */
#include "kept_models.h"

#include "engine/session_internal.h"

#define N        230 /* tokens of a document: three whole pages, and some */
#define HEAD_LEN 128 /* of saved prefixes */

static const uint8_t space_a[32] = {1}, space_b[32] = {2};

static session *open_session(const model *m, session_options o) {
    session *s = NULL;
    err e = {0};
    if (!o.n_threads) o.n_threads = 1;
    if (!o.n_seq_max) o.n_seq_max = 4;
    if (session_new(&s, m, &o, &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    return s;
}

static session_options keeping(const model *m, uint32_t positions, uint32_t checkpoints) {
    return (session_options){.keep_positions = positions,
                             .keep_state_bytes = (model_get_facts(m)->state_bytes + CHECKPOINT_HEAD) * checkpoints};
}

/* Run tokens [at, n) of a sequence in chunks, cut where checkpoints are due; false where a row differs from `want` (all
 * rows of all n tokens, or NULL). */
static bool go_on(session *s, int id, const int32_t *tokens, uint32_t at, uint32_t n, uint32_t in, const float *want) {
    size_t v = session_width(s);
    err e = {0};
    while (at < n) {
        chunk c = {.seq = id, .tokens = tokens + at, .n = in < n - at ? in : n - at};
        c.n = c.n_logits = session_seq_cut(s, id, c.n);
        if (session_step(s, &c, 1, &e) != ERR_OK) {
            fprintf(stderr, "position %u: %s\n", at, e.msg);
            return false;
        }
        if (want && memcmp(c.logits, want + at * v, c.n * v * sizeof *want) != 0) {
            fprintf(stderr, "positions %u to %u: other bits\n", at, at + c.n);
            return false;
        }
        at += c.n;
    }
    return true;
}

/* A whole prompt: begins with what is kept, runs the rest, keeps all, ends. UINT32_MAX where bits differ. */
static uint32_t ask(session *s, const uint8_t *space, const int32_t *tokens, uint32_t n, uint32_t in,
                    const float *want) {
    int id;
    uint32_t reused = 0;
    err e = {0};
    if (session_seq_new_with(s, &id, space, tokens, n, &reused, &e) != ERR_OK) return UINT32_MAX;
    bool good = session_seq_len(s, id) == reused && go_on(s, id, tokens, reused, n, in, want);
    if (good) session_seq_keep(s, id, space, tokens, n);
    session_seq_free(s, id);
    return good ? reused : UINT32_MAX;
}

static bool hot_equals_cold(const model *m) {
    static const uint32_t cuts[] = {1, 7, 64, 200, 512};
    int32_t tokens[N];
    kind_tokens(m, tokens, N, 3);
    float *want = kind_from_scratch(m, tokens, N);
    bool good = want != NULL;
    for (size_t i = 0; good && i < 5; i++) {
        session *s = open_session(m, keeping(m, 4096, 16));
        uint32_t all = session_kv_free(s);
        good = ask(s, space_a, tokens, N, cuts[i], want) == 0 && session_kept_len(s, space_a, tokens, N) == 192 &&
               session_kept_len(s, space_a, tokens, 192) == 128 && session_kept_len(s, space_b, tokens, N) == 0;
        for (size_t k = 0; good && k < 5; k++) good = ask(s, space_a, tokens, N, cuts[k], want) == 192;
        good = good && ask(s, space_a, tokens, 150, 9, want) == 128 && ask(s, space_b, tokens, N, 100, want) == 0;
        good = good && session_kv_free(s) == all;
        session_free(s);
    }
    mem_free(want);
    return good;
}

TEST(what_is_found_gives_the_same_bits) {
    for (size_t i = 0; i < N_KINDS; i++) {
        if (kinds[i].oracle && !test_shared()) continue;
        model *m = kind_open(&kinds[i]);
        bool good = m && hot_equals_cold(m);
        printf("     %-15s cold, hot, in chunks of 1, 7, 64, 200, 512: %s\n", kinds[i].name, good ? "=" : "differs");
        model_free(m);
        CHECK(good);
    }
}

/* ---- accounts --------------------------------------------------------------------------------------------- */

static uint32_t holders(const session *s, uint32_t page) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_seq_max; i++)
        for (uint32_t p = 0; p < s->seqs[i].n_pages; p++) n += s->seqs[i].ids[p] == page;
    for (const prefix_node *at = s->tree.newest; at; at = at->older) n += at->page == page;
    return n;
}

static bool pages_add_up(const session *s) {
    size_t n_free = 0, idle = 0;
    for (uint32_t p = 0; p < s->n_made; p++) {
        uint32_t n = holders(s, p);
        if (s->all[p].refs != n) return false;
        n_free += n == 0;
        idle += n == 1 && s->all[p].kept;
    }
    for (size_t i = 0; i < s->n_free; i++)
        if (s->all[s->free_pages[i]].refs) return false;
    return n_free == s->n_free && idle == s->n_idle && s->n_idle <= s->n_keep;
}

/* Nodes in order of use; parents never later than their children; a sequence that holds a node holds those before. */
static bool nodes_add_up(const session *s) {
    size_t n = 0, checkpoints = 0;
    for (prefix_node *at = s->tree.newest; at; at = at->older) at->mark = (uint32_t)++n;
    if (n != s->tree.n) return false;
    for (const prefix_node *at = s->tree.newest; at; at = at->older) {
        uint32_t children = 0;
        for (const prefix_node *c = s->tree.newest; c; c = c->older) children += c->parent == at;
        if (children != at->n_children || !s->all[at->page].kept) return false;
        if (at->parent && (at->parent->mark > at->mark || at->depth != at->parent->depth + 1)) return false;
        if (at->parent && s->all[at->page].refs > 1 && s->all[at->parent->page].refs < 2) return false;
        if (at->state && at->state->pos != (at->depth + 1) * VEC_TILE) return false;
        checkpoints += at->state != NULL;
    }
    for (const checkpoint *c = s->spare_checkpoints; c; c = c->next) checkpoints++;
    for (uint32_t i = 0; i < s->n_seq_max; i++)
        for (const checkpoint *c = s->seqs[i].since; c; c = c->next) checkpoints++;
    return checkpoints == s->n_checkpoints && s->n_checkpoints <= s->n_checkpoints_max;
}

static bool adds_up(const session *s) {
    if (pages_add_up(s) && nodes_add_up(s)) return true;
    fprintf(stderr, "pages, nodes or checkpoints do not add up\n");
    return false;
}

/* ---- the tree --------------------------------------------------------------------------------------------- */

/* As prefix.c does it, to make two runs of tokens whose hashes are equal. */
static uint64_t mixed(uint64_t h, uint64_t x) {
    h = (h ^ x) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

static uint64_t word_at(const int32_t *tokens, size_t i) {
    uint64_t w;
    memcpy(&w, tokens + i, sizeof w);
    return w;
}

/* The hash of a first page but for its last two tokens. */
static uint64_t hash_before_end(const prefix_tree *t, const uint8_t *space, const int32_t *tokens) {
    uint64_t h = t->seed, w;
    for (size_t i = 0; i < PREFIX_SPACE; i += sizeof w) {
        memcpy(&w, space + i, sizeof w);
        h = mixed(h, w);
    }
    for (size_t i = 0; i + 2 < VEC_TILE; i += 2) h = mixed(h, word_at(tokens, i) + t->seed);
    return h;
}

TEST(equal_hashes_do_not_share) {
    prefix_tree t;
    int32_t a[VEC_TILE], b[VEC_TILE];
    prefix_init(&t);
    for (int i = 0; i < VEC_TILE; i++) {
        a[i] = i;
        b[i] = 1000 + i;
    }
    /* the last step takes h ^ (word + seed): the same for both */
    uint64_t x = hash_before_end(&t, space_a, a) ^ (word_at(a, VEC_TILE - 2) + t.seed);
    uint64_t w = (x ^ hash_before_end(&t, space_a, b)) - t.seed;
    memcpy(b + VEC_TILE - 2, &w, sizeof w);
    prefix_node *n = prefix_add(&t, NULL, space_a, a, 1);
    CHECK(n && prefix_find(&t, NULL, space_a, a) == n);
    CHECK(prefix_find(&t, NULL, space_a, b) == NULL);
    CHECK(prefix_find(&t, NULL, space_b, a) == NULL && prefix_find(&t, n, space_a, a) == NULL);
    prefix_node *o = prefix_add(&t, NULL, space_a, b, 2);
    CHECK(o && o->hash == n->hash); /* or this test tests nothing */
    CHECK(prefix_find(&t, NULL, space_a, b) == o && prefix_find(&t, NULL, space_a, a) == n);
    /* and a space whose hash is that of space_a: its first word differs, its last makes up for it */
    uint8_t other[PREFIX_SPACE] = {3};
    uint64_t h = t.seed, o_h = t.seed, word;
    for (size_t i = 0; i + 8 < PREFIX_SPACE; i += 8) {
        memcpy(&word, space_a + i, 8);
        h = mixed(h, word);
        memcpy(&word, other + i, 8);
        o_h = mixed(o_h, word);
    }
    memcpy(&word, space_a + PREFIX_SPACE - 8, 8);
    word ^= h ^ o_h;
    memcpy(other + PREFIX_SPACE - 8, &word, 8);
    CHECK(hash_before_end(&t, other, a) == hash_before_end(&t, space_a, a));
    CHECK(prefix_find(&t, NULL, other, a) == NULL);
    prefix_remove(&t, n);
    CHECK(prefix_find(&t, NULL, space_a, b) == o && prefix_find(&t, NULL, space_a, a) == NULL);
    prefix_free(&t);
}

/* ---- budgets and spaces ----------------------------------------------------------------------------------- */

typedef struct rig {
    model *m;
    session *s;
    int32_t tokens[3][N];
    float *want[3];
} rig;

static void rig_down(rig *r) {
    session_free(r->s);
    for (int i = 0; i < 3; i++) mem_free(r->want[i]);
    model_free(r->m);
}

/* Three documents; the second begins as the first does (100 tokens), the third differs from the start. */
static bool rig_up(rig *r, size_t which, session_options (*o)(const model *)) {
    *r = (rig){.m = kind_open(&kinds[which])};
    if (!r->m) return false;
    for (int i = 0; i < 3; i++) {
        kind_tokens(r->m, r->tokens[i], N, 10 + (uint64_t)i);
        if (i == 1) memcpy(r->tokens[1], r->tokens[0], 100 * sizeof **r->tokens);
        r->want[i] = kind_from_scratch(r->m, r->tokens[i], N);
    }
    r->s = open_session(r->m, o(r->m));
    return r->s && r->want[0] && r->want[1] && r->want[2];
}

static session_options roomy(const model *m) {
    return keeping(m, 4096, 16);
}
static session_options four_pages(const model *m) {
    return keeping(m, 4 * SESSION_PAGE, 16);
}
static session_options tight(const model *m) { /* one sequence of a document at a time */
    session_options o = keeping(m, 4096, 16);
    o.kv_positions = 4 * SESSION_PAGE;
    return o;
}
static session_options nothing(const model *m) {
    return (session_options){0};
}

TEST(the_least_recently_used_are_given_up_past_the_budget) {
    rig r;
    CHECK(rig_up(&r, 1, four_pages));
    for (int i = 0; i < 2; i++) CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, r.want[0]), i ? 192 : 0);
    CHECK_INT(ask(r.s, space_a, r.tokens[2], N, 64, r.want[2]), 0); /* six pages: two of the first must go */
    CHECK_INT(session_kept_len(r.s, space_a, r.tokens[0], N), 64);
    CHECK_INT(session_kept_len(r.s, space_a, r.tokens[2], N), 192);
    CHECK_INT(session_kept_facts(r.s).idle, 4 * SESSION_PAGE);
    CHECK_INT(ask(r.s, space_a, r.tokens[0], 70, 64, r.want[0]), 64); /* used now */
    CHECK_INT(ask(r.s, space_b, r.tokens[0], 70, 64, r.want[0]), 0);  /* one page more */
    CHECK_INT(session_kept_len(r.s, space_a, r.tokens[0], N), 64);
    CHECK_INT(session_kept_len(r.s, space_a, r.tokens[2], N), 128);
    CHECK(adds_up(r.s));
    rig_down(&r);
}

TEST(kept_pages_make_room_for_steps) {
    rig r;
    int id;
    CHECK(rig_up(&r, 1, tight));
    CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, r.want[0]), 0);
    CHECK_INT(session_kept_facts(r.s).idle, 192);
    CHECK_INT(session_kv_free(r.s), 4 * SESSION_PAGE);
    CHECK_INT(ask(r.s, space_a, r.tokens[2], N, 64, r.want[2]), 0);
    CHECK_INT(session_kept_len(r.s, space_a, r.tokens[0], N), 0);
    CHECK_INT(session_kept_len(r.s, space_a, r.tokens[2], N), 192);
    /* what a sequence holds is not given up */
    uint32_t reused;
    err e = {0};
    CHECK_OK(session_seq_new_with(r.s, &id, space_a, r.tokens[2], N, &reused, &e), e);
    CHECK_INT(session_kv_free(r.s), SESSION_PAGE);
    CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, NULL), UINT32_MAX);
    CHECK(adds_up(r.s) && session_seq_len(r.s, id) == 192);
    CHECK(go_on(r.s, id, r.tokens[2], 192, N, 9, r.want[2]));
    rig_down(&r);
}

TEST(nothing_is_kept_without_a_budget) {
    for (size_t i = 0; i < 4; i++) {
        rig r;
        CHECK(rig_up(&r, i, nothing));
        for (int k = 0; k < 2; k++) CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, r.want[0]), 0);
        CHECK_INT(session_kept_facts(r.s).positions, 0);
        rig_down(&r);
    }
}

TEST(spaces_do_not_meet_and_can_be_forgotten) {
    rig r;
    CHECK(rig_up(&r, 1, roomy));
    CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, r.want[0]), 0);
    CHECK_INT(ask(r.s, space_b, r.tokens[0], N, 64, r.want[0]), 0);
    CHECK_INT(ask(r.s, space_b, r.tokens[1], N, 64, r.want[1]), 64);
    session_kept_drop(r.s, space_b);
    CHECK_INT(ask(r.s, space_a, r.tokens[1], N, 64, r.want[1]), 64);
    CHECK_INT(session_kept_len(r.s, space_b, r.tokens[0], N), 0);
    CHECK(adds_up(r.s));
    session_kept_drop(r.s, NULL);
    CHECK_INT(session_kept_facts(r.s).positions, 0);
    /* one sequence, kept in two spaces: the pages stay with the first */
    int id;
    err e = {0};
    CHECK_OK(session_seq_new(r.s, &id, &e), e);
    CHECK(go_on(r.s, id, r.tokens[0], 0, N, 64, r.want[0]));
    session_seq_keep(r.s, id, space_a, r.tokens[0], 100);
    session_seq_keep(r.s, id, space_b, r.tokens[0], N);
    CHECK_INT(session_kept_len(r.s, space_b, r.tokens[0], N), 0);
    CHECK(adds_up(r.s));
    rig_down(&r);
}

/* A caller's mistake must not reach those who share. */
TEST(tokens_that_were_not_computed_are_not_kept) {
    rig r;
    int id;
    err e = {0};
    CHECK(rig_up(&r, 1, roomy));
    CHECK_OK(session_seq_new(r.s, &id, &e), e);
    CHECK(go_on(r.s, id, r.tokens[0], 0, N, 64, r.want[0]));
    session_seq_keep(r.s, id, space_a, r.tokens[1], N); /* the first page is right */
    CHECK_INT(session_kept_len(r.s, space_a, r.tokens[0], N), 64);
    CHECK_INT(session_kept_len(r.s, space_a, r.tokens[1], N), 64);
    session_seq_keep(r.s, 77, space_a, r.tokens[1], N);
    CHECK(adds_up(r.s));
    rig_down(&r);
}

/* Cut inside a page that others read, then going on elsewhere: the others must not see it. */
TEST(a_shared_page_is_copied_before_it_is_written) {
    for (size_t i = 0; i < 3; i++) {
        rig r;
        int id;
        uint32_t reused;
        err e = {0};
        CHECK(rig_up(&r, i, roomy));
        CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, r.want[0]), 0);
        CHECK_OK(session_seq_new_with(r.s, &id, space_a, r.tokens[0], N, &reused, &e), e);
        CHECK_INT(session_seq_truncate(r.s, id, 100), 100);
        CHECK(go_on(r.s, id, r.tokens[1], 100, N, 7, r.want[1]));
        CHECK(adds_up(r.s));
        CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, r.want[0]), 192);
        rig_down(&r);
    }
}

TEST(going_back_to_a_mark_undoes_guesses) {
    for (size_t i = 0; i < 4; i++) {
        rig r;
        int id;
        err e = {0};
        CHECK(rig_up(&r, i, roomy));
        CHECK_OK(session_seq_new(r.s, &id, &e), e);
        CHECK_INT(session_seq_rollback(r.s, id), 0);
        CHECK(session_seq_mark(r.s, 99, &e) == ERR_INVALID);
        uint32_t at = 90;
        CHECK(go_on(r.s, id, r.tokens[0], 0, at, 64, r.want[0]));
        for (uint32_t guess = 1; at + 5 < N; guess = guess % 9 + 1, at += 5) {
            CHECK_OK(session_seq_mark(r.s, id, &e), e);
            for (int again = 0; again < 2; again++) { /* wrong ones, of the third document */
                uint32_t n = at + guess < N ? at + guess : N;
                CHECK(go_on(r.s, id, r.tokens[2], at, n, 3, NULL));
                session_seq_keep(r.s, id, space_a, r.tokens[0], n);
                CHECK_INT(session_seq_rollback(r.s, id), at);
            }
            CHECK(go_on(r.s, id, r.tokens[0], at, at + 5, 2, r.want[0]));
            CHECK(adds_up(r.s));
        }
        /* shorter than the mark since: there is no way back to it */
        uint32_t left = session_seq_truncate(r.s, id, 10);
        CHECK(session_seq_rollback(r.s, id) == left && left <= 10);
        rig_down(&r);
    }
}

/* A model with states goes back to its last checkpoint. */
TEST(truncation_goes_back_to_a_checkpoint) {
    rig r;
    int id;
    uint32_t reused;
    err e = {0};
    CHECK(rig_up(&r, 3, roomy));
    CHECK_OK(session_seq_new_with(r.s, &id, space_a, r.tokens[0], N, &reused, &e), e);
    CHECK(go_on(r.s, id, r.tokens[0], 0, N, 50, r.want[0]));
    CHECK_INT(session_seq_truncate(r.s, id, 140), 128);
    CHECK(go_on(r.s, id, r.tokens[0], 128, 150, 4, r.want[0]));
    CHECK_INT(session_seq_truncate(r.s, id, 64), 64);
    CHECK(go_on(r.s, id, r.tokens[1], 64, N, 64, r.want[1]));
    CHECK_INT(session_seq_truncate(r.s, id, 63), 0);
    CHECK(go_on(r.s, id, r.tokens[2], 0, N, 64, r.want[2]) && adds_up(r.s));
    rig_down(&r);
}

/* Fewer checkpoints than pages: the prompt's end has one, the beginning where the distance says. */
static session_options few_checkpoints(const model *m) {
    return keeping(m, 4096, 2);
}
TEST(checkpoints_are_few_and_the_end_of_a_prompt_has_one) {
    rig r;
    CHECK(rig_up(&r, 3, few_checkpoints));
    for (int i = 0; i < 3; i++) {
        CHECK_INT(ask(r.s, space_a, r.tokens[i], N, 64, r.want[i]), 0);
        CHECK_INT(ask(r.s, space_a, r.tokens[i], N, 64, r.want[i]), 192);
        CHECK(adds_up(r.s));
    }
    CHECK_INT(session_kept_len(r.s, space_a, r.tokens[0], N), 0); /* its checkpoint was needed */
    CHECK_INT(session_kept_len(r.s, space_a, r.tokens[1], N), 192);
    rig_down(&r);
}

/* ---- disk ------------------------------------------------------------------------------------------------- */

typedef struct tape {
    buf b;
    size_t at;
    size_t room; /* writing fails past this */
} tape;

static err_code tape_put(void *ctx, const void *p, size_t n, err *e) {
    tape *t = ctx;
    if (t->b.len + n > t->room) return err_set(e, ERR_IO, "the tape ends");
    buf_append(&t->b, p, n);
    return t->b.failed ? err_nomem(e, "the tape") : ERR_OK;
}

static err_code tape_get(void *ctx, void *p, size_t n, err *e) {
    tape *t = ctx;
    if (n > t->b.len - t->at) return err_set(e, ERR_INVALID, "the tape ends");
    memcpy(p, t->b.ptr + t->at, n);
    t->at += n;
    return ERR_OK;
}

static const uint8_t me[32] = "this model";

TEST(what_is_restored_gives_the_same_bits) {
    for (size_t i = 0; i < N_KINDS; i++) {
        if (kinds[i].oracle && !test_shared()) continue;
        rig r;
        tape t = {.b = {.max = 64u << 20}, .room = SIZE_MAX};
        err e = {0};
        CHECK(rig_up(&r, i, roomy));
        CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, r.want[0]), 0);
        CHECK(ask(r.s, space_a, r.tokens[1], N, 30, r.want[1]) == 64 &&
              ask(r.s, space_b, r.tokens[2], N, 64, NULL) == 0);
        CHECK_OK(session_kept_save(r.s, me, tape_put, &t, &e), e);
        CHECK_OK(session_kept_load(r.s, me, tape_get, &t, &e), e); /* what is there stays as it is */
        CHECK(adds_up(r.s) && session_kept_facts(r.s).positions == 8 * SESSION_PAGE);
        session_free(r.s);
        r.s = open_session(r.m, roomy(r.m));
        t.at = 0;
        CHECK_OK(session_kept_load(r.s, me, tape_get, &t, &e), e);
        CHECK(adds_up(r.s) && t.at == t.b.len);
        CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, r.want[0]), 192);
        CHECK_INT(ask(r.s, space_a, r.tokens[1], N, 7, r.want[1]), 192);
        CHECK_INT(ask(r.s, space_b, r.tokens[2], N, 1, r.want[2]), 192);
        CHECK_INT(ask(r.s, space_b, r.tokens[0], N, 64, r.want[0]), 0);
        printf("     %-15s restored from %zu bytes: =\n", kinds[i].name, t.b.len);
        buf_free(&t.b);
        rig_down(&r);
    }
}

/* The table's row of one model: the whole prompt in a session that keeps nothing against cold, hot, and restored. */
static bool oracle_row(const char *name) {
    const kind k = {name, name, 0};
    int32_t tokens[N];
    tape t = {.b = {.max = 64u << 20}, .room = SIZE_MAX};
    err e = {0};
    model *m = kind_open(&k);
    if (!m) return false;
    kind_tokens(m, tokens, N, 3);
    float *want = kind_from_scratch(m, tokens, N);
    session *s = open_session(m, roomy(m)), *later = open_session(m, roomy(m));
    bool cold = want && s && ask(s, space_a, tokens, N, 64, want) == 0;
    bool hot = cold && ask(s, space_a, tokens, N, 7, want) == 192;
    bool restored = later && session_kept_save(s, me, tape_put, &t, &e) == ERR_OK &&
                    session_kept_load(later, me, tape_get, &t, &e) == ERR_OK &&
                    ask(later, space_a, tokens, N, 64, want) == 192;
    printf("     %-15s cold %s  hot %s  restored %s\n", name, cold ? "=" : "differs", hot ? "=" : "differs",
           restored ? "=" : "differs");
    session_free(s);
    session_free(later);
    mem_free(want);
    buf_free(&t.b);
    model_free(m);
    return cold && hot && restored;
}

TEST(oracle_models_cold_hot_and_restored) {
    static const char *const names[] = {
        "llama-f32",    "llama-f16",    "llama-bf16",    "llama-q8_0", "llama-q4_0", "llama-q4_1",  "llama-q5_0",
        "llama-q5_1",   "llama-q2_k",   "llama-q3_k",    "llama-q4_k", "llama-q5_k", "llama-q6_k",  "llama-iq4_nl",
        "llama-iq4_xs", "llama3-rope",  "mixtral",       "qwen2",      "qwen3",      "qwen3moe",    "mistral3",
        "phi3",         "gemma2",       "gemma3",        "gemma4",     "gpt-oss",    "gpt-oss-f32", "deepseek2-lite",
        "deepseek2-v3", "deepseek2-k2", "deepseek2-kvb", "qwen3next",  "qwen35",
    };
    bool all = true;
    if (!test_shared()) SKIP("the oracle models are not here");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) all = oracle_row(names[i]) && all;
    CHECK(all);
}

static bool holds_nothing_wrong(rig *r) {
    return adds_up(r->s) && ask(r->s, space_a, r->tokens[0], N, 64, r->want[0]) != UINT32_MAX &&
           ask(r->s, space_a, r->tokens[1], N, 64, r->want[1]) != UINT32_MAX && adds_up(r->s);
}

static session_options roomy_int8(const model *m) {
    session_options o = roomy(m);
    o.kv = KV_Q8;
    return o;
}

/* Pages of one kind are of no use to a session of the other: a sentence, and it computes all itself. */
TEST(files_of_another_kv_format_are_refused) {
    session_options (*const options[])(const model *) = {roomy, roomy_int8};
    for (int from = 0; from < 2; from++) {
        rig r;
        tape t = {.b = {.max = 64u << 20}, .room = SIZE_MAX};
        err e = {0};
        CHECK(rig_up(&r, 1, options[from]));
        CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, NULL), 0);
        CHECK_OK(session_kept_save(r.s, me, tape_put, &t, &e), e);
        session_free(r.s);
        r.s = open_session(r.m, options[!from](r.m));
        CHECK_INT(session_kept_load(r.s, me, tape_get, &t, &e), ERR_UNSUPPORTED);
        CHECK_HAS(e.msg, "inference.kv");
        CHECK_INT(session_kept_facts(r.s).positions, 0);
        CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, from ? r.want[0] : NULL), 0);
        session_free(r.s);
        r.s = open_session(r.m, options[from](r.m));
        t.at = 0;
        CHECK_OK(session_kept_load(r.s, me, tape_get, &t, &e), e);
        CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, from ? NULL : r.want[0]), 192);
        CHECK(adds_up(r.s));
        buf_free(&t.b);
        rig_down(&r);
    }
}

/* Every byte flipped, every length: an error with a sentence (or less of it, where only the end is gone), and what was
 * taken is right. */
TEST(damaged_files_are_refused) {
    rig r;
    tape t = {.b = {.max = 64u << 20}, .room = SIZE_MAX};
    err e = {0};
    CHECK(rig_up(&r, 1, roomy));
    CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, r.want[0]), 0);
    CHECK_INT(ask(r.s, space_a, r.tokens[1], N, 64, r.want[1]), 64);
    CHECK_OK(session_kept_save(r.s, me, tape_put, &t, &e), e);
    size_t whole = t.b.len, stride = whole / 300;
    for (size_t at = 0; at < whole; at += at < 700 ? 1 : stride) {
        session_kept_drop(r.s, NULL);
        t.b.ptr[at] ^= 4;
        t.at = 0;
        err_code rc = session_kept_load(r.s, me, tape_get, &t, &e);
        t.b.ptr[at] ^= 4;
        if (rc != ERR_CORRUPT && rc != ERR_INVALID && rc != ERR_UNSUPPORTED) FAIL("byte %zu: %s", at, err_name(rc));
        if (at % 50 == 0) CHECK(holds_nothing_wrong(&r));
        session_kept_drop(r.s, NULL);
        t.b.len = at;
        t.at = 0;
        CHECK(session_kept_load(r.s, me, tape_get, &t, &e) == ERR_INVALID);
        t.b.len = whole;
        if (at % 50 == 0) CHECK(holds_nothing_wrong(&r));
    }
    session_kept_drop(r.s, NULL);
    t.at = 0;
    CHECK(session_kept_load(r.s, space_a, tape_get, &t, &e) == ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "another model");
    for (size_t room = 0; room < whole; room += stride) {
        tape full = {.b = {.max = 64u << 20}, .room = room};
        CHECK(session_kept_save(r.s, me, tape_put, &full, &e) == (room < HEAD_LEN ? ERR_IO : ERR_OK));
        buf_free(&full.b);
    }
    buf_free(&t.b);
    rig_down(&r);
}

TEST(a_smaller_budget_takes_what_was_used_last) {
    rig r;
    tape t = {.b = {.max = 64u << 20}, .room = SIZE_MAX};
    err e = {0};
    CHECK(rig_up(&r, 1, roomy));
    CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, r.want[0]), 0);
    CHECK_INT(ask(r.s, space_a, r.tokens[2], N, 64, r.want[2]), 0);
    CHECK_OK(session_kept_save(r.s, me, tape_put, &t, &e), e);
    session_free(r.s);
    r.s = open_session(r.m, four_pages(r.m));
    CHECK_OK(session_kept_load(r.s, me, tape_get, &t, &e), e);
    CHECK_INT(session_kept_len(r.s, space_a, r.tokens[2], N), 192);
    CHECK_INT(session_kept_len(r.s, space_a, r.tokens[0], N), 64);
    CHECK(adds_up(r.s));
    buf_free(&t.b);
    rig_down(&r);
}

TEST(files_are_replaced_as_a_whole) {
    rig r;
    err e = {0};
    char folder[] = "/tmp/polder-kept-XXXXXX", path[64], beside[64];
    CHECK(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/kept", folder);
    snprintf(beside, sizeof beside, "%s/kept.new", folder);
    CHECK(rig_up(&r, 1, roomy));
    CHECK(session_kept_load_file(r.s, me, path, &e) == ERR_NOT_FOUND);
    CHECK_OK(session_kept_save_file(r.s, me, path, &e), e);
    CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, r.want[0]), 0);
    CHECK_OK(session_kept_save_file(r.s, me, path, &e), e);
    CHECK(access(beside, F_OK) != 0);
    session_kept_drop(r.s, NULL);
    CHECK_OK(session_kept_load_file(r.s, me, path, &e), e);
    CHECK_INT(ask(r.s, space_a, r.tokens[0], N, 64, r.want[0]), 192);
    CHECK(truncate(path, 5000) == 0);
    CHECK(session_kept_load_file(r.s, me, path, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, path);
    snprintf(beside, sizeof beside, "%s/none/kept", folder);
    CHECK(session_kept_save_file(r.s, me, beside, &e) != ERR_OK);
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
    rig_down(&r);
}

/* ---- failures --------------------------------------------------------------------------------------------- */

/* One history with the n-th allocation failing, for every n: what fails says so, what does not gives the right bits,
 * and no page is lost. */
static bool history_with_failure(rig *r, int64_t fail, bool *failed) {
    err e = {0};
    int id[2] = {-1, -1};
    uint32_t reused[2] = {0};
    tape t = {.b = {.max = 64u << 20}, .room = SIZE_MAX};
    session_kept_drop(r->s, NULL);
    bool good = true;
    mem_fail_after(fail);
    int64_t before = mem_count();
    for (int i = 0; i < 2 && good; i++) {
        if (session_seq_new_with(r->s, &id[i], space_a, r->tokens[i], N, &reused[i], &e) != ERR_OK) {
            good = e.code == ERR_NOMEM;
            continue;
        }
        if (!go_on(r->s, id[i], r->tokens[i], reused[i], N, 64, r->want[i])) continue; /* says what failed */
        session_seq_keep(r->s, id[i], space_a, r->tokens[i], N);
        if (session_seq_mark(r->s, id[i], &e) != ERR_OK) good = e.code == ERR_NOMEM;
    }
    bool saved = session_kept_save(r->s, me, tape_put, &t, &e) == ERR_OK;
    if (!saved) good = good && e.code == ERR_NOMEM;
    session_kept_drop(r->s, NULL);
    if (saved && session_kept_load(r->s, me, tape_get, &t, &e) != ERR_OK) good = good && e.code == ERR_NOMEM;
    *failed = mem_count() - before > fail;
    mem_fail_after(-1);
    good = good && adds_up(r->s);
    for (int i = 0; i < 2; i++) session_seq_free(r->s, id[i]);
    for (int i = 0; i < 2 && good; i++) good = ask(r->s, space_a, r->tokens[i], N, 64, r->want[i]) != UINT32_MAX;
    buf_free(&t.b);
    return good && adds_up(r->s);
}

TEST(failed_allocations_lose_nothing) {
    for (size_t i = 1; i < 4; i += 2) {
        bool failed = true;
        int n = 0;
        for (; failed; n++) {
            rig r;
            CHECK(rig_up(&r, i, roomy));
            bool good = history_with_failure(&r, n, &failed);
            rig_down(&r);
            CHECK(good);
        }
        printf("     %s: %d failed allocations\n", kinds[i].name, n - 1);
        CHECK(n > 10);
    }
}

TEST(a_session_is_not_made_without_memory) {
    model *m = kind_open(&kinds[3]);
    err e = {0};
    session *s = NULL;
    session_options o = keeping(m, 4096, 4);
    o.n_threads = 1;
    o.n_seq_max = 2;
    int n = 0;
    for (;; n++) {
        mem_fail_after(n);
        err_code rc = session_new(&s, m, &o, &e);
        mem_fail_after(-1);
        if (rc == ERR_OK) break;
        CHECK(rc == ERR_NOMEM && !s);
    }
    CHECK(n > 10);
    session_free(s);
    model_free(m);
}

/* ---- random histories ------------------------------------------------------------------------------------- */

typedef struct reader { /* a sequence and what it should hold */
    int id;
    uint32_t len, doc, prompt, mark;
    bool b, marked;
} reader;

typedef struct history {
    rig r;
    reader readers[4];
    uint64_t rng;
    uint32_t n_reused, n_steps, n_refused, n_back;
} history;

static uint32_t draw(history *h, uint32_t n) {
    return tiny_rng(&h->rng) % n;
}

static bool begin_one(history *h, reader *x) {
    err e = {0};
    uint32_t reused;
    *x = (reader){
        .doc = draw(h, 3), .prompt = draw(h, 4) ? 130 + draw(h, N - 130) : 1 + draw(h, N), .b = draw(h, 4) == 0};
    const int32_t *tokens = h->r.tokens[x->doc];
    const uint8_t *space = x->b ? space_b : space_a;
    uint32_t promised = session_kept_len(h->r.s, space, tokens, x->prompt);
    if (session_seq_new_with(h->r.s, &x->id, space, tokens, x->prompt, &reused, &e) != ERR_OK) return false;
    x->len = reused;
    h->n_reused += reused > 0;
    return reused == promised && reused < x->prompt && reused % SESSION_PAGE == 0 &&
           session_seq_len(h->r.s, x->id) == reused;
}

static bool step_some(history *h) {
    chunk c[4];
    reader *who[4];
    err e = {0};
    uint32_t n = 0, before[4];
    size_t v = session_width(h->r.s);
    for (int i = 0; i < 4; i++) {
        reader *x = &h->readers[i];
        before[i] = x->len;
        if (x->id < 0 || x->len == N || draw(h, 3) == 0) continue;
        uint32_t most = N - x->len, k = 1 + draw(h, draw(h, 2) ? 5 : 120);
        k = session_seq_cut(h->r.s, x->id, k < most ? k : most);
        who[n] = x;
        c[n++] = (chunk){.seq = x->id, .tokens = h->r.tokens[x->doc] + x->len, .n = k, .n_logits = k};
    }
    if (n == 0) return true;
    err_code rc = session_step(h->r.s, c, n, &e);
    for (uint32_t i = 0; rc == ERR_OK && i < n; i++) {
        reader *x = who[i];
        if (memcmp(c[i].logits, h->r.want[x->doc] + x->len * v, c[i].n * v * sizeof(float)) != 0) return false;
        x->len += c[i].n;
    }
    h->n_steps += rc == ERR_OK;
    h->n_refused += rc == ERR_BUSY;
    for (int i = 0; rc != ERR_OK && i < 4; i++)
        if (h->readers[i].id >= 0 && session_seq_len(h->r.s, h->readers[i].id) != before[i]) return false;
    return rc == ERR_OK || rc == ERR_BUSY;
}

static bool go_back(history *h, reader *x) {
    err e = {0};
    uint32_t at = draw(h, x->len + 1); /* most often near the end */
    if (draw(h, 4)) at = x->len - draw(h, x->len < 40 ? x->len + 1 : 40);
    switch (draw(h, 3)) {
    case 0:
        x->len = session_seq_truncate(h->r.s, x->id, at);
        if (x->len < x->mark) x->marked = false;
        if (x->doc < 2 && x->len <= 100) x->doc = draw(h, 2); /* on with another document that begins so */
        return x->len <= at;
    case 1: x->mark = x->len; return x->marked = session_seq_mark(h->r.s, x->id, &e) == ERR_OK;
    default:
        at = x->marked ? x->mark : x->len;
        x->len = session_seq_rollback(h->r.s, x->id);
        h->n_back++;
        if (x->doc < 2 && x->len <= 100) x->doc = draw(h, 2);
        return x->len == at;
    }
}

static bool save_and_load(history *h) {
    tape t = {.b = {.max = 64u << 20}, .room = SIZE_MAX};
    err e = {0};
    bool good = session_kept_save(h->r.s, me, tape_put, &t, &e) == ERR_OK;
    if (draw(h, 2)) session_kept_drop(h->r.s, NULL);
    good = good && session_kept_load(h->r.s, me, tape_get, &t, &e) == ERR_OK;
    buf_free(&t.b);
    return good;
}

static bool one_deed(history *h) {
    reader *x = &h->readers[draw(h, 4)];
    uint32_t deed = draw(h, 100);
    if (deed == 0) session_kept_drop(h->r.s, draw(h, 2) ? space_a : NULL);
    if (deed == 1) return save_and_load(h);
    if (deed < 40) return step_some(h);
    if (x->id < 0) return begin_one(h, x);
    if (deed < 60) session_seq_keep(h->r.s, x->id, x->b ? space_b : space_a, h->r.tokens[x->doc], draw(h, N + 9));
    if (deed < 75) return step_some(h);
    if (deed < 88) return go_back(h, x);
    session_seq_free(h->r.s, x->id);
    x->id = -1;
    return true;
}

static session_options scarce(const model *m) {
    session_options o = keeping(m, 6 * SESSION_PAGE, 7);
    o.kv_positions = 13 * SESSION_PAGE;
    o.n_threads = 2;
    return o;
}

static bool random_history(size_t which, uint64_t seed, uint32_t n) {
    history h = {.rng = seed * 2654435761u + 99};
    bool good = rig_up(&h.r, which, scarce);
    for (int i = 0; i < 4; i++) h.readers[i].id = -1;
    for (uint32_t i = 0; good && i < n; i++) {
        good = one_deed(&h) && adds_up(h.r.s);
        if (!good) fprintf(stderr, "%s, seed %u: deed %u\n", kinds[which].name, (unsigned)seed, i);
    }
    if (good)
        printf("     %-15s %u steps, %u refused, %u began with something kept, %u went back: =\n", kinds[which].name,
               h.n_steps, h.n_refused, h.n_reused, h.n_back);
    rig_down(&h.r);
    return good && h.n_reused > 2;
}

TEST(long_histories_give_the_bits_of_short_ones) {
    for (size_t i = 0; i < N_KINDS; i++) {
        if (kinds[i].oracle && !test_shared()) continue;
        CHECK(random_history(i, i + 1, kinds[i].oracle ? 400 : 900));
    }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(equal_hashes_do_not_share);
    RUN(what_is_found_gives_the_same_bits);
    RUN(the_least_recently_used_are_given_up_past_the_budget);
    RUN(kept_pages_make_room_for_steps);
    RUN(nothing_is_kept_without_a_budget);
    RUN(spaces_do_not_meet_and_can_be_forgotten);
    RUN(tokens_that_were_not_computed_are_not_kept);
    RUN(a_shared_page_is_copied_before_it_is_written);
    RUN(going_back_to_a_mark_undoes_guesses);
    RUN(truncation_goes_back_to_a_checkpoint);
    RUN(checkpoints_are_few_and_the_end_of_a_prompt_has_one);
    RUN(what_is_restored_gives_the_same_bits);
    RUN(oracle_models_cold_hot_and_restored);
    RUN(files_of_another_kv_format_are_refused);
    RUN(damaged_files_are_refused);
    RUN(a_smaller_budget_takes_what_was_used_last);
    RUN(files_are_replaced_as_a_whole);
    RUN(failed_allocations_lose_nothing);
    RUN(a_session_is_not_made_without_memory);
    RUN(long_histories_give_the_bits_of_short_ones);
    return test_end();
}
