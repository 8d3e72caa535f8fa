/* Tokens of an issuer. What breaks these: a token that is taken with an algorithm, a key, an audience, an issuer or a
 * time that is not right; keys fetched without a record or more than once a minute; a key that was withdrawn and still
 * lets somebody in. */
#include "world.h"

#include "island/oidc.h"
#include "tokens.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <utime.h>

#define NOW INT64_C(1800000000)
#define CLAIMS                                                                                                 \
    "{\"iss\":\"https://id.example\",\"aud\":[\"x\",\"polder\"],\"sub\":\"alice\",\"exp\":1800000300,\"iat\":" \
    "1800000000,\"groups\":[\"nobody\",\"staff\"]}"

static EVP_PKEY *rsa, *rsa2, *ec, *ed;
static buf token = {.max = 1 << 20}, jwks = {.max = 1 << 20};

static void write_file(const char *name, const char *text) {
    char path[400];
    err e = {0};
    snprintf(path, sizeof path, "%s/%s", isl, name);
    if (file_write_atomic(path, text, strlen(text), 0600, &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
}

static void configure(const char *where) {
    char yaml[1000];
    snprintf(yaml, sizeof yaml,
             "oidc:\n  issuer: https://id.example\n  audience: polder\n  jwks: %s\n"
             "  projects: admins=ops, staff=care, a=b=other\n",
             where);
    write_file("island.yaml", yaml);
}

static void all_keys(void) {
    buf_reset(&jwks);
    buf_puts(&jwks, "{\"keys\":[");
    jwk_of(&jwks, rsa, ",\"kid\":\"r\",\"use\":\"sig\"");
    buf_putc(&jwks, ',');
    jwk_of(&jwks, rsa2, ",\"kid\":\"r256\",\"alg\":\"RS256\",\"key_ops\":[\"verify\"]");
    buf_putc(&jwks, ',');
    jwk_of(&jwks, ec, ",\"kid\":\"e\"");
    buf_putc(&jwks, ',');
    jwk_of(&jwks, ed, ",\"kid\":\"d\",\"alg\":\"EdDSA\"");
    buf_puts(&jwks, ",{\"kty\":\"oct\",\"k\":\"AAAA\",\"kid\":\"o\"},{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"\"}]}");
}

static island *open_with_file(void) {
    err e = {0};
    all_keys();
    write_file("jwks.json", buf_str(&jwks));
    configure("jwks.json");
    island *i = open_ok();
    if (i && project_add(i, NULL, "care", &(grant){.floor = "internal"}, &e) != ERR_OK) fprintf(stderr, "%s\n", e.msg);
    return i;
}

static err_code check_at(island *i, int64_t mono_s, int64_t unix_s, identity *who, err *e) {
    memset(e, 0, sizeof *e);
    return oidc_check_at(i, buf_str(&token), token.len, (oidc_time){mono_s, unix_s}, who, e);
}

static err_code check(island *i, identity *who, err *e) {
    return check_at(i, 1, NOW, who, e);
}

/* The claims with one piece of their text in another's place. */
static const char *claims_but(const char *old, const char *new) {
    static char text[40000];
    const char *at = strstr(CLAIMS, old);
    if (!at) abort();
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - CLAIMS), CLAIMS, new, at + strlen(old));
    return text;
}

TEST(algorithms) {
    static const char *const headers[] = {"{\"alg\":\"RS256\",\"kid\":\"r\",\"typ\":\"JWT\"}",
                                          "{\"alg\":\"PS256\",\"kid\":\"r\"}", "{\"alg\":\"RS256\",\"kid\":\"r256\"}",
                                          "{\"alg\":\"ES256\",\"kid\":\"e\",\"typ\":\"at+jwt\"}",
                                          "{\"alg\":\"EdDSA\",\"kid\":\"d\"}"};
    EVP_PKEY *keys[] = {rsa, rsa, rsa2, ec, ed};
    static const char *const algs[] = {"RS256", "PS256", "RS256", "ES256", "EdDSA"};
    island *i = open_with_file();
    CHECK(i);
    err e;
    identity who, first = {0};
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        token_of(&token, keys[k], algs[k], headers[k], CLAIMS);
        for (int twice = 0; twice < 2; twice++) { /* the second time from the cache */
            CHECK_OK(check(i, &who, &e), e);
            CHECK_STR(who.project, "care");
            CHECK_STR(who.floor, "internal");
            CHECK_INT(who.role, ROLE_USER);
            CHECK(strlen(who.key_id) == 14 && strncmp(who.key_id, "o_", 2) == 0);
        }
        if (k == 0) first = who;
        CHECK_STR(who.key_id, first.key_id); /* the same person */
        /* every byte of it counts */
        for (size_t at = 0; at < token.len; at += 1 + token.len / 97) {
            char was = token.ptr[at];
            token.ptr[at] = was == 'A' ? 'B' : 'A';
            CHECK(check(i, &who, &e) == ERR_UNAUTHENTICATED);
            token.ptr[at] = was;
        }
        CHECK_OK(check(i, &who, &e), e);
    }
    token_of(&token, rsa, "RS256", headers[0], claims_but("alice", "bob"));
    CHECK_OK(check(i, &who, &e), e);
    CHECK(strcmp(who.key_id, first.key_id) != 0);
    island_close(i);
}

