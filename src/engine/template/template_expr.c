/* template_expr: expressions, by recursive descent in the order of Jinja 2's own parser, loosest first:
 *
 *   a if c else b | or | and | not | == != < <= > >= in, not in (chained) | + - | ~ | * / // % | ** | unary - +
 *   | literals, names, (...), [...], {...} | .name [item] (call) | filters and `is` tests
 *
 * Note that ~ binds tighter than +, and that filters after a unary minus apply to the whole of -x. */
#include "engine/template/template.h"

void *tpl_parser_fail(parser *p, err_code code, const token *at, const char *fmt, ...) {
    if (p->failed) return NULL;
    p->failed = true;
    char msg[320];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    tpl_error_at(p->e, code, at->line, at->col, "%s", msg);
    return NULL;
}

/* What a token looks like, for errors. */
static const char *token_text(const token *t, char out[64]) {
    static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};
    switch ((tok_type)t->type) {
    case TK_EOF: return "the end of the template";
    case TK_DATA: return "text";
    case TK_BLOCK_BEGIN: return "{%";
    case TK_BLOCK_END: return "%}";
    case TK_VAR_BEGIN: return "{{";
    case TK_VAR_END: return "}}";
    case TK_STRING: return "a string";
    case TK_INT:
    case TK_FLOAT: return "a number";
    case TK_NAME: snprintf(out, 64, "'%.*s'", t->len > 40 ? 40 : (int)t->len, t->u.s); return out;
    case TK_OP: break;
    }
    if (t->op >= 128) return two[t->op - 128];
    snprintf(out, 64, "%c", t->op);
    return out;
}

void *tpl_parser_unexpected(parser *p, const char *wanted) {
    char text[64];
    return tpl_parser_fail(p, ERR_INVALID, p->t, "%s is needed here, not %s", wanted, token_text(p->t, text));
}

void *tpl_parser_alloc(parser *p, size_t n) {
    void *mem = arena_alloc(p->tpl->mem, n);
    if (mem || p->failed) return mem;
    p->failed = true;
    if (arena_used(p->tpl->mem) + n > TPL_AST_BYTES_MAX) {
        tpl_error_at(p->e, ERR_TOO_LARGE, p->t->line, p->t->col, "the template needs more than %zu MiB when compiled",
                     TPL_AST_BYTES_MAX >> 20);
    } else {
        err_nomem(p->e, "a compiled chat template");
    }
    return NULL;
}

node *tpl_node(parser *p, node_kind kind, const token *at) {
    node *n = tpl_parser_alloc(p, sizeof *n);
    if (!n) return NULL;
    n->kind = (uint8_t)kind;
    n->line = at->line;
    n->col = at->col;
    return n;
}

bool tpl_list_add(parser *p, node *owner, uint32_t *cap, node *item) {
    if (owner->n == *cap) {
        uint32_t bigger = *cap ? *cap * 2 : 4;
        node **list = tpl_parser_alloc(p, bigger * sizeof *list);
        if (!list) return false;
        if (owner->n) memcpy(list, owner->list, owner->n * sizeof *list);
        owner->list = list;
        *cap = bigger;
    }
    owner->list[owner->n++] = item;
    return true;
}

bool tpl_is_op(const parser *p, int op) {
    return p->t->type == TK_OP && p->t->op == op;
}
bool tpl_is_word(const token *t, const char *word) {
    return t->type == TK_NAME && t->len == strlen(word) && memcmp(t->u.s, word, t->len) == 0;
}
bool tpl_accept_op(parser *p, int op) {
    if (!tpl_is_op(p, op)) return false;
    p->t++;
    return true;
}
bool tpl_expect_op(parser *p, int op, const char *spelled) {
    if (tpl_accept_op(p, op)) return true;
    tpl_parser_unexpected(p, spelled);
    return false;
}
static bool accept_word(parser *p, const char *word) {
    if (!tpl_is_word(p->t, word)) return false;
    p->t++;
    return true;
}

/* Guards every rule that can contain itself. */
static bool enter(parser *p) {
    if (++p->nest <= TPL_NEST_MAX) return true;
    tpl_parser_fail(p, ERR_UNSUPPORTED, p->t, "more than %d levels inside each other are not supported", TPL_NEST_MAX);
    return false;
}

