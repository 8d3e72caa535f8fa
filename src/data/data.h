/* data: layer 1 of the stack. Labels, detectors, policy, redaction.
 *
 * Everything here is a function of its arguments: no files, no network, no clock, no state between calls but what the
 * caller holds. Who calls it: inference's guard (once for every request, before anything else may see it), the command
 * line (policy check, explain, table, …), tests.
 *
 *   labels.h   the ordered levels and the flags beside them
 *   detect.h   what a text holds: entities with their places
 *   policy.h   sentences → a table from label and flags to the providers that are allowed
 *   redact.h   values → placeholders, and back in what comes
 */
#ifndef POLDER_DATA_H
#define POLDER_DATA_H
#if !defined(POLDER_LAYER) || POLDER_LAYER < 3 || (POLDER_LAYER == 3 && !defined(POLDER_ROOM_DATA))
#error "data/data.h is layer 3: only data and the rooms above it include it"
#endif

#include "data/detect.h"
#include "data/labels.h"
#include "data/policy.h"
#include "data/redact.h"

#endif
