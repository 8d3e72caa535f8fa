/* Levels, flags, and what callers declare of them. */
#include "data/data.h"

#include <stdio.h>
#include <string.h>

/* Words that policies use otherwise; a level of such a name could not be told from them. */
static const char *const taken[] = {"any",   "label",   "unlabelled",       "detector-error", "personal",  "provider",
                                    "zone",  "on-prem", "special-category", "credential",     "providers", "to",
                                    "after", "outside", "anything",         "never",          "allow",     "treat",
                                    "raise", NULL};

static const struct {
    unsigned bit;
    const char *name;
} flags[] = {
#define X(bit, name) {bit, name},
    FLAG_TABLE(X)
#undef X
};

unsigned flag_find(const char *name, size_t n) {
    for (size_t i = 0; i < FLAGS_N; i++)
        if (strlen(flags[i].name) == n && memcmp(flags[i].name, name, n) == 0) return flags[i].bit;
    return 0;
}

const char *flag_name(unsigned flag) {
    for (size_t i = 0; i < FLAGS_N; i++)
        if (flags[i].bit == flag) return flags[i].name;
    return "";
}

int label_find(const label_set *s, const char *name, size_t n) {
    for (int i = 0; i < s->n; i++)
        if (strlen(s->name[i]) == n && memcmp(s->name[i], name, n) == 0) return i;
    return -1;
}

/* The next item of a comma-separated list without the blanks around it; false at the end. */
static bool next_item(const char **at, const char **item, size_t *n) {
    if (!*at) return false;
    const char *p = *at, *end = strchr(p, ',');
    *at = end ? end + 1 : NULL;
    size_t len = end ? (size_t)(end - p) : strlen(p);
    while (len && (*p == ' ' || *p == '\t')) p++, len--;
    while (len && (p[len - 1] == ' ' || p[len - 1] == '\t')) len--;
    *item = p;
    *n = len;
    return true;
}

static err_code check_name(const label_set *s, const char *p, size_t n, err *e) {
    size_t good = 0;
    while (good < n &&
           ((p[good] >= 'a' && p[good] <= 'z') || (good && (p[good] == '-' || (p[good] >= '0' && p[good] <= '9')))))
        good++;
    int width = n > 60 ? 60 : (int)n;
    if (!n || good < n || n > LABEL_NAME_MAX)
        return err_set(e, ERR_USAGE,
                       "label \"%.*s\": a level is 1 to %d lower case letters, digits and '-', a letter first", width,
                       p, LABEL_NAME_MAX);
    for (const char *const *w = taken; *w; w++)
        if (strlen(*w) == n && memcmp(*w, p, n) == 0)
            return err_set(e, ERR_USAGE, "label \"%s\": this word means something else in a policy; take another", *w);
    if (label_find(s, p, n) >= 0) return err_set(e, ERR_USAGE, "label \"%.*s\" is in the list twice", width, p);
    return ERR_OK;
}

err_code label_set_parse(label_set *out, const char *list, err *e) {
    const char *at = list, *item;
    size_t n;
    memset(out, 0, sizeof *out);
    while (next_item(&at, &item, &n)) {
        if (out->n == LABELS_MAX) return err_set(e, ERR_USAGE, "labels: more than %d levels", LABELS_MAX);
        err_code rc = check_name(out, item, n, e);
        if (rc) return rc;
        memcpy(out->name[out->n], item, n);
        out->n++;
    }
    return ERR_OK;
}

sensitivity sensitivity_join(sensitivity a, sensitivity b) {
    return (sensitivity){.level = a.level > b.level ? a.level : b.level, .flags = a.flags | b.flags};
}

static void name_levels(const label_set *s, char *out, size_t cap) {
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < s->n && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%s", i ? ", " : "", s->name[i]);
}

err_code sensitivity_declare(sensitivity *out, bool *has_level, const label_set *s, const char *text, err *e) {
    const char *at = text, *item;
    size_t n;
    sensitivity v = {0};
    bool has = false;
    while (next_item(&at, &item, &n)) {
        unsigned flag = flag_find(item, n);
        int level = flag ? -1 : label_find(s, item, n);
        if (flag) {
            v.flags |= (uint8_t)flag;
            continue;
        }
        if (level < 0) {
            char known[(LABEL_NAME_MAX + 3) * LABELS_MAX];
            name_levels(s, known, sizeof known);
            return err_set(e, ERR_INVALID,
                           "label \"%.*s\" is none of this island's: %s; flags: personal, special-category, credential",
                           n > 60 ? 60 : (int)n, item, known);
        }
        if (has) return err_set(e, ERR_INVALID, "label \"%.80s\": it names two levels; give the higher one", text);
        has = true;
        v.level = (uint8_t)level;
    }
    *out = v;
    *has_level = has;
    return ERR_OK;
}

void sensitivity_text(char out[SENSITIVITY_TEXT], const label_set *s, sensitivity v) {
    text_copy(out, SENSITIVITY_TEXT, v.level < s->n ? s->name[v.level] : "?");
    size_t at = strlen(out);
    for (size_t i = 0; i < FLAGS_N; i++)
        if (v.flags & flags[i].bit) at += (size_t)snprintf(out + at, SENSITIVITY_TEXT - at, ", %s", flags[i].name);
}
