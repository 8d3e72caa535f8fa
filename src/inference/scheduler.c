#include "inference/scheduler_internal.h"

#include "base/mem.h"

#include <limits.h>
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

/* Positions of memory, whole pages, that a choice needs beyond those that it has. */
static uint32_t kv_more(const choice *c) {
    return kv_pages((uint64_t)c->pos + c->grant) - kv_pages(c->pos);
}

static void remove_from(choice **list, uint32_t *n, const choice *c) {
    for (uint32_t i = 0; i < *n; i++) {
        if (list[i] != c) continue;
        memmove(list + i, list + i + 1, (*n - i - 1) * sizeof *list);
        (*n)--;
        return;
    }
}

/* What the choice has computed is there for others, and for itself when it comes back. */
static void keep_positions(scheduler *s, choice *c, uint32_t n) {
    const job_spec *spec = &c->j->spec;
    if (!s->tokens || n < KV_PAGE) return;
    if (n <= spec->n_prompt) {
        session_seq_keep(s->sess, c->seq, spec->space, spec->prompt, n);
        return;
    }
    memcpy(s->tokens, spec->prompt, spec->n_prompt * sizeof *s->tokens);
    memcpy(s->tokens + spec->n_prompt, c->new_tokens, (n - spec->n_prompt) * sizeof *s->tokens);
    session_seq_keep(s->sess, c->seq, spec->space, s->tokens, n);
}

static void leave_sequence(scheduler *s, choice *c) {
    if (c->seq < 0) return;
    keep_positions(s, c, c->pos);
    session_seq_free(s->sess, c->seq);
    if (s->drafter) drafter_forget(s->drafter, (uint32_t)c->seq);
    c->seq = -1;
    c->j->held = false;
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
        waiting_remove(&s->queue, j);
        s->n_places--;
    }
    pthread_mutex_unlock(&s->lock);
    if (was) metric_add(s->m_queue, -1);
}

