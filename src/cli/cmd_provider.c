/* provider add|change|ls|show|rm|set-key, model route, model routes. */
#include "cli/cli.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* ---- printing ---------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *o, const char *key) {
    const char *s = "";
    json_get_str(o, key, &s, NULL);
    return s ? s : "";
}

static void print_field(const char *s, int width) {
    buf b = {.max = 8192};
    text_sanitise(&b, s, strlen(s), false);
    printf("%-*s ", width, buf_str(&b));
    buf_free(&b);
}

/* A fact as a word; what nobody declared is "?". */
static const char *fact_text(const cJSON *v, char out[40]) {
    if (cJSON_IsString(v)) return v->valuestring;
    if (cJSON_IsBool(v)) return cJSON_IsTrue(v) ? "yes" : "no";
    if (!cJSON_IsNumber(v)) return "?";
    snprintf(out, 40, "%.15g", v->valuedouble);
    return out;
}

static err_code run_op(cli *c, const char *op, cJSON *args, void (*show)(const cJSON *), err *e) {
    cJSON *out = NULL;
    err_code rc = cli_admin(c, op, args, &out, e);
    if (rc == ERR_OK && c->json) return cli_print_json(out, e);
    if (rc == ERR_OK && show) show(out);
    cJSON_Delete(out);
    return rc;
}

static void show_provider(const cJSON *o) {
    char number[40];
    for (const cJSON *v = o ? o->child : NULL; v; v = v->next) {
        if (cJSON_IsObject(v)) continue;
        print_field(v->string, 16);
        print_field(cJSON_IsNull(v) ? "not known" : fact_text(v, number), 0);
        putchar('\n');
    }
    const cJSON *key = json_get(o, "key");
    if (!key) return;
    print_field("key", 16);
    print_field(cJSON_IsTrue(json_get(key, "set")) ? "set, since" : "none; set it with polder provider set-key", 0);
    print_field(text_of(key, "since"), 0);
    putchar('\n');
}

static void show_providers(const cJSON *v) {
    static const struct {
        const char *key;
        int width;
    } columns[] = {{"name", 20},        {"driver", 10},         {"inside", 7},  {"country", 8},
                   {"operator_law", 4}, {"retention_days", 10}, {"training", 9}};
    static const char *const heads[] = {"NAME", "DRIVER", "INSIDE", "COUNTRY", "LAW", "RETENTION", "TRAINING"};
    char number[40];
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) print_field(heads[i], columns[i].width);
    printf("KEY  OPERATOR\n");
    const cJSON *p;
    cJSON_ArrayForEach(p, json_get(v, "providers")) {
        for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
            print_field(fact_text(cJSON_GetObjectItemCaseSensitive(p, columns[i].key), number), columns[i].width);
        const cJSON *key = json_get(p, "key");
        print_field(!key ? "-" : cJSON_IsTrue(json_get(key, "set")) ? "yes" : "no", 4);
        print_field(text_of(p, "operator"), 0);
        putchar('\n');
    }
}

static void show_route(const cJSON *r) {
    const cJSON *c;
    char number[40];
    print_field(text_of(r, "model"), 0);
    putchar('\n');
    cJSON_ArrayForEach(c, json_get(r, "candidates")) {
        printf("  %-4s ", fact_text(json_get(c, "rank"), number));
        print_field(text_of(c, "provider"), 0);
        print_field(text_of(c, "model"), 0);
        printf("*%s\n", fact_text(json_get(c, "weight"), number));
    }
}

static void show_routes(const cJSON *v) {
    const cJSON *r;
    cJSON_ArrayForEach(r, json_get(v, "routes")) show_route(r);
}

/* ---- facts from options ------------------------------------------------------------------------------------ */

typedef enum kind { KIND_TEXT, KIND_NUMBER, KIND_YES_NO, KIND_FLAG } kind;
typedef struct fact_option {
    const char *opt, *fact;
    kind kind;
} fact_option;

static const fact_option fact_options[] = {
    {"driver", "driver", KIND_TEXT},
    {"url", "url", KIND_TEXT},
    {"form", "form", KIND_TEXT},
    {"api-version", "api_version", KIND_TEXT},
    {"ca-file", "ca_file", KIND_TEXT},
    {"operator", "operator", KIND_TEXT},
    {"country", "country", KIND_TEXT},
    {"law", "operator_law", KIND_TEXT},
    {"retention-days", "retention_days", KIND_NUMBER},
    {"training", "training", KIND_YES_NO},
    {"contract", "contract", KIND_TEXT},
    {"certificates", "certificates", KIND_TEXT},
    {"price-in", "price_in", KIND_NUMBER},
    {"price-out", "price_out", KIND_NUMBER},
    {"exit", "exit", KIND_TEXT},
    {"inside", "inside", KIND_YES_NO},
    {"max-concurrent", "max_concurrent", KIND_NUMBER},
};

