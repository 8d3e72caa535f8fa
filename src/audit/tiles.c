#include "audit/tiles.h"

#include <stdio.h>
#include <string.h>

void tile_path(char out[TILE_PATH_MAX], const tile *t) {
    char digits[64], level[8];
    unsigned long long n = t->n;
    int at = snprintf(digits, sizeof digits, "%03llu", n % 1000);
    while (n >= 1000) { /* higher groups go in front */
        n /= 1000;
        memmove(digits + 5, digits, (size_t)at + 1);
        char group[8];
        snprintf(group, sizeof group, "x%03llu/", n % 1000);
        memcpy(digits, group, 5);
        at += 5;
    }
    if (t->level == TILE_ENTRIES)
        snprintf(level, sizeof level, "entries");
    else
        snprintf(level, sizeof level, "%d", t->level);
    at = snprintf(out, TILE_PATH_MAX, "tile/%s/%s", level, digits);
    if (t->width < TILE_WIDTH) snprintf(out + at, TILE_PATH_MAX - (size_t)at, ".p/%u", t->width);
}

/* Digits of at most `max` characters; stops at the first that is none. */
static bool number(const char **p, size_t max, uint64_t *out) {
    size_t n = 0;
    while (n <= max && (*p)[n] >= '0' && (*p)[n] <= '9') n++;
    if (n > max || !decimal_parse(out, *p, n)) return false;
    *p += n;
    return true;
}

static bool group(const char **p, unsigned *out) {
    *out = 0;
    for (int i = 0; i < 3; i++) {
        if ((*p)[i] < '0' || (*p)[i] > '9') return false;
        *out = *out * 10 + (unsigned)((*p)[i] - '0');
    }
    *p += 3;
    return true;
}

bool tile_parse(tile *out, const char *path) {
    const char *p = path;
    uint64_t v = 0, n = 0;
    unsigned g;
    *out = (tile){.width = TILE_WIDTH};
    if (strncmp(p, "tile/", 5) != 0) return false;
    p += 5;
    if (strncmp(p, "entries/", 8) == 0) {
        out->level = TILE_ENTRIES;
        p += 8;
    } else {
        if (!number(&p, 2, &v) || v > 63 || *p++ != '/') return false;
        out->level = (int)v;
    }
    for (int groups = 0; *p == 'x'; groups++) {
        p++;
        if (groups == 6 || !group(&p, &g) || *p++ != '/') return false;
        n = n * 1000 + g;
    }
    if (!group(&p, &g) || n > (UINT64_MAX - g) / 1000) return false;
    out->n = n * 1000 + g;
    if (*p) {
        if (strncmp(p, ".p/", 3) != 0) return false;
        p += 3;
        if (!number(&p, 3, &v) || v == 0 || v >= TILE_WIDTH || *p) return false;
        out->width = (unsigned)v;
    }
    /* a leading group of zeros is the one thing that is left: there is one path for a tile */
    char again[TILE_PATH_MAX];
    tile_path(again, out);
    return strcmp(again, path) == 0;
}

/* Hashes of a level in the whole tree. */
static uint64_t level_hashes(int level, uint64_t size) {
    if (level == TILE_ENTRIES) return size;
    return level >= TILE_LEVELS ? 0 : size >> (8 * level);
}

unsigned tile_width(int level, uint64_t n, uint64_t size) {
    uint64_t all = level_hashes(level, size);
    if (n > all / TILE_WIDTH) return 0;
    uint64_t left = all - n * TILE_WIDTH;
    return left < TILE_WIDTH ? (unsigned)left : TILE_WIDTH;
}

uint64_t tile_count(int level, uint64_t size) {
    uint64_t all = level_hashes(level, size);
    return all / TILE_WIDTH + (all % TILE_WIDTH != 0);
}

static err_code read_entries(ledger *l, const tile *t, buf *out, err *e) {
    for (unsigned i = 0; i < t->width; i++) {
        const uint8_t *p;
        size_t n;
        hash32 leaf;
        err_code rc = read_entry(l, t->n * TILE_WIDTH + i, &p, &n, &leaf, e);
        if (rc != ERR_OK) return rc;
        buf_be(out, n, 2);
        buf_append(out, p, n);
    }
    return buf_check(out, "an entry bundle", e);
}

err_code tile_read(ledger *l, const tile *t, buf *out, err *e) {
    if (t->level == TILE_ENTRIES) return read_entries(l, t, out, e);
    hash_source s = tree_source(l);
    for (unsigned i = 0; i < t->width; i++) {
        hash32 h;
        err_code rc = s.read(s.ctx, stored_index(8 * (unsigned)t->level, t->n * TILE_WIDTH + i), &h, e);
        if (rc != ERR_OK) return rc;
        buf_append(out, h.b, HASH_LEN);
    }
    return buf_check(out, "a tile", e);
}

err_code ledger_resource(ledger *l, const char *path, buf *out, bool *immutable, err *e) {
    tile t;
    *immutable = false;
    if (strcmp(path, "checkpoint") == 0) return ledger_checkpoint(l, out, e);
    if (!tile_parse(&t, path) || tile_width(t.level, t.n, atomic_load(&l->size)) < t.width)
        return err_set(e, ERR_NOT_FOUND, "ledger: there is no resource of this path now; see C2SP tlog-tiles");
    /* narrower partial tiles than the newest stay: a checkpoint called for them once */
    *immutable = true;
    pthread_mutex_lock(&l->read_mu);
    err_code rc = tile_read(l, &t, out, e);
    pthread_mutex_unlock(&l->read_mu);
    return rc;
}
