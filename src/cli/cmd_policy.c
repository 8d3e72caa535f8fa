/* policy check|explain|table|diff|test|prove|show|activate: reading, questioning and changing what may leave. */
#include "cli/cli.h"

#include "base/mem.h"

#include <string.h>
#include <unistd.h>

/* ---- what the questions are asked of ----------------------------------------------------------------------- */

/* The island's labels, detector, policy in force and providers; where there is no island, the defaults and the engine
 * alone, so that a policy in a repository can be checked anywhere. */
typedef struct world {
    policy_world w;
    island *i; /* NULL: no island */
    policy *from_file;
    const policy *p; /* what is asked about: of the file, or in force */
    const char *name;
} world;

static err_code open_defaults(world *w, err *e) {
    buf text = {.max = POLICY_BYTES_MAX};
    err_code rc = label_set_parse(&w->w.labels, LABELS_DEFAULT, e);
    if (rc == ERR_OK) rc = detector_new(&w->w.detector, NULL, 0, NULL, e);
    if (rc == ERR_OK) policy_default_text(&w->w.labels, &text);
    if (rc == ERR_OK) rc = buf_check(&text, "the default policy", e);
    if (rc == ERR_OK)
        rc = policy_parse(&w->w.active, &w->w.labels, w->w.detector, buf_str(&text), text.len, "policy", e);
    w->w.providers[0] = provider_facts_engine;
    w->w.n_providers = 1;
    buf_free(&text);
    return rc;
}

static err_code read_policy(const world *w, const char *path, policy **out, err *e) {
    buf text = {.max = POLICY_BYTES_MAX};
    bool in = strcmp(path, "-") == 0;
    err_code rc = in ? cli_read_stdin(&text, e) : file_read(&text, path, e);
    if (rc == ERR_OK)
        rc = policy_parse(out, &w->w.labels, w->w.detector, buf_str(&text), text.len, in ? "stdin" : path, e);
    buf_free(&text);
    return rc;
}

/* `path` NULL: the policy in force. */
static err_code world_open(world *w, cli *c, const char *path, err *e) {
    *w = (world){.name = path ? path : "the policy in force"};
    err_code rc = island_open(&w->i, c->dir, ISLAND_READ, e);
    if (rc == ERR_NOT_FOUND && path) {
        cli_say("no island at %s: read with the levels %s, and no provider but the engine", c->dir, LABELS_DEFAULT);
        rc = open_defaults(w, e);
    } else if (rc == ERR_OK) {
        rc = policy_world_open(&w->w, w->i, e);
    }
    if (rc == ERR_OK && path) rc = read_policy(w, path, &w->from_file, e);
    w->p = path ? w->from_file : w->w.active;
    return rc;
}

static void world_close(world *w) {
    policy_free(w->from_file);
    policy_world_close(&w->w);
    island_close(w->i);
}

static void print_digest(const policy *p, char hex[SHA256_HEX_LEN + 1]) {
    uint8_t digest[SHA256_LEN];
    policy_digest(p, digest);
    hex_encode(hex, digest, SHA256_LEN);
}

/* ---- printing ---------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *o, const char *key) {
    const char *s = "";
    json_get_str(o, key, &s, NULL);
    return s ? s : "";
}

/* Foreign text on stdout; control characters go. */
static void put(const char *s) {
    buf b = {.max = 1u << 20};
    text_sanitise(&b, s, strlen(s), false);
    fputs(buf_str(&b), stdout);
    buf_free(&b);
}

static void put_cell(const char *s, int width) {
    buf b = {.max = 8192};
    text_sanitise(&b, s, strlen(s), false);
    printf("%-*s  ", width, buf_str(&b));
    buf_free(&b);
}

/* "a, b, c" of an array of texts. */
static void put_words(const cJSON *list) {
    const cJSON *v;
    cJSON_ArrayForEach(v, list) {
        if (v != list->child) fputs(", ", stdout);
        put(v->valuestring);
    }
}

