/* qwen3next, qwen35 and qwen35moe on small random models: against the double arithmetic of qwen35_ref.h; the state of a
 * sequence over chunks, refused steps, truncation and a place that is used again; layers that are known and left out;
 * files that contradict themselves. Breaks when a gate, a head's order or a norm computes something else, when a state
 * is not carried or not forgotten, or when a wrong file opens. */
#include "harness.h"

#include "base/mem.h"
#include "engine/models/models.h"
#include "qwen35_ref.h"

#include <math.h>

#define N 40 /* tokens of a prompt; REF_N */

/* Sizes that are no multiples of a vector, three value heads a key head, and a linear layer at the end. */
static const made dense = {.arch = "qwen35",
                           .n_layer = 5,
                           .every = 3,
                           .d = 40,
                           .n_head = 4,
                           .n_kv = 2,
                           .head = 12,
                           .n_rot = 8,
                           .ff = 56,
                           .n_k = 2,
                           .n_v = 6,
                           .dk = 12,
                           .dv = 20,
                           .taps = 4,
                           .sections = {2, 1, 1, 0}};
static const made experts = {.arch = "qwen35moe",
                             .n_layer = 4,
                             .every = 4,
                             .d = 40,
                             .n_head = 4,
                             .n_kv = 2,
                             .head = 12,
                             .n_rot = 8,
                             .n_k = 3,
                             .n_v = 6,
                             .dk = 16,
                             .dv = 16,
                             .taps = 4,
                             .n_expert = 6,
                             .n_used = 2,
                             .ff_exp = 24,
                             .ff_shared = 48,
                             .sections = {2, 1, 1, 0},
                             .tied = true};
static const made next = {.arch = "qwen3next",
                          .n_layer = 4,
                          .every = 2,
                          .d = 40,
                          .n_head = 6,
                          .n_kv = 2,
                          .head = 8,
                          .n_rot = 4,
                          .n_k = 2,
                          .n_v = 6,
                          .dk = 9,
                          .dv = 17,
                          .taps = 3,
                          .n_expert = 7,
                          .n_used = 3,
                          .ff_exp = 16,
                          .ff_shared = 32};

