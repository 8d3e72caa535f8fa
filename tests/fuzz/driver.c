/* Replays a corpus through a fuzz target without a fuzzer: every file (or every file of a folder) named on the command
 * line is one case. What breaks it: a crash or a sanitizer report on any input. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    uint8_t *p = NULL;
    size_t n = 0, cap = 0;
    for (;;) {
        if (n == cap) {
            cap = cap ? cap * 2 : 65536;
            uint8_t *q = realloc(p, cap);
            if (!q) abort();
            p = q;
        }
        size_t got = fread(p + n, 1, cap - n, f);
        if (!got) break;
        n += got;
    }
    fclose(f);
    /* an exact-size copy, so that a read past the end is seen */
    uint8_t *exact = malloc(n ? n : 1);
    if (!exact) abort();
    if (n) memcpy(exact, p, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    free(p);
    return 1;
}

int main(int argc, char **argv) {
    int cases = 0;
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st) != 0) continue;
        if (!S_ISDIR(st.st_mode)) {
            cases += replay_file(argv[i]);
            continue;
        }
        DIR *d = opendir(argv[i]);
        struct dirent *de;
        while (d && (de = readdir(d))) {
            if (de->d_name[0] == '.') continue;
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], de->d_name);
            cases += replay_file(path);
        }
        if (d) closedir(d);
    }
    printf("%d passed, 0 failed\n", cases);
    return cases > 0 ? 0 : 1;
}
