/*
 * grammar_string.c
 *	  JSON strings: lengths, patterns, formats.
 *
 * A string without a pattern may use every escape of JSON; within a pattern,
 * and in names that must differ from others, each character is written in its
 * one usual way.  U+0000 and lone surrogates, which PostgreSQL's jsonb
 * refuses, are not generated.
 *
 * Each string is a rule of its own that is called, its quotes included, so
 * that all strings of a kind share their masks (grammar_mask.c).
 *
 * src/common/grammar/grammar_string.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/grammar/grammar_pattern.h"
#include "src/common/grammar/grammar_schema.h"
#include "src/common/util/utf8.h"

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
#define LABEL "[A-Za-z0-9](-?[A-Za-z0-9]){0,30}"
#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,30}"
#define BYTE "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define GROUP "[0-9a-fA-F]{1,4}"

/* Formats as expressions; what they leave out, PostgreSQL would refuse. */
static const struct
{
	const char *name;
	const char *regex;
} formats[] = {
	{ "date", DATE },
	{ "time", TIME },
	{ "date-time", DATE "T" TIME },
	{ "uuid", "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}" },
	{ "email", ATOM "(\\." ATOM "){0,1}@" LABEL "(\\." LABEL "){1,3}" },
	{ "hostname", LABEL "(\\." LABEL "){0,3}" },
	{ "ipv4", BYTE "(\\." BYTE "){3}" },
	{ "ipv6", "(" GROUP ":){7}" GROUP "|::(" GROUP "(:" GROUP "){0,6})?|(" GROUP
			  ":){1,6}:" GROUP },
	{ "duration", "P([0-9]{1,4}Y([0-9]{1,2}M([0-9]{1,3}D)?)?|[0-9]{1,4}W|"
				  "[0-9]{1,2}M([0-9]{1,3}D)?|[0-9]{1,4}D|"
				  "T([0-9]{1,4}H([0-9]{1,2}M([0-9]{1,2}S)?)?|"
				  "[0-9]{1,4}M([0-9]{1,2}S)?|[0-9]{1,5}S))" },
	{ "uri", "[A-Za-z][A-Za-z0-9+.-]{0,15}://" LABEL "(\\." LABEL "){0,3}"
			 "(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@-]{0,200}){0,20}"
			 "(\\?[A-Za-z0-9._~!$&'()*+,;=:@/?-]{0,400})?"
			 "(#[A-Za-z0-9._~!$&'()*+,;=:@/?-]{0,200})?" },
};

static LlmGrammarNodeId
build_hex(LlmGrammarBuilder *b, const char *digits, LlmGrammarNodeId next)
{
	uint32_t edges[44];
	size_t n = 0;

	for (; *digits != '\0'; digits++)
	{
		edges[2 * n] = (uint8_t) *digits * 0x101u;
		edges[2 * n++ + 1] = next;
	}
	return llm_grammar_build_edges(b, edges, n);
}

#define NONZERO_HEX "123456789abcdefABCDEF"
#define HEX "0" NONZERO_HEX

/* Behind \u: any character of the basic plane, or a pair of surrogates. */
static LlmGrammarNodeId
build_number_escape(LlmGrammarBuilder *b, LlmGrammarNodeId next)
{
	LlmGrammarNodeId one = build_hex(b, HEX, next);
	LlmGrammarNodeId two = build_hex(b, HEX, one);
	LlmGrammarNodeId three = build_hex(b, HEX, two);
	LlmGrammarNodeId low = llm_grammar_build_text(
		b, "\\u", 2, build_hex(b, "dD", build_hex(b, "cdefCDEF", two)));
	LlmGrammarNodeId zeros = build_hex(b, NONZERO_HEX, next);
	LlmGrammarNodeId choices[4];

	zeros = llm_grammar_build_or(b, build_hex(b, NONZERO_HEX, one),
								 build_hex(b, "0", zeros));
	zeros = llm_grammar_build_or(b, build_hex(b, NONZERO_HEX, two),
								 build_hex(b, "0", zeros));
	choices[0] = build_hex(b, "123456789abcefABCEF", three);
	choices[1] = build_hex(b, "0", zeros);
	choices[2] = build_hex(b, "dD", build_hex(b, "01234567", two));
	choices[3] = build_hex(
		b, "dD",
		build_hex(b, "89abAB", build_hex(b, HEX, build_hex(b, HEX, low))));
	return llm_grammar_build_split(b, choices, 4);
}

