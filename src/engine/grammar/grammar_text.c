/* GBNF, and choices. The text is read once: each expression is written between two states as it is read; what is
 * repeated is copied afterwards (builder_repeat). */
#include "engine/grammar/chars.h"
#include "engine/grammar/grammar.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES_MAX  (1u << 20)
#define TEXT_DEPTH_MAX  200
#define TEXT_RULES_MAX  10000u
#define TEXT_REPEAT_MAX 100000u
#define TEXT_IDS_MAX    64 /* tokens behind one ! */
#define CHOICES_MAX     100000u

typedef struct named_rule {
    const char *name;
    size_t len;
    uint32_t id;
    size_t at; /* where it was first seen */
    bool defined;
} named_rule;

typedef struct parser {
    const char *s;
    size_t n, i;
    builder *b;
    const token_trie *trie;
    named_rule *rules;
    uint32_t n_rules, cap_rules;
    uint32_t *table, table_mask; /* open addressing by name */
    int depth;
    err_code rc;
    err *e;
} parser;

static void fail(parser *g, err_code rc, const char *why) {
    if (g->rc != ERR_OK) return;
    size_t line = 1, col = 1;
    for (size_t k = 0; k < g->i && k < g->n; k++) {
        col = g->s[k] == '\n' ? 1 : col + 1;
        line += g->s[k] == '\n';
    }
    g->rc = err_set(g->e, rc, "grammar, line %zu column %zu: %s", line, col, why);
}

static char peek(const parser *g) {
    return g->i < g->n ? g->s[g->i] : 0;
}

static bool is_name(char c) {
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '-' || c == '_';
}

/* Spaces and comments; line ends only where a rule goes on behind them. */
static void skip_space(parser *g, bool lines) {
    for (; g->i < g->n; g->i++) {
        char c = g->s[g->i];
        if (c == '#') {
            while (g->i + 1 < g->n && g->s[g->i + 1] != '\n') g->i++;
        } else if (c != ' ' && c != '\t' && !(lines && (c == '\n' || c == '\r'))) {
            return;
        }
    }
}

/* ---- rules by name ---------------------------------------------------------------------------------------------- */

static uint32_t text_hash(const char *p, size_t n) { /* FNV-1a */
    uint32_t h = 2166136261u;
    for (size_t k = 0; k < n; k++) h = (h ^ (uint8_t)p[k]) * 16777619u;
    return h;
}

static bool grow_table(parser *g) {
    uint32_t size = g->table ? (g->table_mask + 1) * 2 : 64;
    uint32_t *t = mem_array(size, sizeof *t);
    named_rule *r = t ? mem_realloc(g->rules, size * sizeof *r) : NULL;
    if (!r) {
        mem_free(t);
        g->rc = err_nomem(g->e, "a grammar");
        return false;
    }
    g->rules = r;
    g->cap_rules = size;
    mem_free(g->table);
    g->table = t;
    g->table_mask = size - 1;
    for (uint32_t k = 0; k < g->n_rules; k++) {
        uint32_t at = text_hash(r[k].name, r[k].len) & g->table_mask;
        while (t[at]) at = (at + 1) & g->table_mask;
        t[at] = k + 1;
    }
    return true;
}

/* Index of the rule with a name, new where it has not been seen. */
static uint32_t find_rule(parser *g, const char *name, size_t len, size_t at) {
    if (g->rc != ERR_OK || ((!g->table || g->n_rules * 2 > g->table_mask) && !grow_table(g))) return 0;
    uint32_t k = text_hash(name, len) & g->table_mask;
    for (; g->table[k]; k = (k + 1) & g->table_mask) {
        const named_rule *r = &g->rules[g->table[k] - 1];
        if (r->len == len && memcmp(r->name, name, len) == 0) return g->table[k] - 1;
    }
    if (g->n_rules == TEXT_RULES_MAX) {
        fail(g, ERR_TOO_LARGE, "more than 10000 rules");
        return 0;
    }
    bool root = len == 4 && memcmp(name, "root", 4) == 0;
    g->rules[g->n_rules] = (named_rule){.name = name, .len = len, .at = at, .id = root ? 0 : builder_rule(g->b)};
    g->table[k] = ++g->n_rules;
    return g->n_rules - 1;
}

/* ---- characters ---------------------------------------------------------------------------------------------------
 */

