/* Qwen 2, 2.5, 3, their expert models, Qwen3-Next, Qwen 3.5. */
#include "engine/files/convert.h"

#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const convert_row qwen_rows[] = {
    {"embed_tokens.weight", "token_embd.weight", OP_COPY, 0},
    {"norm.weight", "output_norm.weight", OP_COPY, 0},
    {"/lm_head.weight", "output.weight", OP_COPY, ROW_HEAD},
    {"layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", OP_COPY, 0},
    {"layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", OP_COPY, 0},
    {"layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", OP_COPY, 0},
    {"layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", OP_COPY, 0},
    {"layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", OP_COPY, 0},
    {"layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight", OP_COPY, ROW_OPTIONAL},
    {"layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", OP_COPY, 0},
#define DENSE                                                                           \
    {"layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", OP_COPY, ROW_DENSE},   \
        {"layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", OP_COPY, ROW_DENSE}, { \
        "layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", OP_COPY, ROW_DENSE  \
    }
    DENSE,
/* two ways to store experts: one matrix each, or stacked */
#define EXPERTS                                                                                                        \
    {"layers.{}.mlp.gate.weight", "blk.{}.ffn_gate_inp.weight", OP_COPY, ROW_MOE | ROW_F32},                           \
        {"layers.{}.mlp.experts.{e}.gate_proj.weight", "blk.{}.ffn_gate_exps.weight", OP_EXPERTS, ROW_MOE},            \
        {"layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight", OP_ROWS_FIRST, ROW_MOE},                 \
        {"layers.{}.mlp.experts.{e}.up_proj.weight", "blk.{}.ffn_up_exps.weight", OP_EXPERTS, ROW_MOE},                \
        {"layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight", OP_ROWS_SECOND, ROW_MOE},                  \
        {"layers.{}.mlp.experts.{e}.down_proj.weight", "blk.{}.ffn_down_exps.weight", OP_EXPERTS, ROW_MOE},            \
        {"layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight", OP_COPY, ROW_MOE},                          \
        {"layers.{}.mlp.shared_expert_gate.weight", "blk.{}.ffn_gate_inp_shexp.weight", OP_SQUEEZE,                    \
         ROW_MOE | ROW_OPTIONAL | ROW_F32},                                                                            \
        {"layers.{}.mlp.shared_expert.gate_proj.weight", "blk.{}.ffn_gate_shexp.weight", OP_COPY,                      \
         ROW_MOE | ROW_OPTIONAL},                                                                                      \
        {"layers.{}.mlp.shared_expert.up_proj.weight", "blk.{}.ffn_up_shexp.weight", OP_COPY, ROW_MOE | ROW_OPTIONAL}, \
    {                                                                                                                  \
        "layers.{}.mlp.shared_expert.down_proj.weight", "blk.{}.ffn_down_shexp.weight", OP_COPY,                       \
            ROW_MOE | ROW_OPTIONAL                                                                                     \
    }
    EXPERTS,
};

/* ---- dense and experts ------------------------------------------------------------------------------------ */

static bool in_list(const cJSON *list, uint32_t layer) {
    const cJSON *v;
    cJSON_ArrayForEach(v, list) if (cJSON_IsNumber(v) && v->valuedouble == layer) return true;
    return false;
}

static bool is_moe(const convert *c, uint32_t layer) {
    uint32_t step = 1;
    if (cfg_u32_or(c, "decoder_sparse_step", 1, 1024, 1, &step, NULL)) step = 1;
    return c->n_expert && (layer + 1) % step == 0 && !in_list(json_get(c->text, "mlp_only_layers"), layer);
}

static unsigned qwen_kind(const convert *c, uint32_t layer) {
    return (is_moe(c, layer) ? ROW_MOE : ROW_DENSE) | ROW_FULL | ROW_OWN_KV;
}

/* A window in some layers is a thing that these GGUF architectures cannot say. */
static err_code check_window(convert *c, err *e) {
    if (!cfg_bool_or(c, "use_sliding_window", false)) return ERR_OK;
    return err_set(e, ERR_UNSUPPORTED,
                   "%s/config.json: use_sliding_window is true; the architecture %s is converted without windows only",
                   c->dir, c->family->arch);
}

static err_code qwen_keys(convert *c, err *e) {
    err_code rc;
    if ((rc = check_window(c, e)) ||
        (rc = key_u32_from(c, "expert_feed_forward_length", "moe_intermediate_size", NULL, e)) ||
        (rc = key_u32_from(c, "expert_shared_feed_forward_length", "shared_expert_intermediate_size", NULL, e)))
        return rc;
    return ERR_OK;
}

