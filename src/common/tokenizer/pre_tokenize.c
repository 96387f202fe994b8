/*
 * pre_tokenize.c
 *	  Pre-tokenizers: cutting a text into the words that the model sees.
 *
 * The steps form a chain; each gets a piece and hands what it makes of it to
 * the next, the last one to the model.  So a text is cut depth first and no
 * list of pieces is ever built.  A step that rewrites (Metaspace, a leading
 * space, the byte-level alphabet) keeps its text in a buffer of its own, which
 * lives while the later steps work on it.
 *
 * src/common/tokenizer/pre_tokenize.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/common/tokenizer/tokenizer_internal.h"
#include "src/common/tokenizer/unicode_class.h"
#include "src/common/tokenizer/unicode_table.h"

static bool
run_step(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece, LlmError *err);

bool
llm_pre_tokenizer_init(LlmPreTokenizer *pre, const LlmTokenStep *steps,
					   size_t n_steps, LlmError *err)
{
	if (!llm_step_row_init(&pre->row, steps, n_steps, err))
		return false;
	pre->buffers = calloc(n_steps + 1, sizeof(*pre->buffers));
	if (pre->buffers == NULL)
		return llm_error_no_memory(err, n_steps * sizeof(*pre->buffers),
								   "pre-tokenizers");
	return true;
}

void
llm_pre_tokenizer_free(LlmPreTokenizer *pre)
{
	for (size_t i = 0; pre->buffers != NULL && i < pre->row.n_steps; i++)
		llm_strbuf_free(&pre->buffers[i]);
	free(pre->buffers);
	pre->buffers = NULL;
	llm_step_row_free(&pre->row);
}

/* Hand part of a piece to the next step; empty parts vanish. */
static bool
pass_on(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece, size_t start,
		size_t end, LlmError *err)
{
	LlmPiece part = { piece.text + start, end - start,
					  piece.origin_len > start ? piece.origin_len - start : 0 };

	assert(start <= end && end <= piece.len);
	if (part.len == 0)
		return true;
	if (!llm_encode_guard_tick(pre->guard))
		return llm_encode_cancelled(err);
	return run_step(pre, step_idx + 1, part, err);
}

/* --------------------------------------------------------------- splitting */

/*
 * Takes the matches and the texts between them, in order, and forms pieces
 * according to the behavior.  At most one piece is held back.
 */
typedef struct Splitter
{
	LlmPreTokenizer *pre;
	size_t step_idx;
	LlmPiece piece;
	LlmSplitBehavior behavior;
	bool inverted;
	bool has_held;
	bool held_is_match; /* the last part's kind */
	size_t held_start;
	size_t held_end;
} Splitter;

static Splitter
splitter(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece)
{
	const LlmTokenStep *step = &pre->row.steps[step_idx];

	return (Splitter){ .pre = pre,
					   .step_idx = step_idx,
					   .piece = piece,
					   .behavior = (LlmSplitBehavior) step->numbers[0],
					   .inverted = step->numbers[1] != 0 };
}

static bool
pass_held(Splitter *s, LlmError *err)
{
	if (!s->has_held)
		return true;
	s->has_held = false;
	return pass_on(s->pre, s->step_idx, s->piece, s->held_start, s->held_end,
				   err);
}

/* Should this part join the one that is held? */
static bool
joins_held(const Splitter *s, bool is_match)
{
	switch (s->behavior)
	{
		case LLM_SPLIT_CONTIGUOUS:
			return is_match == s->held_is_match;
		case LLM_SPLIT_MERGED_WITH_PREVIOUS:
			return is_match && !s->held_is_match;
		case LLM_SPLIT_MERGED_WITH_NEXT:
			return !is_match && s->held_is_match;
		default:
			return false;
	}
}

static bool
add_part(Splitter *s, size_t start, size_t end, bool is_match, LlmError *err)
{
	if (s->inverted)
		is_match = !is_match;
	switch (s->behavior)
	{
		case LLM_SPLIT_REMOVED:
			return is_match ||
				   pass_on(s->pre, s->step_idx, s->piece, start, end, err);
		case LLM_SPLIT_ISOLATED:
			return pass_on(s->pre, s->step_idx, s->piece, start, end, err);
		default:
			break;
	}
	if (s->has_held && joins_held(s, is_match))
		s->held_end = end;
	else
	{
		if (!pass_held(s, err))
			return false;
		s->has_held = true;
		s->held_start = start;
		s->held_end = end;
	}
	s->held_is_match = is_match;
	return true;
}

static bool
split_regex(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece,
			LlmError *err)
{
	LlmSplitRegex *regex = llm_step_row_regex(&pre->row, step_idx, err);
	LlmRegexScan scan = llm_regex_scan(piece.text, piece.len);
	Splitter s = splitter(pre, step_idx, piece);
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
		if (!llm_encode_guard_tick(pre->guard))
			return llm_encode_cancelled(err);
		if (done < start && !add_part(&s, done, start, false, err))
			return false;
		if (!add_part(&s, start, end, true, err))
			return false;
		done = end;
	}
	if (done < piece.len && !add_part(&s, done, piece.len, false, err))
		return false;
	return pass_held(&s, err);
}

