#include "audit/vault.h"

#include "audit/segment.h"
#include "base/mem.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum { NONCE_LEN = SEALED_FROM, TAG_LEN = 16 };
_Static_assert(SEAL_OVERHEAD == NONCE_LEN + TAG_LEN, "sealing adds a nonce and a tag");
_Static_assert(8 + NONCE_LEN + CONTENT_KEY_LEN + TAG_LEN == KEY_SLOT_LEN, "a slot is what it seals");
_Static_assert(KEYS_PER_SECTOR *KEY_SLOT_LEN <= SECTOR, "no slot crosses a sector");

static const char content_label[] = "polder/content/1";
static const char slot_label[] = "polder/slot/1";
static const char key_prefix[] = "polder-vault";

#define CONTENTS_USUAL 1000u /* bytes that what most answers leave fits into */

bool content_name_valid(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n > CONTENT_NAME_MAX) return false;
    for (size_t i = 0; i < n; i++)
        if ((name[i] < 'a' || name[i] > 'z') && name[i] != '_') return false;
    return true;
}

/* ---- the master key -------------------------------------------------------------------------------------- */

static void key_check(uint8_t out[SHA256_LEN], const uint8_t key[32]) {
    sha256 s;
    sha256_init(&s);
    sha256_update(&s, key_prefix, sizeof key_prefix - 1);
    sha256_update(&s, key, 32);
    sha256_final(&s, out);
    mem_wipe(&s, sizeof s);
}

void vault_key_text(char out[VAULT_KEY_TEXT_MAX], const uint8_t key[32]) {
    uint8_t check[SHA256_LEN];
    char hex[9], b64[sodium_base64_ENCODED_LEN(32, sodium_base64_VARIANT_ORIGINAL)];
    key_check(check, key);
    hex_encode(hex, check, 4);
    sodium_bin2base64(b64, sizeof b64, key, 32, sodium_base64_VARIANT_ORIGINAL);
    snprintf(out, VAULT_KEY_TEXT_MAX, "%s+%s+%s\n", key_prefix, hex, b64);
    mem_wipe(b64, sizeof b64);
}

err_code vault_key_parse(uint8_t key[32], const char *text, size_t n, err *e) {
    size_t pre = sizeof key_prefix - 1, len = 0;
    uint8_t raw[33], check[SHA256_LEN], stated[4];
    if (n != pre + 10 + 44 + 1 || memcmp(text, key_prefix, pre) != 0 || text[pre] != '+' ||
        !hex_decode(stated, 4, text + pre + 1, 8) || text[pre + 9] != '+' || text[n - 1] != '\n' ||
        !base64_decode(raw, sizeof raw, &len, text + pre + 10, 44) || len != 32)
        return err_set(e, ERR_CORRUPT, "keys/vault.key: not a vault key");
    key_check(check, raw);
    memcpy(key, raw, 32);
    mem_wipe(raw, sizeof raw);
    if (memcmp(check, stated, 4) != 0)
        return err_set(e, ERR_CORRUPT, "keys/vault.key: its check digits do not belong to the key");
    return ERR_OK;
}

/* ---- contents -------------------------------------------------------------------------------------------- */

enum { CONTENT_AD_LEN = sizeof content_label - 1 + 32 + HASH_LEN };

static void content_ad(uint8_t out[CONTENT_AD_LEN], const uint8_t log_id[32], const hash32 *leaf) {
    memcpy(out, content_label, sizeof content_label - 1);
    memcpy(out + sizeof content_label - 1, log_id, 32);
    memcpy(out + sizeof content_label - 1 + 32, leaf->b, HASH_LEN);
}

/* What is copied elsewhere is wiped where it lay. */
static bool make_room(content_set *c, size_t n) {
    size_t need = (c->p ? c->len : NONCE_LEN + 2) + n + TAG_LEN, cap = 2 * c->cap;
    if (need <= c->cap) return true;
    if (cap < need) cap = need;
    if (cap < CONTENTS_USUAL) cap = CONTENTS_USUAL;
    uint8_t *p = mem_alloc(cap);
    if (!p) return false;
    if (c->p) {
        memcpy(p + NONCE_LEN, c->p + NONCE_LEN, c->len - NONCE_LEN);
        mem_wipe(c->p, c->len);
        mem_free(c->p);
    } else {
        be_put(p + NONCE_LEN, 0, 2);
        c->len = NONCE_LEN + 2;
    }
    c->p = p;
    c->cap = cap;
    return true;
}

