/* The log as a folder of files in the tlog-tiles layout: what a web server could serve as it is. */
#include "audit/tiles.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static err_code make_empty(const char *dir, err *e) {
    err_code rc = file_make_dirs(dir, 0755, e);
    if (rc != ERR_OK) return rc;
    DIR *d = opendir(dir);
    if (!d) return err_errno(e, "%s", dir);
    struct dirent *de;
    bool empty = true;
    while ((de = readdir(d)))
        if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0) empty = false;
    closedir(d);
    return empty ? ERR_OK : err_set(e, ERR_EXISTS, "%s: is not empty; name a new folder", dir);
}

static err_code write_file(const char *path, const buf *b, err *e) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) return err_errno(e, "%s: cannot be written", path);
    size_t done = 0;
    while (done < b->len) {
        ssize_t k = write(fd, b->ptr + done, b->len - done);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) break;
        done += (size_t)k;
    }
    err_code rc = done == b->len ? ERR_OK : err_errno(e, "%s: cannot be written", path);
    if (close(fd) != 0 && rc == ERR_OK) rc = err_errno(e, "%s: cannot be written", path);
    return rc;
}

static err_code export_tile(ledger *l, const char *dir, const tile *t, buf *b, err *e) {
    char rel[TILE_PATH_MAX], path[LEDGER_PATH_MAX];
    tile_path(rel, t);
    err_code rc = path_join(path, sizeof path, e, dir, rel);
    if (rc != ERR_OK) return rc;
    char *slash = strrchr(path, '/');
    *slash = 0;
    rc = file_make_dirs(path, 0755, e);
    *slash = '/';
    if (rc != ERR_OK) return rc;
    buf_reset(b);
    pthread_mutex_lock(&l->read_mu);
    rc = tile_read(l, t, b, e);
    pthread_mutex_unlock(&l->read_mu);
    return rc == ERR_OK ? write_file(path, b, e) : rc;
}

static err_code export_level(ledger *l, const char *dir, int level, uint64_t size, buf *b, err *e) {
    err_code rc = ERR_OK;
    uint64_t n = tile_count(level, size);
    for (uint64_t i = 0; rc == ERR_OK && i < n; i++) {
        tile t = {.level = level, .n = i, .width = tile_width(level, i, size)};
        rc = export_tile(l, dir, &t, b, e);
    }
    return rc;
}

/* One sync of the file system for all the files, then the checkpoint: a folder that has one is complete. */
static err_code finish(const char *dir, const buf *note, err *e) {
    char path[LEDGER_PATH_MAX];
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return err_errno(e, "%s", dir);
    int r = syncfs(fd);
    err_code rc = r == 0 ? ERR_OK : err_errno(e, "%s: cannot be synced", dir);
    close(fd);
    if (rc == ERR_OK) rc = path_join(path, sizeof path, e, dir, "checkpoint");
    return rc == ERR_OK ? file_write_atomic(path, note->ptr, note->len, 0644, e) : rc;
}

err_code audit_export(ledger *l, const char *out_dir, err *e) {
    char path[LEDGER_PATH_MAX];
    uint64_t size = 0;
    buf note = {.max = NOTE_OWN_MAX}, b = {.max = TILE_WIDTH * (LEDGER_ENTRY_MAX + 2u)};
    err_code rc = make_empty(out_dir, e);
    note_copy(l, &note, &size);
    if (rc == ERR_OK) rc = buf_check(&note, "a checkpoint", e);
    if (rc == ERR_OK) rc = path_join(path, sizeof path, e, out_dir, "vkey");
    if (rc == ERR_OK) {
        buf_printf(&b, "%s\n", l->vkey);
        rc = buf_check(&b, "verifier key", e);
    }
    if (rc == ERR_OK) rc = write_file(path, &b, e);
    for (int level = TILE_ENTRIES; rc == ERR_OK && level < TILE_LEVELS; level++)
        rc = export_level(l, out_dir, level, size, &b, e);
    if (rc == ERR_OK) rc = finish(out_dir, &note, e);
    buf_free(&note);
    buf_free(&b);
    return rc;
}
