/*
 * grammar_regex.c
 *	  Regular expressions: what ECMA-262 and PCRE have in common.
 *
 * Literals, ., classes, escapes, \p{category}, groups (also named ones, which
 * capture nothing here), |, * + ? {m,n} and their lazy forms, which name the
 * same language.  ^ and $ stand at the ends of alternatives of the whole
 * expression.  Look-ahead may stand at the start of a text: what is ahead is
 * then the whole text, of which the look-ahead is another expression.
 * Everything else (other look-around, back-references, \b, flags, possessive
 * and atomic groups) is an error that names it.
 *
 * src/common/grammar/grammar_regex.c
 */
#include <string.h>

#include "src/common/grammar/grammar_pattern.h"
#include "src/common/util/utf8.h"

#define MAX_COUNT 1000000u

/* Where an expression is in a text: what may stand before and behind it. */
typedef enum Place
{
	WHOLE,
	ANYWHERE,
	AT_START
} Place;

typedef struct Parser
{
	LlmGrammarBuilder *b;
	const char *text;
	size_t len;
	size_t at;
	int depth;
	const char *where;
} Parser;

static void
refuse(Parser *p, LlmErrorCode code, const char *what, size_t at)
{
	llm_grammar_fail(p->b, code, "%s: %s at byte %zu of \"%.*s\"", p->where,
					 what, at, (int) (p->len < 200 ? p->len : 200), p->text);
}

static bool
is_at_end(const Parser *p)
{
	return p->at >= p->len || llm_grammar_failed(p->b);
}

static bool
take(Parser *p, const char *text)
{
	size_t len = strlen(text);

	if (p->len - p->at < len || memcmp(p->text + p->at, text, len) != 0)
		return false;
	p->at += len;
	return true;
}