static void choice_close(scheduler *s, choice *c) {
    leave_sequence(s, c);
    remove_from(s->preempted, &s->n_preempted, c);
    sha256_final(&c->digest, c->logits_sha256);
    sha256_final(&c->prompt_digest, c->prompt_sha256);
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
        if (row) {
            logits_logprob(row, s->n_vocab, spec->prompt[i], spec->n_top, &x);
            sha256_update(&c->prompt_digest, row, (size_t)s->n_vocab * sizeof *row);
            c->prompt_rows++;
        }
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

/* There is always room for a guess behind the tokens. */
static bool keep_token(choice *c, int32_t token) {
    if (c->n_new + 1 + GUESS_MAX > c->cap_new) {
        uint32_t cap = c->cap_new * 2;
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

/* The part of drawing that touches only the choice. */
static void draw_choice(choice *c) {
    const job_spec *spec = &c->j->spec;
    c->rows++;
    sampler_draw(c->sampler, c->row, spec->n_prompt + c->n_new, spec->want_logprobs, spec->n_top, &c->digest,
                 &c->drawn);
}

/* Any thread of the crew does it. */
static void draw_row(void *ctx, size_t i) {
    scheduler *s = ctx;
    choice *c = s->chunk_of[i];
    if (c && c->row) draw_choice(c);
}

/* What follows from the token that was drawn for a choice. false: the choice is over, its job may be gone. */
static bool choice_drawn(scheduler *s, choice *c) {
    const job_spec *spec = &c->j->spec;
    int32_t token = c->drawn.token;
    if (token < 0) { /* no token follows the grammar of the request */
        err e = *sampler_error(c->sampler);
        job_fail(s, c->j, e.code, &e);
        return false;
    }
    observe_token(s, c);
    c->j->served += SERVED_DRAWN;
    if (!keep_token(c, token)) {
        job_fail_nomem(s, c->j);
        return false;
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
    if (!reason) return choice_send(s, c, NULL);
    choice_end(s, c, reason);
    return false;
}

/* ---- admission --------------------------------------------------------------------------------------------- */

static bool lacks_room(const scheduler *s, const choice *c) {
    /* what it has already, and some growth, so that it is not pre-empted at once */
    uint32_t has = c->j->spec.n_prompt + c->n_new, left = c->j->spec.max_new - c->n_new;
    uint32_t growth = left < 4 * KV_PAGE ? left : 4 * KV_PAGE;
    if (s->n_running == s->max_sequences) return true;
    return s->n_running && kv_pages((uint64_t)has + growth) > session_kv_free(s->sess);
}

/* The youngest of those with the lowest priority, if that is below the one given; or NULL. */
static choice *lower_choice(const scheduler *s, int priority) {
    choice *low = NULL;
    for (uint32_t i = 0; i < s->n_running; i++) {
        choice *c = s->running[i];
        if (c->j->spec.priority < priority && (!low || c->j->spec.priority <= low->j->spec.priority)) low = c;
    }
    return low;
}

/* A sequence and KV memory for a choice; those who sit out make room, and those who are less urgent. */
static bool admits(scheduler *s, const choice *c) {
    while (lacks_room(s, c)) {
        choice *other = paused_choice(s);
        if (!other) other = lower_choice(s, c->j->spec.priority);
        if (!other) return false;
        preempt(s, other);
    }
    return true;
}

/* Rows of logits that an echo wants are made for every position. */
static err_code enter_sequence(scheduler *s, choice *c, err *e) {
    const job_spec *spec = &c->j->spec;
    uint32_t there = 0;
    err_code rc = s->tokens && !wants_echo_rows(c)
                      ? session_seq_new_with(s->sess, &c->seq, spec->space, spec->prompt, spec->n_prompt, &there, e)
                      : session_seq_new(s->sess, &c->seq, e);
    if (rc) {
        c->seq = -1;
        return rc;
    }
    c->pos = there;
    if (!c->n_new) c->reused = there;
    metric_add(s->m_reused, there);
    uint32_t at = s->n_running++;
    for (; at && s->running[at - 1]->order > c->order; at--) s->running[at] = s->running[at - 1];
    s->running[at] = c;
    metric_add(s->m_running, 1);
    return ERR_OK;
}

static bool before(const choice *a, const choice *b) {
    int pa = a->j->spec.priority, pb = b->j->spec.priority;
    return pa != pb ? pa > pb : a->order < b->order;
}

/* The oldest of the highest priority that could go on. */
static choice *next_preempted(const scheduler *s) {
    choice *best = NULL;
    for (uint32_t i = 0; i < s->n_preempted; i++) {
        choice *c = s->preempted[i];
        if (!is_paused(c) && (!best || before(c, best))) best = c;
    }
    return best;
}

/* Whether somebody waits who is more urgent. */
static bool is_overtaken(scheduler *s, const choice *c) {
    pthread_mutex_lock(&s->lock);
    const job *j = waiting_first(&s->queue);
    bool yes = j && j->spec.priority > c->j->spec.priority;
    pthread_mutex_unlock(&s->lock);
    return yes;
}

/* true: nobody is left who should come back before somebody new. */
static bool resume_preempted(scheduler *s) {
    choice *c;
    while ((c = next_preempted(s))) {
        if (is_overtaken(s, c)) return true;
        if (!admits(s, c)) return false;
        remove_from(s->preempted, &s->n_preempted, c);
        err e = {0};
        err_code rc = enter_sequence(s, c, &e);
        if (rc) job_fail(s, c->j, rc, &e);
    }
    return true;
}

/* Others of the same request share the positions of its prompt once the first choice has computed them. */
static void hold_others(const scheduler *s, job *j) {
    j->held = s->tokens && j->next_choice == 1 && j->spec.n_choices > 1 && j->spec.n_prompt > KV_PAGE &&
              !wants_echo_rows(&j->choices[0]);
}

/* The next choice of who goes first, NULL where nothing waits or fits. Takes it off the queue. */
static choice *next_waiting(scheduler *s) {
    choice *c = NULL;
    bool left = false;
    pthread_mutex_lock(&s->lock);
    job *j = waiting_first(&s->queue);
    if (j && s->n_running + s->n_preempted < 2 * s->max_sequences && admits(s, &j->choices[j->next_choice])) {
        c = &j->choices[j->next_choice++];
        hold_others(s, j);
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
    job *j = s->queue.head;
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

/* Sequences that decode side by side from which on guessing costs more than it gains: their steps are no longer bound
 * by reading the weights. */
#define GUESS_ROWS 32

static uint32_t guess_room(const scheduler *s, const choice *c, uint32_t n_decoding) {
    const job_spec *spec = &c->j->spec;
    uint32_t most = min_u32(GUESS_ROWS / n_decoding, GUESS_MAX + 1);
    most = most ? most - 1 : 0;
    most = min_u32(most, spec->max_new - c->n_new - 1); /* the last token needs none behind it */
    return min_u32(most, s->context - c->pos - 1);
}

static history text_of(const choice *c) {
    return (history){c->j->spec.prompt, c->new_tokens, c->j->spec.n_prompt, c->n_new};
}

/* How many tokens each decoding choice may guess: n_guess, for make_guesses. */
static void plan_guesses(scheduler *s, uint32_t n_decoding, uint32_t budget) {
    for (uint32_t i = 0; i < s->n_running; i++) {
        choice *c = s->running[i];
        if (!c->grant) continue;
        c->most_guess = min_u32(guess_room(s, c, n_decoding), budget / n_decoding / 2);
        c->n_guess = c->most_guess ? min_u32(c->most_guess, guess_want(&c->guessing)) : 0;
    }
}

static void ask_drafter(scheduler *s) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_running; i++) {
        choice *c = s->running[i];
        if (!c->n_guess) continue;
        s->asks[n++] = (draft_ask){.slot = (uint32_t)c->seq, .text = text_of(c), .most = c->n_guess, .out = c->guess};
    }
    drafter_guess(s->drafter, s->asks, n);
    for (uint32_t i = 0, k = 0; k < n; i++)
        if (s->running[i]->n_guess) s->running[i]->n_guess = s->asks[k++].n;
}

/* Decoding choices take one token each, and what can be guessed behind it. */
static void plan_decoding(scheduler *s, uint32_t *budget) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_running; i++) {
        choice *c = s->running[i];
        c->grant = c->n_guess = 0;
        if (is_paused(c) || prompt_work(c)) continue;
        c->grant = 1;
        n++;
    }
    *budget -= n;
    if (s->speculate == SPECULATE_OFF || !n) return;
    plan_guesses(s, n, *budget);
    if (s->drafter) ask_drafter(s);
    for (uint32_t i = 0; i < s->n_running; i++) {
        choice *c = s->running[i];
        history h = text_of(c);
        if (!s->drafter && c->n_guess) c->n_guess = guess_lookup(&h, c->guess, c->n_guess, c->most_guess);
        c->grant += c->n_guess;
        *budget -= c->n_guess;
    }
}

/* Who of this priority has prompt work: sets want of jobs and n_asking of owners, returns the number of owners. */
static uint32_t count_asking(scheduler *s, int priority) {
    uint32_t n_owners = 0;
    for (uint32_t i = 0; i < s->n_running; i++) {
        job *j = s->running[i]->j;
        j->in_round = false;
        j->want = j->share = j->owner->n_asking = 0;
    }
    for (uint32_t i = 0; i < s->n_running; i++) {
        choice *c = s->running[i];
        uint32_t work = c->j->spec.priority == priority && !is_paused(c) ? prompt_work(c) : 0;
        if (!work) continue;
        n_owners += !c->j->owner->n_asking;
        c->j->owner->n_asking += c->j->want == 0;
        c->j->want += work;
    }
    return n_owners;
}

/* Prompt work of one priority: each owner's even share, of that each request's, then what others did not need. */
static void plan_prompts(scheduler *s, int priority, uint32_t *budget) {
    uint32_t n = s->n_running, n_owners = count_asking(s, priority);
    if (!n_owners) return;
    uint32_t each = *budget / n_owners, start = s->turn++ % n;
    for (int round = 0; round < 2; round++) {
        for (uint32_t k = 0; k < n; k++) {
            job *j = s->running[(start + k) % n]->j;
            if (!j->want || (round == 0 && j->in_round)) continue;
            j->in_round = true;
            uint32_t asking = j->owner->n_asking, even = asking ? each / asking : 0;
            uint32_t take = min_u32(j->want, min_u32(*budget, round ? *budget : even ? even : 1));
            j->share += take;
            j->want -= take;
            *budget -= take;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        choice *c = s->running[i];
        if (c->grant || !c->j->share || is_paused(c)) continue;
        c->grant = session_seq_cut(s->sess, c->seq, min_u32(prompt_work(c), c->j->share));
        c->j->share -= c->grant;
    }
}

static void plan_grants(scheduler *s) {
    uint32_t budget = s->step_tokens;
    plan_decoding(s, &budget);
    int64_t below = INT64_MAX; /* priorities from the highest to the lowest */
    while (budget) {
        int64_t priority = INT64_MIN;
        for (uint32_t i = 0; i < s->n_running; i++) {
            int p = s->running[i]->j->spec.priority;
            if (p < below && p > priority) priority = p;
        }
        if (priority == INT64_MIN) return;
        plan_prompts(s, (int)priority, &budget);
        below = priority;
    }
}

static bool fits_in_memory(const scheduler *s) {
    uint64_t more = 0;
    for (uint32_t i = 0; i < s->n_running; i++) more += kv_more(s->running[i]);
    return more <= session_kv_free(s->sess);
}

static void drop_guesses(scheduler *s) {
    for (uint32_t i = 0; i < s->n_running; i++) {
        s->running[i]->grant -= s->running[i]->n_guess;
        s->running[i]->n_guess = 0;
    }
}

/* KV pages for what was granted. Where there are none left, nobody guesses; then choices that sit out give theirs up,
 * then the least urgent, of these the youngest. */
static void plan_memory(scheduler *s) {
    if (!fits_in_memory(s)) drop_guesses(s);
    while (!fits_in_memory(s)) {
        choice *victim = paused_choice(s);
        if (!victim) victim = lower_choice(s, INT_MAX);
        if (!victim) victim = s->running[s->n_running - 1];
        preempt(s, victim);
    }
}

static void plan_chunks(scheduler *s) {
    for (uint32_t i = 0; i < s->n_running; i++) {
        choice *c = s->running[i];
        if (!c->grant) continue;
        const job_spec *spec = &c->j->spec;
        chunk *k = &s->chunks[s->n_chunks];
        bool last = c->pos + c->grant >= spec->n_prompt + c->n_new;
        *k = (chunk){.seq = c->seq, .n = c->grant, .n_logits = wants_echo_rows(c) ? c->grant : last};
        err ignored;
        if (c->n_guess && s->has_states && session_seq_mark(s->sess, c->seq, &ignored)) {
            c->grant -= c->n_guess;
            c->n_guess = 0;
            k->n = c->grant;
        }
        if (c->n_guess) { /* they stand behind the tokens that were drawn, for this step */
            memcpy(c->new_tokens + c->n_new, c->guess, c->n_guess * sizeof *c->guess);
            k->n_logits = c->grant;
        }
        k->tokens = c->pos < spec->n_prompt ? spec->prompt + c->pos : c->new_tokens + (c->pos - spec->n_prompt);
        s->chunk_of[s->n_chunks++] = c;
    }
}

/* Several models share the gauge. */
static void tell_memory(scheduler *s) {
    uint32_t used = s->kv_total - session_kv_free(s->sess);
    metric_add(s->m_kv, (double)used - s->kv_told);
    s->kv_told = used;
}

/* After a step: count it, and note the row to draw from where the chunk was the last before a new token. */
static void settle_chunk(scheduler *s, choice *c, const chunk *k) {
    c->pos += k->n - c->n_guess;
    c->steps++;
    metric_add(s->m_step_tokens, k->n);
    if (c->pos <= c->j->spec.n_prompt) c->j->served += (uint64_t)k->n * SERVED_PROMPT;
    if (!c->kept && c->pos >= c->j->spec.n_prompt) {
        keep_positions(s, c, c->j->spec.n_prompt);
        c->kept = true;
        c->j->held = false;
    }
    bool draws = c->pos == choice_target(c) && c->j->spec.max_new > 0;
    c->row = draws ? k->logits + (size_t)(k->n_logits - 1 - c->n_guess) * s->n_vocab : NULL;
}

/* The positions of wrong guesses. Where a state went over them the step before the guess comes back, and what was right
 * is computed again with the next token. */
static void take_back(scheduler *s, choice *c) {
    if (s->has_states)
        c->pos = session_seq_rollback(s->sess, c->seq);
    else
        session_seq_truncate(s->sess, c->seq, c->pos);
}

/* The rows of guessed positions count as long as the guess before each was what was drawn. */
static void use_guesses(scheduler *s, choice *c) {
    uint32_t n = c->n_guess, right = 0;
    while (choice_drawn(s, c)) {
        if (right == n || c->guess[right] != c->drawn.token) {
            guess_outcome(&c->guessing, n, right);
            if (right < n) take_back(s, c);
            if (s->drafter) drafter_settle(s->drafter, (uint32_t)c->seq, right);
            break;
        }
        right++;
        c->pos++;
        c->row += s->n_vocab;
        draw_choice(c);
    }
    metric_add(s->m_guessed, n);
    metric_add(s->m_right, right);
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
        use_guesses(s, c);
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

/* Owners' counters, for who goes next. */
static void tell_owners(scheduler *s) {
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->n_running; i++) {
        job *j = s->running[i]->j;
        j->owner->served += j->served;
        j->served = 0;
    }
    pthread_mutex_unlock(&s->lock);
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
    if (stepped) tell_owners(s);
    tell_memory(s);
    return stepped || dropped;
}

#define REST_MS 1000 /* without work, and the session lets go of what only steps need */

/* Under lock, until there is something to do. */
static void wait_for_work(scheduler *s) {
    bool resting = false;
    while (!s->quit && !s->kick) {
        if (resting) {
            pthread_cond_wait(&s->cond, &s->lock);
        } else if (!cond_wait_ms(&s->cond, &s->lock, REST_MS)) {
            session_rest(s->sess); /* this thread's own, and soon done */
            resting = true;
        }
    }
}

static void *engine_thread(void *arg) {
    scheduler *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        wait_for_work(s);
        if (s->quit) break;
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
kv_format scheduler_kv(const scheduler *s) {
    return s->kv;
}

uint32_t scheduler_kv_positions(const scheduler *s) {
    return s->kv_total;
}

#define KEPT_STATES 64 /* checkpoints of recurrent layers, in at most a quarter of the memory */

/* Context and KV positions from what is configured and what the model has. */
static err_code size_up(scheduler *s, const scheduler_options *o, err *e) {
    const model_facts *f = model_get_facts(s->m);
    s->context = o->context && o->context < f->n_ctx_train ? o->context : f->n_ctx_train;
    uint64_t per_position = f->kv_bytes[o->kv], states = f->state_bytes * o->max_sequences;
    if (o->share && f->state_bytes) {
        s->keep_state_bytes =
            f->state_bytes * KEPT_STATES < o->kv_bytes / 4 ? f->state_bytes * KEPT_STATES : o->kv_bytes / 4;
        states += s->keep_state_bytes;
    }
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
    s->m_reused = metric_get(METRIC_COUNTER, "polder_prefix_positions_total", NULL,
                             "Positions of prompts that were kept from earlier requests and not computed again.");
    s->m_guessed = metric_get(METRIC_COUNTER, "polder_guessed_tokens_total", NULL, "Tokens that were guessed ahead.");
    s->m_right = metric_get(METRIC_COUNTER, "polder_guessed_right_total", NULL,
                            "Tokens that were guessed ahead and then drawn.");
}

static void scheduler_release(scheduler *s) {
    crew_free(s->crew);
    session_free(s->sess);
    mem_free(s->running);
    mem_free(s->preempted);
    mem_free(s->chunks);
    mem_free(s->chunk_of);
    mem_free(s->tokens);
    mem_free(s->asks);
    drafter_free(s->drafter);
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
    if (!rc && o->share && !(s->tokens = mem_array(s->context, sizeof *s->tokens))) rc = err_nomem(e, "the scheduler");
    if (rc) return rc;
    session_options so = {.n_threads = o->threads,
                          .n_seq_max = n,
                          .n_ctx = s->context,
                          .kv = o->kv,
                          .kv_positions = s->kv_total,
                          .max_step_tokens = s->step_tokens,
                          .keep_positions = o->share ? s->kv_total : 0,
                          .keep_state_bytes = s->keep_state_bytes};
    rc = session_new(&s->sess, s->m, &so, e);
    if (!rc && s->speculate == SPECULATE_DRAFT) {
        s->asks = mem_array(n, sizeof *s->asks);
        so.keep_positions = 0;
        rc = s->asks ? drafter_new(&s->drafter, o->draft, &so, e) : err_nomem(e, "the scheduler");
    }
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
    s->speculate = o->speculate;
    s->kv = o->kv;
    s->has_states = model_get_facts(m)->state_bytes > 0;
    s->step_tokens = o->step_tokens > 2 * s->max_sequences ? o->step_tokens : 2 * s->max_sequences;
    buf_init(&s->scratch, 1 << 20);
    pthread_mutex_init(&s->lock, NULL);
    cond_init(&s->cond);
    find_metrics(s);
    err_code rc = make_session(s, o, e);
    if (!rc && o->kept && s->tokens) {
        s->kept = *o->kept;
        kept_load(&s->kept, s->sess);
    }
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
    if (s->kept.i) kept_save(&s->kept, s->sess);
    scheduler_release(s);
}
