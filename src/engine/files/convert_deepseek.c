/* DeepSeek V2, V3, R1 and Kimi K2: latent attention. */
#include "engine/files/convert.h"

#include <string.h>

static const convert_row rows[] = {
    {"embed_tokens.weight", "token_embd.weight", OP_COPY, 0},
    {"norm.weight", "output_norm.weight", OP_COPY, 0},
    {"/lm_head.weight", "output.weight", OP_COPY, ROW_HEAD},
    {"/language_model.lm_head.weight", "output.weight", OP_COPY, ROW_HEAD | ROW_OPTIONAL},
    {"layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", OP_COPY, 0},
    {"layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.self_attn.q_a_proj.weight", "blk.{}.attn_q_a.weight", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.self_attn.q_a_layernorm.weight", "blk.{}.attn_q_a_norm.weight", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.self_attn.q_b_proj.weight", "blk.{}.attn_q_b.weight", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.self_attn.kv_a_proj_with_mqa.weight", "blk.{}.attn_kv_a_mqa.weight", OP_COPY, 0},
    {"layers.{}.self_attn.kv_a_layernorm.weight", "blk.{}.attn_kv_a_norm.weight", OP_COPY, 0},
    {"layers.{}.self_attn.kv_b_proj.weight", "blk.{}.attn_k_b.weight", OP_KV_B_K, 0},
    {"layers.{}.self_attn.kv_b_proj.weight", "blk.{}.attn_v_b.weight", OP_KV_B_V, 0},
    {"layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", OP_COPY, 0},
    {"layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", OP_COPY, 0},
    {"layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", OP_COPY, ROW_DENSE},
    {"layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", OP_COPY, ROW_DENSE},
    {"layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", OP_COPY, ROW_DENSE},
    {"layers.{}.mlp.gate.weight", "blk.{}.ffn_gate_inp.weight", OP_COPY, ROW_MOE | ROW_F32},
    {"layers.{}.mlp.gate.e_score_correction_bias", "blk.{}.exp_probs_b.bias", OP_COPY, ROW_MOE | ROW_OPTIONAL},
    {"layers.{}.mlp.experts.{e}.gate_proj.weight", "blk.{}.ffn_gate_exps.weight", OP_EXPERTS, ROW_MOE},
    {"layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight", OP_ROWS_FIRST, ROW_MOE},
    {"layers.{}.mlp.experts.{e}.up_proj.weight", "blk.{}.ffn_up_exps.weight", OP_EXPERTS, ROW_MOE},
    {"layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight", OP_ROWS_SECOND, ROW_MOE},
    {"layers.{}.mlp.experts.{e}.down_proj.weight", "blk.{}.ffn_down_exps.weight", OP_EXPERTS, ROW_MOE},
    {"layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight", OP_COPY, ROW_MOE},
    {"layers.{}.mlp.shared_experts.gate_proj.weight", "blk.{}.ffn_gate_shexp.weight", OP_COPY, ROW_MOE | ROW_OPTIONAL},
    {"layers.{}.mlp.shared_experts.up_proj.weight", "blk.{}.ffn_up_shexp.weight", OP_COPY, ROW_MOE | ROW_OPTIONAL},
    {"layers.{}.mlp.shared_experts.down_proj.weight", "blk.{}.ffn_down_shexp.weight", OP_COPY, ROW_MOE | ROW_OPTIONAL},
};

static unsigned kind(const convert *c, uint32_t layer) {
    uint32_t dense = 0, step = 1;
    if (cfg_u32_or(c, "first_k_dense_replace", 0, CONVERT_LAYERS_MAX, 0, &dense, NULL)) dense = 0;
    if (cfg_u32_or(c, "moe_layer_freq", 1, 1024, 1, &step, NULL)) step = 1;
    bool moe = c->n_expert && layer >= dense && layer % step == 0;
    return (moe ? ROW_MOE : ROW_DENSE) | ROW_FULL | ROW_OWN_KV;
}

/* Attention is stated as it runs with the latent as keys and values: one key/value head. */
static err_code attention_keys(convert *c, err *e) {
    uint32_t rank, rope, nope, v;
    err_code rc;
    if ((rc = cfg_u32(c, "kv_lora_rank", 1, 65536, &rank, e)) ||
        (rc = cfg_u32(c, "qk_rope_head_dim", 2, 65536, &rope, e)) ||
        (rc = cfg_u32(c, "qk_nope_head_dim", 1, 65536, &nope, e)) || (rc = cfg_u32(c, "v_head_dim", 1, 65536, &v, e)) ||
        (rc = key_u32_from(c, "attention.q_lora_rank", "q_lora_rank", NULL, e)))
        return rc;
    key_u32(c, "attention.head_count_kv", 1);
    key_u32(c, "attention.kv_lora_rank", rank);
    key_u32(c, "attention.key_length", rank + rope);
    key_u32(c, "attention.value_length", rank);
    key_u32(c, "attention.key_length_mla", nope + rope);
    key_u32(c, "attention.value_length_mla", v);
    key_u32(c, "rope.dimension_count", rope);
    return ERR_OK;
}

static err_code keys(convert *c, err *e) {
    err_code rc = attention_keys(c, e);
    uint32_t dense, step;
    double scale;
    if (rc ||
        (rc = cfg_u32_or(c, "first_k_dense_replace", 0, CONVERT_LAYERS_MAX, c->n_expert ? 0 : c->n_layer, &dense, e)) ||
        (rc = cfg_u32_or(c, "moe_layer_freq", 1, 1024, 1, &step, e)) ||
        (rc = key_u32_from(c, "expert_feed_forward_length", "moe_intermediate_size|intermediate_size", NULL, e)) ||
        (rc = key_u32_from(c, "expert_shared_count", "n_shared_experts", NULL, e)) ||
        (rc = cfg_num_or(c, "routed_scaling_factor", 1, &scale, e)))
        return rc;
    if (step != 1)
        return err_set(e, ERR_UNSUPPORTED, "%s/config.json: moe_layer_freq is %u; GGUF can say 1 only", c->dir, step);
    key_u32(c, "leading_dense_block_count", dense);
    key_u32(c, "expert_shared_count", 0);
    key_f32(c, "expert_weights_scale", scale);
    key_bool(c, "expert_weights_norm", cfg_bool_or(c, "norm_topk_prob", false));
    if (!cfg_has(c, "rms_norm_eps")) key_f32(c, "attention.layer_norm_rms_epsilon", 1e-6);
    if (json_get(c->rope, "mscale_all_dim"))
        key_f32(c, "rope.scaling.yarn_log_multiplier", 0.1 * cfg_rope_num(c, "mscale_all_dim", 1));
    return ERR_OK;
}

const convert_family convert_deepseek2 = {
    .hf = {"DeepseekV3ForCausalLM", "DeepseekV2ForCausalLM", "KimiK2ForCausalLM", "KimiVLForConditionalGeneration",
           "KimiK25ForConditionalGeneration"},
    .arch = "deepseek2",
    .probe = "embed_tokens.weight",
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
    .keys = keys,
    .kind = kind,
};
