#include "engine/models/models.h"

#include <stdio.h>

static const char *key_of(char out[160], const model *m, const char *name) {
    snprintf(out, 160, "%s.%s", m->arch->name, name);
    return out;
}

bool params_has(const model *m, const gguf *g, const char *name) {
    char key[160];
    return gguf_has(g, key_of(key, m, name));
}

err_code params_u32(const model *m, const gguf *g, const char *name, uint32_t min, uint32_t max, uint32_t *out,
                    err *e) {
    char key[160];
    return gguf_u32(g, key_of(key, m, name), min, max, out, e);
}

err_code params_u32_or(const model *m, const gguf *g, const char *name, uint32_t min, uint32_t max, uint32_t def,
                       uint32_t *out, err *e) {
    char key[160];
    return gguf_u32_or(g, key_of(key, m, name), min, max, def, out, e);
}

err_code params_f32_or(const model *m, const gguf *g, const char *name, float min, float max, float def, float *out,
                       err *e) {
    char key[160];
    err_code rc = gguf_f32_or(g, key_of(key, m, name), def, out, e);
    if (rc != ERR_OK) return rc;
    if (*out >= min && *out <= max) return ERR_OK;
    return err_set(e, ERR_INVALID, "%s: %s is %g; it must be from %g to %g", gguf_path(g), key, (double)*out,
                   (double)min, (double)max);
}

err_code params_f32(const model *m, const gguf *g, const char *name, float min, float max, float *out, err *e) {
    char key[160];
    if (!gguf_has(g, key_of(key, m, name))) return err_set(e, ERR_INVALID, "%s: key %s is missing", gguf_path(g), key);
    return params_f32_or(m, g, name, min, max, min, out, e);
}

err_code params_bool_or(const model *m, const gguf *g, const char *name, bool def, bool *out, err *e) {
    char key[160];
    return gguf_bool_or(g, key_of(key, m, name), def, out, e);
}

err_code params_u32_layers(const model *m, const gguf *g, const char *name, uint32_t min, uint32_t max, uint32_t *out,
                           err *e) {
    char key[160];
    uint32_t n_layer = m->hp.n_layer, one = 0;
    key_of(key, m, name);
    err_code rc = gguf_u32(g, key, min, max, &one, NULL);
    if (rc == ERR_OK) {
        for (uint32_t i = 0; i < n_layer; i++) out[i] = one;
        return ERR_OK;
    }
    size_t n = 0;
    int32_t *each = mem_array(n_layer, sizeof *each);
    if (!each) return err_nomem(e, "a list of hyperparameters");
    if (gguf_arr(g, key, GGUF_I32, &n, NULL) != ERR_OK && gguf_arr(g, key, GGUF_U32, &n, NULL) != ERR_OK) n = 0;
    if (n == 0)
        rc = gguf_u32(g, key, min, max, &one, e); /* its sentence */
    else if (n != n_layer)
        rc = err_set(e, ERR_INVALID, "%s: %s has %zu numbers for %u layers", gguf_path(g), key, n, n_layer);
    else
        rc = gguf_arr_i32(g, key, each, n, e);
    for (uint32_t i = 0; rc == ERR_OK && i < n_layer; i++) {
        if (each[i] < 0 || (uint32_t)each[i] < min || (uint32_t)each[i] > max)
            rc = err_set(e, ERR_INVALID, "%s: %s of layer %u is %d; it must be from %u to %u", gguf_path(g), key, i,
                         each[i], min, max);
        out[i] = (uint32_t)each[i];
    }
    mem_free(each);
    return rc;
}

/* ---- what nearly all have --------------------------------------------------------------------------------- */

static err_code read_sizes(model *m, const gguf *g, err *e) {
    hparams *h = &m->hp;
    err_code rc;
    if ((rc = params_u32(m, g, "block_count", 1, MODEL_LAYER_MAX, &h->n_layer, e)) != ERR_OK ||
        (rc = params_u32(m, g, "embedding_length", 1, MODEL_WIDTH_MAX, &h->d_model, e)) != ERR_OK ||
        (rc = params_u32(m, g, "context_length", 1, MODEL_CTX_MAX, &h->n_ctx_train, e)) != ERR_OK ||
        (rc = params_u32(m, g, "attention.head_count", 1, MODEL_HEAD_MAX, &h->n_head, e)) != ERR_OK)
        return rc;
    return ERR_OK;
}

