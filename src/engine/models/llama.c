/* llama: grouped-query attention with rotary positions on neighbouring pairs and SwiGLU; biases where the file has
 * them; with expert_count also Mixtral's experts. What many other families' files call themselves (Mistral 7B,
 * TinyLlama, SmolLM, …).
 *
 * mistral3: llama whose queries are scaled with their position (`attention.temperature_scale`), as Llama 4 does it. */
#include "engine/models/models.h"

static const decoder_parts parts = {
    .qkv_bias = HAS_MAYBE, .out_bias = HAS_MAYBE, .ffn_bias = HAS_MAYBE, .output = HAS_MAYBE};

static err_code load_experts(model *m, const gguf *g, err *e) {
    uint32_t n = 0;
    err_code rc = params_u32_or(m, g, "expert_count", 0, MODEL_EXPERT_MAX, 0, &n, e);
    moe o = {.act = ACT_SWIGLU, .gate = GATING_SOFTMAX, .normalise = true};
    if (rc != ERR_OK || n == 0 || (rc = params_moe(m, g, &o, e)) != ERR_OK) return rc;
    return moe_give(m, &o, 0, 0, 1, e);
}

/* What both have behind their hyperparameters. */
static err_code load_rest(model *m, const gguf *g, err *e) {
    const rope_wish r = {m->hp.n_rot, false, true, "freq_base", 10000, false};
    err_code rc;
    if ((rc = rope_load(m, g, 0, &r, e)) != ERR_OK || (rc = load_experts(m, g, e)) != ERR_OK) return rc;
    return decoder_load(m, g, &parts, e);
}

static err_code llama_load(model *m, const gguf *g, err *e) {
    err_code rc = params_common(m, g, e);
    return rc != ERR_OK ? rc : load_rest(m, g, e);
}

static err_code mistral3_load(model *m, const gguf *g, err *e) {
    err_code rc;
    float temp = 0;
    uint32_t every = 0;
    if ((rc = params_common(m, g, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "attention.temperature_scale", 0, 100, 0, &temp, e)) != ERR_OK ||
        (rc = params_u32_or(m, g, "rope.scaling.original_context_length", 1, MODEL_CTX_MAX, m->hp.n_ctx_train, &every,
                            e)) != ERR_OK)
        return rc;
    for (uint32_t i = 0; i < m->hp.n_layer; i++) {
        m->layers[i].a.temp = temp;
        m->layers[i].a.temp_every = every;
    }
    return load_rest(m, g, e);
}

const arch arch_llama = {"llama", llama_load, decoder_run};
const arch arch_mistral3 = {"mistral3", mistral3_load, decoder_run};
