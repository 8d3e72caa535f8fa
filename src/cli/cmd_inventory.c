/* inventory, plan check: what is kept and what is delegated. */
#include "cli/cli.h"

#include "base/file.h"
#include "operations/operations.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- printing ---------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *o, const char *key) {
    const cJSON *v = json_get(o, key);
    return cJSON_IsString(v) ? v->valuestring : "";
}

static double num(const cJSON *o, const char *key) {
    const cJSON *v = json_get(o, key);
    return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

static void put(const char *s) {
    buf b = {.max = 65536};
    text_sanitise(&b, s, strlen(s), false);
    fputs(buf_str(&b), stdout);
    buf_free(&b);
}

static void put_value(const cJSON *v) {
    char *text = v ? cJSON_PrintUnformatted(v) : NULL;
    put(!v ? "nothing" : text ? text : "?");
    cJSON_free(text);
}

static void show_findings(const cJSON *list) {
    const cJSON *f;
    if (!list || !list->child) {
        printf("Nothing was seen that is not declared.\n");
        return;
    }
    printf("SEEN, AND NOT DECLARED\n");
    cJSON_ArrayForEach(f, list) {
        const cJSON *last = json_get(f, "last");
        printf("  ! ");
        put(text_of(f, "text"));
        if (last) printf(" (last in record %.0f)", num(last, "record"));
        putchar('\n');
    }
}

static void show_changes(const cJSON *changed) {
    const cJSON *since = json_get(changed, "since"), *c, *list = json_get(changed, "list");
    if (!since) {
        printf("\nNo inventory was recorded before; polder inventory --record keeps this one.\n");
        return;
    }
    printf("\nSince the inventory in record %.0f: ", num(since, "record"));
    put(*text_of(changed, "why") ? text_of(changed, "why")
        : list && list->child    ? "changed is"
                                 : "nothing declared has changed");
    putchar('\n');
    cJSON_ArrayForEach(c, list) {
        printf("  %s ", text_of(c, "what"));
        put(text_of(c, "name"));
        printf(": ");
        put(text_of(c, "fact"));
        printf(" was ");
        put_value(json_get(c, "from"));
        printf(", is ");
        put_value(json_get(c, "to"));
        putchar('\n');
    }
}

static void show_candidate(const cJSON *c) {
    const cJSON *labels = json_get(c, "allowed_for"), *l;
    printf("    declared  ");
    put(text_of(c, "provider"));
    if (!cJSON_IsTrue(json_get(c, "inside"))) {
        printf(" (");
        put(*text_of(c, "operator") ? text_of(c, "operator") : "operator not known");
        printf(", data in ");
        put(*text_of(c, "country") ? text_of(c, "country") : "?");
        printf(", law of ");
        put(*text_of(c, "operator_law") ? text_of(c, "operator_law") : "?");
        printf(")");
    }
    printf(labels && labels->child ? " for " : "; the policy lets nothing reach it");
    cJSON_ArrayForEach(l, labels) printf("%s%s%s", l == labels->child ? "" : ", ", text_of(l, "label"),
                                         cJSON_IsTrue(json_get(l, "redacted")) ? " (redacted)" : "");
    putchar('\n');
}

static void show_flow(const cJSON *f) {
    printf("    observed  ");
    put(text_of(f, "provider"));
    printf(": %.0f attempts, %.0f answered, %.0f requests and %.0f bytes left, %.0f + %.0f tokens%s\n",
           num(f, "attempts"), num(f, "answered"), num(f, "requests_left"), num(f, "bytes_sent"),
           num(f, "prompt_tokens"), num(f, "completion_tokens"),
           cJSON_IsTrue(json_get(f, "declared")) ? "" : "  NOT DECLARED");
}

static void show_workload(const cJSON *x) {
    static const char *const layers[] = {"data", "post-training", "evaluation", "audit", "operations"};
    const cJSON *r = json_get(x, "requests"), *all = json_get(x, "layers"), *main_layer = json_get(all, "inference"),
                *c;
    putchar('\n');
    put(text_of(x, "model"));
    printf("%s: %.0f admitted, %.0f completed, %.0f failed, %.0f refused\n",
           cJSON_IsTrue(json_get(x, "declared")) ? "" : " (not declared)", num(r, "admitted"), num(r, "completed"),
           num(r, "failed"), num(r, "refused"));
    printf("  inference: %s\n", text_of(main_layer, "state"));
    cJSON_ArrayForEach(c, json_get(main_layer, "candidates")) show_candidate(c);
    cJSON_ArrayForEach(c, json_get(main_layer, "observed")) show_flow(c);
    printf(" ");
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        printf(" %s: %s%s", layers[i], text_of(json_get(all, layers[i]), "state"),
               i + 1 < sizeof layers / sizeof *layers ? "," : "\n");
}

static void show_inventory(const cJSON *v) {
    const cJSON *range = json_get(v, "range"), *out = json_get(json_get(v, "left"), "to_outside"), *x;
    show_findings(json_get(v, "not_declared"));
    printf("\n%.0f requests with %.0f bytes left the perimeter", num(out, "requests"), num(out, "bytes"));
    if (num(out, "may_have_left_requests") > 0)
        printf("; up to %.0f bytes more may have", num(out, "may_have_left_bytes"));
    if (json_get(range, "first"))
        printf(" (records %.0f to %.0f, %s to %s)", num(json_get(range, "first"), "record"),
               num(json_get(range, "last"), "record"), text_of(json_get(range, "first"), "time"),
               text_of(json_get(range, "last"), "time"));
    putchar('\n');
    cJSON_ArrayForEach(x, json_get(v, "workloads")) show_workload(x);
    show_changes(json_get(v, "changed"));
}

/* ---- inventory --------------------------------------------------------------------------------------------- */

static err_code make_args(cli *c, cJSON **out, err *e) {
    const char *since = cli_text(c, "since", NULL);
    cJSON *o = cJSON_CreateObject();
    if (o && cJSON_AddNumberToObject(o, "from", (double)cli_int(c, "from", 0)) &&
        (!since || cJSON_AddStringToObject(o, "since", since))) {
        *out = o;
        return ERR_OK;
    }
    cJSON_Delete(o);
    return err_nomem(e, "a request");
}

static err_code write_page(const cJSON *v, const char *path, err *e) {
    buf page = {.max = 64u << 20};
    err_code rc = inventory_html(v, &page, e);
    if (rc == ERR_OK && strcmp(path, "-") == 0)
        rc = cli_print_text(buf_str(&page), page.len, e);
    else if (rc == ERR_OK)
        rc = file_write_atomic(path, buf_str(&page), page.len, 0644, e);
    if (rc == ERR_OK && strcmp(path, "-") != 0) cli_say("%s is written.", path);
    buf_free(&page);
    return rc;
}

static err_code run_inventory(cli *c, err *e) {
    const char *html = cli_text(c, "html", NULL);
    cJSON *args = NULL, *v = NULL;
    err_code rc = make_args(c, &args, e);
    if (rc == ERR_OK) rc = cli_admin(c, cli_flag(c, "record") ? "inventory.record" : "inventory", args, &v, e);
    cJSON *first = rc == ERR_OK ? cJSON_DetachItemFromObjectCaseSensitive(v, "not_declared") : NULL;
    if (first) cJSON_InsertItemInArray(v, 0, first); /* a server sorts the members */
    if (rc == ERR_OK && html) rc = write_page(v, html, e);
    if (rc == ERR_OK && json_get(v, "recorded")) cli_say("Kept in record %.0f.", num(v, "recorded"));
    if (rc == ERR_OK && c->json && !(html && strcmp(html, "-") == 0)) return cli_print_json(v, e);
    if (rc == ERR_OK && !html) show_inventory(v);
    cJSON_Delete(v);
    return rc;
}

/* ---- plan check -------------------------------------------------------------------------------------------- */

static void put_list(const char *before, const cJSON *list) {
    const cJSON *v;
    printf("%s", before);
    cJSON_ArrayForEach(v, list) {
        if (v != list->child) printf("; ");
        put(v->valuestring);
    }
}

static void show_name(const cJSON *n) {
    bool good = cJSON_IsTrue(json_get(n, "ok"));
    const cJSON *x;
    printf("%s ", good ? "ok  " : "FAIL");
    put(text_of(n, "model"));
    put_list(": delegated to ", json_get(n, "delegated_to"));
    if (json_get(n, "substitutes")->child) put_list(", substitute inside: ", json_get(n, "substitutes"));
    if (!good) put_list(", nobody inside for: ", json_get(n, "missing"));
    putchar('\n');
    cJSON_ArrayForEach(x, json_get(n, "exit")) {
        printf("       exit from ");
        put(x->string);
        printf(": ");
        put(cJSON_IsString(x) ? x->valuestring : "not declared (polder provider change --exit)");
        putchar('\n');
    }
}

static err_code run_plan_check(cli *c, err *e) {
    cJSON *v = NULL;
    const cJSON *n;
    err_code rc = cli_admin(c, "plan.check", cJSON_CreateObject(), &v, e);
    if (rc != ERR_OK) return rc;
    bool good = cJSON_IsTrue(json_get(v, "ok"));
    if (c->json) {
        rc = cli_print_json(v, e);
    } else {
        int names = cJSON_GetArraySize(json_get(v, "names"));
        cJSON_ArrayForEach(n, json_get(v, "names")) show_name(n);
        printf("%d model name%s delegated, %.0f kept; a request that nobody labelled counts as ", names,
               names == 1 ? " is" : "s are", num(v, "kept"));
        put(text_of(v, "unlabelled_as"));
        putchar('\n');
        cJSON_Delete(v);
    }
    if (rc != ERR_OK || good) return rc;
    return err_set(
        e, ERR_NO,
        "plan: a delegated model name has no substitute inside; give it one with polder model route, and let "
        "the policy allow it");
}

const command commands_inventory[] = {
    {"inventory",
     "[--html FILE] [--from SEQ] [--since DATE] [--record]",
     0,
     0,
     "What is kept and what is delegated, declared and observed",
     "For each model name and each of the six layers: kept or delegated, to whom, and on what evidence. What the "
     "ledger\n"
     "shows and nobody declared stands first. Nothing is changed but with --record, which keeps the inventory in the\n"
     "ledger; the next one says what is different.\n"
     "\n"
     "  polder inventory --html inventory.html\n"
     "  polder inventory --since 2026-01-01 --record",
     run_inventory,
     {{OPT_TEXT, "html", "FILE", 0, 0, "a page for people; - for standard output"},
      {OPT_INT, "from", "SEQ", 0, 9e15, "look at records from this one on"},
      {OPT_TEXT, "since", "DATE", 0, 0, "look at records since this day or time (UTC), as 2026-01-31"},
      {OPT_FLAG, "record", NULL, 0, 0, "keep it in the ledger"}}},
    {"plan check",
     "",
     0,
     0,
     "Does every delegated model name have a substitute inside?",
     "A model name is delegated for a label where the policy lets only providers outside of the perimeter answer. "
     "Exit\n"
     "code 1 where one has nobody inside to take over.",
     run_plan_check,
     {{0}}},
    {0},
};
