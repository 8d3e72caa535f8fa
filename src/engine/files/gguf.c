/* Reads a file made by anybody. Rules of this file:
 * 1. Nothing is read but through take(), which compares with what is left; no pointer past the mapping is ever formed.
 * 2. Counts are compared with the bytes that are left before memory is sized by them.
 * 3. gguf_open checks everything once (each value of each key, too), so that the reads afterwards cannot run past.
 */
#include "engine/files/gguf.h"

#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALIGN_MIN        8u
#define ALIGN_MAX        (1u << 20)
#define KV_BYTES_MIN     14 /* length and byte of the key, its type, one byte of value */
#define TENSOR_BYTES_MIN 33 /* length and byte of the name, n_dims, one dim, type, offset */
#define RELEASE_UNIT     ((uintptr_t)2 << 20)

typedef struct kv {
    gguf_str key;
    gguf_type type;
    gguf_type elem;       /* of an array */
    uint64_t n;           /* elements of an array, 1 otherwise */
    const uint8_t *value; /* first byte after the types and counts */
    size_t len;           /* bytes of it */
} kv;

struct gguf {
    file_map map;
    bool owns_map; /* false where the bytes are the caller's */
    const uint8_t *ptr;
    size_t len;
    char *path;
    kv *kvs; /* sorted by key */
    size_t n_kv;
    gguf_tensor *tensors; /* in the order of the file */
    uint32_t *by_name;
    size_t n_tensors;
    gguf **others; /* of a split model: the second part and those after it */
    size_t n_others;
};

typedef struct reader {
    const uint8_t *p;
    size_t left;
    const char *path;
    err *e;
} reader;

/* ---- bytes ------------------------------------------------------------------------------------------------ */

static uint64_t le_get(const uint8_t *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = n; i-- > 0;) v = v << 8 | p[i];
    return v;
}

/* The next n bytes, or NULL where the file ends before. */
static const uint8_t *take(reader *r, uint64_t n) {
    if (n > r->left) return NULL;
    const uint8_t *p = r->p;
    r->p += n;
    r->left -= (size_t)n;
    return p;
}

static bool take_int(reader *r, size_t n_bytes, uint64_t *out) {
    const uint8_t *p = take(r, n_bytes);
    if (p) *out = le_get(p, n_bytes);
    return p != NULL;
}

static bool take_str(reader *r, gguf_str *out) {
    uint64_t n;
    if (!take_int(r, 8, &n)) return false;
    const uint8_t *p = take(r, n);
    if (!p) return false;
    *out = (gguf_str){(const char *)p, (size_t)n};
    return true;
}

static int str_compare(gguf_str a, gguf_str b) {
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n ? memcmp(a.ptr, b.ptr, n) : 0;
    return c ? c : a.len < b.len ? -1 : a.len > b.len;
}

/* Bytes of one value; 0 for strings and arrays. */
static size_t type_bytes(gguf_type t) {
    switch (t) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL: return 1;
    case GGUF_U16:
    case GGUF_I16: return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32: return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64: return 8;
    case GGUF_STR:
    case GGUF_ARR: break;
    }
    return 0;
}

static const char *type_name(gguf_type t) {
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return names[t];
}

static bool type_is_int(gguf_type t) {
    return t != GGUF_F32 && t != GGUF_F64 && t != GGUF_BOOL && t != GGUF_STR && t != GGUF_ARR;
}
static bool type_is_float(gguf_type t) {
    return t == GGUF_F32 || t == GGUF_F64;
}

/* What an error says of a name: at most GGUF_NAME_MAX bytes of it (err_set replaces what is not text). */
#define STR_ARG(s) (int)((s).len < GGUF_NAME_MAX ? (s).len : GGUF_NAME_MAX), (s).ptr

/* ---- keys ------------------------------------------------------------------------------------------------- */

static err_code kv_error(reader *r, const kv *k, const char *what) {
    return err_set(r->e, ERR_INVALID, "%s: key %.*s: %s", r->path, STR_ARG(k->key), what);
}

static err_code skip_scalar(reader *r, const kv *k, gguf_type t) {
    if (t == GGUF_STR) {
        gguf_str s;
        return take_str(r, &s) ? ERR_OK : kv_error(r, k, "its string runs past the end of the file");
    }
    const uint8_t *p = take(r, type_bytes(t));
    if (!p) return kv_error(r, k, "the file ends inside its value");
    if (t == GGUF_BOOL && *p > 1) return kv_error(r, k, "a bool is neither 0 nor 1");
    return ERR_OK;
}

