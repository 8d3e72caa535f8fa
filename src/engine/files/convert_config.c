/* config.json to GGUF keys. */
#include "engine/files/convert.h"

#include "engine/num.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- reading ---------------------------------------------------------------------------------------------- */

/* The first of "a|b|c" that the language model's part has, or the file as a whole. */
static const cJSON *cfg_find(const convert *c, const char *keys, char found[64]) {
    while (*keys) {
        size_t n = strcspn(keys, "|");
        snprintf(found, 64, "%.*s", (int)n, keys);
        const cJSON *v = json_get(c->text, found);
        if (!v) v = json_get(c->config, found);
        if (v) return v;
        keys += n + (keys[n] == '|');
    }
    return NULL;
}

bool cfg_has(const convert *c, const char *key) {
    char found[64];
    return cfg_find(c, key, found) != NULL;
}

err_code cfg_u32_or(const convert *c, const char *keys, uint32_t min, uint32_t max, uint32_t def, uint32_t *out,
                    err *e) {
    char name[64];
    const cJSON *v = cfg_find(c, keys, name);
    *out = def;
    if (!v) return ERR_OK;
    double d = v->valuedouble;
    if (!cJSON_IsNumber(v) || !(d >= min && d <= max) || d != floor(d))
        return err_set(e, ERR_INVALID, "%s/config.json: %s must be a whole number from %u to %u", c->dir, name, min,
                       max);
    *out = (uint32_t)d;
    return ERR_OK;
}

err_code cfg_u32(const convert *c, const char *keys, uint32_t min, uint32_t max, uint32_t *out, err *e) {
    if (cfg_has(c, keys)) return cfg_u32_or(c, keys, min, max, 0, out, e);
    *out = 0;
    return err_set(e, ERR_INVALID, "%s/config.json: %.*s is missing", c->dir, (int)strcspn(keys, "|"), keys);
}

err_code cfg_num_or(const convert *c, const char *keys, double def, double *out, err *e) {
    char name[64];
    const cJSON *v = cfg_find(c, keys, name);
    *out = def;
    if (!v) return ERR_OK;
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble) || fabs(v->valuedouble) > 1e30)
        return err_set(e, ERR_INVALID, "%s/config.json: %s must be a number", c->dir, name);
    *out = v->valuedouble;
    return ERR_OK;
}

bool cfg_bool_or(const convert *c, const char *key, bool def) {
    char name[64];
    const cJSON *v = cfg_find(c, key, name);
    return cJSON_IsBool(v) ? cJSON_IsTrue(v) : def;
}

const char *cfg_str_or(const convert *c, const char *key, const char *def) {
    char name[64];
    const cJSON *v = cfg_find(c, key, name);
    return cJSON_IsString(v) ? v->valuestring : def;
}

double cfg_rope_num(const convert *c, const char *key, double def) {
    const cJSON *v = json_get(c->rope, key);
    return cJSON_IsNumber(v) && isfinite(v->valuedouble) && fabs(v->valuedouble) < 1e30 ? v->valuedouble : def;
}

