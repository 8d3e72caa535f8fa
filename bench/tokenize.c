/* Speed of tokenizers on hostile text: bench_tokenize json|spm|tiktoken|gguf PATH [FAMILY]
 * (spm: a tokenizer.json of unigram's as if its scores were SentencePiece BPE's)
 *
 * For each class of text, 1 MB of it through the whole vocabulary, megabytes a second, the best of five; and the time
 * to load. The text is one long word without a space, odd characters, one character over and over, marks that combine,
 * emoji: what makes a tokenizer slow that is not linear. */
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/vocab/vocab_spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TEXT_LEN 1000000u

static uint64_t state = 1;
static uint32_t rnd(uint32_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % n;
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void put_cp(buf *b, uint32_t cp) {
    char c[4];
    int k = utf8_encode(c, cp >= 0xd800 && cp < 0xe000 ? 'x' : cp);
    buf_append(b, c, (size_t)k);
}

static void put_unit(buf *b, const char *unit) {
    buf_puts(b, unit);
}
static void put_letter(buf *b, const char *letters) {
    buf_putc(b, letters[rnd((uint32_t)strlen(letters))]);
}
static void put_any(buf *b, const char *unused) {
    static const uint32_t limits[] = {0x80, 0x800, 0x3000, 0x10000, 0x20000, 0x110000};
    put_cp(b, rnd(limits[rnd(6)]));
}
static void put_mark(buf *b, const char *unused) {
    put_cp(b, 0x300 + rnd(0x70));
}
static void put_han(buf *b, const char *unused) {
    put_cp(b, 0x4e00 + rnd(0x5000));
}
static void put_byte(buf *b, const char *unused) {
    buf_putc(b, (char)(0x80 + rnd(0x80)));
}
static void put_punctuation(buf *b, const char *unused) {
    static const char marks[] = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
    buf_putc(b, marks[rnd(sizeof marks - 1)]);
}

static const struct text_class {
    const char *name;
    void (*put)(buf *b, const char *unit);
    const char *unit;
} classes[] = {
    {"prose", put_unit, "The river ran under the bridge, and nobody at the mill could say why it was so high. "},
    {"one letter", put_unit, "a"},
    {"one word of random letters", put_letter, "abcdefghijklmnopqrstuvwxyz"},
    {"one word of few letters", put_letter, "aeinrst"},
    {"one word of ab", put_unit, "ab"},
    {"one word of syllables", put_unit, "theinganderestoration"},
    {"upper and lower case", put_unit, "aB"},
    {"digits", put_letter, "0123456789"},
    {"spaces", put_unit, " "},
    {"newlines", put_unit, "\n"},
    {"tabs and spaces", put_unit, "\t "},
    {"one mark of punctuation", put_unit, "="},
    {"punctuation at random", put_punctuation, NULL},
    {"apostrophes", put_unit, "'"},
    {"U+2581", put_unit, "\xe2\x96\x81"},
    {"Chinese without spaces", put_han, NULL},
    {"one combining mark", put_unit, "\xcc\x81"},
    {"combining marks at random", put_mark, NULL},
    {"e and a mark", put_unit, "e\xcc\x81"},
    {"emoji with joiners", put_unit, "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7"},
    {"Hangul in parts", put_unit, "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab"},
    {"characters of all planes", put_any, NULL},
    {"bytes that are no characters", put_byte, NULL},
    {"special tokens cut short", put_unit, "<|im_start"},
};

static double speed(const vocab *v, const struct text_class *c) {
    buf text = {.max = TEXT_LEN + 256};
    double best = 1e9;
    state = 1;
    while (text.len < TEXT_LEN) c->put(&text, c->unit);
    for (int round = 0; round < 5; round++) {
        int32_t *ids;
        size_t n;
        err e = {0};
        double t = now_s();
        if (vocab_encode(v, text.ptr, text.len, TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, SIZE_MAX, &ids, &n, &e) !=
            ERR_OK) {
            fprintf(stderr, "%s\n", e.msg);
            exit(3);
        }
        t = now_s() - t;
        if (t < best) best = t;
        mem_free(ids);
    }
    double mb = (double)text.len / 1e6 / best;
    buf_free(&text);
    return mb;
}

static err_code load(vocab **v, const char *kind, const char *path, const char *family, err *e) {
    vocab_spec *s = NULL;
    gguf *g = NULL;
    buf text = {.max = 1u << 30};
    err_code rc;
    double t = now_s();
    if (strcmp(kind, "gguf") == 0) {
        rc = gguf_open(&g, path, e);
        if (rc == ERR_OK) rc = vocab_spec_from_gguf(&s, g, e);
        gguf_free(g);
    } else {
        rc = file_read(&text, path, e);
        spec_sources src = {.name = path, .tokenizer = {buf_str(&text), text.len}, .pre = family};
        if (rc == ERR_OK)
            rc = strcmp(kind, "tiktoken") == 0 ? vocab_spec_from_tiktoken(&s, &src, e)
                                               : vocab_spec_from_json(&s, &src, e);
        if (rc == ERR_OK && strcmp(kind, "spm") == 0 && s->model == SPEC_UNIGRAM) s->model = SPEC_SPM;
    }
    double read = now_s() - t;
    t = now_s();
    if (rc == ERR_OK) rc = vocab_build(v, s, path, e);
    if (rc == ERR_OK)
        printf("%s: %s, %u tokens, read in %.2f s, built in %.2f s\n", path, vocab_kind(*v), vocab_size(*v), read,
               now_s() - t);
    vocab_spec_free(s);
    buf_free(&text);
    return rc;
}

int main(int argc, char **argv) {
    base_init();
    err e = {0};
    vocab *v = NULL;
    double slowest = 1e9;
    if (argc < 3) {
        fprintf(stderr, "usage: bench_tokenize json|spm|tiktoken|gguf PATH [FAMILY]\n");
        return 2;
    }
    if (load(&v, argv[1], argv[2], argc > 3 ? argv[3] : NULL, &e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.msg);
        return 3;
    }
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        double mb = speed(v, &classes[i]);
        printf("  %-30s %7.1f MB/s\n", classes[i].name, mb);
        if (mb < slowest) slowest = mb;
    }
    printf("  slowest %.1f MB/s\n", slowest);
    vocab_free(v);
    return 0;
}
