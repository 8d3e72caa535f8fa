/* qwen2: llama with biases on query, key and value, and rotation of halves. qwen3: without biases, with an RMS norm on
 * every query and key head. qwen2moe, qwen3moe: the same with experts; qwen2moe has a gated shared expert too and does
 * not bring the chosen weights to 1. */
#include "engine/models/models.h"

static err_code load_with(model *m, const gguf *g, const decoder_parts *p, err *e) {
    const rope_wish r = {m->hp.n_rot, true, true, "freq_base", 10000, false};
    err_code rc = rope_load(m, g, 0, &r, e);
    return rc != ERR_OK ? rc : decoder_load(m, g, p, e);
}

static err_code qwen2_load(model *m, const gguf *g, err *e) {
    const decoder_parts p = {.qkv_bias = HAS, .output = HAS_MAYBE};
    err_code rc = params_common(m, g, e);
    return rc != ERR_OK ? rc : load_with(m, g, &p, e);
}

static err_code qwen3_load(model *m, const gguf *g, err *e) {
    const decoder_parts p = {.qk_norm = HAS, .output = HAS_MAYBE};
    err_code rc = params_common(m, g, e);
    return rc != ERR_OK ? rc : load_with(m, g, &p, e);
}

static err_code qwen2moe_load(model *m, const gguf *g, err *e) {
    const decoder_parts p = {.qkv_bias = HAS, .output = HAS_MAYBE};
    moe o = {.act = ACT_SWIGLU, .gate = GATING_SOFTMAX};
    uint32_t shared = 0;
    err_code rc;
    if ((rc = params_common(m, g, e)) != ERR_OK || (rc = params_moe(m, g, &o, e)) != ERR_OK ||
        (rc = params_u32_or(m, g, "expert_shared_feed_forward_length", 1, MODEL_WIDTH_MAX,
                            m->hp.d_ff ? m->hp.d_ff : o.width, &shared, e)) != ERR_OK ||
        (rc = moe_give(m, &o, shared, 0, 1, e)) != ERR_OK)
        return rc;
    return load_with(m, g, &p, e);
}

static err_code qwen3moe_load(model *m, const gguf *g, err *e) {
    const decoder_parts p = {.qk_norm = HAS, .output = HAS_MAYBE};
    moe o = {.act = ACT_SWIGLU, .gate = GATING_SOFTMAX, .normalise = true};
    err_code rc;
    if ((rc = params_common(m, g, e)) != ERR_OK || (rc = params_moe(m, g, &o, e)) != ERR_OK ||
        (rc = moe_give(m, &o, 0, 0, 1, e)) != ERR_OK)
        return rc;
    return load_with(m, g, &p, e);
}

const arch arch_qwen2 = {"qwen2", qwen2_load, decoder_run};
const arch arch_qwen3 = {"qwen3", qwen3_load, decoder_run};
const arch arch_qwen2moe = {"qwen2moe", qwen2moe_load, decoder_run};
const arch arch_qwen3moe = {"qwen3moe", qwen3moe_load, decoder_run};
