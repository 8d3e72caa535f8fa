/* The architectures that polder runs: adding one is a line here and a file beside this one. */
#include "engine/models/models.h"

#define ARCHS(X)  \
    X(llama)      \
    X(llama4)     \
    X(mistral3)   \
    X(qwen2)      \
    X(qwen2moe)   \
    X(qwen3)      \
    X(qwen3moe)   \
    X(phi3)       \
    X(gemma2)     \
    X(gemma3)     \
    X(gemma4)     \
    X(gpt_oss)    \
    X(deepseek2)  \
    X(bert)       \
    X(nomic_bert) \
    X(qwen3next)  \
    X(qwen35)     \
    X(qwen35moe)

#define DECLARE(name) extern const arch arch_##name;
ARCHS(DECLARE)

#define POINT(name) &arch_##name,
const arch *const arch_table[] = {ARCHS(POINT) NULL};
