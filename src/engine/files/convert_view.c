/* What each operation makes of its source: shape, strides, maps.
 *
 * Safetensors list the slowest dimension first, GGUF the fastest: a source (E, rows, cols) is dims {cols, rows, E}. */
#include "engine/files/convert.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static err_code bad_shape(convert *c, const char *name, const char *want, err *e) {
    return err_set(e, ERR_INVALID, "%s: tensor %s does not have the shape that config.json asks for (%s)", c->dir, name,
                   want);
}

/* The whole source as it lies. */
static void plain(out_tensor *t, const st_tensor *s) {
    t->n_dims = s->n_dims ? s->n_dims : 1;
    for (uint32_t i = 0; i < GGUF_DIMS_MAX; i++) t->dims[i] = i < s->n_dims ? s->dims[s->n_dims - 1 - i] : 1;
    t->cols = t->dims[0];
    t->rows = t->dims[1];
    t->outer = t->dims[2] * t->dims[3];
    t->col_stride = 1;
    t->row_stride = t->cols;
    t->outer_stride = t->cols * t->rows;
}

static void set_dims(out_tensor *t, uint32_t n, uint64_t cols, uint64_t rows, uint64_t outer) {
    t->n_dims = n;
    t->cols = t->dims[0] = cols;
    t->rows = t->dims[1] = rows;
    t->outer = t->dims[2] = outer;
    t->dims[3] = 1;
}

static void squeeze(out_tensor *t) {
    uint32_t n = 0;
    uint64_t d[GGUF_DIMS_MAX] = {1, 1, 1, 1};
    for (uint32_t i = 0; i < t->n_dims; i++)
        if (t->dims[i] != 1) d[n++] = t->dims[i];
    t->n_dims = n ? n : 1;
    memcpy(t->dims, d, sizeof d);
    t->cols = d[0];
    t->rows = d[1];
    t->outer = d[2] * d[3];
    t->row_stride = t->cols;
    t->outer_stride = t->cols * t->rows;
}

static err_code row_map_new(out_tensor *t, err *e) {
    t->row_map = mem_array(t->rows ? (size_t)t->rows : 1, sizeof *t->row_map);
    return t->row_map ? ERR_OK : err_nomem(e, "the order of a matrix's rows");
}

/* Rope in pairs: row 2 i + s of a head is row s * half + i of the source. */
static err_code permute(convert *c, out_tensor *t, uint32_t n_head, err *e) {
    if (t->n_dims == 1) { /* a bias: its elements are the rows */
        t->rows = t->cols;
        t->cols = 1;
        t->row_stride = 1;
    }
    if (t->outer != 1 || t->rows % (2 * (uint64_t)n_head))
        return bad_shape(c, t->parts[0]->name, "rows of whole heads of even size", e);
    err_code rc = row_map_new(t, e);
    uint64_t size = t->rows / n_head, half = size / 2;
    for (uint64_t r = 0; r < t->rows && !rc; r++) {
        uint64_t in = r % size;
        t->row_map[r] = (uint32_t)(r - in + in % 2 * half + in / 2);
    }
    return rc;
}

static err_code stack(convert *c, out_tensor *t, err *e) {
    if (t->n_dims != 2) return bad_shape(c, t->parts[0]->name, "a matrix for each expert", e);
    set_dims(t, 3, t->cols, t->rows, t->n_parts);
    return ERR_OK;
}

/* (E, 2 n, d): half of each expert's rows. */
static err_code half_rows(convert *c, out_tensor *t, unsigned which, err *e) {
    if (t->n_dims != 3 || t->rows % 2) return bad_shape(c, t->parts[0]->name, "(experts, 2 n, width)", e);
    set_dims(t, 3, t->cols, t->rows / 2, t->outer);
    t->start = which * t->rows * t->row_stride;
    return ERR_OK;
}

/* (E, d, k) transposed to rows of d; `part` rows of `step` from `first`. */
static err_code transpose(convert *c, out_tensor *t, uint64_t first, uint64_t step, bool half, err *e) {
    if (t->n_dims != 3 || (half && t->cols % 2)) return bad_shape(c, t->parts[0]->name, "(experts, width, 2 n)", e);
    uint64_t wide = t->cols, d = t->rows;
    set_dims(t, 3, d, half ? wide / 2 : wide, t->outer);
    t->start = first;
    t->row_stride = step;
    t->col_stride = wide;
    t->outer_stride = wide * d;
    return ERR_OK;
}

static err_code every_second(convert *c, out_tensor *t, unsigned first, err *e) {
    if (t->cols % 2) return bad_shape(c, t->parts[0]->name, "an even last dimension", e);
    t->row_stride = t->cols;
    t->outer_stride = t->cols * t->rows;
    t->cols = t->dims[0] = t->cols / 2;
    t->start = first;
    t->col_stride = 2;
    return ERR_OK;
}

