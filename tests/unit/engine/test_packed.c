/* Packed files: a second start gives the same bits, whatever became of the file in between, and while its pages are
 * being moved. Breaks when a byte of it is used that has not its sum, when a file of other bytes is taken for this
 * one's, or when something wrong with it stops a model from opening. */
#include "harness.h"

#include "base/mem.h"
#include "base/sys.h"
#include "engine/models/models.h"
#include "engine/packfile.h"
#include "engine/region.h"
#include "tiny_model.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const tiny small = {.n_layer = 2, .d = 64, .n_head = 4, .n_kv = 2, .head = 16, .ff = 96, .n_ctx = 64};
/* Weights of 20 MiB: threads pack and check them, and they are moved slice by slice. */
static const tiny large = {
    .n_layer = 3, .d = 512, .n_head = 8, .n_kv = 4, .head = 64, .ff = 1024, .n_ctx = 64, .tied = true};

#define N 9
static const int32_t tokens[N] = {1, 70, 101, 260, 33, 12, 265, 99, 3};

static char dir[] = "/tmp/polder-packed-XXXXXX", source[128], cache[128];
static uint8_t digest[SHA256_LEN];

static bool put_file(const char *path, const void *p, size_t n) {
    err e = {0};
    return file_write_atomic(path, p, n, 0600, &e) == ERR_OK;
}

/* The model's file, its digest, and no packed file. */
static bool make_source(const tiny *t, uint64_t seed) {
    buf b = {0};
    tiny_make(&b, t, seed);
    bool ok = put_file(source, b.ptr, b.len);
    sha256_of(digest, b.ptr, b.len);
    buf_free(&b);
    unlink(cache);
    return ok;
}

static model *open_packed(const uint8_t *sha, model_memory *mem, err *e) {
    model *m = NULL;
    model_options o = {.cache_path = cache, .source_sha256 = sha, .n_threads = 2};
    if (model_open_with(&m, source, &o, e) != ERR_OK) return NULL;
    model_settle(m);
    if (mem) model_get_memory(m, mem);
    return m;
}

/* Logits of all positions, and the tokens of a text behind them: the caller's. */
static float *answer(const model *m) {
    uint32_t v = model_get_facts(m)->n_vocab;
    session *s = NULL;
    err e = {0};
    int seq;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    float *out = mem_array((size_t)N * v + 64, sizeof *out);
    chunk c = {.tokens = tokens, .n = N, .n_logits = N};
    bool ok =
        out && session_new(&s, m, &(session_options){.n_threads = 1, .n_seq_max = 1}, &e) == ERR_OK &&
        session_seq_new(s, &seq, &e) == ERR_OK && session_step(s, &c, 1, &e) == ERR_OK &&
        model_tokenize(m, "abc \xc3\xa9</s>", 10, TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, 32, &ids, &n_ids, &e) == ERR_OK;
    if (ok) {
        memcpy(out, c.logits, (size_t)N * v * sizeof *out);
        for (size_t i = 0; i < n_ids; i++) out[(size_t)N * v + i] = (float)ids[i];
    } else {
        fprintf(stderr, "%s\n", e.msg);
        mem_free(out);
        out = NULL;
    }
    mem_free(ids);
    session_free(s);
    return out;
}

static bool answers(const model *m, const float *want) {
    float *have = m ? answer(m) : NULL;
    bool same = have && memcmp(have, want, ((size_t)N * model_get_facts(m)->n_vocab + 64) * sizeof *have) == 0;
    mem_free(have);
    return same;
}

static float *plain_answer(void) {
    model *m = NULL;
    err e = {0};
    float *out = model_open(&m, source, &e) == ERR_OK ? answer(m) : NULL;
    model_free(m);
    return out;
}

