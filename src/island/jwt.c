#include "island/jwt.h"

#include "base/bytes.h"
#include "base/json.h"
#include "base/mem.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <string.h>
#include <strings.h>

#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 8192
#define SUB_MAX      1000

typedef enum key_type { KEY_RSA, KEY_EC, KEY_ED25519 } key_type;

static const struct {
    const char *name;
    key_type type;
} algs[JWT_ALGS] = {
    [JWT_RS256] = {"RS256", KEY_RSA},
    [JWT_PS256] = {"PS256", KEY_RSA},
    [JWT_ES256] = {"ES256", KEY_EC},
    [JWT_EDDSA] = {"EdDSA", KEY_ED25519},
};

static bool find_alg(jwt_alg *out, const char *name) {
    for (int k = 0; k < JWT_ALGS; k++)
        if (strcmp(algs[k].name, name) == 0) {
            *out = (jwt_alg)k;
            return true;
        }
    return false;
}

/* ---- base64url --------------------------------------------------------------------------------------------- */

/* mem_free by the caller; NULL where it is not base64url, *nomem tells. At least one byte more than *out_len. */
static uint8_t *decode(const char *s, size_t n, size_t *out_len, bool *nomem) {
    size_t pad = (4 - n % 4) % 4, cap = n / 4 * 3 + 4;
    *nomem = false;
    if (pad == 3) return NULL;
    char *std = mem_alloc(n + pad + 1);
    uint8_t *out = mem_zalloc(cap);
    bool ok = std && out;
    *nomem = !ok;
    for (size_t k = 0; k < n && ok; k++) {
        std[k] = (char)(s[k] == '-' ? '+' : s[k] == '_' ? '/' : s[k]);
        ok = s[k] != '+' && s[k] != '/' && s[k] != '=';
    }
    if (ok) {
        memset(std + n, '=', pad);
        ok = base64_decode(out, cap - 1, out_len, std, n + pad);
    }
    mem_free(std);
    if (ok) return out;
    mem_free(out);
    return NULL;
}

/* ---- reading a token --------------------------------------------------------------------------------------- */

static err_code bad(err *e, const char *why) {
    return err_set(e, ERR_UNAUTHENTICATED, "bearer token: %s", why);
}

static err_code part(cJSON **out, const char *s, size_t n, const char *what, err *e) {
    size_t len = 0;
    bool nomem = false;
    err why = {0};
    uint8_t *json = decode(s, n, &len, &nomem);
    if (!json) return nomem ? err_nomem(e, "a token") : bad(e, "it is no JWT: a part is not base64url");
    err_code code = json_parse(out, (const char *)json, len, what, &why);
    mem_free(json);
    if (code == ERR_NOMEM) return err_nomem(e, "a token");
    if (code != ERR_OK || !cJSON_IsObject(*out)) return bad(e, "it is no JWT: a part is not a JSON object");
    return ERR_OK;
}

/* Tokens of other kinds (a logout token, an event) share issuer and audience with those that let somebody in. */
static bool type_is_fine(const cJSON *header) {
    static const char *const types[] = {"JWT", "at+jwt", "application/at+jwt"};
    const cJSON *typ = cJSON_GetObjectItemCaseSensitive(header, "typ");
    if (!typ) return true;
    for (size_t k = 0; k < sizeof types / sizeof types[0]; k++)
        if (cJSON_IsString(typ) && strcasecmp(typ->valuestring, types[k]) == 0) return true;
    return false;
}

static err_code read_header(jwt *t, err *e) {
    const cJSON *alg = cJSON_GetObjectItemCaseSensitive(t->header, "alg"),
                *kid = cJSON_GetObjectItemCaseSensitive(t->header, "kid");
    if (!cJSON_IsString(alg) || !find_alg(&t->alg, alg->valuestring))
        return bad(e, "its algorithm is not taken; RS256, PS256, ES256 and EdDSA are");
    if (cJSON_GetObjectItemCaseSensitive(t->header, "crit"))
        return bad(e, "its header has \"crit\": extensions that polder does not have");
    if (!type_is_fine(t->header)) return bad(e, "its header's \"typ\" is none of JWT and at+jwt");
    if (!kid) return ERR_OK;
    if (!cJSON_IsString(kid) || strlen(kid->valuestring) > JWT_KID_MAX)
        return bad(e, "its header's \"kid\" is no text, or too long");
    t->kid = kid->valuestring;
    return ERR_OK;
}

