/* Prefixes that sequences share: the same bits cold, hot, in any cut; spaces apart; budgets; marks; failed allocations;
 * and long random histories against computing everything from scratch. Breaks when a page is written that others read,
 * when a state or a page is given to the wrong tokens, when anything is counted wrong, or when an error loses a page.
 */
#include "kept_models.h"

#include "engine/session_internal.h"

#define N 230 /* tokens of a document: three whole pages, and some */

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
    if (session_seq_len(s, id) != reused || !go_on(s, id, tokens, reused, n, in, want)) return UINT32_MAX;
    session_seq_keep(s, id, space, tokens, n);
    session_seq_free(s, id);
    return reused;
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

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(what_is_found_gives_the_same_bits);
    return test_end();
}
