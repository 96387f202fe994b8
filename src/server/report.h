/*
 * report.h
 *	  The one place where an LlmError becomes an ereport.
 *
 * src/server/report.h
 */
#ifndef LLM_REPORT_H
#define LLM_REPORT_H

#include "postgres.h"

#include "src/common/util/error.h"

/* The SQLSTATE for an LlmErrorCode, as an errcode() value. */
extern int llm_report_sqlstate(int32 code);

/*
 * A text of unknown encoding (a path, a message) for this database, palloc'ed:
 * where it does not fit, question marks stand for what is not ASCII.
 */
extern char *llm_report_displayable(const char *text);

/* ereport(elevel) with the error's message, hint and SQLSTATE. */
extern void llm_report(int elevel, const LlmError *err);

#endif /* LLM_REPORT_H */
