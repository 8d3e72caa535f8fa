/* The ledger's life: create, open, close, stats. The writer is commit.c. */
#include "audit/internal.h"

#include "audit/commit.h"
#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- create ---------------------------------------------------------------------------------------------- */

typedef struct new_keys {
    note_signer signer;
    char vkey[NOTE_VKEY_MAX], vault_text[VAULT_KEY_TEXT_MAX];
    uint8_t vault_check[32];
    uint8_t log_id[32];
} new_keys;

/* In the order of making; removed in the opposite order where making fails. */
/* How long a refusal keeps /readyz at "no": long enough for a balancer to notice, short enough to be tried again. */
#define REFUSING_NS UINT64_C(5000000000)

static const char *const made_files[] = {"keys/ledger.key", "keys/vault.key",    "keys/ledger.vkey", "ledger/keys",
                                         "ledger/tree",     "ledger/checkpoint", "ledger/clean"};
enum { N_MADE = sizeof made_files / sizeof made_files[0] };

static bool fs_exists(vfs *fs, const char *path) {
    vfile *f = NULL;
    if (fs->open(fs, &f, path, VFS_READ) != 0) return false;
    fs->close(fs, f);
    return true;
}

static err_code make_folders(vfs *fs, const char *dir, err *e) {
    static const char *const folders[] = {"keys", "ledger", "ledger/seg"};
    char path[LEDGER_PATH_MAX];
    int r = fs->mkdir(fs, dir);
    if (r != 0) return fs_error(r, e, "%s: cannot be made", dir);
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        err_code rc = fs_path(dir, path, folders[i], e);
        if (rc != ERR_OK) return rc;
        r = fs->mkdir(fs, path);
        if (r != 0) return fs_error(r, e, "%s: cannot be made", path);
    }
    return ERR_OK;
}

static err_code make_keys(new_keys *k, const char *origin, err *e) {
    uint8_t master[32];
    err_code rc = note_signer_new(&k->signer, origin, e);
    if (rc != ERR_OK) return rc;
    buf b = {.max = NOTE_VKEY_MAX - 1};
    note_key_text(&b, &k->signer.key);
    rc = buf_check(&b, "verifier key", e);
    if (rc == ERR_OK) memcpy(k->vkey, b.ptr, b.len + 1);
    buf_free(&b);
    random_bytes(master, sizeof master);
    vault_key_text(k->vault_text, master);
    vault_key_check(k->vault_check, master);
    mem_wipe(master, sizeof master);
    log_id_of(k->log_id, k->vkey);
    return rc;
}

static err_code write_keys(vfs *fs, const char *dir, const new_keys *k, err *e) {
    bool sync_failed;
    buf skey = {.max = NOTE_SKEY_MAX};
    char vkey[NOTE_VKEY_MAX + 1];
    note_signer_text(&skey, &k->signer);
    buf_putc(&skey, '\n');
    snprintf(vkey, sizeof vkey, "%s\n", k->vkey);
    err_code rc = buf_check(&skey, "private key", e);
    if (rc == ERR_OK) rc = fs_write_file(fs, dir, "keys/ledger.key", skey.ptr, skey.len, &sync_failed, e);
    if (rc == ERR_OK)
        rc = fs_write_file(fs, dir, "keys/vault.key", k->vault_text, strlen(k->vault_text), &sync_failed, e);
    if (rc == ERR_OK) rc = fs_write_file(fs, dir, "keys/ledger.vkey", vkey, strlen(vkey), &sync_failed, e);
    mem_wipe(skey.ptr, skey.ptr ? skey.cap : 0);
    buf_free(&skey);
    return rc;
}

