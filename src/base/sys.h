/* Time, logs, and the few thread helpers.
 *
 * Logs go to stderr, one line each: "2026-11-22T10:00:00.000Z info ledger: …". Foreign bytes in arguments are
 * sanitised; secrets are never passed here. Thread-safe.
 */
#ifndef POLDER_BASE_SYS_H
#define POLDER_BASE_SYS_H

#include "base/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

int64_t time_unix_ms(void);
uint64_t time_mono_ns(void);
void sleep_ms(int64_t ms);
/* RFC 3339 in UTC with milliseconds: 24 characters and NUL. */
void time_rfc3339(char out[32], int64_t unix_ms);

typedef enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } log_level;
void log_set_level(log_level level); /* default LOG_INFO */
void log_msg(log_level level, const char *area, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* CPUs this process may use: affinity and cgroup quota respected, at least 1. */
unsigned sys_cpu_count(void);
uint64_t sys_peak_rss_kib(void);
uint64_t sys_rss_kib(void);

/* pthread_cond_timedwait against the monotonic clock; the condition must come from cond_init. false on timeout. */
void cond_init(pthread_cond_t *c);
bool cond_wait_ms(pthread_cond_t *c, pthread_mutex_t *m, int64_t timeout_ms);

#endif
