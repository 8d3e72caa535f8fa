/* audit replay: answers derived anew from the ledger, one or many, beside a running server. */
#include "cli/cli.h"

#include "base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_MAX 100 /* lines about answers that are not equal */

static err_code parse_u64(const char *s, uint64_t *out) {
    char *end;
    errno = 0;
    *out = strtoull(s, &end, 10);
    return *s < '0' || *s > '9' || *end || errno ? ERR_USAGE : ERR_OK;
}

/* ---- one answer -------------------------------------------------------------------------------------------- */

/* The record that a receipt proves, if it is one of this ledger. */
static err_code seq_of_receipt(const char *file, island *i, uint64_t *seq, err *e) {
    buf receipt = {.max = 1 << 20}, entry = {.max = LEDGER_ENTRY_MAX + 1};
    err_code rc = file_read(&receipt, file, e);
    if (rc)
        return err_set(e, ERR_USAGE,
                       "\"%.200s\" is neither the number of a record (polder audit ls lists them) nor a receipt: %s",
                       file, strerror(errno));
    const char *line = strstr(buf_str(&receipt), "\nindex ");
    char digits[24] = "";
    if (line) snprintf(digits, sizeof digits, "%.*s", (int)strcspn(line + 7, "\n"), line + 7);
    if (parse_u64(digits, seq)) rc = err_set(e, ERR_INVALID, "%s: has no line \"index N\": it is no receipt", file);
    if (!rc) rc = ledger_read(island_ledger(i), *seq, &entry, e);
    if (!rc)
        rc = audit_verify_receipt(buf_str(&receipt), receipt.len, buf_str(&entry), entry.len,
                                  ledger_vkey(island_ledger(i)), seq, e);
    buf_free(&receipt);
    buf_free(&entry);
    return rc;
}

static err_code find_seq(const char *arg, island *i, uint64_t *seq, err *e) {
    return parse_u64(arg, seq) == ERR_OK ? ERR_OK : seq_of_receipt(arg, i, seq, e);
}

static void put_difference(cJSON *v, const replay_report *r) {
    cJSON_AddNumberToObject(v, r->vectors ? "input" : "choice", r->choice);
    cJSON_AddBoolToObject(v, "token_differs", r->token);
    cJSON_AddBoolToObject(v, "digest_differs", r->digest);
    if (!r->token) return;
    cJSON_AddNumberToObject(v, "position", (double)r->position);
    cJSON_AddNumberToObject(v, "logged", r->logged);
    cJSON_AddNumberToObject(v, "derived", r->derived);
}

static err_code print_one_json(const replay_report *r, err *e) {
    cJSON *v = cJSON_CreateObject();
    if (!v) return err_nomem(e, "output");
    cJSON_AddStringToObject(v, "outcome", replay_outcome_name(r->outcome));
    cJSON_AddNumberToObject(v, "admitted", (double)r->admitted);
    if (r->ended) cJSON_AddNumberToObject(v, "ended", (double)r->ended);
    if (r->artifact[0]) cJSON_AddStringToObject(v, "artifact", r->artifact);
    cJSON_AddNumberToObject(v, "numerics", POLDER_NUMERICS);
    cJSON_AddStringToObject(v, "isa", engine_isa());
    cJSON_AddNumberToObject(v, r->vectors ? "inputs" : "choices", r->n);
    cJSON_AddNumberToObject(v, "tokens", (double)r->tokens);
    if (r->outcome == REPLAY_UNEQUAL) put_difference(v, r);
    if (r->why[0]) cJSON_AddStringToObject(v, "why", r->why);
    return cli_print_json(v, e);
}

static void print_equal(const replay_report *r) {
    printf("equal: record %llu, ended by record %llu: ", (unsigned long long)r->admitted, (unsigned long long)r->ended);
    if (!r->n)
        printf("nothing was answered, so there is nothing to derive\n");
    else if (r->vectors)
        printf("%u %s, every number the same, derived with %s\n", r->n, r->n == 1 ? "input" : "inputs", engine_isa());
    else
        printf("%u %s, %llu tokens, the same tokens and the same bits of every logit, derived with %s\n", r->n,
               r->n == 1 ? "choice" : "choices", (unsigned long long)r->tokens, engine_isa());
}

static err_code print_one(const cli *c, const replay_report *r, err *e) {
    if (c->json) {
        err_code rc = print_one_json(r, e);
        if (rc) return rc;
    } else if (r->outcome == REPLAY_EQUAL) {
        print_equal(r);
    } else {
        buf line = {.max = 4096};
        buf_printf(&line, "%s: record %llu: %s%s\n", r->outcome == REPLAY_UNEQUAL ? "NOT EQUAL" : "not possible",
                   (unsigned long long)r->admitted, r->why,
                   r->outcome != REPLAY_UNEQUAL || !r->token ? ""
                   : r->digest                               ? "; the logits that it was drawn from differ too"
                                                             : "; the logits that it was drawn from are the same bits");
        err_code rc = cli_print_foreign(buf_str(&line), line.len, e);
        buf_free(&line);
        if (rc) return rc;
    }
    if (r->outcome == REPLAY_UNEQUAL) return err_set(e, ERR_NO, "the answer is not what its records lead to");
    if (r->outcome == REPLAY_NOT_POSSIBLE) return err_set(e, ERR_UNSUPPORTED, "the answer could not be derived");
    return ERR_OK;
}