static err_code skip_array(reader *r, kv *k) {
    uint64_t elem;
    if (!take_int(r, 4, &elem) || !take_int(r, 8, &k->n)) return kv_error(r, k, "the file ends inside its value");
    if (elem > GGUF_F64)
        return err_set(r->e, ERR_INVALID, "%s: key %.*s: array element type %" PRIu64 " is not one of GGUF's", r->path,
                       STR_ARG(k->key), elem);
    k->elem = (gguf_type)elem;
    if (k->elem == GGUF_ARR)
        return err_set(r->e, ERR_UNSUPPORTED, "%s: key %.*s: arrays of arrays are not read by polder", r->path,
                       STR_ARG(k->key));
    k->value = r->p;
    size_t each = type_bytes(k->elem);
    if (k->n > r->left / (each ? each : 8))
        return err_set(r->e, ERR_INVALID,
                       "%s: key %.*s: an array of %" PRIu64 " elements runs past the end of the file", r->path,
                       STR_ARG(k->key), k->n);
    if (each && k->elem != GGUF_BOOL) {
        take(r, k->n * each);
        return ERR_OK;
    }
    for (uint64_t i = 0; i < k->n; i++) {
        err_code c = skip_scalar(r, k, k->elem);
        if (c) return c;
    }
    return ERR_OK;
}

static err_code name_check(reader *r, const char *what, uint64_t index, gguf_str s) {
    if (s.len == 0) return err_set(r->e, ERR_INVALID, "%s: %s %" PRIu64 " has an empty name", r->path, what, index);
    if (s.len > GGUF_NAME_MAX)
        return err_set(r->e, ERR_INVALID, "%s: %s %" PRIu64 ": its name has %zu bytes; the limit is %d", r->path, what,
                       index, s.len, GGUF_NAME_MAX);
    return ERR_OK;
}

static err_code read_kv(reader *r, uint64_t index, kv *k) {
    if (!take_str(r, &k->key))
        return err_set(r->e, ERR_INVALID, "%s: the name of key %" PRIu64 " runs past the end of the file", r->path,
                       index);
    err_code c = name_check(r, "key", index, k->key);
    if (c) return c;
    uint64_t type;
    if (!take_int(r, 4, &type)) return kv_error(r, k, "the file ends before its type");
    if (type > GGUF_F64)
        return err_set(r->e, ERR_INVALID, "%s: key %.*s: type %" PRIu64 " is not one of GGUF's", r->path,
                       STR_ARG(k->key), type);
    k->type = (gguf_type)type;
    k->n = 1;
    k->value = r->p;
    c = k->type == GGUF_ARR ? skip_array(r, k) : skip_scalar(r, k, k->type);
    k->len = (size_t)(r->p - k->value);
    return c;
}

static int kv_compare(const void *a, const void *b) {
    return str_compare(((const kv *)a)->key, ((const kv *)b)->key);
}

static err_code read_kvs(gguf *g, reader *r, uint64_t n) {
    if (n > GGUF_KV_MAX)
        return err_set(r->e, ERR_INVALID, "%s: %" PRIu64 " keys; the limit is %d", r->path, n, GGUF_KV_MAX);
    if (n > r->left / KV_BYTES_MIN)
        return err_set(r->e, ERR_INVALID, "%s: %" PRIu64 " keys do not fit in the file", r->path, n);
    g->kvs = mem_array((size_t)n, sizeof *g->kvs);
    if (!g->kvs) return err_nomem(r->e, "the keys of a model file");
    for (uint64_t i = 0; i < n; i++) {
        err_code c = read_kv(r, i, &g->kvs[i]);
        if (c) return c;
    }
    g->n_kv = (size_t)n;
    qsort(g->kvs, g->n_kv, sizeof *g->kvs, kv_compare);
    for (size_t i = 1; i < g->n_kv; i++)
        if (kv_compare(&g->kvs[i - 1], &g->kvs[i]) == 0) return kv_error(r, &g->kvs[i], "it stands in the file twice");
    return ERR_OK;
}

/* ---- tensors ---------------------------------------------------------------------------------------------- */

static err_code tensor_error(reader *r, gguf_str name, const char *what) {
    return err_set(r->e, ERR_INVALID, "%s: tensor %.*s: %s", r->path, STR_ARG(name), what);
}

