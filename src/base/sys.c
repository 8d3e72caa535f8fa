#include "base/sys.h"

#include "base/buf.h"
#include "base/bytes.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

int64_t time_unix_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

uint64_t time_mono_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void sleep_ms(int64_t ms) {
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) continue;
}

static char *put_digits(char *p, unsigned v, int n, char after) {
    for (int i = n; i-- > 0; v /= 10) p[i] = (char)('0' + v % 10);
    p[n] = after;
    return p + n + 1;
}

/* The day of the Gregorian calendar that is so many days after 1970-01-01. Years begin in March here, so that the leap
 * day is the last of one, and 400 of them have 146,097 days. gmtime_r gives the same, but takes the lock of the time
 * zones, looks whether they have changed, and is ten times as long. */
static void civil_day(int64_t days, int64_t *year, unsigned *month, unsigned *day) {
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097;
    unsigned of_era = (unsigned)(z - era * 146097);
    unsigned y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    unsigned of_year = of_era - (365 * y + y / 4 - y / 100), m = (5 * of_year + 2) / 153;
    *day = of_year - (153 * m + 2) / 5 + 1;
    *month = m < 10 ? m + 3 : m - 9;
    *year = era * 400 + y + (*month <= 2);
}

void time_rfc3339(char out[32], int64_t unix_ms) {
    int64_t days = unix_ms / 86400000, year;
    int64_t ms = unix_ms % 86400000;
    unsigned month, day;
    if (ms < 0) {
        ms += 86400000;
        days--;
    }
    civil_day(days, &year, &month, &day);
    unsigned s = (unsigned)(ms / 1000);
    char *p = put_digits(out, (unsigned)year % 10000, 4, '-');
    p = put_digits(p, month, 2, '-');
    p = put_digits(p, day, 2, 'T');
    p = put_digits(p, s / 3600, 2, ':');
    p = put_digits(p, s / 60 % 60, 2, ':');
    p = put_digits(p, s % 60, 2, '.');
    p = put_digits(p, (unsigned)(ms % 1000), 3, 'Z');
    *p = 0;
}

static _Atomic int level_now = LOG_INFO;
void log_set_level(log_level level) {
    atomic_store(&level_now, (int)level);
}

void log_msg(log_level level, const char *area, const char *fmt, ...) {
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if ((int)level < atomic_load_explicit(&level_now, memory_order_relaxed)) return;
    int saved = errno;
    buf raw = {.max = 8192}, line = {.max = 32768};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&raw, fmt, ap);
    va_end(ap);
    char when[32];
    time_rfc3339(when, time_unix_ms());
    buf_printf(&line, "%s %s %s: ", when, names[level], area);
    text_sanitise(&line, buf_str(&raw), strlen(buf_str(&raw)), false);
    buf_putc(&line, '\n');
    /* one write, so that lines of two threads do not mix; a log that cannot be written stops nothing */
    if (!line.failed && write(STDERR_FILENO, line.ptr, line.len) < 0) saved = errno;
    buf_free(&raw);
    buf_free(&line);
    errno = saved;
}

/* The quota of the nearest cgroup v2 with one, in CPUs rounded up; 0 where there is none. */
static unsigned cgroup_cpus(void) {
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) return 0;
    char line[1024], path[2048];
    unsigned cpus = 0;
    path[0] = 0;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::", 3) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(path, sizeof path, "/sys/fs/cgroup%s", line + 3);
    }
    fclose(f);
    /* a quota may stand at any level above: the tightest holds */
    while (strlen(path) >= strlen("/sys/fs/cgroup")) {
        char file[2100];
        snprintf(file, sizeof file, "%s/cpu.max", path);
        FILE *q = fopen(file, "re");
        if (q) {
            long long quota, period;
            if (fscanf(q, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
                unsigned n = (unsigned)((quota + period - 1) / period);
                if (cpus == 0 || n < cpus) cpus = n;
            }
            fclose(q);
        }
        char *slash = strrchr(path, '/');
        if (!slash) break;
        *slash = 0;
    }
    return cpus;
}

unsigned sys_cpu_count(void) {
    cpu_set_t set;
    unsigned n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = (unsigned)CPU_COUNT(&set);
    unsigned quota = cgroup_cpus();
    if (quota && quota < n) n = quota;
    return n ? n : 1;
}

uint64_t sys_peak_rss_kib(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (uint64_t)u.ru_maxrss : 0;
}

uint64_t sys_rss_kib(void) {
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f) return 0;
    unsigned long long total = 0, resident = 0;
    if (fscanf(f, "%llu %llu", &total, &resident) != 2) resident = 0;
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE) / 1024;
}

void cond_init(pthread_cond_t *c) {
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(c, &a);
    pthread_condattr_destroy(&a);
}

bool cond_wait_ms(pthread_cond_t *c, pthread_mutex_t *m, int64_t timeout_ms) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += timeout_ms / 1000;
    t.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    return pthread_cond_timedwait(c, m, &t) != ETIMEDOUT;
}
