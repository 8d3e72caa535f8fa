/* Which type each matrix gets under a mix by name: llama.cpp's choices, so that "Q4_K_M" means what people expect.
 *
 * A mix spends more bits where errors cost most: the output matrix, values, and the way back from the feed-forward
 * part, in all layers or in the first, the last and every third between. */
#include "engine/files/quantize.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef enum mix_kind { PLAIN, K2, K3S, K3M, K3L, K4S, K4M, K5S, K5M, K6, IQ4NL, IQ4XS, Q40, Q50, MX } mix_kind;

struct mix {
    const char *name;
    tensor_type type;
    uint32_t file_type;
    mix_kind kind;
};

static const mix mixes[] = {
    {"F32", TT_F32, 0, PLAIN},        {"F16", TT_F16, 1, PLAIN},    {"BF16", TT_BF16, 32, PLAIN},
    {"Q8_0", TT_Q8_0, 7, PLAIN},      {"Q6_K", TT_Q6_K, 18, K6},    {"Q5_K_M", TT_Q5_K, 17, K5M},
    {"Q5_K_S", TT_Q5_K, 16, K5S},     {"Q5_1", TT_Q5_1, 9, PLAIN},  {"Q5_0", TT_Q5_0, 8, Q50},
    {"Q4_K_M", TT_Q4_K, 15, K4M},     {"Q4_K_S", TT_Q4_K, 14, K4S}, {"IQ4_NL", TT_IQ4_NL, 25, IQ4NL},
    {"IQ4_XS", TT_IQ4_XS, 30, IQ4XS}, {"Q4_1", TT_Q4_1, 3, PLAIN},  {"Q4_0", TT_Q4_0, 2, Q40},
    {"Q3_K_L", TT_Q3_K, 13, K3L},     {"Q3_K_M", TT_Q3_K, 12, K3M}, {"Q3_K_S", TT_Q3_K, 11, K3S},
    {"Q2_K", TT_Q2_K, 10, K2},        {"MXFP4", TT_MXFP4, 38, MX},
};
/* other names for them */
static const struct {
    const char *name, *means;
} also[] = {{"Q5_K", "Q5_K_M"}, {"Q4_K", "Q4_K_M"}, {"Q3_K", "Q3_K_M"}, {"MXFP4_MOE", "MXFP4"}};

const mix *mix_find(const char *name) {
    for (size_t i = 0; i < sizeof also / sizeof *also; i++)
        if (strcasecmp(name, also[i].name) == 0) name = also[i].means;
    for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++)
        if (strcasecmp(name, mixes[i].name) == 0) return &mixes[i];
    return NULL;
}
const char *mix_names(void) {
    return "F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S, IQ4_NL, IQ4_XS, Q4_1, Q4_0, "
           "Q3_K_L, "
           "Q3_K_M, Q3_K_S, Q2_K, MXFP4";
}
uint32_t mix_file_type(const mix *m) {
    return m->file_type;
}
const char *mix_name(const mix *m) {
    return m->name;
}

/* ---- choosing --------------------------------------------------------------------------------------------- */

typedef struct tensor_place {
    char name[GGUF_NAME_MAX + 1];
    const char *tail; /* behind "blk.N." */
    uint32_t layer;
    bool in_layer;
} tensor_place;

static void locate(tensor_place *p, const gguf_tensor *t) {
    *p = (tensor_place){0};
    size_t n = t->name.len < GGUF_NAME_MAX ? t->name.len : GGUF_NAME_MAX;
    memcpy(p->name, t->name.ptr, n);
    p->tail = p->name;
    if (strncmp(p->name, "blk.", 4) != 0) return;
    char *end;
    unsigned long layer = strtoul(p->name + 4, &end, 10);
    p->in_layer = *end == '.';
    p->layer = (uint32_t)layer;
    if (p->in_layer) p->tail = end + 1;
}

static bool is(const tensor_place *p, const char *name) {
    return strcmp(p->tail, name) == 0;
}
static bool ends(const char *s, const char *end) {
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

/* What stays as it is: small, or so sensitive that it would cost more than it saves. */
static bool keeps(const gguf_tensor *t, const tensor_place *p) {
    static const char *const names[] = {"position_embd.weight", "token_types.weight", "per_layer_model_proj.weight"};
    static const char *const tails[] = {"ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "ssm_conv1d.weight",
                                        "inp_gate.weight", "proj.weight"};
    if (t->n_dims < 2 || !ends(p->name, ".weight") || ends(p->name, "_norm.weight")) return true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(p->name, names[i]) == 0) return true;
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++)
        if (p->in_layer && is(p, tails[i])) return true;
    return false;
}

