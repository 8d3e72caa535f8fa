/* template_eval: walks the AST: statements write text, expressions give values.
 *
 * Scopes: the template's own variables are an array by atom (rt.root). A for loop's round and its else, a macro call, a
 * block of with, filter, set or generation has a scope of its own on top; names are looked up outwards; {% set %}
 * writes to the innermost, so nothing set in a loop is seen after it (namespaces are there for that). if has no scope
 * of its own. */
#include "engine/template/template.h"

typedef enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE, FLOW_FAIL } flow;

static flow exec(rt *r, const node *n, scope *s);

/* ---- variables ------------------------------------------------------------------------------------------- */

static void lookup(rt *r, const scope *s, uint32_t atom, tv *out) {
    for (; s; s = s->up) {
        for (uint32_t i = s->n; i-- > 0;) {
            if (s->b[i].atom != atom) continue;
            *out = s->b[i].v;
            return;
        }
        r->steps += s->n / 4;
    }
    const tpl_atom *a = &r->t->atoms[atom];
    *out = r->root[atom];
    if (!tv_absent(*out)) return;
    *out = a->global ? (tv){.type = TV_GLOBAL, .u.i = a->global} : tv_undefined(TV_ABSENT, a->name.p, a->name.n);
}

static bool define(rt *r, scope *s, uint32_t atom, tv v) {
    if (!s) {
        r->root[atom] = v;
        return true;
    }
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->b[i].atom != atom) continue;
        s->b[i].v = v;
        return true;
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 4;
        binding *b = tpl_alloc(r, cap * sizeof *b);
        if (!b) return false;
        if (s->n) memcpy(b, s->b, s->n * sizeof *b);
        s->b = b;
        s->cap = cap;
    }
    s->b[s->n++] = (binding){atom, v};
    return tpl_charge(r, s->n / 4);
}

static scope *new_scope(rt *r, scope *up) {
    scope *s = tpl_alloc(r, sizeof *s);
    if (s) s->up = up;
    return s;
}

static bool assign(rt *r, const node *target, scope *s, tv v) {
    r->at = target;
    if (target->kind == N_NAME) return define(r, s, target->atom, v);
    if (target->kind == N_NSREF) {
        tv ns;
        lookup(r, s, target->atom, &ns);
        if (ns.type == TV_UNDEFINED) return tpl_fail_undefined(r, ns);
        if (ns.type != TV_NAMESPACE)
            return tpl_fail(r, ERR_INVALID, "attributes can be set on a namespace only, not on a value of type %s",
                            tv_type_name(ns));
        return tv_dict_set(r, ns.u.dict, tv_strn(target->name.p, target->name.n), v);
    }
    tv l;
    if (v.type == TV_UNDEFINED) return tpl_fail_undefined(r, v);
    if (!tv_to_list(r, v, &l)) return false;
    if (l.u.list->n != target->n)
        return tpl_fail(r, ERR_INVALID, "%u values cannot be unpacked into %u variables", l.u.list->n, target->n);
    for (uint32_t i = 0; i < target->n; i++)
        if (!assign(r, target->list[i], s, l.u.list->items[i])) return false;
    return true;
}

/* ---- calls ----------------------------------------------------------------------------------------------- */

static bool eval_star(rt *r, const node *n, scope *s, tv *out) {
    tv v;
    return tpl_eval(r, n, s, &v) && tv_to_list(r, v, out);
}

