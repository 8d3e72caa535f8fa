/* Tokenizers against another implementation's ids, against themselves (decode what was encoded), against hostile text
 * and hostile files. */
#include "base/json.h"
#include "base/mem.h"
#include "engine/model_internal.h"
#include "engine/vocab/pretok.h"
#include "harness.h"
#include "unit/engine/vocab_make.h"

#include <dirent.h>
#include <time.h>

/* detok knows a vocabulary through its model. */
struct model {
    const vocab *v;
};
const vocab *model_vocab(const model *m) {
    return m->v;
}

static uint64_t random_state = 1;
static uint32_t rnd(uint32_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % n;
}

static const char *const pres[] = {"default", "gpt-2",   "llama-bpe", "qwen2",        "qwen35",      "tekken",
                                   "gpt-4o",  "kimi-k2", "smollm",    "deepseek-llm", "deepseek-v3", "falcon"};
#define N_PRES (sizeof pres / sizeof pres[0])

static vocab *load_bpe(const char *pre) {
    made m;
    err e = {0};
    vocab *v;
    made_bpe(&m, pre);
    if (made_load(&m, &v, &e) != ERR_OK) fprintf(stderr, "%s: %s\n", pre, e.msg);
    return v;
}
static vocab *load_spm(bool bytes, bool prefix) {
    made m;
    err e = {0};
    vocab *v;
    made_spm(&m, bytes, prefix);
    if (made_load(&m, &v, &e) != ERR_OK) fprintf(stderr, "spm: %s\n", e.msg);
    return v;
}

/* The ids of a text as "1 2 3". */
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

static void decode(const vocab *v, const int32_t *ids, size_t n, bool at_start, bool show, buf *out) {
    model m = {v};
    detok d;
    detok_init(&d, &m, at_start, show);
    for (size_t i = 0; i < n; i++) detok_feed(&d, ids[i], out);
    detok_flush(&d, out);
}

/* ---- against the reference --------------------------------------------------------------------------------- */

static bool oracle_case(const vocab *v, const cJSON *c, const char *name) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(c, "text"));
    const cJSON *want = cJSON_GetObjectItem(c, "tokens");
    bool special = cJSON_IsTrue(cJSON_GetObjectItem(c, "parse_special"));
    int32_t *ids;
    size_t n;
    err e = {0};
    if (vocab_encode(v, text, strlen(text), TOK_ADD_SPECIAL | (special ? TOK_PARSE_SPECIAL : 0), 10000, &ids, &n, &e)) {
        fprintf(stderr, "%s: %s\n", name, e.msg);
        return false;
    }
    bool same = (int)n == cJSON_GetArraySize(want);
    for (size_t i = 0; i < n && same; i++) same = ids[i] == (int)cJSON_GetArrayItem(want, (int)i)->valuedouble;
    if (!same) {
        fprintf(stderr, "%s: \"%s\" (special %d) gives", name, text, special);
        for (size_t i = 0; i < n; i++) fprintf(stderr, " %d", ids[i]);
        fprintf(stderr, "\n    not");
        for (int i = 0; i < cJSON_GetArraySize(want); i++)
            fprintf(stderr, " %d", (int)cJSON_GetArrayItem(want, i)->valuedouble);
        fprintf(stderr, "\n");
    }
    mem_free(ids);
    return same;
}

/* Cases that differ, -1 where the folder could not be read, -2 where polder does not know the tokenizer. */
static int oracle_folder(const char *shared, const char *name, int *n_cases) {
    char path[1400];
    err e = {0};
    gguf *g = NULL;
    vocab *v = NULL;
    cJSON *json = NULL;
    buf text = {.max = 1u << 24};
    int bad = -1;
    snprintf(path, sizeof path, "%s/oracle/%s/model.gguf", shared, name);
    if (access(path, R_OK) != 0) snprintf(path, sizeof path, "%s/models/%s.gguf", shared, name);
    err_code rc = gguf_open(&g, path, &e);
    if (rc == ERR_UNSUPPORTED) { /* of tensors: the same model in F32 has the same tokenizer */
        snprintf(path, sizeof path, "%s/oracle/%s-f32/model.gguf", shared, name);
        if (access(path, R_OK) == 0) rc = gguf_open(&g, path, &e);
    }
    if (rc == ERR_OK) rc = vocab_new(&v, g, &e);
    snprintf(path, sizeof path, "%s/oracle/%s/tokenize.json", shared, name);
    if (rc == ERR_OK) rc = file_read(&text, path, &e);
    if (rc == ERR_OK) rc = json_parse(&json, text.ptr, text.len, path, &e);
    if (rc == ERR_OK) {
        bad = 0;
        const cJSON *c;
        cJSON_ArrayForEach(c, cJSON_GetObjectItem(json, "cases")) {
            bad += !oracle_case(v, c, name);
            ++*n_cases;
        }
    } else if (rc == ERR_UNSUPPORTED) {
        bad = -2;
    } else {
        fprintf(stderr, "%s: %s\n", name, e.msg);
    }
    cJSON_Delete(json);
    buf_free(&text);
    vocab_free(v);
    gguf_free(g);
    return bad;
}