static bool flip(const char *path, uint64_t at, uint8_t mask) {
    uint8_t b = 0;
    struct stat st;
    struct timespec keep[2] = {{0}};
    int fd = open(path, O_RDWR);
    bool ok = fd >= 0 && fstat(fd, &st) == 0 && pread(fd, &b, 1, (off_t)at) == 1;
    b ^= mask;
    ok = ok && pwrite(fd, &b, 1, (off_t)at) == 1;
    keep[0] = st.st_atim;
    keep[1] = st.st_mtim;
    if (fd >= 0) futimens(fd, keep);
    if (fd >= 0) close(fd);
    return ok;
}

static void later_starts_are_the_same(const tiny *t) {
    model_memory mem;
    err e = {0};
    CHECK(make_source(t, 5));
    float *want = plain_answer();
    CHECK(want);
    for (int i = 0; i < 3; i++) {
        model *m = open_packed(i == 1 ? NULL : digest, &mem, &e);
        if (!m) FAIL("start %d: %s", i, e.msg);
        CHECK(mem.from_cache == (i > 0) && mem.checked && mem.mended == 0);
        CHECK(answers(m, want));
        CHECK(mem.mapped_bytes == 0 || i > 0);
        model_free(m);
    }
    mem_free(want);
}

TEST(later_starts_are_the_same_in_floats) {
    later_starts_are_the_same(&small);
}
TEST(later_starts_are_the_same_in_four_bits) {
    tiny t = small;
    t.type = 2;
    t.biases = true;
    later_starts_are_the_same(&t);
}
TEST(later_starts_are_the_same_in_eight_bits) {
    tiny t = small;
    t.type = 8;
    later_starts_are_the_same(&t);
}
TEST(later_starts_are_the_same_moved) {
    later_starts_are_the_same(&large);
}

typedef struct asker {
    const model *m;
    const float *want;
    bool ok;
    int rounds;
} asker;

static void *ask(void *arg) {
    asker *a = arg;
    model_memory mem = {0};
    do {
        model_get_memory(a->m, &mem);
        a->ok = answers(a->m, a->want);
        a->rounds++;
    } while (a->ok && mem.mapped_bytes && a->rounds < 200);
    return NULL;
}

/* Two threads answer from the moment on that the model is open, while its pages are checked and moved. */
TEST(answers_while_pages_move) {
    err e = {0};
    CHECK(make_source(&large, 6));
    float *want = plain_answer();
    model_free(open_packed(digest, NULL, &e));
    for (int i = 0; i < 5; i++) {
        model *m = NULL;
        pthread_t t[2];
        model_options o = {.cache_path = cache, .source_sha256 = digest};
        CHECK_OK(model_open_with(&m, source, &o, &e), e);
        asker a[2] = {{m, want, false, 0}, {m, want, false, 0}};
        for (int k = 0; k < 2; k++) CHECK(pthread_create(&t[k], NULL, ask, &a[k]) == 0);
        for (int k = 0; k < 2; k++) pthread_join(t[k], NULL);
        CHECK(a[0].ok && a[1].ok);
        model_free(m);
    }
    mem_free(want);
}

/* A bit anywhere in the file: what opens is right, and where the bit mattered the file is made anew. */
TEST(a_flipped_bit_anywhere) {
    model_memory mem;
    err e = {0};
    tiny t = small;
    t.type = 8;
    CHECK(make_source(&t, 7));
    float *want = plain_answer();
    model_free(open_packed(digest, NULL, &e));
    packfile *f = NULL;
    CHECK_OK(packfile_open(&f, cache, &e), e);
    uint64_t data = f->c.data_at, len = f->c.data_len, ends[] = {0, 8, 60, 200, data, data + len - 1};
    packfile_close(f);
    int unused = 0, mended = 0;
    for (uint64_t i = 0; i < 120; i++) {
        uint64_t at = i < 6    ? ends[i]
                      : i < 12 ? i * 47 % 400
                      : i < 70 ? 4096 + i * 7919 * 131 % 1200000
                               : data + i * 104729 % len;
        CHECK(flip(cache, at, (uint8_t)(1u << i % 8)));
        model *m = open_packed(digest, &mem, &e);
        if (!m) FAIL("bit at %llu: %s", (unsigned long long)at, e.msg);
        if (!answers(m, want)) FAIL("a bit at %llu changed an answer", (unsigned long long)at);
        if (at >= data && at < data + len && mem.mended != 1)
            FAIL("a bit at %llu was not found", (unsigned long long)at);
        unused += !mem.from_cache;
        mended += (int)mem.mended;
        model_free(m);
        m = open_packed(digest, &mem, &e); /* and it is whole again, or the bit lies where nothing is */
        CHECK(m && mem.from_cache && mem.mended == 0 && mem.checked);
        model_free(m);
        if (at >= 4096 && at < data && i % 10 == 0) unlink(cache), model_free(open_packed(digest, NULL, &e));
    }
    printf("     %d files passed over, %d mended\n", unused, mended);
    CHECK(unused > 20 && mended > 40);
    mem_free(want);
}

