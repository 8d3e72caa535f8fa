/* Counts of usage on their way to the store, and reports of them.
 *
 * quota_leave adds to a table in memory; a thread writes it every second, in one transaction, and so does closing.
 * While a table is written the other one counts. What could not be written (a full disk) stays and is tried again.
 *
 * What a crash loses: the counts of the last second (and of what a disk refused to take). Nobody is charged for them
 * again; the records of the ledger have every request. */
#include "island/internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <stdio.h>
#include <string.h>

#define FLUSH_MS        1000
#define COMPLAIN_MS     60000
#define REPORT_ROWS_MAX 20000

/* ---- the table in memory ----------------------------------------------------------------------------------- */

static bool table_make(usage_table *t) {
    t->rows = mem_array(USAGE_ROWS, sizeof *t->rows);
    t->index = mem_array(USAGE_INDEX, sizeof *t->index);
    return t->rows && t->index;
}

static void table_free(usage_table *t) {
    mem_free(t->rows);
    mem_free(t->index);
    *t = (usage_table){0};
}

static void table_clear(usage_table *t) {
    memset(t->index, 0, USAGE_INDEX * sizeof *t->index);
    t->n = 0;
}

static uint64_t hash_text(uint64_t h, const char *s) {
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 1099511628211u;
    return (h ^ 0xff) * 1099511628211u;
}

static bool same_row(const usage_row *a, const usage_row *b) {
    return a->day == b->day && strcmp(a->key, b->key) == 0 && strcmp(a->project, b->project) == 0 &&
           strcmp(a->model, b->model) == 0 && strcmp(a->provider, b->provider) == 0;
}

/* False: the table is full. */
static bool table_add(usage_table *t, const usage_row *r) {
    uint64_t h =
        hash_text(hash_text(hash_text(hash_text((uint64_t)r->day, r->key), r->project), r->model), r->provider);
    size_t at = (size_t)((h ^ h >> 32) % USAGE_INDEX);
    while (t->index[at] && !same_row(&t->rows[t->index[at] - 1], r)) at = (at + 1) % USAGE_INDEX;
    if (!t->index[at]) {
        if (t->n == USAGE_ROWS) return false;
        t->rows[t->n] = *r;
        t->index[at] = (uint16_t)++t->n;
        return true;
    }
    usage_row *sum = &t->rows[t->index[at] - 1];
    sum->requests += r->requests;
    sum->refused += r->refused;
    sum->tokens_in += r->tokens_in;
    sum->tokens_out += r->tokens_out;
    sum->cost += r->cost;
    return true;
}

