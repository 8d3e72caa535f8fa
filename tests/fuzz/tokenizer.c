/* Tokenizers: any text through any pre-tokenizer and SentencePiece, and back. The first two bytes choose the
 * vocabulary and the flags, the rest is the text. Byte-level BPE must give back every byte, and detokenising must give
 * valid UTF-8 after every token. One choice in sixteen takes the rest as changes to a vocabulary's file instead. */
#include "base/mem.h"
#include "engine/model_internal.h"
#include "unit/engine/vocab_make.h"

struct model {
    const vocab *v;
};
const vocab *model_vocab(const model *m) {
    return m->v;
}

static const char *const pres[] = {"default", "gpt-2",   "llama-bpe", "qwen2",        "qwen35",      "tekken",
                                   "gpt-4o",  "kimi-k2", "smollm",    "deepseek-llm", "deepseek-v3", "falcon"};
#define N_PRES   (sizeof pres / sizeof pres[0])
#define N_VOCABS (N_PRES + 3) /* 15: the sixteenth choice is changed_file */

static const vocab *get(size_t i) {
    static vocab *loaded[N_VOCABS];
    if (!loaded[i]) {
        made m;
        err e = {0};
        if (i < N_PRES)
            made_bpe(&m, pres[i]);
        else
            made_spm(&m, i != N_PRES, i != N_PRES + 1);
        if (made_load(&m, &loaded[i], &e) != ERR_OK) abort();
    }
    return loaded[i];
}

/* Streams the tokens out; aborts where an appended part is not valid UTF-8 or more than three bytes are held. */
static void stream_out(const vocab *v, const int32_t *ids, size_t n, buf *out) {
    model m = {v};
    detok d;
    detok_init(&d, &m, true, true);
    for (size_t i = 0; i < n; i++) {
        size_t before = out->len;
        detok_feed(&d, ids[i], out);
        if (!utf8_valid(buf_str(out) + before, out->len - before) || d.n_held > 3) abort();
    }
    detok_flush(&d, out);
}

/* Five bytes a change: offset (four, little endian) and what stands there. What still loads must encode and decode. */
static void changed_file(const uint8_t *data, size_t size) {
    static const char text[] = "the hello <s> <|end|>aaaa\n\xe6\x97\xa5 e\xcc\x81\xcc\x81 12345 \xff<|tool|>";
    made m;
    buf file = {.max = 1u << 24}, out = {.max = 1u << 24};
    gguf *g;
    vocab *v;
    int32_t *ids;
    size_t n;
    err e = {0};
    if (data[0] & 1)
        made_bpe(&m, pres[(data[0] >> 1) % N_PRES]);
    else
        made_spm(&m, data[0] & 2, data[0] & 4);
    made_file(&m, &file);
    made_free(&m);
    for (data++, size--; size >= 5; data += 5, size -= 5)
        file.ptr[(data[0] | data[1] << 8 | data[2] << 16 | (uint32_t)data[3] << 24) % file.len] = (char)data[4];
    if (gguf_open_memory(&g, file.ptr, file.len, "fuzz.gguf", &e) == ERR_OK) {
        if (vocab_new(&v, g, &e) == ERR_OK) {
            if (vocab_encode(v, text, sizeof text - 1, TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, 1000, &ids, &n, &e) ==
                ERR_OK) {
                stream_out(v, ids, n, &out);
                mem_free(ids);
            }
            vocab_free(v);
        } else if (!e.msg[0]) {
            abort(); /* refused without a sentence */
        }
        gguf_free(g);
    }
    buf_free(&out);
    buf_free(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    if (data[0] % 16 == N_VOCABS) {
        changed_file(data + 1, size - 1);
        return 0;
    }
    size_t which = data[0] % 16;
    const vocab *v = get(which);
    int flags = data[1] & (TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL);
    size_t max = data[1] & 4 ? data[1] >> 3 : SIZE_MAX;
    const char *text = (const char *)data + 2;
    size_t len = size - 2, n;
    int32_t *ids;
    err e = {0};
    err_code rc = vocab_encode(v, text, len, flags, max, &ids, &n, &e);
    if (rc != ERR_OK) {
        if (rc != ERR_TOO_LONG || max == SIZE_MAX) abort();
        return 0;
    }
    if (n > max) abort();
    buf raw = {.max = 1u << 26}, shown = {.max = 1u << 26};
    stream_out(v, ids, n, &shown);
    size_t skip = n && (flags & TOK_ADD_SPECIAL) && ids[0] == vocab_bos(v); /* the BOS that was added */
    for (size_t i = skip; i < n; i++) {
        if (!(flags & TOK_PARSE_SPECIAL) && which != N_PRES && vocab_is_special(v, ids[i])) abort();
        vocab_token_bytes(v, ids[i], true, &raw);
    }
    if (which < N_PRES) {
        if (raw.len != len || memcmp(buf_str(&raw), text, len) != 0) abort();
        if (!skip && utf8_valid(text, len) && (shown.len != len || memcmp(buf_str(&shown), text, len) != 0)) abort();
    }
    buf_free(&raw);
    buf_free(&shown);
    mem_free(ids);
    return 0;
}