/* Tokens as attackers make them. */
TEST(forged) {
    island *i = open_with_file();
    CHECK(i);
    err e;
    identity who;
    static const struct {
        const char *alg, *header;
    } wrong[] = {
        {"RS256", "{\"alg\":\"none\"}"},
        {"RS256", "{\"alg\":\"None\",\"kid\":\"r\"}"},
        {"RS256", "{\"alg\":\"RS384\",\"kid\":\"r\"}"},
        {"RS256", "{\"alg\":\"rs256\",\"kid\":\"r\"}"},
        {"RS256", "{\"alg\":\"HS256\",\"kid\":\"r\"}"},
        {"RS256", "{\"alg\":\"ES256\",\"kid\":\"r\"}"},  /* the key's type decides, not the header */
        {"RS256", "{\"alg\":\"RS256\",\"kid\":\"e\"}"},  /* another key */
        {"RS256", "{\"alg\":\"RS256\",\"kid\":\"no\"}"}, /* no such key */
        {"RS256", "{\"alg\":\"RS256\",\"kid\":\"o\"}"},
        {"RS256", "{\"alg\":\"RS256\"}"}, /* two keys could have made it */
        {"RS256", "{\"alg\":\"RS256\",\"kid\":7}"},
        {"RS256", "{\"alg\":\"RS256\",\"kid\":null}"},
        {"RS256", "{\"alg\":[\"RS256\"],\"kid\":\"r\"}"},
        {"RS256", "{\"kid\":\"r\"}"},
        {"RS256", "{\"alg\":\"RS256\",\"alg\":\"RS256\",\"kid\":\"r\"}"},
        {"RS256", "{\"alg\":\"RS256\",\"kid\":\"r\",\"crit\":[\"x\"]}"},
        {"RS256", "{\"alg\":\"RS256\",\"kid\":\"r\",\"typ\":\"logout+jwt\"}"},
        {"RS256", "{\"alg\":\"PS256\",\"kid\":\"r\"}"},
        {"PS256", "{\"alg\":\"RS256\",\"kid\":\"r\"}"},
        {"RS256", "[]"},
        {"RS256", ""},
    };
    for (size_t k = 0; k < sizeof wrong / sizeof wrong[0]; k++) {
        token_of(&token, rsa, wrong[k].alg, wrong[k].header, CLAIMS);
        if (check(i, &who, &e) != ERR_UNAUTHENTICATED) FAIL("%s: %s", wrong[k].header, e.msg);
    }
    token_of(&token, rsa2, "PS256", "{\"alg\":\"PS256\",\"kid\":\"r256\"}", CLAIMS); /* the key says RS256 */
    CHECK_INT(check(i, &who, &e), ERR_UNAUTHENTICATED);
    token_of(&token, ec, "ES256", "{\"alg\":\"ES256\",\"kid\":\"x\"}",
             CLAIMS); /* the only such key, but not by that name */
    CHECK_INT(check(i, &who, &e), ERR_UNAUTHENTICATED);
    token_of(&token, rsa2, "RS256", "{\"alg\":\"RS256\",\"kid\":\"r\"}", CLAIMS); /* somebody else's key */
    CHECK_INT(check(i, &who, &e), ERR_UNAUTHENTICATED);
    CHECK_HAS(e.msg, "signature");
    /* HMAC with the public key as its secret */
    buf pub = {.max = 4096}, in = {.max = 8192};
    uint8_t mac[SHA256_LEN];
    jwk_of(&pub, rsa, "");
    static const char *const headers[] = {"{\"alg\":\"HS256\",\"kid\":\"r\"}", "{\"alg\":\"RS256\",\"kid\":\"r\"}"};
    for (int k = 0; k < 2; k++) {
        buf_reset(&in);
        b64url(&in, headers[k], strlen(headers[k]));
        buf_putc(&in, '.');
        b64url(&in, CLAIMS, strlen(CLAIMS));
        hmac_sha256(mac, pub.ptr, pub.len, in.ptr, in.len);
        buf_reset(&token);
        buf_printf(&token, "%s.", buf_str(&in));
        b64url(&token, mac, sizeof mac);
        CHECK_INT(check(i, &who, &e), ERR_UNAUTHENTICATED);
    }
    /* ECDSA's zeros, and DER instead of two numbers */
    static const char es[] = "{\"alg\":\"ES256\",\"kid\":\"e\"}";
    for (size_t n = 0; n <= 72; n += 8) {
        uint8_t zeros[72] = {0};
        buf_reset(&token);
        b64url(&token, es, strlen(es));
        buf_putc(&token, '.');
        b64url(&token, CLAIMS, strlen(CLAIMS));
        buf_putc(&token, '.');
        b64url(&token, zeros, n);
        CHECK_INT(check(i, &who, &e), ERR_UNAUTHENTICATED);
    }
    static const char *const texts[] = {"",
                                        ".",
                                        "..",
                                        "...",
                                        "a.b.c",
                                        "e30.e30.",
                                        "e30.e30.AAAA",
                                        "sk-1234",
                                        "Bearer x",
                                        "eyJhbGciOiJSUzI1NiIsImtpZCI6InIifQ..AAAA"};
    for (size_t k = 0; k < sizeof texts / sizeof texts[0]; k++) {
        buf_reset(&token);
        buf_puts(&token, texts[k]);
        CHECK_INT(check(i, &who, &e), ERR_UNAUTHENTICATED);
    }
    buf_reset(&token);
    while (token.len <= JWT_BYTES_MAX) buf_putc(&token, 'A');
    CHECK_INT(check(i, &who, &e), ERR_UNAUTHENTICATED);
    CHECK_HAS(e.msg, "too long");
    buf_free(&pub);
    buf_free(&in);
    island_close(i);
}