/* What breaks it: any rule of a tokenizer that differs from llama.cpp's. */
TEST(oracle_ids) {
    const char *shared = test_shared();
    if (!shared) SKIP("no ../shared");
    char path[1400];
    snprintf(path, sizeof path, "%s/oracle", shared);
    DIR *d = opendir(path);
    if (!d) SKIP("no ../shared/oracle");
    int folders = 0, cases = 0, bad = 0;
    for (struct dirent *de; (de = readdir(d));) {
        snprintf(path, sizeof path, "%s/oracle/%s/tokenize.json", shared, de->d_name);
        if (de->d_name[0] == '.' || access(path, R_OK) != 0) continue;
        int before = cases, r = oracle_folder(shared, de->d_name, &cases);
        if (r >= 0) printf("   tokenize %s: %d cases, %d differ\n", de->d_name, cases - before, r);
        if (r == -2)
            printf("   %s: a tokenizer that polder does not know\n", de->d_name);
        else
            folders++;
        bad += r == -1 ? 1 : r > 0 ? r : 0;
        if (r == -2) bad++;
    }
    closedir(d);
    printf("   %d cases of %d tokenizers\n", cases, folders);
    CHECK_INT(bad, 0);
    CHECK(folders >= 10);
}

/* ---- pre-tokenizers ---------------------------------------------------------------------------------------- */

static err_code join_word(void *ctx, const char *p, size_t n) {
    buf *b = ctx;
    if (b->len) buf_putc(b, '|');
    buf_append(b, p, n);
    return ERR_OK;
}

