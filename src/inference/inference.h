/* inference: model names, the scheduler that feeds the engine, and the pipeline that every answer goes through.
 *
 * pipeline_run is the way of a request (DESIGN.md §3): identity is known → quota → the guard labels it (guard.h) → the
 * policy decides which providers may see it, and what of it → admitted is durable → candidates are tried in order, with
 * egress durable before a byte leaves → completed or failed is durable → the last event. Dialects (server) turn bytes
 * into one `request` and events into bytes; nothing here knows which dialect it serves.
 *
 * Threads: pipeline_run blocks its caller: a thread, or a fiber whose loop goes on (base/loop.h). Each loaded model has
 * one engine thread that owns its session and runs steps over all sequences (continuous batching), and a few that draw
 * tokens beside it; messages pass over bounded queues.
 *
 * Records (audit.h; all in canonical JSON)
 *   admitted   key, role, dialect, model, route, artifact, numerics, kv (how keys and values were held: "f16", "q8";
 *              absent where there was no choice: in older records, and for vectors and scores; f16 then), isa,
 *              params {temperature … max_tokens, n; seed as a decimal string; stops: how many; logit_bias: [[token,
 *              bias]]; logprobs: how many of the likeliest were asked for; parse, one_call, tool_strict, echo,
 *              ignore_end: true; grammar: {kind, sha256 over kind, a NUL and the source}}, tool_choice ("required",
 *              "function" or "strict") and tool_grammar (SHA-256 of its
 *              text, which follows from artifact, tools and choice), prompt_tokens, user (keyed hash).
 *              Contents: prompt (the text as the model reads it), prompt_tokens (ids, int32 little endian), request
 *              ({messages, tools, template_args, kept, stops, grammar} as they came), form ({tools as JSON text,
 *              tool_only, stops, grammar} as the engine got them, where values were replaced in them or a grammar was
 *              made of the tools).
 *   completed  request (seq of admitted), choices [{finish, tokens, steps, logits_sha256; tool_calls: how many;
 *              malformed_tool_call: true where one could not be read; rows: of logits that were drawn from, where the
 *              last draw came to nothing; prompt_rows and prompt_logits_sha256: of an echoed prompt whose
 *              log-probabilities were told}], prompt_tokens, completion_tokens, ms {queue,
 *              prefill, decode}. Contents, for choice a, b, … p: answer_a (of a parsed request as the model wrote it:
 *              what was read from it follows from it), tokens_a.
 *   For vectors and scores: admitted has params {inputs, dimensions, pooling} and the contents request (canonical JSON:
 *              {input} as it came, or {query, documents}), prompt_tokens (ids of all inputs, one after another) and
 *              lengths (tokens of each, int32 little endian); completed has inputs, dimensions (1 for scores),
 *              vectors_sha256 over all numbers as they were answered (float32 little endian, inputs in order), and the
 *              content vector_digests (SHA-256 of each input's, 32 bytes).
 *   failed     the same with reason (an error's name; "cancelled" where the client went) and what there was by then.
 *   Of the perimeter, in all of them: admitted has project, purpose, label (the level), flags [names], found {entity:
 *              how many}, policy (SHA-256), providers [names that the policy allows, of those the model name leads to],
 *              and the contents request (as it came, before anything was redacted) and, where something was,
 *              redactions (the mapping). Its route and the facts of the route are those of the first candidate.
 *   egress     before each attempt at a provider outside this process: request (seq of admitted), attempt (1, 2, …),
 *              purpose "answer", provider, driver, operator, country, operator_law, inside, host, model (the name
 *              there), bytes and sha256 (of the body that is sent), label, flags, pseudonymised, redacted {entity: how
 *              many}, policy. What leaves for other reasons (model.pull, oidc.jwks) has its own purpose.
 *   rerouted   before an attempt by the local engine that is not the first: request, attempt, route and its facts, and
 *              max_tokens, grammar, and the contents prompt and prompt_tokens (lengths, form).
 *   completed and failed have attempts [{provider, model, outcome: "answered", "lost" or an error's name, status,
 *              sent_bytes, received_bytes, ms; sendings where it went out twice (upstream.h)}], route (who answered),
 * attempt (which, where it was not the first), cost_eur where prices are known, and with keep_turn the content turn:
 * canonical JSON {"message": {role, content, reasoning_content, tool_calls}, "finish"} of choice 0, restored. refused
 * the policy said no before admitted: key, project, dialect, model, label, flags, found, policy, reason (an error's
 * name) and why. Its request has no other record. What a quota refuses is counted only (usage). replayed   answers were
 * derived anew (replay.h): since, through (records looked at), answers (how many there are of the local engine), others
 * (of providers), drawn, seed (decimal; which were drawn follows from it), equal, unequal, not_possible (how many),
 * first_unequal [up to 100 seqs], numerics, isa. Content: outcomes
 *              ({equal, unequal, not_possible: [seqs of admitted]}).
 *   model.imported, model.named, model.removed: model, artifact; the first with the file's facts.
 * tokens counts every token that was drawn, an end token and those of a stop string included; logits_sha256 is over
 * their rows of logits in order. Each admitted has exactly one completed or failed, unless the ledger itself failed.
 *
 * Texts of users never become special tokens of the model: prompt.h says how.
 */
