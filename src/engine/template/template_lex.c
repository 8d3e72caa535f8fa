/* template_lex: Jinja source to tokens, white-space control included.
 *
 * The rules are those of Jinja 2 with trim_blocks and lstrip_blocks:
 * - \r\n and \r count as \n, and one newline at the very end of the source is dropped;
 * - a newline right after a block or comment tag is dropped, unless the tag ends with +%};
 * - white space between the start of a line and a block or comment tag is dropped, unless it begins with {%+;
 * - {%-, {{-, {#- drop all white space before the tag, -%}, -}}, -#} all after it.
 */
#include "engine/template/template.h"

typedef struct lexer {
    const char *s;
    size_t n, pos;
    size_t counted; /* line and col are those of this offset */
    uint32_t line, col;
    token *tok;
    size_t n_tok, cap;
    arena *mem;
    err *e;
    err_code code;
    bool line_starting; /* the last match ended with a newline, or nothing came before */
    char open[TPL_NEST_MAX];
    int n_open;
} lexer;

err_code tpl_error_at(err *e, err_code code, uint32_t line, uint32_t col, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    err_setv(e, code, fmt, ap);
    va_end(ap);
    err_prefix(e, "chat template, line %u, column %u", line, col);
    return code;
}

/* Line and column of an offset. Offsets only grow from call to call, so counting is linear over the source. */
static void lex_position(lexer *x, size_t at, uint32_t *line, uint32_t *col) {
    for (; x->counted < at; x->counted++) {
        char c = x->s[x->counted];
        if (c == '\n') {
            x->line++;
            x->col = 1;
        } else if ((c & 0xC0) != 0x80) {
            x->col++;
        }
    }
    *line = x->line;
    *col = x->col;
}

