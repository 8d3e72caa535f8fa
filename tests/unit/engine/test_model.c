/* Opening models: facts of a good one, a sentence for each way to be wrong, and nothing leaked where memory runs out.
 */
#include "harness.h"

#include "base/mem.h"
#include "engine/models/models.h"
#include "tiny_model.h"

#include <fcntl.h>

static const tiny plain = {.n_layer = 2, .d = 64, .n_head = 4, .n_kv = 2, .head = 16, .ff = 96, .n_ctx = 512};

static err_code open_bytes(model **m, const buf *b, err *e) {
    *e = (err){0};
    return model_open_memory(m, b->ptr, b->len, "x.gguf", e);
}

TEST(facts) {
    tiny t = plain;
    t.type = 8;
    t.chat_template = "{{ messages[0].content }}";
    buf b = {0};
    model *m = NULL;
    err e;
    tiny_make(&b, &t, 3);
    CHECK_OK(open_bytes(&m, &b, &e), e);
    const model_facts *f = model_get_facts(m);
    CHECK_STR(f->arch, "llama");
    CHECK_STR(f->name, "tiny");
    CHECK_STR(f->quant, "Q8_0");
    CHECK_STR(f->tokenizer, "spm");
    CHECK_INT(f->n_vocab, TINY_VOCAB);
    CHECK_INT(f->n_layer, 2);
    CHECK_INT(f->n_ctx_train, 512);
    CHECK_INT(f->d_model, 64);
    CHECK_INT(f->n_head, 4);
    CHECK_INT(f->n_head_kv, 2);
    CHECK_INT(f->file_bytes, b.len);
    uint64_t layer = 2 * 64 + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64;
    CHECK_INT(f->n_params, 2 * TINY_VOCAB * 64 + 64 + 2 * layer);
    CHECK(f->has_template && model_template(m) && !model_template_error(m));
    CHECK_INT(model_token_bos(m), 1);
    CHECK_INT(model_token_eos(m), 2);
    CHECK(model_token_is_end(m, 2) && !model_token_is_end(m, 5));
    model_free(m);
    buf_free(&b);
    model_free(NULL);
}

TEST(a_template_that_does_not_compile_leaves_its_sentence) {
    tiny t = plain;
    t.chat_template = "{% nonsense %}";
    buf b = {0};
    model *m = NULL;
    err e;
    tiny_make(&b, &t, 3);
    CHECK_OK(open_bytes(&m, &b, &e), e);
    CHECK(model_get_facts(m)->has_template && !model_template(m));
    CHECK_HAS(model_template_error(m), "nonsense");
    model_free(m);
    buf_free(&b);
}

TEST(opens_from_a_file) {
    char dir[256], path[300];
    buf b = {0};
    model *m = NULL;
    err e = {0};
    tiny_make(&b, &plain, 3);
    CHECK(test_tmpdir(dir));
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    CHECK_OK(file_write_atomic(path, b.ptr, b.len, 0600, &e), e);
    CHECK_OK(model_open(&m, path, &e), e);
    model_free(m);
    CHECK(truncate(path, (off_t)(b.len / 2)) == 0);
    CHECK(model_open(&m, path, &e) == ERR_INVALID && !m);
    CHECK_HAS(e.msg, path);
    CHECK(model_open(&m, "/nonexistent/x.gguf", &e) != ERR_OK && !m);
    test_rm(dir);
    buf_free(&b);
}

/* One key set to a value: the code and a part of the sentence. */
static bool refused(const char *key, bool is_float, double value, err_code code, const char *says) {
    buf b = {0};
    model *m = NULL;
    err e;
    tiny_make(&b, &plain, 3);
    bool set = is_float ? edit_set_f32(&b, key, (float)value) : edit_set_u32(&b, key, (uint32_t)value);
    err_code rc = open_bytes(&m, &b, &e);
    bool good = set && rc == code && !m && strstr(e.msg, says) && strstr(e.msg, "x.gguf");
    if (!good) fprintf(stderr, "%s = %g: %s: %s\n", key, value, err_name(rc), e.msg);
    model_free(m);
    buf_free(&b);
    return good;
}

