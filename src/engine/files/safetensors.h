/* Internal to engine: safetensors files, alone or as the shards of a folder.
 *
 * File: u64 little endian N, then N bytes of JSON, then data. The JSON is an object from tensor names to
 * {"dtype": "BF16", "shape": [rows, cols], "data_offsets": [begin, end]} (offsets into the data), and may have
 * "__metadata__" (strings to strings). shape[0] is the slowest dimension.
 *
 * Opening checks: N against the file and ST_HEADER_MAX; every dtype, dimension and offset; the bytes that shape and
 * dtype ask for are those that the offsets span; spans neither overlap nor leave gaps, and the last ends with the file.
 * Pickled checkpoints (.bin, .pt, .pth, .ckpt) are programs, not data; they are refused with a sentence.
 */
#ifndef POLDER_ENGINE_SAFETENSORS_H
#define POLDER_ENGINE_SAFETENSORS_H

#include "base/error.h"
#include "base/file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ST_HEADER_MAX  (100u << 20)
#define ST_TENSORS_MAX (1u << 20)
#define ST_FILES_MAX   4096
#define ST_DIMS_MAX    8

typedef enum st_dtype {
    ST_F64,
    ST_F32,
    ST_F16,
    ST_BF16,
    ST_F8_E4M3,
    ST_F8_E5M2,
    ST_F8_E8M0,
    ST_I64,
    ST_I32,
    ST_I16,
    ST_I8,
    ST_U8,
    ST_BOOL,
} st_dtype;
const char *st_dtype_name(st_dtype t);
size_t st_dtype_bytes(st_dtype t);

typedef struct st_tensor {
    const char *name; /* NUL-terminated; belongs to the set */
    st_dtype dtype;
    uint32_t n_dims;
    uint64_t dims[ST_DIMS_MAX]; /* slowest first, as the file has them */
    const uint8_t *data;
    uint64_t n_bytes;
} st_tensor;

typedef struct st_set st_set; /* the tensors of one or several files */
/* One file. */
err_code st_open_file(st_set **out, const char *path, err *e);
/* The checkpoint in a folder: what model.safetensors.index.json names, or model.safetensors, or the only *.safetensors
 * there. ERR_NOT_FOUND says what lies there instead. */
err_code st_open_folder(st_set **out, const char *dir, err *e);
/* Bytes in memory, which stay the caller's. */
err_code st_open_memory(st_set **out, const void *p, size_t n, const char *name, err *e);
void st_free(st_set *s);

size_t st_count(const st_set *s);
const st_tensor *st_at(const st_set *s, size_t i); /* in order of their names */
const st_tensor *st_find(const st_set *s, const char *name);
size_t st_file_count(const st_set *s);
const char *st_file_path(const st_set *s, size_t i);
uint64_t st_total_bytes(const st_set *s); /* of all files */

#endif
