/* tlog-tiles: paths, bytes, exports; and that nothing in an exported folder can change unseen. */
#include "audit/tiles.h"
#include "helpers.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

TEST(paths) {
    static const struct {
        tile t;
        const char *path;
    } rows[] = {
        {{0, 0, 256}, "tile/0/000"},
        {{0, 5, 256}, "tile/0/005"},
        {{1, 999, 1}, "tile/1/999.p/1"},
        {{0, 1000, 255}, "tile/0/x001/000.p/255"},
        {{63, 1234067, 256}, "tile/63/x001/x234/067"},
        {{TILE_ENTRIES, 1234067, 8}, "tile/entries/x001/x234/067.p/8"},
        {{2, UINT64_MAX, 256}, "tile/2/x018/x446/x744/x073/x709/x551/615"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char path[TILE_PATH_MAX];
        tile t;
        tile_path(path, &rows[i].t);
        CHECK_STR(path, rows[i].path);
        CHECK(tile_parse(&t, path));
        CHECK(t.level == rows[i].t.level && t.n == rows[i].t.n && t.width == rows[i].t.width);
    }
    static const char *const bad[] = {"",
                                      "tile",
                                      "tile/",
                                      "tile/0",
                                      "tile/0/",
                                      "tile/0/00",
                                      "tile/0/0000",
                                      "tile/00/000",
                                      "tile/64/000",
                                      "tile/-1/000",
                                      "tile/0/x000/001",
                                      "tile/0/001/002",
                                      "tile/0/x001",
                                      "tile/0/x001/",
                                      "tile/0/x1/001",
                                      "tile/0/000.p",
                                      "tile/0/000.p/",
                                      "tile/0/000.p/0",
                                      "tile/0/000.p/256",
                                      "tile/0/000.p/01",
                                      "tile/0/000.p/1/",
                                      "tile/0/000.p/1x",
                                      "tile/0/000/",
                                      "tile/0/000 ",
                                      "tile/data/000",
                                      "tile/entries",
                                      "tile/entries/",
                                      "/tile/0/000",
                                      "tile/0/x018/x446/x744/x073/x709/x551/616",
                                      "tile/0/x999/x999/x999/x999/x999/x999/999",
                                      "tile/0/x001/x001/x001/x001/x001/x001/x001/001",
                                      "tile/0/+00",
                                      "tile/0/../0",
                                      "checkpoint/"};
    tile t;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (tile_parse(&t, bad[i])) FAIL("%s is taken for a tile", bad[i]);
}

TEST(widths_of_the_specification) {
    /* the example of tlog-tiles: a tree of 70,000 */
    CHECK_INT(tile_count(0, 70000), 274);
    CHECK_INT(tile_width(0, 272, 70000), 256);
    CHECK_INT(tile_width(0, 273, 70000), 112);
    CHECK_INT(tile_width(0, 274, 70000), 0);
    CHECK_INT(tile_count(1, 70000), 2);
    CHECK_INT(tile_width(1, 1, 70000), 17);
    CHECK_INT(tile_width(2, 0, 70000), 1);
    CHECK_INT(tile_count(3, 70000), 0);
    CHECK_INT(tile_count(1, 256), 1);
    CHECK_INT(tile_width(1, 0, 256), 1);
    CHECK_INT(tile_width(1, 0, 255), 0);
    CHECK_INT(tile_count(0, 0), 0);
    CHECK_INT(tile_width(0, 0, 0), 0);
}

typedef struct big { /* a ledger and a place for its export */
    char dir[256], out[300];
    simdisk *d; /* the ledger lies in memory, its export on the real disk */
    ledger *l;
} big;

static bool set_up(big *b, int n) {
    err e;
    if (!test_tmpdir(b->dir)) return false;
    snprintf(b->out, sizeof b->out, "%s/out", b->dir);
    b->d = sim_ledger(&e);
    if (!b->d || open_sim(&b->l, b->d, false, NULL, &e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.msg);
        return false;
    }
    for (int i = 0; i < n; i++)
        if (put_record(b->l, i, -1, NULL, &e) != ERR_OK) return false;
    return true;
}

static void tear_down(big *b) {
    ledger_close(b->l);
    sim_free(b->d);
    test_rm(b->dir);
}

TEST(resources_are_what_their_paths_say) {
    enum { N = 600 };
    big b;
    err e;
    bool immutable;
    CHECK(set_up(&b, N));
    buf r = {.max = 1 << 20}, entry = {.max = LEDGER_ENTRY_MAX};
    hash32 leaf[N], tile1;
    frontier f = {0};
    for (unsigned i = 0; i < N; i++) {
        hash32 h[65];
        buf_reset(&entry);
        CHECK_OK(ledger_read(b.l, i, &entry, &e), e);
        merkle_leaf(&leaf[i], entry.ptr, entry.len);
        if (frontier_append(&f, &leaf[i], h) > 8 && i == 511) tile1 = h[8];
    }
    CHECK_OK(ledger_resource(b.l, "tile/0/001", &r, &immutable, &e), e);
    CHECK(immutable);
    CHECK(r.len == 8192 && memcmp(r.ptr, leaf + 256, 8192) == 0);
    buf_reset(&r);
    CHECK_OK(ledger_resource(b.l, "tile/0/002.p/88", &r, &immutable, &e), e);
    CHECK(r.len == 88 * 32 && memcmp(r.ptr, leaf + 512, r.len) == 0);
    buf_reset(&r);
    CHECK_OK(ledger_resource(b.l, "tile/0/002.p/3", &r, &immutable, &e), e); /* of an earlier checkpoint */
    CHECK(r.len == 3 * 32);
    buf_reset(&r);
    CHECK_OK(ledger_resource(b.l, "tile/1/000.p/2", &r, &immutable, &e), e);
    CHECK(r.len == 64 && memcmp(r.ptr + 32, tile1.b, 32) == 0);
    buf_reset(&r);
    CHECK_OK(ledger_resource(b.l, "tile/entries/002.p/88", &r, &immutable, &e), e);
    size_t at = 0, n;
    const uint8_t *p;
    unsigned i = 512;
    for (hash32 h; entries_next((const uint8_t *)r.ptr, r.len, &at, &p, &n); i++) {
        merkle_leaf(&h, p, n);
        CHECK(hash_equal(&h, &leaf[i]));
    }
    CHECK(i == N && at == r.len);
    buf_reset(&r);
    CHECK_OK(ledger_resource(b.l, "checkpoint", &r, &immutable, &e), e);
    CHECK(!immutable);
    CHECK_HAS(buf_str(&r), ORIGIN "\n600\n");
    static const char *const none[] = {"",
                                       "x",
                                       "tile/0/002",
                                       "tile/0/002.p/89",
                                       "tile/0/003.p/1",
                                       "tile/1/000",
                                       "tile/2/000",
                                       "tile/1/000.p/3",
                                       "tile/entries/002",
                                       "checkpoint2",
                                       "tile/8/000",
                                       "tile/63/000.p/1",
                                       "../keys/ledger.key"};
    for (i = 0; i < sizeof none / sizeof none[0]; i++)
        CHECK_INT(ledger_resource(b.l, none[i], &r, &immutable, &e), ERR_NOT_FOUND);
    buf_free(&r);
    buf_free(&entry);
    tear_down(&b);
}

static bool verifies(const char *dir, const char *vkey, verify_report *r, err *e) {
    return audit_verify_export(dir, vkey, r, e) == ERR_OK;
}

TEST(an_export_verifies_and_is_never_overwritten) {
    static const int sizes[] = {0, 1, 2, 255, 256, 257, 513};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        big b;
        err e;
        verify_report r;
        CHECK(set_up(&b, sizes[i]));
        CHECK_OK(audit_export(b.l, b.out, &e), e);
        if (!verifies(b.out, ledger_vkey(b.l), &r, &e)) FAIL("%d records: %s", sizes[i], e.msg);
        CHECK_INT(r.records, sizes[i]);
        CHECK_INT(r.checkpoints, 1);
        buf_free(&r.text);
        CHECK(verifies(b.out, NULL, &r, &e));
        buf_free(&r.text);
        CHECK_INT(audit_export(b.l, b.out, &e), ERR_EXISTS);
        /* under another key it is not ours */
        note_signer s;
        buf k = {.max = 1000};
        CHECK_OK(note_signer_new(&s, ORIGIN, &e), e);
        note_key_text(&k, &s.key);
        CHECK(!verifies(b.out, buf_str(&k), &r, &e));
        buf_free(&r.text);
        buf_free(&k);
        tear_down(&b);
    }
    err e;
    verify_report r;
    CHECK_INT(audit_verify_export("/nonexistent", NULL, &r, &e), ERR_NOT_FOUND);
    buf_free(&r.text);
}

