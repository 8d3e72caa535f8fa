/* Internal to engine: the gated DeltaNet mixer, which stands where attention would in most layers of Qwen3-Next and
 * Qwen 3.5 (arXiv 2412.06464). A sequence's memory of a layer is not keys and values of every position but, for each
 * value head, one matrix of fixed size, and the last inputs of a short convolution.
 *
 *   u = [q k v] = silu(conv(Wqkv x))           depthwise, causal, over time
 *   q, k: each head divided by its length; q also by sqrt(dk)
 *   beta = sigmoid(Wb x);  decay = exp(a * softplus(Wa x + dt)), a < 0
 *   S, o = the delta rule (kernels/delta.h) over q, k, v, decay, beta
 *   y = Wo (norm(o) * silu(Wz x))              norm: RMS of each head
 *
 * State of a layer at its state_at: the last taps - 1 rows of Wqkv x (taps - 1, channels), oldest first, padded to
 * DELTA_LANES; then each value head's S. Scratch: aux[0] q, k, v; aux[1] o; aux[2] Wb x and Wa x, which become beta and
 * decay; aux[3] what wqkvz gives.
 */
#ifndef POLDER_ENGINE_MODELS_DELTA_H
#define POLDER_ENGINE_MODELS_DELTA_H

#include "engine/models/models.h"

typedef struct delta {
    uint32_t n_k, n_v;        /* key heads, value heads: */
    uint32_t group;           /* so many value heads of each key head */
    uint32_t dk, dv;          /* their sizes */
    uint32_t taps;            /* of the convolution */
    uint32_t channels, inner; /* 2 n_k dk + n_v dv; n_v dv */
    /* Two ways of a file to order value heads. Together: those of one key head follow each other, and one tensor holds
     * beta and alpha, by key head. Otherwise value head h reads key head h % n_k, and there are two tensors. */
    bool together;
    matrix *wqkv, *wz;     /* (channels, d_model), (inner, d_model) */
    matrix *wqkvz;         /* older files: both in one, by key head: its q, k, v, z; then the others are NULL */
    matrix *wba, *wb, *wa; /* (2 n_v, d_model), or (n_v, d_model) twice; the others are NULL */
    const float *conv;     /* (channels, taps) as the file has it, (taps, channels), a copy, after delta_loaded */
    const float *dt, *a;   /* (n_v) */
    const float *norm;     /* (dv) */
    const float *q_scale, *k_scale; /* (dk) all the same: what rms_norm multiplies by so that it divides by length */
} delta;

/* Read PREFIX.ssm.*; ERR_INVALID where numbers contradict each other, ERR_UNSUPPORTED past limits. */
err_code delta_params(model *m, const gguf *g, bool together, delta *out, err *e);
/* A layer of these sizes: take its tensors, reserve state and scratch, set its mixer. */
err_code delta_take(weights *w, uint32_t layer, const delta *sizes, err *e);
/* After weights_load, once for all layers. */
err_code delta_loaded(model *m, err *e);

void delta_mix(const model *m, step *st, uint32_t layer, bool last);

#endif
