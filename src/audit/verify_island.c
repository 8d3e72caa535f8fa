/* Verifying an island's ledger on disk: every frame, every entry, every signed checkpoint, the derived tree, the
 * content keys and, where asked for, every content.
 *
 * It runs beside a writer too. What a writer has in hand lies behind the last whole frame; there a difference is a
 * problem only where the ledger says that it was closed cleanly. */
#include "audit/verify.h"

#include "base/json.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { TREE_CHUNK = 512 };

typedef struct checker {
    vfs *fs;
    const char *dir;
    verify_report *r;
    bool contents, has_closed, has_published;
    checkpoint closed, published;
    note_key key;
    char vkey[NOTE_VKEY_MAX];
    uint8_t log_id[32];
    vault vault;
    vfile *tree;
    frontier edge;
    bool lost;        /* the tree so far is not known: roots cannot be compared until the next segment */
    bool saw_publish; /* a state of the size of the published checkpoint was met */
    char name[64];    /* of the segment */
    vfile *seg;
    uint64_t seg_len;
} checker;

typedef unsigned long long ull;

/* ---- one frame ------------------------------------------------------------------------------------------- */

/* Compare the hashes that a leaf adds with the tree file. */
static err_code check_hashes(checker *c, uint64_t seq, const hash32 *h, unsigned n, err *e) {
    hash32 have[MERKLE_LEVELS + 1];
    int64_t got = c->tree ? c->fs->pread(c->fs, c->tree, have, n * HASH_LEN, stored_count(seq) * HASH_LEN) : 0;
    if (got < 0) return fs_error((int)got, e, "%s/ledger/tree", c->dir);
    if ((size_t)got != n * HASH_LEN || memcmp(have, h, n * HASH_LEN) != 0)
        problem(c->r, "ledger/tree: record %llu: its hashes are not those of the records", (ull)seq);
    return ERR_OK;
}

static err_code check_entries(checker *c, const frame *f, err *e) {
    const uint8_t *p;
    size_t at = 0, n;
    while (entries_next((const uint8_t *)f->entries.ptr, f->entries.len, &at, &p, &n)) {
        hash32 leaf, h[MERKLE_LEVELS + 1];
        err why;
        uint64_t seq = c->edge.size;
        err_code rc = entry_check(p, n, &why);
        if (rc == ERR_NOMEM) return err_nomem(e, "checking an entry");
        if (rc != ERR_OK) problem(c->r, "%s: record %llu: %s", c->name, (ull)seq, why.msg);
        merkle_leaf(&leaf, p, n);
        rc = check_hashes(c, seq, h, frontier_append(&c->edge, &leaf, h), e);
        if (rc != ERR_OK) return rc;
        c->r->records++;
    }
    return ERR_OK;
}

static void check_state(checker *c) {
    hash32 root;
    if (c->edge.size != c->published.size || !c->has_published) return;
    frontier_root(&c->edge, &root);
    c->saw_publish = true;
    if (!hash_equal(&root, &c->published.root))
        problem(c->r, "ledger/checkpoint: the log has another root at %llu records", (ull)c->edge.size);
}

static void check_note(checker *c, const frame *f) {
    checkpoint cp;
    err why;
    hash32 root;
    uint64_t last = c->edge.size - 1;
    if (checkpoint_open_own(&cp, f->note, f->h.note_len, &c->key, true, &why) != ERR_OK) {
        problem(c->r, "%s: record %llu: %s", c->name, (ull)last, why.msg);
        return;
    }
    c->r->checkpoints++;
    frontier_root(&c->edge, &root);
    if (cp.size != c->edge.size || !hash_equal(&cp.root, &root))
        problem(c->r, "%s: record %llu: the checkpoint after it has another root than the records", c->name, (ull)last);
}

/* ---- contents -------------------------------------------------------------------------------------------- */