/* The first eighth, the last eighth, and every third layer between. */
static bool more_bits(uint32_t i, uint32_t n) {
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static tensor_type for_output(const mix_model *mm) {
    switch (mm->m->kind) {
    case PLAIN: return mm->m->type;
    case MX: return TT_Q8_0;
    default: return TT_Q6_K;
    }
}

static tensor_type for_values(const mix_model *mm, uint32_t i) {
    mix_kind k = mm->m->kind;
    tensor_type t = mm->m->type;
    if (k == K2) t = mm->n_gqa >= 4 ? TT_Q4_K : TT_Q3_K;
    if (k == K3M) t = i < 2 ? TT_Q5_K : TT_Q4_K;
    if (k == K3L) t = TT_Q5_K;
    if ((k == IQ4NL || k == IQ4XS) && mm->n_gqa >= 4) t = TT_Q5_K;
    if ((k == K4M || k == K5M) && more_bits(i, mm->n_layer)) t = TT_Q6_K;
    if (k == K4S && i < 4) t = TT_Q5_K;
    if (mm->n_layer == 80 && mm->n_gqa >= 8 && (t == TT_Q3_K || t == TT_Q4_K)) t = TT_Q5_K;
    return mm->n_expert == 8 && k != PLAIN ? TT_Q8_0 : t;
}

static tensor_type for_down(const mix_model *mm, uint32_t i) {
    uint32_t n = mm->n_layer;
    tensor_type t = mm->m->type;
    switch (mm->m->kind) {
    case K2: return TT_Q3_K;
    case K3M: return i < n / 16 ? TT_Q5_K : TT_Q4_K;
    case K3L: return TT_Q5_K;
    case K4M:
    case K5M: return more_bits(i, n) ? TT_Q6_K : t;
    case K4S: return i < n / 8 ? TT_Q5_K : t;
    case IQ4NL:
    case IQ4XS: return i < n / 8 && !mm->has_imatrix ? TT_Q5_K : t;
    case Q40: return i < n / 8 && mm->has_imatrix ? TT_Q4_1 : t;
    case Q50: return i < n / 8 && mm->has_imatrix ? TT_Q5_1 : t;
    default: return t;
    }
}

static tensor_type for_attn_output(const mix_model *mm) {
    mix_kind k = mm->m->kind;
    tensor_type t = mm->m->type;
    if (mm->n_expert == 8) {
        bool small = k == K2 || k == K3S || k == K3M || k == K4S || k == K4M || k == IQ4NL || k == IQ4XS;
        return small ? TT_Q5_K : t;
    }
    return k == K2 ? TT_Q3_K : k == K3M ? TT_Q4_K : k == K3L ? TT_Q5_K : t;
}

static tensor_type for_qkv(const mix_model *mm) {
    mix_kind k = mm->m->kind;
    return k == K3M || k == K3L ? TT_Q4_K : k == K4M ? TT_Q5_K : k == K5M ? TT_Q6_K : mm->m->type;
}

static tensor_type wish(const mix_model *mm, const tensor_place *p) {
    tensor_type t = mm->m->type;
    if (strcmp(p->name, mm->has_output ? "output.weight" : "token_embd.weight") == 0) return for_output(mm);
    if (mm->m->kind == MX) return p->in_layer && strstr(p->tail, "_exps.") ? t : TT_Q8_0;
    if (!p->in_layer || mm->m->kind == PLAIN) return t;
    if (is(p, "attn_v.weight") || is(p, "attn_v_b.weight")) return for_values(mm, p->layer);
    if (is(p, "attn_k.weight") && mm->n_expert == 8) return TT_Q8_0;
    if (is(p, "attn_output.weight")) return for_attn_output(mm);
    if (is(p, "attn_qkv.weight")) return for_qkv(mm);
    if (strncmp(p->tail, "ffn_down", 8) == 0) return for_down(mm, p->layer);
    return t;
}

/* Rows that are not whole blocks take the next type that fits. */
static tensor_type fit_columns(tensor_type t, uint64_t cols) {
    if (cols % 256) {
        if (t == TT_Q2_K || t == TT_Q3_K || t == TT_IQ4_XS) t = TT_IQ4_NL;
        if (t == TT_Q4_K) t = TT_Q5_0;
        if (t == TT_Q5_K) t = TT_Q5_1;
        if (t == TT_Q6_K) t = TT_Q8_0;
    }
    const tensor_type_facts *f = tensor_type_get(t);
    return cols % f->block_len ? TT_F16 : t;
}

tensor_type mix_choose(const mix_model *mm, const gguf_tensor *t) {
    tensor_place p;
    locate(&p, t);
    if (keeps(t, &p)) return t->type;
    return fit_columns(wish(mm, &p), t->dims[0]);
}
