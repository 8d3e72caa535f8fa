/* store: files by digest. What breaks these: a blob whose bytes are not its name's, one that is visible before it is
 * complete, a temporary file that stays, a source that changes unnoticed. */
#include "harness.h"

#include "base/file.h"
#include "base/mem.h"
#include "store/store.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char dir[256];
static const char *sub(const char *name) {
    static char paths[4][512];
    static int at;
    char *path = paths[at++ % 4];
    snprintf(path, 512, "%s/%s", dir, name);
    return path;
}

static store *open_ok(bool read_only) {
    store *s = NULL;
    err e = {0};
    if (store_open(&s, sub("store"), NULL, 0, read_only, &e) != ERR_OK) fprintf(stderr, "open: %s\n", e.msg);
    return s;
}

static void put_bytes(const char *path, size_t n, unsigned seed) {
    FILE *f = fopen(path, "wb");
    if (!f) abort();
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1103515245 + 12345;
        putc((int)(seed >> 16 & 0xff), f);
    }
    fclose(f);
}

/* Regular files below the store's blobs. */
static int blobs(void) {
    char cmd[600];
    snprintf(cmd, sizeof cmd, "find '%s/blobs' -type f | wc -l", sub("store"));
    FILE *p = popen(cmd, "r");
    int n = -1;
    if (!p || fscanf(p, "%d", &n) != 1) abort();
    pclose(p);
    return n;
}

typedef struct watch { /* what a progress callback saw, and what it shall do */
    uint64_t last, total;
    int calls, cancel_at;
    const char *append_to;
} watch;
static int on_progress(void *ctx, uint64_t done, uint64_t total) {
    watch *w = ctx;
    w->calls++;
    if (done < w->last) return 1;
    w->last = done;
    w->total = total;
    if (w->append_to && w->calls == 1) {
        FILE *f = fopen(w->append_to, "ab");
        if (!f) abort();
        putc('x', f);
        fclose(f);
    }
    return w->calls == w->cancel_at;
}

TEST(blob_import_and_remove) {
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    uint8_t d[SHA256_LEN], want[SHA256_LEN], again[SHA256_LEN];
    uint64_t len = 0;
    static const size_t sizes[] = {0, 1, 1 << 20, (1 << 20) + 1, 3000000};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        put_bytes(sub("src"), sizes[k], (unsigned)k + 1);
        buf b = {.max = 1 << 24};
        CHECK_OK(file_read(&b, sub("src"), &e), e);
        sha256_of(want, b.ptr, b.len);
        watch w = {0};
        CHECK_OK(store_blob_import(s, sub("src"), d, &len, on_progress, &w, &e), e);
        CHECK(memcmp(d, want, SHA256_LEN) == 0);
        CHECK_INT(len, sizes[k]);
        if (sizes[k]) CHECK(w.last == sizes[k] && w.total == sizes[k]);
        char path[600];
        struct stat st, same;
        CHECK_OK(store_blob_path(s, d, path, sizeof path, &e), e);
        CHECK(stat(path, &st) == 0);
        CHECK_INT(st.st_mode & 0777, 0444);
        CHECK_INT(st.st_size, sizes[k]);
        buf c = {.max = 1 << 24};
        CHECK_OK(file_read(&c, path, &e), e);
        CHECK(c.len == b.len && memcmp(buf_str(&c), buf_str(&b), b.len) == 0);
        buf_free(&b);
        buf_free(&c);
        CHECK_OK(store_blob_verify(s, d, NULL, NULL, &e), e);
        /* again: the same file stays */
        CHECK_OK(store_blob_import(s, sub("src"), again, &len, NULL, NULL, &e), e);
        CHECK(memcmp(d, again, SHA256_LEN) == 0 && stat(path, &same) == 0 && same.st_ino == st.st_ino);
        CHECK_INT(blobs(), k + 1);
    }
    CHECK_OK(store_blob_remove(s, d, &e), e);
    CHECK_INT(blobs(), 4);
    CHECK_INT(store_blob_remove(s, d, &e), ERR_NOT_FOUND);
    CHECK_INT(store_blob_verify(s, d, NULL, NULL, &e), ERR_NOT_FOUND);
    char path[600] = "";
    CHECK_INT(store_blob_path(s, d, path, sizeof path, &e), ERR_NOT_FOUND);
    CHECK_HAS(path, "/blobs/sha256/");
    CHECK(store_blob_path(s, d, path, 20, &e) == ERR_TOO_LONG);
    store_close(s);
}