/* Every content that the entry names is in the vault and is what it commits to, and nothing else is there. */
static void check_commitments(checker *c, uint64_t seq, const cJSON *entry, const uint8_t *plain, size_t n) {
    const cJSON *all = json_get(entry, "content");
    content_view v;
    size_t at = 0;
    unsigned left = 0;
    int seen = 0;
    bool whole;
    while (vault_next(plain, n, &at, &left, &v, &whole)) {
        char name[256], hex[SHA256_HEX_LEN + 1];
        uint8_t mac[SHA256_LEN];
        snprintf(name, sizeof name, "%.*s", (int)v.name_len, v.name);
        const cJSON *one = all ? json_get(all, name) : NULL;
        const cJSON *commit = one ? json_get(one, "commit") : NULL, *bytes = one ? json_get(one, "bytes") : NULL;
        hmac_sha256(mac, v.salt, SALT_LEN, v.bytes, v.len);
        hex_encode(hex, mac, sizeof mac);
        seen++;
        if (!commit || !cJSON_IsString(commit) || strcmp(commit->valuestring, hex) != 0 || !cJSON_IsNumber(bytes) ||
            bytes->valuedouble != (double)v.len)
            problem(c->r, "%s: record %llu: content %s is not what the record commits to", c->name, (ull)seq, name);
    }
    if (!whole || !all || seen != cJSON_GetArraySize(all))
        problem(c->r, "%s: record %llu: its contents are not those that it names", c->name, (ull)seq);
}

static err_code check_sealed(checker *c, uint64_t seq, const uint8_t *entry, size_t entry_len, uint64_t off, size_t len,
                             err *e) {
    uint8_t key[CONTENT_KEY_LEN], *plain = NULL;
    slot_state state = SLOT_EMPTY;
    size_t n = 0;
    hash32 leaf;
    err why;
    uint8_t *sealed = mem_alloc(len);
    if (!sealed) return err_nomem(e, "a record's contents");
    int r = fs_read_exact(c->fs, c->seg, sealed, len, off);
    err_code rc = r == 0 ? ERR_OK : fs_error(r, e, "%s/%s", c->dir, c->name);
    merkle_leaf(&leaf, entry, entry_len);
    if (rc == ERR_OK) r = vault_find_key(&c->vault, seq, &leaf, sealed, len, &state, key);
    if (rc == ERR_OK && r != 0) rc = fs_error(r, e, "%s/ledger/keys", c->dir);
    if (rc == ERR_OK && state == SLOT_ERASED) {
        c->r->erased++;
    } else if (rc == ERR_OK && state != SLOT_KEY) {
        problem(c->r, "ledger/keys: record %llu: the key of its contents is %s", (ull)seq,
                state == SLOT_EMPTY ? "missing" : "damaged");
    } else if (rc == ERR_OK) {
        c->r->contents++;
        cJSON *v = NULL;
        if (vault_open(c->log_id, &leaf, key, sealed, len, &plain, &n, &why) != ERR_OK)
            problem(c->r, "%s: record %llu: %s", c->name, (ull)seq, why.msg);
        else if (json_parse(&v, (const char *)entry, entry_len, "entry", &why) == ERR_OK)
            check_commitments(c, seq, v, plain, n);
        cJSON_Delete(v);
    }
    mem_wipe(sealed, len);
    mem_wipe(key, sizeof key);
    mem_free(sealed);
    return rc;
}

static bool names_contents(const uint8_t *entry, size_t n) {
    cJSON *v = NULL;
    err ignored;
    bool yes = json_parse(&v, (const char *)entry, n, "entry", &ignored) == ERR_OK && json_get(v, "content");
    cJSON_Delete(v);
    return yes;
}

