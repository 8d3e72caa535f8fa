#include "engine/models/models.h"

#include "base/sys.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#define THREADS_FROM_BYTES (16u << 20) /* below, starting threads takes longer than loading */

typedef struct weights_job {
    const gguf_tensor *t;
    matrix **as_matrix; /* one of the two */
    float **as_vector;
    char name[GGUF_NAME_MAX + 1];
} weights_job;

err_code weights_new(weights *w, const gguf *g, err *e) {
    *w = (weights){.g = g};
    size_t n = gguf_tensor_count(g);
    w->jobs = mem_array(n + 1, sizeof *w->jobs);
    w->used = mem_array(n + 1, 1);
    if (w->jobs && w->used) return ERR_OK;
    weights_free(w);
    return err_nomem(e, "the list of a model's tensors");
}

void weights_free(weights *w) {
    mem_free(w->jobs);
    mem_free(w->used);
    *w = (weights){0};
}

/* The next job with its name and tensor; t stays NULL where an optional tensor is absent. */
__attribute__((format(printf, 5, 0))) static err_code find(weights *w, weights_job **out, bool optional, err *e,
                                                           const char *fmt, va_list ap) {
    weights_job *j = *out = &w->jobs[w->n_jobs];
    j->t = NULL;
    vsnprintf(j->name, sizeof j->name, fmt, ap);
    const gguf_tensor *t = gguf_tensor_find(w->g, j->name);
    if (!t) {
        if (optional) return ERR_OK;
        return err_set(e, ERR_INVALID, "%s: tensor %s is missing: the file is not complete", gguf_path(w->g), j->name);
    }
    size_t at = (size_t)(t - gguf_tensor_at(w->g, 0)); /* they lie in one array */
    if (w->used[at]) return err_set(e, ERR_INTERNAL, "%s: tensor %s is asked for twice", gguf_path(w->g), j->name);
    w->used[at] = 1;
    j->t = t;
    return ERR_OK;
}

static err_code check_shape(const weights *w, const weights_job *j, uint64_t rows, uint64_t cols, err *e) {
    const uint64_t *d = j->t->dims;
    if (d[0] == cols && d[1] == rows && d[2] == 1 && d[3] == 1) return ERR_OK;
    return err_set(e, ERR_INVALID,
                   "%s: tensor %s has the shape (%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64
                   "), but the file's hyperparameters ask for (%" PRIu64 ", %" PRIu64 ")",
                   gguf_path(w->g), j->name, d[0], d[1], d[2], d[3], cols, rows);
}

err_code weights_matrix(weights *w, matrix **out, bool optional, uint32_t rows, uint32_t cols, err *e, const char *fmt,
                        ...) {
    weights_job *j;
    va_list ap;
    va_start(ap, fmt);
    err_code rc = find(w, &j, optional, e, fmt, ap);
    va_end(ap);
    if (rc != ERR_OK || !j->t) return rc;
    if ((rc = check_shape(w, j, rows, cols, e)) != ERR_OK) return rc;
    j->as_matrix = out;
    w->n_jobs++;
    return ERR_OK;
}

err_code weights_vector(weights *w, float **out, bool optional, uint32_t n, err *e, const char *fmt, ...) {
    weights_job *j;
    va_list ap;
    va_start(ap, fmt);
    err_code rc = find(w, &j, optional, e, fmt, ap);
    va_end(ap);
    if (rc != ERR_OK || !j->t) return rc;
    if ((rc = check_shape(w, j, 1, n, e)) != ERR_OK) return rc;
    const tensor_type_facts *tt = tensor_type_get(j->t->type);
    if (!tt || tt->block_len != 1)
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor %s has the type %s; norms and biases are F32, F16 or BF16",
                       gguf_path(w->g), j->name, tt ? tt->name : "?");
    j->as_vector = out;
    w->n_jobs++;
    return ERR_OK;
}

err_code weights_check_all_used(const weights *w, const char *arch_name, err *e) {
    for (size_t i = 0; i < gguf_tensor_count(w->g); i++) {
        if (w->used[i]) continue;
        const gguf_str n = gguf_tensor_at(w->g, i)->name;
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: tensor %.*s is not part of the %s architecture as polder computes it, so the answers of this "
            "model would be wrong",
            gguf_path(w->g), (int)n.len, n.ptr, arch_name);
    }
    return ERR_OK;
}

typedef struct load_ctx {
    weights *w;
    atomic_bool failed;
    pthread_mutex_t lock;
    size_t failed_at; /* the lowest job that failed has its sentence in e */
    err_code rc;
    err *e;
} load_ctx;

static err_code load_one(const weights *w, weights_job *j, err *e) {
    const gguf_tensor *t = j->t;
    if (j->as_matrix)
        return matrix_new(j->as_matrix, t->type, (uint32_t)t->dims[1], (uint32_t)t->dims[0], t->data, j->name, e);
    float *v = mem_array((size_t)t->dims[0], sizeof *v);
    if (!v) return err_nomem(e, j->name);
    tensor_expand(t->type, t->data, v, (size_t)t->dims[0]);
    *j->as_vector = v;
    return ERR_OK;
}

static void load_jobs(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    load_ctx *c = ctx;
    for (size_t i = begin; i < end && !atomic_load(&c->failed); i++) {
        err mine = {0};
        err_code rc = load_one(c->w, &c->w->jobs[i], &mine);
        if (rc == ERR_OK) continue;
        pthread_mutex_lock(&c->lock);
        if (!atomic_load(&c->failed) || i < c->failed_at) {
            c->failed_at = i;
            c->rc = rc;
            if (c->e) *c->e = mine;
        }
        atomic_store(&c->failed, true);
        pthread_mutex_unlock(&c->lock);
    }
}

err_code weights_load(weights *w, err *e) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < w->n_jobs; i++) bytes += w->jobs[i].t->n_bytes;
    unsigned n_threads = sys_cpu_count();
    pool *p = NULL;
    if (bytes >= THREADS_FROM_BYTES && n_threads > 1) {
        err_code rc = pool_new(&p, n_threads, e);
        if (rc != ERR_OK) return rc;
    }
    load_ctx c = {.w = w, .lock = PTHREAD_MUTEX_INITIALIZER, .rc = ERR_OK, .e = e};
    pool_run(p, w->n_jobs, 1, load_jobs, &c);
    pool_free(p);
    if (c.rc != ERR_OK) return err_prefix(e, "%s", gguf_path(w->g));
    return ERR_OK;
}
