/* The grid: what a compliance officer reads and signs. One row for each level and set of flags, one column for each
 * provider, as JSON, CSV, and a page of HTML that prints on A4. */
#include "data/policy_internal.h"

#include <string.h>

enum { CSV_MAX = 4 << 20, COLUMNS = 6 /* of providers on one sheet */ };

typedef struct grid {
    const policy *p;
    const provider_facts *providers;
    size_t n;
    policy_table *t;
} grid;

/* The words to redact, joined; "" where there are none. */
static void redact_words(const grid *g, uint8_t level, size_t i, buf *out) {
    const char *said[64];
    size_t n = 0;
    for (const sentence *s = g->p->sentences; s; s = s->next) {
        if (!sentence_allows(s, level) || !s->redacts || !places_have(s->places, &g->providers[i], i == 0)) continue;
        for (const word_item *w = s->thing_words; w; w = w->next) {
            size_t k = 0;
            while (k < n && strcmp(said[k], w->s) != 0) k++;
            if (k < n) continue;
            if (n == sizeof said / sizeof said[0]) {
                buf_puts(out, ", and more");
                return;
            }
            said[n++] = w->s;
            buf_printf(out, "%s%s", n > 1 ? ", " : "", w->s);
        }
    }
}

static err_code grid_begin(grid *g, const policy *p, const provider_facts *providers, size_t n, err *e) {
    *g = (grid){.p = p, .providers = providers, .n = n};
    return policy_compile(&g->t, p, providers, n, e);
}

static void write_label(const grid *g, sensitivity v, buf *out) {
    char text[SENSITIVITY_TEXT];
    sensitivity_text(text, &g->p->labels, v);
    buf_puts(out, text);
}

/* ---- JSON -------------------------------------------------------------------------------------------------- */

static bool json_cell(const grid *g, cJSON *cells, sensitivity v, size_t i) {
    bool yes = policy_allowed(g->t, v) >> i & 1;
    cJSON *o = cJSON_CreateObject();
    if (!o || !cJSON_AddItemToArray(cells, o) || !cJSON_AddStringToObject(o, "provider", g->providers[i].name) ||
        !cJSON_AddBoolToObject(o, "allowed", yes))
        return false;
    return !yes || report_redact(o, "redact", g->p, v.level, &g->providers[i], i == 0);
}

static bool json_row(const grid *g, cJSON *rows, sensitivity v) {
    cJSON *o = cJSON_CreateObject();
    if (!o || !cJSON_AddItemToArray(rows, o) || !report_label(o, g->p, v) ||
        !cJSON_AddStringToObject(o, "level", g->p->labels.name[v.level]))
        return false;
    cJSON *flags = cJSON_AddArrayToObject(o, "flags");
    for (unsigned f = 0; flags && f < FLAGS_N; f++)
        if (v.flags >> f & 1 && !report_add_str(flags, flag_name(1u << f))) return false;
    cJSON *cells = flags ? cJSON_AddArrayToObject(o, "cells") : NULL;
    bool ok = cells != NULL;
    for (size_t i = 0; ok && i < g->n; i++) ok = json_cell(g, cells, v, i);
    return ok;
}

static bool json_all(const grid *g, cJSON *o) {
    char hex[SHA256_HEX_LEN + 1];
    hex_encode(hex, g->p->digest, SHA256_LEN);
    bool ok = o && cJSON_AddStringToObject(o, "digest", hex);
    cJSON *list = ok ? cJSON_AddArrayToObject(o, "providers") : NULL;
    ok = list != NULL;
    for (size_t i = 0; ok && i < g->n; i++) {
        cJSON *f = cJSON_CreateObject();
        ok = f && cJSON_AddItemToArray(list, f) && report_facts(f, &g->providers[i]);
    }
    cJSON *rows = ok ? cJSON_AddArrayToObject(o, "rows") : NULL;
    ok = rows != NULL;
    for (uint8_t level = 0; ok && level < g->p->labels.n; level++)
        for (unsigned flags = 0; ok && flags <= FLAGS_ALL; flags++)
            ok = json_row(g, rows, (sensitivity){.level = level, .flags = (uint8_t)flags});
    return ok;
}

err_code policy_grid_json(const policy *p, const provider_facts *providers, size_t n, cJSON **out, err *e) {
    grid g;
    *out = NULL;
    err_code rc = grid_begin(&g, p, providers, n, e);
    if (rc) return rc;
    cJSON *o = cJSON_CreateObject();
    bool ok = json_all(&g, o);
    policy_table_free(g.t);
    if (!ok) {
        cJSON_Delete(o);
        return err_nomem(e, "a grid");
    }
    *out = o;
    return ERR_OK;
}

/* ---- CSV (RFC 4180) ---------------------------------------------------------------------------------------- */

/* What begins like a formula would be run by a spreadsheet. */
static void csv_text(buf *out, const char *s) {
    buf_putc(out, '"');
    if (strchr("=+-@\t\r", *s) && *s) buf_putc(out, '\'');
    for (; *s; s++) {
        if (*s == '"') buf_putc(out, '"');
        buf_putc(out, *s);
    }
    buf_putc(out, '"');
}