/* One character of the expression; an error where it is no UTF-8. */
static uint32_t
take_char(Parser *p)
{
	uint32_t c = 0;
	int n = p->at < p->len
				? llm_utf8_decode(p->text + p->at, p->len - p->at, &c)
				: 0;

	if (n == 0)
		refuse(p, LLM_ERROR_FORMAT,
			   p->at < p->len ? "invalid UTF-8" : "it ends too early", p->at);
	p->at += (size_t) n;
	return c;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* n hexadecimal digits, or any number of them up to '}' where n is 0. */
static uint32_t
take_hex(Parser *p, int n, size_t start)
{
	uint32_t value = 0;
	int taken = 0;

	while (p->at < p->len && (n == 0 ? taken < 7 : taken < n) &&
		   hex_value(p->text[p->at]) >= 0)
	{
		value = value * 16 + (uint32_t) hex_value(p->text[p->at++]);
		taken++;
	}
	if (taken == 0 || (n > 0 && taken < n) || (n == 0 && !take(p, "}")) ||
		value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
		refuse(p, LLM_ERROR_FORMAT, "a malformed character number", start);
	return value;
}

/* \p{name}, behind the p. */
static void
add_property(Parser *p, LlmGrammarSet *set, bool inverted, size_t start)
{
	LlmGrammarSet class = { 0 };
	const char *name;
	const char *end;

	if (!take(p, "{") ||
		(end = memchr(p->text + p->at, '}', p->len - p->at)) == NULL)
	{
		refuse(p, LLM_ERROR_FORMAT, "a malformed \\p", start);
		return;
	}
	name = p->text + p->at;
	p->at = (size_t) (end - p->text) + 1;
	if (end - name > 3 && memcmp(name, "gc=", 3) == 0)
		name += 3;
	if (!llm_pattern_add_category(p->b, &class, name, (size_t) (end - name)))
	{
		refuse(p, LLM_ERROR_UNSUPPORTED,
			   "only general categories are supported in \\p, another name",
			   start);
		return;
	}
	if (inverted)
		llm_grammar_set_invert(p->b, &class);
	for (size_t i = 0; i < class.n_ranges; i++)
		llm_grammar_set_add(p->b, set, class.ranges[i].low,
							class.ranges[i].high);
}

/*
 * What follows a backslash, added to a set.  *single is its character, or -1
 * where it is a class.
 */
static void
take_escape(Parser *p, LlmGrammarSet *set, bool in_class, int64_t *single)
{
	static const char letters[] = "n\nr\rt\tf\fv\v";
	size_t start = p->at - 1;
	uint32_t c = take_char(p);

	*single = -1;
	if (llm_grammar_failed(p->b) ||
		(c < 0x80 && llm_pattern_add_class(p->b, set, (char) c)))
		return;
	if (c == 'p' || c == 'P')
	{
		add_property(p, set, c == 'P', start);
		return;
	}
	if (c == 'x' || c == 'u')
		c = take_hex(p, take(p, "{") ? 0 : (c == 'x' ? 2 : 4), start);
	else if (c == '0' &&
			 (p->at >= p->len || p->text[p->at] < '0' || p->text[p->at] > '9'))
		c = 0;
	else if (c == 'b' && in_class)
		c = '\b';
	else if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
			 (c >= 'A' && c <= 'Z'))
	{
		const char *known = strchr(letters, (int) c);

		if (known == NULL || (known - letters) % 2 != 0)
		{
			refuse(p, LLM_ERROR_UNSUPPORTED, "an escape that is not supported",
				   start);
			return;
		}
		c = (uint8_t) known[1];
	}
	llm_grammar_set_add(p->b, set, c, c);
	*single = c;
}

/* A member of a class: a character, or one of what an escape means. */
static int64_t
take_member(Parser *p, LlmGrammarSet *set)
{
	int64_t single;

	if (take(p, "[:"))
		refuse(p, LLM_ERROR_UNSUPPORTED, "a POSIX class", p->at - 2);
	if (take(p, "\\"))
		take_escape(p, set, true, &single);
	else
	{
		single = take_char(p);
		llm_grammar_set_add(p->b, set, (uint32_t) single, (uint32_t) single);
	}
	return single;
}

/* Behind '['. */
static LlmPattern *
parse_class(Parser *p)
{
	LlmPattern *pattern = llm_pattern_create(p->b, LLM_PATTERN_SET);
	size_t start = p->at - 1;
	bool inverted = take(p, "^");

	while (pattern != NULL && !llm_grammar_failed(p->b) && !take(p, "]"))
	{
		size_t member = p->at;
		int64_t low = take_member(p, &pattern->set);
		int64_t high;

		if (llm_grammar_failed(p->b))
			return NULL;
		if (p->len - p->at < 2 || p->text[p->at] != '-' ||
			p->text[p->at + 1] == ']')
			continue;
		p->at++;
		high = take_member(p, &pattern->set);
		if (low < 0 || high < low)
		{
			refuse(p, LLM_ERROR_FORMAT, "a malformed range", member);
			return NULL;
		}
		llm_grammar_set_add(p->b, &pattern->set, (uint32_t) low,
							(uint32_t) high);
	}
	if (pattern == NULL || llm_grammar_failed(p->b))
		return NULL;
	if (inverted)
		llm_grammar_set_invert(p->b, &pattern->set);
	else if (pattern->set.n_ranges == 0)
	{
		refuse(p, LLM_ERROR_FORMAT, "an empty class", start);
		return NULL;
	}
	llm_grammar_set_normalize(&pattern->set);
	return pattern;
}

static LlmPattern *
parse_escape(Parser *p)
{
	LlmPattern *pattern = llm_pattern_create(p->b, LLM_PATTERN_SET);
	int64_t single;

	if (pattern == NULL)
		return NULL;
	take_escape(p, &pattern->set, false, &single);
	llm_grammar_set_normalize(&pattern->set);
	return pattern;
}

/* Every character but the ends of lines. */
static LlmPattern *
parse_dot(Parser *p)
{
	LlmPattern *pattern = llm_pattern_create(p->b, LLM_PATTERN_SET);

	if (pattern == NULL)
		return NULL;
	llm_grammar_set_add(p->b, &pattern->set, '\n', '\n');
	llm_grammar_set_add(p->b, &pattern->set, '\r', '\r');
	llm_grammar_set_add(p->b, &pattern->set, 0x2028, 0x2029);
	llm_grammar_set_invert(p->b, &pattern->set);
	return pattern;
}

static LlmPattern *parse_choice(Parser *p, bool is_top, Place place);

/* Behind '('. */
static LlmPattern *
parse_group(Parser *p)
{
	size_t start = p->at - 1;
	LlmPattern *pattern;

	if (take(p, "?") && !take(p, ":"))
	{
		const char *end = NULL;

		if ((take(p, "P<") || take(p, "<")) && p->at < p->len &&
			p->text[p->at] != '=' && p->text[p->at] != '!')
			end = memchr(p->text + p->at, '>', p->len - p->at);
		if (end == NULL)
		{
			refuse(p, LLM_ERROR_UNSUPPORTED,
				   "a group that is not supported (look-around, flags)", start);
			return NULL;
		}
		p->at = (size_t) (end - p->text) + 1;
	}
	if (++p->depth > LLM_PATTERN_MAX_DEPTH)
	{
		refuse(p, LLM_ERROR_LIMIT, "too many groups within groups", start);
		return NULL;
	}
	pattern = parse_choice(p, false, WHOLE);
	p->depth--;
	if (!llm_grammar_failed(p->b) && !take(p, ")"))
		refuse(p, LLM_ERROR_FORMAT, "a group without end", start);
	return pattern;
}

static LlmPattern *
parse_atom(Parser *p)
{
	size_t start = p->at;
	LlmPattern *pattern;
	uint32_t c;

	if (take(p, "("))
		return parse_group(p);
	if (take(p, "["))
		return parse_class(p);
	if (take(p, "."))
		return parse_dot(p);
	if (take(p, "\\"))
		return parse_escape(p);
	c = take_char(p);
	if (llm_grammar_failed(p->b))
		return NULL;
	if (c == '*' || c == '+' || c == '?' || c == '{')
		refuse(p, LLM_ERROR_FORMAT, "a repetition of nothing", start);
	if (c == '^' || c == '$')
		refuse(p, LLM_ERROR_UNSUPPORTED,
			   "an anchor elsewhere than at an end of the whole expression",
			   start);
	pattern = llm_pattern_create(p->b, LLM_PATTERN_SET);
	if (pattern != NULL)
		llm_grammar_set_add(p->b, &pattern->set, c, c);
	return pattern;
}

static bool
take_number(Parser *p, uint32_t *value)
{
	size_t start = p->at;

	*value = 0;
	while (p->at < p->len && p->text[p->at] >= '0' && p->text[p->at] <= '9')
	{
		*value = *value * 10 + (uint32_t) (p->text[p->at++] - '0');
		if (*value > MAX_COUNT)
			refuse(p, LLM_ERROR_LIMIT, "a count beyond 1000000", start);
		if (llm_grammar_failed(p->b))
			return false;
	}
	return p->at > start;
}

/* Behind '{'. */
static void
take_bounds(Parser *p, uint32_t *min, uint32_t *max)
{
	size_t start = p->at - 1;
	bool has_min = take_number(p, min);
	bool has_max = true;

	*max = *min;
	if (take(p, ","))
	{
		has_max = take_number(p, max);
		if (!has_max)
			*max = LLM_GRAMMAR_UNBOUNDED;
	}
	else if (!has_min)
		has_max = false;
	if (!take(p, "}") || (!has_min && !has_max) || *min > *max)
		refuse(p, LLM_ERROR_FORMAT, "a malformed repetition", start);
}

static LlmPattern *
parse_repeated(Parser *p)
{
	LlmPattern *pattern = parse_atom(p);

	while (!is_at_end(p))
	{
		uint32_t min = 0;
		uint32_t max = LLM_GRAMMAR_UNBOUNDED;

		if (take(p, "+"))
			min = 1;
		else if (take(p, "?"))
			max = 1;
		else if (take(p, "{"))
			take_bounds(p, &min, &max);
		else if (!take(p, "*"))
			break;
		if (take(p, "+"))
			refuse(p, LLM_ERROR_UNSUPPORTED, "a possessive repetition",
				   p->at - 1);
		take(p, "?"); /* lazy: the same language */
		pattern = llm_pattern_create_repeat(p->b, pattern, min, max);
		if (!is_at_end(p) && strchr("*+?{", p->text[p->at]) != NULL)
			refuse(p, LLM_ERROR_FORMAT, "a repetition of a repetition", p->at);
	}
	return pattern;
}

/* Any text: what a search skips. */
static LlmPattern *
create_any(Parser *p)
{
	LlmPattern *set = llm_pattern_create(p->b, LLM_PATTERN_SET);

	if (set != NULL)
		llm_grammar_set_add(p->b, &set->set, 0, 0x10FFFF);
	return llm_pattern_create_repeat(p->b, set, 0, LLM_GRAMMAR_UNBOUNDED);
}

/* "$" at the end of an alternative. */
static bool
is_end_anchor(const Parser *p)
{
	return p->text[p->at] == '$' &&
		   (p->at + 1 == p->len || p->text[p->at + 1] == '|' ||
			p->text[p->at + 1] == ')');
}

static LlmPattern *
parse_sequence(Parser *p, bool is_top, Place place)
{
	LlmPattern *sequence = llm_pattern_create(p->b, LLM_PATTERN_SEQUENCE);
	bool has_start = is_top && p->at < p->len && take(p, "^");
	bool has_end = false;

	if (place == ANYWHERE && !has_start)
		llm_pattern_add(p->b, sequence, create_any(p));
	while (!is_at_end(p) && p->text[p->at] != '|' && p->text[p->at] != ')')
	{
		if (is_top && is_end_anchor(p))
		{
			p->at++;
			has_end = true;
			break;
		}
		llm_pattern_add(p->b, sequence, parse_repeated(p));
	}
	if (place != WHOLE && !has_end)
		llm_pattern_add(p->b, sequence, create_any(p));
	return sequence;
}

static LlmPattern *
parse_choice(Parser *p, bool is_top, Place place)
{
	LlmPattern *choice = llm_pattern_create(p->b, LLM_PATTERN_CHOICE);

	do
		llm_pattern_add(p->b, choice, parse_sequence(p, is_top, place));
	while (!llm_grammar_failed(p->b) && take(p, "|"));
	return choice;
}

/* (?=...) or (?!...), at the start of a text; NULL: there is none. */
static LlmPattern *
parse_look(Parser *p)
{
	size_t start = p->at;
	bool negated = take(p, "(?!");
	LlmPattern *look;

	if (llm_grammar_failed(p->b) || (!negated && !take(p, "(?=")))
		return NULL;
	look = parse_choice(p, true, AT_START);
	if (!llm_grammar_failed(p->b) && !take(p, ")"))
		refuse(p, LLM_ERROR_FORMAT, "a group without end", start);
	if (look != NULL)
		look->negated = negated;
	return look;
}

/* Look-ahead, and the expression that it stands before; NULL: there is none. */
static LlmPattern *
parse_looks(Parser *p, Place place)
{
	bool has_start = take(p, "^");
	LlmPattern *both = llm_pattern_create(p->b, LLM_PATTERN_BOTH);
	LlmPattern *look;
	LlmPattern *rest;

	llm_pattern_add(p->b, both, both); /* the place of the rest */
	while ((has_start || place == WHOLE) && (look = parse_look(p)) != NULL)
		llm_pattern_add(p->b, both, look);
	if (both == NULL || both->n_parts == 1 || llm_grammar_failed(p->b))
	{
		p->at = 0;
		return NULL;
	}
	rest = parse_choice(p, true, place == WHOLE ? WHOLE : AT_START);
	if (rest != NULL && rest->n_parts > 1)
		refuse(p, LLM_ERROR_UNSUPPORTED,
			   "look-ahead in one of several alternatives", 0);
	both->parts[0] = rest;
	return both;
}

LlmPattern *
llm_pattern_parse_regex(LlmGrammarBuilder *b, const char *text, size_t len,
						bool is_search, const char *where)
{
	Parser p = { .b = b, .text = text, .len = len, .where = where };
	Place place = is_search ? ANYWHERE : WHOLE;
	LlmPattern *pattern = parse_looks(&p, place);

	if (pattern == NULL)
		pattern = parse_choice(&p, true, place);
	if (!llm_grammar_failed(b) && p.at < len)
		refuse(&p, LLM_ERROR_FORMAT, "a ')' without '('", p.at);
	return llm_grammar_failed(b) ? NULL : pattern;
}
