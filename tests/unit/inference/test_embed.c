/* Vectors and scores, end to end: an island, its ledger, models that make them, and clients of every kind. */
#include "support.h"
#include "tiny_encoder.h"

#include "inference/embedder.h"

#define D 32 /* width of all these models */

static bed b; /* of the case that runs */

/* What the caller gets. */
typedef struct got {
    float v[EMBED_INPUTS_MAX * D];
    uint32_t n[EMBED_INPUTS_MAX]; /* numbers of each */
    uint32_t n_inputs;
    int n_admitted, n_done, wrong_order;
    uint64_t admitted, completed, prompt_tokens;
    atomic_bool gone;
} got;

static err_code got_event(void *ctx, const event *ev) {
    got *g = ctx;
    switch (ev->kind) {
    case EV_ADMITTED:
        g->wrong_order += g->n_admitted++ || g->n_inputs;
        g->admitted = ev->record;
        break;
    case EV_VECTOR:
        g->wrong_order += !g->n_admitted || g->n_done || ev->input != g->n_inputs || ev->n_vector > D;
        memcpy(g->v + (size_t)ev->input * D, ev->vector, ev->n_vector * sizeof *ev->vector);
        g->n[ev->input] = ev->n_vector;
        g->n_inputs++;
        break;
    case EV_DONE:
        g->n_done++;
        g->completed = ev->record;
        g->prompt_tokens = ev->prompt_tokens;
        g->wrong_order += ev->completion_tokens != 0;
        break;
    default: g->wrong_order++;
    }
    return ERR_OK;
}

static bool got_gone(void *ctx) {
    return atomic_load(&((got *)ctx)->gone);
}

static err_code embed(const char *model_name, const embed_request *q, got *g, err *e) {
    request r = {.dialect = "test", .model = model_name, .embed = q, .user = "alice", .n_choices = 1};
    event_sink sink = {.ctx = g, .event = got_event, .gone = got_gone};
    snprintf(r.who.key_id, sizeof r.who.key_id, "k_test");
    memset(g, 0, offsetof(got, gone));
    return pipeline_run(b.inf, &r, &sink, e);
}

static err_code embed_texts(const char *model_name, const char *const *texts, uint32_t n, got *g, err *e) {
    embed_input in[EMBED_INPUTS_MAX];
    for (uint32_t i = 0; i < n; i++) in[i] = (embed_input){.text = texts[i], .len = strlen(texts[i])};
    embed_request q = {.inputs = in, .n_inputs = n};
    return embed(model_name, &q, g, e);
}

static err_code rank_texts(const char *model_name, const char *query, const char *const *texts, uint32_t n, got *g,
                           err *e) {
    embed_input in[EMBED_INPUTS_MAX];
    for (uint32_t i = 0; i < n; i++) in[i] = (embed_input){.text = texts[i], .len = strlen(texts[i])};
    embed_request q = {.query = query, .query_len = strlen(query), .inputs = in, .n_inputs = n};
    return embed(model_name, &q, g, e);
}

static err_code open_bed(const char *config, err *e) {
    return b.dir[0] ? ERR_OK : bed_open(&b, config, e);
}

static err_code add_kind(const char *name, tiny_kind k, uint64_t seed, err *e) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s.gguf", b.dir, name);
    if (!tiny_write_kind(path, &k, seed)) return err_set(e, ERR_IO, "the small model");
    return bed_add(&b, path, name, e);
}

/* Texts of 1 to 60 letters and spaces. */
static void make_texts(char out[][64], const char *texts[], uint32_t n) {
    uint32_t rnd = 12345;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t len = 1 + i * 7 % 60;
        for (uint32_t k = 0; k < len; k++) {
            rnd = rnd * 1664525u + 1013904223u;
            out[i][k] = (rnd >> 24) % 6 || k == 0 ? (char)('a' + (rnd >> 16) % 26) : ' ';
        }
        out[i][len] = 0;
        texts[i] = out[i];
    }
}

static got whole, one;

