#include "engine/vocab/vocab_normal.h"

#include "base/bytes.h"

#include <string.h>

/* SentencePiece's precompiled map of characters: at each place the longest key of a double-array trie (darts-clone) is
 * replaced by its string; a character without a key stays.
 *
 *   u32 bytes of the trie | u32 units[] | strings, each ended by NUL; a key's value is the offset of its string
 *
 * A unit: bits 0-7 and 31 label, 8 a leaf follows, 9 the offset is shifted by 8, 10-30 offset. A leaf's unit holds the
 * value in bits 0-30. */

#define KEY_BYTES_MAX 64 /* of real maps: 18 */

typedef struct map {
    const char *units, *strings;
    size_t n_units, n_strings;
} map;

static uint32_t unit_at(const map *m, size_t i) {
    const uint8_t *p = (const uint8_t *)m->units + 4 * i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t offset_of(uint32_t unit) {
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

static bool map_open(map *m, const char *p, size_t n) {
    if (n < 5) return false;
    const uint8_t *b = (const uint8_t *)p;
    size_t bytes = (size_t)b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16 | (size_t)b[3] << 24;
    if (!bytes || bytes % 4 || bytes > n - 5) return false;
    *m = (map){p + 4, p + 4 + bytes, bytes / 4, n - 4 - bytes};
    return m->strings[m->n_strings - 1] == 0;
}

err_code charsmap_check(const char *p, size_t n, const char *name, err *e) {
    map m;
    if (map_open(&m, p, n)) return ERR_OK;
    return err_set(e, ERR_INVALID, "%s: the tokenizer's precompiled map of characters is malformed", name);
}

/* The longest key at s: its length and *string, 0 where there is none. */
static size_t longest_key(const map *m, const char *s, size_t n, const char **string) {
    size_t at = offset_of(unit_at(m, 0)), found = 0;
    for (size_t i = 0; i < n && i < KEY_BYTES_MAX; i++) {
        uint8_t c = (uint8_t)s[i];
        at ^= c;
        if (at >= m->n_units) break;
        uint32_t unit = unit_at(m, at);
        if ((unit & (1u << 31 | 0xff)) != c) break;
        at ^= offset_of(unit);
        if (at >= m->n_units) break;
        if (!(unit >> 8 & 1)) continue;
        size_t value = unit_at(m, at) & 0x7fffffff;
        if (value >= m->n_strings) continue;
        *string = m->strings + value;
        found = i + 1;
    }
    return found;
}

err_code charsmap_apply(const char *p, size_t n_map, const char *s, size_t n, buf *out, err *e) {
    map m;
    if (!map_open(&m, p, n_map)) return err_set(e, ERR_INTERNAL, "a map of characters that was checked is malformed");
    for (size_t i = 0; i < n;) {
        const char *string;
        size_t len = longest_key(&m, s + i, n - i, &string);
        if (len) {
            buf_puts(out, string);
            i += len;
            continue;
        }
        uint32_t cp;
        int k = utf8_decode(&cp, s + i, n - i);
        len = k > 0 ? (size_t)k : 1;
        if (k > 0)
            buf_append(out, s + i, len);
        else
            buf_puts(out, "\xef\xbf\xbd");
        i += len;
    }
    return buf_check(out, "the text to tokenize", e);
}
