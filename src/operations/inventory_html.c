/* The inventory as one page that a board can read and print: no script, nothing from outside, every foreign text
 * escaped. What is alarming stands on top; each state is a word and a colour. */
#include "operations/internal.h"

#include <stdio.h>
#include <string.h>

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<title>Inventory: what is kept and what is delegated</title>\n<style>\n"
    "@page{size:A4 landscape;margin:12mm}\n"
    "body{font:10pt/1.35 system-ui,sans-serif;color:#111;background:#fff;margin:1.5rem;max-width:80rem}\n"
    "h1{font-size:16pt}h2{font-size:12pt;margin-top:1.6em;break-after:avoid}\n"
    "table{border-collapse:collapse;width:100%;margin:.6em 0 1.4em}\n"
    "caption{text-align:left;padding:.3em 0}\n"
    "th,td{border:1px solid #777;padding:.25em .45em;text-align:left;vertical-align:top;overflow-wrap:anywhere}\n"
    "thead{display:table-header-group}tr{break-inside:avoid}\n"
    "thead th{background:#eee}td p{margin:.3em 0}.n{text-align:right}\n"
    ".kept{background:#dff3df}.delegated{background:#fde3c8}.both{background:#fdf3cf}.none{background:#f1f1f1}\n"
    ".alarm{border:3px solid #a40000;padding:.4em 1em;margin:1em 0}.alarm h2{color:#a40000;margin-top:.4em}\n"
    ".calm{border:2px solid #2c6e2c;padding:.4em 1em;margin:1em 0}\n"
    ".small{font-size:8.5pt;color:#333}code{font-family:ui-monospace,monospace;font-size:8.5pt;overflow-wrap:anywhere}"
    "\n"
    "@media print{body{margin:0;max-width:none}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}\n"
    "</style>\n</head>\n<body>\n<main>\n";

static void text(buf *out, const char *s) {
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

static void in(buf *out, const char *tag, const char *s) {
    buf_printf(out, "<%s>", tag);
    text(out, s);
    buf_printf(out, "</%s>", tag);
}

static double num(const cJSON *o, const char *key) {
    const cJSON *v = json_get(o, key);
    return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

/* "1,234,567" */
static void count(buf *out, double v) {
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%.0f", v);
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0) buf_putc(out, ',');
        buf_putc(out, digits[i]);
    }
}

/* A fact of whatever kind; "not known" where it is not. */
static void fact(buf *out, const cJSON *o, const char *key, const char *unit) {
    const cJSON *v = json_get(o, key);
    if (cJSON_IsString(v) && *v->valuestring)
        text(out, v->valuestring);
    else if (cJSON_IsNumber(v))
        buf_printf(out, "%.15g%s", v->valuedouble, unit);
    else if (cJSON_IsBool(v))
        buf_puts(out, cJSON_IsTrue(v) ? "yes" : "no");
    else
        buf_puts(out, "not known");
}

static void when(buf *out, const cJSON *o) {
    const cJSON *a = json_get(o, "first"), *b = json_get(o, "last");
    if (!a || !b) return;
    buf_printf(out, " <span class=\"small\">(records %.0f to %.0f, ", num(a, "record"), num(b, "record"));
    text(out, text_at(a, "time"));
    buf_puts(out, " to ");
    text(out, text_at(b, "time"));
    buf_puts(out, ")</span>");
}

/* ---- on top ------------------------------------------------------------------------------------------------ */

static void put_findings(buf *out, const cJSON *list) {
    const cJSON *f;
    if (!list || !list->child) {
        buf_puts(out,
                 "<div class=\"calm\"><p><strong>Nothing was seen that is not declared.</strong> Every request that "
                 "left in these records went to a declared provider, under the facts that are declared now.</p>"
                 "</div>\n");
        return;
    }
    buf_printf(out, "<div class=\"alarm\"><h2>Seen, and not declared: %d</h2>\n<ul>\n", cJSON_GetArraySize(list));
    cJSON_ArrayForEach(f, list) {
        double bytes = num(f, "bytes"), maybe = num(f, "may_have_left_bytes");
        buf_puts(out, "<li>");
        text(out, text_at(f, "text"));
        if (bytes > 0) {
            buf_puts(out, "; ");
            count(out, bytes);
            buf_puts(out, " bytes left");
        }
        if (maybe > 0) {
            buf_puts(out, "; ");
            count(out, maybe);
            buf_puts(out, " more may have");
        }
        when(out, f);
        buf_puts(out, "</li>\n");
    }
    buf_puts(out, "</ul></div>\n");
}

