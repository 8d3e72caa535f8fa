/* What a request holds, and the same request with values replaced. */
#include "inference/guard.h"

#include "base/json.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the walk ---------------------------------------------------------------------------------------------- */

/* Called for every text of a request. Where it sets *instead (mem_alloc'ed), the text becomes that. `name`: the key
 * under which it stands in data, which may say what it is ("password"); NULL elsewhere. */
typedef struct walker {
    err_code (*text)(void *ctx, const char *name, const char *s, size_t n, char **instead, err *e);
    err_code (*opaque)(void *ctx, err *e); /* something that cannot be looked at; may be NULL */
    void *ctx;
    redacted *owner; /* the copy that may be changed; NULL: nothing is */
    size_t changes;
    bool data;        /* the tree at hand is somebody's data: its keys are names of its values */
    bool schema;      /* and the schema of a tool, where texts under other keys than "default" are of nobody */
    const char *name; /* the key at hand; a list's values have the list's */
} walker;

static void wipe_free(char *s) {
    if (s) mem_wipe(s, strlen(s));
    mem_free(s);
}

static char *cjson_copy(const char *s) {
    size_t n = strlen(s) + 1;
    char *p = cJSON_malloc(n);
    if (p) memcpy(p, s, n);
    return p;
}

static err_code walk_tree(walker *w, cJSON *v, err *e);

static err_code walk_plain(walker *w, const char *s, size_t n, char **instead, err *e) {
    err_code rc = w->text(w->ctx, w->name, s, n, instead, e);
    w->changes += *instead != NULL;
    return rc;
}

static err_code walk_data(walker *w, cJSON *v, err *e) {
    bool outer = w->data;
    const char *name = w->name;
    w->data = true;
    w->name = NULL;
    err_code rc = walk_tree(w, v, e);
    w->data = outer;
    w->name = name;
    return rc;
}

/* Text that is JSON itself: what it says is walked, and written anew where something changed. */
static err_code walk_json_text(walker *w, const char *s, char **instead, err *e) {
    cJSON *v = NULL;
    err_code rc = json_parse(&v, s, strlen(s), "a text of JSON", NULL);
    if (rc == ERR_NOMEM) return err_nomem(e, "a request");
    if (rc) return walk_plain(w, s, strlen(s), instead, e); /* no JSON: a text like any other */
    size_t before = w->changes;
    rc = walk_data(w, v, e);
    if (!rc && w->changes > before) {
        *instead = json_text(v);
        if (!*instead) rc = err_nomem(e, "a request");
    }
    cJSON_Delete(v);
    return rc;
}

static err_code walk_key(walker *w, cJSON *v, err *e) {
    char *instead = NULL;
    w->name = NULL;
    err_code rc = walk_plain(w, v->string, strlen(v->string), &instead, e);
    if (!rc && instead) {
        char *key = cjson_copy(instead);
        if (!key) rc = err_nomem(e, "a request");
        if (key && !(v->type & cJSON_StringIsConst)) cJSON_free(v->string);
        if (key) v->string = key;
    }
    wipe_free(instead);
    return rc;
}

static err_code walk_string(walker *w, cJSON *v, err *e) {
    char *instead = NULL;
    bool json = v->string && strcmp(v->string, "arguments") == 0;
    err_code rc = json ? walk_json_text(w, v->valuestring, &instead, e)
                       : walk_plain(w, v->valuestring, strlen(v->valuestring), &instead, e);
    if (!rc && instead && !cJSON_SetValuestring(v, instead)) rc = err_nomem(e, "a request");
    wipe_free(instead);
    return rc;
}

/* A number of four digits or more could be somebody's: an owner's rules know short ones too. Beyond 1e21 only those
 * that were written out have digits that mean something. */
