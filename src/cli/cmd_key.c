/* key add|change|ls|revoke|usage, project add|change|ls|show|rm: admin operations, printed. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

static const char *text_of(const cJSON *o, const char *key) {
    const char *s = "";
    json_get_str(o, key, &s, NULL);
    return s ? s : "";
}

static void print_cell(const char *s, int width) {
    buf b = {.max = 8192};
    text_sanitise(&b, s, strlen(s), false);
    printf("%-*s ", width, buf_str(&b));
    buf_free(&b);
}

static cJSON *one_arg(const char *key, const char *value) {
    cJSON *o = cJSON_CreateObject();
    if (o && cJSON_AddStringToObject(o, key, value)) return o;
    cJSON_Delete(o);
    return NULL;
}

static err_code run_op(cli *c, const char *op, cJSON *args, void (*show)(const cJSON *), err *e) {
    cJSON *out = NULL;
    err_code rc = cli_admin(c, op, args, &out, e);
    if (rc == ERR_OK && c->json) return cli_print_json(out, e);
    if (rc == ERR_OK && show) show(out);
    cJSON_Delete(out);
    return rc;
}

/* ---- grants ------------------------------------------------------------------------------------------------ */

static const char *const limit_options[LIMIT_COUNT] = {
    [LIMIT_REQUESTS_MINUTE] = "rpm",       [LIMIT_TOKENS_MINUTE] = "tpm", [LIMIT_TOKENS_DAY] = "tokens-day",
    [LIMIT_TOKENS_MONTH] = "tokens-month", [LIMIT_EUR_DAY] = "eur-day",   [LIMIT_EUR_MONTH] = "eur-month"};

/* The options that were given, as arguments; false where memory is short. */
static bool add_grant(cli *c, cJSON *args, bool is_key) {
    static const char *const texts[] = {"floor", "models", "project"};
    for (int k = 0; k < (is_key ? 3 : 2); k++) {
        const char *v = cli_text(c, texts[k], NULL);
        if (v && !cJSON_AddStringToObject(args, texts[k], v)) return false;
    }
    for (int k = 0; k < LIMIT_COUNT; k++) {
        double v = cli_num(c, limit_options[k], -1);
        if (v >= 0 && !cJSON_AddNumberToObject(args, limit_name((limit_kind)k), v)) return false;
    }
    return true;
}

static cJSON *grant_args(cli *c, const char *key, bool is_key) {
    cJSON *args = one_arg(key, c->args[0]);
    if (args && add_grant(c, args, is_key)) return args;
    cJSON_Delete(args);
    return NULL;
}

static void print_models(const cJSON *list) {
    const cJSON *m;
    buf b = {.max = 4096};
    cJSON_ArrayForEach(m, list) buf_printf(&b, "%s%s", b.len ? ", " : "", cJSON_IsString(m) ? m->valuestring : "");
    print_cell(b.len ? buf_str(&b) : "all", 0);
    buf_free(&b);
}

static void print_line(const char *what, const char *value) {
    print_cell(what, 24);
    print_cell(value, 0);
    putchar('\n');
}

static void print_grant(const cJSON *o, const cJSON *used) {
    print_line("floor", *text_of(o, "floor") ? text_of(o, "floor") : "none");
    print_cell("models", 24);
    print_models(json_get(o, "models"));
    putchar('\n');
    for (int k = 0; k < LIMIT_COUNT; k++) {
        const char *name = limit_name((limit_kind)k);
        const cJSON *limit = json_get(json_get(o, "limits"), name), *u = json_get(used, name);
        char text[96] = "no limit";
        if (limit) snprintf(text, sizeof text, "%.15g", limit->valuedouble);
        if (u) snprintf(text + strlen(text), sizeof text - strlen(text), ", %.15g used", u->valuedouble);
        print_line(limit_words((limit_kind)k), text);
    }
}

/* ---- keys -------------------------------------------------------------------------------------------------- */

static void show_new_key(const cJSON *v) {
    printf("%s\n", text_of(v, "key"));
    fprintf(stderr, "This is shown once; only its hash is kept.\n");
}

