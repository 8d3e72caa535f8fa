/* Sentences → struct policy. One function a rule of the grammar in policy.h.
 *
 * An error says where, which word was not understood, which are possible there, and which was probably meant.
 */
#include "data/policy_parser.h"

#include <stdio.h>
#include <string.h>

void may(choices *c, const char *word) {
    if (c->n_shown < sizeof c->shown / sizeof c->shown[0]) c->shown[c->n_shown++] = word;
    if (c->n_near < WORDS_MAX) c->near[c->n_near++] = word;
}

/* Shown, but no word that somebody can misspell. */
void may_show(choices *c, const char *what) {
    if (c->n_shown < sizeof c->shown / sizeof c->shown[0]) c->shown[c->n_shown++] = what;
}

void may_near(choices *c, const char *word) {
    if (c->n_near < WORDS_MAX) c->near[c->n_near++] = word;
}

err_code parser_nomem(parser *ps) {
    return err_nomem(ps->e, "a policy");
}

err_code parser_fail_at(const parser *ps, unsigned line, unsigned column, const char *what) {
    return err_set(ps->e, ERR_USAGE, "%s:%u:%u: %s", ps->x.name, line, column, what);
}

static void write_choices(const parser *ps, const choices *c, buf *b) {
    for (size_t i = 0; i < c->n_shown; i++) buf_printf(b, "%s%s", i ? ", " : "; possible here: ", c->shown[i]);
    const char *near = ps->t.kind == TOKEN_WORD ? word_nearest(ps->t.s, ps->t.n, c->near, c->n_near) : NULL;
    if (near) buf_printf(b, "; did you mean \"%s\"?", near);
}

/* The next token is none of the choices. */
err_code parser_fail(const parser *ps, const choices *c) {
    buf b = {.max = ERR_MSG_MAX};
    const token *t = &ps->t;
    if (t->kind == TOKEN_END || t->kind == TOKEN_EOF)
        buf_puts(&b, "the sentence ends here, and something is missing");
    else if (t->kind == TOKEN_STRING)
        buf_printf(&b, "\"%.*s\" in quotes is not understood here", t->n > 60 ? 60 : (int)t->n, t->s);
    else
        buf_printf(&b, "\"%.*s\" is not understood here", t->n > 60 ? 60 : (int)t->n, t->s);
    write_choices(ps, c, &b);
    err_code rc = parser_fail_at(ps, t->line, t->column, buf_str(&b));
    buf_free(&b);
    return rc;
}

err_code parser_take(parser *ps) {
    ps->prev = ps->t.past;
    return lexer_next(&ps->x, &ps->t, ps->e);
}

bool token_is(const token *t, const char *word) {
    return t->kind == TOKEN_WORD && strlen(word) == t->n && memcmp(word, t->s, t->n) == 0;
}

bool parser_at_end(const parser *ps) {
    return ps->t.kind == TOKEN_END || ps->t.kind == TOKEN_EOF;
}

err_code parser_need(parser *ps, const char *word) {
    choices c = {0};
    may(&c, word);
    return token_is(&ps->t, word) ? parser_take(ps) : parser_fail(ps, &c);
}

char *parser_keep(parser *ps, const token *t) {
    return arena_strndup(ps->a, t->s, t->n);
}

err_code parser_fail_value(parser *ps, const char *what) {
    static const choices nothing = {0};
    buf b = {.max = ERR_MSG_MAX};
    if (parser_at_end(ps)) return parser_fail(ps, &nothing);
    buf_printf(&b, "\"%.*s\" %s", ps->t.n > 60 ? 60 : (int)ps->t.n, ps->t.s, what);
    err_code rc = parser_fail_at(ps, ps->t.line, ps->t.column, buf_str(&b));
    buf_free(&b);
    return rc;
}

/* Over the comma of a list, if one follows. */
err_code parser_comma(parser *ps, bool *more, size_t *count) {
    *more = ps->t.kind == TOKEN_COMMA;
    if (!*more) return ERR_OK;
    if (++*count >= LIST_MAX)
        return parser_fail_at(ps, ps->t.line, ps->t.column, "the list is too long: 300 items at most");
    return parser_take(ps);
}