static err_code walk_number(walker *w, cJSON *v, err *e) {
    if (fabs(v->valuedouble) < 1e3 || (fabs(v->valuedouble) > 1e21 && !v->valuestring)) return ERR_OK;
    buf text = {.max = 64};
    char *instead = NULL;
    json_write(&text, v); /* all its digits, also those that a double does not hold */
    err_code rc = walk_plain(w, buf_str(&text), text.len, &instead, e);
    if (!rc && instead) {
        char *s = cjson_copy(instead);
        if (!s) rc = err_nomem(e, "a request");
        if (s) {
            cJSON_free(v->valuestring);
            v->type = (v->type & ~0xff) | cJSON_String;
            v->valuestring = s;
        }
    }
    wipe_free(instead);
    buf_free(&text);
    return rc;
}

static err_code walk_value(walker *w, cJSON *v, err *e) {
    if (cJSON_IsString(v)) return walk_string(w, v, e);
    if (cJSON_IsNumber(v)) return walk_number(w, v, e);
    const char *name = w->name;
    err_code rc = ERR_OK;
    for (cJSON *c = v->child; c && !rc; c = c->next) {
        w->name = name;
        rc = walk_tree(w, c, e);
    }
    return rc;
}

/* A key that says how a value is meant and not what it is: {"api_key": {"default": …}} in the schema of a tool. */
static bool is_of_outer(const char *key) {
    static const char *const all[] = {"default", "const", "enum", "example", "examples", "value", "values"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(key, all[i]) == 0) return true;
    return false;
}

static err_code walk_tree(walker *w, cJSON *v, err *e) {
    const char *outer = w->name;
    err_code rc = v->string ? walk_key(w, v, e) : ERR_OK;
    if (rc) return rc;
    if (!w->data && v->string && v->child && strcmp(v->string, "parameters") == 0) { /* a tool's schema */
        w->data = w->schema = true;
        rc = walk_value(w, v, e);
        w->data = w->schema = false;
        w->name = NULL;
        return rc;
    }
    bool of_outer = !v->string || is_of_outer(v->string);
    if (w->data) w->name = of_outer && outer ? outer : v->string;
    if (w->schema && !of_outer && !v->child) w->name = NULL; /* looked at alone is enough */
    return walk_value(w, v, e);
}

static err_code keep_text(redacted *x, char *s, err *e) {
    if (x->n_texts == x->cap_texts) {
        size_t cap = x->cap_texts ? 2 * x->cap_texts : 16;
        char **more = mem_realloc(x->texts, cap * sizeof *more);
        if (!more) {
            wipe_free(s);
            return err_nomem(e, "a request");
        }
        x->texts = more;
        x->cap_texts = cap;
    }
    x->texts[x->n_texts++] = s;
    return ERR_OK;
}

/* A text of its own; *s and *n become what it is replaced by. */
static err_code walk_text(walker *w, const char **s, size_t *n, bool json, err *e) {
    char *instead = NULL;
    if (!*s) return ERR_OK;
    size_t len = n ? *n : strlen(*s);
    err_code rc = json ? walk_json_text(w, *s, &instead, e) : walk_plain(w, *s, len, &instead, e);
    if (rc || !instead) {
        wipe_free(instead);
        return rc;
    }
    rc = keep_text(w->owner, instead, e);
    if (rc) return rc;
    *s = instead;
    if (n) *n = strlen(instead);
    return ERR_OK;
}

static err_code walk_embed(walker *w, embed_request *q, embed_input *inputs, err *e) {
    err_code rc = walk_text(w, &q->query, &q->query_len, false, e);
    for (uint32_t i = 0; i < q->n_inputs && !rc; i++) {
        if (inputs[i].text)
            rc = walk_text(w, &inputs[i].text, &inputs[i].len, false, e);
        else if (w->opaque)
            rc = w->opaque(w->ctx, e);
    }
    return rc;
}

