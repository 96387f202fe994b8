/*
 * text_convert.c
 *	  Between the database's text and the UTF-8 that models speak.
 *
 * src/server/sql/text_convert.c
 */
#include "postgres.h"

#include "src/common/util/json_slice.h"
#include "src/common/util/utf8.h"
#include "src/server/pg_compat.h"
#include "src/server/report.h"
#include "src/server/sql/text_convert.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

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

LlmTemplateText
llm_text_argument(FunctionCallInfo fcinfo, int arg)
{
	Assert(!PG_ARGISNULL(arg));
	return llm_text_to_utf8(PG_GETARG_TEXT_PP(arg));
}

/*
 * UTF-8 without the characters that a text cannot hold: U+0000, and in
 * encodings that lack it U+FFFD, which stands for bytes that are no character.
 * Returns the argument where there are none.
 */
static const char *
replace_unfit(const char *utf8, size_t *len)
{
	bool is_unicode = GetDatabaseEncoding() == PG_UTF8 ||
					  GetDatabaseEncoding() == PG_SQL_ASCII;
	StringInfoData clean;

	if (*len == 0 ||
		(memchr(utf8, '\0', *len) == NULL &&
		 (is_unicode || memmem(utf8, *len, REPLACEMENT, 3) == NULL)))
		return utf8;
	initStringInfo(&clean);
	for (size_t i = 0; i < *len; i++)
	{
		bool is_replacement =
			*len - i >= 3 && memcmp(utf8 + i, REPLACEMENT, 3) == 0;

		if (utf8[i] != '\0' && (is_unicode || !is_replacement))
			appendStringInfoChar(&clean, utf8[i]);
		else
			appendStringInfoString(&clean, is_unicode ? REPLACEMENT : "?");
		if (!is_unicode && is_replacement)
			i += 2;
	}
	*len = (size_t) clean.len;
	return clean.data;
}

/* To an encoding other than UTF-8.  False: it lacks a character. */
static bool
convert_from_utf8(const char *utf8, int len, char **converted)
{
	int encoding = GetDatabaseEncoding();
	Oid function_id = FindDefaultConversionProc(PG_UTF8, encoding);
	Size size = ((Size) len + 1) * MAX_CONVERSION_GROWTH + 1;

	if (!OidIsValid(function_id))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("default conversion function for encoding \"%s\" to "
						"\"%s\" does not exist",
						pg_encoding_to_char(PG_UTF8),
						pg_encoding_to_char(encoding))));
	*converted = MemoryContextAllocHuge(CurrentMemoryContext, size);
	return pg_do_encoding_conversion_buf(
			   function_id, PG_UTF8, encoding, (unsigned char *) utf8, len,
			   (unsigned char *) *converted, (int) Min(size, PG_INT32_MAX),
			   true) == len;
}

text *
llm_text_try_from_utf8(const char *utf8, size_t len, LlmError *err)
{
	const char *clean;
	char *converted;

	if (len > MaxAllocSize / MAX_CONVERSION_GROWTH)
	{
		llm_error_set(err, LLM_ERROR_LIMIT,
					  "a text of %zu bytes is larger than the limit of %zu",
					  len, (size_t) MaxAllocSize / MAX_CONVERSION_GROWTH);
		return NULL;
	}
	clean = replace_unfit(utf8, &len);
	if (GetDatabaseEncoding() == PG_UTF8 ||
		GetDatabaseEncoding() == PG_SQL_ASCII)
	{
		if (pg_verify_mbstr(PG_UTF8, clean, (int) len, true))
			return cstring_to_text_with_len(clean, (int) len);
	}
	else if (convert_from_utf8(clean, (int) len, &converted))
		return cstring_to_text(converted);
	llm_error_set(err, LLM_ERROR_FORMAT,
				  "the text has characters that the database's encoding "
				  "\"%s\" lacks",
				  GetDatabaseEncodingName());
	return NULL;
}

