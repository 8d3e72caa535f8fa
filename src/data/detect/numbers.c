/* Numbers that a check rule decides (ids.h): cuts windows of whole groups out of a row of groups, and scores them with
 * the words around. */
#include "data/detect/ids.h"
#include "data/detect/recognisers.h"

#include <string.h>

#define GROUPS_MAX  9  /* of a window inside a row */
#define ROW_MAX     40 /* groups that a row is followed for */
#define LETTERS_MAX 6  /* of a group without digits */

/* The separator before token i as id forms write it; 0: what stands there parts numbers. */
static char form_sep(const scan *s, size_t i, bool *line) {
    size_t from = token_end(&s->t[i - 1]), to = s->t[i].at;
    char sep = 0;
    if (to - from > 3) return 0;
    for (size_t k = from; k < to; k++) {
        char c = s->p[k];
        if (c == '\n') {
            if (*line) return 0;
            *line = true;
            c = ' ';
        }
        if (c == '\t') c = ' ';
        if (!memchr(" -./,:+_", c, 8)) return 0;
        if (!sep || sep == ' ') sep = c;
    }
    return sep;
}

static bool is_group(const token *t) { /* of a number: digits, or a few capitals */
    if (t->flags & T_WIDE || t->len > ID_LEN_MAX) return false;
    if (t->flags & T_DIGIT) return true;
    return t->len <= LETTERS_MAX && (t->len <= 2 || !(t->flags & T_LOWER));
}

typedef struct window {
    char compact[ID_LEN_MAX], form[ID_FORM_MAX + 4];
    size_t n, form_n, digits, groups;
    bool single; /* every group is one character */
    bool line;   /* a line ends inside */
    bool looked; /* at the words before it, which are the same for all windows from one token */
    near_words before;
} window;

static bool window_add(window *w, const scan *s, const token *t, char sep) {
    if (w->n + t->len > ID_LEN_MAX || w->form_n + t->len + 1 > ID_FORM_MAX) return false;
    if (w->groups) w->form[w->form_n++] = sep;
    for (size_t k = 0; k < t->len; k++) {
        char c = s->p[t->at + k];
        if (c >= 'a' && c <= 'z') c = (char)(c - 32);
        if (c >= '0' && c <= '9') w->digits++;
        w->compact[w->n++] = w->form[w->form_n++] = c;
    }
    if (t->len > 1) w->single = false;
    w->groups++;
    return true;
}

/* What stands beside a number and makes it part of another one. */
static bool glued(const scan *s, size_t i, size_t j) {
    size_t from = s->t[i].at, to = token_end(&s->t[j]);
    char a = from ? s->p[from - 1] : ' ', b = scan_byte(s, to), c = scan_byte(s, to + 1);
    if (a == '_' || b == '_' || b == '%') return true;
    /* 1.234.567,89 and paths of digits */
    if ((b == '.' || b == ',') && c >= '0' && c <= '9') return true;
    if (from >= 2 && (a == '.' || a == ',') && s->p[from - 2] >= '0' && s->p[from - 2] <= '9') return true;
    return false;
}

static void judge(scan *s, size_t i, size_t j, window *w, bool whole) {
    id_hit hits[ID_HITS_MAX];
    size_t n = id_match(hits, w->compact, w->n, w->form, w->form_n);
    s->x->work += 4;
    if (!n) return;
    if (!w->looked) w->before = scan_before(s, i, 8);
    w->looked = true;
    near_words near = scan_near(s, j, j, 0, 3);
    near.rules |= w->before.rules;
    near.id_kinds |= w->before.id_kinds;
    bool part = glued(s, i, j);
    for (size_t k = 0; k < n; k++) {
        const id_rule *r = hits[k].rule;
        bool own = near.rules >> (r - id_rules) & 1;
        id_near how = own ? ID_NEAR_WORD : near.id_kinds & r->kinds ? ID_NEAR_KIND : ID_NEAR_NOTHING;
        bool strong = hits[k].strength >= 95;
        if (w->line && !strong) continue;
        if ((part || !whole) && !strong && how != ID_NEAR_WORD && !(hits[k].typical && !part)) continue;
        scan_add(s, r->entity, id_score(&hits[k], how), s->t[i].at, token_end(&s->t[j]));
    }
}

/* Is token i in the middle of a row: does a group stand right before it? */
static bool inside_row(const scan *s, size_t i) {
    bool line = true;
    return i && is_group(&s->t[i - 1]) && s->t[i - 1].flags & T_DIGIT && form_sep(s, i, &line);
}

static void windows_from(scan *s, size_t i) {
    window w = {.single = true};
    bool inside = inside_row(s, i);
    for (size_t j = i; j < s->n_tok && j < i + ROW_MAX; j++) {
        char sep = 0;
        if (j > i && (!is_group(&s->t[j]) || !(sep = form_sep(s, j, &w.line)))) break;
        if (!window_add(&w, s, &s->t[j], sep)) break;
        if (w.groups > GROUPS_MAX && (!w.single || inside)) break;
        s->x->work++;
        if (w.n <= 8 && w.groups <= 4 && w.digits && w.digits < w.n && !w.line) judge_plate(s, i, j, w.form, w.form_n);
        if (w.n < ID_LEN_MIN || !w.digits) continue;
        bool line = w.line;
        bool more =
            j + 1 < s->n_tok && s->t[j + 1].flags & T_DIGIT && is_group(&s->t[j + 1]) && form_sep(s, j + 1, &line);
        if (w.single && w.groups > 1 && more) continue; /* digits spelled apart: the whole row */
        judge(s, i, j, &w, !inside && !more);
    }
}

/* Asked at every token with digits, and at words as long as a BIC: windows that begin with it, or with the letters
 * before it ("DE 89 …"). */
void find_numbers(scan *s, size_t i) {
    if (s->t[i].flags & T_BIC) {
        window w = {0};
        if (window_add(&w, s, &s->t[i], 0)) judge(s, i, i, &w, true);
        return;
    }
    if (!is_group(&s->t[i])) return;
    windows_from(s, i);
    for (size_t k = i; k > 0 && i - k < 2; k--) {
        bool line = true;
        if (s->t[k - 1].flags & T_DIGIT || !is_group(&s->t[k - 1]) || !form_sep(s, k, &line)) break;
        windows_from(s, k - 1);
    }
}
