/* One answer of the ledger, derived anew: its records, its contents, its artifact. */
#include "inference/replay_internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENGINE_ROUTE "engine"

const char *replay_outcome_name(replay_outcome o) {
    static const char *const names[] = {"equal", "unequal", "not_possible"};
    return names[o];
}

/* ---- outcomes ---------------------------------------------------------------------------------------------- */

err_code replay_cannot(replay_case *x, const char *fmt, ...) {
    err e = {0};
    va_list ap;
    va_start(ap, fmt);
    err_setv(&e, ERR_UNSUPPORTED, fmt, ap);
    va_end(ap);
    x->cannot = true;
    memcpy(x->out->why, e.msg, sizeof x->out->why);
    return ERR_UNSUPPORTED;
}

err_code replay_cannot_err(replay_case *x, err_code rc, err *e) {
    bool broken = rc == ERR_NOMEM || rc == ERR_IO || rc == ERR_CANCELLED || rc == ERR_INTERNAL || rc == ERR_USAGE;
    return broken || x->cannot ? rc : replay_cannot(x, "%s", e->msg);
}

void replay_differs(replay_case *x, uint32_t choice, const char *fmt, ...) {
    if (x->out->outcome == REPLAY_UNEQUAL) return;
    err e = {0};
    va_list ap;
    va_start(ap, fmt);
    err_setv(&e, ERR_NO, fmt, ap);
    va_end(ap);
    x->out->outcome = REPLAY_UNEQUAL;
    x->out->choice = choice;
    memcpy(x->out->why, e.msg, sizeof x->out->why);
}

/* ---- records ----------------------------------------------------------------------------------------------- */

static err_code read_record(replayer *r, uint64_t seq, cJSON **out, err *e) {
    buf b = {.max = LEDGER_ENTRY_MAX + 1};
    *out = NULL;
    err_code rc = ledger_read(island_ledger(r->i), seq, &b, e);
    if (!rc) rc = json_parse(out, buf_str(&b), b.len, "a record", e);
    buf_free(&b);
    return rc;
}

static const char *text_of(const cJSON *o, const char *key) {
    const cJSON *v = json_get(o, key);
    return cJSON_IsString(v) ? v->valuestring : "";
}

static bool is_event(const cJSON *rec, const char *name) {
    return strcmp(text_of(rec, "event"), name) == 0;
}

uint64_t replay_u64(const cJSON *o, const char *key) {
    const cJSON *v = json_get(o, key);
    return cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble < 0x1p53 ? (uint64_t)v->valuedouble : 0;
}

bool replay_flag(const cJSON *o, const char *key) {
    return cJSON_IsTrue(json_get(o, key));
}

bool replay_digest(const cJSON *o, const char *key, uint8_t digest[SHA256_LEN]) {
    const char *hex = text_of(o, key);
    return hex_decode(digest, SHA256_LEN, hex, strlen(hex));
}

static bool is_outcome(const cJSON *rec) {
    return is_event(rec, "completed") || is_event(rec, "failed");
}

/* Whether the record belongs to the request that was admitted as `admitted`. */
static bool is_of(const cJSON *rec, uint64_t admitted) {
    return cJSON_IsNumber(json_get(rec, "request")) && replay_u64(rec, "request") == admitted;
}

/* From any record of an answer to its admitted one; the outcome where seq was that. */
static err_code find_admitted(replay_case *x, uint64_t seq, err *e) {
    cJSON *rec = NULL;
    err_code rc = read_record(x->r, seq, &rec, e);
    if (rc) return rc;
    x->out->admitted = seq;
    if (is_event(rec, "admitted")) {
        x->admitted = rec;
        return ERR_OK;
    }
    bool outcome = is_outcome(rec), of = outcome || is_event(rec, "rerouted") || is_event(rec, "egress");
    if (!of || !cJSON_IsNumber(json_get(rec, "request"))) {
        rc = err_set(e, ERR_USAGE,
                     "record %llu is \"%s\" and belongs to no answer; polder audit ls --event completed lists answers",
                     (unsigned long long)seq, text_of(rec, "event"));
        cJSON_Delete(rec);
        return rc;
    }
    x->out->admitted = replay_u64(rec, "request");
    if (outcome) {
        x->ended = rec;
        x->out->ended = seq;
    } else {
        cJSON_Delete(rec);
    }
    rc = read_record(x->r, x->out->admitted, &x->admitted, e);
    if (!rc && !is_event(x->admitted, "admitted"))
        rc = err_set(e, ERR_CORRUPT, "record %llu names record %llu as its request, which is \"%s\"",
                     (unsigned long long)seq, (unsigned long long)x->out->admitted, text_of(x->admitted, "event"));
    return rc;
}