/* Breaks where a vector depends on what else is computed with it, on how many threads do, or on how steps are cut. */
TEST(embed_alone_as_among_others) {
    err e = {0};
    static char room[32][64];
    const char *texts[32];
    static const struct {
        const char *name;
        tiny_kind kind;
    } kinds[] = {{"bert", {.pooling = 2}},
                 {"nomic", {.nomic = true, .pooling = 1}},
                 {"last", {.causal = true, .pooling = 3}},
                 {"mean", {.causal = true, .pooling = 1}}};
    static float want[4][32 * D];
    static const char *const configs[] = {"  threads: 1\n  step_tokens: 64\n", "  threads: 2\n  step_tokens: 300\n"};
    make_texts(room, texts, 32);
    for (int c = 0; c < 2; c++) {
        CHECK_OK(open_bed(configs[c], &e), e);
        for (int k = 0; k < 4; k++) {
            CHECK_OK(add_kind(kinds[k].name, kinds[k].kind, 11, &e), e);
            CHECK_OK(embed_texts(kinds[k].name, texts, 32, &whole, &e), e);
            CHECK_INT(whole.n_inputs, 32);
            CHECK_INT(whole.wrong_order, 0);
            if (c == 0) memcpy(want[k], whole.v, sizeof want[k]);
            CHECK(memcmp(want[k], whole.v, sizeof want[k]) == 0);
            for (int i = 0; i < 32; i++) {
                CHECK_OK(embed_texts(kinds[k].name, &texts[i], 1, &one, &e), e);
                CHECK(memcmp(one.v, whole.v + (size_t)i * D, D * sizeof(float)) == 0);
            }
        }
        bed_close(&b);
    }
}

/* Breaks where pooling takes other rows than it says, or vectors have not length 1. */
TEST(embed_pools_as_the_file_says) {
    err e = {0};
    static const uint32_t poolings[] = {1, 2, 3};
    const char *text = "abc de fghi";
    CHECK_OK(open_bed(NULL, &e), e);
    for (int k = 0; k < 3; k++) {
        char name[16], path[1200];
        uint8_t digest[SHA256_LEN];
        model *m = NULL;
        session *s = NULL;
        int32_t *ids = NULL;
        size_t n = 0;
        double sum[D] = {0}, length = 0;
        snprintf(name, sizeof name, "kind%d", k);
        CHECK_OK(add_kind(name, (tiny_kind){.pooling = poolings[k]}, 5, &e), e);
        CHECK_OK(models_resolve(b.i, name, path, sizeof path, digest, &e), e);
        CHECK_OK(model_open(&m, path, &e), e);
        CHECK_OK(model_tokenize(m, text, strlen(text), TOK_ADD_SPECIAL, 100, &ids, &n, &e), e);
        CHECK_INT(n, 11); /* [CLS] and [SEP] around nine letters */
        CHECK(ids[0] == ENCODER_CLS && ids[n - 1] == ENCODER_SEP);
        session_options o = {.n_threads = 1, .n_seq_max = 1, .max_step_tokens = 128};
        chunk c = {.tokens = ids, .n = (uint32_t)n, .n_logits = (uint32_t)n};
        CHECK_OK(session_new(&s, m, &o, &e), e);
        CHECK_INT(session_width(s), D);
        CHECK_OK(session_seq_new(s, &c.seq, &e), e);
        CHECK_OK(session_step(s, &c, 1, &e), e);
        for (size_t i = 0; i < n; i++)
            for (int j = 0; j < D; j++)
                if (poolings[k] == 1 || (poolings[k] == 2 && i == 0) || (poolings[k] == 3 && i + 1 == n))
                    sum[j] += (double)c.logits[i * D + (size_t)j];
        for (int j = 0; j < D; j++) length += sum[j] * sum[j];
        CHECK_OK(embed_texts(name, &text, 1, &one, &e), e);
        for (int j = 0; j < D; j++) CHECK(fabs((double)one.v[j] - sum[j] / sqrt(length)) < 1e-6);
        mem_free(ids);
        session_free(s);
        model_free(m);
    }
}

