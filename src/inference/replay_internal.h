/* Internal to replay: what its files share. replay.c finds the records and the artifact, replay_text.c and
 * replay_embed.c derive and compare, replay_many.c draws samples and keeps their record. */
#ifndef POLDER_INFERENCE_REPLAY_INTERNAL_H
#define POLDER_INFERENCE_REPLAY_INTERNAL_H

#include "inference/internal.h"

#define REPLAY_STEP_TOKENS 512u
#define REPLAY_ROW_FLOATS  (8u << 20) /* logits that one step may give: 32 MiB */

/* A model in memory, and the session that computes with it. */
typedef struct replay_model {
    uint8_t digest[SHA256_LEN];
    model *m;
    special_set *special;
    answer_format *format;
    grammar_cache *grammars;
    session *sess; /* NULL: none yet */
    uint32_t step_tokens;
    bool hidden;
    kv_format kv;
} replay_model;

struct replayer {
    island *i;
    replay_options o;
    replay_model now; /* m is NULL where none is loaded */
};

/* One answer as the ledger has it. */
typedef struct replay_case {
    replayer *r;
    replay_report *out;
    cJSON *admitted, *ended;
    cJSON *rerouted; /* NULL: the first attempt answered */
    uint64_t facts_seq;
    const cJSON *facts; /* the record that says how it was made: admitted or rerouted */
    const cJSON *params;
    kv_format kv;    /* how keys and values were held when it was made */
    int32_t *prompt; /* of vectors: all inputs, one after another */
    size_t n_prompt;
    bool cannot; /* out->why says why */
} replay_case;

/* Makes the outcome REPLAY_NOT_POSSIBLE. Always ERR_UNSUPPORTED, for the way back. */
err_code replay_cannot(replay_case *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same for what a function says, unless the check itself could not be done. */
err_code replay_cannot_err(replay_case *x, err_code rc, err *e);
/* Makes it REPLAY_UNEQUAL, with a sentence, unless it is already. */
void replay_differs(replay_case *x, uint32_t choice, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Contents of a record. Where it cannot be opened the case is not possible. */
err_code replay_content(replay_case *x, uint64_t seq, const char *name, buf *out, err *e);
err_code replay_tokens(replay_case *x, uint64_t seq, const char *name, int32_t **out, size_t *n, err *e);
bool replay_has_content(const cJSON *rec, const char *name);
/* "hex" of `key` in o into digest. false: absent or malformed. */
bool replay_digest(const cJSON *o, const char *key, uint8_t digest[SHA256_LEN]);
uint64_t replay_u64(const cJSON *o, const char *key); /* 0 where absent */
bool replay_flag(const cJSON *o, const char *key);

/* The session for this case's model. */
err_code replay_session(replay_case *x, bool hidden, uint32_t step_tokens, err *e);
err_code replay_step(replay_case *x, chunk *c, err *e);

err_code replay_text(replay_case *x, err *e);
err_code replay_vectors(replay_case *x, err *e);

/* replay_answer.c: what the tokens of a choice say, and why it ended. */
typedef struct replay_saying {
    const request *r; /* parse, one_call, tools, stops, echo, ignore_end */
    const int32_t *prompt, *tokens;
    size_t n_prompt, n;
    const char *prompt_text;
    size_t prompt_text_len;
    uint64_t max_new;
} replay_saying;
/* *text as it was written, *finish NULL where nothing ends the answer yet. */
err_code replay_say(const replay_model *m, const replay_saying *s, buf *text, const char **finish, err *e);

#endif