static bool lex_fail(lexer *x, size_t at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool lex_fail(lexer *x, size_t at, const char *fmt, ...) {
    char msg[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    uint32_t line, col;
    x->counted = 0;
    x->line = x->col = 1;
    lex_position(x, at, &line, &col);
    x->code = tpl_error_at(x->e, ERR_INVALID, line, col, "%s", msg);
    return false;
}

static token *lex_push(lexer *x, tok_type type, size_t at) {
    if (x->n_tok == x->cap) {
        size_t cap = x->cap ? x->cap * 2 : 256;
        token *t = mem_realloc(x->tok, cap * sizeof *t);
        if (!t) {
            x->code = err_nomem(x->e, "the tokens of a chat template");
            return NULL;
        }
        x->tok = t;
        x->cap = cap;
    }
    token *t = &x->tok[x->n_tok++];
    *t = (token){.type = (uint8_t)type};
    lex_position(x, at, &t->line, &t->col);
    return t;
}

static bool lex_push_text(lexer *x, tok_type type, size_t at, const char *s, size_t n) {
    token *t = lex_push(x, type, at);
    if (!t) return false;
    t->u.s = s;
    t->len = (uint32_t)n;
    return true;
}

/* ---- source text ----------------------------------------------------------------------------------------- */

static size_t skip_space(const lexer *x, size_t p) {
    while (p < x->n) {
        size_t len;
        if (!tpl_is_space(tpl_char_at(x->s + p, x->n - p, &len))) break;
        p += len;
    }
    return p;
}

static bool at_str(const lexer *x, size_t p, const char *z) {
    size_t n = strlen(z);
    return p <= x->n && n <= x->n - p && memcmp(x->s + p, z, n) == 0;
}

/* The end of text[from, to) after what the tag that begins at `to` strips. */
static size_t text_end(const lexer *x, size_t from, size_t to, char sign, bool is_variable) {
    tstr all = {x->s + from, (uint32_t)(to - from)};
    if (sign == '-') return from + tpl_strip(all, NULL, false, true).n;
    if (sign == '+' || is_variable) return to;
    size_t line = to;
    while (line > from && x->s[line - 1] != '\n') line--;
    if (line == from && !x->line_starting) return to;
    tstr last = {x->s + line, (uint32_t)(to - line)};
    return tpl_strip(last, NULL, true, false).n == 0 ? line : to;
}

/* If an end tag (closer "%}", "#}" or "}}", perhaps after - or +) stands at p: where text goes on; 0 otherwise. */
static size_t match_end(const lexer *x, size_t p, const char *closer, bool trims) {
    if (at_str(x, p, closer)) {
        p += 2;
        return trims && p < x->n && x->s[p] == '\n' ? p + 1 : p;
    }
    if (p >= x->n || !at_str(x, p + 1, closer)) return 0;
    if (x->s[p] == '-') return skip_space(x, p + 3);
    return x->s[p] == '+' && trims ? p + 3 : 0;
}

static void ended(lexer *x, size_t p) {
    x->pos = p;
    x->line_starting = p > 0 && x->s[p - 1] == '\n';
}

/* {% raw %} at p (after its sign)? Where its text begins, 0 otherwise. */
static size_t match_raw_begin(const lexer *x, size_t p) {
    p = skip_space(x, p);
    if (!at_str(x, p, "raw")) return 0;
    p = skip_space(x, p + 3);
    if (at_str(x, p, "-%}")) return skip_space(x, p + 3);
    return at_str(x, p, "%}") ? p + 2 : 0;
}

static bool lex_raw(lexer *x, size_t tag, size_t from) {
    x->line_starting = from > 0 && x->s[from - 1] == '\n';
    for (size_t p = from; p < x->n; p++) {
        if (!at_str(x, p, "{%")) continue;
        size_t q = p + 2;
        char sign = q < x->n && (x->s[q] == '-' || x->s[q] == '+') ? x->s[q++] : 0;
        q = skip_space(x, q);
        if (!at_str(x, q, "endraw")) continue;
        size_t next = match_end(x, skip_space(x, q + 6), "%}", true);
        if (!next) continue;
        size_t end = text_end(x, from, p, sign, false);
        if (end > from && !lex_push_text(x, TK_DATA, from, x->s + from, end - from)) return false;
        ended(x, next);
        return true;
    }
    return lex_fail(x, tag, "{%% raw %%} has no {%% endraw %%}");
}

static bool lex_comment(lexer *x, size_t tag, size_t from) {
    for (size_t p = from; p < x->n; p++) {
        size_t next = match_end(x, p, "#}", true);
        if (!next) continue;
        ended(x, next);
        return true;
    }
    return lex_fail(x, tag, "the comment that begins here has no #}");
}

/* ---- inside tags ----------------------------------------------------------------------------------------- */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
static bool is_name_start(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Digits with single underscores between them. */
static size_t skip_digits(const lexer *x, size_t p) {
    while (p < x->n && (is_digit(x->s[p]) || (x->s[p] == '_' && p + 1 < x->n && is_digit(x->s[p + 1])))) p++;
    return p;
}

static bool lex_int(lexer *x, size_t from, size_t p, unsigned base) {
    uint64_t v = 0;
    size_t start = p;
    for (; p < x->n; p++) {
        char c = x->s[p];
        if (c == '_' && p + 1 < x->n && hex_value(x->s[p + 1]) >= 0) continue;
        int d = hex_value(c);
        if (d < 0 || (unsigned)d >= base) break;
        if (v > ((uint64_t)INT64_MAX - (unsigned)d) / base) return lex_fail(x, from, "the number is past 64 bits");
        v = v * base + (unsigned)d;
    }
    if (p == start) return lex_fail(x, from, "a number has no digits after its prefix");
    token *t = lex_push(x, TK_INT, from);
    if (!t) return false;
    t->u.i = (int64_t)v;
    x->pos = p;
    return true;
}

static bool lex_number(lexer *x) {
    size_t from = x->pos;
    if (x->s[from] == '0' && from + 1 < x->n) {
        char c = x->s[from + 1];
        unsigned base = c == 'x' || c == 'X' ? 16 : c == 'o' || c == 'O' ? 8 : c == 'b' || c == 'B' ? 2 : 0;
        if (base) return lex_int(x, from, from + 2, base);
    }
    size_t p = skip_digits(x, from), whole = p;
    bool after_dot = from > 0 && x->s[from - 1] == '.'; /* x.0.1 is two subscripts */
    if (!after_dot && p + 1 < x->n && x->s[p] == '.' && is_digit(x->s[p + 1])) p = skip_digits(x, p + 1);
    if (!after_dot && p < x->n && (x->s[p] == 'e' || x->s[p] == 'E')) {
        size_t q = p + 1;
        if (q < x->n && (x->s[q] == '+' || x->s[q] == '-')) q++;
        if (q < x->n && is_digit(x->s[q])) p = skip_digits(x, q);
    }
    if (p == whole) {
        if (x->s[from] == '0' && strspn(x->s + from, "0_") < whole - from)
            return lex_fail(x, from, "a whole number cannot begin with 0");
        return lex_int(x, from, from, 10);
    }
    char digits[128];
    size_t n = 0;
    for (size_t i = from; i < p; i++) {
        if (x->s[i] == '_') continue;
        if (n + 1 == sizeof digits) return lex_fail(x, from, "the number has more than %zu digits", sizeof digits - 1);
        digits[n++] = x->s[i];
    }
    digits[n] = 0;
    token *t = lex_push(x, TK_FLOAT, from);
    if (!t) return false;
    t->u.f = strtod(digits, NULL);
    x->pos = p;
    return true;
}

/* Reads up to max digits of `base` at *p. Returns how many there were. */
static int read_digits(const lexer *x, size_t *p, int max, int base, uint32_t *v) {
    int n = 0;
    *v = 0;
    for (; n < max && *p < x->n; n++, (*p)++) {
        int d = hex_value(x->s[*p]);
        if (d < 0 || d >= base) break;
        *v = *v * (uint32_t)base + (uint32_t)d;
    }
    return n;
}

/* \xHH, \uHHHH, \UHHHHHHHH: *p after the letter. A pair of \u surrogates is one character. */
static bool lex_hex_escape(lexer *x, size_t *p, int digits, uint32_t *cp) {
    size_t at = *p - 2;
    if (read_digits(x, p, digits, 16, cp) != digits) return lex_fail(x, at, "the escape needs %d hex digits", digits);
    if (*cp >= 0xD800 && *cp < 0xDC00 && at_str(x, *p, "\\u")) {
        size_t q = *p + 2;
        uint32_t low;
        if (read_digits(x, &q, 4, 16, &low) == 4 && low >= 0xDC00 && low < 0xE000) {
            *cp = 0x10000 + ((*cp - 0xD800) << 10) + (low - 0xDC00);
            *p = q;
        }
    }
    if (*cp > 0x10FFFF || (*cp >= 0xD800 && *cp < 0xE000)) return lex_fail(x, at, "the escape is no Unicode character");
    return true;
}

/* One escape at *p (after the backslash). Writes at most 4 bytes and says how many; -1 after an error. */
static int lex_escape(lexer *x, size_t *p, char out[4]) {
    static const char simple[] = "nrtabfv\\'\"", means[] = "\n\r\t\a\b\f\v\\'\"";
    char c = x->s[*p];
    const char *hit = strchr(simple, c);
    uint32_t cp;
    if (c && hit) {
        ++*p;
        out[0] = means[hit - simple];
        return 1;
    }
    if (c == '\n') {
        ++*p;
        return 0;
    }
    if (c >= '0' && c <= '7') {
        read_digits(x, p, 3, 8, &cp);
        return utf8_encode(out, cp);
    }
    if (c == 'x' || c == 'u' || c == 'U') {
        ++*p;
        return lex_hex_escape(x, p, c == 'x' ? 2 : c == 'u' ? 4 : 8, &cp) ? utf8_encode(out, cp) : -1;
    }
    if (c == 'N') return lex_fail(x, *p - 1, "the escape \\N{...} is not supported"), -1;
    out[0] = '\\'; /* unknown: the backslash stays, and so does what follows */
    return 1;
}

static bool lex_string(lexer *x) {
    size_t from = x->pos, end = from + 1;
    char quote = x->s[from];
    while (end < x->n && x->s[end] != quote) end += x->s[end] == '\\' ? 2 : 1;
    if (end >= x->n) return lex_fail(x, from, "the string that begins here has no closing %c", quote);
    const char *raw = x->s + from + 1;
    if (!memchr(raw, '\\', end - from - 1)) {
        x->pos = end + 1;
        return lex_push_text(x, TK_STRING, from, raw, end - from - 1);
    }
    char *text = arena_alloc(x->mem, end - from); /* no escape gives more bytes than it is written with */
    if (!text) {
        x->code = err_nomem(x->e, "a string of a chat template");
        return false;
    }
    size_t n = 0;
    for (size_t p = from + 1; p < end;) {
        if (x->s[p] != '\\') {
            text[n++] = x->s[p++];
            continue;
        }
        p++;
        char c[4];
        int k = lex_escape(x, &p, c);
        if (k < 0) return false;
        memcpy(text + n, c, (size_t)k);
        n += (size_t)k;
    }
    x->pos = end + 1;
    return lex_push_text(x, TK_STRING, from, text, n);
}

static bool lex_operator(lexer *x) {
    static const struct {
        char text[3];
        uint8_t op;
    } two[] = {{"==", OPC_EQ}, {"!=", OPC_NE}, {"<=", OPC_LE}, {">=", OPC_GE}, {"//", OPC_FLOORDIV}, {"**", OPC_POW}};
    size_t from = x->pos;
    char c = x->s[from];
    token *t = NULL;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++) {
        if (!at_str(x, from, two[i].text)) continue;
        if (!(t = lex_push(x, TK_OP, from))) return false;
        t->op = two[i].op;
        x->pos += 2;
        return true;
    }
    if (!c || !strchr("+-/*%~[](){}<>=.:|,;", c)) {
        if ((unsigned char)c < 0x80 && c > ' ') return lex_fail(x, from, "the character %c has no meaning here", c);
        return lex_fail(x, from, "a byte 0x%02x has no meaning outside strings", (unsigned char)c);
    }
    if (strchr("([{", c)) {
        if (x->n_open == TPL_NEST_MAX)
            return lex_fail(x, from, "more than %d brackets inside each other", TPL_NEST_MAX);
        x->open[x->n_open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr(")]}", c)) {
        if (!x->n_open) return lex_fail(x, from, "%c closes nothing", c);
        char wanted = x->open[--x->n_open];
        if (wanted != c) return lex_fail(x, from, "%c stands where %c is needed", c, wanted);
    }
    if (!(t = lex_push(x, TK_OP, from))) return false;
    t->op = (uint8_t)c;
    x->pos++;
    return true;
}

static bool lex_tag(lexer *x, size_t tag, size_t from, bool is_variable) {
    if (!lex_push(x, is_variable ? TK_VAR_BEGIN : TK_BLOCK_BEGIN, tag)) return false;
    const char *closer = is_variable ? "}}" : "%}";
    x->pos = from;
    x->n_open = 0;
    for (;;) {
        size_t end = x->n_open ? 0 : match_end(x, x->pos, closer, !is_variable);
        if (end) {
            if (!lex_push(x, is_variable ? TK_VAR_END : TK_BLOCK_END, x->pos)) return false;
            ended(x, end);
            return true;
        }
        size_t p = skip_space(x, x->pos);
        if (p > x->pos) {
            x->pos = p;
            continue;
        }
        if (p >= x->n) return lex_fail(x, tag, "the tag that begins here has no %s", closer);
        char c = x->s[p];
        bool ok;
        if (is_digit(c)) {
            ok = lex_number(x);
        } else if (is_name_start(c)) {
            while (p < x->n && (is_name_start(x->s[p]) || is_digit(x->s[p]))) p++;
            ok = lex_push_text(x, TK_NAME, x->pos, x->s + x->pos, p - x->pos);
            x->pos = p;
        } else if (c == '"' || c == '\'') {
            ok = lex_string(x);
        } else {
            ok = lex_operator(x);
        }
        if (!ok) return false;
    }
}

/* Text up to the next tag, and the tag. */
static bool lex_next(lexer *x) {
    size_t from = x->pos, p = from;
    for (; p < x->n; p++) {
        const char *brace = memchr(x->s + p, '{', x->n - p);
        if (!brace) {
            p = x->n;
            break;
        }
        p = (size_t)(brace - x->s);
        if (p + 1 < x->n && (x->s[p + 1] == '%' || x->s[p + 1] == '{' || x->s[p + 1] == '#')) break;
    }
    if (p >= x->n) {
        x->pos = x->n;
        return from == x->n || lex_push_text(x, TK_DATA, from, x->s + from, x->n - from);
    }
    char kind = x->s[p + 1];
    size_t in = p + 2;
    char sign = in < x->n && (x->s[in] == '-' || x->s[in] == '+') ? x->s[in++] : 0;
    size_t end = text_end(x, from, p, sign, kind == '{');
    if (end > from && !lex_push_text(x, TK_DATA, from, x->s + from, end - from)) return false;
    if (kind == '#') return lex_comment(x, p, in);
    size_t raw = kind == '%' ? match_raw_begin(x, in) : 0;
    return raw ? lex_raw(x, p, raw) : lex_tag(x, p, in, kind == '{');
}

err_code tpl_lex(token **out, size_t *n, arena *mem, const char *src, size_t len, err *e) {
    *out = NULL;
    *n = 0;
    char *s = arena_alloc(mem, len + 1);
    if (!s) return err_nomem(e, "the source of a chat template");
    size_t k = 0;
    for (size_t i = 0; i < len; i++) {
        if (src[i] == '\r') {
            s[k++] = '\n';
            if (i + 1 < len && src[i + 1] == '\n') i++;
        } else {
            s[k++] = src[i];
        }
    }
    if (k && s[k - 1] == '\n') k--;
    s[k] = 0;
    lexer x = {.s = s, .n = k, .line = 1, .col = 1, .mem = mem, .e = e, .line_starting = true};
    bool ok = true;
    while (ok && x.pos < x.n) ok = lex_next(&x);
    if (ok) ok = lex_push(&x, TK_EOF, x.n) != NULL;
    if (!ok) {
        mem_free(x.tok);
        return x.code;
    }
    *out = x.tok;
    *n = x.n_tok;
    return ERR_OK;
}
