/*
 * charsmap.c
 *	  SentencePiece's precompiled replacements of characters.
 *
 * src/common/tokenizer/charsmap.c
 */
#include "src/common/tokenizer/charsmap.h"

#include <stdint.h>
#include <string.h>

#include "src/common/util/utf8.h"

/* ---------------------------------------------------------------- decoding */

/* The value of a base64 digit, or -1. */
static int
base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static bool
decode_base64(const char *text, LlmStrbuf *out)
{
	size_t len = strlen(text);
	uint32_t bits = 0;
	int n_bits = 0;

	if (len % 4 != 0)
		return false;
	for (int i = 0; i < 2 && len > 0 && text[len - 1] == '='; i++)
		len--;
	for (size_t i = 0; i < len; i++)
	{
		int digit = base64_digit(text[i]);

		if (digit < 0)
			return false;
		bits = bits << 6 | (uint32_t) digit;
		n_bits += 6;
		if (n_bits >= 8)
		{
			n_bits -= 8;
			llm_strbuf_append_char(out, (char) (bits >> n_bits & 0xFF));
		}
	}
	return (bits & ((1u << n_bits) - 1)) == 0;
}

static uint32_t
read_unit(const char *bytes)
{
	const unsigned char *b = (const unsigned char *) bytes;

	return b[0] | (uint32_t) b[1] << 8 | (uint32_t) b[2] << 16 |
		   (uint32_t) b[3] << 24;
}

bool
llm_charsmap_decode(const char *base64, LlmStrbuf *bytes, LlmCharsmap *map,
					LlmError *err)
{
	if (!decode_base64(base64, bytes))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "a precompiled charsmap is not valid base64");
	if (bytes->failed)
		return llm_error_no_memory(err, strlen(base64), "a charsmap");
	if (bytes->len < 4)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "a precompiled charsmap has only %zu bytes",
							 bytes->len);
	map->trie = bytes->data + 4;
	map->n_trie_bytes = read_unit(bytes->data);
	if (map->n_trie_bytes % 4 != 0 || map->n_trie_bytes == 0 ||
		map->n_trie_bytes > bytes->len - 4)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "a precompiled charsmap of %zu bytes has a trie "
							 "of %zu bytes",
							 bytes->len, map->n_trie_bytes);
	map->texts = map->trie + map->n_trie_bytes;
	map->n_text_bytes = bytes->len - 4 - map->n_trie_bytes;
	if (!llm_utf8_is_valid(map->texts, map->n_text_bytes))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "a precompiled charsmap holds texts that are not "
							 "valid UTF-8");
	return true;
}

/* --------------------------------------------------------------- searching */

/* A unit by its index; 0, which nothing matches, outside the trie. */
static uint32_t
unit_at(const LlmCharsmap *map, size_t idx)
{
	return idx < map->n_trie_bytes / 4 ? read_unit(map->trie + 4 * idx) : 0;
}

static size_t
unit_offset(uint32_t unit)
{
	return (size_t) (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

static bool
text_at(const LlmCharsmap *map, size_t off, const char **text, size_t *len)
{
	const char *end;

	if (off > map->n_text_bytes)
		return false;
	*text = map->texts + off;
	end = memchr(*text, '\0', map->n_text_bytes - off);
	*len = end != NULL ? (size_t) (end - *text) : map->n_text_bytes - off;
	return llm_utf8_is_valid(*text, *len);
}

bool
llm_charsmap_find(const LlmCharsmap *map, const char *text, size_t len,
				  const char **replacement, size_t *replacement_len)
{
	size_t at = unit_offset(unit_at(map, 0));

	for (size_t i = 0; i < len && text[i] != '\0'; i++)
	{
		unsigned char label = (unsigned char) text[i];
		uint32_t unit;

		at ^= label;
		unit = unit_at(map, at);
		if ((unit & (1u << 31 | 0xFF)) != label)
			return false;
		at ^= unit_offset(unit);
		if ((unit & 1u << 8) != 0)
			return text_at(map, unit_at(map, at) & ((1u << 31) - 1),
						   replacement, replacement_len);
	}
	return false;
}
