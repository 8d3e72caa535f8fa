#include "engine/isa.h"

#include "engine/engine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef POLDER_HAVE_AVX2
#include <cpuid.h>
#endif
#ifdef POLDER_HAVE_NEON
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static const char *const names[ISA_COUNT] = {"scalar", "avx2", "avx512", "neon"};
static _Atomic int current = -1;

static bool have[ISA_COUNT], have_i8mm;
static char list[64];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The builtins also ask whether the system saves the wide registers; F16C has no name in older compilers. */
static void ask_cpu(void) {
#ifdef POLDER_HAVE_AVX2
    unsigned a, b, c, d;
    have[ISA_AVX2] = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                     __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
#endif
#ifdef POLDER_SIMDE
    have[ISA_AVX512] = have[ISA_AVX2]; /* kernels/avx512.h */
#elif defined(POLDER_HAVE_AVX512)
    have[ISA_AVX512] = have[ISA_AVX2] && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512vnni");
#endif
#ifdef POLDER_HAVE_NEON
    have[ISA_NEON] = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
    have_i8mm = have[ISA_NEON] && getauxval(AT_HWCAP2) & HWCAP2_I8MM;
#endif
}

static void find_out(void) {
    have[ISA_SCALAR] = true;
    ask_cpu();
    int last = ISA_SCALAR;
    for (int i = 0; i < ISA_COUNT; i++)
        if (have[i]) last = i;
    size_t n = 0;
    for (int i = 0; i <= last; i++) {
        const char *before = i == 0 ? "" : i == last ? " and " : ", ";
        if (have[i]) n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", before, names[i]);
    }
}

bool isa_have(isa i) {
    pthread_once(&once, find_out); /* asking a virtual CPU takes microseconds */
    return have[i];
}

bool isa_have_i8mm(void) {
    isa_have(ISA_NEON);
    return have_i8mm;
}

const char *isa_list(void) {
    isa_have(ISA_SCALAR);
    return list;
}

const char *isa_name(isa i) {
    return names[i];
}

static isa isa_best(void) {
    static const isa fastest_first[] = {ISA_AVX512, ISA_AVX2, ISA_NEON};
    for (size_t i = 0; i < sizeof fastest_first / sizeof *fastest_first; i++)
        if (isa_have(fastest_first[i])) return fastest_first[i];
    return ISA_SCALAR;
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
            return err_set(e, ERR_USAGE, "instruction set %s: this CPU or this build lacks it; both have %s", names[i],
                           isa_list());
        atomic_store(&current, i);
        return ERR_OK;
    }
    return err_set(e, ERR_USAGE, "instruction set \"%s\" is unknown; this CPU and this build have %s", name,
                   isa_list());
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
