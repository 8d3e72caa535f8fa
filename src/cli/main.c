/* polder: finds the command in the tables, parses its options, runs it, turns an error into three parts and an exit
 * code. */
#include "cli/cli.h"

#include "version.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const command *const command_groups[] = {commands_island,
                                         commands_talk,
                                         commands_model,
                                         commands_provider,
                                         commands_policy,
                                         commands_key,
                                         commands_inventory,
                                         commands_audit,
                                         commands_engine,
                                         commands_help,
                                         NULL};
const char *const command_group_titles[] = {
    "The island",         "Asking",     "Models",     "Providers", "The policy", "Keys and projects",
    "Kept and delegated", "The ledger", "The engine", "Help"};

static size_t word_count(const char *words) {
    size_t n = 1;
    for (; *words; words++) n += *words == ' ';
    return n;
}

/* True where argv begins with the command's words. */
static bool words_match(const char *words, char **argv, size_t n) {
    size_t k = 0;
    while (*words) {
        size_t len = strcspn(words, " ");
        if (k == n || strlen(argv[k]) != len || memcmp(words, argv[k], len) != 0) return false;
        k++;
        words += len + (words[len] == ' ');
    }
    return true;
}

static const command *find_command(char **argv, size_t n) {
    const command *best = NULL;
    for (size_t g = 0; command_groups[g]; g++)
        for (const command *c = command_groups[g]; c->words; c++)
            if (words_match(c->words, argv, n) && (!best || strlen(c->words) > strlen(best->words))) best = c;
    return best;
}

static void print_command_help(const command *c) {
    printf("Usage: polder [--island DIR] [--json] %s%s%s\n\n%s\n", c->words, *c->args ? " " : "", c->args, c->summary);
    if (c->help) printf("\n%s\n", c->help);
    bool first = true;
    for (const opt *o = c->opts; o->kind != OPT_END; o++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        if (first) printf("\nOptions:\n");
        first = false;
        printf("  %-22s %s\n", left, o->help);
    }
}

static void print_help(FILE *f) {
    fputs("polder: mastery of an AI stack on a machine of your own. One program, one state folder, one ledger.\n\n"
          "Usage: polder [--island DIR] [--json] COMMAND …\n\n"
          "  --island DIR           the island's state folder (default: $POLDER_ISLAND, or ./island)\n"
          "  --json                 facts as JSON on stdout\n"
          "  --help, --version\n"
          "  $POLDER_ISA            forces a set of kernels (scalar, avx2, avx512, neon); the bits are the same\n",
          f);
    for (size_t g = 0; command_groups[g]; g++) {
        fprintf(f, "\n%s\n", command_group_titles[g]);
        for (const command *c = command_groups[g]; c->words; c++) fprintf(f, "  %-22s %s\n", c->words, c->summary);
    }
    fputs("\nFirst steps:\n"
          "  polder --island my init my\n"
          "  polder --island my model add FILE.gguf --name NAME\n"
          "  polder --island my run NAME \"A question\"\n"
          "  polder --island my audit verify\n\n"
          "polder COMMAND --help tells more. Exit codes: 0 done, 1 the answer is no, 2 used wrongly, 3 could not be "
          "done.\n",
          f);
}

static int opt_index(const command *c, const char *name, size_t len) {
    for (int i = 0; c->opts[i].kind != OPT_END; i++)
        if (strlen(c->opts[i].name) == len && memcmp(c->opts[i].name, name, len) == 0) return i;
    return -1;
}

static err_code check_number(const opt *o, const char *text, err *e) {
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || *end || errno) return err_set(e, ERR_USAGE, "--%s: \"%s\" is not a number", o->name, text);
    bool whole = strspn(text, "-0123456789") == strlen(text);
    if (o->kind == OPT_INT && !whole) return err_set(e, ERR_USAGE, "--%s: \"%s\" is not a whole number", o->name, text);
    if (!(v >= o->min && v <= o->max))
        return err_set(e, ERR_USAGE, "--%s: %s is out of range (%.15g to %.15g)", o->name, text, o->min, o->max);
    return ERR_OK;
}

/* One word that begins with "--". Sets *used to how many words it took. */
static err_code parse_option(cli *c, char **argv, int n, int *used, err *e) {
    const char *name = argv[0] + 2, *eq = strchr(name, '=');
    size_t len = eq ? (size_t)(eq - name) : strlen(name);
    *used = 1;
    if (len == 4 && memcmp(name, "json", 4) == 0 && !eq) {
        c->json = true;
        return ERR_OK;
    }
    int i = opt_index(c->cmd, name, len);
    bool is_island = len == 6 && memcmp(name, "island", 6) == 0;
    if (i < 0 && !is_island)
        return err_set(e, ERR_USAGE, "polder %s: there is no option --%.*s; see polder %s --help", c->cmd->words,
                       (int)len, name, c->cmd->words);
    const opt *o = is_island ? NULL : &c->cmd->opts[i];
    const char *value = eq ? eq + 1 : NULL;
    if (o && o->kind == OPT_FLAG) {
        if (eq) return err_set(e, ERR_USAGE, "--%s takes no value", o->name);
        c->given[i] = "";
        return ERR_OK;
    }
    if (!value) {
        if (n < 2) return err_set(e, ERR_USAGE, "--%.*s: a value is missing", (int)len, name);
        value = argv[1];
        *used = 2;
    }
    if (is_island)
        c->dir = value;
    else
        c->given[i] = value;
    return o && o->kind != OPT_TEXT ? check_number(o, value, e) : ERR_OK;
}

