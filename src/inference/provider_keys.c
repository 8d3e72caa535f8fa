/* Credentials: what a provider asks for, sealed in the store.
 *
 * A row is nonce (24) and ciphertext with tag (16 more), XChaCha20-Poly1305 under a key that is derived from the
 * island's vault key for this purpose only; the provider's name is associated data, so that a row that is moved to
 * another name does not open. The text exists in clear in the caller's buffer, for a moment in a change_job's, and in
 * each snapshot's memory, which is wiped when the last request that uses it ends. */
#include "inference/providers_internal.h"

#include "base/sys.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum {
    NONCE_LEN = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
    TAG_LEN = crypto_aead_xchacha20poly1305_ietf_ABYTES,
};
_Static_assert(CREDENTIAL_OVERHEAD == NONCE_LEN + TAG_LEN, "sealing adds a nonce and a tag");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_KEYBYTES == 32, "a derived key is a key");

static const char purpose[] = "polder/provider-credential/1";
static const char label[] = "polder/provider-credential/1:";

typedef struct bound { /* associated data */
    size_t n;
    unsigned char bytes[sizeof label + PROVIDER_NAME_MAX];
} bound;

static bound bind_name(const char *name) {
    bound b;
    int n = snprintf((char *)b.bytes, sizeof b.bytes, "%s%.*s", label, PROVIDER_NAME_MAX, name);
    b.n = (size_t)n;
    return b;
}

static void seal(const uint8_t key[32], const char *name, const char *secret, size_t n, uint8_t *out) {
    bound b = bind_name(name);
    unsigned long long len;
    random_bytes(out, NONCE_LEN);
    crypto_aead_xchacha20poly1305_ietf_encrypt(out + NONCE_LEN, &len, (const uint8_t *)secret, n, b.bytes, b.n, NULL,
                                               out, key);
}

static err_code unseal(const uint8_t key[32], const char *name, const uint8_t *sealed, size_t n, char **out, err *e) {
    bound b = bind_name(name);
    unsigned long long len = 0;
    if (!sealed || n <= CREDENTIAL_OVERHEAD || n > CREDENTIAL_OVERHEAD + CREDENTIAL_MAX)
        return err_set(e, ERR_CORRUPT, "polder.db: the credential of provider '%s' has a malformed row", name);
    char *text = mem_zalloc(n - CREDENTIAL_OVERHEAD + 1);
    if (!text) return err_nomem(e, "a credential");
    if (crypto_aead_xchacha20poly1305_ietf_decrypt((uint8_t *)text, &len, NULL, sealed + NONCE_LEN, n - NONCE_LEN,
                                                   b.bytes, b.n, sealed, key) != 0) {
        mem_free(text);
        return err_set(e, ERR_CORRUPT,
                       "polder.db: the credential of provider '%s' does not open with keys/vault.key: it was changed, "
                       "moved from another provider, or sealed on another island; set it again with polder provider "
                       "set-key %s while no server runs",
                       name, name);
    }
    *out = text;
    return ERR_OK;
}

