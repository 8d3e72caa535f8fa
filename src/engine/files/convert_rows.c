/* The rows of a family's table to output tensors: names, presence, what is left over. */
#include "engine/files/convert.h"

#include "engine/files/quantize.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void out_tensor_free(out_tensor *t) {
    mem_free((void *)t->parts);
    mem_free((void *)t->scales);
    mem_free(t->row_map);
    mem_free(t->col_map);
    mem_free(t->values);
    *t = (out_tensor){0};
}

static err_code add_out(convert *c, out_tensor *t, err *e) {
    if (c->n_outs == c->cap_outs) {
        size_t cap = c->cap_outs ? 2 * c->cap_outs : 64;
        out_tensor *p = mem_realloc(c->outs, cap * sizeof *p);
        if (!p) return err_nomem(e, "the tensors of a model");
        c->outs = p;
        c->cap_outs = cap;
    }
    c->outs[c->n_outs++] = *t;
    *t = (out_tensor){0};
    return ERR_OK;
}

err_code convert_add_values(convert *c, const char *name, const float *v, uint32_t n, err *e) {
    out_tensor t = {.type = TT_F32, .n_dims = 1, .dims = {n, 1, 1, 1}, .outer = 1, .rows = 1, .cols = n};
    snprintf(t.name, sizeof t.name, "%s", name);
    t.values = mem_array(n ? n : 1, sizeof *v);
    if (!t.values) return err_nomem(e, "the tensors of a model");
    memcpy(t.values, v, n * sizeof *v);
    err_code rc = add_out(c, &t, e);
    out_tensor_free(&t);
    return rc;
}

/* ---- names ------------------------------------------------------------------------------------------------ */

/* "layers.{}.mlp.experts.{e}.w1" to a name; prefix unless it begins with "/". */
static void fill_name(char out[512], const convert *c, const char *pattern, uint32_t layer, uint32_t expert) {
    size_t n = 0;
    if (*pattern == '/')
        pattern++;
    else
        n = (size_t)snprintf(out, 512, "%s", c->prefix);
    while (*pattern && n < 480) {
        if (strncmp(pattern, "{}", 2) == 0) {
            n += (size_t)snprintf(out + n, 512 - n, "%u", layer);
            pattern += 2;
        } else if (strncmp(pattern, "{e}", 3) == 0) {
            n += (size_t)snprintf(out + n, 512 - n, "%u", expert);
            pattern += 3;
        } else {
            out[n++] = *pattern++;
        }
    }
    out[n] = 0;
}

static const st_tensor *find_source(const convert *c, const char *name) {
    const st_tensor *t = st_find(c->set, name);
    return t;
}

static void mark(convert *c, const st_tensor *t) {
    c->used[t - st_at(c->set, 0)] = 1;
}

/* The block scales of an F8 weight, which lie beside it. */
static err_code find_scale(convert *c, const st_tensor *t, const st_tensor **out, err *e) {
    char name[560];
    *out = NULL;
    if (t->dtype != ST_F8_E4M3) return ERR_OK;
    snprintf(name, sizeof name, "%s_scale_inv", t->name);
    const st_tensor *s = find_source(c, name);
    if (!s) {
        snprintf(name, sizeof name, "%s_scale", t->name);
        s = find_source(c, name);
    }
    if (!s)
        return err_set(e, ERR_INVALID, "%s: tensor %s is F8_E4M3 and has no %s_scale_inv beside it", c->dir, t->name,
                       t->name);
    uint64_t rows = t->n_dims > 1 ? t->dims[t->n_dims - 2] : 1, cols = t->dims[t->n_dims ? t->n_dims - 1 : 0];
    uint64_t want = ((rows + c->fp8_block[0] - 1) / c->fp8_block[0]) * ((cols + c->fp8_block[1] - 1) / c->fp8_block[1]);
    uint64_t n = s->n_bytes / st_dtype_bytes(s->dtype);
    if (t->n_dims > 2 || (s->dtype != ST_F32 && s->dtype != ST_BF16 && s->dtype != ST_F16) || (n != want && n != 1))
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: tensor %s: %" PRIu64 " scales of dtype %s; blocks of %" PRIu64 " by %" PRIu64
                       " ask for %" PRIu64 " in F32, F16 or BF16",
                       c->dir, s->name, n, st_dtype_name(s->dtype), c->fp8_block[0], c->fp8_block[1], want);
    mark(c, s);
    *out = s;
    return ERR_OK;
}

