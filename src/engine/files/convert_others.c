/* Phi-3 and 4, gpt-oss, BERT and Nomic BERT; the list of all families. */
#include "engine/files/convert.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- Phi ---------------------------------------------------------------------------------------------------- */

static const convert_row phi3_rows[] = {
    {"embed_tokens.weight", "token_embd.weight", OP_COPY, 0},
    {"norm.weight", "output_norm.weight", OP_COPY, 0},
    {"/lm_head.weight", "output.weight", OP_COPY, ROW_HEAD},
    {"layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", OP_COPY, 0},
    {"layers.{}.self_attn.qkv_proj.weight", "blk.{}.attn_qkv.weight", OP_COPY, 0},
    {"layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", OP_COPY, 0},
    {"layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", OP_COPY, 0},
    {"layers.{}.mlp.gate_up_proj.weight", "blk.{}.ffn_up.weight", OP_COPY, 0},
    {"layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", OP_COPY, 0},
};

static err_code phi3_sizes(convert *c, uint32_t *max, uint32_t *original, uint32_t *rot, err *e) {
    double part;
    err_code rc;
    if ((rc = cfg_u32(c, "max_position_embeddings", 1, INT32_MAX, max, e)) ||
        (rc = cfg_u32_or(c, "original_max_position_embeddings", 1, INT32_MAX, *max, original, e)) ||
        (rc = cfg_num_or(c, "partial_rotary_factor", 1, &part, e)))
        return rc;
    *original = (uint32_t)cfg_rope_num(c, "original_max_position_embeddings", *original);
    part = cfg_rope_num(c, "partial_rotary_factor", part);
    if (!(part > 0 && part <= 1) || *original < 2)
        return err_set(e, ERR_INVALID,
                       "%s/config.json: partial_rotary_factor or original_max_position_embeddings make no "
                       "sense",
                       c->dir);
    *rot = (uint32_t)(part * c->d_model) / c->n_head;
    return ERR_OK;
}

static err_code phi3_keys(convert *c, err *e) {
    uint32_t max = 0, original = 0, rot = 0, window = 0;
    err_code rc = phi3_sizes(c, &max, &original, &rot, e);
    if (!rc) rc = cfg_u32_or(c, "sliding_window", 0, INT32_MAX, 0, &window, e);
    if (rc) return rc;
    key_u32(c, "rope.scaling.original_context_length", original);
    key_u32(c, "rope.dimension_count", rot);
    key_u32(c, "attention.sliding_window", window); /* 0 says that there is none */
    const char *type = cfg_rope_type(c);
    double scale = (double)max / original, given = cfg_rope_num(c, "attention_factor", 0);
    if (given > 0) key_f32(c, "rope.scaling.attn_factor", given);
    if (!json_get(c->rope, "long_factor") || scale <= 1) return ERR_OK;
    if (strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0)
        key_f32(c, "rope.scaling.attn_factor", sqrt(1 + log(scale) / log(original)));
    else if (strcmp(type, "yarn") == 0)
        key_f32(c, "rope.scaling.attn_factor", 0.1 * log(scale) + 1);
    return ERR_OK;
}

static err_code factors(convert *c, const char *key, const char *name, uint32_t want, err *e) {
    const cJSON *list = json_get(c->rope, key), *v;
    if (!list) return ERR_OK;
    if (cJSON_GetArraySize(list) != (int)want)
        return err_set(e, ERR_INVALID, "%s/config.json: %s has %d numbers, half a head has %u", c->dir, key,
                       cJSON_GetArraySize(list), want);
    float *f = mem_array(want ? want : 1, sizeof *f);
    if (!f) return err_nomem(e, "rope factors");
    uint32_t n = 0;
    cJSON_ArrayForEach(v, list) f[n++] = cJSON_IsNumber(v) ? (float)v->valuedouble : 0;
    err_code rc = ERR_OK;
    for (uint32_t i = 0; i < want && !rc; i++)
        if (!(f[i] > 0 && f[i] < 1e30f))
            rc = err_set(e, ERR_INVALID, "%s/config.json: %s has what is not a positive number", c->dir, key);
    if (!rc) rc = convert_add_values(c, name, f, want, e);
    mem_free(f);
    return rc;
}

static err_code phi3_factors(convert *c, err *e) {
    uint32_t max = 0, original = 0, rot = 0;
    err_code rc = phi3_sizes(c, &max, &original, &rot, e);
    if (!rc) rc = factors(c, "long_factor", "rope_factors_long.weight", rot / 2, e);
    return rc ? rc : factors(c, "short_factor", "rope_factors_short.weight", rot / 2, e);
}

static const convert_family phi3 = {
    .hf = {"Phi3ForCausalLM"},
    .arch = "phi3",
    .probe = "embed_tokens.weight",
    .rows = phi3_rows,
    .n_rows = COUNT(phi3_rows),
    .keys = phi3_keys,
    .extra = phi3_factors,
};

/* ---- gpt-oss -------------------------------------------------------------------------------------------------- */

