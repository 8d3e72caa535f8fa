#include "inference/prompt.h"
#include "inference/format.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Guards are taken from supplementary private use area B; a request that uses all of these is refused. */
#define GUARD_FIRST 0x10F800u
#define GUARD_LAST  0x10FFFDu
#define GUARD_BYTES 4

/* ---- the model's special tokens --------------------------------------------------------------------------- */

typedef struct spelling {
    char *text;
    size_t len;
} spelling;

struct special_set {
    spelling *list;
    size_t n, cap;
    bool first[256]; /* bytes that begin a spelling */
};

void special_set_free(special_set *s) {
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) mem_free(s->list[i].text);
    mem_free(s->list);
    mem_free(s);
}

size_t special_set_count(const special_set *s) {
    return s->n;
}

const char *special_set_text(const special_set *s, size_t i, size_t *len) {
    *len = s->list[i].len;
    return s->list[i].text;
}

static err_code special_add(special_set *s, const char *text, size_t len, err *e) {
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 64;
        spelling *list = mem_realloc(s->list, cap * sizeof *list);
        if (!list) return err_nomem(e, "the list of special tokens");
        s->list = list;
        s->cap = cap;
    }
    char *copy = mem_strndup(text, len);
    if (!copy) return err_nomem(e, "the list of special tokens");
    s->list[s->n++] = (spelling){copy, len};
    s->first[(uint8_t)text[0]] = true;
    return ERR_OK;
}

static err_code tokenises_to(bool *yes, const model *m, const buf *text, int flags, int32_t id, err *e) {
    int32_t *ids = NULL;
    size_t n = 0;
    err_code rc = model_tokenize(m, text->ptr, text->len, flags, text->len + 16, &ids, &n, e);
    *yes = rc == ERR_OK && n == 1 && ids[0] == id;
    mem_free(ids);
    return rc;
}

static int longest_first(const void *a, const void *b) {
    const spelling *x = a, *y = b;
    if (x->len != y->len) return x->len > y->len ? -1 : 1;
    return memcmp(x->text, y->text, x->len);
}

/* A token has authority where its text is not shown and where the text becomes the token only when asked for. */
static err_code special_probe(special_set *s, const model *m, int32_t id, buf *text, err *e) {
    buf_reset(text);
    model_token_bytes(m, id, false, text);
    if (text->failed) return buf_check(text, "special token", e);
    if (text->len) return ERR_OK;
    model_token_bytes(m, id, true, text);
    if (text->failed) return buf_check(text, "special token", e);
    if (!text->len) return ERR_OK;
    bool parsed, plain;
    err_code rc = tokenises_to(&parsed, m, text, TOK_PARSE_SPECIAL, id, e);
    if (!rc) rc = tokenises_to(&plain, m, text, 0, id, e);
    if (!rc && parsed && !plain) rc = special_add(s, text->ptr, text->len, e);
    return rc;
}

err_code special_set_new(special_set **out, const model *m, err *e) {
    *out = NULL;
    special_set *s = mem_zalloc(sizeof *s);
    if (!s) return err_nomem(e, "the list of special tokens");
    buf text = {.max = 1 << 16};
    err_code rc = ERR_OK;
    uint32_t n_vocab = model_get_facts(m)->n_vocab;
    for (uint32_t id = 0; id < n_vocab && !rc; id++) rc = special_probe(s, m, (int32_t)id, &text, e);
    buf_free(&text);
    if (rc) {
        special_set_free(s);
        return rc;
    }
    if (s->n) qsort(s->list, s->n, sizeof *s->list, longest_first);
    *out = s;
    return ERR_OK;
}

/* Length of the special token that is written at p, 0 where none is. */
static size_t special_at(const special_set *s, const char *p, size_t n) {
    if (!n || !s->first[(uint8_t)p[0]]) return 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->list[i].len <= n && memcmp(p, s->list[i].text, s->list[i].len) == 0) return s->list[i].len;
    }
    return 0;
}

static size_t char_len(const char *p, size_t n) {
    uint32_t cp;
    int len = utf8_decode(&cp, p, n);
    return len > 0 ? (size_t)len : 1;
}

/* Whether p could begin a special token: two characters of one, or all that is left where that is less. */
static bool special_could_begin(const special_set *s, const char *p, size_t n) {
    if (!s->first[(uint8_t)p[0]]) return false;
    size_t two = char_len(p, n);
    if (two < n) two += char_len(p + two, n - two);
    for (size_t i = 0; i < s->n; i++) {
        size_t len = s->list[i].len < two ? s->list[i].len : two;
        if (memcmp(p, s->list[i].text, len) == 0) return true;
    }
    return false;
}

