#include "audit/note.h"

#include "base/mem.h"

#include <sodium.h>
#include <string.h>

enum { TYPE_ED25519 = 0x01, SIGNATURE_LEN = 64 };

static const char dash[] = "\xe2\x80\x94 "; /* U+2014 and a space */
enum { DASH_LEN = 4 };

static bool unicode_space(uint32_t c) {
    return c == ' ' || (c >= 0x09 && c <= 0x0d) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool name_chars_valid(const char *name, size_t n) {
    if (n == 0) return false;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        int len = utf8_decode(&c, name + i, n - i);
        if (len <= 0 || c < 0x20 || (c >= 0x7f && c < 0xa0) || c == '+' || unicode_space(c)) return false;
        i += (size_t)len;
    }
    return true;
}

bool note_name_valid(const char *name, size_t n) {
    return n <= NOTE_NAME_MAX && name_chars_valid(name, n);
}

bool decimal_parse(uint64_t *out, const char *s, size_t n) {
    if (n == 0 || n > 20 || (n > 1 && s[0] == '0')) return false;
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') return false;
        unsigned d = (unsigned)(s[i] - '0');
        if (v > (UINT64_MAX - d) / 10) return false;
        v = v * 10 + d;
    }
    *out = v;
    return true;
}

static void key_id(note_key *k) {
    sha256 s;
    uint8_t h[SHA256_LEN];
    const uint8_t mid[2] = {0x0a, TYPE_ED25519};
    sha256_init(&s);
    sha256_update(&s, k->name, strlen(k->name));
    sha256_update(&s, mid, sizeof mid);
    sha256_update(&s, k->pub, sizeof k->pub);
    sha256_final(&s, h);
    memcpy(k->id, h, sizeof k->id);
}

/* "<name>+<8 hex>+<base64(type || 32 bytes)>": the shape that vkeys and private keys share. */
static err_code parse_parts(note_key *k, uint8_t bytes[32], const char *s, size_t n, const char *what, err *e) {
    const char *p1 = memchr(s, '+', n);
    size_t name_len = p1 ? (size_t)(p1 - s) : 0;
    if (!p1 || !note_name_valid(s, name_len))
        return err_set(e, ERR_INVALID, "%s: has no valid name before the first '+'", what);
    const char *hex = p1 + 1;
    size_t left = n - name_len - 1;
    if (left < 9 || hex[8] != '+' || !hex_decode(k->id, 4, hex, 8))
        return err_set(e, ERR_INVALID, "%s: the key ID is not 8 lower-case hexadecimal digits", what);
    uint8_t raw[1 + 32 + 3];
    size_t raw_len = 0;
    if (!base64_decode(raw, sizeof raw, &raw_len, hex + 9, left - 9) || raw_len < 1)
        return err_set(e, ERR_INVALID, "%s: the key is not base64", what);
    if (raw[0] != TYPE_ED25519)
        return err_set(e, ERR_UNSUPPORTED, "%s: signature type 0x%02x; only Ed25519 (0x01) is supported", what, raw[0]);
    if (raw_len != 33) return err_set(e, ERR_INVALID, "%s: an Ed25519 key has 32 bytes", what);
    memcpy(k->name, s, name_len);
    k->name[name_len] = 0;
    memcpy(bytes, raw + 1, 32);
    mem_wipe(raw, sizeof raw);
    return ERR_OK;
}

err_code note_key_parse(note_key *out, const char *vkey, size_t n, err *e) {
    *out = (note_key){0};
    err_code rc = parse_parts(out, out->pub, vkey, n, "verifier key", e);
    if (rc != ERR_OK) return rc;
    uint8_t stated[4];
    memcpy(stated, out->id, 4);
    key_id(out);
    if (memcmp(stated, out->id, 4) != 0)
        return err_set(e, ERR_INVALID, "verifier key: the key ID does not belong to this name and key");
    return ERR_OK;
}

static void key_text(buf *out, const note_key *k, const uint8_t bytes[32]) {
    char hex[9];
    uint8_t raw[33] = {TYPE_ED25519};
    memcpy(raw + 1, bytes, 32);
    hex_encode(hex, k->id, 4);
    buf_puts(out, k->name);
    buf_putc(out, '+');
    buf_puts(out, hex);
    buf_putc(out, '+');
    base64_encode(out, raw, sizeof raw);
    mem_wipe(raw, sizeof raw);
}

void note_key_text(buf *out, const note_key *k) {
    key_text(out, k, k->pub);
}

static void signer_derive(note_signer *s) {
    crypto_sign_seed_keypair(s->key.pub, s->secret, s->seed);
    key_id(&s->key);
}