TEST(claims) {
    static const char header[] = "{\"alg\":\"ES256\",\"kid\":\"e\"}";
    static const struct {
        const char *old, *new;
        err_code code;
        const char *says;
    } cases[] = {
        {"https://id.example", "https://id.example/", ERR_UNAUTHENTICATED, "issuer"},
        {"\"iss\":\"https://id.example\",", "", ERR_UNAUTHENTICATED, "issuer"},
        {"\"https://id.example\"", "[\"https://id.example\"]", ERR_UNAUTHENTICATED, "issuer"},
        {"\"polder\"", "\"polder2\"", ERR_UNAUTHENTICATED, "audience"},
        {"[\"x\",\"polder\"]", "\"polder\"", ERR_OK, NULL},
        {"[\"x\",\"polder\"]", "\"xpolder\"", ERR_UNAUTHENTICATED, "audience"},
        {"[\"x\",\"polder\"]", "[]", ERR_UNAUTHENTICATED, "audience"},
        {"[\"x\",\"polder\"]", "{\"polder\":1}", ERR_UNAUTHENTICATED, "audience"},
        {"\"sub\":\"alice\",", "", ERR_UNAUTHENTICATED, "sub"},
        {"\"alice\"", "\"\"", ERR_UNAUTHENTICATED, "sub"},
        {"\"alice\"", "17", ERR_UNAUTHENTICATED, "sub"},
        {"\"exp\":1800000300,", "", ERR_UNAUTHENTICATED, "exp"},
        {"1800000300", "1799999941", ERR_OK, NULL}, /* a minute of leeway */
        {"1800000300", "1799999940", ERR_UNAUTHENTICATED, "expired"},
        {"1800000300", "\"1800000300\"", ERR_UNAUTHENTICATED, "no time"},
        {"1800000300", "1e300", ERR_UNAUTHENTICATED, "no time"},
        {"1800000300", "-1", ERR_UNAUTHENTICATED, "no time"},
        {"\"iat\":1800000000", "\"iat\":1800000060", ERR_OK, NULL},
        {"\"iat\":1800000000", "\"iat\":1800000061", ERR_UNAUTHENTICATED, "not valid yet"},
        {"\"iat\":1800000000", "\"nbf\":1800000060", ERR_OK, NULL},
        {"\"iat\":1800000000", "\"nbf\":1800000061", ERR_UNAUTHENTICATED, "not valid yet"},
        {"\"iat\":1800000000", "\"nbf\":\"soon\"", ERR_UNAUTHENTICATED, "no time"},
        {"[\"nobody\",\"staff\"]", "\"staff\"", ERR_OK, NULL},
        {"[\"nobody\",\"staff\"]", "[]", ERR_DENIED, "groups"},
        {"[\"nobody\",\"staff\"]", "[\"Staff\",\"staff \",\"staf\"]", ERR_DENIED, "groups"},
        {"\"groups\"", "\"Groups\"", ERR_DENIED, "groups"},
        {"[\"nobody\",\"staff\"]", "[\"staff\",\"admins\"]", ERR_DENIED, "ops"}, /* the first entry; not there */
        {"\"staff\"", "\"a=b\"", ERR_DENIED, "other"},
    };
    island *i = open_with_file();
    CHECK(i);
    err e;
    identity who;
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        token_of(&token, ec, "ES256", header, claims_but(cases[k].old, cases[k].new));
        err_code code = check(i, &who, &e);
        if (code != cases[k].code || (cases[k].says && !strstr(e.msg, cases[k].says)))
            FAIL("%s -> %s: %d %s", cases[k].old, cases[k].new, (int)code, e.msg);
    }
    /* what was good ends with its time, in the cache too */
    token_of(&token, ec, "ES256", header, CLAIMS);
    CHECK_OK(check_at(i, 1, NOW, &who, &e), e);
    CHECK_OK(check_at(i, 1, NOW + 359, &who, &e), e);
    CHECK_INT(check_at(i, 1, NOW + 360, &who, &e), ERR_UNAUTHENTICATED);
    CHECK_HAS(e.msg, "expired");
    /* the project's floor now, not when the token was first seen; and no project, no entry */
    CHECK_OK(check(i, &who, &e), e);
    CHECK_OK(project_change(i, NULL, "care", &(grant){.floor = "secret"}, &e), e);
    CHECK_OK(check(i, &who, &e), e);
    CHECK_STR(who.floor, "secret");
    CHECK_OK(project_remove(i, NULL, "care", &e), e);
    CHECK_INT(check(i, &who, &e), ERR_DENIED);
    island_close(i);
}