void provider_wipe(provider *p) {
    if (!p->credential) return;
    mem_wipe(p->credential, strlen(p->credential));
    mem_free(p->credential);
    p->credential = NULL;
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

typedef struct reading {
    uint8_t key[32];
    provider *list;
    size_t n;
} reading;

static err_code row_sealed(store_stmt *q, void *ctx, err *e) {
    reading *r = ctx;
    size_t n = 0;
    const char *name = store_col_text(q, 0, NULL);
    int at = name ? provider_place(r->list, r->n, name) : -1;
    const uint8_t *sealed = store_col_blob(q, 1, &n);
    if (at < 1) return err_set(e, ERR_CORRUPT, "polder.db: a credential belongs to no provider");
    return unseal(r->key, name, sealed, n, &r->list[at].credential, e);
}

err_code provider_keys_read(island *i, provider *list, size_t n, err *e) {
    reading r = {.list = list, .n = n};
    err_code rc = ledger_derive_key(island_ledger(i), purpose, r.key, e);
    if (!rc) rc = store_each(island_store(i), "SELECT provider, sealed FROM provider_keys", NULL, 0, row_sealed, &r, e);
    mem_wipe(r.key, sizeof r.key);
    if (rc)
        for (size_t k = 0; k < n; k++) provider_wipe(&list[k]);
    return rc;
}

static err_code row_since(store_stmt *q, void *ctx, err *e) {
    *(int64_t *)ctx = store_col_int(q, 0);
    return ERR_OK;
}

err_code provider_key_since(store *s, const char *name, bool *set, int64_t *since_ms, err *e) {
    return store_one(s, "SELECT since_ms FROM provider_keys WHERE provider = ?", &SV_TEXT(name), 1, set, row_since,
                     since_ms, e);
}

/* ---- changing ---------------------------------------------------------------------------------------------- */

typedef struct new_key {
    const char *name;
    const uint8_t *sealed;
    size_t n;
} new_key;

static err_code change_key(change_job *c, store *s, record **r, err *e) {
    const new_key *k = c->ctx;
    provider found;
    err_code rc = provider_find(s, k->name, &found, e);
    if (rc) return rc;
    store_val v[] = {SV_TEXT(k->name), SV_BLOB(k->sealed, k->n), SV_INT(time_unix_ms())};
    rc = store_write(s,
                     "INSERT INTO provider_keys(provider, sealed, since_ms) VALUES(?, ?, ?) ON CONFLICT(provider) DO "
                     "UPDATE SET sealed = excluded.sealed, since_ms = excluded.since_ms",
                     v, 3, NULL, e);
    if (!rc) rc = change_record(c, r, "provider.key", e);
    if (!rc && !cJSON_AddStringToObject(record_body(*r), "provider", k->name)) rc = err_nomem(e, "a record");
    return rc;
}

err_code provider_key_remove(store *s, const char *name, err *e) {
    return store_write(s, "DELETE FROM provider_keys WHERE provider = ?", &SV_TEXT(name), 1, NULL, e);
}

/* Blanks around it are the shell's or the editor's. */
static void trim(const char **s, size_t *n) {
    while (*n && strchr(" \t\r\n", **s) && **s) ++*s, --*n;
    while (*n && (*s)[*n - 1] && strchr(" \t\r\n", (*s)[*n - 1])) --*n;
}

err_code provider_set_key(island *i, inference *inf, const identity *by, const char *name, const char *secret, size_t n,
                          err *e) {
    uint8_t key[32];
    trim(&secret, &n);
    if (!n) return err_set(e, ERR_INVALID, "provider '%.60s': the credential is empty", name);
    if (n > CREDENTIAL_MAX)
        return err_set(e, ERR_INVALID, "provider '%.60s': the credential is too long: %zu bytes, at most %d", name, n,
                       CREDENTIAL_MAX);
    for (size_t k = 0; k < n; k++)
        if ((unsigned char)secret[k] < 0x21 || (unsigned char)secret[k] > 0x7e)
            return err_set(
                e, ERR_INVALID,
                "provider '%.60s': the credential holds a byte that no header may (byte %zu of %zu: a blank, "
                "a line end, or no ASCII character)",
                name, k + 1, n);
    if (strcmp(name, ENGINE_NAME) == 0)
        return err_set(e, ERR_INVALID, "provider 'engine': the engine of this program itself needs no credential");
    uint8_t *sealed = mem_alloc(n + CREDENTIAL_OVERHEAD);
    if (!sealed) return err_nomem(e, "a credential");
    err_code rc = ledger_derive_key(island_ledger(i), purpose, key, e);
    if (!rc) {
        seal(key, name, secret, n, sealed);
        new_key k = {name, sealed, n + CREDENTIAL_OVERHEAD};
        change_job c = {.i = i, .inf = inf, .by = by, .ctx = &k, .rows = change_key};
        rc = change_run(&c, e);
    }
    mem_wipe(key, sizeof key);
    mem_free(sealed);
    return rc;
}
