/* Prefixes over a restart: the same answers with fewer computed positions; nothing of a prompt is readable in the file;
 * a file that was changed, cut off or made for another island or model is not used and stops nothing. */
#include "support.h"

#include "inference/kept.h"
#include "inference/scheduler.h"

#include <fcntl.h>
#include <sys/stat.h>

#define PROMPT 200

static model *m;
static bed b;
static int32_t prompt_of[PROMPT];
static kv_format kv_held; /* by the schedulers that follow */

static err_code begin(err *e) {
    err_code rc = engine_init(e);
    if (!rc) rc = bed_open(&b, NULL, e);
    if (!rc) rc = model_open(&m, b.file, e);
    for (int i = 0; i < PROMPT; i++) prompt_of[i] = 7 + i % 90;
    return rc;
}

static void end(void) {
    model_free(m);
    m = NULL;
    bed_close(&b);
}

/* One answer with a scheduler of its own. digest: of its logits. */
static err_code answer(const kept_file *kept, uint32_t *reused, uint8_t digest[SHA256_LEN], err *e) {
    scheduler_options o = {.threads = 1,
                           .max_sequences = 2,
                           .max_queue = 2,
                           .kv_bytes = 1 << 24,
                           .kv = kv_held,
                           .step_tokens = 64,
                           .share = true,
                           .kept = kept};
    scheduler *s;
    job *j = NULL;
    job_spec spec = {.prompt = prompt_of, .n_prompt = PROMPT, .n_choices = 1, .max_new = 9, .ignore_end = true};
    sampler_params_default(&spec.sampling);
    err_code rc = scheduler_new(&s, m, &o, e);
    if (!rc) rc = job_new(&j, s, &spec, e);
    if (!rc) {
        job_start(j);
        piece p;
        do job_next(j, &p, 1000);
        while (p.kind != PIECE_END);
        rc = job_result(j, e);
        job_choice jc;
        job_get_choice(j, 0, &jc);
        *reused = jc.reused;
        memcpy(digest, jc.logits_sha256, SHA256_LEN);
    }
    job_free(j);
    scheduler_free(s);
    return rc;
}

static void path_of(char *out, size_t cap, const kept_file *f) {
    char hex[SHA256_HEX_LEN + 1];
    hex_encode(hex, f->digest, SHA256_LEN);
    snprintf(out, cap, "%s/cache/%s.kept", island_dir(b.i), hex);
}

TEST(what_was_kept_is_found_after_a_restart) {
    err e = {0};
    CHECK_OK(begin(&e), e);
    kept_file f = {.i = b.i, .digest = {1, 2, 3}};
    uint8_t first[SHA256_LEN], again[SHA256_LEN];
    uint32_t reused = 99;
    char path[600];
    struct stat st;
    path_of(path, sizeof path, &f);
    CHECK_OK(answer(&f, &reused, first, &e), e);
    CHECK_INT(reused, 0);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    buf text = {.max = 1 << 26};
    CHECK_OK(file_read(&text, path, &e), e);
    int32_t some[4];
    memcpy(some, prompt_of + 8, sizeof some);
    CHECK(!memmem(text.ptr, text.len, some, sizeof some)); /* sealed: the prompt's tokens are not in there */
    buf_free(&text);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(answer(&f, &reused, again, &e), e);
        CHECK_INT(reused, 192);
        CHECK(memcmp(first, again, sizeof first) == 0);
    }
    end();
}

/* inference.kv was changed between two starts: the answer is that of the new one, computed whole. */
TEST(what_was_kept_in_another_format_is_not_used) {
    err e = {0};
    CHECK_OK(begin(&e), e);
    kept_file f = {.i = b.i, .digest = {3}};
    uint8_t digest[SHA256_LEN], want[KV_FORMATS][SHA256_LEN];
    uint32_t reused = 99;
    for (kv_held = 0; kv_held < KV_FORMATS; kv_held++) CHECK_OK(answer(NULL, &reused, want[kv_held], &e), e);
    CHECK(memcmp(want[KV_F16], want[KV_Q8], SHA256_LEN) != 0);
    static const kv_format starts[] = {KV_F16, KV_Q8, KV_Q8, KV_F16, KV_F16};
    for (int i = 0; i < 5; i++) {
        kv_held = starts[i];
        CHECK_OK(answer(&f, &reused, digest, &e), e);
        CHECK_INT(reused, i && starts[i] == starts[i - 1] ? 192 : 0);
        CHECK(memcmp(digest, want[kv_held], SHA256_LEN) == 0);
    }
    kv_held = KV_F16;
    end();
}