const char *cfg_rope_type(const convert *c) {
    const cJSON *v = json_get(c->rope, "rope_type");
    if (!cJSON_IsString(v)) v = json_get(c->rope, "type");
    return cJSON_IsString(v) ? v->valuestring : "";
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

bool key_written(const convert *c, const char *key) {
    char line[160];
    snprintf(line, sizeof line, "\n%s\n", key);
    return strstr(buf_str(&c->written), line) != NULL;
}

/* The whole name of a key that is not there yet, or false. */
static bool key_take(convert *c, const char *key, char full[160]) {
    if (key_written(c, key)) return false;
    buf_printf(&c->written, "\n%s\n", key);
    snprintf(full, 160, "%s.%s", c->family->arch, key);
    return true;
}

void key_u32(convert *c, const char *key, uint32_t v) {
    char full[160];
    if (key_take(c, key, full)) gguf_put_u32(c->w, full, v);
}
void key_f32(convert *c, const char *key, double v) {
    char full[160];
    if (key_take(c, key, full)) gguf_put_f32(c->w, full, (float)v);
}
void key_bool(convert *c, const char *key, bool v) {
    char full[160];
    if (key_take(c, key, full)) gguf_put_bool(c->w, full, v);
}
void key_text(convert *c, const char *key, const char *v) {
    char full[160];
    if (key_take(c, key, full)) gguf_put_text(c->w, full, v);
}
void key_u32s(convert *c, const char *key, const uint32_t *v, size_t n) {
    char full[160];
    if (key_take(c, key, full)) gguf_put_u32s(c->w, full, v, n);
}
void key_bools(convert *c, const char *key, const bool *v, size_t n) {
    char full[160];
    if (key_take(c, key, full)) gguf_put_bools(c->w, full, v, n);
}

err_code key_u32_from(convert *c, const char *key, const char *keys, uint32_t *out, err *e) {
    uint32_t v = 0;
    if (!cfg_has(c, keys)) return ERR_OK;
    err_code rc = cfg_u32_or(c, keys, 0, INT32_MAX, 0, &v, e);
    if (rc) return rc;
    key_u32(c, key, v);
    if (out) *out = v;
    return ERR_OK;
}

static err_code key_num_from(convert *c, const char *key, const char *keys, err *e) {
    double v;
    if (!cfg_has(c, keys)) return ERR_OK;
    err_code rc = cfg_num_or(c, keys, 0, &v, e);
    if (!rc) key_f32(c, key, v);
    return rc;
}

/* ---- what all families have ------------------------------------------------------------------------------- */

err_code convert_sizes(convert *c, err *e) {
    err_code rc;
    const cJSON *rope = json_get(c->text, "rope_parameters"), *full;
    if (!rope) rope = json_get(c->text, "rope_scaling");
    if (!rope) rope = json_get(c->config, "rope_scaling");
    c->rope_all = c->rope = cJSON_IsObject(rope) ? rope : NULL;
    if ((full = json_get(c->rope, "full_attention"))) c->rope = full;
    if ((rc = cfg_u32(c, "num_hidden_layers|n_layer", 1, CONVERT_LAYERS_MAX, &c->n_layer, e)) ||
        (rc = cfg_u32(c, "hidden_size|n_embd", 1, 1u << 20, &c->d_model, e)) ||
        (rc = cfg_u32(c, "num_attention_heads|n_head", 1, 4096, &c->n_head, e)) ||
        (rc = cfg_u32_or(c, "num_key_value_heads", 1, 4096, c->n_head, &c->n_head_kv, e)) ||
        (rc = cfg_u32(c, "vocab_size", 1, 1u << 24, &c->n_vocab, e)) ||
        (rc = cfg_u32_or(c, "num_local_experts|num_experts|n_routed_experts", 0, CONVERT_EXPERTS_MAX, 0, &c->n_expert,
                         e)))
        return rc;
    c->tied = c->family->always_tied || cfg_bool_or(c, "tie_word_embeddings", false);
    c->says_tied = cfg_has(c, "tie_word_embeddings");
    return ERR_OK;
}

static err_code yarn_keys(convert *c, err *e) {
    double original = cfg_rope_num(c, "original_max_position_embeddings", 0);
    if (!(original >= 1 && original < 1e9))
        return err_set(e, ERR_INVALID, "%s/config.json: rope scaling yarn has no original_max_position_embeddings",
                       c->dir);
    key_text(c, "rope.scaling.type", "yarn");
    key_f32(c, "rope.scaling.factor", cfg_rope_num(c, "factor", 1));
    key_u32(c, "rope.scaling.original_context_length", (uint32_t)original);
    double attn = cfg_rope_num(c, "attention_factor", cfg_rope_num(c, "attn_factor", 0));
    if (attn > 0) key_f32(c, "rope.scaling.yarn_attn_factor", attn);
    if (json_get(c->rope, "beta_fast")) key_f32(c, "rope.scaling.yarn_beta_fast", cfg_rope_num(c, "beta_fast", 32));
    if (json_get(c->rope, "beta_slow")) key_f32(c, "rope.scaling.yarn_beta_slow", cfg_rope_num(c, "beta_slow", 1));
    return ERR_OK;
}

static err_code rope_keys(convert *c, err *e) {
    const char *type = cfg_rope_type(c);
    double theta = 0, local = 0;
    err_code rc = cfg_num_or(c, "rope_theta|global_rope_theta|rotary_emb_base", 0, &theta, e);
    if (!rc) rc = cfg_num_or(c, "rope_local_base_freq|local_rope_theta", 0, &local, e);
    if (rc) return rc;
    theta = cfg_rope_num(c, "rope_theta", theta);
    const cJSON *sliding = json_get(json_get(c->rope_all, "sliding_attention"), "rope_theta");
    if (cJSON_IsNumber(sliding)) local = sliding->valuedouble;
    if (theta > 0) key_f32(c, "rope.freq_base", theta);
    if (local > 0) key_f32(c, "rope.freq_base_swa", local);
    if (strcmp(type, "linear") == 0) {
        key_text(c, "rope.scaling.type", "linear");
        key_f32(c, "rope.scaling.factor", cfg_rope_num(c, "factor", 1));
        return ERR_OK;
    }
    if (strcmp(type, "yarn") == 0) return yarn_keys(c, e);
    if (!*type || strcmp(type, "default") == 0 || strcmp(type, "llama3") == 0 || strcmp(type, "longrope") == 0 ||
        strcmp(type, "su") == 0 || strcmp(type, "proportional") == 0 || strcmp(type, "mrope") == 0)
        return ERR_OK; /* nothing, or what the family writes */
    return err_set(e, ERR_UNSUPPORTED,
                   "%s/config.json: rope type \"%.40s\" is not known; known are default, linear, yarn, llama3, "
                   "longrope, su, proportional, mrope",
                   c->dir, type);
}

static err_code expert_keys(convert *c, err *e) {
    err_code rc;
    if (!c->n_expert) return ERR_OK;
    key_u32(c, "expert_count", c->n_expert);
    if ((rc = key_u32_from(c, "expert_used_count", "num_experts_per_tok|num_experts_per_token|top_k_experts", NULL,
                           e)) ||
        (rc = key_u32_from(c, "expert_group_count", "n_group", NULL, e)) ||
        (rc = key_u32_from(c, "expert_group_used_count", "topk_group", NULL, e)))
        return rc;
    const char *score = cfg_str_or(c, "scoring_func|score_function", NULL);
    if (!score) return ERR_OK;
    bool sigmoid = strcmp(score, "sigmoid") == 0;
    if (!sigmoid && strcmp(score, "softmax") != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s/config.json: scoring_func \"%.40s\" is not known; known are softmax and "
                       "sigmoid",
                       c->dir, score);
    key_u32(c, "expert_gating_func", sigmoid ? 2 : 1);
    return ERR_OK;
}

err_code convert_common_keys(convert *c, err *e) {
    err_code rc;
    uint32_t head_dim = 0;
    key_u32(c, "block_count", c->n_layer);
    key_u32(c, "embedding_length", c->d_model);
    key_u32(c, "vocab_size", c->n_vocab);
    key_u32(c, "attention.head_count", c->n_head);
    key_u32(c, "attention.head_count_kv", c->n_head_kv);
    if ((rc = key_u32_from(c, "context_length", "max_position_embeddings|n_positions", NULL, e)) ||
        (rc = key_u32_from(c, "feed_forward_length", "intermediate_size|n_inner", NULL, e)) ||
        (rc = cfg_u32_or(c, "head_dim", 0, 1u << 16, 0, &head_dim, e)) ||
        (rc = key_num_from(c, "attention.layer_norm_rms_epsilon", "rms_norm_eps|norm_eps", e)) ||
        (rc = key_num_from(c, "attention.layer_norm_epsilon", "layer_norm_eps|layer_norm_epsilon", e)) ||
        (rc = rope_keys(c, e)) || (rc = expert_keys(c, e)))
        return rc;
    if (!key_written(c, "context_length"))
        return err_set(e, ERR_INVALID, "%s/config.json: max_position_embeddings is missing", c->dir);
    if (head_dim) {
        key_u32(c, "attention.key_length", head_dim);
        key_u32(c, "attention.value_length", head_dim);
    }
    return buf_check(&c->written, "the keys of a model file", e);
}

err_code convert_llama3_freqs(convert *c, err *e) {
    if (strcmp(cfg_rope_type(c), "llama3") != 0) return ERR_OK;
    double base, factor = cfg_rope_num(c, "factor", 8), low = cfg_rope_num(c, "low_freq_factor", 1),
                 high = cfg_rope_num(c, "high_freq_factor", 4),
                 original = cfg_rope_num(c, "original_max_position_embeddings", 8192);
    uint32_t dim;
    err_code rc = cfg_num_or(c, "rope_theta", 10000, &base, e);
    if (!rc) rc = cfg_u32_or(c, "head_dim", 2, 1u << 16, c->d_model / c->n_head, &dim, e);
    if (rc) return rc;
    base = cfg_rope_num(c, "rope_theta", base);
    if (!(factor > 0 && low > 0 && high > low && original > 0 && base > 0))
        return err_set(e, ERR_INVALID, "%s/config.json: the numbers of rope type llama3 make no sense", c->dir);
    float *f = mem_array(dim / 2 + 1, sizeof *f);
    if (!f) return err_nomem(e, "rope factors");
    for (uint32_t i = 0; i < dim / 2; i++) {
        double wave = 2 * 3.14159265358979323846 * num_pow(base, 2.0 * i / dim);
        double smooth = (original / wave - low) / (high - low);
        if (wave < original / high)
            f[i] = 1;
        else if (wave > original / low)
            f[i] = (float)factor;
        else
            f[i] = (float)(1 / ((1 - smooth) / factor + smooth));
    }
    rc = convert_add_values(c, "rope_freqs.weight", f, dim / 2, e);
    mem_free(f);
    return rc;
}
