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

LlmGrammarNodeId
llm_schema_build_opened(LlmSchemaCompiler *c, LlmGrammarNodeId inside,
						LlmGrammarNodeId next)
{
	return llm_grammar_build_call(
		c->b, llm_grammar_build_bytes(c->b, '"', '"', inside), next);
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
	return llm_schema_build_opened(c, c->any_string, next);
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
	return llm_schema_build_opened(c, build_others(&o, names, n, 0), next);
}

/* -- constrained strings -- */

/* A pattern that may be found anywhere: the value or the key of a keyword. */
static LlmPattern *
parse_regex(LlmSchemaCompiler *c, const LlmSchemaJson *keyword, bool is_key)
{
	char where[400];

	snprintf(where, sizeof(where), "schema keyword \"%s\" at %.300s",
			 is_key ? "patternProperties" : "pattern",
			 llm_schema_json_pointer(c->b, keyword));
	return llm_pattern_parse_regex(
		c->b, is_key ? keyword->key : keyword->text,
		is_key ? keyword->key_len : keyword->text_len, true, where);
}

void
llm_schema_add_term(LlmSchemaCompiler *c, LlmLanguageTerms *terms,
					LlmPattern *pattern, bool negated)
{
	if (terms->n_items == LLM_LANGUAGE_MAX_TERMS)
		llm_grammar_fail(c->b, LLM_ERROR_LIMIT,
						 "more than %d patterns apply to one string",
						 LLM_LANGUAGE_MAX_TERMS);
	else if (pattern != NULL)
		terms->items[terms->n_items++] = (LlmLanguageTerm){ pattern, negated };
}

/* The texts among the values of an enum or const. */
static LlmPattern *
create_listed(LlmSchemaCompiler *c, const LlmSchemaJson *list)
{
	LlmPattern *choice = llm_pattern_create(c->b, LLM_PATTERN_CHOICE);
	bool is_enum = strcmp(list->key, "enum") == 0;

	for (const LlmSchemaJson *value = is_enum ? list->child : list;
		 value != NULL; value = is_enum ? value->next : NULL)
	{
		if (value->kind == LLM_SCHEMA_JSON_STRING)
			llm_pattern_add(
				c->b, choice,
				llm_pattern_create_literal(c->b, value->text, value->text_len));
	}
	return choice;
}

/* Does an earlier object of the view say the same? */
static bool
is_repeated(const LlmSchemaView *view, size_t i, const char *keyword)
{
	const LlmSchemaJson *own = llm_schema_json_get(view->objects[i], keyword);

	for (size_t j = 0; j < i; j++)
	{
		const LlmSchemaJson *other =
			llm_schema_json_get(view->objects[j], keyword);

		if (other != NULL && llm_schema_json_equal(own, other))
			return true;
	}
	return false;
}

void
llm_schema_collect_text(LlmSchemaCompiler *c, const LlmSchemaView *view,
						LlmSchemaFormatUse use, LlmLanguageTerms *terms)
{
	static const char *const names[] = { "pattern", LLM_SCHEMA_NOT_PATTERN,
										 "format", LLM_SCHEMA_NOT_FORMAT,
										 LLM_SCHEMA_NOT_LISTED };

	/* what surely has a format must go where it is asked what may be left */
	LlmSchemaFormatUse opposite =
		use == LLM_SCHEMA_OUTLINE ? LLM_SCHEMA_EXACT : LLM_SCHEMA_OUTLINE;

	terms->n_items = 0;
	terms->min = llm_schema_count(c, view, "minLength", false);
	terms->max = llm_schema_count(c, view, "maxLength", true);
	for (size_t i = 0; i < view->n_objects; i++)
	{
		for (size_t j = 0; j < 5 && !llm_grammar_failed(c->b); j++)
		{
			const LlmSchemaJson *keyword =
				llm_schema_json_get(view->objects[i], names[j]);

			if (keyword == NULL || is_repeated(view, i, names[j]))
				continue;
			if (j < 2)
				llm_schema_add_term(c, terms, parse_regex(c, keyword, false),
									j == 1);
			else if (j < 4)
				llm_schema_add_term(c, terms,
									llm_schema_parse_format(
										c, keyword, j == 2 ? use : opposite),
									j == 3);
			else
				llm_schema_add_term(c, terms, create_listed(c, keyword), true);
			if (j == 2 && use == LLM_SCHEMA_BRIEF &&
				llm_schema_format_has_brief(keyword) &&
				terms->max > LLM_SCHEMA_BRIEF_CHARS)
				terms->max = LLM_SCHEMA_BRIEF_CHARS;
		}
	}
}

void
llm_schema_add_listed(LlmSchemaCompiler *c, LlmLanguageTerms *terms,
					  const LlmSchemaView *view)
{
	for (size_t i = 0; i < view->n_objects; i++)
	{
		const LlmSchemaJson *list =
			llm_schema_json_get(view->objects[i], "enum");
		const LlmSchemaJson *only =
			llm_schema_json_get(view->objects[i], "const");

		if (list != NULL)
			llm_schema_add_term(c, terms, create_listed(c, list), false);
		if (only != NULL)
			llm_schema_add_term(c, terms, create_listed(c, only), false);
	}
}

