/* Internal to server: what the two OpenAI dialects share.
 *
 * OpenAI's clients send many optional fields. Each field that is known is either honoured, or ignored because it does
 * not change the answer, or refused because polder would answer something else than what was asked. A field that is
 * not in the tables is refused by its name. null counts as absent. */
#ifndef POLDER_SERVER_OPENAI_H
#define POLDER_SERVER_OPENAI_H

#include "base/json.h"
#include "server/dialect.h"

typedef struct openai_field {
    const char *name;
    /* Check and keep the value (not null). NULL: any value is fine and changes nothing. */
    err_code (*take)(answer *a, const cJSON *v, err *e);
} openai_field;

extern const openai_field openai_common_fields[]; /* end with a NULL name, as every table */

/* Every field of a->body through `own`, then the common table; a->param names the one at fault. */
err_code openai_take_fields(answer *a, const openai_field *own, err *e);
/* Every field through `own` alone. */
err_code openai_take_own_fields(answer *a, const openai_field *own, err *e);
/* A field as the common table takes it, for a table that stands alone. */
err_code openai_take_common(answer *a, const cJSON *v, err *e);
/* Every field of an object must be one of the words of `known` ("type text"); `where` begins the sentence. */
err_code openai_check_keys(const cJSON *o, const char *where, const char *known, err *e);
/* What a body declares of its sensitivity: metadata.polder_label, into r.label. */
err_code openai_take_label(answer *a, const cJSON *v, err *e);
/* After the fields: what must be there and what must fit together. */
err_code openai_check_common(answer *a, err *e);

/* Fields refused unless their value asks for nothing. */
err_code openai_refuse(answer *a, const cJSON *v, err *e);          /* any value */
err_code openai_refuse_true(answer *a, const cJSON *v, err *e);     /* all but false */
err_code openai_refuse_nonempty(answer *a, const cJSON *v, err *e); /* all but [] , {} and "" */
err_code openai_take_int(answer *a, const cJSON *v, int64_t min, int64_t max, int64_t *out, err *e);

/* ---- tools and reasoning (openai_tools.c) ---- */
err_code openai_refuse_functions(answer *a, const cJSON *v, err *e); /* functions, function_call */
err_code openai_take_tools(answer *a, const cJSON *v, err *e);
err_code openai_take_tool_choice(answer *a, const cJSON *v, err *e);
err_code openai_take_parallel(answer *a, const cJSON *v, err *e);
err_code openai_take_effort(answer *a, const cJSON *v, err *e);
err_code openai_take_template_args(answer *a, const cJSON *v, err *e);
/* After the fields: which tools are offered. a->param is set where they do not fit. */
err_code openai_check_tools(answer *a, err *e);
/* tool_calls and reasoning of an assistant's message, into the message that templates get. */
err_code openai_read_calls(const cJSON *m, int index, cJSON *to, err *e);
/* For other dialects' forms of the same: one more tool in a->tools, one more call in an assistant's message. `where`
 * begins the sentence of an error ("tools[3]"). */
#define OPENAI_TOOLS_MAX 1024
err_code openai_put_tool(answer *a, const char *where, const char *name, const char *description,
                         const cJSON *parameters, bool strict, err *e);
err_code openai_put_call(cJSON *message, const char *where, const char *id, const char *name, const char *args, err *e);
/* parts[] of a choice: its tokens, its reasoning, its calls (JSON objects and commas), the arguments of the last. */
enum { OPENAI_TOKENS, OPENAI_REASONING, OPENAI_CALLS, OPENAI_ARGS };
void openai_collect(answer *a, choice *c, const event *ev);
/* "tool_calls" of a delta, for EV_CALL and EV_CALL_ARGS of the answer's choice `at`. */
void openai_call_delta(jw *w, const answer *a, uint32_t at, const choice *c, const event *ev);

/* ---- the form of an answer (openai_format.c) ---- */
err_code openai_take_response_format(answer *a, const cJSON *v, err *e);
err_code openai_take_guided(answer *a, const cJSON *v, err *e); /* guided_json, guided_regex, … */
err_code openai_take_structured(answer *a, const cJSON *v, err *e);
err_code openai_take_grammar(answer *a, const cJSON *v, err *e);
err_code openai_take_json_schema(answer *a, const cJSON *v, err *e);
/* The answer must be JSON of this schema (an object or true); `field` names it in errors. */
err_code openai_ask_schema(answer *a, const char *field, const cJSON *schema, err *e);

/* "data: …\n\n" around one JSON value. */
void openai_event_begin(buf *out);
void openai_event_end(buf *out);
void openai_stream_end(buf *out); /* data: [DONE] */
void openai_usage(jw *w, const answer *a);
/* A log-probability: the shortest decimal that reads back as the same float; minus infinity as -9999; NAN as null. */
void openai_logprob(jw *w, float v);

#endif
