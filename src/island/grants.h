/* island, inside: grants as they are stored and kept in memory, and the meters that count against them.
 *
 *   grants.c   checking, storing, sealing, writing a grant
 *   quota.c    meters: minute windows and budgets; quota_enter and quota_leave
 *   usage.c    counts on their way to the store, and reports of them
 *
 * Order of locks: key_change (changes one at a time) → key_lock → quota.lock (who is metered) → a key's meter → its
 * project's meter → quota.usage_lock. quota.flush_lock is taken before usage_lock and under none of the meters'. */
#ifndef POLDER_ISLAND_GRANTS_H
#define POLDER_ISLAND_GRANTS_H

#include "island/island.h"

#include "base/metrics.h"

#include <pthread.h>

#define GRANT_OWNER_MAX 48 /* a key's id, or "p:" and the name of a project */
_Static_assert(GRANT_OWNER_MAX > PROJECT_NAME_MAX + 2 && GRANT_OWNER_MAX > KEY_ID_MAX, "holds both kinds of owner");

typedef struct grant_row {
    char owner[GRANT_OWNER_MAX];
    char project[PROJECT_NAME_MAX + 1];
    char floor[FLOOR_MAX + 1];
    char *models; /* "a, b*"; "" for all; owned */
    int64_t limits[LIMIT_COUNT];
} grant_row;

/* `before` (NULL: nothing granted or limited yet) with the change, checked. grant_clear by the caller. */
err_code grant_make(grant_row *out, const island *i, const char *owner, const grant_row *before, const grant *g,
                    err *e);
void grant_clear(grant_row *g);
err_code grant_copy(grant_row *out, const grant_row *g, err *e);
bool grant_has_model(const char *models, const char *model);
/* A copy of the words in canonical order; ERR_INVALID names the word that is neither a level nor a flag. */
err_code floor_check(char out[FLOOR_MAX + 1], const char *levels, const char *text, err *e);
/* The higher level and all flags. A text with a word that is not known (any more) stays as it is and wins. */
void floor_join(char out[FLOOR_MAX + 1], const char *levels, const char *a, const char *b);

/* Inside a transaction. */
err_code grant_write(island *i, store *s, const grant_row *g, err *e);
#define GRANT_COLUMNS                                                                                           \
    "g.owner, g.project, g.floor, g.models, g.requests_minute, g.tokens_minute, g.tokens_day, g.tokens_month, " \
    "g.eur_day, g.eur_month, g.mac"
/* From column `col` on. ERR_CORRUPT where the row is not one that grant_write wrote. */
err_code grant_read(const island *i, store_stmt *q, int col, grant_row *out, err *e);
/* Adds "floor", "models", "limits" to o ("project" too where the owner is a key); `all`: also what is not set. */
bool grant_json(cJSON *o, const grant_row *g, bool all);
void project_owner(char out[GRANT_OWNER_MAX], const char *project);

/* ---- meters ---------------------------------------------------------------------------------------------- */

#define WINDOW_SLOTS 61 /* of a second each: the one that runs, and the 60 before it */
typedef struct window { /* what was counted in the minute that has just passed */
    int64_t at;         /* the newest slot's second */
    uint64_t sum;
    uint64_t slot[WINDOW_SLOTS]; /* second s is in slot s % WINDOW_SLOTS */
} window;

typedef struct budget { /* counts of one day or month */
    int32_t period;
    uint64_t tokens;
    uint64_t cost; /* micro-euros */
} budget;

typedef struct meter {
    struct meter *next;
    grant_row g;
    pthread_mutex_t lock;      /* guards what follows */
    window *requests, *tokens; /* NULL where there is no such limit */
    budget day, month;
    metric *m_requests, *m_tokens_in, *m_tokens_out;
} meter;

#define METER_BUCKETS 4096
#define USAGE_ROWS    4096 /* different rows between two writes; more are written at once */
#define USAGE_INDEX   8192

typedef struct usage_row {
    int32_t day; /* since 1970-01-01, UTC */
    char project[PROJECT_NAME_MAX + 1];
    char key[KEY_ID_MAX];
    char model[65], provider[65];
    uint64_t requests, refused, tokens_in, tokens_out, cost; /* micro-euros */
} usage_row;

typedef struct usage_table {
    usage_row *rows; /* USAGE_ROWS */
    uint16_t *index; /* USAGE_INDEX: row + 1, or 0 */
    size_t n;
} usage_table;

typedef struct quota {
    pthread_rwlock_t lock; /* guards buckets and the lists behind them */
    meter *buckets[METER_BUCKETS];
    pthread_mutex_t usage_lock; /* guards now, stop */
    pthread_mutex_t flush_lock; /* guards out: one writer at a time */
    usage_table now, out;       /* counted since the last write; being written */
    pthread_cond_t wake;
    pthread_t flusher;
    bool has_flusher, stop;
    metric *m_refused[LIMIT_COUNT + 2]; /* a reason each: the limits, a model, a project that is gone */
    metric *m_lost, *m_other_requests, *m_other_in, *m_other_out;
} quota;

/* Opening for writing: meters of all keys and projects with what they have used, and the thread that writes counts. */
err_code quota_open(island *i, err *e);
void quota_close(island *i); /* writes what is left */

meter *meter_find(const quota *q, const char *owner); /* quota.lock is held */
/* A meter not yet in force; takes *g, also on error. Everything that can fail happens here. */
err_code meter_new(meter **out, grant_row *g, err *e);
void meter_free(meter *m); /* NULL is fine */
/* In force from now; replaces one of the same owner and keeps its counts. Cannot fail. */
void meter_install(island *i, meter *m);
void meter_drop(island *i, const char *owner);
/* A copy of what is granted; ERR_NOT_FOUND. */
err_code meter_grant(island *i, const char *owner, grant_row *out, err *e);
/* The floor alone; false where there is no such meter. */
bool meter_floor(island *i, const char *owner, char out[FLOOR_MAX + 1]);
/* What is used of budgets, added to o as "used". */
bool meter_used_json(island *i, const char *owner, cJSON *o);

/* The same as quota_enter and quota_leave at a given time. */
typedef struct quota_time {
    int64_t mono_s;
    int64_t unix_ms;
} quota_time;
err_code quota_enter_at(island *i, const identity *who, const char *model, quota_hold *h, quota_time t, err *e);
void quota_leave_at(island *i, quota_hold *h, const char *provider, uint64_t tokens_in, uint64_t tokens_out,
                    double cost_eur, quota_time t);

/* Time in UTC. */
int32_t utc_day(int64_t unix_ms);
int32_t utc_month(int32_t day);           /* months since 1970-01 */
int32_t utc_month_first(int32_t month);   /* its first day */
void utc_date(char out[16], int32_t day); /* "2026-11-22" */
bool utc_parse(int32_t *day, const char *text);

/* Adds what is in *r (a row of one request) to the counts. */
void usage_count(island *i, const usage_row *r);
/* Writes what was counted. */
err_code usage_flush(island *i, err *e);
err_code usage_start(island *i, err *e);
void usage_stop(island *i);
/* Sets the budgets' counts of meters from the store: of all, or of one that is not installed yet (its owner's). */
err_code usage_load(island *i, meter *only, int64_t unix_ms, err *e);

#endif
