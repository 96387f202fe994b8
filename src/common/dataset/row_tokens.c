/*
 * row_tokens.c
 *	  The tokens of a text, and which of them are learned.
 *
 * A text is tokenized as a whole, as serving does; then each token is given
 * its place.  Almost always the bytes of the tokens, put together, are the
 * text, but for the blank that some tokenizers put before a word and the white
 * space that some added tokens swallow; so walking along both is exact, and
 * checked on the way.  Where it fails (a tokenizer that normalizes its input)
 * a place between two tokens is one where the text before it, tokenized alone,
 * gives the tokens before it; and where that does not hold, the row is bad.
 *
 * A token is learned if any of its bytes is to be.  A turn ends with the token
 * at which serving stops: of the white space that a template puts behind it
 * nothing is learned, and a token that stands right behind a turn's text is
 * its end, too.
 *
 * src/common/dataset/row_tokens.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/dataset/row_internal.h"

static bool
is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static bool
is_stop(const LlmRowConverter *converter, int32_t token_id)
{
	for (int32_t i = 0; i < converter->model.n_stop_ids; i++)
	{
		if (converter->model.stop_ids[i] == token_id)
			return true;
	}
	return false;
}

/* ---- places by walking along text and tokens ---- */

/* What the walk knows. */
typedef struct Walk
{
	LlmRowConverter *converter;
	const char *text;
	size_t len;
	size_t at; /* bytes that tokens account for */
} Walk;

/* Bytes of the text that a token's bytes stand for here, or -1. */
static ptrdiff_t
match_bytes(const Walk *walk, size_t at, const char *bytes, size_t n)
{
	if (n <= walk->len - at && memcmp(walk->text + at, bytes, n) == 0)
		return (ptrdiff_t) n;
	/* the blank may be the tokenizer's own */
	if (n > 0 && bytes[0] == ' ' && n - 1 <= walk->len - at &&
		memcmp(walk->text + at, bytes + 1, n - 1) == 0)
		return (ptrdiff_t) n - 1;
	return -1;
}

static ptrdiff_t
match_token(const Walk *walk, size_t at, int32_t token_id)
{
	LlmRowConverter *converter = walk->converter;
	ptrdiff_t n = match_bytes(walk, at, llm_strbuf_str(&converter->token),
							  converter->token.len);
	const char *content;
	size_t len;

	if (n >= 0)
		return n;
	content =
		llm_tokenizer_id_to_token(converter->model.tokenizer, token_id, &len);
	return content == NULL ? -1 : match_bytes(walk, at, content, len);
}

/* The place of the next token.  False without an error: it has none. */
static bool
step(Walk *walk, int32_t token_id, LlmTemplateSpan *place)
{
	size_t at = walk->at;
	ptrdiff_t n = match_token(walk, at, token_id);

	/* white space that this token, or the one before, has swallowed */
	while (n < 0 && at < walk->len && is_space(walk->text[at]))
		n = match_token(walk, ++at, token_id);
	if (n < 0)
		return false;
	*place = (LlmTemplateSpan){ at, at + (size_t) n };
	walk->at = place->end;
	return true;
}

/*
 * Fill the places of ids [n_ids], which were made without special tokens of
 * the tokenizer's own.  *is_exact: the walk came out.
 */
static bool
walk_along(LlmRowConverter *converter, const LlmStrbuf *text,
		   const int32_t *ids, size_t n_ids, LlmTemplateSpan *places,
		   bool *is_exact, LlmError *err)
{
	Walk walk = { .converter = converter,
				  .text = llm_strbuf_str(text),
				  .len = text->len };

	*is_exact = false;
	for (size_t i = 0; i < n_ids; i++)
	{
		llm_strbuf_reset(&converter->token);
		if (!llm_tokenizer_token_bytes(converter->model.tokenizer, ids[i],
									   &converter->token, err))
			return false;
		if (!step(&walk, ids[i], &places[i]))
			return true;
	}
	while (walk.at < walk.len && is_space(walk.text[walk.at]))
		walk.at++;
	*is_exact = walk.at == walk.len;
	return true;
}

/* ---- tokens of a stretch of text ---- */

