/* What an exported folder is parsed as: entry bundles, entries, tile paths; and a record's opened contents. Accepted
 * entries and paths have one spelling. */
#include "audit/tiles.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_entry(const uint8_t *p, size_t n) {
    err e;
    if (entry_check(p, n, &e) != ERR_OK) return;
    cJSON *v = NULL;
    buf b = {.max = 1 << 20};
    if (json_parse(&v, (const char *)p, n, "entry", &e) != ERR_OK || json_canonical(&b, v, &e) != ERR_OK ||
        b.len != n || memcmp(b.ptr, p, n) != 0)
        abort();
    buf_free(&b);
    cJSON_Delete(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    base_init();
    const uint8_t *p;
    size_t at = 0, n, sum = 0;
    while (entries_next(data, size, &at, &p, &n)) {
        if (p < data || p + n > data + size) abort();
        sum += 2 + n;
        try_entry(p, n);
    }
    if (sum != at) abort();
    try_entry(data, size);
    char path[200], again[TILE_PATH_MAX];
    tile t;
    if (size < sizeof path && !memchr(data, 0, size)) {
        memcpy(path, data, size);
        path[size] = 0;
        if (tile_parse(&t, path)) {
            tile_path(again, &t);
            if (strcmp(path, again) != 0 || strlen(path) != size) abort();
        }
    }
    content_view v;
    unsigned left = 0;
    bool whole;
    size_t pos = 0;
    while (vault_next(data, size, &pos, &left, &v, &whole))
        if (v.bytes + v.len > data + size || pos > size) abort();
    if (whole && pos != size) abort();
    return 0;
}
