/* Internal to engine: from a checkpoint in safetensors form to a GGUF file.
 *
 *   config.json ──▶ family (by "architectures") ──▶ keys          ┐
 *   safetensors ──▶ rows of the family's table ──▶ output tensors ├──▶ gguf_writer
 *   tokenizer   ──▶ vocab_spec ──▶ keys                           ┘
 *
 * A family is a table: for each tensor of the GGUF file the name of its source and an operation. It is output-driven:
 * rows are taken layer by layer in the table's order; a source that a row needs and that is not there is an error, and
 * so is a source that no row took (but those in the list of things that are left out on purpose, which the report
 * tells). Every output is a view of its sources (strides, maps of rows and columns, one elementwise edit), computed
 * chunk by chunk.
 *
 * Facts come from the models' own code in Hugging Face transformers and the GGUF names from llama.cpp.
 */
#ifndef POLDER_ENGINE_CONVERT_H
#define POLDER_ENGINE_CONVERT_H

#include "engine/files/files.h"
#include "engine/files/gguf_write.h"
#include "engine/files/safetensors.h"

#include "base/json.h"

#define CONVERT_LAYERS_MAX  1024
#define CONVERT_EXPERTS_MAX 4096

/* ---- operations of a row ---------------------------------------------------------------------------------- */

typedef enum convert_op {
    OP_COPY,
    OP_ADD_ONE,     /* w + 1: norms that are stored around 0 */
    OP_PERMUTE_Q,   /* rows of a head: halves to neighbouring pairs (rope in pairs), n_head heads */
    OP_PERMUTE_K,   /* the same, n_head_kv heads */
    OP_NEG_EXP,     /* -exp(w) */
    OP_SQUEEZE,     /* dimensions of 1 dropped */
    OP_EXPERTS,     /* "{e}" in the name: one matrix an expert, stacked */
    OP_ROWS_FIRST,  /* 3-D (E, 2 n, d): the first n rows of each */
    OP_ROWS_SECOND, /* and the second */
    OP_T,           /* 3-D: the last two dimensions change places */
    OP_T_FIRST,     /* (E, d, 2 n) transposed, the first n rows */
    OP_T_SECOND,
    OP_T_EVEN, /* (E, d, 2 n) transposed, rows 0, 2, 4 … */
    OP_T_ODD,
    OP_EVEN, /* columns 0, 2, 4 … of the last dimension */
    OP_ODD,
    OP_MXFP4,      /* NAME_blocks and NAME_scales to MXFP4 */
    OP_MXFP4_EVEN, /* rows 0, 2, 4 … of each expert */
    OP_MXFP4_ODD,
    OP_KV_B_K,      /* the part of kv_b_proj that makes keys, transposed for each head */
    OP_KV_B_V,      /* and the values' */
    OP_V_ROWS,      /* gated DeltaNet: value heads from grouped by key head to tiled; rows of the head's size */
    OP_V_ROWS_ONE,  /* one row a head */
    OP_V_COLS,      /* columns */
    OP_QKV_V_ROWS,  /* the rows behind queries and keys */
    OP_CONV_V_ROWS, /* the same with the middle dimension of 1 dropped */
    OP_V_NEG_EXP,   /* one value a head: -exp, tiled */
    OP_QKVZ_QKV,    /* qwen3next: [q k v z] by key head to q, k, v one after the other */
    OP_QKVZ_Z,
} convert_op;

enum {                   /* flags */
       ROW_OPTIONAL = 1, /* may be absent */
       ROW_F32 = 2,      /* stored as F32 whatever the source */
       ROW_HEAD = 4,     /* the output matrix: absent, or left out, where it is tied to the embeddings */
       ROW_DENSE = 8,    /* only layers of these kinds (convert_family.kind) */
       ROW_MOE = 16,
       ROW_FULL = 32,    /* full attention */
       ROW_LINEAR = 64,  /* linear attention */
       ROW_OWN_KV = 128, /* computes keys and values of its own */
       ROW_KINDS = ROW_DENSE | ROW_MOE | ROW_FULL | ROW_LINEAR | ROW_OWN_KV,
};

/* hf: after the family's prefix ("model."), "{}" is the layer, "{e}" the expert; "/" first: the name as it is. Rows
 * with "blk.{}" make a tensor a layer. Of rows with the same gguf name the first whose source is there counts. */
typedef struct convert_row {
    const char *hf, *gguf;
    convert_op op;
    unsigned flags;
} convert_row;

typedef struct convert convert;

typedef struct convert_family {
    const char *hf[6];           /* "architectures" of config.json */
    const char *arch;            /* general.architecture */
    const char *probe;           /* the source that tells the prefix: "embed_tokens.weight" */
    const char *const *prefixes; /* tried in order; NULL: the usual ones */
    bool always_tied;            /* the output matrix is the embeddings, or there is none */
    const convert_row *rows;
    size_t n_rows;
    err_code (*keys)(convert *c, err *e);               /* what convert_common_keys does not write */
    err_code (*extra)(convert *c, err *e);              /* tensors that no source has; may be NULL */
    unsigned (*kind)(const convert *c, uint32_t layer); /* ROW_* of a layer; NULL: ROW_DENSE | ROW_FULL | ROW_OWN_KV */
} convert_family;
extern const convert_family *const convert_families[]; /* ends with NULL */

