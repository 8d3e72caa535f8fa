#include "engine/vocab/vocab_json.h"

#include "base/bytes.h"
#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* tiktoken's ranks: a line for each token, its bytes in base64, a space, and its rank, which is its id too. Two
 * neighbours merge where their union is a token, the lowest rank first. The file holds neither the pattern that cuts
 * words nor special tokens: they come with the family, and from tokenizer_config.json where there is one.
 *
 * GGUF has merges instead of ranks: all ways to cut each token into two are written, in the order of ranks, and
 * polder.tokenizer.union_rank says that ranks decide. */

typedef struct special {
    uint32_t first, last; /* ids; with last, `text` has one %u, the id less `minus` */
    const char *text;
    uint32_t minus;
} special;

typedef struct family {
    const char *names; /* separated by spaces */
    const char *pre;
    uint32_t n_ranks; /* by which a folder's file is known; 0: not so */
    spec_form form;
    const char *bos, *eos;
    bool adds_bos, needs_config;
    const special *specials;
} family;

static const special llama3_specials[] = {
    {128000, 0, "<|begin_of_text|>", 0},
    {128001, 0, "<|end_of_text|>", 0},
    {128002, 128003, "<|reserved_special_token_%u|>", 128002},
    {128004, 0, "<|finetune_right_pad_id|>", 0},
    {128005, 0, "<|reserved_special_token_2|>", 0},
    {128006, 0, "<|start_header_id|>", 0},
    {128007, 0, "<|end_header_id|>", 0},
    {128008, 0, "<|eom_id|>", 0},
    {128009, 0, "<|eot_id|>", 0},
    {128010, 0, "<|python_tag|>", 0},
    {128011, 128255, "<|reserved_special_token_%u|>", 128008},
    {0},
};
static const special cl100k_specials[] = {
    {100257, 0, "<|endoftext|>", 0},  {100258, 0, "<|fim_prefix|>", 0},  {100259, 0, "<|fim_middle|>", 0},
    {100260, 0, "<|fim_suffix|>", 0}, {100276, 0, "<|endofprompt|>", 0}, {0},
};
static const special o200k_specials[] = {
    {199999, 0, "<|endoftext|>", 0},
    {200018, 0, "<|endofprompt|>", 0},
    {0},
};
static const special harmony_specials[] = {
    {199998, 0, "<|startoftext|>", 0},
    {199999, 0, "<|endoftext|>", 0},
    {200000, 200001, "<|reserved_%u|>", 0},
    {200002, 0, "<|return|>", 0},
    {200003, 0, "<|constrain|>", 0},
    {200004, 0, "<|reserved_200004|>", 0},
    {200005, 0, "<|channel|>", 0},
    {200006, 0, "<|start|>", 0},
    {200007, 0, "<|end|>", 0},
    {200008, 0, "<|message|>", 0},
    {200009, 200011, "<|reserved_%u|>", 0},
    {200012, 0, "<|call|>", 0},
    {200013, 200017, "<|reserved_%u|>", 0},
    {200018, 0, "<|endofprompt|>", 0},
    {200019, 201087, "<|reserved_%u|>", 0},
    {0},
};
static const special qwen_specials[] = {
    {151643, 0, "<|endoftext|>", 0},
    {151644, 0, "<|im_start|>", 0},
    {151645, 0, "<|im_end|>", 0},
    {151646, 151850, "<|extra_%u|>", 151646},
    {0},
};
static const special kimi_specials[] = {{163584, 163839, "<|reserved_token_%u|>", 0}, {0}};

static const family families[] = {
    {"llama3 llama-bpe", "llama-bpe", 128000, 0, "<|begin_of_text|>", "<|end_of_text|>", true, false, llama3_specials},
    {"kimi-k2", "kimi-k2", 163584, 0, "[BOS]", "[EOS]", false, true, kimi_specials},
    {"o200k_harmony gpt-oss", "gpt-4o", 199998, 0, "<|startoftext|>", "<|return|>", false, false, harmony_specials},
    {"o200k_base gpt-4o", "gpt-4o", 0, 0, NULL, "<|endoftext|>", false, false, o200k_specials},
    {"cl100k_base gpt-4", "dbrx", 100256, 0, NULL, "<|endoftext|>", false, false, cl100k_specials},
    {"qwen", "qwen2", 151643, SPEC_FORM_NFC, NULL, "<|endoftext|>", false, false, qwen_specials},
};
#define N_FAMILIES (sizeof families / sizeof families[0])

static bool has_name(const char *names, const char *name) {
    size_t len = strlen(name);
    for (const char *p = names; *p;) {
        size_t n = strcspn(p, " ");
        if (n == len && memcmp(p, name, n) == 0) return true;
        p += n + (p[n] == ' ');
    }
    return false;
}

