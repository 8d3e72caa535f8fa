/* Llama 2, 3.x, Mistral, Mixtral, Ministral and Mistral 3 (text), Llama 4 (text). */
#include "engine/files/convert.h"

#include <string.h>

#define HEAD                                                                                \
    {"/lm_head.weight", "output.weight", OP_COPY, ROW_HEAD}, {                              \
        "/language_model.lm_head.weight", "output.weight", OP_COPY, ROW_HEAD | ROW_OPTIONAL \
    }

/* Rope in the GGUF architectures llama and mistral3 turns neighbouring pairs; the checkpoints turn halves. */
static const convert_row llama_rows[] = {
    {"embed_tokens.weight", "token_embd.weight", OP_COPY, 0},
    {"norm.weight", "output_norm.weight", OP_COPY, 0},
    HEAD,
    {"layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", OP_COPY, 0},
    {"layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", OP_PERMUTE_Q, 0},
    {"layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias", OP_PERMUTE_Q, ROW_OPTIONAL},
    {"layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", OP_PERMUTE_K, 0},
    {"layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", OP_PERMUTE_K, ROW_OPTIONAL},
    {"layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", OP_COPY, 0},
    {"layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", OP_COPY, 0},
    {"layers.{}.self_attn.o_proj.bias", "blk.{}.attn_output.bias", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", OP_COPY, 0},
    {"layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", OP_COPY, ROW_DENSE},
    {"layers.{}.mlp.gate_proj.bias", "blk.{}.ffn_gate.bias", OP_COPY, ROW_DENSE | ROW_OPTIONAL},
    {"layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", OP_COPY, ROW_DENSE},
    {"layers.{}.mlp.up_proj.bias", "blk.{}.ffn_up.bias", OP_COPY, ROW_DENSE | ROW_OPTIONAL},
    {"layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", OP_COPY, ROW_DENSE},
    {"layers.{}.mlp.down_proj.bias", "blk.{}.ffn_down.bias", OP_COPY, ROW_DENSE | ROW_OPTIONAL},
    {"layers.{}.block_sparse_moe.gate.weight", "blk.{}.ffn_gate_inp.weight", OP_COPY, ROW_MOE | ROW_F32},
    {"layers.{}.mlp.gate.weight", "blk.{}.ffn_gate_inp.weight", OP_COPY, ROW_MOE | ROW_F32},
    {"layers.{}.block_sparse_moe.experts.{e}.w1.weight", "blk.{}.ffn_gate_exps.weight", OP_EXPERTS, ROW_MOE},
    {"layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight", OP_ROWS_FIRST, ROW_MOE},
    {"layers.{}.block_sparse_moe.experts.{e}.w3.weight", "blk.{}.ffn_up_exps.weight", OP_EXPERTS, ROW_MOE},
    {"layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight", OP_ROWS_SECOND, ROW_MOE},
    {"layers.{}.block_sparse_moe.experts.{e}.w2.weight", "blk.{}.ffn_down_exps.weight", OP_EXPERTS, ROW_MOE},
    {"layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight", OP_COPY, ROW_MOE},
};

static unsigned llama_kind(const convert *c, uint32_t layer) {
    (void)layer;
    return (c->n_expert ? ROW_MOE : ROW_DENSE) | ROW_FULL | ROW_OWN_KV;
}

static err_code llama_keys(convert *c, err *e) {
    uint32_t dim;
    err_code rc = cfg_u32_or(c, "head_dim", 2, 1u << 16, c->d_model / c->n_head, &dim, e);
    if (!rc) key_u32(c, "rope.dimension_count", dim);
    if (!rc && cfg_has(c, "sliding_window"))
        rc = convert_note(c, e, "sliding_window: the GGUF architecture llama has none; every position is attended to");
    return rc;
}

const convert_family convert_llama = {
    .hf = {"LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"},
    .arch = "llama",
    .probe = "embed_tokens.weight",
    .rows = llama_rows,
    .n_rows = sizeof llama_rows / sizeof *llama_rows,
    .keys = llama_keys,
    .extra = convert_llama3_freqs,
    .kind = llama_kind,
};

static err_code mistral3_keys(convert *c, err *e) {
    uint32_t dim;
    err_code rc = cfg_u32_or(c, "head_dim", 2, 1u << 16, c->d_model / c->n_head, &dim, e);
    if (rc) return rc;
    key_u32(c, "rope.dimension_count", dim);
    if (json_get(c->rope, "mscale_all_dim"))
        key_f32(c, "rope.scaling.yarn_log_multiplier", cfg_rope_num(c, "mscale_all_dim", 1));
    if (json_get(c->rope, "llama_4_scaling_beta"))
        key_f32(c, "attention.temperature_scale", cfg_rope_num(c, "llama_4_scaling_beta", 0));
    return ERR_OK;
}

const convert_family convert_mistral3 = {
    .hf = {"Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"},
    .arch = "mistral3",
    .probe = "embed_tokens.weight",
    .rows = llama_rows,
    .n_rows = sizeof llama_rows / sizeof *llama_rows,
    .keys = mistral3_keys,
    .extra = convert_llama3_freqs,
    .kind = llama_kind,
};

/* ---- Llama 4 ---------------------------------------------------------------------------------------------- */

/* Rope already turns neighbouring pairs. */
static const convert_row llama4_rows[] = {
    {"embed_tokens.weight", "token_embd.weight", OP_COPY, 0},
    {"norm.weight", "output_norm.weight", OP_COPY, 0},
    HEAD,
    {"layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", OP_COPY, 0},
    {"layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", OP_COPY, 0},
    {"layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", OP_COPY, 0},
    {"layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", OP_COPY, 0},
    {"layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", OP_COPY, 0},
    {"layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", OP_COPY, 0},
    {"layers.{}.feed_forward.gate_proj.weight", "blk.{}.ffn_gate.weight", OP_COPY, ROW_DENSE},
    {"layers.{}.feed_forward.up_proj.weight", "blk.{}.ffn_up.weight", OP_COPY, ROW_DENSE},
    {"layers.{}.feed_forward.down_proj.weight", "blk.{}.ffn_down.weight", OP_COPY, ROW_DENSE},
    {"layers.{}.feed_forward.router.weight", "blk.{}.ffn_gate_inp.weight", OP_COPY, ROW_MOE | ROW_F32},
    {"layers.{}.feed_forward.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight", OP_T_FIRST, ROW_MOE},
    {"layers.{}.feed_forward.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight", OP_T_SECOND, ROW_MOE},
    {"layers.{}.feed_forward.experts.down_proj", "blk.{}.ffn_down_exps.weight", OP_T, ROW_MOE},
    {"layers.{}.feed_forward.shared_expert.gate_proj.weight", "blk.{}.ffn_gate_shexp.weight", OP_COPY, ROW_MOE},
    {"layers.{}.feed_forward.shared_expert.up_proj.weight", "blk.{}.ffn_up_shexp.weight", OP_COPY, ROW_MOE},
    {"layers.{}.feed_forward.shared_expert.down_proj.weight", "blk.{}.ffn_down_shexp.weight", OP_COPY, ROW_MOE},
};

static unsigned llama4_kind(const convert *c, uint32_t layer) {
    uint32_t step = 1;
    if (cfg_u32_or(c, "interleave_moe_layer_step", 1, 1024, 1, &step, NULL)) step = 1;
    bool moe = c->n_expert && (layer + 1) % step == 0;
    return (moe ? ROW_MOE : ROW_DENSE) | ROW_FULL | ROW_OWN_KV;
}

/* Their "intermediate_size" is an expert's width. */
static err_code llama4_keys(convert *c, err *e) {
    err_code rc;
    uint32_t dim = 0;
    if ((rc = cfg_u32_or(c, "head_dim", 2, 1u << 16, c->d_model / c->n_head, &dim, e)) ||
        (rc = key_u32_from(c, "interleave_moe_layer_step", "interleave_moe_layer_step", NULL, e)) ||
        (rc = key_u32_from(c, "expert_feed_forward_length", "intermediate_size", NULL, e)) ||
        (rc = key_u32_from(c, "feed_forward_length", "intermediate_size_mlp", NULL, e)) ||
        (rc = key_u32_from(c, "attention.chunk_size", "attention_chunk_size", NULL, e)))
        return rc;
    key_u32(c, "rope.dimension_count", dim);
    return ERR_OK;
}

const convert_family convert_llama4 = {
    .hf = {"Llama4ForConditionalGeneration", "Llama4ForCausalLM"},
    .arch = "llama4",
    .probe = "embed_tokens.weight",
    .rows = llama4_rows,
    .n_rows = sizeof llama4_rows / sizeof *llama4_rows,
    .keys = llama4_keys,
    .extra = convert_llama3_freqs,
    .kind = llama4_kind,
};