/* Breaks where fewer dimensions are not the first ones, at length 1, or token ids are not what the text is. */
TEST(embed_dimensions_and_ids) {
    err e = {0};
    const char *text = "abc";
    CHECK_OK(open_bed(NULL, &e), e);
    CHECK_OK(add_kind("bert", (tiny_kind){.pooling = 1}, 5, &e), e);
    CHECK_OK(embed_texts("bert", &text, 1, &whole, &e), e);
    CHECK_INT(whole.n[0], D);
    /* "abc" is the first piece of a word, then two inside it */
    const int32_t ids[] = {ENCODER_CLS, 5, 5 + 36 + 1, 5 + 36 + 2, ENCODER_SEP};
    embed_input in = {.tokens = ids, .n_tokens = 5};
    embed_request q = {.inputs = &in, .n_inputs = 1};
    CHECK_OK(embed("bert", &q, &one, &e), e);
    CHECK(memcmp(one.v, whole.v, D * sizeof(float)) == 0);
    CHECK_INT(one.prompt_tokens, 5);
    q.dimensions = 7;
    CHECK_OK(embed("bert", &q, &one, &e), e);
    CHECK_INT(one.n[0], 7);
    double cut = 0;
    for (int i = 0; i < 7; i++) cut += (double)whole.v[i] * (double)whole.v[i];
    for (int i = 0; i < 7; i++) CHECK(fabs((double)one.v[i] - (double)whole.v[i] / sqrt(cut)) < 1e-6);
}

static bool has_content(uint64_t seq, const char *name, buf *out) {
    buf_reset(out);
    return ledger_content(island_ledger(b.i), seq, name, out, NULL) == ERR_OK;
}

/* Breaks where the records do not tell what replay needs, or tell what only the vault may hold. */
TEST(embed_records_tell_all) {
    err e = {0};
    static const char *const texts[] = {"a secret", "b"};
    buf text = {.max = LEDGER_ENTRY_MAX}, content = {.max = 1 << 20};
    ledger *l;
    char hex[SHA256_HEX_LEN + 1], field[120];
    uint8_t digest[SHA256_LEN];
    CHECK_OK(open_bed(NULL, &e), e);
    CHECK_OK(add_kind("bert", (tiny_kind){.pooling = 1}, 5, &e), e);
    CHECK_OK(embed_texts("bert", texts, 2, &whole, &e), e);
    l = island_ledger(b.i);
    CHECK_OK(ledger_read(l, whole.admitted, &text, &e), e);
    CHECK_HAS(text.ptr, "\"params\":{\"dimensions\":32,\"inputs\":2,\"pooling\":\"mean\"}");
    CHECK_HAS(text.ptr, "\"artifact\":\"sha256:");
    CHECK_HAS(text.ptr, "\"numerics\":");
    CHECK_HAS(text.ptr, "\"prompt_tokens\":12");
    CHECK(!strstr(text.ptr, "secret") && !strstr(text.ptr, "alice"));
    CHECK(has_content(whole.admitted, "request", &content));
    CHECK_STR(buf_str(&content), "{\"input\":[\"a secret\",\"b\"]}");
    CHECK(has_content(whole.admitted, "prompt_tokens", &content));
    CHECK_INT(content.len, 4 * 12);
    CHECK(has_content(whole.admitted, "lengths", &content));
    CHECK(content.len == 8 && content.ptr[0] == 9 && content.ptr[4] == 3);
    buf_reset(&text);
    CHECK_OK(ledger_read(l, whole.completed, &text, &e), e);
    sha256_of(digest, whole.v, 2 * D * sizeof(float)); /* this machine is little endian, as the record */
    hex_encode(hex, digest, sizeof digest);
    snprintf(field, sizeof field, "\"vectors_sha256\":\"%s\"", hex);
    CHECK_HAS(text.ptr, field);
    CHECK(has_content(whole.completed, "vector_digests", &content));
    CHECK_INT(content.len, 2 * SHA256_LEN);
    sha256_of(digest, whole.v + D, D * sizeof(float));
    CHECK(memcmp(content.ptr + SHA256_LEN, digest, sizeof digest) == 0);
    CHECK(!bed_balance(&b));
    buf_free(&text);
    buf_free(&content);
}