/* Everything that somebody wrote. `r` is changed only where the walker owns a copy. */
static err_code walk_request(walker *w, request *r, embed_request *q, embed_input *inputs, err *e) {
    const cJSON *trees[] = {r->messages, r->tools, r->template_args};
    err_code rc = ERR_OK;
    for (size_t i = 0; i < 3 && !rc; i++)
        if (trees[i]) rc = (i == 2 ? walk_data : walk_tree)(w, (cJSON *)(uintptr_t)trees[i], e);
    if (!rc) rc = walk_text(w, &r->text, &r->text_len, false, e);
    if (!rc && r->tokens && w->opaque) rc = w->opaque(w->ctx, e);
    for (uint32_t i = 0; i < r->n_stops && !rc; i++) rc = walk_text(w, &r->stops[i], NULL, false, e);
    bool json = r->grammar == GRAMMAR_JSON_SCHEMA || r->grammar == GRAMMAR_CHOICE;
    if (!rc && r->grammar) rc = walk_text(w, &r->grammar_source, &r->grammar_len, json, e);
    if (!rc && r->tool_only) rc = walk_text(w, &r->tool_only, NULL, false, e);
    return !rc && q ? walk_embed(w, q, inputs, e) : rc;
}

/* The walk over a request that stays as it is. */
static err_code walk_const(walker *w, const request *r, err *e) {
    request copy = *r; /* its pointers would be replaced */
    embed_request q = r->embed ? *r->embed : (embed_request){0};
    return walk_request(w, &copy, r->embed ? &q : NULL, (embed_input *)(uintptr_t)q.inputs, e);
}

/* ---- labelling --------------------------------------------------------------------------------------------- */

typedef struct labelling {
    guarded *g;
    const detector *d;
    findings f, named; /* of a text alone, and as it stands behind its name */
    buf line;
    uint32_t part;
} labelling;

static err_code add_finding(guarded *g, uint32_t part, const finding *f, err *e) {
    if (g->n == g->cap) {
        size_t cap = g->cap ? 2 * g->cap : 32;
        part_finding *more = mem_realloc(g->list, cap * sizeof *more);
        if (!more) return err_nomem(e, "a request");
        g->list = more;
        g->cap = cap;
    }
    g->list[g->n++] = (part_finding){.part = part, .f = *f};
    g->counts[f->entity]++;
    return ERR_OK;
}

/* The findings of two looks at one part, in order. Where they want the same bytes the higher score has them and the
 * other what is left, so whatever one look found stays covered. Uses both lists up. */
static err_code add_findings(guarded *g, uint32_t part, findings *a, findings *b, err *e) {
    size_t i = 0, k = 0;
    err_code rc = ERR_OK;
    while (!rc && (i < a->n || k < b->n)) {
        bool first = k == b->n || (i < a->n && a->list[i].from <= b->list[k].from);
        findings *p = first ? a : b, *q = first ? b : a;
        size_t *at = first ? &i : &k, *other = first ? &k : &i;
        finding *x = &p->list[*at], *y = *other < q->n ? &q->list[*other] : NULL;
        entity_set_add(&g->found, x->entity);
        if (!y || x->to <= y->from) {
            rc = add_finding(g, part, x, e);
            ++*at;
            continue;
        }
        entity_set_add(&g->found, y->entity);
        if (x->score >= y->score) {
            if (y->to <= x->to)
                ++*other;
            else
                y->from = x->to;
            continue;
        }
        finding before = *x;
        before.to = y->from;
        if (before.from < before.to) rc = add_finding(g, part, &before, e);
        if (x->to <= y->to)
            ++*at;
        else
            x->from = y->to;
    }
    return rc;
}

static err_code fail_detector(guarded *g, const char *why) {
    if (!g->detector_failed) snprintf(g->why, sizeof g->why, "%s", why);
    g->detector_failed = true;
    return ERR_OK;
}

/* `"name": "text"`, as it would stand in a text of JSON: many a number says nothing without the word before it, and no
 * password does. What is found in the name was found when that was looked at. */
