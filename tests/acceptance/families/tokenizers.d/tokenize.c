/* A tokenizer as a filter, so that 10,000 texts are one process: tokenize json|tiktoken|gguf PATH [FAMILY [CONFIG]]
 *
 * In, little endian: u32 flags (TOK_*, 4: decode shows special tokens), u32 bytes, text. Out: u32 n, n times i32 id,
 * u32 bytes, what the ids decode to. `tokenize unassigned` prints the ranges of characters that the tables do not know,
 * one "first last" a line. `tokenize keys json|tiktoken PATH [FAMILY [CONFIG]]` builds the vocabulary from the GGUF
 * keys that its description writes, and then is the same filter. */
#include "base/mem.h"
#include "engine/model_internal.h"
#include "engine/vocab/vocab_spec.h"
#include "unit/engine/spec_gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct model { /* detok knows a vocabulary through its model */
    const vocab *v;
};
const vocab *model_vocab(const model *m) {
    return m->v;
}

static int print_unassigned(void) {
    uint32_t first = 0;
    for (uint32_t cp = 0; cp <= 0x110000; cp++) {
        bool is = cp < 0x110000 && utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_CN;
        if (is && !first) first = cp;
        if (!is && first) {
            printf("%x %x\n", first, cp - 1);
            first = 0;
        }
    }
    return 0;
}

static bool read_u32(uint32_t *x) {
    uint8_t b[4];
    if (fread(b, 1, 4, stdin) != 4) return false;
    *x = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return true;
}

static void write_u32(uint32_t x) {
    const uint8_t b[4] = {(uint8_t)x, (uint8_t)(x >> 8), (uint8_t)(x >> 16), (uint8_t)(x >> 24)};
    fwrite(b, 1, 4, stdout);
}

static err_code answer(const vocab *v, uint32_t flags, const char *text, size_t len, buf *out, err *e) {
    int32_t *ids;
    size_t n;
    model m = {v};
    detok d;
    err_code rc = vocab_encode(v, text, len, (int)flags & 3, SIZE_MAX, &ids, &n, e);
    if (rc != ERR_OK) return rc;
    detok_init(&d, &m, true, flags & 4);
    buf_reset(out);
    for (size_t i = 0; i < n; i++) detok_feed(&d, ids[i], out);
    detok_flush(&d, out);
    write_u32((uint32_t)n);
    for (size_t i = 0; i < n; i++) write_u32((uint32_t)ids[i]);
    write_u32((uint32_t)out->len);
    fwrite(buf_str(out), 1, out->len, stdout);
    mem_free(ids);
    return ERR_OK;
}

static err_code open_spec(vocab_spec **s, const char *kind, char **args, err *e) {
    const char *path = args[0], *family = args[1], *config_path = family ? args[2] : NULL;
    buf text = {.max = 1u << 28}, config = {.max = 1u << 24};
    err_code rc = file_read(&text, path, e);
    if (rc == ERR_OK && config_path) rc = file_read(&config, config_path, e);
    spec_sources src = {.name = path, .tokenizer = {buf_str(&text), text.len}, .pre = family};
    if (config_path) src.config = (spec_text_file){buf_str(&config), config.len};
    if (rc == ERR_OK)
        rc = strcmp(kind, "tiktoken") == 0 ? vocab_spec_from_tiktoken(s, &src, e) : vocab_spec_from_json(s, &src, e);
    buf_free(&text);
    buf_free(&config);
    return rc;
}

static err_code open_vocab(vocab **v, char **args, bool keys, err *e) {
    const char *kind = args[0], *path = args[1];
    gguf *g = NULL;
    vocab_spec *s = NULL;
    err_code rc;
    if (strcmp(kind, "gguf") == 0) {
        rc = gguf_open(&g, path, e);
        if (rc == ERR_OK) rc = vocab_new(v, g, e);
        gguf_free(g);
        return rc;
    }
    rc = open_spec(&s, kind, args + 1, e);
    if (rc == ERR_OK) rc = keys ? vocab_through_gguf(v, s, e) : vocab_build(v, s, path, e);
    vocab_spec_free(s);
    return rc;
}

int main(int argc, char **argv) {
    base_init();
    if (argc == 2 && strcmp(argv[1], "unassigned") == 0) return print_unassigned();
    bool keys = argc > 1 && strcmp(argv[1], "keys") == 0;
    if (argc < 3 + keys) {
        fprintf(stderr, "usage: tokenize [keys] json|tiktoken|gguf PATH [FAMILY [CONFIG]]\n");
        return 2;
    }
    err e = {0};
    vocab *v = NULL;
    if (open_vocab(&v, argv + 1 + keys, keys, &e) != ERR_OK) {
        fprintf(stderr, "%s: %s\n", err_name(e.code), e.msg);
        return 3;
    }
    buf out = {.max = 1u << 30};
    char *text = NULL;
    uint32_t flags, len;
    err_code rc = ERR_OK;
    while (rc == ERR_OK && read_u32(&flags) && read_u32(&len)) {
        char *more = mem_realloc(text, (size_t)len + 1);
        if (!more) return 3;
        text = more;
        if (fread(text, 1, len, stdin) != len) return 3;
        rc = answer(v, flags, text, len, &out, &e);
    }
    if (rc != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    mem_free(text);
    buf_free(&out);
    vocab_free(v);
    return rc == ERR_OK ? 0 : 3;
}
