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
    uint32_t first, rows, cols; /* a matrix: rows [first, first + rows) of the tensor, its planes one above another */
    char name[GGUF_NAME_MAX + 1];
} weights_job;

err_code weights_new(weights *w, model *m, const gguf *g, err *e) {
    *w = (weights){.m = m, .g = g};
    w->used = mem_array(gguf_tensor_count(g) + 1, 1);
    return w->used ? ERR_OK : err_nomem(e, "the list of a model's tensors");
}

void weights_free(weights *w) {
    mem_free(w->jobs);
    mem_free(w->used);
    *w = (weights){0};
}

bool weights_has(const weights *w, const char *fmt, ...) {
    char name[GGUF_NAME_MAX + 1];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return gguf_tensor_find(w->g, name) != NULL;
}

/* A tensor by its name; NULL where an optional one is absent. */
static err_code find(weights *w, const gguf_tensor **out, bool optional, const char *name, err *e) {
    const gguf_tensor *t = *out = gguf_tensor_find(w->g, name);
    if (!t) {
        if (optional) return ERR_OK;
        return err_set(e, ERR_INVALID, "%s: tensor %s is missing: the file is not complete", gguf_path(w->g), name);
    }
    size_t at = (size_t)(t - gguf_tensor_at(w->g, 0)); /* they lie in one array */
    if (w->used[at]) return err_set(e, ERR_INTERNAL, "%s: tensor %s is asked for twice", gguf_path(w->g), name);
    w->used[at] = 1;
    return ERR_OK;
}

static err_code check_shape(const weights *w, const gguf_tensor *t, const char *name, uint64_t n, uint64_t rows,
                            uint64_t cols, err *e) {
    const uint64_t *d = t->dims;
    if (d[0] == cols && d[1] == rows && d[2] == n && d[3] == 1) return ERR_OK;
    return err_set(e, ERR_INVALID,
                   "%s: tensor %s has the shape (%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64
                   "), but the file's hyperparameters ask for (%" PRIu64 ", %" PRIu64 ", %" PRIu64 ")",
                   gguf_path(w->g), name, d[0], d[1], d[2], d[3], cols, rows, n);
}

static err_code add_job(weights *w, const gguf_tensor *t, const char *name, matrix **as_matrix, float **as_vector,
                        uint32_t first, uint32_t rows, uint32_t cols, err *e) {
    if (w->n_jobs == w->cap_jobs) {
        size_t cap = w->cap_jobs ? 2 * w->cap_jobs : 64;
        weights_job *p = mem_realloc(w->jobs, cap * sizeof *p);
        if (!p) return err_nomem(e, "the list of a model's tensors");
        w->jobs = p;
        w->cap_jobs = cap;
    }
    weights_job *j = &w->jobs[w->n_jobs++];
    *j = (weights_job){
        .t = t, .as_matrix = as_matrix, .as_vector = as_vector, .first = first, .rows = rows, .cols = cols};
    snprintf(j->name, sizeof j->name, "%s", name);
    return ERR_OK;
}

#define NAME_OF(name, fmt)                  \
    char name[GGUF_NAME_MAX + 1];           \
    va_list ap;                             \
    va_start(ap, fmt);                      \
    vsnprintf(name, sizeof(name), fmt, ap); \
    va_end(ap)

err_code weights_matrices(weights *w, matrix **outs, bool optional, uint32_t n, uint32_t rows, uint32_t cols, err *e,
                          const char *fmt, ...) {
    NAME_OF(name, fmt);
    const gguf_tensor *t;
    err_code rc = find(w, &t, optional, name, e);
    if (rc != ERR_OK || !t) return rc;
    if ((rc = check_shape(w, t, name, n, rows, cols, e)) != ERR_OK) return rc;
    for (uint32_t i = 0; rc == ERR_OK && outs && i < n; i++)
        rc = add_job(w, t, name, &outs[i], NULL, i * rows, rows, cols, e);
    return rc;
}

err_code weights_matrix(weights *w, matrix **out, bool optional, uint32_t rows, uint32_t cols, err *e, const char *fmt,
                        ...) {
    NAME_OF(name, fmt);
    return weights_matrices(w, out, optional, 1, rows, cols, e, "%s", name);
}

err_code weights_split_planes(weights *w, matrix **const *outs, const uint32_t *rows, uint32_t planes, uint32_t n,
                              uint32_t cols, err *e, const char *fmt, ...) {
    NAME_OF(name, fmt);
    const gguf_tensor *t;
    err_code rc = find(w, &t, false, name, e);
    if (rc != ERR_OK) return rc;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += rows[i];
    if ((rc = check_shape(w, t, name, planes, sum, cols, e)) != ERR_OK) return rc;
    for (uint32_t i = 0, at = 0; rc == ERR_OK && i < planes * n; at += rows[i++])
        rc = add_job(w, t, name, outs[i], NULL, at, rows[i], cols, e);
    return rc;
}