static err_code read_dims(reader *r, gguf_tensor *t, uint64_t *n_weights) {
    uint64_t n_dims;
    if (!take_int(r, 4, &n_dims)) return tensor_error(r, t->name, "the file ends inside its description");
    if (n_dims < 1 || n_dims > GGUF_DIMS_MAX)
        return err_set(r->e, ERR_INVALID, "%s: tensor %.*s: %" PRIu64 " dimensions; 1 to %d are possible", r->path,
                       STR_ARG(t->name), n_dims, GGUF_DIMS_MAX);
    t->n_dims = (uint32_t)n_dims;
    *n_weights = 1;
    for (uint32_t i = 0; i < GGUF_DIMS_MAX; i++) {
        t->dims[i] = 1;
        if (i >= t->n_dims) continue;
        if (!take_int(r, 8, &t->dims[i])) return tensor_error(r, t->name, "the file ends inside its description");
        if (t->dims[i] == 0) return tensor_error(r, t->name, "a dimension is 0");
        /* signed 64 bits, so that no later product of positions can wrap */
        if (__builtin_mul_overflow(*n_weights, t->dims[i], n_weights) || *n_weights > INT64_MAX)
            return tensor_error(r, t->name, "its dimensions multiply to more than 63 bits");
    }
    return ERR_OK;
}

/* Everything but where its bytes are: `offset` is from the start of the data part. */
static err_code read_tensor(reader *r, uint64_t index, gguf_tensor *t, uint64_t *offset) {
    if (!take_str(r, &t->name))
        return err_set(r->e, ERR_INVALID, "%s: the name of tensor %" PRIu64 " runs past the end of the file", r->path,
                       index);
    err_code c = name_check(r, "tensor", index, t->name);
    if (c) return c;
    uint64_t n_weights = 0, type;
    c = read_dims(r, t, &n_weights);
    if (c) return c;
    if (!take_int(r, 4, &type) || !take_int(r, 8, offset))
        return tensor_error(r, t->name, "the file ends inside its description");
    const tensor_type_facts *f = tensor_type_get((uint32_t)type);
    if (!f)
        return err_set(r->e, ERR_UNSUPPORTED,
                       "%s: tensor %.*s: type %" PRIu64 " is not read by polder; it reads F32, F16, BF16, Q8_0, Q4_0, "
                       "Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS",
                       r->path, STR_ARG(t->name), type);
    t->type = f->type;
    if (t->dims[0] % f->block_len)
        return err_set(r->e, ERR_INVALID,
                       "%s: tensor %.*s: rows of %" PRIu64 " weights are not whole blocks of %u (%s)", r->path,
                       STR_ARG(t->name), t->dims[0], f->block_len, f->name);
    if (__builtin_mul_overflow(n_weights / f->block_len, (uint64_t)f->block_bytes, &t->n_bytes))
        return tensor_error(r, t->name, "its size is more than 64 bits");
    return ERR_OK;
}

static err_code place_tensor(gguf *g, reader *r, gguf_tensor *t, uint64_t offset, uint64_t data_start, uint64_t align) {
    if (offset % align)
        return err_set(r->e, ERR_INVALID,
                       "%s: tensor %.*s: offset %" PRIu64 " is not a multiple of the alignment %" PRIu64, r->path,
                       STR_ARG(t->name), offset, align);
    uint64_t room = g->len - data_start;
    if (offset > room)
        return err_set(r->e, ERR_INVALID, "%s: tensor %.*s: offset %" PRIu64 " is past the end of the file", r->path,
                       STR_ARG(t->name), offset);
    if (t->n_bytes > room - offset)
        return err_set(r->e, ERR_INVALID,
                       "%s: tensor %.*s: its %" PRIu64 " bytes at offset %" PRIu64
                       " run past the end of the file; is the file cut short?",
                       r->path, STR_ARG(t->name), t->n_bytes, offset);
    t->data = g->ptr + data_start + offset;
    return ERR_OK;
}

typedef struct by_key {
    const gguf_tensor *t;
    uint32_t index;
} by_key;

static int compare_names(const void *a, const void *b) {
    return str_compare(((const by_key *)a)->t->name, ((const by_key *)b)->t->name);
}
static int compare_places(const void *a, const void *b) {
    const gguf_tensor *x = ((const by_key *)a)->t, *y = ((const by_key *)b)->t;
    return x->data < y->data ? -1 : x->data > y->data;
}

