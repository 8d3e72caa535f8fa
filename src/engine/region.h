/* Internal to engine: the memory that packed matrices lie in. One range of addresses that never changes, so that
 * matrices may point into it; what lies behind the addresses is anonymous memory in 2 MiB pages (where the kernel has
 * them), or a file's mapping that becomes such memory slice by slice while it is being read.
 *
 *   region_new ------> anonymous, writable --region_seal--> read-only
 *   region_map ------> a file's pages, read-only --region_put, slice by slice--> anonymous, read-only
 *
 * region_put swaps the pages behind a slice with one system call: a reader sees the old bytes or the new ones, or waits
 * in a page fault. So the new bytes must be the old ones (or the old ones must not have been read by anybody), and no
 * reader needs a lock.
 */
#ifndef POLDER_ENGINE_REGION_H
#define POLDER_ENGINE_REGION_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REGION_HUGE ((size_t)2 << 20) /* bytes of a large page */

typedef struct region {
    uint8_t *base; /* NULL: none */
    size_t len;    /* whole pages; whole large pages where it is at least one */
    bool is_file;
} region;

/* len > 0 bytes, rounded up. ERR_NOMEM. */
err_code region_new(region *r, size_t len, err *e);
/* Bytes [at, at + len) of a file that is at least as long as at + len rounded up; `at` is a multiple of REGION_HUGE. */
err_code region_map(region *r, int fd, uint64_t at, size_t len, err *e);
void region_seal(region *r);
void region_free(region *r); /* base NULL is fine */
/* How much of len a region takes: len rounded up to pages. */
size_t region_round(size_t len);

/* Anonymous memory for `len` bytes (whole pages), to be filled and then given to region_put, or to region_drop.
 * NULL where there is none. */
void *region_slice(size_t len);
void region_drop(void *slice, size_t len);
/* Put it in the place of [at, at + len). false, and nothing has changed (the slice is still the caller's), where the
 * kernel refuses. */
bool region_put(region *r, size_t at, void *slice, size_t len);

/* Does the kernel give 2 MiB pages to who asks, and are `bytes` of memory free beside what others need? */
bool region_huge_useful(uint64_t bytes);

#endif