err_code jwt_parse(jwt *out, const char *text, size_t n, err *e) {
    memset(out, 0, sizeof *out);
    if (n > JWT_BYTES_MAX) return bad(e, "it is too long");
    const char *dot1 = memchr(text, '.', n), *dot2 = NULL;
    if (dot1) dot2 = memchr(dot1 + 1, '.', n - (size_t)(dot1 + 1 - text));
    if (!dot2 || memchr(dot2 + 1, '.', n - (size_t)(dot2 + 1 - text)))
        return bad(e, "it is neither an API key nor a JWT of three parts");
    out->text = text;
    out->signed_len = (size_t)(dot2 - text);
    err_code code = part(&out->header, text, (size_t)(dot1 - text), "header", e);
    if (code == ERR_OK) code = read_header(out, e);
    if (code == ERR_OK) code = part(&out->claims, dot1 + 1, (size_t)(dot2 - dot1 - 1), "claims", e);
    if (code != ERR_OK) return code;
    bool nomem = false;
    out->sig = decode(dot2 + 1, n - out->signed_len - 1, &out->sig_len, &nomem);
    if (nomem) return err_nomem(e, "a token");
    return out->sig && out->sig_len ? ERR_OK : bad(e, "it has no signature");
}

void jwt_clear(jwt *t) {
    cJSON_Delete(t->header);
    cJSON_Delete(t->claims);
    mem_free(t->sig);
    memset(t, 0, sizeof *t);
}

/* ---- keys -------------------------------------------------------------------------------------------------- */

typedef struct jwk {
    char *kid; /* NULL: none */
    EVP_PKEY *key;
    key_type type;
    bool has_alg;
    jwt_alg alg;
} jwk;

struct jwk_set {
    size_t n;
    jwk keys[JWKS_KEYS_MAX];
};

void jwk_set_free(jwk_set *s) {
    if (!s) return;
    for (size_t k = 0; k < s->n; k++) {
        EVP_PKEY_free(s->keys[k].key);
        mem_free(s->keys[k].kid);
    }
    mem_free(s);
}

size_t jwk_set_count(const jwk_set *s) {
    return s ? s->n : 0;
}

static const char *text_member(const cJSON *o, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

/* A member in base64url; NULL where it is absent or broken. */
static uint8_t *bytes_member(const cJSON *o, const char *key, size_t *n) {
    const char *s = text_member(o, key);
    bool nomem;
    return s ? decode(s, strlen(s), n, &nomem) : NULL;
}

static EVP_PKEY *from_params(const char *type, OSSL_PARAM_BLD *b) {
    EVP_PKEY *key = NULL;
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(b);
    EVP_PKEY_CTX *make = EVP_PKEY_CTX_new_from_name(NULL, type, NULL), *check = NULL;
    if (!params || !make || EVP_PKEY_fromdata_init(make) != 1 ||
        EVP_PKEY_fromdata(make, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    if (key) check = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    if (key && (!check || EVP_PKEY_public_check_quick(check) != 1)) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    EVP_PKEY_CTX_free(check);
    EVP_PKEY_CTX_free(make);
    OSSL_PARAM_free(params);
    return key;
}

static EVP_PKEY *read_rsa(const cJSON *o) {
    size_t n_len = 0, e_len = 0;
    uint8_t *n = bytes_member(o, "n", &n_len), *x = bytes_member(o, "e", &e_len);
    EVP_PKEY *key = NULL;
    BIGNUM *bn = NULL, *be = NULL;
    OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
    if (n && x && b && n_len <= RSA_BITS_MAX / 8 && e_len >= 1 && e_len <= 8) {
        bn = BN_bin2bn(n, (int)n_len, NULL);
        be = BN_bin2bn(x, (int)e_len, NULL);
    }
    if (bn && be && BN_num_bits(bn) >= RSA_BITS_MIN && BN_is_odd(bn) && BN_is_odd(be) && !BN_is_one(be) &&
        OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_N, bn) == 1 &&
        OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_E, be) == 1)
        key = from_params("RSA", b);
    OSSL_PARAM_BLD_free(b);
    BN_free(bn);
    BN_free(be);
    mem_free(n);
    mem_free(x);
    return key;
}

static EVP_PKEY *read_ec(const cJSON *o) {
    size_t x_len = 0, y_len = 0;
    uint8_t *x = bytes_member(o, "x", &x_len), *y = bytes_member(o, "y", &y_len), point[65] = {4};
    EVP_PKEY *key = NULL;
    OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
    if (x && y && b && x_len == 32 && y_len == 32) {
        memcpy(point + 1, x, 32);
        memcpy(point + 33, y, 32);
        if (OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) == 1 &&
            OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point) == 1)
            key = from_params("EC", b);
    }
    OSSL_PARAM_BLD_free(b);
    mem_free(x);
    mem_free(y);
    return key;
}

