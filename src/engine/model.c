#include "engine/grammar/token_trie.h"
#include "engine/holding.h"
#include "engine/model_internal.h"
#include "engine/models/models.h"
#include "engine/quant.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MODEL_MEMORY_MAX (256u << 20) /* layers and lists, without weights */

static const char *const kv_names[KV_FORMATS] = {"f16", "q8"};

const char *kv_format_name(kv_format f) {
    return kv_names[f];
}

bool kv_format_parse(kv_format *out, const char *name) {
    for (int i = 0; i < KV_FORMATS; i++) {
        if (strcmp(name, kv_names[i]) != 0) continue;
        *out = (kv_format)i;
        return true;
    }
    return false;
}

/* ---- opening ---------------------------------------------------------------------------------------------- */

static err_code copy_clean(char *out, size_t cap, gguf_str s, err *e) {
    buf b = {.max = 4096};
    text_sanitise(&b, s.ptr, s.len < 1024 ? s.len : 1024, false);
    err_code rc = buf_check(&b, "a name in a model's file", e);
    size_t n = rc != ERR_OK ? 0 : b.len < cap - 1 ? b.len : cap - 1;
    if (n) {
        memcpy(out, b.ptr, n);
        n -= utf8_tail(out, n);
    }
    out[n] = 0;
    buf_free(&b);
    return rc;
}

static err_code find_arch(model *m, const gguf *g, err *e) {
    gguf_str s = {0};
    err_code rc = gguf_str_or(g, "general.architecture", &s, e);
    if (rc != ERR_OK) return rc;
    if (!s.len)
        return err_set(e, ERR_INVALID, "%s: key general.architecture is missing: not a model file", gguf_path(g));
    if ((rc = copy_clean(m->facts.arch, sizeof m->facts.arch, s, e)) != ERR_OK) return rc;
    buf known = {.max = 4096};
    for (size_t i = 0; arch_table[i]; i++) {
        if (s.len == strlen(arch_table[i]->name) && memcmp(s.ptr, arch_table[i]->name, s.len) == 0)
            m->arch = arch_table[i];
        buf_printf(&known, "%s%s", i ? ", " : "", arch_table[i]->name);
    }
    if (!m->arch)
        rc = err_set(e, ERR_UNSUPPORTED, "%s: the architecture \"%s\" is not one that polder runs; it runs: %s",
                     gguf_path(g), m->facts.arch, buf_str(&known));
    buf_free(&known);
    return rc;
}

static bool ends_with(gguf_str s, const char *tail) {
    size_t n = strlen(tail);
    return s.len >= n && memcmp(s.ptr + s.len - n, tail, n) == 0;
}

/* What one decoded token reads. A table of embeddings gives one row, unless it is the head too; of stacked experts
 * those are read that a router chose. */
static err_code count_step(model_facts *f, const gguf *g, err *e) {
    uint32_t n_expert = 0, n_used = 0;
    char key[80];
    snprintf(key, sizeof key, "%s.expert_count", f->arch);
    err_code rc = gguf_u32_or(g, key, 0, UINT32_MAX, 0, &n_expert, e);
    snprintf(key, sizeof key, "%s.expert_used_count", f->arch);
    if (rc == ERR_OK) rc = gguf_u32_or(g, key, 0, UINT32_MAX, 0, &n_used, e);
    bool head = gguf_tensor_find(g, "output.weight") || f->encoder;
    for (size_t i = 0; rc == ERR_OK && i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        bool table = ends_with(t->name, "_embd.weight") && (head || t->name.len != strlen("token_embd.weight"));
        if (t->n_dims < 2 || table) continue;
        bool experts = t->n_dims == 3 && n_expert && t->dims[2] == n_expert && n_used < n_expert;
        uint64_t of = experts ? n_expert : 1, take = experts ? n_used : 1;
        f->step_weights += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3] / of * take;
        f->step_bytes += t->n_bytes / of * take;
    }
    return rc;
}

