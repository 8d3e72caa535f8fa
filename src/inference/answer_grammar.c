#include "inference/answer_grammar.h"

#include "base/json.h"
#include "base/mem.h"

#include <pthread.h>
#include <string.h>

#define KEPT 16 /* grammars of one model */

typedef struct kept {
    uint8_t key[SHA256_LEN];
    grammar *g; /* NULL: empty */
    uint64_t used;
} kept;

struct grammar_cache {
    pthread_mutex_t lock;
    kept kept[KEPT];
    uint64_t clock;
};

err_code grammar_cache_new(grammar_cache **out, err *e) {
    *out = mem_zalloc(sizeof **out);
    if (!*out) return err_nomem(e, "the grammars of a model");
    pthread_mutex_init(&(*out)->lock, NULL);
    return ERR_OK;
}

void grammar_cache_free(grammar_cache *c) {
    if (!c) return;
    for (int i = 0; i < KEPT; i++) grammar_free(c->kept[i].g);
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}

grammar *grammar_cache_find(grammar_cache *c, const uint8_t key[SHA256_LEN]) {
    grammar *g = NULL;
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < KEPT && !g; i++) {
        if (!c->kept[i].g || memcmp(c->kept[i].key, key, SHA256_LEN) != 0) continue;
        g = grammar_hold(c->kept[i].g);
        c->kept[i].used = ++c->clock;
    }
    pthread_mutex_unlock(&c->lock);
    return g;
}

/* Puts it in the place of the one that has not been used for longest. */
void grammar_cache_put(grammar_cache *c, const uint8_t key[SHA256_LEN], grammar *g) {
    pthread_mutex_lock(&c->lock);
    kept *to = &c->kept[0];
    for (int i = 1; i < KEPT; i++)
        if (c->kept[i].used < to->used) to = &c->kept[i];
    grammar *old = to->g;
    memcpy(to->key, key, SHA256_LEN);
    to->g = grammar_hold(g);
    to->used = ++c->clock;
    pthread_mutex_unlock(&c->lock);
    grammar_free(old);
}

/* ---- what it is made from --------------------------------------------------------------------------------------- */

const char *answer_grammar_kind(grammar_kind kind) {
    static const char *const names[] = {[GRAMMAR_NONE] = "none",
                                        [GRAMMAR_JSON_SCHEMA] = "json_schema",
                                        [GRAMMAR_REGEX] = "regex",
                                        [GRAMMAR_CHOICE] = "choice",
                                        [GRAMMAR_TEXT] = "grammar"};
    return names[kind];
}

void answer_grammar_digest(const request *r, uint8_t out[SHA256_LEN]) {
    const char *kind = answer_grammar_kind(r->grammar);
    sha256 s;
    sha256_init(&s);
    sha256_update(&s, kind, strlen(kind) + 1);
    sha256_update(&s, r->grammar_source, r->grammar_len);
    sha256_final(&s, out);
}

/* How an answer may begin, beside reasoning. */
typedef enum opening { OPENING_NONE, OPENING_MAY_THINK, OPENING_THINKS } opening;

static bool ends_with(const char *s, size_t n, const char *mark) {
    size_t len = strlen(mark);
    while (n && (s[n - 1] == '\n' || s[n - 1] == ' ')) n--;
    return len && n >= len && memcmp(s + n - len, mark, len) == 0;
}

static opening opening_of(const answer_format *f, const request *r, const char *text, size_t n) {
    if (!f || !r->parse || !f->think_close[0]) return OPENING_NONE;
    if (ends_with(text, n, f->think_open)) return OPENING_THINKS;
    return ends_with(text, n, f->think_close) || !f->think_open[0] ? OPENING_NONE : OPENING_MAY_THINK;
}

static void put_quoted(buf *out, const char *s, size_t n) {
    buf_putc(out, '"');
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"' || s[i] == '\\') buf_putc(out, '\\');
        if (s[i] == '\n')
            buf_puts(out, "\\n");
        else
            buf_putc(out, s[i]);
    }
    buf_putc(out, '"');
}

static void put_token(buf *out, const char *mark) {
    buf_puts(out, "<[");
    put_quoted(out, mark, strlen(mark));
    buf_puts(out, "]>");
}

static err_code put_choices(const request *r, buf *out, err *e) {
    cJSON *list = NULL;
    err_code rc = json_parse(&list, r->grammar_source, r->grammar_len, "choices", e);
    const cJSON *one;
    bool first = true;
    cJSON_ArrayForEach(one, list) {
        buf_puts(out, first ? "" : " | ");
        put_quoted(out, one->valuestring ? one->valuestring : "", one->valuestring ? strlen(one->valuestring) : 0);
        first = false;
    }
    cJSON_Delete(list);
    return rc;
}

