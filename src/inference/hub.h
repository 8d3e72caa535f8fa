/* Part of inference's public header: models from a hub. Included by inference.h.
 *
 * A hub is a server with the layout of huggingface.co: /api/models/OWNER/REPO/revision/REV (JSON with the commit),
 * /api/models/OWNER/REPO/tree/COMMIT (files with sizes and digests), /OWNER/REPO/resolve/COMMIT/FILE. Mirrors and the
 * programs that serve a local copy have the same.
 *
 * Invariants
 *  1. Nothing is asked of a network before the record "egress" is durable, and nothing at all unless island.yaml names
 * a hub (models.hub).
 *  2. What is fetched is pinned to one commit; each file's size and digest (SHA-256, or git's for small files) are
 *     compared with what the hub lists; a file that differs is removed.
 *  3. An interrupted pull keeps what it has in DIR/pulls and goes on from there; a model is imported whole or not at
 * all.
 */
#ifndef POLDER_INFERENCE_HUB_H
#define POLDER_INFERENCE_HUB_H

#include "island/island.h"

typedef struct pull_options {
    const char *source;      /* "hf:OWNER/REPO[:FILE_OR_QUANT][@REVISION]" */
    const char *name;        /* the model's name; NULL: the repository's, in lower case */
    const char *mirror;      /* another hub for this once; NULL: models.hub */
    store_progress progress; /* may be NULL; bytes over all files */
    void *ctx;
} pull_options;

/* Fetch, convert where needed, import under the name. Records: "egress" before, then "model.imported" (its field
 * "source" tells hub, repository, commit, files, licence) or "pull.failed". *out as models_show. ERR_DENIED where
 * models.hub is empty or the address is not allowed. */
err_code models_pull(island *i, const identity *by, const pull_options *o, cJSON **out, err *e);

#endif