static bool has_name(const content_set *c, const char *name, size_t len) {
    content_view v;
    size_t at = 0;
    unsigned left;
    bool whole;
    while (c->n && vault_next(c->p + NONCE_LEN, c->len - NONCE_LEN, &at, &left, &v, &whole))
        if (v.name_len == len && memcmp(v.name, name, len) == 0) return true;
    return false;
}

err_code contents_add(content_set *c, const char *name, const void *p, size_t n, content_view *out, err *e) {
    if (!content_name_valid(name))
        return err_set(e, ERR_INVALID, "content %s: a content's name is 1 to %u letters a to z and '_'", name,
                       CONTENT_NAME_MAX);
    size_t name_len = strlen(name);
    if (has_name(c, name, name_len))
        return err_set(e, ERR_EXISTS, "content %s: the record has one of this name already", name);
    if (c->n == CONTENTS_MAX)
        return err_set(e, ERR_TOO_LARGE, "content %s: a record has at most %u contents", name, CONTENTS_MAX);
    if (n > LEDGER_CONTENT_MAX - c->bytes)
        return err_set(e, ERR_TOO_LARGE, "content %s: the contents of a record have at most %u bytes together", name,
                       LEDGER_CONTENT_MAX);
    if (!make_room(c, 1 + name_len + SALT_LEN + 4 + n)) return err_nomem(e, "a record's content");
    uint8_t *at = c->p + c->len;
    *at++ = (uint8_t)name_len;
    out->name = memcpy(at, name, name_len);
    out->name_len = name_len;
    at += name_len;
    random_bytes(at, SALT_LEN);
    out->salt = at;
    at += SALT_LEN;
    be_put(at, n, 4);
    out->bytes = at + 4;
    out->len = n;
    if (n) memcpy(at + 4, p, n);
    c->len = (size_t)(at + 4 + n - c->p);
    c->bytes += n;
    be_put(c->p + NONCE_LEN, ++c->n, 2);
    return ERR_OK;
}

void contents_free(content_set *c) {
    if (c->p) mem_wipe(c->p, c->len);
    mem_free(c->p);
    *c = (content_set){0};
}

void contents_take(content_set *c, uint8_t **sealed, size_t *sealed_len) {
    random_bytes(c->p, NONCE_LEN);
    *sealed = c->p;
    *sealed_len = c->len + TAG_LEN;
    *c = (content_set){0};
}

void vault_encrypt(const uint8_t log_id[32], const hash32 *leaf, const uint8_t key[CONTENT_KEY_LEN], uint8_t *sealed,
                   size_t sealed_len) {
    uint8_t ad[CONTENT_AD_LEN];
    content_ad(ad, log_id, leaf);
    crypto_aead_xchacha20poly1305_ietf_encrypt(sealed + NONCE_LEN, NULL, sealed + NONCE_LEN, sealed_len - SEAL_OVERHEAD,
                                               ad, sizeof ad, NULL, sealed, key);
}

err_code vault_open(const uint8_t log_id[32], const hash32 *leaf, const uint8_t key[CONTENT_KEY_LEN], uint8_t *sealed,
                    size_t len, uint8_t **plain, size_t *plain_len, err *e) {
    uint8_t ad[CONTENT_AD_LEN];
    unsigned long long got = 0;
    content_ad(ad, log_id, leaf);
    if (len < SEAL_OVERHEAD ||
        crypto_aead_xchacha20poly1305_ietf_decrypt(sealed + NONCE_LEN, &got, NULL, sealed + NONCE_LEN, len - NONCE_LEN,
                                                   ad, sizeof ad, sealed, key) != 0)
        return err_set(e, ERR_CORRUPT, "contents do not open with their key: the bytes were changed");
    *plain = sealed + NONCE_LEN;
    *plain_len = (size_t)got;
    return ERR_OK;
}

