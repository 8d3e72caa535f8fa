/* Rendering a conversation of 200 messages with ten tools through chat templates, beside Jinja 2 in the same run.
 *
 *     bench_template [FILE.jinja ...]       (without files: the project's own templates, found from the working
 * directory)
 *
 * Columns: compiling the source; rendering the conversation (best of 21); bytes of the prompt; Jinja 2's rendering
 * (best of 5, compiled before, python3-jinja2) and how many times longer that took. */
#include "base/buf.h"
#include "base/bytes.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/engine.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS   21
#define MESSAGES 200
#define TOOLS    10
#define NOW      INT64_C(1753055998000)

static const char peer[] =
    "import json, sys, time; sys.path.insert(0, 'tests/e2e/template'); sys.stdin = open('/dev/null')\n"
    "import reference\n"
    "t = reference.environment(1753055998000).from_string(open(sys.argv[1]).read())\n"
    "v = json.load(open(sys.argv[2])); best = 1e9\n"
    "for i in range(5):\n"
    "    s = time.perf_counter(); n = len(t.render(**v)); best = min(best, time.perf_counter() - s)\n"
    "print(best)\n";

static void add_message(buf *b, int i) {
    static const char text[] =
        "The quick brown fox jumps over the lazy dog, then looks up \\\"köln\\\" in the tables of 2024.\\n";
    if (i) buf_putc(b, ',');
    switch (i % 4) {
    case 0: buf_printf(b, "{\"role\":\"user\",\"content\":\"Question %d: ", i); break;
    case 1:
        buf_printf(
            b,
            "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"call%05d\",\"type\":\"function\","
            "\"function\":{\"name\":\"tool_%d\",\"arguments\":{\"city\":\"Köln\",\"days\":%d,\"list\":[1,2,3]}}}]}",
            i, i % TOOLS, i);
        return;
    case 2: buf_printf(b, "{\"role\":\"tool\",\"tool_call_id\":\"call%05d\",\"content\":\"", i - 1); break;
    default: buf_puts(b, "{\"role\":\"assistant\",\"reasoning_content\":\"So.\",\"content\":\""); break;
    }
    for (int k = 0; k < 4; k++) buf_puts(b, text);
    buf_puts(b, "\"}");
}

static void make_vars(buf *b) {
    buf_puts(b, "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"add_generation_prompt\":true,\"messages\":[");
    for (int i = 0; i < MESSAGES; i++) add_message(b, i);
    buf_puts(b, "],\"tools\":[");
    for (int i = 0; i < TOOLS; i++)
        buf_printf(
            b,
            "%s{\"type\":\"function\",\"function\":{\"name\":\"tool_%d\",\"description\":\"Looks things up, number "
            "%d.\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"description\":"
            "\"a "
            "city\"},\"days\":{\"type\":\"integer\",\"minimum\":1},\"unit\":{\"type\":\"string\",\"enum\":[\"c\",\"f\"]"
            "},"
            "\"list\":{\"type\":\"array\",\"items\":{\"type\":\"number\"}}},\"required\":[\"city\"]}}}",
            i ? "," : "", i, i);
    buf_puts(b, "]}");
}

/* Seconds that Jinja 2 takes, 0 where it is not there or refuses. */
static double peer_seconds(const char *file, const char *vars_file) {
    char cmd[4096], line[64] = "";
    snprintf(cmd, sizeof cmd, "python3 -c \"$PEER\" '%s' '%s' 2>/dev/null", file, vars_file);
    setenv("PEER", peer, 1);
    FILE *p = popen(cmd, "r");
    if (!p) return 0;
    if (!fgets(line, sizeof line, p)) line[0] = 0;
    pclose(p);
    return strtod(line, NULL);
}

static bool bench(const char *file, const cJSON *vars, const char *vars_file) {
    err e = {0};
    buf src = {.max = 1 << 20}, out = {.max = 1 << 24};
    FILE *f = fopen(file, "r");
    if (!f) return fprintf(stderr, "%s: cannot be read\n", file), false;
    for (int c; (c = fgetc(f)) != EOF;) buf_putc(&src, (char)c);
    fclose(f);
    chat_template *t = NULL;
    uint64_t from = time_mono_ns();
    err_code code = chat_template_compile(&t, buf_str(&src), src.len, &e);
    double compile = (double)(time_mono_ns() - from) * 1e-6, best = 1e9;
    for (int i = 0; i < ROUNDS && code == ERR_OK; i++) {
        buf_reset(&out);
        from = time_mono_ns();
        code = chat_template_render(t, vars, NOW, &out, &e);
        double ms = (double)(time_mono_ns() - from) * 1e-6;
        if (ms < best) best = ms;
    }
    const char *name = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
    double other = code == ERR_OK ? peer_seconds(file, vars_file) * 1e3 : 0;
    if (code != ERR_OK)
        printf("%-28s %s\n", name, e.msg);
    else
        printf("%-28s compile %6.2f ms  render %6.2f ms  %7zu bytes  Jinja 2 %7.2f ms  %5.1f x\n", name, compile, best,
               out.len, other, other / best);
    chat_template_free(t);
    buf_free(&src);
    buf_free(&out);
    return code == ERR_OK;
}

int main(int argc, char **argv) {
    base_init();
    err e = {0};
    buf json = {.max = 1 << 24};
    cJSON *vars = NULL;
    make_vars(&json);
    if (json_parse(&vars, buf_str(&json), json.len, "vars", &e) != ERR_OK) return fprintf(stderr, "%s\n", e.msg), 3;
    char vars_file[] = "/tmp/polder-bench-XXXXXX";
    int fd = mkstemp(vars_file);
    if (fd < 0 || write(fd, json.ptr, json.len) != (ssize_t)json.len) return perror(vars_file), 3;
    close(fd);
    glob_t found = {0};
    glob("tests/acceptance/families/templates.d/own/*.jinja", 0, NULL, &found);
    bool ok = true;
    for (int i = 1; i < argc; i++) ok &= bench(argv[i], vars, vars_file);
    for (size_t i = 0; argc == 1 && i < found.gl_pathc; i++) ok &= bench(found.gl_pathv[i], vars, vars_file);
    unlink(vars_file);
    globfree(&found);
    cJSON_Delete(vars);
    buf_free(&json);
    return ok ? 0 : 3;
}
