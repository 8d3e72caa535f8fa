/* Internal to engine: GGUF v2 and v3 by mmap.
 *
 * File: magic "GGUF", u32 version, u64 n_tensors, u64 n_kv, then n_kv pairs (string key, u32 type, value), then
 * n_tensors infos (string name, u32 n_dims, u64 dims[], u32 type, u64 offset), padding to general.alignment (32
 * unless the file says otherwise), then tensor data at aligned offsets. Strings are u64 length + bytes, not
 * terminated. All little endian. dims[0] is the fastest (columns).
 *
 * gguf_open checks every count, length, offset and type against the file's size before use, refuses duplicate keys
 * and tensor names, overlapping tensors, and more than the limits below.
 *
 * A model may be split over files NAME-00001-of-00003.gguf …: each is a GGUF file with the keys split.no (from 0),
 * split.count and split.tensors.count (over all parts); the model's own keys stand in the first. gguf_open of any part
 * opens all of them as one.
 */
#ifndef POLDER_ENGINE_GGUF_H
#define POLDER_ENGINE_GGUF_H

#include "base/error.h"
#include "base/file.h"
#include "engine/tensor.h"

#define GGUF_KV_MAX      65536
#define GGUF_TENSORS_MAX 65536
#define GGUF_NAME_MAX    256
#define GGUF_DIMS_MAX    4
#define GGUF_PARTS_MAX   512

typedef enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STR,
    GGUF_ARR,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
} gguf_type;

typedef struct gguf_str { /* in the mapping, not terminated; any bytes */
    const char *ptr;
    size_t len;
} gguf_str;

typedef struct gguf_tensor {
    gguf_str name;
    tensor_type type;
    uint32_t n_dims;
    uint64_t dims[GGUF_DIMS_MAX]; /* unused ones are 1 */
    const uint8_t *data;
    uint64_t n_bytes;
} gguf_tensor;

typedef struct gguf gguf;
/* `path` is only for errors where map is given by gguf_open_memory (the bytes stay the caller's). */
err_code gguf_open(gguf **out, const char *path, err *e);
err_code gguf_open_memory(gguf **out, const void *p, size_t n, const char *path, err *e);
void gguf_free(gguf *g);
const char *gguf_path(const gguf *g);
uint64_t gguf_file_bytes(const gguf *g);

/* The file's descriptor, -1 where the bytes are the caller's or lie in several files. */
int gguf_fd(const gguf *g);
/* Its bytes before the first tensor: all that is not weights. NULL where it lies in several files. */
const uint8_t *gguf_head(const gguf *g, size_t *n);
/* These bytes of it are not needed for now: pages of a mapping go; reading them again brings them back. NULL: all. */
void gguf_release(const gguf *g, const void *p, size_t n);

/* NULL where there is none of that name. */
const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name);
size_t gguf_tensor_count(const gguf *g);
const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i);

/* Files that a model lies in: 1, or the parts of a split one. */
size_t gguf_part_count(const gguf *g);
const char *gguf_part_path(const gguf *g, size_t i);

/* Keys in order of their names, for copying: `value` are the bytes as the file has them (of an array without its
 * element type and count). Keys of a split are told by their prefix "split.". */
typedef struct gguf_raw {
    gguf_str key;
    gguf_type type, elem;
    uint64_t n; /* elements of an array */
    const uint8_t *value;
    size_t len;
} gguf_raw;
size_t gguf_key_count(const gguf *g);
gguf_raw gguf_key_at(const gguf *g, size_t i);

/* Typed reads of a key. `*_or` give the default where the key is absent; a key that is there with another type or
 * a value outside [min, max] is ERR_INVALID naming it. Integers of any GGUF integer type are accepted. */
bool gguf_has(const gguf *g, const char *key);
err_code gguf_u32(const gguf *g, const char *key, uint32_t min, uint32_t max, uint32_t *out, err *e); /* required */
err_code gguf_u32_or(const gguf *g, const char *key, uint32_t min, uint32_t max, uint32_t def, uint32_t *out, err *e);
err_code gguf_f32_or(const gguf *g, const char *key, float def, float *out, err *e); /* finite */
err_code gguf_bool_or(const gguf *g, const char *key, bool def, bool *out, err *e);
err_code gguf_str_or(const gguf *g, const char *key, gguf_str *out /* len 0 where absent */, err *e);
/* Arrays. */
err_code gguf_arr(const gguf *g, const char *key, gguf_type want, size_t *n, err *e); /* n = 0 where absent */
/* Strings of an array: iterate once from the start (they have no index). */
err_code gguf_arr_strs(const gguf *g, const char *key, gguf_str *out, size_t n, err *e);
/* Numeric elements converted. */
err_code gguf_arr_f32(const gguf *g, const char *key, float *out, size_t n, err *e);
err_code gguf_arr_i32(const gguf *g, const char *key, int32_t *out, size_t n, err *e);

#endif