static bool eval_args(rt *r, const node_args *a, scope *s, targs *out) {
    *out = (targs){0};
    if (!a) return true;
    tv star = tv_of(TV_ABSENT), star2 = tv_of(TV_ABSENT);
    uint32_t more = 0, more_kw = 0;
    if (a->star) {
        if (!eval_star(r, a->star, s, &star)) return false;
        more = star.u.list->n;
    }
    if (a->star2) {
        if (!tpl_eval(r, a->star2, s, &star2)) return false;
        if (star2.type != TV_DICT) return tpl_fail(r, ERR_INVALID, "** needs a dict, not %s", tv_type_name(star2));
        more_kw = star2.u.dict->n;
    }
    if (more > 4 * TPL_PARAMS_MAX || more_kw > 4 * TPL_PARAMS_MAX)
        return tpl_fail(r, ERR_TOO_LARGE, "a call with more than %d arguments", 4 * TPL_PARAMS_MAX);
    out->pos = tpl_alloc(r, (a->n_pos + more + 1) * sizeof *out->pos);
    out->kw = tpl_alloc(r, (a->n_kw + more_kw + 1) * sizeof *out->kw);
    if (!out->pos || !out->kw) return false;
    for (uint32_t i = 0; i < a->n_pos; i++)
        if (!tpl_eval(r, a->pos[i], s, &out->pos[out->n_pos++])) return false;
    for (uint32_t i = 0; i < more; i++) out->pos[out->n_pos++] = star.u.list->items[i];
    for (uint32_t i = 0; i < a->n_kw; i++) {
        out->kw[out->n_kw].name = a->kw_names[i];
        if (!tpl_eval(r, a->kw[i], s, &out->kw[out->n_kw++].v)) return false;
    }
    for (uint32_t i = 0; i < more_kw; i++) {
        tv key = star2.u.dict->e[i].key;
        if (key.type != TV_STRING) return tpl_fail(r, ERR_INVALID, "the keys of a ** argument must be strings");
        out->kw[out->n_kw++] = (tkw){tv_tstr(key), star2.u.dict->e[i].val};
    }
    return true;
}

/* Text that `body` writes, as a string. */
static bool capture(rt *r, const node *body, scope *s, tv *out, flow *how) {
    buf b = {.max = TPL_STRING_MAX}, *outer = r->out;
    r->out = &b;
    *how = exec(r, body, s);
    r->out = outer;
    if (*how != FLOW_FAIL) return tv_take_buf(r, out, &b);
    buf_free(&b);
    return false;
}

/* Which parameter an argument's name means, or UINT32_MAX. */
static uint32_t param_named(const node_params *p, tstr name) {
    for (uint32_t i = 0; i < p->n; i++)
        if (p->names[i].n == name.n && memcmp(p->names[i].p, name.p, name.n) == 0) return i;
    return UINT32_MAX;
}

/* Binds a macro's caller, kwargs and varargs where its body uses them; refuses arguments that nothing takes. */
static bool bind_rest(rt *r, const tv_macro *m, scope *s, const targs *a, tv *given) {
    const node_params *p = m->def->params;
    tstr name = m->def->name;
    tv kwargs, varargs, caller = tv_undefined(TV_ABSENT, "caller", 6);
    if (!tv_dict_new(r, &kwargs)) return false;
    for (uint32_t i = 0; i < a->n_kw; i++) {
        tstr k = a->kw[i].name;
        uint32_t at = param_named(p, k);
        if (at != UINT32_MAX) {
            if (!tv_absent(given[at]))
                return tpl_fail(r, ERR_INVALID, "macro '%.*s' got '%.*s' twice", (int)name.n, name.p, (int)k.n, k.p);
            given[at] = a->kw[i].v;
        } else if (tstr_is(k, "caller") && p->takes_caller) {
            caller = a->kw[i].v;
        } else if (!p->takes_kwargs) {
            return tpl_fail(r, ERR_INVALID, "macro '%.*s' takes no argument '%.*s'", (int)name.n, name.p, (int)k.n,
                            k.p);
        } else if (!tv_dict_set(r, kwargs.u.dict, tv_strn(k.p, k.n), a->kw[i].v)) {
            return false;
        }
    }
    uint32_t more = a->n_pos > p->n ? a->n_pos - p->n : 0;
    if (more && !p->takes_varargs)
        return tpl_fail(r, ERR_INVALID, "macro '%.*s' takes %u arguments, not %u", (int)name.n, name.p, p->n, a->n_pos);
    if (!tv_list_new(r, &varargs, TV_TUPLE, more)) return false;
    for (uint32_t i = 0; i < more; i++) varargs.u.list->items[i] = a->pos[p->n + i];
    uint32_t atom;
    const struct {
        bool wanted;
        const char *name;
        tv v;
    } rest[] = {{p->takes_varargs, "varargs", varargs},
                {p->takes_kwargs, "kwargs", kwargs},
                {p->takes_caller, "caller", caller}};
    for (int i = 0; i < 3; i++) {
        atom = tpl_atom_find(r->t, rest[i].name, strlen(rest[i].name));
        if (rest[i].wanted && atom != UINT32_MAX && !define(r, s, atom, rest[i].v)) return false;
    }
    return true;
}

