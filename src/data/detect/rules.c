/* The owner's own entities: reading the file, patterns by PCRE2, dictionaries by hash. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/detect/detect_rules.h"

#include "base/bytes.h"
#include "base/mem.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

typedef struct pattern {
    pcre2_code *code;
    uint32_t ent;
    bool group;
} pattern;

typedef struct entry {
    const char *text; /* folded, a blank between words */
    uint32_t ent;
    uint16_t len;
    uint16_t words; /* of the longest entry that begins so; 0: only the beginning of one */
} entry;

struct rules {
    arena *a;
    pcre2_general_context *mem;
    pcre2_compile_context *compile;
    pattern pat[RULES_MAX];
    size_t n_pat;
    entry *list; /* [0] unused */
    size_t n, cap;
    uint32_t *slot;
    size_t size;
    uint8_t score[ENT_MAX];
};

static void *pcre_alloc(size_t n, void *tag) {
    return mem_alloc(n);
}
static void pcre_free(void *p, void *tag) {
    mem_free(p);
}

/* ---- dictionaries ------------------------------------------------------------------------------------------- */

static uint64_t hash_text(const char *p, size_t n) {
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)p[i]) * UINT64_C(0x100000001b3);
    return h ^ h >> 29;
}

static size_t find_slot(const rules *r, const char *p, size_t n) {
    size_t i = hash_text(p, n) & (r->size - 1);
    while (r->slot[i]) {
        const entry *x = &r->list[r->slot[i]];
        if (x->len == n && memcmp(x->text, p, n) == 0) break;
        i = (i + 1) & (r->size - 1);
    }
    return i;
}

static bool grow_table(rules *r) {
    if (r->n < r->cap) return true;
    size_t cap = r->cap ? r->cap * 2 : 512, size = cap * 4;
    entry *list = mem_realloc(r->list, cap * sizeof *list);
    if (!list) return false;
    r->list = list;
    uint32_t *slot = mem_array(size, sizeof *slot);
    if (!slot) return false;
    mem_free(r->slot);
    r->slot = slot;
    r->size = size;
    r->cap = cap;
    if (!r->n) r->n = 1;
    for (size_t i = 1; i < r->n; i++) r->slot[find_slot(r, r->list[i].text, r->list[i].len)] = (uint32_t)i;
    return true;
}

/* The first words of an entry are entries without an entity, so that a scan knows whether to go on. */
static bool add_entry(rules *r, const char *p, size_t n, uint32_t ent, bool whole, unsigned more) {
    if (!grow_table(r)) return false;
    size_t at = find_slot(r, p, n);
    if (!r->slot[at]) {
        char *copy = arena_strndup(r->a, p, n);
        if (!copy) return false;
        r->list[r->n] = (entry){.text = copy, .len = (uint16_t)n, .ent = UINT32_MAX};
        r->slot[at] = (uint32_t)r->n++;
    }
    entry *x = &r->list[r->slot[at]];
    if (whole && x->ent == UINT32_MAX) x->ent = ent;
    if (more > x->words) x->words = (uint16_t)more;
    return true;
}

static bool is_word_byte(unsigned char c) {
    return byte_class[c] & B_WORD;
}

static size_t word_len(const char *p, size_t n) {
    size_t i = 0;
    while (i < n && is_word_byte((unsigned char)p[i])) i++;
    return i;
}

static size_t gap_len(const char *p, size_t n) {
    size_t i = 0;
    while (i < n && !is_word_byte((unsigned char)p[i])) {
        bool lead = byte_class[(unsigned char)p[i]] & B_LEAD;
        i++;
        while (lead && i < n && ((unsigned char)p[i] & 0xc0) == 0x80) i++;
    }
    return i;
}

/* Folds an entry into its words. 0 words: it has none, or too many or too long ones. */
static unsigned fold_entry(const char *p, size_t n, char out[WORD_MAX], size_t *len, size_t ends[RULE_ENTRY_WORDS]) {
    unsigned parts = 0;
    *len = 0;
    for (size_t i = gap_len(p, n); i < n;) {
        char f[WORD_MAX];
        size_t k = word_len(p + i, n - i), folded = word_fold(f, p + i, k);
        if (!folded || parts == RULE_ENTRY_WORDS || *len + folded + 1 > WORD_MAX) return 0;
        if (parts) out[(*len)++] = ' ';
        memcpy(out + *len, f, folded);
        *len += folded;
        ends[parts++] = *len;
        i += k;
        i += gap_len(p + i, n - i);
    }
    return parts;
}

