/*
 * text_convert.c
 *	  Between the database's text and the UTF-8 that models speak.
 *
 * src/server/sql/text_convert.c
 */
#include "postgres.h"

#include "src/common/util/utf8.h"
#include "src/server/pg_compat.h"
#include "src/server/sql/text_convert.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

static LlmTemplateText
bytes_to_utf8(const char *bytes, int len)
{
	LlmTemplateText result;
	char *converted = pg_server_to_any(bytes, len, PG_UTF8);

	result.data = converted;
	result.len = converted == bytes ? (size_t) len : strlen(converted);
	return result;
}

LlmTemplateText
llm_text_to_utf8(const text *value)
{
	return bytes_to_utf8(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

text *
llm_text_from_utf8(const char *utf8, size_t len)
{
	StringInfoData clean;
	const char *nul = len > 0 ? memchr(utf8, '\0', len) : NULL;
	char *converted;

	if (nul != NULL)
	{
		initStringInfo(&clean);
		for (size_t i = 0; i < len; i++)
		{
			if (utf8[i] == '\0')
				appendBinaryStringInfo(&clean, "\xEF\xBF\xBD", 3);
			else
				appendStringInfoChar(&clean, utf8[i]);
		}
		utf8 = clean.data;
		len = clean.len;
	}
	converted = pg_any_to_server(utf8, (int) len, PG_UTF8);
	if (converted == utf8)
		return cstring_to_text_with_len(utf8, (int) len);
	return cstring_to_text(converted);
}

LlmTemplateText
llm_json_text(Datum value, Oid type_id)
{
	if (type_id == JSONBOID)
	{
		Jsonb *jsonb = DatumGetJsonbP(value);
		char *cstring = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));

		return bytes_to_utf8(cstring, (int) strlen(cstring));
	}
	Assert(type_id == JSONOID || type_id == TEXTOID);
	return llm_text_to_utf8(DatumGetTextPP(value));
}

LlmTemplateText
llm_json_member(LlmTemplateText object, const char *key)
{
	LOCAL_FCINFO(fcinfo, 2);
	LlmTemplateText result = { NULL, 0 };
	text *json = llm_text_from_utf8(object.data, object.len);
	Datum value;

	/* json_object_field returns the value's own text, or SQL NULL */
	InitFunctionCallInfoData(*fcinfo, NULL, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(json);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = CStringGetTextDatum(key);
	fcinfo->args[1].isnull = false;
	value = json_object_field(fcinfo);
	if (fcinfo->isnull)
		return result;
	result = llm_text_to_utf8(DatumGetTextPP(value));
	if (result.len == 4 && memcmp(result.data, "null", 4) == 0)
		result.data = NULL;
	return result;
}

char
llm_json_kind(LlmTemplateText json)
{
	for (size_t i = 0; i < json.len; i++)
		if (strchr(" \t\r\n", json.data[i]) == NULL)
			return json.data[i];
	return '\0';
}

void
llm_append_json_string(StringInfo buf, const char *utf8, size_t len)
{
	size_t off = 0;

	appendStringInfoChar(buf, '"');
	while (off < len)
	{
		uint32_t cp;
		int n = llm_utf8_decode(utf8 + off, len - off, &cp);

		if (n == 0)
		{
			appendStringInfoString(buf, "\\ufffd");
			off++;
			continue;
		}
		if (cp == '"' || cp == '\\')
			appendStringInfo(buf, "\\%c", (char) cp);
		else if (cp == '\n')
			appendStringInfoString(buf, "\\n");
		else if (cp == '\r')
			appendStringInfoString(buf, "\\r");
		else if (cp == '\t')
			appendStringInfoString(buf, "\\t");
		else if (cp == 0)
			appendStringInfoString(buf, "\\ufffd"); /* jsonb refuses U+0000 */
		else if (cp < 0x20)
			appendStringInfo(buf, "\\u%04x", cp);
		else
			appendBinaryStringInfo(buf, utf8 + off, n);
		off += n;
	}
	appendStringInfoChar(buf, '"');
}