static bool call_macro(rt *r, tv *out, const tv_macro *m, const targs *a) {
    const node_params *p = m->def->params;
    scope *s = new_scope(r, m->env);
    tv *given = tpl_alloc(r, (p->n + 1) * sizeof *given);
    if (!s || !given) return false;
    for (uint32_t i = 0; i < p->n && i < a->n_pos; i++) given[i] = a->pos[i];
    if (!bind_rest(r, m, s, a, given)) return false;
    for (uint32_t i = 0; i < p->n; i++) {
        if (tv_absent(given[i])) {
            given[i] = tv_undefined(TV_ABSENT, p->names[i].p, p->names[i].n);
            if (p->defaults[i] && !tpl_eval(r, p->defaults[i], s, &given[i])) return false;
        }
        if (!define(r, s, p->atoms[i], given[i])) return false;
    }
    flow how;
    return capture(r, m->def->b, s, out, &how);
}

static flow run_loop(rt *r, const node *n, scope *s, tv items, uint32_t depth0);

/* loop(items): the body of a recursive for once more, one level deeper. */
static bool call_loop(rt *r, tv *out, const tv_loop *l, const targs *a) {
    if (!l->def->flag) return tpl_fail(r, ERR_INVALID, "the loop is not recursive: {%% for ... recursive %%}");
    tv p[TPL_BIND_MAX];
    if (!targs_bind(r, "loop", a, "items", p)) return false;
    buf b = {.max = TPL_STRING_MAX}, *outer = r->out;
    r->out = &b;
    flow how = run_loop(r, l->def, l->outer, p[0], l->depth0 + 1);
    r->out = outer;
    if (how != FLOW_FAIL) return tv_take_buf(r, out, &b);
    buf_free(&b);
    return false;
}

bool tpl_call(rt *r, tv *out, tv f, const targs *a) {
    switch ((tv_type)f.type) {
    case TV_MACRO: return call_macro(r, out, f.u.macro, a);
    case TV_GLOBAL: return tpl_call_global(r, out, (tpl_global)f.u.i, a);
    case TV_METHOD: return tpl_method_call(r, out, f.u.bound->self, f.u.bound->method, a);
    case TV_LOOP: return call_loop(r, out, f.u.loop, a);
    case TV_JOINER:
        *out = f.u.cycler->at ? f.u.cycler->items[0] : tv_strn("", 0);
        f.u.cycler->at = 1;
        return true;
    case TV_UNDEFINED: return tpl_fail_undefined(r, f);
    default: return tpl_fail(r, ERR_INVALID, "a value of type %s cannot be called", tv_type_name(f));
    }
}

/* ---- expressions ----------------------------------------------------------------------------------------- */

/* obj.method(...) without making a bound method first. */
static bool eval_method_call(rt *r, const node *n, scope *s, tv *out) {
    const node *attr = n->a;
    tv self;
    if (!tpl_eval(r, attr->a, s, &self)) return false;
    const tmethod *m = self.type == TV_STRING ? attr->on_string
                       : self.type == TV_DICT ? attr->on_dict
                       : tv_is_list(self)     ? attr->on_list
                                              : NULL;
    targs a;
    r->at = attr;
    if (m) return eval_args(r, n->args, s, &a) && (r->at = n, tpl_method_call(r, out, self, m, &a));
    tv f;
    if (!tpl_get_attr(r, &f, self, attr->name, attr) || !eval_args(r, n->args, s, &a)) return false;
    r->at = n;
    return tpl_call(r, out, f, &a);
}

