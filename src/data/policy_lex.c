/* Words of a policy's text.
 *
 * The text is what a person signs, so nothing may look different from what it means: characters that are invisible,
 * turn the direction of the text or break the line only on some screens are refused wherever they stand, comments
 * included.
 */
#include "data/policy_internal.h"

#include <string.h>

void lexer_init(lexer *x, const char *name, const char *s, size_t n) {
    *x = (lexer){.name = name, .at = s, .end = s + n, .line = 1, .column = 1};
    if (n >= 3 && memcmp(s, "\xEF\xBB\xBF", 3) == 0) x->at += 3; /* some editors begin a file so */
}

static bool is_blank(uint32_t c) {
    return c == ' ' || c == '\t' || c == 0xA0 || c == 0x2007 || c == 0x202F || (c >= 0x2002 && c <= 0x200A) ||
           c == 0x3000;
}

/* Not to be seen, or not where it stands. */
static bool is_hidden(uint32_t c) {
    return (c < 0x20 && c != '\t' && c != '\n') || (c >= 0x7F && c < 0xA0) || c == 0xAD || c == 0x61C || c == 0x180E ||
           (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) ||
           c == 0xFEFF || (c >= 0xFE00 && c <= 0xFE0F) || (c >= 0xE0000 && c <= 0xE0FFF) || c == 0x115F ||
           c == 0x1160 || c == 0x3164 || c == 0xFFA0;
}

static bool is_word(uint32_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c > 0xA0 ||
           (c && c < 0x80 && strchr("._-/:+@&*", (int)c));
}

/* The character at x->at, in *c with its length; what may not stand in a policy is an error. */
static err_code peek(const lexer *x, uint32_t *c, size_t *len, err *e) {
    unsigned char b = (unsigned char)*x->at;
    if (b == '\r' && x->at + 1 < x->end && x->at[1] == '\n') {
        *c = ' ';
        *len = 1;
        return ERR_OK;
    }
    int k = utf8_decode(c, x->at, (size_t)(x->end - x->at));
    if (k <= 0)
        return err_set(e, ERR_USAGE, "%s:%u:%u: the byte 0x%02X is not UTF-8; save the file as UTF-8", x->name, x->line,
                       x->column, b);
    if (is_hidden(*c))
        return err_set(e, ERR_USAGE,
                       "%s:%u:%u: an invisible character (U+%04X) stands here; what is signed must be what is seen, "
                       "remove it",
                       x->name, x->line, x->column, (unsigned)*c);
    *len = (size_t)k;
    return ERR_OK;
}

static void step(lexer *x, size_t len) {
    if (*x->at == '\n') {
        x->line++;
        x->column = 1;
    } else {
        x->column++;
    }
    x->at += len;
}

/* To the first character of a token: over blanks, and a comment up to the end of its line. */
static err_code skip(lexer *x, uint32_t *c, size_t *len, err *e) {
    bool comment = false;
    while (x->at < x->end) {
        err_code rc = peek(x, c, len, e);
        if (rc) return rc;
        if (*c == '#') comment = true;
        if (*c == '\n' || (!comment && !is_blank(*c))) return ERR_OK;
        step(x, *len);
    }
    return ERR_OK;
}

static err_code read_string(lexer *x, token *t, err *e) {
    uint32_t c;
    size_t len;
    step(x, 1);
    t->kind = TOKEN_STRING;
    t->s = x->at;
    while (x->at < x->end) {
        err_code rc = peek(x, &c, &len, e);
        if (rc) return rc;
        if (c == '\n') break;
        if (c == '"') {
            t->n = (size_t)(x->at - t->s);
            step(x, 1);
            if (!t->n)
                return err_set(e, ERR_USAGE, "%s:%u:%u: nothing stands between the quotes; a value is needed", x->name,
                               t->line, t->column);
            return ERR_OK;
        }
        step(x, len);
    }
    return err_set(e, ERR_USAGE, "%s:%u:%u: this quote has no end on its line", x->name, t->line, t->column);
}

