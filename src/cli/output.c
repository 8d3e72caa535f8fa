/* Options by name, output, progress. */
#include "cli/cli.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *given(const cli *c, const char *name) {
    for (int i = 0; c->cmd->opts[i].kind != OPT_END; i++)
        if (strcmp(c->cmd->opts[i].name, name) == 0) return c->given[i];
    abort(); /* the command asks for an option that its table lacks */
}

bool cli_flag(const cli *c, const char *name) {
    return given(c, name) != NULL;
}
const char *cli_text(const cli *c, const char *name, const char *def) {
    const char *s = given(c, name);
    return s ? s : def;
}
int64_t cli_int(const cli *c, const char *name, int64_t def) {
    const char *s = given(c, name);
    return s ? strtoll(s, NULL, 10) : def;
}
double cli_num(const cli *c, const char *name, double def) {
    const char *s = given(c, name);
    return s ? strtod(s, NULL) : def;
}

err_code cli_print_text(const char *s, size_t n, err *e) {
    if (n && fwrite(s, 1, n, stdout) != n) return err_set(e, ERR_IO, "standard output could not be written");
    return ERR_OK;
}

err_code cli_print_json(cJSON *v, err *e) {
    char *text = v ? cJSON_PrintUnformatted(v) : NULL;
    cJSON_Delete(v);
    if (!text) return err_nomem(e, "output");
    err_code rc = cli_print_text(text, strlen(text), e);
    cJSON_free(text);
    return rc ? rc : cli_print_text("\n", 1, e);
}

err_code cli_print_foreign(const char *s, size_t n, err *e) {
    if (!isatty(STDOUT_FILENO)) return cli_print_text(s, n, e);
    buf b = {.max = n * 4 + 16};
    text_sanitise(&b, s, n, true);
    err_code rc = buf_check(&b, "output", e);
    if (rc == ERR_OK) rc = cli_print_text(buf_str(&b), b.len, e);
    buf_free(&b);
    return rc;
}

void cli_say(const char *fmt, ...) {
    buf raw = {.max = 65536}, clean = {.max = 262144};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&raw, fmt, ap);
    va_end(ap);
    text_sanitise(&clean, buf_str(&raw), strlen(buf_str(&raw)), true);
    fprintf(stderr, "%s\n", buf_str(&clean));
    buf_free(&raw);
    buf_free(&clean);
}

bool cli_colour(int fd) {
    const char *no = getenv("NO_COLOR");
    return isatty(fd) && !(no && *no);
}

err_code cli_read_stdin(buf *out, err *e) {
    char piece[16384];
    size_t k;
    while ((k = fread(piece, 1, sizeof piece, stdin)) > 0) {
        buf_append(out, piece, k);
        if (out->failed) return buf_check(out, "standard input", e);
    }
    if (ferror(stdin)) return err_set(e, ERR_IO, "standard input could not be read");
    buf_append(out, "", 0);
    return buf_check(out, "standard input", e);
}

void progress_begin(progress *p, const char *what) {
    *p = (progress){.what = what, .started_ns = time_mono_ns(), .on = isatty(STDERR_FILENO)};
}

/* Whether it is time for another line, and the seconds that are left. */
static bool progress_due(progress *p, uint64_t done, uint64_t total, double *left) {
    uint64_t now = time_mono_ns();
    if (!p->on || now - p->printed_ns < 200000000u || !total) return false;
    p->printed_ns = now;
    double spent = (double)(now - p->started_ns) / 1e9;
    *left = done ? spent * (double)(total - done) / (double)done : 0;
    return true;
}

int progress_step(void *ctx, uint64_t done, uint64_t total) {
    progress *p = ctx;
    double left;
    if (!progress_due(p, done, total, &left)) return 0;
    fprintf(stderr, "\r%s: %.1f of %.1f MB, %.0f s left \033[K", p->what, (double)done / 1e6, (double)total / 1e6,
            left);
    return 0;
}

void progress_count(progress *p, uint64_t done, uint64_t total, const char *things) {
    double left;
    if (!progress_due(p, done, total, &left)) return;
    fprintf(stderr, "\r%s: %llu of %llu %s, %.0f s left \033[K", p->what, (unsigned long long)done,
            (unsigned long long)total, things, left);
}

void progress_end(progress *p) {
    if (p->on && p->printed_ns) fputs("\r\033[K", stderr);
}
