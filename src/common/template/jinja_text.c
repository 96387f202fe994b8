/*
 * jinja_text.c
 *	  Characters and texts as Python's str sees them.
 *
 * Properties come from utf8proc's Unicode tables.  The case mappings that
 * turn one character into several are Unicode's unconditional SpecialCasing
 * entries, which utf8proc lacks; of the conditional ones only the final sigma
 * applies without a language.
 *
 * src/common/template/jinja_text.c
 */
#include "src/common/template/jinja_text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "src/common/util/utf8.h"

typedef struct SpecialCase
{
	uint16_t codepoint;
	uint16_t upper[3];
	uint16_t title[3];
} SpecialCase;

/* Sorted by code point. */
static const SpecialCase special_cases[] = {
	{ 0x00DF, { 0x0053, 0x0053, 0x0000 }, { 0x0053, 0x0073, 0x0000 } },
	{ 0x0149, { 0x02BC, 0x004E, 0x0000 }, { 0x02BC, 0x004E, 0x0000 } },
	{ 0x01F0, { 0x004A, 0x030C, 0x0000 }, { 0x004A, 0x030C, 0x0000 } },
	{ 0x0390, { 0x0399, 0x0308, 0x0301 }, { 0x0399, 0x0308, 0x0301 } },
	{ 0x03B0, { 0x03A5, 0x0308, 0x0301 }, { 0x03A5, 0x0308, 0x0301 } },
	{ 0x0587, { 0x0535, 0x0552, 0x0000 }, { 0x0535, 0x0582, 0x0000 } },
	{ 0x1E96, { 0x0048, 0x0331, 0x0000 }, { 0x0048, 0x0331, 0x0000 } },
	{ 0x1E97, { 0x0054, 0x0308, 0x0000 }, { 0x0054, 0x0308, 0x0000 } },
	{ 0x1E98, { 0x0057, 0x030A, 0x0000 }, { 0x0057, 0x030A, 0x0000 } },
	{ 0x1E99, { 0x0059, 0x030A, 0x0000 }, { 0x0059, 0x030A, 0x0000 } },
	{ 0x1E9A, { 0x0041, 0x02BE, 0x0000 }, { 0x0041, 0x02BE, 0x0000 } },
	{ 0x1F50, { 0x03A5, 0x0313, 0x0000 }, { 0x03A5, 0x0313, 0x0000 } },
	{ 0x1F52, { 0x03A5, 0x0313, 0x0300 }, { 0x03A5, 0x0313, 0x0300 } },
	{ 0x1F54, { 0x03A5, 0x0313, 0x0301 }, { 0x03A5, 0x0313, 0x0301 } },
	{ 0x1F56, { 0x03A5, 0x0313, 0x0342 }, { 0x03A5, 0x0313, 0x0342 } },
	{ 0x1F80, { 0x1F08, 0x0399, 0x0000 }, { 0x1F88, 0x0000, 0x0000 } },
	{ 0x1F81, { 0x1F09, 0x0399, 0x0000 }, { 0x1F89, 0x0000, 0x0000 } },
	{ 0x1F82, { 0x1F0A, 0x0399, 0x0000 }, { 0x1F8A, 0x0000, 0x0000 } },
	{ 0x1F83, { 0x1F0B, 0x0399, 0x0000 }, { 0x1F8B, 0x0000, 0x0000 } },
	{ 0x1F84, { 0x1F0C, 0x0399, 0x0000 }, { 0x1F8C, 0x0000, 0x0000 } },
	{ 0x1F85, { 0x1F0D, 0x0399, 0x0000 }, { 0x1F8D, 0x0000, 0x0000 } },
	{ 0x1F86, { 0x1F0E, 0x0399, 0x0000 }, { 0x1F8E, 0x0000, 0x0000 } },
	{ 0x1F87, { 0x1F0F, 0x0399, 0x0000 }, { 0x1F8F, 0x0000, 0x0000 } },
	{ 0x1F88, { 0x1F08, 0x0399, 0x0000 }, { 0x1F88, 0x0000, 0x0000 } },
	{ 0x1F89, { 0x1F09, 0x0399, 0x0000 }, { 0x1F89, 0x0000, 0x0000 } },
	{ 0x1F8A, { 0x1F0A, 0x0399, 0x0000 }, { 0x1F8A, 0x0000, 0x0000 } },
	{ 0x1F8B, { 0x1F0B, 0x0399, 0x0000 }, { 0x1F8B, 0x0000, 0x0000 } },
	{ 0x1F8C, { 0x1F0C, 0x0399, 0x0000 }, { 0x1F8C, 0x0000, 0x0000 } },
	{ 0x1F8D, { 0x1F0D, 0x0399, 0x0000 }, { 0x1F8D, 0x0000, 0x0000 } },
	{ 0x1F8E, { 0x1F0E, 0x0399, 0x0000 }, { 0x1F8E, 0x0000, 0x0000 } },
	{ 0x1F8F, { 0x1F0F, 0x0399, 0x0000 }, { 0x1F8F, 0x0000, 0x0000 } },
	{ 0x1F90, { 0x1F28, 0x0399, 0x0000 }, { 0x1F98, 0x0000, 0x0000 } },
	{ 0x1F91, { 0x1F29, 0x0399, 0x0000 }, { 0x1F99, 0x0000, 0x0000 } },
	{ 0x1F92, { 0x1F2A, 0x0399, 0x0000 }, { 0x1F9A, 0x0000, 0x0000 } },
	{ 0x1F93, { 0x1F2B, 0x0399, 0x0000 }, { 0x1F9B, 0x0000, 0x0000 } },
	{ 0x1F94, { 0x1F2C, 0x0399, 0x0000 }, { 0x1F9C, 0x0000, 0x0000 } },
	{ 0x1F95, { 0x1F2D, 0x0399, 0x0000 }, { 0x1F9D, 0x0000, 0x0000 } },
	{ 0x1F96, { 0x1F2E, 0x0399, 0x0000 }, { 0x1F9E, 0x0000, 0x0000 } },
	{ 0x1F97, { 0x1F2F, 0x0399, 0x0000 }, { 0x1F9F, 0x0000, 0x0000 } },
	{ 0x1F98, { 0x1F28, 0x0399, 0x0000 }, { 0x1F98, 0x0000, 0x0000 } },
	{ 0x1F99, { 0x1F29, 0x0399, 0x0000 }, { 0x1F99, 0x0000, 0x0000 } },
	{ 0x1F9A, { 0x1F2A, 0x0399, 0x0000 }, { 0x1F9A, 0x0000, 0x0000 } },
	{ 0x1F9B, { 0x1F2B, 0x0399, 0x0000 }, { 0x1F9B, 0x0000, 0x0000 } },
	{ 0x1F9C, { 0x1F2C, 0x0399, 0x0000 }, { 0x1F9C, 0x0000, 0x0000 } },
	{ 0x1F9D, { 0x1F2D, 0x0399, 0x0000 }, { 0x1F9D, 0x0000, 0x0000 } },
	{ 0x1F9E, { 0x1F2E, 0x0399, 0x0000 }, { 0x1F9E, 0x0000, 0x0000 } },
	{ 0x1F9F, { 0x1F2F, 0x0399, 0x0000 }, { 0x1F9F, 0x0000, 0x0000 } },
	{ 0x1FA0, { 0x1F68, 0x0399, 0x0000 }, { 0x1FA8, 0x0000, 0x0000 } },
	{ 0x1FA1, { 0x1F69, 0x0399, 0x0000 }, { 0x1FA9, 0x0000, 0x0000 } },
	{ 0x1FA2, { 0x1F6A, 0x0399, 0x0000 }, { 0x1FAA, 0x0000, 0x0000 } },
	{ 0x1FA3, { 0x1F6B, 0x0399, 0x0000 }, { 0x1FAB, 0x0000, 0x0000 } },
	{ 0x1FA4, { 0x1F6C, 0x0399, 0x0000 }, { 0x1FAC, 0x0000, 0x0000 } },
	{ 0x1FA5, { 0x1F6D, 0x0399, 0x0000 }, { 0x1FAD, 0x0000, 0x0000 } },
	{ 0x1FA6, { 0x1F6E, 0x0399, 0x0000 }, { 0x1FAE, 0x0000, 0x0000 } },
	{ 0x1FA7, { 0x1F6F, 0x0399, 0x0000 }, { 0x1FAF, 0x0000, 0x0000 } },
	{ 0x1FA8, { 0x1F68, 0x0399, 0x0000 }, { 0x1FA8, 0x0000, 0x0000 } },
	{ 0x1FA9, { 0x1F69, 0x0399, 0x0000 }, { 0x1FA9, 0x0000, 0x0000 } },
	{ 0x1FAA, { 0x1F6A, 0x0399, 0x0000 }, { 0x1FAA, 0x0000, 0x0000 } },
	{ 0x1FAB, { 0x1F6B, 0x0399, 0x0000 }, { 0x1FAB, 0x0000, 0x0000 } },
	{ 0x1FAC, { 0x1F6C, 0x0399, 0x0000 }, { 0x1FAC, 0x0000, 0x0000 } },
	{ 0x1FAD, { 0x1F6D, 0x0399, 0x0000 }, { 0x1FAD, 0x0000, 0x0000 } },
	{ 0x1FAE, { 0x1F6E, 0x0399, 0x0000 }, { 0x1FAE, 0x0000, 0x0000 } },
	{ 0x1FAF, { 0x1F6F, 0x0399, 0x0000 }, { 0x1FAF, 0x0000, 0x0000 } },
	{ 0x1FB2, { 0x1FBA, 0x0399, 0x0000 }, { 0x1FBA, 0x0345, 0x0000 } },
	{ 0x1FB3, { 0x0391, 0x0399, 0x0000 }, { 0x1FBC, 0x0000, 0x0000 } },
	{ 0x1FB4, { 0x0386, 0x0399, 0x0000 }, { 0x0386, 0x0345, 0x0000 } },
	{ 0x1FB6, { 0x0391, 0x0342, 0x0000 }, { 0x0391, 0x0342, 0x0000 } },
	{ 0x1FB7, { 0x0391, 0x0342, 0x0399 }, { 0x0391, 0x0342, 0x0345 } },
	{ 0x1FBC, { 0x0391, 0x0399, 0x0000 }, { 0x1FBC, 0x0000, 0x0000 } },
	{ 0x1FC2, { 0x1FCA, 0x0399, 0x0000 }, { 0x1FCA, 0x0345, 0x0000 } },
	{ 0x1FC3, { 0x0397, 0x0399, 0x0000 }, { 0x1FCC, 0x0000, 0x0000 } },
	{ 0x1FC4, { 0x0389, 0x0399, 0x0000 }, { 0x0389, 0x0345, 0x0000 } },
	{ 0x1FC6, { 0x0397, 0x0342, 0x0000 }, { 0x0397, 0x0342, 0x0000 } },
	{ 0x1FC7, { 0x0397, 0x0342, 0x0399 }, { 0x0397, 0x0342, 0x0345 } },
	{ 0x1FCC, { 0x0397, 0x0399, 0x0000 }, { 0x1FCC, 0x0000, 0x0000 } },
	{ 0x1FD2, { 0x0399, 0x0308, 0x0300 }, { 0x0399, 0x0308, 0x0300 } },
	{ 0x1FD3, { 0x0399, 0x0308, 0x0301 }, { 0x0399, 0x0308, 0x0301 } },
	{ 0x1FD6, { 0x0399, 0x0342, 0x0000 }, { 0x0399, 0x0342, 0x0000 } },
	{ 0x1FD7, { 0x0399, 0x0308, 0x0342 }, { 0x0399, 0x0308, 0x0342 } },
	{ 0x1FE2, { 0x03A5, 0x0308, 0x0300 }, { 0x03A5, 0x0308, 0x0300 } },
	{ 0x1FE3, { 0x03A5, 0x0308, 0x0301 }, { 0x03A5, 0x0308, 0x0301 } },
	{ 0x1FE4, { 0x03A1, 0x0313, 0x0000 }, { 0x03A1, 0x0313, 0x0000 } },
	{ 0x1FE6, { 0x03A5, 0x0342, 0x0000 }, { 0x03A5, 0x0342, 0x0000 } },
	{ 0x1FE7, { 0x03A5, 0x0308, 0x0342 }, { 0x03A5, 0x0308, 0x0342 } },
	{ 0x1FF2, { 0x1FFA, 0x0399, 0x0000 }, { 0x1FFA, 0x0345, 0x0000 } },
	{ 0x1FF3, { 0x03A9, 0x0399, 0x0000 }, { 0x1FFC, 0x0000, 0x0000 } },
	{ 0x1FF4, { 0x038F, 0x0399, 0x0000 }, { 0x038F, 0x0345, 0x0000 } },
	{ 0x1FF6, { 0x03A9, 0x0342, 0x0000 }, { 0x03A9, 0x0342, 0x0000 } },
	{ 0x1FF7, { 0x03A9, 0x0342, 0x0399 }, { 0x03A9, 0x0342, 0x0345 } },
	{ 0x1FFC, { 0x03A9, 0x0399, 0x0000 }, { 0x1FFC, 0x0000, 0x0000 } },
	{ 0xFB00, { 0x0046, 0x0046, 0x0000 }, { 0x0046, 0x0066, 0x0000 } },
	{ 0xFB01, { 0x0046, 0x0049, 0x0000 }, { 0x0046, 0x0069, 0x0000 } },
	{ 0xFB02, { 0x0046, 0x004C, 0x0000 }, { 0x0046, 0x006C, 0x0000 } },
	{ 0xFB03, { 0x0046, 0x0046, 0x0049 }, { 0x0046, 0x0066, 0x0069 } },
	{ 0xFB04, { 0x0046, 0x0046, 0x004C }, { 0x0046, 0x0066, 0x006C } },
	{ 0xFB05, { 0x0053, 0x0054, 0x0000 }, { 0x0053, 0x0074, 0x0000 } },
	{ 0xFB06, { 0x0053, 0x0054, 0x0000 }, { 0x0053, 0x0074, 0x0000 } },
	{ 0xFB13, { 0x0544, 0x0546, 0x0000 }, { 0x0544, 0x0576, 0x0000 } },
	{ 0xFB14, { 0x0544, 0x0535, 0x0000 }, { 0x0544, 0x0565, 0x0000 } },
	{ 0xFB15, { 0x0544, 0x053B, 0x0000 }, { 0x0544, 0x056B, 0x0000 } },
	{ 0xFB16, { 0x054E, 0x0546, 0x0000 }, { 0x054E, 0x0576, 0x0000 } },
	{ 0xFB17, { 0x0544, 0x053D, 0x0000 }, { 0x0544, 0x056D, 0x0000 } },
};

