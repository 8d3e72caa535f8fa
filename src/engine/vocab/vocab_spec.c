#include "engine/vocab/vocab_spec.h"

#include "base/mem.h"
#include "engine/vocab/pretok.h"
#include "engine/vocab/vocab_keys.h"

#include <string.h>

void vocab_spec_free(vocab_spec *s) {
    if (!s) return;
    mem_free(s->tokens);
    mem_free(s->bytes);
    mem_free(s->merges);
    mem_free(s->charsmap);
    mem_free(s);
}

/* ---- as GGUF keys ----------------------------------------------------------------------------------------- */

typedef struct writer {
    const vocab_spec *s;
    const spec_sink *to;
    err *e;
    err_code rc; /* the first failure; nothing is written after it */
} writer;

static void put_str(writer *w, const char *key, const char *v) {
    if (w->rc == ERR_OK) w->rc = w->to->str(w->to->ctx, key, v, strlen(v), w->e);
}
static void put_flag(writer *w, const char *key, bool v) {
    if (w->rc == ERR_OK) w->rc = w->to->flag(w->to->ctx, key, v, w->e);
}
static void put_u32(writer *w, const char *key, uint32_t v) {
    if (w->rc == ERR_OK) w->rc = w->to->u32(w->to->ctx, key, v, w->e);
}
static void put_id(writer *w, const char *key, int32_t id) {
    if (id >= 0) put_u32(w, key, (uint32_t)id);
}
static void put_ids(writer *w, const char *key, const int32_t *ids, size_t n) {
    if (w->rc == ERR_OK) w->rc = w->to->i32s(w->to->ctx, key, ids, n, w->e);
}

static bool same_ids(const int32_t *a, size_t n, int32_t id, bool add) {
    return add ? n == 1 && a[0] == id : n == 0;
}

/* Lines may be words of their own where no token holds a newline beside another character (GGUF's "gemma4"), and where
 * no newline is one of several unknown characters that go out as one. */
static bool lines_are_words(const vocab_spec *s) {
    bool known = !s->fuse_unk;
    for (uint32_t i = 0; i < s->n_tokens; i++) {
        const spec_token *t = &s->tokens[i];
        const char *p = spec_text(s, i);
        if (t->type == TYPE_BYTE && s->byte_fallback && t->len == 6 && memcmp(p, "<0x0A>", 6) == 0) known = true;
        if (t->type == TYPE_CONTROL || t->type == TYPE_UNKNOWN || t->type == TYPE_BYTE) continue;
        if (t->len == 1 && *p == '\n') known = true;
        size_t newlines = 0;
        for (uint32_t k = 0; k < t->len; k++) newlines += p[k] == '\n';
        if (newlines && newlines != t->len) return false;
    }
    return known;
}

static const char *model_name(const vocab_spec *s) {
    switch (s->model) {
    case SPEC_SPM: return "llama";
    case SPEC_BPE: return "gpt2";
    case SPEC_UNIGRAM: return "t5";
    case SPEC_WORDPIECE: return "bert";
    case SPEC_BPE_CHARS: break;
    }
    bool as_gemma4 = s->prefix == SPEC_PREFIX_NONE && s->escape_spaces && lines_are_words(s);
    return s->pre[0] || as_gemma4 ? "gemma4" : "llama";
}

static void write_tokens(writer *w) {
    const vocab_spec *s = w->s;
    gguf_str *texts = mem_array(s->n_tokens, sizeof *texts);
    int32_t *types = mem_array(s->n_tokens, sizeof *types);
    uint8_t *flags = mem_array(s->n_tokens, 1);
    uint8_t any = 0;
    if (!texts || !types || !flags) w->rc = err_nomem(w->e, "the tokenizer's keys");
    for (uint32_t i = 0; w->rc == ERR_OK && i < s->n_tokens; i++) {
        texts[i] = (gguf_str){spec_text(s, i), s->tokens[i].len};
        types[i] = s->tokens[i].type;
        any |= flags[i] = s->tokens[i].flags;
    }
    if (w->rc == ERR_OK) w->rc = w->to->strs(w->to->ctx, KEY_TOKENS, texts, s->n_tokens, w->e);
    if (w->rc == ERR_OK) w->rc = w->to->i32s(w->to->ctx, KEY_TYPES, types, s->n_tokens, w->e);
    /* always said: where no token has a flag, a reader need not guess them from a model's name */
    if (w->rc == ERR_OK) w->rc = w->to->u8s(w->to->ctx, KEY_FLAGS, flags, any ? s->n_tokens : 0, w->e);
    mem_free(texts);
    mem_free(types);
    mem_free(flags);
}

/* Merges in order become scores that other readers of "llama" understand: the earlier a token can be made, the higher.
 */
