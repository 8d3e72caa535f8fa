/* Weights from the file's order into the packed form of kernels/kernels.h, and back for single rows. */
#include "engine/kernels/kernels.h"

#include <string.h>

/* Bytes of each field of a part (32 weights of 8 rows), in the order in which they stand. */
typedef struct part_layout {
    uint32_t sc, m, bit1, bit2, low;
    bool joint; /* sc and m in one byte (Q2_K) */
} part_layout;

static part_layout layout_of(tensor_type type) {
    switch (type) {
    case TT_Q8_0: return (part_layout){.low = 256};
    case TT_Q5_0:
    case TT_Q5_1: return (part_layout){.bit1 = 32, .low = 128};
    case TT_Q2_K: return (part_layout){.sc = 16, .low = 64, .joint = true};
    case TT_Q3_K: return (part_layout){.sc = 16, .bit1 = 32, .low = 64};
    case TT_Q4_K: return (part_layout){.sc = 8, .m = 8, .low = 128};
    case TT_Q5_K: return (part_layout){.sc = 8, .m = 8, .bit1 = 32, .low = 128};
    case TT_Q6_K: return (part_layout){.sc = 16, .bit2 = 64, .low = 128};
    case TT_IQ4_XS: return (part_layout){.sc = 8, .low = 128};
    default: return (part_layout){.low = 128};
    }
}

