/* Internal to inference: folders for work that must leave nothing behind. DIR/tmp/XXXX while it lasts; what a killed
 * process left (nobody holds its lock) is removed when the next one is made. Also DIR/pulls/NAME, which is kept. */
#ifndef POLDER_INFERENCE_WORKDIR_H
#define POLDER_INFERENCE_WORKDIR_H

#include "base/error.h"

#include <stdint.h>

typedef struct workdir {
    char path[4096];
    int fd; /* holds the lock */
} workdir;
err_code workdir_new(workdir *w, const char *island, err *e);
/* DIR/pulls/NAME. ERR_BUSY where another pull works there. */
err_code workdir_keep(workdir *w, const char *island, const char *name, err *e);
void workdir_remove(workdir *w); /* with all files in it */
void workdir_close(workdir *w);  /* the files stay */
/* ERR_IO where the file system of `path` has less room. */
err_code workdir_check_room(const char *path, uint64_t bytes, const char *what, err *e);

#endif
