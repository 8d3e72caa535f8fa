/* island.yaml: any bytes are refused with a place, or accepted and then survive writing and reading. */
#include "island/island.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    err e = {0};
    island_config c, again;
    if (config_parse(&c, (const char *)data, size, "f", &e) != ERR_OK) {
        if (e.code == ERR_USAGE && strncmp(e.msg, "f:", 2) != 0) abort();
        return 0;
    }
    buf yaml = {.max = 1 << 20}, a = {.max = 1 << 20}, b = {.max = 1 << 20};
    config_write_yaml(&c, &yaml);
    config_write_json(&c, &a);
    if (config_parse(&again, buf_str(&yaml), yaml.len, "f", &e) != ERR_OK) abort();
    config_write_json(&again, &b);
    if (strcmp(buf_str(&a), buf_str(&b)) != 0) abort();
    buf_free(&yaml);
    buf_free(&a);
    buf_free(&b);
    config_free(&c);
    config_free(&again);
    return 0;
}