/* ---- guarding users' strings ------------------------------------------------------------------------------ */

typedef struct guard {
    const special_set *special;
    char text[GUARD_BYTES];
    buf scratch;
    bool used;
} guard;

static bool tree_has(const cJSON *v, const char *needle) {
    for (; v; v = v->next) {
        if (v->string && strstr(v->string, needle)) return true;
        if (cJSON_IsString(v) && strstr(v->valuestring, needle)) return true;
        if (v->child && tree_has(v->child, needle)) return true;
    }
    return false;
}

static bool request_has(const request *r, const char *needle) {
    return (r->messages && tree_has(r->messages->child, needle)) || (r->tools && tree_has(r->tools->child, needle)) ||
           (r->template_args && tree_has(r->template_args->child, needle));
}

static err_code guard_choose(guard *g, const request *r, err *e) {
    for (uint32_t cp = GUARD_FIRST; cp <= GUARD_LAST; cp++) {
        char s[GUARD_BYTES + 1] = {0};
        if (utf8_encode(s, cp) != GUARD_BYTES || request_has(r, s)) continue;
        memcpy(g->text, s, GUARD_BYTES);
        return ERR_OK;
    }
    return err_set(e, ERR_INVALID,
                   "messages: they contain all of the private-use characters U+%X to U+%X; leave one out", GUARD_FIRST,
                   GUARD_LAST);
}

/* Put guards into one string, and one before it if `begin`; *s stays as it is where it needs none. cJSON owns the
 * memory of its strings. */
static err_code guard_string(guard *g, char **s, bool begin, err *e) {
    size_t n = strlen(*s);
    buf_reset(&g->scratch);
    size_t copied = 0;
    if (begin) buf_append(&g->scratch, g->text, GUARD_BYTES);
    for (size_t i = 0; i < n; i++) {
        if (!special_could_begin(g->special, *s + i, n - i)) continue;
        size_t end = i + char_len(*s + i, n - i);
        buf_append(&g->scratch, *s + copied, end - copied);
        buf_append(&g->scratch, g->text, GUARD_BYTES);
        copied = end;
    }
    if (!copied && !begin) return ERR_OK;
    buf_append(&g->scratch, *s + copied, n - copied);
    if (buf_check(&g->scratch, "messages", e)) return e ? e->code : ERR_NOMEM;
    char *copy = cJSON_malloc(g->scratch.len + 1);
    if (!copy) return err_nomem(e, "messages");
    memcpy(copy, g->scratch.ptr, g->scratch.len + 1);
    cJSON_free(*s);
    *s = copy;
    g->used = true;
    return ERR_OK;
}

/* Templates write names right behind a bracket of their own: '<|' + message.name + '|>'. */
static bool is_name(const cJSON *v) {
    return v->string && (strcmp(v->string, "name") == 0 || strcmp(v->string, "tool_call_id") == 0);
}

/* All strings of a duplicated tree, keys too (constant keys are written in the program, not by users). Depth is
 * bounded by json_parse. */
static err_code guard_tree(guard *g, cJSON *v, err *e) {
    err_code rc = ERR_OK;
    for (; v && !rc; v = v->next) {
        bool name = is_name(v);
        if (v->string && !(v->type & cJSON_StringIsConst)) rc = guard_string(g, &v->string, false, e);
        if (!rc && cJSON_IsString(v)) rc = guard_string(g, &v->valuestring, name && v->valuestring[0], e);
        if (!rc && v->child) rc = guard_tree(g, v->child, e);
    }
    return rc;
}

static err_code guarded_copy(guard *g, cJSON **out, const cJSON *v, err *e) {
    *out = cJSON_Duplicate(v, true);
    if (!*out) return err_nomem(e, "messages");
    return guard_tree(g, (*out)->child, e);
}

/* Append s without its guards. Returns whether there were any. */
static bool remove_guards(const guard *g, buf *out, const char *s, size_t n) {
    bool any = false;
    for (size_t i = 0; i < n;) {
        const char *hit = memmem(s + i, n - i, g->text, GUARD_BYTES);
        size_t end = hit ? (size_t)(hit - s) : n;
        buf_append(out, s + i, end - i);
        any |= hit != NULL;
        i = hit ? end + GUARD_BYTES : n;
    }
    return any;
}

static void unguard_message(const guard *g, err *e) {
    buf clean = {.max = sizeof e->msg};
    if (remove_guards(g, &clean, e->msg, strlen(e->msg)) && !clean.failed)
        snprintf(e->msg, sizeof e->msg, "%s", buf_str(&clean));
    buf_free(&clean);
}