TEST(nested_claim) {
    err e;
    identity who;
    all_keys();
    write_file("jwks.json", buf_str(&jwks));
    write_file("island.yaml", "oidc:\n  issuer: https://id.example\n  audience: polder\n  jwks: jwks.json\n"
                              "  claim: realm_access.roles\n  projects: staff=care\n");
    island *i = open_ok();
    CHECK(i);
    CHECK_OK(project_add(i, NULL, "care", &(grant){0}, &e), e);
    static const char header[] = "{\"alg\":\"ES256\",\"kid\":\"e\"}";
    token_of(&token, ec, "ES256", header,
             claims_but("\"groups\":[\"nobody\",\"staff\"]", "\"realm_access\":{\"roles\":[\"staff\"]}"));
    CHECK_OK(check(i, &who, &e), e);
    token_of(&token, ec, "ES256", header,
             claims_but("\"groups\":[\"nobody\",\"staff\"]", "\"realm_access.roles\":\"staff\""));
    CHECK_OK(check(i, &who, &e), e);
    token_of(&token, ec, "ES256", header,
             claims_but("\"groups\":[\"nobody\",\"staff\"]", "\"realm_access\":[{\"roles\":[\"staff\"]}]"));
    CHECK_INT(check(i, &who, &e), ERR_DENIED);
    island_close(i);
}

