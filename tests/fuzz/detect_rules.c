/* A file of the owner's rules, and after a NUL a text that they are used on. */
#include "data/detect/detect_rules.h"
#include "base/bytes.h"
#include "data/data.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool ready;
    if (!ready) base_init();
    ready = true;
    const char *s = (const char *)data, *nul = size ? memchr(s, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - s) : size;
    if (len > 4000 || size > 8000) return 0;
    detector *d = NULL;
    findings f = {0};
    err e;
    rules *r = NULL; /* first without the table of words, which takes longer to make than all the rest */
    entity_info info[ENT_MAX] = {0};
    unsigned n = ENT_BUILT_IN;
    for (unsigned i = 0; i < n; i++) info[i] = (entity_info){.name = "built-in", .group = "built-in-group"};
    err_code parsed = rules_new(&r, s, len, "rules", info, &n, &e);
    rules_free(r);
    if (parsed != ERR_OK || !nul || size == len + 1) return 0;
    if (detector_new(&d, s, len, "rules", &e) == ERR_OK && nul) {
        err_code rc = detector_scan(d, nul + 1, size - len - 1, &f, &e);
        if (rc != ERR_OK && rc != ERR_UNAVAILABLE) abort();
        for (size_t i = 0; i < f.n; i++)
            if (f.list[i].from >= f.list[i].to || f.list[i].to > size - len - 1 ||
                (i && f.list[i - 1].to > f.list[i].from))
                abort();
    }
    findings_free(&f);
    detector_free(d);
    return 0;
}
