/*
 * onig_property.c
 *	  Character properties of Oniguruma, spelled for PCRE2.
 *
 * General categories mean the same to both.  POSIX names and the binary
 * properties beside them are as Oniguruma has them.
 *
 * src/common/tokenizer/onig_property.c
 */
#include "src/common/tokenizer/onig_property.h"

#include <stddef.h>
#include <string.h>

static const struct
{
	const char *name; /* lower case, without separators */
	const char *members;
	const char *negated;
} properties[] = {
	{ "l", "\\p{L}", "\\P{L}" },
	{ "letter", "\\p{L}", "\\P{L}" },
	{ "lu", "\\p{Lu}", "\\P{Lu}" },
	{ "uppercaseletter", "\\p{Lu}", "\\P{Lu}" },
	{ "ll", "\\p{Ll}", "\\P{Ll}" },
	{ "lowercaseletter", "\\p{Ll}", "\\P{Ll}" },
	{ "lt", "\\p{Lt}", "\\P{Lt}" },
	{ "titlecaseletter", "\\p{Lt}", "\\P{Lt}" },
	{ "lm", "\\p{Lm}", "\\P{Lm}" },
	{ "modifierletter", "\\p{Lm}", "\\P{Lm}" },
	{ "lo", "\\p{Lo}", "\\P{Lo}" },
	{ "otherletter", "\\p{Lo}", "\\P{Lo}" },
	{ "m", "\\p{M}", "\\P{M}" },
	{ "mark", "\\p{M}", "\\P{M}" },
	{ "combiningmark", "\\p{M}", "\\P{M}" },
	{ "mn", "\\p{Mn}", "\\P{Mn}" },
	{ "nonspacingmark", "\\p{Mn}", "\\P{Mn}" },
	{ "mc", "\\p{Mc}", "\\P{Mc}" },
	{ "spacingmark", "\\p{Mc}", "\\P{Mc}" },
	{ "me", "\\p{Me}", "\\P{Me}" },
	{ "enclosingmark", "\\p{Me}", "\\P{Me}" },
	{ "n", "\\p{N}", "\\P{N}" },
	{ "number", "\\p{N}", "\\P{N}" },
	{ "nd", "\\p{Nd}", "\\P{Nd}" },
	{ "decimalnumber", "\\p{Nd}", "\\P{Nd}" },
	{ "digit", "\\p{Nd}", "\\P{Nd}" },
	{ "nl", "\\p{Nl}", "\\P{Nl}" },
	{ "letternumber", "\\p{Nl}", "\\P{Nl}" },
	{ "no", "\\p{No}", "\\P{No}" },
	{ "othernumber", "\\p{No}", "\\P{No}" },
	{ "p", "\\p{P}", "\\P{P}" },
	{ "punctuation", "\\p{P}", "\\P{P}" },
	{ "pc", "\\p{Pc}", "\\P{Pc}" },
	{ "connectorpunctuation", "\\p{Pc}", "\\P{Pc}" },
	{ "pd", "\\p{Pd}", "\\P{Pd}" },
	{ "dashpunctuation", "\\p{Pd}", "\\P{Pd}" },
	{ "ps", "\\p{Ps}", "\\P{Ps}" },
	{ "openpunctuation", "\\p{Ps}", "\\P{Ps}" },
	{ "pe", "\\p{Pe}", "\\P{Pe}" },
	{ "closepunctuation", "\\p{Pe}", "\\P{Pe}" },
	{ "pi", "\\p{Pi}", "\\P{Pi}" },
	{ "initialpunctuation", "\\p{Pi}", "\\P{Pi}" },
	{ "pf", "\\p{Pf}", "\\P{Pf}" },
	{ "finalpunctuation", "\\p{Pf}", "\\P{Pf}" },
	{ "po", "\\p{Po}", "\\P{Po}" },
	{ "otherpunctuation", "\\p{Po}", "\\P{Po}" },
	{ "s", "\\p{S}", "\\P{S}" },
	{ "symbol", "\\p{S}", "\\P{S}" },
	{ "sm", "\\p{Sm}", "\\P{Sm}" },
	{ "mathsymbol", "\\p{Sm}", "\\P{Sm}" },
	{ "sc", "\\p{Sc}", "\\P{Sc}" },
	{ "currencysymbol", "\\p{Sc}", "\\P{Sc}" },
	{ "sk", "\\p{Sk}", "\\P{Sk}" },
	{ "modifiersymbol", "\\p{Sk}", "\\P{Sk}" },
	{ "so", "\\p{So}", "\\P{So}" },
	{ "othersymbol", "\\p{So}", "\\P{So}" },
	{ "z", "\\p{Z}", "\\P{Z}" },
	{ "separator", "\\p{Z}", "\\P{Z}" },
	{ "zs", "\\p{Zs}", "\\P{Zs}" },
	{ "spaceseparator", "\\p{Zs}", "\\P{Zs}" },
	{ "zl", "\\p{Zl}", "\\P{Zl}" },
	{ "lineseparator", "\\p{Zl}", "\\P{Zl}" },
	{ "zp", "\\p{Zp}", "\\P{Zp}" },
	{ "paragraphseparator", "\\p{Zp}", "\\P{Zp}" },
	{ "c", "\\p{C}", "\\P{C}" },
	{ "other", "\\p{C}", "\\P{C}" },
	{ "cc", "\\p{Cc}", "\\P{Cc}" },
	{ "control", "\\p{Cc}", "\\P{Cc}" },
	{ "cntrl", "\\p{Cc}", "\\P{Cc}" },
	{ "cf", "\\p{Cf}", "\\P{Cf}" },
	{ "format", "\\p{Cf}", "\\P{Cf}" },
	{ "co", "\\p{Co}", "\\P{Co}" },
	{ "privateuse", "\\p{Co}", "\\P{Co}" },
	{ "cn", "\\p{Cn}", "\\P{Cn}" },
	{ "unassigned", "\\p{Cn}", "\\P{Cn}" },
	{ "any", "\\p{Any}", "\\P{Any}" },
	{ "alpha", "\\p{Alphabetic}", "\\P{Alphabetic}" },
	{ "alphabetic", "\\p{Alphabetic}", "\\P{Alphabetic}" },
	{ "alnum", "\\p{Alphabetic}\\p{Nd}", NULL },
	{ "upper", "\\p{Uppercase}", "\\P{Uppercase}" },
	{ "uppercase", "\\p{Uppercase}", "\\P{Uppercase}" },
	{ "lower", "\\p{Lowercase}", "\\P{Lowercase}" },
	{ "lowercase", "\\p{Lowercase}", "\\P{Lowercase}" },
	{ "space", CLASS_SPACE, CLASS_NOT_SPACE },
	{ "whitespace", CLASS_SPACE, CLASS_NOT_SPACE },
	{ "blank", "\\p{Zs}\\x09", NULL },
	{ "punct", "\\p{P}", "\\P{P}" },
	{ "word", CLASS_WORD, NULL },
	{ "xdigit", CLASS_HEX, CLASS_NOT_HEX },
	{ "ascii", "\\x00-\\x7F", "\\x{80}-\\x{10FFFF}" },
};

const char *
llm_onig_property_members(const char *name, bool negated, bool *is_known)
{
	for (size_t i = 0; i < sizeof(properties) / sizeof(properties[0]); i++)
	{
		if (strcmp(properties[i].name, name) == 0)
		{
			*is_known = true;
			return negated ? properties[i].negated : properties[i].members;
		}
	}
	*is_known = false;
	return NULL;
}
