#include "engine/vocab/vocab_json.h"

#include "base/json.h"
#include "engine/vocab/pretok.h"

#include <stdio.h>
#include <string.h>

/* The parts of tokenizer.json around the model. Each part is a chain of steps; a chain that polder computes exactly
 * sets facts of the spec, and the first step that is none of them refuses the file by name. */

#define STEPS_MAX 16
#define MARK      "\xe2\x96\x81"

typedef struct chain {
    const cJSON *steps[STEPS_MAX];
    size_t n;
} chain;

static err_code refuse(spec_maker *m, const char *part, const char *what, const char *known) {
    return err_set(m->e, ERR_UNSUPPORTED, "%s: %s: \"%.200s\" is not computed; known are %s", m->name, part, what,
                   known);
}

static const char *str_of(const cJSON *o, const char *key) { /* "" where it is no string */
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
    return s ? s : "";
}

static bool is_type(const cJSON *o, const char *type) {
    return strcmp(str_of(o, "type"), type) == 0;
}

static bool flag_of(const cJSON *o, const char *key, bool def) { /* def where it is no bool */
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsBool(v) ? cJSON_IsTrue(v) : def;
}

/* Flattens sequences, whose members stand under `list`. */
static err_code flatten(spec_maker *m, chain *c, const cJSON *part, const char *what, const char *list, int depth) {
    if (!part) return ERR_OK;
    if (!cJSON_IsObject(part) || depth > 8)
        return err_set(m->e, ERR_INVALID, "%s: %s: an object with a type is expected", m->name, what);
    if (!is_type(part, "Sequence")) {
        if (c->n == STEPS_MAX)
            return err_set(m->e, ERR_UNSUPPORTED, "%s: %s has more than %d steps", m->name, what, STEPS_MAX);
        c->steps[c->n++] = part;
        return ERR_OK;
    }
    const cJSON *item, *items = cJSON_GetObjectItemCaseSensitive(part, list);
    if (!cJSON_IsArray(items)) return err_set(m->e, ERR_INVALID, "%s: %s: %s is no list", m->name, what, list);
    cJSON_ArrayForEach(item, items) {
        err_code rc = flatten(m, c, item, what, list, depth + 1);
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

/* The step as text, for errors. */
static err_code refuse_step(spec_maker *m, const char *part, const cJSON *step, const char *known) {
    char text[256] = "";
    if (step && !cJSON_PrintPreallocated((cJSON *)(uintptr_t)step, text, sizeof text, false))
        snprintf(text, sizeof text, "%s", str_of(step, "type"));
    return refuse(m, part, text, known);
}

/* ---- normalizer ------------------------------------------------------------------------------------------- */

static const char known_normalizers[] = "NFC, NFD, NFKC, NFKD, Prepend of U+2581, Replace of \" \" by U+2581, and "
                                        "BertNormalizer for WordPiece";

static bool replaces(const cJSON *step, const char *from, const char *to) {
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(step, "pattern");
    return is_type(step, "Replace") && strcmp(str_of(pattern, "String"), from) == 0 &&
           strcmp(str_of(step, "content"), to) == 0;
}

static void read_bert(vocab_spec *s, const cJSON *step) {
    bool lower = flag_of(step, "lowercase", true);
    s->bert =
        (uint8_t)((flag_of(step, "clean_text", true) ? SPEC_BERT_CLEAN : 0) |
                  (flag_of(step, "handle_chinese_chars", true) ? SPEC_BERT_CJK : 0) |
                  (flag_of(step, "strip_accents", lower) ? SPEC_BERT_ACCENTS : 0) | (lower ? SPEC_BERT_LOWER : 0));
}

static err_code read_normalizer(spec_maker *m, const cJSON *part) {
    static const struct {
        const char *name;
        spec_form form;
    } forms[] = {{"NFC", SPEC_FORM_NFC}, {"NFD", SPEC_FORM_NFD}, {"NFKC", SPEC_FORM_NFKC}, {"NFKD", SPEC_FORM_NFKD}};
    vocab_spec *s = m->s;
    chain c = {0};
    err_code rc = flatten(m, &c, part, "normalizer", "normalizers", 0);
    for (size_t i = 0; i < c.n && rc == ERR_OK; i++) {
        const cJSON *step = c.steps[i];
        bool bert = s->model == SPEC_WORDPIECE, known = false;
        for (size_t k = 0; k < 4 && !known; k++) {
            if (!is_type(step, forms[k].name) || i || bert) continue;
            s->form = forms[k].form;
            known = true;
        }
        if (bert && c.n == 1 && is_type(step, "BertNormalizer")) {
            read_bert(s, step);
            known = true;
        }
        if (!bert && is_type(step, "Prepend") && strcmp(str_of(step, "prepend"), MARK) == 0 && !s->prefix) {
            s->prefix = SPEC_PREFIX_ALWAYS;
            known = true;
        }
        if (!bert && replaces(step, " ", MARK) && i + 1 == c.n) known = s->escape_spaces = true;
        if (!known) rc = refuse_step(m, "normalizer", step, known_normalizers);
    }
    if (rc == ERR_OK && s->prefix && !s->escape_spaces)
        rc = refuse(m, "normalizer", "Prepend without Replace", known_normalizers);
    return rc;
}

/* ---- pre-tokenizer ---------------------------------------------------------------------------------------- */

/* The regular expressions by the text that files write; each is what a scanner of pretok.c computes. */
#define CASES  "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL   "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPERS "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWERS "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(after) \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPERS "*" LOWERS "+" after "|[^\\r\\n\\p{L}\\p{N}]?" UPPERS "+" LOWERS "*" after
static const char expr_llama3[] =
    CASES "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL;
static const char expr_qwen2[] = CASES "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL;
static const char expr_qwen35[] =
    CASES "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" TAIL;
static const char expr_gpt4o[] = CASED(CASES "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL;
static const char expr_tekken[] = CASED("") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL;
static const char expr_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
#define NO_HAN "&&[^\\p{Han}]]"
#define KIMI_U "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}" NO_HAN
#define KIMI_L "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}" NO_HAN
static const char expr_kimi[] =
    "[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?" KIMI_U "*" KIMI_L "+" CASES "?|[^\\r\\n\\p{L}\\p{N}]?" KIMI_U "+" KIMI_L
    "*" CASES "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL;
static const char expr_deepseek_v3[] =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
    "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
/* U+4E00 to U+9FA5, U+3040 to U+30FF */
static const char expr_han_kana[] = "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+";

/* Steps of a chain as one line, "regex X", "digits", ...; ByteLevel at the end without its own regex is not in it. */
static const struct {
    const char *pre;
    const char *steps[4];
    bool ignores_merges; /* of two names for the same cuts, the one that llama.cpp takes to */
} pres[] = {
    {"llama-bpe", {expr_llama3}, true},
    {"dbrx", {expr_llama3}, false},
    {"qwen2", {expr_qwen2}, false},
    {"qwen35", {expr_qwen35}, false},
    {"gpt-4o", {expr_gpt4o}, false},
    {"tekken", {expr_tekken}, true},
    {"kimi-k2", {expr_kimi}, false},
    {"gpt-2", {expr_gpt2}, false},
    {"deepseek-v3", {"\\p{N}{1,3}", expr_han_kana, expr_deepseek_v3}, false},
    {"smollm", {"digit", expr_gpt2}, false},
    {"falcon-digits", {"punctuation", expr_gpt2, "digits of bytes", "[0-9][0-9][0-9]"}, false},
};
#define N_PRES (sizeof pres / sizeof pres[0])

/* What a step of a byte-level chain is, in the words of the table; NULL: not known. */
static const char *step_name(const cJSON *step, bool after_bytes) {
    if (is_type(step, "Split")) {
        const char *how = str_of(step, "behavior"),
                   *regex = str_of(cJSON_GetObjectItemCaseSensitive(step, "pattern"), "Regex");
        bool invert = flag_of(step, "invert", false);
        if (strcmp(how, "Isolated") == 0 && !invert) return regex[0] ? regex : NULL;
        /* kept are the matches, and these expressions match everything */
        bool covers = strcmp(regex, expr_llama3) == 0 || strcmp(regex, expr_gpt4o) == 0 ||
                      strcmp(regex, expr_qwen2) == 0 || strcmp(regex, expr_gpt2) == 0;
        return strcmp(how, "Removed") == 0 && invert && covers ? regex : NULL;
    }
    if (is_type(step, "Digits")) {
        bool each = flag_of(step, "individual_digits", false);
        return each ? after_bytes ? NULL : "digit" : after_bytes ? "digits of bytes" : NULL;
    }
    if (is_type(step, "Punctuation")) return strcmp(str_of(step, "behavior"), "Contiguous") == 0 ? "punctuation" : NULL;
    return NULL;
}

static err_code refuse_pre(spec_maker *m, const cJSON *step) {
    buf known = {.max = 4096};
    buf_puts(&known, "Metaspace, WhitespaceSplit with Metaspace, BertPreTokenizer, and the chains with ByteLevel of ");
    for (size_t i = 0; i < N_PRES; i++) buf_printf(&known, "%s%s", i ? ", " : "", pres[i].pre);
    err_code rc = refuse_step(m, "pre_tokenizer", step, buf_str(&known));
    buf_free(&known);
    return rc;
}

/* A chain that has ByteLevel in it. */
static err_code read_byte_level(spec_maker *m, const chain *c) {
    vocab_spec *s = m->s;
    const char *steps[4] = {0};
    size_t n = 0;
    bool bytes = false;
    for (size_t i = 0; i < c->n; i++) {
        const char *name;
        if (is_type(c->steps[i], "ByteLevel")) {
            if (bytes) return refuse_pre(m, c->steps[i]);
            bytes = true;
            if (flag_of(c->steps[i], "add_prefix_space", true)) {
                if (i) return refuse_pre(m, c->steps[i]); /* a space before each word */
                s->prefix = SPEC_PREFIX_MISSING;
            }
            if (!flag_of(c->steps[i], "use_regex", true)) continue;
            name = expr_gpt2;
        } else {
            name = step_name(c->steps[i], bytes);
        }
        if (!name || n == 4) return refuse_pre(m, c->steps[i]);
        steps[n++] = name;
    }
    const char *found = NULL;
    for (size_t i = 0; i < N_PRES; i++) {
        bool same = true;
        for (size_t k = 0; k < 4 && same; k++)
            same = !pres[i].steps[k] == !steps[k] && (!steps[k] || strcmp(steps[k], pres[i].steps[k]) == 0);
        if (same && (!found || pres[i].ignores_merges == s->ignore_merges)) found = pres[i].pre;
    }
    if (!found || !pretok_find(found, strlen(found))) return refuse_pre(m, c->n ? c->steps[0] : NULL);
    s->model = SPEC_BPE;
    snprintf(s->pre, sizeof s->pre, "%s", found);
    return ERR_OK;
}

static err_code read_metaspace(spec_maker *m, const cJSON *step, bool split_first) {
    vocab_spec *s = m->s;
    const char *scheme = str_of(step, "prepend_scheme");
    if (strcmp(str_of(step, "replacement"), MARK) != 0 || s->escape_spaces || s->prefix) return refuse_pre(m, step);
    if (!scheme[0]) scheme = flag_of(step, "add_prefix_space", true) ? "always" : "never";
    if (strcmp(scheme, "always") == 0)
        s->prefix = SPEC_PREFIX_MISSING;
    else if (strcmp(scheme, "first") == 0)
        s->prefix = SPEC_PREFIX_FIRST;
    else if (strcmp(scheme, "never") != 0)
        return refuse_pre(m, step);
    s->escape_spaces = s->late_marks = true;
    bool split = flag_of(step, "split", true);
    if (split_first && !split) return refuse_pre(m, step);
    s->words = split_first ? SPEC_WORDS_SPACE : split ? SPEC_WORDS_MARKS : SPEC_WORDS_ALL;
    return ERR_OK;
}

/* Split at " " after all spaces have become marks: there is none left to split at. */
static bool splits_nothing(const vocab_spec *s, const cJSON *step) {
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(step, "pattern");
    return s->escape_spaces && is_type(step, "Split") && strcmp(str_of(pattern, "String"), " ") == 0 &&
           !flag_of(step, "invert", false);
}

static err_code read_pre_tokenizer(spec_maker *m, const cJSON *part) {
    vocab_spec *s = m->s;
    chain c = {0};
    err_code rc = flatten(m, &c, part, "pre_tokenizer", "pretokenizers", 0);
    if (rc != ERR_OK) return rc;
    const cJSON *first = c.n ? c.steps[0] : NULL;
    bool bytes = false;
    for (size_t i = 0; i < c.n; i++) bytes = bytes || is_type(c.steps[i], "ByteLevel");
    if (s->model == SPEC_WORDPIECE)
        return c.n == 1 && is_type(first, "BertPreTokenizer") ? ERR_OK : refuse_pre(m, first);
    if (bytes && s->model == SPEC_BPE_CHARS && !s->escape_spaces) return read_byte_level(m, &c);
    if (c.n == 2 && is_type(first, "WhitespaceSplit") && is_type(c.steps[1], "Metaspace"))
        return read_metaspace(m, c.steps[1], true);
    if (c.n == 1 && is_type(first, "Metaspace")) return read_metaspace(m, first, false);
    if (!c.n || (c.n == 1 && splits_nothing(s, first)))
        return s->escape_spaces || s->model == SPEC_UNIGRAM ? ERR_OK : refuse_pre(m, first);
    return refuse_pre(m, first);
}

/* ---- post-processor --------------------------------------------------------------------------------------- */

static const char known_posts[] =
    "ByteLevel, TemplateProcessing with special tokens around one text, BertProcessing, RobertaProcessing";

static err_code put_around(spec_maker *m, const spec_index *ix, const char *token, bool after) {
    vocab_spec *s = m->s;
    int32_t id = spec_index_find(ix, token, strlen(token));
    uint8_t *n = after ? &s->n_after : &s->n_before;
    if (id < 0 || *n == SPEC_AROUND_MAX)
        return err_set(m->e, ERR_INVALID, "%s: post_processor: \"%.64s\" is no token, or there are more than %d",
                       m->name, token, SPEC_AROUND_MAX);
    (after ? s->after : s->before)[(*n)++] = id;
    return ERR_OK;
}

/* "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, ...]; a special token may be several. */
static err_code read_template(spec_maker *m, const spec_index *ix, const cJSON *part) {
    const cJSON *item, *single = cJSON_GetObjectItemCaseSensitive(part, "single");
    const cJSON *special = cJSON_GetObjectItemCaseSensitive(part, "special_tokens");
    int texts = 0;
    err_code rc = ERR_OK;
    cJSON_ArrayForEach(item, single) {
        const cJSON *t = cJSON_GetObjectItemCaseSensitive(item, "SpecialToken");
        if (!t) {
            texts++;
            continue;
        }
        const cJSON *entry = cJSON_GetObjectItemCaseSensitive(special, str_of(t, "id"));
        const cJSON *token, *tokens = cJSON_GetObjectItemCaseSensitive(entry, "tokens");
        if (!cJSON_IsArray(tokens)) rc = put_around(m, ix, str_of(t, "id"), texts > 0);
        cJSON_ArrayForEach(token, tokens) {
            const char *text = cJSON_GetStringValue(token);
            if (rc == ERR_OK) rc = put_around(m, ix, text ? text : "", texts > 0);
        }
        if (rc != ERR_OK) return rc;
    }
    return texts == 1 ? ERR_OK : refuse_step(m, "post_processor", part, known_posts);
}

static err_code read_post_processor(spec_maker *m, const spec_index *ix, const cJSON *part) {
    chain c = {0};
    err_code rc = flatten(m, &c, part, "post_processor", "processors", 0);
    for (size_t i = 0; i < c.n && rc == ERR_OK; i++) {
        const cJSON *step = c.steps[i];
        if (is_type(step, "ByteLevel")) continue; /* only about offsets */
        if (is_type(step, "TemplateProcessing")) {
            rc = read_template(m, ix, step);
        } else if (is_type(step, "BertProcessing") || is_type(step, "RobertaProcessing")) {
            const cJSON *cls = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(step, "cls"), 0);
            const cJSON *sep = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(step, "sep"), 0);
            const char *a = cJSON_GetStringValue(cls), *b = cJSON_GetStringValue(sep);
            rc = put_around(m, ix, a ? a : "", false);
            if (rc == ERR_OK) rc = put_around(m, ix, b ? b : "", true);
        } else {
            rc = refuse_step(m, "post_processor", step, known_posts);
        }
    }
    return rc;
}

/* ---- decoder ---------------------------------------------------------------------------------------------- */

static const char known_decoders[] =
    "ByteLevel for byte-level BPE; Replace of U+2581, ByteFallback, Fuse and, with a prefix, Strip of one space, or "
    "Metaspace, for SentencePiece; WordPiece for WordPiece";

/* Decoding follows from the model: the decoder must be the one that belongs to it. */
static err_code check_decoder(spec_maker *m, const cJSON *part) {
    const vocab_spec *s = m->s;
    chain c = {0};
    err_code rc = flatten(m, &c, part, "decoder", "decoders", 0);
    bool strips = false;
    for (size_t i = 0; i < c.n && rc == ERR_OK; i++) {
        const cJSON *step = c.steps[i], *start = cJSON_GetObjectItemCaseSensitive(step, "start");
        bool ok = false;
        switch (s->model) {
        case SPEC_BPE: ok = is_type(step, "ByteLevel"); break;
        case SPEC_WORDPIECE: ok = is_type(step, "WordPiece"); break;
        case SPEC_SPM:
        case SPEC_BPE_CHARS:
        case SPEC_UNIGRAM:
            if (is_type(step, "Strip") && strcmp(str_of(step, "content"), " ") == 0 && start)
                ok = strips = start->valuedouble == 1;
            if (is_type(step, "Metaspace")) ok = strips = true;
            ok = ok || replaces(step, MARK, " ") || is_type(step, "Fuse") ||
                 (is_type(step, "ByteFallback") && s->byte_fallback);
        }
        if (!ok) rc = refuse_step(m, "decoder", step, known_decoders);
    }
    bool marks = s->model != SPEC_BPE && s->model != SPEC_WORDPIECE;
    if (rc == ERR_OK && marks && c.n && !strips && s->prefix != SPEC_PREFIX_NONE)
        rc = refuse(m, "decoder", "a prefix that is not stripped", known_decoders);
    return rc;
}

err_code json_parts_read(spec_maker *m, const json_parts *p, const spec_index *ix) {
    err_code rc = read_normalizer(m, p->normalizer);
    if (rc == ERR_OK) rc = read_pre_tokenizer(m, p->pre_tokenizer);
    if (rc == ERR_OK) rc = read_post_processor(m, ix, p->post_processor);
    if (rc == ERR_OK) rc = check_decoder(m, p->decoder);
    return rc;
}

/* ---- tokenizer_config.json, generation_config.json ---------------------------------------------------------- */

static err_code parse(spec_maker *m, const spec_text_file *f, const char *what, cJSON **out) {
    *out = NULL;
    if (!f->ptr) return ERR_OK;
    err_code rc = json_parse(out, f->ptr, f->len, what, m->e);
    if (rc == ERR_INVALID) err_prefix(m->e, "%s", m->name);
    return rc;
}

/* "bos_token": "<s>" or {"content": "<s>"} */
static void read_named(const cJSON *config, const char *key, const spec_index *ix, int32_t *id) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(config, key);
    const char *text = cJSON_IsObject(v) ? str_of(v, "content") : cJSON_GetStringValue(v);
    int32_t found = text && text[0] ? spec_index_find(ix, text, strlen(text)) : -1;
    if (found >= 0) *id = found;
}

