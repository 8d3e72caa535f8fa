/* Internal to the formats: the parser's parts that format_*.c share. Not included outside them.
 *
 * A call_format is a table of functions over an answer_parser that is inside a call. While text runs, the core
 * (format_parse.c) looks for the marks in `open`; then it hands every byte and every mark to the format until that
 * calls parse_leave. `active` is the set of marks that are looked for in bytes: a format clears it where its text is
 * quoted (JSON), so that a marker inside a string is no marker. Marks that are control tokens always arrive. */
#ifndef POLDER_INFERENCE_FORMAT_INTERNAL_H
#define POLDER_INFERENCE_FORMAT_INTERNAL_H

#include "inference/format.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define FORMAT_MARKS_MAX  10 /* of a format; two more are the reasoning's */
#define FORMAT_MARK_BYTES 48
#define FORMAT_BYTES_MAX  ((size_t)64 << 20) /* arguments of a call; a call as text */
#define FORMAT_NAME_MAX   128
#define FORMAT_HEAD_MAX   512
#define MARK_THINK_OPEN   14
#define MARK_THINK_CLOSE  15
#define MARK_BARE         (-1) /* begin: no mark, the answer begins like a call */
#define MARK_AGAIN        (-2) /* begin: after a malformed call, for formats that take the whole answer */
#define MARK_BIT(i)       (1u << (i))

struct call_format {
    const char *name;
    const char *marks[FORMAT_MARKS_MAX];
    uint32_t open;  /* marks that begin a call in text */
    uint32_t close; /* marks that are no text after a call */
    uint32_t skip;  /* marks that are no text; a call without mark may begin behind them */
    char bare;      /* the character that a call without mark begins an answer with; 0: there is none */
    bool takes_all; /* text and reasoning are inside the format too */
    bool own_ids;   /* calls are told apart by functions.NAME:INDEX */
    void (*begin)(answer_parser *p, int mark);
    void (*byte)(answer_parser *p, char c);
    void (*mark)(answer_parser *p, int mark);
    bool (*end)(answer_parser *p); /* the answer is over: was everything whole? */
};

extern const call_format format_hermes, format_qwen_xml, format_llama_json, format_pythonic, format_mistral,
    format_deepseek, format_kimi, format_harmony, format_gemma4, format_function_gemma, format_tool_code, format_phi4;

/* ---- JSON, byte by byte (format_json.c) --------------------------------------------------------------------- */

typedef enum scan { SCAN_MORE, SCAN_END, SCAN_BEFORE, SCAN_BAD } scan;

/* Where one JSON value ends. It does not judge what is inside: json_parse does, when it is whole. */
typedef struct json_scan {
    char first; /* 0: nothing but white space so far */
    uint8_t depth;
    bool in_string, escaped;
} json_scan;
/* SCAN_END: c was its last byte. SCAN_BEFORE: the byte before c was (numbers, true, false, null). */
scan json_scan_byte(json_scan *j, char c);

/* {"name": …, "arguments": …} in any order; what else is in it is read over. */
typedef struct call_object {
    uint8_t at, field;
    bool named, has_args, streams, escaped;
    json_scan value;
} call_object;
void call_object_start(answer_parser *p);
scan call_object_byte(answer_parser *p, char c);

/* One such object or a list of them. Shared by the JSON forms and Mistral's older one. */
void json_calls_begin(answer_parser *p, int mark);
void json_calls_byte(answer_parser *p, char c);
void json_calls_mark(answer_parser *p, int mark);
bool json_calls_end(answer_parser *p);

/* ---- literals of Python and Gemma (format_literal.c) --------------------------------------------------------- */

/* One value as JSON; quote is what Gemma puts around strings, NULL for Python's. false: it is none. */
bool literal_to_json(buf *out, const char *s, size_t n, const char *quote);

/* ---- the parser (format_parse.c) ----------------------------------------------------------------------------- */

typedef enum parse_mode { MODE_TEXT, MODE_THINK, MODE_CALLS } parse_mode;

struct answer_parser {
    const answer_format *f;
    const cJSON *tools;
    void (*emit)(void *ctx, answer_event_kind kind, const char *p, size_t n);
    void *ctx;
    bool one_call, stopped, malformed, failed;
    uint32_t n_calls; /* whole ones */

    /* the core's */
    parse_mode mode;
    uint32_t active;
    char hold[FORMAT_MARK_BYTES]; /* the beginning of a mark, perhaps */
    size_t n_hold;
    buf out; /* of out_kind, not emitted yet */
    answer_event_kind out_kind;
    buf gap;         /* line breaks that may belong to a marker */
    bool at_start;   /* nothing but white space so far */
    size_t n_label;  /* bytes of the reasoning's label that were read; SIZE_MAX: past it */
    bool skip_break; /* line breaks are the marker's that was just read */
    bool after_call; /* white space is */

    /* a call's */
    buf raw;  /* as the model wrote it */
    buf args; /* its arguments so far */
    bool in_call, keep_raw;
    bool in_prompt; /* the prompt's end is being read: its marks are text */
    bool thinks;    /* of formats that take the whole answer: reasoning is being written */
    bool seen_think, seen_text;

    /* the format's own */
    int st;
    bool bare, in_list;
    uint32_t n_here; /* calls since begin */
    buf key, value, name, early;
    call_object object;
    json_scan json;
    char quote; /* format_xml.c: a line break that is held back; format_literal.c: what closes the string */
    bool escaped;
    uint32_t depth;
    uint32_t types;
};

void parse_text_byte(answer_parser *p, char c);
void parse_text(answer_parser *p, const char *s, size_t n, bool reasoning);
/* A call's name is known. false: it is no name (or, where a call has no marker, no tool's); nothing was done. */
bool parse_call_begin(answer_parser *p, const char *name, size_t n);
void parse_call_args(answer_parser *p, const char *s, size_t n);
/* Its arguments are whole: checks them. The parser may be elsewhere afterwards (malformed, stopped): see mode. true:
 * all is well and the format goes on. */
bool parse_call_end(answer_parser *p);
bool parse_args_whole(const answer_parser *p);
/* What was read since begin (or since the last whole call) is no call: it becomes text. */
void parse_bad(answer_parser *p);
/* The same where it is a mark that does not belong there: the mark itself is read again, as one in text. */
void parse_bad_mark(answer_parser *p, int mark);
/* Back to text. */
void parse_leave(answer_parser *p);
/* The tool of that name, NULL where there is none. */
const cJSON *parse_tool(const answer_parser *p, const char *name, size_t n);

static inline bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}
static inline bool is_name_char(char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c && strchr("_-.:/", c));
}

#endif
