/* Automata over characters written as automata over bytes: UTF-8, and in JSON strings with escapes. */
#include "engine/grammar/chars.h"

#include "base/mem.h"

#include <string.h>

/* ---- one range ------------------------------------------------------------------------------------------------ */

/* A control character in JSON: \b \t \n \f \r where there is such a name, \u00XX otherwise. */
static void emit_control(builder *b, uint32_t escape, uint32_t c, uint32_t to) {
    static const char *const names = "btn\0fr"; /* of 8 to 13 */
    static const char hex[] = "0123456789abcdef";
    if (c >= 8 && c <= 13 && c != 11) {
        builder_bytes(b, escape, (uint8_t)names[c - 8], (uint8_t)names[c - 8], to);
        return;
    }
    char text[5] = {'u', '0', '0', hex[c >> 4], hex[c & 15]};
    builder_literal(b, escape, text, sizeof text, to);
}

void chars_emit(builder *b, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to, char_form form) {
    if (lo < CHAR_FIRST) lo = CHAR_FIRST;
    if (hi > CHAR_LAST) hi = CHAR_LAST;
    if (lo > hi) return;
    if (form == FORM_PLAIN) {
        builder_chars(b, from, lo, hi, to);
        return;
    }
    if (lo < 0x20 || (lo <= '"' && hi >= '"') || (lo <= '\\' && hi >= '\\')) {
        uint32_t escape = builder_state(b);
        builder_bytes(b, from, '\\', '\\', escape);
        for (uint32_t c = lo; c < 0x20 && c <= hi; c++) emit_control(b, escape, c, to);
        if (lo <= '"' && hi >= '"') builder_bytes(b, escape, '"', '"', to);
        if (lo <= '\\' && hi >= '\\') builder_bytes(b, escape, '\\', '\\', to);
    }
    static const uint32_t plain[][2] = {{0x20, 0x21}, {0x23, 0x5b}, {0x5d, CHAR_LAST}};
    for (size_t i = 0; i < 3; i++) {
        uint32_t l = lo > plain[i][0] ? lo : plain[i][0], h = hi < plain[i][1] ? hi : plain[i][1];
        if (l <= h) builder_chars(b, from, l, h, to);
    }
}

void char_nfa_emit(const char_nfa *n, builder *b, uint32_t from, uint32_t to, char_form form) {
    /* where there are anchors: layer 0 at the beginning, 1 after a character, 2 after `$` */
    uint32_t layers = n->has_anchors ? 3 : 1, base = b->net.n_states;
    for (uint32_t i = 0; i < n->n_states * layers && !builder_failed(b); i++) builder_state(b);
    if (builder_failed(b)) return;
    uint32_t k = n->n_states, read = layers > 1 ? 1 : 0;
    for (uint32_t i = 0; i < n->n_edges; i++) {
        const char_edge *e = &n->edges[i];
        for (uint32_t l = 0; l < layers; l++) {
            uint32_t x = base + l * k + e->from;
            if (e->kind == CHAR_EMPTY || (e->kind == CHAR_BEGIN && l == 0)) builder_empty(b, x, base + l * k + e->to);
            if (e->kind == CHAR_RANGE && l < 2) chars_emit(b, x, e->lo, e->hi, base + read * k + e->to, form);
            /* `^` may still follow `$` where the text is empty; layer 2 has forgotten that, and so it is left out */
            if (e->kind == CHAR_END) builder_empty(b, x, base + 2 * k + e->to);
        }
    }
    builder_empty(b, from, base + n->start);
    for (uint32_t l = 0; l < layers; l++) builder_empty(b, base + l * k + n->end, to);
}

/* ---- deterministic -------------------------------------------------------------------------------------------- */

/* Most edges of strings carry all characters from U+0080 on, or all escapes: what they lead through is made once for
 * each target. */
typedef struct emitter {
    const char_dfa *d;
    builder *b;
    char_form form;
    uint32_t base;
    uint32_t *high; /* (n_states): first of seven states that read the rest of a character of several bytes; 0: none */
    uint32_t *escape; /* (n_states): the state behind the \ of any character that is escaped */
} emitter;

enum { ONE_LEFT, TWO_LEFT, THREE_LEFT, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4 };

static void make_high(emitter *m, uint32_t t) {
    builder *b = m->b;
    uint32_t s = builder_state(b), to = m->base + t;
    for (int i = 1; i < 7; i++) builder_state(b);
    if (builder_failed(b)) return;
    m->high[t] = s;
    builder_bytes(b, s + ONE_LEFT, 0x80, 0xbf, to);
    builder_bytes(b, s + TWO_LEFT, 0x80, 0xbf, s + ONE_LEFT);
    builder_bytes(b, s + THREE_LEFT, 0x80, 0xbf, s + TWO_LEFT);
    builder_bytes(b, s + AFTER_E0, 0xa0, 0xbf, s + ONE_LEFT);
    builder_bytes(b, s + AFTER_ED, 0x80, 0x9f, s + ONE_LEFT);
    builder_bytes(b, s + AFTER_F0, 0x90, 0xbf, s + TWO_LEFT);
    builder_bytes(b, s + AFTER_F4, 0x80, 0x8f, s + TWO_LEFT);
}

