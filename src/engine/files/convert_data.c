/* Output tensors computed chunk by chunk, rows over threads, and written in order. */
#include "engine/files/convert.h"

#include "engine/files/quantize.h"
#include "engine/num.h"
#include "engine/quant.h"

#include "base/mem.h"
#include "base/sys.h"

#include <math.h>
#include <string.h>

#define CHUNK_FLOATS ((size_t)4 << 20) /* F32 weights in memory at once */

/* ---- one element of a source ------------------------------------------------------------------------------ */

/* OCP FP8 E4M3: sign, 4 bits of exponent with bias 7, 3 of fraction; no infinities, 0x7f is NaN. */
static float f8_e4m3(uint8_t b) {
    int exp = b >> 3 & 15, man = b & 7;
    float v = exp ? (float)(8 + man) * num_from_bits((uint32_t)(exp - 7 - 3 + 127) << 23) : (float)man * 0x1p-9f;
    if (exp == 15 && man == 7) v = NAN;
    return b & 0x80 ? -v : v;
}

static float element(const st_tensor *s, uint64_t at) {
    const uint8_t *p = s->data + at * st_dtype_bytes(s->dtype);
    uint16_t h;
    float f;
    double d;
    switch (s->dtype) {
    case ST_F32: memcpy(&f, p, 4); return f;
    case ST_F64: memcpy(&d, p, 8); return (float)d;
    case ST_F16: memcpy(&h, p, 2); return f16_to_f32(h);
    case ST_BF16: memcpy(&h, p, 2); return num_from_bits((uint32_t)h << 16);
    default: return f8_e4m3(*p);
    }
}

/* The scale of the block that an F8 weight lies in. */
static float block_scale(const convert *c, const st_tensor *s, const st_tensor *scale, uint64_t at) {
    if (scale->n_bytes == st_dtype_bytes(scale->dtype)) return element(scale, 0);
    uint64_t cols = s->dims[s->n_dims - 1], row = at / cols, col = at % cols;
    uint64_t per_row = (cols + c->fp8_block[1] - 1) / c->fp8_block[1];
    return element(scale, row / c->fp8_block[0] * per_row + col / c->fp8_block[1]);
}

/* ---- one row ---------------------------------------------------------------------------------------------- */

static void edit_row(const out_tensor *t, float *dst) {
    for (uint64_t j = 0; j < t->cols; j++) {
        if (t->edit == EDIT_ADD_ONE) dst[j] += 1.0f;
        if (t->edit == EDIT_NEG_EXP) dst[j] = -(float)num_exp((double)dst[j]);
    }
}

typedef struct place {
    const st_tensor *s, *scale;
    uint64_t base;
} place;

static place row_place(const out_tensor *t, uint64_t row) {
    uint64_t o = row / t->rows, r = row % t->rows;
    size_t part = t->n_parts > 1 ? (size_t)o : 0;
    uint64_t in = t->row_map ? t->row_map[r] : r;
    return (place){t->parts[part], t->scales[part],
                   t->start + (t->n_parts > 1 ? 0 : o * t->outer_stride) + in * t->row_stride};
}

static void row_f32(const convert *c, const out_tensor *t, uint64_t row, float *dst) {
    if (t->values) {
        memcpy(dst, t->values, (size_t)t->cols * sizeof *dst);
        return;
    }
    place p = row_place(t, row);
    for (uint64_t j = 0; j < t->cols; j++) {
        uint64_t at = p.base + (t->col_map ? t->col_map[j] : j) * t->col_stride;
        dst[j] = element(p.s, at);
        if (p.scale) dst[j] *= block_scale(c, p.s, p.scale, at);
    }
    if (t->edit != EDIT_NONE) edit_row(t, dst);
}

static tensor_type same_type(st_dtype d) {
    return d == ST_F32 ? TT_F32 : d == ST_F16 ? TT_F16 : TT_BF16;
}

/* The bytes themselves can be copied: no arithmetic touches them, so even a NaN keeps its bits. */
static bool is_raw(const out_tensor *t) {
    if (t->values || t->mx_blocks || t->edit != EDIT_NONE || t->scales[0]) return false;
    st_dtype d = t->parts[0]->dtype;
    return (d == ST_F32 || d == ST_F16 || d == ST_BF16) && same_type(d) == t->type;
}

