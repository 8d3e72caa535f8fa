#include "engine/vocab/pretok.h"

#include "base/bytes.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <utf8proc.h>

/* ---- characters ------------------------------------------------------------------------------------------- */

/* Classes of characters, as bits: the categories of Unicode that the expressions below name. */
enum {
    UPPER = 1, /* Lu, Lt */
    LOWER = 2, /* Ll */
    OTHER = 4, /* Lm, Lo */
    MARK = 8,
    NUMBER = 16,
    PUNCT = 32,
    SYMBOL = 64,
    SPACE = 128, /* White_Space */
    LETTER = UPPER | LOWER | OTHER,
};

#define CHARACTERS 0x110000
static uint8_t classes[CHARACTERS];
static pthread_once_t classes_once = PTHREAD_ONCE_INIT;

static uint8_t class_of(uint32_t cp) {
    if ((cp >= 9 && cp <= 13) || cp == 0x85) return SPACE;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT: return UPPER;
    case UTF8PROC_CATEGORY_LL: return LOWER;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return OTHER;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return MARK;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return NUMBER;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: return PUNCT;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO: return SYMBOL;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return SPACE;
    default: return 0;
    }
}

static void classes_fill(void) {
    for (uint32_t cp = 0; cp < CHARACTERS; cp++) {
        /* planes without assigned characters, and the private ones, have no class */
        if (cp == 0x40000) cp = 0xe0000;
        if (cp == 0xf0000) break;
        classes[cp] = class_of(cp);
    }
}

/* A piece of text: s[0, end). */
typedef struct text {
    const char *s;
    size_t end;
} text;

typedef struct ch {
    uint32_t cp;
    uint8_t cls;
    uint8_t len; /* bytes; 0 past the end, where cls is 0 and cp no character */
} ch;

static inline ch at(text t, size_t pos) {
    if (pos >= t.end) return (ch){UINT32_MAX, 0, 0};
    uint8_t c = (uint8_t)t.s[pos];
    if (c < 0x80) return (ch){c, classes[c], 1};
    uint32_t cp;
    int len = utf8_decode(&cp, t.s + pos, t.end - pos);
    if (len <= 0) return (ch){0xfffd, SYMBOL, 1};
    return (ch){cp, classes[cp], (uint8_t)len};
}

static inline bool is_newline(uint32_t cp) {
    return cp == '\n' || cp == '\r';
}

/* Script=Han of Unicode 15. */
static bool is_han(uint32_t cp) {
    static const uint32_t ranges[][2] = {
        {0x2e80, 0x2e99},   {0x2e9b, 0x2ef3},   {0x2f00, 0x2fd5},   {0x3005, 0x3005},   {0x3007, 0x3007},
        {0x3021, 0x3029},   {0x3038, 0x303b},   {0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfa6d},
        {0xfa70, 0xfad9},   {0x16fe2, 0x16fe3}, {0x16ff0, 0x16ff1}, {0x20000, 0x2a6df}, {0x2a700, 0x2b739},
        {0x2b740, 0x2b81d}, {0x2b820, 0x2cea1}, {0x2ceb0, 0x2ebe0}, {0x2f800, 0x2fa1d}, {0x30000, 0x3134a},
        {0x31350, 0x323af},
    };
    if (cp >= 0x4e00 && cp <= 0x9fff) return true;
    if (cp < 0x2e80 || cp > 0x323af) return false;
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (cp >= ranges[i][0] && cp <= ranges[i][1]) return true;
    return false;
}

/* The end of the run of characters of the classes `mask` at pos. */
static size_t run_of(text t, size_t pos, uint8_t mask) {
    for (ch c = at(t, pos); c.cls & mask; c = at(t, pos)) pos += c.len;
    return pos;
}

/* The end of the run of characters that have none of the classes `mask`. */
static size_t run_without(text t, size_t pos, uint8_t mask) {
    for (ch c = at(t, pos); c.len && !(c.cls & mask); c = at(t, pos)) pos += c.len;
    return pos;
}

/* ---- parts that several expressions share ----------------------------------------------------------------- */

/* 's|'t|'re|'ve|'m|'ll|'d at pos: its length or 0. */
static size_t contraction(text t, size_t pos, bool any_case) {
    if (t.end - pos < 2 || t.s[pos] != '\'') return 0;
    char fold = any_case ? 0x20 : 0;
    char a = t.s[pos + 1], b = t.end - pos > 2 ? t.s[pos + 2] : 0;
    if (a >= 'A' && a <= 'Z') a = (char)(a | fold);
    if (b >= 'A' && b <= 'Z') b = (char)(b | fold);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    return 0;
}

