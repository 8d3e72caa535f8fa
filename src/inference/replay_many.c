/* Many answers: which there are, which are drawn, in which order, and the record of what came out. */
#include "inference/replay_internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWERS_MAX   (64u << 20) /* of one check */
#define UNEQUAL_SHOWN 100         /* named in the record's entry itself */

/* ---- finding ----------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *o, const char *key) {
    const cJSON *v = json_get(o, key);
    return cJSON_IsString(v) ? v->valuestring : "";
}

static err_code add_item(replay_list *l, size_t *cap, replay_item item, err *e) {
    if (l->n == ANSWERS_MAX)
        return err_set(e, ERR_TOO_LARGE,
                       "there are more than %u answers; check fewer records at once (--from, --through)", ANSWERS_MAX);
    if (l->n == *cap) {
        size_t more = *cap ? *cap * 2 : 1024;
        replay_item *p = mem_realloc(l->items, more * sizeof *p);
        if (!p) return err_nomem(e, "the answers of a ledger");
        l->items = p;
        *cap = more;
    }
    l->items[l->n++] = item;
    return ERR_OK;
}

/* One record, going back. *since moves to where the last check stopped. */
static err_code see_record(replay_list *l, size_t *cap, uint64_t seq, const cJSON *rec, bool last_check,
                           uint64_t *since, err *e) {
    const char *what = text_of(rec, "event"), *route = text_of(rec, "route");
    if (last_check && *since == 0 && strcmp(what, "replayed") == 0) {
        uint64_t through = replay_u64(rec, "through");
        *since = through < seq ? through : seq;
        return ERR_OK;
    }
    if (strcmp(what, "completed") != 0 && strcmp(what, "failed") != 0) return ERR_OK;
    if (!*route || !cJSON_IsNumber(json_get(rec, "request"))) return ERR_OK; /* nobody began to answer */
    if (strcmp(route, "engine") == 0)
        return add_item(l, cap, (replay_item){.admitted = replay_u64(rec, "request"), .ended = seq}, e);
    l->others++;
    return ERR_OK;
}

static void turn_round(replay_list *l) {
    for (size_t i = 0; i < l->n / 2; i++) {
        replay_item t = l->items[i];
        l->items[i] = l->items[l->n - 1 - i];
        l->items[l->n - 1 - i] = t;
    }
}

err_code replay_find(replayer *r, uint64_t since, uint64_t through, replay_list *out, err *e) {
    ledger *l = island_ledger(r->i);
    bool last_check = since == REPLAY_SINCE_LAST_CHECK;
    uint64_t size = ledger_size(l), from = last_check ? 0 : since;
    buf b = {.max = LEDGER_ENTRY_MAX + 1};
    size_t cap = 0;
    err_code rc = ERR_OK;
    *out = (replay_list){.through = through < size ? through : size};
    for (uint64_t seq = out->through; seq-- > from && !rc;) {
        cJSON *rec = NULL;
        buf_reset(&b);
        rc = ledger_read(l, seq, &b, e);
        if (!rc) rc = json_parse(&rec, buf_str(&b), b.len, "a record", e);
        if (!rc) rc = see_record(out, &cap, seq, rec, last_check, &from, e);
        cJSON_Delete(rec);
    }
    buf_free(&b);
    out->since = from < out->through ? from : out->through;
    turn_round(out);
    if (!rc) return ERR_OK;
    mem_free(out->items);
    *out = (replay_list){0};
    return rc;
}

/* ---- drawing and sorting ----------------------------------------------------------------------------------- */

typedef struct keyed {
    uint64_t key;
    replay_item item;
} keyed;

static int by_key(const void *pa, const void *pb) {
    const keyed *a = pa, *b = pb;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    return a->item.admitted < b->item.admitted ? -1 : a->item.admitted > b->item.admitted;
}

static int by_seq(const void *pa, const void *pb) {
    const replay_item *a = pa, *b = pb;
    return a->admitted < b->admitted ? -1 : a->admitted > b->admitted;
}

static uint64_t draw_key(uint64_t seed, uint64_t seq) {
    char text[48];
    uint8_t digest[SHA256_LEN];
    int n = snprintf(text, sizeof text, "%llu:%llu", (unsigned long long)seed, (unsigned long long)seq);
    sha256_of(digest, text, (size_t)n);
    return be_get(digest, 8);
}

err_code replay_draw(replay_list *l, size_t n, uint64_t seed, err *e) {
    if (n >= l->n) return ERR_OK;
    keyed *k = mem_array(l->n, sizeof *k);
    if (!k) return err_nomem(e, "a sample");
    for (size_t i = 0; i < l->n; i++) k[i] = (keyed){draw_key(seed, l->items[i].admitted), l->items[i]};
    qsort(k, l->n, sizeof *k, by_key);
    for (size_t i = 0; i < n; i++) l->items[i] = k[i].item;
    l->n = n;
    mem_free(k);
    qsort(l->items, n, sizeof *l->items, by_seq);
    return ERR_OK;
}

static err_code artifact_key(replayer *r, uint64_t seq, uint64_t *key, err *e) {
    buf b = {.max = LEDGER_ENTRY_MAX + 1};
    cJSON *rec = NULL;
    uint8_t digest[SHA256_LEN];
    err_code rc = ledger_read(island_ledger(r->i), seq, &b, e);
    if (!rc) rc = json_parse(&rec, buf_str(&b), b.len, "a record", e);
    const char *name = text_of(rec, "artifact");
    bool known = strncmp(name, "sha256:", 7) == 0 && hex_decode(digest, SHA256_LEN, name + 7, strlen(name + 7));
    *key = known ? be_get(digest, 8) : 0;
    cJSON_Delete(rec);
    buf_free(&b);
    return rc;
}