/* "unknown" takes a fact back. NULL: *e says why. */
static cJSON *fact_value(const fact_option *o, const char *text, err *e) {
    cJSON *v = NULL;
    char *end;
    double d;
    switch (strcmp(text, "unknown") == 0 ? KIND_FLAG : o->kind) {
    case KIND_FLAG: v = cJSON_CreateNull(); break;
    case KIND_TEXT: v = cJSON_CreateString(text); break;
    case KIND_YES_NO:
        if (strcmp(text, "yes") != 0 && strcmp(text, "no") != 0 && *text) {
            err_set(e, ERR_USAGE, "--%s: \"%s\" is none of yes, no, unknown", o->opt, text);
            return NULL;
        }
        v = cJSON_CreateBool(strcmp(text, "no") != 0);
        break;
    case KIND_NUMBER:
        errno = 0;
        d = strtod(text, &end);
        if (end == text || *end || errno) {
            err_set(e, ERR_USAGE, "--%s: \"%s\" is neither a number nor unknown", o->opt, text);
            return NULL;
        }
        v = cJSON_CreateNumber(d);
        break;
    }
    if (!v) err_nomem(e, "a request");
    return v;
}

static err_code facts_of(cli *c, cJSON **out, err *e) {
    cJSON *o = cJSON_CreateObject();
    err_code rc = o && cJSON_AddStringToObject(o, "name", c->args[0]) ? ERR_OK : err_nomem(e, "a request");
    for (size_t i = 0; i < sizeof fact_options / sizeof *fact_options && !rc; i++) {
        const fact_option *f = &fact_options[i];
        const char *text = cli_text(c, f->opt, NULL);
        char path[4096];
        if (!text) continue;
        /* a server has another folder than the one this was typed in */
        if (strcmp(f->opt, "ca-file") == 0 && strcmp(text, "unknown") != 0 && realpath(text, path)) text = path;
        cJSON *v = fact_value(f, text, e);
        if (!v)
            rc = e->code;
        else if (!cJSON_AddItemToObject(o, f->fact, v)) {
            cJSON_Delete(v);
            rc = err_nomem(e, "a request");
        }
    }
    if (rc)
        cJSON_Delete(o);
    else
        *out = o;
    return rc;
}

static err_code run_provider_add(cli *c, err *e) {
    cJSON *facts = NULL;
    err_code rc = facts_of(c, &facts, e);
    return rc ? rc : run_op(c, "provider.add", facts, show_provider, e);
}

static err_code run_provider_change(cli *c, err *e) {
    cJSON *facts = NULL;
    err_code rc = facts_of(c, &facts, e);
    if (!rc && !facts->child->next) {
        cJSON_Delete(facts);
        return err_set(e, ERR_USAGE, "polder provider change: say what changes, as --retention-days 0");
    }
    return rc ? rc : run_op(c, "provider.change", facts, show_provider, e);
}

static cJSON *one_arg(const char *key, const char *value) {
    cJSON *o = cJSON_CreateObject();
    if (o && cJSON_AddStringToObject(o, key, value)) return o;
    cJSON_Delete(o);
    return NULL;
}

static err_code run_provider_ls(cli *c, err *e) {
    return run_op(c, "provider.ls", cJSON_CreateObject(), show_providers, e);
}
static err_code run_provider_show(cli *c, err *e) {
    return run_op(c, "provider.show", one_arg("name", c->args[0]), show_provider, e);
}
static err_code run_provider_rm(cli *c, err *e) {
    return run_op(c, "provider.rm", one_arg("name", c->args[0]), NULL, e);
}

/* ---- the credential ---------------------------------------------------------------------------------------- */

enum { SECRET_CAP = CREDENTIAL_MAX + 64 };

/* Until the end, or the end of the line where a person types. No stdio: its buffers would keep a copy. */
static err_code read_secret(int fd, bool line, char secret[SECRET_CAP], size_t *n, err *e) {
    *n = 0;
    for (;;) {
        if (*n == SECRET_CAP)
            return err_set(e, ERR_INVALID, "the credential is too long: at most %d bytes", CREDENTIAL_MAX);
        ssize_t k = read(fd, secret + *n, SECRET_CAP - *n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return err_errno(e, "the credential cannot be read");
        if (k == 0) return ERR_OK;
        *n += (size_t)k;
        if (line && memchr(secret, '\n', *n)) return ERR_OK;
    }
}

static err_code type_secret(char secret[SECRET_CAP], size_t *n, const char *name, err *e) {
    struct termios shown, hidden;
    if (tcgetattr(STDIN_FILENO, &shown) != 0) return err_errno(e, "the terminal");
    hidden = shown;
    hidden.c_lflag &= ~(tcflag_t)ECHO;
    hidden.c_lflag |= ECHONL;
    cli_say("The credential of %s (it is not shown while you type):", name);
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden) != 0) return err_errno(e, "the terminal");
    err_code rc = read_secret(STDIN_FILENO, true, secret, n, e);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
    return rc;
}