/* " (line 3)", " (lines 3, 5)" */
static void put_lines(const cJSON *o) {
    const cJSON *list = json_get(o, "lines"), *v;
    if (!list || !list->child) return;
    printf(list->child->next ? " (lines " : " (line ");
    cJSON_ArrayForEach(v, list) printf("%s%d", v == list->child ? "" : ", ", v->valueint);
    printf(")");
}

static int line_of(const cJSON *o) {
    const cJSON *v = json_get(o, "line");
    return v ? v->valueint : 0;
}

/* ---- check ------------------------------------------------------------------------------------------------- */

static err_code run_check(cli *c, err *e) {
    world w;
    cJSON *remarks = NULL;
    err_code rc = world_open(&w, c, c->n_args ? c->args[0] : NULL, e);
    if (rc == ERR_OK) rc = policy_remarks(w.p, w.w.providers, w.w.n_providers, &remarks, e);
    if (rc == ERR_OK) {
        char hex[SHA256_HEX_LEN + 1];
        print_digest(w.p, hex);
        if (c->json) {
            cJSON *o = cJSON_CreateObject();
            if (o) cJSON_AddStringToObject(o, "digest", hex);
            if (o && cJSON_AddItemToObject(o, "remarks", remarks)) remarks = NULL;
            rc = cli_print_json(o, e);
        } else {
            const cJSON *r;
            cJSON_ArrayForEach(r, remarks) {
                put(w.name);
                if (line_of(r)) printf(":%d", line_of(r));
                fputs(": ", stdout);
                put(text_of(r, "text"));
                putchar('\n');
            }
            printf("ok: every sentence is understood; SHA-256 %s\n", hex);
        }
    }
    cJSON_Delete(remarks);
    world_close(&w);
    return rc;
}

/* ---- explain ----------------------------------------------------------------------------------------------- */

static err_code read_found(const world *w, const char *words, entity_set *out, err *e) {
    for (const char *p = words; p && *p;) {
        size_t n = strcspn(p, ",");
        const char *next = p + n + (p[n] == ',');
        while (n && *p == ' ') p++, n--;
        while (n && p[n - 1] == ' ') n--;
        entity_set one = {{0}};
        if (!detector_find(w->w.detector, p, n, &one))
            return err_set(e, ERR_USAGE,
                           "--found: \"%.*s\" is no entity, group or flag; entities are words as iban, email, health, "
                           "groups as national-id, flags as personal",
                           n > 60 ? 60 : (int)n, p);
        out->bits[0] |= one.bits[0];
        out->bits[1] |= one.bits[1];
        p = next;
    }
    return ERR_OK;
}

static bool is_in(const cJSON *list, const char *provider) {
    const cJSON *o;
    cJSON_ArrayForEach(o, list) if (strcmp(text_of(o, "provider"), provider) == 0) return true;
    return false;
}

/* "candidates": those of the model's name, in their order, each with whether it is allowed. A name without any means
 * the engine. */
static err_code add_candidates(const world *w, const char *name, cJSON *out, err *e) {
    cJSON *routes = NULL, *list = cJSON_AddArrayToObject(out, "candidates");
    err_code rc = list ? ERR_OK : err_nomem(e, "output");
    if (rc == ERR_OK && w->i) rc = route_list(w->i, &routes, e);
    const cJSON *route, *candidates = NULL, *k;
    cJSON_ArrayForEach(route, json_get(routes, "routes")) {
        if (strcmp(text_of(route, "model"), name) == 0) candidates = json_get(route, "candidates");
    }
    const cJSON *allowed = json_get(out, "allowed");
    bool ok = true;
    for (k = candidates ? candidates->child : NULL; rc == ERR_OK && ok && (k || !candidates); k = k ? k->next : NULL) {
        cJSON *o = cJSON_CreateObject();
        const char *provider = k ? text_of(k, "provider") : provider_facts_engine.name;
        ok = o && cJSON_AddItemToArray(list, o) && cJSON_AddStringToObject(o, "provider", provider) &&
             cJSON_AddStringToObject(o, "model", k ? text_of(k, "model") : name) &&
             cJSON_AddBoolToObject(o, "allowed", is_in(allowed, provider));
        if (!k) break;
    }
    cJSON_Delete(routes);
    return rc ? rc : ok ? ERR_OK : err_nomem(e, "output");
}