static bool
split_literal(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece,
			  LlmError *err)
{
	size_t len;
	const char *pattern = llm_step_row_text(&pre->row, step_idx, 0, &len);
	Splitter s = splitter(pre, step_idx, piece);
	size_t done = 0;

	for (;;)
	{
		const char *match = len == 0 ? NULL
									 : memmem(piece.text + done,
											  piece.len - done, pattern, len);
		size_t start;

		if (match == NULL)
			break;
		start = (size_t) (match - piece.text);
		if (done < start && !add_part(&s, done, start, false, err))
			return false;
		if (!add_part(&s, start, start + len, true, err))
			return false;
		done = start + len;
	}
	if (done < piece.len && !add_part(&s, done, piece.len, false, err))
		return false;
	return pass_held(&s, err);
}

static bool
is_delimiter(LlmTokenStepKind kind, uint32_t cp)
{
	switch (kind)
	{
		case LLM_PRE_DIGITS:
			return llm_unicode_is_numeric(cp);
		case LLM_PRE_PUNCTUATION:
			return llm_unicode_is_punctuation(cp);
		default:
			return llm_unicode_is_whitespace(cp);
	}
}

/* Split at every character of a class. */
static bool
split_class(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece,
			LlmError *err)
{
	LlmTokenStepKind kind = pre->row.steps[step_idx].kind;
	Splitter s = splitter(pre, step_idx, piece);
	size_t done = 0;
	size_t off = 0;

	while (off < piece.len)
	{
		uint32_t cp;
		size_t start = off;

		off +=
			(size_t) llm_unicode_next(piece.text + off, piece.len - off, &cp);
		if (!is_delimiter(kind, cp))
			continue;
		if (!llm_encode_guard_tick(pre->guard))
			return llm_encode_cancelled(err);
		if (done < start && !add_part(&s, done, start, false, err))
			return false;
		if (!add_part(&s, start, off, true, err))
			return false;
		done = off;
	}
	if (done < off && !add_part(&s, done, off, false, err))
		return false;
	return pass_held(&s, err);
}

/* Keep runs of word characters and runs of what is neither word nor space. */
static bool
split_words(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece,
			LlmError *err)
{
	size_t start = 0;
	int run_class = 0; /* 0 space, 1 word, 2 other */

	for (size_t off = 0; off < piece.len;)
	{
		uint32_t cp;
		int n = llm_unicode_next(piece.text + off, piece.len - off, &cp);
		int class = llm_unicode_is_word(cp)			? 1
					: llm_unicode_is_whitespace(cp) ? 0
													: 2;

		if (class != run_class)
		{
			if (run_class != 0 &&
				!pass_on(pre, step_idx, piece, start, off, err))
				return false;
			start = off;
			run_class = class;
		}
		off += (size_t) n;
	}
	return run_class == 0 ||
		   pass_on(pre, step_idx, piece, start, piece.len, err);
}

/*
 * Cut where the script changes.  Characters of no script (spaces, unassigned)
 * stay with what is before them; at the start there is nothing, and the
 * reference drops them.
 */
static bool
split_scripts(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece,
			  LlmError *err)
{
	int script = LLM_SCRIPT_NONE;
	size_t start = 0;

	for (size_t off = 0; off < piece.len;)
	{
		uint32_t cp;
		int n = llm_unicode_next(piece.text + off, piece.len - off, &cp);
		int next = llm_unicode_script(cp);

		if (next != LLM_SCRIPT_NONE && next != script)
		{
			if (script != LLM_SCRIPT_NONE &&
				!pass_on(pre, step_idx, piece, start, off, err))
				return false;
			start = off;
			script = next;
		}
		off += (size_t) n;
	}
	return script == LLM_SCRIPT_NONE ||
		   pass_on(pre, step_idx, piece, start, piece.len, err);
}

static bool
split_fixed(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece,
			LlmError *err)
{
	int32_t n_chars = pre->row.steps[step_idx].numbers[0];
	size_t start = 0;
	size_t off = 0;

	while (off < piece.len)
	{
		for (int32_t i = 0; (i < n_chars || i == 0) && off < piece.len; i++)
		{
			uint32_t cp;

			off += (size_t) llm_unicode_next(piece.text + off, piece.len - off,
											 &cp);
		}
		if (!pass_on(pre, step_idx, piece, start, off, err))
			return false;
		start = off;
	}
	return true;
}

/* --------------------------------------------------------------- rewriting */

/* Start the buffer of a rewriting step. */
static LlmStrbuf *
start_rewrite(LlmPreTokenizer *pre, size_t step_idx)
{
	LlmStrbuf *buffer = &pre->buffers[step_idx];

	llm_strbuf_reset(buffer);
	return buffer;
}