/* After a list: what else could have followed is part of the choices. */
err_code parser_need_end(parser *ps, const char *also, const char *also2) {
    choices c = {0};
    if (parser_at_end(ps)) return ERR_OK;
    may_show(&c, "','");
    if (also) may(&c, also);
    if (also2) may(&c, also2);
    may_show(&c, "the end of the sentence");
    return parser_fail(ps, &c);
}

/* ---- labels, flags, things, places ------------------------------------------------------------------------- */

void may_levels(const parser *ps, choices *c) {
    for (int i = 0; i < ps->p->labels.n; i++) may(c, ps->p->labels.name[i]);
}

void may_flags(choices *c) {
    for (unsigned i = 0; i < FLAGS_N; i++) may(c, flag_name(1u << i));
}

static err_code parse_level(parser *ps, uint8_t *out) {
    int i = ps->t.kind == TOKEN_WORD ? label_find(&ps->p->labels, ps->t.s, ps->t.n) : -1;
    if (i < 0) {
        choices c = {0};
        may_levels(ps, &c);
        return parser_fail(ps, &c);
    }
    *out = (uint8_t)i;
    return parser_take(ps);
}

/* LABEL { "," LABEL } | "any label" */
static err_code parse_labels(parser *ps, uint8_t *bits) {
    bool more = true;
    size_t count = 0;
    if (token_is(&ps->t, "any")) {
        *bits = (uint8_t)((1u << ps->p->labels.n) - 1);
        err_code rc = parser_take(ps);
        return rc ? rc : parser_need(ps, "label");
    }
    while (more) {
        int i = ps->t.kind == TOKEN_WORD ? label_find(&ps->p->labels, ps->t.s, ps->t.n) : -1;
        if (i < 0) {
            choices c = {0};
            may_levels(ps, &c);
            may(&c, "any label");
            return parser_fail(ps, &c);
        }
        *bits |= (uint8_t)(1u << i);
        err_code rc = parser_take(ps);
        if (rc == ERR_OK) rc = parser_comma(ps, &more, &count);
        if (rc) return rc;
    }
    return ERR_OK;
}

/* (LABEL | FLAG) { "," … } */
err_code parse_what(parser *ps, uint8_t *levels, uint8_t *flags, bool anything_too, bool *anything) {
    bool more = true;
    size_t count = 0;
    while (more) {
        int i = ps->t.kind == TOKEN_WORD ? label_find(&ps->p->labels, ps->t.s, ps->t.n) : -1;
        unsigned flag = ps->t.kind == TOKEN_WORD ? flag_find(ps->t.s, ps->t.n) : 0;
        if (anything_too && token_is(&ps->t, "anything")) {
            *anything = true;
        } else if (i < 0 && !flag) {
            choices c = {0};
            may_levels(ps, &c);
            may_flags(&c);
            if (anything_too) may(&c, "anything");
            return parser_fail(ps, &c);
        }
        if (i >= 0) *levels |= (uint8_t)(1u << i);
        *flags |= (uint8_t)flag;
        err_code rc = parser_take(ps);
        if (rc == ERR_OK) rc = parser_comma(ps, &more, &count);
        if (rc) return rc;
    }
    return ERR_OK;
}

static void may_things(const parser *ps, choices *c) {
    may_flags(c);
    unsigned n = detector_entities(ps->p->d);
    for (unsigned i = 0; i < n; i++) {
        const char *group = detector_entity(ps->p->d, i)->group;
        bool again = false;
        for (unsigned k = 0; group && k < i && !again; k++) {
            const char *other = detector_entity(ps->p->d, k)->group;
            again = other && strcmp(other, group) == 0;
        }
        if (group && !again && c->n_shown < 16) may(c, group);
    }
    may_show(c, "an entity as iban or email");
    for (unsigned i = 0; i < n; i++) may_near(c, detector_entity(ps->p->d, i)->name);
}

/* What of the set has a placeholder. */
static entity_set redactable(const parser *ps, const entity_set *s) {
    entity_set out = {{0}};
    unsigned n = detector_entities(ps->p->d);
    for (unsigned i = 0; i < n; i++)
        if (entity_set_has(s, i) && detector_entity(ps->p->d, i)->word) entity_set_add(&out, i);
    return out;
}

