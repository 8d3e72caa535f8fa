/* Importance matrices: for each matrix of a model the mean square of each of its inputs over some text.
 *
 * Two forms, both llama.cpp's. GGUF: general.type "imatrix", tensors NAME.in_sum2 (cols, n_mat) with sums of squares
 * and NAME.counts (1, n_mat) with how many inputs they are over. The older .dat: i32 n, then n entries of i32 length,
 * name, i32 calls, i32 values, f32 values[] (means times calls), and more that is not needed. */
#include "engine/files/quantize.h"

#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES_MAX 65536

typedef struct entry {
    char name[GGUF_NAME_MAX + 1];
    float *v;
    uint64_t n;
} entry;

struct imatrix {
    char *path;
    entry *entries; /* sorted by name */
    size_t n;
};

void imatrix_free(imatrix *m) {
    if (!m) return;
    for (size_t i = 0; i < m->n; i++) mem_free(m->entries[i].v);
    mem_free(m->entries);
    mem_free(m->path);
    mem_free(m);
}
size_t imatrix_count(const imatrix *m) {
    return m->n;
}

static err_code add(imatrix *m, const char *name, size_t len, uint64_t n, entry **out, err *e) {
    entry *x = &m->entries[m->n];
    if (len > GGUF_NAME_MAX || n == 0 || n > (UINT64_C(1) << 32))
        return err_set(e, ERR_INVALID, "%s: entry %zu has a name or a size that is out of bounds", m->path, m->n);
    memcpy(x->name, name, len);
    x->name[len] = 0;
    x->n = n;
    x->v = mem_array((size_t)n, sizeof(float));
    if (!x->v) return err_nomem(e, "an importance matrix");
    m->n++;
    *out = x;
    return ERR_OK;
}

static err_code check_values(const imatrix *m, const entry *x, err *e) {
    for (uint64_t i = 0; i < x->n; i++)
        if (!isfinite(x->v[i]) || x->v[i] < 0)
            return err_set(e, ERR_INVALID, "%s: %s: value %llu is not a finite number from 0", m->path, x->name,
                           (unsigned long long)i);
    return ERR_OK;
}

/* ---- GGUF ------------------------------------------------------------------------------------------------- */

static err_code read_pair(imatrix *m, const gguf *g, const gguf_tensor *sums, err *e) {
    size_t len = sums->name.len - 8; /* ".in_sum2" */
    char name[GGUF_NAME_MAX + 16];
    snprintf(name, sizeof name, "%.*s.counts", (int)len, sums->name.ptr);
    const gguf_tensor *counts = gguf_tensor_find(g, name);
    uint64_t cols = sums->dims[0], n_mat = sums->dims[1];
    if (!counts || counts->type != TT_F32 || sums->type != TT_F32 || counts->dims[0] != 1 || counts->dims[1] != n_mat ||
        sums->dims[2] != 1)
        return err_set(e, ERR_INVALID, "%s: tensor %.*s has no counts that fit it", m->path, (int)sums->name.len,
                       sums->name.ptr);
    entry *x;
    err_code rc = add(m, sums->name.ptr, len, cols * n_mat, &x, e);
    if (rc) return rc;
    memcpy(x->v, sums->data, (size_t)(cols * n_mat) * 4);
    for (uint64_t k = 0; k < n_mat; k++) {
        float n;
        memcpy(&n, counts->data + 4 * k, 4);
        /* an expert that no token reached tells nothing: all its inputs count alike */
        for (uint64_t j = 0; j < cols; j++) x->v[k * cols + j] = n > 0 ? x->v[k * cols + j] / n : 1;
    }
    return check_values(m, x, e);
}

static err_code read_gguf(imatrix *m, const char *path, err *e) {
    gguf *g = NULL;
    err_code rc = gguf_open(&g, path, e);
    m->entries = rc ? NULL : mem_array(gguf_tensor_count(g) + 1, sizeof *m->entries);
    if (!rc && !m->entries) rc = err_nomem(e, "an importance matrix");
    for (size_t i = 0; !rc && i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (t->name.len > 8 && memcmp(t->name.ptr + t->name.len - 8, ".in_sum2", 8) == 0) rc = read_pair(m, g, t, e);
    }
    gguf_free(g);
    return rc;
}

