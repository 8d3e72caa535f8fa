/* Admin operations of the ledger. */
#include "server/internal.h"

static err_code run_replayed(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {"since",        "through", "answers",  "others", "drawn",    "equal", "unequal",
                                        "not_possible", "seed",    "numerics", "isa",    "outcomes", NULL};
    err_code rc = admin_check_args("audit.replayed", args, known, e);
    return rc == ERR_OK ? replay_note(i, by, args, out, e) : rc;
}

const admin_op admin_ops_audit[] = {
    {"audit.replayed", "keep in the ledger what a check by replay found (polder audit replay --sample makes it)",
     ROLE_ADMIN, run_replayed, false},
    {NULL, NULL, ROLE_ADMIN, NULL, false},
};