static void json_value(buf *out, const cJSON *v) {
    char *s = v && !cJSON_IsString(v) ? cJSON_PrintUnformatted(v) : NULL;
    if (!v || cJSON_IsNull(v))
        buf_puts(out, "<em>nothing</em>");
    else
        text(out, s ? s : cJSON_IsString(v) ? v->valuestring : "?");
    cJSON_free(s);
}

static void changes(buf *out, const cJSON *changed) {
    const cJSON *since = json_get(changed, "since"), *list = json_get(changed, "list"), *c;
    buf_puts(out, "<h2>Changed since the last inventory</h2>\n");
    if (!since) {
        buf_puts(out, "<p>No inventory was recorded before this one, so there is nothing to compare with.</p>\n");
        return;
    }
    buf_printf(out, "<p>Compared with record %.0f", num(since, "record"));
    if (*text_at(since, "time")) buf_puts(out, " of ");
    text(out, text_at(since, "time"));
    if (*text_at(changed, "why")) buf_puts(out, ": it cannot be read: ");
    text(out, text_at(changed, "why"));
    buf_puts(out, list && list->child ? ".</p>\n" : ". Nothing declared has changed.</p>\n");
    if (!list || !list->child) return;
    buf_puts(out, "<table><thead><tr><th scope=\"col\">what</th><th scope=\"col\">name</th><th scope=\"col\">fact</th>"
                  "<th scope=\"col\">was</th><th scope=\"col\">is</th></tr></thead>\n<tbody>\n");
    cJSON_ArrayForEach(c, list) {
        buf_puts(out, "<tr>");
        in(out, "td", text_at(c, "what"));
        in(out, "td", text_at(c, "name"));
        in(out, "td", text_at(c, "fact"));
        buf_puts(out, "<td>");
        json_value(out, json_get(c, "from"));
        buf_puts(out, "</td><td>");
        json_value(out, json_get(c, "to"));
        buf_puts(out, "</td></tr>\n");
    }
    buf_puts(out, "</tbody></table>\n");
}

/* ---- the table --------------------------------------------------------------------------------------------- */

static void open_cell(buf *out, const char *state) {
    const char *class = strcmp(state, "kept") == 0        ? "kept"
                        : strcmp(state, "delegated") == 0 ? "delegated"
                        : strcmp(state, "none") == 0      ? "none"
                                                          : "both";
    buf_printf(out, "<td class=\"%s\">", class);
    in(out, "strong", state);
}

static void labels(buf *out, const cJSON *list) {
    const cJSON *l;
    if (!list || !list->child) buf_puts(out, "the policy lets nothing reach it");
    cJSON_ArrayForEach(l, list) {
        buf_puts(out, l == list->child ? "the policy lets it see " : ", ");
        text(out, text_at(l, "label"));
        if (cJSON_IsTrue(json_get(l, "redacted"))) buf_puts(out, " (redacted)");
    }
}