/* ---- .dat ------------------------------------------------------------------------------------------------- */

typedef struct reader {
    const uint8_t *p;
    size_t left;
} reader;

static bool take(reader *r, void *out, uint64_t n) {
    if (n > r->left) return false;
    memcpy(out, r->p, (size_t)n);
    r->p += n;
    r->left -= (size_t)n;
    return true;
}

static err_code read_entry(imatrix *m, reader *r, err *e) {
    int32_t len, calls, n;
    char name[GGUF_NAME_MAX + 1];
    entry *x;
    if (!take(r, &len, 4) || len < 1 || len > GGUF_NAME_MAX || !take(r, name, (uint64_t)len) || !take(r, &calls, 4) ||
        !take(r, &n, 4) || n < 1 || (uint64_t)n * 4 > r->left)
        return err_set(e, ERR_INVALID, "%s: entry %zu runs past the end, or its size is out of bounds", m->path, m->n);
    err_code rc = add(m, name, (size_t)len, (uint64_t)n, &x, e);
    if (rc) return rc;
    take(r, x->v, (uint64_t)n * 4);
    for (int32_t i = 0; i < n; i++) x->v[i] = calls > 0 ? x->v[i] / (float)calls : 1;
    return check_values(m, x, e);
}

static err_code read_dat(imatrix *m, const file_map *map, err *e) {
    reader r = {map->ptr, map->len};
    int32_t n;
    if (!take(&r, &n, 4) || n < 1 || n > ENTRIES_MAX)
        return err_set(e, ERR_INVALID, "%s: is not an importance matrix (neither GGUF nor the .dat form)", m->path);
    m->entries = mem_array((size_t)n, sizeof *m->entries);
    if (!m->entries) return err_nomem(e, "an importance matrix");
    for (int32_t i = 0; i < n; i++) {
        err_code rc = read_entry(m, &r, e);
        if (rc) return rc;
    }
    return ERR_OK;
}

/* ---- both ------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

err_code imatrix_open(imatrix **out, const char *path, err *e) {
    file_map map;
    imatrix *m = *out = mem_zalloc(sizeof *m);
    if (!m) return err_nomem(e, "an importance matrix");
    err_code rc = (m->path = mem_strdup(path)) ? file_map_open(&map, path, e) : err_nomem(e, "a file name");
    if (!rc) {
        bool is_gguf = map.len >= 4 && memcmp(map.ptr, "GGUF", 4) == 0;
        rc = is_gguf ? read_gguf(m, path, e) : read_dat(m, &map, e);
        file_map_close(&map);
    }
    if (!rc && !m->n) rc = err_set(e, ERR_INVALID, "%s: has no importances in it", path);
    if (!rc && m->n > 1) qsort(m->entries, m->n, sizeof *m->entries, by_name);
    for (size_t i = 1; !rc && i < m->n; i++)
        if (strcmp(m->entries[i - 1].name, m->entries[i].name) == 0)
            rc = err_set(e, ERR_INVALID, "%s: %s stands in it twice", path, m->entries[i].name);
    if (!rc) return ERR_OK;
    imatrix_free(m);
    *out = NULL;
    return rc;
}

err_code imatrix_find(const imatrix *m, const char *name, size_t name_len, uint64_t cols, uint64_t n_mat,
                      const float **out, err *e) {
    entry want;
    *out = NULL;
    if (name_len > GGUF_NAME_MAX) return ERR_OK;
    memcpy(want.name, name, name_len);
    want.name[name_len] = 0;
    const entry *x = bsearch(&want, m->entries, m->n, sizeof *m->entries, by_name);
    if (!x) return ERR_OK;
    if (x->n != cols * n_mat)
        return err_set(e, ERR_INVALID,
                       "%s: %s has %llu values, the model's tensor asks for %llu: made from another model?", m->path,
                       x->name, (unsigned long long)x->n, (unsigned long long)(cols * n_mat));
    *out = x->v;
    return ERR_OK;
}
