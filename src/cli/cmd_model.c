/* model add|pull|ls|show|verify|rm, model convert|quantize: admin operations, printed. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static cJSON *one_arg(const char *key, const char *value) {
    cJSON *o = cJSON_CreateObject();
    if (o && !cJSON_AddStringToObject(o, key, value)) {
        cJSON_Delete(o);
        return NULL;
    }
    return o;
}

static const char *text_of(const cJSON *o, const char *key) {
    const char *s = "";
    json_get_str(o, key, &s, NULL);
    return s;
}

static void print_field(const char *s, int width) {
    buf b = {.max = 8192};
    text_sanitise(&b, s, strlen(s), false);
    printf("%-*s ", width, buf_str(&b));
    buf_free(&b);
}

/* A JSON object as "key  value" lines. */
static void print_facts(const cJSON *o) {
    for (const cJSON *v = o ? o->child : NULL; v; v = v->next) {
        char number[40];
        snprintf(number, sizeof number, "%.15g", v->valuedouble);
        const char *s = cJSON_IsString(v)   ? v->valuestring
                        : cJSON_IsNumber(v) ? number
                        : cJSON_IsBool(v)   ? (cJSON_IsTrue(v) ? "yes" : "no")
                                            : "";
        if (cJSON_IsObject(v) || cJSON_IsArray(v)) continue;
        print_field(v->string, 16);
        print_field(s, 0);
        putchar('\n');
    }
}

/* Run an operation and print its result: as JSON, or by `show`. */
static err_code run_op(cli *c, const char *op, cJSON *args, void (*show)(const cJSON *), err *e) {
    cJSON *out = NULL;
    err_code rc = cli_admin(c, op, args, &out, e);
    if (rc == ERR_OK && c->json) return cli_print_json(out, e);
    if (rc == ERR_OK && show) show(out);
    cJSON_Delete(out);
    return rc;
}

static void show_model(const cJSON *o);

static err_code run_model_add(cli *c, err *e) {
    const char *name = cli_text(c, "name", NULL);
    if (!name) return err_set(e, ERR_USAGE, "polder model add: give the model a name: --name NAME");
    /* the running server may have another working directory */
    char *path = realpath(c->args[0], NULL);
    if (!path) return err_errno(e, "%s", c->args[0]);
    cJSON *args = one_arg("path", path);
    free(path);
    if (args && !cJSON_AddStringToObject(args, "name", name)) {
        cJSON_Delete(args);
        args = NULL;
    }
    cJSON *out = NULL;
    err_code rc = ERR_OK;
    if (args && !remote_is_up(c->dir)) { /* in this process there is progress to show */
        progress p;
        progress_begin(&p, "importing");
        island *i = NULL;
        rc = island_open(&i, c->dir, ISLAND_WRITE, e);
        if (rc == ERR_OK) rc = models_add(i, NULL, text_of(args, "path"), name, progress_step, &p, &out, e);
        island_close(i);
        progress_end(&p);
        cJSON_Delete(args);
    } else {
        rc = cli_admin(c, "model.add", args, &out, e);
    }
    if (rc == ERR_OK && c->json) return cli_print_json(out, e);
    if (rc == ERR_OK) show_model(out);
    cJSON_Delete(out);
    return rc;
}

/* ---- pulling ---- */

/* As progress_step, and how fast. */
static int pull_step(void *ctx, uint64_t done, uint64_t total) {
    progress *p = ctx;
    uint64_t now = time_mono_ns();
    if (!p->on || now - p->printed_ns < 200000000u || !total) return 0;
    p->printed_ns = now;
    double spent = (double)(now - p->started_ns) / 1e9, rate = spent > 0 ? (double)done / spent : 0;
    fprintf(stderr, "\r%s: %.1f of %.1f MB, %.1f MB/s, %.0f s left \033[K", p->what, (double)done / 1e6,
            (double)total / 1e6, rate / 1e6, rate > 0 ? (double)(total - done) / rate : 0);
    return 0;
}

static cJSON *pull_args(cli *c) {
    cJSON *args = one_arg("source", c->args[0]);
    static const char *const names[] = {"name", "mirror"};
    for (int i = 0; args && i < 2; i++) {
        const char *v = cli_text(c, names[i], NULL);
        if (!v || cJSON_AddStringToObject(args, names[i], v)) continue;
        cJSON_Delete(args);
        return NULL;
    }
    return args;
}

static err_code pull_here(cli *c, cJSON **out, err *e) {
    progress p;
    island *i = NULL;
    progress_begin(&p, "pulling");
    pull_options o = {.source = c->args[0],
                      .name = cli_text(c, "name", NULL),
                      .mirror = cli_text(c, "mirror", NULL),
                      .progress = pull_step,
                      .ctx = &p};
    err_code rc = island_open(&i, c->dir, ISLAND_WRITE, e);
    if (rc == ERR_OK) rc = models_pull(i, NULL, &o, out, e);
    island_close(i);
    progress_end(&p);
    return rc;
}

