/* The state folder. What breaks these: an init that leaves rubbish, two writers at once, a reader that changes a file,
 * parts of two islands that open together, a change of configuration without a record. */
#include "harness.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "island/island.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
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

static island *open_ok(island_mode mode) {
    island *i = NULL;
    err e = {0};
    if (island_open(&i, sub("isl"), mode, &e) != ERR_OK) fprintf(stderr, "open: %s\n", e.msg);
    return i;
}
static bool init_ok(void) {
    err e = {0};
    if (island_init(sub("isl"), NULL, &e) == ERR_OK) return true;
    fprintf(stderr, "init: %s\n", e.msg);
    return false;
}

static int entries(const char *path) {
    DIR *d = opendir(path);
    int n = -2;
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

static void put_file(const char *path, const char *text, mode_t mode) {
    FILE *f = fopen(path, "wb");
    if (!f || fputs(text, f) < 0) abort();
    fclose(f);
    chmod(path, mode);
}

/* The last record of an event, parsed; NULL where there is none. *n counts them. */
static cJSON *last_record(island *i, const char *event, int *n) {
    cJSON *found = NULL;
    *n = 0;
    for (uint64_t seq = 0; seq < ledger_size(island_ledger(i)); seq++) {
        buf b = {.max = LEDGER_ENTRY_MAX};
        err e;
        cJSON *o = NULL;
        const char *is = NULL;
        if (ledger_read(island_ledger(i), seq, &b, &e) == ERR_OK &&
            json_parse(&o, b.ptr, b.len, "entry", &e) == ERR_OK && json_get_str(o, "event", &is, &e) == ERR_OK && is &&
            strcmp(is, event) == 0) {
            cJSON_Delete(found);
            found = o;
            o = NULL;
            ++*n;
        }
        cJSON_Delete(o);
        buf_free(&b);
    }
    return found;
}
static int records(island *i, const char *event) {
    int n;
    cJSON_Delete(last_record(i, event, &n));
    return n;
}

/* Names, sizes, modes, times and bytes of a folder's files, taken by another process (see store.h, invariant 3). */
static void folder_digest(const char *path, char out[256]) {
    char cmd[1200];
    snprintf(cmd, sizeof cmd,
             "cd '%s' && { find . -printf '%%p %%s %%m %%T@\\n'; find . -type f -print0 | xargs -0 -r sha256sum; } | "
             "sort | sha256sum",
             path);
    FILE *p = popen(cmd, "r");
    out[0] = 0;
    if (!p || !fgets(out, 256, p)) abort();
    pclose(p);
}

/* ---- init ------------------------------------------------------------------------------------------------ */

TEST(init_makes_an_island) {
    err e = {0};
    CHECK_OK(island_init(sub("isl//"), "example.org/one", &e), e);
    CHECK_INT(entries(dir), 1); /* nothing beside it */
    struct stat st;
    CHECK(stat(sub("isl"), &st) == 0);
    CHECK_INT(st.st_mode & 0777, 0700);
    static const char *const private_files[] = {"isl/island.yaml", "isl/keys/api.key", "isl/keys/ledger.key",
                                                "isl/keys/vault.key", "isl/store/polder.db"};
    for (int k = 0; k < 5; k++) {
        CHECK(stat(sub(private_files[k]), &st) == 0);
        CHECK_INT(st.st_mode & 0777, 0600);
    }
    island *i = open_ok(ISLAND_WRITE);
    CHECK(i);
    CHECK_STR(island_get_config(i)->island_name, "example.org/one");
    CHECK_STR(ledger_origin(island_ledger(i)), "example.org/one");
    CHECK_STR(island_dir(i), sub("isl"));
    int n;
    cJSON *r = last_record(i, "island.created", &n);
    CHECK_INT(n, 1);
    const char *name = NULL;
    CHECK_OK(json_get_str(r, "island", &name, &e), e);
    CHECK_STR(name, "example.org/one");
    CHECK(json_get(json_get(json_get(json_get(r, "config"), "values"), "server"), "listen"));
    cJSON_Delete(r);
    CHECK_INT(records(i, "config.changed"), 0);
    island_close(i);
    /* the folder of an island is never made again */
    CHECK_INT(island_init(sub("isl"), NULL, &e), ERR_EXISTS);
    CHECK_HAS(e.msg, "an island here already");
}

TEST(init_in_an_empty_folder) {
    err e = {0};
    CHECK(mkdir(sub("isl"), 0755) == 0);
    CHECK(init_ok());
    island *i = open_ok(ISLAND_WRITE);
    CHECK(i);
    island_close(i);
    /* the working directory */
    char was[4096];
    CHECK(getcwd(was, sizeof was) && mkdir(sub("here"), 0700) == 0 && chdir(sub("here")) == 0);
    err_code code = island_init(".", NULL, &e), opened = ERR_INTERNAL;
    if (code == ERR_OK) opened = island_open(&i, ".", ISLAND_WRITE, &e);
    island_close(i);
    CHECK(chdir(was) == 0);
    CHECK_OK(code, e);
    CHECK_OK(opened, e);
}

TEST(init_refusals_leave_nothing) {
    err e = {0};
    CHECK(mkdir(sub("full"), 0700) == 0);
    put_file(sub("full/precious"), "x", 0600);
    CHECK_INT(island_init(sub("full"), NULL, &e), ERR_EXISTS);
    CHECK_HAS(e.msg, "precious");
    CHECK_INT(entries(sub("full")), 1);
    CHECK_INT(island_init(sub("full/precious"), NULL, &e), ERR_EXISTS);
    CHECK_INT(island_init(sub("no/such/parent"), NULL, &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "make it first");
    CHECK_INT(island_init("", NULL, &e), ERR_USAGE);
    CHECK_INT(island_init(sub("isl"), "two words", &e), ERR_USAGE);
    CHECK_HAS(e.msg, "letters, digits");
    CHECK_INT(island_init(sub("isl"), "", &e), ERR_USAGE);
    CHECK_INT(entries(dir), 1);
}

TEST(init_allocation_failures) {
    CHECK(mkdir(sub("empty"), 0700) == 0);
    int fails = 0;
    for (int64_t n = 0; n < 240; n += n < 30 ? 1 : 17) {
        for (int in_place = 0; in_place < 2; in_place++) {
            err e = {0};
            const char *path = sub(in_place ? "empty" : "isl");
            mem_fail_after(n);
            err_code code = island_init(path, NULL, &e);
            mem_fail_after(-1);
            if (code == ERR_OK) {
                island *i;
                CHECK_OK(island_open(&i, path, ISLAND_WRITE, &e), e);
                island_close(i);
                test_rm(path);
                if (in_place) CHECK(mkdir(path, 0700) == 0);
                continue;
            }
            fails++;
            CHECK(e.msg[0]);
            CHECK_INT(entries(dir), 1);
            CHECK_INT(entries(sub("empty")), 0);
        }
    }
    CHECK(fails > 20);
}

/* A disk that is full at some point of init, by a limit on the size of files. */
static bool init_on_full_disk(long limit) {
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit was, lim;
    getrlimit(RLIMIT_FSIZE, &was);
    lim = was;
    lim.rlim_cur = (rlim_t)limit;
    setrlimit(RLIMIT_FSIZE, &lim);
    err e = {0};
    err_code code = island_init(sub("isl"), NULL, &e);
    setrlimit(RLIMIT_FSIZE, &was);
    if (code == ERR_OK) return true;
    if (!e.msg[0] || entries(dir) != 0) {
        fprintf(stderr, "limit %ld: %d entries left: %s\n", limit, entries(dir), e.msg);
        _exit(2);
    }
    return false;
}

TEST(init_on_a_full_disk) {
    static const long limits[] = {0, 10, 100, 2000, 8000};
    for (size_t k = 0; k < sizeof limits / sizeof limits[0]; k++) {
        fflush(NULL);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) _exit(init_on_full_disk(limits[k]) ? 1 : 0);
        int status;
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK_INT(status, 0);
    }
    CHECK(init_ok());
}

/* ---- open ------------------------------------------------------------------------------------------------ */

TEST(open_where_there_is_no_island) {
    island *i;
    err e = {0};
    for (int mode = ISLAND_WRITE; mode <= ISLAND_READ; mode++) {
        CHECK_INT(island_open(&i, sub("nothing"), (island_mode)mode, &e), ERR_NOT_FOUND);
        CHECK(i == NULL);
        CHECK_HAS(e.msg, "make one with: polder init");
        CHECK_INT(island_open(&i, dir, (island_mode)mode, &e), ERR_NOT_FOUND);
    }
    CHECK_INT(entries(dir), 0); /* no lock file in a folder that is not ours */
}

static err_code open_in_child(island_mode mode) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        island *i;
        err e = {0};
        err_code code = island_open(&i, sub("isl"), mode, &e);
        if (code == ERR_BUSY && !strstr(e.msg, "uses this island; stop it")) code = ERR_INTERNAL;
        island_close(i);
        _exit((int)code);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return ERR_INTERNAL;
    return (err_code)WEXITSTATUS(status);
}

