/* operations: layer 6 of the stack. The inventory, and the plan for the day when a provider is gone.
 *
 * The inventory says for each workload (a model name) and each of the six layers whether it is kept or delegated, to
 * whom, and on what evidence. There are two kinds of evidence, and they stand side by side: what is *declared* (facts
 * of providers, candidates of model names, the policy in force) and what was *observed* in a range of the ledger
 * (requests, tokens and bytes by destination). What was observed and is not declared stands first.
 *
 * Invariants
 *  1. Making an inventory changes nothing: it reads an island that is open in any mode, beside a running server.
 *  2. What left is counted by the outcomes in the ledger (attempts[].sent_bytes of completed and failed), not by what
 *     was meant to leave. An egress that has no outcome "may have left" with all its bytes; it is never counted as
 *     nothing.
 *  3. Memory is bounded whatever the ledger holds; where a bound was met, "complete" is false.
 *
 * The JSON is described in docs/guide/inventory.md. Any thread may call; nothing is kept between calls.
 */
#ifndef POLDER_OPERATIONS_H
#define POLDER_OPERATIONS_H
#if !defined(POLDER_LAYER) || POLDER_LAYER < 6 || (POLDER_LAYER == 6 && !defined(POLDER_ROOM_OPERATIONS))
#error "operations/operations.h is layer 6: only operations and the rooms above it include it"
#endif

#include "inference/inference.h"

typedef struct inventory_options {
    uint64_t from;     /* the first record that is looked at */
    const char *since; /* or the first one not before this day or time ("2026-01-31", RFC 3339 in UTC); may be NULL */
} inventory_options;

/* ERR_USAGE: `since` is no date, or `from` is past the end of the ledger. */
err_code inventory_make(island *i, const inventory_options *o, cJSON **out, err *e);
/* The same, and kept: a record "inventory" with the SHA-256 of its canonical JSON and the whole as the content
 * "inventory". Later inventories say what has changed since. *out has "recorded": the record's number. */
err_code inventory_record(island *i, const identity *by, const inventory_options *o, cJSON **out, err *e);
/* One page for people, from what inventory_make gave: no script, nothing from outside, prints on A4. */
err_code inventory_html(const cJSON *inventory, buf *out, err *e);

/* Does every delegated model name have a substitute inside that the policy allows? A name is delegated for a label
 * where the policy lets only providers outside of the perimeter answer. *out {"ok", "unlabelled_as", "names":
 * [{"model", "ok", "delegated_to", "exit", "substitutes", "covered": [labels], "missing": [labels]}], "kept": how many
 * names need nothing}. ERR_OK also where "ok" is false. */
err_code plan_check(island *i, cJSON **out, err *e);

#endif
