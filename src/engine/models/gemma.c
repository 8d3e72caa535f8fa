/* gemma2: embeddings scaled by sqrt(d), GEGLU, norms also behind each block, soft caps on scores and logits, a sliding
 * window on every other layer. gemma3: no caps, norms on query and key heads, five windowed layers to a full one, which
 * rotate by a base of their own (10000) and without the file's scaling. Norm weights in files have their 1 added. */
#include "engine/models/models.h"

static const decoder_parts gemma2_parts = {.post_norms = HAS, .output = HAS_MAYBE};
static const decoder_parts gemma3_parts = {.post_norms = HAS, .qk_norm = HAS, .output = HAS_MAYBE};

/* The 27B ones divide by the width a head has in the stream, not by the head's own. */
static float scale_of(const model *m, uint32_t layers_of_27b) {
    const hparams *h = &m->hp;
    return h->n_layer == layers_of_27b ? 1.0f / sqrtf((float)(h->d_model / h->n_head)) : h->attn_scale;
}

static err_code set_layers(model *m, const gguf *g, uint32_t period, float scale, float cap, bool two_ropes, err *e) {
    uint32_t window = 0;
    err_code rc = params_u32_or(m, g, "attention.sliding_window", 0, MODEL_CTX_MAX, 4096, &window, e);
    for (uint32_t i = 0; rc == ERR_OK && i < m->hp.n_layer; i++) {
        model_layer *l = &m->layers[i];
        bool windowed = i % period < period - 1;
        l->f.act = ACT_GEGLU;
        l->a.scale = scale;
        l->a.cap = cap;
        l->a.window = windowed ? window : 0;
        l->a.rope = windowed && two_ropes ? 1 : 0;
    }
    return rc;
}

static err_code gemma2_load(model *m, const gguf *g, err *e) {
    float cap = 0;
    err_code rc;
    if ((rc = params_common(m, g, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "attn_logit_softcapping", 0, 1e6f, 50, &cap, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "final_logit_softcapping", 0, 1e6f, 30, &m->hp.logit_cap, e)) != ERR_OK ||
        (rc = set_layers(m, g, 2, scale_of(m, 46), cap, false, e)) != ERR_OK)
        return rc;
    m->hp.embd_scale = sqrtf((float)m->hp.d_model);
    const rope_wish r = {m->hp.n_rot, true, true, "freq_base", 10000, false};
    if ((rc = rope_load(m, g, 0, &r, e)) != ERR_OK) return rc;
    return decoder_load(m, g, &gemma2_parts, e);
}

static err_code gemma3_load(model *m, const gguf *g, err *e) {
    err_code rc;
    if ((rc = params_common(m, g, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "final_logit_softcapping", 0, 1e6f, 0, &m->hp.logit_cap, e)) != ERR_OK ||
        (rc = set_layers(m, g, 6, scale_of(m, 62), 0, true, e)) != ERR_OK)
        return rc;
    m->hp.embd_scale = sqrtf((float)m->hp.d_model);
    const rope_wish full = {m->hp.n_rot, true, true, "freq_base", 1000000, false};
    const rope_wish near = {m->hp.n_rot, true, false, "freq_base_swa", 10000, false};
    if ((rc = rope_load(m, g, 0, &full, e)) != ERR_OK || (rc = rope_load(m, g, 1, &near, e)) != ERR_OK) return rc;
    return decoder_load(m, g, &gemma3_parts, e);
}

const arch arch_gemma2 = {"gemma2", gemma2_load, decoder_run};
const arch arch_gemma3 = {"gemma3", gemma3_load, decoder_run};