static err_code get_secret(cli *c, char secret[SECRET_CAP], size_t *n, err *e) {
    const char *file = cli_text(c, "file", NULL);
    if (!file && isatty(STDIN_FILENO)) return type_secret(secret, n, c->args[0], e);
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
    if (fd < 0) return err_errno(e, "%s", file);
    err_code rc = read_secret(fd, false, secret, n, e);
    if (file) close(fd);
    return rc;
}

static void show_key_set(const cJSON *o) {
    cli_say("The credential is sealed in the island; it holds from the next request on and is never shown.");
}

static err_code run_provider_set_key(cli *c, err *e) {
    char secret[SECRET_CAP + 1];
    size_t n = 0;
    err_code rc = get_secret(c, secret, &n, e);
    while (!rc && n && strchr(" \t\r\n", secret[n - 1]) && secret[n - 1]) n--;
    secret[n] = 0;
    if (!rc && strlen(secret) != n) rc = err_set(e, ERR_INVALID, "the credential holds a NUL byte");
    cJSON *args = rc ? NULL : one_arg("name", c->args[0]);
    if (args && !cJSON_AddStringToObject(args, "key", secret)) {
        cJSON_Delete(args);
        args = NULL;
    }
    mem_wipe(secret, sizeof secret);
    return rc ? rc : run_op(c, "provider.set-key", args, show_key_set, e);
}

/* ---- candidates -------------------------------------------------------------------------------------------- */

/* "PROVIDER:MODEL", perhaps with "*WEIGHT" behind it. */
static err_code add_candidate(cJSON *list, const char *text, size_t n, int rank, err *e) {
    char word[CREDENTIAL_MAX];
    snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word - 1), text);
    char *colon = strchr(word, ':'), *star = strrchr(word, '*');
    long weight = 1;
    if (star && star[1] && strspn(star + 1, "0123456789") == strlen(star + 1) && strlen(star + 1) < 7) {
        weight = strtol(star + 1, NULL, 10);
        *star = 0;
    }
    if (!colon || colon == word || !colon[1])
        return err_set(e, ERR_USAGE,
                       "\"%.100s\" is no candidate; write engine:MODEL or PROVIDER:MODEL, with *WEIGHT "
                       "behind it where several share a rank",
                       word);
    *colon = 0;
    cJSON *one = cJSON_CreateObject();
    if (one && cJSON_AddStringToObject(one, "provider", word) && cJSON_AddStringToObject(one, "model", colon + 1) &&
        cJSON_AddNumberToObject(one, "weight", (double)weight) && cJSON_AddNumberToObject(one, "rank", rank) &&
        cJSON_AddItemToArray(list, one))
        return ERR_OK;
    cJSON_Delete(one);
    return err_nomem(e, "a request");
}

static err_code run_model_route(cli *c, err *e) {
    bool none = cli_flag(c, "none");
    if (none == (c->n_args > 1))
        return err_set(e, ERR_USAGE,
                       "polder model route: give candidates as engine:MODEL or PROVIDER:MODEL, or --none");
    cJSON *args = one_arg("model", c->args[0]);
    cJSON *list = args ? cJSON_AddArrayToObject(args, "candidates") : NULL;
    err_code rc = list ? ERR_OK : err_nomem(e, "a request");
    for (int i = 1; i < c->n_args && !rc; i++)
        for (const char *s = c->args[i]; s && !rc;) {
            size_t n = strcspn(s, ",");
            rc = add_candidate(list, s, n, i - 1, e);
            s = s[n] ? s + n + 1 : NULL;
        }
    if (rc) {
        cJSON_Delete(args);
        return rc;
    }
    return run_op(c, "route.set", args, show_route, e);
}

static err_code run_model_routes(cli *c, err *e) {
    return run_op(c, "route.ls", cJSON_CreateObject(), show_routes, e);
}

/* ---- the table --------------------------------------------------------------------------------------------- */