/* Signatures that RFC 7515 prints: A.2 (RS256) and A.3 (ES256). */
TEST(rfc7515) {
    static const char payload[] = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290"
                                  "Ijp0cnVlfQ";
    static const char set[] =
        "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-"
        "4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXn"
        "dS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNm"
        "oudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\",\"e\":\"AQAB\"},{\"kty\":\"EC\",\"crv\":\"P-"
        "256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI"
        "5a0\"}]}";
    static const char *const head[] = {"eyJhbGciOiJSUzI1NiJ9", "eyJhbGciOiJFUzI1NiJ9"};
    static const char rs[] =
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU"
        "Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d"
        "O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0ig"
        "cN_IoypGlUPQGe77Rw";
    static const char es[] = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    static const char *const sig[] = {rs, es};
    jwk_set *s;
    err e = {0};
    CHECK_OK(jwk_set_parse(&s, set, strlen(set), "jwks", &e), e);
    for (int k = 0; k < 2; k++) {
        jwt t;
        int64_t exp;
        buf_reset(&token);
        buf_printf(&token, "%s.%s.%s", head[k], payload, sig[k]);
        CHECK_OK(jwt_parse(&t, buf_str(&token), token.len, &e), e);
        CHECK_OK(jwt_verify(&t, s, &e), e);
        CHECK_INT(jwt_check_claims(&t, "joe", "x", 1300819380, &exp, &e), ERR_UNAUTHENTICATED);
        CHECK_HAS(e.msg, "audience");
        t.sig[3] ^= 1;
        CHECK_INT(jwt_verify(&t, s, &e), ERR_UNAUTHENTICATED);
        jwt_clear(&t);
    }
    jwk_set_free(s);
}

TEST(key_sets) {
    static const char off_curve[] =
        "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\","
        "\"y\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}]}";
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "{\"keys\":{}}",
        "{\"keys\":[]}",
        "{\"keys\":[7]}",
        "{\"keys\":[{}]}",
        "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}",
        "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}",
        "{\"keys\":[{\"kty\":\"RSA\",\"e\":\"AQAB\"}]}",
        off_curve,
        "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}]}",
        "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"RS256\",\"x\":\"AAAA\"}]}",
        "{\"keys\":[],\"keys\":[]}",
    };
    jwk_set *s;
    err e = {0};
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        if (jwk_set_parse(&s, bad[k], strlen(bad[k]), "jwks", &e) != ERR_INVALID) FAIL("%s: %s", bad[k], e.msg);
        CHECK(!s);
    }
    /* not for signatures: left out */
    buf b = {.max = 1 << 20};
    buf_puts(&b, "{\"keys\":[");
    jwk_of(&b, rsa, ",\"use\":\"enc\"");
    buf_putc(&b, ',');
    jwk_of(&b, ec, ",\"key_ops\":[\"sign\"]");
    buf_puts(&b, "]}");
    CHECK_INT(jwk_set_parse(&s, buf_str(&b), b.len, "jwks", &e), ERR_INVALID);
    for (int n = JWKS_KEYS_MAX; n <= JWKS_KEYS_MAX + 1; n++) {
        buf_reset(&b);
        buf_puts(&b, "{\"keys\":[");
        for (int k = 0; k < n; k++) {
            if (k) buf_putc(&b, ',');
            jwk_of(&b, ed, ",\"kid\":\"same\"");
        }
        buf_puts(&b, "]}");
        err_code code = jwk_set_parse(&s, buf_str(&b), b.len, "jwks", &e);
        CHECK_INT(code, n == JWKS_KEYS_MAX ? ERR_OK : ERR_TOO_LARGE);
        jwk_set_free(s);
    }
    buf_reset(&b);
    while (b.len <= JWKS_BYTES_MAX) buf_puts(&b, "          ");
    CHECK_INT(jwk_set_parse(&s, buf_str(&b), b.len, "jwks", &e), ERR_TOO_LARGE);
    buf_free(&b);
}

static const char ec_header[] = "{\"alg\":\"ES256\",\"kid\":\"e\"}";

