/* Internal to engine: which kernel set runs. Every table of kernels (kernels/kernels.h for matrices, the vector
 * kernels') is indexed by isa_get(). All sets give the same bits, so a switch changes only speed.
 */
#ifndef POLDER_ENGINE_ISA_H
#define POLDER_ENGINE_ISA_H

#include "base/error.h"

#include <stdbool.h>

typedef enum isa { ISA_SCALAR, ISA_AVX2, ISA_COUNT } isa;

/* The set in use. Where engine_init has not run: the best one that this CPU has. Any thread. */
isa isa_get(void);
/* Does this build and this CPU have it? */
bool isa_have(isa i);
const char *isa_name(isa i);
/* Switch to the set of that name (what POLDER_ISA and tests do). ERR_USAGE where it is unknown or this CPU lacks it;
 * nothing changes then. Not while another thread computes. */
err_code isa_select(const char *name, err *e);

#endif
