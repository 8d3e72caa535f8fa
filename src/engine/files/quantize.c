/* A GGUF file to one with other types, tensor by tensor: chunks of rows are expanded, given to the threads, written. */
#include "engine/files/quantize.h"

#include "engine/files/convert.h"
#include "engine/files/gguf_write.h"

#include "base/mem.h"
#include "base/sys.h"

#include <stdio.h>
#include <string.h>

#define CHUNK_FLOATS ((size_t)4 << 20)

typedef struct job {
    const gguf *g;
    const model_file_options *o;
    const mix *m;
    imatrix *im;
    mix_model mm;
    tensor_type *types; /* of every tensor, in the file's order */
    gguf_writer *w;
    pool *p;
    uint64_t done, total;
    size_t n_without; /* matrices that the importance matrix says nothing of */
} job;

const char *model_file_types(void) {
    return mix_names();
}

/* ---- what each tensor becomes ----------------------------------------------------------------------------- */

static err_code read_model(job *j, err *e) {
    gguf_str arch;
    char key[128];
    uint32_t heads = 1, kv = 1;
    err_code rc = gguf_str_or(j->g, "general.architecture", &arch, e);
    if (rc) return rc;
    const char *const names[] = {"block_count", "expert_count", "attention.head_count", "attention.head_count_kv"};
    uint32_t *const out[] = {&j->mm.n_layer, &j->mm.n_expert, &heads, &kv};
    for (int i = 0; i < 4; i++) {
        err ignored; /* some files have a list there, one number a layer */
        snprintf(key, sizeof key, "%.*s.%s", (int)(arch.len < 64 ? arch.len : 64), arch.ptr, names[i]);
        if (gguf_u32_or(j->g, key, 0, 1u << 20, i < 2 ? 0 : 1, out[i], &ignored)) *out[i] = i < 2 ? 0 : 1;
    }
    j->mm.n_gqa = kv ? heads / kv : 1;
    j->mm.m = j->m;
    j->mm.has_output = gguf_tensor_find(j->g, "output.weight") != NULL;
    j->mm.has_imatrix = j->im != NULL;
    return ERR_OK;
}

static bool is_plain(tensor_type t) {
    return tensor_type_get(t)->block_len == 1;
}

static err_code choose(job *j, err *e) {
    j->types = mem_array(gguf_tensor_count(j->g) + 1, sizeof *j->types);
    if (!j->types) return err_nomem(e, "the types of a model's tensors");
    for (size_t i = 0; i < gguf_tensor_count(j->g); i++) {
        const gguf_tensor *t = gguf_tensor_at(j->g, i);
        tensor_type want = j->types[i] = mix_choose(&j->mm, t);
        if (want == t->type || is_plain(t->type) || j->o->requantize) continue;
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: tensor %.*s is %s already; quantising twice loses more than once. Take the unquantised model, "
            "or say --requantize",
            gguf_path(j->g), (int)t->name.len, t->name.ptr, tensor_type_get(t->type)->name);
    }
    return ERR_OK;
}

static bool key_is(gguf_str k, const char *name) {
    return k.len == strlen(name) && memcmp(k.ptr, name, k.len) == 0;
}

static err_code write_header(job *j, const char *out, err *e) {
    for (size_t i = 0; i < gguf_key_count(j->g); i++) {
        gguf_raw k = gguf_key_at(j->g, i);
        bool ours = key_is(k.key, "general.file_type") || key_is(k.key, "general.quantization_version") ||
                    key_is(k.key, "general.alignment") || (k.key.len > 6 && memcmp(k.key.ptr, "split.", 6) == 0) ||
                    (k.key.len > 17 && memcmp(k.key.ptr, "quantize.imatrix.", 17) == 0);
        if (!ours) gguf_put_raw(j->w, &k);
    }
    gguf_put_u32(j->w, "general.file_type", mix_file_type(j->m));
    gguf_put_u32(j->w, "general.quantization_version", 2);
    if (j->im) gguf_put_u32(j->w, "quantize.imatrix.entries_count", (uint32_t)imatrix_count(j->im));
    for (size_t i = 0; i < gguf_tensor_count(j->g); i++) {
        const gguf_tensor *t = gguf_tensor_at(j->g, i);
        gguf_put_tensor(j->w, t->name.ptr, t->name.len, j->types[i], t->n_dims, t->dims);
    }
    j->total = gguf_writer_bytes(j->w);
    return gguf_writer_begin(j->w, out, e);
}

/* ---- data ------------------------------------------------------------------------------------------------- */

typedef struct chunk {
    const gguf_tensor *t;
    tensor_type to;
    uint64_t first;          /* row */
    const float *importance; /* of the whole tensor, or NULL */
    float *floats;
    uint8_t *bytes;
    size_t from_row, to_row; /* bytes */
} chunk;

static void chunk_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    chunk *c = ctx;
    size_t cols = (size_t)c->t->dims[0];
    for (size_t i = begin; i < end; i++) {
        uint64_t row = c->first + i;
        float *f = c->floats + i * cols;
        const float *w = c->importance ? c->importance + row / c->t->dims[1] * cols : NULL;
        tensor_expand(c->t->type, c->t->data + row * c->from_row, f, cols);
        quantize_rows(c->to, f, c->bytes + i * c->to_row, 1, cols, w);
    }
}

