/* What suite.mjs and random.mjs drive. Reads JSON lines, writes JSON lines.
 *
 *   schema_tool walk MODEL      {"schema": …, "letter": bool, "instances": ["text", …]}
 *                               → {"ok": true, "accepted": [bool, …]} or {"ok": false, "code": …, "error": …}
 *   schema_tool draw MODEL      {"schema": …, "seed": n, "temperature": t, "max_tokens": n}
 *                               → {"ok": true, "finish": "stop" or "length", "text": …, "tokens": n, "mask_us": …}
 *
 * walk feeds each instance's text through a constraint. The order of properties is a question of form, so it is
 * searched for: what counts is whether there is an order in which the value may be written. draw lets the model write,
 * with what the engine offers itself: a session, a sampler, a constraint. */
#include "base/json.h"
#include "base/mem.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static model *m;

/* This thread's own time: what other programs take of the machine does not count. */
static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const err *e) {
    buf out = {.max = 1 << 20};
    jw w;
    jw_init(&w, &out);
    jw_obj(&w);
    jw_kbool(&w, "ok", false);
    jw_kstr(&w, "code", err_name(e->code));
    jw_kstr(&w, "error", e->msg);
    jw_obj_end(&w);
    puts(buf_str(&out));
    fflush(stdout);
    buf_free(&out);
}

/* ---- walk --------------------------------------------------------------------------------------------------- */

typedef struct walker {
    constraint *c;
    uint32_t taken; /* steps, for rolling back */
    uint32_t tries;
} walker;

static bool take(walker *w, const char *p, size_t n) {
    if (constraint_accept_bytes(w->c, p, n, NULL) != ERR_OK) return false;
    w->taken++;
    return true;
}

static void back(walker *w, uint32_t to) {
    err e;
    if (constraint_rollback(w->c, w->taken - to, &e) != ERR_OK) abort();
    w->taken = to;
}

static bool walk_value(walker *w, const cJSON *v);

static bool walk_scalar(walker *w, const cJSON *v) {
    buf text = {.max = 1 << 20};
    bool ok = json_canonical(&text, v, NULL) == ERR_OK && take(w, text.ptr, text.len);
    buf_free(&text);
    return ok;
}

/* The rest of an object, in any order that goes. */
static bool walk_members(walker *w, const cJSON **left, int n, bool first) {
    if (++w->tries > 20000) return false;
    if (n == 0) return take(w, "}", 1);
    for (int i = 0; i < n; i++) {
        uint32_t at = w->taken;
        const cJSON *x = left[i];
        buf key = {.max = 1 << 20};
        json_string(&key, x->string, strlen(x->string));
        bool ok = (first || take(w, ",", 1)) && take(w, key.ptr, key.len) && take(w, ":", 1) && walk_value(w, x);
        buf_free(&key);
        if (ok) {
            memmove(left + i, left + i + 1, (size_t)(n - i - 1) * sizeof *left);
            if (walk_members(w, left, n - 1, false)) return true;
            memmove(left + i + 1, left + i, (size_t)(n - i - 1) * sizeof *left);
            left[i] = x;
        }
        back(w, at);
    }
    return false;
}

static bool walk_value(walker *w, const cJSON *v) {
    if (!cJSON_IsArray(v) && !cJSON_IsObject(v)) return walk_scalar(w, v);
    const cJSON *left[256], *x;
    int n = 0;
    bool object = cJSON_IsObject(v);
    if (!take(w, object ? "{" : "[", 1)) return false;
    cJSON_ArrayForEach(x, v) {
        if (n == 256) return false;
        left[n++] = x;
    }
    if (object) return walk_members(w, left, n, true);
    for (int i = 0; i < n; i++)
        if ((i && !take(w, ",", 1)) || !walk_value(w, left[i])) return false;
    return take(w, "]", 1);
}

static bool walk(grammar *g, const char *text) {
    err e;
    cJSON *v = NULL;
    walker w = {0};
    bool ok = json_parse(&v, text, strlen(text), "instance", &e) == ERR_OK && constraint_new(&w.c, g, &e) == ERR_OK;
    ok = ok && walk_value(&w, v) && constraint_can_end(w.c);
    constraint_free(w.c);
    cJSON_Delete(v);
    return ok;
}

static void do_walk(const cJSON *job, grammar *g) {
    const cJSON *x;
    buf out = {.max = 1 << 24};
    jw w;
    jw_init(&w, &out);
    jw_obj(&w);
    jw_kbool(&w, "ok", true);
    jw_key(&w, "accepted");
    jw_arr(&w);
    cJSON_ArrayForEach(x, json_get(job, "instances")) jw_bool(&w, walk(g, x->valuestring));
    jw_arr_end(&w);
    jw_obj_end(&w);
    puts(buf_str(&out));
    fflush(stdout);
    buf_free(&out);
}

