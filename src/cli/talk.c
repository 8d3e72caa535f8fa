/* polder run and polder chat: one answer, or a conversation, through the pipeline. */
#include "cli/cli.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- asking: in this process, or over the control socket of a running server ---- */

struct talker {
    const char *dir;
    bool remote;
    island *i;
    inference *inf;
};

err_code talker_open(talker **out, cli *c, err *e) {
    talker *t = mem_zalloc(sizeof *t);
    if (!t) return err_nomem(e, "a conversation");
    t->dir = c->dir;
    t->remote = remote_is_up(c->dir);
    err_code rc = ERR_OK;
    if (!t->remote) {
        rc = island_open(&t->i, c->dir, ISLAND_WRITE, e);
        if (rc == ERR_OK) rc = inference_open(&t->inf, t->i, e);
    }
    if (rc) {
        talker_close(t);
        return rc;
    }
    *out = t;
    return ERR_OK;
}

void talker_close(talker *t) {
    if (!t) return;
    inference_close(t->inf);
    island_close(t->i);
    mem_free(t);
}

typedef struct local_ctx {
    const talk_sink *sink;
    uint64_t record;
} local_ctx;

static err_code local_event(void *ctx, const event *ev) {
    local_ctx *l = ctx;
    if (ev->kind == EV_ADMITTED) l->record = ev->record;
    if (ev->kind == EV_TEXT) return l->sink->text(l->sink->ctx, ev->text, ev->len);
    return ERR_OK;
}

static err_code ask_local(talker *t, const talk *what, const talk_sink *sink, uint64_t *seq, err *e) {
    request r = {.dialect = "cli", .model = what->model, .messages = what->messages, .text = what->prompt};
    r.text_len = what->prompt ? strlen(what->prompt) : 0;
    snprintf(r.who.key_id, sizeof r.who.key_id, "local");
    snprintf(r.who.name, sizeof r.who.name, "local");
    r.who.role = ROLE_ADMIN; /* whoever may write the state folder owns the island */
    sampler_params_default(&r.sampling);
    r.sampling.temperature = (float)what->temperature;
    r.sampling.seed = what->seed;
    r.has_seed = what->has_seed;
    r.n_choices = 1;
    r.max_tokens = what->max_tokens;
    local_ctx l = {.sink = sink};
    event_sink es = {.ctx = &l, .event = local_event};
    err_code rc = pipeline_run(t->inf, &r, &es, e);
    *seq = l.record;
    return rc;
}

/* Server-sent events arrive in any pieces: lines are put together, each "data: {…}" gives its text. */
typedef struct sse {
    buf line;
    const talk_sink *sink;
    bool done;
} sse;

static err_code sse_text(sse *s, const char *json, size_t n, err *e) {
    cJSON *v = NULL;
    err_code rc = json_parse(&v, json, n, "an event of the server", e);
    if (rc) return rc;
    const cJSON *error = json_get(v, "error");
    const cJSON *choice = cJSON_GetArrayItem(json_get(v, "choices"), 0);
    const char *text = NULL, *msg = "the answer broke off";
    if (error) {
        json_get_str(error, "message", &msg, NULL);
        rc = err_set(e, ERR_UNAVAILABLE, "%s", msg);
    } else if (choice) {
        const cJSON *delta = json_get(choice, "delta");
        rc = delta ? json_get_str(delta, "content", &text, e) : json_get_str(choice, "text", &text, e);
    }
    if (rc == ERR_OK && text) rc = s->sink->text(s->sink->ctx, text, strlen(text));
    cJSON_Delete(v);
    return rc;
}

static err_code sse_data(void *ctx, const char *p, size_t n, err *e) {
    sse *s = ctx;
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '\n') {
            buf_append(&s->line, p + i, 1);
            continue;
        }
        const char *line = buf_str(&s->line);
        err_code rc = buf_check(&s->line, "an event of the server", e);
        if (rc) return rc;
        if (strcmp(line, "data: [DONE]") == 0)
            s->done = true;
        else if (strncmp(line, "data: ", 6) == 0)
            rc = sse_text(s, line + 6, s->line.len - 6, e);
        buf_reset(&s->line);
        if (rc) return rc;
    }
    return ERR_OK;
}