#ifndef POLDER_INFERENCE_H
#define POLDER_INFERENCE_H
#if !defined(POLDER_LAYER) || POLDER_LAYER < 4 || (POLDER_LAYER == 4 && !defined(POLDER_ROOM_INFERENCE))
#error "inference/inference.h is layer 4: only inference and the rooms above it include it"
#endif

#include "data/data.h"
#include "engine/engine.h"
#include "inference/hub.h"
#include "inference/providers.h"
#include "inference/replay.h"
#include "island/island.h"

typedef struct inference inference;

/* Opens what serves requests on an island. Models load on first use, or at once by inference_load. */
err_code inference_open(inference **out, island *i, err *e);
/* Refuse new requests, let running ones finish for timeout_ms, then cancel them. */
void inference_drain(inference *inf, int64_t timeout_ms);
void inference_close(inference *inf); /* NULL is fine */
err_code inference_load(inference *inf, const char *model_name, err *e);

/* ---- model names ----------------------------------------------------------------------------------------- */

#define MODEL_NAME_MAX 64 /* [A-Za-z0-9._:/-], starting with a letter or digit */

/* `by` is who asks, for the record's field "by"; NULL: the island's owner at the command line ("local"). */
/* Import a GGUF into the store and give it a name. The file is opened and checked by the engine first; a model that
 * cannot run is not imported. Appends "model.imported". ERR_EXISTS where the name is taken by another artifact. */
err_code models_add(island *i, const identity *by, const char *path, const char *name, store_progress progress,
                    void *ctx, cJSON **out, err *e);
err_code models_list(island *i, cJSON **out, err *e); /* {"models":[{name,digest,arch,…}]} */
err_code models_show(island *i, const char *name, cJSON **out, err *e);
err_code models_verify(island *i, const char *name, cJSON **out, err *e); /* ERR_NO where the bytes differ */
err_code models_remove(island *i, const identity *by, const char *name,
                       err *e); /* the blob too where no other name uses it */
/* Path and digest of the artifact behind a name. */
err_code models_resolve(island *i, const char *name, char *path, size_t cap, uint8_t digest[SHA256_LEN], err *e);

/* ---- one request ----------------------------------------------------------------------------------------- */

#define REQUEST_CHOICES_MAX    16
#define REQUEST_STOPS_MAX      16
#define REQUEST_STOP_BYTES_MAX 256
#define EMBED_INPUTS_MAX       2048
#define EMBED_NUMBERS_MAX      (8u << 20) /* of all vectors of one answer */

/* A request for vectors instead of text; or, with a query, for how well documents answer it. */
typedef struct embed_input {
    const char *text; /* NULL: tokens, taken as they are */
    size_t len;
    const int32_t *tokens;
    size_t n_tokens;
} embed_input;