/* The head in double arithmetic, from the model's own row and the weights that tiny_encoder.h writes last. */
static double head_by_hand(const char *file, const float *row) {
    buf f = {.max = 1 << 25};
    double y = 0;
    float w[32 * 32 + 32 + 32 + 8];
    if (file_read(&f, file, NULL) != ERR_OK) return -1;
    /* cls (32, 32), its bias (32), cls.output (32), its bias (1, padded to 32 bytes) end the file */
    memcpy(w, f.ptr + f.len - sizeof w, sizeof w);
    for (int i = 0; i < 32; i++) {
        double t = (double)w[1024 + i];
        for (int k = 0; k < 32; k++) t += (double)w[32 * i + k] * (double)row[k];
        y += tanh(t) * (double)w[1056 + i];
    }
    buf_free(&f);
    return 1 / (1 + exp(-(y + (double)w[1088])));
}

/* The first row of these tokens in the file's model. */
static err_code first_row(const char *path, const int32_t *ids, uint32_t n, float out[D], err *e) {
    model *m = NULL;
    session *s = NULL;
    session_options o = {.n_threads = 1, .n_seq_max = 1, .max_step_tokens = 128};
    chunk c = {.tokens = ids, .n = n, .n_logits = n};
    err_code rc = model_open(&m, path, e);
    if (!rc) rc = session_new(&s, m, &o, e);
    if (!rc) rc = session_seq_new(s, &c.seq, e);
    if (!rc) rc = session_step(s, &c, 1, e);
    if (!rc) memcpy(out, c.logits, D * sizeof *out);
    session_free(s);
    model_free(m);
    return rc;
}

/* Breaks where the second text of a pair has not the second token type, or anything else has it: two files with the
 * same weights, of which one ranks, differ for pairs only. */
TEST(rank_gives_the_second_text_its_type) {
    err e = {0};
    const int32_t single[] = {2, 5, 42, 43, 3}, pair[] = {2, 5, 42, 43, 3, 8, 45, 3};
    float ranks[D], embeds[D];
    char ranker[400], plain[400];
    CHECK_OK(open_bed(NULL, &e), e);
    snprintf(ranker, sizeof ranker, "%s/ranker.gguf", b.dir);
    snprintf(plain, sizeof plain, "%s/plain.gguf", b.dir);
    CHECK(tiny_write_kind(ranker, &(tiny_kind){.pooling = 4, .head = true}, 5));
    CHECK(tiny_write_kind(plain, &(tiny_kind){.pooling = 2}, 5));
    CHECK_OK(first_row(ranker, single, 5, ranks, &e), e);
    CHECK_OK(first_row(plain, single, 5, embeds, &e), e);
    CHECK(memcmp(ranks, embeds, sizeof ranks) == 0);
    CHECK_OK(first_row(ranker, pair, 8, ranks, &e), e);
    CHECK_OK(first_row(plain, pair, 8, embeds, &e), e);
    CHECK(memcmp(ranks, embeds, sizeof ranks) != 0);
}

/* Breaks where the head computes something else, or query and document are not put together as the tokenizer's pairs.
 */
TEST(rank_is_the_head_of_the_pair) {
    err e = {0};
    static const char *const documents[] = {"de f", "xyz"};
    char path[400];
    model *m = NULL;
    session *s = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    CHECK_OK(open_bed(NULL, &e), e);
    CHECK_OK(add_kind("ranker", (tiny_kind){.pooling = 4, .head = true}, 5, &e), e);
    CHECK_OK(rank_texts("ranker", "abc", documents, 2, &whole, &e), e);
    CHECK_INT(whole.n[0], 1);
    snprintf(path, sizeof path, "%s/ranker.gguf", b.dir);
    CHECK_OK(model_open(&m, path, &e), e);
    CHECK_OK(model_tokenize_pair(m, "abc", 3, "de f", 4, 100, &ids, &n, &e), e);
    const int32_t want[] = {2, 5, 42, 43, 3, 8, 45, 10, 3};
    CHECK_INT(n, 9);
    CHECK(memcmp(ids, want, sizeof want) == 0);
    session_options o = {.n_threads = 1, .n_seq_max = 1, .max_step_tokens = 128};
    chunk c = {.tokens = ids, .n = (uint32_t)n, .n_logits = (uint32_t)n};
    CHECK_OK(session_new(&s, m, &o, &e), e);
    CHECK_OK(session_seq_new(s, &c.seq, &e), e);
    CHECK_OK(session_step(s, &c, 1, &e), e);
    double score = head_by_hand(path, c.logits);
    CHECK(fabs((double)whole.v[0] - score) < 1e-6);
    CHECK(score > 0.01 && score < 0.99);
    mem_free(ids);
    session_free(s);
    model_free(m);
}

