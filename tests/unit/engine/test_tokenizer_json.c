/* tokenizer.json, its neighbours and tiktoken ranks to vocabularies; the same through the GGUF keys they write; normal
 * forms; refusals by name. Real vocabularies are compared by tests/acceptance/families/tokenizers. */
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/vocab/json_scan.h"
#include "engine/vocab/vocab_normal.h"
#include "harness.h"
#include "unit/engine/spec_gguf.h"

#include <time.h>
#include <utf8proc.h>

#define MARK "\xe2\x96\x81"

static const char none[] = "null";
static const char byte_level[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}";
static const char replace[] = "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" MARK "\"}";
static const char metaspace[] =
    "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"prepend_scheme\":\"always\",\"split\":true}";
static const char bpe[] = "\"type\":\"BPE\",\"vocab\":{\"h\":0,\"e\":1,\"he\":2,\"\\u0120\":3,\"\\u0120he\":4,\"x\":5},"
                          "\"merges\":[\"h e\",[\"\\u0120\",\"he\"]]";
static const char chars[] = "\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"vocab\":{\"<unk>\":0,\"" MARK
                            "\":1,\"h\":2,\"e\":3,\"he\":4,\"" MARK "he\":5},\"merges\":[\"h e\",\"" MARK " he\"]";
static const char unigram[] = "\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"" MARK
                              "\",-1],[\"h\",-2],[\"e\",-2],[\"he\",-3.5],[\"" MARK "h\",-2.25]]";
static const char word_piece[] = "\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\","
                                 "\"max_input_chars_per_word\":4,\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,\"he\":2,\"##x\":3,"
                                 "\"h\":4,\"##xx\":5,\"!\":6}";

typedef struct parts {
    const char *added, *normalizer, *pre, *post, *decoder, *model;
} parts;

static void put_json(buf *b, const parts *p) {
    buf_printf(
        b,
        "{\"version\":\"1.0\",\"added_tokens\":[%s],\"normalizer\":%s,\"pre_tokenizer\":%s,\"post_processor\":%s,"
        "\"decoder\":%s,\"model\":{%s}}",
        p->added ? p->added : "", p->normalizer ? p->normalizer : none, p->pre ? p->pre : none,
        p->post ? p->post : none, p->decoder ? p->decoder : none, p->model);
}

static err_code read_parts(vocab_spec **s, const parts *p, const char *config, const char *generation, err *e) {
    buf b = {.max = 1u << 20};
    put_json(&b, p);
    spec_sources src = {.name = "m", .tokenizer = {b.ptr, b.len}};
    if (config) src.config = (spec_text_file){config, strlen(config)};
    if (generation) src.generation = (spec_text_file){generation, strlen(generation)};
    err_code rc = vocab_spec_from_json(s, &src, e);
    buf_free(&b);
    return rc;
}

static const char *ids_of(const vocab *v, const char *text, int flags) {
    static char out[4096];
    int32_t *ids;
    size_t n, at = 0;
    err e = {0};
    out[0] = 0;
    if (vocab_encode(v, text, strlen(text), flags, 1000, &ids, &n, &e) != ERR_OK) return "an error";
    for (size_t i = 0; i < n; i++) at += (size_t)snprintf(out + at, sizeof out - at, "%s%d", i ? " " : "", ids[i]);
    mem_free(ids);
    return out;
}

/* The vocabulary of p, and that of the keys it writes; each case is text, flags, ids. */
typedef struct expected {
    const char *text;
    int flags;
    const char *ids;
} expected;
static void check_ids(const parts *p, const char *config, const expected *want, size_t n) {
    vocab_spec *s = NULL;
    vocab *v = NULL, *again = NULL;
    err e = {0};
    CHECK_OK(read_parts(&s, p, config, NULL, &e), e);
    CHECK_OK(vocab_build(&v, s, "m", &e), e);
    CHECK_OK(vocab_through_gguf(&again, s, &e), e);
    for (size_t i = 0; i < n; i++) {
        CHECK_STR(ids_of(v, want[i].text, want[i].flags), want[i].ids);
        CHECK_STR(ids_of(again, want[i].text, want[i].flags), want[i].ids);
    }
    vocab_free(v);
    vocab_free(again);
    vocab_spec_free(s);
}
#define CHECK_IDS(p, config, ...)                                    \
    do {                                                             \
        const expected want_[] = {__VA_ARGS__};                      \
        check_ids(p, config, want_, sizeof want_ / sizeof want_[0]); \
        if (test_bad) return;                                        \
    } while (0)

