/*
 * added_tokens.c
 *	  Finding added tokens in a text.
 *
 * At every position the longest pattern that starts there wins, and the
 * search goes on behind it: leftmost-longest, as the reference's automaton
 * has it.  Patterns are few (hundreds, rarely thousands) and mostly start
 * with the same few bytes, so an index by first byte and a binary search in
 * the sorted patterns, one byte at a time, does without an automaton.
 *
 * A match may then be discarded (single_word) or widened over neighbouring
 * white space (lstrip, rstrip).  The search takes no notice of either: it
 * goes on behind the match itself, so that a token of spaces can match within
 * the spaces that its neighbour has swallowed.  That is the reference's
 * behaviour and kept on purpose.
 *
 * src/common/tokenizer/added_tokens.c
 */
#include <assert.h>

#include "src/common/tokenizer/tokenizer_internal.h"
#include "src/common/tokenizer/unicode_class.h"

#define MAX_CHARACTER_BYTES 4

/* Bytes before "end" were looked at. */
static inline void
see(LlmAddedPlace *place, size_t end)
{
	if (end > place->seen)
		place->seen = end;
}

static const char *
pattern_text(const LlmAddedMatcher *matcher, size_t idx, size_t *len)
{
	return llm_token_image_text(matcher->image, matcher->patterns[idx].text,
								len);
}

void
llm_added_matcher_init(LlmAddedMatcher *matcher, const LlmTokenImage *image,
					   LlmTokenSectionId section)
{
	size_t idx = 0;

	matcher->image = image;
	matcher->patterns =
		llm_token_image_section(image, section, &matcher->n_patterns);
	matcher->keep_special =
		(image->header->flags & LLM_TOKEN_KEEP_SPECIAL_TEXT) != 0;
	for (int byte = 0; byte < 256; byte++)
	{
		matcher->first[byte] = (uint32_t) idx;
		for (; idx < matcher->n_patterns; idx++)
		{
			size_t len;
			const char *text = pattern_text(matcher, idx, &len);

			/* in a damaged image the order may be anything: bounds hold */
			if (text != NULL && len > 0 && (unsigned char) text[0] > byte)
				break;
		}
	}
	matcher->first[256] = (uint32_t) matcher->n_patterns;
}

/*
 * The first pattern in [low, high) whose byte at depth is >= byte (or beyond,
 * with past = 1); shorter patterns sort first.
 */
