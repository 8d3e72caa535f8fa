/* Rows of providers, and the frame in which anything about them changes. */
#include "inference/providers_internal.h"

#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void changes_lock(void) {
    pthread_mutex_lock(&lock);
}
void changes_unlock(void) {
    pthread_mutex_unlock(&lock);
}

/* ---- queries ----------------------------------------------------------------------------------------------- */

err_code store_each(store *s, const char *sql, const store_val *args, size_t n,
                    err_code (*row)(store_stmt *q, void *ctx, err *e), void *ctx, err *e) {
    store_stmt *q = NULL;
    err step = {0}; /* e may be NULL, and step tells its end by the code */
    err_code rc = store_query(&q, s, sql, args, n, e);
    if (rc) return rc;
    while (!rc && store_step(q, &step)) rc = row ? row(q, ctx, e) : ERR_OK;
    if (!rc && step.code) {
        rc = step.code;
        if (e) *e = step;
    }
    store_finish(q);
    return rc;
}

typedef struct one {
    bool *found;
    err_code (*row)(store_stmt *q, void *ctx, err *e);
    void *ctx;
} one;

static err_code row_one(store_stmt *q, void *ctx, err *e) {
    one *o = ctx;
    *o->found = true;
    return o->row ? o->row(q, o->ctx, e) : ERR_OK;
}

err_code store_one(store *s, const char *sql, const store_val *args, size_t n, bool *found,
                   err_code (*row)(store_stmt *q, void *ctx, err *e), void *ctx, err *e) {
    one o = {found, row, ctx};
    *found = false;
    return store_each(s, sql, args, n, row_one, &o, e);
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

/* The row is checked like what comes from outside: a database may be an old one, or another's. */
static err_code row_provider(store_stmt *q, void *ctx, err *e) {
    const char *name = store_col_text(q, 0, NULL);
    size_t n = 0;
    const char *text = store_col_text(q, 1, &n);
    cJSON *facts = NULL;
    err why = {0};
    err_code rc = json_parse(&facts, text ? text : "", n, "its facts", &why);
    if (!rc && (!cJSON_IsObject(facts) || !name || !cJSON_AddStringToObject(facts, "name", name)))
        rc = err_nomem(&why, "its facts");
    if (!rc) rc = provider_parse(ctx, facts, &why);
    cJSON_Delete(facts);
    if (!rc || rc == ERR_NOMEM) return rc ? err_set(e, rc, "%s", why.msg) : ERR_OK;
    return err_set(e, ERR_CORRUPT, "polder.db: the row of provider '%s' cannot be used: %s", name ? name : "?",
                   why.msg);
}

typedef struct list {
    provider *p;
    size_t n, cap;
} list;

static err_code row_listed(store_stmt *q, void *ctx, err *e) {
    list *l = ctx;
    if (l->n == PROVIDERS_MAX) return err_set(e, ERR_CORRUPT, "polder.db: more than %d providers", PROVIDERS_MAX - 1);
    if (l->n == l->cap) {
        size_t cap = l->cap * 2 < PROVIDERS_MAX ? l->cap * 2 : PROVIDERS_MAX;
        provider *more = mem_realloc(l->p, cap * sizeof *more);
        if (!more) return err_nomem(e, "the list of providers");
        l->p = more;
        l->cap = cap;
    }
    err_code rc = row_provider(q, &l->p[l->n], e);
    l->n += !rc;
    return rc;
}

err_code providers_read(store *s, provider **out, size_t *n, err *e) {
    list l = {.p = mem_array(4, sizeof(provider)), .n = 1, .cap = 4};
    *out = NULL;
    *n = 0;
    if (!l.p) return err_nomem(e, "the list of providers");
    l.p[0].facts = provider_facts_engine;
    err_code rc = models_open_tables(s, e);
    if (rc == ERR_NOT_FOUND)
        rc = ERR_OK; /* a read-only island that never had any */
    else if (!rc)
        rc = store_each(s, "SELECT name, facts FROM providers ORDER BY name", NULL, 0, row_listed, &l, e);
    if (rc) {
        mem_free(l.p);
        return rc;
    }
    *out = l.p;
    *n = l.n;
    return ERR_OK;
}

int provider_place(const provider *p, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(p[i].facts.name, name) == 0) return (int)i;
    return -1;
}

static err_code row_name(store_stmt *q, void *ctx, err *e) {
    buf *names = ctx;
    const char *name = store_col_text(q, 0, NULL);
    if (names->len < 300) buf_printf(names, "%s%s", names->len ? ", " : "", name ? name : "?");
    return ERR_OK;
}

err_code provider_find(store *s, const char *name, provider *out, err *e) {
    bool found = false;
    err_code rc = store_one(s, "SELECT name, facts FROM providers WHERE name = ?", &SV_TEXT(name), 1, &found,
                            row_provider, out, e);
    if (rc || found) return rc;
    buf names = {.max = 400};
    (void)store_each(s, "SELECT name FROM providers ORDER BY name", NULL, 0, row_name, &names, NULL);
    rc = names.len
             ? err_set(e, ERR_NOT_FOUND, "provider '%.60s' is not known here; there are: %s", name, names.ptr)
             : err_set(e, ERR_NOT_FOUND,
                       "provider '%.60s' is not known here, there is none yet; add one with polder provider add", name);
    buf_free(&names);
    return rc;
}

/* ---- changing ---------------------------------------------------------------------------------------------- */

err_code change_record(const change_job *c, record **r, const char *what, err *e) {
    err_code rc = record_new(r, what, e);
    if (!rc && !cJSON_AddStringToObject(record_body(*r), "by", c->by ? c->by->key_id : "local"))
        rc = err_nomem(e, "a record");
    return rc;
}

typedef struct running_change {
    change_job *c;
    perimeter *next;
} running_change;

/* The record comes last: it is the only step that cannot be taken back. */
static err_code in_transaction(store *s, void *ctx, err *e) {
    running_change *rc_ = ctx;
    change_job *c = rc_->c;
    record *r = NULL;
    uint64_t seq;
    err_code rc = c->rows(c, s, &r, e);
    if (!rc && r && c->inf) rc = perimeter_build(&rc_->next, c->inf, e);
    if (!rc && r) rc = ledger_append(island_ledger(c->i), r, &seq, e);
    record_free(r);
    return rc;
}

err_code change_run(change_job *c, err *e) {
    running_change now = {.c = c};
    store *s = island_store(c->i);
    if (store_read_only(s))
        return err_set(e, ERR_DENIED, "%s: is open for reading only; a change needs its ledger", island_dir(c->i));
    err_code rc = models_open_tables(s, e);
    if (rc) return rc;
    changes_lock();
    rc = store_transaction(s, in_transaction, &now, e);
    if (now.next && !rc) perimeter_install(c->inf, now.next);
    if (now.next && rc) perimeter_put(c->inf, now.next);
    changes_unlock();
    return rc;
}
