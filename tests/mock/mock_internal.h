/* What the mock's two files share. */
#ifndef POLDER_TESTS_MOCK_INTERNAL_H
#define POLDER_TESTS_MOCK_INTERNAL_H

#include "mock.h"

#include "base/buf.h"

#include <pthread.h>

#define MOCK_NAME_MAX  200
#define MOCK_RULES_MAX 128

typedef struct mock_rule {
    char name[120], behaviour[120];
    uint32_t left; /* UINT32_MAX: for ever */
} mock_rule;

typedef struct mock_conn {
    struct mock_conn *next;
    mock *m;
    int fd;
    uint32_t number;
    buf in, body;
    size_t n_header, n_taken;
    uint64_t first_ns;
    char path[2048];
    bool one_byte; /* every byte a segment of its own */
} mock_conn;

bool mock_send(mock_conn *c, const char *p, size_t n);
bool mock_chunk(mock_conn *c, const char *p, size_t n);
/* `more`: further header lines, each with its line end. */
bool mock_reply(mock_conn *c, int status, const char *more, const char *body, size_t n);
bool mock_wait(mock_conn *c, int ms);
const char *mock_header(const mock_conn *c, const char *name, size_t *n);
void mock_behaviour(mock *m, const char *model, char out[MOCK_NAME_MAX]);
void mock_note_answer(mock *m);

/* mock_answer.c. false: the connection is to be closed. */
bool mock_answer(mock_conn *c);

#endif
