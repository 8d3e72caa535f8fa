#include "audit/internal.h"

#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

err_code fs_path(const char *dir, char out[LEDGER_PATH_MAX], const char *name, err *e) {
    return path_join(out, LEDGER_PATH_MAX, e, dir, name);
}

err_code ledger_path(const ledger *l, char out[LEDGER_PATH_MAX], const char *name, err *e) {
    return fs_path(l->dir, out, name, e);
}

err_code fs_read_file(vfs *fs, const char *dir, const char *name, buf *out, err *e) {
    char path[LEDGER_PATH_MAX];
    vfile *f = NULL;
    err_code rc = fs_path(dir, path, name, e);
    if (rc != ERR_OK) return rc;
    int r = fs->open(fs, &f, path, VFS_READ);
    if (r != 0) return fs_error(r, e, "%s", path);
    int64_t size = fs->size(fs, f), got = 0;
    if (size < 0)
        rc = fs_error((int)size, e, "%s", path);
    else if (buf_reserve(out, (size_t)size))
        got = fs->pread(fs, f, out->ptr + out->len, (size_t)size, 0);
    fs->close(fs, f);
    if (rc == ERR_OK) rc = buf_check(out, path, e);
    if (rc != ERR_OK) return rc;
    if (got < 0) return fs_error((int)got, e, "%s", path);
    out->len += (size_t)got;
    buf_append(out, "", 0); /* the NUL */
    return buf_check(out, path, e);
}

err_code fs_write_file(vfs *fs, const char *dir, const char *name, const void *p, size_t n, bool *sync_failed, err *e) {
    char path[LEDGER_PATH_MAX];
    vfile *f = NULL;
    err_code rc = fs_path(dir, path, name, e);
    if (rc != ERR_OK) return rc;
    int r = fs->open(fs, &f, path, VFS_WRITE | VFS_CREATE);
    if (r != 0) return fs_error(r, e, "%s: cannot be written", path);
    r = fs->truncate(fs, f, 0);
    if (r == 0) r = fs->pwrite(fs, f, p, n, 0);
    if (r == 0) {
        r = fs->sync(fs, f);
        if (r != 0) *sync_failed = true;
    }
    fs->close(fs, f);
    if (r != 0) return fs_error(r, e, "%s: cannot be written", path);
    return ERR_OK;
}

err_code fs_replace(vfs *fs, const char *dir, const char *folder, const char *name, const void *p, size_t n,
                    bool *sync_failed, err *e) {
    char tmp[256], from[LEDGER_PATH_MAX], to[LEDGER_PATH_MAX], where[LEDGER_PATH_MAX];
    snprintf(tmp, sizeof tmp, "%s/%s.tmp", folder, name);
    err_code rc = fs_path(dir, from, tmp, e);
    if (rc == ERR_OK) rc = fs_path(dir, where, folder, e);
    if (rc == ERR_OK) rc = fs_path(where, to, name, e);
    if (rc == ERR_OK) rc = fs_write_file(fs, dir, tmp, p, n, sync_failed, e);
    if (rc != ERR_OK) return rc;
    int r = fs->rename(fs, from, to);
    if (r != 0) return fs_error(r, e, "%s: cannot be renamed", from);
    r = fs->sync_dir(fs, where);
    if (r != 0) {
        *sync_failed = true;
        return fs_error(r, e, "%s: cannot be synced", where);
    }
    return ERR_OK;
}

typedef struct seg_list {
    uint64_t *v;
    size_t n, cap;
    unsigned strangers;
} seg_list;

static int add_segment(void *ctx, const char *name) {
    seg_list *s = ctx;
    uint64_t first;
    if (!seg_name_parse(&first, name)) {
        if (strcmp(name, "new.tmp") != 0) s->strangers++;
        return 0;
    }
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 64;
        uint64_t *v = mem_realloc(s->v, cap * sizeof *v);
        if (!v) return -ENOMEM;
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = first;
    return 0;
}