bool rules_have_words(const rules *r) {
    return r && r->n > 1;
}

void rules_words(scan *s, const rules *r, size_t i) {
    char all[WORD_MAX], f[WORD_MAX];
    size_t k = 0, best_to = 0;
    uint32_t best = 0;
    unsigned limit = 1;
    for (size_t j = i; j < s->n_tok && j < i + limit; j++) {
        const token *t = &s->t[j];
        if (j > i && t->at - token_end(&s->t[j - 1]) > 3) break;
        size_t n = word_fold(f, s->p + t->at, t->len);
        if (!n || k + n + 1 > WORD_MAX) break;
        if (k) all[k++] = ' ';
        memcpy(all + k, f, n);
        k += n;
        uint32_t id = r->slot[find_slot(r, all, k)];
        s->x->work++;
        if (!id) break;
        if (j == i) limit = r->list[id].words;
        if (r->list[id].ent == UINT32_MAX) continue;
        best = r->list[id].ent;
        best_to = token_end(t);
    }
    if (best_to) scan_add(s, best, r->score[best], s->t[i].at, best_to);
}

/* ---- patterns ----------------------------------------------------------------------------------------------- */

typedef struct matcher {
    pcre2_general_context *mem;
    pcre2_match_context *ctx;
    pcre2_match_data *data;
    pcre2_jit_stack *stack; /* NULL where there is no JIT */
} matcher;

void rules_scratch_free(void *match) {
    matcher *m = match;
    if (!m) return;
    if (m->stack) pcre2_jit_stack_free(m->stack);
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->ctx);
    pcre2_general_context_free(m->mem);
    mem_free(m);
}

static matcher *matcher_of(scratch *x) {
    if (x->match) return x->match;
    matcher *m = mem_zalloc(sizeof *m);
    if (!m) return NULL;
    m->mem = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (m->mem) m->ctx = pcre2_match_context_create(m->mem);
    if (m->ctx) m->data = pcre2_match_data_create(2, m->mem);
    if (!m->data) {
        rules_scratch_free(m);
        return NULL;
    }
    m->stack = pcre2_jit_stack_create((size_t)32 << 10, RULE_STACK_MAX, m->mem);
    if (m->stack) pcre2_jit_stack_assign(m->ctx, NULL, m->stack);
    pcre2_set_match_limit(m->ctx, RULE_MATCH_LIMIT);
    pcre2_set_depth_limit(m->ctx, RULE_DEPTH_LIMIT);
    pcre2_set_heap_limit(m->ctx, RULE_HEAP_KIB_MAX);
    x->match = m;
    return m;
}

static size_t char_start(const char *p, size_t at) {
    while (at && ((unsigned char)p[at] & 0xc0) == 0x80) at--;
    return at;
}

/* The next match from `at` on within one stretch. 1: found, 0: none, -1: it cannot be decided, -2: no memory. `*next`:
 * where to go on. */
static int match_stretch(const scan *s, const pattern *p, matcher *m, size_t at, size_t out[2], size_t *next) {
    size_t from = char_start(s->p, at > 256 ? at - 256 : 0);
    size_t to = s->n - at > RULE_STRETCH ? char_start(s->p, at + RULE_STRETCH) : s->n;
    uint32_t how = PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK;
    if (from && s->p[from - 1] != '\n') how |= PCRE2_NOTBOL;
    if (to < s->n) how |= PCRE2_NOTEOL;
    int rc = pcre2_match(p->code, (PCRE2_SPTR)s->p + from, to - from, at - from, how, m->data, m->ctx);
    if (rc == PCRE2_ERROR_NOMATCH) {
        *next = to == s->n ? s->n : char_start(s->p, to - RULE_OVERLAP);
        return 0;
    }
    if (rc == PCRE2_ERROR_NOMEMORY) return -2;
    if (rc < 0) return -1;
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(m->data);
    size_t start = from + v[0], end = from + v[1];
    /* what reaches the end of a stretch may go on: look again from where it begins */
    if (end == to && to < s->n && start >= at + RULE_STRETCH - RULE_OVERLAP) {
        *next = start;
        return 0;
    }
    bool group = p->group && (rc == 0 || rc > 1) && v[2] != PCRE2_UNSET && v[2] < v[3];
    out[0] = group ? from + v[2] : start;
    out[1] = group ? from + v[3] : end;
    *next = end > at ? end : at + 1;
    return 1;
}