/* All contents of a frame; and the slots of records that have none are empty. */
static err_code check_contents(checker *c, const frame *f, err *e) {
    uint64_t table_len = f->h.contents_len ? 4ull * f->h.count : 0, off = f->contents_off + table_len;
    uint8_t *table = mem_alloc((size_t)table_len);
    if (!table) return err_nomem(e, "a table of contents");
    int r = fs_read_exact(c->fs, c->seg, table, (size_t)table_len, f->contents_off);
    err_code rc = r == 0 ? ERR_OK : fs_error(r, e, "%s/%s", c->dir, c->name);
    const uint8_t *p;
    size_t at = 0, n;
    uint64_t end = f->contents_off + f->h.contents_len;
    for (uint32_t i = 0; rc == ERR_OK && i < f->h.count; i++) {
        uint64_t seq = f->h.first + i, len = table_len ? be_get(table + 4 * (size_t)i, 4) : 0;
        entries_next((const uint8_t *)f->entries.ptr, f->entries.len, &at, &p, &n);
        if (len == 0) {
            slot_state state;
            uint8_t key[CONTENT_KEY_LEN];
            r = vault_read(&c->vault, seq, &state, key);
            if (r != 0) rc = fs_error(r, e, "%s/ledger/keys", c->dir);
            if (r == 0 && state != SLOT_EMPTY)
                problem(c->r, "ledger/keys: record %llu: a key where there are no contents", (ull)seq);
            if (names_contents(p, n)) problem(c->r, "%s: record %llu: its contents are not there", c->name, (ull)seq);
        } else if (off + len > end) {
            problem(c->r, "%s: record %llu: its contents do not fit into the group", c->name, (ull)seq);
            break;
        } else {
            rc = check_sealed(c, seq, p, n, off, (size_t)len, e);
        }
        off += len;
    }
    if (rc == ERR_OK && off < end)
        problem(c->r, "%s: record %llu: bytes follow the contents of its group", c->name, (ull)f->h.first);
    mem_free(table);
    return rc;
}

/* ---- a segment ------------------------------------------------------------------------------------------- */

static bool closed_at_end(const checker *c) {
    return c->has_closed && c->closed.size == c->edge.size;
}

/* A frame of later records is believed only where the log has signed for its place: its SHA-256 anybody can compute. */
static bool signed_place(const checker *c, const frame *f) {
    checkpoint cp;
    err ignored;
    return f->h.first > c->edge.size &&
           checkpoint_open_own(&cp, f->note, f->h.note_len, &c->key, true, &ignored) == ERR_OK &&
           cp.size == f->h.first + f->h.count;
}

/* The next whole frame behind a damaged one. */
static err_code find_frame(checker *c, uint64_t *off, err *e) {
    for (*off += SECTOR; *off < c->seg_len; *off += SECTOR) {
        frame f;
        frame_state state;
        err_code rc = frame_peek(c->fs, c->seg, *off, c->seg_len, &f, &state, e);
        if (rc == ERR_OK && state == FRAME_GOOD) rc = frame_load(c->fs, c->seg, *off, c->seg_len, &f, &state, e);
        bool found = rc == ERR_OK && state == FRAME_GOOD && signed_place(c, &f);
        frame_free(&f);
        if (rc != ERR_OK || found) return rc;
    }
    return ERR_OK;
}

/* Name the records of a damaged frame whose bytes do not hash to the leaves of the tree file. */
static err_code blame_records(checker *c, uint64_t off, const char *why, err *e) {
    frame f;
    frame_state state;
    bool named = false;
    err_code rc = frame_load_entries(c->fs, c->seg, off, c->seg_len, &f, &state, e);
    if (rc == ERR_OK && state == FRAME_GOOD && f.h.first == c->edge.size && c->tree) {
        const uint8_t *p;
        size_t at = 0, n;
        uint64_t seq = f.h.first;
        for (; entries_next((const uint8_t *)f.entries.ptr, f.entries.len, &at, &p, &n); seq++) {
            hash32 leaf, want;
            merkle_leaf(&leaf, p, n);
            if (c->fs->pread(c->fs, c->tree, want.b, HASH_LEN, stored_index(0, seq) * HASH_LEN) != HASH_LEN) break;
            if (hash_equal(&leaf, &want)) continue;
            problem(c->r, "%s: record %llu: its bytes are not those that were logged", c->name, (ull)seq);
            named = true;
        }
    }
    frame_free(&f);
    if (rc == ERR_OK && !named)
        problem(c->r, "%s: record %llu: the group that begins with it is damaged: %s", c->name, (ull)c->edge.size, why);
    return rc;
}

