/* Internal to inference: requests to a hub. One hub_http belongs to one thread. */
#ifndef POLDER_INFERENCE_HUB_HTTP_H
#define POLDER_INFERENCE_HUB_HTTP_H

#include "base/buf.h"
#include "base/error.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct hub_http hub_http;
/* `base`: "https://host[/path]" without a slash at the end; http only where the caller allows it. The token, if any,
 * goes to that host alone, never to one that it redirects to, and never into errors or logs. */
err_code hub_http_new(hub_http **out, const char *base, const char *token, err *e);
void hub_http_free(hub_http *h);
/* The body of base + path as text of at most out->max bytes. *next (may be NULL; 1,024 bytes) gets the path of the next
 * page that a Link header names, "" where there is none. */
err_code hub_http_text(hub_http *h, const char *path, buf *out, char *next, err *e);

typedef struct hub_file {
    const char *name; /* for errors */
    const char *path; /* behind base */
    const char *part; /* where the bytes go */
    uint64_t size;
    uint64_t *done; /* over all files, for progress */
    uint64_t total;
    store_progress progress;
    void *ctx;
} hub_file;
/* Fetches what `part` lacks. Broken connections are taken up again where they broke, at most HUB_TRIES times in a row
 * without a byte. ERR_INVALID where the hub sends more or less than `size`. */
#define HUB_TRIES 5
err_code hub_http_file(hub_http *h, const hub_file *f, err *e);
uint64_t hub_http_received(const hub_http *h); /* bytes, headers not counted */

#endif