static const family *find_family(const char *name, uint32_t n_ranks) {
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (name ? has_name(families[i].names, name) : families[i].n_ranks == n_ranks) return &families[i];
    return NULL;
}

static err_code unknown_family(const spec_maker *m, const char *name, uint32_t n_ranks) {
    buf known = {.max = 4096};
    for (size_t i = 0; i < N_FAMILIES; i++)
        buf_printf(&known, "%s%.*s", i ? ", " : "", (int)strcspn(families[i].names, " "), families[i].names);
    err_code rc = err_set(m->e, ERR_UNSUPPORTED, "%s: tiktoken ranks of the family \"%.64s\" (%u ranks); known are %s",
                          m->name, name ? name : "?", n_ranks, buf_str(&known));
    buf_free(&known);
    return rc;
}

/* ---- ranks ------------------------------------------------------------------------------------------------ */

/* Byte-level BPE writes bytes as characters: printable ones as themselves, the others from U+0100 on. */
static void put_byte(buf *out, uint8_t b) {
    char c[4];
    uint32_t cp = b <= 32 ? 0x100u + b : b >= 127 && b <= 160 ? 0x100u + 33 + b - 127 : b == 173 ? 0x143u : b;
    int k = utf8_encode(c, cp);
    buf_append(out, c, (size_t)k);
}

static err_code read_line(spec_maker *m, const char *p, size_t n, size_t line, buf *text) {
    uint8_t bytes[VOCAB_TOKEN_BYTES_MAX / 2];
    const char *space = memchr(p, ' ', n);
    size_t len = 0, digits = space ? (size_t)(p + n - space) - 1 : 0;
    uint32_t rank = 0;
    bool good = space && digits > 0 && digits < 9 && base64_decode(bytes, sizeof bytes, &len, p, (size_t)(space - p));
    for (size_t i = 1; i <= digits && good; i++) {
        good = space[i] >= '0' && space[i] <= '9';
        rank = rank * 10 + (uint32_t)(space[i] - '0');
    }
    if (!good || !len)
        return err_set(m->e, ERR_INVALID, "%s: line %zu is not a token in base64, a space and a rank", m->name, line);
    buf_reset(text);
    for (size_t i = 0; i < len; i++) put_byte(text, bytes[i]);
    err_code rc = buf_check(text, "a token", m->e);
    if (rc == ERR_OK && rank < VOCAB_TOKENS_MAX && rank < m->cap_tokens && m->known[rank])
        rc = err_set(m->e, ERR_INVALID, "%s: line %zu: a second token of rank %u", m->name, line, rank);
    return rc == ERR_OK ? maker_token(m, rank, text->ptr, text->len, TYPE_NORMAL, 0) : rc;
}

static err_code read_ranks(spec_maker *m, const spec_text_file *f) {
    buf text = {.max = VOCAB_TOKEN_BYTES_MAX};
    err_code rc = ERR_OK;
    size_t line = 0;
    for (size_t i = 0; i < f->len && rc == ERR_OK;) {
        const char *p = f->ptr + i, *end = memchr(p, '\n', f->len - i);
        size_t n = end ? (size_t)(end - p) : f->len - i;
        i += n + 1;
        line++;
        if (n && p[n - 1] == '\r') n--;
        if (n) rc = read_line(m, p, n, line, &text);
    }
    buf_free(&text);
    if (rc == ERR_OK && !m->s->n_tokens) rc = err_set(m->e, ERR_INVALID, "%s: there are no ranks", m->name);
    return rc;
}

/* All ways to cut each token into two tokens. */
static err_code make_merges(spec_maker *m) {
    vocab_spec *s = m->s;
    spec_index ix;
    err_code rc = spec_index_make(&ix, s, m->e);
    for (uint32_t id = 0; id < s->n_tokens && rc == ERR_OK; id++) {
        const char *p = spec_text(s, id);
        size_t n = s->tokens[id].len;
        for (size_t k = 1; k < n && rc == ERR_OK; k++) {
            if (((uint8_t)p[k] & 0xc0) == 0x80) continue; /* inside of a character */
            int32_t left = spec_index_find(&ix, p, k), right = left < 0 ? -1 : spec_index_find(&ix, p + k, n - k);
            if (right >= 0) rc = maker_merge(m, left, right);
        }
    }
    spec_index_free(&ix);
    return rc;
}

/* ---- special tokens --------------------------------------------------------------------------------------- */

