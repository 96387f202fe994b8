/*
 * unicode_class.c
 *	  Character classes and the byte-level alphabet.
 *
 * src/common/tokenizer/unicode_class.c
 */
#include "src/common/tokenizer/unicode_class.h"

#include <assert.h>
#include <string.h>
#include <utf8proc.h>

#include "src/common/tokenizer/unicode_table.h"

bool
llm_unicode_is_whitespace(uint32_t cp)
{
	if (cp < 0x80)
		return cp == ' ' || (cp >= 0x09 && cp <= 0x0D);
	return cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
		   (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
		   cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool
llm_unicode_is_numeric(uint32_t cp)
{
	utf8proc_category_t category;

	if (cp < 0x80)
		return cp >= '0' && cp <= '9';
	category = utf8proc_category((utf8proc_int32_t) cp);
	return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool
llm_unicode_is_punctuation(uint32_t cp)
{
	utf8proc_category_t category;

	if (cp < 0x80)
		return (cp >= '!' && cp <= '/') || (cp >= ':' && cp <= '@') ||
			   (cp >= '[' && cp <= '`') || (cp >= '{' && cp <= '~');
	if (cp == 0x166D || cp == 0x111C9)
		return true; /* was so once */
	category = utf8proc_category((utf8proc_int32_t) cp);
	return category >= UTF8PROC_CATEGORY_PC &&
		   category <= UTF8PROC_CATEGORY_PO && !llm_unicode_is_young(cp);
}

bool
llm_unicode_is_control(uint32_t cp)
{
	utf8proc_category_t category;

	if (cp < 0x80)
		return cp < 0x20 || cp == 0x7F;
	category = utf8proc_category((utf8proc_int32_t) cp);
	return (category == UTF8PROC_CATEGORY_CC ||
			category == UTF8PROC_CATEGORY_CF ||
			category == UTF8PROC_CATEGORY_CO) &&
		   !llm_unicode_is_young(cp);
}

bool
llm_unicode_is_nonspacing(uint32_t cp)
{
	if (cp < 0x300)
		return false;
	if (cp == 0x1734)
		return true; /* was so once */
	return utf8proc_category((utf8proc_int32_t) cp) == UTF8PROC_CATEGORY_MN &&
		   !llm_unicode_is_young(cp);
}

bool
llm_unicode_is_accent(uint32_t cp)
{
	if (cp == 0x1CF2 || cp == 0x1CF3)
		return true; /* were so once */
	return llm_unicode_is_mark(cp) && !llm_unicode_is_young_accent(cp);
}

bool
llm_unicode_is_mark(uint32_t cp)
{
	utf8proc_category_t category;

	if (cp < 0x300)
		return false;
	category = utf8proc_category((utf8proc_int32_t) cp);
	return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool
llm_unicode_is_word(uint32_t cp)
{
	if (cp < 0x80)
		return (cp >= 'a' && cp <= 'z') || (cp >= 'A' && cp <= 'Z') ||
			   (cp >= '0' && cp <= '9') || cp == '_';
	if (cp == 0x200C || cp == 0x200D)
		return true; /* Join_Control */
	/* Other_Alphabetic beyond the categories below: enclosed letters */
	if ((cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) ||
		(cp >= 0x1F150 && cp <= 0x1F169) || (cp >= 0x1F170 && cp <= 0x1F189))
		return true;
	switch (utf8proc_category((utf8proc_int32_t) cp))
	{
		case UTF8PROC_CATEGORY_LU:
		case UTF8PROC_CATEGORY_LL:
		case UTF8PROC_CATEGORY_LT:
		case UTF8PROC_CATEGORY_LM:
		case UTF8PROC_CATEGORY_LO:
		case UTF8PROC_CATEGORY_MN:
		case UTF8PROC_CATEGORY_MC:
		case UTF8PROC_CATEGORY_ME:
		case UTF8PROC_CATEGORY_ND:
		case UTF8PROC_CATEGORY_NL:
		case UTF8PROC_CATEGORY_PC:
			return true;
		default:
			return false;
	}
}

int
llm_unicode_lowercase(uint32_t cp, uint32_t lower[2])
{
	if (cp == 0x130)
	{
		/* the one unconditional special casing: I with dot above */
		lower[0] = 'i';
		lower[1] = 0x307;
		return 2;
	}
	if (cp < 0x80)
		lower[0] = cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
	else
		lower[0] = (uint32_t) utf8proc_tolower((utf8proc_int32_t) cp);
	return 1;
}

/* Bytes that stand for themselves in the byte-level alphabet. */
static bool
is_plain_byte(unsigned byte)
{
	return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) ||
		   byte >= 0xAE;
}

uint32_t
llm_byte_level_encode(unsigned char byte)
{
	if (is_plain_byte(byte))
		return byte;
	/* the others are numbered in order: 00-20, 7F-A0, AD */
	if (byte <= 0x20)
		return 0x100u + byte;
	if (byte <= 0xA0)
		return 0x121u + (byte - 0x7Fu);
	assert(byte == 0xAD);
	return 0x143;
}

int
llm_byte_level_decode(uint32_t cp)
{
	if (cp < 0x100)
		return is_plain_byte(cp) ? (int) cp : -1;
	if (cp <= 0x120)
		return (int) (cp - 0x100);
	if (cp <= 0x142)
		return (int) (cp - 0x121 + 0x7F);
	return cp == 0x143 ? 0xAD : -1;
}

/* Bytes of the character that lead starts, and the bounds of its second. */
static size_t
character_length(unsigned char lead, unsigned char *low, unsigned char *high)
{
	*low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
	*high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
	if (lead < 0x80)
		return 1;
	if (lead < 0xC2 || lead > 0xF4)
		return 0;
	return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

size_t
llm_unicode_append_lossy(LlmStrbuf *out, const char *text, size_t len,
						 bool is_end)
{
	const unsigned char *s = (const unsigned char *) text;
	size_t run = 0; /* start of the valid text not yet appended */
	size_t off = 0;

	while (off < len)
	{
		unsigned char low;
		unsigned char high;
		size_t need = character_length(s[off], &low, &high);
		size_t have = 1;

		while (have < need && off + have < len && s[off + have] >= low &&
			   s[off + have] <= high)
		{
			low = 0x80;
			high = 0xBF;
			have++;
		}
		if (have == need)
		{
			off += have;
			continue;
		}
		llm_strbuf_append(out, text + run, off - run);
		run = off;
		if (off + have == len && have < need && !is_end)
			return off;
		llm_strbuf_append(out, "\xEF\xBF\xBD", 3);
		off += have;
		run = off;
	}
	llm_strbuf_append(out, text + run, off - run);
	return off;
}