/* How many tokens the text before a byte has, where it is cut there. */
static bool
count_before(LlmRowConverter *converter, const LlmRowExample *example,
			 size_t byte, size_t *n_tokens, LlmError *err)
{
	LlmIdbuf *before = &converter->prefix_ids;

	llm_idbuf_reset(before);
	if (!llm_tokenizer_encode(converter->model.tokenizer,
							  llm_strbuf_str(&example->rendering.text), byte,
							  false, converter->interrupt, before, err))
		return false;
	*n_tokens = example->n_lead + before->n_ids;
	if (*n_tokens > example->ids.n_ids ||
		(before->n_ids > 0 &&
		 memcmp(before->ids, example->ids.ids + example->n_lead,
				before->n_ids * sizeof(int32_t)) != 0))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "a token reaches over the beginning or the end of "
							 "an answer, at byte %zu of the text",
							 byte);
	return true;
}

/* The first token that is not all before a byte. */
static size_t
find_token(const LlmTemplateSpan *places, size_t n, size_t byte)
{
	size_t low = 0;
	size_t high = n;

	while (low < high)
	{
		const size_t middle = (low + high) / 2;

		if (places[middle].end <= byte && places[middle].begin < byte)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Tokens that a stretch of text has a part in; byte places if exact. */
static bool
find_range(LlmRowConverter *converter, const LlmRowExample *example,
		   const LlmTemplateSpan *places, LlmTemplateSpan *span, LlmError *err)
{
	const size_t n = example->n_text_ids;

	if (places == NULL)
		return count_before(converter, example, span->begin, &span->begin,
							err) &&
			   count_before(converter, example, span->end, &span->end, err);
	const LlmTemplateSpan bytes = *span;

	span->begin = find_token(places, n, bytes.begin);
	span->end = span->begin;
	while (span->end < n && places[span->end].begin < bytes.end)
		span->end++;
	span->begin += example->n_lead;
	span->end += example->n_lead;
	return true;
}

/* ---- labels ---- */

/* Is a token nothing but white space? */
static bool
is_blank(LlmRowConverter *converter, int32_t token_id)
{
	LlmStrbuf *token = &converter->token;
	LlmError ignored;

	llm_strbuf_reset(token);
	if (is_stop(converter, token_id) ||
		!llm_tokenizer_token_bytes(converter->model.tokenizer, token_id, token,
								   &ignored))
		return false;
	for (size_t i = 0; i < token->len; i++)
	{
		if (!is_space(token->data[i]))
			return false;
	}
	return true;
}

/*
 * Make the range of a turn's tokens end with the one that ends the turn: the
 * first at which serving stops of those that only blanks follow.
 */
static bool
end_at_stop(LlmRowConverter *converter, LlmRowExample *example,
			LlmTemplateSpan *range, LlmError *err)
{
	const int32_t *ids = example->ids.ids;
	size_t first_stop = 0;
	size_t end;

	for (end = range->end; end > range->begin; end--)
	{
		if (is_stop(converter, ids[end - 1]))
			first_stop = end;
		else if (!is_blank(converter, ids[end - 1]))
			break;
	}
	if (first_stop > 0)
	{
		range->end = first_stop;
		return true;
	}
	end = range->end;
	while (end < example->ids.n_ids && is_blank(converter, ids[end]))
		end++;
	if (end < example->ids.n_ids && is_stop(converter, ids[end]))
	{
		range->end = end + 1;
		return true;
	}
	if (end == example->ids.n_ids && converter->options.append_eos)
	{
		llm_idbuf_append(&example->ids, converter->end_id);
		llm_strbuf_append_char(&example->labels, 0);
		range->end = example->ids.n_ids;
		return true;
	}
	llm_error_set(err, LLM_ERROR_INVALID,
				  "the chat template does not end the answer with a token at "
				  "which generation stops");
	return llm_error_hint(err, "The model would not learn to stop. With "
							   "\"append_eos\" an end-of-text token is put "
							   "behind the last answer.");
}

static bool
label_spans(LlmRowConverter *converter, LlmRowExample *example,
			const LlmTemplateSpan *places, LlmError *err)
{
	const size_t n_spans =
		example->rendering.spans.len / sizeof(LlmTemplateSpan);

	for (size_t i = 0; i < n_spans; i++)
	{
		LlmTemplateSpan range =
			((LlmTemplateSpan *) (void *) example->rendering.spans.data)[i];

		if (!find_range(converter, example, places, &range, err) ||
			(!example->rendering.is_plain &&
			 !end_at_stop(converter, example, &range, err)))
			return false;
		assert(range.end <= example->ids.n_ids);
		if (example->labels.failed || example->ids.failed)
			return llm_error_no_memory(err, example->labels.len, "a row");
		memset(example->labels.data + range.begin, 1, range.end - range.begin);
		example->last_answer = range.begin;
	}
	return true;
}

/* The tokenizer's own ids around the text's. */
static bool
find_lead(LlmRowConverter *converter, LlmRowExample *example, LlmError *err)
{
	const LlmIdbuf *bare = &converter->prefix_ids;

	for (size_t lead = 0; lead + bare->n_ids <= example->ids.n_ids; lead++)
	{
		if (bare->n_ids == 0 || memcmp(bare->ids, example->ids.ids + lead,
									   bare->n_ids * sizeof(int32_t)) == 0)
		{
			example->n_lead = lead;
			example->n_text_ids = bare->n_ids;
			return true;
		}
	}
	return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
						 "the tokenizer changes a text's tokens when it adds "
						 "its own");
}

/* A plain text gets the tokenizer's own ids, and one that ends it. */
static bool
tokenize_plain(LlmRowConverter *converter, LlmRowExample *example,
			   LlmError *err)
{
	LlmTokenizer *tokenizer = converter->model.tokenizer;
	const LlmStrbuf *text = &example->rendering.text;
	LlmIdbuf *bare = &converter->prefix_ids;

	llm_idbuf_reset(bare);
	if (!llm_tokenizer_encode(tokenizer, llm_strbuf_str(text), text->len, true,
							  converter->interrupt, &example->ids, err) ||
		!llm_tokenizer_encode(tokenizer, llm_strbuf_str(text), text->len, false,
							  converter->interrupt, bare, err) ||
		!find_lead(converter, example, err))
		return false;
	if (example->ids.n_ids == 0 ||
		!is_stop(converter, example->ids.ids[example->ids.n_ids - 1]))
		llm_idbuf_append(&example->ids, converter->end_id);
	return true;
}

bool
llm_row_tokenize(LlmRowConverter *converter, LlmRowExample *example,
				 LlmError *err)
{
	const LlmStrbuf *text = &example->rendering.text;
	const LlmRowModel *model = &converter->model;

	llm_idbuf_reset(&example->ids);
	example->n_lead = 0;
	if (example->rendering.is_plain)
	{
		if (!tokenize_plain(converter, example, err))
			return false;
	}
	/* templates write their own BOS */
	else if (!llm_tokenizer_encode(model->tokenizer, llm_strbuf_str(text),
								   text->len, false, converter->interrupt,
								   &example->ids, err))
		return false;
	else
		example->n_text_ids = example->ids.n_ids;
	if (example->ids.failed)
		return llm_error_no_memory(err, text->len, "a row");
	for (size_t i = 0; i < example->ids.n_ids; i++)
	{
		if (example->ids.ids[i] >= model->n_vocab)
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "token %d of the text is beyond the model's "
								 "vocabulary of %d",
								 example->ids.ids[i], model->n_vocab);
	}
	return true;
}

bool
llm_row_label(LlmRowConverter *converter, LlmRowExample *example, LlmError *err)
{
	const size_t n = example->ids.n_ids;
	LlmTemplateSpan *places;
	char *labels;
	bool is_exact;

	llm_strbuf_reset(&converter->places);
	llm_strbuf_reset(&example->labels);
	places = (LlmTemplateSpan *) (void *) llm_strbuf_reserve(
		&converter->places, (example->n_text_ids + 1) * sizeof(*places));
	labels = llm_strbuf_reserve(&example->labels, n);
	if (places == NULL || labels == NULL)
		return llm_error_no_memory(err, n * sizeof(*places), "a row");
	memset(labels, 0, n);
	example->labels.len = n;
	if (!walk_along(converter, &example->rendering.text,
					example->ids.ids + example->n_lead, example->n_text_ids,
					places, &is_exact, err) ||
		!label_spans(converter, example, is_exact ? places : NULL, err))
		return false;
	labels = example->labels.data;
	/* a plain text ends with its end token */
	if (example->rendering.is_plain)
		labels[n - 1] = 1;
	if (converter->options.train_on_prompt)
		memset(labels, 1, example->labels.len);
	labels[0] = 0;
	return true;
}
