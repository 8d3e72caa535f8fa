/* Reads files made by anybody: nothing is used before it was compared with the file's size. */
#include "engine/files/safetensors.h"

#include "base/json.h"
#include "base/mem.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_NAME "model.safetensors.index.json"
#define INDEX_MAX  ((size_t)64 << 20)
#define NAME_MAX_  512
#define PATH_CAP   4096

typedef struct st_file {
    char *path;
    file_map map; /* ptr NULL where the bytes are the caller's */
    const uint8_t *ptr;
    uint64_t len;
} st_file;

struct st_set {
    st_file *files;
    size_t n_files;
    st_tensor *tensors; /* sorted by name once all are read */
    size_t n_tensors, cap_tensors;
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
    [ST_F64] = {"F64", 8},         [ST_F32] = {"F32", 4},         [ST_F16] = {"F16", 2},
    [ST_BF16] = {"BF16", 2},       [ST_F8_E4M3] = {"F8_E4M3", 1}, [ST_F8_E5M2] = {"F8_E5M2", 1},
    [ST_F8_E8M0] = {"F8_E8M0", 1}, [ST_I64] = {"I64", 8},         [ST_I32] = {"I32", 4},
    [ST_I16] = {"I16", 2},         [ST_I8] = {"I8", 1},           [ST_U8] = {"U8", 1},
    [ST_BOOL] = {"BOOL", 1},
};

const char *st_dtype_name(st_dtype t) {
    return dtypes[t].name;
}
size_t st_dtype_bytes(st_dtype t) {
    return dtypes[t].bytes;
}

/* ---- one tensor ------------------------------------------------------------------------------------------- */

/* A JSON number that is a whole number of at most 2^53. */
static bool whole(const cJSON *v, uint64_t *out) {
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0) || v->valuedouble > 9007199254740992.0) return false;
    *out = (uint64_t)v->valuedouble;
    return (double)*out == v->valuedouble;
}

static err_code tensor_error(const st_file *f, const char *name, const char *what, err *e) {
    return err_set(e, ERR_INVALID, "%s: tensor %.200s: %s", f->path, name, what);
}

static err_code read_dtype(const st_file *f, const cJSON *v, st_tensor *t, err *e) {
    const cJSON *d = json_get(v, "dtype");
    if (!cJSON_IsString(d)) return tensor_error(f, t->name, "it has no dtype", e);
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(d->valuestring, dtypes[i].name) != 0) continue;
        t->dtype = (st_dtype)i;
        return ERR_OK;
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: tensor %.200s: dtype \"%.40s\" is not read by polder; it reads F64, F32, F16, BF16, F8_E4M3, "
                   "F8_E5M2, F8_E8M0, I64, I32, I16, I8, U8, BOOL",
                   f->path, t->name, d->valuestring);
}

static err_code read_shape(const st_file *f, const cJSON *v, st_tensor *t, err *e) {
    const cJSON *shape = json_get(v, "shape"), *d;
    if (!cJSON_IsArray(shape)) return tensor_error(f, t->name, "it has no shape", e);
    uint64_t n = st_dtype_bytes(t->dtype);
    cJSON_ArrayForEach(d, shape) {
        if (t->n_dims == ST_DIMS_MAX) return tensor_error(f, t->name, "more than 8 dimensions", e);
        uint64_t dim;
        if (!whole(d, &dim)) return tensor_error(f, t->name, "a dimension is not a whole number", e);
        if (__builtin_mul_overflow(n, dim, &n) || n > INT64_MAX)
            return tensor_error(f, t->name, "its dimensions multiply to more than 63 bits", e);
        t->dims[t->n_dims++] = dim;
    }
    t->n_bytes = n;
    return ERR_OK;
}

static err_code read_place(const st_file *f, const cJSON *v, uint64_t data_start, st_tensor *t, err *e) {
    const cJSON *at = json_get(v, "data_offsets");
    uint64_t begin, end, room = f->len - data_start;
    if (cJSON_GetArraySize(at) != 2 || !whole(at->child, &begin) || !whole(at->child->next, &end))
        return tensor_error(f, t->name, "data_offsets are not two whole numbers", e);
    if (begin > end || end > room)
        return err_set(e, ERR_INVALID,
                       "%s: tensor %.200s: its bytes %" PRIu64 " to %" PRIu64 " run past the %" PRIu64
                       " that the file has; is it cut short?",
                       f->path, t->name, begin, end, room);
    if (end - begin != t->n_bytes)
        return err_set(e, ERR_INVALID,
                       "%s: tensor %.200s: its shape asks for %" PRIu64 " bytes, its data_offsets span %" PRIu64,
                       f->path, t->name, t->n_bytes, end - begin);
    t->data = f->ptr + data_start + begin;
    return ERR_OK;
}

