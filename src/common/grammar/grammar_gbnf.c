/*
 * grammar_gbnf.c
 *	  GBNF, the grammar format of llama.cpp.
 *
 *	  root ::= "yes" | "no" ("," " "? reason){1,3}   # a comment
 *
 * Rules are names of letters, digits and -; a rule ends at the end of its
 * line unless a parenthesis is open or the next thing is a |.  Literals and
 * classes have the escapes \n \r \t \\ \" \[ \] \- \^ \xHH \uHHHH \UHHHHHHHH;
 * the dot is any character.  Repetitions are * + ? {m} {m,} {,n} {m,n}.
 *
 * src/common/grammar/grammar_gbnf.c
 */
#include <string.h>

#include "src/common/grammar/grammar_pattern.h"
#include "src/common/util/utf8.h"

#define MAX_RULES 4096
#define MAX_COUNT 1000000u

typedef struct Parser
{
	LlmGrammarBuilder *b;
	const char *text;
	size_t len;
	size_t at;
	int depth;
	LlmPatternRule **rules;
	size_t n_rules;
} Parser;

static void
refuse(Parser *p, LlmErrorCode code, const char *what)
{
	size_t line = 1;

	for (size_t i = 0; i < p->at && i < p->len; i++)
		line += p->text[i] == '\n';
	llm_grammar_fail(p->b, code, "grammar: %s at line %zu (byte %zu)", what,
					 line, p->at);
}

static bool
is_at_end(const Parser *p)
{
	return p->at >= p->len || llm_grammar_failed(p->b);
}

static bool
looks_at(const Parser *p, char c)
{
	return !is_at_end(p) && p->text[p->at] == c;
}

static bool
take(Parser *p, char c)
{
	if (!looks_at(p, c))
		return false;
	p->at++;
	return true;
}

/* White space and comments; ends of lines too, where a rule goes on. */
static void
skip_space(Parser *p, bool lines)
{
	while (!is_at_end(p))
	{
		char c = p->text[p->at];

		if (c == '#')
		{
			while (p->at < p->len && p->text[p->at] != '\n')
				p->at++;
		}
		else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r')))
			p->at++;
		else
			break;
	}
}

static bool
is_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		   (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* The rule of the name that stands here, made where it is new. */
static LlmPatternRule *
take_rule(Parser *p)
{
	const char *name = p->text + p->at;
	size_t len = 0;
	LlmPatternRule *rule;

	while (p->at + len < p->len && is_name(name[len]))
		len++;
	if (len == 0)
	{
		refuse(p, LLM_ERROR_FORMAT, "a name is expected");
		return NULL;
	}
	p->at += len;
	for (size_t i = 0; i < p->n_rules; i++)
	{
		if (p->rules[i]->name_len == len &&
			memcmp(p->rules[i]->name, name, len) == 0)
			return p->rules[i];
	}
	if (p->n_rules == MAX_RULES)
	{
		refuse(p, LLM_ERROR_LIMIT, "more than 4096 rules");
		return NULL;
	}
	rule = llm_grammar_alloc(p->b, sizeof(*rule));
	if (rule != NULL)
	{
		rule->name = name;
		rule->name_len = len;
		p->rules[p->n_rules++] = rule;
	}
	return rule;
}

static uint32_t
take_hex(Parser *p, int n)
{
	uint32_t value = 0;

	for (int i = 0; i < n; i++)
	{
		char c = p->at < p->len ? p->text[p->at] : ' ';
		const char *digits = "0123456789abcdef";
		const char *digit = strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c);

		if (digit == NULL || c == '\0' || value > 0x10FFFF)
		{
			refuse(p, LLM_ERROR_FORMAT, "a malformed character number");
			return 0;
		}
		value = value * 16 + (uint32_t) (digit - digits);
		p->at++;
	}
	if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
		refuse(p, LLM_ERROR_FORMAT, "a number that is no character");
	return value;
}

/* A character of a literal or class. */
static uint32_t
take_char(Parser *p)
{
	static const char escapes[] = "n\nr\rt\t\\\\\"\"[[]]--^^";
	uint32_t c = 0;
	int n;

	if (take(p, '\\'))
	{
		char letter = p->at < p->len ? p->text[p->at++] : '\0';
		const char *known = letter == '\0' ? NULL : strchr(escapes, letter);

		if (letter == 'x' || letter == 'u' || letter == 'U')
			return take_hex(p, letter == 'x' ? 2 : letter == 'u' ? 4 : 8);
		if (known == NULL)
			refuse(p, LLM_ERROR_FORMAT, "an unknown escape");
		return known == NULL ? 0 : (uint8_t) known[(known - escapes) % 2 == 0];
	}
	n = is_at_end(p) ? 0 : llm_utf8_decode(p->text + p->at, p->len - p->at, &c);
	if (n == 0)
		refuse(p, LLM_ERROR_FORMAT, "a literal or class without end");
	p->at += (size_t) n;
	return c;
}

