/* engine: from model file and tokens to logits and text. Knows nothing of HTTP, people, policy or the island.
 *
 * Ownership: every `*_open`/`*_new` is paired with `*_free`; pointers handed out belong to the object they come
 * from unless said otherwise. A `model` is immutable after model_open and shared by all threads. A `session` (KV
 * memory, sequences, worker threads) and a `sampler` are used by one thread at a time.
 *
 * Numerics contract (DESIGN.md §4): the logits of a position depend on the model's bytes, the tokens before it, the
 * session's kv_format and POLDER_NUMERICS, on nothing else: not on batch, chunking, neighbours, threads or the
 * instruction set.
 */
#ifndef POLDER_ENGINE_H
#define POLDER_ENGINE_H
#if !defined(POLDER_LAYER) || POLDER_LAYER < 1 || (POLDER_LAYER == 1 && !defined(POLDER_ROOM_ENGINE))
#error "engine/engine.h is layer 1: only engine and the rooms above it include it"
#endif

#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"
#include "engine/files/files.h"
#include "engine/limits.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

/* The version of every result that this code computes. Any change of any bit bumps it. */
#define POLDER_NUMERICS 3

/* Which kernel set runs: the best one the CPU has, or what POLDER_ISA (scalar, avx2, avx512, neon) names. engine_init
 * reads both once; ERR_USAGE where POLDER_ISA names a set that is unknown or that this CPU or this build lacks. */
err_code engine_init(err *e);
const char *engine_isa(void); /* "scalar", "avx2", "avx512", "neon" */

/* ---- models ---------------------------------------------------------------------------------------------- */

typedef struct model model;

/* What a model's file says becomes of the rows of a sequence (key ARCH.pooling_type). */
typedef enum pooling {
    POOLING_ABSENT, /* nothing is said: a model that generates */
    POOLING_NONE,   /* rows stay rows */
    POOLING_MEAN,
    POOLING_FIRST, /* the row of the first token ("cls") */
    POOLING_LAST,
    POOLING_RANK, /* a score: how well a document answers a query */
} pooling;
const char *pooling_name(pooling p); /* "mean"; "" for POOLING_ABSENT */

/* How a session holds keys and values. It is part of what a result is: other bits come from each. */
typedef enum kv_format {
    KV_F16, /* binary16; of a model all of whose weights are floats, binary32 */
    KV_Q8,  /* int8 in blocks of 32 with a binary16 scale each (kernels/kv8.h): about half of the memory */
} kv_format;
#define KV_FORMATS 2
const char *kv_format_name(kv_format f);                /* "f16", "q8" */
bool kv_format_parse(kv_format *out, const char *name); /* false: there is none of that name */

typedef struct model_facts {
    char arch[32];      /* "llama" */
    char name[128];     /* general.name, sanitised; may be empty */
    char quant[32];     /* the type that holds most weight bytes: "Q4_K" */
    char tokenizer[48]; /* "spm", "bpe/llama-bpe" */
    uint64_t n_params;
    uint64_t file_bytes;
    uint64_t step_weights; /* weights that a decoded token is multiplied with: of experts only those that are chosen */
    uint64_t step_bytes;   /* what they take in the file: decoding cannot pass memory bandwidth over this */
    uint32_t n_vocab, n_layer, n_ctx_train, d_model, n_head, n_head_kv;
    uint64_t kv_bytes[KV_FORMATS]; /* KV memory of one position */
    uint64_t state_bytes;          /* memory of a sequence besides (recurrent layers); 0 for most */
    bool encoder;                  /* not causal: for embeddings and ranking only */
    pooling pooling;
    bool has_template;
} model_facts;

/* Maps and checks a GGUF file: every count, offset, type and string before use. ERR_INVALID (malformed),
 * ERR_UNSUPPORTED (architecture, tensor type, tokenizer not known: names it and those known), before weights are
 * taken into memory. */
err_code model_open(model **out, const char *path, err *e);
void model_free(model *m); /* NULL is fine; no session may be left */
const model_facts *model_get_facts(const model *m);

