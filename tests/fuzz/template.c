/* Chat templates: source, a NUL, and the variables as JSON (none where there is no NUL or no JSON). */
#include "base/json.h"
#include "engine/engine.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool ready;
    if (!ready) base_init();
    ready = true;
    const char *s = (const char *)data, *nul = size ? memchr(s, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - s) : size;
    chat_template *t = NULL;
    cJSON *vars = NULL;
    err e;
    if (chat_template_compile(&t, s, len, &e) != ERR_OK) return 0;
    if (nul && json_parse(&vars, nul + 1, size - len - 1, "vars", &e) != ERR_OK) vars = NULL;
    buf out = {.max = 65536};
    chat_template_render(t, vars, INT64_C(1753012345678), &out, &e);
    buf_free(&out);
    cJSON_Delete(vars);
    chat_template_free(t);
    return 0;
}