/* ---- damage ---------------------------------------------------------------------------------------------- */

enum { FILES_MAX = 32 };
static char files[FILES_MAX][400];
static unsigned n_files;

static int add_file(const char *path, const struct stat *st, int type, struct FTW *f) {
    if (type == FTW_F && n_files < FILES_MAX) snprintf(files[n_files++], sizeof files[0], "%s", path);
    return 0;
}

static bool write_bytes(const char *path, const void *p, size_t n) {
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    bool ok = fwrite(p, 1, n, f) == n;
    return fclose(f) == 0 && ok;
}

/* Change one byte in place: truncating and writing anew makes ext4 flush at every close. */
static bool poke(const char *path, size_t at, char c) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = pwrite(fd, &c, 1, (off_t)at) == 1;
    return close(fd) == 0 && ok;
}

/* Every bit of every file of an export of `n` records, or of every `step`-th byte. */
static void flip_all(int n, size_t step) {
    big b;
    err e;
    unsigned long flips = 0;
    CHECK(set_up(&b, n));
    CHECK_OK(audit_export(b.l, b.out, &e), e);
    n_files = 0;
    nftw(b.out, add_file, 16, FTW_PHYS);
    CHECK(n_files >= 4);
    for (unsigned k = 0; k < n_files; k++) {
        buf f = {.max = 1 << 20};
        const char *rel = files[k] + strlen(b.out) + 1;
        CHECK_OK(file_read(&f, files[k], &e), e);
        for (size_t bit = 0; bit < f.len * 8; bit += bit % 8 == 7 ? 1 + 8 * (step - 1) : 1) {
            verify_report r;
            CHECK(poke(files[k], bit / 8, f.ptr[bit / 8] ^ (char)(1 << bit % 8)));
            err_code rc = audit_verify_export(b.out, NULL, &r, &e);
            bool located = strstr(buf_str(&r.text), rel) != NULL;
            /* entries and tiles name the record as well */
            if (strncmp(rel, "tile/", 5) == 0) located = located && strstr(buf_str(&r.text), ": record ");
            if (rc != ERR_NO || !located)
                FAIL("%s: byte %zu bit %zu: %s\n%s", rel, bit / 8, bit % 8, err_name(rc), buf_str(&r.text));
            buf_free(&r.text);
            if (bit % 8 == 7) CHECK(poke(files[k], bit / 8, f.ptr[bit / 8]));
            flips++;
        }
        buf_free(&f);
    }
    verify_report r;
    CHECK(verifies(b.out, NULL, &r, &e)); /* put back, it is whole again */
    buf_free(&r.text);
    printf("%lu flips in %u files of %d records\n", flips, n_files, n);
    tear_down(&b);
}

