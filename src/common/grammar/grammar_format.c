/*
 * grammar_format.c
 *	  The formats of strings and numbers.
 *
 * A format is kept as an expression of texts that surely have it: what is left
 * out is rare, or PostgreSQL would refuse it.  Where a string must not have a
 * format, or where it is asked if two schemas exclude each other, the outline
 * counts instead, an expression of all texts that may have it.
 *
 * src/common/grammar/grammar_format.c
 */
#include <stdio.h>
#include <string.h>

#include "src/common/grammar/grammar_schema.h"

#define YEAR \
	"([0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})"
#define LEAP                                    \
	"([0-9]{2}(0[48]|[2468][048]|[13579][26])|" \
	"(0[48]|[2468][048]|[13579][26])00)"
#define DATE                                               \
	"(" YEAR "-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])" \
	"|(0[469]|11)-(0[1-9]|[12][0-9]|30)"                   \
	"|02-(0[1-9]|1[0-9]|2[0-8]))|" LEAP "-02-29)"
#define ZONE "(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])"
#define TIME "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?" ZONE
/* no two hyphens in a row: behind two letters they announce Punycode */
#define LABEL "[A-Za-z0-9](-?[A-Za-z0-9]){0,20}"
#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,30}"
#define BRIEF_LABEL "[A-Za-z0-9](-?[A-Za-z0-9])*"
#define BRIEF_ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#define BYTE "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define GROUP "[0-9a-fA-F]{1,4}"

#define HEX "[0-9a-fA-F]"
#define UUID(version)                                                        \
	{                                                                        \
		.name = "uuid" version, .exact =                                     \
									HEX "{8}-" HEX "{4}-" version HEX        \
										"{3}-[89abAB]" HEX "{3}-" HEX "{12}" \
	}
#define EMAIL ATOM "(\\." ATOM "){0,1}@" LABEL "(\\." LABEL "){1,3}"
#define BRIEF_EMAIL \
	BRIEF_ATOM "(\\." BRIEF_ATOM ")?@" BRIEF_LABEL "(\\." BRIEF_LABEL ")+"
#define HOST LABEL "(\\." LABEL "){0,3}"
#define BRIEF_HOST BRIEF_LABEL "(\\." BRIEF_LABEL ")*"
#define IN_QUERY "[A-Za-z0-9._~!$&'()*+,;=:@/?-]"
#define URI                                                      \
	"[A-Za-z][A-Za-z0-9+.-]{0,15}://" HOST                       \
	"(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@-]{0,200}){0,20}" \
	"(\\?" IN_QUERY "{0,400})?(#" IN_QUERY "{0,200})?"
#define BRIEF_URI                                      \
	"[A-Za-z][A-Za-z0-9+.-]*://" BRIEF_HOST            \
	"(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@/-]*)?" \
	"(\\?" IN_QUERY "*)?(#" IN_QUERY "*)?"
#define POINTER "(/([^~/]|~[01])*)*"
#define ANY "[^]*"

typedef struct Format
{
	const char *name;
	const char *exact;
	const char *brief;	 /* within LLM_SCHEMA_BRIEF_CHARS; NULL: exact */
	const char *outline; /* NULL: exact */
} Format;

