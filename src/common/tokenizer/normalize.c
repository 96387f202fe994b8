/*
 * normalize.c
 *	  Normalizers: what happens to a text before it is cut into words.
 *
 * Every step reads the text of the one before and writes its own; a step that
 * would change nothing passes its input on.  normalize_form.c has the Unicode
 * forms, normalize_charsmap.c the precompiled replacements.
 *
 * src/common/tokenizer/normalize.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/common/tokenizer/normalize_internal.h"
#include "src/common/tokenizer/unicode_class.h"

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
void
llm_normalizer_write(LlmNormalizerRun *run, const char *text, size_t len,
					 size_t in_off)
{
	llm_strbuf_append(run->out, text, len);
	if (in_off < run->in.origin_len)
		run->origin_len = run->out->len;
}

void
llm_normalizer_write_codepoint(LlmNormalizerRun *run, uint32_t cp,
							   size_t in_off)
{
	char bytes[4];

	llm_normalizer_write(run, bytes, (size_t) llm_utf8_encode(cp, bytes),
						 in_off);
}

/* A run of the input as it is. */
void
llm_normalizer_copy(LlmNormalizerRun *run, size_t start, size_t end)
{
	size_t before = run->out->len;

	assert(start <= end && end <= run->in.len);
	llm_strbuf_append(run->out, run->in.text + start, end - start);
	if (start < run->in.origin_len)
		run->origin_len =
			before + (run->in.origin_len < end ? run->in.origin_len - start
											   : end - start);
}

bool
llm_normalizer_tick(LlmNormalizerRun *run, LlmError *err)
{
	return llm_encode_guard_tick(run->normalizer->guard) ||
		   llm_encode_cancelled(err);
}

/* ------------------------------------------------------ simple rewriting */

static bool
step_prepend(LlmNormalizerRun *run, LlmError *err)
{
	size_t len;
	const char *text =
		llm_step_row_text(&run->normalizer->row, run->step_idx, 0, &len);

	llm_strbuf_append(run->out, text, len);
	if (run->in.origin_len > 0)
		run->origin_len = len;
	llm_normalizer_copy(run, 0, run->in.len);
	return true;
}

/* What stands for a match takes its origin from the match's last byte. */
static void
write_replacement(LlmNormalizerRun *run, size_t match_end)
{
	size_t len;
	const char *text =
		llm_step_row_text(&run->normalizer->row, run->step_idx, 1, &len);

	if (match_end > 0)
		llm_normalizer_write(run, text, len, match_end - 1);
	else
	{
		llm_strbuf_append(run->out, text, len);
		if (run->starts_text)
			run->origin_len = run->out->len;
	}
}

static bool
step_replace(LlmNormalizerRun *run, LlmError *err)
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
		llm_normalizer_copy(run, done, start);
		write_replacement(run, start + len);
		done = start + len;
		if (!llm_normalizer_tick(run, err))
			return false;
	}
	if (!run->unchanged)
		llm_normalizer_copy(run, done, run->in.len);
	return true;
}

static bool
step_replace_regex(LlmNormalizerRun *run, LlmError *err)
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
		llm_normalizer_copy(run, done, start);
		write_replacement(run, end);
		done = end;
		if (!llm_normalizer_tick(run, err))
			return false;
	}
	llm_normalizer_copy(run, done, run->in.len);
	return true;
}

static bool
step_strip(LlmNormalizerRun *run, LlmError *err)
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
		llm_normalizer_copy(run, start, end);
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
map_codepoint(LlmNormalizerRun *run, LlmTokenStepKind kind, uint32_t cp,
			  size_t in_off)
{
	uint32_t lower[2];
	int n;

	switch (kind)
	{
		case LLM_NORM_LOWERCASE:
			n = llm_unicode_lowercase(cp, lower);
			for (int i = 0; i < n; i++)
				llm_normalizer_write_codepoint(run, lower[i], in_off);
			break;
		case LLM_NORM_STRIP_ACCENTS:
			if (!llm_unicode_is_accent(cp))
				llm_normalizer_write_codepoint(run, cp, in_off);
			break;
		case LLM_NORM_NMT:
			if (cp == 0)
				llm_normalizer_write(run, "", 1, in_off);
			else if (nmt_codepoint(cp) != 0)
				llm_normalizer_write_codepoint(run, nmt_codepoint(cp), in_off);
			break;
		case LLM_NORM_CLEAN_TEXT:
			if (clean_codepoint(cp) != 0)
				llm_normalizer_write_codepoint(run, clean_codepoint(cp),
											   in_off);
			break;
		case LLM_NORM_SPACE_IDEOGRAPHS:
			if (is_ideograph(cp))
				llm_normalizer_write(run, " ", 1, in_off);
			llm_normalizer_write_codepoint(run, cp, in_off);
			if (is_ideograph(cp))
				llm_normalizer_write(run, " ", 1, in_off);
			break;
		case LLM_NORM_STRIP_NONSPACING:
			if (!llm_unicode_is_nonspacing(cp))
				llm_normalizer_write_codepoint(run, cp, in_off);
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
step_map(LlmNormalizerRun *run, LlmError *err)
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
			llm_normalizer_copy(run, start, off);
		else
		{
			off += (size_t) llm_unicode_next(run->in.text + off,
											 run->in.len - off, &cp);
			map_codepoint(run, kind, cp, start);
		}
		if (!llm_normalizer_tick(run, err))
			return false;
	}
	return true;
}

static bool
step_byte_level(LlmNormalizerRun *run, LlmError *err)
{
	for (size_t off = 0; off < run->in.len; off++)
	{
		llm_normalizer_write_codepoint(
			run, llm_byte_level_encode((unsigned char) run->in.text[off]), off);
		if (!llm_normalizer_tick(run, err))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------- the chain */

static bool
run_step(LlmNormalizerRun *run, LlmError *err)
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
			return llm_normalizer_form(run, err);
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
			return llm_normalizer_charsmap(run, err);
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
		LlmNormalizerRun run = { .normalizer = normalizer,
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