static err_code scan_named(labelling *l, const char *name, const char *s, size_t n, err *e) {
    l->named.n = 0;
    if (!name) return ERR_OK;
    l->line.max = SIZE_MAX / 2;
    buf_reset(&l->line);
    buf_printf(&l->line, "\"%.80s\": \"", name); /* a long one tells no more, and would be read for every value */
    size_t at = l->line.len, kept = 0;
    buf_append(&l->line, s, n);
    buf_putc(&l->line, '"');
    if (l->line.failed) return err_nomem(e, "a request");
    err_code rc = detector_scan(l->d, l->line.ptr, l->line.len, &l->named, e);
    for (size_t i = 0; i < l->named.n && !rc; i++) {
        finding f = l->named.list[i];
        if (f.to <= at || f.from >= at + n) continue;
        f.from = f.from < at ? 0 : f.from - at;
        f.to = f.to > at + n ? n : f.to - at;
        l->named.list[kept++] = f;
    }
    l->named.n = kept;
    return rc;
}

static err_code label_text(void *ctx, const char *name, const char *s, size_t n, char **instead, err *e) {
    labelling *l = ctx;
    uint32_t part = l->part++;
    err why;
    err_clear(&why);
    err_code rc = detector_scan(l->d, s, n, &l->f, &why);
    if (!rc) rc = scan_named(l, name, s, n, &why);
    if (rc == ERR_NOMEM) return err_nomem(e, "a request");
    if (rc) return fail_detector(l->g, why.msg);
    return add_findings(l->g, part, &l->f, &l->named, e);
}

static err_code label_opaque(void *ctx, err *e) {
    labelling *l = ctx;
    return fail_detector(l->g, "token ids cannot be looked at");
}

/* A floor that this island's list of labels no longer has is the highest. */
static sensitivity floor_of(const perimeter *p, const identity *who, bool *has) {
    sensitivity s = {0};
    *has = false;
    if (!who->floor[0]) return s;
    if (!sensitivity_declare(&s, has, &p->labels, who->floor, NULL)) return s;
    *has = true;
    return (sensitivity){.level = (uint8_t)(p->labels.n - 1), .flags = FLAGS_ALL};
}

/* It stands in records as it is, and nothing takes it out of the ledger again. */
static err_code check_purpose(const detector *d, findings *f, const char *purpose, err *e) {
    err_code rc = purpose ? detector_scan(d, purpose, strlen(purpose), f, e) : ERR_OK;
    if (rc == ERR_NOMEM) return err_nomem(e, "a request");
    for (size_t i = 0; purpose && (rc || i < f->n); i++) {
        const entity_info *info = rc ? NULL : detector_entity(d, f->list[i].entity);
        if (info && !(info->flags & (FLAG_PERSONAL | FLAG_CREDENTIAL))) continue;
        return err_set(e, ERR_INVALID,
                       "x-polder-purpose: it holds what looks like %s; it goes into the ledger, from which nothing is "
                       "erased: say what the request is for, not whom it is about",
                       info ? info->name : "something that cannot be looked at");
    }
    return ERR_OK;
}

err_code guard_label(guarded *g, const perimeter *p, const request *r, err *e) {
    const char *const declared[] = {r->label, r->label_header};
    bool has = false, has_floor = false;
    sensitivity start = floor_of(p, &r->who, &has_floor);
    err_code rc = ERR_OK;
    for (int i = 0; i < 2 && !rc; i++) {
        sensitivity s = {0};
        bool has_level = false;
        if (declared[i]) rc = sensitivity_declare(&s, &has_level, &p->labels, declared[i], e);
        start = sensitivity_join(start, s);
        has |= has_level;
    }
    if (rc) return rc;
    if (r->has_context) start = sensitivity_join(start, r->context);
    labelling l = {.g = g, .d = p->detector};
    walker w = {.text = label_text, .opaque = label_opaque, .ctx = &l};
    rc = walk_const(&w, r, e);
    if (!rc) rc = check_purpose(p->detector, &l.f, r->purpose, e);
    findings_free(&l.f);
    findings_free(&l.named);
    if (l.line.ptr) mem_wipe(l.line.ptr, l.line.cap);
    buf_free(&l.line);
    if (rc) return rc;
    g->s = policy_label(p->policy, start, has || has_floor || r->has_context, &g->found, g->detector_failed);
    return ERR_OK;
}

void guarded_free(guarded *g) {
    mem_free(g->list);
    *g = (guarded){0};
}