static model *open_made(const made *shape, uint64_t seed, made *keep) {
    static made f;
    buf b = {0};
    model *m = NULL;
    err e = {0};
    f = *shape;
    made_tensors(&f, seed);
    made_file(&b, &f);
    if (model_open_memory(&m, b.ptr, b.len, "made", &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    buf_free(&b);
    if (keep)
        *keep = f;
    else
        made_free(&f);
    return m;
}

static void prompt(int32_t *tokens, uint64_t seed) {
    for (int i = 0; i < N; i++) tokens[i] = (int32_t)(tiny_rng(&seed) % TINY_VOCAB);
}

static session *open_session(const model *m, unsigned threads, uint32_t n_seq) {
    session *s = NULL;
    err e = {0};
    session_options o = {.n_threads = threads, .n_seq_max = n_seq, .max_step_tokens = 2 * N};
    if (session_new(&s, m, &o, &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    return s;
}

/* n tokens of a sequence that has `from` of them, in chunks; logits of all rows (NULL: of none). */
static bool feed(session *s, int seq, const int32_t *tokens, uint32_t from, uint32_t n, uint32_t chunk_len,
                 float *logits) {
    err e = {0};
    for (uint32_t at = from; at < from + n; at += chunk_len) {
        uint32_t len = from + n - at < chunk_len ? from + n - at : chunk_len;
        chunk c = {.seq = seq, .tokens = tokens + at, .n = len, .n_logits = logits ? len : 0};
        if (session_step(s, &c, 1, &e) != ERR_OK) {
            fprintf(stderr, "%s\n", e.msg);
            return false;
        }
        if (logits) memcpy(logits + (size_t)at * TINY_VOCAB, c.logits, (size_t)len * TINY_VOCAB * sizeof *logits);
    }
    return true;
}

/* ---- against double arithmetic ---------------------------------------------------------------------------- */

static double worst_difference(const made *shape, uint64_t seed) {
    static double want[N * TINY_VOCAB];
    static float got[N * TINY_VOCAB];
    static made f;
    int32_t tokens[N];
    int seq;
    double worst = -1, spread = 0;
    model *m = open_made(shape, seed, &f);
    session *s = m ? open_session(m, 2, 1) : NULL;
    prompt(tokens, seed + 5);
    if (s && session_seq_new(s, &seq, NULL) == ERR_OK && feed(s, seq, tokens, 0, N, N, got)) {
        ref_logits(&f, tokens, N, want);
        worst = 0;
        for (int i = 0; i < N * TINY_VOCAB; i++) {
            double d = fabs(want[i] - (double)got[i]);
            if (!(d <= worst)) worst = d;
            spread += want[i] * want[i] / (N * TINY_VOCAB);
        }
        if (!(sqrt(spread) > 0.5 && sqrt(spread) < 20)) worst = -1; /* else the comparison would say nothing */
    }
    session_free(s);
    model_free(m);
    made_free(&f);
    return worst;
}

TEST(logits_are_those_of_double_arithmetic) {
    const made *shapes[] = {&next, &dense, &experts};
    bool all = true;
    for (int i = 0; i < 3; i++) {
        double worst = 0;
        for (uint64_t seed = 1; seed <= 6; seed++) {
            double w = worst_difference(shapes[i], seed);
            worst = w < 0 ? INFINITY : fmax(worst, w);
        }
        printf("     %-10s largest difference %.1e\n", shapes[i]->arch, worst);
        if (!(worst < 2e-4)) all = false;
    }
    CHECK(all);
}

/* ---- state ------------------------------------------------------------------------------------------------ */

static bool same_in_every_way(const made *shape) {
    static float want[N * TINY_VOCAB], got[N * TINY_VOCAB];
    static const uint32_t chunks[] = {1, 2, 3, 4, 7, 39};
    int32_t tokens[N], others[N];
    bool good = true;
    int seq[2];
    model *m = open_made(shape, 3, NULL);
    session *s = m ? open_session(m, 1, 2) : NULL;
    prompt(tokens, 1);
    prompt(others, 2);
    if (!s || session_seq_new(s, &seq[0], NULL) || !feed(s, seq[0], tokens, 0, N, N, want)) good = false;
    for (size_t i = 0; good && i < sizeof chunks / sizeof *chunks; i++) {
        session_seq_free(s, seq[0]); /* the next one gets its place */
        good = session_seq_new(s, &seq[0], NULL) == ERR_OK && feed(s, seq[0], tokens, 0, N, chunks[i], got) &&
               memcmp(want, got, sizeof want) == 0;
        if (!good) fprintf(stderr, "%s: other bits in chunks of %u\n", shape->arch, chunks[i]);
    }
    /* beside a neighbour, with two threads, and nothing asked of the first half */
    session *t = good ? open_session(m, 2, 2) : NULL;
    good = t && !session_seq_new(t, &seq[0], NULL) && !session_seq_new(t, &seq[1], NULL) &&
           feed(t, seq[0], tokens, 0, 11, 5, NULL) && feed(t, seq[1], others, 0, 7, 7, NULL);
    for (uint32_t at = 11, len = 1; good && at < N; at += len) {
        len = at % 5 + 1 < N - at ? at % 5 + 1 : N - at;
        chunk c[2] = {{.seq = seq[1], .tokens = others, .n = 3, .n_logits = at % 2},
                      {.seq = seq[0], .tokens = tokens + at, .n = len, .n_logits = 1}};
        const float *row = want + (size_t)(at + len - 1) * TINY_VOCAB;
        good = session_step(t, c, 2, NULL) == ERR_OK && memcmp(c[1].logits, row, TINY_VOCAB * sizeof *row) == 0;
    }
    session_free(s);
    session_free(t);
    model_free(m);
    return good;
}

TEST(state_is_carried_over_chunks_and_forgotten_with_its_sequence) {
    CHECK(same_in_every_way(&next));
    CHECK(same_in_every_way(&dense));
    CHECK(same_in_every_way(&experts));
}

TEST(kernel_sets_give_the_same_bits) {
    static float want[N * TINY_VOCAB], got[N * TINY_VOCAB];
    const made *shapes[] = {&next, &dense, &experts};
    const char *was = isa_name(isa_get());
    int32_t tokens[N];
    prompt(tokens, 9);
    for (int i = 0; i < 3; i++) {
        for (isa k = ISA_SCALAR; k < ISA_COUNT; k++) {
            if (!isa_have(k)) continue;
            CHECK(isa_select(isa_name(k), NULL) == ERR_OK);
            int seq = 0;
            model *m = open_made(shapes[i], 4, NULL);
            session *s = m ? open_session(m, 2, 1) : NULL;
            bool good = s && !session_seq_new(s, &seq, NULL) && feed(s, seq, tokens, 0, N, 13, k ? got : want);
            session_free(s);
            model_free(m);
            CHECK(good);
            CHECK(k == ISA_SCALAR || memcmp(want, got, sizeof want) == 0);
        }
    }
    CHECK(isa_select(was, NULL) == ERR_OK);
}

TEST(truncating_goes_back_to_the_beginning) {
    static float want[N * TINY_VOCAB], got[N * TINY_VOCAB];
    int32_t tokens[N], others[N];
    int seq;
    model *m = open_made(&dense, 7, NULL);
    session *s = m ? open_session(m, 1, 1) : NULL;
    CHECK(s && session_seq_new(s, &seq, NULL) == ERR_OK);
    prompt(tokens, 1);
    prompt(others, 2);
    CHECK(feed(s, seq, tokens, 0, N, N, want));
    CHECK_INT(session_seq_truncate(s, seq, N), N); /* nothing to forget */
    CHECK_INT(session_seq_truncate(s, seq, 20), 0);
    CHECK_INT(session_seq_len(s, seq), 0);
    CHECK(feed(s, seq, tokens, 0, N, 9, got) && memcmp(want, got, sizeof want) == 0);
    CHECK_INT(session_seq_truncate(s, seq, 0), 0);
    CHECK(feed(s, seq, others, 0, 8, 8, NULL));
    CHECK_INT(session_seq_truncate(s, seq, 0), 0);
    CHECK(feed(s, seq, tokens, 0, N, N, got) && memcmp(want, got, sizeof want) == 0);
    const model_facts *facts = model_get_facts(m);
    uint32_t lanes = 32, channels = 2 * dense.n_k * dense.dk + dense.n_v * dense.dv; /* dv, in lanes of 16 */
    uint32_t conv = (channels * (dense.taps - 1) + 15) / 16 * 16;
    CHECK_INT(facts->state_bytes, 4u * (conv + dense.n_v * dense.dk * lanes) * sizeof(float)); /* 4 linear layers */
    session_free(s);
    model_free(m);
}

TEST(a_refused_step_leaves_the_state) {
    static float want[N * TINY_VOCAB], got[N * TINY_VOCAB];
    int32_t tokens[N], bad[2] = {1, TINY_VOCAB};
    int seq;
    err e = {0};
    model *m = open_made(&next, 8, NULL);
    session *s = m ? open_session(m, 1, 1) : NULL;
    CHECK(s && session_seq_new(s, &seq, NULL) == ERR_OK);
    prompt(tokens, 1);
    CHECK(feed(s, seq, tokens, 0, N, N, want));
    CHECK_INT(session_seq_truncate(s, seq, 0), 0);
    CHECK(feed(s, seq, tokens, 0, 10, 10, got));
    chunk c = {.seq = seq, .tokens = bad, .n = 2, .n_logits = 1};
    CHECK_INT(session_step(s, &c, 1, &e), ERR_INVALID);
    c = (chunk){.seq = seq + 1, .tokens = tokens, .n = 2};
    CHECK_INT(session_step(s, &c, 1, &e), ERR_INVALID);
    CHECK(feed(s, seq, tokens, 10, N - 10, 6, got) && memcmp(want, got, sizeof want) == 0);
    session_free(s);
    model_free(m);
}

TEST(a_state_that_does_not_fit_into_memory_is_an_error) {
    int seq;
    err e = {0};
    model *m = open_made(&dense, 1, NULL);
    session *s = m ? open_session(m, 1, 2) : NULL;
    CHECK(s != NULL);
    mem_fail_after(0);
    err_code rc = session_seq_new(s, &seq, &e);
    mem_fail_after(-1);
    CHECK_INT(rc, ERR_NOMEM);
    CHECK(session_seq_new(s, &seq, &e) == ERR_OK && session_seq_new(s, &seq, &e) == ERR_OK);
    session_free(s);
    model_free(m);
}

/* ---- layers that are left out ----------------------------------------------------------------------------- */

TEST(layers_for_several_tokens_are_known_and_not_run) {
    static float want[N * TINY_VOCAB], got[N * TINY_VOCAB];
    const made *shapes[] = {&dense, &experts};
    int32_t tokens[N];
    prompt(tokens, 3);
    for (int i = 0; i < 2; i++) {
        made with = *shapes[i];
        with.n_nextn = 1;
        for (int k = 0; k < 2; k++) {
            int seq;
            model *m = open_made(k ? &with : shapes[i], 2, NULL);
            CHECK(m != NULL);
            CHECK_INT(model_get_facts(m)->n_layer, shapes[i]->n_layer);
            session *s = open_session(m, 1, 1);
            CHECK(s && !session_seq_new(s, &seq, NULL) && feed(s, seq, tokens, 0, N, N, k ? got : want));
            session_free(s);
            model_free(m);
        }
        CHECK(memcmp(want, got, sizeof want) == 0);
    }
}

TEST(older_files_with_one_tensor_give_the_same_bits) {
    static float want[N * TINY_VOCAB], got[N * TINY_VOCAB];
    int32_t tokens[N];
    prompt(tokens, 3);
    made older = next;
    older.older = true;
    for (int k = 0; k < 2; k++) {
        int seq;
        model *m = open_made(k ? &older : &next, 2, NULL);
        session *s = m ? open_session(m, 2, 1) : NULL;
        CHECK(s && !session_seq_new(s, &seq, NULL) && feed(s, seq, tokens, 0, N, k ? 7 : N, k ? got : want));
        session_free(s);
        model_free(m);
    }
    CHECK(memcmp(want, got, sizeof want) == 0);
}

/* ---- refusals --------------------------------------------------------------------------------------------- */

static buf refuse_file;
static err refuse_error;
/* The sentence that a file of this shape, with a key changed (NULL: none), is refused with. */
static const char *refused(const made *shape, const char *key, uint32_t v) {
    static made f;
    model *m = NULL;
    f = *shape;
    buf_free(&refuse_file);
    refuse_file = (buf){0};
    made_tensors(&f, 1);
    made_file(&refuse_file, &f);
    made_free(&f);
    if (key && !edit_set_u32(&refuse_file, key, v)) return "the key is not there";
    refuse_error = (err){0};
    err_code rc = model_open_memory(&m, refuse_file.ptr, refuse_file.len, "made", &refuse_error);
    model_free(m);
    return rc == ERR_OK                                 ? "it was opened"
           : rc == ERR_INVALID || rc == ERR_UNSUPPORTED ? refuse_error.msg
                                                        : "it is another error";
}

TEST(sizes_that_contradict_each_other_are_refused) {
    CHECK_HAS(refused(&dense, "qwen35.ssm.group_count", 4),
              "qwen35.ssm.time_step_rank 6 (value heads) is not a multiple");
    CHECK_HAS(refused(&dense, "qwen35.ssm.inner_size", 121), "qwen35.ssm.inner_size 121 is not a multiple");
    CHECK_HAS(refused(&dense, "qwen35.ssm.inner_size", 126), "tensor blk.0.attn_qkv.weight has the shape");
    CHECK_HAS(refused(&dense, "qwen35.ssm.inner_size", 6 * 2048), "value heads of size 2048");
    CHECK_HAS(refused(&dense, "qwen35.ssm.state_size", 0), "qwen35.ssm.state_size");
    CHECK_HAS(refused(&dense, "qwen35.ssm.state_size", 11), "tensor blk.0.attn_qkv.weight has the shape");
    CHECK_HAS(refused(&dense, "qwen35.ssm.state_size", 1u << 31), "qwen35.ssm.state_size");
    CHECK_HAS(refused(&dense, "qwen35.ssm.conv_kernel", 1), "qwen35.ssm.conv_kernel");
    CHECK_HAS(refused(&dense, "qwen35.ssm.conv_kernel", 9), "qwen35.ssm.conv_kernel");
    CHECK_HAS(refused(&dense, "qwen35.ssm.conv_kernel", 3), "tensor blk.0.ssm_conv1d.weight has the shape");
    CHECK_HAS(refused(&dense, "qwen35.ssm.time_step_rank", 12), "tensor blk.0.ssm_dt.bias has the shape");
    CHECK_HAS(refused(&dense, "qwen35.attention.value_length", 10), "value_length 10 differ");
    CHECK_HAS(refused(&dense, "qwen35.full_attention_interval", 2), "tensor blk.1.attn_q.weight is missing");
    CHECK_HAS(refused(&dense, "qwen35.full_attention_interval", 0), "qwen35.full_attention_interval");
    CHECK_HAS(refused(&dense, "qwen35.nextn_predict_layers", 5), "nextn_predict_layers is 5 of 5 layers");
    CHECK_HAS(refused(&dense, "qwen35.nextn_predict_layers", 1), "tensor blk.4.attn_qkv.weight is not part");
    CHECK_HAS(refused(&dense, "qwen35.feed_forward_length", 0), "feed_forward_length");
    CHECK_HAS(refused(&experts, "qwen35moe.expert_shared_feed_forward_length", 32), "shexp.weight has the shape");
    CHECK_HAS(refused(&experts, "qwen35moe.expert_used_count", 7), "7 experts a token of 6");
    CHECK_HAS(refused(&next, "qwen3next.attention.head_count", 4), "tensor blk.1.attn_q.weight has the shape");
}

TEST(sections_that_text_has_no_number_for_are_refused) {
    made f = dense;
    const int32_t good[][4] = {{2, 1, 1, 0}, {11, 11, 10, 0}, {2, 2, 1, 0}, {0, 0, 0, 0}};
    for (int i = 0; i < 4; i++) {
        memcpy(f.sections, good[i], sizeof good[i]);
        CHECK_STR(refused(&f, NULL, 0), "it was opened");
    }
    const int32_t bad[][4] = {{4, 0, 0, 0}, {1, 1, 1, 1}, {2, 0, 2, 0}};
    for (int i = 0; i < 3; i++) {
        memcpy(f.sections, bad[i], sizeof bad[i]);
        CHECK_HAS(refused(&f, NULL, 0), "belongs to no coordinate that text has");
    }
    const int32_t wild[][4] = {{-1, 2, 2, 0}, {2147483647, 2147483647, 2147483647, 2147483647}};
    for (int i = 0; i < 2; i++) {
        memcpy(f.sections, wild[i], sizeof wild[i]);
        CHECK_HAS(refused(&f, NULL, 0), "section 0 is");
    }
}

TEST(a_file_without_a_key_or_tensor_is_refused_by_its_name) {
    static const char *const keys[] = {"ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank",
                                       "ssm.group_count"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char key[64];
        buf b = {.max = 64u << 20};
        model *m = NULL;
        err e = {0};
        snprintf(key, sizeof key, "qwen35.%s", keys[i]);
        CHECK_STR(refused(&dense, NULL, 0), "it was opened");
        edit_rewrite(&b, &refuse_file, "qwen35", "qwen35", key, NULL, 0);
        CHECK_INT(model_open_memory(&m, b.ptr, b.len, "made", &e), ERR_INVALID);
        CHECK_HAS(e.msg, key);
        buf_free(&b);
    }
    static made f;
    f = dense;
    made_tensors(&f, 1);
    for (uint32_t i = 0; i < f.n_t; i++) {
        char name[64], wrong[64];
        buf b = {0};
        model *m = NULL;
        err e = {0};
        snprintf(name, sizeof name, "%s", f.t[i].name);
        snprintf(wrong, sizeof wrong, "%s", name);
        wrong[strlen(wrong) - 1] = 'X';
        if (strcmp(name, "output.weight") == 0) continue; /* without it the embedding would do */
        snprintf(f.t[i].name, sizeof f.t[i].name, "%s", wrong);
        made_file(&b, &f);
        snprintf(f.t[i].name, sizeof f.t[i].name, "%s", name);
        err_code rc = model_open_memory(&m, b.ptr, b.len, "made", &e);
        model_free(m);
        buf_free(&b);
        if (rc != ERR_INVALID || !strstr(e.msg, name)) FAIL("without %s: %s", name, e.msg);
    }
    made_free(&f);
}

TEST(every_failed_allocation_of_opening_is_an_error) {
    static made f;
    buf b = {0};
    f = experts;
    made_tensors(&f, 1);
    made_file(&b, &f);
    made_free(&f);
    model *m = NULL;
    err e = {0};
    int64_t before = mem_count();
    CHECK_OK(model_open_memory(&m, b.ptr, b.len, "made", &e), e);
    int64_t total = mem_count() - before;
    model_free(m);
    int failures = 0;
    for (int64_t n = 0; n < total; n++) {
        mem_fail_after(n);
        err_code rc = model_open_memory(&m, b.ptr, b.len, "made", &e);
        mem_fail_after(-1);
        if (rc == ERR_OK) /* that one was for a sentence nobody needed */
            model_free(m);
        else if (rc != ERR_NOMEM || m)
            FAIL("allocation %d: %s: %s", (int)n, err_name(rc), e.msg);
        else
            failures++;
    }
    buf_free(&b);
    printf("     %d of %d allocations fail the opening\n", failures, (int)total);
    CHECK(failures > 100); /* 65 tensors, most of them matrices, some of 6 matrices each; 3 convolutions */
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    err e = {0};
    if (engine_init(&e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    RUN(logits_are_those_of_double_arithmetic);
    RUN(state_is_carried_over_chunks_and_forgotten_with_its_sequence);
    RUN(kernel_sets_give_the_same_bits);
    RUN(truncating_goes_back_to_the_beginning);
    RUN(a_refused_step_leaves_the_state);
    RUN(a_state_that_does_not_fit_into_memory_is_an_error);
    RUN(layers_for_several_tokens_are_known_and_not_run);
    RUN(older_files_with_one_tensor_give_the_same_bits);
    RUN(sizes_that_contradict_each_other_are_refused);
    RUN(sections_that_text_has_no_number_for_are_refused);
    RUN(a_file_without_a_key_or_tensor_is_refused_by_its_name);
    RUN(every_failed_allocation_of_opening_is_an_error);
    buf_free(&refuse_file);
    return test_end();
}