/* ---- draw --------------------------------------------------------------------------------------------------- */

typedef struct answer {
    buf text;
    const char *finish;
    int64_t n;
    uint64_t mask_ns, worst_ns;
} answer;

static err_code draw(const cJSON *job, grammar *g, answer *a, err *e) {
    sampler_params p;
    sampler_params_default(&p);
    double temperature = 1;
    int64_t seed = 0, max = 256;
    (void)json_get_num(job, "temperature", 0, 2, &temperature, NULL);
    (void)json_get_int(job, "seed", 0, INT32_MAX, &seed, NULL);
    (void)json_get_int(job, "max_tokens", 1, 100000, &max, NULL);
    p.temperature = (float)temperature;
    p.seed = (uint64_t)seed;
    session *s = NULL;
    sampler *smp = NULL;
    constraint *c = NULL, *follow = NULL;
    int seq = -1;
    session_options so = {.n_threads = 1, .n_seq_max = 1};
    int32_t token = model_token_bos(m) >= 0 ? model_token_bos(m) : 0;
    err_code rc = session_new(&s, m, &so, e);
    if (!rc) rc = session_seq_new(s, &seq, e);
    if (!rc) rc = sampler_new(&smp, m, &p, e);
    if (!rc) rc = constraint_new(&follow, g, e);
    if (!rc) rc = constraint_clone(&c, follow, e);
    if (follow && smp) sampler_constrain(smp, follow);
    if (max > session_n_ctx(s) - 1) max = session_n_ctx(s) - 1;
    a->finish = "length";
    for (; !rc && a->n < max; a->n++) {
        chunk k = {.seq = seq, .tokens = &token, .n = 1, .n_logits = 1};
        sampled out;
        if ((rc = session_step(s, &k, 1, e))) break;
        const uint64_t *mask;
        uint64_t t0 = cpu_ns();
        rc = constraint_mask(c, &mask, e); /* the clone shares its masks with the sampler's: the time is taken here */
        uint64_t ns = cpu_ns() - t0;
        a->mask_ns += ns;
        if (ns > a->worst_ns) a->worst_ns = ns;
        if (rc) break;
        sampler_draw(smp, k.logits, (uint32_t)a->n + 1, false, 0, NULL, &out);
        token = out.token;
        if (token < 0) {
            *e = *sampler_error(smp);
            rc = e->code;
            break;
        }
        if ((rc = constraint_accept(c, token, e))) break;
        if (model_token_is_end(m, token)) {
            a->finish = "stop";
            break;
        }
        model_token_bytes(m, token, false, &a->text);
    }
    constraint_free(c);
    sampler_free(smp);
    session_free(s);
    return rc;
}

static void do_draw(const cJSON *job, grammar *g) {
    answer a = {.text = {.max = 1 << 24}};
    err e = {0};
    err_code rc = draw(job, g, &a, &e);
    if (rc) {
        fail(&e);
    } else {
        buf out = {.max = 1 << 25};
        jw w;
        jw_init(&w, &out);
        jw_obj(&w);
        jw_kbool(&w, "ok", true);
        jw_kstr(&w, "finish", a.finish);
        jw_key(&w, "text");
        jw_strn(&w, buf_str(&a.text), a.text.len);
        jw_kint(&w, "tokens", a.n);
        jw_knum(&w, "mask_us", (double)a.mask_ns / 1e3);
        jw_knum(&w, "worst_us", (double)a.worst_ns / 1e3);
        jw_obj_end(&w);
        puts(buf_str(&out));
        fflush(stdout);
        buf_free(&out);
    }
    buf_free(&a.text);
}

int main(int argc, char **argv) {
    base_init();
    err e = {0};
    if (argc != 3 || engine_init(&e) != ERR_OK || model_open(&m, argv[2], &e) != ERR_OK) {
        fprintf(stderr, "schema_tool walk|draw MODEL: %s\n", e.msg);
        return 2;
    }
    bool draws = strcmp(argv[1], "draw") == 0;
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        cJSON *job = NULL;
        grammar *g = NULL;
        err_code rc = json_parse(&job, line, (size_t)n, "line", &e);
        if (!rc) {
            schema_options o = {0};
            (void)json_get_bool(job, "letter", &o.to_the_letter, NULL);
            rc = grammar_new_json_schema(&g, m, cJSON_GetObjectItemCaseSensitive(job, "schema"), &o, &e);
        }
        if (rc)
            fail(&e);
        else if (draws)
            do_draw(job, g);
        else
            do_walk(job, g);
        grammar_free(g);
        cJSON_Delete(job);
    }
    free(line);
    model_free(m);
    return 0;
}