/* What breaks it: a merge that is lost, an added token's flags, BOS and EOS, a fact that GGUF keys do not carry. */
TEST(byte_level_bpe) {
    const parts p = {
        .added = "{\"id\":6,\"content\":\"<s>\",\"special\":true},{\"id\":7,\"content\":\"<|l|>\",\"special\":true,"
                 "\"lstrip\":true},{\"id\":9,\"content\":\"\\u00e9\",\"special\":false,\"normalized\":true}",
        .normalizer = "{\"type\":\"NFC\"}",
        .pre = byte_level,
        .post =
            "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":"
            "\"A\"}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[6],\"tokens\":[\"<s>\"]}}}",
        .decoder = byte_level,
        .model = bpe};
    CHECK_IDS(&p, NULL, {"he hex", 0, "2 4 5"}, {"<s>he", TOK_PARSE_SPECIAL, "6 2"}, {"he", TOK_ADD_SPECIAL, "6 2"},
              {"he \t<|l|> he", TOK_PARSE_SPECIAL, "2 7 4"}, {"he\xcc\x81", 0, "0 9"}, {"\xc3\xa9", 0, "9"});
    CHECK_IDS(&p,
              "{\"tokenizer_class\":\"LlamaTokenizer\",\"add_bos_token\":false,\"add_eos_token\":true,\"bos_token\":"
              "\"<s>\",\"eos_token\":{\"content\":\"<|l|>\"}}",
              {"he", TOK_ADD_SPECIAL, "2 7"});
}

TEST(bpe_of_characters) {
    const char two[] = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"" MARK "\"},";
    char normalizer[512];
    snprintf(normalizer, sizeof normalizer, "%s%s]}", two, replace);
    const parts with = {.normalizer = normalizer, .model = chars}, without = {.normalizer = replace, .model = chars};
    CHECK_IDS(&with, NULL, {"he he", 0, "5 5"}, {" he", 0, "1 5"}, {"hezzh", 0, "5 0 2"}, {"", 0, ""});
    CHECK_IDS(&without, NULL, {"he he", 0, "4 5"}, {"zzz", 0, "0"});
}

/* Sums by hand: U+2581 he is -1 -3.5 or -2.25 -2 (the better). */
TEST(unigram_takes_the_best_sum) {
    const parts p = {.pre = metaspace, .decoder = metaspace, .model = unigram};
    CHECK_IDS(&p, NULL, {"he", 0, "5 3"}, {"ee he", 0, "1 3 3 5 3"}, {"zz", 0, "1 0"}, {" h", 0, "5"});
}

TEST(word_piece) {
    const parts p = {.added = "{\"id\":1,\"content\":\"[CLS]\",\"special\":true}",
                     .normalizer = "{\"type\":\"BertNormalizer\",\"lowercase\":true}",
                     .pre = "{\"type\":\"BertPreTokenizer\"}",
                     .post = "{\"type\":\"BertProcessing\",\"cls\":[\"[CLS]\",1],\"sep\":[\"[UNK]\",0]}",
                     .decoder = "{\"type\":\"WordPiece\",\"prefix\":\"##\"}",
                     .model = word_piece};
    CHECK_IDS(&p, NULL, {"HEx", 0, "2 3"}, {"h\xc3\xa9xx!", 0, "2 5 6"}, {"hexy he", 0, "0 2"}, {"hexxx", 0, "0"},
              {"h\xe6\x97\xa5h", 0, "4 0 4"}, {"he", TOK_ADD_SPECIAL, "1 2 0"}, {"[CLS]he", TOK_PARSE_SPECIAL, "1 2"});
}