static bool eval_call(rt *r, const node *n, scope *s, tv *out) {
    if (n->a->kind == N_ATTR) return eval_method_call(r, n, s, out);
    tv f;
    targs a;
    if (!tpl_eval(r, n->a, s, &f) || !eval_args(r, n->args, s, &a)) return false;
    r->at = n;
    return tpl_call(r, out, f, &a);
}

static bool eval_items(rt *r, const node *n, scope *s, tv *out) {
    if (!tv_list_new(r, out, n->kind == N_LIST ? TV_LIST : TV_TUPLE, n->n)) return false;
    tv *items = out->u.list->items;
    for (uint32_t i = 0; i < n->n; i++)
        if (!tpl_eval(r, n->list[i], s, &items[i])) return false;
    return true;
}

static bool eval_dict(rt *r, const node *n, scope *s, tv *out) {
    if (!tv_dict_new(r, out)) return false;
    tv_dict *d = out->u.dict;
    for (uint32_t i = 0; i < n->n; i += 2) {
        tv k, v;
        if (!tpl_eval(r, n->list[i], s, &k) || !tpl_eval(r, n->list[i + 1], s, &v)) return false;
        r->at = n->list[i];
        if (!tv_dict_set(r, d, k, v)) return false;
    }
    return true;
}

static bool eval_slice(rt *r, const node *n, scope *s, tv *out) {
    tv of, bounds[3] = {{0}};
    if (!tpl_eval(r, n->a, s, &of)) return false;
    for (int i = 0; i < 3; i++)
        if (n->list[i] && !tpl_eval(r, n->list[i], s, &bounds[i])) return false;
    r->at = n;
    return tpl_slice(r, out, of, bounds);
}

static bool apply_filter(rt *r, const node *n, scope *s, tv in, tv *out) {
    targs a;
    if (!eval_args(r, n->args, s, &a)) return false;
    r->at = n;
    return tpl_filter_call(r, out, n->filter, in, &a);
}

static bool eval_test(rt *r, const node *n, scope *s, tv *out) {
    tv in;
    targs a;
    bool yes;
    if (!tpl_eval(r, n->a, s, &in) || !eval_args(r, n->args, s, &a)) return false;
    r->at = n;
    if (!tpl_test_call(r, &yes, n->test, in, &a)) return false;
    *out = tv_bool(yes != n->flag);
    return true;
}

static bool eval_unary(rt *r, const node *n, scope *s, tv *out) {
    tv v;
    if (!tpl_eval(r, n->a, s, &v)) return false;
    r->at = n;
    if (n->op == OP_NOT) {
        *out = tv_bool(!tv_truthy(v));
        return true;
    }
    if (v.type == TV_UNDEFINED) return tpl_fail_undefined(r, v);
    if (!tv_is_number(v)) return tpl_fail(r, ERR_INVALID, "a value of type %s has no sign", tv_type_name(v));
    if (v.type == TV_FLOAT) {
        *out = tv_float(n->op == OP_NEG ? -v.u.f : v.u.f);
        return true;
    }
    return tpl_binary(r, n->op == OP_NEG ? OP_SUB : OP_ADD, out, tv_int(0), v);
}

static bool compare_one(rt *r, tpl_op op, tv a, tv b, bool *yes) {
    int c;
    switch (op) {
    case OP_EQ: return tv_equal(r, a, b, yes);
    case OP_IN: return tv_contains(r, a, b, yes);
    case OP_NE:
    case OP_NOT_IN:
        if (!(op == OP_NE ? tv_equal(r, a, b, yes) : tv_contains(r, a, b, yes))) return false;
        *yes = !*yes;
        return true;
    default: break;
    }
    if (!tv_compare(r, a, b, &c)) return false;
    *yes = op == OP_LT ? c == -1 : op == OP_LE ? c == -1 || c == 0 : op == OP_GT ? c == 1 : c == 1 || c == 0;
    return true;
}