/* \s+(?!\S)|\s+ at pos, and before them, with newlines, \s*[\r\n]+. pos where there is no white space. */
static size_t white_space(text t, size_t pos, bool newlines) {
    size_t p = pos, last = pos, after_newline = 0;
    for (ch c = at(t, p); c.cls & SPACE; c = at(t, p)) {
        last = p;
        p += c.len;
        if (is_newline(c.cp)) after_newline = p;
    }
    if (newlines && after_newline) return after_newline;
    return p == t.end || last == pos ? p : last;
}

/* ---- stages ----------------------------------------------------------------------------------------------- */

/* Finds the first match at or after pos: true and [*from, *to), which is not empty. */
typedef bool (*stage_find)(text t, size_t pos, const void *options, size_t *from, size_t *to);

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static bool find_gpt2(text t, size_t pos, const void *options, size_t *from, size_t *to) {
    *from = pos;
    ch c = at(t, pos);
    size_t p = pos, n = contraction(t, pos, false);
    if (n) return *to = pos + n, true;
    if (c.cp == ' ' && at(t, pos + 1).len) c = at(t, ++p);
    if (c.cls & SPACE)
        *to = white_space(t, pos, false);
    else if (c.cls & LETTER)
        *to = run_of(t, p, LETTER);
    else if (c.cls & NUMBER)
        *to = run_of(t, p, NUMBER);
    else
        *to = run_without(t, p, SPACE | LETTER | NUMBER);
    return true;
}

/* The expressions since GPT-4 are one with options:
 *   CONTRACTION | [^\r\n\p{L}\p{N}]? WORD CONTRACTION? | \p{N}{1,digits} | ?[^\s\p{L}\p{N}]+[\r\n]* | \s*[\r\n]+ |
 *   \s+(?!\S) | \s+ */
typedef struct modern {
    bool contraction_first, contraction_after;
    bool marks; /* WORD is [\p{L}\p{M}]+ and marks are no punctuation; otherwise \p{L}+ */
    bool cased; /* WORD is U*L+ or else U+L*, with U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], L = [\p{Ll}\p{Lm}\p{Lo}\p{M}] */
    bool han;   /* Chinese characters are words of their own */
    bool slash; /* the punctuation's tail is [\r\n/]* */
    uint8_t digits;
} modern;

/* U*L+ at pos: its end, or 0 where it does not match. U+L* is the run of U then: *upper is its end. */
static size_t cased_word(text t, size_t pos, bool han, size_t *upper) {
    size_t p = pos, last = 0; /* last: after the last character that is both U and L, where L+ may take over */
    ch c = at(t, p);
    for (; (c.cls & (UPPER | OTHER | MARK)) && !(han && is_han(c.cp)); c = at(t, p)) {
        p += c.len;
        if (!(c.cls & UPPER)) last = p;
    }
    *upper = p;
    if (!(c.cls & LOWER)) return last;
    for (; (c.cls & (LOWER | OTHER | MARK)) && !(han && is_han(c.cp)); c = at(t, p)) p += c.len;
    return p;
}

static size_t modern_cased(text t, size_t pos, ch c, const modern *o) {
    size_t upper0 = 0, upper1 = 0, end = 0, after = pos + c.len;
    bool prefix = !is_newline(c.cp) && !(c.cls & (LETTER | NUMBER));
    if (prefix) end = cased_word(t, after, o->han, &upper1);
    if (!end) end = cased_word(t, pos, o->han, &upper0);
    if (!end && prefix && upper1 > after) end = upper1;
    if (!end && upper0 > pos) end = upper0;
    return end;
}

static size_t modern_word(text t, size_t pos, ch c, const modern *o) {
    if (o->cased) return modern_cased(t, pos, c, o);
    uint8_t mask = o->marks ? LETTER | MARK : LETTER;
    if (c.cls & mask) return run_of(t, pos, mask);
    if (is_newline(c.cp) || (c.cls & NUMBER)) return 0;
    size_t end = run_of(t, pos + c.len, mask);
    return end > pos + c.len ? end : 0;
}

static size_t modern_number(text t, size_t pos, const modern *o) {
    ch c = at(t, pos);
    for (int i = 0; i < o->digits && (c.cls & NUMBER); i++, c = at(t, pos)) pos += c.len;
    return pos;
}

