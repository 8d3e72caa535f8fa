/* JSON: what json_parse takes, cJSON takes too, and the trees are the same; what it writes is read back the same. The
 * text has no byte behind it that may be read. */
#include "base/json.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same_text(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same(const cJSON *a, const cJSON *b) {
    if (a->type != b->type || !same_text(a->string, b->string) || a->valueint != b->valueint) return false;
    if (cJSON_IsString(a) && !same_text(a->valuestring, b->valuestring)) return false;
    if (a->valuedouble != b->valuedouble) return false; /* -0 is written as 0 */
    const cJSON *x = a->child, *y = b->child;
    if (x && y && (x->prev->next || y->prev->next)) return false;
    for (; x && y; x = x->next, y = y->next)
        if (!same(x, y)) return false;
    return x == y;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    err e = {0};
    cJSON *tree = NULL;
    char *text = malloc(size ? size : 1);
    if (!text) return 0;
    memcpy(text, data, size);
    if (json_parse(&tree, text, size, "the text", &e) == ERR_OK) {
        cJSON *other = cJSON_ParseWithLength(text, size);
        if (!other || !same(tree, other)) abort();
        char *written = json_text(tree);
        cJSON *again = NULL;
        if (!written || json_parse(&again, written, strlen(written), "what was written", &e) != ERR_OK) abort();
        if (!same(tree, again)) abort();
        mem_free(written);
        cJSON_Delete(again);
        cJSON_Delete(other);
    } else if (tree || strncmp(e.msg, "the text", 8) != 0) {
        abort();
    }
    cJSON_Delete(tree);
    free(text);
    return 0;
}
