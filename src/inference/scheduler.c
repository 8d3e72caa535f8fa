#include "inference/scheduler_internal.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

/* The engine thread. Everything here but scheduler_new, scheduler_free and scheduler_kick runs on it. */

static uint32_t min_u32(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

/* Positions that a choice must have in the KV memory before its next row of logits; one less than it has tokens where
 * only the prompt is scored. */
static uint32_t choice_target(const choice *c) {
    const job_spec *spec = &c->j->spec;
    return spec->n_prompt + c->n_new - (spec->max_new == 0);
}

static bool wants_echo_rows(const choice *c) {
    return c->j->spec.echo && c->j->spec.want_logprobs && c->echoed < c->j->spec.n_prompt;
}

/* ---- KV memory ------------------------------------------------------------------------------------------- */

static uint32_t kv_pages(uint64_t positions) {
    return (uint32_t)((positions + KV_PAGE - 1) / KV_PAGE * KV_PAGE);
}

static void kv_hold(scheduler *s, choice *c, uint32_t positions) {
    s->kv_held += positions - c->held;
    metric_add(s->m_kv, (double)positions - c->held);
    c->held = positions;
}

static void remove_from(choice **list, uint32_t *n, const choice *c) {
    for (uint32_t i = 0; i < *n; i++) {
        if (list[i] != c) continue;
        memmove(list + i, list + i + 1, (*n - i - 1) * sizeof *list);
        (*n)--;
        return;
    }
}

static void leave_sequence(scheduler *s, choice *c) {
    if (c->seq < 0) return;
    session_seq_free(s->sess, c->seq);
    c->seq = -1;
    kv_hold(s, c, 0);
    remove_from(s->running, &s->n_running, c);
    metric_add(s->m_running, -1);
}

/* Its positions are computed again later, bit for bit the same. */
static void preempt(scheduler *s, choice *c) {
    leave_sequence(s, c);
    c->pos = 0;
    s->preempted[s->n_preempted++] = c;
    metric_add(s->m_preempted, 1);
}

/* Its reader is slow: it sits out steps until there is room in the mailbox. */
static bool is_paused(const choice *c) {
    return atomic_load(&c->j->paused);
}

static choice *paused_choice(const scheduler *s) {
    for (uint32_t i = s->n_running; i--;) {
        if (is_paused(s->running[i])) return s->running[i];
    }
    return NULL;
}

/* ---- ends -------------------------------------------------------------------------------------------------- */

static void job_leave_queue(scheduler *s, job *j) {
    pthread_mutex_lock(&s->lock);
    bool was = j->queued;
    if (was) {
        job **at = &s->head, *last = NULL;
        while (*at && *at != j) last = *at, at = &(*at)->next;
        if (*at) *at = j->next;
        if (s->tail == j) s->tail = last;
        j->next = NULL;
        j->queued = false;
        s->n_places--;
    }
    pthread_mutex_unlock(&s->lock);
    if (was) metric_add(s->m_queue, -1);
}

static void choice_close(scheduler *s, choice *c) {
    leave_sequence(s, c);
    remove_from(s->preempted, &s->n_preempted, c);
    sha256_final(&c->digest, c->logits_sha256);
    c->finished = true;
    pthread_mutex_lock(&s->lock);
    s->n_begun -= c->begun;
    pthread_mutex_unlock(&s->lock);
    c->j->n_live--;
}

/* End a job with an error, whatever its choices are doing. It must not be touched afterwards. */
static void job_fail(scheduler *s, job *j, err_code rc, const err *why) {
    job_leave_queue(s, j);
    for (uint32_t i = 0; i < s->n_chunks; i++) {
        if (s->chunk_of[i] && s->chunk_of[i]->j == j) s->chunk_of[i] = NULL;
    }
    for (uint32_t i = 0; i < j->spec.n_choices; i++) {
        if (!j->choices[i].finished) choice_close(s, &j->choices[i]);
    }
    j->ended_ns = time_mono_ns();
    job_post_end(j, rc, why);
}

static void job_fail_nomem(scheduler *s, job *j) {
    err e = {0};
    job_fail(s, j, err_nomem(&e, "an answer"), &e);
}

/* Send what the choice has ready; `reason` ends it. false: the job is over and gone. */
static bool choice_send(scheduler *s, choice *c, const char *reason) {
    job *j = c->j;
    if (reason) {
        reason = c->reason = choice_over(c, reason);
    }
    bool ok = !c->text.failed;
    if (ok && (reason || c->text.ready || c->events.len || answer_text_ready_tokens(&c->text)))
        ok = job_post(j, c->index, &c->text, reason);
    if (!ok) {
        job_fail_nomem(s, j);
        return false;
    }
    if (!reason) return true;
    choice_close(s, c);
    if (j->n_live) return true;
    j->ended_ns = time_mono_ns();
    job_post_end(j, ERR_OK, NULL);
    return false;
}

/* ---- tokens and text -------------------------------------------------------------------------------------- */

static uint8_t token_text(scheduler *s, int32_t id, char out[64]) {
    buf_reset(&s->scratch);
    model_token_bytes(s->m, id, true, &s->scratch);
    size_t n = s->scratch.len < 64 ? s->scratch.len : 64;
    if (n) memcpy(out, s->scratch.ptr, n);
    return (uint8_t)n;
}

static void token_info_fill(scheduler *s, token_info *t, const sampled *x, bool known) {
    memset(t, 0, sizeof *t);
    t->token = x->token;
    t->n_text = token_text(s, x->token, t->text);
    t->logprob = known ? x->logprob : NAN;
    t->n_top = known ? x->n_top : 0;
    for (uint32_t i = 0; i < t->n_top; i++) {
        t->top[i].token = x->top[i].token;
        t->top[i].logprob = x->top[i].logprob;
        t->top[i].n_text = token_text(s, x->top[i].token, t->top[i].text);
    }
}

/* A token that has a spelling and shows nothing. Leaves the spelling in scratch. */
static bool is_control(scheduler *s, int32_t token) {
    buf_reset(&s->scratch);
    model_token_bytes(s->m, token, false, &s->scratch);
    bool shows = s->scratch.len > 0;
    buf_reset(&s->scratch);
    if (!shows) model_token_bytes(s->m, token, true, &s->scratch);
    return s->scratch.len > 0;
}

static void decode_control(scheduler *s, choice *c, int32_t token, const token_info *info) {
    buf_reset(&s->scratch);
    detok_flush(&c->detok, &s->scratch);
    if (s->scratch.len) choice_text(c, s->scratch.ptr, s->scratch.len, NULL);
    buf_reset(&s->scratch);
    model_token_bytes(s->m, token, true, &s->scratch);
    if (s->scratch.failed) c->text.failed = true;
    choice_special(c, buf_str(&s->scratch), s->scratch.len, info);
}

static void decode_token(scheduler *s, choice *c, int32_t token, const token_info *info, bool echo) {
    buf_reset(&s->scratch);
    if (c->parser && !echo && is_control(s, token)) {
        decode_control(s, c, token, info);
        return;
    }
    detok_feed(&c->detok, token, &s->scratch);
    if (s->scratch.failed) c->text.failed = true;
    if (echo)
        answer_text_echo(&c->text, s->scratch.ptr, s->scratch.len, info);
    else
        choice_text(c, s->scratch.ptr, s->scratch.len, info);
}

/* Echo prompt token i with what a row of logits says of it (row NULL: the first token, of which nothing is known). */
static void echo_token(scheduler *s, choice *c, uint32_t i, const float *row) {
    const job_spec *spec = &c->j->spec;
    token_info info;
    if (spec->want_logprobs) {
        sampled x = {.token = spec->prompt[i]};
        if (row) logits_logprob(row, s->n_vocab, spec->prompt[i], spec->n_top, &x);
        token_info_fill(s, &info, &x, row != NULL);
    }
    decode_token(s, c, spec->prompt[i], spec->want_logprobs ? &info : NULL, true);
    c->echoed = i + 1;
}

/* A text starts here where nothing in the prompt shows: SentencePiece then drops its first space. */
static bool prompt_is_silent(scheduler *s, const job_spec *spec) {
    buf_reset(&s->scratch);
    for (uint32_t i = 0; i < spec->n_prompt && !s->scratch.len; i++)
        model_token_bytes(s->m, spec->prompt[i], false, &s->scratch);
    return s->scratch.len == 0;
}

/* The choice is over: what the detokeniser still holds goes out. false: the job is over and gone. */
static bool choice_end(scheduler *s, choice *c, const char *reason) {
    if (!c->text.stopped) {
        buf_reset(&s->scratch);
        detok_flush(&c->detok, &s->scratch);
        choice_text(c, s->scratch.ptr, s->scratch.len, NULL);
    }
    return choice_send(s, c, c->text.stopped ? "stop" : reason);
}

/* The first time a choice gets a sequence. false: the job is over. */
static bool choice_begin(scheduler *s, choice *c) {
    const job_spec *spec = &c->j->spec;
    detok_init(&c->detok, s->m, spec->echo || prompt_is_silent(s, spec), false);
    if (!c->j->begun_ns) c->j->begun_ns = time_mono_ns();
    if (spec->echo) {
        echo_token(s, c, 0, NULL);
        while (!spec->want_logprobs && c->echoed < spec->n_prompt) echo_token(s, c, c->echoed, NULL);
    }
    if (spec->max_new == 0 && !wants_echo_rows(c)) return choice_end(s, c, "length");
    return choice_send(s, c, NULL);
}

static bool keep_token(choice *c, int32_t token) {
    if (c->n_new == c->cap_new) {
        uint32_t cap = c->cap_new ? c->cap_new * 2 : 64;
        int32_t *p = mem_realloc(c->new_tokens, cap * sizeof *p);
        if (!p) return false;
        c->new_tokens = p;
        c->cap_new = cap;
    }
    c->new_tokens[c->n_new++] = token;
    return true;
}

static void observe_token(scheduler *s, choice *c) {
    uint64_t now = time_mono_ns();
    if (!c->j->first_ns) {
        c->j->first_ns = now;
        metric_observe(s->m_first, (double)(now - c->j->submitted_ns) / 1e9);
    }
    if (c->last_ns) metric_observe(s->m_token, (double)(now - c->last_ns) / 1e9);
    c->last_ns = now;
}

/* The part of drawing that touches only the choice: any thread of the crew does it. */
static void draw_row(void *ctx, size_t i) {
    scheduler *s = ctx;
    choice *c = s->chunk_of[i];
    if (!c || !c->row) return;
    const job_spec *spec = &c->j->spec;
    sampler_draw(c->sampler, c->row, spec->n_prompt + c->n_new, spec->want_logprobs, spec->n_top, &c->digest,
                 &c->drawn);
}

/* What follows from the token that was drawn for a choice. */
static void choice_drawn(scheduler *s, choice *c) {
    const job_spec *spec = &c->j->spec;
    int32_t token = c->drawn.token;
    if (token < 0) { /* no token follows the grammar of the request */
        err e = *sampler_error(c->sampler);
        job_fail(s, c->j, e.code, &e);
        return;
    }
    observe_token(s, c);
    if (!keep_token(c, token)) {
        job_fail_nomem(s, c->j);
        return;
    }
    const char *reason = NULL;
    if (model_token_is_end(s->m, token) && !spec->ignore_end) {
        reason = "stop";
    } else {
        token_info info;
        if (spec->want_logprobs) token_info_fill(s, &info, &c->drawn, true);
        decode_token(s, c, token, spec->want_logprobs ? &info : NULL, false);
        if (choice_has_enough(c))
            reason = "stop";
        else if (c->n_new == spec->max_new)
            reason = "length";
    }
    if (reason)
        choice_end(s, c, reason);
    else
        choice_send(s, c, NULL);
}

/* ---- admission --------------------------------------------------------------------------------------------- */

static bool lacks_room(const scheduler *s, const choice *c) {
    /* what it has already, and some growth, so that it is not pre-empted at once */
    uint32_t has = c->j->spec.n_prompt + c->n_new, left = c->j->spec.max_new - c->n_new;
    uint32_t growth = left < 4 * KV_PAGE ? left : 4 * KV_PAGE;
    if (s->n_running == s->max_sequences) return true;
    return s->n_running && (uint64_t)s->kv_held + kv_pages((uint64_t)has + growth) > s->kv_total;
}

/* A sequence and KV memory for a choice; those who sit out make room. */
static bool admits(scheduler *s, const choice *c) {
    while (lacks_room(s, c)) {
        choice *idle = paused_choice(s);
        if (!idle) return false;
        preempt(s, idle);
    }
    return true;
}

static err_code enter_sequence(scheduler *s, choice *c, err *e) {
    err_code rc = session_seq_new(s->sess, &c->seq, e);
    if (rc) {
        c->seq = -1;
        return rc;
    }
    uint32_t at = s->n_running++;
    for (; at && s->running[at - 1]->order > c->order; at--) s->running[at] = s->running[at - 1];
    s->running[at] = c;
    metric_add(s->m_running, 1);
    return ERR_OK;
}

/* The oldest that could go on. */
static choice *next_preempted(const scheduler *s) {
    choice *best = NULL;
    for (uint32_t i = 0; i < s->n_preempted; i++) {
        choice *c = s->preempted[i];
        if (!is_paused(c) && (!best || c->order < best->order)) best = c;
    }
    return best;
}

/* true: nobody is left who should have come back first. */
static bool resume_preempted(scheduler *s) {
    choice *c;
    while ((c = next_preempted(s))) {
        if (!admits(s, c)) return false;
        remove_from(s->preempted, &s->n_preempted, c);
        err e = {0};
        err_code rc = enter_sequence(s, c, &e);
        if (rc) job_fail(s, c->j, rc, &e);
    }
    return true;
}

/* The next choice of the queue's first job, NULL where nothing waits or fits. Takes it off the queue. */
static choice *next_waiting(scheduler *s) {
    choice *c = NULL;
    bool left = false;
    pthread_mutex_lock(&s->lock);
    job *j = s->head;
    if (j && s->n_running + s->n_preempted < 2 * s->max_sequences && admits(s, &j->choices[j->next_choice])) {
        c = &j->choices[j->next_choice++];
        left = j->next_choice == j->spec.n_choices;
        c->begun = true;
        s->n_begun++;
    }
    pthread_mutex_unlock(&s->lock);
    if (left) job_leave_queue(s, c->j);
    return c;
}

static void admit(scheduler *s) {
    bool open = resume_preempted(s);
    choice *c;
    while (open && (c = next_waiting(s))) {
        err e = {0};
        c->order = s->next_order++;
        err_code rc = enter_sequence(s, c, &e);
        if (rc)
            job_fail(s, c->j, rc, &e);
        else
            choice_begin(s, c);
    }
}

static job *cancelled_waiting(scheduler *s) {
    pthread_mutex_lock(&s->lock);
    job *j = s->head;
    while (j && !atomic_load(&j->cancelled)) j = j->next;
    pthread_mutex_unlock(&s->lock);
    return j;
}

static job *cancelled_in(choice **list, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        if (atomic_load(&list[i]->j->cancelled)) return list[i]->j;
    }
    return NULL;
}

