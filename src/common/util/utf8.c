/*
 * utf8.c
 *	  One UTF-8 character at a time.
 *
 * src/common/util/utf8.c
 */
#include "src/common/util/utf8.h"

#include <string.h>

/*
 * Bytes of a character by its first byte, 0 for none, and the bounds of its
 * second byte (Unicode 15, table 3-7).
 */
static int
expected_length(unsigned char lead, unsigned char *low, unsigned char *high)
{
	*low = 0x80;
	*high = 0xBF;
	if (lead < 0x80)
		return 1;
	if (lead >= 0xC2 && lead <= 0xDF)
		return 2;
	if (lead >= 0xE0 && lead <= 0xEF)
	{
		if (lead == 0xE0)
			*low = 0xA0;
		if (lead == 0xED)
			*high = 0x9F;
		return 3;
	}
	if (lead >= 0xF0 && lead <= 0xF4)
	{
		if (lead == 0xF0)
			*low = 0x90;
		if (lead == 0xF4)
			*high = 0x8F;
		return 4;
	}
	return 0;
}

int
llm_utf8_decode(const char *text, size_t len, uint32_t *codepoint)
{
	const unsigned char *s = (const unsigned char *) text;
	unsigned char low;
	unsigned char high;
	int n = expected_length(s[0], &low, &high);
	uint32_t cp;

	if (n == 0 || (size_t) n > len)
		return 0;
	if (n == 1)
	{
		*codepoint = s[0];
		return 1;
	}
	if (s[1] < low || s[1] > high)
		return 0;
	cp = s[0] & (0x7Fu >> n);
	for (int i = 1; i < n; i++)
	{
		if ((s[i] & 0xC0) != 0x80)
			return 0;
		cp = (cp << 6) | (s[i] & 0x3Fu);
	}
	*codepoint = cp;
	return n;
}

int
llm_utf8_encode(uint32_t codepoint, char *dest)
{
	if (codepoint < 0x80)
	{
		dest[0] = (char) codepoint;
		return 1;
	}
	if (codepoint < 0x800)
	{
		dest[0] = (char) (0xC0 | (codepoint >> 6));
		dest[1] = (char) (0x80 | (codepoint & 0x3F));
		return 2;
	}
	if (codepoint < 0x10000)
	{
		dest[0] = (char) (0xE0 | (codepoint >> 12));
		dest[1] = (char) (0x80 | ((codepoint >> 6) & 0x3F));
		dest[2] = (char) (0x80 | (codepoint & 0x3F));
		return 3;
	}
	dest[0] = (char) (0xF0 | (codepoint >> 18));
	dest[1] = (char) (0x80 | ((codepoint >> 12) & 0x3F));
	dest[2] = (char) (0x80 | ((codepoint >> 6) & 0x3F));
	dest[3] = (char) (0x80 | (codepoint & 0x3F));
	return 4;
}

/* The highest bit of each byte, in which ASCII has none. */
#define HIGH_BITS UINT64_C(0x8080808080808080)
#define LOW_BITS UINT64_C(0x0101010101010101)

size_t
llm_utf8_ascii_bytes(const char *text, size_t len)
{
	size_t n = 0;
	uint64_t word;

	while (len - n >= sizeof(word))
	{
		memcpy(&word, text + n, sizeof(word));
		if ((word & HIGH_BITS) != 0)
			break;
		n += sizeof(word);
	}
	while (n < len && ((unsigned char) text[n] & 0x80) == 0)
		n++;
	return n;
}

size_t
llm_utf8_count(const char *text, size_t len)
{
	size_t n_more = 0; /* bytes 10xxxxxx, which continue a character */
	size_t i = 0;
	uint64_t word;

	for (; len - i >= sizeof(word); i += sizeof(word))
	{
		memcpy(&word, text + i, sizeof(word));
		if ((word & HIGH_BITS) != 0)
			n_more += (((word >> 7) & ~(word >> 6) & LOW_BITS) * LOW_BITS) >>
					  (8 * (sizeof(word) - 1));
	}
	for (; i < len; i++)
		n_more += ((unsigned char) text[i] & 0xC0) == 0x80;
	return len - n_more;
}

bool
llm_utf8_is_valid(const char *text, size_t len)
{
	size_t off = llm_utf8_ascii_bytes(text, len);
	uint32_t cp;

	while (off < len)
	{
		int n = llm_utf8_decode(text + off, len - off, &cp);

		if (n == 0)
			return false;
		off += (size_t) n;
		off += llm_utf8_ascii_bytes(text + off, len - off);
	}
	return true;
}

size_t
llm_utf8_complete_prefix(const char *text, size_t len)
{
	/* a cut character has at most 3 bytes; find its first byte */
	for (size_t back = 1; back <= 3 && back <= len; back++)
	{
		unsigned char byte = (unsigned char) text[len - back];
		unsigned char low;
		unsigned char high;
		int n;

		if ((byte & 0xC0) == 0x80)
			continue;
		n = expected_length(byte, &low, &high);
		if (n <= (int) back)
			return len; /* complete, or never valid */
		if (back >= 2)
		{
			unsigned char second = (unsigned char) text[len - back + 1];

			if (second < low || second > high)
				return len;
		}
		return len - back;
	}
	return len;
}