static const Format formats[] = {
	{ "date", DATE, NULL, "[0-9]{4}-[0-9]{2}-[0-9]{2}" },
	{ "time", TIME, NULL, "[0-9]{2}:[0-9]{2}:" ANY },
	{ "date-time", DATE "T" TIME, NULL, "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]" ANY },
	{ "uuid", HEX "{8}(-" HEX "{4}){3}-" HEX "{12}", NULL, NULL },
	UUID("1"),
	UUID("3"),
	UUID("4"),
	UUID("5"),
	UUID("6"),
	UUID("7"),
	UUID("8"),
	{ "email", EMAIL, BRIEF_EMAIL, ANY "@" ANY },
	{ "idn-email", EMAIL, BRIEF_EMAIL, ANY "@" ANY },
	{ "hostname", HOST, BRIEF_HOST, "[A-Za-z0-9.-]*" },
	{ "idn-hostname", HOST, BRIEF_HOST, ANY },
	{ "ipv4", BYTE "(\\." BYTE "){3}", NULL, "[0-9.]*" },
	{ "ipv6",
	  "(" GROUP ":){7}" GROUP "|::(" GROUP "(:" GROUP "){0,6})?|(" GROUP
	  ":){1,6}:" GROUP,
	  NULL, ANY ":" ANY },
	{ "duration",
	  "P([0-9]{1,4}Y([0-9]{1,2}M([0-9]{1,3}D)?)?|[0-9]{1,4}W|"
	  "[0-9]{1,2}M([0-9]{1,3}D)?|[0-9]{1,4}D|"
	  "T([0-9]{1,4}H([0-9]{1,2}M([0-9]{1,2}S)?)?|"
	  "[0-9]{1,4}M([0-9]{1,2}S)?|[0-9]{1,5}S))",
	  NULL, "P" ANY },
	{ "uri", URI, BRIEF_URI, ANY ":" ANY },
	{ "iri", URI, BRIEF_URI, ANY ":" ANY },
	{ "uri-reference", URI, BRIEF_URI, ANY },
	{ "iri-reference", URI, BRIEF_URI, ANY },
	{ "json-pointer", POINTER, NULL, NULL },
	{ "relative-json-pointer", "(0|[1-9][0-9]{0,5})(#|" POINTER ")", NULL,
	  "[0-9]+(#|" POINTER ")" },
	{ "byte", "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
	  NULL, ANY },
	/* those that say what a text is for */
	{ "password", ANY, NULL, NULL },
	{ "binary", ANY, NULL, NULL },
	{ "path", ANY, NULL, NULL },
};

/* Formats of integers, as bounds; of numbers, which any decimal has. */
static const struct
{
	const char *name;
	const char *low;
	const char *high;
} number_formats[] = {
	{ "int8", "-128", "127" },
	{ "int16", "-32768", "32767" },
	{ "int32", "-2147483648", "2147483647" },
	{ "int64", "-9223372036854775808", "9223372036854775807" },
	{ "uint8", "0", "255" },
	{ "uint16", "0", "65535" },
	{ "uint32", "0", "4294967295" },
	{ "uint64", "0", "18446744073709551615" },
	{ "float", NULL, NULL },
	{ "double", NULL, NULL },
};

static const Format *
find_format(const LlmSchemaJson *keyword)
{
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
	{
		if (strcmp(formats[i].name, keyword->text) == 0)
			return &formats[i];
	}
	return NULL;
}

bool
llm_schema_number_format(const LlmSchemaJson *keyword, const char **low,
						 const char **high)
{
	for (size_t i = 0; i < sizeof(number_formats) / sizeof(number_formats[0]);
		 i++)
	{
		if (strcmp(number_formats[i].name, keyword->text) != 0)
			continue;
		*low = number_formats[i].low;
		*high = number_formats[i].high;
		return true;
	}
	return false;
}

void
llm_schema_check_format(LlmSchemaCompiler *c, const LlmSchemaJson *keyword)
{
	const char *low;
	const char *high;

	if (find_format(keyword) == NULL &&
		!llm_schema_number_format(keyword, &low, &high))
		llm_grammar_fail(
			c->b, LLM_ERROR_UNSUPPORTED,
			"schema keyword \"format\" at %.300s: format \"%.100s\" is not "
			"supported",
			llm_schema_json_pointer(c->b, keyword), keyword->text);
}

bool
llm_schema_format_has_brief(const LlmSchemaJson *keyword)
{
	const Format *format = find_format(keyword);

	return format != NULL && format->brief != NULL;
}

LlmPattern *
llm_schema_parse_format(LlmSchemaCompiler *c, const LlmSchemaJson *keyword,
						LlmSchemaFormatUse use)
{
	const Format *format = find_format(keyword);
	const char *regex = format == NULL ? ANY : format->exact;

	/* a format of numbers says nothing about strings */
	if (format != NULL && use == LLM_SCHEMA_BRIEF && format->brief != NULL)
		regex = format->brief;
	if (format != NULL && use == LLM_SCHEMA_OUTLINE && format->outline != NULL)
		regex = format->outline;
	return llm_pattern_parse_regex(c->b, regex, strlen(regex), false,
								   keyword->text);
}