err_code note_signer_new(note_signer *out, const char *name, err *e) {
    *out = (note_signer){0};
    size_t n = strlen(name);
    if (!note_name_valid(name, n))
        return err_set(e, ERR_INVALID,
                       "%s: not usable as the name of a log: 1 to %d bytes of UTF-8 without spaces and '+'", name,
                       NOTE_NAME_MAX);
    memcpy(out->key.name, name, n + 1);
    random_bytes(out->seed, sizeof out->seed);
    signer_derive(out);
    return ERR_OK;
}

static const char private_prefix[] = "PRIVATE+KEY+";

err_code note_signer_parse(note_signer *out, const char *skey, size_t n, err *e) {
    *out = (note_signer){0};
    size_t pre = sizeof private_prefix - 1;
    if (n < pre || memcmp(skey, private_prefix, pre) != 0)
        return err_set(e, ERR_INVALID, "private key: does not begin with \"%s\"", private_prefix);
    err_code rc = parse_parts(&out->key, out->seed, skey + pre, n - pre, "private key", e);
    if (rc != ERR_OK) return rc;
    uint8_t stated[4];
    memcpy(stated, out->key.id, 4);
    signer_derive(out);
    if (memcmp(stated, out->key.id, 4) != 0) {
        mem_wipe(out, sizeof *out);
        return err_set(e, ERR_INVALID, "private key: the key ID does not belong to this name and key");
    }
    return ERR_OK;
}

void note_signer_text(buf *out, const note_signer *s) {
    buf_puts(out, private_prefix);
    key_text(out, &s->key, s->seed);
}

void note_sign(buf *out, const note_signer *s, const char *text, size_t n) {
    uint8_t raw[4 + SIGNATURE_LEN];
    memcpy(raw, s->key.id, 4);
    crypto_sign_detached(raw + 4, NULL, (const unsigned char *)text, n, s->secret);
    buf_append(out, text, n);
    buf_putc(out, '\n');
    buf_puts(out, dash);
    buf_puts(out, s->key.name);
    buf_putc(out, ' ');
    base64_encode(out, raw, sizeof raw);
    buf_putc(out, '\n');
}

static bool note_chars_valid(const char *p, size_t n) {
    if (!utf8_valid(p, n)) return false;
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)p[i] < 0x20 && p[i] != '\n') return false;
    return true;
}

typedef struct signature_line {
    const char *name;
    size_t name_len;
    size_t raw_len;
    uint8_t raw[4 + 4096]; /* an ML-DSA-44 cosignature has 2,432 bytes */
} signature_line;

static bool signature_parse(signature_line *out, const char *line, size_t n) {
    if (n < DASH_LEN || memcmp(line, dash, DASH_LEN) != 0) return false;
    line += DASH_LEN;
    n -= DASH_LEN;
    const char *space = memchr(line, ' ', n);
    if (!space) return false;
    out->name = line;
    out->name_len = (size_t)(space - line);
    size_t b64_len = n - out->name_len - 1;
    return name_chars_valid(line, out->name_len) && /* other keys may have longer names than ours */

           base64_decode(out->raw, sizeof out->raw, &out->raw_len, space + 1, b64_len) && out->raw_len >= 5;
}

/* Where the signature lines begin; 0 where the note has no such shape. */
static size_t find_signatures(const char *note, size_t n) {
    if (n < 4 || note[n - 1] != '\n') return 0;
    for (size_t i = n - 2; i > 0; i--)
        if (note[i] == '\n' && note[i - 1] == '\n') return i + 1;
    return 0;
}

static err_code open_lines(const char *note, size_t n, const note_key *k, bool verify, size_t *text_len,
                           unsigned *unknown, unsigned *own, err *e) {
    *unknown = *own = 0;
    if (n > NOTE_MAX) return err_set(e, ERR_INVALID, "signed note: larger than %u bytes", NOTE_MAX);
    if (!note_chars_valid(note, n))
        return err_set(e, ERR_INVALID, "signed note: not UTF-8, or holds control characters");
    size_t at = find_signatures(note, n);
    if (at == 0 || at == n) return err_set(e, ERR_INVALID, "signed note: has no signature lines after an empty line");
    *text_len = at - 1;
    unsigned lines = 0;
    while (at < n) {
        const char *nl = memchr(note + at, '\n', n - at);
        size_t len = (size_t)(nl - (note + at)); /* the note ends in a newline */
        signature_line s;
        if (++lines > NOTE_SIGNATURES_MAX)
            return err_set(e, ERR_INVALID, "signed note: more than %d signatures", NOTE_SIGNATURES_MAX);
        if (!signature_parse(&s, note + at, len))
            return err_set(e, ERR_INVALID, "signed note: signature line %u is malformed", lines);
        at += len + 1;
        if (s.name_len != strlen(k->name) || memcmp(s.name, k->name, s.name_len) != 0 || memcmp(s.raw, k->id, 4) != 0) {
            ++*unknown;
            continue;
        }
        ++*own;
        if (s.raw_len != 4 + SIGNATURE_LEN ||
            (verify && crypto_sign_verify_detached(s.raw + 4, (const unsigned char *)note, *text_len, k->pub) != 0))
            return err_set(e, ERR_NO, "signed note: the signature by %s does not hold", k->name);
    }
    if (*own == 0) return err_set(e, ERR_NO, "signed note: not signed by %s", k->name);
    return ERR_OK;
}