static bool eval_compare(rt *r, const node *n, scope *s, tv *out) {
    tv a, b;
    bool yes = true;
    if (!tpl_eval(r, n->a, s, &a)) return false;
    for (uint32_t i = 0; i < n->n && yes; i++) {
        if (!tpl_eval(r, n->list[i], s, &b)) return false;
        r->at = n;
        if (!compare_one(r, (tpl_op)n->ops[i], a, b, &yes)) return false;
        a = b;
    }
    *out = tv_bool(yes);
    return true;
}

static bool eval_concat(rt *r, const node *n, scope *s, tv *out) {
    buf b = {.max = TPL_STRING_MAX};
    for (uint32_t i = 0; i < n->n; i++) {
        tv v;
        if (tpl_eval(r, n->list[i], s, &v) && tpl_print(r, &b, v)) continue;
        buf_free(&b);
        return false;
    }
    r->at = n;
    return tv_take_buf(r, out, &b);
}

static bool eval_cond(rt *r, const node *n, scope *s, tv *out) {
    tv v;
    if (!tpl_eval(r, n->b, s, &v)) return false;
    if (tv_truthy(v)) return tpl_eval(r, n->a, s, out);
    if (n->c) return tpl_eval(r, n->c, s, out);
    *out = tv_undefined(TV_ABSENT, "an if without else", 18);
    return true;
}

static bool eval_two(rt *r, const node *n, scope *s, tv *out) {
    tv a, b;
    if (!tpl_eval(r, n->a, s, &a) || !tpl_eval(r, n->b, s, &b)) return false;
    r->at = n;
    return n->kind == N_ITEM ? tpl_get_item(r, out, a, b) : tpl_binary(r, (tpl_op)n->op, out, a, b);
}

static bool eval_kind(rt *r, const node *n, scope *s, tv *out) {
    tv v;
    switch ((node_kind)n->kind) {
    case N_CONST: *out = n->value; return true;
    case N_NAME: lookup(r, s, n->atom, out); return true;
    case N_LIST:
    case N_TUPLE: return eval_items(r, n, s, out);
    case N_DICT: return eval_dict(r, n, s, out);
    case N_ATTR:
        if (!tpl_eval(r, n->a, s, &v)) return false;
        r->at = n;
        return tpl_get_attr(r, out, v, n->name, n);
    case N_ITEM:
    case N_BINARY: return eval_two(r, n, s, out);
    case N_SLICE: return eval_slice(r, n, s, out);
    case N_CALL: return eval_call(r, n, s, out);
    case N_FILTER: return tpl_eval(r, n->a, s, &v) && apply_filter(r, n, s, v, out);
    case N_TEST: return eval_test(r, n, s, out);
    case N_UNARY: return eval_unary(r, n, s, out);
    case N_AND:
    case N_OR:
        if (!tpl_eval(r, n->a, s, out)) return false;
        return tv_truthy(*out) == (n->kind == N_OR) || tpl_eval(r, n->b, s, out);
    case N_COMPARE: return eval_compare(r, n, s, out);
    case N_CONCAT: return eval_concat(r, n, s, out);
    case N_COND: return eval_cond(r, n, s, out);
    default:
        return tpl_fail(r, ERR_INTERNAL, "a statement stands where an expression should"); /* the parser never does */
    }
}

static bool enter(rt *r, const node *n) {
    r->at = n;
    if (r->depth >= TPL_DEPTH_MAX)
        return tpl_fail(r, ERR_TOO_LARGE, "the template calls itself or nests more than %d deep", TPL_DEPTH_MAX);
    r->depth++;
    return tpl_charge(r, 1);
}

bool tpl_eval(rt *r, const node *n, scope *s, tv *out) {
    if (!enter(r, n)) return false;
    bool ok = eval_kind(r, n, s, out);
    r->depth--;
    return ok;
}

/* ---- statements ------------------------------------------------------------------------------------------ */

static flow write_out(rt *r, const node *n, bool ok) {
    if (!ok) return FLOW_FAIL;
    if (!r->out->failed) return FLOW_NEXT;
    r->at = n;
    if (r->out->over_max)
        tpl_fail(r, ERR_TOO_LARGE, "the text grew past %zu bytes", r->out->max);
    else
        tpl_fail_nomem(r);
    return FLOW_FAIL;
}