static err_code run_model_pull(cli *c, err *e) {
    cJSON *out = NULL;
    bool remote = remote_is_up(c->dir);
    if (remote) cli_say("the running server fetches it; this waits until it is done");
    err_code rc = remote ? cli_admin(c, "model.pull", pull_args(c), &out, e) : pull_here(c, &out, e);
    if (rc == ERR_OK && c->json) return cli_print_json(out, e);
    if (rc == ERR_OK) show_model(out);
    cJSON_Delete(out);
    return rc;
}

/* ---- files without an island ---- */

/* What was written, and what was left out. */
static void show_report(const cJSON *r) {
    const cJSON *v;
    print_facts(r);
    cJSON_ArrayForEach(v, json_get(r, "types")) {
        char text[40];
        snprintf(text, sizeof text, "%.0f tensors", v->valuedouble);
        print_field(v->string, 16);
        print_field(text, 0);
        putchar('\n');
    }
    cJSON_ArrayForEach(v, json_get(r, "files")) {
        print_field("from", 16);
        print_field(text_of(v, "sha256"), 64);
        print_field(text_of(v, "name"), 0);
        putchar('\n');
    }
    cJSON_ArrayForEach(v, json_get(r, "notes")) {
        print_field("note", 16);
        print_field(cJSON_IsString(v) ? v->valuestring : "", 0);
        putchar('\n');
    }
}

/* A model's facts, and where it came from. */
static void show_model(const cJSON *o) {
    print_facts(o);
    const cJSON *c;
    cJSON_ArrayForEach(c, json_get(o, "candidates")) {
        print_field("candidate", 16);
        print_field(text_of(c, "provider"), 0);
        print_field(text_of(c, "model"), 0);
        putchar('\n');
    }
    show_report(json_get(o, "source"));
}

static err_code file_job(cli *c, const char *what,
                         err_code (*job)(const char *, const char *, const model_file_options *, cJSON **, err *),
                         const model_file_options *options, err *e) {
    model_file_options o = *options;
    progress p;
    cJSON *report = NULL;
    progress_begin(&p, what);
    o.progress = progress_step;
    o.ctx = &p;
    err_code rc = job(c->args[0], c->args[1], &o, &report, e);
    progress_end(&p);
    if (rc == ERR_OK && c->json) return cli_print_json(report, e);
    if (rc == ERR_OK) show_report(report);
    cJSON_Delete(report);
    return rc;
}

static err_code run_model_convert(cli *c, err *e) {
    model_file_options o = {.type = cli_text(c, "type", NULL), .n_threads = (unsigned)cli_int(c, "threads", 0)};
    return file_job(c, "converting", model_file_convert, &o, e);
}

static err_code run_model_quantize(cli *c, err *e) {
    model_file_options o = {.type = cli_text(c, "type", NULL),
                            .imatrix = cli_text(c, "imatrix", NULL),
                            .requantize = cli_flag(c, "requantize"),
                            .n_threads = (unsigned)cli_int(c, "threads", 0)};
    if (!o.type) return err_set(e, ERR_USAGE, "polder model quantize: name a type: --type %s", model_file_types());
    return file_job(c, "quantising", model_file_quantize, &o, e);
}

/* ---- listing ---- */

static void show_models(const cJSON *v) {
    const cJSON *m;
    cJSON_ArrayForEach(m, json_get(v, "models")) {
        print_field(text_of(m, "name"), 20);
        print_field(text_of(m, "arch"), 10);
        print_field(text_of(m, "quant"), 8);
        print_field(text_of(m, "digest"), 0);
        const cJSON *c;
        const char *sep = "-> ";
        cJSON_ArrayForEach(c, json_get(m, "candidates")) {
            printf("%s", sep);
            print_field(text_of(c, "provider"), 0);
            print_field(text_of(c, "model"), 0);
            sep = "| ";
        }
        putchar('\n');
    }
}

static err_code run_model_ls(cli *c, err *e) {
    return run_op(c, "model.ls", cJSON_CreateObject(), show_models, e);
}
static err_code run_model_show(cli *c, err *e) {
    return run_op(c, "model.show", one_arg("name", c->args[0]), show_model, e);
}
static err_code run_model_verify(cli *c, err *e) {
    return run_op(c, "model.verify", one_arg("name", c->args[0]), print_facts, e);
}
static err_code run_model_rm(cli *c, err *e) {
    return run_op(c, "model.rm", one_arg("name", c->args[0]), NULL, e);
}

