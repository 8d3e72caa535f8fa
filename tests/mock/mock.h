/* A provider for tests: speaks the forms of OpenAI (chat/completions, completions, embeddings) and Anthropic
 * (messages), as a stream and at once, over plain HTTP/1.1 on the loopback; one thread a connection. Paths may have
 * anything in front ("/v1/chat/completions", "/openai/deployments/x/chat/completions?api-version=…").
 *
 * The name of the model says how it behaves (what follows a ':' is ignored, so "fail-500:b" is another name of the
 * same; Azure's form has the model in the path):
 *   echo          answers with the last user's text; echo-tcp1: each byte of the answer is a segment of its own
 *   system        answers with all system texts
 *   tool          calls the first tool with {"text": the last user's text}
 *   placeholders  answers with every [WORD_12] that stands anywhere in the body, in their order; placeholders-json:
 * with
 *                 {"text": the same}; placeholders-tool: calls the first tool with that
 *   …-1           of echo, system, tool, reasoning and placeholders: a stream with one character in each event
 *   reasoning     thinks "I think: TEXT" first and then answers "done: TEXT"
 *   stop          answers "until here" and names the first of the stop strings
 *   length        answers "cut" and says that the limit was reached
 *   fail-NNN      answers with that status and an error that repeats the credential; 429 and 503 with Retry-After: 7
 *   redirect      307 to another port
 *   slow-MS       waits so long before its first byte; slow-first-byte: 3 s
 *   gap-MS        begins a stream, waits so long, goes on
 *   hang, hang-mid  never answers; falls silent in the middle
 *   cut-stream    ends the connection in the middle of the answer; cut-clean: ends a stream without its end mark
 *   close-early   ends the connection without a byte; close-after: after the answer, without having said so
 *   linger        a stream whose HTTP end never comes after the end mark
 *   garbage, empty, no-choices   200 with something that is no answer
 *   stream-error, stream-error-late   an error inside of a stream, before or behind the first text
 *   one-choice    one choice, however many were asked for
 *   whole         answers at once although a stream was asked for
 *   big           an answer beyond every limit; big-header: the same of its header
 *   anything else answers "Hello from the mock."
 * A script changes what a name means: lines "NAME BEHAVIOUR [COUNT]"; with a COUNT for so many requests only. It comes
 * from a file (--script), by POST /mock/script (text), or mock_script.
 * GET /mock/stats: {"requests", "body_bytes", "connections", "answers"}; requests and body_bytes count what was asked
 * of models only. POST /mock/reset sets them to 0.
 *
 * The capture file gets every request: "@request NS CONNECTION N_HEADER N_BODY\n", header, body, "\n"; NS is the
 * monotonic clock when its first byte was there. It is written before the answer begins.
 */
#ifndef POLDER_TESTS_MOCK_H
#define POLDER_TESTS_MOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mock mock;
/* port 0: any. NULL where it cannot listen. capture, script: paths, or NULL. */
mock *mock_start(int port, const char *capture, const char *script);
void mock_stop(mock *m); /* ends all connections; NULL is fine */
int mock_port(const mock *m);
bool mock_script(mock *m, const char *lines); /* false: cannot be read */

typedef struct mock_stats {
    uint64_t requests, body_bytes, connections, answers;
} mock_stats;
void mock_get_stats(mock *m, mock_stats *s);
/* The last request to a model, as text for the caller to free(). */
char *mock_last_header(mock *m);
char *mock_last_body(mock *m, size_t *n);

#endif
