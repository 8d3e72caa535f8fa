#include "engine/region.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

size_t region_round(size_t len) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), unit = len >= REGION_HUGE && page < REGION_HUGE ? REGION_HUGE : page;
    return (len + unit - 1) / unit * unit;
}

/* Addresses for len bytes, aligned to a large page where there is room for one; nothing is behind them yet. */
static uint8_t *reserve(size_t len) {
    size_t align = len >= REGION_HUGE ? REGION_HUGE : (size_t)sysconf(_SC_PAGESIZE);
    void *probe = mem_alloc(1); /* the tests' hook for memory that is short */
    mem_free(probe);
    if (!probe || len > SIZE_MAX / 2) return NULL;
    uint8_t *p = mmap(NULL, len + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t before = (align - (uintptr_t)p % align) % align;
    if (before) munmap(p, before);
    if (align > before) munmap(p + before + len, align - before);
    return p + before;
}

void *region_slice(size_t len) {
    uint8_t *p = reserve(len);
    if (!p) return NULL;
    void *q = mmap(p, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (q == MAP_FAILED) {
        munmap(p, len);
        return NULL;
    }
    /* Only a request: where the kernel has no large pages to give, small ones do. */
    if (len >= REGION_HUGE) (void)madvise(p, len, MADV_HUGEPAGE);
    return p;
}

void region_drop(void *slice, size_t len) {
    if (slice) munmap(slice, len);
}

err_code region_new(region *r, size_t len, err *e) {
    *r = (region){.len = region_round(len)};
    r->base = region_slice(r->len);
    if (r->base) return ERR_OK;
    return err_set(e, ERR_NOMEM, "a model's weights: no memory for %zu MiB; free some or take a smaller model",
                   r->len >> 20);
}

err_code region_map(region *r, int fd, uint64_t at, size_t len, err *e) {
    *r = (region){.len = region_round(len), .is_file = true};
    uint8_t *p = reserve(r->len);
    if (!p) return err_nomem(e, "addresses for a model's weights");
    if (mmap(p, r->len, PROT_READ, MAP_SHARED | MAP_FIXED, fd, (off_t)at) == MAP_FAILED) {
        err_code rc = err_errno(e, "a model's packed weights: cannot be mapped");
        munmap(p, r->len);
        return rc;
    }
    r->base = p;
    return ERR_OK;
}

void region_seal(region *r) {
    if (r->base) (void)mprotect(r->base, r->len, PROT_READ); /* a guard, not a need */
}

void region_free(region *r) {
    if (r->base) munmap(r->base, r->len);
    *r = (region){0};
}

bool region_put(region *r, size_t at, void *slice, size_t len) {
    (void)mprotect(slice, len, PROT_READ);
    return mremap(slice, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, r->base + at) != MAP_FAILED;
}

static bool read_line_of(const char *path, const char *key, char *out, size_t cap) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool found = false;
    while (!found && fgets(out, (int)cap, f)) found = strncmp(out, key, strlen(key)) == 0;
    fclose(f);
    return found;
}

bool region_huge_useful(uint64_t bytes) {
    char line[256];
    if (!read_line_of("/sys/kernel/mm/transparent_hugepage/enabled", "", line, sizeof line) || strstr(line, "[never]"))
        return false;
    unsigned long long kib = 0;
    if (!read_line_of("/proc/meminfo", "MemAvailable:", line, sizeof line) ||
        sscanf(line, "MemAvailable: %llu", &kib) != 1)
        return false;
    return bytes + bytes / 8 < kib << 10; /* the file's pages, which it stands in for, count as available */
}
