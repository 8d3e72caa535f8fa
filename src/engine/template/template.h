/* template: the inside of the chat-template interpreter (public part: engine.h). Not included outside engine/ and
 * tests.
 *
 * What it is: the part of Jinja 2 that model templates are written in, read the way transformers configures it
 * (trim_blocks, lstrip_blocks, no autoescape, loop controls, an immutable sandbox), with Python's semantics of values.
 *
 *   source -> template_lex.c tokens -> template_parse.c + template_expr.c AST -> template_eval.c walks it
 *                                                     template_value.c, template_text.c   values, printing, JSON
 *                                                     template_methods.c, template_filters.c, template_lists.c,
 *                                                     template_tests.c                    what templates may call
 *
 * Invariants
 * 1. The AST lives in the template's arena and is never written after compile: any number of threads render at once.
 * 2. Everything a render makes lives in its own arena (`rt.mem`), freed at its end; strings of `vars` are shared.
 *    Only growing buffers (buf) are from the heap; each has one owner that frees it on every path.
 * 3. Lists, tuples and strings never change after they are made (so slices share memory). Dicts change only while they
 *    are being built; namespaces, and how far a generator was gone through, are the mutable things. So no value
 * contains itself.
 * 4. Every function that can fail returns false after tpl_fail, which keeps the first error and the node it was at.
 * 5. Time is bounded by steps: one for each node evaluated, more for work that grows with its operands (tpl_charge).
 *    Whatever reads a string to its end pays for it, a comparison too (tests/unit/engine/test_template_hostile.c).
 *
 * Known to differ from Jinja 2, on purpose:
 * - a number of JSON that is whole is an integer, 1.0 too (records hold RFC 8785, which knows no difference); integers
 *   have 64 bits, and those past 2^53 that come from JSON are rounded;
 * - a generator makes all its items at once, so what fails in one that nobody reads fails all the same;
 * - |safe and |escape give plain strings: joining text to them escapes nothing.
 *
 * Has caused bugs: `~` binds tighter than `+`; filters bind tighter than unary minus; a for loop's body starts a fresh
 * scope each round; `d.items` is the method even where the dict has a key "items".
 */
#ifndef POLDER_ENGINE_TEMPLATE_H
#define POLDER_ENGINE_TEMPLATE_H

#include "base/mem.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TPL_SOURCE_MAX       ((size_t)1 << 20)
#define TPL_AST_BYTES_MAX    ((size_t)256 << 20)
#define TPL_NEST_MAX         150 /* parentheses, blocks inside each other */
#define TPL_DEPTH_MAX        800 /* nodes and macro calls being evaluated at once */
#define TPL_VALUE_DEPTH_MAX  128 /* lists inside lists */
#define TPL_STEPS_MAX        5000000u
#define TPL_RENDER_BYTES_MAX ((size_t)256 << 20)
#define TPL_STRING_MAX       ((size_t)64 << 20) /* one string made by a template */
#define TPL_LIST_MAX         1000000u
#define TPL_RANGE_MAX        100000
#define TPL_PARAMS_MAX       64 /* parameters of a macro, arguments of a call */

/* ---- values ---------------------------------------------------------------------------------------------- */

typedef enum tv_type {
    TV_ABSENT, /* no value: an argument that was not given, a variable that was never set; never seen by templates */
    TV_UNDEFINED,
    TV_NONE,
    TV_BOOL,
    TV_INT,
    TV_FLOAT,
    TV_STRING,
    TV_LIST,
    TV_TUPLE,
    TV_DICT,
    TV_NAMESPACE,
    TV_LOOP,
    TV_MACRO,
    TV_GLOBAL,
    TV_METHOD,
    TV_JOINER,
    TV_CYCLER,
    TV_GENERATOR, /* what map, select, reverse, ... give: gone through once, always true, without a length. And what
                   * keys, values and items of a dict give: as long as the dict, gone through often */
} tv_type;

typedef struct tv_list tv_list;
typedef struct tv_dict tv_dict;
typedef struct tv_loop tv_loop;
typedef struct tv_macro tv_macro;
typedef struct tv_bound tv_bound;
typedef struct tv_cycler tv_cycler;
typedef struct tv_generator tv_generator;

typedef struct tstr {
    const char *p;
    uint32_t n;
} tstr;