static void count_weights(model_facts *f, const gguf *g) {
    uint64_t bytes[64] = {0}, most = 0;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        f->n_params += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        if ((unsigned)t->type < 64) bytes[t->type] += t->n_bytes;
    }
    for (uint32_t i = 0; i < 64; i++) {
        const tensor_type_facts *tt = tensor_type_get(i);
        if (!tt || bytes[i] <= most) continue;
        most = bytes[i];
        snprintf(f->quant, sizeof f->quant, "%s", tt->name);
    }
}

static err_code read_facts(model *m, const gguf *g, err *e) {
    gguf_str name = {0};
    err_code rc = gguf_str_or(g, "general.name", &name, e);
    if (rc != ERR_OK) return rc;
    model_facts *f = &m->facts;
    if ((rc = copy_clean(f->name, sizeof f->name, name, e)) != ERR_OK) return rc;
    snprintf(f->tokenizer, sizeof f->tokenizer, "%s", vocab_kind(m->vocab));
    f->file_bytes = gguf_file_bytes(g);
    f->n_vocab = m->hp.n_vocab;
    f->n_layer = m->hp.n_layer;
    f->n_ctx_train = m->hp.n_ctx_train;
    f->d_model = m->hp.d_model;
    f->n_head = m->hp.n_head;
    f->n_head_kv = m->hp.n_head_kv;
    for (int i = 0; i < KV_FORMATS; i++) f->kv_bytes[i] = m->need.page[i] / VEC_TILE;
    f->state_bytes = m->need.state * sizeof(float);
    f->encoder = m->hp.encoder;
    count_weights(f, g);
    return count_step(f, g, e);
}

/* A template that does not compile leaves its sentence; only a lack of memory stops the model. */
static err_code read_template(model *m, const gguf *g, err *e) {
    gguf_str s = {0};
    err_code rc = gguf_str_or(g, "tokenizer.chat_template", &s, e);
    if (rc != ERR_OK || !s.len) return rc;
    m->facts.has_template = true;
    err why = {0};
    rc = chat_template_compile(&m->tmpl, s.ptr, s.len, &why);
    if (rc == ERR_OK) return rc;
    m->tmpl = NULL;
    if (rc == ERR_NOMEM) return err_set(e, rc, "%s: chat template: %s", gguf_path(g), why.msg);
    m->tmpl_error = mem_strdup(why.msg);
    return m->tmpl_error ? ERR_OK : err_nomem(e, "a chat template's error");
}

/* Keys and values are rounded to binary16 where weights are coarser than that; with float weights nothing is rounded.
 */
static bool has_quantised(const gguf *g) {
    for (size_t i = 0; i < gguf_tensor_count(g); i++)
        if (quant_shape_get(gguf_tensor_at(g, i)->type)) return true;
    return false;
}

/* Takes over g, also where it fails. */
static err_code open_from(model **out, gguf *taken, const model_options *o, err *e) {
    holding *h = NULL;
    *out = NULL;
    err_code rc = holding_new(&h, taken, o, e);
    if (rc != ERR_OK) return rc;
    const gguf *g = holding_source(h);
    model *m = mem_zalloc(sizeof *m);
    if (!m) {
        holding_free(h);
        return err_nomem(e, "a model");
    }
    m->hold = h;
    m->memory = arena_new(MODEL_MEMORY_MAX);
    rc = m->memory ? find_arch(m, g, e) : err_nomem(e, "a model");
    if (rc == ERR_OK) rc = holding_vocab(h, &m->vocab, e);
    if (rc == ERR_OK) {
        m->hp.n_vocab = vocab_size(m->vocab);
        if (m->hp.n_vocab < 1 || m->hp.n_vocab > MODEL_VOCAB_MAX)
            rc = err_set(e, ERR_INVALID, "%s: a vocabulary of %u tokens; it must be 1 to %u", gguf_path(g),
                         m->hp.n_vocab, MODEL_VOCAB_MAX);
    }
    if (rc == ERR_OK) rc = read_template(m, g, e);
    m->hp.kv_half = has_quantised(g);
    if (rc == ERR_OK) rc = m->arch->load(m, g, e);
    if (rc == ERR_OK) rc = read_facts(m, g, e);
    if (rc == ERR_OK) rc = holding_start(h, e);
    if (rc == ERR_OK)
        *out = m;
    else
        model_free(m);
    return rc;
}

