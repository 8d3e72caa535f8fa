/* disk: a simulated disk in memory behind a vfs, that knows what a power loss may leave of it.
 *
 * Model (ALICE's, Pillai et al. 2014, at the grain of 512-byte sectors). What was written since a file's last sync may
 * reach the disk or not, each sector for itself and in any of the states it went through; a sector may be torn at any
 * byte; the file's size may be any that it had; bytes that a size covers and that were never written may be anything.
 * Names (create, rename, remove) reach the disk with a sync of the folder, before that each may or may not, in any
 * combination; a rename is atomic. allocate() writes zeros and syncs.
 *
 * It allocates with malloc, so that mem_fail_after strikes only the code under test. Thread-safe. */
#ifndef POLDER_TESTS_DISK_H
#define POLDER_TESTS_DISK_H

#include "base/file.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct simdisk simdisk;

simdisk *sim_new(void);
void sim_free(simdisk *d);
vfs *sim_vfs(simdisk *d);

/* From the n-th changing call on (write, sync, truncate, allocate, rename, unlink) every call fails with -EIO and
 * changes nothing: the power is gone. n < 0: never. */
void sim_crash_after(simdisk *d, int64_t n);
int64_t sim_changes(simdisk *d); /* changing calls so far */
/* What may be there after the power came back: a new disk on which everything is durable. Seed 0: nothing that was not
 * synced; seed 1: everything; others: at random. */
simdisk *sim_after_crash(simdisk *d, uint64_t seed);
/* A disk whose syncs say that they worked and do nothing: the mutant that a crash test must catch. */
void sim_lose_syncs(simdisk *d, bool on);

typedef enum sim_call { SIM_WRITE, SIM_SYNC, SIM_ALLOCATE, SIM_RENAME, SIM_SYNC_DIR, SIM_CALLS } sim_call;
/* The n-th call of this kind from now (0: the next) fails with -error, and `times` in all (-1: for ever). A failing
 * write has written half of its bytes; after a failing sync the system takes what was not synced for clean, as Linux
 * does: it stays readable, and later syncs do not write it. path_part: only on files whose path contains it; NULL: any.
 */
void sim_fail(simdisk *d, sim_call call, int64_t n, int64_t times, int error, const char *path_part);

/* The power (or the process) goes with the next fault that strikes: no call changes anything after it, until
 * sim_crash_after(d, -1). */
void sim_stop_at_fault(simdisk *d);

/* For tests that damage bytes. All changes are durable at once. */
bool sim_read(simdisk *d, const char *path, buf *out);
bool sim_flip(simdisk *d, const char *path, uint64_t byte, unsigned bit);
void sim_put(simdisk *d, const char *path, const void *p, size_t n);
bool sim_remove(simdisk *d, const char *path);
/* The i-th path in no order; NULL past the last. */
const char *sim_path(simdisk *d, unsigned i);

#endif