static void write_body(buf *b, const talk *what) {
    jw w;
    jw_init(&w, b);
    jw_obj(&w);
    jw_kstr(&w, "model", what->model);
    jw_kbool(&w, "stream", true);
    jw_knum(&w, "temperature", what->temperature);
    if (what->has_seed) jw_kint(&w, "seed", (int64_t)what->seed);
    if (what->max_tokens >= 0) jw_kint(&w, "max_tokens", what->max_tokens);
    if (what->messages) {
        char *text = cJSON_PrintUnformatted(what->messages);
        jw_key(&w, "messages");
        if (text)
            jw_raw(&w, text, strlen(text));
        else
            b->failed = true;
        cJSON_free(text);
    } else {
        jw_kstr(&w, "prompt", what->prompt);
    }
    jw_obj_end(&w);
}

static err_code ask_remote(talker *t, const talk *what, const talk_sink *sink, uint64_t *seq, err *e) {
    buf body = {.max = 64u << 20};
    write_body(&body, what);
    err_code rc = buf_check(&body, "the request", e);
    sse s = {.line = {.max = 1u << 20}, .sink = sink};
    const char *path = what->messages ? "/v1/chat/completions" : "/v1/completions";
    if (rc == ERR_OK) rc = remote_post(t->dir, path, buf_str(&body), body.len, sse_data, &s, seq, e);
    if (rc == ERR_OK && !s.done) rc = err_set(e, ERR_UNAVAILABLE, "the server ended the answer before it was done");
    buf_free(&body);
    buf_free(&s.line);
    return rc;
}

err_code talker_ask(talker *t, const talk *what, const talk_sink *sink, uint64_t *seq, err *e) {
    return t->remote ? ask_remote(t, what, sink, seq, e) : ask_local(t, what, sink, seq, e);
}

/* ---- the commands ---- */

typedef struct printing { /* prints as it comes, or keeps for --json */
    bool show;
    buf all;
} printing;

static err_code print_piece(void *ctx, const char *s, size_t n) {
    printing *p = ctx;
    buf_append(&p->all, s, n);
    if (p->all.failed) return ERR_NOMEM;
    if (!p->show) return ERR_OK;
    err_code rc = cli_print_foreign(s, n, NULL);
    return rc ? rc : fflush(stdout) == 0 ? ERR_OK : ERR_IO;
}

static cJSON *add_message(cJSON *messages, const char *who, const char *content) {
    cJSON *m = cJSON_CreateObject();
    bool ok = m && cJSON_AddStringToObject(m, "role", who) && cJSON_AddStringToObject(m, "content", content) &&
              cJSON_AddItemToArray(messages, m);
    if (!ok) cJSON_Delete(m);
    return ok ? m : NULL;
}

static void talk_from_options(talk *t, const cli *c) {
    *t = (talk){.model = c->args[0], .max_tokens = cli_int(c, "max-tokens", -1)};
    t->temperature = cli_num(c, "temperature", 0.7);
    t->has_seed = cli_flag(c, "seed");
    t->seed = (uint64_t)cli_int(c, "seed", 0);
}

static err_code run_json(const talk *t, const printing *p, uint64_t seq, err *e) {
    cJSON *v = cJSON_CreateObject();
    if (!v || !cJSON_AddStringToObject(v, "model", t->model) || !cJSON_AddStringToObject(v, "text", buf_str(&p->all)) ||
        !cJSON_AddNumberToObject(v, "record", (double)seq)) {
        cJSON_Delete(v);
        return err_nomem(e, "output");
    }
    return cli_print_json(v, e);
}

