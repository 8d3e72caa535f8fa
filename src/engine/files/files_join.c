/* A source to one GGUF file: parts of a split model are joined, a folder goes through convert.c. */
#include "engine/files/convert.h"

#include <string.h>

#define COPY_CHUNK ((size_t)4 << 20)

/* ---- parts to one file ------------------------------------------------------------------------------------ */

static bool starts_with(gguf_str s, const char *start) {
    size_t n = strlen(start);
    return s.len >= n && memcmp(s.ptr, start, n) == 0;
}

static err_code copy_data(gguf_writer *w, const gguf *g, const model_file_options *o, err *e) {
    uint64_t done = 0, total = gguf_writer_bytes(w);
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        for (uint64_t at = 0; at < t->n_bytes; at += COPY_CHUNK) {
            size_t n = t->n_bytes - at < COPY_CHUNK ? (size_t)(t->n_bytes - at) : COPY_CHUNK;
            err_code rc = gguf_writer_data(w, t->data + at, n, e);
            if (rc) return rc;
            done += n;
            if (o->progress && o->progress(o->ctx, done, total))
                return err_set(e, ERR_CANCELLED, "%s: cancelled", gguf_path(g));
        }
    }
    return ERR_OK;
}

static err_code join_parts(const gguf *g, const char *out, const model_file_options *o, err *e) {
    gguf_writer *w = NULL;
    err_code rc = gguf_writer_new(&w, e);
    if (rc) return rc;
    for (size_t i = 0; i < gguf_key_count(g); i++) {
        gguf_raw k = gguf_key_at(g, i);
        /* data is laid out anew, with the usual alignment */
        if (!starts_with(k.key, "split.") && !starts_with(k.key, "general.alignment")) gguf_put_raw(w, &k);
    }
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        gguf_put_tensor(w, t->name.ptr, t->name.len, t->type, t->n_dims, t->dims);
    }
    rc = gguf_writer_begin(w, out, e);
    if (!rc) rc = copy_data(w, g, o, e);
    if (!rc) rc = gguf_writer_finish(w, e);
    gguf_writer_free(w);
    return rc;
}

/* ---- folders: convert.c does the work, the report is made here --------------------------------------------- */

static err_code folder_convert(const char *dir, const char *out, const model_file_options *o, cJSON **report, err *e) {
    err_code rc = files_look_folder(dir, o, report, e);
    if (!rc) rc = convert_folder(dir, out, o, *report, e);
    if (rc) {
        cJSON_Delete(*report);
        *report = NULL;
    }
    return rc;
}

err_code model_file_convert(const char *path, const char *out, const model_file_options *o, cJSON **report, err *e) {
    *report = NULL;
    if (files_is_folder(path)) return folder_convert(path, out, o, report, e);
    if (o->type) return model_file_quantize(path, out, o, report, e);
    gguf *g = NULL;
    err_code rc = gguf_open(&g, path, e);
    if (!rc) rc = files_look_gguf(g, o, report, e);
    if (!rc) rc = join_parts(g, out, o, e);
    if (!rc) rc = files_describe(*report, out, e);
    gguf_free(g);
    if (rc) {
        cJSON_Delete(*report);
        *report = NULL;
    }
    return rc;
}
