/* Statements for policy_prove, with the words of policies. */
#include "data/policy_parser.h"

#include <string.h>

static err_code parse_statement(parser *ps, statement *st) {
    err_code rc = parse_what(ps, &st->levels, &st->flags, true, &st->anything);
    if (rc == ERR_OK) rc = parser_need(ps, "never");
    if (rc) return rc;
    if (!token_is(&ps->t, "leaves") && !token_is(&ps->t, "reaches")) {
        choices c = {0};
        may(&c, "leaves");
        may(&c, "reaches");
        return parser_fail(ps, &c);
    }
    st->kind = token_is(&ps->t, "leaves") ? SUBJECT_LEAVES : SUBJECT_REACHES;
    rc = parser_take(ps);
    if (rc == ERR_OK) rc = parse_places(ps, &st->places);
    if (rc == ERR_OK) rc = resolve_places(ps, st->places);
    if (rc) return rc;
    if (st->kind == SUBJECT_REACHES || !token_is(&ps->t, "without"))
        return parser_need_end(ps, st->kind == SUBJECT_LEAVES ? "without redact" : NULL, NULL);
    st->without = true;
    uint8_t flags = 0;
    word_item *words = NULL;
    rc = parser_take(ps);
    if (rc == ERR_OK) rc = parser_need(ps, "redact");
    if (rc == ERR_OK) rc = parse_things(ps, true, &st->things, &flags, &words);
    return rc ? rc : parser_need_end(ps, NULL, NULL);
}

err_code statement_parse(statement *out, const policy *p, arena *a, const char *text, err *e) {
    *out = (statement){0};
    policy view = *p; /* the parser writes to no policy here, but is not told so */
    parser ps = {.p = &view, .a = a, .e = e};
    size_t n = strlen(text);
    if (n > 4096) return err_set(e, ERR_USAGE, "statement: longer than 4096 bytes");
    lexer_init(&ps.x, "statement", text, n);
    err_code rc = parser_take(&ps);
    return rc ? rc : parse_statement(&ps, out);
}
