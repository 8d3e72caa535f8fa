/* Any bytes: the scan ends, and its findings are sorted, apart, inside the text and on the borders of characters. */
#include "base/bytes.h"
#include "data/data.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static detector *d;
    static findings f;
    err e;
    if (!d) {
        base_init();
        if (detector_new(&d, NULL, 0, NULL, &e) != ERR_OK) abort();
    }
    if (detector_scan(d, (const char *)data, size, &f, &e) != ERR_OK) {
        if (e.code != ERR_UNAVAILABLE || f.n) abort();
        return 0;
    }
    bool valid = utf8_valid((const char *)data, size);
    for (size_t i = 0; i < f.n; i++) {
        const finding *x = &f.list[i];
        if (x->from >= x->to || x->to > size || (i && f.list[i - 1].to > x->from)) abort();
        if (x->score < 50 || x->score > 100 || !detector_entity(d, x->entity)) abort();
        if (!valid) continue;
        if ((data[x->from] & 0xc0) == 0x80 || (x->to < size && (data[x->to] & 0xc0) == 0x80)) abort();
    }
    return 0;
}
