/* Who asks, and what their role may use. */
#include "server/internal.h"

#include "base/loop.h"

#include <string.h>
#include <strings.h>

bool auth_role_may(role r, access_rule rule) {
    switch (rule) {
    case ACCESS_OPEN: return true;
    case ACCESS_USE: return r == ROLE_USER || r == ROLE_OPERATOR || r == ROLE_ADMIN;
    case ACCESS_WATCH: return r == ROLE_OPERATOR || r == ROLE_AUDITOR || r == ROLE_ADMIN;
    case ACCESS_AUDIT: return r == ROLE_AUDITOR || r == ROLE_ADMIN;
    case ACCESS_ADMIN: return r == ROLE_OPERATOR || r == ROLE_AUDITOR || r == ROLE_ADMIN;
    }
    return false;
}

static void set_identity(identity *who, const char *id, const char *name, role r) {
    memset(who, 0, sizeof *who);
    snprintf(who->key_id, sizeof who->key_id, "%s", id);
    snprintf(who->name, sizeof who->name, "%s", name);
    who->role = r;
}

/* The key of "Authorization: Bearer KEY", or else of "x-api-key: KEY" as Anthropic's clients send it; NULL where there
 * is none. */
static const char *bearer(const http_head *h, size_t *n) {
    const char *v = http_field_value(h, "Authorization");
    if (v && (strncasecmp(v, "Bearer", 6) != 0 || (v[6] != ' ' && v[6] != '\t'))) return NULL;
    v = v ? v + 6 : http_field_value(h, "x-api-key");
    if (!v) return NULL;
    while (*v == ' ' || *v == '\t') v++;
    *n = strlen(v);
    while (*n && (v[*n - 1] == ' ' || v[*n - 1] == '\t')) --*n;
    return *n ? v : NULL;
}

typedef struct token_check {
    exchange *x;
    const char *token;
    size_t n;
    err *e;
    err_code rc;
} token_check;

/* May have to fetch the issuer's keys. */
static void check_token(void *ctx) {
    token_check *t = ctx;
    t->rc = oidc_check(t->x->s->isl, t->token, t->n, &t->x->who, t->e);
}

/* An API key, or a token of the issuer that this island trusts. */
static err_code check_bearer(exchange *x, const char *key, size_t n, err *e) {
    bool is_key = n >= 4 && memcmp(key, "pld_", 4) == 0;
    if (!is_key && oidc_configured(x->s->isl)) {
        token_check t = {.x = x, .token = key, .n = n, .e = e};
        away(check_token, &t);
        return t.rc;
    }
    if (key_check(x->s->isl, key, n, &x->who, NULL) == ERR_OK) return ERR_OK;
    return err_set(e, ERR_UNAUTHENTICATED, "the API key is not valid: it is unknown here or was revoked");
}

err_code auth_check(exchange *x, err *e) {
    if (x->control) { /* whoever may open the socket owns the island */
        set_identity(&x->who, "control", "control socket", ROLE_ADMIN);
        return ERR_OK;
    }
    if (x->route->needs == ACCESS_OPEN) return ERR_OK;
    size_t n = 0;
    const char *key = bearer(x->head, &n);
    if (!x->s->auth && x->route->needs != ACCESS_ADMIN) {
        /* clients send some key even where none is asked for: a good one still tells who asks */
        if (!key || check_bearer(x, key, n, NULL) != ERR_OK)
            set_identity(&x->who, "anonymous", "no key was asked for", ROLE_USER);
        return ERR_OK;
    }
    if (!key)
        return err_set(
            e, ERR_UNAUTHENTICATED,
            "no API key: send it as \"Authorization: Bearer KEY\" or \"x-api-key: KEY\" (polder key add makes "
            "one)");
    err_code rc = check_bearer(x, key, n, e);
    if (rc != ERR_OK) return rc;
    if (!auth_role_may(x->who.role, x->route->needs))
        return err_set(e, ERR_DENIED, "%s: a key with the role %s may not use it", x->route->path,
                       role_name(x->who.role));
    return ERR_OK;
}
