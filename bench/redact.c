/* Redaction and restoring of a conversation of 100 KB with 200 values: what it adds before the first token, against the
 * limit of 1 ms that the perimeter has.
 *
 * Columns: looking for placeholders of the caller's own (redaction_see), replacing (redaction_text, all messages), and
 * restoring an answer of 100 KB in pieces of 5 bytes as a model streams it; best of 51. */
#include "data/data.h"

#include "base/bytes.h"
#include "base/sys.h"

#include <stdio.h>
#include <string.h>

enum { MESSAGES = 100, PER_MESSAGE = 4, VALUES = 200, ROUNDS = 51, PIECE = 5 };

typedef struct message {
    char text[2048];
    size_t n;
    finding f[PER_MESSAGE];
} message;

static message messages[MESSAGES];

static void message_make(message *m, int index) {
    static const char filler[] =
        "The clerk in Köln [see page 4] asks \\ \"again\" for the papers of last year, and then some. ";
    for (int k = 0; k < PER_MESSAGE; k++) {
        for (int j = 0; j < 2; j++) m->n += (size_t)snprintf(m->text + m->n, sizeof m->text - m->n, "%s", filler);
        int v = (index * PER_MESSAGE + k) % VALUES;
        m->f[k] = (finding){.entity = v % 2 ? ENT_IBAN : ENT_EMAIL, .score = 95, .from = m->n};
        m->n += (size_t)snprintf(m->text + m->n, sizeof m->text - m->n,
                                 v % 2 ? "DE8937040044053201%04d" : "first.last%04d@example.org", v);
        m->f[k].to = m->n;
    }
    while (m->n + sizeof filler < 1000) m->n += (size_t)snprintf(m->text + m->n, sizeof m->text - m->n, "%s", filler);
}

typedef struct times {
    double see, text, restore, first; /* ms; first: all before a first token, and its restoring */
} times;

static err_code run(const detector *d, const entity_set *set, times *best, size_t *bytes, size_t *values, err *e) {
    redaction *r = NULL;
    restorer *x = NULL;
    buf out = {.max = 1 << 22}, back = {.max = 1 << 22};
    uint64_t t0 = time_mono_ns(), t1, t2, t3, t4;
    err_code rc = redaction_new(&r, d, e);
    for (int i = 0; i < MESSAGES && !rc; i++) rc = redaction_see(r, messages[i].text, messages[i].n, e);
    t1 = time_mono_ns();
    for (int i = 0; i < MESSAGES && !rc; i++)
        rc = redaction_text(r, messages[i].text, messages[i].n, messages[i].f, PER_MESSAGE, set, &out, e);
    t2 = t3 = time_mono_ns();
    if (!rc) rc = restorer_new(&x, r, RESTORE_TEXT, e);
    for (size_t at = 0; at < out.len && !rc; at += PIECE) {
        rc = restorer_feed(x, out.ptr + at, out.len - at < PIECE ? out.len - at : PIECE, &back, e);
        if (at == 0) t3 = time_mono_ns();
    }
    if (!rc) rc = restorer_end(x, &back, e);
    t4 = time_mono_ns();
    *values = r ? redaction_count(r) : 0;
    *bytes = back.len;
    times now = {(double)(t1 - t0) * 1e-6, (double)(t2 - t1) * 1e-6, (double)(t4 - t2) * 1e-6,
                 (double)(t3 - t0) * 1e-6};
    if (now.see < best->see) best->see = now.see;
    if (now.text < best->text) best->text = now.text;
    if (now.restore < best->restore) best->restore = now.restore;
    if (now.first < best->first) best->first = now.first;
    restorer_free(x);
    redaction_free(r);
    buf_free(&out);
    buf_free(&back);
    return rc;
}

int main(void) {
    base_init();
    err e = {0};
    detector *d;
    entity_set set = {{0, 0}};
    times best = {1e9, 1e9, 1e9, 1e9};
    size_t bytes = 0, values = 0;
    entity_set_add(&set, ENT_IBAN);
    entity_set_add(&set, ENT_EMAIL);
    for (int i = 0; i < MESSAGES; i++) message_make(&messages[i], i);
    if (detector_new(&d, NULL, 0, NULL, &e) != ERR_OK) return fprintf(stderr, "%s\n", e.msg), 3;
    for (int i = 0; i < ROUNDS; i++)
        if (run(d, &set, &best, &bytes, &values, &e) != ERR_OK) return fprintf(stderr, "%s\n", e.msg), 3;
    detector_free(d);
    printf("%zu bytes, %zu values: see %.3f ms, redact %.3f ms, restore in pieces of %d bytes %.3f ms\n", bytes, values,
           best.see, best.text, PIECE, best.restore);
    printf("added before the first token %.3f ms (limit 1 ms): %.2f of it\n", best.first, best.first);
    return 0;
}
