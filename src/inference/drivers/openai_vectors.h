/* Internal to inference: vectors in OpenAI's form. Their numbers never become a tree, which would take many times their
 * memory: they are lifted out of the text first, and a number of their place is left where they stood. */
#ifndef POLDER_INFERENCE_DRIVERS_OPENAI_VECTORS_H
#define POLDER_INFERENCE_DRIVERS_OPENAI_VECTORS_H

#include "inference/drivers/answer.h"

typedef struct openai_lifted { /* zero-initialised; vectors of one length, in the order in which they stood */
    float *v;
    size_t n, cap; /* numbers */
    size_t length; /* of each vector */
    size_t count;
} openai_lifted;

/* answer_begin with the vectors lifted out. */
err_code openai_lift(openai_lifted *v, answer *a, const char *json, size_t n, err *e);
err_code openai_read_vectors(answer *a, const openai_lifted *v, err *e);
void openai_lifted_free(openai_lifted *v);

#endif
