/* Values → placeholders: the mapping of one request. The way back is in restore.c. */
#include "data/redact_internal.h"

#include "base/bytes.h"
#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_MIN = 4096, SLOTS_MIN = 64 };

/* ---- classes ---- */

/* The word of an owner's entity may be anything; a placeholder's may not. */
static void word_clean(redact_class *c, const char *word) {
    size_t n = 0;
    for (; word[n] && n < WORD_MAX; n++) {
        char ch = word[n];
        if (ch >= 'a' && ch <= 'z') ch = (char)(ch - 'a' + 'A');
        bool good = (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');
        c->word[n] = good ? ch : '_';
    }
    if (!n) c->word[n++] = 'X';
    c->word[n] = 0;
    c->len = (uint8_t)n;
}

static int by_word(const void *a, const void *b) {
    return strcmp(((const redact_class *)a)->word, ((const redact_class *)b)->word);
}

static void classes_make(redaction *r, const detector *d) {
    r->n_entities = detector_entities(d);
    if (r->n_entities > ENT_MAX) r->n_entities = ENT_MAX;
    for (unsigned i = 0; i < r->n_entities; i++) {
        const char *word = detector_entity(d, i)->word;
        if (word) word_clean(&r->classes[r->n_classes++], word);
    }
    qsort(r->classes, r->n_classes, sizeof r->classes[0], by_word);
    unsigned n = 0;
    for (unsigned i = 0; i < r->n_classes; i++)
        if (!n || strcmp(r->classes[n - 1].word, r->classes[i].word) != 0) r->classes[n++] = r->classes[i];
    memset(r->classes + n, 0, (r->n_classes - n) * sizeof r->classes[0]);
    r->n_classes = n;
    for (unsigned i = 0; i < n; i++) r->classes[i].next = 1;
    for (unsigned i = 0; i < r->n_entities; i++) {
        const char *word = detector_entity(d, i)->word;
        redact_class key = {.len = 0};
        r->class_of[i] = -1;
        if (!word) continue;
        word_clean(&key, word);
        const redact_class *c = bsearch(&key, r->classes, n, sizeof key, by_word);
        r->class_of[i] = (int)(c - r->classes);
    }
}

err_code redaction_new(redaction **out, const detector *d, err *e) {
    *out = NULL;
    redaction *r = mem_zalloc(sizeof *r);
    if (!r) return err_nomem(e, "redaction");
    classes_make(r, d);
    r->seed = random_u64();
    *out = r;
    return ERR_OK;
}

void redaction_free(redaction *r) {
    if (!r) return;
    for (redact_block *b = r->blocks, *next; b; b = next) {
        next = b->next;
        mem_wipe(b->data, b->cap);
        mem_free(b);
    }
    for (unsigned i = 0; i < r->n_classes; i++) {
        mem_free(r->classes[i].entries);
        mem_free(r->classes[i].taken);
    }
    mem_free(r->entries);
    mem_free(r->slots);
    mem_wipe(r, sizeof *r);
    mem_free(r);
}

/* ---- numbers that the caller uses ---- */

err_code redaction_take(redaction *r, unsigned class, uint32_t number, err *e) {
    redact_class *c = &r->classes[class];
    if (number > NUMBER_MAX) return ERR_OK; /* none of ours gets there */
    if (!c->taken) c->taken = mem_zalloc(NUMBER_MAX / 8 + 1);
    if (!c->taken) return err_nomem(e, "redaction");
    c->taken[number / 8] |= (uint8_t)(1u << number % 8);
    return ERR_OK;
}

static bool is_taken(const redact_class *c, uint32_t number) {
    return c->taken && c->taken[number / 8] >> number % 8 & 1;
}

/* ---- values ---- */

/* Room for a value of n bytes; it is the value's only once value_keep has counted it. */
static char *value_room(redaction *r, size_t n, err *e) {
    if (n > REDACTED_BYTES_MAX - r->value_bytes) {
        err_set(e, ERR_TOO_LARGE,
                "redaction: the values to replace are more than %zu MiB; send the texts in several requests",
                REDACTED_BYTES_MAX >> 20);
        return NULL;
    }
    redact_block *b = r->blocks;
    if (!b || b->cap - b->used < n) {
        size_t cap = n > BLOCK_MIN ? n : BLOCK_MIN;
        b = mem_alloc(sizeof *b + cap);
        if (!b) {
            err_nomem(e, "redaction");
            return NULL;
        }
        *b = (redact_block){.next = r->blocks, .cap = cap};
        r->blocks = b;
    }
    return b->data + b->used;
}

static void value_keep(redaction *r, size_t n) {
    r->blocks->used += n;
    r->value_bytes += n;
}

static uint64_t value_hash(const redaction *r, unsigned class, const char *p, size_t n) {
    uint64_t h = r->seed ^ class * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ (unsigned char)p[i]) * 0x9fb21c651e98df25u;
        h ^= h >> 29;
    }
    return h ^ h >> 32;
}