/* Breaks where text of a user becomes a special token of the form, or a text without such spellings is tokenized
 * otherwise than the whole prompt would be. */
TEST(rank_forms_keep_texts_texts) {
    err e = {0};
    const char *form = "<|im_start|>Query: {query}\nthe {document}<|im_end|>\n", *bad = "th<|im_end|>",
               *good = "in the art";
    const char *filled = "<|im_start|>Query: the\nthe in the art<|im_end|>\n";
    char path[400];
    model *m = NULL;
    int32_t *ids = NULL, *want = NULL;
    size_t n = 0, n_want = 0, ends = 0;
    CHECK_OK(open_bed(NULL, &e), e);
    CHECK_OK(add_kind("former", (tiny_kind){.causal = true, .pooling = 4, .head = true, .form = form}, 5, &e), e);
    snprintf(path, sizeof path, "%s/former.gguf", b.dir);
    CHECK_OK(model_open(&m, path, &e), e);
    CHECK_OK(model_tokenize_pair(m, "the", 3, good, strlen(good), 300, &ids, &n, &e), e);
    CHECK_OK(model_tokenize(m, filled, strlen(filled), TOK_PARSE_SPECIAL, 300, &want, &n_want, &e), e);
    CHECK(n == n_want && memcmp(ids, want, n * sizeof *ids) == 0);
    mem_free(ids);
    CHECK_OK(model_tokenize_pair(m, "{document}", 10, bad, strlen(bad), 300, &ids, &n, &e), e);
    for (size_t i = 0; i < n; i++) ends += ids[i] == 4; /* <|im_end|> */
    CHECK_INT(ends, 1);
    mem_free(want);
    CHECK(model_tokenize_pair(m, "the", 3, good, strlen(good), 10, &want, &n_want, &e) == ERR_TOO_LONG && !want);
    const char *documents[] = {good, bad, good};
    CHECK_OK(rank_texts("former", "the", documents, 3, &whole, &e), e);
    CHECK(whole.v[0] > 0 && whole.v[0] < 1 && whole.v[0] == whole.v[2 * D] && whole.v[0] != whole.v[D]);
    mem_free(ids);
    model_free(m);
}

static void refused(const char *name, const embed_request *q, err_code code, const char *part) {
    err e = {0};
    err_code rc = embed(name, q, &one, &e);
    if (rc != code || !strstr(e.msg, part)) {
        fprintf(stderr, "%s: %s: %s; wanted %s with '%s'\n", name, err_name(rc), e.msg, err_name(code), part);
        test_bad = true;
    }
}