/* ---- one row ---------------------------------------------------------------------------------------------- */

static err_code take_parts(convert *c, const convert_row *row, uint32_t layer, out_tensor *t, bool *there, err *e) {
    size_t n = row->op == OP_EXPERTS ? c->n_expert : 1;
    char name[512];
    fill_name(name, c, row->hf, layer, 0);
    *there = find_source(c, name) != NULL;
    if (!*there || !n) return ERR_OK;
    t->parts = mem_array(n, sizeof *t->parts);
    t->scales = mem_array(n, sizeof *t->scales);
    if (!t->parts || !t->scales) return err_nomem(e, "the tensors of a model");
    t->n_parts = n;
    for (size_t i = 0; i < n; i++) {
        fill_name(name, c, row->hf, layer, (uint32_t)i);
        const st_tensor *s = t->parts[i] = find_source(c, name);
        if (!s)
            return err_set(e, ERR_INVALID, "%s: tensor %s is missing: the checkpoint is not complete", c->dir, name);
        if (i && (s->dtype != t->parts[0]->dtype || s->n_dims != t->parts[0]->n_dims ||
                  memcmp(s->dims, t->parts[0]->dims, sizeof s->dims) != 0))
            return err_set(e, ERR_INVALID, "%s: tensor %s has another shape or dtype than expert 0's", c->dir, name);
        mark(c, s);
        err_code rc = find_scale(c, s, &t->scales[i], e);
        if (rc) return rc;
    }
    return ERR_OK;
}

/* MXFP4 pairs: NAME_blocks and NAME_scales. */
static err_code take_mx(convert *c, const convert_row *row, uint32_t layer, out_tensor *t, bool *there, err *e) {
    char name[512], full[540];
    fill_name(name, c, row->hf, layer, 0);
    snprintf(full, sizeof full, "%s_blocks", name);
    t->mx_blocks = find_source(c, full);
    *there = t->mx_blocks != NULL;
    if (!*there) return ERR_OK;
    snprintf(full, sizeof full, "%s_scales", name);
    t->mx_scales = find_source(c, full);
    if (!t->mx_scales)
        return err_set(e, ERR_INVALID, "%s: tensor %s is missing: the checkpoint is not complete", c->dir, full);
    mark(c, t->mx_blocks);
    mark(c, t->mx_scales);
    return ERR_OK;
}

static bool is_mx(convert_op op) {
    return op == OP_MXFP4 || op == OP_MXFP4_EVEN || op == OP_MXFP4_ODD;
}

static bool force_f32(const out_tensor *t, const convert_row *row) {
    return (row->flags & ROW_F32) || t->n_dims < 2;
}

/* Type of the output: as the source, F32 for what is small, or as asked for. */
static err_code choose_type(convert *c, const convert_row *row, out_tensor *t, err *e) {
    const st_tensor *s = t->parts[0];
    switch (s->dtype) {
    case ST_F64:
    case ST_F32: t->type = TT_F32; break;
    case ST_F16: t->type = TT_F16; break;
    case ST_BF16:
    case ST_F8_E4M3: t->type = TT_BF16; break;
    default:
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: tensor %s has the dtype %s; weights are F64, F32, F16, BF16 or F8_E4M3 with scales", c->dir,
                       s->name, st_dtype_name(s->dtype));
    }
    if (force_f32(t, row)) {
        t->type = TT_F32;
        return ERR_OK;
    }
    if (!c->mix) return ERR_OK;
    mix_model mm = {.m = c->mix,
                    .n_layer = c->n_layer,
                    .n_expert = c->n_expert,
                    .n_gqa = c->n_head / c->n_head_kv,
                    .has_output = !c->tied};
    gguf_tensor as = {.name = {t->name, strlen(t->name)}, .type = t->type, .n_dims = t->n_dims};
    memcpy(as.dims, t->dims, sizeof as.dims);
    t->type = mix_choose(&mm, &as);
    return ERR_OK;
}