#define N_SPECIAL_CASES (sizeof(special_cases) / sizeof(special_cases[0]))

#define CAPITAL_I_WITH_DOT 0x0130
#define COMBINING_DOT_ABOVE 0x0307
#define CAPITAL_SIGMA 0x03A3
#define SMALL_SIGMA 0x03C3
#define SMALL_FINAL_SIGMA 0x03C2

uint32_t
llm_jinja_char_at(const char *text, size_t len, size_t at, int *n_bytes)
{
	uint32_t codepoint = 0;

	assert(at < len);
	*n_bytes = llm_utf8_decode(text + at, len - at, &codepoint);
	assert(*n_bytes > 0);
	return codepoint;
}

size_t
llm_jinja_char_before(const char *text, size_t end)
{
	assert(end > 0);
	do
		end--;
	while (end > 0 && ((unsigned char) text[end] & 0xC0) == 0x80);
	return end;
}

size_t
llm_jinja_char_offset(const LlmJinjaString *string, size_t char_idx)
{
	size_t at = 0;

	if (char_idx >= string->n_chars)
		return string->len;
	if (string->n_chars == string->len)
		return char_idx;
	for (size_t i = 0; i < char_idx; i++)
	{
		at++;
		while (at < string->len &&
			   ((unsigned char) string->data[at] & 0xC0) == 0x80)
			at++;
	}
	return at;
}