TEST(every_flipped_bit_of_a_small_export_is_located) {
    flip_all(3, 1);
}
TEST(flipped_bits_of_an_export_with_full_tiles_are_located) {
    flip_all(300, 97);
}

TEST(missing_extra_and_changed_files) {
    big b;
    err e;
    verify_report r;
    char path[700];
    CHECK(set_up(&b, 300));
    CHECK_OK(audit_export(b.l, b.out, &e), e);
    n_files = 0;
    nftw(b.out, add_file, 16, FTW_PHYS);
    CHECK_INT(n_files, 2 + 2 + 1 + 2);
    for (unsigned k = 0; k < n_files; k++) {
        const char *rel = files[k] + strlen(b.out) + 1;
        snprintf(path, sizeof path, "%s/away", b.dir);
        CHECK(rename(files[k], path) == 0);
        CHECK(!verifies(b.out, NULL, &r, &e));
        CHECK_HAS(buf_str(&r.text), rel);
        CHECK_HAS(buf_str(&r.text), "missing");
        buf_free(&r.text);
        buf f = {.max = 1 << 20};
        CHECK_OK(file_read(&f, path, &e), e);
        /* shorter and longer */
        CHECK(write_bytes(files[k], f.ptr, f.len - 1));
        CHECK(!verifies(b.out, NULL, &r, &e));
        CHECK_HAS(buf_str(&r.text), rel);
        buf_free(&r.text);
        buf_putc(&f, 'x');
        CHECK(write_bytes(files[k], f.ptr, f.len));
        CHECK(!verifies(b.out, NULL, &r, &e));
        CHECK_HAS(buf_str(&r.text), rel);
        buf_free(&r.text);
        buf_free(&f);
        CHECK(rename(path, files[k]) == 0);
    }
    static const char *const extra[] = {"tile/0/000.p/3", "tile/2/000",     "tile/entries/000.p/1", "notes.txt",
                                        "tile/0/002",     "checkpoint.old", "tile/1/x001/000",      "tile/0/001"};
    for (size_t i = 0; i < sizeof extra / sizeof extra[0]; i++) {
        char folder[700];
        snprintf(path, sizeof path, "%s/%s", b.out, extra[i]);
        snprintf(folder, sizeof folder, "%s", path);
        *strrchr(folder, '/') = 0;
        CHECK_OK(file_make_dirs(folder, 0755, &e), e);
        CHECK(write_bytes(path, "x", 1));
        CHECK(!verifies(b.out, NULL, &r, &e));
        CHECK_HAS(buf_str(&r.text), extra[i]);
        CHECK_HAS(buf_str(&r.text), "does not belong");
        buf_free(&r.text);
        CHECK(unlink(path) == 0);
        rmdir(folder); /* where it is empty now */
    }
    CHECK(verifies(b.out, NULL, &r, &e));
    buf_free(&r.text);
    /* an empty folder and a link are not files of a log */
    snprintf(path, sizeof path, "%s/empty", b.out);
    CHECK(mkdir(path, 0755) == 0);
    CHECK(!verifies(b.out, NULL, &r, &e));
    buf_free(&r.text);
    CHECK(rmdir(path) == 0 && symlink("vkey", path) == 0);
    CHECK(!verifies(b.out, NULL, &r, &e));
    buf_free(&r.text);
    tear_down(&b);
}

