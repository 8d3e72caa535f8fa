/* The core of the answer parser: marks, text and reasoning, and what all calls have in common. */
#include "inference/format_internal.h"

#define GAP_MAX 4096

/* ---- emitting ---------------------------------------------------------------------------------------------- */

static void flush(answer_parser *p) {
    if (p->out.failed) p->failed = true;
    if (p->out.len) p->emit(p->ctx, p->out_kind, p->out.ptr, p->out.len);
    buf_reset(&p->out);
}

static void emit(answer_parser *p, answer_event_kind kind, const char *s, size_t n) {
    if (!n) return;
    if (kind != p->out_kind) flush(p);
    p->out_kind = kind;
    buf_append(&p->out, s, n);
}

static void emit_now(answer_parser *p, answer_event_kind kind, const char *s, size_t n) {
    flush(p);
    p->emit(p->ctx, kind, s, n);
}

static void check(answer_parser *p, const buf *b) {
    p->failed |= b->failed;
}

/* ---- text and reasoning ------------------------------------------------------------------------------------- */

static void enter(answer_parser *p, parse_mode mode) {
    const answer_format *f = p->f;
    p->mode = mode;
    p->active = 0;
    if (mode == MODE_TEXT && p->tools && f->calls)
        p->active = f->calls->open | f->calls->skip | (p->n_calls ? f->calls->close : 0);
    if (mode == MODE_TEXT && f->think_open[0] && p->at_start) p->active |= MARK_BIT(MARK_THINK_OPEN);
    if (mode == MODE_THINK) p->active = MARK_BIT(MARK_THINK_CLOSE);
}

static void enter_think(answer_parser *p) {
    p->skip_break = true;
    p->n_label = p->f->think_label[0] ? 0 : SIZE_MAX;
    enter(p, MODE_THINK);
}

static void end_gap(answer_parser *p, answer_event_kind kind) {
    check(p, &p->gap);
    emit(p, kind, buf_str(&p->gap), p->gap.len);
    buf_reset(&p->gap);
}

static void begin_call(answer_parser *p, int mark) {
    p->mode = MODE_CALLS;
    p->active = 0;
    p->bare = mark == MARK_BARE;
    p->keep_raw = true;
    p->in_list = false;
    p->n_here = 0;
    p->f->calls->begin(p, mark);
}

/* A byte of the answer's text that is no part of a mark. */
void parse_text_byte(answer_parser *p, char c) {
    bool space = is_space(c);
    if (p->at_start && p->tools && p->f->calls && p->f->calls->bare && c == p->f->calls->bare) {
        p->at_start = false;
        buf_reset(&p->raw);
        begin_call(p, MARK_BARE);
        buf_putc(&p->raw, c);
        p->f->calls->byte(p, c);
        return;
    }
    if (p->after_call && space) return;
    if (p->skip_break && c == '\n') return;
    if (c == '\n' && p->gap.len < GAP_MAX) {
        buf_putc(&p->gap, c);
        return;
    }
    p->skip_break = p->after_call = false;
    end_gap(p, AE_TEXT);
    emit(p, AE_TEXT, &c, 1);
    if (space || !p->at_start) return;
    p->at_start = false;
    p->active &= ~MARK_BIT(MARK_THINK_OPEN);
}

/* Whether c is of the reasoning's label. What looked like one and is none is reasoning. */
static bool label_byte(answer_parser *p, char c) {
    const char *label = p->f->think_label;
    if (p->n_label == SIZE_MAX) return false;
    if (label[p->n_label] && c == label[p->n_label]) {
        p->n_label++;
        return true;
    }
    bool whole = !label[p->n_label] && is_space(c);
    if (!whole) emit(p, AE_REASONING, label, p->n_label);
    p->n_label = SIZE_MAX;
    return whole && p->f->think_label[0];
}

static void think_byte(answer_parser *p, char c) {
    if (label_byte(p, c)) return;
    if (p->skip_break && c == '\n') return;
    if (c == '\n' && p->gap.len < GAP_MAX) {
        buf_putc(&p->gap, c);
        return;
    }
    p->skip_break = false;
    end_gap(p, AE_REASONING);
    emit(p, AE_REASONING, &c, 1);
}

