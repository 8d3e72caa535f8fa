#include "base/metrics.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { N_BUCKETS = 17 };

struct metric {
    struct metric *next;
    struct metric *_Atomic same_hash;
    enum metric_kind kind;
    char *name, *labels, *help;
    _Atomic double value; /* counter, gauge; histogram: sum */
    _Atomic uint64_t count;
    _Atomic uint64_t buckets[N_BUCKETS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static metric *_Atomic all; /* sorted by name, then labels; only ever grows */
static metric sink;         /* where updates go when memory ran out */

/* The same by a hash of name and labels. Read without the lock: metrics never go, and one is whole before it is here.
 */
enum { N_HASHES = 1024 };
static metric *_Atomic by_hash[N_HASHES];

static int compare(const metric *m, const char *name, const char *labels) {
    int c = strcmp(m->name, name);
    return c ? c : strcmp(m->labels, labels);
}

static metric *_Atomic *bucket_of(const char *name, const char *labels) {
    uint64_t h = 1469598103934665603u; /* FNV-1a */
    for (const char *p = name; *p; p++) h = (h ^ (unsigned char)*p) * 1099511628211u;
    for (const char *p = labels; *p; p++) h = (h ^ (unsigned char)*p) * 1099511628211u;
    return &by_hash[(h ^ h >> 32) % N_HASHES];
}

static metric *find(metric *_Atomic *bucket, const char *name, const char *labels) {
    metric *m = atomic_load_explicit(bucket, memory_order_acquire);
    while (m && compare(m, name, labels) != 0) m = atomic_load_explicit(&m->same_hash, memory_order_acquire);
    return m;
}

metric *metric_get(enum metric_kind kind, const char *name, const char *labels, const char *help) {
    if (!labels) labels = "";
    metric *_Atomic *bucket = bucket_of(name, labels);
    metric *known = find(bucket, name, labels);
    if (known) return known;
    pthread_mutex_lock(&lock);
    metric *prev = NULL, *m = all;
    while (m && compare(m, name, labels) < 0) {
        prev = m;
        m = m->next;
    }
    if (!m || compare(m, name, labels) != 0) {
        metric *fresh = mem_zalloc(sizeof *fresh);
        if (fresh) {
            fresh->kind = kind;
            fresh->name = mem_strdup(name);
            fresh->labels = mem_strdup(labels);
            fresh->help = mem_strdup(help);
        }
        if (!fresh || !fresh->name || !fresh->labels || !fresh->help) {
            if (fresh) {
                mem_free(fresh->name);
                mem_free(fresh->labels);
                mem_free(fresh->help);
                mem_free(fresh);
            }
            pthread_mutex_unlock(&lock);
            return &sink;
        }
        fresh->next = m;
        if (prev)
            prev->next = fresh;
        else
            all = fresh;
        atomic_store_explicit(&fresh->same_hash, atomic_load(bucket), memory_order_relaxed);
        atomic_store_explicit(bucket, fresh, memory_order_release);
        m = fresh;
    }
    pthread_mutex_unlock(&lock);
    return m;
}

static void add_double(_Atomic double *p, double v) {
    double old = atomic_load_explicit(p, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(p, &old, old + v)) {
    }
}

void metric_add(metric *m, double v) {
    add_double(&m->value, v);
}
void metric_set(metric *m, double v) {
    atomic_store(&m->value, v);
}

void metric_observe(metric *m, double v) {
    double bound = 0.001;
    for (int i = 0; i < N_BUCKETS; i++, bound *= 2) {
        if (v <= bound) {
            atomic_fetch_add(&m->buckets[i], 1);
            break;
        }
    }
    add_double(&m->value, v);
    atomic_fetch_add(&m->count, 1);
}

double metric_value(const metric *m) {
    return m->kind == METRIC_HISTOGRAM ? (double)atomic_load(&m->count) : atomic_load(&m->value);
}

static void print_line(buf *out, const metric *m, const char *suffix, const char *extra, double v) {
    buf_printf(out, "%s%s", m->name, suffix);
    if (m->labels[0] || extra[0]) buf_printf(out, "{%s%s%s}", m->labels, m->labels[0] && extra[0] ? "," : "", extra);
    buf_printf(out, " %.17g\n", v);
}

static void print_histogram(buf *out, const metric *m) {
    uint64_t seen = 0;
    double bound = 0.001;
    for (int i = 0; i < N_BUCKETS; i++, bound *= 2) {
        char le[48];
        seen += atomic_load(&m->buckets[i]);
        buf b = {.max = sizeof le};
        buf_printf(&b, "le=\"%.10g\"", bound);
        print_line(out, m, "_bucket", buf_str(&b), (double)seen);
        buf_free(&b);
    }
    double count = (double)atomic_load(&m->count);
    print_line(out, m, "_bucket", "le=\"+Inf\"", count);
    print_line(out, m, "_sum", "", atomic_load(&m->value));
    print_line(out, m, "_count", "", count);
}

void metrics_print(buf *out) {
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    pthread_mutex_lock(&lock);
    const char *last = "";
    for (const metric *m = all; m; m = m->next) {
        if (strcmp(last, m->name) != 0)
            buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, kinds[m->kind]);
        last = m->name;
        if (m->kind == METRIC_HISTOGRAM)
            print_histogram(out, m);
        else
            print_line(out, m, "", "", atomic_load(&m->value));
    }
    pthread_mutex_unlock(&lock);
}