static uint32_t min_u32(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

bool pack_plan(packed *p, tensor_type type, uint32_t rows, uint32_t cols) {
    const quant_shape *s = quant_shape_get(type);
    *p = (packed){.type = type, .rows = rows, .cols = cols};
    p->n_groups = rows / LANES + (rows % LANES != 0);
    uint64_t group_bytes;
    if (!s) {
        p->unit_bytes = tensor_type_get((uint32_t)type)->block_bytes;
        group_bytes = (uint64_t)cols * LANES * p->unit_bytes;
        p->n_tasks = p->n_groups / PANEL_GROUPS + (p->n_groups % PANEL_GROUPS != 0);
        p->task_rows = LANES * PANEL_GROUPS;
    } else {
        part_layout l = layout_of(type);
        p->head_bytes = type == TT_MXFP4 ? 8 : s->min == MIN_NONE ? 16 : 32;
        p->part_bytes = l.sc + l.m + l.bit1 + l.bit2 + l.low;
        p->unit_bytes = p->head_bytes + (uint32_t)s->block / 32 * p->part_bytes;
        group_bytes = (uint64_t)(cols / (uint32_t)s->block) * p->unit_bytes;
        p->n_tasks = p->n_groups;
        p->task_rows = LANES;
    }
    p->task_bytes = group_bytes * (p->task_rows / LANES);
    return !__builtin_mul_overflow(group_bytes, (uint64_t)p->n_groups, &p->n_bytes) && p->n_bytes <= SIZE_MAX / 2;
}

/* ---- in --------------------------------------------------------------------------------------------------- */

/* Where in a panel the weights of lane 0, k = 0 of a group begin, and how far apart k's are; in weights. */
typedef struct float_place {
    uint64_t start;
    uint32_t step;
} float_place;

static float_place place_of(const packed *p, uint32_t group) {
    uint32_t panel = group / PANEL_GROUPS, in_panel = min_u32(PANEL_GROUPS, p->n_groups - panel * PANEL_GROUPS);
    uint64_t start = (uint64_t)panel * PANEL_GROUPS * LANES * p->cols + (uint64_t)(group % PANEL_GROUPS) * LANES;
    return (float_place){start, in_panel * LANES};
}

#define FILL_CHUNK 64 /* columns of a panel that are written while the first cache still holds them */

static void fill_floats(packed *p, const uint8_t *src, uint32_t begin, uint32_t end) {
    size_t size = p->unit_bytes;
    for (uint32_t g = begin * PANEL_GROUPS; g < min_u32(end * PANEL_GROUPS, p->n_groups); g += PANEL_GROUPS)
        for (uint32_t k0 = 0; k0 < p->cols; k0 += FILL_CHUNK)
            for (uint32_t r = g * LANES; r < min_u32(g + PANEL_GROUPS, p->n_groups) * LANES; r++) {
                float_place f = place_of(p, r / LANES);
                size_t step = f.step * size, n = min_u32(FILL_CHUNK, p->cols - k0);
                uint8_t *dst = p->data + (f.start + r % LANES) * size + k0 * step;
                const uint8_t *row = src + ((size_t)r * p->cols + k0) * size;
                if (r >= p->rows)
                    for (size_t k = 0; k < n; k++) memset(dst + k * step, 0, size);
                else if (size == 4)
                    for (size_t k = 0; k < n; k++) memcpy(dst + k * step, row + k * 4, 4);
                else
                    for (size_t k = 0; k < n; k++) memcpy(dst + k * step, row + k * 2, 2);
            }
}

static void put_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* The integers of 32 weights of 8 rows. Four k of one row are a word; shifts of whole words do not cross bytes, since
 * every byte is masked to its width first. */
static void put_weights(uint8_t *bit1, uint8_t *bit2, uint8_t *low, const part_layout *l, const quant_parts *rows,
                        uint32_t from) {
    uint32_t w[8][LANES], out[8][LANES]; /* register, lane */
    for (int r = 0; r < LANES; r++)
        for (int j = 0; j < 8; j++) memcpy(&w[j][r], rows[r].q + from + 4 * j, 4);
    if (l->low == 256) memcpy(low, w, 256);
    if (l->low == 128) {
        for (int j = 0; j < 4; j++)
            for (int r = 0; r < LANES; r++) out[j][r] = (w[j][r] & 0x0f0f0f0fu) | (w[j + 4][r] & 0x0f0f0f0fu) << 4;
        memcpy(low, out, 128);
    }
    for (int pass = 0; pass < 2; pass++) { /* two bits at the bottom, or above four */
        uint32_t shift = pass ? 4 : 0, m = 0x03030303u;
        if (pass ? !l->bit2 : l->low != 64) continue;
        for (int j = 0; j < 2; j++)
            for (int r = 0; r < LANES; r++)
                out[j][r] = (w[j][r] >> shift & m) | (w[j + 2][r] >> shift & m) << 2 | (w[j + 4][r] >> shift & m) << 4 |
                            (w[j + 6][r] >> shift & m) << 6;
        memcpy(pass ? bit2 : low, out, 64);
    }
    if (!l->bit1) return;
    uint32_t shift = l->low == 64 ? 2 : 4;
    memset(out[0], 0, sizeof out[0]);
    for (int j = 0; j < 8; j++)
        for (int r = 0; r < LANES; r++) out[0][r] |= (w[j][r] >> shift & 0x01010101u) << j;
    memcpy(bit1, out[0], 32);
}

static void put_scales(uint8_t *part, const quant_shape *s, const part_layout *l, const quant_parts *rows, uint32_t b) {
    uint32_t per_part = 32 / (uint32_t)s->run;
    for (uint32_t h = 0; s->scaled && h < per_part; h++)
        for (uint32_t r = 0; r < LANES; r++) {
            uint32_t run = b * per_part + h;
            int sc = rows[r].sc[run], m = rows[r].m[run];
            part[h * LANES + r] = (uint8_t)(l->joint ? sc | m << 4 : sc);
            if (l->m) part[l->sc + r] = (uint8_t)m;
        }
}

/* One block of the file of each of 8 rows. */
static void put_unit(const packed *p, const quant_shape *s, const part_layout *l, uint8_t *unit,
                     const quant_parts *rows) {
    for (uint32_t r = 0; r < LANES; r++) {
        if (p->type == TT_MXFP4)
            unit[r] = (uint8_t)rows[r].d;
        else
            put_u16(unit + 2 * r, rows[r].d);
        if (s->min != MIN_NONE) put_u16(unit + 16 + 2 * r, rows[r].dmin);
    }
    for (uint32_t b = 0; b < (uint32_t)s->block / 32; b++) {
        uint8_t *part = unit + p->head_bytes + b * p->part_bytes;
        uint8_t *bit1 = part + l->sc + l->m, *bit2 = bit1 + l->bit1, *low = bit2 + l->bit2;
        put_scales(part, s, l, rows, b);
        put_weights(bit1, bit2, low, l, rows, 32 * b);
    }
}

void pack_fill(packed *p, const uint8_t *src, uint32_t begin, uint32_t end) {
    const quant_shape *s = quant_shape_get(p->type);
    if (!s) {
        fill_floats(p, src, begin, end);
        return;
    }
    part_layout l = layout_of(p->type);
    uint32_t n_units = p->cols / (uint32_t)s->block;
    size_t block_bytes = tensor_type_get((uint32_t)p->type)->block_bytes;
    quant_parts rows[LANES];
    memset(rows, 0, sizeof rows); /* rows that are not there are zero */
    for (uint32_t g = begin; g < end; g++) {
        uint32_t n_rows = min_u32(LANES, p->rows - g * LANES);
        if (n_rows < LANES) memset(rows, 0, sizeof rows);
        for (uint32_t u = 0; u < n_units; u++) {
            for (uint32_t r = 0; r < n_rows; r++)
                quant_split(p->type, src + ((size_t)(g * LANES + r) * n_units + u) * block_bytes, &rows[r]);
            put_unit(p, s, &l, p->data + g * p->task_bytes + (size_t)u * p->unit_bytes, rows);
        }
    }
}

/* ---- out -------------------------------------------------------------------------------------------------- */

static uint8_t get_weight(const uint8_t *part, const part_layout *l, uint32_t r, uint32_t k) {
    const uint8_t *bit1 = part + l->sc + l->m, *bit2 = bit1 + l->bit1, *low = bit2 + l->bit2;
    uint32_t j = k / 4, x = r * 4 + k % 4;
    if (l->low == 256) return low[j * 32 + x];
    uint32_t v = l->low == 128 ? low[j % 4 * 32 + x] >> (j / 4 * 4) & 15 : low[j % 2 * 32 + x] >> (j / 2 * 2) & 3;
    uint32_t width = l->low == 128 ? 4 : 2;
    if (l->bit1) v |= (bit1[x] >> j & 1u) << width;
    if (l->bit2) v |= (bit2[j % 2 * 32 + x] >> (j / 2 * 2) & 3u) << width;
    return (uint8_t)v;
}

static void get_scales(const uint8_t *part, const part_layout *l, const quant_shape *s, uint32_t r, block8 *out) {
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t at = s->run == 16 ? h * LANES + r : r;
        out->sc[h][r] = !s->scaled ? 1 : l->joint ? part[at] & 15 : (int8_t)part[at];
        out->m[h][r] = l->joint ? part[at] >> 4 : l->m ? part[l->sc + r] : 0;
    }
}

