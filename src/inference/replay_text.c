/* A text answer derived anew: rows of logits of all positions at once, then the sampler over them.
 *
 * Position p of a sequence gives the row that token p + 1 is drawn from; the answer's first token comes from the last
 * of the prompt. So of n prompt tokens and k rows, positions n - 1 to n + k - 2 are asked for logits, and where the
 * log-probabilities of an echoed prompt were told, positions 0 on. */
#include "inference/replay_internal.h"
#include "inference/tool_grammar.h"

#include "base/json.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct derivation {
    replay_case *x;
    request r; /* what the sampler and the text need of it; its strings lie in `form` and `text` */
    logit_bias *bias;
    cJSON *form, *tools;
    buf text; /* the prompt as the model read it */
    grammar *grammar;
    uint32_t max_new;
    uint32_t row_max; /* rows of one step */
} derivation;

/* One choice under way. */
typedef struct walk {
    uint32_t index;
    const cJSON *rec;
    const int32_t *tokens; /* behind the prompt's in `all` */
    size_t n_tokens;
    int32_t *all; /* prompt, then tokens */
    uint64_t rows, prompt_rows;
    sampler *sampler;
    sha256 digest, prompt_digest;
    bool off; /* a token differs: what follows from it is not drawn any more */
} walk;

/* ---- what was asked ---------------------------------------------------------------------------------------- */

static float number(const cJSON *o, const char *key, float def) {
    const cJSON *v = json_get(o, key);
    return cJSON_IsNumber(v) ? (float)v->valuedouble : def;
}

static bool read_seed(const cJSON *params, uint64_t *seed) {
    const cJSON *v = json_get(params, "seed");
    char *end = NULL;
    if (!cJSON_IsString(v) || v->valuestring[0] < '0' || v->valuestring[0] > '9') return false;
    errno = 0;
    *seed = strtoull(v->valuestring, &end, 10);
    return !*end && !errno;
}

static err_code read_bias(derivation *d, const cJSON *params, err *e) {
    const cJSON *list = json_get(params, "logit_bias"), *pair;
    int n = cJSON_GetArraySize(list);
    if (!n) return ERR_OK;
    d->bias = mem_array((size_t)n, sizeof *d->bias);
    if (!d->bias) return err_nomem(e, "a replay");
    cJSON_ArrayForEach(pair, list) {
        const cJSON *token = cJSON_GetArrayItem(pair, 0), *bias = cJSON_GetArrayItem(pair, 1);
        if (!cJSON_IsNumber(token) || !cJSON_IsNumber(bias))
            return replay_cannot(d->x, "record %llu: params.logit_bias is malformed",
                                 (unsigned long long)d->x->out->admitted);
        d->bias[d->r.sampling.n_bias++] = (logit_bias){(int32_t)token->valuedouble, (float)bias->valuedouble};
    }
    d->r.sampling.bias = d->bias;
    return ERR_OK;
}

static err_code read_params(derivation *d, err *e) {
    replay_case *x = d->x;
    const cJSON *p = x->params;
    sampler_params *s = &d->r.sampling;
    if (!p || !read_seed(p, &s->seed))
        return replay_cannot(x, "record %llu: params has no seed", (unsigned long long)x->out->admitted);
    s->temperature = number(p, "temperature", 1);
    s->top_k = (int32_t)number(p, "top_k", 0);
    s->top_p = number(p, "top_p", 1);
    s->min_p = number(p, "min_p", 0);
    s->repeat_penalty = number(p, "repeat_penalty", 1);
    s->repeat_last_n = (int32_t)number(p, "repeat_last_n", 0);
    s->frequency_penalty = number(p, "frequency_penalty", 0);
    s->presence_penalty = number(p, "presence_penalty", 0);
    d->r.echo = replay_flag(p, "echo");
    d->r.ignore_end = replay_flag(p, "ignore_end");
    d->r.parse = replay_flag(p, "parse");
    d->r.one_call = replay_flag(p, "one_call");
    d->r.tool_strict = replay_flag(p, "tool_strict");
    d->max_new = (uint32_t)replay_u64(x->rerouted ? x->rerouted : p, "max_tokens");
    return read_bias(d, p, e);
}