TEST(ends_come_from_the_generation_config) {
    const parts p = {
        .added = "{\"id\":6,\"content\":\"<a>\",\"special\":true},{\"id\":7,\"content\":\"<b>\",\"special\":true}",
        .pre = byte_level,
        .model = bpe};
    vocab_spec *s = NULL;
    vocab *v = NULL;
    err e = {0};
    CHECK_OK(read_parts(&s, &p, "{\"eos_token\":\"<a>\"}", "{\"eos_token_id\":[6,7],\"bos_token_id\":5}", &e), e);
    CHECK_OK(vocab_through_gguf(&v, s, &e), e);
    CHECK_INT(vocab_eos(v), 6);
    CHECK_INT(vocab_bos(v), 5);
    CHECK(vocab_is_end(v, 6) && vocab_is_end(v, 7) && !vocab_is_end(v, 5));
    CHECK_OK(vocab_spec_pad(s, 20, &e), e);
    vocab_free(v);
    CHECK_OK(vocab_through_gguf(&v, s, &e), e);
    CHECK_INT(vocab_size(v), 20);
    vocab_free(v);
    vocab_spec_free(s);
}

/* What breaks it: a part that is taken for another, or passed over. */
TEST(what_is_not_known_is_refused_by_name) {
    static const char *const sequence =
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
        "\"\\\\w+\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"use_regex\":false}]}";
    const struct {
        parts p;
        const char *what;
    } cases[] = {
        {{.normalizer = "{\"type\":\"Lowercase\"}", .pre = byte_level, .model = bpe}, "Lowercase"},
        {{.normalizer = "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AA==\"}",
          .pre = metaspace,
          .model = unigram},
         "Precompiled"},
        {{.normalizer = "{\"type\":\"Prepend\",\"prepend\":\"" MARK "\"}", .model = chars}, "Prepend without Replace"},
        {{.pre = "{\"type\":\"Whitespace\"}", .model = bpe}, "Whitespace"},
        {{.pre = sequence, .model = bpe}, "\\w+"},
        {{.model = bpe}, "known are Metaspace"},
        {{.pre = byte_level, .post = "{\"type\":\"Odd\"}", .model = bpe}, "Odd"},
        {{.pre = byte_level, .decoder = "{\"type\":\"WordPiece\"}", .model = bpe}, "decoder"},
        {{.pre = metaspace, .decoder = "{\"type\":\"Fuse\"}", .model = unigram}, "not stripped"},
        {{.pre = byte_level, .model = "\"type\":\"WordLevel\",\"vocab\":{\"a\":0}"}, "WordLevel"},
        {{.pre = byte_level,
          .model = "\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\""},
         "</w>"},
        {{.pre = byte_level, .model = "\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1"}, "dropout"},
        {{.pre = byte_level, .model = "\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"novel\":1"}, "novel"},
        {{.added = "{\"id\":6,\"content\":\"<a>\",\"single_word\":true}", .pre = byte_level, .model = bpe},
         "single_word"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vocab_spec *s = NULL;
        err e = {0};
        CHECK_INT(read_parts(&s, &cases[i].p, NULL, NULL, &e), ERR_UNSUPPORTED);
        CHECK_HAS(e.msg, cases[i].what);
        CHECK_HAS(e.msg, "known are");
        CHECK(!s);
    }
}

TEST(malformed_files_are_refused) {
    static const char *const texts[] = {
        "",
        "[]",
        "{",
        "{\"model\":{}}x",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1}}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":100000},\"merges\":[]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0.5}}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999}}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]},\"pre_tokenizer\":{\"type\":"
        "\"ByteLevel\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a "
        "b\"]},\"pre_tokenizer\":{\"type\":\"ByteLevel\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\",\"a\"]]},\"pre_tokenizer\":{"
        "\"type\":"
        "\"ByteLevel\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}},\"pre_tokenizer\":{\"type\":\"ByteLevel\"}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud800\":0}}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\x01\":0}}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\xff\":0}}}",
        "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}",
        "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1e48]]}}",
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":4,\"vocab\":[[\"a\",0]]}}",
        "{\"model\":{\"vocab\":{\"a\":0}},\"model\":{\"vocab\":{}}}",
        "{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{}}}",
        "{\"added_tokens\":[{\"id\":1}],\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"a\":0}}}",
        "{\"added_tokens\":[{\"id\":0,\"content\":\"b\"}],\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"a\":0}"
        "}}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        spec_sources src = {.name = "m", .tokenizer = {texts[i], strlen(texts[i])}};
        vocab_spec *s = NULL;
        err e = {0};
        err_code rc = vocab_spec_from_json(&s, &src, &e);
        if (rc != ERR_INVALID) FAIL("%s: %s %s", texts[i], err_name(rc), e.msg);
        CHECK_HAS(e.msg, "m: ");
    }
    buf deep = {.max = 1u << 16};
    buf_puts(&deep, "{\"decoder\":");
    for (int i = 0; i < 1000; i++) buf_putc(&deep, '[');
    spec_sources src = {.name = "m", .tokenizer = {deep.ptr, deep.len}};
    vocab_spec *s = NULL;
    err e = {0};
    CHECK_INT(vocab_spec_from_json(&s, &src, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "nested too deep");
    buf_free(&deep);
}