static int by_first(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

err_code list_segments(vfs *fs, const char *dir, uint64_t **out, size_t *n, unsigned *strangers, err *e) {
    char path[LEDGER_PATH_MAX];
    seg_list s = {0};
    *out = NULL;
    *n = 0;
    err_code rc = fs_path(dir, path, "ledger/seg", e);
    if (rc != ERR_OK) return rc;
    int r = fs->list(fs, path, add_segment, &s);
    if (r != 0) {
        mem_free(s.v);
        return fs_error(r, e, "%s", path);
    }
    if (s.n) qsort(s.v, s.n, sizeof *s.v, by_first);
    *out = s.v;
    *n = s.n;
    if (strangers) *strangers = s.strangers;
    return ERR_OK;
}

void log_id_of(uint8_t out[32], const char *vkey) {
    sha256_of(out, vkey, strlen(vkey));
}

/* A file that is one line. */
static err_code load_line(vfs *fs, const char *dir, const char *name, buf *out, err *e) {
    err_code rc = fs_read_file(fs, dir, name, out, e);
    if (rc != ERR_OK) return rc;
    if (out->len < 2 || out->ptr[out->len - 1] != '\n')
        return err_set(e, ERR_CORRUPT, "%s/%s: does not end in a newline", dir, name);
    out->ptr[--out->len] = 0;
    return ERR_OK;
}

err_code load_vkey(vfs *fs, const char *dir, note_key *k, char text[NOTE_VKEY_MAX], err *e) {
    buf b = {.max = NOTE_VKEY_MAX - 1};
    err_code rc = load_line(fs, dir, "keys/ledger.vkey", &b, e);
    if (rc == ERR_OK) {
        rc = note_key_parse(k, b.ptr, b.len, e);
        if (rc != ERR_OK) rc = err_set(e, ERR_CORRUPT, "%s/keys/ledger.vkey: is not a verifier key", dir);
    }
    if (rc == ERR_OK) snprintf(text, NOTE_VKEY_MAX, "%s", buf_str(&b));
    buf_free(&b);
    return rc;
}

err_code load_signer(vfs *fs, const char *dir, note_signer *s, err *e) {
    buf b = {.max = NOTE_SKEY_MAX};
    err_code rc = load_line(fs, dir, "keys/ledger.key", &b, e);
    if (rc == ERR_OK) {
        rc = note_signer_parse(s, b.ptr, b.len, e);
        if (rc != ERR_OK) rc = err_set(e, ERR_CORRUPT, "%s/keys/ledger.key: is not a private key of a log", dir);
    }
    mem_wipe(b.ptr, b.ptr ? b.cap : 0);
    buf_free(&b);
    return rc;
}

err_code load_vault_key(vfs *fs, const char *dir, uint8_t key[32], err *e) {
    buf b = {.max = VAULT_KEY_TEXT_MAX};
    err_code rc = fs_read_file(fs, dir, "keys/vault.key", &b, e);
    if (rc == ERR_OK) rc = vault_key_parse(key, b.ptr, b.len, e);
    mem_wipe(b.ptr, b.ptr ? b.cap : 0);
    buf_free(&b);
    return rc;
}

err_code segment_open(vfs *fs, const char *dir, uint64_t first, int flags, vfile **f, char name[64], err *e) {
    char path[LEDGER_PATH_MAX], base[SEG_NAME_LEN + 1];
    seg_name(base, first);
    snprintf(name, 64, "ledger/seg/%s", base);
    err_code rc = fs_path(dir, path, name, e);
    if (rc != ERR_OK) return rc;
    int r = fs->open(fs, f, path, flags);
    return r == 0 ? ERR_OK : fs_error(r, e, "%s", path);
}

static int segment_fill(vfs *fs, vfile *f, const uint8_t log_id[32], const seg_header *h, uint64_t len,
                        bool *sync_failed) {
    uint8_t raw[SEG_HEADER_LEN];
    seg_header_encode(raw, log_id, h);
    int r = fs->allocate(fs, f, len);
    if (r == 0) r = fs->pwrite(fs, f, raw, sizeof raw, 0);
    if (r != 0) return r;
    r = fs->sync(fs, f);
    if (r != 0) *sync_failed = true;
    return r;
}

err_code segment_create(vfs *fs, const char *dir, const uint8_t log_id[32], const seg_header *h, uint64_t len,
                        vfile **out, bool *sync_failed, err *e) {
    char tmp[LEDGER_PATH_MAX], to[LEDGER_PATH_MAX], folder[LEDGER_PATH_MAX], base[SEG_NAME_LEN + 1];
    vfile *f = NULL;
    seg_name(base, h->edge.size);
    err_code rc = fs_path(dir, folder, "ledger/seg", e);
    if (rc == ERR_OK) rc = fs_path(folder, tmp, "new.tmp", e);
    if (rc == ERR_OK) rc = fs_path(folder, to, base, e);
    if (rc != ERR_OK) return rc;
    int r = fs->unlink(fs, tmp);
    if (r == 0 || r == -ENOENT) r = fs->open(fs, &f, tmp, VFS_WRITE | VFS_CREATE | VFS_EXCL);
    if (r != 0) return fs_error(r, e, "%s: cannot be made", tmp);
    r = segment_fill(fs, f, log_id, h, len, sync_failed);
    if (r == 0) r = fs->rename(fs, tmp, to);
    if (r == 0) {
        r = fs->sync_dir(fs, folder);
        if (r != 0) *sync_failed = true;
    } else {
        fs->unlink(fs, tmp);
    }
    if (r != 0) {
        fs->close(fs, f);
        return fs_error(r, e, "%s: cannot be made", to);
    }
    *out = f;
    return ERR_OK;
}