/* Between a damaged frame and the next whole one the leaves come from the tree file. */
static void bridge(checker *c, uint64_t to) {
    while (c->edge.size < to && c->tree) {
        hash32 leaf, h[MERKLE_LEVELS + 1];
        uint64_t at = stored_index(0, c->edge.size) * HASH_LEN;
        if (c->fs->pread(c->fs, c->tree, leaf.b, HASH_LEN, at) != HASH_LEN) break;
        frontier_append(&c->edge, &leaf, h);
    }
    if (c->edge.size != to) {
        c->edge.size = to;
        c->lost = true;
    }
}

static err_code check_frame(checker *c, const frame *f, err *e) {
    if (f->h.first != c->edge.size) {
        problem(c->r, "%s: record %llu: missing; record %llu comes instead", c->name, (ull)c->edge.size,
                (ull)f->h.first);
        bridge(c, f->h.first);
    }
    err_code rc = check_entries(c, f, e);
    if (rc == ERR_OK && !c->lost) {
        check_note(c, f);
        check_state(c);
    }
    return rc == ERR_OK && c->contents ? check_contents(c, f, e) : rc;
}

/* What lies behind the last frame of a segment. */
static err_code check_rest(checker *c, uint64_t off, bool last, const char *why, err *e) {
    uint8_t chunk[16 * SECTOR];
    uint64_t n = 0, from = off;
    int64_t got;
    while ((got = c->fs->pread(c->fs, c->seg, chunk, sizeof chunk, off)) > 0) {
        for (size_t i = (size_t)got; i > 0 && n < off + (size_t)got; i--)
            if (chunk[i - 1]) n = off + i;
        off += (uint64_t)got;
    }
    if (got < 0) return fs_error((int)got, e, "%s/%s", c->dir, c->name);
    if (n == 0) return ERR_OK;
    if (!last || closed_at_end(c) || (c->has_published && c->published.size > c->edge.size))
        problem(c->r, "%s: record %llu: %llu bytes follow the records that are none (%s)", c->name, (ull)c->edge.size,
                (ull)(n - from), why[0] ? why : "not zero");
    else
        remark(c->r, "%s: %llu bytes of an unfinished group after record %llu (no problem: nobody was told of it)",
               c->name, (ull)(n - from), (ull)c->edge.size - 1);
    return ERR_OK;
}

static err_code check_frames(checker *c, bool last, err *e) {
    for (uint64_t off = SEG_HEADER_LEN;;) {
        frame f;
        frame_state state;
        char why[160];
        err_code rc = frame_load(c->fs, c->seg, off, c->seg_len, &f, &state, e);
        snprintf(why, sizeof why, "%s", state == FRAME_BAD ? f.why : "");
        if (rc == ERR_OK && state == FRAME_GOOD && f.h.first != c->edge.size && !signed_place(c, &f)) {
            snprintf(why, sizeof why, "it says that it begins with record %llu", (ull)f.h.first);
            state = FRAME_BAD;
        }
        if (rc == ERR_OK && state == FRAME_GOOD) rc = check_frame(c, &f, e);
        uint64_t room = state == FRAME_GOOD ? frame_room(&f.h) : 0;
        frame_free(&f);
        if (rc != ERR_OK) return rc;
        if (state == FRAME_GOOD) {
            off += room;
            continue;
        }
        uint64_t next = off;
        rc = find_frame(c, &next, e);
        if (rc != ERR_OK) return rc;
        if (next < c->seg_len) { /* damage in the middle */
            rc = blame_records(c, off, why[0] ? why : "its first bytes are zero", e);
            off = next;
            if (rc == ERR_OK && frame_peek(c->fs, c->seg, off, c->seg_len, &f, &state, e) == ERR_OK)
                bridge(c, f.h.first);
            if (rc != ERR_OK) return rc;
            continue;
        }
        bool covered = !last || (c->has_published && c->published.size > c->edge.size) ||
                       (c->has_closed && c->closed.size > c->edge.size);
        if (state == FRAME_BAD && covered) {
            rc = blame_records(c, off, why, e);
            return rc;
        }
        return check_rest(c, off, last, why, e);
    }
}