/* The same with the weights' packed form kept in a file, so that a second start packs nothing (packfile.h says what
 * stands in it, docs/decisions/0007-speed.md, "Loading", what is promised).
 *
 * The file at cache_path belongs to the bytes of `path`: one of other bytes or of another layout, a damaged or a torn
 * one is passed over with a line in the log and made anew. Where it cannot be written (full disk) the model runs
 * without. A thread of the model's own checks what was mapped, moves it into 2 MiB pages, or writes the file; nothing
 * of that can be seen in a result: the first session_step waits until all weights are checked, and where they do not
 * have their checksums, for as long as it takes to pack them from the source. */
typedef struct model_options {
    const char *cache_path;       /* NULL: none */
    const uint8_t *source_sha256; /* (32) the digest that the file must have, else ERR_CORRUPT; NULL: not looked at.
                                     Hashed unless the cache was made from a file with this digest and the file's size,
                                     times and inode are still those that it had then */
    bool verify;                  /* hash the source whatever the cache says, and pack from it without reading the cache
                                     (or writing one) */
    unsigned n_threads;           /* for packing and checking; 0: all CPUs this process may use */
} model_options;
err_code model_open_with(model **out, const char *path, const model_options *o, err *e);
/* Wait until nothing goes on in the background: weights checked, in 2 MiB pages where there are some, cache written. */
void model_settle(const model *m);

typedef struct model_memory {
    uint64_t weights_bytes; /* packed matrices and vectors */
    uint64_t mapped_bytes;  /* of these, still in the cache's mapping: the kernel can drop and read them again */
    uint64_t vocab_bytes;   /* tokenizer's tables */
    bool from_cache;        /* this model was opened from its cache */
    bool checked;           /* the weights have their checksums */
    bool huge;              /* all weights were moved to, or packed into, memory that asks for 2 MiB pages */
    uint32_t mended;        /* times that weights were packed again since they did not have their checksum */
} model_memory;
void model_get_memory(const model *m, model_memory *out);

/* ---- tokenizer ------------------------------------------------------------------------------------------- */

enum {
    TOK_ADD_SPECIAL = 1,   /* BOS/EOS as the model's file says */
    TOK_PARSE_SPECIAL = 2, /* text like <|eot_id|> becomes the special token; off for what users write */
};
/* Token ids of text: *out (mem_free by the caller) and *n. At most max_tokens, else ERR_TOO_LONG. Any bytes are
 * accepted; broken UTF-8 is encoded byte by byte where the vocabulary can. Linear in time up to a log factor. */
err_code model_tokenize(const model *m, const char *text, size_t len, int flags, size_t max_tokens, int32_t **out,
                        size_t *n, err *e);
/* The bytes of one token as they stand in text (special tokens: empty unless show_special). Appends. */
void model_token_bytes(const model *m, int32_t id, bool show_special, buf *out);
bool model_token_is_end(const model *m, int32_t id); /* EOS, EOT and every other end-of-generation token */
int32_t model_token_bos(const model *m);             /* -1 where none */
int32_t model_token_eos(const model *m);

/* Streaming detokenisation: feeds tokens, gives bytes, never half a UTF-8 character. */
typedef struct detok {
    const model *m;
    char held[8];
    uint8_t n_held;
    bool at_start; /* SentencePiece: the space that was put before the text is dropped */
    bool show_special;
} detok;
void detok_init(detok *d, const model *m, bool at_start, bool show_special);
void detok_feed(detok *d, int32_t token, buf *out); /* appends only complete characters */
void detok_flush(detok *d, buf *out);               /* what is held, as U+FFFD */

/* ---- chat templates -------------------------------------------------------------------------------------- */

typedef struct chat_template chat_template;
/* Compile Jinja source. ERR_UNSUPPORTED / ERR_INVALID name construct, line and column. Immutable afterwards. */
err_code chat_template_compile(chat_template **out, const char *src, size_t len, err *e);
void chat_template_free(chat_template *t);
/* Render with the variables of `vars` (an object: messages, tools, add_generation_prompt, bos_token, …).
 * raise_exception("…") in the template is ERR_INVALID with that message. Limits: output bytes (out->max) and steps.
 * now_unix_ms feeds strftime_now. */
