/* What this machine can do at most, measured now: the figures beside which kernels and benches are read. Part of the
 * public face of engine (engine.h includes it).
 *
 * Two numbers bound a model's speed. Decoding one sequence reads every weight once a token, so it cannot pass memory
 * bandwidth; prefill reads a weight for many tokens and cannot pass the rate of integer products. Both depend on
 * neighbours on the same machine, so they belong to the run in which they were measured and nowhere else.
 */
#ifndef POLDER_ENGINE_LIMITS_H
#define POLDER_ENGINE_LIMITS_H

#include "base/error.h"

typedef struct machine_limits {
    double read_gbs;   /* 10^9 bytes a second read from memory, more of it than caches hold */
    double int_gops;   /* 10^9 multiplications and additions of signed by unsigned bytes a second; 0: not known here */
    double f32_gflops; /* 10^9 multiplications and additions of F32 a second; 0: not known here */
} machine_limits;

/* The best of `rounds` (others on the machine only ever take time away), with n_threads threads (0: all CPUs this
 * process may use) and the instructions of the kernel set in use. A round takes about 30 ms; 256 MiB while it runs. */
err_code limits_measure(machine_limits *out, unsigned n_threads, unsigned rounds, err *e);

#endif
