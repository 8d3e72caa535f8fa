#include "base/bytes.h"

#include "base/json_memory.h"

#include <openssl/sha.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* OpenSSL's SHA256_* calls are marked deprecated in 3.x in favour of EVP, which allocates for every hash. The block
 * function behind both is the same; the ledger hashes small things often. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

_Static_assert(sizeof(SHA256_CTX) <= sizeof(sha256), "sha256 must hold SHA256_CTX");
_Static_assert(_Alignof(SHA256_CTX) <= _Alignof(sha256), "sha256 must align SHA256_CTX");

void sha256_init(sha256 *s) {
    SHA256_Init((SHA256_CTX *)(void *)s);
}
void sha256_update(sha256 *s, const void *p, size_t n) {
    if (n) SHA256_Update((SHA256_CTX *)(void *)s, p, n);
}
void sha256_final(sha256 *s, uint8_t out[SHA256_LEN]) {
    SHA256_Final(out, (SHA256_CTX *)(void *)s);
}

void sha256_of(uint8_t out[SHA256_LEN], const void *p, size_t n) {
    sha256 s;
    sha256_init(&s);
    sha256_update(&s, p, n);
    sha256_final(&s, out);
}

/* RFC 2104 over SHA-256. */
void hmac_sha256(uint8_t out[SHA256_LEN], const void *key, size_t key_len, const void *p, size_t n) {
    uint8_t k[64] = {0}, pad[64], inner[SHA256_LEN];
    if (key_len > sizeof k)
        sha256_of(k, key, key_len);
    else if (key_len)
        memcpy(k, key, key_len);
    sha256 s;
    for (size_t i = 0; i < sizeof k; i++) pad[i] = k[i] ^ 0x36;
    sha256_init(&s);
    sha256_update(&s, pad, sizeof pad);
    sha256_update(&s, p, n);
    sha256_final(&s, inner);
    for (size_t i = 0; i < sizeof k; i++) pad[i] = k[i] ^ 0x5c;
    sha256_init(&s);
    sha256_update(&s, pad, sizeof pad);
    sha256_update(&s, inner, sizeof inner);
    sha256_final(&s, out);
    sodium_memzero(k, sizeof k);
    sodium_memzero(pad, sizeof pad);
}

/* ---- random bytes ------------------------------------------------------------------------------------------ */

/* A request takes random bytes a dozen times, a few at a time, and each time would be a call of the kernel: a stock of
 * them is stretched by ChaCha20 from a key that the kernel gives for this stock alone and that is wiped at once, and
 * what was handed out is wiped. So what a process's memory shows later says nothing of what was given before. */
static _Thread_local struct {
    uint8_t bytes[1024];
    size_t left;
} stock;

/* A child has a copy of the stock of whoever forked it: it fetches its own. */
static void drop_stock(void) {
    sodium_memzero(&stock, sizeof stock);
}

void random_bytes(void *p, size_t n) {
    if (n > sizeof stock.bytes / 2) {
        randombytes_buf(p, n);
        return;
    }
    if (stock.left < n) {
        uint8_t key[randombytes_SEEDBYTES];
        randombytes_buf(key, sizeof key);
        randombytes_buf_deterministic(stock.bytes, sizeof stock.bytes, key);
        sodium_memzero(key, sizeof key);
        stock.left = sizeof stock.bytes;
    }
    stock.left -= n;
    memcpy(p, stock.bytes + stock.left, n);
    sodium_memzero(stock.bytes + stock.left, n);
}

void text_copy(char *out, size_t cap, const char *s) {
    size_t n = strnlen(s, cap - 1);
    memcpy(out, s, n);
    out[n] = 0;
}

size_t text_token(const char *s, size_t n) {
    size_t i = 0;
    for (; i < n; i++) {
        char c = s[i];
        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) continue;
        if (!c || !strchr("!#$%&'*+-.^_`|~", c)) break;
    }
    return i;
}

bool text_list_has(const char *s, size_t n, const char *word) {
    size_t len = strlen(word);
    for (size_t at = 0, end; at < n; at = end + 1) {
        const char *comma = memchr(s + at, ',', n - at);
        end = comma ? (size_t)(comma - s) : n;
        size_t from = at, to = end;
        while (from < to && (s[from] == ' ' || s[from] == '\t')) from++;
        while (to > from && (s[to - 1] == ' ' || s[to - 1] == '\t')) to--;
        if (to - from == len && strncasecmp(s + from, word, len) == 0) return true;
    }
    return false;
}

size_t text_u64(char out[U64_TEXT], uint64_t v) {
    char digits[U64_TEXT], *p = digits + sizeof digits;
    *--p = 0;
    do *--p = (char)('0' + v % 10);
    while (v /= 10);
    size_t n = (size_t)(digits + sizeof digits - p);
    memcpy(out, p, n);
    return n - 1;
}

uint64_t random_u64(void) {
    uint64_t v;
    random_bytes(&v, sizeof v);
    return v;
}

void base_init(void) {
    if (sodium_init() < 0) {
        fputs("polder: libsodium could not be initialised: no source of random bytes\n", stderr);
        abort();
    }
    static bool forks; /* the list of handlers only grows */
    if (!forks && pthread_atfork(NULL, NULL, drop_stock) != 0) {
        fputs("polder: no memory for what a child process does first\n", stderr);
        abort();
    }
    forks = true;
    json_memory_init();
}