static err_code parse_thing(parser *ps, bool redact, entity_set *things, uint8_t *flags) {
    entity_set found = {{0}};
    if (ps->t.kind != TOKEN_WORD || !detector_find(ps->p->d, ps->t.s, ps->t.n, &found)) {
        choices c = {0};
        may_things(ps, &c);
        return parser_fail(ps, &c);
    }
    if (redact) {
        found = redactable(ps, &found);
        if (entity_set_empty(&found)) {
            buf b = {.max = ERR_MSG_MAX};
            buf_printf(&b,
                       "\"%.*s\" cannot be redacted, it raises the label only; to keep it inside write: never "
                       "special-category outside on-prem",
                       ps->t.n > 60 ? 60 : (int)ps->t.n, ps->t.s);
            err_code rc = parser_fail_at(ps, ps->t.line, ps->t.column, buf_str(&b));
            buf_free(&b);
            return rc;
        }
    }
    things->bits[0] |= found.bits[0];
    things->bits[1] |= found.bits[1];
    *flags |= (uint8_t)flag_find(ps->t.s, ps->t.n);
    return ERR_OK;
}

/* thing { "," thing } */
err_code parse_things(parser *ps, bool redact, entity_set *things, uint8_t *flags, word_item **words) {
    bool more = true;
    size_t count = 0;
    while (more) {
        err_code rc = parse_thing(ps, redact, things, flags);
        if (rc) return rc;
        word_item *w = arena_alloc(ps->a, sizeof *w);
        char *s = parser_keep(ps, &ps->t);
        if (!w || !s) return parser_nomem(ps);
        w->s = s;
        *words = w;
        words = &w->next;
        rc = parser_take(ps);
        if (rc == ERR_OK) rc = parser_comma(ps, &more, &count);
        if (rc) return rc;
    }
    return ERR_OK;
}