typedef struct embed_request {
    const char *query; /* NULL: vectors of the inputs; otherwise the inputs are documents, as text */
    size_t query_len;
    const embed_input *inputs;
    uint32_t n_inputs;   /* 1 to EMBED_INPUTS_MAX */
    uint32_t dimensions; /* vectors are cut to so many and scaled to length 1; 0: the model's own */
} embed_request;

/* What form an answer has to have (engine.h, constrained output). */
typedef enum grammar_kind {
    GRAMMAR_NONE,
    GRAMMAR_JSON_SCHEMA, /* source: the schema's JSON, its properties in the order in which they are to come */
    GRAMMAR_REGEX,       /* a regular expression */
    GRAMMAR_CHOICE,      /* a JSON array of strings */
    GRAMMAR_TEXT,        /* GBNF */
} grammar_kind;

/* What every dialect parses into. Strings and trees belong to the caller and live until pipeline_run returns. */
typedef struct request {
    identity who;
    const char *dialect; /* "openai.chat": goes into the record */
    const char *model;
    const char *label; /* what the caller declares (x-polder-label, metadata.polder_label): labels.h; may be NULL */
    const char *label_header; /* the same, where it came beside the body: the higher counts; may be NULL */
    const char *purpose;      /* x-polder-purpose: goes into the record; may be NULL */
    sensitivity context;      /* of what the caller's dialect brought from elsewhere (a stored turn, a document) */
    bool has_context;
    bool keep_turn;    /* the completed record keeps what the answer said in the content "turn" (below) */
    const cJSON *kept; /* what a dialect wants to find again: a member of the content "request"; may be NULL */
    /* the prompt: exactly one of */
    const cJSON *messages; /* array of {role, content, …} for the model's chat template */
    const char *text;      /* a raw prompt */
    size_t text_len;
    const int32_t *tokens; /* a prompt of token ids */
    size_t n_tokens;
    const embed_request *embed; /* vectors or scores; of the rest only `user` counts then */
    const cJSON *tools;         /* OpenAI's list, for the template and for reading calls; may be NULL */
    const cJSON *template_args; /* further variables for the template; may be NULL */
    bool parse;                 /* read the answer: reasoning and calls are events of their own (format.h) */
    bool one_call;              /* the answer ends after its first call */
    bool tool_must;             /* a call is demanded; of this tool where tool_only is not NULL */
    bool tool_strict;           /* arguments must follow the tools' schemas */
    const char *tool_only;
    const char *reasoning_effort; /* "none" to "xhigh", for the template's switch; may be NULL */
    sampler_params sampling;
    bool has_seed;      /* false: the pipeline draws a seed; it is in the record and in the outcome */
    uint32_t n_choices; /* 1 to 16; choice c samples with seed + c */
    int64_t max_tokens; /* new tokens; -1: as many as fit */
    const char *stops[REQUEST_STOPS_MAX];
    uint32_t n_stops;
    int priority; /* of the engine's queue: higher goes first and makes lower give way; 0 is usual */
    bool stream;  /* the client reads the answer as it comes */
    bool want_logprobs;
    uint32_t n_top;   /* 0 to 20 */
    bool echo;        /* the prompt's text (and log-probabilities) first */
    const char *user; /* the caller's own name for its end user; may be NULL; only a keyed hash is recorded */
    bool ignore_end;  /* go on past end-of-generation tokens (benches) */
    grammar_kind grammar;
    const char *grammar_source; /* NULL only where there is none */
    size_t grammar_len;
} request;

typedef enum event_kind {
    EV_ADMITTED, /* first, once: record and seed are known, headers may go out */
    EV_RAW,  /* only of requests that are parsed: a piece of one choice as the model wrote it, special tokens spelled
                out, with its tokens; before what was read from it */
    EV_TEXT, /* a piece of one choice's text: complete UTF-8 characters, stop strings already cut */
    EV_REASONING, /* a piece of its reasoning */
    EV_CALL,      /* a tool call begins: `text` is its name. It is over at EV_CALL_END */
    EV_CALL_ARGS, /* a piece of its arguments' JSON */
    EV_CALL_END,
    EV_CALL_DROP, /* the call that began is none: forget it; its text follows */
    EV_FINISH,    /* one choice ended: reason. After the last one comes EV_DONE */
    EV_VECTOR,    /* of an embed_request: the vector of one input, or its score (one number) */
    EV_DONE,      /* last, once: the outcome is durable; usage and its record */
} event_kind;