/* Behind the opening quote. */
static LlmPattern *
parse_literal(Parser *p)
{
	LlmPattern *pattern = llm_pattern_create(p->b, LLM_PATTERN_TEXT);
	char *text = llm_grammar_alloc(p->b, p->len - p->at + 4);

	if (pattern == NULL || text == NULL)
		return NULL;
	pattern->text = text;
	while (!llm_grammar_failed(p->b) && !take(p, '"'))
		pattern->text_len +=
			(size_t) llm_utf8_encode(take_char(p), text + pattern->text_len);
	return pattern;
}

/* Behind '['. */
static LlmPattern *
parse_class(Parser *p)
{
	LlmPattern *pattern = llm_pattern_create(p->b, LLM_PATTERN_SET);
	bool inverted = take(p, '^');

	while (pattern != NULL && !llm_grammar_failed(p->b) && !take(p, ']'))
	{
		uint32_t low = take_char(p);
		uint32_t high = low;

		if (looks_at(p, '-') && p->at + 1 < p->len && p->text[p->at + 1] != ']')
		{
			p->at++;
			high = take_char(p);
		}
		if (high < low)
			refuse(p, LLM_ERROR_FORMAT, "a malformed range");
		llm_grammar_set_add(p->b, &pattern->set, low, high);
	}
	if (pattern == NULL || llm_grammar_failed(p->b))
		return NULL;
	if (inverted)
		llm_grammar_set_invert(p->b, &pattern->set);
	llm_grammar_set_normalize(&pattern->set);
	return pattern;
}

static LlmPattern *parse_choice(Parser *p, bool in_group);

static LlmPattern *
parse_atom(Parser *p)
{
	LlmPattern *pattern;

	if (take(p, '"'))
		return parse_literal(p);
	if (take(p, '['))
		return parse_class(p);
	if (take(p, '.'))
	{
		pattern = llm_pattern_create(p->b, LLM_PATTERN_SET);
		if (pattern != NULL)
			llm_grammar_set_add(p->b, &pattern->set, 0, 0x10FFFF);
		return pattern;
	}
	if (take(p, '('))
	{
		if (++p->depth > LLM_PATTERN_MAX_DEPTH)
			refuse(p, LLM_ERROR_LIMIT, "too many groups within groups");
		pattern = parse_choice(p, true);
		p->depth--;
		if (!llm_grammar_failed(p->b) && !take(p, ')'))
			refuse(p, LLM_ERROR_FORMAT, "')' is expected");
		return pattern;
	}
	if (looks_at(p, '<') || looks_at(p, '!'))
	{
		refuse(p, LLM_ERROR_UNSUPPORTED, "a token, which is not supported,");
		return NULL;
	}
	pattern = llm_pattern_create(p->b, LLM_PATTERN_RULE);
	if (pattern != NULL)
		pattern->rule = take_rule(p);
	return pattern;
}

static bool
take_number(Parser *p, uint32_t *value)
{
	size_t start = p->at;

	*value = 0;
	while (!is_at_end(p) && p->text[p->at] >= '0' && p->text[p->at] <= '9')
	{
		*value = *value * 10 + (uint32_t) (p->text[p->at++] - '0');
		if (*value > MAX_COUNT)
			refuse(p, LLM_ERROR_LIMIT, "a count beyond 1000000");
	}
	return p->at > start;
}

/* Behind '{'. */
static void
take_bounds(Parser *p, uint32_t *min, uint32_t *max)
{
	bool has_min;
	bool has_max = true;

	skip_space(p, true);
	has_min = take_number(p, min);
	*max = *min;
	skip_space(p, true);
	if (take(p, ','))
	{
		skip_space(p, true);
		has_max = take_number(p, max);
		if (!has_max)
			*max = LLM_GRAMMAR_UNBOUNDED;
		skip_space(p, true);
	}
	else
		has_max = has_min;
	if (!take(p, '}') || (!has_min && !has_max) || *min > *max)
		refuse(p, LLM_ERROR_FORMAT, "a malformed repetition");
}