/* The file changes: new keys are taken, withdrawn ones let nobody in, not even from the cache. */
TEST(file_changes) {
    island *i = open_with_file();
    CHECK(i);
    err e;
    identity who;
    token_of(&token, ec, "ES256", ec_header, CLAIMS);
    CHECK_OK(check_at(i, 10, NOW, &who, &e), e);
    buf_reset(&jwks);
    buf_puts(&jwks, "{\"keys\":[");
    jwk_of(&jwks, rsa, ",\"kid\":\"new\"");
    buf_puts(&jwks, "]}");
    write_file("jwks.json", buf_str(&jwks));
    CHECK_OK(check_at(i, 10, NOW, &who, &e), e); /* within the same second nobody looks */
    CHECK_INT(check_at(i, 11, NOW, &who, &e), ERR_UNAUTHENTICATED);
    token_of(&token, rsa, "RS256", "{\"alg\":\"RS256\"}", CLAIMS); /* no kid, but only one key can have made it */
    CHECK_OK(check_at(i, 11, NOW, &who, &e), e);
    write_file("jwks.json", "{broken");
    CHECK_OK(check_at(i, 12, NOW, &who, &e), e); /* the keys from before stay */
    char path[400];
    snprintf(path, sizeof path, "%s/jwks.json", isl);
    CHECK(unlink(path) == 0);
    CHECK_OK(check_at(i, 13, NOW, &who, &e), e);
    island_close(i);
    i = open_ok(); /* and with none at all nobody comes in */
    CHECK(i);
    CHECK_INT(check_at(i, 13, NOW, &who, &e), ERR_UNAVAILABLE);
    CHECK(!strstr(e.msg, "jwks.json"));
    all_keys();
    write_file("jwks.json", buf_str(&jwks));
    token_of(&token, ec, "ES256", ec_header, CLAIMS);
    CHECK_OK(check_at(i, 15, NOW, &who, &e), e);
    CHECK_INT(records(i, "egress", NULL), 0);
    island_close(i);
}

/* ---- an issuer on the loopback ---- */

static int listener = -1;
static atomic_int asked, behaviour; /* 0: the keys; else a status, or 1: nothing */
static atomic_bool over;
static island *serving;
static atomic_int records_when_asked;

static void *issuer(void *arg) {
    while (!atomic_load(&over)) {
        struct pollfd p = {.fd = listener, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0) continue;
        int fd = accept(listener, NULL, NULL);
        char in[4096];
        if (fd < 0 || read(fd, in, sizeof in) <= 0) continue;
        atomic_fetch_add(&asked, 1);
        atomic_store(&records_when_asked, records(serving, "egress", "\"purpose\":\"oidc.jwks\""));
        buf out = {.max = 1 << 20};
        int how = atomic_load(&behaviour);
        if (how == 302)
            buf_puts(&out, "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
        else if (how == 200) /* endless */
            buf_puts(&out, "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n");
        else if (how == 0)
            buf_printf(&out, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", jwks.len,
                       buf_str(&jwks));
        if (write(fd, buf_str(&out), out.len) < 0) fprintf(stderr, "issuer: write\n");
        buf_free(&out);
        close(fd);
    }
    return NULL;
}

static bool start_issuer(pthread_t *t, char url[100]) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(listener, 8) != 0 ||
        getsockname(listener, (struct sockaddr *)&a, &n) != 0)
        return false;
    snprintf(url, 100, "http://127.0.0.1:%d/keys", ntohs(a.sin_port));
    atomic_store(&over, false);
    atomic_store(&asked, 0);
    atomic_store(&behaviour, 0);
    return pthread_create(t, NULL, issuer, NULL) == 0;
}

