/* Internal to the files that read policies: the parser's state, and the rules that several files use. */
#ifndef POLDER_DATA_POLICY_PARSER_H
#define POLDER_DATA_POLICY_PARSER_H

#include "data/policy_internal.h"

enum { WORDS_MAX = 320 };

/* What may stand at a place of the text: shown in this order. `near`: words that count for "did you mean" only. */
typedef struct choices {
    const char *shown[24];
    size_t n_shown;
    const char *near[WORDS_MAX];
    size_t n_near;
} choices;

typedef struct parser {
    lexer x;
    token t; /* the next one */
    policy *p;
    arena *a;
    const char *prev; /* where the last token that was taken ends */
    sentence **last;
    zone **last_zone;
    err *e;
} parser;

void may(choices *c, const char *word);
void may_show(choices *c, const char *what); /* no word that somebody can misspell */
void may_near(choices *c, const char *word); /* counts for "did you mean" only */
void may_levels(const parser *ps, choices *c);
void may_flags(choices *c);
void may_places(const parser *ps, choices *c);

err_code parser_nomem(parser *ps);
err_code parser_fail_at(const parser *ps, unsigned line, unsigned column, const char *what);
err_code parser_fail(const parser *ps, const choices *c);     /* the next token is none of these */
err_code parser_fail_value(parser *ps, const char *what);     /* "TOKEN what" */
err_code parser_take(parser *ps);                             /* to the next token */
err_code parser_need(parser *ps, const char *word);           /* over this word */
err_code parser_comma(parser *ps, bool *more, size_t *count); /* over the comma of a list, if one follows */
err_code parser_need_end(parser *ps, const char *also, const char *also2);
bool parser_at_end(const parser *ps);
char *parser_keep(parser *ps, const token *t);
bool token_is(const token *t, const char *word);
bool provider_name_ok(const token *t);

err_code parse_zone(parser *ps, sentence *s);
err_code parse_days(parser *ps, condition *c);
err_code parse_condition(parser *ps, condition *c);
err_code parse_what(parser *ps, uint8_t *levels, uint8_t *flags, bool anything_too, bool *anything);
err_code parse_things(parser *ps, bool redact, entity_set *things, uint8_t *flags, word_item **words);
err_code parse_places(parser *ps, place **list);
err_code resolve_places(parser *ps, place *list);

#endif
