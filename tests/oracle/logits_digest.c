/* logits_digest MODEL TOKENS [--line N] [--chunks LIST] [--threads LIST] [--neighbours LIST]
 *
 * The bits of all logits of a prompt as one SHA-256 (rows by position, binary32 little endian), for every combination
 * of the lists, one a line:
 *     SHA256 chunk=7 threads=2 neighbours=3 isa=avx2
 * TOKENS holds prompts as decimal ids, one a line; --line takes the N-th (default 1). A list is numbers with commas.
 * Chunk 0 (the default) is the whole prompt in one step. A neighbour is another sequence in the same steps, reading the
 * same tokens from another place on. POLDER_ISA picks the kernels. Encoders take prompts whole: for other chunks their
 * line has "whole" in place of the digest. What differs between two machines' tables is an error of one of them. */
#include "base/buf.h"
#include "base/bytes.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "harness.h"

#define LIST_MAX       16
#define PROMPT_MAX     65536
#define NEIGHBOURS_MAX 63

typedef struct list {
    uint32_t at[LIST_MAX];
    size_t n;
} list;

typedef struct way {
    uint32_t chunk, threads, neighbours;
} way;

static bool list_parse(list *l, const char *text, uint32_t most) {
    l->n = 0;
    for (const char *p = text;; p++) {
        char *end;
        unsigned long v = strtoul(p, &end, 10);
        if (end == p || *p == '-' || v > most || l->n == LIST_MAX) return false;
        l->at[l->n++] = (uint32_t)v;
        p = end;
        if (*p == 0) return true;
        if (*p != ',') return false;
    }
}

/* Line `line` (from 1) of a file of ids. */
static err_code prompt_read(int32_t *out, uint32_t *n, const char *path, uint32_t line, err *e) {
    buf b = {.max = 16u << 20};
    err_code code = file_read(&b, path, e);
    *n = 0;
    const char *p = code == ERR_OK ? buf_str(&b) : NULL;
    for (uint32_t i = 1; i < line && p; i++) p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL;
    while (p && *p && *p != '\n' && *n < PROMPT_MAX) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p) break;
        out[(*n)++] = (int32_t)v;
        for (p = end; *p == ' ' || *p == ',' || *p == '\r'; p++) {
        }
    }
    if (code == ERR_OK && *n == 0) code = err_set(e, ERR_INVALID, "%s: line %u has no token ids", path, line);
    buf_free(&b);
    return code;
}

/* One step of `n` tokens from `at` on: sequence 0 reads the prompt, the others read it turned round by a few tokens. */
static err_code step(session *s, const int32_t *prompt, uint32_t total, uint32_t at, uint32_t n, uint32_t neighbours,
                     const int *seqs, int32_t *room, const float **logits, err *e) {
    chunk c[NEIGHBOURS_MAX + 1];
    for (uint32_t i = 0; i <= neighbours; i++) {
        int32_t *turned = room + (size_t)i * n;
        for (uint32_t k = 0; k < n; k++) turned[k] = prompt[(at + k + 11ull * i) % total];
        c[i] = (chunk){.seq = seqs[i], .tokens = turned, .n = n, .n_logits = i ? 1 : n};
    }
    /* the prompt's own place among the others changes from step to step */
    uint32_t place = at % (neighbours + 1);
    chunk first = c[0];
    c[0] = c[place];
    c[place] = first;
    err_code code = session_step(s, c, neighbours + 1, e);
    *logits = c[place].logits;
    return code;
}

static err_code digest(const model *m, const int32_t *prompt, uint32_t total, way w, uint8_t out[SHA256_LEN], err *e) {
    session *s = NULL;
    int seqs[NEIGHBOURS_MAX + 1];
    sha256 h;
    uint32_t len = w.chunk && w.chunk < total ? w.chunk : total, n_seq = w.neighbours + 1;
    session_options o = {.n_threads = w.threads, .n_seq_max = n_seq, .max_step_tokens = len * n_seq};
    int32_t *room = mem_array((size_t)len * n_seq, sizeof *room);
    err_code code = room ? session_new(&s, m, &o, e) : err_set(e, ERR_NOMEM, "no memory for a step");
    for (uint32_t i = 0; i < n_seq && code == ERR_OK; i++) code = session_seq_new(s, &seqs[i], e);
    sha256_init(&h);
    for (uint32_t at = 0; at < total && code == ERR_OK; at += len) {
        const float *logits;
        uint32_t n = total - at < len ? total - at : len;
        code = step(s, prompt, total, at, n, w.neighbours, seqs, room, &logits, e);
        if (code == ERR_OK) sha256_update(&h, logits, (size_t)n * session_width(s) * sizeof *logits);
    }
    sha256_final(&h, out);
    session_free(s);
    mem_free(room);
    return code;
}

/* One line of the table. */
static err_code print_way(const model *m, const int32_t *prompt, uint32_t total, way w, err *e) {
    uint8_t sum[SHA256_LEN];
    bool whole_only = model_get_facts(m)->encoder && w.chunk && w.chunk < total;
    if (!whole_only && digest(m, prompt, total, w, sum, e) != ERR_OK) return e->code;
    if (whole_only)
        printf("whole");
    else
        for (int i = 0; i < SHA256_LEN; i++) printf("%02x", sum[i]);
    printf(" chunk=%u threads=%u neighbours=%u isa=%s\n", w.chunk, w.threads, w.neighbours, engine_isa());
    fflush(stdout);
    return ERR_OK;
}

static err_code print_table(const char *path, const int32_t *prompt, uint32_t total, const list *chunks,
                            const list *threads, const list *neighbours, err *e) {
    model *m = NULL;
    err_code code = model_open(&m, path, e);
    for (size_t c = 0; c < chunks->n; c++)
        for (size_t t = 0; t < threads->n; t++)
            for (size_t i = 0; i < neighbours->n && code == ERR_OK; i++)
                code = print_way(m, prompt, total, (way){chunks->at[c], threads->at[t], neighbours->at[i]}, e);
    model_free(m);
    return code;
}

int main(int argc, char **argv) {
    static int32_t prompt[PROMPT_MAX];
    list chunks = {{0}, 1}, threads = {{1}, 1}, neighbours = {{0}, 1}, line = {{1}, 1};
    uint32_t total;
    err e = {0};
    bool good = argc >= 3 && argc % 2 == 1;
    for (int i = 3; i + 1 < argc && good; i += 2) {
        if (strcmp(argv[i], "--chunks") == 0)
            good = list_parse(&chunks, argv[i + 1], PROMPT_MAX);
        else if (strcmp(argv[i], "--threads") == 0)
            good = list_parse(&threads, argv[i + 1], 256);
        else if (strcmp(argv[i], "--neighbours") == 0)
            good = list_parse(&neighbours, argv[i + 1], NEIGHBOURS_MAX);
        else
            good = strcmp(argv[i], "--line") == 0 && list_parse(&line, argv[i + 1], PROMPT_MAX);
    }
    if (!good) {
        fputs("logits_digest MODEL TOKENS [--line N] [--chunks LIST] [--threads LIST] [--neighbours LIST]\n", stderr);
        return 2;
    }
    test_begin(1, argv);
    if (engine_init(&e) || prompt_read(prompt, &total, argv[2], line.at[0], &e) ||
        print_table(argv[1], prompt, total, &chunks, &threads, &neighbours, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    return 0;
}
