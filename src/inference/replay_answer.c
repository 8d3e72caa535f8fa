/* What the tokens of a choice say: the text as it was written and why it ended, in the same steps as the engine thread
 * (scheduler.c, job.c), without its clients. */
#include "inference/replay_internal.h"

#include "base/mem.h"

#include <string.h>

typedef struct speaker {
    const model *m;
    const replay_saying *s;
    buf *out;
    buf scratch;
    stop_set stops;
    answer_text text;
    answer_parser *parser; /* NULL: the answer is text */
    detok detok;
} speaker;

static void ignore_event(void *ctx, answer_event_kind kind, const char *p, size_t n) {}

/* What is ready goes out, and through the parser, with the control token that stands behind it. */
static void pass(speaker *k, const char *special, size_t n_special) {
    answer_text *a = &k->text;
    if (a->ready) {
        buf_append(k->out, a->text.ptr, a->ready);
        if (k->parser) answer_parser_text(k->parser, a->text.ptr, a->ready);
    }
    answer_text_taken(a);
    if (!n_special) return;
    buf_append(k->out, special, n_special);
    answer_parser_special(k->parser, special, n_special);
}

static void feed(speaker *k) {
    answer_text_feed(&k->text, buf_str(&k->scratch), k->scratch.len, NULL);
    pass(k, NULL, 0);
}

/* A token that has a spelling and shows nothing. Leaves the spelling in scratch. */
static bool is_control(speaker *k, int32_t token) {
    buf_reset(&k->scratch);
    model_token_bytes(k->m, token, false, &k->scratch);
    if (k->scratch.len) return false;
    model_token_bytes(k->m, token, true, &k->scratch);
    return k->scratch.len > 0;
}

static void say_token(speaker *k, int32_t token) {
    if (k->parser && is_control(k, token)) {
        buf_reset(&k->scratch);
        detok_flush(&k->detok, &k->scratch);
        if (k->scratch.len) feed(k);
        buf_reset(&k->scratch);
        model_token_bytes(k->m, token, true, &k->scratch);
        answer_text_break(&k->text, NULL);
        pass(k, buf_str(&k->scratch), k->scratch.len);
        return;
    }
    buf_reset(&k->scratch);
    detok_feed(&k->detok, token, &k->scratch);
    feed(k);
}

static bool prompt_is_silent(speaker *k) {
    buf_reset(&k->scratch);
    for (size_t i = 0; i < k->s->n_prompt && !k->scratch.len; i++)
        model_token_bytes(k->m, k->s->prompt[i], false, &k->scratch);
    return k->scratch.len == 0;
}

static void echo(speaker *k) {
    for (size_t i = 0; i < k->s->n_prompt; i++) {
        buf_reset(&k->scratch);
        detok_feed(&k->detok, k->s->prompt[i], &k->scratch);
        answer_text_echo(&k->text, buf_str(&k->scratch), k->scratch.len, NULL);
        pass(k, NULL, 0);
    }
}

static bool has_enough(const speaker *k) {
    return k->text.stopped || (k->parser && answer_parser_stopped(k->parser));
}

/* "stop" or "length" as the tokens say, NULL where neither. */
static const char *say_tokens(speaker *k) {
    const replay_saying *s = k->s;
    for (size_t i = 0; i < s->n; i++) {
        bool last = i + 1 == s->n;
        if (model_token_is_end(k->m, s->tokens[i]) && !s->r->ignore_end) return last ? "stop" : "an end that is none";
        say_token(k, s->tokens[i]);
        if (has_enough(k)) return last ? "stop" : "a stop that is none";
    }
    return s->n == s->max_new ? "length" : NULL;
}

static const char *end_of(speaker *k, const char *reason) {
    if (!k->text.stopped) {
        buf_reset(&k->scratch);
        detok_flush(&k->detok, &k->scratch);
        feed(k);
    }
    if (k->text.stopped) reason = "stop";
    answer_text_end(&k->text);
    pass(k, NULL, 0);
    if (!k->parser) return reason;
    bool cut = strcmp(reason, "length") == 0;
    answer_parser_end(k->parser, cut);
    return !cut && strcmp(reason, "stop") == 0 && answer_parser_n_calls(k->parser) ? "tool_calls" : reason;
}

static err_code speaker_init(speaker *k, const replay_model *m, err *e) {
    const replay_saying *s = k->s;
    answer_parser_options o = {.tools = s->r->tools,
                               .one_call = s->r->one_call,
                               .prompt = s->prompt_text,
                               .prompt_len = s->prompt_text_len,
                               .emit = ignore_event};
    err_code rc = stop_set_init(&k->stops, s->r->stops, s->r->n_stops, e);
    answer_text_init(&k->text, &k->stops);
    if (!rc && s->r->parse) rc = answer_parser_new(&k->parser, m->format, &o, e);
    buf_init(&k->scratch, 1 << 20);
    if (!rc) detok_init(&k->detok, k->m, s->r->echo || prompt_is_silent(k), false);
    return rc;
}

err_code replay_say(const replay_model *m, const replay_saying *s, buf *text, const char **finish, err *e) {
    speaker *k = mem_zalloc(sizeof *k);
    *finish = NULL;
    if (!k) return err_nomem(e, "a replay");
    *k = (speaker){.m = m->m, .s = s, .out = text};
    err_code rc = speaker_init(k, m, e);
    if (!rc) {
        if (s->r->echo) echo(k);
        *finish = say_tokens(k);
        if (*finish) *finish = end_of(k, *finish);
    }
    if (!rc && (k->text.failed || k->scratch.failed || (k->parser && answer_parser_failed(k->parser))))
        rc = err_nomem(e, "the text of an answer");
    if (!rc) rc = buf_check(text, "the text of an answer", e);
    answer_parser_free(k->parser);
    answer_text_free(&k->text);
    if (k->scratch.ptr) mem_wipe(k->scratch.ptr, k->scratch.cap);
    buf_free(&k->scratch);
    mem_free(k);
    return rc;
}
