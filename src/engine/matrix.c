#include "engine/kernels/kernels.h"

#include "base/mem.h"

#include <assert.h>
#include <inttypes.h>
#include <stdalign.h>
#include <string.h>

struct matrix {
    packed p;
    bool borrowed; /* the bytes are somebody else's */
};

struct acts {
    acts_view v;
    act_block *blocks;
    size_t max_blocks;
    bool quantised; /* blocks are those of v.x */
};

const mat_kernels *mat_get(isa i) {
    if (!isa_have(i)) return NULL;
#ifdef POLDER_HAVE_AVX2
    if (i == ISA_AVX2) return &mat_avx2;
#endif
#ifdef POLDER_HAVE_AVX512
    if (i == ISA_AVX512) return &mat_avx512;
#endif
#ifdef POLDER_HAVE_NEON
    if (i == ISA_NEON) return &mat_neon;
#endif
    return &mat_scalar;
}

/* ---- matrices ---------------------------------------------------------------------------------------------- */

static err_code plan(packed *p, tensor_type type, uint32_t rows, uint32_t cols, const char *name, err *e) {
    const tensor_type_facts *f = tensor_type_get((uint32_t)type);
    if (!f) return err_set(e, ERR_UNSUPPORTED, "tensor %s: type %d is not read by polder", name, (int)type);
    if (rows == 0 || cols == 0) return err_set(e, ERR_INVALID, "tensor %s: %u x %u is not a matrix", name, rows, cols);
    if (cols % f->block_len)
        return err_set(e, ERR_INVALID, "tensor %s: rows of %u weights are not whole blocks of %u (%s)", name, cols,
                       f->block_len, f->name);
    if (pack_plan(p, type, rows, cols)) return ERR_OK;
    return err_set(e, ERR_TOO_LARGE, "tensor %s: %u x %u weights do not fit in an address space", name, rows, cols);
}

err_code matrix_plan(tensor_type type, uint32_t rows, uint32_t cols, const char *name, uint64_t *n_bytes, err *e) {
    packed p;
    err_code rc = plan(&p, type, rows, cols, name, e);
    *n_bytes = rc == ERR_OK ? p.n_bytes : 0;
    return rc;
}

err_code matrix_new_at(matrix **out, tensor_type type, uint32_t rows, uint32_t cols, void *packed_bytes,
                       const char *name, err *e) {
    matrix *m = *out = mem_zalloc(sizeof *m);
    if (!m) return err_nomem(e, "a matrix");
    err_code rc = plan(&m->p, type, rows, cols, name, e);
    m->p.data = packed_bytes;
    m->borrowed = true;
    if (rc == ERR_OK) return rc;
    mem_free(m);
    *out = NULL;
    return rc;
}

err_code matrix_new(matrix **out, tensor_type type, uint32_t rows, uint32_t cols, const void *data, const char *name,
                    err *e) {
    err_code rc = matrix_new_at(out, type, rows, cols, NULL, name, e);
    if (rc != ERR_OK) return rc;
    packed *p = &(*out)->p;
    (*out)->borrowed = false;
    p->data = mem_alloc_aligned((size_t)p->n_bytes);
    if (p->data) {
        pack_fill(p, data, 0, p->n_tasks);
        return ERR_OK;
    }
    rc = err_set(e, ERR_NOMEM, "tensor %s: no memory for its %" PRIu64 " MiB; free some or take a smaller model", name,
                 p->n_bytes >> 20);
    matrix_free(*out);
    *out = NULL;
    return rc;
}

void matrix_free(matrix *m) {
    if (!m) return;
    if (!m->borrowed) mem_free_aligned(m->p.data);
    mem_free(m);
}

uint32_t matrix_rows(const matrix *m) {
    return m->p.rows;
}
uint32_t matrix_cols(const matrix *m) {
    return m->p.cols;
}
uint64_t matrix_bytes(const matrix *m) {
    return m->p.n_bytes;
}

void matrix_row(const matrix *m, uint32_t r, float *out) {
    assert(r < m->p.rows);
    packed_row(&m->p, r, out);
}

/* ---- activations ------------------------------------------------------------------------------------------- */

err_code acts_new(acts **out, uint32_t max_rows, uint32_t max_cols, err *e) {
    *out = NULL;
    acts *a = mem_zalloc(sizeof *a);
    size_t n = (size_t)max_rows * (max_cols / 32) + ACTS_BEYOND, bytes;
    if (!a || __builtin_mul_overflow(n, sizeof(act_block), &bytes)) {
        mem_free(a);
        return err_nomem(e, "activations");
    }
    a->blocks = mem_alloc_aligned(bytes);
    if (!a->blocks) {
        mem_free(a);
        return err_nomem(e, "activations");
    }
    memset(a->blocks + (n - ACTS_BEYOND), 0, ACTS_BEYOND * sizeof *a->blocks);
    a->max_blocks = n - ACTS_BEYOND;
    *out = a;
    return ERR_OK;
}