/* "added_tokens_decoder": {"163584": {"content": "[BOS]", "special": true}, ...} */
static err_code read_added(spec_maker *m, const cJSON *config) {
    const cJSON *t;
    cJSON_ArrayForEach(t, cJSON_GetObjectItemCaseSensitive(config, "added_tokens_decoder")) {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(t, "content"));
        int64_t id = 0;
        for (const char *p = t->string; *p && id >= 0; p++)
            id = *p >= '0' && *p <= '9' && id < VOCAB_TOKENS_MAX ? id * 10 + (*p - '0') : -1;
        if (!text || !text[0] || id < 0 || !t->string[0])
            return err_set(m->e, ERR_INVALID, "%s: added_tokens_decoder: \"%.32s\" is no id, or has no content",
                           m->name, t->string);
        if ((size_t)id < m->cap_tokens && m->known[id] && m->s->tokens[id].type == TYPE_NORMAL)
            return err_set(m->e, ERR_INVALID, "%s: added_tokens_decoder: %lld is a token of the ranks", m->name,
                           (long long)id);
        uint8_t type = cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(t, "special")) ? TYPE_USER : TYPE_CONTROL;
        err_code rc = maker_token(m, id, text, strlen(text), type, 0);
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

/* The family's, where the configuration named none for the id. */
static err_code add_specials(spec_maker *m, const family *f) {
    char text[64];
    err_code rc = ERR_OK;
    for (const special *p = f->specials; p->text && rc == ERR_OK; p++) {
        uint32_t last = p->last ? p->last : p->first;
        for (uint32_t id = p->first; id <= last && rc == ERR_OK; id++) {
            const char *number = strchr(p->text, '%');
            if (id < m->cap_tokens && m->known[id]) continue;
            if (number)
                snprintf(text, sizeof text, "%.*s%u%s", (int)(number - p->text), p->text, id - p->minus, number + 2);
            else
                snprintf(text, sizeof text, "%s", p->text);
            rc = maker_token(m, id, text, strlen(text), TYPE_CONTROL, 0);
        }
    }
    return rc;
}

static err_code set_facts(spec_maker *m, const family *f, const spec_sources *src) {
    vocab_spec *s = m->s;
    spec_index ix;
    s->model = SPEC_BPE;
    snprintf(s->pre, sizeof s->pre, "%s", f->pre);
    s->form = f->form;
    s->ignore_merges = true; /* a word that has a rank is that token */
    s->union_rank = true;
    err_code rc = spec_index_make(&ix, s, m->e);
    if (rc != ERR_OK) return rc;
    if (f->bos) s->bos = spec_index_find(&ix, f->bos, strlen(f->bos));
    if (f->eos) s->eos = spec_index_find(&ix, f->eos, strlen(f->eos));
    rc = json_config_read(m, src, &ix);
    spec_index_free(&ix);
    if (rc == ERR_OK && f->adds_bos && s->bos >= 0) {
        s->before[0] = s->bos;
        s->n_before = 1;
    }
    return rc;
}

err_code vocab_spec_from_tiktoken(vocab_spec **out, const spec_sources *src, err *e) {
    *out = NULL;
    spec_maker m = {.s = mem_zalloc(sizeof *m.s), .name = src->name, .e = e};
    cJSON *config = NULL;
    if (!m.s) return err_nomem(e, "the vocabulary");
    m.s->bos = m.s->eos = m.s->eot = m.s->eom = m.s->unk = m.s->pad = m.s->sep = m.s->cls = m.s->mask = -1;
    err_code rc = read_ranks(&m, &src->tokenizer);
    const family *f = rc == ERR_OK ? find_family(src->pre, m.s->n_tokens) : NULL;
    if (rc == ERR_OK && !f) rc = unknown_family(&m, src->pre, m.s->n_tokens);
    if (rc == ERR_OK) rc = make_merges(&m);
    if (rc == ERR_OK && src->config.ptr)
        rc = json_parse(&config, src->config.ptr, src->config.len, "tokenizer_config.json", e);
    if (rc == ERR_OK && f->needs_config && !json_get(config, "added_tokens_decoder"))
        rc = err_set(e, ERR_INVALID,
                     "%s: this family's special tokens are in added_tokens_decoder of "
                     "tokenizer_config.json, which is missing",
                     src->name);
    if (rc == ERR_OK) rc = read_added(&m, config);
    if (rc == ERR_OK) rc = add_specials(&m, f);
    if (rc == ERR_OK) rc = maker_check_holes(&m, 1u << 18);
    if (rc == ERR_OK) rc = set_facts(&m, f, src);
    cJSON_Delete(config);
    maker_free(&m);
    if (rc == ERR_OK)
        *out = m.s;
    else
        vocab_spec_free(m.s);
    return rc;
}