static void cell_inference(buf *out, const cJSON *layer) {
    const cJSON *c;
    open_cell(out, text_at(layer, "state"));
    buf_puts(out, "<p class=\"small\">Declared:");
    cJSON_ArrayForEach(c, json_get(layer, "candidates")) {
        buf_puts(out, "<br>");
        text(out, text_at(c, "provider"));
        if (!cJSON_IsTrue(json_get(c, "inside"))) {
            buf_puts(out, ": ");
            fact(out, c, "operator", "");
            buf_puts(out, ", data in ");
            fact(out, c, "country", "");
            buf_puts(out, ", law of ");
            fact(out, c, "operator_law", "");
        }
        buf_puts(out, "; ");
        labels(out, json_get(c, "allowed_for"));
    }
    if (!json_get(layer, "candidates")->child) buf_puts(out, " nothing");
    buf_puts(out, "</p><p class=\"small\">Observed:");
    cJSON_ArrayForEach(c, json_get(layer, "observed")) {
        buf_puts(out, "<br>");
        text(out, text_at(c, "provider"));
        buf_puts(out, ": ");
        if (strcmp(text_at(c, "provider"), provider_facts_engine.name) == 0) {
            count(out, num(c, "answered"));
            buf_puts(out, " answers, nothing left");
        } else {
            count(out, num(c, "requests_left"));
            buf_puts(out, " requests, ");
            count(out, num(c, "bytes_sent"));
            buf_puts(out, " bytes left, ");
            count(out, num(c, "answered"));
            buf_puts(out, " answered");
        }
        if (!cJSON_IsTrue(json_get(c, "declared"))) buf_puts(out, " <strong>(not declared)</strong>");
    }
    if (!json_get(layer, "observed")->child) buf_puts(out, " nothing");
    buf_puts(out, "</p></td>");
}

static void cell_plain(buf *out, const cJSON *layer) {
    const cJSON *s;
    open_cell(out, text_at(layer, "state"));
    buf_puts(out, "<p class=\"small\">");
    text(out, text_at(layer, "text"));
    cJSON_ArrayForEach(s, json_get(layer, "suppliers")) {
        if (!*text_at(s, "hub")) continue;
        buf_puts(out, "<br>weights of ");
        text(out, text_at(s, "model"));
        buf_puts(out, " from ");
        text(out, text_at(s, "hub"));
        buf_puts(out, " ");
        text(out, text_at(s, "repository"));
    }
    buf_puts(out, "</p></td>");
}

static void workloads(buf *out, const cJSON *list) {
    static const char *const layers[] = {"data", "inference", "post-training", "evaluation", "audit", "operations"};
    const cJSON *x;
    buf_puts(out, "<h2>Workloads and layers</h2>\n<table>\n<caption>One row for each model name that programs may call."
                  "</caption>\n<thead><tr><th scope=\"col\">workload</th>");
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) buf_printf(out, "<th scope=\"col\">%s</th>", layers[i]);
    buf_puts(out, "</tr></thead>\n<tbody>\n");
    cJSON_ArrayForEach(x, list) {
        const cJSON *r = json_get(x, "requests"), *l = json_get(x, "layers");
        buf_puts(out, "<tr><th scope=\"row\">");
        text(out, text_at(x, "model"));
        if (!cJSON_IsTrue(json_get(x, "declared"))) buf_puts(out, "<br>(not declared)");
        buf_puts(out, "<p class=\"small\">");
        count(out, num(r, "admitted"));
        buf_puts(out, " requests admitted, ");
        count(out, num(r, "completed"));
        buf_puts(out, " completed, ");
        count(out, num(r, "failed"));
        buf_puts(out, " failed, ");
        count(out, num(r, "refused"));
        buf_puts(out, " refused by the policy</p></th>");
        for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
            (i == 1 ? cell_inference : cell_plain)(out, json_get(l, layers[i]));
        buf_puts(out, "</tr>\n");
    }
    if (!list || !list->child) buf_puts(out, "<tr><td colspan=\"7\">There is no model name yet.</td></tr>\n");
    buf_puts(out, "</tbody></table>\n");
}

/* ---- to whom ----------------------------------------------------------------------------------------------- */

static void seen_of(buf *out, const cJSON *destinations, const char *name) {
    const cJSON *d;
    bool any = false;
    cJSON_ArrayForEach(d, destinations) {
        if (strcmp(text_at(d, "provider"), name) != 0) continue;
        if (any) buf_puts(out, "<br>");
        any = true;
        count(out, num(d, "requests_left"));
        buf_puts(out, " requests, ");
        count(out, num(d, "bytes_sent"));
        buf_puts(out, " bytes to ");
        text(out, text_at(d, "host"));
        if (num(d, "may_have_left_requests") > 0) {
            buf_puts(out, "; ");
            count(out, num(d, "may_have_left_bytes"));
            buf_puts(out, " bytes more may have left");
        }
        when(out, d);
    }
    if (!any) buf_puts(out, "nothing");
}

