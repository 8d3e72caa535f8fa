/* Internal to engine: what the engine's other files need of a model. model.c defines it. */
#ifndef POLDER_ENGINE_MODEL_INTERNAL_H
#define POLDER_ENGINE_MODEL_INTERNAL_H

#include "engine/engine.h"
#include "engine/vocab/vocab.h"

/* The model's tokenizer; lives as long as the model. */
const vocab *model_vocab(const model *m);

#endif
