/* cli: one file a group of commands. Internal to this room.
 *
 * A command is a row of a table: its words, its options, its help, its function. The parser, --help, shell completion
 * and the man page all read that table. stdout is data, stderr is talk. Exit codes: 0 done, 1 the answer is no, 2 used
 * wrongly, 3 could not be done.
 */
#ifndef POLDER_CLI_H
#define POLDER_CLI_H

#include "base/json.h"
#include "base/sys.h"
#include "inference/inference.h"
#include "server/server.h"

#include <stdio.h>

enum { CLI_OPTS_MAX = 24, CLI_ARGS_MAX = 20 };

typedef enum opt_kind { OPT_END, OPT_FLAG, OPT_TEXT, OPT_INT, OPT_NUM } opt_kind;

typedef struct opt {
    opt_kind kind;
    const char *name; /* "max-tokens" for --max-tokens */
    const char *arg;  /* "N"; NULL for a flag */
    double min, max;  /* numbers */
    const char *help;
} opt;

typedef struct cli cli;

typedef struct command {
    const char *words; /* "model add" */
    const char *args;  /* "FILE --name NAME": what follows the words in the usage line */
    int min_args, max_args;
    const char *summary; /* one line */
    const char *help;    /* paragraphs and an example; may be NULL */
    err_code (*run)(cli *c, err *e);
    opt opts[CLI_OPTS_MAX];
} command;

struct cli {
    const command *cmd;
    const char *dir; /* the island */
    bool json;
    int n_args;
    const char *args[CLI_ARGS_MAX];
    const char *given[CLI_OPTS_MAX]; /* the text of each option; NULL where absent, "" for a flag */
};

/* Tables of commands, in the order of the help. */
extern const command commands_island[], commands_talk[], commands_model[], commands_provider[], commands_policy[],
    commands_key[], commands_inventory[], commands_audit[], commands_engine[], commands_help[];
extern const command *const command_groups[];
extern const char *const command_group_titles[];

/* Options by name; asking for one that is not in the command's table is a programmer error. */
bool cli_flag(const cli *c, const char *name);
const char *cli_text(const cli *c, const char *name, const char *def);
int64_t cli_int(const cli *c, const char *name, int64_t def); /* already checked against min and max */
err_code cli_kv(const cli *c, kv_format *out, err *e);        /* --kv; KV_F16 where it is not given */
double cli_num(const cli *c, const char *name, double def);

/* Data to stdout. cli_print_json prints the tree on one line and frees it. A closed stdout is ERR_IO. */
err_code cli_print_json(cJSON *v, err *e);
err_code cli_print_text(const char *s, size_t n, err *e);
/* Foreign text to the terminal: control characters replaced when stdout is one. */
err_code cli_print_foreign(const char *s, size_t n, err *e);
void cli_say(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* to stderr */
bool cli_colour(int fd);                                                  /* a terminal, and NO_COLOR is not set */
err_code cli_read_stdin(buf *out, err *e);

/* A progress line on stderr, only on a terminal: "hashing 1.2 of 4.0 GB, 12 s left". */
typedef struct progress {
    const char *what;
    uint64_t started_ns, printed_ns;
    bool on;
} progress;
void progress_begin(progress *p, const char *what);
int progress_step(void *p, uint64_t done, uint64_t total); /* a store_progress */
void progress_end(progress *p);

/* The same where things are counted: "replaying: 120 of 10000 answers, 35 s left". */
void progress_count(progress *p, uint64_t done, uint64_t total, const char *things);

/* cmd_replay.c: audit replay. */
err_code run_audit_replay(cli *c, err *e);

/* cmd_bench.c: bench, whose row stands with the other commands of the engine. */
enum { CLI_BENCH_ROUNDS_MAX = 99, CLI_BENCH_BATCH_MAX = 64 };
err_code run_bench(cli *c, err *e);

/* ---- the island, with or without a running server ---- */

/* Whether a server answers on the island's control socket. */
bool remote_is_up(const char *dir);
/* An admin operation: by the running server where there is one, in this process otherwise. */
err_code cli_admin(cli *c, const char *op, cJSON *args /* taken */, cJSON **out, err *e);
/* One answer as text: `body` is an OpenAI request (messages or prompt); pieces go to `text`. By the running server or
 * in this process, through the same pipeline. *record gets the seq of the admitted record. */
typedef struct talk_sink {
    void *ctx;
    err_code (*text)(void *ctx, const char *s, size_t n);
} talk_sink;
typedef struct talker talker; /* an open way to ask: reused over a chat */
err_code talker_open(talker **out, cli *c, err *e);
void talker_close(talker *t);
typedef struct talk {
    const char *model;
    const cJSON *messages; /* or */
    const char *prompt;
    int64_t max_tokens; /* -1: as many as fit */
    double temperature;
    bool has_seed;
    uint64_t seed;
} talk;
err_code talker_ask(talker *t, const talk *what, const talk_sink *sink, uint64_t *seq, err *e);

/* remote.c: a POST over the control socket; `on_data` gets the body as it comes. */
err_code remote_post(const char *dir, const char *path, const char *body, size_t n,
                     err_code (*on_data)(void *ctx, const char *s, size_t n, err *e), void *ctx, uint64_t *seq, err *e);

#endif