static node *parse_unary(parser *p, bool with_filter);

/* ---- literals and names ---------------------------------------------------------------------------------- */

static node *const_node(parser *p, const token *at, tv v) {
    node *n = tpl_node(p, N_CONST, at);
    if (n) n->value = v;
    return n;
}

static node *parse_string(parser *p) {
    const token *at = p->t, *t = at;
    size_t total = 0;
    for (; t->type == TK_STRING; t++) total += t->len;
    if (t == at + 1) {
        p->t = t;
        return const_node(p, at, tv_strn(at->u.s, at->len));
    }
    char *s = tpl_parser_alloc(p, total + 1);
    if (!s) return NULL;
    size_t n = 0;
    for (; p->t < t; p->t++) {
        memcpy(s + n, p->t->u.s, p->t->len);
        n += p->t->len;
    }
    return const_node(p, at, tv_strn(s, n));
}

static node *parse_name(parser *p) {
    const token *at = p->t++;
    if (tpl_is_word(at, "true") || tpl_is_word(at, "True")) return const_node(p, at, tv_bool(true));
    if (tpl_is_word(at, "false") || tpl_is_word(at, "False")) return const_node(p, at, tv_bool(false));
    if (tpl_is_word(at, "none") || tpl_is_word(at, "None")) return const_node(p, at, tv_of(TV_NONE));
    if (p->in_macro) {
        if (tpl_is_word(at, "varargs")) p->in_macro->takes_varargs = true;
        if (tpl_is_word(at, "kwargs")) p->in_macro->takes_kwargs = true;
        if (tpl_is_word(at, "caller")) p->in_macro->takes_caller = true;
    }
    node *n = tpl_node(p, N_NAME, at);
    if (!n) return NULL;
    n->name = (tstr){at->u.s, at->len};
    n->atom = tpl_atom_intern(p, n->name);
    return n->atom == UINT32_MAX ? NULL : n;
}

static node *parse_list(parser *p) {
    node *n = tpl_node(p, N_LIST, p->t++);
    uint32_t cap = 0;
    while (n && !tpl_is_op(p, ']')) {
        if (n->n && !tpl_expect_op(p, ',', ", or ]")) return NULL;
        if (tpl_is_op(p, ']')) break;
        node *item = tpl_parse_expression(p);
        if (!item || !tpl_list_add(p, n, &cap, item)) return NULL;
    }
    p->t++;
    return n;
}

static node *parse_dict(parser *p) {
    node *n = tpl_node(p, N_DICT, p->t++);
    uint32_t cap = 0;
    while (n && !tpl_is_op(p, '}')) {
        if (n->n && !tpl_expect_op(p, ',', ", or }")) return NULL;
        if (tpl_is_op(p, '}')) break;
        node *key = tpl_parse_expression(p);
        if (!key || !tpl_expect_op(p, ':', ":")) return NULL;
        node *val = tpl_parse_expression(p);
        if (!val || !tpl_list_add(p, n, &cap, key) || !tpl_list_add(p, n, &cap, val)) return NULL;
    }
    p->t++;
    return n;
}

static node *parse_paren(parser *p) {
    const token *at = p->t++;
    if (tpl_accept_op(p, ')')) return tpl_node(p, N_TUPLE, at);
    node *n = tpl_parse_tuple(p, true, NULL);
    return n && tpl_expect_op(p, ')', ")") ? n : NULL;
}

static node *parse_primary(parser *p) {
    switch (p->t->type) {
    case TK_NAME: return parse_name(p);
    case TK_STRING: return parse_string(p);
    case TK_INT: p->t++; return const_node(p, p->t - 1, tv_int(p->t[-1].u.i));
    case TK_FLOAT: p->t++; return const_node(p, p->t - 1, tv_float(p->t[-1].u.f));
    default: break;
    }
    if (tpl_is_op(p, '(')) return parse_paren(p);
    if (tpl_is_op(p, '[')) return parse_list(p);
    if (tpl_is_op(p, '{')) return parse_dict(p);
    return tpl_parser_unexpected(p, "an expression");
}

/* ---- calls and subscripts -------------------------------------------------------------------------------- */