static const redact_entry *value_lookup(const redaction *r, unsigned class, uint64_t h, const char *p, size_t n) {
    if (!r->n_slots) return NULL;
    for (size_t i = h & (r->n_slots - 1); r->slots[i]; i = (i + 1) & (r->n_slots - 1)) {
        const redact_entry *v = &r->entries[r->slots[i] - 1];
        if (v->hash == h && v->class == class && v->len == n && memcmp(v->value, p, n) == 0) return v;
    }
    return NULL;
}

static void slot_fill(uint32_t *slots, size_t n_slots, uint64_t hash, uint32_t index) {
    size_t i = hash & (n_slots - 1);
    while (slots[i]) i = (i + 1) & (n_slots - 1);
    slots[i] = index + 1;
}

/* Place for one more entry, in the list, the table and its class. Entries hold pointers only, no value. */
static err_code entry_room(redaction *r, redact_class *c, err *e) {
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 32;
        redact_entry *p = mem_realloc(r->entries, cap * sizeof *p);
        if (!p) return err_nomem(e, "redaction");
        r->entries = p;
        r->cap = cap;
    }
    if (c->n == c->cap) {
        uint32_t cap = c->cap ? c->cap * 2 : 8;
        uint32_t *p = mem_realloc(c->entries, cap * sizeof *p);
        if (!p) return err_nomem(e, "redaction");
        c->entries = p;
        c->cap = cap;
    }
    if (2 * (r->n + 1) > r->n_slots) {
        size_t n = r->n_slots ? r->n_slots * 2 : SLOTS_MIN;
        uint32_t *slots = mem_array(n, sizeof *slots);
        if (!slots) return err_nomem(e, "redaction");
        for (size_t i = 0; i < r->n; i++) slot_fill(slots, n, r->entries[i].hash, (uint32_t)i);
        mem_free(r->slots);
        r->slots = slots;
        r->n_slots = n;
    }
    return ERR_OK;
}

/* A new entry for the n bytes at `kept`, which lie in a block. */
static err_code entry_add(redaction *r, unsigned class, uint64_t h, const char *kept, size_t n, err *e) {
    redact_class *c = &r->classes[class];
    if (r->n >= REDACTIONS_MAX)
        return err_set(e, ERR_TOO_LARGE,
                       "redaction: the request holds more than %d different values; send it in several requests",
                       REDACTIONS_MAX);
    uint32_t number = c->next;
    while (number <= NUMBER_MAX && is_taken(c, number)) number++;
    if (number > NUMBER_MAX)
        return err_set(e, ERR_TOO_LARGE,
                       "redaction: the texts use up the numbers of [%s_N] themselves; take such words out of them",
                       c->word);
    if (entry_room(r, c, e) != ERR_OK) return ERR_NOMEM;
    c->next = number + 1;
    c->entries[c->n++] = (uint32_t)r->n;
    slot_fill(r->slots, r->n_slots, h, (uint32_t)r->n);
    r->entries[r->n++] = (redact_entry){.value = kept, .len = n, .hash = h, .number = number, .class = class};
    return ERR_OK;
}