err_code chat_template_render(const chat_template *t, const cJSON *vars, int64_t now_unix_ms, buf *out, err *e);
/* Whether the source names the variable, like "enable_thinking": setting it can then change the text. */
bool chat_template_uses(const chat_template *t, const char *variable);
/* The source it was compiled from; *len may be NULL. It tells a family's call format by its markers. */
const char *chat_template_source(const chat_template *t, size_t *len);
/* The model's own (NULL where the file has none); compiled at model_open. A template that does not compile does
 * not stop the model from opening: model_template_error then says why (NULL otherwise). */
const chat_template *model_template(const model *m);
const char *model_template_error(const model *m);

/* ---- sessions -------------------------------------------------------------------------------------------- */

typedef struct session session;

typedef struct session_options {
    unsigned n_threads; /* 0: all CPUs this process may use */
    uint32_t n_seq_max; /* sequences at once */
    uint32_t n_ctx;     /* positions a sequence may reach; 0: the model's own */
    kv_format kv;
    uint32_t kv_positions;    /* KV memory, positions over all sequences; 0: n_seq_max * n_ctx. Taken page by page */
    uint32_t max_step_tokens; /* tokens that one step may carry; 0: 512 */
    bool hidden; /* rows out are the last layer's, normed, (d_model), instead of logits; encoders: always */
    /* What may be kept of sequences that are gone (see below). 0: nothing is; session_seq_keep then does nothing. */
    uint32_t keep_positions;   /* positions, out of kv_positions, that nobody but the kept prefixes holds */
    uint64_t keep_state_bytes; /* models with states: memory for checkpoints, beside the KV memory */
} session_options;

err_code session_new(session **out, const model *m, const session_options *o, err *e);
void session_free(session *s);
uint64_t session_bytes(const session *s); /* memory held now */
uint32_t session_n_ctx(const session *s);
uint32_t session_width(const session *s); /* floats of a row that a step gives: n_vocab, or d_model (hidden) */

/* A sequence: ERR_BUSY where n_seq_max are taken. */
err_code session_seq_new(session *s, int *seq, err *e);
void session_seq_free(session *s, int seq);
uint32_t session_seq_len(const session *s, int seq);
/* Forget positions from len on; returns the length that is left. A model with recurrent layers goes back to its last
 * checkpoint at or before len (session_seq_cut), or to 0 where there is none. */
uint32_t session_seq_truncate(session *s, int seq, uint32_t len);
uint32_t session_kv_free(const session *s); /* positions that fit without freeing a sequence */

/* ---- shared prefixes ----
 *
 * What a sequence has computed can be kept for others that begin with the same tokens. KV pages of 64 positions
 * (SESSION_PAGE) are held by a radix tree and by sequences alike; whoever begins with a kept prefix reads the same
 * pages and computes only the rest. Bits are those of computing everything (the numerics contract), so a record need
 * not say whether a prefix was found.
 *
 * 1. Nothing is shared across spaces. A space is 32 bytes that the caller makes of whoever may know of each other's
 *    prompts (project and label): that a prompt is answered sooner tells that somebody had it before.
 * 2. Tokens are compared one by one; a hash only finds where to look.
 * 3. Kept pages that no sequence holds count as free (session_kv_free): the least recently used are given up when a
 *    step needs their memory, or when there are more than keep_positions.
 * 4. Models with states (recurrent layers) can begin only where a copy of the state was made: a checkpoint. A step
 * makes one where it ends exactly at a position that session_seq_cut names. Without keep_state_bytes there are none. */
#define SESSION_PAGE 64

/* A sequence that begins with the longest kept prefix of the n tokens (whole pages, at most n - 1 tokens, so that
 * there is a row to compute): *reused positions are there already, the caller goes on with tokens[*reused]. It is as
 * session_seq_new where nothing fits. n should be the whole prompt: see session_seq_cut. */
err_code session_seq_new_with(session *s, int *seq, const uint8_t space[32], const int32_t *tokens, uint32_t n,
                              uint32_t *reused, err *e);
/* How many positions it would find. Changes nothing, not even what was used last. */
uint32_t session_kept_len(const session *s, const uint8_t space[32], const int32_t *tokens, uint32_t n);
/* Let others begin with the whole pages among the first n positions of a sequence, whose tokens these are (n is cut to
 * its length). The sequence goes on as it was. Call it when a prompt is computed, and again at the end with the answer.
 * Where memory is short less is kept, or nothing. */
