/*
 * normalize_charsmap.c
 *	  Precompiled: a text's grapheme clusters replaced by a charsmap.
 *
 * src/common/tokenizer/normalize_charsmap.c
 */
#include <assert.h>
#include <utf8proc.h>

#include "src/common/tokenizer/charsmap.h"
#include "src/common/tokenizer/normalize_internal.h"
#include "src/common/tokenizer/unicode_class.h"

/* Longer grapheme clusters are replaced character by character. */
#define MAX_CLUSTER_BYTES 5

/*
 * A row of replacements.  The reference takes the origin of each character it
 * writes from a cursor in the input; how far it moves depends on the next
 * replacement, should that remove characters, so one character is held back.
 */
typedef struct CharsmapRun
{
	LlmNormalizerRun *run;
	LlmCharsmap map;
	size_t cursor; /* in the input */
	bool waits;
	uint32_t cp;	/* the character that waits */
	int64_t change; /* > 0: inserted; else so many more are removed, negated */
} CharsmapRun;

static void
write_waiting(CharsmapRun *cr)
{
	LlmNormalizerRun *run = cr->run;
	bool from_start;

	if (!cr->waits)
		return;
	cr->waits = false;
	if (cr->change > 0)
		from_start = cr->cursor == 0 ? run->starts_text
									 : cr->cursor - 1 < run->in.origin_len;
	else
	{
		from_start = cr->cursor < run->in.origin_len;
		for (int64_t n = cr->change; n <= 0 && cr->cursor < run->in.len; n++)
		{
			uint32_t cp;

			cr->cursor += (size_t) llm_unicode_next(
				run->in.text + cr->cursor, run->in.len - cr->cursor, &cp);
		}
	}
	llm_normalizer_write_codepoint(run, cr->cp, from_start ? 0 : run->in.len);
}

static void
put_codepoint(CharsmapRun *cr, uint32_t cp, int64_t change)
{
	write_waiting(cr);
	cr->waits = true;
	cr->cp = cp;
	cr->change = change;
}

/*
 * Write text that stays as it is.  Once the cursor is past all that stems from
 * the start, where it stands does not matter any more.
 */
static void
write_kept(CharsmapRun *cr, size_t start, size_t end)
{
	const LlmNormalizerRun *run = cr->run;

	while (start < end && cr->cursor <= run->in.origin_len)
	{
		uint32_t cp;
		size_t n =
			(size_t) llm_unicode_next(run->in.text + start, end - start, &cp);

		put_codepoint(cr, cp, 0);
		start += n;
	}
	if (start == end)
		return;
	write_waiting(cr);
	llm_strbuf_append(run->out, run->in.text + start, end - start);
}

static size_t
count_codepoints(const char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += ((unsigned char) text[i] & 0xC0) != 0x80;
	return n;
}

/* Replace text at off if the map says so; what was kept before goes first. */
static bool
replace_mapped(CharsmapRun *cr, size_t kept, size_t off, size_t len)
{
	const char *text = cr->run->in.text + off;
	const char *new_text;
	size_t new_len;
	size_t n_old;
	size_t n = 0;

	if (!llm_charsmap_find(&cr->map, text, len, &new_text, &new_len))
		return false;
	cr->run->unchanged = false;
	write_kept(cr, kept, off);
	n_old = count_codepoints(text, len);
	for (size_t at = 0; at < new_len; n++)
	{
		uint32_t cp;

		at += (size_t) llm_unicode_next(new_text + at, new_len - at, &cp);
		put_codepoint(cr, cp, n < n_old ? 0 : 1);
	}
	if (n < n_old && cr->waits)
		cr->change -= (int64_t) (n_old - n);
	return true;
}

/* Replace the characters of a cluster one by one. */
static bool
map_characters(CharsmapRun *cr, size_t *kept, size_t off, size_t end,
			   LlmError *err)
{
	while (off < end)
	{
		uint32_t cp;
		size_t n =
			(size_t) llm_unicode_next(cr->run->in.text + off, end - off, &cp);

		if (replace_mapped(cr, *kept, off, n))
			*kept = off + n;
		off += n;
		if (!llm_normalizer_tick(cr->run, err))
			return false;
	}
	return true;
}

/* Where the grapheme cluster that starts at off ends. */
static size_t
cluster_end(const char *text, size_t len, size_t off)
{
	utf8proc_int32_t state = 0;
	uint32_t cp;
	uint32_t next;

	off += (size_t) llm_unicode_next(text + off, len - off, &cp);
	while (off < len)
	{
		size_t n = (size_t) llm_unicode_next(text + off, len - off, &next);

		if (next < 0x80 && cp != '\r')
			break; /* nothing but CR LF joins with ASCII */
		if (utf8proc_grapheme_break_stateful((utf8proc_int32_t) cp,
											 (utf8proc_int32_t) next, &state))
			break;
		cp = next;
		off += n;
	}
	return off;
}

bool
llm_normalizer_charsmap(LlmNormalizerRun *run, LlmError *err)
{
	CharsmapRun cr = { .run = run };
	const LlmStepRow *row = &run->normalizer->row;

	size_t kept = 0; /* start of text that is kept and not yet written */
	size_t off = 0;

	cr.map.trie =
		llm_step_row_text(row, run->step_idx, 0, &cr.map.n_trie_bytes);
	cr.map.texts =
		llm_step_row_text(row, run->step_idx, 1, &cr.map.n_text_bytes);
	run->unchanged = true;
	while (off < run->in.len)
	{
		size_t end = cluster_end(run->in.text, run->in.len, off);

		if (end - off > MAX_CLUSTER_BYTES ||
			!replace_mapped(&cr, kept, off, end - off))
		{
			if (!map_characters(&cr, &kept, off, end, err))
				return false;
		}
		else
			kept = end;
		off = end;
	}
	write_kept(&cr, kept, off);
	write_waiting(&cr);
	return true;
}
