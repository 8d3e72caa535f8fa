/* forge ISLAND seed|token SEQ…: for each outcome SEQ a copy of the answer at the end of the ledger, with its seed one
 * higher, or with one of its tokens another. Prints the outcome's record of each. */
#include "../../../unit/inference/forge.h"

#include "base/buf.h"
#include "inference/inference.h"

int main(int argc, char **argv) {
    err e = {0};
    island *i = NULL;
    base_init();
    if (argc < 4) {
        fprintf(stderr, "forge ISLAND seed|token SEQ...\n");
        return 2;
    }
    err_code rc = island_open(&i, argv[1], ISLAND_WRITE, &e);
    for (int k = 3; k < argc && !rc; k++) {
        uint64_t seq = 0;
        bool seed = strcmp(argv[2], "seed") == 0;
        forgery f = {.seed_plus = seed, .token_of = seed ? NULL : "tokens_a", .token_at = (uint64_t)k % 5};
        rc = forge(island_ledger(i), strtoull(argv[k], NULL, 10), &f, &seq, &e);
        if (!rc) printf("%llu\n", (unsigned long long)seq);
    }
    island_close(i);
    if (rc) fprintf(stderr, "%s\n", e.msg);
    return rc ? 1 : 0;
}
