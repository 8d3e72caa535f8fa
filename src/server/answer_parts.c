#include "server/answer_parts.h"

#include "base/json.h"
#include "base/mem.h"

static void part_free(part *one) {
    if (!one) return;
    if (one->text.ptr) mem_wipe(one->text.ptr, one->text.len);
    buf_free(&one->text);
    buf_free(&one->name);
    mem_free(one);
}

void parts_free(parts *p) {
    if (!p) return;
    for (uint32_t i = 0; i < p->n; i++) part_free(p->list[i]);
    part_free(p->call);
    mem_free(p->list);
    *p = (parts){.list = NULL};
}

static part *part_new(parts *p, part_kind kind) {
    part *one = mem_zalloc(sizeof *one);
    if (!one) {
        p->failed = true;
        return NULL;
    }
    one->kind = kind;
    buf_init(&one->text, ANSWER_BYTES_MAX);
    buf_init(&one->name, ANSWER_BYTES_MAX);
    return one;
}

/* Into the list; on failure it is gone. */
static part *add(parts *p, part *one) {
    if (one && p->n == p->cap) {
        uint32_t cap = p->cap ? 2 * p->cap : 8;
        part **more = mem_realloc(p->list, cap * sizeof *more);
        if (more) {
            p->list = more;
            p->cap = cap;
        }
    }
    if (!one || p->n == p->cap) {
        part_free(one);
        p->failed = true;
        return NULL;
    }
    one->at = p->n;
    one->of_kind = p->n_kind[one->kind]++;
    p->list[p->n++] = one;
    return one;
}

static void grow(parts *p, part *one, const event *ev) {
    if (!one || !ev->len) return;
    p->bytes += ev->len;
    buf_append(&one->text, ev->text, ev->len);
    p->failed |= one->text.failed || p->bytes > ANSWER_BYTES_MAX;
}

static void take_text(parts *p, const event *ev, part_kind kind, parts_step *s) {
    if (!ev->len) return;
    if (!p->open || p->open->kind != kind) {
        s->over = p->open;
        s->opens = p->open = add(p, part_new(p, kind));
    }
    s->grows = p->open;
    grow(p, p->open, ev);
}

static void begin_call(parts *p, const event *ev) {
    part_free(p->call); /* one that never came to its end */
    p->call = part_new(p, PART_CALL);
    if (!p->call) return;
    buf_append(&p->call->name, ev->text, ev->len);
    buf_puts(&p->call->text, "");
    p->failed |= p->call->name.failed || p->call->text.failed;
}

/* The engine's calls are good; a provider's may be anything. */
static void check_call(parts *p, part *one) {
    cJSON *v = NULL;
    if (!one->text.len) buf_puts(&one->text, "{}");
    err_code rc = json_parse(&v, buf_str(&one->text), one->text.len, "arguments", NULL);
    if (rc != ERR_OK || !cJSON_IsObject(v)) {
        buf text = {.max = ANSWER_BYTES_MAX};
        buf_printf(&text, "%s %s", buf_str(&one->name), buf_str(&one->text));
        buf_free(&one->text);
        one->text = text;
        one->kind = PART_TEXT;
    }
    p->failed |= one->text.failed || rc == ERR_NOMEM;
    cJSON_Delete(v);
}

parts_step parts_take(parts *p, const event *ev) {
    parts_step s = {.over = NULL};
    switch (ev->kind) {
    case EV_TEXT: take_text(p, ev, PART_TEXT, &s); break;
    case EV_REASONING: take_text(p, ev, PART_REASONING, &s); break;
    case EV_CALL: begin_call(p, ev); break;
    case EV_CALL_ARGS:
        grow(p, p->call, ev);
        s.waiting = true;
        break;
    case EV_CALL_END:
        if (!p->call) break;
        check_call(p, p->call);
        s.over = p->open;
        s.opens = add(p, p->call);
        s.whole = true;
        p->open = p->call = NULL;
        break;
    case EV_CALL_DROP:
    case EV_FINISH: /* cut off: it is not told */
        part_free(p->call);
        p->call = NULL;
        if (ev->kind != EV_FINISH) break;
        s.over = p->open;
        p->open = NULL;
        break;
    default: break;
    }
    return s;
}