bool bytes_equal_ct(const void *a, const void *b, size_t n) {
    return sodium_memcmp(a, b, n) == 0;
}

void hex_encode(char *out, const void *p, size_t n) {
    static const char digits[] = "0123456789abcdef";
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[b[i] >> 4];
        out[2 * i + 1] = digits[b[i] & 15];
    }
    out[2 * n] = 0;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

bool hex_decode(void *out, size_t n, const char *hex, size_t hex_len) {
    if (hex_len != 2 * n) return false;
    uint8_t *b = out;
    for (size_t i = 0; i < n; i++) {
        int hi = hex_digit(hex[2 * i]), lo = hex_digit(hex[2 * i + 1]);
        if (hi < 0 || lo < 0) return false;
        b[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(buf *b, const void *ptr, size_t n) {
    const uint8_t *p = ptr;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16;
        if (i + 1 < n) v |= (uint32_t)p[i + 1] << 8;
        if (i + 2 < n) v |= p[i + 2];
        char out[4] = {base64_digits[v >> 18], base64_digits[v >> 12 & 63],
                       i + 1 < n ? base64_digits[v >> 6 & 63] : '=', i + 2 < n ? base64_digits[v & 63] : '='};
        buf_append(b, out, 4);
    }
}

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(void *out, size_t cap, size_t *out_len, const char *s, size_t n) {
    if (n % 4) return false;
    uint8_t *p = out;
    size_t len = 0;
    for (size_t i = 0; i < n; i += 4) {
        bool last = i + 4 == n;
        int pad = last && s[i + 3] == '=' ? (s[i + 2] == '=' ? 2 : 1) : 0;
        uint32_t v = 0;
        for (int k = 0; k < 4; k++) {
            int d = k >= 4 - pad ? 0 : base64_value(s[i + (size_t)k]);
            if (d < 0) return false;
            v = v << 6 | (uint32_t)d;
        }
        if ((pad == 1 && (v & 0xff)) || (pad == 2 && (v & 0xffff))) return false;
        for (int k = 0; k < 3 - pad; k++) {
            if (len == cap) return false;
            p[len++] = (uint8_t)(v >> (16 - 8 * k));
        }
    }
    *out_len = len;
    return true;
}

int utf8_decode(uint32_t *cp, const char *str, size_t n) {
    const uint8_t *s = (const uint8_t *)str;
    if (n == 0) return -1;
    uint8_t c = s[0];
    if (c < 0x80) {
        *cp = c;
        return 1;
    }
    if (c < 0xc2 || c > 0xf4) return 0;
    int len = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    /* the second byte's range rules out overlong forms, surrogates and what lies past U+10FFFF */
    uint8_t lo = 0x80, hi = 0xbf;
    if (c == 0xe0) lo = 0xa0;
    if (c == 0xed) hi = 0x9f;
    if (c == 0xf0) lo = 0x90;
    if (c == 0xf4) hi = 0x8f;
    uint32_t v = c & (0x7f >> len);
    for (int i = 1; i < len; i++) {
        if ((size_t)i == n) return -1;
        if (s[i] < lo || s[i] > hi) return 0;
        v = v << 6 | (s[i] & 0x3f);
        lo = 0x80;
        hi = 0xbf;
    }
    *cp = v;
    return len;
}

int utf8_encode(char out[4], uint32_t cp) {
    if (cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000)) cp = 0xfffd;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)((0xf00 >> len & 0xff) | cp);
    return len;
}

bool utf8_valid(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        if (n - i >= 8) { /* eight ASCII bytes at once: the common case */
            uint64_t w;
            memcpy(&w, s + i, 8);
            if (!(w & UINT64_C(0x8080808080808080))) {
                i += 8;
                continue;
            }
        }
        if ((unsigned char)s[i] < 0x80) {
            i++;
            continue;
        }
        uint32_t cp;
        int len = utf8_decode(&cp, s + i, n - i);
        if (len <= 0) return false;
        i += (size_t)len;
    }
    return true;
}

size_t utf8_tail(const char *s, size_t n) {
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        uint8_t c = (uint8_t)s[n - k];
        if ((c & 0xc0) == 0x80) continue;
        uint32_t cp;
        return utf8_decode(&cp, s + n - k, k) == -1 ? k : 0;
    }
    return 0;
}

static bool is_unprintable(uint32_t cp) {
    return cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || cp == 0x200e || cp == 0x200f || (cp >= 0x202a && cp <= 0x202e) ||
           (cp >= 0x2066 && cp <= 0x2069);
}

void text_sanitise(buf *b, const char *s, size_t n, bool keep_newlines) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = utf8_decode(&cp, s + i, n - i);
        if (len <= 0) {
            buf_putc(b, '?');
            i++;
            continue;
        }
        bool keep = !is_unprintable(cp) || (keep_newlines && (cp == '\n' || cp == '\t'));
        if (keep)
            buf_append(b, s + i, (size_t)len);
        else
            buf_putc(b, '?');
        i += (size_t)len;
    }
}