static bool drop_cancelled(scheduler *s) {
    bool any = false;
    job *j;
    while ((j = cancelled_in(s->running, s->n_running)) || (j = cancelled_in(s->preempted, s->n_preempted)) ||
           (j = cancelled_waiting(s))) {
        err e = {0};
        job_fail(s, j, err_set(&e, ERR_CANCELLED, "the request was cancelled"), &e);
        any = true;
    }
    return any;
}

/* ---- one step ---------------------------------------------------------------------------------------------- */

/* How many tokens a choice could put into this step as prompt work, 0 where it decodes or sits out. A chunk ends where
 * the prompt ends, because drawn tokens lie in other memory. */
static uint32_t prompt_work(const choice *c) {
    const job_spec *spec = &c->j->spec;
    uint32_t left = choice_target(c) - c->pos;
    if (left < 2 && c->pos >= spec->n_prompt) return 0;
    if (c->pos < spec->n_prompt && left > spec->n_prompt - c->pos) left = spec->n_prompt - c->pos;
    return wants_echo_rows(c) ? min_u32(left, ECHO_CHUNK_TOKENS) : left;
}

/* Decoding choices take one token each; what is left goes to the requests with prompt work in equal shares, starting
 * with another request each step. */
static void plan_grants(scheduler *s) {
    uint32_t budget = s->step_tokens, n_jobs = 0, n = s->n_running;
    for (uint32_t i = 0; i < n; i++) {
        choice *c = s->running[i];
        c->grant = 0;
        c->j->in_round = false;
        c->j->want = c->j->share = 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        choice *c = s->running[i];
        uint32_t work = prompt_work(c);
        if (is_paused(c)) continue;
        if (!work) {
            c->grant = 1;
            budget--;
        } else {
            n_jobs += c->j->want == 0;
            c->j->want += work;
        }
    }
    if (!n_jobs) return;
    uint32_t even = budget / n_jobs ? budget / n_jobs : 1, start = s->turn++ % n;
    for (int round = 0; round < 2; round++) { /* first everybody's share, then what others did not need */
        for (uint32_t k = 0; k < n; k++) {
            job *j = s->running[(start + k) % n]->j;
            if (!j->want || (round == 0 && j->in_round)) continue;
            j->in_round = true;
            uint32_t take = min_u32(j->want, min_u32(budget, round == 0 ? even : budget));
            j->share += take;
            j->want -= take;
            budget -= take;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        choice *c = s->running[i];
        if (c->grant || !c->j->share) continue;
        c->grant = min_u32(prompt_work(c), c->j->share);
        c->j->share -= c->grant;
    }
}

/* KV pages for what was granted. Where there are none left, choices that sit out give theirs up, then the youngest. */
static void plan_memory(scheduler *s) {
    for (uint32_t i = 0; i < s->n_running;) {
        choice *c = s->running[i], *victim = NULL;
        uint32_t need = kv_pages((uint64_t)c->pos + c->grant);
        while (need > c->held && s->kv_held + (need - c->held) > s->kv_total && victim != c) {
            victim = paused_choice(s);
            if (!victim) victim = s->running[s->n_running - 1];
            preempt(s, victim);
        }
        if (victim == c) continue; /* it was the youngest itself: there is another in its place, or none */
        if (need > c->held) kv_hold(s, c, need);
        for (i = 0; s->running[i] != c;) i++;
        i++;
    }
}

static void plan_chunks(scheduler *s) {
    for (uint32_t i = 0; i < s->n_running; i++) {
        choice *c = s->running[i];
        if (!c->grant) continue;
        const job_spec *spec = &c->j->spec;
        chunk *k = &s->chunks[s->n_chunks];
        bool last = c->pos + c->grant == spec->n_prompt + c->n_new;
        *k = (chunk){.seq = c->seq, .n = c->grant, .n_logits = wants_echo_rows(c) ? c->grant : last};
        k->tokens = c->pos < spec->n_prompt ? spec->prompt + c->pos : c->new_tokens + (c->pos - spec->n_prompt);
        s->chunk_of[s->n_chunks++] = c;
    }
}

/* After a step: count it, and note the row to draw from where the chunk was the last before a new token. */
static void settle_chunk(scheduler *s, choice *c, const chunk *k) {
    c->pos += k->n;
    c->steps++;
    metric_add(s->m_step_tokens, k->n);
    bool draws = c->pos == choice_target(c) && c->j->spec.max_new > 0;
    c->row = draws ? k->logits + (size_t)(k->n_logits - 1) * s->n_vocab : NULL;
}

/* What a chunk's logits were for: the echo of the prompt, then the token that was drawn. */
static void use_chunk(scheduler *s, choice *c, const chunk *k) {
    const job_spec *spec = &c->j->spec;
    uint32_t begin = c->pos - k->n;
    if (wants_echo_rows(c)) {
        for (uint32_t i = 0; i < k->n; i++) {
            if (begin + i + 1 == c->echoed && c->echoed < spec->n_prompt)
                echo_token(s, c, c->echoed, k->logits + (size_t)i * s->n_vocab);
        }
    }
    if (c->row)
        choice_drawn(s, c);
    else if (c->pos == choice_target(c))
        choice_end(s, c, "length"); /* the prompt was scored, that was all */
    else
        choice_send(s, c, NULL);
}

static choice *take_chunk(scheduler *s, uint32_t i) {
    choice *c = s->chunk_of[i];
    s->chunk_of[i] = NULL;
    return c;
}

/* One choice at a time: a job that cannot go on fails alone. */
static void step_singly(scheduler *s) {
    for (uint32_t i = 0; i < s->n_chunks; i++) {
        choice *c = s->chunk_of[i];
        if (!c) continue;
        err e = {0};
        err_code rc = session_step(s->sess, &s->chunks[i], 1, &e);
        if (rc) {
            job_fail(s, c->j, rc, &e);
            continue;
        }
        settle_chunk(s, c, &s->chunks[i]);
        draw_row(s, i);
        use_chunk(s, take_chunk(s, i), &s->chunks[i]);
    }
}

static void step(scheduler *s) {
    err e = {0};
    uint32_t n = s->n_chunks, n_draws = 0;
    metric_add(s->m_steps, 1);
    if (session_step(s->sess, s->chunks, n, &e)) {
        log_msg(LOG_WARN, "engine", "a step over %u sequences failed, trying them one by one: %s", n, e.msg);
        step_singly(s);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        settle_chunk(s, s->chunk_of[i], &s->chunks[i]);
        n_draws += s->chunk_of[i]->row != NULL;
    }
    if ((uint64_t)n_draws * s->n_vocab >= CREW_VALUES && n_draws > 1)
        crew_run(s->crew, n, draw_row, s);
    else
        for (uint32_t i = 0; i < n; i++) draw_row(s, i);
    for (uint32_t i = 0; i < n; i++) {
        choice *c = take_chunk(s, i);
        if (c) use_chunk(s, c, &s->chunks[i]);
    }
}

static bool engine_round(scheduler *s) {
    bool dropped = drop_cancelled(s);
    admit(s);
    plan_grants(s);
    plan_memory(s);
    plan_chunks(s);
    bool stepped = s->n_chunks > 0;
    if (stepped) step(s);
    s->n_chunks = 0;
    return stepped || dropped;
}

static void *engine_thread(void *arg) {
    scheduler *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->quit) {
        if (!s->kick) {
            pthread_cond_wait(&s->cond, &s->lock);
            continue;
        }
        s->kick = false;
        pthread_mutex_unlock(&s->lock);
        bool more = engine_round(s);
        pthread_mutex_lock(&s->lock);
        s->kick |= more;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- from outside ------------------------------------------------------------------------------------------ */

void scheduler_kick(scheduler *s) {
    pthread_mutex_lock(&s->lock);
    s->kick = true;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

uint32_t scheduler_context(const scheduler *s) {
    return s->context;
}
uint32_t scheduler_kv_positions(const scheduler *s) {
    return s->kv_total;
}

/* Context and KV positions from what is configured and what the model has. */
static err_code size_up(scheduler *s, const scheduler_options *o, err *e) {
    const model_facts *f = model_get_facts(s->m);
    s->context = o->context && o->context < f->n_ctx_train ? o->context : f->n_ctx_train;
    uint64_t per_position = f->kv_bytes, states = f->state_bytes * o->max_sequences;
    uint64_t left = o->kv_bytes > states ? o->kv_bytes - states : 0;
    uint64_t total = left / (per_position ? per_position : 1) / KV_PAGE * KV_PAGE;
    uint64_t most = (uint64_t)o->max_sequences * kv_pages(s->context);
    if (total > most) total = most;
    if (!total)
        return err_set(
            e, ERR_USAGE,
            "inference.kv_memory_mib: %llu MiB hold no %u positions of this model (%llu bytes each); give more",
            (unsigned long long)(o->kv_bytes >> 20), KV_PAGE, (unsigned long long)per_position);
    s->kv_total = total > UINT32_MAX / 2 ? UINT32_MAX / 2 / KV_PAGE * KV_PAGE : (uint32_t)total;
    if (s->context > s->kv_total) s->context = s->kv_total;
    return ERR_OK;
}

static void find_metrics(scheduler *s) {
    s->m_queue = metric_get(METRIC_GAUGE, "polder_queue_requests", NULL, "Requests that wait for a sequence.");
    s->m_running = metric_get(METRIC_GAUGE, "polder_running_sequences", NULL, "Sequences that are being generated.");
    s->m_kv = metric_get(METRIC_GAUGE, "polder_kv_positions_used", NULL, "Positions held in KV memory.");
    s->m_first = metric_get(METRIC_HISTOGRAM, "polder_time_to_first_token_seconds", NULL,
                            "From the admission of a request to its first token.");
    s->m_token = metric_get(METRIC_HISTOGRAM, "polder_token_seconds", NULL, "Between two tokens of one sequence.");
    s->m_steps = metric_get(METRIC_COUNTER, "polder_engine_steps_total", NULL, "Steps of the engine.");
    s->m_step_tokens = metric_get(METRIC_COUNTER, "polder_engine_tokens_total", NULL,
                                  "Tokens that went through the engine, prompts and answers.");
    s->m_preempted = metric_get(METRIC_COUNTER, "polder_preemptions_total", NULL,
                                "Sequences that gave up their KV memory to older ones and were computed again.");
}

static void scheduler_release(scheduler *s) {
    crew_free(s->crew);
    session_free(s->sess);
    mem_free(s->running);
    mem_free(s->preempted);
    mem_free(s->chunks);
    mem_free(s->chunk_of);
    buf_free(&s->scratch);
    pthread_cond_destroy(&s->cond);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

static err_code make_session(scheduler *s, const scheduler_options *o, err *e) {
    uint32_t n = s->max_sequences;
    s->running = mem_array(n, sizeof *s->running);
    s->preempted = mem_array(2 * (size_t)n, sizeof *s->preempted);
    s->chunks = mem_array(n, sizeof *s->chunks);
    s->chunk_of = mem_array(n, sizeof *s->chunk_of);
    if (!s->running || !s->preempted || !s->chunks || !s->chunk_of) return err_nomem(e, "the scheduler");
    err_code rc = size_up(s, o, e);
    if (rc) return rc;
    session_options so = {.n_threads = o->threads,
                          .n_seq_max = n,
                          .n_ctx = s->context,
                          .kv_positions = s->kv_total,
                          .max_step_tokens = s->step_tokens};
    rc = session_new(&s->sess, s->m, &so, e);
    unsigned threads = o->threads ? o->threads : sys_cpu_count();
    if (threads > n) threads = n;
    return rc ? rc : crew_new(&s->crew, threads < CREW_MAX ? threads : CREW_MAX, e);
}

err_code scheduler_new(scheduler **out, const model *m, const scheduler_options *o, err *e) {
    *out = NULL;
    scheduler *s = mem_zalloc(sizeof *s);
    if (!s) return err_nomem(e, "the scheduler");
    s->m = m;
    s->n_vocab = model_get_facts(m)->n_vocab;
    s->max_sequences = o->max_sequences ? o->max_sequences : 1;
    s->max_queue = o->max_queue;
    s->step_tokens = o->step_tokens > 2 * s->max_sequences ? o->step_tokens : 2 * s->max_sequences;
    buf_init(&s->scratch, 1 << 20);
    pthread_mutex_init(&s->lock, NULL);
    cond_init(&s->cond);
    find_metrics(s);
    err_code rc = make_session(s, o, e);
    int failed = rc ? 0 : pthread_create(&s->thread, NULL, engine_thread, s);
    if (failed) rc = err_set(e, ERR_UNAVAILABLE, "the engine thread could not be started: %s", strerror(failed));
    if (rc) {
        scheduler_release(s);
        return rc;
    }
    *out = s;
    return ERR_OK;
}

void scheduler_free(scheduler *s) {
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    scheduler_release(s);
}
