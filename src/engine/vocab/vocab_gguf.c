#include "base/mem.h"
#include "engine/vocab/pretok.h"
#include "engine/vocab/vocab_keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* GGUF keys to a vocab_spec. Where the file does not say a fact, it is what llama.cpp takes for that model. */

/* ---- tokens ----------------------------------------------------------------------------------------------- */

static err_code read_types(vocab_spec *s, const gguf *g, err *e) {
    size_t n = 0;
    for (uint32_t i = 0; i < s->n_tokens; i++) s->tokens[i].type = TYPE_NORMAL;
    err_code rc = gguf_arr(g, KEY_TYPES, GGUF_I32, &n, e);
    if (rc != ERR_OK || !gguf_has(g, KEY_TYPES)) return rc;
    if (n != s->n_tokens)
        return err_set(e, ERR_INVALID, "%s: %s has %zu entries, the vocabulary has %u tokens", gguf_path(g), KEY_TYPES,
                       n, s->n_tokens);
    int32_t *types = mem_array(n, sizeof *types);
    if (!types) return err_nomem(e, "the vocabulary");
    rc = gguf_arr_i32(g, KEY_TYPES, types, n, e);
    for (uint32_t i = 0; i < s->n_tokens && rc == ERR_OK; i++) {
        if (types[i] < TYPE_UNDEFINED || types[i] > TYPE_BYTE)
            rc = err_set(e, ERR_INVALID, "%s: %s: token %u has type %d; types are 0 to 6", gguf_path(g), KEY_TYPES, i,
                         types[i]);
        else
            s->tokens[i].type = (uint8_t)types[i];
    }
    mem_free(types);
    return rc;
}

static err_code read_scores(vocab_spec *s, const gguf *g, err *e) {
    size_t n = 0;
    err_code rc = gguf_arr(g, KEY_SCORES, GGUF_F32, &n, e);
    if (rc != ERR_OK) return rc;
    if (n != s->n_tokens)
        return err_set(e, ERR_INVALID, "%s: %s has %zu entries, the vocabulary has %u tokens", gguf_path(g), KEY_SCORES,
                       n, s->n_tokens);
    float *scores = mem_array(n, sizeof *scores);
    if (!scores) return err_nomem(e, "the tokenizer's scores");
    rc = gguf_arr_f32(g, KEY_SCORES, scores, n, e);
    for (size_t i = 0; rc == ERR_OK && i < n; i++) {
        if (!isfinite(scores[i]))
            rc = err_set(e, ERR_INVALID, "%s: %s: entry %zu is not a number", gguf_path(g), KEY_SCORES, i);
        s->tokens[i].score = scores[i];
    }
    mem_free(scores);
    return rc;
}

static err_code copy_texts(vocab_spec *s, const gguf *g, const gguf_str *texts, err *e) {
    size_t total = 0;
    for (uint32_t i = 0; i < s->n_tokens; i++) {
        if (texts[i].len > VOCAB_TOKEN_BYTES_MAX)
            return err_set(e, ERR_INVALID, "%s: %s: token %u has %zu bytes, at most %u are read", gguf_path(g),
                           KEY_TOKENS, i, texts[i].len, VOCAB_TOKEN_BYTES_MAX);
        total += texts[i].len;
    }
    if (total > INT32_MAX) return err_set(e, ERR_INVALID, "%s: %s: more than 2 GiB", gguf_path(g), KEY_TOKENS);
    if (!(s->bytes = mem_alloc(total ? total : 1))) return err_nomem(e, "the vocabulary");
    for (uint32_t i = 0; i < s->n_tokens; i++) {
        if (texts[i].len) memcpy(s->bytes + s->n_bytes, texts[i].ptr, texts[i].len);
        s->tokens[i].text = (uint32_t)s->n_bytes;
        s->tokens[i].len = (uint32_t)texts[i].len;
        s->n_bytes += texts[i].len;
    }
    return ERR_OK;
}