static size_t modern_punctuation(text t, size_t pos, ch c, const modern *o) {
    uint8_t not = o->marks ? SPACE | LETTER | NUMBER | MARK : SPACE | LETTER | NUMBER;
    size_t p = c.cp == ' ' ? pos + 1 : pos, end = run_without(t, p, not );
    if (end == p) return 0;
    while (end < t.end && (is_newline((uint8_t)t.s[end]) || (o->slash && t.s[end] == '/'))) end++;
    return end;
}

static bool find_modern(text t, size_t pos, const void *options, size_t *from, size_t *to) {
    const modern *o = options;
    ch c = at(t, pos);
    size_t end = 0, n;
    *from = pos;
    if (o->han && is_han(c.cp)) {
        for (end = pos; is_han(c.cp); c = at(t, end)) end += c.len;
        return *to = end, true;
    }
    if (o->contraction_first && (n = contraction(t, pos, true))) return *to = pos + n, true;
    if ((end = modern_word(t, pos, c, o))) {
        if (o->contraction_after) end += contraction(t, end, true);
    } else if (c.cls & NUMBER) {
        end = modern_number(t, pos, o);
    } else if (!(end = modern_punctuation(t, pos, c, o))) {
        end = white_space(t, pos, true);
    }
    /* a character that nothing above takes (none is known) is a word */
    return *to = end > pos ? end : pos + c.len, true;
}

/* \p{N}{1,3} */
static bool find_numbers(text t, size_t pos, const void *options, size_t *from, size_t *to) {
    const modern *o = options;
    while (pos < t.end && !(at(t, pos).cls & NUMBER)) pos += at(t, pos).len;
    *from = pos;
    *to = modern_number(t, pos, o);
    return *to > pos;
}

/* \p{N}+ */
static bool find_number_run(text t, size_t pos, const void *options, size_t *from, size_t *to) {
    *from = run_without(t, pos, NUMBER);
    *to = run_of(t, *from, NUMBER);
    return *to > *from;
}

/* Falcon's tokenizer.json looks for digits when bytes are characters already: "Digits" isolates runs of the characters
 * that are numeric, and six of the characters that stand for bytes above ASCII are: the bytes of U+00B2, U+00B3, U+00B9
 * and U+00BC to U+00BE. Words are cut inside of characters by that. */
static bool is_numeric_byte(uint8_t b) {
    return (b >= '0' && b <= '9') || b == 0xb2 || b == 0xb3 || b == 0xb9 || (b >= 0xbc && b <= 0xbe);
}
static bool find_byte_digits(text t, size_t pos, const void *options, size_t *from, size_t *to) {
    while (pos < t.end && !is_numeric_byte((uint8_t)t.s[pos])) pos++;
    *from = pos;
    while (pos < t.end && is_numeric_byte((uint8_t)t.s[pos])) pos++;
    *to = pos;
    return *to > *from;
}

/* [0-9][0-9][0-9] */
static bool find_three_digits(text t, size_t pos, const void *options, size_t *from, size_t *to) {
    size_t n = 0;
    for (; pos < t.end; pos++) {
        n = t.s[pos] >= '0' && t.s[pos] <= '9' ? n + 1 : 0;
        if (n < 3) continue;
        *from = pos - 2;
        *to = pos + 1;
        return true;
    }
    return false;
}

/* [\p{P}\$\+<=>\^~\|]+, and with options the grave accent too */
static bool find_punctuation(text t, size_t pos, const void *options, size_t *from, size_t *to) {
    const char *also = options;
    bool found = false;
    for (ch c = at(t, pos); c.len; c = at(t, pos)) {
        bool in = (c.cls & PUNCT) || (c.cp && c.cp < 0x80 && strchr(also, (int)c.cp));
        if (in && !found) *from = pos;
        if (!in && found) break;
        found = in;
        pos += c.len;
    }
    *to = pos;
    return found;
}

/* [\r\n] */
static bool find_newline(text t, size_t pos, const void *options, size_t *from, size_t *to) {
    while (pos < t.end && !is_newline((uint8_t)t.s[pos])) pos++;
    *from = pos;
    *to = pos + 1;
    return pos < t.end;
}

/* \s?SET+, with the options a test for SET */
typedef struct set {
    bool (*has)(ch c);
    bool after_space;
} set;