static void
add_plain(LlmGrammarBuilder *b, LlmGrammarSet *set)
{
	llm_grammar_set_add(b, set, 0x20, 0x21);
	llm_grammar_set_add(b, set, 0x23, 0x5B);
	llm_grammar_set_add(b, set, 0x5D, 0x10FFFF);
}

/* One character, however JSON may write it. */
static LlmGrammarNodeId
build_char(LlmGrammarBuilder *b, LlmGrammarNodeId next)
{
	LlmGrammarSet plain = { 0 };
	LlmGrammarNodeId escape = llm_grammar_build_or(
		b, build_hex(b, "\"\\/bfnrt", next),
		llm_grammar_build_bytes(b, 'u', 'u', build_number_escape(b, next)));

	add_plain(b, &plain);
	return llm_grammar_build_or(
		b, llm_grammar_build_set(b, &plain, LLM_GRAMMAR_UTF8, next),
		llm_grammar_build_bytes(b, '\\', '\\', escape));
}

static LlmGrammarNodeId
build_quoted_end(LlmGrammarBuilder *b)
{
	return llm_grammar_build_bytes(b, '"', '"', llm_grammar_build_return(b));
}

static LlmGrammarNodeId
build_opened(LlmGrammarBuilder *b, LlmGrammarNodeId inside,
			 LlmGrammarNodeId next)
{
	return llm_grammar_build_call(
		b, llm_grammar_build_bytes(b, '"', '"', inside), next);
}

LlmGrammarNodeId
llm_schema_build_any_string(LlmSchemaCompiler *c, LlmGrammarNodeId next)
{
	LlmGrammarBuilder *b = c->b;

	if (c->any_string == 0)
	{
		LlmGrammarNodeId label = llm_grammar_build_label(b);

		llm_grammar_set_label(
			b, label,
			llm_grammar_build_or(b, build_char(b, label), build_quoted_end(b)));
		c->any_string = label;
	}
	return build_opened(b, c->any_string, next);
}

/* -- names that are none of a list -- */

typedef struct Others
{
	LlmGrammarBuilder *b;
	LlmGrammarNodeId free; /* any characters, then the end */
	LlmGrammarNodeId end;
} Others;

static int
compare_names(const void *a, const void *b)
{
	const LlmGrammarToken *left = a;
	const LlmGrammarToken *right = b;
	size_t len = left->len < right->len ? left->len : right->len;
	int order = len == 0 ? 0 : memcmp(left->bytes, right->bytes, len);

	return order != 0 ? order
					  : (left->len > right->len) - (left->len < right->len);
}

/* Names that agree in their first "at" bytes; sorted. */
static LlmGrammarNodeId
build_others(Others *o, const LlmGrammarToken *names, size_t n, size_t at)
{
	LlmGrammarBuilder *b = o->b;
	LlmGrammarSet rest = { 0 };
	LlmGrammarNodeId node;
	bool ends = false;

	if (!llm_grammar_descend(b))
		return 0;
	node = llm_grammar_build_never(b);
	for (size_t i = 0; i < n;)
	{
		LlmGrammarSet single = { 0 };
		uint32_t c;
		int len;
		size_t last = i;

		if (names[i].len == at)
		{
			ends = true;
			i++;
			continue;
		}
		len = llm_utf8_decode(names[i].bytes + at, names[i].len - at, &c);
		while (last < n && names[last].len >= at + (size_t) len &&
			   memcmp(names[last].bytes + at, names[i].bytes + at,
					  (size_t) len) == 0)
			last++;
		llm_grammar_set_add(b, &single, c, c);
		llm_grammar_set_add(b, &rest, c, c);
		node = llm_grammar_build_or(
			b, node,
			llm_grammar_build_set(
				b, &single, LLM_GRAMMAR_JSON_STRING,
				build_others(o, names + i, last - i, at + (size_t) len)));
		i = last;
	}
	llm_grammar_set_invert(b, &rest);
	node = llm_grammar_build_or(
		b, node,
		llm_grammar_build_set(b, &rest, LLM_GRAMMAR_JSON_STRING, o->free));
	llm_grammar_ascend(b);
	return ends ? node : llm_grammar_build_or(b, node, o->end);
}

