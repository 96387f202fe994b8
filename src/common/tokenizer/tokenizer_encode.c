/*
 * tokenizer_encode.c
 *	  The open tokenizer, and encoding from text to ids.
 *
 * Main file of the room; tokenizer_internal.h lists the others.  The stages
 * are connected by callbacks: a text is cut at added tokens, and what lies
 * between them runs through normalizer, second matcher, pre-tokenizer and
 * model before the next piece is looked at.  So memory beyond the result is
 * that of one piece, and cancelling takes effect at once.
 *
 * src/common/tokenizer/tokenizer_encode.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/common/tokenizer/tokenizer_internal.h"
#include "src/common/tokenizer/unicode_class.h"

/* Scratch buffers beyond this are given back after a call. */
#define KEEP_SCRATCH_BYTES (1024 * 1024)

bool
llm_encode_cancelled(LlmError *err)
{
	return llm_error_set(err, LLM_ERROR_CANCELLED,
						 "tokenization was cancelled");
}

/* --------------------------------------------------------------- step rows */

bool
llm_step_row_init(LlmStepRow *row, const LlmTokenStep *steps, size_t n_steps,
				  LlmError *err)
{
	row->steps = steps;
	row->n_steps = n_steps;
	row->regexes = calloc(n_steps + 1, sizeof(*row->regexes));
	if (row->regexes == NULL)
		return llm_error_no_memory(err, n_steps * sizeof(*row->regexes),
								   "a tokenizer");
	return true;
}

void
llm_step_row_free(LlmStepRow *row)
{
	for (size_t i = 0; row->regexes != NULL && i < row->n_steps; i++)
		llm_split_regex_free(row->regexes[i]);
	free(row->regexes);
	row->regexes = NULL;
}

const char *
llm_step_row_text(const LlmStepRow *row, size_t step_idx, int text_idx,
				  size_t *len)
{
	LlmTokenText text = row->steps[step_idx].text[text_idx];

	assert(text_idx == 0 || text_idx == 1);
	*len = 0;
	if ((uint64_t) text.off + text.len > row->n_blob_bytes)
		return "";
	*len = text.len;
	return row->blob + text.off;
}

LlmSplitRegex *
llm_step_row_regex(LlmStepRow *row, size_t step_idx, LlmError *err)
{
	assert(step_idx < row->n_steps);
	if (row->regexes[step_idx] == NULL)
	{
		size_t len;
		const char *pattern = llm_step_row_text(row, step_idx, 0, &len);

		row->regexes[step_idx] = llm_split_regex_create(pattern, len, err);
	}
	return row->regexes[step_idx];
}

/* ------------------------------------------------------------------ handle */

static bool encode_word(void *arg, LlmPiece word, LlmError *err);

static bool
open_row(const LlmTokenizer *tokenizer, LlmStepRow *row,
		 LlmTokenSectionId section, LlmError *err)
{
	size_t count;
	const LlmTokenStep *steps =
		llm_token_image_section(&tokenizer->image, section, &count);

	row->blob = tokenizer->image.blob;
	row->n_blob_bytes = tokenizer->image.n_blob_bytes;
	return llm_step_row_init(row, steps, count, err);
}

static bool
open_stages(LlmTokenizer *tokenizer, LlmError *err)
{
	const LlmTokenImage *image = &tokenizer->image;
	size_t count;
	const LlmTokenStep *steps =
		llm_token_image_section(image, LLM_TOKEN_PRE_TOKENIZERS, &count);

	llm_added_matcher_init(&tokenizer->raw_matcher, image,
						   LLM_TOKEN_PATTERNS_RAW);
	llm_added_matcher_init(&tokenizer->normalized_matcher, image,
						   LLM_TOKEN_PATTERNS_NORM);
	if (!open_row(tokenizer, &tokenizer->normalizer.row, LLM_TOKEN_NORMALIZERS,
				  err) ||
		!open_row(tokenizer, &tokenizer->decoders, LLM_TOKEN_DECODERS, err) ||
		!llm_pre_tokenizer_init(&tokenizer->pre, steps, count, err))
		return false;
	tokenizer->normalizer.guard = &tokenizer->guard;
	tokenizer->pre.row.blob = image->blob;
	tokenizer->pre.row.n_blob_bytes = image->n_blob_bytes;
	tokenizer->pre.guard = &tokenizer->guard;
	tokenizer->pre.word = encode_word;
	return true;
}

LlmTokenizer *
llm_tokenizer_open(const void *image, size_t n_bytes, LlmError *err)
{
	LlmTokenizer *tokenizer = calloc(1, sizeof(*tokenizer));

	if (tokenizer == NULL)
	{
		llm_error_no_memory(err, sizeof(*tokenizer), "a tokenizer");
		return NULL;
	}
	if (!llm_token_image_open(&tokenizer->image, image, n_bytes, err) ||
		!open_stages(tokenizer, err))
	{
		llm_tokenizer_close(tokenizer);
		return NULL;
	}
	return tokenizer;
}