static err_code scores_of_merges(const vocab_spec *s, float *scores, err *e) {
    spec_index ix;
    buf text = {.max = 1u << 20};
    err_code rc = spec_index_make(&ix, s, e);
    if (rc != ERR_OK) return rc;
    for (uint32_t i = 0; i < s->n_tokens; i++) scores[i] = 0;
    for (size_t i = 0; i < s->n_merges && rc == ERR_OK; i++) {
        buf_reset(&text);
        buf_append(&text, spec_text(s, (uint32_t)s->merges[i].left), s->tokens[s->merges[i].left].len);
        buf_append(&text, spec_text(s, (uint32_t)s->merges[i].right), s->tokens[s->merges[i].right].len);
        if ((rc = buf_check(&text, "a token", e)) != ERR_OK) break;
        int32_t id = spec_index_find(&ix, text.ptr, text.len);
        if (id >= 0 && scores[id] == 0) scores[id] = -(float)(i + 1);
    }
    for (uint32_t i = 0; i < s->n_tokens; i++)
        if (scores[i] == 0 && s->tokens[i].type == TYPE_NORMAL) scores[i] = -(float)(s->n_merges + 1 + i);
    buf_free(&text);
    spec_index_free(&ix);
    return rc;
}

static void write_scores(writer *w, const char *model) {
    const vocab_spec *s = w->s;
    bool merges = s->model == SPEC_BPE_CHARS && strcmp(model, "llama") == 0;
    if (w->rc != ERR_OK || (s->model != SPEC_SPM && s->model != SPEC_UNIGRAM && !merges)) return;
    float *scores = mem_array(s->n_tokens, sizeof *scores);
    if (!scores) w->rc = err_nomem(w->e, "the tokenizer's scores");
    if (w->rc == ERR_OK && merges) w->rc = scores_of_merges(s, scores, w->e);
    for (uint32_t i = 0; w->rc == ERR_OK && !merges && i < s->n_tokens; i++) scores[i] = s->tokens[i].score;
    if (w->rc == ERR_OK) w->rc = w->to->f32s(w->to->ctx, KEY_SCORES, scores, s->n_tokens, w->e);
    mem_free(scores);
}

/* "left right", all in one block of memory. */
static void write_merges(writer *w) {
    const vocab_spec *s = w->s;
    if (w->rc != ERR_OK || (s->model != SPEC_BPE && s->model != SPEC_BPE_CHARS)) return;
    buf all = {.max = (size_t)1 << 31};
    gguf_str *strs = mem_array(s->n_merges ? s->n_merges : 1, sizeof *strs);
    if (!strs) w->rc = err_nomem(w->e, "the tokenizer's merges");
    for (size_t i = 0; w->rc == ERR_OK && i < s->n_merges; i++) {
        uint32_t l = (uint32_t)s->merges[i].left, r = (uint32_t)s->merges[i].right;
        buf_append(&all, spec_text(s, l), s->tokens[l].len);
        buf_putc(&all, ' ');
        buf_append(&all, spec_text(s, r), s->tokens[r].len);
        strs[i].len = (size_t)s->tokens[l].len + 1 + s->tokens[r].len;
    }
    if (w->rc == ERR_OK) w->rc = buf_check(&all, "the tokenizer's merges", w->e);
    size_t at = 0;
    for (size_t i = 0; w->rc == ERR_OK && i < s->n_merges; i++) {
        strs[i].ptr = buf_str(&all) + at;
        at += strs[i].len;
    }
    if (w->rc == ERR_OK) w->rc = w->to->strs(w->to->ctx, KEY_MERGES, strs, s->n_merges, w->e);
    mem_free(strs);
    buf_free(&all);
}

/* A part of a merge that holds a space could not be read back: none is known, and such a spec is refused. */
static err_code check_merges(const vocab_spec *s, err *e) {
    for (size_t i = 0; i < s->n_merges; i++) {
        const int32_t side[2] = {s->merges[i].left, s->merges[i].right};
        for (int k = 0; k < 2; k++) {
            const char *p = spec_text(s, (uint32_t)side[k]);
            if (s->tokens[side[k]].len && !memchr(p, ' ', s->tokens[side[k]].len)) continue;
            return err_set(e, ERR_UNSUPPORTED,
                           "tokenizer: merge %zu has a part that holds a space, which GGUF cannot write", i);
        }
    }
    return ERR_OK;
}

