/* What a client learns of a chat template that refuses, through the door: the template's own sentence as a 400, for
 * plain and streamed answers. Breaks when the sentence is lost on the way, when it becomes a 500 or an answer, or when
 * a template that never ends holds the server up. */
#include "server/internal.h"
#include "unit/inference/tiny_model.h"
#include "world.h"

static world w;
static err e;

/* A model with that template under that name. */
static bool add_model(const char *name, const char *tmpl) {
    char path[400];
    cJSON *out = NULL;
    snprintf(path, sizeof path, "%s/%s.gguf", w.tmp, name);
    if (!tiny_write(path, true, true, tmpl, 7)) return false;
    err_code rc = models_add(w.isl, NULL, path, name, NULL, NULL, &out, &e);
    cJSON_Delete(out);
    if (rc != ERR_OK) fprintf(stderr, "%s: %s\n", name, e.msg);
    return rc == ERR_OK;
}

static const struct {
    const char *name, *tmpl;
    int status; /* 0: an answer */
    const char *says;
} models[] = {
    {"raises",
     "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif "
     "%}{% "
     "endfor %}x",
     400, "System role not supported"},
    {"quotes", "{{ raise_exception('Größe \"' ~ messages[1].content ~ '\" 100%s\\n') }}", 400, "Größe \"hi\" 100%s"},
    {"undefined", "{{ 'a' + messages[9].content }}", 400, "the list has no 'item'"},
    {"unknown-filter", "{{ messages | reticulate }}", 400, "the filter 'reticulate' is not supported"},
    {"unknown-statement", "{% include 'x' %}", 400, "the statement 'include' is not supported"},
    {"broken", "{% if x %}", 400, "chat template, line 1"},
    {"endless", "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", 413,
     "more than 5000000 steps"},
    {"deep", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", 413, "deep"},
    {"fine", "{{ messages[1].content }}", 0, NULL},
};

static void ask(const char *name, bool streamed, reply *r) {
    char body[400];
    snprintf(body, sizeof body,
             "{\"model\":\"%s\",\"max_tokens\":2,\"stream\":%s,\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{"
             "\"role\":\"user\","
             "\"content\":\"hi\"}]}",
             name, streamed ? "true" : "false");
    client_request(w.port, w.key[ROLE_USER], "POST", "/v1/chat/completions", body, r);
}

TEST(templates_say_why_they_refuse) {
    int bad = 0;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        for (int streamed = 0; streamed < 2; streamed++) {
            reply r;
            ask(models[i].name, streamed, &r);
            const char *body = buf_str(&r.body);
            cJSON *v = models[i].status ? cJSON_Parse(body) : NULL;
            const char *says = v ? str_at(v, "error.message") : NULL;
            bool good = models[i].status ? r.status == models[i].status && says && strstr(says, models[i].says) != NULL
                                         : r.status == 200;
            if (!good) fprintf(stderr, "%s, stream %d: %d %.400s\n", models[i].name, streamed, r.status, body);
            bad += !good;
            cJSON_Delete(v);
            reply_free(&r);
        }
    }
    CHECK_INT(bad, 0);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    bool ok = world_open(&w, NULL, &e) == ERR_OK && world_start(&w, &e) == ERR_OK;
    for (size_t i = 0; ok && i < sizeof models / sizeof *models; i++) ok = add_model(models[i].name, models[i].tmpl);
    if (!ok) {
        fprintf(stderr, "no server: %s\n", e.msg);
        return 1;
    }
    RUN(templates_say_why_they_refuse);
    world_end(&w);
    return test_end();
}
