#include "engine/grammar/token_trie.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

uint8_t trie_kind(uint8_t b) {
    if (b >= 0x80) return TRIE_HIGH;
    if (b < 0x20) return TRIE_CONTROL;
    if (b == ' ') return TRIE_SPACE;
    if (b == '"') return TRIE_QUOTE;
    if (b == '\\') return TRIE_BACKSLASH;
    if (b >= '0' && b <= '9') return TRIE_DIGIT;
    if ((b | 32) >= 'a' && (b | 32) <= 'z') return TRIE_LETTER;
    return TRIE_PUNCT;
}

bool token_trie_is_text(const token_trie *t, int32_t id) {
    return id >= 0 && (uint32_t)id < t->n_vocab && t->is_text[id];
}

int32_t token_trie_find(const token_trie *t, const char *text, size_t len) {
    buf b = {.max = 1 << 16};
    int32_t found = -1;
    for (uint32_t id = 0; id < t->n_vocab && found < 0; id++) {
        buf_reset(&b);
        vocab_token_text(t->v, (int32_t)id, &b);
        if (!b.failed && b.len == len && (!len || memcmp(b.ptr, text, len) == 0)) found = (int32_t)id;
    }
    buf_free(&b);
    return found;
}

/* ---- making ----------------------------------------------------------------------------------------------- */

typedef struct word { /* a token on its way into the tree */
    const char *bytes;
    uint32_t len;
    int32_t id;
} word;

typedef struct maker {
    token_trie *t;
    buf bytes;
    word *words;
    uint32_t n_words, cap_places;
    uint32_t *path; /* places from the root to where the walk is */
} maker;

static int compare(const void *pa, const void *pb) {
    const word *a = pa, *b = pb;
    int c = memcmp(a->bytes, b->bytes, a->len < b->len ? a->len : b->len);
    if (c) return c;
    if (a->len != b->len) return a->len < b->len ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static err_code gather(maker *k, err *e) {
    token_trie *t = k->t;
    k->words = mem_array(t->n_vocab, sizeof *k->words);
    t->ids = mem_array(t->n_vocab, sizeof *t->ids);
    t->ends = mem_array(t->n_vocab, sizeof *t->ends);
    t->is_text = mem_array(t->n_vocab, 1);
    if (!k->words || !t->ids || !t->ends || !t->is_text) return err_nomem(e, "the tree of tokens");
    for (uint32_t id = 0; id < t->n_vocab; id++) {
        if (vocab_is_end(t->v, (int32_t)id)) t->ends[t->n_ends++] = (int32_t)id;
        if (vocab_is_special(t->v, (int32_t)id) || vocab_is_end(t->v, (int32_t)id)) continue;
        size_t from = k->bytes.len;
        vocab_token_bytes(t->v, (int32_t)id, false, &k->bytes);
        if (k->bytes.len == from) continue;
        t->is_text[id] = 1;
        k->words[k->n_words++] = (word){NULL, (uint32_t)(k->bytes.len - from), (int32_t)id};
    }
    err_code rc = buf_check(&k->bytes, "the vocabulary", e);
    if (rc) return rc;
    const char *p = k->bytes.ptr;
    for (uint32_t i = 0; i < k->n_words; p += k->words[i++].len) {
        k->words[i].bytes = p;
        if (k->words[i].len > t->depth_max) t->depth_max = k->words[i].len;
    }
    qsort(k->words, k->n_words, sizeof *k->words, compare);
    k->path = mem_array((size_t)t->depth_max + 1, sizeof *k->path);
    return k->path ? ERR_OK : err_nomem(e, "the tree of tokens");
}

static bool add_place(maker *k, uint16_t depth, uint8_t byte) {
    token_trie *t = k->t;
    if (t->n_places + 1 >= k->cap_places) {
        uint32_t cap = k->cap_places ? k->cap_places + k->cap_places / 2 : 1024;
        trie_place *p = mem_realloc(t->places, cap * sizeof *p);
        if (!p) return false;
        t->places = p;
        k->cap_places = cap;
    }
    t->places[t->n_places] = (trie_place){.token = t->n_ids, .depth = depth, .byte = byte};
    k->path[depth] = t->n_places++;
    return true;
}

/* Leave subtrees until the path is `depth` long: now it is known what is below. */
static void leave(maker *k, uint32_t from, uint32_t depth) {
    trie_place *p = k->t->places;
    for (uint32_t d = from; d > depth; d--) {
        trie_place *at = &p[k->path[d]], *up = &p[k->path[d - 1]];
        at->skip = k->t->n_places;
        up->kinds |= at->kinds | trie_kind(at->byte);
        if (up->height < at->height + 1) up->height = (uint16_t)(at->height + 1);
    }
}

static err_code grow(maker *k, err *e) {
    token_trie *t = k->t;
    if (!add_place(k, 0, 0)) return err_nomem(e, "the tree of tokens");
    uint32_t depth = 0;
    for (uint32_t i = 0; i < k->n_words; i++) {
        const word *w = &k->words[i], *before = i ? w - 1 : NULL;
        uint32_t same = 0;
        while (before && same < before->len && same < w->len && before->bytes[same] == w->bytes[same]) same++;
        leave(k, depth, same);
        for (depth = same; depth < w->len; depth++)
            if (!add_place(k, (uint16_t)(depth + 1), (uint8_t)w->bytes[depth]))
                return err_nomem(e, "the tree of tokens");
        t->ids[t->n_ids++] = w->id;
    }
    leave(k, depth, 0);
    t->places[0].skip = t->n_places;
    t->places[t->n_places] = (trie_place){.token = t->n_ids, .skip = t->n_places};
    return ERR_OK;
}

err_code token_trie_new(token_trie **out, const vocab *v, err *e) {
    *out = NULL;
    token_trie *t = mem_zalloc(sizeof *t);
    if (!t) return err_nomem(e, "the tree of tokens");
    t->v = v;
    t->n_vocab = vocab_size(v);
    maker k = {.t = t, .bytes = {.max = (size_t)1 << 31}};
    err_code rc = gather(&k, e);
    if (rc == ERR_OK) rc = grow(&k, e);
    buf_free(&k.bytes);
    mem_free(k.words);
    mem_free(k.path);
    if (rc == ERR_OK)
        *out = t;
    else
        token_trie_free(t);
    return rc;
}

void token_trie_free(token_trie *t) {
    if (!t) return;
    mem_free(t->places);
    mem_free(t->ids);
    mem_free(t->ends);
    mem_free(t->is_text);
    mem_free(t);
}
