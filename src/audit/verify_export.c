/* Verifying an exported folder, from its files alone.
 *
 * Every byte is checked against something else: entries against the hashes of level 0, hashes of a level against those
 * below, the root against the signed checkpoint, the checkpoint's signature against the vkey, the vkey against its own
 * key ID, the set of files against the size. Two trees are computed side by side, one from the entries and one from
 * the level-0 tiles. Where an entry and its hash differ, the tree whose root is the signed one tells which of the two
 * files was changed. */
#include "audit/verify.h"

#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MISMATCH_MAX = PROBLEM_LINES, DEPTH_MAX = 12 };

typedef struct level {
    hash32 from_entries[TILE_WIDTH], from_tiles[TILE_WIDTH];
    unsigned n;      /* hashes gathered for the tile */
    uint64_t tile_n; /* which tile they belong to */
} level;

typedef struct checker {
    const char *dir;
    verify_report *r;
    bool have_checkpoint;
    uint64_t size;
    hash32 root;
    frontier by_entries, by_tiles;
    level level[TILE_LEVELS]; /* 1..7: what the tile must hold */
    uint64_t mismatch[MISMATCH_MAX];
    uint64_t n_mismatch;
    bool lost; /* a file was missing or unusable: the trees cannot be compared */
    buf entries, tile;
} checker;

/* A file of the folder; what is wrong with it is a problem, not an error. */
static bool read_part(checker *c, const char *rel, buf *out, size_t max, err_code *rc, err *e) {
    char path[LEDGER_PATH_MAX];
    err why;
    out->max = max;
    buf_reset(out);
    if ((*rc = path_join(path, sizeof path, e, c->dir, rel)) != ERR_OK) return false;
    err_code got = file_read(out, path, &why);
    if (got == ERR_OK) return true;
    if (got == ERR_NOMEM) {
        *rc = err_nomem(e, rel);
        return false;
    }
    problem(c->r, "%s: %s", rel,
            got == ERR_NOT_FOUND   ? "missing"
            : got == ERR_TOO_LARGE ? "longer than it can be"
                                   : "cannot be read");
    return false;
}

/* ---- checkpoint and key ---------------------------------------------------------------------------------- */

static err_code check_head(checker *c, const char *vkey, err *e) {
    note_key file_key, key;
    err why;
    err_code rc = ERR_OK;
    bool have_key = false;
    if (vkey && (rc = note_key_parse(&key, vkey, strlen(vkey), e)) != ERR_OK) return rc;
    if (read_part(c, "vkey", &c->tile, NOTE_VKEY_MAX, &rc, e)) {
        const buf *b = &c->tile;
        if (b->len == 0 || b->ptr[b->len - 1] != '\n')
            problem(c->r, "vkey: does not end in a newline");
        else if (note_key_parse(&file_key, b->ptr, b->len - 1, &why) != ERR_OK)
            problem(c->r, "vkey: %s", why.msg);
        else if (vkey && (strlen(vkey) != b->len - 1 || memcmp(vkey, b->ptr, b->len - 1) != 0))
            problem(c->r, "vkey: is not the key that this folder was to be checked with");
        else
            have_key = true;
    }
    if (rc != ERR_OK) return rc;
    if (!vkey) key = file_key;
    if (!read_part(c, "checkpoint", &c->tile, NOTE_MAX, &rc, e) || rc != ERR_OK) return rc;
    if (!have_key && !vkey) {
        problem(c->r, "checkpoint: cannot be checked without a key");
        return ERR_OK;
    }
    checkpoint cp;
    if (checkpoint_open_own(&cp, c->tile.ptr, c->tile.len, &key, true, &why) != ERR_OK) {
        problem(c->r, "checkpoint: %s", why.msg);
        return ERR_OK;
    }
    c->have_checkpoint = true;
    c->size = cp.size;
    c->root = cp.root;
    c->r->checkpoints++;
    return ERR_OK;
}

/* ---- tiles above the leaves ------------------------------------------------------------------------------ */