/* Breaks where a bad request is answered, cut, crashes, or gets a sentence that does not say why. */
TEST(embed_bad_requests_get_a_sentence) {
    err e = {0};
    char longer[3 * ENCODER_CONTEXT];
    const int32_t outside[] = {2, 5000}, negative[] = {-1};
    static int32_t many[ENCODER_CONTEXT + 1];
    embed_input in = {.text = "a", .len = 1};
    embed_request q = {.inputs = &in, .n_inputs = 1};
    CHECK_OK(open_bed(NULL, &e), e);
    CHECK_OK(bed_add(&b, b.file, "chat", &e), e);
    CHECK_OK(add_kind("bert", (tiny_kind){.pooling = 1}, 5, &e), e);
    CHECK_OK(add_kind("silent", (tiny_kind){.pooling = UINT32_MAX}, 5, &e), e);
    CHECK_OK(add_kind("rows", (tiny_kind){.pooling = 0}, 5, &e), e);
    CHECK_OK(add_kind("ranker", (tiny_kind){.pooling = 4, .head = true}, 5, &e), e);
    CHECK_OK(add_kind("headless", (tiny_kind){.pooling = 4}, 5, &e), e);
    CHECK_OK(add_kind("formless", (tiny_kind){.causal = true, .pooling = 4, .head = true}, 5, &e), e);
    uint64_t before = ledger_size(island_ledger(b.i));
    refused("nobody", &q, ERR_NOT_FOUND, "not known here");
    refused("chat", &q, ERR_UNSUPPORTED, "generates text");
    refused("silent", &q, ERR_UNSUPPORTED, "names no pooling type");
    refused("rows", &q, ERR_UNSUPPORTED, "pooling type none");
    refused("ranker", &q, ERR_UNSUPPORTED, "/v1/rerank");
    q.dimensions = 33;
    refused("bert", &q, ERR_INVALID, "makes vectors of 32");
    q.dimensions = 0;
    in.len = 0;
    refused("bert", &q, ERR_INVALID, "input 0: it is empty");
    memset(longer, 'a', sizeof longer - 1);
    for (size_t i = 1; i < sizeof longer; i += 2) longer[i] = ' ';
    in = (embed_input){.text = longer, .len = sizeof longer};
    refused("bert", &q, ERR_TOO_LONG, "128 tokens");
    in = (embed_input){.tokens = many, .n_tokens = ENCODER_CONTEXT + 1};
    refused("bert", &q, ERR_TOO_LONG, "at most 128");
    in = (embed_input){.tokens = outside, .n_tokens = 2};
    refused("bert", &q, ERR_INVALID, "token 5000");
    in = (embed_input){.tokens = negative, .n_tokens = 1};
    refused("bert", &q, ERR_INVALID, "token -1");
    in = (embed_input){.tokens = negative};
    refused("bert", &q, ERR_INVALID, "it is empty");
    q.n_inputs = 0;
    refused("bert", &q, ERR_INVALID, "there are none");
    q.n_inputs = EMBED_INPUTS_MAX + 1;
    refused("bert", &q, ERR_INVALID, "at most 2048");
    q = (embed_request){.query = "a", .query_len = 1, .inputs = &in, .n_inputs = 1};
    in = (embed_input){.text = "a", .len = 1};
    refused("bert", &q, ERR_UNSUPPORTED, "cannot rank");
    refused("chat", &q, ERR_UNSUPPORTED, "cannot rank");
    refused("headless", &q, ERR_UNSUPPORTED, "cls.output.weight");
    refused("formless", &q, ERR_UNSUPPORTED, "tokenizer.chat_template.rerank");
    in = (embed_input){.text = longer, .len = sizeof longer};
    refused("ranker", &q, ERR_TOO_LONG, "with the query");
    q.query_len = 0;
    refused("ranker", &q, ERR_INVALID, "query: it is empty");
    client c = {0};
    request r = ask("bert", "a", 3);
    CHECK_INT(run(&b, &r, &c, &e), ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "ask it by /v1/embeddings");
    r.model = "ranker";
    CHECK_INT(run(&b, &r, &c, &e), ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "ask it by /v1/rerank");
    CHECK_INT(ledger_size(island_ledger(b.i)), before); /* none of them was admitted */
}

/* The file with `to` written at `skip` bytes after the first `key`; opens it. */
static err_code open_changed(const char *path, const char *key, size_t skip, const char *to, size_t n, err *e) {
    char other[400];
    buf f = {.max = 1 << 25};
    model *m = NULL;
    err_code rc = file_read(&f, path, e);
    char *at = rc ? NULL : memmem(f.ptr, f.len, key, strlen(key));
    if (!rc && !at) rc = err_set(e, ERR_INTERNAL, "%s is not in the file", key);
    if (!rc) {
        memcpy(at + skip, to, n);
        snprintf(other, sizeof other, "%s.changed", path);
        rc = file_write_atomic(other, f.ptr, f.len, 0644, e);
    }
    if (!rc) rc = model_open(&m, other, e);
    model_free(m);
    buf_free(&f);
    return rc;
}