static void emit_high(emitter *m, uint32_t from, uint32_t t) {
    if (!m->high[t]) make_high(m, t);
    builder *b = m->b;
    uint32_t s = m->high[t];
    builder_bytes(b, from, 0xc2, 0xdf, s + ONE_LEFT);
    builder_bytes(b, from, 0xe0, 0xe0, s + AFTER_E0);
    builder_bytes(b, from, 0xe1, 0xec, s + TWO_LEFT);
    builder_bytes(b, from, 0xed, 0xed, s + AFTER_ED);
    builder_bytes(b, from, 0xee, 0xef, s + TWO_LEFT);
    builder_bytes(b, from, 0xf0, 0xf0, s + AFTER_F0);
    builder_bytes(b, from, 0xf1, 0xf3, s + THREE_LEFT);
    builder_bytes(b, from, 0xf4, 0xf4, s + AFTER_F4);
}

static void emit_escapes(emitter *m, uint32_t from, uint32_t t) {
    if (!m->escape[t]) {
        m->escape[t] = builder_state(m->b);
        for (uint32_t c = CHAR_FIRST; c < 0x20; c++) emit_control(m->b, m->escape[t], c, m->base + t);
        builder_bytes(m->b, m->escape[t], '"', '"', m->base + t);
        builder_bytes(m->b, m->escape[t], '\\', '\\', m->base + t);
    }
    builder_bytes(m->b, from, '\\', '\\', m->escape[t]);
}

/* Does every class between lo and hi lead to t? */
static bool all_lead(const char_dfa *d, const uint32_t *row, uint32_t lo, uint32_t hi, uint32_t t) {
    for (uint32_t c = 0; c < d->n_classes; c++)
        if (d->first[c] <= hi && d->first[c + 1] > lo && row[c] != t) return false;
    return true;
}

/* The edges of one state to one target; at least one class leads there. */
static void emit_target(emitter *m, uint32_t q, uint32_t t) {
    const char_dfa *d = m->d;
    const uint32_t *row = d->next + (size_t)q * d->n_classes;
    bool json = m->form == FORM_JSON;
    bool high = all_lead(d, row, 0x80, 0xd7ff, t) && all_lead(d, row, 0xe000, CHAR_LAST, t);
    bool escapes = json && all_lead(d, row, CHAR_FIRST, 0x1f, t) && all_lead(d, row, '"', '"', t) &&
                   all_lead(d, row, '\\', '\\', t);
    if (high) emit_high(m, m->base + q, t);
    if (escapes) emit_escapes(m, m->base + q, t);
    for (uint32_t c = 0; c < d->n_classes; c++) {
        if (row[c] != t) continue;
        uint32_t lo = d->first[c];
        while (c + 1 < d->n_classes && row[c + 1] == t) c++;
        uint32_t hi = d->first[c + 1] - 1;
        if (high && hi > 0x7f) hi = 0x7f;
        if (lo > hi) continue;
        if (!escapes) {
            chars_emit(m->b, m->base + q, lo, hi, m->base + t, m->form);
            continue;
        }
        static const uint32_t plain[][2] = {{0x20, 0x21}, {0x23, 0x5b}, {0x5d, CHAR_LAST}};
        for (size_t i = 0; i < 3; i++) {
            uint32_t l = lo > plain[i][0] ? lo : plain[i][0], h = hi < plain[i][1] ? hi : plain[i][1];
            if (l <= h) builder_chars(m->b, m->base + q, l, h, m->base + t);
        }
    }
}

void char_dfa_emit(const char_dfa *d, builder *b, uint32_t from, uint32_t to, char_form form) {
    if (!d->n_states) return;
    emitter m = {.d = d, .b = b, .form = form, .base = b->net.n_states};
    m.high = mem_array(d->n_states, sizeof *m.high);
    m.escape = mem_array(d->n_states, sizeof *m.escape);
    if (!m.high || !m.escape) b->no_memory = true;
    for (uint32_t q = 0; q < d->n_states && !builder_failed(b); q++) builder_state(b);
    builder_empty(b, from, m.base);
    for (uint32_t q = 0; q < d->n_states && !builder_failed(b); q++) {
        const uint32_t *row = d->next + (size_t)q * d->n_classes;
        for (uint32_t c = 0; c < d->n_classes; c++) {
            bool seen = row[c] == CHAR_NONE;
            for (uint32_t k = 0; k < c && !seen; k++) seen = row[k] == row[c];
            if (!seen) emit_target(&m, q, row[c]);
        }
        if (d->accepts[q]) builder_empty(b, m.base + q, to);
    }
    mem_free(m.high);
    mem_free(m.escape);
}