text *
llm_text_from_utf8(const char *utf8, size_t len)
{
	LlmError err;
	text *result = llm_text_try_from_utf8(utf8, len, &err);

	if (result == NULL)
		llm_report(ERROR, &err);
	return result;
}

Datum
llm_jsonb_from_utf8(const char *utf8, size_t len)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text_to_cstring(
											 llm_text_from_utf8(utf8, len))));
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

/* -- members of an object: the text is known to be JSON -- */

static char *
key_text(LlmJsonSlice quoted)
{
	LlmTemplateText value = { quoted.data, quoted.len };
	cJSON *string;
	char *key;

	if (memchr(quoted.data, '\\', quoted.len) == NULL)
		return pnstrdup(quoted.data + 1, quoted.len - 2);
	string = llm_json_parse_value(value, "key");
	key = pstrdup(string->valuestring);
	cJSON_Delete(string);
	return key;
}

bool
llm_json_next_member(LlmTemplateText object, size_t *off, char **key,
					 LlmTemplateText *value)
{
	LlmJsonSlice slice = { object.data, object.len };
	LlmJsonSlice name;
	LlmJsonSlice member;

	if (!llm_json_slice_next_member(slice, off, &name, &member))
		return false;
	*key = key_text(name);
	value->data = member.data;
	value->len = member.len;
	return true;
}

static bool
is_null(LlmTemplateText value)
{
	return value.len == 4 && memcmp(value.data, "null", 4) == 0;
}

LlmTemplateText
llm_json_member(LlmTemplateText object, const char *key)
{
	LlmTemplateText result = { NULL, 0 };
	LlmTemplateText value;
	size_t off = 0;
	char *name;

	while (llm_json_next_member(object, &off, &name, &value))
	{
		if (strcmp(name, key) == 0)
			result = value;
		pfree(name);
	}
	if (result.data != NULL && is_null(result))
		result.data = NULL;
	return result;
}

static bool
has_nul_escape(LlmTemplateText json)
{
	for (size_t i = 0; i + 6 <= json.len; i++)
		if (json.data[i] == '\\' && memcmp(json.data + ++i, "u0000", 5) == 0)
			return true;
	return false;
}

cJSON *
llm_json_parse_value(LlmTemplateText value, const char *what)
{
	LlmError err;
	cJSON *json;

	if (has_nul_escape(value))
		ereport(ERROR, (errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
						errmsg("\"%s\" must not contain \\u0000", what)));
	/* cJSON refuses numbers of more than 63 digits */
	if (value.len > 0 && strchr("-0123456789", value.data[0]) != NULL)
		json =
			cJSON_CreateNumber(strtod(pnstrdup(value.data, value.len), NULL));
	else
		json = llm_json_parse(value.data, value.len, what, &err);
	if (json == NULL)
		llm_report(ERROR, &err);
	return json;
}

char
llm_json_kind(LlmTemplateText json)
{
	return llm_json_slice_kind((LlmJsonSlice){ json.data, json.len });
}

void
llm_append_json_string(StringInfo buf, const char *utf8, size_t len)
{
	size_t off = 0;

	appendStringInfoChar(buf, '"');
	while (off < len)
	{
		size_t n_plain = llm_utf8_ascii_bytes(
			utf8 + off,
			llm_json_plain_bytes(utf8 + off, Min(len - off, 65536)));
		uint32_t cp;
		int n;

		CHECK_FOR_INTERRUPTS();
		if (n_plain > 0)
		{
			appendBinaryStringInfo(buf, utf8 + off, (int) n_plain);
			off += n_plain;
			continue;
		}
		n = llm_utf8_decode(utf8 + off, len - off, &cp);
		if (n == 0)
		{
			appendStringInfoString(buf, REPLACEMENT);
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
			appendStringInfoString(buf, REPLACEMENT); /* jsonb refuses U+0000 */
		else if (cp < 0x20)
			appendStringInfo(buf, "\\u%04x", cp);
		else
			appendBinaryStringInfo(buf, utf8 + off, n);
		off += n;
	}
	appendStringInfoChar(buf, '"');
}