void acts_free(acts *a) {
    if (!a) return;
    mem_free_aligned(a->blocks);
    mem_free(a);
}

void acts_set(acts *a, pool *p, const float *x, size_t ldx, uint32_t n, uint32_t cols) {
    assert((uint64_t)n * (cols / 32) <= a->max_blocks);
    a->v = (acts_view){x, ldx, a->blocks, n, n, cols};
    a->quantised = false;
}

static void quantise_range(void *ctx, size_t begin, size_t end, unsigned thread) {
    acts *a = ctx;
    mat_get(isa_get())->quantise(a->blocks, &a->v, (uint32_t)begin, (uint32_t)end);
}

/* Below this many multiplications (or values to quantise) waking other threads costs more than it saves. */
#define ALONE_MULS   (1u << 16)
#define ALONE_VALUES (1u << 14)

static void acts_quantise(acts *a, pool *p) {
    if (a->quantised) return;
    size_t n = a->v.n;
    if (n * a->v.cols <= ALONE_VALUES)
        quantise_range(a, 0, n, 0);
    else
        pool_run(p, n, 8, quantise_range, a);
    a->quantised = true;
}

/* ---- products ---------------------------------------------------------------------------------------------- */

typedef struct mul_job {
    const matmul *ops;
    size_t n_ops;
    const acts_view *a;
} mul_job;

static uint32_t op_rows(const matmul *op, const acts_view *a) {
    return op->n ? op->n : a->n;
}

/* The tasks of all matrices stand one after another in [0, n). */
static void mul_range(void *ctx, size_t begin, size_t end, unsigned thread) {
    const mul_job *j = ctx;
    size_t first = 0;
    for (size_t i = 0; i < j->n_ops && first < end; i++) {
        const matmul *op = &j->ops[i];
        const packed *w = &op->m->p;
        size_t last = first + w->n_tasks, b = begin > first ? begin : first, e = end < last ? end : last;
        acts_view a = *j->a;
        a.x += op->first * a.ldx + op->col;
        a.blocks += op->first + op->col / 32 * a.ldb;
        a.n = op_rows(op, j->a);
        a.cols = w->cols;
        if (b < e) mat_get(isa_get())->mul(w, (uint32_t)(b - first), (uint32_t)(e - first), &a, op->y, op->ldy);
        first = last;
    }
}

/* Bytes of weights a thread takes at a time: enough to stream, few enough that threads end together. */
#define GRAIN_BYTES (64u << 10)
/* Pieces a thread should at least find, so that one that is held up leaves others to who is done. */
#define FAIR 8
/* Groups that kernels for several tokens take at once. */
#define TOGETHER 4
/* Where many tokens wait, groups that pass together share what a kernel prepares of the activations. */
#define MANY_TOKENS 32
#define MANY_GRAIN  16

void matrix_mul(pool *p, const matmul *ops, size_t n_ops, acts *a) {
    if (a->v.n == 0) return;
    size_t n_tasks = 0;
    uint64_t bytes = 0, muls = 0;
    bool quantised = false;
    for (size_t i = 0; i < n_ops; i++) {
        const packed *w = &ops[i].m->p;
        assert((uint64_t)ops[i].col + w->cols <= a->v.cols && (uint64_t)ops[i].first + ops[i].n <= a->v.n);
        assert(ops[i].col % 32 == 0 || !quant_shape_get(w->type));
        n_tasks += w->n_tasks;
        bytes += w->n_bytes;
        muls += (uint64_t)w->rows * w->cols * op_rows(&ops[i], &a->v);
        if (quant_shape_get(w->type)) quantised = true;
    }
    if (quantised) acts_quantise(a, p);
    mul_job j = {ops, n_ops, &a->v};
    if (muls <= ALONE_MULS) {
        mul_range(&j, 0, n_tasks, 0);
        return;
    }
    const uint64_t task_bytes = bytes / n_tasks + 1;
    if (a->v.n == 1) {
        /* one token waits for memory alone, and each call of a kernel breaks off what is being fetched */
        pool_run_halves(p, n_tasks, (size_t)(GRAIN_BYTES / task_bytes), mul_range, &j);
        return;
    }
    const uint64_t unit = quantised ? TOGETHER : 1;
    uint64_t grain = GRAIN_BYTES / task_bytes;
    if (a->v.n >= MANY_TOKENS && grain < MANY_GRAIN) grain = MANY_GRAIN;
    grain = (grain + unit - 1) / unit * unit;
    uint64_t fair = n_tasks / (FAIR * pool_threads(p)) / unit * unit; /* rounded up, shares would be uneven */
    if (grain > fair) grain = fair;
    if (grain < unit) grain = unit;
    pool_run(p, n_tasks, (size_t)grain, mul_range, &j);
}