static err_code read_word(lexer *x, token *t, err *e) {
    uint32_t c;
    size_t len;
    t->kind = TOKEN_WORD;
    t->s = x->at;
    while (x->at < x->end) {
        err_code rc = peek(x, &c, &len, e);
        if (rc) return rc;
        if (!is_word(c) || is_blank(c)) break;
        step(x, len);
    }
    t->n = (size_t)(x->at - t->s);
    return ERR_OK;
}

static bool read_arrow(lexer *x, token *t) {
    size_t left = (size_t)(x->end - x->at), n = 0;
    if (left >= 2 && memcmp(x->at, "->", 2) == 0) n = 2;
    if (left >= 4 && memcmp(x->at, "-x->", 4) == 0) n = 4;
    if (!n) return false;
    t->kind = n == 2 ? TOKEN_ARROW : TOKEN_NO_ARROW;
    t->n = n;
    for (size_t i = 0; i < n; i++) step(x, 1);
    return true;
}

err_code lexer_next(lexer *x, token *t, err *e) {
    uint32_t c = 0;
    size_t len = 0;
    err_code rc = skip(x, &c, &len, e);
    if (rc) return rc;
    *t = (token){.kind = TOKEN_EOF, .s = x->at, .line = x->line, .column = x->column, .from = x->at, .past = x->at};
    if (x->at == x->end) return ERR_OK;
    bool at_most = c == '<' && x->at + 1 < x->end && x->at[1] == '=';
    if (c == 0x201C || c == 0x201D || c == 0x201E || c == 0xAB || c == 0x2018 || c == 0x2019 || c == '\'')
        return err_set(e, ERR_USAGE, "%s:%u:%u: quotes are written \"…\" here", x->name, x->line, x->column);
    if (c == '"') {
        rc = read_string(x, t, e);
    } else if (x->arrows && read_arrow(x, t)) {
        rc = ERR_OK;
    } else if (is_word(c)) {
        rc = read_word(x, t, e);
    } else if (c == '\n' || c == ';' || c == ',' || c == '=' || at_most) {
        t->kind = c == ',' ? TOKEN_COMMA : c == '=' ? TOKEN_EQUAL : at_most ? TOKEN_AT_MOST : TOKEN_END;
        t->n = at_most ? 2 : 1;
        step(x, 1);
        if (at_most) step(x, 1);
    } else {
        return err_set(e, ERR_USAGE,
                       "%s:%u:%u: the character \"%.*s\" means nothing here; possible: words, \"…\", ',', '=', '<=', "
                       "';' between sentences, '#' before a comment",
                       x->name, x->line, x->column, (int)len, x->at);
    }
    t->past = x->at;
    return rc;
}

/* ---- the nearest word -------------------------------------------------------------------------------------- */

enum { NEAR_MAX = 40 };

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* Insertions, deletions, changes and swaps of neighbours between a and b; both at most NEAR_MAX long. */
static size_t word_distance(const char *a, size_t n, const char *b, size_t m) {
    size_t row[3][NEAR_MAX + 1];
    for (size_t j = 0; j <= m; j++) row[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *now = row[i % 3], *one = row[(i + 2) % 3], *two = row[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            char x = lower(a[i - 1]), y = lower(b[j - 1]);
            size_t best = one[j - 1] + (x != y);
            if (one[j] + 1 < best) best = one[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && x == lower(b[j - 2]) && lower(a[i - 2]) == y && two[j - 2] + 1 < best)
                best = two[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

const char *word_nearest(const char *s, size_t n, const char *const *list, size_t n_list) {
    const char *found = NULL;
    if (!n || n > NEAR_MAX) return NULL;
    size_t limit = n <= 3 ? 1 : n <= 6 ? 2 : n / 3;
    for (size_t i = 0; i < n_list; i++) {
        size_t m = strlen(list[i]);
        if (m > NEAR_MAX || m > n + limit || n > m + limit) continue;
        size_t d = word_distance(s, n, list[i], m);
        if (d > limit || d >= m) continue;
        if (found && d == limit) continue;
        found = list[i];
        limit = d;
        if (!d) break;
    }
    return found;
}
