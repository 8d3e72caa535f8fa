/* island: one installation. The state folder, its configuration, its lock, its keys for people and programs.
 *
 * The state folder:
 *   island.yaml      configuration (this room)
 *   lock             held by the one process that writes
 *   control.sock     the running server's door for the same owner (server)
 *   keys/ ledger/    audit
 *   store/           store: polder.db, blobs/, derived/
 *
 * Departure from DESIGN.md §3: this room is not in the blueprint. Configuration and identity are needed by data,
 * inference and the doors alike, and neither store (which knows no meaning) nor server (too high) can own them.
 *
 * Threads: an island is opened once; all functions may be called from any thread.
 */
#ifndef POLDER_ISLAND_H
#define POLDER_ISLAND_H
#if !defined(POLDER_LAYER) || POLDER_LAYER < 3 || (POLDER_LAYER == 3 && !defined(POLDER_ROOM_ISLAND))
#error "island/island.h is layer 3: only island and the rooms above it include it"
#endif

#include "audit/audit.h"
#include "store/store.h"

/* ---- configuration --------------------------------------------------------------------------------------- */

/* One row a key of island.yaml: X(group, key, kind, field type, default text, min, max, one line of documentation).
 * Kinds: STR (at most max bytes), INT, BOOL. The table makes the struct, the parser, `config show`, the file that
 * `init` writes, and docs/guide/configuration.md. */
#define CONFIG_TABLE(X)                                                                                              \
    X(island, name, STR, "polder.local/island", 1, 200,                                                              \
      "Name of this island; also the origin of its ledger; never change it")                                         \
    X(server, listen, STR, "127.0.0.1:8080", 1, 255, "Address and port of the HTTP door; [::1]:8080 for IPv6")       \
    X(server, auth, BOOL, "true", 0, 1, "Ask for an API key; false only on loopback")                                \
    X(server, max_connections, INT, "256", 1, 65535, "Connections at once; more are closed at once")                 \
    X(server, max_body_bytes, INT, "4194304", 1024, 1073741824, "Largest request body; more is answered with 413")   \
    X(server, idle_timeout_s, INT, "120", 1, 86400, "Seconds after which a silent connection is closed")             \
    X(server, drain_timeout_s, INT, "30", 0, 3600, "Seconds that running answers get after SIGTERM")                 \
    X(inference, threads, INT, "0", 0, 1024, "Threads of the engine; 0: all CPUs this process may use")              \
    X(inference, max_sequences, INT, "16", 1, 1024, "Answers generated at once for each model")                      \
    X(inference, max_queue, INT, "64", 0, 65536, "Requests that may wait; more are answered with 429")               \
    X(inference, context, INT, "0", 0, 16777216, "Positions a sequence may reach; 0: the model's own")               \
    X(inference, kv_memory_mib, INT, "1024", 1, 1048576, "Memory for keys and values, MiB for each loaded model")    \
    X(inference, kv, STR, "f16", 1, 8,                                                                               \
      "Keys and values held as f16, or as q8: half the memory, slightly other answers; vectors always use f16")      \
    X(inference, prefix_cache, BOOL, "true", 0, 1,                                                                   \
      "Keep what was computed of prompts for requests of the same project and label that begin alike")               \
    X(inference, prefix_cache_saved, BOOL, "false", 0, 1,                                                            \
      "Keep that over a restart too, encrypted under the vault key")                                                 \
    X(inference, packed_cache, BOOL, "true", 0, 1,                                                                   \
      "Keep weights as the kernels read them in a file beside the model, as large as it: later starts are fast")     \
    X(inference, speculation, STR, "ngram", 1, 16,                                                                   \
      "Guess tokens ahead, for the same answers: off, ngram (from repetitions), draft (small model)")                \
    X(inference, draft_model, STR, "", 0, 200, "For speculation draft: name of the small model, of the same family") \
    X(inference, step_tokens, INT, "256", 1, 65536, "Tokens computed in one step over all sequences")                \
    X(inference, max_output_tokens, INT, "0", 0, 16777216, "Most tokens of one answer; 0: what the context holds")   \
    X(models, load, STR, "", 0, 2000, "Names of models to load before the server is ready, with commas between")     \
    X(models, hub, STR, "", 0, 500,                                                                                  \
      "Address that polder model pull may fetch from, as https://huggingface.co; empty: nothing is fetched")         \
    X(models, token_file, STR, "", 0, 1000, "File with the access token for that hub; empty: none")                  \
    X(labels, levels, STR, "public, internal, confidential, secret", 1, 300,                                         \
      "Levels of sensitivity, low to high; policies and x-polder-label use these words")                             \
    X(detect, rules, STR, "", 0, 1000, "File with the owner's own patterns and word lists; empty: none")             \
    X(policy, two_keys, BOOL, "false", 0, 1, "A policy comes into force only when two admin keys have asked for it") \
    X(upstream, connect_timeout_ms, INT, "5000", 10, 600000, "Most time to connect to a provider")                   \
    X(upstream, first_byte_timeout_ms, INT, "60000", 10, 3600000, "Most time until a provider begins to answer")     \
    X(upstream, idle_timeout_ms, INT, "60000", 10, 3600000, "Most time between two pieces of a provider's answer")   \
    X(upstream, attempts, INT, "4", 1, 16, "Candidates (and repetitions) tried for one request at most")             \
    X(upstream, hedge_ms, INT, "0", 0, 600000,                                                                       \
      "After so long without a first byte the next candidate is asked too, and the first to answer wins; 0: never")  \
    X(upstream, breaker_failures, INT, "5", 1, 1000, "Failures in a row after which a provider is left alone")       \
    X(upstream, breaker_open_s, INT, "30", 1, 86400, "Seconds until one request tries it again")                     \
    X(oidc, issuer, STR, "", 0, 500, "Issuer whose bearer tokens are taken beside API keys; empty: none")            \
    X(oidc, audience, STR, "", 0, 300, "What a token's aud must contain")                                            \
    X(oidc, jwks, STR, "", 0, 1000, "The issuer's keys: a file, or an https address that is fetched")                \
    X(oidc, claim, STR, "groups", 0, 100, "Claim that decides on the project")                                       \
    X(oidc, projects, STR, "", 0, 4000, "Which project a value of the claim means: value=project, value=project")    \
    X(ledger, group_max, INT, "512", 1, 65536, "Records that share one sync at most")                                \
    X(log, level, STR, "info", 1, 16, "debug, info, warn or error")