TEST(fetched) {
    pthread_t t;
    char url[100], host[100];
    err e = {0};
    identity who;
    CHECK(start_issuer(&t, url));
    configure(url);
    all_keys();
    island *i = serving = open_ok();
    CHECK(i);
    CHECK_OK(project_add(i, NULL, "care", &(grant){0}, &e), e);
    CHECK_INT(atomic_load(&asked), 0); /* nothing leaves before somebody brings a token */
    token_of(&token, ec, "ES256", ec_header, claims_but("id.example", "other.example"));
    CHECK_INT(check_at(i, 0, NOW, &who, &e), ERR_UNAUTHENTICATED);
    CHECK_INT(atomic_load(&asked), 0); /* nor for one that does not even claim to be ours */
    token_of(&token, ec, "ES256", ec_header, CLAIMS);
    CHECK_OK(check_at(i, 100, NOW, &who, &e), e);
    int first = atomic_load(&asked);
    CHECK_INT(first, 1);
    CHECK_INT(atomic_load(&records_when_asked), first); /* the record was there when the issuer was asked */
    snprintf(host, sizeof host, "\"host\":\"%.*s\"", (int)strcspn(url + 7, "/"), url + 7);
    CHECK_INT(records(i, "egress", host), first);
    for (int k = 0; k < 50; k++) CHECK_OK(check_at(i, 101 + k, NOW, &who, &e), e);
    CHECK_INT(atomic_load(&asked), first);
    /* an unknown kid asks once a minute */
    token_of(&token, rsa, "RS256", "{\"alg\":\"RS256\",\"kid\":\"unknown\"}", CLAIMS);
    for (int k = 0; k < 120; k++) CHECK_INT(check_at(i, 160 + k, NOW, &who, &e), ERR_UNAUTHENTICATED);
    CHECK_INT(atomic_load(&asked), first + 2);
    /* failures keep what is there */
    static const int how[] = {302, 500, 1, 200};
    for (int k = 0; k < 4; k++) {
        atomic_store(&behaviour, how[k]);
        int before = atomic_load(&asked);
        token_of(&token, rsa, "RS256", "{\"alg\":\"RS256\",\"kid\":\"unknown\"}", CLAIMS);
        CHECK_INT(check_at(i, 1000 + 100 * k, NOW, &who, &e), ERR_UNAUTHENTICATED);
        CHECK_INT(atomic_load(&asked), before + 1); /* a redirection is not followed */
        token_of(&token, ec, "ES256", ec_header, CLAIMS);
        CHECK_OK(check_at(i, 1001 + 100 * k, NOW, &who, &e), e);
    }
    /* what cannot be recorded is not done */
    atomic_store(&behaviour, 0);
    int asked_before = atomic_load(&asked);
    for (int n = 0; n < 60; n++) {
        token_of(&token, rsa, "RS256", "{\"alg\":\"RS256\",\"kid\":\"unknown\"}", CLAIMS);
        mem_fail_after(n);
        CHECK(check_at(i, 2000 + 100 * n, NOW, &who, &e) != ERR_OK);
        mem_fail_after(-1);
        CHECK(records(i, "egress", NULL) >= atomic_load(&asked));
    }
    CHECK(atomic_load(&asked) > asked_before && atomic_load(&asked) < asked_before + 60);
    token_of(&token, ec, "ES256", ec_header, CLAIMS);
    CHECK_OK(check_at(i, 9000, NOW, &who, &e), e);
    /* an hour later they are fetched anew; a withdrawn key is out */
    buf_reset(&jwks);
    buf_puts(&jwks, "{\"keys\":[");
    jwk_of(&jwks, rsa, ",\"kid\":\"r\"");
    buf_puts(&jwks, "]}");
    CHECK_INT(check_at(i, 100000, NOW, &who, &e), ERR_UNAUTHENTICATED);
    CHECK(records(i, "egress", NULL) >= atomic_load(&asked));
    atomic_store(&over, true);
    pthread_join(t, NULL);
    close(listener);
    island_close(i);
    i = open_ok(); /* nobody answers */
    CHECK(i);
    CHECK_INT(check_at(i, 0, NOW, &who, &e), ERR_UNAVAILABLE);
    island_close(i);
}

TEST(configuration) {
    static const struct {
        const char *yaml, *says;
    } bad[] = {
        {"  jwks: a\n  projects: a=b\n", "oidc.audience"},
        {"  audience: a\n  projects: a=b\n", "oidc.jwks"},
        {"  audience: a\n  jwks: a\n", "oidc.projects"},
        {"  audience: a\n  jwks: a\n  projects: ab\n", "oidc.projects"},
        {"  audience: a\n  jwks: a\n  projects: =b\n", "oidc.projects"},
        {"  audience: a\n  jwks: a\n  projects: a=B\n", "oidc.projects"},
        {"  audience: a\n  jwks: a\n  projects: a=\n", "oidc.projects"},
        {"  audience: a\n  jwks: a\n  claim: \"\"\n  projects: a=b\n", "oidc.claim"},
        {"  audience: a\n  jwks: http://id.example/k\n  projects: a=b\n", "https"},
        {"  audience: a\n  jwks: https://u:p@id.example/k\n  projects: a=b\n", "user"},
        {"  audience: a\n  jwks: \"https:// /\"\n  projects: a=b\n", "no address"},
        {"  audience: a\n  jwks: http://127.0.0.1.example/k\n  projects: a=b\n", "https"},
        {"  audience: a\n  jwks: http://localhost.example/k\n  projects: a=b\n", "https"},
    };
    err e = {0};
    island_config c;
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        char yaml[500];
        snprintf(yaml, sizeof yaml, "oidc:\n  issuer: https://id.example\n%s", bad[k].yaml);
        CHECK_INT(config_parse(&c, yaml, strlen(yaml), "island.yaml", &e), ERR_USAGE);
        if (!strstr(e.msg, bad[k].says)) FAIL("%s: %s", bad[k].yaml, e.msg);
    }
    static const char *const good[] = {"https://id.example/keys", "http://localhost:1/k", "http://[::1]:80/k",
                                       "http://127.1.2.3/k", "keys.json"};
    for (size_t k = 0; k < sizeof good / sizeof good[0]; k++) {
        char yaml[500];
        snprintf(yaml, sizeof yaml, "oidc:\n  issuer: x\n  audience: a\n  jwks: \"%s\"\n  projects: a=b, c d=e\n",
                 good[k]);
        if (config_parse(&c, yaml, strlen(yaml), "island.yaml", &e) != ERR_OK) FAIL("%s: %s", good[k], e.msg);
        config_free(&c);
    }
}