/* Gate and up rows alternate; experts come as MXFP4 or as plain matrices (E, in, out). */
static const convert_row gptoss_rows[] = {
    {"embed_tokens.weight", "token_embd.weight", OP_COPY, 0},
    {"norm.weight", "output_norm.weight", OP_COPY, 0},
    {"/lm_head.weight", "output.weight", OP_COPY, ROW_HEAD},
    {"layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", OP_COPY, 0},
    {"layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", OP_COPY, 0},
    {"layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias", OP_COPY, 0},
    {"layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", OP_COPY, 0},
    {"layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", OP_COPY, 0},
    {"layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", OP_COPY, 0},
    {"layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", OP_COPY, 0},
    {"layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", OP_COPY, 0},
    {"layers.{}.self_attn.o_proj.bias", "blk.{}.attn_output.bias", OP_COPY, 0},
    {"layers.{}.self_attn.sinks", "blk.{}.attn_sinks.weight", OP_COPY, 0},
    {"layers.{}.post_attention_layernorm.weight", "blk.{}.post_attention_norm.weight", OP_COPY, 0},
    {"layers.{}.mlp.router.weight", "blk.{}.ffn_gate_inp.weight", OP_COPY, ROW_F32},
    {"layers.{}.mlp.router.bias", "blk.{}.ffn_gate_inp.bias", OP_COPY, 0},
    {"layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight", OP_MXFP4_EVEN, 0},
    {"layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight", OP_T_EVEN, 0},
    {"layers.{}.mlp.experts.gate_up_proj_bias", "blk.{}.ffn_gate_exps.bias", OP_EVEN, ROW_F32},
    {"layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight", OP_MXFP4_ODD, 0},
    {"layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight", OP_T_ODD, 0},
    {"layers.{}.mlp.experts.gate_up_proj_bias", "blk.{}.ffn_up_exps.bias", OP_ODD, ROW_F32},
    {"layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight", OP_MXFP4, 0},
    {"layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight", OP_T, 0},
    {"layers.{}.mlp.experts.down_proj_bias", "blk.{}.ffn_down_exps.bias", OP_COPY, ROW_F32},
};

static err_code gptoss_keys(convert *c, err *e) {
    err_code rc = key_u32_from(c, "attention.sliding_window", "sliding_window", NULL, e);
    if (!rc) rc = key_u32_from(c, "expert_feed_forward_length", "intermediate_size", NULL, e);
    return rc;
}

static const convert_family gptoss = {
    .hf = {"GptOssForCausalLM"},
    .arch = "gpt-oss",
    .probe = "embed_tokens.weight",
    .rows = gptoss_rows,
    .n_rows = COUNT(gptoss_rows),
    .keys = gptoss_keys,
};

/* ---- encoders ------------------------------------------------------------------------------------------------- */

static const char *const bert_prefixes[] = {"", "bert.", "model.", NULL};

static const convert_row bert_rows[] = {
    {"embeddings.word_embeddings.weight", "token_embd.weight", OP_COPY, 0},
    {"embeddings.position_embeddings.weight", "position_embd.weight", OP_COPY, ROW_F32},
    {"embeddings.token_type_embeddings.weight", "token_types.weight", OP_COPY, ROW_OPTIONAL | ROW_F32},
    {"embeddings.LayerNorm.weight", "token_embd_norm.weight", OP_COPY, 0},
    {"embeddings.LayerNorm.bias", "token_embd_norm.bias", OP_COPY, 0},
#define PAIR(hf, gguf)                                                          \
    {"encoder.layer.{}." hf ".weight", "blk.{}." gguf ".weight", OP_COPY, 0}, { \
        "encoder.layer.{}." hf ".bias", "blk.{}." gguf ".bias", OP_COPY, 0      \
    }
    PAIR("attention.self.query", "attn_q"),
    PAIR("attention.self.key", "attn_k"),
    PAIR("attention.self.value", "attn_v"),
    PAIR("attention.output.dense", "attn_output"),
    PAIR("attention.output.LayerNorm", "attn_output_norm"),
    PAIR("intermediate.dense", "ffn_up"),
    PAIR("output.dense", "ffn_down"),
    PAIR("output.LayerNorm", "layer_output_norm"),
};