static err_code one_row(convert *c, const convert_row *row, uint32_t layer, bool *there, err *e) {
    out_tensor t = {0};
    char name[512];
    err_code rc = is_mx(row->op) ? take_mx(c, row, layer, &t, there, e) : take_parts(c, row, layer, &t, there, e);
    if (!rc && *there) {
        convert plain = {.prefix = ""};
        fill_name(name, &plain, row->gguf, layer, 0);
        snprintf(t.name, sizeof t.name, "%s", name);
        rc = convert_view(c, row, &t, e);
        if (!rc && !is_mx(row->op)) rc = choose_type(c, row, &t, e);
        if (!rc) rc = add_out(c, &t, e);
    }
    out_tensor_free(&t);
    return rc;
}

/* ---- all rows --------------------------------------------------------------------------------------------- */

static unsigned kind_of(const convert *c, uint32_t layer) {
    return c->family->kind ? c->family->kind(c, layer) : ROW_DENSE | ROW_FULL | ROW_OWN_KV;
}

static bool applies(const convert_row *row, unsigned kind) {
    unsigned want = row->flags & ROW_KINDS;
    return (want & ~kind) == 0;
}

/* Rows [first, end) have one gguf name: the first with a source is taken. */
static err_code group(convert *c, size_t first, size_t end, uint32_t layer, unsigned kind, err *e) {
    const convert_row *needed = NULL;
    for (size_t i = first; i < end; i++) {
        const convert_row *row = &c->family->rows[i];
        bool there = false;
        if (!applies(row, kind) || ((row->flags & ROW_HEAD) && c->tied)) continue;
        err_code rc = one_row(c, row, layer, &there, e);
        if (rc || there) return rc;
        if (!(row->flags & ROW_OPTIONAL) && !needed) needed = row;
        if ((row->flags & ROW_HEAD) && !c->says_tied) needed = NULL;
    }
    if (!needed) return ERR_OK;
    char name[512];
    fill_name(name, c, needed->hf, layer, 0);
    return err_set(e, ERR_INVALID, "%s: tensor %s%s is missing: the checkpoint is not complete", c->dir, name,
                   is_mx(needed->op) ? "_blocks" : "");
}

static size_t group_end(const convert_family *f, size_t i) {
    size_t end = i + 1;
    while (end < f->n_rows && strcmp(f->rows[end].gguf, f->rows[i].gguf) == 0) end++;
    return end;
}

static bool per_layer(const convert_row *row) {
    return strncmp(row->gguf, "blk.", 4) == 0;
}

static err_code find_prefix(convert *c, err *e) {
    static const char *const usual[] = {
        "model.language_model.", "language_model.model.", "model.", "language_model.", "", NULL};
    const char *const *p = c->family->prefixes ? c->family->prefixes : usual;
    for (; *p; p++) {
        char name[512];
        snprintf(name, sizeof name, "%s%s", *p, c->family->probe);
        if (!find_source(c, name)) continue;
        snprintf(c->prefix, sizeof c->prefix, "%s", *p);
        return ERR_OK;
    }
    return err_set(e, ERR_INVALID,
                   "%s: tensor %s is missing (with any of the usual prefixes): the checkpoint is not "
                   "complete",
                   c->dir, c->family->probe);
}

/* ---- what is left ----------------------------------------------------------------------------------------- */

typedef struct left_out {
    const char *part; /* a piece of the name */
    bool at_start;
    const char *what;
} left_out;