static uint32_t read_hex(parser *g, int digits) {
    uint32_t v = 0;
    for (int k = 0; k < digits; k++, g->i++) {
        char c = peek(g), low = (char)(c | 32);
        if (!((c >= '0' && c <= '9') || (low >= 'a' && low <= 'f'))) {
            fail(g, ERR_INVALID, "hexadecimal digits are missing");
            return 0;
        }
        v = v << 4 | (uint32_t)(c <= '9' ? c - '0' : low - 'a' + 10);
    }
    if (v > CHAR_LAST) fail(g, ERR_INVALID, "there is no such character");
    return v;
}

static uint32_t read_char(parser *g) {
    uint32_t c = 0;
    if (peek(g) != '\\') {
        int len = utf8_decode(&c, g->s + g->i, g->n - g->i);
        if (len <= 0) fail(g, ERR_INVALID, "the text is not valid UTF-8");
        g->i += len > 0 ? (size_t)len : 1;
        return c;
    }
    g->i++;
    char k = peek(g);
    g->i++;
    switch (k) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'x': return read_hex(g, 2);
    case 'u': return read_hex(g, 4);
    case 'U': return read_hex(g, 8);
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^':
    case '/': return (uint32_t)k;
    default: fail(g, ERR_INVALID, "this escape is not known"); return 0;
    }
}

static void check_char(parser *g, uint32_t c) {
    if (c < CHAR_FIRST || (c >= 0xd800 && c < 0xe000))
        fail(g, ERR_INVALID, "U+0000 and surrogates are no characters of a text");
}

/* Behind the first quote; the bytes, without the second. */
static void read_literal(parser *g, buf *out) {
    while (g->rc == ERR_OK && peek(g) != '"') {
        if (g->i >= g->n || peek(g) == '\n') {
            fail(g, ERR_INVALID, "the text in quotes is not closed");
            return;
        }
        char u[4];
        uint32_t c = read_char(g);
        check_char(g, c);
        buf_append(out, u, (size_t)utf8_encode(u, c));
    }
    g->i++;
    if (g->rc == ERR_OK) g->rc = buf_check(out, "a literal", g->e);
}

static int compare_pairs(const void *pa, const void *pb) {
    const uint32_t *a = pa, *b = pb;
    return a[0] < b[0] ? -1 : a[0] > b[0];
}

/* The complement of n ranges. */
static void write_not(parser *g, uint32_t (*spans)[2], size_t n, uint32_t from, uint32_t to) {
    if (n > 1) qsort(spans, n, sizeof *spans, compare_pairs);
    uint32_t lo = CHAR_FIRST;
    for (size_t k = 0; k < n; k++) {
        if (spans[k][0] > lo) chars_emit(g->b, from, lo, spans[k][0] - 1, to, FORM_PLAIN);
        if (spans[k][1] + 1 > lo) lo = spans[k][1] + 1;
    }
    if (lo <= CHAR_LAST) chars_emit(g->b, from, lo, CHAR_LAST, to, FORM_PLAIN);
}

/* Behind [. */
static void parse_set(parser *g, uint32_t from, uint32_t to) {
    buf list = {.max = 1 << 20};
    bool inverse = peek(g) == '^';
    if (inverse) g->i++;
    while (g->rc == ERR_OK && peek(g) != ']') {
        if (g->i >= g->n) {
            fail(g, ERR_INVALID, "[ is not closed");
            break;
        }
        uint32_t span[2];
        span[0] = span[1] = read_char(g);
        if (peek(g) == '-' && g->i + 1 < g->n && g->s[g->i + 1] != ']') {
            g->i++;
            span[1] = read_char(g);
        }
        if (span[1] < span[0]) fail(g, ERR_INVALID, "a range must go from a lower to a higher character");
        buf_append(&list, span, sizeof span);
        if (!inverse) chars_emit(g->b, from, span[0], span[1], to, FORM_PLAIN);
    }
    g->i++;
    if (g->rc == ERR_OK) g->rc = buf_check(&list, "a set of characters", g->e);
    if (g->rc == ERR_OK && inverse) {
        size_t n = list.len / (2 * sizeof(uint32_t));
        uint32_t(*spans)[2] = mem_array(n + 1, sizeof *spans);
        if (!spans) g->rc = err_nomem(g->e, "a grammar");
        if (spans && n) memcpy(spans, list.ptr, list.len);
        if (spans) write_not(g, spans, n, from, to);
        mem_free(spans);
    }
    buf_free(&list);
}

/* ---- tokens, schemas, expressions
 * ------------------------------------------------------------------------------------ */

static int32_t named_token(parser *g, const char *text, size_t len) {
    int32_t id = token_trie_find(g->trie, text, len);
    if (id < 0 && g->rc == ERR_OK)
        g->rc = err_set(g->e, ERR_INVALID, "grammar: the model's vocabulary has no token \"%.*s\"",
                        len > 80 ? 80 : (int)len, text);
    return id;
}

