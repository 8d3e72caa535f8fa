/* Redaction and restoring: what was redacted comes back exactly; what is restored does not depend on where the stream
 * is cut; JSON stays JSON.
 *
 * The first byte is the seed of the cuts. In the rest, a byte 1, 2 or 3 begins a value (of an entity each) and the next
 * byte below 4 ends it. */
#include "data/data.h"

#include "base/bytes.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FOUND_MAX = 256 };
#define TEXT_MAX 65536

static void must(bool ok) {
    if (!ok) abort();
}

static void restore(const redaction *r, restore_form form, const char *p, size_t n, uint32_t seed, buf *out) {
    restorer *x;
    must(restorer_new(&x, r, form, NULL) == ERR_OK);
    for (size_t at = 0; at < n;) {
        seed = seed * 1664525 + 1013904223;
        size_t k = seed ? 1 + (seed >> 24) % 9 : n;
        if (k > n - at) k = n - at;
        must(restorer_feed(x, p + at, k, out, NULL) == ERR_OK);
        at += k;
    }
    must(restorer_end(x, out, NULL) == ERR_OK);
    restorer_free(x);
}

static void same(const buf *a, const char *p, size_t n) {
    must(a->len == n && (!n || memcmp(a->ptr, p, n) == 0));
}

/* Any cut is as good as none; and JSON comes back as JSON. */
static void check_cuts(const redaction *r, restore_form form, const char *p, size_t n, uint32_t seed) {
    buf whole = {.max = 64 << 20}, cut = {.max = 64 << 20};
    restorer *x;
    cJSON *v = NULL;
    must(restorer_new(&x, r, form, NULL) == ERR_OK);
    must(restorer_feed(x, p, n, &whole, NULL) == ERR_OK && restorer_end(x, &whole, NULL) == ERR_OK);
    restorer_free(x);
    restore(r, form, p, n, seed, &cut);
    same(&cut, whole.ptr, whole.len);
    if (form == RESTORE_JSON && json_parse(&v, p, n, "text", NULL) == ERR_OK) {
        cJSON_Delete(v);
        v = NULL;
        const char *end; /* not json_parse: two keys may have become the same */
        v = cJSON_ParseWithLengthOpts(buf_str(&whole), whole.len + 1, &end, true);
        must(v && end == whole.ptr + whole.len);
    }
    cJSON_Delete(v);
    buf_free(&whole);
    buf_free(&cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const unsigned of[] = {ENT_IBAN, ENT_EMAIL, ENT_DE_TAX};
    static char text[TEXT_MAX];
    static detector *d;
    finding f[FOUND_MAX];
    size_t n = 0, n_found = 0;
    bool open = false;
    entity_set set = {{0, 0}};
    if (size < 2 || size > TEXT_MAX) return 0;
    base_init();
    if (!d) must(detector_new(&d, NULL, 0, NULL, NULL) == ERR_OK);
    for (int i = 0; i < 3; i++) entity_set_add(&set, of[i]);
    for (size_t i = 1; i < size; i++) {
        if (data[i] >= 4) {
            text[n++] = (char)data[i];
        } else if (open) {
            f[n_found++].to = n;
            open = false;
        } else if (data[i] && n_found < FOUND_MAX) {
            f[n_found] = (finding){.entity = of[data[i] - 1], .score = 90, .from = n};
            open = true;
        }
    }
    redaction *r;
    buf out = {.max = 64 << 20}, back = {.max = 64 << 20};
    must(redaction_new(&r, d, NULL) == ERR_OK);
    must(redaction_see(r, text, n, NULL) == ERR_OK);
    must(redaction_text(r, text, n, f, n_found, &set, &out, NULL) == ERR_OK);
    restore(r, RESTORE_TEXT, buf_str(&out), out.len, data[0], &back);
    same(&back, text, n);
    for (restore_form form = RESTORE_TEXT; form <= RESTORE_JSON; form++) {
        check_cuts(r, form, text, n, data[0]);
        check_cuts(r, form, buf_str(&out), out.len, data[0]);
    }
    redaction_free(r);
    buf_free(&out);
    buf_free(&back);
    return 0;
}