static void show_keys(const cJSON *v) {
    const cJSON *k;
    cJSON_ArrayForEach(k, json_get(v, "keys")) {
        const char *project = text_of(k, "project"), *floor = text_of(k, "floor");
        print_cell(text_of(k, "id"), 16);
        print_cell(text_of(k, "name"), 24);
        print_cell(text_of(k, "role"), 10);
        print_cell(text_of(k, "created"), 24);
        print_cell(*project ? project : "-", 16);
        print_cell(*floor ? floor : "-", 14);
        print_cell(*text_of(k, "revoked")                 ? "revoked"
                   : cJSON_IsTrue(json_get(k, "damaged")) ? "damaged: does not work"
                                                          : "",
                   0);
        putchar('\n');
    }
}

static void show_usage(const cJSON *v) {
    static const char *const numbers[] = {"requests", "refused", "tokens_in", "tokens_out", "cost_eur"};
    const char *by = text_of(v, "by");
    const cJSON *row, *total = json_get(v, "total");
    print_cell(by, 36);
    for (int k = 0; k < 5; k++) printf("%14s", numbers[k]);
    putchar('\n');
    for (int last = 0; last < 2; last++) {
        for (row = last ? total : json_get(v, "usage") ? json_get(v, "usage")->child : NULL; row; row = row->next) {
            char label[200];
            const char *name = text_of(row, "name"), *what = text_of(row, by);
            snprintf(label, sizeof label, "%s%s%s", last ? "total" : *what ? what : "-", *name ? " " : "", name);
            print_cell(label, 36);
            for (int k = 0; k < 5; k++) {
                double n = 0;
                json_get_num(row, numbers[k], 0, 1e300, &n, NULL);
                printf(k == 4 ? "%14.4f" : "%14.0f", n);
            }
            putchar('\n');
            if (last) break;
        }
    }
}

static err_code run_key_add(cli *c, err *e) {
    cJSON *args = grant_args(c, "name", true);
    if (args && !cJSON_AddStringToObject(args, "role", cli_text(c, "role", "user"))) {
        cJSON_Delete(args);
        args = NULL;
    }
    return run_op(c, "key.add", args, show_new_key, e);
}
static err_code run_key_change(cli *c, err *e) {
    return run_op(c, "key.change", grant_args(c, "key", true), NULL, e);
}
static err_code run_key_ls(cli *c, err *e) {
    return run_op(c, "key.ls", cJSON_CreateObject(), show_keys, e);
}
static err_code run_key_revoke(cli *c, err *e) {
    return run_op(c, "key.revoke", one_arg("key", c->args[0]), NULL, e);
}
static err_code run_key_usage(cli *c, err *e) {
    static const char *const names[] = {"by", "from", "to"};
    cJSON *args = cJSON_CreateObject();
    for (int k = 0; args && k < 3; k++) {
        const char *v = cli_text(c, names[k], NULL);
        if (!v || cJSON_AddStringToObject(args, names[k], v)) continue;
        cJSON_Delete(args);
        args = NULL;
    }
    return run_op(c, "usage.show", args, show_usage, e);
}

/* ---- projects ---------------------------------------------------------------------------------------------- */

static void show_projects(const cJSON *v) {
    const cJSON *p;
    cJSON_ArrayForEach(p, json_get(v, "projects")) {
        print_cell(text_of(p, "name"), 24);
        print_cell(*text_of(p, "floor") ? text_of(p, "floor") : "-", 24);
        print_cell(text_of(p, "created"), 24);
        print_models(json_get(p, "models"));
        putchar('\n');
    }
}

static void show_project(const cJSON *p) {
    const cJSON *k;
    print_line("name", text_of(p, "name"));
    print_line("created", text_of(p, "created"));
    print_grant(p, json_get(p, "used"));
    cJSON_ArrayForEach(k, json_get(p, "keys")) {
        print_cell("key", 24);
        print_cell(text_of(k, "id"), 16);
        print_cell(text_of(k, "name"), 0);
        putchar('\n');
    }
}

