/*
 * normalize.c
 *	  Normalizers: what happens to a text before it is cut into words.
 *
 * Every step reads the text of the one before and writes its own; a step that
 * would change nothing passes its input on.  The Unicode forms are computed
 * only where a character could be affected: runs of text that are unchanged
 * by definition (see is_inert) are copied.  Decomposed characters are put in
 * order by a counting sort, so a text of nothing but combining marks takes
 * linear time; utf8proc's own exchange sort would not.
 *
 * src/common/tokenizer/normalize.c
 */
#include <assert.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "src/common/tokenizer/charsmap.h"
#include "src/common/tokenizer/tokenizer_internal.h"
#include "src/common/tokenizer/unicode_class.h"

/* Most characters one character decomposes to (U+FDFA: 18). */
#define MAX_DECOMPOSITION 32

/* A step at work. */
typedef struct StepRun
{
	LlmNormalizer *normalizer;
	size_t step_idx;
	LlmPiece in;
	bool starts_text;
	LlmStrbuf *out;
	size_t origin_len; /* of what was written so far */
	bool unchanged;	   /* the step passes its input on */
} StepRun;

void
llm_normalizer_free(LlmNormalizer *normalizer)
{
	llm_step_row_free(&normalizer->row);
	llm_strbuf_free(&normalizer->buffers[0]);
	llm_strbuf_free(&normalizer->buffers[1]);
	free(normalizer->codepoints);
	normalizer->codepoints = NULL;
	normalizer->n_codepoint_slots = 0;
}

/* Write text that stems from the input's byte in_off. */
static void
write_from(StepRun *run, const char *text, size_t len, size_t in_off)
{
	llm_strbuf_append(run->out, text, len);
	if (in_off < run->in.origin_len)
		run->origin_len = run->out->len;
}

static void
write_codepoint(StepRun *run, uint32_t cp, size_t in_off)
{
	char bytes[4];

	write_from(run, bytes, (size_t) llm_utf8_encode(cp, bytes), in_off);
}

/* A run of the input as it is. */
static void
copy_run(StepRun *run, size_t start, size_t end)
{
	size_t before = run->out->len;

	assert(start <= end && end <= run->in.len);
	llm_strbuf_append(run->out, run->in.text + start, end - start);
	if (start < run->in.origin_len)
		run->origin_len =
			before + (run->in.origin_len < end ? run->in.origin_len - start
											   : end - start);
}

static bool
tick(StepRun *run, LlmError *err)
{
	return llm_encode_guard_tick(run->normalizer->guard) ||
		   llm_encode_cancelled(err);
}

/* ------------------------------------------------------ simple rewriting */

static bool
step_prepend(StepRun *run, LlmError *err)
{
	size_t len;
	const char *text =
		llm_step_row_text(&run->normalizer->row, run->step_idx, 0, &len);

	llm_strbuf_append(run->out, text, len);
	if (run->in.origin_len > 0)
		run->origin_len = len;
	copy_run(run, 0, run->in.len);
	return true;
}

/* What stands for a match takes its origin from the match's last byte. */
static void
write_replacement(StepRun *run, size_t match_end)
{
	size_t len;
	const char *text =
		llm_step_row_text(&run->normalizer->row, run->step_idx, 1, &len);

	if (match_end > 0)
		write_from(run, text, len, match_end - 1);
	else
	{
		llm_strbuf_append(run->out, text, len);
		if (run->starts_text)
			run->origin_len = run->out->len;
	}
}

static bool
step_replace(StepRun *run, LlmError *err)
{
	size_t len;
	const char *pattern =
		llm_step_row_text(&run->normalizer->row, run->step_idx, 0, &len);
	const char *text = run->in.text;
	size_t done = 0;

	run->unchanged = true;
	if (len == 0)
		return true;
	for (;;)
	{
		const char *match =
			memmem(text + done, run->in.len - done, pattern, len);
		size_t start;

		if (match == NULL)
			break;
		run->unchanged = false;
		start = (size_t) (match - text);
		copy_run(run, done, start);
		write_replacement(run, start + len);
		done = start + len;
		if (!tick(run, err))
			return false;
	}
	if (!run->unchanged)
		copy_run(run, done, run->in.len);
	return true;
}

