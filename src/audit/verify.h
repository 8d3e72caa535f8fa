/* verify: what the two verifiers share. */
#ifndef POLDER_AUDIT_VERIFY_H
#define POLDER_AUDIT_VERIFY_H

#include "audit/tiles.h"

#define PROBLEM_LINES 100

void report_init(verify_report *r);
/* One problem, one line; lines past the hundredth are counted only. Foreign bytes in arguments become '?'. */
void problem(verify_report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A line that is no problem ("... is being written"). */
void remark(verify_report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* ERR_OK, ERR_NO with a sentence where there were problems, ERR_NOMEM. */
err_code report_result(const verify_report *r, const char *what, err *e);

/* audit_verify_island on any vfs. */
err_code verify_island_fs(vfs *fs, const char *dir, bool contents, const char *vkey, verify_report *r, err *e);

#endif
