/* template_parse: statements, and the table of variable names. Expressions are in template_expr.c. */
#include "engine/template/template.h"

/* ---- names ----------------------------------------------------------------------------------------------- */

static uint32_t name_hash(const char *s, size_t n) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 16777619u;
    return h ^ h >> 15;
}

/* The place of a name in the index: that of its atom, or the empty one where it would go. */
static uint32_t atom_slot(const chat_template *t, const char *name, size_t n) {
    uint32_t mask = t->atom_index_cap - 1, i = name_hash(name, n) & mask;
    for (; t->atom_index[i]; i = (i + 1) & mask) {
        tstr have = t->atoms[t->atom_index[i] - 1].name;
        if (have.n == n && memcmp(have.p, name, n) == 0) break;
    }
    return i;
}

uint32_t tpl_atom_find(const chat_template *t, const char *name, size_t n) {
    if (!t->atom_index_cap) return UINT32_MAX;
    uint32_t at = t->atom_index[atom_slot(t, name, n)];
    return at ? at - 1 : UINT32_MAX;
}

static tpl_global global_named(tstr name) {
    static const struct {
        const char *name;
        tpl_global g;
    } table[] = {{"raise_exception", G_RAISE},
                 {"strftime_now", G_STRFTIME},
                 {"range", G_RANGE},
                 {"namespace", G_NAMESPACE},
                 {"dict", G_DICT},
                 {"joiner", G_JOINER},
                 {"cycler", G_CYCLER}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (tstr_is(name, table[i].name)) return table[i].g;
    return G_NONE;
}

/* Room for one more atom, at most half of the index used. */
static bool atoms_grow(parser *p) {
    chat_template *t = p->tpl;
    uint32_t cap = t->atom_index_cap ? t->atom_index_cap * 2 : 128;
    uint32_t *index = tpl_parser_alloc(p, cap * sizeof *index);
    tpl_atom *atoms = tpl_parser_alloc(p, cap / 2 * sizeof *atoms);
    if (!index || !atoms) return false;
    if (t->n_atoms) memcpy(atoms, t->atoms, t->n_atoms * sizeof *atoms);
    t->atom_index = index;
    t->atoms = atoms;
    t->atom_index_cap = cap;
    for (uint32_t i = 0; i < t->n_atoms; i++) index[atom_slot(t, atoms[i].name.p, atoms[i].name.n)] = i + 1;
    return true;
}

uint32_t tpl_atom_intern(parser *p, tstr name) {
    chat_template *t = p->tpl;
    uint32_t have = tpl_atom_find(t, name.p, name.n);
    if (have != UINT32_MAX) return have;
    if (t->n_atoms + 1 > t->atom_index_cap / 2 && !atoms_grow(p)) return UINT32_MAX;
    t->atoms[t->n_atoms] = (tpl_atom){name, global_named(name)};
    t->atom_index[atom_slot(t, name.p, name.n)] = t->n_atoms + 1;
    return t->n_atoms++;
}

/* ---- blocks ---------------------------------------------------------------------------------------------- */

static node *parse_statement(parser *p);

static bool is_one_of(const token *t, const char *const *words) {
    for (; *words; words++)
        if (tpl_is_word(t, *words)) return true;
    return false;
}

static node *parse_text(parser *p) {
    node *n = tpl_node(p, N_TEXT, p->t);
    if (n) n->value = tv_strn(p->t->u.s, p->t->len);
    p->t++;
    return n;
}

static node *parse_output(parser *p) {
    node *n = tpl_node(p, N_OUTPUT, p->t++);
    if (!n) return NULL;
    n->a = tpl_parse_tuple(p, true, NULL);
    if (!n->a) return NULL;
    if (p->t->type != TK_VAR_END) return tpl_parser_unexpected(p, "}}");
    p->t++;
    return n;
}

static bool expect_block_end(parser *p) {
    if (p->t->type != TK_BLOCK_END) {
        tpl_parser_unexpected(p, "%}");
        return false;
    }
    p->t++;
    return true;
}

/* Statements up to a tag whose word is in `ends` (NULL: to the end of the source). p->t is then at that word. */
static node *parse_block(parser *p, const token *opened, const char *const *ends) {
    node *n = tpl_node(p, N_BLOCK, p->t);
    uint32_t cap = 0;
    if (!n) return NULL;
    if (++p->nest > TPL_NEST_MAX)
        return tpl_parser_fail(p, ERR_UNSUPPORTED, p->t, "more than %d blocks inside each other are not supported",
                               TPL_NEST_MAX);
    while (p->t->type != TK_EOF) {
        node *item;
        if (p->t->type == TK_DATA) {
            item = parse_text(p);
        } else if (p->t->type == TK_VAR_BEGIN) {
            item = parse_output(p);
        } else {
            p->t++;
            if (ends && is_one_of(p->t, ends)) {
                p->nest--;
                return n;
            }
            item = parse_statement(p);
            if (item && !expect_block_end(p)) return NULL;
        }
        if (!item || !tpl_list_add(p, n, &cap, item)) return NULL;
    }
    p->nest--;
    if (!ends) return n;
    return tpl_parser_fail(p, ERR_INVALID, opened, "{%% %.*s %%} has no {%% %s %%}",
                           opened->len > 40 ? 40 : (int)opened->len, opened->u.s, ends[0]);
}

/* The body of a statement that ends with one word: from the end of its tag to after that word. */
static node *parse_body(parser *p, const token *opened, const char *end) {
    const char *const ends[] = {end, NULL};
    if (!expect_block_end(p)) return NULL;
    node *n = parse_block(p, opened, ends);
    if (n) p->t++;
    return n;
}

/* ---- statements ------------------------------------------------------------------------------------------ */

static node *parse_if(parser *p) {
    static const char *const ends[] = {"endif", "elif", "else", NULL}, *const last[] = {"endif", NULL};
    const token *opened = p->t++;
    node *n = tpl_node(p, N_IF, opened);
    uint32_t cap = 0;
    for (;;) {
        node *cond = n ? tpl_parse_tuple(p, false, NULL) : NULL;
        if (!cond || !expect_block_end(p)) return NULL;
        node *body = parse_block(p, opened, ends);
        if (!body || !tpl_list_add(p, n, &cap, cond) || !tpl_list_add(p, n, &cap, body)) return NULL;
        const token *word = p->t++;
        if (tpl_is_word(word, "endif")) return n;
        if (tpl_is_word(word, "elif")) continue;
        if (!expect_block_end(p) || !(n->b = parse_block(p, opened, last))) return NULL;
        p->t++;
        return n;
    }
}

static node *parse_for(parser *p) {
    static const char *const ends[] = {"endfor", "else", NULL}, *const last[] = {"endfor", NULL};
    const token *opened = p->t++;
    node *n = tpl_node(p, N_FOR, opened), *cond = NULL, *otherwise = NULL;
    uint32_t cap = 0;
    if (!n || !(n->a = tpl_parse_target(p, "in", false))) return NULL;
    if (!tpl_is_word(p->t, "in")) return tpl_parser_unexpected(p, "'in'");
    p->t++;
    if (!(n->b = tpl_parse_tuple(p, false, "recursive"))) return NULL;
    if (tpl_is_word(p->t, "if")) {
        p->t++;
        if (!(cond = tpl_parse_expression(p))) return NULL;
    }
    if (tpl_is_word(p->t, "recursive")) {
        n->flag = true;
        p->t++;
    }
    if (!expect_block_end(p)) return NULL;
    p->loops++;
    node *body = parse_block(p, opened, ends);
    p->loops--;
    if (!body) return NULL;
    if (tpl_is_word(p->t, "else")) {
        p->t++;
        if (!expect_block_end(p) || !(otherwise = parse_block(p, opened, last))) return NULL;
    }
    p->t++;
    return tpl_list_add(p, n, &cap, body) && tpl_list_add(p, n, &cap, otherwise) && tpl_list_add(p, n, &cap, cond)
               ? n
               : NULL;
}

static node *parse_set(parser *p) {
    const token *opened = p->t++;
    node *target = tpl_parse_target(p, NULL, true);
    if (!target) return NULL;
    bool simple = tpl_accept_op(p, '=');
    node *n = tpl_node(p, simple ? N_SET : N_SET_BLOCK, opened);
    if (!n) return NULL;
    n->a = target;
    if (simple) return (n->b = tpl_parse_tuple(p, true, NULL)) ? n : NULL;
    if (target->kind == N_TUPLE) return tpl_parser_unexpected(p, "=");
    if (tpl_is_op(p, '|') && !(n->c = tpl_parse_filters(p, NULL, false))) return NULL;
    return (n->b = parse_body(p, opened, "endset")) ? n : NULL;
}

/* (a, b=1) of a macro or call block. */
static bool parse_params(parser *p, node_params *out) {
    uint32_t atoms[TPL_PARAMS_MAX], n = 0;
    tstr names[TPL_PARAMS_MAX];
    node *defaults[TPL_PARAMS_MAX];
    if (!tpl_expect_op(p, '(', "(")) return false;
    while (!tpl_is_op(p, ')')) {
        if (n && !tpl_expect_op(p, ',', ", or )")) return false;
        if (tpl_is_op(p, ')')) break;
        if (p->t->type != TK_NAME) return tpl_parser_unexpected(p, "the name of a parameter"), false;
        if (n == TPL_PARAMS_MAX)
            return tpl_parser_fail(p, ERR_UNSUPPORTED, p->t, "more than %d parameters", TPL_PARAMS_MAX), false;
        const token *at = p->t++;
        names[n] = (tstr){at->u.s, at->len};
        defaults[n] = NULL;
        if ((atoms[n] = tpl_atom_intern(p, names[n])) == UINT32_MAX) return false;
        if (tpl_accept_op(p, '=')) {
            if (!(defaults[n] = tpl_parse_expression(p))) return false;
        } else if (n && defaults[n - 1]) {
            return tpl_parser_fail(p, ERR_INVALID, at, "a parameter without a default follows one with a default"),
                   false;
        }
        n++;
    }
    p->t++;
    out->n = n;
    out->atoms = tpl_parser_alloc(p, (n + 1) * sizeof *atoms);
    out->names = tpl_parser_alloc(p, (n + 1) * sizeof *names);
    out->defaults = tpl_parser_alloc(p, (n + 1) * sizeof(node *));
    if (!out->atoms || !out->names || !out->defaults) return false;
    if (n) memcpy(out->atoms, atoms, n * sizeof *atoms);
    if (n) memcpy(out->names, names, n * sizeof *names);
    if (n) memcpy(out->defaults, defaults, n * sizeof(node *));
    return true;
}

/* The body of a macro or call block. It is a function of its own: no break out of it. */
static bool parse_macro_body(parser *p, node *n, const token *opened, const char *end) {
    node_params *outer = p->in_macro;
    int loops = p->loops;
    p->in_macro = n->params;
    p->loops = 0;
    n->b = parse_body(p, opened, end);
    p->in_macro = outer;
    p->loops = loops;
    return n->b != NULL;
}

static node *parse_macro(parser *p) {
    const token *opened = p->t++;
    node *n = tpl_node(p, N_MACRO, opened);
    if (!n) return NULL;
    if (p->t->type != TK_NAME) return tpl_parser_unexpected(p, "the name of the macro");
    n->name = (tstr){p->t->u.s, p->t->len};
    if ((n->atom = tpl_atom_intern(p, n->name)) == UINT32_MAX) return NULL;
    p->t++;
    if (!(n->params = tpl_parser_alloc(p, sizeof *n->params)) || !parse_params(p, n->params)) return NULL;
    return parse_macro_body(p, n, opened, "endmacro") ? n : NULL;
}

static node *parse_call_block(parser *p) {
    const token *opened = p->t++;
    node *n = tpl_node(p, N_CALL_BLOCK, opened);
    if (!n || !(n->params = tpl_parser_alloc(p, sizeof *n->params))) return NULL;
    n->name = (tstr){"caller", 6};
    if (tpl_is_op(p, '(') && !parse_params(p, n->params)) return NULL;
    if ((n->atom = tpl_atom_intern(p, n->name)) == UINT32_MAX) return NULL;
    const token *at = p->t;
    if (!(n->a = tpl_parse_expression(p))) return NULL;
    if (n->a->kind != N_CALL) return tpl_parser_fail(p, ERR_INVALID, at, "{%% call %%} needs a call, like name(...)");
    return parse_macro_body(p, n, opened, "endcall") ? n : NULL;
}

static node *parse_filter_block(parser *p) {
    const token *opened = p->t++;
    node *n = tpl_node(p, N_FILTER_BLOCK, opened);
    if (!n || !(n->c = tpl_parse_filters(p, NULL, true))) return NULL;
    return (n->b = parse_body(p, opened, "endfilter")) ? n : NULL;
}

static node *parse_with(parser *p) {
    const token *opened = p->t++;
    node *n = tpl_node(p, N_WITH, opened);
    uint32_t cap = 0;
    while (n && p->t->type != TK_BLOCK_END) {
        if (n->n && !tpl_expect_op(p, ',', ", or %}")) return NULL;
        node *target = tpl_parse_target(p, NULL, false);
        if (!target || !tpl_expect_op(p, '=', "=")) return NULL;
        node *val = tpl_parse_expression(p);
        if (!val || !tpl_list_add(p, n, &cap, target) || !tpl_list_add(p, n, &cap, val)) return NULL;
    }
    return n && (n->b = parse_body(p, opened, "endwith")) ? n : NULL;
}

/* {% generation %} marks what the model wrote, for training masks: here its content passes through. */
static node *parse_generation(parser *p) {
    const token *opened = p->t++;
    node *n = tpl_node(p, N_SCOPE, opened);
    return n && (n->b = parse_body(p, opened, "endgeneration")) ? n : NULL;
}

static node *parse_print(parser *p) {
    node *n = tpl_node(p, N_OUTPUT, p->t++);
    return n && (n->a = tpl_parse_expression(p)) ? n : NULL;
}

static node *parse_loop_control(parser *p) {
    const token *at = p->t++;
    bool is_break = tpl_is_word(at, "break");
    if (!p->loops)
        return tpl_parser_fail(p, ERR_INVALID, at, "{%% %s %%} stands outside a loop", is_break ? "break" : "continue");
    return tpl_node(p, is_break ? N_BREAK : N_CONTINUE, at);
}

static node *parse_statement(parser *p) {
    static const struct {
        const char *word;
        node *(*parse)(parser *);
    } table[] = {{"if", parse_if},
                 {"for", parse_for},
                 {"set", parse_set},
                 {"macro", parse_macro},
                 {"call", parse_call_block},
                 {"filter", parse_filter_block},
                 {"with", parse_with},
                 {"generation", parse_generation},
                 {"print", parse_print},
                 {"break", parse_loop_control},
                 {"continue", parse_loop_control}};
    if (p->t->type != TK_NAME) return tpl_parser_unexpected(p, "the name of a statement");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (tpl_is_word(p->t, table[i].word)) return table[i].parse(p);
    int n = p->t->len > 60 ? 60 : (int)p->t->len;
    if ((p->t->len > 3 && memcmp(p->t->u.s, "end", 3) == 0) || tpl_is_word(p->t, "else") || tpl_is_word(p->t, "elif"))
        return tpl_parser_fail(p, ERR_INVALID, p->t, "{%% %.*s %%} ends nothing that is open here", n, p->t->u.s);
    return tpl_parser_fail(p, ERR_UNSUPPORTED, p->t, "the statement '%.*s' is not supported", n, p->t->u.s);
}

err_code tpl_parse(chat_template *t, const token *tokens, err *e) {
    err local;
    if (!e) e = &local; /* its code is read below */
    parser p = {.t = tokens, .tpl = t, .e = e};
    t->root = parse_block(&p, tokens, NULL);
    if (p.failed) return e->code;
    return t->root ? ERR_OK : err_nomem(e, "a compiled chat template");
}