bool provider_name_ok(const token *t) {
    if (!t->n || t->n > PROVIDER_NAME_MAX) return false;
    for (size_t i = 0; i < t->n; i++) {
        char c = t->s[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-')) return false;
    }
    return true;
}

void may_places(const parser *ps, choices *c) {
    may(c, "on-prem");
    may(c, "any provider");
    may_show(c, "provider NAME");
    may_near(c, "provider");
    for (const zone *z = ps->p->zones; z && c->n_shown < 16; z = z->next) may(c, z->name);
    if (!ps->p->zones) may_show(c, "the name of a zone");
}

static err_code parse_provider_name(parser *ps, place *at) {
    if ((ps->t.kind != TOKEN_WORD && ps->t.kind != TOKEN_STRING) || !provider_name_ok(&ps->t)) {
        choices c = {0};
        may_show(&c, "a provider's name (lower case letters, digits, '.', '_', '-')");
        return parser_fail(ps, &c);
    }
    at->kind = PLACE_PROVIDER;
    at->name = parser_keep(ps, &ps->t);
    return at->name ? parser_take(ps) : parser_nomem(ps);
}

/* "on-prem" | ZONE | "any provider" | "provider" NAME. Zones are found when the whole text was read. */
static err_code parse_place(parser *ps, place *at) {
    at->line = ps->t.line;
    at->column = ps->t.column;
    if (ps->t.kind != TOKEN_WORD) {
        choices c = {0};
        may_places(ps, &c);
        return parser_fail(ps, &c);
    }
    if (token_is(&ps->t, "provider")) {
        err_code rc = parser_take(ps);
        return rc ? rc : parse_provider_name(ps, at);
    }
    if (token_is(&ps->t, "any")) {
        at->kind = PLACE_ANY;
        err_code rc = parser_take(ps);
        return rc ? rc : parser_need(ps, "provider");
    }
    at->kind = token_is(&ps->t, "on-prem") ? PLACE_ON_PREM : PLACE_ZONE;
    at->name = parser_keep(ps, &ps->t);
    return at->name ? parser_take(ps) : parser_nomem(ps);
}

err_code parse_places(parser *ps, place **list) {
    bool more = true;
    size_t count = 0;
    while (more) {
        place *at = arena_alloc(ps->a, sizeof *at);
        if (!at) return parser_nomem(ps);
        err_code rc = parse_place(ps, at);
        if (rc == ERR_OK) rc = parser_comma(ps, &more, &count);
        if (rc) return rc;
        *list = at;
        list = &at->next;
    }
    return ERR_OK;
}

/* ---- the other sentences ----------------------------------------------------------------------------------- */

static err_code parse_allow(parser *ps, sentence *s) {
    err_code rc = parse_labels(ps, &s->levels);
    if (rc) return rc;
    if (!token_is(&ps->t, "to")) {
        choices c = {0};
        may(&c, "to");
        may_show(&c, "','");
        return parser_fail(ps, &c);
    }
    rc = parser_take(ps);
    if (rc == ERR_OK) rc = parse_places(ps, &s->places);
    if (rc) return rc;
    if (!token_is(&ps->t, "after")) return parser_need_end(ps, "after redact", NULL);
    s->redacts = true;
    uint8_t flags = 0;
    rc = parser_take(ps);
    if (rc == ERR_OK) rc = parser_need(ps, "redact");
    if (rc == ERR_OK) rc = parse_things(ps, true, &s->things, &flags, &s->thing_words);
    return rc ? rc : parser_need_end(ps, NULL, NULL);
}

static err_code parse_never(parser *ps, sentence *s) {
    err_code rc = parse_what(ps, &s->levels, &s->flags, false, NULL);
    if (rc) return rc;
    if (!token_is(&ps->t, "outside")) {
        choices c = {0};
        may(&c, "outside");
        may_show(&c, "','");
        return parser_fail(ps, &c);
    }
    rc = parser_take(ps);
    if (rc == ERR_OK) rc = parse_places(ps, &s->places);
    return rc ? rc : parser_need_end(ps, NULL, NULL);
}

static err_code parse_treat(parser *ps, sentence *s) {
    s->detector_error = token_is(&ps->t, "detector-error");
    if (!s->detector_error && !token_is(&ps->t, "unlabelled")) {
        choices c = {0};
        may(&c, "unlabelled");
        may(&c, "detector-error");
        return parser_fail(ps, &c);
    }
    err_code rc = parser_take(ps);
    if (rc == ERR_OK) rc = parser_need(ps, "as");
    if (rc == ERR_OK) rc = parse_level(ps, &s->level);
    if (rc) return rc;
    choices c = {0};
    may_show(&c, "the end of the sentence");
    return parser_at_end(ps) ? ERR_OK : parser_fail(ps, &c);
}

static err_code parse_raise(parser *ps, sentence *s) {
    err_code rc = parser_need(ps, "to");
    if (rc == ERR_OK) rc = parse_level(ps, &s->level);
    if (rc == ERR_OK) rc = parser_need(ps, "when");
    if (rc == ERR_OK) rc = parser_need(ps, "found");
    if (rc == ERR_OK) rc = parse_things(ps, false, &s->things, &s->flags, &s->thing_words);
    return rc ? rc : parser_need_end(ps, NULL, NULL);
}

static err_code parse_sentence(parser *ps) {
    static const struct {
        const char *word;
        sentence_kind kind;
        err_code (*parse)(parser *ps, sentence *s);
    } kinds[] = {{"zone", SENTENCE_ZONE, parse_zone},
                 {"allow", SENTENCE_ALLOW, parse_allow},
                 {"never", SENTENCE_NEVER, parse_never},
                 {"treat", SENTENCE_TREAT, parse_treat},
                 {"raise", SENTENCE_RAISE, parse_raise}};
    size_t k = 0, n = sizeof kinds / sizeof kinds[0];
    while (k < n && !token_is(&ps->t, kinds[k].word)) k++;
    if (k == n) {
        choices c = {0};
        for (k = 0; k < n; k++) may(&c, kinds[k].word);
        return parser_fail(ps, &c);
    }
    if (ps->p->n_sentences == SENTENCES_MAX)
        return parser_fail_at(ps, ps->t.line, ps->t.column, "a policy has 2000 sentences at most");
    sentence *s = arena_alloc(ps->a, sizeof *s);
    if (!s) return parser_nomem(ps);
    const char *from = ps->t.from;
    s->kind = kinds[k].kind;
    s->line = ps->t.line;
    err_code rc = parser_take(ps);
    if (rc == ERR_OK) rc = kinds[k].parse(ps, s);
    if (rc) return rc;
    s->text = arena_strndup(ps->a, from, (size_t)(ps->prev - from));
    if (!s->text) return parser_nomem(ps);
    *ps->last = s;
    ps->last = &s->next;
    ps->p->n_sentences++;
    return ERR_OK;
}

/* Zones may be used before they are defined: order means nothing. */
err_code resolve_places(parser *ps, place *list) {
    for (; list; list = list->next) {
        if (list->kind != PLACE_ZONE) continue;
        const zone *z = ps->p->zones;
        while (z && strcmp(z->name, list->name) != 0) z = z->next;
        if (z) {
            list->zone = z;
            continue;
        }
        choices c = {0};
        may_places(ps, &c);
        ps->t = (token){
            .kind = TOKEN_WORD, .s = list->name, .n = strlen(list->name), .line = list->line, .column = list->column};
        return parser_fail(ps, &c);
    }
    return ERR_OK;
}

static err_code parse_text(parser *ps) {
    err_code rc = parser_take(ps);
    while (rc == ERR_OK && ps->t.kind != TOKEN_EOF) rc = ps->t.kind == TOKEN_END ? parser_take(ps) : parse_sentence(ps);
    for (sentence *s = ps->p->sentences; rc == ERR_OK && s; s = s->next) rc = resolve_places(ps, s->places);
    return rc;
}

/* What follows from all sentences together. */
static void settle(policy *p) {
    uint8_t level[2] = {0, 0};
    bool said[2] = {false, false};
    for (const sentence *s = p->sentences; s; s = s->next) {
        if (s->kind != SENTENCE_TREAT) continue;
        bool k = s->detector_error;
        said[k] = true;
        if (s->level > level[k]) level[k] = s->level;
    }
    uint8_t top = (uint8_t)(p->labels.n - 1);
    p->unlabelled = said[0] ? level[0] : top;
    p->detector_error = said[1] ? level[1] : top;
    unsigned n = detector_entities(p->d);
    for (unsigned i = 0; i < n; i++)
        for (unsigned f = 0; f < FLAGS_N; f++)
            if (detector_entity(p->d, i)->flags & (1u << f)) entity_set_add(&p->carries[f], i);
}

static void make_digest(policy *p) {
    static const char head[] = "polder policy\n";
    sha256 h;
    sha256_init(&h);
    sha256_update(&h, head, sizeof head - 1);
    for (int i = 0; i < p->labels.n; i++) {
        sha256_update(&h, p->labels.name[i], strlen(p->labels.name[i]));
        sha256_update(&h, i + 1 < p->labels.n ? "," : "\n", 1);
    }
    sha256_update(&h, p->text, p->n);
    sha256_final(&h, p->digest);
}

err_code policy_parse(policy **out, const label_set *labels, const detector *d, const char *text, size_t n,
                      const char *name, err *e) {
    *out = NULL;
    if (n > POLICY_BYTES_MAX) return err_set(e, ERR_USAGE, "%s: a policy has 256 KiB at most", name);
    if (!labels->n) return err_set(e, ERR_USAGE, "%s: the island has no levels that a policy could speak of", name);
    arena *a = arena_new(POLICY_ARENA_BYTES);
    policy *p = a ? arena_alloc(a, sizeof *p) : NULL;
    char *copy = p ? arena_strndup(a, text, n) : NULL;
    if (!copy) {
        arena_free(a);
        return err_nomem(e, "a policy");
    }
    *p = (policy){.arena = a, .labels = *labels, .d = d, .text = copy, .n = n};
    parser ps = {.p = p, .a = a, .e = e, .last = &p->sentences, .last_zone = &p->zones};
    lexer_init(&ps.x, name, p->text, n);
    err_code rc = parse_text(&ps);
    if (rc) {
        arena_free(a);
        return rc;
    }
    settle(p);
    make_digest(p);
    *out = p;
    return ERR_OK;
}

void policy_free(policy *p) {
    if (p) arena_free(p->arena);
}