static err_code check_tile(checker *c, int lv, err *e) {
    level *l = &c->level[lv];
    tile t = {.level = lv, .n = l->tile_n, .width = l->n};
    char rel[TILE_PATH_MAX];
    err_code rc = ERR_OK;
    tile_path(rel, &t);
    if (!read_part(c, rel, &c->tile, TILE_WIDTH * HASH_LEN, &rc, e)) return rc;
    if (c->tile.len != (size_t)l->n * HASH_LEN) {
        problem(c->r, "%s: has %zu bytes, not %u", rel, c->tile.len, l->n * HASH_LEN);
        return ERR_OK;
    }
    uint64_t span = (uint64_t)1 << (8 * lv);
    for (unsigned i = 0; i < l->n; i++) {
        const char *h = c->tile.ptr + (size_t)i * HASH_LEN;
        if (memcmp(h, l->from_entries[i].b, HASH_LEN) == 0 || memcmp(h, l->from_tiles[i].b, HASH_LEN) == 0) continue;
        uint64_t from = (l->tile_n * TILE_WIDTH + i) * span;
        problem(c->r, "%s: record %llu: hash %u (records %llu to %llu) is not that of the records", rel,
                (unsigned long long)from, i, (unsigned long long)from, (unsigned long long)(from + span - 1));
    }
    return ERR_OK;
}

static err_code finish_tile(checker *c, int lv, err *e) {
    err_code rc = check_tile(c, lv, e);
    c->level[lv].n = 0;
    c->level[lv].tile_n++;
    return rc;
}

/* Both trees gain a leaf; complete subtrees of 256^k leaves are hashes of the tiles of level k. */
static err_code add_leaf(checker *c, const hash32 *by_entry, const hash32 *by_tile, err *e) {
    hash32 a[MERKLE_LEVELS + 1], b[MERKLE_LEVELS + 1];
    unsigned n = frontier_append(&c->by_entries, by_entry, a);
    frontier_append(&c->by_tiles, by_tile, b);
    for (unsigned k = 8; k < n && k / 8 < TILE_LEVELS; k += 8) {
        level *l = &c->level[k / 8];
        l->from_entries[l->n] = a[k];
        l->from_tiles[l->n] = b[k];
        if (++l->n < TILE_WIDTH) continue;
        err_code rc = finish_tile(c, (int)k / 8, e);
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

/* ---- entries and leaves ---------------------------------------------------------------------------------- */

/* Entry bundle n and tile n of level 0, together. */
static err_code check_bundle(checker *c, uint64_t n, err *e) {
    tile t = {.level = TILE_ENTRIES, .n = n, .width = tile_width(0, n, c->size)};
    char bundle[TILE_PATH_MAX], leaves[TILE_PATH_MAX];
    err_code rc = ERR_OK;
    tile_path(bundle, &t);
    t.level = 0;
    tile_path(leaves, &t);
    bool have_b = read_part(c, bundle, &c->entries, TILE_WIDTH * (LEDGER_ENTRY_MAX + 2u), &rc, e);
    bool have_t = rc == ERR_OK && read_part(c, leaves, &c->tile, TILE_WIDTH * HASH_LEN, &rc, e);
    if (rc != ERR_OK) return rc;
    if (have_t && c->tile.len != (size_t)t.width * HASH_LEN) {
        problem(c->r, "%s: has %zu bytes, not %u", leaves, c->tile.len, t.width * HASH_LEN);
        have_t = false;
    }
    hash32 from_tile[TILE_WIDTH];
    if (have_t) memcpy(from_tile, c->tile.ptr, (size_t)t.width * HASH_LEN);
    size_t at = 0;
    for (unsigned i = 0; i < t.width; i++) {
        uint64_t seq = n * TILE_WIDTH + i;
        const uint8_t *p = NULL;
        size_t len = 0;
        hash32 leaf;
        if (have_b && !entries_next((const uint8_t *)c->entries.ptr, c->entries.len, &at, &p, &len)) {
            problem(c->r, "%s: record %llu: the bundle ends before it", bundle, (unsigned long long)seq);
            have_b = false;
        }
        if (!have_b && !have_t) {
            c->lost = true;
            return ERR_OK;
        }
        if (have_b) {
            err why;
            merkle_leaf(&leaf, p, len);
            rc = entry_check(p, len, &why);
            if (rc == ERR_NOMEM) return err_nomem(e, "checking an entry");
            if (rc != ERR_OK) problem(c->r, "%s: record %llu: %s", bundle, (unsigned long long)seq, why.msg);
            c->r->records++;
        } else {
            leaf = from_tile[i]; /* goes on with what there is; the missing file is a problem already */
        }
        if (!have_t) from_tile[i] = leaf;
        if (!hash_equal(&leaf, &from_tile[i]) && c->n_mismatch++ < MISMATCH_MAX) c->mismatch[c->n_mismatch - 1] = seq;
        rc = add_leaf(c, &leaf, &from_tile[i], e);
        if (rc != ERR_OK) return rc;
    }
    if (have_b && at != c->entries.len)
        problem(c->r, "%s: record %llu: bytes follow the last record of the bundle", bundle,
                (unsigned long long)(n * TILE_WIDTH + t.width - 1));
    return ERR_OK;
}

static void judge(checker *c) {
    hash32 a, b;
    frontier_root(&c->by_entries, &a);
    frontier_root(&c->by_tiles, &b);
    bool entries_right = hash_equal(&a, &c->root), tiles_right = hash_equal(&b, &c->root);
    for (uint64_t i = 0; i < c->n_mismatch && i < MISMATCH_MAX; i++) {
        uint64_t seq = c->mismatch[i], n = seq / TILE_WIDTH;
        tile t = {.level = entries_right ? 0 : TILE_ENTRIES, .n = n, .width = tile_width(0, n, c->size)};
        char rel[TILE_PATH_MAX];
        tile_path(rel, &t);
        problem(c->r, "%s: record %llu: %s", rel, (unsigned long long)seq,
                entries_right ? "the hash is not that of the entry"
                : tiles_right ? "the entry is not the one that was logged"
                              : "entry and hash differ, and neither leads to the signed root");
    }
    if (c->n_mismatch > MISMATCH_MAX) c->r->problems += c->n_mismatch - MISMATCH_MAX;
    if (!entries_right && !tiles_right && !c->lost)
        problem(c->r, "checkpoint: the root of the %llu records is another than the signed one",
                (unsigned long long)c->size);
}

/* ---- the set of files ------------------------------------------------------------------------------------ */

static bool expected(const checker *c, const char *rel) {
    tile t;
    if (strcmp(rel, "checkpoint") == 0 || strcmp(rel, "vkey") == 0) return true;
    return tile_parse(&t, rel) && t.width == tile_width(t.level, t.n, c->size);
}

static err_code walk(checker *c, const char *rel, int depth, unsigned *found, err *e) {
    char path[LEDGER_PATH_MAX];
    err_code rc = path_join(path, sizeof path, e, c->dir, rel);
    if (rc != ERR_OK) return rc;
    DIR *d = opendir(path);
    if (!d) return err_errno(e, "%s", path);
    struct dirent *de;
    while (rc == ERR_OK && (de = readdir(d))) {
        char sub[1024];
        struct stat st;
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0) continue;
        if ((size_t)snprintf(sub, sizeof sub, "%s%s%s", rel, *rel ? "/" : "", de->d_name) >= sizeof sub) {
            problem(c->r, "%s: does not belong to the log", sub);
            continue;
        }
        rc = path_join(path, sizeof path, e, c->dir, sub);
        if (rc != ERR_OK) break;
        unsigned below = 0;
        if (lstat(path, &st) != 0) {
            rc = err_errno(e, "%s", path);
        } else if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
            rc = walk(c, sub, depth + 1, &below, e);
            if (rc == ERR_OK && below == 0) problem(c->r, "%s: does not belong to the log", sub);
            *found += below;
        } else {
            ++*found;
            if (!S_ISREG(st.st_mode) || !expected(c, sub)) problem(c->r, "%s: does not belong to the log", sub);
        }
    }
    closedir(d);
    return rc;
}

