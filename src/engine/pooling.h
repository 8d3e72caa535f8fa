/* Internal to engine: what becomes of a sequence's rows in models for embeddings and ranking.
 *
 * The head of a ranking model, on the pooled row x (d_model), as llama.cpp stores it:
 *   x = tanh(cls x + cls.bias)                where the file has cls.weight (BERT's and RoBERTa's "pooler")
 *   y = cls.output x + cls.output.bias        (n_labels)
 *   score = sigmoid(y[0]), or softmax(y)["yes"] for a decoder whose head are the rows of "yes" and "no"
 * Weights of a head are taken as binary32 whatever their type; an output is a chain of fused multiply-adds over the
 * inputs in order, from +0, then the bias is added.
 */
#ifndef POLDER_ENGINE_POOLING_H
#define POLDER_ENGINE_POOLING_H

#include "engine/models/models.h"

#define RANK_LABELS_MAX 64

typedef struct rank_head {
    uint32_t n_labels, yes;       /* the label whose score is told */
    bool softmax;                 /* over the labels */
    bool last;                    /* the pooled row is the last one, otherwise the first */
    bool twice;                   /* pairs: the end mark stands twice between the two texts (RoBERTa) */
    const float *cls, *cls_bias;  /* (d_model, d_model), (d_model); NULL: no such layer */
    const float *out, *out_bias;  /* (n_labels, d_model), (n_labels) */
    const float *cls_cols, *cols; /* the same with inputs as rows: what the chains read */
    char *form;                   /* the text around {query} and {document}; NULL: the tokenizer's pairs */
} rank_head;

/* Read the pooling, and note the head's tensors to be taken. The architecture has set hp.encoder. */
err_code pooling_take(model *m, weights *w, err *e);
/* After weights_load. */
err_code pooling_finish(model *m, err *e);

#endif