typedef bool is_wanted(const replay_case *x, const cJSON *rec);

static bool is_its_outcome(const replay_case *x, const cJSON *rec) {
    return is_outcome(rec);
}

/* The attempt that answered was not the first: the engine took the request over. */
static bool is_its_rerouting(const replay_case *x, const cJSON *rec) {
    return is_event(rec, "rerouted") && replay_u64(rec, "attempt") == replay_u64(x->ended, "attempt");
}

/* The first record of this request before `end` that is wanted; *out stays NULL where there is none. */
static err_code find_record(const replay_case *x, is_wanted *wanted, uint64_t end, cJSON **out, uint64_t *at, err *e) {
    for (uint64_t seq = x->out->admitted + 1; seq < end; seq++) {
        cJSON *rec = NULL;
        err_code rc = read_record(x->r, seq, &rec, e);
        if (rc) return rc;
        if (is_of(rec, x->out->admitted) && wanted(x, rec)) {
            *out = rec;
            *at = seq;
            return ERR_OK;
        }
        cJSON_Delete(rec);
    }
    return ERR_OK;
}

static err_code find_others(replay_case *x, err *e) {
    uint64_t size = ledger_size(island_ledger(x->r->i));
    err_code rc = x->ended ? ERR_OK : find_record(x, is_its_outcome, size, &x->ended, &x->out->ended, e);
    if (rc || !x->ended || replay_u64(x->ended, "attempt") < 2) return rc;
    return find_record(x, is_its_rerouting, x->out->ended, &x->rerouted, &x->facts_seq, e);
}

/* Records made before there was a choice do not say it: f16. */
static err_code find_kv(replay_case *x) {
    const cJSON *kv = json_get(x->facts, "kv");
    if (!kv || (cJSON_IsString(kv) && kv_format_parse(&x->kv, kv->valuestring))) return ERR_OK;
    return replay_cannot(x,
                         "record %llu: keys and values were held as \"%.20s\", which this polder does not know; use a "
                         "polder that does",
                         (unsigned long long)x->out->admitted, text_of(x->facts, "kv"));
}

/* Which record says how the answer was made; that it was made here, by these numerics. */
static err_code find_facts(replay_case *x) {
    replay_report *out = x->out;
    if (!x->ended)
        return replay_cannot(x,
                             "record %llu: the request has no outcome in the ledger: it is still being answered, or "
                             "the ledger could not be written when it ended",
                             (unsigned long long)out->admitted);
    const char *route = text_of(x->ended, "route");
    if (!*route) return ERR_OK; /* nobody began to answer */
    if (strcmp(route, ENGINE_ROUTE) != 0)
        return replay_cannot(x,
                             "record %llu: provider %s gave this answer; what a provider computes cannot be derived "
                             "here, and its tokens and logits are not known",
                             (unsigned long long)out->admitted, route);
    bool first = replay_u64(x->ended, "attempt") < 2;
    x->facts = first ? x->admitted : x->rerouted;
    if (first) x->facts_seq = out->admitted;
    if (!x->facts)
        return replay_cannot(x, "record %llu: the engine answered, and no record says with what",
                             (unsigned long long)out->admitted);
    snprintf(out->artifact, sizeof out->artifact, "%s", text_of(x->facts, "artifact"));
    uint64_t version = replay_u64(x->facts, "numerics");
    if (version != POLDER_NUMERICS)
        return replay_cannot(x,
                             "record %llu: version %llu of the numerics made this answer and this polder computes "
                             "version %d; use a polder of that version",
                             (unsigned long long)out->admitted, (unsigned long long)version, POLDER_NUMERICS);
    return find_kv(x);
}