static EVP_PKEY *read_ed25519(const cJSON *o) {
    size_t n = 0;
    uint8_t *x = bytes_member(o, "x", &n);
    EVP_PKEY *key = x && n == 32 ? EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x, n) : NULL;
    mem_free(x);
    return key;
}

/* For signatures, as far as it says so; and of a type that is known. */
static bool is_for_us(const cJSON *o, jwk *k) {
    const char *kty = text_member(o, "kty"), *use = text_member(o, "use"), *crv = text_member(o, "crv"),
               *alg = text_member(o, "alg");
    const cJSON *ops = cJSON_GetObjectItemCaseSensitive(o, "key_ops"), *op;
    bool verifies = !ops;
    cJSON_ArrayForEach(op, ops) verifies = verifies || (cJSON_IsString(op) && strcmp(op->valuestring, "verify") == 0);
    if (!kty || !verifies || (use && strcmp(use, "sig") != 0)) return false;
    if (strcmp(kty, "RSA") == 0)
        k->type = KEY_RSA;
    else if (strcmp(kty, "EC") == 0 && crv && strcmp(crv, "P-256") == 0)
        k->type = KEY_EC;
    else if (strcmp(kty, "OKP") == 0 && crv && strcmp(crv, "Ed25519") == 0)
        k->type = KEY_ED25519;
    else
        return false;
    k->has_alg = alg != NULL;
    /* "Ed25519" is the younger name (RFC 9864) of what tokens call EdDSA */
    if (alg && k->type == KEY_ED25519 && strcmp(alg, "Ed25519") == 0) alg = "EdDSA";
    return !alg || (find_alg(&k->alg, alg) && algs[k->alg].type == k->type);
}

static err_code read_key(jwk_set *s, const cJSON *o, const char *what, err *e) {
    jwk k = {0};
    if (!cJSON_IsObject(o)) return err_set(e, ERR_INVALID, "%s: a key is not an object", what);
    if (!is_for_us(o, &k)) return ERR_OK;
    if (s->n == JWKS_KEYS_MAX) return err_set(e, ERR_TOO_LARGE, "%s: more than %d keys", what, JWKS_KEYS_MAX);
    const char *kid = text_member(o, "kid");
    if (kid && strlen(kid) > JWT_KID_MAX) return err_set(e, ERR_INVALID, "%s: a kid is too long", what);
    k.key = k.type == KEY_RSA ? read_rsa(o) : k.type == KEY_EC ? read_ec(o) : read_ed25519(o);
    ERR_clear_error();
    if (!k.key)
        return err_set(
            e, ERR_INVALID,
            "%s: the key \"%.60s\" is no good key: RSA needs %d to %d bits, EC a point of P-256, OKP 32 bytes", what,
            kid ? kid : "", RSA_BITS_MIN, RSA_BITS_MAX);
    if (kid && !(k.kid = mem_strdup(kid))) {
        EVP_PKEY_free(k.key);
        return err_nomem(e, "a key set");
    }
    s->keys[s->n++] = k;
    return ERR_OK;
}

err_code jwk_set_parse(jwk_set **out, const char *json, size_t n, const char *what, err *e) {
    cJSON *v = NULL;
    *out = NULL;
    if (n > JWKS_BYTES_MAX) return err_set(e, ERR_TOO_LARGE, "%s: more than %d bytes", what, JWKS_BYTES_MAX);
    err_code code = json_parse(&v, json, n, what, e);
    if (code != ERR_OK) return code;
    const cJSON *keys = cJSON_IsObject(v) ? cJSON_GetObjectItemCaseSensitive(v, "keys") : NULL, *k;
    jwk_set *s = mem_zalloc(sizeof *s);
    if (!s)
        code = err_nomem(e, "a key set");
    else if (!cJSON_IsArray(keys))
        code = err_set(e, ERR_INVALID, "%s: is no JWKS: it needs a list \"keys\"", what);
    for (k = code == ERR_OK ? keys->child : NULL; k && code == ERR_OK; k = k->next) code = read_key(s, k, what, e);
    if (code == ERR_OK && s->n == 0)
        code = err_set(e, ERR_INVALID, "%s: has no key for RS256, PS256, ES256 or EdDSA", what);
    cJSON_Delete(v);
    if (code == ERR_OK)
        *out = s;
    else
        jwk_set_free(s);
    return code;
}

/* ---- signatures -------------------------------------------------------------------------------------------- */