void parse_text(answer_parser *p, const char *s, size_t n, bool reasoning) {
    emit(p, reasoning ? AE_REASONING : AE_TEXT, s, n);
}

/* ---- calls ------------------------------------------------------------------------------------------------- */

const cJSON *parse_tool(const answer_parser *p, const char *name, size_t n) {
    for (const cJSON *t = p->tools ? p->tools->child : NULL; t; t = t->next) {
        const cJSON *f = cJSON_GetObjectItemCaseSensitive(t, "function");
        const cJSON *v = f ? cJSON_GetObjectItemCaseSensitive(f, "name") : NULL;
        if (cJSON_IsString(v) && strlen(v->valuestring) == n && memcmp(v->valuestring, name, n) == 0) return f;
    }
    return NULL;
}

bool parse_call_begin(answer_parser *p, const char *name, size_t n) {
    bool ok = n > 0 && n <= FORMAT_NAME_MAX && !p->in_call;
    for (size_t i = 0; i < n && ok; i++) ok = is_name_char(name[i]);
    if (!ok || !p->tools || (p->bare && !parse_tool(p, name, n))) return false;
    buf_reset(&p->args);
    p->in_call = true;
    emit_now(p, AE_CALL, name, n);
    return true;
}

void parse_call_args(answer_parser *p, const char *s, size_t n) {
    buf_append(&p->args, s, n);
    check(p, &p->args);
    emit(p, AE_ARGS, s, n);
}

bool parse_args_whole(const answer_parser *p) {
    cJSON *v = NULL;
    bool ok = json_parse(&v, buf_str(&p->args), p->args.len, "arguments", NULL) == ERR_OK && cJSON_IsObject(v);
    cJSON_Delete(v);
    return ok;
}

bool parse_call_end(answer_parser *p) {
    if (!p->in_call || !parse_args_whole(p)) {
        parse_bad(p);
        return false;
    }
    emit_now(p, AE_CALL_END, NULL, 0);
    p->in_call = false;
    p->n_calls++;
    p->n_here++;
    p->stopped |= p->one_call;
    buf_reset(&p->gap);
    buf_reset(&p->raw);
    return !p->stopped;
}

void parse_bad(answer_parser *p) {
    if (p->in_call) emit_now(p, AE_CALL_DROP, NULL, 0);
    p->malformed |= p->in_call || !p->bare;
    p->in_call = false;
    check(p, &p->raw);
    p->after_call = p->skip_break = p->at_start = false;
    end_gap(p, AE_TEXT);
    emit(p, AE_TEXT, buf_str(&p->raw), p->raw.len);
    buf_reset(&p->raw);
    if (p->f->calls->takes_all)
        p->f->calls->begin(p, MARK_AGAIN);
    else
        enter(p, MODE_TEXT);
}

void parse_leave(answer_parser *p) {
    p->after_call = p->n_calls > 0;
    p->at_start = false;
    buf_reset(&p->raw);
    enter(p, MODE_TEXT);
}

/* ---- marks ------------------------------------------------------------------------------------------------- */

static const char *mark_text(const answer_format *f, int i) {
    if (i == MARK_THINK_OPEN) return f->think_open[0] ? f->think_open : NULL;
    if (i == MARK_THINK_CLOSE) return f->think_close[0] ? f->think_close : NULL;
    return f->calls && i < FORMAT_MARKS_MAX ? f->calls->marks[i] : NULL;
}

static bool mark_is_strict(const answer_parser *p, int i) {
    if (p->in_prompt) return false;
    return i >= MARK_THINK_OPEN ? p->f->think_strict : (p->f->strict & MARK_BIT(i)) != 0;
}

