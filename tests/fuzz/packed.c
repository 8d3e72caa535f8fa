/* Packed files: any bytes as a file of packed weights, and any bytes as the image of a tokenizer, with and without
 * their right sums. What breaks it: a read outside of the bytes, a search without end, a token out of range.
 *
 * The first byte says what the rest is: 0 a file; 1 a file whose sums are put right first; 2 the image of a tokenizer;
 * 3 to 7 changes of five bytes each (where, what) to the image of a good one, of each of the five models. */
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/packfile.h"
#include "engine/vocab/vocab_keys.h"
#include "engine/vocab/vocab_spec.h"

#include <stdlib.h>
#include <string.h>

typedef struct bytes {
    const uint8_t *p;
    size_t n;
} bytes;

static err_code get(void *ctx, uint64_t at, void *p, size_t n, err *e) {
    const bytes *b = ctx;
    if (at > b->n || n > b->n - at) return err_set(e, ERR_INVALID, "bytes end");
    if (n) memcpy(p, b->p + at, n);
    return ERR_OK;
}

static void use_vocab(const vocab *v) {
    static const char text[] =
        "Abc  \xe2\x96\x81 the\n\t12345 <|im_end|></s> \xc3\xa9\xff\xf0\x9f\x99\x82 aaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    for (int flags = 0; flags < 4; flags++) {
        int32_t *ids = NULL;
        size_t n = 0;
        err e = {0};
        if (vocab_encode(v, text, sizeof text - 1, flags, 4096, &ids, &n, &e) != ERR_OK) continue;
        buf out = {.max = 64u << 20};
        for (size_t i = 0; i < n; i++) {
            if (ids[i] < 0 || (uint32_t)ids[i] >= vocab_size(v)) abort();
            vocab_token_bytes(v, ids[i], true, &out);
            vocab_token_text(v, ids[i], &out);
        }
        buf_free(&out);
        mem_free(ids);
    }
}

/* Takes p over. */
static void read_image(uint8_t *p, size_t n) {
    vocab *v;
    err e = {0};
    if (vocab_image_read(&v, p, n, "image", &e) != ERR_OK) {
        if (!e.msg[0]) abort();
        mem_free_aligned(p);
        return;
    }
    use_vocab(v);
    vocab_free(v);
}

static void read_file(const uint8_t *p, size_t n) {
    packfile *f = mem_zalloc(sizeof *f);
    bytes b = {p, n};
    err e = {0};
    if (!f) return;
    f->fd = -1;
    if (packfile_parse(f, n, get, &b, "file", &e) == ERR_OK) {
        const packfile_entry *x = packfile_entries(&f->c);
        for (size_t i = 0; i < packfile_entry_count(&f->c); i++) {
            uint64_t room = x[i].is_vector ? f->c.section[PACKFILE_S_VECTORS].len : f->c.data_len;
            if (x[i].at > room || x[i].len > room - x[i].at) abort();
        }
        uint8_t *image = f->memory[PACKFILE_S_VOCAB];
        f->memory[PACKFILE_S_VOCAB] = NULL;
        read_image(image, (size_t)f->c.section[PACKFILE_S_VOCAB].len);
    } else if (!e.msg[0]) {
        abort();
    }
    packfile_close(f);
}

/* The layout as packfile.h says it, a second time. */
enum { SECTIONS_AT = 112, DATA_AT = 208, SUM_AT = 224 };

static void right_sums(uint8_t *p, size_t n) {
    if (n < PACKFILE_HEADER) return;
    for (int i = 0; i < PACKFILE_SECTIONS; i++) {
        uint64_t at, len, sum;
        memcpy(&at, p + SECTIONS_AT + 24 * i, 8);
        memcpy(&len, p + SECTIONS_AT + 24 * i + 8, 8);
        sum = at <= n && len <= n - at ? packfile_sum(p + at, (size_t)len) : 0;
        memcpy(p + SECTIONS_AT + 24 * i + 16, &sum, 8);
    }
    uint64_t sum = packfile_sum(p, SUM_AT);
    memcpy(p + SUM_AT, &sum, 8);
}