static void print_explanation(const cJSON *o) {
    const cJSON *v, *candidates = json_get(o, "candidates");
    printf("label     ");
    put(text_of(o, "label"));
    putchar('\n');
    cJSON_ArrayForEach(v, json_get(o, "raised_by")) {
        printf("          ");
        put(v->valuestring);
        putchar('\n');
    }
    cJSON_ArrayForEach(v, json_get(o, "allowed")) {
        printf("allowed   ");
        put_cell(text_of(v, "provider"), 16);
        const cJSON *redact = json_get(v, "redact");
        if (redact && redact->child) {
            printf("after redacting ");
            put_words(redact);
        } else {
            printf("as it is");
        }
        put_lines(v);
        putchar('\n');
    }
    cJSON_ArrayForEach(v, json_get(o, "rejected")) {
        printf("rejected  ");
        put_cell(text_of(v, "provider"), 16);
        put(text_of(v, "why"));
        putchar('\n');
    }
    cJSON_ArrayForEach(v, candidates) {
        printf("%s ", v == candidates->child ? "candidates" : "          ");
        put_cell(text_of(v, "provider"), 15);
        put(text_of(v, "model"));
        printf(cJSON_IsTrue(json_get(v, "allowed")) ? ": may be tried\n" : ": never tried\n");
    }
    printf("sentences\n");
    cJSON_ArrayForEach(v, json_get(o, "lines")) {
        printf("  %4d    ", line_of(v));
        put(text_of(v, "text"));
        putchar('\n');
    }
}

static err_code run_explain(cli *c, err *e) {
    world w;
    cJSON *out = NULL;
    sensitivity start = {0};
    bool has_level = false;
    entity_set found = {{0}};
    const char *label = cli_text(c, "label", NULL), *name = cli_text(c, "model", NULL);
    err_code rc = world_open(&w, c, c->n_args ? c->args[0] : NULL, e);
    if (rc == ERR_OK && label) {
        rc = sensitivity_declare(&start, &has_level, &w.w.labels, label, e);
        if (rc == ERR_INVALID && e) rc = e->code = ERR_USAGE; /* it is an option here */
    }
    if (rc == ERR_OK) rc = read_found(&w, cli_text(c, "found", NULL), &found, e);
    if (rc == ERR_OK)
        rc = policy_explain(w.p, w.w.providers, w.w.n_providers, start, has_level, &found,
                            cli_flag(c, "detector-error"), &out, e);
    if (rc == ERR_OK && name) rc = add_candidates(&w, name, out, e);
    if (rc == ERR_OK && c->json) {
        rc = cli_print_json(out, e);
        out = NULL;
    } else if (rc == ERR_OK) {
        print_explanation(out);
    }
    cJSON_Delete(out);
    world_close(&w);
    return rc;
}

/* ---- table ------------------------------------------------------------------------------------------------- */

static void print_grid(const cJSON *o) {
    const cJSON *p, *row, *cell;
    put_cell("LABEL", 48);
    cJSON_ArrayForEach(p, json_get(o, "providers")) put_cell(text_of(p, "name"), 12);
    putchar('\n');
    cJSON_ArrayForEach(row, json_get(o, "rows")) {
        put_cell(text_of(row, "label"), 48);
        cJSON_ArrayForEach(cell, json_get(row, "cells")) {
            const cJSON *redact = json_get(cell, "redact");
            bool yes = cJSON_IsTrue(json_get(cell, "allowed"));
            put_cell(!yes ? "no" : redact && redact->child ? "yes, redacted" : "yes", 12);
        }
        putchar('\n');
    }
}

typedef err_code grid_writer(const policy *p, const provider_facts *providers, size_t n, buf *out, err *e);