/* At <: the token's id. */
static int32_t parse_token(parser *g) {
    size_t from = g->i++;
    if (peek(g) != '[') {
        while (g->i < g->n && peek(g) != '>' && peek(g) != '\n') g->i++;
        if (peek(g) != '>') fail(g, ERR_INVALID, "< is not closed by >");
        g->i++;
        return g->rc == ERR_OK ? named_token(g, g->s + from, g->i - from) : -1;
    }
    g->i++;
    int64_t id = 0;
    if (peek(g) == '"') {
        buf text = {.max = 4096};
        g->i++;
        read_literal(g, &text);
        if (g->rc == ERR_OK) id = named_token(g, buf_str(&text), text.len);
        buf_free(&text);
    } else {
        size_t digits = 0;
        for (; peek(g) >= '0' && peek(g) <= '9' && digits < 9; digits++) id = id * 10 + (g->s[g->i++] - '0');
        if (!digits) fail(g, ERR_INVALID, "<[ must be followed by a token's number or text in quotes");
        if (id >= g->trie->n_vocab) fail(g, ERR_INVALID, "the model's vocabulary has no token of this number");
    }
    if (g->rc != ERR_OK) return -1; /* the place may be past the end */
    if (g->i + 2 > g->n || g->s[g->i] != ']' || g->s[g->i + 1] != '>') fail(g, ERR_INVALID, "<[ is not closed by ]>");
    g->i += 2;
    return (int32_t)id;
}

/* Behind !: one token, or (<a> | <b>). */
static void parse_not_token(parser *g, uint32_t from, uint32_t to) {
    int32_t ids[TEXT_IDS_MAX];
    uint32_t n = 0;
    bool many = peek(g) == '(';
    if (many) g->i++;
    do {
        if (many && n) g->i++;
        if (many) skip_space(g, true);
        if (peek(g) != '<' || n == TEXT_IDS_MAX) {
            fail(g, ERR_INVALID, "! must be followed by <token> or (<token> | <token>), at most 64");
            return;
        }
        ids[n++] = parse_token(g);
        if (many) skip_space(g, true);
    } while (many && peek(g) == '|');
    if (many && peek(g) != ')') fail(g, ERR_INVALID, "!( is not closed");
    if (many) g->i++;
    if (g->rc == ERR_OK) builder_not(g->b, from, ids, n, to);
}

/* Where the JSON value at i ends: braces and brackets count outside of strings. */
static size_t json_end(const parser *g, size_t i) {
    int depth = 0;
    bool inside = false;
    for (; i < g->n; i++) {
        char c = g->s[i];
        if (inside) {
            if (c == '\\') i++;
            inside = c != '"';
        } else if (c == '"') {
            inside = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (--depth <= 0) return i + 1;
        }
    }
    return g->n;
}

static void parse_json(parser *g, uint32_t from, uint32_t to) {
    skip_space(g, false);
    if (peek(g) != '{') {
        fail(g, ERR_INVALID, "%json must be followed by a schema in braces");
        return;
    }
    size_t end = json_end(g, g->i);
    cJSON *schema = NULL;
    g->rc = json_parse(&schema, g->s + g->i, end - g->i, "grammar, %json", g->e);
    if (g->rc == ERR_OK) {
        g->rc = schema_build(g->b, from, to, schema, NULL, g->e);
        if (g->rc != ERR_OK) err_prefix(g->e, "grammar, %%json");
    }
    cJSON_Delete(schema);
    g->i = end;
}

static void parse_percent(parser *g, uint32_t from, uint32_t to) {
    const char *s = g->s + g->i;
    size_t left = g->n - g->i;
    if (left > 5 && memcmp(s, "%json", 5) == 0) {
        g->i += 5;
        parse_json(g, from, to);
    } else if (left > 7 && memcmp(s, "%regex\"", 7) == 0) {
        buf pattern = {.max = TEXT_BYTES_MAX};
        g->i += 7;
        /* only \" and \\ are escapes here: the rest is the expression's own */
        while (g->i < g->n && peek(g) != '"') {
            if (peek(g) == '\\' && g->i + 1 < g->n && (g->s[g->i + 1] == '"' || g->s[g->i + 1] == '\\')) g->i++;
            buf_putc(&pattern, g->s[g->i++]);
        }
        if (peek(g) != '"') fail(g, ERR_INVALID, "the text in quotes is not closed");
        g->i++;
        if (g->rc == ERR_OK) g->rc = buf_check(&pattern, "a regular expression", g->e);
        if (g->rc == ERR_OK) g->rc = regex_build(g->b, from, to, buf_str(&pattern), pattern.len, g->e);
        buf_free(&pattern);
    } else {
        fail(g, ERR_INVALID, "only %json{…} and %regex\"…\" begin with %");
    }
}