static const struct {
    const char *text;
    uint8_t type;
} known[] = {{"<unk>", TYPE_UNKNOWN}, {"<s>", TYPE_CONTROL}, {"</s>", TYPE_CONTROL}, {"<|im_end|>", TYPE_USER},
             {"a", TYPE_NORMAL},      {"b", TYPE_NORMAL},    {"c", TYPE_NORMAL},     {"ab", TYPE_NORMAL},
             {"abc", TYPE_NORMAL},    {"t", TYPE_NORMAL},    {"h", TYPE_NORMAL},     {"e", TYPE_NORMAL},
             {"th", TYPE_NORMAL},     {"the", TYPE_NORMAL},  {"aa", TYPE_NORMAL},    {"\xe2\x96\x81", TYPE_NORMAL},
             {"aaaa", TYPE_NORMAL},   {"1", TYPE_NORMAL},    {"12", TYPE_NORMAL},    {"\xe2\x96\x81the", TYPE_NORMAL}};
#define N_KNOWN (sizeof known / sizeof *known)

/* The image of a good tokenizer. */
static void make_image(spec_model which, buf *out) {
    static const spec_merge merges[] = {{4, 5}, {7, 6}, {9, 10}, {12, 11}, {4, 4}, {14, 14}};
    spec_token tokens[N_KNOWN];
    char text[256];
    uint32_t at = 0;
    memset(tokens, 0, sizeof tokens);
    for (uint32_t i = 0; i < N_KNOWN; i++) {
        tokens[i].text = at;
        tokens[i].len = (uint32_t)strlen(known[i].text);
        tokens[i].type = known[i].type;
        tokens[i].score = -(float)i;
        memcpy(text + at, known[i].text, tokens[i].len);
        at += tokens[i].len;
    }
    vocab_spec s = {.model = which,
                    .n_tokens = N_KNOWN,
                    .tokens = tokens,
                    .bytes = text,
                    .n_bytes = at,
                    .n_merges = sizeof merges / sizeof *merges,
                    .merges = (spec_merge *)(uintptr_t)merges,
                    .escape_spaces = which != SPEC_BPE,
                    .bos = 1,
                    .eos = 2,
                    .eot = -1,
                    .eom = -1,
                    .before = {1},
                    .n_before = 1};
    if (which == SPEC_BPE) memcpy(s.pre, "llama-bpe", 10);
    vocab *v;
    err e = {0};
    out->max = 64u << 20;
    if (vocab_build(&v, &s, "good", &e) != ERR_OK || vocab_image_write(v, out, &e) != ERR_OK) abort();
    vocab_free(v);
}

static void change_image(spec_model which, const uint8_t *p, size_t n) {
    static buf good[SPEC_WORDPIECE + 1];
    buf *g = &good[which];
    if (!g->len) make_image(which, g);
    uint8_t *image = mem_alloc_aligned(g->len);
    if (!image) return;
    memcpy(image, g->ptr, g->len);
    for (; n >= 5; p += 5, n -= 5) {
        uint32_t at = (uint32_t)(p[0] | p[1] << 8 | p[2] << 16) % (uint32_t)g->len;
        image[at] = p[3];
        if (p[4] % 2) image[(at + 1) % g->len] = p[4];
    }
    read_image(image, g->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    if (data[0] >= 3) {
        change_image((spec_model)((data[0] - 3) % 5), data + 1, size - 1);
        return 0;
    }
    uint8_t *p = mem_alloc_aligned(size);
    if (!p) return 0;
    memcpy(p, data + 1, size - 1);
    if (data[0] == 2) {
        read_image(p, size - 1);
        return 0;
    }
    if (data[0] == 1) right_sums(p, size - 1);
    read_file(p, size - 1);
    mem_free_aligned(p);
    return 0;
}
