/* segment: headers of segments and frames as bytes (layout in ledger_format.h). Knows no policy: what a bad frame
 * means for the ledger is decided by who scans (scan.c, verify.c). */
#ifndef POLDER_AUDIT_SEGMENT_H
#define POLDER_AUDIT_SEGMENT_H

#include "audit/ledger_format.h"
#include "audit/merkle.h"
#include "audit/note.h"
#include "base/file.h"

typedef struct seg_header {
    frontier edge; /* of the tree before the segment; edge.size is its first record */
    char note[SEG_NOTE_MAX];
    size_t note_len;
} seg_header;

void seg_name(char out[SEG_NAME_LEN + 1], uint64_t first);
bool seg_name_parse(uint64_t *first, const char *name);
void seg_header_encode(uint8_t out[SEG_HEADER_LEN], const uint8_t log_id[32], const seg_header *h);
/* Form and hash only; the note is not opened. ERR_CORRUPT with the sentence. */
err_code seg_header_decode(seg_header *out, const uint8_t in[SEG_HEADER_LEN], const uint8_t log_id[32], err *e);
/* The whole check: form, the note's signature, and that its size and root are the frontier's. `name` is for errors. */
err_code seg_header_open(seg_header *out, vfs *fs, vfile *f, const char *name, const uint8_t log_id[32],
                         const note_key *k, err *e);

typedef struct frame_header {
    uint32_t count, note_len;
    uint64_t first, time_ms, entries_len, contents_len;
} frame_header;

/* Bytes from the magic to the end of the SHA-256, and the same rounded up to whole sectors. */
uint64_t frame_len(const frame_header *h);
uint64_t frame_room(const frame_header *h);
void frame_header_encode(uint8_t out[FRAME_HEADER_LEN], const frame_header *h);

typedef enum frame_state {
    FRAME_GOOD,
    FRAME_NONE, /* a zero sector, or no room for one: the segment ends here */
    FRAME_BAD   /* something that is not a whole frame; why[] says what */
} frame_state;

typedef struct frame {
    frame_header h;
    buf entries; /* h.entries_len bytes; the caller frees it */
    char note[NOTE_OWN_MAX];
    char why[160];
    uint64_t contents_off; /* in the file */
} frame;

/* Decode the header at off of a file of seg_len bytes: form only. */
err_code frame_peek(vfs *fs, vfile *f, uint64_t off, uint64_t seg_len, frame *out, frame_state *state, err *e);
/* Read and check a frame: lengths, entries that fill their section, SHA-256, zero padding. Contents are hashed in
 * pieces and not kept. Errors are those of reading and memory only; everything else is a state. */
err_code frame_load(vfs *fs, vfile *f, uint64_t off, uint64_t seg_len, frame *out, frame_state *state, err *e);
/* Only the entries, unchecked but for their walk: for reading a record whose hash is compared with the tree. */
err_code frame_load_entries(vfs *fs, vfile *f, uint64_t off, uint64_t seg_len, frame *out, frame_state *state, err *e);
void frame_free(frame *f);

/* Walk entries: *at begins at 0; false at the end. */
bool entries_next(const uint8_t *p, size_t n, size_t *at, const uint8_t **entry, size_t *len);

/* Sentence for a result of a vfs call (0 or -errno). */
err_code fs_error(int rc, err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* pread of exactly n bytes; a short read is -ENODATA. */
int fs_read_exact(vfs *fs, vfile *f, void *p, size_t n, uint64_t off);
bool all_zero(const void *p, size_t n);

#endif