LlmGrammarNodeId
llm_schema_build_other_string(LlmSchemaCompiler *c, LlmGrammarToken *names,
							  size_t n, LlmGrammarNodeId next)
{
	LlmGrammarBuilder *b = c->b;
	Others o = { .b = b, .end = build_quoted_end(b) };
	LlmGrammarSet all = { 0 };

	if (n == 0)
		return llm_schema_build_any_string(c, next);
	llm_grammar_set_invert(b, &all);
	o.free = llm_grammar_build_label(b);
	llm_grammar_set_label(
		b, o.free,
		llm_grammar_build_or(
			b, llm_grammar_build_set(b, &all, LLM_GRAMMAR_JSON_STRING, o.free),
			o.end));
	qsort(names, n, sizeof(*names), compare_names);
	return build_opened(b, build_others(&o, names, n, 0), next);
}

/* -- constrained strings -- */

static LlmGrammarNodeId
build_regex(LlmSchemaCompiler *c, const char *text, size_t len, bool is_search,
			const LlmSchemaJson *keyword)
{
	char where[400];
	LlmPattern *pattern;

	snprintf(where, sizeof(where), "schema keyword \"%s\" at %.300s",
			 keyword->key, llm_schema_json_pointer(c->b, keyword));
	pattern = llm_pattern_parse_regex(c->b, text, len, is_search, where);
	return llm_pattern_build(c->b, pattern, LLM_GRAMMAR_JSON_STRING,
							 build_quoted_end(c->b));
}

static LlmGrammarNodeId
build_format(LlmSchemaCompiler *c, const LlmSchemaJson *keyword)
{
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
	{
		if (keyword->kind == LLM_SCHEMA_JSON_STRING &&
			strcmp(formats[i].name, keyword->text) == 0)
			return build_regex(c, formats[i].regex, strlen(formats[i].regex),
							   false, keyword);
	}
	return llm_grammar_fail(
		c->b, LLM_ERROR_UNSUPPORTED,
		"schema keyword \"format\" at %.300s: format \"%.100s\" is not "
		"supported",
		llm_schema_json_pointer(c->b, keyword),
		keyword->kind == LLM_SCHEMA_JSON_STRING ? keyword->text : "");
}

/* The only object of a view that has a keyword; two are an error. */
static const LlmSchemaJson *
find_only(LlmSchemaCompiler *c, const LlmSchemaView *view, const char *keyword)
{
	const LlmSchemaJson *found = NULL;

	for (size_t i = 0; i < view->n_objects; i++)
	{
		const LlmSchemaJson *own =
			llm_schema_json_get(view->objects[i], keyword);

		if (own == NULL || (found != NULL && llm_schema_json_equal(own, found)))
			continue;
		if (found != NULL)
			llm_schema_fail(c, LLM_ERROR_UNSUPPORTED,
							"applies together with another one, which is not "
							"supported",
							own);
		found = own;
	}
	return found;
}

LlmGrammarNodeId
llm_schema_build_string(LlmSchemaCompiler *c, const LlmSchemaView *view,
						LlmGrammarNodeId next)
{
	LlmGrammarBuilder *b = c->b;
	const LlmSchemaJson *pattern = find_only(c, view, "pattern");
	const LlmSchemaJson *format = find_only(c, view, "format");
	uint32_t min = llm_schema_count(c, view, "minLength", false);
	uint32_t max = llm_schema_count(c, view, "maxLength", true);

	if ((pattern != NULL) + (format != NULL) +
			(min > 0 || max != LLM_GRAMMAR_UNBOUNDED) >
		1)
		return llm_schema_fail(c, LLM_ERROR_UNSUPPORTED,
							   "is not supported beside another keyword that "
							   "limits the same string",
							   pattern != NULL ? pattern : format);
	if (pattern != NULL && pattern->kind != LLM_SCHEMA_JSON_STRING)
		return llm_schema_fail(c, LLM_ERROR_FORMAT, "must be a string",
							   pattern);
	if (pattern != NULL)
		return build_opened(
			b, build_regex(c, pattern->text, pattern->text_len, true, pattern),
			next);
	if (format != NULL)
		return build_opened(b, build_format(c, format), next);
	if (min > max)
		return llm_grammar_build_never(b);
	if (min == 0 && max == LLM_GRAMMAR_UNBOUNDED)
		return llm_schema_build_any_string(c, next);
	return build_opened(
		b,
		llm_grammar_build_repeat(b, build_char(b, llm_grammar_build_return(b)),
								 min, max, build_quoted_end(b)),
		next);
}