static const left_out left_outs[] = {
    {"visual.", false, "the vision tower"},
    {"vision_tower.", false, "the vision tower"},
    {"vision_model.", false, "the vision tower"},
    {"vision_encoder.", true, "the vision tower"},
    {"multi_modal_projector.", false, "the vision tower's projector"},
    {"embed_vision.", false, "the vision tower's projector"},
    {"patch_merger.", true, "the vision tower's projector"},
    {"audio_tower.", false, "the audio tower"},
    {"embed_audio.", false, "the audio tower's projector"},
    {"mtp.", true, "the heads that guess further tokens"},
    {"model.mtp.", true, "the heads that guess further tokens"},
    {".rotary_emb.inv_freq", false, "tables that are computed"},
    {"embeddings.position_ids", false, "tables that are computed"},
    {".masked_bias", false, "tables that are computed"},
    {"pooler.dense.", false, "a pooler that embeddings do not use"},
    {"cls.", true, "heads for pre-training"},
};
#define N_LEFT_OUT (sizeof left_outs / sizeof *left_outs)

/* Layers past the last: DeepSeek's heads for further tokens. */
static bool past_last_layer(const convert *c, const char *name) {
    char start[96];
    unsigned layer;
    int n = snprintf(start, sizeof start, "%slayers.", c->prefix);
    return strncmp(name, start, (size_t)n) == 0 && sscanf(name + n, "%u.", &layer) == 1 && layer >= c->n_layer;
}

static int why_left_out(const convert *c, const char *name) {
    for (size_t i = 0; i < N_LEFT_OUT; i++) {
        const char *at = strstr(name, left_outs[i].part);
        if (at && (!left_outs[i].at_start || at == name)) return (int)i;
    }
    return past_last_layer(c, name) ? 9 : -1; /* as "mtp." */
}

static bool is_head(const char *name) {
    size_t n = strlen(name);
    return n >= 14 && strcmp(name + n - 14, "lm_head.weight") == 0;
}

static err_code check_left(convert *c, err *e) {
    size_t counts[N_LEFT_OUT] = {0};
    for (size_t i = 0; i < st_count(c->set); i++) {
        const char *name = st_at(c->set, i)->name;
        if (c->used[i]) continue;
        if (c->tied && is_head(name)) {
            err_code rc = convert_note(c, e, "%s is left out: config.json ties it to the embeddings", name);
            if (rc) return rc;
            continue;
        }
        int why = why_left_out(c, name);
        if (why < 0)
            return err_set(
                e, ERR_UNSUPPORTED,
                "%s: tensor %s is not part of the %s architecture as polder knows it, so the converted model "
                "would answer wrongly",
                c->dir, name, c->family->arch);
        counts[why]++;
    }
    for (size_t i = 0; i < N_LEFT_OUT; i++) {
        if (!counts[i]) continue;
        err_code rc = convert_note(c, e, "%zu tensors left out: %s", counts[i], left_outs[i].what);
        if (rc) return rc;
    }
    return ERR_OK;
}

err_code convert_plan(convert *c, err *e) {
    const convert_family *f = c->family;
    err_code rc = find_prefix(c, e);
    c->used = mem_array(st_count(c->set) + 1, 1);
    if (!c->used) return err_nomem(e, "the tensors of a model");
    for (size_t i = 0, end; i < f->n_rows && !rc; i = end) {
        end = group_end(f, i);
        if (!per_layer(&f->rows[i])) rc = group(c, i, end, 0, ROW_KINDS, e);
    }
    if (!rc && f->extra) rc = f->extra(c, e);
    for (uint32_t layer = 0; layer < c->n_layer && !rc; layer++) {
        unsigned kind = kind_of(c, layer);
        for (size_t i = 0, end; i < f->n_rows && !rc; i = end) {
            end = group_end(f, i);
            if (per_layer(&f->rows[i])) rc = group(c, i, end, layer, kind, e);
        }
    }
    return rc ? rc : check_left(c, e);
}