/* ---- contents ---------------------------------------------------------------------------------------------- */

bool replay_has_content(const cJSON *rec, const char *name) {
    return json_get(json_get(rec, "content"), name) != NULL;
}

err_code replay_content(replay_case *x, uint64_t seq, const char *name, buf *out, err *e) {
    err sub = {0};
    out->max = LEDGER_CONTENT_MAX;
    err_code rc = ledger_content(island_ledger(x->r->i), seq, name, out, &sub);
    if (!rc) return ERR_OK;
    if (e) *e = sub;
    return rc == ERR_NOT_FOUND ? replay_cannot(x, "%s", sub.msg) : replay_cannot_err(x, rc, &sub);
}

err_code replay_tokens(replay_case *x, uint64_t seq, const char *name, int32_t **out, size_t *n, err *e) {
    buf b = {0};
    *out = NULL;
    *n = 0;
    err_code rc = replay_content(x, seq, name, &b, e);
    if (!rc && b.len % 4)
        rc = replay_cannot(x, "record %llu: content %s is no list of tokens", (unsigned long long)seq, name);
    if (!rc) {
        *n = b.len / 4;
        *out = mem_array(*n ? *n : 1, sizeof **out);
        if (!*out) rc = err_nomem(e, "tokens");
    }
    for (size_t i = 0; !rc && i < *n; i++) {
        const uint8_t *p = (const uint8_t *)b.ptr + 4 * i;
        (*out)[i] = (int32_t)((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
    }
    if (b.ptr) mem_wipe(b.ptr, b.len);
    buf_free(&b);
    return rc;
}

/* ---- the model --------------------------------------------------------------------------------------------- */

static void model_drop(replay_model *m) {
    session_free(m->sess);
    grammar_cache_free(m->grammars);
    answer_format_free(m->format);
    special_set_free(m->special);
    model_free(m->m);
    *m = (replay_model){0};
}

static err_code open_file(replay_model *m, const char *path, err *e) {
    err_code rc = model_open(&m->m, path, e);
    if (!rc) rc = special_set_new(&m->special, m->m, e);
    if (!rc) rc = answer_format_new(&m->format, model_template(m->m), m->special, e);
    if (!rc) rc = grammar_cache_new(&m->grammars, e);
    return rc;
}

/* The bytes that the record names, and no others. */
static err_code open_artifact(replay_case *x, const uint8_t digest[SHA256_LEN], err *e) {
    replayer *r = x->r;
    char path[4096];
    err sub = {0};
    store *s = island_store(r->i);
    err_code rc = store_blob_path(s, digest, path, sizeof path, &sub);
    if (rc == ERR_NOT_FOUND)
        return replay_cannot(x,
                             "artifact %s (model '%s') is not in this island's store; import the file with these bytes "
                             "again: polder model add",
                             x->out->artifact, text_of(x->admitted, "model"));
    if (!rc) rc = store_blob_verify(s, digest, r->o.progress, r->o.ctx, &sub);
    if (rc == ERR_CORRUPT)
        return replay_cannot(x, "artifact %s (model '%s') is damaged: %s", x->out->artifact,
                             text_of(x->admitted, "model"), sub.msg);
    if (!rc) rc = open_file(&r->now, path, &sub);
    if (rc && e) *e = sub;
    return rc ? replay_cannot_err(x, rc, &sub) : ERR_OK;
}

static err_code find_model(replay_case *x, err *e) {
    replayer *r = x->r;
    uint8_t digest[SHA256_LEN];
    const char *name = x->out->artifact;
    if (strncmp(name, "sha256:", 7) != 0 || !hex_decode(digest, SHA256_LEN, name + 7, strlen(name + 7)))
        return replay_cannot(x, "record %llu names no artifact", (unsigned long long)x->facts_seq);
    if (r->now.m && (r->o.weights || memcmp(r->now.digest, digest, SHA256_LEN) == 0)) return ERR_OK;
    model_drop(&r->now);
    err sub = {0};
    err_code rc = ERR_OK;
    if (r->o.weights)
        rc = open_file(&r->now, r->o.weights, &sub);
    else
        rc = open_artifact(x, digest, &sub);
    if (!rc) memcpy(r->now.digest, digest, SHA256_LEN);
    if (!rc) return ERR_OK;
    model_drop(&r->now);
    if (e) *e = sub;
    return rc;
}

err_code replay_session(replay_case *x, bool hidden, uint32_t step_tokens, err *e) {
    replay_model *m = &x->r->now;
    if (m->sess && m->hidden == hidden && m->kv == x->kv && m->step_tokens >= step_tokens) return ERR_OK;
    session_free(m->sess);
    m->sess = NULL;
    session_options o = {
        .n_threads = x->r->o.threads, .n_seq_max = 1, .kv = x->kv, .max_step_tokens = step_tokens, .hidden = hidden};
    err sub = {0};
    err_code rc = session_new(&m->sess, m->m, &o, &sub);
    m->hidden = hidden;
    m->kv = x->kv;
    m->step_tokens = step_tokens;
    if (rc && e) *e = sub;
    return rc ? replay_cannot_err(x, rc, &sub) : ERR_OK;
}

err_code replay_step(replay_case *x, chunk *c, err *e) {
    err sub = {0};
    err_code rc = session_step(x->r->now.sess, c, 1, &sub);
    if (rc && e) *e = sub;
    return rc ? replay_cannot_err(x, rc, &sub) : ERR_OK;
}

/* ---- one answer -------------------------------------------------------------------------------------------- */

static err_code run_case(replay_case *x, uint64_t seq, err *e) {
    err_code rc = find_admitted(x, seq, e);
    if (!rc) rc = find_others(x, e);
    if (!rc) rc = find_facts(x);
    if (rc || !x->facts) return rc;
    x->params = json_get(x->admitted, "params");
    if (x->rerouted && json_get(x->rerouted, "params")) x->params = json_get(x->rerouted, "params");
    x->out->vectors = json_get(x->params, "pooling") != NULL;
    rc = replay_tokens(x, x->facts_seq, "prompt_tokens", &x->prompt, &x->n_prompt, e);
    if (!rc && !x->n_prompt)
        rc = replay_cannot(x, "record %llu: the prompt has no tokens", (unsigned long long)x->facts_seq);
    if (!rc) rc = find_model(x, e);
    if (rc) return rc;
    return x->out->vectors ? replay_vectors(x, e) : replay_text(x, e);
}

err_code replay_answer(replayer *r, uint64_t seq, replay_report *out, err *e) {
    err local = {0};
    replay_case x = {.r = r, .out = out};
    *out = (replay_report){.outcome = REPLAY_EQUAL, .logged = -1, .derived = -1};
    err_code rc = run_case(&x, seq, e ? e : &local);
    if (x.cannot) {
        out->outcome = REPLAY_NOT_POSSIBLE;
        rc = ERR_OK;
    }
    if (x.prompt) mem_wipe(x.prompt, x.n_prompt * sizeof *x.prompt);
    mem_free(x.prompt);
    cJSON_Delete(x.admitted);
    cJSON_Delete(x.ended);
    cJSON_Delete(x.rerouted);
    return rc;
}

/* ---- life -------------------------------------------------------------------------------------------------- */

err_code replay_open(replayer **out, island *i, const replay_options *o, err *e) {
    *out = NULL;
    err_code rc = engine_init(e);
    if (rc) return rc;
    replayer *r = mem_zalloc(sizeof *r);
    if (!r) return err_nomem(e, "a replay");
    r->i = i;
    r->o = *o;
    *out = r;
    return ERR_OK;
}

void replay_close(replayer *r) {
    if (!r) return;
    model_drop(&r->now);
    mem_free(r);
}