static void csv_row(const grid *g, sensitivity v, const char *digest, buf *cell, buf *out) {
    write_label(g, v, cell);
    csv_text(out, buf_str(cell));
    for (size_t i = 0; i < g->n; i++) {
        buf_reset(cell);
        if (policy_allowed(g->t, v) >> i & 1) {
            buf_puts(cell, "yes");
            size_t before = cell->len;
            buf_puts(cell, ", after redact ");
            size_t words = cell->len;
            redact_words(g, v.level, i, cell);
            if (cell->len == words && !cell->failed) cell->ptr[cell->len = before] = 0;
        } else {
            buf_puts(cell, "no");
        }
        buf_putc(out, ',');
        csv_text(out, buf_str(cell));
    }
    buf_putc(out, ',');
    csv_text(out, digest);
    buf_puts(out, "\r\n");
    buf_reset(cell);
}

err_code policy_grid_csv(const policy *p, const provider_facts *providers, size_t n, buf *out, err *e) {
    grid g;
    err_code rc = grid_begin(&g, p, providers, n, e);
    if (rc) return rc;
    char hex[SHA256_HEX_LEN + 1];
    hex_encode(hex, p->digest, SHA256_LEN);
    buf cell = {.max = CSV_MAX};
    csv_text(out, "label");
    for (size_t i = 0; i < n; i++) {
        buf_putc(out, ',');
        csv_text(out, providers[i].name);
    }
    buf_puts(out, ",\"policy (SHA-256)\"\r\n");
    for (uint8_t level = 0; level < p->labels.n; level++)
        for (unsigned flags = 0; flags <= FLAGS_ALL; flags++)
            csv_row(&g, (sensitivity){.level = level, .flags = (uint8_t)flags}, hex, &cell, out);
    policy_table_free(g.t);
    rc = buf_check(&cell, "the grid", e);
    buf_free(&cell);
    return rc ? rc : buf_check(out, "the grid", e);
}

/* ---- HTML -------------------------------------------------------------------------------------------------- */

static void html_text(buf *out, const char *s) {
    buf clean = {.max = strlen(s) * 4 + 16};
    text_sanitise(&clean, s, strlen(s), false);
    for (const char *p = buf_str(&clean); *p; p++) switch (*p) {
        case '&': buf_puts(out, "&amp;"); break;
        case '<': buf_puts(out, "&lt;"); break;
        case '>': buf_puts(out, "&gt;"); break;
        case '"': buf_puts(out, "&quot;"); break;
        case '\'': buf_puts(out, "&#39;"); break;
        default: buf_putc(out, *p);
        }
    if (clean.failed) out->failed = true;
    buf_free(&clean);
}

static const char html_head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<title>Policy: what may leave, and to whom</title>\n<style>\n"
    "@page{size:A4 landscape;margin:12mm}\n"
    "body{font:10pt/1.35 system-ui,sans-serif;color:#111;background:#fff;margin:1.5rem;max-width:75rem}\n"
    "h1{font-size:16pt}h2{font-size:12pt;margin-top:1.6em;break-after:avoid}\n"
    "table{border-collapse:collapse;width:100%;margin:.6em 0 1.4em}\n"
    "caption{text-align:left;font-weight:600;padding:.3em 0}\n"
    "th,td{border:1px solid #777;padding:.2em .45em;text-align:left;vertical-align:top}\n"
    "thead{display:table-header-group}tr{break-inside:avoid}\n"
    "thead th{background:#eee}tbody th{font-weight:500}\n"
    ".yes{background:#dff3df}.redact{background:#fdf3cf}.no{color:#555}\n"
    ".level{border-top:2.5px solid #333}\n"
    "code,pre,td.line{font-family:ui-monospace,monospace;font-size:9pt}td.line{white-space:pre-wrap}\n"
    ".digest{overflow-wrap:anywhere}.sign td{height:3em;border-width:0 0 1px}.sign th{border:0;width:14em}\n"
    "@media print{body{margin:0;max-width:none}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}\n"
    "</style>\n</head>\n<body>\n<main>\n";

static void html_cell(const grid *g, sensitivity v, size_t i, buf *words, buf *out) {
    if (!(policy_allowed(g->t, v) >> i & 1)) {
        buf_puts(out, "<td class=\"no\">no</td>");
        return;
    }
    buf_reset(words);
    redact_words(g, v.level, i, words);
    buf_puts(out, words->len ? "<td class=\"redact\"><strong>yes</strong>, after redacting "
                             : "<td class=\"yes\"><strong>yes</strong>");
    html_text(out, buf_str(words));
    buf_puts(out, "</td>");
}

