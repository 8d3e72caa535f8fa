#include "engine/files/gguf_write.h"

#include "base/bytes.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALIGNMENT  32u
#define HEADER_MAX ((size_t)1 << 30)
#define CHUNK      ((size_t)1 << 20)

typedef struct placed {
    uint64_t offset, n_bytes;
} placed;

struct gguf_writer {
    buf keys, infos;
    uint64_t n_keys;
    placed *tensors;
    size_t n_tensors, cap_tensors;
    uint64_t data_bytes; /* of the tensors so far, aligned */
    bool nomem;
    int fd;
    char *path, *temp; /* temp is NULL while the file has no name at all */
    uint8_t *pending;  /* bytes not yet written */
    size_t n_pending;
    size_t at;      /* tensor that the next byte belongs to */
    uint64_t at_in; /* and where in it */
    uint64_t pos;   /* bytes given to the file, the pending ones too */
};

err_code gguf_writer_new(gguf_writer **out, err *e) {
    gguf_writer *w = *out = mem_zalloc(sizeof *w);
    if (!w) return err_nomem(e, "a model file to write");
    w->fd = -1;
    buf_init(&w->keys, HEADER_MAX);
    buf_init(&w->infos, HEADER_MAX);
    return ERR_OK;
}

void gguf_writer_free(gguf_writer *w) {
    if (!w) return;
    if (w->fd >= 0) close(w->fd);
    if (w->temp) unlink(w->temp);
    buf_free(&w->keys);
    buf_free(&w->infos);
    mem_free(w->tensors);
    mem_free(w->path);
    mem_free(w->temp);
    mem_free(w->pending);
    mem_free(w);
}

/* ---- header ----------------------------------------------------------------------------------------------- */

static void put_le(buf *b, uint64_t v, int n) {
    uint8_t p[8];
    for (int i = 0; i < n; i++, v >>= 8) p[i] = (uint8_t)v;
    buf_append(b, p, (size_t)n);
}

static void put_string(buf *b, const char *s, size_t n) {
    put_le(b, n, 8);
    if (n) buf_append(b, s, n);
}

static void put_key(gguf_writer *w, const char *key, gguf_type type) {
    put_string(&w->keys, key, strlen(key));
    put_le(&w->keys, type, 4);
    w->n_keys++;
}

static void put_array(gguf_writer *w, const char *key, gguf_type elem, size_t n) {
    put_key(w, key, GGUF_ARR);
    put_le(&w->keys, elem, 4);
    put_le(&w->keys, n, 8);
}

static uint32_t float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

void gguf_put_u32(gguf_writer *w, const char *key, uint32_t v) {
    put_key(w, key, GGUF_U32);
    put_le(&w->keys, v, 4);
}
void gguf_put_f32(gguf_writer *w, const char *key, float v) {
    put_key(w, key, GGUF_F32);
    put_le(&w->keys, float_bits(v), 4);
}
void gguf_put_bool(gguf_writer *w, const char *key, bool v) {
    put_key(w, key, GGUF_BOOL);
    put_le(&w->keys, v, 1);
}
void gguf_put_str(gguf_writer *w, const char *key, const char *s, size_t n) {
    put_key(w, key, GGUF_STR);
    put_string(&w->keys, s, n);
}
void gguf_put_text(gguf_writer *w, const char *key, const char *s) {
    gguf_put_str(w, key, s, strlen(s));
}
void gguf_put_i32s(gguf_writer *w, const char *key, const int32_t *v, size_t n) {
    put_array(w, key, GGUF_I32, n);
    for (size_t i = 0; i < n; i++) put_le(&w->keys, (uint32_t)v[i], 4);
}
void gguf_put_u32s(gguf_writer *w, const char *key, const uint32_t *v, size_t n) {
    put_array(w, key, GGUF_U32, n);
    for (size_t i = 0; i < n; i++) put_le(&w->keys, v[i], 4);
}
void gguf_put_f32s(gguf_writer *w, const char *key, const float *v, size_t n) {
    put_array(w, key, GGUF_F32, n);
    for (size_t i = 0; i < n; i++) put_le(&w->keys, float_bits(v[i]), 4);
}
void gguf_put_u8s(gguf_writer *w, const char *key, const uint8_t *v, size_t n) {
    put_array(w, key, GGUF_U8, n);
    if (n) buf_append(&w->keys, v, n);
}
void gguf_put_bools(gguf_writer *w, const char *key, const bool *v, size_t n) {
    put_array(w, key, GGUF_BOOL, n);
    for (size_t i = 0; i < n; i++) put_le(&w->keys, v[i], 1);
}
void gguf_put_strs(gguf_writer *w, const char *key, const gguf_str *v, size_t n) {
    put_array(w, key, GGUF_STR, n);
    for (size_t i = 0; i < n; i++) put_string(&w->keys, v[i].ptr, v[i].len);
}