/* 16 bytes, passed by value. */
typedef struct tv {
    uint8_t type;
    uint8_t owner; /* TV_UNDEFINED: tv_type of the object that lacked the attribute, TV_ABSENT for a variable */
    uint32_t len;  /* TV_STRING: bytes; TV_UNDEFINED: length of the name */
    union {
        bool b;
        int64_t i; /* TV_INT; TV_GLOBAL: tpl_global */
        double f;
        const char *s; /* TV_STRING: not NUL-terminated; TV_UNDEFINED: the name that was looked up */
        tv_list *list; /* TV_LIST, TV_TUPLE */
        tv_dict *dict; /* TV_DICT, TV_NAMESPACE */
        tv_loop *loop;
        tv_macro *macro;
        tv_bound *bound;
        tv_cycler *cycler; /* TV_CYCLER, TV_JOINER */
        tv_generator *gen;
    } u;
} tv;

struct tv_list {
    tv *items;
    uint32_t n;
};

/* Made whole at once; only what is left of it is seen. */
struct tv_generator {
    const tv_list *list;
    uint32_t at;      /* items taken */
    const char *view; /* "dict_keys", ...: of a dict; NULL: a generator */
};

typedef struct tv_entry {
    tv key, val;
} tv_entry;

/* Insertion order; an index of hashes is made past 12 entries. */
struct tv_dict {
    tv_entry *e;
    uint32_t n, cap;
    uint32_t *index; /* entry number + 1, 0 empty */
    uint32_t index_cap;
};

struct tv_cycler {
    tv *items;
    uint32_t n, at;
};

/* ---- syntax tree ----------------------------------------------------------------------------------------- */

typedef enum node_kind {
    /* statements */
    N_BLOCK,        /* list */
    N_TEXT,         /* value */
    N_OUTPUT,       /* a */
    N_IF,           /* list: cond, body, cond, body, ...; b: else */
    N_FOR,          /* target a, iterable b, list: body, else (or NULL), condition (or NULL); flag: recursive */
    N_SET,          /* target a, value b */
    N_SET_BLOCK,    /* target a, body b, filters c (innermost N_FILTER has a == NULL) or NULL */
    N_MACRO,        /* name, params, body b */
    N_CALL_BLOCK,   /* call a, params, body b */
    N_FILTER_BLOCK, /* body b, filters c */
    N_WITH,         /* list: target, value, ...; body b */
    N_SCOPE,        /* body b */
    N_BREAK,
    N_CONTINUE,
    /* expressions */
    N_CONST,  /* value */
    N_NAME,   /* atom */
    N_LIST,   /* list */
    N_TUPLE,  /* list */
    N_DICT,   /* list: key, value, ... */
    N_ATTR,   /* a, name; methods looked up once */
    N_NSREF,  /* atom, name: an assignment target */
    N_ITEM,   /* a, b */
    N_SLICE,  /* a, list: start, stop, step (each may be NULL) */
    N_CALL,   /* a, args */
    N_FILTER, /* a, filter, args */
    N_TEST,   /* a, test, args; flag: negated */
    N_UNARY,  /* op, a */
    N_BINARY, /* op, a, b */
    N_AND,    /* a, b */
    N_OR,
    N_COMPARE, /* a, list: operands; ops: one each */
    N_CONCAT,  /* list */
    N_COND,    /* a if b else c (or NULL) */
} node_kind;

typedef enum tpl_op {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW, /* binary */
    OP_NEG,
    OP_POS,
    OP_NOT, /* unary */
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN, /* comparisons */
} tpl_op;

typedef struct rt rt;
typedef struct node node;
typedef struct tmethod tmethod;
typedef struct tfilter tfilter;
typedef struct ttest ttest;

/* Arguments as written: positional, then keywords (parallel arrays), then *a and **b. */
typedef struct node_args {
    node **pos;
    tstr *kw_names;
    node **kw;
    node *star, *star2;
    uint32_t n_pos, n_kw;
} node_args;

typedef struct node_params { /* of a macro or call block */
    uint32_t *atoms;
    tstr *names;
    node **defaults; /* NULL where none */
    uint32_t n;
    bool takes_varargs, takes_kwargs, takes_caller; /* the body uses these names */
} node_params;

struct node {
    uint8_t kind, op;
    bool flag;
    uint32_t line, col;
    uint32_t atom;
    uint32_t n; /* of list */
    tstr name;
    node *a, *b, *c;
    node **list;
    uint8_t *ops;
    tv value;
    node_args *args;
    node_params *params;
    const tfilter *filter;
    const ttest *test;
    const tmethod *on_string, *on_dict, *on_list; /* N_ATTR: the method of that name, per type */
};

