/* Makes keys, JWKS and signed tokens, for tests. */
#ifndef POLDER_TESTS_ISLAND_TOKENS_H
#define POLDER_TESTS_ISLAND_TOKENS_H

#include "base/bytes.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>

static inline void b64url(buf *out, const void *p, size_t n) {
    size_t from = out->len;
    base64_encode(out, p, n);
    while (out->len > from && out->ptr[out->len - 1] == '=') out->ptr[--out->len] = 0;
    for (size_t k = from; k < out->len; k++)
        out->ptr[k] = (char)(out->ptr[k] == '+' ? '-' : out->ptr[k] == '/' ? '_' : out->ptr[k]);
}

static inline void b64url_bn(buf *out, EVP_PKEY *key, const char *param, int width) {
    BIGNUM *bn = NULL;
    uint8_t bytes[1024];
    if (EVP_PKEY_get_bn_param(key, param, &bn) != 1) abort();
    int n = width ? width : BN_num_bytes(bn);
    BN_bn2binpad(bn, bytes, n);
    b64url(out, bytes, (size_t)n);
    BN_free(bn);
}

/* One key of a JWKS; `more` is put in as it is: ",\"kid\":\"a\"". */
static inline void jwk_of(buf *out, EVP_PKEY *key, const char *more) {
    if (EVP_PKEY_is_a(key, "RSA")) {
        buf_puts(out, "{\"kty\":\"RSA\",\"n\":\"");
        b64url_bn(out, key, OSSL_PKEY_PARAM_RSA_N, 0);
        buf_puts(out, "\",\"e\":\"");
        b64url_bn(out, key, OSSL_PKEY_PARAM_RSA_E, 0);
    } else if (EVP_PKEY_is_a(key, "EC")) {
        buf_puts(out, "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"");
        b64url_bn(out, key, OSSL_PKEY_PARAM_EC_PUB_X, 32);
        buf_puts(out, "\",\"y\":\"");
        b64url_bn(out, key, OSSL_PKEY_PARAM_EC_PUB_Y, 32);
    } else {
        uint8_t raw[32];
        size_t n = sizeof raw;
        if (EVP_PKEY_get_raw_public_key(key, raw, &n) != 1) abort();
        buf_puts(out, "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"");
        b64url(out, raw, n);
    }
    buf_printf(out, "\"%s}", more);
}

/* As an issuer signs: alg decides on the padding. Appends to out. */
static inline void sign_into(buf *out, EVP_PKEY *key, const char *alg, const void *p, size_t n) {
    uint8_t sig[1024], raw[64];
    size_t len = sizeof sig;
    EVP_PKEY_CTX *pc = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ed = EVP_PKEY_is_a(key, "ED25519");
    if (EVP_DigestSignInit(ctx, &pc, ed ? NULL : EVP_sha256(), NULL, key) != 1) abort();
    if (strcmp(alg, "PS256") == 0) {
        EVP_PKEY_CTX_set_rsa_padding(pc, RSA_PKCS1_PSS_PADDING);
        EVP_PKEY_CTX_set_rsa_pss_saltlen(pc, RSA_PSS_SALTLEN_DIGEST);
    }
    if (EVP_DigestSign(ctx, sig, &len, p, n) != 1) abort();
    EVP_MD_CTX_free(ctx);
    if (EVP_PKEY_is_a(key, "EC")) {
        const uint8_t *at = sig;
        ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &at, (long)len);
        BN_bn2binpad(ECDSA_SIG_get0_r(s), raw, 32);
        BN_bn2binpad(ECDSA_SIG_get0_s(s), raw + 32, 32);
        ECDSA_SIG_free(s);
        b64url(out, raw, 64);
    } else {
        b64url(out, sig, len);
    }
}

static inline void token_of(buf *out, EVP_PKEY *key, const char *alg, const char *header, const char *claims) {
    buf_reset(out);
    b64url(out, header, strlen(header));
    buf_putc(out, '.');
    b64url(out, claims, strlen(claims));
    size_t n = out->len;
    char *text = malloc(n + 1);
    memcpy(text, out->ptr, n);
    buf_putc(out, '.');
    sign_into(out, key, alg, text, n);
    free(text);
}

#endif
