/* Any bytes as a safetensors file: opened or refused; what is opened is read to its last byte. */
#include "engine/files/safetensors.h"
#include "base/bytes.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    st_set *s = NULL;
    err e = {0};
    uint64_t n = 0;
    if (st_open_memory(&s, data, size, "fuzz", &e) != ERR_OK) return 0;
    uint8_t sum = 0;
    for (size_t i = 0; i < st_count(s); i++) {
        const st_tensor *t = st_at(s, i);
        if (st_find(s, t->name) != t) abort();
        for (uint64_t k = 0; k < t->n_bytes; k++) sum ^= t->data[k];
        n += t->n_bytes;
    }
    if (n > st_total_bytes(s) || (n == 0 && sum)) abort(); /* uses the sum: every byte was read */
    st_free(s);
    return 0;
}
