/* Part of island's public header: projects, what they and keys are granted, usage, and tokens of an OIDC issuer.
 *
 * A grant is what a key or a project may do: the floor of its requests' sensitivity, the model names it may call, its
 * limits. A key may belong to one project; a request must pass both grants, and its floor is the join of both.
 *
 * Threads: any.
 */
#ifndef POLDER_ISLAND_PROJECTS_H
#define POLDER_ISLAND_PROJECTS_H

#include "island/island.h"

/* ---- grants ---------------------------------------------------------------------------------------------- */

/* X(constant, name in records and arguments, words) */
#define LIMIT_TABLE(X)                                                  \
    X(LIMIT_REQUESTS_MINUTE, requests_minute, "requests a minute")      \
    X(LIMIT_TOKENS_MINUTE, tokens_minute, "tokens a minute")            \
    X(LIMIT_TOKENS_DAY, tokens_day, "tokens a day")                     \
    X(LIMIT_TOKENS_MONTH, tokens_month, "tokens a month")               \
    X(LIMIT_EUR_DAY, eur_day, "EUR a day") /* counted in micro-euros */ \
    X(LIMIT_EUR_MONTH, eur_month, "EUR a month")
typedef enum limit_kind {
#define X(constant, name, words) constant,
    LIMIT_TABLE(X)
#undef X
        LIMIT_COUNT
} limit_kind;

#define LIMIT_MAX        1000000000000000 /* of any limit: 10^15 tokens, 10^9 EUR */
#define LIMIT_EUR        1000000          /* micro-euros of one EUR */
#define GRANT_MODELS_MAX 1000             /* bytes of the list of model names */

typedef struct grant {           /* {0}: everything is allowed. In a change NULL and -1 leave what is there */
    const char *project;         /* of keys only; "": none */
    const char *floor;           /* "confidential", "internal, personal", "credential"; "": none */
    const char *models;          /* "qwen3, mistral-*": names, and beginnings with '*' behind; "": all */
    int64_t limits[LIMIT_COUNT]; /* 0: none */
} grant;

#define GRANT_KEEP ((grant){.limits = {-1, -1, -1, -1, -1, -1}})

/* The limits' names, for arguments and output: "tokens_day"; and in words: "tokens a day". */
const char *limit_name(limit_kind k);
const char *limit_words(limit_kind k);
bool limit_is_eur(limit_kind k);

/* ---- projects -------------------------------------------------------------------------------------------- */

/* Names: 1 to PROJECT_NAME_MAX lower case letters, digits and . _ -, beginning with a letter or digit. The floor's
 * words must be levels of labels.levels, or flags. Records first ("project.created", "project.changed",
 * "project.removed"), then the store. A project that keys belong to is not removed (ERR_EXISTS). */
err_code project_add(island *i, const identity *by, const char *name, const grant *g, err *e);
err_code project_change(island *i, const identity *by, const char *name, const grant *g, err *e);
err_code project_remove(island *i, const identity *by, const char *name, err *e);
/* {"projects":[{"name","floor","models":[…],"limits":{…},"created"}]}; show adds "keys" and what is used of budgets. */
err_code project_list(island *i, cJSON **out, err *e);
err_code project_show(island *i, const char *name, cJSON **out, err *e);

/* key_add with a grant (NULL: none), and a change of it: record "key.changed". */
err_code key_add_with(island *i, const identity *by, const char *name, role r, const grant *g, char text[KEY_TEXT_MAX],
                      identity *out, err *e);
err_code key_change(island *i, const identity *by, const char *id_or_name, const grant *g, err *e);

/* Whether quota_enter would let `who` ask for the model as far as names go. */
bool quota_allows_model(island *i, const identity *who, const char *model);

/* ---- usage ----------------------------------------------------------------------------------------------- */

/* {"by","from","to","usage":[{"project"|"key"|"model"|"provider", "requests","refused","tokens_in","tokens_out",
 * "cost_eur"}]} over days in UTC, both ends counted. by: "key" (NULL), "project", "model", "provider", "day". from, to:
 * "2026-11-22", NULL: the first day of this month, and today. Counts are written to the store every second and at
 * close: a crash loses the last second's, and nothing else does. */
err_code usage_report(island *i, const char *by, const char *from, const char *to, cJSON **out, err *e);

/* ---- OIDC ------------------------------------------------------------------------------------------------ */

/* Bearer tokens of the configured issuer (oidc.*): a JWT signed with RS256, PS256, ES256 or EdDSA by a key of the
 * issuer's JWKS. Signature, iss, aud, exp, nbf and iat are checked (60 s of leeway); the claim's value names the
 * project. The identity has the role user and the key_id "o_" and 12 characters of a keyed hash of iss and sub. */
bool oidc_configured(const island *i);
/* ERR_UNAUTHENTICATED (the sentence does not say more than the token's owner may know), ERR_DENIED: a good token whose
 * claim means no project here; ERR_UNAVAILABLE: the issuer's keys cannot be read. */
err_code oidc_check(island *i, const char *token, size_t n, identity *out, err *e);

#endif
