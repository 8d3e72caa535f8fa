/* tokenize, logits, bench: the engine on a file, without an island. bench has a file of its own. */
#include "cli/cli.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* ---- tokenize ---- */

static err_code run_tokenize(cli *c, err *e) {
    model *m = NULL;
    buf text = {.max = 1u << 30}, out = {.max = (size_t)1 << 33};
    int32_t *ids = NULL;
    size_t n = 0;
    int flags = (cli_flag(c, "no-bos") ? 0 : TOK_ADD_SPECIAL) | (cli_flag(c, "special") ? TOK_PARSE_SPECIAL : 0);
    err_code rc = model_open(&m, c->args[0], e);
    if (rc == ERR_OK) rc = cli_read_stdin(&text, e);
    if (rc == ERR_OK) rc = model_tokenize(m, buf_str(&text), text.len, flags, (size_t)1 << 30, &ids, &n, e);
    if (rc == ERR_OK) {
        buf_putc(&out, '[');
        for (size_t i = 0; i < n; i++) buf_printf(&out, "%s%d", i ? "," : "", ids[i]);
        buf_puts(&out, "]\n");
        rc = buf_check(&out, "the ids", e);
    }
    if (rc == ERR_OK) rc = cli_print_text(buf_str(&out), out.len, e);
    mem_free(ids);
    buf_free(&text);
    buf_free(&out);
    model_free(m);
    return rc;
}

/* ---- logits ---- */

/* The ids of one line, decimal, separated by spaces or commas. *p moves behind the line. */
static err_code parse_line(const char **p, int32_t *ids, size_t cap, size_t *n, const char *path, err *e) {
    const char *s = *p;
    *n = 0;
    while (*s && *s != '\n') {
        if (*s == ' ' || *s == ',' || *s == '\t' || *s == '\r') {
            s++;
            continue;
        }
        char *end;
        long v = strtol(s, &end, 10);
        if (end == s || v < 0 || v > INT32_MAX)
            return err_set(e, ERR_INVALID, "%s: \"%.12s\" is not a token id; decimal numbers are expected", path, s);
        if (*n == cap) return err_set(e, ERR_TOO_LONG, "%s: more than %zu tokens in a line", path, cap);
        ids[(*n)++] = (int32_t)v;
        s = end;
    }
    *p = *s ? s + 1 : s;
    return ERR_OK;
}

static err_code write_rows(FILE *f, const float *x, size_t n, const char *path, err *e) {
    /* float32 little endian, whatever the machine's own order is */
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, x + i, 4);
        unsigned char b[4] = {(unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16),
                              (unsigned char)(v >> 24)};
        if (fwrite(b, 1, 4, f) != 4) return err_errno(e, "%s: cannot be written", path);
    }
    return ERR_OK;
}

/* Rows are n_vocab wide; an encoder's are its hidden rows. */
static err_code logits_of(session *s, const int32_t *ids, size_t n, size_t step, FILE *f, const char *path, err *e) {
    int seq;
    err_code rc = session_seq_new(s, &seq, e);
    for (size_t at = 0; rc == ERR_OK && at < n; at += step) {
        uint32_t k = (uint32_t)(n - at < step ? n - at : step);
        chunk ch = {.seq = seq, .tokens = ids + at, .n = k, .n_logits = k};
        rc = session_step(s, &ch, 1, e);
        if (rc == ERR_OK) rc = write_rows(f, ch.logits, (size_t)k * session_width(s), path, e);
    }
    session_seq_free(s, seq);
    return rc;
}

err_code cli_kv(const cli *c, kv_format *out, err *e) {
    const char *name = cli_text(c, "kv", kv_format_name(KV_F16));
    if (kv_format_parse(out, name)) return ERR_OK;
    return err_set(e, ERR_USAGE, "--kv %s: keys and values are held as f16 or as q8", name);
}