bool vault_next(const uint8_t *plain, size_t n, size_t *at, unsigned *left, content_view *out, bool *whole) {
    *whole = false;
    if (*at == 0) {
        if (n < 2) return false;
        *left = (unsigned)be_get(plain, 2);
        *at = 2;
    }
    if (*left == 0) {
        *whole = *at == n;
        return false;
    }
    const uint8_t *p = plain + *at;
    size_t room = n - *at;
    if (room < 1 || room - 1 < (size_t)p[0] + SALT_LEN + 4) return false;
    out->name_len = p[0];
    out->name = (const char *)p + 1;
    out->salt = p + 1 + out->name_len;
    size_t head = 1 + out->name_len + SALT_LEN + 4;
    out->len = (size_t)be_get(p + head - 4, 4);
    out->bytes = p + head;
    if (room - head < out->len) return false;
    *at += head + out->len;
    --*left;
    return true;
}

/* ---- content keys ---------------------------------------------------------------------------------------- */

void vault_key_check(uint8_t out[32], const uint8_t master[32]) {
    static const char label[] = "polder vault key check";
    hmac_sha256(out, master, 32, label, sizeof label - 1);
}

void vault_header(uint8_t out[SECTOR], const uint8_t log_id[32], const uint8_t check[32]) {
    memset(out, 0, SECTOR);
    memcpy(out, KEYS_MAGIC, 8);
    memcpy(out + 8, log_id, 32);
    memcpy(out + 40, check, 32);
    sha256_of(out + SECTOR - 32, out, SECTOR - 32);
}

err_code vault_check_header(vfs *fs, vfile *f, const uint8_t log_id[32], const uint8_t *master, err *e) {
    uint8_t have[SECTOR], want[SECTOR], check[32];
    int64_t got = fs->pread(fs, f, have, sizeof have, 0);
    if (got < 0) return fs_error((int)got, e, "ledger/keys: cannot be read");
    vault_header(want, log_id, have + 40);
    if ((size_t)got != sizeof have || memcmp(have, want, sizeof want) != 0)
        return err_set(e, ERR_CORRUPT, "ledger/keys: the header is not that of this log");
    if (master) {
        vault_key_check(check, master);
        if (memcmp(check, have + 40, sizeof check) != 0)
            return err_set(e, ERR_CORRUPT,
                           "keys/vault.key: is not the key of this island's vault; put the right one back");
    }
    return ERR_OK;
}

uint64_t slot_offset(uint64_t seq) {
    return SECTOR + seq / KEYS_PER_SECTOR * SECTOR + seq % KEYS_PER_SECTOR * KEY_SLOT_LEN;
}

enum { SLOT_AD_LEN = sizeof slot_label - 1 + 32 + 8 };

static void slot_ad(uint8_t out[SLOT_AD_LEN], const vault *v, const uint8_t head[8]) {
    memcpy(out, slot_label, sizeof slot_label - 1);
    memcpy(out + sizeof slot_label - 1, v->log_id, 32);
    memcpy(out + sizeof slot_label - 1 + 32, head, 8);
}

static void slot_head(uint8_t out[8], uint64_t seq, slot_state kind) {
    be_put(out, seq, 8);
    out[0] = kind == SLOT_ERASED ? 2 : 1;
}

void slot_seal(const vault *v, uint8_t out[KEY_SLOT_LEN], uint64_t seq, slot_state kind,
               const uint8_t key[CONTENT_KEY_LEN]) {
    static const uint8_t nothing[CONTENT_KEY_LEN];
    uint8_t ad[SLOT_AD_LEN];
    slot_head(out, seq, kind);
    random_bytes(out + 8, NONCE_LEN);
    slot_ad(ad, v, out);
    crypto_aead_xchacha20poly1305_ietf_encrypt(out + 8 + NONCE_LEN, NULL, kind == SLOT_ERASED ? nothing : key,
                                               CONTENT_KEY_LEN, ad, sizeof ad, NULL, out + 8, v->master);
}