static err_code check_segment(checker *c, uint64_t first, bool last, err *e) {
    seg_header h;
    err why;
    err_code rc = segment_open(c->fs, c->dir, first, VFS_READ, &c->seg, c->name, e);
    if (rc != ERR_OK) return rc;
    int64_t len = c->fs->size(c->fs, c->seg);
    c->seg_len = len > 0 ? (uint64_t)len : 0;
    rc = seg_header_open(&h, c->fs, c->seg, c->name, c->log_id, &c->key, &why);
    if (rc == ERR_OK) {
        c->r->checkpoints++;
        if (h.edge.size != first)
            problem(c->r, "%s: record %llu: the header says %llu", c->name, (ull)first, (ull)h.edge.size);
        if (c->edge.size != first) /* whatever is between was reported as missing or damaged, or is missing now */
            problem(c->r, "%s: record %llu: missing; the segment begins with record %llu", c->name, (ull)c->edge.size,
                    (ull)first);
        else if (!c->lost && !frontier_equal(&h.edge, &c->edge))
            problem(c->r, "%s: record %llu: the tree before the segment is another", c->name, (ull)first);
        if (h.edge.size >= c->edge.size) {
            c->edge = h.edge; /* signed: a new start where something was lost */
            c->lost = false;
        }
    } else {
        problem(c->r, "record %llu: %s", (ull)first, why.msg);
    }
    check_state(c);
    rc = check_frames(c, last, e);
    c->fs->close(c->fs, c->seg);
    c->seg = NULL;
    return rc;
}

/* ---- the files around ------------------------------------------------------------------------------------ */

/* A signed note beside the log. */
static err_code check_note_file(checker *c, const char *name, checkpoint *cp, bool *have, bool needed, err *e) {
    buf b = {.max = NOTE_OWN_MAX};
    err why = {0};
    err_code rc = fs_read_file(c->fs, c->dir, name, &b, &why);
    *have = false;
    if (rc == ERR_NOT_FOUND) {
        if (needed) problem(c->r, "%s: missing", name);
        rc = ERR_OK;
    } else if (rc == ERR_TOO_LARGE) {
        problem(c->r, "%s: longer than a checkpoint", name);
        rc = ERR_OK;
    } else if (rc != ERR_OK) {
        if (e) *e = why;
    } else if (checkpoint_open_own(cp, b.ptr, b.len, &c->key, true, &why) != ERR_OK) {
        problem(c->r, "%s: %s", name, why.msg);
    } else {
        *have = true;
        c->r->checkpoints++;
    }
    buf_free(&b);
    return rc;
}

static int check_name(void *ctx, const char *name) {
    checker *c = ctx;
    static const char *const known[] = {"lock", "checkpoint", "checkpoint.tmp", "clean", "clean.tmp",
                                        "seg",  "keys",       "seeds",          "tree"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i]) == 0) return 0;
    problem(c->r, "ledger/%s: does not belong to the ledger", name);
    return 0;
}