/* One argument between the parentheses into `a`, whose arrays have room. */
static bool parse_arg(parser *p, node_args *a) {
    const token *at = p->t;
    if (tpl_accept_op(p, OPC_POW)) {
        if (a->star2) return tpl_parser_fail(p, ERR_INVALID, at, "a call takes one ** argument"), false;
        return (a->star2 = tpl_parse_expression(p)) != NULL;
    }
    if (tpl_accept_op(p, '*')) {
        if (a->star || a->star2)
            return tpl_parser_fail(p, ERR_INVALID, at, "a call takes one * argument, before **"), false;
        return (a->star = tpl_parse_expression(p)) != NULL;
    }
    if (a->n_pos + a->n_kw == TPL_PARAMS_MAX)
        return tpl_parser_fail(p, ERR_UNSUPPORTED, at, "more than %d arguments are not supported", TPL_PARAMS_MAX),
               false;
    if (at->type == TK_NAME && at[1].type == TK_OP && at[1].op == '=') {
        if (a->star2) return tpl_parser_fail(p, ERR_INVALID, at, "a keyword argument follows **"), false;
        p->t += 2;
        a->kw_names[a->n_kw] = (tstr){at->u.s, at->len};
        return (a->kw[a->n_kw++] = tpl_parse_expression(p)) != NULL;
    }
    if (a->n_kw || a->star || a->star2)
        return tpl_parser_fail(p, ERR_INVALID, at, "a positional argument follows a keyword, * or ** argument"), false;
    return (a->pos[a->n_pos++] = tpl_parse_expression(p)) != NULL;
}

/* (a, b, key=c, *d, **e); p->t at the opening parenthesis. */
static node_args *parse_args(parser *p) {
    node *pos[TPL_PARAMS_MAX], *kw[TPL_PARAMS_MAX];
    tstr names[TPL_PARAMS_MAX];
    node_args a = {.pos = pos, .kw = kw, .kw_names = names};
    p->t++;
    for (bool first = true; !tpl_is_op(p, ')'); first = false) {
        if (!first && !tpl_expect_op(p, ',', ", or )")) return NULL;
        if (tpl_is_op(p, ')')) break;
        if (!parse_arg(p, &a)) return NULL;
    }
    p->t++;
    node_args *out = tpl_parser_alloc(p, sizeof *out);
    node **nodes = tpl_parser_alloc(p, (a.n_pos + a.n_kw + 1) * sizeof *nodes);
    tstr *kept = tpl_parser_alloc(p, (a.n_kw + 1) * sizeof *kept);
    if (!out || !nodes || !kept) return NULL;
    *out = a;
    out->pos = nodes;
    out->kw = nodes + a.n_pos;
    out->kw_names = kept;
    if (a.n_pos) memcpy(out->pos, pos, a.n_pos * sizeof *pos);
    if (a.n_kw) memcpy(out->kw, kw, a.n_kw * sizeof *kw);
    if (a.n_kw) memcpy(kept, names, a.n_kw * sizeof *names);
    return out;
}

static node *parse_call(parser *p, node *callee) {
    node *n = tpl_node(p, N_CALL, p->t);
    if (!n) return NULL;
    n->a = callee;
    n->args = parse_args(p);
    return n->args ? n : NULL;
}

/* [i], [a:b:c]; p->t after the bracket. */
static node *parse_item(parser *p, node *of, const token *at) {
    node *part[3] = {0};
    bool slice = false;
    int i = 0;
    while (!tpl_is_op(p, ']')) {
        if (tpl_accept_op(p, ':')) {
            slice = true;
            if (++i > 2) return tpl_parser_fail(p, ERR_INVALID, p->t - 1, "a slice has at most start, stop and step");
            continue;
        }
        if (part[i]) return tpl_parser_unexpected(p, "]");
        if (!(part[i] = tpl_parse_expression(p))) return NULL;
    }
    if (!slice && !part[0]) return tpl_parser_unexpected(p, "an index");
    p->t++;
    node *n = tpl_node(p, slice ? N_SLICE : N_ITEM, at);
    if (!n) return NULL;
    n->a = of;
    n->b = part[0];
    if (!slice) return n;
    uint32_t cap = 0;
    for (i = 0; i < 3; i++)
        if (!tpl_list_add(p, n, &cap, part[i])) return NULL;
    return n;
}