static int32_t id_of(const vocab_spec *s, const cJSON *v) {
    if (!cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble >= s->n_tokens) return -1;
    return (int32_t)v->valuedouble;
}

/* "eos_token_id": 2 or [128001, 128008, 128009]: all end an answer. */
static void read_ends(vocab_spec *s, const cJSON *generation) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(generation, "eos_token_id"), *item;
    if (s->bos < 0) s->bos = id_of(s, cJSON_GetObjectItemCaseSensitive(generation, "bos_token_id"));
    if (s->pad < 0) s->pad = id_of(s, cJSON_GetObjectItemCaseSensitive(generation, "pad_token_id"));
    if (cJSON_IsNumber(v)) {
        int32_t id = id_of(s, v);
        if (s->eos < 0)
            s->eos = id;
        else if (id >= 0 && id != s->eos)
            s->ends[s->n_ends++] = id;
        return;
    }
    cJSON_ArrayForEach(item, v) {
        int32_t id = id_of(s, item);
        if (id < 0 || id == s->eos || s->n_ends == SPEC_ENDS_MAX) continue;
        if (s->eos < 0)
            s->eos = id;
        else
            s->ends[s->n_ends++] = id;
    }
}

/* These classes put BOS and EOS around a text as the configuration says, whatever tokenizer.json does. */
static bool class_decides(const cJSON *config) {
    static const char *const classes[] = {"LlamaTokenizer",     "LlamaTokenizerFast", "GemmaTokenizer",
                                          "GemmaTokenizerFast", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast"};
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (strcmp(str_of(config, "tokenizer_class"), classes[i]) == 0) return true;
    return false;
}

static void read_around(vocab_spec *s, const cJSON *config) {
    const cJSON *bos = cJSON_GetObjectItemCaseSensitive(config, "add_bos_token");
    const cJSON *eos = cJSON_GetObjectItemCaseSensitive(config, "add_eos_token");
    if (!class_decides(config)) return;
    if (cJSON_IsBool(bos)) {
        s->n_before = cJSON_IsTrue(bos) && s->bos >= 0;
        s->before[0] = s->bos;
    }
    if (cJSON_IsBool(eos)) {
        s->n_after = cJSON_IsTrue(eos) && s->eos >= 0;
        s->after[0] = s->eos;
    }
}

err_code json_config_read(spec_maker *m, const spec_sources *src, const spec_index *ix) {
    vocab_spec *s = m->s;
    cJSON *config = NULL, *generation = NULL;
    err_code rc = parse(m, &src->config, "tokenizer_config.json", &config);
    if (rc == ERR_OK) rc = parse(m, &src->generation, "generation_config.json", &generation);
    if (rc == ERR_OK) {
        read_named(config, "bos_token", ix, &s->bos);
        read_named(config, "eos_token", ix, &s->eos);
        read_named(config, "pad_token", ix, &s->pad);
        read_named(config, "sep_token", ix, &s->sep);
        read_named(config, "cls_token", ix, &s->cls);
        read_named(config, "mask_token", ix, &s->mask);
        if (s->unk < 0) read_named(config, "unk_token", ix, &s->unk);
        read_ends(s, generation);
        read_around(s, config);
        if (s->bos < 0 && s->n_before == 1) s->bos = s->before[0];
        if (s->model == SPEC_WORDPIECE && s->cls < 0) s->cls = s->bos;
        if (s->model == SPEC_WORDPIECE && s->bos < 0) s->bos = s->cls;
    }
    cJSON_Delete(config);
    cJSON_Delete(generation);
    return rc;
}