/* Breaks where a file that would be computed wrongly is opened, or the sentence does not name what is wrong. */
TEST(embed_bad_files_are_refused) {
    err e = {0};
    char path[400], causal[400];
    CHECK_OK(open_bed(NULL, &e), e);
    CHECK_OK(add_kind("ranker", (tiny_kind){.pooling = 4, .head = true}, 5, &e), e);
    CHECK_OK(add_kind("causal", (tiny_kind){.causal = true, .pooling = 4, .head = true}, 5, &e), e);
    snprintf(path, sizeof path, "%s/ranker.gguf", b.dir);
    snprintf(causal, sizeof causal, "%s/causal.gguf", b.dir);
    CHECK_OK(open_changed(path, "bert.attention.causal", 25, "\0", 1, &e), e);
    CHECK_INT(open_changed(path, "bert.attention.causal", 25, "\1", 1, &e), ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "attention.causal is true");
    CHECK_INT(open_changed(path, "bert.pooling_type", 21, "\5", 1, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "bert.pooling_type");
    CHECK_INT(open_changed(path, "cls.weight", 0, "clz", 3, &e), ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "clz.weight is not part of the bert architecture");
    CHECK_INT(open_changed(path, "blk.1.layer_output_norm.bias", 0, "blk.9", 5, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "blk.1.layer_output_norm.bias is missing");
    CHECK_INT(open_changed(path, "position_embd.weight", 32, "\77", 1, &e), ERR_INVALID); /* its rows */
    /* "no" and "yes": a list of one label does not fit the head of two, an absurd one is refused by itself */
    CHECK_INT(open_changed(causal, "llama.classifier.output_labels", 30 + 4 + 4, "\1", 1, &e), ERR_INVALID);
    CHECK_INT(open_changed(causal, "llama.classifier.output_labels", 30 + 4 + 4, "\377\1", 2, &e), ERR_INVALID);
}

/* Breaks where a client that has gone is computed for to the end, or leaves no record. */
TEST(embed_gone_client_is_noticed) {
    err e = {0};
    static embed_input in[EMBED_INPUTS_MAX];
    static int32_t ids[ENCODER_CONTEXT];
    CHECK_OK(open_bed("  threads: 1\n", &e), e);
    CHECK_OK(add_kind("bert", (tiny_kind){.pooling = 1}, 5, &e), e);
    for (int i = 0; i < EMBED_INPUTS_MAX; i++) in[i] = (embed_input){.tokens = ids, .n_tokens = ENCODER_CONTEXT};
    embed_request q = {.inputs = in, .n_inputs = EMBED_INPUTS_MAX};
    atomic_store(&one.gone, true);
    err_code rc = embed("bert", &q, &one, &e);
    atomic_store(&one.gone, false);
    CHECK_INT(rc, ERR_CANCELLED);
    CHECK(!bed_balance(&b));
    CHECK(gauge("polder_running_sequences") == 0);
    CHECK(gauge("polder_embedding_requests") == 0);
    const char *text = "a";
    CHECK_OK(embed_texts("bert", &text, 1, &one, &e), e);
}

/* Breaks where a full queue answers later instead of at once, or a place is never given back. */
TEST(embedder_full_queue_is_busy) {
    err e = {0};
    char path[400];
    model *m = NULL;
    embedder *s = NULL;
    embed_job *j[3] = {0};
    const int32_t ids[] = {2, 5, 3};
    const embed_seq q = {ids, 3};
    CHECK_OK(open_bed(NULL, &e), e);
    CHECK_OK(add_kind("bert", (tiny_kind){.pooling = 1}, 5, &e), e);
    snprintf(path, sizeof path, "%s/bert.gguf", b.dir);
    CHECK_OK(model_open(&m, path, &e), e);
    embedder_options o = {.threads = 1, .max_jobs = 2, .step_tokens = 64};
    CHECK_OK(embedder_new(&s, m, &o, &e), e);
    CHECK_OK(embed_job_new(&j[0], s, &q, 1, &e), e);
    CHECK_OK(embed_job_new(&j[1], s, &q, 1, &e), e);
    CHECK_INT(embed_job_new(&j[2], s, &q, 1, &e), ERR_BUSY);
    CHECK_HAS(e.msg, "try again later");
    embed_job_free(j[0]);
    CHECK_OK(embed_job_new(&j[2], s, &q, 1, &e), e);
    embed_job_start(j[1]);
    while (!embed_job_wait(j[1], 100)) {
    }
    CHECK_OK(embed_job_result(j[1], &e), e);
    embed_job_free(j[1]);
    embed_job_free(j[2]);
    embedder_free(s);
    model_free(m);
}

/* Breaks where a request of thousands holds up one of a single text. */
TEST(embedder_takes_turns) {
    err e = {0};
    char path[400];
    model *m = NULL;
    embedder *s = NULL;
    embed_job *big = NULL, *small = NULL;
    static int32_t ids[ENCODER_CONTEXT];
    static embed_seq many[EMBED_INPUTS_MAX];
    const embed_seq few = {ids, 3};
    CHECK_OK(open_bed(NULL, &e), e);
    CHECK_OK(add_kind("bert", (tiny_kind){.pooling = 1}, 5, &e), e);
    snprintf(path, sizeof path, "%s/bert.gguf", b.dir);
    CHECK_OK(model_open(&m, path, &e), e);
    embedder_options o = {.threads = 1, .max_jobs = 2, .step_tokens = 64};
    CHECK_OK(embedder_new(&s, m, &o, &e), e);
    for (int i = 0; i < EMBED_INPUTS_MAX; i++) many[i] = (embed_seq){ids, ENCODER_CONTEXT};
    CHECK_OK(embed_job_new(&big, s, many, EMBED_INPUTS_MAX, &e), e);
    CHECK_OK(embed_job_new(&small, s, &few, 1, &e), e);
    embed_job_start(big);
    embed_job_start(small);
    while (!embed_job_wait(small, 100)) {
    }
    CHECK_OK(embed_job_result(small, &e), e);
    CHECK(!embed_job_wait(big, 0));
    embed_job_free(big); /* cancels it */
    embed_job_free(small);
    embedder_free(s);
    model_free(m);
}

/* Breaks where an allocation that fails leaks (under the sanitizers), crashes, or leaves an admitted request without an
 * outcome. */
TEST(embed_failed_allocations) {
    err e = {0};
    static const char *const texts[] = {"abc de", "f"};
    CHECK_OK(open_bed(NULL, &e), e);
    CHECK_OK(add_kind("ranker", (tiny_kind){.pooling = 4, .head = true}, 5, &e), e);
    CHECK_OK(rank_texts("ranker", "abc", texts, 2, &whole, &e), e);
    int64_t at = 0;
    log_set_level((log_level)(LOG_ERROR + 1)); /* each refusal of the ledger is an error, and meant here */
    for (; at < 2000; at++) {
        mem_fail_after(at);
        int64_t count = mem_count();
        err_code rc = rank_texts("ranker", "abc", texts, 2, &one, &e);
        bool reached = mem_count() - count > at;
        mem_fail_after(-1);
        if (!rc && !reached) break;
        CHECK(!rc || rc == ERR_NOMEM || rc == ERR_UNAVAILABLE);
        if (rc != ERR_NOMEM || !one.n_admitted) continue; /* the ledger failed, or there is nothing to end */
        cJSON *last = bed_record(&b, ledger_size(island_ledger(b.i)) - 1);
        CHECK(record_is(last, "failed"));
        cJSON_Delete(last);
    }
    CHECK(at > 20 && at < 2000);
    CHECK_OK(rank_texts("ranker", "abc", texts, 2, &one, &e), e);
    CHECK(one.v[0] == whole.v[0]);
}

static void each(const char *name, void (*fn)(void)) {
    test_run(name, fn);
    log_set_level(LOG_ERROR);
    mem_fail_after(-1);
    if (b.dir[0]) bed_close(&b);
}
#undef RUN
#define RUN(name) each(#name, test_case_##name)

int main(int argc, char **argv) {
    test_begin(argc, argv);
    log_set_level(LOG_ERROR);
    RUN(embed_alone_as_among_others);
    RUN(embed_pools_as_the_file_says);
    RUN(embed_dimensions_and_ids);
    RUN(embed_records_tell_all);
    RUN(rank_is_the_head_of_the_pair);
    RUN(rank_gives_the_second_text_its_type);
    RUN(rank_forms_keep_texts_texts);
    RUN(embed_bad_requests_get_a_sentence);
    RUN(embed_bad_files_are_refused);
    RUN(embed_gone_client_is_noticed);
    RUN(embedder_full_queue_is_busy);
    RUN(embedder_takes_turns);
    RUN(embed_failed_allocations);
    return test_end();
}