void session_seq_keep(session *s, int seq, const uint8_t space[32], const int32_t *tokens, uint32_t n);
/* How many of the next n tokens (n > 0) of a prompt the next step should take, so that it ends where a checkpoint is
 * due: n itself for models without states. Checkpoints are due at regular distances, which follow from
 * keep_state_bytes, and at the last whole page of the prompt that session_seq_new_with was given. */
uint32_t session_seq_cut(const session *s, int seq, uint32_t n);
/* Forget what is kept in a space; NULL: in all. Sequences that run keep what they hold. */
void session_kept_drop(session *s, const uint8_t *space);

typedef struct kept_facts {
    uint64_t positions;   /* that the tree holds, */
    uint64_t idle;        /* that nobody else holds */
    uint64_t state_bytes; /* checkpoints, of the tree and of sequences */
} kept_facts;
kept_facts session_kept_facts(const session *s);

/* Remember where a sequence stands, and go back to there: for tokens that were only guessed. Recurrent layers: a copy
 * of the state, ERR_NOMEM where there is no memory for it. One mark a sequence; a new one replaces it; going back
 * leaves it. session_seq_rollback returns the length that is left: that of the mark, or where the sequence has
 * meanwhile been shorter than that, or has no mark, its length, unchanged. */
err_code session_seq_mark(session *s, int seq, err *e);
uint32_t session_seq_rollback(session *s, int seq);

/* Kept prefixes as bytes, for the next start. Keys and values tell as much as the prompts that they come from: the
 * caller seals them, which is why these work on functions instead of a path.
 *
 * write: all n bytes, or an error. read: exactly n bytes, or an error (ERR_INVALID where they end). */
typedef err_code session_write_fn(void *ctx, const void *p, size_t n, err *e);
typedef err_code session_read_fn(void *ctx, void *p, size_t n, err *e);
/* identity: what tells the model's bytes apart from all others (digests of its files and adapters). */
err_code session_kept_save(const session *s, const uint8_t identity[32], session_write_fn *write, void *ctx, err *e);
/* Adds to what is kept, up to the budget. ERR_UNSUPPORTED: made for another model, other numerics, another shape of
 * pages. ERR_INVALID: not such bytes. ERR_CORRUPT: damaged. What was read and checked before an error stays; nothing
 * that fails its checksum is ever used. Never a reason not to start. */
err_code session_kept_load(session *s, const uint8_t identity[32], session_read_fn *read, void *ctx, err *e);
/* The same with a file, unsealed: written beside it, synced and renamed. For a bench and for tests. */
err_code session_kept_save_file(const session *s, const uint8_t identity[32], const char *path, err *e);
err_code session_kept_load_file(session *s, const uint8_t identity[32], const char *path, err *e);

/* ---- steps ---- */

/* Part of one step: `n` tokens appended to `seq`; logits wanted for the last n_logits of them. After the step
 * `logits` points to (n_logits, session_width) floats in the session, valid until the next step. A sequence appears at
 * most once in a step. An encoder takes a sequence whole, in one step. */
typedef struct chunk {
    int seq;
    const int32_t *tokens;
    uint32_t n;
    uint32_t n_logits;
    const float *logits; /* out; NULL where n_logits is 0 */
} chunk;
/* Prompt chunks and decode tokens of any sequences mixed. On error (ERR_TOO_LONG past n_ctx, ERR_BUSY out of KV
 * pages, ERR_NOMEM, ERR_INVALID a token outside the vocabulary) no sequence has changed. */
err_code session_step(session *s, chunk *chunks, size_t n_chunks, err *e);
/* There is nothing to do for now: memory that only steps need goes back to the system until the next one. */
void session_rest(session *s);

/* ---- embeddings and ranking -------------------------------------------------------------------------------- */

/* One vector, or one score, from the rows (d_model) that a sequence has in a session with `hidden`. Pooling goes along
 * with the steps: for each chunk of n tokens at position `at` of `total`, ask for model_pool_rows rows, then give them
 * to model_pool_add. Sums run over positions in order, whatever the chunks.
 *
 *   n_logits = model_pool_rows(m, at, n, total);  step;  model_pool_add(m, v, chunk.logits, n, at, total);  …
 *   then embedding_finish(v, d_model, dimensions), or *score = model_rank(m, v).
 */
