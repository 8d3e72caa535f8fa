/* The dialect of POST /v1/completions: a prompt that no chat template touches, or several. */
#include "server/internal.h"
#include "server/openai.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

#define DEFAULT_MAX_TOKENS 16 /* OpenAI's, where the request names none */

enum { PART_TOKENS, PART_LOGPROBS, PART_TOP, PART_OFFSETS }; /* of a choice: lists of JSON values */

/* ---- reading ----------------------------------------------------------------------------------------------- */

static err_code read_tokens(prompt *p, const cJSON *list, err *e) {
    int n = cJSON_GetArraySize(list);
    p->tokens = mem_array((size_t)n, sizeof *p->tokens);
    if (!p->tokens) return err_nomem(e, "a prompt of token ids");
    const cJSON *t;
    cJSON_ArrayForEach(t, list) {
        double d = cJSON_IsNumber(t) ? t->valuedouble : -1;
        if (!(d >= 0 && d <= INT32_MAX) || d != (double)(int32_t)d)
            return err_set(e, ERR_INVALID, "'prompt': a token id is no whole number from 0 to %d", INT32_MAX);
        p->tokens[p->n_tokens++] = (int32_t)d;
    }
    return ERR_OK;
}

static err_code read_prompt(prompt *p, const cJSON *v, err *e) {
    if (cJSON_IsString(v)) {
        p->text = v->valuestring;
        return ERR_OK;
    }
    if (cJSON_IsArray(v) && v->child && cJSON_IsNumber(v->child)) return read_tokens(p, v, e);
    return err_set(e, ERR_INVALID,
                   "'prompt' must be a string, an array of strings, of token ids, or of arrays of token ids");
}