static err_code run_project_add(cli *c, err *e) {
    return run_op(c, "project.add", grant_args(c, "name", false), NULL, e);
}
static err_code run_project_change(cli *c, err *e) {
    return run_op(c, "project.change", grant_args(c, "name", false), NULL, e);
}
static err_code run_project_ls(cli *c, err *e) {
    return run_op(c, "project.ls", cJSON_CreateObject(), show_projects, e);
}
static err_code run_project_show(cli *c, err *e) {
    return run_op(c, "project.show", one_arg("name", c->args[0]), show_project, e);
}
static err_code run_project_rm(cli *c, err *e) {
    return run_op(c, "project.rm", one_arg("name", c->args[0]), NULL, e);
}

/* ---- the table --------------------------------------------------------------------------------------------- */

#define GRANT_OPTIONS                                                                                                \
    {OPT_TEXT, "floor", "LABEL", 0, 0, "requests are at least so sensitive: a level, flags, or both with commas"},   \
        {OPT_TEXT, "models", "NAMES", 0, 0, "the models it may call: names, or beginnings with *; \"\": all"},       \
        {OPT_INT, "rpm", "N", 0, 1e15, "requests a minute; 0: no limit"},                                            \
        {OPT_INT, "tpm", "N", 0, 1e15, "tokens a minute"}, {OPT_INT, "tokens-day", "N", 0, 1e15, "tokens a day"},    \
        {OPT_INT, "tokens-month", "N", 0, 1e15, "tokens a month"}, {OPT_NUM, "eur-day", "X", 0, 1e9, "EUR a day"}, { \
        OPT_NUM, "eur-month", "X", 0, 1e9, "EUR a month"                                                             \
    }
#define PROJECT_OPTION \
    { OPT_TEXT, "project", "NAME", 0, 0, "the project it belongs to; its floor and limits count too" }

const command commands_key[] = {
    {"key add",
     "NAME",
     1,
     1,
     "A new API key, shown once",
     "A request must pass the limits of its key and those of the key's project. What is over is answered with 429 and\n"
     "Retry-After. Days and months are those of UTC.\n"
     "\n"
     "  polder key add alice --project care --rpm 60\n"
     "  polder key add nightly --models 'qwen3,mistral-*' --tokens-day 2000000 --eur-month 50",
     run_key_add,
     {{OPT_TEXT, "role", "ROLE", 0, 0, "user (default), operator, auditor or admin"}, PROJECT_OPTION, GRANT_OPTIONS}},
    {"key change",
     "ID|NAME",
     1,
     1,
     "Change what a key may do; what is not named stays",
     "  polder key change alice --project \"\" --rpm 0\n"
     "takes the key out of its project and lifts its limit of requests a minute.",
     run_key_change,
     {PROJECT_OPTION, GRANT_OPTIONS}},
    {"key ls", "", 0, 0, "The keys, without their secrets", NULL, run_key_ls, {{0}}},
    {"key revoke", "ID|NAME", 1, 1, "A key stops working at once, for good", NULL, run_key_revoke, {{0}}},
    {"key usage",
     "",
     0,
     0,
     "Requests, tokens and cost, from the first of this month until today",
     "Counts are written every second; a crash loses at most the last second's. Refused are those that a limit or the\n"
     "list of models kept out.\n"
     "\n"
     "  polder key usage --by project --from 2026-10-01 --to 2026-10-31",
     run_key_usage,
     {{OPT_TEXT, "by", "WHAT", 0, 0, "key (default), project, model, provider or day"},
      {OPT_TEXT, "from", "DATE", 0, 0, "first day, as 2026-11-01 (UTC)"},
      {OPT_TEXT, "to", "DATE", 0, 0, "last day"}}},
    {"project add",
     "NAME",
     1,
     1,
     "A project: a floor, models and limits that its keys share",
     "  polder project add care --floor \"confidential, personal\" --models 'qwen3*' --eur-month 200\n"
     "  polder key add alice --project care",
     run_project_add,
     {GRANT_OPTIONS}},
    {"project change",
     "NAME",
     1,
     1,
     "Change a project; what is not named stays",
     NULL,
     run_project_change,
     {GRANT_OPTIONS}},
    {"project ls", "", 0, 0, "The projects", NULL, run_project_ls, {{0}}},
    {"project show", "NAME", 1, 1, "What a project may do, what it has used, its keys", NULL, run_project_show, {{0}}},
    {"project rm", "NAME", 1, 1, "Remove a project that has no keys", NULL, run_project_rm, {{0}}},
    {0},
};