static err_code read_tokens(vocab_spec *s, const gguf *g, err *e) {
    size_t n = 0;
    err_code rc = gguf_arr(g, KEY_TOKENS, GGUF_STR, &n, e);
    if (rc != ERR_OK) return rc;
    if (!n)
        return err_set(e, ERR_INVALID, "%s: %s is missing or empty; without tokens there is no text", gguf_path(g),
                       KEY_TOKENS);
    if (n > VOCAB_TOKENS_MAX)
        return err_set(e, ERR_INVALID, "%s: %s has %zu entries, at most %u are read", gguf_path(g), KEY_TOKENS, n,
                       VOCAB_TOKENS_MAX);
    s->n_tokens = (uint32_t)n;
    gguf_str *texts = mem_array(n, sizeof *texts);
    s->tokens = mem_array(n, sizeof *s->tokens);
    if (!texts || !s->tokens) rc = err_nomem(e, "the vocabulary");
    if (rc == ERR_OK) rc = gguf_arr_strs(g, KEY_TOKENS, texts, n, e);
    if (rc == ERR_OK) rc = copy_texts(s, g, texts, e);
    if (rc == ERR_OK) rc = read_types(s, g, e);
    mem_free(texts);
    return rc;
}

/* "left right": the space is the first that is not at the beginning. */
static err_code read_merge(vocab_spec *s, const gguf *g, const spec_index *ix, size_t i, gguf_str m, err *e) {
    const char *space = m.len > 2 ? memchr(m.ptr + 1, ' ', m.len - 2) : NULL;
    if (!space || m.len > VOCAB_TOKEN_BYTES_MAX)
        return err_set(e, ERR_INVALID, "%s: %s: entry %zu is not two parts with a space between", gguf_path(g),
                       KEY_MERGES, i);
    size_t left = (size_t)(space - m.ptr);
    s->merges[i].left = spec_index_find(ix, m.ptr, left);
    s->merges[i].right = spec_index_find(ix, space + 1, m.len - left - 1);
    if (s->merges[i].left >= 0 && s->merges[i].right >= 0) return ERR_OK;
    return err_set(e, ERR_INVALID, "%s: %s: entry %zu, \"%.*s\", is not made of tokens", gguf_path(g), KEY_MERGES, i,
                   m.len > 64 ? 64 : (int)m.len, m.ptr);
}

static err_code read_merges(vocab_spec *s, const gguf *g, err *e) {
    size_t n = 0;
    spec_index ix = {0};
    err_code rc = gguf_arr(g, KEY_MERGES, GGUF_STR, &n, e);
    if (rc != ERR_OK) return rc;
    if (!gguf_has(g, KEY_MERGES))
        return err_set(e, ERR_INVALID, "%s: %s is missing; without merges there is no BPE", gguf_path(g), KEY_MERGES);
    if (n > VOCAB_MERGES_MAX)
        return err_set(e, ERR_INVALID, "%s: %s has %zu entries, at most %u are read", gguf_path(g), KEY_MERGES, n,
                       VOCAB_MERGES_MAX);
    gguf_str *strs = mem_array(n ? n : 1, sizeof *strs);
    s->merges = mem_array(n ? n : 1, sizeof *s->merges);
    s->n_merges = n;
    if (!strs || !s->merges) rc = err_nomem(e, "the tokenizer's merges");
    if (rc == ERR_OK) rc = gguf_arr_strs(g, KEY_MERGES, strs, n, e);
    if (rc == ERR_OK) rc = spec_index_make(&ix, s, e);
    for (size_t i = 0; rc == ERR_OK && i < n; i++) rc = read_merge(s, g, &ix, i, strs[i], e);
    spec_index_free(&ix);
    mem_free(strs);
    return rc;
}

/* ---- which tokenizer -------------------------------------------------------------------------------------- */

