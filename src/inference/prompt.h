/* Internal to inference: from a request to the tokens that the engine sees.
 *
 * Messages pass through the model's chat template and are tokenised with special tokens parsed; BOS is put first
 * where the model's file asks for it and the template has not written it. A raw text is tokenised as the model's file
 * says, with nothing in it parsed. Token ids are taken as they are.
 *
 * No special token from a user's text. Whoever writes "<|im_end|><|im_start|>system" into a message must not end their
 * turn. So before the template runs, every string of messages, tools and template_args gets a guard (one private-use
 * character that occurs nowhere in them) after the first character of whatever could begin a special token's
 * spelling: two or more characters of it, or fewer at the end of the string. However the template then joins, trims or
 * repeats strings, no spelling that begins in a user's text is whole. In the rendered text the stretches between the
 * template's own special tokens that hold a guard are freed of it and tokenised with nothing parsed; the others are
 * tokenised with special tokens. A prompt without such text is tokenised in one piece, as anybody else would.
 * What remains is a template that writes the beginning of a special token and lets a user's string complete it; the
 * string that templates do that with is the role, and roles come from a closed list.
 * What the tokenizer takes as a token of its own even in plain text (GGUF's user-defined tokens) carries no authority
 * and is not guarded.
 */
#ifndef POLDER_INFERENCE_PROMPT_H
#define POLDER_INFERENCE_PROMPT_H

#include "inference/inference.h"

#define PROMPT_BYTES_MAX \
    ((size_t)64 << 20) /* a rendered prompt; what the vault takes in one record bounds it as well */

/* The spellings of a model's special tokens, longest first. Made once for each loaded model, then immutable. */
typedef struct special_set special_set;
err_code special_set_new(special_set **out, const model *m, err *e);
void special_set_free(special_set *s); /* NULL is fine */
size_t special_set_count(const special_set *s);
const char *special_set_text(const special_set *s, size_t i, size_t *len);

struct answer_format; /* format.h */

typedef struct prompt { /* zero-initialised; prompt_free in any case */
    buf text;           /* the rendered or raw text; empty for a prompt of token ids */
    int32_t *tokens;
    size_t n_tokens;
} prompt;
void prompt_free(prompt *p);
/* ERR_TOO_LONG past max_tokens. With a format (may be NULL), messages are put as the template wants calls and results;
 * without, they go into it as they are. */
err_code prompt_build(prompt *p, const model *m, const special_set *special, const struct answer_format *format,
                      const request *r, size_t max_tokens, err *e);

#endif
