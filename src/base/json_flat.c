#include "base/json_flat.h"

#include "base/bytes.h"
#include "base/json_internal.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void fail(jflat *f, err_code rc, const char *why) {
    if (f->rc) return;
    f->rc = rc;
    snprintf(f->why, sizeof f->why, "%s", why);
}

void jflat_init(jflat *f, size_t max_bytes) {
    size_t room =
        2 * (max_bytes < UINT32_MAX / 4 ? max_bytes : UINT32_MAX / 4); /* an object takes it twice, arranged */
    f->text = (buf){.max = room + 64};
    f->most = max_bytes;
    f->list = f->few;
    f->n = 0;
    f->cap = JFLAT_FEW;
    f->depth = 0;
    f->first[0] = 0;
    f->array[0] = false;
    f->rc = ERR_OK;
}

void jflat_free(jflat *f) {
    buf_free(&f->text);
    if (f->list != f->few) mem_free(f->list);
    f->list = f->few;
    f->n = 0;
}

void jflat_wipe(jflat *f) {
    if (f->text.ptr) mem_wipe(f->text.ptr, f->text.cap);
    jflat_free(f);
}

/* ---- members ----------------------------------------------------------------------------------------------- */

static bool grow(jflat *f) {
    jflat_member *more = mem_array(2 * (size_t)f->cap, sizeof *more);
    if (!more) {
        fail(f, ERR_NOMEM, "");
        return false;
    }
    memcpy(more, f->list, f->n * sizeof *more);
    if (f->list != f->few) mem_free(f->list);
    f->list = more;
    f->cap *= 2;
    return true;
}

static bool room(buf *b, size_t n) {
    return (!b->failed && b->cap > n && b->len < b->cap - n) || buf_reserve(b, n);
}

/* A string and the byte behind it. Nearly all are plain. */
static void put_text(jflat *f, const char *s, size_t n, char after, const char *why_not) {
    buf *b = &f->text;
    if (json_plain(s, n) == n) {
        if (n > SIZE_MAX / 2 || !room(b, n + 3)) return;
        char *p = b->ptr + b->len;
        *p++ = '"';
        if (n) memcpy(p, s, n);
        p[n] = '"';
        p[n + 1] = after;
        p[n + 2] = 0;
        b->len += n + 3;
        return;
    }
    if (!utf8_valid(s, n)) fail(f, ERR_INVALID, why_not);
    json_string(b, s, n);
    buf_putc(b, after);
}

/* Before a value: its key, where it stands in an object. */
static bool begin(jflat *f, const char *key) {
    if (f->rc) return false;
    if (f->array[f->depth]) return true;
    if (!key) {
        fail(f, ERR_INVALID, "a member of a JSON object has no key");
        return false;
    }
    if (f->n == f->cap && !grow(f)) return false;
    f->list[f->n++] = (jflat_member){.key = key, .from = (uint32_t)f->text.len};
    put_text(f, key, strlen(key), ':', "a key in JSON is not valid UTF-8");
    return !f->rc;
}

/* After a value and its comma. */
static void told(jflat *f) {
    if (!f->array[f->depth] && f->n) f->list[f->n - 1].to = (uint32_t)f->text.len;
}

static void end(jflat *f) {
    buf_putc(&f->text, ',');
    told(f);
}

void jflat_strn(jflat *f, const char *key, const char *s, size_t n) {
    if (!s) fail(f, ERR_NOMEM, "");
    if (!begin(f, key)) return;
    put_text(f, s, n, ',', "a JSON string is not valid UTF-8");
    told(f);
}

void jflat_str(jflat *f, const char *key, const char *s) {
    jflat_strn(f, key, s, s ? strlen(s) : 0);
}

void jflat_num(jflat *f, const char *key, double v) {
    if (!isfinite(v)) fail(f, ERR_INVALID, "a number is not finite");
    if (!begin(f, key)) return;
    json_number(&f->text, v);
    end(f);
}

void jflat_bool(jflat *f, const char *key, bool v) {
    if (!begin(f, key)) return;
    buf_puts(&f->text, v ? "true" : "false");
    end(f);
}

void jflat_tree(jflat *f, const char *key, const cJSON *v) {
    err why;
    err_clear(&why);
    if (!v) fail(f, ERR_NOMEM, "");
    if (!begin(f, key)) return;
    err_code rc = json_canonical_at(&f->text, v, f->depth + 1, &why);
    if (rc) fail(f, rc, why.msg);
    end(f);
}

void jflat_object(jflat *f, const char *key, const jflat *inner) {
    if (inner->rc) fail(f, inner->rc, inner->why);
    if (!begin(f, key)) return;
    err why;
    err_clear(&why);
    err_code rc = jflat_write(inner, NULL, &f->text, &why);
    if (rc) fail(f, rc, why.msg);
    end(f);
}

/* ---- objects and arrays ------------------------------------------------------------------------------------ */

static void open_level(jflat *f, const char *key, bool array) {
    if (!begin(f, key)) return;
    if (f->depth + 1 == JFLAT_LEVELS) {
        fail(f, ERR_INVALID, "JSON nested too deeply");
        return;
    }
    f->depth++;
    f->array[f->depth] = array;
    f->first[f->depth] = f->n;
    buf_putc(&f->text, array ? '[' : '{');
}