static void providers(buf *out, const cJSON *v) {
    static const struct {
        const char *head, *key, *unit;
    } columns[] = {{"operator", "operator", ""},
                   {"data lie in", "country", ""},
                   {"law of operator", "operator_law", ""},
                   {"keeps it", "retention_days", " days"},
                   {"trains on it", "training", ""},
                   {"contract", "contract", ""},
                   {"certificates", "certificates", ""},
                   {"exit: what takes its place", "exit", ""}};
    const cJSON *p, *list = json_get(json_get(v, "declared"), "providers");
    buf_puts(out,
             "<h2>To whom</h2>\n<table>\n<caption>Declared facts, and beside them what the ledger shows.</caption>\n"
             "<thead><tr><th scope=\"col\">provider</th>");
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        buf_printf(out, "<th scope=\"col\">%s</th>", columns[i].head);
    buf_puts(out, "<th scope=\"col\">observed</th></tr></thead>\n<tbody>\n");
    cJSON_ArrayForEach(p, list) {
        if (strcmp(text_at(p, "name"), provider_facts_engine.name) == 0) continue;
        buf_puts(out, "<tr><th scope=\"row\">");
        text(out, text_at(p, "name"));
        buf_puts(out, cJSON_IsTrue(json_get(p, "inside")) ? "<br>(inside)</th>" : "<br>(outside)</th>");
        for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
            buf_puts(out, "<td>");
            fact(out, p, columns[i].key, columns[i].unit);
            buf_puts(out, "</td>");
        }
        buf_puts(out, "<td>");
        seen_of(out, json_get(v, "destinations"), text_at(p, "name"));
        buf_puts(out, "</td></tr>\n");
    }
    if (cJSON_GetArraySize(list) < 2) buf_puts(out, "<tr><td colspan=\"10\">No provider is declared.</td></tr>\n");
    buf_puts(out, "</tbody></table>\n");
}

static void summary(buf *out, const cJSON *v) {
    const cJSON *range = json_get(v, "range"), *left = json_get(json_get(v, "left"), "to_outside");
    buf_puts(out, "<h1>Inventory of ");
    text(out, text_at(v, "island"));
    buf_puts(out, "</h1>\n<p>Made ");
    text(out, text_at(v, "made"));
    buf_puts(out, " from ");
    count(out, num(range, "records"));
    buf_puts(out, " of ");
    count(out, num(range, "ledger_size"));
    buf_puts(out, " records of the ledger");
    when(out, range);
    buf_puts(out, ".</p>\n<p><strong>");
    count(out, num(left, "requests"));
    buf_puts(out, " requests with ");
    count(out, num(left, "bytes"));
    buf_puts(out, " bytes left the perimeter</strong> in these records");
    if (num(left, "may_have_left_requests") > 0) {
        buf_puts(out, "; ");
        count(out, num(left, "may_have_left_requests"));
        buf_puts(out, " more with up to ");
        count(out, num(left, "may_have_left_bytes"));
        buf_puts(out, " bytes may have, their outcome is not recorded");
    }
    buf_puts(out, ".</p>\n");
}

err_code inventory_html(const cJSON *v, buf *out, err *e) {
    buf_puts(out, head);
    summary(out, v);
    put_findings(out, json_get(v, "not_declared"));
    workloads(out, json_get(v, "workloads"));
    providers(out, v);
    changes(out, json_get(v, "changed"));
    buf_puts(out,
             "<h2>How to read this</h2>\n<p class=\"small\"><strong>Kept</strong>: done by this program, or by a "
             "server that the organisation declared to be inside its perimeter. <strong>Delegated</strong>: done by "
             "somebody else. <strong>None</strong>: nobody does it. <em>Declared</em> is what the organisation "
             "entered and answers for; <em>observed</em> is what the ledger shows in the records named above. The "
             "ledger can be checked by an outsider with the key <code>");
    text(out, text_at(v, "vkey"));
    buf_puts(out, "</code>.</p>\n</main>\n</body>\n</html>\n");
    return buf_check(out, "the page of an inventory", e);
}
