/* Hashes, random bytes, text encodings of bytes, and UTF-8.
 *
 * SHA-256 by OpenSSL (SHA-NI where there is), random bytes and constant-time compare by libsodium.
 * All functions are thread-safe and allocate only where they take a buf.
 */
#ifndef POLDER_BASE_BYTES_H
#define POLDER_BASE_BYTES_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHA256_LEN     32
#define SHA256_HEX_LEN 64

typedef struct sha256 { /* opaque state, no heap; may be abandoned without a call */
    uint64_t opaque[16];
} sha256;
void sha256_init(sha256 *s);
void sha256_update(sha256 *s, const void *p, size_t n);
void sha256_final(sha256 *s, uint8_t out[SHA256_LEN]);
void sha256_of(uint8_t out[SHA256_LEN], const void *p, size_t n);
void hmac_sha256(uint8_t out[SHA256_LEN], const void *key, size_t key_len, const void *p, size_t n);

/* base_init must have been called before, by one thread; once is enough (main and tests do). Cannot fail after that. */
void base_init(void);
void random_bytes(void *p, size_t n);
uint64_t random_u64(void);
bool bytes_equal_ct(const void *a, const void *b, size_t n); /* constant time */

void hex_encode(char *out /* 2n + 1 */, const void *p, size_t n);
bool hex_decode(void *out /* n */, size_t n, const char *hex, size_t hex_len); /* lower case, exact length */
/* Of one digit in either case; -1: it is none. */
static inline int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}
/* Standard base64 with padding. Decoding is strict: padding required, unused bits zero, no white space, so
 * that a text decodes if and only if encoding its bytes gives it back. */
void base64_encode(buf *b, const void *p, size_t n);
/* Returns false where malformed or longer than cap. */
bool base64_decode(void *out, size_t cap, size_t *out_len, const char *s, size_t n);

static inline uint64_t be_get(const uint8_t *p, int n) {
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v = v << 8 | p[i];
    return v;
}
static inline void be_put(uint8_t *p, uint64_t v, int n) {
    for (int i = n - 1; i >= 0; i--, v >>= 8) p[i] = (uint8_t)v;
}

/* UTF-8 (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF). */
/* Decode one character from n > 0 bytes: its length 1..4 and *cp; 0 where the bytes are not UTF-8; -1 where
 * they are the beginning of a character that n cuts off. */
int utf8_decode(uint32_t *cp, const char *s, size_t n);
int utf8_encode(char out[4], uint32_t cp); /* 1..4; U+FFFD for what is not a scalar value */
bool utf8_valid(const char *s, size_t n);
/* How many bytes at the end of s are an unfinished character (0 to 3). */
size_t utf8_tail(const char *s, size_t n);
/* s, or as much of it as fits, and a NUL: what snprintf does by "%s", in a twentieth of its time. */
void text_copy(char *out, size_t cap, const char *s);
#define U64_TEXT 21
size_t text_u64(char out[U64_TEXT], uint64_t v); /* decimal digits and a NUL; how many digits */
/* How many bytes at the beginning of s may stand in a token of HTTP (RFC 9110, 5.6.2). */
size_t text_token(const char *s, size_t n);
/* Is `word` (in any case) one of those in a list with commas between them (RFC 9110, 5.6.1)? */
bool text_list_has(const char *s, size_t n, const char *word);
/* Append s with control characters (C0, C1, DEL, bidi overrides) and broken UTF-8 shown as '?': what foreign
 * bytes pass before they reach a terminal. keep_newlines leaves \n and \t. */
void text_sanitise(buf *b, const char *s, size_t n, bool keep_newlines);

#endif