static void write_ids(writer *w) {
    const vocab_spec *s = w->s;
    put_id(w, KEY_BOS, s->bos);
    put_id(w, KEY_EOS, s->eos);
    put_id(w, KEY_EOT, s->eot);
    put_id(w, KEY_EOM, s->eom);
    put_id(w, KEY_UNK, s->unk);
    put_id(w, KEY_PAD, s->pad);
    put_id(w, KEY_SEP, s->sep);
    put_id(w, KEY_CLS, s->cls);
    put_id(w, KEY_MASK, s->mask);
    bool bos = s->bos >= 0 && s->n_before == 1 && s->before[0] == s->bos;
    bool eos = s->eos >= 0 && s->n_after == 1 && s->after[0] == s->eos;
    put_flag(w, KEY_ADD_BOS, bos);
    put_flag(w, KEY_ADD_EOS, eos);
    if (!same_ids(s->before, s->n_before, s->bos, bos) || s->model == SPEC_WORDPIECE)
        put_ids(w, KEY_BEFORE, s->before, s->n_before);
    if (!same_ids(s->after, s->n_after, s->eos, eos) || s->model == SPEC_WORDPIECE)
        put_ids(w, KEY_AFTER, s->after, s->n_after);
    if (s->n_ends) put_ids(w, KEY_ENDS, s->ends, s->n_ends);
}

/* What GGUF has no word for, or implies by other keys than polder does. */
static void write_facts(writer *w, const char *model) {
    const vocab_spec *s = w->s;
    put_flag(w, KEY_ADD_SPACE, s->prefix != SPEC_PREFIX_NONE);
    put_u32(w, KEY_PREFIX, s->prefix);
    put_u32(w, KEY_FORM, s->form);
    put_u32(w, KEY_WORDS, s->words);
    put_flag(w, KEY_ESCAPE, s->escape_spaces);
    if (s->late_marks) put_flag(w, KEY_LATE_MARKS, true);
    put_flag(w, KEY_IGNORE_MERGES, s->ignore_merges);
    if (s->union_rank) put_flag(w, KEY_UNION_RANK, true);
    put_flag(w, KEY_BYTE_FALLBACK, s->byte_fallback);
    put_flag(w, KEY_FUSE_UNK, s->fuse_unk);
    if (s->model == SPEC_BPE_CHARS && strcmp(model, "llama") == 0) put_flag(w, KEY_MERGE_ORDER, true);
    if (s->model == SPEC_UNIGRAM) put_flag(w, KEY_SQUEEZE, s->words == SPEC_WORDS_SPACE);
    if (s->model == SPEC_WORDPIECE) put_u32(w, KEY_BERT, s->bert);
    if (s->model == SPEC_WORDPIECE) put_u32(w, KEY_MAX_WORD, s->max_word);
    if (s->charsmap && w->rc == ERR_OK)
        w->rc = w->to->u8s(w->to->ctx, KEY_CHARSMAP, (const uint8_t *)s->charsmap, s->n_charsmap, w->e);
}

err_code vocab_spec_write(const vocab_spec *s, const spec_sink *to, err *e) {
    writer w = {s, to, e, check_merges(s, e)};
    const char *model = model_name(s);
    put_str(&w, KEY_MODEL, model);
    put_str(&w, KEY_PRE, s->pre[0] ? s->pre : "default");
    if (w.rc == ERR_OK) write_tokens(&w);
    write_scores(&w, model);
    write_merges(&w);
    write_ids(&w);
    write_facts(&w, model);
    return w.rc;
}

/* ---- finding tokens by text ------------------------------------------------------------------------------- */

err_code spec_index_make(spec_index *ix, const vocab_spec *s, err *e) {
    uint32_t slots = 16;
    while (slots < s->n_tokens * 2) slots *= 2;
    *ix = (spec_index){.s = s, .mask = slots - 1, .slots = mem_array(slots, sizeof *ix->slots)};
    if (!ix->slots) return err_nomem(e, "the vocabulary");
    for (uint32_t id = 0; id < s->n_tokens; id++) {
        const spec_token *t = &s->tokens[id];
        uint32_t i = (uint32_t)vocab_hash(spec_text(s, id), t->len) & ix->mask, probes = 0;
        for (; ix->slots[i]; i = (i + 1) & ix->mask) {
            const spec_token *o = &s->tokens[ix->slots[i] - 1];
            if (o->len == t->len && memcmp(s->bytes + o->text, s->bytes + t->text, t->len) == 0) break;
            if (++probes <= VOCAB_PROBES_MAX) continue;
            spec_index_free(ix);
            return err_set(e, ERR_INVALID, "tokenizer: the tokens were made to be slow: too many fall together");
        }
        if (!ix->slots[i]) ix->slots[i] = id + 1; /* of equal tokens the first counts */
    }
    return ERR_OK;
}

int32_t spec_index_find(const spec_index *ix, const char *p, size_t n) {
    for (uint32_t i = (uint32_t)vocab_hash(p, n) & ix->mask; ix->slots[i]; i = (i + 1) & ix->mask) {
        const spec_token *t = &ix->s->tokens[ix->slots[i] - 1];
        if (t->len == n && memcmp(ix->s->bytes + t->text, p, n) == 0) return (int32_t)ix->slots[i] - 1;
    }
    return -1;
}

void spec_index_free(spec_index *ix) {
    mem_free(ix->slots);
    ix->slots = NULL;
}