static void parse_choice(parser *g, uint32_t from, uint32_t to, bool lines);

static void parse_atom(parser *g, uint32_t from, uint32_t to) {
    char c = peek(g);
    g->i++;
    if (c == '"') {
        buf text = {.max = TEXT_BYTES_MAX};
        read_literal(g, &text);
        if (g->rc == ERR_OK) builder_literal(g->b, from, buf_str(&text), text.len, to);
        buf_free(&text);
    } else if (c == '[') {
        parse_set(g, from, to);
    } else if (c == '.') {
        chars_emit(g->b, from, CHAR_FIRST, CHAR_LAST, to, FORM_PLAIN);
    } else if (c == '(') {
        if (++g->depth > TEXT_DEPTH_MAX) fail(g, ERR_TOO_LARGE, "too many groups inside of each other");
        if (g->rc == ERR_OK) parse_choice(g, from, to, true);
        g->depth--;
        if (peek(g) != ')') fail(g, ERR_INVALID, "( is not closed");
        g->i++;
    } else if (c == '<') {
        g->i--;
        int32_t id = parse_token(g);
        if (g->rc == ERR_OK) builder_token(g->b, from, id, to);
    } else if (c == '!') {
        parse_not_token(g, from, to);
    } else if (c == '%') {
        g->i--;
        parse_percent(g, from, to);
    } else {
        size_t at = --g->i;
        while (is_name(peek(g))) g->i++;
        if (g->i == at) {
            fail(g, ERR_INVALID, "a text, set, group, token or the name of a rule is expected");
            return;
        }
        uint32_t k = find_rule(g, g->s + at, g->i - at, at);
        if (g->rc == ERR_OK) builder_call(g->b, from, g->rules[k].id, to);
    }
}

static bool read_count(parser *g, uint32_t *v) {
    size_t from = g->i;
    uint64_t x = 0;
    for (; peek(g) >= '0' && peek(g) <= '9'; g->i++) {
        x = x * 10 + (uint64_t)(peek(g) - '0');
        if (x > TEXT_REPEAT_MAX) {
            fail(g, ERR_TOO_LARGE, "more than 100000 repetitions");
            return false;
        }
    }
    *v = (uint32_t)x;
    return g->i > from;
}

static void parse_braces(parser *g, uint32_t *min, uint32_t *max) {
    g->i++;
    skip_space(g, false);
    bool any = read_count(g, min);
    *max = *min;
    skip_space(g, false);
    if (peek(g) == ',') {
        g->i++;
        skip_space(g, false);
        bool bounded = read_count(g, max);
        if (!bounded) *max = UINT32_MAX;
        any = any || bounded;
        skip_space(g, false);
    }
    if (!any || peek(g) != '}') fail(g, ERR_INVALID, "{ must be {m}, {m,}, {,n} or {m,n}");
    if (*max < *min) fail(g, ERR_INVALID, "{m,n}: n is less than m");
    g->i++;
}

static uint32_t parse_item(parser *g, uint32_t from) {
    builder_part p = builder_begin_part(g->b);
    parse_atom(g, p.from, p.to);
    builder_end_part(g->b, &p);
    for (int k = 0; g->rc == ERR_OK && k < 8; k++) { /* a repetition of a repetition is allowed */
        uint32_t min = 0, max = UINT32_MAX;
        char c = peek(g);
        if (c != '*' && c != '+' && c != '?' && c != '{') break;
        if (c == '{') {
            parse_braces(g, &min, &max);
        } else {
            g->i++;
            min = c == '+';
            max = c == '?' ? 1 : UINT32_MAX;
        }
        if (g->rc == ERR_OK) builder_repeat(g->b, &p, min, max);
    }
    builder_empty(g->b, from, p.from);
    return p.to;
}

static bool sequence_ends(const parser *g) {
    char c = peek(g);
    return g->i >= g->n || c == '|' || c == ')' || c == '\n' || c == '\r';
}