static node *parse_attr(parser *p, node *of, const token *at) {
    if (p->t->type == TK_INT) { /* x.0 is x[0] */
        node *n = tpl_node(p, N_ITEM, at);
        if (!n) return NULL;
        n->a = of;
        n->b = const_node(p, p->t, tv_int(p->t->u.i));
        p->t++;
        return n->b ? n : NULL;
    }
    if (p->t->type != TK_NAME) return tpl_parser_unexpected(p, "a name after the dot");
    node *n = tpl_node(p, N_ATTR, at);
    if (!n) return NULL;
    n->a = of;
    n->name = (tstr){p->t->u.s, p->t->len};
    n->on_string = tpl_method_find(TV_STRING, n->name);
    n->on_dict = tpl_method_find(TV_DICT, n->name);
    n->on_list = tpl_method_find(TV_LIST, n->name);
    p->t++;
    return n;
}

static node *parse_postfix(parser *p, node *n) {
    while (n) {
        const token *at = p->t;
        if (tpl_is_op(p, '('))
            n = parse_call(p, n);
        else if (tpl_accept_op(p, '.'))
            n = parse_attr(p, n, at);
        else if (tpl_accept_op(p, '['))
            n = parse_item(p, n, at);
        else
            break;
    }
    return n;
}

/* ---- filters and tests ----------------------------------------------------------------------------------- */

node *tpl_parse_filters(parser *p, node *in, bool first_without_pipe) {
    while (first_without_pipe || tpl_accept_op(p, '|')) {
        first_without_pipe = false;
        if (p->t->type != TK_NAME) return tpl_parser_unexpected(p, "the name of a filter");
        node *n = tpl_node(p, N_FILTER, p->t);
        if (!n) return NULL;
        n->a = in;
        n->name = (tstr){p->t->u.s, p->t->len};
        n->filter = tpl_filter_find(n->name);
        if (!n->filter)
            return tpl_parser_fail(p, ERR_UNSUPPORTED, p->t, "the filter '%.*s' is not supported",
                                   n->name.n > 60 ? 60 : (int)n->name.n, n->name.p);
        p->t++;
        if (tpl_is_op(p, '(') && !(n->args = parse_args(p))) return NULL;
        in = n;
    }
    return in;
}

/* A test's single argument may stand without parentheses: x is divisibleby 3. */
static bool test_arg_follows(const parser *p) {
    if (p->t->type == TK_NAME)
        return !tpl_is_word(p->t, "else") && !tpl_is_word(p->t, "or") && !tpl_is_word(p->t, "and");
    return p->t->type == TK_STRING || p->t->type == TK_INT || p->t->type == TK_FLOAT || tpl_is_op(p, '[') ||
           tpl_is_op(p, '{');
}

static node *parse_test(parser *p, node *in) {
    node *n = tpl_node(p, N_TEST, p->t++);
    if (!n) return NULL;
    n->a = in;
    n->flag = accept_word(p, "not");
    if (p->t->type != TK_NAME) return tpl_parser_unexpected(p, "the name of a test");
    n->name = (tstr){p->t->u.s, p->t->len};
    n->test = tpl_test_find(n->name);
    if (!n->test)
        return tpl_parser_fail(p, ERR_UNSUPPORTED, p->t, "the test '%.*s' is not supported",
                               n->name.n > 60 ? 60 : (int)n->name.n, n->name.p);
    p->t++;
    if (tpl_is_op(p, '(')) return (n->args = parse_args(p)) ? n : NULL;
    if (!n->test->spec[0] || !test_arg_follows(p)) return n;
    if (tpl_is_word(p->t, "is")) return tpl_parser_fail(p, ERR_INVALID, p->t, "tests with 'is' cannot be chained");
    node *arg = parse_postfix(p, parse_primary(p));
    node_args *a = tpl_parser_alloc(p, sizeof *a);
    node **pos = tpl_parser_alloc(p, sizeof *pos);
    if (!arg || !a || !pos) return NULL;
    pos[0] = arg;
    *a = (node_args){.pos = pos, .n_pos = 1};
    n->args = a;
    return n;
}

