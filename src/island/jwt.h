/* island, inside: signed tokens (JWT, RFC 7519, in the compact form of JWS, RFC 7515) and the keys that sign them
 * (JWKS, RFC 7517). Pure functions; OpenSSL verifies.
 *
 * Why no JOSE library: Debian's two (libcjose, libjose) bring a second JSON parser, and encryption, key agreement and
 * HMAC that are not wanted here, and leave to the caller what goes wrong in practice: which algorithm, which key, which
 * claims. What is left to write is reading three kinds of public keys and one call of EVP_DigestVerify.
 *
 * Invariants
 *  1. A token is taken only with RS256, PS256, ES256 or EdDSA (Ed25519). There is no way to ask for none, and none for
 * a symmetric algorithm: no key here is ever used as a secret.
 *  2. A key serves the algorithms of its own type only, and of its own "alg" where it names one; the token's header
 *     does not decide how a key is used.
 *  3. Base64url is strict (no padding, unused bits zero), JSON too (no key twice), and every size has a limit.
 */
#ifndef POLDER_ISLAND_JWT_H
#define POLDER_ISLAND_JWT_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#define JWT_BYTES_MAX  16384
#define JWKS_BYTES_MAX (256 * 1024)
#define JWKS_KEYS_MAX  64
#define JWT_KID_MAX    256
#define JWT_LEEWAY_S   60

typedef enum jwt_alg { JWT_RS256, JWT_PS256, JWT_ES256, JWT_EDDSA, JWT_ALGS } jwt_alg;

typedef struct jwt { /* a token that was read; nothing of it is true yet */
    cJSON *header, *claims;
    jwt_alg alg;
    const char *kid;   /* NULL: none; in header */
    const char *text;  /* the caller's */
    size_t signed_len; /* of text */
    uint8_t *sig;
    size_t sig_len;
} jwt;

/* ERR_UNAUTHENTICATED with what is wrong about the form. jwt_clear in any case. */
err_code jwt_parse(jwt *out, const char *text, size_t n, err *e);
void jwt_clear(jwt *t);

typedef struct jwk_set jwk_set;
/* Keys of other types or for other uses are left out; ERR_INVALID where none remains, or where a key is broken. */
err_code jwk_set_parse(jwk_set **out, const char *json, size_t n, const char *what, err *e);
void jwk_set_free(jwk_set *s); /* NULL is fine */
size_t jwk_set_count(const jwk_set *s);

/* The signature by the key of that kid (without a kid: by the only key that could have made it). ERR_NOT_FOUND: there
 * is no such key; ERR_UNAUTHENTICATED: there is, and it did not sign this. Any thread. */
err_code jwt_verify(const jwt *t, const jwk_set *s, err *e);
/* iss exact, aud contains, exp and sub there, exp, nbf and iat at now_s with the leeway. *exp_s: when it ends. */
err_code jwt_check_claims(const jwt *t, const char *issuer, const char *audience, int64_t now_s, int64_t *exp_s,
                          err *e);

#endif