/* ---- tiktoken ---------------------------------------------------------------------------------------------- */

/* The 256 bytes, "th", "the", "hethe" by base64. */
static void put_ranks(buf *b) {
    for (int i = 0; i < 256; i++) {
        char c = (char)i;
        base64_encode(b, &c, 1);
        buf_printf(b, " %d\n", i);
    }
    buf_puts(b, "aGU= 256\ndGhl 257\naGV0aGU= 258\n");
}

/* What breaks it: merges by order instead of by the rank of the union. */
TEST(ranks_of_tiktoken) {
    buf b = {.max = 1u << 16};
    put_ranks(&b);
    spec_sources src = {.name = "m", .tokenizer = {b.ptr, b.len}, .pre = "cl100k_base"};
    vocab_spec *s = NULL;
    vocab *v = NULL, *again = NULL;
    err e = {0};
    CHECK_OK(vocab_spec_from_tiktoken(&s, &src, &e), e);
    CHECK_OK(vocab_build(&v, s, "m", &e), e);
    CHECK_OK(vocab_through_gguf(&again, s, &e), e);
    const vocab *both[] = {v, again};
    for (int i = 0; i < 2; i++) {
        CHECK_STR(ids_of(both[i], "thethe", 0), "257 257");
        CHECK_STR(ids_of(both[i], "hethe", 0), "258");
        CHECK_STR(ids_of(both[i], "the<|endoftext|>", TOK_PARSE_SPECIAL), "257 100257");
        CHECK(vocab_is_end(both[i], 100257));
    }
    vocab_free(v);
    vocab_free(again);
    vocab_spec_free(s);
    src.pre = "no-such";
    CHECK_INT(vocab_spec_from_tiktoken(&s, &src, &e), ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, "known are llama3, kimi-k2, o200k_harmony");
    src.pre = "kimi-k2";
    CHECK_INT(vocab_spec_from_tiktoken(&s, &src, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "added_tokens_decoder");
    static const char *const bad[] = {"", "aGU=\n", "aGU= x\n", "aGU= 1\naGk= 1\n", "a 1\n", " 1\n", "aGU= 99999999\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        spec_sources broken = {.name = "m", .tokenizer = {bad[i], strlen(bad[i])}, .pre = "llama3"};
        if (vocab_spec_from_tiktoken(&s, &broken, &e) != ERR_INVALID) FAIL("\"%s\"", bad[i]);
    }
    buf_free(&b);
}

/* ---- normal forms ------------------------------------------------------------------------------------------ */

static uint64_t random_state = 1;
static uint32_t rnd(uint32_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % n;
}

/* Against utf8proc's own, which is right but slow on hostile text. */
TEST(forms_are_those_of_utf8proc) {
    static const utf8proc_option_t options[] = {0, UTF8PROC_COMPOSE, UTF8PROC_DECOMPOSE,
                                                (utf8proc_option_t)(UTF8PROC_COMPOSE | UTF8PROC_COMPAT),
                                                (utf8proc_option_t)(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT)};
    static const uint32_t limits[] = {0x80, 0x250, 0x400, 0x3100, 0xe000, 0x20000, 0x30000};
    for (int round = 0; round < 20000; round++) {
        buf text = {.max = 4096}, got = {.max = 65536};
        err e = {0};
        for (uint32_t i = 1 + rnd(12); i; i--) {
            uint32_t cp = rnd(3) ? 1 + rnd(limits[rnd(7)] - 1) : rnd(2) ? 0x300 + rnd(0x70) : 0x1100 + rnd(0x100);
            char c[4];
            if (cp < 0xd800 || cp > 0xdfff) buf_append(&text, c, (size_t)utf8_encode(c, cp));
        }
        int form = 1 + (int)rnd(4);
        utf8proc_uint8_t *want = NULL;
        utf8proc_option_t o = (utf8proc_option_t)(options[form] | UTF8PROC_STABLE);
        utf8proc_ssize_t n =
            utf8proc_map((const utf8proc_uint8_t *)buf_str(&text), (utf8proc_ssize_t)text.len, &want, o);
        CHECK_OK(normal_form((spec_form)form, buf_str(&text), text.len, &got, &e), e);
        bool same = n >= 0 && (size_t)n == got.len && memcmp(buf_str(&got), want, got.len) == 0;
        if (!same)
            fprintf(stderr, "form %d of \"%s\": \"%s\", not \"%s\"\n", form, buf_str(&text), buf_str(&got),
                    (char *)want);
        free(want);
        buf_free(&text);
        buf_free(&got);
        CHECK(same);
    }
}

/* What breaks it: sorting a million marks by moving each past the others. */
TEST(a_million_marks_take_linear_time) {
    buf text = {.max = 1u << 22}, out = {.max = 1u << 24};
    err e = {0};
    while (text.len < 1000000) buf_puts(&text, rnd(2) ? "\xcc\x81" : "\xcc\xa7");
    clock_t t = clock();
    CHECK_OK(normal_form(SPEC_FORM_NFC, text.ptr, text.len, &out, &e), e);
    CHECK((double)(clock() - t) / CLOCKS_PER_SEC < 5);
    CHECK_INT(out.len, text.len);
    buf_free(&text);
    buf_free(&out);
}

TEST(bytes_that_are_no_characters_stay) {
    buf out = {.max = 4096};
    err e = {0};
    CHECK_OK(normal_form(SPEC_FORM_NFC, "e\xcc\x81\xff\xc3 e\xcc", 8, &out, &e), e);
    CHECK_STR(buf_str(&out), "\xc3\xa9\xff\xc3 e\xcc");
    buf_free(&out);
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

static err_code load_all(const parts *p) {
    vocab_spec *s = NULL;
    vocab *v = NULL;
    err e = {0};
    int32_t *ids = NULL;
    size_t n;
    err_code rc = read_parts(&s, p, "{\"bos_token\":\"h\"}", NULL, &e);
    if (rc == ERR_OK) rc = vocab_through_gguf(&v, s, &e);
    if (rc == ERR_OK) rc = vocab_encode(v, "he e\xcc\x81 xx\xe6\x97\xa5", 12, 3, 100, &ids, &n, &e);
    mem_free(ids);
    vocab_free(v);
    vocab_spec_free(s);
    return rc;
}

TEST(every_allocation_may_fail) {
    const parts all[] = {
        {.normalizer = "{\"type\":\"NFC\"}", .pre = byte_level, .model = bpe},
        {.normalizer = replace, .model = chars},
        {.pre = metaspace, .model = unigram},
        {.normalizer = "{\"type\":\"BertNormalizer\"}", .pre = "{\"type\":\"BertPreTokenizer\"}", .model = word_piece}};
    for (size_t i = 0; i < 4; i++) {
        int64_t before = mem_count();
        CHECK_INT(load_all(&all[i]), ERR_OK);
        int64_t n = mem_count() - before;
        for (int64_t k = 0; k < n; k++) {
            mem_fail_after(k);
            err_code rc = load_all(&all[i]);
            mem_fail_after(-1);
            if (rc != ERR_NOMEM && rc != ERR_OK && rc != ERR_INVALID) FAIL("allocation %d: %s", (int)k, err_name(rc));
        }
    }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(byte_level_bpe);
    RUN(bpe_of_characters);
    RUN(unigram_takes_the_best_sum);
    RUN(word_piece);
    RUN(ends_come_from_the_generation_config);
    RUN(what_is_not_known_is_refused_by_name);
    RUN(malformed_files_are_refused);
    RUN(ranks_of_tiktoken);
    RUN(forms_are_those_of_utf8proc);
    RUN(a_million_marks_take_linear_time);
    RUN(bytes_that_are_no_characters_stay);
    RUN(every_allocation_may_fail);
    return test_end();
}
