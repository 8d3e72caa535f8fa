/* For tests: the logits of one prompt computed in every way there is, a digest each.
 *
 *   whole      the prompt in one step (in steps of 512 where it is longer), alone, one thread
 *   c1 … c512  in chunks of so many tokens
 *   +1 … +15   in steps together with so many other sequences
 *   cold       as a sequence that looked for a kept prefix and found none
 *   hot        as one that begins with the pages which another sequence has left
 *   disk       as one that begins with pages which a file brought from another session
 *   t1 … t5    with so many threads
 *
 * hot and disk give no rows for what they did not compute: their digest is of the rows from `tail` on, and so is that
 * of "tail", which is of the whole prompt otherwise. */
#ifndef POLDER_TESTS_IDENTITY_H
#define POLDER_TESTS_IDENTITY_H

#include "oracle.h"

#include "base/mem.h"

#define IDENTITY_COLUMNS   15
#define IDENTITY_TOKENS    600
#define IDENTITY_NEIGHBOUR 16

static const char *const identity_columns[IDENTITY_COLUMNS] = {
    "whole", "tail", "c1", "c7", "c64", "c512", "+1", "+3", "+15", "cold", "hot", "disk", "t1", "t2", "t5"};

typedef enum way_kind { WAY_PLAIN, WAY_TAIL, WAY_COLD, WAY_HOT, WAY_DISK } way_kind;

typedef struct way {
    way_kind kind;
    uint32_t chunk, neighbours, threads;
} way;

static const way identity_ways[IDENTITY_COLUMNS] = {
    {WAY_PLAIN, 512, 0, 1}, {WAY_TAIL, 512, 0, 1},  {WAY_PLAIN, 1, 0, 1},  {WAY_PLAIN, 7, 0, 1},
    {WAY_PLAIN, 64, 0, 1},  {WAY_PLAIN, 512, 0, 2}, {WAY_PLAIN, 50, 1, 1}, {WAY_PLAIN, 40, 3, 1},
    {WAY_PLAIN, 30, 15, 2}, {WAY_COLD, 100, 0, 1},  {WAY_HOT, 100, 0, 1},  {WAY_DISK, 100, 0, 1},
    {WAY_PLAIN, 128, 0, 1}, {WAY_PLAIN, 128, 0, 2}, {WAY_PLAIN, 128, 0, 5}};

typedef struct prompt_case {
    const model *m;
    int32_t tokens[IDENTITY_TOKENS];
    uint32_t n, tail;
    const char *dir; /* for the file of kept prefixes */
    kv_format kv;
} prompt_case;

static const uint8_t identity_space[32] = {1, 2, 3}, identity_model[32] = {4, 5, 6};

/* The prompts of tokens.txt again and again, each time begun at another place, as far as the model reads. */
static inline bool prompt_case_load(prompt_case *p, const model *m, const char *folder, uint32_t most) {
    int32_t given[256];
    size_t n = load_prompt(given, 256, folder, 1);
    uint32_t context = model_get_facts(m)->n_ctx_train;
    p->m = m;
    p->n = most < IDENTITY_TOKENS ? most : IDENTITY_TOKENS;
    if (p->n > context) p->n = context;
    for (uint32_t i = 0; n && i < p->n; i++) p->tokens[i] = given[(i + i / n * 7) % n];
    p->tail = (p->n - 1) / SESSION_PAGE * SESSION_PAGE;
    return n > 0;
}

/* One step: the prompt's tokens [at, at + n), and the neighbours', which read it from other places on. */
static inline err_code identity_step(const prompt_case *p, session *s, const way *w, const int *seqs, uint32_t at,
                                     uint32_t n, const float **rows, err *e) {
    static int32_t room[IDENTITY_NEIGHBOUR][512];
    chunk c[IDENTITY_NEIGHBOUR];
    uint32_t place = at % (w->neighbours + 1); /* its place among them changes */
    for (uint32_t i = 0; i <= w->neighbours; i++) {
        uint32_t turn = i == place ? 0 : 11 * (i + 1);
        for (uint32_t k = 0; k < n; k++) room[i][k] = p->tokens[(at + k + turn) % p->n];
        int seq = i == place ? seqs[0] : i == 0 ? seqs[place] : seqs[i];
        c[i] = (chunk){.seq = seq, .tokens = room[i], .n = n, .n_logits = i == place ? n : 1};
    }
    err_code rc = session_step(s, c, w->neighbours + 1, e);
    *rows = c[place].logits;
    return rc;
}

/* Positions [from, n) of sequence 0; rows from `digest_from` on go into the digest (NULL: none). */
static inline err_code identity_run(const prompt_case *p, session *s, const way *w, const int *seqs, uint32_t from,
                                    uint32_t digest_from, sha256 *h, err *e) {
    err_code rc = ERR_OK;
    for (uint32_t at = from; at < p->n && !rc;) {
        const float *rows;
        uint32_t n = p->n - at < w->chunk ? p->n - at : w->chunk;
        if (!w->neighbours && !model_get_facts(p->m)->encoder) n = session_seq_cut(s, seqs[0], n);
        rc = identity_step(p, s, w, seqs, at, n, &rows, e);
        uint32_t skip = at < digest_from ? digest_from - at : 0;
        if (!rc && h && skip < n)
            sha256_update(h, rows + (size_t)skip * session_width(s),
                          (size_t)(n - skip) * session_width(s) * sizeof *rows);
        at += n;
    }
    return rc;
}