static bool
step_replace_regex(StepRun *run, LlmError *err)
{
	LlmRegexScan scan = llm_regex_scan(run->in.text, run->in.len);
	LlmSplitRegex *regex =
		llm_step_row_regex(&run->normalizer->row, run->step_idx, err);
	size_t done = 0;

	if (regex == NULL)
		return false;
	for (;;)
	{
		bool found;
		size_t start;
		size_t end;

		if (!llm_split_regex_next(regex, &scan, &found, &start, &end, err))
			return false;
		if (!found)
			break;
		copy_run(run, done, start);
		write_replacement(run, end);
		done = end;
		if (!tick(run, err))
			return false;
	}
	copy_run(run, done, run->in.len);
	return true;
}

static bool
step_strip(StepRun *run, LlmError *err)
{
	const LlmTokenStep *step = &run->normalizer->row.steps[run->step_idx];
	size_t start = 0;
	size_t end = run->in.len;
	uint32_t cp;

	while (step->numbers[0] != 0 && start < end)
	{
		int n = llm_unicode_next(run->in.text + start, end - start, &cp);

		if (!llm_unicode_is_whitespace(cp))
			break;
		start += (size_t) n;
	}
	while (step->numbers[1] != 0 && end > start)
	{
		size_t last = end - 1;

		while (last > start &&
			   ((unsigned char) run->in.text[last] & 0xC0) == 0x80)
			last--;
		llm_unicode_next(run->in.text + last, end - last, &cp);
		if (!llm_unicode_is_whitespace(cp))
			break;
		end = last;
	}
	run->unchanged = start == 0 && end == run->in.len;
	if (!run->unchanged)
		copy_run(run, start, end);
	return true;
}

/* What Nmt does to a character; 0 = drops it. */
static uint32_t
nmt_codepoint(uint32_t cp)
{
	if ((cp >= 0x01 && cp <= 0x08) || cp == 0x0B ||
		(cp >= 0x0E && cp <= 0x1F) || cp == 0x7F || cp == 0x8F || cp == 0x9F)
		return 0;
	if (cp == 0x09 || cp == 0x0A || cp == 0x0C || cp == 0x0D || cp == 0x1680 ||
		(cp >= 0x200B && cp <= 0x200F) || cp == 0x2028 || cp == 0x2029 ||
		cp == 0x2581 || cp == 0xFEFF || cp == 0xFFFD)
		return ' ';
	return cp;
}

/* BERT's cleaning: no controls, all white space alike; 0 = drops it. */
static uint32_t
clean_codepoint(uint32_t cp)
{
	if (cp == '\t' || cp == '\n' || cp == '\r')
		return ' ';
	if (cp == 0xFFFD || llm_unicode_is_control(cp))
		return 0;
	return llm_unicode_is_whitespace(cp) ? ' ' : cp;
}

static bool
is_ideograph(uint32_t cp)
{
	return (cp >= 0x4E00 && cp <= 0x9FFF) || (cp >= 0x3400 && cp <= 0x4DBF) ||
		   (cp >= 0x20000 && cp <= 0x2A6DF) ||
		   (cp >= 0x2A700 && cp <= 0x2B81F) ||
		   (cp >= 0x2B920 && cp <= 0x2CEAF) || (cp >= 0xF900 && cp <= 0xFAFF) ||
		   (cp >= 0x2F800 && cp <= 0x2FA1F);
}

static void
map_codepoint(StepRun *run, LlmTokenStepKind kind, uint32_t cp, size_t in_off)
{
	uint32_t lower[2];
	int n;

	switch (kind)
	{
		case LLM_NORM_LOWERCASE:
			n = llm_unicode_lowercase(cp, lower);
			for (int i = 0; i < n; i++)
				write_codepoint(run, lower[i], in_off);
			break;
		case LLM_NORM_STRIP_ACCENTS:
			if (!llm_unicode_is_accent(cp))
				write_codepoint(run, cp, in_off);
			break;
		case LLM_NORM_NMT:
			if (cp == 0)
				write_from(run, "", 1, in_off);
			else if (nmt_codepoint(cp) != 0)
				write_codepoint(run, nmt_codepoint(cp), in_off);
			break;
		case LLM_NORM_CLEAN_TEXT:
			if (clean_codepoint(cp) != 0)
				write_codepoint(run, clean_codepoint(cp), in_off);
			break;
		case LLM_NORM_SPACE_IDEOGRAPHS:
			if (is_ideograph(cp))
				write_from(run, " ", 1, in_off);
			write_codepoint(run, cp, in_off);
			if (is_ideograph(cp))
				write_from(run, " ", 1, in_off);
			break;
		case LLM_NORM_STRIP_NONSPACING:
			if (!llm_unicode_is_nonspacing(cp))
				write_codepoint(run, cp, in_off);
			break;
		default:
			assert(false);
	}
}

