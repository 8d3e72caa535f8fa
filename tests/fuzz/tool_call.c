/* Answers of every form of tool calls: the first byte chooses the form, the second the cut and the switches, the rest
 * is the answer; 0xff … 0xfe is a control token. Cut into other pieces the same must come out, calls must be whole
 * JSON, and literals and templates' arguments must not crash. */
#include "inference/format.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct seen {
    buf log, args;
    int last;
    bool open;
} seen;

static void on_event(void *ctx, answer_event_kind kind, const char *p, size_t n) {
    seen *s = ctx;
    bool joins = s->last == (int)kind && (kind == AE_TEXT || kind == AE_REASONING || kind == AE_ARGS);
    if (!joins) buf_putc(&s->log, (char)kind);
    if (n) buf_append(&s->log, p, n);
    s->last = (int)kind;
    if (kind == AE_CALL) {
        if (s->open || !n) abort(); /* one begins inside another, or without a name */
        buf_reset(&s->args);
    }
    if (kind == AE_ARGS && n) buf_append(&s->args, p, n);
    if ((kind == AE_ARGS || kind == AE_CALL_END || kind == AE_CALL_DROP) && !s->open) abort();
    s->open = kind == AE_CALL || (kind == AE_ARGS && s->open);
    if (kind != AE_CALL_END) return;
    cJSON *v = NULL;
    if (json_parse(&v, buf_str(&s->args), s->args.len, "arguments", NULL) != ERR_OK || !cJSON_IsObject(v)) abort();
    cJSON_Delete(v);
}

static void feed(answer_parser *p, const char *s, size_t n, size_t step) {
    for (size_t i = 0; i < n;) {
        if ((uint8_t)s[i] == 0xff) {
            const char *end = memchr(s + i, 0xfe, n - i);
            size_t k = end ? (size_t)(end - (s + i)) - 1 : n - i - 1;
            answer_parser_special(p, s + i + 1, k);
            i += k + 1 + (end != NULL);
            continue;
        }
        const char *special = memchr(s + i, 0xff, n - i);
        size_t k = special ? (size_t)(special - (s + i)) : n - i;
        if (k > step) k = step;
        answer_parser_text(p, s + i, k);
        i += k;
    }
}

static void run(const answer_format *f, const cJSON *tools, uint8_t flags, const char *s, size_t n, size_t step,
                seen *out) {
    static const char prompts[2][40] = {"<|start|>assistant", "<think>\n"};
    answer_parser *p = NULL;
    err e;
    answer_parser_options o = {.tools = flags & 1 ? NULL : tools,
                               .one_call = flags & 2,
                               .prompt = flags & 4 ? prompts[(flags >> 3) & 1] : NULL,
                               .emit = on_event,
                               .ctx = out};
    o.prompt_len = o.prompt ? strlen(o.prompt) : 0;
    *out = (seen){.log = {.max = 1 << 20}, .args = {.max = 1 << 20}, .last = -1};
    if (answer_parser_new(&p, f, &o, &e) != ERR_OK || !p) return;
    feed(p, s, n, step);
    answer_parser_end(p, flags & 16);
    buf_putc(&out->log, (char)(answer_parser_malformed(p) + 2 * answer_parser_stopped(p)));
    answer_parser_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static cJSON *tools;
    if (!tools) {
        base_init();
        tools = cJSON_Parse("[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\","
                            "\"properties\":{\"s\":{\"type\":\"string\"},\"n\":{\"type\":[\"integer\",\"null\"]}}}}}]");
    }
    if (size < 2) return 0;
    size_t n_forms = 0;
    while (answer_format_list(n_forms)) n_forms++;
    answer_format *f = NULL;
    const char *const thinks[][2] = {{"<think>", "</think>"}, {"[THINK]", "[/THINK]"}, {"<|channel>", "<channel|>"}};
    const char *const *think = thinks[(data[0] / n_forms) % 3];
    if (answer_format_named(&f, answer_format_list(data[0] % n_forms), think[0], think[1], NULL, NULL) != ERR_OK)
        return 0;
    f->strict = data[1] & 32 ? 0x3ff : 0;
    seen one, other;
    run(f, tools, data[1], (const char *)data + 2, size - 2, size, &one);
    run(f, tools, data[1], (const char *)data + 2, size - 2, 1 + data[1] % 3, &other);
    if (one.log.len != other.log.len || (one.log.len && memcmp(one.log.ptr, other.log.ptr, one.log.len) != 0)) abort();
    buf_free(&one.log);
    buf_free(&one.args);
    buf_free(&other.log);
    buf_free(&other.args);
    answer_format_free(f);
    return 0;
}