/* r and s side by side become what OpenSSL reads; OPENSSL_free by the caller. */
static uint8_t *ecdsa_der(const uint8_t sig[64], int *len) {
    uint8_t *der = NULL;
    ECDSA_SIG *s = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(sig, 32, NULL), *v = BN_bin2bn(sig + 32, 32, NULL);
    if (s && r && v && ECDSA_SIG_set0(s, r, v) == 1) {
        r = v = NULL; /* taken */
        *len = i2d_ECDSA_SIG(s, &der);
        if (*len <= 0) der = NULL;
    }
    BN_free(r);
    BN_free(v);
    ECDSA_SIG_free(s);
    return der;
}

static bool signed_by(const jwt *t, EVP_PKEY *key) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *p = NULL;
    const uint8_t *sig = t->sig;
    uint8_t *der = NULL;
    int der_len = 0;
    size_t n = t->sig_len;
    bool ok = ctx && EVP_DigestVerifyInit(ctx, &p, t->alg == JWT_EDDSA ? NULL : EVP_sha256(), NULL, key) == 1;
    if (ok && t->alg == JWT_PS256)
        ok = EVP_PKEY_CTX_set_rsa_padding(p, RSA_PKCS1_PSS_PADDING) == 1 &&
             EVP_PKEY_CTX_set_rsa_pss_saltlen(p, RSA_PSS_SALTLEN_DIGEST) == 1;
    if (ok && t->alg == JWT_ES256) {
        der = n == 64 ? ecdsa_der(sig, &der_len) : NULL;
        ok = der != NULL;
        sig = der;
        n = (size_t)der_len;
    }
    ok = ok && EVP_DigestVerify(ctx, sig, n, (const uint8_t *)t->text, t->signed_len) == 1;
    OPENSSL_free(der);
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return ok;
}

static bool fits(const jwk *k, const jwt *t) {
    return k->type == algs[t->alg].type && (!k->has_alg || k->alg == t->alg);
}

err_code jwt_verify(const jwt *t, const jwk_set *s, err *e) {
    size_t n = 0, only = 0;
    bool found = false;
    for (size_t k = 0; k < s->n; k++) {
        const jwk *key = &s->keys[k];
        if (!fits(key, t)) continue;
        n++;
        only = k;
        if (!t->kid || !key->kid || strcmp(t->kid, key->kid) != 0) continue;
        found = true;
        if (signed_by(t, key->key)) return ERR_OK;
    }
    if (!t->kid && n == 1) {
        found = true;
        if (signed_by(t, s->keys[only].key)) return ERR_OK;
    }
    if (found) return bad(e, "its signature is wrong");
    return err_set(e, ERR_NOT_FOUND, "bearer token: the issuer has no such key");
}

/* ---- claims ------------------------------------------------------------------------------------------------ */

static bool has_audience(const cJSON *aud, const char *want) {
    const cJSON *a;
    if (cJSON_IsString(aud)) return strcmp(aud->valuestring, want) == 0;
    if (!cJSON_IsArray(aud)) return false;
    cJSON_ArrayForEach(a, aud) if (cJSON_IsString(a) && strcmp(a->valuestring, want) == 0) return true;
    return false;
}

/* *v keeps its value where the claim is absent. */
static bool time_claim(const jwt *t, const char *key, double *v) {
    const cJSON *c = cJSON_GetObjectItemCaseSensitive(t->claims, key);
    if (!c) return true;
    if (!cJSON_IsNumber(c) || !(c->valuedouble >= 0 && c->valuedouble < 1e15)) return false;
    *v = c->valuedouble;
    return true;
}

err_code jwt_check_claims(const jwt *t, const char *issuer, const char *audience, int64_t now_s, int64_t *exp_s,
                          err *e) {
    const char *iss = text_member(t->claims, "iss"), *sub = text_member(t->claims, "sub");
    double exp = -1, nbf = 0, iat = 0, now = (double)now_s;
    if (!iss || strcmp(iss, issuer) != 0) return bad(e, "its issuer is not the one that this island trusts");
    if (!has_audience(cJSON_GetObjectItemCaseSensitive(t->claims, "aud"), audience))
        return bad(e, "it was made for another audience");
    if (!sub || !*sub || strlen(sub) > SUB_MAX) return bad(e, "it names no subject (sub), or a very long one");
    if (!time_claim(t, "exp", &exp) || !time_claim(t, "nbf", &nbf) || !time_claim(t, "iat", &iat))
        return bad(e, "one of exp, nbf and iat is no time");
    if (exp < 0) return bad(e, "it does not say when it ends (exp)");
    if (now >= exp + JWT_LEEWAY_S) return bad(e, "it has expired");
    if (now + JWT_LEEWAY_S < nbf || now + JWT_LEEWAY_S < iat) return bad(e, "it is not valid yet");
    *exp_s = (int64_t)exp;
    return ERR_OK;
}
