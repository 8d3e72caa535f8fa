/* island, inside.
 *
 *   config.c        island.yaml: parsing and checking
 *   config_write.c  island.yaml, JSON, the guide's page
 *   island.c        opening, closing, the record of configuration changes
 *   init.c          a new state folder
 *   keys.c          API keys
 *   projects.c      projects; grants.h: what they and keys may do, and what counts it
 */
#ifndef POLDER_ISLAND_INTERNAL_H
#define POLDER_ISLAND_INTERNAL_H

#include "island/grants.h"
#include "island/island.h"

#include <pthread.h>

#define ISLAND_PATH_MAX  4096
#define CONFIG_FILE      "island.yaml"
#define CONFIG_BYTES_MAX (256 * 1024)
#define API_KEY_FILE     "keys/api.key"
#define API_KEY_LEN      32

/* ---- configuration --------------------------------------------------------------------------------------- */

typedef enum { CONFIG_STR, CONFIG_INT, CONFIG_BOOL } config_kind;

typedef struct config_row { /* one row of CONFIG_TABLE */
    const char *group, *key;
    config_kind kind;
    const char *def;
    int64_t min, max;
    const char *doc;
    size_t offset; /* of the field in island_config */
} config_row;

extern const config_row config_rows[];
extern const size_t config_n_rows;

/* Checks text for the row and stores it. The sentence begins with "group.key: ". */
err_code config_set(island_config *c, const config_row *row, const char *text, size_t n, err *e);
const config_row *config_find(const char *group, const char *key);
/* What holds between keys. *row (may be NULL) gets the key to point at. */
err_code config_check_whole(const island_config *c, const config_row **row, err *e);

/* ---- the island ------------------------------------------------------------------------------------------ */

typedef struct key_row { /* an unrevoked API key, as key_check needs it */
    identity who;
    uint8_t mac[SHA256_LEN];
    int form; /* 1: made before there were grants; 2: does not work without its grant */
} key_row;

struct island {
    char *dir;
    island_mode mode;
    island_config config;
    int lock; /* -1: none */
    ledger *led;
    ledger_report report;
    store *st;
    uint8_t api_key[API_KEY_LEN];
    bool has_api_key;
    pthread_mutex_t key_change; /* one change of keys or projects at a time */
    pthread_rwlock_t key_lock;  /* guards keys and n_keys */
    key_row *keys;              /* sorted by id */
    size_t n_keys;
    quota *quota;      /* ISLAND_WRITE */
    struct oidc *oidc; /* where an issuer is configured */
};

extern const store_migration island_migrations[];
extern const size_t island_n_migrations;

err_code island_path(char out[ISLAND_PATH_MAX], const char *dir, const char *name, err *e);
/* Table island_meta. *out is NULL where the key is absent; mem_free by the caller. */
err_code meta_get(store *s, const char *key, char **out, err *e);
err_code meta_set(store *s, const char *key, const char *value, err *e);
/* The configuration as recorded: its JSON and the hex of its SHA-256. */
err_code config_digest(const island_config *c, buf *json, char hex[SHA256_HEX_LEN + 1], err *e);

/* Reads keys/api.key and the keys; finishes what a crash interrupted (ISLAND_WRITE). */
err_code keys_open(island *i, err *e);
void keys_close(island *i);
/* ERR_DENIED where the island is open for reading only. */
err_code island_need_write(const island *i, err *e);
/* Keys of a project, and their floors anew after a change of it. key_change is held. */
size_t keys_of_project(const island *i, const char *project);
void keys_refloor(island *i, const char *project);
/* A private key file must be the owner's alone. ERR_NOT_FOUND where absent. */
err_code key_file_check(const char *path, err *e);

#endif