err_code model_open_with(model **out, const char *path, const model_options *o, err *e) {
    gguf *g = NULL;
    *out = NULL;
    err_code rc = gguf_open(&g, path, e);
    return rc == ERR_OK ? open_from(out, g, o, e) : rc;
}

err_code model_open(model **out, const char *path, err *e) {
    return model_open_with(out, path, NULL, e);
}

err_code model_open_memory(model **out, const void *p, size_t n, const char *name, err *e) {
    gguf *g = NULL;
    *out = NULL;
    err_code rc = gguf_open_memory(&g, p, n, name, e);
    return rc == ERR_OK ? open_from(out, g, NULL, e) : rc;
}

err_code model_wait(const model *m, err *e) {
    return holding_wait(m->hold, e);
}
void model_settle(const model *m) {
    holding_settle(m->hold);
}
void model_get_memory(const model *m, model_memory *out) {
    holding_memory(m->hold, out);
}

err_code model_take(model *m, void *out_pointer, size_t n, size_t size_bytes, err *e) {
    size_t bytes;
    void *p = NULL;
    if (!__builtin_mul_overflow(n, size_bytes, &bytes)) p = arena_alloc(m->memory, bytes ? bytes : 1);
    if (!p) return err_nomem(e, "a model");
    memcpy(out_pointer, &p, sizeof p); /* any kind of pointer */
    return ERR_OK;
}

err_code model_take_ones(model *m, float **out, uint32_t n, err *e) {
    err_code rc = model_take(m, out, n, sizeof **out, e);
    for (uint32_t i = 0; rc == ERR_OK && i < n; i++) (*out)[i] = 1;
    return rc;
}

err_code model_take_turned(model *m, const float **out, const float *w, uint32_t rows, uint32_t cols, err *e) {
    float *turned = NULL;
    err_code rc = model_take(m, &turned, (size_t)rows * cols, sizeof *turned, e);
    if (rc != ERR_OK) return rc;
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) turned[c * rows + r] = w[r * cols + c];
    *out = turned;
    return ERR_OK;
}

void model_free(model *m) {
    if (!m) return;
    for (size_t i = 0; i < m->owned.n_matrices; i++) matrix_free(m->owned.matrices[i]);
    mem_free(m->owned.matrices);
    holding_free(m->hold);
    arena_free(m->memory);
    token_trie_free(m->trie);
    vocab_free(m->vocab);
    chat_template_free(m->tmpl);
    mem_free(m->tmpl_error);
    mem_free(m);
}

const vocab *model_vocab(const model *m) {
    return m->vocab;
}
const model_facts *model_get_facts(const model *m) {
    return &m->facts;
}
const chat_template *model_template(const model *m) {
    return m->tmpl;
}
const char *model_template_error(const model *m) {
    return m->tmpl_error;
}

/* ---- tokenizer -------------------------------------------------------------------------------------------- */

err_code model_tokenize(const model *m, const char *text, size_t len, int flags, size_t max_tokens, int32_t **out,
                        size_t *n, err *e) {
    return vocab_encode(m->vocab, text, len, flags, max_tokens, out, n, e);
}

void model_token_bytes(const model *m, int32_t id, bool show_special, buf *out) {
    vocab_token_bytes(m->vocab, id, show_special, out);
}

bool model_token_is_end(const model *m, int32_t id) {
    return vocab_is_end(m->vocab, id);
}
int32_t model_token_bos(const model *m) {
    return vocab_bos(m->vocab);
}
int32_t model_token_eos(const model *m) {
    return vocab_eos(m->vocab);
}
