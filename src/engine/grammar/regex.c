/* Regular expressions: parsed into a tree, because {m,n} copies what stands before it, then written as a char_nfa. */
#include "engine/grammar/chars.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define REGEX_BYTES_MAX  65536u
#define REGEX_DEPTH_MAX  200
#define REGEX_REPEAT_MAX 100000u
#define REGEX_SPANS_MAX  (1u << 18)
#define UNBOUNDED        UINT32_MAX

typedef enum part_kind { PART_EMPTY, PART_SET, PART_CAT, PART_ALT, PART_REPEAT, PART_BEGIN, PART_END } part_kind;

typedef struct part {
    part_kind kind;
    uint32_t left, right; /* PART_CAT, PART_ALT; PART_REPEAT: left */
    uint32_t min, max;    /* PART_REPEAT */
    uint32_t set, n_set;  /* PART_SET: ranges, sorted and apart */
} part;

typedef struct span {
    uint32_t lo, hi;
} span;

typedef struct parser {
    const char *p;
    size_t n, i;
    int depth;
    part *parts;
    uint32_t n_parts, cap_parts;
    span *spans;
    uint32_t n_spans, cap_spans;
    err_code rc;
    err *e;
} parser;

static void fail(parser *r, err_code rc, const char *why) {
    if (r->rc != ERR_OK) return;
    r->rc = rc;
    if (rc == ERR_NOMEM)
        err_nomem(r->e, "a regular expression");
    else
        err_set(r->e, rc, "regular expression, byte %zu: %s", r->i, why);
}

static uint32_t add_part(parser *r, part x) {
    if (r->n_parts == r->cap_parts) {
        uint32_t cap = r->cap_parts ? r->cap_parts * 2 : 32;
        part *p = mem_realloc(r->parts, cap * sizeof *p);
        if (!p) {
            fail(r, ERR_NOMEM, "");
            return 0;
        }
        r->parts = p;
        r->cap_parts = cap;
    }
    r->parts[r->n_parts] = x;
    return r->n_parts++;
}

/* ---- sets of characters --------------------------------------------------------------------------------------- */

static void add_span(parser *r, uint32_t lo, uint32_t hi) {
    if (lo > hi || r->rc != ERR_OK) return;
    if (r->n_spans == r->cap_spans) {
        uint32_t cap = r->cap_spans ? r->cap_spans * 2 : 64;
        if (cap > REGEX_SPANS_MAX) {
            fail(r, ERR_TOO_LARGE, "the sets of characters are too large together");
            return;
        }
        span *p = mem_realloc(r->spans, cap * sizeof *p);
        if (!p) {
            fail(r, ERR_NOMEM, "");
            return;
        }
        r->spans = p;
        r->cap_spans = cap;
    }
    r->spans[r->n_spans++] = (span){lo, hi};
}