static err_code run_run(cli *c, err *e) {
    talk t;
    talk_from_options(&t, c);
    buf input = {.max = 16u << 20};
    talker *k = NULL;
    cJSON *messages = cJSON_CreateArray();
    printing p = {.show = !c->json, .all = {.max = 256u << 20}};
    const char *prompt = c->n_args > 1 ? c->args[1] : NULL;
    err_code rc = messages ? ERR_OK : err_nomem(e, "a conversation");
    if (rc == ERR_OK && !prompt) {
        if (isatty(STDIN_FILENO))
            rc = err_set(e, ERR_USAGE, "polder run: give a prompt, or pipe one in");
        else
            rc = cli_read_stdin(&input, e);
        prompt = buf_str(&input);
    }
    if (rc == ERR_OK && cli_flag(c, "raw")) {
        t.prompt = prompt;
    } else if (rc == ERR_OK) {
        t.messages = messages;
        const char *system = cli_text(c, "system", NULL);
        if ((system && !add_message(messages, "system", system)) || !add_message(messages, "user", prompt))
            rc = err_nomem(e, "a conversation");
    }
    if (rc == ERR_OK) rc = talker_open(&k, c, e);
    uint64_t seq = 0;
    talk_sink sink = {.ctx = &p, .text = print_piece};
    if (rc == ERR_OK) rc = talker_ask(k, &t, &sink, &seq, e);
    if (rc == ERR_OK && c->json)
        rc = run_json(&t, &p, seq, e);
    else if (p.all.len && p.all.ptr[p.all.len - 1] != '\n')
        (void)cli_print_text("\n", 1, NULL);
    talker_close(k);
    cJSON_Delete(messages);
    buf_free(&input);
    buf_free(&p.all);
    return rc;
}

static err_code chat_turn(talker *k, talk *t, cJSON *messages, const char *line, err *e) {
    if (!add_message(messages, "user", line)) return err_nomem(e, "a conversation");
    printing p = {.show = true, .all = {.max = 256u << 20}};
    talk_sink sink = {.ctx = &p, .text = print_piece};
    uint64_t seq = 0;
    err_code rc = talker_ask(k, t, &sink, &seq, e);
    if (rc == ERR_OK && !add_message(messages, "assistant", buf_str(&p.all))) rc = err_nomem(e, "a conversation");
    if (rc == ERR_OK) {
        (void)cli_print_text("\n", 1, NULL);
        fflush(stdout);
        cli_say("  record %llu", (unsigned long long)seq);
    }
    buf_free(&p.all);
    return rc;
}

static err_code run_chat(cli *c, err *e) {
    talk t;
    talk_from_options(&t, c);
    talker *k = NULL;
    cJSON *messages = cJSON_CreateArray();
    t.messages = messages;
    const char *system = cli_text(c, "system", NULL);
    err_code rc =
        messages && (!system || add_message(messages, "system", system)) ? ERR_OK : err_nomem(e, "a conversation");
    if (rc == ERR_OK) rc = talker_open(&k, c, e);
    bool person = isatty(STDIN_FILENO);
    if (rc == ERR_OK && person) cli_say("Ask, and end with an empty line or Ctrl-D.");
    char *line = NULL;
    size_t cap = 0;
    while (rc == ERR_OK) {
        if (person) fputs("> ", stderr);
        ssize_t n = getline(&line, &cap, stdin);
        if (n <= 0) break;
        line[strcspn(line, "\r\n")] = 0;
        if (!*line) {
            if (person) break;
            continue;
        }
        rc = chat_turn(k, &t, messages, line, e);
    }
    free(line);
    talker_close(k);
    cJSON_Delete(messages);
    return rc;
}

#define TALK_OPTS                                                                                                \
    {OPT_INT, "max-tokens", "N", 1, 16777216, "most tokens of an answer (default: as many as fit)"},             \
        {OPT_NUM, "temperature", "T", 0, 2, "0: always the likeliest token (default 0.7)"},                      \
        {OPT_INT, "seed", "S", 0, 9007199254740992.0, "the same seed gives the same answer (default: drawn)"}, { \
        OPT_TEXT, "system", "TEXT", 0, 0, "a system message before the conversation"                             \
    }

const command commands_talk[] = {
    {"run",
     "NAME [PROMPT]",
     1,
     2,
     "One answer from a model; the prompt may come from stdin",
     "The prompt goes through the model's chat template; --raw continues it as it stands. The answer is a record of\n"
     "the ledger as every other is.\n\n"
     "  polder run tiny \"What is a dike?\"\n"
     "  echo \"Once upon a time\" | polder run stories --raw --temperature 0 --max-tokens 64",
     run_run,
     {TALK_OPTS, {OPT_FLAG, "raw", NULL, 0, 0, "continue the prompt without a chat template"}}},
    {"chat", "NAME", 1, 1, "A conversation with a model, one line a turn", NULL, run_chat, {TALK_OPTS}},
    {0},
};