err_code replay_sort(replayer *r, replay_list *l, err *e) {
    if (l->n < 2) return ERR_OK;
    keyed *k = mem_array(l->n, sizeof *k);
    if (!k) return err_nomem(e, "a sample");
    err_code rc = ERR_OK;
    for (size_t i = 0; i < l->n && !rc; i++) {
        k[i].item = l->items[i];
        rc = artifact_key(r, l->items[i].admitted, &k[i].key, e);
    }
    if (!rc) qsort(k, l->n, sizeof *k, by_key);
    for (size_t i = 0; i < l->n && !rc; i++) l->items[i] = k[i].item;
    mem_free(k);
    return rc;
}

/* ---- the record -------------------------------------------------------------------------------------------- */

static bool is_count(const cJSON *v) {
    return cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble <= 0x1p53 &&
           floor(v->valuedouble) == v->valuedouble;
}

static bool is_counts(const cJSON *v) {
    const cJSON *one;
    bool good = cJSON_IsArray(v);
    cJSON_ArrayForEach(one, v) good = good && is_count(one);
    return good;
}

static bool is_seed(const cJSON *v) {
    size_t n = cJSON_IsString(v) ? strlen(v->valuestring) : 0;
    return n && n <= 20 && strspn(v->valuestring, "0123456789") == n;
}

static const char *const numbers[] = {"since", "through", "answers", "others",
                                      "drawn", "equal",   "unequal", "not_possible"};
static const char *const lists[] = {"equal", "unequal", "not_possible"};

static err_code check_facts(const cJSON *facts, err *e) {
    const cJSON *outcomes = json_get(facts, "outcomes");
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!is_count(json_get(facts, numbers[i])))
            return err_set(e, ERR_INVALID, "replayed: \"%s\" must be a whole number", numbers[i]);
    if (!is_seed(json_get(facts, "seed")))
        return err_set(e, ERR_INVALID, "replayed: \"seed\" must be a decimal number as a string");
    if (!is_count(json_get(facts, "numerics")) || !cJSON_IsString(json_get(facts, "isa")))
        return err_set(e, ERR_INVALID, "replayed: \"numerics\" and \"isa\" must say what computed");
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const cJSON *v = json_get(outcomes, lists[i]);
        if (!is_counts(v) || cJSON_GetArraySize(v) != (int)json_get(facts, lists[i])->valuedouble)
            return err_set(e, ERR_INVALID, "replayed: outcomes.%s must name as many records as \"%s\" counts", lists[i],
                           lists[i]);
    }
    return ERR_OK;
}

static bool put_facts(cJSON *body, const cJSON *facts, const identity *by) {
    bool good = cJSON_AddStringToObject(body, "by", by ? by->key_id : "local") != NULL;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        good = good && cJSON_AddNumberToObject(body, numbers[i], json_get(facts, numbers[i])->valuedouble);
    good = good && cJSON_AddStringToObject(body, "seed", json_get(facts, "seed")->valuestring) &&
           cJSON_AddNumberToObject(body, "numerics", json_get(facts, "numerics")->valuedouble) &&
           cJSON_AddStringToObject(body, "isa", json_get(facts, "isa")->valuestring);
    cJSON *first = good ? cJSON_AddArrayToObject(body, "first_unequal") : NULL;
    const cJSON *one;
    int n = 0;
    cJSON_ArrayForEach(one, json_get(json_get(facts, "outcomes"), "unequal")) {
        cJSON *v = first && n++ < UNEQUAL_SHOWN ? cJSON_CreateNumber(one->valuedouble) : NULL;
        if (!v) break;
        cJSON_AddItemToArray(first, v);
    }
    return first != NULL;
}

static err_code put_outcomes(record *rec, const cJSON *outcomes, err *e) {
    buf b = {.max = LEDGER_CONTENT_MAX};
    err_code rc = json_canonical(&b, outcomes, e);
    if (!rc) rc = buf_check(&b, "the record of a check", e);
    if (!rc) rc = record_content(rec, "outcomes", buf_str(&b), b.len, e);
    buf_free(&b);
    return rc;
}

err_code replay_note(island *i, const identity *by, const cJSON *facts, cJSON **out, err *e) {
    record *rec = NULL;
    uint64_t seq = 0;
    *out = NULL;
    if (store_read_only(island_store(i)))
        return err_set(e, ERR_DENIED, "%s: is open for reading only; a check is kept in its ledger", island_dir(i));
    err_code rc = check_facts(facts, e);
    if (!rc) rc = record_new(&rec, "replayed", e);
    cJSON *body = rec ? record_body(rec) : NULL;
    if (!rc && !(body && put_facts(body, facts, by))) rc = err_nomem(e, "the record of a check");
    if (!rc) rc = put_outcomes(rec, json_get(facts, "outcomes"), e);
    if (!rc) rc = ledger_append(island_ledger(i), rec, &seq, e);
    record_free(rec);
    if (rc) return rc;
    *out = cJSON_CreateObject();
    if (*out && cJSON_AddNumberToObject(*out, "record", (double)seq)) return ERR_OK;
    cJSON_Delete(*out);
    *out = NULL;
    return err_nomem(e, "a reply (the record is written)");
}
