/* make_models FOLDER: the small models of tests/unit/inference/tiny_encoder.h, for the test with a client: bert.gguf
 * and nomic.gguf make vectors, causal.gguf too (as Qwen3-Embedding does), ranker.gguf ranks. */
#include "unit/inference/tiny_encoder.h"

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        tiny_kind kind;
    } models[] = {{"bert", {.pooling = 2}},
                  {"nomic", {.nomic = true, .pooling = 1}},
                  {"causal", {.causal = true, .pooling = 3}},
                  {"ranker", {.pooling = 4, .head = true}}};
    if (argc != 2) {
        fprintf(stderr, "usage: make_models FOLDER\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s.gguf", argv[1], models[i].name);
        if (!tiny_write_kind(path, &models[i].kind, 20261122 + i)) {
            fprintf(stderr, "%s: cannot be written\n", path);
            return 3;
        }
    }
    return 0;
}