void
llm_tokenizer_close(LlmTokenizer *tokenizer)
{
	if (tokenizer == NULL)
		return;
	llm_detokenizer_free(tokenizer->decoder);
	llm_word_model_free(tokenizer->model);
	llm_normalizer_free(&tokenizer->normalizer);
	llm_pre_tokenizer_free(&tokenizer->pre);
	llm_step_row_free(&tokenizer->decoders);
	llm_strbuf_free(&tokenizer->repaired);
	llm_encode_memory_free(&tokenizer->memory);
	free(tokenizer);
}

int32_t
llm_tokenizer_n_vocab(const LlmTokenizer *tokenizer)
{
	return (int32_t) tokenizer->image.n_ids;
}

int32_t
llm_tokenizer_token_to_id(const LlmTokenizer *tokenizer, const char *content,
						  size_t len)
{
	const LlmTokenImage *image = &tokenizer->image;
	int32_t token_id = llm_token_image_find_added(image, content, len);

	if (token_id < 0)
		token_id = llm_token_image_find(image, content, len);
	return token_id >= 0 && (uint32_t) token_id < image->n_ids ? token_id : -1;
}

const char *
llm_tokenizer_id_to_token(const LlmTokenizer *tokenizer, int32_t token_id,
						  size_t *len)
{
	const LlmTokenAdded *added =
		llm_token_image_added(&tokenizer->image, token_id);

	if (added != NULL)
		return llm_token_image_text(&tokenizer->image, added->content, len);
	return llm_token_image_content(&tokenizer->image, token_id, len);
}

bool
llm_tokenizer_is_special(const LlmTokenizer *tokenizer, int32_t token_id)
{
	const LlmTokenAdded *added =
		llm_token_image_added(&tokenizer->image, token_id);

	return added != NULL && (added->flags & LLM_ADDED_SKIPPED) != 0;
}

/* ---------------------------------------------------------------- encoding */

/* What the callbacks of one call share. */
typedef struct EncodeRun
{
	LlmTokenizer *tokenizer;
	LlmIdbuf *out;
	size_t text_start;	 /* where the text's ids begin in "out" */
	LlmPiece normalized; /* the text that the second matcher cuts */
} EncodeRun;

static bool
check_output(const LlmIdbuf *out, LlmError *err)
{
	if (!out->failed)
		return true;
	if (out->limit != 0)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "the text has more than %zu tokens", out->limit);
	return llm_error_no_memory(err, out->n_ids * sizeof(int32_t), "token ids");
}

static bool
encode_word(void *arg, LlmPiece word, LlmError *err)
{
	EncodeRun *run = arg;

	assert(word.len > 0);
	return llm_word_model_encode(run->tokenizer->model, word.text, word.len,
								 run->out, err) &&
		   check_output(run->out, err);
}

static bool
append_token(EncodeRun *run, int32_t token_id, LlmError *err)
{
	if (token_id < 0 || (uint32_t) token_id >= run->tokenizer->image.n_ids)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the tokenizer image is damaged: token id %d is "
							 "out of range",
							 token_id);
	llm_idbuf_append(run->out, token_id);
	return check_output(run->out, err);
}

static bool
encode_normalized_token(void *arg, int32_t token_id,
						const LlmAddedPlace *behind, LlmError *err)
{
	(void) behind;
	return append_token(arg, token_id, err);
}

/* Normalized text between added tokens of the second kind. */
static bool
encode_normalized(void *arg, const char *text, size_t off, size_t len,
				  LlmError *err)
{
	EncodeRun *run = arg;
	size_t origin_len = run->normalized.origin_len;
	LlmPiece piece = { text + off, len,
					   origin_len > off ? origin_len - off : 0 };

	run->tokenizer->pre.arg = run;
	return llm_pre_tokenizer_run(&run->tokenizer->pre, piece, err);
}

/* Text between added tokens of the first kind. */
static bool
encode_raw(void *arg, const char *text, size_t off, size_t len, LlmError *err)
{
	EncodeRun *run = arg;
	LlmTokenizer *tokenizer = run->tokenizer;
	LlmAddedSink sink = {
		encode_normalized, encode_normalized_token, run, { 0 }
	};
	LlmPiece piece = { text + off, len, 0 };
	uint32_t cp;

	if (off == 0)
		piece.origin_len = (size_t) llm_utf8_decode(text, len, &cp);
	if (!llm_normalizer_run(&tokenizer->normalizer, piece, off == 0,
							&run->normalized, err))
		return false;
	return llm_added_matcher_split(&tokenizer->normalized_matcher,
								   &tokenizer->guard, run->normalized.text,
								   run->normalized.len, &sink, err);
}

static bool
encode_raw_token(void *arg, int32_t token_id, const LlmAddedPlace *behind,
				 LlmError *err)
{
	EncodeRun *run = arg;

	if (!append_token(run, token_id, err))
		return false;
	llm_encode_memory_mark(&run->tokenizer->memory, behind,
						   run->out->n_ids - run->text_start);
	return true;
}

