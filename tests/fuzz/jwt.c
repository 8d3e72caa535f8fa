/* Tokens and key sets. The first byte chooses: a token against known keys, a key set, or both split at a newline.
 * Whatever comes in, no token that was not signed by one of the keys is taken. */
#include "island/jwt.h"

#include "base/bytes.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* The keys of RFC 7515 A.2 and A.3 (their private halves are printed there, so these keys guard nothing). */
static const char keys[] =
    "{\"keys\":[{\"kid\":\"r\",\"kty\":\"RSA\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_"
    "wWJcyQoTbji9k0l8W26mPddxHmfHQp-"
    "Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXn"
    "dS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF"
    "8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\",\"e\":\"AQAB\"},{\"kid\":\"e\",\"kty\":\"EC\",\"crv\":\"P-"
    "256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}"
    "]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void try_token(const jwk_set *s, const char *text, size_t n) {
    jwt t;
    int64_t exp;
    if (jwt_parse(&t, text, n, NULL) == ERR_OK) {
        (void)jwt_verify(&t, s, NULL);
        (void)jwt_check_claims(&t, "joe", "polder", 1300819380, &exp, NULL);
    }
    jwt_clear(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static jwk_set *known;
    base_init();
    if (!known && jwk_set_parse(&known, keys, sizeof keys - 1, "jwks", NULL) != ERR_OK) abort();
    if (n == 0) return 0;
    const char *text = (const char *)data + 1, *split = memchr(text, '\n', n - 1);
    jwk_set *s = NULL;
    switch (data[0] % 3) {
    case 0: try_token(known, text, n - 1); break;
    case 1:
        if (jwk_set_parse(&s, text, n - 1, "jwks", NULL) == ERR_OK && jwk_set_count(s) == 0) abort();
        break;
    default:
        if (split && jwk_set_parse(&s, text, (size_t)(split - text), "jwks", NULL) == ERR_OK)
            try_token(s, split + 1, n - 1 - (size_t)(split + 1 - text));
    }
    jwk_set_free(s);
    return 0;
}
