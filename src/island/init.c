/* island: a new state folder.
 *
 * A folder that is absent is built beside its place under another name and renamed when complete. An empty folder that
 * is there (a mount point, the working directory) is filled in place; island.yaml comes last, so that a folder is an
 * island only when everything else is durable. On error everything that was made is removed. */
#include "island/internal.h"

#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TREE_DEPTH_MAX 8

/* ---- the parts ------------------------------------------------------------------------------------------- */

static err_code make_api_key(const char *dir, err *e) {
    uint8_t key[API_KEY_LEN];
    char path[ISLAND_PATH_MAX], text[2 * API_KEY_LEN + 2];
    err_code code = island_path(path, dir, API_KEY_FILE, e);
    if (code != ERR_OK) return code;
    random_bytes(key, sizeof key);
    hex_encode(text, key, sizeof key);
    text[2 * API_KEY_LEN] = '\n';
    code = file_write_atomic(path, text, 2 * API_KEY_LEN + 1, 0600, e);
    mem_wipe(key, sizeof key);
    mem_wipe(text, sizeof text);
    return code;
}

static err_code append_created(ledger *l, const island_config *c, const buf *json, const char *hex, err *e) {
    record *r = NULL;
    uint64_t seq;
    err_code code = record_new(&r, "island.created", e);
    if (code != ERR_OK) return code;
    cJSON *values = cJSON_Parse(json->ptr), *config = cJSON_AddObjectToObject(record_body(r), "config");
    bool ok = values && config && cJSON_AddStringToObject(config, "sha256", hex) &&
              cJSON_AddStringToObject(record_body(r), "island", c->island_name) &&
              cJSON_AddItemToObject(config, "values", values);
    if (!ok) {
        cJSON_Delete(values);
        code = err_nomem(e, "a record");
    } else {
        code = ledger_append(l, r, &seq, e);
    }
    record_free(r);
    return code;
}

typedef struct first_meta {
    const char *vkey, *json, *hex;
} first_meta;

static err_code write_meta(store *s, void *ctx, err *e) {
    const first_meta *m = ctx;
    err_code code = meta_set(s, "vkey", m->vkey, e);
    if (code == ERR_OK) code = meta_set(s, "config.json", m->json, e);
    if (code == ERR_OK) code = meta_set(s, "config.sha256", m->hex, e);
    return code;
}

static err_code make_ledger_and_store(const char *dir, const island_config *c, const buf *json, const char *hex,
                                      err *e) {
    char path[ISLAND_PATH_MAX];
    ledger *l = NULL;
    store *s = NULL;
    ledger_options o = {.group_max = (uint32_t)c->ledger_group_max};
    ledger_report report;
    err_code code = ledger_create(dir, c->island_name, NULL, e);
    if (code == ERR_OK) code = make_api_key(dir, e);
    if (code == ERR_OK) code = ledger_open(&l, dir, &o, &report, e);
    if (code == ERR_OK) code = append_created(l, c, json, hex, e);
    if (code == ERR_OK) code = island_path(path, dir, "store", e);
    if (code == ERR_OK) code = store_open(&s, path, island_migrations, island_n_migrations, false, e);
    if (code == ERR_OK) code = store_transaction(s, write_meta, &(first_meta){ledger_vkey(l), json->ptr, hex}, e);
    store_close(s);
    ledger_close(l);
    return code;
}

static err_code build(const char *dir, const island_config *c, err *e) {
    char path[ISLAND_PATH_MAX], hex[SHA256_HEX_LEN + 1];
    buf json = {.max = CONFIG_BYTES_MAX}, yaml = {.max = CONFIG_BYTES_MAX};
    err_code code = config_digest(c, &json, hex, e);
    if (code == ERR_OK) code = make_ledger_and_store(dir, c, &json, hex, e);
    if (code == ERR_OK) {
        config_write_yaml(c, &yaml);
        code = buf_check(&yaml, CONFIG_FILE, e);
    }
    if (code == ERR_OK) code = island_path(path, dir, CONFIG_FILE, e);
    if (code == ERR_OK) code = file_write_atomic(path, yaml.ptr, yaml.len, 0600, e); /* syncs the folder too */
    buf_free(&json);
    buf_free(&yaml);
    return code;
}

/* ---- folders --------------------------------------------------------------------------------------------- */

/* Removes what a folder holds; follows no links. The failure that led here is the one to tell, so this says nothing. */
static void empty_folder(int fd, int depth) {
    int own = depth < TREE_DEPTH_MAX ? openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    DIR *d = own >= 0 ? fdopendir(own) : NULL;
    if (!d) {
        if (own >= 0) close(own);
        return;
    }
    struct dirent *de;
    while ((de = readdir(d))) {
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0) continue;
        int sub = openat(fd, de->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub >= 0) {
            empty_folder(sub, depth + 1);
            close(sub);
            unlinkat(fd, de->d_name, AT_REMOVEDIR);
        } else {
            unlinkat(fd, de->d_name, 0);
        }
    }
    closedir(d);
}

