/* Internal to server: the dialect of OpenAI's Responses. responses_read.c parses, responses_write.c answers,
 * responses_store.c keeps what a later request may refer to, responses.c has the table.
 *
 * Stored state. A row of the table "response" names an answer's two records and its owner, and nothing of its content:
 * what was asked and said lies sealed in the ledger (the contents "request" of admitted, with a member "kept" of this
 * dialect, and "turn" of completed) and is read from there. Deleting an answer forgets the row.
 *
 * Names. An answer is resp_BASE, its parts rs_BASE_K, msg_BASE_K, fc_BASE_K, its calls call_BASE_K; BASE is the seq of
 * the admitted record and eight hexadecimal digits, which tell answers of other islands apart. */
#ifndef POLDER_SERVER_RESPONSES_H
#define POLDER_SERVER_RESPONSES_H

#include "base/json.h"
#include "server/answer_parts.h"
#include "server/openai.h"

#define RESPONSES_BASE_MAX 32

typedef struct responses_answer { /* answer.own */
    parts parts;
    cJSON *allowed;  /* owned; tool_choice's list in the form of the chat dialect */
    cJSON *kept;     /* owned; what r.kept points to: {instructions, inherited, response} */
    cJSON *response; /* in kept: the members of the response object that follow from the request */
    const char *previous;
    bool store, instructions, references;
    bool summary; /* what the model thinks is given as a summary, as asked */
    uint64_t sequence;
    size_t held; /* bytes of a call since the last sign of life */
    char reason[16];
    char base[RESPONSES_BASE_MAX]; /* "" until it is admitted */
} responses_answer;

err_code responses_parse(answer *a, err *e);
err_code responses_prepare(answer *a, err *e);
err_code responses_done(answer *a, err *e);

/* Pieces of one turn of an assistant become one message: thoughts, words, then calls. */
err_code responses_join(answer *a, err *e);

void responses_chunk(answer *a, const event *ev, buf *out);
void responses_collect(answer *a, choice *c, const event *ev);
void responses_whole(answer *a, buf *out);
void responses_broken(answer *a, const err *e, int status, buf *out);

/* What a response object says, whether it is being made or was stored. */
typedef struct responses_view {
    const char *base, *model;
    int64_t created;
    const char *status;    /* "in_progress", "completed", "incomplete", "failed" */
    const cJSON *response; /* members that follow from the request */
    const parts *parts;
    bool summary, filtered;
    bool usage; /* it is known */
    uint64_t prompt_tokens, completion_tokens, reasoning_tokens;
    const err *error;
    int error_status;
} responses_view;
void responses_write(jw *w, const responses_view *v);
/* "completed", or "incomplete" where the pipeline's reason says so. */
const char *responses_status(const char *reason);

/* ---- responses_store.c ---- */

/* The tables of this room. */
err_code responses_open_tables(store *s, err *e);

typedef struct responses_stored { /* zero-initialised; responses_stored_free */
    char base[RESPONSES_BASE_MAX];
    uint64_t admitted, completed;
    int64_t created;
    uint64_t prompt_tokens, completion_tokens, reasoning_tokens;
    cJSON *request; /* {messages, tools, kept, …} */
    cJSON *turn;    /* {message, finish} */
    char *model;
    sensitivity label;
} responses_stored;
/* ERR_NOT_FOUND: there is none, it is another owner's, or its contents were erased. */
err_code responses_load(responses_stored *out, island *i, const identity *who, const char *id, err *e);
void responses_stored_free(responses_stored *s);
err_code responses_insert(answer *a, err *e);
/* The messages before this answer without its instructions, and its turn with the ids that the client saw; appended to
 * `to`. */
err_code responses_history(const responses_stored *s, cJSON *to, err *e);

#endif
