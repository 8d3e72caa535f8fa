/* Admin operations of the policy. */
#include "server/internal.h"

#include "base/json.h"

#include <string.h>

static err_code run_show(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {NULL};
    err_code rc = admin_check_args("policy.show", args, known, e);
    return rc == ERR_OK ? policy_active(i, out, e) : rc;
}

static err_code run_activate(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {"text", NULL};
    const char *text;
    err_code rc = admin_check_args("policy.activate", args, known, e);
    if (rc == ERR_OK) rc = admin_need_str("policy.activate", args, "text", &text, e);
    return rc == ERR_OK ? policy_activate(i, inf, by, text, strlen(text), out, e) : rc;
}

const admin_op admin_ops_policy[] = {
    {"policy.activate", "put a policy into force, or with two keys propose it or agree: {text}", ROLE_ADMIN,
     run_activate, false},
    {"policy.show", "the policy in force, its digest, since when and by whom; the one that waits", ROLE_OPERATOR,
     run_show, true},
    {NULL, NULL, ROLE_ADMIN, NULL, false},
};