/* ---- properties ---- */

typedef struct CharRange
{
	uint32_t first;
	uint32_t last;
} CharRange;

static bool
is_in_ranges(uint32_t c, const CharRange *ranges, size_t n_ranges)
{
	for (size_t i = 0; i < n_ranges; i++)
		if (c >= ranges[i].first && c <= ranges[i].last)
			return true;
	return false;
}

static utf8proc_category_t
category(uint32_t codepoint)
{
	return utf8proc_category((utf8proc_int32_t) codepoint);
}

bool
llm_jinja_is_space(uint32_t c)
{
	if (c < 0x80)
		return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
	return c == 0x85 || c == 0xA0 || c == 0x1680 ||
		   (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
		   c == 0x202F || c == 0x205F || c == 0x3000;
}

bool
llm_jinja_is_line_break(uint32_t c)
{
	return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
		   c == 0x2028 || c == 0x2029;
}

bool
llm_jinja_is_printable(uint32_t c)
{
	if (c < 0x7F)
		return c >= 0x20;
	switch (category(c))
	{
		case UTF8PROC_CATEGORY_CN:
		case UTF8PROC_CATEGORY_CC:
		case UTF8PROC_CATEGORY_CF:
		case UTF8PROC_CATEGORY_CS:
		case UTF8PROC_CATEGORY_CO:
		case UTF8PROC_CATEGORY_ZL:
		case UTF8PROC_CATEGORY_ZP:
		case UTF8PROC_CATEGORY_ZS:
			return false;
		default:
			return true;
	}
}

bool
llm_jinja_is_decimal(uint32_t c)
{
	return category(c) == UTF8PROC_CATEGORY_ND;
}

/* Decimals, and the superscripts, circled digits and their like. */
bool
llm_jinja_is_digit(uint32_t c)
{
	static const CharRange ranges[] = {
		{ 0x00B2, 0x00B3 },	  { 0x00B9, 0x00B9 },	{ 0x1369, 0x1371 },
		{ 0x19DA, 0x19DA },	  { 0x2070, 0x2070 },	{ 0x2074, 0x2079 },
		{ 0x2080, 0x2089 },	  { 0x2460, 0x2468 },	{ 0x2474, 0x247C },
		{ 0x2488, 0x2490 },	  { 0x24EA, 0x24EA },	{ 0x24F5, 0x24FD },
		{ 0x24FF, 0x24FF },	  { 0x2776, 0x277E },	{ 0x2780, 0x2788 },
		{ 0x278A, 0x2792 },	  { 0x10A40, 0x10A43 }, { 0x10E60, 0x10E68 },
		{ 0x11052, 0x1105A }, { 0x1F100, 0x1F10A },
	};

	return llm_jinja_is_decimal(c) ||
		   is_in_ranges(c, ranges, sizeof(ranges) / sizeof(ranges[0]));
}

bool
llm_jinja_is_numeric(uint32_t c)
{
	utf8proc_category_t kind = category(c);

	return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL ||
		   kind == UTF8PROC_CATEGORY_NO;
}

bool
llm_jinja_is_alpha(uint32_t c)
{
	utf8proc_category_t kind = category(c);

	return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}

bool
llm_jinja_is_word(uint32_t c)
{
	return c == '_' || llm_jinja_is_alpha(c) || llm_jinja_is_numeric(c);
}

static bool
is_identifier_char(uint32_t c, bool is_first)
{
	if (c == '_' || llm_jinja_is_alpha(c))
		return true;
	switch (category(c))
	{
		case UTF8PROC_CATEGORY_NL:
			return true;
		case UTF8PROC_CATEGORY_ND:
		case UTF8PROC_CATEGORY_MN:
		case UTF8PROC_CATEGORY_MC:
		case UTF8PROC_CATEGORY_PC:
			return !is_first;
		default:
			return !is_first && c == 0xB7;
	}
}

bool
llm_jinja_is_name_char(uint32_t c)
{
	return llm_jinja_is_word(c) || is_identifier_char(c, false);
}

bool
llm_jinja_is_identifier(const char *text, size_t len)
{
	int n;

	for (size_t at = 0; at < len; at += (size_t) n)
		if (!is_identifier_char(llm_jinja_char_at(text, len, at, &n), at == 0))
			return false;
	return len > 0;
}

/* Capitals that are no letters: roman numerals, letters in circles. */
bool
llm_jinja_is_upper_char(uint32_t c)
{
	static const CharRange ranges[] = {
		{ 0x2160, 0x216F },	  { 0x24B6, 0x24CF },	{ 0x1F130, 0x1F149 },
		{ 0x1F150, 0x1F169 }, { 0x1F170, 0x1F189 },
	};

	return category(c) == UTF8PROC_CATEGORY_LU ||
		   is_in_ranges(c, ranges, sizeof(ranges) / sizeof(ranges[0]));
}

/* Small ones likewise, and letters that modify others. */
bool
llm_jinja_is_lower_char(uint32_t c)
{
	static const CharRange ranges[] = {
		{ 0x00AA, 0x00AA },	  { 0x00BA, 0x00BA },	{ 0x02B0, 0x02B8 },
		{ 0x02C0, 0x02C1 },	  { 0x02E0, 0x02E4 },	{ 0x0345, 0x0345 },
		{ 0x037A, 0x037A },	  { 0x1D2C, 0x1D6A },	{ 0x1D78, 0x1D78 },
		{ 0x1D9B, 0x1DBF },	  { 0x2071, 0x2071 },	{ 0x207F, 0x207F },
		{ 0x2090, 0x209C },	  { 0x2170, 0x217F },	{ 0x24D0, 0x24E9 },
		{ 0x2C7C, 0x2C7D },	  { 0xA69C, 0xA69D },	{ 0xA770, 0xA770 },
		{ 0xA7F8, 0xA7F9 },	  { 0xAB5C, 0xAB5F },	{ 0x10780, 0x10780 },
		{ 0x10783, 0x10785 }, { 0x10787, 0x107B0 }, { 0x107B2, 0x107BA },
	};

	return category(c) == UTF8PROC_CATEGORY_LL ||
		   is_in_ranges(c, ranges, sizeof(ranges) / sizeof(ranges[0]));
}

bool
llm_jinja_is_title_char(uint32_t c)
{
	return category(c) == UTF8PROC_CATEGORY_LT;
}

static bool
is_cased(uint32_t c)
{
	return llm_jinja_is_upper_char(c) || llm_jinja_is_lower_char(c) ||
		   llm_jinja_is_title_char(c);
}

/* What may stand between a letter and the end of its word. */
static bool
is_case_ignorable(uint32_t c)
{
	switch (category(c))
	{
		case UTF8PROC_CATEGORY_MN:
		case UTF8PROC_CATEGORY_ME:
		case UTF8PROC_CATEGORY_CF:
		case UTF8PROC_CATEGORY_LM:
		case UTF8PROC_CATEGORY_SK:
			return true;
		default:
			return c == '\'' || c == '.' || c == ':' || c == 0xB7 ||
				   c == 0x387 || c == 0x55F || c == 0x5F4 || c == 0x2018 ||
				   c == 0x2019 || c == 0x2024 || c == 0x2027 || c == 0xFE13 ||
				   c == 0xFE52 || c == 0xFE55 || c == 0xFF07 || c == 0xFF0E ||
				   c == 0xFF1A;
	}
}

/* ---- case mapping ---- */

static void
append_char(LlmStrbuf *buf, uint32_t codepoint)
{
	char bytes[4];

	llm_strbuf_append(buf, bytes, (size_t) llm_utf8_encode(codepoint, bytes));
}

static int
compare_special_case(const void *key, const void *entry)
{
	uint32_t c = *(const uint32_t *) key;
	uint32_t e = ((const SpecialCase *) entry)->codepoint;

	return c < e ? -1 : c > e ? 1 : 0;
}

static void
append_capital(LlmStrbuf *buf, uint32_t c, bool is_title)
{
	const SpecialCase *special = NULL;
	const uint16_t *mapped;

	if (c >= 0xDF)
		special = bsearch(&c, special_cases, N_SPECIAL_CASES,
						  sizeof(SpecialCase), compare_special_case);
	if (special == NULL)
	{
		append_char(buf, (uint32_t) (is_title ? utf8proc_totitle((int32_t) c)
											  : utf8proc_toupper((int32_t) c)));
		return;
	}
	mapped = is_title ? special->title : special->upper;
	for (int i = 0; i < 3 && mapped[i] != 0; i++)
		append_char(buf, mapped[i]);
}

/* A sigma ends a word when a cased letter stands before it and none after. */
static bool
is_final_sigma(const char *text, size_t len, size_t at)
{
	bool found = false;
	int n;

	for (size_t i = at; i > 0;)
	{
		uint32_t c;

		i = llm_jinja_char_before(text, i);
		c = llm_jinja_char_at(text, len, i, &n);
		if (is_case_ignorable(c))
			continue;
		found = is_cased(c);
		break;
	}
	for (size_t i = at + 2; found && i < len; i += (size_t) n)
	{
		uint32_t c = llm_jinja_char_at(text, len, i, &n);

		if (is_case_ignorable(c))
			continue;
		return !is_cased(c);
	}
	return found;
}

static void
append_small(LlmStrbuf *buf, const char *text, size_t len, size_t at)
{
	int n;
	uint32_t c = llm_jinja_char_at(text, len, at, &n);

	if (c == CAPITAL_SIGMA)
		c = is_final_sigma(text, len, at) ? SMALL_FINAL_SIGMA : SMALL_SIGMA;
	else if (c == CAPITAL_I_WITH_DOT)
	{
		append_char(buf, 'i');
		c = COMBINING_DOT_ABOVE;
	}
	else
		c = (uint32_t) utf8proc_tolower((int32_t) c);
	append_char(buf, c);
}

static void
append_folded(LlmStrbuf *buf, uint32_t c)
{
	utf8proc_int32_t folded[8];
	utf8proc_ssize_t n = utf8proc_decompose_char((int32_t) c, folded, 8,
												 UTF8PROC_CASEFOLD, NULL);

	for (utf8proc_ssize_t i = 0; i < n && i < 8; i++)
		append_char(buf, (uint32_t) folded[i]);
}

void
llm_jinja_map_case(const char *text, size_t len, LlmJinjaCase mode,
				   LlmStrbuf *buf)
{
	bool in_word = false;
	int n;

	for (size_t at = 0; at < len; at += (size_t) n)
	{
		uint32_t c = llm_jinja_char_at(text, len, at, &n);
		LlmJinjaCase here = mode;

		if (mode == LLM_JINJA_TITLE)
			here = in_word ? LLM_JINJA_LOWER : LLM_JINJA_TITLE;
		else if (mode == LLM_JINJA_CAPITALIZE)
			here = at == 0 ? LLM_JINJA_TITLE : LLM_JINJA_LOWER;
		else if (mode == LLM_JINJA_SWAP && llm_jinja_is_upper_char(c))
			here = LLM_JINJA_LOWER;
		else if (mode == LLM_JINJA_SWAP && llm_jinja_is_lower_char(c))
			here = LLM_JINJA_UPPER;
		in_word = is_cased(c);
		if (here == LLM_JINJA_LOWER)
			append_small(buf, text, len, at);
		else if (here == LLM_JINJA_FOLD)
			append_folded(buf, c);
		else if (here == LLM_JINJA_SWAP)
			append_char(buf, c);
		else
			append_capital(buf, c, here == LLM_JINJA_TITLE);
	}
}

/* ---- stripping ---- */

static bool
is_stripped(uint32_t c, const char *at, int n, const LlmJinjaString *chars)
{
	if (chars == NULL)
		return llm_jinja_is_space(c);
	return memmem(chars->data, chars->len, at, (size_t) n) != NULL;
}

void
llm_jinja_strip_text(const char **text, size_t *len, LlmJinjaSides sides,
					 const LlmJinjaString *chars)
{
	size_t start = 0;
	size_t end = *len;
	int n;

	while ((sides & LLM_JINJA_LEFT) != 0 && start < end)
	{
		uint32_t c = llm_jinja_char_at(*text, *len, start, &n);

		if (!is_stripped(c, *text + start, n, chars))
			break;
		start += (size_t) n;
	}
	while ((sides & LLM_JINJA_RIGHT) != 0 && end > start)
	{
		size_t last = llm_jinja_char_before(*text, end);
		uint32_t c = llm_jinja_char_at(*text, *len, last, &n);

		if (!is_stripped(c, *text + last, n, chars))
			break;
		end = last;
	}
	*text += start;
	*len = end - start;
}
