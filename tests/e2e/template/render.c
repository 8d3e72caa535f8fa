/* Renders chat templates for compare.mjs: one JSON line in, {"template": "...", "vars": {...}, "now": unix ms}, one
 * JSON line out, {"ok": true, "text": "..."} or {"ok": false, "error": "...", "code": "..."}. */
#include "base/json.h"
#include "base/mem.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX ((size_t)16 << 20)

static err_code render(const cJSON *req, buf *text, err *e) {
    const char *src = NULL;
    double now = 0;
    err_code code = json_get_str(req, "template", &src, e);
    if (code == ERR_OK) code = json_get_num(req, "now", -1e15, 1e15, &now, e);
    if (code != ERR_OK) return code;
    if (!src) return err_set(e, ERR_INVALID, "the line has no template");
    chat_template *t = NULL;
    code = chat_template_compile(&t, src, strlen(src), e);
    if (code == ERR_OK) code = chat_template_render(t, json_get(req, "vars"), (int64_t)now, text, e);
    chat_template_free(t);
    return code;
}

static void answer(const char *line, size_t n) {
    err e = {0};
    cJSON *req = NULL;
    buf text = {.max = TEXT_MAX}, out = {.max = 4 * TEXT_MAX};
    err_code code = json_parse(&req, line, n, "line", &e);
    if (code == ERR_OK) code = render(req, &text, &e);
    jw w;
    jw_init(&w, &out);
    jw_obj(&w);
    jw_kbool(&w, "ok", code == ERR_OK);
    if (code == ERR_OK) {
        jw_key(&w, "text");
        jw_strn(&w, buf_str(&text), text.len);
    } else {
        jw_kstr(&w, "error", e.msg);
        jw_kstr(&w, "code", err_name(code));
    }
    jw_obj_end(&w);
    puts(buf_str(&out));
    fflush(stdout);
    cJSON_Delete(req);
    buf_free(&text);
    buf_free(&out);
}

int main(void) {
    base_init();
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) answer(line, (size_t)n);
    free(line);
    return 0;
}