#define FACT_OPTIONS(inside_kind, inside_arg, inside_help)                                                            \
    {OPT_TEXT, "driver", "NAME", 0, 0, "openai (any compatible server) or anthropic"},                                \
        {OPT_TEXT, "url", "URL", 0, 0, "base address, as https://api.example.eu/v1"},                                 \
        {OPT_TEXT, "form", "azure", 0, 0, "URL and header forms of Azure OpenAI"},                                    \
        {OPT_TEXT, "api-version", "TEXT", 0, 0, "of Azure OpenAI or Anthropic"},                                      \
        {OPT_TEXT, "ca-file", "FILE", 0, 0, "certificates that its TLS is checked against, instead of the system's"}, \
        {OPT_TEXT, "operator", "NAME", 0, 0, "who runs it"},                                                          \
        {OPT_TEXT, "country", "CC", 0, 0, "where the data is: ISO 3166, as DE"},                                      \
        {OPT_TEXT, "law", "CC", 0, 0, "whose law binds the operator"},                                                \
        {OPT_TEXT, "retention-days", "N", 0, 0, "days that what is sent is kept; 0: not at all"},                     \
        {OPT_TEXT, "training", "yes|no", 0, 0, "whether it trains on what is sent"},                                  \
        {OPT_TEXT, "contract", "TEXT", 0, 0, "under which contract"},                                                 \
        {OPT_TEXT, "certificates", "LIST", 0, 0, "comma-separated, as ISO-27001, C5"},                                \
        {OPT_TEXT, "price-in", "EUR", 0, 0, "for a million tokens that are sent"},                                    \
        {OPT_TEXT, "price-out", "EUR", 0, 0, "for a million tokens that come back"},                                  \
        {OPT_TEXT, "exit", "TEXT", 0, 0, "what takes its place, and how"},                                            \
        {inside_kind, "inside", inside_arg, 0, 0, inside_help}, {                                                     \
        OPT_TEXT, "max-concurrent", "N", 0, 0, "requests at once at most; 0: no limit"                                \
    }

const command commands_provider[] = {
    {"model route",
     "NAME CANDIDATE [CANDIDATE ...]",
     1,
     CLI_ARGS_MAX,
     "Say who answers under a model name, in order",
     "A CANDIDATE is engine:MODEL (an imported model) or PROVIDER:MODEL (the name that the provider knows). The next "
     "is\n"
     "tried where the one before cannot answer; only those are tried at all that the policy allows for the request.\n"
     "Several that share the work are joined by commas, with weights:\n"
     "\n"
     "  polder model route chat engine:qwen3\n"
     "  polder model route chat acme:large-2 engine:qwen3\n"
     "  polder model route chat acme:large-2*3,other:big*1 engine:qwen3\n"
     "  polder model route chat --none",
     run_model_route,
     {{OPT_FLAG, "none", NULL, 0, 0, "the name has no candidates any more"}}},
    {"model routes", "", 0, 0, "The candidates of all model names", NULL, run_model_routes, {{0}}},
    {"provider add",
     "NAME --driver NAME --url URL [facts]",
     1,
     1,
     "Declare a server of somebody else that may answer",
     "What is not given is not known, and no rule of the policy that asks for it is met. Nothing is sent before a "
     "model\n"
     "name leads there (polder model route) and the policy allows it (polder policy).\n"
     "\n"
     "  polder provider add acme --driver openai --url https://api.acme.example/v1 --operator \"Acme SAS\" \\\n"
     "      --country FR --law FR --retention-days 0 --training no\n"
     "  polder provider set-key acme < acme.key",
     run_provider_add,
     {FACT_OPTIONS(OPT_FLAG, NULL, "it is inside the perimeter: the organisation's own")}},
    {"provider change",
     "NAME [facts]",
     1,
     1,
     "Change facts of a provider; the ledger keeps the old ones",
     "The value unknown takes a fact back:\n"
     "\n"
     "  polder provider change acme --retention-days 30 --contract unknown",
     run_provider_change,
     {FACT_OPTIONS(OPT_TEXT, "yes|no", "whether it is inside the perimeter: the organisation's own")}},
    {"provider ls", "", 0, 0, "The providers and what is known of them", NULL, run_provider_ls, {{0}}},
    {"provider show", "NAME", 1, 1, "All that is known of a provider", NULL, run_provider_show, {{0}}},
    {"provider rm", "NAME", 1, 1, "Remove a provider and its credential", NULL, run_provider_rm, {{0}}},
    {"provider set-key",
     "NAME [--file FILE]",
     1,
     1,
     "Give the credential that a provider asks for",
     "Read from FILE, from standard input, or typed without being shown; never from the command line, which others "
     "can\n"
     "see. It is sealed in the island under its vault's key, replaces the one before from the next request on, and is\n"
     "never shown again.",
     run_provider_set_key,
     {{OPT_TEXT, "file", "FILE", 0, 0, "the file that holds it"}}},
    {0},
};
