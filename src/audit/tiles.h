/* tiles: the paths and bytes of C2SP tlog-tiles resources (tiles are 256 hashes wide). */
#ifndef POLDER_AUDIT_TILES_H
#define POLDER_AUDIT_TILES_H

#include "audit/internal.h"

#define TILE_WIDTH    256u
#define TILE_LEVELS   8 /* 256^8 = 2^64 */
#define TILE_PATH_MAX 96
#define TILE_ENTRIES  (-1) /* level of an entry bundle */

typedef struct tile {
    int level; /* 0..63, or TILE_ENTRIES */
    uint64_t n;
    unsigned width; /* 1..256; 256 is a full tile, whose path has no ".p/" */
} tile;

void tile_path(char out[TILE_PATH_MAX], const tile *t);
/* One spelling a tile: false for every other. */
bool tile_parse(tile *out, const char *path);
/* How many hashes (or entries) tile n of a level has in a tree of `size` leaves: 0 to 256. */
unsigned tile_width(int level, uint64_t n, uint64_t size);
/* How many tiles a level has; 0 where the tree does not reach it. */
uint64_t tile_count(int level, uint64_t size);
/* The bytes, under read_mu. The tile must be in the tree. */
err_code tile_read(ledger *l, const tile *t, buf *out, err *e);

#endif
