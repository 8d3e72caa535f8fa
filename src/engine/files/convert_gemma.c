/* Gemma 2, 3 and 4 (text). The output matrix is the embeddings. */
#include "engine/files/convert.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Norms of Gemma 2 and 3 are stored around 0. */
static const convert_row gemma_rows[] = {
    {"embed_tokens.weight", "token_embd.weight", OP_COPY, 0},
    {"norm.weight", "output_norm.weight", OP_ADD_ONE, 0},
    {"layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", OP_ADD_ONE, 0},
    {"layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", OP_COPY, 0},
    {"layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", OP_COPY, 0},
    {"layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", OP_COPY, 0},
    {"layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", OP_COPY, 0},
    {"layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight", OP_ADD_ONE, ROW_OPTIONAL},
    {"layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight", OP_ADD_ONE, ROW_OPTIONAL},
    {"layers.{}.post_attention_layernorm.weight", "blk.{}.post_attention_norm.weight", OP_ADD_ONE, 0},
    {"layers.{}.pre_feedforward_layernorm.weight", "blk.{}.ffn_norm.weight", OP_ADD_ONE, 0},
    {"layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", OP_COPY, 0},
    {"layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", OP_COPY, 0},
    {"layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", OP_COPY, 0},
    {"layers.{}.post_feedforward_layernorm.weight", "blk.{}.post_ffw_norm.weight", OP_ADD_ONE, 0},
};

static err_code head_dims(convert *c, uint32_t def, err *e) {
    uint32_t dim;
    err_code rc = cfg_u32_or(c, "head_dim", 1, 65536, def, &dim, e);
    if (rc) return rc;
    key_u32(c, "attention.key_length", dim);
    key_u32(c, "attention.value_length", dim);
    return ERR_OK;
}

static err_code soft_cap(convert *c, const char *key, const char *name, double def, err *e) {
    double v;
    err_code rc = cfg_num_or(c, name, def, &v, e);
    if (!rc && v > 0) key_f32(c, key, v);
    return rc;
}

/* The factor on q k is 1 / sqrt(head size), but for the sizes whose checkpoints say otherwise. */
static err_code scale_note(convert *c, err *e) {
    double scalar, dim;
    err_code rc = cfg_num_or(c, "query_pre_attn_scalar", 0, &scalar, e);
    if (!rc) rc = cfg_num_or(c, "head_dim", 256, &dim, e);
    if (rc || scalar <= 0 || scalar == dim || c->n_layer == 46 || c->n_layer == 62) return rc;
    return convert_note(
        c, e, "query_pre_attn_scalar %g is not the head size %g; GGUF knows that for the 27B models only", scalar, dim);
}

static err_code gemma2_keys(convert *c, err *e) {
    err_code rc;
    if ((rc = head_dims(c, 256, e)) || (rc = soft_cap(c, "attn_logit_softcapping", "attn_logit_softcapping", 50, e)) ||
        (rc = soft_cap(c, "final_logit_softcapping", "final_logit_softcapping", 30, e)) ||
        (rc = key_u32_from(c, "attention.sliding_window", "sliding_window", NULL, e)))
        return rc;
    return scale_note(c, e);
}

static err_code gemma3_keys(convert *c, err *e) {
    err_code rc;
    double theta;
    if (cfg_has(c, "attn_logit_softcapping"))
        return err_set(e, ERR_UNSUPPORTED, "%s/config.json: attn_logit_softcapping; Gemma 3 has none in GGUF", c->dir);
    if ((rc = head_dims(c, 256, e)) || (rc = soft_cap(c, "final_logit_softcapping", "final_logit_softcapping", 0, e)) ||
        (rc = cfg_num_or(c, "rope_theta", 1e6, &theta, e)) ||
        (rc = key_u32_from(c, "attention.sliding_window", "sliding_window", NULL, e)))
        return rc;
    key_f32(c, "rope.freq_base", cfg_rope_num(c, "rope_theta", theta));
    if (!cfg_has(c, "max_position_embeddings")) key_u32(c, "context_length", 131072);
    if (!cfg_has(c, "rms_norm_eps")) key_f32(c, "attention.layer_norm_rms_epsilon", 1e-6);
    return scale_note(c, e);
}

const convert_family convert_gemma2 = {
    .hf = {"Gemma2ForCausalLM"},
    .arch = "gemma2",
    .always_tied = true,
    .probe = "embed_tokens.weight",
    .rows = gemma_rows,
    .n_rows = COUNT(gemma_rows),
    .keys = gemma2_keys,
};
const convert_family convert_gemma3 = {
    .hf = {"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"},
    .arch = "gemma3",
    .always_tied = true,
    .probe = "embed_tokens.weight",
    .rows = gemma_rows,
    .n_rows = COUNT(gemma_rows),
    .keys = gemma3_keys,
};

