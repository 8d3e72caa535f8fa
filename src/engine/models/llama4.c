/* llama4 (Scout, Maverick): llama with
 *   - three layers that rotate and attend within chunks of `attention.chunk_size` positions (8192 where a file does not
 *     say), then one without rotation that attends to everything and scales queries with their position (arXiv
 *     2501.19399; factor 1 + 0.1 ln(1 + floor((p + 1) / 8192)));
 *   - in Scout, an RMS norm without a weight on rotated query and key heads;
 *   - experts in every `interleave_moe_layer_step`-th layer: the router's sigmoid goes on the expert's input, and a
 *     shared expert answers beside them. */
#include "engine/models/models.h"

#define CHUNK         8192
#define FULL_EVERY    4
#define TEMPERATURE   0.1f
#define WARMER_EVERY  8192
#define MAVERICK_EXPS 128

static err_code set_attention(model *m, const gguf *g, bool norms, err *e) {
    float *weight = NULL;
    uint32_t size = 0;
    err_code rc = params_u32_or(m, g, "attention.chunk_size", 1, MODEL_CTX_MAX, CHUNK, &size, e);
    if (rc == ERR_OK && norms) rc = model_take_ones(m, &weight, m->hp.head_k, e);
    for (uint32_t i = 0; rc == ERR_OK && i < m->hp.n_layer; i++) {
        attn *a = &m->layers[i].a;
        bool full = (i + 1) % FULL_EVERY == 0;
        a->rope = full ? -1 : 0;
        a->chunk = full ? 0 : size;
        a->temp = full ? TEMPERATURE : 0;
        a->temp_every = WARMER_EVERY;
        a->temp_offset = 1;
        a->q_norm = a->k_norm = full ? NULL : weight;
        a->norm_after_rope = true;
    }
    return rc;
}

static err_code set_experts(model *m, const gguf *g, const moe *o, err *e) {
    uint32_t every = 0;
    err_code rc = params_u32_or(m, g, "interleave_moe_layer_step", 1, MODEL_LAYER_MAX, 1, &every, e);
    if (rc != ERR_OK) return rc;
    return moe_give(m, o, o->width, every - 1, every, e); /* the shared expert is as wide as the others */
}

static err_code llama4_load(model *m, const gguf *g, err *e) {
    const decoder_parts p = {.qkv_bias = HAS_MAYBE, .out_bias = HAS_MAYBE, .output = HAS_MAYBE};
    moe o = {.act = ACT_SWIGLU, .gate = GATING_SIGMOID, .weigh_input = true};
    err_code rc;
    if ((rc = params_common(m, g, e)) != ERR_OK || (rc = params_moe(m, g, &o, e)) != ERR_OK) return rc;
    o.gate = GATING_SIGMOID; /* files do not say it */
    const rope_wish r = {m->hp.n_rot, false, true, "freq_base", 10000, false};
    if ((rc = set_attention(m, g, o.n_expert != MAVERICK_EXPS, e)) != ERR_OK ||
        (rc = set_experts(m, g, &o, e)) != ERR_OK || (rc = rope_load(m, g, 0, &r, e)) != ERR_OK)
        return rc;
    return decoder_load(m, g, &p, e);
}

const arch arch_llama4 = {"llama4", llama4_load, decoder_run};