err_code rules_patterns(scan *s, const rules *r, err *e) {
    if (!r->n_pat) return ERR_OK;
    matcher *m = matcher_of(s->x);
    if (!m) return err_nomem(e, "the owner's patterns");
    for (size_t k = 0; k < r->n_pat; k++)
        for (size_t at = 0, next = 0; at < s->n; at = next) {
            size_t v[2];
            int rc = match_stretch(s, &r->pat[k], m, at, v, &next);
            s->x->work++;
            if (rc == -2) return err_nomem(e, "the owner's patterns");
            if (rc < 0)
                return err_set(e, ERR_UNAVAILABLE,
                               "text: the owner's pattern number %zu ran into its limit; it cannot be "
                               "decided",
                               k + 1);
            if (rc > 0) scan_add(s, r->pat[k].ent, r->score[r->pat[k].ent], v[0], v[1]);
            if (s->failed) return ERR_OK; /* scan_run's caller reports it */
            if (next <= at) next = at + 1;
            while (next < s->n && ((unsigned char)s->p[next] & 0xc0) == 0x80) next++;
        }
    return ERR_OK;
}

/* ---- the file ----------------------------------------------------------------------------------------------- */

typedef struct reader {
    rules *r;
    const char *name, *text;
    size_t len, at, line, line_at, entries;
    entity_info *info;
    unsigned *n;
    err *e;
} reader;

