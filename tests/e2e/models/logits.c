/* logits A.gguf B.gguf TOKENS.txt: how far the logits of two models are apart on the prompts of a file (ids, one prompt
 * a line). Prints "exact", "max DIFFERENCE" or "embeds" (both open, neither completes text); exit 1 where one does not
 * run. */
#include "base/bytes.h"
#include "base/mem.h"
#include "engine/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct side {
    model *m;
    session *s;
    float *rows;
} side;

static err_code run(side *x, const int32_t *ids, uint32_t n, size_t n_vocab, err *e) {
    int seq;
    err_code rc = session_seq_new(x->s, &seq, e);
    for (uint32_t i = 0; i < n && !rc; i++) {
        chunk c = {.seq = seq, .tokens = ids + i, .n = 1, .n_logits = 1};
        rc = session_step(x->s, &c, 1, e);
        if (!rc) memcpy(x->rows + i * n_vocab, c.logits, n_vocab * sizeof(float));
    }
    if (!rc) session_seq_free(x->s, seq);
    return rc;
}

static err_code open_side(side *x, const char *path, err *e) {
    const session_options o = {.n_threads = 1, .n_seq_max = 1, .n_ctx = 256};
    err_code rc = model_open(&x->m, path, e);
    return rc ? rc : session_new(&x->s, x->m, &o, e);
}

static uint32_t parse(const char *line, int32_t *ids) {
    uint32_t n = 0;
    char *end;
    for (long v = strtol(line, &end, 10); end != line && n < 256; line = end, v = strtol(line, &end, 10))
        ids[n++] = (int32_t)v;
    return n;
}

int main(int argc, char **argv) {
    side a = {0}, b = {0};
    err e = {0};
    static char line[1 << 16];
    static int32_t ids[257];
    base_init();
    FILE *f = argc == 4 ? fopen(argv[3], "r") : NULL;
    err_code rc = f ? engine_init(&e) : err_set(&e, ERR_USAGE, "logits A.gguf B.gguf TOKENS.txt");
    if (!rc) rc = model_open(&a.m, argv[1], &e);
    if (!rc && strcmp(model_get_facts(a.m)->arch, "bert") != 0 &&
        strcmp(model_get_facts(a.m)->arch, "nomic-bert") != 0) {
        model_free(a.m);
        a.m = NULL;
        rc = open_side(&a, argv[1], &e);
        if (!rc) rc = open_side(&b, argv[2], &e);
    } else if (!rc && (rc = model_open(&b.m, argv[2], &e)) == ERR_OK) {
        puts("embeds");
    }
    size_t n_vocab = rc || !a.s ? 0 : model_get_facts(a.m)->n_vocab;
    a.rows = mem_array(256 * n_vocab + 1, sizeof(float));
    b.rows = mem_array(256 * n_vocab + 1, sizeof(float));
    float max = 0;
    while (!rc && n_vocab && fgets(line, sizeof line, f)) {
        uint32_t n = parse(line, ids);
        rc = run(&a, ids, n, n_vocab, &e);
        if (!rc) rc = run(&b, ids, n, n_vocab, &e);
        for (size_t i = 0; !rc && i < n * n_vocab; i++) {
            float d = fabsf(a.rows[i] - b.rows[i]);
            if (!(d <= max)) max = d;
        }
    }
    if (!rc && n_vocab && max == 0) puts("exact");
    if (!rc && n_vocab && max != 0) printf("max %g\n", (double)max);
    if (rc) fprintf(stderr, "%s\n", e.msg);
    session_free(a.s);
    session_free(b.s);
    model_free(a.m);
    model_free(b.m);
    mem_free(a.rows);
    mem_free(b.rows);
    if (f) fclose(f);
    return rc != ERR_OK;
}