TEST(absurd_hyperparameters_are_refused) {
    CHECK(refused("llama.block_count", false, 0, ERR_INVALID, "block_count"));
    CHECK(refused("llama.block_count", false, 2147483648.0, ERR_INVALID, "block_count"));
    CHECK(refused("llama.block_count", false, 3, ERR_INVALID, "blk.2.attn_norm.weight is missing"));
    CHECK(refused("llama.block_count", false, 1, ERR_UNSUPPORTED, "tensor blk.1."));
    CHECK(refused("llama.embedding_length", false, 0, ERR_INVALID, "embedding_length"));
    CHECK(refused("llama.embedding_length", false, 128, ERR_INVALID, "token_embd.weight has the shape (64, 272"));
    CHECK(refused("llama.embedding_length", false, 4294967295.0, ERR_INVALID, "embedding_length"));
    CHECK(refused("llama.context_length", false, 0, ERR_INVALID, "context_length"));
    CHECK(refused("llama.context_length", false, 4294967295.0, ERR_INVALID, "context_length"));
    CHECK(refused("llama.feed_forward_length", false, 0, ERR_INVALID, "feed_forward_length"));
    CHECK(refused("llama.feed_forward_length", false, 95, ERR_INVALID, "ffn_gate.weight"));
    CHECK(refused("llama.attention.head_count", false, 0, ERR_INVALID, "head_count"));
    CHECK(refused("llama.attention.head_count", false, 5, ERR_INVALID, "5 attention heads"));
    CHECK(refused("llama.attention.head_count", false, 1000000, ERR_INVALID, "head_count"));
    CHECK(refused("llama.attention.head_count_kv", false, 0, ERR_INVALID, "head_count_kv"));
    CHECK(refused("llama.attention.head_count_kv", false, 3, ERR_INVALID, "share 3"));
    CHECK(refused("llama.attention.head_count_kv", false, 4, ERR_INVALID, "attn_k.weight"));
    CHECK(refused("llama.attention.key_length", false, 0, ERR_INVALID, "key_length"));
    CHECK(refused("llama.attention.key_length", false, 8, ERR_INVALID, "dimension_count is 16"));
    CHECK(refused("llama.attention.value_length", false, 0, ERR_INVALID, "value_length"));
    CHECK(refused("llama.attention.value_length", false, 2000, ERR_INVALID, "value_length"));
    CHECK(refused("llama.rope.dimension_count", false, 3, ERR_INVALID, "even"));
    CHECK(refused("llama.rope.dimension_count", false, 0, ERR_INVALID, "dimension_count"));
    CHECK(refused("llama.rope.freq_base", true, 0, ERR_INVALID, "freq_base"));
    CHECK(refused("llama.rope.freq_base", true, (double)NAN, ERR_INVALID, "freq_base"));
    CHECK(refused("llama.attention.layer_norm_rms_epsilon", true, -1, ERR_INVALID, "rms_epsilon"));
    CHECK(refused("llama.attention.layer_norm_rms_epsilon", true, (double)INFINITY, ERR_INVALID, "rms_epsilon"));
}

/* One key added: refused in so many words. */
static bool refused_with(const buf *more, err_code code, const char *says) {
    buf b = {0}, out = {.max = 64u << 20};
    model *m = NULL;
    err e;
    tiny_make(&b, &plain, 3);
    edit_rewrite(&out, &b, "llama", "llama", NULL, more, 1);
    err_code rc = open_bytes(&m, &out, &e);
    bool good = rc == code && !m && strstr(e.msg, says);
    if (!good) fprintf(stderr, "%s: %s\n", err_name(rc), e.msg);
    model_free(m);
    buf_free(&b);
    buf_free(&out);
    return good;
}

TEST(what_is_not_supported_is_named) {
    buf more = {.max = 4096};
    edit_put_u32(&more, "llama.expert_count", 8);
    CHECK(refused_with(&more, ERR_INVALID, "expert_used_count"));
    buf_reset(&more);
    edit_put_string(&more, "llama.rope.scaling.type", "longrope");
    CHECK(refused_with(&more, ERR_UNSUPPORTED, "\"longrope\""));
    buf_reset(&more);
    edit_put_f32(&more, "llama.rope.scaling.factor", -2);
    CHECK(refused_with(&more, ERR_INVALID, "scaling.factor"));
    buf_reset(&more);
    edit_put_f32(&more, "llama.rope.scaling.factor", 1e-6f);
    CHECK(refused_with(&more, ERR_INVALID, "scaling.factor"));
    buf_free(&more);
}

