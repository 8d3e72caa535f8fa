/* Internal to engine: which kernel set runs. Every table of kernels (kernels/kernels.h for matrices, vec.h, delta.h) is
 * indexed by isa_get(). All sets give the same bits, so a switch changes only speed.
 *
 * A build has the sets that its compiler can make for the machine (POLDER_HAVE_AVX2, POLDER_HAVE_AVX512,
 * POLDER_HAVE_NEON); a CPU has those whose instructions, all of them, it and the system offer:
 *     avx2     AVX2, FMA, F16C
 *     avx512   these, and AVX-512 F, BW, VL, DQ, VNNI
 *     neon     Advanced SIMD of AArch64 with dot products
 */
#ifndef POLDER_ENGINE_ISA_H
#define POLDER_ENGINE_ISA_H

#include "base/error.h"

#include <stdbool.h>

typedef enum isa { ISA_SCALAR, ISA_AVX2, ISA_AVX512, ISA_NEON, ISA_COUNT } isa;

/* The set in use. Where engine_init has not run: the best one that this CPU has. Any thread. */
isa isa_get(void);
/* Does this build and this CPU have it? */
bool isa_have(isa i);
/* Products of 8-bit matrices on 64-bit ARM, which the set neon takes where they are there. */
bool isa_have_i8mm(void);
const char *isa_name(isa i);
/* The names of all that isa_have, with commas and "and": "scalar, avx2 and avx512". */
const char *isa_list(void);
/* Switch to the set of that name (what POLDER_ISA and tests do). ERR_USAGE where it is unknown or this CPU lacks it;
 * nothing changes then. Not while another thread computes. */
err_code isa_select(const char *name, err *e);

#endif