/* Key/value heads: none said, one number, or one for each layer. */
static err_code read_heads_kv(model *m, const gguf *g, err *e) {
    hparams *h = &m->hp;
    err_code rc = ERR_OK;
    uint32_t *each = mem_array(h->n_layer, sizeof *each);
    if (!each) return err_nomem(e, "a list of hyperparameters");
    if (params_has(m, g, "attention.head_count_kv"))
        rc = params_u32_layers(m, g, "attention.head_count_kv", 1, MODEL_HEAD_MAX, each, e);
    for (uint32_t i = 0; rc == ERR_OK && i < h->n_layer; i++) {
        uint32_t n = each[i] ? each[i] : h->n_head;
        m->layers[i].a.n_head_kv = n;
        if (h->n_head % n)
            rc = err_set(e, ERR_INVALID, "%s: %u attention heads cannot share %u key/value heads evenly", gguf_path(g),
                         h->n_head, n);
    }
    h->n_head_kv = m->layers[0].a.n_head_kv;
    mem_free(each);
    return rc;
}

static err_code read_head_sizes(model *m, const gguf *g, err *e) {
    hparams *h = &m->hp;
    err_code rc;
    uint32_t def = h->d_model / h->n_head;
    if (!params_has(m, g, "attention.key_length") && (def == 0 || h->d_model % h->n_head))
        return err_set(e, ERR_INVALID, "%s: embedding length %u is not a multiple of %u heads", gguf_path(g),
                       h->d_model, h->n_head);
    if ((rc = params_u32_or(m, g, "attention.key_length", 2, MODEL_HEAD_DIM_MAX, def, &h->head_k, e)) != ERR_OK ||
        (rc = params_u32_or(m, g, "attention.value_length", 1, MODEL_HEAD_DIM_MAX, def, &h->head_v, e)) != ERR_OK ||
        (rc = params_u32_or(m, g, "rope.dimension_count", 2, MODEL_HEAD_DIM_MAX, h->head_k, &h->n_rot, e)) != ERR_OK)
        return rc;
    if (h->head_k < 1 || h->head_k > MODEL_HEAD_DIM_MAX || h->head_v < 1 || h->head_v > MODEL_HEAD_DIM_MAX)
        return err_set(e, ERR_INVALID, "%s: attention heads of size %u; polder takes 1 to %d", gguf_path(g), h->head_k,
                       MODEL_HEAD_DIM_MAX);
    if (h->n_rot % 2 || h->n_rot < 2 || h->n_rot > h->head_k)
        return err_set(e, ERR_INVALID, "%s: %s.rope.dimension_count is %u; it must be even and at most the key size %u",
                       gguf_path(g), m->arch->name, h->n_rot, h->head_k);
    if ((uint64_t)h->n_head * h->head_k > MODEL_WIDTH_MAX || (uint64_t)h->n_head * h->head_v > MODEL_WIDTH_MAX)
        return err_set(e, ERR_INVALID, "%s: %u heads of size %u and %u are wider than %u", gguf_path(g), h->n_head,
                       h->head_k, h->head_v, MODEL_WIDTH_MAX);
    return ERR_OK;
}

static err_code take_layers(model *m, err *e) {
    const hparams *h = &m->hp;
    err_code rc = model_take(m, &m->layers, h->n_layer, sizeof *m->layers, e);
    for (uint32_t i = 0; rc == ERR_OK && i < h->n_layer; i++) {
        m->layers[i].a = (attn){.n_head = h->n_head,
                                .head_k = h->head_k,
                                .head_v = h->head_v,
                                .scale = h->attn_scale,
                                .qk_eps = h->rms_eps};
        m->layers[i].f = (ffn){.act = ACT_SWIGLU, .width = h->d_ff};
        m->layers[i].mix_width = h->n_head * h->head_v;
    }
    return rc;
}