TEST(torn_foreign_and_other_files) {
    model_memory mem;
    err e = {0};
    CHECK(make_source(&small, 8));
    float *want = plain_answer();
    model_free(open_packed(digest, NULL, &e));
    struct stat st;
    CHECK(stat(cache, &st) == 0);
    for (int i = 0; i < 12; i++) {
        if (i < 8)
            CHECK(truncate(cache, i == 0 ? 0 : st.st_size * i / 8 - 1) == 0);
        else if (i == 8)
            CHECK(put_file(cache, "GGUF, not weights", 17));
        else if (i == 9)
            CHECK(unlink(cache) == 0 && symlink("/dev/zero", cache) == 0);
        else if (i == 10)
            CHECK(unlink(cache) == 0 && mkfifo(cache, 0600) == 0);
        else
            CHECK(flip(cache, 8, 3)); /* another version */
        model *m = open_packed(digest, &mem, &e);
        if (!m) FAIL("case %d: %s", i, e.msg);
        CHECK(!mem.from_cache && answers(m, want));
        model_free(m);
        m = open_packed(digest, &mem, &e);
        if (!m || !mem.from_cache) FAIL("case %d was not made anew", i);
        model_free(m);
    }
    mem_free(want);
}

TEST(a_file_of_another_source) {
    model_memory mem;
    err e = {0};
    CHECK(make_source(&small, 9));
    model_free(open_packed(digest, NULL, &e));
    char kept[160];
    snprintf(kept, sizeof kept, "%s.kept", cache);
    CHECK(rename(cache, kept) == 0);
    CHECK(make_source(&small, 10)); /* the same shapes and size, other weights */
    float *want = plain_answer();
    for (int i = 0; i < 2; i++) {
        unlink(cache);
        CHECK(link(kept, cache) == 0);
        model *m = open_packed(i ? NULL : digest, &mem, &e);
        CHECK(m && !mem.from_cache && answers(m, want));
        model_free(m);
    }
    unlink(kept);
    mem_free(want);
}

/* The source changes: one bit of a weight, with the packed file in place. Touched without a change it is hashed, once.
 */
TEST(the_source_is_what_its_digest_says) {
    model_memory mem;
    err e = {0};
    CHECK(make_source(&small, 11));
    model_free(open_packed(digest, NULL, &e));
    struct stat st;
    CHECK(stat(source, &st) == 0);
    for (int i = 0; i < 2; i++) { /* the second time its times are known */
        CHECK(i || utimensat(AT_FDCWD, source, NULL, 0) == 0);
        model *m = open_packed(digest, &mem, &e);
        CHECK(m && mem.from_cache);
        model_free(m);
    }
    CHECK(flip(source, (uint64_t)st.st_size - 5, 1));
    CHECK(!open_packed(digest, NULL, &e));
    CHECK(e.code == ERR_CORRUPT);
    CHECK_HAS(e.msg, "its bytes hash to");
    unlink(cache);
    CHECK(!open_packed(digest, NULL, &e) && e.code == ERR_CORRUPT);
    CHECK(!file_exists(cache));
    model *m = NULL;
    model_options o = {.source_sha256 = digest, .verify = true};
    CHECK(model_open_with(&m, source, &o, &e) == ERR_CORRUPT && !m);
}

