/* island.yaml: parsing and checking, driven by CONFIG_TABLE.
 *
 * The file is a mapping of groups, each a mapping of keys to scalars, and nothing else: no anchors, aliases, tags,
 * sequences or second documents, so that what a person reads is what polder does. It is read by libyaml's events, which
 * carry lines and columns. Every refusal is ERR_USAGE and says "FILE:LINE:COLUMN: ". */
#include "island/internal.h"

#include "base/mem.h"
#include "island/oidc.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define X(group, key, kind, def, min, max, doc) \
    {#group, #key, CONFIG_##kind, def, min, max, doc, offsetof(island_config, group##_##key)},
const config_row config_rows[] = {CONFIG_TABLE(X)};
#undef X
const size_t config_n_rows = sizeof config_rows / sizeof config_rows[0];
#define N_ROWS (sizeof config_rows / sizeof config_rows[0])

const config_row *config_find(const char *group, const char *key) {
    for (size_t i = 0; i < N_ROWS; i++)
        if (strcmp(config_rows[i].group, group) == 0 && strcmp(config_rows[i].key, key) == 0) return &config_rows[i];
    return NULL;
}

static bool group_known(const char *group) {
    for (size_t i = 0; i < N_ROWS; i++)
        if (strcmp(config_rows[i].group, group) == 0) return true;
    return false;
}

/* ---- values ---------------------------------------------------------------------------------------------- */

static char **str_field(const island_config *c, const config_row *r) {
    return (char **)((char *)(uintptr_t)c + r->offset);
}

/* Control characters, separators and what is no character could not be written to a file and read again. */
static bool printable(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = utf8_decode(&cp, s + i, n - i);
        if (len <= 0 || cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || cp == 0x2028 || cp == 0x2029 || cp == 0xfeff ||
            (cp & 0xfffe) == 0xfffe)
            return false;
        i += (size_t)len;
    }
    return true;
}

static err_code check_name(const char *s, err *e) {
    if (s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@~")] == 0) return ERR_OK;
    return err_set(e, ERR_USAGE,
                   "\"%s\" names a ledger that others verify, so it may have letters, digits and . _ - / : @ ~ only",
                   s);
}

/* Splits HOST:PORT or [HOST]:PORT. */
static bool split_listen(const char *s, char *host, size_t cap) {
    const char *colon = strrchr(s, ':'), *h = s;
    if (!colon) return false;
    size_t n = (size_t)(colon - s), digits = strspn(colon + 1, "0123456789");
    bool bracketed = n >= 2 && h[0] == '[' && h[n - 1] == ']';
    if (bracketed) {
        h++;
        n -= 2;
    } else if (memchr(h, ':', n)) {
        return false;
    }
    if (n == 0 || n >= cap || digits == 0 || digits > 5 || colon[1 + digits] || strtol(colon + 1, NULL, 10) > 65535)
        return false;
    memcpy(host, h, n);
    host[n] = 0;
    struct in6_addr a6;
    return !bracketed || inet_pton(AF_INET6, host, &a6) == 1;
}

static err_code check_listen(const char *s, err *e) {
    char host[256];
    if (split_listen(s, host, sizeof host)) return ERR_OK;
    return err_set(e, ERR_USAGE, "\"%s\" is not ADDRESS:PORT, as in \"127.0.0.1:8080\" or \"[::1]:8080\"", s);
}

static bool listen_is_loopback(const char *s) {
    char host[256];
    if (!split_listen(s, host, sizeof host)) return false;
    struct in_addr a4;
    struct in6_addr a6;
    if (inet_pton(AF_INET, host, &a4) == 1) return ntohl(a4.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, host, &a6) == 1) return IN6_IS_ADDR_LOOPBACK(&a6);
    return strcmp(host, "localhost") == 0;
}

static err_code check_level(const char *s, err *e) {
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    for (int i = 0; i < 4; i++)
        if (strcmp(s, levels[i]) == 0) return ERR_OK;
    return err_set(e, ERR_USAGE, "\"%s\" is not one of debug, info, warn, error", s);
}

static err_code check_speculation(const char *s, err *e) {
    if (strcmp(s, "off") == 0 || strcmp(s, "ngram") == 0 || strcmp(s, "draft") == 0) return ERR_OK;
    return err_set(e, ERR_USAGE, "\"%s\" is not one of off, ngram, draft", s);
}