TEST(blob_sources_that_are_refused) {
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    uint8_t d[SHA256_LEN];
    CHECK_INT(store_blob_import(s, sub("absent"), d, NULL, NULL, NULL, &e), ERR_NOT_FOUND);
    CHECK_INT(store_blob_import(s, dir, d, NULL, NULL, NULL, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "regular file");
    CHECK(mkfifo(sub("fifo"), 0600) == 0);
    CHECK_INT(store_blob_import(s, sub("fifo"), d, NULL, NULL, NULL, &e), ERR_INVALID); /* and does not wait */
    put_bytes(sub("src"), 3000000, 1);
    watch grows = {.append_to = sub("src")};
    CHECK_INT(store_blob_import(s, sub("src"), d, NULL, on_progress, &grows, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "changed while it was read");
    watch cancels = {.cancel_at = 2};
    CHECK_INT(store_blob_import(s, sub("src"), d, NULL, on_progress, &cancels, &e), ERR_CANCELLED);
    CHECK_INT(blobs(), 0);
    store_close(s);
    s = open_ok(true);
    CHECK(s);
    CHECK_INT(store_blob_import(s, sub("src"), d, NULL, NULL, NULL, &e), ERR_DENIED);
    CHECK_INT(store_blob_remove(s, d, &e), ERR_DENIED);
    store_close(s);
}

TEST(blob_damage_is_found) {
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    uint8_t d[SHA256_LEN];
    char path[600], c;
    put_bytes(sub("src"), 5000, 1);
    CHECK_OK(store_blob_import(s, sub("src"), d, NULL, NULL, NULL, &e), e);
    CHECK_OK(store_blob_path(s, d, path, sizeof path, &e), e);
    CHECK(chmod(path, 0600) == 0);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pread(fd, &c, 1, 4000) == 1);
    c ^= 1;
    CHECK(pwrite(fd, &c, 1, 4000) == 1 && close(fd) == 0);
    CHECK_INT(store_blob_verify(s, d, NULL, NULL, &e), ERR_CORRUPT);
    CHECK_HAS(e.msg, path);
    /* importing the good bytes does not pass the bad ones off as them, and does not overwrite them silently */
    CHECK_INT(store_blob_import(s, sub("src"), d, NULL, NULL, NULL, &e), ERR_CORRUPT);
    CHECK_HAS(e.msg, "remove it and import it again");
    CHECK_OK(store_blob_remove(s, d, &e), e);
    CHECK_OK(store_blob_import(s, sub("src"), d, NULL, NULL, NULL, &e), e);
    CHECK_OK(store_blob_verify(s, d, NULL, NULL, &e), e);
    store_close(s);
}

static int die_at_second(void *ctx, uint64_t done, uint64_t total) {
    static int calls;
    if (++calls == 2) _exit(0);
    return 0;
}

TEST(blob_crash_leaves_a_temporary_that_opening_removes) {
    store *s = open_ok(false);
    CHECK(s);
    store_close(s);
    put_bytes(sub("src"), 3000000, 1);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        err e;
        uint8_t d[SHA256_LEN];
        s = open_ok(false);
        if (s) store_blob_import(s, sub("src"), d, NULL, die_at_second, NULL, &e);
        _exit(1);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK_INT(blobs(), 1);
    s = open_ok(true);
    CHECK(s);
    CHECK_INT(blobs(), 1); /* reading changes nothing */
    store_close(s);
    s = open_ok(false);
    CHECK(s);
    CHECK_INT(blobs(), 0);
    store_close(s);
}

static int open_second(void *ctx, uint64_t done, uint64_t total) {
    store *other = open_ok(false); /* cleans up, and must leave what is being written */
    store_close(other);
    return other ? 0 : 1;
}

TEST(blob_opening_leaves_running_imports) {
    store *s = open_ok(false);
    CHECK(s);
    err e = {0};
    uint8_t d[SHA256_LEN];
    put_bytes(sub("src"), 3000000, 1);
    CHECK_OK(store_blob_import(s, sub("src"), d, NULL, open_second, NULL, &e), e);
    CHECK_INT(blobs(), 1);
    store_close(s);
}

TEST(blob_file_size_limit) {
    store *s = open_ok(false);
    CHECK(s);
    store_close(s);
    put_bytes(sub("src"), 3000000, 1);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        err e = {0};
        uint8_t d[SHA256_LEN];
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit lim = {1000000, RLIM_INFINITY};
        s = open_ok(false);
        setrlimit(RLIMIT_FSIZE, &lim);
        bool ok = s && store_blob_import(s, sub("src"), d, NULL, NULL, NULL, &e) == ERR_IO && strstr(e.msg, ".import-");
        if (!ok) fprintf(stderr, "%s\n", e.msg);
        store_close(s);
        _exit(ok && blobs() == 0 ? 0 : 1);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* A real full disk: a file system of 1 MiB in memory, in a mount namespace of its own. */
TEST(blob_full_disk) {
    put_bytes(sub("src"), 3000000, 1);
    CHECK(mkdir(sub("store"), 0700) == 0);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        err e = {0};
        uint8_t d[SHA256_LEN];
        if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("none", sub("store"), "tmpfs", 0, "size=1m") != 0)
            _exit(77);
        store *s = open_ok(false);
        bool ok = s && store_blob_import(s, sub("src"), d, NULL, NULL, NULL, &e) == ERR_IO &&
                  strstr(e.msg, "cannot reserve 3000000 bytes") && blobs() == 0;
        if (!ok) fprintf(stderr, "blob: %s\n", e.msg);
        /* rows meet the full disk as well: a sentence, and what was acknowledged stays */
        static char big[40000];
        int kept = 0;
        err_code code = s ? store_write(s, "CREATE TABLE t(b BLOB) STRICT", NULL, 0, NULL, &e) : ERR_INTERNAL;
        while (code == ERR_OK && kept < 100) {
            code = store_write(s, "INSERT INTO t VALUES(?)", (store_val[]){SV_BLOB(big, sizeof big)}, 1, NULL, &e);
            kept += code == ERR_OK;
        }
        ok = ok && code == ERR_IO && strstr(e.msg, "the disk is full");
        store_stmt *q = NULL;
        ok = ok && store_query(&q, s, "SELECT count(*) FROM t", NULL, 0, &e) == ERR_OK && store_step(q, &e) &&
             store_col_int(q, 0) == kept && kept > 0;
        store_finish(q);
        if (!ok) fprintf(stderr, "%d rows kept: %s\n", kept, e.msg);
        store_close(s);
        s = open_ok(false); /* opening on a full disk */
        ok = ok && s;
        store_close(s);
        _exit(ok ? 0 : 1);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) SKIP("mounting needs root");
    CHECK_INT(WEXITSTATUS(status), 0);
}

