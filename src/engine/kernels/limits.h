/* Internal to engine: products in registers alone, as fast as an instruction set does them. */
#ifndef POLDER_ENGINE_KERNELS_LIMITS_H
#define POLDER_ENGINE_KERNELS_LIMITS_H

#include <stdint.h>

/* Each runs n times through a loop of so many multiplications and additions and returns something that depends on them
 * all. NULL where this machine has no such instructions or polder does not measure them. */
typedef struct limit_kernels {
    uint64_t (*int8)(uint64_t n);
    uint64_t (*f32)(uint64_t n);
    uint32_t int8_ops, f32_ops;
} limit_kernels;

/* Those of the kernel set of that name ("avx2"). */
limit_kernels limit_kernels_get(const char *isa);

#endif
