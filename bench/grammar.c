/* grammar [FOLDER [MODEL.gguf]]: what following a grammar costs.
 *
 * Over the vocabulary of a folder with tokenizer.json (without one: 128,256 made-up words), a JSON document is walked
 * token by token under several grammars: the time for the mask of each token, first pass (nothing computed yet) and
 * second. With a model, tokens are drawn with and without a constraint and the two rates compared.
 *
 * The last line is the ratio; the limit is 5 % of a decode step. Exit 0 where it holds (or no model was given and the
 * masks take less than 50 us a token on the second pass). */
#include "engine/grammar/grammar.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/vocab/vocab_spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t cpu_ns(void) { /* this thread's own: machines are shared */
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const err *e) {
    fprintf(stderr, "%s\n", e->msg);
    exit(3);
}

/* ---- vocabularies ------------------------------------------------------------------------------------------- */

typedef struct words {
    const vocab *v;
    token_trie *t;
} words;

static vocab *load_vocab(const char *folder) {
    vocab_spec *s = NULL;
    vocab *v = NULL;
    err e;
    if (vocab_spec_from_folder(&s, folder, &e) != ERR_OK || vocab_build(&v, s, folder, &e) != ERR_OK) die(&e);
    vocab_spec_free(s);
    return v;
}

/* ---- documents ---------------------------------------------------------------------------------------------- */

static const char schema_record[] =
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\",\"minimum\":0,"
    "\"maximum\":150},\"email\":{\"type\":[\"string\",\"null\"],\"format\":\"email\"},\"tags\":{\"type\":\"array\","
    "\"items\":{\"type\":\"string\",\"maxLength\":40}},\"address\":{\"type\":\"object\",\"properties\":{\"street\":{"
    "\"type\":\"string\"},\"city\":{\"type\":\"string\",\"maxLength\":100},\"zip\":{\"type\":\"string\",\"pattern\":"
    "\"^[0-9]{5}$\"}},\"required\":[\"street\",\"city\",\"zip\"]},\"kind\":{\"enum\":[\"person\",\"company\",\"public "
    "body\"]},\"notes\":{\"type\":\"string\"}},\"required\":[\"name\",\"age\",\"email\",\"tags\",\"address\",\"kind\","
    "\"notes\"]}";
static const char document[] =
    "{\"name\": \"Margarethe van der Meer\", \"age\": 47, \"email\": \"m.vandermeer@example.org\", \"tags\": "
    "[\"water board\", \"Zuiderzee works\", \"\xc3\xa9tudes\"], \"address\": {\"street\": \"Prinsengracht 263-267\", "
    "\"city\": \"Amsterdam\", \"zip\": \"10165\"}, \"kind\": \"person\", \"notes\": \"She wrote: \\\"the dike "
    "holds\\\" "
    "and signed the report of the commission on the third of March; the annex lists forty pumping stations, their "
    "capacity, and who answers for each of them.\"}";

static void add_property(buf *b, int i) {
    buf_printf(b, "%s\"property_%d\":", i ? "," : "", i);
    switch (i % 5) {
    case 0: buf_puts(b, "{\"type\":\"string\"}"); break;
    case 1: buf_puts(b, "{\"type\":\"string\",\"maxLength\":200}"); break;
    case 2: buf_puts(b, "{\"type\":\"integer\",\"minimum\":0,\"maximum\":100000}"); break;
    case 3: buf_puts(b, "{\"type\":[\"number\",\"null\"]}"); break;
    default: buf_puts(b, "{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"b\",\"c\"]}}"); break;
    }
}

/* 500 properties, all of them optional: the widest sets. */
static char *wide_schema(void) {
    buf b = {.max = 1 << 20};
    buf_puts(&b, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 500; i++) add_property(&b, i);
    buf_puts(&b, "}}");
    return buf_take(&b);
}

static char *many_values(void) {
    buf b = {.max = 1 << 22};
    buf_puts(&b, "{\"enum\":[");
    for (int i = 0; i < 10000; i++)
        buf_printf(&b, "%s\"value number %d of a long list\"", i ? "," : "", i * 7919 % 10007);
    buf_puts(&b, "]}");
    return buf_take(&b);
}

/* ---- masks -------------------------------------------------------------------------------------------------- */

typedef struct pass {
    double mean_us, worst_us;
} pass;

static bool walk(constraint *c, const int32_t *ids, size_t n, pass *p) {
    uint64_t sum = 0, worst = 0;
    err e;
    for (size_t i = 0; i <= n; i++) {
        const uint64_t *mask;
        uint64_t t0 = cpu_ns();
        if (constraint_mask(c, &mask, &e) != ERR_OK) die(&e);
        if (i < n && constraint_accept(c, ids[i], &e) != ERR_OK) {
            fprintf(stderr, "token %zu of the document: %s\n", i, e.msg);
            return false;
        }
        uint64_t ns = cpu_ns() - t0;
        sum += ns;
        if (ns > worst) worst = ns;
    }
    *p = (pass){(double)sum / 1e3 / (double)(n + 1), (double)worst / 1e3};
    return true;
}

