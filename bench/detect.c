/* Precision and recall of the detectors on the corpus in tests/corpus/detect, and their time.
 *
 *     bench_detect [-v] [FOLDER]      (-v: what was missed and what was too much)
 *
 * Texts are marked up: [[email|a@b.example]] must be found, [[-|2024-00817]] must not. A finding counts as right when
 * it has the entity of a mark and shares at least half of the bytes of both; `exact` are those with its very bytes.
 * What is found and not marked is wrong. tune-*.txt are the texts that the detectors were made with; held-*.txt were
 * written afterwards and nothing was changed for them. CPU time: median of passes over every text, beside a pass that
 * only adds up the same bytes and one that looks for a byte that does not occur (memchr). */
#include "base/bytes.h"
#include "base/mem.h"
#include "data/data.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MARKS_MAX 4096
#define TEXT_MAX  65536
#define ROUNDS    31

typedef struct mark {
    size_t from, to;
    int ent; /* -1: nothing may be found here */
    bool met;
} mark;

typedef struct tally {
    unsigned marks, met, exact, wrong;
} tally;

static tally sum[2][ENT_BUILT_IN];
static unsigned negatives[2], negatives_hit[2], texts[2];
static bool verbose;
static buf all; /* every text without its marks, one after another */
static size_t ends[1024], n_texts;

static int entity_of(const detector *d, const char *p, size_t n) {
    for (unsigned i = 0; i < ENT_BUILT_IN; i++)
        if (strlen(detector_entity(d, i)->name) == n && memcmp(detector_entity(d, i)->name, p, n) == 0) return (int)i;
    if (n == 1 && *p == '-') return -1;
    fprintf(stderr, "mark \"%.*s\" is no entity\n", (int)n, p);
    exit(3);
}

/* The text without its marks, and the marks. */
static size_t unmark(const detector *d, const char *p, size_t n, char *out, mark *m) {
    size_t k = 0, count = 0;
    for (size_t i = 0; i < n;) {
        const char *bar = i + 2 < n && p[i] == '[' && p[i + 1] == '[' ? memchr(p + i, '|', n - i) : NULL;
        const char *end = bar ? strstr(bar, "]]") : NULL;
        if (!end || bar - (p + i) > 30) {
            out[k++] = p[i++];
            continue;
        }
        size_t len = (size_t)(end - bar) - 1;
        m[count++] = (mark){.from = k, .to = k + len, .ent = entity_of(d, p + i + 2, (size_t)(bar - p) - i - 2)};
        memcpy(out + k, bar + 1, len);
        k += len;
        i = (size_t)(end - p) + 2;
    }
    out[k] = 0;
    return count;
}

static bool shares_half(const mark *m, const finding *f) {
    size_t from = m->from > f->from ? m->from : f->from, to = m->to < f->to ? m->to : f->to;
    return from < to && 2 * (to - from) >= m->to - m->from && 2 * (to - from) >= f->to - f->from;
}

static void judge(const detector *d, int half, const char *text, mark *m, size_t n, const findings *f) {
    tally *t = sum[half];
    for (size_t k = 0; k < f->n; k++) {
        const finding *x = &f->list[k];
        bool right = false;
        for (size_t i = 0; i < n; i++) {
            if (m[i].ent == (int)x->entity && !m[i].met && shares_half(&m[i], x)) {
                right = m[i].met = true;
                t[x->entity].met++;
                t[x->entity].exact += m[i].from == x->from && m[i].to == x->to;
                break;
            }
            if (m[i].ent < 0 && m[i].from < x->to && x->from < m[i].to) m[i].met = true;
        }
        if (right) continue;
        t[x->entity].wrong++;
        if (verbose)
            printf("  too much: %s %u [%.*s]\n", detector_entity(d, x->entity)->name, x->score, (int)(x->to - x->from),
                   text + x->from);
    }
    for (size_t i = 0; i < n; i++) {
        if (m[i].ent < 0) {
            negatives[half]++;
            negatives_hit[half] += m[i].met;
            continue;
        }
        t[m[i].ent].marks++;
        if (!m[i].met && verbose)
            printf("  missed: %s [%.*s]\n", detector_entity(d, (unsigned)m[i].ent)->name, (int)(m[i].to - m[i].from),
                   text + m[i].from);
    }
}