static node *parse_filters_and_tests(parser *p, node *n) {
    while (n) {
        if (tpl_is_op(p, '|'))
            n = tpl_parse_filters(p, n, false);
        else if (tpl_is_word(p->t, "is"))
            n = parse_test(p, n);
        else if (tpl_is_op(p, '('))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

/* ---- operators ------------------------------------------------------------------------------------------- */

static node *two(parser *p, node_kind kind, tpl_op op, const token *at, node *a, node *b) {
    if (!a || !b) return NULL;
    node *n = tpl_node(p, kind, at);
    if (!n) return NULL;
    n->op = (uint8_t)op;
    n->a = a;
    n->b = b;
    return n;
}

static node *parse_unary(parser *p, bool with_filter) {
    if (!enter(p)) return NULL;
    node *n;
    if (tpl_is_op(p, '-') || tpl_is_op(p, '+')) {
        const token *at = p->t++;
        n = tpl_node(p, N_UNARY, at);
        if (n) {
            n->op = at->op == '-' ? OP_NEG : OP_POS;
            n->a = parse_unary(p, false);
            if (!n->a) n = NULL;
        }
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    if (with_filter) n = parse_filters_and_tests(p, n);
    p->nest--;
    return n;
}

static node *parse_pow(parser *p) {
    node *n = parse_unary(p, true);
    while (n && tpl_is_op(p, OPC_POW)) {
        const token *at = p->t++;
        n = two(p, N_BINARY, OP_POW, at, n, parse_unary(p, true));
    }
    return n;
}

static node *parse_product(parser *p) {
    node *n = parse_pow(p);
    while (n && p->t->type == TK_OP) {
        const token *at = p->t;
        tpl_op op = at->op == '*' ? OP_MUL : at->op == '/' ? OP_DIV : at->op == '%' ? OP_MOD : OP_FLOORDIV;
        if (op == OP_FLOORDIV && at->op != OPC_FLOORDIV) break;
        p->t++;
        n = two(p, N_BINARY, op, at, n, parse_pow(p));
    }
    return n;
}

static node *parse_concat(parser *p) {
    node *first = parse_product(p);
    if (!first || !tpl_is_op(p, '~')) return first;
    node *n = tpl_node(p, N_CONCAT, p->t);
    uint32_t cap = 0;
    if (!n || !tpl_list_add(p, n, &cap, first)) return NULL;
    while (tpl_accept_op(p, '~')) {
        node *next = parse_product(p);
        if (!next || !tpl_list_add(p, n, &cap, next)) return NULL;
    }
    return n;
}

static node *parse_sum(parser *p) {
    node *n = parse_concat(p);
    while (n && (tpl_is_op(p, '+') || tpl_is_op(p, '-'))) {
        const token *at = p->t++;
        n = two(p, N_BINARY, at->op == '+' ? OP_ADD : OP_SUB, at, n, parse_concat(p));
    }
    return n;
}

/* The comparison at p->t, or -1. Advances past it. */
static int accept_comparison(parser *p) {
    static const struct {
        int token;
        tpl_op op;
    } ops[] = {{OPC_EQ, OP_EQ}, {OPC_NE, OP_NE}, {'<', OP_LT}, {OPC_LE, OP_LE}, {'>', OP_GT}, {OPC_GE, OP_GE}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (tpl_accept_op(p, ops[i].token)) return ops[i].op;
    if (accept_word(p, "in")) return OP_IN;
    if (tpl_is_word(p->t, "not") && tpl_is_word(p->t + 1, "in")) {
        p->t += 2;
        return OP_NOT_IN;
    }
    return -1;
}

static node *parse_compare(parser *p) {
    node *first = parse_sum(p), *n = NULL;
    uint32_t cap = 0;
    uint8_t ops[TPL_PARAMS_MAX];
    for (;;) {
        const token *at = p->t;
        int op = first ? accept_comparison(p) : -1;
        if (op < 0) break;
        if (!n) {
            if (!(n = tpl_node(p, N_COMPARE, at))) return NULL;
            n->a = first;
        }
        if (n->n == TPL_PARAMS_MAX)
            return tpl_parser_fail(p, ERR_UNSUPPORTED, at, "more than %d chained comparisons", TPL_PARAMS_MAX);
        ops[n->n] = (uint8_t)op;
        node *next = parse_sum(p);
        if (!next || !tpl_list_add(p, n, &cap, next)) return NULL;
    }
    if (!n) return first;
    if (!(n->ops = tpl_parser_alloc(p, n->n))) return NULL;
    memcpy(n->ops, ops, n->n);
    return n;
}

static node *parse_not(parser *p) {
    if (!tpl_is_word(p->t, "not")) return parse_compare(p);
    if (!enter(p)) return NULL;
    node *n = tpl_node(p, N_UNARY, p->t++);
    if (n) {
        n->op = OP_NOT;
        n->a = parse_not(p);
    }
    p->nest--;
    return n && n->a ? n : NULL;
}

static node *parse_and(parser *p) {
    node *n = parse_not(p);
    while (n && tpl_is_word(p->t, "and")) {
        const token *at = p->t++;
        n = two(p, N_AND, 0, at, n, parse_not(p));
    }
    return n;
}

static node *parse_or(parser *p) {
    node *n = parse_and(p);
    while (n && tpl_is_word(p->t, "or")) {
        const token *at = p->t++;
        n = two(p, N_OR, 0, at, n, parse_and(p));
    }
    return n;
}

node *tpl_parse_expression(parser *p) {
    if (!enter(p)) return NULL;
    node *n = parse_or(p);
    while (n && tpl_is_word(p->t, "if")) {
        node *cond = tpl_node(p, N_COND, p->t++);
        if (!cond) return NULL;
        cond->a = n;
        if (!(cond->b = parse_or(p))) return NULL;
        if (accept_word(p, "else") && !(cond->c = tpl_parse_expression(p))) return NULL;
        n = cond;
    }
    p->nest--;
    return n;
}

static bool tuple_ends(const parser *p, const char *end_word) {
    return p->t->type == TK_VAR_END || p->t->type == TK_BLOCK_END || tpl_is_op(p, ')') ||
           (end_word && tpl_is_word(p->t, end_word));
}

/* An expression, or several with commas between them: a tuple. */
node *tpl_parse_tuple(parser *p, bool with_cond, const char *end_word) {
    const token *at = p->t;
    node *first = with_cond ? tpl_parse_expression(p) : parse_or(p);
    if (!first || !tpl_is_op(p, ',')) return first;
    node *n = tpl_node(p, N_TUPLE, at);
    uint32_t cap = 0;
    if (!n || !tpl_list_add(p, n, &cap, first)) return NULL;
    while (tpl_accept_op(p, ',')) {
        if (tuple_ends(p, end_word)) break;
        node *next = with_cond ? tpl_parse_expression(p) : parse_or(p);
        if (!next || !tpl_list_add(p, n, &cap, next)) return NULL;
    }
    return n;
}

/* name | ns.attribute | target, target | (target, target) */
static node *parse_one_target(parser *p, bool with_namespace) {
    const token *at = p->t;
    if (tpl_accept_op(p, '(')) {
        if (!enter(p)) return NULL;
        node *n = tpl_parse_target(p, NULL, with_namespace);
        p->nest--;
        return n && tpl_expect_op(p, ')', ")") ? n : NULL;
    }
    if (at->type != TK_NAME) return tpl_parser_unexpected(p, "a variable to set");
    node *n = parse_name(p);
    if (!n) return NULL;
    if (n->kind != N_NAME) return tpl_parser_fail(p, ERR_INVALID, at, "a constant cannot be set");
    if (!with_namespace || !tpl_accept_op(p, '.')) return n;
    if (p->t->type != TK_NAME) return tpl_parser_unexpected(p, "a name after the dot");
    n->kind = N_NSREF;
    n->name = (tstr){p->t->u.s, p->t->len};
    p->t++;
    return n;
}

node *tpl_parse_target(parser *p, const char *end_word, bool with_namespace) {
    const token *at = p->t;
    node *first = parse_one_target(p, with_namespace);
    if (!first || !tpl_is_op(p, ',')) return first;
    node *n = tpl_node(p, N_TUPLE, at);
    uint32_t cap = 0;
    if (!n || !tpl_list_add(p, n, &cap, first)) return NULL;
    while (tpl_accept_op(p, ',')) {
        if (tuple_ends(p, end_word) || tpl_is_op(p, '=')) break;
        node *next = parse_one_target(p, with_namespace);
        if (!next || !tpl_list_add(p, n, &cap, next)) return NULL;
    }
    return n;
}