slot_state slot_open(const vault *v, const uint8_t slot[KEY_SLOT_LEN], uint64_t seq, uint8_t key[CONTENT_KEY_LEN]) {
    if (all_zero(slot, KEY_SLOT_LEN)) return SLOT_EMPTY;
    for (slot_state kind = SLOT_KEY; kind <= SLOT_ERASED; kind++) {
        uint8_t head[8], ad[SLOT_AD_LEN];
        slot_head(head, seq, kind);
        if (memcmp(head, slot, 8) != 0) continue;
        slot_ad(ad, v, slot);
        if (crypto_aead_xchacha20poly1305_ietf_decrypt(key, NULL, NULL, slot + 8 + NONCE_LEN, CONTENT_KEY_LEN + TAG_LEN,
                                                       ad, sizeof ad, slot + 8, v->master) == 0)
            return kind;
    }
    return SLOT_BAD;
}

int vault_read(const vault *v, uint64_t seq, slot_state *state, uint8_t key[CONTENT_KEY_LEN]) {
    uint8_t slot[KEY_SLOT_LEN] = {0};
    *state = SLOT_EMPTY;
    if (!v->f) return 0;
    int64_t got = v->fs->pread(v->fs, v->f, slot, sizeof slot, slot_offset(seq));
    if (got < 0) return (int)got;
    *state = slot_open(v, slot, seq, key);
    mem_wipe(slot, sizeof slot);
    return 0;
}

static int reserve(vault *v, uint64_t end) {
    if (end <= v->len) return 0;
    uint64_t len = (end + KEYS_STEP - 1) / KEYS_STEP * KEYS_STEP;
    int r = v->fs->allocate(v->fs, v->f, len);
    if (r == 0) v->len = len;
    return r;
}

int vault_write(vault *v, uint64_t first, uint32_t count, const uint8_t *const *keys) {
    uint64_t begin = slot_offset(first), end = slot_offset(first + count - 1) + KEY_SLOT_LEN;
    int r = reserve(v, end);
    if (r != 0) return r;
    size_t n = (size_t)(end - begin);
    uint8_t *p = mem_zalloc(n);
    if (!p) return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        if (keys[i]) slot_seal(v, p + (slot_offset(first + i) - begin), first + i, SLOT_KEY, keys[i]);
    r = v->fs->pwrite(v->fs, v->f, p, n, begin);
    mem_free(p);
    return r;
}

int vault_trim(vault *v, uint64_t first) {
    uint8_t chunk[8 * SECTOR], zero[8 * SECTOR] = {0};
    for (uint64_t off = slot_offset(first);;) {
        int64_t got = v->fs->pread(v->fs, v->f, chunk, sizeof chunk, off);
        if (got <= 0) return (int)got;
        if (!all_zero(chunk, (size_t)got)) {
            int r = v->fs->pwrite(v->fs, v->f, zero, (size_t)got, off);
            if (r != 0) return r;
        }
        off += (uint64_t)got;
    }
}

err_code vault_erase(vault *v, uint64_t seq, err *e) {
    uint8_t slot[KEY_SLOT_LEN], key[CONTENT_KEY_LEN];
    slot_state state;
    bool sync_failed;
    int r = vault_read(v, seq, &state, key);
    mem_wipe(key, sizeof key);
    if (r != 0) return fs_error(r, e, "ledger/keys: the slot of record %llu", (unsigned long long)seq);
    if (state == SLOT_EMPTY)
        return err_set(e, ERR_NOT_FOUND, "record %llu: has no contents to erase", (unsigned long long)seq);
    slot_seal(v, slot, seq, SLOT_ERASED, NULL);
    r = v->fs->pwrite(v->fs, v->f, slot, sizeof slot, slot_offset(seq));
    if (r == 0) r = v->fs->sync(v->fs, v->f);
    if (r == 0) r = vault_forget(v, seq, &sync_failed);
    if (r != 0) return fs_error(r, e, "ledger/keys: record %llu cannot be erased", (unsigned long long)seq);
    return ERR_OK;
}