static err_code check_all(checker *c, const char *vkey, err *e) {
    unsigned found = 0;
    err_code rc = check_head(c, vkey, e);
    if (rc != ERR_OK || !c->have_checkpoint) return rc; /* without a trusted size there is nothing to compare with */
    uint64_t n = tile_count(0, c->size);
    for (uint64_t i = 0; rc == ERR_OK && i < n && !c->lost; i++) rc = check_bundle(c, i, e);
    for (int lv = 1; rc == ERR_OK && lv < TILE_LEVELS && !c->lost; lv++)
        if (c->level[lv].n) rc = finish_tile(c, lv, e);
    if (rc == ERR_OK) judge(c);
    if (rc == ERR_OK) rc = walk(c, "", 0, &found, e);
    return rc;
}

err_code audit_verify_export(const char *dir, const char *vkey, verify_report *r, err *e) {
    struct stat st;
    report_init(r);
    if (stat(dir, &st) != 0) return err_errno(e, "%s", dir);
    if (!S_ISDIR(st.st_mode)) return err_set(e, ERR_INVALID, "%s: not a folder", dir);
    checker *c = mem_zalloc(sizeof *c);
    if (!c) return err_nomem(e, "verifying");
    c->dir = dir;
    c->r = r;
    err_code rc = check_all(c, vkey, e);
    buf_free(&c->entries);
    buf_free(&c->tile);
    mem_free(c);
    return rc == ERR_OK ? report_result(r, dir, e) : rc;
}
