/* Placeholders → values, in a stream that is cut anywhere.
 *
 *            '['                      letters, digits, '_' of a word that exists
 *   IDLE ──────────────────▶ INSIDE ◀──┐
 *    │ '\'           '[' ▲    │  └─────┘    ']' after WORD_N: the value (or, unknown, what stood there) ──▶ IDLE
 *    └──────▶ ESCAPED ───┘    │ '\'
 *                             ▼
 *                       INSIDE_ESCAPED      then '_' or ']' only
 *
 * Anything else gives the bytes up as they came, all but the last unit, which begins anew: an opening bracket (and a
 * backslash before it) can only be a placeholder's first character, so nothing before it is ever needed again. A unit
 * is a character, or in JSON an escape. Each byte is held once and given up once: time is linear.
 *
 * redaction_see is the same automaton with nothing to put in: what it would restore is what may not be given out.
 */
#include "data/redact_internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <string.h>

enum { UNIT_MAX = 6, HELD_MAX = PLACEHOLDER_MAX * UNIT_MAX, DIGITS_MAX = 5 };

typedef enum phase { IDLE, ESCAPED, INSIDE, INSIDE_ESCAPED } phase;

struct restorer {
    const redaction *r;
    redaction *seen_by; /* redaction_see: where placeholders are noted; nothing is restored */
    restore_form form;
    phase phase;
    bool in_string;           /* JSON: between quotes */
    bool open_esc, inner_esc; /* a backslash before the opening bracket; before another character */
    uint8_t open_len;         /* bytes of that first backslash */
    uint8_t pos;              /* characters since the bracket */
    unsigned lo, hi;          /* classes whose word begins with them */
    int tail;                 /* the class whose word and '_' they were, digits following; -1 */
    uint8_t digits;
    uint32_t number;
    size_t n_held, unit, esc_at; /* held[unit…] is the last unit; esc_at: that of a backslash inside */
    char held[HELD_MAX + 2 * UNIT_MAX];
    uint64_t count;
    err_code rc; /* redaction_see: what noting said */
};

/* A unit as the automaton sees it: '[' ']' '\\' '_' '"', a capital letter, a digit, or 0 for anything else. */
typedef struct symbol {
    char c;
    bool escaped; /* "\[" where JSON has no such escape: a backslash and the character in one */
} symbol;

/* ---- units ---- */

static char fold(unsigned cp) {
    if (cp >= 'a' && cp <= 'z') return (char)(cp - 'a' + 'A');
    if ((cp >= 'A' && cp <= 'Z') || (cp >= '0' && cp <= '9')) return (char)cp;
    switch (cp) {
    case '[':
    case 0xff3b:
    case 0x3010: return '[';
    case ']':
    case 0xff3d:
    case 0x3011: return ']';
    case '_':
    case 0xff3f: return '_';
    case '\\': return '\\';
    default: return 0;
    }
}

/* Characters of three bytes that mean something: full-width brackets and low line, lenticular brackets. */
static const char wide[][4] = {"\xef\xbc\xbb", "\xef\xbc\xbd", "\xef\xbc\xbf", "\xe3\x80\x90", "\xe3\x80\x91"};

typedef enum unit_state { UNIT_MORE, UNIT_DONE, UNIT_OVER } unit_state; /* OVER: the last byte begins another unit */

static unit_state wide_state(const char *p, size_t n, symbol *s) {
    static const char meaning[] = "[]_[]";
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        if (memcmp(p, wide[i], n) != 0) continue;
        if (n < 3) return UNIT_MORE;
        s->c = meaning[i];
        return UNIT_DONE;
    }
    return n > 1 ? UNIT_OVER : UNIT_DONE;
}

static unit_state escape_state(const char *p, size_t n, symbol *s) {
    if (n == 1) return UNIT_MORE;
    if (p[1] == 'u') {
        if (n > 2 && hex_value(p[n - 1]) < 0) return UNIT_OVER;
        if (n < 6) return UNIT_MORE;
        unsigned cp = 0;
        for (int i = 2; i < 6; i++) cp = cp << 4 | (unsigned)hex_value(p[i]);
        s->c = fold(cp);
        return UNIT_DONE;
    }
    if (p[1] == '\\') {
        s->c = '\\';
    } else if (p[1] == '[' || p[1] == ']' || p[1] == '_') {
        s->c = p[1];
        s->escaped = true;
    } else if ((unsigned char)p[1] >= 0x80) {
        return UNIT_OVER;
    }
    return UNIT_DONE;
}