static err_code check_kv(const char *s, err *e) {
    if (strcmp(s, "f16") == 0 || strcmp(s, "q8") == 0) return ERR_OK;
    return err_set(e, ERR_USAGE, "\"%s\" is not one of f16, q8", s);
}

static err_code check_text(const config_row *r, const char *s, size_t n, err *e) {
    if (n < (size_t)r->min) return err_set(e, ERR_USAGE, "is empty; it needs a text");
    if (n > (size_t)r->max)
        return err_set(e, ERR_USAGE, "has %zu bytes; at most %lld are allowed", n, (long long)r->max);
    if (!printable(s, n)) return err_set(e, ERR_USAGE, "has control characters; write it as one plain line");
    static const struct {
        const char *group, *key;
        err_code (*check)(const char *s, err *e);
    } checks[] = {{"island", "name", check_name},
                  {"server", "listen", check_listen},
                  {"log", "level", check_level},
                  {"inference", "kv", check_kv},
                  {"inference", "speculation", check_speculation}};
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++)
        if (strcmp(checks[i].group, r->group) == 0 && strcmp(checks[i].key, r->key) == 0) return checks[i].check(s, e);
    return ERR_OK;
}

static err_code set_text(island_config *c, const config_row *r, const char *s, size_t n, err *e) {
    char *copy = mem_strndup(s, n);
    if (!copy) return err_nomem(e, "the configuration");
    err_code code = check_text(r, copy, n, e);
    if (code != ERR_OK) {
        mem_free(copy);
        return code;
    }
    char **field = str_field(c, r);
    mem_free(*field);
    *field = copy;
    return ERR_OK;
}

/* Decimal without leading zeros: YAML's own octal, hexadecimal and 1_000 would surprise somebody. */
static err_code set_int(island_config *c, const config_row *r, const char *s, size_t n, err *e) {
    size_t sign = n > 0 && s[0] == '-', digits = 0;
    while (sign + digits < n && s[sign + digits] >= '0' && s[sign + digits] <= '9') digits++;
    if (digits == 0 || sign + digits != n || (s[sign] == '0' && n > 1))
        return err_set(e, ERR_USAGE, "\"%.*s\" is not a whole number in decimal digits", n > 80 ? 80 : (int)n, s);
    int64_t v = 0;
    bool over = digits > 18; /* 18 digits fit, and no limit is near */
    for (size_t i = 0; i < digits && !over; i++) v = v * 10 + (s[sign + i] - '0');
    if (sign) v = -v;
    if (over || v < r->min || v > r->max)
        return err_set(e, ERR_USAGE, "%.*s is not between %lld and %lld", n > 80 ? 80 : (int)n, s, (long long)r->min,
                       (long long)r->max);
    memcpy((char *)c + r->offset, &v, sizeof v);
    return ERR_OK;
}

static err_code set_bool(island_config *c, const config_row *r, const char *s, size_t n, err *e) {
    bool yes = n == 4 && memcmp(s, "true", 4) == 0, no = n == 5 && memcmp(s, "false", 5) == 0;
    if (!yes && !no) return err_set(e, ERR_USAGE, "\"%.*s\" is neither true nor false", n > 80 ? 80 : (int)n, s);
    memcpy((char *)c + r->offset, &yes, sizeof yes);
    return ERR_OK;
}

err_code config_set(island_config *c, const config_row *r, const char *s, size_t n, err *e) {
    err_code code = ERR_INTERNAL;
    switch (r->kind) {
    case CONFIG_STR: code = set_text(c, r, s, n, e); break;
    case CONFIG_INT: code = set_int(c, r, s, n, e); break;
    case CONFIG_BOOL: code = set_bool(c, r, s, n, e); break;
    }
    if (code != ERR_OK && code != ERR_NOMEM) err_prefix(e, "%s.%s", r->group, r->key);
    return code;
}

err_code config_check_whole(const island_config *c, const config_row **row, err *e) {
    if (!c->server_auth && !listen_is_loopback(c->server_listen)) {
        if (row) *row = config_find("server", "auth");
        return err_set(e, ERR_USAGE,
                       "server.auth: false is for loopback only, and server.listen is \"%s\"; listen on 127.0.0.1 or "
                       "[::1], or set auth to true",
                       c->server_listen);
    }
    const char *key = NULL;
    err_code code = oidc_check_config(c, &key, e);
    if (code != ERR_OK && row) *row = config_find("oidc", key);
    return code;
}