static err_code step(job *j, uint64_t n, err *e) {
    j->done += n;
    if (j->o->progress && j->o->progress(j->o->ctx, j->done, j->total))
        return err_set(e, ERR_CANCELLED, "%s: cancelled", gguf_path(j->g));
    return ERR_OK;
}

static err_code convert_tensor(job *j, const gguf_tensor *t, tensor_type to, err *e) {
    const tensor_type_facts *a = tensor_type_get(t->type), *b = tensor_type_get(to);
    size_t cols = (size_t)t->dims[0];
    uint64_t n_rows = t->dims[1] * t->dims[2] * t->dims[3];
    chunk c = {.t = t, .to = to};
    c.from_row = cols / a->block_len * a->block_bytes;
    c.to_row = cols / b->block_len * b->block_bytes;
    size_t per = CHUNK_FLOATS / cols ? CHUNK_FLOATS / cols : 1;
    if (per > n_rows) per = (size_t)n_rows;
    err_code rc = ERR_OK;
    if (j->im && b->block_len > 1) {
        rc = imatrix_find(j->im, t->name.ptr, t->name.len, cols, t->dims[2] * t->dims[3], &c.importance, e);
        if (!rc && !c.importance) j->n_without++;
    }
    c.floats = mem_alloc(per * cols * sizeof(float));
    c.bytes = mem_alloc(per * c.to_row);
    if (!rc && (!c.floats || !c.bytes)) rc = err_nomem(e, "a part of a matrix");
    for (uint64_t at = 0; at < n_rows && !rc; at += per) {
        size_t n = n_rows - at < per ? (size_t)(n_rows - at) : per;
        c.first = at;
        pool_run(j->p, n, 8192 / cols + 1, chunk_rows, &c);
        rc = gguf_writer_data(j->w, c.bytes, n * c.to_row, e);
        if (!rc) rc = step(j, n * c.to_row, e);
    }
    mem_free(c.floats);
    mem_free(c.bytes);
    return rc;
}

static err_code copy_tensor(job *j, const gguf_tensor *t, err *e) {
    for (uint64_t at = 0; at < t->n_bytes;) {
        size_t n = t->n_bytes - at < CHUNK_FLOATS ? (size_t)(t->n_bytes - at) : CHUNK_FLOATS;
        err_code rc = gguf_writer_data(j->w, t->data + at, n, e);
        if (!rc) rc = step(j, n, e);
        if (rc) return rc;
        at += n;
    }
    return ERR_OK;
}

static err_code write_all(job *j, const char *out, err *e) {
    unsigned n = j->o->n_threads ? j->o->n_threads : sys_cpu_count();
    err_code rc = write_header(j, out, e);
    if (!rc) rc = pool_new(&j->p, n, e);
    for (size_t i = 0; i < gguf_tensor_count(j->g) && !rc; i++) {
        const gguf_tensor *t = gguf_tensor_at(j->g, i);
        rc = j->types[i] == t->type ? copy_tensor(j, t, e) : convert_tensor(j, t, j->types[i], e);
    }
    return rc ? rc : gguf_writer_finish(j->w, e);
}

/* ---- the call --------------------------------------------------------------------------------------------- */

static err_code run(job *j, const char *out, err *e) {
    if (!j->o->type || !(j->m = mix_find(j->o->type)))
        return err_set(e, ERR_USAGE, "type \"%.40s\" is not known; known are %s", j->o->type ? j->o->type : "",
                       mix_names());
    err_code rc = j->o->imatrix ? imatrix_open(&j->im, j->o->imatrix, e) : ERR_OK;
    if (!rc) rc = read_model(j, e);
    if (!rc) rc = choose(j, e);
    if (!rc) rc = gguf_writer_new(&j->w, e);
    return rc ? rc : write_all(j, out, e);
}

static err_code add_notes(const job *j, cJSON *report, err *e) {
    cJSON *notes = cJSON_AddArrayToObject(report, "notes");
    bool ok = notes && cJSON_AddStringToObject(report, "type", mix_name(j->m));
    if (ok && j->n_without) {
        char text[120];
        snprintf(text, sizeof text, "%zu matrices are not in the importance matrix: all their inputs count alike",
                 j->n_without);
        cJSON *s = cJSON_CreateString(text);
        ok = s && cJSON_AddItemToArray(notes, s);
    }
    return ok ? ERR_OK : err_nomem(e, "a report");
}

err_code model_file_quantize(const char *path, const char *out, const model_file_options *o, cJSON **report, err *e) {
    gguf *g = NULL;
    *report = NULL;
    err_code rc = gguf_open(&g, path, e);
    if (rc) return rc;
    job j = {.g = g, .o = o};
    rc = run(&j, out, e);
    pool_free(j.p);
    gguf_writer_free(j.w);
    imatrix_free(j.im);
    mem_free(j.types);
    gguf_free(g);
    if (!rc) rc = model_file_look(path, o, report, e);
    if (!rc) rc = files_describe(*report, out, e);
    if (!rc) rc = add_notes(&j, *report, e);
    if (!rc) return ERR_OK;
    cJSON_Delete(*report);
    *report = NULL;
    return rc;
}
