/* Internal to engine: writing a GGUF file (version 3, alignment 32), tensor by tensor.
 *
 *   new → keys and tensors in any order → begin → data of every tensor, in the order they were named → finish
 *
 * Memory is the header's size. The file has no name until finish (or, where the file system cannot do that, a name
 * that ends with ".partial"), so a crash, a full disk or an error leaves no half file. The same calls give the same
 * bytes. Failures of keys and tensors are sticky and told by begin.
 */
#ifndef POLDER_ENGINE_GGUF_WRITE_H
#define POLDER_ENGINE_GGUF_WRITE_H

#include "base/buf.h"
#include "engine/files/gguf.h"

typedef struct gguf_writer gguf_writer;
err_code gguf_writer_new(gguf_writer **out, err *e);
void gguf_writer_free(gguf_writer *w); /* NULL is fine; what is not finished is gone */

void gguf_put_u32(gguf_writer *w, const char *key, uint32_t v);
void gguf_put_f32(gguf_writer *w, const char *key, float v);
void gguf_put_bool(gguf_writer *w, const char *key, bool v);
void gguf_put_str(gguf_writer *w, const char *key, const char *s, size_t n);
void gguf_put_text(gguf_writer *w, const char *key, const char *s);
void gguf_put_i32s(gguf_writer *w, const char *key, const int32_t *v, size_t n);
void gguf_put_u32s(gguf_writer *w, const char *key, const uint32_t *v, size_t n);
void gguf_put_f32s(gguf_writer *w, const char *key, const float *v, size_t n);
void gguf_put_u8s(gguf_writer *w, const char *key, const uint8_t *v, size_t n);
void gguf_put_bools(gguf_writer *w, const char *key, const bool *v, size_t n);
void gguf_put_strs(gguf_writer *w, const char *key, const gguf_str *v, size_t n);
void gguf_put_raw(gguf_writer *w, const gguf_raw *k); /* a key of another file */

/* dims[0] are columns. */
void gguf_put_tensor(gguf_writer *w, const char *name, size_t name_len, tensor_type type, uint32_t n_dims,
                     const uint64_t *dims);

uint64_t gguf_writer_bytes(const gguf_writer *w); /* of the whole file, as it stands */
/* Writes the header. ERR_EXISTS where `path` is there; ERR_IO where the disk has not the room for all of it. */
err_code gguf_writer_begin(gguf_writer *w, const char *path, err *e);
/* The next bytes of the tensors' data; what lies between tensors is put in. */
err_code gguf_writer_data(gguf_writer *w, const void *p, size_t n, err *e);
/* Synced and under its name. ERR_INTERNAL where bytes are missing. */
err_code gguf_writer_finish(gguf_writer *w, err *e);

#endif