/* ---- one conversion --------------------------------------------------------------------------------------- */

typedef struct out_tensor { /* an output as a view of its sources */
    char name[GGUF_NAME_MAX];
    tensor_type type;
    uint32_t n_dims;
    uint64_t dims[GGUF_DIMS_MAX];
    const st_tensor **parts;  /* one, or one an expert */
    const st_tensor **scales; /* F8: their block scales, or NULL */
    size_t n_parts;
    uint64_t outer, rows, cols; /* element (o, r, j) */
    uint64_t start, outer_stride, row_stride, col_stride;
    uint32_t *row_map, *col_map; /* r and j are looked up there first; may be NULL */
    enum { EDIT_NONE, EDIT_ADD_ONE, EDIT_NEG_EXP } edit;
    float *values; /* given numbers instead of parts */
    const st_tensor *mx_blocks, *mx_scales;
} out_tensor;

struct convert {
    const char *dir;
    const convert_family *family;
    cJSON *config;
    const cJSON *text;     /* its part about the language model */
    const cJSON *rope;     /* rope_parameters or rope_scaling (of full attention), NULL where there is none */
    const cJSON *rope_all; /* the same before a choice by kind of layer */
    st_set *set;
    uint8_t *used;
    char prefix[64];
    gguf_writer *w;
    buf written; /* the keys so far, a line each: the first to write one wins */
    out_tensor *outs;
    size_t n_outs, cap_outs;
    cJSON *notes;
    uint32_t n_layer, n_head, n_head_kv, d_model, n_vocab, n_expert;
    uint64_t fp8_block[2];
    bool tied, says_tied;
    const model_file_options *o;
    const struct mix *mix; /* NULL: as the source has them */
};

/* ---- config.json (convert_config.c) ----------------------------------------------------------------------- */

/* Of several names the first that is there (and not null). */
bool cfg_has(const convert *c, const char *key);
err_code cfg_u32(const convert *c, const char *keys, uint32_t min, uint32_t max, uint32_t *out, err *e);
err_code cfg_u32_or(const convert *c, const char *keys, uint32_t min, uint32_t max, uint32_t def, uint32_t *out,
                    err *e); /* keys: "num_experts|num_local_experts" */
err_code cfg_num_or(const convert *c, const char *keys, double def, double *out, err *e);
bool cfg_bool_or(const convert *c, const char *key, bool def);
const char *cfg_str_or(const convert *c, const char *key, const char *def);
double cfg_rope_num(const convert *c, const char *key, double def); /* of c->rope */
const char *cfg_rope_type(const convert *c);                        /* "" where there is none */

/* Keys with the architecture's name before them; nothing happens where the key was written before, so a family that
 * says otherwise than convert_common_keys comes first. */
bool key_written(const convert *c, const char *key);
void key_u32(convert *c, const char *key, uint32_t v);
void key_f32(convert *c, const char *key, double v);
void key_bool(convert *c, const char *key, bool v);
void key_text(convert *c, const char *key, const char *v);
void key_u32s(convert *c, const char *key, const uint32_t *v, size_t n);
void key_bools(convert *c, const char *key, const bool *v, size_t n);
/* Writes the key from the first of `keys` that config.json has; *out (may be NULL) gets it, or stays. */
err_code key_u32_from(convert *c, const char *key, const char *keys, uint32_t *out, err *e);

/* Sizes, heads, norms, rope and its scaling, experts: what all families have. Fills c->n_layer … */
err_code convert_sizes(convert *c, err *e);
err_code convert_common_keys(convert *c, err *e);
/* The factors of rope type llama3 as rope_freqs.weight. */
err_code convert_llama3_freqs(convert *c, err *e);

/* ---- tensors (convert_rows.c, convert_data.c) ------------------------------------------------------------- */

err_code convert_plan(convert *c, err *e);
/* A tensor of n given floats. */
err_code convert_add_values(convert *c, const char *name, const float *v, uint32_t n, err *e);
void out_tensor_free(out_tensor *t);
/* Fill in t's shape and view for a row. */
err_code convert_view(convert *c, const convert_row *row, out_tensor *t, err *e);
err_code convert_write_data(convert *c, err *e);
err_code convert_note(convert *c, err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- files around (files.c) ------------------------------------------------------------------------------- */

/* {"name", "bytes", "sha256"} of a file, appended to `files`. */
err_code files_add(cJSON *files, const char *path, const model_file_options *o, uint64_t *done, uint64_t total, err *e);
/* licence of a model card (README.md's front matter), NULL where it has none. mem_free. */
char *files_card_licence(const char *dir);
/* The folder to one file; adds arch, tensors, types, bytes and notes to the report. */
err_code convert_folder(const char *dir, const char *out, const model_file_options *o, cJSON *report, err *e);
bool files_is_folder(const char *path);
err_code files_look_gguf(const gguf *g, const model_file_options *o, cJSON **report, err *e);
err_code files_look_folder(const char *dir, const model_file_options *o, cJSON **report, err *e);
/* arch, tensors, bytes and types of a written file, into a report. */
err_code files_describe(cJSON *report, const char *path, err *e);
err_code convert_tokenizer_keys(convert *c, err *e); /* convert_tokenizer.c */

#endif