static grammar_kind kind_of(const char *name) {
    for (grammar_kind k = GRAMMAR_JSON_SCHEMA; k <= GRAMMAR_TEXT; k++)
        if (strcmp(name, answer_grammar_kind(k)) == 0) return k;
    return GRAMMAR_NONE;
}

/* The form in `o`: of the request as the engine got it, or as it came where nothing was replaced. */
static void take_form(request *r, const cJSON *o) {
    const cJSON *g = json_get(o, "grammar"), *stop;
    const char *kind = NULL, *only = NULL;
    r->tools = json_get(o, "tools");
    json_get_str(o, "tool_only", &only, NULL);
    r->tool_only = only;
    cJSON_ArrayForEach(stop, json_get(o, "stops")) if (cJSON_IsString(stop) && r->n_stops < REQUEST_STOPS_MAX)
        r->stops[r->n_stops++] = stop->valuestring;
    json_get_str(g, "kind", &kind, NULL);
    json_get_str(g, "source", &r->grammar_source, NULL);
    if (!kind || !r->grammar_source) return;
    r->grammar = kind_of(kind);
    r->grammar_len = strlen(r->grammar_source);
}

static err_code read_form(derivation *d, err *e) {
    replay_case *x = d->x;
    bool own = replay_has_content(x->facts, "form");
    uint64_t seq = own ? x->facts_seq : x->out->admitted;
    const char *name = own ? "form" : "request";
    if (!replay_has_content(own ? x->facts : x->admitted, name)) return ERR_OK;
    buf b = {0};
    err_code rc = replay_content(x, seq, name, &b, e);
    if (!rc) rc = json_parse(&d->form, buf_str(&b), b.len, "a request", e);
    if (b.ptr) mem_wipe(b.ptr, b.len);
    buf_free(&b);
    if (rc) return rc;
    take_form(&d->r, d->form);
    const char *tools = NULL; /* as text where their order counts */
    if (own && d->r.tools && json_get_str(d->form, "tools", &tools, e) == ERR_OK && tools) {
        rc = json_parse(&d->tools, tools, strlen(tools), "tools", e);
        d->r.tools = d->tools;
    }
    return rc;
}

/* ---- the grammar ------------------------------------------------------------------------------------------- */

static err_code check_digest(replay_case *x, const uint8_t made[SHA256_LEN], const uint8_t logged[SHA256_LEN]) {
    if (memcmp(made, logged, SHA256_LEN) == 0) return ERR_OK;
    return replay_cannot(x,
                         "record %llu: the grammar that follows from the request is not the one that the record names; "
                         "another version of polder made it",
                         (unsigned long long)x->out->admitted);
}

static err_code make_grammar(derivation *d, err *e) {
    replay_case *x = d->x;
    replay_model *m = &x->r->now;
    uint8_t logged[SHA256_LEN], made[SHA256_LEN];
    const char *choice = NULL;
    json_get_str(x->facts, "tool_choice", &choice, NULL);
    d->r.tool_must = choice && strcmp(choice, "strict") != 0;
    d->r.tool_strict |= choice && strcmp(choice, "strict") == 0;
    err sub = {0};
    err_code rc = ERR_OK;
    if (replay_digest(json_get(x->rerouted ? x->rerouted : x->params, "grammar"), "sha256", logged)) {
        if (!d->r.grammar)
            return replay_cannot(x, "record %llu: the source of its grammar is not in the vault",
                                 (unsigned long long)x->out->admitted);
        answer_grammar_digest(&d->r, made);
        rc = check_digest(x, made, logged);
        if (!rc)
            rc = answer_grammar_get(&d->grammar, m->grammars, m->m, m->format, &d->r, buf_str(&d->text), d->text.len,
                                    &sub);
    } else if (choice) {
        rc = tool_grammar_get(&d->grammar, made, m->grammars, m->m, m->format, &d->r, buf_str(&d->text), d->text.len,
                              &sub);
        if (!rc && replay_digest(x->facts, "tool_grammar", logged)) rc = check_digest(x, made, logged);
    }
    if (rc && e) *e = sub;
    return rc ? replay_cannot_err(x, rc, &sub) : ERR_OK;
}