bool model_embeds(const model *m); /* the file names a pooling that makes one vector: mean, first, last */
bool model_ranks(const model *m);  /* pooling is rank, and the file has the head and the form that this needs */
uint32_t model_pool_rows(const model *m, uint32_t at, uint32_t n, uint32_t total);
void model_pool_add(const model *m, float *v /* (d_model) */, const float *rows, uint32_t n, uint32_t at,
                    uint32_t total);
/* Keep the first `dimensions` of n numbers and scale them to length 1 (zero stays zero). ERR_INTERNAL where one is not
 * finite: the model's weights are to blame. */
err_code embedding_finish(float *v, uint32_t n, uint32_t dimensions, err *e);
/* The score of a pooled row, from 0 to 1: the probability of "yes" for heads of yes and no, the sigmoid of the head's
 * output for others. Changes v. Only where model_ranks. */
err_code model_rank(const model *m, float *v /* (d_model) */, float *score, err *e);
/* Query and document as the model reads them together: around and between them what its tokenizer puts for pairs, or
 * the file's template "rerank". Nothing in either text becomes a special token. Only where model_ranks. */
err_code model_tokenize_pair(const model *m, const char *query, size_t query_len, const char *document,
                             size_t document_len, size_t max_tokens, int32_t **out, size_t *n, err *e);

/* ---- constrained output ----------------------------------------------------------------------------------- */

/* A grammar says which texts an answer may be; a constraint walks along one answer and says which tokens may come next.
 *
 * A grammar is compiled once for one model (which must outlive it), is immutable, and may be used by any thread. What
 * cannot be compiled exactly is ERR_UNSUPPORTED, what is malformed or matches no text at all is ERR_INVALID, what
 * passes a limit is ERR_TOO_LARGE; each sentence names the place (JSON pointer, line, or byte). Nothing is ever
 * approximated in the direction of "too much": every text that comes out is in the language that was asked for.
 *
 * Tokens count as the bytes that they show. Control tokens are never part of a text; they appear only where a grammar
 * names one. End tokens are allowed exactly where the text may end. */
typedef struct grammar grammar;

typedef struct schema_options {
    bool to_the_letter; /* absent `type` and absent `additionalProperties` let everything in, as the specification
                           reads; false (what people mean): properties that a schema does not name are left out, and
                           keywords of one type ask for that type */
    bool compact;       /* no white space between tokens of JSON; false: a space, or a line break with indentation */
} schema_options;

/* JSON that is valid under a schema (draft 2020-12; schema.h says which keywords and in which form values are
 * written). NULL options: all false. {"type":"object"} is any JSON object, true or {} any JSON value. */
err_code grammar_new_json_schema(grammar **out, const model *m, const cJSON *schema, const schema_options *o, err *e);
/* Texts that a regular expression matches from beginning to end (regex.h: what may be written). */
err_code grammar_new_regex(grammar **out, const model *m, const char *pattern, size_t len, err *e);
/* One of n texts. */
err_code grammar_new_choices(grammar **out, const model *m, const char *const *choices, size_t n, err *e);
/* GBNF, rule `root`:  name ::= "text" [a-z] [^x] . ( … | … ) name * + ? {m} {m,} {m,n}  # comment
 * Beyond characters there are, wherever a terminal may stand,
 *   <name>         the token of the vocabulary that is written so, brackets included (special or not), as one token
 *   <[1234]>       the token with this id;  <["[INST]"]>  the token that is written so, whatever its brackets
 *   !<name>        any one token of text, except this one; !(<a> | <b>) except these
 *   %json{ … }     JSON under this schema; %json{} any value
 *   %regex"…"      what this regular expression matches; \" and \\ as in a literal */
err_code grammar_new_text(grammar **out, const model *m, const char *text, size_t len, err *e);
grammar *grammar_hold(grammar *g); /* one more reference: one more grammar_free */
void grammar_free(grammar *g);     /* NULL is fine; constraints hold a reference of their own */

/* The state of one sequence. One thread at a time; clones share memory and belong to the same thread. */
typedef struct constraint constraint;
err_code constraint_new(constraint **out, grammar *g, err *e);
err_code constraint_clone(constraint **out, constraint *c, err *e);
void constraint_free(constraint *c);
/* Bits of the tokens that may come next (n_vocab bits, token t is bit t % 64 of word t / 64), valid until the next call
 * with this constraint or a clone. ERR_UNSUPPORTED where the vocabulary has no token that fits, ERR_TOO_LARGE where the
 * grammar is so ambiguous that following it passes a limit. */
