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
        p->head_bytes = s->min == MIN_NONE ? 16 : 32;
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

static void fill_floats(packed *p, const uint8_t *src) {
    size_t size = p->unit_bytes;
    for (uint32_t r = 0; r < p->n_groups * LANES; r++) {
        float_place f = place_of(p, r / LANES);
        uint8_t *dst = p->data + (f.start + r % LANES) * size;
        const uint8_t *row = src + (size_t)r * p->cols * size;
        size_t step = f.step * size;
        if (r >= p->rows)
            for (uint32_t k = 0; k < p->cols; k++) memset(dst + k * step, 0, size);
        else if (size == 4)
            for (uint32_t k = 0; k < p->cols; k++) memcpy(dst + k * step, row + k * 4ull, 4);
        else
            for (uint32_t k = 0; k < p->cols; k++) memcpy(dst + k * step, row + k * 2ull, 2);
    }
}

static void put_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* Four k of one row at a time, as they stand in a register's 32-bit lane. */
static uint32_t four(const uint8_t *q) {
    uint32_t v;
    memcpy(&v, q, 4);
    return v;
}
static void or_four(uint8_t *p, uint32_t v) { /* v's bytes into p, which may hold other bits */
    v |= four(p);
    memcpy(p, &v, 4);
}

/* The integers of 32 weights of lane r into a part that begins as zeros. Shifts of whole words do not cross bytes:
 * every byte is masked to its width first. */
static void put_weights(uint8_t *bit1, uint8_t *bit2, uint8_t *low, const part_layout *l, const uint8_t *q,
                        uint32_t r) {
    for (uint32_t j = 0; j < 8; j++) {
        uint32_t v = four(q + 4 * j), at = r * 4, shift = l->low == 64 ? 2 : 4;
        if (l->bit1) or_four(bit1 + at, (v >> shift & 0x01010101u) << j);
        if (l->bit2) or_four(bit2 + j % 2 * 32 + at, (v >> 4 & 0x03030303u) << (j / 2 * 2));
        if (l->low == 256) or_four(low + j * 32 + at, v);
        if (l->low == 128) or_four(low + j % 4 * 32 + at, (v & 0x0f0f0f0fu) << (j / 4 * 4));
        if (l->low == 64) or_four(low + j % 2 * 32 + at, (v & 0x03030303u) << (j / 2 * 2));
    }
}

/* One block of the file into lane r of its unit. */
static void put_block(const packed *p, const quant_shape *s, const part_layout *l, uint8_t *unit, uint32_t r,
                      const uint8_t *block) {
    quant_parts o;
    quant_split(p->type, block, &o);
    put_u16(unit + 2 * r, o.d);
    if (s->min != MIN_NONE) put_u16(unit + 16 + 2 * r, o.dmin);
    uint32_t per_part = 32 / (uint32_t)s->run;
    for (uint32_t b = 0; b < (uint32_t)s->block / 32; b++) {
        uint8_t *part = unit + p->head_bytes + b * p->part_bytes;
        for (uint32_t h = 0; s->scaled && h < per_part; h++) {
            uint32_t run = b * per_part + h;
            part[h * LANES + r] = l->joint ? (uint8_t)(o.sc[run] | o.m[run] << 4) : (uint8_t)o.sc[run];
            if (l->m) part[l->sc + r] = o.m[run];
        }
        uint8_t *bit1 = part + l->sc + l->m, *bit2 = bit1 + l->bit1, *low = bit2 + l->bit2;
        put_weights(bit1, bit2, low, l, o.q + 32 * b, r);
    }
}

void pack_fill(packed *p, const uint8_t *src) {
    const quant_shape *s = quant_shape_get(p->type);
    if (!s) {
        fill_floats(p, src);
        return;
    }
    part_layout l = layout_of(p->type);
    uint32_t n_units = p->cols / (uint32_t)s->block;
    size_t block_bytes = tensor_type_get((uint32_t)p->type)->block_bytes;
    for (uint32_t g = 0; g < p->n_groups; g++) {
        uint8_t *group = p->data + g * p->task_bytes;
        memset(group, 0, p->task_bytes);
        for (uint32_t u = 0; u < n_units; u++)
            for (uint32_t r = 0; r < min_u32(LANES, p->rows - g * LANES); r++)
                put_block(p, s, &l, group + (size_t)u * p->unit_bytes, r,
                          src + ((size_t)(g * LANES + r) * n_units + u) * block_bytes);
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

void packed_block(const packed *p, uint32_t group, uint32_t block, block8 *out) {
    const quant_shape *s = quant_shape_get(p->type);
    part_layout l = layout_of(p->type);
    uint32_t per_unit = (uint32_t)s->block / 32;
    const uint8_t *unit = p->data + group * p->task_bytes + (size_t)(block / per_unit) * p->unit_bytes;
    const uint8_t *part = unit + p->head_bytes + block % per_unit * p->part_bytes;
    for (uint32_t r = 0; r < LANES; r++) {
        out->d[r] = f16_to_f32(get_u16(unit + 2 * r));
        out->dmin[r] = s->min == MIN_NONE ? 0 : f16_to_f32(get_u16(unit + 16 + 2 * r));
        get_scales(part, &l, s, r, out);
        for (uint32_t k = 0; k < 32; k++) out->w[r][k] = (int8_t)quant_weight(s, p->type, get_weight(part, &l, r, k));
    }
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
        packed_block(p, r / LANES, b, &v);
        for (uint32_t k = 0; k < 32; k++) {
            uint32_t h = k / 16;
            float w = v.d[lane] * (float)v.sc[h][lane] * (float)v.w[lane][k];
            if (s->min == MIN_ADDED) w += v.dmin[lane];
            if (s->min == MIN_SCALED) w -= v.dmin[lane] * (float)v.m[h][lane];
            out[32 * b + k] = w;
        }
    }
}