/* Behind the last record: nothing, where the ledger was closed. */
static err_code check_ends(checker *c, err *e) {
    if (!closed_at_end(c)) return ERR_OK;
    int64_t len = c->tree ? c->fs->size(c->fs, c->tree) : 0;
    uint64_t want = stored_count(c->edge.size) * HASH_LEN;
    if (len < 0) return fs_error((int)len, e, "%s/ledger/tree", c->dir);
    if ((uint64_t)len > want)
        problem(c->r, "ledger/tree: record %llu: %llu bytes follow the hashes of the last record", (ull)c->edge.size,
                (ull)((uint64_t)len - want));
    uint8_t chunk[8 * SECTOR];
    int64_t got;
    for (uint64_t off = slot_offset(c->edge.size);
         (got = c->fs->pread(c->fs, c->vault.f, chunk, sizeof chunk, off)) > 0; off += (uint64_t)got)
        if (!all_zero(chunk, (size_t)got))
            problem(c->r, "ledger/keys: record %llu: bytes at %llu follow the key of the last record",
                    (ull)c->edge.size, (ull)off);
    return got < 0 ? fs_error((int)got, e, "%s/ledger/keys", c->dir) : ERR_OK;
}

/* The zero bytes between the slots of one sector and the next. */
static err_code check_gaps(checker *c, err *e) {
    uint64_t sectors = (c->edge.size + KEYS_PER_SECTOR - 1) / KEYS_PER_SECTOR;
    uint8_t gap[SECTOR - KEYS_PER_SECTOR * KEY_SLOT_LEN];
    for (uint64_t i = 0; i < sectors; i++) {
        int64_t got = c->fs->pread(c->fs, c->vault.f, gap, sizeof gap, (i + 2) * SECTOR - sizeof gap);
        if (got < 0) return fs_error((int)got, e, "%s/ledger/keys", c->dir);
        if (got == 0) break; /* the file grows with the first content */
        if (!all_zero(gap, (size_t)got))
            problem(c->r, "ledger/keys: record %llu: the bytes after its slot are not zero",
                    (ull)(i * KEYS_PER_SECTOR + KEYS_PER_SECTOR - 1));
    }
    return ERR_OK;
}

static err_code open_part(checker *c, const char *name, vfile **f, err *e) {
    char path[LEDGER_PATH_MAX];
    err_code rc = fs_path(c->dir, path, name, e);
    if (rc != ERR_OK) return rc;
    int r = c->fs->open(c->fs, f, path, VFS_READ);
    if (r == -ENOENT)
        problem(c->r, "%s: missing", name);
    else if (r != 0)
        return fs_error(r, e, "%s", path);
    return ERR_OK;
}

static err_code check_keys(checker *c, const char *vkey, err *e) {
    err why;
    note_key mine;
    char text[NOTE_VKEY_MAX];
    err_code rc = load_vkey(c->fs, c->dir, &mine, text, &why);
    if (rc == ERR_NOMEM || (rc != ERR_OK && !vkey)) {
        if (e) *e = why;
        return rc == ERR_CORRUPT ? err_set(e, ERR_NO, "%s", why.msg) : rc;
    }
    if (rc != ERR_OK || (vkey && strcmp(vkey, text) != 0))
        problem(c->r, "keys/ledger.vkey: %s", rc == ERR_OK ? "is not the key to check with" : why.msg);
    snprintf(c->vkey, sizeof c->vkey, "%s", vkey ? vkey : text);
    rc = note_key_parse(&c->key, c->vkey, strlen(c->vkey), e);
    if (rc != ERR_OK) return rc;
    log_id_of(c->log_id, c->vkey);
    memcpy(c->vault.log_id, c->log_id, 32);
    c->vault.fs = c->fs;
    note_signer s;
    rc = load_signer(c->fs, c->dir, &s, &why); /* a copy of the ledger may well be without it */
    if (rc == ERR_CORRUPT || (rc == ERR_OK && memcmp(s.key.pub, c->key.pub, sizeof s.key.pub) != 0))
        problem(c->r, "keys/ledger.key: is not the private half of the verifier key");
    mem_wipe(&s, sizeof s);
    if (!c->contents) return ERR_OK;
    rc = load_vault_key(c->fs, c->dir, c->vault.master, &why);
    if (rc == ERR_CORRUPT) {
        problem(c->r, "%s; contents were not checked", why.msg);
        c->contents = false;
        return ERR_OK;
    }
    c->vault.have_master = rc == ERR_OK;
    if (rc != ERR_OK && e) *e = why;
    return rc;
}