TEST(blob_allocation_failures) {
    int fails = 0;
    put_bytes(sub("src"), 3000, 1);
    store *s = open_ok(false);
    CHECK(s);
    for (int n = 0; n < 10; n++) {
        err e = {0};
        uint8_t d[SHA256_LEN];
        mem_fail_after(n);
        err_code code = store_blob_import(s, sub("src"), d, NULL, NULL, NULL, &e);
        mem_fail_after(-1);
        if (code == ERR_OK)
            CHECK_OK(store_blob_remove(s, d, &e), e);
        else
            CHECK_INT(code, ERR_NOMEM);
        fails += code != ERR_OK;
        CHECK_INT(blobs(), 0);
    }
    CHECK(fails >= 1);
    store_close(s);
}

static void run(const char *name, void (*fn)(void)) {
    if (!test_tmpdir(dir)) abort();
    test_run(name, fn);
    test_rm(dir);
}
#undef RUN
#define RUN(name) run(#name, test_case_##name)

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(blob_import_and_remove);
    RUN(blob_sources_that_are_refused);
    RUN(blob_damage_is_found);
    RUN(blob_crash_leaves_a_temporary_that_opening_removes);
    RUN(blob_opening_leaves_running_imports);
    RUN(blob_file_size_limit);
    RUN(blob_full_disk);
    RUN(blob_allocation_failures);
    return test_end();
}
