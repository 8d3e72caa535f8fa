/* Memory: checked allocation with a fault hook, arenas, wiped memory.
 *
 * Every allocation of polder's own code goes through mem_*; tests make the n-th one fail (mem_fail_after).
 * Arenas have one lifetime (process, model, session, request) and a hard limit; freeing an arena frees all
 * that came from it. An arena belongs to one thread at a time.
 */
#ifndef POLDER_BASE_MEM_H
#define POLDER_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As malloc and friends; NULL when out of memory. mem_alloc(0) returns a pointer that may be freed.
 * mem_array checks the product for overflow. Free with mem_free only. */
void *mem_alloc(size_t len_bytes);
void *mem_zalloc(size_t len_bytes);
void *mem_array(size_t n, size_t size_bytes); /* zeroed */
void *mem_realloc(void *p, size_t len_bytes);
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t len_bytes); /* copies exactly len bytes and appends NUL */
void mem_free(void *p);
/* Aligned to 64 bytes; in 2 MiB pages where len is a multiple of that, or large. Not zeroed. Free with
 * mem_free_aligned. */
void *mem_alloc_aligned(size_t len_bytes);
void mem_free_aligned(void *p);
/* The content of mem_alloc_aligned's memory is not needed any more: its whole pages go back to the system, and come
 * again, zeroed, when they are touched; from then on as 2 MiB pages where `large` is set, otherwise as small ones. */
void mem_drop_pages(void *p, size_t len_bytes, bool large);
/* Give back what the allocator holds of freed memory: after something large was made of many small pieces. */
void mem_trim(void);
/* Overwrite secrets; the compiler may not drop it. */
void mem_wipe(void *p, size_t len_bytes);

/* Test hook: the allocation after `n` successful ones fails, once (n < 0 switches it off). Process-wide,
 * atomic. mem_count tells how many allocations there have been since the first of these calls. */
void mem_fail_after(int64_t n);
int64_t mem_count(void);

typedef struct arena arena;
/* limit_bytes bounds all that is ever taken from it. */
arena *arena_new(size_t limit_bytes);
void arena_free(arena *a);                     /* NULL is fine */
void arena_reset(arena *a);                    /* frees the content, keeps the arena */
void *arena_alloc(arena *a, size_t len_bytes); /* 16-byte aligned, zeroed; NULL past the limit */
char *arena_strndup(arena *a, const char *s, size_t len_bytes);
size_t arena_used(const arena *a);

#endif
