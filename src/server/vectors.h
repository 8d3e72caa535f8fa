/* Internal to server: what the dialects for vectors and for scores share. */
#ifndef POLDER_SERVER_VECTORS_H
#define POLDER_SERVER_VECTORS_H

#include "server/openai.h"

/* openai_take_common, under the name of this family. */
err_code vectors_common(answer *a, const cJSON *v, err *e);
/* Every field of a->body through `own`; any other is refused by its name. a->param names the one at fault. */
err_code vectors_take_fields(answer *a, const openai_field *own, err *e);
/* Fields that ask for texts to be cut: only what asks for nothing is taken. */
err_code vectors_no_truncation(answer *a, const cJSON *v, err *e);
/* Room for n inputs: a->inputs, which a->embed then points to. */
err_code vectors_make_inputs(answer *a, size_t n, err *e);

void vectors_collect(answer *a, choice *c, const event *ev);
void vectors_tokens(answer *a, choice *c, const event *ev);
void vectors_chunk(answer *a, const event *ev, buf *out);
/* Number k of input i's vector (of n_vector numbers). */
float vectors_get(const answer *a, size_t at);
size_t vectors_count(const answer *a); /* numbers that came, of all inputs */
/* A finite number in at most 9 digits, which read back as the same float. */
void vectors_float(buf *out, float v);
void vectors_usage(jw *w, const answer *a);

#endif
