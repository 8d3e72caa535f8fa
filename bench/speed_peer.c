/* speed_peer: polder as a peer that is told what to do, a command a line on stdin, an answer a line of JSON on stdout.
 * bench/speed.d/peer.mjs speaks the same words for llama.cpp and says what they mean; bench/speed runs both.
 *
 *   load FILE  session T SEQS CTX [KV]  prefill N  decode N  batch SEQS AT N  limits T  quit
 *
 * KV: 1 for keys and values as int8 (0: as they usually are). Prompts go in steps of 512 tokens.
 */
#include "base/bytes.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SEQS_MAX = 64, TOKENS_MAX = 65536, STEP = 512 };

static model *m;
static session *s;
static int seqs[SEQS_MAX];
static uint32_t n_seqs, position;
static int32_t ids[TOKENS_MAX];

typedef struct stopwatch {
    uint64_t wall_ns, cpu_ns;
} stopwatch;

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static stopwatch begin(void) {
    return (stopwatch){time_mono_ns(), cpu_ns()};
}
static void say_time(stopwatch w) {
    printf("{\"seconds\":%.9f,\"cpu\":%.9f,\"rss\":%llu}\n", (double)(time_mono_ns() - w.wall_ns) * 1e-9,
           (double)(cpu_ns() - w.cpu_ns) * 1e-9, (unsigned long long)sys_rss_kib() * 1024);
}

/* The same walk through the vocabulary as the other peer's. */
static void fill(int32_t *out, uint64_t from, uint32_t n) {
    uint64_t n_vocab = model_get_facts(m)->n_vocab;
    for (uint32_t i = 0; i < n; i++) out[i] = (int32_t)(300 + (from + i) * 7919 % (n_vocab - 300));
}

static err_code do_load(const char *path, err *e) {
    stopwatch w = begin();
    err_code rc = model_open(&m, path, e);
    if (rc != ERR_OK) return rc;
    model_settle(m);
    const model_facts *f = model_get_facts(m);
    printf("{\"seconds\":%.6f,\"rss\":%llu,\"variant\":\"%s\",\"step_bytes\":%llu,\"step_weights\":%llu,"
           "\"head_weights\":%llu,\"kv_bytes\":%llu,\"file_bytes\":%llu}\n",
           (double)(time_mono_ns() - w.wall_ns) * 1e-9, (unsigned long long)sys_rss_kib() * 1024, engine_isa(),
           (unsigned long long)f->step_bytes, (unsigned long long)f->step_weights,
           (unsigned long long)f->d_model * f->n_vocab, (unsigned long long)f->kv_bytes[KV_F16],
           (unsigned long long)f->file_bytes);
    return ERR_OK;
}

static err_code new_sequences(uint32_t n, err *e) {
    err_code rc = ERR_OK;
    while (n_seqs) session_seq_free(s, seqs[--n_seqs]);
    for (; rc == ERR_OK && n_seqs < n; n_seqs++) rc = session_seq_new(s, &seqs[n_seqs], e);
    return rc;
}

static err_code do_session(unsigned threads, uint32_t n, uint32_t n_ctx, kv_format kv, err *e) {
    session_free(s);
    s = NULL;
    n_seqs = 0;
    session_options o = {.n_threads = threads, .n_seq_max = n, .n_ctx = n_ctx, .kv = kv, .max_step_tokens = STEP};
    err_code rc = session_new(&s, m, &o, e);
    if (rc == ERR_OK)
        printf("{\"threads\":%u,\"rss\":%llu,\"kv_bytes\":%llu}\n", threads, (unsigned long long)sys_rss_kib() * 1024,
               (unsigned long long)model_get_facts(m)->kv_bytes[kv]);
    return rc;
}

/* n tokens of sequence i from `at` on, in one step; logits of the last. */
static err_code step_one(uint32_t i, uint64_t walk, uint32_t n, err *e) {
    fill(ids, walk, n);
    chunk c = {.seq = seqs[i], .tokens = ids, .n = n, .n_logits = 1};
    return session_step(s, &c, 1, e);
}