static void parse_choice(parser *g, uint32_t from, uint32_t to, bool lines) {
    for (;;) {
        uint32_t at = from;
        skip_space(g, true);
        while (g->rc == ERR_OK && !sequence_ends(g)) {
            at = parse_item(g, at);
            skip_space(g, lines);
            if (builder_failed(g->b)) g->rc = builder_check(g->b, g->e);
        }
        if (g->rc != ERR_OK) return;
        builder_empty(g->b, at, to);
        size_t here = g->i;
        skip_space(g, true); /* a line may begin with | */
        if (peek(g) != '|') {
            if (!lines) g->i = here;
            return;
        }
        g->i++;
    }
}

static void parse_rule(parser *g) {
    size_t at = g->i;
    while (is_name(peek(g))) g->i++;
    size_t len = g->i - at;
    skip_space(g, false);
    if (!len || g->n - g->i < 3 || memcmp(g->s + g->i, "::=", 3) != 0) {
        fail(g, ERR_INVALID, "a rule is expected: name ::= …");
        return;
    }
    g->i += 3;
    uint32_t k = find_rule(g, g->s + at, len, at);
    if (g->rc != ERR_OK) return;
    if (g->rules[k].defined) {
        g->i = at;
        fail(g, ERR_INVALID, "this rule is defined already");
        return;
    }
    g->rules[k].defined = true;
    rule r = g->b->net.rules[g->rules[k].id];
    /* an end has no edges of its own, and a start none that lead back to it */
    uint32_t to = builder_state(g->b);
    builder_empty(g->b, to, r.end);
    parse_choice(g, r.start, to, false);
    if (g->rc == ERR_OK && peek(g) == ')') fail(g, ERR_INVALID, ") without (");
}

static void parse_all(parser *g) {
    for (skip_space(g, true); g->rc == ERR_OK && g->i < g->n; skip_space(g, true)) parse_rule(g);
    if (g->rc == ERR_OK) {
        g->i = g->n;
        uint32_t root = find_rule(g, "root", 4, g->n);
        if (g->rc == ERR_OK && !g->rules[root].defined) fail(g, ERR_INVALID, "there is no rule named root");
    }
    for (uint32_t k = 0; k < g->n_rules && g->rc == ERR_OK; k++) {
        if (g->rules[k].defined) continue;
        g->i = g->rules[k].at;
        fail(g, ERR_INVALID, "this rule is not defined");
    }
}

err_code grammar_make_text(grammar **out, const token_trie *t, const char *text, size_t len, err *e) {
    *out = NULL;
    if (len > TEXT_BYTES_MAX)
        return err_set(e, ERR_TOO_LARGE, "grammar: %zu bytes, at most %u are read", len, TEXT_BYTES_MAX);
    builder b;
    builder_init(&b);
    parser g = {.s = text, .n = len, .b = &b, .trie = t, .e = e, .rc = builder_check(&b, e)};
    if (g.rc == ERR_OK) parse_all(&g);
    if (g.rc == ERR_OK) {
        g.rc = grammar_from_builder(out, t, &b, e);
        if (g.rc != ERR_OK) err_prefix(e, "grammar");
    }
    builder_free(&b);
    mem_free(g.rules);
    mem_free(g.table);
    return g.rc;
}

err_code grammar_new_text(grammar **out, const model *m, const char *text, size_t len, err *e) {
    const token_trie *t = NULL;
    *out = NULL;
    err_code rc = model_trie(m, &t, e);
    return rc ? rc : grammar_make_text(out, t, text, len, e);
}

/* ---- choices -------------------------------------------------------------------------------------------------------
 */

err_code grammar_make_choices(grammar **out, const token_trie *t, const char *const *choices, size_t n, err *e) {
    *out = NULL;
    if (!n || n > CHOICES_MAX) return err_set(e, ERR_INVALID, "choices: %zu texts, 1 to %u are taken", n, CHOICES_MAX);
    builder b;
    builder_init(&b);
    err_code rc = builder_check(&b, e);
    for (size_t i = 0; i < n && !rc; i++) {
        size_t len = strlen(choices[i]);
        if (!len || !utf8_valid(choices[i], len))
            rc = err_set(e, ERR_INVALID, "choices: text %zu is %s", i, len ? "not valid UTF-8" : "empty");
    }
    if (!rc) {
        builder_strings(&b, b.net.rules[0].start, b.net.rules[0].end, choices, n);
        rc = grammar_from_builder(out, t, &b, e);
    }
    builder_free(&b);
    return rc;
}

err_code grammar_new_choices(grammar **out, const model *m, const char *const *choices, size_t n, err *e) {
    const token_trie *t = NULL;
    *out = NULL;
    err_code rc = model_trie(m, &t, e);
    return rc ? rc : grammar_make_choices(out, t, choices, n, e);
}
