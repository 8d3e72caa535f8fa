/* commit: the ledger's writer, one thread that makes groups of records durable. */
#ifndef POLDER_AUDIT_COMMIT_H
#define POLDER_AUDIT_COMMIT_H

#include "audit/internal.h"

/* Publish what recovery found, take the mark of a clean stop away, start the thread. */
err_code commit_start(ledger *l, err *e);
/* Finish the queue, publish, mark the stop as clean, end the thread. Without a thread: nothing. */
void commit_stop(ledger *l);

/* As ledger_create with another first segment's size: small ledgers for tests. */
err_code ledger_create_sized(const char *dir, const char *origin, vfs *fs, uint32_t segment_len, err *e);

#endif