TEST(open_locks_out_a_second_writer) {
    CHECK(init_ok());
    int ready[2], go[2], status;
    char c;
    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) { /* the first writer, a process of its own */
        close(go[1]);
        island *i = open_ok(ISLAND_WRITE);
        if (write(ready[1], i ? "y" : "n", 1) != 1 || read(go[0], &c, 1) < 0) _exit(1);
        island_close(i);
        _exit(i ? 0 : 1);
    }
    close(go[0]);
    CHECK(read(ready[0], &c, 1) == 1 && c == 'y');
    CHECK_INT(open_in_child(ISLAND_WRITE), ERR_BUSY);
    char before[256], after[256];
    folder_digest(dir, before);
    CHECK_INT(open_in_child(ISLAND_READ), ERR_OK);
    folder_digest(dir, after);
    CHECK_STR(after, before);
    close(go[1]);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK_INT(open_in_child(ISLAND_WRITE), ERR_OK);
    folder_digest(dir, before);
    CHECK_INT(open_in_child(ISLAND_READ), ERR_OK);
    folder_digest(dir, after);
    CHECK_STR(after, before);
}

TEST(open_records_changed_configuration) {
    CHECK(init_ok());
    put_file(sub("isl/island.yaml"), "server:\n  max_body_bytes: 5000\n  listen: 127.0.0.1:9\n", 0600);
    island *i = open_ok(ISLAND_READ); /* reading records nothing */
    CHECK(i);
    CHECK_INT(island_get_config(i)->server_max_body_bytes, 5000);
    CHECK_INT(records(i, "config.changed"), 0);
    island_close(i);
    for (int round = 0; round < 2; round++) { /* once, not at every opening */
        i = open_ok(ISLAND_WRITE);
        CHECK(i);
        CHECK_INT(records(i, "config.changed"), 1);
        if (round == 0) {
            int n;
            err e = {0};
            cJSON *r = last_record(i, "config.changed", &n);
            const cJSON *changes = json_get(r, "changes"), *c = json_get(changes, "server.max_body_bytes");
            int64_t old = 0, new = 0;
            CHECK_INT(cJSON_GetArraySize(changes), 2);
            CHECK_OK(json_get_int(c, "old", 0, INT32_MAX, &old, &e), e);
            CHECK_OK(json_get_int(c, "new", 0, INT32_MAX, &new, &e), e);
            CHECK(old == 4194304 && new == 5000);
            const char *text = NULL, *sha = NULL;
            CHECK_OK(json_get_str(json_get(changes, "server.listen"), "new", &text, &e), e);
            CHECK_STR(text, "127.0.0.1:9");
            CHECK_OK(json_get_str(json_get(r, "config"), "sha256", &sha, &e), e);
            buf json = {.max = 65536};
            config_write_json(island_get_config(i), &json);
            uint8_t digest[SHA256_LEN];
            char hex[SHA256_HEX_LEN + 1];
            sha256_of(digest, json.ptr, json.len);
            hex_encode(hex, digest, SHA256_LEN);
            CHECK_STR(sha, hex);
            buf_free(&json);
            cJSON_Delete(r);
        }
        island_close(i);
    }
}