static err_code unknown_pre(const gguf *g, gguf_str pre, err *e) {
    buf known = {.max = 4096};
    pretok_names(&known);
    err_code rc = err_set(e, ERR_UNSUPPORTED, "%s: %s is \"%.*s\"; known are %s", gguf_path(g), KEY_PRE,
                          pre.len > 64 ? 64 : (int)pre.len, pre.ptr, buf_str(&known));
    buf_free(&known);
    return rc;
}

static err_code read_kind(vocab_spec *s, const gguf *g, err *e) {
    static const struct {
        const char *name;
        spec_model model;
    } models[] = {{"llama", SPEC_SPM},
                  {"gpt2", SPEC_BPE},
                  {"gemma4", SPEC_BPE_CHARS},
                  {"t5", SPEC_UNIGRAM},
                  {"bert", SPEC_WORDPIECE}};
    gguf_str name, pre;
    bool by_merges = false;
    err_code rc = gguf_str_or(g, KEY_MODEL, &name, e);
    if (rc == ERR_OK) rc = gguf_str_or(g, KEY_PRE, &pre, e);
    if (rc == ERR_OK) rc = gguf_bool_or(g, KEY_MERGE_ORDER, false, &by_merges, e);
    if (rc != ERR_OK) return rc;
    size_t i = 0, n = sizeof models / sizeof models[0];
    while (i < n && (name.len != strlen(models[i].name) || memcmp(name.ptr, models[i].name, name.len) != 0)) i++;
    if (i == n)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: %s is \"%.*s\"; polder reads llama (SentencePiece), gpt2 (byte-level BPE), gemma4 (BPE of "
                       "characters), t5 (unigram) and bert (WordPiece)",
                       gguf_path(g), KEY_MODEL, name.len > 64 ? 64 : (int)name.len, name.len ? name.ptr : "");
    s->model = models[i].model;
    if (s->model == SPEC_SPM && by_merges) s->model = SPEC_BPE_CHARS;
    if (s->model == SPEC_BPE) {
        if (!pre.len) pre = (gguf_str){"default", 7};
        if (pre.len >= sizeof s->pre || !pretok_find(pre.ptr, pre.len)) return unknown_pre(g, pre, e);
        memcpy(s->pre, pre.ptr, pre.len);
    } else if (models[i].model == SPEC_BPE_CHARS) {
        snprintf(s->pre, sizeof s->pre, "gemma4");
    }
    return ERR_OK;
}

/* ---- ids and facts ---------------------------------------------------------------------------------------- */

static err_code read_id(const vocab_spec *s, const gguf *g, const char *key, int32_t def, int32_t *id, err *e) {
    uint32_t x;
    *id = def >= 0 && (uint32_t)def < s->n_tokens ? def : -1;
    if (!gguf_has(g, key)) return ERR_OK;
    err_code rc = gguf_u32(g, key, 0, s->n_tokens - 1, &x, e);
    if (rc == ERR_OK) *id = (int32_t)x;
    return rc;
}

static err_code read_ids(const gguf *g, const char *key, int32_t *out, size_t max, uint8_t *n, uint32_t n_tokens,
                         err *e) {
    size_t k = 0;
    err_code rc = gguf_arr(g, key, GGUF_I32, &k, e);
    if (rc != ERR_OK || !gguf_has(g, key)) return rc;
    if (k > max)
        return err_set(e, ERR_INVALID, "%s: %s has %zu entries, at most %zu are read", gguf_path(g), key, k, max);
    *n = 0;
    if ((rc = gguf_arr_i32(g, key, out, k, e)) != ERR_OK) return rc;
    for (size_t i = 0; i < k; i++)
        if (out[i] < 0 || (uint32_t)out[i] >= n_tokens)
            return err_set(e, ERR_INVALID, "%s: %s: %d is no token of this vocabulary", gguf_path(g), key, out[i]);
    *n = (uint8_t)k;
    return ERR_OK;
}