/* The text of a grammar whose rule `answer` is what was asked for. */
static err_code put_answer(const request *r, buf *out, err *e) {
    switch (r->grammar) {
    case GRAMMAR_JSON_SCHEMA:
        buf_puts(out, "%json");
        /* true and false are schemas too; allOf takes them where a brace is wanted */
        if (r->grammar_source[0] != '{') buf_puts(out, "{\"allOf\":[");
        buf_append(out, r->grammar_source, r->grammar_len);
        if (r->grammar_source[0] != '{') buf_puts(out, "]}");
        return ERR_OK;
    case GRAMMAR_REGEX:
        buf_puts(out, "%regex");
        put_quoted(out, r->grammar_source, r->grammar_len);
        return ERR_OK;
    default: return put_choices(r, out, e);
    }
}

/* With reasoning before it, everything becomes one grammar text. */
static err_code make_with_reasoning(grammar **out, const model *m, const answer_format *f, const request *r, opening o,
                                    err *e) {
    if (r->grammar == GRAMMAR_TEXT) /* whoever writes a grammar says what the whole answer is */
        return grammar_new_text(out, m, r->grammar_source, r->grammar_len, e);
    buf text = {.max = 4 * GRAMMAR_SOURCE_MAX};
    buf_puts(&text, "root ::= ");
    if (o == OPENING_MAY_THINK) {
        buf_puts(&text, "( ");
        put_token(&text, f->think_open);
    }
    buf_puts(&text, " !");
    put_token(&text, f->think_close);
    buf_puts(&text, "* ");
    put_token(&text, f->think_close);
    buf_puts(&text, " [\\n ]{0,4} ");
    buf_puts(&text, o == OPENING_MAY_THINK ? ")? answer\nanswer ::= " : "answer\nanswer ::= ");
    err_code rc = put_answer(r, &text, e);
    buf_putc(&text, '\n');
    if (!rc) rc = buf_check(&text, "a grammar", e);
    if (!rc) rc = grammar_new_text(out, m, buf_str(&text), text.len, e);
    buf_free(&text);
    return rc;
}

static err_code make_choices(grammar **out, const model *m, const cJSON *list, err *e) {
    size_t n = (size_t)cJSON_GetArraySize(list), i = 0;
    const char **choices = mem_array(n ? n : 1, sizeof *choices);
    if (!choices) return err_nomem(e, "a grammar");
    const cJSON *one;
    cJSON_ArrayForEach(one, list) choices[i++] = one->valuestring ? one->valuestring : "";
    err_code rc = grammar_new_choices(out, m, choices, n, e);
    mem_free(choices);
    return rc;
}

static err_code make_plain(grammar **out, const model *m, const request *r, err *e) {
    if (r->grammar == GRAMMAR_TEXT) return grammar_new_text(out, m, r->grammar_source, r->grammar_len, e);
    if (r->grammar == GRAMMAR_REGEX) return grammar_new_regex(out, m, r->grammar_source, r->grammar_len, e);
    cJSON *tree = NULL;
    err_code rc = json_parse(&tree, r->grammar_source, r->grammar_len, answer_grammar_kind(r->grammar), e);
    if (!rc && r->grammar == GRAMMAR_CHOICE) rc = make_choices(out, m, tree, e);
    if (!rc && r->grammar == GRAMMAR_JSON_SCHEMA) rc = grammar_new_json_schema(out, m, tree, NULL, e);
    cJSON_Delete(tree);
    return rc;
}

/* The marks have to be tokens: otherwise reasoning could not be told from the answer token by token. */
static bool marks_are_tokens(const model *m, const answer_format *f, opening o) {
    buf probe = {.max = 4096};
    buf_puts(&probe, "root ::= ");
    put_token(&probe, f->think_close);
    if (o == OPENING_MAY_THINK) put_token(&probe, f->think_open);
    grammar *g = NULL;
    bool ok = grammar_new_text(&g, m, buf_str(&probe), probe.len, NULL) == ERR_OK;
    grammar_free(g);
    buf_free(&probe);
    return ok;
}

err_code answer_grammar_get(grammar **out, grammar_cache *c, const model *m, const answer_format *f, const request *r,
                            const char *text, size_t len, err *e) {
    *out = NULL;
    if (r->grammar == GRAMMAR_NONE) return ERR_OK;
    if (r->grammar_len > GRAMMAR_SOURCE_MAX)
        return err_set(e, ERR_TOO_LARGE, "the grammar has %zu bytes, at most %u are taken", r->grammar_len,
                       GRAMMAR_SOURCE_MAX);
    if (r->ignore_end || r->echo)
        return err_set(e, ERR_INVALID, "%s cannot be asked for together with a grammar",
                       r->echo ? "echo" : "ignore_end");
    opening o = opening_of(f, r, text, len);
    uint8_t key[SHA256_LEN];
    answer_grammar_digest(r, key);
    key[0] ^= (uint8_t)o; /* the same source behind another opening is another grammar */
    *out = grammar_cache_find(c, key);
    if (*out) return ERR_OK;
    bool thinks = o != OPENING_NONE && marks_are_tokens(m, f, o);
    err_code rc = thinks ? make_with_reasoning(out, m, f, r, o, e) : make_plain(out, m, r, e);
    if (!rc) grammar_cache_put(c, key, *out);
    return rc;
}