LlmPattern *
llm_schema_parse_name(LlmSchemaCompiler *c, const LlmSchemaJson *pattern)
{
	return parse_regex(c, pattern, true);
}

bool
llm_schema_is_name(LlmSchemaCompiler *c, const LlmSchemaJson *pattern,
				   const char *name, size_t len)
{
	LlmLanguageTerms terms = { .max = LLM_GRAMMAR_UNBOUNDED };
	const LlmLanguage *language;

	llm_schema_add_term(c, &terms, parse_regex(c, pattern, true), false);
	language = llm_grammar_failed(c->b)
				   ? NULL
				   : llm_language_create(c->b, &terms, pattern->key);
	return language != NULL && llm_language_contains(language, name, len);
}

const LlmLanguage *
llm_schema_create_language(LlmSchemaCompiler *c, const LlmLanguageTerms *terms,
						   const LlmSchemaView *view)
{
	char where[400];

	snprintf(where, sizeof(where), "what limits one string at %.300s",
			 llm_schema_json_pointer(c->b, view->objects[0]));
	return llm_language_create(c->b, terms, where);
}

bool
llm_schema_has_no_string(LlmSchemaCompiler *c, const LlmSchemaView *view)
{
	LlmLanguageTerms terms;
	const LlmLanguage *language;

	llm_schema_collect_text(c, view, LLM_SCHEMA_OUTLINE, &terms);
	if (terms.min > terms.max || terms.n_items == 0)
		return terms.min > terms.max;
	/* without bounds that the patterns keep or break by themselves */
	for (size_t i = 0; i < terms.n_items; i++)
	{
		if (!terms.items[i].negated &&
			llm_pattern_fit_length(terms.items[i].pattern, terms.min,
								   terms.max))
		{
			terms.min = 0;
			terms.max = LLM_GRAMMAR_UNBOUNDED;
		}
	}
	language = llm_schema_create_language(c, &terms, view);
	return language != NULL && llm_language_is_empty(language);
}

LlmGrammarNodeId
llm_schema_build_language(LlmSchemaCompiler *c, const LlmLanguage *language)
{
	return llm_language_build(c->b, language, LLM_GRAMMAR_JSON_STRING,
							  build_quoted_end(c->b));
}

/*
 * A string that patterns limit.  One pattern is built as it is written, and
 * one that must match may keep the length by its own repetitions, which are
 * counted at run time; all else needs an automaton.
 */
static LlmGrammarNodeId
build_limited(LlmSchemaCompiler *c, const LlmSchemaView *view,
			  LlmLanguageTerms *terms)
{
	LlmGrammarBuilder *b = c->b;
	const LlmLanguage *language;
	bool fits = false;

	if (terms->min > terms->max)
		return llm_grammar_build_never(b);
	for (size_t i = 0; i < terms->n_items && !fits; i++)
		fits = !terms->items[i].negated &&
			   llm_pattern_fit_length(terms->items[i].pattern, terms->min,
									  terms->max);
	if (fits && terms->n_items == 1 &&
		terms->items[0].pattern->kind != LLM_PATTERN_BOTH)
		return llm_pattern_build(b, terms->items[0].pattern,
								 LLM_GRAMMAR_JSON_STRING, build_quoted_end(b));
	if (fits)
	{
		terms->min = 0;
		terms->max = LLM_GRAMMAR_UNBOUNDED;
	}
	else if (terms->min <= LLM_SCHEMA_BRIEF_CHARS)
		llm_schema_collect_text(c, view, LLM_SCHEMA_BRIEF, terms);
	language = llm_schema_create_language(c, terms, view);
	return language == NULL ? 0 : llm_schema_build_language(c, language);
}

LlmGrammarNodeId
llm_schema_build_string(LlmSchemaCompiler *c, const LlmSchemaView *view,
						LlmGrammarNodeId next)
{
	LlmGrammarBuilder *b = c->b;
	LlmLanguageTerms terms;

	llm_schema_collect_text(c, view, LLM_SCHEMA_EXACT, &terms);
	if (llm_grammar_failed(b))
		return 0;
	if (terms.n_items > 0)
		return llm_schema_build_opened(c, build_limited(c, view, &terms), next);
	if (terms.min > terms.max)
		return llm_grammar_build_never(b);
	if (terms.min == 0 && terms.max == LLM_GRAMMAR_UNBOUNDED)
		return llm_schema_build_any_string(c, next);
	return llm_schema_build_opened(
		c,
		llm_grammar_build_repeat(b, build_char(b, llm_grammar_build_return(b)),
								 terms.min, terms.max, build_quoted_end(b)),
		next);
}