static err_code run_logits(cli *c, err *e) {
    enum { MAX_TOKENS = 1 << 20 };
    const char *tokens = cli_text(c, "tokens", NULL), *path = cli_text(c, "out", NULL);
    if (!tokens || !path) return err_set(e, ERR_USAGE, "polder logits: give --tokens FILE and --out FILE");
    model *m = NULL;
    session *s = NULL;
    FILE *f = NULL;
    buf text = {.max = 64u << 20};
    int32_t *ids = mem_array(MAX_TOKENS, sizeof *ids);
    size_t step = (size_t)cli_int(c, "chunk", 512);
    err_code rc = ids ? ERR_OK : err_nomem(e, "token ids");
    if (rc == ERR_OK) rc = file_read(&text, tokens, e);
    if (rc == ERR_OK) rc = model_open(&m, c->args[0], e);
    session_options o = {
        .n_threads = (unsigned)cli_int(c, "threads", 0), .n_seq_max = 1, .max_step_tokens = (uint32_t)step};
    if (rc == ERR_OK) rc = cli_kv(c, &o.kv, e);
    if (rc == ERR_OK) rc = session_new(&s, m, &o, e);
    if (rc == ERR_OK && !(f = fopen(path, "wbe"))) rc = err_errno(e, "%s: cannot be created", path);
    const char *p = buf_str(&text);
    while (rc == ERR_OK && *p) {
        size_t n;
        rc = parse_line(&p, ids, MAX_TOKENS, &n, tokens, e);
        if (rc == ERR_OK && n) rc = logits_of(s, ids, n, step, f, path, e);
    }
    if (f && fclose(f) != 0 && rc == ERR_OK) rc = err_errno(e, "%s: cannot be written", path);
    if (f && rc) remove(path); /* nothing half done is left */
    session_free(s);
    model_free(m);
    mem_free(ids);
    buf_free(&text);
    return rc;
}

const command commands_engine[] = {
    {"tokenize",
     "FILE.gguf",
     1,
     1,
     "Text on stdin, one JSON array of token ids on stdout",
     NULL,
     run_tokenize,
     {{OPT_FLAG, "special", NULL, 0, 0, "read <|…|> in the text as special tokens"},
      {OPT_FLAG, "no-bos", NULL, 0, 0, "leave out what the model's file adds at begin and end"}}},
    {"logits",
     "FILE.gguf --tokens FILE --out FILE",
     1,
     1,
     "Logits of every position: float32, positions x vocabulary",
     "Each line of the token file is a prompt of its own; rows of all prompts follow one another. The bits do not\n"
     "depend on --chunk, --threads or POLDER_ISA.",
     run_logits,
     {{OPT_TEXT, "tokens", "FILE", 0, 0, "token ids in decimal, one prompt a line"},
      {OPT_TEXT, "out", "FILE", 0, 0, "float32, little endian"},
      {OPT_INT, "chunk", "N", 1, 65536, "tokens in one step (default 512)"},
      {OPT_TEXT, "kv", "f16|q8", 0, 0, "how keys and values are held (default f16)"},
      {OPT_INT, "threads", "N", 1, 1024, "default: all CPUs this process may use"}}},
    {"bench",
     "[MODEL]",
     0,
     1,
     "Prompt, decode and batch speed of a model beside what this machine can do",
     "MODEL is a file or a model of the island. Memory bandwidth and the rate of products in registers are measured in "
     "the\n"
     "same run: decoding reads every weight once a token and cannot pass the first, a prompt cannot pass the second.\n"
     "Without MODEL only the machine is measured.\n"
     "  polder bench file.gguf --threads 2        polder --island var/island --json bench chat",
     run_bench,
     {{OPT_INT, "pp", "N", 1, 1048576, "tokens of the prompt (default 512)"},
      {OPT_INT, "tg", "N", 1, 1048576, "tokens to generate after it (default 64)"},
      {OPT_INT, "batch", "N", 0, CLI_BENCH_BATCH_MAX, "sequences decoded together (default 16; 0: leave that out)"},
      {OPT_TEXT, "kv", "f16|q8", 0, 0, "how keys and values are held (default f16)"},
      {OPT_INT, "threads", "N", 1, 1024, "default: all CPUs this process may use"},
      {OPT_INT, "rounds", "N", 3, CLI_BENCH_ROUNDS_MAX, "medians of so many (default 3)"}}},
    {0},
};
