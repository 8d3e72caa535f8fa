/* Seeds: what content keys are made from.
 *
 *   roll: sync of ledger/keys, new seed in ledger/seeds, sync ──► about 1,000 records under it ──► roll …
 *
 * A key whose record is told of must come back after a power cut. With seeds that are durable before anything is
 * encrypted under their keys, it does without a sync of the slots for every group. Two are there at most: the running
 * one, and the one before it for records that were being encrypted while it was replaced. The next roll destroys the
 * older, and from then on a key is in its slot alone, where erasing overwrites it. */
#include "audit/internal.h"

#include "audit/vault.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum { NONCE = 24, SEALED_SEED = NONCE + SEED_LEN + 16, FIRST_AT = 56, SUM_AT = SECTOR - SHA256_LEN };

static const char seed_label[] = "polder/seed/1";

enum { SEED_AD_LEN = sizeof seed_label - 1 + 32 + 8 };

static void seed_ad(uint8_t out[SEED_AD_LEN], const vault *v, uint64_t no) {
    memcpy(out, seed_label, sizeof seed_label - 1);
    memcpy(out + sizeof seed_label - 1, v->log_id, 32);
    be_put(out + sizeof seed_label - 1 + 32, no, 8);
}

/* ---- the file ---------------------------------------------------------------------------------------------- */

static void put_head(uint8_t out[FIRST_AT], const vault *v, const seeds *s) {
    memcpy(out, SEEDS_MAGIC, 8);
    memcpy(out + 8, v->log_id, 32);
    be_put(out + 40, s->no, 8);
    be_put(out + 48, s->from[0], 8);
}

static void seeds_encode(uint8_t out[SECTOR], const vault *v, const seeds *s) {
    uint8_t ad[SEED_AD_LEN];
    memset(out, 0, SECTOR);
    put_head(out, v, s);
    for (unsigned i = 0; i < s->n; i++) {
        uint8_t *at = out + FIRST_AT + i * SEALED_SEED;
        random_bytes(at, NONCE);
        seed_ad(ad, v, s->no - i);
        crypto_aead_xchacha20poly1305_ietf_encrypt(at + NONCE, NULL, s->key[i], SEED_LEN, ad, sizeof ad, NULL, at,
                                                   v->master);
    }
    sha256_of(out + SUM_AT, out, SUM_AT);
}

bool seeds_decode(seeds *s, const vault *v, const uint8_t in[SECTOR]) {
    uint8_t sum[SHA256_LEN], ad[SEED_AD_LEN], head[FIRST_AT];
    size_t end = FIRST_AT + 2 * SEALED_SEED;
    *s = (seeds){.no = be_get(in + 40, 8), .from = {be_get(in + 48, 8)}};
    sha256_of(sum, in, SUM_AT);
    put_head(head, v, s);
    if (memcmp(head, in, sizeof head) != 0 || !all_zero(in + end, SUM_AT - end) ||
        memcmp(sum, in + SUM_AT, sizeof sum) != 0)
        return false;
    if (!v->have_master) return true;
    for (unsigned i = 0; i < 2; i++) {
        const uint8_t *at = in + FIRST_AT + i * SEALED_SEED;
        if (all_zero(at, SEALED_SEED)) break;
        seed_ad(ad, v, s->no - i);
        if (crypto_aead_xchacha20poly1305_ietf_decrypt(s->key[i], NULL, NULL, at + NONCE, SEED_LEN + 16, ad, sizeof ad,
                                                       at, v->master) != 0) {
            mem_wipe(s, sizeof *s);
            return false;
        }
        s->n++;
    }
    return true;
}

err_code vault_load_seeds(vault *v, const char *dir, bool *damaged, err *e) {
    buf b = {.max = SECTOR + 1};
    seeds s = {0};
    err why;
    err_code rc = fs_read_file(v->fs, dir, "ledger/seeds", &b, &why);
    *damaged = rc == ERR_TOO_LARGE || (rc == ERR_OK && (b.len != SECTOR || !seeds_decode(&s, v, (uint8_t *)b.ptr)));
    if (rc == ERR_OK && !*damaged) {
        v->s = s;
        v->slots_may_lack = s.n > 0;
    }
    mem_wipe(&s, sizeof s);
    buf_free(&b);
    if (rc != ERR_OK && rc != ERR_NOT_FOUND && rc != ERR_TOO_LARGE) {
        if (e) *e = why;
        return rc;
    }
    return ERR_OK;
}

/* Where this does not end well, what the file holds is not known, and so no record may count on it. */
static int write_seeds(vault *v, const seeds *s, bool *sync_failed) {
    uint8_t raw[SECTOR];
    seeds_encode(raw, v, s);
    v->seeds_unsure = true;
    int r = v->fs->pwrite(v->fs, v->seeds_f, raw, sizeof raw, 0);
    if (r != 0) return r;
    r = v->fs->sync(v->fs, v->seeds_f);
    if (r != 0)
        *sync_failed = true;
    else
        v->seeds_unsure = false;
    return r;
}

/* ---- keys -------------------------------------------------------------------------------------------------- */

void vault_make_key(uint8_t key[CONTENT_KEY_LEN], const uint8_t seed[SEED_LEN], const hash32 *leaf) {
    hmac_sha256(key, seed, SEED_LEN, leaf->b, HASH_LEN);
}

uint64_t vault_new_key(vault *v, const hash32 *leaf, uint8_t key[CONTENT_KEY_LEN]) {
    uint8_t seed[SEED_LEN];
    pthread_mutex_lock(&v->seeds_mu);
    memcpy(seed, v->s.key[0], sizeof seed);
    uint64_t no = v->s.no;
    pthread_mutex_unlock(&v->seeds_mu);
    vault_make_key(key, seed, leaf);
    mem_wipe(seed, sizeof seed);
    return no;
}