static st_tensor *next_tensor(st_set *s) {
    if (s->n_tensors == s->cap_tensors) {
        size_t cap = s->cap_tensors ? 2 * s->cap_tensors : 64;
        st_tensor *p = mem_realloc(s->tensors, cap * sizeof *p);
        if (!p) return NULL;
        s->tensors = p;
        s->cap_tensors = cap;
    }
    s->tensors[s->n_tensors] = (st_tensor){0};
    return &s->tensors[s->n_tensors];
}

static err_code read_tensor(st_set *s, const st_file *f, const cJSON *v, uint64_t data_start, err *e) {
    size_t n = strlen(v->string);
    if (n == 0 || n > NAME_MAX_) return tensor_error(f, v->string, "its name has no or more than 512 bytes", e);
    if (!cJSON_IsObject(v)) return tensor_error(f, v->string, "its description is not an object", e);
    if (s->n_tensors == ST_TENSORS_MAX)
        return err_set(e, ERR_INVALID, "%s: more than %u tensors", f->path, ST_TENSORS_MAX);
    st_tensor *t = next_tensor(s);
    char *name = t ? mem_strdup(v->string) : NULL;
    if (!name) return err_nomem(e, "the tensors of a checkpoint");
    t->name = name;
    err_code rc = read_dtype(f, v, t, e);
    if (!rc) rc = read_shape(f, v, t, e);
    if (!rc) rc = read_place(f, v, data_start, t, e);
    s->n_tensors++; /* counted even so: st_free frees its name */
    return rc;
}

/* ---- one file --------------------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b) {
    const st_tensor *x = *(st_tensor *const *)a, *y = *(st_tensor *const *)b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->n_bytes < y->n_bytes ? -1 : x->n_bytes > y->n_bytes;
}

/* Data that no tensor owns could hide anything; data that two own is a trick. */
static err_code check_cover(st_set *s, const st_file *f, size_t first, uint64_t data_start, err *e) {
    size_t n = s->n_tensors - first;
    st_tensor **order = mem_array(n ? n : 1, sizeof *order);
    if (!order) return err_nomem(e, "the tensors of a checkpoint");
    for (size_t i = 0; i < n; i++) order[i] = &s->tensors[first + i];
    if (n > 1) qsort(order, n, sizeof *order, by_place);
    const uint8_t *at = f->ptr + data_start;
    err_code rc = ERR_OK;
    for (size_t i = 0; i < n && !rc; i++) {
        if (order[i]->data < at)
            rc = tensor_error(f, order[i]->name, "its bytes overlap those of another tensor", e);
        else if (order[i]->data > at)
            rc = tensor_error(f, order[i]->name, "before its bytes there are some that belong to no tensor", e);
        at = order[i]->data + order[i]->n_bytes;
    }
    if (!rc && at != f->ptr + f->len)
        rc = err_set(e, ERR_INVALID, "%s: after the last tensor there are bytes that belong to none", f->path);
    mem_free(order);
    return rc;
}

static err_code read_header(st_set *s, const st_file *f, err *e) {
    if (f->len < 8) return err_set(e, ERR_INVALID, "%s: not a safetensors file (it has less than 8 bytes)", f->path);
    uint64_t n = 0;
    for (int i = 8; i-- > 0;) n = n << 8 | f->ptr[i];
    if (n > ST_HEADER_MAX || n > f->len - 8 || n < 2 || f->ptr[8] != '{')
        return err_set(e, ERR_INVALID,
                       "%s: not a safetensors file, or cut short (its header would have %" PRIu64 " bytes)", f->path,
                       n);
    cJSON *head = NULL;
    err_code rc = json_parse(&head, (const char *)f->ptr + 8, (size_t)n, f->path, e);
    if (rc) return rc;
    size_t first = s->n_tensors;
    if (!cJSON_IsObject(head)) rc = err_set(e, ERR_INVALID, "%s: its header is not a JSON object", f->path);
    for (const cJSON *v = rc ? NULL : head->child; v && !rc; v = v->next)
        if (strcmp(v->string, "__metadata__") != 0) rc = read_tensor(s, f, v, 8 + n, e);
    cJSON_Delete(head);
    return rc ? rc : check_cover(s, f, first, 8 + n, e);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const st_tensor *)a)->name, ((const st_tensor *)b)->name);
}

static err_code sort_names(st_set *s, err *e) {
    if (s->n_tensors > 1) qsort(s->tensors, s->n_tensors, sizeof *s->tensors, by_name);
    for (size_t i = 1; i < s->n_tensors; i++)
        if (strcmp(s->tensors[i - 1].name, s->tensors[i].name) == 0)
            return err_set(e, ERR_INVALID, "%s: tensor %.200s stands in the checkpoint twice", s->files[0].path,
                           s->tensors[i].name);
    return ERR_OK;
}

