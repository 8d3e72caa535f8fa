/* Part of inference's public header: providers, their credentials, and the candidates behind model names.
 *
 * All of it lies in the store; every change is a record in the ledger first ("provider.added", "provider.changed" with
 * the old and the new value of each fact, "provider.removed", "provider.key" (that there is a new one, nothing of it),
 * "route.changed", "policy.proposed", "policy.activated"). Where a server runs, `inf` is its room and the change holds
 * from the next request on; otherwise NULL.
 *
 * Credentials are sealed (XChaCha20-Poly1305) under a key derived from keys/vault.key for this purpose, bound to the
 * provider's name; what is sealed is never shown, not even in part.
 */
#ifndef POLDER_INFERENCE_PROVIDERS_H
#define POLDER_INFERENCE_PROVIDERS_H

#include "data/data.h"
#include "island/island.h"

struct inference;

#define CREDENTIAL_MAX 8192 /* bytes */
#define CANDIDATES_MAX 16   /* of a model name */

/* `facts`: {name, driver ("openai" or "anthropic"), url, form ("azure"), api_version, ca_file, inside, operator,
 * country, operator_law, retention_days, training, contract, certificates, price_in, price_out, exit, max_concurrent}.
 * name, driver and url are needed; what is absent is not known. ERR_EXISTS / ERR_NOT_FOUND. http (without s) is for
 * providers inside the perimeter and the loopback only. *out as provider_show. */
err_code provider_add(island *i, struct inference *inf, const identity *by, const cJSON *facts, cJSON **out, err *e);
/* The facts given replace the old ones; null makes one unknown. Where url then has another scheme, host or port (as
 * written), the credential is removed with the change, and the record says so ("key_removed"): it was given for the old
 * one. */
err_code provider_change(island *i, struct inference *inf, const identity *by, const cJSON *facts, cJSON **out, err *e);
/* ERR_EXISTS where a model name still leads to it (names it). */
err_code provider_remove(island *i, struct inference *inf, const identity *by, const char *name, err *e);
err_code provider_list(island *i, cJSON **out, err *e); /* {"providers": [...]}, the engine first */
/* With "key": {"set": bool, "since": …}, never the key; with a server: breaker, running, failures. */
err_code provider_show(island *i, struct inference *inf, const char *name, cJSON **out, err *e);
/* Holds from the next attempt on; the old one is overwritten. Blanks and line ends around it are dropped. ERR_INVALID
 * where it is empty, too long, or holds bytes that no header may (without showing any). */
err_code provider_set_key(island *i, struct inference *inf, const identity *by, const char *name, const char *secret,
                          size_t n, err *e);

/* Candidates in order: [{"provider": "engine" or a provider's name, "model": the name there, "weight": 1 to 1000,
 * "rank": 0 … 15}]; of equal rank the weights decide. For "engine" the model is an imported model's name. An empty list
 * removes them: the name then means the artifact of that name again, if there is one. */
err_code route_set(island *i, struct inference *inf, const identity *by, const char *model, const cJSON *candidates,
                   cJSON **out, err *e);
err_code route_list(island *i, cJSON **out, err *e); /* {"routes": [{"model", "candidates": [...]}]} */

/* The policy. `text` was read from a file by the caller. Where policy.two_keys is set, the first admin proposes and
 * another key of the role admin must bring the same text: *out {"active": bool, "digest", "waiting_for"}. ERR_USAGE:
 * cannot be read (line, column). */
err_code policy_activate(island *i, struct inference *inf, const identity *by, const char *text, size_t n, cJSON **out,
                         err *e);
/* The text in force (the default's where none was activated) and since when, by whom, its digest. */
err_code policy_active(island *i, cJSON **out, err *e);
/* What the policy functions of data.h need, as the island has it now. Zero-initialised; free in any case. */
typedef struct policy_world {
    label_set labels;
    detector *detector;
    policy *active;
    provider_facts providers[PROVIDERS_MAX];
    size_t n_providers;
} policy_world;
err_code policy_world_open(policy_world *w, island *i, err *e);
void policy_world_close(policy_world *w);

#endif