static err_code wrong(reader *x, const char *what, const char *p, size_t n) {
    return err_set(x->e, ERR_USAGE, "%s:%zu:%zu: \"%.*s\": %s", x->name, x->line, x->at - x->line_at + 1,
                   (int)(n > 60 ? 60 : n), p, what);
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

static void skip_blank(reader *x) {
    while (x->at < x->len && is_blank(x->text[x->at])) x->at++;
}

/* The next word of a line: letters, digits, '-', '_'; or one sign. */
static size_t next_word(reader *x, const char **p) {
    skip_blank(x);
    size_t n = 0;
    *p = x->text + x->at;
    while (x->at + n < x->len && (is_word_byte((unsigned char)(*p)[n]) || (*p)[n] == '-' || (*p)[n] == '_')) n++;
    return n;
}

static bool is(const char *p, size_t n, const char *word) {
    return strlen(word) == n && memcmp(p, word, n) == 0;
}

static bool is_name(const char *p, size_t n, size_t max, const char *signs, char first, char last) {
    if (!n || n > max || *p < first || *p > last) return false;
    for (size_t i = 0; i < n; i++)
        if (!((p[i] >= first && p[i] <= last) || (p[i] >= '0' && p[i] <= '9') || strchr(signs, p[i]))) return false;
    return true;
}

typedef struct options {
    const char *group, *word;
    unsigned flags, score;
    bool given, none;
} options;

static err_code read_options(reader *x, options *o) {
    const char *p;
    size_t n;
    *o = (options){.score = 80};
    while ((n = next_word(x, &p))) {
        const char *key = p;
        size_t key_n = n;
        if (!is(p, n, "group") && !is(p, n, "flags") && !is(p, n, "placeholder") && !is(p, n, "score"))
            return wrong(x, "possible here: group, flags, placeholder, score, and then ':'", p, n);
        o->given = true;
        x->at += n;
        n = next_word(x, &p);
        if (is(key, key_n, "group")) {
            if (!is_name(p, n, RULE_NAME_MAX, "-", 'a', 'z') || flag_find(p, n))
                return wrong(x, "a group is a word of lower case letters, digits and '-', and no flag", p, n);
            if (!(o->group = arena_strndup(x->r->a, p, n))) return err_nomem(x->e, "rules");
        } else if (is(key, key_n, "placeholder")) {
            o->none = is(p, n, "none");
            if (!o->none && !is_name(p, n, RULE_WORD_MAX, "_", 'A', 'Z'))
                return wrong(x, "a placeholder is a word of capitals, digits and '_', or none", p, n);
            if (!o->none && !(o->word = arena_strndup(x->r->a, p, n))) return err_nomem(x->e, "rules");
        } else if (is(key, key_n, "score")) {
            unsigned v = 0;
            for (size_t i = 0; i < n && i < 4; i++)
                v = p[i] >= '0' && p[i] <= '9' ? v * 10 + (unsigned)(p[i] - '0') : 999;
            if (!n || v < SCORE_REPORT || v > 100) return wrong(x, "a score is a number from 50 to 100", p, n);
            o->score = v;
        } else {
            for (;;) {
                unsigned flag = flag_find(p, n);
                if (!flag)
                    return wrong(x, "flags are personal, special-category, credential, with commas between", p, n);
                o->flags |= flag;
                x->at += n;
                skip_blank(x);
                if (x->at >= x->len || x->text[x->at] != ',') break;
                x->at++;
                n = next_word(x, &p);
            }
            n = 0;
        }
        x->at += n;
    }
    return ERR_OK;
}

static err_code new_entity(reader *x, const char *p, size_t n, const options *o, uint32_t *ent) {
    if (*x->n >= ENT_MAX) return wrong(x, "more own entities than 32", p, n);
    if (!is_name(p, n, RULE_NAME_MAX, "-", 'a', 'z') || flag_find(p, n))
        return wrong(x, "a name is a word of lower case letters, digits and '-', and no flag", p, n);
    for (unsigned i = 0; i < *x->n; i++) {
        if (is(p, n, x->info[i].name)) return wrong(x, "this name is taken; options stand at its first rule", p, n);
        if (is(p, n, x->info[i].group)) return wrong(x, "this is the name of a group", p, n);
        if (o->group && strcmp(o->group, x->info[i].name) == 0)
            return wrong(x, "its group is the name of an entity", p, n);
    }
    char *name = arena_strndup(x->r->a, p, n), *word = arena_strndup(x->r->a, p, n < RULE_WORD_MAX ? n : RULE_WORD_MAX);
    if (!name || !word) return err_nomem(x->e, "rules");
    for (char *c = word; *c; c++) *c = (char)(*c == '-' ? '_' : *c >= 'a' && *c <= 'z' ? *c - 32 : *c);
    *ent = (*x->n)++;
    x->info[*ent] = (entity_info){.name = name,
                                  .group = o->group ? o->group : "own",
                                  .word = o->none   ? NULL
                                          : o->word ? o->word
                                                    : word,
                                  .flags = (uint8_t)o->flags};
    x->r->score[*ent] = (uint8_t)o->score;
    return ERR_OK;
}

static err_code add_pattern(reader *x, const char *p, size_t n, uint32_t ent) {
    rules *r = x->r;
    int code;
    PCRE2_SIZE where;
    if (!n) return wrong(x, "a pattern stands behind ':'", p, n);
    if (n > RULE_PATTERN_MAX) return wrong(x, "this pattern is longer than 2000 bytes", p, n);
    if (r->n_pat == RULES_MAX) return wrong(x, "more patterns than 256", p, n);
    pcre2_code *c = pcre2_compile((PCRE2_SPTR)p, n, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_MULTILINE,
                                  &code, &where, r->compile);
    if (!c) {
        char why[160];
        if (code == 121) return err_nomem(x->e, "a pattern"); /* PCRE2_ERROR_HEAP_FAILED */
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        x->at = (size_t)(p - x->text) + where;
        return wrong(x, why, p, n);
    }
    uint32_t groups = 0;
    pcre2_pattern_info(c, PCRE2_INFO_CAPTURECOUNT, &groups);
    r->pat[r->n_pat++] = (pattern){.code = c, .ent = ent, .group = groups > 0};
    uint32_t empty = 0;
    pcre2_pattern_info(c, PCRE2_INFO_MATCHEMPTY, &empty);
    if (empty) return wrong(x, "this pattern can match nothing at all", p, n);
    pcre2_jit_compile(c, PCRE2_JIT_COMPLETE); /* where it cannot, the interpreter runs it under the same limits */
    return ERR_OK;
}

static err_code add_phrase(reader *x, const char *p, size_t n, uint32_t ent) {
    char f[WORD_MAX];
    size_t len, ends[RULE_ENTRY_WORDS];
    while (n && is_blank(p[n - 1])) n--;
    while (n && is_blank(*p)) p++, n--;
    if (!n) return ERR_OK;
    unsigned parts = fold_entry(p, n, f, &len, ends);
    if (!parts) return wrong(x, "an entry has 1 to 8 words and at most 70 bytes", p, n);
    if (++x->entries > RULE_ENTRIES_MAX) return wrong(x, "more entries than 100000", p, n);
    for (unsigned k = 0; k < parts; k++)
        if (!add_entry(x->r, f, ends[k], ent, k + 1 == parts, parts - k)) return err_nomem(x->e, "rules");
    return ERR_OK;
}

static size_t line_length(const reader *x, size_t at) {
    const char *nl = memchr(x->text + at, '\n', x->len - at);
    return nl ? (size_t)(nl - x->text) - at : x->len - at;
}

static void next_line(reader *x) {
    x->at = x->line_at + line_length(x, x->line_at);
    if (x->at < x->len) x->at++;
    x->line_at = x->at;
    x->line++;
}

static err_code read_words(reader *x, uint32_t ent) {
    size_t end = x->line_at + line_length(x, x->line_at), before = x->entries;
    err_code rc = ERR_OK;
    while (x->at < end && !rc) {
        const char *p = x->text + x->at, *comma = memchr(p, ',', end - x->at);
        size_t n = comma ? (size_t)(comma - p) : end - x->at;
        rc = add_phrase(x, p, n, ent);
        x->at += n + (comma != NULL);
    }
    while (!rc && x->line_at + line_length(x, x->line_at) < x->len) { /* the lines that are set in */
        size_t next = x->line_at + line_length(x, x->line_at) + 1;
        if (next >= x->len || (x->text[next] != ' ' && x->text[next] != '\t')) break;
        next_line(x);
        rc = add_phrase(x, x->text + next, line_length(x, next), ent);
    }
    if (!rc && x->entries == before) return wrong(x, "no entries stand behind ':'", "words", 5);
    return rc;
}

static err_code read_rule(reader *x) {
    const char *kind, *name;
    size_t kind_n = next_word(x, &kind);
    if (!is(kind, kind_n, "pattern") && !is(kind, kind_n, "words"))
        return wrong(x, "a line begins with pattern, words or #", x->text + x->at, line_length(x, x->at));
    x->at += kind_n;
    size_t name_n = next_word(x, &name);
    if (!name_n) return wrong(x, "a name stands here", name, line_length(x, x->at));
    x->at += name_n;
    options o;
    err_code rc = read_options(x, &o);
    if (rc) return rc;
    if (x->at >= x->len || x->text[x->at] != ':')
        return wrong(x, "':' stands before the pattern or the words", x->text + x->at, line_length(x, x->at));
    x->at++;
    uint32_t ent = ENT_BUILT_IN;
    while (ent < *x->n && !is(name, name_n, x->info[ent].name)) ent++;
    if (ent == *x->n || o.given) rc = new_entity(x, name, name_n, &o, &ent);
    if (rc) return rc;
    if (is(kind, kind_n, "words")) return read_words(x, ent);
    skip_blank(x);
    size_t n = line_length(x, x->at);
    while (n && is_blank(x->text[x->at + n - 1])) n--;
    return add_pattern(x, x->text + x->at, n, ent);
}

static err_code read_all(reader *x) {
    err_code rc = ERR_OK;
    for (x->line = 1; x->line_at < x->len && !rc; next_line(x)) {
        x->at = x->line_at;
        skip_blank(x);
        if (x->at >= x->len || x->text[x->at] == '\n' || x->text[x->at] == '#') continue;
        if (x->at > x->line_at)
            return wrong(x, "a line that is set in belongs to a rule of words", x->text + x->at, line_length(x, x->at));
        rc = read_rule(x);
    }
    return rc;
}

err_code rules_new(rules **out, const char *text, size_t len, const char *name, entity_info info[ENT_MAX], unsigned *n,
                   err *e) {
    *out = NULL;
    if (len > RULES_BYTES_MAX)
        return err_set(e, ERR_USAGE, "%s: %zu bytes are more than a file of rules may have", name, len);
    if (!utf8_valid(text, len)) return err_set(e, ERR_USAGE, "%s: this is not UTF-8", name);
    rules *r = mem_zalloc(sizeof *r);
    if (!r) return err_nomem(e, "rules");
    r->a = arena_new((size_t)64 << 20);
    r->mem = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (r->mem) r->compile = pcre2_compile_context_create(r->mem);
    if (!r->a || !r->compile) {
        rules_free(r);
        return err_nomem(e, "rules");
    }
    reader x = {.r = r, .name = name, .text = text, .len = len, .info = info, .n = n, .e = e};
    err_code rc = grow_table(r) ? read_all(&x) : err_nomem(e, "rules");
    if (rc) {
        rules_free(r);
        return rc;
    }
    *out = r;
    return ERR_OK;
}

void rules_free(rules *r) {
    if (!r) return;
    for (size_t i = 0; i < r->n_pat; i++) pcre2_code_free(r->pat[i].code);
    if (r->compile) pcre2_compile_context_free(r->compile);
    if (r->mem) pcre2_general_context_free(r->mem);
    arena_free(r->a);
    mem_free(r->list);
    mem_free(r->slot);
    mem_free(r);
}
