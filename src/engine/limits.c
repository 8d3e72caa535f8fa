#include "engine/limits.h"

#include "base/sys.h"
#include "engine/isa.h"
#include "engine/kernels/limits.h"
#include "engine/tensor.h"

#include <string.h>

enum { READ_BYTES = 256 << 20, PAGE = 4096, SPINS = 1 << 19 };

typedef struct limits_job {
    pool *p;
    const uint64_t *data;
    uint64_t (*spin)(uint64_t n);
    _Atomic uint64_t sink; /* what was computed is used, or it would not be computed */
} limits_job;

static void read_range(void *ctx, size_t begin, size_t end, unsigned thread) {
    limits_job *j = ctx;
    (void)thread;
    uint64_t s[8] = {0};
    for (size_t i = begin * (PAGE / 8); i < end * (PAGE / 8); i += 8)
        for (size_t k = 0; k < 8; k++) s[k] ^= j->data[i + k];
    j->sink ^= s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
}

static void spin_range(void *ctx, size_t begin, size_t end, unsigned thread) {
    limits_job *j = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) j->sink ^= j->spin(SPINS);
}

/* Seconds of the shortest of `rounds`. */
static double best_of(unsigned rounds, limits_job *j, size_t n, size_t grain, pool_fn fn) {
    double best = 1e9;
    for (unsigned i = 0; i <= rounds; i++) { /* the first one wakes threads and touches pages */
        uint64_t t = time_mono_ns();
        pool_run(j->p, n, grain, fn, j);
        double s = (double)(time_mono_ns() - t) * 1e-9;
        if (i > 0 && s < best) best = s;
    }
    return best > 0 ? best : 1e-9;
}

err_code limits_measure(machine_limits *out, unsigned n_threads, unsigned rounds, err *e) {
    *out = (machine_limits){0};
    if (!n_threads) n_threads = sys_cpu_count();
    void *data = mem_alloc_aligned(READ_BYTES);
    if (!data) return err_nomem(e, "a block of memory to read");
    memset(data, 1, READ_BYTES);
    limits_job j = {.data = data};
    err_code rc = pool_new(&j.p, n_threads, e);
    if (rc == ERR_OK) {
        out->read_gbs = (double)READ_BYTES * 1e-9 / best_of(rounds, &j, READ_BYTES / PAGE, 256, read_range);
        limit_kernels k = limit_kernels_get(isa_name(isa_get()));
        size_t n = pool_threads(j.p);
        double work = (double)n * SPINS * 1e-9;
        j.spin = k.int8;
        if (j.spin) out->int_gops = work * k.int8_ops / best_of(rounds, &j, n, 1, spin_range);
        j.spin = k.f32;
        if (j.spin) out->f32_gflops = work * k.f32_ops / best_of(rounds, &j, n, 1, spin_range);
        pool_free(j.p);
    }
    mem_free_aligned(data);
    return rc;
}