/* The packed file and its sums are good, the source is not: nothing mends it. */
TEST(nothing_to_mend_from) {
    err e = {0};
    CHECK(make_source(&small, 12));
    model_free(open_packed(digest, NULL, &e));
    packfile *f = NULL;
    CHECK_OK(packfile_open(&f, cache, &e), e);
    packfile_source was = f->c.source, now = was;
    CHECK(flip(cache, f->c.data_at + 100, 4));
    struct stat st;
    CHECK(stat(source, &st) == 0 && flip(source, (uint64_t)st.st_size - 5, 1) && stat(source, &st) == 0);
    now.mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec; /* as if nobody had touched it */
    now.ctime_ns = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
    CHECK_OK(packfile_rebind(f, cache, &now, &e), e);
    packfile_close(f);
    model *m = NULL;
    model_options o = {.cache_path = cache, .source_sha256 = digest};
    CHECK_OK(model_open_with(&m, source, &o, &e), e);
    model_settle(m);
    session *s = NULL;
    int seq;
    chunk c = {.tokens = tokens, .n = N, .n_logits = 1};
    CHECK_OK(session_new(&s, m, &(session_options){.n_threads = 1, .n_seq_max = 1}, &e), e);
    CHECK_OK(session_seq_new(s, &seq, &e), e);
    CHECK(session_step(s, &c, 1, &e) == ERR_CORRUPT);
    CHECK_HAS(e.msg, "hash to");
    session_free(s);
    model_free(m);
}

static int count_name(void *ctx, const char *name) {
    *(int *)ctx += name[0] != '.';
    return 0;
}

TEST(full_disk_and_no_folder) {
    model_memory mem;
    err e = {0};
    CHECK(make_source(&small, 13));
    float *want = plain_answer();
    struct rlimit was, low = {65536, 65536};
    CHECK(getrlimit(RLIMIT_FSIZE, &was) == 0);
    low.rlim_max = was.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &low) == 0);
    model *m = open_packed(digest, &mem, &e);
    setrlimit(RLIMIT_FSIZE, &was);
    CHECK(m && !file_exists(cache) && answers(m, want));
    model_free(m);
    char kept[sizeof cache];
    memcpy(kept, cache, sizeof kept);
    snprintf(cache, sizeof cache, "%s/no/such/folder", dir);
    m = open_packed(digest, &mem, &e);
    memcpy(cache, kept, sizeof kept);
    CHECK(m && answers(m, want));
    model_free(m);
    int n = 0; /* nothing half-made is left: the source alone */
    vfs_posix.list(&vfs_posix, dir, count_name, &n);
    CHECK_INT(n, 1);
    mem_free(want);
}

/* What a writer that died has left goes with the next one; two at once do not disturb each other. */
TEST(two_at_once) {
    model_memory mem;
    err e = {0};
    char left[160];
    CHECK(make_source(&large, 14));
    float *want = plain_answer();
    snprintf(left, sizeof left, "%s.tmp-0123456789abcdef", cache);
    CHECK(put_file(left, "x", 1));
    pid_t child[2];
    for (int i = 0; i < 2; i++) {
        child[i] = fork();
        if (child[i] == 0) {
            model *m = open_packed(digest, NULL, &e);
            bool same = m && answers(m, want);
            model_free(m);
            _exit(same ? 0 : 1);
        }
    }
    for (int i = 0; i < 2; i++) {
        int status = -1;
        CHECK(waitpid(child[i], &status, 0) == child[i] && status == 0);
    }
    CHECK(!file_exists(left));
    model *m = open_packed(digest, &mem, &e);
    CHECK(m && mem.from_cache && mem.mended == 0 && answers(m, want));
    model_free(m);
    mem_free(want);
}