/* What breaks it: a scanner that cuts otherwise than its regular expression. Expected cuts are by hand. */
TEST(pretok_cuts) {
    static const char *const cases[][3] = {
        {"gpt-2", "Hello  world", "Hello| | world"},
        {"gpt-2", "it's 'S 12a", "it|'s| '|S| 12|a"},
        {"gpt-2", "a\n\n b \n", "a|\n\n| b| \n"},
        {"gpt-2", "x=1;  ", "x|=|1|;|  "},
        {"gpt-2", "\t\tx", "\t|\t|x"},
        {"llama-bpe", "it'S 12345", "it|'S| |123|45"},
        {"llama-bpe", "(foo) +=\n\nx", "(foo|)| +=\n\n|x"},
        {"llama-bpe", "a \n \n  b", "a| \n \n| | b"},
        {"llama-bpe", "\tx  ", "\tx|  "},
        {"llama-bpe", "\n\tx", "\n|\tx"},
        {"qwen2", "a12 b", "a|1|2| b"},
        {"qwen2", "e\xcc\x81t", "e|\xcc\x81t"},
        {"qwen35", "e\xcc\x81t", "e\xcc\x81t"},
        {"qwen35", "!\xcc\x81 \xcc\x81", "!\xcc\x81| \xcc\x81"},
        {"gpt-4o", "helloWORLDfoo", "hello|WORLDfoo"},
        {"gpt-4o", "He'll I'VE ABC's", "He'll| I'VE| ABC's"},
        {"gpt-4o", "a//b/\n12345", "a|//|b|/\n|123|45"},
        {"gpt-4o",
         "\xc3\x89"
         "A\xc3\xa9\xc3\x89",
         "\xc3\x89"
         "A\xc3\xa9|\xc3\x89"},
        {"gpt-4o",
         "\xe3\x81\x82"
         "AB",
         "\xe3\x81\x82|AB"},
        {"tekken", "it's 42 MiXeD", "it|'s| |4|2| Mi|Xe|D"},
        {"kimi-k2",
         "ab\xe6\x97\xa5\xe6\x9c\xac"
         "cd",
         "ab|\xe6\x97\xa5\xe6\x9c\xac|cd"},
        {"smollm", "ab 12", "ab| |1|2"},
        {"default", "a.b 1234", "a|.|b| |123|4"},
        {"deepseek-v3", "12345 foo(bar)", "123|45| foo|(bar|)"},
        {"deepseek-v3",
         "a\xe3\x81\x82"
         "b",
         "a|\xe3\x81\x82|b"},
        {"deepseek-llm", "a\nb c  ", "a|\n|b| c|  "},
        {"deepseek-llm", "x 12", "x| |12"},
        {"falcon", "12345-ab", "123|45|-|ab"},
        {"falcon-digits", "a 12345-ab", "a| |123|45|-|ab"},
        {"falcon-digits", "\xd0\xbc.", "\xd0|\xbc|."},
        {"kimi-k2", "a\xe3\x80\x85\xe3\x80\x87\xe2\xba\x80 b", "a|\xe3\x80\x85\xe3\x80\x87\xe2\xba\x80| b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        buf b = {.max = 4096};
        const pretok *p = pretok_find(cases[i][0], strlen(cases[i][0]));
        CHECK(p);
        pretok_split(p, cases[i][1], strlen(cases[i][1]), join_word, &b);
        bool same = strcmp(buf_str(&b), cases[i][2]) == 0;
        if (!same)
            fprintf(stderr, "%s \"%s\": \"%s\", not \"%s\"\n", cases[i][0], cases[i][1], buf_str(&b), cases[i][2]);
        buf_free(&b);
        CHECK(same);
    }
    CHECK(!pretok_find("gpt-", 4));
    CHECK(!pretok_find("gpt-2 phi-2", 11));
    CHECK(!pretok_find("", 0));
    CHECK(pretok_find("phi-2", 5) == pretok_find("gpt-2", 5));
}

typedef struct stretch {
    const char *s;
    size_t at;
    bool ok;
} stretch;
static err_code next_word(void *ctx, const char *p, size_t n) {
    stretch *t = ctx;
    t->ok = t->ok && n && p == t->s + t->at;
    t->at += n;
    return ERR_OK;
}

/* ---- random texts ------------------------------------------------------------------------------------------ */

/* Words, spaces, digits and marks that pre-tokenizers treat specially, and characters of all planes. */
static void random_text(buf *b, size_t n) {
    static const char *const parts[] = {" ",
                                        "  ",
                                        "\n",
                                        "\r\n",
                                        "\t",
                                        "'s",
                                        "'LL",
                                        "'",
                                        "the",
                                        " the",
                                        "Hello",
                                        "aaaa",
                                        "12",
                                        "/",
                                        "(",
                                        "\xc2\xa0",
                                        "\xe3\x80\x80",
                                        "e\xcc\x81",
                                        "\xcc\x81",
                                        "\xe6\x97\xa5",
                                        "\xe3\x81\x82",
                                        "\xc3\x89",
                                        "\xc7\x85",
                                        "<|tool",
                                        "<|",
                                        "\xf0\x9f\x98\x80"};
    while (b->len < n) {
        if (rnd(3)) {
            buf_puts(b, parts[rnd(sizeof parts / sizeof parts[0])]);
            continue;
        }
        static const uint32_t limits[] = {0x80, 0x800, 0x10000, 0x110000};
        char c[4];
        uint32_t cp = rnd(limits[rnd(4)]);
        int k = utf8_encode(c, cp == 0x2581 ? ' ' : cp);
        buf_append(b, c, (size_t)k);
    }
}
static void random_bytes_text(buf *b, size_t n) {
    while (b->len < n) {
        if (rnd(2))
            random_text(b, b->len + 3);
        else
            buf_putc(b, (char)rnd(256));
    }
}

/* What breaks it: a word that is skipped, doubled or reordered by any stage. */
TEST(pretok_covers_every_byte) {
    for (size_t k = 0; k < N_PRES; k++) {
        const pretok *p = pretok_find(pres[k], strlen(pres[k]));
        for (int round = 0; round < 300; round++) {
            buf b = {.max = 4096};
            random_bytes_text(&b, 1 + rnd(80));
            stretch t = {b.ptr, 0, true};
            pretok_split(p, b.ptr, b.len, next_word, &t);
            bool ok = t.ok && t.at == b.len;
            buf_free(&b);
            CHECK(ok);
        }
    }
}

/* encode, decode, compare; bytes that are no characters come back as they were (raw) where detok is not between. */
static bool round_trip(const vocab *v, const buf *text, bool raw) {
    int32_t *ids;
    size_t n;
    err e = {0};
    buf back = {.max = 1u << 20};
    if (vocab_encode(v, text->ptr, text->len, 0, 1u << 20, &ids, &n, &e) != ERR_OK) return false;
    if (raw)
        for (size_t i = 0; i < n; i++) vocab_token_bytes(v, ids[i], false, &back);
    else
        decode(v, ids, n, true, false, &back);
    bool same = back.len == text->len && memcmp(buf_str(&back), buf_str(text), back.len) == 0;
    if (!same) fprintf(stderr, "%s: \"%s\" comes back as \"%s\"\n", vocab_kind(v), buf_str(text), buf_str(&back));
    buf_free(&back);
    mem_free(ids);
    return same;
}

TEST(bpe_gives_back_what_it_got) {
    for (size_t k = 0; k < N_PRES; k++) {
        vocab *v = load_bpe(pres[k]);
        CHECK(v);
        for (int round = 0; round < 200; round++) {
            buf b = {.max = 4096};
            bool raw = round & 1;
            if (raw)
                random_bytes_text(&b, 1 + rnd(100));
            else
                random_text(&b, 1 + rnd(100));
            bool same = round_trip(v, &b, raw);
            buf_free(&b);
            CHECK(same);
        }
        vocab_free(v);
    }
}

TEST(spm_gives_back_what_it_got) {
    for (int prefix = 0; prefix < 2; prefix++) {
        vocab *v = load_spm(true, prefix);
        CHECK(v);
        for (int round = 0; round < 500; round++) {
            buf b = {.max = 4096};
            random_text(&b, 1 + rnd(100));
            bool same = round_trip(v, &b, false);
            buf_free(&b);
            CHECK(same);
        }
        vocab_free(v);
    }
}

/* ---- merging ----------------------------------------------------------------------------------------------- */

/* The slow way: at each step the pair of the lowest rank, leftmost first. */
static void merge_slowly(const vocab *v, const char *s, size_t n, buf *out, bool spm) {
    char *cut = mem_zalloc(n + 1); /* cut[i]: a symbol begins at i */
    for (size_t i = 0; i <= n; i++) cut[i] = !spm || ((uint8_t)s[i] & 0xc0) != 0x80;
    cut[n] = 1;
    for (;;) {
        size_t best = 0;
        uint32_t lowest = UINT32_MAX;
        for (size_t a = 0; a < n; a++) {
            if (!cut[a]) continue;
            size_t b = a + 1, c;
            while (!cut[b]) b++;
            if (b == n) break;
            for (c = b + 1; !cut[c];) c++;
            /* made_bpe and made_spm list what they merge first-come first: ranks are ids */
            char piece[64];
            if (c - a >= sizeof piece) continue;
            memcpy(piece, s + a, c - a);
            uint32_t rank = UINT32_MAX;
            for (uint32_t id = 0; id < vocab_size(v) && rank == UINT32_MAX; id++) {
                buf t = {.max = 64};
                if (!vocab_is_special(v, (int32_t)id)) vocab_token_bytes(v, (int32_t)id, false, &t);
                if (t.len == c - a && t.len > 1 && memcmp(t.ptr, piece, t.len) == 0 && id > 259) rank = id;
                buf_free(&t);
            }
            if (rank < lowest) {
                lowest = rank;
                best = b;
            }
        }
        if (lowest == UINT32_MAX) break;
        cut[best] = 0;
    }
    for (size_t i = 0; i < n; i++) {
        if (cut[i] && i) buf_putc(out, '|');
        buf_putc(out, s[i]);
    }
    mem_free(cut);
}

/* What breaks it: a stale entry of the heap that is taken, or one that is lost. Words on both sides of the length at
 * which the heap takes over. SentencePiece's spaces are not in these words. */
TEST(merging_is_the_slow_way_but_fast) {
    vocab *bpe = load_bpe("gpt-2"), *spm = load_spm(true, false);
    CHECK(bpe && spm);
    for (int round = 0; round < 400; round++) {
        const vocab *v = round & 1 ? spm : bpe;
        buf word = {.max = 4096}, want = {.max = 4096}, got = {.max = 4096};
        size_t len = 1 + rnd(40);
        for (size_t i = 0; i < len; i++) buf_putc(&word, "thealll"[rnd(7)]);
        merge_slowly(v, word.ptr, word.len, &want, v == spm);
        int32_t *ids;
        size_t n;
        err e = {0};
        CHECK_OK(vocab_encode(v, word.ptr, word.len, 0, 1000, &ids, &n, &e), e);
        for (size_t i = 0; i < n; i++) {
            if (i) buf_putc(&got, '|');
            vocab_token_bytes(v, ids[i], false, &got);
        }
        mem_free(ids);
        bool same = strcmp(buf_str(&got), buf_str(&want)) == 0;
        if (!same) fprintf(stderr, "%s: %s, not %s\n", vocab_kind(v), buf_str(&got), buf_str(&want));
        buf_free(&word);
        buf_free(&want);
        buf_free(&got);
        CHECK(same);
    }
    vocab_free(bpe);
    vocab_free(spm);
}

/* ---- special tokens ---------------------------------------------------------------------------------------- */

TEST(special_tokens_of_bpe) {
    vocab *v = load_bpe("llama-bpe");
    CHECK(v);
    CHECK_STR(vocab_kind(v), "bpe/llama-bpe");
    CHECK_STR(ids_of(v, "a<|end|>b", 0), "97 60 124 101 110 100 124 62 98");
    CHECK_STR(ids_of(v, "a<|end|>b", TOK_PARSE_SPECIAL), "97 258 98");
    CHECK_STR(ids_of(v, "<|end|", TOK_PARSE_SPECIAL), "60 124 101 110 100 124");
    CHECK_STR(ids_of(v, "<|tool|><|tool|>", 0), "256 256");
    CHECK_STR(ids_of(v, "", TOK_ADD_SPECIAL), "257"); /* llama-bpe adds BOS by itself */
    CHECK_STR(ids_of(v, "", 0), "");
    CHECK_INT(vocab_bos(v), MADE_BPE_BOS);
    CHECK_INT(vocab_eos(v), MADE_BPE_END);
    CHECK(vocab_is_end(v, MADE_BPE_END) && !vocab_is_end(v, MADE_BPE_BOS) && !vocab_is_end(v, -1));
    CHECK(vocab_is_special(v, MADE_BPE_END) && !vocab_is_special(v, MADE_BPE_USER) && !vocab_is_special(v, 1 << 30));
    CHECK(!vocab_drops_first_space(v));
    buf b = {.max = 100};
    vocab_token_bytes(v, MADE_BPE_END, false, &b);
    CHECK_INT(b.len, 0);
    vocab_token_bytes(v, MADE_BPE_END, true, &b);
    vocab_token_text(v, MADE_BPE_BOS, &b);
    vocab_token_bytes(v, MADE_BPE_USER, false, &b);
    vocab_token_bytes(v, -5, true, &b);
    CHECK_STR(b.ptr, "<|end|><|bos|><|tool|>");
    buf_free(&b);
    vocab_free(v);
    v = load_bpe("qwen2");
    CHECK_STR(ids_of(v, "", TOK_ADD_SPECIAL), "");
    vocab_free(v);
}

/* What breaks it: text that merging turns into a control token ("<s" and ">" are pieces that meet). */
TEST(special_tokens_of_spm) {
    vocab *v = load_spm(true, true);
    CHECK(v);
    CHECK_STR(vocab_kind(v), "spm");
    CHECK(vocab_drops_first_space(v));
    const char *plain = ids_of(v, "<s>", 0);
    CHECK(!strstr(plain, " 1 ") && strcmp(plain, "1") != 0);
    buf text = {.max = 100}, bytes = {.max = 100};
    int32_t *ids;
    size_t n;
    err e = {0};
    CHECK_OK(vocab_encode(v, "<s></s><unk><0x41>", 18, 0, 100, &ids, &n, &e), e);
    for (size_t i = 0; i < n; i++) {
        CHECK(!vocab_is_special(v, ids[i]));
        CHECK(ids[i] != MADE_SPM_BYTES + 0x41);
    }
    decode(v, ids, n, true, false, &text);
    CHECK_STR(text.ptr, "<s></s><unk><0x41>");
    mem_free(ids);
    /* a space goes before the first piece and before what follows a special token */
    CHECK_STR(ids_of(v, "the", TOK_ADD_SPECIAL), "1 264");
    CHECK_STR(ids_of(v, "the</s>the", TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL), "1 264 2 264");
    CHECK_STR(ids_of(v, "the<|tool|>the", 0), "264 259 264");
    CHECK_STR(ids_of(v, "</s>", TOK_PARSE_SPECIAL), "2");
    CHECK_STR(ids_of(v, "", TOK_ADD_SPECIAL), "1");
    CHECK_STR(ids_of(v, "b", 0), "274 101"); /* a character without a piece is its bytes */
    vocab_free(v);
    v = load_spm(true, false);
    CHECK_STR(ids_of(v, "the", TOK_ADD_SPECIAL), "1 261 277");
    vocab_free(v);
    v = load_spm(false, false);
    CHECK_STR(ids_of(v, "tb\xc3\xbc", 0), "19 0 0"); /* without bytes: one unknown token a character */
    vocab_free(v);
    buf_free(&text);
    buf_free(&bytes);
}

TEST(limits_of_encoding) {
    vocab *v = load_bpe("gpt-2");
    CHECK(v);
    int32_t *ids;
    size_t n;
    err e = {0};
    CHECK_INT(vocab_encode(v, "xyz", 3, 0, 2, &ids, &n, &e), ERR_TOO_LONG);
    CHECK_HAS(e.msg, "more than 2 tokens");
    CHECK(!ids && !n);
    CHECK_OK(vocab_encode(v, "xyz", 3, 0, 3, &ids, &n, &e), e);
    CHECK_INT(n, 3);
    mem_free(ids);
    CHECK_INT(vocab_encode(v, "x", (size_t)2 << 30, 0, 3, &ids, &n, &e), ERR_TOO_LARGE);
    vocab_free(v);
}

/* ---- streaming out ----------------------------------------------------------------------------------------- */

TEST(detok_never_gives_half_a_character) {
    vocab *v = load_bpe("gpt-2");
    CHECK(v);
    model m = {v};
    for (int round = 0; round < 500; round++) {
        buf b = {.max = 4096}, whole = {.max = 4096}, out = {.max = 4096}, again = {.max = 4096};
        random_bytes_text(&b, 1 + rnd(40));
        detok d;
        detok_init(&d, &m, true, false);
        bool valid = true;
        for (size_t i = 0; i < b.len; i++) { /* byte tokens: the id is the byte */
            size_t before = out.len;
            detok_feed(&d, (uint8_t)b.ptr[i], &out);
            valid = valid && utf8_valid(buf_str(&out) + before, out.len - before);
            valid = valid && d.n_held <= 3;
        }
        detok_flush(&d, &out);
        CHECK(valid && d.n_held == 0);
        int32_t *ids;
        size_t n;
        err e = {0};
        CHECK_OK(vocab_encode(v, b.ptr, b.len, 0, 4096, &ids, &n, &e), e);
        decode(v, ids, n, true, false, &again); /* other tokens, the same bytes */
        mem_free(ids);
        CHECK_STR(buf_str(&again), buf_str(&out));
        if (utf8_valid(b.ptr, b.len)) CHECK_STR(buf_str(&out), buf_str(&b));
        buf_free(&b);
        buf_free(&whole);
        buf_free(&out);
        buf_free(&again);
    }
    vocab_free(v);
}

TEST(detok_of_broken_characters) {
    vocab *v = load_bpe("gpt-2");
    CHECK(v);
    static const char *const cases[][2] = {
        {"\xe6\x97\xa5", "\xe6\x97\xa5"},
        {"\xe6\x97", "\xef\xbf\xbd"},
        {"\xe6\x97"
         "a",
         "\xef\xbf\xbd"
         "a"},
        {"\xe6\xe6\x97\xa5", "\xef\xbf\xbd\xe6\x97\xa5"},
        {"\xff\xfe", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf0\x9f\x98", "\xef\xbf\xbd"},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {" x", " x"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        buf out = {.max = 100};
        int32_t ids[8];
        size_t n = 0;
        for (const char *p = cases[i][0]; *p; p++) ids[n++] = (uint8_t)*p;
        decode(v, ids, n, true, false, &out);
        CHECK_STR(buf_str(&out), cases[i][1]);
        buf_free(&out);
    }
    vocab_free(v);
}

TEST(detok_drops_only_the_first_space) {
    vocab *v = load_spm(true, true);
    CHECK(v);
    buf out = {.max = 100};
    const int32_t the = 264, ids[] = {MADE_SPM_BOS, the, the, MADE_SPM_EOS};
    decode(v, ids, 4, true, false, &out);
    CHECK_STR(out.ptr, "the the");
    buf_reset(&out);
    decode(v, ids, 4, false, true, &out);
    CHECK_STR(out.ptr, "<s> the the</s>");
    buf_free(&out);
    vocab_free(v);
}

/* ---- hostile texts ----------------------------------------------------------------------------------------- */

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Megabytes a second; negative where encoding failed or lost a byte. */
static double speed(const vocab *v, const char *unit, size_t n) {
    buf text = {.max = 2 * n}, back = {.max = 4 * n};
    size_t len = strlen(unit), total = 0;
    while (text.len < n) buf_append(&text, unit, len);
    int32_t *ids;
    size_t k;
    err e = {0};
    double t = cpu_seconds();
    err_code rc = vocab_encode(v, text.ptr, text.len, TOK_PARSE_SPECIAL, 4 * n, &ids, &k, &e);
    t = cpu_seconds() - t;
    for (size_t i = 0; rc == ERR_OK && i < k; i++) {
        back.len = 0;
        vocab_token_bytes(v, ids[i], true, &back);
        total += back.len;
    }
    bool prefix = vocab_drops_first_space(v);
    double r = rc == ERR_OK && total == text.len + prefix ? (double)text.len / 1e6 / (t + 1e-9) : -1;
    if (rc == ERR_OK) mem_free(ids);
    buf_free(&text);
    buf_free(&back);
    return r;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HOSTILE_LEN (1u << 17) /* sanitizers are ten times slower */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HOSTILE_LEN (1u << 17)
#endif
#endif
#ifndef HOSTILE_LEN
#define HOSTILE_LEN (1u << 20)
#endif

/* What breaks it: a scan or a merge that is not linear (up to a logarithm). At a megabyte anything quadratic is under
 * 0.01 MB/s; the bar is low because sanitizers and neighbours slow this down, the figure itself is printed. */
TEST(hostile_texts_take_linear_time) {
    static char random_letters[1 << 16];
    static const struct {
        const char *name, *unit;
    } texts[] = {
        {"letters", "a"},
        {"spaces", " "},
        {"marks", "\xcc\x81"},
        {"broken UTF-8", "\xe6\x97\xff"},
        {"newlines", "\n"},
        {"digits", "7"},
        {"capitals", "A"},
        {"space newline", " \n"},
        {"almost special", "<|"},
        {"punctuation", "./"},
        {"apostrophes", "'"},
        {"other letters", "\xe3\x81\x82"},
        {"mixed case", "aB"},
        {"letter capital", "\xe3\x81\x82"
                           "A"},
        {"prose", "the hello world, it's 12 "},
        {"letters at random", random_letters},
    };
    for (size_t i = 0; i + 1 < sizeof random_letters; i++) random_letters[i] = "thealllaat"[rnd(10)];
    double slowest = 1e9;
    for (size_t k = 0; k <= N_PRES; k++) {
        vocab *v = k < N_PRES ? load_bpe(pres[k]) : load_spm(true, true);
        CHECK(v);
        double lowest = 1e9;
        const char *which = "";
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            double r = speed(v, texts[i].unit, HOSTILE_LEN);
            if (r < 0) FAIL("%s: %s: lost bytes", vocab_kind(v), texts[i].name);
            if (r < lowest) {
                lowest = r;
                which = texts[i].name;
            }
        }
        printf("   %-18s slowest %6.1f MB/s (on %s), prose %6.1f MB/s\n", vocab_kind(v), lowest, which,
               speed(v, "the hello world, it's 12 ", HOSTILE_LEN));
        if (lowest < slowest) slowest = lowest;
        vocab_free(v);
    }
    CHECK(slowest > 0.2);
}

/* A sequence of tokens is the encoding of its text if and only if each two neighbours are that of theirs: what breaks
 * it is a window whose end is seen in its tokens, or two windows joined where they do not meet. */
TEST(long_words_are_whole) {
    static const char *const letters[] = {"thealll", "aaaaaaab", "a", "thea", "al"};
    for (int round = 0; round < 20; round++) {
        vocab *v = round & 1 ? load_spm(true, false) : load_bpe("gpt-2");
        CHECK(v);
        buf word = {.max = 1u << 20}, two = {.max = 4096};
        const char *set = letters[rnd(5)];
        size_t len = 1000 + rnd(9000), n, m;
        for (size_t i = 0; i < len; i++) buf_putc(&word, set[rnd((uint32_t)strlen(set))]);
        int32_t *ids, *pair;
        err e = {0};
        CHECK_OK(vocab_encode(v, word.ptr, word.len, 0, SIZE_MAX, &ids, &n, &e), e);
        size_t bytes = 0;
        for (size_t i = 0; i < n; i++) {
            buf_reset(&two);
            vocab_token_bytes(v, ids[i], false, &two);
            CHECK(two.len <= word.len - bytes && memcmp(two.ptr, word.ptr + bytes, two.len) == 0);
            bytes += two.len;
            if (i + 1 == n) break;
            vocab_token_bytes(v, ids[i + 1], false, &two);
            CHECK_OK(vocab_encode(v, two.ptr, two.len, 0, SIZE_MAX, &pair, &m, &e), e);
            bool same = m == 2 && pair[0] == ids[i] && pair[1] == ids[i + 1];
            mem_free(pair);
            CHECK(same);
        }
        CHECK_INT(bytes, word.len);
        mem_free(ids);
        buf_free(&word);
        buf_free(&two);
        vocab_free(v);
    }
}

/* ---- hostile files ----------------------------------------------------------------------------------------- */

static void spoil(made *m, int how) {
    static const char *const bad_merges[] = {"th", " the", "the ", "a  b", "x y", "\xe2\x82\xac a", "t h e"};
    if (how < 7) {
        edit_put(&m->merges, strlen(bad_merges[how]), 8);
        buf_puts(&m->merges, bad_merges[how]);
        m->n_merges++;
    }
}

static void expect_refusal(made *m, const char *what) {
    vocab *v;
    err e = {0};
    err_code rc = made_load(m, &v, &e);
    vocab_free(v);
    CHECK(rc == ERR_INVALID || rc == ERR_UNSUPPORTED);
    CHECK_HAS(e.msg, what);
}

TEST(files_that_make_no_sense_are_refused) {
    made m;
    for (int i = 0; i < 7; i++) {
        made_bpe(&m, "gpt-2");
        spoil(&m, i);
        expect_refusal(&m, "merge");
        if (test_bad) FAIL("merge %d", i);
    }
    made_bpe(&m, "gpt-2");
    buf_free(&m.merges);
    expect_refusal(&m, "tokenizer.ggml.merges is missing");
    made_bpe(&m, "no-such");
    expect_refusal(&m, "tokenizer.ggml.pre is \"no-such\"; known are default, gpt-2,");
    made_init(&m);
    made_string(&m, "tokenizer.ggml.model", "rwkv");
    expect_refusal(&m, "tokenizer.ggml.model is \"rwkv\"; polder reads llama");
    made_init(&m);
    expect_refusal(&m, "tokenizer.ggml.model is \"\"");
    made_init(&m);
    made_string(&m, "tokenizer.ggml.model", "llama");
    expect_refusal(&m, "tokenizer.ggml.tokens is missing");
    made_bpe(&m, "gpt-2");
    m.types.ptr[0] = 7;
    expect_refusal(&m, "token 0 has type 7");
    made_bpe(&m, "gpt-2");
    made_u32(&m, "tokenizer.ggml.eot_token_id", 1u << 30);
    expect_refusal(&m, "tokenizer.ggml.eot_token_id");
    made_spm(&m, true, true);
    memcpy(m.scores.ptr + 400, "\0\0\xc0\x7f", 4); /* not a number */
    expect_refusal(&m, "100 is not a number");
    made_spm(&m, true, true);
    made_token(&m, "<0xZZ>", 6, 6, 0);
    expect_refusal(&m, "has the type of a byte");
    made_spm(&m, true, true);
    buf_free(&m.scores);
    expect_refusal(&m, "tokenizer.ggml.scores has 0 entries");
    char long_text[5000];
    memset(long_text, 'x', sizeof long_text);
    made_bpe(&m, "gpt-2");
    made_token(&m, long_text, sizeof long_text, 1, 0);
    expect_refusal(&m, "has 5000 bytes, at most 4096");
    made_bpe(&m, "gpt-2");
    made_token(&m, long_text, 600, 3, 0);
    expect_refusal(&m, "has 600 bytes, at most 512");
    made_init(&m);
    made_token(&m, "a", 1, 1, 0);
    made_string(&m, "tokenizer.ggml.model", "llama");
    made_bool(&m, "tokenizer.ggml.add_eos_token", true); /* the default, id 2, is not in a vocabulary of one */
    expect_refusal(&m, "tokenizer.ggml.add_eos_token is true, but the file names no EOS token");
}

/* What breaks it: a leak (under ASan), a crash or another error code where memory runs out. */
TEST(every_allocation_may_fail) {
    for (int spm = 0; spm < 2; spm++) {
        made m;
        buf file = {.max = 1u << 24};
        err e = {0};
        gguf *g;
        if (spm)
            made_spm(&m, true, true);
        else
            made_bpe(&m, "default");
        made_file(&m, &file);
        made_free(&m);
        CHECK_OK(gguf_open_memory(&g, file.ptr, file.len, "made.gguf", &e), e);
        buf text = {.max = 4096};
        random_text(&text, 2000);
        bool done = false;
        int n = 0;
        for (; !done && n < 1000; n++) {
            vocab *v = NULL;
            int32_t *ids = NULL;
            size_t k;
            mem_fail_after(n);
            err_code rc = vocab_new(&v, g, &e);
            if (rc == ERR_OK) rc = vocab_encode(v, text.ptr, text.len, 0, 10000, &ids, &k, &e);
            mem_fail_after(-1);
            mem_free(ids);
            vocab_free(v);
            CHECK(rc == ERR_OK || rc == ERR_NOMEM);
            done = rc == ERR_OK;
        }
        CHECK(done && n > 8);
        buf_free(&text);
        buf_free(&file);
        gguf_free(g);
    }
}

/* Leaves bytes of one kind where the next functions have what they do not set. */
__attribute__((noinline)) static void dirty_stack(int byte) {
    volatile uint8_t room[1 << 16];
    for (size_t i = 0; i < sizeof room; i++) room[i] = (uint8_t)byte;
}

static void dirty(int byte) {
    for (size_t n = 16; n <= 1 << 16; n += 16) {
        void *p = mem_alloc(n); /* what is allocated next gets it again */
        if (p) memset(p, byte, n);
        mem_free(p);
    }
    dirty_stack(byte);
}

/* What breaks it: bytes of an image that nobody set (an empty place, between fields), so that two packed files of one
 * model differ. */
TEST(images_of_one_vocabulary_are_equal) {
    for (int spm = 0; spm < 2; spm++) {
        buf image[2] = {{.max = 1u << 28}, {.max = 1u << 28}};
        for (int i = 0; i < 2; i++) {
            err e = {0};
            dirty(i ? 0xff : 0x55);
            vocab *v = spm ? load_spm(true, true) : load_bpe("llama-bpe");
            CHECK(v);
            dirty(i ? 0xff : 0x55);
            CHECK_OK(vocab_image_write(v, &image[i], &e), e);
            vocab_free(v);
        }
        CHECK(image[0].len > 0 && image[0].len == image[1].len);
        CHECK(memcmp(image[0].ptr, image[1].ptr, image[0].len) == 0);
        buf_free(&image[0]);
        buf_free(&image[1]);
    }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(oracle_ids);
    RUN(pretok_cuts);
    RUN(pretok_covers_every_byte);
    RUN(bpe_gives_back_what_it_got);
    RUN(spm_gives_back_what_it_got);
    RUN(merging_is_the_slow_way_but_fast);
    RUN(long_words_are_whole);
    RUN(special_tokens_of_bpe);
    RUN(special_tokens_of_spm);
    RUN(limits_of_encoding);
    RUN(detok_never_gives_half_a_character);
    RUN(detok_of_broken_characters);
    RUN(detok_drops_only_the_first_space);
    RUN(hostile_texts_take_linear_time);
    RUN(files_that_make_no_sense_are_refused);
    RUN(every_allocation_may_fail);
    RUN(images_of_one_vocabulary_are_equal);
    return test_end();
}