/* Every part of the file, changed or cut off. */
TEST(damaged_files_are_not_used) {
    err e = {0};
    CHECK_OK(begin(&e), e);
    kept_file f = {.i = b.i, .digest = {4}};
    uint8_t first[SHA256_LEN], again[SHA256_LEN];
    uint32_t reused = 99;
    char path[600];
    path_of(path, sizeof path, &f);
    CHECK_OK(answer(NULL, &reused, first, &e), e);
    for (int i = 0; i < 12; i++) {
        CHECK_OK(answer(&f, &reused, again, &e), e); /* leaves a file */
        struct stat st;
        CHECK(stat(path, &st) == 0);
        off_t at = i < 6 ? st.st_size * i / 6 : st.st_size * (i - 6) / 6;
        if (i < 6) {
            int fd = open(path, O_RDWR);
            unsigned char c = 0;
            CHECK(pread(fd, &c, 1, at) == 1);
            c ^= 0x10;
            CHECK(pwrite(fd, &c, 1, at) == 1);
            close(fd);
        } else {
            CHECK(truncate(path, at) == 0);
        }
        CHECK_OK(answer(&f, &reused, again, &e), e);
        CHECK(reused < 192); /* what was read before the damage may count: it is whole */
        CHECK(memcmp(first, again, sizeof first) == 0);
        unlink(path);
    }
    end();
}

TEST(files_of_another_model_or_island_are_not_used) {
    err e = {0};
    CHECK_OK(begin(&e), e);
    kept_file f = {.i = b.i, .digest = {5}}, other = {.i = b.i, .digest = {6}};
    uint8_t digest[SHA256_LEN];
    uint32_t reused = 99;
    char from[600], to[600];
    path_of(from, sizeof from, &f);
    path_of(to, sizeof to, &other);
    CHECK_OK(answer(&f, &reused, digest, &e), e);
    CHECK(rename(from, to) == 0);
    CHECK_OK(answer(&other, &reused, digest, &e), e);
    CHECK_INT(reused, 0);
    char aside[600];
    snprintf(aside, sizeof aside, "%s.kept", b.dir);
    CHECK(rename(to, aside) == 0);
    end();
    CHECK_OK(begin(&e), e);
    other.i = b.i;
    char dir[600];
    snprintf(dir, sizeof dir, "%s/cache", island_dir(b.i));
    CHECK_OK(file_make_dirs(dir, 0700, &e), e);
    path_of(to, sizeof to, &other);
    CHECK(rename(aside, to) == 0);
    CHECK_OK(answer(&other, &reused, digest, &e), e);
    CHECK_INT(reused, 0);
    end();
}

/* A folder that cannot be written: nothing is kept, nothing fails. */
TEST(where_nothing_can_be_written_nothing_is_kept) {
    err e = {0};
    CHECK_OK(begin(&e), e);
    kept_file f = {.i = b.i, .digest = {7}};
    uint8_t digest[SHA256_LEN];
    uint32_t reused = 99;
    char path[600], in_the_way[600];
    snprintf(in_the_way, sizeof in_the_way, "%s/cache", island_dir(b.i));
    CHECK_OK(file_write_atomic(in_the_way, "x", 1, 0600, &e), e);
    path_of(path, sizeof path, &f);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(answer(&f, &reused, digest, &e), e);
        CHECK_INT(reused, 0);
        CHECK(!file_exists(path));
    }
    end();
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    log_set_level(LOG_ERROR);
    RUN(what_was_kept_is_found_after_a_restart);
    RUN(what_was_kept_in_another_format_is_not_used);
    RUN(damaged_files_are_not_used);
    RUN(files_of_another_model_or_island_are_not_used);
    RUN(where_nothing_can_be_written_nothing_is_kept);
    return test_end();
}
