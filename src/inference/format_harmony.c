/* gpt-oss: the answer is a row of messages, each with a header that names its channel and whom it is for.
 *
 *   <|channel|>analysis<|message|>…<|end|>                                              reasoning
 *   <|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}<|call|>   a call
 *   <|start|>assistant<|channel|>commentary<|message|>…<|end|>                          text before calls
 *   <|start|>assistant<|channel|>final<|message|>…<|return|>                            text
 *
 * The recipient may also stand before the channel. <|call|> and <|return|> end the answer, as tokens that the engine
 * stops at; conversations show several calls in a row. The prompt ends inside the first header. */
#include "inference/format_internal.h"

enum { M_CHANNEL, M_MESSAGE, M_END, M_START, M_CONSTRAIN, M_CALL, M_RETURN };
enum { ST_HEAD, ST_THINK, ST_TEXT, ST_CALL, ST_OUT };

static void go(answer_parser *p, int st) {
    p->st = st;
    p->active = (1u << (M_RETURN + 1)) - 1; /* a message's end is looked for even inside JSON: nothing else ends it */
    p->thinks = st == ST_THINK;
    p->keep_raw = st == ST_HEAD || st == ST_CALL;
    if (st == ST_THINK || st == ST_TEXT || st == ST_OUT) buf_reset(&p->raw);
}

static void harmony_begin(answer_parser *p, int mark) {
    buf_reset(&p->name); /* the header */
    go(p, mark == MARK_AGAIN ? ST_OUT : ST_HEAD);
}

static void head_begin(answer_parser *p, const char *text) {
    buf_reset(&p->name);
    buf_reset(&p->raw);
    buf_puts(&p->raw, text);
    go(p, ST_HEAD);
}

/* The header was none: what stands in it is text. */
static void head_is_text(answer_parser *p) {
    parse_text(p, buf_str(&p->raw), p->raw.len, false);
    go(p, ST_OUT);
}

/* The word behind `before` in the header, up to white space or a mark. */
static size_t head_word(const answer_parser *p, const char *before, const char **word) {
    const char *s = strstr(buf_str(&p->name), before);
    *word = "";
    if (!s) return 0;
    *word = s + strlen(before);
    return strcspn(*word, " \t\r\n<");
}

static bool word_is(const char *s, size_t n, const char *what) {
    return strlen(what) == n && memcmp(s, what, n) == 0;
}

static void message_begin(answer_parser *p) {
    static const char prefix[] = "functions.";
    const char *to, *channel;
    size_t n_to = head_word(p, "to=", &to), n_channel = head_word(p, "<|channel|>", &channel), k = sizeof prefix - 1;
    if (n_to) {
        bool ours = n_to > k && memcmp(to, prefix, k) == 0;
        if (ours && parse_call_begin(p, to + k, n_to - k))
            go(p, ST_CALL);
        else
            parse_bad(p);
        return;
    }
    bool thinks = word_is(channel, n_channel, "analysis");
    bool more = thinks ? p->seen_think : p->seen_text;
    go(p, thinks ? ST_THINK : ST_TEXT);
    if (more) parse_text(p, "\n\n", 2, thinks); /* several messages in a row are paragraphs */
    if (thinks)
        p->seen_think = true;
    else
        p->seen_text = true;
}

static void harmony_byte(answer_parser *p, char c) {
    switch (p->st) {
    case ST_HEAD:
        buf_putc(&p->name, c);
        if (p->name.len > FORMAT_HEAD_MAX) head_is_text(p);
        break;
    case ST_CALL: parse_call_args(p, &c, 1); break;
    case ST_OUT:
        if (is_space(c)) break;
        go(p, ST_TEXT);
        parse_text(p, &c, 1, false);
        break;
    default: parse_text(p, &c, 1, p->st == ST_THINK);
    }
}

static void message_end(answer_parser *p, int mark) {
    if (p->st == ST_CALL) (void)parse_call_end(p);
    go(p, ST_OUT);
    p->stopped |= mark == M_RETURN;
}

/* A header begins. A call whose message was never ended is none. */
static void next_head(answer_parser *p, const char *text) {
    if (p->st == ST_CALL) {
        p->raw.len -= strlen(text);
        parse_bad(p);
    }
    head_begin(p, text);
}

static void harmony_mark(answer_parser *p, int mark) {
    const char *text = p->f->calls->marks[mark];
    bool in_head = p->st == ST_HEAD;
    switch (mark) {
    case M_CHANNEL:
        if (!in_head) next_head(p, text);
        buf_puts(&p->name, text);
        break;
    case M_CONSTRAIN:
        if (in_head) buf_putc(&p->name, ' ');
        break;
    case M_MESSAGE:
        if (in_head) message_begin(p);
        break;
    case M_START: next_head(p, text); break;
    default:
        if (in_head && p->raw.len > strlen(text)) {
            p->raw.len -= strlen(text);
            head_is_text(p);
        }
        message_end(p, mark);
    }
}

static bool harmony_end(answer_parser *p) {
    if (p->st == ST_CALL) {
        bool whole = parse_args_whole(p);
        if (whole) (void)parse_call_end(p);
        return whole;
    }
    if (p->st == ST_HEAD && p->name.len && !strstr(buf_str(&p->name), "<|channel|>") &&
        strcmp(buf_str(&p->name), "assistant") != 0)
        head_is_text(p);
    return true;
}

const call_format format_harmony = {
    .name = "harmony",
    .marks = {"<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|constrain|>", "<|call|>", "<|return|>"},
    .takes_all = true,
    .begin = harmony_begin,
    .byte = harmony_byte,
    .mark = harmony_mark,
    .end = harmony_end,
};
