/* phi3 (Phi-3, Phi-3.5, Phi-4): one tensor for query, key and value, one for gate and up; rotation of halves, of part
 * of a head where the file says so; "longrope": each frequency divided by a factor of its own.
 *
 * There are two lists of factors: for contexts up to the original length, and for longer ones. Others choose by the
 * length of the prompt or of the configured context; then the same tokens would give other logits in another setting.
 * Here the model's own context length decides, once. */
#include "engine/models/models.h"

static err_code take_factors(model *m, const gguf *g, weights *w, const float **used, const char **name, err *e) {
    uint32_t orig = 0, n = m->rope[0].n_rot / 2;
    err_code rc =
        params_u32_or(m, g, "rope.scaling.original_context_length", 1, MODEL_CTX_MAX, m->hp.n_ctx_train, &orig, e);
    if (rc != ERR_OK) return rc;
    bool is_long = m->hp.n_ctx_train > orig;
    *name = is_long ? "rope_factors_long.weight" : "rope_factors_short.weight";
    if ((rc = weights_vector(w, used, true, n, e, "%s", *name)) != ERR_OK) return rc;
    return weights_matrices(w, NULL, true, 1, 1, n, e, "%s",
                            is_long ? "rope_factors_short.weight" : "rope_factors_long.weight");
}

static err_code phi3_load(model *m, const gguf *g, err *e) {
    const decoder_parts p = {.fused_qkv = true, .fused_gate_up = true, .output = HAS_MAYBE};
    weights w = {0};
    const float *factors = NULL;
    const char *name = NULL;
    uint32_t window = 0;
    err_code rc;
    if ((rc = params_common(m, g, e)) != ERR_OK ||
        (rc = params_u32_or(m, g, "attention.sliding_window", 0, MODEL_CTX_MAX, 0, &window, e)) != ERR_OK)
        return rc;
    for (uint32_t i = 0; i < m->hp.n_layer; i++) m->layers[i].a.window = window;
    const rope_wish r = {m->hp.n_rot, true, true, "freq_base", 10000, true};
    if ((rc = rope_load(m, g, 0, &r, e)) != ERR_OK || (rc = weights_new(&w, m, g, e)) != ERR_OK) return rc;
    rc = decoder_take(m, &w, &p, e);
    if (rc == ERR_OK) rc = take_factors(m, g, &w, &factors, &name, e);
    if (rc == ERR_OK) rc = weights_load(&w, e);
    if (rc == ERR_OK && !m->output) m->output = m->embd;
    if (rc == ERR_OK && factors) rc = rope_apply_factors(m, g, 0, factors, name, e);
    weights_free(&w);
    return rc;
}

const arch arch_phi3 = {"phi3", phi3_load, decoder_run};