#define QWEN(id, name, ...)               \
    const convert_family convert_##id = { \
        .hf = {__VA_ARGS__},              \
        .arch = name,                     \
        .probe = "embed_tokens.weight",   \
        .rows = qwen_rows,                \
        .n_rows = COUNT(qwen_rows),       \
        .keys = qwen_keys,                \
        .kind = qwen_kind,                \
    }
QWEN(qwen2, "qwen2", "Qwen2ForCausalLM", "Qwen2Model");
QWEN(qwen3, "qwen3", "Qwen3ForCausalLM", "Qwen3Model");
QWEN(qwen2moe, "qwen2moe", "Qwen2MoeForCausalLM");
QWEN(qwen3moe, "qwen3moe", "Qwen3MoeForCausalLM");

/* ---- linear attention ------------------------------------------------------------------------------------- */

static unsigned linear_kind(const convert *c, uint32_t layer) {
    unsigned kind = (is_moe(c, layer) ? ROW_MOE : ROW_DENSE) | ROW_OWN_KV;
    const cJSON *types = json_get(c->text, "layer_types"), *mine = cJSON_GetArrayItem(types, (int)layer);
    uint32_t every = 4;
    if (cJSON_IsString(mine)) return kind | (strcmp(mine->valuestring, "full_attention") == 0 ? ROW_FULL : ROW_LINEAR);
    if (cfg_u32_or(c, "full_attention_interval", 1, 1024, 4, &every, NULL)) every = 4;
    return kind | ((layer + 1) % every == 0 ? ROW_FULL : ROW_LINEAR);
}

static err_code check_layers(convert *c, uint32_t every, err *e) {
    for (uint32_t i = 0; i < c->n_layer; i++)
        if (((linear_kind(c, i) & ROW_FULL) != 0) != ((i + 1) % every == 0))
            return err_set(e, ERR_UNSUPPORTED,
                           "%s/config.json: layer_types do not have full attention in every %u-th layer, which is what "
                           "the architecture %s can say",
                           c->dir, every, c->family->arch);
    return ERR_OK;
}

static err_code linear_keys(convert *c, err *e) {
    err_code rc = qwen_keys(c, e);
    uint32_t v_dim = 0, v_heads = 0, head = 0, every = 4;
    double part = 0.25;
    if (rc || (rc = key_u32_from(c, "ssm.conv_kernel", "linear_conv_kernel_dim", NULL, e)) ||
        (rc = key_u32_from(c, "ssm.state_size", "linear_key_head_dim", NULL, e)) ||
        (rc = key_u32_from(c, "ssm.group_count", "linear_num_key_heads", NULL, e)) ||
        (rc = key_u32_from(c, "ssm.time_step_rank", "linear_num_value_heads", &v_heads, e)) ||
        (rc = cfg_u32(c, "linear_value_head_dim", 1, 65536, &v_dim, e)) ||
        (rc = cfg_u32_or(c, "head_dim", 2, 65536, c->d_model / c->n_head, &head, e)) ||
        (rc = cfg_num_or(c, "partial_rotary_factor", 0.25, &part, e)) ||
        (rc = cfg_u32_or(c, "full_attention_interval", 1, 1024, 4, &every, e)) || (rc = check_layers(c, every, e)))
        return rc;
    part = cfg_rope_num(c, "partial_rotary_factor", part);
    if (!(part > 0 && part <= 1) || (uint64_t)v_dim * v_heads > UINT32_MAX)
        return err_set(e, ERR_INVALID, "%s/config.json: partial_rotary_factor or the linear_* sizes make no sense",
                       c->dir);
    key_u32(c, "ssm.inner_size", v_dim * v_heads);
    key_u32(c, "full_attention_interval", every);
    key_u32(c, "rope.dimension_count", (uint32_t)(head * part));
    return ERR_OK;
}

#define LINEAR_COMMON                                                                                               \
    {"embed_tokens.weight", "token_embd.weight", OP_COPY, 0}, {"norm.weight", "output_norm.weight", OP_ADD_ONE, 0}, \
        {"/lm_head.weight", "output.weight", OP_COPY, ROW_HEAD},                                                    \
        {"/model.language_model.lm_head.weight", "output.weight", OP_COPY, ROW_HEAD | ROW_OPTIONAL},                \
        {"layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", OP_ADD_ONE, 0},                             \
        {"layers.{}.post_attention_layernorm.weight", "blk.{}.post_attention_norm.weight", OP_ADD_ONE, 0},          \
        {"layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", OP_COPY, ROW_FULL},                           \
        {"layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", OP_COPY, ROW_FULL},                           \
        {"layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", OP_COPY, ROW_FULL},                           \
        {"layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", OP_COPY, ROW_FULL},                      \
        {"layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight", OP_ADD_ONE, ROW_FULL}, {                 \
        "layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight", OP_ADD_ONE, ROW_FULL                      \
    }