void config_free(island_config *c) {
    for (size_t i = 0; i < N_ROWS; i++)
        if (config_rows[i].kind == CONFIG_STR) mem_free(*str_field(c, &config_rows[i]));
    memset(c, 0, sizeof *c);
}

err_code config_default(island_config *out, err *e) {
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < N_ROWS; i++) {
        err_code code = config_set(out, &config_rows[i], config_rows[i].def, strlen(config_rows[i].def), e);
        if (code != ERR_OK) {
            config_free(out);
            return code;
        }
    }
    return ERR_OK;
}

/* ---- unknown names --------------------------------------------------------------------------------------- */

/* Edit distance with swaps of neighbours (optimal string alignment), for names of up to 40 bytes. */
static int edit_distance(const char *a, const char *b) {
    enum { MAX = 40 };
    int la = (int)strnlen(a, MAX + 1), lb = (int)strnlen(b, MAX + 1), d[MAX + 1][MAX + 1];
    if (la > MAX || lb > MAX) return MAX;
    for (int i = 0; i <= la; i++) d[i][0] = i;
    for (int j = 0; j <= lb; j++) d[0][j] = j;
    for (int i = 1; i <= la; i++)
        for (int j = 1; j <= lb; j++) {
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[la][lb];
}

/* A third of the letters may be wrong, two at least. */
static bool resembles(const char *written, const char *known, int *distance) {
    *distance = edit_distance(written, known);
    size_t n = strlen(known);
    return *distance <= (n / 3 > 2 ? (int)(n / 3) : 2) && (size_t)*distance < n;
}

static void name_groups(const char *written, char *list, size_t list_cap, char *hint, size_t hint_cap) {
    int best = 99, d;
    size_t at = 0;
    list[0] = hint[0] = 0;
    for (size_t i = 0; i < N_ROWS; i++) {
        const char *g = config_rows[i].group;
        if (i > 0 && strcmp(g, config_rows[i - 1].group) == 0) continue;
        at += (size_t)snprintf(list + at, list_cap - at, "%s%s", at ? ", " : "", g);
        if (resembles(written, g, &d) && d < best) {
            best = d;
            snprintf(hint, hint_cap, "; did you mean %s?", g);
        }
    }
    for (size_t i = 0; i < N_ROWS && best == 99; i++)
        if (strcmp(config_rows[i].key, written) == 0) {
            best = 0;
            snprintf(hint, hint_cap, "; did you mean %s below %s?", written, config_rows[i].group);
        }
}

static void name_keys(const char *group, const char *written, char *list, size_t list_cap, char *hint,
                      size_t hint_cap) {
    int best = 99, d;
    size_t at = 0;
    list[0] = hint[0] = 0;
    for (size_t i = 0; i < N_ROWS; i++) {
        const config_row *r = &config_rows[i];
        if (strcmp(r->group, group) == 0) {
            at += (size_t)snprintf(list + at, list_cap - at, "%s%s", at ? ", " : "", r->key);
            if (resembles(written, r->key, &d) && d < best) {
                best = d;
                snprintf(hint, hint_cap, "; did you mean %s?", r->key);
            }
        } else if (strcmp(r->key, written) == 0 && best > 0) { /* the right key in the wrong place */
            best = 0;
            snprintf(hint, hint_cap, "; did you mean %s.%s?", r->group, r->key);
        }
    }
}

/* ---- reading the file ------------------------------------------------------------------------------------ */

typedef struct reader {
    yaml_parser_t y;
    yaml_event_t ev; /* the current event, where has_event */
    bool has_event;
    const char *file;
    island_config *out;
    yaml_mark_t seen[N_ROWS]; /* where each key stands */
    bool is_seen[N_ROWS];
    err *e;
} reader;

static err_code fail_at(reader *r, yaml_mark_t at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static err_code fail_at(reader *r, yaml_mark_t at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    err_setv(r->e, ERR_USAGE, fmt, ap);
    va_end(ap);
    err_prefix(r->e, "%s:%zu:%zu", r->file, at.line + 1, at.column + 1);
    return ERR_USAGE;
}

static err_code next(reader *r) {
    if (r->has_event) yaml_event_delete(&r->ev);
    r->has_event = false;
    if (!yaml_parser_parse(&r->y, &r->ev)) {
        if (r->y.error == YAML_MEMORY_ERROR) return err_nomem(r->e, "the configuration");
        return fail_at(r, r->y.problem_mark, "is not YAML: %s%s%s", r->y.context ? r->y.context : "",
                       r->y.context ? ": " : "", r->y.problem ? r->y.problem : "syntax error");
    }
    r->has_event = true;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (r->ev.type) {
    case YAML_ALIAS_EVENT:
        return fail_at(r, r->ev.start_mark, "aliases (*name) are not allowed; write the value itself");
    case YAML_SCALAR_EVENT: anchor = r->ev.data.scalar.anchor, tag = r->ev.data.scalar.tag; break;
    case YAML_MAPPING_START_EVENT: anchor = r->ev.data.mapping_start.anchor, tag = r->ev.data.mapping_start.tag; break;
    case YAML_SEQUENCE_START_EVENT: return fail_at(r, r->ev.start_mark, "lists are not used in this file");
    default: break;
    }
    if (anchor) return fail_at(r, r->ev.start_mark, "anchors (&name) are not allowed");
    if (tag) return fail_at(r, r->ev.start_mark, "tags (!name) are not allowed");
    return ERR_OK;
}

static bool is_plain_nothing(const yaml_event_t *ev) {
    return ev->type == YAML_SCALAR_EVENT && ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           ev->data.scalar.length == 0;
}

static err_code check_style(reader *r, const config_row *row) {
    const char *s = (const char *)r->ev.data.scalar.value;
    bool plain = r->ev.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (is_plain_nothing(&r->ev) || (plain && (strcmp(s, "~") == 0 || strcasecmp(s, "null") == 0)))
        return fail_at(r, r->ev.start_mark, "%s.%s: has no value; give it one or remove the line", row->group,
                       row->key);
    if (row->kind != CONFIG_STR && !plain)
        return fail_at(r, r->ev.start_mark, "%s.%s: is a text in quotes; write %s without them", row->group, row->key,
                       row->kind == CONFIG_INT ? "the number" : "true or false");
    return ERR_OK;
}

/* The current event is a key below `group`; reads its value. */
static err_code read_key(reader *r, const char *group) {
    if (r->ev.type != YAML_SCALAR_EVENT) return fail_at(r, r->ev.start_mark, "a key must be a plain word");
    const char *key = (const char *)r->ev.data.scalar.value;
    const config_row *row = strlen(key) == r->ev.data.scalar.length ? config_find(group, key) : NULL;
    if (!row) {
        char list[400], hint[120];
        name_keys(group, key, list, sizeof list, hint, sizeof hint);
        return fail_at(r, r->ev.start_mark, "unknown key %s.%.40s%s (known in %s: %s)", group, key, hint, group, list);
    }
    size_t i = (size_t)(row - config_rows);
    if (r->is_seen[i])
        return fail_at(r, r->ev.start_mark, "%s.%s is given twice; the first is in line %zu", group, key,
                       r->seen[i].line + 1);
    r->is_seen[i] = true;
    r->seen[i] = r->ev.start_mark;
    err_code code = next(r);
    if (code != ERR_OK) return code;
    if (r->ev.type != YAML_SCALAR_EVENT)
        return fail_at(r, r->ev.start_mark, "%s.%s: takes one value, nothing nested", row->group, row->key);
    code = check_style(r, row);
    if (code != ERR_OK) return code;
    err why = {0};
    code = config_set(r->out, row, (const char *)r->ev.data.scalar.value, r->ev.data.scalar.length, &why);
    if (code == ERR_USAGE) return fail_at(r, r->ev.start_mark, "%s", why.msg);
    if (code != ERR_OK && r->e) *r->e = why;
    return code;
}

/* The current event is a group's name; reads the mapping below it. */
static err_code read_group(reader *r, bool *seen_groups) {
    if (r->ev.type != YAML_SCALAR_EVENT) return fail_at(r, r->ev.start_mark, "a group must be a plain word");
    const char *written = (const char *)r->ev.data.scalar.value;
    if (strlen(written) != r->ev.data.scalar.length || !group_known(written)) {
        char list[200], hint[120];
        name_groups(written, list, sizeof list, hint, sizeof hint);
        return fail_at(r, r->ev.start_mark, "unknown group %.40s%s (known: %s)", written, hint, list);
    }
    size_t first = 0;
    while (strcmp(config_rows[first].group, written) != 0) first++;
    const char *group = config_rows[first].group;
    if (seen_groups[first]) return fail_at(r, r->ev.start_mark, "the group %s is given twice", group);
    seen_groups[first] = true;
    err_code code = next(r);
    if (code != ERR_OK) return code;
    if (is_plain_nothing(&r->ev)) return ERR_OK; /* all of its keys are commented out */
    if (r->ev.type != YAML_MAPPING_START_EVENT)
        return fail_at(r, r->ev.start_mark, "%s is a group: its keys stand below it, indented", group);
    for (;;) {
        code = next(r);
        if (code != ERR_OK || r->ev.type == YAML_MAPPING_END_EVENT) return code;
        code = read_key(r, group);
        if (code != ERR_OK) return code;
    }
}

static err_code read_document(reader *r) {
    bool seen_groups[N_ROWS] = {false};
    err_code code = next(r);
    if (code != ERR_OK) return code;
    if (is_plain_nothing(&r->ev)) return next(r);
    if (r->ev.type != YAML_MAPPING_START_EVENT)
        return fail_at(r, r->ev.start_mark, "expected groups of keys, as in \"server:\"");
    for (;;) {
        code = next(r);
        if (code != ERR_OK) return code;
        if (r->ev.type == YAML_MAPPING_END_EVENT) return next(r);
        code = read_group(r, seen_groups);
        if (code != ERR_OK) return code;
    }
}

static err_code read_stream(reader *r) {
    err_code code = next(r); /* stream start */
    if (code == ERR_OK) code = next(r);
    if (code == ERR_OK && r->ev.type == YAML_DOCUMENT_START_EVENT) {
        code = read_document(r); /* ends on the document's end */
        if (code == ERR_OK) code = next(r);
    }
    if (code == ERR_OK && r->ev.type != YAML_STREAM_END_EVENT)
        return fail_at(r, r->ev.start_mark, "a second document begins here; the file has one");
    if (code != ERR_OK) return code;
    err why = {0};
    const config_row *row = NULL;
    code = config_check_whole(r->out, &row, &why);
    if (code == ERR_OK) return ERR_OK;
    return fail_at(r, row ? r->seen[row - config_rows] : r->ev.start_mark, "%s", why.msg);
}

/* libyaml gives no line for bytes that are not UTF-8. */
static err_code check_bytes(reader *r, const char *s, size_t n) {
    yaml_mark_t at = {0};
    if (n > CONFIG_BYTES_MAX)
        return fail_at(r, at, "has %zu bytes; a configuration has at most %d", n, CONFIG_BYTES_MAX);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = utf8_decode(&cp, s + i, n - i);
        if (len <= 0) return fail_at(r, at, "is not UTF-8 text");
        if (cp < 0x20 && cp != '\n' && cp != '\r' && cp != '\t') return fail_at(r, at, "has a control character");
        at.column = cp == '\n' ? 0 : at.column + 1;
        at.line += cp == '\n';
        i += (size_t)len;
    }
    return ERR_OK;
}

err_code config_parse(island_config *out, const char *yaml, size_t n, const char *name, err *e) {
    reader r = {.file = name, .out = out, .e = e};
    memset(out, 0, sizeof *out);
    err_code code = check_bytes(&r, yaml, n);
    if (code == ERR_OK) code = config_default(out, e);
    if (code != ERR_OK) return code;
    if (!yaml_parser_initialize(&r.y)) {
        config_free(out);
        return err_nomem(e, "the configuration");
    }
    yaml_parser_set_input_string(&r.y, (const unsigned char *)yaml, n);
    yaml_parser_set_encoding(&r.y, YAML_UTF8_ENCODING);
    code = read_stream(&r);
    if (r.has_event) yaml_event_delete(&r.ev);
    yaml_parser_delete(&r.y);
    if (code != ERR_OK) config_free(out);
    return code;
}
