/* Saved prefixes: no bytes crash, nothing that a checksum does not vouch for is kept, and what is kept adds up. The
 * first byte picks the model (attention, latent, states) and whether checksums are put right before reading, so that
 * the fuzzer reaches what lies behind them. What breaks it: a number believed before it was checked, a page or a state
 * that is lost or used twice. */
#include "../unit/engine/kept_models.h"
#include "base/bytes.h"
#include "engine/session_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEAD   128
#define RECORD (48 + 4 * VEC_TILE)

typedef struct input {
    uint8_t *p;
    size_t n, at;
} input;

static void must(bool ok) {
    if (!ok) abort();
}

static err_code give(void *ctx, void *p, size_t n, err *e) {
    input *in = ctx;
    if (n > in->n - in->at) return err_set(e, ERR_INVALID, "it ends");
    memcpy(p, in->p + in->at, n);
    in->at += n;
    return ERR_OK;
}

/* Magic, version, model and shapes of this session, what the input says of the rest, and right checksums. */
static void put_right(const session *s, input *in) {
    static const uint32_t page_at = 48, state_at = 56;
    uint64_t page = session_page_bytes(s), state = session_state_bytes(s);
    uint32_t words[] = {1, POLDER_NUMERICS};
    if (in->n < HEAD) return;
    memcpy(in->p, "polderkv", 8);
    memcpy(in->p + 8, words, sizeof words);
    memset(in->p + 16, 7, 32);
    memcpy(in->p + page_at, &page, sizeof page);
    memcpy(in->p + state_at, &state, sizeof state);
    words[0] = VEC_TILE;
    words[1] = s->m->hp.kv_half;
    memcpy(in->p + 64, words, sizeof words);
    words[0] = s->m->hp.n_vocab;
    words[1] = s->m->hp.n_layer;
    memcpy(in->p + 72, words, sizeof words);
    memset(in->p + 88, 0, 8);
    sha256_of(in->p + 96, in->p, 96);
    uint64_t number = 1;
    for (size_t at = HEAD; in->n - at >= RECORD + page + SHA256_LEN; number++) {
        bool has_state = in->p[at + 8] == 1 && state && in->n - at >= RECORD + page + state + SHA256_LEN;
        size_t n = RECORD + page + (has_state ? state : 0);
        sha256 h;
        sha256_init(&h);
        sha256_update(&h, in->p + 96, SHA256_LEN);
        sha256_update(&h, &number, sizeof number);
        sha256_update(&h, in->p + at, n);
        sha256_final(&h, in->p + at + n);
        at += n + SHA256_LEN;
    }
}

/* Bytes as a short text of what is different from an empty file: (offset, value) pairs, so that an input of some
 * hundred bytes makes files of some records. */
static uint8_t *unfold(const session *s, const uint8_t *data, size_t size, size_t *n) {
    size_t record = RECORD + session_page_bytes(s) + session_state_bytes(s) + SHA256_LEN;
    *n = HEAD + 4 * record;
    uint8_t *p = mem_zalloc(*n);
    if (!p) return NULL;
    for (size_t i = 0; i + 4 <= size; i += 4) {
        size_t at = data[i] | (size_t)data[i + 1] << 8 | (size_t)(data[i + 2] & 3) << 16;
        if (data[i + 2] & 0x80)
            at = HEAD + (at % 8) * (record - (data[i + 2] & 0x40 ? session_state_bytes(s) : 0)) + at / 8 % RECORD;
        p[at % *n] = data[i + 3];
    }
    return p;
}

static void use(session *s) {
    static const uint8_t space[32] = {0};
    int32_t tokens[130] = {0};
    uint32_t reused;
    err e = {0};
    chunk c = {.n = 1, .n_logits = 1};
    if (session_seq_new_with(s, &c.seq, space, tokens, 130, &reused, &e) != ERR_OK) return;
    c.tokens = tokens + reused;
    must(session_step(s, &c, 1, &e) == ERR_OK && session_seq_len(s, c.seq) == reused + 1);
    session_seq_free(s, c.seq);
    session_kept_drop(s, NULL);
    must(s->tree.n == 0 && s->n_idle == 0 && s->n_free == s->n_made);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static model *models[3];
    static const uint8_t which[] = {1, 2, 3}, identity[32] = {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
                                                              7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7};
    err e = {0};
    session *s = NULL;
    if (size < 1) return 0;
    unsigned i = data[0] % 3;
    if (!models[i]) models[i] = kind_open(&kinds[which[i]]);
    must(models[i] != NULL);
    session_options o = {.n_threads = 1,
                         .n_seq_max = 1,
                         .n_ctx = 192,
                         .max_step_tokens = 8,
                         .keep_positions = 192,
                         .keep_state_bytes = 4 * (model_get_facts(models[i])->state_bytes + CHECKPOINT_HEAD)};
    must(session_new(&s, models[i], &o, &e) == ERR_OK);
    input in = {0};
    if (data[0] & 0x80) {
        in.p = unfold(s, data + 1, size - 1, &in.n);
        if (in.p) put_right(s, &in);
    } else {
        in.p = mem_alloc(size);
        in.n = size - 1;
        if (in.p) memcpy(in.p, data + 1, size - 1);
    }
    if (in.p) {
        err_code rc = session_kept_load(s, identity, give, &in, &e);
        must(rc == ERR_OK || e.msg[0]);
        use(s);
    }
    mem_free(in.p);
    session_free(s);
    return 0;
}