/* No two of one name, no two on the same bytes; leaves g->by_name. */
static err_code index_tensors(gguf *g, reader *r) {
    by_key *k = mem_array(g->n_tensors, sizeof *k);
    g->by_name = mem_array(g->n_tensors, sizeof *g->by_name);
    err_code c = ERR_OK;
    if (!k || !g->by_name) {
        c = err_nomem(r->e, "the index of a model file");
        goto out;
    }
    for (size_t i = 0; i < g->n_tensors; i++) k[i] = (by_key){&g->tensors[i], (uint32_t)i};
    qsort(k, g->n_tensors, sizeof *k, compare_places);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const gguf_tensor *a = k[i - 1].t, *b = k[i].t;
        if ((uint64_t)(b->data - a->data) >= a->n_bytes) continue;
        c = err_set(r->e, ERR_INVALID, "%s: tensors %.*s and %.*s lie on the same bytes", r->path, STR_ARG(a->name),
                    STR_ARG(b->name));
        goto out;
    }
    qsort(k, g->n_tensors, sizeof *k, compare_names);
    for (size_t i = 0; i < g->n_tensors; i++) {
        g->by_name[i] = k[i].index;
        if (i && compare_names(&k[i - 1], &k[i]) == 0) {
            c = tensor_error(r, k[i].t->name, "it stands in the file twice");
            goto out;
        }
    }
out:
    mem_free(k);
    return c;
}

static err_code read_tensors(gguf *g, reader *r, uint64_t n) {
    if (n > GGUF_TENSORS_MAX)
        return err_set(r->e, ERR_INVALID, "%s: %" PRIu64 " tensors; the limit is %d", r->path, n, GGUF_TENSORS_MAX);
    if (n > r->left / TENSOR_BYTES_MIN)
        return err_set(r->e, ERR_INVALID, "%s: descriptions of %" PRIu64 " tensors do not fit in the file", r->path, n);
    uint32_t align;
    err_code c = gguf_u32_or(g, "general.alignment", ALIGN_MIN, ALIGN_MAX, 32, &align, r->e);
    if (c) return c;
    if (align & (align - 1))
        return err_set(r->e, ERR_INVALID, "%s: key general.alignment: %u is not a power of two", r->path, align);
    g->tensors = mem_array((size_t)n, sizeof *g->tensors);
    uint64_t *offsets = mem_array((size_t)n, sizeof *offsets);
    if (!g->tensors || !offsets) {
        c = err_nomem(r->e, "the tensors of a model file");
        goto out;
    }
    for (uint64_t i = 0; i < n; i++) {
        c = read_tensor(r, i, &g->tensors[i], &offsets[i]);
        if (c) goto out;
    }
    g->n_tensors = (size_t)n;
    uint64_t end = (uint64_t)(r->p - g->ptr), data_start = (end + align - 1) / align * align;
    if (n && data_start > g->len) {
        c = err_set(r->e, ERR_INVALID, "%s: the file ends before its tensors; is it cut short?", r->path);
        goto out;
    }
    for (uint64_t i = 0; i < n; i++) {
        c = place_tensor(g, r, &g->tensors[i], offsets[i], data_start, align);
        if (c) goto out;
    }
    c = index_tensors(g, r);
out:
    mem_free(offsets);
    return c;
}

/* ---- open and close --------------------------------------------------------------------------------------- */

static err_code read_all(gguf *g, err *e) {
    reader r = {g->ptr, g->len, g->path, e};
    const uint8_t *magic = take(&r, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0)
        return err_set(e, ERR_INVALID, "%s: not a GGUF file (it does not begin with \"GGUF\")", g->path);
    uint64_t version, n_tensors, n_kv;
    if (!take_int(&r, 4, &version)) return err_set(e, ERR_INVALID, "%s: the file ends inside its header", g->path);
    if (version == 0x02000000 || version == 0x03000000)
        return err_set(e, ERR_UNSUPPORTED, "%s: a big-endian GGUF file; convert it to little-endian", g->path);
    if (version != 2 && version != 3)
        return err_set(e, ERR_UNSUPPORTED, "%s: GGUF version %" PRIu64 "; polder reads 2 and 3", g->path, version);
    if (!take_int(&r, 8, &n_tensors) || !take_int(&r, 8, &n_kv))
        return err_set(e, ERR_INVALID, "%s: the file ends inside its header", g->path);
    err_code c = read_kvs(g, &r, n_kv);
    return c ? c : read_tensors(g, &r, n_tensors);
}

/* Takes over *map (NULL where the bytes are the caller's), also where it fails. */
static err_code open_bytes(gguf **out, file_map *map, const void *p, size_t n, const char *path, err *e) {
    gguf *g = mem_zalloc(sizeof *g);
    if (!g) {
        if (map) file_map_close(map);
        return err_nomem(e, "a model file");
    }
    if (map) g->map = *map;
    g->owns_map = map != NULL;
    g->ptr = p;
    g->len = n;
    g->path = mem_strdup(path);
    err_code c = g->path ? read_all(g, e) : err_nomem(e, "a model file");
    if (c) {
        gguf_free(g);
        return c;
    }
    *out = g;
    return ERR_OK;
}

