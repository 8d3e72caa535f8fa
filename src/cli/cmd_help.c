/* completion and the man page, both from the command tables. */
#include "cli/cli.h"

#include "version.h"

#include <string.h>

static void each_command(void (*fn)(const command *c)) {
    for (size_t g = 0; command_groups[g]; g++)
        for (const command *c = command_groups[g]; c->words; c++) fn(c);
}

/* ---- completion ---- */

/* First words, each once. */
static void print_first_words(void) {
    const char *last = "";
    size_t last_len = 0;
    for (size_t g = 0; command_groups[g]; g++) {
        for (const command *c = command_groups[g]; c->words; c++) {
            size_t len = strcspn(c->words, " ");
            if (len == last_len && memcmp(last, c->words, len) == 0) continue;
            printf("%.*s ", (int)len, c->words);
            last = c->words;
            last_len = len;
        }
    }
}

static void print_bash_case(const command *c) {
    printf("    \"%s\") words=\"", c->words);
    for (const opt *o = c->opts; o->kind != OPT_END; o++) printf("--%s ", o->name);
    printf("--json --help\" ;;\n");
}

static void print_bash_second(const command *c) {
    const char *space = strchr(c->words, ' ');
    if (space) printf("    %.*s) second=\"$second %s\" ;;\n", (int)(space - c->words), c->words, space + 1);
}

static void print_bash(void) {
    printf("# bash completion of polder; load it with: source <(polder completion bash)\n"
           "_polder() {\n"
           "  local cur=${COMP_WORDS[COMP_CWORD]} i=1 second= words=\n"
           "  while [[ ${COMP_WORDS[i]} == --* && i -lt COMP_CWORD ]]; do\n"
           "    [[ ${COMP_WORDS[i]} == --island ]] && ((i++)); ((i++))\n"
           "  done\n"
           "  local one=${COMP_WORDS[i]} two=${COMP_WORDS[i+1]}\n"
           "  if (( COMP_CWORD <= i )); then\n"
           "    COMPREPLY=($(compgen -W \"");
    print_first_words();
    printf("--island --json --help --version\" -- \"$cur\")); return\n"
           "  fi\n");
    /* one case a command: bash takes only the first match, so second words are collected command by command */
    for (size_t g = 0; command_groups[g]; g++) {
        for (const command *c = command_groups[g]; c->words; c++) {
            if (!strchr(c->words, ' ')) continue;
            printf("  case $one in\n");
            print_bash_second(c);
            printf("  esac\n");
        }
    }
    printf("  if [[ -n $second ]] && (( COMP_CWORD == i + 1 )); then\n"
           "    COMPREPLY=($(compgen -W \"$second\" -- \"$cur\")); return\n"
           "  fi\n"
           "  local name=$one; [[ -n $second ]] && name=\"$one $two\"\n"
           "  case $name in\n");
    each_command(print_bash_case);
    printf(
        "  esac\n"
        "  if [[ $cur == --* ]]; then COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")); else COMPREPLY=($(compgen -f "
        "-- \"$cur\")); fi\n"
        "}\n"
        "complete -o filenames -F _polder polder\n");
}

static void print_fish_command(const command *c) {
    const char *space = strchr(c->words, ' ');
    if (!space) {
        printf("complete -c polder -n __fish_use_subcommand -a %s -d '%s'\n", c->words, c->summary);
        for (const opt *o = c->opts; o->kind != OPT_END; o++)
            printf("complete -c polder -n '__fish_seen_subcommand_from %s' -l %s %s-d '%s'\n", c->words, o->name,
                   o->arg ? "-r " : "", o->help);
        return;
    }
    printf("complete -c polder -n '__fish_seen_subcommand_from %.*s' -a %s -d '%s'\n", (int)(space - c->words),
           c->words, space + 1, c->summary);
}

static err_code run_completion(cli *c, err *e) {
    if (strcmp(c->args[0], "bash") == 0)
        print_bash();
    else if (strcmp(c->args[0], "zsh") == 0) {
        printf("autoload -Uz bashcompinit && bashcompinit\n");
        print_bash();
    } else if (strcmp(c->args[0], "fish") == 0)
        each_command(print_fish_command);
    else
        return err_set(e, ERR_USAGE, "polder completion: \"%s\" is not bash, zsh or fish", c->args[0]);
    return ERR_OK;
}

/* ---- the man page ---- */

static void roff(const char *s) {
    bool line_start = true;
    for (; *s; s++) {
        if (line_start && (*s == '.' || *s == '\'')) fputs("\\&", stdout);
        if (*s == '-')
            fputs("\\-", stdout);
        else if (*s == '\\')
            fputs("\\e", stdout);
        else
            putchar(*s);
        line_start = *s == '\n';
    }
}

static void man_command(const command *c) {
    printf(".TP\n.B polder ");
    roff(c->words);
    printf(" \\fR");
    roff(c->args);
    printf("\n");
    roff(c->summary);
    printf(".\n");
    if (c->help) {
        printf(".RS\n.nf\n");
        roff(c->help);
        printf("\n.fi\n.RE\n");
    }
    for (const opt *o = c->opts; o->kind != OPT_END; o++) {
        printf(".RS\n.TP\n.B \\-\\-");
        roff(o->name);
        printf(" \\fI%s\\fR\n", o->arg ? o->arg : "");
        roff(o->help);
        printf("\n.RE\n");
    }
}

static err_code run_man(cli *c, err *e) {
    printf(
        ".TH POLDER 1 \"\" \"polder %s\" \"polder\"\n"
        ".SH NAME\npolder \\- mastery of an AI stack on a machine of your own\n"
        ".SH SYNOPSIS\n.B polder\n[\\-\\-island \\fIDIR\\fR] [\\-\\-json] \\fICOMMAND\\fR ...\n"
        ".SH DESCRIPTION\nOne program, one state folder (the island), one ledger. It serves open\\-weight models and\n"
        "writes every answer to a log that outsiders can verify.\n.SH COMMANDS\n",
        POLDER_VERSION);
    each_command(man_command);
    printf(".SH EXIT STATUS\n0 done; 1 the answer is no (a proof does not hold); 2 used wrongly; 3 could not be done.\n"
           ".SH ENVIRONMENT\n.TP\n.B POLDER_ISLAND\nthe island's folder where \\-\\-island is absent\n"
           ".TP\n.B POLDER_ISA\nforces a kernel set: scalar, avx2, avx512 or neon, where CPU and build have it;\n"
           "results are the same bit for bit\n"
           ".TP\n.B NO_COLOR\nno colours\n"
           ".SH FILES\n.TP\n.I DIR/island.yaml\nthe configuration; polder config show explains every key\n");
    return ERR_OK;
}

const command commands_help[] = {
    {"completion",
     "bash|zsh|fish",
     1,
     1,
     "Shell completion: source <(polder completion bash)",
     NULL,
     run_completion,
     {{0}}},
    {"man", "", 0, 0, "The man page: polder man | man -l -", NULL, run_man, {{0}}},
    {0},
};