/* ---- rendering -------------------------------------------------------------------------------------------- */

static err_code check_messages(const cJSON *messages, err *e) {
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function"};
    if (!cJSON_IsArray(messages)) return err_set(e, ERR_INVALID, "messages: must be an array");
    if (!messages->child) return err_set(e, ERR_INVALID, "messages: there is none; give at least one");
    int i = 0;
    for (const cJSON *m = messages->child; m; m = m->next, i++) {
        const cJSON *who = cJSON_IsObject(m) ? cJSON_GetObjectItemCaseSensitive(m, "role") : NULL;
        if (!cJSON_IsString(who)) return err_set(e, ERR_INVALID, "messages[%d]: an object with a role is needed", i);
        bool known = false;
        for (size_t k = 0; k < sizeof roles / sizeof *roles; k++) known |= strcmp(who->valuestring, roles[k]) == 0;
        if (!known)
            return err_set(
                e, ERR_INVALID,
                "messages[%d].role: '%.40s' is not one of system, developer, user, assistant, tool, function", i,
                who->valuestring);
    }
    return ERR_OK;
}

/* vars.key = v; v is taken over in any case. */
static err_code put(cJSON *vars, const char *key, cJSON *v, err *e) {
    if (v && cJSON_AddItemToObject(vars, key, v)) return ERR_OK;
    cJSON_Delete(v);
    return err_nomem(e, "the variables of the chat template");
}

static err_code put_guarded(guard *g, cJSON *vars, const char *key, const cJSON *v, err *e) {
    cJSON *copy;
    err_code rc = guarded_copy(g, &copy, v, e);
    if (rc) {
        cJSON_Delete(copy);
        return rc;
    }
    return put(vars, key, copy, e);
}

static err_code put_token(cJSON *vars, const char *key, const model *m, int32_t id, err *e) {
    buf text = {.max = 4096};
    if (id >= 0) model_token_bytes(m, id, true, &text);
    err_code rc = buf_check(&text, key, e);
    if (!rc) rc = put(vars, key, cJSON_CreateString(buf_str(&text)), e);
    buf_free(&text);
    return rc;
}

/* Messages in the form that the template wants, guarded. */
static err_code put_messages(guard *g, cJSON *vars, const answer_format *f, const request *r, err *e) {
    if (!f) return put_guarded(g, vars, "messages", r->messages, e);
    cJSON *list = NULL;
    err_code rc = format_messages(&list, f, r->messages, e);
    if (!rc) rc = guard_tree(g, list->child, e);
    if (!rc) return put(vars, "messages", list, e);
    cJSON_Delete(list);
    return rc;
}

/* OpenAI's reasoning_effort by the switch that the template has. */
static err_code put_effort(cJSON *vars, const model *m, const request *r, err *e) {
    static const char *const switches[] = {"enable_thinking", "thinking"};
    const char *effort = r->reasoning_effort;
    const chat_template *t = model_template(m);
    bool none = strcmp(effort, "none") == 0;
    if (chat_template_uses(t, "reasoning_effort")) { /* gpt-oss knows three */
        if (none || strcmp(effort, "minimal") == 0) effort = "low";
        if (strcmp(effort, "xhigh") == 0) effort = "high";
        if (cJSON_GetObjectItemCaseSensitive(vars, "reasoning_effort")) return ERR_OK;
        return put(vars, "reasoning_effort", cJSON_CreateString(effort), e);
    }
    for (size_t i = 0; i < 2; i++) {
        if (!chat_template_uses(t, switches[i])) continue;
        if (cJSON_GetObjectItemCaseSensitive(vars, switches[i])) return ERR_OK;
        return put(vars, switches[i], cJSON_CreateBool(!none), e);
    }
    if (none) return ERR_OK; /* it cannot think, so it does not */
    return err_set(e, ERR_UNSUPPORTED,
                   "reasoning_effort: the chat template of model '%s' has no switch for it; leave it out", r->model);
}