typedef enum tpl_global {
    G_NONE,
    G_RAISE,
    G_STRFTIME,
    G_RANGE,
    G_NAMESPACE,
    G_DICT,
    G_JOINER,
    G_CYCLER,
} tpl_global;

typedef struct tpl_atom {
    tstr name;
    tpl_global global;
} tpl_atom;

struct chat_template {
    arena *mem;
    const char *source;
    size_t source_len;
    node *root;
    tpl_atom *atoms; /* every variable name in the source */
    uint32_t n_atoms;
    uint32_t *atom_index;    /* open addressing, atom + 1 */
    uint32_t atom_index_cap; /* power of two */
};
/* The atom of a name, or UINT32_MAX where the template does not use it. */
uint32_t tpl_atom_find(const chat_template *t, const char *name, size_t n);

/* ---- tokens ---------------------------------------------------------------------------------------------- */

typedef enum tok_type {
    TK_EOF,
    TK_DATA,
    TK_BLOCK_BEGIN,
    TK_BLOCK_END,
    TK_VAR_BEGIN,
    TK_VAR_END,
    TK_NAME,
    TK_STRING,
    TK_INT,
    TK_FLOAT,
    TK_OP,
} tok_type;

typedef struct token {
    uint8_t type;
    uint8_t op; /* TK_OP: the character, or one of the two-character codes below */
    uint32_t line, col;
    uint32_t len;
    union {
        const char *s; /* TK_DATA, TK_NAME, TK_STRING (unescaped) */
        int64_t i;
        double f;
    } u;
} token;
enum { OPC_EQ = 128, OPC_NE, OPC_LE, OPC_GE, OPC_FLOORDIV, OPC_POW };

