/* Internal to server: the dialect of Anthropic's Messages. anthropic_read.c parses, anthropic_write.c answers,
 * anthropic.c has the table.
 *
 * As with OpenAI's dialects each known field is honoured, ignored because it changes no answer, or refused by its name;
 * docs/guide/dialects.md lists them. */
#ifndef POLDER_SERVER_ANTHROPIC_H
#define POLDER_SERVER_ANTHROPIC_H

#include "base/json.h"
#include "server/answer_parts.h"
#include "server/openai.h"

typedef struct anthropic_answer { /* answer.own */
    parts parts;
    uint64_t prompt_tokens; /* as known when the answer begins; 0: not yet */
    size_t held;            /* bytes of a call since the last sign of life */
    char reason[16];        /* the pipeline's */
    const char *stop;       /* of r.stops, the one that ended it, where the pipeline says */
} anthropic_answer;

err_code anthropic_parse(answer *a, err *e);
err_code anthropic_parse_count(answer *a, err *e); /* for /count_tokens: no limit is asked for */

void anthropic_chunk(answer *a, const event *ev, buf *out);
void anthropic_collect(answer *a, choice *c, const event *ev);
void anthropic_whole(answer *a, buf *out);
void anthropic_fail(const err *e, int status, const char *param, bool in_stream, buf *out);

#endif