static err_code open_file(gguf **out, const char *path, err *e) {
    file_map map = {0};
    err_code c = file_map_open(&map, path, e);
    return c ? c : open_bytes(out, &map, map.ptr, map.len, path, e);
}

/* ---- split files ------------------------------------------------------------------------------------------ */

#define PART_SUFFIX_LEN 20 /* "-00001-of-00003.gguf" */

static void part_suffix(char out[40], uint32_t index, uint32_t count) {
    snprintf(out, 40, "-%05u-of-%05u.gguf", index + 1, count);
}

/* The keys of one part: *count is 0 in a file that is whole. */
static err_code split_keys(const gguf *g, uint32_t *index, uint32_t *count, uint32_t *n_tensors, err *e) {
    err_code c = gguf_u32_or(g, "split.count", 0, GGUF_PARTS_MAX, 0, count, e);
    if (c) return c;
    if (*count < 2) {
        *count = 0;
        return ERR_OK;
    }
    if ((c = gguf_u32(g, "split.no", 0, *count - 1, index, e))) return c;
    return gguf_u32_or(g, "split.tensors.count", 0, GGUF_TENSORS_MAX, 0, n_tensors, e);
}

/* The path of part i of the model that `path` (of a part) belongs to. */
static void part_path(char *out, size_t cap, const char *path, uint32_t i, uint32_t count) {
    char suffix[40];
    part_suffix(suffix, i, count);
    snprintf(out, cap, "%.*s%s", (int)(strlen(path) - PART_SUFFIX_LEN), path, suffix);
}

static err_code check_part_name(const gguf *g, uint32_t index, uint32_t count, err *e) {
    char want[40];
    part_suffix(want, index, count);
    size_t n = strlen(g->path);
    if (n > PART_SUFFIX_LEN && n < 4096 && strcmp(g->path + n - PART_SUFFIX_LEN, want) == 0) return ERR_OK;
    return err_set(e, ERR_INVALID,
                   "%s: is part %u of %u of a split model, but its name does not end with %s; give the parts the names "
                   "that they were published under, in one folder",
                   g->path, index + 1, count, want);
}

/* Every part that is not there, in one sentence. */
static err_code check_parts_there(const gguf *g, uint32_t count, err *e) {
    buf missing = {.max = 400};
    uint32_t n = 0;
    char path[4200];
    for (uint32_t i = 0; i < count; i++) {
        part_path(path, sizeof path, g->path, i, count);
        if (file_exists(path)) continue;
        const char *base = strrchr(path, '/');
        buf_printf(&missing, "%s%s", n ? ", " : "", base ? base + 1 : path);
        n++;
    }
    err_code c = ERR_OK;
    if (n)
        c = err_set(e, ERR_NOT_FOUND, "%s: the model has %u parts, and %u of them %s missing in this folder: %s%s",
                    g->path, count, n, n == 1 ? "is" : "are", buf_str(&missing), missing.failed ? " …" : "");
    buf_free(&missing);
    return c;
}

static err_code open_part(gguf **out, const char *of, uint32_t i, uint32_t count, uint32_t n_tensors, err *e) {
    char path[4200];
    part_path(path, sizeof path, of, i, count);
    err_code c = open_file(out, path, e);
    if (c) return c;
    uint32_t index = 0, its_count = 0, its_tensors = 0;
    c = split_keys(*out, &index, &its_count, &its_tensors, e);
    if (!c && (its_count != count || index != i || its_tensors != n_tensors))
        c = err_set(e, ERR_INVALID,
                    "%s: says that it is part %u of %u with %u tensors in all, but %s says part %u of %u with %u", path,
                    index + 1, its_count, its_tensors, of, i + 1, count, n_tensors);
    if (c) {
        gguf_free(*out);
        *out = NULL;
    }
    return c;
}