static double measure(const words *w, const char *name, const char *schema, const char *text) {
    err e;
    cJSON *s = NULL;
    grammar *g = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    pass cold = {0}, warm = {0};
    if (json_parse(&s, schema, strlen(schema), name, &e) != ERR_OK) die(&e);
    uint64_t t0 = cpu_ns();
    if (grammar_make_json_schema(&g, w->t, s, NULL, &e) != ERR_OK) die(&e);
    double compile = (double)(cpu_ns() - t0) / 1e6;
    if (vocab_encode(w->v, text, strlen(text), 0, 1 << 20, &ids, &n, &e) != ERR_OK) die(&e);
    for (int k = 0; k < 2; k++) {
        constraint *c = NULL;
        if (constraint_new(&c, g, &e) != ERR_OK) die(&e);
        if (!walk(c, ids, n, k ? &warm : &cold)) exit(3);
        constraint_facts f;
        constraint_get_facts(c, &f);
        if (k)
            printf("%-16s compiled in %6.2f ms; %3zu tokens, mask and step: first %6.1f us (worst %6.2f ms), again "
                   "%5.2f us; "
                   "%u sets, %.1f MiB\n",
                   name, compile, n, cold.mean_us, cold.worst_us / 1e3, warm.mean_us, f.n_sets,
                   (double)f.bytes / 1048576);
        constraint_free(c);
    }
    mem_free(ids);
    grammar_free(g);
    cJSON_Delete(s);
    return warm.mean_us;
}

/* ---- decoding ----------------------------------------------------------------------------------------------- */

static double decode_us(const model *m, grammar *g, int steps, double *own_us) {
    err e;
    session *s = NULL;
    sampler *smp = NULL;
    constraint *c = NULL;
    sampler_params p;
    sampler_params_default(&p);
    session_options o = {.n_seq_max = 1, .n_ctx = 1024};
    int seq = 0;
    int32_t token = 1;
    if (session_new(&s, m, &o, &e) != ERR_OK || session_seq_new(s, &seq, &e) != ERR_OK ||
        sampler_new(&smp, m, &p, &e) != ERR_OK || (g && constraint_new(&c, g, &e) != ERR_OK))
        die(&e);
    if (c) sampler_constrain(smp, c);
    uint64_t step_ns = 0, draw_ns = 0;
    for (int i = 0; i < steps; i++) {
        chunk k = {.seq = seq, .tokens = &token, .n = 1, .n_logits = 1};
        sampled out;
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        if (session_step(s, &k, 1, &e) != ERR_OK) die(&e);
        clock_gettime(CLOCK_MONOTONIC, &b);
        step_ns += (uint64_t)((b.tv_sec - a.tv_sec) * 1000000000 + (b.tv_nsec - a.tv_nsec));
        uint64_t t0 = cpu_ns();
        sampler_draw(smp, k.logits, (uint32_t)i, false, 0, NULL, &out);
        draw_ns += cpu_ns() - t0;
        if (out.token < 0) die(sampler_error(smp));
        token = out.token;
    }
    sampler_free(smp);
    session_free(s);
    *own_us = (double)draw_ns / 1e3 / steps;
    return (double)step_ns / 1e3 / steps;
}

static double ratio(const char *path) {
    err e;
    model *m = NULL;
    grammar *g = NULL;
    static const char free_text[] = "root ::= \"{\\\"text\\\": \\\"\" [^\"\\\\\\n]* \"\\\"}\"";
    if (engine_init(&e) != ERR_OK || model_open(&m, path, &e) != ERR_OK ||
        grammar_new_text(&g, m, free_text, sizeof free_text - 1, &e) != ERR_OK)
        die(&e);
    double plain = 0, bound = 0, best = 1e30, step;
    for (int round = 0; round < 3; round++) { /* the quietest round counts */
        double a = 0, b = 0;
        step = decode_us(m, NULL, 24, &a);
        step = (step + decode_us(m, g, 24, &b)) / 2;
        if (b - a >= best) continue;
        best = b - a;
        plain = step + a;
        bound = step + b;
    }
    printf("decode: %.2f ms a token, %.2f ms with a constraint (%u tokens of vocabulary)\n", plain / 1e3, bound / 1e3,
           model_get_facts(m)->n_vocab);
    grammar_free(g);
    model_free(m);
    return bound / plain - 1;
}

int main(int argc, char **argv) {
    base_init();
    bool real = argc > 1 && argv[1][0], decodes = argc > 2 && argv[2][0];
    double warm = 0;
    err e;
    if (real) {
        vocab *v = load_vocab(argv[1]);
        words w = {.v = v};
        uint64_t t0 = cpu_ns();
        if (token_trie_new(&w.t, v, &e) != ERR_OK) die(&e);
        printf("vocabulary: %u tokens, tree of %u places made in %.1f ms\n", vocab_size(v), w.t->n_places,
               (double)(cpu_ns() - t0) / 1e6);
        char *wide = wide_schema(), *values = many_values();
        warm = measure(&w, "record", schema_record, document);
        measure(&w, "any JSON", "{\"type\":\"object\"}", document);
        measure(&w, "500 properties", wide,
                "{\"property_1\": \"a text of some length, in a string with a bound\", \"property_42\": 17, "
                "\"property_250\": \"abc\", \"property_499\": [\"a\", \"b\"]}");
        measure(&w, "10,000 values", values, "\"value number 4242 of a long list\"");
        mem_free(wide);
        mem_free(values);
        token_trie_free(w.t);
        vocab_free(v);
    }
    double over = decodes ? ratio(argv[2]) : 0;
    if (decodes)
        printf("grammar overhead: %.2f %% of a decode step (limit 5 %%)\n", over * 100);
    else
        printf("grammar overhead: no model was given; %.2f us a token\n", warm);
    return over < 0.05 && warm < 50 ? 0 : 1;
}
