#include "inference/drafter.h"

#include "base/mem.h"

#include <string.h>

typedef struct slot {
    int seq;        /* -1: none */
    uint32_t valid; /* its first positions that are the text's */
    uint32_t text;  /* positions of the text when the last guess was made */
    uint32_t n;     /* tokens of that guess */
} slot;

struct drafter {
    const model *m;
    session *sess;
    uint32_t n_vocab, n_slots, step_tokens;
    slot *slots;
    chunk *chunks;        /* (n_slots) */
    draft_ask **chunk_of; /* (n_slots) */
    int32_t *tokens;      /* (step_tokens) of the chunks that read text */
};

/* ---- life ------------------------------------------------------------------------------------------------- */

static err_code check_vocabulary(const model *large, const model *small, err *e) {
    uint32_t n = model_get_facts(large)->n_vocab;
    bool same = model_get_facts(small)->n_vocab == n;
    buf a = {.max = 1 << 16}, b = {.max = 1 << 16};
    for (uint32_t i = 0; i < n && same; i++) {
        buf_reset(&a);
        buf_reset(&b);
        model_token_bytes(large, (int32_t)i, true, &a);
        model_token_bytes(small, (int32_t)i, true, &b);
        same = !a.failed && !b.failed && a.len == b.len && (!a.len || memcmp(a.ptr, b.ptr, a.len) == 0);
    }
    buf_free(&a);
    buf_free(&b);
    if (same) return ERR_OK;
    return err_set(e, ERR_INVALID, "the draft model has another vocabulary; it must be of the same family");
}

static err_code take_memory(drafter *d, err *e) {
    d->slots = mem_array(d->n_slots, sizeof *d->slots);
    d->chunks = mem_array(d->n_slots, sizeof *d->chunks);
    d->chunk_of = mem_array(d->n_slots, sizeof(draft_ask *));
    d->tokens = mem_array(d->step_tokens, sizeof *d->tokens);
    if (!d->slots || !d->chunks || !d->chunk_of || !d->tokens) return err_nomem(e, "a draft model");
    for (uint32_t i = 0; i < d->n_slots; i++) d->slots[i].seq = -1;
    return ERR_OK;
}

err_code drafter_check(const model *large, const model *small, err *e) {
    const model_facts *f = model_get_facts(small);
    if (f->state_bytes || f->encoder)
        return err_set(e, ERR_UNSUPPORTED, "a %s model cannot be a draft model: it cannot take tokens back", f->arch);
    return check_vocabulary(large, small, e);
}

err_code drafter_new(drafter **out, const model *small, const session_options *o, err *e) {
    *out = NULL;
    const model_facts *f = model_get_facts(small);
    drafter *d = mem_zalloc(sizeof *d);
    if (!d) return err_nomem(e, "a draft model");
    session_options mine = *o;
    if (!mine.n_ctx || mine.n_ctx > f->n_ctx_train) mine.n_ctx = f->n_ctx_train;
    d->m = small;
    d->n_vocab = f->n_vocab;
    d->n_slots = o->n_seq_max;
    d->step_tokens = o->max_step_tokens;
    err_code rc = take_memory(d, e);
    if (!rc) rc = session_new(&d->sess, small, &mine, e);
    if (rc) {
        drafter_free(d);
        return rc;
    }
    *out = d;
    return ERR_OK;
}

void drafter_free(drafter *d) {
    if (!d) return;
    session_free(d->sess);
    mem_free(d->slots);
    mem_free(d->chunks);
    mem_free(d->chunk_of);
    mem_free(d->tokens);
    mem_free(d);
}

void drafter_forget(drafter *d, uint32_t i) {
    slot *s = &d->slots[i];
    if (s->seq >= 0) session_seq_free(d->sess, s->seq);
    *s = (slot){.seq = -1};
}

void drafter_settle(drafter *d, uint32_t i, uint32_t right) {
    slot *s = &d->slots[i];
    if (!s->n) return;
    uint32_t fed = s->n - 1; /* the last one was never read */
    s->valid = s->text + (right < fed ? right : fed);
    s->n = 0;
}

/* ---- guessing --------------------------------------------------------------------------------------------- */

static uint32_t text_len(const draft_ask *a) {
    return a->text.n_prompt + a->text.n_made;
}

static void copy_text(const history *h, uint32_t from, uint32_t n, int32_t *out) {
    for (uint32_t i = 0; i < n; i++, from++)
        out[i] = from < h->n_prompt ? h->prompt[from] : h->made[from - h->n_prompt];
}

/* The part of the text that the small model has not read, as far as this step has room. */
static void read_text(drafter *d, draft_ask *a, uint32_t *n_chunks, uint32_t *room) {
    slot *s = &d->slots[a->slot];
    err ignored;
    uint32_t end = text_len(a);
    if (s->seq < 0 && session_seq_new(d->sess, &s->seq, &ignored)) {
        s->seq = -1;
        return;
    }
    if (s->valid >= end) s->valid = end - 1; /* a row is needed of the last token */
    s->valid = session_seq_truncate(d->sess, s->seq, s->valid);
    uint32_t n = end - s->valid;
    if (end + a->most > session_n_ctx(d->sess) || !*room) return;
    if (n > *room) n = *room;
    int32_t *tokens = d->tokens + (d->step_tokens - *room);
    copy_text(&a->text, s->valid, n, tokens);
    *room -= n;
    d->chunks[*n_chunks] = (chunk){.seq = s->seq, .tokens = tokens, .n = n, .n_logits = s->valid + n == end};
    d->chunk_of[(*n_chunks)++] = a;
}

static int32_t likeliest(const float *row, uint32_t n) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (row[i] > row[best]) best = i;
    return (int32_t)best;
}

/* What the rows of a step say comes next; the chunks of the next step. Returns how many go on. */
static uint32_t take_guesses(drafter *d, uint32_t n_chunks) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n_chunks; i++) {
        draft_ask *a = d->chunk_of[i];
        const chunk *k = &d->chunks[i];
        slot *s = &d->slots[a->slot];
        if (s->valid < text_len(a)) s->valid += k->n;
        if (!k->logits) continue;
        a->out[a->n++] = likeliest(k->logits, d->n_vocab);
        if (a->n == a->most) continue;
        d->chunk_of[kept] = a;
        d->chunks[kept++] = (chunk){.seq = s->seq, .tokens = &a->out[a->n - 1], .n = 1, .n_logits = 1};
    }
    return kept;
}

void drafter_guess(drafter *d, draft_ask *asks, uint32_t n) {
    uint32_t n_chunks = 0, room = d->step_tokens;
    err ignored;
    for (uint32_t i = 0; i < n; i++) {
        asks[i].n = 0;
        read_text(d, &asks[i], &n_chunks, &room);
    }
    while (n_chunks && !session_step(d->sess, d->chunks, n_chunks, &ignored)) n_chunks = take_guesses(d, n_chunks);
    for (uint32_t i = 0; i < n; i++) {
        slot *s = &d->slots[asks[i].slot];
        s->n = asks[i].n;
        s->text = text_len(&asks[i]);
    }
}
