/* Part of data's public header: sentences of a closed vocabulary, and the table that they mean.
 *
 *   sentence = zone | allow | never | treat | raise      one a line, or several with ';' between; '#': a comment
 *   zone     = "zone" NAME "=" "providers" "where" cond { "and" cond }
 *   cond     = FACT "in" VALUE { "," VALUE } | FACT "=" VALUE | FACT "<=" NUMBER [ "days" ]
 *   allow    = "allow" labels "to" place { "," place } [ "after" "redact" thing { "," thing } ]
 *   never    = "never" what { "," what } "outside" place { "," place }
 *   treat    = "treat" ( "unlabelled" | "detector-error" ) "as" LABEL
 *   raise    = "raise" "to" LABEL "when" "found" thing { "," thing }
 *   labels   = LABEL { "," LABEL } | "any label"
 *   place    = "on-prem" | ZONE | "any provider" | "provider" NAME
 *   what     = LABEL | FLAG
 *   thing    = an entity, a group of them, or a flag (detect.h)
 *   facts    : name, driver, jurisdiction, operator, operator-law, training, retention, certificates, contract, inside
 *
 * Meaning. Nothing is allowed but what an `allow` allows for the level itself (not for those below it). A `never` that
 * names the level, or a flag that is set, forbids every provider outside its places. Of several `allow` that reach one
 * provider at one level, what each wants redacted is redacted. A provider of which a fact is not known is outside every
 * zone whose condition asks for it. on-prem are the providers inside the perimeter; the local engine is always one.
 * Sentences of the same kind add up; their order means nothing. Without "treat unlabelled" it is the highest level,
 * and so is detector-error.
 *
 * A zone is defined once. Of two `treat` of the same thing the higher level counts. A flag in a `raise` counts where it
 * was declared too, not only where it was found. What has no placeholder (special-category words) cannot be named
 * after "redact"; a flag's name there means those that have one.
 *
 * Values are words or texts in quotes, compared exactly. Countries are ISO 3166-1 alpha-2 codes in capitals.
 * "EU" and "EEA" stand for their member states wherever a country can stand. The location of data (jurisdiction) and
 * the law that binds the operator (operator-law) are two facts.
 *
 * A policy is immutable; any thread may use it.
 */
#ifndef POLDER_DATA_POLICY_H
#define POLDER_DATA_POLICY_H

#include "base/bytes.h"
#include "data/detect.h"
#include "data/labels.h"

#include <cjson/cJSON.h>

#define POLICY_BYTES_MAX  (256u * 1024u)
#define PROVIDERS_MAX     64 /* the engine is number 0 of every list */
#define PROVIDER_NAME_MAX 40

/* Facts of a provider as its owner declared them. "" and negative numbers: not known. Countries are ISO 3166-1 alpha-2
 * in capitals. */
typedef struct provider_facts {
    char name[PROVIDER_NAME_MAX + 1]; /* lower case letters, digits, '.', '_' and '-' */
    char driver[16];                  /* "engine", "openai", "anthropic" */
    bool inside;                      /* of the perimeter */
    char operator_name[120];
    char country[3];      /* where the data is: "jurisdiction" */
    char operator_law[3]; /* whose law binds the operator */
    int32_t retention_days;
    int8_t training; /* on what it is sent: 1, 0 */
    char contract[200], certificates[200] /* comma-separated */, exit[200];
    double price_in, price_out; /* EUR for a million tokens */
} provider_facts;
extern const provider_facts provider_facts_engine;
provider_facts provider_facts_unknown(const char *name);

typedef struct policy policy;
/* `d` names the entities, and must outlive the policy. ERR_USAGE: "NAME:LINE:COLUMN: …", with the words possible
 * there. */
err_code policy_parse(policy **out, const label_set *labels, const detector *d, const char *text, size_t n,
                      const char *name, err *e);
void policy_free(policy *p); /* NULL is fine */
/* SHA-256 over "polder policy\n", the levels joined with ',', "\n" and the text: with it records name the policy. */
void policy_digest(const policy *p, uint8_t out[SHA256_LEN]);
/* The text of the policy of an island that has none: everything stays inside, and what nobody labelled counts as
 * the second level (internal). Into out. */
void policy_default_text(const label_set *labels, buf *out);