/* What the bytes since x->unit are. */
static unit_state unit_read(const restorer *x, symbol *s) {
    const char *p = x->held + x->unit;
    size_t n = x->n_held - x->unit;
    *s = (symbol){0};
    if (p[0] == '\\' && x->form == RESTORE_JSON) return escape_state(p, n, s);
    if (p[0] == '\xef' || p[0] == '\xe3') return wide_state(p, n, s);
    s->c = p[0] == '"' ? '"' : fold((unsigned char)p[0]);
    return UNIT_DONE;
}

/* ---- the automaton ---- */

/* The first n bytes held are certain. */
static void give_up(restorer *x, size_t n, buf *out) {
    if (out) buf_append(out, x->held, n);
    memmove(x->held, x->held + n, x->n_held - n);
    x->n_held -= n;
    x->unit -= n;
}

static bool is_number(const char *p, size_t n) {
    size_t i = n && p[0] == '-';
    if (i == n || (p[i] == '0' && n > i + 1)) return false;
    for (; i < n; i++)
        if (p[i] < '0' || p[i] > '9') return false;
    return true;
}

static void put_value(const restorer *x, const redact_entry *v, buf *out) {
    if (x->form == RESTORE_TEXT || (!x->in_string && is_number(v->value, v->len))) {
        buf_append(out, v->value, v->len);
        return;
    }
    size_t at = out->len;
    json_string(out, v->value, v->len);
    if (!x->in_string || out->failed) return;
    out->len -= 2; /* the quotes are there already */
    memmove(out->ptr + at, out->ptr + at + 1, out->len - at);
    out->ptr[out->len] = 0;
}

/* A whole placeholder is held. */
static void complete(restorer *x, buf *out) {
    if (x->seen_by) {
        err_code rc = redaction_take(x->seen_by, (unsigned)x->tail, x->number, NULL);
        if (rc != ERR_OK) x->rc = rc;
    }
    const redact_entry *v = x->seen_by ? NULL : redaction_find(x->r, (unsigned)x->tail, x->number);
    if (v) {
        if (x->open_esc && !x->inner_esc) buf_append(out, x->held, x->open_len);
        put_value(x, v, out);
        x->count++;
        x->n_held = x->unit = 0;
    }
    x->unit = x->n_held;
    give_up(x, x->n_held, out);
    x->phase = IDLE;
}

/* One more character of a word or a number. */
static bool accept(restorer *x, char c) {
    const redact_class *classes = x->r->classes;
    bool whole = x->lo < x->hi && classes[x->lo].len == x->pos; /* the shortest word sorts first */
    bool first = x->digits == 0;
    if (c == '_' && whole) {
        x->tail = (int)x->lo;
        x->digits = 0;
        x->number = 0;
    } else if (x->tail >= 0 && c >= (first ? '1' : '0') && c <= '9' && x->digits < DIGITS_MAX) {
        x->digits++;
        x->number = x->number * 10 + (uint32_t)(c - '0');
    } else {
        x->tail = -1;
    }
    while (x->lo < x->hi && (classes[x->lo].len <= x->pos || classes[x->lo].word[x->pos] < c)) x->lo++;
    unsigned end = x->lo;
    while (end < x->hi && classes[end].word[x->pos] == c) end++;
    x->hi = end;
    x->pos++;
    return x->tail >= 0 || x->lo < x->hi;
}

static void open_bracket(restorer *x, bool escaped, size_t esc_len) {
    x->phase = INSIDE;
    x->open_esc = escaped;
    x->open_len = (uint8_t)esc_len;
    x->inner_esc = false;
    x->pos = x->digits = 0;
    x->lo = 0;
    x->hi = x->r->n_classes;
    x->tail = -1;
}