static bool
finish_rewrite(LlmPreTokenizer *pre, size_t step_idx, size_t origin_len,
			   LlmPiece *piece, LlmError *err)
{
	LlmStrbuf *buffer = &pre->buffers[step_idx];

	if (buffer->failed)
		return llm_error_no_memory(err, piece->len, "a pre-tokenized text");
	*piece = (LlmPiece){ llm_strbuf_str(buffer), buffer->len, origin_len };
	return true;
}

static bool
prefix_space(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece,
			 LlmError *err)
{
	LlmStrbuf *buffer;

	if (piece.text[0] != ' ')
	{
		buffer = start_rewrite(pre, step_idx);
		llm_strbuf_append_char(buffer, ' ');
		llm_strbuf_append(buffer, piece.text, piece.len);
		if (!finish_rewrite(pre, step_idx,
							piece.origin_len > 0 ? piece.origin_len + 1 : 0,
							&piece, err))
			return false;
	}
	return run_step(pre, step_idx + 1, piece, err);
}

/* Spaces become the replacement, and one is put in front where it should. */
static bool
metaspace(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece, LlmError *err)
{
	LlmStrbuf *buffer = start_rewrite(pre, step_idx);
	int32_t scheme = pre->row.steps[step_idx].numbers[0];
	size_t len;
	const char *replacement = llm_step_row_text(&pre->row, step_idx, 0, &len);
	size_t origin_len = 0;
	size_t off = 0;
	bool starts =
		piece.text[0] == ' ' ||
		(piece.len >= len && memcmp(piece.text, replacement, len) == 0);

	if (!starts && (scheme == LLM_PREPEND_ALWAYS ||
					(scheme == LLM_PREPEND_FIRST && piece.origin_len > 0)))
	{
		llm_strbuf_append(buffer, replacement, len);
		origin_len = piece.origin_len > 0 ? len : 0;
	}
	while (off < piece.len)
	{
		const char *space = memchr(piece.text + off, ' ', piece.len - off);
		size_t end = space == NULL ? piece.len : (size_t) (space - piece.text);

		llm_strbuf_append(buffer, piece.text + off, end - off);
		if (space != NULL)
			llm_strbuf_append(buffer, replacement, len);
		if (off < piece.origin_len)
			origin_len += piece.origin_len < end ? piece.origin_len - off
						  : space != NULL && piece.origin_len > end
							  ? end - off + len
							  : end - off;
		off = end + (space != NULL ? 1 : 0);
		if (!llm_encode_guard_tick(pre->guard))
			return llm_encode_cancelled(err);
	}
	if (!finish_rewrite(pre, step_idx, origin_len, &piece, err))
		return false;
	return run_step(pre, step_idx + 1, piece, err);
}

static bool
byte_level(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece, LlmError *err)
{
	LlmStrbuf *buffer = start_rewrite(pre, step_idx);
	size_t origin_len = 0;

	for (size_t off = 0; off < piece.len; off++)
	{
		char bytes[4];
		int n = llm_utf8_encode(
			llm_byte_level_encode((unsigned char) piece.text[off]), bytes);

		llm_strbuf_append(buffer, bytes, (size_t) n);
		if (off < piece.origin_len)
			origin_len = buffer->len;
		if ((off & 63) == 0 && !llm_encode_guard_tick(pre->guard))
			return llm_encode_cancelled(err);
	}
	if (!finish_rewrite(pre, step_idx, origin_len, &piece, err))
		return false;
	return run_step(pre, step_idx + 1, piece, err);
}

/* --------------------------------------------------------------- the chain */

static bool
run_step(LlmPreTokenizer *pre, size_t step_idx, LlmPiece piece, LlmError *err)
{
	assert(piece.len > 0);
	if (step_idx == pre->row.n_steps)
		return pre->word(pre->arg, piece, err);
	switch (pre->row.steps[step_idx].kind)
	{
		case LLM_PRE_SPLIT:
			return split_literal(pre, step_idx, piece, err);
		case LLM_PRE_SPLIT_REGEX:
			return split_regex(pre, step_idx, piece, err);
		case LLM_PRE_DIGITS:
		case LLM_PRE_PUNCTUATION:
		case LLM_PRE_WHITESPACE:
			return split_class(pre, step_idx, piece, err);
		case LLM_PRE_WORDS:
			return split_words(pre, step_idx, piece, err);
		case LLM_PRE_FIXED_LENGTH:
			return split_fixed(pre, step_idx, piece, err);
		case LLM_PRE_SCRIPTS:
			return split_scripts(pre, step_idx, piece, err);
		case LLM_PRE_PREFIX_SPACE:
			return prefix_space(pre, step_idx, piece, err);
		case LLM_PRE_METASPACE:
			return metaspace(pre, step_idx, piece, err);
		case LLM_PRE_BYTE_LEVEL:
			return byte_level(pre, step_idx, piece, err);
		default:
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "the tokenizer image is damaged: unknown "
								 "pre-tokenizer");
	}
}

bool
llm_pre_tokenizer_run(LlmPreTokenizer *pre, LlmPiece piece, LlmError *err)
{
	return piece.len == 0 || run_step(pre, 0, piece, err);
}