/* Who changes an entry and its hash together is met by the root; who signs a root of his own, by the key. */
TEST(an_entry_changed_with_its_hash_is_found) {
    big b;
    err e;
    verify_report r;
    char path[400];
    CHECK(set_up(&b, 3));
    CHECK_OK(audit_export(b.l, b.out, &e), e);
    buf f = {.max = 1 << 16}, t = {.max = 1 << 16};
    snprintf(path, sizeof path, "%s/tile/entries/000.p/3", b.out);
    CHECK_OK(file_read(&f, path, &e), e);
    char *at = memmem(f.ptr, f.len, "\"n\":1", 5);
    CHECK(at);
    at[4] = '7'; /* canonical all the same */
    CHECK(write_bytes(path, f.ptr, f.len));
    hash32 leaf;
    size_t pos = 0, n;
    const uint8_t *p;
    entries_next((const uint8_t *)f.ptr, f.len, &pos, &p, &n);
    entries_next((const uint8_t *)f.ptr, f.len, &pos, &p, &n);
    merkle_leaf(&leaf, p, n);
    snprintf(path, sizeof path, "%s/tile/0/000.p/3", b.out);
    CHECK_OK(file_read(&t, path, &e), e);
    memcpy(t.ptr + 32, leaf.b, 32);
    CHECK(write_bytes(path, t.ptr, t.len));
    CHECK(!verifies(b.out, NULL, &r, &e));
    CHECK_HAS(buf_str(&r.text), "checkpoint: the root of the 3 records");
    buf_free(&r.text);
    note_signer s;
    frontier fr = {0};
    hash32 h[65], root;
    buf note = {.max = 4096};
    for (int i = 0; i < 3; i++) {
        memcpy(leaf.b, t.ptr + 32 * i, 32);
        frontier_append(&fr, &leaf, h);
    }
    frontier_root(&fr, &root);
    CHECK_OK(note_signer_new(&s, ORIGIN, &e), e);
    checkpoint_sign(&note, &s, 3, &root);
    snprintf(path, sizeof path, "%s/checkpoint", b.out);
    CHECK(write_bytes(path, note.ptr, note.len));
    CHECK(!verifies(b.out, NULL, &r, &e));
    CHECK_HAS(buf_str(&r.text), "checkpoint: signed note: not signed by");
    buf_free(&r.text);
    buf_free(&f);
    buf_free(&t);
    buf_free(&note);
    tear_down(&b);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(paths);
    RUN(widths_of_the_specification);
    RUN(resources_are_what_their_paths_say);
    RUN(an_export_verifies_and_is_never_overwritten);
    RUN(every_flipped_bit_of_a_small_export_is_located);
    RUN(flipped_bits_of_an_export_with_full_tiles_are_located);
    RUN(missing_extra_and_changed_files);
    RUN(an_entry_changed_with_its_hash_is_found);
    return test_end();
}