/* Whether the symbol goes on with what is held; false: it does not, and stands alone now. */
static bool go_on(restorer *x, symbol s, buf *out) {
    if (x->phase == INSIDE && s.c == '\\') {
        x->esc_at = x->unit;
        x->phase = INSIDE_ESCAPED;
        return true;
    }
    bool escaped = s.escaped || x->phase == INSIDE_ESCAPED;
    bool fits = !(x->phase == INSIDE_ESCAPED && s.escaped) && (!escaped || s.c == '_' || s.c == ']');
    if (fits && s.c == ']' && x->tail >= 0 && x->digits) {
        x->inner_esc |= escaped;
        complete(x, out);
        return true;
    }
    size_t most = x->form == RESTORE_JSON ? HELD_MAX : PLACEHOLDER_MAX; /* with the closing bracket, "\\]" */
    if (fits && s.c && !strchr("[]\\\"", s.c) && x->n_held + 4 <= most && accept(x, s.c)) {
        x->inner_esc |= escaped;
        x->phase = INSIDE;
        return true;
    }
    if (x->phase == INSIDE_ESCAPED && s.c == '[' && !s.escaped) { /* that backslash was an opening bracket's */
        give_up(x, x->esc_at, out);
        x->phase = ESCAPED;
        return false;
    }
    give_up(x, x->unit, out);
    x->phase = IDLE;
    return false;
}

/* The last unit is whole: a step. */
static void step(restorer *x, symbol s, buf *out) {
    if (x->phase >= INSIDE && go_on(x, s, out)) return;
    if (x->phase == ESCAPED) {
        if (s.c == '[' && !s.escaped) {
            open_bracket(x, true, x->unit);
            return;
        }
        give_up(x, x->unit, out);
        x->phase = IDLE;
    }
    if (s.c == '[') {
        open_bracket(x, s.escaped, 1);
    } else if (s.c == '\\') {
        x->phase = ESCAPED;
    } else {
        if (s.c == '"') x->in_string = !x->in_string;
        x->unit = x->n_held;
        give_up(x, x->n_held, out);
    }
}

/* Bytes that a placeholder can begin with, or that end a string. */
static bool is_special(unsigned char c) {
    return c == '[' || c == '\\' || c == '"' || c == 0xef || c == 0xe3;
}

static void feed(restorer *x, const char *p, size_t n, buf *out) {
    for (size_t i = 0; i < n;) {
        if (x->n_held == 0) {
            size_t from = i;
            while (i < n && !is_special((unsigned char)p[i])) i++;
            if (out && i > from) buf_append(out, p + from, i - from);
            if (i == n) return;
        }
        symbol s;
        x->held[x->n_held++] = p[i++];
        unit_state u = unit_read(x, &s);
        if (u == UNIT_MORE) continue;
        if (u == UNIT_OVER) { /* what was there is a unit of its own, of no meaning; the byte is read again */
            i--;
            x->n_held--;
            s = (symbol){0};
        }
        step(x, s, out);
        x->unit = x->n_held;
    }
}

static void finish(restorer *x, buf *out) {
    x->unit = x->n_held;
    give_up(x, x->n_held, out);
    x->phase = IDLE;
    x->in_string = false;
}

/* ---- the public side ---- */

err_code redaction_see(redaction *r, const char *text, size_t n, err *e) {
    if (r->begun) return err_set(e, ERR_INTERNAL, "redaction: a text was shown after placeholders were given out");
    restorer x = {.r = r, .seen_by = r, .form = RESTORE_JSON}; /* it takes all that RESTORE_TEXT takes, and escapes */
    feed(&x, text, n, NULL);
    if (x.rc != ERR_OK) return err_nomem(e, "redaction");
    return ERR_OK;
}

err_code restorer_new(restorer **out, const redaction *r, restore_form form, err *e) {
    *out = mem_zalloc(sizeof **out);
    if (!*out) return err_nomem(e, "restorer");
    (*out)->r = r;
    (*out)->form = form;
    return ERR_OK;
}

void restorer_free(restorer *x) {
    mem_free(x);
}

err_code restorer_feed(restorer *x, const char *p, size_t n, buf *out, err *e) {
    feed(x, p, n, out);
    return buf_check(out, "restored text", e);
}

err_code restorer_end(restorer *x, buf *out, err *e) {
    finish(x, out);
    return buf_check(out, "restored text", e);
}

uint64_t restorer_count(const restorer *x) {
    return x->count;
}
