/* Internal to the tokenizers: pre-tokenizers cut text into words before byte-level BPE merges inside each word.
 *
 * A pre-tokenizer is a row of a table: its names in GGUF (tokenizer.ggml.pre), what it implies, and its stages in
 * order. A stage finds the next match in a piece of text; match and the gap before it go to the next stage as pieces of
 * their own, the last stage's pieces are the words. Adding one is a row, and a function where no stage fits.
 *
 * The stages are scanners written by hand for the regular expressions that stand above each in pretok.c; every one
 * is linear in the text. Bytes that are not UTF-8 count as U+FFFD, one each, and are passed on as they are.
 */
#ifndef POLDER_ENGINE_PRETOK_H
#define POLDER_ENGINE_PRETOK_H

#include "base/buf.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct pretok pretok;

/* NULL where the name is not known. The first call builds the table of character classes (thread-safe). */
const pretok *pretok_find(const char *name, size_t len);
/* The names that pretok_find knows, separated by ", ". */
void pretok_names(buf *out);
bool pretok_ignores_merges(const pretok *p); /* a word that is a token is that token, whatever the merges say */
bool pretok_adds_bos(const pretok *p);       /* unless the file says otherwise */

/* Calls word(ctx, p, n) for each word of s in order, n > 0; stops at the first that does not return ERR_OK. */
typedef err_code (*pretok_word)(void *ctx, const char *p, size_t n);
err_code pretok_split(const pretok *p, const char *s, size_t n, pretok_word word, void *ctx);

#endif