/* ---- Gemma 4 ---------------------------------------------------------------------------------------------- */

static const convert_row gemma4_rows[] = {
    {"embed_tokens.weight", "token_embd.weight", OP_COPY, 0},
    {"norm.weight", "output_norm.weight", OP_COPY, 0},
    {"embed_tokens_per_layer.weight", "per_layer_token_embd.weight", OP_COPY, ROW_OPTIONAL},
    {"per_layer_model_projection.weight", "per_layer_model_proj.weight", OP_COPY, ROW_OPTIONAL},
    {"per_layer_projection_norm.weight", "per_layer_proj_norm.weight", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", OP_COPY, 0},
    {"layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", OP_COPY, 0},
    {"layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight", OP_COPY, 0},
    {"layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", OP_COPY, ROW_OWN_KV},
    {"layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight", OP_COPY, ROW_OWN_KV},
    {"layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", OP_COPY, ROW_OWN_KV | ROW_OPTIONAL},
    {"layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", OP_COPY, 0},
    {"layers.{}.post_attention_layernorm.weight", "blk.{}.post_attention_norm.weight", OP_COPY, 0},
    {"layers.{}.pre_feedforward_layernorm.weight", "blk.{}.ffn_norm.weight", OP_COPY, 0},
    {"layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", OP_COPY, 0},
    {"layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", OP_COPY, 0},
    {"layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", OP_COPY, 0},
    {"layers.{}.post_feedforward_layernorm.weight", "blk.{}.post_ffw_norm.weight", OP_COPY, 0},
    {"layers.{}.post_feedforward_layernorm_1.weight", "blk.{}.post_ffw_norm_1.weight", OP_COPY, ROW_MOE},
    {"layers.{}.pre_feedforward_layernorm_2.weight", "blk.{}.pre_ffw_norm_2.weight", OP_COPY, ROW_MOE},
    {"layers.{}.post_feedforward_layernorm_2.weight", "blk.{}.post_ffw_norm_2.weight", OP_COPY, ROW_MOE},
    {"layers.{}.router.proj.weight", "blk.{}.ffn_gate_inp.weight", OP_COPY, ROW_MOE | ROW_F32},
    {"layers.{}.router.scale", "blk.{}.ffn_gate_inp.scale", OP_COPY, ROW_MOE},
    {"layers.{}.router.per_expert_scale", "blk.{}.ffn_down_exps.scale", OP_COPY, ROW_MOE},
    {"layers.{}.experts.gate_up_proj", "blk.{}.ffn_gate_up_exps.weight", OP_COPY, ROW_MOE},
    {"layers.{}.experts.down_proj", "blk.{}.ffn_down_exps.weight", OP_COPY, ROW_MOE},
    {"layers.{}.per_layer_input_gate.weight", "blk.{}.inp_gate.weight", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.per_layer_projection.weight", "blk.{}.proj.weight", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.post_per_layer_input_norm.weight", "blk.{}.post_norm.weight", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.layer_scalar", "blk.{}.layer_output_scale.weight", OP_COPY, ROW_OPTIONAL},
};

static uint32_t shared_layers(const convert *c) {
    uint32_t n = 0;
    return cfg_u32_or(c, "num_kv_shared_layers", 0, c->n_layer, 0, &n, NULL) ? 0 : n;
}

/* The last layers take keys and values from earlier ones; what the checkpoint has of theirs is not used. */
static unsigned gemma4_kind(const convert *c, uint32_t layer) {
    unsigned kind = ROW_DENSE | ROW_FULL | (layer < c->n_layer - shared_layers(c) ? ROW_OWN_KV : 0u);
    return kind | (cfg_bool_or(c, "enable_moe_block", c->n_expert > 0) ? ROW_MOE : 0u);
}

/* The tensor itself knows best. */
static uint32_t layer_width(const convert *c, uint32_t layer, uint32_t def) {
    char name[160];
    snprintf(name, sizeof name, "%slayers.%u.mlp.gate_proj.weight", c->prefix, layer);
    const st_tensor *t = st_find(c->set, name);
    return t && t->n_dims == 2 ? (uint32_t)t->dims[0] : def;
}

static err_code gemma4_layers(convert *c, bool *swa, uint32_t *ff, uint32_t *kv, err *e) {
    uint32_t width, heads = c->n_head_kv, full_heads;
    err_code rc = cfg_u32(c, "intermediate_size", 1, 1u << 20, &width, e);
    if (!rc) rc = cfg_u32_or(c, "num_global_key_value_heads", 1, 4096, heads, &full_heads, e);
    if (rc) return rc;
    const cJSON *types = json_get(c->text, "layer_types");
    if (cJSON_GetArraySize(types) != (int)c->n_layer)
        return err_set(e, ERR_INVALID, "%s/config.json: layer_types does not have %u entries", c->dir, c->n_layer);
    bool wide = cfg_bool_or(c, "use_double_wide_mlp", false);
    for (uint32_t i = 0; i < c->n_layer; i++) {
        const cJSON *t = cJSON_GetArrayItem(types, (int)i);
        swa[i] = cJSON_IsString(t) && strcmp(t->valuestring, "sliding_attention") == 0;
        ff[i] = layer_width(c, i, wide && i >= c->n_layer - shared_layers(c) ? 2 * width : width);
        kv[i] = swa[i] ? heads : full_heads;
    }
    key_bools(c, "attention.sliding_window_pattern", swa, c->n_layer);
    if (wide) key_u32s(c, "feed_forward_length", ff, c->n_layer);
    if (full_heads != heads) key_u32s(c, "attention.head_count_kv", kv, c->n_layer);
    return ERR_OK;
}

static err_code gemma4_sizes(convert *c, err *e) {
    uint32_t full, window, per_layer;
    err_code rc;
    if ((rc = cfg_u32_or(c, "head_dim", 2, 65536, 256, &window, e)) ||
        (rc = cfg_u32_or(c, "global_head_dim", 2, 65536, window, &full, e)) ||
        (rc = cfg_u32_or(c, "hidden_size_per_layer_input", 0, 65536, 0, &per_layer, e)) ||
        (rc = soft_cap(c, "final_logit_softcapping", "final_logit_softcapping", 0, e)) ||
        (rc = key_u32_from(c, "attention.sliding_window", "sliding_window", NULL, e)) ||
        (rc = key_u32_from(c, "expert_feed_forward_length", "expert_intermediate_size|moe_intermediate_size", NULL, e)))
        return rc;
    key_u32(c, "attention.key_length", full);
    key_u32(c, "attention.value_length", full);
    key_u32(c, "attention.key_length_swa", window);
    key_u32(c, "attention.value_length_swa", window);
    key_u32(c, "rope.dimension_count", full);
    key_u32(c, "rope.dimension_count_swa", window);
    key_u32(c, "attention.shared_kv_layers", shared_layers(c));
    key_u32(c, "embedding_length_per_layer_input", per_layer);
    return ERR_OK;
}

static err_code gemma4_keys(convert *c, err *e) {
    err_code rc = gemma4_sizes(c, e);
    if (rc) return rc;
    bool *swa = mem_array(c->n_layer, sizeof *swa);
    uint32_t *ff = mem_array(c->n_layer, sizeof *ff), *kv = mem_array(c->n_layer, sizeof *kv);
    rc = swa && ff && kv ? gemma4_layers(c, swa, ff, kv, e) : err_nomem(e, "the layers of a model");
    mem_free(swa);
    mem_free(ff);
    mem_free(kv);
    return rc;
}

/* Full layers turn only the first part of each half of a head: the others get a factor that stops them. */
static err_code gemma4_freqs(convert *c, err *e) {
    uint32_t window, full;
    err_code rc = cfg_u32_or(c, "head_dim", 2, 65536, 256, &window, e);
    if (!rc) rc = cfg_u32_or(c, "global_head_dim", 2, 65536, window, &full, e);
    if (rc) return rc;
    double part = cfg_rope_num(c, "partial_rotary_factor", 1);
    if (!(part >= 0 && part <= 1))
        return err_set(e, ERR_INVALID, "%s/config.json: partial_rotary_factor is not from 0 to 1", c->dir);
    uint32_t turned = (uint32_t)(full * part / 2), n = full / 2;
    float *f = mem_array(n, sizeof *f);
    if (!f) return err_nomem(e, "rope factors");
    for (uint32_t i = 0; i < n; i++) f[i] = i < turned ? 1.0f : 1e30f;
    rc = convert_add_values(c, "rope_freqs.weight", f, n, e);
    mem_free(f);
    return rc;
}

const convert_family convert_gemma4 = {
    .hf = {"Gemma4ForConditionalGeneration", "Gemma4ForCausalLM"},
    .arch = "gemma4",
    .always_tied = true,
    .probe = "embed_tokens.weight",
    .rows = gemma4_rows,
    .n_rows = COUNT(gemma4_rows),
    .keys = gemma4_keys,
    .extra = gemma4_freqs,
    .kind = gemma4_kind,
};