bool vault_comes_back(const vault *v, uint64_t seed_no) {
    return !v->seeds_unsure && seed_no + v->s.n > v->s.no;
}

static bool opens(const vault *v, const hash32 *leaf, const uint8_t key[CONTENT_KEY_LEN], const uint8_t *sealed,
                  size_t n, uint8_t *room) {
    uint8_t *plain;
    size_t len;
    memcpy(room, sealed, n); /* it is opened in place */
    bool yes = vault_open(v->log_id, leaf, key, room, n, &plain, &len, NULL) == ERR_OK;
    mem_wipe(room, n);
    return yes;
}

int vault_find_key(const vault *v, uint64_t seq, const hash32 *leaf, const uint8_t *sealed, size_t n, slot_state *state,
                   uint8_t key[CONTENT_KEY_LEN]) {
    int r = vault_read(v, seq, state, key);
    if (r != 0 || *state == SLOT_ERASED || !v->slots_may_lack || seq < v->s.from[0]) return r;
    uint8_t *room = mem_alloc(n);
    if (!room) return -ENOMEM;
    bool found = *state == SLOT_KEY && opens(v, leaf, key, sealed, n, room);
    for (unsigned i = 0; i < v->s.n && !found; i++) {
        uint8_t made[CONTENT_KEY_LEN];
        vault_make_key(made, v->s.key[i], leaf);
        found = opens(v, leaf, made, sealed, n, room);
        if (found) {
            memcpy(key, made, sizeof made);
            *state = SLOT_KEY;
        }
        mem_wipe(made, sizeof made);
    }
    mem_free(room);
    return 0;
}

/* ---- rolling ----------------------------------------------------------------------------------------------- */

int vault_roll(vault *v, uint64_t size, bool *sync_failed) {
    seeds next = {.no = v->s.no + 1, .n = v->s.n ? 2 : 1, .from = {size, v->s.from[0]}};
    memcpy(next.key[1], v->s.key[0], SEED_LEN);
    random_bytes(next.key[0], SEED_LEN);
    int r = v->fs->sync(v->fs, v->f);
    if (r != 0)
        *sync_failed = true;
    else
        r = write_seeds(v, &next, sync_failed);
    if (r == 0) {
        pthread_mutex_lock(&v->seeds_mu);
        v->s = next;
        pthread_mutex_unlock(&v->seeds_mu);
        v->since = 0;
    }
    mem_wipe(&next, sizeof next);
    return r;
}

int vault_end_seeds(vault *v, uint64_t size, bool *sync_failed) {
    seeds none = {.no = v->s.no, .from = {size}};
    int r = v->fs->sync(v->fs, v->f);
    if (r != 0)
        *sync_failed = true;
    else
        r = write_seeds(v, &none, sync_failed);
    return r;
}

int vault_forget(vault *v, uint64_t seq, bool *sync_failed) {
    int r = 0;
    for (unsigned i = 0; r == 0 && i < 2 && v->s.n && seq >= v->s.from[v->s.n - 1]; i++)
        r = vault_roll(v, seq + 1, sync_failed);
    return r;
}

/* ---- after a crash ----------------------------------------------------------------------------------------- */

static err_code mend_slot(ledger *l, uint64_t seq, err *e) {
    uint8_t *sealed = NULL, key[CONTENT_KEY_LEN];
    size_t n = 0;
    slot_state state = SLOT_EMPTY;
    hash32 leaf;
    err_code rc = read_sealed(l, seq, &leaf, &sealed, &n, e);
    if (rc != ERR_OK || !sealed) return rc;
    int r = vault_find_key(&l->vault, seq, &leaf, sealed, n, &state, key);
    const uint8_t *keys[] = {key};
    if (r == 0 && state == SLOT_KEY) r = vault_write(&l->vault, seq, 1, keys);
    if (r == 0 && (state == SLOT_EMPTY || state == SLOT_BAD))
        log_msg(LOG_ERROR, "ledger", "record %llu: the key of its contents is lost", (unsigned long long)seq);
    mem_wipe(key, sizeof key);
    mem_free(sealed);
    return r == 0 ? ERR_OK : fs_error(r, e, "%s/ledger/keys: the key of record %llu", l->dir, (unsigned long long)seq);
}

err_code seeds_start(ledger *l, bool clean, err *e) {
    vault *v = &l->vault;
    char path[LEDGER_PATH_MAX], folder[LEDGER_PATH_MAX];
    uint64_t size = l->tail.edge.size;
    bool damaged = false, sync_failed = false;
    err_code rc = vault_load_seeds(v, l->dir, &damaged, e);
    if (rc == ERR_OK && damaged && !clean)
        log_msg(LOG_WARN, "ledger", "%s/ledger/seeds is damaged: keys that a crash took cannot be made again", l->dir);
    for (uint64_t seq = v->s.from[0]; rc == ERR_OK && !clean && v->s.n && seq < size; seq++) rc = mend_slot(l, seq, e);
    if (rc == ERR_OK) rc = ledger_path(l, path, "ledger/seeds", e);
    if (rc == ERR_OK) rc = ledger_path(l, folder, "ledger", e);
    if (rc != ERR_OK) return rc;
    v->slots_may_lack = false;
    v->s.n = 0; /* nothing is under way: only what comes from now on is made from seeds */
    int r = l->fs->open(l->fs, &v->seeds_f, path, VFS_WRITE | VFS_CREATE);
    if (r == 0) r = vault_roll(v, size, &sync_failed);
    if (r == 0) r = l->fs->sync_dir(l->fs, folder);
    return r == 0 ? ERR_OK : fs_error(r, e, "%s: cannot be written", path);
}