static bool find_set(text t, size_t pos, const void *options, size_t *from, size_t *to) {
    const set *o = options;
    size_t space = SIZE_MAX;
    ch c = at(t, pos);
    for (; c.len && !o->has(c); c = at(t, pos)) {
        space = c.cls & SPACE ? pos : SIZE_MAX;
        pos += c.len;
    }
    if (!c.len) return false;
    *from = o->after_space && space != SIZE_MAX ? space : pos;
    for (; c.len && o->has(c); c = at(t, pos)) pos += c.len;
    *to = pos;
    return true;
}

/* DeepSeek LLM names the cased letters of Unicode 11 by ranges: all but the mathematical ones and a few scripts. */
static bool in_cased_letters(ch c) {
    if (!(c.cls & (UPPER | LOWER))) return false;
    return c.cp < 0x16e40 || (c.cp >= 0x1e900 && c.cp <= 0x1e943);
}
/* [!-/:-~！-／：-～‘-‟　-。] as DeepSeek wrote it: ':-~' takes the ASCII letters in. */
static bool in_deepseek_marks(ch c) {
    return (c.cp >= '!' && c.cp <= '/') || (c.cp >= ':' && c.cp <= '~') || (c.cp >= 0xff01 && c.cp <= 0xff0f) ||
           (c.cp >= 0xff1a && c.cp <= 0xff5e) || (c.cp >= 0x2018 && c.cp <= 0x201f) ||
           (c.cp >= 0x3000 && c.cp <= 0x3002);
}
/* [一-龥ࠀ-一가-퟿] */
static bool in_deepseek_cjk(ch c) {
    return (c.cp >= 0x800 && c.cp <= 0x9fa5) || (c.cp >= 0xac00 && c.cp <= 0xd7ff);
}
/* [一-龥぀-ゟ゠-ヿ] */
static bool in_han_or_kana(ch c) {
    return (c.cp >= 0x4e00 && c.cp <= 0x9fa5) || (c.cp >= 0x3040 && c.cp <= 0x30ff);
}

/* \s+$ */
static bool find_trailing_space(text t, size_t pos, const void *options, size_t *from, size_t *to) {
    while (pos < t.end) {
        size_t end = run_of(t, pos, SPACE);
        if (end == t.end && end > pos) return *from = pos, *to = end, true;
        pos = run_without(t, end, SPACE);
    }
    return false;
}

/* [!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * at pos: its end, or pos where it does not match (control characters, unassigned ones). */
static size_t deepseek_v3_at(text t, size_t pos) {
    ch c = at(t, pos), d = at(t, pos + c.len);
    uint32_t letter = d.cp | 0x20;
    size_t end;
    if (c.cp < 0x80 && (c.cls & (PUNCT | SYMBOL)) && letter >= 'a' && letter <= 'z') {
        for (end = pos + c.len; (d.cp | 0x20) >= 'a' && (d.cp | 0x20) <= 'z'; d = at(t, end)) end += d.len;
        return end;
    }
    if (c.cls & (LETTER | MARK)) return run_of(t, pos, LETTER | MARK);
    if (!is_newline(c.cp) && !(c.cls & (PUNCT | SYMBOL)) && (d.cls & (LETTER | MARK)))
        return run_of(t, pos + c.len, LETTER | MARK);
    size_t p = c.cp == ' ' ? pos + 1 : pos;
    end = run_of(t, p, PUNCT | SYMBOL);
    if (end == p) return white_space(t, pos, true);
    while (end < t.end && is_newline((uint8_t)t.s[end])) end++;
    return end;
}

static bool find_deepseek_v3(text t, size_t pos, const void *options, size_t *from, size_t *to) {
    for (; pos < t.end; pos += at(t, pos).len) {
        *from = pos;
        *to = deepseek_v3_at(t, pos);
        if (*to > pos) return true;
    }
    return false;
}

/* ---- the table -------------------------------------------------------------------------------------------- */

static const modern llama3 = {.contraction_first = true, .digits = 3};
static const modern qwen2 = {.contraction_first = true, .digits = 1};
static const modern qwen35 = {.contraction_first = true, .marks = true, .digits = 1};
static const modern tekken = {.cased = true, .slash = true, .digits = 1};
static const modern gpt4o = {.cased = true, .contraction_after = true, .slash = true, .digits = 3};
static const modern kimi = {.cased = true, .contraction_after = true, .han = true, .digits = 3};
static const modern one_digit = {.digits = 1}, three_digits = {.digits = 3};
static const char default_marks[] = "$+<=>^~|", falcon_marks[] = "$+<=>^~|`";
static const set cased_letters = {in_cased_letters, true}, deepseek_marks = {in_deepseek_marks, true},
                 deepseek_cjk = {in_deepseek_cjk, false}, han_or_kana = {in_han_or_kana, false};

