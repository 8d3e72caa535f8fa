/* The configuration written out: island.yaml, JSON, and the guide's page, all from CONFIG_TABLE. */
#include "island/internal.h"

#include "base/json.h"

#include <string.h>

static const char *get_str(const island_config *c, const config_row *r) {
    const char *s;
    memcpy(&s, (const char *)c + r->offset, sizeof s);
    return s;
}
static int64_t get_int(const island_config *c, const config_row *r) {
    int64_t v;
    memcpy(&v, (const char *)c + r->offset, sizeof v);
    return v;
}
static bool get_bool(const island_config *c, const config_row *r) {
    bool v;
    memcpy(&v, (const char *)c + r->offset, sizeof v);
    return v;
}

static bool begins_group(size_t i) {
    return i == 0 || strcmp(config_rows[i].group, config_rows[i - 1].group) != 0;
}

void config_write_yaml(const island_config *c, buf *out) {
    buf_puts(out, "# The configuration of this island. polder config check tells what is wrong with it;\n"
                  "# a key that is left out has its default.\n");
    for (size_t i = 0; i < config_n_rows; i++) {
        const config_row *r = &config_rows[i];
        if (begins_group(i)) buf_printf(out, "\n%s:\n", r->group);
        buf_printf(out, "  # %s\n  %s: ", r->doc, r->key);
        switch (r->kind) { /* a text is always quoted: JSON's quotes are YAML's, and checked texts need no more */
        case CONFIG_STR: json_string(out, get_str(c, r), strlen(get_str(c, r))); break;
        case CONFIG_INT: buf_printf(out, "%lld", (long long)get_int(c, r)); break;
        case CONFIG_BOOL: buf_puts(out, get_bool(c, r) ? "true" : "false"); break;
        }
        buf_putc(out, '\n');
    }
}

void config_write_json(const island_config *c, buf *out) {
    jw w;
    jw_init(&w, out);
    jw_obj(&w);
    for (size_t i = 0; i < config_n_rows; i++) {
        const config_row *r = &config_rows[i];
        if (begins_group(i)) {
            if (i) jw_obj_end(&w);
            jw_key(&w, r->group);
            jw_obj(&w);
        }
        switch (r->kind) {
        case CONFIG_STR: jw_kstr(&w, r->key, get_str(c, r)); break;
        case CONFIG_INT: jw_kint(&w, r->key, get_int(c, r)); break;
        case CONFIG_BOOL: jw_kbool(&w, r->key, get_bool(c, r)); break;
        }
    }
    jw_obj_end(&w);
    jw_obj_end(&w);
}

static void write_allowed(const config_row *r, buf *out) {
    switch (r->kind) {
    case CONFIG_STR: buf_printf(out, "text, at most %lld bytes", (long long)r->max); break;
    case CONFIG_INT: buf_printf(out, "%lld to %lld", (long long)r->min, (long long)r->max); break;
    case CONFIG_BOOL: buf_puts(out, "true or false"); break;
    }
}

void config_write_markdown(buf *out) {
    buf_puts(out,
             "# Configuration\n"
             "\n"
             "An island is configured by one file, `island.yaml`, in its state folder. `polder init` writes it\n"
             "with every key, its default and its documentation. A key that is left out has its default.\n"
             "\n"
             "The file has groups, and each group has keys with one value each; lists, anchors, aliases and tags\n"
             "are not used. An unknown or repeated key, a wrong type or a value out of range is refused with line\n"
             "and column, and nothing starts. `polder config check` reads the file without starting anything, and\n"
             "`polder config show` prints what is in force. A change is recorded in the ledger (`config.changed`,\n"
             "with the old and the new value of each changed key) when the island is opened next.\n"
             "\n"
             "This page is printed from the same table that the program reads the file with.\n");
    for (size_t i = 0; i < config_n_rows; i++) {
        const config_row *r = &config_rows[i];
        if (begins_group(i))
            buf_printf(out, "\n## %s\n\n| key | default | allowed | meaning |\n| --- | --- | --- | --- |\n", r->group);
        buf_printf(out, "| `%s` | `%s` | ", r->key, r->def);
        write_allowed(r, out);
        buf_printf(out, " | %s |\n", r->doc);
    }
    buf_puts(out,
             "\n"
             "## Environment\n"
             "\n"
             "| variable | meaning |\n"
             "| --- | --- |\n"
             "| `POLDER_ISLAND` | The state folder where `--island` is absent |\n"
             "| `POLDER_ISA` | Forces a set of kernels: `scalar`, `avx2`, `avx512` or `neon`, where the CPU and the "
             "build have it; every set gives the same bits |\n"
             "| `NO_COLOR` | No colours in a terminal |\n");
}
