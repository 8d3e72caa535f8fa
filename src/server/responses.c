/* The dialect of POST /v1/responses. */
#include "server/responses.h"
#include "server/internal.h"

/* log-probabilities are refused */
static void no_tokens(answer *a, choice *c, const event *ev) {}

const dialect dialect_openai_responses = {
    .name = "openai.responses",
    .stream_type = "text/event-stream; charset=utf-8",
    .parse = responses_parse,
    .prepare = responses_prepare,
    .done = responses_done,
    .chunk = responses_chunk,
    .tokens = no_tokens,
    .collect = responses_collect,
    .whole = responses_whole,
    .fail = openai_fail,
    .broken = responses_broken,
};