static flow exec_list(rt *r, const node *n, scope *s) {
    for (uint32_t i = 0; i < n->n; i++) {
        flow f = exec(r, n->list[i], s);
        if (f != FLOW_NEXT) return f;
    }
    return FLOW_NEXT;
}

static flow exec_if(rt *r, const node *n, scope *s) {
    for (uint32_t i = 0; i < n->n; i += 2) {
        tv v;
        if (!tpl_eval(r, n->list[i], s, &v)) return FLOW_FAIL;
        if (tv_truthy(v)) return exec(r, n->list[i + 1], s);
    }
    return n->b ? exec(r, n->b, s) : FLOW_NEXT;
}

/* The scope of the next round: the same memory where nothing holds it. */
static scope *round_scope(rt *r, scope *last, scope *up) {
    if (!last || last->captured) return new_scope(r, up);
    last->n = 0;
    return last;
}

/* The items that pass {% for ... if condition %}. */
static bool filter_items(rt *r, const node *n, const node *cond, scope *s, tv *items) {
    tv kept;
    uint32_t k = 0;
    if (!tv_list_new(r, &kept, TV_LIST, items->u.list->n)) return false;
    scope *in = NULL;
    for (uint32_t i = 0; i < items->u.list->n; i++) {
        tv v, item = items->u.list->items[i];
        if (!(in = round_scope(r, in, s)) || !assign(r, n->a, in, item) || !tpl_eval(r, cond, in, &v)) return false;
        if (tv_truthy(v)) kept.u.list->items[k++] = item;
    }
    kept.u.list->n = k;
    *items = kept;
    return true;
}

static flow exec_scoped(rt *r, const node *body, scope *s) {
    scope *in = new_scope(r, s);
    return in ? exec(r, body, in) : FLOW_FAIL;
}

static flow run_loop(rt *r, const node *n, scope *s, tv iterable, uint32_t depth0) {
    const node *body = n->list[0], *otherwise = n->list[1], *cond = n->list[2];
    tv items;
    r->at = n->b;
    if (!tv_to_list(r, iterable, &items) || (cond && !filter_items(r, n, cond, s, &items))) return FLOW_FAIL;
    uint32_t count = items.u.list->n, loop_atom = tpl_atom_find(r->t, "loop", 4);
    if (!count) return otherwise ? exec_scoped(r, otherwise, s) : FLOW_NEXT;
    tv_loop *l = tpl_alloc(r, sizeof *l);
    if (!l) return FLOW_FAIL;
    *l = (tv_loop){.items = items.u.list->items, .n = count, .depth0 = depth0, .def = n, .outer = s};
    scope *in = NULL;
    bool finished = false; /* as in Jinja 2, else also follows where every round ended in break or continue */
    for (; l->i < count; l->i++) {
        if (!(in = round_scope(r, in, s))) return FLOW_FAIL;
        if (loop_atom != UINT32_MAX && !define(r, in, loop_atom, (tv){.type = TV_LOOP, .u.loop = l})) return FLOW_FAIL;
        if (!assign(r, n->a, in, l->items[l->i])) return FLOW_FAIL;
        flow f = exec(r, body, in);
        if (f == FLOW_FAIL) return f;
        if (f == FLOW_BREAK) break;
        finished = finished || f == FLOW_NEXT;
    }
    return otherwise && !finished ? exec_scoped(r, otherwise, s) : FLOW_NEXT;
}

static flow exec_for(rt *r, const node *n, scope *s) {
    tv v;
    return tpl_eval(r, n->b, s, &v) ? run_loop(r, n, s, v, 0) : FLOW_FAIL;
}

/* The filters of {% filter a | b %} and {% set x | a | b %} over a captured text; the innermost has no operand. */
static bool apply_filters(rt *r, const node *f, scope *s, tv *v) {
    return !f || (apply_filters(r, f->a, s, v) && apply_filter(r, f, s, *v, v));
}