/* ASCII that such a step leaves alone. */
static bool
is_kept(LlmTokenStepKind kind, unsigned char c)
{
	if (kind == LLM_NORM_LOWERCASE)
		return c < 0x80 && (c < 'A' || c > 'Z');
	return c >= 0x20 && c < 0x7F;
}

/* The steps that look at one character at a time. */
static bool
step_map(StepRun *run, LlmError *err)
{
	LlmTokenStepKind kind = run->normalizer->row.steps[run->step_idx].kind;
	size_t off = 0;

	while (off < run->in.len)
	{
		size_t start = off;
		uint32_t cp;

		while (off < run->in.len && off - start < 64 &&
			   is_kept(kind, (unsigned char) run->in.text[off]))
			off++;
		if (off > start)
			copy_run(run, start, off);
		else
		{
			off += (size_t) llm_unicode_next(run->in.text + off,
											 run->in.len - off, &cp);
			map_codepoint(run, kind, cp, start);
		}
		if (!tick(run, err))
			return false;
	}
	return true;
}

static bool
step_byte_level(StepRun *run, LlmError *err)
{
	for (size_t off = 0; off < run->in.len; off++)
	{
		write_codepoint(
			run, llm_byte_level_encode((unsigned char) run->in.text[off]), off);
		if (!tick(run, err))
			return false;
	}
	return true;
}

/* ---------------------------------------------------------------- charsmap */

/* Longer grapheme clusters are replaced character by character. */
#define MAX_CLUSTER_BYTES 5

/*
 * A row of replacements.  The reference takes the origin of each character it
 * writes from a cursor in the input; how far it moves depends on the next
 * replacement, should that remove characters, so one character is held back.
 */
typedef struct CharsmapRun
{
	StepRun *run;
	LlmCharsmap map;
	size_t cursor; /* in the input */
	bool waits;
	uint32_t cp;	/* the character that waits */
	int64_t change; /* > 0: inserted; else so many more are removed, negated */
} CharsmapRun;