static bool opens_as(const char *name, const char *drop, err_code code, const char *says) {
    buf b = {0}, out = {.max = 64u << 20};
    model *m = NULL;
    err e;
    tiny_make(&b, &plain, 3);
    edit_rewrite(&out, &b, "llama", name, drop, NULL, 0);
    err_code rc = open_bytes(&m, &out, &e);
    bool good = rc == code && strstr(e.msg, says);
    if (!good) fprintf(stderr, "%s: %s\n", err_name(rc), e.msg);
    model_free(m);
    buf_free(&b);
    buf_free(&out);
    return good;
}

TEST(unknown_architectures_and_missing_keys) {
    CHECK(opens_as("gptx\x1b[31m", NULL, ERR_UNSUPPORTED, "\"gptx?[31m\" is not one that polder runs; it runs: llama"));
    CHECK(opens_as("llama", "general.architecture", ERR_INVALID, "general.architecture"));
    CHECK(opens_as("llama", "llama.block_count", ERR_INVALID, "llama.block_count"));
    CHECK(opens_as("llama", "llama.attention.layer_norm_rms_epsilon", ERR_INVALID, "rms_epsilon"));
    CHECK(opens_as("llama", "llama.attention.head_count_kv", ERR_INVALID, "attn_k.weight")); /* then as many as heads */
    CHECK(opens_as("llama", "general.name", ERR_OK, ""));
    CHECK(opens_as("llama", "llama.attention.key_length", ERR_OK, "")); /* d_model / n_head is the same here */
}

/* A tensor of norms in a block type, and a tensor that the architecture does not know. */
TEST(tensors_that_do_not_fit_are_named) {
    buf b = {0};
    model *m = NULL;
    err e;
    tiny_make(&b, &plain, 3);
    char *name = memmem(b.ptr, b.len, "blk.1.ffn_up.weight", 19);
    CHECK(name);
    memcpy(name, "blk.1.ffn_ux.weight", 19);
    CHECK(open_bytes(&m, &b, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "blk.1.ffn_up.weight is missing");
    memcpy(name, "blk.1.ffn_up.weight", 19);
    name = memmem(b.ptr, b.len, "blk.0.attn_norm.weight", 22);
    memcpy(name, "blk.0.attn_gorm.weight", 22);
    CHECK(open_bytes(&m, &b, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "attn_norm");
    memcpy(name, "blk.0.attn_norm.weight", 22);
    name[22 + 4 + 8] = 8; /* Q8_0: 64 weights are two blocks, fewer bytes than before */
    CHECK(open_bytes(&m, &b, &e) == ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "attn_norm.weight has the type Q8_0");
    buf_free(&b);
}

TEST(every_failed_allocation_of_model_open_is_an_error) {
    tiny t = plain;
    t.biases = true;
    t.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    buf b = {0};
    tiny_make(&b, &t, 3);
    model *m = NULL;
    err e;
    int64_t before = mem_count();
    CHECK_OK(open_bytes(&m, &b, &e), e);
    int64_t total = mem_count() - before;
    model_free(m);
    int failures = 0;
    for (int64_t n = 0; n < total; n++) {
        mem_fail_after(n);
        err_code rc = open_bytes(&m, &b, &e);
        mem_fail_after(-1);
        if (rc == ERR_OK) { /* that one was for a sentence nobody needed */
            bool whole = model_template(m) != NULL && strcmp(model_get_facts(m)->arch, "llama") == 0;
            model_free(m);
            if (!whole) FAIL("allocation %d of %d: opened in part", (int)n, (int)total);
            continue;
        }
        if (rc != ERR_NOMEM || m || !e.msg[0]) FAIL("allocation %d: %s: %s", (int)n, err_name(rc), e.msg);
        failures++;
    }
    buf_free(&b);
    printf("     %d of %d failed allocations stop the opening\n", failures, (int)total);
    CHECK(failures > 60);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(facts);
    RUN(a_template_that_does_not_compile_leaves_its_sentence);
    RUN(opens_from_a_file);
    RUN(absurd_hyperparameters_are_refused);
    RUN(what_is_not_supported_is_named);
    RUN(unknown_architectures_and_missing_keys);
    RUN(tensors_that_do_not_fit_are_named);
    RUN(every_failed_allocation_of_model_open_is_an_error);
    return test_end();
}