static err_code set_new(st_set **out, size_t n_files, err *e) {
    st_set *s = *out = mem_zalloc(sizeof *s);
    if (s) s->files = mem_array(n_files ? n_files : 1, sizeof *s->files);
    if (s && s->files) return ERR_OK;
    st_free(s);
    *out = NULL;
    return err_nomem(e, "a checkpoint");
}

static err_code add_file(st_set *s, const char *path, err *e) {
    st_file *f = &s->files[s->n_files];
    f->map.fd = -1;
    if (!(f->path = mem_strdup(path))) return err_nomem(e, "a file name");
    s->n_files++;
    err_code rc = file_map_open(&f->map, path, e);
    if (rc) return rc;
    f->ptr = f->map.ptr;
    f->len = f->map.len;
    return read_header(s, f, e);
}

static err_code finish(st_set **out, st_set *s, err_code rc, err *e) {
    if (!rc) rc = sort_names(s, e);
    if (rc) {
        st_free(s);
        s = NULL;
    }
    *out = s;
    return rc;
}

err_code st_open_file(st_set **out, const char *path, err *e) {
    st_set *s = NULL;
    *out = NULL;
    err_code rc = set_new(&s, 1, e);
    return rc ? rc : finish(out, s, add_file(s, path, e), e);
}

err_code st_open_memory(st_set **out, const void *p, size_t n, const char *name, err *e) {
    st_set *s = NULL;
    *out = NULL;
    err_code rc = set_new(&s, 1, e);
    if (rc) return rc;
    st_file *f = &s->files[0];
    *f = (st_file){.path = mem_strdup(name), .map = {.fd = -1}, .ptr = p, .len = n};
    s->n_files = 1;
    rc = f->path ? read_header(s, f, e) : err_nomem(e, "a file name");
    return finish(out, s, rc, e);
}

void st_free(st_set *s) {
    if (!s) return;
    for (size_t i = 0; i < s->n_tensors; i++) mem_free((void *)(uintptr_t)s->tensors[i].name);
    for (size_t i = 0; i < s->n_files; i++) {
        file_map_close(&s->files[i].map);
        mem_free(s->files[i].path);
    }
    mem_free(s->tensors);
    mem_free(s->files);
    mem_free(s);
}

/* ---- folders ---------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A name of the index must be a plain file of the folder: no way out of it. */
static bool plain_name(const char *s) {
    return *s && *s != '.' && strlen(s) < 256 && !strchr(s, '/') && ends_with(s, ".safetensors");
}

/* The shards that the index names, each once, sorted. The strings belong to the index. */
static err_code shard_names(const cJSON *index, const char *path, const char ***out, size_t *n, err *e) {
    const cJSON *map = json_get(index, "weight_map"), *v;
    if (!cJSON_IsObject(map)) return err_set(e, ERR_INVALID, "%s: has no \"weight_map\"", path);
    size_t count = 0, k = 0;
    cJSON_ArrayForEach(v, map) count++;
    const char **names = *out = mem_array(count ? count : 1, sizeof *names);
    if (!names) return err_nomem(e, "the shards of a checkpoint");
    cJSON_ArrayForEach(v, map) {
        if (!cJSON_IsString(v) || !plain_name(v->valuestring))
            return err_set(e, ERR_INVALID, "%s: tensor %.200s is not mapped to a .safetensors file of this folder",
                           path, v->string);
        names[k++] = v->valuestring;
    }
    qsort(names, k, sizeof *names, compare_strings);
    *n = 0;
    for (size_t i = 0; i < k; i++)
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0) names[(*n)++] = names[i];
    if (*n == 0 || *n > ST_FILES_MAX)
        return err_set(e, ERR_INVALID, "%s: names %zu files; 1 to %d are possible", path, *n, ST_FILES_MAX);
    return ERR_OK;
}

static err_code check_shards_there(const char *dir, const char **names, size_t n, err *e) {
    buf missing = {.max = 400};
    size_t count = 0;
    char path[PATH_CAP];
    for (size_t i = 0; i < n; i++) {
        err_code rc = path_join(path, sizeof path, e, dir, names[i]);
        if (rc) return rc;
        if (file_exists(path)) continue;
        buf_printf(&missing, "%s%s", count++ ? ", " : "", names[i]);
    }
    err_code rc = ERR_OK;
    if (count)
        rc = err_set(e, ERR_NOT_FOUND, "%s: %zu of the %zu files that " INDEX_NAME " names %s missing: %s%s", dir,
                     count, n, count == 1 ? "is" : "are", buf_str(&missing), missing.failed ? " …" : "");
    buf_free(&missing);
    return rc;
}