static size_t
narrow(const LlmAddedMatcher *matcher, size_t low, size_t high, size_t depth,
	   int byte)
{
	while (low < high)
	{
		size_t middle = low + (high - low) / 2;
		size_t len;
		const char *text = pattern_text(matcher, middle, &len);

		if (text == NULL || len <= depth || (unsigned char) text[depth] < byte)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * The longest pattern that text starts with: its index, or SIZE_MAX.
 * *n_seen: the bytes that decided it, the text's end being one more.
 */
static size_t
longest_match(const LlmAddedMatcher *matcher, const char *text, size_t len,
			  size_t *n_seen)
{
	size_t low = matcher->first[(unsigned char) text[0]];
	size_t high = matcher->first[(unsigned char) text[0] + 1];
	size_t best = SIZE_MAX;

	*n_seen = 1;
	for (size_t depth = 1; low < high; depth++)
	{
		size_t pattern_len;

		*n_seen = depth + 1;

		/* a pattern that ends here sorts before those that go on */
		if (pattern_text(matcher, low, &pattern_len) != NULL &&
			pattern_len == depth)
			best = low;
		if (depth == len)
			break;
		low = narrow(matcher, low, high, depth, (unsigned char) text[depth]);
		high =
			narrow(matcher, low, high, depth, (unsigned char) text[depth] + 1);
	}
	return best;
}

static bool
ends_with_word(const char *text, size_t len)
{
	size_t last = len - 1;
	uint32_t cp;

	while (last > 0 && ((unsigned char) text[last] & 0xC0) == 0x80)
		last--;
	llm_unicode_next(text + last, len - last, &cp);
	return llm_unicode_is_word(cp);
}

static bool
starts_with_word(const char *text, size_t len)
{
	uint32_t cp;

	llm_unicode_next(text, len, &cp);
	return llm_unicode_is_word(cp);
}

/* Where the white space that ends text[0 .. end) starts. */
static size_t
space_start(const char *text, size_t end)
{
	while (end > 0)
	{
		size_t last = end - 1;
		uint32_t cp;

		while (last > 0 && ((unsigned char) text[last] & 0xC0) == 0x80)
			last--;
		llm_unicode_next(text + last, end - last, &cp);
		if (!llm_unicode_is_whitespace(cp))
			break;
		end = last;
	}
	return end;
}

/* Where the white space that starts at off ends. */
static size_t
space_end(const char *text, size_t len, size_t off)
{
	while (off < len)
	{
		uint32_t cp;
		int n = llm_unicode_next(text + off, len - off, &cp);

		if (!llm_unicode_is_whitespace(cp))
			break;
		off += (size_t) n;
	}
	return off;
}

/* A match that its token's options discard. */
static bool
is_discarded(const LlmAddedMatcher *matcher, const LlmTokenAdded *added,
			 const char *text, size_t len, size_t start, size_t end)
{
	if (matcher->keep_special && (added->flags & LLM_ADDED_SPECIAL) != 0)
		return true;
	if ((added->flags & LLM_ADDED_SINGLE_WORD) == 0)
		return false;
	return (start > 0 && ends_with_word(text, start)) ||
		   (end < len && starts_with_word(text + end, len - end));
}

/* Emit the text before a match that starts there, and the match's token. */
static bool
emit_match(const LlmTokenAdded *added, const char *text, size_t len,
		   size_t start, LlmAddedPlace *place, const LlmAddedSink *sink,
		   LlmError *err)
{
	size_t end = place->off;
	size_t done = place->done;

	if ((added->flags & LLM_ADDED_LSTRIP) != 0)
	{
		start = space_start(text, start);
		if (start < done)
			start = done;
	}
	if ((added->flags & LLM_ADDED_RSTRIP) != 0)
	{
		end = space_end(text, len, end);
		see(place, end + MAX_CHARACTER_BYTES);
	}
	if (done < start && !sink->text(sink->arg, text, done, start - done, err))
		return false;
	place->done = end;
	/* nothing is left of it where its neighbour's rstrip took it all */
	return start >= end || sink->token(sink->arg, added->token_id, place, err);
}

/* Most bytes start no pattern. */
static inline bool
may_start(const LlmAddedMatcher *matcher, char c)
{
	unsigned char byte = (unsigned char) c;

	return matcher->first[byte] != matcher->first[byte + 1];
}

/* The pattern that matches at the place, or SIZE_MAX; its length. */
static size_t
match_at(const LlmAddedMatcher *matcher, const char *text, size_t len,
		 LlmAddedPlace *place, size_t *match_len)
{
	size_t off = place->off;
	size_t n_seen;
	size_t match;

	match = longest_match(matcher, text + off, len - off, &n_seen);
	see(place, off + n_seen);
	if (match == SIZE_MAX)
		return SIZE_MAX;
	pattern_text(matcher, match, match_len);
	assert(*match_len > 0);
	return match;
}

bool
llm_added_matcher_split(const LlmAddedMatcher *matcher, LlmEncodeGuard *guard,
						const char *text, size_t len, const LlmAddedSink *sink,
						LlmError *err)
{
	LlmAddedPlace place = sink->from;

	assert(place.done <= len && place.off <= len);
	while (matcher->n_patterns > 0 && place.off < len)
	{
		size_t off = place.off;
		const LlmTokenAdded *added;
		size_t match;
		size_t match_len;

		if ((off & 63) == 0 && !llm_encode_guard_tick(guard))
			return llm_encode_cancelled(err);
		if (!may_start(matcher, text[off]))
		{
			place.off++;
			continue;
		}
		match = match_at(matcher, text, len, &place, &match_len);
		if (match == SIZE_MAX)
		{
			place.off++;
			continue;
		}
		if (matcher->patterns[match].added >= matcher->image->n_added)
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "the tokenizer image is damaged: a pattern "
								 "names no added token");
		added = &matcher->image->added[matcher->patterns[match].added];
		place.off += match_len;
		if ((added->flags & LLM_ADDED_SINGLE_WORD) != 0)
			see(&place, place.off + MAX_CHARACTER_BYTES);
		if (!is_discarded(matcher, added, text, len, off, place.off) &&
			!emit_match(added, text, len, off, &place, sink, err))
			return false;
	}
	return place.done >= len ||
		   sink->text(sink->arg, text, place.done, len - place.done, err);
}