TEST(open_refuses_bad_configuration) {
    CHECK(init_ok());
    char before[256], after[256];
    put_file(sub("isl/island.yaml"), "server:\n  lisen: x\n", 0600);
    folder_digest(sub("isl/ledger"), before);
    island *i;
    err e = {0};
    CHECK_INT(island_open(&i, sub("isl"), ISLAND_WRITE, &e), ERR_USAGE);
    CHECK(i == NULL);
    CHECK_HAS(e.msg, "isl/island.yaml:2:3: unknown key server.lisen");
    folder_digest(sub("isl/ledger"), after);
    CHECK_STR(after, before);
}

static bool move(const char *from, const char *to) {
    return rename(from, to) == 0;
}

TEST(open_refuses_parts_of_another_island) {
    err e = {0};
    island *i;
    CHECK(init_ok());
    CHECK_OK(island_init(sub("other"), NULL, &e), e);
    for (int mode = ISLAND_WRITE; mode <= ISLAND_READ; mode++) {
        /* another name */
        put_file(sub("isl/island.yaml"), "island: {name: other.example/x}\n", 0600);
        CHECK_INT(island_open(&i, sub("isl"), (island_mode)mode, &e), ERR_INVALID);
        CHECK_HAS(e.msg, "state folder of another island");
        CHECK_HAS(e.msg, "other.example/x");
        put_file(sub("isl/island.yaml"), "", 0600);
        /* the store of an island with the same name */
        CHECK(move(sub("isl/store"), sub("mine")) && move(sub("other/store"), sub("isl/store")));
        CHECK_INT(island_open(&i, sub("isl"), (island_mode)mode, &e), ERR_INVALID);
        CHECK_HAS(e.msg, "store/ belongs to another island");
        CHECK(move(sub("isl/store"), sub("other/store")));
        /* none */
        CHECK_INT(island_open(&i, sub("isl"), (island_mode)mode, &e), ERR_CORRUPT);
        CHECK_HAS(e.msg, "polder.db: is missing");
        CHECK(!file_exists(sub("isl/store")));
        CHECK(move(sub("mine"), sub("isl/store")));
        CHECK_OK(island_open(&i, sub("isl"), (island_mode)mode, &e), e);
        island_close(i);
    }
}

