/* Every bit of an exported log, flipped.
 *
 * An export of thousands of records has millions of bits, and verifying all of it for each of them would take days. So
 * it is done in two ways:
 *   each flip    through the check of the part that it is in, which is the same code that the verifier calls: the key,
 *                the checkpoint, a hash against the one that is computed, a record against its hash;
 *   many flips   drawn from all files through audit_verify_export itself, on a copy on disk; the report must name the
 *                file and, for tiles and entries, the record.
 * (A unit test gives every bit of a small export to the whole verifier.)
 *
 * bitflip EXPORTED-DIR [SECONDS]: closes with a line "N flips ...", exit status 1 where one was not found. Without
 * arguments an export of its own is made. */
#include "audit/tiles.h"
#include "base/mem.h"
#include "tests/harness.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

enum { FILES_MAX = 4096 };

typedef struct part {
    char rel[TILE_PATH_MAX];
    buf b;
    bool is_tile;
    tile t;
} part;

static const char *dir = NULL;
static double seconds = 5;
static part parts[FILES_MAX];
static unsigned n_parts;
static unsigned long long flips, whole, bad;

static int add(const char *path, const struct stat *st, int type, struct FTW *f) {
    if (type != FTW_F || n_parts == FILES_MAX) return type == FTW_F;
    part *p = &parts[n_parts++];
    err e;
    snprintf(p->rel, sizeof p->rel, "%s", path + strlen(dir) + 1);
    p->b.max = 32u << 20;
    p->is_tile = tile_parse(&p->t, p->rel);
    return file_read(&p->b, path, &e) == ERR_OK ? 0 : 1;
}

static part *find(const char *rel) {
    for (unsigned i = 0; i < n_parts; i++)
        if (strcmp(parts[i].rel, rel) == 0) return &parts[i];
    return NULL;
}

static void missed(const part *p, size_t bit) {
    if (bad++ < 10) fprintf(stderr, "%s: byte %zu bit %zu: the flip is not found\n", p->rel, bit / 8, bit % 8);
}

static void flip(part *p, size_t bit) {
    p->b.ptr[bit / 8] ^= (char)(1 << bit % 8);
}

/* ---- each flip, through the check of its part ------------------------------------------------------------- */

static bool head_holds(const part *vkey, const part *note) {
    note_key k;
    checkpoint c;
    err e;
    const buf *v = &vkey->b;
    return v->len && v->ptr[v->len - 1] == '\n' && note_key_parse(&k, v->ptr, v->len - 1, &e) == ERR_OK &&
           checkpoint_open_own(&c, note->b.ptr, note->b.len, &k, true, &e) == ERR_OK;
}

static void flip_head(part *p, const part *vkey, const part *note) {
    for (size_t bit = 0; bit < p->b.len * 8; bit++, flips++) {
        flip(p, bit);
        if (head_holds(vkey, note)) missed(p, bit);
        flip(p, bit);
    }
}

/* Hashes are compared with what the level below gives; want is that. */
static void flip_tile(part *p, const hash32 *want) {
    for (size_t bit = 0; bit < p->b.len * 8; bit++, flips++) {
        size_t i = bit / 8 / HASH_LEN;
        hash32 have;
        flip(p, bit);
        memcpy(have.b, p->b.ptr + i * HASH_LEN, HASH_LEN);
        if (hash_equal(&have, &want[i])) missed(p, bit);
        flip(p, bit);
    }
}

/* Records from the changed one to the end of the bundle: one of them must not hash to its leaf, or the walk breaks. */
static bool bundle_holds(const part *p, size_t at, unsigned i, const hash32 *leaf, bool only_one) {
    for (; i < p->t.width; i++) {
        const uint8_t *entry;
        size_t n;
        hash32 h;
        if (!entries_next((const uint8_t *)p->b.ptr, p->b.len, &at, &entry, &n)) return false;
        merkle_leaf(&h, entry, n);
        if (!hash_equal(&h, &leaf[i])) return false;
        if (only_one) return true;
    }
    return at == p->b.len;
}

static void flip_bundle(part *p, const hash32 *leaf) {
    size_t at = 0;
    for (unsigned i = 0; i < p->t.width; i++) {
        const uint8_t *entry;
        size_t n, begin = at;
        if (!entries_next((const uint8_t *)p->b.ptr, p->b.len, &at, &entry, &n)) {
            missed(p, at * 8);
            return;
        }
        for (size_t bit = begin * 8; bit < at * 8; bit++, flips++) {
            flip(p, bit);
            /* a changed length moves all that follows; a changed byte is in this record's hash */
            if (bundle_holds(p, begin, i, leaf, bit / 8 >= begin + 2)) missed(p, bit);
            flip(p, bit);
        }
    }
}

/* The right hash of (level, index), from the tiles of level 0. */
static bool hash_at(int level, uint64_t index, hash32 *out) {
    if (level == 0) {
        for (unsigned i = 0; i < n_parts; i++) {
            const part *p = &parts[i];
            if (!p->is_tile || p->t.level != 0 || p->t.n != index / TILE_WIDTH) continue;
            memcpy(out->b, p->b.ptr + index % TILE_WIDTH * HASH_LEN, HASH_LEN);
            return true;
        }
        return false;
    }
    frontier f = {0};
    for (uint64_t i = 0; i < TILE_WIDTH; i++) {
        hash32 h, stored[MERKLE_LEVELS + 1];
        if (!hash_at(level - 1, index * TILE_WIDTH + i, &h)) return false;
        frontier_append(&f, &h, stored);
    }
    frontier_root(&f, out);
    return true;
}

