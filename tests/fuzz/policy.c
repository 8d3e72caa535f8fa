/* A policy, a statement and expectations, parted by bytes of value 1: any bytes are refused with a place, or mean
 * something, and then table, explanation, grid and proof agree with one another. */
#include "data/data.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static label_set labels;
static detector *words;
static provider_facts world[3];

static void begin(void) {
    base_init();
    if (label_set_parse(&labels, LABELS_DEFAULT, NULL) || detector_new(&words, NULL, 0, NULL, NULL)) abort();
    world[0] = provider_facts_engine;
    world[1] = provider_facts_unknown("mistral");
    strcpy(world[1].country, "FR");
    strcpy(world[1].operator_law, "FR");
    strcpy(world[1].certificates, "ISO27001, SOC 2");
    world[1].training = 0;
    world[1].retention_days = 0;
    world[2] = provider_facts_unknown("b");
}

/* What is allowed in the table is in the explanation's list, and nothing else. */
static void check_explanation(const policy *p, const policy_table *t, sensitivity start) {
    cJSON *o = NULL;
    if (policy_explain(p, world, 3, start, true, NULL, false, &o, NULL)) abort();
    sensitivity v = policy_label(p, start, true, NULL, false);
    uint64_t bits = 0;
    const cJSON *a;
    cJSON_ArrayForEach(
        a, cJSON_GetObjectItemCaseSensitive(
               o, "allowed")) for (size_t i = 0; i < 3;
                                   i++) if (strcmp(cJSON_GetObjectItemCaseSensitive(a, "provider")->valuestring,
                                                   world[i].name) == 0) bits |= (uint64_t)1 << i;
    if (bits != policy_allowed(t, v) || v.level < start.level || (start.flags & ~v.flags)) abort();
    cJSON_Delete(o);
}

static void check_grid(const policy *p) {
    buf b = {.max = 16u << 20};
    if (policy_grid_csv(p, world, 3, &b, NULL)) abort();
    buf_reset(&b);
    if (policy_grid_html(p, world, 3, &b, NULL) || strstr(buf_str(&b), "<script")) abort();
    buf_free(&b);
}

/* A statement that holds is broken by no cell of the table; an error names its place. */
static void check_statement(const policy *p, const char *s, size_t n) {
    char text[512];
    cJSON *o = NULL;
    err e = {0};
    if (n >= sizeof text) return;
    memcpy(text, s, n);
    text[n] = 0;
    err_code rc = policy_prove(p, world, 3, text, &o, &e);
    if (rc == ERR_USAGE && strncmp(e.msg, "statement:", 10) != 0) abort();
    const cJSON *cells = cJSON_GetObjectItemCaseSensitive(o, "cells");
    if (rc == ERR_OK && (!cells || cells->child)) abort();
    cJSON_Delete(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!words) begin();
    const char *s = (const char *)data, *end = s + size;
    const char *one = size ? memchr(s, 1, size) : NULL;
    const char *two = one ? memchr(one + 1, 1, (size_t)(end - one - 1)) : NULL;
    err e = {0};
    policy *p = NULL;
    err_code rc = policy_parse(&p, &labels, words, s, (size_t)((one ? one : end) - s), "f", &e);
    if (rc) {
        if (rc == ERR_USAGE && strncmp(e.msg, "f:", 2) != 0) abort();
        return 0;
    }
    policy_table *t = NULL;
    cJSON *o = NULL;
    if (policy_compile(&t, p, world, 3, &e)) abort();
    check_explanation(p, t, (sensitivity){.level = (uint8_t)(size & 3), .flags = (uint8_t)(size >> 2 & 7)});
    check_grid(p);
    if (policy_remarks(p, world, 3, &o, &e)) abort();
    cJSON_Delete(o);
    if (one) check_statement(p, one + 1, (size_t)((two ? two : end) - one - 1));
    if (two) {
        rc = policy_expect(p, world, 3, two + 1, (size_t)(end - two - 1), "x", &o, &e);
        if (rc == ERR_USAGE && strncmp(e.msg, "x:", 2) != 0) abort();
        cJSON_Delete(o);
    }
    policy_table_free(t);
    policy_free(p);
    return 0;
}
