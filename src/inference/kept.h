/* Internal to inference: prefixes that are kept over a restart (inference.prefix_cache_saved).
 *
 * Keys and values tell as much as the prompts that they come from. So the file cache/DIGEST.kept is one stream of
 * XChaCha20-Poly1305 pieces (libsodium's secretstream, which notices pieces that are changed, left out, moved or cut
 * off) under a key that is derived from the island's vault key for this purpose and this model. Nothing depends on the
 * file: where it cannot be read or written a line in the log says so. Whoever erases contents must drop it too. */
#ifndef POLDER_INFERENCE_KEPT_H
#define POLDER_INFERENCE_KEPT_H

#include "engine/engine.h"
#include "island/island.h"

typedef struct kept_file {
    island *i;
    uint8_t digest[SHA256_LEN]; /* of the model */
} kept_file;

/* What was kept at the last orderly end becomes kept again; the file is gone then, so that it is never older than what
 * was forgotten since. */
void kept_load(const kept_file *f, session *s);
void kept_save(const kept_file *f, const session *s);

#endif