/* To a file, or to stdout for "-". */
static err_code write_grid(const world *w, const char *path, grid_writer *writer, err *e) {
    buf b = {.max = 64u << 20};
    err_code rc = writer(w->p, w->w.providers, w->w.n_providers, &b, e);
    if (rc == ERR_OK && strcmp(path, "-") == 0)
        rc = cli_print_text(buf_str(&b), b.len, e);
    else if (rc == ERR_OK)
        rc = file_write_atomic(path, b.ptr, b.len, 0644, e);
    buf_free(&b);
    return rc;
}

static err_code run_table(cli *c, err *e) {
    world w;
    cJSON *out = NULL;
    const char *csv = cli_text(c, "csv", NULL), *html = cli_text(c, "html", NULL);
    err_code rc = world_open(&w, c, c->n_args ? c->args[0] : NULL, e);
    if (rc == ERR_OK && csv) rc = write_grid(&w, csv, policy_grid_csv, e);
    if (rc == ERR_OK && html) rc = write_grid(&w, html, policy_grid_html, e);
    if (rc == ERR_OK && (c->json || (!csv && !html))) {
        rc = policy_grid_json(w.p, w.w.providers, w.w.n_providers, &out, e);
        if (rc == ERR_OK && c->json) {
            rc = cli_print_json(out, e);
            out = NULL;
        } else if (rc == ERR_OK) {
            print_grid(out);
        }
    }
    cJSON_Delete(out);
    world_close(&w);
    return rc;
}

/* ---- diff -------------------------------------------------------------------------------------------------- */

static void print_cells(const char *mark, const cJSON *list) {
    const cJSON *v;
    cJSON_ArrayForEach(v, list) {
        printf("%s  ", mark);
        put_cell(text_of(v, "label"), 44);
        put(text_of(v, "provider"));
        const cJSON *redact = json_get(v, "redact");
        if (redact && redact->child) {
            printf(", after redacting ");
            put_words(redact);
        }
        put_lines(v);
        putchar('\n');
    }
}

static void print_fact(const cJSON *f, bool *any) {
    if (cJSON_IsNull(f) || strcmp(f->string, "name") == 0 || (strcmp(f->string, "inside") == 0 && cJSON_IsFalse(f)))
        return;
    printf("%s%s ", *any ? ", " : "", f->string);
    *any = true;
    if (cJSON_IsString(f))
        put(f->valuestring);
    else if (cJSON_IsNumber(f))
        printf("%d", f->valueint);
    else
        printf(cJSON_IsTrue(f) ? "yes" : "no");
}

/* A provider that nobody has declared, by the facts that let it in. */
static void put_facts(const cJSON *facts) {
    const cJSON *f;
    bool any = false;
    printf("a provider ");
    if (strncmp(text_of(facts, "name"), "some-provider", 13) != 0) {
        printf("named ");
        put(text_of(facts, "name"));
        putchar(' ');
    }
    printf("with ");
    cJSON_ArrayForEach(f, facts) print_fact(f, &any);
    if (!any) printf("any facts, or none known");
}

static void print_undeclared(const cJSON *list) {
    const cJSON *v;
    cJSON_ArrayForEach(v, list) {
        printf("     ");
        put_cell(text_of(v, "label"), 44);
        if (json_get(v, "provider"))
            put_facts(json_get(v, "provider"));
        else
            printf("could not be decided within the limits");
        put_lines(v);
        putchar('\n');
    }
}

static size_t count(const cJSON *o, const char *key) {
    return (size_t)cJSON_GetArraySize(json_get(o, key));
}

static size_t count_less(const cJSON *o) {
    const cJSON *v;
    size_t n = 0;
    cJSON_ArrayForEach(v, json_get(o, "redaction")) n += cJSON_IsTrue(json_get(v, "less"));
    return n;
}

