/* Inside of redact.c and restore.c: the mapping, and how the restorer looks into it.
 *
 * Entities whose placeholders have the same word share a class: one row of numbers, one placeholder for a value. A
 * class's entries are in the order of their numbers. Values lie in blocks that are wiped with the redaction and never
 * move, so no copy of a value is left behind by growing.
 */
#ifndef POLDER_DATA_REDACT_INTERNAL_H
#define POLDER_DATA_REDACT_INTERNAL_H

#include "data/data.h"

#define WORD_MAX   20    /* longer words are cut: "\[WORD\_N\]" has to fit PLACEHOLDER_MAX */
#define NUMBER_MAX 99999 /* of a placeholder, 5 digits; more than REDACTIONS_MAX, for numbers that are taken */

typedef struct redact_class {
    char word[WORD_MAX + 1]; /* A-Z 0-9 _ */
    uint8_t len;
    uint32_t next;     /* the lowest number that was not tried */
    uint32_t n, cap;   /* entries */
    uint32_t *entries; /* indexes, numbers ascending */
    uint8_t *taken;    /* a bit for each number that stands in the caller's texts; NULL: none */
} redact_class;

typedef struct redact_entry {
    const char *value;
    size_t len;
    uint64_t hash;
    uint32_t number;
    uint32_t class;
} redact_entry;

typedef struct redact_block {
    struct redact_block *next;
    size_t used, cap;
    char data[];
} redact_block;

struct redaction {
    redact_class classes[ENT_MAX]; /* by word, ascending */
    unsigned n_classes;
    int class_of[ENT_MAX]; /* of an entity; -1: is never redacted */
    unsigned n_entities;
    redact_entry *entries; /* in the order in which values came */
    size_t n, cap;
    uint32_t *slots; /* open addressing: index of an entry + 1, 0 is empty; a power of two, at most half full */
    size_t n_slots;
    redact_block *blocks; /* the newest first */
    size_t value_bytes;
    uint64_t seed; /* of the hash: nobody outside can choose values that collide */
    bool begun;    /* a value has its number: too late for redaction_see */
};

/* The entry of a placeholder, NULL where the number was never given out. */
const redact_entry *redaction_find(const redaction *r, unsigned class, uint32_t number);
err_code redaction_take(redaction *r, unsigned class, uint32_t number, err *e); /* notes that the caller uses it */

#endif