static void
write_waiting(CharsmapRun *cr)
{
	StepRun *run = cr->run;
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
	write_codepoint(run, cr->cp, from_start ? 0 : run->in.len);
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
	const StepRun *run = cr->run;

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
		if (!tick(cr->run, err))
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

static bool
step_charsmap(StepRun *run, LlmError *err)
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

/* ------------------------------------------------------- Unicode forms */

typedef struct UnicodeForm
{
	bool compose;
	bool compat;
} UnicodeForm;

static UnicodeForm
form_of(LlmTokenStepKind kind)
{
	return (UnicodeForm){
		.compose = kind == LLM_NORM_NFC || kind == LLM_NORM_NFKC,
		.compat = kind == LLM_NORM_NFKC || kind == LLM_NORM_NFKD,
	};
}

/*
 * True where the form leaves the character alone whatever stands around it,
 * save that a composing form may join a following mark to it.
 */
static bool
is_inert(UnicodeForm form, uint32_t cp)
{
	const utf8proc_property_t *property;

	if (cp < (form.compat ? 0xA0u : form.compose ? 0x300u : 0xC0u))
		return true;
	if ((cp >= 0x3400 && cp <= 0x4DBF) || (cp >= 0x4E00 && cp <= 0x9FFF))
		return true; /* ideographs */
	if (cp >= 0xAC00 && cp <= 0xD7A3)
		return form.compose; /* Hangul syllables */
	if (cp >= 0x1100 && cp <= 0x11FF)
		return false; /* Hangul letters, which join into syllables */
	property = utf8proc_get_property((utf8proc_int32_t) cp);
	if (property->combining_class != 0 || llm_unicode_is_mark(cp))
		return false;
	if (property->decomp_seqindex == UINT16_MAX)
		return true;
	return property->decomp_type != 0 && !form.compat;
}

static int
combining_class(int32_t cp)
{
	return utf8proc_get_property(cp)->combining_class;
}

/* Sort marks by combining class, keeping the order within a class. */
static void
sort_marks(int32_t *marks, size_t n, int32_t *scratch)
{
	size_t starts[256] = { 0 };
	size_t sum = 0;

	if (n <= 16)
	{
		for (size_t i = 1; i < n; i++)
		{
			int32_t mark = marks[i];
			size_t j = i;

			for (;
				 j > 0 && combining_class(marks[j - 1]) > combining_class(mark);
				 j--)
				marks[j] = marks[j - 1];
			marks[j] = mark;
		}
		return;
	}
	for (size_t i = 0; i < n; i++)
		starts[combining_class(marks[i])]++;
	for (int c = 0; c < 256; c++)
	{
		size_t count = starts[c];

		starts[c] = sum;
		sum += count;
	}
	for (size_t i = 0; i < n; i++)
		scratch[starts[combining_class(marks[i])]++] = marks[i];
	memcpy(marks, scratch, n * sizeof(*marks));
}

/* Canonical order: between two starters, marks by combining class. */
static void
order_marks(int32_t *cps, size_t n, int32_t *scratch)
{
	size_t i = 0;

	while (i < n)
	{
		size_t start = i;

		while (i < n && combining_class(cps[i]) != 0)
			i++;
		if (i - start > 1)
			sort_marks(cps + start, i - start, scratch);
		if (i == start)
			i++;
	}
}

/* Room for n code points in each half of the buffer. */
static bool
reserve_codepoints(LlmNormalizer *normalizer, size_t n, LlmError *err)
{
	int32_t *codepoints;
	size_t slots = normalizer->n_codepoint_slots;

	if (n <= slots / 2)
		return true;
	slots = slots < 512 ? 512 : slots;
	while (slots / 2 < n)
		slots *= 2;
	codepoints = realloc(normalizer->codepoints, slots * sizeof(int32_t));
	if (codepoints == NULL)
		return llm_error_no_memory(err, slots * sizeof(int32_t),
								   "normalization");
	normalizer->codepoints = codepoints;
	normalizer->n_codepoint_slots = slots;
	return true;
}

/* Decompose text into normalizer->codepoints; their number in *count. */
static bool
decompose(StepRun *run, UnicodeForm form, const char *text, size_t len,
		  size_t *count, LlmError *err)
{
	utf8proc_option_t options =
		UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
		(form.compat ? UTF8PROC_COMPAT : (utf8proc_option_t) 0);
	size_t n = 0;

	for (size_t off = 0; off < len;)
	{
		uint32_t cp;
		int bound_class = UTF8PROC_BOUNDCLASS_START;
		utf8proc_ssize_t n_new;

		off += (size_t) llm_unicode_next(text + off, len - off, &cp);
		if (!reserve_codepoints(run->normalizer, n + MAX_DECOMPOSITION, err))
			return false;
		n_new = utf8proc_decompose_char(
			(utf8proc_int32_t) cp, run->normalizer->codepoints + n,
			MAX_DECOMPOSITION, options, &bound_class);
		if (n_new < 0 || n_new > MAX_DECOMPOSITION)
			return llm_error_set(err, LLM_ERROR_INTERNAL,
								 "U+%04X does not decompose", cp);
		n += (size_t) n_new;
		if (!tick(run, err))
			return false;
	}
	*count = n;
	return true;
}

/* A text's form in normalizer->codepoints; its length in *count. */
static bool
compute_form(StepRun *run, UnicodeForm form, const char *text, size_t len,
			 size_t *count, LlmError *err)
{
	LlmNormalizer *normalizer = run->normalizer;
	utf8proc_ssize_t n_result;
	size_t n = 0;

	if (!decompose(run, form, text, len, &n, err))
		return false;
	order_marks(normalizer->codepoints, n,
				normalizer->codepoints + normalizer->n_codepoint_slots / 2);
	n_result = (utf8proc_ssize_t) n;
	if (form.compose)
		n_result = utf8proc_normalize_utf32(
			normalizer->codepoints, (utf8proc_ssize_t) n,
			(utf8proc_option_t) (UTF8PROC_STABLE | UTF8PROC_COMPOSE));
	if (n_result < 0)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "a text cannot be normalized: %s",
							 utf8proc_errmsg(n_result));
	*count = (size_t) n_result;
	return true;
}

/* The form of a stretch that starts and ends at inert characters. */
static bool
write_form(StepRun *run, UnicodeForm form, size_t start, size_t end,
		   LlmError *err)
{
	size_t n;

	assert(start < end && end <= run->in.len);
	if (!compute_form(run, form, run->in.text + start, end - start, &n, err))
		return false;
	for (size_t i = 0; i < n; i++)
		write_codepoint(run, (uint32_t) run->normalizer->codepoints[i],
						i == 0 ? start : run->in.len);
	return true;
}

