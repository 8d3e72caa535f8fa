/* Strings: lengths, patterns, formats. */
#include "engine/grammar/schema.h"

#include "base/mem.h"

#include <string.h>

/* ---- formats
 * ------------------------------------------------------------------------------------------------------------ */

#define MONTH_DAY \
    "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
#define DATE     "([0-9]{4}-" MONTH_DAY "|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)"
#define TIME     "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define DUR_TIME "T([0-9]{1,9}H([0-9]{1,9}M([0-9]{1,9}S)?)?|[0-9]{1,9}M([0-9]{1,9}S)?|[0-9]{1,9}S)"
#define DUR_DATE "([0-9]{1,9}Y([0-9]{1,9}M([0-9]{1,9}D)?)?|[0-9]{1,9}M([0-9]{1,9}D)?|[0-9]{1,9}D)"
#define LABEL    "[A-Za-z0-9]([A-Za-z0-9-]{0,58}[A-Za-z0-9])?"
#define HOST     LABEL "(\\." LABEL "){0,3}"
#define OCTET    "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4     OCTET "(\\." OCTET "){3}"
#define H16      "[0-9a-fA-F]{1,4}"
#define LS32     "(" H16 ":" H16 "|" IPV4 ")"
#define IPV6                                                                                                     \
    "((" H16 ":){6}" LS32 "|::(" H16 ":){5}" LS32 "|(" H16 ")?::(" H16 ":){4}" LS32 "|((" H16 ":){0,1}" H16      \
    ")?::(" H16 ":){3}" LS32 "|((" H16 ":){0,2}" H16 ")?::(" H16 ":){2}" LS32 "|((" H16 ":){0,3}" H16 ")?::" H16 \
    ":" LS32 "|((" H16 ":){0,4}" H16 ")?::" LS32 "|((" H16 ":){0,5}" H16 ")?::" H16 "|((" H16 ":){0,6}" H16 ")?::)"
#define PCHAR "([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
#define URI \
    "[a-z][a-z0-9+.-]{0,30}://" HOST "(:[1-9][0-9]{0,3})?(/" PCHAR "*)*(\\?(" PCHAR "|[/?])*)?(#(" PCHAR "|[/?])*)?"

static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"duration", "P([0-9]{1,9}W|" DUR_DATE "(" DUR_TIME ")?|" DUR_TIME ")"},
    {"email", "[A-Za-z0-9_%+-]{1,32}(\\.[A-Za-z0-9_%+-]{1,10}){0,2}@(" LABEL "\\.){1,3}[A-Za-z]{2,24}"},
    {"idn-email", "[A-Za-z0-9_%+-]{1,32}(\\.[A-Za-z0-9_%+-]{1,10}){0,2}@(" LABEL "\\.){1,3}[A-Za-z]{2,24}"},
    {"hostname", HOST},
    {"idn-hostname", HOST},
    {"ipv4", IPV4},
    {"ipv6", IPV6},
    {"uri", URI},
    {"uri-reference", URI},
    {"iri", URI},
    {"iri-reference", URI},
    {"uri-template", URI},
    {"uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
    {"json-pointer", "(/([^~/]|~[01])*)*"},
    {"relative-json-pointer", "(0|[1-9][0-9]{0,8})(#|(/([^~/]|~[01])*)*)"},
    {"regex", "[A-Za-z0-9 _,;:=@-]*"},
};

static err_code take(schema_ctx *c, err_code rc) {
    if (rc != ERR_OK && c->rc == ERR_OK) c->rc = rc;
    return rc;
}

err_code schema_format(schema_ctx *c, const cJSON *at, const char *name, bool *known, char_dfa *out) {
    *out = (char_dfa){0};
    *known = false;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i].name, name) != 0) continue;
        *known = true;
        char_nfa n;
        err_code rc = regex_parse(&n, formats[i].pattern, strlen(formats[i].pattern), REGEX_WHOLE, c->e);
        if (!rc) rc = char_dfa_from(out, &n, c->e);
        char_nfa_free(&n);
        return take(c, rc);
    }
    return ERR_OK;
}