/* ---- rows -------------------------------------------------------------------------------------------------- */

/* The row that token i of the answer was drawn from. */
static err_code take_row(derivation *d, walk *w, uint64_t i, const float *row) {
    replay_report *out = d->x->out;
    uint32_t n_vocab = model_get_facts(d->x->r->now.m)->n_vocab;
    if (w->off) {
        sha256_update(&w->digest, row, (size_t)n_vocab * sizeof *row);
        return ERR_OK;
    }
    sampled s;
    sampler_draw(w->sampler, row, (uint32_t)(d->x->n_prompt + i), false, 0, &w->digest, &s);
    if (i >= w->n_tokens) return ERR_OK; /* a draw that came to nothing */
    if (s.token == w->tokens[i]) return ERR_OK;
    w->off = true;
    if (out->outcome == REPLAY_UNEQUAL) return ERR_OK;
    replay_differs(d->x, w->index, "choice %u: token %llu of the answer is %d in the record and %d when it is derived",
                   w->index, (unsigned long long)i, (int)w->tokens[i], (int)s.token);
    out->token = true;
    out->position = i;
    out->logged = w->tokens[i];
    out->derived = s.token;
    return ERR_OK;
}

static void take_rows(derivation *d, walk *w, uint64_t at, const chunk *c) {
    uint32_t n_vocab = model_get_facts(d->x->r->now.m)->n_vocab;
    uint64_t first = d->x->n_prompt - 1;
    for (uint32_t k = 0; k < c->n_logits; k++) {
        uint64_t position = at + c->n - c->n_logits + k;
        const float *row = c->logits + (size_t)k * n_vocab;
        if (position < w->prompt_rows) sha256_update(&w->prompt_digest, row, (size_t)n_vocab * sizeof *row);
        if (position >= first && position - first < w->rows) take_row(d, w, position - first, row);
    }
}

/* Positions [at, …) that go into one step: all of them with logits, or none. */
static chunk next_chunk(const derivation *d, const walk *w, uint64_t at, uint64_t end) {
    uint64_t first = d->x->n_prompt - 1, border = end;
    bool wanted = at < w->prompt_rows || (w->rows && at >= first);
    if (at < w->prompt_rows)
        border = w->prompt_rows;
    else if (w->rows && at < first)
        border = first;
    uint64_t most = wanted ? d->row_max : REPLAY_STEP_TOKENS, n = border - at;
    if (n > most) n = most;
    return (chunk){.tokens = w->all + at, .n = (uint32_t)n, .n_logits = wanted ? (uint32_t)n : 0};
}

static err_code compute(derivation *d, walk *w, int seq, err *e) {
    session *s = d->x->r->now.sess;
    uint64_t end = w->rows ? d->x->n_prompt - 1 + w->rows : w->prompt_rows;
    uint64_t keep = w->prompt_rows ? 0 : d->x->n_prompt - 1;
    err_code rc = ERR_OK;
    for (uint64_t at = session_seq_truncate(s, seq, (uint32_t)keep); at < end && !rc;) {
        chunk c = next_chunk(d, w, at, end);
        c.seq = seq;
        rc = replay_step(d->x, &c, e);
        if (rc) break;
        take_rows(d, w, at, &c);
        at += c.n;
    }
    return rc;
}

/* ---- comparing --------------------------------------------------------------------------------------------- */

static bool same_digest(sha256 *of, const cJSON *rec, const char *key) {
    uint8_t made[SHA256_LEN], logged[SHA256_LEN];
    sha256_final(of, made);
    return replay_digest(rec, key, logged) && memcmp(made, logged, SHA256_LEN) == 0;
}