/*
 * The origin of a first character that the form splits is its first part
 * above; its other parts belong to it as well, as far as nothing that follows
 * has changed them.
 */
static bool
extend_origin(StepRun *run, UnicodeForm form, LlmError *err)
{
	size_t n;
	size_t bytes = 0;

	if (run->in.origin_len == 0)
		return true;
	if (!compute_form(run, form, run->in.text,
					  run->in.origin_len < run->in.len ? run->in.origin_len
													   : run->in.len,
					  &n, err))
		return false;
	for (size_t i = 0; i < n; i++)
	{
		char encoded[4];
		size_t len = (size_t) llm_utf8_encode(
			(uint32_t) run->normalizer->codepoints[i], encoded);

		if (run->out->failed || len > run->out->len - bytes ||
			memcmp(run->out->data + bytes, encoded, len) != 0)
			break;
		bytes += len;
	}
	if (bytes > run->origin_len)
		run->origin_len = bytes;
	return true;
}

static bool
step_form(StepRun *run, LlmError *err)
{
	UnicodeForm form = form_of(run->normalizer->row.steps[run->step_idx].kind);
	const char *text = run->in.text;
	size_t len = run->in.len;
	size_t done = 0;	 /* written so far */
	size_t previous = 0; /* start of the character before off */
	size_t off = 0;

	run->unchanged = true;
	while (off < len)
	{
		uint32_t cp;
		size_t n = (size_t) llm_unicode_next(text + off, len - off, &cp);
		size_t start = off;

		if (is_inert(form, cp))
		{
			previous = off;
			off += n;
			if ((off & 63) < n && !tick(run, err))
				return false;
			continue;
		}
		run->unchanged = false;
		if (form.compose && previous >= done && previous < off)
			start = previous;
		for (off += n; off < len; off += n)
		{
			n = (size_t) llm_unicode_next(text + off, len - off, &cp);
			if (is_inert(form, cp))
				break;
		}
		copy_run(run, done, start);
		if (!write_form(run, form, start, off, err))
			return false;
		done = off;
		previous = off;
	}
	if (run->unchanged)
		return true;
	copy_run(run, done, len);
	return extend_origin(run, form, err);
}

/* ------------------------------------------------------------- the chain */

static bool
run_step(StepRun *run, LlmError *err)
{
	switch (run->normalizer->row.steps[run->step_idx].kind)
	{
		case LLM_NORM_PREPEND:
			return step_prepend(run, err);
		case LLM_NORM_REPLACE:
			return step_replace(run, err);
		case LLM_NORM_REPLACE_REGEX:
			return step_replace_regex(run, err);
		case LLM_NORM_NFC:
		case LLM_NORM_NFD:
		case LLM_NORM_NFKC:
		case LLM_NORM_NFKD:
			return step_form(run, err);
		case LLM_NORM_STRIP:
			return step_strip(run, err);
		case LLM_NORM_LOWERCASE:
		case LLM_NORM_STRIP_ACCENTS:
		case LLM_NORM_NMT:
		case LLM_NORM_CLEAN_TEXT:
		case LLM_NORM_SPACE_IDEOGRAPHS:
		case LLM_NORM_STRIP_NONSPACING:
			return step_map(run, err);
		case LLM_NORM_CHARSMAP:
			return step_charsmap(run, err);
		case LLM_NORM_BYTE_LEVEL:
			return step_byte_level(run, err);
		default:
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "the tokenizer image is damaged: unknown "
								 "normalizer");
	}
}

bool
llm_normalizer_run(LlmNormalizer *normalizer, LlmPiece in, bool starts_text,
				   LlmPiece *out, LlmError *err)
{
	int next = 0;

	for (size_t i = 0; i < normalizer->row.n_steps; i++)
	{
		StepRun run = { .normalizer = normalizer,
						.step_idx = i,
						.in = in,
						.starts_text = starts_text,
						.out = &normalizer->buffers[next] };

		if (in.len == 0)
			break; /* every step leaves an empty text empty */
		llm_strbuf_reset(run.out);
		if (!run_step(&run, err))
			return false;
		if (run.out->failed)
			return llm_error_no_memory(err, in.len, "a normalized text");
		if (run.unchanged)
			continue;
		in =
			(LlmPiece){ llm_strbuf_str(run.out), run.out->len, run.origin_len };
		next = 1 - next;
	}
	*out = in;
	return true;
}