static uint16_t get_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

/* Rows [begin, end) of the eight. */
static void get_block(const packed *p, uint32_t group, uint32_t block, uint32_t begin, uint32_t end, block8 *out) {
    const quant_shape *s = quant_shape_get(p->type);
    part_layout l = layout_of(p->type);
    uint32_t per_unit = (uint32_t)s->block / 32;
    const uint8_t *unit = p->data + group * p->task_bytes + (size_t)(block / per_unit) * p->unit_bytes;
    const uint8_t *part = unit + p->head_bytes + block % per_unit * p->part_bytes;
    for (uint32_t r = begin; r < end; r++) {
        out->d[r] = quant_scale(p->type, p->type == TT_MXFP4 ? unit[r] : get_u16(unit + 2 * r));
        out->dmin[r] = s->min == MIN_NONE ? 0 : quant_scale(p->type, get_u16(unit + 16 + 2 * r));
        get_scales(part, &l, s, r, out);
        for (uint32_t k = 0; k < 32; k++) out->w[r][k] = (int8_t)quant_weight(s, p->type, get_weight(part, &l, r, k));
    }
}

void packed_block(const packed *p, uint32_t group, uint32_t block, block8 *out) {
    get_block(p, group, block, 0, LANES, out);
}

static void float_row(const packed *p, uint32_t r, float *out) {
    float_place f = place_of(p, r / LANES);
    const uint8_t *src = p->data + (f.start + r % LANES) * p->unit_bytes;
    for (uint32_t k = 0; k < p->cols; k++) tensor_expand(p->type, src + (size_t)k * f.step * p->unit_bytes, out + k, 1);
}

void packed_row(const packed *p, uint32_t r, float *out) {
    const quant_shape *s = quant_shape_get(p->type);
    if (!s) {
        float_row(p, r, out);
        return;
    }
    uint32_t lane = r % LANES;
    for (uint32_t b = 0; b < p->cols / 32; b++) {
        block8 v;
        get_block(p, r / LANES, b, lane, lane + 1, &v);
        for (uint32_t k = 0; k < 32; k++) {
            uint32_t h = k / 16;
            float w = v.d[lane] * (float)v.sc[h][lane] * (float)v.w[lane][k];
            if (s->min == MIN_ADDED) w += v.dmin[lane];
            if (s->min == MIN_SCALED) w -= v.dmin[lane] * (float)v.m[h][lane];
            out[32 * b + k] = w;
        }
    }
}