typedef struct token_info { /* one token of EV_TEXT, where log-probabilities were asked for */
    int32_t token;
    char text[64]; /* bytes of the token (cut at 64) */
    uint8_t n_text;
    float logprob; /* NAN: the first token of an echoed prompt has none */
    uint32_t n_top;
    struct {
        int32_t token;
        float logprob;
        char text[64];
        uint8_t n_text;
    } top[SAMPLER_TOP_MAX];
} token_info;

typedef struct event {
    event_kind kind;
    uint32_t choice;
    const char *text; /* EV_TEXT */
    size_t len;
    const token_info *tokens; /* EV_TEXT, EV_RAW: the tokens that made it; may be NULL */
    size_t n_tokens;
    uint32_t input;             /* EV_VECTOR: which one */
    const float *vector;        /* EV_VECTOR */
    uint32_t n_vector;          /* numbers in it */
    const char *reason;         /* EV_FINISH: "stop", "length" or "tool_calls"; of a provider also "content_filter" */
    const char *stop;           /* EV_FINISH: the stop string that ended it, where that is known; may be NULL */
    bool malformed;             /* EV_FINISH: a call could not be read and went out as text */
    uint64_t record;            /* EV_ADMITTED: seq of admitted; EV_DONE: seq of completed */
    uint64_t seed;              /* EV_ADMITTED */
    int64_t created_unix_s;     /* EV_ADMITTED */
    const char *fingerprint;    /* EV_ADMITTED: model digest and numerics version, short: "p3-ce45b12f4f4c"; with kv q8
                                   "p3-ce45b12f4f4c-q8" */
    const char *label;          /* EV_ADMITTED: the request's, with flags: "internal, personal" */
    const char *route;          /* EV_ADMITTED: who answers: "engine", or a provider's name */
    uint64_t prompt_tokens;     /* EV_DONE; EV_ADMITTED: where they are known by then, else 0 */
    uint64_t completion_tokens; /* EV_DONE */
    uint64_t cached_tokens;     /* EV_DONE: of the prompt, those that were not computed again */
    uint64_t reasoning_tokens;  /* EV_DONE: of the completion's */
} event;

/* Where events go, in order, on the caller's thread. A return other than ERR_OK cancels (the client has gone).
 * `gone` is asked at least every 100 ms while nothing happens; true cancels. Either may be NULL. */
typedef struct event_sink {
    void *ctx;
    err_code (*event)(void *ctx, const event *ev);
    bool (*gone)(void *ctx);
} event_sink;

/* Runs one request to its end. On ERR_OK EV_DONE was sent. Otherwise no EV_DONE was sent, a "failed" record is
 * durable where "admitted" was (unless the ledger itself failed), and e says why: ERR_NOT_FOUND (model),
 * ERR_INVALID / ERR_UNSUPPORTED (request), ERR_TOO_LONG, ERR_BUSY (queue full), ERR_CANCELLED, ERR_UNAVAILABLE
 * (ledger: nothing was answered). Text is held back until the outcome is durable only at the end: the last EV_TEXT and
 * EV_FINISH of a choice come before, EV_DONE after the completed record. An EV_VECTOR comes before it too: whoever
 * passes vectors on waits for EV_DONE. */
err_code pipeline_run(inference *inf, const request *r, const event_sink *sink, err *e);

/* Would pipeline_run refuse it before it is admitted? Nothing is recorded or answered. For a client's request that
 * becomes several: all are checked before the first is run, so that a bad one among them changes nothing. */
err_code pipeline_check(inference *inf, const request *r, const event_sink *sink, err *e);

/* Tokens of the request's prompt as the local model behind its name reads it. Nothing is answered, recorded or sent.
 * ERR_UNSUPPORTED where only providers answer under that name: they count by themselves. */
err_code pipeline_count(inference *inf, const request *r, uint64_t *n, err *e);

#endif