err_code params_common(model *m, const gguf *g, err *e) {
    hparams *h = &m->hp;
    err_code rc;
    const char *eps = params_has(m, g, "attention.layer_norm_epsilon") ? "attention.layer_norm_epsilon"
                                                                       : "attention.layer_norm_rms_epsilon";
    h->embd_scale = 1;
    if ((rc = read_sizes(m, g, e)) != ERR_OK || (rc = read_head_sizes(m, g, e)) != ERR_OK ||
        (rc = params_f32(m, g, eps, 0, 1, &h->rms_eps, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "attention.scale", 0, 1e6f, 0, &h->attn_scale, e)) != ERR_OK)
        return rc;
    char key[160];
    size_t n = 0;
    bool layered = gguf_arr(g, key_of(key, m, "feed_forward_length"), GGUF_I32, &n, NULL) == ERR_OK && n > 0;
    if (!layered && (rc = params_u32_or(m, g, "feed_forward_length", 0, MODEL_WIDTH_MAX, 0, &h->d_ff, e)) != ERR_OK)
        return rc;
    if (h->attn_scale == 0) h->attn_scale = 1.0f / sqrtf((float)h->head_k);
    if ((rc = take_layers(m, e)) != ERR_OK) return rc;
    return read_heads_kv(m, g, e);
}

static err_code read_groups(const model *m, const gguf *g, moe *o, err *e) {
    err_code rc;
    if ((rc = params_u32_or(m, g, "expert_group_count", 0, MODEL_EXPERT_MAX, 1, &o->n_group, e)) != ERR_OK ||
        (rc = params_u32_or(m, g, "expert_group_used_count", 0, MODEL_EXPERT_MAX, o->n_group, &o->n_group_used, e)) !=
            ERR_OK)
        return rc;
    if (o->n_group == 0) o->n_group = 1;
    if (o->n_group_used == 0) o->n_group_used = o->n_group;
    if (o->n_expert % o->n_group || o->n_group_used > o->n_group ||
        (uint64_t)o->n_group_used * (o->n_expert / o->n_group) < o->n_used)
        return err_set(e, ERR_INVALID, "%s: %u experts in %u groups, %u experts out of %u groups: that does not go",
                       gguf_path(g), o->n_expert, o->n_group, o->n_used, o->n_group_used);
    return ERR_OK;
}

err_code params_moe(const model *m, const gguf *g, moe *o, err *e) {
    err_code rc;
    uint32_t gate = (uint32_t)(o->gate ? o->gate : GATING_SOFTMAX);
    if ((rc = params_u32(m, g, "expert_count", 1, MODEL_EXPERT_MAX, &o->n_expert, e)) != ERR_OK ||
        (rc = params_u32(m, g, "expert_used_count", 1, MODEL_EXPERTS_USED, &o->n_used, e)) != ERR_OK ||
        (rc = params_u32_or(m, g, "expert_feed_forward_length", 1, MODEL_WIDTH_MAX, m->hp.d_ff, &o->width, e)) !=
            ERR_OK ||
        (rc = params_u32_or(m, g, "expert_gating_func", 0, 3, gate, &gate, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "expert_weights_scale", 0, 1e6f, 1, &o->scale, e)) != ERR_OK ||
        (rc = params_bool_or(m, g, "expert_weights_norm", o->normalise, &o->normalise, e)) != ERR_OK)
        return rc;
    if (gate) o->gate = (gating)gate;
    if (o->scale == 0) o->scale = 1; /* files write 0 for "not scaled" */
    if (o->n_used > o->n_expert)
        return err_set(e, ERR_INVALID, "%s: %u experts a token of %u experts", gguf_path(g), o->n_used, o->n_expert);
    if (o->width == 0)
        return err_set(e, ERR_INVALID, "%s: key %s.expert_feed_forward_length is missing", gguf_path(g), m->arch->name);
    return read_groups(m, g, o, e);
}