static err_code take_prompt(answer *a, const cJSON *v, err *e) {
    bool many = cJSON_IsArray(v) && v->child && !cJSON_IsNumber(v->child);
    int n = many ? cJSON_GetArraySize(v) : 1;
    if (n > ANSWER_PROMPTS_MAX)
        return err_set(e, ERR_INVALID, "'prompt' has %d prompts, at most %d are taken", n, ANSWER_PROMPTS_MAX);
    a->prompts = mem_array((size_t)n, sizeof *a->prompts);
    if (!a->prompts) return err_nomem(e, "the prompts");
    a->n_runs = (uint32_t)n;
    if (!many) return read_prompt(&a->prompts[0], v, e);
    const cJSON *p;
    uint32_t k = 0;
    cJSON_ArrayForEach(p, v) {
        err_code rc = read_prompt(&a->prompts[k++], p, e);
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

static err_code take_echo(answer *a, const cJSON *v, err *e) {
    return json_get_bool(a->body, "echo", &a->r.echo, e);
}

static err_code take_logprobs(answer *a, const cJSON *v, err *e) {
    int64_t n = 0;
    err_code rc = openai_take_int(a, v, 0, 5, &n, e);
    a->r.want_logprobs = rc == ERR_OK;
    a->r.n_top = (uint32_t)n;
    return rc;
}

static err_code take_best_of(answer *a, const cJSON *v, err *e) {
    int64_t best = 1, n = 1;
    err_code rc = openai_take_int(a, v, 1, 20, &best, e);
    if (rc == ERR_OK) rc = json_get_int(a->body, "n", 1, REQUEST_CHOICES_MAX, &n, e);
    if (rc == ERR_OK && best != n)
        return err_set(e, ERR_UNSUPPORTED, "'best_of' is not supported unless it equals 'n'");
    return rc;
}

static const openai_field completion_fields[] = {
    {"prompt", take_prompt},
    {"echo", take_echo},
    {"logprobs", take_logprobs},
    {"best_of", take_best_of},
    {"suffix", openai_refuse_nonempty},
    {NULL, NULL},
};

static err_code completions_fault(answer *a, const char *param) {
    snprintf(a->param, sizeof a->param, "%s", param);
    return ERR_INVALID;
}

static err_code completions_parse(answer *a, err *e) {
    a->r.max_tokens = DEFAULT_MAX_TOKENS;
    err_code rc = openai_take_fields(a, completion_fields, e);
    if (rc == ERR_OK) rc = openai_check_common(a, e);
    if (rc != ERR_OK) return rc;
    if (!a->prompts) {
        err_set(e, ERR_INVALID, "'prompt' is missing");
        return completions_fault(a, "prompt");
    }
    if (a->r.max_tokens == 0 && !a->r.echo) {
        err_set(e, ERR_INVALID, "'max_tokens' must be at least 1 unless 'echo' is true");
        return completions_fault(a, "max_tokens");
    }
    return ERR_OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

static void write_head(jw *w, const answer *a) {
    char id[48];
    snprintf(id, sizeof id, "cmpl-%" PRIu64, a->record);
    jw_kstr(w, "id", id);
    jw_kstr(w, "object", "text_completion");
    jw_kint(w, "created", a->created_unix_s);
    jw_kstr(w, "model", a->r.model);
    jw_kstr(w, "system_fingerprint", a->fingerprint);
}

/* A token as a JSON string; one that is no text by itself as OpenAI writes it: "bytes:\xe2\x80". */
static void token_string(buf *out, const char *s, size_t n) {
    if (utf8_valid(s, n)) {
        json_string(out, s, n);
        return;
    }
    buf_puts(out, "\"bytes:");
    for (size_t i = 0; i < n; i++) buf_printf(out, "\\\\x%02x", (unsigned char)s[i]);
    buf_putc(out, '"');
}

static bool same_text(const token_info *t, uint32_t i, uint32_t k) {
    return t->top[i].n_text == t->top[k].n_text && memcmp(t->top[i].text, t->top[k].text, t->top[i].n_text) == 0;
}

/* {"token": logprob, …}: of tokens with the same text the likeliest, because keys are unique. */
static void top_object(buf *out, const token_info *t) {
    if (t->logprob != t->logprob) { /* the first token of an echo */
        buf_puts(out, "null");
        return;
    }
    buf_putc(out, '{');
    bool any = false;
    for (uint32_t k = 0; k < t->n_top; k++) {
        bool seen = false;
        for (uint32_t i = 0; i < k; i++) seen = seen || same_text(t, i, k);
        if (seen) continue;
        if (any) buf_putc(out, ',');
        any = true;
        token_string(out, t->top[k].text, t->top[k].n_text);
        buf_putc(out, ':');
        jw w;
        jw_init(&w, out);
        openai_logprob(&w, t->top[k].logprob);
    }
    buf_putc(out, '}');
}

static uint64_t count_chars(const char *s, size_t n) {
    uint64_t chars = 0;
    for (size_t i = 0; i < n; i++) chars += ((unsigned char)s[i] & 0xc0) != 0x80;
    return chars;
}

/* Tokens of one event, appended to four lists. Offsets count characters of the choice's text; a token that is no part
 * of it (a special token of an echoed prompt, text that a stop string cut) stands where the text around it is. */
static void add_tokens(choice *c, buf parts[ANSWER_PARTS], const event *ev) {
    uint64_t inside = 0, all = ev->text ? count_chars(ev->text, ev->len) : 0;
    for (size_t i = 0; i < ev->n_tokens; i++) {
        const token_info *t = &ev->tokens[i];
        for (int k = 0; k < ANSWER_PARTS; k++)
            if (parts[k].len) buf_putc(&parts[k], ',');
        token_string(&parts[PART_TOKENS], t->text, t->n_text);
        jw w;
        jw_init(&w, &parts[PART_LOGPROBS]);
        openai_logprob(&w, t->logprob);
        top_object(&parts[PART_TOP], t);
        buf_printf(&parts[PART_OFFSETS], "%" PRIu64, c->text_chars + (inside < all ? inside : all));
        inside += count_chars(t->text, t->n_text);
    }
    c->text_chars += all;
}

static void completions_tokens(answer *a, choice *c, const event *ev) {
    add_tokens(c, c->parts, ev);
}

static void write_list(jw *w, const char *key, const buf *b) {
    jw_key(w, key);
    jw_arr(w);
    if (b->len) jw_raw(w, b->ptr, b->len);
    jw_arr_end(w);
}

static void write_logprobs(jw *w, const answer *a, const buf parts[ANSWER_PARTS]) {
    jw_key(w, "logprobs");
    jw_obj(w);
    write_list(w, "tokens", &parts[PART_TOKENS]);
    write_list(w, "token_logprobs", &parts[PART_LOGPROBS]);
    if (a->r.n_top)
        write_list(w, "top_logprobs", &parts[PART_TOP]);
    else
        jw_kstr(w, "top_logprobs", NULL);
    write_list(w, "text_offset", &parts[PART_OFFSETS]);
    jw_obj_end(w);
}

static void write_chunk(answer *a, const event *ev, buf *out) {
    jw w;
    openai_event_begin(out);
    jw_init(&w, out);
    jw_obj(&w);
    write_head(&w, a);
    jw_key(&w, "choices");
    jw_arr(&w);
    jw_obj(&w);
    jw_kint(&w, "index", answer_choice_index(a, ev));
    jw_key(&w, "text");
    jw_strn(&w, ev->kind == EV_TEXT && ev->text ? ev->text : "", ev->kind == EV_TEXT ? ev->len : 0);
    choice *c = answer_choice(a, ev);
    if (a->r.want_logprobs && c && ev->kind == EV_TEXT && ev->n_tokens) {
        buf parts[ANSWER_PARTS];
        for (int k = 0; k < ANSWER_PARTS; k++) buf_init(&parts[k], 1u << 20);
        add_tokens(c, parts, ev);
        for (int k = 0; k < ANSWER_PARTS; k++) out->failed = out->failed || parts[k].failed;
        write_logprobs(&w, a, parts);
        for (int k = 0; k < ANSWER_PARTS; k++) buf_free(&parts[k]);
    } else {
        jw_kstr(&w, "logprobs", NULL);
    }
    jw_kstr(&w, "finish_reason", ev->kind == EV_FINISH ? ev->reason : NULL);
    jw_obj_end(&w);
    jw_arr_end(&w);
    if (a->include_usage) {
        jw_key(&w, "usage");
        jw_null(&w);
    }
    jw_obj_end(&w);
    openai_event_end(out);
}

static void write_end(answer *a, buf *out) {
    if (a->include_usage) {
        jw w;
        openai_event_begin(out);
        jw_init(&w, out);
        jw_obj(&w);
        write_head(&w, a);
        jw_key(&w, "choices");
        jw_arr(&w);
        jw_arr_end(&w);
        openai_usage(&w, a);
        jw_obj_end(&w);
        openai_event_end(out);
    }
    openai_stream_end(out);
}

static void completions_chunk(answer *a, const event *ev, buf *out) {
    switch (ev->kind) {
    case EV_ADMITTED: break;
    case EV_TEXT:
        if (ev->len || ev->n_tokens) write_chunk(a, ev, out);
        break;
    case EV_FINISH: write_chunk(a, ev, out); break;
    default: break; /* its requests are not parsed */
    case EV_DONE:
        if (a->run + 1 == a->n_runs) write_end(a, out);
        break;
    }
}

static void completions_whole(answer *a, buf *out) {
    jw w;
    jw_init(&w, out);
    jw_obj(&w);
    write_head(&w, a);
    jw_key(&w, "choices");
    jw_arr(&w);
    for (uint32_t i = 0; i < a->n_choices; i++) {
        const choice *c = &a->choices[i];
        jw_obj(&w);
        jw_kint(&w, "index", i);
        jw_key(&w, "text");
        jw_strn(&w, buf_str(&c->text), c->text.len);
        if (a->r.want_logprobs)
            write_logprobs(&w, a, c->parts);
        else
            jw_kstr(&w, "logprobs", NULL);
        jw_kstr(&w, "finish_reason", c->reason);
        jw_obj_end(&w);
    }
    jw_arr_end(&w);
    openai_usage(&w, a);
    jw_obj_end(&w);
}

const dialect dialect_openai_completions = {
    .name = "openai.completions",
    .stream_type = "text/event-stream; charset=utf-8",
    .parse = completions_parse,
    .chunk = completions_chunk,
    .tokens = completions_tokens,
    .whole = completions_whole,
    .fail = openai_fail,
};