/* A model that goes while its thread is at work: nothing is left of it. */
TEST(closing_early) {
    err e = {0};
    CHECK(make_source(&large, 15));
    for (int i = 0; i < 30; i++) {
        model *m = NULL;
        model_options o = {.cache_path = cache, .source_sha256 = digest};
        CHECK_OK(model_open_with(&m, source, &o, &e), e);
        if (i % 3 == 1) sleep_ms(i);
        model_free(m);
        if (i == 10) unlink(cache);
    }
}

TEST(failing_allocations) {
    err e = {0};
    CHECK(make_source(&small, 16));
    float *want = plain_answer();
    int failures = 0, tries = 0;
    for (int second = 0; second < 2; second++) {
        if (second) model_free(open_packed(digest, NULL, &e));
        int64_t before = mem_count();
        model_free(open_packed(digest, NULL, &e));
        int64_t total = mem_count() - before;
        for (int64_t n = 0; n < total; n++, tries++) {
            if (!second) unlink(cache);
            mem_fail_after(n);
            model *m = open_packed(digest, NULL, &e);
            mem_fail_after(-1);
            if (!m && e.code != ERR_NOMEM) FAIL("allocation %d: %s", (int)n, e.msg);
            failures += !m;
            if (m && !answers(m, want)) FAIL("allocation %d: opened in part", (int)n);
            model_free(m);
        }
    }
    printf("     %d of %d failed allocations stop the opening\n", failures, tries);
    CHECK(failures > 40);
    mem_free(want);
}

TEST(sums_find_every_bit) {
    static uint8_t p[4096 + 13];
    for (size_t i = 0; i < sizeof p; i++) p[i] = (uint8_t)(i * 31 + i / 256);
    for (size_t n = 0; n <= sizeof p; n += n < 130 ? 1 : 977) {
        uint64_t want = packfile_sum(p, n);
        CHECK(n == 0 || packfile_sum(p, n - 1) != want);
        for (size_t bit = 0; bit < 8 * n; bit += n < 130 ? 1 : 7) {
            p[bit / 8] ^= (uint8_t)(1u << bit % 8);
            bool found = packfile_sum(p, n) != want;
            p[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (!found) FAIL("bit %zu of %zu bytes", bit, n);
        }
    }
}

TEST(regions_change_their_pages) {
    err e = {0};
    region r;
    CHECK_OK(region_new(&r, 3 * REGION_HUGE + 5, &e), e);
    CHECK(r.len == 4 * REGION_HUGE && (uintptr_t)r.base % REGION_HUGE == 0);
    memset(r.base, 1, r.len);
    region_seal(&r);
    uint8_t *s = region_slice(REGION_HUGE);
    CHECK(s);
    memset(s, 2, REGION_HUGE);
    CHECK(region_put(&r, REGION_HUGE, s, REGION_HUGE));
    CHECK(r.base[REGION_HUGE - 1] == 1 && r.base[REGION_HUGE] == 2 && r.base[2 * REGION_HUGE - 1] == 2 &&
          r.base[2 * REGION_HUGE] == 1);
    region_free(&r);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    err e = {0};
    if (engine_init(&e) || !mkdtemp(dir)) return 1;
    log_set_level(LOG_ERROR + 1);
    snprintf(source, sizeof source, "%s/m.gguf", dir);
    snprintf(cache, sizeof cache, "%s/m.packed", dir);
    RUN(sums_find_every_bit);
    RUN(regions_change_their_pages);
    RUN(later_starts_are_the_same_in_floats);
    RUN(later_starts_are_the_same_in_four_bits);
    RUN(later_starts_are_the_same_in_eight_bits);
    RUN(later_starts_are_the_same_moved);
    RUN(answers_while_pages_move);
    RUN(a_flipped_bit_anywhere);
    RUN(torn_foreign_and_other_files);
    RUN(a_file_of_another_source);
    RUN(the_source_is_what_its_digest_says);
    RUN(nothing_to_mend_from);
    RUN(full_disk_and_no_folder);
    RUN(two_at_once);
    RUN(closing_early);
    RUN(failing_allocations);
    unlink(source);
    unlink(cache);
    rmdir(dir);
    return test_end();
}