static void take_mark(answer_parser *p, int mark) {
    const char *text = mark_text(p->f, mark);
    if (p->mode == MODE_CALLS) {
        if (p->keep_raw) buf_puts(&p->raw, text);
        p->f->calls->mark(p, mark);
    } else if (mark == MARK_THINK_OPEN) {
        buf_reset(&p->gap);
        p->at_start = false;
        enter_think(p);
    } else if (mark == MARK_THINK_CLOSE) {
        buf_reset(&p->gap);
        p->skip_break = true;
        p->at_start = true; /* a call without marker may begin here */
        enter(p, MODE_TEXT);
        p->active &= ~MARK_BIT(MARK_THINK_OPEN);
    } else if (p->f->calls->open & MARK_BIT(mark)) {
        p->at_start = false;
        buf_reset(&p->raw);
        buf_puts(&p->raw, text);
        begin_call(p, mark);
    } else if (p->f->calls->skip & MARK_BIT(mark)) {
        p->at_start = true;
    } /* else one that closes, after a call */
}

void parse_bad_mark(answer_parser *p, int mark) {
    const char *text = mark_text(p->f, mark);
    if (p->raw.len >= strlen(text)) p->raw.len -= strlen(text);
    parse_bad(p);
    if (p->mode == MODE_TEXT && (p->f->calls->open & MARK_BIT(mark)))
        take_mark(p, mark);
    else
        emit(p, AE_TEXT, text, strlen(text));
}

/* A byte that is no part of a mark. */
static void take_byte(answer_parser *p, char c) {
    switch (p->mode) {
    case MODE_TEXT: parse_text_byte(p, c); break;
    case MODE_THINK: think_byte(p, c); break;
    case MODE_CALLS:
        if (p->keep_raw) buf_putc(&p->raw, c);
        p->f->calls->byte(p, c);
        break;
    }
}

/* The mark that what is held begins with; HOLD_MAYBE where it could become one, or a longer one. */
#define HOLD_NONE  (-1)
#define HOLD_MAYBE (-2)
static int hold_mark(const answer_parser *p, bool all) {
    int found = HOLD_NONE;
    for (int i = 0; i <= MARK_THINK_CLOSE; i++) {
        if (!(p->active & MARK_BIT(i)) || mark_is_strict(p, i)) continue;
        const char *text = mark_text(p->f, i);
        size_t n = text ? strlen(text) : 0;
        if (n && n <= p->n_hold && memcmp(text, p->hold, n) == 0) found = i;
        if (n > p->n_hold && !all && memcmp(text, p->hold, p->n_hold) == 0) return HOLD_MAYBE;
    }
    return found;
}

static void drop_hold(answer_parser *p, size_t n) {
    p->n_hold -= n;
    memmove(p->hold, p->hold + n, p->n_hold);
}

/* Let go of what cannot become a mark any more. With `all`, nothing that is held can become a longer one. */
static void settle_hold(answer_parser *p, bool all) {
    while (p->n_hold && !p->stopped) {
        int mark = hold_mark(p, all);
        if (mark == HOLD_MAYBE) return;
        char c = p->hold[0];
        drop_hold(p, mark >= 0 ? strlen(mark_text(p->f, mark)) : 1);
        if (mark >= 0)
            take_mark(p, mark);
        else
            take_byte(p, c);
    }
}

void answer_parser_text(answer_parser *p, const char *s, size_t n) {
    for (size_t i = 0; i < n && !p->stopped && !p->failed; i++) {
        if (!p->n_hold && (!p->active || !strchr("<[`", s[i]) || !s[i])) {
            take_byte(p, s[i]);
            continue;
        }
        p->hold[p->n_hold++] = s[i];
        settle_hold(p, false);
    }
    flush(p);
}

void answer_parser_special(answer_parser *p, const char *spelling, size_t n) {
    settle_hold(p, true);
    for (int i = 0; i <= MARK_THINK_CLOSE && !p->stopped; i++) {
        const char *text = mark_text(p->f, i);
        if (!text || strlen(text) != n || memcmp(text, spelling, n) != 0) continue;
        bool think = i >= MARK_THINK_OPEN;
        /* reasoning may open anywhere where its marker is a token of its own, and closes where it is open */
        if (think && p->mode == MODE_CALLS) continue;
        if (think && i == (p->mode == MODE_THINK ? MARK_THINK_OPEN : MARK_THINK_CLOSE)) break;
        if (!think && p->mode != MODE_CALLS && !(p->active & MARK_BIT(i))) continue;
        take_mark(p, i);
        break;
    }
    flush(p);
}

