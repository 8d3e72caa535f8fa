/* island, inside: tokens of an OIDC issuer.
 *
 *   jwt.c         form, signature, claims
 *   oidc_fetch.c  a JWKS over https
 *   oidc.c        configuration, keys and their renewal, the cache of verified tokens, who somebody is
 */
#ifndef POLDER_ISLAND_OIDC_H
#define POLDER_ISLAND_OIDC_H

#include "island/island.h"
#include "island/jwt.h"

#define OIDC_FETCH_MIN_S 60   /* between two attempts to fetch */
#define OIDC_FETCH_MAX_S 3600 /* keys this old are fetched anew */

/* What must hold between the keys of oidc.*; *key names the one at fault. ERR_USAGE. */
err_code oidc_check_config(const island_config *c, const char **key, err *e);
err_code oidc_open(island *i, err *e); /* nothing where no issuer is configured */
void oidc_close(island *i);

/* oidc_check at a given time. */
typedef struct oidc_time {
    int64_t mono_s, unix_s;
} oidc_time;
err_code oidc_check_at(island *i, const char *token, size_t n, oidc_time t, identity *out, err *e);

/* https, or http to the loopback. ERR_USAGE tells what is wrong with an address; host gets its host and port. */
err_code oidc_url_check(const char *url, char *host, size_t cap, err *e);
bool oidc_is_url(const char *text);
/* GET; no redirects, 200 only, within seconds. */
err_code oidc_fetch(const char *url, buf *out, err *e);

#endif
