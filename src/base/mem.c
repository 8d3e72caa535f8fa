#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static _Atomic int64_t fail_after = -1;
static _Atomic int64_t n_allocations;
static atomic_bool watched;

void mem_fail_after(int64_t n) {
    atomic_store(&fail_after, n);
    atomic_store(&watched, true);
}
int64_t mem_count(void) {
    atomic_store(&watched, true);
    return atomic_load(&n_allocations);
}

/* True where this allocation is the one to fail. The hook is on in tests only; off, a load is all that it costs. */
static bool must_fail(void) {
    if (!atomic_load_explicit(&watched, memory_order_relaxed)) return false;
    atomic_fetch_add_explicit(&n_allocations, 1, memory_order_relaxed);
    if (atomic_load_explicit(&fail_after, memory_order_relaxed) < 0) return false;
    return atomic_fetch_sub(&fail_after, 1) == 0;
}

void *mem_alloc(size_t n) {
    return must_fail() ? NULL : malloc(n ? n : 1);
}
void *mem_zalloc(size_t n) {
    return must_fail() ? NULL : calloc(1, n ? n : 1);
}

void *mem_array(size_t n, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(n, size, &total)) return NULL;
    return mem_zalloc(total);
}

void *mem_realloc(void *p, size_t n) {
    return must_fail() ? NULL : realloc(p, n ? n : 1);
}

char *mem_strndup(const char *s, size_t n) {
    if (n == SIZE_MAX) return NULL;
    char *p = mem_alloc(n + 1);
    if (!p) return NULL;
    if (n) memcpy(p, s, n);
    p[n] = 0;
    return p;
}

char *mem_strdup(const char *s) {
    return mem_strndup(s, strlen(s));
}
void mem_free(void *p) {
    free(p);
}

void *mem_alloc_aligned(size_t n) {
    if (must_fail() || n > SIZE_MAX - (4u << 20)) return NULL;
    size_t huge = (size_t)2 << 20;
    /* Where less than whole large pages are used, what is left of the last one is held for nothing. */
    bool large = n >= 8 * huge || (n && n % huge == 0);
    size_t align = large ? huge : 64;
    void *p = NULL;
    size_t rounded = (n + align - 1) / align * align;
    if (posix_memalign(&p, align, rounded ? rounded : align) != 0) return NULL;
    /* Only a request: where the kernel has no huge pages to give, small ones do. */
    if (large) (void)madvise(p, rounded, MADV_HUGEPAGE);
    return p;
}

void mem_free_aligned(void *p) {
    free(p);
}

void mem_drop_pages(void *p, size_t n, bool large) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)p + page - 1) / page * page, end = ((uintptr_t)p + n) / page * page;
    if (!p || end <= from) return;
    (void)madvise((void *)from, end - from, large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    (void)madvise((void *)from, end - from, MADV_DONTNEED);
}

void mem_trim(void) {
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

void mem_wipe(void *p, size_t n) {
    if (p && n) explicit_bzero(p, n);
}

/* ---- arenas: a list of blocks, the newest first ---- */

typedef struct block {
    struct block *next;
    size_t used, cap;
    _Alignas(16) char data[];
} block;

struct arena {
    block *head;
    size_t limit, total;
};

enum { BLOCK_MIN = 4096 };

arena *arena_new(size_t limit_bytes) {
    arena *a = mem_zalloc(sizeof *a);
    if (a) a->limit = limit_bytes;
    return a;
}

void arena_reset(arena *a) {
    for (block *b = a->head, *next; b; b = next) {
        next = b->next;
        mem_free(b);
    }
    a->head = NULL;
    a->total = 0;
}

void arena_free(arena *a) {
    if (!a) return;
    arena_reset(a);
    mem_free(a);
}

void *arena_alloc(arena *a, size_t n) {
    if (n > a->limit) return NULL;
    n = (n + 15) & ~(size_t)15;
    if (n == 0) n = 16;
    if (n > a->limit - a->total) return NULL;
    block *b = a->head;
    if (!b || b->cap - b->used < n) {
        size_t cap = b ? b->cap * 2 : BLOCK_MIN;
        if (cap > (1u << 20)) cap = 1u << 20;
        if (cap < n) cap = n;
        b = mem_alloc(sizeof *b + cap);
        if (!b) return NULL;
        b->next = a->head;
        b->used = 0;
        b->cap = cap;
        a->head = b;
    }
    void *p = b->data + b->used;
    b->used += n;
    a->total += n;
    memset(p, 0, n);
    return p;
}

char *arena_strndup(arena *a, const char *s, size_t n) {
    if (n == SIZE_MAX) return NULL;
    char *p = arena_alloc(a, n + 1);
    if (p && n) memcpy(p, s, n);
    return p;
}

size_t arena_used(const arena *a) {
    return a->total;
}
