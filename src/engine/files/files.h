/* Part of engine's public header: model files made from other model files. Included by engine.h.
 *
 * A source is what people publish: a GGUF file, any part of a split GGUF, or a folder with config.json, a tokenizer and
 * safetensors. All three become one GGUF file, deterministically: the same source files give the same bytes, whatever
 * the folder's name, the thread count or the day. Nothing half-made is left by an error, a full disk or a kill.
 *
 * Reports are JSON objects (the caller's, cJSON_Delete):
 *   format     "gguf", "gguf-split" or "safetensors"
 *   files      [{"name", "bytes", "sha256"}]: every file that was read
 *   licence    the identifier that the model card or the file states; absent where it states none
 *   arch, tensors, bytes, types {"Q4_K": tensors, …}: of what was written
 *   notes      sentences: what was left out and why ("312 tensors of the vision tower are not part of …")
 */
#ifndef POLDER_ENGINE_FILES_H
#define POLDER_ENGINE_FILES_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

/* Bytes done and bytes to do. A return other than 0 cancels (ERR_CANCELLED). */
typedef int (*model_file_progress)(void *ctx, uint64_t done, uint64_t total);

typedef struct model_file_options {
    /* A tensor type ("BF16", "Q8_0") or a mix by name ("Q4_K_M"). NULL: as the source has them. */
    const char *type;
    const char *imatrix; /* path of an importance matrix (GGUF or the older .dat form); NULL: none */
    bool requantize;     /* take quantised weights too: they lose twice */
    unsigned n_threads;  /* 0: all CPUs this process may use */
    model_file_progress progress;
    void *ctx;
} model_file_options;

/* Is there more to do than to copy the file: a folder, or a part of a split model? False where it cannot be read. */
bool model_file_needs_convert(const char *path);
/* What is taken of a model's folder beside its weights, by path within it; the last is NULL. */
extern const char *const model_file_beside[];
/* The report of a source without writing anything: reads and hashes its files. */
err_code model_file_look(const char *path, const model_file_options *o, cJSON **report, err *e);
/* Write the source at `path` as one GGUF file. ERR_UNSUPPORTED names an unknown architecture, tensor, dtype or
 * quantisation and those known; ERR_EXISTS where `out` is there. */
err_code model_file_convert(const char *path, const char *out, const model_file_options *o, cJSON **report, err *e);
/* Write the GGUF (split or not) at `path` with o->type for its matrices. Memory is bounded by one matrix's chunk. */
err_code model_file_quantize(const char *path, const char *out, const model_file_options *o, cJSON **report, err *e);
/* The types and mixes by name, "Q8_0, Q4_K_M, …". Static text. */
const char *model_file_types(void);

#endif