static flow exec_captured(rt *r, const node *n, scope *s) {
    tv text;
    flow how;
    scope *in = new_scope(r, s);
    if (!in || !capture(r, n->b, in, &text, &how)) return FLOW_FAIL;
    if (how != FLOW_NEXT) return how; /* a break out of it: the text is lost, as in Jinja 2 */
    if (!apply_filters(r, n->c, s, &text)) return FLOW_FAIL;
    if (n->kind == N_FILTER_BLOCK) return write_out(r, n, tpl_print(r, r->out, text));
    if (text.type != TV_STRING && !tpl_to_string(r, &text, text)) return FLOW_FAIL;
    return assign(r, n->a, s, text) ? FLOW_NEXT : FLOW_FAIL;
}

static bool new_macro(rt *r, const node *n, scope *s, tv *out) {
    tv_macro *m = tpl_alloc(r, sizeof *m);
    if (!m) return false;
    *m = (tv_macro){n, s};
    for (scope *up = s; up && !up->captured; up = up->up) up->captured = true;
    *out = (tv){.type = TV_MACRO, .u.macro = m};
    return true;
}

static flow exec_call_block(rt *r, const node *n, scope *s) {
    tv f, caller, text;
    targs a;
    if (!new_macro(r, n, s, &caller) || !tpl_eval(r, n->a->a, s, &f) || !eval_args(r, n->a->args, s, &a))
        return FLOW_FAIL;
    tkw *kw = tpl_alloc(r, (a.n_kw + 1) * sizeof *kw);
    if (!kw) return FLOW_FAIL;
    if (a.n_kw) memcpy(kw, a.kw, a.n_kw * sizeof *kw);
    kw[a.n_kw++] = (tkw){{"caller", 6}, caller};
    a.kw = kw;
    r->at = n->a;
    return write_out(r, n, tpl_call(r, &text, f, &a) && tpl_print(r, r->out, text));
}

static flow exec_with(rt *r, const node *n, scope *s) {
    scope *in = new_scope(r, s);
    if (!in) return FLOW_FAIL;
    for (uint32_t i = 0; i < n->n; i += 2) { /* values see the outer scope */
        tv v;
        if (!tpl_eval(r, n->list[i + 1], s, &v) || !assign(r, n->list[i], in, v)) return FLOW_FAIL;
    }
    return exec(r, n->b, in);
}

static flow exec_kind(rt *r, const node *n, scope *s) {
    tv v;
    switch ((node_kind)n->kind) {
    case N_BLOCK: return exec_list(r, n, s);
    case N_TEXT: buf_append(r->out, n->value.u.s, n->value.len); return write_out(r, n, true);
    case N_OUTPUT: return write_out(r, n, tpl_eval(r, n->a, s, &v) && (r->at = n, tpl_print(r, r->out, v)));
    case N_IF: return exec_if(r, n, s);
    case N_FOR: return exec_for(r, n, s);
    case N_SET: return tpl_eval(r, n->b, s, &v) && assign(r, n->a, s, v) ? FLOW_NEXT : FLOW_FAIL;
    case N_SET_BLOCK:
    case N_FILTER_BLOCK: return exec_captured(r, n, s);
    case N_MACRO: return new_macro(r, n, s, &v) && define(r, s, n->atom, v) ? FLOW_NEXT : FLOW_FAIL;
    case N_CALL_BLOCK: return exec_call_block(r, n, s);
    case N_WITH: return exec_with(r, n, s);
    case N_SCOPE: return exec_scoped(r, n->b, s);
    case N_BREAK: return FLOW_BREAK;
    case N_CONTINUE: return FLOW_CONTINUE;
    default: tpl_fail(r, ERR_INTERNAL, "an expression stands where a statement should"); return FLOW_FAIL;
    }
}

static flow exec(rt *r, const node *n, scope *s) {
    if (!enter(r, n)) return FLOW_FAIL;
    flow f = exec_kind(r, n, s);
    r->depth--;
    return f;
}

bool tpl_exec_root(rt *r) {
    return exec(r, r->t->root, NULL) != FLOW_FAIL;
}