/* BOS or EOS around a text: what the file says, else what the kind implies where there is such a token. */
static err_code read_add(const gguf *g, const char *key, const char *what, int32_t id, bool add, int32_t *list,
                         uint8_t *n, err *e) {
    err_code rc = gguf_bool_or(g, key, add, &add, e);
    if (rc != ERR_OK || !add) return rc;
    if (id >= 0) {
        list[0] = id;
        *n = 1;
    } else if (gguf_has(g, key)) {
        return err_set(e, ERR_INVALID, "%s: %s is true, but the file names no %s token", gguf_path(g), key, what);
    }
    return ERR_OK;
}

static err_code read_special(vocab_spec *s, const gguf *g, err *e) {
    bool spm = s->model == SPEC_SPM, wp = s->model == SPEC_WORDPIECE, uni = s->model == SPEC_UNIGRAM;
    err_code rc = read_id(s, g, KEY_BOS, spm ? 1 : wp ? 101 : -1, &s->bos, e);
    if (rc == ERR_OK) rc = read_id(s, g, KEY_EOS, spm ? 2 : uni ? 1 : -1, &s->eos, e);
    if (rc == ERR_OK) rc = read_id(s, g, KEY_EOT, -1, &s->eot, e);
    if (rc == ERR_OK) rc = read_id(s, g, KEY_EOM, -1, &s->eom, e);
    if (rc == ERR_OK) rc = read_id(s, g, KEY_UNK, spm ? 0 : wp ? 100 : uni ? 2 : -1, &s->unk, e);
    if (rc == ERR_OK) rc = read_id(s, g, KEY_PAD, wp || uni ? 0 : -1, &s->pad, e);
    if (rc == ERR_OK) rc = read_id(s, g, KEY_SEP, wp ? 102 : -1, &s->sep, e);
    if (rc == ERR_OK) rc = read_id(s, g, KEY_CLS, wp ? s->bos : -1, &s->cls, e);
    if (rc == ERR_OK) rc = read_id(s, g, KEY_MASK, wp ? 103 : -1, &s->mask, e);
    if (rc != ERR_OK) return rc;
    const pretok *pre = s->model == SPEC_BPE ? pretok_find(s->pre, strlen(s->pre)) : NULL;
    bool bos = spm || wp || (pre && pretok_adds_bos(pre)), eos = uni;
    rc = read_add(g, KEY_ADD_BOS, "BOS", wp ? s->cls : s->bos, bos, s->before, &s->n_before, e);
    if (rc == ERR_OK) rc = read_add(g, KEY_ADD_EOS, "EOS", s->eos, eos, s->after, &s->n_after, e);
    if (rc == ERR_OK && wp && !s->n_after && s->sep >= 0) { /* what BERT has always had around a text */
        s->after[0] = s->sep;
        s->n_after = 1;
    }
    if (rc == ERR_OK) rc = read_ids(g, KEY_BEFORE, s->before, SPEC_AROUND_MAX, &s->n_before, s->n_tokens, e);
    if (rc == ERR_OK) rc = read_ids(g, KEY_AFTER, s->after, SPEC_AROUND_MAX, &s->n_after, s->n_tokens, e);
    if (rc == ERR_OK) rc = read_ids(g, KEY_ENDS, s->ends, SPEC_ENDS_MAX, &s->n_ends, s->n_tokens, e);
    return rc;
}

/* Phi-3 was trained with the white space after its special tokens removed; a file of another converter does not say so.
 */
