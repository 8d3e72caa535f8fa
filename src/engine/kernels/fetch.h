/* Internal to the vector kernels: fetching the tile that attention reads next. */
#ifndef POLDER_ENGINE_KERNELS_FETCH_H
#define POLDER_ENGINE_KERNELS_FETCH_H

#include <stddef.h>
#include <stdint.h>

/* It goes to the second-level cache, some lines in each step of the loops over the present tile: asked for all at once
 * they would hold up the arithmetic, and the hardware does not guess the next page. */
typedef struct fetching {
    const char *at;
    uint32_t left, lines; /* still to be asked for; in a step */
} fetching;

static inline void fetch_step(fetching *f) {
    for (uint32_t i = 0; i < f->lines && f->left > 0; i++, f->left--, f->at += 64) __builtin_prefetch(f->at, 0, 2);
}

/* Part i of n of a tile (NULL: nothing), in about so many steps. */
static inline fetching fetch_part(const char *tile, size_t bytes, uint32_t i, uint32_t n, uint32_t steps) {
    size_t lines = bytes / 64, first = lines * i / n;
    uint32_t left = tile ? (uint32_t)(lines * (i + 1) / n - first) : 0;
    return (fetching){tile ? tile + first * 64 : NULL, left, left / steps + 1};
}

#endif