static err_code write_log(vfs *fs, const char *dir, const new_keys *k, uint32_t segment_len, err *e) {
    seg_header h = {0};
    uint8_t keys_header[SECTOR];
    bool sync_failed;
    hash32 root;
    vfile *f = NULL;
    buf note = {.max = SEG_NOTE_MAX};
    frontier_root(&h.edge, &root);
    checkpoint_sign(&note, &k->signer, 0, &root);
    err_code rc = buf_check(&note, "the first checkpoint", e);
    if (rc == ERR_OK) {
        memcpy(h.note, note.ptr, note.len);
        h.note_len = note.len;
        rc = segment_create(fs, dir, k->log_id, &h, segment_len, &f, &sync_failed, e);
        if (rc == ERR_OK) fs->close(fs, f);
    }
    vault_header(keys_header, k->log_id, k->vault_check);
    if (rc == ERR_OK) rc = fs_write_file(fs, dir, "ledger/keys", keys_header, SECTOR, &sync_failed, e);
    if (rc == ERR_OK) rc = fs_write_file(fs, dir, "ledger/tree", "", 0, &sync_failed, e);
    if (rc == ERR_OK) rc = fs_write_file(fs, dir, "ledger/clean", note.ptr, note.len, &sync_failed, e);
    /* the checkpoint last: where it is, there is a ledger */
    if (rc == ERR_OK) rc = fs_write_file(fs, dir, "ledger/checkpoint", note.ptr, note.len, &sync_failed, e);
    buf_free(&note);
    return rc;
}

static err_code sync_folders(vfs *fs, const char *dir, err *e) {
    static const char *const folders[] = {"keys", "ledger", "."};
    char path[LEDGER_PATH_MAX];
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        bool self = folders[i][0] == '.';
        err_code rc = self ? ERR_OK : fs_path(dir, path, folders[i], e);
        if (rc != ERR_OK) return rc;
        int r = fs->sync_dir(fs, self ? dir : path);
        if (r != 0) return fs_error(r, e, "%s: cannot be synced", self ? dir : path);
    }
    return ERR_OK;
}

static void unmake(vfs *fs, const char *dir) {
    char path[LEDGER_PATH_MAX], first[64];
    for (size_t i = N_MADE; i-- > 0;)
        if (fs_path(dir, path, made_files[i], NULL) == ERR_OK) fs->unlink(fs, path);
    snprintf(first, sizeof first, "ledger/seg/%020d.seg", 0);
    if (fs_path(dir, path, first, NULL) == ERR_OK) fs->unlink(fs, path);
}

err_code ledger_create_sized(const char *dir, const char *origin, vfs *fs, uint32_t segment_len, err *e) {
    char path[LEDGER_PATH_MAX];
    new_keys k;
    if (!fs) fs = &vfs_posix;
    err_code rc = make_keys(&k, origin, e);
    for (size_t i = 0; rc == ERR_OK && i < N_MADE; i++) {
        rc = fs_path(dir, path, made_files[i], e);
        if (rc == ERR_OK && fs_exists(fs, path)) {
            mem_wipe(&k, sizeof k);
            return err_set(e, ERR_EXISTS, "%s: there is one already; a ledger is never overwritten", path);
        }
    }
    if (rc == ERR_OK) rc = make_folders(fs, dir, e);
    if (rc == ERR_OK) {
        rc = write_keys(fs, dir, &k, e);
        if (rc == ERR_OK) rc = write_log(fs, dir, &k, segment_len, e);
        if (rc == ERR_OK) rc = sync_folders(fs, dir, e);
        if (rc != ERR_OK) unmake(fs, dir);
    }
    mem_wipe(&k, sizeof k);
    return rc;
}

err_code ledger_create(const char *dir, const char *origin, vfs *fs, err *e) {
    return ledger_create_sized(dir, origin, fs, SEG_LEN_DEFAULT, e);
}

/* ---- open ------------------------------------------------------------------------------------------------ */

static err_code open_file(ledger *l, const char *name, int flags, vfile **f, err *e) {
    char path[LEDGER_PATH_MAX];
    err_code rc = ledger_path(l, path, name, e);
    if (rc != ERR_OK) return rc;
    int r = l->fs->open(l->fs, f, path, flags);
    return r == 0 ? ERR_OK : fs_error(r, e, "%s", path);
}

