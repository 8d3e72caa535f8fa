/* template: the public functions: compile, render, free. */
#include "engine/template/template.h"

err_code chat_template_compile(chat_template **out, const char *src, size_t len, err *e) {
    *out = NULL;
    if (len > TPL_SOURCE_MAX)
        return err_set(e, ERR_TOO_LARGE, "chat template: %zu bytes of source; at most %zu are read", len,
                       TPL_SOURCE_MAX);
    chat_template *t = mem_zalloc(sizeof *t);
    if (!t) return err_nomem(e, "a chat template");
    token *tokens = NULL;
    size_t n = 0;
    err_code code;
    t->mem = arena_new(TPL_AST_BYTES_MAX);
    t->source = t->mem ? arena_strndup(t->mem, src, len) : NULL;
    t->source_len = len;
    code = t->source ? tpl_lex(&tokens, &n, t->mem, src, len, e) : err_nomem(e, "a chat template");
    if (code == ERR_OK) code = tpl_parse(t, tokens, e);
    mem_free(tokens);
    if (code != ERR_OK) {
        chat_template_free(t);
        return code;
    }
    *out = t;
    return ERR_OK;
}

void chat_template_free(chat_template *t) {
    if (!t) return;
    arena_free(t->mem);
    mem_free(t);
}

bool chat_template_uses(const chat_template *t, const char *variable) {
    return tpl_atom_find(t, variable, strlen(variable)) != UINT32_MAX;
}

const char *chat_template_source(const chat_template *t, size_t *len) {
    if (len) *len = t->source_len;
    return t->source;
}

/* The variables that the template names, as values; the others are not looked at. */
static bool take_vars(rt *r, const cJSON *vars) {
    r->root = tpl_alloc(r, ((size_t)r->t->n_atoms + 1) * sizeof *r->root);
    if (!r->root) return false;
    for (const cJSON *c = cJSON_IsObject(vars) ? vars->child : NULL; c; c = c->next) {
        uint32_t atom = c->string ? tpl_atom_find(r->t, c->string, strlen(c->string)) : UINT32_MAX;
        if (atom != UINT32_MAX && !tv_from_json(r, &r->root[atom], c, 0)) return false;
    }
    return true;
}

err_code chat_template_render(const chat_template *t, const cJSON *vars, int64_t now_unix_ms, buf *out, err *e) {
    size_t before = out->len;
    rt r = {.t = t, .out = out, .e = e, .now_ms = now_unix_ms};
    r.mem = arena_new(TPL_RENDER_BYTES_MAX);
    if (!r.mem) return err_nomem(e, "rendering a chat template");
    if (take_vars(&r, vars)) tpl_exec_root(&r);
    arena_free(r.mem);
    if (r.code != ERR_OK && out->ptr && before <= out->len) {
        out->len = before;
        out->ptr[before] = 0;
    }
    return r.code;
}