static err_code guess_flags(vocab_spec *s, const gguf *g, err *e) {
    static const char *const plain[] = {"<unk>", "<s>", "<|endoftext|>"};
    gguf_str name;
    err_code rc = gguf_str_or(g, "general.name", &name, e);
    if (rc != ERR_OK) return rc;
    bool phi3 = false;
    for (size_t i = 0; i + 4 <= name.len && !phi3; i++) {
        char b[6] = {0};
        for (size_t k = 0; k < 5 && i + k < name.len; k++) {
            char c = name.ptr[i + k];
            b[k] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
        }
        phi3 = strcmp(b, "phi-3") == 0 || strncmp(b, "phi3", 4) == 0;
    }
    for (uint32_t i = 0; phi3 && i < s->n_tokens; i++) {
        spec_token *t = &s->tokens[i];
        bool is_plain = t->type != TYPE_CONTROL && t->type != TYPE_UNKNOWN && t->type != TYPE_USER;
        for (size_t k = 0; k < 3 && !is_plain; k++)
            is_plain = t->len == strlen(plain[k]) && memcmp(spec_text(s, i), plain[k], t->len) == 0;
        if (!is_plain) t->flags = SPEC_RSTRIP;
    }
    return ERR_OK;
}

static err_code read_flags(vocab_spec *s, const gguf *g, err *e) {
    size_t n = 0;
    if (!gguf_has(g, KEY_FLAGS)) return guess_flags(s, g, e);
    err_code rc = gguf_arr(g, KEY_FLAGS, GGUF_U8, &n, e);
    if (rc != ERR_OK || !n) return rc;
    if (n != s->n_tokens)
        return err_set(e, ERR_INVALID, "%s: %s has %zu entries, the vocabulary has %u tokens", gguf_path(g), KEY_FLAGS,
                       n, s->n_tokens);
    int32_t *flags = mem_array(n, sizeof *flags);
    if (!flags) return err_nomem(e, "the vocabulary");
    rc = gguf_arr_i32(g, KEY_FLAGS, flags, n, e);
    for (size_t i = 0; rc == ERR_OK && i < n; i++) {
        if (flags[i] & ~(SPEC_LSTRIP | SPEC_RSTRIP | SPEC_NORMALIZED))
            rc = err_set(e, ERR_UNSUPPORTED, "%s: %s: token %zu has flags %d; polder knows the sum of 1, 2 and 4",
                         gguf_path(g), KEY_FLAGS, i, flags[i]);
        s->tokens[i].flags = (uint8_t)flags[i];
    }
    mem_free(flags);
    return rc;
}

static err_code read_charsmap(vocab_spec *s, const gguf *g, err *e) {
    size_t n = 0;
    if (!gguf_has(g, KEY_CHARSMAP)) return ERR_OK;
    err_code rc = gguf_arr(g, KEY_CHARSMAP, GGUF_U8, &n, e);
    if (rc == ERR_INVALID) rc = gguf_arr(g, KEY_CHARSMAP, GGUF_I8, &n, e);
    if (rc != ERR_OK || !n) return rc;
    if (n > VOCAB_CHARSMAP_MAX)
        return err_set(e, ERR_INVALID, "%s: %s has %zu bytes, at most %zu are read", gguf_path(g), KEY_CHARSMAP, n,
                       VOCAB_CHARSMAP_MAX);
    int32_t *wide = mem_array(n, sizeof *wide);
    s->charsmap = mem_alloc(n);
    s->n_charsmap = n;
    if (!wide || !s->charsmap) rc = err_nomem(e, "the tokenizer's map of characters");
    if (rc == ERR_OK) rc = gguf_arr_i32(g, KEY_CHARSMAP, wide, n, e);
    for (size_t i = 0; rc == ERR_OK && i < n; i++) s->charsmap[i] = (char)wide[i];
    mem_free(wide);
    return rc;
}

