/* gpt-oss: experts with biases and a clamped SwiGLU, chosen by the router's outputs and weighted by their softmax; a
 * learned sink in every attention head's softmax; a sliding window on every other layer; YaRN. */
#include "engine/models/models.h"

static err_code gpt_oss_load(model *m, const gguf *g, err *e) {
    const decoder_parts p = {
        .qkv_bias = HAS, .out_bias = HAS, .sinks = HAS, .ffn_norm = "post_attention_norm", .output = HAS_MAYBE};
    moe o = {.act = ACT_SWIGLU_CLAMPED, .gate = GATING_SOFTMAX_CHOSEN};
    uint32_t window = 0;
    err_code rc;
    if ((rc = params_common(m, g, e)) != ERR_OK || (rc = params_moe(m, g, &o, e)) != ERR_OK ||
        (rc = params_u32(m, g, "attention.sliding_window", 1, MODEL_CTX_MAX, &window, e)) != ERR_OK)
        return rc;
    for (uint32_t i = 0; i < m->hp.n_layer; i += 2) m->layers[i].a.window = window;
    const rope_wish r = {m->hp.n_rot, true, true, "freq_base", 150000, false};
    if ((rc = moe_give(m, &o, 0, 0, 1, e)) != ERR_OK || (rc = rope_load(m, g, 0, &r, e)) != ERR_OK) return rc;
    return decoder_load(m, g, &p, e);
}

const arch arch_gpt_oss = {"gpt-oss", gpt_oss_load, decoder_run};