static inline err_code identity_session(const prompt_case *p, const way *w, session **s, err *e) {
    uint32_t n_seq = w->neighbours + 1, pages = (p->n + SESSION_PAGE - 1) / SESSION_PAGE + 1;
    bool keeps = w->kind >= WAY_COLD;
    session_options o = {.n_threads = w->threads,
                         .n_seq_max = keeps ? 2 : n_seq,
                         .kv = p->kv,
                         .max_step_tokens = w->chunk * n_seq > 512 ? w->chunk * n_seq : 512,
                         .kv_positions = keeps ? 4 * pages * SESSION_PAGE : 0,
                         .keep_positions = keeps ? 4 * pages * SESSION_PAGE : 0,
                         .keep_state_bytes = keeps ? 256u << 20 : 0};
    if (model_get_facts(p->m)->encoder && o.max_step_tokens < p->n) o.max_step_tokens = p->n;
    return session_new(s, p->m, &o, e);
}

/* A sequence that has read the prompt and left it to others. */
static inline err_code identity_leave(const prompt_case *p, session *s, const way *w, err *e) {
    uint32_t reused;
    int seq[IDENTITY_NEIGHBOUR];
    err_code rc = session_seq_new_with(s, seq, identity_space, p->tokens, p->n, &reused, e);
    if (!rc) rc = identity_run(p, s, w, seq, reused, 0, NULL, e);
    if (!rc) session_seq_keep(s, seq[0], identity_space, p->tokens, p->n);
    if (!rc) session_seq_free(s, seq[0]);
    return rc;
}

/* The kept prefixes of one session in another. */
static inline err_code identity_by_file(const prompt_case *p, session **s, const way *w, err *e) {
    char path[300];
    snprintf(path, sizeof path, "%s/kept", p->dir);
    err_code rc = session_kept_save_file(*s, identity_model, path, e);
    session_free(*s);
    *s = NULL;
    if (!rc) rc = identity_session(p, w, s, e);
    if (!rc) rc = session_kept_load_file(*s, identity_model, path, e);
    unlink(path);
    return rc;
}

static inline err_code identity_kept(const prompt_case *p, session **s, const way *w, uint32_t *reused, sha256 *h,
                                     err *e) {
    err_code rc = ERR_OK;
    int seq[IDENTITY_NEIGHBOUR];
    if (w->kind != WAY_COLD) rc = identity_leave(p, *s, w, e);
    if (!rc && w->kind == WAY_DISK) rc = identity_by_file(p, s, w, e);
    if (!rc) rc = session_seq_new_with(*s, seq, identity_space, p->tokens, p->n, reused, e);
    if (!rc) rc = identity_run(p, *s, w, seq, *reused, w->kind == WAY_COLD ? 0 : p->tail, h, e);
    if (!rc && w->kind != WAY_COLD && (!*reused || *reused > p->tail))
        rc = err_set(e, ERR_NO, "%u positions of a kept prompt of %u were found", *reused, p->n);
    return rc;
}

static inline err_code identity_plain(const prompt_case *p, session *s, const way *w, sha256 *h, err *e) {
    int seqs[IDENTITY_NEIGHBOUR];
    err_code rc = ERR_OK;
    for (uint32_t i = 0; i <= w->neighbours && !rc; i++) rc = session_seq_new(s, &seqs[i], e);
    return rc ? rc : identity_run(p, s, w, seqs, 0, w->kind == WAY_TAIL ? p->tail : 0, h, e);
}

/* ERR_UNSUPPORTED: the model cannot be computed that way (an encoder takes a prompt whole, and keeps nothing). */
static inline err_code identity_digest(const prompt_case *p, const way *w, uint8_t out[SHA256_LEN], err *e) {
    session *s = NULL;
    sha256 h;
    uint32_t reused = 0;
    way mine = *w;
    sha256_init(&h);
    if (model_get_facts(p->m)->encoder) {
        if (w->kind != WAY_PLAIN || (w->chunk < p->n && !w->neighbours && w->threads == 1 && w->chunk != 128))
            return err_set(e, ERR_UNSUPPORTED, "an encoder takes a prompt whole");
        mine.chunk = p->n;
    }
    err_code rc = identity_session(p, &mine, &s, e);
    if (!rc)
        rc = w->kind >= WAY_COLD ? identity_kept(p, &s, &mine, &reused, &h, e) : identity_plain(p, s, &mine, &h, e);
    sha256_final(&h, out);
    session_free(s);
    return rc;
}

/* The column that this one must equal. */
static inline int identity_reference(int column) {
    way_kind k = identity_ways[column].kind;
    return k == WAY_HOT || k == WAY_DISK || k == WAY_TAIL;
}

#endif