err_code constraint_mask(constraint *c, const uint64_t **mask, err *e);
/* Take a token. ERR_INVALID, and nothing has changed, where it may not come next. */
err_code constraint_accept(constraint *c, int32_t token, err *e);
/* Take bytes of text as they are, whatever tokens they would be. As constraint_accept. */
err_code constraint_accept_bytes(constraint *c, const char *p, size_t n, err *e);
bool constraint_can_end(const constraint *c);     /* the text so far is in the language */
bool constraint_is_finished(const constraint *c); /* an end token was taken */
/* The only token that may come next, -1 where there are several (or none). */
int32_t constraint_forced(constraint *c);
/* Forget the last n of what was taken (tokens, or calls of constraint_accept_bytes). ERR_INVALID past the beginning. */
err_code constraint_rollback(constraint *c, uint32_t n, err *e);

/* ---- sampling -------------------------------------------------------------------------------------------- */

#define SAMPLER_TOP_MAX  20
#define SAMPLER_BIAS_MAX 1024

typedef struct logit_bias {
    int32_t token;
    float bias; /* -100 to 100; -100 bans */
} logit_bias;

/* Order: constraint, bias, penalties, (greedy where temperature is 0), top-k, temperature, softmax, top-p, min-p, draw.
 */
typedef struct sampler_params {
    float temperature;       /* 0 to 2; 0: the highest logit, lowest id on a tie */
    int32_t top_k;           /* 0: all */
    float top_p;             /* (0, 1]; 1: off */
    float min_p;             /* [0, 1); 0: off */
    float repeat_penalty;    /* (0, 2]; 1: off; over the last repeat_last_n tokens */
    int32_t repeat_last_n;   /* 0 to 4096 */
    float frequency_penalty; /* -2 to 2, over generated tokens */
    float presence_penalty;  /* -2 to 2, over generated tokens */
    uint64_t seed;
    uint32_t n_bias;
    const logit_bias *bias; /* copied by sampler_new */
} sampler_params;
void sampler_params_default(sampler_params *p); /* temperature 1, all else off, seed 0 */
err_code sampler_params_check(const sampler_params *p, uint32_t n_vocab, err *e);

typedef struct token_logprob {
    int32_t token;
    float logprob; /* natural log, of the model's distribution before temperature and filters */
} token_logprob;

typedef struct sampled {
    int32_t token;
    float logprob;
    uint32_t n_top;
    token_logprob top[SAMPLER_TOP_MAX]; /* highest first */
} sampled;

typedef struct sampler sampler;
err_code sampler_new(sampler **out, const model *m, const sampler_params *p, err *e);
void sampler_free(sampler *s);
/* Every token that is drawn must follow the constraint, which the sampler takes over: tokens that may not come next
 * have probability 0 before all else, and what is drawn is accepted. The draw depends on logits and mask only; the
 * reported log-probabilities stay those of the model's own distribution. Biases cannot lift the constraint: where all
 * allowed tokens are banned, the likeliest of them is taken. */
void sampler_constrain(sampler *s, constraint *c);
/* Why the last draw gave token -1: no token follows the constraint, or following it passed a limit. */
const err *sampler_error(const sampler *s);
void sampler_prompt(sampler *s, const int32_t *tokens, size_t n); /* context for the repetition penalty */
/* Draw the token at absolute position `position` of its sequence from `logits` (n_vocab floats, not changed). The
 * random number is Philox4x32-10 keyed by (seed, position). n_top (0 to 20) asks for log-probabilities; with
 * want_logprob false and n_top 0 none are computed. Notes the token as generated. `digest` (may be NULL) takes the
 * row's bytes (float32 little endian). */
void sampler_draw(sampler *s, const float *logits, uint32_t position, bool want_logprob, uint32_t n_top, sha256 *digest,
                  sampled *out);
/* Log-probabilities of a given token and the top n under a row of logits (for echo). */
void logits_logprob(const float *logits, uint32_t n_vocab, int32_t token, uint32_t n_top, sampled *out);

#endif