static void row_raw(const out_tensor *t, uint64_t row, uint8_t *dst) {
    place p = row_place(t, row);
    size_t each = st_dtype_bytes(p.s->dtype);
    if (t->col_stride == 1 && !t->col_map) {
        memcpy(dst, p.s->data + p.base * each, (size_t)t->cols * each);
        return;
    }
    for (uint64_t j = 0; j < t->cols; j++) {
        uint64_t at = p.base + (t->col_map ? t->col_map[j] : j) * t->col_stride;
        memcpy(dst + j * each, p.s->data + at * each, each);
    }
}

/* The checkpoint's byte k holds weights 2 k (low) and 2 k + 1 (high); GGUF's byte j weights j and j + 16. */
static void row_mx(const out_tensor *t, uint64_t row, uint8_t *dst) {
    uint64_t o = row / t->rows, r = row % t->rows, n = t->cols / 32;
    uint64_t at = (o * t->outer_stride + t->start + r * t->row_stride) * n;
    for (uint64_t b = 0; b < n; b++, dst += 17) {
        const uint8_t *in = t->mx_blocks->data + (at + b) * 16;
        dst[0] = t->mx_scales->data[at + b];
        for (int j = 0; j < 16; j++) {
            int lo = in[j / 2] >> (j % 2 * 4) & 15, hi = in[8 + j / 2] >> (j % 2 * 4) & 15;
            dst[1 + j] = (uint8_t)(lo | hi << 4);
        }
    }
}

/* ---- chunks ----------------------------------------------------------------------------------------------- */

typedef struct chunk_job {
    const convert *c;
    const out_tensor *t;
    uint64_t first; /* row */
    float *floats;
    uint8_t *bytes;
    size_t row_bytes;
} chunk_job;

static void chunk_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    chunk_job *k = ctx;
    const out_tensor *t = k->t;
    for (size_t i = begin; i < end; i++) {
        uint8_t *dst = k->bytes + i * k->row_bytes;
        if (t->mx_blocks) {
            row_mx(t, k->first + i, dst);
        } else if (is_raw(t)) {
            row_raw(t, k->first + i, dst);
        } else {
            float *f = k->floats + i * (size_t)t->cols;
            row_f32(k->c, t, k->first + i, f);
            quantize_rows(t->type, f, dst, 1, (size_t)t->cols, NULL);
        }
    }
}

static err_code write_tensor(convert *c, pool *p, const out_tensor *t, uint64_t *done, uint64_t total, err *e) {
    const tensor_type_facts *f = tensor_type_get(t->type);
    if (t->cols % f->block_len)
        return err_set(e, ERR_INVALID, "%s: tensor %s: rows of %llu weights are not whole blocks of %s", c->dir,
                       t->name, (unsigned long long)t->cols, f->name);
    uint64_t n_rows = t->rows * t->outer;
    size_t row_bytes = (size_t)(t->cols / f->block_len * f->block_bytes);
    size_t per = (size_t)(CHUNK_FLOATS / t->cols);
    if (per == 0) per = 1;
    if (per > n_rows) per = (size_t)n_rows;
    chunk_job k = {.c = c, .t = t, .row_bytes = row_bytes};
    bool floats = !t->mx_blocks && !is_raw(t);
    k.bytes = mem_alloc(per * row_bytes);
    k.floats = floats ? mem_alloc(per * (size_t)t->cols * sizeof(float)) : NULL;
    err_code rc = k.bytes && (k.floats || !floats) ? ERR_OK : err_nomem(e, "a part of a matrix");
    size_t grain = (size_t)(65536 / t->cols) + 1;
    for (uint64_t at = 0; at < n_rows && !rc; at += per) {
        size_t n = n_rows - at < per ? (size_t)(n_rows - at) : per;
        k.first = at;
        pool_run(p, n, grain, chunk_rows, &k);
        rc = gguf_writer_data(c->w, k.bytes, n * row_bytes, e);
        *done += n * row_bytes;
        if (!rc && c->o->progress && c->o->progress(c->o->ctx, *done, total))
            rc = err_set(e, ERR_CANCELLED, "%s: cancelled", c->dir);
    }
    mem_free(k.bytes);
    mem_free(k.floats);
    return rc;
}

err_code convert_write_data(convert *c, err *e) {
    pool *p = NULL;
    unsigned n = c->o->n_threads ? c->o->n_threads : sys_cpu_count();
    err_code rc = pool_new(&p, n, e);
    uint64_t done = 0, total = gguf_writer_bytes(c->w);
    for (size_t i = 0; i < c->n_outs && !rc; i++) rc = write_tensor(c, p, &c->outs[i], &done, total, e);
    pool_free(p);
    return rc;
}
