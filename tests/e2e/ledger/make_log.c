/* make_log DIR RECORDS: for `run`: a ledger of that many records in DIR/island, written by several threads, with its
 * export in DIR/export, the checkpoints that were seen on the way in DIR/checkpoints.json, and in DIR/fork.json the
 * same with one more that the log's own key has signed for another history. */
#include "audit/internal.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 16 };

static ledger *l;
static _Atomic int left;

static void die(const char *what) {
    fprintf(stderr, "make_log: %s\n", what);
    exit(3);
}

static void *append(void *arg) {
    err e;
    for (int i; (i = atomic_fetch_sub(&left, 1)) > 0;) {
        record *r = NULL;
        if (record_new(&r, "test", &e) != ERR_OK || !cJSON_AddNumberToObject(record_body(r), "n", i) ||
            (i % 2 && record_content(r, "prompt", "hello", 5, &e) != ERR_OK) || ledger_append(l, r, NULL, &e) != ERR_OK)
            die(e.msg);
        record_free(r);
    }
    return NULL;
}

static void write_file(const char *dir, const char *name, const buf *b) {
    char path[4096];
    err e;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (b->failed || file_write_atomic(path, b->ptr, b->len, 0644, &e) != ERR_OK) die(path);
}

static void add_note(jw *w) {
    buf note = {.max = 65536};
    err e;
    if (ledger_checkpoint(l, &note, &e) != ERR_OK) die(e.msg);
    jw_strn(w, note.ptr, note.len);
    buf_free(&note);
}

/* A split view: the log's key signs a root that the log never had. */
static void add_fork(jw *w, uint64_t size) {
    buf note = {.max = 65536};
    hash32 root;
    random_bytes(root.b, sizeof root.b);
    checkpoint_sign(&note, &l->signer, size, &root);
    jw_strn(w, note.ptr, note.len);
    buf_free(&note);
}

int main(int argc, char **argv) {
    char island[4096], out[4096];
    err e;
    pthread_t t[THREADS];
    base_init();
    log_set_level(LOG_ERROR);
    if (argc != 3 || atoi(argv[2]) < 1) {
        fprintf(stderr, "usage: make_log DIR RECORDS\n");
        return 2;
    }
    int n = atoi(argv[2]);
    snprintf(island, sizeof island, "%s/island", argv[1]);
    snprintf(out, sizeof out, "%s/export", argv[1]);
    if (ledger_create(island, "polder.test/e2e", NULL, &e) != ERR_OK ||
        ledger_open(&l, island, NULL, NULL, &e) != ERR_OK)
        die(e.msg);
    buf notes = {.max = 64u << 20}, fork = {.max = 64u << 20};
    jw w;
    jw_init(&w, &notes);
    jw_arr(&w);
    add_note(&w); /* of the empty log */
    atomic_store(&left, n);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&t[i], NULL, append, NULL) != 0) die("no thread");
    for (uint64_t seen = 0, size; (size = ledger_size(l)) < (uint64_t)n;) {
        if (size == seen) continue;
        seen = size;
        add_note(&w);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    add_note(&w);
    buf_append(&fork, notes.ptr, notes.len);
    jw_arr_end(&w);
    w.out = &fork;
    w.depth = 1; /* the array is open again in the copy */
    w.has_item = ~(uint64_t)0;
    add_fork(&w, ledger_size(l));
    jw_arr_end(&w);
    write_file(argv[1], "checkpoints.json", &notes);
    write_file(argv[1], "fork.json", &fork);
    if (audit_export(l, out, &e) != ERR_OK) die(e.msg);
    ledger_close(l);
    printf("%d records\n", n);
    buf_free(&notes);
    buf_free(&fork);
    return 0;
}