/* The sensitivity of a request: `start` joined with everything declared (has_level: a level was), raised by what was
 * found (its flags, and the sentences "raise") and by failure of a detector. */
sensitivity policy_label(const policy *p, sensitivity start, bool has_level, const entity_set *found,
                         bool detector_failed);

/* The table: for each level and set of flags the providers that are allowed, as bits by their place in the list. */
typedef struct policy_table policy_table;
err_code policy_compile(policy_table **out, const policy *p, const provider_facts *providers, size_t n, err *e);
void policy_table_free(policy_table *t); /* NULL is fine */
uint64_t policy_allowed(const policy_table *t, sensitivity s);
/* What must be redacted before `provider`, which is allowed, may see it. Special-category words never are. */
const entity_set *policy_redactions(const policy_table *t, sensitivity s, size_t provider);

/* ---- for people (policy_report.c) ------------------------------------------------------------------------- */

/* Why: {"label", "raised_by": [...], "allowed": [{"provider", "redact": [...], "lines": [n…]}], "rejected":
 * [{"provider", "why", "lines"}], "lines": [{"line", "text"}]}. */
err_code policy_explain(const policy *p, const provider_facts *providers, size_t n, sensitivity start, bool has_level,
                        const entity_set *found, bool detector_failed, cJSON **out, err *e);
/* The grid: a row for each level and set of flags, a column for each provider. */
err_code policy_grid_csv(const policy *p, const provider_facts *providers, size_t n, buf *out, err *e);
err_code policy_grid_html(const policy *p, const provider_facts *providers, size_t n, buf *out, err *e);
err_code policy_grid_json(const policy *p, const provider_facts *providers, size_t n, cJSON **out, err *e);
/* Cells that differ: {"opened": [...], "closed": [...], "redaction": [...] (with "less": what was redacted no longer
 * is), "same": n}, and "opened_undeclared": cells
 * that `to` would open for a provider that nobody has declared yet, with the facts of one (see policy_prove).
 * ERR_INVALID: the two were read with different levels. */
err_code policy_diff(const policy *from, const policy *to, const provider_facts *providers, size_t n, cJSON **out,
                     err *e);
/* One statement: "LABEL|FLAG|anything never leaves PLACE", "LABEL|FLAG|anything never reaches PLACE", "LABEL|FLAG never
 * leaves PLACE without redact THING"; lists with ',' where the policy's sentences have them.
 *
 * What is proven. Every cell (level and set of flags) that the statement speaks of is looked at, and in each
 *  1. every provider given: none that the table allows breaks the statement; and
 *  2. every provider that could be declared, whatever its facts, known or not: none that the sentences would allow
 *     breaks it. This is decided exactly (a search over the conditions, policy_case.c), not by trying examples; where a
 *     limit of steps ends the search, the statement counts as not proven. Facts are taken to be independent, lists
 *     of certificates to be of any length; no declared provider is named "engine".
 * It is about the sentences and the facts as declared: that a declared fact is true is not proven, nor that the
 * detectors find everything.
 *
 * ERR_OK: it holds. ERR_NO: it does not; *out {"statement", "holds", "holds_as_declared", "cells_checked",
 * "cells_broken", "providers", "cells": [{"label", "provider", "lines"}], "undeclared": [{"label", "provider": facts of
 * one that would break it, "lines"}], "undecided": [{"label"}]} is set in both cases. ERR_USAGE: not a statement. */
err_code policy_prove(const policy *p, const provider_facts *providers, size_t n, const char *statement, cJSON **out,
                      err *e);
/* Expectations of an owner, one a line (policy_expect.c has their form): "internal, personal -> on-prem, mistral after
 * redact personal", "confidential -x-> openai", "given mistral jurisdiction = FR, training = no". *out {"lines":
 * [{"line", "text", "ok", "why"}], "passed", "failed"}. ERR_OK: all are met; ERR_NO: not all (*out is set); ERR_USAGE:
 * cannot be read. */
err_code policy_expect(const policy *p, const provider_facts *providers, size_t n, const char *text, size_t n_text,
                       const char *name, cJSON **out, err *e);
/* What deserves a second look, [{"line", "text"}]: zones that hold nobody, names of no provider, levels that nothing
 * allows, sentences that do nothing. None of it is an error. */
err_code policy_remarks(const policy *p, const provider_facts *providers, size_t n, cJSON **out, err *e);

#endif