#define CONFIG_T_STR(field, max)  char *field;
#define CONFIG_T_INT(field, max)  int64_t field;
#define CONFIG_T_BOOL(field, max) bool field;
typedef struct island_config { /* strings belong to it (config_free) */
#define X(group, key, kind, def, min, max, doc) CONFIG_T_##kind(group##_##key, max)
    CONFIG_TABLE(X)
#undef X
} island_config;

/* Parse and check. Unknown or repeated keys, wrong types and values out of range are ERR_USAGE with
 * "island.yaml:LINE:COLUMN: …" and the keys that are known there. `name` is the file's name in errors. */
err_code config_parse(island_config *out, const char *yaml, size_t n, const char *name, err *e);
void config_free(island_config *c);
/* As YAML with the documentation as comments (what init writes), or as JSON. */
void config_write_yaml(const island_config *c, buf *out);
void config_write_json(const island_config *c, buf *out);
void config_write_markdown(buf *out); /* docs/guide/configuration.md */
err_code config_default(island_config *out, err *e);

/* ---- the state folder ------------------------------------------------------------------------------------ */

typedef struct island island;
typedef enum { ISLAND_WRITE, ISLAND_READ } island_mode;

/* A new state folder in DIR (absent or empty): island.yaml, keys, ledger with its first record, store. On error
 * nothing is left. */
err_code island_init(const char *dir, const char *name /* NULL: default */, err *e);
/* Opens. ISLAND_WRITE takes the lock (ERR_BUSY where another process has it) and runs the ledger's recovery;
 * ISLAND_READ takes none and never changes a byte. ERR_NOT_FOUND: no island there (says how to make one). The
 * ledger's origin and the configured name must be equal, else ERR_INVALID: a state folder of another island.
 * In ISLAND_WRITE a configuration that differs from the last recorded one is recorded ("config.changed"). */
err_code island_open(island **out, const char *dir, island_mode mode, err *e);
void island_close(island *i);
const char *island_dir(const island *i);
const island_config *island_get_config(const island *i);
ledger *island_ledger(island *i);
store *island_store(island *i);
const ledger_report *island_ledger_report(const island *i);

/* ---- API keys -------------------------------------------------------------------------------------------- */

typedef enum role { ROLE_USER, ROLE_OPERATOR, ROLE_AUDITOR, ROLE_ADMIN } role;
bool role_parse(role *out, const char *s);
const char *role_name(role r);

#define KEY_ID_MAX       20
#define KEY_NAME_MAX     64
#define KEY_TEXT_MAX     96
#define PROJECT_NAME_MAX 40
#define FLOOR_MAX        95
typedef struct identity {    /* who asks */
    char key_id[KEY_ID_MAX]; /* public handle: "k_" and 12 characters */
    char name[KEY_NAME_MAX + 1];
    role role;
    char project[PROJECT_NAME_MAX + 1]; /* "": none */
    char floor[FLOOR_MAX + 1]; /* a request of it is at least so sensitive (a label, and flags); "": no floor */
} identity;

/* `by` is who asks, for the record's field "by"; NULL: the island's owner at the command line ("local"). */
/* A new key "pld_<id>_<secret>"; the secret has 256 bits, only its keyed hash is stored; `text` is shown once.
 * Appends the record "key.created". */
err_code key_add(island *i, const identity *by, const char *name, role r, char text[KEY_TEXT_MAX], identity *out,
                 err *e);
/* Dead at once and for good, record "key.revoked"; ERR_NOT_FOUND. Where the key is dead but its record could not be
 * written the result is that error; the record follows at the next ISLAND_WRITE opening. */
err_code key_revoke(island *i, const identity *by, const char *id_or_name, err *e);
/* {"keys":[{"id","name","role","created","revoked"}]} */
err_code key_list(island *i, cJSON **out, err *e);
/* Constant time in the secret; ERR_UNAUTHENTICATED says nothing about why. Cached: no disk access per request. Only an
 * island opened with ISLAND_WRITE knows keys. */
err_code key_check(island *i, const char *text, size_t n, identity *out, err *e);

#include "island/projects.h"
#include "island/quota.h"

#endif