size_t guarded_count(const guarded *g, const detector *d, const entity_set *set) {
    size_t n = 0;
    for (unsigned i = 0; i < detector_entities(d); i++)
        if (g->counts[i] && entity_set_has(set, i) && detector_entity(d, i)->word) n += g->counts[i];
    return n;
}

/* ---- redacting --------------------------------------------------------------------------------------------- */

typedef struct redacting {
    const guarded *g;
    const entity_set *set;
    redaction *map;
    size_t at; /* into g->list */
    uint32_t part;
} redacting;

static err_code see_text(void *ctx, const char *name, const char *s, size_t n, char **instead, err *e) {
    return redaction_see(ctx, s, n, e);
}

static err_code redact_text(void *ctx, const char *name, const char *s, size_t n, char **instead, err *e) {
    redacting *x = ctx;
    uint32_t part = x->part++;
    size_t from = x->at;
    while (x->at < x->g->n && x->g->list[x->at].part == part) x->at++;
    size_t count = x->at - from;
    if (!count) return ERR_OK;
    finding *list = mem_array(count, sizeof *list);
    if (!list) return err_nomem(e, "a request");
    for (size_t i = 0; i < count; i++) list[i] = x->g->list[from + i].f;
    buf out = {.max = REDACTED_BYTES_MAX};
    err_code rc = redaction_text(x->map, s, n, list, count, x->set, &out, e);
    if (!rc) rc = buf_check(&out, "a request", e);
    if (!rc) {
        *instead = mem_strndup(buf_str(&out), out.len);
        if (!*instead) rc = err_nomem(e, "a request");
    }
    if (out.ptr) mem_wipe(out.ptr, out.len);
    buf_free(&out);
    mem_free(list);
    return rc;
}

static err_code copy_tree(redacted *x, unsigned at, const cJSON **v, err *e) {
    if (!*v) return ERR_OK;
    *v = x->trees[at] = cJSON_Duplicate(*v, true);
    return *v ? ERR_OK : err_nomem(e, "a request");
}

static err_code copy_request(redacted *x, const request *r, err *e) {
    x->r = *r;
    err_code rc = copy_tree(x, 0, &x->r.messages, e);
    if (!rc) rc = copy_tree(x, 1, &x->r.tools, e);
    if (!rc) rc = copy_tree(x, 2, &x->r.template_args, e);
    if (rc || !r->embed) return rc;
    x->embed = *r->embed;
    x->inputs = mem_array(r->embed->n_inputs ? r->embed->n_inputs : 1, sizeof *x->inputs);
    if (!x->inputs) return err_nomem(e, "a request");
    if (r->embed->n_inputs) memcpy(x->inputs, r->embed->inputs, r->embed->n_inputs * sizeof *x->inputs);
    x->embed.inputs = x->inputs;
    x->r.embed = &x->embed;
    return ERR_OK;
}

err_code guard_redact(redacted **out, const request *r, const guarded *g, const entity_set *set, redaction *map,
                      err *e) {
    redacted *x = *out = mem_zalloc(sizeof *x);
    if (!x) return err_nomem(e, "a request");
    err_code rc = copy_request(x, r, e);
    walker see = {.text = see_text, .ctx = map};
    /* for a further candidate the map has seen the same texts already, and placeholders have been given out */
    if (!rc && !redaction_count(map)) rc = walk_const(&see, r, e);
    redacting job = {.g = g, .set = set, .map = map};
    walker w = {.text = redact_text, .ctx = &job, .owner = x};
    if (!rc) rc = walk_request(&w, &x->r, r->embed ? &x->embed : NULL, x->inputs, e);
    if (!rc) return ERR_OK;
    redacted_free(x);
    *out = NULL;
    return rc;
}

void redacted_free(redacted *x) {
    if (!x) return;
    for (size_t i = 0; i < x->n_texts; i++) wipe_free(x->texts[i]);
    for (size_t i = 0; i < sizeof x->trees / sizeof *x->trees; i++) cJSON_Delete(x->trees[i]);
    mem_free(x->texts);
    mem_free(x->inputs);
    mem_free(x);
}
