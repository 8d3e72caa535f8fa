/* model add|ls|show|verify|rm and key add|ls|revoke: admin operations, printed. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static cJSON *one_arg(const char *key, const char *value) {
    cJSON *o = cJSON_CreateObject();
    if (o && !cJSON_AddStringToObject(o, key, value)) {
        cJSON_Delete(o);
        return NULL;
    }
    return o;
}

static const char *text_of(const cJSON *o, const char *key) {
    const char *s = "";
    json_get_str(o, key, &s, NULL);
    return s;
}

static void print_field(const char *s, int width) {
    buf b = {.max = 8192};
    text_sanitise(&b, s, strlen(s), false);
    printf("%-*s ", width, buf_str(&b));
    buf_free(&b);
}

/* A JSON object as "key  value" lines. */
static void print_facts(const cJSON *o) {
    for (const cJSON *v = o ? o->child : NULL; v; v = v->next) {
        char number[40];
        snprintf(number, sizeof number, "%.15g", v->valuedouble);
        const char *s = cJSON_IsString(v)   ? v->valuestring
                        : cJSON_IsNumber(v) ? number
                        : cJSON_IsBool(v)   ? (cJSON_IsTrue(v) ? "yes" : "no")
                                            : "";
        if (cJSON_IsObject(v) || cJSON_IsArray(v)) continue;
        print_field(v->string, 16);
        print_field(s, 0);
        putchar('\n');
    }
}

/* Run an operation and print its result: as JSON, or by `show`. */
static err_code run_op(cli *c, const char *op, cJSON *args, void (*show)(const cJSON *), err *e) {
    cJSON *out = NULL;
    err_code rc = cli_admin(c, op, args, &out, e);
    if (rc == ERR_OK && c->json) return cli_print_json(out, e);
    if (rc == ERR_OK && show) show(out);
    cJSON_Delete(out);
    return rc;
}

static err_code run_model_add(cli *c, err *e) {
    const char *name = cli_text(c, "name", NULL);
    if (!name) return err_set(e, ERR_USAGE, "polder model add: give the model a name: --name NAME");
    /* the running server may have another working directory */
    char *path = realpath(c->args[0], NULL);
    if (!path) return err_errno(e, "%s", c->args[0]);
    cJSON *args = one_arg("path", path);
    free(path);
    if (args && !cJSON_AddStringToObject(args, "name", name)) {
        cJSON_Delete(args);
        args = NULL;
    }
    cJSON *out = NULL;
    err_code rc = ERR_OK;
    if (args && !remote_is_up(c->dir)) { /* in this process there is progress to show */
        progress p;
        progress_begin(&p, "importing");
        island *i = NULL;
        rc = island_open(&i, c->dir, ISLAND_WRITE, e);
        if (rc == ERR_OK) rc = models_add(i, NULL, text_of(args, "path"), name, progress_step, &p, &out, e);
        island_close(i);
        progress_end(&p);
        cJSON_Delete(args);
    } else {
        rc = cli_admin(c, "model.add", args, &out, e);
    }
    if (rc == ERR_OK && c->json) return cli_print_json(out, e);
    if (rc == ERR_OK) print_facts(out);
    cJSON_Delete(out);
    return rc;
}

static void show_models(const cJSON *v) {
    const cJSON *m;
    cJSON_ArrayForEach(m, json_get(v, "models")) {
        print_field(text_of(m, "name"), 20);
        print_field(text_of(m, "arch"), 10);
        print_field(text_of(m, "quant"), 8);
        print_field(text_of(m, "digest"), 0);
        putchar('\n');
    }
}

static void show_keys(const cJSON *v) {
    const cJSON *k;
    cJSON_ArrayForEach(k, json_get(v, "keys")) {
        print_field(text_of(k, "id"), 16);
        print_field(text_of(k, "name"), 24);
        print_field(text_of(k, "role"), 10);
        print_field(text_of(k, "created"), 24);
        print_field(*text_of(k, "revoked") ? "revoked" : "", 0);
        putchar('\n');
    }
}

static void show_new_key(const cJSON *v) {
    printf("%s\n", text_of(v, "key"));
    fprintf(stderr, "This is shown once; only its hash is kept.\n");
}

static err_code run_model_ls(cli *c, err *e) {
    return run_op(c, "model.ls", cJSON_CreateObject(), show_models, e);
}
static err_code run_model_show(cli *c, err *e) {
    return run_op(c, "model.show", one_arg("name", c->args[0]), print_facts, e);
}
static err_code run_model_verify(cli *c, err *e) {
    return run_op(c, "model.verify", one_arg("name", c->args[0]), print_facts, e);
}
static err_code run_model_rm(cli *c, err *e) {
    return run_op(c, "model.rm", one_arg("name", c->args[0]), NULL, e);
}

static err_code run_key_add(cli *c, err *e) {
    cJSON *args = one_arg("name", c->args[0]);
    if (args && !cJSON_AddStringToObject(args, "role", cli_text(c, "role", "user"))) {
        cJSON_Delete(args);
        args = NULL;
    }
    return run_op(c, "key.add", args, show_new_key, e);
}
static err_code run_key_ls(cli *c, err *e) {
    return run_op(c, "key.ls", cJSON_CreateObject(), show_keys, e);
}
static err_code run_key_revoke(cli *c, err *e) {
    return run_op(c, "key.revoke", one_arg("key", c->args[0]), NULL, e);
}

const command commands_model[] = {
    {"model add",
     "FILE --name NAME",
     1,
     1,
     "Import a GGUF file and give it the name that clients call",
     "The file is checked, copied into the island's store under its SHA-256, and recorded.",
     run_model_add,
     {{OPT_TEXT, "name", "NAME", 0, 0, "letters, digits and . _ : / -, at most 64"}}},
    {"model ls", "", 0, 0, "The model names and what is behind them", NULL, run_model_ls, {{0}}},
    {"model show", "NAME", 1, 1, "All that is known of a model", NULL, run_model_show, {{0}}},
    {"model verify",
     "NAME",
     1,
     1,
     "Whether the stored bytes are still those that were imported",
     NULL,
     run_model_verify,
     {{0}}},
    {"model rm",
     "NAME",
     1,
     1,
     "Remove a name; its bytes go with the last name that uses them",
     NULL,
     run_model_rm,
     {{0}}},
    {0},
};

const command commands_key[] = {
    {"key add",
     "NAME",
     1,
     1,
     "A new API key, shown once",
     NULL,
     run_key_add,
     {{OPT_TEXT, "role", "ROLE", 0, 0, "user (default), operator, auditor or admin"}}},
    {"key ls", "", 0, 0, "The keys, without their secrets", NULL, run_key_ls, {{0}}},
    {"key revoke", "ID|NAME", 1, 1, "A key stops working at once, for good", NULL, run_key_revoke, {{0}}},
    {0},
};