static err_code read_facts(vocab_spec *s, const gguf *g, err *e) {
    bool marks = s->model == SPEC_SPM || s->model == SPEC_BPE_CHARS || s->model == SPEC_UNIGRAM, prefix,
         squeeze = false;
    const pretok *pre = s->model == SPEC_BPE ? pretok_find(s->pre, strlen(s->pre)) : NULL;
    bool ignore = pre && pretok_ignores_merges(pre);
    uint32_t x = 0, bert = SPEC_BERT_CLEAN | SPEC_BERT_CJK | SPEC_BERT_ACCENTS | SPEC_BERT_LOWER;
    /* byte-level BPE never takes a prefix in GGUF, whatever the key says */
    err_code rc = gguf_bool_or(g, KEY_ADD_SPACE, s->model == SPEC_SPM || s->model == SPEC_UNIGRAM, &prefix, e);
    if (rc == ERR_OK) rc = gguf_bool_or(g, KEY_SQUEEZE, false, &squeeze, e);
    if (rc != ERR_OK) return rc;
    s->prefix = marks && prefix ? SPEC_PREFIX_ALWAYS : SPEC_PREFIX_NONE;
    s->words = s->model == SPEC_UNIGRAM && squeeze ? SPEC_WORDS_SPACE : SPEC_WORDS_ALL;
    rc = gguf_u32_or(g, KEY_PREFIX, 0, SPEC_PREFIX_FIRST, s->prefix, &x, e);
    if (rc == ERR_OK) s->prefix = (spec_prefix)x;
    if (rc == ERR_OK) rc = gguf_u32_or(g, KEY_FORM, 0, SPEC_FORM_NFKD, SPEC_FORM_NONE, &x, e);
    if (rc == ERR_OK) s->form = (spec_form)x;
    if (rc == ERR_OK) rc = gguf_u32_or(g, KEY_WORDS, 0, SPEC_WORDS_SPACE, s->words, &x, e);
    if (rc == ERR_OK) s->words = (spec_words)x;
    if (rc == ERR_OK) rc = gguf_bool_or(g, KEY_ESCAPE, marks, &s->escape_spaces, e);
    if (rc == ERR_OK) rc = gguf_bool_or(g, KEY_LATE_MARKS, s->words == SPEC_WORDS_SPACE, &s->late_marks, e);
    if (rc == ERR_OK) rc = gguf_bool_or(g, KEY_IGNORE_MERGES, ignore, &s->ignore_merges, e);
    if (rc == ERR_OK) rc = gguf_bool_or(g, KEY_UNION_RANK, false, &s->union_rank, e);
    if (rc == ERR_OK) rc = gguf_bool_or(g, KEY_BYTE_FALLBACK, marks, &s->byte_fallback, e);
    if (rc == ERR_OK) rc = gguf_bool_or(g, KEY_FUSE_UNK, s->model == SPEC_UNIGRAM, &s->fuse_unk, e);
    if (rc == ERR_OK) rc = gguf_u32_or(g, KEY_BERT, 0, 15, bert, &bert, e);
    if (rc == ERR_OK) rc = gguf_u32_or(g, KEY_MAX_WORD, 0, 1u << 20, 100, &s->max_word, e);
    s->bert = (uint8_t)bert;
    return rc == ERR_OK ? read_charsmap(s, g, e) : rc;
}

err_code vocab_spec_from_gguf(vocab_spec **out, const gguf *g, err *e) {
    *out = NULL;
    vocab_spec *s = mem_zalloc(sizeof *s);
    if (!s) return err_nomem(e, "the vocabulary");
    err_code rc = read_kind(s, g, e);
    if (rc == ERR_OK) rc = read_tokens(s, g, e);
    if (rc == ERR_OK && (s->model == SPEC_SPM || s->model == SPEC_UNIGRAM)) rc = read_scores(s, g, e);
    if (rc == ERR_OK && (s->model == SPEC_BPE || s->model == SPEC_BPE_CHARS)) rc = read_merges(s, g, e);
    if (rc == ERR_OK) rc = read_flags(s, g, e);
    if (rc == ERR_OK) rc = read_facts(s, g, e);
    if (rc == ERR_OK) rc = read_special(s, g, e);
    if (rc == ERR_OK)
        *out = s;
    else
        vocab_spec_free(s);
    return rc;
}
