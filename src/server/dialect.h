/* Internal to server: what a dialect is, and the answer it works on.
 *
 * A dialect turns one JSON body into one or more runs of the pipeline (parse) and events into bytes (chunk for a
 * stream, whole otherwise). It is a table of functions: http.c and answer.c know no dialect by name, a new one is a
 * new table and a line in routes.c.
 *
 * Life of an answer: answer_new → parse → prepare → answer_run (calls chunk, or collects and then calls whole; done at
 * the end of the last run) → answer_free.
 * One thread at a time. Everything hangs on the answer; strings in `r` point into `body` or into memory it owns.
 */
#ifndef POLDER_SERVER_DIALECT_H
#define POLDER_SERVER_DIALECT_H

#include "inference/inference.h"

#include <stdio.h>
#include <stdlib.h>

#define ANSWER_PROMPTS_MAX 256         /* prompts of one request */
#define ANSWER_BYTES_MAX   (64u << 20) /* an answer that is not streamed, and each choice of it */
#define ANSWER_PARTS       4           /* lists that a dialect collects beside a choice's text */
#define ANSWER_PARAM_MAX   96

typedef struct dialect dialect;

typedef struct prompt { /* one run: text, or tokens, or the answer's messages */
    const char *text;
    int32_t *tokens; /* owned */
    size_t n_tokens;
} prompt;

typedef struct choice {
    buf text;                /* collected (answers that are not streamed) */
    buf parts[ANSWER_PARTS]; /* the dialect's own lists, e.g. log-probabilities as JSON */
    uint64_t text_chars;     /* characters so far, for offsets */
    char reason[16];         /* "stop", "length", "tool_calls" */
    uint32_t n_calls;        /* tool calls that have begun */
    size_t call_from;        /* where the dialect's text of the last one begins */
    bool in_call, malformed; /* it is not over; one could not be read */
} choice;

typedef enum tool_mode { TOOL_AUTO, TOOL_NONE, TOOL_REQUIRED, TOOL_NAMED } tool_mode;

typedef struct answer {
    const dialect *d;
    cJSON *body;     /* owned */
    cJSON *messages; /* owned; what r.messages points to */
    cJSON *tools;    /* owned; what r.tools points to where they are offered */
    tool_mode tool_mode;
    const char *tool_named;     /* TOOL_NAMED */
    const cJSON *allowed_tools; /* the only ones that are offered; NULL: all */
    bool strict_tools;          /* some tool's arguments must follow its schema */
    request r;                  /* the prompt of run k is set by answer_run */
    logit_bias *bias;
    embed_request embed; /* what r.embed points to, where vectors or scores are asked for */
    embed_input *inputs; /* owned; embed.inputs */
    int32_t *ids;        /* owned; the token ids in them */
    bool base64, return_documents;
    uint32_t top_n;       /* of the scores; 0: all */
    char *grammar_source; /* owned; what r.grammar_source points to */
    prompt *prompts;      /* n_runs of them; NULL: one run over r.messages */
    uint32_t n_runs;
    bool stream, include_usage;
    island *isl;                  /* whose; set before prepare */
    void *own;                    /* what the dialect keeps beside all this */
    void (*own_free)(void *p);    /* frees it */
    char param[ANSWER_PARAM_MAX]; /* the field at fault where parse failed; "" where none */

    /* what the pipeline said */
    uint32_t run; /* the one that is under way */
    bool admitted;
    uint64_t record, seed; /* of the first run */
    uint64_t completed;    /* the record of the last run's end */
    int64_t created_unix_s;
    char fingerprint[64];
    char label[SENSITIVITY_TEXT], route[PROVIDER_NAME_MAX + 1];                 /* of the first run */
    uint64_t prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens; /* over all runs */
    choice *choices;                                                            /* n_runs * r.n_choices */
    uint32_t n_choices;
} answer;

struct dialect {
    const char *name;        /* "openai.chat": goes into the record */
    const char *stream_type; /* media type of a stream */
    /* Check `a->body` and fill the rest. ERR_INVALID / ERR_UNSUPPORTED with a->param set. */
    err_code (*parse)(answer *a, err *e);
    /* After parse, with r.who and isl known: what needs the island's store. May be NULL. */
    err_code (*prepare)(answer *a, err *e);
    /* The last run is over and its record durable, nothing of its end has been written. An error of it is the answer's.
     * May be NULL. */
    err_code (*done)(answer *a, err *e);
    /* Streamed: the bytes of one event. EV_DONE of the last run ends the stream. */
    void (*chunk)(answer *a, const event *ev, buf *out);
    /* Collected: the tokens of one EV_TEXT or EV_RAW into the choice's parts (may do nothing). */
    void (*tokens)(answer *a, choice *c, const event *ev);
    /* Collected: reasoning, calls and finish reasons into the choice's parts. NULL where no request is parsed. */
    void (*collect)(answer *a, choice *c, const event *ev);
    void (*whole)(answer *a, buf *out);
    /* The error object; `status` has been decided. In a stream (in_stream) framed as one of its events. */
    void (*fail)(const err *e, int status, const char *param, bool in_stream, buf *out);
    /* In a stream, where fail does not do because its end tells of the answer. May be NULL. */
    void (*broken)(answer *a, const err *e, int status, buf *out);
    /* NULL, or the member of the error object that names the request, e.g. "request_id"; the header of that name
     * without the underscore goes out too. reply.c adds them. */
    const char *error_id;
};

extern const dialect dialect_openai_chat, dialect_openai_completions, dialect_openai_embeddings, dialect_rerank;
extern const dialect dialect_ollama_chat, dialect_ollama_generate, dialect_ollama_embed, dialect_ollama_embeddings;
extern const dialect dialect_ollama_models; /* of no request: how errors look on the routes beside them */
extern const dialect dialect_openai_responses, dialect_anthropic, dialect_anthropic_count;

/* Takes `body`, also on error. */
err_code answer_new(answer **out, const dialect *d, cJSON *body, err *e);
void answer_free(answer *a);          /* NULL is fine */
size_t answer_bytes(const answer *a); /* of what has been collected */
/* The answer's choice that an event is about. */
uint32_t answer_choice_index(const answer *a, const event *ev);
choice *answer_choice(answer *a, const event *ev);

/* Runs every prompt in turn. `write` gets the bytes of a stream (NULL: collect); an error of it cancels. `admitted`
 * (may be NULL) is called once, when the first run is admitted, before any byte. */
typedef struct answer_sink {
    void *ctx;
    void (*admitted)(void *ctx, const answer *a);
    err_code (*write)(void *ctx, const char *p, size_t n);
    bool (*gone)(void *ctx);
} answer_sink;
err_code answer_run(answer *a, inference *inf, const answer_sink *sink, err *e);

#endif
