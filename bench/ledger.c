/* Records a second that the ledger makes durable, for several numbers of callers, beside what this disk gives to
 *   - a loop that appends one record of the same size to a prewritten file and syncs (one by one, and in groups),
 *   - SQLite in WAL mode with synchronous=FULL, in transactions of the same groups.
 * Arguments: [seconds a figure] [folder] (2, TMPDIR). */
#include "audit/audit.h"
#include "base/bytes.h"
#include "base/sys.h"

#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ENTRY = 400, CONTENT = 600 };

static double seconds = 2;
static atomic_bool stop;

typedef struct producer {
    ledger *l;
    bool contents;
    uint64_t done;
    pthread_t t;
} producer;

static void die(const char *what) {
    fprintf(stderr, "bench ledger: %s\n", what);
    exit(3);
}

static void *produce(void *arg) {
    producer *p = arg;
    char text[ENTRY], content[CONTENT];
    memset(text, 'e', sizeof text);
    memset(content, 'c', sizeof content);
    text[ENTRY - 90] = 0; /* v, time, event and quotes make the rest */
    while (!atomic_load(&stop)) {
        record *r = NULL;
        err e;
        if (record_new(&r, "bench", &e) != ERR_OK || !cJSON_AddStringToObject(record_body(r), "text", text)) die(e.msg);
        if (p->contents && record_content(r, "prompt", content, sizeof content, &e) != ERR_OK) die(e.msg);
        if (ledger_append(p->l, r, NULL, &e) != ERR_OK) die(e.msg);
        record_free(r);
        p->done++;
    }
    return NULL;
}

static double run_ledger(const char *dir, int threads, bool contents, ledger_stats *st) {
    ledger *l = NULL;
    err e;
    char path[4096];
    snprintf(path, sizeof path, "%s/island-%d-%d", dir, threads, contents);
    if (ledger_create(path, "polder.bench/log", NULL, &e) != ERR_OK) die(e.msg);
    if (ledger_open(&l, path, NULL, NULL, &e) != ERR_OK) die(e.msg);
    producer *p = calloc((size_t)threads, sizeof *p);
    if (!p) die("out of memory");
    atomic_store(&stop, false);
    uint64_t t0 = time_mono_ns(), n = 0;
    for (int i = 0; i < threads; i++) {
        p[i] = (producer){.l = l, .contents = contents};
        if (pthread_create(&p[i].t, NULL, produce, &p[i]) != 0) die("no thread");
    }
    usleep((useconds_t)(seconds * 1e6));
    atomic_store(&stop, true);
    for (int i = 0; i < threads; i++) {
        pthread_join(p[i].t, NULL);
        n += p[i].done;
    }
    double s = (double)(time_mono_ns() - t0) / 1e9;
    ledger_get_stats(l, st);
    ledger_close(l);
    free(p);
    return (double)n / s;
}

/* Append and sync in groups to a prewritten file: the disk's own limit. */
static double run_raw(const char *dir, int group) {
    char path[4096];
    static char bytes[512 * 1024], zero[1 << 16];
    snprintf(path, sizeof path, "%s/raw-%d", dir, group);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) die("raw file");
    enum { LEN = 32 << 20 };
    for (int i = 0; i < LEN; i += (int)sizeof zero)
        if (write(fd, zero, sizeof zero) != (ssize_t)sizeof zero) die("raw file");
    if (fsync(fd) != 0) die("raw file");
    size_t n = ((size_t)group * ENTRY + 511) / 512 * 512;
    uint64_t t0 = time_mono_ns(), records = 0;
    off_t off = 0;
    memset(bytes, 'r', n);
    while ((double)(time_mono_ns() - t0) / 1e9 < seconds) {
        if (off + (off_t)n > LEN) off = 0;
        if (pwrite(fd, bytes, n, off) != (ssize_t)n || fdatasync(fd) != 0) die("raw write");
        off += (off_t)n;
        records += (uint64_t)group;
    }
    double s = (double)(time_mono_ns() - t0) / 1e9;
    close(fd);
    return (double)records / s;
}

static double run_sqlite(const char *dir, int group) {
    char path[4096], text[ENTRY];
    sqlite3 *db = NULL;
    sqlite3_stmt *st = NULL;
    snprintf(path, sizeof path, "%s/peer-%d.db", dir, group);
    memset(text, 's', sizeof text);
    if (sqlite3_open(path, &db) != SQLITE_OK ||
        sqlite3_exec(
            db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE r(seq INTEGER PRIMARY KEY, b BLOB)",
            NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(db, "INSERT INTO r(b) VALUES(?)", -1, &st, NULL) != SQLITE_OK)
        die("SQLite");
    uint64_t t0 = time_mono_ns(), records = 0;
    while ((double)(time_mono_ns() - t0) / 1e9 < seconds) {
        sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        for (int i = 0; i < group; i++) {
            sqlite3_bind_blob(st, 1, text, sizeof text, SQLITE_STATIC);
            if (sqlite3_step(st) != SQLITE_DONE) die("SQLite insert");
            sqlite3_reset(st);
        }
        if (sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) die("SQLite commit");
        records += (uint64_t)group;
    }
    double s = (double)(time_mono_ns() - t0) / 1e9;
    sqlite3_finalize(st);
    sqlite3_close(db);
    return (double)records / s;
}

int main(int argc, char **argv) {
    char dir[4096], cmd[4200];
    base_init();
    log_set_level(LOG_ERROR);
    if (argc > 1) seconds = atof(argv[1]);
    if (seconds <= 0) die("usage: bench_ledger [seconds] [folder]");
    const char *at = argc > 2 ? argv[2] : getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    snprintf(dir, sizeof dir, "%s/polder-bench-XXXXXX", at);
    if (!mkdtemp(dir)) die("no folder");
    printf("records of %d bytes; contents of %d bytes where said\n", ENTRY, CONTENT);
    printf("%-44s %10s %8s %8s\n", "", "records/s", "a group", "ms/group");
    static const int groups[] = {1, 64, 256};
    double raw = 0, peer = 0, best = 0, best_contents = 0;
    for (int i = 0; i < 3; i++) {
        raw = run_raw(dir, groups[i]);
        printf("%-31s %3d a sync %10.0f\n", "raw append and fdatasync,", groups[i], raw);
    }
    for (int i = 0; i < 3; i++) {
        peer = run_sqlite(dir, groups[i]);
        printf("%-31s %3d a commit %8.0f\n", "SQLite WAL synchronous=FULL,", groups[i], peer);
    }
    static const int threads[] = {1, 16, 64, 256, 512};
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < 5; i++) {
            ledger_stats st;
            double r = run_ledger(dir, threads[i], c, &st);
            double *top = c ? &best_contents : &best;
            if (r > *top) *top = r;
            printf("ledger, %3d callers%-25s %10.0f %8.1f %8.2f\n", threads[i], c ? ", with contents" : "", r,
                   st.groups ? (double)st.size / (double)st.groups : 0,
                   st.groups ? st.commit_ms_sum / (double)st.groups : 0);
        }
    printf("polder: best %.0f records/s without contents, %.0f with; the disk: %.0f in groups of 256; SQLite: %.0f\n",
           best, best_contents, raw, peer);
    snprintf(cmd, sizeof cmd, "rm -rf -- '%s'", dir);
    return system(cmd) == 0 && best > 0 ? 0 : 3;
}
