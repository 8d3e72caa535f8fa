#include "inference/kept.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PIECE ((size_t)64 << 10)

typedef struct stream {
    const char *path;
    FILE *f;
    crypto_secretstream_xchacha20poly1305_state state;
    uint8_t *plain, *sealed; /* (PIECE), and with a tag */
    size_t n, at;            /* in plain */
    bool over;               /* reading: the last piece was read */
} stream;

enum {
    TAG_LEN = crypto_secretstream_xchacha20poly1305_ABYTES,
    HEAD_LEN = crypto_secretstream_xchacha20poly1305_HEADERBYTES
};

static err_code make_key(const kept_file *f, uint8_t key[32], err *e) {
    char purpose[32 + SHA256_HEX_LEN] = "polder/kept-prefixes/1:";
    hex_encode(purpose + strlen(purpose), f->digest, SHA256_LEN);
    return ledger_derive_key(island_ledger(f->i), purpose, key, e);
}

static void path_of(const kept_file *f, char *out, size_t cap) {
    char hex[SHA256_HEX_LEN + 1];
    hex_encode(hex, f->digest, SHA256_LEN);
    snprintf(out, cap, "%s/cache/%s.kept", island_dir(f->i), hex);
}

static err_code stream_open(stream *s, const char *path, const char *mode, err *e) {
    *s = (stream){.path = path, .plain = mem_alloc(PIECE), .sealed = mem_alloc(PIECE + TAG_LEN)};
    if (!s->plain || !s->sealed) return err_nomem(e, "kept prefixes");
    int flags = mode[0] == 'r' ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC;
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && !(s->f = fdopen(fd, mode))) close(fd);
    return s->f ? ERR_OK : err_errno(e, "%s: it cannot be opened", path);
}

static void stream_close(stream *s) {
    if (s->f) fclose(s->f);
    s->f = NULL;
    if (s->plain) mem_wipe(s->plain, PIECE);
    mem_free(s->plain);
    mem_free(s->sealed);
    mem_wipe(&s->state, sizeof s->state);
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

static err_code put(stream *s, const void *p, size_t n, err *e) {
    return fwrite(p, 1, n, s->f) == n ? ERR_OK : err_errno(e, "%s: it cannot be written", s->path);
}

static err_code put_piece(stream *s, unsigned char tag, err *e) {
    unsigned long long len = 0;
    crypto_secretstream_xchacha20poly1305_push(&s->state, s->sealed, &len, s->plain, s->n, NULL, 0, tag);
    s->n = 0;
    return put(s, s->sealed, (size_t)len, e);
}

static err_code on_write(void *ctx, const void *p, size_t n, err *e) {
    stream *s = ctx;
    const uint8_t *from = p;
    err_code rc = ERR_OK;
    while (n && !rc) {
        size_t take = PIECE - s->n < n ? PIECE - s->n : n;
        memcpy(s->plain + s->n, from, take);
        s->n += take;
        from += take;
        n -= take;
        if (s->n == PIECE) rc = put_piece(s, crypto_secretstream_xchacha20poly1305_TAG_MESSAGE, e);
    }
    return rc;
}

static err_code write_all(const kept_file *f, const session *from, const char *path, err *e) {
    uint8_t key[32], head[HEAD_LEN];
    stream s;
    err_code rc = stream_open(&s, path, "w", e);
    if (!rc) rc = make_key(f, key, e);
    if (!rc) {
        crypto_secretstream_xchacha20poly1305_init_push(&s.state, head, key);
        mem_wipe(key, sizeof key);
        rc = put(&s, head, sizeof head, e);
    }
    if (!rc) rc = session_kept_save(from, f->digest, on_write, &s, e);
    if (!rc) rc = put_piece(&s, crypto_secretstream_xchacha20poly1305_TAG_FINAL, e);
    if (!rc && (fflush(s.f) || fsync(fileno(s.f)))) rc = err_errno(e, "%s: it cannot be written", path);
    stream_close(&s);
    return rc;
}

void kept_save(const kept_file *f, const session *from) {
    char path[4096], half[4104], dir[4096];
    err e = {0};
    if (!session_kept_facts(from).positions) return;
    path_of(f, path, sizeof path);
    snprintf(half, sizeof half, "%s.new", path);
    snprintf(dir, sizeof dir, "%s/cache", island_dir(f->i));
    err_code rc = file_make_dirs(dir, 0700, &e);
    if (!rc) rc = write_all(f, from, half, &e);
    if (!rc && rename(half, path)) rc = err_errno(&e, "%s: it cannot be put in its place", path);
    if (!rc) return;
    unlink(half);
    log_msg(LOG_WARN, "inference", "prefixes are not kept over the restart: %s", e.msg);
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

static err_code next_piece(stream *s, err *e) {
    unsigned char tag = 0;
    unsigned long long len = 0;
    size_t n = fread(s->sealed, 1, PIECE + TAG_LEN, s->f);
    if (s->over || n < TAG_LEN ||
        crypto_secretstream_xchacha20poly1305_pull(&s->state, s->plain, &len, &tag, s->sealed, n, NULL, 0) != 0)
        return err_set(e, ERR_INVALID, "%s: it was changed or cut off, or belongs to another island", s->path);
    s->over = tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL;
    s->n = (size_t)len;
    s->at = 0;
    return ERR_OK;
}

static err_code on_read(void *ctx, void *p, size_t n, err *e) {
    stream *s = ctx;
    uint8_t *to = p;
    while (n) {
        if (s->at == s->n) {
            err_code rc = next_piece(s, e);
            if (rc) return rc;
            continue;
        }
        size_t take = s->n - s->at < n ? s->n - s->at : n;
        memcpy(to, s->plain + s->at, take);
        s->at += take;
        to += take;
        n -= take;
    }
    return ERR_OK;
}

static err_code read_all(const kept_file *f, session *to, const char *path, err *e) {
    uint8_t key[32], head[HEAD_LEN];
    stream s;
    err_code rc = stream_open(&s, path, "r", e);
    if (!rc) rc = make_key(f, key, e);
    if (!rc && fread(head, 1, sizeof head, s.f) != sizeof head) rc = err_set(e, ERR_INVALID, "%s: it is cut off", path);
    if (!rc && crypto_secretstream_xchacha20poly1305_init_pull(&s.state, head, key) != 0)
        rc = err_set(e, ERR_INVALID, "%s: its head is malformed", path);
    mem_wipe(key, sizeof key);
    if (!rc) rc = session_kept_load(to, f->digest, on_read, &s, e);
    stream_close(&s);
    return rc;
}

void kept_load(const kept_file *f, session *to) {
    char path[4096];
    err e = {0};
    path_of(f, path, sizeof path);
    if (!file_exists(path)) return;
    err_code rc = read_all(f, to, path, &e);
    unlink(path);
    if (rc)
        log_msg(LOG_WARN, "inference", "what was kept of prompts is not used: %s", e.msg);
    else
        log_msg(LOG_INFO, "inference", "%llu positions of prompts were kept over the restart",
                (unsigned long long)session_kept_facts(to).positions);
}