/* The text that the record keeps is what its tokens say, and the answer ended where it had to. */
static err_code compare_text(derivation *d, const walk *w, err *e) {
    replay_case *x = d->x;
    char name[24];
    buf said = {.max = LEDGER_CONTENT_MAX}, logged = {0};
    const char *finish = NULL, *ended = NULL;
    const char *outcome = NULL;
    bool ends = cJSON_IsString(json_get(w->rec, "finish"));
    replay_saying s = {.r = &d->r,
                       .prompt = x->prompt,
                       .n_prompt = x->n_prompt,
                       .tokens = w->tokens,
                       .n = w->n_tokens,
                       .prompt_text = buf_str(&d->text),
                       .prompt_text_len = d->text.len,
                       .max_new = d->max_new};
    snprintf(name, sizeof name, "answer_%c", 'a' + (int)w->index);
    if (!replay_has_content(x->ended, name)) return ERR_OK;
    err_code rc = replay_content(x, x->out->ended, name, &logged, e);
    if (!rc) rc = replay_say(&x->r->now, &s, &said, &finish, e);
    if (!rc) json_get_str(w->rec, "finish", &ended, NULL);
    json_get_str(x->ended, "event", &outcome, NULL);
    if (!rc && ends && (!finish || strcmp(finish, ended) != 0))
        replay_differs(x, w->index, "choice %u: the record says that it ended with \"%s\"; its tokens %s%s%s", w->index,
                       ended, finish ? "end it with \"" : "do not end it", finish ? finish : "", finish ? "\"" : "");
    /* of an answer that was cancelled the client got a part; the engine may have got further */
    bool fits = logged.len <= said.len && (strcmp(outcome, "completed") != 0 || logged.len == said.len);
    if (!rc && (!fits || (logged.len && memcmp(logged.ptr, said.ptr, logged.len) != 0)))
        replay_differs(x, w->index, "choice %u: the text of the answer in the vault is not what its tokens say",
                       w->index);
    if (said.ptr) mem_wipe(said.ptr, said.len);
    if (logged.ptr) mem_wipe(logged.ptr, logged.len);
    buf_free(&said);
    buf_free(&logged);
    return rc;
}

static void compare_digests(derivation *d, walk *w) {
    replay_report *out = d->x->out;
    bool was = out->outcome == REPLAY_UNEQUAL;
    bool rows = same_digest(&w->digest, w->rec, "logits_sha256");
    bool echoed = !w->prompt_rows || same_digest(&w->prompt_digest, w->rec, "prompt_logits_sha256");
    if (!rows || !echoed)
        replay_differs(d->x, w->index, "choice %u: every token is the same, and the logits %s are not", w->index,
                       rows ? "of its echoed prompt" : "that they were drawn from");
    if ((!rows || !echoed) && (!was || out->choice == w->index)) out->digest = true;
}

/* ---- a choice ---------------------------------------------------------------------------------------------- */

static err_code walk_begin(derivation *d, walk *w, err *e) {
    replay_case *x = d->x;
    int32_t *tokens = NULL;
    char name[24];
    snprintf(name, sizeof name, "tokens_%c", 'a' + (int)w->index);
    if (!replay_has_content(x->ended, name))
        return replay_cannot(x, "record %llu: the tokens of choice %u were not kept (memory was short when it ended)",
                             (unsigned long long)x->out->ended, w->index);
    err_code rc = replay_tokens(x, x->out->ended, name, &tokens, &w->n_tokens, e);
    if (!rc) w->all = mem_array(x->n_prompt + w->n_tokens, sizeof *w->all);
    if (!rc && !w->all) rc = err_nomem(e, "a replay");
    if (!rc) {
        memcpy(w->all, x->prompt, x->n_prompt * sizeof *w->all);
        if (w->n_tokens) memcpy(w->all + x->n_prompt, tokens, w->n_tokens * sizeof *w->all);
        w->tokens = w->all + x->n_prompt;
    }
    if (tokens) mem_wipe(tokens, w->n_tokens * sizeof *tokens);
    mem_free(tokens);
    w->rows = json_get(w->rec, "rows") ? replay_u64(w->rec, "rows") : w->n_tokens;
    w->prompt_rows = replay_u64(w->rec, "prompt_rows");
    if (!rc && (w->rows > w->n_tokens + 1 || w->rows < w->n_tokens || w->prompt_rows >= x->n_prompt))
        rc = replay_cannot(x, "record %llu: choice %u has %llu rows for %zu tokens", (unsigned long long)x->out->ended,
                           w->index, (unsigned long long)w->rows, w->n_tokens);
    return rc;
}