static void print_diff(const cJSON *o) {
    const cJSON *v;
    print_cells("open ", json_get(o, "opened"));
    print_cells("close", json_get(o, "closed"));
    cJSON_ArrayForEach(v, json_get(o, "redaction")) {
        printf(cJSON_IsTrue(json_get(v, "less")) ? "less   " : "more   ");
        put_cell(text_of(v, "label"), 44);
        put(text_of(v, "provider"));
        printf(": redacts ");
        put_words(json_get(v, "to"));
        const cJSON *to = json_get(v, "to");
        printf(to && to->child ? ", before " : "nothing, before ");
        put_words(json_get(v, "from"));
        if (!json_get(v, "from") || !json_get(v, "from")->child) printf("nothing");
        putchar('\n');
    }
    if (count(o, "opened_undeclared")) {
        printf("open for providers that nobody has declared yet:\n");
        print_undeclared(json_get(o, "opened_undeclared"));
    }
    const cJSON *same = json_get(o, "same");
    printf("%zu opened, %zu closed, %zu redacted otherwise, %d the same\n", count(o, "opened"), count(o, "closed"),
           count(o, "redaction"), same ? same->valueint : 0);
}

static err_code run_diff(cli *c, err *e) {
    world w;
    policy *other = NULL;
    cJSON *out = NULL;
    err_code rc = world_open(&w, c, c->args[0], e);
    if (rc == ERR_OK && c->n_args == 2) rc = read_policy(&w, c->args[1], &other, e);
    const policy *from = other ? w.p : w.w.active, *to = other ? other : w.p;
    if (rc == ERR_OK) rc = policy_diff(from, to, w.w.providers, w.w.n_providers, &out, e);
    size_t opens = rc ? 0 : count(out, "opened") + count(out, "opened_undeclared") + count_less(out);
    if (rc == ERR_OK && c->json) {
        rc = cli_print_json(out, e);
        out = NULL;
    } else if (rc == ERR_OK) {
        print_diff(out);
    }
    if (rc == ERR_OK && opens && cli_flag(c, "closed-only"))
        rc = err_set(e, ERR_NO, "the change opens something that was closed before");
    cJSON_Delete(out);
    policy_free(other);
    world_close(&w);
    return rc;
}

/* ---- test -------------------------------------------------------------------------------------------------- */

static err_code run_test(cli *c, err *e) {
    world w;
    cJSON *out = NULL;
    buf text = {.max = POLICY_BYTES_MAX};
    err_code rc = world_open(&w, c, cli_text(c, "policy", NULL), e);
    if (rc == ERR_OK) rc = file_read(&text, c->args[0], e);
    if (rc == ERR_OK)
        rc = policy_expect(w.p, w.w.providers, w.w.n_providers, buf_str(&text), text.len, c->args[0], &out, e);
    err_code printed = ERR_OK;
    if (out && c->json) {
        printed = cli_print_json(out, rc ? NULL : e);
        out = NULL;
    }
    const cJSON *v;
    cJSON_ArrayForEach(v, json_get(out, "lines")) {
        bool ok = cJSON_IsTrue(json_get(v, "ok"));
        printf("%s %d: ", ok ? "ok  " : "FAIL", line_of(v));
        put(text_of(v, "text"));
        if (!ok) printf("  <- ");
        if (!ok) put(text_of(v, "why"));
        putchar('\n');
    }
    cJSON_Delete(out);
    buf_free(&text);
    world_close(&w);
    return rc ? rc : printed;
}

/* ---- prove ------------------------------------------------------------------------------------------------- */

static void print_proof(const cJSON *o) {
    const cJSON *v, *checked = json_get(o, "cells_checked");
    bool holds = cJSON_IsTrue(json_get(o, "holds"));
    printf(holds ? "holds    " : "BROKEN   ");
    put(text_of(o, "statement"));
    printf(" (%d cells)\n", checked ? checked->valueint : 0);
    cJSON_ArrayForEach(v, json_get(o, "cells")) {
        printf("     ");
        put_cell(text_of(v, "label"), 44);
        put(text_of(v, "provider"));
        const cJSON *missing = json_get(v, "not_redacted");
        if (missing && missing->child) {
            printf(", without redacting ");
            put_words(missing);
        }
        put_lines(v);
        putchar('\n');
    }
    if (count(o, "undeclared")) printf("  could be declared, and would be allowed:\n");
    print_undeclared(json_get(o, "undeclared"));
    cJSON_ArrayForEach(v, json_get(o, "undecided")) {
        printf("     ");
        put_cell(text_of(v, "label"), 44);
        printf("could not be decided within the limits\n");
    }
}

