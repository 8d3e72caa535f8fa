/* A stream of named events as a list of JSON objects, for the dialects that name theirs. */
#ifndef POLDER_TESTS_SERVER_EVENTS_H
#define POLDER_TESTS_SERVER_EVENTS_H

#include "world.h"

/* [{…}, …]; NULL where an event's name is not its object's "type" or anything else stands between them. */
static inline cJSON *events_read(const char *body) {
    cJSON *list = cJSON_CreateArray();
    const char *p = body;
    while (*p) {
        const char *end = strstr(p, "\n\n"), *data = strstr(p, "\ndata: ");
        if (end && *p == ':') { /* a comment */
            p = end + 2;
            continue;
        }
        char name[64];
        cJSON *v = NULL;
        if (end && data && data < end && sscanf(p, "event: %63s\n", name) == 1)
            v = cJSON_ParseWithLength(data + 7, (size_t)(end - data - 7));
        const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v, "type"));
        cJSON_AddItemToArray(list, v);
        if (!type || strcmp(type, name) != 0) {
            fprintf(stderr, "not an event: %.200s\n", p);
            cJSON_Delete(list);
            return NULL;
        }
        p = end + 2;
    }
    return list;
}

/* The events that answer a POST of `body`; NULL, and the reply on stderr, where it is no whole stream of them. */
static inline cJSON *events_ask(int port, const char *key, const char *path, const char *body) {
    reply r;
    client_request(port, key, "POST", path, body, &r);
    cJSON *list = r.status == 200 && r.whole ? events_read(buf_str(&r.body)) : NULL;
    if (!list) fprintf(stderr, "%d: %s\n", r.status, buf_str(&r.body));
    reply_free(&r);
    return list;
}

/* The types in order, with a blank behind each. */
static inline void events_types(const cJSON *list, buf *out) {
    const cJSON *v;
    buf_reset(out);
    cJSON_ArrayForEach(v, list) buf_printf(out, "%s ", str_at(v, "type"));
}

static inline const cJSON *events_find(const cJSON *list, const char *type, int nth) {
    const cJSON *v;
    cJSON_ArrayForEach(v, list) if (strcmp(str_at(v, "type"), type) == 0 && nth-- == 0) return v;
    return NULL;
}

#endif