/* Tokens of the source (mem_free), ending with TK_EOF; text lives in `mem`. */
err_code tpl_lex(token **out, size_t *n, arena *mem, const char *src, size_t len, err *e);
/* "chat template, line L, column C: sentence" */
err_code tpl_error_at(err *e, err_code code, uint32_t line, uint32_t col, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* ---- parser ---------------------------------------------------------------------------------------------- */

typedef struct parser {
    const token *t; /* the current one; the last is TK_EOF */
    chat_template *tpl;
    err *e;
    bool failed;
    int nest;
    int loops;             /* for loops that break and continue would belong to */
    node_params *in_macro; /* the innermost macro or call block: notes that varargs, kwargs, caller are used */
} parser;

err_code tpl_parse(chat_template *t, const token *tokens, err *e); /* fills root and atoms */
/* Shared by template_parse.c (statements) and template_expr.c (expressions); each returns NULL after an error. */
node *tpl_parse_expression(parser *p);
node *tpl_parse_tuple(parser *p, bool with_cond, const char *end_word);
node *tpl_parse_target(parser *p, const char *end_word, bool with_namespace);
node *tpl_parse_filters(parser *p, node *in, bool first_without_pipe);
node *tpl_node(parser *p, node_kind kind, const token *at);
bool tpl_list_add(parser *p, node *list_owner, uint32_t *cap, node *item);
void *tpl_parser_alloc(parser *p, size_t n);
uint32_t tpl_atom_intern(parser *p, tstr name);                                        /* UINT32_MAX after an error */
void *tpl_parser_fail(parser *p, err_code code, const token *at, const char *fmt, ...) /* NULL */
    __attribute__((format(printf, 4, 5)));
void *tpl_parser_unexpected(parser *p, const char *wanted); /* "expected ..., found ..."; NULL */
bool tpl_is_op(const parser *p, int op);
bool tpl_is_word(const token *t, const char *word);
bool tpl_expect_op(parser *p, int op, const char *spelled);
bool tpl_accept_op(parser *p, int op);

/* ---- a render in progress -------------------------------------------------------------------------------- */

typedef struct binding {
    uint32_t atom;
    tv v;
} binding;

typedef struct scope {
    struct scope *up; /* NULL: the template's own variables, rt.root */
    binding *b;
    uint32_t n, cap;
    bool captured; /* a macro holds it: a loop may not reuse it for its next round */
} scope;

struct tv_loop {
    tv *items;
    uint32_t n, i;
    uint32_t depth0;
    const node *def; /* the for statement, for loop(...) */
    scope *outer;
    tv last_changed; /* loop.changed() */
};

struct tv_macro {
    const node *def; /* N_MACRO or N_CALL_BLOCK */
    scope *env;
};

struct tv_bound { /* a method with its object */
    tv self;
    const tmethod *method;
    tstr name;
};

struct rt {
    const chat_template *t;
    arena *mem;
    buf *out; /* where text goes now: the caller's, or a capture's */
    err *e;
    err_code code; /* ERR_OK until the first failure */
    uint64_t steps;
    int depth;
    int64_t now_ms;
    tv *root; /* by atom; TV_ABSENT where not set */
    const node *at;
};

/* The arguments of a call, evaluated. */
typedef struct tkw {
    tstr name;
    tv v;
} tkw;

typedef struct targs {
    tv *pos;
    tkw *kw;
    uint32_t n_pos, n_kw;
} targs;

/* Sets the first error, at r->at. Always false. */
bool tpl_fail(rt *r, err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool tpl_fail_nomem(rt *r);
bool tpl_fail_undefined(rt *r, tv v); /* "'x' is undefined", "the dict has no 'x'" */
static inline bool tpl_charge(rt *r, uint64_t steps) {
    r->steps += steps;
    return r->steps <= TPL_STEPS_MAX ||
           tpl_fail(r, ERR_TOO_LARGE, "the template takes more than %u steps", TPL_STEPS_MAX);
}
/* Work that goes over n bytes once, 64 of them a step. Where the bytes are known before, so is what is charged. */
static inline bool tpl_charge_bytes(rt *r, uint64_t n) {
    return n < 64 || tpl_charge(r, n / 64);
}
void *tpl_alloc(rt *r, size_t n); /* NULL after tpl_fail */

bool tpl_eval(rt *r, const node *n, scope *s, tv *out);
bool tpl_exec_root(rt *r);
bool tpl_call(rt *r, tv *out, tv callee, const targs *a);
bool tpl_call_global(rt *r, tv *out, tpl_global g, const targs *a);

#define TPL_BIND_MAX 6
/* Binds arguments to parameters named in `spec` ("old new count?": `?` may be left out, out[i] is then TV_ABSENT). */
bool targs_bind(rt *r, const char *who, const targs *a, const char *spec, tv out[TPL_BIND_MAX]);
/* Typed parameters; `what` names it in the error. Absent leaves *out. */
bool targ_int(rt *r, const char *what, tv v, int64_t *out);
bool targ_bool(tv v, bool when_absent);

/* ---- values: template_value.c ---------------------------------------------------------------------------- */

static inline tv tv_of(tv_type t) {
    return (tv){.type = (uint8_t)t};
}
static inline tv tv_bool(bool b) {
    return (tv){.type = TV_BOOL, .u.b = b};
}
static inline tv tv_int(int64_t i) {
    return (tv){.type = TV_INT, .u.i = i};
}
static inline tv tv_float(double f) {
    return (tv){.type = TV_FLOAT, .u.f = f};
}
static inline tv tv_strn(const char *s, size_t n) {
    return (tv){.type = TV_STRING, .len = (uint32_t)n, .u.s = s};
}
static inline tstr tv_tstr(tv v) {
    return (tstr){v.u.s, v.len};
}
static inline bool tv_is_list(tv v) {
    return v.type == TV_LIST || v.type == TV_TUPLE;
}
static inline bool tv_is_number(tv v) {
    return v.type == TV_BOOL || v.type == TV_INT || v.type == TV_FLOAT;
}
static inline bool tv_absent(tv v) {
    return v.type == TV_ABSENT;
}
bool tstr_is(tstr s, const char *z);
bool tv_str_is(tv v, const char *z);

tv tv_undefined(tv_type owner, const char *name, size_t n);
const char *tv_type_name(tv v); /* "string", "list", ... */
bool tv_truthy(tv v);
bool tv_equal(rt *r, tv a, tv b, bool *out);
bool tv_compare(rt *r, tv a, tv b, int *out); /* orders; types that have no order fail */
bool tv_contains(rt *r, tv needle, tv hay, bool *out);
double tv_number(tv v);               /* of a number */
bool tv_as_index(tv v, int64_t *out); /* int or bool */

bool tv_list_new(rt *r, tv *out, tv_type type, uint32_t n); /* n absent items to be filled in */
bool tv_dict_new(rt *r, tv *out);
bool tv_dict_set(rt *r, tv_dict *d, tv key, tv val);
bool tv_dict_get(rt *r, const tv_dict *d, tv key, tv *out); /* TV_ABSENT where missing; false: not a key, or steps */
bool tv_dict_get_str(rt *r, const tv_dict *d, tstr key, tv *out);
bool tv_to_list(rt *r, tv v, tv *out); /* what a for loop goes over, as a list; empties a generator */
bool tv_make_generator(rt *r, tv *list, const char *view); /* of a list */
bool tv_dict_items(rt *r, tv *out, const tv_dict *d);      /* a list of pairs */
bool tv_from_json(rt *r, tv *out, const cJSON *j, int depth);
bool tv_string_copy(rt *r, tv *out, const char *s, size_t n);
bool tv_take_buf(rt *r, tv *out, buf *b);  /* the bytes as a string; frees b also on failure */
bool tv_length(rt *r, tv v, int64_t *out); /* characters, items; fails where it has none */

/* UTF-8 */
size_t tpl_char_len(const char *s, size_t n); /* 1 to 4 bytes; 1 where the bytes are not UTF-8 */
uint32_t tpl_char_at(const char *s, size_t n,
                     size_t *len); /* broken bytes are 0xDC80 + byte - 0x80, as Python has it */
size_t tpl_count_chars(const char *s, size_t n);
size_t tpl_byte_offset(const char *s, size_t n, size_t chars);  /* of the chars-th character, n past the end */
bool tpl_is_space(uint32_t c);                                  /* str.isspace */
tstr tpl_strip(tstr s, const tv *chars, bool left, bool right); /* chars NULL or not a string: white space */
bool tpl_strip_paid(rt *r, tstr *out, tstr s, const tv *chars, bool left, bool right); /* the same, and charges */

/* attributes, items, slices */
bool tpl_get_attr(rt *r, tv *out, tv obj, tstr name, const node *n);
bool tpl_get_item(rt *r, tv *out, tv obj, tv key);
bool tpl_slice(rt *r, tv *out, tv obj, const tv bounds[3]); /* TV_ABSENT or TV_NONE: left out */
bool tpl_binary(rt *r, tpl_op op, tv *out, tv a, tv b);

/* ---- printing: template_text.c --------------------------------------------------------------------------- */

bool tpl_print(rt *r, buf *out, tv v);           /* as str() */
bool tpl_repr(rt *r, buf *out, tv v, int depth); /* as repr() */
bool tpl_to_string(rt *r, tv *out, tv v);        /* str() as a value; a string is itself */
void tpl_print_float(buf *out, double f);
typedef struct json_style {
    bool ascii, sort_keys, indented;
    tstr indent; /* one level */
    tstr comma, colon;
} json_style;
bool tpl_to_json(rt *r, buf *out, tv v, const json_style *st, int depth);
bool tpl_printf(rt *r, tv *out, tstr fmt, const tv *args, uint32_t n, const tv_dict *named,
                bool lenient); /* "..." % ... */
bool tpl_strftime(rt *r, tv *out, tstr fmt);

/* ---- what templates may call ----------------------------------------------------------------------------- */

struct tmethod {
    const char *name;
    bool (*fn)(rt *r, tv *out, tv self, const targs *a, const tv *p);
    const char *spec; /* NULL: takes any arguments itself */
};
const tmethod *tpl_method_find(tv_type t, tstr name); /* NULL where none */
bool tpl_method_call(rt *r, tv *out, tv self, const tmethod *m, const targs *a);
/* Text functions that are both methods and filters */
typedef enum tpl_case { CASE_UPPER, CASE_LOWER, CASE_CAPITALIZE, CASE_TITLE, CASE_SWAP, CASE_JINJA_TITLE } tpl_case;
bool tpl_change_case(rt *r, tv *out, tstr s, tpl_case c);
bool tpl_replace(rt *r, tv *out, tstr s, tstr from, tstr to, int64_t count); /* count < 0: all */
bool tpl_split_lines(rt *r, tv *out, tstr s, bool keep_ends);
bool tpl_pad(rt *r, tv *out, tstr s, int64_t width, tstr fill, int where); /* -1 left-justified, 0 centred, 1 right */
bool tpl_is_cased(tstr s, bool upper);                                     /* str.isupper, str.islower */

struct tfilter {
    const char *name;
    bool (*fn)(rt *r, tv *out, tv in, const targs *a, const tv *p);
    const char *spec;
};
const tfilter *tpl_filter_find(tstr name);
bool tpl_filter_call(rt *r, tv *out, const tfilter *f, tv in, const targs *a);
extern const tfilter tpl_text_filters[], tpl_list_filters[]; /* end with a NULL name */

struct ttest {
    const char *name;
    bool (*fn)(rt *r, bool *out, tv in, const tv *p);
    const char *spec;
};
const ttest *tpl_test_find(tstr name);
bool tpl_test_call(rt *r, bool *out, const ttest *t, tv in, const targs *a);

#endif