/* Every allocation fails in turn: nobody comes in who should not, and the next try is as good as the first. */
TEST(allocation_failures) {
    island *i = open_with_file();
    CHECK(i);
    err e;
    identity who;
    int fails = 0;
    for (int n = 0; n < 60; n++) {
        char sub[40];
        snprintf(sub, sizeof sub, "\"person %d\"", n);
        write_file("jwks.json", buf_str(&jwks));
        token_of(&token, ec, "ES256", ec_header, claims_but("\"alice\"", sub));
        mem_fail_after(n);
        err_code code = check_at(i, 10 + 2 * n, NOW, &who, &e);
        mem_fail_after(-1);
        fails += code != ERR_OK;
        CHECK(code == ERR_OK || code == ERR_NOMEM || code == ERR_UNAVAILABLE);
        write_file("jwks.json", buf_str(&jwks));
        CHECK_OK(check_at(i, 11 + 2 * n, NOW, &who, &e), e);
    }
    CHECK(fails > 5);
    island_close(i);
    for (int n = 0; n < 400; n += 13) {
        mem_fail_after(n);
        err_code code = island_open(&i, isl, ISLAND_WRITE, &e);
        mem_fail_after(-1);
        if (code == ERR_OK) island_close(i);
    }
}

static void *many(void *arg) {
    intptr_t bad = 0;
    for (int k = 0; k < 300; k++) {
        identity who;
        err e;
        bad += oidc_check_at(serving, buf_str(&token), token.len, (oidc_time){k, NOW}, &who, &e) != ERR_OK;
    }
    return (void *)bad;
}

TEST(threads) {
    island *i = serving = open_with_file();
    CHECK(i);
    pthread_t t[4];
    intptr_t bad = 0;
    token_of(&token, ec, "ES256", ec_header, CLAIMS);
    for (int k = 0; k < 4; k++) CHECK(pthread_create(&t[k], NULL, many, NULL) == 0);
    for (int k = 0; k < 30; k++) { /* the same keys, in another text each time */
        buf_putc(&jwks, ' ');
        write_file("jwks.json", buf_str(&jwks));
    }
    for (int k = 0; k < 4; k++) {
        void *r;
        pthread_join(t[k], &r);
        bad += (intptr_t)r;
    }
    CHECK_INT(bad, 0);
    island_close(i);
}

TEST(speed) {
    island *i = open_with_file();
    CHECK(i);
    err e;
    identity who;
    enum { N = 50000 };
    token_of(&token, rsa, "RS256", "{\"alg\":\"RS256\",\"kid\":\"r\"}", CLAIMS);
    uint64_t from = time_mono_ns();
    for (int k = 0; k < N; k++) CHECK_OK(check(i, &who, &e), e);
    double us = (double)(time_mono_ns() - from) / 1e3 / N;
    printf("a token that was seen before: %.2f us\n", us);
    CHECK(us < 100);
    island_close(i);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    rsa = EVP_RSA_gen(2048);
    rsa2 = EVP_RSA_gen(2048);
    ec = EVP_EC_gen("P-256");
    ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    if (!rsa || !rsa2 || !ec || !ed) abort();
    RUN(algorithms);
    RUN(forged);
    RUN(claims);
    RUN(nested_claim);
    RUN(rfc7515);
    RUN(key_sets);
    RUN(file_changes);
    RUN(fetched);
    RUN(configuration);
    RUN(allocation_failures);
    RUN(threads);
    RUN(speed);
    buf_free(&token);
    buf_free(&jwks);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(rsa2);
    EVP_PKEY_free(ec);
    EVP_PKEY_free(ed);
    return test_end();
}
