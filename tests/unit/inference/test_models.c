/* Model names, artifacts and their records. */
#include "support.h"

static bed b;

static cJSON *last_record(void) {
    return bed_record(&b, ledger_size(island_ledger(b.i)) - 1);
}
static const char *field(const cJSON *o, const char *key) {
    const cJSON *v = json_get(o, key);
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

/* Breaks where an import is not recorded, or tells something else than the file. */
TEST(models_add_show_list) {
    err e = {0};
    cJSON *out = NULL, *shown = NULL, *list = NULL;
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(models_list(b.i, &list, &e), e);
    CHECK_INT(cJSON_GetArraySize(json_get(list, "models")), 0);
    cJSON_Delete(list);
    CHECK_OK(models_add(b.i, NULL, b.file, "org/tiny:1.0", NULL, NULL, &out, &e), e);
    buf file = {.max = 1 << 25};
    uint8_t digest[SHA256_LEN];
    char want[8 + SHA256_HEX_LEN] = "sha256:";
    CHECK_OK(file_read(&file, b.file, &e), e);
    sha256_of(digest, file.ptr, file.len);
    hex_encode(want + 7, digest, SHA256_LEN);
    CHECK_STR(field(out, "digest"), want);
    CHECK_STR(field(out, "arch"), "llama");
    CHECK_INT(json_get(out, "context")->valuedouble, TINY_CONTEXT);
    CHECK_INT(json_get(out, "bytes")->valuedouble, file.len);
    cJSON *r = last_record();
    CHECK(record_is(r, "model.imported"));
    CHECK_STR(field(r, "artifact"), want);
    CHECK_STR(field(r, "model"), "org/tiny:1.0");
    cJSON_Delete(r);
    CHECK_OK(models_show(b.i, "org/tiny:1.0", &shown, &e), e);
    CHECK(cJSON_Compare(out, shown, true));
    CHECK_OK(models_list(b.i, &list, &e), e);
    CHECK_INT(cJSON_GetArraySize(json_get(list, "models")), 1);
    char path[4096];
    uint8_t found[SHA256_LEN];
    CHECK_OK(models_resolve(b.i, "org/tiny:1.0", path, sizeof path, found, &e), e);
    CHECK(memcmp(found, digest, SHA256_LEN) == 0);
    CHECK(access(path, R_OK) == 0);
    cJSON_Delete(list);
    cJSON_Delete(out);
    cJSON_Delete(shown);
    buf_free(&file);
}

/* Breaks where a second name copies or re-records the artifact, or where removing one name takes it from the other. */
TEST(models_share_an_artifact) {
    err e = {0};
    char path[4096];
    uint8_t digest[SHA256_LEN];
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(bed_add(&b, b.file, "one", &e), e);
    uint64_t size = ledger_size(island_ledger(b.i));
    CHECK_OK(bed_add(&b, b.file, "one", &e), e); /* again: nothing changes */
    CHECK_INT(ledger_size(island_ledger(b.i)), size);
    CHECK_OK(bed_add(&b, b.file, "two", &e), e);
    cJSON *r = last_record();
    CHECK(record_is(r, "model.named"));
    cJSON_Delete(r);
    CHECK_OK(models_remove(b.i, NULL, "one", &e), e);
    CHECK_INT(models_resolve(b.i, "one", path, sizeof path, digest, &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "there are: two");
    CHECK_OK(models_resolve(b.i, "two", path, sizeof path, digest, &e), e);
    r = last_record();
    CHECK(record_is(r, "model.removed"));
    CHECK(json_get(r, "artifact_removed") == NULL);
    cJSON_Delete(r);
    CHECK_OK(models_remove(b.i, NULL, "two", &e), e);
    r = last_record();
    CHECK(json_get(r, "artifact_removed") != NULL);
    cJSON_Delete(r);
    CHECK(access(path, R_OK) != 0);
    CHECK_INT(models_remove(b.i, NULL, "two", &e), ERR_NOT_FOUND);
    CHECK_OK(bed_add(&b, b.file, "two", &e), e); /* and comes back */
}

/* Breaks where a name can be moved silently, or where the refused file stays in the store. */
TEST(models_names_are_not_moved) {
    err e = {0};
    char other[340], cmd[900];
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(bed_add(&b, b.file, "name", &e), e);
    snprintf(other, sizeof other, "%s/other.gguf", b.dir);
    CHECK(tiny_write(other, false, true, NULL, 9));
    uint64_t size = ledger_size(island_ledger(b.i));
    CHECK_INT(bed_add(&b, other, "name", &e), ERR_EXISTS);
    CHECK_HAS(e.msg, "taken by another artifact");
    CHECK_INT(ledger_size(island_ledger(b.i)), size);
    snprintf(cmd, sizeof cmd, "test $(find %s/island -path '*sha256*' -type f | wc -l) = 1", b.dir);
    CHECK_INT(system(cmd), 0);
}

TEST(models_bad_names_and_files) {
    static const char *const bad[] = {
        "",   ".x",  "a b",      "-a",
        "/a", "a\n", "\xc3\xa4", "a12345678901234567890123456789012345678901234567890123456789012345"};
    err e = {0};
    char junk[340];
    CHECK_OK(bed_open(&b, NULL, &e), e);
    uint64_t size = ledger_size(island_ledger(b.i));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK_INT(bed_add(&b, b.file, bad[i], &e), ERR_INVALID);
    snprintf(junk, sizeof junk, "%s/junk.gguf", b.dir);
    CHECK_OK(file_write_atomic(junk, "GGUFnot a model", 15, 0600, &e), e);
    CHECK(bed_add(&b, junk, "junk", &e) != ERR_OK);
    CHECK_HAS(e.msg, "junk.gguf");
    CHECK(bed_add(&b, "/nowhere/x.gguf", "x", &e) != ERR_OK);
    CHECK_INT(ledger_size(island_ledger(b.i)), size);
    cJSON *out = NULL;
    CHECK_INT(models_show(b.i, "x", &out, &e), ERR_NOT_FOUND);
    CHECK_HAS(e.msg, "polder model add");
    CHECK(out == NULL);
}

/* Breaks where changed bytes pass, in the check or in loading. */
TEST(models_verify_finds_a_changed_file) {
    err e = {0};
    cJSON *out = NULL;
    char path[4096], cmd[5000];
    uint8_t digest[SHA256_LEN];
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(bed_add(&b, b.file, "m", &e), e);
    CHECK_OK(models_verify(b.i, "m", &out, &e), e);
    CHECK(cJSON_IsTrue(json_get(out, "verified")));
    cJSON_Delete(out);
    CHECK_OK(models_resolve(b.i, "m", path, sizeof path, digest, &e), e);
    snprintf(cmd, sizeof cmd, "chmod u+w %s && printf x | dd of=%s bs=1 seek=20000 conv=notrunc 2>/dev/null", path,
             path);
    CHECK_INT(system(cmd), 0);
    log_set_level(LOG_ERROR + 1);
    CHECK_INT(models_verify(b.i, "m", &out, &e), ERR_NO);
    CHECK_HAS(e.msg, "model 'm'");
    CHECK(out == NULL);
    CHECK_INT(inference_load(b.inf, "m", &e), ERR_CORRUPT);
}

/* Breaks where a name is there that the ledger does not know. */
TEST(models_no_ledger_no_name) {
    err e = {0};
    cJSON *list = NULL;
    char cmd[900];
    CHECK_OK(bed_open(&b, NULL, &e), e);
    atomic_store(&disk_fails, 1);
    err_code rc = bed_add(&b, b.file, "m", &e);
    atomic_store(&disk_fails, 0);
    CHECK(rc != ERR_OK);
    CHECK_OK(models_list(b.i, &list, &e), e);
    CHECK_INT(cJSON_GetArraySize(json_get(list, "models")), 0);
    cJSON_Delete(list);
    snprintf(cmd, sizeof cmd, "test $(find %s/island -path '*sha256*' -type f | wc -l) = 0", b.dir);
    CHECK_INT(system(cmd), 0);
}

/* Breaks where first requests load a model twice, under one name or two. */
TEST(models_load_once_for_all) {
    static task tasks[8];
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(bed_add(&b, b.file, "m", &e), e);
    CHECK_OK(bed_add(&b, b.file, "alias", &e), e);
    metric *loads = metric_get(METRIC_HISTOGRAM, "polder_model_load_seconds", NULL, "");
    double before = metric_value(loads);
    for (int i = 0; i < 8; i++) {
        memset(&tasks[i], 0, sizeof tasks[i]);
        tasks[i].b = &b;
        tasks[i].r = ask(i % 2 ? "m" : "alias", "the", 4);
        task_start(&tasks[i]);
    }
    for (int i = 0; i < 8; i++) {
        task_join(&tasks[i]);
        CHECK_OK(tasks[i].rc, tasks[i].e);
        client_free(&tasks[i].c);
    }
    CHECK(metric_value(loads) == before + 1);
    CHECK(gauge("polder_models_loaded") == 1);
}

/* Breaks where a failed load leaves the model unusable, or those who waited without an answer. */
TEST(models_failed_load_is_tried_again) {
    static task tasks[4];
    err e = {0};
    char path[4096], away[4200];
    uint8_t digest[SHA256_LEN];
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(bed_add(&b, b.file, "m", &e), e);
    CHECK_OK(models_resolve(b.i, "m", path, sizeof path, digest, &e), e);
    snprintf(away, sizeof away, "%s.away", path);
    CHECK_INT(rename(path, away), 0);
    log_set_level(LOG_ERROR + 1);
    for (int i = 0; i < 4; i++) {
        memset(&tasks[i], 0, sizeof tasks[i]);
        tasks[i].b = &b;
        tasks[i].r = ask("m", "the", 4);
        task_start(&tasks[i]);
    }
    int failed = 0;
    for (int i = 0; i < 4; i++) {
        task_join(&tasks[i]);
        failed += tasks[i].rc == ERR_NOT_FOUND;
        client_free(&tasks[i].c);
    }
    for (int64_t n = 0; n < 40; n++) { /* and for want of memory */
        mem_fail_after(n);
        err_code rc = inference_load(b.inf, "m", &e);
        mem_fail_after(-1);
        CHECK(rc != ERR_OK);
    }
    CHECK_INT(failed, 4);
    CHECK_INT(rename(away, path), 0);
    CHECK_OK(inference_load(b.inf, "m", &e), e);
}

TEST(models_load_survives_failed_allocations) {
    err e = {0};
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(bed_add(&b, b.file, "m", &e), e);
    log_set_level(LOG_ERROR + 1);
    int failures = 0;
    for (int64_t n = 0; n < 4000; n += 1 + n / 40) {
        mem_fail_after(n);
        err_code rc = inference_load(b.inf, "m", &e);
        mem_fail_after(-1);
        failures += rc != ERR_OK;
        if (rc != ERR_OK) continue;
        inference_close(b.inf); /* an allocation that may fail: the model is there; begin anew */
        b.inf = NULL;
        CHECK_OK(inference_open(&b.inf, b.i, &e), e);
    }
    CHECK(failures > 5);
    CHECK_OK(inference_load(b.inf, "m", &e), e);
}

/* Breaks where looking at a read-only island needs what only a writer makes. */
TEST(models_read_only_island) {
    err e = {0};
    cJSON *list = NULL;
    char sub[300];
    CHECK_OK(bed_open(&b, NULL, &e), e);
    CHECK_OK(bed_add(&b, b.file, "m", &e), e);
    inference_close(b.inf);
    b.inf = NULL;
    island_close(b.i);
    b.i = NULL;
    snprintf(sub, sizeof sub, "%s/island", b.dir);
    CHECK_OK(island_open(&b.i, sub, ISLAND_READ, &e), e);
    CHECK_OK(models_list(b.i, &list, &e), e);
    CHECK_INT(cJSON_GetArraySize(json_get(list, "models")), 1);
    cJSON_Delete(list);
    CHECK_INT(inference_open(&b.inf, b.i, &e), ERR_DENIED);
    CHECK(bed_add(&b, b.file, "n", &e) != ERR_OK);
}

static void each(const char *name, void (*fn)(void)) {
    test_run(name, fn);
    log_set_level(LOG_ERROR);
    atomic_store(&disk_fails, 0);
    mem_fail_after(-1);
    if (b.dir[0]) bed_close(&b);
}
#undef RUN
#define RUN(name) each(#name, test_case_##name)

int main(int argc, char **argv) {
    test_begin(argc, argv);
    log_set_level(LOG_ERROR);
    disk_install();
    RUN(models_add_show_list);
    RUN(models_share_an_artifact);
    RUN(models_names_are_not_moved);
    RUN(models_bad_names_and_files);
    RUN(models_verify_finds_a_changed_file);
    RUN(models_no_ledger_no_name);
    RUN(models_load_once_for_all);
    RUN(models_failed_load_is_tried_again);
    RUN(models_load_survives_failed_allocations);
    RUN(models_read_only_island);
    return test_end();
}