err_code schema_pattern(schema_ctx *c, const cJSON *at, const char *keyword, const char *pattern, char_dfa *out) {
    *out = (char_dfa){0};
    err why = {0};
    char_nfa n;
    err_code rc = regex_parse(&n, pattern, strlen(pattern), REGEX_SEARCH, &why);
    if (!rc) rc = char_dfa_from(out, &n, &why);
    char_nfa_free(&n);
    return rc ? schema_fail(c, rc, at, keyword, why.msg) : ERR_OK;
}

/* ---- what applies
 * ---------------------------------------------------------------------------------------------------------- */

typedef struct demand {
    uint64_t min, max;
    bool shaped; /* by patterns or formats: then `set` */
    char_dfa set;
} demand;

/* set becomes what is in it and in d too; takes d. */
static void narrow(schema_ctx *c, demand *x, char_dfa *d) {
    if (!x->shaped) {
        x->set = *d;
        x->shaped = true;
        return;
    }
    char_dfa both;
    take(c, char_dfa_both(&both, &x->set, d, false, c->e));
    char_dfa_free(&x->set);
    char_dfa_free(d);
    x->set = both;
}

static void demand_of(schema_ctx *c, const schema_way *w, demand *x) {
    *x = (demand){.max = UINT64_MAX};
    for (uint32_t i = 0; i < w->n && c->rc == ERR_OK; i++) {
        const cJSON *s = w->list[i], *pattern = schema_get(s, "pattern"), *format = schema_get(s, "format");
        uint64_t min = schema_count(c, s, "minLength", 0), max = schema_count(c, s, "maxLength", UINT64_MAX);
        if (min > x->min) x->min = min;
        if (max < x->max) x->max = max;
        char_dfa d;
        if (pattern && !cJSON_IsString(pattern)) schema_fail(c, ERR_INVALID, s, "pattern", "it must be a string");
        if (format && !cJSON_IsString(format)) schema_fail(c, ERR_INVALID, s, "format", "it must be a string");
        if (pattern && c->rc == ERR_OK && schema_pattern(c, s, "pattern", pattern->valuestring, &d) == ERR_OK)
            narrow(c, x, &d);
        bool known = false;
        if (format && c->rc == ERR_OK && schema_format(c, s, format->valuestring, &known, &d) == ERR_OK && known)
            narrow(c, x, &d);
    }
}

/* ---- writing
 * ---------------------------------------------------------------------------------------------------------------- */

void schema_quoted(schema_ctx *c, const char_dfa *d, uint32_t from, uint32_t to) {
    uint32_t open = builder_state(c->b), close = builder_state(c->b);
    builder_bytes(c->b, from, '"', '"', open);
    char_dfa_emit(d, c->b, open, close, FORM_JSON);
    builder_bytes(c->b, close, '"', '"', to);
}

static uint32_t any_char(schema_ctx *c, bool loop) {
    char_dfa all;
    uint32_t *r = loop ? &c->rule_string : &c->rule_char;
    if (*r || c->rc != ERR_OK) return *r;
    if (take(c, char_dfa_all(&all, c->e)) != ERR_OK) return 0;
    builder *b = c->b;
    *r = builder_rule(b);
    uint32_t start = b->net.rules[*r].start, end = b->net.rules[*r].end;
    if (loop) {
        schema_quoted(c, &all, start, end);
    } else {
        char_dfa one;
        if (take(c, char_dfa_length(&one, &all, 1, 1, c->e)) == ERR_OK) {
            char_dfa_emit(&one, b, start, end, FORM_JSON);
            char_dfa_free(&one);
        }
    }
    char_dfa_free(&all);
    return *r;
}

void schema_free_string(schema_ctx *c, uint32_t from, uint32_t to) {
    builder_call(c->b, from, any_char(c, true), to);
}

#define COUNT_MAX 60000u /* characters that are counted out; a larger maximum is lowered to it */

/* A state for each number of characters, a call of one rule between them. */
static void write_counted(schema_ctx *c, uint64_t min, uint64_t max, uint32_t from, uint32_t to) {
    builder *b = c->b;
    uint64_t last = max == UINT64_MAX ? min : max;
    if (last > COUNT_MAX) last = min > COUNT_MAX ? min : COUNT_MAX;
    uint32_t one = any_char(c, false), at = builder_state(b), close = builder_state(b);
    builder_bytes(b, from, '"', '"', at);
    for (uint64_t i = 0; i < last && !builder_failed(b); i++) {
        if (i >= min) builder_bytes(b, at, '"', '"', close);
        uint32_t next = builder_state(b);
        builder_call(b, at, one, next);
        at = next;
    }
    if (max == UINT64_MAX) builder_call(b, at, one, at);
    builder_bytes(b, at, '"', '"', close);
    builder_empty(b, close, to);
}