static err_code replay_one(cli *c, island *i, replayer *r, err *e) {
    uint64_t seq = 0;
    replay_report out;
    err_code rc = find_seq(c->args[0], i, &seq, e);
    if (!rc) rc = replay_answer(r, seq, &out, e);
    return rc ? rc : print_one(c, &out, e);
}

/* ---- many -------------------------------------------------------------------------------------------------- */

typedef struct check {
    cli *c;
    replay_list list;
    uint64_t answers, seed;
    bool record;
    uint64_t n[3];    /* by outcome */
    cJSON *names[3];  /* records by outcome */
    uint64_t n_shown; /* lines */
    uint64_t recorded;
} check;

/* "1%", "0.5%" or "200" of n; at least one where there is any. */
static err_code sample_size(const char *text, size_t n, size_t *out, err *e) {
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    bool percent = *end == '%' && !end[1];
    bool digit = *text >= '0' && *text <= '9';
    if (!digit || (!percent && (*end || floor(v) != v)) || errno || !(v > 0) || (percent && v > 100) || v > 1e15)
        return err_set(e, ERR_USAGE, "--sample %s: give a share (1%%) or a number of answers (200)", text);
    double want = percent ? ceil((double)n * v / 100) : v;
    *out = want < (double)n ? (size_t)want : n;
    return ERR_OK;
}

static err_code choose(check *k, replayer *r, err *e) {
    cli *c = k->c;
    bool range = cli_flag(c, "from") || cli_flag(c, "through");
    uint64_t since = range ? (uint64_t)cli_int(c, "from", 0) : REPLAY_SINCE_LAST_CHECK;
    uint64_t through = cli_flag(c, "through") ? (uint64_t)cli_int(c, "through", 0) + 1 : UINT64_MAX;
    const char *seed = cli_text(c, "seed", NULL), *sample = cli_text(c, "sample", NULL);
    size_t n = 0;
    k->record = !range;
    k->seed = random_u64();
    if (seed && parse_u64(seed, &k->seed)) return err_set(e, ERR_USAGE, "--seed %s: it must be a whole number", seed);
    err_code rc = replay_find(r, since, through, &k->list, e);
    if (rc) return rc;
    k->answers = n = k->list.n;
    if (sample) rc = sample_size(sample, k->list.n, &n, e);
    if (!rc) rc = replay_draw(&k->list, n, k->seed, e);
    return rc ? rc : replay_sort(r, &k->list, e);
}

static err_code note_outcome(check *k, const replay_report *r, err *e) {
    k->n[r->outcome]++;
    cJSON *seq = cJSON_CreateNumber((double)r->admitted);
    if (!seq || !cJSON_AddItemToArray(k->names[r->outcome], seq)) {
        cJSON_Delete(seq);
        return err_nomem(e, "the outcome of a check");
    }
    if (r->outcome == REPLAY_EQUAL || k->n_shown++ >= SHOWN_MAX) return ERR_OK;
    if (k->c->json) return print_one_json(r, e);
    buf line = {.max = 4096};
    buf_printf(&line, "%s: record %llu: %s\n", r->outcome == REPLAY_UNEQUAL ? "NOT EQUAL" : "not possible",
               (unsigned long long)r->admitted, r->why);
    err_code rc = cli_print_foreign(buf_str(&line), line.len, e);
    buf_free(&line);
    return rc;
}

static err_code replay_all(check *k, replayer *r, err *e) {
    progress p;
    err_code rc = ERR_OK;
    progress_begin(&p, "replaying");
    for (size_t i = 0; i < k->list.n && !rc; i++) {
        replay_report out;
        rc = replay_answer(r, k->list.items[i].ended, &out, e);
        if (!rc && out.outcome != REPLAY_EQUAL) progress_end(&p);
        if (!rc) rc = note_outcome(k, &out, e);
        progress_count(&p, i + 1, k->list.n, "answers");
    }
    progress_end(&p);
    return rc;
}

static cJSON *facts_of(check *k) {
    char seed[24];
    cJSON *v = cJSON_CreateObject(), *names = v ? cJSON_AddObjectToObject(v, "outcomes") : NULL;
    if (!names) {
        cJSON_Delete(v);
        return NULL;
    }
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)k->seed);
    cJSON_AddNumberToObject(v, "since", (double)k->list.since);
    cJSON_AddNumberToObject(v, "through", (double)k->list.through);
    cJSON_AddNumberToObject(v, "answers", (double)k->answers);
    cJSON_AddNumberToObject(v, "others", (double)k->list.others);
    cJSON_AddNumberToObject(v, "drawn", (double)k->list.n);
    cJSON_AddStringToObject(v, "seed", seed);
    cJSON_AddNumberToObject(v, "numerics", POLDER_NUMERICS);
    cJSON_AddStringToObject(v, "isa", engine_isa());
    for (int o = REPLAY_EQUAL; o <= REPLAY_NOT_POSSIBLE; o++) {
        const char *name = replay_outcome_name((replay_outcome)o);
        cJSON_AddNumberToObject(v, name, (double)k->n[o]);
        if (cJSON_AddItemToObject(names, name, k->names[o])) k->names[o] = NULL;
    }
    return v;
}

