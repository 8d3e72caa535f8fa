#include "engine/models/models.h"

#include "base/mem.h"
#include "engine/holding.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

typedef struct weights_job {
    const gguf_tensor *t;
    matrix **as_matrix; /* one of the two */
    const float **as_vector;
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

static err_code add_job(weights *w, const gguf_tensor *t, const char *name, matrix **as_matrix, const float **as_vector,
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

err_code weights_floats(weights *w, const float **out, bool optional, uint32_t n, uint32_t rows, uint32_t cols, err *e,
                        const char *fmt, ...) {
    NAME_OF(name, fmt);
    const gguf_tensor *t;
    err_code rc = find(w, &t, optional, name, e);
    if (rc != ERR_OK || !t) return rc;
    if ((rc = check_shape(w, t, name, n, rows, cols, e)) != ERR_OK) return rc;
    return add_job(w, t, name, NULL, out, 0, n * rows, cols, e);
}

err_code weights_vector(weights *w, const float **out, bool optional, uint32_t n, err *e, const char *fmt, ...) {
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

/* What the job takes into memory; its place there is holding_fill's matter. */
static err_code describe(const weights *w, const weights_job *j, packfile_entry *x, err *e) {
    *x = (packfile_entry){.tensor = (uint32_t)(j->t - gguf_tensor_at(w->g, 0)),
                          .type = (uint32_t)j->t->type,
                          .first = j->first,
                          .rows = j->rows,
                          .cols = j->cols,
                          .is_vector = j->as_vector != NULL,
                          .len = (uint64_t)j->rows * j->cols * sizeof(float)};
    return j->as_vector ? ERR_OK : matrix_plan(j->t->type, j->rows, j->cols, j->name, &x->len, e);
}

static err_code own_room(model *m, size_t n, err *e) {
    matrix **ms = mem_realloc(m->owned.matrices, (m->owned.n_matrices + n) * sizeof(matrix *));
    if (ms) m->owned.matrices = ms;
    return ms ? ERR_OK : err_nomem(e, "the list of a model's weights");
}

err_code weights_own(model *m, matrix *made, err *e) {
    err_code rc = own_room(m, 1, e);
    if (rc == ERR_OK)
        m->owned.matrices[m->owned.n_matrices++] = made;
    else
        matrix_free(made);
    return rc;
}

/* Matrices and vectors on what is in memory now. */
static err_code hand_out(weights *w, const packfile_entry *entries, err *e) {
    model *m = w->m;
    err_code rc = own_room(m, w->n_jobs + 1, e);
    for (size_t i = 0; rc == ERR_OK && i < w->n_jobs; i++) {
        weights_job *j = &w->jobs[i];
        void *p = holding_at(m->hold, &entries[i]);
        if (j->as_vector) {
            *j->as_vector = p;
            continue;
        }
        rc = matrix_new_at(j->as_matrix, j->t->type, j->rows, j->cols, p, j->name, e);
        if (rc == ERR_OK) m->owned.matrices[m->owned.n_matrices++] = *j->as_matrix;
    }
    return rc;
}

err_code weights_load(weights *w, err *e) {
    packfile_entry *entries = mem_array(w->n_jobs + 1, sizeof *entries);
    if (!entries) return err_nomem(e, "the list of a model's weights");
    err_code rc = weights_check_all_used(w, e), planned = ERR_OK;
    for (size_t i = 0; rc == ERR_OK && planned == ERR_OK && i < w->n_jobs; i++)
        planned = describe(w, &w->jobs[i], &entries[i], e);
    if (planned != ERR_OK) rc = err_prefix(e, "%s", gguf_path(w->g));
    if (rc == ERR_OK) rc = holding_fill(w->m->hold, entries, w->n_jobs, e);
    if (rc == ERR_OK) rc = hand_out(w, entries, e);
    mem_free(entries);
    return rc;
}
