/* Internal to server: what the dialects of Ollama's API share (POST /api/chat, /api/generate, /api/embed, …).
 *
 * A field is honoured, or ignored because it does not change the answer, or refused by its name because polder would
 * answer something else, or because nobody could look at what it carries. docs/guide/dialects.md lists them.
 * Streams are lines of JSON, and streaming is what a request gets that does not say otherwise. */
#ifndef POLDER_SERVER_OLLAMA_H
#define POLDER_SERVER_OLLAMA_H

#include "server/vectors.h"

typedef struct ollama_state { /* answer.own */
    uint64_t started_ns;
    uint64_t first_ns, last_ns; /* of the tokens; 0: none came */
    int64_t num_ctx;            /* asked for; 0: not */
    buf name, args;             /* of the call that is under way */
    bool in_call;
    uint32_t n_calls; /* that were told */
} ollama_state;

err_code ollama_begin(answer *a, err *e); /* makes a->own */
ollama_state *ollama_state_of(const answer *a);
void ollama_fail(const err *e, int status, const char *param, bool in_stream, buf *out);

/* Fields that several requests have. */
err_code ollama_take_options(answer *a, const cJSON *v, err *e);
err_code ollama_refuse_images(answer *a, const cJSON *v, err *e);
err_code ollama_no_truncation(answer *a, const cJSON *v, err *e); /* truncate, shift: all but false */

/* The head and the figures of an answer. */
void ollama_head(jw *w, const answer *a);
void ollama_durations(jw *w, const answer *a);

/* After the fields: num_ctx must not be more than the model has. */
err_code ollama_prepare(answer *a, err *e);

#endif