void usage_count(island *i, const usage_row *r) {
    quota *q = i->quota;
    for (int round = 0; round < 2; round++) {
        pthread_mutex_lock(&q->usage_lock);
        bool done = table_add(&q->now, r);
        pthread_mutex_unlock(&q->usage_lock);
        if (done) return;
        if (round == 0) (void)usage_flush(i, NULL);
    }
    metric_add(q->m_lost, 1); /* 4,096 kinds of rows, and a store that takes none */
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

static err_code write_rows(store *s, void *ctx, err *e) {
    const usage_table *t = ctx;
    for (size_t k = 0; k < t->n; k++) {
        const usage_row *r = &t->rows[k];
        store_val v[] = {SV_INT(r->day),
                         SV_TEXT(r->project),
                         SV_TEXT(r->key),
                         SV_TEXT(r->model),
                         SV_TEXT(r->provider),
                         SV_INT((int64_t)r->requests),
                         SV_INT((int64_t)r->refused),
                         SV_INT((int64_t)r->tokens_in),
                         SV_INT((int64_t)r->tokens_out),
                         SV_INT((int64_t)r->cost)};
        err_code code = store_write(
            s,
            "INSERT INTO usage(day, project, key, model, provider, requests, refused, tokens_in, tokens_out, cost) "
            "VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, "
            "refused = refused + excluded.refused, tokens_in = tokens_in + excluded.tokens_in, "
            "tokens_out = tokens_out + excluded.tokens_out, cost = cost + excluded.cost",
            v, 10, NULL, e);
        if (code != ERR_OK) return code;
    }
    return ERR_OK;
}

err_code usage_flush(island *i, err *e) {
    quota *q = i->quota;
    err_code code = ERR_OK;
    pthread_mutex_lock(&q->flush_lock);
    for (int round = 0; round < 2 && code == ERR_OK; round++) { /* what was left from before, then what is new */
        if (q->out.n) code = store_transaction(i->st, write_rows, &q->out, e);
        if (code != ERR_OK) break;
        table_clear(&q->out);
        if (round == 1) break;
        pthread_mutex_lock(&q->usage_lock);
        usage_table full = q->now;
        q->now = q->out;
        q->out = full;
        pthread_mutex_unlock(&q->usage_lock);
    }
    pthread_mutex_unlock(&q->flush_lock);
    return code;
}

static void *run_flusher(void *arg) {
    island *i = arg;
    quota *q = i->quota;
    int64_t complained = 0;
    pthread_mutex_lock(&q->usage_lock);
    while (!q->stop) {
        (void)cond_wait_ms(&q->wake, &q->usage_lock, FLUSH_MS);
        pthread_mutex_unlock(&q->usage_lock);
        err e = {0};
        int64_t now = (int64_t)(time_mono_ns() / 1000000);
        if (usage_flush(i, &e) != ERR_OK && (!complained || now - complained > COMPLAIN_MS)) {
            log_msg(LOG_WARN, "island", "usage was not written (tried again every second): %s", e.msg);
            complained = now;
        }
        pthread_mutex_lock(&q->usage_lock);
    }
    pthread_mutex_unlock(&q->usage_lock);
    return NULL;
}

err_code usage_start(island *i, err *e) {
    quota *q = i->quota;
    if (!table_make(&q->now) || !table_make(&q->out)) return err_nomem(e, "the counts of usage");
    q->m_lost = metric_get(METRIC_COUNTER, "polder_usage_lost_total", NULL, "Counts of usage that were not written");
    if (pthread_create(&q->flusher, NULL, run_flusher, i) != 0)
        return err_set(e, ERR_UNAVAILABLE, "a thread for the counts of usage cannot be started");
    q->has_flusher = true;
    return ERR_OK;
}

void usage_stop(island *i) {
    quota *q = i->quota;
    if (q->has_flusher) {
        pthread_mutex_lock(&q->usage_lock);
        q->stop = true;
        pthread_cond_signal(&q->wake);
        pthread_mutex_unlock(&q->usage_lock);
        pthread_join(q->flusher, NULL);
        err e = {0};
        if (usage_flush(i, &e) != ERR_OK) log_msg(LOG_ERROR, "island", "the last counts of usage are lost: %s", e.msg);
    }
    table_free(&q->now);
    table_free(&q->out);
}

/* ---- budgets from the store -------------------------------------------------------------------------------- */

static void set_budgets(meter *m, store_stmt *q, int32_t today) {
    if (!m) return;
    m->day = (budget){today, (uint64_t)store_col_int(q, 1), (uint64_t)store_col_int(q, 2)};
    m->month = (budget){utc_month(today), (uint64_t)store_col_int(q, 3), (uint64_t)store_col_int(q, 4)};
}

static err_code load_by(island *i, const char *sql, meter *only, int32_t today, err *e) {
    store_stmt *q;
    store_val v[] = {SV_INT(today), SV_INT(utc_month_first(utc_month(today)))};
    err_code code = store_query(&q, i->st, sql, v, 2, e);
    if (code != ERR_OK) return code;
    err step = {0};
    while (store_step(q, &step)) {
        const char *owner = store_col_text(q, 0, NULL);
        if (!owner) continue;
        if (!only)
            set_budgets(meter_find(i->quota, owner), q, today);
        else if (strcmp(owner, only->g.owner) == 0)
            set_budgets(only, q, today);
    }
    store_finish(q);
    if (step.code != ERR_OK && e) *e = step;
    return step.code;
}

#define BUDGET_SUMS                                                        \
    "sum((day = ?1) * (tokens_in + tokens_out)), sum((day = ?1) * cost), " \
    "sum(tokens_in + tokens_out), sum(cost) FROM usage WHERE day BETWEEN ?2 AND ?1 GROUP BY 1"

err_code usage_load(island *i, meter *only, int64_t unix_ms, err *e) {
    int32_t today = utc_day(unix_ms);
    err_code code = load_by(i, "SELECT key, " BUDGET_SUMS, only, today, e);
    return code == ERR_OK ? load_by(i, "SELECT 'p:' || project, " BUDGET_SUMS, only, today, e) : code;
}

/* ---- reports ----------------------------------------------------------------------------------------------- */

static const struct {
    const char *by, *sql;
} groupings[] = {
    {"key", "SELECT u.key, max(k.name), "}, {"project", "SELECT u.project, NULL, "},
    {"model", "SELECT u.model, NULL, "},    {"provider", "SELECT u.provider, NULL, "},
    {"day", "SELECT u.day, NULL, "},
};

static bool add_counts(cJSON *o, const int64_t v[5]) {
    return cJSON_AddNumberToObject(o, "requests", (double)v[0]) &&
           cJSON_AddNumberToObject(o, "refused", (double)v[1]) &&
           cJSON_AddNumberToObject(o, "tokens_in", (double)v[2]) &&
           cJSON_AddNumberToObject(o, "tokens_out", (double)v[3]) &&
           cJSON_AddNumberToObject(o, "cost_eur", (double)v[4] / LIMIT_EUR);
}

static bool report_row(cJSON *list, const char *by, store_stmt *q, int64_t total[5]) {
    char date[16];
    int64_t v[5];
    const char *what = date, *name = store_col_text(q, 1, NULL);
    cJSON *o = cJSON_CreateObject();
    if (!o || !cJSON_AddItemToArray(list, o)) {
        cJSON_Delete(o);
        return false;
    }
    if (strcmp(by, "day") == 0)
        utc_date(date, (int32_t)store_col_int(q, 0));
    else
        what = store_col_text(q, 0, NULL);
    for (int k = 0; k < 5; k++) total[k] += v[k] = store_col_int(q, 2 + k);
    return what && cJSON_AddStringToObject(o, by, what) && (!name || cJSON_AddStringToObject(o, "name", name)) &&
           add_counts(o, v);
}

static err_code report_rows(store_stmt *q, const char *by, cJSON *o, err *e) {
    int64_t total[5] = {0};
    cJSON *list = cJSON_AddArrayToObject(o, "usage");
    bool ok = list != NULL;
    err step = {0};
    while (ok && store_step(q, &step)) ok = report_row(list, by, q, total);
    if (ok && step.code != ERR_OK) {
        if (e) *e = step;
        return step.code;
    }
    cJSON *sum = ok ? cJSON_AddObjectToObject(o, "total") : NULL;
    return sum && add_counts(sum, total) ? ERR_OK : err_nomem(e, "a report of usage");
}

static err_code parse_day(int32_t *day, const char *what, const char *text, err *e) {
    if (!text || utc_parse(day, text)) return ERR_OK;
    return err_set(e, ERR_INVALID, "usage: %s \"%.20s\" is no date; write it as 2026-11-22", what, text);
}

err_code usage_report(island *i, const char *by, const char *from, const char *to, cJSON **out, err *e) {
    int32_t last = utc_day(time_unix_ms()), first = utc_month_first(utc_month(last));
    const char *sql = NULL;
    char text[600], from_date[16], to_date[16];
    *out = NULL;
    if (!by) by = "key";
    for (size_t k = 0; k < sizeof groupings / sizeof groupings[0]; k++)
        if (strcmp(groupings[k].by, by) == 0) sql = groupings[k].sql;
    if (!sql) return err_set(e, ERR_INVALID, "usage: by \"%.20s\": it is key, project, model, provider or day", by);
    err_code code = parse_day(&first, "from", from, e);
    if (code == ERR_OK) code = parse_day(&last, "to", to, e);
    if (code == ERR_OK && i->quota) code = usage_flush(i, e);
    if (code != ERR_OK) return code;
    snprintf(
        text, sizeof text,
        "%ssum(requests), sum(refused), sum(tokens_in), sum(tokens_out), sum(cost) FROM usage u LEFT JOIN api_keys k "
        "ON k.id = u.key WHERE u.day BETWEEN ? AND ? GROUP BY 1 ORDER BY 1 LIMIT %d",
        sql, REPORT_ROWS_MAX);
    store_stmt *q;
    code = store_query(&q, i->st, text, (store_val[]){SV_INT(first), SV_INT(last)}, 2, e);
    if (code != ERR_OK) return code;
    utc_date(from_date, first);
    utc_date(to_date, last);
    cJSON *o = cJSON_CreateObject();
    bool ok = o && cJSON_AddStringToObject(o, "by", by) && cJSON_AddStringToObject(o, "from", from_date) &&
              cJSON_AddStringToObject(o, "to", to_date);
    code = ok ? report_rows(q, by, o, e) : err_nomem(e, "a report of usage");
    store_finish(q);
    if (code == ERR_OK)
        *out = o;
    else
        cJSON_Delete(o);
    return code;
}
