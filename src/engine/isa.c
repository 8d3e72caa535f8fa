#include "engine/isa.h"

#include "engine/engine.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifdef POLDER_HAVE_AVX2
#include <cpuid.h>
#endif

static const char *const names[ISA_COUNT] = {"scalar", "avx2"};
static _Atomic int current = -1;

bool isa_have(isa i) {
    if (i == ISA_SCALAR) return true;
#ifdef POLDER_HAVE_AVX2
    if (i == ISA_AVX2) {
        /* The builtin also asks whether the system saves the wide registers; F16C has no name in older compilers. */
        unsigned a, b, c, d;
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid(1, &a, &b, &c, &d) &&
               (c & bit_F16C);
    }
#endif
    return false;
}

const char *isa_name(isa i) {
    return names[i];
}

static isa isa_best(void) {
    return isa_have(ISA_AVX2) ? ISA_AVX2 : ISA_SCALAR;
}

isa isa_get(void) {
    int i = atomic_load_explicit(&current, memory_order_relaxed);
    if (i < 0) {
        i = isa_best();
        atomic_store_explicit(&current, i, memory_order_relaxed);
    }
    return (isa)i;
}

err_code isa_select(const char *name, err *e) {
    for (int i = 0; i < ISA_COUNT; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        if (!isa_have((isa)i))
            return err_set(e, ERR_USAGE, "instruction set %s: this CPU or this build lacks it; use scalar", names[i]);
        atomic_store(&current, i);
        return ERR_OK;
    }
    return err_set(e, ERR_USAGE, "instruction set \"%s\" is unknown; polder has scalar and avx2", name);
}

err_code engine_init(err *e) {
    const char *want = getenv("POLDER_ISA");
    if (!want || !*want) return isa_select(names[isa_best()], e);
    if (isa_select(want, e) != ERR_OK) return err_prefix(e, "environment variable POLDER_ISA");
    return ERR_OK;
}

const char *engine_isa(void) {
    return names[isa_get()];
}
