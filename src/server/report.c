/*
 * report.c
 *	  The one place where an LlmError becomes an ereport.
 *
 * Messages are UTF-8, since they quote file names and tokens.  In a database
 * of another encoding, what is not ASCII is shown as question marks: a message
 * must never fail to appear, and conversion can.
 *
 * src/server/report.c
 */
#include "src/server/report.h"

#include "common/string.h"
#include "mb/pg_wchar.h"

/* Indexed by LlmErrorCode. */
static const int sqlstates[] = {
	[LLM_OK] = ERRCODE_INTERNAL_ERROR,
	[LLM_ERROR_INVALID] = ERRCODE_INVALID_PARAMETER_VALUE,
	[LLM_ERROR_FORMAT] = ERRCODE_INVALID_TEXT_REPRESENTATION,
	[LLM_ERROR_UNSUPPORTED] = ERRCODE_FEATURE_NOT_SUPPORTED,
	[LLM_ERROR_NOT_FOUND] = ERRCODE_UNDEFINED_OBJECT,
	[LLM_ERROR_IO] = ERRCODE_IO_ERROR,
	[LLM_ERROR_NO_MEMORY] = ERRCODE_OUT_OF_MEMORY,
	[LLM_ERROR_LIMIT] = ERRCODE_PROGRAM_LIMIT_EXCEEDED,
	[LLM_ERROR_TEMPLATE] = ERRCODE_INVALID_PARAMETER_VALUE,
	[LLM_ERROR_CANCELLED] = ERRCODE_QUERY_CANCELED,
	[LLM_ERROR_QUEUE_FULL] = ERRCODE_INSUFFICIENT_RESOURCES,
	[LLM_ERROR_UNAVAILABLE] = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
	[LLM_ERROR_EXECUTOR] = ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	/* catchable in PL/pgSQL, unlike query_canceled */
	[LLM_ERROR_TIMEOUT] = ERRCODE_OPERATOR_INTERVENTION,
	[LLM_ERROR_INTERNAL] = ERRCODE_INTERNAL_ERROR,
};

StaticAssertDecl(lengthof(sqlstates) == LLM_ERROR_CODE_COUNT,
				 "every error code has its SQLSTATE");

int
llm_report_sqlstate(int32 code)
{
	if (code <= LLM_OK || code >= LLM_ERROR_CODE_COUNT)
		return ERRCODE_INTERNAL_ERROR;
	return sqlstates[code];
}

char *
llm_report_displayable(const char *text)
{
	char *copy = pstrdup(text);
	int len = (int) strlen(copy);

	if (pg_is_ascii(copy))
		return copy;
	if (GetDatabaseEncoding() == PG_UTF8 &&
		pg_verify_mbstr(PG_UTF8, copy, len, true))
		return copy;
	for (char *p = copy; *p != '\0'; p++)
		if (IS_HIGHBIT_SET(*p))
			*p = '?';
	return copy;
}

void
llm_report(int elevel, const LlmError *err)
{
	char *message = llm_report_displayable(err->message);
	char *hint =
		err->hint[0] != '\0' ? llm_report_displayable(err->hint) : NULL;

	ereport(elevel, (errcode(llm_report_sqlstate(err->code)),
					 errmsg_internal("%s", message),
					 hint != NULL ? errhint("%s", hint) : 0));
	pfree(message);
	if (hint != NULL)
		pfree(hint);
}