static void remove_folder_content(const char *dir) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return;
    empty_folder(fd, 0);
    close(fd);
}

/* Nothing in it but what `except` names. */
static err_code require_empty(const char *dir, const char *except, err *e) {
    char path[ISLAND_PATH_MAX];
    err_code code = island_path(path, dir, CONFIG_FILE, e);
    if (code != ERR_OK) return code;
    if (file_exists(path)) return err_set(e, ERR_EXISTS, "%s: there is an island here already", dir);
    DIR *d = opendir(dir);
    if (!d) return err_errno(e, "%s: cannot be read", dir);
    struct dirent *de;
    while (code == ERR_OK && (de = readdir(d))) {
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 || strcmp(de->d_name, except) == 0) continue;
        code = err_set(e, ERR_EXISTS, "%s: is not empty (it has %.100s); an island needs a folder of its own", dir,
                       de->d_name);
    }
    closedir(d);
    return code;
}

static err_code init_in_place(const char *dir, const island_config *c, err *e) {
    char path[ISLAND_PATH_MAX];
    int lock = -1;
    err_code code = island_path(path, dir, "lock", e);
    if (code == ERR_OK) code = require_empty(dir, "", e);
    if (code != ERR_OK) return code;
    code = file_lock(&lock, path, e); /* two inits at once: one of them wins */
    if (code != ERR_OK) return code;
    code = require_empty(dir, "lock", e);
    if (code == ERR_OK) {
        code = build(dir, c, e);
        if (code != ERR_OK) remove_folder_content(dir);
    }
    close(lock);
    return code;
}

static err_code move_into_place(const char *from, const char *dir, err *e) {
    if (renameat2(AT_FDCWD, from, AT_FDCWD, dir, RENAME_NOREPLACE) != 0) {
        if (errno == EINVAL || errno == ENOSYS) { /* a file system without it: rename replaces empty folders only */
            if (rename(from, dir) == 0) errno = 0;
        }
        if (errno == EEXIST || errno == ENOTEMPTY)
            return err_set(e, ERR_EXISTS, "%s: has appeared in the meantime; an island needs a folder of its own", dir);
        if (errno) return err_errno(e, "%s: cannot be created", dir);
    }
    char parent[ISLAND_PATH_MAX];
    snprintf(parent, sizeof parent, "%s", dir);
    char *slash = strrchr(parent, '/');
    if (slash) slash[slash == parent] = 0;
    int fd = open(slash ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return ERR_OK; /* may be entered but not read: the rename stands, its sync is the system's */
    err_code code = fsync(fd) == 0 ? ERR_OK : err_errno(e, "%s: its folder cannot be synced", dir);
    close(fd);
    return code;
}

static err_code init_staged(const char *dir, const island_config *c, err *e) {
    char temp[ISLAND_PATH_MAX];
    if ((size_t)snprintf(temp, sizeof temp, "%s.init-%016llx", dir, (unsigned long long)random_u64()) >= sizeof temp)
        return err_set(e, ERR_INVALID, "%s: the path is too long", dir);
    if (mkdir(temp, 0700) != 0) {
        if (errno == ENOENT)
            return err_set(e, ERR_NOT_FOUND, "%s: the folder above it does not exist; make it first", dir);
        return err_errno(e, "%s: cannot be created", dir);
    }
    err_code code = build(temp, c, e);
    if (code == ERR_OK) code = move_into_place(temp, dir, e);
    if (code != ERR_OK) {
        remove_folder_content(temp);
        rmdir(temp);
    }
    return code;
}

err_code island_init(const char *dir, const char *name, err *e) {
    char path[ISLAND_PATH_MAX];
    size_t n = strlen(dir);
    if (n == 0) return err_set(e, ERR_USAGE, "the name of the state folder is empty");
    if (n >= sizeof path - 64) return err_set(e, ERR_INVALID, "%s: the path is too long", dir);
    memcpy(path, dir, n + 1);
    while (n > 1 && path[n - 1] == '/') path[--n] = 0;
    island_config c;
    err_code code = config_default(&c, e);
    if (code != ERR_OK) return code;
    if (name) code = config_set(&c, config_find("island", "name"), name, strlen(name), e);
    struct stat st;
    if (code == ERR_OK) {
        if (stat(path, &st) == 0) {
            if (S_ISDIR(st.st_mode))
                code = init_in_place(path, &c, e);
            else
                code = err_set(e, ERR_EXISTS, "%s: is not a folder", path);
        } else if (errno == ENOENT) {
            code = init_staged(path, &c, e);
        } else {
            code = err_errno(e, "%s: cannot be reached", path);
        }
    }
    config_free(&c);
    return code;
}
