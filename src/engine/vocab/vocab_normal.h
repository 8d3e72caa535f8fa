/* Internal to the tokenizers: normal forms of Unicode (utf8proc's data, Unicode 15), in linear time for any text:
 * a run of a million combining marks is sorted by counting. Bytes that are not UTF-8 stay as they are. */
#ifndef POLDER_ENGINE_VOCAB_NORMAL_H
#define POLDER_ENGINE_VOCAB_NORMAL_H

#include "engine/vocab/vocab_spec.h"

/* Appends the form of s. SPEC_FORM_NONE copies. */
err_code normal_form(spec_form form, const char *s, size_t n, buf *out, err *e);
/* Where text may be cut so that both halves' forms in a row are the form of the whole: before this character. */
bool normal_is_boundary(spec_form form, uint32_t cp);
bool normal_is_white(uint32_t cp); /* White_Space */
/* How many bytes of white space s begins with, and ends with. */
size_t normal_white_before(const char *s, size_t n);
size_t normal_white_after(const char *s, size_t n);

/* BertNormalizer (SPEC_BERT_*): appends. */
err_code normal_bert(uint8_t how, const char *s, size_t n, buf *out, err *e);
bool normal_is_punctuation(uint32_t cp); /* of BertPreTokenizer: ASCII's marks and symbols, Unicode's P */

/* SentencePiece's precompiled map: u32 length of a double-array trie, the trie, strings that end with NUL. */
err_code charsmap_check(const char *p, size_t n, const char *name, err *e);
err_code charsmap_apply(const char *map, size_t n_map, const char *s, size_t n, buf *out, err *e);

#endif
