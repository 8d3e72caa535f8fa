/* bench: how fast a model runs here, beside what this machine can do at most. */
#include "cli/cli.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { ROUNDS_MAX = CLI_BENCH_ROUNDS_MAX, STEP = 512, BATCH_PROMPT = 16 };

typedef struct bench {
    model *m;
    session *s;
    int32_t *ids;
    int64_t pp, tg, rounds;
    uint32_t batch; /* sequences; below 2: that part is left out */
    unsigned threads;
    kv_format kv;
    double load_s, pp_s[ROUNDS_MAX], tg_s[ROUNDS_MAX], batch_s[ROUNDS_MAX];
    machine_limits limits;
    progress line;
    double done, total; /* work, in steps of one token: a guess good enough for the time left */
} bench;

/* Weights of work, in decode steps: a prompt's token costs a tenth of a step, a step of a batch two. */
static double work_of_round(const bench *b) {
    return (double)b->pp / 10 + (double)b->tg * (b->batch > 1 ? 3 : 1);
}
static void worked(bench *b, double amount) {
    b->done += amount;
    double percent = b->total > 0 ? 100 * b->done / b->total : 0;
    progress_count(&b->line, (uint64_t)(percent < 100 ? percent : 100), 100, "percent");
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int64_t n) {
    qsort(v, (size_t)n, sizeof *v, compare_doubles);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* A prompt of pp tokens, then tg single steps. Token ids are arbitrary: time does not depend on them. */
static err_code round_of_one(bench *b, int64_t pp, int64_t tg, double *pp_s, double *tg_s, err *e) {
    int seq;
    err_code rc = session_seq_new(b->s, &seq, e);
    if (rc != ERR_OK) return rc;
    uint64_t t0 = time_mono_ns();
    for (int64_t at = 0; rc == ERR_OK && at < pp; at += STEP) {
        uint32_t k = (uint32_t)(pp - at < STEP ? pp - at : STEP);
        chunk ch = {.seq = seq, .tokens = b->ids + at, .n = k, .n_logits = at + k == pp};
        rc = session_step(b->s, &ch, 1, e);
        worked(b, k / 10.0);
    }
    uint64_t t1 = time_mono_ns();
    for (int64_t i = 0; rc == ERR_OK && i < tg; i++) {
        chunk ch = {.seq = seq, .tokens = b->ids + pp + i, .n = 1, .n_logits = 1};
        rc = session_step(b->s, &ch, 1, e);
        worked(b, 1);
    }
    *pp_s = (double)(t1 - t0) / 1e9;
    *tg_s = (double)(time_mono_ns() - t1) / 1e9;
    session_seq_free(b->s, seq);
    return rc;
}

/* tg steps of `batch` sequences at once, each after a short prompt of its own. */
static err_code round_of_many(bench *b, double *s, err *e) {
    int seq[CLI_BENCH_BATCH_MAX];
    uint32_t n = 0;
    err_code rc = ERR_OK;
    for (; rc == ERR_OK && n < b->batch; n += rc == ERR_OK) rc = session_seq_new(b->s, &seq[n], e);
    for (uint32_t i = 0; rc == ERR_OK && i < n; i++) {
        chunk ch = {.seq = seq[i], .tokens = b->ids + i, .n = BATCH_PROMPT};
        rc = session_step(b->s, &ch, 1, e);
    }
    uint64_t t0 = time_mono_ns();
    for (int64_t k = 0; rc == ERR_OK && k < b->tg; k++) {
        chunk ch[CLI_BENCH_BATCH_MAX];
        for (uint32_t i = 0; i < n; i++)
            ch[i] = (chunk){.seq = seq[i], .tokens = b->ids + i + k, .n = 1, .n_logits = 1};
        rc = session_step(b->s, ch, n, e);
        worked(b, 2);
    }
    *s = (double)(time_mono_ns() - t0) / 1e9;
    while (n) session_seq_free(b->s, seq[--n]);
    return rc;
}

/* ---- the answer ---- */

typedef struct figures {
    double pp_tps, tg_tps, batch_tps;
    double tg_gbs, pp_gops; /* memory read, multiplications and additions done, in 10^9 a second */
    double tg_limit, pp_limit;
    bool floats; /* weights are floats: their limit is another */
} figures;

static double share(double x, double limit) {
    return limit > 0 ? x / limit : 0;
}

static figures figures_of(bench *b) {
    const model_facts *f = model_get_facts(b->m);
    figures g = {.pp_tps = (double)b->pp / median(b->pp_s, b->rounds),
                 .tg_tps = (double)b->tg / median(b->tg_s, b->rounds)};
    if (b->batch > 1) g.batch_tps = (double)b->tg * b->batch / median(b->batch_s, b->rounds);
    double read = (double)f->step_bytes + (double)f->kv_bytes[b->kv] * ((double)b->pp + (double)b->tg / 2);
    double head = (double)f->d_model * f->n_vocab; /* a prompt needs the head for its last token only */
    double products = (double)f->step_weights - head + head / (double)b->pp;
    g.floats = strcmp(f->quant, "F32") == 0 || strcmp(f->quant, "F16") == 0 || strcmp(f->quant, "BF16") == 0;
    g.tg_gbs = g.tg_tps * read * 1e-9;
    g.pp_gops = g.pp_tps * 2 * (products > 0 ? products : 0) * 1e-9;
    g.tg_limit = b->limits.read_gbs;
    g.pp_limit = g.floats ? b->limits.f32_gflops : b->limits.int_gops;
    return g;
}

static void print_limits(const machine_limits *l) {
    printf("this machine  reads memory at %.1f GB/s", l->read_gbs);
    if (l->int_gops > 0) printf(", multiplies bytes at %.0f GOP/s", l->int_gops);
    if (l->f32_gflops > 0) printf(" and floats at %.0f GFLOP/s", l->f32_gflops);
    printf("\n");
}

static void print_text(const bench *b, const figures *g) {
    const model_facts *f = model_get_facts(b->m);
    printf("%s %s, %.1f M parameters, %s kernels, %u threads, medians of %lld rounds\n", f->arch, f->quant,
           (double)f->n_params / 1e6, engine_isa(), b->threads, (long long)b->rounds);
    printf("prompt  %10.1f tokens/s", g->pp_tps);
    if (g->pp_limit > 0)
        printf("   %.1f %s, %.0f %% of what this machine can do", g->pp_gops, g->floats ? "GFLOP/s" : "GOP/s",
               100 * share(g->pp_gops, g->pp_limit));
    double part = share(g->tg_gbs, g->tg_limit);
    printf("\ndecode  %10.1f tokens/s   %.1f GB/s, %.0f %% of what memory gives%s\n", g->tg_tps, g->tg_gbs, 100 * part,
           part > 1 ? ": much of the model lies in caches" : "");
    if (b->batch > 1)
        printf("batch   %10.1f tokens/s   of %u sequences together, %.1f times one\n", g->batch_tps, b->batch,
               g->batch_tps / g->tg_tps);
    printf("load    %10.3f s\nmemory  %10.1f MiB at its peak\n", b->load_s, (double)sys_peak_rss_kib() / 1024);
    print_limits(&b->limits);
}

static bool add_limits(cJSON *v, const machine_limits *l) {
    cJSON *o = cJSON_AddObjectToObject(v, "limits");
    return o && cJSON_AddNumberToObject(o, "read_gbs", l->read_gbs) &&
           cJSON_AddNumberToObject(o, "int_gops", l->int_gops) &&
           cJSON_AddNumberToObject(o, "f32_gflops", l->f32_gflops);
}

static bool add_figures(cJSON *v, const bench *b, const figures *g) {
    const model_facts *f = model_get_facts(b->m);
    return cJSON_AddNumberToObject(v, "pp_tps", g->pp_tps) && cJSON_AddNumberToObject(v, "tg_tps", g->tg_tps) &&
           cJSON_AddNumberToObject(v, "batch", b->batch) && cJSON_AddNumberToObject(v, "batch_tps", g->batch_tps) &&
           cJSON_AddNumberToObject(v, "load_s", b->load_s) &&
           cJSON_AddNumberToObject(v, "peak_rss_kib", (double)sys_peak_rss_kib()) &&
           cJSON_AddNumberToObject(v, "rounds", (double)b->rounds) &&
           cJSON_AddNumberToObject(v, "step_bytes", (double)f->step_bytes) &&
           cJSON_AddStringToObject(v, "kv", kv_format_name(b->kv)) &&
           cJSON_AddNumberToObject(v, "kv_bytes", (double)f->kv_bytes[b->kv]) &&
           cJSON_AddNumberToObject(v, "pp_of_limit", share(g->pp_gops, g->pp_limit)) &&
           cJSON_AddNumberToObject(v, "tg_of_limit", share(g->tg_gbs, g->tg_limit)) &&
           cJSON_AddStringToObject(v, "arch", f->arch) && cJSON_AddStringToObject(v, "quant", f->quant);
}

/* g: NULL where only the machine was measured. */
static err_code print_json(const bench *b, const figures *g, err *e) {
    cJSON *v = cJSON_CreateObject();
    if (v && (!g || add_figures(v, b, g)) && cJSON_AddNumberToObject(v, "threads", b->threads) &&
        cJSON_AddStringToObject(v, "isa", engine_isa()) && add_limits(v, &b->limits))
        return cli_print_json(v, e);
    cJSON_Delete(v);
    return err_nomem(e, "output");
}

/* ---- the command ---- */

/* What was given is a file, or a model of the island. */
static err_code find_model(const cli *c, const char *what, char *path, size_t cap, err *e) {
    if (file_exists(what)) {
        size_t n = strlen(what);
        if (n >= cap) return err_set(e, ERR_TOO_LONG, "%.60s…: the path is too long", what);
        memcpy(path, what, n + 1);
        return ERR_OK;
    }
    island *i = NULL;
    uint8_t digest[SHA256_LEN];
    err_code rc = island_open(&i, c->dir, ISLAND_READ, e);
    if (rc == ERR_NOT_FOUND)
        return err_set(e, ERR_NOT_FOUND, "%s: no such file, and no island at %s that could have a model of that name",
                       what, c->dir);
    if (rc == ERR_OK) rc = models_resolve(i, what, path, cap, digest, e);
    island_close(i);
    return rc;
}

static err_code open_model(bench *b, const char *path, err *e) {
    uint64_t t0 = time_mono_ns();
    err_code rc = model_open(&b->m, path, e);
    if (rc != ERR_OK) return rc;
    const model_facts *f = model_get_facts(b->m);
    if (f->encoder)
        return err_set(e, ERR_UNSUPPORTED, "%s: an encoder (%s) decodes nothing; bench is for models that generate",
                       path, f->arch);
    if ((uint64_t)(b->pp + b->tg) > f->n_ctx_train)
        return err_set(e, ERR_USAGE, "--pp and --tg together are %lld tokens; the model's context holds %u",
                       (long long)(b->pp + b->tg), f->n_ctx_train);
    /* every sequence of the batch must fit too, short as it is */
    int64_t most = b->pp > BATCH_PROMPT ? b->pp : BATCH_PROMPT;
    session_options o = {.n_threads = b->threads,
                         .n_seq_max = b->batch > 1 ? b->batch : 1,
                         .n_ctx = (uint32_t)(most + b->tg < f->n_ctx_train ? most + b->tg : f->n_ctx_train),
                         .kv = b->kv,
                         .max_step_tokens = STEP};
    rc = session_new(&b->s, b->m, &o, e);
    b->load_s = (double)(time_mono_ns() - t0) / 1e9;
    if (rc == ERR_OK) model_settle(b->m); /* what goes on behind a new model is no part of its speed */
    for (int64_t i = 0; i < b->pp + b->tg + CLI_BENCH_BATCH_MAX + BATCH_PROMPT; i++)
        b->ids[i] = (int32_t)(((uint64_t)i * 7919 + 13) % f->n_vocab);
    return rc;
}

static err_code run_rounds(bench *b, err *e) {
    double warm_pp, warm_tg; /* the first round touches memory for the first time and is not counted */
    b->total = work_of_round(b) * (double)b->rounds;
    progress_begin(&b->line, "bench");
    err_code rc = round_of_one(b, b->pp < 32 ? b->pp : 32, 2 < b->tg ? 2 : b->tg, &warm_pp, &warm_tg, e);
    b->done = 0;
    for (int64_t r = 0; rc == ERR_OK && r < b->rounds; r++) {
        rc = round_of_one(b, b->pp, b->tg, &b->pp_s[r], &b->tg_s[r], e);
        if (rc == ERR_OK && b->batch > 1) rc = round_of_many(b, &b->batch_s[r], e);
    }
    progress_end(&b->line);
    return rc;
}

err_code run_bench(cli *c, err *e) {
    char path[4096];
    bench *b = mem_zalloc(sizeof *b);
    if (!b) return err_nomem(e, "a bench");
    b->pp = cli_int(c, "pp", 512), b->tg = cli_int(c, "tg", 64), b->rounds = cli_int(c, "rounds", 3);
    b->batch = (uint32_t)cli_int(c, "batch", 16);
    b->threads = (unsigned)cli_int(c, "threads", 0);
    if (!b->threads) b->threads = sys_cpu_count();
    b->ids = mem_array((size_t)(b->pp + b->tg + CLI_BENCH_BATCH_MAX + BATCH_PROMPT), sizeof *b->ids);
    err_code rc = b->ids ? ERR_OK : err_nomem(e, "tokens of a bench");
    if (rc == ERR_OK) rc = cli_kv(c, &b->kv, e);
    if (rc == ERR_OK && c->n_args) rc = find_model(c, c->args[0], path, sizeof path, e);
    if (rc == ERR_OK && c->n_args) rc = open_model(b, path, e);
    if (rc == ERR_OK) rc = limits_measure(&b->limits, b->threads, 5, e);
    if (rc == ERR_OK && c->n_args) rc = run_rounds(b, e);
    if (rc == ERR_OK) {
        figures g = {0};
        if (c->n_args) g = figures_of(b);
        if (c->json)
            rc = print_json(b, c->n_args ? &g : NULL, e);
        else if (c->n_args)
            print_text(b, &g);
        else
            print_limits(&b->limits);
    }
    session_free(b->s);
    model_free(b->m);
    mem_free(b->ids);
    mem_free(b);
    return rc;
}