static err_code kv_b(convert *c, out_tensor *t, bool keys, err *e) {
    uint32_t nope, v;
    err_code rc = cfg_u32(c, "qk_nope_head_dim", 1, 1u << 16, &nope, e);
    if (!rc) rc = cfg_u32(c, "v_head_dim", 1, 1u << 16, &v, e);
    if (rc) return rc;
    uint64_t rank = t->cols, each = (uint64_t)nope + v;
    if (t->n_dims != 2 || t->rows != c->n_head * each)
        return bad_shape(c, t->parts[0]->name, "heads * (qk_nope_head_dim + v_head_dim) rows", e);
    t->outer_stride = each * rank;
    if (keys) { /* {nope, rank, heads} */
        set_dims(t, 3, nope, rank, c->n_head);
        t->row_stride = 1;
        t->col_stride = rank;
    } else { /* {rank, v, heads} */
        set_dims(t, 3, rank, v, c->n_head);
        t->start = nope * rank;
        t->row_stride = rank;
    }
    return ERR_OK;
}

/* ---- gated DeltaNet --------------------------------------------------------------------------------------- */

typedef struct delta {
    uint32_t k_heads, v_heads, k_dim, v_dim;
} delta;

static err_code delta_read(convert *c, delta *d, err *e) {
    err_code rc;
    if ((rc = cfg_u32(c, "linear_num_key_heads", 1, 4096, &d->k_heads, e)) ||
        (rc = cfg_u32(c, "linear_num_value_heads", 1, 4096, &d->v_heads, e)) ||
        (rc = cfg_u32(c, "linear_key_head_dim", 1, 65536, &d->k_dim, e)) ||
        (rc = cfg_u32(c, "linear_value_head_dim", 1, 65536, &d->v_dim, e)))
        return rc;
    if (d->v_heads % d->k_heads)
        return err_set(e, ERR_INVALID, "%s/config.json: %u value heads cannot share %u key heads evenly", c->dir,
                       d->v_heads, d->k_heads);
    return ERR_OK;
}

/* Position `i` of the tiled order (value head j of key head k is head j * k_heads + k) in the grouped one
 * (k * per + j), for units of `unit` rows or columns. */
static uint32_t tiled(const delta *d, uint64_t i, uint32_t unit) {
    uint64_t head = i / unit, k = head % d->k_heads, j = head / d->k_heads, per = d->v_heads / d->k_heads;
    return (uint32_t)((k * per + j) * unit + i % unit);
}

static err_code v_rows(convert *c, out_tensor *t, uint64_t before, uint32_t unit, const delta *d, err *e) {
    if (t->n_dims == 1) {
        t->rows = t->cols;
        t->cols = 1;
        t->row_stride = 1;
    }
    if (t->outer != 1 || t->rows != before + (uint64_t)d->v_heads * unit)
        return bad_shape(c, t->parts[0]->name, "the linear_* sizes", e);
    err_code rc = row_map_new(t, e);
    for (uint64_t r = 0; r < t->rows && !rc; r++)
        t->row_map[r] = (uint32_t)(r < before ? r : before + tiled(d, r - before, unit));
    return rc;
}

static err_code v_cols(convert *c, out_tensor *t, const delta *d, err *e) {
    if (t->n_dims != 2 || t->cols != (uint64_t)d->v_heads * d->v_dim)
        return bad_shape(c, t->parts[0]->name, "the linear_* sizes", e);
    t->col_map = mem_array((size_t)t->cols, sizeof *t->col_map);
    if (!t->col_map) return err_nomem(e, "the order of a matrix's columns");
    for (uint64_t j = 0; j < t->cols; j++) t->col_map[j] = tiled(d, j, d->v_dim);
    return ERR_OK;
}

/* Rows of in_proj_qkvz: for each key head q (k_dim), k (k_dim), v and z (v_dim for each of its value heads). */
static err_code qkvz(convert *c, out_tensor *t, bool z, const delta *d, err *e) {
    uint64_t per = d->v_heads / d->k_heads, vs = per * d->v_dim, each = 2 * (uint64_t)d->k_dim + 2 * vs;
    if (t->n_dims != 2 || t->rows != d->k_heads * each) return bad_shape(c, t->parts[0]->name, "the linear_* sizes", e);
    uint64_t keys = (uint64_t)d->k_heads * d->k_dim, values = d->k_heads * vs;
    t->rows = t->dims[1] = z ? values : 2 * keys + values;
    err_code rc = row_map_new(t, e);
    for (uint64_t r = 0; r < t->rows && !rc; r++) {
        uint64_t i = z ? r : r < keys ? r : r < 2 * keys ? r - keys : r - 2 * keys;
        uint64_t unit = !z && r < 2 * keys ? d->k_dim : vs;
        uint64_t skip = z ? 2 * d->k_dim + vs : r < keys ? 0 : r < 2 * keys ? d->k_dim : 2 * d->k_dim;
        t->row_map[r] = (uint32_t)(i / unit * each + skip + i % unit);
    }
    return rc;
}