static err_code run_prove(cli *c, err *e) {
    world w;
    err_code rc = world_open(&w, c, cli_text(c, "policy", NULL), e), verdict = ERR_OK;
    cJSON *all = c->json ? cJSON_CreateArray() : NULL;
    err first = {0};
    for (int i = 0; rc == ERR_OK && i < c->n_args; i++) {
        cJSON *out = NULL;
        rc = policy_prove(w.p, w.w.providers, w.w.n_providers, c->args[i], &out, e);
        if (rc == ERR_NO) {
            if (!verdict && e) first = *e;
            verdict = rc;
            rc = ERR_OK;
        }
        if (rc == ERR_OK && !c->json) print_proof(out);
        if (rc == ERR_OK && all && cJSON_AddItemToArray(all, out)) out = NULL;
        cJSON_Delete(out);
    }
    if (rc == ERR_OK && c->json) {
        rc = cli_print_json(all, e);
        all = NULL;
    }
    if (rc == ERR_OK && verdict) {
        if (e) *e = first;
        rc = verdict;
    }
    cJSON_Delete(all);
    world_close(&w);
    return rc;
}

/* ---- show and activate ------------------------------------------------------------------------------------- */

static void print_stored(const cJSON *o, const char *what) {
    printf("# %s: SHA-256 %s", what, text_of(o, "digest"));
    if (*text_of(o, "since")) {
        printf(", since %s, by ", text_of(o, "since"));
        put(text_of(o, "by"));
        if (*text_of(o, "second")) printf(" and ");
        put(text_of(o, "second"));
    } else {
        printf(", the default: none was activated");
    }
    putchar('\n');
    const char *text = text_of(o, "text");
    (void)cli_print_foreign(text, strlen(text), NULL);
    if (*text && text[strlen(text) - 1] != '\n') putchar('\n');
}

static err_code run_show(cli *c, err *e) {
    cJSON *out = NULL;
    err_code rc = cli_admin(c, "policy.show", cJSON_CreateObject(), &out, e);
    if (rc == ERR_OK && c->json) return cli_print_json(out, e);
    if (rc == ERR_OK) {
        print_stored(out, "in force");
        if (json_get(out, "proposed")) print_stored(json_get(out, "proposed"), "proposed, waits for a second key");
    }
    cJSON_Delete(out);
    return rc;
}

static err_code run_activate(cli *c, err *e) {
    buf text = {.max = POLICY_BYTES_MAX};
    cJSON *out = NULL, *args = NULL;
    err_code rc = file_read(&text, c->args[0], e);
    if (rc == ERR_OK && strlen(buf_str(&text)) != text.len)
        rc = err_set(e, ERR_USAGE, "%s: a NUL byte stands in it; this is no text", c->args[0]);
    if (rc == ERR_OK) {
        args = cJSON_CreateObject();
        if (!args || !cJSON_AddStringToObject(args, "text", buf_str(&text))) {
            cJSON_Delete(args);
            rc = err_nomem(e, "a request");
        }
    }
    if (rc == ERR_OK) rc = cli_admin(c, "policy.activate", args, &out, e);
    buf_free(&text);
    if (rc == ERR_OK && c->json) return cli_print_json(out, e);
    if (rc == ERR_OK && cJSON_IsTrue(json_get(out, "active")))
        printf("in force: SHA-256 %s\n", text_of(out, "digest"));
    else if (rc == ERR_OK)
        printf("proposed: SHA-256 %s; not in force, waits for %s\n", text_of(out, "digest"),
               text_of(out, "waiting_for"));
    cJSON_Delete(out);
    return rc;
}