static void write_length(schema_ctx *c, uint64_t min, uint64_t max, uint32_t from, uint32_t to) {
    for (uint32_t i = 0; i < c->n_lengths; i++) {
        if (c->lengths[i].min != min || c->lengths[i].max != max) continue;
        builder_call(c->b, from, c->lengths[i].rule, to);
        return;
    }
    uint32_t r = builder_rule(c->b);
    if (builder_failed(c->b)) return;
    write_counted(c, min, max, c->b->net.rules[r].start, c->b->net.rules[r].end);
    if (c->n_lengths < SCHEMA_LENGTHS_MAX) c->lengths[c->n_lengths++] = (schema_lengths){min, max, r};
    builder_call(c->b, from, r, to);
}

void schema_string(schema_ctx *c, const schema_way *w, uint32_t from, uint32_t to) {
    demand x;
    demand_of(c, w, &x);
    if (c->rc == ERR_OK && x.min <= x.max) {
        if (x.shaped && (x.min > 0 || x.max != UINT64_MAX)) {
            char_dfa d;
            if (take(c, char_dfa_length(&d, &x.set, x.min, x.max, c->e)) == ERR_OK) schema_quoted(c, &d, from, to);
            char_dfa_free(&d);
        } else if (x.shaped) {
            schema_quoted(c, &x.set, from, to);
        } else if (x.min > 0 || x.max != UINT64_MAX) {
            write_length(c, x.min, x.max, from, to);
        } else {
            schema_free_string(c, from, to);
        }
    }
    char_dfa_free(&x.set);
}

/* ---- sets of names
 * ------------------------------------------------------------------------------------------------------------ */

typedef struct name_set {
    char_dfa sum;
    bool any;
} name_set;

static void add_names(schema_ctx *c, void *ctx, const schema_way *w) {
    name_set *s = ctx;
    char_dfa d = {0};
    const cJSON *listed = NULL, *v;
    for (uint32_t i = 0; i < w->n; i++)
        if (schema_get(w->list[i], "const") || schema_get(w->list[i], "enum")) listed = w->list[i];
    if (s->any) {
        schema_fail(c, ERR_UNSUPPORTED, w->n ? w->list[0] : NULL, "propertyNames",
                    "choices between names are not supported");
        return;
    }
    s->any = true;
    if (listed) {
        const char *names[1024];
        size_t n = 0;
        const cJSON *one = schema_get(listed, "const"), *list = schema_get(listed, "enum");
        for (v = one ? one : list ? list->child : NULL; v && c->rc == ERR_OK; v = one ? NULL : v->next) {
            bool ok = cJSON_IsString(v);
            for (uint32_t i = 0; i < w->n && ok; i++) ok = schema_valid(c, w->list[i], v, 0);
            if (ok && n == 1024) schema_fail(c, ERR_TOO_LARGE, listed, "propertyNames", "more than 1024 names");
            if (ok && n < 1024) names[n++] = v->valuestring;
        }
        if (c->rc == ERR_OK) take(c, char_dfa_strings(&s->sum, names, n, c->e));
        return;
    }
    for (uint32_t i = 0; i < w->n; i++) {
        if (schema_get(w->list[i], "not") || schema_get(w->list[i], "if"))
            schema_fail(c, ERR_UNSUPPORTED, w->list[i], "propertyNames", "not and if are not supported here");
        if (!(schema_types(w->list[i]) & T_STRING)) return;
    }
    demand x;
    demand_of(c, w, &x);
    if (!x.shaped && c->rc == ERR_OK && take(c, char_dfa_all(&d, c->e)) == ERR_OK) narrow(c, &x, &d);
    if (c->rc == ERR_OK) take(c, char_dfa_length(&s->sum, &x.set, x.min, x.max, c->e));
    char_dfa_free(&x.set);
}

err_code schema_string_set(schema_ctx *c, const cJSON **list, uint32_t n, char_dfa *out) {
    name_set s = {0};
    schema_ways(c, list, n, add_names, &s);
    *out = s.sum;
    return c->rc;
}