static const convert_row nomic_rows[] = {
    {"embeddings.word_embeddings.weight", "token_embd.weight", OP_COPY, 0},
    {"embeddings.token_type_embeddings.weight", "token_types.weight", OP_COPY, ROW_OPTIONAL | ROW_F32},
    {"emb_ln.weight", "token_embd_norm.weight", OP_COPY, 0},
    {"emb_ln.bias", "token_embd_norm.bias", OP_COPY, 0},
    {"encoder.layers.{}.attn.Wqkv.weight", "blk.{}.attn_qkv.weight", OP_COPY, 0},
    {"encoder.layers.{}.attn.Wqkv.bias", "blk.{}.attn_qkv.bias", OP_COPY, ROW_OPTIONAL},
    {"encoder.layers.{}.attn.out_proj.weight", "blk.{}.attn_output.weight", OP_COPY, 0},
    {"encoder.layers.{}.attn.out_proj.bias", "blk.{}.attn_output.bias", OP_COPY, ROW_OPTIONAL},
    {"encoder.layers.{}.norm1.weight", "blk.{}.attn_output_norm.weight", OP_COPY, 0},
    {"encoder.layers.{}.norm1.bias", "blk.{}.attn_output_norm.bias", OP_COPY, 0},
    {"encoder.layers.{}.mlp.fc12.weight", "blk.{}.ffn_gate.weight", OP_COPY, 0},
    {"encoder.layers.{}.mlp.fc11.weight", "blk.{}.ffn_up.weight", OP_COPY, 0},
    {"encoder.layers.{}.mlp.fc2.weight", "blk.{}.ffn_down.weight", OP_COPY, 0},
    {"encoder.layers.{}.norm2.weight", "blk.{}.layer_output_norm.weight", OP_COPY, 0},
    {"encoder.layers.{}.norm2.bias", "blk.{}.layer_output_norm.bias", OP_COPY, 0},
};

/* 1_Pooling/config.json of sentence-transformers: 1 mean, 2 the first token, 3 the last one. */
static err_code pooling(convert *c, uint32_t def, err *e) {
    static const struct {
        const char *key;
        uint32_t type;
    } kinds[] = {{"pooling_mode_mean_tokens", 1}, {"pooling_mode_cls_token", 2}, {"pooling_mode_lasttoken", 3}};
    char path[4096];
    buf text = {.max = 1 << 16};
    cJSON *v = NULL;
    err_code rc = path_join(path, sizeof path, e, c->dir, "1_Pooling/config.json");
    if (!rc && file_exists(path)) {
        rc = file_read(&text, path, e);
        if (!rc) rc = json_parse(&v, buf_str(&text), text.len, path, e);
        for (size_t i = 0; v && i < COUNT(kinds); i++)
            if (cJSON_IsTrue(json_get(v, kinds[i].key))) def = kinds[i].type;
    }
    cJSON_Delete(v);
    buf_free(&text);
    if (!rc) key_u32(c, "pooling_type", def);
    return rc;
}

static err_code encoder_keys(convert *c, uint32_t def, err *e) {
    key_bool(c, "attention.causal", false);
    return pooling(c, def, e);
}

static err_code bert_keys(convert *c, err *e) {
    if (strcmp(cfg_str_or(c, "position_embedding_type", "absolute"), "absolute") != 0)
        return err_set(e, ERR_UNSUPPORTED, "%s/config.json: position_embedding_type is not absolute", c->dir);
    return encoder_keys(c, 2, e);
}

static err_code nomic_keys(convert *c, err *e) {
    double theta, part;
    err_code rc = cfg_num_or(c, "rotary_emb_base", 10000, &theta, e);
    if (!rc) rc = cfg_num_or(c, "rotary_emb_fraction", 1, &part, e);
    if (rc) return rc;
    if (part != 1 || c->n_expert || cfg_bool_or(c, "rotary_emb_interleaved", false) ||
        !cfg_bool_or(c, "causal", false) == false ||
        strcmp(cfg_str_or(c, "activation_function", "swiglu"), "swiglu") != 0)
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s/config.json: a Nomic BERT with experts, partial rotation or another activation than swiglu is "
            "not converted",
            c->dir);
    key_f32(c, "rope.freq_base", theta);
    return encoder_keys(c, 1, e);
}

static const convert_family bert = {
    .hf = {"BertModel", "BertForMaskedLM"},
    .arch = "bert",
    .always_tied = true,
    .probe = "embeddings.word_embeddings.weight",
    .prefixes = bert_prefixes,
    .rows = bert_rows,
    .n_rows = COUNT(bert_rows),
    .keys = bert_keys,
};
static const convert_family nomic = {
    .hf = {"NomicBertModel"},
    .arch = "nomic-bert",
    .always_tied = true,
    .probe = "embeddings.word_embeddings.weight",
    .prefixes = bert_prefixes,
    .rows = nomic_rows,
    .n_rows = COUNT(nomic_rows),
    .keys = nomic_keys,
};

/* ---- all ------------------------------------------------------------------------------------------------------ */

extern const convert_family convert_llama, convert_mistral3, convert_llama4, convert_qwen2, convert_qwen3,
    convert_qwen2moe, convert_qwen3moe, convert_qwen3next, convert_qwen35, convert_qwen35moe, convert_gemma2,
    convert_gemma3, convert_gemma4, convert_deepseek2;

const convert_family *const convert_families[] = {
    &convert_llama,
    &convert_mistral3,
    &convert_llama4,
    &convert_qwen2,
    &convert_qwen3,
    &convert_qwen2moe,
    &convert_qwen3moe,
    &convert_qwen3next,
    &convert_qwen35,
    &convert_qwen35moe,
    &convert_gemma2,
    &convert_gemma3,
    &convert_gemma4,
    &convert_deepseek2,
    &phi3,
    &gptoss,
    &bert,
    &nomic,
    NULL,
};