static err_code open_files(ledger *l, err *e) {
    int flags = l->read_only ? VFS_READ : VFS_WRITE;
    err_code rc = open_file(l, "ledger/tree", l->read_only ? VFS_READ : VFS_WRITE | VFS_CREATE, &l->tree, e);
    if (rc == ERR_NOT_FOUND) rc = ERR_OK; /* derived: a reader does without */
    if (rc != ERR_OK) return rc;
    rc = open_file(l, "ledger/keys", flags, &l->vault.f, e);
    if (rc == ERR_NOT_FOUND)
        rc = err_set(e, ERR_CORRUPT, "%s/ledger/keys: missing; the keys of all contents are in it", l->dir);
    if (rc == ERR_OK)
        rc = vault_check_header(l->fs, l->vault.f, l->log_id, l->vault.have_master ? l->vault.master : NULL, e);
    if (rc != ERR_OK) return rc;
    int64_t len = l->fs->size(l->fs, l->vault.f);
    if (len < 0) return fs_error((int)len, e, "%s/ledger/keys", l->dir);
    l->vault.len = (uint64_t)len;
    return ERR_OK;
}

static err_code open_keys(ledger *l, err *e) {
    char path[LEDGER_PATH_MAX];
    err_code rc = load_vkey(l->fs, l->dir, &l->key, l->vkey, e);
    if (rc == ERR_NOT_FOUND)
        rc = err_set(e, ERR_NOT_FOUND, "%s: holds no ledger (keys/ledger.vkey is missing)", l->dir);
    if (rc != ERR_OK) return rc;
    log_id_of(l->log_id, l->vkey);
    memcpy(l->vault.log_id, l->log_id, 32);
    l->vault.fs = l->fs;
    if (l->read_only) return ERR_OK;
    if (l->fs == &vfs_posix) {
        rc = ledger_path(l, path, "ledger/lock", e);
        if (rc == ERR_OK) rc = file_lock(&l->lock_fd, path, e);
        if (rc != ERR_OK) return rc;
    }
    rc = load_signer(l->fs, l->dir, &l->signer, e);
    if (rc == ERR_OK && memcmp(l->signer.key.pub, l->key.pub, sizeof l->key.pub) != 0)
        rc = err_set(e, ERR_CORRUPT, "%s/keys/ledger.key: is not the private half of keys/ledger.vkey", l->dir);
    if (rc == ERR_OK) rc = load_vault_key(l->fs, l->dir, l->vault.master, e);
    l->vault.have_master = rc == ERR_OK;
    return rc;
}

static err_code count_bytes(ledger *l, err *e) {
    for (size_t i = 0; i + 1 < l->n_segs; i++) {
        char name[64];
        vfile *f = NULL;
        err_code rc = segment_open(l->fs, l->dir, l->segs[i], VFS_READ, &f, name, e);
        if (rc != ERR_OK) return rc;
        int64_t n = l->fs->size(l->fs, f);
        l->fs->close(l->fs, f);
        if (n > 0) l->segment_bytes += (uint64_t)n;
    }
    l->segment_bytes += l->tail.len;
    return ERR_OK;
}

static void publish_state(ledger *l) {
    pthread_mutex_lock(&l->mu);
    memcpy(l->note, l->tail.note, l->tail.note_len);
    l->note_len = l->tail.note_len;
    atomic_store(&l->size, l->tail.edge.size);
    pthread_mutex_unlock(&l->mu);
}

static ledger *ledger_new(const char *dir, const ledger_options *o) {
    ledger *l = mem_zalloc(sizeof *l);
    if (!l) return NULL;
    l->dir = mem_strdup(dir);
    if (!l->dir) {
        mem_free(l);
        return NULL;
    }
    l->fs = o && o->fs ? o->fs : &vfs_posix;
    l->read_only = o && o->read_only;
    l->group_max = o && o->group_max ? o->group_max : GROUP_MAX_DEFAULT;
    if (l->group_max >= FRAME_COUNT_MAX) l->group_max = FRAME_COUNT_MAX - 1; /* a pair is not torn apart */
    l->segment_len = o && o->segment_bytes ? (o->segment_bytes + SECTOR - 1) / SECTOR * SECTOR : SEG_LEN_DEFAULT;
    if (l->segment_len < SEG_LEN_MIN) l->segment_len = SEG_LEN_MIN;
    l->lock_fd = -1;
    l->tail_link = &l->head;
    l->seed_records = SEED_RECORDS;
    pthread_mutex_init(&l->vault.seeds_mu, NULL);
    pthread_mutex_init(&l->mu, NULL);
    pthread_mutex_init(&l->read_mu, NULL);
    cond_init(&l->work);
    return l;
}

