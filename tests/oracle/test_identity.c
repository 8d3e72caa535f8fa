/* The numerics contract as a table: for each model a row a kernel set, for each way of computing a cell: = where the
 * logits have the bits of the scalar set's, computed at once. Breaks where any of batch, chunks, neighbours, kept
 * prefixes, threads and kernel set can be seen in a result; and the last cases see to it that the table notices a
 * kernel in which two terms of a sum have changed places.
 *
 *   test_identity                      the quick table of some models, and the mutants
 *   test_identity --digests FOLDER…    lines "NAME SET COLUMN DIGEST" of models in folders like ../shared/oracle's, for
 *                                      the whole table (tests/acceptance/speed/identity); --tokens N, --set NAME,
 *                                      --kv q8 before
 *   test_identity --mutant NAME …      the same by a mutant of the scalar set: norm, attention or product */
#include "identity.h"
#include "mutant.h"

static char work[300];

/* ---- digests ----------------------------------------------------------------------------------------------- */

typedef struct options {
    uint32_t tokens;
    const char *set; /* NULL: all that this machine has */
    kv_format kv;
} options;

static model *open_folder(const char *folder) {
    char path[1400];
    const char *name = strrchr(folder, '/') ? strrchr(folder, '/') + 1 : folder;
    model *m = NULL;
    err e = {0};
    snprintf(path, sizeof path, "%s/oracle/%s/model.gguf", test_shared(), name);
    if (access(path, R_OK) != 0) snprintf(path, sizeof path, "%s/models/%s.gguf", test_shared(), name);
    if (model_open(&m, path, &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    return m;
}

static bool print_set(const prompt_case *p, const char *name, isa set) {
    for (int c = 0; c < IDENTITY_COLUMNS; c++) {
        uint8_t digest[SHA256_LEN];
        char hex[SHA256_HEX_LEN + 1];
        err e = {0};
        err_code rc = identity_digest(p, &identity_ways[c], digest, &e);
        if (rc && rc != ERR_UNSUPPORTED) {
            fprintf(stderr, "%s, %s, %s: %s\n", name, isa_name(set), identity_columns[c], e.msg);
            printf("%s %s %s failed\n", name, isa_name(set), identity_columns[c]);
            continue;
        }
        hex_encode(hex, digest, sizeof digest);
        printf("%s %s %s %s\n", name, isa_name(set), identity_columns[c], rc ? "none" : hex);
        fflush(stdout);
    }
    return true;
}

static bool print_digests(const char *folder, const options *o) {
    static prompt_case p;
    char sub[400];
    const char *name = strrchr(folder, '/') ? strrchr(folder, '/') + 1 : folder;
    model *m = open_folder(folder);
    snprintf(sub, sizeof sub, "oracle/%s", name);
    bool good = m && prompt_case_load(&p, m, sub, o->tokens);
    p.dir = work;
    p.kv = o->kv;
    for (int i = 0; i < ISA_COUNT && good; i++) {
        if (!isa_have((isa)i) || (o->set && strcmp(o->set, isa_name((isa)i)) != 0)) continue;
        good = isa_select(isa_name((isa)i), NULL) == ERR_OK && print_set(&p, name, (isa)i);
    }
    model_free(m);
    return good;
}

/* ---- the quick table --------------------------------------------------------------------------------------- */

static const char *const quick_models[] = {"llama-f32", "llama-q4_0", "gemma3", "qwen35"};
static uint8_t wanted[IDENTITY_COLUMNS][SHA256_LEN];

static const char *cell(const prompt_case *p, int column, bool *all_equal) {
    uint8_t digest[SHA256_LEN];
    err e = {0};
    err_code rc = identity_digest(p, &identity_ways[column], digest, &e);
    if (rc == ERR_UNSUPPORTED) return "·";
    bool same = !rc && memcmp(digest, wanted[identity_reference(column)], SHA256_LEN) == 0;
    if (rc) fprintf(stderr, "%s: %s\n", identity_columns[column], e.msg);
    if (!same) *all_equal = false;
    return same ? "=" : "≠";
}

/* The scalar set's digests of the whole prompt and of its tail, which all else must equal. */
static bool take_wanted(const prompt_case *p) {
    err e = {0};
    isa_select("scalar", NULL);
    for (int c = 0; c < 2; c++)
        if (identity_digest(p, &identity_ways[c], wanted[c], &e) != ERR_OK) return false;
    return true;
}

static bool print_rows(const prompt_case *p, const char *name) {
    bool all_equal = true;
    for (int i = 0; i < ISA_COUNT; i++) {
        if (!isa_have((isa)i)) continue;
        isa_select(isa_name((isa)i), NULL);
        printf("     %-16s %-7s", name, isa_name((isa)i));
        for (int c = 0; c < IDENTITY_COLUMNS; c++)
            printf(" %*s%s", (int)strlen(identity_columns[c]) - 1, "", cell(p, c, &all_equal));
        printf("\n");
    }
    return all_equal;
}

static void print_head(void) {
    printf("     %-16s %-7s", "model", "kernels");
    for (int c = 0; c < IDENTITY_COLUMNS; c++) printf(" %s", identity_columns[c]);
    printf("\n");
}

static bool load_quick(prompt_case *p, const char *name) {
    char sub[400];
    model *m = open_oracle(name);
    snprintf(sub, sizeof sub, "oracle/%s", name);
    p->dir = work;
    return m && prompt_case_load(p, m, sub, 80);
}

TEST(every_cell_is_equal) {
    static prompt_case p;
    if (!test_shared()) SKIP("../shared is absent");
    bool all = true;
    print_head();
    for (size_t i = 0; i < sizeof quick_models / sizeof *quick_models; i++) {
        CHECK(load_quick(&p, quick_models[i]));
        all = take_wanted(&p) && print_rows(&p, quick_models[i]) && all;
        model_free((model *)(uintptr_t)p.m);
    }
    engine_init(NULL);
    CHECK(all);
}

/* The same with pages of int8; and none of it is what pages of binary16 give. */
TEST(every_cell_is_equal_with_int8_pages) {
    static const char *const names[] = {"llama-q4_0", "gemma3", "qwen35", "deepseek2-lite"};
    static prompt_case p;
    if (!test_shared()) SKIP("../shared is absent");
    bool all = true;
    print_head();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uint8_t halves[SHA256_LEN];
        err e = {0};
        CHECK(load_quick(&p, names[i]));
        isa_select("scalar", NULL);
        CHECK_OK(identity_digest(&p, &identity_ways[0], halves, &e), e);
        p.kv = KV_Q8;
        all = take_wanted(&p) && print_rows(&p, names[i]) && all;
        p.kv = KV_F16;
        CHECK(memcmp(halves, wanted[0], SHA256_LEN) != 0);
        model_free((model *)(uintptr_t)p.m);
    }
    engine_init(NULL);
    CHECK(all);
}

/* Cells of the scalar set that differ where it is a mutant. */
static int cells_that_differ(const prompt_case *p, mutation which) {
    int n = 0;
    isa_select("scalar", NULL);
    mutate = which;
    for (int c = 0; c < IDENTITY_COLUMNS; c += 3) { /* five of them */
        bool equal = true;
        (void)cell(p, c, &equal);
        n += !equal;
    }
    mutate = MUTATE_NOTHING;
    return n;
}

TEST(mutants_are_seen) {
    static const char *const names[] = {"", "norm", "attention", "product"};
    static prompt_case p;
    if (!test_shared()) SKIP("../shared is absent");
    for (size_t i = 0; i < 2; i++) {
        CHECK(load_quick(&p, quick_models[i]));
        CHECK(take_wanted(&p));
        CHECK_INT(cells_that_differ(&p, MUTATE_NOTHING), 0);
        for (mutation k = MUTATE_NORM; k <= MUTATE_PRODUCT; k++) {
            int n = cells_that_differ(&p, k);
            printf("     %-12s with another order of sums in %-9s: %d of 5 cells differ\n", quick_models[i], names[k],
                   n);
            CHECK_INT(n, 5);
        }
        model_free((model *)(uintptr_t)p.m);
    }
    engine_init(NULL);
}

/* ---- the program ------------------------------------------------------------------------------------------- */

static int digests(int argc, char **argv) {
    static const char *const names[] = {"", "norm", "attention", "product"};
    options o = {.tokens = IDENTITY_TOKENS};
    bool good = true;
    for (int i = 1; i < argc && good; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--digests") == 0) continue;
        if (strncmp(argv[i], "--", 2) != 0) {
            good = print_digests(argv[i], &o);
            continue;
        }
        i++;
        if (strcmp(argv[i - 1], "--tokens") == 0)
            o.tokens = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--set") == 0)
            o.set = value;
        else if (strcmp(argv[i - 1], "--kv") == 0)
            good = kv_format_parse(&o.kv, value);
        else if (strcmp(argv[i - 1], "--mutant") == 0)
            for (mutation k = MUTATE_NORM; k <= MUTATE_PRODUCT; k++) mutate = strcmp(value, names[k]) ? mutate : k;
        else
            good = false;
    }
    return good ? 0 : 1;
}

int main(int argc, char **argv) {
    err e = {0};
    if (engine_init(&e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    if (!test_tmpdir(work)) return 1;
    if (argc > 1 && strncmp(argv[1], "--", 2) == 0) {
        test_begin(1, argv);
        int status = digests(argc, argv);
        test_rm(work);
        return status;
    }
    test_begin(argc, argv);
    RUN(every_cell_is_equal);
    RUN(every_cell_is_equal_with_int8_pages);
    RUN(mutants_are_seen);
    test_rm(work);
    return test_end();
}