static void read_text(const detector *d, findings *f, int half, const char *p, size_t n) {
    static char out[TEXT_MAX];
    static mark m[MARKS_MAX];
    err e;
    if (n >= sizeof out) {
        fprintf(stderr, "a text is too long\n");
        exit(3);
    }
    size_t count = unmark(d, p, n, out, m);
    if (detector_scan(d, out, strlen(out), f, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        exit(3);
    }
    if (verbose) printf("%.*s\n", (int)strcspn(p - 4, "\n"), p - 4);
    judge(d, half, out, m, count, f);
    texts[half]++;
    buf_puts(&all, out);
    if (n_texts < sizeof ends / sizeof *ends) ends[n_texts++] = all.len;
}

static void read_file(const detector *d, findings *f, const char *path) {
    static char text[1 << 20];
    FILE *in = fopen(path, "rb");
    size_t n = in ? fread(text, 1, sizeof text - 1, in) : 0;
    if (in) fclose(in);
    text[n] = 0;
    int half = strstr(path, "held-") != NULL;
    for (char *p = strstr(text, "--- "); p;) {
        char *next = strstr(p + 4, "\n--- ");
        read_text(d, f, half, p + 4, next ? (size_t)(next - p) - 3 : strlen(p + 4));
        p = next ? next + 1 : NULL;
    }
}

static void print_half(const detector *d, int half) {
    tally s = {0};
    printf("%s: %u texts\n  %-22s %6s %6s %6s %6s  %9s %6s\n", half ? "held out" : "tuned on", texts[half], "entity",
           "marks", "found", "exact", "wrong", "precision", "recall");
    for (unsigned i = 0; i <= ENT_BUILT_IN; i++) {
        tally t = i < ENT_BUILT_IN ? sum[half][i] : s;
        if (!t.marks && !t.wrong) continue;
        printf("  %-22s %6u %6u %6u %6u  %8.1f%% %5.1f%%\n", i < ENT_BUILT_IN ? detector_entity(d, i)->name : "all",
               t.marks, t.met, t.exact, t.wrong, t.met + t.wrong ? 100.0 * t.met / (t.met + t.wrong) : 100.0,
               t.marks ? 100.0 * t.met / t.marks : 100.0);
        s.marks += t.marks;
        s.met += t.met;
        s.exact += t.exact;
        s.wrong += t.wrong;
    }
    printf("  hard negatives: %u, of which %u were touched\n", negatives[half], negatives_hit[half]);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Of this thread, so that what else the machine does is not counted. */
static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Microseconds a KB: 0 the detectors, text by text; 1 adding up; 2 memchr. */
static double time_of(const detector *d, findings *f, int what) {
    double t[ROUNDS];
    static volatile uint64_t sink; /* what was found must be needed */
    err e;
    for (int r = 0; r < ROUNDS; r++) {
        uint64_t start = cpu_ns(), v = 0;
        for (size_t i = 0, from = 0; i < n_texts; from = ends[i++]) {
            const char *p = all.ptr + from;
            size_t n = ends[i] - from;
            if (what == 0)
                v += detector_scan(d, p, n, f, &e);
            else if (what == 1)
                for (size_t k = 0; k < n; k++) v += (unsigned char)p[k];
            else
                v += memchr(p, 0x01, n) != NULL;
        }
        sink = sink + v;
        t[r] = (double)(cpu_ns() - start) / 1000.0 / ((double)all.len / 1024.0);
    }
    qsort(t, ROUNDS, sizeof *t, by_value);
    return t[ROUNDS / 2];
}

int main(int argc, char **argv) {
    base_init();
    int at = argc > 1 && strcmp(argv[1], "-v") == 0 ? 2 : 1;
    verbose = at == 2;
    char pattern[4096];
    snprintf(pattern, sizeof pattern, "%s/*.txt", argc > at ? argv[at] : "tests/corpus/detect");
    detector *d = NULL;
    findings f = {0};
    err e;
    glob_t g;
    buf_init(&all, (size_t)64 << 20);
    if (detector_new(&d, NULL, 0, NULL, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return 3;
    }
    if (glob(pattern, 0, NULL, &g) != 0) {
        printf("no texts at %s\n", pattern);
        return 0;
    }
    for (size_t i = 0; i < g.gl_pathc; i++) read_file(d, &f, g.gl_pathv[i]);
    globfree(&g);
    for (int half = 0; half < 2; half++)
        if (texts[half]) print_half(d, half);
    double scan = time_of(d, &f, 0), add = time_of(d, &f, 1), look = time_of(d, &f, 2);
    printf("CPU time, median of %d passes over %.1f KB: %.2f us/KB (adding up the bytes: %.2f, memchr: %.3f)\n", ROUNDS,
           (double)all.len / 1024.0, scan, add, look);
    findings_free(&f);
    detector_free(d);
    buf_free(&all);
    return 0;
}