/* All tensors in one list, found by one index. */
static err_code join_tensors(gguf *g, uint32_t n_want, err *e) {
    size_t n = g->n_tensors, at = g->n_tensors;
    for (size_t i = 0; i < g->n_others; i++) n += g->others[i]->n_tensors;
    if (n > GGUF_TENSORS_MAX || (n_want && n != n_want))
        return err_set(e, ERR_INVALID, "%s: the parts have %zu tensors together, where %u are expected", g->path, n,
                       n_want ? n_want : GGUF_TENSORS_MAX);
    gguf_tensor *all = mem_array(n, sizeof *all);
    by_key *k = mem_array(n, sizeof *k);
    uint32_t *by_name = mem_array(n, sizeof *by_name);
    err_code c = all && k && by_name ? ERR_OK : err_nomem(e, "the tensors of a model file");
    if (!c) {
        memcpy(all, g->tensors, g->n_tensors * sizeof *all);
        for (size_t i = 0; i < g->n_others; at += g->others[i++]->n_tensors)
            memcpy(all + at, g->others[i]->tensors, g->others[i]->n_tensors * sizeof *all);
        for (size_t i = 0; i < n; i++) k[i] = (by_key){&all[i], (uint32_t)i};
        qsort(k, n, sizeof *k, compare_names);
    }
    for (size_t i = 0; i < n && !c; i++) {
        by_name[i] = k[i].index;
        if (i && compare_names(&k[i - 1], &k[i]) == 0)
            c = err_set(e, ERR_INVALID, "%s: tensor %.*s stands in two parts", g->path, STR_ARG(k[i].t->name));
    }
    mem_free(k);
    if (c) {
        mem_free(all);
        mem_free(by_name);
        return c;
    }
    mem_free(g->tensors);
    mem_free(g->by_name);
    g->tensors = all;
    g->by_name = by_name;
    g->n_tensors = n;
    return ERR_OK;
}

/* From one part to all: *io becomes the first part, which owns the others. */
static err_code open_others(gguf **io, err *e) {
    gguf *g = *io;
    uint32_t index = 0, count = 0, n_tensors = 0;
    err_code c = split_keys(g, &index, &count, &n_tensors, e);
    if (c || !count) return c;
    if ((c = check_part_name(g, index, count, e)) || (c = check_parts_there(g, count, e))) return c;
    if (index != 0) {
        gguf *first = NULL;
        if ((c = open_part(&first, g->path, 0, count, n_tensors, e))) return c;
        gguf_free(g);
        *io = g = first;
    }
    g->others = mem_array(count - 1, sizeof(gguf *));
    if (!g->others) return err_nomem(e, "the parts of a model file");
    for (uint32_t i = 1; i < count; i++) {
        if ((c = open_part(&g->others[i - 1], g->path, i, count, n_tensors, e))) return c;
        g->n_others = i;
    }
    return join_tensors(g, n_tensors, e);
}

err_code gguf_open(gguf **out, const char *path, err *e) {
    *out = NULL;
    gguf *g = NULL;
    err_code c = open_file(&g, path, e);
    if (!c) c = open_others(&g, e);
    if (c)
        gguf_free(g);
    else
        *out = g;
    return c;
}

err_code gguf_open_memory(gguf **out, const void *p, size_t n, const char *path, err *e) {
    *out = NULL;
    return open_bytes(out, NULL, p, n, path, e);
}

void gguf_free(gguf *g) {
    if (!g) return;
    for (size_t i = 0; i < g->n_others; i++) gguf_free(g->others[i]);
    mem_free(g->others);
    mem_free(g->by_name);
    mem_free(g->tensors);
    mem_free(g->kvs);
    mem_free(g->path);
    if (g->owns_map) file_map_close(&g->map);
    mem_free(g);
}

int gguf_fd(const gguf *g) {
    return g->owns_map && !g->n_others ? g->map.fd : -1;
}

const uint8_t *gguf_head(const gguf *g, size_t *n) {
    *n = g->len;
    if (g->n_others) return NULL;
    for (size_t i = 0; i < g->n_tensors; i++) {
        size_t at = (size_t)(g->tensors[i].data - g->ptr);
        if (at < *n) *n = at;
    }
    return g->ptr;
}

void gguf_release(const gguf *g, const void *p, size_t n) {
    for (size_t i = 0; !p && i < g->n_others; i++) gguf_release(g->others[i], NULL, 0);
    if (!g->owns_map || !g->len) return;
    const uint8_t *from = p ? p : g->ptr, *end = g->ptr + g->len;
    if (!p) n = g->len;
    if (from < g->ptr || from >= end) {
        for (size_t i = 0; i < g->n_others; i++) gguf_release(g->others[i], p, n);
        return;
    }
    if (n > (size_t)(end - from)) n = (size_t)(end - from);
    /* One fault may map 2 MiB, so what was released before comes back with its neighbours: whole units go. */
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t map = (uintptr_t)g->ptr, map_end = map + (g->len + page - 1) / page * page;
    uintptr_t first = (uintptr_t)from / RELEASE_UNIT * RELEASE_UNIT;
    uintptr_t last = ((uintptr_t)from + n + RELEASE_UNIT - 1) / RELEASE_UNIT * RELEASE_UNIT;
    if (first < map) first = map;
    if (last > map_end) last = map_end;
    (void)madvise((void *)first, last - first, MADV_DONTNEED); /* a file's: nothing is lost */
}