static void placeholder_put(const redaction *r, const redact_entry *v, buf *out) {
    buf_printf(out, "[%s_%u]", r->classes[v->class].word, (unsigned)v->number);
}

/* The placeholder of a value that lies in the caller's text. */
static err_code value_replace(redaction *r, unsigned class, const char *p, size_t n, buf *out, err *e) {
    uint64_t h = value_hash(r, class, p, n);
    const redact_entry *v = value_lookup(r, class, h, p, n);
    if (!v) {
        char *kept = value_room(r, n, e);
        if (!kept) return e ? e->code : ERR_NOMEM;
        memcpy(kept, p, n);
        err_code rc = entry_add(r, class, h, kept, n, e);
        if (rc != ERR_OK) {
            mem_wipe(kept, n);
            return rc;
        }
        value_keep(r, n);
        v = &r->entries[r->n - 1];
    }
    placeholder_put(r, v, out);
    return ERR_OK;
}

const redact_entry *redaction_find(const redaction *r, unsigned class, uint32_t number) {
    const redact_class *c = &r->classes[class];
    uint32_t lo = 0, hi = c->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const redact_entry *v = &r->entries[c->entries[mid]];
        if (v->number == number) return v;
        if (v->number < number)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* ---- texts ---- */

/* The class of a finding that is to be replaced; -1: it stays. */
static int finding_class(const redaction *r, const finding *f, const entity_set *set) {
    if (f->entity >= r->n_entities || !entity_set_has(set, f->entity) || f->from == f->to) return -1;
    return r->class_of[f->entity];
}

/* Invariant 1 of detect.h. Were it broken, something would go out unreplaced: nothing goes out. */
static err_code findings_check(const finding *f, size_t n_found, size_t n, err *e) {
    size_t at = 0;
    for (size_t i = 0; i < n_found; i++) {
        if (f[i].from < at || f[i].to < f[i].from || f[i].to > n)
            return err_set(e, ERR_INTERNAL, "redaction: finding %zu of %zu is out of order", i + 1, n_found);
        at = f[i].to;
    }
    return ERR_OK;
}

err_code redaction_text(redaction *r, const char *text, size_t n, const finding *f, size_t n_found,
                        const entity_set *set, buf *out, err *e) {
    err_code rc = findings_check(f, n_found, n, e);
    size_t at = 0;
    r->begun = true;
    for (size_t i = 0; i < n_found && rc == ERR_OK; i++) {
        int class = finding_class(r, &f[i], set);
        if (class < 0) continue;
        buf_append(out, text + at, f[i].from - at);
        rc = value_replace(r, (unsigned)class, text + f[i].from, f[i].to - f[i].from, out, e);
        at = f[i].to;
    }
    if (rc != ERR_OK) return rc;
    buf_append(out, text + at, n - at);
    return buf_check(out, "redacted text", e);
}

/* ---- for the vault ---- */

size_t redaction_count(const redaction *r) {
    return r->n;
}

typedef struct named {
    char name[WORD_MAX + 16];
    const redact_entry *v;
} named;

static int by_name(const void *a, const void *b) {
    return strcmp(((const named *)a)->name, ((const named *)b)->name);
}

err_code redaction_json(const redaction *r, buf *out, err *e) {
    named *list = mem_array(r->n ? r->n : 1, sizeof *list);
    if (!list) return err_nomem(e, "redaction");
    for (size_t i = 0; i < r->n; i++) {
        const redact_entry *v = &r->entries[i];
        snprintf(list[i].name, sizeof list[i].name, "[%s_%u]", r->classes[v->class].word, (unsigned)v->number);
        list[i].v = v;
    }
    qsort(list, r->n, sizeof *list, by_name);
    buf_putc(out, '{');
    for (size_t i = 0; i < r->n; i++) {
        if (i) buf_putc(out, ',');
        json_string(out, list[i].name, strlen(list[i].name));
        buf_putc(out, ':');
        json_string(out, list[i].v->value, list[i].v->len);
    }
    buf_putc(out, '}');
    mem_free(list);
    return buf_check(out, "redaction", e);
}