static err_code delta_view(convert *c, convert_op op, out_tensor *t, err *e) {
    delta d;
    err_code rc = delta_read(c, &d, e);
    if (rc) return rc;
    uint64_t qk = 2 * (uint64_t)d.k_heads * d.k_dim;
    switch (op) {
    case OP_V_ROWS: return v_rows(c, t, 0, d.v_dim, &d, e);
    case OP_V_ROWS_ONE: return v_rows(c, t, 0, 1, &d, e);
    case OP_V_COLS: return v_cols(c, t, &d, e);
    case OP_QKV_V_ROWS: return v_rows(c, t, qk, d.v_dim, &d, e);
    case OP_CONV_V_ROWS: squeeze(t); return v_rows(c, t, qk, d.v_dim, &d, e);
    case OP_V_NEG_EXP: t->edit = EDIT_NEG_EXP; return v_rows(c, t, 0, 1, &d, e);
    case OP_QKVZ_QKV: return qkvz(c, t, false, &d, e);
    case OP_QKVZ_Z: return qkvz(c, t, true, &d, e);
    default: return err_set(e, ERR_INTERNAL, "a row of the table has an operation that is none");
    }
}

/* ---- MXFP4 ------------------------------------------------------------------------------------------------ */

/* blocks (E, rows, n, 16) and scales (E, rows, n): n blocks of 32 weights a row. */
static err_code mx_view(convert *c, convert_op op, out_tensor *t, err *e) {
    const st_tensor *b = t->mx_blocks, *s = t->mx_scales;
    if (b->dtype != ST_U8 || s->dtype != ST_U8 || b->n_dims != 4 || s->n_dims != 3 || b->dims[3] != 16 ||
        b->dims[0] != s->dims[0] || b->dims[1] != s->dims[1] || b->dims[2] != s->dims[2] ||
        (op != OP_MXFP4 && b->dims[1] % 2))
        return bad_shape(c, b->name, "blocks (experts, rows, n, 16) and scales (experts, rows, n) of U8", e);
    bool all = op == OP_MXFP4;
    set_dims(t, 3, b->dims[2] * 32, all ? b->dims[1] : b->dims[1] / 2, b->dims[0]);
    t->start = op == OP_MXFP4_ODD;
    t->row_stride = all ? 1 : 2; /* rows of blocks */
    t->outer_stride = b->dims[1];
    t->type = TT_MXFP4;
    return ERR_OK;
}

/* ---- all -------------------------------------------------------------------------------------------------- */

/* After a source is a matrix of rows and columns, what the operation changes. */
static err_code apply(convert *c, convert_op op, out_tensor *t, err *e) {
    switch (op) {
    case OP_COPY: return ERR_OK;
    case OP_ADD_ONE: t->edit = EDIT_ADD_ONE; return ERR_OK;
    case OP_NEG_EXP: t->edit = EDIT_NEG_EXP; return ERR_OK;
    case OP_PERMUTE_Q: return permute(c, t, c->n_head, e);
    case OP_PERMUTE_K: return permute(c, t, c->n_head_kv, e);
    case OP_SQUEEZE: squeeze(t); return ERR_OK;
    case OP_EXPERTS: return stack(c, t, e);
    case OP_ROWS_FIRST: return half_rows(c, t, 0, e);
    case OP_ROWS_SECOND: return half_rows(c, t, 1, e);
    case OP_T: return transpose(c, t, 0, 1, false, e);
    case OP_T_FIRST: return transpose(c, t, 0, 1, true, e);
    case OP_T_SECOND: return transpose(c, t, t->cols / 2, 1, true, e);
    case OP_T_EVEN: return transpose(c, t, 0, 2, true, e);
    case OP_T_ODD: return transpose(c, t, 1, 2, true, e);
    case OP_EVEN: return every_second(c, t, 0, e);
    case OP_ODD: return every_second(c, t, 1, e);
    case OP_KV_B_K: return kv_b(c, t, true, e);
    case OP_KV_B_V: return kv_b(c, t, false, e);
    default: return delta_view(c, op, t, e);
    }
}

err_code convert_view(convert *c, const convert_row *row, out_tensor *t, err *e) {
    if (t->mx_blocks) return mx_view(c, row->op, t, e);
    const st_tensor *s = t->parts[0];
    if (s->n_dims > GGUF_DIMS_MAX) return bad_shape(c, s->name, "at most 4 dimensions", e);
    plain(t, s);
    for (uint32_t i = 0; i < t->n_dims; i++)
        if (t->dims[i] == 0 || t->dims[i] > UINT32_MAX)
            return err_set(e, ERR_INVALID, "%s: tensor %s has a dimension of %" PRIu64, c->dir, s->name, t->dims[i]);
    return apply(c, row->op, t, e);
}