const char *gguf_path(const gguf *g) {
    return g->path;
}
uint64_t gguf_file_bytes(const gguf *g) {
    uint64_t n = g->len;
    for (size_t i = 0; i < g->n_others; i++) n += g->others[i]->len;
    return n;
}
size_t gguf_part_count(const gguf *g) {
    return g->n_others + 1;
}
const char *gguf_part_path(const gguf *g, size_t i) {
    return i ? g->others[i - 1]->path : g->path;
}
size_t gguf_key_count(const gguf *g) {
    return g->n_kv;
}
gguf_raw gguf_key_at(const gguf *g, size_t i) {
    const kv *k = &g->kvs[i];
    return (gguf_raw){k->key, k->type, k->elem, k->type == GGUF_ARR ? k->n : 1, k->value, k->len};
}
size_t gguf_tensor_count(const gguf *g) {
    return g->n_tensors;
}
const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i) {
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name) {
    gguf_str want = {name, strlen(name)};
    size_t lo = 0, hi = g->n_tensors;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const gguf_tensor *t = &g->tensors[g->by_name[mid]];
        int c = str_compare(want, t->name);
        if (c == 0) return t;
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

/* ---- typed reads ------------------------------------------------------------------------------------------ */

static const kv *kv_find(const gguf *g, const char *key) {
    gguf_str want = {key, strlen(key)};
    size_t lo = 0, hi = g->n_kv;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = str_compare(want, g->kvs[mid].key);
        if (c == 0) return &g->kvs[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

static err_code wrong_type(const gguf *g, const kv *k, const char *want, err *e) {
    bool arr = k->type == GGUF_ARR;
    return err_set(e, ERR_INVALID, "%s: key %.*s: %s%s where %s is expected", g->path, STR_ARG(k->key),
                   arr ? "array of " : "", type_name(arr ? k->elem : k->type), want);
}

static double get_float(gguf_type t, const uint8_t *p) {
    uint64_t bits = le_get(p, type_bytes(t));
    if (t == GGUF_F64) {
        double d;
        memcpy(&d, &bits, sizeof d);
        return d;
    }
    uint32_t bits32 = (uint32_t)bits;
    float f;
    memcpy(&f, &bits32, sizeof f);
    return (double)f;
}

/* Any integer type as a sign and 64 bits: negative values come back as two's complement with *neg set. */
static uint64_t get_int(gguf_type t, const uint8_t *p, bool *neg) {
    size_t n = type_bytes(t);
    uint64_t v = le_get(p, n);
    bool is_signed = t == GGUF_I8 || t == GGUF_I16 || t == GGUF_I32 || t == GGUF_I64;
    *neg = is_signed && (p[n - 1] & 0x80);
    if (*neg && n < 8) v |= UINT64_MAX << (8 * n);
    return v;
}

bool gguf_has(const gguf *g, const char *key) {
    return kv_find(g, key) != NULL;
}

err_code gguf_u32_or(const gguf *g, const char *key, uint32_t min, uint32_t max, uint32_t def, uint32_t *out, err *e) {
    const kv *k = kv_find(g, key);
    *out = def;
    if (!k) return ERR_OK;
    if (!type_is_int(k->type)) return wrong_type(g, k, "an integer", e);
    bool neg;
    uint64_t v = get_int(k->type, k->value, &neg);
    if (neg || v < min || v > max)
        return err_set(e, ERR_INVALID, "%s: key %s: %s%" PRIu64 " is outside %u to %u", g->path, key, neg ? "-" : "",
                       neg ? 0 - v : v, min, max);
    *out = (uint32_t)v;
    return ERR_OK;
}

err_code gguf_u32(const gguf *g, const char *key, uint32_t min, uint32_t max, uint32_t *out, err *e) {
    if (!gguf_has(g, key)) {
        *out = 0;
        return err_set(e, ERR_INVALID, "%s: key %s is missing", g->path, key);
    }
    return gguf_u32_or(g, key, min, max, 0, out, e);
}

err_code gguf_f32_or(const gguf *g, const char *key, float def, float *out, err *e) {
    const kv *k = kv_find(g, key);
    *out = def;
    if (!k) return ERR_OK;
    if (!type_is_float(k->type)) return wrong_type(g, k, "a float", e);
    float v = (float)get_float(k->type, k->value);
    if (!isfinite(v)) return err_set(e, ERR_INVALID, "%s: key %s: not a finite number", g->path, key);
    *out = v;
    return ERR_OK;
}

err_code gguf_bool_or(const gguf *g, const char *key, bool def, bool *out, err *e) {
    const kv *k = kv_find(g, key);
    *out = def;
    if (!k) return ERR_OK;
    if (k->type != GGUF_BOOL) return wrong_type(g, k, "a bool", e);
    *out = *k->value != 0;
    return ERR_OK;
}

/* A string that gguf_open has checked; *p moves behind it. */
static gguf_str str_at(const uint8_t **p) {
    uint64_t n = le_get(*p, 8);
    gguf_str s = {(const char *)*p + 8, (size_t)n};
    *p += 8 + n;
    return s;
}

err_code gguf_str_or(const gguf *g, const char *key, gguf_str *out, err *e) {
    const kv *k = kv_find(g, key);
    *out = (gguf_str){"", 0};
    if (!k) return ERR_OK;
    if (k->type != GGUF_STR) return wrong_type(g, k, "a string", e);
    const uint8_t *p = k->value;
    *out = str_at(&p);
    return ERR_OK;
}

/* ---- arrays ----------------------------------------------------------------------------------------------- */

static bool elem_matches(gguf_type have, gguf_type want) {
    if (have == GGUF_BOOL && type_is_int(want)) return true; /* flags of layers: 0 and 1 */
    return have == want || (type_is_int(have) && type_is_int(want)) || (type_is_float(have) && type_is_float(want));
}

/* *k is NULL where the key is absent. */
static err_code arr_find(const gguf *g, const char *key, gguf_type want, const kv **out, err *e) {
    const kv *k = kv_find(g, key);
    *out = NULL;
    if (!k) return ERR_OK;
    if (k->type != GGUF_ARR || !elem_matches(k->elem, want)) {
        char text[32];
        snprintf(text, sizeof text, "an array of %s", type_name(want));
        return wrong_type(g, k, text, e);
    }
    *out = k;
    return ERR_OK;
}

err_code gguf_arr(const gguf *g, const char *key, gguf_type want, size_t *n, err *e) {
    const kv *k;
    err_code c = arr_find(g, key, want, &k, e);
    *n = k ? (size_t)k->n : 0;
    return c;
}

/* As arr_find, and its length must be n. */
static err_code arr_of_len(const gguf *g, const char *key, gguf_type want, size_t n, const kv **out, err *e) {
    err_code c = arr_find(g, key, want, out, e);
    if (c) return c;
    size_t have = *out ? (size_t)(*out)->n : 0;
    if (have == n) return ERR_OK;
    return err_set(e, ERR_INVALID, "%s: key %s: %zu elements where %zu are expected", g->path, key, have, n);
}

err_code gguf_arr_strs(const gguf *g, const char *key, gguf_str *out, size_t n, err *e) {
    const kv *k;
    err_code c = arr_of_len(g, key, GGUF_STR, n, &k, e);
    if (c || !k) return c;
    const uint8_t *p = k->value;
    for (size_t i = 0; i < n; i++) out[i] = str_at(&p);
    return ERR_OK;
}

err_code gguf_arr_f32(const gguf *g, const char *key, float *out, size_t n, err *e) {
    const kv *k;
    err_code c = arr_of_len(g, key, GGUF_F32, n, &k, e);
    if (c || !k) return c;
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)get_float(k->elem, k->value + i * type_bytes(k->elem));
        if (isnan(out[i])) return err_set(e, ERR_INVALID, "%s: key %s: element %zu is not a number", g->path, key, i);
    }
    return ERR_OK;
}

err_code gguf_arr_i32(const gguf *g, const char *key, int32_t *out, size_t n, err *e) {
    const kv *k;
    err_code c = arr_of_len(g, key, GGUF_I32, n, &k, e);
    if (c || !k) return c;
    for (size_t i = 0; i < n; i++) {
        bool neg;
        uint64_t v = get_int(k->elem, k->value + i * type_bytes(k->elem), &neg);
        if (neg ? v < (uint64_t)(int64_t)INT32_MIN : v > INT32_MAX)
            return err_set(e, ERR_INVALID, "%s: key %s: element %zu does not fit in 32 bits", g->path, key, i);
        out[i] = (int32_t)v;
    }
    return ERR_OK;
}