const command commands_policy[] = {
    {"policy show",
     "",
     0,
     0,
     "The policy in force: its text, its digest, since when and by whom",
     "Every record of a request names the policy's digest; this is the text behind it.",
     run_show,
     {{0}}},
    {"policy check",
     "[FILE]",
     0,
     1,
     "Whether a policy is understood; names line, column and the words possible there",
     "Without FILE: the policy in force. Beside errors it remarks what deserves a second look: zones that hold "
     "nobody,\n"
     "names of no provider, levels that nothing allows. FILE may be - for stdin.\n\n"
     "  allow public to any provider\n"
     "  allow internal, confidential to on-prem\n"
     "  never special-category outside on-prem\n\n"
     "  polder policy check policy.txt",
     run_check,
     {{0}}},
    {"policy explain",
     "[FILE]",
     0,
     1,
     "Where a request of a label may go, and which sentences decided",
     "  polder policy explain --label internal --found email,iban\n"
     "  polder policy explain --label \"confidential, personal\" --model assistant next.txt",
     run_explain,
     {{OPT_TEXT, "label", "LABEL", 0, 0, "what is declared: \"internal\", \"internal, personal\"; absent: nothing is"},
      {OPT_TEXT, "found", "WORDS", 0, 0, "what the detectors found: iban, email, national-id, …"},
      {OPT_TEXT, "model", "NAME", 0, 0, "show the candidates behind this model name too"},
      {OPT_FLAG, "detector-error", NULL, 0, 0, "as if the detectors had failed"}}},
    {"policy table",
     "[FILE]",
     0,
     1,
     "The grid: each label with its flags, each provider; what a compliance officer signs",
     "  polder policy table --html grid.html --csv grid.csv policy.txt",
     run_table,
     {{OPT_TEXT, "csv", "FILE", 0, 0, "write it as CSV; - for stdout"},
      {OPT_TEXT, "html", "FILE", 0, 0, "write it as a page that prints on A4, with digest, facts and lines to sign"}}},
    {"policy diff",
     "FILE [FILE2]",
     1,
     2,
     "Cells that a change opens, closes or redacts otherwise: from FILE to FILE2",
     "With one FILE: from the policy in force to FILE. It also finds what opens for providers that nobody has "
     "declared\n"
     "yet.\n\n"
     "  polder policy diff next.txt\n"
     "  polder policy diff --closed-only old.txt new.txt   (exit 1 where anything opens)",
     run_diff,
     {{OPT_FLAG, "closed-only", NULL, 0, 0, "exit 1 where anything opens, or less is redacted"}}},
    {"policy test",
     "EXPECTATIONS",
     1,
     1,
     "Check a policy against expectations, one a line; exit 1 where one is not met",
     "  internal, personal -> on-prem, mistral after redact personal\n"
     "  confidential -x-> mistral\n"
     "  given mistral jurisdiction = FR, operator-law = FR, training = no, retention = 0\n\n"
     "\"->\": each of these may be tried, and exactly this is redacted before; \"-x->\": none of these. With "
     "\"given\"\n"
     "lines the providers are the engine and those, whatever the island has.\n\n"
     "  polder policy test --policy policy.txt policy.expect",
     run_test,
     {{OPT_TEXT, "policy", "FILE", 0, 0, "the policy; default: the one in force"}}},
    {"policy prove",
     "\"STATEMENT\" …",
     1,
     CLI_ARGS_MAX,
     "Prove a statement over every label, flag and provider, declared or not; exit 1 where it breaks",
     "  LABEL|FLAG|anything never leaves PLACE\n"
     "  LABEL|FLAG|anything never leaves PLACE without redact THING\n"
     "  LABEL|FLAG|anything never reaches PLACE\n\n"
     "  polder policy prove \"confidential never leaves on-prem\"\n"
     "  polder policy prove --policy next.txt \"internal never leaves on-prem without redact personal\"",
     run_prove,
     {{OPT_TEXT, "policy", "FILE", 0, 0, "the policy; default: the one in force"}}},
    {"policy activate",
     "FILE",
     1,
     1,
     "Put a policy into force from the next request on",
     "Look first: policy diff FILE, policy table --html grid.html FILE. Where policy.two_keys of island.yaml is set, "
     "two\n"
     "holders of API keys of the role admin must send the same text to the running server (docs/guide/policy.md).\n\n"
     "  polder --island my policy activate policy.txt",
     run_activate,
     {{0}}},
    {0},
};
