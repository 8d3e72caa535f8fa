/* Admin operations of the inventory and the plan. */
#include "server/internal.h"

#include "base/json.h"
#include "operations/operations.h"

static err_code read_options(const char *op, const cJSON *args, inventory_options *o, err *e) {
    static const char *const known[] = {"from", "since", NULL};
    int64_t from = 0;
    err_code rc = admin_check_args(op, args, known, e);
    if (rc == ERR_OK && args) rc = json_get_int(args, "from", 0, (int64_t)1 << 53, &from, e);
    if (rc == ERR_OK && args) rc = json_get_str(args, "since", &o->since, e);
    o->from = (uint64_t)from;
    return rc;
}

static err_code run_inventory(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    inventory_options o = {0};
    err_code rc = read_options("inventory", args, &o, e);
    return rc == ERR_OK ? inventory_make(i, &o, out, e) : rc;
}

static err_code run_record(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    inventory_options o = {0};
    err_code rc = read_options("inventory.record", args, &o, e);
    return rc == ERR_OK ? inventory_record(i, by, &o, out, e) : rc;
}

static err_code run_plan(island *i, inference *inf, const identity *by, const cJSON *args, cJSON **out, err *e) {
    static const char *const known[] = {NULL};
    err_code rc = admin_check_args("plan.check", args, known, e);
    return rc == ERR_OK ? plan_check(i, out, e) : rc;
}

const admin_op admin_ops_inventory[] = {
    {"inventory", "what is kept and what is delegated, declared and observed: {from, since}", ROLE_OPERATOR,
     run_inventory, true},
    {"inventory.record", "the same, kept in the ledger: {from, since}", ROLE_OPERATOR, run_record, false},
    {"plan.check", "does every delegated model name have a substitute inside?", ROLE_OPERATOR, run_plan, true},
    {NULL, NULL, ROLE_ADMIN, NULL, false},
};