void gguf_put_raw(gguf_writer *w, const gguf_raw *k) {
    put_string(&w->keys, k->key.ptr, k->key.len);
    put_le(&w->keys, k->type, 4);
    if (k->type == GGUF_ARR) {
        put_le(&w->keys, k->elem, 4);
        put_le(&w->keys, k->n, 8);
    }
    buf_append(&w->keys, k->value, k->len);
    w->n_keys++;
}

void gguf_put_tensor(gguf_writer *w, const char *name, size_t name_len, tensor_type type, uint32_t n_dims,
                     const uint64_t *dims) {
    if (w->n_tensors == w->cap_tensors) {
        size_t cap = w->cap_tensors ? 2 * w->cap_tensors : 256;
        placed *p = mem_realloc(w->tensors, cap * sizeof *p);
        if (!p) {
            w->nomem = true;
            return;
        }
        w->tensors = p;
        w->cap_tensors = cap;
    }
    const tensor_type_facts *f = tensor_type_get(type);
    uint64_t n = 1;
    put_string(&w->infos, name, name_len);
    put_le(&w->infos, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) {
        n *= dims[i];
        put_le(&w->infos, dims[i], 8);
    }
    put_le(&w->infos, type, 4);
    put_le(&w->infos, w->data_bytes, 8);
    uint64_t bytes = n / f->block_len * f->block_bytes;
    w->tensors[w->n_tensors++] = (placed){w->data_bytes, bytes};
    w->data_bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static uint64_t header_bytes(const gguf_writer *w) {
    uint64_t n = 4 + 4 + 8 + 8 + w->keys.len + w->infos.len;
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

uint64_t gguf_writer_bytes(const gguf_writer *w) {
    return header_bytes(w) + w->data_bytes;
}

/* ---- the file --------------------------------------------------------------------------------------------- */

static err_code open_temp(gguf_writer *w, err *e) {
    char folder[4096];
    const char *slash = strrchr(w->path, '/');
    size_t n = slash ? (size_t)(slash - w->path) : 1;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(n ? n : 1) : 1, slash ? w->path : ".");
    w->fd = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);
    if (w->fd >= 0) return ERR_OK;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT) return err_errno(e, "%s: cannot write here", folder);
    size_t cap = strlen(w->path) + 40;
    if (!(w->temp = mem_alloc(cap))) return err_nomem(e, "a file name");
    snprintf(w->temp, cap, "%s.%08x.partial", w->path, (unsigned)random_u64());
    w->fd = open(w->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (w->fd >= 0) return ERR_OK;
    mem_free(w->temp);
    w->temp = NULL;
    return err_errno(e, "%s: cannot be written", w->path);
}

static err_code flush(gguf_writer *w, err *e) {
    for (size_t i = 0; i < w->n_pending;) {
        ssize_t put = write(w->fd, w->pending + i, w->n_pending - i);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return err_errno(e, "%s: cannot be written", w->path);
        i += (size_t)put;
    }
    w->n_pending = 0;
    return ERR_OK;
}

static err_code emit(gguf_writer *w, const void *p, size_t n, err *e) {
    const uint8_t *from = p;
    w->pos += n;
    while (n) {
        size_t room = CHUNK - w->n_pending, take = n < room ? n : room;
        memcpy(w->pending + w->n_pending, from, take);
        w->n_pending += take;
        from += take;
        n -= take;
        if (w->n_pending < CHUNK) return ERR_OK;
        err_code rc = flush(w, e);
        if (rc) return rc;
    }
    return ERR_OK;
}