static err_code open_all(ledger *l, ledger_report *rep, err *e) {
    err_code rc = open_keys(l, e);
    if (rc == ERR_OK) rc = open_files(l, e);
    if (rc == ERR_OK) rc = tail_open(l, rep, e);
    if (rc == ERR_OK) rc = l->read_only ? tail_follow(l, e) : tail_recover(l, rep, e);
    if (rc == ERR_OK) rc = count_bytes(l, e);
    if (rc != ERR_OK) return rc;
    rep->size = l->tail.edge.size;
    publish_state(l);
    if (l->read_only) return ERR_OK;
    rc = seeds_start(l, rep->clean, e);
    return rc == ERR_OK ? commit_start(l, e) : rc;
}

err_code ledger_open(ledger **out, const char *dir, const ledger_options *o, ledger_report *report, err *e) {
    ledger_report unused;
    if (!report) report = &unused;
    *report = (ledger_report){0};
    *out = NULL;
    ledger *l = ledger_new(dir, o);
    if (!l) return err_nomem(e, "the ledger");
    err_code rc = open_all(l, report, e);
    if (rc != ERR_OK) {
        ledger_close(l);
        return rc;
    }
    *out = l;
    return ERR_OK;
}

void ledger_close(ledger *l) {
    if (!l) return;
    commit_stop(l);
    read_close(l);
    if (l->tail.f) l->fs->close(l->fs, l->tail.f);
    if (l->tree) l->fs->close(l->fs, l->tree);
    if (l->vault.f) l->fs->close(l->fs, l->vault.f);
    if (l->vault.seeds_f) l->fs->close(l->fs, l->vault.seeds_f);
    if (l->lock_fd >= 0) close(l->lock_fd);
    mem_free(l->segs);
    buf_free(&l->overlay);
    buf_free(&l->frame);
    pthread_cond_destroy(&l->work);
    pthread_mutex_destroy(&l->mu);
    pthread_mutex_destroy(&l->read_mu);
    pthread_mutex_destroy(&l->vault.seeds_mu);
    mem_free(l->dir);
    mem_wipe(l, sizeof *l);
    mem_free(l);
}

/* ---- what it is ------------------------------------------------------------------------------------------ */

uint64_t ledger_size(const ledger *l) {
    return atomic_load(&((ledger *)(uintptr_t)l)->size);
}

const char *ledger_origin(const ledger *l) {
    return l->key.name;
}

const char *ledger_vkey(const ledger *l) {
    return l->vkey;
}

err_code ledger_refresh(ledger *l, err *e) {
    if (!l->read_only) return ERR_OK;
    pthread_mutex_lock(&l->read_mu);
    err_code rc = tail_follow(l, e);
    if (rc == ERR_OK) publish_state(l);
    pthread_mutex_unlock(&l->read_mu);
    return rc;
}

void ledger_get_stats(ledger *l, ledger_stats *out) {
    pthread_mutex_lock(&l->mu);
    *out = (ledger_stats){.size = atomic_load(&l->size),
                          .queued = l->queued,
                          .groups = l->groups,
                          .failed_appends = l->failed_appends,
                          .refusing = l->refused_ns && time_mono_ns() - l->refused_ns < REFUSING_NS,
                          .segment_bytes = l->segment_bytes,
                          .last_commit_ms = l->last_commit_ms,
                          .commit_ms_sum = l->commit_ms_sum,
                          .failed = l->failed};
    pthread_mutex_unlock(&l->mu);
}
