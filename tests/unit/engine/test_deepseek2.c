/* Latent attention: both forms in files are one model, quantised weights compute what their expanded ones do, bits
 * depend on nothing but the tokens, contradicting files are refused by name. The numbers themselves are proven against
 * another implementation in tests/oracle. */
#include "harness.h"

#include "base/mem.h"
#include "engine/isa.h"
#include "engine/models/models.h"
#include "tiny_mla.h"

#define N_TOKENS 150 /* three pages of KV memory */

static model *open_mla(const tiny_mla *t) {
    buf b = {0};
    model *m = NULL;
    err e = {0};
    mla_make(&b, t);
    if (model_open_memory(&m, b.ptr, b.len, "x.gguf", &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    buf_free(&b);
    return m;
}

typedef struct way {
    uint32_t chunk;
    unsigned threads;
    bool neighbour, last_only;
} way;

/* Logits of all positions, or only of each chunk's last (the others stay zero); NULL where something failed. */
static float *run(const model *m, way w) {
    int32_t tokens[N_TOKENS];
    float *out = mem_array((size_t)N_TOKENS * TINY_VOCAB, sizeof *out);
    session *s = NULL;
    err e = {0};
    int a, b;
    uint64_t rng = 12345;
    bool good = false;
    session_options o = {.n_threads = w.threads, .n_seq_max = 2, .max_step_tokens = 2 * N_TOKENS};
    for (int i = 0; i < N_TOKENS; i++) tokens[i] = (int32_t)(tiny_rng(&rng) % TINY_VOCAB);
    if (!m || !out || session_new(&s, m, &o, &e) || session_seq_new(s, &a, &e) || session_seq_new(s, &b, &e)) goto out;
    for (uint32_t at = 0; at < N_TOKENS; at += w.chunk) {
        uint32_t n = w.chunk < N_TOKENS - at ? w.chunk : N_TOKENS - at, n_out = w.last_only ? 1 : n;
        chunk c[2] = {{.seq = b, .tokens = tokens + N_TOKENS - at - n, .n = n, .n_logits = n / 2},
                      {.seq = a, .tokens = tokens + at, .n = n, .n_logits = n_out}};
        if (session_step(s, w.neighbour ? c : c + 1, w.neighbour ? 2 : 1, &e)) goto out;
        memcpy(out + (size_t)(at + n - n_out) * TINY_VOCAB, c[1].logits, (size_t)n_out * TINY_VOCAB * sizeof *out);
    }
    good = true;
out:
    if (!good) fprintf(stderr, "%s\n", e.msg);
    session_free(s);
    if (good) return out;
    mem_free(out);
    return NULL;
}

static float *run_mla(const tiny_mla *t) {
    model *m = open_mla(t);
    float *out = m ? run(m, (way){N_TOKENS, 1, false, false}) : NULL;
    model_free(m);
    return out;
}

/* Root mean square of the difference, as a part of the numbers' own; -1 where there are none. */
static double distance(const float *x, const float *y) {
    double diff = 0, size = 0;
    for (size_t i = 0; x && y && i < (size_t)N_TOKENS * TINY_VOCAB; i++) {
        double d = (double)x[i] - (double)y[i];
        diff += d * d;
        size += (double)x[i] * (double)x[i];
    }
    return size > 0 ? sqrt(diff / size) : -1;
}

static double distance_of(const tiny_mla *a, const tiny_mla *b) {
    float *x = run_mla(a), *y = run_mla(b);
    double d = distance(x, y);
    mem_free(x);
    mem_free(y);
    return d;
}

/* Breaks when a head's rows are taken from the wrong place of attn_kv_b or are not transposed. */
TEST(both_forms_are_one_model) {
    tiny_mla split = MLA_SMALL, fused = split, old;
    fused.fused = true;
    old = fused;
    old.old_keys = true;
    CHECK(distance_of(&split, &fused) == 0);
    CHECK(distance_of(&split, &old) == 0);
    split.q_rank = fused.q_rank = 0;
    split.yarn_log = fused.yarn_log = 0.1f;
    CHECK(distance_of(&split, &fused) == 0);
}

/* Q8_0 and Q4_0 against the same weights in F32: what differs is that activations are rounded to 8 bit. Layers are
 * dense, since a rounding can choose another expert. Breaks when the columns of a head are not those that its matrix
 * multiplies. */
TEST(quantised_weights_compute_what_they_hold) {
    static const uint32_t types[] = {8, 2};
    for (int i = 0; i < 4; i++) {
        tiny_mla t = MLA_SMALL;
        t.n_dense = t.n_layer;
        t.type = types[i / 2];
        t.fused = i % 2;
        tiny_mla expanded = t;
        expanded.expanded = true;
        double d = distance_of(&t, &expanded);
        printf("     %s, %s: rms of the difference %.4f of the logits'\n", t.type == 8 ? "Q8_0" : "Q4_0",
               t.fused ? "fused" : "split", d);
        CHECK(d > 0 && d < 0.05);
    }
}

TEST(quantised_experts_run) {
    tiny_mla t = MLA_SMALL;
    t.type = 8;
    float *x = run_mla(&t);
    CHECK(x);
    for (size_t i = 0; i < (size_t)N_TOKENS * TINY_VOCAB; i++) CHECK(isfinite(x[i]));
    mem_free(x);
}

static bool same_however_cut(const tiny_mla *t) {
    static const way ways[] = {{1, 1, false, false}, {7, 2, true, false},  {64, 2, false, false}, {33, 1, true, false},
                               {150, 2, true, true}, {50, 1, false, true}, {1, 2, true, true}};
    err e = {0};
    model *m = open_mla(t);
    float *want = m ? run(m, (way){N_TOKENS, 1, false, false}) : NULL;
    bool good = want != NULL;
    for (size_t i = 0; good && i < 2 * sizeof ways / sizeof *ways; i++) {
        way w = ways[i / 2];
        if (isa_select(i % 2 ? "scalar" : isa_have(ISA_AVX2) ? "avx2" : "scalar", &e)) good = false;
        float *got = run(m, w);
        for (uint32_t row = 0; good && row < N_TOKENS; row++) {
            if (w.last_only && (row + 1) % w.chunk != 0) continue;
            good = got && memcmp(want + (size_t)row * TINY_VOCAB, got + (size_t)row * TINY_VOCAB,
                                 TINY_VOCAB * sizeof *got) == 0;
            if (!good) fprintf(stderr, "row %u: other bits in chunks of %u, way %zu\n", row, w.chunk, i);
        }
        mem_free(got);
    }
    mem_free(want);
    model_free(m);
    return good;
}

TEST(bits_depend_on_the_tokens_alone) {
    isa before = isa_get();
    err e = {0};
    tiny_mla t = MLA_SMALL;
    t.yarn_log = 0.0707f;
    CHECK(same_however_cut(&t));
    t.type = 8;
    t.n_dense = t.n_layer;
    CHECK(same_however_cut(&t));
    t.type = 2;
    t.fused = true;
    t.q_rank = 0;
    CHECK(same_however_cut(&t));
    CHECK_OK(isa_select(isa_name(before), &e), e);
}

/* One expert of one group: chosen by a group's best (V2), that is the best of all, and groups change nothing; chosen
 * by a group's two best together (V3), it is another one for some tokens. */
TEST(groups_of_v2_go_by_their_best_expert) {
    tiny_mla grouped = MLA_SMALL, free_choice;
    grouped.choice = false;
    grouped.n_used = grouped.groups_used = 1;
    grouped.gating = 1;
    free_choice = grouped;
    free_choice.groups = 0;
    CHECK(distance_of(&grouped, &free_choice) == 0);
    grouped.gating = free_choice.gating = 2;
    CHECK(distance_of(&grouped, &free_choice) > 1e-3);
}

/* Each of these is part of the model: without it, other logits. */
TEST(every_part_shows) {
    tiny_mla all = MLA_SMALL, less;
    all.yarn_log = 0.1f;
    less = all, less.choice = false;
    CHECK(distance_of(&all, &less) > 1e-3);
    less = all, less.groups = 0;
    CHECK(distance_of(&all, &less) > 1e-3);
    less = all, less.n_shared = 0;
    CHECK(distance_of(&all, &less) > 1e-3);
    less = all, less.yarn_log = 0.05f;
    CHECK(distance_of(&all, &less) > 1e-3);
    less = all, less.gating = 0;
    CHECK(distance_of(&all, &less) > 1e-3);
}

TEST(the_cache_holds_the_latent) {
    tiny_mla t = MLA_SMALL;
    model *m = open_mla(&t);
    CHECK(m);
    CHECK_INT(m->need.page[KV_F16],
              t.n_layer * VEC_TILE * (2 * t.rank + t.rope) * sizeof(float)); /* whatever the number of heads */
    CHECK_STR(model_get_facts(m)->arch, "deepseek2");
    model_free(m);
}

/* ---- what is refused -------------------------------------------------------------------------------------- */

static bool opens(const buf *b, const char *says) {
    model *m = NULL;
    err e = {0};
    err_code rc = model_open_memory(&m, b->ptr, b->len, "x.gguf", &e);
    bool good = rc == ERR_INVALID && !m && strstr(e.msg, says) && strstr(e.msg, "x.gguf");
    if (!good) fprintf(stderr, "wanted \"%s\": %s: %s\n", says, err_name(rc), e.msg);
    model_free(m);
    return good;
}

static bool refused(const tiny_mla *t, const char *key, uint32_t value, const char *says) {
    buf b = {0};
    char full[80];
    mla_make(&b, t);
    snprintf(full, sizeof full, "deepseek2.%s", key);
    bool good = edit_set_u32(&b, full, value) && opens(&b, says);
    if (!good) fprintf(stderr, "  %s = %u\n", key, value);
    buf_free(&b);
    return good;
}

static bool refused_without(const char *key, const char *says) {
    tiny_mla t = MLA_SMALL;
    buf b = {0}, out = {.max = 64u << 20};
    char full[80];
    mla_make(&b, &t);
    snprintf(full, sizeof full, "deepseek2.%s", key);
    edit_rewrite(&out, &b, "deepseek2", "deepseek2", full, NULL, 0);
    bool good = opens(&out, says);
    buf_free(&b);
    buf_free(&out);
    return good;
}

TEST(missing_keys_are_named) {
    CHECK(refused_without("attention.kv_lora_rank", "deepseek2.attention.kv_lora_rank"));
    CHECK(refused_without("attention.value_length_mla", "deepseek2.attention.value_length_mla"));
    CHECK(refused_without("rope.dimension_count", "deepseek2.rope.dimension_count"));
    CHECK(refused_without("expert_count", "deepseek2.expert_count"));
    CHECK(refused_without("expert_used_count", "deepseek2.expert_used_count"));
    CHECK(refused_without("feed_forward_length", "deepseek2.feed_forward_length"));
    CHECK(refused_without("attention.q_lora_rank", "blk.0.attn_q.weight is missing"));
    CHECK(refused_without("attention.key_length_mla", "blk.0.attn_q_b.weight has the shape"));
    CHECK(refused_without("leading_dense_block_count", "blk.0.ffn_gate_inp.weight is missing"));
}

TEST(contradicting_and_absurd_sizes_are_refused) {
    tiny_mla t = MLA_SMALL, old = t;
    old.fused = old.old_keys = true;
    CHECK(refused(&t, "attention.kv_lora_rank", 0, "kv_lora_rank"));
    CHECK(refused(&t, "attention.kv_lora_rank", 4294967295u, "kv_lora_rank"));
    CHECK(refused(&t, "attention.kv_lora_rank", 32, "contradict a latent of 32 and 8"));
    CHECK(refused(&t, "attention.key_length", 80, "contradict"));
    CHECK(refused(&t, "attention.value_length", 32, "contradict"));
    CHECK(refused(&t, "attention.key_length_mla", 8, "keys of 8 elements have none beside"));
    CHECK(refused(&t, "attention.key_length_mla", 4294967295u, "key_length_mla"));
    CHECK(refused(&t, "attention.key_length_mla", 48, "attn_q_b.weight has the shape"));
    CHECK(refused(&t, "attention.value_length_mla", 0, "value_length_mla"));
    CHECK(refused(&t, "attention.value_length_mla", 16, "attn_output.weight has the shape"));
    CHECK(refused(&t, "attention.q_lora_rank", 64, "attn_q_a.weight has the shape"));
    CHECK(refused(&t, "attention.q_lora_rank", 4294967295u, "q_lora_rank"));
    CHECK(refused(&t, "attention.head_count", 4, "attn_q_b.weight has the shape"));
    CHECK(refused(&t, "attention.head_count", 4294967295u, "head_count"));
    CHECK(refused(&t, "rope.dimension_count", 7, "even"));
    CHECK(refused(&t, "rope.dimension_count", 0, "dimension_count"));
    CHECK(refused(&t, "leading_dense_block_count", 3, "leading_dense_block_count"));
    CHECK(refused(&t, "leading_dense_block_count", 0, "blk.0.ffn_gate_inp.weight is missing"));
    CHECK(refused(&t, "expert_count", 4294967295u, "expert_count"));
    CHECK(refused(&t, "expert_count", 16, "ffn_gate_inp.weight has the shape"));
    CHECK(refused(&t, "expert_used_count", 9, "9 experts a token of 8"));
    CHECK(refused(&t, "expert_shared_count", 1000, "ffn_gate_shexp.weight has the shape"));
    CHECK(refused(&t, "expert_feed_forward_length", 131072, "2 shared experts of width 131072"));
    CHECK(refused(&t, "expert_gating_func", 4, "expert_gating_func"));
    CHECK(refused(&t, "expert_group_count", 3, "8 experts in 3 groups"));
    CHECK(refused(&t, "expert_group_used_count", 5, "out of 5 groups"));
    CHECK(refused(&old, "attention.kv_lora_rank", 32, "attn_kv_a_mqa.weight has the shape"));
    CHECK(refused(&old, "attention.kv_lora_rank", 1020, "1020 and 8 rotated elements"));
    CHECK(refused(&old, "attention.value_length", 64, "attn_output.weight has the shape"));
    old.rank = 1000;
    CHECK(refused(&old, "attention.head_count", 1023, "1023 heads of size 1008 are wider"));
}

static int fail_each_allocation(const tiny_mla *t) {
    buf b = {0};
    model *m = NULL;
    err e = {0};
    int failures = 0;
    mla_make(&b, t);
    int64_t before = mem_count();
    if (model_open_memory(&m, b.ptr, b.len, "x.gguf", &e) != ERR_OK) failures = -1;
    int64_t total = mem_count() - before;
    model_free(m);
    for (int64_t n = 0; failures >= 0 && n < total; n++) {
        mem_fail_after(n);
        err_code rc = model_open_memory(&m, b.ptr, b.len, "x.gguf", &e);
        mem_fail_after(-1);
        model_free(m);
        if (rc == ERR_OK) continue; /* that one was for a sentence nobody needed */
        failures = rc == ERR_NOMEM && !m && e.msg[0] ? failures + 1 : -1;
    }
    buf_free(&b);
    return failures;
}

TEST(every_failed_allocation_is_an_error) {
    tiny_mla t = MLA_SMALL;
    int split = fail_each_allocation(&t);
    t.fused = true;
    int fused = fail_each_allocation(&t);
    printf("     %d and %d failed allocations stop the opening\n", split, fused);
    CHECK(split > 60 && fused > 60);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(both_forms_are_one_model);
    RUN(quantised_weights_compute_what_they_hold);
    RUN(quantised_experts_run);
    RUN(bits_depend_on_the_tokens_alone);
    RUN(groups_of_v2_go_by_their_best_expert);
    RUN(every_part_shows);
    RUN(the_cache_holds_the_latent);
    RUN(missing_keys_are_named);
    RUN(contradicting_and_absurd_sizes_are_refused);
    RUN(every_failed_allocation_is_an_error);
    return test_end();
}
