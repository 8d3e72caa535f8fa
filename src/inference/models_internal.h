/* Internal to inference: what models.c offers to hub.c. */
#ifndef POLDER_INFERENCE_MODELS_INTERNAL_H
#define POLDER_INFERENCE_MODELS_INTERNAL_H

#include "inference/inference.h"

/* models_add; the fields of `known` (an object, may be NULL) go into the artifact's source, before those found out. */
err_code models_add_known(island *i, const identity *by, const char *path, const char *name, const cJSON *known,
                          store_progress progress, void *ctx, cJSON **out, err *e);
err_code models_check_name(const char *name, err *e);

#endif