static const convert_row next_rows[] = {
    LINEAR_COMMON,
    {"layers.{}.linear_attn.in_proj_qkvz.weight", "blk.{}.attn_qkv.weight", OP_QKVZ_QKV, ROW_LINEAR},
    {"layers.{}.linear_attn.in_proj_qkvz.weight", "blk.{}.attn_gate.weight", OP_QKVZ_Z, ROW_LINEAR},
    {"layers.{}.linear_attn.in_proj_ba.weight", "blk.{}.ssm_ba.weight", OP_COPY, ROW_LINEAR},
    {"layers.{}.linear_attn.conv1d.weight", "blk.{}.ssm_conv1d.weight", OP_SQUEEZE, ROW_LINEAR | ROW_F32},
    {"layers.{}.linear_attn.dt_bias", "blk.{}.ssm_dt.bias", OP_COPY, ROW_LINEAR},
    {"layers.{}.linear_attn.A_log", "blk.{}.ssm_a", OP_NEG_EXP, ROW_LINEAR},
    {"layers.{}.linear_attn.norm.weight", "blk.{}.ssm_norm.weight", OP_COPY, ROW_LINEAR},
    {"layers.{}.linear_attn.out_proj.weight", "blk.{}.ssm_out.weight", OP_COPY, ROW_LINEAR},
    DENSE,
    EXPERTS,
};

static const convert_row qwen35_rows[] = {
    LINEAR_COMMON,
    {"layers.{}.linear_attn.in_proj_qkv.weight", "blk.{}.attn_qkv.weight", OP_QKV_V_ROWS, ROW_LINEAR},
    {"layers.{}.linear_attn.in_proj_z.weight", "blk.{}.attn_gate.weight", OP_V_ROWS, ROW_LINEAR},
    {"layers.{}.linear_attn.in_proj_b.weight", "blk.{}.ssm_beta.weight", OP_V_ROWS_ONE, ROW_LINEAR},
    {"layers.{}.linear_attn.in_proj_a.weight", "blk.{}.ssm_alpha.weight", OP_V_ROWS_ONE, ROW_LINEAR},
    {"layers.{}.linear_attn.conv1d.weight", "blk.{}.ssm_conv1d.weight", OP_CONV_V_ROWS, ROW_LINEAR | ROW_F32},
    {"layers.{}.linear_attn.dt_bias", "blk.{}.ssm_dt.bias", OP_V_ROWS_ONE, ROW_LINEAR},
    {"layers.{}.linear_attn.A_log", "blk.{}.ssm_a", OP_V_NEG_EXP, ROW_LINEAR},
    {"layers.{}.linear_attn.norm.weight", "blk.{}.ssm_norm.weight", OP_COPY, ROW_LINEAR},
    {"layers.{}.linear_attn.out_proj.weight", "blk.{}.ssm_out.weight", OP_V_COLS, ROW_LINEAR},
    DENSE,
    EXPERTS,
};

/* How many pairs of a head turn with time, height and width; text has all three equal. */
static err_code qwen35_keys(convert *c, err *e) {
    uint32_t sections[4] = {11, 11, 10, 0};
    const cJSON *list = json_get(c->rope_all, "mrope_section"), *v;
    err_code rc = linear_keys(c, e);
    int n = 0;
    if (rc) return rc;
    cJSON_ArrayForEach(v, list) {
        if (n == 4 || !cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble > 65536)
            return err_set(e, ERR_INVALID, "%s/config.json: mrope_section is not up to four numbers", c->dir);
        sections[n++] = (uint32_t)v->valuedouble;
    }
    for (; n && n < 4; n++) sections[n] = 0;
    key_u32s(c, "rope.dimension_sections", sections, 4);
    return ERR_OK;
}

const convert_family convert_qwen3next = {
    .hf = {"Qwen3NextForCausalLM"},
    .arch = "qwen3next",
    .probe = "embed_tokens.weight",
    .rows = next_rows,
    .n_rows = COUNT(next_rows),
    .keys = linear_keys,
    .kind = linear_kind,
};
const convert_family convert_qwen35 = {
    .hf = {"Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"},
    .arch = "qwen35",
    .probe = "embed_tokens.weight",
    .rows = qwen35_rows,
    .n_rows = COUNT(qwen35_rows),
    .keys = qwen35_keys,
    .kind = linear_kind,
};
const convert_family convert_qwen35moe = {
    .hf = {"Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"},
    .arch = "qwen35moe",
    .probe = "embed_tokens.weight",
    .rows = qwen35_rows,
    .n_rows = COUNT(qwen35_rows),
    .keys = qwen35_keys,
    .kind = linear_kind,
};