/* The columns [from, to) of the grid. */
static void html_sheet(const grid *g, size_t from, size_t to, buf *words, buf *out) {
    buf_puts(out, "<table>\n<caption>May a request with this label be answered by this provider?</caption>\n<thead><tr>"
                  "<th scope=\"col\">label of the request</th>");
    for (size_t i = from; i < to; i++) {
        buf_puts(out, "<th scope=\"col\">");
        html_text(out, g->providers[i].name);
        buf_puts(out, g->providers[i].inside || !i ? "<br>(inside)</th>" : "<br>(outside)</th>");
    }
    buf_puts(out, "</tr></thead>\n<tbody>\n");
    for (uint8_t level = 0; level < g->p->labels.n; level++)
        for (unsigned flags = 0; flags <= FLAGS_ALL; flags++) {
            sensitivity v = {.level = level, .flags = (uint8_t)flags};
            buf_puts(out, flags ? "<tr><th scope=\"row\">" : "<tr class=\"level\"><th scope=\"row\">");
            write_label(g, v, out);
            buf_puts(out, "</th>");
            for (size_t i = from; i < to; i++) html_cell(g, v, i, words, out);
            buf_puts(out, "</tr>\n");
        }
    buf_puts(out, "</tbody>\n</table>\n");
}

static void html_fact(buf *out, const char *s) {
    buf_puts(out, "<td>");
    html_text(out, *s ? s : "not known");
    buf_puts(out, "</td>");
}

static void html_providers(const grid *g, buf *out) {
    buf_puts(out, "<h2>The providers as they are declared</h2>\n<table>\n<caption>A fact that is not known keeps a "
                  "provider out of every zone that asks for it.</caption>\n<thead><tr>");
    static const char *const heads[] = {"provider",    "driver",       "inside",   "operator", "law of operator",
                                        "data lie in", "trains on it", "keeps it", "contract", "certificates"};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) buf_printf(out, "<th scope=\"col\">%s</th>", heads[i]);
    buf_puts(out, "</tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < g->n; i++) {
        const provider_facts *f = &g->providers[i];
        buf_puts(out, "<tr><th scope=\"row\">");
        html_text(out, f->name);
        buf_puts(out, "</th>");
        html_fact(out, f->driver);
        html_fact(out, f->inside || !i ? "yes" : "no");
        html_fact(out, f->operator_name);
        html_fact(out, f->operator_law);
        html_fact(out, f->country);
        html_fact(out, f->training < 0 ? "" : f->training ? "yes" : "no");
        if (f->retention_days < 0)
            html_fact(out, "");
        else
            buf_printf(out, "<td>%d day%s</td>", f->retention_days, f->retention_days == 1 ? "" : "s");
        html_fact(out, f->contract);
        html_fact(out, f->certificates);
        buf_puts(out, "</tr>\n");
    }
    buf_puts(out, "</tbody>\n</table>\n");
}

/* The text as it is signed, comments included, with the numbers of its lines. */
static void html_policy(const grid *g, buf *out) {
    buf_puts(out, "<h2>The sentences</h2>\n<table>\n<caption>The policy, line by line</caption>\n<thead><tr>"
                  "<th scope=\"col\">line</th><th scope=\"col\">text</th></tr></thead>\n<tbody>\n");
    buf line = {.max = POLICY_BYTES_MAX + 1};
    unsigned number = 1;
    const char *end = g->p->text + g->p->n;
    for (const char *p = g->p->text; p < end; number++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((stop ? stop : end) - p);
        buf_reset(&line);
        buf_append(&line, p, n && p[n - 1] == '\r' ? n - 1 : n);
        buf_printf(out, "<tr><th scope=\"row\">%u</th><td class=\"line\">", number);
        html_text(out, buf_str(&line));
        buf_puts(out, "</td></tr>\n");
        p = stop ? stop + 1 : end;
    }
    if (line.failed) out->failed = true;
    buf_free(&line);
    buf_puts(out, "</tbody>\n</table>\n");
}

static void html_sign(buf *out) {
    buf_puts(out, "<h2>Signed</h2>\n<table class=\"sign\">\n<tbody>\n");
    static const char *const lines[] = {"Name", "Role", "Place and date", "Signature"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        buf_printf(out, "<tr><th scope=\"row\">%s</th><td></td></tr>\n", lines[i]);
    buf_puts(out, "</tbody>\n</table>\n</main>\n</body>\n</html>\n");
}

err_code policy_grid_html(const policy *p, const provider_facts *providers, size_t n, buf *out, err *e) {
    grid g;
    err_code rc = grid_begin(&g, p, providers, n, e);
    if (rc) return rc;
    char hex[SHA256_HEX_LEN + 1];
    hex_encode(hex, p->digest, SHA256_LEN);
    buf words = {.max = CSV_MAX};
    buf_puts(out, html_head);
    buf_puts(out, "<h1>Policy: what may leave, and to whom</h1>\n<p>What is not marked \"yes\" is refused. A request "
                  "carries one level and any of the marks beside it; it goes only to a provider that its row "
                  "allows.</p>\n");
    buf_printf(out, "<p class=\"digest\">SHA-256 of this policy, by which every record names it: <code>%s</code></p>\n",
               hex);
    for (size_t from = 0; from < n || !from; from += COLUMNS)
        html_sheet(&g, from, from + COLUMNS < n ? from + COLUMNS : n, &words, out);
    html_providers(&g, out);
    html_policy(&g, out);
    html_sign(out);
    policy_table_free(g.t);
    rc = buf_check(&words, "the grid", e);
    buf_free(&words);
    return rc ? rc : buf_check(out, "the grid", e);
}