static err_code parse_rest(cli *c, char **argv, int n, err *e) {
    bool words_only = false;
    for (int i = 0; i < n;) {
        int used = 1;
        if (!words_only && strcmp(argv[i], "--") == 0) {
            words_only = true;
        } else if (!words_only && strncmp(argv[i], "--", 2) == 0) {
            err_code rc = parse_option(c, argv + i, n - i, &used, e);
            if (rc) return rc;
        } else {
            if (c->n_args == c->cmd->max_args)
                return err_set(e, ERR_USAGE, "polder %s: \"%s\" is one word too many; usage: polder %s %s",
                               c->cmd->words, argv[i], c->cmd->words, c->cmd->args);
            c->args[c->n_args++] = argv[i];
        }
        i += used;
    }
    if (c->n_args < c->cmd->min_args)
        return err_set(e, ERR_USAGE, "polder %s: something is missing; usage: polder %s %s", c->cmd->words,
                       c->cmd->words, c->cmd->args);
    return ERR_OK;
}

static int report(const cli *c, err_code rc, const err *e) {
    if (rc == ERR_OK) return 0;
    if (c->json) {
        buf b = {.max = 65536};
        jw w;
        jw_init(&w, &b);
        jw_obj(&w);
        jw_key(&w, "error");
        jw_obj(&w);
        jw_kstr(&w, "code", err_name(rc));
        jw_kstr(&w, "message", e->msg);
        jw_obj_end(&w);
        jw_obj_end(&w);
        fprintf(stderr, "%s\n", buf_str(&b));
        buf_free(&b);
    } else {
        bool colour = cli_colour(STDERR_FILENO);
        fprintf(stderr, "%spolder:%s %s\n", colour ? "\033[31m" : "", colour ? "\033[0m" : "", e->msg);
    }
    return err_exit_code(rc);
}

/* A word that begins like a group ("model") without one of its commands: the group's commands are the answer. */
static int unknown_command(char **argv, int n) {
    fprintf(stderr, "polder: there is no command \"");
    buf b = {.max = 4096};
    text_sanitise(&b, argv[0], strlen(argv[0]), false);
    fprintf(stderr, "%s\"", buf_str(&b));
    buf_free(&b);
    bool any = false;
    for (size_t g = 0; command_groups[g]; g++) {
        for (const command *c = command_groups[g]; c->words; c++) {
            size_t len = strcspn(c->words, " ");
            if (strlen(argv[0]) != len || memcmp(argv[0], c->words, len) != 0) continue;
            fprintf(stderr, "%s%s", any ? ", " : " alone; there are: ", c->words);
            any = true;
        }
    }
    fprintf(stderr, "%s\n", any ? "" : "; see polder --help");
    return 2;
}

/* The allocator would make eight arenas a processor, each with its own pieces of what threads took and gave back:
 * with threads that come and go that is memory without use. As many threads as there are processors serve connections;
 * the ledger's writer and one more besides, which must not wait for them nor they for it. */
static void limit_arenas(void) {
    unsigned n = sys_cpu_count();
    (void)mallopt(M_ARENA_MAX, (int)n + 2);
}

int main(int argc, char **argv) {
    limit_arenas();
    base_init();
    signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_WARN); /* `up` takes the configured level */
    cli c = {.dir = getenv("POLDER_ISLAND")};
    if (!c.dir || !*c.dir) c.dir = "island";
    err e = {0};
    int i = 1;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            c.json = true;
        } else if (strcmp(argv[i], "--version") == 0) {
            printf("polder %s (numerics %d)\n", POLDER_VERSION, POLDER_NUMERICS);
            return 0;
        } else if (strcmp(argv[i], "--help") == 0) {
            print_help(stdout);
            return 0;
        } else if (strcmp(argv[i], "--island") == 0 && i + 1 < argc) {
            c.dir = argv[++i];
        } else if (strncmp(argv[i], "--island=", 9) == 0) {
            c.dir = argv[i] + 9;
        } else {
            err_set(&e, ERR_USAGE, "%s: not an option here, or its value is missing; see polder --help", argv[i]);
            return report(&c, ERR_USAGE, &e);
        }
    }
    if (i == argc) {
        print_help(stderr);
        return 2;
    }
    c.cmd = find_command(argv + i, (size_t)(argc - i));
    if (!c.cmd) return unknown_command(argv + i, argc - i);
    i += (int)word_count(c.cmd->words);
    for (int k = i; k < argc && strcmp(argv[k], "--") != 0; k++) {
        if (strcmp(argv[k], "--help") != 0) continue;
        print_command_help(c.cmd);
        return 0;
    }
    err_code rc = parse_rest(&c, argv + i, argc - i, &e);
    if (rc == ERR_OK) rc = engine_init(&e);
    if (rc == ERR_OK) rc = c.cmd->run(&c, &e);
    if (rc == ERR_OK && (fflush(stdout) != 0 || ferror(stdout)))
        rc = err_set(&e, ERR_IO, "standard output could not be written");
    return report(&c, rc, &e);
}
