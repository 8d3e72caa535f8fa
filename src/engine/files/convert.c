/* A folder to a file: config.json, family, keys, plan, data. */
#include "engine/files/convert.h"

#include "engine/files/quantize.h"

#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CONFIG_MAX ((size_t)8 << 20)

err_code convert_note(convert *c, err *e, const char *fmt, ...) {
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    cJSON *s = cJSON_CreateString(text);
    if (s && cJSON_AddItemToArray(c->notes, s)) return ERR_OK;
    cJSON_Delete(s);
    return err_nomem(e, "a report");
}

/* ---- config.json ------------------------------------------------------------------------------------------ */

static err_code read_config(convert *c, err *e) {
    char path[4096];
    buf text = {.max = CONFIG_MAX};
    err_code rc = path_join(path, sizeof path, e, c->dir, "config.json");
    if (!rc && !file_exists(path))
        rc = err_set(e, ERR_NOT_FOUND,
                     "%s: has no config.json, which says what its tensors are; take the whole folder of the model",
                     c->dir);
    if (!rc) rc = file_read(&text, path, e);
    if (!rc) rc = json_parse(&c->config, buf_str(&text), text.len, path, e);
    if (!rc && !cJSON_IsObject(c->config)) rc = err_set(e, ERR_INVALID, "%s: is not a JSON object", path);
    buf_free(&text);
    if (rc) return rc;
    c->text = json_get(c->config, "text_config");
    if (!cJSON_IsObject(c->text)) c->text = json_get(c->config, "language_config");
    if (!cJSON_IsObject(c->text)) c->text = c->config;
    return ERR_OK;
}

static const convert_family *family_by_name(const char *name) {
    for (const convert_family *const *f = convert_families; *f; f++)
        for (size_t i = 0; i < 6 && (*f)->hf[i]; i++)
            if (strcmp((*f)->hf[i], name) == 0) return *f;
    return NULL;
}

static err_code find_family(convert *c, err *e) {
    const cJSON *list = json_get(c->config, "architectures"), *v = NULL;
    if (!cJSON_GetArraySize(list)) list = json_get(c->text, "architectures");
    cJSON_ArrayForEach(v, list) {
        if (cJSON_IsString(v) && !c->family) c->family = family_by_name(v->valuestring);
    }
    if (c->family) return ERR_OK;
    v = list ? list->child : NULL;
    buf known = {.max = 2048};
    for (const convert_family *const *f = convert_families; *f; f++)
        for (size_t i = 0; i < 6 && (*f)->hf[i]; i++) buf_printf(&known, "%s%s", known.len ? ", " : "", (*f)->hf[i]);
    err_code rc = err_set(e, ERR_UNSUPPORTED,
                          "%s/config.json: the architecture \"%.80s\" is not one that polder converts; known are %s",
                          c->dir, cJSON_IsString(v) ? v->valuestring : "", buf_str(&known));
    buf_free(&known);
    return rc;
}

/* How the checkpoint's own weights are quantised. */
static err_code read_quantisation(convert *c, err *e) {
    const cJSON *q = json_get(c->config, "quantization_config");
    if (!q) q = json_get(c->text, "quantization_config");
    const cJSON *method = json_get(q, "quant_method"), *block = json_get(q, "weight_block_size");
    c->fp8_block[0] = c->fp8_block[1] = 128;
    if (!q) return ERR_OK;
    const char *name = cJSON_IsString(method) ? method->valuestring : "";
    if (strcmp(name, "mxfp4") == 0) return ERR_OK;
    if (strcmp(name, "fp8") != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s/config.json: quant_method \"%.40s\" is not converted; polder takes plain weights, fp8 and "
                       "mxfp4: look for the model in one of them, or as GGUF",
                       c->dir, name);
    for (int i = 0; i < 2 && block; i++) {
        const cJSON *n = cJSON_GetArrayItem(block, i);
        if (!cJSON_IsNumber(n) || !(n->valuedouble >= 1 && n->valuedouble <= 65536))
            return err_set(e, ERR_INVALID, "%s/config.json: weight_block_size is not two sizes", c->dir);
        c->fp8_block[i] = (uint64_t)n->valuedouble;
    }
    return ERR_OK;
}

/* ---- keys ------------------------------------------------------------------------------------------------- */

static uint32_t file_type(const convert *c) {
    uint64_t n[3] = {0};
    if (c->mix) return mix_file_type(c->mix);
    for (size_t i = 0; i < c->n_outs; i++) {
        const out_tensor *t = &c->outs[i];
        uint64_t size = t->rows * t->cols * t->outer;
        n[t->type == TT_F16 ? 1 : t->type == TT_BF16 ? 2 : 0] += t->n_dims > 1 ? size : 0;
        if (t->mx_blocks) return 38;
    }
    if (n[2] > n[1] && n[2] > n[0]) return 32;
    return n[1] > n[0] ? 1 : 0;
}

static err_code write_keys(convert *c, err *e) {
    gguf_put_text(c->w, "general.architecture", c->family->arch);
    gguf_put_text(c->w, "general.type", "model");
    gguf_put_u32(c->w, "general.file_type", file_type(c));
    gguf_put_u32(c->w, "general.quantization_version", 2);
    char *licence = files_card_licence(c->dir);
    if (licence) gguf_put_text(c->w, "general.license", licence);
    mem_free(licence);
    err_code rc = c->family->keys(c, e);
    if (!rc) rc = convert_common_keys(c, e);
    return rc ? rc : convert_tokenizer_keys(c, e);
}

/* ---- all -------------------------------------------------------------------------------------------------- */

static err_code prepare(convert *c, err *e) {
    err_code rc;
    if (c->o->type && !(c->mix = mix_find(c->o->type)))
        return err_set(e, ERR_USAGE, "type \"%.40s\" is not known; known are %s", c->o->type, mix_names());
    if ((rc = read_config(c, e)) || (rc = find_family(c, e)) || (rc = read_quantisation(c, e)) ||
        (rc = convert_sizes(c, e)) || (rc = st_open_folder(&c->set, c->dir, e)) || (rc = gguf_writer_new(&c->w, e)))
        return rc;
    return ERR_OK;
}

static err_code run(convert *c, const char *out, err *e) {
    err_code rc = prepare(c, e);
    if (!rc) rc = convert_plan(c, e);
    if (!rc) rc = write_keys(c, e);
    for (size_t i = 0; i < c->n_outs && !rc; i++) {
        const out_tensor *t = &c->outs[i];
        gguf_put_tensor(c->w, t->name, strlen(t->name), t->type, t->n_dims, t->dims);
    }
    if (!rc) rc = gguf_writer_begin(c->w, out, e);
    if (!rc) rc = convert_write_data(c, e);
    return rc ? rc : gguf_writer_finish(c->w, e);
}

err_code convert_folder(const char *dir, const char *out, const model_file_options *o, cJSON *report, err *e) {
    convert c = {.dir = dir, .o = o, .written = {.max = 1 << 16}};
    c.notes = cJSON_AddArrayToObject(report, "notes");
    if (!c.notes) return err_nomem(e, "a report");
    err_code rc = run(&c, out, e);
    if (!rc) rc = files_describe(report, out, e);
    for (size_t i = 0; i < c.n_outs; i++) out_tensor_free(&c.outs[i]);
    mem_free(c.outs);
    mem_free(c.used);
    buf_free(&c.written);
    gguf_writer_free(c.w);
    st_free(c.set);
    cJSON_Delete(c.config);
    return rc;
}