/* ---- life -------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, size_t n, const char *end) {
    size_t k = strlen(end);
    return k && n >= k && memcmp(s + n - k, end, k) == 0;
}

/* The prompt's end: has it opened the reasoning, or begun the answer's header? */
static void read_prompt(answer_parser *p, const char *s, size_t n) {
    if (p->f->calls && p->f->calls->takes_all) {
        begin_call(p, MARK_BARE);
        p->bare = false;
        const char *from = NULL;
        for (size_t i = n; i > 0 && !from && n - i < 200; i--)
            if (n - i + 1 >= 9 && memcmp(s + i - 1, "<|start|>", 9) == 0) from = s + i - 1 + 9;
        if (!from) return;
        p->in_prompt = true;
        answer_parser_text(p, from, (size_t)(s + n - from));
        p->in_prompt = false;
        buf_reset(&p->raw); /* not the model's */
        return;
    }
    while (n && is_space(s[n - 1])) n--;
    if (p->f->think_label[0] && ends_with(s, n, p->f->think_label)) n -= strlen(p->f->think_label);
    if (!p->f->think_open[0] || !ends_with(s, n, p->f->think_open)) return;
    p->at_start = false;
    enter_think(p);
}

err_code answer_parser_new(answer_parser **out, const answer_format *f, const answer_parser_options *o, err *e) {
    *out = NULL;
    bool calls = f->calls && o->tools && o->tools->child;
    if (!calls && !f->think_open[0] && !(f->calls && f->calls->takes_all)) return ERR_OK;
    answer_parser *p = mem_zalloc(sizeof *p);
    if (!p) return err_nomem(e, "the parser of an answer");
    p->f = f;
    p->tools = calls ? o->tools : NULL;
    p->emit = o->emit;
    p->ctx = o->ctx;
    p->one_call = o->one_call;
    p->at_start = true;
    buf *all[] = {&p->out, &p->gap, &p->raw, &p->args, &p->key, &p->value, &p->name, &p->early};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) buf_init(all[i], FORMAT_BYTES_MAX);
    enter(p, MODE_TEXT);
    read_prompt(p, o->prompt ? o->prompt : "", o->prompt ? o->prompt_len : 0);
    *out = p;
    return ERR_OK;
}

void answer_parser_free(answer_parser *p) {
    if (!p) return;
    buf *all[] = {&p->out, &p->gap, &p->raw, &p->args, &p->key, &p->value, &p->name, &p->early};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i]->ptr) mem_wipe(all[i]->ptr, all[i]->cap);
        buf_free(all[i]);
    }
    mem_free(p);
}

void answer_parser_end(answer_parser *p, bool cut) {
    if (!p->stopped) settle_hold(p, true);
    if (!p->stopped && p->mode == MODE_CALLS && !p->f->calls->end(p)) {
        if (!cut) {
            parse_bad(p);
        } else if (!p->in_call) { /* no name was read: what there is goes out as text */
            bool was = p->malformed;
            parse_bad(p);
            p->malformed = was;
        }
    }
    if (!p->stopped && p->mode == MODE_TEXT && !p->after_call) end_gap(p, AE_TEXT);
    flush(p);
}

bool answer_parser_is_reasoning(const answer_parser *p) {
    return p->mode == MODE_THINK || (p->mode == MODE_CALLS && p->thinks);
}
bool answer_parser_stopped(const answer_parser *p) {
    return p->stopped;
}
bool answer_parser_malformed(const answer_parser *p) {
    return p->malformed;
}
uint32_t answer_parser_n_calls(const answer_parser *p) {
    return p->n_calls;
}
bool answer_parser_failed(const answer_parser *p) {
    return p->failed;
}