static void flip_part(part *p) {
    hash32 want[TILE_WIDTH];
    part *vkey = find("vkey"), *note = find("checkpoint");
    if (!p->is_tile) {
        flip_head(p, vkey, note);
        return;
    }
    int level = p->t.level == TILE_ENTRIES ? 0 : p->t.level;
    for (unsigned i = 0; i < p->t.width; i++)
        if (!hash_at(level, p->t.n * TILE_WIDTH + i, &want[i])) {
            missed(p, 0);
            return;
        }
    if (p->t.level == TILE_ENTRIES)
        flip_bundle(p, want);
    else
        flip_tile(p, want);
}

/* ---- many flips, through the whole verifier --------------------------------------------------------------- */

static char copy[300];

static bool copy_out(void) {
    char path[700], folder[700];
    err e;
    for (unsigned i = 0; i < n_parts; i++) {
        snprintf(path, sizeof path, "%s/%s", copy, parts[i].rel);
        snprintf(folder, sizeof folder, "%s", path);
        *strrchr(folder, '/') = 0;
        if (file_make_dirs(folder, 0700, &e) != ERR_OK) return false;
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(parts[i].b.ptr, 1, parts[i].b.len, f) != parts[i].b.len || fclose(f) != 0) return false;
    }
    return true;
}

static bool poke(const part *p, size_t at, char c) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", copy, p->rel);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = pwrite(fd, &c, 1, (off_t)at) == 1;
    return close(fd) == 0 && ok;
}

static void flip_on_disk(part *p, size_t bit) {
    verify_report r;
    err e;
    if (!poke(p, bit / 8, p->b.ptr[bit / 8] ^ (char)(1 << bit % 8))) bad++;
    err_code rc = audit_verify_export(copy, NULL, &r, &e);
    const char *line = strstr(buf_str(&r.text), p->rel);
    if (rc != ERR_NO || !line || (p->is_tile && !strstr(line, ": record "))) {
        missed(p, bit);
        fprintf(stderr, "the whole verifier said %s: %s\n", err_name(rc), buf_str(&r.text));
    }
    buf_free(&r.text);
    if (!poke(p, bit / 8, p->b.ptr[bit / 8])) bad++;
    whole++;
}

static void flip_many(void) {
    char base[256];
    verify_report r;
    err e;
    if (!test_tmpdir(base)) abort();
    snprintf(copy, sizeof copy, "%s/copy", base);
    if (!copy_out() || audit_verify_export(copy, NULL, &r, &e) != ERR_OK) {
        fprintf(stderr, "the copy does not verify: %s\n", e.msg);
        bad++;
    }
    buf_free(&r.text);
    uint64_t stop = time_mono_ns() + (uint64_t)(seconds * 1e9);
    /* each file first, then files by their size */
    size_t total = 0;
    for (unsigned i = 0; i < n_parts; i++) {
        total += parts[i].b.len;
        flip_on_disk(&parts[i], random_u64() % (parts[i].b.len * 8));
    }
    while (time_mono_ns() < stop && !bad) {
        size_t at = random_u64() % total;
        unsigned i = 0;
        while (at >= parts[i].b.len) at -= parts[i++].b.len;
        flip_on_disk(&parts[i], at * 8 + random_u64() % 8);
    }
    test_rm(base);
}

/* ---- an export of its own --------------------------------------------------------------------------------- */

static bool make_export(char base[256]) {
    static char out[300];
    char island[300];
    ledger *l = NULL;
    err e;
    if (!test_tmpdir(base)) return false;
    snprintf(island, sizeof island, "%s/island", base);
    snprintf(out, sizeof out, "%s/out", base);
    bool ok = ledger_create(island, "polder.test/bitflip", NULL, &e) == ERR_OK &&
              ledger_open(&l, island, NULL, NULL, &e) == ERR_OK;
    for (int i = 0; ok && i < 40; i++) {
        record *r = NULL;
        ok = record_new(&r, "test", &e) == ERR_OK && cJSON_AddNumberToObject(record_body(r), "n", i) &&
             ledger_append(l, r, NULL, &e) == ERR_OK;
        record_free(r);
    }
    ok = ok && audit_export(l, out, &e) == ERR_OK;
    ledger_close(l);
    dir = out;
    return ok;
}

TEST(every_flipped_bit_is_found) {
    char base[256] = "";
    verify_report r;
    err e;
    if (!dir) CHECK(make_export(base));
    err_code rc = audit_verify_export(dir, NULL, &r, &e);
    if (rc != ERR_OK) FAIL("%s does not verify unchanged: %s", dir, e.msg);
    buf_free(&r.text);
    CHECK(nftw(dir, add, 16, FTW_PHYS) == 0);
    CHECK(find("vkey") && find("checkpoint"));
    for (unsigned i = 0; i < n_parts; i++) flip_part(&parts[i]);
    flip_many();
    for (unsigned i = 0; i < n_parts; i++) buf_free(&parts[i].b);
    if (*base) test_rm(base);
    CHECK_INT(bad, 0);
    printf("%llu flips, every bit of %u files, found by the check of their part; %llu of them by the whole verifier, "
           "located\n",
           flips, n_parts, whole);
}

int main(int argc, char **argv) {
    test_begin(1, argv);
    if (argc > 1) {
        dir = argv[1];
        seconds = argc > 2 ? atof(argv[2]) : 30;
        size_t n = strlen(dir);
        while (n > 1 && dir[n - 1] == '/') argv[1][--n] = 0;
    }
    log_set_level(LOG_ERROR);
    RUN(every_flipped_bit_is_found);
    return test_end();
}