TEST(open_refuses_key_files_that_others_read) {
    static const char *const keys[] = {"isl/keys/api.key", "isl/keys/ledger.key", "isl/keys/vault.key"};
    static const mode_t modes[] = {0640, 0604, 0660};
    CHECK(init_ok());
    island *i;
    err e = {0};
    for (int k = 0; k < 3; k++) {
        CHECK(chmod(sub(keys[k]), modes[k]) == 0);
        CHECK_INT(island_open(&i, sub("isl"), ISLAND_WRITE, &e), ERR_DENIED);
        CHECK_HAS(e.msg, "chmod 600 ");
        CHECK_HAS(e.msg, keys[k]);
        CHECK(chmod(sub(keys[k]), 0600) == 0);
    }
    CHECK(unlink(sub("isl/keys/api.key")) == 0);
    CHECK_INT(island_open(&i, sub("isl"), ISLAND_WRITE, &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "api.key: is missing");
    put_file(sub("isl/keys/api.key"), "short\n", 0600);
    CHECK_INT(island_open(&i, sub("isl"), ISLAND_WRITE, &e), ERR_CORRUPT);
}

TEST(open_refuses_a_damaged_database) {
    CHECK(init_ok());
    char junk[5000];
    memset(junk, 'j', sizeof junk - 1);
    junk[sizeof junk - 1] = 0;
    put_file(sub("isl/store/polder.db"), junk, 0600);
    island *i;
    err e = {0};
    CHECK_INT(island_open(&i, sub("isl"), ISLAND_WRITE, &e), ERR_CORRUPT);
    CHECK_HAS(e.msg, "polder.db");
    CHECK_HAS(e.msg, "backup");
}

TEST(open_allocation_failures) {
    CHECK(init_ok());
    int fails = 0, changes = 0;
    for (int64_t n = 0; n < 400; n += n < 60 ? 1 : 13) {
        err e = {0};
        island *i;
        char yaml[64];
        snprintf(yaml, sizeof yaml, "inference: {threads: %d}\n", (int)n % 1000 + 1); /* so that it records */
        put_file(sub("isl/island.yaml"), yaml, 0600);
        mem_fail_after(n);
        err_code code = island_open(&i, sub("isl"), n % 5 == 4 ? ISLAND_READ : ISLAND_WRITE, &e);
        mem_fail_after(-1);
        if (code == ERR_OK) {
            island_close(i);
            continue;
        }
        fails++;
        CHECK(i == NULL);
        CHECK(e.msg[0]);
    }
    CHECK(fails > 20);
    put_file(sub("isl/island.yaml"), "inference: {threads: 1024}\n", 0600);
    island *i = open_ok(ISLAND_WRITE);
    CHECK(i);
    cJSON *r = last_record(i, "config.changed", &changes);
    CHECK(changes > 10);
    int64_t v = 0;
    err e = {0};
    CHECK_OK(json_get_int(json_get(json_get(r, "changes"), "inference.threads"), "new", 0, 2000, &v, &e), e);
    CHECK_INT(v, 1024);
    cJSON_Delete(r);
    island_close(i);
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
    RUN(init_makes_an_island);
    RUN(init_in_an_empty_folder);
    RUN(init_refusals_leave_nothing);
    RUN(init_allocation_failures);
    RUN(init_on_a_full_disk);
    RUN(open_where_there_is_no_island);
    RUN(open_locks_out_a_second_writer);
    RUN(open_records_changed_configuration);
    RUN(open_refuses_bad_configuration);
    RUN(open_refuses_parts_of_another_island);
    RUN(open_refuses_key_files_that_others_read);
    RUN(open_refuses_a_damaged_database);
    RUN(open_allocation_failures);
    return test_end();
}
