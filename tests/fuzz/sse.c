/* Server-sent events: the first byte says where the input is cut. Cut otherwise the same events must come, and none of
 * them has a name or data that its input does not have. */
#include "inference/drivers/sse.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(buf *log, const char *p, size_t n, size_t step) {
    sse s;
    sse_event ev;
    sse_init(&s);
    for (size_t at = 0; at < n;) {
        size_t k = n - at < step ? n - at : step;
        const char *piece = p + at;
        at += k;
        while (sse_next(&s, &piece, &k, &ev)) {
            if (ev.data[ev.len] != 0 || strlen(ev.name) > 63 || ev.len > n) abort();
            buf_puts(log, ev.name);
            buf_putc(log, 0);
            buf_append(log, ev.data, ev.len);
            buf_putc(log, 0);
        }
        if (k) abort(); /* limits are far beyond inputs of this size */
    }
    sse_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    base_init();
    const char *p = (const char *)data + 1;
    buf one = {.max = 1 << 24}, other = {.max = 1 << 24};
    run(&one, p, size - 1, size);
    run(&other, p, size - 1, 1 + data[0] % 7);
    if (one.len != other.len || (one.len && memcmp(one.ptr, other.ptr, one.len) != 0)) abort();
    buf_free(&one);
    buf_free(&other);
    return 0;
}