const command commands_model[] = {
    {"model add",
     "FILE|DIR --name NAME",
     1,
     1,
     "Import a model and give it the name that clients call",
     "FILE is a GGUF file, or any part of a split one (NAME-00001-of-00003.gguf): all parts are found and joined. DIR "
     "is a\n"
     "folder with config.json, tokenizer.json and safetensors files, which is converted. The result is checked, "
     "copied\n"
     "into the island's store under its SHA-256, and recorded with the digests of all files it came from and the "
     "licence\n"
     "that they state (polder model show NAME).\n"
     "\n"
     "  polder model add Qwen3-8B-Q4_K_M.gguf --name qwen3\n"
     "  polder model add ./Qwen3-8B --name qwen3",
     run_model_add,
     {{OPT_TEXT, "name", "NAME", 0, 0, "letters, digits and . _ : / -, at most 64"}}},
    {"model ls", "", 0, 0, "The model names and what is behind them", NULL, run_model_ls, {{0}}},
    {"model show", "NAME", 1, 1, "All that is known of a model", NULL, run_model_show, {{0}}},
    {"model verify",
     "NAME",
     1,
     1,
     "Whether the stored bytes are still those that were imported",
     NULL,
     run_model_verify,
     {{0}}},
    {"model rm",
     "NAME",
     1,
     1,
     "Remove a name; its bytes go with the last name that uses them",
     NULL,
     run_model_rm,
     {{0}}},
    {"model pull",
     "hf:OWNER/REPO[:FILE_OR_QUANT][@REVISION]",
     1,
     1,
     "Fetch a model from a hub or a mirror, and import it",
     "Off until the island's owner permits it: island.yaml, under models:, the line  hub: https://huggingface.co  (or "
     "a\n"
     "mirror with the same layout). Then\n"
     "\n"
     "  polder model pull hf:Qwen/Qwen3-8B                      safetensors, converted\n"
     "  polder model pull hf:bartowski/Qwen_Qwen3-8B-GGUF:Q4_K_M one GGUF of several\n"
     "  polder model pull hf:Qwen/Qwen3-8B@v1.0 --name qwen3    a branch, tag or commit\n"
     "\n"
     "Every file is compared with the digest that the hub lists; what differs is removed. An interrupted pull goes on\n"
     "where it stopped when it is asked for again. The ledger has a record before the first request goes out, and the\n"
     "model's own names hub, repository, commit, files with digests, and licence. An access token is read from the "
     "file\n"
     "models.token_file names, or from POLDER_HUB_TOKEN; HTTPS_PROXY and NO_PROXY are respected.",
     run_model_pull,
     {{OPT_TEXT, "name", "NAME", 0, 0, "what clients call it; the repository's name in lower case by default"},
      {OPT_TEXT, "mirror", "URL", 0, 0, "another hub, this once; https, or loopback"}}},
    {"model convert",
     "DIR|FILE OUT.gguf",
     2,
     2,
     "Write a safetensors folder, or a split GGUF, as one GGUF file",
     "DIR is a model's folder as it is published: config.json, tokenizer.json, model*.safetensors. Weights keep the "
     "type\n"
     "they have (F32, F16, BF16, MXFP4; FP8 becomes BF16) unless --type says otherwise. The same files always give "
     "the\n"
     "same bytes. A vision or audio tower is left out, and told. `polder model add DIR` does this by itself; convert "
     "is\n"
     "for looking at the result, or for quantising it:\n"
     "\n"
     "  polder model convert Qwen3-8B qwen3-8b.gguf\n"
     "  polder model quantize qwen3-8b.gguf qwen3-8b-q4.gguf --type Q4_K_M\n"
     "  polder model add qwen3-8b-q4.gguf --name qwen3",
     run_model_convert,
     {{OPT_TEXT, "type", "TYPE", 0, 0, "BF16, F16, F32, Q8_0, or a mix such as Q4_K_M"},
      {OPT_INT, "threads", "N", 0, 1024, "threads; 0 (default): all CPUs"}}},
    {"model quantize",
     "IN.gguf OUT.gguf --type TYPE",
     2,
     2,
     "Make a model smaller: fewer bits a weight",
     "TYPE is one tensor type for all matrices, or a mix that spends more bits where errors cost most:\n"
     "\n"
     "  Q8_0             8.5 bits a weight, hardly distinguishable from the original\n"
     "  Q6_K             6.6 bits\n"
     "  Q5_K_M, Q5_K_S   5.5 bits\n"
     "  Q4_K_M, Q4_K_S   4.5 bits: the usual choice\n"
     "  IQ4_XS, IQ4_NL   4.3 and 4.5 bits\n"
     "  Q3_K_L, _M, _S   3.4 to 4 bits\n"
     "  Q2_K             2.6 bits and more: visibly worse\n"
     "  Q4_0, Q4_1, Q5_0, Q5_1: older, fast; MXFP4: experts in 4 bits, the rest in Q8_0; F16, BF16, F32\n"
     "\n"
     "With an importance matrix (--imatrix, as llama.cpp's llama-imatrix writes them, .gguf or .dat) errors count by "
     "how\n"
     "strongly each input is used. The result does not depend on the number of threads.",
     run_model_quantize,
     {{OPT_TEXT, "type", "TYPE", 0, 0, "see above; required"},
      {OPT_TEXT, "imatrix", "FILE", 0, 0, "an importance matrix made from the same model"},
      {OPT_FLAG, "requantize", NULL, 0, 0, "take a model that is quantised already; it loses twice"},
      {OPT_INT, "threads", "N", 0, 1024, "threads; 0 (default): all CPUs"}}},
    {0},
};
