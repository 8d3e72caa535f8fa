/* For the tests against ../shared/oracle: reading its files, and the largest difference to them. */
#ifndef POLDER_TESTS_ORACLE_H
#define POLDER_TESTS_ORACLE_H

#include "harness.h"

#include "base/json.h"
#include "engine/models/models.h"

#include <math.h>

static inline bool load_file(buf *out, const char *folder, const char *name) {
    char path[1400];
    err e = {0};
    snprintf(path, sizeof path, "%s/%s/%s", test_shared(), folder, name);
    out->max = 64u << 20;
    return file_read(out, path, &e) == ERR_OK;
}

/* The two prompts of tokens.txt. */
static inline size_t load_prompt(int32_t *out, size_t cap, const char *folder, int line) {
    buf b = {0};
    size_t n = 0;
    if (!load_file(&b, folder, "tokens.txt")) return 0;
    const char *p = buf_str(&b);
    for (int i = 0; i < line && p; i++) p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL;
    while (p && *p && *p != '\n' && n < cap) {
        char *end;
        out[n++] = (int32_t)strtol(p, &end, 10);
        p = *end == ' ' ? end + 1 : end;
    }
    buf_free(&b);
    return n;
}

/* Largest difference of the last n_rows logits of a prompt to a file of them; -1 where something failed. */
static inline double compare(const model *m, const char *folder, int line, uint32_t n_rows, const char *file) {
    int32_t tokens[256];
    size_t n = load_prompt(tokens, 256, folder, line);
    buf want = {0};
    err e = {0};
    session *s = NULL;
    int seq;
    double worst = -1;
    uint32_t width = m->hp.encoder ? m->hp.d_model : model_get_facts(m)->n_vocab;
    session_options o = {.n_threads = 2, .n_seq_max = 1, .max_step_tokens = 256};
    chunk c = {.tokens = tokens, .n = (uint32_t)n, .n_logits = n_rows};
    if (!load_file(&want, folder, file) || want.len != n_rows * width * sizeof(float)) goto out;
    if (session_new(&s, m, &o, &e) || session_seq_new(s, &seq, &e)) goto out;
    c.seq = seq;
    if (session_step(s, &c, 1, &e)) goto out;
    worst = 0;
    for (size_t i = 0; i < (size_t)n_rows * width; i++) {
        float w;
        memcpy(&w, want.ptr + i * sizeof w, sizeof w);
        double d = fabs((double)c.logits[i] - (double)w);
        if (!(d <= worst)) worst = d;
    }
out:
    if (worst < 0) fprintf(stderr, "%s: %s\n", folder, e.msg);
    session_free(s);
    buf_free(&want);
    return worst;
}

/* What each of these programs begins with; false: the engine cannot start, and stderr says why. */
static inline bool oracle_begin(int argc, char **argv) {
    err e = {0};
    test_begin(argc, argv);
    if (engine_init(&e) == ERR_OK) return true;
    fprintf(stderr, "%s\n", e.msg);
    return false;
}

static inline model *open_oracle(const char *name) {
    char path[1400];
    model *m = NULL;
    err e = {0};
    snprintf(path, sizeof path, "%s/oracle/%s/model.gguf", test_shared(), name);
    if (model_open(&m, path, &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    return m;
}

/* What the README asks of an engine with 8-bit activations: twice what the reference moves against expanded weights. */
static inline double quantised_tolerance(const char *name) {
    char folder[300];
    buf b = {0};
    cJSON *j = NULL;
    err e = {0};
    double v = 0;
    snprintf(folder, sizeof folder, "oracle/%s", name);
    if (load_file(&b, folder, "manifest.json") && json_parse(&j, b.ptr, b.len, "manifest", &e) == ERR_OK) {
        const cJSON *t = cJSON_GetObjectItem(cJSON_GetObjectItem(j, "tolerance"), "dequantised_f32");
        const cJSON *a = cJSON_GetObjectItem(cJSON_GetObjectItem(t, "stored_rows"), "max_abs");
        v = a ? 2 * a->valuedouble : 0;
    }
    cJSON_Delete(j);
    buf_free(&b);
    return v;
}

#endif
