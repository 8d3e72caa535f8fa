/* Meters: what was asked for in the minute that has just passed, and what is left of budgets.
 *
 * A meter belongs to a key or to a project. A request goes through quota_enter before anything else is done for it and
 * through quota_leave when it is over; neither touches the disk. Meters are looked up by name at both ends, so a key
 * that is revoked or changed in between costs nothing but that its late charge goes to whom the name means then. */
#include "island/internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define COST_MAX        1e6        /* EUR of one request; more is a mistake of who computed it */
#define TOKENS_MAX      1000000000 /* of one request, as well */
#define METRIC_LABELS   500        /* keys and projects with lines of their own in /metrics; further ones share one */
#define REFUSED_MODEL   LIMIT_COUNT
#define REFUSED_PROJECT (LIMIT_COUNT + 1)

/* ---- time -------------------------------------------------------------------------------------------------- */

int32_t utc_day(int64_t unix_ms) {
    return (int32_t)(unix_ms / 86400000);
}

/* Days to a date of the Gregorian calendar, counted in years that begin in March, so that the leap day is the last. */
static void civil(int32_t day, int *y, int *m, int *d) {
    int32_t z = day + 719468, era = z / 146097, doe = z - era * 146097;
    int32_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int32_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    *d = doy - (153 * mp + 2) / 5 + 1;
    *m = mp < 10 ? mp + 3 : mp - 9;
    *y = yoe + era * 400 + (*m <= 2);
}