void jflat_obj(jflat *f, const char *key) {
    open_level(f, key, false);
}
void jflat_arr(jflat *f, const char *key) {
    open_level(f, key, true);
}

/* Most keys differ in their first letter. */
static inline bool same_key(const char *a, const char *b) {
    return *a == *b && strcmp(a, b) == 0;
}

static inline bool after(const char *a, const char *b) {
    unsigned char x = (unsigned char)*a, y = (unsigned char)*b;
    return x != y && x < 0x80 && y < 0x80 ? x > y : json_compare_keys(a, b) > 0;
}

/* Sorts few members, most of which stand right. false: they did already. */
static bool sort(jflat_member *m, uint32_t n) {
    bool moved = false;
    for (uint32_t i = 1; i < n; i++) {
        jflat_member x = m[i];
        uint32_t k = i;
        for (; k && after(m[k - 1].key, x.key); k--) m[k] = m[k - 1];
        moved |= k != i;
        m[k] = x;
    }
    return moved;
}

static void fail_twice(jflat *f, const char *key) {
    char why[sizeof f->why];
    snprintf(why, sizeof why, "the key \"%.80s\" stands twice in one object", key);
    fail(f, ERR_INVALID, why);
}

/* The members of the innermost object take their places: behind the text first, then where they belong. */
static void arrange(jflat *f) {
    jflat_member *m = f->list + f->first[f->depth];
    uint32_t n = f->n - f->first[f->depth];
    if (n < 2) return;
    size_t from = m[0].from, len = f->text.len - from; /* the first that came stands first in the text */
    bool moved = sort(m, n);
    for (uint32_t i = 1; i < n; i++)
        if (same_key(m[i - 1].key, m[i].key)) fail_twice(f, m[i].key);
    if (!moved || !buf_reserve(&f->text, len)) return;
    char *at = f->text.ptr + f->text.len;
    for (uint32_t i = 0; i < n; i++) {
        memcpy(at, f->text.ptr + m[i].from, m[i].to - m[i].from);
        at += m[i].to - m[i].from;
    }
    memcpy(f->text.ptr + from, f->text.ptr + f->text.len, len);
}

void jflat_end(jflat *f) {
    if (f->rc || f->text.failed || !f->depth) return;
    bool array = f->array[f->depth];
    if (!array) arrange(f);
    if (f->text.failed) return;
    if (f->text.ptr[f->text.len - 1] == ',') f->text.len--; /* a value's; no value begins with one */
    f->n = f->first[f->depth--];
    buf_putc(&f->text, array ? ']' : '}');
    end(f);
}

/* ---- out --------------------------------------------------------------------------------------------------- */

err_code jflat_check(const jflat *f, const char *what, err *e) {
    if (f->rc == ERR_NOMEM) return err_nomem(e, what);
    if (f->rc) return err_set(e, f->rc, "%s", f->why);
    if (f->text.len > f->most)
        return err_set(e, ERR_TOO_LARGE, "%s: larger than the limit of %zu bytes", what, f->most);
    return buf_check(&f->text, what, e);
}

typedef struct piece {
    const jflat_member *m;
    const char *text;
} piece;

static uint32_t add_pieces(piece *p, uint32_t n, const jflat *f) {
    for (uint32_t i = 0; f && i < f->n; i++) {
        piece x = {.m = &f->list[i], .text = f->text.ptr};
        uint32_t k = n++;
        for (; k && after(p[k - 1].m->key, x.m->key); k--) p[k] = p[k - 1];
        p[k] = x;
    }
    return n;
}

err_code jflat_write(const jflat *f, const jflat *more, buf *out, err *e) {
    err_code rc = jflat_check(f, "canonical JSON", e);
    if (!rc && more) rc = jflat_check(more, "canonical JSON", e);
    if (!rc && (f->depth || (more && more->depth))) rc = err_set(e, ERR_INTERNAL, "JSON: an object was not closed");
    if (rc) return rc;
    piece few[2 * JFLAT_FEW], *p = few;
    size_t total = (size_t)f->n + (more ? more->n : 0);
    if (total > 2 * JFLAT_FEW) p = mem_array(total, sizeof *p);
    if (!p) return err_nomem(e, "canonical JSON");
    uint32_t n = add_pieces(p, add_pieces(p, 0, f), more);
    (void)buf_reserve(out, f->text.len + (more ? more->text.len : 0) + 2);
    buf_putc(out, '{');
    for (uint32_t i = 0; i < n && !rc; i++) {
        if (i && same_key(p[i - 1].m->key, p[i].m->key))
            rc = err_set(e, ERR_INVALID, "the key \"%.80s\" stands twice in one object", p[i].m->key);
        bool last = i + 1 == n;
        buf_append(out, p[i].text + p[i].m->from, p[i].m->to - p[i].m->from - last);
    }
    buf_putc(out, '}');
    if (p != few) mem_free(p);
    return rc ? rc : buf_check(out, "canonical JSON", e);
}
