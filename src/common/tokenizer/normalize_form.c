/*
 * normalize_form.c
 *	  NFC, NFD, NFKC, NFKD.
 *
 * The forms are computed only where a character could be affected: runs of
 * text that are unchanged by definition (see is_inert) are copied.  Decomposed
 * characters are put in order by a counting sort, so a text of nothing but
 * combining marks takes linear time; utf8proc's own exchange sort would not.
 *
 * src/common/tokenizer/normalize_form.c
 */
#include <assert.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "src/common/tokenizer/normalize_internal.h"
#include "src/common/tokenizer/unicode_class.h"

/* Most characters one character decomposes to (U+FDFA: 18). */
#define MAX_DECOMPOSITION 32

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
decompose(LlmNormalizerRun *run, UnicodeForm form, const char *text, size_t len,
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
		if (!llm_normalizer_tick(run, err))
			return false;
	}
	*count = n;
	return true;
}

/* A text's form in normalizer->codepoints; its length in *count. */
static bool
compute_form(LlmNormalizerRun *run, UnicodeForm form, const char *text,
			 size_t len, size_t *count, LlmError *err)
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
write_form(LlmNormalizerRun *run, UnicodeForm form, size_t start, size_t end,
		   LlmError *err)
{
	size_t n;

	assert(start < end && end <= run->in.len);
	if (!compute_form(run, form, run->in.text + start, end - start, &n, err))
		return false;
	for (size_t i = 0; i < n; i++)
		llm_normalizer_write_codepoint(
			run, (uint32_t) run->normalizer->codepoints[i],
			i == 0 ? start : run->in.len);
	return true;
}

/*
 * The origin of a first character that the form splits is its first part
 * above; its other parts belong to it as well, as far as nothing that follows
 * has changed them.
 */
static bool
extend_origin(LlmNormalizerRun *run, UnicodeForm form, LlmError *err)
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

bool
llm_normalizer_form(LlmNormalizerRun *run, LlmError *err)
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
			if ((off & 63) < n && !llm_normalizer_tick(run, err))
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
		llm_normalizer_copy(run, done, start);
		if (!write_form(run, form, start, off, err))
			return false;
		done = off;
		previous = off;
	}
	if (run->unchanged)
		return true;
	llm_normalizer_copy(run, done, len);
	return extend_origin(run, form, err);
}