static err_code keep(check *k, cJSON **facts, err *e) {
    *facts = facts_of(k);
    if (!*facts) return err_nomem(e, "the outcome of a check");
    if (!k->record) return ERR_OK;
    cJSON *reply = NULL, *args = cJSON_Duplicate(*facts, true);
    err_code rc = cli_admin(k->c, "audit.replayed", args, &reply, e);
    const cJSON *seq = rc ? NULL : json_get(reply, "record");
    if (cJSON_IsNumber(seq)) {
        k->recorded = (uint64_t)seq->valuedouble;
        cJSON_AddNumberToObject(*facts, "recorded", seq->valuedouble);
    }
    cJSON_Delete(reply);
    return rc;
}

static void print_many(const check *k) {
    printf("replayed %zu of %llu answers of the local engine in records %llu to %llu with %s", k->list.n,
           (unsigned long long)k->answers, (unsigned long long)k->list.since,
           (unsigned long long)(k->list.through ? k->list.through - 1 : 0), engine_isa());
    if (k->list.n < k->answers) printf(", drawn with seed %llu", (unsigned long long)k->seed);
    printf(": %llu equal, %llu not equal, %llu not possible", (unsigned long long)k->n[REPLAY_EQUAL],
           (unsigned long long)k->n[REPLAY_UNEQUAL], (unsigned long long)k->n[REPLAY_NOT_POSSIBLE]);
    if (k->list.others) printf("; %llu more were given by providers", (unsigned long long)k->list.others);
    if (k->record) printf("; kept as record %llu", (unsigned long long)k->recorded);
    printf("\n");
}

static err_code finish(check *k, err *e) {
    cJSON *facts = NULL;
    err_code rc = keep(k, &facts, e);
    if (!rc && k->c->json) {
        cJSON_DeleteItemFromObjectCaseSensitive(facts, "outcomes"); /* the lines before tell, and the record */
        rc = cli_print_json(facts, e);
        facts = NULL;
    } else if (!rc) {
        print_many(k);
    }
    cJSON_Delete(facts);
    if (rc) return rc;
    if (k->n[REPLAY_UNEQUAL])
        return err_set(e, ERR_NO, "%llu answers are not what their records lead to",
                       (unsigned long long)k->n[REPLAY_UNEQUAL]);
    if (k->n[REPLAY_NOT_POSSIBLE])
        return err_set(e, ERR_UNSUPPORTED, "%llu answers could not be derived",
                       (unsigned long long)k->n[REPLAY_NOT_POSSIBLE]);
    return ERR_OK;
}

static err_code replay_many(cli *c, replayer *r, err *e) {
    check k = {.c = c};
    err_code rc = choose(&k, r, e);
    for (int o = 0; o < 3 && !rc; o++)
        if (!(k.names[o] = cJSON_CreateArray())) rc = err_nomem(e, "the outcome of a check");
    if (!rc) rc = replay_all(&k, r, e);
    if (!rc) rc = finish(&k, e);
    for (int o = 0; o < 3; o++) cJSON_Delete(k.names[o]);
    mem_free(k.list.items);
    return rc;
}

/* ---- the command ------------------------------------------------------------------------------------------- */

static err_code check_usage(const cli *c, err *e) {
    bool many = cli_flag(c, "sample") || cli_flag(c, "from") || cli_flag(c, "through");
    if (c->n_args == 1 && many)
        return err_set(e, ERR_USAGE,
                       "polder audit replay: give one answer (SEQ), or many (--sample, --from, --through)");
    if (!c->n_args && !many)
        return err_set(e, ERR_USAGE,
                       "polder audit replay: say which answer: SEQ, a receipt, or --sample 1%% for a random part");
    if (many && cli_flag(c, "weights"))
        return err_set(e, ERR_USAGE, "--weights: for one answer only; others may have been made by another model");
    return ERR_OK;
}

err_code run_audit_replay(cli *c, err *e) {
    err_code rc = check_usage(c, e);
    if (rc) return rc;
    const char *isa = cli_text(c, "isa", NULL);
    if (isa && setenv("POLDER_ISA", isa, 1) != 0) return err_nomem(e, "the environment");
    progress hashing;
    progress_begin(&hashing, "hashing the model");
    replay_options o = {.threads = (unsigned)cli_int(c, "threads", 0),
                        .weights = cli_text(c, "weights", NULL),
                        .progress = progress_step,
                        .ctx = &hashing};
    island *i = NULL;
    replayer *r = NULL;
    rc = island_open(&i, c->dir, ISLAND_READ, e);
    if (!rc) rc = replay_open(&r, i, &o, e);
    if (!rc) rc = c->n_args ? replay_one(c, i, r, e) : replay_many(c, r, e);
    progress_end(&hashing);
    replay_close(r);
    island_close(i);
    return rc;
}
