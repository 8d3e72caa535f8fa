/* JSON schemas: the schema, and after a NUL a text that is walked through it. What the grammar takes must be JSON. */
#include "unit/engine/constrain.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool ready;
    if (!ready) base_init();
    ready = true;
    const token_trie *trie = constrain_trie();
    const char *s = (const char *)data, *nul = size ? memchr(s, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - s) : size;
    cJSON *schema = NULL, *value = NULL;
    grammar *g = NULL;
    constraint *c = NULL;
    const uint64_t *mask;
    err e;
    if (json_parse(&schema, s, len, "schema", &e) != ERR_OK) return 0;
    schema_options o = {.to_the_letter = len % 2};
    if (grammar_make_json_schema(&g, trie, schema, &o, &e) == ERR_OK && constraint_new(&c, g, &e) == ERR_OK) {
        if (constraint_mask(c, &mask, &e) != ERR_OK && e.code == ERR_UNSUPPORTED)
            abort(); /* the vocabulary has all bytes */
        size_t n = nul ? size - len - 1 : 0;
        bool taken = nul && constraint_accept_bytes(c, nul + 1, n, &e) == ERR_OK;
        if (taken && constraint_can_end(c)) {
            if (json_parse(&value, nul + 1, n, "text", &e) != ERR_OK && !strstr(e.msg, "nest") &&
                !strstr(e.msg, "twice") && !strstr(e.msg, "key"))
                abort();
        } else if (taken && constraint_mask(c, &mask, &e) != ERR_OK && e.code == ERR_UNSUPPORTED) {
            abort();
        }
    }
    cJSON_Delete(value);
    constraint_free(c);
    grammar_free(g);
    cJSON_Delete(schema);
    return 0;
}