static err_code check_log(checker *c, err *e) {
    uint64_t *segs = NULL;
    size_t n = 0;
    unsigned strangers = 0;
    /* before the segments are listed: what these cover was durable by then */
    err_code rc = check_note_file(c, "ledger/checkpoint", &c->published, &c->has_published, true, e);
    if (rc == ERR_OK) rc = check_note_file(c, "ledger/clean", &c->closed, &c->has_closed, false, e);
    if (rc == ERR_OK) rc = list_segments(c->fs, c->dir, &segs, &n, &strangers, e);
    if (rc == ERR_OK && strangers) problem(c->r, "ledger/seg: %u files that do not belong to the ledger", strangers);
    if (rc == ERR_OK && n == 0) problem(c->r, "ledger/seg: holds no segment");
    for (size_t i = 0; rc == ERR_OK && i < n; i++) rc = check_segment(c, segs[i], i + 1 == n, e);
    mem_free(segs);
    if (rc != ERR_OK) return rc;
    if (c->has_published && c->published.size > c->edge.size)
        problem(
            c->r,
            "ledger/checkpoint: covers %llu records, the log has %llu: records were lost or an old copy was put back",
            (ull)c->published.size, (ull)c->edge.size);
    else if (c->has_published && !c->saw_publish && !c->lost)
        problem(c->r, "ledger/checkpoint: the log was never of %llu records", (ull)c->published.size);
    if (c->has_closed && c->closed.size > c->edge.size)
        problem(c->r, "ledger/clean: the log was closed with %llu records and has %llu", (ull)c->closed.size,
                (ull)c->edge.size);
    return ERR_OK;
}

static err_code check_all(checker *c, const char *vkey, err *e) {
    char path[LEDGER_PATH_MAX];
    err why;
    err_code rc = check_keys(c, vkey, e);
    if (rc == ERR_OK) rc = fs_path(c->dir, path, "ledger", e);
    if (rc == ERR_OK) rc = open_part(c, "ledger/tree", &c->tree, e);
    if (rc == ERR_OK) rc = open_part(c, "ledger/keys", &c->vault.f, e);
    if (rc != ERR_OK) return rc;
    if (!c->vault.f) c->contents = false;
    if (c->vault.f &&
        vault_check_header(c->fs, c->vault.f, c->log_id, c->vault.have_master ? c->vault.master : NULL, &why) != ERR_OK)
        problem(c->r, "%s", why.msg);
    c->fs->list(c->fs, path, check_name, c);
    bool damaged = false;
    rc = vault_load_seeds(&c->vault, c->dir, &damaged, e);
    if (rc == ERR_OK) rc = check_log(c, e);
    /* where no writer closed the log, a write of the file may have been cut short, and nothing rests on it */
    if (rc == ERR_OK && damaged && closed_at_end(c)) problem(c->r, "ledger/seeds: damaged");
    if (rc == ERR_OK && c->vault.f) rc = check_gaps(c, e);
    if (rc == ERR_OK && c->vault.f) rc = check_ends(c, e);
    return rc;
}

err_code verify_island_fs(vfs *fs, const char *dir, bool contents, const char *vkey, verify_report *r, err *e) {
    report_init(r);
    checker *c = mem_zalloc(sizeof *c);
    if (!c) return err_nomem(e, "verifying");
    c->fs = fs;
    c->dir = dir;
    c->r = r;
    c->contents = contents;
    err_code rc = check_all(c, vkey, e);
    if (c->seg) fs->close(fs, c->seg);
    if (c->tree) fs->close(fs, c->tree);
    if (c->vault.f) fs->close(fs, c->vault.f);
    mem_wipe(c, sizeof *c);
    mem_free(c);
    return rc == ERR_OK ? report_result(r, dir, e) : rc;
}

err_code audit_verify_island(const char *dir, bool contents, const char *vkey, verify_report *r, err *e) {
    return verify_island_fs(&vfs_posix, dir, contents, vkey, r, e);
}