static err_code do_prefill(uint32_t n, err *e) {
    err_code rc = new_sequences(1, e);
    stopwatch w = begin();
    for (uint32_t at = 0; rc == ERR_OK && at < n; at += STEP) rc = step_one(0, at, n - at < STEP ? n - at : STEP, e);
    if (rc == ERR_OK) say_time(w);
    position = n;
    return rc;
}

static err_code do_decode(uint32_t n, err *e) {
    err_code rc = n_seqs ? ERR_OK : err_set(e, ERR_USAGE, "decode: no sequence is there; prefill first");
    stopwatch w = begin();
    for (uint32_t i = 0; rc == ERR_OK && i < n; i++) rc = step_one(0, position++, 1, e);
    if (rc == ERR_OK) say_time(w);
    return rc;
}

static err_code do_batch(uint32_t n_seq, uint32_t at, uint32_t n, err *e) {
    if (n_seq > SEQS_MAX) return err_set(e, ERR_USAGE, "batch: at most %d sequences", SEQS_MAX);
    err_code rc = new_sequences(n_seq, e);
    for (uint32_t q = 0; rc == ERR_OK && q < n_seq; q++) rc = step_one(q, (uint64_t)q * 31, at, e);
    stopwatch w = begin();
    for (uint32_t i = 0; rc == ERR_OK && i < n; i++) {
        chunk c[SEQS_MAX];
        for (uint32_t q = 0; q < n_seq; q++) {
            fill(ids + q, (uint64_t)q * 31 + at + i, 1);
            c[q] = (chunk){.seq = seqs[q], .tokens = ids + q, .n = 1, .n_logits = 1};
        }
        rc = session_step(s, c, n_seq, e);
    }
    if (rc == ERR_OK) say_time(w);
    return rc;
}

static err_code do_limits(unsigned threads, err *e) {
    machine_limits l;
    err_code rc = limits_measure(&l, threads, 5, e);
    if (rc == ERR_OK)
        printf("{\"read_gbs\":%.3f,\"int_gops\":%.3f,\"f32_gflops\":%.3f}\n", l.read_gbs, l.int_gops, l.f32_gflops);
    return rc;
}

static err_code command(char *line, err *e) {
    char word[16] = "", path[4096] = "";
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (sscanf(line, "load %4095[^\n]", path) == 1) return m ? err_set(e, ERR_USAGE, "load: once") : do_load(path, e);
    int n = sscanf(line, "%15s %u %u %u %u", word, &a, &b, &c, &d) - 1;
    if (strcmp(word, "limits") == 0 && n == 1) return do_limits(a, e);
    if (strcmp(word, "session") == 0 && n >= 3 && d < KV_FORMATS && m) return do_session(a, b, c, (kv_format)d, e);
    if (!s) return err_set(e, ERR_USAGE, "%s: load a model and open a session first", word);
    if (n >= 1 && (a == 0 || a > TOKENS_MAX)) return err_set(e, ERR_USAGE, "%s: 1 to %d", word, TOKENS_MAX);
    if (strcmp(word, "prefill") == 0 && n == 1) return do_prefill(a, e);
    if (strcmp(word, "decode") == 0 && n == 1) return do_decode(a, e);
    if (strcmp(word, "batch") == 0 && n == 3 && b && b <= TOKENS_MAX) return do_batch(a, b, c, e);
    return err_set(e, ERR_USAGE, "%s: no such command, or not so many numbers", word);
}

int main(void) {
    err e = {0};
    char line[4200];
    base_init();
    if (engine_init(&e) != ERR_OK) {
        fprintf(stderr, "speed_peer: %s\n", e.msg);
        return 3;
    }
    while (fgets(line, sizeof line, stdin) && strncmp(line, "quit", 4) != 0) {
        if (command(line, &e) != ERR_OK) printf("{\"error\":\"%s\"}\n", e.msg); /* sentences hold no quotes of ours */
        fflush(stdout);
    }
    session_free(s);
    model_free(m);
    return 0;
}