static LlmPattern *
parse_repeated(Parser *p)
{
	LlmPattern *pattern = parse_atom(p);

	for (;;)
	{
		uint32_t min = 0;
		uint32_t max = LLM_GRAMMAR_UNBOUNDED;

		if (take(p, '+'))
			min = 1;
		else if (take(p, '?'))
			max = 1;
		else if (take(p, '{'))
			take_bounds(p, &min, &max);
		else if (!take(p, '*'))
			return pattern;
		if (++p->depth > LLM_PATTERN_MAX_DEPTH)
			refuse(p, LLM_ERROR_LIMIT, "too many repetitions of repetitions");
		pattern = llm_pattern_create_repeat(p->b, pattern, min, max);
	}
}

static LlmPattern *
parse_sequence(Parser *p, bool in_group)
{
	LlmPattern *sequence = llm_pattern_create(p->b, LLM_PATTERN_SEQUENCE);
	int depth = p->depth;

	skip_space(p, in_group);
	while (!is_at_end(p) && strchr("|)\r\n", p->text[p->at]) == NULL)
	{
		llm_pattern_add(p->b, sequence, parse_repeated(p));
		p->depth = depth;
		skip_space(p, in_group);
	}
	return sequence;
}

/* Is a | the next thing, perhaps on a later line? */
static bool
take_bar(Parser *p)
{
	size_t start = p->at;

	skip_space(p, true);
	if (take(p, '|'))
	{
		skip_space(p, true);
		return true;
	}
	p->at = start;
	return false;
}

static LlmPattern *
parse_choice(Parser *p, bool in_group)
{
	LlmPattern *choice = llm_pattern_create(p->b, LLM_PATTERN_CHOICE);

	do
		llm_pattern_add(p->b, choice, parse_sequence(p, in_group));
	while (!llm_grammar_failed(p->b) && take_bar(p));
	return choice;
}

static void
parse_rule(Parser *p)
{
	LlmPatternRule *rule = take_rule(p);

	skip_space(p, false);
	if (rule == NULL)
		return;
	if (!take(p, ':') || !take(p, ':') || !take(p, '='))
	{
		refuse(p, LLM_ERROR_FORMAT, "\"::=\" is expected");
		return;
	}
	if (rule->pattern != NULL)
	{
		refuse(p, LLM_ERROR_FORMAT, "a rule that is defined before");
		return;
	}
	skip_space(p, true);
	rule->pattern = parse_choice(p, false);
	if (!is_at_end(p) && !looks_at(p, '\n') && !looks_at(p, '\r'))
		refuse(p, LLM_ERROR_FORMAT, "the end of a line is expected");
}

static LlmGrammarNodeId
parse_grammar(Parser *p)
{
	LlmPattern start = { .kind = LLM_PATTERN_RULE };

	for (skip_space(p, true); !is_at_end(p); skip_space(p, true))
		parse_rule(p);
	if (llm_grammar_failed(p->b))
		return 0;
	for (size_t i = 0; i < p->n_rules; i++)
	{
		if (p->rules[i]->pattern == NULL)
			return llm_grammar_fail(
				p->b, LLM_ERROR_FORMAT, "grammar rule \"%.*s\" is not defined",
				(int) p->rules[i]->name_len, p->rules[i]->name);
		if (p->rules[i]->name_len == 4 &&
			memcmp(p->rules[i]->name, "root", 4) == 0)
			start.rule = p->rules[i];
	}
	if (start.rule == NULL)
		return llm_grammar_fail(p->b, LLM_ERROR_FORMAT,
								"grammar has no rule \"root\"");
	if (!llm_pattern_prepare_rules(p->b, p->rules, p->n_rules))
		return 0;
	return llm_pattern_build(p->b, &start, LLM_GRAMMAR_UTF8,
							 llm_grammar_build_return(p->b));
}

bool
llm_grammar_compile_gbnf(const char *grammar, size_t len, LlmStrbuf *program,
						 LlmError *err)
{
	Parser p = { .text = grammar, .len = len };
	bool ok;

	if (len > LLM_GRAMMAR_MAX_SOURCE_BYTES)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "grammar has %zu bytes, the limit is %u", len,
							 LLM_GRAMMAR_MAX_SOURCE_BYTES);
	p.b = llm_grammar_builder_create(err);
	if (p.b == NULL)
		return false;
	p.rules = llm_grammar_alloc(p.b, MAX_RULES * sizeof(*p.rules));
	ok = p.rules != NULL && llm_grammar_emit(p.b, parse_grammar(&p), program);
	llm_grammar_builder_free(p.b);
	return ok;
}
