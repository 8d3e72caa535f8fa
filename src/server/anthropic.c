/* The dialect of POST /v1/messages, and of POST /v1/messages/count_tokens, which parses and does not run. */
#include "server/anthropic.h"

/* log-probabilities cannot be asked for */
static void no_tokens(answer *a, choice *c, const event *ev) {}

const dialect dialect_anthropic = {
    .name = "anthropic.messages",
    .stream_type = "text/event-stream; charset=utf-8",
    .parse = anthropic_parse,
    .chunk = anthropic_chunk,
    .tokens = no_tokens,
    .collect = anthropic_collect,
    .whole = anthropic_whole,
    .fail = anthropic_fail,
    .error_id = "request_id",
};

const dialect dialect_anthropic_count = {
    .name = "anthropic.count_tokens",
    .parse = anthropic_parse_count,
    .fail = anthropic_fail,
    .error_id = "request_id",
};