static err_code make_sampler(derivation *d, walk *w, err *e) {
    sampler_params p = d->r.sampling;
    constraint *follow = NULL;
    err sub = {0};
    p.seed += w->index;
    err_code rc = sampler_new(&w->sampler, d->x->r->now.m, &p, &sub);
    if (!rc) sampler_prompt(w->sampler, d->x->prompt, d->x->n_prompt);
    if (!rc && d->grammar) rc = constraint_new(&follow, d->grammar, &sub);
    if (follow) sampler_constrain(w->sampler, follow);
    if (rc && e) *e = sub;
    return rc ? replay_cannot_err(d->x, rc, &sub) : ERR_OK;
}

static err_code derive_choice(derivation *d, uint32_t index, const cJSON *rec, int seq, err *e) {
    walk w = {.index = index, .rec = rec};
    sha256_init(&w.digest);
    sha256_init(&w.prompt_digest);
    err_code rc = walk_begin(d, &w, e);
    if (!rc) rc = make_sampler(d, &w, e);
    if (!rc) rc = compute(d, &w, seq, e);
    if (!rc) compare_digests(d, &w);
    if (!rc) rc = compare_text(d, &w, e);
    if (!rc) d->x->out->tokens += w.n_tokens;
    if (!rc) d->x->out->n++;
    sampler_free(w.sampler);
    if (w.all) mem_wipe(w.all, (d->x->n_prompt + w.n_tokens) * sizeof *w.all);
    mem_free(w.all);
    return rc;
}

static err_code derive_choices(derivation *d, err *e) {
    replay_case *x = d->x;
    uint32_t n_vocab = model_get_facts(x->r->now.m)->n_vocab, rows = REPLAY_ROW_FLOATS / n_vocab;
    d->row_max = rows < 1 ? 1 : rows > REPLAY_STEP_TOKENS ? REPLAY_STEP_TOKENS : rows;
    err_code rc = replay_session(x, false, REPLAY_STEP_TOKENS, e);
    int seq = -1;
    if (!rc) rc = session_seq_new(x->r->now.sess, &seq, e);
    if (rc) return rc;
    const cJSON *rec;
    uint32_t index = 0;
    cJSON_ArrayForEach(rec, json_get(x->ended, "choices")) {
        if (index == REQUEST_CHOICES_MAX) break;
        rc = derive_choice(d, index++, rec, seq, e);
        if (rc) break;
    }
    session_seq_free(x->r->now.sess, seq);
    return rc;
}

err_code replay_text(replay_case *x, err *e) {
    derivation d = {.x = x};
    const char *model_name = "";
    json_get_str(x->admitted, "model", &model_name, NULL);
    d.r.model = model_name;
    err_code rc = ERR_OK;
    if (!x->r->now.format || model_get_facts(x->r->now.m)->encoder)
        rc = replay_cannot(x, "%s: this model makes no text", x->out->artifact);
    if (!rc) rc = read_params(&d, e);
    if (!rc) rc = read_form(&d, e);
    if (!rc && replay_has_content(x->facts, "prompt")) rc = replay_content(x, x->facts_seq, "prompt", &d.text, e);
    if (!rc) rc = make_grammar(&d, e);
    if (!rc) rc = derive_choices(&d, e);
    grammar_free(d.grammar);
    mem_free(d.bias);
    cJSON_Delete(d.form);
    cJSON_Delete(d.tools);
    if (d.text.ptr) mem_wipe(d.text.ptr, d.text.len);
    buf_free(&d.text);
    return rc;
}