static bool
encode_text(EncodeRun *run, const char *text, size_t len, LlmError *err)
{
	LlmTokenizer *tokenizer = run->tokenizer;
	LlmAddedSink sink = { encode_raw, encode_raw_token, run, { 0 } };

	run->text_start = run->out->n_ids;
	sink.from =
		llm_encode_memory_recall(&tokenizer->memory, text, len, run->out);
	if (!check_output(run->out, err) ||
		!llm_added_matcher_split(&tokenizer->raw_matcher, &tokenizer->guard,
								 text, len, &sink, err))
	{
		llm_encode_memory_reset(&tokenizer->memory);
		return false;
	}
	llm_encode_memory_keep(&tokenizer->memory, text, len,
						   run->out->ids + run->text_start);
	return true;
}

/*
 * Replace what is no UTF-8 by U+FFFD, one for each maximal part of a character
 * (Unicode's recommended practice, and what decoders of JSON do).
 */
static bool
repair_utf8(LlmTokenizer *tokenizer, const char **text, size_t *len,
			LlmError *err)
{
	LlmStrbuf *repaired = &tokenizer->repaired;

	if (llm_utf8_is_valid(*text, *len))
		return true;
	llm_strbuf_reset(repaired);
	llm_unicode_append_lossy(repaired, *text, *len, true);
	if (repaired->failed)
		return llm_error_no_memory(err, *len, "a repaired text");
	*text = llm_strbuf_str(repaired);
	*len = repaired->len;
	return true;
}

/*
 * The pieces of the post-processor's template in order: ids of its own, and
 * the text's ids in their place (encoded once, copied should they recur).
 */
static bool
encode_template(EncodeRun *run, const char *text, size_t len,
				bool add_special_tokens, LlmError *err)
{
	size_t n_pieces;
	const int32_t *pieces = llm_token_image_section(
		&run->tokenizer->image, LLM_TOKEN_POST_PIECES, &n_pieces);
	bool is_encoded = false;
	size_t n_text_ids = 0;

	for (size_t i = 0; i < n_pieces; i++)
	{
		if (pieces[i] != LLM_TOKEN_POST_TEXT)
		{
			if (add_special_tokens && !append_token(run, pieces[i], err))
				return false;
		}
		else if (!is_encoded)
		{
			if (!encode_text(run, text, len, err))
				return false;
			is_encoded = true;
			n_text_ids = run->out->n_ids - run->text_start;
		}
		else
		{
			for (size_t k = 0; k < n_text_ids && !run->out->failed; k++)
				llm_idbuf_append(run->out, run->out->ids[run->text_start + k]);
		}
		if (!check_output(run->out, err))
			return false;
	}
	return true;
}

static void
trim_scratch(LlmTokenizer *tokenizer)
{
	LlmNormalizer *normalizer = &tokenizer->normalizer;

	for (int i = 0; i < 2; i++)
	{
		if (normalizer->buffers[i].capacity > KEEP_SCRATCH_BYTES)
			llm_strbuf_free(&normalizer->buffers[i]);
	}
	if (normalizer->n_codepoint_slots > KEEP_SCRATCH_BYTES / 4)
	{
		free(normalizer->codepoints);
		normalizer->codepoints = NULL;
		normalizer->n_codepoint_slots = 0;
	}
	for (size_t i = 0; i < tokenizer->pre.row.n_steps; i++)
	{
		if (tokenizer->pre.buffers[i].capacity > KEEP_SCRATCH_BYTES)
			llm_strbuf_free(&tokenizer->pre.buffers[i]);
	}
	if (tokenizer->repaired.capacity > KEEP_SCRATCH_BYTES)
		llm_strbuf_free(&tokenizer->repaired);
}

bool
llm_tokenizer_encode(LlmTokenizer *tokenizer, const char *text, size_t len,
					 bool add_special_tokens,
					 const volatile sig_atomic_t *interrupt, LlmIdbuf *out,
					 LlmError *err)
{
	EncodeRun run = { .tokenizer = tokenizer, .out = out };
	size_t n_before = out->n_ids;
	bool ok;

	assert(text != NULL || len == 0);
	if (!check_output(out, err))
		return false;
	if (tokenizer->model == NULL)
	{
		tokenizer->model =
			llm_word_model_create(&tokenizer->image, &tokenizer->guard, err);
		if (tokenizer->model == NULL)
			return false;
	}
	tokenizer->guard = (LlmEncodeGuard){ .interrupt = interrupt };
	if (interrupt != NULL && *interrupt != 0)
		return llm_encode_cancelled(err);
	ok = repair_utf8(tokenizer, &text, &len, err) &&
		 encode_template(&run, text, len, add_special_tokens, err);
	if (!ok)
	{
		out->n_ids = n_before;
		out->failed = false;
	}
	trim_scratch(tokenizer);
	return ok;
}