static int compare_spans(const void *a, const void *b) {
    const span *x = a, *y = b;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

/* Sort and join the spans from `first` on, and turn them round where `not` is set. */
static void settle(parser *r, uint32_t first, bool inverse) {
    if (r->rc != ERR_OK) return;
    uint32_t n = r->n_spans - first, kept = first;
    if (n > 1) qsort(r->spans + first, n, sizeof *r->spans, compare_spans);
    for (uint32_t i = first; i < first + n; i++) {
        span s = r->spans[i];
        if (kept > first && s.lo <= r->spans[kept - 1].hi + 1) {
            if (s.hi > r->spans[kept - 1].hi) r->spans[kept - 1].hi = s.hi;
        } else {
            r->spans[kept++] = s;
        }
    }
    r->n_spans = kept;
    if (!inverse) return;
    uint32_t lo = 0;
    for (uint32_t i = first; i < kept; i++) { /* the complement behind, then moved to the front */
        if (r->spans[i].lo > lo) add_span(r, lo, r->spans[i].lo - 1);
        lo = r->spans[i].hi + 1;
    }
    if (lo <= CHAR_LAST) add_span(r, lo, CHAR_LAST);
    if (r->rc != ERR_OK) return;
    memmove(r->spans + first, r->spans + kept, (r->n_spans - kept) * sizeof *r->spans);
    r->n_spans = first + (r->n_spans - kept);
}

static void add_class(parser *r, char c) {
    static const span digits[] = {{'0', '9'}}, words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                      spaces[] = {{9, 13},          {32, 32},         {0xa0, 0xa0},     {0x1680, 0x1680},
                                  {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f},
                                  {0x3000, 0x3000}, {0xfeff, 0xfeff}};
    char low = (char)(c | 32);
    const span *s = low == 'd' ? digits : low == 'w' ? words : spaces;
    size_t n = low == 'd' ? 1 : low == 'w' ? 4 : sizeof spaces / sizeof *spaces;
    uint32_t first = r->n_spans;
    for (size_t i = 0; i < n; i++) add_span(r, s[i].lo, s[i].hi);
    settle(r, first, c < 'a');
}

/* ---- Unicode categories ---------------------------------------------------------------------------------------- */

static const struct {
    const char *name, *other;
    const char *two; /* categories, by their two letters */
} categories[] = {
    {"L", "Letter", "LuLlLtLmLo"},
    {"LC", "Cased_Letter", "LuLlLt"},
    {"Lu", "Uppercase_Letter", "Lu"},
    {"Ll", "Lowercase_Letter", "Ll"},
    {"Lt", "Titlecase_Letter", "Lt"},
    {"Lm", "Modifier_Letter", "Lm"},
    {"Lo", "Other_Letter", "Lo"},
    {"M", "Mark", "MnMcMe"},
    {"Mn", "Nonspacing_Mark", "Mn"},
    {"Mc", "Spacing_Mark", "Mc"},
    {"Me", "Enclosing_Mark", "Me"},
    {"N", "Number", "NdNlNo"},
    {"Nd", "Decimal_Number", "Nd"},
    {"Nl", "Letter_Number", "Nl"},
    {"No", "Other_Number", "No"},
    {"P", "Punctuation", "PcPdPsPePiPfPo"},
    {"Pc", "Connector_Punctuation", "Pc"},
    {"Pd", "Dash_Punctuation", "Pd"},
    {"Ps", "Open_Punctuation", "Ps"},
    {"Pe", "Close_Punctuation", "Pe"},
    {"Pi", "Initial_Punctuation", "Pi"},
    {"Pf", "Final_Punctuation", "Pf"},
    {"Po", "Other_Punctuation", "Po"},
    {"S", "Symbol", "SmScSkSo"},
    {"Sm", "Math_Symbol", "Sm"},
    {"Sc", "Currency_Symbol", "Sc"},
    {"Sk", "Modifier_Symbol", "Sk"},
    {"So", "Other_Symbol", "So"},
    {"Z", "Separator", "ZsZlZp"},
    {"Zs", "Space_Separator", "Zs"},
    {"Zl", "Line_Separator", "Zl"},
    {"Zp", "Paragraph_Separator", "Zp"},
    {"Cc", "Control", "Cc"},
    {"Cf", "Format", "Cf"},
};

typedef struct run { /* characters from here to the next run have one category */
    uint32_t from;
    char two[2];
} run;

#define RUNS_MAX 8192

/* Made once for the process: asking for every character takes milliseconds. */
static run runs[RUNS_MAX + 1];
static uint32_t n_runs;
static pthread_once_t runs_once = PTHREAD_ONCE_INIT;

static void make_runs(void) {
    for (uint32_t c = 0; c <= CHAR_LAST; c++) {
        const char *s = utf8proc_category_string((utf8proc_int32_t)c);
        if (n_runs && runs[n_runs - 1].two[0] == s[0] && runs[n_runs - 1].two[1] == s[1]) continue;
        if (n_runs == RUNS_MAX) break; /* there are some 3,400 */
        runs[n_runs++] = (run){c, {s[0], s[1]}};
    }
    runs[n_runs].from = CHAR_LAST + 1;
}

static void add_category(parser *r, const char *list) {
    pthread_once(&runs_once, make_runs);
    for (uint32_t i = 0; i < n_runs; i++)
        for (const char *two = list; *two; two += 2)
            if (runs[i].two[0] == two[0] && runs[i].two[1] == two[1]) add_span(r, runs[i].from, runs[i + 1].from - 1);
}

/* Behind \p or \P. */
static void add_property(parser *r, bool inverse) {
    size_t from = r->i + 1, to = from;
    while (to < r->n && r->p[to] != '}') to++;
    if (r->i >= r->n || r->p[r->i] != '{' || to == r->n) {
        fail(r, ERR_INVALID, "\\p must be followed by {a general category}");
        return;
    }
    const char *name = r->p + from;
    size_t n = to - from;
    static const char *const prefixes[] = {"gc=", "General_Category="};
    for (size_t k = 0; k < 2; k++) {
        size_t m = strlen(prefixes[k]);
        if (n > m && memcmp(name, prefixes[k], m) == 0) name += m, n -= m;
    }
    for (size_t k = 0; k < sizeof categories / sizeof *categories; k++) {
        const char *const both[] = {categories[k].name, categories[k].other};
        for (int w = 0; w < 2; w++) {
            if (strlen(both[w]) != n || memcmp(both[w], name, n) != 0) continue;
            uint32_t first = r->n_spans;
            add_category(r, categories[k].two);
            settle(r, first, inverse);
            r->i = to + 1;
            return;
        }
    }
    fail(r, ERR_UNSUPPORTED, "this Unicode property is not known; general categories are (\\p{L}, \\p{Lu}, …)");
}

/* ---- characters and escapes ------------------------------------------------------------------------------------- */

static uint32_t read_char(parser *r) {
    uint32_t c = 0;
    int len = utf8_decode(&c, r->p + r->i, r->n - r->i);
    if (len <= 0) {
        fail(r, ERR_INVALID, "the text is not valid UTF-8");
        r->i = r->n;
        return 0;
    }
    r->i += (size_t)len;
    return c;
}

static uint32_t read_hex(parser *r, size_t digits) {
    uint32_t v = 0;
    for (size_t k = 0; k < digits; k++) {
        char ch = r->i < r->n ? r->p[r->i] : 0, low = (char)(ch | 32);
        if (!((ch >= '0' && ch <= '9') || (low >= 'a' && low <= 'f'))) {
            fail(r, ERR_INVALID, "hexadecimal digits are missing");
            return 0;
        }
        v = v << 4 | (uint32_t)(ch <= '9' ? ch - '0' : low - 'a' + 10);
        r->i++;
    }
    return v;
}

static uint32_t read_unicode(parser *r) {
    if (r->i < r->n && r->p[r->i] == '{') {
        size_t from = ++r->i;
        while (r->i < r->n && r->p[r->i] != '}') r->i++;
        size_t digits = r->i - from;
        if (r->i == r->n || digits < 1 || digits > 8) {
            fail(r, ERR_INVALID, "\\u{…} must hold one to eight hexadecimal digits");
            return 0;
        }
        r->i = from;
        uint32_t c = read_hex(r, digits);
        r->i++;
        if (c > CHAR_LAST) fail(r, ERR_INVALID, "there is no such character");
        return c;
    }
    uint32_t c = read_hex(r, 4);
    bool pair = c >= 0xd800 && c < 0xdc00 && r->n - r->i >= 6 && r->p[r->i] == '\\' && r->p[r->i + 1] == 'u';
    if (!pair) return c;
    r->i += 2;
    uint32_t low = read_hex(r, 4);
    if (low < 0xdc00 || low >= 0xe000) fail(r, ERR_INVALID, "a high surrogate without its low one");
    return 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
}

/* Behind a backslash. true: one character, in *c; false: a set was added. */
static bool read_escape(parser *r, bool in_set, uint32_t *c) {
    if (r->i >= r->n) {
        fail(r, ERR_INVALID, "a backslash at the end");
        return true;
    }
    char ch = r->p[r->i++];
    switch (ch) {
    case 'd':
    case 'D':
    case 'w':
    case 'W':
    case 's':
    case 'S': add_class(r, ch); return false;
    case 'p':
    case 'P': add_property(r, ch == 'P'); return false;
    case 't': *c = '\t'; return true;
    case 'n': *c = '\n'; return true;
    case 'r': *c = '\r'; return true;
    case 'f': *c = '\f'; return true;
    case 'v': *c = '\v'; return true;
    case 'x': *c = read_hex(r, 2); return true;
    case 'u': *c = read_unicode(r); return true;
    case 'b':
    case 'B':
        if (in_set && ch == 'b') {
            *c = '\b';
            return true;
        }
        fail(r, ERR_UNSUPPORTED, "word boundaries (\\b, \\B) are not supported");
        return true;
    case 'c':
        if (r->i < r->n && (r->p[r->i] | 32) >= 'a' && (r->p[r->i] | 32) <= 'z') {
            *c = (uint32_t)r->p[r->i++] & 31;
            return true;
        }
        break;
    case '0':
        if (r->i >= r->n || r->p[r->i] < '0' || r->p[r->i] > '9') {
            *c = 0;
            return true;
        }
        break;
    case 'k':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9': fail(r, ERR_UNSUPPORTED, "back references are not supported"); return true;
    case 'A':
    case 'z':
    case 'Z':
    case 'G': fail(r, ERR_UNSUPPORTED, "of anchors only ^ and $ are supported"); return true;
    default:
        if (ch > 0x20 && ch < 0x7f && !((ch | 32) >= 'a' && (ch | 32) <= 'z')) {
            *c = (uint32_t)ch;
            return true;
        }
        break;
    }
    fail(r, ERR_INVALID, "this escape is not known");
    return true;
}

/* One member of [ ]: true where it is a character. */
static bool read_member(parser *r, uint32_t *c) {
    if (r->p[r->i] == '\\') {
        r->i++;
        return read_escape(r, true, c);
    }
    *c = read_char(r);
    return true;
}

/* Behind [. */
static uint32_t parse_set(parser *r) {
    uint32_t first = r->n_spans;
    bool inverse = r->i < r->n && r->p[r->i] == '^';
    if (inverse) r->i++;
    while (r->rc == ERR_OK && r->i < r->n && r->p[r->i] != ']') {
        uint32_t lo = 0, hi = 0;
        if (!read_member(r, &lo)) continue;
        bool range = r->n - r->i >= 2 && r->p[r->i] == '-' && r->p[r->i + 1] != ']';
        if (!range) {
            add_span(r, lo, lo);
            continue;
        }
        r->i++;
        if (!read_member(r, &hi) || hi < lo) {
            fail(r, ERR_INVALID, "a range of characters must go from a lower to a higher one");
            break;
        }
        add_span(r, lo, hi);
    }
    if (r->i >= r->n) fail(r, ERR_INVALID, "[ is not closed");
    r->i++;
    settle(r, first, inverse);
    return add_part(r, (part){.kind = PART_SET, .set = first, .n_set = r->n_spans - first});
}

/* ---- the grammar of expressions ---------------------------------------------------------------------------------- */

static uint32_t parse_choice(parser *r);

static uint32_t parse_group(parser *r) {
    if (r->n - r->i >= 2 && r->p[r->i] == '?') {
        char k = r->p[r->i + 1], after = r->n - r->i >= 3 ? r->p[r->i + 2] : 0;
        if (k == ':') {
            r->i += 2;
        } else if (k == '=' || k == '!' || (k == '<' && (after == '=' || after == '!'))) {
            fail(r, ERR_UNSUPPORTED, "look-ahead and look-behind are not supported");
        } else if (k == '<' || (k == 'P' && after == '<')) {
            while (r->i < r->n && r->p[r->i] != '>') r->i++;
            r->i++;
        } else {
            fail(r, ERR_UNSUPPORTED, "flags inside of an expression are not supported");
        }
    }
    if (++r->depth > REGEX_DEPTH_MAX) fail(r, ERR_TOO_LARGE, "too many groups inside of each other");
    uint32_t x = r->rc == ERR_OK ? parse_choice(r) : 0;
    r->depth--;
    if (r->i >= r->n || r->p[r->i] != ')') fail(r, ERR_INVALID, "( is not closed");
    r->i++;
    return x;
}

static uint32_t one_char(parser *r, uint32_t c) {
    uint32_t first = r->n_spans;
    add_span(r, c, c);
    return add_part(r, (part){.kind = PART_SET, .set = first, .n_set = 1});
}

static uint32_t parse_atom(parser *r) {
    uint32_t first = r->n_spans, c = 0;
    switch (r->p[r->i]) {
    case '(': r->i++; return parse_group(r);
    case '[': r->i++; return parse_set(r);
    case '^': r->i++; return add_part(r, (part){.kind = PART_BEGIN});
    case '$': r->i++; return add_part(r, (part){.kind = PART_END});
    case '.':
        r->i++;
        add_span(r, '\n', '\n');
        add_span(r, '\r', '\r');
        add_span(r, 0x2028, 0x2029);
        settle(r, first, true);
        return add_part(r, (part){.kind = PART_SET, .set = first, .n_set = r->n_spans - first});
    case '\\':
        r->i++;
        if (read_escape(r, false, &c)) return one_char(r, c);
        return add_part(r, (part){.kind = PART_SET, .set = first, .n_set = r->n_spans - first});
    case '*':
    case '+':
    case '?': fail(r, ERR_INVALID, "there is nothing to repeat"); return 0;
    default: return one_char(r, read_char(r));
    }
}

static bool read_count(parser *r, size_t *i, uint32_t *v) {
    uint64_t x = 0;
    size_t from = *i;
    for (; *i < r->n && r->p[*i] >= '0' && r->p[*i] <= '9'; (*i)++) {
        x = x * 10 + (uint64_t)(r->p[*i] - '0');
        if (x > REGEX_REPEAT_MAX) {
            fail(r, ERR_TOO_LARGE, "more than 100000 repetitions");
            x = 0;
        }
    }
    *v = (uint32_t)x;
    return *i > from;
}

/* {m} {m,} {m,n}: false where the brace stands for itself. */
static bool parse_braces(parser *r, uint32_t *min, uint32_t *max) {
    size_t i = r->i + 1;
    if (!read_count(r, &i, min)) return false;
    *max = *min;
    if (i < r->n && r->p[i] == ',') {
        i++;
        if (!read_count(r, &i, max)) *max = UNBOUNDED;
    }
    if (i >= r->n || r->p[i] != '}') return false;
    r->i = i + 1;
    if (*max < *min) fail(r, ERR_INVALID, "{m,n}: n is less than m");
    return true;
}

static bool is_repeat(const parser *r) {
    return r->i < r->n && (r->p[r->i] == '*' || r->p[r->i] == '+' || r->p[r->i] == '?');
}

static uint32_t parse_repeat(parser *r) {
    uint32_t x = parse_atom(r), min = 0, max = UNBOUNDED;
    if (r->rc != ERR_OK || r->i >= r->n) return x;
    if (is_repeat(r)) {
        char c = r->p[r->i++];
        min = c == '+';
        max = c == '?' ? 1 : UNBOUNDED;
    } else if (r->p[r->i] != '{' || !parse_braces(r, &min, &max)) {
        return x;
    }
    if (r->i < r->n && r->p[r->i] == '?') r->i++; /* as few as possible: the same texts */
    if (is_repeat(r)) fail(r, ERR_UNSUPPORTED, "a repetition of a repetition needs a group around the first");
    return add_part(r, (part){.kind = PART_REPEAT, .left = x, .min = min, .max = max});
}

static uint32_t parse_sequence(parser *r) {
    uint32_t x = add_part(r, (part){.kind = PART_EMPTY});
    bool first = true;
    while (r->rc == ERR_OK && r->i < r->n && r->p[r->i] != '|' && r->p[r->i] != ')') {
        uint32_t y = parse_repeat(r);
        x = first ? y : add_part(r, (part){.kind = PART_CAT, .left = x, .right = y});
        first = false;
    }
    return x;
}

static uint32_t parse_choice(parser *r) {
    uint32_t x = parse_sequence(r);
    while (r->rc == ERR_OK && r->i < r->n && r->p[r->i] == '|') {
        r->i++;
        uint32_t y = parse_sequence(r);
        x = add_part(r, (part){.kind = PART_ALT, .left = x, .right = y});
    }
    return x;
}

/* ---- writing it down ----------------------------------------------------------------------------------------------
 */

static void write_part(parser *r, char_nfa *n, uint32_t at, uint32_t from, uint32_t to);

static void write_repeat(parser *r, char_nfa *n, const part *x, uint32_t from, uint32_t to) {
    uint32_t last = x->max == UNBOUNDED ? x->min : x->max;
    for (uint32_t i = 0; i < last && !n->too_large && !n->no_memory; i++) {
        if (i >= x->min) char_nfa_edge(n, CHAR_EMPTY, from, 0, 0, to);
        uint32_t next = char_nfa_state(n);
        write_part(r, n, x->left, from, next);
        from = next;
    }
    if (x->max == UNBOUNDED) {
        uint32_t loop = char_nfa_state(n), back = char_nfa_state(n);
        char_nfa_edge(n, CHAR_EMPTY, from, 0, 0, loop);
        write_part(r, n, x->left, loop, back);
        char_nfa_edge(n, CHAR_EMPTY, back, 0, 0, loop);
        from = loop;
    }
    char_nfa_edge(n, CHAR_EMPTY, from, 0, 0, to);
}

/* The depth of the tree: a chain of PART_CAT and PART_ALT is as deep as it is long, so its left side is a loop. */
static void write_part(parser *r, char_nfa *n, uint32_t at, uint32_t from, uint32_t to) {
    for (;;) {
        if (n->too_large || n->no_memory) return;
        const part x = r->parts[at];
        switch (x.kind) {
        case PART_EMPTY: char_nfa_edge(n, CHAR_EMPTY, from, 0, 0, to); return;
        case PART_BEGIN: char_nfa_edge(n, CHAR_BEGIN, from, 0, 0, to); return;
        case PART_END: char_nfa_edge(n, CHAR_END, from, 0, 0, to); return;
        case PART_SET:
            for (uint32_t i = 0; i < x.n_set; i++) {
                uint32_t lo = r->spans[x.set + i].lo, hi = r->spans[x.set + i].hi;
                if (lo < CHAR_FIRST) lo = CHAR_FIRST;
                if (lo <= 0xd7ff && lo <= hi) char_nfa_edge(n, CHAR_RANGE, from, lo, hi < 0xd7ff ? hi : 0xd7ff, to);
                if (hi >= 0xe000) char_nfa_edge(n, CHAR_RANGE, from, lo > 0xe000 ? lo : 0xe000, hi, to);
            }
            return;
        case PART_REPEAT: write_repeat(r, n, &x, from, to); return;
        case PART_ALT: write_part(r, n, x.right, from, to); break;
        case PART_CAT: {
            uint32_t middle = char_nfa_state(n);
            write_part(r, n, x.right, middle, to);
            to = middle;
            break;
        }
        }
        at = x.left;
    }
}

static void write_whole(parser *r, char_nfa *out, uint32_t root, regex_kind kind) {
    out->start = char_nfa_state(out);
    out->end = char_nfa_state(out);
    uint32_t from = out->start, to = out->end;
    if (kind == REGEX_SEARCH) {
        from = char_nfa_state(out);
        to = char_nfa_state(out);
        char_nfa_any(out, out->start, out->start);
        char_nfa_edge(out, CHAR_EMPTY, out->start, 0, 0, from);
        char_nfa_edge(out, CHAR_EMPTY, to, 0, 0, out->end);
        char_nfa_any(out, out->end, out->end);
    }
    write_part(r, out, root, from, to);
}

err_code regex_parse(char_nfa *out, const char *pattern, size_t len, regex_kind kind, err *e) {
    *out = (char_nfa){0};
    if (len > REGEX_BYTES_MAX)
        return err_set(e, ERR_TOO_LARGE, "regular expression: %zu bytes, at most %u are read", len, REGEX_BYTES_MAX);
    parser r = {.p = pattern, .n = len, .e = e};
    uint32_t root = parse_choice(&r);
    if (r.rc == ERR_OK && r.i < r.n) fail(&r, ERR_INVALID, ") without (");
    if (r.rc == ERR_OK) {
        write_whole(&r, out, root, kind);
        r.rc = char_nfa_check(out, e);
    }
    mem_free(r.parts);
    mem_free(r.spans);
    if (r.rc != ERR_OK) char_nfa_free(out);
    return r.rc;
}

/* ---- as grammars ---------------------------------------------------------------------------------------------------
 */

err_code regex_build(builder *b, uint32_t from, uint32_t to, const char *pattern, size_t len, err *e) {
    char_nfa n;
    err_code rc = regex_parse(&n, pattern, len, REGEX_WHOLE, e);
    if (rc) return rc;
    char_nfa_emit(&n, b, from, to, FORM_PLAIN);
    char_nfa_free(&n);
    return builder_check(b, e);
}

err_code grammar_make_regex(grammar **out, const token_trie *t, const char *pattern, size_t len, err *e) {
    *out = NULL;
    builder b;
    builder_init(&b);
    err_code rc = builder_check(&b, e);
    if (!rc) rc = regex_build(&b, b.net.rules[0].start, b.net.rules[0].end, pattern, len, e);
    if (!rc) {
        rc = grammar_from_builder(out, t, &b, e);
        if (rc == ERR_INVALID) rc = err_set(e, rc, "regular expression: it matches no text");
    }
    builder_free(&b);
    return rc;
}

err_code grammar_new_regex(grammar **out, const model *m, const char *pattern, size_t len, err *e) {
    const token_trie *t = NULL;
    *out = NULL;
    err_code rc = model_trie(m, &t, e);
    return rc ? rc : grammar_make_regex(out, t, pattern, len, e);
}