#define STAGES_MAX 6
struct pretok {
    const char *names; /* separated by one space */
    struct {
        stage_find find;
        const void *options;
    } stages[STAGES_MAX];
    bool ignores_merges, adds_bos;
};

static const pretok table[] = {
    {"default",
     {{find_punctuation, default_marks}, {find_gpt2, NULL}, {find_number_run, NULL}, {find_three_digits, NULL}},
     false,
     false},
    {"gpt-2 phi-2 mpt olmo jais trillion gigachat a.x-4.0 mellum modern-bert exaone4 granite-docling",
     {{find_gpt2, NULL}},
     false,
     false},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2", {{find_modern, &llama3}}, true, true},
    {"dbrx smaug-bpe glm4 chatglm-bpe", {{find_modern, &llama3}}, false, false},
    {"qwen2 deepseek-r1-qwen stablelm2 megrez hunyuan kormo solar-open grok-2", {{find_modern, &qwen2}}, false, false},
    {"qwen35", {{find_modern, &qwen35}}, false, false},
    {"tekken", {{find_modern, &tekken}}, true, true},
    {"gpt-4o llama4 kanana2 minimax-m2", {{find_modern, &gpt4o}}, false, false},
    {"kimi-k2", {{find_modern, &kimi}}, false, false},
    {"smollm starcoder refact command-r codeshell exaone minerva-7b",
     {{find_numbers, &one_digit}, {find_gpt2, NULL}},
     false,
     false},
    {"falcon", {{find_punctuation, falcon_marks}, {find_gpt2, NULL}, {find_three_digits, NULL}}, false, false},
    {"falcon-digits",
     {{find_punctuation, falcon_marks}, {find_gpt2, NULL}, {find_byte_digits, NULL}, {find_three_digits, NULL}},
     false,
     false},
    {"deepseek-llm",
     {{find_newline, NULL},
      {find_set, &cased_letters},
      {find_set, &deepseek_marks},
      {find_trailing_space, NULL},
      {find_set, &deepseek_cjk},
      {find_number_run, NULL}},
     false,
     false},
    {"deepseek-v3 hunyuan-dense joyai-llm",
     {{find_numbers, &three_digits}, {find_set, &han_or_kana}, {find_deepseek_v3, NULL}},
     false,
     false},
};
#define TABLE_LEN (sizeof table / sizeof table[0])

const pretok *pretok_find(const char *name, size_t len) {
    pthread_once(&classes_once, classes_fill);
    for (size_t i = 0; i < TABLE_LEN; i++) {
        for (const char *p = table[i].names; *p;) {
            size_t n = strcspn(p, " ");
            if (n == len && memcmp(p, name, n) == 0) return &table[i];
            p += n + (p[n] == ' ');
        }
    }
    return NULL;
}

void pretok_names(buf *out) {
    for (size_t i = 0; i < TABLE_LEN; i++) {
        for (const char *p = table[i].names; *p; p++) {
            if (*p == ' ')
                buf_puts(out, ", ");
            else
                buf_putc(out, *p);
        }
        if (i + 1 < TABLE_LEN) buf_puts(out, ", ");
    }
}

bool pretok_ignores_merges(const pretok *p) {
    return p->ignores_merges;
}

bool pretok_adds_bos(const pretok *p) {
    return p->adds_bos;
}

static err_code split(const pretok *p, size_t stage, text t, pretok_word word, void *ctx) {
    if (stage == STAGES_MAX || !p->stages[stage].find) return word(ctx, t.s, t.end);
    size_t done = 0, from = 0, to = 0;
    while (done < t.end) {
        bool found = p->stages[stage].find(t, done, p->stages[stage].options, &from, &to);
        err_code rc = ERR_OK;
        if (!found) from = to = t.end;
        if (from > done) rc = split(p, stage + 1, (text){t.s + done, from - done}, word, ctx);
        if (rc == ERR_OK && to > from) rc = split(p, stage + 1, (text){t.s + from, to - from}, word, ctx);
        if (rc != ERR_OK) return rc;
        done = to;
    }
    return ERR_OK;
}

err_code pretok_split(const pretok *p, const char *s, size_t n, pretok_word word, void *ctx) {
    return n ? split(p, 0, (text){s, n}, word, ctx) : ERR_OK;
}