err_code weights_split(weights *w, matrix **const *outs, const uint32_t *rows, uint32_t n, uint32_t cols, err *e,
                       const char *fmt, ...) {
    NAME_OF(name, fmt);
    return weights_split_planes(w, outs, rows, 1, n, cols, e, "%s", name);
}

err_code weights_floats(weights *w, float **out, bool optional, uint32_t n, uint32_t rows, uint32_t cols, err *e,
                        const char *fmt, ...) {
    NAME_OF(name, fmt);
    const gguf_tensor *t;
    err_code rc = find(w, &t, optional, name, e);
    if (rc != ERR_OK || !t) return rc;
    if ((rc = check_shape(w, t, name, n, rows, cols, e)) != ERR_OK) return rc;
    return add_job(w, t, name, NULL, out, 0, n * rows, cols, e);
}

err_code weights_vector(weights *w, float **out, bool optional, uint32_t n, err *e, const char *fmt, ...) {
    NAME_OF(name, fmt);
    const gguf_tensor *t = gguf_tensor_find(w->g, name);
    const tensor_type_facts *tt = t ? tensor_type_get(t->type) : NULL;
    err_code rc = weights_floats(w, out, optional, 1, 1, n, e, "%s", name);
    if (rc == ERR_OK && tt && tt->block_len != 1)
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor %s has the type %s; norms and biases are F32, F16 or BF16",
                       gguf_path(w->g), name, tt->name);
    return rc;
}

err_code weights_check_all_used(const weights *w, err *e) {
    for (size_t i = 0; i < gguf_tensor_count(w->g); i++) {
        if (w->used[i]) continue;
        const gguf_str n = gguf_tensor_at(w->g, i)->name;
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: tensor %.*s is not part of the %s architecture as polder computes it, so the answers of this "
            "model would be wrong",
            gguf_path(w->g), (int)n.len, n.ptr, w->m->arch->name);
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
    (void)w;
    const gguf_tensor *t = j->t;
    if (j->as_matrix) {
        uint64_t row_bytes = t->n_bytes / (t->dims[1] * t->dims[2]);
        return matrix_new(j->as_matrix, t->type, j->rows, j->cols, t->data + j->first * row_bytes, j->name, e);
    }
    size_t n = (size_t)j->rows * j->cols;
    float *v = mem_alloc_aligned(n * sizeof *v);
    if (!v) return err_nomem(e, j->name);
    tensor_expand(t->type, t->data, v, n);
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

static err_code own_room(model *m, size_t n, err *e) {
    matrix **ms = mem_realloc(m->owned.matrices, (m->owned.n_matrices + n) * sizeof(matrix *));
    if (ms) m->owned.matrices = ms;
    float **vs = mem_realloc(m->owned.vectors, (m->owned.n_vectors + n) * sizeof(float *));
    if (vs) m->owned.vectors = vs;
    return ms && vs ? ERR_OK : err_nomem(e, "the list of a model's weights");
}

err_code weights_own(model *m, matrix *made, err *e) {
    err_code rc = own_room(m, 1, e);
    if (rc == ERR_OK)
        m->owned.matrices[m->owned.n_matrices++] = made;
    else
        matrix_free(made);
    return rc;
}

err_code weights_load(weights *w, err *e) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < w->n_jobs; i++)
        bytes += w->jobs[i].t->n_bytes; /* a tensor of experts counts often: enough */
    unsigned n_threads = sys_cpu_count();
    pool *p = NULL;
    err_code rc = weights_check_all_used(w, e);
    if (rc == ERR_OK) rc = own_room(w->m, w->n_jobs + 1, e);
    if (rc == ERR_OK && bytes >= THREADS_FROM_BYTES && n_threads > 1) rc = pool_new(&p, n_threads, e);
    if (rc != ERR_OK) return rc;
    load_ctx c = {.w = w, .lock = PTHREAD_MUTEX_INITIALIZER, .rc = ERR_OK, .e = e};
    pool_run(p, w->n_jobs, 1, load_jobs, &c);
    pool_free(p);
    for (size_t i = 0; i < w->n_jobs; i++) {
        weights_job *j = &w->jobs[i];
        if (j->as_matrix && *j->as_matrix) w->m->owned.matrices[w->m->owned.n_matrices++] = *j->as_matrix;
        if (j->as_vector && *j->as_vector) w->m->owned.vectors[w->m->owned.n_vectors++] = *j->as_vector;
    }
    if (c.rc != ERR_OK) return err_prefix(e, "%s", gguf_path(w->g));
    return ERR_OK;
}