/* What the index promises must be what the shards hold. */
static err_code check_index(const st_set *s, const cJSON *index, const char *path, err *e) {
    const cJSON *map = json_get(index, "weight_map"), *v;
    size_t n = 0;
    cJSON_ArrayForEach(v, map) {
        n++;
        if (!st_find(s, v->string))
            return err_set(e, ERR_INVALID, "%s: tensor %.200s is in none of the files; the checkpoint is not complete",
                           path, v->string);
    }
    if (n == s->n_tensors) return ERR_OK;
    return err_set(e, ERR_INVALID, "%s: names %zu tensors, the files hold %zu", path, n, s->n_tensors);
}

static err_code open_sharded(st_set **out, const char *dir, const char *index_path, err *e) {
    buf text = {.max = INDEX_MAX};
    cJSON *index = NULL;
    const char **names = NULL;
    size_t n = 0;
    st_set *s = NULL;
    err_code rc = file_read(&text, index_path, e);
    if (!rc) rc = json_parse(&index, buf_str(&text), text.len, index_path, e);
    if (!rc) rc = shard_names(index, index_path, &names, &n, e);
    if (!rc) rc = check_shards_there(dir, names, n, e);
    if (!rc) rc = set_new(&s, n, e);
    for (size_t i = 0; i < n && !rc; i++) {
        char path[PATH_CAP];
        rc = path_join(path, sizeof path, e, dir, names[i]);
        if (!rc) rc = add_file(s, path, e);
    }
    if (s) rc = finish(out, s, rc, e);
    if (!rc && (rc = check_index(*out, index, index_path, e))) {
        st_free(*out);
        *out = NULL;
    }
    mem_free(names);
    cJSON_Delete(index);
    buf_free(&text);
    return rc;
}

/* The only .safetensors file there, or a sentence about what is. */
static err_code find_single(const char *dir, char *path, size_t cap, err *e) {
    DIR *d = opendir(dir);
    if (!d) return err_errno(e, "%s: cannot be read", dir);
    struct dirent *de;
    char found[300] = "";
    const char *pickle = NULL;
    int n = 0;
    while ((de = readdir(d))) {
        if (ends_with(de->d_name, ".safetensors") && strncmp(de->d_name, "adapter_", 8) != 0 && n++ == 0)
            snprintf(found, sizeof found, "%s", de->d_name);
        if (ends_with(de->d_name, ".bin") || ends_with(de->d_name, ".pt") || ends_with(de->d_name, ".pth") ||
            ends_with(de->d_name, ".ckpt"))
            pickle = ".bin, .pt, .pth or .ckpt";
    }
    closedir(d);
    if (n == 1) return path_join(path, cap, e, dir, found);
    if (n > 1)
        return err_set(e, ERR_NOT_FOUND,
                       "%s: has %d .safetensors files but no " INDEX_NAME " that says which belong together", dir, n);
    if (pickle)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: has weights only as %s files; those are pickled programs that run when they are read, so "
                       "polder does not open them; take the model in safetensors form",
                       dir, pickle);
    return err_set(e, ERR_NOT_FOUND, "%s: has no .safetensors file and no .gguf file: nothing here is a model", dir);
}

err_code st_open_folder(st_set **out, const char *dir, err *e) {
    char path[PATH_CAP];
    *out = NULL;
    err_code rc = path_join(path, sizeof path, e, dir, INDEX_NAME);
    if (rc) return rc;
    if (file_exists(path)) return open_sharded(out, dir, path, e);
    if ((rc = path_join(path, sizeof path, e, dir, "model.safetensors"))) return rc;
    if (!file_exists(path)) rc = find_single(dir, path, sizeof path, e);
    return rc ? rc : st_open_file(out, path, e);
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

size_t st_count(const st_set *s) {
    return s->n_tensors;
}
const st_tensor *st_at(const st_set *s, size_t i) {
    return i < s->n_tensors ? &s->tensors[i] : NULL;
}
const st_tensor *st_find(const st_set *s, const char *name) {
    if (!s->n_tensors) return NULL;
    st_tensor want = {.name = name};
    return bsearch(&want, s->tensors, s->n_tensors, sizeof *s->tensors, by_name);
}
size_t st_file_count(const st_set *s) {
    return s->n_files;
}
const char *st_file_path(const st_set *s, size_t i) {
    return s->files[i].path;
}
uint64_t st_total_bytes(const st_set *s) {
    uint64_t n = 0;
    for (size_t i = 0; i < s->n_files; i++) n += s->files[i].len;
    return n;
}