/* The template's variables. template_args come first, so that they cannot take the place of any other. */
static err_code template_vars(guard *g, cJSON *vars, const model *m, const answer_format *f, const request *r, err *e) {
    static const char *const own[] = {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"};
    err_code rc = ERR_OK;
    for (const cJSON *a = r->template_args ? r->template_args->child : NULL; a && !rc; a = a->next) {
        bool taken = false;
        for (size_t i = 0; i < sizeof own / sizeof *own; i++) taken |= strcmp(a->string, own[i]) == 0;
        if (taken) return err_set(e, ERR_INVALID, "chat template arguments: '%s' is not free to be set", a->string);
        cJSON *wrap = cJSON_CreateArray(); /* guarded_copy walks children: one level more for a plain string */
        cJSON *copy = wrap ? cJSON_Duplicate(a, true) : NULL;
        if (!copy || !cJSON_AddItemToArray(wrap, copy)) {
            cJSON_Delete(copy);
            cJSON_Delete(wrap);
            return err_nomem(e, "the variables of the chat template");
        }
        rc = guard_tree(g, wrap->child, e);
        copy = cJSON_DetachItemFromArray(wrap, 0);
        cJSON_Delete(wrap);
        if (rc)
            cJSON_Delete(copy);
        else
            rc = put(vars, a->string, copy, e);
    }
    if (!rc && r->reasoning_effort) rc = put_effort(vars, m, r, e);
    if (!rc) rc = put_messages(g, vars, f, r, e);
    if (!rc && r->tools) rc = put_guarded(g, vars, "tools", r->tools, e);
    if (!rc) rc = put(vars, "add_generation_prompt", cJSON_CreateTrue(), e);
    if (!rc) rc = put_token(vars, "bos_token", m, model_token_bos(m), e);
    if (!rc) rc = put_token(vars, "eos_token", m, model_token_eos(m), e);
    return rc;
}

static err_code render(guard *g, buf *out, const model *m, const answer_format *f, const request *r, err *e) {
    const chat_template *t = model_template(m);
    if (!t && model_template_error(m))
        return err_set(e, ERR_UNSUPPORTED, "model '%s': its chat template cannot be used: %s; use /v1/completions",
                       r->model, model_template_error(m));
    if (!t)
        return err_set(e, ERR_UNSUPPORTED, "model '%s' has no chat template: send a text to /v1/completions instead",
                       r->model);
    err_code rc = check_messages(r->messages, e);
    if (!rc && f && r->tools && r->tools->child) rc = format_check_tools(f, r->model, e);
    if (!rc && r->template_args && !cJSON_IsObject(r->template_args))
        rc = err_set(e, ERR_INVALID, "chat template arguments: must be an object");
    if (!rc) rc = guard_choose(g, r, e);
    if (rc) return rc;
    cJSON *vars = cJSON_CreateObject();
    if (!vars) return err_nomem(e, "the variables of the chat template");
    rc = template_vars(g, vars, m, f, r, e);
    if (!rc) rc = chat_template_render(t, vars, time_unix_ms(), out, e);
    if (rc && e) unguard_message(g, e); /* raise_exception may repeat what a user wrote */
    cJSON_Delete(vars);
    return rc;
}

/* ---- tokens ----------------------------------------------------------------------------------------------- */

static err_code append_tokens(prompt *p, const model *m, const char *text, size_t n, int flags, size_t max, err *e) {
    if (!n) return ERR_OK;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    err_code rc = model_tokenize(m, text, n, flags, max - p->n_tokens, &ids, &n_ids, e);
    if (rc || !n_ids) {
        mem_free(ids);
        return rc;
    }
    if (!p->tokens) {
        p->tokens = ids;
        p->n_tokens = n_ids;
        return ERR_OK;
    }
    int32_t *all = mem_realloc(p->tokens, (p->n_tokens + n_ids) * sizeof *all);
    if (all) {
        memcpy(all + p->n_tokens, ids, n_ids * sizeof *ids);
        p->tokens = all;
        p->n_tokens += n_ids;
    } else {
        rc = err_nomem(e, "the prompt's tokens");
    }
    mem_free(ids);
    return rc;
}

/* The rendered text in stretches: a stretch between two special tokens of the template that holds a guard is plain;
 * what lies between such stretches is tokenised with its special tokens, in one piece. */
static err_code tokenise_guarded(prompt *p, const guard *g, const buf *rendered, const model *m, size_t max, err *e) {
    const char *s = rendered->ptr;
    size_t n = rendered->len, done = 0, from = 0; /* [done, from) is clean and ends with a special token, or is empty */
    buf plain = {.max = rendered->max};
    err_code rc = ERR_OK;
    while (from < n && !rc) {
        size_t to = from, special = 0;
        while (to < n && !(special = special_at(g->special, s + to, n - to))) to++;
        buf_reset(&plain);
        if (remove_guards(g, &plain, s + from, to - from)) {
            rc = buf_check(&plain, "prompt", e);
            if (!rc) rc = append_tokens(p, m, s + done, from - done, TOK_PARSE_SPECIAL, max, e);
            if (!rc) rc = append_tokens(p, m, plain.ptr, plain.len, 0, max, e);
            done = to;
        }
        from = to + special;
    }
    if (!rc) rc = append_tokens(p, m, s + done, n - done, TOK_PARSE_SPECIAL, max, e);
    buf_free(&plain);
    return rc;
}

/* BOS first, where the model's file adds one and the template has not written it. */
static err_code add_bos(prompt *p, const model *m, size_t max, err *e) {
    int32_t bos = model_token_bos(m), *ids = NULL;
    size_t n = 0;
    if (bos < 0 || (p->n_tokens && p->tokens[0] == bos)) return ERR_OK;
    err_code rc = model_tokenize(m, "", 0, TOK_ADD_SPECIAL, 16, &ids, &n, e);
    bool adds = !rc && n && ids[0] == bos;
    mem_free(ids);
    if (rc || !adds) return rc;
    if (p->n_tokens >= max) return err_set(e, ERR_TOO_LONG, "the prompt has more than %zu tokens", max);
    int32_t *all = mem_realloc(p->tokens, (p->n_tokens + 1) * sizeof *all);
    if (!all) return err_nomem(e, "the prompt's tokens");
    memmove(all + 1, all, p->n_tokens * sizeof *all);
    all[0] = bos;
    p->tokens = all;
    p->n_tokens++;
    return ERR_OK;
}

static err_code build_chat(prompt *p, const model *m, const special_set *special, const answer_format *f,
                           const request *r, size_t max, err *e) {
    guard g = {.special = special, .scratch = {.max = PROMPT_BYTES_MAX}};
    buf rendered = {.max = PROMPT_BYTES_MAX};
    err_code rc = render(&g, &rendered, m, f, r, e);
    if (!rc) rc = buf_check(&rendered, "prompt", e);
    if (!rc) {
        if (g.used)
            rc = tokenise_guarded(p, &g, &rendered, m, max, e);
        else
            rc = append_tokens(p, m, rendered.ptr, rendered.len, TOK_PARSE_SPECIAL, max, e);
    }
    if (!rc) rc = add_bos(p, m, max, e);
    if (!rc) {
        remove_guards(&g, &p->text, buf_str(&rendered), rendered.len);
        rc = buf_check(&p->text, "prompt", e);
    }
    buf_free(&g.scratch);
    buf_free(&rendered);
    return rc;
}

static err_code build_ids(prompt *p, const model *m, const request *r, size_t max, err *e) {
    uint32_t n_vocab = model_get_facts(m)->n_vocab;
    if (r->n_tokens > max) return err_set(e, ERR_TOO_LONG, "prompt: %zu tokens, but only %zu fit", r->n_tokens, max);
    for (size_t i = 0; i < r->n_tokens; i++) {
        if (r->tokens[i] < 0 || (uint32_t)r->tokens[i] >= n_vocab)
            return err_set(e, ERR_INVALID, "prompt[%zu]: token %d is not one of the model's 0 to %u", i, r->tokens[i],
                           n_vocab - 1);
    }
    p->tokens = mem_array(r->n_tokens ? r->n_tokens : 1, sizeof *p->tokens);
    if (!p->tokens) return err_nomem(e, "the prompt's tokens");
    if (r->n_tokens) memcpy(p->tokens, r->tokens, r->n_tokens * sizeof *p->tokens);
    p->n_tokens = r->n_tokens;
    return ERR_OK;
}

static err_code build_raw(prompt *p, const model *m, const request *r, size_t max, err *e) {
    buf_append(&p->text, r->text, r->text_len);
    err_code rc = buf_check(&p->text, "prompt", e);
    if (!rc) rc = model_tokenize(m, r->text, r->text_len, TOK_ADD_SPECIAL, max, &p->tokens, &p->n_tokens, e);
    return rc;
}

void prompt_free(prompt *p) {
    if (p->text.ptr) mem_wipe(p->text.ptr, p->text.len);
    buf_free(&p->text);
    mem_free(p->tokens);
    *p = (prompt){0};
}

err_code prompt_build(prompt *p, const model *m, const special_set *special, const answer_format *format,
                      const request *r, size_t max, err *e) {
    int given = (r->messages != NULL) + (r->text != NULL) + (r->tokens != NULL);
    if (given != 1)
        return err_set(e, ERR_INVALID, "prompt: messages, a text or token ids are needed, exactly one of them");
    buf_init(&p->text, PROMPT_BYTES_MAX);
    err_code rc;
    if (r->messages)
        rc = build_chat(p, m, special, format, r, max, e);
    else if (r->text)
        rc = build_raw(p, m, r, max, e);
    else
        rc = build_ids(p, m, r, max, e);
    if (!rc && !p->n_tokens)
        rc = err_set(e, ERR_INVALID, "prompt: it is empty, and model '%s' begins with no token of its own", r->model);
    return rc;
}
