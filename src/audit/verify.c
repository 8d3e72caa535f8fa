#include "audit/verify.h"

#include <stdarg.h>
#include <string.h>

void report_init(verify_report *r) {
    *r = (verify_report){.text = {.max = 256u << 10}};
}

__attribute__((format(printf, 2, 0))) static void add_line(verify_report *r, const char *fmt, va_list ap) {
    buf line = {.max = 4096};
    buf_vprintf(&line, fmt, ap);
    text_sanitise(&r->text, buf_str(&line), strlen(buf_str(&line)), false);
    buf_putc(&r->text, '\n');
    if (line.failed && !line.over_max) r->text.failed = true;
    buf_free(&line);
}

void problem(verify_report *r, const char *fmt, ...) {
    if (++r->problems > PROBLEM_LINES) return;
    va_list ap;
    va_start(ap, fmt);
    add_line(r, fmt, ap);
    va_end(ap);
}

void remark(verify_report *r, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    add_line(r, fmt, ap);
    va_end(ap);
}

err_code report_result(const verify_report *r, const char *what, err *e) {
    if (r->problems) {
        const char *text = buf_str(&r->text);
        return err_set(e, ERR_NO, "%s: %llu problem%s; the first: %.*s", what, (unsigned long long)r->problems,
                       r->problems == 1 ? "" : "s", (int)strcspn(text, "\n"), text);
    }
    return r->text.failed ? err_nomem(e, "the report") : ERR_OK;
}