static err_code pad(gguf_writer *w, err *e) {
    static const uint8_t zeros[ALIGNMENT];
    size_t n = (size_t)(-w->pos & (ALIGNMENT - 1));
    return emit(w, zeros, n, e);
}

err_code gguf_writer_begin(gguf_writer *w, const char *path, err *e) {
    err_code rc = buf_check(&w->keys, "the keys of a model file", e);
    if (!rc) rc = buf_check(&w->infos, "the tensors of a model file", e);
    if (rc) return rc;
    w->path = mem_strdup(path);
    w->pending = mem_alloc(CHUNK);
    if (w->nomem || !w->path || !w->pending) return err_nomem(e, "a model file to write");
    if (file_exists(path))
        return err_set(e, ERR_EXISTS, "%s: is there already; remove it or choose another name", path);
    if ((rc = open_temp(w, e))) return rc;
    uint64_t total = gguf_writer_bytes(w);
    /* a disk that is too small says so now, where the file system can tell */
    if (fallocate(w->fd, 0, 0, (off_t)total) != 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINTR)
        return err_errno(e, "%s: cannot reserve %llu bytes", path, (unsigned long long)total);
    buf head = {.max = 64};
    buf_puts(&head, "GGUF");
    put_le(&head, 3, 4);
    put_le(&head, w->n_tensors, 8);
    put_le(&head, w->n_keys, 8);
    rc = buf_check(&head, "a model file's header", e);
    if (!rc) rc = emit(w, head.ptr, head.len, e);
    buf_free(&head);
    if (!rc) rc = emit(w, buf_str(&w->keys), w->keys.len, e);
    if (!rc) rc = emit(w, buf_str(&w->infos), w->infos.len, e);
    return rc ? rc : pad(w, e);
}

err_code gguf_writer_data(gguf_writer *w, const void *p, size_t n, err *e) {
    const uint8_t *from = p;
    while (n) {
        if (w->at == w->n_tensors) return err_set(e, ERR_INTERNAL, "%s: more data than its tensors have", w->path);
        uint64_t room = w->tensors[w->at].n_bytes - w->at_in;
        size_t take = n < room ? n : (size_t)room;
        err_code rc = emit(w, from, take, e);
        if (rc) return rc;
        from += take;
        n -= take;
        w->at_in += take;
        if (w->at_in < w->tensors[w->at].n_bytes) continue;
        w->at++;
        w->at_in = 0;
        if ((rc = pad(w, e))) return rc;
    }
    return ERR_OK;
}

static err_code sync_folder(const char *path, err *e) {
    char folder[4096];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(n ? n : 1) : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return err_errno(e, "%s: cannot open the folder", folder);
    err_code rc = fsync(fd) == 0 ? ERR_OK : err_errno(e, "%s: cannot sync the folder", folder);
    close(fd);
    return rc;
}

static err_code publish(gguf_writer *w, err *e) {
    char link_path[64];
    int bad;
    snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", w->fd);
    if (w->temp)
        bad = link(w->temp, w->path);
    else
        bad = linkat(AT_FDCWD, link_path, AT_FDCWD, w->path, AT_SYMLINK_FOLLOW);
    if (bad && errno == EEXIST) return err_set(e, ERR_EXISTS, "%s: somebody else has made it meanwhile", w->path);
    if (bad) return err_errno(e, "%s: cannot be given its name", w->path);
    return sync_folder(w->path, e);
}

err_code gguf_writer_finish(gguf_writer *w, err *e) {
    if (w->at != w->n_tensors || w->pos != gguf_writer_bytes(w))
        return err_set(e, ERR_INTERNAL, "%s: not all tensors have their data", w->path);
    err_code rc = flush(w, e);
    if (!rc && fsync(w->fd) != 0) rc = err_errno(e, "%s: cannot be synced", w->path);
    return rc ? rc : publish(w, e);
}