err_code note_open(const char *note, size_t n, const note_key *k, size_t *text_len, unsigned *unknown, err *e) {
    unsigned others, own;
    return open_lines(note, n, k, true, text_len, unknown ? unknown : &others, &own, e);
}

void checkpoint_text(buf *out, const char *origin, uint64_t size, const hash32 *root) {
    buf_printf(out, "%s\n%llu\n", origin, (unsigned long long)size);
    base64_encode(out, root->b, HASH_LEN);
    buf_putc(out, '\n');
}

err_code checkpoint_parse(checkpoint *out, const char *text, size_t n, err *e) {
    *out = (checkpoint){0};
    unsigned line = 0;
    for (size_t at = 0; at < n; line++) {
        const char *p = text + at, *nl = memchr(p, '\n', n - at);
        if (!nl) return err_set(e, ERR_INVALID, "checkpoint: does not end in a newline");
        size_t len = (size_t)(nl - p), got = 0;
        at += len + 1;
        if (len == 0) return err_set(e, ERR_INVALID, "checkpoint: line %u is empty", line + 1);
        if (line == 0) {
            if (!note_name_valid(p, len)) return err_set(e, ERR_INVALID, "checkpoint: the origin is not a valid name");
            memcpy(out->origin, p, len);
        } else if (line == 1) {
            if (!decimal_parse(&out->size, p, len) || out->size > INT64_MAX)
                return err_set(e, ERR_INVALID, "checkpoint: the size is not a decimal number without leading zeros");
        } else if (line == 2) {
            if (len != 44 || !base64_decode(out->root.b, HASH_LEN, &got, p, len) || got != HASH_LEN)
                return err_set(e, ERR_INVALID, "checkpoint: the root is not the base64 of 32 bytes");
        } else {
            out->extensions++;
        }
    }
    if (line < 3) return err_set(e, ERR_INVALID, "checkpoint: has %u lines; origin, size and root are needed", line);
    return ERR_OK;
}

void checkpoint_sign(buf *out, const note_signer *s, uint64_t size, const hash32 *root) {
    buf text = {.max = NOTE_OWN_MAX};
    checkpoint_text(&text, s->key.name, size, root);
    if (text.failed)
        out->failed = true;
    else
        note_sign(out, s, text.ptr, text.len);
    buf_free(&text);
}

static err_code open_checkpoint(checkpoint *out, const char *note, size_t n, const note_key *k, bool verify,
                                unsigned *unknown, unsigned *own, err *e) {
    size_t text_len = 0;
    err_code rc = open_lines(note, n, k, verify, &text_len, unknown, own, e);
    if (rc == ERR_OK) rc = checkpoint_parse(out, note, text_len, e);
    if (rc == ERR_OK && strcmp(out->origin, k->name) != 0)
        rc = err_set(e, ERR_NO, "checkpoint: of the log %s, not of %s", out->origin, k->name);
    return rc;
}

err_code checkpoint_open(checkpoint *out, const char *note, size_t n, const note_key *k, unsigned *unknown, err *e) {
    unsigned others, own;
    return open_checkpoint(out, note, n, k, true, unknown ? unknown : &others, &own, e);
}

err_code checkpoint_open_own(checkpoint *out, const char *note, size_t n, const note_key *k, bool verify, err *e) {
    unsigned unknown, own;
    err_code rc = open_checkpoint(out, note, n, k, verify, &unknown, &own, e);
    if (rc == ERR_OK && (unknown != 0 || own != 1))
        rc = err_set(e, ERR_INVALID, "checkpoint: %u signature lines that are not this log's own", unknown + own - 1);
    if (rc == ERR_OK && out->extensions)
        rc = err_set(e, ERR_INVALID, "checkpoint: has lines after the root, which this log does not write");
    return rc;
}
