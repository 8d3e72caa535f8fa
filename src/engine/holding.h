/* Internal to engine: what holds a model's weights while they are in memory, where they come from, and the thread that
 * looks after them.
 *
 * Weights come from the source (a GGUF file: packed by several threads, whose pages go as they are used up) or from its
 * packed file (packfile.h: mapped). The addresses stay the same for the model's life; what happens behind them:
 *
 *   from the source: packed ----> usable ----> written to the packed file ----> settled
 *   from the file:   mapped ----> checked (usable) ----> moved into 2 MiB pages, checked again on the way ----> settled
 *                       '--- bytes without their sum: packed from the source into the same addresses ---> usable,
 * written
 *
 * All but packing and mapping is the work of one background thread with low priority, from holding_start on (checking
 * has the usual priority, and all CPUs).
 *
 * Invariants
 *  1. holding_wait returns ERR_OK only when every byte of the matrices has had its sum since it was mapped, or was
 *     packed here from a source that has its digest. Vectors and the tokenizer's image are checked before anything uses
 *     them.
 *  2. Nobody writes behind the addresses once holding_fill is over, but region_put, with the same bytes (or, where some
 *     were wrong, with the right ones).
 *  3. The packed file is trusted for what it was made from only while the source's size, times and inode are those that
 *     it had when its digest was last found right; otherwise the source is hashed first.
 */
#ifndef POLDER_ENGINE_HOLDING_H
#define POLDER_ENGINE_HOLDING_H

#include "engine/engine.h"
#include "engine/files/gguf.h"
#include "engine/packfile.h"
#include "engine/vocab/vocab.h"

typedef struct holding holding;

/* Takes over g, also where it fails. o may be NULL: no packed file. ERR_CORRUPT where the source has not the digest
 * that was asked for (holding_start tells it, where it is found out beside the packing). */
err_code holding_new(holding **out, gguf *g, const model_options *o, err *e);
void holding_free(holding *h); /* NULL is fine; ends the thread */
const gguf *holding_source(const holding *h);
/* The model's tokenizer: from the packed file, or made from the source. It must be freed after the holding. */
err_code holding_vocab(holding *h, vocab **out, err *e);
/* Bring all entries into memory. tensor, type, first, rows, cols, is_vector and len are set (the shapes fit their
 * tensors, lengths are matrix_plan's); `at` is given here. Once. */
err_code holding_fill(holding *h, packfile_entry *entries, size_t n, err *e);
void *holding_at(const holding *h, const packfile_entry *x);
/* The model is complete: ERR_CORRUPT where the source was not what it should be; otherwise the thread goes to work. */
err_code holding_start(holding *h, err *e);
/* Until the weights may be used. ERR_CORRUPT, ERR_NOMEM, …: they cannot be had. Any thread; fast when they are there.
 */
err_code holding_wait(holding *h, err *e);
void holding_settle(holding *h);
void holding_memory(holding *h, model_memory *out);

#endif
