/* Internal to engine: a model's packed weights and its tokenizer's tables in a file, so that a second start makes
 * neither. A cache: it can be deleted at any time, and whatever is wrong with it only costs the time to make it anew.
 *
 * The file, little endian (numbers as this machine has them; another order is another magic):
 *
 *   0      header, PACKFILE_HEADER bytes: magic, version, what it was made from, where the sections are and their
 *          sums, its own sum last
 *   4096   sections, each at a multiple of 64:
 *            entries  (packfile_entry) one for each matrix and each vector, in the order in which the model loads them
 *            sums     u64 for each PACKFILE_CHUNK bytes of the data, the last of them of what is left
 *            vectors  binary32, where the entries say
 *            vocab    vocab_image.h
 *   data   at a multiple of 2 MiB: packed matrices (kernels.h), where the entries say, each at a multiple of 64; the
 *          file is filled up to a multiple of 2 MiB
 *
 * It is written under another name, synced, and renamed: what has the name is whole, or the disk has lost something,
 * which the sums find. Sections are read into memory and compared with their sums at once, before anything of them is
 * used; the data is mapped, and compared with its sums by who uses it (holding.h).
 *
 * packfile_parse trusts nothing: a file with right sums and wrong content is refused or gives wrong numbers, but reads
 * nothing outside of itself (tests/fuzz/packed.c).
 */
#ifndef POLDER_ENGINE_PACKFILE_H
#define POLDER_ENGINE_PACKFILE_H

#include "base/bytes.h"
#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PACKFILE_VERSION     1 /* of this layout and of the packed form of kernels.h */
#define PACKFILE_HEADER      4096
#define PACKFILE_CHUNK       ((size_t)2 << 20)
#define PACKFILE_ENTRIES_MAX (1u << 20)
#define PACKFILE_SECTION_MAX ((uint64_t)4 << 30)

/* 64 bits of n bytes. Every change inside of one 8-byte word is found; of others one in 2^64 is not. Not against
 * somebody who wants two to be equal: that is what the source's SHA-256 is for. Runs as fast as memory. */
uint64_t packfile_sum(const void *p, size_t n);

/* What a packed file was made from. */
typedef struct packfile_source {
    uint64_t size, device, inode;
    int64_t mtime_ns, ctime_ns;
    uint64_t head_bytes, head_sum; /* all before the tensors: read again from the source, and compared */
    uint8_t sha256[SHA256_LEN];
    uint64_t has_sha256; /* 1: all its bytes were hashed when it was packed */
} packfile_source;
bool packfile_same_stat(const packfile_source *a, const packfile_source *b);

typedef struct packfile_entry {
    uint32_t tensor; /* number in the source */
    uint32_t type;
    uint32_t first, rows, cols; /* rows [first, first + rows) of the tensor's */
    uint32_t is_vector;         /* rows * cols binary32 in the section of vectors; 0: a matrix in the data */
    uint64_t at, len;           /* bytes of that section */
} packfile_entry;

enum { PACKFILE_S_ENTRIES, PACKFILE_S_SUMS, PACKFILE_S_VECTORS, PACKFILE_S_VOCAB, PACKFILE_SECTIONS };

/* What stands in a file, read or to be written. */
typedef struct packfile_content {
    packfile_source source;
    struct {
        const void *p;
        uint64_t len;
    } section[PACKFILE_SECTIONS];
    const uint8_t *data; /* to be written; a file that was read is mapped from data_at */
    uint64_t data_at, data_len;
} packfile_content;
static inline size_t packfile_entry_count(const packfile_content *c) {
    return (size_t)(c->section[PACKFILE_S_ENTRIES].len / sizeof(packfile_entry));
}
static inline const packfile_entry *packfile_entries(const packfile_content *c) {
    return c->section[PACKFILE_S_ENTRIES].p;
}
static inline size_t packfile_sum_count(uint64_t data_len) {
    return (size_t)((data_len + PACKFILE_CHUNK - 1) / PACKFILE_CHUNK);
}

typedef struct packfile {
    packfile_content c;
    void *memory[PACKFILE_SECTIONS]; /* aligned to 64; who wants to keep one takes it and puts NULL here */
    int fd;
} packfile;
/* ERR_NOT_FOUND where there is none; ERR_INVALID with what is wrong; ERR_NOMEM. */
err_code packfile_open(packfile **out, const char *path, err *e);
void packfile_close(packfile *f); /* NULL is fine */
/* The file's stat is another, but not its bytes: note the new one. */
err_code packfile_rebind(packfile *f, const char *path, const packfile_source *now, err *e);

/* Bytes as a file has them: `get` copies n bytes from `at`, ERR_INVALID where there are none. */
typedef err_code (*packfile_get)(void *ctx, uint64_t at, void *p, size_t n, err *e);
err_code packfile_parse(packfile *f, uint64_t file_len, packfile_get get, void *ctx, const char *path, err *e);

/* Writes c (its SUMS section is filled in from the data: memory for packfile_sum_count of them) under `path`, whole or
 * not at all. stop (may be NULL) ends it with ERR_CANCELLED. Removes what writers that died have left behind. */
err_code packfile_write(const packfile_content *c, uint64_t *sums, const char *path, atomic_bool *stop, err *e);

#endif