static int32_t days_of(int y, int m, int d) {
    y -= m <= 2;
    int32_t era = y / 400, yoe = y - era * 400, doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

int32_t utc_month(int32_t day) {
    int y, m, d;
    civil(day, &y, &m, &d);
    return (y - 1970) * 12 + m - 1;
}

int32_t utc_month_first(int32_t month) {
    return days_of(1970 + month / 12, month % 12 + 1, 1);
}

void utc_date(char out[16], int32_t day) {
    int y, m, d;
    civil(day, &y, &m, &d);
    snprintf(out, 16, "%04d-%02d-%02d", y % 10000, m % 100, d % 100);
}

bool utc_parse(int32_t *day, const char *s) {
    char back[16];
    if (strlen(s) != 10 || s[4] != '-' || s[7] != '-') return false;
    for (int k = 0; k < 10; k++)
        if (k != 4 && k != 7 && (s[k] < '0' || s[k] > '9')) return false;
    int y = (s[0] - '0') * 1000 + (s[1] - '0') * 100 + (s[2] - '0') * 10 + s[3] - '0';
    int m = (s[5] - '0') * 10 + s[6] - '0', d = (s[8] - '0') * 10 + s[9] - '0';
    if (y < 1970 || m < 1 || m > 12 || d < 1 || d > 31) return false;
    *day = days_of(y, m, d);
    utc_date(back, *day);
    return strcmp(back, s) == 0; /* 2026-02-30 comes back as another day */
}

/* ---- minute windows ---------------------------------------------------------------------------------------- */

static void window_move(window *w, int64_t now) {
    if (now <= w->at) return; /* a clock that stands still or goes back counts into the newest slot */
    if (now - w->at >= WINDOW_SLOTS) {
        memset(w->slot, 0, sizeof w->slot);
        w->sum = 0;
    } else {
        for (int64_t s = w->at + 1; s <= now; s++) {
            w->sum -= w->slot[s % WINDOW_SLOTS];
            w->slot[s % WINDOW_SLOTS] = 0;
        }
    }
    w->at = now;
}

static void window_add(window *w, int64_t now, uint64_t n) {
    if (!w) return;
    window_move(w, now);
    if (n > LIMIT_MAX) n = LIMIT_MAX;
    w->slot[w->at % WINDOW_SLOTS] += n;
    w->sum += n;
}

/* 0, or seconds until the window holds less than `limit`. */
static int window_wait(window *w, int64_t now, uint64_t limit) {
    if (!w || !limit) return 0;
    window_move(w, now);
    if (w->sum < limit) return 0;
    uint64_t left = w->sum;
    for (int s = 1; s <= WINDOW_SLOTS; s++) {
        left -= w->slot[(w->at + s) % WINDOW_SLOTS]; /* the oldest first */
        if (left < limit) return s;
    }
    return WINDOW_SLOTS;
}

/* ---- meters ------------------------------------------------------------------------------------------------ */

static size_t bucket_of(const char *owner) {
    uint64_t h = 1469598103934665603u; /* FNV-1a */
    for (; *owner; owner++) h = (h ^ (uint8_t)*owner) * 1099511628211u;
    return (size_t)((h ^ h >> 32) % METER_BUCKETS);
}

meter *meter_find(const quota *q, const char *owner) {
    meter *m = q->buckets[bucket_of(owner)];
    while (m && strcmp(m->g.owner, owner) != 0) m = m->next;
    return m;
}

static metric *tokens_metric(const char *labels, const char *direction) {
    char all[160];
    snprintf(all, sizeof all, "%s,direction=\"%s\"", labels, direction);
    return metric_get(METRIC_COUNTER, "polder_usage_tokens_total", all, "Tokens by project and key");
}

static metric *requests_metric(const char *labels) {
    return metric_get(METRIC_COUNTER, "polder_usage_requests_total", labels, "Requests by project and key");
}

/* Names are [a-z0-9._-], so nothing needs escaping. Requests of a project that come without a key of ours (OIDC) have
 * the project's line. */
static void find_metrics(meter *m) {
    static atomic_int lines;
    char labels[128];
    bool room = atomic_fetch_add(&lines, 1) < METRIC_LABELS, is_project = m->g.owner[0] == 'p';
    if (!room) atomic_fetch_sub(&lines, 1);
    if (!room)
        snprintf(labels, sizeof labels, "project=\"other\",key=\"other\"");
    else if (is_project)
        snprintf(labels, sizeof labels, "project=\"%s\",key=\"oidc\"", m->g.owner + 2);
    else
        snprintf(labels, sizeof labels, "project=\"%s\",key=\"%s\"", m->g.project, m->g.owner);
    m->m_requests = requests_metric(labels);
    m->m_tokens_in = tokens_metric(labels, "in");
    m->m_tokens_out = tokens_metric(labels, "out");
}

err_code meter_new(meter **out, grant_row *g, err *e) {
    meter *m = *out = mem_zalloc(sizeof *m);
    if (!m) {
        grant_clear(g);
        return err_nomem(e, "a meter");
    }
    pthread_mutex_init(&m->lock, NULL);
    m->g = *g;
    g->models = NULL;
    if (m->g.limits[LIMIT_REQUESTS_MINUTE]) m->requests = mem_zalloc(sizeof *m->requests);
    if (m->g.limits[LIMIT_TOKENS_MINUTE]) m->tokens = mem_zalloc(sizeof *m->tokens);
    if ((m->g.limits[LIMIT_REQUESTS_MINUTE] && !m->requests) || (m->g.limits[LIMIT_TOKENS_MINUTE] && !m->tokens)) {
        meter_free(m);
        *out = NULL;
        return err_nomem(e, "a meter");
    }
    find_metrics(m);
    return ERR_OK;
}

void meter_free(meter *m) {
    if (!m) return;
    pthread_mutex_destroy(&m->lock);
    grant_clear(&m->g);
    mem_free(m->requests);
    mem_free(m->tokens);
    mem_free(m);
}

/* Counts go on where a limit stays. */
static void take_over(meter *m, const meter *old) {
    if (m->requests && old->requests) *m->requests = *old->requests;
    if (m->tokens && old->tokens) *m->tokens = *old->tokens;
    m->day = old->day;
    m->month = old->month;
}

/* Takes the meter of that owner out of the lists; quota.lock is held for writing. */
static meter *unlink_meter(quota *q, const char *owner) {
    meter **at = &q->buckets[bucket_of(owner)];
    while (*at && strcmp((*at)->g.owner, owner) != 0) at = &(*at)->next;
    meter *m = *at;
    if (m) *at = m->next;
    return m;
}

void meter_install(island *i, meter *m) {
    quota *q = i->quota;
    pthread_rwlock_wrlock(&q->lock);
    meter *old = unlink_meter(q, m->g.owner), **at = &q->buckets[bucket_of(m->g.owner)];
    if (old) take_over(m, old);
    m->next = *at;
    *at = m;
    pthread_rwlock_unlock(&q->lock);
    meter_free(old);
}

void meter_drop(island *i, const char *owner) {
    pthread_rwlock_wrlock(&i->quota->lock);
    meter *old = unlink_meter(i->quota, owner);
    pthread_rwlock_unlock(&i->quota->lock);
    meter_free(old);
}

err_code meter_grant(island *i, const char *owner, grant_row *out, err *e) {
    memset(out, 0, sizeof *out);
    pthread_rwlock_rdlock(&i->quota->lock);
    const meter *m = meter_find(i->quota, owner);
    err_code code = m ? grant_copy(out, &m->g, e) : err_set(e, ERR_NOT_FOUND, "%s: nothing is granted to it", owner);
    pthread_rwlock_unlock(&i->quota->lock);
    return code;
}

bool meter_floor(island *i, const char *owner, char out[FLOOR_MAX + 1]) {
    pthread_rwlock_rdlock(&i->quota->lock);
    const meter *m = meter_find(i->quota, owner);
    if (m) memcpy(out, m->g.floor, FLOOR_MAX + 1);
    pthread_rwlock_unlock(&i->quota->lock);
    return m != NULL;
}

/* ---- budgets ----------------------------------------------------------------------------------------------- */

static void budget_move(budget *b, int32_t period) {
    if (b->period >= period) return; /* a clock that was set back does not give a budget anew */
    *b = (budget){.period = period};
}

static void budgets_move(meter *m, int64_t unix_ms) {
    int32_t day = utc_day(unix_ms);
    if (m->day.period == day) return;
    budget_move(&m->day, day);
    budget_move(&m->month, utc_month(day));
}

bool meter_used_json(island *i, const char *owner, cJSON *o) {
    pthread_rwlock_rdlock(&i->quota->lock);
    meter *m = meter_find(i->quota, owner);
    budget day = {0}, month = {0};
    if (m) {
        pthread_mutex_lock(&m->lock);
        budgets_move(m, time_unix_ms());
        day = m->day;
        month = m->month;
        pthread_mutex_unlock(&m->lock);
    }
    pthread_rwlock_unlock(&i->quota->lock);
    cJSON *u = cJSON_AddObjectToObject(o, "used");
    return u && cJSON_AddNumberToObject(u, limit_name(LIMIT_TOKENS_DAY), (double)day.tokens) &&
           cJSON_AddNumberToObject(u, limit_name(LIMIT_TOKENS_MONTH), (double)month.tokens) &&
           cJSON_AddNumberToObject(u, limit_name(LIMIT_EUR_DAY), (double)day.cost / LIMIT_EUR) &&
           cJSON_AddNumberToObject(u, limit_name(LIMIT_EUR_MONTH), (double)month.cost / LIMIT_EUR);
}

/* ---- entering ---------------------------------------------------------------------------------------------- */

/* "the project x", "the key NAME" for sentences. */
static void subject(char out[96], const meter *m, const identity *who) {
    if (m->g.owner[0] == 'p')
        snprintf(out, 96, "the project %s", m->g.owner + 2);
    else
        snprintf(out, 96, "the key \"%s\"", who->name[0] ? who->name : who->key_id);
}

static err_code refuse(island *i, const identity *who, int why, quota_time t, err_code code) {
    usage_row r = {.day = utc_day(t.unix_ms), .refused = 1};
    snprintf(r.project, sizeof r.project, "%s", who->project);
    snprintf(r.key, sizeof r.key, "%s", who->key_id);
    metric_add(i->quota->m_refused[why], 1);
    usage_count(i, &r);
    return code;
}

static err_code check_model(const meter *m, const identity *who, const char *model, err *e) {
    char s[96];
    if (!m || grant_has_model(m->g.models, model)) return ERR_OK;
    subject(s, m, who);
    return err_set(e, ERR_DENIED, "model \"%.64s\": %s may not use it; it may use %s", model, s, m->g.models);
}

static int seconds_to_day(int64_t unix_ms, int32_t day) {
    int64_t left = (int64_t)day * 86400000 - unix_ms;
    return left > 0 ? (int)((left + 999) / 1000) : 1;
}

/* Seconds to wait for one limit; 0: it holds. The meter is locked and moved. */
static int limit_wait(meter *m, limit_kind k, quota_time t) {
    uint64_t limit = (uint64_t)m->g.limits[k];
    int32_t day = utc_day(t.unix_ms);
    bool over = false, monthly = false;
    if (!limit) return 0;
    switch (k) {
    case LIMIT_REQUESTS_MINUTE: return window_wait(m->requests, t.mono_s, limit);
    case LIMIT_TOKENS_MINUTE: return window_wait(m->tokens, t.mono_s, limit);
    case LIMIT_TOKENS_DAY: over = m->day.tokens >= limit; break;
    case LIMIT_EUR_DAY: over = m->day.cost >= limit; break;
    case LIMIT_TOKENS_MONTH: over = m->month.tokens >= limit, monthly = true; break;
    case LIMIT_EUR_MONTH: over = m->month.cost >= limit, monthly = true; break;
    case LIMIT_COUNT: break;
    }
    if (!over) return 0;
    return seconds_to_day(t.unix_ms, monthly ? utc_month_first(utc_month(day) + 1) : day + 1);
}

/* The limit that keeps the request out longest; LIMIT_COUNT where all hold. */
static limit_kind check_limits(meter *m, quota_time t, int *wait) {
    limit_kind worst = LIMIT_COUNT;
    if (!m) return worst;
    budgets_move(m, t.unix_ms);
    for (int k = 0; k < LIMIT_COUNT; k++) {
        int s = limit_wait(m, (limit_kind)k, t);
        if (s <= *wait) continue;
        *wait = s;
        worst = (limit_kind)k;
    }
    return worst;
}

static err_code say_limit(const meter *m, const identity *who, limit_kind k, int wait, err *e) {
    char s[96], amount[40];
    subject(s, m, who);
    if (limit_is_eur(k))
        snprintf(amount, sizeof amount, "%.2f", (double)m->g.limits[k] / LIMIT_EUR);
    else
        snprintf(amount, sizeof amount, "%lld", (long long)m->g.limits[k]);
    err_set(e, ERR_BUSY, "%s has used up its %s %s; try again in %d s", s, amount, limit_words(k), wait);
    if (e) e->retry_after_s = wait;
    return ERR_BUSY;
}

static void lock_both(meter *key, meter *project) {
    if (key) pthread_mutex_lock(&key->lock);
    if (project) pthread_mutex_lock(&project->lock);
}

static void unlock_both(meter *key, meter *project) {
    if (project) pthread_mutex_unlock(&project->lock);
    if (key) pthread_mutex_unlock(&key->lock);
}

/* Both meters under their locks, so that what is checked is what is counted. */
static err_code enter_meters(meter *key, meter *project, const identity *who, quota_time t, int *why, err *e) {
    int wait = 0;
    err_code code = ERR_OK;
    lock_both(key, project);
    limit_kind k = check_limits(key, t, &wait), p = check_limits(project, t, &wait);
    if (k != LIMIT_COUNT || p != LIMIT_COUNT) {
        *why = p != LIMIT_COUNT ? (int)p : (int)k; /* the project's only where it keeps out longer */
        code = say_limit(p != LIMIT_COUNT ? project : key, who, (limit_kind)*why, wait, e);
    } else {
        if (key) window_add(key->requests, t.mono_s, 1);
        if (project) window_add(project->requests, t.mono_s, 1);
    }
    unlock_both(key, project);
    return code;
}

static meter *project_meter(const quota *q, const identity *who) {
    char owner[GRANT_OWNER_MAX];
    if (!who->project[0]) return NULL;
    project_owner(owner, who->project);
    return meter_find(q, owner);
}

err_code quota_enter_at(island *i, const identity *who, const char *model, quota_hold *h, quota_time t, err *e) {
    quota *q = i->quota;
    int why = REFUSED_MODEL;
    memset(h, 0, sizeof *h);
    if (!q) return err_set(e, ERR_DENIED, "%s: is open for reading only", i->dir);
    pthread_rwlock_rdlock(&q->lock);
    meter *key = meter_find(q, who->key_id), *project = project_meter(q, who);
    err_code code = ERR_OK;
    if (who->project[0] && !project) {
        why = REFUSED_PROJECT;
        code = err_set(e, ERR_DENIED, "the project %s is not there any more", who->project);
    }
    if (code == ERR_OK) code = check_model(key, who, model, e);
    if (code == ERR_OK) code = check_model(project, who, model, e);
    if (code == ERR_OK) code = enter_meters(key, project, who, t, &why, e);
    pthread_rwlock_unlock(&q->lock);
    if (code != ERR_OK) return refuse(i, who, why, t, code);
    h->who = *who;
    text_copy(h->model, sizeof h->model, model);
    h->held = true;
    return ERR_OK;
}

static quota_time time_now(void) {
    return (quota_time){.mono_s = (int64_t)(time_mono_ns() / 1000000000u), .unix_ms = time_unix_ms()};
}

err_code quota_enter(island *i, const identity *who, const char *model, quota_hold *h, err *e) {
    return quota_enter_at(i, who, model, h, time_now(), e);
}

bool quota_allows_model(island *i, const identity *who, const char *model) {
    quota *q = i->quota;
    if (!q) return false;
    pthread_rwlock_rdlock(&q->lock);
    const meter *key = meter_find(q, who->key_id), *project = project_meter(q, who);
    bool gone = who->project[0] && !project;
    bool ok = !gone && (!key || grant_has_model(key->g.models, model)) &&
              (!project || grant_has_model(project->g.models, model));
    pthread_rwlock_unlock(&q->lock);
    return ok;
}

/* ---- leaving ----------------------------------------------------------------------------------------------- */

static void charge(meter *m, uint64_t tokens, uint64_t cost, quota_time t) {
    if (!m) return;
    pthread_mutex_lock(&m->lock);
    window_add(m->tokens, t.mono_s, tokens);
    budgets_move(m, t.unix_ms);
    m->day.tokens += tokens;
    m->month.tokens += tokens;
    m->day.cost += cost;
    m->month.cost += cost;
    pthread_mutex_unlock(&m->lock);
}

static void count_metrics(const quota *q, const meter *key, const meter *project, const usage_row *r) {
    const meter *m = key ? key : project;
    metric_add(m ? m->m_requests : q->m_other_requests, (double)r->requests);
    metric_add(m ? m->m_tokens_in : q->m_other_in, (double)r->tokens_in);
    metric_add(m ? m->m_tokens_out : q->m_other_out, (double)r->tokens_out);
}

static uint64_t at_most(uint64_t v, uint64_t max) {
    return v < max ? v : max;
}

void quota_leave_at(island *i, quota_hold *h, const char *provider, uint64_t tokens_in, uint64_t tokens_out,
                    double cost_eur, quota_time t) {
    quota *q = i->quota;
    if (!h->held || !q) return;
    h->held = false;
    uint64_t cost = 0;
    if (cost_eur > 0) cost = (uint64_t)llround((cost_eur < COST_MAX ? cost_eur : COST_MAX) * LIMIT_EUR);
    usage_row r = {.day = utc_day(t.unix_ms),
                   .requests = 1,
                   .tokens_in = at_most(tokens_in, TOKENS_MAX),
                   .tokens_out = at_most(tokens_out, TOKENS_MAX),
                   .cost = cost};
    text_copy(r.project, sizeof r.project, h->who.project);
    text_copy(r.key, sizeof r.key, h->who.key_id);
    if (provider) { /* a name that led nowhere is the caller's text: it must not make rows */
        text_copy(r.model, sizeof r.model, h->model);
        text_copy(r.provider, sizeof r.provider, provider);
    }
    pthread_rwlock_rdlock(&q->lock);
    meter *key = meter_find(q, r.key), *project = project_meter(q, &h->who);
    charge(key, r.tokens_in + r.tokens_out, cost, t);
    charge(project, r.tokens_in + r.tokens_out, cost, t);
    count_metrics(q, key, project, &r);
    pthread_rwlock_unlock(&q->lock);
    usage_count(i, &r);
}

void quota_leave(island *i, quota_hold *h, const char *provider, uint64_t tokens_in, uint64_t tokens_out,
                 double cost_eur) {
    quota_leave_at(i, h, provider, tokens_in, tokens_out, cost_eur, time_now());
}

/* ---- opening ----------------------------------------------------------------------------------------------- */

static metric *refusals(const char *why) {
    char labels[64];
    snprintf(labels, sizeof labels, "why=\"%s\"", why);
    return metric_get(METRIC_COUNTER, "polder_quota_refusals_total", labels, "Requests refused by limits and budgets");
}

static void open_metrics(quota *q) {
    for (int k = 0; k < LIMIT_COUNT; k++) q->m_refused[k] = refusals(limit_name((limit_kind)k));
    q->m_refused[REFUSED_MODEL] = refusals("model");
    q->m_refused[REFUSED_PROJECT] = refusals("project");
    q->m_other_requests = requests_metric("project=\"\",key=\"\"");
    q->m_other_in = tokens_metric("project=\"\",key=\"\"", "in");
    q->m_other_out = tokens_metric("project=\"\",key=\"\"", "out");
}

/* A grant that was tampered with is left out: what needs it does not work. */
static err_code load_grants(island *i, err *e) {
    store_stmt *q;
    err_code code = store_query(&q, i->st,
                                "SELECT " GRANT_COLUMNS " FROM grants g WHERE EXISTS(SELECT 1 FROM projects p WHERE "
                                "g.owner = 'p:' || p.name) OR EXISTS(SELECT 1 FROM api_keys k WHERE k.id = g.owner "
                                "AND k.revoked_ms IS NULL)",
                                NULL, 0, e);
    if (code != ERR_OK) return code;
    err step = {0};
    while (code == ERR_OK && store_step(q, &step)) {
        grant_row g;
        meter *m;
        err why;
        code = grant_read(i, q, 0, &g, &why);
        if (code == ERR_CORRUPT) {
            log_msg(LOG_ERROR, "island", "%s", why.msg);
            code = ERR_OK;
            continue;
        }
        if (code == ERR_OK)
            code = meter_new(&m, &g, e);
        else if (e)
            *e = why;
        if (code == ERR_OK) meter_install(i, m);
    }
    if (code == ERR_OK && step.code != ERR_OK) {
        code = step.code;
        if (e) *e = step;
    }
    store_finish(q);
    return code;
}

err_code quota_open(island *i, err *e) {
    quota *q = i->quota = mem_zalloc(sizeof *q);
    if (!q) return err_nomem(e, "quotas");
    pthread_rwlock_init(&q->lock, NULL);
    pthread_mutex_init(&q->usage_lock, NULL);
    pthread_mutex_init(&q->flush_lock, NULL);
    cond_init(&q->wake);
    open_metrics(q);
    err_code code = load_grants(i, e);
    if (code == ERR_OK) code = usage_load(i, NULL, time_unix_ms(), e);
    return code == ERR_OK ? usage_start(i, e) : code;
}

void quota_close(island *i) {
    quota *q = i->quota;
    if (!q) return;
    usage_stop(i);
    for (size_t b = 0; b < METER_BUCKETS; b++)
        while (q->buckets[b]) {
            meter *m = q->buckets[b];
            q->buckets[b] = m->next;
            meter_free(m);
        }
    pthread_rwlock_destroy(&q->lock);
    pthread_mutex_destroy(&q->usage_lock);
    pthread_mutex_destroy(&q->flush_lock);
    pthread_cond_destroy(&q->wake);
    mem_free(q);
    i->quota = NULL;
}
