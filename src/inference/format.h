/* Internal to inference: how a model's family writes tool calls and reasoning, and the parser that reads them.
 *
 * An answer_format belongs to one loaded model. It is chosen by markers in the model's chat template and by its
 * vocabulary, never by a name, and it knows what that template wants of a conversation with calls in it (found out by
 * rendering small conversations once, at load).
 *
 * An answer_parser reads one answer as it is written:
 *
 *   bytes, special tokens ──▶ hold (what may begin a marker) ──▶ text ─────▶ AE_TEXT
 *                                                            ├─▶ thinking ─▶ AE_REASONING
 *                                                            └─▶ call ─────▶ AE_CALL name, AE_ARGS…, AE_CALL_END
 *
 * Invariants
 *  1. What comes out depends on the sequence of bytes and special tokens, never on how it was cut into pieces; two
 *     pieces of one kind in a row are one.
 *  2. A marker that is a control token of the vocabulary counts only as that token; its spelling in plain text is text.
 *  3. Nothing is swallowed. A call that cannot be read comes back as text, word for word, and the answer is marked
 *     `malformed`. Where its name had gone out already, AE_CALL_DROP takes that back before the text. What the answer's
 *     length cut off stays as far as it came: a begun call without AE_CALL_END, or its text where no name was read.
 *  4. The arguments of a finished call are one JSON object; json_parse has read it.
 *  5. Line breaks beside a marker belong to the marker; all others are the answer's.
 *
 * After that come the ways into the template (format_messages) and out of a model (format_grammar).
 */
#ifndef POLDER_INFERENCE_FORMAT_H
#define POLDER_INFERENCE_FORMAT_H

#include "inference/prompt.h"

/* ---- what a model's format is ------------------------------------------------------------------------------ */

typedef struct answer_format answer_format;
typedef struct call_format call_format; /* one family's form; format_internal.h */

struct answer_format {                    /* immutable once made */
    const call_format *calls;             /* NULL: none that is known */
    uint32_t strict;                      /* bits of marks that are control tokens */
    char think_open[32], think_close[32]; /* empty: no reasoning */
    char think_label[16];                 /* what stands behind think_open and is no reasoning: "thought" */
    bool think_strict;

    /* what the template does, found out by rendering */
    bool takes_tools;    /* tools appear in the prompt */
    bool takes_calls;    /* calls of assistant messages appear */
    bool takes_results;  /* messages of role tool appear */
    bool one_call;       /* at most one call in a message */
    bool args_text;      /* arguments as JSON text; false: as an object */
    bool content_null;   /* a message with calls must have no content */
    bool short_ids;      /* call ids of 9 letters and digits */
    bool own_ids;        /* call ids of the form functions.NAME:INDEX */
    bool own_ids_local;  /* where INDEX counts in one message; else in the conversation */
    bool tool_responses; /* results inside the assistant's message */
    bool listed;         /* Mistral: calls are a list of objects; false: name and arguments */
    bool fenced;         /* DeepSeek: arguments stand in a fence of JSON */
    bool thinking_key;   /* reasoning goes back as "thinking" and not beside content */
};

/* From a template (NULL: the model has none) and the model's special tokens (NULL: none are known). */
err_code answer_format_new(answer_format **out, const chat_template *t, const special_set *special, err *e);
/* A form by its name ("hermes", "qwen_xml", …; NULL: none) without a template, for tests. ERR_NOT_FOUND. */
err_code answer_format_named(answer_format **out, const char *calls, const char *think_open, const char *think_close,
                             const special_set *special, err *e);
void answer_format_free(answer_format *f);              /* NULL is fine */
const char *answer_format_name(const answer_format *f); /* "none" where it knows no calls */
/* Names of all forms, in the order in which they are looked for; NULL past the end. */
const char *answer_format_list(size_t i);

/* ---- reading an answer ------------------------------------------------------------------------------------- */

typedef enum answer_event_kind {
    AE_TEXT,
    AE_REASONING,
    AE_CALL,      /* a call begins: its name */
    AE_ARGS,      /* a piece of its arguments' JSON */
    AE_CALL_END,  /* its arguments are whole */
    AE_CALL_DROP, /* it was none: forget it. Its text follows */
} answer_event_kind;

typedef struct answer_parser answer_parser;
typedef struct answer_parser_options {
    const cJSON *tools; /* OpenAI's list; NULL: calls are not looked for. The caller's until answer_parser_free */
    bool one_call;      /* the answer is over after the first call */
    const char *prompt; /* the end of the prompt as the model reads it: it may have opened the reasoning */
    size_t prompt_len;
    void (*emit)(void *ctx, answer_event_kind kind, const char *p, size_t n);
    void *ctx;
} answer_parser_options;

/* *out is NULL, with ERR_OK, where the answer is all text and needs no parser. */
err_code answer_parser_new(answer_parser **out, const answer_format *f, const answer_parser_options *o, err *e);
void answer_parser_free(answer_parser *p); /* NULL is fine */
/* Whole characters. Events that are certain are emitted before it returns. */
void answer_parser_text(answer_parser *p, const char *s, size_t n);
/* A control token, by its spelling. */
void answer_parser_special(answer_parser *p, const char *spelling, size_t n);
/* The answer is over; cut: its length was at an end. */
void answer_parser_end(answer_parser *p, bool cut);
bool answer_parser_is_reasoning(const answer_parser *p);
bool answer_parser_stopped(const answer_parser *p);   /* nothing more is read: the answer is over */
bool answer_parser_malformed(const answer_parser *p); /* some call could not be read */
uint32_t answer_parser_n_calls(const answer_parser *p);
bool answer_parser_failed(const answer_parser *p); /* out of memory, or past the limit of one answer */

/* ---- into the template ------------------------------------------------------------------------------------- */

/* OpenAI's messages as the template wants them: *out is the caller's. ERR_UNSUPPORTED where the template cannot show
 * calls or results that they have, ERR_INVALID for arguments that are no object. */
err_code format_messages(cJSON **out, const answer_format *f, const cJSON *messages, err *e);
/* ERR_UNSUPPORTED, with a sentence, where tools cannot be offered to this model. */
err_code format_check_tools(const answer_format *f, const char *model_name, err *e);

#endif
