/*
 * grammar_category.c
 *	  Classes of characters that regular expressions name.
 *
 * \d, \w, \s and their complements are ECMA-262's: ASCII digits and word
 * characters; white space includes Unicode's.  \p takes general categories,
 * from the tables of utf8proc.
 *
 * src/common/grammar/grammar_category.c
 */
#include <string.h>
#include <utf8proc.h>

#include "src/common/grammar/grammar_pattern.h"

#define N_CODE_POINTS 0x110000

static void
add_spaces(LlmGrammarBuilder *b, LlmGrammarSet *set)
{
	static const LlmGrammarRange spaces[] = {
		{ 0x09, 0x0D },		{ 0x20, 0x20 },		{ 0xA0, 0xA0 },
		{ 0x1680, 0x1680 }, { 0x2000, 0x200A }, { 0x2028, 0x2029 },
		{ 0x202F, 0x202F }, { 0x205F, 0x205F }, { 0x3000, 0x3000 },
		{ 0xFEFF, 0xFEFF }
	};

	for (size_t i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++)
		llm_grammar_set_add(b, set, spaces[i].low, spaces[i].high);
}

bool
llm_pattern_add_class(LlmGrammarBuilder *b, LlmGrammarSet *set, char letter)
{
	LlmGrammarSet class = { 0 };

	switch (letter)
	{
		case 'd':
		case 'D':
			llm_grammar_set_add(b, &class, '0', '9');
			break;
		case 'w':
		case 'W':
			llm_grammar_set_add(b, &class, '0', '9');
			llm_grammar_set_add(b, &class, 'A', 'Z');
			llm_grammar_set_add(b, &class, 'a', 'z');
			llm_grammar_set_add(b, &class, '_', '_');
			break;
		case 's':
		case 'S':
			add_spaces(b, &class);
			break;
		default:
			return false;
	}
	if (letter < 'a')
		llm_grammar_set_invert(b, &class);
	for (size_t i = 0; i < class.n_ranges; i++)
		llm_grammar_set_add(b, set, class.ranges[i].low, class.ranges[i].high);
	return true;
}

/* Long names, as in \p{Letter}; the short ones are utf8proc's. */
static const struct
{
	const char *name;
	const char *letters;
} long_names[] = {
	{ "Letter", "L" },
	{ "Uppercase_Letter", "Lu" },
	{ "Lowercase_Letter", "Ll" },
	{ "Mark", "M" },
	{ "Number", "N" },
	{ "Decimal_Number", "Nd" },
	{ "Punctuation", "P" },
	{ "Symbol", "S" },
	{ "Separator", "Z" },
	{ "Space_Separator", "Zs" },
	{ "Other", "C" },
};

bool
llm_pattern_add_category(LlmGrammarBuilder *b, LlmGrammarSet *set,
						 const char *name, size_t len)
{
	bool found = false;
	uint32_t first = 0;
	bool was_in = false;

	for (size_t i = 0; i < sizeof(long_names) / sizeof(long_names[0]); i++)
	{
		if (strlen(long_names[i].name) == len &&
			memcmp(long_names[i].name, name, len) == 0)
		{
			name = long_names[i].letters;
			len = strlen(name);
			break;
		}
	}
	if (len != 1 && len != 2)
		return false;
	for (uint32_t c = 0; c <= N_CODE_POINTS; c++)
	{
		bool is_in = c < N_CODE_POINTS &&
					 memcmp(utf8proc_category_string((utf8proc_int32_t) c),
							name, len) == 0;

		if (is_in && !was_in)
			first = c;
		if (!is_in && was_in)
			llm_grammar_set_add(b, set, first, c - 1);
		found = found || is_in;
		was_in = is_in;
	}
	return found;
}
